"""What f can ask of a number while it is recorded: equality, truth, whether an operation refuses: each is a guard."""

from __future__ import annotations

import builtins
import math
import signal
import time
from fractions import Fraction

import pytest
from tapegrad._core import lib

import tapegrad
from tapegrad import BranchChanged, Value, load, record, tape
from tapegrad.program.replay import shown
from tapegrad.program.trace import under_way
from tapegrad.value import handle

HOWS = ("raise", "record")


def logarithm(x):
    try:
        return x.log()
    except ValueError:
        return x * 0


def dead(x):
    try:
        x.log()
        return x * 1
    except ValueError:
        return x * 0


def line_of(f, plus):
    code = f.__code__
    return f"{shown(code.co_filename)}:{code.co_firstlineno + plus}"


@pytest.fixture
def as_numbers():
    handle.as_numbers_by(1)
    yield
    handle.as_numbers_by(-1)


# ---- the examples of the documentation, each way ----


def test_equality_is_a_guard():
    def f(x):
        return 1.0 * x if x == 0 else x * 2

    assert record(f, 0.0, strict=True)(0.0) == 0.0
    with pytest.raises(BranchChanged, match=r"3.0 == 0.0 is False, was True"):
        record(f, 0.0, strict=True)(3.0)
    program = record(f, 0.0, strict=True, on_branch="record")
    assert [program(x) for x in (0.0, 3.0, -0.0, math.nan)][:3] == [0.0, 6.0, 0.0]


def test_truth_is_a_guard():
    def f(w, m):
        return builtins.sum(a**2 for a, k in zip(w, m) if k)

    program = record(f, [1.0, 2.0, 3.0], [1, 0, 1])
    assert program([1.0, 2.0, 3.0], [1, 0, 1]) == 10.0
    with pytest.raises(BranchChanged, match=r"1.0 != 0.0 is True, was False"):
        program([1.0, 2.0, 3.0], [1, 1, 1])
    program = record(f, [1.0, 2.0, 3.0], [1, 0, 1], on_branch="record")
    assert program([1.0, 2.0, 3.0], [1, 1, 1]) == 14.0
    assert program.grad([1.0, 2.0, 3.0], [0, 1, 0]) == [0.0, 4.0, 0.0]


def test_a_refusal_that_was_caught_is_a_guard():
    program = record(logarithm, -1.0, strict=True)
    assert math.copysign(1.0, program(-2.0)) == -1.0
    with pytest.raises(BranchChanged, match=r"log\(2.0\) raises ValueError is False, was True") as caught:
        program(2.0)
    assert (caught.value.operands, caught.value.outcome) == ((2.0, 2.0), False)
    assert str(caught.value).startswith(line_of(logarithm, 2))
    program = record(logarithm, -1.0, strict=True, on_branch="record")
    assert [program(x) for x in (2.0, -1.0, math.inf)] == [math.log(2.0), 0.0, math.inf]
    assert program.stats["paths"] == 2


def test_a_refusal_that_was_not_recorded_asks_f():
    with pytest.raises(ValueError, match=r"log\(-1.0\): math domain error, recorded at"):
        record(logarithm, 2.0)(-1.0)
    program = record(logarithm, 2.0, on_branch="record")
    assert [program(x) for x in (-1.0, 2.0, -3.0, 0.0)] == [0.0, math.log(2.0), 0.0, 0.0]
    assert program.stats["paths"] == 2


def test_a_dead_operation_may_be_what_f_waits_for():
    with pytest.raises(ValueError, match=r"log\(-1.0\): math domain error, recorded at"):
        record(dead, 2.0)(-1.0)
    program = record(dead, 2.0, on_branch="record")
    assert [program(x) for x in (-1.0, 2.0)] == [0.0, 2.0]
    assert [program.grad(x) for x in (-1.0, 2.0)] == [0.0, 1.0]


# ---- equality and truth ----


