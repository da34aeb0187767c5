"""The face of a loop for one sequence: what users call."""
from __future__ import annotations

import collections
import copy
import functools
import itertools
import math
import operator
import os
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from .._integer import as_integer
from ..program import file as program_file
from ..program import layout as on_tape
from ..program import point
from ..program.form import NUMBER, Form, Nest, Shaped, Static, is_array, objects
from ..program.form import numbers as stacked
from ..program.nest import form_of
from ..program.program import Program
from ..program.recorded import Argnums, Place, Recorded, decoded, gathered
from ..program.replay import ONE, REFUSALS, Feed, Job, zeros
from ..program.rows import Axes
from ..value import Value, handle
from . import file
from .batch import LoopBatch
from .called import called
from .cell import Cell
from .layout import NOTHING, Step, count, spread
from .path import MOST_STEPS, LoopPath, looped
from .values import together, unrolled

if TYPE_CHECKING:
    from ..look.diagnosis import Diagnosis
    from ..look.heat import Heat

Until = Callable[..., Any]

MOST_LENGTHS = 16  # for which it is kept what C is told


class Loop:
    """A recorded step carried out over and over; see `Program.scan`.

    It may be called from any number of threads at once, and saved, pickled and copied as programs are.

    Args:
        step, length, final, checkpoints, until: as `Program.scan` has them.
        owned: of a copy, which of the step's params those of final and of until are.

    Attributes:
        step, final, until: programs, the last two or None.
        length, checkpoints: as they were given.

    >>> record(lambda state, x: (state + x, state), 0.0, 0.0).scan()(0.0, [1.0, 2.0, 3.0])
    (6.0, [0.0, 1.0, 3.0])
    """

    def __init__(
        self, step: Program, length: int | None = None, final: Program | None = None, checkpoints: int | None = None,
        until: Program | Until | None = None, owned: Sequence[Sequence[int]] | None = None,
    ) -> None:  # fmt: skip
        length, checkpoints = _count("length", length, 0, MOST_STEPS), _count("checkpoints", checkpoints, 1, None)
        if final is not None and not isinstance(final, Program):
            raise TypeError(f"final must be a program, not {type(final).__name__!r}: record(final, state, *params)")
        if until is not None and length is None:
            raise ValueError("until takes a length, which is the most steps that there may be")
        self.step, self.length, self.checkpoints = step, length, checkpoints
        self._step = Step(step._recorded)
        self.final = final
        self.until = until if until is None or isinstance(until, Program) else _asked(until, self._step.state)
        self._owned: list[Sequence[int]] = []  # which of the step's params those of final and until are
        self._cells: list[Cell | None] = [self._cell(step, "the step", range(len(step.params)))]
        for k, (program, what) in enumerate(((self.final, "final"), (self.until, "until"))):
            own: Sequence[int] = ()
            if program is not None:
                self._step.check(program._recorded, what)
                own = owned[k] if owned else self._step.own_params(program._recorded, what)
            self._owned.append(own)
            self._cells.append(None if program is None else self._cell(program, what, own))
        self._known: collections.OrderedDict[tuple[Any, ...], Recorded] = collections.OrderedDict()

    def _cell(self, program: Program, what: str, own: Sequence[int]) -> Cell:
        recorded = program._recorded
        first = sum(form.size for form in self._step.params)
        taken = recorded.forms[2 if recorded is self._step.recorded else 1 :]
        shared = [*range(sum(form.size for form in taken)), *(first + k for k in own)]
        n_x = self._step.x.size if program is self.step else None
        return Cell(recorded, shared, what, program is not self.final, n_x)

    # ---- what it is ----

    @property
    def params(self) -> list[Value] | list[float]:
        """Those of the step: Values that are inputs besides the arguments; numbers after loading.

        >>> w = Value(2.0)
        >>> record(lambda state, x: w * state + x, 0.0, 0.0, params=[w]).scan().params
        [Value(data=2.0, grad=0.0)]
        """
        return self.step.params

    @property
    def stats(self) -> dict[str, Any]:
        """Those of the step's program; and how many numbers are in the `state`, in `x` and in `y`, the `length`, if it
        is known, and how many states are kept, `checkpoints`, if that was said.

        >>> record(lambda state, x: state + x, 0.0, 0.0).scan().stats["state"]
        1
        """
        s = self._step
        return {
            **self.step.stats, "state": s.state.size, "x": s.x.size, "y": s.y.size if s.y is not None else 0,
            "length": self.length, "checkpoints": self.checkpoints,
        }  # fmt: skip

    def __repr__(self) -> str:
        length = "" if self.length is None else f" {'at most ' if self.until else ''}{self.length} times"
        return f"<loop{length} over {self.step!r}>"

    def __str__(self) -> str:
        return self._listing(str)

    def listing(self) -> str:
        """All instructions of all its programs as text; `print` shows the first and the last 30 of a long path.

        >>> print(record(lambda state, x: state + x, 0.0, 0.0).scan().listing())
        for each step:
        2 inputs (state in0, x in1), 0 constants, 1 instructions
          %0 = in0 + in1                            <stdin>:1
          return %0
        """
        return self._listing(Program.listing)

    def _listing(self, of: Callable[[Program], str]) -> str:
        length = "" if self.length is None else f" {self.length} times" + (" at most" if self.until else "")
        found = [f"for each step{length}:", of(self.step)]
        for program, what in ((self.until, "until, before each step:"), (self.final, "at the end:")):
            found += [what, of(program)] if program else []
        return "\n".join(found)

    # ---- saved and copied ----

    def save(self, path: str | bytes | os.PathLike[Any]) -> None:
        """Write the loop to a file, which `tapegrad.load` reads; see `Program.save`.

        >>> record(lambda state, x: state + x, 0.0, 0.0).scan().save("sum.loop")
        """
        program_file.replace(path, self._encoded())

    def _n_paths(self) -> int:
        """How many paths are known of all its programs."""
        return sum(len(cell.recorded.paths) for cell in self._cells if cell)

    def _encoded(self, blank: bool = False) -> bytes:
        """A file of it; blank: without the numbers of its params, which are 0 in there."""
        programs = [b"" if p is None else p._recorded.encoded(blank) for p in (self.step, self.final, self.until)]
        return file.encode(file.Contents(programs, self._owned, self.length, self.checkpoints))

    def __reduce__(self) -> tuple[Any, ...]:
        return Loop, (self.step, self.length, self.final, self.checkpoints, self.until, tuple(self._owned))

    def __copy__(self) -> Loop:
        return Loop(self.step, self.length, self.final, self.checkpoints, self.until, tuple(self._owned))

    def __deepcopy__(self, memo: dict[int, Any]) -> Loop:
        step, rest = copy.deepcopy(self.step, memo), copy.deepcopy((self.final, self.until), memo)
        return Loop(step, self.length, rest[0], self.checkpoints, rest[1], tuple(self._owned))

    def native(self) -> Loop:
        """Compile its programs, each once, as `Program.native` does: a step is machine code from here on.

        Returns:
            The loop itself.

        Raises:
            RuntimeError: as of `Program.native`.

        >>> record(lambda state, x: state + x, 0.0, 0.0).scan().native()(0.0, [1.0, 2.0])
        (3.0, None)
        """
        for program in (self.step, self.final, self.until):
            if program is not None:
                program.native()
        for cell in self._cells:
            if cell is not None:
                cell.native()
        return self

    # ---- as a function of so many steps ----

    def _bound(self, args: Sequence[Nest], named: Mapping[str, Nest]) -> tuple[Nest, ...]:
        """All arguments, in order."""
        forms = self._step.arguments(Static(None))
        found = forms.bound(args, named) if named else tuple(args)
        if len(found) == 1 and type(self._step.x) is Static and not self._step.params:
            found = (*found, None)
        forms.check_count(len(found))
        return found

    def _length_of(self, n: int | None) -> int:
        """How many steps there are where xs has n."""
        if n is None and self.length is None:
            raise ValueError("the loop has no xs: step.scan(length=..) says how many steps there are")
        if n is not None and self.length is not None and n != self.length:
            raise ValueError(f"xs has {n} steps, the loop was made for {self.length}")
        return self.length if n is None else n  # type: ignore[return-value]

    def _of_length(self, n: int, args: Sequence[Nest], total: bool) -> Recorded:
        """The loop of n steps as a recorded function: of one number, or of what a call gives."""
        step = self._step
        if total and not self._has_loss:
            missing = "y is not one number" if step.y is not None else "there is neither, and the state has several"
            raise TypeError(f"a loss is the sum of ys and of what final gives, or a state of one number: {missing}")
        arrays = any(map(is_array, args)) or step.state.has_array or step.x.has_array
        by_leaf = not isinstance(args[1], (list, tuple)) or hasattr(args[1], "_fields")
        key = n, total, arrays, by_leaf
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._made(n, total, arrays, by_leaf)
            if len(self._known) > MOST_LENGTHS:
                self._known.popitem(last=False)
        return found

    def _made(self, n: int, total: bool, arrays: bool, by_leaf: bool) -> Recorded:
        step = self._step
        xs = spread(step.x, n, by_leaf, arrays)
        xs = xs._replace(at=array("I", (step.state.size + k for k in xs.at)))
        forms = step.arguments(xs.form)
        out, ys = (NUMBER, NOTHING) if total else step.result(n, self.until is not None, arrays)
        n_in = sum(form.size for form in forms) + len(step.recorded.params)
        if max(n_in, out.size) >> 32:
            raise ValueError(f"a loop has less than 2^32 inputs and outputs: these are {n_in} and {out.size}")
        sizes = step.state.size, step.x.size, step.y.size if step.y is not None else 0
        path = LoopPath(self._cells, sizes, n_in, out.size, xs, ys, n, self.checkpoints, total)
        return looped(path, forms, out, step.recorded.params)

    @property
    def _has_loss(self) -> bool:
        """Whether there is one number to differentiate."""
        step = self._step
        return step.y is NUMBER or (step.y is None and (self.final is not None or step.state is NUMBER))

    def _for(self, args: Sequence[Nest], total: bool) -> Recorded:
        """The loop that is as long as the xs among these arguments say."""
        return self._of_length(self._length_of(count(args[1], self._step.x, "xs")), args, total)

    def _at(self, args: Sequence[Nest], total: bool) -> tuple[Recorded, array[float] | None]:
        """The loop for these arguments, and all inputs, or None where there are Values among them."""
        recorded = self._for(args, total)
        try:
            return recorded, recorded.flat(args)
        except TypeError:
            if on_tape.has_values(args):
                return recorded, None
            raise

    # ---- carried out ----

    def __call__(self, /, *args: Nest, **named: Nest) -> Shaped:
        """All steps.

        Args:
            args, named: the state, the xs and the params. xs has what the step takes as x for each step: a list or an
                array of them, or a container made up like x with the steps at each leaf; None where x was None.

        Returns:
            The last state and the ys, with the steps at each leaf: arrays where an argument came as one, else lists;
            None where the step gives no y. With `until` also how many steps there were; ys after that are nan. Where
            an argument holds Values, these are Values, and every step is recorded on the tape.

        Raises:
            TypeError, ValueError: an argument is not as it was recorded.
            BranchChanged, ValueError, ZeroDivisionError, OverflowError: as of a program, naming the step.

        >>> double = record(lambda state, x: (2 * state, state), 1.0, None)
        >>> double.scan(length=4)(1.0)
        (16.0, [1.0, 2.0, 4.0, 8.0])
        """
        args = self._bound(args, named)
        recorded, flat = self._at(args, False)
        if flat is None:
            state, ys, n, steps = self._called(args)
            if y := self._step.y:
                ys += [y.build(itertools.repeat(math.nan), objects)] * (n - steps)
            given = state, together(ys, y) if y else None
            return (*given, float(steps)) if self.until else given
        return recorded.out.shaped(point.value(recorded, flat))

    def _called(self, args: Sequence[Nest]) -> tuple[Nest, list[Nest], int, int]:
        """As `_unrolled`, as one instruction where a program is being recorded."""
        form = form_of(args[1], "xs")
        n = self._length_of(count(args[1], form, "xs"))
        found = None if self.until else called(self.step, args[0], args[1], form, args[2:], n, True)
        return self._unrolled(args) if found is None else (found[0], found[1], n, n)

    def _unrolled(
        self, args: Sequence[Nest], params: Sequence[Value] | None = None
    ) -> tuple[Nest, list[Nest], int, int]:
        """The last state, the ys of steps, how many there may be and how many there were; params: of the step, where
        it is done with Values for a sweep that is recorded."""
        form = form_of(args[1], "xs")
        n = self._length_of(count(args[1], form, "xs"))
        step = self.step._recorded
        f = self.step if params is None else lambda *args: on_tape.value(step, args, True, params)
        state, ys, _, steps = unrolled(f, args[0], args[1], form, args[2:], n, self._until_at(args[2:]))
        return state, ys, n, steps

    def _until_at(self, params: Sequence[Nest]) -> Until | None:
        """What is asked of a state, at these params."""
        until = self.until
        return None if until is None else lambda state: until(state, *params[: len(until._recorded.forms) - 1])

    def value_and_grad(self, /, *args: Nest, argnums: Argnums = 0, **named: Nest) -> tuple[Any, Any]:
        """The loss, and its gradient: the sum of the ys and of what `final` gives for the last state; without both,
        the state, which is one number then.

        Args:
            args, named: as in a call.
            argnums: 0 the state, 1 the xs, from 2 on the params, "params"; or a tuple of these.

        Returns:
            A float, and a gradient that is made up as the argument came, or a tuple of those.

        Raises:
            TypeError: there is no loss.

        >>> loop = record(lambda state, x: state * x, 1.0, 1.0).scan()
        >>> loop.value_and_grad(1.0, [2.0, 3.0], argnums=1)
        (6.0, [3.0, 2.0])
        """
        args = self._bound(args, named)
        recorded, flat = self._at(args, True)
        places = recorded.chosen(argnums)
        if flat is None:
            return self._value_and_grad_of_values(recorded, args, places, argnums)
        out, grads = _swept(recorded, flat, places, ONE)
        return out[0], gathered(argnums, [p.like(args).shaped(g) for p, g in zip(places, grads)])

    def _value_and_grad_of_values(
        self, recorded: Recorded, args: Sequence[Nest], places: list[Place], argnums: Argnums
    ) -> tuple[Value, Any]:
        at = on_tape.inputs(recorded, args, apart=True)
        if handle.no_grad_by(0):
            out, grads = _swept(recorded, array("d", handle.primals(at)), places, ONE)
            value, *slopes = handle.leaves([out[0], *itertools.chain(*grads)])
            each = iter(slopes)
            return value, gathered(argnums, [p.like(args).build(each, objects) for p in places])
        elements = iter(at)
        given = [form.like(x).build(elements, objects) for form, x in zip(recorded.forms, args)]
        params = list(elements)
        state, ys, _, _ = self._unrolled(given, params)
        ended = None
        if self.final is not None:
            final, own = self.final._recorded, [params[k] for k in self._owned[0]]
            ended = on_tape.value(final, (state, *given[2 : len(final.forms) + 1]), True, own)
        loss: Any = state if ended is None else ended
        if self._step.y is not None:
            loss = functools.reduce(operator.add, ys, 0.0)  # sum() of floats compensates from CPython 3.12 on
            loss = loss if ended is None else loss + ended
        loss = loss if isinstance(loss, Value) else Value(loss)
        gradient = handle.record_sweep((loss,), None, at)
        parts = [p.like(args).build(iter(gradient[p.first : p.first + p.form.size]), objects) for p in places]
        return loss, gathered(argnums, parts)

    def grad(self, /, *args: Nest, argnums: Argnums = 0, **named: Nest) -> Shaped:
        """The gradient; see `value_and_grad`.

        >>> record(lambda state, x: state * x, 1.0, 1.0).scan().grad(1.0, [2.0, 3.0])
        6.0
        """
        return self.value_and_grad(*args, argnums=argnums, **named)[1]

    def vjp(self, /, *primals: Nest, **named: Nest) -> tuple[Shaped, Callable[..., Any]]:
        """What a call gives, and a function from a cotangent, shaped like it, to the tuple of v^T J for each argument.

        Its argument `argnums` says by what, as that of `grad` does. Each call of it carries the steps out again.

        >>> value, pull = record(lambda state, x: state * x, 1.0, 1.0).scan().vjp(1.0, [2.0, 3.0])
        >>> value, pull((1.0, None))
        ((6.0, None), (6.0, [3.0, 2.0]))
        """
        args = self._bound(primals, named)
        recorded, flat = self._at(args, False)
        if flat is None:
            raise TypeError("vjp takes numbers, not Values: tapegrad.vjp is for these")
        inputs = flat

        def pull(cotangent: Nest, argnums: Argnums | None = None) -> Shaped:
            places, seed = recorded.places if argnums is None else recorded.chosen(argnums), array("d")
            recorded.out.read(cotangent, "the cotangent", seed)
            grads = _swept(recorded, inputs, places, seed)[1]
            parts = [p.like(args).shaped(g) for p, g in zip(places, grads)]
            return tuple(parts) if argnums is None else gathered(argnums, parts)

        return recorded.out.shaped(point.value(recorded, flat)), pull

    def jvp(self, primals: Sequence[Nest], tangents: Sequence[Nest]) -> tuple[Shaped, Shaped]:
        """What a call gives, and its derivative along tangents, which are shaped like the arguments.

        >>> record(lambda state, x: state * x, 1.0, 1.0).scan().jvp((1.0, [2.0, 3.0]), (1.0, [0.0, 0.0]))
        ((6.0, None), (6.0, None))
        """
        self._step.recorded.check_pair(primals, tangents)
        args = self._bound(primals, {})
        recorded, flat = self._at(args, False)
        if flat is None:
            raise TypeError("jvp takes numbers, not Values: tapegrad.jvp is for these")
        out, tangent = point.forward(recorded, flat, recorded.flat_tangent(self._bound(tangents, {})))
        return recorded.out.shaped(out), recorded.out.shaped(tangent)

    def hvp(
        self, x: Nest, v: Nest, /, *rest: Nest, argnums: int | Literal["params"] = 0, **named: Nest
    ) -> Shaped:
        """The Hessian of the loss by argument argnums times v, exactly.

        Args:
            x, rest, named: the arguments; v comes second.
            v: made up as argument argnums is.

        >>> record(lambda state, x: state * state * x, 1.0, 1.0).scan().hvp(2.0, 1.0, [3.0])
        6.0
        """
        args = self._bound((x, *rest), named)
        recorded, flat = self._at(args, True)
        if flat is None:
            raise TypeError("hvp takes numbers, not Values: tapegrad.hvp is for these")
        place = recorded.chosen_one(argnums)
        direction, tangent = array("d"), zeros(recorded.n_in)
        place.form.read(v, "v", direction)
        tangent[place.first : place.first + len(direction)] = direction
        return place.like(args).shaped(point.tangent_over_reverse(recorded, flat, tangent, ONE), place.first)

    def map(
        self, in_axes: Axes = 0, reduce: Literal["mean", "sum"] | None = None, threads: int = 1
    ) -> LoopBatch:
        """The loop over the rows of a batch, in lanes: see `Program.map`.

        Args:
            in_axes: for the state, the xs and each of the params the axis of the rows, or None for what all rows share;
                one for all. Rows of xs are sequences, as long as one another; with `until` each row ends by itself.
            reduce: "mean" or "sum" over the rows, or None for one result a row.
            threads: how many threads share the rows; the bits of the result do not depend on it.

        >>> loop = record(lambda state, x: state * x, 1.0, 1.0).scan()
        >>> loop.map((None, 0), reduce="sum").grad(1.0, [[2.0, 3.0], [4.0, 5.0]])
        26.0
        """
        return LoopBatch(self, in_axes, reduce, threads)

    # ---- looked at ----

    def diagnose(self, *args: Nest, inf: bool = True) -> Diagnosis | None:
        """Which operation makes the loss or its gradient there infinite or nan, and in which step; None where all is
        finite. Of a loop without a loss: the last state or a y, or a derivative of their sum.

        Args:
            args: as in a call.
            inf: whether infinities count; nan always does.

        >>> record(lambda state, x: state.sqrt() * x, 1.0, 1.0).scan().diagnose(0.0, [2.0, 3.0]).step
        1
        """
        from ..look.which_step import of_loop

        return of_loop(self, args, inf)

    def heat(self, *args: Nest, by: Literal["nodes", "time", "adjoint", "rounding"] = "nodes") -> Heat:
        """What each source line costs there in all steps together, and how much of the gradient goes through it: see
        `Program.heat`. What runs in each of n steps counts n times; its bytes are there once.

        Args:
            args: as in a call.
            by: what its bars show.

        >>> [row.nodes for row in record(lambda state, x: state * x, 1.0, 1.0).scan().heat(1.0, [2.0, 3.0]).rows]
        [2]
        """
        from ..look.heat import of_loop

        return of_loop(self, args, by)


