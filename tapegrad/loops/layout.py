"""What a step takes and gives, and how that is made up over all steps: xs, ys, and where their numbers are."""
from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

from .._integer import as_integer
from ..program.arguments import Arguments
from ..program.containers import Container
from ..program.form import NUMBER, Array, Form, Nest, Series, Static, is_array, series
from ..program.recorded import Recorded


class Spread(NamedTuple):
    """What is there once for each step, over all of them: its form; of each of its numbers, the index at the first step
    and how far it is to the next."""

    form: Form
    at: array[int]
    by: array[int]


NOTHING = Spread(Static(None), array("I"), array("I"))


def alike(a: Form, b: Form) -> bool:
    """Whether the same numbers are in both, in places that may stand for each other."""
    if a.shape is not None or b.shape is not None:
        return a.shape == b.shape
    if isinstance(a, Series) and isinstance(b, Series):
        return len(a.parts) == len(b.parts) and all(map(alike, a.parts, b.parts))
    if isinstance(a, Container) and isinstance(b, Container):
        return type(a) is type(b) and a.labels() == b.labels() and all(map(alike, a.parts, b.parts))
    return a == b


def split(state: Form, out: Form, what: str) -> Form | None:
    """The form of y where a step gives (state, y); None: it gives the state alone.

    Raises:
        ValueError: it gives something else.
    """
    if alike(out, state):
        return None
    if isinstance(out, Series) and len(out.parts) == 2 and alike(out.parts[0], state):
        return out.parts[1]
    given = str(out) if str(out) != str(state) else f"{out}, in which {_difference(state, out, '')}"
    raise ValueError(f"{what} must give the next state, which is {state}, or (state, y); it gives {given}")


def _difference(a: Form, b: Form, place: str) -> str:
    """The first of two trees that are not alike."""
    if isinstance(a, (Series, Container)) and isinstance(b, (Series, Container)) and len(a.parts) == len(b.parts):
        labels = a.labels() if isinstance(a, Container) else [f"[{k}]" for k in range(len(a.parts))]
        for x, y, label in zip(a.parts, b.parts, labels):
            if not alike(x, y):
                return _difference(x, y, place + label)
    return f"{place} is {b}, not {a}"


def spread(form: Form, n: int, by_leaf: bool, arrays: bool) -> Spread:
    """What has this form at each of n steps.

    Args:
        by_leaf: the steps are at each leaf of a container, else at the outside.
        arrays: what an array can stand for is one.
    """
    at, by = array("I"), array("I")

    def over(part: Form, first: int) -> Form:
        if isinstance(part, Static):
            return part
        if by_leaf and isinstance(part, Container):
            inner = []
            for one in part.parts:
                inner.append(over(one, first))
                first += one.size * n
            return part.with_parts(tuple(inner), part.close(part.parts))
        at.extend(range(first, first + part.size))
        by.extend([part.size] * part.size)
        if arrays and part.shape is not None:
            return Array((n, *part.shape))
        return series(list, n) if part is NUMBER else Series(list, (part,) * n)

    return Spread(over(form, 0), at, by)


def count(x: Nest, form: Form, what: str) -> int | None:
    """For how many steps there is something in x, whose form at one step is known; None: it does not say."""
    if isinstance(form, Static):
        return None
    if is_array(x) or (isinstance(x, (list, tuple)) and not (isinstance(form, Container) and form.takes(x))):
        return len(x)
    if isinstance(form, Container) and form.takes(x):
        found = [count(y, part, what) for part, y in zip(form.parts, form.open(x, what))]
        counts = {n for n in found if n is not None}
        if len(counts) > 1:
            raise ValueError(f"{what} has {' and '.join(map(str, sorted(counts)))} steps in one container")
        return next(iter(counts), None)
    raise no_steps(x, what)


def no_steps(x: object, what: str) -> TypeError:
    """What is raised where x has no steps."""
    kind = type(x).__name__
    return TypeError(f"{what} must be a list or an array of steps, or have them at each leaf, not {kind!r}")


def count_mapped(x: Nest, axes: Any, form: Form, what: str) -> int | None:
    """As `count`, where x has rows along axes, as those of a batch."""
    if axes is None or isinstance(form, Static):
        return count(x, form, what)
    if isinstance(form, Container) and form.takes(x):
        inner = form.open(axes, what) if form.takes(axes) else [axes] * len(form.parts)
        counts = (count_mapped(y, a, part, what) for part, y, a in zip(form.parts, form.open(x, what), inner))
        return next((n for n in counts if n is not None), None)
    axis = as_integer(axes)
    if is_array(x) and axis is not None:
        if x.ndim < 2 or not -x.ndim <= axis < x.ndim:
            raise ValueError(f"{what} is an array of shape {tuple(x.shape)}: it has no rows of steps along {axis}")
        return int(x.shape[1 if axis % x.ndim == 0 else 0])
    if not isinstance(x, (list, tuple)) or axis != 0:
        raise TypeError(f"{what} must be an array, or a list of rows of steps, not {type(x).__name__!r}")
    return count(x[0], form, what) if len(x) else 0


class Step:
    """A recorded step, as loops of any length have it.

    Attributes:
        recorded: the step.
        state, x, y: forms of these; y is None where there is none.
        params: forms of the params.
    """

    def __init__(self, recorded: Recorded) -> None:
        forms = recorded.forms
        if len(forms) < 2:
            raise TypeError(f"a step takes a state, x and params; this program takes {len(forms)} arguments")
        self.recorded, self.state, self.x, self.params = recorded, forms[0], forms[1], tuple(forms[2:])
        if not self.state.size:
            raise ValueError("the state of the step has no numbers")
        self.y = split(self.state, recorded.out, "a step")
        if self.y is not None and not self.y.size:
            self.y = None

    def check(self, other: Recorded, what: str) -> None:
        """Raise a TypeError where another program does not take the state and params of the step."""
        taken = (self.state, *self.params)
        if not len(other.forms) <= len(taken) or not all(map(alike, other.forms, taken)) or not other.forms:
            raise TypeError(f"{what} must take the state, and params as the step does")
        if other.out is not NUMBER:
            raise TypeError(f"{what} must give one number, not {other.out}")

    def own_params(self, other: Recorded, what: str) -> list[int]:
        """Which of the step's params the other's are."""
        places = {id(v): k for k, v in enumerate(self.recorded.params)}
        if any(id(v) not in places for v in other.params):
            raise ValueError(f"{what} has params that the step does not have: record the step with them, too")
        return [places[id(v)] for v in other.params]

    def arguments(self, xs: Form) -> Arguments:
        """What a loop takes."""
        names = self.recorded.forms.names
        return Arguments((self.state, xs, *self.params), (names[0], "" if "xs" in names else "xs", *names[2:]))

    def result(self, n: int, until: bool, arrays: bool) -> tuple[Form, Spread]:
        """What a loop gives, and where ys are in it."""
        spread_y = NOTHING if self.y is None else spread(self.y, n, True, arrays or self.y.has_array)
        at = array("I", (self.state.size + k for k in spread_y.at))
        parts: Sequence[Form] = (self.state, spread_y.form, *([NUMBER] if until else []))
        return Series(tuple, tuple(parts)), Spread(spread_y.form, at, spread_y.by)
