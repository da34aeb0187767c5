"""A program over the rows of a batch: side by side in lanes, on several threads, each row on its own path."""
from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .._core import ffi, lib
from . import nest
from .nest import NUMBER, Form
from .replay import Feed, Path, Work, pointer, zeros

if TYPE_CHECKING:
    from .program import Program

CHUNKS = 16  # at most, in which sums are made: they depend on the number of rows alone, so the bits do, too
CHUNK_ROWS = 256  # at least
REFUSALS = (ValueError, ZeroDivisionError, OverflowError)
WORTH_THREADS = 1 << 23  # additions, some 2 ms of them, below which threads cost more than they give

_pools: dict[tuple[int, int], Any] = {}  # by process, which fork copies without its threads, and size


def _pool(threads: int) -> Any:
    key = os.getpid(), threads
    if key not in _pools:
        from concurrent.futures import ThreadPoolExecutor  # slow to import, and seldom needed

        _pools[key] = ThreadPoolExecutor(threads, "tapegrad")
    return _pools[key]


class _Argument:
    """One argument of a batch: its numbers, and how far it is from row to row."""

    def __init__(self, form: Form, first: int, axis: int | None) -> None:
        self.form, self.first, self.count, self.axis = form, first, nest.size(form), axis
        self.numbers: Any = None
        self.rows: int | None = None  # None: shared
        self.from_array = False

    def read(self, x: Any, what: str) -> None:
        if self.axis is None:
            self.numbers = array("d")
            nest.flatten(x, self.form, what, self.numbers)
        elif hasattr(x, "__array__") and hasattr(x, "shape"):
            self._read_array(x, what)
        elif self.axis != 0:
            raise TypeError(f"{what} is mapped over axis {self.axis}: it must be an array, not {type(x).__name__!r}")
        elif isinstance(x, (list, tuple)):
            self.numbers, self.rows = array("d"), len(x)
            if self.form == NUMBER and set(map(type, x)) <= {float, int}:
                self.numbers.extend(x)
            else:
                for k, item in enumerate(x):
                    nest.flatten(item, self.form, f"{what}, row {k}", self.numbers)
        else:
            raise TypeError(f"{what} must be a list or an array of rows, not {type(x).__name__!r}")

    def _read_array(self, x: Any, what: str) -> None:
        import numpy

        axis = self.axis
        if axis is None or not -x.ndim <= axis < x.ndim:
            raise ValueError(f"{what} is an array of shape {x.shape}: it has no axis {axis}")
        rows = x if axis == 0 else numpy.moveaxis(x, axis, 0)
        if rows.shape[1:] != nest.shape(self.form):
            recorded = nest.describe(self.form)
            raise ValueError(f"{what} has rows of shape {rows.shape[1:]}, but was recorded as {recorded}")
        self.numbers, self.rows, self.from_array = nest.floats(rows, what).reshape(-1), len(rows), True

    def feed(self) -> Feed:
        return Feed(self.first, self.count, self.numbers, 0 if self.rows is None else self.count)

    def row(self, k: int) -> Any:
        start = 0 if self.rows is None else k * self.count
        return self.numbers[start : start + self.count]

    def per_row(self, flat: array[float], rows: int, as_array: bool) -> Any:
        """A nest for every row: an array with the rows on the argument's axis, or a list."""
        return _stacked(self.form, flat, rows, as_array, self.axis or 0)


def _stacked(form: Form, flat: array[float], rows: int, as_array: bool, axis: int = 0) -> Any:
    shape = nest.shape(form)
    if as_array and shape is not None:
        import numpy

        numbers = numpy.frombuffer(flat, dtype=numpy.float64) if flat else numpy.zeros(0)
        return numpy.moveaxis(numbers.reshape((rows, *shape)), 0, axis)
    n = nest.size(form)
    return flat.tolist() if form == NUMBER else [nest.shaped(form, flat[k * n : k * n + n]) for k in range(rows)]


