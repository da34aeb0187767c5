"""The other face of a recorded function: over the rows of a batch, side by side in lanes, on several threads, each row
on its own path."""
from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union, overload

from .._core import ffi, lib
from .nest import NUMBER, Form, Nest, Shaped, floats
from .recorded import Argnums, Place, Recorded, Several, gathered
from .replay import Buffer, CData, Feed, Job, Trace, pointer, zeros

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from numpy import float64
    from numpy.typing import NDArray

    from ..look.diagnosis import Diagnosis

Axes = Union[int, None, tuple[Union[int, None], ...], list[Union[int, None]]]

CHUNKS = 16  # at most, in which sums are made: they depend on the number of rows alone, so the bits do, too
CHUNK_ROWS = 256  # at least
REFUSALS = (ValueError, ZeroDivisionError, OverflowError)
WORTH_THREADS = 1 << 23  # additions, some 2 ms of them, below which threads cost more than they give

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}  # by process, which fork copies without its threads, and size


def _pool(threads: int) -> ThreadPoolExecutor:
    key = os.getpid(), threads
    if key not in _pools:
        from concurrent.futures import ThreadPoolExecutor  # slow to import, and seldom needed

        _pools[key] = ThreadPoolExecutor(threads, "tapegrad")
    return _pools[key]


class _Argument:
    """One argument of a batch: its numbers, and how far it is from row to row."""

    def __init__(self, place: Place, axis: int | None) -> None:
        self.place, self.form, self.axis = place, place.form, axis
        self.numbers: array[float] | NDArray[float64]
        self.rows: int | None = None  # None: shared
        self.from_array = False

    def read(self, x: Nest, what: str) -> None:
        self.numbers = numbers = array("d")
        if self.axis is None:
            self.form.read(x, what, numbers)
        elif hasattr(x, "__array__") and hasattr(x, "shape"):
            self._read_array(x, what)
        elif self.axis != 0:
            raise TypeError(f"{what} is mapped over axis {self.axis}: it must be an array, not {type(x).__name__!r}")
        elif isinstance(x, (list, tuple)):
            items = tuple(x)  # reading may run code that changes x
            self.rows = len(items)
            if self.form is NUMBER and set(map(type, items)) <= {float, int}:
                numbers.extend(items)
            else:
                for k, item in enumerate(items):
                    self.form.read(item, f"{what}, row {k}", numbers)
        else:
            raise TypeError(f"{what} must be a list or an array of rows, not {type(x).__name__!r}")

    def _read_array(self, x: Any, what: str) -> None:
        import numpy

        axis = self.axis
        if axis is None or not -x.ndim <= axis < x.ndim:
            raise ValueError(f"{what} is an array of shape {x.shape}: it has no axis {axis}")
        rows = x if axis == 0 else numpy.moveaxis(x, axis, 0)
        if rows.shape[1:] != self.form.shape:
            raise ValueError(f"{what} has rows of shape {rows.shape[1:]}, but was recorded as {self.form}")
        self.numbers, self.rows, self.from_array = floats(rows, what).reshape(-1), len(rows), True

    def feed(self) -> Feed:
        count = self.form.size
        return Feed(self.place.first, count, self.numbers, 0 if self.rows is None else count)

    def row(self, k: int) -> Buffer:
        start = 0 if self.rows is None else k * self.form.size
        return self.numbers[start : start + self.form.size]

    def per_row(self, flat: array[float], rows: int, as_array: bool) -> Shaped:
        """A nest for every row: an array with the rows on the argument's axis, or a list."""
        return _stacked(self.form, flat, rows, as_array, self.axis or 0)


def _stacked(form: Form, flat: array[float], rows: int, as_array: bool, axis: int = 0) -> Shaped:
    if as_array and form.shape is not None:
        import numpy

        numbers = numpy.frombuffer(flat, dtype=numpy.float64) if flat else numpy.zeros(0)
        return numpy.moveaxis(numbers.reshape((rows, *form.shape)), 0, axis)
    return flat.tolist() if form is NUMBER else [form.shaped(flat, k * form.size) for k in range(rows)]


class Swept(NamedTuple):
    """What a batch gives, flat: values, and gradients by the wanted arguments; all its arguments, params included."""

    rows: int
    results: list[array[float]]
    wanted: list[_Argument]
    arguments: list[_Argument]


