"""What is measured: the same arithmetic for every contender, over whatever class of numbers it brings.

A workload has starting parameters as one flat list, `arrange` that gives a list like it a structure, and `loss` that
computes one number from the structure. The engine that `loss` is given brings `number` and what `needs` names.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, ClassVar, Protocol

Number = Any  # what has + - * / **
Engine = Any  # see contenders.py


class Workload(Protocol):
    """One computation to differentiate."""

    needs: frozenset[str]
    parameters: list[float]
    update: tuple[str, float]  # "sgd", "adam" or "" and its rate

    def arrange(self, flat: Sequence[Number]) -> Any: ...

    def loss(self, parameters: Any, engine: Engine) -> Number: ...


class Chain:
    """x = x*a + b, a tanh after every tenth, from a fixed point whose slope is just below 1: adjoints stay normal.

    Args:
        size: operations at least; a period has 21.
        saturating: whether there is a tanh; without one, a = 1 keeps the slope.
    """

    PERIOD: ClassVar = 21
    Y = 0.1
    SLOPE = (1 - 1e-4) / (1 - Y * Y)  # of ten steps before the tanh; times tanh' = 1 - y^2 just below 1
    A = SLOPE**0.1
    B = (math.atanh(Y) - SLOPE * Y) * (A - 1) / (SLOPE - 1)

    update = ("", 0.0)

    def __init__(self, size: int, saturating: bool = True) -> None:
        self.periods = -(-size // self.PERIOD)
        self.needs = frozenset({"tanh"} if saturating else ())
        self.parameters = [self.Y, self.A, self.B] if saturating else [self.Y, 1.0, 1e-9]
        self.operations = self.periods * (self.PERIOD if saturating else self.PERIOD - 1)

    def arrange(self, flat: Sequence[Number]) -> Sequence[Number]:
        return flat

    def loss(self, parameters: Sequence[Number], engine: Engine) -> Number:
        x, a, b = parameters
        tanh = engine.tanh if self.needs else lambda x: x
        for _ in range(self.periods):
            for _ in range(10):
                x = x * a + b
            x = tanh(x)
        return x


class Squares:
    """The sum of all parameters' squares, moved by Adam."""

    needs: frozenset[str] = frozenset()
    update = ("adam", 0.001)

    def __init__(self, size: int) -> None:
        draw = random.Random(size).uniform
        self.parameters = [draw(-1, 1) for _ in range(size)]

    def arrange(self, flat: Sequence[Number]) -> Sequence[Number]:
        return flat

    def loss(self, parameters: Sequence[Number], engine: Engine) -> Number:
        return sum(p * p for p in parameters)


class Neuron:
    """One neuron's sum w . x + b, as micrograd writes it or as one `dot`."""

    update = ("", 0.0)

    def __init__(self, size: int, dot: bool = False) -> None:
        draw = random.Random(size).uniform
        self.size = size
        self.needs = frozenset({"dot"} if dot else ())
        self.parameters = [draw(-1, 1) for _ in range(2 * size + 1)]
        self.operations = 2 * size

    def arrange(self, flat: Sequence[Number]) -> tuple[Sequence[Number], Sequence[Number], Number]:
        return flat[: self.size], flat[self.size : -1], flat[-1]

    def loss(self, parameters: tuple[Sequence[Number], Sequence[Number], Number], engine: Engine) -> Number:
        w, x, b = parameters
        if self.needs:
            return engine.dot(w, x, b)
        return sum((wi * xi for wi, xi in zip(w, x)), b)


def moons(samples: int, noise: float, seed: int) -> tuple[list[list[float]], list[float]]:
    """Draw two interleaved half circles.

    Returns:
        Points, and 1.0 or -1.0 for each.
    """
    draw = random.Random(seed)
    points, sides = [], []
    for i in range(samples):
        angle = math.pi * draw.random()
        x, y = math.cos(angle), math.sin(angle)
        if i % 2:
            x, y = 1 - x, 0.5 - y
        points.append([draw.gauss(x, noise), draw.gauss(y, noise)])
        sides.append(1.0 if i % 2 else -1.0)
    return points, sides


class Moons:
    """The loss of micrograd's demo: a multi-layer perceptron, hinge loss, L2.

    Args:
        library: whether the network is the engine's own `MLP`, not operators written out.
    """

    update = ("sgd", 0.05)

    def __init__(self, sizes: Sequence[int] = (2, 16, 16, 1), samples: int = 100, library: bool = False) -> None:
        draw = random.Random(1337).uniform
        self.sizes = sizes
        self.library = library
        self.needs = frozenset({"relu", "mlp"} if library else {"relu"})
        self.points, self.sides = moons(samples, 0.1, 1337)
        self.parameters = [
            w for m, n in zip(sizes, sizes[1:]) for _ in range(n) for w in (*(draw(-1, 1) for _ in range(m)), 0.0)
        ]

    def arrange(self, flat: Sequence[Number]) -> tuple[list[list[tuple[list[Number], Number]]], Sequence[Number]]:
        rest = iter(flat)
        layers = [
            [(list(islice(rest, m)), next(rest)) for _ in range(n)] for m, n in zip(self.sizes, self.sizes[1:])
        ]
        return layers, flat

    def loss(self, parameters: tuple[Any, Sequence[Number]], engine: Engine) -> Number:
        layers, flat = parameters
        number, relu = engine.number, engine.relu
        model = engine.mlp(self.sizes, layers) if self.library else _written_out(layers, relu)
        inputs = [list(map(number, point)) for point in self.points]
        scores = list(map(model, inputs))
        losses = [relu(1 + -yi * scorei) for yi, scorei in zip(self.sides, scores)]
        data_loss = sum(losses) * (1.0 / len(losses))
        reg_loss = 1e-4 * sum(p * p for p in flat)
        return data_loss + reg_loss


