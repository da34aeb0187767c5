"""Programs as machine code: the interpreter's bits, its errors, and a cache that nobody else can feed."""

from __future__ import annotations

import logging
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from array import array
from contextlib import contextmanager, nullcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import BINARY, UNARY, apply
from test_wide import FUNCTIONS, inputs

import tapegrad
from tapegrad import Value, tape
from tapegrad.program import BranchChanged, grouped, native, point, record, sums
from tapegrad.program.form import NUMBER
from tapegrad.program.replay import Primals, ffi

try:
    native.compiler()
except RuntimeError as error:
    pytest.skip(str(error), allow_module_level=True)

SIZES = (1, 15, 16, 17, 100)
SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -3.5, 1e-320, 1e-200, 1e200, math.inf, -math.inf, math.nan)
POSIX_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def examples(n):
    """How many random programs: native code of one is the same whichever handle has recorded it, and takes long."""
    return n if tape.handle == "c" else n // 5


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """A cache for these tests alone; its path."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("cache") / "tapegrad"
        patch.setenv("TAPEGRAD_CACHE", str(path))
        yield path


def twins(f, *examples, **options):
    """The same program interpreted and native."""
    return record(f, *examples, **options), record(f, *examples, **options).native()


def bits(x):
    """Numbers as what tells two of them apart: their bits, one for all nans."""
    if isinstance(x, (list, tuple)):
        return [bits(item) for item in x]
    return "nan" if math.isnan(x) else x.hex()


def outcome(call, *args, **options):
    """The bits of what it returns, or the exception."""
    try:
        return bits(call(*args, **options))
    except (ArithmeticError, ValueError, RuntimeError) as error:
        return type(error), str(error)


def reverse(p, row, seed):
    return [list(numbers) for numbers in point.reverse(p._recorded, p._recorded.flat(row), seed)]


def same_for(interpreted, native, *rows):
    """Fails unless both do the same for the rows, each a tuple of numbers, one by one and as batches."""
    n_out = len(interpreted(*rows[0])) if interpreted._recorded.out is not NUMBER else 1
    everything = tuple(range(len(rows[0])))
    for row in rows:
        assert outcome(native, *row) == outcome(interpreted, *row)
        seed = array("d", [0.5 - k for k in range(n_out)])
        assert outcome(reverse, native, row, seed) == outcome(reverse, interpreted, row, seed)
    for size in SIZES:
        columns = [list(column) for column in zip(*(rows[k % len(rows)] for k in range(size)))]
        assert outcome(native.map(), *columns) == outcome(interpreted.map(), *columns)
        if n_out == 1:
            for options in ({}, {"reduce": "mean"}):
                batches = [p.map(**options) for p in (interpreted, native)]
                results = [outcome(batch.value_and_grad, *columns, argnums=everything) for batch in batches]
                assert results[0] == results[1]


ROWS = [(name, 1) for name in UNARY] + [(name, 2) for name in BINARY]


def recorded(name, a, *rest):
    """The operation recorded where it is defined."""
    return apply(name, a + 1.0 if name == "acosh" else a, *rest)


def every_row(skip=()):
    """A function of two numbers whose result depends on every row of one and two operands."""

    def f(a, b):
        ys = [recorded(name, *(a, b)[:n]) for name, n in ROWS if name not in skip]
        return tapegrad.sum([y * (k + 1.5) for k, y in enumerate(ys)])

    return f


@pytest.mark.parametrize("on_error", ["raise", "nan"])
def test_every_row_has_the_interpreters_bits(on_error):
    """Each row on its own reads what its partials name, and is refused what it is refused."""

    def f(a, b):
        return [recorded(name, *(a, b)[:n]) for name, n in ROWS]

    both = twins(f, 0.3, 0.7, on_error=on_error)
    same_for(*both, (0.3, 0.7), (0.9, -0.2), (0.5, 0.5), (1e-5, 0.999), *((a, b) for a in SPECIAL for b in SPECIAL[:7]))


def test_a_single_result_of_every_row_has_the_same_gradient_in_batches():
    both = twins(every_row(), 0.3, 0.7)
    same_for(*both, (0.3, 0.7), (0.9, 0.2), (0.5, 0.5), (1e-5, 0.999))


@pytest.mark.parametrize("name", [name for name, _ in ROWS])
def test_a_row_treats_what_is_not_finite_as_the_interpreter_does(name):
    """An adjoint of 0 does not meet an infinite partial."""
    n = dict(ROWS)[name]
    both = twins(lambda a, b: recorded(name, *(a, b)[:n]) * b, 0.3, 0.7, on_error="nan")
    same_for(*both, *((a, b) for a in SPECIAL for b in SPECIAL))


@pytest.mark.parametrize("name", [*(name for name, _ in ROWS), "logsumexp", "hinge", "mse"])
def test_the_derivative_of_a_row_has_the_interpreters_bits(name):
    """A recorded sweep has rows that f does not: comparisons, choices, products with adjoints, what refuses nothing."""

    def f(a, b):
        if name in dict(ROWS):
            return recorded(name, *(a, b)[: dict(ROWS)[name]]) * b
        return (tapegrad.logsumexp([a, b]) if name == "logsumexp" else getattr(tapegrad, name)([a, b], [b, 0.5])) * b

    both = twins(tapegrad.grad(f, argnums=(0, 1)), 0.3, 0.7, on_error="nan")
    same_for(*both, (0.3, 0.7), (0.9, -0.2), (0.5, 0.5), *((a, b) for a in SPECIAL for b in SPECIAL[::2]))


@pytest.mark.parametrize("n", [1, 2, 3, 40, 300])
def test_rows_of_many_operands_unrolled_and_as_loops(n):
    """Operands that are made before, inputs, constants, and the same twice."""

    def f(xs, a):
        made = [x * a for x in xs]
        d = tapegrad.dot(made, [xs[k // 2] if k % 3 else Value(1.5) for k in range(n)], a)
        e = tapegrad.dot(xs, xs)
        s = tapegrad.sum([*xs, *made, a, a, d])
        return tapegrad.logsumexp([*made, d, s]) + tapegrad.mse(xs, made) + tapegrad.cross_entropy(xs, 0) * e

    xs = [math.sin(k + 1.0) for k in range(n)]
    p, q = twins(f, xs, 0.25)
    assert bits(p.value_and_grad(xs, 0.25, argnums=(0, 1))) == bits(q.value_and_grad(xs, 0.25, argnums=(0, 1)))
    for size in SIZES:
        rows = [[x + k for x in xs] for k in range(size)]
        batches = [r.map(in_axes=(0, None), reduce="sum") for r in (p, q)]
        assert bits(batches[0].value_and_grad(rows, 0.5, argnums=(0, 1))) == bits(
            batches[1].value_and_grad(rows, 0.5, argnums=(0, 1))
        )
    infinite = [math.inf, *xs[1:]]
    assert outcome(p.value_and_grad, infinite, 1.0) == outcome(q.value_and_grad, infinite, 1.0)


PATTERNS = {  # of operands: the one with this number of the crowd, which has n
    "one after the other": lambda k, n: k,
    "evenly spaced": lambda k, n: 3 * k,
    "backwards": lambda k, n: n - 1 - k,
    "the same": lambda k, n: 5,
    "every one twice": lambda k, n: k // 2,
    "all over": lambda k, n: k * k * 7 + k // 3,
    "runs and gaps": lambda k, n: k + 4 * (k // 11) + (k % 11 == 3),
}


def summed(plan, size):
    """A function of so many numbers that sums and multiplies them in patterns: of inputs, of what is made, of numbers.

    plan: for each sum its kind, how many operands, and for each side who is summed and in which pattern."""

    def f(xs):
        made = [x.relu() if k % 5 else x * 0.25 for k, x in enumerate(xs)]
        crowds = {"inputs": xs, "made": made, "numbers": [0.125 * k - 1.0 for k in range(size)]}
        total, last = 0.0, xs[0]
        for kind, n, (one, first), (other, second) in plan:
            left, right = (
                [crowds[name][PATTERNS[pattern](k, size) % size] for k in range(n)]
                for name, pattern in ((one, first), (other, second))
            )
            y = tapegrad.dot(left, right, last) if kind == "dot" else getattr(tapegrad, kind)([*left, last])
            last = y.tanh()
            total = total + last
            crowds["made"] = [*crowds["made"][1:], last]
        return total

    return f


def same_of_lists(f, rows):
    """Fails unless native code does the same: one row, rows with numbers of their own, and added up."""
    p, q = twins(f, rows[0])
    for xs in rows[:4]:
        assert outcome(q.value_and_grad, xs) == outcome(p.value_and_grad, xs)
    for options in ({}, {"reduce": "sum"}):
        assert outcome(q.map(**options).value_and_grad, rows) == outcome(p.map(**options).value_and_grad, rows)


side = st.tuples(st.sampled_from(["inputs", "made", "made", "numbers"]), st.sampled_from(list(PATTERNS)))
SUMS = st.tuples(st.sampled_from(["dot", "dot", "dot", "sum", "logsumexp"]), st.integers(1, 60), side, side)


@given(st.lists(SUMS, min_size=4, max_size=25), st.integers(17, 70), st.integers(1, 33), st.integers(0, 9999))
@settings(max_examples=examples(20))
def test_sums_over_slots_in_any_pattern_have_the_interpreters_bits(plan, size, n, seed):
    draw = random.Random(seed)
    rows = [
        [draw.choice(SPECIAL) if draw.random() < 0.01 else draw.gauss(0, 1) for _ in range(size)] for _ in range(n)
    ]
    same_of_lists(summed(plan, size), rows)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 31, 32, 33, 64, 65, 1000])
def test_dots_of_any_length_have_the_interpreters_bits(n):
    plan = [
        ("dot", n, (one, first), (other, second))
        for one, other in (("inputs", "inputs"), ("inputs", "made"), ("made", "numbers"))
        for first, second in zip(PATTERNS, [*list(PATTERNS)[3:], *list(PATTERNS)[:3]])
    ]
    rows = [[math.sin(k + 0.1 * row) for k in range(max(n, 9))] for row in range(19)]
    same_of_lists(summed(plan, max(n, 9)), rows)


def test_weights_that_rows_share_beside_numbers_of_their_own():
    """A layer: weights one after the other for each neuron, its inputs the same for all."""

    def f(weights, xs):
        hidden = [tapegrad.dot(weights[20 * k : 20 * k + 20], xs, weights[400 + k]).relu() for k in range(20)]
        return tapegrad.dot(hidden, hidden[::-1]) + tapegrad.sum(hidden)

    weights, rows = [math.sin(k) for k in range(420)], [[math.cos(k + j) for k in range(20)] for j in range(21)]
    p, q = twins(f, weights, rows[0])
    for options in ({}, {"reduce": "mean"}):
        results = [
            bits(r.map(in_axes=(None, 0), **options).value_and_grad(weights, rows, argnums=(0, 1))) for r in (p, q)
        ]
        assert results[0] == results[1]


step = st.tuples(
    st.sampled_from([*UNARY, *BINARY, *("add", "sub", "mul", "tanh", "sin", "sigmoid", "dot", "sum") * 4]),
    st.lists(st.integers(0, 9), min_size=3, max_size=5),
    st.sampled_from([False] * 15 + [True]),
)


row = st.tuples(st.floats(-2, 2), st.floats(-2, 2))


@given(st.lists(step, min_size=30, max_size=200), st.lists(row, min_size=1, max_size=20))
@settings(max_examples=examples(30))
def test_random_programs_have_the_interpreters_bits(steps, rows):
    def f(a, b):
        values = [a, b, Value(0.5)]
        for name, (i, j, *rest), compare in steps:
            x, y = values[-1 - i % len(values)], values[-1 - j % len(values)]
            others = [values[-1 - k % len(values)] for k in rest]
            try:
                if name in ("dot", "sum"):
                    values.append(tapegrad.dot([x, *others], [y, *others]) if name == "dot" else tapegrad.sum(others))
                else:
                    values.append(apply(name, x, y) if name in BINARY else apply(name, x))
                if compare:
                    values.append(values[-1] * 0.5 if values[-1] > y else values[-1] + y)
            except (ArithmeticError, ValueError):
                values.append(x - y)
        return tapegrad.sum([v.tanh() for v in values[2:]])

    same_for(*twins(f, *rows[0], on_error="nan"), *rows)


def relu_by_hand(x, w):
    y = x * w
    return y * 2.0 if y > 0.0 else y * 0.5


def test_a_guard_that_comes_out_otherwise_is_reported():
    q = record(relu_by_hand, 1.0, 2.0).native()
    assert q(3.0, 2.0) == 12.0
    for call in (q, q.grad):
        with pytest.raises(BranchChanged) as caught:
            call(-3.0, 2.0)
        assert caught.value.operands == (-6.0, 0.0)
    xs, ws = [1.0] * 40, [2.0] * 40
    xs[33] = -1.0
    with pytest.raises(BranchChanged, match="in row 33"):
        q.map()(xs, ws)
    assert outcome(q, math.nan, 1.0)[0] is BranchChanged


def test_rows_on_other_paths_are_recorded_and_have_the_same_bits():
    p, q = twins(relu_by_hand, 1.0, 2.0, on_branch="record")
    same_for(p, q, *((x, 0.7) for x in (1.0, 2.0, -1.0, 3.0, -0.0)))
    assert len(q._recorded.paths) == 2 and q._recorded.paths[1].native is None
    q.native()
    assert all(path.native for path in q._recorded.paths)
    same_for(p, q, *((x, 0.7) for x in (1.0, 2.0, -1.0, 3.0, -0.0)))


def test_domain_errors_name_their_line_and_row():
    p, q = twins(lambda x, y: (x / y).log() + y.sqrt(), 1.0, 2.0)
    same_for(p, q, (1.0, 2.0), (2.0, 3.0))
    for bad in ((-1.0, 2.0), (1.0, 0.0), (0.0, 1.0)):
        same_for(p, q, bad)
        assert outcome(q, *bad)[0] in (ValueError, ZeroDivisionError)
        xs, ys = [1.0] * 21, [2.0] * 21
        xs[17], ys[17] = bad
        assert outcome(q.map(), xs, ys) == outcome(p.map(), xs, ys)
        assert "in row 17" in outcome(q.map(), xs, ys)[1]


def test_slots_that_are_shared_survive_a_block_that_starts_anew():
    """The last step alone is refused, when native code has written over slots that earlier ones read."""

    def f(x):
        y = x
        for k in range(500):
            y = y + x if k % 3 else y - 0.5
        return y + y.exp().log()

    p, q = twins(f, 0.001)
    same_for(p, q, (0.001,), (100.0,), (0.002,), (-100.0,))


def test_tangents_go_over_native_primals():
    def f(x, y):
        return tapegrad.logsumexp([x * y, x.tanh() / y, (x + y).sigmoid()])

    p, q = twins(f, 0.3, 0.7)
    assert bits(p.jvp((0.2, 0.4), (1.0, -1.0))) == bits(q.jvp((0.2, 0.4), (1.0, -1.0)))
    assert bits(p.hvp(0.2, 1.0, 0.4)) == bits(q.hvp(0.2, 1.0, 0.4))
    assert bits(p.jacobian(0.2, 0.4, argnums=(0, 1))) == bits(q.jacobian(0.2, 0.4, argnums=(0, 1)))
    assert bits(p.hessian(0.2, 0.4)) == bits(q.hessian(0.2, 0.4))


@pytest.mark.parametrize("f", [lambda x: [x, x], lambda x: [x * 1.0, x], lambda x: [x - x, -x]])
def test_programs_of_hardly_anything(f):
    p, q = twins(f, 1.5)
    same_for(p, q, (1.5,), (-0.0,), (math.inf,))


def test_native_is_the_program_itself_and_compiles_once(cache):
    p = record(lambda x: x * 3.25, 1.0)
    assert p.native() is p
    before = sorted(os.listdir(cache))
    native = p._recorded.paths[0].native
    p.native()
    record(lambda x: x * 4.25, 1.0).native()  # a constant is no part of the source
    assert p._recorded.paths[0].native is native and sorted(os.listdir(cache)) == before


# ---- the source ----


@pytest.mark.no_handle
@pytest.mark.parametrize("name", ["gcc", "clang", "cc"])
def test_to_c_compiles_on_its_own_without_a_warning(name, tmp_path):
    if shutil.which(name) is None:
        pytest.skip(f"no {name}")
    others = [os.path.realpath(path) for path in map(shutil.which, ("gcc", "clang")) if path]
    if name == "cc" and os.path.realpath(shutil.which("cc")) in others:
        pytest.skip("cc is one of the others")
    source = tmp_path / "program.c"
    source.write_text(record(lambda a, b: every_row()(a, b) * many_chunks(a, b), 0.3, 0.7).to_c())
    command = [name, "-std=gnu11", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    with loops_alone():
        wide = record(everywhere, [0.1 + 0.01 * k for k in range(42)]).to_c()
    tmp_path.joinpath("wide.c").write_text(wide)
    for more in ([], ["-march=native"]):
        subprocess.run([*command, *more, "-c", str(source), "-o", str(tmp_path / "program.o")], check=True)
        subprocess.run([*command, *more, "-fsyntax-only", str(tmp_path / "wide.c")], check=True)


def length_of_dots(pattern, n):
    """Of the source of some dots of so many operands each, less what a program of none has."""
    plan = [("dot", n, ("inputs", "one after the other"), ("inputs", pattern))] * 2
    return len(record(summed(plan, 2000), [0.5] * 2000).to_c())


def test_a_sum_over_evenly_spaced_slots_is_a_loop():
    for pattern in ("one after the other", "evenly spaced", "the same"):
        assert length_of_dots(pattern, 600) - length_of_dots(pattern, 60) < 60  # digits
    assert 540 * 8 < length_of_dots("all over", 600) - length_of_dots("all over", 60) < 540 * 80  # numbers of tables


# ---- in parts ----


@pytest.fixture
def in_parts(monkeypatch, tmp_path):
    """Three compilers at once, a chunk or two each, and a cache that is not there yet."""
    monkeypatch.setenv("TAPEGRAD_CACHE", str(tmp_path / "parts"))
    monkeypatch.setattr(native, "_cores", lambda: 3)
    monkeypatch.setattr(native, "PART", 2)
    monkeypatch.setattr(native, "LEAST", 1)
    return tmp_path / "parts"


def many_chunks(x, y):
    crowd = [x * k - y for k in range(80)]
    for k in range(200):
        x, y = (x * y + 0.25 * k).tanh(), y - 0.5 * x
    return x + y.exp() + tapegrad.logsumexp(crowd) + tapegrad.sum(crowd) * x


def test_parts_put_together_have_the_same_bits_and_are_kept_as_one(in_parts, caplog):
    caplog.set_level(logging.INFO, "tapegrad")
    p, q = twins(many_chunks, 0.3, 0.7)
    same_for(p, q, (0.3, 0.7), (-1.5, 0.25), (1e200, -2.0), (math.nan, 1.0))
    (library,) = os.listdir(in_parts)
    assert library.endswith(".so")
    said = [record.getMessage() for record in caplog.records]
    parts = int(said[0].split(" chunks in ")[1].split()[0])
    assert parts > 3 and parts % 3 == 0
    assert said[1:] == [f"native code: {k} of {parts} parts are compiled" for k in range(1, parts + 1)]


def test_a_part_that_does_not_compile_leaves_nothing(in_parts, monkeypatch):
    ask = native.Compilers.ask

    def failing(self, command, *rest):
        return ask(self, [*command, "-std=none"] if "-DFROM=0" in command else command, *rest)

    monkeypatch.setattr(native.Compilers, "ask", failing)
    p = record(many_chunks, 0.3, 0.7)
    with pytest.raises(RuntimeError, match="failed"):
        p.native()
    assert os.listdir(in_parts) == [] and p._recorded.paths[0].native is None


SLOW = """#!/bin/sh
case "$*" in *{slow}*)
    sleep 60 &
    echo $! >> {started}
    touch "$TMPDIR/left"
    wait
