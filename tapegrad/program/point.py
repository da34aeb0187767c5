"""A recorded function at one point, on flat arrays: values and derivatives, over whichever path the point takes."""
from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from .._core import lib
from .recorded import Place, Recorded
from .replay import ONE, REFUSALS, Buffer, Feed, Job, Matrix, Primals, Trace, room, units, zeros

MOST_RESTING = 1 << 16  # primals
DIRECTIONS = 64  # that go together where there are loops

T = TypeVar("T")


def assign(to: array[float], numbers: array[float]) -> None:
    """Into a buffer in use, as many as it has; of none it would be resized, which is refused."""
    if numbers:
        to[:] = numbers


def taken(idle: list[T], make: Callable[[], T]) -> T:
    """One that is idle, or a new one; another thread may have taken the last just now."""
    try:
        return idle.pop()
    except IndexError:
        return make()


def run(
    recorded: Recorded, flat: array[float], job: Job, nan_errors: bool = False,
    keep: Callable[[Trace], Primals] | None = None,
) -> Trace:  # fmt: skip
    """Carry out a job over the path that these inputs take, which is returned; it may start again, so nothing that it
    writes is summed. nan_errors: what f refuses, with no except for it, is nan whatever on_error says; keep: where
    primals are left."""
    k, path = 0, recorded.paths[0]
    nan_errors = nan_errors or recorded.on_error == "caught"
    job.c.nan_errors = recorded.on_error == "nan"
    while True:
        if keep is not None:
            job.keep(keep(path))
        path.run(job)
        if not job.c.failures:
            return path
        at = job.first_failure()
        if k < 0 or not recorded.leads_on(k, at):
            error = path.error(at, job, None, way_on=recorded.way_on)
        else:
            try:
                k, path = recorded.other_path(k, at, flat)
                continue
            except REFUSALS as refused:
                if not path.refused_alike(at, job, refused):
                    raise
                error = path.error(at, job, None)  # f has no except for it
        if nan_errors and not job.c.nan_errors and isinstance(error, REFUSALS):
            job.c.nan_errors = True
            continue
        try:
            raise error from None
        finally:
            del error  # or it and this frame, with all arguments, wait for Python's collector


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
        assign(self._flat, flat)
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


# ---- at primals that are kept ----


