"""Python's `math` for Values too: the same names, signatures and errors.

Of floats a float, with the bits that a Value's data would have; of a Value a Value. What rounds to an integer is an int
of a float and a Value without slope of a Value. What newer Pythons have in `math` is here on all, but for fma. The
functions of integers are `math`'s own, and so are `nextafter` and `ulp`, which are of floats alone."""
from __future__ import annotations

import math as _math
import operator as _operator
from collections.abc import Iterable
from functools import reduce as _reduce
from math import comb, e, factorial, gcd, inf, isqrt, lcm, nan, nextafter, perm, pi, tau, ulp
from typing import Any

from ._core import lib as _lib
from ._rows import OPS as _OPS
from ._rows import as_float as _as_float
from ._rows import binary as _binary
from ._rows import chosen as _chosen
from ._rows import evaluated as _evaluated
from ._rows import unary as _unary
from .value import Value as _Value
from .value import handle as _handle

__all__ = [
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "comb", "copysign", "cos", "cosh",
    "degrees", "dist", "e", "erf", "erfc", "exp", "exp2", "expm1", "fabs", "factorial", "floor", "fmod", "frexp",
    "fsum", "gamma", "gcd", "hypot", "inf", "isclose", "isfinite", "isinf", "isnan", "isqrt", "lcm", "ldexp",
    "lgamma", "log", "log1p", "log2", "log10", "modf", "nan", "nextafter", "perm", "pi", "pow", "prod", "radians",
    "remainder", "sin", "sinh", "sqrt", "sumprod", "tan", "tanh", "tau", "trunc", "ulp",
]  # fmt: skip

acos, acosh, asin, asinh, atan = (_unary(row) for row in ("ACOS", "ACOSH", "ASIN", "ASINH", "ATAN"))
atanh, cbrt, cos, cosh, erf = (_unary(row) for row in ("ATANH", "CBRT", "COS", "COSH", "ERF"))
erfc, exp, expm1, gamma, lgamma = (_unary(row) for row in ("ERFC", "EXP", "EXPM1", "GAMMA", "LGAMMA"))
log1p, sin, sinh, sqrt, tan, tanh = (_unary(row) for row in ("LOG1P", "SIN", "SINH", "SQRT", "TAN", "TANH"))
fabs = _unary("ABS", "fabs")
atan2, copysign, fmod, remainder = (_binary(row) for row in ("ATAN2", "COPYSIGN", "FMOD", "REMAINDER"))
_log, _log2, _log10, _hypot = _unary("LOG"), _unary("LOG2"), _unary("LOG10"), _binary("HYPOT")


def _data(v: Any) -> float:
    """What a result is, for errors alone: a recording does not have to know that it was read."""
    return _handle.primals((v,))[0] if isinstance(v, _Value) else _as_float(v)


def _beyond_floats(x: Any) -> bool:
    return isinstance(x, int) and x.bit_length() > 1023


# ---- powers and logarithms ----


def log(x: Any, /, *base: Any) -> Any:
    """Natural logarithm, or that to a base.

    >>> math.log(8.0, 2.0), math.log(Value(1.0))
    (3.0, Value(data=0.0, grad=0.0))
    """
    if len(base) > 1:
        raise TypeError(f"log expected at most 2 arguments, got {1 + len(base)}")
    y = _math.log(x) if _beyond_floats(x) else _log(x)
    return y / log(base[0]) if base else y


def log2(x: Any, /) -> Any:
    """Logarithm to base 2.

    >>> math.log2(8.0)
    3.0
    """
    return _math.log2(x) if _beyond_floats(x) else _log2(x)


def log10(x: Any, /) -> Any:
    """Logarithm to base 10.

    >>> math.log10(100.0)
    2.0
    """
    return _math.log10(x) if _beyond_floats(x) else _log10(x)


def pow(x: Any, y: Any, /) -> Any:
    """x ** y as of floats; 0.0 to a negative power is a ValueError here.

    >>> value_and_grad(math.pow)(3.0, 2.0)
    (9.0, 6.0)
    """
    try:
        if isinstance(x, _Value) or isinstance(y, _Value):
            return (x if isinstance(x, _Value) else _as_float(x)) ** (y if isinstance(y, _Value) else _as_float(y))
        return _evaluated(_OPS["POW"], _as_float(x), _as_float(y))
    except ZeroDivisionError as error:
        raise ValueError(str(error)) from None