esac
exec {compiler} "$@"
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer here")
@pytest.mark.parametrize("slow", ["-E", "-o"])
@pytest.mark.parametrize("error", [TimeoutError, RuntimeError, KeyboardInterrupt])
def test_what_a_signal_raises_meanwhile_comes_as_it_is_and_leaves_nothing(in_parts, monkeypatch, tmp_path, error, slow):
    """Neither files nor compilers, nor what these have started."""
    compiler, started, temporary = tmp_path / "slow-cc", tmp_path / "started", tmp_path / "temporary"
    compiler.write_text(SLOW.format(slow=slow, started=started, compiler=native.compiler()[0][0]))
    compiler.chmod(0o700)
    temporary.mkdir()
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("TMPDIR", str(temporary))
    p = record(many_chunks, 0.3, 0.7)

    def interrupt(*signalled):
        if started.exists():
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            raise error("mine")

    before, since = signal.signal(signal.SIGALRM, interrupt), time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
        with pytest.raises(error, match="mine"):
            p.native()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert not in_parts.exists() or os.listdir(in_parts) == []
    assert slow == "-E" or os.listdir(temporary) == []
    while any(running(int(pid)) for pid in started.read_text().split()):  # a process dies a little after it is killed
        assert time.monotonic() - since < 30.0


