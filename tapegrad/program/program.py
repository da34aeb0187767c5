"""The face of a recorded function at one point: what users call, shapes in and out."""
from __future__ import annotations

import copy
import itertools
import os
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from .._core import lib
from ..value import Value, handle
from . import file, layout, point
from .batch import Batch
from .form import NUMBER, Nest, Shaped, matrix, objects
from .recorded import Argnums, Place, Recorded, Several, gathered
from .replay import ONE, zeros
from .rows import Axes
from .told import told

if TYPE_CHECKING:
    from typing import Generic

    from typing_extensions import ParamSpec

    from ..look.diagnosis import Diagnosis
    from ..look.heat import Heat
    from ..look.rounding import Rounding
    from ..loops import Loop
    from ..sparse import SparseHessian, SparseJacobian

    P = ParamSpec("P", default=...)
else:  # Python 3.9 has no ParamSpec
    P = ...

    class Generic:
        def __class_getitem__(cls, _):
            return cls


__all__ = ["Program"]

T = TypeVar("T")

MOST_NAMES = 8  # of inputs in a listing
MOST_IDLE = 8  # replays with their buffers that wait for the next call
SHOWN = 30  # instructions at the start and the end of a path that is printed


class Program(handle.Quick, Generic[P]):
    """A recorded function; see `record`. Calling it replays it: numbers in, numbers out.

    It may be called from any number of threads at once. It can be saved, pickled and copied. A copy shares f and the
    params. A deep copy has params of its own, and f only where there are none: f reads the old ones. A pickle takes f
    along where it can name it and there are no params, a saved file never; the params of both are numbers. Without f,
    paths that are not known raise BranchChanged, which says why there is none.

    >>> program = record(lambda x, y: x * y, 1.0, 1.0)
    >>> program(2.0, 3.0)
    6.0
    """

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded
        self._idle: list[point.Reverse] = []  # with their buffers: as many as ever ran at once
        self._idle_kept: list[point.Kept] = []  # likewise, up to MOST_IDLE

    def _told(self) -> tuple[Any, ...] | None:
        return told(self._recorded)

    # ---- what it is ----

    @property
    def params(self) -> list[Value] | list[float]:
        """The Values that are inputs besides the arguments; numbers after loading. Each replay reads them.

        >>> w = Value(2.0)
        >>> record(lambda x: w * x, 1.0, params=[w]).params
        [Value(data=2.0, grad=0.0)]
        """
        return self._recorded.params

    @property
    def stats(self) -> dict[str, Any]:
        """Counts, of the first path where there are several.

        Returns:
            recorded: nodes that f made; needed: those that its results and guards need or that can refuse, inputs
            included; then how many are left after_folding constants, after_sharing common subexpressions, after_fusing
            sums of products into dots; instructions, guards, constants, inputs, outputs; slots: for values and
            derivatives; live_slots: for values alone; groups: of instructions of one operation that one row takes side
            by side, and their average width, 0 where the program is too narrow; loops: instructions that carry one out;
            bytes; lanes: rows that a batch takes side by side; paths; unkept: how often one was recorded beyond
            max_paths; seconds: of freezing.

        >>> record(lambda x: x * x + 1.0, 1.0).stats["instructions"]
        1
        """
        paths = self._recorded.paths
        p = paths[0].core
        folded = p.reached - p.folded
        return {
            "recorded": p.recorded, "needed": p.reached, "after_folding": folded,
            "after_sharing": folded - p.shared, "after_fusing": folded - p.shared - p.fused,
            "instructions": p.n_instr, "guards": p.n_guards, "constants": p.n_const, "inputs": p.n_in,
            "outputs": p.n_out, "slots": p.n_kept, "live_slots": p.n_live, "groups": p.n_groups,
            "width": p.grouped / max(1, p.n_groups), "loops": p.n_calls, "bytes": p.bytes,
            "lanes": lib.tg_lanes, "paths": len(paths), "unkept": self._recorded.unkept, "seconds": paths[0].seconds,
        }  # fmt: skip

    def __str__(self) -> str:
        return self._listing(SHOWN)

    def listing(self) -> str:
        """All instructions of all paths as text, each with the line that it was recorded at; `print` shows the first
        and the last 30 of a long path.

        >>> print(record(lambda x: x.exp(), 1.0).listing())
        1 inputs (x in0), 0 constants, 1 instructions
          %0 = exp(in0)                             <stdin>:1
          return %0
        """
        return self._listing(None)

    def _listing(self, most: int | None) -> str:
        paths, inputs = self._recorded.paths, self._inputs()
        return "\n".join(
            (f"path {k}: " if len(paths) > 1 else "") + path.listing(inputs, most) for k, path in enumerate(paths)
        )

    def _inputs(self) -> str:
        """Which inputs are which leaves."""
        params, at, found = self._recorded.param_place.form, 0, []
        for name, form in itertools.chain(self._recorded.forms.leaves(), (("params", params),)):
            if form.size:
                found.append(f"{name} in{at}" + (f"..in{at + form.size - 1}" if form is not NUMBER else ""))
                at += form.size
        shown = ", ".join(found[:MOST_NAMES] + ["..."] * (len(found) > MOST_NAMES))
        return f" ({shown})" if found else ""

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
            ValueError: an argument or result is nested more than 100 deep, or holds something else than numbers, text
                and None in lists, tuples, dicts, named tuples, dataclasses and arrays; it is named.

        >>> record(lambda x: x * x, 1.0).save("square.program")
        """
        file.replace(path, self._recorded.encoded())

    def __reduce__(self) -> tuple[Any, ...]:
        return Program, (self._recorded,)

    def __copy__(self) -> Program[P]:
        return Program(copy.copy(self._recorded))

    def __deepcopy__(self, memo: dict[int, Any]) -> Program[P]:
        return Program(copy.deepcopy(self._recorded, memo))

    # ---- as machine code ----

    def to_c(self) -> str:
        """The C source that `native` compiles, of the first path.

        >>> "V(0) * V(0)" in record(lambda x: x * x, 1.0).to_c()
        True
        """
        from .grouped import write  # as native: seldom needed

        return write(self._recorded.paths[0].core).text

    def native(self) -> Program[P]:
        """Compile the program with the system's C compiler, and have every replay run that code from here on.

        Values and gradients have the same bits. A block of rows that does not go as recorded is interpreted, and so are
        derivatives along tangents, once native code has their values, and paths recorded later, until the next call.
        Of a wide program it is loops over groups, which compile fast however large they are. The code is kept in the
        folder that TAPEGRAD_CACHE names, or in ~/.cache/tapegrad, for the next process.

        Returns:
            The program itself.

        Raises:
            RuntimeError: there is no compiler that works, or the folder is not the user's alone; the program stays as
                it was.

        >>> record(lambda x: x * x, 1.0).native()(3.0)
        9.0
        """
        from .native import make_native  # slow to import, and seldom needed

        for path in (paths := self._recorded.paths[:]):
            make_native(path)
        self._recorded.compiled += set(paths).difference(self._recorded.compiled)
        return self

    # ---- replay ----

    def map(self, in_axes: Axes = 0, reduce: Literal["mean", "sum"] | None = None, threads: int = 1) -> Batch:
        """The program over the rows of a batch.

        Args:
            in_axes: for each argument the axis of the rows, or None for an argument that all rows share; one for all.
                Instead of an axis there may be a list, a tuple or a dict of those for the parts of the argument, which
                then has the rows at each of its leaves. params are shared.
            reduce: "mean" or "sum" of the results over the rows, or None for one result a row.
            threads: how many threads share the rows; the bits of the result do not depend on it.

        Returns:
            A Batch.

        >>> record(lambda w, x: w * x, 1.0, 1.0).map((None, 0), reduce="sum")(2.0, [1.0, 2.0, 3.0])
        12.0
        """
        return Batch(self._recorded, in_axes, reduce, threads)

    def scan(
        self, length: int | None = None, final: Program | None = None, checkpoints: int | None = None,
        until: Program | Callable[..., Any] | None = None,
    ) -> Loop:  # fmt: skip
        """The program as the step of a loop, which C carries out over and over on the state that the last one left.

        The program takes a state, x and params, and gives the next state, made up as the state is, or (state, y).

        Args:
            length: how many steps; None: as many as xs has.
            final: a program of the last state, and of params as the step has them, or only the first of these: a loss
                is the sum of the ys and of what it gives.
            checkpoints: how many states are kept for a gradient; None: as many as fit into 64 MiB, for each thread.
                The others are computed again, in the order that takes the fewest steps. No bit depends on it.
            until: a program or a function of the state: where it gives what is true, the loop ends, after length steps
                at most. It is asked before each step. Within `record` the steps of such a loop are written out.

        Returns:
            A Loop.

        Raises:
            TypeError, ValueError: the program is no step, or final or until do not go with it.

        >>> record(lambda state, x: state + x, 0.0, 0.0).scan()(0.0, [1.0, 2.0, 3.0])
        (6.0, None)
        """
        from ..loops import Loop  # seldom needed

        return Loop(self, length, final, checkpoints, until)

    @handle.quick
    def __call__(self, /, *args: P.args, **named: P.kwargs) -> Shaped:
        """The value, as f on numbers gives it; where an argument holds Values, as f on Values gives it: what the
        program does is recorded on the tape, at most once a call, so that it can be differentiated there and be part of
        another program.

        Args:
            args, named: as the examples were, each by position or by the name that f has for it.

        Raises:
            TypeError, ValueError: an argument is not as it was recorded.
            BranchChanged: f would take another branch here, and on_branch is "raise".
            ValueError, ZeroDivisionError, OverflowError: as on Values.

        >>> record(lambda x, y: x / y, 1.0, 1.0)(3.0, y=2.0)
        1.5
        """
        recorded = self._recorded
        given: Sequence[Nest] = recorded.forms.bound(args, named) if named else args
        flat = self._flat(given)
        return layout.value(recorded, given) if flat is None else recorded.out.shaped(point.value(recorded, flat))

    @handle.quick
    def _of_numbers(self, /, *args: Nest) -> Any:
        """As a call; an argument that holds Values is not as it was recorded."""
        recorded = self._recorded
        return recorded.out.shaped(point.value(recorded, recorded.flat(args)))

    def _flat(self, args: Sequence[Nest]) -> array[float] | None:
        """All inputs, or None where there are Values among them."""
        try:
            return self._recorded.flat(args)
        except TypeError:
            if layout.has_values(args):
                return None
            raise

    def _at(self, flat: array[float], matrices: Callable[[point.Kept], T]) -> T:
        """What there is of matrices at a point."""
        kept = point.taken(self._idle_kept, lambda: point.Kept(self._recorded))
        try:
            kept.at(flat)
            return matrices(kept)
        finally:
            _put_back(kept, self._idle_kept)

    @overload
    def value_and_grad(self, /, *args: Nest, argnums: int = 0, **named: Nest) -> tuple[float, Shaped]: ...
    @overload
    def value_and_grad(
        self, /, *args: Nest, argnums: Literal["params"], **named: Nest
    ) -> tuple[float, list[float]]: ...
    @overload
    def value_and_grad(self, /, *args: Nest, argnums: Several, **named: Nest) -> tuple[float, tuple[Shaped, ...]]: ...
    @handle.quick
    def value_and_grad(self, /, *args: Nest, argnums: Argnums = 0, **named: Nest) -> tuple[Any, Shaped]:
        """The value and its gradient.

        Args:
            args, named: as the examples were, each by position or by name.
            argnums: by which argument, in order, or "params"; or a tuple of these.

        Returns:
            A float, and a gradient that is made up as the argument came, or a tuple of those. What is no number in the
            argument stands in the gradient, too. Of Values where an argument holds them, as in a call.

        Raises:
            TypeError: f returns more than one Value.

        >>> record(lambda x: x[0] * x[1], [1.0, 1.0]).value_and_grad([2.0, 3.0])
        (6.0, [3.0, 2.0])
        """
        recorded = self._recorded
        recorded.check_scalar("a gradient")
        args = recorded.forms.bound(args, named) if named else args
        places, flat = recorded.chosen(argnums), self._flat(args)
        if flat is None:
            return self._value_and_grad_of_values(args, places, argnums)
        return self._swept(
            flat, lambda sweep: (sweep.out[0], gathered(argnums, [place.shaped(sweep.grad, args) for place in places]))
        )

    def _swept(self, flat: array[float], found: Callable[[point.Reverse], T]) -> T:
        """What is found in a sweep at a point."""
        sweep = point.taken(self._idle, lambda: point.Reverse(self._recorded, ONE))
        try:
            sweep.at(flat)
            return found(sweep)
        finally:
            self._idle.append(sweep)

    def _value_and_grad_of_values(
        self, args: Sequence[Nest], places: list[Place], argnums: Argnums
    ) -> tuple[Value, Any]:
        at = layout.inputs(self._recorded, args, apart=True)
        if handle.no_grad_by(0):
            y, *gradient = handle.leaves(self._swept(array("d", handle.primals(at)), lambda s: [s.out[0], *s.grad]))
        else:
            (y,) = layout.outputs(self._recorded, at, swept=True)
            gradient = handle.record_sweep((y,), None, at)
        parts = [p.like(args).build(iter(gradient[p.first : p.first + p.form.size]), objects) for p in places]
        return y, gathered(argnums, parts)

    @overload
    def grad(self, /, *args: Nest, argnums: int = 0, **named: Nest) -> Shaped: ...
    @overload
    def grad(self, /, *args: Nest, argnums: Literal["params"], **named: Nest) -> list[float]: ...
    @overload
    def grad(self, /, *args: Nest, argnums: Several, **named: Nest) -> tuple[Shaped, ...]: ...
    @handle.quick
    def grad(self, /, *args: Nest, argnums: Argnums = 0, **named: Nest) -> Shaped:
        """The gradient; see `value_and_grad`.

        >>> record(lambda x, y: x * y, 1.0, 1.0).grad(2.0, 3.0, argnums=(0, 1))
        (3.0, 2.0)
        """
        return self.value_and_grad(*args, argnums=argnums, **named)[1]

    def vjp(self, /, *primals: Nest, **named: Nest) -> tuple[Shaped, Callable[..., Any]]:
        """The value, and a function from a cotangent, shaped like it, to the tuple of v^T J for each argument.

        That function keeps the primals of the replay, 8 bytes for each of `stats["slots"]`, as long as it is there, so
        that a call of it is a reverse sweep alone; it may be called from several threads at once. Its argument
        `argnums` says by what, as that of `grad` does: then no other gradient is built.

        >>> value, pull = record(lambda x, y: [x * y, x], 1.0, 1.0).vjp(2.0, 3.0)
        >>> value, pull([1.0, 0.0])
        ([6.0, 2.0], (3.0, 2.0))
        """
        recorded = self._recorded
        args = recorded.forms.bound(primals, named)
        pull = _Pullback(recorded, args, self._idle_kept)
        return recorded.out.shaped(pull.kept.out), pull

    @handle.quick
    def jvp(self, primals: Sequence[Nest], tangents: Sequence[Nest]) -> tuple[Shaped, Shaped]:
        """The value and J v.

        Args:
            primals, tangents: as many as f has arguments, tangents shaped like them.

        Returns:
            Two results shaped like f's.

        >>> record(lambda x, y: x * y, 1.0, 1.0).jvp((2.0, 3.0), (1.0, 0.0))
        (6.0, 3.0)
        """
        recorded = self._recorded
        recorded.check_pair(primals, tangents)
        out, tangent = point.forward(recorded, recorded.flat(primals), recorded.flat_tangent(tangents))
        return recorded.out.shaped(out), recorded.out.shaped(tangent)

    @overload
    def jacobian(self, /, *args: Nest, argnums: int | Literal["params"] = 0, **named: Nest) -> Shaped: ...
    @overload
    def jacobian(self, /, *args: Nest, argnums: Several, **named: Nest) -> tuple[Shaped, ...]: ...
    @handle.quick
    def jacobian(self, /, *args: Nest, argnums: Argnums = 0, **named: Nest) -> Shaped:
        """The Jacobian: by rows in reverse or by columns forward, whichever are fewer, 16 at a time over one replay.

        Returns:
            Shaped like f's result, in every place a gradient made up as the argument came; in the place of an array,
            one array of its shape and then the argument's, or where that has no shape, of each of its leaves. A tuple
            of those for a tuple of argnums.

        >>> record(lambda x: [x[0] * x[1], x[1]], [1.0, 1.0]).jacobian([2.0, 3.0])
        [[3.0, 2.0], [0.0, 1.0]]
        """
        recorded = self._recorded
        args = recorded.forms.bound(args, named) if named else args
        flat, places = recorded.flat(args), recorded.chosen(argnums)
        found = self._at(flat, lambda kept: kept.jacobians(places))
        parts = [matrix(recorded.out, place.like(args), entries) for place, entries in zip(places, found)]
        return gathered(argnums, parts)

    @handle.quick
    def hvp(
        self, x: Nest, v: Nest, /, *rest: Nest, argnums: int | Literal["params"] = 0, **named: Nest
    ) -> Shaped:
        """The Hessian by argument argnums times v, exactly: a tangent over the adjoints.

        Args:
            x, rest, named: the arguments of f; v comes second, as `scipy.optimize.minimize` calls its hessp.
            v: shaped like argument argnums.

        Returns:
            H v, made up as argument argnums came.

        >>> record(lambda x: x[0] ** 2 * x[1], [1.0, 1.0]).hvp([3.0, 2.0], [1.0, 0.0])
        [4.0, 6.0]
        """
        recorded = self._recorded
        recorded.check_scalar("a Hessian")
        args = recorded.forms.bound((x, *rest), named)
        flat, place = recorded.flat(args), recorded.chosen_one(argnums)
        direction, tangent = array("d"), zeros(recorded.n_in)
        place.form.read(v, "v", direction)
        tangent[place.first : place.first + len(direction)] = direction
        return place.shaped(point.tangent_over_reverse(recorded, flat, tangent, ONE), args)

    @overload
    def hessian(self, /, *args: Nest, argnums: int | Literal["params"] = 0, **named: Nest) -> Shaped: ...
    @overload
    def hessian(self, /, *args: Nest, argnums: Several, **named: Nest) -> tuple[tuple[Shaped, ...], ...]: ...
    @handle.quick
    def hessian(self, /, *args: Nest, argnums: Argnums = 0, **named: Nest) -> Shaped:
        """The Hessian by argument argnums: shaped like it, in every place a row shaped like it, as a Jacobian is. One
        replay and one sweep, then 16 rows at a time.

        Returns:
            For a tuple of argnums, a tuple of tuples of blocks: by the first of a pair of arguments, then the second.

        >>> record(lambda x: x[0] ** 2 * x[1], [1.0, 1.0]).hessian([3.0, 2.0])
        [[4.0, 6.0], [6.0, 0.0]]
        """
        recorded = self._recorded
        recorded.check_scalar("a Hessian")
        args = recorded.forms.bound(args, named) if named else args
        flat, places = recorded.flat(args), recorded.chosen(argnums)
        forms = [place.like(args) for place in places]
        found = self._at(flat, lambda kept: kept.hessians(places))
        blocks = [tuple(matrix(by, of, part) for of, part in zip(forms, row)) for by, row in zip(forms, found)]
        return tuple(blocks) if isinstance(argnums, (tuple, list)) else blocks[0][0]

    def sparse_jacobian(self, argnums: int | Literal["params"] = 0) -> SparseJacobian:
        """The Jacobian by argument argnums as a sparse matrix: its pattern, and a program for its nonzeros, made now.

        Args:
            argnums: one argument, in order, or "params". Its numbers are the columns, those of the result the rows, in
                the order in which they stand there.

        Returns:
            A SparseJacobian: called like the program it gives SciPy's matrix. With on_branch="record" it has the
            nonzeros of all paths that are known, and grows, with a warning, where a point takes a path with others.

        Raises:
            TypeError, ValueError: argnums names no argument of numbers, or several.
            TypeError, OverflowError: it holds loops, and f, to be recorded with all steps, is missing, or they are too
                long.

        >>> record(lambda x: [x[0], x[1] * x[2]], [1.0] * 3).sparse_jacobian()
        <sparse Jacobian: 2 x 3, 3 nonzeros (50 %)>
        """
        from ..sparse import SparseJacobian  # seldom needed

        return SparseJacobian(self._recorded, argnums)

    def sparse_hessian(self, argnums: int | Literal["params"] = 0) -> SparseHessian:
        """The Hessian by argument argnums as a sparse matrix: its pattern, and a program for its nonzeros, made now.

        Args:
            argnums: one argument, in order, or "params".

        Returns:
            A SparseHessian: H(x) of a program that returns one Value; of any other H(x, weights), the weights shaped
            like the result: the Hessian of the sum of the outputs, each times its weight. See `sparse_jacobian`.

        Raises:
            TypeError, ValueError: argnums names no argument of numbers, or several.
            TypeError, OverflowError: it holds loops, and f, to be recorded with all steps, is missing, or they are too
                long.

        >>> record(lambda x: x[0] * x[1] + x[2] ** 2, [1.0] * 3).sparse_hessian()
        <sparse Hessian: 3 x 3, 3 nonzeros (33.3 %)>
        """
        from ..sparse import SparseHessian

        return SparseHessian(self._recorded, argnums)

    # ---- looked at ----

    def diagnose(self, *args: Nest, inf: bool = True) -> Diagnosis | None:
        """Which operation makes the value or the gradient there infinite or nan; None where all is finite.

        Args:
            args: as the examples were.
            inf: whether infinities count; nan always does.

        >>> record(lambda x: x.log(), 1.0, on_error="nan").diagnose(0.0).operation
        'log'
        """
        from ..look.diagnosis import of_program

        return of_program(self._recorded, self._recorded.flat(args), inf)

    def heat(self, *args: Nest, by: Literal["nodes", "time", "adjoint", "rounding"] = "nodes") -> Heat:
        """What each source line costs there, and how much of the gradient goes through it.

        Args:
            args: as the examples were.
            by: what its bars show: how many nodes, the share of a replay's time, the sum of |adjoint * value|, or of
                |adjoint * rounding error|.

        >>> [(row.nodes, row.adjoint) for row in record(lambda x: x * x, 1.0).heat(3.0).rows]
        [(1, 9.0)]
        """
        from ..look.heat import of_program

        return of_program(self._recorded, args, by)

    def rounding(self, *args: Nest) -> Rounding:
        """How many digits of the value there are true, and which lines lost the others.

        >>> record(lambda x: (x + 1.0) - 1.0, 1.0).rounding(1e-10).digits
        7
        """
        from ..look.rounding import of_program

        return of_program(self._recorded, self._recorded.flat(args))


class _Pullback:
    """What `Program.vjp` gives; its replay goes back to those that are idle."""

    def __init__(self, recorded: Recorded, args: Sequence[Nest], idle: list[point.Kept]) -> None:
        flat = recorded.flat(args)
        forms = [place.like(args) for place in recorded.places]
        self._recorded, self._forms, self._idle = recorded, [*forms, recorded.param_place.form], idle
        self.kept = point.taken(idle, lambda: point.Kept(recorded))
        self.kept.at(flat)
        self.kept.replay()

    def __call__(self, cotangent: Nest, argnums: Argnums | None = None) -> Shaped:
        recorded, seed = self._recorded, array("d")
        places = recorded.places if argnums is None else recorded.chosen(argnums)
        recorded.out.read(cotangent, "the cotangent", seed)

        def shaped(grad: array[float]) -> list[Shaped]:
            return [self._forms[place.number].shaped(grad, place.first) for place in places]

        parts = self.kept.pull(seed, shaped)
        return tuple(parts) if argnums is None else gathered(argnums, parts)

    def __del__(self) -> None:
        if hasattr(self, "kept"):
            _put_back(self.kept, self._idle)


def _put_back(kept: point.Kept, idle: list[point.Kept]) -> None:
    kept.rest()
    if len(idle) < MOST_IDLE:
        idle.append(kept)
