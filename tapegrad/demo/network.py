"""A multi-layer perceptron over any class of numbers: tapegrad's and the closure design run this same code."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .iris import Flower

__all__ = ["Network", "initial_weights"]

SIZES = (4, 16, 16, 3)
Number = Any  # what has + - *, tanh, exp, log, backward, data and grad


def initial_weights(seed: int) -> list[list[list[float]]]:
    """Draw a row of weights and a bias for every neuron of every layer."""
    draw = random.Random(seed).uniform
    return [[[*(draw(-1, 1) / m**0.5 for _ in range(m)), 0.0] for _ in range(n)] for m, n in zip(SIZES, SIZES[1:])]


class Network:
    """Tanh layers, a linear one, and the cross-entropy of its softmax.

    Args:
        number: the class of numbers to compute with.
        weights: where to start.
    """

    def __init__(self, number: Callable[[float], Number], weights: Iterable[Iterable[Iterable[float]]]) -> None:
        self.layers = [[[number(w) for w in row] for row in layer] for layer in weights]
        self.parameters = [w for layer in self.layers for row in layer for w in row]

    def scores(self, x: Sequence[float]) -> list[Number]:
        """Return one score a species."""
        first, *rest = self.layers
        sums = _affine(first, x)
        for layer in rest:
            sums = _affine(layer, [s.tanh() for s in sums])
        return sums

    def loss(self, flowers: Sequence[Flower]) -> Number:
        """Return the mean cross-entropy."""
        total = 0.0
        for x, species in flowers:
            scores = self.scores(x)
            first, *rest = [s.exp() for s in scores]
            total = sum(rest, first).log() - scores[species] + total
        return total * (1.0 / len(flowers))

    def step(self, flowers: Sequence[Flower], rate: float) -> float:
        """Move every parameter down the slope and return the loss before."""
        for p in self.parameters:
            p.grad = 0.0
        loss = self.loss(flowers)
        loss.backward()
        for p in self.parameters:
            p.data -= rate * p.grad
        return float(loss.data)

    def accuracy(self, flowers: Sequence[Flower]) -> float:
        """Return the share of flowers whose species has the highest score."""
        hits = 0
        for x, species in flowers:
            scores = [s.data for s in self.scores(x)]
            hits += scores.index(max(scores)) == species
        return hits / len(flowers)


def _affine(layer: Sequence[Sequence[Number]], signals: Sequence[Number]) -> list[Number]:
    return [sum((w * s for w, s in zip(row, signals)), row[-1]) for row in layer]
