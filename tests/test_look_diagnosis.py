"""Who made the nan: the origin is named, from the bad result back, and nothing that did no harm."""

from __future__ import annotations

import linecache
import math
import pathlib
import pickle
import random

import pytest

import tapegrad
from tapegrad import NonFinite, Program, Value, check_grads, debug, grad, gradient, record

INF, NAN = math.inf, math.nan
HERE = pathlib.Path(__file__).name


def diagnosed(f, *args, **options):
    return record(f, *args, on_error="nan").diagnose(*args, **options)


def line_of(found):
    return linecache.getline(found.filename, found.lineno).strip()


# ---- what other tools blame a wrong line for ----


def test_a_nan_in_the_forward_pass_alone_is_found_though_no_derivative_is_bad():
    """An overflow that cancels: the derivative is 0 or finite everywhere, the value is nan."""

    def f(x):
        big = x * 1e308 * 10.0
        other = x * 2.0
        return (big - big) + other

    found = diagnosed(f, 1.0)
    assert (found.what, found.operation, found.value) == ("value", "mul", INF) and math.isnan(found.result)
    assert line_of(found) == "big = x * 1e308 * 10.0"


def test_a_nan_that_never_reaches_the_result_is_not_reported():
    def unused(x):
        bad = (x - 2.0).sqrt()
        return x * 3.0 + (bad * 0.0).max(-1e300).min(-1e300)

    def saturated(x):
        return (x * 1e308 * 10.0).tanh() + x

    def not_chosen(x):
        return (x * 3.0).max(x * -1e308 * 10.0)

    assert all(record(f, 3.0, on_error="nan").diagnose(3.0) is None for f in (unused, saturated, not_chosen))


def test_a_slope_of_the_root_in_a_norm_whose_value_is_fine():
    def norm(x, y):
        squares = x * x + y * y
        length = squares.sqrt()
        return length * 2.0

    found = diagnosed(norm, 0.0, 0.0)
    assert (found.what, found.operation, found.partial, found.adjoint) == ("adjoint", "sqrt", INF, 2.0)
    assert line_of(found) == "length = squares.sqrt()" and found.operands == (0.0,) and found.input == "x"
    assert math.isnan(found.result) and [linecache.getline(*p).strip() for p in found.way] == [
        "length = squares.sqrt()", "squares = x * x + y * y",
    ]  # fmt: skip


# ---- each operation that can ----

VALUES = [  # an expression of x and y, both finite, the operation that is to blame, and what it gives
    ("x.log() * y", (0.0, 1.0), "log", None),
    ("x.log() + y", (-1.0, 1.0), "log", None),
    ("(x * y).log2()", (-1.0, 1.0), "log2", None),
    ("x.log10() - y", (0.0, 2.0), "log10", None),
    ("(x + y).log1p()", (-2.0, 1.0), "log1p", None),
    ("x.sqrt() + y", (-4.0, 1.0), "sqrt", NAN),
    ("(x * 1.5).asin() + y", (1.0, 0.1), "asin", NAN),
    ("x.acos() * y", (-2.0, 1.0), "acos", NAN),
    ("x / y", (1.0, 0.0), "truediv", NAN),
    ("1.0 + y / (x - 1.0)", (1.0, 0.0), "truediv", NAN),
    ("x.exp() * y", (1000.0, 0.0), "exp", NAN),
    ("x.expm1() + y", (800.0, 0.0), "expm1", NAN),
    ("x.sinh() + y", (800.0, 0.0), "sinh", NAN),
    ("(x * 2.0).cosh() + y", (500.0, 0.0), "cosh", NAN),
    ("x ** y", (0.0, -1.0), "pow", NAN),
    ("x ** 0.5 + y", (-1.0, 0.0), "pow", NAN),
    ("x ** -2 + y", (0.0, 0.0), "pow", NAN),
    ("x ** 400 + y", (10.0, 0.0), "pow", NAN),
    ("x * y + 1.0", (1e200, 1e200), "dot", INF),
    ("x * y", (1e200, 1e200), "mul", INF),
    ("x + y", (1e308, 1e308), "add", INF),
    ("x - y", (-1e308, 1e308), "sub", -INF),
    ("tapegrad.sum([x, y, x, x])", (1e308, 1.0), "sum", INF),
    ("(x + y) * 0.0", (1e308, 1e308), "add", INF),
    ("(x * y).tanh() * 0.0 + (x * 1e300 - x * 1e300 * y)", (1e10, 1.0), "mul", INF),
]

