"""The whole run, small: it must not rot."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def test_sparse_derivatives_have_the_nonzeros_of_casadi() -> None:
    pytest.importorskip("numpy")
    command = [sys.executable, str(Path(__file__).with_name("sparse.py")), "--smoke"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "| chained Rosenbrock, Hessian | tapegrad | 128 | 382 |" in done.stdout
    assert "| Brusselator, Jacobian | tapegrad | 128 | 768 |" in done.stdout


def test_loops_have_one_gradient_however_they_are_carried_out() -> None:
    pytest.importorskip("numpy")
    command = [sys.executable, str(Path(__file__).with_name("loops.py")), "--smoke"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    for problem in ("Lorenz", "Lorenz, 1,000 states", "Lorenz, long", "Heston", "Heston, written out"):
        assert f"| {problem} | tapegrad |" in done.stdout


def test_sensitivities_of_a_barrier_option_are_the_closed_forms() -> None:
    """Prices and sensitivities of very many paths, within what so many allow."""
    np, stats = pytest.importorskip("numpy"), pytest.importorskip("scipy.stats")
    finance, tapegrad = importlib.import_module("finance"), importlib.import_module("tapegrad")

    def exact(option: Any) -> float:
        """Of an up-and-out call whose strike is below the barrier: Reiner and Rubinstein, 1991."""
        spot, strike, level, volatility, rate, dividends = option
        mu = (rate - dividends) / volatility**2 - 0.5
        spread = volatility * math.sqrt(finance.YEARS)

        def part(x: float, reflected: bool, sign: float) -> float:
            d, power = math.log(x) / spread + (1 + mu) * spread, level / spot if reflected else 1.0
            first = spot * math.exp(-dividends * finance.YEARS) * power ** (2 * (mu + 1)) * stats.norm.cdf(sign * d)
            second = strike * math.exp(-rate * finance.YEARS) * power ** (2 * mu) * stats.norm.cdf(sign * (d - spread))
            return float(first - second)

        plain, above = part(spot / strike, False, 1.0), part(spot / level, False, 1.0)
        return plain - above + part(level**2 / (spot * strike), True, -1.0) - part(level / spot, True, -1.0)

    normals = np.random.default_rng(3).standard_normal((40_000, 12))
    program = tapegrad.record(lambda m, z: finance.barrier(m, z), finance.OPTION, normals[0])
    prices, slopes = program.map((None, 0)).value_and_grad(finance.OPTION, normals)
    bumps = [(exact(finance.OPTION + h) - exact(finance.OPTION - h)) / 2e-5 for h in 1e-5 * np.eye(6)]
    for found, expected in zip(np.column_stack([prices, slopes]).T, [exact(finance.OPTION), *bumps]):
        assert abs(found.mean() - expected) < 4.0 * found.std() / 200.0
    assert abs(finance.numpy_value(finance.barrier, finance.OPTION, normals) / prices.mean() - 1.0) < 1e-12


def test_a_smoke_run_writes_tables_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = Path(__file__).with_name("run.py")
    options = ["--smoke", "--no-peers", "--cache", str(tmp_path / "cache"), "--output", str(tmp_path)]
    subprocess.run([sys.executable, str(run), *options], check=True, timeout=600)
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    titles = "Two moons", "Character GPT", "Sparse derivatives", "Loops", "Finance", "Posteriors", "Memory", "Depth"
    for title in (*titles, "Start"):
        assert f"# {title}" in text
    assert "| chained Rosenbrock, Hessian | tapegrad | 128 | 382 |" in text
    for picture in ("costs.svg", "steps.svg"):
        assert f"({picture})" in text
        assert (tmp_path / picture).read_text(encoding="utf-8").count("tapegrad") >= 2


def test_a_smoke_run_says_what_recording_costs() -> None:
    command = [sys.executable, str(Path(__file__).with_name("operations.py")), "--smoke"]
    done = subprocess.run(command, check=True, timeout=600, capture_output=True, text=True)
    assert done.stdout.count("ratio") == 7 and "over pass" in done.stdout
