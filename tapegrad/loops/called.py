"""Loops that are one instruction of a program: how they are recorded, and what C is told of them."""
from __future__ import annotations

import gc
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .._core import ffi, lib
from ..program import point
from ..program.arguments import Arguments
from ..program.form import Form, Nest, Static, objects, series
from ..program.nest import form_of
from ..program.recorded import Recorded, decoded
from ..program.replay import Feed, Job, Trace, instructions, zeros
from ..program.trace import Recording, trace, under_way
from ..value import Value, handle
from .cell import MOST_PATHS, Cell
from .layout import Spread, split
from .path import MOST_STEPS, LoopPath
from .values import part_of


class Call:
    """A loop as an instruction carries it out. Its inputs are the state, the xs step by step, then params; its outputs
    the last state, then the ys step by step.

    Attributes:
        step: takes lists of numbers, the state, x and params, and gives one, the next state and then y.
        length: how many steps.
        core: a tg_loop.
    """

    def __init__(self, step: Recorded, length: int) -> None:
        n_state, n_x, n_params = (form.size for form in step.forms)
        n_params += len(step.params)
        n_y = step.out.size - n_state
        self.step, self.length = step, length
        self._cell = Cell(step, range(n_params), "the step", repeats=False).described()
        self._arrays = [
            ffi.new("uint32_t[]", x)
            for x in (
                list(range(n_state, n_state + n_x)), [n_x] * n_x, list(range(n_state, n_state + n_y)), [n_y] * n_y
            )
        ]  # fmt: skip
        self.core = core = ffi.new("tg_loop *")
        core.step, core.n_state, core.n_x, core.n_y, core.length = self._cell[0], n_state, n_x, n_y, length
        core.n_params, core.first_param = n_params, n_state + n_x * length
        core.x_at, core.x_by, core.y_at, core.y_by = self._arrays

    @property
    def address(self) -> int:
        return int(ffi.cast("uintptr_t", self.core))

    @property
    def fits(self) -> bool:
        """Whether there are no more loops within one another than may be, and no more inputs."""
        deepest = max(path.core.depth for path in self.step.paths)
        return bool(deepest < lib.TG_DEEPEST and self.core.first_param + self.core.n_params < lib.TG_NONE)


def read(length: int, data: memoryview, within: int, most: int) -> Call:
    """The loop of so many steps whose step these bytes hold, in so many loops, with so many inputs and outputs at most;
    nothing in them is trusted.

    Raises:
        ValueError: they are none.
    """
    if within > lib.TG_DEEPEST:
        raise ValueError(f"more than {lib.TG_DEEPEST} loops are within one another")
    step = decoded(bytes(data), within=within)
    sizes = [form.size for form in step.forms]
    if len(sizes) != 3 or step.out.size < sizes[0] or length > MOST_STEPS:
        raise ValueError("a loop has no step, or too many")
    n_in = sizes[0] + sizes[1] * max(1, length) + sizes[2] + len(step.params)
    if n_in + sizes[0] + (step.out.size - sizes[0]) * max(1, length) > most + sizes[1] + step.out.size:
        raise ValueError("a loop has other inputs and outputs than its instruction")
    if len(step.paths) > MOST_PATHS:
        raise ValueError(f"a step has {len(step.paths)} paths")
    return Call(step, length)


# ---- recorded ----


class _Unfit(Exception):
    """The loop has to be unrolled."""


class _Impure(Exception):
    """f does something else when it is run again."""


class _Held(Exception):
    """f has put Values of a step somewhere else."""


class _Captured(Exception):
    """f has used Values of the recording around it that were not known to be inputs."""

    def __init__(self, values: list[Value]) -> None:
        self.values = values


class _Escapes:
    """Where something goes past the tape, the steps are unrolled, and it is told of there."""

    def __init__(self) -> None:
        self.any = False

    def __call__(self, what: str) -> None:
        self.any = True
        raise _Unfit


_IMPURE = (
    "a step of tapegrad.scan does something else when it is run again: what is not from its arguments, as a counter or "
    "random numbers, would be the same in all steps of an instruction; pass it in xs, or unroll=True"
)
_HELD = (
    "a step of tapegrad.scan has put its Values somewhere else than into what it returns: as one instruction of a "
    "program a loop gives the last state and the ys; return them as a part of y, or pass unroll=True"
)


def _refused() -> None:
    raise RuntimeError(
        "a sweep within record has come to a result of tapegrad.scan, which is one instruction of the program that is "
        "being recorded: tapegrad.scan(.., unroll=True) can be swept there"
    )


