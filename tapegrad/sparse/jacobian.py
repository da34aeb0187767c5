"""Sparse Jacobians of programs."""
from __future__ import annotations

from array import array

from ..program.point import Kept
from ..program.replay import Buffer
from .derivation import Asked
from .matrix import SparseMatrix


class SparseJacobian(SparseMatrix):
    """The Jacobian of a program: a row for each number of its result, a column for each of one argument, both in the
    order in which they stand there, as in the dense one; see `Program.sparse_jacobian`.

    >>> print(record(lambda x: [x[0], x[1] * x[2]], [1.0] * 3).sparse_jacobian())
    sparse Jacobian, 2 x 3, 3 nonzeros (50 %)
    ⠑⠂
    made by a sweep for each row: 1 times the links of the program, 0 instructions
    """

    _what = "Jacobian"

    def _asked(self) -> Asked:
        return Asked(self._place.first, self._place.form.size, False)

    def _dense(self, flat: array[float]) -> Buffer:
        kept = Kept(self._recorded)
        kept.at(flat)
        return kept.jacobians([self._place])[0]
