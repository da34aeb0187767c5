"""A public check: derivatives of a function against central differences, so that users test their own."""
from __future__ import annotations

import sys
import warnings
from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from ._integer import as_integer
from .derivatives import Run
from .look.diagnosis import of_program
from .program import point
from .program.arguments import Arguments
from .program.form import NUMBER, Form
from .program.recorded import Recorded
from .program.replay import units
from .value import Value, handle

_STEP = sys.float_info.epsilon ** (1 / 3)  # balances truncation, h^2, against rounding, epsilon / h


def _swept(f: Callable[..., Any], forms: Sequence[Form], flat: array[float]) -> list[tuple[float, array[float]]]:
    """Value and gradient of every output, recorded and swept on the tape."""
    ends = [0, *accumulate(form.size for form in forms)]
    run = Run(f, range(len(forms)), [form.shaped(flat, at) for form, at in zip(forms, ends)], {})
    return [
        (handle.primals((y,))[0] if isinstance(y, Value) else float(y), array("d", run.sweep((y,))))
        for y in run.outputs
    ]


def _names(forms: Arguments) -> list[str]:
    """Of all numbers: those of a list or an array by position, others by the leaves of the tree."""
    names: list[str] = []
    for k, form in enumerate(forms):
        if form is NUMBER:
            names.append(f"argument {k}")
        elif form.shape is not None:
            names += [f"argument {k}, element {i}" for i in range(form.size)]
        else:
            names += form.names(f"argument {forms.label(k)}")
    return names


def check_grads(f: Callable[..., Any], *args: Any, order: int = 2, tolerance: float = 1e-5) -> None:
    """Check f's derivatives against central differences.

    The gradient is taken twice, by a sweep of the tape, which calls f's own `_backward` rules, and by a program; of
    order 2, the program's Hessian is checked against differences of its gradient as well. Of an f that goes past the
    tape, with rules or nodes of its own, the sweep alone is checked: a program does not see that.

    Args:
        f: a function of Values that returns Values.
        args: where to check.
        order: 1 or 2.
        tolerance: the largest |derivative - difference| / max(1, |derivative|, |difference|) that passes.

    Raises:
        AssertionError: names the input that is farthest off, both numbers, and by how much they differ.

    >>> check_grads(lambda x: x[0] * x[1].exp(), [2.0, 0.5])
    """
    if as_integer(order) not in (1, 2):
        raise ValueError(f"order must be 1 or 2, not {order!r}")
    with warnings.catch_warnings(record=True) as escapes:
        warnings.simplefilter("always")
        recorded = Recorded.of(f, args, on_branch="record")
    flat, names = recorded.flat(args), _names(recorded.forms)
    swept = _swept(f, recorded.forms, flat)
    n_out = len(swept)

    def moved(i: int, by: float) -> array[float]:
        there = flat[:]
        there[i] += by
        return there

    def cause() -> str:
        found = of_program(recorded, flat, inf=True)
        return "" if found is None else f"\n{found}"

    def compare(what: str, found: Callable[[int], list[float]], at: Callable[[array[float]], Sequence[float]]) -> None:
        worst = (0.0, "")
        for i, name in enumerate(names):
            h = _STEP * max(1.0, abs(flat[i]))
            up, down = moved(i, h), moved(i, -h)
            quotients = [(a - b) / (up[i] - down[i]) for a, b in zip(at(up), at(down))]
            for k, (derivative, quotient) in enumerate(zip(found(i), quotients)):
                off = abs(derivative - quotient) / max(1.0, abs(derivative), abs(quotient))
                if not off <= worst[0]:
                    worst = (off, f"{what} {k} by {name}: {derivative!r}, central difference {quotient!r}")
        if not worst[0] <= tolerance:
            raise AssertionError(f"{worst[1]}: off by {worst[0]:.3g}{cause()}")

    def data(there: array[float]) -> list[float]:
        return [y for y, _ in _swept(f, recorded.forms, there)]

    compare("the sweep's derivative of output", lambda i: [grad[i] for _, grad in swept], data)
    if escapes:
        return
    seeds = [units(1, n_out, k) for k in range(n_out)]
    rows = [point.reverse(recorded, flat, seed)[1] for seed in seeds]
    compare("the program's derivative of output", lambda i: [row[i] for row in rows], data)
    if order == 2:
        for k, seed in enumerate(seeds):

            def second(i: int, seed: array[float] = seed) -> list[float]:
                return list(point.tangent_over_reverse(recorded, flat, units(1, len(flat), i), seed))

            def first(there: array[float], seed: array[float] = seed) -> Sequence[float]:
                return point.reverse(recorded, there, seed)[1]

            compare(f"output {k}, the derivative of its gradient's element", second, first)