class Rows:
    """A recorded function over the rows of a batch, on flat arrays.

    Attributes:
        recorded: the function.
        axes: of each argument: the axis of the rows, or None where all share it.
        reduce: "mean", "sum", or None for one result a row.
        threads: how many share the rows.
    """

    def __init__(self, recorded: Recorded, in_axes: Axes, reduce: str | None, threads: int) -> None:
        n = len(recorded.forms)
        axes: tuple[int | None, ...] = tuple(in_axes) if isinstance(in_axes, (tuple, list)) else (in_axes,) * n
        if len(axes) != n:
            raise ValueError(f"in_axes has {len(axes)} entries, the program takes {n} arguments")
        if not any(axis is not None for axis in axes):
            raise ValueError("in_axes maps no argument")
        if any(axis is not None and not isinstance(axis, int) for axis in axes):
            raise TypeError(f"in_axes must be integers and None, not {in_axes!r}")
        if reduce not in (None, "mean", "sum"):
            raise ValueError(f"reduce must be 'mean', 'sum' or None, not {reduce!r}")
        if not isinstance(threads, int) or threads < 1:
            raise ValueError(f"threads must be a positive integer, not {threads!r}")
        self.recorded, self.axes, self.reduce, self.threads = recorded, axes, reduce, threads

    def sweep(self, args: Sequence[Nest], argnums: Argnums | None) -> Swept:
        """Values, and gradients by argnums: sums or means, or one row after the other."""
        recorded = self.recorded
        if argnums is not None:
            recorded.check_scalar("a gradient")
        places = [] if argnums is None else recorded.chosen(argnums)
        arguments, rows = self._read(args)
        wanted = [next(a for a in arguments if a.place is place) for place in places]
        distinct = list(dict.fromkeys(wanted))
        results = self._perform(arguments, rows, distinct)
        if len(distinct) < len(wanted):  # each gets numbers of its own
            results = [results[0], *(results[1 + distinct.index(a)][:] for a in wanted)]
        return Swept(rows, results, wanted, arguments)

    def _read(self, args: Sequence[Nest]) -> tuple[list[_Argument], int]:
        recorded = self.recorded
        recorded.check_count(args)
        arguments: list[_Argument] = []
        rows, counted = None, 0
        for k, (x, place, axis) in enumerate(zip(args, recorded.places, self.axes)):
            argument = _Argument(place, axis)
            argument.read(x, f"argument {k}")
            if argument.rows is not None and rows is not None and argument.rows != rows:
                raise ValueError(f"argument {k} has {argument.rows} rows, argument {counted} has {rows}")
            if argument.rows is not None:
                rows, counted = argument.rows, k
            arguments.append(argument)
        params = _Argument(recorded.param_place, None)
        params.numbers = array("d", recorded.param_data())
        return [*arguments, params], rows or 0

    def _perform(self, arguments: list[_Argument], rows: int, wanted: list[_Argument]) -> list[array[float]]:
        """The outputs, then the gradients of the wanted arguments; summed, or one row after the other."""
        recorded, mean = self.recorded, self.reduce == "mean"
        n_out = recorded.n_out
        strides = [0 if self.reduce else n_out]
        strides += [0 if a.rows is None and self.reduce else a.form.size for a in wanted]
        widths = [n_out, *(a.form.size for a in wanted)]
        totals = [zeros(stride * rows if stride else width) for stride, width in zip(strides, widths)]
        seed = array("d", (1.0 / rows if mean and rows else 1.0,)) if wanted else None
        failed = ffi.new("uint32_t[]", max(1, rows))
        pending: dict[int, array[int] | None] = {0: None} if rows else {}  # None: all rows
        while pending:
            k = min(pending)
            chosen = pending.pop(k)
            path = recorded.paths[k]
            count = rows if chosen is None else len(chosen)

            def job(start: int, stop: int, chosen: array[int] | None = chosen) -> tuple[Job, list[array[float]]]:
                buffers = [total if stride else zeros(len(total)) for total, stride in zip(totals, strides)]
                feeds = [a.feed() for a in arguments]
                for a, buffer, stride in zip(wanted, buffers[1:], strides[1:]):
                    feed = feeds[arguments.index(a)]
                    feed.grad, feed.grad_stride = buffer, stride
                made = Job(feeds, start, stop)
                made.out(buffers[0], strides[0])
                if seed is not None:
                    made.seed(seed)
                if chosen is not None:
                    made.rows(chosen)
                made.fail_into(failed)
                made.c.nan_errors = recorded.on_error == "nan"
                return made, buffers

            failures = 0
            for job_failures, buffers in self._chunks(path, count, job):
                failures += job_failures
                for total, stride, buffer in zip(totals, strides, buffers):
                    if not stride:
                        lib.tg_accumulate(pointer(total), pointer(buffer), len(total))
            if failures:
                self._sort(arguments, k, rows, failed, pending)
        if mean:
            totals[0] = array("d", (x / rows if rows else float("nan") for x in totals[0]))
        return totals

    def _chunks(
        self, path: Trace, count: int, job: Callable[[int, int], tuple[Job, list[array[float]]]]
    ) -> Iterator[tuple[int, list[array[float]]]]:
        """Carry out all chunks; their failures and buffers, in order."""
        lanes = lib.tg_lanes
        step = max(CHUNK_ROWS, -(-count // (CHUNKS * lanes)) * lanes)
        ranges = [(start, min(start + step, count)) for start in range(0, count, step)]

        def one(start: int, end: int, stop: threading.Event | None) -> tuple[int, list[array[float]]]:
            made, buffers = job(start, end)
            path.run(made, stop)
            return made.c.failures, buffers

        if self.threads == 1 or len(ranges) == 1 or path.cost * count < WORTH_THREADS:
            for start, end in ranges:
                yield one(start, end, None)
            return
        stop = threading.Event()
        futures = [_pool(self.threads).submit(one, start, end, stop) for start, end in ranges]
        try:
            for future in futures:
                yield future.result()
        finally:
            stop.set()
            for future in futures:
                if not future.cancel():
                    future.exception()          # what it writes to is ours

    def _sort(
        self, arguments: list[_Argument], k: int, rows: int, failed: CData, pending: dict[int, array[int] | None]
    ) -> None:
        """Send the rows that left path k to other paths, or raise for the first."""
        recorded, path = self.recorded, self.recorded.paths[k]
        left = [row for row, at in enumerate(ffi.unpack(failed, rows)) if at]
        groups: dict[int, array[int]] = {}
        for row in left:
            at, failed[row] = failed[row] - 1, 0
            guard = recorded.guard(k, at)
            if guard is None:
                raise self._error(arguments, path, row, at)
            groups.setdefault(guard, array("q")).append(row)
        for guard, group in groups.items():
            flat = array("d")
            for a in arguments:
                flat.extend(a.row(group[0]))
            try:
                pending[recorded.other_path(k, guard, flat)] = group
            except REFUSALS as error:  # f was recorded there, and something refused
                if type(error) not in REFUSALS:
                    raise
                raise type(error)(f"{error} in row {group[0]}") from error

    def _error(self, arguments: list[_Argument], path: Trace, row: int, at: int) -> Exception:
        job = Job([a.feed() for a in arguments], row, row + 1)
        job.fail_into(ffi.new("uint32_t[]", row + 1))
        path.run(job)
        return path.error(at, job, row)


class Batch:
    """A program over the rows of a batch; see `Program.map`."""

    def __init__(self, recorded: Recorded, in_axes: Axes, reduce: str | None, threads: int) -> None:
        self._rows = Rows(recorded, in_axes, reduce, threads)

    def __repr__(self) -> str:
        r = self._rows
        return f"<batch of {r.recorded!r}: in_axes={r.axes}, reduce={r.reduce!r}, threads={r.threads}>"

    def __reduce__(self) -> tuple[object, ...]:
        r = self._rows
        return Batch, (r.recorded, r.axes, r.reduce, r.threads)

    def __call__(self, *args: Nest) -> Shaped:
        """The results of all rows, or their mean or sum.

        Returns:
            Shaped like f's result; without reduce, one for every row: an array where an argument came as one.

        Raises:
            TypeError, ValueError: an argument is not as it was recorded, or the numbers of rows differ.
            BranchChanged, ValueError, ZeroDivisionError, OverflowError: as of one row, naming it.
        """
        swept, form = self._rows.sweep(args, None), self._rows.recorded.out
        if self._rows.reduce is None:
            return _stacked(form, swept.results[0], swept.rows, any(a.from_array for a in swept.arguments))
        return form.shaped(swept.results[0])

    @overload
    def value_and_grad(self, *args: Nest, argnums: int = 0) -> tuple[Shaped, Shaped]: ...
    @overload
    def value_and_grad(self, *args: Nest, argnums: Literal["params"]) -> tuple[Shaped, list[Shaped]]: ...
    @overload
    def value_and_grad(self, *args: Nest, argnums: Several) -> tuple[Shaped, tuple[Shaped, ...]]: ...
    def value_and_grad(self, *args: Nest, argnums: Argnums = 0) -> tuple[Shaped, Shaped]:
        """The value, and its gradient by the arguments in argnums.

        Returns:
            With reduce: a float, and a gradient shaped like the argument, rows included. Without: both for every row.

        Raises:
            TypeError: f returns more than one Value.
        """
        rows, results, wanted, arguments = self._rows.sweep(args, argnums)
        reduce, arrays = self._rows.reduce, any(a.from_array for a in arguments)
        parts = []
        for argument, flat in zip(wanted, results[1:]):
            if argument.rows is None and reduce is not None:
                parts.append(argument.form.shaped(flat))
            else:
                as_array = argument.from_array or (argument.rows is None and (arrays or argument.form.has_array))
                parts.append(argument.per_row(flat, rows, as_array))
        value = _stacked(NUMBER, results[0], rows, arrays) if reduce is None else results[0][0]
        return value, gathered(argnums, parts)

    @overload
    def grad(self, *args: Nest, argnums: int = 0) -> Shaped: ...
    @overload
    def grad(self, *args: Nest, argnums: Literal["params"]) -> list[Shaped]: ...
    @overload
    def grad(self, *args: Nest, argnums: Several) -> tuple[Shaped, ...]: ...
    def grad(self, *args: Nest, argnums: Argnums = 0) -> Shaped:
        """The gradient; see `value_and_grad`."""
        return self.value_and_grad(*args, argnums=argnums)[1]

    def diagnose(self, *args: Nest, inf: bool = True) -> Diagnosis | None:
        """As `Program.diagnose`, of the first row that is not finite, which it names."""
        from ..look.diagnosis import of_rows

        return of_rows(self._rows, args, inf)
