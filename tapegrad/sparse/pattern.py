"""Where a matrix may be other than 0, and in which order its nonzeros come."""
from __future__ import annotations

import copy
import importlib.util
from array import array
from functools import cached_property
from typing import Any

from ..program.replay import Buffer

HAS_NUMPY = importlib.util.find_spec("numpy") is not None
INDEX = "I"  # of 4 bytes, as the core's


class Pattern:
    """The places of the nonzeros, row after row, columns ascending.

    Attributes:
        shape: rows and columns of the matrix.
        rows, cols: of each nonzero.
    """

    def __init__(self, shape: tuple[int, int], rows: array[int], cols: array[int]) -> None:
        self.shape, self.rows, self.cols = shape, rows, cols
        self._blank: dict[str, Any] = {}

    @classmethod
    def full(cls, shape: tuple[int, int]) -> Pattern:
        m, n = shape
        rows = array(INDEX, (i for i in range(m) for _ in range(n)))
        return cls(shape, rows, array(INDEX, range(n)) * m)

    def __len__(self) -> int:
        return len(self.rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and (self.shape, self.rows, self.cols) == (
            other.shape, other.rows, other.cols
        )  # fmt: skip

    __hash__ = None  # type: ignore[assignment]  # as lists have none

    @property
    def is_dense(self) -> bool:
        """Whether more than half of the matrix is nonzero."""
        return 2 * len(self) > self.shape[0] * self.shape[1]

    def union(self, other: Pattern) -> Pattern:
        """The places of both."""
        if self == other:
            return self
        places = sorted({*zip(self.rows, self.cols), *zip(other.rows, other.cols)})
        rows, cols = (array(INDEX, part) for part in zip(*places)) if places else (array(INDEX), array(INDEX))
        return Pattern(self.shape, rows, cols)

    def of(self, entries: Buffer) -> Buffer:
        """What stands in its places in a whole matrix, row after row."""
        n = self.shape[1]
        if len(self) == len(entries):
            return entries
        if HAS_NUMPY:
            import numpy

            rows, cols = self.indices
            found: Buffer = numpy.frombuffer(entries)[rows.astype(numpy.int64) * n + cols]
            return found
        return array("d", (entries[i * n + j] for i, j in zip(self.rows, self.cols)))

    # ---- for SciPy ----

    @cached_property
    def indices(self) -> tuple[Any, Any]:
        """Rows and columns as arrays of int32, whose numbers SciPy takes as they are; nobody writes to them."""
        import numpy

        found = []
        for part in (self.rows, self.cols):
            index = numpy.array(part, dtype=numpy.int32)
            index.flags.writeable = False
            found.append(index)
        return found[0], found[1]

    @cached_property
    def row_starts(self) -> Any:
        """Where each row starts."""
        return _starts(self.indices[0], self.shape[0])

    @cached_property
    def by_columns(self) -> tuple[Any, Any, Any]:
        """The nonzeros column after column: which they are, their rows, and where each column starts."""
        import numpy

        rows, cols = self.indices
        order = numpy.argsort(cols, kind="stable")
        return order, rows[order], _starts(cols, self.shape[1])

    def matrix(self, sparse: Any, values: Any, form: str) -> Any:
        """SciPy's matrix of these nonzeros, sparse its module; all that it consists of is its own."""
        rows, cols = self.indices
        if form == "coo":
            return sparse.coo_array((values, (rows.copy(), cols.copy())), shape=self.shape)
        if form == "csr":
            inner, starts = cols, self.row_starts
        else:
            order, inner, starts = self.by_columns
            values = values[order]
        blank = self._blank.get(form)  # SciPy looks at indices whenever it is given some: once is enough
        if blank is None:
            kind = sparse.csr_array if form == "csr" else sparse.csc_array
            blank = kind((values, inner, starts), shape=self.shape)
            blank.has_canonical_format = True
            blank.data = values[:0].copy()
            self._blank[form] = blank
        made = copy.copy(blank)
        made.data, made.indices, made.indptr = values, inner.copy(), starts.copy()
        return made


def _starts(index: Any, n: int) -> Any:
    import numpy

    starts = numpy.zeros(n + 1, dtype=numpy.int32)
    numpy.cumsum(numpy.bincount(index, minlength=n), out=starts[1:])
    return starts
