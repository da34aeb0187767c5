"""Wide programs, in which instructions of one operation stand together: the bits of Values and of rows in lanes, errors
in the function's order, files and listings."""

from __future__ import annotations

import binascii
import math
import pickle
import random
import struct
import sys
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tapegrad
from tapegrad import Value
from tapegrad.program import BranchChanged, record
from tapegrad.program.file import decode, ffi, lib
from tapegrad.program.replay import Trace

UNARY = ("tanh", "relu", "sigmoid", "sin", "__neg__", "__abs__", "erf", "softplus", "lgamma", "atan")
BINARY = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "max": lambda a, b: a.max(b),
    "less": lambda a, b: a.less(b),
    "square": lambda a, b: a**2,
    "share": lambda a, b: a / (b * b + 1.0),
    "quotient": lambda a, b: a / (b - 50.0),  # what refuses elsewhere
    "log": lambda a, b: (a + 50.0).log(),
    "exp": lambda a, b: (a * 8.0).tanh().exp() + (b * 0.01).exp(),
}
LENGTHS = st.integers(0, 30)
STEPS = st.one_of(
    st.tuples(st.just("unary"), st.sampled_from(UNARY), LENGTHS),
    st.tuples(st.just("binary"), st.sampled_from(sorted(BINARY)), LENGTHS, LENGTHS),
    st.tuples(st.just("guard"), LENGTHS, LENGTHS),
    st.tuples(st.just("where"), LENGTHS, LENGTHS, LENGTHS),
    st.tuples(st.just("dot"), st.lists(st.tuples(LENGTHS, LENGTHS), min_size=1, max_size=5), LENGTHS),
    st.tuples(st.just("sum"), st.lists(LENGTHS, min_size=1, max_size=8)),
    st.tuples(st.just("fsum"), st.lists(LENGTHS, min_size=2, max_size=8)),
    st.tuples(st.just("logsumexp"), st.lists(LENGTHS, min_size=2, max_size=8)),
)


class Repeats:
    """A function that does the same steps over and over, some of it to what is shared, ragged, or of the repeat before.

    Args:
        steps: what a repeat does; operands are what it has by then.
        overlap: repeats share inputs with their neighbours.
        chained: each reads what the one before gave.
    """

    def __init__(self, steps, repeats, overlap, chained, outputs, own=3):
        self.steps, self.repeats, self.chained, self.outputs, self.own = steps, repeats, chained, outputs, own
        self.step = 1 if overlap else own
        self.n_in = 2 + self.step * repeats + own

    def __call__(self, x):
        total, carry, out = x[0] * 0.5, x[1], []
        for k in range(self.repeats):
            had = [*(x[2 + self.step * k + i] for i in range(self.own)), x[0], x[1]]
            for kind, *how in self.steps:
                had.append(getattr(self, kind)(had, *how))
            y = had[-1].tanh() + had[-2] if k % 17 == 3 else had[-1].tanh()
            if self.chained:
                carry = carry * 0.5 + y
                y = carry
            if self.outputs and k % 3 == 0:
                out.append(y)
            total = total + y
        return [total, *out]

    def unary(self, had, name, i):
        a = had[i % len(had)]
        return getattr(a * a + 0.5 if name == "lgamma" else a, name)()

    def binary(self, had, name, i, j):
        return BINARY[name](had[i % len(had)], had[j % len(had)])

    def guard(self, had, i, j):
        a, b = had[i % len(had)], had[j % len(had)]
        return a - 1.5 if a < b else b * 1.5

    def where(self, had, *of):
        return tapegrad.where(*(had[i % len(had)] for i in of))

    def dot(self, had, pairs, bias):
        xs, ys = zip(*((had[i % len(had)], had[j % len(had)]) for i, j in pairs))
        return tapegrad.dot(xs, ys, had[bias % len(had)])

    def sum(self, had, of):
        return tapegrad.sum([had[i % len(had)] for i in of])

    def fsum(self, had, of):
        return tapegrad.math.fsum([had[i % len(had)] for i in of])

    def logsumexp(self, had, of):
        return tapegrad.logsumexp([had[i % len(had)] for i in of])


