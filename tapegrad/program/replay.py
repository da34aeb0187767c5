"""One trace of a recorded function, and the jobs that replay it: what program.h declares, for Python."""
from __future__ import annotations

import math
import os
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Union

from .. import _refusals
from .._core import ffi, lib

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

CData = Any  # what is C's: cffi has no types
Buffer = Union["array[float]", "array[int]", "NDArray[float64]"]

SLICE = 1 << 20  # additions, in all lanes, that a call into C takes before Python looks for signals: 0.2 to 12 ms
MOST_OPERANDS = 8  # of a loop that is listed
COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
REFUSES, REFUSAL = lib.TG_REFUSES, lib.TG_REFUSAL
_REFUSED_AS = "refuses", "raises ZeroDivisionError", "raises ValueError", "raises OverflowError"
REFUSALS = (ValueError, ZeroDivisionError, OverflowError)
GUARD = lib.tg_op_count
CALL = GUARD + 1  # of a loop: csrc/loops/call.h
DEEPEST = 16  # loops within one another, at least as many as there may be
QUIET = lib.TG_QUIET
_LINE_BITS = lib.TG_WHERE_LINE
_OPERATIONS = [ffi.string(lib.tg_ops[op].method).decode() for op in range(lib.tg_op_count)]
_SYMBOLS = [ffi.string(lib.tg_ops[op].symbol).decode() for op in range(lib.tg_op_count)]
_KINDS = [ffi.string(lib.tg_ops[op].kind).decode() for op in range(lib.tg_op_count)]
DIVISION = _OPERATIONS.index("__truediv__")  # by a number that is not 0 it refuses nothing
CAN_REFUSE = [ffi.string(lib.tg_ops[op].refusal) != b"NEVER" for op in range(lib.tg_op_count)]


def shown(filename: str) -> str:
    """A file as messages and listings name it: from the working folder on, where it is in there."""
    try:
        inside = os.path.join(os.getcwd(), "")
    except OSError:  # the folder is gone
        return filename
    return filename[len(inside) :] if filename.startswith(inside) else filename


def _asked(how: int, a: str, b: str) -> str:
    """The question of a guard: a comparison, or whether an operation refuses."""
    if how < REFUSES:
        return f"{a} {COMPARISONS[how]} {b}"
    how, op = divmod(how - REFUSES, REFUSAL)
    return f"{_operation(op, a, b)} {_REFUSED_AS[how]}"


def _operation(op: int, a: str, b: str) -> str:
    return f"{_SYMBOLS[op]}({a})" if _KINDS[op] == "unary" else f"{a} {_SYMBOLS[op]} {b}"


def within(step: int | None, row: int | None) -> str:
    """Which step of a loop and which row of a batch something is in, as messages have it."""
    if step is None:
        return "" if row is None else f" in row {row}"
    return f" in step {step}" + ("" if row is None else f" of row {row}")