def test_equality_is_as_of_floats(as_numbers):
    one, two, nan = Value(1.0), Value(2.0), Value(math.nan)
    assert one == 1 and one == Value(1.0) and 1.0 == one and one in [0.5, 1.0] and not one == two
    assert one != 2 and one != two and not one != Value(1.0) and nan != nan and not nan == nan
    assert not (one == "1" or one == None or one == [1.0]) and one != "1" and one != None  # noqa: E711
    assert Value(2.0**53) != 2**53 + 1 and Value(0.1) != tapegrad.value and one != 10**400 and not one == 10**400
    assert bool(one) and not Value(0.0) and not Value(-0.0) and bool(nan)
    assert (one and two) is two and (Value(0.0) or two) is two


def test_hashes_are_of_the_object_always(as_numbers):
    one, other = Value(1.0), Value(1.0)
    assert one == other and len({one, other}) == 2 and {one: 1}[one] == 1 and hash(one) != hash(1.0)


@pytest.mark.parametrize(
    "f", [lambda x: x if x <= Fraction(1, 10) else -x, lambda x: x if 2**53 + 1 > x else -x, lambda x: min(10**400, x)]
)
def test_an_order_with_a_number_between_floats_is_a_guard_as_of_floats(f):
    program = record(f, -1.0, on_branch="record")
    points = [0.1, math.nextafter(0.1, 0.0), 2.0**53, 2.0**53 + 2, 1e300, -math.inf]
    assert [program(x) for x in points] == [f(x) for x in points]


def test_outside_equality_is_identity_and_truth_is_true():
    zero, other = Value(0.0), Value(0.0)
    assert zero == zero and not zero == other and zero != other and zero != 0.0 and not zero == 0.0
    assert bool(zero) and bool(Value(math.nan)) and zero not in [other, 0.0]
    assert record(lambda x: x * 2 if x else x, 0.0)(0.0) == 0.0
    assert bool(zero) and zero != 0.0


def test_an_f_that_raises_leaves_identity_as_it_was():
    with pytest.raises(KeyError):
        record(lambda x: {}[x], 0.0)
    assert bool(Value(0.0)) and Value(0.0) != 0.0


@pytest.mark.skipif(tape.handle == "cffi", reason="it begins and ends in Python, where a signal may come in between")
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer here")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a signal within what Python calls back
def test_an_f_that_is_interrupted_anywhere_leaves_identity_and_the_tape_as_they_were():
    class Interrupted(Exception):
        pass

    def interrupt(*signalled):
        raise Interrupted

    def f(x):
        return x * x if x > 0 else -x

    def go_on():  # a function: what is raised as a loop turns CPython 3.13 takes to be outside a try around it
        until = time.monotonic() + 20
        while time.monotonic() < until:
            tapegrad.grad(f)(2.0)
            record(f, 2.0)
        signal.signal(signal.SIGALRM, interrupt)  # CPython 3.11 looks at last: it may miss what comes after another one
        pytest.fail("the signal was swallowed")

    tapegrad.grad(f)(2.0)  # what is imported late is there
    record(f, 2.0)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for k in range(1500):
            try:
                signal.setitimer(signal.ITIMER_REAL, (1 + k % 300) * 1e-6)
                go_on()
            except Interrupted:
                assert not handle.as_numbers_by(0) and not lib.tg_main.recorders and under_way() is None
    finally:
        signal.signal(signal.SIGALRM, before)
    assert bool(Value(0.0)) and Value(0.0) != 0.0


@pytest.mark.parametrize("f", [
    lambda x, y: x if x == y else y * 2,
    lambda x, y: x if x != y else y * 2,
    lambda x, y: x if not x else y * 2,
    lambda x, y: (x and y) * 3,
    lambda x, y: (x or y) * 3,
    lambda x, y: x if x in (0.0, y, 2.0) else y * 2,
    lambda x, y: x if x != x else y * 2,
    lambda x, y: [0.0, 1.0, 2.0].index(x) * y if x in [0.0, 1.0, 2.0] else y * 1.0,
    lambda x, y: builtins.sum(1.0 for _ in filter(None, [x, y, x - y])) * x,
    lambda x, y: x if any([x, y]) else y - 1,
])  # fmt: skip
def test_every_way_to_ask_gives_what_floats_give(f):
    points = [(a, b) for a in (0.0, 1.0, 2.0, -0.0, math.nan) for b in (0.0, 1.0, math.nan)]
    for start in points[::4]:
        program, strict = record(f, *start, on_branch="record"), record(f, *start)
        for at in points:
            assert repr(program(*at)) == repr(float(f(*at)))
            try:
                assert repr(strict(*at)) == repr(float(f(*at)))
            except BranchChanged:
                pass
        batch = program.map()([a for a, _ in points], [b for _, b in points])
        assert repr(batch) == repr([float(f(*at)) for at in points])


