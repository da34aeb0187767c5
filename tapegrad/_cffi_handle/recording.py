"""What a program needs to know of its recording beyond the tape: notes of what f asked of its numbers (comparisons, and
what was refused), of places, of what goes past the tape. csrc/handle/recording.c is its twin.

Recordings of one thread may lie within each other; the innermost is told. What another thread records meanwhile is
marked as foreign: what that compared is not known here. While there is one anywhere, nodes and their ids stay."""
from __future__ import annotations

import bisect
import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .._core import ffi, lib
from .handle import Handle, alone, grad_off, handles, live, new, no_grad_by, node, refuse, tape
from .operands import only_values

_LINE_BITS = lib.TG_WHERE_LINE
_FOREIGN = lib.TG_FOREIGN


class _Recording:
    """One recording: what was asked, as tg_comparison, and events (id, where, quiet), as tg_event."""

    def __init__(self, escaped: Callable[[str], None], lines: Callable[[Any], Any], outer: _Recording | None) -> None:
        self.escaped, self.lines, self.outer = escaped, lines, outer
        self.grad_off = grad_off()  # how deep in no_grad it began: that is none of f's business
        self.thread, self.first = threading.get_ident(), tape.len
        self.codes: list[Any] = [None]
        self._tables: list[Any] = [None]  # of each code: the line of each instruction, or None
        self.asked: list[tuple[int, int, float, int, int, int]] = []
        self.events: list[tuple[int, int, int]] = []
        self.calls: list[tuple[Any, list[int], int, int]] = []  # tg_loop, ids, how many of them are inputs, where
        self.quiet = 0  # a sweep is being recorded
        self.asked_elsewhere = False  # another thread has asked something of its nodes
        self._index: dict[int, int] = {}  # by identity: the hash of a code object takes as long as it is

    def _enter(self, code: Any) -> int:
        """The index of a new code object; 0 for one that stands for an operation, whose caller counts."""
        table = self.lines(code)
        index = self._index[id(code)] = 0 if table is False else len(self.codes)
        if index:
            self.codes.append(code)
            self._tables.append(table and memoryview(table).cast("I"))
        return index

    def here(self) -> int:
        """The line that runs now: index of its code << TG_WHERE_LINE | line, 0: unknown."""
        frame: Any = sys._getframe(1)
        index: Any = 0
        while not index:
            code = frame.f_code
            index = self._index.get(id(code))
            if index is None:
                index = self._enter(code)
            if not index:
                frame = frame.f_back
                if frame is None:
                    return 0
        table = self._tables[index]
        line = frame.f_lineno if table is None else table[frame.f_lasti // 2]
        known = index < (1 << (32 - _LINE_BITS)) - 1 and 0 <= line < 1 << _LINE_BITS
        return index << _LINE_BITS | line if known else 0

    def note_where(self, where: int) -> None:
        """From here on nodes come from there."""
        self.note_from(tape.len, where, self.quiet)

    def note_from(self, i: int, where: int, quiet: int) -> None:
        """From node i on nodes come from there."""
        while self.events and self.events[-1][0] >= i:  # popped since
            self.events.pop()
        if not self.events or self.events[-1][1:] != (where, quiet):
            self.events.append((i, where, quiet))

    def is_own(self, i: int) -> bool:
        """Whether a node was made by the recording's own thread."""
        k = bisect.bisect_left(self.events, (i + 1,))
        return self.first <= i < lib.TG_NONE and not (k and self.events[k - 1][1] == _FOREIGN)

    def where_here(self, codes: list[Any], where: int) -> int:
        """A line of a program's as one of the recording's."""
        code, line = codes[where >> _LINE_BITS], where & ((1 << _LINE_BITS) - 1)
        index = self._index.get(id(code))
        if index is None:
            index = self._index[id(code)] = len(self.codes)
            self.codes.append(code)
            self._tables.append(None)
        return index << _LINE_BITS | line if index < (1 << (32 - _LINE_BITS)) - 1 else 0


_everyone: list[_Recording] = []  # recordings under way, of all threads
_local = threading.local()
_as_numbers_anywhere = 0  # functions being differentiated, and recordings: mostly 0, and cheaper to ask


def _current() -> _Recording | None:
    """The innermost recording of this thread."""
    return getattr(_local, "current", None)


def note_escape(what: str) -> None:
    """Something happens that a replay cannot see."""
    recording = _current() if tape.recorders else None
    if recording is not None:
        _local.current = recording.outer  # what it does is no part of f
        try:
            recording.escaped(what)
        finally:
            _local.current = recording


def note_stranger(*operands: Any) -> None:
    """Something was asked of them that this thread's recording is not told as a question: where they are of what
    another thread records, that is to know."""
    if not tape.recorders:
        return
    thread, ids = threading.get_ident(), [x._id for x in operands if isinstance(x, Handle)]
    for other in _everyone:
        if other.thread != thread and any(map(other.is_own, ids)):
            other.asked_elsewhere = True


def note_question(a: Handle | float, b: Handle | float, how: int, outcome: bool) -> None:
    """A question was asked of a Value and another or a number; see tg_comparison."""
    recording = _current() if tape.recorders else None
    note_stranger(a, b)
    if recording is not None:
        ids = [node(x) if isinstance(x, Handle) else lib.TG_NONE for x in (a, b)]
        number = a if isinstance(b, Handle) else b
        k = 0.0 if isinstance(number, Handle) else number
        recording.asked.append((ids[0], ids[1], k, how, int(outcome), recording.here()))


def note_place() -> None:
    """Here the next nodes come from."""
    if not tape.recorders:
        return
    thread, recording, where = threading.get_ident(), _current(), 0
    if recording is not None:
        if grad_off():
            note_escape("no_grad was on: what is computed is a constant of the program")
        where = recording.here()
    for other in _everyone:  # last: what runs until here may let other threads note where they are
        if other.thread != thread:
            other.note_where(_FOREIGN)
    if recording is not None:
        recording.note_where(where)


def note_layout(p: Any, codes: list[Any], of: Any, a: Any, b: Any) -> None:
    """A program was laid out on the tape, as tg_lay_out gives it; codes are what its lines are of."""
    recording = _current() if tape.recorders else None
    for k in range(p.n_instr if recording is not None else 0):
        assert recording is not None
        s = lib.tg_instruction(p, k)
        where = recording.where_here(codes, s.where) if s.where else 0
        if of[k] != lib.TG_NONE:
            recording.note_from(of[k], where, int(bool(s.op & lib.TG_QUIET)))
        else:
            recording.asked.append((a[k], b[k], 0.0, s.y >> 1, s.y & 1, where))


def note_call(loop: Any, ids: list[int], n_in: int) -> None:
    """A loop was carried out on nodes; see tg_noted_call."""
    recording = _current()
    if recording is None:
        raise RuntimeError("no program is being recorded in this thread")
    recording.calls.append((loop, ids, n_in, recording.here()))


@contextlib.contextmanager
def sweeping() -> Iterator[None]:
    """The nodes that come refuse nothing, in a replay neither, as those of a recorded sweep."""
    recording = _current()
    if recording is not None:
        recording.quiet = 1
    try:
        yield
    finally:
        if recording is not None:
            recording.quiet = 0


def as_numbers() -> bool:
    """Whether Values answer as numbers in this thread: a function is being recorded, or differentiated."""
    return bool(_as_numbers_anywhere) and (getattr(_local, "as_numbers", 0) > 0 or _current() is not None)


def as_numbers_by(step: int, /) -> bool:
    """Values answer ==, != and bool as numbers in this thread (1), or no more (-1); whether they did before."""
    before = as_numbers()
    if step < 0 and not getattr(_local, "as_numbers", 0):  # Ctrl-C came before it was counted
        return before
    if step > 0:
        _count_as_numbers(step)
    _local.as_numbers = getattr(_local, "as_numbers", 0) + step  # between: what fails leaves a count too high, no more
    if step < 0:
        _count_as_numbers(step)
    return before


@alone
def _count_as_numbers(step: int) -> None:
    global _as_numbers_anywhere
    _as_numbers_anywhere += step


@alone
def begin_recording(escaped: Callable[[str], None], lines: Callable[[Any], Any]) -> None:
    global _as_numbers_anywhere
    recording = _Recording(escaped, lines, _current())
    _everyone.append(recording)
    _local.current = recording
    no_grad_by(-recording.grad_off)
    tape.recorders += 1
    _as_numbers_anywhere += 1


def _note_within(outer: _Recording, recording: _Recording) -> None:
    """What was recorded within a recording refuses nothing there, and what other threads did meanwhile is theirs."""
    outer.note_from(recording.first, 0, 1)
    for i, where, _ in recording.events:
        outer.note_from(i, _FOREIGN if where == _FOREIGN else 0, 1)


@alone
def end_recording() -> None:
    global _as_numbers_anywhere
    recording = _current()
    if recording is not None:
        _everyone.remove(recording)
        _local.current = recording.outer
        if recording.outer is not None:
            _note_within(recording.outer, recording)
        no_grad_by(recording.grad_off)
        tape.recorders -= 1
        _as_numbers_anywhere -= 1


def _note_captured(recording: _Recording) -> None:
    """A program has taken Values for constants: of the recording around it, or where it is recorded while a function is
    being differentiated, which may be by them."""
    if recording.outer is None:
        note_escape(
            "a Value was taken for a constant within a function that is being differentiated: it has no derivative by "
            "it; pass it as an argument, or in params"
        )
        return
    _local.current = recording.outer
    try:
        note_escape("a program recorded within took a Value for a constant: a replay does not see it")
    finally:
        _local.current = recording


@alone
def held_from(first: int, /) -> int:
    """How many nodes from this id on have a live handle, but for those of other threads."""
    recording = _current()
    events = recording.events if recording is not None else []
    n, k, foreign = 0, 0, False
    for i in range(first, len(handles)):
        while k < len(events) and events[k][0] <= i:
            foreign = events[k][1] == _FOREIGN
            k += 1
        n += not foreign and live(i) is not None
    return n


def differentiating() -> bool:
    return getattr(_local, "as_numbers", 0) > 0


def _made(
    recording: _Recording, start: Handle, inputs: Iterable[Handle], outputs: Iterable[Handle], outer: int
) -> tuple[Any, ...]:
    """A tg_recording, and what it points to."""
    into = ffi.new("uint32_t[]", [node(v) for v in only_values(inputs)])
    out = ffi.new("uint32_t[]", [node(v) for v in only_values(outputs)])
    compared, events = ffi.new("tg_comparison[]", recording.asked), ffi.new("tg_event[]", recording.events)
    ids = [ffi.new("uint32_t[]", own) for _, own, _, _ in recording.calls]
    calls = ffi.new(
        "tg_noted_call[]",
        [(loop, own, n_in, len(own) - n_in, w) for own, (loop, _, n_in, w) in zip(ids, recording.calls)],
    )
    made = {
        "start": node(start), "outer": outer, "in": into, "n_in": len(into), "out": out, "n_out": len(out),
        "compared": compared, "n_compared": len(compared), "event": events, "n_events": len(events),
        "call": calls, "n_calls": len(calls),
    }  # fmt: skip
    return ffi.new("tg_recording *", made), into, out, compared, events, ids, calls


@alone
def older(
    start: Handle, inputs: Iterable[Handle], outputs: Iterable[Handle], first: Handle, others: Iterable[Handle], /
) -> list[Handle]:
    """Of the Values that `freeze` would take for constants those that are not older than first, or among others."""
    recording = _current()
    assert recording is not None
    made = _made(recording, start, inputs, outputs, lib.TG_NONE)
    n = lib.tg_find_older(tape, made[0], ffi.NULL, 0)
    ids = ffi.new("uint32_t[]", max(0, n))
    if n >= 0:
        n = lib.tg_find_older(tape, made[0], ids, n)
    if n < 0:
        refuse(n)
    since, among = node(first), {node(v) for v in only_values(others)}

    def of_node(i: int) -> Handle:
        h = live(i) if i < len(handles) else None
        return new(i, None) if h is None else h

    return [of_node(i) for i in ids if i >= since or i in among]


@alone
def freeze(start: Handle, inputs: Iterable[Handle], outputs: Iterable[Handle]) -> tuple[int, list[Any]]:
    """The address of the program, and the code objects that its lines are of."""
    recording = _current()
    assert recording is not None
    outer, code = recording.outer, ffi.new("int64_t *")
    made = _made(
        recording, start, inputs, outputs, outer.first if outer else 0 if differentiating() else lib.TG_NONE
    )
    p = lib.tg_freeze(tape, made[0], code)
    if p == ffi.NULL:
        refuse(code[0])
    try:
        if p.foreign:
            note_escape("another thread computed a part of it: what that thread compared is no guard")
        if recording.asked_elsewhere:
            note_escape("another thread asked something of its numbers: that is no guard, and == is identity there")
        if p.captured:
            _note_captured(recording)
    except BaseException:
        lib.tg_free_program(p)
        raise
    return int(ffi.cast("uintptr_t", p)), recording.codes
