"""A Kalman filter whose noise is learnt: the local linear trend of a series, by maximum likelihood.

The level of a series drifts with a slope that drifts itself, and is seen through noise. The filter gives the likelihood
of the three variances; a program of it, gradient included, is what SciPy's L-BFGS climbs, and its Hessian at the top
tells how sure they are."""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
from scipy.optimize import minimize

import tapegrad

TRUE = np.log([0.25, 0.0025, 1.0])  # variances of the level's steps, the slope's steps, the measurement
WIDE = 1e4  # variance of level and slope before anything is seen


def measured(count, seed=1):
    """A series and the level behind it."""
    draw = np.random.default_rng(seed)
    level_noise, slope_noise, noise = np.sqrt(np.exp(TRUE))
    slope = np.cumsum(slope_noise * draw.standard_normal(count))
    level = np.cumsum(slope + level_noise * draw.standard_normal(count))
    return level + noise * draw.standard_normal(count), level


def filtered(variances, series):
    """Minus the log likelihood, and before each measurement level, slope, and the variance of what is to be measured.

    Args:
        variances: of level, slope and measurement.
        series: what was measured.
    """
    of_level, of_slope, of_noise = variances
    level, slope = 0.0, 0.0
    p, q, r = WIDE, 0.0, WIDE  # the covariance of level and slope: ((p, q), (q, r))
    loss, track = 0.0, []
    for y in series:
        level = level + slope
        p, q, r = p + 2.0 * q + r + of_level, q + r, r + of_slope
        spread = p + of_noise
        track.append((level, slope, spread))
        miss, gain_level, gain_slope = y - level, p / spread, q / spread
        loss = loss + 0.5 * (tapegrad.math.log(spread) + miss * miss / spread)
        level, slope = level + gain_level * miss, slope + gain_slope * miss
        p, q, r = p - gain_level * p, q - gain_level * q, r - gain_slope * q
    return loss + 0.5 * math.log(2.0 * math.pi) * len(series), track


def loss(logs, series):
    return filtered([v.exp() for v in logs], series)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--picture", help="a file to draw level and estimate into; needs matplotlib")
    args = parser.parse_args()
    series, level = measured(args.count, args.seed)
    began = time.perf_counter()
    program = tapegrad.record(loss, np.zeros(3), series)
    options = {"gtol": 1e-6}
    found = minimize(program.value_and_grad, np.zeros(3), (series,), jac=True, method="L-BFGS-B", options=options)
    errors = np.sqrt(np.diag(np.linalg.inv(program.hessian(found.x, series))))
    print(f"{program.stats['recorded']} operations, {found.nfev} gradients, {time.perf_counter() - began:.2f} s")
    print(f"log likelihood {-found.fun:.6f}, {-program(TRUE, series):.6f} at the true variances")
    for name, log, error, true in zip(("level", "slope", "noise"), found.x, errors, TRUE):
        print(f"{name}: log variance {log:+.4f} within {error:.4f}, true {true:+.4f}")
    if args.picture:
        draw(series, level, filtered(np.exp(found.x).tolist(), series.tolist())[1], args.picture)


def draw(series, level, track, path):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    at, _, spread = np.array(track).T
    show = slice(5, 205)  # the first ones know nothing
    t = np.arange(len(series))[show]
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    axes.fill_between(t, (at - 2 * np.sqrt(spread))[show], (at + 2 * np.sqrt(spread))[show], alpha=0.2)
    axes.plot(t, series[show], ".", ms=3, color="gray", label="measured")
    axes.plot(t, level[show], label="level")
    axes.plot(t, at[show], label="foreseen, with two standard deviations")
    axes.legend()
    figure.savefig(path)


if __name__ == "__main__":
    main()
