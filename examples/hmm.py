"""A hidden Markov model by maximum likelihood, without the EM algorithm: the forward recursion, differentiated.

A machine is in one of three states that nobody sees, and what is measured depends on the state. The forward recursion
in logarithms gives the likelihood; its derivative by the log likelihood of a measurement in a state is the chance that
the machine was in that state then, which is what the backward recursion is for: the sweep is that recursion."""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
from scipy.optimize import minimize

import tapegrad

CHANCES = np.array([[0.95, 0.04, 0.01], [0.05, 0.90, 0.05], [0.02, 0.08, 0.90]])
MEANS, SPREAD = np.array([-2.0, 0.0, 2.5]), 0.8
STATES = 3


def measured(count, seed=3):
    """What was measured, and the states."""
    draw = np.random.default_rng(seed)
    states = [0]
    while len(states) < count:
        states.append(int(draw.choice(STATES, p=CHANCES[states[-1]])))
    return MEANS[states] + SPREAD * draw.standard_normal(count), np.array(states)


def likelihood(logs, chances):
    """The log likelihood of a series.

    Args:
        logs: for each measurement its log likelihood in each state.
        chances: for each state the logarithms of the chances of what comes next.
    """
    ways = [log - math.log(STATES) for log in logs[0]]
    for row in logs[1:]:
        ways = [
            tapegrad.logsumexp([way + chances[j][k] for j, way in enumerate(ways)]) + log for k, log in enumerate(row)
        ]
    return tapegrad.logsumexp(ways)


def unpacked(z):
    """Logarithms of the chances, means, the logarithm of the spread, from numbers without bounds."""
    rows = [[*z[2 * k : 2 * k + 2], 0.0] for k in range(STATES)]
    chances = []
    for row in rows:
        norm = tapegrad.logsumexp(row)
        chances.append([v - norm for v in row])
    return chances, z[6:9], z[9]


def emitted(y, means, log_spread):
    """The log likelihood of a measurement in each state."""
    found = []
    for mean in means:
        off = (y - mean) * (-log_spread).exp()
        found.append(-0.5 * (off * off) - log_spread - 0.5 * math.log(2.0 * math.pi))
    return found


def loss(z, series):
    chances, means, log_spread = unpacked(z)
    return -likelihood([emitted(y, means, log_spread) for y in series], chances)


def start(series):
    """Staying is likely; the means are quantiles."""
    return np.array([2.0, 0.0, 0.0, 2.0, -2.0, -2.0, *np.quantile(series, [0.15, 0.5, 0.85]), 0.0])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--picture", help="a file to draw the chances of the states into; needs matplotlib")
    args = parser.parse_args()
    series, states = measured(args.count, args.seed)
    began = time.perf_counter()
    program = tapegrad.record(loss, start(series), series)
    found = minimize(program.value_and_grad, start(series), (series,), jac=True, method="BFGS", options={"gtol": 1e-4})
    print(f"{program.stats['recorded']} operations, {found.nfev} gradients, {time.perf_counter() - began:.2f} s")
    print(f"log likelihood {-found.fun:.6f}")
    with tapegrad.no_grad():
        chances, means, log_spread = unpacked([tapegrad.Value(v) for v in found.x])
        logs = np.array([tapegrad.data(emitted(y, means, log_spread)) for y in series])
        logged = np.array([tapegrad.data(row) for row in chances])
    print("means", *(f"{v:.3f}" for v in found.x[6:9]), f"spread {math.exp(found.x[9]):.3f}")
    for row in np.exp(logged):
        print("chances", *(f"{v:.3f}" for v in row))

    # The gradient by the log likelihoods of the measurements: chances of the states, given all measurements.
    given = tapegrad.record(likelihood, logs, logged).grad(logs, logged)
    right = (given.argmax(axis=1) == states).mean()
    print(f"sums to 1 within {abs(given.sum(axis=1) - 1.0).max():.0e}, {100 * right:.1f}% of the states are right")
    if args.picture:
        draw(series, given, args.picture)


def draw(series, given, path):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    t = np.arange(min(300, len(series)))
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(8, 5), layout="constrained")
    above.plot(t, series[: len(t)], ".", ms=3)
    above.set_ylabel("measured")
    below.stackplot(t, given[: len(t)].T)
    below.set_ylabel("chances of the states")
    figure.savefig(path)


if __name__ == "__main__":
    main()