def test_where_of_numpy_asks_elements(np):
    def f(xs):
        return np.sum(np.where(xs == 0, 10.0, xs * 2))

    program = record(f, np.array([0.0, 1.0, 2.0]), on_branch="record")
    assert program(np.array([0.0, 1.0, 2.0])) == 16.0 and program(np.array([3.0, 0.0, 0.0])) == 26.0
    with pytest.raises(BranchChanged):
        record(f, np.array([0.0, 1.0]))(np.array([0.0, 0.0]))


def test_what_numbers_are_never_equal_to_is_no_guard():
    program = record(lambda x: x * 2 if x == "a" or x == 10**400 or x is None else x, 2.0)
    assert program.stats["guards"] == 0 and program(3.0) == 3.0


# ---- refusals ----

REFUSALS = {
    "division": (lambda x: 1 / x, 0.0, 2.0),
    "division of a Value": (lambda x: x / (x - 1), 1.0, 2.0),
    "0 to a negative power": (lambda x: x**-1, 0.0, 2.0),
    "a complex power": (lambda x: x**0.5, -1.0, 2.0),
    "a power of a number": (lambda x: (-2.0) ** x, 0.5, 2.0),
    "a power of a Value": (lambda x: x**x, -0.5, 2.0),
    "a power too large": (lambda x: x**200, 1e10, 2.0),
    "exp": (lambda x: x.exp(), 1000.0, 2.0),
    "sqrt": (lambda x: x.sqrt(), -1.0, 2.0),
    "log of 0": (lambda x: x.log10(), 0.0, 2.0),
    "asin": (lambda x: x.asin(), 2.0, 0.5),
    "sin of inf": (lambda x: x.sin(), math.inf, 0.5),
}


@pytest.mark.parametrize("on_error", ["raise", "nan"])
@pytest.mark.parametrize("name", REFUSALS)
def test_every_kind_of_refusal_is_a_guard_where_it_was_caught(name, on_error, tmp_path):
    operation, there, elsewhere = REFUSALS[name]

    def f(x):
        try:
            return operation(x) * 2
        except (ValueError, ArithmeticError):
            return x * 3 + 1

    program = record(f, there, on_branch="record", on_error=on_error)
    for at in (there, elsewhere, there, math.nan, elsewhere):
        expected = Value(at)
        y = f(expected)
        y.backward()
        assert repr(program.value_and_grad(at)) == repr((y.data, expected.grad))
    program.save(tmp_path / "x")
    again = load(tmp_path / "x")
    rows = [there, elsewhere] * 20
    assert repr(program.map()(rows)) == repr(again.map()(rows)) == repr([program(x) for x in rows])
    assert repr(program.map().grad(rows)) == repr([program.grad(x) for x in rows])
    for at in (there, elsewhere):
        assert repr(again(at)) == repr(program(at))
    with pytest.raises(BranchChanged, match=r"raises \w+ is False"):
        record(f, there, on_error=on_error)(elsewhere)
    if on_error == "raise":
        asked = record(f, elsewhere, on_branch="record")
        assert repr([asked(there), asked(elsewhere)]) == repr([program(there), program(elsewhere)])


def power(x, y):
    try:
        return x**y
    except ZeroDivisionError:
        return x * 0.0 + 7.0


def gamma(x):
    try:
        return tapegrad.math.gamma(x)
    except OverflowError:
        return x * 0.0 + 5.0


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "f, there, error, elsewhere, value",
    [(power, (0.0, -1.0), ValueError, (-1.0, 0.5), 7.0), (power, (0.0, -1.0), OverflowError, (1e200, 3.0), 7.0),
     (gamma, (500.0,), ValueError, (-1.0,), 5.0)],
)  # fmt: skip
def test_an_except_for_one_error_is_none_for_another(f, there, error, elsewhere, value, compiled):
    for on_branch in ("record",) if compiled else HOWS:
        program = record(f, *there, on_branch=on_branch)
        if compiled:
            native = pytest.importorskip("tapegrad.program.native")
            try:
                native.compiler()
            except RuntimeError as failed:
                pytest.skip(str(failed))
            program.native()
        assert program(*there) == value and list(program.map()(*([x] * 2 for x in there))) == [value] * 2
        with pytest.raises(BranchChanged if on_branch == "raise" else error):
            program(*elsewhere)
        with pytest.raises(BranchChanged if on_branch == "raise" else error):
            program.map()(*(list(pair) for pair in zip(there, elsewhere)))


