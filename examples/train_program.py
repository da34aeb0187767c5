"""A model of tapegrad.nn that is trained as a recorded program; its speed beside the same loop on other designs."""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable
from typing import Any

from tapegrad import Value, nn, optim, record, set_grads
from tapegrad.demo.closure import Scalar

LAYERS = 2, [16, 16, 1]
RATE = 0.01


def moons(n: int) -> tuple[list[list[float]], list[float]]:
    """Draw n points from two interleaved half circles, and -1 or 1 for each."""
    X, Y = [], []
    for k in range(n):
        angle = random.uniform(0.0, math.pi)
        x = (math.cos(angle), math.sin(angle)) if k % 2 else (1.0 - math.cos(angle), 0.5 - math.sin(angle))
        X.append([random.gauss(c, 0.1) for c in x])
        Y.append(1.0 if k % 2 else -1.0)
    return X, Y


def on_program(model: nn.MLP, X: list[list[float]], Y: list[float]) -> Callable[[], float]:
    """A step that replays what the loss did on one row, for all rows."""
    opt = optim.Adam(model.parameters(), lr=RATE)

    def loss(x: list[Value], y: Value) -> Value:
        return (-y * model(x)).softplus()

    program = record(loss, X[0], Y[0], params=model.parameters())
    batch = program.map(reduce="mean", threads=2)

    def step() -> float:
        value, grads = batch.value_and_grad(X, Y, argnums="params")
        set_grads(model, grads)
        opt.step()
        return value

    return step


def on_values(model: nn.MLP, X: list[list[float]], Y: list[float]) -> Callable[[], float]:
    """A step that records all rows on the tape."""
    opt = optim.Adam(model.parameters(), lr=RATE)

    def step() -> float:
        loss = sum((-y * model(x)).softplus() for x, y in zip(X, Y)) / len(X)
        opt.zero_grad()
        loss.backward()
        opt.step()
        return loss.data

    return step


def on_closures(model: nn.MLP, X: list[list[float]], Y: list[float]) -> Callable[[], float]:
    """A step of the closure design, an object and a closure an operation, as in micrograd; by gradient descent, which
    is less work than Adam."""
    weights = [[[[Scalar(w.data) for w in n.w], Scalar(n.b.data)] for n in layer.neurons] for layer in model.layers]
    parameters = [p for layer in weights for row, b in layer for p in (*row, b)]

    def score(x: list[Any]) -> Any:
        for depth, layer in enumerate(weights):
            sums = [sum((w * s for w, s in zip(row, x)), b) for row, b in layer]
            x = [s.tanh() for s in sums] if depth < len(weights) - 1 else sums
        return x[0]

    def step() -> float:
        loss = Scalar(0.0)
        for x, y in zip(X, Y):
            loss = loss + ((score(x) * -y).exp() + 1.0).log()
        loss = loss * (1.0 / len(X))
        for p in parameters:
            p.grad = 0.0
        loss.backward()
        for p in parameters:
            p.data -= RATE * p.grad
        return loss.data

    return step


def on_tensors(model: nn.MLP, X: list[list[float]], Y: list[float]) -> Callable[[], float]:
    """A step of PyTorch on the same numbers, on one thread; ImportError without it."""
    import torch

    torch.set_num_threads(1)
    state = [torch.tensor(numbers, dtype=torch.float64) for numbers in model.state_dict().values()]
    weights = [w.requires_grad_() for w in state]
    opt = torch.optim.Adam(weights, lr=RATE)
    inputs, targets = torch.tensor(X, dtype=torch.float64), torch.tensor(Y, dtype=torch.float64)

    def step() -> float:
        x = inputs
        for k in range(0, len(weights), 2):
            x = x @ weights[k].T + weights[k + 1]
            x = x.tanh() if k < len(weights) - 2 else x
        loss = torch.nn.functional.softplus(-targets * x[:, 0]).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        return float(loss.detach())

    return step


def timed(step: Callable[[], float], least: float = 1.0) -> float:
    """Seconds a step takes: the best of steps that take so many seconds together, and of two at least."""
    times: list[float] = []
    while len(times) < 2 or sum(times) < least:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1337)
    args = parser.parse_args()
    random.seed(args.seed)
    X, Y = moons(args.rows)
    model = nn.MLP(*LAYERS, activation="tanh")
    start_from = model.state_dict()
    print(f"{args.rows} rows, {len(model.parameters())} parameters")

    step = on_program(model, X, Y)
    begun = time.perf_counter()
    losses = [step() for _ in range(args.steps)]
    took = time.perf_counter() - begun
    right = sum((model(x).data > 0.0) == (y > 0.0) for x, y in zip(X, Y))
    print(f"loss {losses[0]:.4f}, {losses[-1]:.4f} after {args.steps} steps in {took:.2f} s", end=", ")
    print(f"{right / len(X):.1%} right")

    print(f"{'steps a second':32}{'':>10}{'first loss':>14}")
    for name, design in (
        ("program, 2 threads", on_program), ("tapegrad's Values", on_values), ("PyTorch's tensors", on_tensors),
        ("closures", on_closures),
    ):  # fmt: skip
        model.load_state_dict(start_from)
        try:
            step = design(model, X, Y)
        except ImportError as error:
            print(f"{name:32}{error}")
            continue
        first = step()
        print(f"{name:32}{1.0 / timed(step):10.1f}{first:14.10f}")


if __name__ == "__main__":
    main()
