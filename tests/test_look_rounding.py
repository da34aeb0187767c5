"""How many digits are true: the estimated error against 50 digits of mpmath."""

from __future__ import annotations

import math
import random

import pytest

from tapegrad import Value, record

mpmath = pytest.importorskip("mpmath")


def function(name):
    return lambda x: getattr(x, name)() if isinstance(x, Value) else getattr(mpmath, name)(x)


cos, sin, exp, log, sqrt, tanh, atan = map(function, ("cos", "sin", "exp", "log", "sqrt", "tanh", "atan"))


def cosine(x):
    return (1.0 - cos(x)) / (x * x)


def quadratic(a, b, c):
    return (-b + sqrt(b * b - 4.0 * a * c)) / (2.0 * a)


def rump(a, b):
    a2, b2 = a * a, b * b
    b4 = b2 * b2
    b6 = b4 * b2
    return 333.75 * b6 + a2 * (11.0 * a2 * b2 - b6 - 121.0 * b4 - 2.0) + 5.5 * (b4 * b4) + a / (2.0 * b)


def variance(xs):
    n = len(xs)
    total = squares = 0.0
    for x in xs:
        total = total + x
        squares = squares + x * x
    return (squares - total * total / n) / (n - 1.0)


def long_sum(xs):
    total = 0.0
    for x in xs:
        total = total + x
    return total


def exponentials(x):
    return exp(x) - exp(x + 1e-9) + log(x) - log(x * 1.000000001) + sin(x) * tanh(x) - atan(x)


rng = random.Random(5)
CASES = [
    (cosine, (1e-4,)), (cosine, (1e-6,)), (cosine, (0.7,)), (quadratic, (1.0, 1e8, 1.0)), (quadratic, (1.0, 1e4, 1.0)),
    (variance, ([1e7 + rng.random() for _ in range(40)],)), (long_sum, ([rng.uniform(-1, 1) for _ in range(2000)],)),
    (long_sum, ([0.1] * 1000,)), (exponentials, (1.3,)),
]  # fmt: skip


def exactly(f, args):
    with mpmath.workdps(50):
        mp = [[mpmath.mpf(x) for x in arg] if isinstance(arg, list) else mpmath.mpf(arg) for arg in args]
        return f(*mp)


@pytest.mark.parametrize(("f", "args"), CASES, ids=[f"{f.__name__}{k}" for k, (f, _) in enumerate(CASES)])
def test_the_error_is_the_one_against_fifty_digits(f, args):
    found, exact = record(f, *args).rounding(*args), exactly(f, args)
    off = float(found.value - exact)
    last = math.ulp(found.value)
    assert abs(off - found.error) <= found.bound + 1e-3 * abs(off) + last
    assert abs(float(found.corrected - exact)) <= max(1e-3 * abs(off), found.bound) + last
    true = 17 if not off else math.floor(math.log10(abs(found.value / off)))
    assert found.digits <= true + 1 and (found.digits >= min(true, 15) - 2)


def test_no_digit_of_rumps_polynomial_is_true():
    found = record(rump, 77617.0, 33096.0).rounding(77617.0, 33096.0)
    assert found.digits == 0 and float(exactly(rump, (77617.0, 33096.0))) == pytest.approx(-0.82739605994682136814)
    assert abs(found.error) + found.bound >= abs(found.value) / 10


def test_what_is_exact_has_no_error():
    found = record(lambda x, y: (x + y) * 4.0 - x, 1.5, 2.25).rounding(1.5, 2.25)
    assert (found.error, found.bound, found.digits, found.lines) == (0.0, 0.0, 17, [])


def test_the_line_that_lost_the_digits_is_named():
    def f(x):
        big = x * 1e8 + 0.1
        small = big - x * 1e8
        return small * 3.0

    found = record(f, 1.1).rounding(1.1)
    assert found.lines[0].text == "big = x * 1e8 + 0.1" and found.lines[0].share > 0.5
    assert sum(line.share for line in found.lines) == pytest.approx(1.0)
    assert "makes" in str(found) and "digits are true" in str(found)


def test_rounding_is_of_one_result():
    with pytest.raises(TypeError, match="returns one Value"):
        record(lambda x: [x * 2.0, x * 3.0], 1.0).rounding(1.0)