ADJOINTS = [
    ("x.sqrt() * y", (0.0, 1.0), "sqrt"),
    ("(x * x).sqrt() + y", (0.0, 1.0), "sqrt"),
    ("x.abs() ** 0.5 + y", (0.0, 1.0), "pow"),
    ("x ** 0.25 * y", (0.0, 2.0), "pow"),
    ("x.asin() + y", (1.0, 1.0), "asin"),
    ("x.acos() * y", (-1.0, 1.0), "acos"),
    ("(x * 1.0).atan2(y) * 1.0 + x * 0.0", (0.0, 0.0), "atan2"),
    ("(x * y).sqrt() + x * x", (0.0, 3.0), "sqrt"),
    ("(x / 1e-300) * (y * 1e300)", (1e-300, 1.0), "truediv"),
    ("(x * 1e200 * 1e-200) * 1.0 * (y * 1e-300) * 1e300", (1e-150, 1.0), None),
    ("(x ** 3) ** 0.3333 + y", (0.0, 1.0), "pow"),
    ("(x * x + y * y) ** 0.5", (0.0, 0.0), "pow"),
    ("(x.sqrt() + y.sqrt()) ** 2", (0.0, 1.0), "sqrt"),
    ("((x - 1.0) * (x - 1.0)).sqrt() * y", (1.0, 5.0), "sqrt"),
    ("(1.0 - x * x).acos() + y * (x * x).sqrt()", (0.0, 0.0), "acos"),
]


def both(text):
    space = {"tapegrad": tapegrad}
    exec(f"def f(x, y):\n    return {text}\n", space)
    return space["f"]


@pytest.mark.parametrize(("text", "at", "operation", "gives"), VALUES, ids=[case[0] for case in VALUES])
def test_a_bad_value_is_traced_to_the_operation_that_made_it(text, at, operation, gives):
    f = both(text)
    program = record(f, 0.5, 0.25, on_error="nan")
    found = program.diagnose(*at)
    assert (found.what, found.operation) == ("value", operation)
    assert all(map(math.isfinite, found.operands)) and not math.isfinite(found.value)
    if gives is not None:
        assert found.value == gives or (math.isnan(gives) and math.isnan(found.value))
    assert program.diagnose(0.5, 0.25) is None or "1e300" in text


@pytest.mark.parametrize(("text", "at", "operation"), ADJOINTS, ids=[case[0] for case in ADJOINTS])
def test_a_bad_adjoint_is_traced_to_the_slope_that_made_it(text, at, operation):
    program = record(both(text), 0.5, 0.25, on_error="nan")
    if operation is None:  # large and small on the way, but all finite
        assert program.diagnose(*at) is None
        return
    value, gradient = program.value_and_grad(*at, argnums=(0, 1))
    found = program.diagnose(*at)
    assert math.isfinite(value) and not all(map(math.isfinite, gradient))
    assert (found.what, found.operation) == ("adjoint", operation) and math.isfinite(found.adjoint)
    assert not math.isfinite(found.adjoint * found.partial)


def test_a_sum_of_finite_contributions_can_overflow():
    found = diagnosed(lambda x: x * 1e308 + (x * 2.0) * 0.75e308, 0.1)
    assert found.what == "adjoint" and found.adjoint == INF and found.partial is None
    assert "the sum is inf" in str(found)


def test_a_bad_value_that_a_slope_reads_is_the_cause_of_the_bad_derivative():
    """The power is a fine 0; its slope is infinity times 0."""

    def f(x):
        far = x * 1e308 * 10.0
        return (x * 0.5) ** far

    assert record(f, 1.0)(1.0) == 0.0
    found = diagnosed(f, 1.0)
    assert (found.what, found.operation, line_of(found)) == ("value", "mul", "far = x * 1e308 * 10.0")
    assert "the derivative" in str(found) and found.input == "x"


# ---- what counts ----


def test_infinities_can_be_let_be():
    program = record(lambda x: x * 1e308, 1.0)
    assert program.diagnose(1e10).value == INF
    assert program.diagnose(1e10, inf=False) is None
    cancel = record(lambda x: x * 1e308 - x * 1e308 * 1.0, 1.0)
    assert (cancel.diagnose(1e10, inf=False).operation, cancel.diagnose(1e10).operation) == ("sub", "mul")


def test_an_input_that_is_not_finite_is_the_origin_itself():
    found = record(lambda w, x: (w[0] * x).tanh() + w[1], [1.0, 2.0], 1.0).diagnose([1.0, NAN], 1.0)
    assert (found.operation, found.input) == ("input", "w[1]") and "it was given: w[1] = nan" in str(found)


