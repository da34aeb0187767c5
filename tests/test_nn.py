"""`tapegrad.nn` against micrograd's neurons, written out below on plain floats."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import random

import pytest

from tapegrad import Value, nn, tape
from tapegrad.nn import MLP, Layer, Module, Neuron


def affine(w, b, x):
    """What micrograd computes, in its order: the bias first, then the products from left to right."""
    for wi, xi in zip(w, x):
        b = b + wi * xi
    return b


@pytest.fixture
def seeded():
    """Python's generator as any program that calls `random.seed(1337)` has it."""
    random.seed(1337)


def weights(model):
    return [p.data for p in model.parameters()]


def test_weights_are_drawn_in_order_from_the_shared_generator(seeded):
    model = MLP(3, [4, 1])
    random.seed(1337)
    drawn = [[*(random.uniform(-1, 1) for _ in range(nin)), 0.0] for nin in (3, 3, 3, 3, 4)]
    assert weights(model) == list(itertools.chain(*drawn))


def test_a_neuron_gives_the_bits_of_micrograd(seeded):
    for nin in (1, 2, 7, 50):
        neuron = Neuron(nin, nonlin=False)
        neuron.b.data = random.uniform(-1, 1)
        x = [random.uniform(-1, 1) for _ in range(nin)]
        assert neuron(x).data == affine([w.data for w in neuron.w], neuron.b.data, x)


def test_a_neuron_is_one_dot_and_one_activation(seeded):
    neuron = Neuron(5)
    x = [Value(float(i)) for i in range(5)]
    before = len(tape)
    y = neuron(x)
    assert len(tape) == before + 2
    assert y._op == "ReLU"
    (act,) = y.operands
    assert act._op == "dot"
    assert act.operands == (*neuron.w, *x, neuron.b)


def test_a_linear_neuron_is_one_dot(seeded):
    neuron = Neuron(2, nonlin=False)
    y = neuron([Value(1.0), Value(2.0)])
    assert y._op == "dot"


def test_relu_cuts_what_is_negative():
    neuron = Neuron(1)
    neuron.w[0].data = 2.0
    assert neuron([3.0]).data == 6.0
    assert neuron([-3.0]).data == 0.0


def test_grads_reach_weights_bias_and_inputs():
    neuron = Neuron(2)
    neuron.w[0].data, neuron.w[1].data, neuron.b.data = 2.0, -1.0, 0.5
    x = [Value(3.0), Value(4.0)]
    neuron(x).backward()
    assert [p.grad for p in neuron.parameters()] == [3.0, 4.0, 1.0]
    assert [v.grad for v in x] == [2.0, -1.0]


@pytest.mark.parametrize("kind", [list, tuple, iter, lambda x: (v for v in x), lambda x: dict.fromkeys(x)])
def test_inputs_may_be_any_iterable(kind):
    neuron = Neuron(2, nonlin=False)
    neuron.w[0].data, neuron.w[1].data = 2.0, 3.0
    assert neuron(kind([5.0, 7.0])).data == 31.0


def test_inputs_may_be_an_array(np):
    neuron = Neuron(2, nonlin=False)
    neuron.w[0].data, neuron.w[1].data = 2.0, 3.0
    assert neuron(np.array([5.0, 7.0])).data == 31.0
    assert neuron(np.array([5, 7], dtype=np.int32)).data == 31.0
    assert neuron(np.array([Value(5.0), 7.0], dtype=object)).data == 31.0


def test_numbers_and_values_may_be_mixed():
    neuron = Neuron(3, nonlin=False)
    for w, data in zip(neuron.w, (2.0, 3.0, 4.0)):
        w.data = data
    assert neuron([1, Value(1.0), True]).data == 9.0


@pytest.mark.parametrize("x", [[], [1.0], [1.0, 2.0, 3.0], (1.0,), iter([1.0]), {1.0: "a"}])
def test_a_wrong_number_of_inputs_is_refused(x):
    count = len(x) if hasattr(x, "__len__") else 1
    with pytest.raises(ValueError, match=f"2 weights takes 2 inputs, not {count}"):
        Neuron(2)(x)