def running(pid):
    """Whether there is such a process, and not as a zombie that waits for who takes orphans."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("cores", [1, 2, 3, 64])
@pytest.mark.parametrize("chunks", [1, 2, 11, 12, 13, 24, 25, 67, 1000])
def test_parts_are_all_chunks_in_order_and_none_is_too_small(chunks, cores):
    parts = native._parts(chunks, cores)
    assert [k for start, stop in parts for k in range(start, stop)] == list(range(chunks))
    assert len(parts) == 1 or all(native.LEAST <= stop - start <= native.PART for start, stop in parts)


# ---- the cache ----

PROGRAM = """
import sys, tapegrad
from tapegrad.program import native, record
compiled, ask = [], native.Compilers.ask
def counted(self, command, *rest):
    compiled.append("-o" in command)
    return ask(self, command, *rest)
native.Compilers.ask = counted
p = record(lambda x, y: (x * y).tanh() + x.exp(), 0.5, 2.0)
before = p.value_and_grad(0.25, 0.75, argnums=(0, 1))
try:
    p.native()
except RuntimeError as error:
    print("refused", error)
assert p.value_and_grad(0.25, 0.75, argnums=(0, 1)) == before
print("compiled", sum(compiled), p._recorded.paths[0].native is not None)
"""


@pytest.fixture
def fresh(tmp_path, monkeypatch, script):
    """A cache that is not there yet, and a function that compiles a program in a process of its own: what it prints."""
    path = tmp_path / "own"
    monkeypatch.setenv("TAPEGRAD_CACHE", str(path))
    return path, lambda: script(PROGRAM).stdout


def test_a_second_process_compiles_nothing(fresh):
    path, compiles = fresh
    assert compiles() == "compiled 1 True\n"
    assert compiles() == "compiled 0 True\n"
    assert path.stat().st_mode & 0o777 == 0o700 and len(os.listdir(path)) == 1


def test_a_torn_library_is_made_again(fresh):
    path, compiles = fresh
    compiles()
    (library,) = path.iterdir()
    whole = library.read_bytes()
    library.write_bytes(whole[: len(whole) // 2])
    assert compiles() == "compiled 1 True\n"
    assert library.read_bytes() == whole or len(list(path.iterdir())) == 2
    assert compiles() == "compiled 0 True\n"


def test_two_processes_at_once_both_get_it(fresh, handle):
    _, compiles = fresh
    env = dict(os.environ, TAPEGRAD_HANDLE=handle)
    command = [sys.executable, "-c", PROGRAM]
    both = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 0 and out.endswith("True\n")
    assert compiles() == "compiled 0 True\n"


def spoil_folder(path):
    path.chmod(0o777)


def link_folder(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def give_folder_away(path):
    os.chown(path, 12345, -1)


def replace_by_file(path):
    shutil.rmtree(path)
    path.write_text("")


def spoil_library(path):
    next(path.iterdir()).chmod(0o777)


def link_library(path):
    library = next(path.iterdir())
    library.rename(path.with_name("library"))
    library.symlink_to(path.with_name("library"))


def give_library_away(path):
    os.chown(next(path.iterdir()), 12345, -1)


@pytest.mark.parametrize(
    "spoil",
    [spoil_folder, link_folder, give_folder_away, replace_by_file, spoil_library, link_library, give_library_away],
)
def test_what_others_could_have_written_is_not_loaded(fresh, spoil):
    path, compiles = fresh
    compiles()
    if spoil in (give_folder_away, give_library_away) and not POSIX_ROOT:
        pytest.skip("only root can give files away")
    spoil(path)
    said = compiles()
    assert said.startswith("refused") and str(path) in said and said.endswith("compiled 0 False\n")


@pytest.mark.parametrize("missing", ["CC", "PATH"])
def test_without_a_compiler_the_interpreter_goes_on(fresh, missing, monkeypatch, tmp_path):
    path, compiles = fresh
    if missing == "CC":
        monkeypatch.setenv("CC", "no-such-compiler -m64")
    else:
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
    said = compiles()
    assert "needs a C compiler" in said and said.endswith("compiled 0 False\n") and not path.exists()


def test_a_compiler_that_fails_is_quoted(fresh, monkeypatch, tmp_path):
    path, compiles = fresh
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho out of order >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    said = compiles()
    assert "out of order" in said and said.endswith("compiled 0 False\n") and not path.exists()


def test_matrices_and_pullbacks_have_the_interpreters_bits():
    """The forward pass is native; so is a pullback, also one of a program that was compiled after it."""

    def f(x):
        y = (x[0] * x[1]).tanh() + x[2].exp() / x[0]
        return [y, y * y, x[2].sin() * y, tapegrad.where(y < 2.0, x[0] * y, x[1])]

    plain, compiled = twins(f, [0.5, 1.5, 0.25], on_branch="record")
    late = record(f, [0.5, 1.5, 0.25], on_branch="record")
    for at in ([0.5, 1.5, 0.25], [2.0, -1.0, 3.0]):
        assert bits(compiled.jacobian(at)) == bits(plain.jacobian(at))
        pulls = [program.vjp(at)[1] for program in (plain, compiled, late)]
        late.native()
        for k in range(4):
            seed = [float(i == k) for i in range(4)]
            assert len({str(bits(pull(seed)[0])) for pull in pulls}) == 1
    scalar, native_one = twins(lambda x: tapegrad.sum(f(x)[:3]), [0.5, 1.5, 0.25])
    assert bits(native_one.hessian([0.5, 1.5, 0.25])) == bits(scalar.hessian([0.5, 1.5, 0.25]))


def test_pullbacks_of_rows_have_the_interpreters_bits_wherever_there_is_room():
    """Kept primals are read as vectors, which lie where one of their size may."""
    plain, compiled = twins(lambda x: x[0].tanh() * x[1] * 1.5 + x[2] * x[1], [0.5, 1.5, 0.25])
    path = compiled._recorded.paths[0]
    for n in (2, *SIZES):
        for _ in range(4):
            held = [Primals(path, n) for _ in range(3)]
            assert all(int(ffi.cast("uintptr_t", one.numbers)) % 64 == 0 for one in held)
        rows = [[0.1 * k, 0.3 - 0.01 * k, 1.0 + k] for k in range(n)]
        (value, pull), (expected, pull_plain) = compiled.map().vjp(rows), plain.map().vjp(rows)
        assert bits(value) == bits(expected) and bits(pull([1.5] * n)[0]) == bits(pull_plain([1.5] * n)[0])


# ---- wide programs ----


@contextmanager
def loops_alone():
    """Groups are loops in lanes, too, runs of other instructions chunks, and the interpreter has a little at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouped, "SMALL", 0)
        patch.setattr(grouped, "LONG", 12)
        patch.setattr(grouped, "SLICE", 100)
        patch.setattr(sums, "LEAST", 6)
        patch.setattr(sums, "WIDTH", 1)
        yield


