"""A recorded function as C has it in a loop: a tg_cell, of the paths known when it was made."""
from __future__ import annotations

from collections.abc import Sequence

from .._core import ffi
from ..program.recorded import Recorded
from ..program.replay import CData

MOST_PATHS = 256  # a byte remembers which


class Cell:
    """A recorded function with what its inputs are, after its own ones: numbers of the loop's params.

    Attributes:
        what: it is in the loop.
        shared: which those are.
    """

    def __init__(self, recorded: Recorded, shared: Sequence[int], what: str) -> None:
        self.recorded, self.what = recorded, what
        self.shared = list(shared)
        self._shared = ffi.new("uint32_t[]", self.shared)

    def state(self) -> tuple[object, ...]:
        """What is known of it now; of equal ones `described` gives the same."""
        paths = list(self.recorded.paths)
        return tuple((path, path.native) for path in paths)

    def described(self) -> tuple[CData, ...]:
        """A tg_cell, and what it points to."""
        recorded = self.recorded
        children = dict(recorded.children)
        paths = list(recorded.paths)
        ways = [(k, at, child) for (k, at), child in children.items() if child < len(paths)]
        if len(paths) > MOST_PATHS:
            raise ValueError(f"{self.what} has {len(paths)} paths, a loop takes at most {MOST_PATHS}")
        programs = ffi.new("tg_program *[]", [path.core for path in paths])
        natives = ffi.new("tg_native *[]", [path.native[0] if path.native else ffi.NULL for path in paths])
        way = ffi.new("uint32_t[]", [x for three in ways for x in three])
        c = ffi.new("tg_cell *")
        c.n_paths, c.n_ways, c.nan_errors = len(paths), len(ways), recorded.on_error == "nan"
        c.program, c.native, c.way, c.shared = programs, natives, way, self._shared
        return c, programs, natives, way, self._shared, paths
