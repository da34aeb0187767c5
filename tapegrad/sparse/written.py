"""A recorded function that holds loops, with all steps of them written out: what derives it sees into these."""
from __future__ import annotations

from array import array

from ..program import point
from ..program.form import Form
from ..program.recorded import Recorded
from ..program.replay import Trace, paths_within
from ..program.trace import Function

MOST = 1 << 26  # instructions: some 7 GB while they are derived


class WrittenOut(Recorded):
    """A recorded function whose paths have no loops, the first at the arguments at which its source has some. It goes
    where its source goes, and refuses what that refuses: what is a path of a step there is one of the whole here.

    Args:
        known: what `kept` gave in another process, which has paths of it.

    Attributes:
        branches: whether it may go on with another path.

    Raises:
        TypeError: there is nothing to record it from.
        OverflowError: it would be too long.
    """

    def __init__(self, source: Recorded, known: Recorded | None = None) -> None:
        paths, children = ([], {}) if known is None else (list(known.paths), dict(known.children))
        first = None if paths or source.example is None else self._first(source, source.example)
        if first is not None:
            paths = [first]
        if not paths:
            raise TypeError(
                "sparse derivatives of a program with loops are made from its function, recorded once more with all "
                f"steps, and there is none: {source.missing}; tapegrad.scan(.., unroll=True) records it so at once"
            )
        super().__init__(
            source.f, source.forms, source.out, source.params, paths, children, "record", source.on_error,
            source._escapes, source.max_paths,
        )  # fmt: skip
        self._source, self.missing = source, source.missing
        calls = [call for path in paths_within(list(source.paths)) for call in path.calls]
        self.branches = source.on_branch == "record" or any(len(call.step.paths) > 1 for call in calls)

    @staticmethod
    def _first(source: Recorded, example: array[float]) -> Trace | None:
        length = max(path.summed(lambda core: int(core.n_instr)) for path in list(source.paths))
        if length > MOST:
            raise OverflowError(
                "a sparse derivative of a program with loops is made from all of their steps, which are "
                f"{length} instructions here, more than {MOST}"
            )
        return source.written_out(example)

    def kept(self) -> Recorded | None:
        """What a pickle has to hold of it; None where it has the function from which it is made."""
        return None if self._source.pickled_f()[0] is not None else self._copy(None, self.params)

    def _traced(self, f: Function, flat: array[float], written_out: bool = True) -> tuple[Trace, Form]:
        return super()._traced(f, flat, True)

    def other_path(self, k: int, at: int, flat: array[float]) -> tuple[int, Trace]:
        point.path(self._source, flat)
        return super().other_path(k, at, flat)
