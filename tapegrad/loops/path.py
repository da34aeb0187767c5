"""A loop of a known length as the one path of a recorded function: all that replays programs replays it, too."""
from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

from .._core import ffi, lib
from ..program.recorded import Recorded
from ..program.replay import REFUSALS, SLICE, CData, Job, Trace, in_chunks, stops_within, within
from ..program.replay import Stop as Within
from .cell import MOST_PATHS, Cell
from .layout import Spread

BUDGET = 64 << 20  # bytes of states that are kept, if nobody says otherwise
MOST_STEPS = 1 << 40


class Stop(NamedTuple):
    """Where a row left all known paths: the step, the cell, its path, the instruction, all inputs of the cell, the
    operands of the instruction, and where in loops that it carries out."""

    step: int
    cell: Cell
    path: int
    at: int
    inputs: array[float]
    operands: tuple[float, float]
    within: list[Within]


class LoopPath(Trace):
    """A loop that is carried out as a trace is.

    Args:
        cells: the step, final and until; None where there is none.
        sizes: of the state, of x, of y.
        n_in, n_out: of the loop.
        xs, ys: where their numbers are, of xs among the inputs.
        checkpoints: how many states may be kept; None: as many as fit into BUDGET.
        total: whether it gives one number.
    """

    def __init__(
        self, cells: Sequence[Cell | None], sizes: tuple[int, int, int], n_in: int, n_out: int, xs: Spread, ys: Spread,
        length: int, checkpoints: int | None, total: bool,
    ) -> None:  # fmt: skip
        core = ffi.new("tg_program *")
        core.n_in, core.n_out, core.n_kept = n_in, n_out, lib.TG_NONE  # never worth keeping
        super().__init__(core, [], 0.0)
        self.cells, self.length, self._checkpoints = cells, length, checkpoints
        assert cells[0] is not None
        self._first = cells[0].recorded.paths[0]
        self.cost = (self._first.cost + 4) * max(1, length)
        n_state, n_x, n_y = sizes
        self._arrays = [ffi.new("uint32_t[]", list(x)) for x in (xs.at, xs.by, ys.at, ys.by)]
        self._sizes = {
            "n_state": n_state, "n_x": n_x, "n_y": n_y, "first_param": n_state + n_x * length,
            "n_params": n_in - n_state - n_x * length, "length": length, "total": int(total),
        }  # fmt: skip
        self._n_state = n_state
        self._described: tuple[tuple[Any, ...], list[tuple[CData, ...]]] | None = None

    def _states(self, c: CData) -> int:
        if self._checkpoints is not None:
            return min(self._checkpoints, MOST_STEPS)
        lanes = lib.tg_lanes if c.stop - c.start > 1 else 1
        return int(max(1, BUDGET // (8 * self._n_state * lanes * (2 if c.tangents else 1))))

    def described(self, states: int = 1) -> tuple[CData, ...]:
        """A tg_loop that keeps so many states, and what has to be held as long as it is there."""
        known = tuple(cell and cell.state() for cell in self.cells)
        held = self._described
        if held is None or known != held[0]:
            described = [cell.described() if cell else (ffi.NULL,) for cell in self.cells]
            self._described = held = known, described  # in one, for other threads do the same
        step, final, until = (one[0] for one in held[1])
        loop = ffi.new("tg_loop *", {**self._sizes, "states": states})
        loop.step, loop.final, loop.until = step, final, until
        loop.x_at, loop.x_by, loop.y_at, loop.y_by = self._arrays
        return loop, held

    def _prepare(self, job: CData) -> tuple[CData, ...]:
        """Have the job carry out this loop; what has to be held meanwhile."""
        described = self.described(self._states(job))
        job.program, job.native, job.loop = self.core, ffi.NULL, described[0]
        return described

    def _budget(self, lanes: int) -> int:
        """Instructions of the step's first path that take a slice, whichever paths steps take."""
        assert self.cells[0] is not None
        dearest = max(path.cost for path in self.cells[0].recorded.paths)
        n_instr: int = self._first.core.n_instr
        return max(1, SLICE * max(1, n_instr) // dearest // lanes)

    def _carry_out(self, c: CData) -> Stop | None:
        """Carry out a job in slices; where its first row stopped, if one did."""
        if lib.tg_start(c):
            raise MemoryError
        try:
            budget = self._budget(c.lanes)
            while lib.tg_run(c, budget):
                pass
            return self._stop(c) if c.failures else None
        finally:
            lib.tg_finish(c)

    def _stop(self, c: CData) -> Stop:
        at = lib.tg_where_stopped(c)
        cell = self.cells[at.cell]
        assert cell is not None
        inputs = array("d", ffi.unpack(getattr(at, "in"), cell.recorded.n_in))
        return Stop(at.step, cell, at.path, at.at, inputs, (c.fail_a, c.fail_b), stops_within(c))

    def run(self, job: Job) -> None:
        """Carry out a job of one row; paths of the step that are new are recorded, and it starts again.

        Raises:
            BranchChanged, ValueError, ZeroDivisionError, OverflowError: as of a program, naming the step.
        """
        while True:
            held = self._prepare(job.c)
            stop = self._carry_out(job.c)
            if stop is None:
                return
            job.first_failure()
            self._go_on(stop, None)
            del held

    def run_in_chunks(self, job: Job, step: int, threads: int) -> int:
        """As `run`, of rows, in chunks that threads share."""
        c = job.c
        while True:
            held = self._prepare(c)
            if not in_chunks(c, step, threads, self._budget(lib.tg_lanes)):
                return 0
            row = job.first_failed_row()
            stop = self._alone(c, row)
            if stop is not None:
                self._go_on(stop, row)
            else:
                assert self._described is not held[1]  # another thread has made the path known
            self._clear(c)
            del held

    def _alone(self, c: CData, row: int) -> Stop | None:
        """Where a row stopped, which is carried out again by itself, unless its path is known by now."""
        one = ffi.new("tg_job *", c[0])
        feeds = ffi.new("tg_feed[]", list(c.feed[0 : c.n_feeds]))
        for feed in feeds:
            feed.grad = feed.grad_tangent = ffi.NULL
        one.feed, one.seed, one.out, one.out_tangent = feeds, ffi.NULL, ffi.NULL, ffi.NULL
        one.start, one.stop = row, row + 1
        failed = one.failed = ffi.new("uint32_t[]", row + 1)
        held = self._prepare(one), failed
        stop = self._carry_out(one)
        del held
        return stop

    def _clear(self, c: CData) -> None:
        """What is summed starts at 0 again."""
        for to, stride in ((c.out, c.out_stride), (c.out_tangent, c.out_tangent_stride)):
            if to and not stride:
                ffi.memmove(to, bytes(8 * self.core.n_out), 8 * self.core.n_out)
        for feed in c.feed[0 : c.n_feeds]:
            for to, stride in ((feed.grad, feed.grad_stride), (feed.grad_tangent, feed.grad_tangent_stride)):
                if to and not stride:
                    ffi.memmove(to, bytes(8 * feed.count), 8 * feed.count)

    def _go_on(self, stop: Stop, row: int | None) -> None:
        """Make the path known that goes on there.

        Raises:
            Exception: there is none.
        """
        recorded = stop.cell.recorded
        path = recorded.paths[stop.path]
        most = min(recorded.max_paths, MOST_PATHS)
        job = Job([], 0, 1)
        job.c.fail_a, job.c.fail_b = stop.operands
        job.stops = stop.within
        if not recorded.leads_on(stop.path, stop.at):
            way_on = recorded.way_on
            if recorded.f is None and stop.cell.what == "until":  # of a file that was written before it was called
                way_on += "; call a loop before it is saved, or have until give a number, such as tapegrad.less(..)"
            raise path.error(stop.at, job, row, way_on=way_on, step=stop.step)
        if (stop.path, stop.at) not in recorded.children and len(recorded.paths) >= most:
            way_on = f"a loop needs all paths of {stop.cell.what}, and {most} are known, which are the most"
            raise path.error(stop.at, job, row, way_on=way_on, step=stop.step)
        try:
            recorded.other_path(stop.path, stop.at, stop.inputs)
        except REFUSALS as error:  # f was recorded there, and something refused
            if path.refused_alike(stop.at, job, error):
                raise path.error(stop.at, job, row, step=stop.step) from None
            if type(error) not in REFUSALS:
                raise
            raise type(error)(f"{error}{within(stop.step, row)}") from error


def looped(path: LoopPath, forms: Any, out: Any, params: Any) -> Recorded:
    """The recorded function that has this path alone."""
    return Recorded(None, forms, out, params, [path], {}, "raise", "raise")
