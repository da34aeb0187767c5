"""`python -m tapegrad demo`: a network of scalar Values learns the iris data, beside the same on the closure design."""

from __future__ import annotations

import gc
import pathlib
import time
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import tapegrad

from .closure import Scalar
from .iris import Flower, split
from .network import Network, initial_weights
from .progress import Progress

__all__ = ["main"]

RATE = 0.3
ROUNDS = 3  # timed steps of each design with the cyclic gc on, and as many with it off


def main(steps: int, seed: int, page: str | None = None) -> None:
    """Train, print loss and held-out accuracy, then time the same steps on both designs.

    Args:
        steps: training steps, each on the whole training set; at least 1.
        seed: of the split and of the weights.
        page: a file to write a page to that shows it all.
    """
    train, test = split(seed)
    weights = initial_weights(seed)
    network = Network(tapegrad.Value, weights)
    print(f"iris: {len(train)} flowers to learn from, {len(test)} held out; {len(network.parameters)} weights")
    fell = []
    with Progress(steps, "training") as progress:
        for done in range(1, steps + 1):
            fell.append(network.step(train, RATE))
            progress(done, f"loss {fell[-1]:.4f}")
    print(f"loss {network.loss(train).data:.4f}, held-out accuracy {network.accuracy(test):.1%} after {steps} steps\n")

    with Progress(4 * ROUNDS, "timing") as progress:
        tape = _measure(Network(tapegrad.Value, weights), train, progress)
        closures = _measure(Network(Scalar, weights), train, progress, done=2 * ROUNDS)
    apart = max(abs(a - b) / abs(b) for a, b in zip(tape.losses, closures.losses))
    print(f"{'a training step, ms':24}{'gc on':>10}{'gc off':>10}")
    print(f"{f'tapegrad, {tapegrad.tape.handle} handle':24}{tape.gc_on:10.1f}{tape.gc_off:10.1f}")
    print(f"{'closures':24}{closures.gc_on:10.1f}{closures.gc_off:10.1f}")
    print(f"{'ratio':24}{closures.gc_on / tape.gc_on:10.1f}{closures.gc_off / tape.gc_off:10.1f}")
    print(f"largest relative difference between their losses: {apart:.1g}")
    if page is not None:
        from .page import write  # as programs: the demo itself takes none

        write(page, network, fell, train)
        print(f"\nsee it: {pathlib.Path(page).resolve().as_uri()}")


class _Measured(NamedTuple):
    """Median times of a step in milliseconds, and the losses on the way."""

    gc_on: float
    gc_off: float
    losses: list[float]


def _measure(network: Network, flowers: Sequence[Flower], progress: Progress, done: int = 0) -> _Measured:
    """Time the first steps of a network, ROUNDS with the cyclic gc on and then ROUNDS with it off."""
    times: list[float] = []
    losses: list[float] = []
    was_on = gc.isenabled()
    try:
        for switch in (gc.enable, gc.disable):
            gc.collect()
            switch()
            for _ in range(ROUNDS):
                start = time.perf_counter()
                losses.append(network.step(flowers, RATE))
                times.append(1e3 * (time.perf_counter() - start))
                done += 1
                progress(done)
    finally:
        (gc.enable if was_on else gc.disable)()
        gc.collect()
    return _Measured(median(times[:ROUNDS]), median(times[ROUNDS:]), losses)
