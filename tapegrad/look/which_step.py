"""`diagnose` of loops: the step in which what is not finite was made, looked for window after window."""
from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from ..loops import Loop
from ..loops.batch import LoopBatch
from ..program.batch import Rows
from ..program.form import Nest
from ..program.recorded import Recorded
from ..value import Value
from ..value import sum as sum_of
from . import steps
from .diagnosis import Diagnosis, is_bad, lines_of, of_adjoint, of_graph, of_rows, of_value
from .graph import NONE, Graph, Place
from .steps import Steps, Window


def _first_bad(numbers: Sequence[float], inf: bool) -> int | None:
    return next((k for k, x in enumerate(numbers) if is_bad(x, inf)), None)


class _Search:
    """From what is bad to where it was made; later: the lines from a window on to what is asked about."""

    def __init__(self, at: Steps, inf: bool) -> None:
        self._at, self._inf = at, inf
        self._later: list[Place] = []

    def _pass(self, graph: Graph, way: Sequence[int]) -> None:
        """What is bad came to a window's end on this way."""
        self._later = list(dict.fromkeys([*lines_of(graph, way), *self._later]))

    def found(self) -> Diagnosis | None:
        at, inf = self._at, self._inf
        if any(is_bad(x, inf) for x in at.out):
            for k in range(len(at.parts)):
                window = at.window(k, swept=False)
                for root in at.results(window):
                    if is_bad(window.graph.value(root), inf):
                        return self._of_value(k, window, root, window.graph.value(root), None, False)
            if at.total and (found := self._of_sum()):
                return found
        start = self._bad_input()
        return None if start is None else self._of_adjoint(*start)

    def _of_sum(self) -> Diagnosis | None:
        """The ys and what final gives are finite, their sum is not."""
        windows = (self._at.window(k, swept=False) for k in range(len(self._at.parts)))
        terms = [Value(w.graph.value(root)) for w in windows for root in self._at.results(w)]
        return of_graph(Graph.of_values([sum_of(terms)]), [], self._inf)

    def _of_value(
        self, k: int, window: Window, root: int, result: float, name: str | None, of_adjoint: bool
    ) -> Diagnosis:
        """A node of window k is bad."""
        while True:
            origin, way = of_value(window.graph, root, self._inf)
            if not k or origin.node not in window.state:
                return self._diagnosis(window, origin, way, result, name, of_adjoint)
            self._pass(window.graph, way)
            k, state = k - 1, origin.node
            window = self._at.window(k, swept=False)
            root = window.graph.roots[state]

    def _bad_input(self) -> tuple[int, int] | None:
        """An input whose derivative is bad: its window, and its node there. Of the first state, else of the first step
        an x, else of a param, in the last window where that is so; windows before the one asked for are left out."""
        state, x, param = self._at.derivatives(lambda numbers: _first_bad(numbers, self._inf))
        if state is None and x is None and param is None:
            return None
        for k, window in self._at.backward():
            nodes: Sequence[int] = ()
            if state is not None:
                nodes = window.state if not k else ()
            elif x is not None:
                nodes = window.xs if window.part.first <= x else ()
            else:
                nodes = window.params
            for i in nodes:
                if is_bad(window.graph.adjoint(i), self._inf):
                    return k, i
        return None

    def _of_adjoint(self, k: int, node: int) -> Diagnosis:
        """The adjoint of a node of window k is bad."""
        at, inf = self._at, self._inf
        window = at.window(k)
        graph = at.name(window)
        result, name = graph.adjoint(node), graph.names.get(node)
        by = [node]
        while True:
            origin, way = of_adjoint(window.graph, by, inf)
            weighed = self._weighed(k, window, origin)
            if weighed is None:
                break
            self._pass(window.graph, way)
            k, by = k + 1, [weighed]
            window = at.window(k)
        if k and origin.node in window.state and origin.operand == NONE and not origin.sum:
            self._pass(window.graph, way)
            before = at.window(k - 1, swept=False)
            return self._of_value(k - 1, before, before.graph.roots[origin.node], result, name, True)
        return self._diagnosis(window, origin, way, result, name, True)

    def _weighed(self, k: int, window: Window, origin: Any) -> int | None:
        """Of which number of the last state the bad weight is all that there is, if so."""
        if not origin.sum or window.part.ends:
            return None
        seed, roots = self._at.seed(k), window.graph.roots[: self._at.n_state]
        return next((i for i, root in enumerate(roots) if root == origin.node and is_bad(seed[i], self._inf)), None)

    def _diagnosis(
        self, window: Window, origin: Any, way: list[int], result: float, name: str | None, of_adjoint: bool
    ) -> Diagnosis:
        found = Diagnosis(self._at.name(window), origin, way, result, name, of_adjoint)
        found.way = list(dict.fromkeys([*found.way, *self._later]))
        found.step = window.step_of(origin.node)
        return found


def of_loop(loop: Loop, args: Sequence[Nest], inf: bool) -> Diagnosis | None:
    """Of a loop at these arguments."""
    return _Search(steps.at(loop, args), inf).found()


def of_batch(batch: LoopBatch, args: Sequence[Nest], inf: bool) -> Diagnosis | None:
    """Of the first row of a batch that is bad."""
    total = batch._loop._has_loss

    def rows_of(loop: Loop) -> Rows:
        return LoopBatch(loop, batch._axes, None, batch._threads)._at(args, {}, total)[0]

    def of_row(recorded: Recorded, flat: array[float], inf: bool) -> Diagnosis | None:
        def of(loop: Loop) -> Recorded:
            return recorded if loop is batch._loop else rows_of(loop).recorded

        return _Search(steps.looked_at(batch._loop, of, flat), inf).found()

    # Without a loss ys after the end of a row are nan: only its steps say whether it is bad.
    given = batch._loop._bound(args, {})
    return of_rows(rows_of(batch._loop), given, inf, of_row, total, lambda _: rows_of(steps.quiet(batch._loop)))
