"""Choice without a branch: comparisons as numbers, and the functions that choose by them.

Of Values a Value, of numbers a float, of NumPy arrays an object array. Both sides of a choice are computed, and what
one of them refuses is refused; the chosen one gets the slope, the other one nothing. In a program a choice is an
instruction: its rows may choose otherwise, where after an `if` they would have to do as the recording did."""
from __future__ import annotations

from typing import Any

from ._rows import binary, chosen, elementwise, unary

__all__ = [
    "clip", "equal", "greater", "greater_equal", "less", "less_equal", "logical_and", "logical_not", "logical_or",
    "maximum", "minimum", "not_equal", "reciprocal", "sign", "square", "where",
]  # fmt: skip

_equal, _not_equal, _less, _greater = (binary(row) for row in ("EQUAL", "NOT_EQUAL", "LESS", "GREATER"))

less = elementwise(_less)
less_equal = elementwise(binary("LESS_EQUAL"))
greater = elementwise(_greater)
greater_equal = elementwise(binary("GREATER_EQUAL"))
equal = elementwise(_equal)
not_equal = elementwise(_not_equal)
maximum = elementwise(binary("MAX", "maximum"))
minimum = elementwise(binary("MIN", "minimum"))
sign = elementwise(unary("SIGN"))


@elementwise
def where(c: Any, a: Any, b: Any, /) -> Any:
    """a where c is not 0, else b.

    Args:
        c: a Value or a number, as comparisons give them: True, 1.0 or any other but 0 choose a.
        a, b: Values and numbers.

    Returns:
        A Value where one of them is, else a float.

    >>> value_and_grad(lambda x: where(less(x, 0.0), -x, x * x))(3.0)
    (9.0, 6.0)
    """
    return chosen(c, a, b)


@elementwise
def logical_and(a: Any, b: Any, /) -> Any:
    """1.0 where neither a nor b is 0, else 0.0; no slope.

    >>> logical_and(less(1.0, 2.0), less(2.0, 1.0))
    0.0
    """
    return chosen(a, _not_equal(b, 0.0), 0.0)


@elementwise
def logical_or(a: Any, b: Any, /) -> Any:
    """1.0 where a or b is not 0, else 0.0; no slope.

    >>> logical_or(less(1.0, 2.0), less(2.0, 1.0))
    1.0
    """
    return chosen(a, 1.0, _not_equal(b, 0.0))


@elementwise
def logical_not(a: Any, /) -> Any:
    """1.0 where a is 0, else 0.0; no slope.

    >>> logical_not(less(1.0, 2.0))
    0.0
    """
    return _equal(a, 0.0)


@elementwise
def clip(x: Any, lower: Any, upper: Any, /) -> Any:
    """x, or the bound that it is beyond; at a bound the slope is that of x.

    Args:
        x: a Value or a number.
        lower, upper: Values and numbers, or None for no bound.

    >>> [clip(x, 0.0, 1.0) for x in (-2.0, 0.5, 3.0)]
    [0.0, 0.5, 1.0]
    """
    y = x if lower is None else chosen(_less(x, lower), lower, x)
    return y if upper is None else chosen(_greater(y, upper), upper, y)


@elementwise
def square(x: Any, /) -> Any:
    """x * x.

    >>> value_and_grad(square)(3.0)
    (9.0, 6.0)
    """
    return x * x


@elementwise
def reciprocal(x: Any, /) -> Any:
    """1 / x.

    >>> value_and_grad(reciprocal)(4.0)
    (0.25, -0.0625)
    """
    return 1.0 / x