class _Flat:
    """A function as a step that takes and gives lists of numbers.

    Attributes:
        n_x: how many numbers x has.
        items: Values and numbers: the state, then the xs.
        values: Values among the params.
        state, y: forms of what f gives, once it was called; y is None without.
    """

    def __init__(
        self, f: Callable[..., Nest], state: Nest, xs: Nest, xs_form: Form, params: Sequence[Nest], length: int,
        of_numbers: bool,
    ) -> None:  # fmt: skip
        self._f, self._state = f, form_of(state, "the state")
        self.items = list(self._state.elements(state))
        parts = [part_of(xs, xs_form, step) for step in range(1 if isinstance(xs_form, Static) else length)]
        self._x = form_of(parts[0], "x")
        for part in parts:
            if form_of(part, "x") != self._x:
                raise _Unfit
            self.items += self._x.elements(part)
        self.n_state, self.n_x = self._state.size, self._x.size
        if not self.n_state or not (of_numbers or all(isinstance(x, (Value, float)) for x in self.items)):
            raise _Unfit  # what is an int may be more than a number to f
        self.values: list[Value] = []
        self._params = [self._open(p) for p in params]
        self.state: Form | None = None
        self.y: Form | None = None

    def _open(self, param: Nest) -> Callable[[Iterator[Value]], Nest]:
        """What makes the param of Values in their place; what has none is given as it is."""
        form = form_of(param, "a param")
        elements = list(form.elements(param))
        found = [x for x in elements if isinstance(x, Value)]
        self.values += found
        if not found:
            return lambda values: param
        return lambda values: form.build((next(values) if isinstance(x, Value) else x for x in elements), objects)

    def __call__(self, state: list[Value], x: list[Value], values: list[Value]) -> list[Any]:
        left = iter(values)
        params = [param(left) for param in self._params]
        out = self._f(self._state.build(iter(state), objects), self._x.build(iter(x), objects), *params)
        form = form_of(out, "what f gives")
        y = split(self._state, form, "f")
        parts: tuple[Form, ...] = (form,) if y is None else tuple(form.parts)  # type: ignore[attr-defined]
        if self.state is None:
            self.state, self.y = parts[0], y
        elif parts != ((self.state,) if y is None else (self.state, self.y)):
            raise _Unfit
        return list(form.elements(out))


def _same(a: Trace, b: Trace) -> bool:
    """Whether two paths do the same."""
    words = [
        [(p.n_const, p.n_instr, p.n_pool, p.n_out), *(
            ffi.buffer(at, n)[:]
            for at, n in (
                (p.constant, 8 * p.n_const), (instructions(p), 32 * p.n_instr), (p.pool, 8 * p.n_pool),
                (p.out, 8 * p.n_out),
            )
        )]
        for p in (a.core, b.core)
    ]  # fmt: skip
    return words[0] == words[1] and all(
        c.length == d.length and len(c.step.paths) == len(d.step.paths) and all(map(_same, c.step.paths, d.step.paths))
        for c, d in zip(a.calls, b.calls)
    )


def _step(flat: _Flat, numbers: array[float], captured: list[Value]) -> Recorded:
    """The step, recorded at the first state; captured is what it is known to use around it, and grows."""
    sizes = flat.n_state, flat.n_x, len(flat.values)
    forms = Arguments([series(list, n) for n in sizes])
    escapes: Any = _Escapes()
    first = True

    def check(values: list[Value]) -> list[Value]:
        if escapes.any:
            raise _Unfit
        known = set(map(id, captured))
        new = [v for v in values if id(v) not in known]
        if new and not first:
            raise _Captured(new)
        captured.extend(new)
        return captured

    path, out = trace(flat, forms, numbers, captured, escapes, check)
    first = False
    if not _same(path, trace(flat, forms, numbers, captured, escapes, check)[0]):
        raise _Impure
    step = Recorded(flat, forms, out, list(captured), [path], {}, "record", "raise", escapes)
    step.captured = check
    return step


def _carried_out(step: Recorded, inputs: array[float], length: int) -> array[float]:
    """What the loop gives; all paths that its steps take are known after it."""
    n_state, n_x, n_params = (form.size for form in step.forms)
    n_params += len(step.params)
    n_y = step.out.size - n_state
    n_out = n_state + n_y * length
    xs = Spread(Static(None), array("I", range(n_state, n_state + n_x)), array("I", [n_x] * n_x))
    ys = Spread(Static(None), array("I", range(n_state, n_state + n_y)), array("I", [n_y] * n_y))
    cell = Cell(step, range(n_params), "the step", repeats=False)
    path = LoopPath([cell, None, None], (n_state, n_x, n_y), len(inputs), n_out, xs, ys, length, None, False)
    out = zeros(n_out)
    job = Job([Feed(0, len(inputs), inputs)], 0, 1)
    job.out(out, n_out)
    path.run(job)
    return out


def _are_held(first: int) -> bool:
    """Whether somebody has Values of nodes from that id on."""
    if handle.held_from(first):
        gc.collect()
    return handle.held_from(first) > 0