def test_f_without_an_except_raises_as_before():
    program = record(lambda x: 1 / x, 2.0, on_branch="record")
    for call in (program, program.grad, program.hessian):
        with pytest.raises(ZeroDivisionError, match=r"^1.0 / 0.0: division by zero, recorded at .*\.py:\d+$"):
            call(0.0)
    with pytest.raises(ZeroDivisionError, match=r"^1.0 / 0.0: division by zero in row 1, recorded at .*\.py:\d+$"):
        program.map()([1.0, 0.0, 2.0])
    assert program.stats["paths"] == 1


def test_an_except_that_raises_something_else_raises_that():
    def f(x):
        try:
            return x.log()
        except ValueError as error:
            raise KeyError("not positive") from error

    program = record(f, 2.0, on_branch="record")
    for call in (program, lambda x: program.map()([1.0, x])):
        with pytest.raises(KeyError, match="not positive"):
            call(-1.0)


def test_a_refusal_of_constants_is_no_guard():
    def f(x):
        try:
            return x * Value(-1.0).log()
        except ValueError:
            return x * 5

    program = record(f, 1.0)
    assert program.stats["guards"] == 0 and program(2.0) == 10.0


def test_a_loaded_program_says_that_f_is_missing(tmp_path):
    record(logarithm, -1.0, on_branch="record").save(tmp_path / "x")
    with pytest.raises(BranchChanged, match="f, which could be recorded here, is missing: a saved program has none"):
        load(tmp_path / "x")(2.0)


def test_a_changed_branch_says_how_many_rows_it_is_of():
    program = record(lambda x: x * 2 if x > 0 else x, 1.0)
    with pytest.raises(BranchChanged, match=r"is False in row 2, .*3 rows") as caught:
        program.map()([1.0, 2.0, -1.0, -2.0, 3.0, -3.0])
    assert (caught.value.row, caught.value.rows) == (2, 3)


def test_native_code_answers_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("TAPEGRAD_CACHE", str(tmp_path / "cache"))
    for name, (operation, there, elsewhere) in REFUSALS.items():

        def f(x, operation=operation):
            try:
                operation(x)
                return x * 2 if x != 3 else x
            except (ValueError, ArithmeticError):
                return x * 3 + 1 if not x == 7 else x

        rows = ([there, elsewhere, 3.0, 7.0] * 9)[:33]
        program, native = (record(f, there, on_branch="record") for _ in range(2))
        expected = program.map().value_and_grad(rows), [program(x) for x in rows]
        native.map()(rows)
        native.native()
        assert repr((native.map().value_and_grad(rows), [native(x) for x in rows])) == repr(expected), name


# ---- warnings ----


def test_escapes_warn_once_a_line_whatever_the_filter_and_the_path():
    def f(x):
        for _ in range(3):
            (x.data, x.grad, str(x))[0]
            x.grad = 1.0 + x.data
        return x * 2 if x > 0 else x

    with pytest.warns(RuntimeWarning) as caught:
        program = record(f, 1.0, on_branch="record")
        program(-1.0)
    assert [f"{shown(w.filename)}:{w.lineno}" for w in caught] == [line_of(f, 2), line_of(f, 3)]


# ---- the tape ----


def test_recordings_leave_the_tape_flat(swept, settle):
    def f(x):
        for k in range(50):
            logarithm(x - k)
            x * k
            if x == k:
                x = x + 1
        return x

    record(f, 10.0)
    settle()
    before = len(tapegrad.tape)
    for _ in range(100):
        record(f, 10.0)
        with pytest.raises(KeyError):
            record(lambda x: {}[x.exp()], 1.0)
    settle()
    tapegrad.tape.collect()
    assert len(tapegrad.tape) == before
