"""csrc/elementary.h: near mpmath's numbers, monotone, exact where it must be, and the same bits everywhere."""

from __future__ import annotations

import itertools
import math
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tapegrad.math as tm
from tapegrad import Value, record

mpmath = pytest.importorskip("mpmath")

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXACT = {name: getattr(mpmath, name) for name in "exp expm1 log log1p tanh sin cos erf sinh cosh".split()}
EXACT["sigmoid"] = lambda x: 1 / (1 + mpmath.exp(-x))
EXACT["softplus"] = lambda x: mpmath.log1p(mpmath.exp(x))
MONOTONE = sorted(set(EXACT) - {"sin", "cos", "cosh"})
OF_VALUES = {"sigmoid", "softplus"}
SIZES = st.one_of(
    st.floats(-750.0, 750.0), st.floats(-2.0, 2.0), st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-1e-300, 1e-300),
)  # fmt: skip


def of(name):
    if name in OF_VALUES:
        return lambda x: getattr(Value(x), name)().data
    return lambda x: outcome(getattr(tm, name), x)


def outcome(f, *xs):
    try:
        return f(*xs)
    except (ValueError, OverflowError):
        return math.nan


def bits(x):
    return struct.pack("<d", math.nan if x != x else x)


def in_domain(name, x):
    return x > {"log": 0.0, "log1p": -1.0}.get(name, -math.inf)


def ulps(got, exact):
    """The error in units of the last place of the exact number."""
    if abs(exact) > sys.float_info.max:
        return 0.0 if got != got or math.isinf(got) else math.inf
    return float(abs(got - exact) / mpmath.mpf(math.ulp(float(exact))))


def exactly(name, x):
    with mpmath.workprec(1400 if abs(x) > 1e5 or abs(x) < 1e-30 else 300):
        return EXACT[name](mpmath.mpf(x))


@pytest.mark.parametrize("name", sorted(EXACT))
@given(x=SIZES)
def test_a_result_is_within_an_ulp(name, x):
    if in_domain(name, x) and abs(x) > 1e-290:
        if name not in ("log", "log1p", "sin", "cos"):
            x = math.copysign(min(abs(x), 750.0), x)
        assert ulps(of(name)(x), exactly(name, x)) <= 1.0


@given(x=st.floats(0.0, 1e300), y=st.floats(-30.0, 30.0))
def test_a_power_is_within_an_ulp(x, y):
    with mpmath.workprec(200):
        exact = mpmath.mpf(x) ** mpmath.mpf(y) if x else mpmath.mpf(0)
        if sys.float_info.min < exact < sys.float_info.max:
            assert ulps((Value(x) ** y).data, exact) <= 1.0


@pytest.mark.parametrize("name", MONOTONE)
@given(x=SIZES)
def test_a_step_of_x_never_leads_back(name, x):
    f = of(name)
    below, above = f(x), f(math.nextafter(x, math.inf)) if hasattr(math, "nextafter") else f(x)
    assert not above < below


def test_what_must_be_exact_is():
    inf = math.inf
    for name, cases in {
        "exp": ((0.0, 1.0), (-0.0, 1.0), (-inf, 0.0), (inf, inf), (-1e308, 0.0)),
        "expm1": ((0.0, 0.0), (-0.0, -0.0), (-inf, -1.0), (inf, inf), (-50.0, -1.0), (5e-324, 5e-324)),
        "log": ((1.0, 0.0), (inf, inf), (2.0, 0.6931471805599453)),
        "log1p": ((0.0, 0.0), (-0.0, -0.0), (inf, inf), (5e-324, 5e-324), (-5e-324, -5e-324)),
        "tanh": ((0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (20.0, 1.0), (-20.0, -1.0), (5e-324, 5e-324)),
        "sigmoid": ((0.0, 0.5), (inf, 1.0), (-inf, 0.0), (800.0, 1.0), (-800.0, 0.0), (40.0, 1.0)),
        "softplus": ((inf, inf), (-inf, 0.0), (1e308, 1e308), (800.0, 800.0), (-800.0, 0.0), (0.0, 0.6931471805599453)),
        "sin": ((0.0, 0.0), (-0.0, -0.0), (5e-324, 5e-324), (1e-200, 1e-200)),
        "cos": ((0.0, 1.0), (-0.0, 1.0), (1e-200, 1.0)),
        "erf": ((0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (6.0, 1.0), (-6.0, -1.0)),
        "sinh": ((0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -inf), (5e-324, 5e-324), (-5e-324, -5e-324)),
        "cosh": ((0.0, 1.0), (-0.0, 1.0), (inf, inf), (-inf, inf)),
    }.items():
        for x, y in cases:
            assert bits(of(name)(x)) == bits(y), (name, x)
        assert of(name)(math.nan) != of(name)(math.nan)


@given(x=SIZES)
def test_odd_functions_are_odd(x):
    for name in ("tanh", "sin", "erf", "sinh"):
        assert bits(of(name)(-x)) == bits(-of(name)(x))
    for name in ("cos", "cosh"):
        assert bits(of(name)(-x)) == bits(of(name)(x))


def test_powers_of_whole_numbers_are_exact():
    for x, y in itertools.product(range(-30, 31), range(10)):
        if abs(x**y) < 2**53:
            assert (Value(x) ** y).data == float(x**y)
    assert all((Value(2.0) ** k).data == math.ldexp(1.0, k) for k in range(-1074, 1024))


@given(x=st.floats(allow_nan=False))
def test_small_powers_are_what_they_are(x):
    v = Value(x)
    assert ((v**0).data, (v**1).data) == (1.0, x)
    squared = outcome(lambda: x * x if math.isfinite(x * x) else math.pow(x, 2.0))  # PyPy's x**2 is inf beyond
    assert bits(outcome(lambda: (v**2).data)) == bits(squared)


ENDS = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 3.0, -3.0, 1.5, -1.5, math.inf, -math.inf, math.nan, 1e300, -1e300,
        5e-324, -5e-324, 9007199254740993.0, -9007199254740991.0, 4503599627370495.5]  # fmt: skip


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="PyPy's math.pow(0.0, -inf) raises")
def test_powers_at_the_ends_are_those_of_floats():
    for x, y in itertools.product(ENDS, ENDS):
        try:
            expected = math.pow(x, y)
        except (ValueError, OverflowError) as error:
            with pytest.raises(type(error)):
                tm.pow(x, y)
            continue
        got = tm.pow(x, y)
        assert math.copysign(1.0, got) == math.copysign(1.0, expected) or got != got, (x, y)
        assert bits(got) == bits(expected) or abs(got - expected) <= math.ulp(expected), (x, y)


