"""Random programs: a replay must do what recording afresh does, at any inputs, on any path, in any row of a batch."""

from __future__ import annotations

import heapq
import math
import struct

import pytest
import reference
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from reference import STEADY_BINARY, STEADY_UNARY, Node
from tapegrad._core import lib

import tapegrad
from tapegrad import BranchChanged, Value, record

index = st.integers(0, 10**6)
numbers = st.one_of(st.integers(-3, 3).map(float), st.floats(-3, 3, allow_subnormal=False))
several = st.lists(index, min_size=1, max_size=5)
pairs = st.lists(st.tuples(index, index), min_size=1, max_size=4)

SMOOTH = ("tanh", "sigmoid", "softplus", "sin", "cos", "atan", "erf")
SMOOTH_STEPS = (
    st.tuples(st.just("unary"), st.sampled_from(SMOOTH), index),
    st.tuples(st.just("binary"), st.sampled_from(["add", "sub", "mul"]), index, index),
    st.tuples(st.just("binary"), st.sampled_from(["add", "sub", "mul"]), index, index),
    st.tuples(st.just("left"), st.sampled_from(["add", "sub", "mul"]), numbers, index),
    st.tuples(st.just("power"), index, st.sampled_from([0, 1, 2, 3, 2.0])),
    st.tuples(st.just("dot"), pairs, st.one_of(st.none(), index)),
    st.tuples(st.just("sum"), several),
    st.tuples(st.just("logsumexp"), several),
    st.tuples(st.just("cross_entropy"), several, index),
    st.tuples(st.just("mse"), pairs),
    st.tuples(st.just("softmax"), several),
    st.tuples(st.just("affine"), st.lists(several, min_size=1, max_size=3), several, st.booleans()),
    st.tuples(st.just("number"), numbers),
    st.tuples(st.just("captured"), index),
)
STEPS = st.one_of(
    *SMOOTH_STEPS,
    st.tuples(st.just("unary"), st.sampled_from(STEADY_UNARY), index),
    st.tuples(st.just("binary"), st.sampled_from(STEADY_BINARY), index, index),
    st.tuples(st.just("left"), st.sampled_from(STEADY_BINARY), numbers, index),
    st.tuples(st.just("power"), index, st.sampled_from([0, 1, 2, 3, -1, 0.5, -1.5])),
    st.tuples(st.just("hinge"), pairs),
    st.tuples(st.just("branch"), st.integers(0, 3), index, index),
    st.tuples(st.just("branch_on_number"), st.integers(0, 3), index, numbers),
)
programs = st.lists(STEPS, max_size=30)
smooth_programs = st.lists(st.one_of(*SMOOTH_STEPS), min_size=1, max_size=15)
inputs = st.lists(numbers, min_size=3, max_size=3)
outputs = st.lists(index, min_size=1, max_size=4)

LANES = record(lambda x: x, 0.0).stats["lanes"]
CAPTURED = (0.75, -2.0)
HOWS = ("__lt__", "__le__", "__gt__", "__ge__")


class OnTape:
    """What a step does to Values."""

    def leaf(self, x):
        return Value(x)

    def apply(self, name, *operands):
        return reference.apply(name, *operands)

    def left(self, name, x, a):
        return reference.apply(name, x if name in reference.OPERATORS else Value(x), a)

    def power(self, a, k):
        return a**k

    def holds(self, how, a, b):
        return getattr(a, HOWS[how])(b)

    def dot(self, xs, ys, bias):
        return tapegrad.dot(xs, ys, bias)

    def sum(self, xs):
        return tapegrad.sum(xs)

    def logsumexp(self, xs):
        return tapegrad.logsumexp(xs)

    def cross_entropy(self, xs, k):
        return tapegrad.cross_entropy(xs, k)

    def mse(self, xs, ys):
        return tapegrad.mse(xs, ys)

    def hinge(self, xs, ys):
        return tapegrad.hinge(xs, ys)

    def softmax(self, xs):
        return tapegrad.softmax(xs)

    def affine(self, rows, bias, xs):
        return tapegrad.affine(rows, bias, xs)