class Kept:
    """Replays at one point after the other, the primals of which are kept until the next: for matrices, and for one
    sweep after another. One direction goes alone, for lanes would cost it more.

    Attributes:
        out: the outputs, once there was a replay.
    """

    def __init__(self, recorded: Recorded) -> None:
        self._recorded, self._flat = recorded, zeros(recorded.n_in)
        self.out = zeros(recorded.n_out)
        self._job = Job([Feed(0, recorded.n_in, self._flat)], 0, 1)
        self._job.out(self.out, recorded.n_out)
        self._primals: Primals | None = None
        self._matrices: dict[tuple[int, ...], Matrix] = {}
        self._sweeps: list[tuple[array[float], array[float], Job]] = []  # seed and gradient; those that are idle

    def at(self, flat: array[float]) -> None:
        """Go there; a replay comes when it is needed."""
        assign(self._flat, flat)
        self._replayed = False

    def replay(self) -> Primals:
        """The primals there."""
        if not self._replayed:
            run(self._recorded, self._flat, self._job, keep=self._keep)
            self._replayed = True
        assert self._primals is not None
        return self._primals

    def _keep(self, path: Trace) -> Primals:
        if self._primals is None or self._primals.path is not path:
            self._primals = Primals(path, 1)
        return self._primals

    def rest(self) -> None:
        """Let go of primals that take more room than is worth keeping until the next replay."""
        if self._primals is not None and self._primals.path.core.n_kept > MOST_RESTING:
            self._primals = None

    def _new_sweep(self) -> tuple[array[float], array[float], Job]:
        seed, grad = zeros(self._recorded.n_out), zeros(self._recorded.n_in)
        feed = Feed(0, len(grad), self._flat)
        feed.grad, feed.grad_stride = grad, len(grad)
        job = Job([feed], 0, 1)
        job.seed(seed)
        job.c.nan_errors = self._recorded.on_error == "nan"
        return seed, grad, job

    def pull(self, seed: array[float], shaped: Callable[[array[float]], T]) -> T:
        """What becomes of the gradient of the sum of the outputs weighed by seed; several threads may ask at once."""
        own, grad, job = taken(self._sweeps, self._new_sweep)
        try:
            primals = self.replay()
            assign(own, seed)
            job.keep(primals, again=True)
            primals.path.run(job)
            return shaped(grad)
        finally:
            self._sweeps.append((own, grad, job))

    def jacobians(self, places: Sequence[Place]) -> list[Buffer]:
        """The derivatives of each output, in order, by parts of the inputs: by rows in reverse or by columns forward,
        whichever are fewer."""
        n_out = self._recorded.n_out
        distinct = {place.number: place for place in places}
        in_reverse = [place for place in distinct.values() if n_out <= place.form.size]
        rows = [room(n_out * place.form.size) for place in in_reverse] if n_out != 1 else []
        if rows:
            self._fill(lib.TG_ROWS, 0, n_out, in_reverse, rows)
        elif in_reverse:
            rows = self.pull(ONE, lambda grad: _parts(grad, in_reverse))
        found = {place.number: row for place, row in zip(in_reverse, rows)}
        for k, place in distinct.items():
            if n_out > place.form.size == 1:
                found[k] = forward(self._recorded, self._flat, units(1, len(self._flat), place.first))[1]
            elif n_out > place.form.size:
                found[k] = room(n_out * place.form.size)
                self._fill(lib.TG_COLUMNS, place.first, place.form.size, (), [found[k]])
        return [found[place.number] for place in places]

    def hessians(self, places: Sequence[Place], seed: array[float] = ONE) -> list[list[Buffer]]:
        """The second derivatives of the sum of the outputs, weighed by seed, by a part of the inputs, row after row,
        and by each of them all."""
        distinct = {place.number: place for place in places}
        found: dict[int, dict[int, Buffer]] = {}
        for by in distinct.values():
            if by.form.size == 1:
                along = units(1, len(self._flat), by.first)
                rows = _parts(tangent_over_reverse(self._recorded, self._flat, along, seed), distinct.values())
            else:
                rows = [room(by.form.size * of.form.size) for of in distinct.values()]
                self._fill(lib.TG_HESSIAN, by.first, by.form.size, distinct.values(), rows, seed)
            found[by.number] = dict(zip(distinct, rows))
        return [[found[by.number][of.number] for of in places] for by in places]

    def _fill(
        self, how: int, first: int, count: int, places: Collection[Place], buffers: list[Buffer],
        seed: array[float] = ONE,
    ) -> None:  # fmt: skip
        """See tg_matrix."""
        if self.replay().path.calls:
            self._fill_in_rows(how, first, count, places, buffers, seed)
            return
        key = (how, first, count, *(place.number for place in places))
        matrix = self._matrices.get(key)
        if matrix is None:
            feeds = [(place.first, place.form.size) for place in places]
            matrix = self._matrices[key] = Matrix(how, first, count, feeds)
        matrix.fill(self.replay(), buffers, seed)

    def _fill_in_rows(
        self, how: int, first: int, count: int, places: Collection[Place], buffers: list[Any], seed: array[float]
    ) -> None:  # fmt: skip
        """As `_fill`, on a path with loops: a direction is a row of a batch."""
        recorded, path, n_out = self._recorded, self.replay().path, self._recorded.n_out
        for start in range(0, count, DIRECTIONS):
            n = min(DIRECTIONS, count - start)
            feeds, found, along = [], [], zeros(n * n_out)
            for place in (*recorded.places, recorded.param_place):
                size = place.form.size
                feed = Feed(place.first, size, self._flat[place.first : place.first + size])
                if how != lib.TG_ROWS and place.first <= first < place.first + size:
                    feed.tangent, feed.tangent_stride = units(n, size, first - place.first + start), size
                if any(place.number == other.number for other in places):
                    grads = zeros(n * size)
                    if how == lib.TG_ROWS:
                        feed.grad, feed.grad_stride = grads, size
                    else:
                        feed.grad_tangent, feed.grad_tangent_stride = grads, size
                    found.append((place.number, size, grads))
                if size:
                    feeds.append(feed)
            job = Job(feeds, 0, n)
            job.c.tangents, job.c.nan_errors = how != lib.TG_ROWS, recorded.on_error == "nan"
            if how == lib.TG_ROWS:
                job.seed(units(n, n_out, start), n_out)
            elif how == lib.TG_HESSIAN:
                job.seed(seed)
            else:
                job.out_tangent(along, n_out)
            path.run(job)
            if how == lib.TG_COLUMNS:
                for k in range(n):
                    for i in range(n_out):
                        buffers[0][i * count + start + k] = along[k * n_out + i]
            by_number = {number: (size, grads) for number, size, grads in found}
            for place, buffer in zip(places, buffers):
                size, grads = by_number[place.number]
                buffer[start * size : (start + n) * size] = grads


def _parts(row: array[float], places: Collection[Place]) -> list[Buffer]:
    """What there is for some parts of the inputs."""
    return [row[place.first : place.first + place.form.size] for place in places]
