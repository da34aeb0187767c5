"""Running a function once on Values, and freezing what it did as a trace."""
from __future__ import annotations

import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from types import CodeType, FrameType
from typing import Any

from .._core import ffi, lib
from ..value import WITHIN, Value, handle
from .form import Form, Nest, number, objects
from .nest import form_of
from .replay import Called, Trace, shown

Function = Callable[..., Nest]  # of Values, which it returns, too
LONG_CODE = 1 << 12  # bytes


class Recording:
    """A function under way that is being recorded by this thread.

    Attributes:
        start: a Value that is older than all that it computes.
        params: Values that are inputs besides its arguments.
        written_out: loops are written out step by step.
        calls: the loops that it has carried out as one, by the address of the core's.
    """

    def __init__(self, params: Sequence[Value], written_out: bool) -> None:
        self.start: Any = None
        self.params, self.written_out = params, written_out
        self.calls: dict[int, Called] = {}


class _Recordings(threading.local):
    def __init__(self) -> None:
        self.all: list[Recording] = []  # the innermost last


_under_way = _Recordings()


def under_way() -> Recording | None:
    """The innermost recording of this thread."""
    return _under_way.all[-1] if _under_way.all else None


def caller() -> FrameType:
    """The frame of the innermost code outside this package."""
    frame = sys._getframe(1)
    package = __name__.split(".")[0]
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == package:
        frame = frame.f_back
    return frame


def warn(frame: FrameType, message: str) -> None:
    """A RuntimeWarning of the line that a frame is at."""
    warnings.warn_explicit(
        message, RuntimeWarning, frame.f_code.co_filename, frame.f_lineno,
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )  # fmt: skip


def note_params_read() -> None:
    """Warn where the data of params are read within a function that is being differentiated, perhaps by them."""
    if handle.differentiating() and not handle.no_grad_by(0):
        warn(
            caller(),
            "a program's params were read as numbers within a function that is being differentiated: it has no "
            "derivative by them; call the program with a Value, or in no_grad() if they are constants",
        )


class Escapes:
    """What is called when something goes past the tape: raises where it is strict, else warns once a line."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self._warned: set[tuple[str, int]] = set()

    def __call__(self, what: str) -> None:
        frame = caller()
        where = frame.f_code.co_filename, frame.f_lineno
        message = f"while recording, {what}"
        if self.strict:
            raise RuntimeError(f"{message} ({shown(where[0])}:{where[1]})")
        if where not in self._warned:
            self._warned.add(where)
            warn(frame, message)


def _lines(code: CodeType) -> bytes | bool | None:
    """The line of each instruction of a long code object, as uint32; None for a short one, which is asked.

    The time that a frame takes to tell its line grows with its code. False: its caller's line is asked for.
    """
    if code.co_filename.startswith(WITHIN):
        return False
    length = len(code.co_code)
    if length < LONG_CODE:
        return None
    import dis  # slow to import, and seldom needed

    starts = [*dis.findlinestarts(code), (length, 0)]
    lines = bytearray(4 * (starts[0][0] // 2))
    for (start, line), (end, _) in zip(starts, starts[1:]):
        lines += (line or 0).to_bytes(4, sys.byteorder) * (end // 2 - start // 2)
    return bytes(lines + bytes(4))


def _named(code: CodeType | tuple[str, str] | None) -> tuple[str, str]:
    """File and name of what lines are of: code, what a program laid out here had, or nothing known."""
    return code if isinstance(code, tuple) else ("", "") if code is None else (code.co_filename, code.co_name)


def _outputs(result: Nest) -> tuple[Form, list[Value]]:
    """The form of what f returned, and its numbers: what is no Value is a constant."""
    what = "what f returned"
    form = form_of(result, what)
    values = [v if isinstance(v, Value) else Value(number(v, what)) for v in form.elements(result)]
    if not values:
        raise ValueError(f"f returned nothing to differentiate: {form}")
    return form, values


def trace(
    f: Function, forms: Sequence[Form], numbers: Iterable[float], params: Sequence[Value], escapes: Escapes,
    captured: Callable[[list[Value]], Sequence[Value]] | None = None, written_out: bool = False,
) -> tuple[Trace, Form]:  # fmt: skip
    """Run f once on Values made of these numbers, and freeze what it did.

    Args:
        written_out: as Recording has it.
        captured: is given the Values of recordings around this one that f has used, but for params, and gives what
            params are instead.

    Returns:
        What it did, and the form of its result.

    Raises:
        TypeError, ValueError: f returned no number, or a Value that it did not compute.
    """
    around, recording, begun = _under_way.all, Recording(params, written_out), True
    start: Any = None
    made = args = elements = result = values = start
    try:
        try:
            handle.begin_recording(escapes, _lines)
        except MemoryError:
            begun = False
            raise
        _under_way.all = [*around, recording]
        recording.start = start = Value(0.0)
        made = handle.leaves(numbers)
        elements = iter(made)
        args = [form.build(elements, objects) for form in forms]
        result = f(*args)
        if result is None:
            raise TypeError("f returned None: it has to return a Value, or a list or array of them")
        form, values = _outputs(result)
        if captured is not None and around:
            others = [v for other in around for v in other.params]
            params = captured(handle.older(start, made + list(params), values, around[0].start, others))
        before = time.perf_counter()
        address, codes = handle.freeze(start, made + list(params), values)
        seconds = time.perf_counter() - before
    finally:
        _under_way.all = around  # not by a call: Ctrl-C is heard after one
        if begun:
            handle.end_recording()
        recording.start = None
        start = made = args = elements = result = values = None  # a traceback that is kept keeps this frame
    program = ffi.gc(ffi.cast("tg_program *", address), lib.tg_free_program, ffi.cast("tg_program *", address).bytes)
    calls = [recording.calls[int(ffi.cast("uintptr_t", c.loop))] for c in program.call[0 : program.n_calls]]
    return Trace(program, list(map(_named, codes)), seconds, calls), form
