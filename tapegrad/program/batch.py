"""The other face of a recorded function: over the rows of a batch, side by side in lanes, on several threads, each row
on its own path."""
from __future__ import annotations

import copy
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

from .._core import ffi, lib
from .._integer import as_integer
from ..value import handle
from .form import NUMBER, Form, Nest, Shaped, Static
from .recorded import Argnums, Recorded, Several, gathered
from .replay import ONE, REFUSALS, Buffer, CData, Job, Primals, Trace, units, zeros
from .rows import Argument, Axes, Piece, axes_of, in_rows, one_row, plain, stacked
from .told import told

if TYPE_CHECKING:
    from ..look.diagnosis import Diagnosis

REDUCED = (None, "sum", "mean")  # as csrc/handle/call.h has them, from 0 on
MOST_THREADS = 1 << 31  # more make no difference
MOST_KEPT = 1 << 18  # primals for the sake of pullbacks, 2 MiB: a replay costs less than reading them from memory


class Asked(NamedTuple):
    """What derivatives a replay of the rows is to give.

    Attributes:
        seed: of the outputs, for a reverse sweep; with a stride, one for every row.
        tangents: of pieces, each with its stride; without a seed, the outputs' are given.
        wanted: pieces by which the sweep's derivatives are given, or with tangents the derivatives of these along them.
    """

    seed: array[float] | None = None
    seed_stride: int = 0
    tangents: Sequence[tuple[Piece, Buffer, int]] = ()
    wanted: Sequence[Piece] = ()


class Swept(NamedTuple):
    """What a batch gives, flat: values, and gradients by each piece of the wanted arguments; all its arguments, params
    included."""

    rows: int
    out: array[float]
    grads: list[list[array[float]]]
    wanted: list[Argument]
    arguments: list[Argument]


class _Group(NamedTuple):
    """Rows, None being all, and the path that they take next: its number, -1 where it is not kept, and itself; origin:
    the path where they stopped, and its instruction; primals: theirs, where they are kept."""

    number: int
    path: Trace
    rows: array[int] | None
    origin: tuple[int, int]
    primals: Primals | None = None


class _Refused(NamedTuple):
    """A row that finds no path, and what is raised where it is the first."""

    row: int
    error: Exception


def threads_of(threads: Any, reduce: Any) -> int:
    """How many threads there are.

    Raises:
        ValueError: that is no number of them, or reduce none of its names.
    """
    if reduce not in REDUCED:
        raise ValueError(f"reduce must be 'mean', 'sum' or None, not {reduce!r}")
    n = as_integer(threads)
    if n is None or n < 1:
        raise ValueError(f"threads must be a positive integer, not {threads!r}")
    return n


