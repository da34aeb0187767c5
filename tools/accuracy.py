"""Measures every function against mpmath (pip install mpmath), and writes docs/accuracy.md.

    python tools/accuracy.py            measure 2000 points a function and write
    python tools/accuracy.py N          N points, and print
"""
from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mpmath as mp

import tapegrad
from tapegrad import math as tm
from tapegrad import special

Exact = Callable[..., Any]
mp.mp.dps = 50


class Function(NamedTuple):
    """A function, what it is exactly with its two derivatives (mpmath's own where none are said), and where."""

    name: str
    f: Callable[..., Any]
    exact: Exact
    draws: tuple[Callable[[], float], ...]  # one a region
    where: str
    slopes: tuple[Exact, Exact] | None = None


def between(low: float, high: float) -> Callable[[], float]:
    return lambda: random.uniform(low, high)


def scaled(low: float, high: float, sign: float = 1.0) -> Callable[[], float]:
    """Powers of ten from low to high."""
    return lambda: sign * 10.0 ** random.uniform(low, high)


def phi(x: Any) -> Any:
    return mp.erfc(-x / mp.sqrt(2)) / 2


def log_phi(x: Any) -> Any:
    return -x * x / 2 - mp.log(mp.sqrt(2 * mp.pi) * hazard(x)) if x < 0 else mp.log1p(-phi(-x))


def gap(x: Any) -> Any:
    """x + hazard(x), far out by its asymptotic series."""
    if x > -1e4:
        return x + mp.npdf(x) / phi(x)
    return -(1 - 2 / x**2 + 10 / x**4 - 74 / x**6) / x


def hazard(x: Any) -> Any:
    return gap(x) - x


def quantile(p: Any) -> Any:
    y = mp.mpf(special.ndtri(float(p)))
    for _ in range(4):
        y -= (log_phi(y) - mp.log(p)) / hazard(y)
    return y


def bell(c: Any) -> Callable[[Any], Any]:
    return lambda x: c * mp.exp(-x * x)


TWO_SQRTPI = 2 / mp.sqrt(mp.pi)
WIDE, TINY = (scaled(-300, 300), scaled(-300, 300, -1.0)), (scaled(-300, -1), scaled(-300, -1, -1.0))
UNIT = (between(-1, 1), *TINY)