def _written_out(layers: Any, relu: Callable[[Number], Number]) -> Callable[[list[Number]], Number]:
    """micrograd's MLP on given weights."""

    def model(x: list[Number]) -> Number:
        for layer in layers[:-1]:
            x = [relu(sum((wi * xi for wi, xi in zip(w, x)), b)) for w, b in layer]
        ((w, b),) = layers[-1]
        return sum((wi * xi for wi, xi in zip(w, x)), b)

    return model


class Gpt:
    """The mean cross-entropy of the next letters of one name under a transformer of one block.

    Width 16, 4 heads, RMS norms, a relu between two linear maps of width 64.

    Args:
        name: letters a to z; one more than these is the length of the context.
        affine: whether linear maps are the engine's `affine`, not sums of products written out.
    """

    WIDTH, HEADS, CONTEXT, SYMBOLS = 16, 4, 16, 27
    SHAPES: ClassVar = {
        "token": (SYMBOLS, WIDTH),
        "position": (CONTEXT, WIDTH),
        "query": (WIDTH, WIDTH),
        "key": (WIDTH, WIDTH),
        "value": (WIDTH, WIDTH),
        "mix": (WIDTH, WIDTH),
        "widen": (4 * WIDTH, WIDTH),
        "narrow": (WIDTH, 4 * WIDTH),
        "score": (SYMBOLS, WIDTH),
    }

    update = ("adam", 0.001)

    def __init__(self, name: str = "Matthew", affine: bool = False) -> None:
        draw = random.Random(42).gauss
        self.affine = affine
        self.needs = frozenset({"exp", "log", "relu", "affine"} if affine else {"exp", "log", "relu"})
        self.tokens = [0, *(ord(letter) - ord("a") + 1 for letter in name.lower()), 0]
        self.parameters = [draw(0.0, 0.08) for rows, columns in self.SHAPES.values() for _ in range(rows * columns)]

    def arrange(self, flat: Sequence[Number]) -> dict[str, list[list[Number]]]:
        rest = iter(flat)
        return {
            name: [list(islice(rest, columns)) for _ in range(rows)] for name, (rows, columns) in self.SHAPES.items()
        }

    def loss(self, parameters: dict[str, list[list[Number]]], engine: Engine) -> Number:
        linear = engine.affine if self.affine else _linear
        exp, log, relu = engine.exp, engine.log, engine.relu
        p, head = parameters, self.WIDTH // self.HEADS
        keys: list[list[Number]] = []
        values: list[list[Number]] = []
        losses = []
        for position, (token, target) in enumerate(zip(self.tokens, self.tokens[1:])):
            x = _norm([t + q for t, q in zip(p["token"][token], p["position"][position])])

            before, x = x, _norm(x)
            query = linear(p["query"], x)
            keys.append(linear(p["key"], x))
            values.append(linear(p["value"], x))
            x = []
            for h in range(0, self.WIDTH, head):
                q = query[h : h + head]
                scores = [sum(a * b for a, b in zip(q, k[h : h + head])) / head**0.5 for k in keys]
                weights = _softmax(scores, exp)
                x += [sum(w * v[j] for w, v in zip(weights, values)) for j in range(h, h + head)]
            x = [a + b for a, b in zip(linear(p["mix"], x), before)]

            before, x = x, _norm(x)
            x = linear(p["narrow"], [relu(a) for a in linear(p["widen"], x)])
            x = [a + b for a, b in zip(x, before)]

            losses.append(-log(_softmax(linear(p["score"], x), exp)[target]))
        return sum(losses) * (1.0 / len(losses))


def _linear(rows: list[list[Number]], x: list[Number]) -> list[Number]:
    return [sum(wi * xi for wi, xi in zip(row, x)) for row in rows]


def _norm(x: list[Number]) -> list[Number]:
    scale = (sum(xi * xi for xi in x) / len(x) + 1e-5) ** -0.5
    return [xi * scale for xi in x]


def _softmax(scores: list[Number], exp: Callable[[Number], Number]) -> list[Number]:
    exps = [exp(s) for s in scores]
    total = sum(exps)
    return [e / total for e in exps]


WORKLOADS: dict[str, Callable[..., Workload]] = {
    "chain": Chain,
    "straight chain": lambda size: Chain(size, saturating=False),
    "squares": Squares,
    "neuron": Neuron,
    "neuron, dot": lambda size: Neuron(size, dot=True),
    "moons": Moons,
    "moons, library": lambda: Moons(library=True),
    "small moons": lambda: Moons((2, 8, 8, 1), 4),
    "small moons, library": lambda: Moons((2, 8, 8, 1), 4, library=True),
    "gpt": Gpt,
    "gpt, affine": lambda: Gpt(affine=True),
    "small gpt": lambda: Gpt("Al"),
    "small gpt, affine": lambda: Gpt("Al", affine=True),
}