def run(engine, steps, chosen, xs, captured):
    """The program that these steps are, of inputs xs; the pool of what was computed takes any index."""
    pool = list(xs)

    def at(i):
        return pool[i % len(pool)]

    for kind, *how in steps:
        if kind == "unary":
            pool.append(engine.apply(how[0], at(how[1])))
        elif kind == "binary":
            pool.append(engine.apply(how[0], at(how[1]), at(how[2])))
        elif kind == "left":
            pool.append(engine.left(how[0], how[1], at(how[2])))
        elif kind == "power":
            pool.append(engine.power(at(how[0]), how[1]))
        elif kind == "branch":
            a, b = at(how[1]), at(how[2])
            pool.append(engine.apply("mul" if engine.holds(how[0], a, b) else "sub", a, b))
        elif kind == "branch_on_number":
            a = at(how[1])
            pool.append(engine.apply("sin" if engine.holds(how[0], a, how[2]) else "tanh", a))
        elif kind == "dot":
            xs, ys = [at(i) for i, _ in how[0]], [at(j) for _, j in how[0]]
            pool.append(engine.dot(xs, ys, None if how[1] is None else at(how[1])))
        elif kind in ("mse", "hinge"):
            pool.append(getattr(engine, kind)([at(i) for i, _ in how[0]], [at(j) for _, j in how[0]]))
        elif kind in ("sum", "logsumexp"):
            pool.append(getattr(engine, kind)([at(i) for i in how[0]]))
        elif kind == "softmax":
            pool.extend(engine.softmax([at(i) for i in how[0]]))
        elif kind == "cross_entropy":
            pool.append(engine.cross_entropy([at(i) for i in how[0]], how[1] % len(how[0])))
        elif kind == "affine":
            x = [at(i) for i in how[1]]
            rows = [[at(row[k % len(row)]) for k in range(len(x))] for row in how[0]]
            pool.extend(engine.affine(rows, [row[0] for row in rows] if how[2] else None, x))
        elif kind == "number":
            pool.append(engine.leaf(how[0]))
        else:
            pool.append(captured[how[0] % len(captured)])
    return [pool[-1 - i % len(pool)] for i in chosen]


class Pair:
    """A Value and its counterpart in the closure engine, which bounds what rounding may do."""

    def __init__(self, v, n):
        n.data = v.data
        self.v, self.n = v, n


class OnBoth(OnTape):
    """What a step does to Pairs."""

    def leaf(self, x):
        return Pair(Value(x), Node(x))

    def apply(self, name, *operands):
        return Pair(super().apply(name, *(p.v for p in operands)), safe(name, *(p.n for p in operands)))

    def left(self, name, x, a):
        return Pair(super().left(name, x, a.v), safe(name, Node(x), a.n))

    def power(self, a, k):
        return Pair(a.v**k, safe("pow", a.n, Node(k)))

    def holds(self, how, a, b):
        return super().holds(how, a.v, b.v if isinstance(b, Pair) else b)

    def dot(self, xs, ys, bias):
        v = super().dot([p.v for p in xs], [p.v for p in ys], bias and bias.v)
        return Pair(v, reference.dot([p.n for p in xs], [p.n for p in ys], bias and bias.n))

    def sum(self, xs):
        return Pair(super().sum([p.v for p in xs]), reference.total([p.n for p in xs]))

    def logsumexp(self, xs):
        return Pair(super().logsumexp([p.v for p in xs]), reference.logsumexp_node([p.n for p in xs]))

    def cross_entropy(self, xs, k):
        return Pair(
            super().cross_entropy([p.v for p in xs], k), reference.cross_entropy_node([p.n for p in xs], k)
        )

    def mse(self, xs, ys):
        return Pair(
            super().mse([p.v for p in xs], [p.v for p in ys]),
            reference.mse_node([p.n for p in xs], [p.n for p in ys]),
        )

    def hinge(self, xs, ys):
        return Pair(
            super().hinge([p.v for p in xs], [p.v for p in ys]),
            reference.hinge_node([p.n for p in xs], [p.n for p in ys]),
        )

    def softmax(self, xs):
        total = reference.logsumexp_node([p.n for p in xs])
        return [
            Pair(v, safe("exp", safe("sub", p.n, total))) for v, p in zip(super().softmax([p.v for p in xs]), xs)
        ]

    def affine(self, rows, bias, xs):
        values = super().affine([[p.v for p in row] for row in rows], bias and [b.v for b in bias], [p.v for p in xs])
        ys = [p.n for p in xs]
        return [
            Pair(v, reference.dot([p.n for p in row], ys, bias and bias[k].n))
            for k, (v, row) in enumerate(zip(values, rows))
        ]


