"""Measures every function against mpmath (pip install mpmath), and writes docs/accuracy.md.

    python tools/accuracy.py            measure 2000 points a function and write
    python tools/accuracy.py N          N points, and print

The functions of csrc/elementary.h are measured by accuracy.c besides, at 50 N points a decade where much happens and at
N / 2 in each of the others: gcc with libquadmath compiles it, and mpmath says whether it is right.
"""
from __future__ import annotations

import os
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mpmath as mp

import tapegrad
from tapegrad import math as tm
from tapegrad import special

Exact = Callable[..., Any]
mp.mp.dps = 50
ROOT = Path(__file__).resolve().parent.parent


class Function(NamedTuple):
    """A function, what it is exactly with its two derivatives (mpmath's own where none are said), and where."""

    name: str
    f: Callable[..., Any]
    exact: Exact
    draws: tuple[Callable[[], Any], ...]  # one a region: an operand, or a tuple of two
    where: str
    slopes: tuple[Exact, Exact] | None = None  # of two operands lists


def between(low: float, high: float) -> Callable[[], float]:
    return lambda: random.uniform(low, high)


def scaled(low: float, high: float, sign: float = 1.0) -> Callable[[], float]:
    """Powers of ten from low to high."""
    return lambda: sign * 10.0 ** random.uniform(low, high)


def both(*draws: Callable[[], float]) -> Callable[[], tuple[float, ...]]:
    return lambda: tuple(draw() for draw in draws)


def method(name: str) -> Callable[[Any], Any]:
    return lambda x: getattr(x, name)() if isinstance(x, tapegrad.Value) else getattr(tapegrad.Value(x), name)().data


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


def truncated(x: Any) -> Any:
    return mp.floor(x) if x > 0 else mp.ceil(x)


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
    Function("sigmoid", method("sigmoid"), lambda x: 1 / (1 + mp.exp(-x)), (between(-5, 5),), "-5 .. 5",
             (lambda x: mp.exp(-x) / (1 + mp.exp(-x)) ** 2,
              lambda x: -mp.exp(-x) / (1 + mp.exp(-x)) ** 2 * mp.tanh(x / 2))),
    Function("softplus", method("softplus"), lambda x: mp.log1p(mp.exp(x)), (between(-700, 700), between(-1, 1)),
             "-700 .. 700", (lambda x: 1 / (1 + mp.exp(-x)), lambda x: mp.exp(-x) / (1 + mp.exp(-x)) ** 2)),
    Function("sinh", tm.sinh, mp.sinh, (between(-700, 700), between(-2, 2), *TINY), "-700 .. 700", (mp.cosh, mp.sinh)),
    Function("cosh", tm.cosh, mp.cosh, (between(-700, 700), between(-2, 2)), "-700 .. 700", (mp.sinh, mp.cosh)),
    Function("log2", tm.log2, lambda x: mp.log(x) / mp.log(2), (scaled(-150, 150), between(0.5, 2)), "1e-150 .. 1e150",
             (lambda x: 1 / (x * mp.log(2)), lambda x: -1 / (x**2 * mp.log(2)))),
    Function("log10", tm.log10, mp.log10, (scaled(-150, 150), between(0.5, 2)), "1e-150 .. 1e150",
             (lambda x: 1 / (x * mp.log(10)), lambda x: -1 / (x**2 * mp.log(10)))),
    Function("tan", tm.tan, mp.tan, (between(-1.5, 1.5), between(-1e4, 1e4), *TINY), "-1e4 .. 1e4",
             (lambda x: 1 + mp.tan(x) ** 2, lambda x: 2 * mp.tan(x) * (1 + mp.tan(x) ** 2))),
    Function("asin", tm.asin, mp.asin, UNIT, "-1 .. 1",
             (lambda x: 1 / mp.sqrt(1 - x * x), lambda x: x / mp.sqrt(1 - x * x) ** 3)),
    Function("acos", tm.acos, mp.acos, UNIT, "-1 .. 1",
             (lambda x: -1 / mp.sqrt(1 - x * x), lambda x: -x / mp.sqrt(1 - x * x) ** 3)),
    Function("atan", tm.atan, mp.atan, (between(-5, 5), *TINY, scaled(0, 70)), "-5 .. 1e70",
             (lambda x: 1 / (1 + x * x), lambda x: -2 * x / (1 + x * x) ** 2)),
    Function("atan2", tm.atan2, mp.atan2, (both(between(-5, 5), between(-5, 5)),), "-5 .. 5, both"),
    Function("hypot", tm.hypot, mp.hypot, (both(between(-5, 5), between(-5, 5)),), "-5 .. 5, both"),
    Function("pow", tm.pow, lambda x, y: x**y, (both(scaled(-20, 20), between(-10, 10)),
             both(between(0.5, 2), between(-700, 700))), "1e-20 .. 1e20, -10 .. 10"),
    Function("fmod", tm.fmod, lambda x, y: x - y * truncated(x / y), (both(between(-50, 50), between(1, 3)),),
             "-50 .. 50, 1 .. 3"),
    Function("remainder", tm.remainder, lambda x, y: x - y * mp.nint(x / y), (both(between(-50, 50), between(1, 3)),),
             "-50 .. 50, 1 .. 3"),
    Function("xlogy", special.xlogy, lambda x, y: x * mp.log(y), (both(between(-5, 5), scaled(-50, 50)),),
             "-5 .. 5, 1e-50 .. 1e50",
             (lambda x, y: [mp.log(y), x / y], lambda x, y: [mp.mpf(0), 1 / y, 1 / y, -x / y**2])),
    Function("logaddexp", special.logaddexp, lambda x, y: mp.log(mp.exp(x) + mp.exp(y)),
             (both(between(-50, 50), between(-50, 50)),), "-50 .. 50, both"),
    Function("betaln", special.betaln, lambda x, y: mp.loggamma(x) + mp.loggamma(y) - mp.loggamma(x + y),
             (both(between(0.1, 50), between(0.1, 50)),), "0.1 .. 50, both"),
]  # fmt: skip


