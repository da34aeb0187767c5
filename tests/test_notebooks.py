"""Five notebooks in which people build and use Value, played with a finished one: the numbers that they print."""

from __future__ import annotations

import pytest

from tapegrad import Value


def trace(root):
    """Nodes and edges below root, as the tutorials' drawings collect them."""
    nodes, edges = set(), set()

    def build(v):
        if v not in nodes:
            nodes.add(v)
            for child in v._prev:
                edges.add((child, v))
                build(child)

    build(root)
    return nodes, edges


def draw(root):
    """Boxes and arrows of a drawing: names are made from id(), as for graphviz."""
    nodes, edges = trace(root)
    boxes, arrows = {}, set()
    for n in nodes:
        uid = str(id(n))
        boxes[uid] = f"{{ {n.label} | data {n.data:.4f} | grad {n.grad:.4f} }}"
        if n._op:
            boxes[uid + n._op] = n._op
            arrows.add((uid + n._op, uid))
    for child, parent in edges:
        arrows.add((str(id(child)), str(id(parent)) + parent._op))
    return boxes, arrows


def topological(root):
    order, seen = [], set()

    def build(v):
        if v not in seen:
            seen.add(v)
            for child in v._prev:
                build(child)
            order.append(v)

    build(root)
    return order


def labelled(**values):
    for label, v in values.items():
        v.label = label
    return values.values()


def expression(a=2.0, b=-3.0, c=10.0, f=-2.0, e_more=0.0, d_more=0.0):
    """(a*b + c) * f with every node labelled; e and d may be nudged on the way."""
    a, b, c, f = labelled(a=Value(a), b=Value(b), c=Value(c), f=Value(f))
    e = a * b
    e.label = "e"
    e.data += e_more
    d = e + c
    if d_more:
        d = Value(d.data + d_more)
    d.label = "d"
    top = d * f
    top.label = "L"
    return a, b, c, f, e, d, top


class Neuron:
    """tanh(x1*w1 + x2*w2 + b), every node labelled."""

    def __init__(self, bias, nudge=0.0):
        self.x1, self.x2 = Value(2.0, label="x1"), Value(0.0, label="x2")
        self.w1, self.w2 = Value(-3.0, label="w1"), Value(1.0, label="w2")
        self.b = Value(bias, label="b")
        if nudge:
            self.w1 += nudge
        self.x1w1, self.x2w2 = labelled(x1w1=self.x1 * self.w1, x2w2=self.x2 * self.w2)
        (self.both,) = labelled(x1w1x2w2=self.x1w1 + self.x2w2)
        (self.n,) = labelled(n=self.both + self.b)
        (self.o,) = labelled(o=self.n.tanh())


def polynomial(x):
    return 3 * x**2 - 4 * x + 5


# a neuron, differentiated by hand


@pytest.fixture
def by_hand():
    k = Neuron(6.881373)
    k.o.grad = 1.0
    k.n.grad = 1 - k.o.data**2
    k.both.grad = k.b.grad = k.x2w2.grad = k.x1w1.grad = k.n.grad
    k.x1.grad = k.w1.data * k.x1w1.grad
    k.w1.grad = k.x1.data * k.x1w1.grad
    k.x2.grad = k.w2.data * k.x2w2.grad
    k.w2.grad = k.x2.data * k.x2w2.grad
    return k


def test_the_neuron_prints_the_numbers_of_the_notebook():
    x1, x2, w1, w2, b = Value(data=2.0), Value(data=0.0), Value(data=-3.0), Value(data=1.0), Value(data=6.881373)
    n = x1 * w1 + x2 * w2 + b
    o = n.tanh()
    assert f"n: {n}" == "n: Value(data=0.881373, grad=0.0)"
    assert f"o: {o}" == "o: Value(data=0.7071064876766542, grad=0.0)"
    o.grad = 1.0
    assert f"o: {o}" == "o: Value(data=0.7071064876766542, grad=1.0)"