def same_wide(f, rows, small=False, **options):
    """Fails unless native code does the same for the rows: each alone, all in lanes, their gradients, on threads."""
    with nullcontext() if small else loops_alone():
        p, q = twins(f, rows[0], **options)
    for x in rows:
        seed = array("d", [math.cos(k) for k in range(p.stats["outputs"])])
        assert outcome(q, x) == outcome(p, x)
        assert outcome(reverse, q, (x,), seed) == outcome(reverse, p, (x,), seed)
    many = [rows[k % len(rows)] for k in range(18)]
    for threads in 1, 2:
        batches = [r.map(0, threads=threads) for r in (p, q)]
        assert outcome(batches[1], many) == outcome(batches[0], many)
        if p.stats["outputs"] == 1:
            assert outcome(batches[1].value_and_grad, many) == outcome(batches[0].value_and_grad, many)
    return p, q


ODD = (50.0, -50.0, -49.0, 1e200, math.inf, math.nan, 0.0, -0.0)


@given(
    FUNCTIONS.filter(lambda f: f.repeats > 3),
    st.integers(0, 1000),
    st.sampled_from(ODD),
    st.sampled_from(("raise", "nan")),
)
@settings(max_examples=4, deadline=None)
def test_wide_programs_have_the_interpreters_bits_and_errors(f, seed, odd, on_error):
    """Also where it is the first in the function's order that counts of what fails in several groups."""
    x = inputs(f, seed)
    other = [odd if k % 7 == 3 else number for k, number in enumerate(x)]
    one = [odd if k == seed % len(x) else number for k, number in enumerate(x)]
    same_wide(lambda x: tapegrad.sum(f(x)), [x, other, one, inputs(f, seed + 1)], on_error=on_error)


