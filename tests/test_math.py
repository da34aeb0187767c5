"""`tapegrad.math` and `tapegrad.special`: the numbers and errors of `math` and SciPy, slopes against mpmath."""

from __future__ import annotations

import inspect
import math
import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tapegrad
from tapegrad import BranchChanged, Value, record, special
from tapegrad import math as tm

NASTY = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 710.0, -750.0, 1e200, -1e308, 5e-324, math.inf, -math.inf, math.nan]
UNARY = dict.fromkeys(
    (
        "atan", "cbrt", "cos", "cosh", "degrees", "erf", "erfc", "exp", "exp2", "expm1", "fabs", "radians", "sin",
        "sinh", "tan", "tanh", "asinh", "gamma", "lgamma",
    ),
    (-3.5, -0.7, -0.01, 0.3, 1.0, 4.0, 20.5),
)  # fmt: skip
UNARY.update(dict.fromkeys(("log", "log2", "log10", "log1p", "sqrt"), (1e-300, 0.3, 1.0, 2.5, 1e300)))
UNARY.update(dict.fromkeys(("acos", "asin", "atanh"), (-0.9, -1e-3, 0.2, 0.99)), acosh=(1.0, 1.3, 1e300))
BINARY = ("atan2", "copysign", "fmod", "remainder", "pow", "hypot")
SPECIAL = {
    **dict.fromkeys(("ndtr", "log_ndtr", "expit", "log_expit", "erf", "erfc"), (-30.0, -2.5, -0.3, 0.0, 1.7, 8.0)),
    **dict.fromkeys(("ndtri", "logit"), (1e-300, 1e-10, 0.02, 0.3, 0.4999, 0.5, 0.7, 1 - 1e-12)),
    **dict.fromkeys(("digamma", "gammaln", "gamma"), (1e-8, 0.3, 1.4616, 1.5, 9.99, 10.0, 150.5, -0.3, -7.6)),
}
ULPS = {"gamma": 12, "lgamma": 12, "tanh": 4, "hypot": 2}  # CPython has gamma of its own, we have tanh


def outcome(f, *args):
    """The number, or the class of what is raised."""
    try:
        y = f(*args)
    except (ArithmeticError, ValueError) as error:
        return type(error)
    return y.data if isinstance(y, Value) else y


def same_bits(x, y):
    return x is y if isinstance(x, type) or isinstance(y, type) else (x == y and math.copysign(1, x) == math.copysign(
        1, y
    )) or (math.isnan(x) and math.isnan(y))


def near(x, y, ulps=2, least=0.0):
    if isinstance(x, type) or isinstance(y, type) or not math.isfinite(y):
        return same_bits(x, y)
    return abs(x - y) <= ulps * math.ulp(max(abs(y), least))


def test_it_has_all_that_math_has():
    """fma needs more than the table has."""
    known = {name for name in dir(math) if not name.startswith("_")}
    later = {"fma", "fmax", "fmin", "isnormal", "issubnormal", "signbit", "integer"}  # of 3.13 and later
    assert known - later <= set(tm.__all__) == {name for name in dir(tm) if not name.startswith("_")} - {
        "Any", "Iterable", "annotations",
    }  # fmt: skip


def test_every_name_has_a_docstring():
    for module in (tm, special):
        functions = [getattr(module, name) for name in module.__all__ if callable(getattr(module, name))]
        assert all(function.__doc__ for function in functions)


@pytest.mark.parametrize("name", sorted(UNARY))
def test_a_float_gives_what_math_gives_and_a_value_the_same_bits(name):
    reference = getattr(math, name, None)
    for x in (*UNARY[name], *NASTY):
        got = outcome(getattr(tm, name), x)
        assert same_bits(outcome(getattr(tm, name), Value(x)), got), x
        if reference is not None:
            expected = outcome(reference, x)
            least = 1.0 if name == "lgamma" else 0.0  # near its zeros below 0 CPython's has few digits
            assert near(got, expected, ULPS.get(name, 2), least), (x, got, expected)
        assert type(got) in (float, type)


