"""A recorded function as C has it in a loop: a tg_cell, of the paths known when it was made."""
from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from .._core import ffi, lib
from ..program.recorded import Recorded
from ..program.replay import CData, Trace

MOST_PATHS = 256  # a byte remembers which
_MODES = {"raise": 0, "nan": lib.TG_NAN, "caught": lib.TG_NAN_UNCAUGHT}


class Hoisted:
    """What is hoisted of a path where it is the step of loops, as it is kept with the path for all of them.

    Attributes:
        core: a program, or None where nothing is hoisted.
    """

    def __init__(self, path: Trace, n_own: int) -> None:
        made = ffi.new("tg_program **")
        if lib.tg_hoist(path.core, n_own, made):
            raise MemoryError
        self.core: CData | None = ffi.gc(made[0], lib.tg_free_program) if made[0] else None
        self._step = path.core if self.core is None else self.core
        self._lock = threading.Lock()
        self._native: tuple[Any, ...] | None = None
        self._chains: dict[tuple[int, int], tuple[Any, ...]] = {}
        self._stretches: dict[tuple[int, int], tuple[CData | None, int]] = {}

    @classmethod
    def of(cls, path: Trace, n_own: int) -> Hoisted:
        """That of a path whose first n_own inputs are new in each step."""
        known: Hoisted | None = path.hoisted.get(n_own)
        return path.hoisted.setdefault(n_own, cls(path, n_own)) if known is None else known

    def native(self) -> tuple[Any, ...] | None:
        """It compiled, as paths have it; None: nothing is hoisted."""
        from ..program.native import compiled  # slow to import, and seldom needed

        with self._lock:
            if self.core is not None and self._native is None:
                self._native = compiled(self.core)
            return self._native

    def stretch(self, own: tuple[int, int]) -> tuple[CData | None, int]:
        """The stretch of a state and an x of so many numbers, and how many steps it has; None: there is none."""
        known = self._stretches.get(own)
        if known is None:
            made, steps = ffi.new("tg_program **"), ffi.new("uint32_t *")
            if lib.tg_stretch(self._step, *own, made, steps):
                raise MemoryError
            core = ffi.gc(made[0], lib.tg_free_program) if made[0] else None
            known = self._stretches.setdefault(own, (core, steps[0]))
        return known

    def chain(self, own: tuple[int, int]) -> tuple[Any, ...]:
        """The chain of a state and an x of so many numbers; empty: there is none."""
        from . import chain

        with self._lock:
            if own not in self._chains:
                self._chains[own] = chain.compiled(self._step, *own)
            return self._chains[own]


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
        self._hoisted: Hoisted | None = None
        self._chain: tuple[Any, ...] | None = None  # empty: there is none
        if repeats and recorded.on_branch == "raise" and len(recorded.paths) == 1:
            self._hoisted = Hoisted.of(recorded.paths[0], recorded.n_in - len(shared))

    def native(self) -> tuple[Any, ...] | None:
        """What is hoisted, compiled, as paths have it, once the chain is, too; None: nothing is hoisted."""
        if self._hoisted is None:
            return None
        if self._own and self._chain is None:
            self._chain = self._hoisted.chain(self._own)
        return self._hoisted.native()

    def _code(self, path: Trace) -> tuple[CData, tuple[Any, ...] | None]:
        """The program that carries a path out, and its machine code, if there is any."""
        native = self.native() if path.native else None
        core = self._hoisted.core if self._hoisted else None
        return (path.core, path.native) if core is None else (core, native)

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
        stretch = None
        if self._hoisted and self._own and not codes[0][1]:  # machine code has chains
            stretch, c.n_stretch = self._hoisted.stretch(self._own)
            c.stretch = stretch or ffi.NULL
        return c, programs, natives, way, self._shared, codes, paths, stretch, chain