class Rows:
    """A recorded function over the rows of a batch, on flat arrays.

    Attributes:
        recorded: the function.
        axes: of each argument: the axis of the rows, or None where all share it, or a nest of these.
        reduce: "mean", "sum", or None for one result a row.
        threads: how many share the rows.
    """

    def __init__(self, recorded: Recorded, in_axes: Axes, reduce: str | None, threads: int) -> None:
        n = len(recorded.forms)
        in_axes = plain(in_axes)
        axes: tuple[Axes, ...] = in_axes if isinstance(in_axes, tuple) else (in_axes,) * n
        if len(axes) != n:
            raise ValueError(f"in_axes has {len(axes)} entries, the program takes {n} arguments")
        found = [x for k, form in enumerate(recorded.forms) for x in axes_of(axes[k], form, f"in_axes[{k}]")]
        if not any(axis is not None for axis in found):
            raise ValueError("in_axes maps no argument")
        self.recorded, self.axes, self.reduce, self.threads = recorded, axes, reduce, threads_of(threads, reduce)
        self._names = [f"argument {recorded.forms.label(k)}" for k in range(n)]

    def sweep(self, args: Sequence[Nest], argnums: Argnums = ()) -> Swept:
        """Values, and gradients by argnums: sums or means, or one row after the other."""
        recorded = self.recorded
        places = recorded.chosen(argnums)
        if places:
            recorded.check_scalar("a gradient")
        arguments, rows = self.read(args)
        wanted = [arguments[place.number] for place in places]
        pieces = list(dict.fromkeys(piece for a in wanted for piece in a.pieces))
        out, *flats = self.perform(arguments, rows, Asked(ONE, wanted=pieces) if wanted else Asked())
        return Swept(rows, out, _by_argument(wanted, dict(zip(pieces, flats))), wanted, arguments)

    def read(self, args: Sequence[Nest]) -> tuple[list[Argument], int]:
        """All arguments, the params last, and the number of rows."""
        recorded = self.recorded
        recorded.check_count(args)
        arguments: list[Argument] = []
        rows, counted = None, 0
        for k, (x, place, axes) in enumerate(zip(args, recorded.places, self.axes)):
            argument = Argument(place, axes, x, self._names[k])
            if argument.rows is not None and rows is not None and argument.rows != rows:
                raise ValueError(f"{self._names[k]} has {argument.rows} rows, {self._names[counted]} has {rows}")
            if argument.rows is not None:
                rows, counted = argument.rows, k
            arguments.append(argument)
        return [*arguments, Argument(recorded.param_place, None, recorded.param_data(), "params")], rows or 0

    def tangents(self, argument: Argument, x: Nest, what: str) -> list[tuple[Piece, Buffer, int]]:
        """A tangent of an argument, in rows where that is."""
        number = argument.place.number
        tangent = Argument(argument.place, self.axes[number] if number >= 0 else None, x, what)
        pairs = list(zip(argument.pieces, tangent.pieces))
        if len(argument.pieces) != len(tangent.pieces) or any((a.first, a.rows) != (b.first, b.rows) for a, b in pairs):
            raise ValueError(f"{what} has other rows than its argument, or they are elsewhere in it")
        return [(a, b.numbers, b.stride) for a, b in pairs]

    def perform(
        self, arguments: list[Argument], rows: int, asked: Asked, kept: list[_Group] | None = None
    ) -> list[array[float]]:
        """The outputs, then their tangents or derivatives by the wanted pieces; summed, or one row after the other.

        kept: an empty list, to which the primals go; or a full one, from which they come: then there are no outputs.
        """
        recorded, mean, wanted = self.recorded, self.reduce == "mean", asked.wanted
        n_out, along = recorded.n_out, bool(asked.tangents) and asked.seed is None
        outs = 2 if along else 1
        pieces = [piece for argument in arguments for piece in argument.pieces]
        strides = [0 if self.reduce else n_out] * outs
        strides += [0 if piece.rows is None and self.reduce else piece.size for piece in wanted]
        widths = [n_out] * outs + [piece.size for piece in wanted]
        totals = [
            zeros(width if self.reduce and not stride else width * rows) for stride, width in zip(strides, widths)
        ]
        seed = asked.seed
        if seed is not None and mean and rows:
            seed = array("d", (x / rows for x in seed))
        failed = ffi.new("uint32_t[]", max(1, rows))
        again = bool(kept)
        pending = list(kept) if kept else [_Group(0, recorded.paths[0], None, (0, 0))] if rows else []
        refused: list[_Refused] = []  # one, or none
        while pending:
            group = pending[0] if again else min(pending, key=lambda group: (group.number < 0, group.number))
            pending = [other for other in pending if other is not group]
            path, chosen = group.path, group.rows
            count = rows if chosen is None else len(chosen)
            if kept is not None and not again:
                group = group._replace(primals=Primals(path, count))
                kept.append(group)

            feeds = [piece.feed() for piece in pieces]
            for piece, tangent, stride in asked.tangents:
                feed = feeds[pieces.index(piece)]
                feed.tangent, feed.tangent_stride = tangent, stride
            for piece, total, stride in zip(wanted, totals[outs:], strides[outs:]):
                feed = feeds[pieces.index(piece)]
                if asked.tangents:
                    feed.grad_tangent, feed.grad_tangent_stride = total, stride
                else:
                    feed.grad, feed.grad_stride = total, stride
            job = Job(feeds, 0, count, failed)
            job.c.tangents = bool(asked.tangents)
            if not again:
                job.out(totals[0], strides[0])
            if group.primals is not None:
                job.keep(group.primals, again)
            if along:
                job.out_tangent(totals[1], strides[1])
            if seed is not None:
                job.seed(seed, asked.seed_stride)
            if chosen is not None:
                job.rows(chosen)
            job.c.nan_errors = recorded.on_error == "nan"
            failures = path.run_in_chunks(job, *self._shared(path, count))
            if failures:
                pending.extend(self._sort(pieces, group, rows, failed, refused))
                if refused:  # what is pending may have rows before it
                    pending = _before(refused[0].row, pending)
        if refused:
            raise refused.pop().error  # no frame keeps it, which it would keep
        if mean:
            totals[:outs] = [array("d", (x / rows if rows else float("nan") for x in total)) for total in totals[:outs]]
        return totals

    def _shared(self, path: Trace, count: int) -> tuple[int, int]:
        """How many rows go together, and how many threads share them."""
        batch = ffi.new("tg_batch *")
        lib.tg_share_rows(batch, path.core, count, path.cost, min(self.threads, MOST_THREADS))
        return batch.step, batch.threads

    def _sort(
        self, pieces: list[Piece], group: _Group, rows: int, failed: CData, refused: list[_Refused]
    ) -> list[_Group]:
        """Send the rows that left a path to other paths, up to the first that finds none, which becomes `refused`."""
        recorded, (number, path, chosen, origin, _) = self.recorded, group
        stopped = {row: at - 1 for row, at in enumerate(ffi.unpack(failed, rows)) if at}
        groups: dict[tuple[int, int], array[int]] = {}
        lost: list[int] = []
        for row, at in stopped.items():
            failed[row] = 0
            groups.setdefault(origin if number < 0 else (number, at), array("q")).append(row)
            if not recorded.leads_on(number, at) or (chosen is not None and number < 0 and row == chosen[0]):
                lost.append(row)
        if lost:
            branched, first = sum(path.is_guard(stopped[row]) for row in lost), lost[0]
            job = self._stopped(pieces, path, first)
            refused[:] = [_Refused(first, path.error(stopped[first], job, first, branched, recorded.way_on))]
        found: list[_Group] = []
        for stop, those in groups.items():  # in order of their first rows
            if refused and refused[0].row <= those[0]:
                break
            try:
                found.append(self._group(pieces, stop, those))
            except MemoryError:
                raise
            except Exception as error:  # whatever f raises: an earlier row, on a path that is pending, may raise, too
                refused[:] = [_Refused(those[0], error)]
        return found

    def _group(self, pieces: list[Piece], stop: tuple[int, int], rows: array[int]) -> _Group:
        """Rows that stopped there, with the path that the first of them goes on with."""
        recorded, (k, at), first = self.recorded, stop, rows[0]
        try:
            return _Group(*recorded.other_path(k, at, one_row(pieces, first)), rows, stop)
        except REFUSALS as error:  # f was recorded there, and something refused
            path = recorded.paths[k]
            job = self._stopped(pieces, path, first)
            if path.refused_alike(at, job, error):
                raise path.error(at, job, first) from None
            if type(error) not in REFUSALS:
                raise
            raise type(error)(f"{error} in row {first}") from error

    def _stopped(self, pieces: list[Piece], path: Trace, row: int) -> Job:
        """The replay of a row that stops on this path."""
        job = Job([piece.feed() for piece in pieces], row, row + 1)
        job.c.nan_errors = self.recorded.on_error == "nan"
        path.run(job)
        return job