def off(got: float, exact: Any) -> float:
    """The relative error; 0 where the exact number is beyond floats."""
    if not sys.float_info.min < abs(exact) < sys.float_info.max:
        return 0.0
    return float(abs((mp.mpf(got) - exact) / exact))


def flat(x: Any) -> list[float]:
    return [number for part in x for number in flat(part)] if isinstance(x, (list, tuple)) else [x]


def exactly(function: Function, x: Any) -> list[list[Any]]:
    """The value, the first and the second derivatives; those of two operands by mpmath's own differences."""
    if not isinstance(x, tuple):
        return [[f(mp.mpf(x))] for f in (function.exact, *(function.slopes or ()))]
    xs = tuple(map(mp.mpf, x))
    if function.slopes:
        return [[function.exact(*xs)], *(f(*xs) for f in function.slopes)]
    orders: list[list[tuple[int, int]]] = [[(1, 0), (0, 1)], [(2, 0), (1, 1), (1, 1), (0, 2)]]
    return [[function.exact(*xs)], *([mp.diff(function.exact, xs, n) for n in ns] for ns in orders)]


def worst(function: Function, n: int) -> list[float]:
    """The largest relative errors of value, first and second derivative over n points."""
    at = function.draws[0]()
    operands = len(at) if isinstance(at, tuple) else 1
    program = tapegrad.record(function.f, *(at if operands > 1 else [at]), on_error="nan")
    argnums: Any = tuple(range(operands)) if operands > 1 else 0
    errors = [0.0, 0.0, 0.0]
    for k in range(n):
        x = function.draws[k % len(function.draws)]()
        xs = x if operands > 1 else (x,)
        got = (function.f(*xs), program.grad(*xs, argnums=argnums), program.hessian(*xs, argnums=argnums))
        for j, exact in enumerate(exactly(function, x)):
            errors[j] = max(errors[j], *map(off, flat(got[j]), exact))
    return errors


POINTS = """
## The functions of csrc/elementary.h

`exp expm1 log log1p tanh sigmoid softplus sin cos erf sinh cosh pow` are text of our own, of operations that IEEE 754
rounds in one way only, and so have the same bits on every machine, with every compiler, option and C library, one at a
time or in lanes of any width, in Values, programs, native code and `tapegrad.math`. A test compares a sum over their
bits with one that is written down, for gcc and clang, `-O0` to `-O3`, `-march=native` and not, one lane and sixteen.
It takes rounding to nearest and doubles that are not longer in registers, as on x86-64 and ARM64. The other functions
are the C library's, and their bits are those of the machine.

The largest error found, in units of the last place (an exact result, rounded, is off by 0.5), over {inner:,} random
points a decade from 1e-20 to 1e4 and {outer:,} in each of the others, of both signs where there are; beside it that of
the C library ({machine}; it has no `sigmoid` and `softplus`: the usual formulas). Where: the argument that
it was at. No step of an argument to the next double led back where the function rises. `python tools/accuracy.py`
measures it with `tools/accuracy.c`, and mpmath has the same errors at these points.

| function | points | ulp | where | C library, ulp | where |
| --- | ---: | ---: | --- | ---: | --- |
{rows}"""