def safe(name, *nodes):
    """The node of the closure engine, also where a last digit more is out of the domain; its data is set later."""
    operation = reference.OPERATIONS[name]
    try:
        return reference.record(name, *nodes)
    except (ArithmeticError, ValueError):
        a, b = nodes if len(nodes) == 2 else (nodes[0], Node(0.0))

        def partials(y):
            return operation.da(a.data, b.data, y.data), operation.db(a.data, b.data, y.data)

        return Node(0.0, nodes, lambda y: partials(y)[: len(nodes)])


def bits(xs):
    """What two equal lists of numbers share to the bit; all nans are one."""
    return [b"nan" if math.isnan(x) else struct.pack("<d", x) for x in xs]


def written(steps, chosen):
    """f of one list, which closes over two Values."""
    captured = [Value(x) for x in CAPTURED]
    return lambda xs: run(OnTape(), steps, chosen, xs, captured)


def recorded(steps, chosen, at, **how):
    """The program recorded at these inputs, or no example where f raises there."""
    try:
        return record(written(steps, chosen), at, **how)
    except (ArithmeticError, ValueError):
        assume(False)


def slack_of(root, leaves):
    """1e-12 of the sum of the absolute products along all ways from root to each leaf; inf where there is none."""
    size, heap = {root: 1.0}, [(-root.id, root)]
    while heap:
        _, node = heapq.heappop(heap)
        try:
            partials = node.partials(node)
        except (ArithmeticError, ValueError):
            return [math.inf] * len(leaves)
        for operand, partial in zip(node.operands, partials):
            if operand not in size:
                heapq.heappush(heap, (-operand.id, operand))
            size[operand] = size.get(operand, 0.0) + size[node] * abs(partial)
    return [1e-12 * x if math.isfinite(x) else math.inf for x in (size.get(leaf, 0.0) for leaf in leaves)]


def afresh(steps, chosen, at):
    """Outputs; then for every output the gradient by the inputs and the slack of each entry."""
    leaves = [Pair(Value(x), Node(x)) for x in at]
    ys = run(OnBoth(), steps, chosen, leaves, [Pair(Value(x), Node(x)) for x in CAPTURED])
    rows = []
    for y in ys:
        tapegrad.zero_grad(p.v for p in leaves)
        y.v.backward()
        rows.append(([p.v.grad for p in leaves], slack_of(y.n, [p.n for p in leaves])))
    return [y.v.data for y in ys], rows


def close(got, expected, slack):
    """Within the slack that the closure engine gives to another order of adding; where that is finite."""
    if not math.isfinite(slack) or not math.isfinite(expected):
        return not math.isfinite(slack) or bits([got]) == bits([expected])
    return abs(got - expected) <= 4 * slack + 1e-200  # forward, less underflows than in reverse


@settings(max_examples=250)
@given(programs, outputs, inputs, inputs)
def test_a_replay_gives_the_bits_and_the_derivatives_of_recording_afresh(steps, chosen, first, second):
    program = recorded(steps, chosen, first, on_branch="record")
    for at in (first, second):
        try:
            expected, rows = afresh(steps, chosen, at)
        except (ArithmeticError, ValueError) as refused:
            try:
                program(at)  # what raised may have been dead
            except (ArithmeticError, ValueError) as got:
                assert type(got) is type(refused)
            continue
        assert bits(program(at)) == bits(expected)
        value, pull = program.vjp(at)
        assert bits(value) == bits(expected)
        jacobian = program.jacobian(at)
        for k, (grad, slack) in enumerate(rows):
            (got,) = pull([float(i == k) for i in range(len(rows))])
            assert all(map(close, got, grad, slack)), (got, grad, slack)
            assert all(map(close, jacobian[k], grad, slack)), (jacobian[k], grad, slack)