def test_of_an_iterator_as_many_are_taken_as_there_are_weights():
    neuron = Neuron(1, nonlin=False)
    neuron.w[0].data = 2.0
    assert neuron(itertools.count(3)).data == 6.0


def test_an_input_that_is_no_number_is_a_type_error():
    with pytest.raises(TypeError, match="str"):
        Neuron(1)(["3"])
    with pytest.raises(TypeError):
        Neuron(1)(3.0)


def test_a_layer_gives_one_value_a_neuron(seeded):
    layer = Layer(2, 3)
    y = layer([1.0, 2.0])
    assert isinstance(y, list)
    assert [v.data for v in y] == [n([1.0, 2.0]).data for n in layer.neurons]


def test_a_layer_of_one_neuron_gives_the_bare_value(seeded):
    assert type(Layer(2, 1)([1.0, 2.0])) is Value


def test_a_layer_hands_its_options_to_its_neurons():
    assert [n.nonlin for n in Layer(2, 3, nonlin=False).neurons] == [False] * 3
    with pytest.raises(TypeError, match="nonlinear"):
        Layer(2, 3, nonlinear=False)


def test_only_the_last_layer_of_a_perceptron_is_linear():
    layers = MLP(2, [3, 3, 1]).layers
    assert [{n.nonlin for n in layer.neurons} for layer in layers] == [{True}, {True}, {False}]


def test_layer_sizes_may_be_any_sequence():
    assert [len(layer.neurons) for layer in MLP(2, (3, 1)).layers] == [3, 1]


def test_a_perceptron_gives_the_bits_of_micrograd(seeded):
    model = MLP(3, [4, 4, 1])
    x = [2.0, 3.0, -1.0]
    y = model(x)
    for layer in model.layers:
        x = [affine([w.data for w in n.w], n.b.data, x) for n in layer.neurons]
        if layer.neurons[0].nonlin:
            x = [max(v, 0.0) for v in x]
    assert y.data == x[0]


def test_parameters_come_weights_first_layer_by_layer():
    model = MLP(2, [2, 1])
    expected = [p for layer in model.layers for n in layer.neurons for p in (*n.w, n.b)]
    assert all(p is q for p, q in zip(model.parameters(), expected))
    assert len(model.parameters()) == len(expected) == 9
    assert Module().parameters() == []


def test_zero_grad_clears_the_parameters_and_nothing_else():
    model = MLP(2, [2, 1])
    x = Value(1.0)
    for v in (*model.parameters(), x):
        v.grad = 3.0
    model.zero_grad()
    assert {p.grad for p in model.parameters()} == {0.0}
    assert x.grad == 3.0
    Module().zero_grad()


def test_reprs_are_those_of_micrograd():
    assert repr(Neuron(2)) == "ReLUNeuron(2)"
    assert repr(Neuron(2, nonlin=False)) == "LinearNeuron(2)"
    assert repr(Layer(2, 2)) == "Layer of [ReLUNeuron(2), ReLUNeuron(2)]"
    assert repr(MLP(2, [2, 1])) == "MLP of [Layer of [ReLUNeuron(2), ReLUNeuron(2)], Layer of [LinearNeuron(2)]]"


def test_models_of_ones_own_inherit_zero_grad():
    class Line(Module):
        def __init__(self):
            self.a = Value(2.0)

        def __call__(self, x):
            return self.a * x

        def parameters(self):
            return [self.a]

    line = Line()
    line(3.0).backward()
    assert line.a.grad == 3.0
    line.zero_grad()
    assert line.a.grad == 0.0


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_models_copy_and_save(seeded, clone):
    model = MLP(2, [3, 1])
    twin = clone(model)
    assert repr(twin) == repr(model)
    assert twin([1.0, 2.0]).data == model([1.0, 2.0]).data
    twin.layers[0].neurons[0].w[0].data = 7.0
    assert model.layers[0].neurons[0].w[0].data != 7.0