def exp2(x: Any, /) -> Any:
    """2 ** x.

    >>> math.exp2(3.0)
    8.0
    """
    return pow(2.0, x)


def ldexp(x: Any, i: int, /) -> Any:
    """x * 2 ** i.

    >>> math.ldexp(3.0, 2)
    12.0
    """
    if not isinstance(x, _Value):
        return _math.ldexp(x, i)
    i = _operator.index(i)
    y, left = x, max(-2200, min(2200, i))
    while left:  # the odd step first: of the others the last alone can round
        step = int(_math.fmod(left, 1000)) or (1000 if left > 0 else -1000)
        y, left = y * 2.0**step, left - step
    if i > 0 and (y >= inf or y <= -inf) and -inf < x < inf:  # asked of Values, for replays have to find the same
        raise OverflowError("math range error")
    return y


def frexp(x: Any, /) -> tuple[Any, int]:
    """(m, k), x = m * 2 ** k and 0.5 <= abs(m) < 1; of a Value k is read from `.data`, as a recording will say.

    >>> math.frexp(12.0)
    (0.75, 4)
    """
    if not isinstance(x, _Value):
        return _math.frexp(x)
    k = _math.frexp(x.data)[1]
    return ldexp(x, -k), k


# ---- parts of numbers ----


def floor(x: Any, /) -> Any:
    """The next integer downwards.

    >>> math.floor(2.5), math.floor(Value(2.5))
    (2, Value(data=2.0, grad=0.0))
    """
    return x.floor() if isinstance(x, _Value) else _math.floor(x)


def ceil(x: Any, /) -> Any:
    """The next integer upwards.

    >>> math.ceil(2.5), math.ceil(Value(2.5))
    (3, Value(data=3.0, grad=0.0))
    """
    return x.ceil() if isinstance(x, _Value) else _math.ceil(x)


def trunc(x: Any, /) -> Any:
    """The next integer towards 0.

    >>> math.trunc(-2.5), math.trunc(Value(-2.5))
    (-2, Value(data=-2.0, grad=0.0))
    """
    return x.trunc() if isinstance(x, _Value) else _math.trunc(x)


def modf(x: Any, /) -> tuple[Any, Any]:
    """The fraction of x and its whole, both with the sign of x.

    >>> math.modf(-2.5)
    (-0.5, -2.0)
    """
    if not isinstance(x, _Value):
        return _math.modf(x)
    return _chosen(fabs(x).equal(inf), copysign(0.0, x), x).fmod(1.0), x.trunc()


def isfinite(x: Any, /) -> bool:
    """Whether x is neither infinite nor nan.

    >>> math.isfinite(Value(1.0))
    True
    """
    return bool(-inf < x and x < inf) if isinstance(x, _Value) else _math.isfinite(x)


def isinf(x: Any, /) -> bool:
    """Whether x is infinite.

    >>> math.isinf(Value(-math.inf))
    True
    """
    return bool(x >= inf or x <= -inf) if isinstance(x, _Value) else _math.isinf(x)


def isnan(x: Any, /) -> bool:
    """Whether x is nan.

    >>> math.isnan(Value(math.nan))
    True
    """
    return not x <= inf if isinstance(x, _Value) else _math.isnan(x)


def isclose(a: Any, b: Any, *, rel_tol: float = 1e-09, abs_tol: float = 0.0) -> bool:
    """Whether a and b differ by at most rel_tol times the larger of them, or abs_tol.

    >>> math.isclose(Value(1.0), 1.0 + 1e-12)
    True
    """
    if not (isinstance(a, _Value) or isinstance(b, _Value)):
        return _math.isclose(a, b, rel_tol=rel_tol, abs_tol=abs_tol)
    if rel_tol < 0.0 or abs_tol < 0.0:
        raise ValueError("tolerances must be non-negative")
    if a <= b and a >= b:
        return True
    if isinf(a) or isinf(b):
        return False
    apart = fabs(a - b)
    return bool(apart <= rel_tol * fabs(b) or apart <= rel_tol * fabs(a) or apart <= abs_tol)


# ---- angles ----