def _count(what: str, x: Any, least: int, most: int | None) -> int | None:
    if x is None:
        return None
    n = as_integer(x)
    if n is None or n < least:
        raise ValueError(f"{what} must be an integer of {least} or more, or None, not {x!r}")
    if most is not None and n > most:
        raise ValueError(f"{what} is {n}: a loop has at most {most} steps")
    return n


def loaded(data: bytes) -> Loop:
    """The loop that these bytes hold; nothing in them is trusted.

    Raises:
        ValueError: they are not a loop, or not of this version, or damaged.
    """
    contents = file.decode(data)
    step: Program = Program(decoded(contents.programs[0]))
    final, until = (Program(decoded(part)) if part else None for part in contents.programs[1:])
    for own, program in zip(contents.owned, (final, until)):
        if len(own) != (len(program.params) if program else 0) or any(k >= len(step.params) for k in own):
            raise ValueError("a damaged tapegrad loop: params are not those of the step")
    try:
        return Loop(step, contents.length, final, contents.checkpoints, until, contents.owned)
    except TypeError as error:
        raise ValueError(f"a damaged tapegrad loop: {error}") from None


def _asked(until: Until, state: Form) -> Program:
    """What a comparison of the state says, as a program, whose paths are recorded as they come."""
    if not callable(until):
        raise TypeError(f"until must be a program or a function of the state, not {type(until).__name__!r}")
    for number in (0.0, 1.0):
        try:
            example = state.build(itertools.repeat(number), stacked)
            return Program(Recorded.of(until, (example,), on_branch="record"))
        except REFUSALS as error:
            refused = error
    raise ValueError(f"until cannot be recorded at a state of zeros or ones: {refused}; record it at another")


def _swept(
    recorded: Recorded, flat: array[float], places: Sequence[Place], seed: array[float]
) -> tuple[array[float], list[array[float]]]:
    """The outputs, and the gradients of their sum weighed by seed, by each of the places."""
    out, grads, feeds = zeros(recorded.n_out), {}, []
    wanted = {place.number for place in places}
    for place in (*recorded.places, recorded.param_place):
        size = place.form.size
        feed = Feed(place.first, size, flat[place.first : place.first + size])
        if place.number in wanted:
            feed.grad = grads[place.number] = zeros(size)
            feed.grad_stride = size
        if size:
            feeds.append(feed)
    job = Job(feeds, 0, 1)
    job.out(out, recorded.n_out)
    job.seed(seed)
    recorded.paths[0].run(job)
    return out, [grads[place.number] for place in places]