def test_a_training_loop_learns_and_stays_flat(seeded, settle):
    model = MLP(3, [4, 4, 1])
    xs = [[2.0, 3.0, -1.0], [3.0, -1.0, 0.5], [0.5, 1.0, 1.0], [1.0, 1.0, -1.0]]
    ys = [1.0, -1.0, -1.0, 1.0]

    def step():
        loss = sum((model(x) - y) ** 2 for x, y in zip(xs, ys))
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            p.data -= 0.01 * p.grad
        return loss.data

    first = step()
    settle()
    before = len(tape)
    losses = [step() for _ in range(200)]
    settle()
    assert losses[-1] < 0.1 * first
    assert len(tape) <= before


def test_zero_grad_takes_what_only_looks_like_a_value():
    class Weight:
        grad = 3.0

    class Line(Module):
        def parameters(self):
            yield from (a, b)

    a, b = Value(1.0), Weight()
    a.grad = 3.0
    Line().zero_grad()
    assert (a.grad, b.grad) == (0.0, 0.0)


def test_the_module_offers_micrograds_names():
    assert {"Module", "Neuron", "Layer", "MLP", "Value", "random"} == set(nn.__all__)


# activations


@pytest.mark.parametrize(
    "name", [n for row in tape.operations if row.kind == "unary" for n in (row.method, *row.aliases)]
)
def test_any_unary_operation_is_an_activation(name):
    layer, least = Layer(2, 3, activation=name), 1.25 if name in ("acosh", "arccosh") else 0.25
    for k, neuron in enumerate(layer.neurons):
        neuron.w[0].data, neuron.w[1].data, neuron.b.data = 0.25, -0.5, 0.125 * k + least
    x = [1.0, 0.5]
    assert [v.data for v in layer(x)] == [getattr(Value(0.125 * k + least), name)().data for k in range(3)]
    assert [v.data for v in layer(x)] == [neuron(x).data for neuron in layer.neurons]


def test_all_layers_but_the_last_have_the_activation():
    model = MLP(2, [3, 1], activation="tanh")
    assert repr(model) == (
        "MLP of [Layer of [TanhNeuron(2), TanhNeuron(2), TanhNeuron(2)], Layer of [LinearNeuron(3)]]"
    )
    assert {v._op for v in model.layers[0]([1.0, 2.0])} == {"tanh"}


def test_an_activation_changes_no_weights(seeded):
    expected = weights(MLP(2, [3, 1]))
    random.seed(1337)
    assert weights(MLP(2, [3, 1], activation="sigmoid")) == expected


@pytest.mark.parametrize("name", ["tahn", "max", "backward", "", None, 3, "ReLU"])
def test_an_unknown_activation_is_refused(name):
    for make in (lambda: Neuron(2, activation=name), lambda: MLP(2, [2, 1], activation=name)):
        with pytest.raises(ValueError, match=repr(name)):
            make()


def test_an_activation_in_place_of_nonlin_is_refused():
    with pytest.raises(ValueError, match="activation='tanh'"):
        Neuron(2, "tanh")


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_keep_the_activation(clone):
    assert repr(clone(Layer(1, 1, activation="sin"))) == "Layer of [SinNeuron(1)]"


# operators of a program's own


def leaky(v):
    return v if v.data > 0 else v * 0.125


def test_an_activation_that_was_patched_is_called(monkeypatch):
    model = MLP(1, [2, 1])
    for neuron, weight in zip((*model.layers[0].neurons, *model.layers[1].neurons), (1.0, -1.0, 1.0)):
        for w in neuron.w:
            w.data = weight
    monkeypatch.setattr(Value, "relu", leaky)
    assert [v.data for v in model.layers[0]([2.0])] == [2.0, -0.25]
    assert model([2.0]).data == 1.75


@pytest.mark.parametrize("method", ["__mul__", "__add__"])
def test_an_operator_that_was_patched_is_called(monkeypatch, method):
    own, calls = getattr(Value, method), []

    def counted(self, other):
        calls.append(1)
        return own(self, other)

    layer = Layer(2, 3)
    expected = [v.data for v in layer([1.0, -2.0])]
    monkeypatch.setattr(Value, method, counted)
    assert [v.data for v in layer([1.0, -2.0])] == expected
    assert len(calls) == 6


class Counted(Value):
    calls = 0

    def __mul__(self, other):
        Counted.calls += 1
        return Value.__mul__(self, other)

    def __rmul__(self, other):
        Counted.calls += 1
        return Value.__mul__(self, other)


