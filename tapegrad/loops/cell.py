"""A recorded function as C has it in a loop: a tg_cell, of the paths known when it was made."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._core import ffi, lib
from ..program.recorded import Recorded
from ..program.replay import CData, Trace

MOST_PATHS = 256  # a byte remembers which
_MODES = {"raise": 0, "nan": lib.TG_NAN, "caught": lib.TG_NAN_UNCAUGHT}


class Cell:
    """A recorded function with what its inputs are, after its own ones: numbers of the loop's params.

    Where it has one path for good, what depends on params alone is hoisted out of the steps: see
    csrc/loops/hoist.h. Of several it is not: the bits of a gradient would depend on which are known.

    Args:
        repeats: it is carried out at each step.
        n_x: of the step, how many of its own inputs are its x.

    Attributes:
        what: it is in the loop.
    """

    def __init__(
        self, recorded: Recorded, shared: Sequence[int], what: str, repeats: bool, n_x: int | None = None
    ) -> None:
        self.recorded, self.what = recorded, what
        self._shared = ffi.new("uint32_t[]", list(shared))
        self._own = None if n_x is None else (recorded.n_in - len(shared) - n_x, n_x)
        self._hoisted: CData | None = None
        self._native: tuple[Any, ...] | None = None  # of what is hoisted
        self._chain: tuple[Any, ...] | None = None  # empty: there is none
        self._fixed = repeats and recorded.on_branch == "raise" and len(recorded.paths) == 1
        if self._fixed:
            made = ffi.new("tg_program **")
            if lib.tg_hoist(recorded.paths[0].core, recorded.n_in - len(shared), made):
                raise MemoryError
            self._hoisted = ffi.gc(made[0], lib.tg_free_program) if made[0] else None

    def native(self) -> tuple[Any, ...] | None:
        """What is hoisted, compiled, as paths have it, once the chain is, too; None: nothing is hoisted."""
        from ..program.native import compiled  # slow to import, and seldom needed
        from . import chain

        if self._hoisted is not None and self._native is None:
            self._native = compiled(self._hoisted)
        if self._fixed and self._own and self._chain is None:
            core = self.recorded.paths[0].core if self._hoisted is None else self._hoisted
            self._chain = chain.compiled(core, *self._own)
        return self._native

    def _code(self, path: Trace) -> tuple[CData, tuple[Any, ...] | None]:
        """The program that carries a path out, and its machine code, if there is any."""
        native = self.native() if path.native else None
        return (path.core, path.native) if self._hoisted is None else (self._hoisted, native)

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
        codes = [self._code(path) for path in paths]
        programs = ffi.new("tg_program *[]", [core for core, _ in codes])
        natives = ffi.new("tg_native *[]", [native[0] if native else ffi.NULL for _, native in codes])
        way = ffi.new("uint32_t[]", [x for three in ways for x in three])
        c = ffi.new("tg_cell *")
        c.n_paths, c.n_ways, c.nan_errors = len(paths), len(ways), _MODES[recorded.on_error]
        c.program, c.native, c.way, c.shared = programs, natives, way, self._shared
        chain = self._chain if codes[0][1] else None  # read once: another thread may compile it meanwhile
        c.chain = chain[0] if chain else ffi.NULL
        return c, programs, natives, way, self._shared, codes, paths, chain