class BranchChanged(RuntimeError):
    """A replay would take another branch than the recording did.

    Attributes:
        filename, lineno: the comparison or the operation, as far as it is known.
        operands: the two numbers now; of an operation of one operand twice the same.
        outcome: what the comparison gives now, or whether the operation refuses; it was the opposite when recorded.
        row: the row of the batch, or None.
        rows: how many rows of the batch leave the paths that are known.
        step: the step of a loop, or None; at its end, how many steps there were.

    >>> record(lambda x: x if x > 0 else -x, 1.0)(-2.0)
    Traceback (most recent call last):
    tapegrad.BranchChanged: <stdin>:1: -2.0 > 0.0 is False, was True when recorded: ...
    """

    __module__ = "tapegrad"

    def __init__(
        self, filename: str, lineno: int, operands: tuple[float, float], asked: str, outcome: bool, row: int | None,
        rows: int = 1, way_on: str = "", step: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(filename, lineno, operands, asked, outcome, row, rows, way_on, step)
        self.filename, self.lineno, self.operands, self.outcome, self.row = filename, lineno, operands, outcome, row
        self.rows, self.step = rows, step
        self._asked, self._way_on = asked, way_on

    def __str__(self) -> str:
        row = within(self.step, self.row)
        others = f" ({self.rows} rows leave the paths that are known)" if self.rows > 1 else ""
        return (
            f"{shown(self.filename)}:{self.lineno}: {self._asked} is {self.outcome}{row}, was {not self.outcome} when "
            f"recorded{others}" + (f": {self._way_on}" if self._way_on else "")
        )


def in_chunks(c: CData, step: int, threads: int, budget: int) -> int:
    """Carry out a tg_job in chunks of so many rows, in slices of so many instructions, on so many threads at most; how
    many rows did not do as recorded.

    What threads of C's own write to is ours again whenever Python runs, be it to raise what a signal asks for."""
    batch = ffi.new("tg_batch *")
    batch.job, batch.step, batch.threads = c, step, threads
    batch.budget, batch.seconds = budget, lib.tg_chunks.seconds
    try:
        code = lib.tg_start_batch(batch) or 1
        while code > 0:
            code = lib.tg_run_batch(batch)
    finally:
        lib.tg_finish_batch(batch)
    if code:
        raise MemoryError
    return int(batch.failures)


class Stop(NamedTuple):
    """Where a row stopped within a loop: see tg_stop."""

    step: int
    path: int
    at: int
    a: float
    b: float


def stops_within(c: CData) -> list[Stop]:
    """Where the first row of a job stopped, as far as that is within loops."""
    at = next(x for x in c.failed[c.start : c.stop] if x) - 1
    stops = ffi.new("tg_stop[]", DEEPEST)
    n = lib.tg_stopped_within(c, at, stops, DEEPEST)
    return [Stop(s.step, s.path, s.at, s.a, s.b) for s in stops[0:n]]


class Called(Protocol):
    """A loop that an instruction carries out."""

    step: Any  # recorded
    length: int
    core: CData


NOWHERE = ("<unknown>", 0)


def instructions(p: CData) -> CData:
    """All that a program has, those of its groups, too."""
    found = ffi.new("tg_instr[]", p.n_instr)
    lib.tg_copy_instructions(p, found)
    return found


def place_in(codes: Sequence[tuple[str, str]], where: int) -> tuple[str, int]:
    """File and line of what an instruction notes, its code one of these."""
    code, line = where >> _LINE_BITS, where & ((1 << _LINE_BITS) - 1)
    return (codes[code][0], line) if 0 < code < len(codes) else NOWHERE


class Trace:
    """One path through f: a program of the core, and the code objects that its lines are of, as (file, name)."""

    def __init__(
        self, program: CData, codes: list[tuple[str, str]], seconds: float, calls: Sequence[Called] = ()
    ) -> None:
        self.core = program
        self.codes = codes
        self.calls = calls  # the loops that instructions carry out, in order
        self.seconds = seconds  # of freezing
        self.native: tuple[Any, ...] | None = None  # a tg_native and what it points to, once compiled
        self.hoisted: dict[int, Any] = {}  # see loops/cell.py
        self.cost: int = lib.tg_cost(program) + 1  # of a row, in additions
        self.slice: int = max(1, SLICE * max(1, program.n_instr) // self.cost)  # instructions

    def place(self, where: int) -> tuple[str, int]:
        """File and line."""
        return place_in(self.codes, where)

    def summed(self, of: Callable[[CData], int]) -> int:
        """What `of` gives of its program and of those of all steps of its loops, each on the path with the most."""
        within: int = sum(call.length * max(path.summed(of) for path in call.step.paths) for call in self.calls)
        return of(self.core) + within

    def run(self, job: Job) -> None:
        """Carry out a job, in slices."""
        c = job.c
        c.program, c.native = self.core, self.native[0] if self.native else ffi.NULL
        if lib.tg_start(c):
            raise MemoryError
        try:
            budget = max(1, self.slice // c.lanes)
            while lib.tg_run(c, budget):
                pass
            if c.failures and self.calls:
                job.stops = stops_within(c)
        finally:
            lib.tg_finish(c)

    def run_in_chunks(self, job: Job, step: int, threads: int) -> int:
        """Carry out a job as `in_chunks` does; how many rows did not do as recorded."""
        c = job.c
        c.program, c.native = self.core, self.native[0] if self.native else ffi.NULL
        return in_chunks(c, step, threads, max(1, self.slice // lib.tg_lanes))

    def instruction(self, at: int) -> CData:
        return lib.tg_instruction(self.core, at)

    def is_guard(self, at: int) -> bool:
        """Whether the instruction is a guard; else it is one that can refuse."""
        return bool(self.instruction(at).op == GUARD)

    def within(self, at: int, job: Job) -> tuple[Trace, int, Job, int | None]:
        """The path, the instruction and the operands with which a job of one row stopped, and in which step: of a loop
        within, where the instruction is a call."""
        path, step, found = self, None, job
        for stop in job.stops if self.instruction(at).op == CALL else ():
            path = path.calls[path.instruction(at).y].step.paths[stop.path]
            at, step = stop.at, stop.step
            found = Job([], 0, 1)
            found.c.fail_a, found.c.fail_b = stop.a, stop.b
        return path, at, found, step

    def refusal(self, at: int, job: Job) -> Exception:
        """What a Value raises where the instruction was refused."""
        s, code = self.instruction(at), ffi.new("int *")
        lib.tg_evaluate(s.op, job.c.fail_a, job.c.fail_b, code)
        return _refusals.refused(code[0], s.op, job.c.fail_a, job.c.fail_b)

    def refused_alike(self, at: int, job: Job, error: Exception) -> bool:
        """Whether an error that f raised is that the instruction was refused."""
        path, at, job, _ = self.within(at, job)
        if path is not self:
            return path.refused_alike(at, job, error)
        if self.instruction(at).op >= GUARD:
            return False
        refusal = self.refusal(at, job)  # programs that f calls say where as well
        return type(error) is type(refusal) and str(error).startswith(str(refusal))

    def error(
        self, at: int, job: Job, row: int | None, rows: int = 1, way_on: str = "", step: int | None = None
    ) -> Exception:
        """The exception for the instruction that did not do as recorded, in so many rows; way_on says what helps."""
        inner, at, job, found = self.within(at, job)
        if inner is not self:
            return inner.error(at, job, row, rows, way_on, found if step is None else step)
        s = self.instruction(at)
        filename, line = self.place(s.where)
        if self.is_guard(at):
            a, b = job.c.fail_a, job.c.fail_b
            asked = _asked(s.y >> 1, repr(a), repr(b))
            return BranchChanged(filename, line, (a, b), asked, not s.y & 1, row, rows, way_on, step)
        if s.op == CALL:
            asked = "that all steps of the loop go as known"
            return BranchChanged(filename, line, (math.nan, math.nan), asked, False, row, rows, way_on, step)
        error = self.refusal(at, job)
        return type(error)(f"{error}{within(step, row)}, recorded at {shown(filename)}:{line}")

    def listing(self, inputs: str = "", most: int | None = None) -> str:
        """The instructions as text; inputs says what they are, most how many of the first and of the last at most."""
        p = self.core
        if p.order:
            p = ffi.gc(lib.tg_plain_program(p), lib.tg_free_program)
            if not p:
                raise MemoryError
        results: dict[int, str] = {}

        def name(slot: int) -> str:
            if slot < p.n_const:
                return repr(p.constant[slot])
            return results[slot] if slot >= p.n_const + p.n_in else f"in{slot - p.n_const}"

        lines, guards = [f"{p.n_in} inputs{inputs}, {p.n_const} constants, {p.n_instr} instructions"], 0
        left_out = range(most, p.n_instr - most) if most is not None else range(0)
        for k in range(p.n_instr):
            s = lib.tg_instruction(p, k)
            if k in left_out:
                guards += s.op == GUARD
                if s.op == CALL:
                    pool = [p.pool[2 * i] for i in range(s.a + p.call[s.y].n_in, s.a + s.b)]
                    results.update((slot, f"%{k}.{i}") for i, slot in enumerate(pool))
                elif s.op != GUARD:
                    results[s.y] = f"%{k}"
                if k == left_out[0]:
                    lines.append(f"  .. {len(left_out)} more: listing() has all ..")
                continue
            if s.op == CALL:
                call, pool = self.calls[s.y], [p.pool[2 * i] for i in range(s.a, s.a + s.b)]
                n_in = p.call[s.y].n_in
                results.update((slot, f"%{k}.{i}") for i, slot in enumerate(pool[n_in:]))
                taken = _shortened([name(slot) for slot in pool[:n_in]])
                text = f"%{k}.0..{s.b - n_in - 1} = loop {s.y} of {call.length} steps({taken})"
            elif s.op == GUARD:
                text = f"guard {guards}: {_asked(s.y >> 1, name(s.a), name(s.b))} is {bool(s.y & 1)}"
                guards += 1
            else:
                op = s.op & ~QUIET
                if _KINDS[op] == "many":
                    operands = [name(p.pool[2 * i]) for i in range(s.a, s.a + s.b)]
                    text = f"{_OPERATIONS[op]}({', '.join(operands)})"
                else:
                    text = _operation(op, name(s.a), name(s.b))
                results[s.y] = f"%{k}"
                text = f"%{k} = {text}"
            filename, line = self.place(s.where)
            lines.append(f"  {text:<40}  {shown(filename)}:{line}" if line else f"  {text}")
        out = [name(p.out[2 * k]) for k in range(p.n_out)]
        lines.append(f"  return {', '.join(out)}")
        for k, call in enumerate(self.calls):
            for number, path in enumerate(call.step.paths):
                which = f", path {number}" if len(call.step.paths) > 1 else ""
                listing = path.listing("", most).replace("\n", "\n  ")
                lines.append(f"  each step of loop {k}{which}: {listing}")
        return "\n".join(lines)


def paths_within(paths: Iterable[Trace]) -> Iterator[Trace]:
    """These paths, and those of the steps of their loops."""
    for path in paths:
        yield path
        for call in path.calls:
            yield from paths_within(call.step.paths)


def _shortened(names: list[str]) -> str:
    return ", ".join(names if len(names) <= MOST_OPERANDS else [*names[: MOST_OPERANDS - 1], "..", names[-1]])


def pointer(buffer: Buffer) -> CData:
    """The doubles of a buffer, for C."""
    return ffi.from_buffer("double[]", buffer)


ONE = array("d", (1.0,))


def zeros(n: int) -> array[float]:
    return array("d", (0.0,)) * n


def room(n: int) -> Buffer:
    """A buffer of n doubles that are all to be written: pages that nobody has touched, where NumPy is loaded."""
    numpy = sys.modules.get("numpy")
    return numpy.empty(n) if numpy else zeros(n)


def units(n: int, width: int, first: int) -> array[float]:
    """n rows: the unit vectors from first on."""
    rows = zeros(n * width)
    for k in range(n):
        rows[k * width + first + k] = 1.0
    return rows


class Feed:
    """What a range of inputs is fed from, and where its derivatives go; see tg_feed. Strides are 0 for all rows."""

    def __init__(self, first: int, count: int, numbers: Buffer, stride: int = 0) -> None:
        self.first, self.count, self.numbers, self.stride = first, count, numbers, stride
        self.tangent: Buffer | None = None
        self.grad: Buffer | None = None
        self.grad_tangent: Buffer | None = None
        self.tangent_stride = self.grad_stride = self.grad_tangent_stride = 0


class Job:
    """A tg_job, with the buffers that it points to.

    Args:
        feeds, start, stop: what the rows from start to stop - 1 are fed from.
        failed: where it is written, for each row, at which instruction it did not do as recorded: its number + 1.
    """

    def __init__(self, feeds: Sequence[Feed], start: int, stop: int, failed: CData | None = None) -> None:
        self.c = c = ffi.new("tg_job *")
        self._feeds = ffi.new("tg_feed[]", len(feeds))
        self._held: list[CData] = []
        self.stops: list[Stop] = []  # where the row stopped within a loop
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
        self._failed = c.failed = ffi.new("uint32_t[]", stop) if failed is None else failed

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

    def keep(self, primals: Primals, again: bool = False) -> None:
        """Leave the primals there; or take them from there, where a job for the same rows left them."""
        self.c.keep, self.c.lives, self.c.again = primals.numbers, primals.lives, again

    def first_failed_row(self) -> int:
        """The first row that failed; all failures are forgotten."""
        row = next(row for row, x in enumerate(self._failed) if x)
        ffi.buffer(self._failed)[:] = bytes(ffi.sizeof(self._failed))
        return row

    def first_failure(self) -> int:
        """The instruction at which the first row failed; all failures are forgotten."""
        at: int = next(x for x in self._failed if x) - 1
        ffi.buffer(self._failed)[:] = bytes(ffi.sizeof(self._failed))
        return at


class Primals:
    """Where jobs leave the primals of some rows of a trace, for what is carried out later."""

    def __init__(self, path: Trace, rows: int) -> None:
        lanes = lib.tg_lanes if rows > 1 else 1
        self.path = path
        self._room = pointer(room(-(-rows // lanes) * lanes * path.core.n_kept + lib.tg_lanes))
        address = int(ffi.cast("uintptr_t", self._room))
        self.numbers = self._room + -address // 8 % lib.tg_lanes  # native code reads lanes as vectors
        self.lives = ffi.new("uint32_t[]", rows)


class Matrix:
    """A tg_matrix.

    Args:
        how, first, count: which derivatives, and of or by what.
        feeds: the ranges of inputs by which there are rows: which is the first, and how many.
    """

    def __init__(self, how: int, first: int, count: int, feeds: Sequence[tuple[int, int]] = ()) -> None:
        self._feeds = ffi.new("tg_feed[]", len(feeds))
        for to, (start, size) in zip(self._feeds, feeds):
            to.first, to.count, to.grad_stride = start, size, size
        self._c = c = ffi.new("tg_matrix *")
        c.how, c.first, c.count, c.feed, c.n_feeds = how, first, count, self._feeds, len(feeds)

    def fill(self, at: Primals, buffers: Sequence[Buffer], seed: Buffer) -> None:
        """Write the rows by each feed to its buffer, or columns to the one that there is, at the primals of a row; a
        Hessian is that of the sum of the outputs, weighed by seed."""
        c, held = self._c, [pointer(buffer) for buffer in (*buffers, seed)]
        c.program, c.primal, c.seed = at.path.core, at.numbers, held[-1]
        if c.how == lib.TG_COLUMNS:
            c.out, c.out_stride = held[0], c.count
        for feed, to in zip(self._feeds, held):
            feed.grad = to
        if lib.tg_matrix_start(c):
            raise MemoryError
        try:
            while lib.tg_matrix_run(c, max(1, at.path.slice // lib.tg_lanes)):
                pass
        finally:
            lib.tg_matrix_finish(c)
