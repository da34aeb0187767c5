"""Functions of functions, with JAX's names: each records f on first use and keeps a program per shape of arguments."""
from __future__ import annotations

import functools
import sys
import threading
import warnings
import weakref
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from .program import Program, point, record
from .program.nest import NUMBER, Form, form_of, objects
from .value import Value

MOST_PROGRAMS = 256  # of one function: the one that was made first goes


class _Recorded:
    """The programs of one function, by the forms of its arguments."""

    def __init__(self, f: Callable[..., Any]) -> None:
        self._f = f
        self._programs: dict[tuple[Form, ...], Program] = {}
        self._lock = threading.Lock()

    def program(self, args: Sequence[Any]) -> Program:
        forms = tuple(form_of(x, f"argument {k}") for k, x in enumerate(args))
        program = self._programs.get(forms)
        if program is None:
            program = record(self._f, *args, on_branch="record")
            with self._lock:
                if len(self._programs) >= MOST_PROGRAMS:
                    del self._programs[next(iter(self._programs))]
                self._programs[forms] = program
        return program


_known: weakref.WeakKeyDictionary[Any, _Recorded] = weakref.WeakKeyDictionary()


def _recorded(f: Callable[..., Any]) -> _Recorded:
    """The programs of f, kept as long as f is; a program refers to f, so what is kept is held by f's own copy."""
    try:
        found = _known.get(f)
        if found is None:
            reference = weakref.ref(f)
            found = _known[f] = _Recorded(lambda *args: reference()(*args))  # type: ignore[misc]
    except TypeError:  # neither hashed nor referred to weakly
        found = _Recorded(f)
    return found


def _transformed(f: Callable[..., Any], method: str, argnums: Any) -> Callable[..., Any]:
    programs = _Recorded(f)

    def transformed(*args: Any) -> Any:
        return getattr(programs.program(args), method)(*args, argnums=argnums)

    functools.update_wrapper(transformed, f, assigned=("__module__", "__name__", "__qualname__"), updated=())
    transformed.__doc__ = f"{method} of {getattr(f, '__name__', repr(f))} by argument {argnums}."
    return transformed


def grad(fun: Callable[..., Any], argnums: Any = 0) -> Callable[..., Any]:
    """The function that gives the gradient of fun.

    Args:
        fun: a function of Values that returns one Value; what it closes over is constant.
        argnums: which argument to differentiate by, or a tuple of them.

    Returns:
        A function of numbers, lists and arrays; a gradient is shaped like its argument.
    """
    return _transformed(fun, "grad", argnums)


def value_and_grad(fun: Callable[..., Any], argnums: Any = 0) -> Callable[..., Any]:
    """The function that gives the pair of fun's value and gradient; see `grad`."""
    return _transformed(fun, "value_and_grad", argnums)


def jacobian(fun: Callable[..., Any], argnums: Any = 0) -> Callable[..., Any]:
    """The function that gives the Jacobian of fun, shaped as `Program.jacobian` says."""
    return _transformed(fun, "jacobian", argnums)


def hessian(fun: Callable[..., Any], argnums: int = 0) -> Callable[..., Any]:
    """The function that gives the Hessian of fun, which returns one Value."""
    return _transformed(fun, "hessian", argnums)


def jvp(fun: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """The value of fun at primals, and its Jacobian times tangents.

    Args:
        primals, tangents: as many as fun has arguments, tangents shaped like them.
    """
    return _recorded(fun).program(primals).jvp(primals, tangents)


def vjp(fun: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """The value of fun at primals, and a function from a cotangent to the tuple of gradients, one an argument."""
    return _recorded(fun).program(primals).vjp(*primals)


def hvp(fun: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    """The derivative of fun's gradient by its first argument, along tangents: its Hessian times a vector.

    Args:
        primals, tangents: as many as fun has arguments, tangents shaped like them.

    Returns:
        Shaped like the first argument.
    """
    recorded = _recorded(fun).program(primals)._recorded
    recorded.check_scalar("a Hessian")
    flat, tangent = recorded.flat(primals), recorded.flat_tangent(tangents)
    by = recorded.chosen_one(0)
    return by.form.shaped(point.tangent_over_reverse(recorded, flat, tangent, array("d", (1.0,))), by.first)


# ---- a check ----

_STEP = sys.float_info.epsilon ** (1 / 3)  # balances truncation, h^2, against rounding, epsilon / h


def _swept(f: Callable[..., Any], forms: Sequence[Form], flat: array[float]) -> list[tuple[float, array[float]]]:
    """Value and gradient of every output, recorded and swept on the tape."""
    leaves = [Value(x) for x in flat]
    elements = iter(leaves)
    result = f(*(form.build(elements, objects) for form in forms))
    found = []
    for y in form_of(result, "what f returned").elements(result):
        for v in leaves:
            v.grad = 0.0
        y.backward()
        found.append((y.data, array("d", (v.grad for v in leaves))))
    return found


def _names(forms: Sequence[Form]) -> list[str]:
    names = []
    for k, form in enumerate(forms):
        names += [f"argument {k}"] if form is NUMBER else [f"argument {k}, element {i}" for i in range(form.size)]
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
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, not {order!r}")
    with warnings.catch_warnings(record=True) as escapes:
        warnings.simplefilter("always")
        recorded = record(f, *args, on_branch="record")._recorded
    flat, names = recorded.flat(args), _names(recorded.forms)
    swept = _swept(f, recorded.forms, flat)
    n_out = len(swept)

    def moved(i: int, by: float) -> array[float]:
        there = flat[:]
        there[i] += by
        return there

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
            raise AssertionError(f"{worst[1]}: off by {worst[0]:.3g}")

    def data(there: array[float]) -> list[float]:
        return [y for y, _ in _swept(f, recorded.forms, there)]

    compare("the sweep's derivative of output", lambda i: [grad[i] for _, grad in swept], data)
    if escapes:
        return
    rows = [point.reverse(recorded, flat, array("d", (float(i == k) for i in range(n_out))))[1] for k in range(n_out)]
    compare("the program's derivative of output", lambda i: [row[i] for row in rows], data)
    if order == 2:
        for k in range(n_out):
            seed = array("d", (float(i == k) for i in range(n_out)))

            def second(i: int, seed: array[float] = seed) -> list[float]:
                unit = array("d", bytes(8 * len(flat)))
                unit[i] = 1.0
                return list(point.tangent_over_reverse(recorded, flat, unit, seed))

            def first(there: array[float], seed: array[float] = seed) -> Sequence[float]:
                return point.reverse(recorded, there, seed)[1]

            compare(f"output {k}, the derivative of its gradient's element", second, first)