@pytest.mark.parametrize("name", BINARY)
def test_of_two_operands_too_whichever_is_a_value(name):
    f = getattr(tm, name)
    for x in (0.3, -2.5, 7.0, *NASTY):
        for y in (0.3, -2.5, 3.0, *NASTY):
            got = outcome(f, x, y)
            assert near(got, outcome(getattr(math, name), x, y)), (x, y, got)
            for operands in ((Value(x), y), (x, Value(y)), (Value(x), Value(y))):
                assert same_bits(outcome(f, *operands), got), (x, y)


@pytest.mark.parametrize("x", [3, True, 0.5, "0.5", None, 1j, [1.0]])
def test_what_is_a_number_is_what_math_says(x):
    def kind(f):
        try:
            return f(x)
        except TypeError:
            return TypeError

    expected = kind(math.exp)
    assert kind(tm.exp) == (expected if expected is TypeError else pytest.approx(expected, rel=3e-16))
    assert kind(tm.floor) == kind(math.floor)


def test_text_of_numpy_is_no_number_either(np):
    for text in np.str_("1.5"), np.bytes_(b"1.5"):
        with pytest.raises(TypeError, match="must be real number, not"):
            tm.exp(text)


def test_signatures_are_those_of_math():
    assert [str(p) for p in inspect.signature(tm.isclose).parameters.values()][2:] == [
        "rel_tol: 'float' = 1e-09", "abs_tol: 'float' = 0.0",
    ]  # fmt: skip
    assert math.isclose(tm.log(8, 2), 3.0) and tm.log(10**400) == math.log(10**400)
    assert tm.log2(2**2000) == 2000.0 and tm.log10(10**400) == 400.0
    for f, args in ((tm.exp, ()), (tm.exp, (1.0, 2.0)), (tm.log, (1.0, 2.0, 3.0)), (tm.atan2, (1.0,))):
        with pytest.raises(TypeError):
            f(*args)


def test_whole_numbers_are_ints_of_floats_and_values_without_slope_of_values():
    for name in ("floor", "ceil", "trunc"):
        for x in (-2.5, -0.5, 0.0, 3.7, 1e17):
            v = Value(x)
            y = getattr(tm, name)(v)
            (y + v).backward()
            expected = getattr(math, name)(x)
            assert (getattr(tm, name)(x), type(getattr(tm, name)(x))) == (expected, int)
            assert (y.data, v.grad, getattr(math, name)(v).data) == (expected, 1.0, expected)


@given(st.floats(-1e20, 1e20), st.integers(-3, 12))
def test_round_is_that_of_floats(x, digits):
    v = Value(x)
    assert round(v).data == round(x)
    assert same_bits(round(v, digits).data, round(x, digits))


@pytest.mark.parametrize("x", [0.5, 1.5, 2.5, -0.5, 2.675, 1.005, 0.285, 1.115, 1e22, 0.15, 5e-324, 123456789.125])
def test_round_decides_ties_by_the_number_itself(x):
    for digits in (None, *range(-3, 20)):
        assert round(Value(x), digits).data == round(x, digits)


def test_round_refuses_more_digits_than_it_can_do():
    with pytest.raises(ValueError, match="-22 to 22"):
        round(Value(1.5), 23)


