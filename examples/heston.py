"""A call option under Heston's model by Monte Carlo: its price, and all Greeks from one sweep back over each path.

The days are a loop, the paths are its rows, side by side in lanes; the gradient is pathwise. Beside it stand central
differences with the same random numbers, and Heston's semi-analytic price (Review of Financial Studies 6, 1993)."""

from __future__ import annotations

import argparse
import cmath
import math
import time

import numpy as np

import tapegrad

STRIKE, YEARS = 100.0, 1.0
NAMES = ("spot", "variance", "rate", "reversion", "mean variance", "vol of vol", "correlation")
MARKET = (100.0, 0.04, 0.03, 1.5, 0.05, 0.4, -0.6)


def day(state, normals, market, dt):
    """The logarithm of the price and the variance a day later, which may not be negative: full truncation."""
    price, variance = state
    _, _, rate, reversion, mean, vol, correlation = market
    kept = tapegrad.maximum(variance, 0.0)
    root = tapegrad.where(tapegrad.greater(kept, 0.0), tapegrad.math.sqrt(kept * dt + 1e-300), 0.0)
    other = correlation * normals[0] + tapegrad.math.sqrt(1.0 - correlation * correlation) * normals[1]
    price = price + (rate - 0.5 * kept) * dt + root * normals[0]
    return [price, variance + reversion * (mean - kept) * dt + vol * root * other]


def payoff(state, market, dt):
    return tapegrad.math.exp(-market[2] * YEARS) * tapegrad.maximum(tapegrad.math.exp(state[0]) - STRIKE, 0.0)


def analytic(spot, variance, rate, reversion, mean, vol, correlation):
    """The price of the call, from the characteristic function of the logarithm: one integral, by midpoints."""

    def characteristic(u):
        drift = reversion - correlation * vol * 1j * u
        d = cmath.sqrt(drift * drift + vol * vol * (1j * u + u * u))
        g = (drift - d) / (drift + d)
        e = cmath.exp(-d * YEARS)
        level = reversion * mean / vol**2 * ((drift - d) * YEARS - 2.0 * cmath.log((1.0 - g * e) / (1.0 - g)))
        slope = (drift - d) / vol**2 * (1.0 - e) / (1.0 - g * e)
        return cmath.exp(1j * u * (math.log(spot) + rate * YEARS) + level + slope * variance)

    total, du = 0.0, 0.05
    for k in range(4000):  # Lewis's form: along the line i/2
        u = (k + 0.5) * du
        total += (cmath.exp(-1j * u * math.log(STRIKE)) * characteristic(u - 0.5j)).real / (u * u + 0.25) * du
    return spot - math.sqrt(STRIKE) * math.exp(-rate * YEARS) / math.pi * total


def main() -> None:
    parser = argparse.ArgumentParser(description="price a call under Heston's model, with all Greeks")
    parser.add_argument("--paths", type=int, default=50_000, help="default: %(default)s")
    parser.add_argument("--days", type=int, default=100, help="steps of the year (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--picture", help="a file to draw price and slope by the spot into; needs matplotlib")
    args = parser.parse_args()

    dt = YEARS / args.days
    step = tapegrad.record(day, [math.log(100.0), 0.04], [0.0, 0.0], list(MARKET), dt)
    loop = step.scan(final=tapegrad.record(payoff, [math.log(100.0), 0.04], list(MARKET), dt))
    print(f"{args.paths} paths of {args.days} days, {step.stats['recorded']} nodes a day")
    normals = np.random.default_rng(args.seed).normal(size=(args.paths, args.days, 2))
    paths = loop.map(in_axes=(None, 0, None, None), threads=args.threads)

    def greeks_at(market):
        """The payoff of each path, and its gradient by the market; the start is a part of that."""
        state = [math.log(market[0]), market[1]]
        value, (by_state, gradient) = paths.value_and_grad(state, normals, list(market), dt, argnums=(0, 2))
        gradient[:, :2] += by_state / [market[0], 1.0]
        return value, gradient

    def price_at(market):
        """The mean payoff, from the last states alone."""
        states = loop.map(in_axes=(None, 0, None, None), threads=args.threads)(
            [math.log(market[0]), market[1]], normals, list(market), dt
        )[0]
        return math.exp(-market[2] * YEARS) * np.maximum(np.exp(states[0]) - STRIKE, 0.0).mean()

    for native in (False, True):
        if native:
            loop.native()
        greeks_at(MARKET)
        began = time.perf_counter()
        value, greeks = greeks_at(MARKET)
        taken = time.perf_counter() - began
        print(f"price and Greeks in {1e3 * taken:.1f} ms" + (", native" if native else ""))
    root = math.sqrt(args.paths)
    print(f"{'':14}{'Monte Carlo':>16}{'its error':>12}{'differences':>14}{'analytic':>12}")
    print(f"{'price':14}{value.mean():16.4f}{value.std() / root:12.4f}{'':14}{analytic(*MARKET):12.4f}")
    for k, name in enumerate(NAMES):
        size = 1e-4 * max(1.0, abs(MARKET[k]))
        up, down = ([x + s * size * (i == k) for i, x in enumerate(MARKET)] for s in (1.0, -1.0))
        difference = (price_at(up) - price_at(down)) / (2.0 * size)
        exact = (analytic(*up) - analytic(*down)) / (2.0 * size)
        print(f"{name:14}{greeks[:, k].mean():16.4f}{greeks[:, k].std() / root:12.4f}{difference:14.4f}{exact:12.4f}")
    if args.picture:
        draw(greeks_at, args.picture)


def draw(greeks_at, path):
    """Prices by the spot on their analytic curve, each with two standard errors and the slope that came with it."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    spots = np.linspace(80.0, 120.0, 5)
    near = np.array([-8.0, 8.0])
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    fine = np.linspace(spots[0], spots[-1], 41)
    axes.plot(fine, [analytic(spot, *MARKET[1:]) for spot in fine], color="gray", lw=3, alpha=0.5, label="analytic")
    for spot in spots:
        value, greeks = greeks_at([spot, *MARKET[1:]])
        price, error = value.mean(), value.std() / math.sqrt(len(value))
        first = spot == spots[0]
        axes.errorbar(spot, price, 2.0 * error, fmt="k.", capsize=3, label="Monte Carlo" if first else None)
        axes.plot(spot + near, price + near * greeks[:, 0].mean(), "C0", lw=1, label="its slope" if first else None)
    axes.set_xlabel("spot")
    axes.set_ylabel("price")
    axes.legend()
    figure.savefig(path)


if __name__ == "__main__":
    main()
