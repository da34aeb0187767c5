"""HIPS autograd as a tool of GradBench, for those evaluations that are arrays of NumPy: `pip install autograd`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import autograd.numpy as np
from autograd import grad, make_hvp
from autograd.scipy.special import logsumexp
from protocol import Prepared, serve


def listed(x: Any) -> Any:
    return x.tolist()


def lse(given: Any) -> tuple[Callable[..., Any], Any]:
    return logsumexp, np.array(given["x"])


def llsq(given: Any) -> tuple[Callable[..., Any], Any]:
    n = given["n"]
    t = -1.0 + np.arange(n) * 2.0 / (n - 1)
    powers = np.vander(t, len(given["x"]), increasing=True)
    return lambda x: np.sum((np.sign(t) - powers @ x) ** 2) / 2.0, np.array(given["x"])


def gmm(given: Any) -> tuple[Callable[..., Any], Any]:
    n, d, k, m, gamma = (given[name] for name in ("n", "d", "k", "m", "gamma"))
    x, freedom = np.array(given["x"]), d + m + 1
    rows = np.array([i for j in range(d) for i in range(j + 1, d)], int)
    columns = np.array([j for j in range(d) for i in range(j + 1, d)], int)
    place = np.zeros((d * (d - 1) // 2, d * d))
    place[np.arange(len(rows)), rows * d + columns] = 1.0
    log_gamma = sum(math.lgamma(0.5 * (freedom - j)) for j in range(d)) + 0.25 * d * (d - 1) * math.log(math.pi)
    constant = k * (freedom * d * (math.log(gamma) - 0.5 * math.log(2.0)) - log_gamma)
    constant -= 0.5 * n * d * math.log(2.0 * math.pi)

    def f(z: Any) -> Any:
        alpha, mu, q, below = z["alpha"], z["mu"], z["q"], z["l"]
        diagonal = np.exp(q)
        root = np.reshape(below @ place, (k, d, d))
        centred = x[:, None, :] - mu
        whitened = diagonal * centred + np.einsum("kij,nkj->nki", root, centred)
        terms = alpha + np.sum(q, axis=1) - 0.5 * np.sum(whitened**2, axis=2)
        norm = np.sum(diagonal**2) + np.sum(below**2)
        prior = 0.5 * gamma * gamma * norm - m * np.sum(q)
        return constant + np.sum(logsumexp(terms, axis=1)) - n * logsumexp(alpha) - prior

    return f, {name: np.array(given[name]) for name in ("alpha", "mu", "q", "l")}


def kmeans(given: Any) -> tuple[Callable[..., Any], Any]:
    points = np.array(given["points"])

    def f(centres: Any) -> Any:
        distances = np.sum(points**2, axis=1)[:, None] + np.sum(centres**2, axis=1) - 2.0 * points @ centres.T
        return np.sum(np.min(distances, axis=1))

    return f, np.array(given["centroids"])


def ode(given: Any) -> tuple[Callable[..., Any], Any]:
    steps = given["s"]
    h = 2.0 / steps

    def f(x: Any) -> Any:
        def slope(y: Any) -> Any:
            return x * np.concatenate([np.ones(1), y[:-1]])

        y = np.zeros(len(x))
        for _ in range(steps):
            k1 = slope(y)
            k2 = slope(y + h / 2 * k1)
            k3 = slope(y + h / 2 * k2)
            y = y + h / 6 * (k1 + 2.0 * k2 + 2.0 * k3 + slope(y + h * k3))
        return y

    return f, np.array(given["x"])


def primal(problem: Callable[[Any], Any], shown: Callable[[Any], Any] = float) -> Callable[[Any], Prepared]:
    def prepare(given: Any) -> Prepared:
        f, x = problem(given)
        return Prepared(lambda: f(x), shown)

    return prepare


def gradient(problem: Callable[[Any], Any], shown: Callable[[Any], Any] = listed) -> Callable[[Any], Prepared]:
    def prepare(given: Any) -> Prepared:
        f, x = problem(given)
        slope = grad(f)
        return Prepared(lambda: slope(x), shown)

    return prepare


def newton(given: Any) -> Prepared:
    f, x = kmeans(given)
    at = make_hvp(f)

    def run() -> Any:
        along, slope = at(x)
        return slope / along(np.ones_like(x))

    return Prepared(run, listed)


def last_of_ode(given: Any) -> tuple[Callable[..., Any], Any]:
    f, x = ode(given)
    return lambda x: f(x)[-1], x


if __name__ == "__main__":
    serve("autograd", {
        "lse": {"primal": primal(lse), "gradient": gradient(lse)},
        "llsq": {"primal": primal(llsq), "gradient": gradient(llsq)},
        "gmm": {
            "objective": primal(gmm),
            "jacobian": gradient(gmm, lambda z: {name: x.tolist() for name, x in z.items()}),
        },
        "kmeans": {"cost": primal(kmeans), "dir": newton},
        "ode": {"primal": primal(ode, listed), "gradient": gradient(last_of_ode)},
    })  # fmt: skip