@pytest.mark.parametrize(
    ("name", "data", "grad"),
    [
        ("n", 0.881373, 0.5000004150855857),
        ("both", -6.0, 0.5000004150855857),
        ("b", 6.881373, 0.5000004150855857),
        ("x2w2", 0.0, 0.5000004150855857),
        ("x1w1", -6.0, 0.5000004150855857),
        ("x1", 2.0, -1.500001245256757),
        ("w1", -3.0, 1.0000008301711714),
        ("x2", 0.0, 0.5000004150855857),
        ("w2", 1.0, 0.0),
    ],
)
def test_gradients_set_by_hand_are_those_of_the_notebook(by_hand, name, data, grad):
    v = getattr(by_hand, name)
    assert (v.data, v.grad) == (data, grad)


def test_the_sweep_gives_what_was_found_by_hand(by_hand):
    k = Neuron(6.881373)
    k.o.backward()
    assert [v.grad for v in (k.n, k.b, k.x1, k.w1, k.x2, k.w2)] == [
        v.grad for v in (by_hand.n, by_hand.b, by_hand.x1, by_hand.w1, by_hand.x2, by_hand.w2)
    ]


# derivatives as difference quotients


def test_a_polynomial_of_a_value_is_that_of_a_float():
    assert polynomial(Value(3.0)).data == 20.0 and polynomial(Value(4.0)).data == 37.0


def test_a_small_step_gives_the_slope_that_the_notebook_prints():
    h = 0.00000001
    quotient = (polynomial(Value(3.0) + h) - polynomial(Value(3.0))) / h
    assert quotient.data == 14.00000009255109


@pytest.mark.parametrize("x", [3.0, 2.0, 0.0, -1.0, 2 / 3])
def test_the_sweep_gives_the_exact_slope(x):
    v = Value(x)
    polynomial(v).backward()
    assert v.grad == pytest.approx(6 * x - 4, rel=1e-12, abs=1e-12)


def test_a_step_that_is_lost_in_rounding_gives_no_slope():
    h = 0.0000000000000000000000000000001
    assert ((polynomial(Value(2.0) + h) - polynomial(Value(2.0))) / h).data == 0.0


@pytest.mark.parametrize(
    ("name", "value", "slope"),
    [
        ("a", 3.999699999999999, -3.000000000010772),
        ("b", 4.0002, 2.0000000000042206),
        ("c", 4.0001, 0.9999999999976694),
    ],
)
def test_nudged_inputs_move_the_result_as_printed(name, value, slope):
    h = 0.0001
    inputs = {"a": Value(2.0), "b": Value(-3.0), "c": Value(10.0)}
    d1 = inputs["a"] * inputs["b"] + inputs["c"]
    inputs[name] += h
    d2 = inputs["a"] * inputs["b"] + inputs["c"]
    if name == "b":  # there a went up and down again: 2.0001 - 0.0001
        a = Value(2.0)
        a += h
        a -= h
        d2 = a * inputs["b"] + inputs["c"]
    assert (d1.data, d2.data, ((d2 - d1) / h).data) == (4.0, value, slope)


# an expression, its drawing, and one step of ascent


def test_the_expression_has_the_value_and_the_repr_of_the_notebooks():
    *_, top = expression()
    assert repr(top) == "Value(L|data=-8.0, grad=0.0)"


def test_the_parents_of_a_sum_are_its_two_terms():
    *_, d, _ = expression()
    assert ({v.data for v in d._prev}, d._op) == ({-6.0, 10.0}, "+")


def test_a_drawing_has_a_box_a_node_and_a_box_an_operation():
    a, b, c, f, e, d, top = expression()
    boxes, arrows = draw(top)
    assert sorted(boxes.values()) == [
        "*",
        "*",
        "+",
        "{ L | data -8.0000 | grad 0.0000 }",
        "{ a | data 2.0000 | grad 0.0000 }",
        "{ b | data -3.0000 | grad 0.0000 }",
        "{ c | data 10.0000 | grad 0.0000 }",
        "{ d | data 4.0000 | grad 0.0000 }",
        "{ e | data -6.0000 | grad 0.0000 }",
        "{ f | data -2.0000 | grad 0.0000 }",
    ]
    into = {(a, e, "*"), (b, e, "*"), (e, d, "+"), (c, d, "+"), (d, top, "*"), (f, top, "*")}
    assert arrows == {(str(id(v)), str(id(y)) + op) for v, y, op in into} | {
        (str(id(y)) + y._op, str(id(y))) for y in (e, d, top)
    }


