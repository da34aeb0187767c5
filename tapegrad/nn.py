"""Neurons, layers and multi-layer perceptrons: micrograd's names, weights and numbers, two nodes a neuron."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from .bulk import zero_grad
from .value import FUSED, OWN_OPERATORS, Value, affine, dot, handle, operators

__all__ = ["MLP", "Layer", "Module", "Neuron", "Value", "random"]  # what micrograd.nn has, for `import *`


def _plain() -> bool:
    """Whether no class of Values can have operators of a program's own."""
    return not Value.__subclasses__() and operators(Value) == OWN_OPERATORS


def _own(values: Iterable[Any]) -> bool:
    """Whether the class of one of them has operators of its own, which are to be called then."""
    return any(issubclass(kind, Value) and operators(kind) != OWN_OPERATORS for kind in {*map(type, values)})


@functools.cache
def _activations() -> set[str]:
    """The methods of the unary rows."""
    from .tape import tape

    return {name for row in tape.operations if row.kind == "unary" for name in (row.method, *row.aliases)}


class Module:
    """What has parameters.

    >>> class Line(nn.Module):
    ...     def __init__(self):
    ...         self.slope = Value(2.0)
    >>> Line().state_dict()
    {'slope': 2.0}
    """

    def parameters(self) -> list[Value]:
        """Return the trainable Values, in a fixed order.

        >>> len(nn.MLP(2, [3, 1]).parameters())
        13
        """
        return []

    def zero_grad(self) -> None:
        """Set the grad of every parameter to 0.

        >>> model = nn.Neuron(2)
        >>> model([1.0, 2.0]).backward()
        >>> model.zero_grad()
        >>> grads(model)
        [0.0, 0.0, 0.0]
        """
        parameters = list(self.parameters())
        try:
            zero_grad(parameters)
        except TypeError:  # one only looks like a Value
            for p in parameters:
                p.grad = 0.0

    def _named(self) -> Iterator[tuple[str, Any]]:
        """The names and Values, or lists of them, that a state has; those of modules inside have dots, as PyTorch's."""
        for name, x in vars(self).items():
            if isinstance(x, Module):
                yield from ((f"{name}.{rest}", values) for rest, values in x._named())
            elif isinstance(x, (list, tuple)) and any(isinstance(item, Module) for item in x):
                for k, item in enumerate(x):
                    if isinstance(item, Module):
                        yield from ((f"{name}.{k}.{rest}", values) for rest, values in item._named())
            elif any(isinstance(v, Value) for v in _flat(x)):
                yield name, x

    def state_dict(self) -> dict[str, Any]:
        """Return the data of the parameters, as numbers and nested lists that JSON and pickle can hold.

        Names are PyTorch's: `layers.0.weight`, one row a neuron, and `layers.0.bias`; in a module of one's own,
        those of the attributes that hold Values, lists of them, and modules.

        >>> list(nn.MLP(1, [2, 1]).state_dict())
        ['layers.0.weight', 'layers.0.bias', 'layers.1.weight', 'layers.1.bias']
        """
        return {name: _numbers(values) for name, values in self._named()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Write what `state_dict` gave into the parameters.

        Args:
            state: numbers, nested lists, or arrays and tensors; that of a PyTorch model of the same names will do.

        Raises:
            ValueError: a name is missing or unknown, or a shape is another; nothing has changed.

        >>> model = nn.Neuron(2)
        >>> model.load_state_dict({"weight": [1.0, 2.0], "bias": 3.0})
        >>> data(model)
        [1.0, 2.0, 3.0]
        """
        named = dict(self._named())
        missing, unknown = sorted(named.keys() - state.keys()), sorted(state.keys() - named.keys())
        if missing or unknown:
            raise ValueError(f"the state and the module differ: missing {missing}, unknown {unknown}")
        pairs = [pair for name, values in named.items() for pair in _paired(name, values, state[name])]
        handle.set_data([v for v, _ in pairs], [number for _, number in pairs])


def _flat(x: Any) -> Iterator[Any]:
    if hasattr(x, "tolist"):
        x = x.tolist()
    return chain.from_iterable(map(_flat, x)) if isinstance(x, (list, tuple)) else iter((x,))


def _numbers(x: Any) -> Any:
    if hasattr(x, "tolist"):
        x = x.tolist()
    return [_numbers(item) for item in x] if isinstance(x, (list, tuple)) else x.data if isinstance(x, Value) else x


def _paired(name: str, values: Any, numbers: Any) -> Iterator[tuple[Any, Any]]:
    if hasattr(values, "tolist"):
        values = values.tolist()
    if hasattr(numbers, "tolist"):
        numbers = numbers.tolist()
    if not isinstance(values, (list, tuple)):
        if isinstance(numbers, (list, tuple)):
            raise ValueError(f"{name}: {len(numbers)} numbers for one Value")
        return iter(((values, numbers),))
    if not isinstance(numbers, (list, tuple)) or len(values) != len(numbers):
        count = len(numbers) if isinstance(numbers, (list, tuple)) else "one number"
        raise ValueError(f"{name}: {count} in the state for {len(values)} in the module")
    return chain.from_iterable(_paired(name, v, number) for v, number in zip(values, numbers))


class Neuron(Module):
    """Weights drawn from U(-1, 1) by the module `random`, a bias of 0.

    Args:
        nin: number of inputs.
        nonlin: whether an activation follows the affine map.
        activation: which; the name of any method of Value that is a unary operation.

    Raises:
        ValueError: there is no such activation.

    >>> nn.Neuron(2, activation="tanh")
    TanhNeuron(2)
    """

    w: list[Value]
    b: Value
    nonlin: bool
    activation: str = "relu"  # of the class: for neurons that were made without `__init__`, too

    def __init__(self, nin: int, nonlin: bool = True, activation: str = "relu") -> None:
        if isinstance(nonlin, str):
            raise ValueError(f"nonlin is True or False, not {nonlin!r}: activation={nonlin!r}")
        if activation != "relu" and activation not in _activations():
            raise ValueError(f"activation must name a unary operation, as 'relu' or 'tanh' do, not {activation!r}")
        self.w = [Value(random.uniform(-1, 1)) for _ in range(nin)]
        self.b = Value(0.0)
        self.nonlin = nonlin
        if activation != "relu":
            self.activation = activation

    def __call__(self, x: Iterable[Value | float]) -> Value:
        """Return activation(w . x + b), or w . x + b where `nonlin` is false.

        Args:
            x: inputs, one a weight; of an iterator, as many are taken.

        Raises:
            ValueError: there are more or fewer inputs than weights.

        >>> neuron = nn.Neuron(2)
        >>> set_data(neuron, [1.0, 2.0, 3.0])
        >>> neuron([10.0, 20.0])
        Value(data=53.0, grad=0.0)
        """
        w = self.w
        xs = x if isinstance(x, (list, tuple)) else list(x if hasattr(x, "__len__") else islice(x, len(w)))
        if len(xs) != len(w):
            raise ValueError(f"a neuron of {len(w)} weights takes {len(w)} inputs, not {len(xs)}")
        if not _plain() and _own((*w, *xs, self.b)):
            act: Value = sum((wi * xi for wi, xi in zip(w, xs)), self.b)
        else:
            act = dot(w, xs, self.b)
        return getattr(act, self.activation)() if self.nonlin else act

    def parameters(self) -> list[Value]:
        """Return the weights, then the bias.

        >>> len(nn.Neuron(2).parameters())
        3
        """
        return [*self.w, self.b]

    def _named(self) -> Iterator[tuple[str, Any]]:
        yield from (("weight", self.w), ("bias", self.b))

    def __repr__(self) -> str:
        name = {"relu": "ReLU"}.get(self.activation, self.activation.capitalize()) if self.nonlin else "Linear"
        return f"{name}Neuron({len(self.w)})"


_OWN_CALL = Neuron.__call__


class Layer(Module):
    """Neurons that read the same inputs.

    Args:
        nin: number of inputs.
        nout: number of neurons.
        kwargs: nonlin and activation; the defaults are a neuron's.

    >>> nn.Layer(2, 3, activation="tanh")
    Layer of [TanhNeuron(2), TanhNeuron(2), TanhNeuron(2)]
    """

    neurons: list[Neuron]

    def __init__(self, nin: int, nout: int, **kwargs: Any) -> None:
        self.neurons = [Neuron(nin, **kwargs) for _ in range(nout)]

    def __call__(self, x: Iterable[Value | float]) -> Any:
        """Return a list of one Value a neuron; of a single neuron, the Value itself.

        >>> len(nn.Layer(2, 3)([1.0, 2.0]))
        3
        """
        plain = {type(neuron) for neuron in self.neurons} == {Neuron} and Neuron.__call__ is _OWN_CALL
        out = self._at_once(x) if plain else None
        if out is None:
            out = [neuron(x) for neuron in self.neurons]
        return out[0] if len(out) == 1 else out

    def _at_once(self, x: Iterable[Value | float]) -> list[Value] | None:
        """What the neurons give, in one call; None where they differ, or the inputs or operators are not plain."""
        kinds = {(n.nonlin and n.activation, len(n.w)) for n in self.neurons}
        if not isinstance(x, (list, tuple)) or len(kinds) != 1:
            return None
        activation, nin = kinds.pop()
        W, b = [n.w for n in self.neurons], [n.b for n in self.neurons]
        if len(x) != nin or (not _plain() and _own(chain(x, b, *W))):
            return None
        if not activation:
            return affine(W, b, x)
        if getattr(Value, activation) is FUSED.get(activation):
            return affine(W, b, x, activation)
        return [getattr(v, activation)() for v in affine(W, b, x)]

    def parameters(self) -> list[Value]:
        """Return the parameters neuron by neuron.

        >>> len(nn.Layer(2, 3).parameters())
        9
        """
        return [p for neuron in self.neurons for p in neuron.parameters()]

    def _named(self) -> Iterator[tuple[str, Any]]:
        yield "weight", [neuron.w for neuron in self.neurons]
        yield "bias", [neuron.b for neuron in self.neurons]

    def __repr__(self) -> str:
        return f"Layer of [{', '.join(map(str, self.neurons))}]"


class MLP(Module):
    """Layers one after the other; the last is linear.

    Args:
        nin: number of inputs.
        nouts: number of neurons, layer by layer.
        kwargs: activation, of all layers but the last; the default is a neuron's.

    >>> nn.MLP(2, [3, 1])
    MLP of [Layer of [ReLUNeuron(2), ReLUNeuron(2), ReLUNeuron(2)], Layer of [LinearNeuron(3)]]
    """

    layers: list[Layer]

    def __init__(self, nin: int, nouts: Sequence[int], **kwargs: Any) -> None:
        sizes = zip([nin, *nouts], nouts)
        self.layers = [Layer(m, n, nonlin=i < len(nouts), **kwargs) for i, (m, n) in enumerate(sizes, 1)]

    def __call__(self, x: Iterable[Value | float]) -> Any:
        """Return what the last layer makes of `x`.

        >>> model = nn.MLP(2, [3, 1])
        >>> set_data(model, [1.0] * 13)
        >>> model([1.0, 2.0])
        Value(data=13.0, grad=0.0)
        """
        out: Any = x
        for layer in self.layers:
            out = layer(out)
        return out

    def parameters(self) -> list[Value]:
        """Return the parameters layer by layer.

        >>> len(nn.MLP(2, [3, 1]).parameters())
        13
        """
        return [p for layer in self.layers for p in layer.parameters()]

    def __repr__(self) -> str:
        return f"MLP of [{', '.join(map(str, self.layers))}]"
