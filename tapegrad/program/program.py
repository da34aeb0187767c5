"""The face of a recorded function at one point: what users call, shapes in and out."""
from __future__ import annotations

import copy
import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from .._core import lib
from ..value import Value
from . import file, point
from .batch import Axes, Batch
from .nest import NUMBER, Form, Nest, Shaped, numbers
from .recorded import Argnums, Recorded, Several, decoded, gathered
from .replay import BranchChanged
from .trace import Function

if TYPE_CHECKING:
    from ..look.diagnosis import Diagnosis
    from ..look.heat import Heat
    from ..look.rounding import Rounding

__all__ = ["BranchChanged", "Program", "load", "record"]


class Program:
    """A recorded function; see `record`. Calling it replays it: numbers in, numbers out.

    It may be called from any number of threads at once. It can be saved, pickled and copied. A copy shares f and the
    params. A deep copy has params of its own, and f only where there are none: f reads the old ones. One that was saved
    or pickled has no f, and its params are numbers. Without f, paths that are not known raise BranchChanged.
    """

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded
        self._idle: list[point.Reverse] = []  # with their buffers: as many as ever ran at once

    # ---- what it is ----

    @property
    def params(self) -> list[Value] | list[float]:
        """The Values that are inputs besides the arguments; numbers after loading. Each replay reads them."""
        return self._recorded.params

    @property
    def stats(self) -> dict[str, Any]:
        """Counts, of the first path where there are several.

        Returns:
            recorded: nodes that f made; needed: those that its results need, inputs included; then how many are left
            after_folding constants, after_sharing common subexpressions, after_fusing sums of products into dots;
            instructions, guards, constants, inputs, outputs; slots: for values and derivatives; live_slots: for values
            alone; bytes; lanes: rows that a batch takes side by side; paths; seconds: of freezing.
        """
        paths = self._recorded.paths
        p = paths[0].core
        folded = p.reached - p.folded
        return {
            "recorded": p.recorded, "needed": p.reached, "after_folding": folded,
            "after_sharing": folded - p.shared, "after_fusing": folded - p.shared - p.fused,
            "instructions": p.n_instr, "guards": p.n_guards, "constants": p.n_const, "inputs": p.n_in,
            "outputs": p.n_out, "slots": p.n_kept, "live_slots": p.n_live, "bytes": p.bytes,
            "lanes": lib.tg_lanes, "paths": len(paths), "seconds": paths[0].seconds,
        }  # fmt: skip

    def __str__(self) -> str:
        paths = self._recorded.paths
        return "\n".join((f"path {k}: " if len(paths) > 1 else "") + path.listing() for k, path in enumerate(paths))

    def __repr__(self) -> str:
        return repr(self._recorded)

    # ---- saved and copied ----

    def save(self, path: str | bytes | os.PathLike[Any]) -> None:
        """Write the program to a file, which `load` reads: its paths, the data of its params, where it was recorded.

        A file that is there is replaced at once or not at all.

        Args:
            path: of the file; docs/program-format.md says what is in it.

        Raises:
            OSError: it cannot be written.
            ValueError: an argument or result is nested more than 100 deep.
        """
        file.replace(path, file.encode(self._recorded.contents()))

    def __reduce__(self) -> tuple[Any, ...]:
        return Program, (self._recorded,)

    def __copy__(self) -> Program:
        return Program(copy.copy(self._recorded))

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        return Program(copy.deepcopy(self._recorded, memo))

    # ---- as machine code ----

    def to_c(self) -> str:
        """The C source that `native` compiles, of the first path."""
        from .source import write  # as native: seldom needed

        return write(self._recorded.paths[0].core)[0]

    def native(self) -> Program:
        """Compile the program with the system's C compiler, and have every replay run that code from here on.

        Values and gradients have the same bits. A block of rows that does not go as recorded is interpreted, and so are
        derivatives along tangents, once native code has their values, and paths recorded later, until the next call.
        The code is kept in the folder that TAPEGRAD_CACHE names, or in ~/.cache/tapegrad, for the next process.

        Returns:
            The program itself.

        Raises:
            RuntimeError: there is no compiler that works, or the folder is not the user's alone; the program stays as
                it was.
        """
        from .native import compiled  # slow to import, and seldom needed

        for path in self._recorded.paths:
            if path.native is None:
                path.native = compiled(path.core)
        return self

    # ---- replay ----

    def map(self, in_axes: Axes = 0, reduce: str | None = None, threads: int = 1) -> Batch:
        """The program over the rows of a batch.

        Args:
            in_axes: for each argument the axis of the rows, or None for an argument that all rows share; one for all.
                params are shared.
            reduce: "mean" or "sum" of the results over the rows, or None for one result a row.
            threads: how many threads share the rows; the bits of the result do not depend on it.

        Returns:
            A Batch.
        """
        return Batch(self._recorded, in_axes, reduce, threads)

    def __call__(self, *args: Nest) -> Shaped:
        """The value, as f on numbers gives it.

        Raises:
            TypeError, ValueError: an argument is not as it was recorded.
            BranchChanged: f would take another branch here, and on_branch is "raise".
            ValueError, ZeroDivisionError, OverflowError: as on Values.
        """
        recorded = self._recorded
        return recorded.out.shaped(point.value(recorded, recorded.flat(args)))

    @overload
    def value_and_grad(self, *args: Nest, argnums: int = 0) -> tuple[float, Shaped]: ...
    @overload
    def value_and_grad(self, *args: Nest, argnums: Literal["params"]) -> tuple[float, list[float]]: ...
    @overload
    def value_and_grad(self, *args: Nest, argnums: Several) -> tuple[float, tuple[Shaped, ...]]: ...
    def value_and_grad(self, *args: Nest, argnums: Argnums = 0) -> tuple[float, Shaped]:
        """The value and its gradient.

        Args:
            args: as the examples were.
            argnums: which argument to differentiate by; a tuple of them, or "params".

        Returns:
            A float, and a gradient shaped like the argument, or a tuple of those.

        Raises:
            TypeError: f returns more than one Value.
        """
        recorded = self._recorded
        recorded.check_scalar("a gradient")
        places, flat = recorded.chosen(argnums), recorded.flat(args)
        try:
            sweep = self._idle.pop()
        except IndexError:
            sweep = point.Reverse(recorded, array("d", (1.0,)))
        try:
            sweep.at(flat)
            return sweep.out[0], gathered(argnums, [place.shaped(sweep.grad) for place in places])
        finally:
            self._idle.append(sweep)

    @overload
    def grad(self, *args: Nest, argnums: int = 0) -> Shaped: ...
    @overload
    def grad(self, *args: Nest, argnums: Literal["params"]) -> list[float]: ...
    @overload
    def grad(self, *args: Nest, argnums: Several) -> tuple[Shaped, ...]: ...
    def grad(self, *args: Nest, argnums: Argnums = 0) -> Shaped:
        """The gradient; see `value_and_grad`."""
        return self.value_and_grad(*args, argnums=argnums)[1]

    def vjp(self, *primals: Nest) -> tuple[Shaped, Callable[[Nest], tuple[Shaped, ...]]]:
        """The value, and a function from a cotangent, shaped like it, to the tuple of v^T J for each argument."""
        recorded = self._recorded
        flat = recorded.flat(primals)
        value = recorded.out.shaped(point.value(recorded, flat))

        def pull(cotangent: Nest) -> tuple[Shaped, ...]:
            seed = array("d")
            recorded.out.read(cotangent, "the cotangent", seed)
            _, grad = point.reverse(recorded, flat, seed)
            return tuple(place.shaped(grad) for place in recorded.places)

        return value, pull

    def jvp(self, primals: Sequence[Nest], tangents: Sequence[Nest]) -> tuple[Shaped, Shaped]:
        """The value and J v.

        Args:
            primals, tangents: as many as f has arguments, tangents shaped like them.

        Returns:
            Two results shaped like f's.
        """
        recorded = self._recorded
        out, tangent = point.forward(recorded, recorded.flat(primals), recorded.flat_tangent(tangents))
        return recorded.out.shaped(out), recorded.out.shaped(tangent)

    @overload
    def jacobian(self, *args: Nest, argnums: int | Literal["params"] = 0) -> Shaped: ...
    @overload
    def jacobian(self, *args: Nest, argnums: Several) -> tuple[Shaped, ...]: ...
    def jacobian(self, *args: Nest, argnums: Argnums = 0) -> Shaped:
        """The Jacobian: by rows in reverse or by columns forward, whichever are fewer.

        Returns:
            Shaped like f's result, in every place a gradient shaped like the argument; where both are arrays (or one is
            a number), one array of the result's shape and then the argument's. A tuple of those for a tuple of argnums.
        """
        recorded = self._recorded
        flat, places = recorded.flat(args), recorded.chosen(argnums)
        parts = [_matrix(recorded.out, place.form, point.jacobian(recorded, flat, place)) for place in places]
        return gathered(argnums, parts)

    def hvp(self, x: Nest, v: Nest, *rest: Nest, argnums: int | Literal["params"] = 0) -> Shaped:
        """The Hessian by argument argnums times v, exactly: a tangent over the adjoints.

        Args:
            x, rest: the arguments of f; v comes second, as `scipy.optimize.minimize` calls its hessp.
            v: shaped like argument argnums.

        Returns:
            H v, shaped like v.
        """
        recorded = self._recorded
        recorded.check_scalar("a Hessian")
        flat, place = recorded.flat((x, *rest)), recorded.chosen_one(argnums)
        direction, tangent = array("d"), array("d", bytes(8 * recorded.n_in))
        place.form.read(v, "v", direction)
        tangent[place.first : place.first + len(direction)] = direction
        return place.shaped(point.tangent_over_reverse(recorded, flat, tangent, array("d", (1.0,))))

    def hessian(self, *args: Nest, argnums: int | Literal["params"] = 0) -> Shaped:
        """The Hessian by argument argnums: shaped like it, in every place a row shaped like it."""
        recorded = self._recorded
        recorded.check_scalar("a Hessian")
        flat, place = recorded.flat(args), recorded.chosen_one(argnums)
        return _matrix(place.form, place.form, point.hessian(recorded, flat, place))


    # ---- looked at ----

    def diagnose(self, *args: Nest, inf: bool = True) -> Diagnosis | None:
        """Which operation makes the value or the gradient there infinite or nan; None where all is finite.

        Args:
            args: as the examples were.
            inf: whether infinities count; nan always does.
        """
        from ..look.diagnosis import of_program

        return of_program(self._recorded, self._recorded.flat(args), inf)

    def heat(self, *args: Nest, by: Literal["nodes", "time", "adjoint", "rounding"] = "nodes") -> Heat:
        """What each source line costs there, and how much of the gradient goes through it.

        Args:
            args: as the examples were.
            by: what its bars show: how many nodes, the share of a replay's time, the sum of |adjoint * value|, or of
                |adjoint * rounding error|.
        """
        from ..look.heat import of_program

        return of_program(self._recorded, args, by)

    def rounding(self, *args: Nest) -> Rounding:
        """How many digits of the value there are true, and which lines lost the others."""
        from ..look.rounding import of_program

        return of_program(self._recorded, self._recorded.flat(args))