FAR = [math.ldexp(6381956970095103.0, 797), 1e22, 1.7e308, 2.0**1000, 1647099.5, 1647000.0, -3e6, 710.5, math.pi * 1e5]


@pytest.mark.parametrize("x", FAR)
def test_circular_functions_reduce_huge_arguments(x):
    for name in ("sin", "cos"):
        for at in (x, -x, *(math.ldexp(abs(x), -k) for k in range(1, 60))):
            assert ulps(of(name)(at), exactly(name, at)) <= 1.0, at


# ---- the same bits ----


def rows():
    draw = random.Random(11)
    yield from ([x] for x in (*FAR, *(e for e in ENDS if math.isfinite(e)), -40.0, 25.0, 0.3))
    for _ in range(150):
        yield [draw.choice((-1.0, 1.0)) * 10.0 ** draw.uniform(-20, draw.choice((0.5, 2.8, 9.0)))]


@pytest.mark.parametrize("name", [*sorted(EXACT), "pow"])
def test_values_programs_lanes_and_native_code_have_the_same_bits(name):
    def f(xs):
        x = xs[0]
        return x**1.7 + (x * x) ** x + x**2 if name == "pow" else getattr(x, name)()

    program = record(f, [0.5], on_error="nan")
    xs = [r for r in rows() if name != "pow" or abs(r[0]) < 100.0]

    def one(x):
        v = Value(x)
        try:
            y = f([v])
            y.backward()
        except (ValueError, OverflowError, ZeroDivisionError):
            return math.nan, math.nan
        return y.data, v.grad

    alone = [(bits(y), bits(g[0])) for y, g in map(program.value_and_grad, xs)]
    for x, (y, g) in zip(xs, alone):
        if one(x[0])[0] == one(x[0])[0]:
            assert tuple(map(bits, one(x[0]))) == (y, g), x

    def together(program):
        values, grads = program.map(0).value_and_grad(xs)
        return [(bits(y), bits(g[0])) for y, g in zip(values, grads)]

    assert together(program) == alone
    for direction in ([1.0], [-0.5]):
        one_by_one = [bits(program.hvp(x, direction)[0]) for x in xs]
        assert [bits(h[0]) for h in program.map(0).hvp(xs, [direction] * len(xs))] == one_by_one
    if shutil.which(os.environ.get("CC", "cc").split()[0]) and os.name != "nt":
        program.native()
        assert together(program) == alone
        assert [(bits(y), bits(g[0])) for y, g in map(program.value_and_grad, xs)] == alone


in_tree = pytest.mark.skipif(not (ROOT / "csrc").exists(), reason="an installed package has no csrc")
COMPILERS = [compiler for compiler in ("gcc", "clang") if shutil.which(compiler)]


@in_tree
@pytest.mark.no_handle
@pytest.mark.parametrize("options", ["-O0", "-O1", "-O2", "-O3", "-O0 -march=native", "-O2 -march=native",
                                     "-O3 -march=native", "-O3 -fno-trapping-math -fno-math-errno"])  # fmt: skip
@pytest.mark.parametrize("compiler", COMPILERS)
def test_every_compiler_makes_the_same_bits_of_it(compiler, options, tmp_path):
    made = tmp_path / "elementary"
    source = ROOT / "tests/c/test_elementary.c"
    command = [compiler, "-std=c11", *options.split(), "-ffp-contract=off", f"-I{ROOT / 'csrc'}", str(source)]
    subprocess.run([*command, "-o", str(made), "-lm"], check=True)
    done = subprocess.run([made], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "the same bits\n")


@in_tree
@pytest.mark.no_handle
def test_the_coefficients_are_those_that_the_tool_makes():
    subprocess.run([sys.executable, str(ROOT / "tools/polynomials.py"), "--check"], check=True)