class Loop:
    """A program over the rows of a batch; see `Program.map`."""

    def __init__(self, program: Program, in_axes: Any, reduce: str | None, threads: int) -> None:
        n = len(program.forms)
        axes = tuple(in_axes) if isinstance(in_axes, (tuple, list)) else (in_axes,) * n
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
        self._program, self._axes, self._reduce, self._threads = program, axes, reduce, threads

    def __repr__(self) -> str:
        return f"<loop over {self._program!r}: in_axes={self._axes}, reduce={self._reduce!r}, threads={self._threads}>"

    def _read(self, args: Sequence[Any]) -> tuple[list[_Argument], int]:
        program = self._program
        if len(args) != len(program.forms):
            raise TypeError(f"the program takes {len(program.forms)} arguments, not {len(args)}")
        arguments, first, rows, counted = [], 0, None, 0
        for k, (x, form, axis) in enumerate(zip(args, program.forms, self._axes)):
            argument = _Argument(form, first, axis)
            argument.read(x, f"argument {k}")
            if argument.rows is not None and rows is not None and argument.rows != rows:
                raise ValueError(f"argument {k} has {argument.rows} rows, argument {counted} has {rows}")
            if argument.rows is not None:
                rows, counted = argument.rows, k
            first += argument.count
            arguments.append(argument)
        data = program.param_data()
        params = _Argument(("list", (NUMBER,) * len(data)), first, None)
        params.numbers = array("d", data)
        arguments.append(params)
        return arguments, rows or 0

    def __call__(self, *args: Any) -> Any:
        """The results of all rows, or their mean or sum.

        Returns:
            Shaped like f's result; without reduce, one for every row: an array where an argument came as one.

        Raises:
            TypeError, ValueError: an argument is not as it was recorded, or the numbers of rows differ.
            BranchChanged, ValueError, ZeroDivisionError, OverflowError: as of one row, naming it.
        """
        arguments, rows = self._read(args)
        out = self._perform(arguments, rows, [])[0]
        if self._reduce is None:
            return _stacked(self._program.out, out, rows, any(a.from_array for a in arguments))
        return nest.shaped(self._program.out, out)

    def value_and_grad(self, *args: Any, argnums: Any = 0) -> tuple[Any, Any]:
        """The value, and its gradient by the arguments in argnums.

        Returns:
            With reduce: a float, and a gradient shaped like the argument, rows included. Without: both for every row.

        Raises:
            TypeError: f returns more than one Value.
        """
        program = self._program
        arguments, wanted, rows, results = self.flat(args, argnums)
        arrays = any(a.from_array for a in arguments)
        parts = []
        for argument, flat in zip(wanted, results[1:]):
            if argument.rows is None and self._reduce is not None:
                parts.append(nest.shaped(argument.form, flat))
            else:
                as_array = argument.from_array or (argument.rows is None and (arrays or nest.has_array(argument.form)))
                parts.append(argument.per_row(flat, rows, as_array))
        value = _stacked(NUMBER, results[0], rows, arrays) if self._reduce is None else results[0][0]
        return value, program.gathered(argnums, parts)

    def grad(self, *args: Any, argnums: Any = 0) -> Any:
        """The gradient; see `value_and_grad`."""
        return self.value_and_grad(*args, argnums=argnums)[1]

    # ---- how it is done ----

    def flat(
        self, args: Sequence[Any], argnums: Any
    ) -> tuple[list[_Argument], list[_Argument], int, list[array[float]]]:
        """All arguments, those of argnums, how many rows there are; and flat, the value and then the gradients."""
        self._program.need_scalar("a gradient")
        chosen = self._program.chosen(argnums)
        arguments, rows = self._read(args)
        wanted = [next(a for a in arguments if (a.first, a.form) == (first, form)) for form, first, _ in chosen]
        distinct = list(dict.fromkeys(wanted))
        results = self._perform(arguments, rows, distinct)
        if len(distinct) < len(wanted):  # each gets numbers of its own
            results = [results[0], *(results[1 + distinct.index(a)][:] for a in wanted)]
        return arguments, wanted, rows, results

    def _perform(self, arguments: list[_Argument], rows: int, wanted: list[_Argument]) -> list[array[float]]:
        """The outputs, then the gradients of the wanted arguments; summed, or one row after the other."""
        program, mean = self._program, self._reduce == "mean"
        n_out = program.paths[0].core.n_out
        strides = [0 if self._reduce else n_out]
        strides += [0 if a.rows is None and self._reduce else a.count for a in wanted]
        widths = [n_out, *(a.count for a in wanted)]
        totals = [zeros(stride * rows if stride else width) for stride, width in zip(strides, widths)]
        seed = array("d", (1.0 / rows if mean and rows else 1.0,)) if wanted else None
        failed = ffi.new("uint32_t[]", max(1, rows))
        pending: dict[int, Any] = {0: None} if rows else {}
        while pending:
            k = min(pending)
            chosen = pending.pop(k)
            path = program.paths[k]
            count = rows if chosen is None else len(chosen)

            def work(start: int, stop: int, chosen: Any = chosen) -> tuple[Work, list[array[float]]]:
                buffers = [total if stride else zeros(len(total)) for total, stride in zip(totals, strides)]
                feeds = [a.feed() for a in arguments]
                for a, buffer, stride in zip(wanted, buffers[1:], strides[1:]):
                    feed = feeds[arguments.index(a)]
                    feed.grad, feed.grad_stride = buffer, stride
                w = Work(feeds, start, stop)
                w.out(buffers[0], strides[0])
                if seed is not None:
                    w.seed(seed)
                if chosen is not None:
                    w.rows(chosen)
                w.fail_into(failed)
                w.job.nan_errors = program.on_error == "nan"
                return w, buffers

            failures = 0
            for job_failures, buffers in self._chunks(path, count, work):
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
        self, path: Path, count: int, work: Callable[[int, int], tuple[Work, list[array[float]]]]
    ) -> Any:
        """Carry out all chunks; their failures and buffers, in order."""
        lanes = lib.tg_lanes
        step = max(CHUNK_ROWS, -(-count // (CHUNKS * lanes)) * lanes)
        ranges = [(start, min(start + step, count)) for start in range(0, count, step)]

        def one(start: int, end: int, stop: threading.Event | None) -> tuple[int, list[array[float]]]:
            w, buffers = work(start, end)
            path.run(w.job, stop)
            return w.job.failures, buffers

        if self._threads == 1 or len(ranges) == 1 or path.cost * count < WORTH_THREADS:
            for start, end in ranges:
                yield one(start, end, None)
            return
        stop = threading.Event()
        futures = [_pool(self._threads).submit(one, start, end, stop) for start, end in ranges]
        try:
            for future in futures:
                yield future.result()
        finally:
            stop.set()
            for future in futures:
                if not future.cancel():
                    future.exception()          # what it writes to is ours

    def _sort(self, arguments: list[_Argument], k: int, rows: int, failed: Any, pending: dict[int, Any]) -> None:
        """Send the rows that left path k to other paths, or raise for the first."""
        program, path = self._program, self._program.paths[k]
        left = [row for row, at in enumerate(ffi.unpack(failed, rows)) if at]
        groups: dict[int, array[int]] = {}
        for row in left:
            at, failed[row] = failed[row] - 1, 0
            guard = program.guard_of(k, at)
            if guard is None:
                raise self._error(arguments, path, row, at)
            groups.setdefault(guard, array("q")).append(row)
        for guard, group in groups.items():
            flat = array("d")
            for a in arguments:
                flat.extend(a.row(group[0]))
            try:
                pending[program.other_path(k, guard, flat)] = group
            except REFUSALS as error:  # f was recorded there, and something refused
                if type(error) not in REFUSALS:
                    raise
                raise type(error)(f"{error} in row {group[0]}") from error

    def _error(self, arguments: list[_Argument], path: Path, row: int, at: int) -> Exception:
        work = Work([a.feed() for a in arguments], row, row + 1)
        work.fail_into(ffi.new("uint32_t[]", row + 1))
        path.run(work.job)
        return path.error(at, work.job, row)