def _recorded(flat: _Flat, length: int, before: int) -> tuple[list[Value], Call, array[float]]:
    """Inputs after the items, the loop, and what it gives."""
    items = iter(handle.primals([x for x in flat.items if isinstance(x, Value)]))
    numbers = array("d", (next(items) if isinstance(x, Value) else x for x in flat.items))
    data = array("d", handle.primals(flat.values))
    captured: list[Value] = []
    while True:
        try:
            step = _step(flat, numbers[: flat.n_state + flat.n_x] + data, captured)
            out = _carried_out(step, numbers + data + array("d", handle.primals(captured)), length)
            break
        except _Captured as more:
            captured += more.values
        if _are_held(before):  # or each time there is another one
            raise _Held
    call = Call(step.with_params(handle.primals(captured)), length)  # it holds no Values
    if not call.fits:
        raise _Unfit
    return [*flat.values, *captured], call, out


def _recording() -> Recording | None:
    """The recording under way, if a loop is one instruction of it: what it is told of is differentiated as a whole."""
    recording = None if handle.differentiating() or handle.no_grad_by(0) else under_way()
    return None if recording is None or recording.written_out else recording


def _laid_out(recording: Recording, call: Call, inputs: list[Value], out: array[float]) -> list[Value]:
    recording.calls[call.address] = call
    return handle.lay_out_call(call.address, inputs, list(out), _refused)


def _ruled(recorded: Recorded, at: Sequence[Value], out: array[float]) -> list[Value]:
    """Values of these data, which sweeps pass through; each by a sweep of the program."""

    def one(k: int, x: float) -> Value:
        y = Value(x, tuple(at), "program")

        def push() -> None:
            seed = zeros(len(out))
            seed[k] = y.grad
            grads = point.reverse(recorded, array("d", handle.primals(at)), seed)[1]
            for v, g in zip(at, grads):
                v.grad += g

        y._backward = push
        return y

    return [one(k, x) for k, x in enumerate(out)]


def program_called(recorded: Recorded, at: Sequence[Value], data: array[float]) -> list[Value]:
    """What a program that holds loops gives at these Values, of these data: as an instruction of the program that is
    being recorded, the step of a loop without a state, of one step; elsewhere as nodes with rules.

    Raises:
        TypeError: it is being differentiated within one.
    """
    recording, out = _recording(), point.value(recorded, data)
    if under_way() is None:
        return handle.leaves(out) if handle.no_grad_by(0) else _ruled(recorded, at, out)
    paths, children = list(recorded.paths), dict(recorded.children)
    forms = Arguments([series(list, n) for n in (0, 0, recorded.n_in)])
    step = Recorded(
        None, forms, series(list, recorded.n_out), [], paths, {at: k for at, k in children.items() if k < len(paths)},
        recorded.on_branch, recorded.on_error,
    )  # fmt: skip
    call = Call(step, 1) if recording is not None and len(paths) <= MOST_PATHS else None
    if recording is None or call is None or not call.fits:
        raise TypeError(
            "a program that holds loops takes numbers, not Values, in what is differentiated within record: call the "
            "function that it was recorded from, or record it with tapegrad.scan(.., unroll=True)"
        )
    return _laid_out(recording, call, list(at), out)


def called(
    f: Callable[..., Nest], state: Nest, xs: Nest, form: Form, params: Sequence[Nest], length: int,
    of_numbers: bool = False,
) -> tuple[Nest, list[Nest], Form | None] | None:  # fmt: skip
    """The last state, the y of each step and their form, as one instruction of the program that is being recorded; None
    where steps have to be laid out one by one: nothing is being recorded, or f does what a step cannot.

    Args:
        form: of xs.
        of_numbers: an int is a number to f, and nothing else.
    """
    recording = _recording()
    if recording is None or length < 2:
        return None
    before, found = handle.size(), None  # nodes keep their ids
    try:
        flat = _Flat(f, state, xs, form, params, length, of_numbers)
        found = _recorded(flat, length, before)
    except MemoryError:
        raise
    except _Impure:
        raise RuntimeError(_IMPURE) from None
    except Exception:  # whatever f raises where it gets Values: unrolled, it gets what it was given
        pass
    if _are_held(before):
        raise RuntimeError(_HELD)
    if found is None:
        return None
    values, call, out = found
    leaves = iter(handle.leaves([x for x in flat.items if not isinstance(x, Value)]))
    inputs = [x if isinstance(x, Value) else next(leaves) for x in flat.items] + values
    results = iter(_laid_out(recording, call, inputs, out))
    assert flat.state is not None
    last = flat.state.build(results, objects)
    if flat.y is None or not flat.y.size:
        return last, [], None
    return last, [flat.y.build(results, objects) for _ in range(length)], flat.y
