"""Posteriors of the posterior database as Python functions: the log density of unconstrained parameters, with all
constants and with the logarithm of what the change to these parameters stretches, as Stan counts both.

`Posterior` is such a function as a program, by the names that BridgeStan's models have."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import tapegrad
from tapegrad.math import exp, log

__all__ = ["MODELS", "Model", "Posterior", "data"]

Number = Any
HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def data(name: str) -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("data.json").read_text(encoding="ascii"))[name]  # type: ignore[no-any-return]


# ---- densities ----


def normal(x: Number, mean: Number, sd: Number) -> Number:
    off = (x - mean) / sd
    return -0.5 * (off * off) - log(sd) - HALF_LOG_TWO_PI


def lognormal(x: Number, mean: Number, sd: Number) -> Number:
    return normal(log(x), mean, sd) - log(x)


def cauchy(x: Number, scale: float) -> Number:
    off = x / scale
    return -log(1.0 + off * off) - math.log(math.pi * scale)


# ---- constrained parameters, each with the logarithm of what it is stretched by ----


def positive(u: Number) -> tuple[Number, Number]:
    return exp(u), u


def between(u: Number, high: Number) -> tuple[Number, Number]:
    """A number from 0 to high."""
    return high * u.sigmoid(), log(high) - (-u).softplus() - u.softplus()


# ---- differential equations ----


def integrated(
    slope: Callable[[float, list[Number]], list[Number]], state: list[Number], times: Sequence[float], steps: int
) -> list[list[Number]]:
    """The states at these times, from 0 on, by Runge and Kutta's fourth-order rule, so many steps for each."""

    def moved(k: list[Number], by: float) -> list[Number]:
        return [a + by * b for a, b in zip(state, k)]

    found, t = [], 0.0
    for until in times:
        h = (until - t) / steps
        for i in range(steps):
            at = t + i * h
            k1 = slope(at, state)
            k2 = slope(at + 0.5 * h, moved(k1, 0.5 * h))
            k3 = slope(at + 0.5 * h, moved(k2, 0.5 * h))
            k4 = slope(at + h, moved(k3, h))
            state = [
                x + (h / 6.0) * (a + 2.0 * b + 2.0 * c + d) for x, a, b, c, d in zip(state, k1, k2, k3, k4)
            ]  # fmt: skip
        t = until
        found.append(state)
    return found


# ---- the models ----


def eight_schools(u: Sequence[Number], d: dict[str, Any]) -> Number:
    *effects, mean, log_spread = u
    spread, total = positive(log_spread)
    total = total + normal(mean, 0.0, 5.0) + cauchy(spread, 5.0)
    for effect, y, sigma in zip(effects, d["y"], d["sigma"]):
        total = total + normal(effect, 0.0, 1.0) + normal(y, effect * spread + mean, sigma)
    return total


def ark(u: Sequence[Number], d: dict[str, Any]) -> Number:
    alpha, *beta, log_sigma = u
    sigma, total = positive(log_sigma)
    total = total + normal(alpha, 0.0, 10.0) + cauchy(sigma, 2.5)
    for b in beta:
        total = total + normal(b, 0.0, 10.0)
    squares, y = 0.0, d["y"]
    for t in range(d["K"], d["T"]):
        off = y[t] - (alpha + tapegrad.dot(beta, y[t - d["K"] : t][::-1]))
        squares = squares + off * off
    n = d["T"] - d["K"]
    return total - 0.5 * squares / (sigma * sigma) - n * (log(sigma) + HALF_LOG_TWO_PI)


def garch11(u: Sequence[Number], d: dict[str, Any]) -> Number:
    mu = u[0]
    alpha0, first = positive(u[1])
    alpha1, second = between(u[2], 1.0)
    beta1, third = between(u[3], 1.0 - alpha1)
    y, variance = d["y"], d["sigma1"] ** 2
    total = first + second + third + normal(y[0], mu, d["sigma1"])
    for before, after in zip(y, y[1:]):
        off, next_off = before - mu, after - mu
        variance = alpha0 + alpha1 * (off * off) + beta1 * variance
        total = total - 0.5 * (next_off * next_off / variance + log(variance)) - HALF_LOG_TWO_PI
    return total


def hmm_example(u: Sequence[Number], d: dict[str, Any]) -> Number:
    """Two states; their rows of chances, their means, ascending."""
    (stay, first), (back, second) = between(u[0], 1.0), between(u[1], 1.0)
    low, third = positive(u[2])
    gap, fourth = positive(u[3])
    means = low, low + gap
    chances = [[log(stay), log(1.0 - stay)], [log(back), log(1.0 - back)]]
    total = first + second + third + fourth + normal(means[0], 3.0, 1.0) + normal(means[1], 10.0, 1.0)
    ways = [normal(d["y"][0], mean, 1.0) for mean in means]
    for y in d["y"][1:]:
        ways = [
            tapegrad.logsumexp([way + chances[j][k] for j, way in enumerate(ways)]) + normal(y, means[k], 1.0)
            for k in range(2)
        ]
    return total + tapegrad.logsumexp(ways)