def degrees(x: Any, /) -> Any:
    """An angle in radians, in degrees.

    >>> math.degrees(math.pi)
    180.0
    """
    return (x if isinstance(x, _Value) else _as_float(x)) * (180.0 / pi)


def radians(x: Any, /) -> Any:
    """An angle in degrees, in radians.

    >>> math.radians(180.0)
    3.141592653589793
    """
    return (x if isinstance(x, _Value) else _as_float(x)) * (pi / 180.0)


# ---- of many ----


def hypot(*coordinates: Any) -> Any:
    """Euclidean length.

    >>> value_and_grad(math.hypot, argnums=(0, 1))(3.0, 4.0)
    (5.0, (0.6, 0.8))
    """
    return _reduce(_hypot, coordinates) if len(coordinates) > 1 else fabs(*coordinates or (0.0,))


def dist(p: Iterable[Any], q: Iterable[Any], /) -> Any:
    """Euclidean distance of two points.

    >>> math.dist((0.0, 0.0), (3.0, 4.0))
    5.0
    """
    p, q = tuple(p), tuple(q)
    if len(p) != len(q):
        raise ValueError("both points must have the same number of dimensions")
    return hypot(*(a - b for a, b in zip(p, q)))


def prod(iterable: Iterable[Any], /, *, start: Any = 1) -> Any:
    """start times all of them, from left to right.

    >>> math.prod([2.0, Value(3.0)])
    Value(data=6.0, grad=0.0)
    """
    return _reduce(_operator.mul, iterable, start)


def fsum(seq: Iterable[Any], /) -> Any:
    """The sum, added in threefold precision and rounded once.

    >>> math.fsum([0.1] * 10)
    1.0
    """
    xs = tuple(seq)
    if not any(isinstance(x, _Value) for x in xs):
        total: Any = _fsum([_as_float(x) for x in xs])
        if not _math.isfinite(total):
            _math.fsum(xs)  # for its errors
        return total
    if _lib.tg_main.recorders and not _math.isfinite(_fsum([*map(_data, xs)])):
        _refuse(xs)  # before there is a node, which replays would refuse though f has an except
    total = _handle.many(_OPS["FSUM"], xs)
    if not _math.isfinite(_data(total)):
        _refuse(xs)
    return total


def _refuse(xs: tuple[Any, ...]) -> None:
    """Raise what `fsum` refuses terms for whose sum is not finite, if it does: see tg_refused_terms in csrc/ops.c.

    Where it is recorded, replays have to find the same."""
    total, start, infinite, pair = 0.0, 0, None, None
    for k, x in enumerate(map(_data, xs)):
        if _math.isfinite(x) and not _math.isfinite(total + x):
            below = _handle.many(_OPS["SUM"], xs[start:k])
            _ = abs(below) < inf, abs(xs[k]) < inf, abs(below + xs[k]) == inf
            _evaluated(_OPS["FSUM"], total, x)
        total, start = (total + x, start) if _math.isfinite(x) else (0.0, k + 1)
        if _math.isinf(x) and infinite is not None and _data(xs[infinite]) == -x:
            pair = infinite, k
        elif _math.isinf(x):
            infinite = k
    if pair is not None:
        a, b = (xs[k] for k in pair)
        _ = a == _data(a), b == _data(b)
        _evaluated(_OPS["FSUM"], _data(a), _data(b))


def _fsum(numbers: list[float]) -> float:
    """The steps of tg_fsum_add and tg_fsum_total in csrc/scalar.h."""
    s = c = d = 0.0
    for x in numbers:
        t = s + x
        z = t - s
        error = (s - (t - z)) + (x - z)
        u = c + error
        z = u - c
        d += (c - (u - z)) + (error - z)
        s, c = t, u
    t = s + c
    z = t - s
    return t + (((s - (t - z)) + (c - z)) + d) if s - s == 0.0 else s


def sumprod(p: Iterable[Any], q: Iterable[Any], /) -> Any:
    """The sum of products, each rounded, added as `fsum` does; of integers alone an integer.

    >>> math.sumprod([1.0, 2.0], [3.0, 4.0])
    11.0
    """
    p, q = tuple(p), tuple(q)
    if len(p) != len(q):
        raise ValueError("Inputs are not the same length")
    products = [a * b for a, b in zip(p, q)]
    return sum(products) if all(isinstance(x, int) for x in products) else fsum(products)