class Totals:
    """A running total to which a repeat adds these, one after the other.

    Args:
        links: numbers and products, some of which are of what the total was before; what is done with it in between.
    """

    def __init__(self, links, repeats):
        self.links, self.repeats, self.n_in = links, repeats, repeats + 2

    def __call__(self, x):
        total, before, out = x[0], x[1], []
        for a, b in zip(x[1:], x[2:]):
            began = total
            for link in self.links:
                if link == "taken":
                    out.append(total)
                elif link == "read":
                    out.append(total * b)
                else:
                    total = LINKS[link](total, a, b, before, x)
            before = began
        return [total, *out]


def asked(total):
    return total * 0.5 if total > 1e6 else total


LINKS = {
    "number": lambda total, a, b, before, x: total + a.tanh(),
    "from the other side": lambda total, a, b, before, x: b.sin() + total,
    "input": lambda total, a, b, before, x: total + x[0],
    "constant": lambda total, a, b, before, x: total + 0.25,
    "product": lambda total, a, b, before, x: total + a.sin() * b.tanh(),
    "of a constant": lambda total, a, b, before, x: 3.0 * (a - b * b) + total,
    "of inputs": lambda total, a, b, before, x: total + x[0] * a,
    "square": lambda total, a, b, before, x: total + (a - b) * (a - b),
    "of both": lambda total, a, b, before, x: total + (a - b) * (a - b) * b.sin() + a * x[1] * b,
    "earlier": lambda total, a, b, before, x: total + before,
    "of an earlier one": lambda total, a, b, before, x: total + before * 0.001,
    "of its own": lambda total, a, b, before, x: total + total * 0.001,
    "difference": lambda total, a, b, before, x: total - a.sin(),
    "refusing": lambda total, a, b, before, x: total + (a + 50.0).log() * b,
    "asked": lambda total, a, b, before, x: asked(total),
}
LINKED = st.lists(st.sampled_from([*LINKS, "taken", "read"]), min_size=1, max_size=4)
FUNCTIONS = st.one_of(
    st.builds(
        Repeats, st.lists(STEPS, min_size=1, max_size=8), st.sampled_from((3, 40, 75, 130)), st.booleans(),
        st.booleans(), st.booleans(),
    ),
    st.builds(Totals, LINKED, st.sampled_from((3, 70, 131, 260))),
)  # fmt: skip


def inputs(f, seed):
    rng = random.Random(seed)
    return [rng.uniform(-1.5, 1.5) for _ in range(f.n_in)]


def bits(xs):
    return ["nan" if math.isnan(x) else x.hex() for x in xs]


def outcome(call):
    """The bits of what it gives, or what it raises."""
    try:
        return bits(call())
    except (ArithmeticError, ValueError, RuntimeError) as error:
        return error


