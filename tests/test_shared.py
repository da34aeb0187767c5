"""Wide programs at one point on several threads: the bits and the errors of one, signals, forks, pickles."""

from __future__ import annotations

import ctypes
import math
import os
import pickle
import random
import signal
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_threads import together
from test_wide import LINKED, STEPS, Repeats, Totals, bits, inputs, outcome

import tapegrad
from tapegrad import Value
from tapegrad.program import record

POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")


@pytest.fixture(autouse=True)
def one_thread_again():
    yield
    tapegrad.set_num_threads(1)


def on_threads(n, call):
    tapegrad.set_num_threads(n)
    try:
        return call()
    finally:
        tapegrad.set_num_threads(1)


def pieces(program):
    """Whether its path was cut, which it is when it is first called on several threads."""
    return bool(program._recorded.paths[0].core.pieces)


def rosenbrock(x):
    return tapegrad.sum([100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2 for a, b in zip(x, x[1:])])


def chained(x):
    total = x[0] * 0.0
    for a, b in zip(x, x[1:]):
        total = total + (100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2)
    return total


def heat(u):
    for _ in range(12):
        u = [u[0], *(b + 0.2 * (a - 2.0 * b + c) for a, b, c in zip(u, u[1:], u[2:])), u[-1]]
    return tapegrad.sum([a * a for a in u])


