"""Sparse Hessians of programs, and of weighed sums of their outputs."""
from __future__ import annotations

from array import array

from ..program.arguments import Arguments
from ..program.form import NUMBER
from ..program.point import Kept
from ..program.replay import ONE, Buffer
from .derivation import Asked
from .matrix import SparseMatrix


class SparseHessian(SparseMatrix):
    """The Hessian of a program by one argument, both triangles of it; of a program with several outputs that of their
    sum, weighed by one more argument; see `Program.sparse_hessian`.

    >>> print(record(lambda x: x[0] * x[1] + x[2] ** 2, [1.0] * 3).sparse_hessian())
    sparse Hessian, 3 x 3, 3 nonzeros (33.3 %)
    ⠊⠄
    made by edge pushing: 1.5 times the links of the program, 1 instructions
    """

    _what = "Hessian"

    def _asked(self) -> Asked:
        recorded = self._recorded
        n = 0 if recorded.out is NUMBER else recorded.n_out
        return Asked(self._place.first, self._place.form.size, True, n, recorded.param_place.first)

    def _forms(self) -> Arguments:
        recorded = self._recorded
        forms, name = recorded.forms, "weights"
        if recorded.out is NUMBER:
            return forms
        names = [*forms.names, "" if name in forms.names else name]
        return Arguments([*forms, recorded.out], names, forms.by_name and forms.by_name + 1)

    def _dense(self, flat: array[float]) -> Buffer:
        recorded, (_, _, _, n, at) = self._recorded, self._asked()
        seed = flat[at : at + n] if n else ONE
        kept = Kept(recorded)
        kept.at(flat[:at] + flat[at + n :])
        return kept.hessians([self._place], seed)[0][0]
