"""The recorded function whose outputs are the nonzeros of another one's derivative, path for path."""
from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from ..program.form import Array, Form, series
from ..program.recorded import Recorded
from ..program.replay import CAN_REFUSE, DIVISION, GUARD, QUIET, Trace, instructions
from .derivation import Asked, Derivation, derive
from .pattern import HAS_NUMPY, Pattern


class Grown(RuntimeError):
    """A point takes a path that has other nonzeros than those in the pattern; None: one with loops."""

    def __init__(self, pattern: Pattern | None) -> None:
        what = "that holds loops" if pattern is None else "whose nonzeros are not all in the pattern"
        super().__init__(
            f"this point takes a path of f {what}, which this program cannot change: call the matrix there first, "
            "which makes a new program"
        )
        self.pattern = pattern


class Derived(Recorded):
    """Path k is that of the source, its nonzeros being the outputs; it stops where that stops, and another path that is
    known or recorded there is derived then."""

    def __init__(
        self, source: Recorded, asked: Asked, pattern: Pattern, forms: Sequence[Form], known: Sequence[Derivation]
    ) -> None:
        self._source, self._asked, self._pattern = source, asked, pattern
        self._at: dict[Trace, tuple[list[int], dict[int, int]]] = {}
        paths, children = [d.program(pattern) for d in known], {}
        for (k, at), child in source.contents().children.items():
            if child < len(paths):
                children[k, self._stops(paths[k])[0][self._stops(source.paths[k])[1][at]]] = child
        out: Form = Array((len(pattern),)) if HAS_NUMPY else series(list, len(pattern))
        super().__init__(
            None, forms, out, source.params, paths, children, source.on_branch, source.on_error, None, source.max_paths
        )
        self.missing = "it is derived from another program, and on other paths without that"

    def _stops(self, path: Trace) -> tuple[list[int], dict[int, int]]:
        """The instructions at which a path can stop, as f has them, and the number of each among them: the same ones,
        whether it is of the source or derived, for what derives refuses nothing."""
        if path not in self._at:
            core = path.core
            found = [k for k, s in enumerate(instructions(core)) if _can_stop(core, s)]
            if core.order:
                found.sort(key=lambda k: core.order[k])
            self._at[path] = found, {at: number for number, at in enumerate(found)}
        return self._at[path]

    def _in_source(self, k: int, at: int) -> int:
        return self._stops(self._source.paths[k])[0][self._stops(self.paths[k])[1][at]]

    def leads_on(self, k: int, at: int) -> bool:
        if (k, at) in self.children:
            return True
        source = self._source
        if len(source.paths) == 1 and not (source.on_branch == "record" and source.f is not None):
            return False
        return source.leads_on(k, self._in_source(k, at))

    @property
    def way_on(self) -> str:
        return self._source.way_on

    def other_path(self, k: int, at: int, flat: array[float]) -> tuple[int, Trace]:
        asked, source = self._asked, self._source
        with self._lock:
            known = self.children.get((k, at))
            if known is not None:
                return known, self.paths[known]
            inputs = flat[: asked.at] + flat[asked.at + asked.weights :]
            number, path = source.other_path(k, self._in_source(k, at), inputs)
            if number < 0:
                return -1, self._fitting(path)
            while len(self.paths) <= number:
                self.paths.append(self._fitting(source.paths[len(self.paths)]))
            self.children[k, at] = number
            return number, self.paths[number]

    def _fitting(self, path: Trace) -> Trace:
        if path.calls:
            raise Grown(None)
        found = derive(path, self._asked)
        if found.pattern.union(self._pattern) != self._pattern:
            raise Grown(found.pattern)
        return found.program(self._pattern)


def _can_stop(core: Any, s: Any) -> bool:
    """Whether an instruction is a guard or can refuse."""
    if s.op == GUARD or s.op & QUIET:
        return bool(s.op == GUARD)
    by_a_number = s.op == DIVISION and s.b < core.n_const and core.constant[s.b] != 0.0
    return CAN_REFUSE[s.op] and not by_a_number
