"""Loops on Values: f step by step, recorded as what it does."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..program.containers import Container
from ..program.form import Form, Nest, Static, objects
from ..program.nest import form_of
from .layout import count, split, spread


def part_of(x: Nest, form: Form, step: int) -> Nest:
    """What there is in xs for a step; form: of x, as far as it has leaves of steps."""
    if isinstance(form, Static):
        return form.value
    if isinstance(form, Container) and form.takes(x):
        parts = [part_of(y, part, step) for part, y in zip(form.parts, form.open(x, "xs"))]
        return form.closing(x)(parts)
    return x[step]


def together(ys: Sequence[Nest], form: Form) -> Nest:
    """What steps gave, each of this form, with the steps at each leaf."""
    n = len(ys)
    over = spread(form, n, True, form.has_array)
    elements: list[Any] = [None] * (form.size * n)
    for step, y in enumerate(ys):
        for x, at, by in zip(form.elements(y), over.at, over.by):
            elements[at + step * by] = x
    return over.form.build(iter(elements), objects)


def unrolled(
    f: Callable[..., Nest], state: Nest, xs: Nest, params: Sequence[Nest], length: int | None,
    until: Callable[[Nest], Any] | None = None,
) -> tuple[Nest, Nest, int]:  # fmt: skip
    """The last state, the ys, None where there are none, and how many steps there were."""
    form = Static(xs) if xs is None else form_of(xs, "xs")
    n = count(xs, form, "xs")
    if n is None and length is None:
        raise ValueError("a loop without xs takes a length")
    if n is not None and length is not None and n != length:
        raise ValueError(f"xs has {n} steps, length is {length}")
    ys: list[Nest] = []
    y_form, steps = None, 0
    for step in range(length if n is None else n):  # type: ignore[arg-type]
        if until is not None and until(state):
            break
        out = f(state, xs if n is None else part_of(xs, form, step), *params)
        found = form_of(out, f"what f gives in step {step}")
        y_form = split(form_of(state, "the state"), found, "f")
        if y_form is None:
            state = out
        else:
            state, y = out
            ys.append(y)
        steps += 1
    y_form = form_of(ys[0], "y") if ys else None
    return state, together(ys, y_form) if y_form is not None and y_form.size else None, steps


def scan(
    f: Callable[..., Nest], state: Nest, xs: Nest = None, /, *params: Nest, length: int | None = None
) -> tuple[Nest, Nest]:
    """Carry out f(state, x, *params) step by step, as JAX's `lax.scan` does, on numbers or on Values.

    What f does with Values is recorded, step after step: on the tape, within `record`, where f may branch as
    everywhere, and within `grad` and its kin. So a loop of n steps takes the room of n steps written out, in a program,
    too. A step that is recorded once, `record(f, ..).scan()`, takes the room of one.

    Args:
        f: gives the next state, made up as the state is, or (state, y).
        state: the first.
        xs: what there is for each step: a list or an array of them, or a dict, named tuple or dataclass with the steps
            at each leaf; None with a length.
        params: what is the same in all steps.
        length: how many steps, where xs does not say.

    Returns:
        The last state, and the ys, with the steps at each leaf: lists, where y has arrays arrays; None without.

    Raises:
        TypeError, ValueError: f gives another state, or xs has no steps.
    """
    state, ys, _ = unrolled(f, state, xs, params, length)
    return state, ys