@given(f=FUNCTIONS, seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_one_row_has_the_bits_of_values_and_of_rows_in_lanes_and_threads(f, seed):
    x = inputs(f, seed)
    values = [Value(number) for number in x]
    results = f(values)
    tapegrad.sum(results).backward()
    program, total = record(f, x), record(lambda x: tapegrad.sum(f(x)), x)
    found, grad = program(x), total.grad(x)
    assert bits(found) == bits([y.data for y in results])
    assert grad == pytest.approx([v.grad for v in values], rel=1e-11, abs=1e-11, nan_ok=True)
    rows, along = [x] * 18, [math.cos(k) for k in range(f.n_in)]
    for threads in 1, 2:
        batch = total.map(0, threads=threads)
        assert bits(batch.grad(rows)[16]) == bits(grad)
        assert bits(batch.hvp(rows, [along] * 18)[17]) == bits(total.hvp(x, along))
    assert bits([column[5] for column in program.map(0)(rows)]) == bits(found)
    assert bits(total.map(0).jvp((rows,), ([along] * 18,))[1][1:2]) == bits([total.jvp((x,), (along,))[1]])
    again = pickle.loads(pickle.dumps(total))
    assert bits(again.grad(x)) == bits(grad) and pickle.dumps(again) == pickle.dumps(total)
    assert (again.stats["groups"], again.stats["width"]) == (total.stats["groups"], total.stats["width"])
    assert str(again) == str(total)
    assert one_by_one(total).grad(x) == pytest.approx(grad, rel=1e-12, abs=1e-12, nan_ok=True)
    if f.n_in < 100:
        assert bits(total.hessian(x)[1]) == bits(total.hvp(x, [float(k == 1) for k in range(f.n_in)]))


def one_by_one(program):
    """The same with the instructions of its path in the function's order, which go one after the other."""
    narrow = pickle.loads(pickle.dumps(program))
    (path,) = narrow._recorded.paths
    plain = lib.tg_plain_program(path.core)
    assert lib.tg_pack_program(plain) == lib.TG_OK
    narrow._recorded.paths[0] = Trace(ffi.gc(plain, lib.tg_free_program), path.codes, 0.0)
    return narrow


@given(f=FUNCTIONS, seed=st.integers(0, 1000), odd=st.sampled_from((50.0, -50.0, -49.0, 1e200, 0.0, 3.0)))
@settings(max_examples=100, deadline=None)
def test_the_first_to_fail_is_the_first_one_by_one(f, seed, odd):
    x, rng = inputs(f, seed), random.Random(seed)
    program = record(f, x)
    narrow = one_by_one(program)
    assert narrow.stats["instructions"] == program.stats["instructions"] and str(narrow) == str(program)
    for how_many in 1, 5, f.n_in:
        y = list(x)
        for k in rng.sample(range(f.n_in), how_many):
            y[k] = rng.choice((odd, rng.uniform(-1.5, 1.5)))
        found, said = outcome(lambda y=y: program(y)), outcome(lambda y=y: narrow(y))
        in_lanes = outcome(lambda y=y: [column[2] for column in program.map(0)([x, x, y])])
        if isinstance(said, list):
            assert found == in_lanes == said
            continue
        assert type(found) is type(in_lanes) is type(said) and str(found) == str(said)
        assert str(in_lanes).replace(" in row 2", "") == str(found)


@given(f=FUNCTIONS, seed=st.integers(0, 1000), odd=st.sampled_from((50.0, -50.0, -49.0, 1e200, math.inf, math.nan)))
@settings(max_examples=30, deadline=None)
def test_refusals_become_nan_alike(f, seed, odd):
    x = inputs(f, seed)
    program = record(f, x, on_error="nan")
    y = [odd if k % 7 == 3 else number for k, number in enumerate(x)]
    found = outcome(lambda: program(y))
    in_lanes = outcome(lambda: [column[2] for column in program.map(0)([x, x, y])])
    assert found == in_lanes or (isinstance(found, BranchChanged) and isinstance(in_lanes, BranchChanged))


def check_bits(f, x, tolerance=1e-12):
    """Values are those of Values, gradients the same in every way and those of Values nearly; the total's program."""
    values = [Value(number) for number in x]
    results = f(values)
    tapegrad.sum(results).backward()
    program, total = record(f, x), record(lambda x: tapegrad.sum(f(x)), x)
    assert bits(program(x)) == bits([y.data for y in results])
    grad = total.grad(x)
    assert grad == pytest.approx([v.grad for v in values], rel=tolerance, abs=tolerance)
    for threads in 1, 2:
        assert bits(total.map(0, threads=threads).grad([x] * 18)[17]) == bits(grad)
    along = [math.cos(k) for k in range(len(x))]
    assert bits(total.hvp(x, along)) == bits(total.map(0).hvp([x, x], [along, along])[1])
    again = pickle.loads(pickle.dumps(total))
    assert bits(again.grad(x)) == bits(grad)
    return total


@pytest.mark.parametrize("rows", [9, 67, 100])
@pytest.mark.parametrize("own", [False, True], ids=["constant rows", "rows that are inputs"])
def test_layers_over_rows_have_the_bits_of_values(rows, own):
    """Sums of products of which one side is the same for all rows, or next to the one before."""
    widths = (3, 7, 16, 4)
    weights = sum((before + 1) * after for before, after in zip(widths, widths[1:]))
    points = [[math.sin(7 * k + i) for i in range(3)] for k in range(rows)]

    def f(x):
        found = []
        for k in range(rows):
            layer, at = x[weights + 3 * k : weights + 3 * k + 3] if own else points[k], 0
            for before, after in zip(widths, widths[1:]):
                sums = []
                for _ in range(after):
                    row = x[at : at + before + 1]
                    at += before + 1
                    if after == 7:  # a network written out, then one of dots, in either order
                        s = row[before]
                        for i in range(before):
                            s = s + row[i] * layer[i]
                    else:
                        s = tapegrad.dot(row[:before], layer, row[before])
                    sums.append(s.relu() if after > 4 else s)
                layer = sums
            found.append(tapegrad.cross_entropy(layer, k % 4))
        return found

    inputs = [math.cos(3 * k) for k in range(weights)] + [z for point in points for z in point if own]
    program = check_bits(f, inputs, 1e-11)
    assert program.stats["groups"]


@pytest.mark.parametrize(("seen", "neurons"), [(70, 9), (3, 18), (12, 9)])
def test_layers_of_any_size_have_the_bits_of_values(seen, neurons):
    """Of more weights than are gathered at a time, more neurons, or some whose weights are shared, or constants."""

    def f(x):
        weights, found = x[: (seen + 1) * neurons], []
        for k in range(20):
            row = x[len(weights) + seen * k : len(weights) + seen * (k + 1)]
            for n in range(neurons):
                own = weights[(seen + 1) * n : (seen + 1) * (n + 1)]
                if seen == 12 and n in (2, 3):
                    own[1 if n == 2 else 0] = 0.5 if n == 2 else weights[4]
                found.append(tapegrad.dot(own[:seen], row, own[seen]))
        return [y.relu() for y in found]

    assert check_bits(f, [math.sin(5 * k) for k in range((seen + 1) * neurons + 20 * seen)], 1e-11).stats["groups"]


@pytest.mark.parametrize("kernel", [2, 3, 9])
def test_moving_sums_have_the_bits_of_values(kernel):
    """Adjoints of the numbers that neighbours share meet in order."""

    def f(x):
        weights, signal = x[: 4 * kernel], x[4 * kernel :]
        found = []
        for k in range(len(signal) - kernel + 1):
            for c in range(4):
                found.append(tapegrad.dot(weights[c * kernel : (c + 1) * kernel], signal[k : k + kernel]).tanh())
            found.append(tapegrad.sum(signal[k : k + kernel]) * tapegrad.math.fsum(signal[k : k + kernel]))
        return found

    assert check_bits(f, [math.sin(5 * k) for k in range(200)]).stats["groups"]


def test_two_grids_side_by_side_are_as_one():
    """Operands that alternate, go by twos, backwards, or over a rim."""
    n = 14

    def f(x):
        u, v = x[::2], x[1::2]
        found = []
        for i in range(n):
            for j in range(n):
                a, b = u[n * i + j], v[n * i + j]
                around = u[n * (i - 1) + j] + u[n * i + (j + 1) % n] - 4.0 * a
                found += [around + a * a * b, 3.5 * a / (b + 2.0) - v[-1 - n * i - j], a.max(b), abs(a - b)]
        return found

    assert check_bits(f, [math.sin(11 * k) for k in range(2 * n * n)]).stats["groups"]


def test_what_takes_turns_is_put_apart():
    """Instructions that have a number in common are a group that has no list of it, in whatever order they are made."""

    def apart(x):
        return [3.0 * a for a in x[:200]] + [5.0 * b for b in x[200:]]

    def in_turn(x):
        return [y for a, b in zip(x[:200], x[200:]) for y in (3.0 * a, 5.0 * b)]

    x = [math.sin(k) for k in range(400)]
    stats = [record(f, x).stats for f in (apart, in_turn)]
    assert stats[0]["groups"] == stats[1]["groups"] == 2
    assert stats[0]["bytes"] == stats[1]["bytes"]
    check_bits(in_turn, x)


@pytest.mark.parametrize("neurons", [1, 7])
def test_adjoints_of_0_pass_nothing_on_to_what_is_infinite(neurons):
    """Of a layer over rows, too, where they are multiplied side by side."""
    n = 6 * neurons

    def f(x):
        found = []
        for k in range(40):
            row = x[n + 6 * k : n + 6 * (k + 1)]
            for i in range(neurons):
                y = tapegrad.dot(x[6 * i : 6 * i + 6], row)
                found.append(tapegrad.where(x[n + k].less(1.3 + 0.01 * (n - 6)), y, 0.0) * x[k])
        return found

    x = [1.0 + 0.01 * k for k in range(n + 6 * 40)]
    total = record(lambda x: tapegrad.sum(f(x)), x)
    x[n + 6 * 33 + 2] = math.inf  # of row 33, whose sum nobody takes
    grad = total.grad(x)
    assert all(math.isfinite(g) for g in grad)
    assert bits(total.map(0).grad([x] * 3)[2]) == bits(grad)


def stencil(u):
    return [0.25 * (a + c) - b * b for a, b, c in zip(u, u[1:], u[2:])]


def test_what_is_wide_is_grouped_and_what_is_not_stays():
    def chain(x):
        for _ in range(2000):
            x = (x * 0.5).tanh()
        return x

    wide, narrow = record(stencil, [0.1] * 1000), record(chain, 0.1)
    assert wide.stats["groups"] >= 3 and wide.stats["width"] > 300
    assert narrow.stats["groups"] == narrow.stats["width"] == 0
    assert record(stencil, [0.1] * 20).stats["groups"] == 0  # not worth it


def rosenbrock(x):
    total = 0.0
    for a, b in zip(x, x[1:]):
        slope, rest = b - a * a, 1.0 - a
        total = total + 100.0 * (slope * slope) + rest * rest
    return total


def test_what_is_in_groups_is_not_stored_besides():
    n = 2000
    program = record(rosenbrock, [0.1] * n)
    assert 7000 < program.stats["instructions"] < 4.1 * n and program.stats["bytes"] < 90 * n
    core = decode(program._recorded.__reduce__()[1][0]).paths[0].core
    assert core.bytes == program.stats["bytes"] and core.n_alone < core.n_instr / 10
    held = 8 * (core.n_const + core.n_pool + core.n_out) + 36 * core.n_alone + 4 * core.n_instr
    groups = ffi.sizeof("tg_group") * core.wide.n + 4 * core.wide.n_list
    assert held + groups < core.bytes < held + groups + 1000


@pytest.mark.parametrize(("f", "each"), [(lambda x: x[0] + x[1] - x[2], 20), (lambda x: x[0] * x[1].sin() * x[2], 36)])
def test_an_instruction_has_its_slots_twice_only_where_derivatives_have_others(f, each):
    program = record(f, [1.0, 2.0, 3.0])
    core = decode(program._recorded.__reduce__()[1][0]).paths[0].core
    held = 8 * (core.n_const + core.n_pool + core.n_out) + each * core.n_alone
    assert core.bytes == held + ffi.sizeof("tg_program") and (core.alone[0] == core.alone[1]) == (each == 20)
    assert program.grad([1.0, 2.0, 3.0]) == tapegrad.grad(f)([1.0, 2.0, 3.0])


ALTERNATING = {
    "number last": lambda total, a, b: total + 100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2,
    "product last": lambda total, a, b: total + (1.0 - a) ** 2 + 100.0 * (b - a * a) ** 2,
    "from the other side": lambda total, a, b: b.sin() * a + ((1.0 - a) ** 2 + total),
    "squares": lambda total, a, b: total + (b - a * a) * (b - a * a) + a.sin(),
}


@pytest.mark.parametrize("link", ALTERNATING.values(), ids=ALTERNATING)
def test_a_total_of_numbers_and_products_in_turn_is_a_chain(link):
    def f(x):
        total = 0.0
        for a, b in zip(x, x[1:]):
            total = link(total, a, b)
        return [total]

    program = check_bits(f, [math.sin(k) for k in range(2000)])
    core = program._recorded.paths[0].core
    chains = [core.wide.group[k] for k in range(core.wide.n) if core.wide.group[k].chain]
    assert sum(g.n for g in chains if g.products in (lib.TG_EVEN, lib.TG_ODD)) > 3900 and core.n_alone < 100


def test_products_alone_are_a_chain_where_each_total_is_read():
    def f(x):
        total, seen = x[0], []
        for a, b in zip(x, x[1:]):
            total = total + a.sin() * b.sin()
            seen.append(total)
        return seen

    program = check_bits(f, [math.sin(k) for k in range(700)])
    core = program._recorded.paths[0].core
    chains = [core.wide.group[k] for k in range(core.wide.n) if core.wide.group[k].chain]
    assert sum(g.n for g in chains if g.products == lib.TG_EVEN | lib.TG_ODD) > 600


def test_slots_are_used_again_beside_results_that_last():
    n = 20_000
    program = record(lambda x: tapegrad.sum([(b - a * a) ** 2 + (1 - a) ** 2 for a, b in zip(x, x[1:])]), [0.1] * n)
    assert program.stats["width"] > 300 and program.stats["instructions"] > 5 * n
    assert program.stats["live_slots"] < 2.2 * n  # inputs, and what is summed


@pytest.mark.parametrize("terms", [iter, list], ids=["each added at once", "all made before"])
def test_sums_that_go_through_the_function_have_the_bits_of_values(terms):
    def f(x):
        total, seen = 0.0, []
        for k, term in enumerate(terms((a * 0.7 + x[3]).tanh() for a in x)):
            total = total + term
            if k % 100 == 7:
                seen.append(total)
        return [total, *seen]

    x = [math.cos(k) for k in range(700)]
    check_bits(f, x)


def test_a_listing_is_in_the_order_of_the_function():
    lines = record(stencil, [0.1] * 1000).listing().splitlines()
    assert [line.split("=")[0].strip() for line in lines[1:-1]] == [f"%{k}" for k in range(len(lines) - 2)]
    assert [line.split("  /")[0].split("  tests")[0].strip() for line in lines[1:4]] == [
        "%0 = in0 + in2", "%1 = %0 * 0.25", "%2 = in1 * in1",
    ]  # fmt: skip


def test_a_program_within_another_is_what_it_is_by_itself():
    x = [0.01 * k for k in range(600)]
    wide = record(stencil, x)
    outer = record(lambda u: tapegrad.sum(wide(u)), x)
    assert outer(x) == tapegrad.sum([Value(y) for y in wide(x)]).data
    assert outer.stats["groups"] > 0 and str(outer).count("in0 + in2") == 1


def test_sparse_derivatives_stop_where_the_function_does():
    def f(u):
        steps = ((a + 3.0).log() * b + (c * c if a < 0.9 else c) for a, b, c in zip(u, u[1:], u[2:]))
        return list(steps)

    x = [0.8 * math.sin(k) for k in range(150)]
    program = record(f, x, on_branch="record")
    assert program.stats["groups"]
    jacobian = program.sparse_jacobian()
    for at, number in ((70, 0.5), (70, 1.5), (20, 1.25)):
        y = [number if k == at else z for k, z in enumerate(x)]
        found = sorted(z for z in jacobian.values(y) if z)
        assert found == pytest.approx(sorted(z for row in program.jacobian(y) for z in row if z), rel=1e-12)
    assert program.stats["paths"] == 3
    y = [-5.0 if k == 100 else z for k, z in enumerate(x)]
    for call in program, jacobian.values:
        with pytest.raises(ValueError, match=r"log\(-2.0\): math domain error, recorded at "):
            call(y)


def test_tiles_give_their_slots_on():
    """What lives within a tile takes the slots of the tile before: a wide program of any length stays in the cache."""
    stats = record(lambda u: tapegrad.sum(stencil(stencil(u))), [0.1] * 6000).stats
    assert stats["groups"] > 10 and stats["live_slots"] < stats["inputs"] + stats["instructions"]


def test_a_file_whose_order_is_none_is_refused():
    program = record(stencil, [0.1] * 300)
    data = program._recorded.__reduce__()[1][0]
    core = decode(data).paths[0].core
    order = array("I", (core.order[k] for k in range(core.n_instr)))
    little = array("I", order)
    if sys.byteorder == "big":
        little.byteswap()
    at = data.index(little.tobytes())
    k_of = {place: k for k, place in enumerate(order)}
    refused = [{0: core.n_instr}, {1: order[0]}, {core.n_instr - 1: 1 << 31}]
    refused.append({k_of[0]: 1, k_of[1]: 0})  # %1 reads %0
    for change in refused:
        words = array("I", (change.get(k, place) for k, place in enumerate(order)))
        if sys.byteorder == "big":
            words.byteswap()
        hostile = data[:at] + words.tobytes() + data[at + 4 * len(words) : -4]
        with pytest.raises(ValueError, match="do not fit together"):
            decode(hostile + struct.pack("<I", binascii.crc32(hostile)))
