"""The examples run and learn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run(name: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, HERE / name, *args], capture_output=True, text=True, check=True, timeout=300
    )


def test_moons_end_with_every_point_on_its_side() -> None:
    lines = run("moons.py").stdout.splitlines()
    (last,) = (line for line in lines if line.startswith("step 99 "))
    assert last.endswith("accuracy 100.0%")


def test_a_model_learns_as_a_program_a_hundred_times_as_fast_as_on_closures() -> None:
    lines = run("train_program.py", "--rows", "60", "--steps", "400").stdout.splitlines()
    assert lines[0] == "60 rows, 337 parameters"
    assert float(lines[1].split()[-2].rstrip("%")) > 95.0
    speeds = {line[:32].strip(): line[32:].split() for line in lines[3:] if "No module" not in line}
    (program, first), (_, on_values), (closures, on_closures) = (
        map(float, speeds[name]) for name in ("program, 2 threads", "tapegrad's Values", "closures")
    )
    assert first == on_values and abs(on_closures / first - 1.0) < 1e-9
    assert program > 100.0 * closures


def test_gpt_learns_and_writes_names() -> None:
    done = run("gpt.py", "--steps", "30", "--samples", "5")
    first, result, *names = done.stdout.splitlines()
    assert first == "8000 names, 4192 parameters"
    assert float(result.split()[1]) < 3.2  # 3.30 is the entropy of 27 equally likely symbols
    assert len(names) == 5
    assert "training 30/30" in done.stderr


def test_scaleout_finds_the_weights() -> None:
    pytest.importorskip("distributed")
    done = run("scaleout.py", "--rows", "40000", "--block", "5000", "--steps", "25")
    assert done.stdout.startswith("40000 rows in 8 blocks of 5000 on 2 workers")
    found = [float(w) for w in done.stdout.split("weights")[1].split("loss")[0].split()]
    assert all(abs(w - true) < 0.2 for w, true in zip(found, (1.0, -2.0, 0.5, 0.25)))
    assert "step 25/25" in done.stderr


def test_the_rocket_takes_as_little_thrust_by_trust_constr_as_by_ipopt() -> None:
    pytest.importorskip("scipy")
    lines = run("rocket.py", "--intervals", "12").stdout.splitlines()
    assert lines[0] == "51 unknowns, 41 constraints"
    solved = [line.split() for line in lines if "objective" in line]
    costs = [float(words[words.index("objective") + 1]) for words in solved]
    gaps = [float(words[words.index("within") + 1]) for words in solved]
    assert costs and max(gaps) < 1e-7 and max(costs) - min(costs) < 1e-4 and 0.12 < costs[0] < 0.14


def test_the_names_are_ascii_letters_each_once() -> None:
    names = (HERE / "names.txt").read_text(encoding="ascii").split()
    assert len(set(names)) == len(names) == 8000
    assert all(name.isalpha() and len(name) < 16 for name in names)


def test_lorenz_finds_the_three_parameters(tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    lines = run("lorenz.py", "--windows", "60", "--picture", str(tmp_path / "lorenz.svg")).stdout.splitlines()
    assert lines[0].startswith("2400 steps of the orbit in 60 windows")
    found = {line.split()[0]: float(line.split()[1].rstrip(",")) for line in lines[-4:-1]}
    assert all(abs(found[name] / true - 1.0) < 0.05 for name, true in (("sigma", 10.0), ("rho", 28.0), ("beta", 8 / 3)))
    assert (tmp_path / "lorenz.svg").read_text().count("<circle") == 2000


def test_heston_prices_as_the_formula_does_and_greeks_are_the_differences() -> None:
    pytest.importorskip("numpy")
    lines = run("heston.py", "--paths", "4000", "--days", "50").stdout.splitlines()
    assert lines[0].startswith("4000 paths of 50 days")
    rows = {line[:14].strip(): [float(x) for x in line[14:].split()] for line in lines[-8:]}
    price, error, exact = rows.pop("price")
    assert abs(price - exact) < 4.0 * error
    assert len(rows) == 7
    for greek, error, difference, exact in rows.values():
        assert abs(greek - difference) < 2.0 * error  # the payoff's kink is met by some paths
        assert abs(greek - exact) < 5.0 * error


def test_rnn_learns_and_writes_names() -> None:
    pytest.importorskip("numpy")
    done = run("rnn.py", "--steps", "60", "--samples", "4")
    first, result, *names = done.stdout.splitlines()
    assert first.startswith("7985 names, 1872 weights")
    assert float(result.split()[1]) < 2.8  # 3.30 is the entropy of 27 equally likely symbols
    assert len(names) == 4
    assert "training 60/60" in done.stderr
