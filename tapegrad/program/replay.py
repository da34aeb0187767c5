"""One trace of a recorded function, and the jobs that replay it: what program.h declares, for Python."""
from __future__ import annotations

import threading
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Union

from .. import _refusals
from .._core import ffi, lib

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

CData = Any  # what is C's: cffi has no types
Buffer = Union["array[float]", "array[int]", "NDArray[float64]"]

SLICE = 1 << 22  # additions, in all lanes, that a call into C takes before Python looks for signals: 1 to 50 ms
COMPARISONS = ("<", "<=", ">", ">=")
GUARD = lib.tg_op_count
_LINE_BITS = lib.TG_WHERE_LINE
_OPERATIONS = [ffi.string(lib.tg_ops[op].method).decode() for op in range(lib.tg_op_count)]
_SYMBOLS = [ffi.string(lib.tg_ops[op].symbol).decode() for op in range(lib.tg_op_count)]
_KINDS = [ffi.string(lib.tg_ops[op].kind).decode() for op in range(lib.tg_op_count)]


class BranchChanged(RuntimeError):
    """A replay would take another branch than the recording did.

    Attributes:
        filename, lineno: the comparison, as far as it is known.
        operands: the two numbers now.
        outcome: what the comparison gives now; it was the opposite when recorded.
        row: the row of the batch, or None.
        missing: why there is no f to record the branch, where that was asked for; else "".
    """

    __module__ = "tapegrad"
    missing = ""

    def __init__(
        self, filename: str, lineno: int, operands: tuple[float, float], how: str, outcome: bool, row: int | None
    ) -> None:
        super().__init__(filename, lineno, operands, how, outcome, row)
        self.filename, self.lineno, self.operands, self.outcome, self.row = filename, lineno, operands, outcome, row
        self._how = how

    def __str__(self) -> str:
        a, b = self.operands
        row = "" if self.row is None else f" in row {self.row}"
        return (
            f"{self.filename}:{self.lineno}: {a!r} {self._how} {b!r} is {self.outcome}{row}, "
            f"was {not self.outcome} when recorded"
            + (f"; f, which could be recorded here, is missing: {self.missing}" if self.missing else "")
        )