def _before(row: int, groups: list[_Group]) -> list[_Group]:
    """What there is of groups before a row."""
    cut = [(group, array("q", [k for k in group.rows or () if k < row])) for group in groups]
    return [group._replace(rows=rows) for group, rows in cut if rows]


class Batch(handle.Quick):
    """A program over the rows of a batch; see `Program.map`.

    >>> record(lambda x: x * x, 1.0).map()([1.0, 2.0, 3.0])
    [1.0, 4.0, 9.0]
    """

    def __init__(self, recorded: Recorded, in_axes: Axes, reduce: str | None, threads: int) -> None:
        self._rows = Rows(recorded, in_axes, reduce, threads)

    def _told(self) -> tuple[Any, ...] | None:
        r = self._rows
        several = len(r.recorded.paths) > 1 or r.recorded.max_paths == 1  # or rows of paths that are never kept
        if several or [axes for axes in r.axes if axes is not None and (type(axes) is not int or axes)]:
            return None  # rows are sorted by path, axes moved and nests taken apart in Python
        mapped = tuple([axes is not None and type(form) is not Static for axes, form in zip(r.axes, r.recorded.forms)])
        return told(r.recorded, (mapped, REDUCED.index(r.reduce), min(r.threads, MOST_THREADS)))

    def __repr__(self) -> str:
        r = self._rows
        return f"<batch of {r.recorded!r}: in_axes={r.axes}, reduce={r.reduce!r}, threads={r.threads}>"

    def __reduce__(self) -> tuple[object, ...]:
        r = self._rows
        return Batch, (r.recorded, r.axes, r.reduce, r.threads)

    def _n_paths(self) -> int:
        """How many paths are known."""
        return len(self._rows.recorded.paths)

    def _encoded(self) -> bytes:
        """A file of what it is a batch of, without the numbers of params."""
        return self._rows.recorded.encoded(blank=True)

    def _at(self, args: Sequence[Nest], named: Mapping[str, Nest], total: bool = True) -> tuple[Rows, tuple[Nest, ...]]:
        """What is carried out over rows for these arguments, and all of them in order; total is a loop's."""
        return self._rows, self._rows.recorded.forms.bound(args, named)

    def _values(self, out: array[float], rows: int, arguments: list[Argument]) -> Shaped:
        form = self._rows.recorded.out
        if self._rows.reduce is not None:
            return form.shaped(out)
        return stacked(form, out, rows, any(a.from_array for a in arguments))

    def _gradient(self, wanted: Argument, flats: list[array[float]], rows: int, arguments: list[Argument]) -> Shaped:
        """Derivatives of one number by an argument."""
        arrays, reduced = any(a.from_array for a in arguments), self._rows.reduce is not None
        return wanted.put([piece.shaped(flat, rows, reduced, arrays) for piece, flat in zip(wanted.pieces, flats)])

    def _block(
        self, wanted: Argument, flats: list[list[array[float]]], rows: int, arguments: list[Argument]
    ) -> Callable[[Form, int], Shaped]:
        """What gives, for a leaf and where its numbers start, the derivatives of these; flats: of all of them."""

        def block(leaf: Form, at: int) -> Shaped:
            if leaf is NUMBER:
                return self._gradient(wanted, flats[at], rows, arguments)
            here, reduced = flats[at : at + leaf.size], self._rows.reduce is not None
            return wanted.put(
                [
                    piece.led([flat[k] for flat in here], leaf.shape or (), rows, reduced)
                    for k, piece in enumerate(wanted.pieces)
                ]
            )

        return block

    @handle.quick
    def __call__(self, /, *args: Nest, **named: Nest) -> Shaped:
        """The results of all rows, or their mean or sum.

        Args:
            args, named: as the program takes them; one that is mapped as an array of rows or a list of them, or made up
                like the argument with the rows at each leaf.

        Returns:
            Shaped like f's result; without reduce, with the rows stacked at each leaf: arrays with the rows first,
            or where no argument came as an array, lists in the place of numbers.

        Raises:
            TypeError, ValueError: an argument is not as it was recorded, or the numbers of rows differ.
            BranchChanged, ValueError, ZeroDivisionError, OverflowError: as of one row, naming it.

        >>> record(lambda w, x: w * x, 1.0, 1.0).map((None, 0))(2.0, [1.0, 2.0])
        [2.0, 4.0]
        """
        swept = self._rows.sweep(self._rows.recorded.forms.bound(args, named))
        return self._values(swept.out, swept.rows, swept.arguments)

    @overload
    def value_and_grad(self, /, *args: Nest, argnums: int = 0, **named: Nest) -> tuple[Shaped, Shaped]: ...
    @overload
    def value_and_grad(
        self, /, *args: Nest, argnums: Literal["params"], **named: Nest
    ) -> tuple[Shaped, list[Shaped]]: ...
    @overload
    def value_and_grad(self, /, *args: Nest, argnums: Several, **named: Nest) -> tuple[Shaped, tuple[Shaped, ...]]: ...
    @handle.quick
    def value_and_grad(self, /, *args: Nest, argnums: Argnums = 0, **named: Nest) -> tuple[Shaped, Shaped]:
        """The value, and its gradient by the arguments in argnums.

        Returns:
            With reduce: a float, and a gradient made up as the argument came, rows included. Without: both for every
            row; by an argument that all rows share, the rows are stacked at each leaf, a list of numbers being one.

        Raises:
            TypeError: f returns more than one Value.

        >>> record(lambda w, x: w * x, 1.0, 1.0).map((None, 0), reduce="mean").value_and_grad(2.0, [1.0, 2.0])
        (3.0, 1.5)
        """
        rows, out, grads, wanted, arguments = self._rows.sweep(self._rows.recorded.forms.bound(args, named), argnums)
        parts = [self._gradient(argument, flats, rows, arguments) for argument, flats in zip(wanted, grads)]
        return self._values(out, rows, arguments), gathered(argnums, parts)

    @overload
    def grad(self, /, *args: Nest, argnums: int = 0, **named: Nest) -> Shaped: ...
    @overload
    def grad(self, /, *args: Nest, argnums: Literal["params"], **named: Nest) -> list[Shaped]: ...
    @overload
    def grad(self, /, *args: Nest, argnums: Several, **named: Nest) -> tuple[Shaped, ...]: ...
    @handle.quick
    def grad(self, /, *args: Nest, argnums: Argnums = 0, **named: Nest) -> Shaped:
        """The gradient; see `value_and_grad`.

        >>> record(lambda w, x: w * x, 1.0, 1.0).map((None, 0)).grad(2.0, [1.0, 2.0], argnums=(0, 1))
        ([1.0, 2.0], [2.0, 2.0])
        """
        return self.value_and_grad(*args, argnums=argnums, **named)[1]

    def vjp(self, /, *primals: Nest, **named: Nest) -> tuple[Shaped, Callable[..., Any]]:
        """The value, and a function from a cotangent, shaped like it, to the tuple of v^T J for each argument, which
        is of every row without reduce.

        Its argument `argnums` says by what, as that of `grad` does: then no other derivative is built. Up to 2 MiB of
        primals are kept as long as that function is there, so that a call is a sweep alone; beyond, rows are replayed.

        >>> value, pull = record(lambda x: x * x, 1.0).map().vjp([1.0, 2.0])
        >>> value, pull([1.0, 10.0])
        ([1.0, 4.0], ([2.0, 40.0],))
        """
        batch, recorded = self._rows, self._rows.recorded
        arguments, rows = batch.read(recorded.forms.bound(primals, named))
        kept: list[_Group] | None = [] if rows * recorded.paths[0].core.n_kept <= MOST_KEPT else None
        for piece in (piece for argument in arguments for piece in argument.pieces if kept is None):
            piece.numbers = copy.copy(piece.numbers)
        value = self._values(batch.perform(arguments, rows, Asked(), kept)[0], rows, arguments)

        def pull(cotangent: Nest, argnums: Argnums | None = None) -> Shaped:
            wanted = arguments[:-1]
            if argnums is not None:
                wanted = [arguments[place.number] for place in recorded.chosen(argnums)]
            pieces = list(dict.fromkeys(piece for argument in wanted for piece in argument.pieces))
            if batch.reduce is None:
                seed, stride = in_rows(recorded.out, cotangent, rows, "the cotangent"), recorded.n_out
            else:
                seed, stride = array("d"), 0
                recorded.out.read(cotangent, "the cotangent", seed)
            flats = dict(zip(pieces, batch.perform(arguments, rows, Asked(seed, stride, wanted=pieces), kept)[1:]))
            parts = [self._gradient(a, one, rows, arguments) for a, one in zip(wanted, _by_argument(wanted, flats))]
            return tuple(parts) if argnums is None else gathered(argnums, parts)

        return value, pull

    def jvp(self, primals: Sequence[Nest], tangents: Sequence[Nest]) -> tuple[Shaped, Shaped]:
        """The value and J v.

        Args:
            primals, tangents: as many as f has arguments, tangents made up as the primals are, rows included.

        Returns:
            Two results shaped like the value.

        >>> record(lambda x: x * x, 1.0).map().jvp(([1.0, 2.0],), ([1.0, 10.0],))
        ([1.0, 4.0], [2.0, 40.0])
        """
        batch, recorded = self._rows, self._rows.recorded
        recorded.check_pair(primals, tangents)
        arguments, rows = batch.read(primals)
        recorded.check_tangents(tangents)
        along = [
            one
            for k, (argument, x) in enumerate(zip(arguments, tangents))
            for one in batch.tangents(argument, x, f"tangent {recorded.forms.label(k)}")
        ]
        out, tangent = batch.perform(arguments, rows, Asked(tangents=along))
        return self._values(out, rows, arguments), self._values(tangent, rows, arguments)

    @overload
    def jacobian(self, /, *args: Nest, argnums: int | Literal["params"] = 0, **named: Nest) -> Shaped: ...
    @overload
    def jacobian(self, /, *args: Nest, argnums: Several, **named: Nest) -> tuple[Shaped, ...]: ...
    def jacobian(self, /, *args: Nest, argnums: Argnums = 0, **named: Nest) -> Shaped:
        """The Jacobian: in reverse or forward, a replay of all rows for each number of whichever are fewer.

        Returns:
            Shaped like f's result, in the place of a number its gradient as `grad` gives it; in the place of an array,
            arrays for the leaves of the argument: without reduce of the rows first, then of the array's shape and the
            leaf's. A tuple of those for a tuple of argnums.

        >>> record(lambda x: [x, x * x], 1.0).map().jacobian([1.0, 2.0])
        [[1.0, 1.0], [2.0, 4.0]]
        """
        batch, recorded = self._rows, self._rows.recorded
        places = recorded.chosen(argnums)
        arguments, rows = batch.read(recorded.forms.bound(args, named))
        parts = []
        for place in places:
            wanted = arguments[place.number]
            forward = wanted.rows is None or batch.reduce is None
            if forward and place.form.size < recorded.n_out:
                flats = self._columns(wanted, arguments, rows)
            else:
                flats = [
                    batch.perform(arguments, rows, Asked(units(1, recorded.n_out, k), wanted=wanted.pieces))[1:]
                    for k in range(recorded.n_out)
                ]
            parts.append(recorded.out.map(self._block(wanted, flats, rows, arguments)))
        return gathered(argnums, parts)

    def _columns(self, wanted: Argument, arguments: list[Argument], rows: int) -> list[list[array[float]]]:
        """The derivatives of each output by the pieces of an argument, taken forward."""
        batch, n_out = self._rows, self._rows.recorded.n_out
        count = rows if batch.reduce is None else 1
        flats = [[zeros(count * piece.size) for piece in wanted.pieces] for _ in range(n_out)]
        for k, i, along in _directions(wanted):
            column = batch.perform(arguments, rows, Asked(tangents=[along]))[1]
            for row, flat in enumerate(flats):
                flat[k][i :: wanted.pieces[k].form.size] = column[row::n_out]
        return flats

    def hvp(
        self, x: Nest, v: Nest, /, *rest: Nest, argnums: int | Literal["params"] = 0, **named: Nest
    ) -> Shaped:
        """The Hessian by argument argnums times v, exactly: of every row, or of the mean or sum.

        Args:
            x, rest, named: the arguments; v comes second.
            v: made up as argument argnums is, rows included.

        Returns:
            H v, as `grad` gives a gradient.

        >>> record(lambda x: x ** 3, 1.0).map().hvp([1.0, 2.0], [1.0, 1.0])
        [6.0, 12.0]
        """
        batch, recorded = self._rows, self._rows.recorded
        recorded.check_scalar("a Hessian")
        place = recorded.chosen_one(argnums)
        arguments, rows = batch.read(recorded.forms.bound((x, *rest), named))
        wanted = arguments[place.number]
        asked = Asked(ONE, 0, batch.tangents(wanted, v, "v"), wanted.pieces)
        return self._gradient(wanted, batch.perform(arguments, rows, asked)[1:], rows, arguments)

    @overload
    def hessian(self, /, *args: Nest, argnums: int | Literal["params"] = 0, **named: Nest) -> Shaped: ...
    @overload
    def hessian(self, /, *args: Nest, argnums: Several, **named: Nest) -> tuple[tuple[Shaped, ...], ...]: ...
    def hessian(self, /, *args: Nest, argnums: Argnums = 0, **named: Nest) -> Shaped:
        """The Hessian, of every row, or of the mean or sum: a replay of all rows for each number of the argument.

        Returns:
            Shaped like one row of argument argnums, in its places what `jacobian` has there; a tuple of tuples of
            blocks for a tuple of argnums.

        Raises:
            ValueError: with reduce, the argument is mapped: rows do not depend on one another.

        >>> record(lambda x: x ** 3, 1.0).map().hessian([1.0, 2.0])
        [6.0, 12.0]
        """
        batch, recorded = self._rows, self._rows.recorded
        recorded.check_scalar("a Hessian")
        places = recorded.chosen(argnums)
        arguments, rows = batch.read(recorded.forms.bound(args, named))
        wanted = [arguments[place.number] for place in places]
        pieces = list(dict.fromkeys(piece for a in wanted for piece in a.pieces))
        blocks = []
        for by in wanted:
            if batch.reduce is not None and by.rows is not None:
                what = f"argument {recorded.forms.label(by.place.number)} is mapped"
                raise ValueError(f"{what}: its Hessian is one for each row, which reduce=None gives")
            found = [
                batch.perform(arguments, rows, Asked(ONE, 0, [along], pieces))[1:] for _, _, along in _directions(by)
            ]
            blocks.append(
                tuple(
                    by.map(
                        self._block(of, [[row[pieces.index(p)] for p in of.pieces] for row in found], rows, arguments)
                    )
                    for of in wanted
                )
            )
        return tuple(blocks) if isinstance(argnums, (tuple, list)) else blocks[0][0]

    def diagnose(self, *args: Nest, inf: bool = True) -> Diagnosis | None:
        """As `Program.diagnose`, of the first row that is not finite, which it names.

        >>> record(lambda x: x.log(), 1.0, on_error="nan").map().diagnose([1.0, 0.0]).row
        1
        """
        from ..look.diagnosis import of_rows

        return of_rows(self._rows, args, inf)


def _by_argument(wanted: Sequence[Argument], flats: dict[Piece, array[float]]) -> list[list[array[float]]]:
    """What there is by the pieces of each argument; where one is wanted twice, each time numbers of its own."""
    if len(set(wanted)) < len(wanted):
        return [[flats[piece][:] for piece in a.pieces] for a in wanted]
    return [[flats[piece] for piece in a.pieces] for a in wanted]


def _directions(argument: Argument) -> Iterator[tuple[int, int, tuple[Piece, Buffer, int]]]:
    """Along each number of an argument, the same for all rows: which piece, which of its numbers, the tangent."""
    for k, piece in enumerate(argument.pieces):
        for i in range(piece.size):
            yield k, i, (piece, units(1, piece.size, i), 0)