def test_a_drawing_finds_nodes_whose_names_were_used_again():
    """Notebooks assign to the same names over and over: the handles are gone, the drawing is not."""
    *_, top = expression()
    boxes, _ = draw(top)
    assert {text.split()[1] for text in boxes.values() if len(text) > 1} == set("abcdefL")


def test_two_drawings_of_one_expression_are_the_same():
    *keep, top = expression()
    assert draw(top) == draw(top) and len(keep) == 6


H = 0.0001
NUDGES = {"a": 6.0, "b": -4.0, "c": -2.0, "f": 4.0, "e_more": -2.0, "d_more": -2.0}


@pytest.mark.parametrize("name", NUDGES)
def test_a_numeric_check_of_every_node_agrees_with_the_sweep(name):
    start = {"a": 2.0, "b": -3.0, "c": 10.0, "f": -2.0, "e_more": 0.0, "d_more": 0.0}[name]
    nudged = expression(**{name: start + H})[-1]
    nodes = expression()
    nodes[-1].backward()
    (grad,) = (v.grad for v in nodes if v.label == name[0])
    assert grad == NUDGES[name] == pytest.approx((nudged.data - nodes[-1].data) / H, rel=1e-9)


def by_the_chain_rule(root):
    """A notebook's own recursion over _prev and _op."""
    children = list(root._prev)
    for i, child in enumerate(children):
        if root._op == "+":
            child.grad = root.grad
        elif root._op == "*":
            child.grad = root.grad * children[1 - i].data
        elif root._op == "tanh":
            child.grad = 1 - root.data**2
        by_the_chain_rule(child)


def test_a_recursion_over_prev_and_op_finds_the_gradients():
    *nodes, top = expression()
    top.grad = 1.0
    by_the_chain_rule(top)
    assert {v.label: v.grad for v in nodes} == {"a": 6.0, "b": -4.0, "c": -2.0, "f": 4.0, "e": -2.0, "d": -2.0}


def test_one_step_of_ascent_goes_up():
    a, b, c, f, e, _, top = expression()
    top.backward()
    for v in (a, b, c, f):
        v.data += 0.01 * v.grad
    e_grad = e.grad
    e = a * b
    e.grad = e_grad
    top = (e + c) * f
    assert (top.data, e.grad) == (pytest.approx(-7.286496, rel=1e-12), -2.0)


def test_an_inline_check_prints_the_quotient_of_the_notebook():
    h = Value(0.001)
    a, b, c, f = Value(2.0) + h, Value(-3.0), Value(10.0), Value(-2.0)
    quotient = ((a * b + c) * f - expression()[-1]) / h
    assert repr(quotient).startswith("Value(data=6.000000000000227")


def test_the_slope_by_a_is_printed_as_found():
    h = 0.001
    quotient = ((Value(2.0) + h) * -3.0 + 10.0 - (Value(2.0) * -3.0 + 10.0)) / h
    assert quotient.data == pytest.approx(-2.999999999999936, rel=1e-9)


# the neuron again, node by node and at once


def test_two_calls_by_hand_give_the_slope_that_is_printed():
    k = Neuron(6.8813735870195432)
    assert (k.n.data, k.o.data) == (0.8813735870195432, 0.7071067811865476)
    k.o.grad = 1.0
    k.o._backward()
    k.n._backward()
    assert (k.n.grad, k.b.grad, k.both.grad) == (0.4999999999999999,) * 3