EXACT = {name: getattr(mp, name) for name in "exp expm1 log log1p tanh sin cos erf sinh cosh".split()}
EXACT["sigmoid"] = lambda x: 1 / (1 + mp.exp(-x))
EXACT["softplus"] = lambda x: mp.log1p(mp.exp(x))
EXACT["pow"] = lambda x, y: x**y


def ulps(got: float, exact: Any) -> float:
    """In units of the last place of the exact number; 0 beyond doubles."""
    if abs(exact) > sys.float_info.max:
        return 0.0
    return float(abs(got - exact) / mp.mpf(2) ** max(mp.frexp(exact)[1] - 53, -1074))


def ours(name: str, *xs: float) -> float:
    f = method(name) if name in ("sigmoid", "softplus") else getattr(tm, name)
    return f(*xs)  # type: ignore[no-any-return]


def elementary(inner: int, outer: int) -> str:
    """The rows that accuracy.c measures; RuntimeError where mpmath has it otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "accuracy")
        source = ROOT / "tools/accuracy.c"
        flags = ["-std=gnu11", "-O2", "-ffp-contract=off", f"-I{ROOT / 'csrc'}"]
        compiler = os.environ.get("CC", "gcc").split()
        subprocess.run([*compiler, *flags, str(source), "-o", str(made), "-lquadmath", "-lm"], check=True)
        done = subprocess.run([made, str(inner), str(outer)], check=True, capture_output=True, text=True)
    rows = ""
    for line in done.stdout.splitlines():
        name, points, *numbers = line.split()
        error, x, library, library_x, back, *ys = map(float, numbers)
        at = [(x, *ys[:1]), (library_x, *ys[1:])]
        with mp.workprec(1200):
            found = ulps(ours(name, *at[0]), EXACT[name](*map(mp.mpf, at[0])))
        if abs(found - error) > 1e-3 or back:
            raise RuntimeError(f"{name}{at[0]}: {found} ulp by mpmath, {error} measured; {back:g} steps led back")
        where = [", ".join(map(repr, place)) for place in at]
        rows += f"| `{name}` | {int(points):,} | {error:.3f} | {where[0]} | {library:.3f} | {where[1]} |\n"
        print(rows.splitlines()[-1], flush=True)
    return rows


HEAD = """# Accuracy

The largest relative error against mpmath of value, first and second derivative, over {n} random points each, as
`python tools/accuracy.py` measures it (2.2e-16 is one unit in the last place, at most). Where the exact number is not a
normal float, it does not count.

| function | range | value | first derivative | second derivative |
| --- | --- | --- | --- | --- |
{rows}
Digits are lost, in relation to a result near 0, by `digamma` at its zeros below 0, by the second slopes of `atan2`
where they change sign, by the slopes of `tanh`, `sigmoid`, `erf`, `erfc` and `ndtr` in the tails (those of `expit` lose
none), and by the slopes of `logaddexp` and `betaln` where one operand is much the larger.
"""


def main() -> None:
    n = int(sys.argv[1]) if sys.argv[1:] else 2000
    rows = ""
    for function in FUNCTIONS:
        random.seed(function.name)
        cells = (f"{error:.1e}" for error in worst(function, n))
        rows += f"| `{function.name}` | {function.where} | {' | '.join(cells)} |\n"
        print(rows.splitlines()[-1], flush=True)
    inner, outer = 50 * n, n // 2
    measured = elementary(inner, outer)
    if not sys.argv[1:]:
        machine = f"{platform.machine()}, {' '.join(platform.libc_ver())}"
        text = HEAD.format(n=n, rows=rows) + POINTS.format(inner=inner, outer=outer, machine=machine, rows=measured)
        (ROOT / "docs/accuracy.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