def _matrix(out: Form, by: Form, entries: array[float]) -> Shaped:
    """Rows of derivatives, shaped like by each, in places shaped like out."""
    rows = [by.shaped(entries, k * by.size) for k in range(out.size)]
    return rows[0] if out is NUMBER else out.build(iter(rows), numbers)


def record(
    f: Function, *examples: Nest, params: Iterable[Value] = (), on_branch: str = "raise", on_error: str = "raise",
    strict: bool = False,
) -> Program:  # fmt: skip
    """Run f once on Values and freeze what it did as a program.

    Args:
        f: returns a Value, or a list, tuple or array of them, or a nest of those. It may branch on comparisons of its
            Values: each is kept as a guard.
        examples: the arguments: numbers become Values, lists lists of Values, NumPy arrays object arrays of Values.
        params: Values that f closes over and that are inputs, too: every replay reads their data, and argnums="params"
            differentiates by them. Other Values that f closes over are constants, with the data that they have when
            the path is recorded.
        on_branch: "raise": a replay that would take another branch raises BranchChanged; "record": f is recorded there
            as well, a program for each path, at most 64.
        on_error: "raise": what raises on Values raises in a replay; "nan": it gives nan.
        strict: raise where f reads `.data`, sets `_backward` or goes past the tape otherwise, instead of warning.

    Returns:
        A Program.

    Raises:
        TypeError, ValueError: f returned something else than Values that it computed.
    """
    return Program(Recorded.of(f, examples, params, on_branch, on_error, strict))


def load(path: str | bytes | os.PathLike[Any]) -> Program:
    """The program that `Program.save` wrote to a file, which may come from anywhere: nothing in it is trusted.

    Args:
        path: of the file.

    Returns:
        A Program whose params are numbers. f is not in the file: a replay that leaves the paths that are raises
        BranchChanged.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no program, is damaged, or was written by another version of the format.
    """
    with open(path, "rb") as stream:
        return Program(decoded(stream.read()))
