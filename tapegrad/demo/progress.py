"""A progress bar: one line drawn over and over on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TextIO

__all__ = ["Progress"]

_PERIOD = 0.1  # seconds between drawings on a terminal
_LINES = 10  # in a log


class Progress:
    """Shows how far a loop is; the line ends where the `with` block does.

    Args:
        total: how many rounds the loop has.
        title: what it does, in a word.
        stream: where to; standard error by default, so that a pipe gets the results alone.
    """

    def __init__(self, total: int, title: str, stream: TextIO | None = None) -> None:
        self.total = total
        self.title = title
        self.stream = sys.stderr if stream is None else stream
        self._redraws = self.stream.isatty()
        self._width = 0  # of what is drawn
        self._due = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._width:
            print(file=self.stream, flush=True)

    def __call__(self, done: int, note: str = "") -> None:
        """Say that `done` rounds of the total are over."""
        last = done == self.total
        text = f"{done}/{self.total} {note}".rstrip()
        if not self._redraws:
            if last or done % -(-self.total // _LINES) == 0:
                print(self.title, text, file=self.stream, flush=True)
        elif last or time.monotonic() >= self._due:
            self._draw(done / self.total, text)
            self._due = time.monotonic() + _PERIOD

    def _draw(self, share: float, text: str) -> None:
        room = self._columns() - 1  # a line that fills the last column would wrap
        bar = room - len(f"{self.title} [] {text}")
        full = int(share * bar)
        line = f"{self.title} [{'#' * full}{'.' * (bar - full)}] {text}" if bar > 4 else f"{self.title} {text}"[:room]
        print("\r" + line.ljust(min(self._width, room)), end="", file=self.stream, flush=True)
        self._width = len(line)

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self.stream.fileno()).columns or 80
        except (OSError, ValueError):
            return 80
