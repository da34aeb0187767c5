"""A loop at a point, as graphs of some of its steps at a time: its states forward, then the steps backward."""
from __future__ import annotations

import bisect
import copy
import itertools
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from .._core import ffi, lib
from ..loops import Loop
from ..loops.path import LoopPath
from ..program import point
from ..program.form import Nest
from ..program.program import Program
from ..program.recorded import Recorded
from ..program.replay import REFUSALS, CData, Feed, Job, zeros
from .graph import Codes, Graph, fresh, input_names, most_nodes

MOST = 1 << 15  # nodes of a graph, if a step has no more: 1.5 MB, which a near cache has

Cuts = Callable[[int], Collection[int]]


def none(n: int) -> Collection[int]:
    return ()


class Part(NamedTuple):
    """Some steps: the first, the one after the last, and whether what comes at the end of the loop is with them."""

    first: int
    stop: int
    ends: bool


class Window(NamedTuple):
    """Some steps as a graph; begin: the first node of each step, and where the last ends."""

    graph: Graph
    part: Part
    begin: list[int]
    state: range
    params: range
    xs: list[int]

    def step_of(self, node: int) -> int | None:
        """The step that a node is in; of what comes at the end, how many there were; None: it was given before them."""
        k = bisect.bisect_right(self.begin, node) - 1
        return self.part.first + k if k >= 0 else None


def quiet(loop: Loop) -> Loop:
    """The loop with nan where it would refuse; what steps have an except for is not nan where they are walked."""
    def copied(program: Program | None) -> Program | None:
        if program is None:
            return None
        recorded = copy.copy(program._recorded)
        recorded.on_error = "nan" if recorded.on_error == "nan" else "caught"
        return Program(recorded)

    step = copied(loop.step)
    assert step is not None
    return Loop(step, loop.length, copied(loop.final), loop.checkpoints, copied(loop.until), loop._owned)


class NoPath(Exception):
    """Once something is nan that was refused, a step asks what comes out as on no path."""