class Quiet(Value):
    pass


@pytest.mark.parametrize("where", ["weight", "input"])
def test_operators_of_a_subclass_are_called(where):
    layer, x = Layer(2, 2), [Value(1.0), Value(-2.0)]
    expected = [v.data for v in layer(x)]
    if where == "weight":
        layer.neurons[1].w = [Counted(w.data) for w in layer.neurons[1].w]
    else:
        x = [1.0, Counted(-2.0)]
        layer.neurons[0].w[1] = layer.neurons[0].w[1].data
    before = Counted.calls
    assert [v.data for v in layer(x)] == expected
    assert Counted.calls - before == 2
    before = Counted.calls
    assert [neuron(x).data for neuron in layer.neurons] == expected
    assert Counted.calls > before


def test_a_subclass_without_operators_of_its_own_is_as_quick():
    layer = Layer(2, 2)
    layer.neurons[0].w = [Quiet(w.data) for w in layer.neurons[0].w]
    assert layer([1.0, 2.0])[0].operands[0]._op == "dot"


# states


def test_a_state_has_the_names_and_shapes_of_pytorch():
    """
    layers = torch.nn.ModuleList([torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)])
    model = torch.nn.Module(); model.layers = layers
    {name: tuple(x.shape) for name, x in model.state_dict().items()}
    """
    state = MLP(2, [3, 1]).state_dict()
    shapes = {name: (len(x), len(x[0])) if isinstance(x[0], list) else (len(x),) for name, x in state.items()}
    assert shapes == {
        "layers.0.weight": (3, 2), "layers.0.bias": (3,), "layers.1.weight": (1, 3), "layers.1.bias": (1,),
    }  # fmt: skip
    assert list(Neuron(2).state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize("through", [lambda state: state, lambda state: json.loads(json.dumps(state))])
def test_a_state_makes_another_model_the_same(through):
    model, twin = MLP(2, [3, 1]), MLP(2, [3, 1])
    twin.load_state_dict(through(model.state_dict()))
    assert weights(twin) == weights(model)
    assert twin.state_dict() == model.state_dict()


def test_a_state_may_be_of_arrays(np):
    model, twin = MLP(2, [3, 1]), MLP(2, [3, 1])
    twin.load_state_dict({name: np.array(x) for name, x in model.state_dict().items()})
    assert weights(twin) == weights(model)


class Mixed(Module):
    def __init__(self):
        self.name, self.scale = "mixed", Value(2.0)
        self.table = [[Value(1.0), Value(2.0)], [Value(3.0), Value(4.0)]]
        self.inner = Neuron(1)
        self.rest = [Layer(1, 1), "no module"]


def test_a_module_of_ones_own_has_the_names_of_its_attributes():
    model, twin = Mixed(), Mixed()
    state = model.state_dict()
    assert list(state) == ["scale", "table", "inner.weight", "inner.bias", "rest.0.weight", "rest.0.bias"]
    assert (state["scale"], state["table"]) == (2.0, [[1.0, 2.0], [3.0, 4.0]])
    model.table[1][0].data = 7.0
    twin.load_state_dict(model.state_dict())
    assert twin.state_dict() == model.state_dict()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: s.pop("layers.1.bias"), ValueError, r"missing \['layers.1.bias'\]"),
        (lambda s: s.update(more=[1.0]), ValueError, r"unknown \['more'\]"),
        (lambda s: s["layers.1.weight"][0].pop(), ValueError, r"layers.1.weight: 2 in the state for 3"),
        (lambda s: s.update({"layers.1.bias": 1.0}), ValueError, "layers.1.bias: one number in the state for 1"),
        (lambda s: s.update({"layers.1.bias": [[1.0]]}), ValueError, "layers.1.bias: 1 numbers for one Value"),
        (lambda s: s.update({"layers.1.bias": ["x"]}), TypeError, "str"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, error, message):
    model, state = MLP(2, [3, 1]), MLP(2, [3, 1]).state_dict()
    before = model.state_dict()
    change(state)
    with pytest.raises(error, match=message):
        model.load_state_dict(state)
    assert model.state_dict() == before