def everywhere(x):
    """Each loop that groups have, with operands in each way: the same, side by side, anywhere; shared by neighbours."""
    n = len(x) - 2
    c, d, x = x[0], x[1], x[2:]
    mixed = [x[7 * k * k % n] for k in range(n)]
    runs = [x[(k + 9 * (k // 20)) % n] for k in range(n)]
    a = [u * v for u, v in zip(x, x[1:])]
    a = [u * v for u, v in zip(a, mixed)]
    a = [u - v * c for u, v in zip(a, runs)]
    a = [d / (u * u + 1.5) for u in a]
    a = [(u - v).max(w) for u, v, w in zip(a, a[3:], runs)]
    a = [(0.25 - u) ** 2 - v**2 for u, v in zip(a, a[::-1])]
    a = [(-u).relu() + abs(v) * v.sqrt() for u, v in zip(a, [w * w for w in x])]
    a = [tapegrad.dot([u, c, v], [v, u, u], w) for u, v, w in zip(a, x[1:], mixed)]
    a = [tapegrad.sum([u, v, u, c]) for u, v in zip(a, a[5:])]
    a = [tapegrad.where(u < c, v, d * u) for u, v in zip(a, mixed)]
    a = [u + v * v if u < 1e300 else v for u, v in zip(a, a[1:])]
    a = [u + (v * v if v > -1e300 else u) for u, v in zip(x, a)]
    products = [tapegrad.dot(a, x[: len(a)]), tapegrad.dot(a, [0.5 + k for k in range(len(a))], c), tapegrad.dot(a, a)]
    return tapegrad.sum([a[0].tanh(), *a, *x[:9], *products])


@pytest.mark.parametrize("n", [40, 501])
def test_loops_take_operands_wherever_they_are(n):
    draw = random.Random(n)
    rows = [[draw.gauss(0.0, 1.0) for _ in range(n + 2)] for _ in range(3)]
    special = [draw.choice((*SPECIAL, 1e155)) if k % 31 == 5 else number for k, number in enumerate(rows[0])]
    program = same_wide(everywhere, [*rows, special])[0]
    assert program.stats["groups"] > 15
    with loops_alone():
        plan = grouped._Plan(program._recorded.paths[0].core, False)
    assert {key for key in plan.shapes if isinstance(key[0], str)} == {("DOT", False), ("DOT", True), ("SUM", False)}
    if n == 40:
        same_wide(tapegrad.grad(everywhere), rows)


def test_a_small_wide_program_has_loops_for_one_row_and_straight_lines_for_several():
    draw = random.Random(1)
    _, q = same_wide(everywhere, [[draw.gauss(0.0, 1.0) for _ in range(26)] for _ in range(3)], small=True)
    one, several = grouped.write(q._recorded.paths[0].core).pieces
    assert [told for _, _, told in one if told] and not [told for _, _, told in several if told]


def test_the_source_of_a_wide_program_does_not_grow_with_it():
    def smoother(u):
        return tapegrad.sum([(0.5 * (a + c) - b) ** 2 for a, b, c in zip(u, u[1:], u[2:])])

    with loops_alone():
        texts = [record(smoother, [0.01 * k for k in range(n)]).to_c() for n in (1000, 5000, 20000)]
    assert texts[1] == texts[0] == texts[2]


def test_tangents_and_pullbacks_go_over_native_primals_of_wide_programs():
    draw = random.Random(2)
    x, along = ([draw.gauss(0.0, 1.0) for _ in range(42)] for _ in range(2))
    p, q = same_wide(everywhere, [x])
    assert bits(q.hvp(x, along)) == bits(p.hvp(x, along))
    assert bits(q.jvp((x,), (along,))[1:]) == bits(p.jvp((x,), (along,))[1:])
    assert bits(q.vjp(x)[1](1.5)) == bits(p.vjp(x)[1](1.5))
