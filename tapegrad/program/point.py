"""A recorded function at one point, on flat arrays: values and derivatives, over whichever path the point takes."""
from __future__ import annotations

import functools
from array import array
from collections.abc import Callable, Sequence

from .._core import lib
from .recorded import Place, Recorded
from .replay import ONE, REFUSALS, Feed, Job, Trace, units, zeros

MOST = 1 << 22  # numbers that one replay of many rows writes


def run(recorded: Recorded, flat: array[float], job: Job, nan_errors: bool = False) -> Trace:
    """Carry out a job over the path that these inputs take, which is returned; it may start again, so nothing that it
    writes is summed. nan_errors: what would be refused is nan, whatever on_error says."""
    k, path = 0, recorded.paths[0]
    job.c.nan_errors = nan_errors or recorded.on_error == "nan"
    while True:
        path.run(job)
        if not job.c.failures:
            return path
        at = job.first_failure()
        if k < 0 or not recorded.leads_on(k, at):
            raise path.error(at, job, None, way_on=recorded.way_on)
        try:
            k, path = recorded.other_path(k, at, flat)
        except REFUSALS as error:
            if path.refused_alike(at, job, error):  # f has no except for it
                raise path.error(at, job, None) from None
            raise


def path(recorded: Recorded, flat: array[float], nan_errors: bool = False) -> Trace:
    """The path that these inputs take; nan_errors: as `run` has it."""
    return run(recorded, flat, Job([Feed(0, len(flat), flat)], 0, 1), nan_errors)


def value(recorded: Recorded, flat: array[float]) -> array[float]:
    """The outputs."""
    out = zeros(recorded.n_out)
    job = Job([Feed(0, len(flat), flat)], 0, 1)
    job.out(out, recorded.n_out)
    run(recorded, flat, job)
    return out


class Reverse:
    """Outputs, and the gradient of their sum weighed by seed, at one point after the other in the same buffers."""

    def __init__(self, recorded: Recorded, seed: array[float]) -> None:
        self._recorded, self._flat = recorded, zeros(recorded.n_in)
        self.out, self.grad = zeros(recorded.n_out), zeros(recorded.n_in)
        feed = Feed(0, recorded.n_in, self._flat)
        feed.grad, feed.grad_stride = self.grad, recorded.n_in
        self._job = Job([feed], 0, 1)
        self._job.out(self.out, recorded.n_out)
        self._job.seed(seed)

    def at(self, flat: array[float]) -> None:
        self._flat[:] = flat
        run(self._recorded, flat, self._job)


def reverse(recorded: Recorded, flat: array[float], seed: array[float]) -> tuple[array[float], array[float]]:
    """Outputs, and the gradient of their sum weighed by seed."""
    sweep = Reverse(recorded, seed)
    sweep.at(flat)
    return sweep.out, sweep.grad


def forward(recorded: Recorded, flat: array[float], tangent: array[float]) -> tuple[array[float], array[float]]:
    """Outputs, and their derivatives along tangent."""
    out, out_tangent = zeros(recorded.n_out), zeros(recorded.n_out)
    feed = Feed(0, len(flat), flat)
    feed.tangent = tangent
    job = Job([feed], 0, 1)
    job.c.tangents = 1
    job.out(out, recorded.n_out)
    job.out_tangent(out_tangent, recorded.n_out)
    run(recorded, flat, job)
    return out, out_tangent


def tangent_over_reverse(
    recorded: Recorded, flat: array[float], tangent: array[float], seed: array[float]
) -> array[float]:
    """The derivative along tangent of the gradient that `reverse` gives."""
    result = zeros(len(flat))
    feed = Feed(0, len(flat), flat)
    feed.tangent, feed.grad_tangent, feed.grad_tangent_stride = tangent, result, len(flat)
    job = Job([feed], 0, 1)
    job.c.tangents = 1
    job.seed(seed)
    run(recorded, flat, job)
    return result


# ---- matrices: rows that differ in a seed or a tangent alone, side by side in the lanes ----


def jacobian(recorded: Recorded, flat: array[float], by: Place) -> array[float]:
    """The derivatives of each output, in order, by a part of the inputs: by rows in reverse or by columns forward,
    whichever are fewer."""
    n_in, n_out = recorded.n_in, recorded.n_out

    def row(start: int, feed: Feed, buffer: array[float], n: int) -> Job:
        feed.grad, feed.grad_stride = buffer, n_in
        job = Job([feed], 0, n)
        job.seed(units(n, n_out, start), n_out)
        return job

    def column(start: int, feed: Feed, buffer: array[float], n: int) -> Job:
        feed.tangent, feed.tangent_stride = units(n, n_in, start), n_in
        job = Job([feed], 0, n)
        job.c.tangents = 1
        job.out_tangent(buffer, n_out)
        return job

    if n_out <= by.form.size:
        return _columns(_rows(recorded, flat, n_out, n_in, 0, row), n_in, by)
    columns, entries = _rows(recorded, flat, by.form.size, n_out, by.first, column), array("d")
    for i in range(n_out):
        entries.extend(columns[i::n_out])
    return entries


def hessian(recorded: Recorded, flat: array[float], by: Place, of: Sequence[Place]) -> list[array[float]]:
    """The second derivatives of the one output by a part of the inputs, row after row, and by each of some parts."""
    n_in = recorded.n_in

    def row(start: int, feed: Feed, buffer: array[float], n: int) -> Job:
        feed.tangent, feed.tangent_stride = units(n, n_in, start), n_in
        feed.grad_tangent, feed.grad_tangent_stride = buffer, n_in
        job = Job([feed], 0, n)
        job.c.tangents = 1
        job.seed(ONE)
        return job

    rows = _rows(recorded, flat, by.form.size, n_in, by.first, row)
    return [_columns(rows, n_in, place) for place in of]


def _rows(
    recorded: Recorded, flat: array[float], rows: int, width: int, first: int,
    make: Callable[[int, Feed, array[float], int], Job],
) -> array[float]:  # fmt: skip
    """Rows of derivatives, one for each unit vector from first on, of width numbers; buffers stay small."""
    found, inner = array("d"), max(len(flat), recorded.n_out)
    most = max(lib.tg_lanes, MOST // (inner + 1))
    for start in range(0, rows, most):
        n = min(most, rows - start)
        found.extend(_replay(recorded, flat, n, width, functools.partial(make, first + start)))
    return found


def _replay(
    recorded: Recorded, flat: array[float], n: int, width: int, make: Callable[[Feed, array[float], int], Job]
) -> array[float]:
    """One replay of n rows, which make lets write width numbers each."""
    buffer = zeros(n * width)
    job = make(Feed(0, len(flat), flat), buffer, n)
    run(recorded, flat, job)
    return buffer


def _columns(rows: array[float], width: int, of: Place) -> array[float]:
    """Those columns of rows of width numbers that are a part of the inputs."""
    if of.form.size == width:
        return rows
    found = array("d")
    for start in range(of.first, len(rows), width):
        found.extend(rows[start : start + of.form.size])
    return found
