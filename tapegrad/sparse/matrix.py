"""What sparse Jacobians and Hessians are alike in: the structure, the nonzeros, SciPy's matrices of them."""
from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from ..program.arguments import Arguments
from ..program.form import Nest
from ..program.program import Program
from ..program.recorded import Argnums, Place, Recorded
from ..program.replay import Buffer
from ..program.trace import caller, warn
from .derivation import Asked, Derivation, derive
from .derived import Derived, Grown
from .pattern import HAS_NUMPY, Pattern
from .printing import picture, share
from .written import WrittenOut

FORMATS = ("csr", "csc", "coo")


class Made(NamedTuple):
    """The pattern, the derivations of the known paths of what is derived, and what gives the nonzeros: None where the
    matrix is dense."""

    pattern: Pattern
    known: Sequence[Derivation]
    source: Recorded
    program: Program | None


class SparseMatrix(ABC):
    """A derivative whose nonzeros are known by place before they are known by value.

    It may be called from any number of threads at once. It can be pickled and copied where the program can.
    """

    _what = ""

    def __init__(self, recorded: Recorded, argnums: Argnums, written_out: Recorded | None = None) -> None:
        """written_out: of a pickle, as `WrittenOut.kept` gives it."""
        if isinstance(argnums, (tuple, list)):
            way = "a matrix is by one argument; a tuple or dict of them as that one argument is differentiated whole"
            raise TypeError(f"argnums must be one integer or 'params' here, not {argnums!r}: {way}")
        self._recorded, self._argnums = recorded, argnums
        self._place: Place = recorded.chosen_one(argnums)
        self._lock = threading.Lock()
        self._extra: Pattern | None = None  # of paths that were met, some of which are not kept
        self._written_out = WrittenOut(recorded, written_out) if written_out else None
        self._made = self._make()
        self._whole: Program | None = None  # of the nonzeros of one that is dense, once somebody has asked for it

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._recorded, self._argnums, self._written_out.kept() if self._written_out else None)

    # ---- making ----

    @abstractmethod
    def _asked(self) -> Asked: ...

    def _forms(self) -> Arguments:
        """What its program takes."""
        return self._recorded.forms

    @abstractmethod
    def _dense(self, flat: array[float]) -> Buffer:
        """All entries at a point, row after row."""

    def _source(self) -> Recorded:
        """What is derived: loops are not seen into."""
        if self._written_out is None and any(path.calls for path in list(self._recorded.paths)):
            self._written_out = WrittenOut(self._recorded)
        return self._recorded if self._written_out is None else self._written_out

    def _make(self) -> Made:
        asked, source = self._asked(), self._source()
        known = [derive(path, asked) for path in list(source.paths)]
        pattern = known[0].pattern
        for other in (*(d.pattern for d in known[1:]), *([self._extra] if self._extra else ())):
            pattern = pattern.union(other)
        dense = pattern.is_dense
        branches = source.branches if isinstance(source, WrittenOut) else source.on_branch == "record"
        if dense and (len(known) > 1 or branches):
            pattern = Pattern.full(pattern.shape)  # whatever path comes
        made = Made(pattern, known, source, None)
        return made if dense else made._replace(program=self._derive(made))

    def _derive(self, made: Made) -> Program:
        return Program(Derived(made.source, self._asked(), made.pattern, self._forms(), made.known))

    def _grow(self, grown: Grown, before: Made) -> None:
        """Take in the nonzeros of another path, unless another thread has."""
        with self._lock:
            if self._made is not before:
                return
            known = before.pattern if self._extra is None else before.pattern.union(self._extra)
            self._extra = known if grown.pattern is None else known.union(grown.pattern)
            self._made, self._whole = self._make(), None
            old, new = len(before.pattern), self.nnz
        if old != new:
            warn(caller(), f"this point takes a path with other nonzeros: the {self._what} has {new} now, not {old}")

    # ---- the structure ----

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns.

        >>> record(lambda x: x[0] * x[1] + x[2] ** 2, [1.0] * 3).sparse_hessian().shape
        (3, 3)
        """
        return self._made.pattern.shape

    @property
    def nnz(self) -> int:
        """How many nonzeros there are, zeros at some point included.

        >>> record(lambda x: x[0] * x[1] + x[2] ** 2, [1.0] * 3).sparse_hessian().nnz
        3
        """
        return len(self._made.pattern)

    @property
    def rows(self) -> Any:
        """The row of each nonzero, in the order of `values`: row after row, columns ascending. A read-only array of
        int32; without NumPy an array of Python's.

        >>> H = record(lambda x: x[0] * x[1] + x[2] ** 2, [1.0] * 3).sparse_hessian()
        >>> [int(row) for row in H.rows]
        [0, 1, 2]
        """
        return self._made.pattern.indices[0] if HAS_NUMPY else self._made.pattern.rows[:]

    @property
    def cols(self) -> Any:
        """The column of each nonzero, as `rows`.

        >>> H = record(lambda x: x[0] * x[1] + x[2] ** 2, [1.0] * 3).sparse_hessian()
        >>> [int(col) for col in H.cols]
        [1, 0, 2]
        """
        return self._made.pattern.indices[1] if HAS_NUMPY else self._made.pattern.cols[:]

    @property
    def how(self) -> str:
        """In which way the nonzeros are made; "dense" where more than half of the matrix is nonzero, which then is
        computed whole.

        >>> record(lambda x: x[0] * x[1] + x[2] ** 2, [1.0] * 3).sparse_hessian().how
        'edge pushing'
        """
        return "dense" if self._made.program is None else self._made.known[0].how

    @property
    def program(self) -> Program:
        """The program whose outputs are the nonzeros, in the order of `rows` and `cols`: it can be mapped, compiled,
        saved.

        >>> H = record(lambda x: x[0] * x[1] + x[2] ** 2, [1.0] * 3).sparse_hessian()
        >>> H.program.stats["outputs"]
        3
        """
        with self._lock:
            made = self._made
            if made.program is not None:
                return made.program
            if self._whole is None:
                self._whole = self._derive(made)
            return self._whole

    def __repr__(self) -> str:
        return f"<sparse {self._what}: {share(self._made.pattern)}>"

    def __str__(self) -> str:
        pattern, (first, *_), source, program = self._made
        cost = f"{first.links / first.each:.3g} times the links of the program" if first.each else "nothing to do"
        made = "dense: more than half of it is nonzero, so that all of it is computed"
        if program is not None:
            made = f"made by {first.how}: {cost}, {program.stats['instructions']} instructions"
        if self._written_out is not None:
            made += ", all steps of loops written out"
        paths = f", {len(source.paths)} paths" if len(source.paths) > 1 else ""
        return f"sparse {self._what}, {share(pattern)}\n{picture(pattern)}\n{made}{paths}"

    # ---- at a point ----

    def _flat(self, args: Sequence[Nest]) -> array[float]:
        """All inputs of its program."""
        forms, recorded, flat = self._forms(), self._recorded, array("d")
        forms.check_count(len(args))
        for k, (x, form) in enumerate(zip(args, forms)):
            form.read(x, f"argument {forms.label(k)}", flat)
        flat.extend(recorded.param_data())
        return flat

    def _nonzeros(self, args: Sequence[Nest], named: Mapping[str, Nest]) -> tuple[Pattern, Any]:
        """Where they are, and what `values` gives."""
        given = self._forms().bound(args, named) if named else args
        while True:
            made = self._made
            if made.program is None:
                return made.pattern, _own(made.pattern.of(self._dense(self._flat(given))))
            try:
                return made.pattern, made.program._of_numbers(*given)
            except Grown as grown:
                self._grow(grown, made)

    def values(self, /, *args: Nest, **named: Nest) -> Any:
        """The nonzeros alone, in the order of `rows` and `cols`.

        Args:
            args, named: as for the matrix itself.

        Returns:
            A NumPy array; a list where NumPy is not installed.

        >>> H = record(lambda x: x[0] * x[1] + x[2] ** 2, [1.0] * 3).sparse_hessian()
        >>> [float(x) for x in H.values([1.0, 2.0, 3.0])]
        [1.0, 1.0, 2.0]
        """
        return self._nonzeros(args, named)[1]

    def __call__(self, /, *args: Nest, format: Literal["csr", "csc", "coo"] = "csr", **named: Nest) -> Any:
        """The matrix at a point.

        Args:
            args, named: the arguments of the program, each by position or by name.
            format: which of SciPy's: "csr", "csc" or "coo".

        Returns:
            A scipy.sparse.csr_array, csc_array or coo_array of its own; exact zeros stay in it.

        Raises:
            ImportError: SciPy is not installed.
            TypeError, ValueError: an argument is not as it was recorded.
            BranchChanged: f would take another branch here, and on_branch is "raise".
            ValueError, ZeroDivisionError, OverflowError: as on Values.

        >>> H = record(lambda x: x[0] * x[1] + x[2] ** 2, [1.0] * 3).sparse_hessian()
        >>> H([1.0, 2.0, 3.0]).toarray().tolist()
        [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 2.0]]
        """
        if format not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(map(repr, FORMATS))}, not {format!r}")
        try:
            from scipy import sparse
        except ImportError as error:
            way = "pip install 'tapegrad[sparse]', or take values, rows and cols"
            raise ImportError(f"the matrix is one of SciPy's, which is not installed: {way}") from error
        pattern, values = self._nonzeros(args, named)
        return pattern.matrix(sparse, values, format)


def _own(found: Buffer) -> Any:
    """The same numbers, which nobody else has, as `values` gives them."""
    if not HAS_NUMPY:
        return found.tolist()
    import numpy

    return numpy.frombuffer(found, dtype=numpy.float64) if len(found) else numpy.zeros(0)