FUNCTIONS = [
    Function("exp", tm.exp, mp.exp, (between(-700, 700), *TINY), "-700 .. 700", (mp.exp, mp.exp)),
    Function("expm1", tm.expm1, mp.expm1, (between(-30, 700), *TINY), "-30 .. 700", (mp.exp, mp.exp)),
    Function("exp2", tm.exp2, lambda x: mp.mpf(2) ** x, (between(-1000, 1000),), "-1000 .. 1000",
             (lambda x: mp.mpf(2) ** x * mp.log(2), lambda x: mp.mpf(2) ** x * mp.log(2) ** 2)),
    Function("log", tm.log, mp.log, (scaled(-150, 150), between(0.5, 2)), "1e-150 .. 1e150",
             (lambda x: 1 / x, lambda x: -1 / x**2)),
    Function("log1p", tm.log1p, mp.log1p, (between(-1, 3), scaled(-150, 100)), "-1 .. 1e100",
             (lambda x: 1 / (1 + x), lambda x: -1 / (1 + x) ** 2)),
    Function("sqrt", tm.sqrt, mp.sqrt, (scaled(-150, 150),), "1e-150 .. 1e150",
             (lambda x: 1 / (2 * mp.sqrt(x)), lambda x: -1 / (4 * x * mp.sqrt(x)))),
    Function("cbrt", tm.cbrt, mp.cbrt, (scaled(-150, 150),), "1e-150 .. 1e150",
             (lambda x: mp.cbrt(x) / (3 * x), lambda x: -2 * mp.cbrt(x) / (9 * x * x))),
    Function("sin", tm.sin, mp.sin, (between(-1e4, 1e4), *TINY), "-1e4 .. 1e4", (mp.cos, lambda x: -mp.sin(x))),
    Function("cos", tm.cos, mp.cos, (between(-1e4, 1e4),), "-1e4 .. 1e4", (lambda x: -mp.sin(x), lambda x: -mp.cos(x))),
    Function("asinh", tm.asinh, mp.asinh, (between(-3, 3), scaled(-150, 100)), "-3 .. 1e100",
             (lambda x: 1 / mp.sqrt(1 + x * x), lambda x: -x / mp.sqrt(1 + x * x) ** 3)),
    Function("acosh", tm.acosh, mp.acosh, (between(1, 5), scaled(0, 100)), "1 .. 1e100",
             (lambda x: 1 / mp.sqrt(x * x - 1), lambda x: -x / mp.sqrt(x * x - 1) ** 3)),
    Function("atanh", tm.atanh, mp.atanh, UNIT, "-1 .. 1",
             (lambda x: 1 / (1 - x * x), lambda x: 2 * x / (1 - x * x) ** 2)),
    Function("erf", tm.erf, mp.erf, (between(-5, 5), *TINY), "-5 .. 5",
             (bell(TWO_SQRTPI), lambda x: -2 * x * TWO_SQRTPI * mp.exp(-x * x))),
    Function("erfc", tm.erfc, mp.erfc, (between(-5, 26),), "-5 .. 26",
             (bell(-TWO_SQRTPI), lambda x: 2 * x * TWO_SQRTPI * mp.exp(-x * x))),
    Function("gamma", tm.gamma, mp.gamma, (between(0.01, 170), between(-5, 0)), "-5 .. 170",
             (lambda x: mp.gamma(x) * mp.psi(0, x), lambda x: mp.gamma(x) * (mp.psi(0, x) ** 2 + mp.psi(1, x)))),
    Function("gammaln", special.gammaln, mp.loggamma, (between(0, 3), scaled(-100, 100)), "0 .. 1e100",
             (lambda x: mp.psi(0, x), lambda x: mp.psi(1, x))),
    Function("digamma", special.digamma, lambda x: mp.psi(0, x), (between(0, 3), scaled(-100, 10)), "0 .. 1e10",
             (lambda x: mp.psi(1, x), lambda x: mp.psi(2, x))),
    Function("polygamma(3, x)", lambda x: special.polygamma(3, x), lambda x: mp.psi(3, x),
             (between(0, 3), scaled(-30, 3)), "0 .. 1e3", (lambda x: mp.psi(4, x), lambda x: mp.psi(5, x))),
    Function("ndtr", special.ndtr, phi, (between(-37, 8), between(-2, 2)), "-37 .. 8",
             (mp.npdf, lambda x: -x * mp.npdf(x))),
    Function("log_ndtr", special.log_ndtr, log_phi, (between(-37, 8), between(-2, 2), scaled(1, 100, -1.0)),
             "-1e100 .. 8", (hazard, lambda x: -hazard(x) * gap(x))),
    Function("ndtri", special.ndtri, quantile,
             (between(0, 1), scaled(-150, -1), lambda: 1 - 10 ** random.uniform(-15, -1)),
             "1e-150 .. 1 - 1e-15",
             (lambda p: 1 / mp.npdf(quantile(p)), lambda p: quantile(p) / mp.npdf(quantile(p)) ** 2)),
    Function("logit", special.logit, lambda p: mp.log(p / (1 - p)), (between(0, 1), between(0.4999, 0.5001),
             scaled(-150, -1)), "1e-150 .. 1",
             (lambda p: 1 / (p * (1 - p)), lambda p: (2 * p - 1) / (p * (1 - p)) ** 2)),
    Function("expit", special.expit, lambda x: 1 / (1 + mp.exp(-x)), (between(-700, 700), between(-1, 1)),
             "-700 .. 700", (lambda x: mp.exp(-x) / (1 + mp.exp(-x)) ** 2,
              lambda x: -mp.exp(-x) / (1 + mp.exp(-x)) ** 2 * mp.tanh(x / 2))),
    Function("log_expit", special.log_expit, lambda x: -mp.log1p(mp.exp(-x)), (between(-700, 700), between(-1, 1)),
             "-700 .. 700", (lambda x: 1 / (1 + mp.exp(x)), lambda x: -mp.exp(x) / (1 + mp.exp(x)) ** 2)),
    Function("tanh", tm.tanh, mp.tanh, (between(-5, 5), *TINY), "-5 .. 5",
             (lambda x: 1 / mp.cosh(x) ** 2, lambda x: -2 * mp.tanh(x) / mp.cosh(x) ** 2)),
]  # fmt: skip


def off(got: float, exact: Any) -> float:
    """The relative error; 0 where the exact number is beyond floats."""
    if not sys.float_info.min < abs(exact) < sys.float_info.max:
        return 0.0
    return float(abs((mp.mpf(got) - exact) / exact))


def worst(function: Function, n: int) -> list[float]:
    """The largest relative errors of value, first and second derivative over n points."""
    exact = (function.exact, *(function.slopes or ()))
    program = tapegrad.record(function.f, function.draws[0](), on_error="nan")
    errors = [0.0, 0.0, 0.0]
    for k in range(n):
        x = function.draws[k % len(function.draws)]()
        got = (function.f(x), program.grad(x), program.hessian(x))
        for j in range(3):
            errors[j] = max(errors[j], off(got[j], exact[j](mp.mpf(x))))
    return errors


HEAD = """# Accuracy

The largest relative error against mpmath of value, first and second derivative, over {n} random points each, as
`python tools/accuracy.py` measures it (2.2e-16 is one unit in the last place, at most). Where the exact number is not a
normal float, it does not count.

| function | range | value | first derivative | second derivative |
| --- | --- | --- | --- | --- |
{rows}
The elementary functions are the C library's, so their numbers are those of the machine that measured: {machine}. Digits
are lost, in relation to a result near 0, by `digamma` at its zeros below 0, by the slopes of `tanh` and `sigmoid` where
they saturate (those of `expit` lose none), and by the slopes of `betaln` where one operand is much the larger.
"""


def main() -> None:
    n = int(sys.argv[1]) if sys.argv[1:] else 2000
    rows = []
    for function in FUNCTIONS:
        random.seed(function.name)
        cells = (f"{error:.1e}" for error in worst(function, n))
        rows.append(f"| `{function.name}` | {function.where} | {' | '.join(cells)} |\n")
        print(rows[-1], end="", flush=True)
    if not sys.argv[1:]:
        import platform

        machine = f"{platform.machine()}, {' '.join(platform.libc_ver())}"
        text = HEAD.format(n=n, rows="".join(rows), machine=machine)
        (Path(__file__).resolve().parent.parent / "docs/accuracy.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