@given(st.floats(-1e6, 1e6), st.floats(-1e3, 1e3))
def test_remainders_are_those_of_floats(x, y):
    for f in (lambda a, b: a % b, lambda a, b: a // b):
        expected = outcome(f, x, y)
        assert all(same_bits(outcome(f, *both), expected) for both in ((Value(x), y), (x, Value(y))))
    if y:
        assert [part.data for part in divmod(Value(x), y)] == list(divmod(x, y))
        assert [part.data for part in divmod(x, Value(y))] == list(divmod(x, y))


def test_remainders_have_the_slopes_of_the_line_that_they_are_on():
    for f in (lambda a, b: a % b, tm.fmod, tm.remainder):
        v, w = Value(-7.25), Value(2.0)
        f(v, w).backward()
        assert v.grad == 1.0 and w.grad == pytest.approx(f(-7.25, 2.0 + 2**-20) * 2**20 - f(-7.25, 2.0) * 2**20)


def test_a_remainder_of_something_else_is_a_type_error():
    for f in (lambda v: v % "s", lambda v: v // None, lambda v: divmod(v, "s"), lambda v: divmod("s", v)):
        with pytest.raises(TypeError):
            f(Value(1.0))


def test_a_value_is_its_own_real_part():
    v = Value(2.0)
    assert v.real is v is v.conjugate() and v.imag == 0.0


def test_of_many():
    xs = [0.1, -2.5, 7.0, 1e-9]
    vs = tapegrad.leaves(xs)
    for got, plain, reference in (
        (tm.hypot(*vs), tm.hypot(*xs), math.hypot(*xs)),
        (tm.dist(vs, xs[::-1]), tm.dist(xs, xs[::-1]), math.dist(xs, xs[::-1])),
        (tm.prod(vs), tm.prod(xs), math.prod(xs)),
        (tm.prod(vs, start=2.0), tm.prod(xs, start=2.0), math.prod(xs, start=2.0)),
        (tm.fsum(vs), tm.fsum(xs), math.fsum(xs)),
        (tm.sumprod(vs, xs), tm.sumprod(xs, xs), math.fsum(x * x for x in xs)),
    ):
        assert got.data == plain and near(plain, reference)
    assert (tm.hypot(), tm.hypot(-2), tm.prod([]), tm.prod([2, 3]), tm.fsum([]), tm.sumprod([2], [3])) == (
        0.0, 2.0, 1, 6, 0.0, 6,
    )  # fmt: skip
    for f in (tm.dist, tm.sumprod):
        with pytest.raises(ValueError):
            f([1.0], [1.0, 2.0])


@given(st.lists(st.floats(-1e100, 1e100), max_size=20))
def test_fsum_is_rounded_once(xs):
    xs += [-x for x in xs[::2]] + [1e16, 1.0, -1e16]
    assert tm.fsum(xs) == tm.fsum(map(Value, xs)).data
    lost = len(xs) ** 2 * 2.0**-159 * math.fsum(map(abs, xs))
    assert math.isclose(tm.fsum(xs), math.fsum(xs), rel_tol=3e-16, abs_tol=lost)


@pytest.mark.parametrize("xs", [[1e308, 1e308], [math.inf, -math.inf], [math.inf, 1.0], [math.nan, 1.0]])
def test_fsum_refuses_what_math_refuses(xs):
    assert same_bits(outcome(tm.fsum, xs), outcome(math.fsum, xs))
    assert same_bits(outcome(tm.fsum, [Value(x) for x in xs]), outcome(math.fsum, xs))


@given(st.lists(st.sampled_from([1.0, -2.5, 1e308, -1e308, math.inf, -math.inf, math.nan]), min_size=2, max_size=7))
def test_fsum_refuses_in_programs_what_it_refuses_on_numbers(xs):
    """One row, rows in lanes, side by side in one program, in a loop, from a file; and f may have an except for it."""
    n = len(xs)
    expected = outcome(math.fsum, xs)

    def many(x):
        return tapegrad.sum([tm.fsum([v * 2.0**-k for v in x]) for k in range(12)])

    def caught(x):
        try:
            return tm.fsum(x) * 2.0
        except OverflowError:
            return x[0] * 0.0 + 1.0
        except ValueError:
            return x[0] * 0.0 + 2.0

    program = record(tm.fsum, [1.0] * n)
    assert same_bits(outcome(tm.fsum, xs), expected) and same_bits(outcome(tm.fsum, [*map(Value, xs)]), expected)
    for p in program, pickle.loads(pickle.dumps(program)):
        assert same_bits(outcome(p, xs), expected)
    assert same_bits(outcome(lambda: record(many, [1.0] * n)(xs)), outcome(lambda: many([*map(Value, xs)])))
    assert same_bits(outcome(lambda: program.map()([[1.0] * n] * 3 + [xs])[3]), expected)
    loop = record(lambda s, x: s * 0.0 + tm.fsum(x), 0.0, [1.0] * n).scan()
    assert same_bits(outcome(lambda: loop(0.0, [[1.0] * n, xs])[0]), expected)
    nan = record(tm.fsum, [1.0] * n, on_error="nan")(xs)
    assert same_bits(nan, math.nan if isinstance(expected, type) else expected)
    branching, from_there = record(caught, [1.0] * n, on_branch="record"), record(caught, xs, on_branch="record")
    answer = {OverflowError: 1.0, ValueError: 2.0}.get(expected, expected)
    if not isinstance(expected, type):
        answer *= 2.0
    elif not math.isfinite(xs[0]):
        answer = math.nan
    for p in branching, from_there:
        assert same_bits(p(xs), answer)
        assert p([1.0] * n) == 2.0 * n


def test_fsum_that_is_refused_in_a_program_names_the_terms_the_line_and_the_row():
    program = record(lambda x: tm.fsum(x), [1.0] * 3)
    with pytest.raises(ValueError, match=r"^fsum of inf and -inf: math domain error, recorded at .*:\d+$"):
        program([math.inf, 1.0, -math.inf])
    says = r"^fsum of 1e\+308 and 1e\+308: result too large for a float in row 1, recorded at"
    with pytest.raises(OverflowError, match=says):
        program.map()([[1.0] * 3, [1e308, 1e308, -math.inf]])


def test_fsum_passes_one_to_each():
    xs = tapegrad.leaves([1e16, 1.0, -1e16])
    y = tm.fsum(xs)
    y.backward()
    assert (y.data, [x.grad for x in xs]) == (1.0, [1.0, 1.0, 1.0])


def test_ldexp_rounds_once():
    x = -6.7122642678716506e-09
    assert [tm.ldexp(Value(x), k).data for k in range(-1060, -990)] == [math.ldexp(x, k) for k in range(-1060, -990)]


def test_ldexp_too_large_is_refused_in_programs_too():
    def caught(x):
        try:
            return tm.ldexp(x, 3)
        except OverflowError:
            return x * 0.5

    for f in (lambda x: tm.ldexp(x, 3), lambda x: tm.ldexp(x, 2000)):
        with pytest.raises(BranchChanged):
            record(f, 5e-324)(1e308)
        program = record(f, 5e-324, on_branch="record")
        for x in (1e308, -1e308):
            with pytest.raises(OverflowError):
                program(x)
            with pytest.raises(OverflowError, match="row 1"):
                program.map()([0.0, x])
        assert program(math.inf) == math.inf
    program = record(caught, 1.0, on_branch="record")
    assert list(program.map()([1.0, 1e308])) == [8.0, 5e307]
    assert record(lambda x: tm.ldexp(x, -3), 1.0).stats["guards"] == 0


@pytest.mark.parametrize("x", [0.0, -2.5, 1e300, 5e-324, math.inf, -math.inf, math.nan])
def test_parts_of_numbers(x):
    for f in (tm.modf, tm.frexp):
        parts = f(Value(x))
        expected = f(x)
        assert same_bits(parts[0].data, expected[0])
        assert same_bits(float(getattr(parts[1], "data", parts[1])), float(expected[1]))
    for k in (-5, 0, 900, -2100, 3000):
        assert same_bits(outcome(tm.ldexp, Value(x), k), outcome(math.ldexp, x, k))
    for name in ("isfinite", "isinf", "isnan"):
        assert getattr(tm, name)(Value(x)) is getattr(tm, name)(x) is getattr(math, name)(x)


@pytest.mark.parametrize("b", [2.0, -0.5])
def test_a_length_bends_where_one_of_its_coordinates_is_zero(b):
    for f in (lambda a: tm.hypot(a, b), lambda a: tm.hypot(b, a), lambda a: tm.dist((1.0, b), (1.0 + a, 0.0))):
        assert tapegrad.hessian(f)(0.0) == record(f, 1.0).hessian(0.0) == 1 / abs(b)
    assert tm.hypot(-3) == 3.0 == tm.hypot(Value(-3.0)).data and tm.hypot() == 0.0


@pytest.mark.parametrize("x", [0.0, -0.0, -2.5, 2.0, -2.0, 1e300, 5e-324])
def test_a_fraction_moves_with_its_number_whole_or_not(x):
    assert tapegrad.grad(lambda v: tm.modf(v)[0])(x) == record(lambda v: tm.modf(v)[0], 0.5).grad(x) == 1.0


@pytest.mark.parametrize("a", [1.0, -3e-200, 2e-160, 5e170, -1e300, 0.0])
@pytest.mark.parametrize("b", [1.0, 1e-200, -3e-160, 5e160, 1e300])
def test_slopes_of_an_angle_are_in_range_where_squares_are_not(a, b):
    mp = pytest.importorskip("mpmath")
    first, second = tapegrad.grad(lambda x: tm.atan2(*x)), record(lambda x: tm.atan2(*x), [1.0, 1.0]).hessian
    square = mp.mpf(a) ** 2 + mp.mpf(b) ** 2
    spin, turn = -2 * mp.mpf(a) * b / square**2, (mp.mpf(a) ** 2 - mp.mpf(b) ** 2) / square**2
    got = [*first([a, b]), *(x for row in second([a, b]) for x in row)]
    for k, (number, exact) in enumerate(zip(got, [b / square, -a / square, spin, turn, turn, -spin])):
        if abs(exact) < 1e-300:
            assert abs(number) < 1e-290, k
        else:
            assert number == pytest.approx(float(exact), rel=3e-15, abs=0.0), k


@given(st.floats(allow_nan=True), st.floats(allow_nan=True), st.sampled_from([0.0, 1e-9, 0.5]))
def test_isclose_is_that_of_math(a, b, tolerance):
    for x in (b, a * (1 + 1e-10), a):
        expected = math.isclose(a, x, rel_tol=tolerance, abs_tol=tolerance)
        for both in ((Value(a), x), (a, Value(x)), (a, x)):
            assert tm.isclose(*both, rel_tol=tolerance, abs_tol=tolerance) is expected


def test_a_script_with_this_math_is_differentiable():
    def f(x, math):
        return math.exp(-math.pow(x, 2) / 2) / math.sqrt(2 * math.pi) + math.log(x, 3) * math.erfc(x)

    v = Value(0.75)
    f(v, tm).backward()
    assert f(v, tm).data == f(0.75, tm) == pytest.approx(f(0.75, math), rel=1e-15)
    assert v.grad == pytest.approx((f(0.75 + 1e-6, math) - f(0.75 - 1e-6, math)) / 2e-6, rel=1e-8)


# ---- special ----


@pytest.mark.parametrize("name", sorted(SPECIAL))
def test_special_floats_are_scipys_and_values_have_the_same_bits(name):
    scipy = pytest.importorskip("scipy.special") if name != "gamma" else None
    f = getattr(special, name)
    for x in SPECIAL[name]:
        got = f(x)
        assert f(Value(x)).data == got
        if scipy is not None:
            assert got == pytest.approx(float(getattr(scipy, name)(x)), rel=2e-13, abs=1e-300)
    for x in NASTY:
        assert same_bits(outcome(f, Value(x)), outcome(f, x))


def precisely(f):
    """A number that mpmath computes in sixty digits."""
    mp = pytest.importorskip("mpmath")
    with mp.workdps(60):
        return float(f(mp))


@pytest.mark.parametrize(
    ("f", "exact", "pairs"),
    [
        (
            special.xlogy,
            lambda mp, a, b: a * mp.log(b) if a else 0,
            [(0.0, 0.0), (0.0, 3.0), (2.0, 3.0), (-1.5, 1e-300)],
        ),
        (
            special.betaln,
            lambda mp, a, b: mp.re(mp.loggamma(a) + mp.loggamma(b) - mp.loggamma(mp.mpf(a) + b)),
            [(0.3, 0.4), (5.0, 3.0), (0.01, 1e6), (30.0, 40.0), (1e10, 1.0), (1e10, 2e10), (-0.5, 1e10), (1e6, -20.3)],
        ),
        (
            special.logaddexp,
            lambda mp, a, b: max(a, b) if math.isinf(b) else max(a, b) + mp.log1p(mp.exp(-abs(a - b))),
            [(0.0, -40.0), (1e300, 1e300), (-math.inf, -math.inf), (3.0, -math.inf), (0.3, 0.4)],
        ),
        (
            lambda x, n: special.polygamma(int(n), x),
            lambda mp, x, n: mp.psi(int(n), x),
            [(0.3, 0.0), (2.5, 1.0), (-0.3, 2.0), (7.5, 9.0), (-100.5, 2.0), (-0.5, 50.0), (-20.5, 6.0), (-1.4, 5.0),
             (1e155, 1.0), (1e300, 1.0), (1e100, 2.0), (1e7, 50.0), (3e6, 50.0)],
        ),
    ],
)
def test_special_functions_of_two(f, exact, pairs):
    for a, b in pairs:
        expected = precisely(lambda mp, a=a, b=b: exact(mp, a, b))
        assert f(Value(a), b).data == f(a, b) == pytest.approx(expected, rel=1e-13, abs=0)


REFUSED = [
    (special.ndtri, (0.0,)), (special.ndtri, (1.0,)), (special.ndtri, (-0.5,)), (special.logit, (0.0,)),
    (special.logit, (1.5,)), (special.digamma, (0.0,)), (special.digamma, (-3.0,)), (special.gammaln, (-2.0,)),
    (special.xlogy, (1.0, 0.0)), (special.xlogy, (1.0, -2.0)), (special.betaln, (0.0, 1.0)),
    (special.polygamma, (-1, 2.0)), (special.polygamma, (101, 2.0)), (special.gamma, (-1.0,)),
]  # fmt: skip


@pytest.mark.parametrize(("f", "args"), REFUSED)
def test_what_special_refuses(f, args):
    with pytest.raises(ValueError, match="domain error"):
        f(*args)
    with pytest.raises(ValueError, match="domain error"):
        f(*args[:-1], Value(args[-1]))


@pytest.mark.parametrize(
    ("f", "at", "slopes"),
    [
        (tm.sqrt, (0.0,), [math.inf]), (tm.asin, (-1.0,), [math.inf]), (tm.acos, (1.0,), [-math.inf]),
        (tm.hypot, (0.0, 0.0), [0.0, 0.0]), (tm.atan2, (0.0, 0.0), [math.nan, math.nan]),
        (tm.pow, (0.0, 0.0), [0.0, 0.0]), (tm.pow, (0.0, 1.0), [1.0, 0.0]), (tm.pow, (2.0, 0.0), [0.0, math.log(2.0)]),
        (special.xlogy, (0.0, 0.0), [-math.inf, 0.0]), (tm.fmod, (-6.0, 2.0), [1.0, 3.0]),
        (tm.remainder, (5.0, 2.0), [1.0, -2.0]), (Value.__mod__, (-7.0, 2.0), [1.0, 4.0]),
        (tm.copysign, (0.0, -1.0), [0.0, 0.0]), (tapegrad.maximum, (3.0, 3.0), [0.5, 0.5]),
        (tapegrad.minimum, (0.0, -0.0), [0.5, 0.5]),
    ],
)  # fmt: skip
def test_slopes_in_corners_are_what_the_manual_says(f, at, slopes):
    x = [Value(k) for k in at]
    f(*x).backward()
    assert all(map(same_bits, tapegrad.grads(x), slopes))
    assert all(map(same_bits, record(lambda x: f(*x), list(at)).grad(list(at)), slopes))


def test_the_order_of_a_polygamma_is_a_number():
    with pytest.raises(TypeError, match="order"):
        Value(1.0).polygamma(Value(1.0))
    with pytest.raises(TypeError):
        special.polygamma(Value(1.0), 1.0)
    with pytest.raises(TypeError, match="order"):
        Value(1.0).polygamma("1")


def phi(mp, x):
    return mp.erfc(-x / mp.sqrt(2)) / 2


def quantile(mp, p):
    """Newton's method on log(phi) from what is tested."""
    y = mp.mpf(special.ndtri(float(p)))
    for _ in range(5):
        y -= (mp.log(phi(mp, y)) - mp.log(p)) * phi(mp, y) / mp.npdf(y)
    return y


EXACT = {
    "ndtr": phi,
    "log_ndtr": lambda mp, x: mp.log(phi(mp, x)) if x < 0 else mp.log1p(-phi(mp, -x)),
    "ndtri": quantile,
    "logit": lambda mp, p: mp.log(p / (1 - p)),
    "expit": lambda mp, x: 1 / (1 + mp.exp(-x)),
    "log_expit": lambda mp, x: -mp.log1p(mp.exp(-x)),
    "erfc": lambda mp, x: mp.erfc(x),
    "erf": lambda mp, x: mp.erf(x),
    "digamma": lambda mp, x: mp.psi(0, x),
    "gammaln": lambda mp, x: mp.log(abs(mp.gamma(x))),
    "gamma": lambda mp, x: mp.gamma(x),
    "asinh": lambda mp, x: mp.asinh(x),
    "acosh": lambda mp, x: mp.acosh(x),
    "atanh": lambda mp, x: mp.atanh(x),
    "cbrt": lambda mp, x: mp.sign(x) * mp.cbrt(abs(x)),
    "exp2": lambda mp, x: mp.mpf(2) ** x,
}
POINTS = {**SPECIAL, "asinh": (-30.0, -1e-3, 0.7), "acosh": (1.01, 2.0, 30.0), "atanh": (-0.9, 1e-3, 0.99),
          "cbrt": (-8.3, 1e-3, 70.0), "exp2": (-3.5, 0.1, 30.0)}  # fmt: skip


@pytest.mark.parametrize("name", sorted(EXACT))
def test_first_and_second_derivatives_are_mpmaths(name):
    """Of a recorded sweep too, whose slopes are rows of the table."""
    mp = pytest.importorskip("mpmath")
    f = getattr(special, name, None) or getattr(tm, name)
    program = record(f, POINTS[name][-1], on_error="nan")
    slope = record(lambda x: tapegrad.grad(f)(x), POINTS[name][-1], on_error="nan")
    for x in POINTS[name]:
        with mp.workdps(400):
            at = mp.mpf(x)
            h = at * mp.mpf(10) ** -60 if x else mp.mpf(10) ** -60
            below, middle, above = (EXACT[name](mp, at + k * h) for k in (-1, 0, 1))
            exact = [float(middle), float((above - below) / (2 * h)), float((above - 2 * middle + below) / h**2)]
        got = [f(x), program.grad(x), program.hessian(x), slope(x), slope.grad(x)]
        for k, (number, expected) in enumerate(zip(got, [*exact, *exact[1:]])):
            if abs(expected) > 1e-290 and math.isfinite(expected):
                far = k == 4  # a slope of a slope is a slope of rows, which have not all digits far out
                rel, least = (1e-11, 1e-14) if far else (1e-13, 1e-16)
                assert number == pytest.approx(expected, rel=rel, abs=least), (x, k)


SMOOTH = {**{name: getattr(special, name) for name in SPECIAL}, **{name: getattr(tm, name) for name in UNARY}}


@pytest.mark.parametrize("name", sorted(SMOOTH))
def test_programs_and_lanes_have_the_bits_of_values(name):
    f = SMOOTH[name]
    points = [*SPECIAL.get(name, ()), *UNARY.get(name, ())]
    program = record(f, points[0], on_error="nan")
    values, grads = [], []
    for x in points:
        v = Value(x)
        y = f(v)
        y.backward()
        values.append(y.data)
        grads.append(v.grad)
    assert [program(x) for x in points] == values == list(program.map()(points))
    assert [program.grad(x) for x in points] == grads == list(program.map().grad(points))


def test_native_code_has_the_bits_of_values():
    native = pytest.importorskip("tapegrad.program.native")
    try:
        native.compiler()
    except RuntimeError as error:
        pytest.skip(str(error))

    def f(x, y):
        z = tapegrad.where(tapegrad.less(x, 0.5), special.log_ndtr(x), special.digamma(y))
        w = tm.fsum([z, x % 0.3, y // 0.7, tm.remainder(x, y), special.ndtri(special.expit(x)), round(y, 1)])
        return tapegrad.clip(w, -3.0, 3.0) + special.polygamma(2, y) * tm.hypot(x, y, z)

    draw = random.Random(5)
    rows = [(draw.uniform(-2, 2), draw.uniform(0.1, 5)) for _ in range(40)]
    program = record(f, *rows[0])
    fast = record(f, *rows[0]).native()
    columns = [list(column) for column in zip(*rows)]
    values = [f(Value(x), Value(y)).data for x, y in rows]
    assert values == [f(x, y) for x, y in rows]
    assert values == list(program.map()(*columns)) == list(fast.map()(*columns)) == [fast(*row) for row in rows]
    slopes = [[list(column) for column in p.map().grad(*columns, argnums=(0, 1))] for p in (program, fast)]
    assert slopes[0] == slopes[1]


def test_recorded_sweeps_of_programs_are_their_slopes():
    def f(x, y):
        z = tm.lgamma(x) * special.ndtr(y) + special.logaddexp(x, y) * special.xlogy(y, x)
        z = z + special.betaln(x, y) + tm.atanh(y / 9) + tm.acosh(x + 1)
        return z + tm.asinh(y) + tm.cbrt(x) * tm.copysign(y, -x)

    point = (1.3, 2.4)
    recorded = record(lambda x, y: tapegrad.grad(f, argnums=(0, 1))(x, y), *point)(*point)
    program = record(f, *point)
    assert list(recorded) == pytest.approx(list(program.grad(*point, argnums=(0, 1))), rel=1e-13)
    tapegrad.check_grads(f, *point)


def test_numpy_finds_the_methods(np):
    data = [[1.5, -2.0, 4.25], [0.5, 3.0, -7.0]]
    numbers = np.array(data)
    values = np.array([[Value(x) for x in row] for row in data])
    for f in (
        np.std, np.var, np.mean, np.floor, np.ceil, np.trunc, np.rint, np.sign, np.cbrt, np.conjugate, np.arcsinh,
        lambda x: np.linalg.norm(x, axis=1), lambda x: np.remainder(x, 2), lambda x: np.fmod(x, 2), lambda x: x % 2,
        lambda x: x // 2, lambda x: np.std(x, axis=0), lambda x: np.round(x),
    ):  # fmt: skip
        got = np.asarray(f(values), dtype=object).ravel()
        assert [float(getattr(v, "data", v)) for v in got] == pytest.approx(np.asarray(f(numbers)).ravel().tolist())
    assert tapegrad.data(special.ndtr(values)).tolist() == [[special.ndtr(x) for x in row] for row in data]


def test_the_star_replaces_no_builtin():
    names = {}
    exec("from tapegrad import *", names)
    import builtins

    assert not {"math", *dir(builtins)} & (names.keys() - {"__builtins__", "__name__", "__doc__"})
    assert tapegrad.sum([1.0, 2.0]).data == 3.0


@pytest.mark.parametrize("n", [3, 200])
def test_fsum_in_programs_lanes_and_native_code(n):
    """Unrolled and as a loop."""
    native = pytest.importorskip("tapegrad.program.native")
    try:
        native.compiler()
    except RuntimeError as error:
        pytest.skip(str(error))
    draw = random.Random(n)
    rows = [[draw.gauss(0, 10.0 ** draw.randint(-20, 20)) for _ in range(n)] for _ in range(20)]
    program, fast = record(tm.fsum, rows[0]), record(tm.fsum, rows[0]).native()
    exact = [math.fsum(row) for row in rows]
    assert [program(row) for row in rows] == [fast(row) for row in rows] == exact
    assert list(program.map()(rows)) == list(fast.map()(rows)) == exact
    assert fast.grad(rows[0]) == program.grad(rows[0]) == [1.0] * n
    for xs, error in ([math.inf, -math.inf], ValueError), ([1e308, 1e308], OverflowError):
        bad = [*xs, *rows[0][2:]]
        assert outcome(fast, bad) == outcome(program, bad) == outcome(fast.map(), [rows[0], bad]) == error