class Trace:
    """One path through f: a program of the core, and the code objects that its lines are of, as (file, name)."""

    def __init__(self, program: CData, codes: list[tuple[str, str]], seconds: float) -> None:
        self.core = program
        self.codes = codes
        self.seconds = seconds  # of freezing
        self.native: tuple[CData, ...] | None = None  # a tg_native and what it points to, once compiled
        self.cost: int = lib.tg_cost(program) + 1  # of a row, in additions
        self.slice: int = SLICE * max(1, program.n_instr) // self.cost

    def place(self, where: int) -> tuple[str, int]:
        """File and line."""
        code, line = where >> _LINE_BITS, where & ((1 << _LINE_BITS) - 1)
        return (self.codes[code][0], line) if 0 < code < len(self.codes) else ("<unknown>", 0)

    def run(self, job: Job, stop: threading.Event | None = None) -> None:
        """Carry out a job, in slices."""
        c = job.c
        c.program, c.native = self.core, self.native[0] if self.native else ffi.NULL
        if lib.tg_start(c):
            raise MemoryError
        try:
            budget = max(1, self.slice // c.lanes)
            while lib.tg_run(c, budget):
                if stop is not None and stop.is_set():
                    break
        finally:
            lib.tg_finish(c)

    def guard(self, at: int) -> int | None:
        """The number of the guard that the instruction is, or None."""
        s = self.core.instr[at]
        return s.live_y if s.op == GUARD else None

    def error(self, at: int, job: Job, row: int | None) -> Exception:
        """The exception for the instruction that did not do as recorded."""
        s = self.core.instr[at]
        filename, line = self.place(s.where)
        a, b = job.c.fail_a, job.c.fail_b
        if s.op == GUARD:
            return BranchChanged(filename, line, (a, b), COMPARISONS[s.y >> 1], not s.y & 1, row)
        code = ffi.new("int *")
        lib.tg_evaluate(s.op, a, b, code)
        error = _refusals.refused(code[0], s.op, a, b)
        in_row = "" if row is None else f" in row {row}"
        return type(error)(f"{error}{in_row}, recorded at {filename}:{line}")

    def listing(self) -> str:
        """The instructions as text."""
        p = self.core
        results: dict[int, str] = {}

        def name(slot: int) -> str:
            if slot < p.n_const:
                return repr(p.constant[slot])
            return results[slot] if slot >= p.n_const + p.n_in else f"in{slot - p.n_const}"

        lines, guards = [f"{p.n_in} inputs, {p.n_const} constants, {p.n_instr} instructions"], 0
        for k in range(p.n_instr):
            s = p.instr[k]
            if s.op == GUARD:
                a, b = name(s.a), name(s.b)
                text = f"guard {guards}: {a} {COMPARISONS[s.y >> 1]} {b} is {bool(s.y & 1)}"
                guards += 1
            else:
                if _KINDS[s.op] == "many":
                    operands = [name(p.pool[2 * i]) for i in range(s.a, s.a + s.b)]
                    text = f"{_OPERATIONS[s.op]}({', '.join(operands)})"
                elif _KINDS[s.op] == "unary":
                    text = f"{_SYMBOLS[s.op]}({name(s.a)})"
                else:
                    text = f"{name(s.a)} {_SYMBOLS[s.op]} {name(s.b)}"
                results[s.y] = f"%{k}"
                text = f"%{k} = {text}"
            filename, line = self.place(s.where)
            lines.append(f"  {text:<40}  {filename}:{line}" if line else f"  {text}")
        out = [name(p.out[2 * k]) for k in range(p.n_out)]
        lines.append(f"  return {', '.join(out)}")
        return "\n".join(lines)


def pointer(buffer: Buffer) -> CData:
    """The doubles of a buffer, for C."""
    return ffi.from_buffer("double[]", buffer)


def zeros(n: int) -> array[float]:
    return array("d", (0.0,)) * n


class Feed:
    """What a range of inputs is fed from, and where its derivatives go; see tg_feed. Strides are 0 for all rows."""

    def __init__(self, first: int, count: int, numbers: Buffer, stride: int = 0) -> None:
        self.first, self.count, self.numbers, self.stride = first, count, numbers, stride
        self.tangent: Buffer | None = None
        self.grad: Buffer | None = None
        self.grad_tangent: Buffer | None = None
        self.tangent_stride = self.grad_stride = self.grad_tangent_stride = 0


class Job:
    """A tg_job, with the buffers that it points to."""

    def __init__(self, feeds: Sequence[Feed], start: int, stop: int) -> None:
        self.c = c = ffi.new("tg_job *")
        self._feeds = ffi.new("tg_feed[]", len(feeds))
        self._held: list[CData] = []
        for to, f in zip(self._feeds, feeds):
            to.first, to.count, to.in_stride = f.first, f.count, f.stride
            setattr(to, "in", self._hold(f.numbers))
            if f.tangent is not None:
                to.tangent, to.tangent_stride = self._hold(f.tangent), f.tangent_stride
            if f.grad is not None:
                to.grad, to.grad_stride = self._hold(f.grad), f.grad_stride
            if f.grad_tangent is not None:
                to.grad_tangent, to.grad_tangent_stride = self._hold(f.grad_tangent), f.grad_tangent_stride
        c.feed, c.n_feeds, c.start, c.stop = self._feeds, len(feeds), start, stop
        self.fail_into(ffi.new("uint32_t[]", 1))

    def _hold(self, buffer: Buffer) -> CData:
        p = pointer(buffer)
        self._held.append(p)
        return p

    def out(self, buffer: Buffer, stride: int = 0) -> None:
        self.c.out, self.c.out_stride = self._hold(buffer), stride

    def out_tangent(self, buffer: Buffer, stride: int = 0) -> None:
        self.c.out_tangent, self.c.out_tangent_stride = self._hold(buffer), stride

    def seed(self, buffer: Buffer, stride: int = 0) -> None:
        self.c.seed, self.c.seed_stride = self._hold(buffer), stride

    def rows(self, rows: Buffer) -> None:
        """Of which rows, instead of all from start to stop."""
        p = ffi.from_buffer("int64_t[]", rows)
        self._held.append(p)
        self.c.row = p

    def fail_into(self, failed: CData) -> None:
        """Where it is written, for each row, at which instruction it did not do as recorded: its number + 1."""
        self._failed = self.c.failed = failed

    def first_failure(self) -> int:
        """The instruction at which the first row failed; all failures are forgotten."""
        at: int = next(x for x in self._failed if x) - 1
        ffi.buffer(self._failed)[:] = bytes(ffi.sizeof(self._failed))
        return at
