"""Swaptions in the LIBOR market model, with all sensitivities of every path: Giles' and Glasserman's test.

80 forward rates of a quarter of a year are simulated for 40 quarters; 15 swaptions are valued at the end. A path is a
program of a start, a volatility for each maturity, the discount rate of the first quarter and 40 normal numbers; its
gradient has 161 numbers, and `map` adds them up over the paths. "Smoking adjoints", Risk, January 2006."""

from __future__ import annotations

import argparse
import math
import time

import numpy as np

import tapegrad

QUARTER = 0.25  # years
STEPS, RATES = 40, 80
MATURITIES = [4, 4, 4, 8, 8, 8, 20, 20, 20, 28, 28, 28, 40, 40, 40]  # quarters that a swap lasts
STRIKES = [0.045, 0.05, 0.055] * 5
NOTIONAL = 100.0


def evolved(rates, volatilities, normals, exp=tapegrad.Value.exp):
    """The rates after as many steps as there are normal numbers; those that have been fixed stay as they are.

    Every rate follows a geometric Brownian motion, its drift being that of the spot measure, by Euler's rule for the
    logarithm. One normal number moves all rates of a step."""
    rates = list(rates)
    for n, z in enumerate(normals):
        drift = 0.0
        for i in range(n + 1, len(rates)):
            volatility = volatilities[i - n - 1]
            share = QUARTER * volatility * rates[i] / (1.0 + QUARTER * rates[i])
            drift = drift + share
            move = volatility * (drift - 0.5 * volatility) * QUARTER + volatility * math.sqrt(QUARTER) * z
            rates[i] = rates[i] * exp(move)
    return rates


def payoff(rates, first, steps, relu=tapegrad.Value.relu):
    """All swaptions after so many steps, discounted to the start; `first` is the rate of the first quarter."""
    discount, bond, annuity, bonds, annuities = 1.0, 1.0, 0.0, [], []
    for rate in rates[steps:]:
        bond = bond / (1.0 + QUARTER * rate)
        annuity = annuity + QUARTER * bond
        bonds.append(bond)
        annuities.append(annuity)
    for rate in [first, *rates[1:steps]]:
        discount = discount / (1.0 + QUARTER * rate)
    total = 0.0
    for quarters, strike in zip(MATURITIES, STRIKES):
        if quarters <= len(bonds):
            swap = strike * annuities[quarters - 1] + bonds[quarters - 1] - 1.0
            total = total + relu(-swap)
    return discount * total * NOTIONAL


def value(market, normals, exp=tapegrad.Value.exp, relu=tapegrad.Value.relu):
    """Of a path; market: the rate of the first quarter, the forward rates, the volatilities."""
    n = len(market) // 2
    rates, volatilities = market[1 : n + 1], market[n + 1 :]
    return payoff(evolved(rates, volatilities, normals, exp), market[0], len(normals), relu)


def start(rates=RATES):
    """A flat market."""
    return np.concatenate([[0.05], np.full(rates, 0.05), np.full(rates, 0.2)])


def paths(rates=RATES, steps=STEPS):
    """The program of a path, recorded once."""
    return tapegrad.record(lambda market, normals: value(market, normals), start(rates), np.zeros(steps))


def drawn(count, steps=STEPS, seed=1):
    return np.random.default_rng(seed).standard_normal((count, steps))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--paths", type=int, default=10_000)
    parser.add_argument("--rates", type=int, default=RATES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--picture", help="a file to draw the sensitivities into; needs matplotlib")
    args = parser.parse_args()
    market, normals = start(args.rates), drawn(args.paths, args.steps)

    began = time.perf_counter()
    program = paths(args.rates, args.steps)
    recorded = time.perf_counter() - began
    batch = program.map((None, 0), reduce="mean", threads=2)
    began = time.perf_counter()
    batch(market, normals)
    plain = time.perf_counter() - began
    began = time.perf_counter()
    price, slopes = batch.value_and_grad(market, normals)
    whole = time.perf_counter() - began

    by_rate, by_volatility = slopes[1 : args.rates + 1], slopes[args.rates + 1 :]
    print(f"{program.stats['recorded']} operations a path, recorded in {recorded:.2f} s")
    print(f"value of {len(normals)} paths {price:.6f} in {plain:.2f} s,", end=" ")
    print(f"with {len(slopes)} sensitivities in {whole:.2f} s")
    print(f"all rates by 0.01% up: {1e-4 * (slopes[0] + by_rate.sum()):+.6f}")
    print(f"all volatilities by 1% up: {1e-2 * by_volatility.sum():+.6f}")
    if args.picture:
        draw(by_rate, by_volatility, args.picture)


def draw(by_rate, by_volatility, path):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(8, 5), layout="constrained")
    above.bar(range(len(by_rate)), 1e-4 * by_rate)
    above.set_ylabel("value of 0.01%\nin a forward rate")
    below.bar(range(len(by_volatility)), 1e-2 * by_volatility, color="tab:orange")
    below.set_ylabel("value of 1%\nin a volatility")
    below.set_xlabel("quarter")
    figure.savefig(path)


if __name__ == "__main__":
    main()
