"""A Gaussian process whose kernel is learnt: the marginal likelihood through `tapegrad.linalg`'s Cholesky.

A function is seen at some points, through noise. How smooth it is, how high it goes and how much noise there is, is
what makes the measurements likeliest; the program gives the likelihood's gradient to SciPy's L-BFGS."""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
from scipy.optimize import minimize

import tapegrad
from tapegrad.math import exp, log


def measured(count, seed=2):
    draw = np.random.default_rng(seed)
    x = np.sort(draw.uniform(0.0, 10.0, count))
    return x, np.sin(x) + 0.3 * np.sin(3.1 * x) + 0.15 * draw.standard_normal(count)


def kernel(a, b, logs):
    """How much the function's values at a and b have to do with each other."""
    length, height = logs[0], logs[1]
    return exp(2.0 * height - 0.5 * (a - b) * (a - b) * exp(-2.0 * length))


def loss(logs, x, y):
    """Minus the log likelihood of y at x; logs: of the length, the height and the noise."""
    n, noise = len(x), exp(2.0 * logs[2])
    rows = [[kernel(x[i], x[j], logs) if j < i else 0.0 for j in range(n)] for i in range(n)]
    for i in range(n):
        rows[i][i] = exp(2.0 * logs[1]) + noise
        for j in range(i):
            rows[j][i] = rows[i][j]
    root = tapegrad.linalg.cholesky(rows)
    whitened = []
    for i in range(n):  # forward substitution
        whitened.append((y[i] - tapegrad.dot(root[i][:i], whitened)) / root[i][i] if i else y[0] / root[0][0])
    total = 0.5 * tapegrad.dot(whitened, whitened) + 0.5 * n * math.log(2.0 * math.pi)
    for i in range(n):
        total = total + log(root[i][i])
    return total


def predicted(at, logs, x, y):
    """Mean and standard deviation of the function at these points."""

    def between(a, b):
        return np.exp(2.0 * logs[1] - 0.5 * (a[:, None] - b) ** 2 * np.exp(-2.0 * logs[0]))

    inner = between(x, x) + np.exp(2.0 * logs[2]) * np.eye(len(x))
    cross = between(at, x)
    mean = cross @ np.linalg.solve(inner, y)
    variance = np.exp(2.0 * logs[1]) - np.sum(cross * np.linalg.solve(inner, cross.T).T, axis=1)
    return mean, np.sqrt(np.maximum(variance, 0.0))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--picture", help="a file to draw the process into; needs matplotlib")
    args = parser.parse_args()
    x, y = measured(args.count, args.seed)
    began = time.perf_counter()
    program = tapegrad.record(lambda logs: loss(logs, x.tolist(), y.tolist()), np.zeros(3))
    found = minimize(program.value_and_grad, np.array([0.0, 0.0, -1.0]), jac=True, method="L-BFGS-B")
    print(f"{program.stats['recorded']} operations, {found.nfev} gradients, {time.perf_counter() - began:.2f} s")
    length, height, noise = np.exp(found.x)
    print(f"log likelihood {-found.fun:.6f}: length {length:.4f}, height {height:.4f}, noise {noise:.4f}")
    if args.picture:
        draw(x, y, found.x, args.picture)


def draw(x, y, logs, path):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    at = np.linspace(0.0, 10.0, 400)
    mean, sd = predicted(at, logs, x, y)
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    axes.fill_between(at, mean - 2 * sd, mean + 2 * sd, alpha=0.2, label="two standard deviations")
    axes.plot(at, mean, label="mean")
    axes.plot(at, np.sin(at) + 0.3 * np.sin(3.1 * at), "--", color="gray", label="the function")
    axes.plot(x, y, ".", color="black", label="measured")
    axes.legend()
    figure.savefig(path)


if __name__ == "__main__":
    main()