@given(programs, outputs, inputs, inputs)
def test_a_replay_on_another_branch_raises_and_on_the_same_one_does_not(steps, chosen, first, second):
    program = recorded(steps, chosen, first)
    taken = []

    class Told(OnTape):
        def holds(self, how, a, b):
            taken[-1].append(super().holds(how, a, b))
            return taken[-1][-1]

    try:
        for at in (first, second):
            taken.append([])
            run(Told(), steps, chosen, [Value(x) for x in at], [Value(x) for x in CAPTURED])
    except (ArithmeticError, ValueError):
        assume(False)
    if taken[0] == taken[1]:
        program(second)
    else:
        with pytest.raises(BranchChanged):
            program(second)


@settings(max_examples=80)
@given(programs, outputs, inputs, st.sampled_from([0, 1, 2, LANES - 1, LANES, LANES + 1, 150]), st.integers(0, 9))
@example([("branch", 0, 0, 1)], [0], [1.0, 2.0, 3.0], 150, 5)
def test_a_row_of_a_batch_has_the_bits_of_the_row_alone(steps, chosen, first, rows, salt):
    program = recorded(steps, chosen, first, on_branch="record", on_error="nan")
    scalar = record(lambda xs: tapegrad.sum(written(steps, chosen)(xs)), first, on_branch="record", on_error="nan")
    batch = [[round(math.sin(k * 7 + i + salt) * 3, 1) + x for i, x in enumerate(first)] for k in range(rows)]
    try:
        alone = [program(row) for row in batch]
        gradients = [scalar.grad(row) for row in batch]
    except (ArithmeticError, ValueError):  # f raised when it was to be recorded on another path
        assume(False)
    assert [bits(row) for row in zip(*program.map()(batch))] == [bits(row) for row in alone]
    values, found = scalar.map().value_and_grad(batch)
    assert [bits(row) for row in found] == [bits(row) for row in gradients]
    assert bits(values) == bits([scalar(row) for row in batch])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lib.tg_chunks, "worth", 0)
        sums = []
        for threads in (1, 2, 3):
            value, grads = scalar.map(reduce="sum", threads=threads).value_and_grad(batch)
            assert [bits(row) for row in grads] == [bits(row) for row in gradients]
            sums.append(bits([value]))
    assert sums[0] == sums[1] == sums[2]


@given(smooth_programs, outputs, inputs, inputs, inputs, st.lists(numbers, min_size=4, max_size=4))
def test_the_cotangent_times_jvp_is_vjp_times_the_tangent(steps, chosen, first, at, tangent, cotangent):
    program = recorded(steps, chosen, first)
    expected, rows = afresh(steps, chosen, at)
    assume(all(map(math.isfinite, expected)) and all(math.isfinite(s) for _, slack in rows for s in slack))
    value, forward = program.jvp([at], [tangent])
    _, pull = program.vjp(at)
    (back,) = pull(cotangent[: len(forward)])
    assert bits(value) == bits(expected)
    left = math.fsum(u * d for u, d in zip(cotangent, forward))
    right = math.fsum(g * t for g, t in zip(back, tangent))
    slack = sum(abs(u) * sum(s * abs(t) for s, t in zip(row, tangent)) for u, (_, row) in zip(cotangent, rows))
    assert abs(left - right) <= 10 * slack + 1e-200


@given(smooth_programs, inputs, inputs, inputs)
def test_hvp_is_the_difference_of_gradients_and_the_hessian_is_symmetric(steps, first, at, direction):
    program = record(lambda xs: written(steps, [0])(xs)[0], first)
    h = 1e-5
    up, down = ([x + s * h * d for x, d in zip(at, direction)] for s in (1, -1))
    gradients = [program.grad(x) for x in (up, at, down)]
    assume(all(abs(g) < 1e4 for grad in gradients for g in grad))
    product, hessian = program.hvp(at, direction), program.hessian(at)
    size = 1 + max(abs(x) for row in hessian for x in row)
    assume(size < 1e4)
    third = max(abs(u - 2 * m + d) for u, m, d in zip(*gradients))  # how much the gradient bends
    for got, (u, _, d) in zip(product, zip(*gradients)):
        assert abs(got - (u - d) / (2 * h)) <= 1e-5 * size + third / h * 1e-3 + 1e-4 * abs(got)
    for i in range(3):
        column = program.hvp(at, [float(k == i) for k in range(3)])
        assert column == hessian[i]
        assert all(abs(hessian[i][k] - hessian[k][i]) <= 1e-9 * size for k in range(3))