def lotka_volterra(u: Sequence[Number], d: dict[str, Any], steps: int = 20) -> Number:
    numbers, total = [exp(v) for v in u], tapegrad.sum(list(u))
    (alpha, beta, gamma, delta), start, sigma = numbers[:4], numbers[4:6], numbers[6:]

    def slope(t: float, z: list[Number]) -> list[Number]:
        prey, predators = z
        return [(alpha - beta * predators) * prey, (delta * prey - gamma) * predators]

    for rate, (mean, sd) in zip((alpha, beta, gamma, delta), [(1.0, 0.5), (0.05, 0.05)] * 2):
        total = total + normal(rate, mean, sd)
    states = integrated(slope, start, d["ts"], steps)
    for k in range(2):
        total = total + lognormal(sigma[k], -1.0, 1.0) + lognormal(start[k], math.log(10.0), 1.0)
        total = total + lognormal(d["y_init"][k], log(start[k]), sigma[k])
        for state, y in zip(states, d["y"]):
            total = total + lognormal(y[k], log(state[k]), sigma[k])
    return total


def low_dim_gauss_mix(u: Sequence[Number], d: dict[str, Any]) -> Number:
    gap, first = positive(u[1])
    means = u[0], u[0] + gap
    (one, second), (two, third) = positive(u[2]), positive(u[3])
    share, fourth = between(u[4], 1.0)
    total = first + second + third + fourth
    for x in (*means, one, two):
        total = total + normal(x, 0.0, 2.0)
    total = total + 4.0 * log(share) + 4.0 * log(1.0 - share) + math.log(630.0)  # Beta(5, 5)
    weights = log(share), log(1.0 - share)
    for y in d["y"]:
        total = total + tapegrad.logsumexp(
            [w + normal(y, mean, sd) for w, mean, sd in zip(weights, means, (one, two))]
        )
    return total


def one_comp_mm_elim_abs(u: Sequence[Number], d: dict[str, Any], steps: int = 20) -> Number:
    numbers, total = [exp(v) for v in u], tapegrad.sum(list(u))
    rate, half, most, sigma = numbers
    for x in numbers:
        total = total + cauchy(x, 1.0)

    def slope(t: float, z: list[Number]) -> list[Number]:
        (y,) = z
        return [exp(-rate * t) * d["D"] * rate / d["V"] - (most / d["V"]) * y / (half + y)]

    for (state,), y in zip(integrated(slope, [0.0], d["times"], steps), d["C_hat"]):
        total = total + lognormal(y, log(state), sigma)
    return total


class Model(NamedTuple):
    density: Callable[..., Number]
    start: list[float]  # somewhere likely
    stan: str  # its file in the database


MODELS = {
    "eight_schools": Model(eight_schools, [0.1] * 8 + [4.0, 1.0], "eight_schools_noncentered"),
    "arK": Model(ark, [0.0, 0.7, 0.5, 0.1, -0.1, -0.3, -1.9], "arK"),
    "garch11": Model(garch11, [5.0, 0.4, 0.3, 0.1], "garch11"),
    "hmm_example": Model(hmm_example, [0.8, -2.0, 1.1, 1.8], "hmm_example"),
    "lotka_volterra": Model(
        lotka_volterra, [-0.6, -3.6, -0.2, -3.7, 3.5, 1.8, -1.4, -1.4], "lotka_volterra"
    ),
    "low_dim_gauss_mix": Model(low_dim_gauss_mix, [-2.7, 1.7, 0.0, 0.0, 0.5], "low_dim_gauss_mix"),
    "one_comp_mm_elim_abs": Model(one_comp_mm_elim_abs, [-0.3, 1.5, 1.5, -1.5], "one_comp_mm_elim_abs"),
}  # fmt: skip


class Posterior:
    """A log density as a program, by the names of BridgeStan's `StanModel`; parameters are unconstrained."""

    def __init__(self, density: Callable[[Any], Number], start: Sequence[float]) -> None:
        self.program = tapegrad.record(density, np.array(start, float))
        self._n = len(start)

    def param_unc_num(self) -> int:
        return self._n

    def log_density(self, theta: Any) -> float:
        return self.program(theta)  # type: ignore[no-any-return]

    def log_density_gradient(self, theta: Any) -> tuple[float, Any]:
        return self.program.value_and_grad(theta)

    def log_density_hessian(self, theta: Any) -> tuple[float, Any, Any]:
        return *self.log_density_gradient(theta), self.program.hessian(theta)

    def log_density_hessian_vector_product(self, theta: Any, vector: Any) -> tuple[float, Any]:
        return self.log_density(theta), self.program.hvp(theta, vector)
