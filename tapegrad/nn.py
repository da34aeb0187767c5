"""Neurons, layers and multi-layer perceptrons: micrograd's names, weights and numbers, two nodes a neuron."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from .value import Value, affine, dot, zero_grad

__all__ = ["MLP", "Layer", "Module", "Neuron"]


class Module:
    """What has parameters."""

    def parameters(self) -> list[Value]:
        """Return the trainable Values, in a fixed order."""
        return []

    def zero_grad(self) -> None:
        """Set the grad of every parameter to 0."""
        zero_grad(self.parameters())


class Neuron(Module):
    """Weights drawn from U(-1, 1) by the module `random`, a bias of 0.

    Args:
        nin: number of inputs.
        nonlin: whether relu follows the affine map.
    """

    w: list[Value]
    b: Value
    nonlin: bool

    def __init__(self, nin: int, nonlin: bool = True) -> None:
        self.w = [Value(random.uniform(-1, 1)) for _ in range(nin)]
        self.b = Value(0.0)
        self.nonlin = nonlin

    def __call__(self, x: Iterable[Value | float]) -> Value:
        """Return relu(w . x + b), or w . x + b where `nonlin` is false.

        Args:
            x: inputs; the longer of `x` and `w` is cut to the length of the other.
        """
        xs = list(islice(x, len(self.w)))
        act = dot(self.w[: len(xs)], xs, self.b)
        return act.relu() if self.nonlin else act

    def parameters(self) -> list[Value]:
        """Return the weights, then the bias."""
        return [*self.w, self.b]

    def __repr__(self) -> str:
        return f"{'ReLU' if self.nonlin else 'Linear'}Neuron({len(self.w)})"


_OWN_CALL = Neuron.__call__  # what a layer may do in its place; a subclass or a patch may want something else


class Layer(Module):
    """Neurons that read the same inputs.

    Args:
        nin: number of inputs.
        nout: number of neurons.
        nonlin: whether relu follows; the default is a neuron's.
    """

    neurons: list[Neuron]

    def __init__(self, nin: int, nout: int, **kwargs: bool) -> None:
        self.neurons = [Neuron(nin, **kwargs) for _ in range(nout)]

    def __call__(self, x: Iterable[Value | float]) -> Any:
        """Return a list of one Value a neuron; of a single neuron, the Value itself."""
        plain = {type(neuron) for neuron in self.neurons} == {Neuron} and Neuron.__call__ is _OWN_CALL
        out = self._at_once(x) if plain else None
        if out is None:
            out = [neuron(x) for neuron in self.neurons]
        return out[0] if len(out) == 1 else out

    def _at_once(self, x: Iterable[Value | float]) -> list[Value] | None:
        """What the neurons give, in one call; None where they differ in width or activation, or the inputs do."""
        W, nonlin = [neuron.w for neuron in self.neurons], {neuron.nonlin for neuron in self.neurons}
        if not isinstance(x, (list, tuple)) or {*map(len, W)} != {len(x)} or len(nonlin) != 1:
            return None
        return affine(W, [neuron.b for neuron in self.neurons], x, "relu" if nonlin.pop() else None)

    def parameters(self) -> list[Value]:
        """Return the parameters neuron by neuron."""
        return [p for neuron in self.neurons for p in neuron.parameters()]

    def __repr__(self) -> str:
        return f"Layer of [{', '.join(map(str, self.neurons))}]"


class MLP(Module):
    """Layers one after the other; the last is linear.

    Args:
        nin: number of inputs.
        nouts: number of neurons, layer by layer.
    """

    layers: list[Layer]

    def __init__(self, nin: int, nouts: Sequence[int]) -> None:
        sizes = zip([nin, *nouts], nouts)
        self.layers = [Layer(m, n, nonlin=i < len(nouts)) for i, (m, n) in enumerate(sizes, 1)]

    def __call__(self, x: Iterable[Value | float]) -> Any:
        """Return what the last layer makes of `x`."""
        out: Value | list[Value] | Iterable[Value | float] = x
        for layer in self.layers:
            out = layer(out)
        return out

    def parameters(self) -> list[Value]:
        """Return the parameters layer by layer."""
        return [p for layer in self.layers for p in layer.parameters()]

    def __repr__(self) -> str:
        return f"MLP of [{', '.join(map(str, self.layers))}]"
