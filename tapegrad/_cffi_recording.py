"""What a program needs to know of its recording beyond the tape, for the portable handle; csrc/recording.c is its twin.

Recordings of one thread may lie within each other; the innermost is told. What another thread records meanwhile is
marked as foreign: what that compared is not known here."""
from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from ._core import lib

_LINE_BITS = lib.TG_WHERE_LINE
_ENGINE = frozenset((__name__, __name__.replace("_cffi_recording", "_cffi_handle")))


class Recording:
    """One recording: comparisons (a, b, how, outcome, where), and events (id, where) as tg_event."""

    def __init__(
        self, escaped: Callable[[str], None], lines: Callable[[Any], bytes | None], outer: Recording | None,
        passive: int, first: int,
    ) -> None:  # fmt: skip
        self.escaped, self.lines, self.outer, self.passive = escaped, lines, outer, passive
        self.thread, self.first = threading.get_ident(), first
        self.codes: list[Any] = [None]
        self._tables: list[Any] = [None]  # of each code: the line of each instruction, or None
        self.comparisons: list[tuple[Any, Any, int, int, int]] = []
        self.events: list[tuple[int, int]] = []
        self._index: dict[int, int] = {}  # by identity: the hash of a code object takes as long as it is

    def here(self) -> int:
        """The line outside the engine that runs now: index of its code << 20 | line, 0: unknown."""
        frame: Any = sys._getframe(1)
        while frame.f_back is not None and frame.f_globals.get("__name__") in _ENGINE:
            frame = frame.f_back
        index = self._index.setdefault(id(frame.f_code), len(self.codes))
        if index == len(self.codes):
            table = self.lines(frame.f_code)
            self.codes.append(frame.f_code)
            self._tables.append(table and memoryview(table).cast("I"))
        table = self._tables[index]
        line = frame.f_lineno if table is None else table[frame.f_lasti // 2]
        known = index < (1 << (32 - _LINE_BITS)) - 1 and 0 <= line < 1 << _LINE_BITS
        return index << _LINE_BITS | line if known else 0

    def note(self, i: int, where: int) -> None:
        """Nodes from id i on come from there."""
        while self.events and self.events[-1][0] >= i:  # popped since
            self.events.pop()
        if not self.events or self.events[-1][1] != where:
            self.events.append((i, where))


FOREIGN = lib.TG_FOREIGN
everyone: list[Recording] = []  # recordings under way, of all threads
_local = threading.local()


def current() -> Recording | None:
    """The innermost recording of this thread."""
    return getattr(_local, "current", None)


def set_current(recording: Recording | None) -> None:
    _local.current = recording