def portfolio(x):
    """All have two parameters in common, and some more."""
    rate, vol, *spots = x
    values = [(s * (vol * s).exp() - rate).softplus() * (s - rate) for s in spots]
    return tapegrad.dot(values, spots[:10] * (len(spots) // 10))


POINTS = {f: [0.3 + 0.2 * math.sin(k) for k in range(n)] for f, n in (
    (rosenbrock, 4000), (chained, 4000), (heat, 600), (portfolio, 4002),
)}  # fmt: skip


@pytest.mark.parametrize("f", POINTS, ids=lambda f: f.__name__)
def test_any_number_of_threads_gives_the_same_bits(f):
    x, program = POINTS[f], record(f, POINTS[f])
    along = [math.cos(k) for k in range(len(x))]
    calls = [
        lambda: [program(x)], lambda: program.grad(x), lambda: program.hvp(x, along),
        lambda: program.jvp((x,), (along,)),
    ]  # fmt: skip
    values = [Value(a) for a in x]
    y = f(values)
    y.backward()
    for call in calls:
        expected = bits(call())
        for n in 2, 3, 7:
            assert bits(on_threads(n, call)) == expected
    assert pieces(program)
    assert on_threads(2, lambda: program(x)) == y.data
    assert on_threads(2, lambda: program.grad(x)) == pytest.approx([v.grad for v in values], rel=1e-11, abs=1e-11)


def term(a, b):
    return (100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2).sin()


def ratios(x):
    """Two totals at once, one of which is read on its way, and asked."""
    up = down = 0.0
    taken = []
    for k, (a, b) in enumerate(zip(x, x[1:])):
        up = up + term(a, b)
        down = down - 0.5 * a.log() - b
        if k % 900 == 800:
            taken.append(up * a)
            if up > 1e6:
                break
    return up / down + tapegrad.sum(taken) + x[5] * down


def ends_early(x):
    """What the total came to is read by all that comes then, and another one begins there."""
    half = len(x) // 2
    total = x[0]
    for a, b in zip(x[:half], x[1:]):
        total += term(a, b)
    rest = total * 0.5
    for a, b in zip(x[half:], x[half + 1 :]):
        rest += term(a, b) * total
    return rest


def with_an_input(x):
    """What is added every now and then is older than the total: operands stand in order."""
    total = x[0]
    for k, (a, b) in enumerate(zip(x, x[1:])):
        total = total + term(a, b)
        if k % 20 == 19:
            total = x[3] + total
        if k % 500 == 7:
            total = total + x[k]
    return total


def adding(step):
    def f(x):
        total = 0.0
        for a, b in zip(x, x[1:]):
            total = step(total, a, b)
        return total

    return f


def far_apart(x):
    """Every other addition is of a product whose factors lie side by side, or anywhere."""
    n, total = len(x), 0.0
    for k in range(n):
        e = x[k] * x[k] - x[k - 1]
        total = total + e.sin() * x[k if k % 1000 < 500 else 7 * k % n]
        total = total + e.tanh()
    return total


def joined_midway(mixed):
    """A total that a chain takes up as what one of its links adds."""

    def f(x):
        n, total, told, chain = len(x), x[1], [], x[0]
        for k in range(2, n):
            a, b = x[k], x[k - 1]
            e = a * a - b * 0.3
            if k < n // 2:
                total = total + e * a
                total = total + (b + 0.25).sin()
            elif k < n - 40:
                told.append((e * b).tanh())
            elif mixed:
                chain = chain + e * 3.0
                chain = chain + (total if k == n - 15 else (a + 0.1).sin())
            else:
                chain = chain + (total if k == n - 15 else x[k - 300])
        return tapegrad.sum([chain, x[5], *told])

    return f


TOTALS = {
    "first": adding(lambda total, a, b: total + term(a, b)),
    "second": adding(lambda total, a, b: term(a, b) + total),
    "taken away": adding(lambda total, a, b: total - term(a, b)),
    "products": adding(lambda total, a, b: 3.0 * b + (total + 100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2 - 2.0 * a)),
    "far apart": far_apart,
    "pairs": adding(lambda total, a, b: total + (term(a, b) + a)),
    "in turn": adding(lambda total, a, b: total + 100.0 * (b - a * a) ** 2 + term(a, b)),
    "the other way round": adding(lambda total, a, b: term(a, b) + total + a.sin() * b.tanh()),
    "decaying": adding(lambda total, a, b: 0.999 * total + term(a, b)),
    "refusing": adding(lambda total, a, b: total + term(a, b).exp().sqrt() / b),
    "with an input": with_an_input,
    "two": ratios,
    "ends early": ends_early,
    "joined midway": joined_midway(False),
    "joined midway, in turn": joined_midway(True),
}


@pytest.mark.parametrize("f", TOTALS.values(), ids=TOTALS)
def test_running_totals_have_the_same_bits(f):
    x = [0.6 + 0.2 * math.sin(k) for k in range(3600)]
    program = record(f, x)
    along = [math.cos(k) for k in range(len(x))]
    values = [Value(a) for a in x]
    y = f(values)
    y.backward()
    for call in (
        lambda: [program(x)], lambda: program.grad(x), lambda: program.hvp(x, along),
        lambda: program.jvp((x,), (along,)),
    ):  # fmt: skip
        expected = bits(call())
        for n in 2, 3:
            assert bits(on_threads(n, call)) == expected
    assert pieces(program)
    assert on_threads(2, lambda: program(x)) == y.data
    assert on_threads(2, lambda: program.grad(x)) == pytest.approx([v.grad for v in values], rel=1e-9, abs=1e-9)
    for k, odd in (10, -0.5), (1700, 0.0), (3599, 1e200), (2500, math.nan), (2900, -math.inf):
        z = [*x[:k], odd, *x[k + 1 :]]
        said, *found = (on_threads(n, lambda z=z: outcome(lambda: [program(z)])) for n in (1, 2, 3))
        for other in found:
            assert other == said or (type(other) is type(said) and str(other) == str(said))


@st.composite
def long_functions(draw):
    """Some 20,000 instructions."""
    if draw(st.booleans()):
        links = draw(LINKED)
        return Totals(links, 20_000 // (4 * len(links) + 2))
    steps = draw(st.lists(STEPS, min_size=2, max_size=8))
    overlap, chained, outputs = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    return Repeats(steps, 20_000 // (2 * len(steps) + 2), overlap, chained, outputs)


@given(f=long_functions(), seed=st.integers(0, 1000), odd=st.sampled_from((50.0, -50.0, -49.0, 1e200, 0.0, math.nan)))
@settings(max_examples=8, deadline=None)
def test_random_functions_give_the_same_on_threads(f, seed, odd):
    x, rng = inputs(f, seed), random.Random(seed)
    program, total = record(f, x), record(lambda x: tapegrad.sum(f(x)), x)
    expected, grad = bits(program(x)), bits(total.grad(x))
    for n in 2, 3:
        assert bits(on_threads(n, lambda: program(x))) == expected
        assert bits(on_threads(n, lambda: total.grad(x))) == grad
    for how_many in 1, 5:
        y = list(x)
        for k in rng.sample(range(f.n_in), how_many):
            y[k] = odd
        said = outcome(lambda y=y: program(y))
        for n in 2, 3:
            found = on_threads(n, lambda y=y: outcome(lambda: program(y)))
            assert found == said or (type(found) is type(said) and str(found) == str(said))


def test_sparse_derivatives_are_shared(sized):
    def brusselator(u):
        return [a * a * b - 0.3 * a + 0.1 * (c - 2.0 * a + d) for a, b, c, d in zip(u, u[1:], u[2:], u[3:])]

    x = [0.3 + 0.2 * math.sin(k) for k in range(sized(8000, 40_000))]
    jacobian = record(brusselator, x).sparse_jacobian()
    expected = jacobian.values(x)
    assert list(on_threads(2, lambda: jacobian.values(x))) == list(expected)
    assert pieces(jacobian.program)


def test_other_paths_are_found_on_threads():
    def f(x):
        return tapegrad.sum([a * 2.0 if a < 0.9 else a * a * 3.0 for a in x]) * tapegrad.dot(x, [a.tanh() for a in x])

    x = [0.5 + 0.01 * math.sin(k) for k in range(6000)]
    y = [0.95 if k in (700, 4000) else a for k, a in enumerate(x)]
    one, other = record(f, x, on_branch="record"), record(f, x, on_branch="record")
    expected = one.value_and_grad(y)
    assert on_threads(2, lambda: other.value_and_grad(y)) == expected
    assert one.stats["paths"] == other.stats["paths"] == 2 and pieces(other)
    with pytest.raises(tapegrad.BranchChanged, match=r"0.95 < 0.9 is False, was True when recorded"):
        on_threads(2, lambda: record(f, x)(y))


def test_pickles_and_copies_do_not_know_of_threads():
    x = POINTS[rosenbrock]
    program = record(rosenbrock, x)
    before = pickle.dumps(program)
    expected = on_threads(2, lambda: program.value_and_grad(x))
    assert pickle.dumps(program) == before
    again = pickle.loads(before)
    assert on_threads(3, lambda: again.value_and_grad(x)) == expected == again.value_and_grad(x)


def test_several_callers_share_the_threads():
    x = POINTS[heat]
    program = record(heat, x)
    expected = program.value_and_grad(x)

    def work():
        for _ in range(20):
            assert program.value_and_grad(x) == expected

    on_threads(2, lambda: together(*[work] * 4))


def test_a_program_that_is_short_stays_as_it_is():
    program = record(rosenbrock, [0.5] * 100)
    assert on_threads(2, lambda: program([0.5] * 100)) == program([0.5] * 100)
    assert not pieces(program)


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", None, True])
def test_a_number_of_threads_that_is_none_is_refused(n):
    with pytest.raises(ValueError, match="the number of threads must be a positive integer, not"):
        tapegrad.set_num_threads(n)
    assert tapegrad.get_num_threads() == 1


def test_the_number_of_threads_is_what_was_said():
    for n in 3, 10**20, 1:
        tapegrad.set_num_threads(n)
        assert tapegrad.get_num_threads() == min(n, 2**31 - 1)


@POSIX
def test_an_interrupt_ends_a_call_and_leaves_all_usable(sized):
    x = [0.3 + 0.2 * math.sin(k) for k in range(sized(12_000, 300_000, cffi=12_000))]
    program = record(rosenbrock, x)
    expected = program.value_and_grad(x)
    tapegrad.set_num_threads(2)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        until = time.monotonic() + 60
        while time.monotonic() < until:
            program.value_and_grad(x)
    timer.join()
    assert program.value_and_grad(x) == expected


@POSIX
def test_a_fork_has_threads_of_its_own(script):
    out = script(
        """
import os, tapegrad
from tapegrad import record
x = [0.001 * k for k in range(8000)]
program = record(lambda x: tapegrad.sum([(a * b).sin() - a for a, b in zip(x, x[1:])]), x)
expected = program.value_and_grad(x)
tapegrad.set_num_threads(2)
assert program.value_and_grad(x) == expected
child = os.fork()
if not child:
    os._exit(program.value_and_grad(x) != expected)
assert program.value_and_grad(x) == expected
print(os.waitpid(child, 0)[1])
"""
    )
    assert out.stdout.split() == ["0"]


def test_a_total_passes_on_what_underflows_as_on_one_thread():
    x = [2.0**-1040, *(0.5 + 0.1 * math.sin(k) for k in range(3600))]

    def f(x):
        total = x[1]
        for a, b in zip(x[1:], x[2:]):
            total = total + term(a, b) * 2.0**700
        return total * x[0]

    program = record(f, x)
    alone = program.grad(x)
    assert list(map(float.hex, on_threads(3, lambda: program.grad(x)))) == list(map(float.hex, alone))


def test_large_arrays_are_copied_by_all_threads():
    np = pytest.importorskip("numpy")
    x = np.linspace(-1.0, 1.0, 70_001)
    program = record(lambda x: tapegrad.sum([a * a * b for a, b in zip(x, x[1:])]), x)
    value, grad = program.value_and_grad(x)
    for n in 2, 3:
        again, same = on_threads(n, lambda: program.value_and_grad(x))
        assert again == value and same.tolist() == grad.tolist()
        assert on_threads(n, lambda: program.hvp(x, x)).tolist() == program.hvp(x, x).tolist()


def test_adjoints_that_underflow_are_flushed_alike():
    def f(x):
        u, taken = x[4:], []
        for level in range(12):
            u = [p * 0.5 + q * 0.25 for p, q in zip(u, u[1:] + u[:1])]
            if level in (2, 9):
                taken.append(x[0] * x[1 if level == 2 else 2])
        return taken[0] * x[3] + taken[1] * x[3] + tapegrad.sum(u)

    x = [1.0, 1.0, -1.5, 2.0**-1022, *(0.1 * math.sin(k) for k in range(700))]
    program = record(f, x)
    alone = program.grad(x)
    assert alone[0] == 0.0
    assert list(map(float.hex, on_threads(3, lambda: program.grad(x)))) == list(map(float.hex, alone))
    assert pieces(program)


def test_little_memory_rests_however_many_threads_shared_a_call():
    """Between calls a program keeps 64 MiB at most, of all threads together, which have memory of their own each."""
    try:
        told = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError, TypeError):
        pytest.skip("needs glibc")
    told.restype = type("Info", (ctypes.Structure,), {"_fields_": [(f"n{k}", ctypes.c_size_t) for k in range(10)]})

    def used():
        info = told()
        return info.n4 + info.n7

    x = [0.25] * 25000
    program = record(rosenbrock, x)
    expected, before = program.grad(x), used()
    assert on_threads(64, lambda: program.grad(x)) == expected
    assert pieces(program)
    assert used() - before < 32 << 20
    assert on_threads(8, lambda: program.grad(x)) == expected
    assert used() - before < 64 << 20
