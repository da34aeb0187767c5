"""The whole run, small: it must not rot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_a_smoke_run_writes_tables_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = Path(__file__).with_name("run.py")
    options = ["--smoke", "--no-peers", "--cache", str(tmp_path / "cache"), "--output", str(tmp_path)]
    subprocess.run([sys.executable, str(run), *options], check=True, timeout=600)
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    for title in ("Two moons", "Character GPT", "Memory", "Depth", "Start", "Sparse derivatives", "Loops"):
        assert f"# {title}" in text
    assert "| chained Rosenbrock, Hessian | tapegrad | 128 | 382 |" in text
    for picture in ("costs.svg", "steps.svg"):
        assert f"({picture})" in text
        assert (tmp_path / picture).read_text(encoding="utf-8").count("tapegrad") >= 2


def test_a_smoke_run_says_what_recording_costs() -> None:
    command = [sys.executable, str(Path(__file__).with_name("operations.py")), "--smoke"]
    done = subprocess.run(command, check=True, timeout=600, capture_output=True, text=True)
    assert done.stdout.count("ratio") == 7 and "over pass" in done.stdout
