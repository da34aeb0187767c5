"""Loops on Values: f step by step, recorded as what it does."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._integer import as_integer
from ..program.containers import Container
from ..program.form import Form, Nest, Static, numbers, objects
from ..program.nest import form_of
from ..value import Value
from .layout import alike, count, no_steps, split, spread


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
    has_values = any(isinstance(x, Value) for x in elements)
    return over.form.build(iter(elements), objects if has_values else numbers)


def unrolled(
    f: Callable[..., Nest], state: Nest, xs: Nest, form: Form, params: Sequence[Nest], length: int,
    until: Callable[[Nest], Any] | None = None,
) -> tuple[Nest, list[Nest], Form | None, int]:  # fmt: skip
    """The last state, the y of each step and their form, None where there is none, and how many steps there were; form:
    of xs."""
    ys: list[Nest] = []
    y_form: Form | None = None
    for step in range(length):
        if until is not None and not 0.0 <= until(state) <= 0.0:  # outside of records any Value is true
            return state, ys, y_form, step
        out = f(state, part_of(xs, form, step), *params)
        given = split(form_of(state, "the state"), form_of(out, f"what f gives in step {step}"), "f")
        state, y = (out, None) if given is None else out
        found = given if given is not None and given.size else None
        if step and (found is None or y_form is None or not alike(found, y_form)) and found is not y_form:
            now, before = (x if x is not None else "none" for x in (found, y_form))
            raise ValueError(f"y is {now} in step {step}, and was {before} before")
        y_form = found
        if found is not None:
            ys.append(y)
    return state, ys, y_form, length


def scan(
    f: Callable[..., Nest], state: Nest, xs: Nest = None, /, *params: Nest, length: int | None = None,
    unroll: bool = False,
) -> tuple[Nest, Nest]:  # fmt: skip
    """Carry out f(state, x, *params) step by step, as JAX's `lax.scan` does, on numbers or on Values.

    What f does with Values is recorded on the tape, step after step, and within `grad` and its kin. Within `record` the
    loop is one instruction that holds the program of a step, so that it takes the room of one, however long it is, and
    f has to be a function of its arguments: numbers that come from elsewhere would be the same in all steps. It may
    branch there as everywhere, use Values around it, and hold loops itself.

    Steps are laid out one by one within `record`, too, where f does what only numbers can, reads `.data`, or raises;
    where there is an integer in the state or in xs; and in functions that are being differentiated within it.

    Args:
        f: gives the next state, made up as the state is, or (state, y).
        state: the first.
        xs: what there is for each step: a list or an array of them, or a dict, named tuple or dataclass with the steps
            at each leaf; None with a length.
        params: what is the same in all steps.
        length: how many steps, where xs does not say.
        unroll: lay out the steps one by one within `record`, too: `tapegrad.gradient` does not see into an
            instruction that is a loop.

    Returns:
        The last state, and the ys, with the steps at each leaf: lists, where y has arrays arrays; None without.

    Raises:
        TypeError, ValueError: f gives another state, or xs has no steps.
        RuntimeError: within `record`, f does something else when it is run again, or puts Values of a step elsewhere.

    >>> scan(lambda state, x: (state + x, state), 0.0, [1.0, 2.0, 3.0])
    (6.0, [0.0, 1.0, 3.0])
    """
    form = form_of(xs, "xs")
    n = count(xs, form, "xs")
    if xs is not None and type(form) is Static:
        raise no_steps(xs, "xs")
    given = as_integer(length)
    if length is not None and (given is None or given < 0):
        raise ValueError(f"length must be an integer of 0 or more, not {length!r}")
    if n is not None and given is not None and n != given:
        raise ValueError(f"xs has {n} steps, length is {length}")
    steps = given if n is None else n
    if steps is None:
        raise ValueError("a loop without xs takes a length")
    if not unroll:
        from .called import called  # stands on this file

        found = called(f, state, xs, form, params, steps)
        if found is not None:
            state, ys, y_form = found
            return state, None if y_form is None else together(ys, y_form)
    state, ys, y_form, _ = unrolled(f, state, xs, form, params, steps)
    return state, None if y_form is None else together(ys, y_form)