def test_the_first_of_several_origins_comes_first_and_the_others_are_counted():
    def f(x):
        one = x.log()
        two = x.sqrt()
        return one + two + (x - 1.0).log()

    found = record(f, 2.0, on_error="nan").diagnose(-1.0)
    assert (line_of(found), found.more) == ("one = x.log()", 2) and str(found).endswith("and 2 more origins")


def test_the_report_is_short_and_says_it_all():
    found = record(lambda x: x.sqrt() * 3.0, 1.0).diagnose(0.0)
    text = str(found)
    assert len(text.splitlines()) <= 8
    assert "the derivative by x is inf" in text and f"{HERE}:{found.lineno}" in text and "(0.5 / y) is inf" in text
    assert "a = 0.0" in text and "adjoint 3.0 * that = inf" in text


def test_the_row_of_a_batch_is_named():
    batch = record(lambda w, x: (w * x).log(), 1.0, 2.0).map(in_axes=(None, 0), reduce="mean")
    found = batch.diagnose(1.0, [1.0, 2.0, -3.0, 4.0, -5.0])
    assert (found.row, found.operands, found.operation) == (2, (-3.0,), "log") and "in row 2" in str(found)
    assert batch.diagnose(1.0, [1.0, 2.0]) is None


def test_the_row_of_a_batch_whose_gradient_is_bad_is_named_params_included():
    w = Value(0.5, label="w")
    batch = record(lambda x: (w * x).sqrt(), 1.0, params=[w]).map()
    assert batch.diagnose([1.0, 2.0, 0.0]).row == 2
    w.data = 0.0
    assert batch.diagnose([1.0, 2.0]).row == 0


def test_every_branch_is_diagnosed_on_its_own_path():
    program = record(lambda x: x.log() if x > 1.0 else x.sqrt() * 2.0, 2.0, on_branch="record", on_error="nan")
    assert program.diagnose(2.0) is None and program.diagnose(0.0).operation == "sqrt"
    assert program.diagnose(-1.0).what == "value"
    with pytest.raises(tapegrad.BranchChanged):
        record(lambda x: x if x > 1.0 else -x, 2.0).diagnose(0.0)


def test_one_output_of_several_is_diagnosed_though_their_sum_is_fine():
    found = record(lambda x: [x * 2.0, x.sqrt()], 1.0).diagnose(0.0)
    assert (found.what, found.operation) == ("adjoint", "sqrt")


# ---- random programs ----


def planted(seed):
    """A random program with one line that gives nan of finite operands, and whether the result shows it."""
    rng = random.Random(seed)
    lines, names, bad = ["def f(x, y, z):"], ["x", "y"], set()
    plant = rng.randrange(3, 14)
    for k in range(16):
        a, b, name = rng.choice(names), rng.choice(names), f"v{k}"
        if k == plant:
            a = rng.choice([n for n in names if n not in bad])
            lines.append(f"    {name} = ({a} * 0.0 + z).{rng.choice(['log', 'sqrt', 'log10', 'acos'])}()")
            bad.add(name)
        else:
            text = rng.choice(
                ["{a} + {b}", "{a} - {b}", "{a} * {b}", "({a} * 0.3).tanh()", "{a}.sin() * {b}", "({a} - {b}) ** 2",
                 "{a}.cos()", "{a}.sigmoid() - {b}"]
            )  # fmt: skip
            lines.append(f"    {name} = ({text.format(a=a, b=b)}) * 0.7")
            if a in bad or ("{b}" in text and b in bad):
                bad.add(name)
        names.append(name)
    result = rng.sample(names[2:], 3)
    lines.append(f"    return {' + '.join(result)}")
    return "\n".join(lines) + "\n", plant + 2, any(name in bad for name in result)


def test_a_planted_nan_is_found_every_time(sized, tmp_path):
    shown = 0
    for seed in range(sized(150, 2000, cffi=500)):
        text, line, bad = planted(seed)
        path = str(tmp_path / f"planted{seed}.py")
        linecache.cache[path] = (len(text), None, text.splitlines(True), path)
        space = {}
        exec(compile(text, path, "exec"), space)
        program = record(space["f"], 0.4, -0.3, 0.5, on_error="nan")
        assert program.diagnose(0.4, -0.3, 0.5) is None
        found = program.diagnose(0.4, -0.3, -2.0)
        if not bad:
            assert found is None, text
            continue
        shown += 1
        assert (found.filename, found.lineno, found.more) == (path, line, 0), text
        assert all(map(math.isfinite, found.operands)) and found.what == "value"
    assert shown > 20


# ---- debug ----