class Steps:
    """A loop at a point: its loss, or where it has none, the last state and all ys.

    Attributes:
        n: how many steps there are.
        out: what the loop gives.
        numbers: all inputs of the loop: the state, the xs, n_params params.
        paths: of the step, then of final.
        parts: the windows there are, in order.
        state_grad, param_grads: of the sum of what it gives, once all windows were gone over backward.
    """

    def __init__(self, loop: Loop, recorded: Recorded, flat: array[float], cuts: Cuts = none) -> None:
        """Of a loop that refuses nothing there, or is quiet; cuts: of how many steps there are gives those at which
        windows begin: if that number is among them, what comes at the end is in a window of its own."""
        path = recorded.paths[0]
        assert isinstance(path, LoopPath)
        self.total = loop._has_loss
        self.out = point.value(recorded, flat)  # and all paths are known
        self._loop, self.numbers, self._path = loop, flat, path
        self._core, self._held = path.described()
        self._final = self._core.final if self.total else ffi.NULL
        self._ends_in_state = not self.total or not (self._core.n_y or self._final)
        self.n_state, self.n_params = self._core.n_state, self._core.n_params
        of_step = loop.step._recorded.paths
        self.paths = [*of_step, *(loop.final._recorded.paths if loop.final else ())]
        self._one_path = len(of_step) == 1
        self._codes = Codes(self.paths)
        steps = max(1, MOST // max(1, most_nodes(of_step) + self._core.n_x))
        self.n = path.length if loop.until is None else self._counted(steps)
        begins = cuts(self.n)
        apart = self.has_final and self.n in begins
        ends = sorted({0, self.n, *range(0, self.n, steps), *(k for k in begins if k < self.n)})
        self.parts = [Part(a, b, b == self.n and not apart) for a, b in zip(ends, ends[1:])]
        if apart or not self.parts:
            self.parts.append(Part(self.n, self.n, True))
        self._forward()
        self._seeds = [array("d") for _ in self.parts]
        self._carried = [zeros(self.n_params) for _ in self.parts]
        self.state_grad, self.param_grads = zeros(self.n_state), zeros(self.n_params)

    def _walk(self, first: int, steps: int, state: array[float], taken: CData) -> int:
        """Go on for so many steps, or until the loop ends; how many there were."""
        numbers = self._doubles(self.numbers)
        walked: int = lib.tg_walk(self._core, numbers, first, steps, self._doubles(state), 0, taken)
        if walked == lib.TG_MEMORY:
            raise MemoryError
        if walked == lib.TG_BAD_ID:
            raise NoPath
        return walked

    def _counted(self, steps: int) -> int:
        """How many steps there are, so many of which are taken together."""
        state, taken, n, walked = self.numbers[: self.n_state], ffi.new("uint8_t[]", steps), 0, steps
        while walked == steps:
            walked = self._walk(n, min(steps, self._path.length - n), state, taken)
            n += walked
        return n

    def _forward(self) -> None:
        """The state before each window, and the paths that its steps take."""
        state = self.numbers[: self.n_state]
        self._states, self._taken = [], []
        same = ffi.new("uint8_t[]", max(part.stop - part.first for part in self.parts)) if self._one_path else None
        for part in self.parts:
            steps = part.stop - part.first
            taken = ffi.new("uint8_t[]", steps + 1) if part.ends or same is None else same
            self._states.append(state[:])
            self._taken.append(taken)
            self._walk(part.first, steps, state, taken)
            if part.ends and self.has_final:
                taken[steps] = self._path_of_final(state)

    def _path_of_final(self, state: array[float]) -> int:
        assert self._loop.final is not None
        final, first = self._loop.final._recorded, len(self.numbers) - self.n_params
        cell = self._path.cells[1]
        assert cell is not None
        inputs = state + array("d", (self.numbers[first + k] for k in cell._shared))
        return final.paths.index(point.path(final, inputs))

    @property
    def has_final(self) -> bool:
        """Whether a program of the last state is a part of the loss."""
        return bool(self._final)

    @staticmethod
    def _doubles(numbers: array[float]) -> CData:
        return ffi.from_buffer("double[]", numbers)

    def window(self, k: int, swept: bool = True) -> Window:
        """Window k; swept: with the adjoints, for which those after it have to have been gone over."""
        part, state = self.parts[k], self._states[k]
        steps = part.stop - part.first
        begin = ffi.new("uint32_t[]", steps + 1)
        ends = part.ends and self.has_final
        core = lib.tg_graph_of_steps(
            self._core, self._doubles(self.numbers), part.first, steps, self._doubles(state), self._taken[k], ends,
            self._codes.core, begin,
        )  # fmt: skip
        if core == ffi.NULL:
            raise MemoryError
        core = fresh(int(ffi.cast("uintptr_t", core)))
        graph = Graph(core, lambda i: self._codes.place(core.where[i]))
        graph.is_program, graph.codes = True, self._codes.all
        first, n = list(begin), self.n_state + self.n_params
        n_x = self._core.n_x
        xs = first[:-1] if n_x == 1 else [at + i for at in first[:-1] for i in range(n_x)]
        window = Window(graph, part, first, range(self.n_state), range(self.n_state, n), xs)
        graph.given = [*range(n), *xs]
        if swept:
            graph.sweep(self.seed(k))
        return window

    def seed(self, k: int) -> list[float]:
        """The weights of the roots of window k: of its last state, then of ys, then of what final gives."""
        part = self.parts[k]
        state: Sequence[float] = self._seeds[k]
        if part.ends:
            state = [float(self._ends_in_state)] * self.n_state
        ys = [1.0] * ((part.stop - part.first) * self._core.n_y)
        return [*state, *ys, *([1.0] if part.ends and self.has_final else [])]

    def results(self, window: Window) -> list[int]:
        """The nodes of what the loop gives, as far as they are in a window; of a loss, whose sum it is."""
        roots = window.graph.roots
        return roots if window.part.ends and self._ends_in_state else roots[self.n_state :]

    def derivatives(self, first: Callable[[Sequence[float]], int | None]) -> tuple[int | None, int | None, int | None]:
        """What `first` says of the derivatives of the sum of what it gives by the state, by each of a step's xs step
        after step, of which the least counts, and by the params."""
        feed = Feed(0, len(self.numbers), self.numbers)
        grad = feed.grad = zeros(len(self.numbers))
        feed.grad_stride = len(self.numbers)
        job = Job([feed] if self.numbers else [], 0, 1)
        job.out(zeros(len(self.out)), len(self.out))
        job.seed(array("d", (1.0,)) * len(self.out))
        self._path.run(job)
        core, n = self._core, self._path.length
        xs = (first(grad[at : at + n * by : by]) for at, by in ((core.x_at[i], core.x_by[i]) for i in range(core.n_x)))
        x = min((k for k in xs if k is not None), default=None)
        return first(grad[: self.n_state]), x, first(grad[len(grad) - self.n_params :])

    def backward(self) -> Iterator[tuple[int, Window]]:
        """All windows with their adjoints, the last first, and which these are."""
        for k in range(len(self.parts) - 1, -1, -1):
            window = self.window(k)
            yield k, window
            state = array("d", (window.graph.adjoint(i) for i in window.state))
            params = array("d", (window.graph.adjoint(i) + x for i, x in zip(window.params, self._carried[k])))
            if k:
                self._seeds[k - 1], self._carried[k - 1] = state, params
            else:
                self.state_grad, self.param_grads = state, params

    def name(self, window: Window, results: bool = False) -> Graph:
        """Name the inputs of a window as the step has them, x with its step if there are several; results: and the last
        state."""
        names, n = input_names(self._loop.step._recorded), self.n_state + self._core.n_x
        graph, several = window.graph, len(window.begin) > 2
        graph.names.update(zip(itertools.chain(window.state, window.params), names[: self.n_state] + names[n:]))
        for k, at in enumerate(window.begin[:-1]):
            of = f" of step {window.part.first + k}" if several else ""
            graph.names.update((at + i, name + of) for i, name in enumerate(names[self.n_state : n]))
        for name, root in zip(names[: self.n_state], graph.roots if results else ()):
            graph.names.setdefault(root, f"next {name}")
        return graph


def at(loop: Loop, args: Sequence[Nest], cuts: Cuts = none) -> Steps:
    """A loop at these arguments."""
    args = loop._bound(args, {})

    def of(loop: Loop) -> Recorded:
        return loop._for(args, loop._has_loss)

    return looked_at(loop, of, of(loop).flat(args), cuts)


def looked_at(loop: Loop, of: Callable[[Loop], Recorded], flat: array[float], cuts: Cuts = none) -> Steps:
    """A loop at these inputs, or where it refuses something, the same with nan there; of: what it is in either case, of
    so many steps."""
    try:
        return Steps(loop, of(loop), flat, cuts)
    except REFUSALS:
        loop = quiet(loop)
        try:
            return Steps(loop, of(loop), flat, cuts)
        except NoPath:
            pass  # then what was refused is what is to be said
        raise
