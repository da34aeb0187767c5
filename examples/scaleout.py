"""Robust regression on more rows than are ever held at once: each task makes its block, and gives back a gradient."""

from __future__ import annotations

import argparse
import time
from typing import Any

import dask
import distributed
import numpy as np

import tapegrad.dask
from tapegrad import Value
from tapegrad.demo.progress import Progress

WEIGHTS = [1.0, -2.0, 0.5]
BIAS = 0.25


def loss(w: list[Value], x: list[Value], y: Value) -> Value:
    """Huber's: square near 0, straight beyond, so that outliers pull no more than others."""
    off = (tapegrad.dot(w[:-1], x) + w[-1] - y).abs()
    return off * off / 2 if off < 1 else off - 0.5


def make_block(seed: int, rows: int) -> tuple[Any, Any]:
    """Rows that follow the weights, with noise, and one in twenty far off; read them from a file in earnest."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows, len(WEIGHTS)))
    y = x @ WEIGHTS + BIAS + draw.normal(scale=0.1, size=rows)
    return x, np.where(draw.random(rows) < 0.05, y + 10.0, y)


def main() -> None:
    parser = argparse.ArgumentParser(description="fit weights on blocks of rows that workers make as they need them")
    parser.add_argument("--rows", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument("--block", type=int, default=100_000, help="rows of a block (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="of gradient descent (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    args = parser.parse_args()
    sizes = [min(args.block, args.rows - start) for start in range(0, args.rows, args.block)]
    width = 8 * (len(WEIGHTS) + 1) / 1e6
    print(
        f"{args.rows} rows in {len(sizes)} blocks of {args.block} on {args.workers} workers: "
        f"{args.rows * width:.0f} MB, {args.block * width:.1f} MB a block"
    )

    w, x = [0.0] * (len(WEIGHTS) + 1), [0.0] * len(WEIGHTS)
    program = tapegrad.record(loss, w, x, 0.0, on_branch="record")
    program(w, x, 10.0)  # workers do not record: both branches have to be known
    batch = program.map(in_axes=(None, 0, 0), reduce="mean")

    cluster = distributed.LocalCluster(n_workers=args.workers, threads_per_worker=1, dashboard_address=None)
    began = time.perf_counter()
    with cluster, distributed.Client(cluster), Progress(args.steps, "step") as progress:
        for step in range(args.steps):
            blocks = [dask.delayed(make_block, nout=2)(seed, rows) for seed, rows in enumerate(sizes)]
            xs, ys = zip(*blocks)
            mean, grad = tapegrad.dask.value_and_grad(batch, w, xs, ys)
            w = [wi - g for wi, g in zip(w, grad)]
            progress(step + 1, f"loss {mean:.4f}")
        taken = time.perf_counter() - began
    print(f"weights {' '.join(f'{wi:.3f}' for wi in w)} loss {mean:.4f}")
    print(f"{args.steps} steps in {taken:.1f} s, {args.steps * args.rows / taken / 1e6:.1f} million rows a second")


if __name__ == "__main__":
    main()