def test_debug_raises_where_a_loss_of_values_is_not_finite_and_names_the_line():
    x, y = Value(0.0, label="x"), Value(0.0, label="y")
    with debug():
        squares = x * x + y * y
        length = squares.sqrt()
        loss = length * 2.0
        with pytest.raises(NonFinite) as caught:
            loss.backward()
    error = caught.value
    assert isinstance(error, FloatingPointError) and (error.what, error.operation) == ("adjoint", "sqrt")
    assert line_of(error) == "length = squares.sqrt()" and error.input == "x" and error.partial == INF
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.lineno == error.lineno


def test_debug_raises_where_the_value_itself_is_bad():
    with debug():
        x = Value(1e200)
        big = x * x
        with pytest.raises(NonFinite) as caught:
            (big * 0.5).backward()
    assert (caught.value.what, line_of(caught.value)) == ("value", "big = x * x")


def test_debug_looks_at_programs_batches_and_gradients_of_functions():
    def root(x):
        return x.sqrt()

    program = record(root, 1.0)
    big = record(lambda x: x * 1e308, 1.0)
    calls = [
        lambda: program.grad(0.0), lambda: program.value_and_grad(0.0), lambda: big(1e10),
        lambda: program.jacobian(0.0), lambda: program.map().grad([1.0, 0.0]), lambda: big.map(reduce="sum")([1e10]),
        lambda: grad(root)(0.0), lambda: program.hvp(0.0, 1.0),
    ]  # fmt: skip
    for call in calls:
        call()
        with debug(), pytest.raises(NonFinite):
            call()


def test_debug_looks_at_every_way_that_a_program_runs():
    """Each derivative, of one sample and of rows, by position and by name, and what a pullback gives."""

    def root(x):
        return x.sqrt()

    rows = [1.0, 0.0]
    program = record(root, 1.0)
    batch, zero = program.map(), Value(0.0)
    calls = {
        "grad by name": lambda: program.grad(x=0.0),
        "jvp": lambda: program.jvp((0.0,), (1.0,)),
        "hessian": lambda: program.hessian(0.0),
        "pullback": lambda: program.vjp(0.0)[1](1.0),
        "batch jvp": lambda: batch.jvp((rows,), ([1.0, 1.0],)),
        "batch hvp": lambda: batch.hvp(rows, [1.0, 1.0]),
        "batch jacobian": lambda: batch.jacobian(rows),
        "batch hessian": lambda: batch.hessian(rows),
        "batch pullback": lambda: batch.vjp(rows)[1]([1.0, 1.0]),
        "recorded sweep": lambda: gradient(root(zero), zero),
    }
    for name, call in calls.items():
        with debug():
            try:
                result = call()
            except NonFinite as error:
                assert error.operation == "sqrt", name
            else:
                pytest.fail(f"{name}: {result!r}")


def test_debug_says_nothing_while_all_is_finite():
    x = Value(2.0)
    with debug():
        y = (x * 3.0).tanh() + x ** 2
        y.backward()
        assert grad(lambda v: v * v)(3.0) == 6.0
        assert record(lambda v: v.sqrt(), 1.0).grad(4.0) == 0.25
    assert x.grad == pytest.approx(4.0 + 3.0 * (1 - math.tanh(6.0) ** 2))


def test_debug_lets_infinities_be_where_it_is_told_to():
    program = record(lambda x: x.sqrt(), 1.0)
    with debug(inf=False):
        assert program.grad(0.0) == INF
        with pytest.raises(NonFinite):
            record(lambda x: (x * x).sqrt(), 1.0).grad(0.0)


def test_outside_of_debug_nothing_is_asked():
    """The methods are the very same as before: no check costs what is not used."""
    methods = [Value.backward, Program.__call__, Program.value_and_grad, tapegrad.value.handle.adjoints]
    with debug():
        with debug():
            assert Program.__call__ is not methods[1]
        assert Program.__call__ is not methods[1]
    after = [Value.backward, Program.__call__, Program.value_and_grad, tapegrad.value.handle.adjoints]
    assert all(a is b for a, b in zip(methods, after))
    assert math.isnan(record(lambda x: (x * x).sqrt(), 1.0).grad(0.0))


def test_debug_follows_grads_that_a_rule_of_ones_own_gives():
    x = Value(3.0, label="x")
    with debug():
        y = Value(9.0, (x,), "square")

        def rule():
            x.grad += INF * y.grad

        y._backward = rule
        with pytest.raises(NonFinite) as caught:
            (y * 2.0).backward()
    assert caught.value.what == "adjoint" and caught.value.result == INF


def test_check_grads_says_who_made_what_is_not_finite():
    with pytest.raises(AssertionError, match=r"(?s)its slope by a .* is inf"):
        check_grads(lambda x: (x * x).sqrt(), 0.0)
