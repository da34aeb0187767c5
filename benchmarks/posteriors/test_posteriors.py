"""Posteriors and the adapter against SciPy; measure.py compares them with BridgeStan's."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
stats = pytest.importorskip("scipy.stats")
from models import MODELS, Posterior, data  # noqa: E402  it needs NumPy


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def sizes(name: str) -> dict[str, Any]:
    """Fewer steps of differential equations, and a part of the data."""
    found = data(name)
    if name == "low_dim_gauss_mix":
        found["y"] = found["y"][:50]
    return found


def posterior(name: str) -> Posterior:
    density, start, _ = MODELS[name]
    d = sizes(name)
    return Posterior(lambda u: density(u, d), start)


def of_scipy(name: str, u: Any) -> float:
    """The log density, constants included, with the stretching that Stan's manual gives for each constraint."""
    d, e = sizes(name), np.exp(u)
    y = np.array(d.get("y", d.get("C_hat")), float)
    norm, cauchy, lognormal = stats.norm.logpdf, stats.cauchy.logpdf, stats.lognorm.logpdf
    if name == "eight_schools":
        total = norm(u[:8]).sum() + norm(y, u[8] + e[9] * u[:8], d["sigma"]).sum() + norm(u[8], 0, 5)
        return float(total + cauchy(e[9], 0, 5) + u[9])
    if name == "arK":
        lagged = np.array([y[t - 5 : t][::-1] for t in range(5, len(y))])
        total = norm(y[5:], u[0] + lagged @ u[1:6], e[6]).sum() + norm(u[:6], 0, 10).sum()
        return float(total + cauchy(e[6], 0, 2.5) + u[6])
    if name == "garch11":
        alpha1 = sigmoid(u[2])
        beta1, sigma = (1 - alpha1) * sigmoid(u[3]), [d["sigma1"]]
        for before in y[:-1]:
            sigma.append(math.sqrt(e[1] + alpha1 * (before - u[0]) ** 2 + beta1 * sigma[-1] ** 2))
        stretch = u[1] + math.log(alpha1 * (1 - alpha1))
        return float(norm(y, u[0], sigma).sum() + stretch + math.log(beta1 * (1 - beta1 / (1 - alpha1))))
    if name == "hmm_example":
        chances = np.array([[sigmoid(x), 1 - sigmoid(x)] for x in u[:2]])
        means = np.array([e[2], e[2] + e[3]])
        total, way = norm(means, [3, 10]).sum() + u[2] + u[3] + np.log(chances).sum(), np.ones(2)
        for k, one in enumerate(y):
            way = (way @ chances if k else way) * stats.norm.pdf(one, means)
            total += math.log(way.sum())
            way = way / way.sum()
        return float(total)
    if name == "low_dim_gauss_mix":
        share, means = sigmoid(u[4]), (u[0], u[0] + e[1])
        parts = [w * stats.norm.pdf(y, m, s) for w, m, s in zip((share, 1 - share), means, e[2:4])]
        total = np.log(sum(parts)).sum() + norm([*means, *e[2:4]], 0, 2).sum() + stats.beta.logpdf(share, 5, 5)
        return float(total + u[1] + u[2] + u[3] + math.log(share * (1 - share)))
    integrate = pytest.importorskip("scipy.integrate")

    def solved(slope: Any, start: Any, times: Any) -> Any:
        ends = (0.0, times[-1])
        return integrate.solve_ivp(slope, ends, start, "DOP853", t_eval=times, rtol=1e-12, atol=1e-12).y.T

    if name == "lotka_volterra":
        rates, start, sigma = e[:4], e[4:6], e[6:]
        a, b, c, f = rates
        z = solved(lambda t, z: [(a - b * z[1]) * z[0], (f * z[0] - c) * z[1]], start, d["ts"])
        total = norm(rates, [1, 0.05, 1, 0.05], [0.5, 0.05, 0.5, 0.05]).sum() + u.sum()
        total += lognormal(sigma, 1, scale=math.exp(-1)).sum() + lognormal(start, 1, scale=10).sum()
        return float(total + lognormal(np.vstack([d["y_init"], y]), sigma, scale=np.vstack([start, z])).sum())
    rate, half, most, sigma = e
    dose = d["D"] * rate / d["V"]
    z = solved(lambda t, z: dose * np.exp(-rate * t) - most / d["V"] * z / (half + z), [0.0], d["times"])[:, 0]
    return float(cauchy(e).sum() + u.sum() + lognormal(y, sigma, scale=z).sum())


@pytest.mark.parametrize("name", MODELS)
def test_a_posterior_is_scipys(name: str) -> None:
    one, at = posterior(name), np.array(MODELS[name].start)
    within = 1e-7 if name in ("lotka_volterra", "one_comp_mm_elim_abs") else 1e-12
    value, gradient = one.log_density_gradient(at)
    assert value == one.log_density(at) and one.param_unc_num() == len(at) == len(gradient)
    for u in (at, at + 0.03, at - 0.02):
        assert abs(one.log_density(u) / of_scipy(name, u) - 1.0) < within
    bumps = [(of_scipy(name, at + h) - of_scipy(name, at - h)) / 2e-5 for h in 1e-5 * np.eye(len(at))]
    assert abs(gradient - bumps).max() < 1e-5 * abs(gradient).max()


def test_the_adapter_has_second_derivatives() -> None:
    one, at = posterior("garch11"), np.array(MODELS["garch11"].start)
    value, gradient, hessian = one.log_density_hessian(at)
    bumps = [one.log_density_gradient(at + h)[1] - one.log_density_gradient(at - h)[1] for h in 1e-5 * np.eye(4)]
    assert abs(hessian - np.array(bumps) / 2e-5).max() < 1e-7 * abs(hessian).max()
    along = np.array([1.0, -2.0, 0.5, 3.0])
    same, product = one.log_density_hessian_vector_product(at, along)
    assert same == value == one.log_density(at) and abs(product - hessian @ along).max() < 1e-9 * abs(product).max()
    assert (gradient == one.log_density_gradient(at)[1]).all()


def test_a_table_has_a_line_for_each_posterior() -> None:
    command = [sys.executable, str(Path(__file__).with_name("measure.py")), "--smoke"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == list(MODELS)