def test_calls_by_hand_in_order_are_the_sweep():
    hand, swept = Neuron(6.881373), Neuron(6.881373)
    hand.o.grad = 1.0
    for name in ("o", "n", "b", "both", "x2w2", "x1w1", "w2", "w1", "x2", "x1"):
        getattr(hand, name)._backward()
    swept.o.backward()
    assert {k: v.grad for k, v in vars(hand).items()} == {k: v.grad for k, v in vars(swept).items()}


def test_the_sweep_goes_on_from_what_was_done_by_hand():
    """After o._backward() and n._backward() by hand o.backward() adds the whole gradient once more."""
    k = Neuron(6.8813735870195432)
    k.o.grad = 1.0
    k.o._backward()
    k.n._backward()
    k.o.backward()
    assert (k.n.grad, k.b.grad, k.w1.grad) == (2 * 0.4999999999999999, 2 * 0.4999999999999999, 2 * 0.4999999999999999)


def test_a_topological_order_lists_children_first():
    k = Neuron(6.8813735870195432)
    order = topological(k.o)
    position = {v: i for i, v in enumerate(order)}
    assert order[-2:] == [k.n, k.o] and len(order) == 10
    assert all(position[child] < position[v] for v in order for child in v._prev)
    assert sorted(v.data for v in order) == sorted(
        [6.881373587019543, 0.0, 1.0, 0.0, -3.0, 2.0, -6.0, -6.0, 0.8813735870195432, 0.7071067811865476]
    )


def test_the_nodes_of_the_tanh_neuron_show_as_printed_with_their_grads():
    k = Neuron(6.881375870195432)
    assert {repr(v).partition(",")[0] for v in topological(k.o)} == {
        "Value(x2|data=0.0",
        "Value(w2|data=1.0",
        "Value(x2w2|data=0.0",
        "Value(x1|data=2.0",
        "Value(w1|data=-3.0",
        "Value(x1w1|data=-6.0",
        "Value(x1w1x2w2|data=-6.0",
        "Value(b|data=6.881375870195432",
        "Value(n|data=0.8813758701954324",
        "Value(o|data=0.7071079227726492",
    }


def test_tanh_taken_apart_gives_the_same_neuron():
    """(e - 1) / (e + 1) with e = exp(2n), as a notebook decomposes it."""
    n = Neuron(6.881375870195432).n
    e = (2 * n).exp()
    o = (e - 1) / (e + 1)
    o.backward()
    assert (e.data, (e - 1).data, (e + 1).data) == pytest.approx(
        (5.828453739455526, 4.828453739455526, 6.828453739455526), rel=1e-12
    )
    assert (1 / (e + 1)).data == pytest.approx(0.1464460386136754, rel=1e-12)
    assert o.data == pytest.approx(0.7071079227726492, rel=1e-12)
    assert n.grad == pytest.approx(1 - 0.7071079227726492**2, rel=1e-12)


def test_the_quotient_over_the_decomposed_tanh_is_the_printed_one_to_nine_digits():
    h = Value(0.001)
    bias = 6.881375870195432
    quotient = (Neuron(bias, h).o - Neuron(bias).o) / h
    assert quotient.data == pytest.approx(0.9985832274369555, rel=1e-9)


def test_the_quotient_is_near_the_slope():
    k = Neuron(6.881375870195432)
    k.o.backward()
    assert k.w1.grad == pytest.approx(0.9985832274369555, rel=2e-3) and k.w2.grad == 0.0


def test_a_value_used_twice_gets_the_slope_of_both_uses():
    """The bug that every tutorial runs into: b = a + a has slope 2."""
    a = Value(3.0)
    (a + a).backward()
    assert a.grad == 2.0


def test_the_second_example_of_that_bug_comes_out_right_too():
    a, b = Value(-2.0, label="a"), Value(3.0, label="b")
    d, e = a * b, a + b
    f = d * e
    f.backward()
    assert (f.data, d.grad, e.grad, a.grad, b.grad) == (-6.0, 1.0, -6.0, -3.0, -8.0)
