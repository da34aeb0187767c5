"""The examples run and learn."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent


def run(name: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, HERE / name, *args], capture_output=True, text=True, check=True, timeout=300
    )


def draws(name: str, *args: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """What an example prints, and where matplotlib is, a picture."""
    if importlib.util.find_spec("matplotlib") is None:
        return run(name, *args)
    picture = tmp_path / "drawn.svg"
    done = run(name, *args, "--picture", str(picture))
    assert "<svg" in picture.read_text(encoding="utf-8")
    return done


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


def test_gpt_learns_and_writes_names(tmp_path: Path) -> None:
    done = draws("gpt.py", "--steps", "30", "--samples", "5", tmp_path=tmp_path)
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


def test_the_rocket_takes_as_little_thrust_by_trust_constr_as_by_ipopt(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    lines = draws("rocket.py", "--intervals", "12", tmp_path=tmp_path).stdout.splitlines()
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


def test_heston_prices_as_the_formula_does_and_greeks_are_the_differences(tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    lines = draws("heston.py", "--paths", "4000", "--days", "50", tmp_path=tmp_path).stdout.splitlines()
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


# ---- each of these against what something else computes ----


def module(name: str) -> ModuleType:
    pytest.importorskip("numpy")
    pytest.importorskip("scipy")
    return importlib.import_module(name)


def test_sensitivities_of_libor_are_the_bumps_of_numpy() -> None:
    libor = module("libor")
    np = importlib.import_module("numpy")
    market, normals = libor.start(12), libor.drawn(200, 8)
    price, slopes = libor.paths(12, 8).map((None, 0), reduce="mean").value_and_grad(market, normals)

    def by_numpy(market):  # relu is continuous: the mean's bumps are the slope but for the paths that cross its corner
        return np.mean(libor.value(list(market), list(normals.T), np.exp, lambda x: np.maximum(x, 0.0)))

    assert abs(price / by_numpy(market) - 1.0) < 1e-12
    bumps = [(by_numpy(market + h) - by_numpy(market - h)) / 2e-7 for h in 1e-7 * np.eye(len(market))]
    assert len(slopes) == 25
    assert abs(slopes - bumps).max() < 1e-6 * abs(slopes).max()


def test_libor_prices_bonds_as_the_market_does() -> None:
    """Discounted bonds are martingales: their mean is today's price, within what so many paths allow."""
    libor = module("libor")
    np = importlib.import_module("numpy")
    market, normals = libor.start(12).tolist(), list(libor.drawn(20_000, 8).T)
    rates = libor.evolved(market[1:13], market[13:], normals, np.exp)
    today = 1.0
    for rate in market[:13]:
        today /= 1.0 + libor.QUARTER * rate
    paid = 1.0
    for rate in [market[0], *rates]:
        paid = paid / (1.0 + libor.QUARTER * rate)
    assert abs(np.mean(paid) - today) < 4.0 * np.std(paid) / 20_000**0.5


def test_libor_is_drawn(tmp_path: Path) -> None:
    module("libor")
    lines = draws("libor.py", "--paths", "50", "--rates", "40", "--steps", "4", tmp_path=tmp_path).stdout.splitlines()
    assert "with 81 sensitivities" in lines[1] and lines[2].startswith("all rates by 0.01% up: ")


def test_the_kalman_filter_is_the_normal_density_of_the_whole_series(tmp_path: Path) -> None:
    kalman = module("kalman")
    np = importlib.import_module("numpy")
    stats = importlib.import_module("scipy.stats")
    series, _ = kalman.measured(30)
    of_level, of_slope, noise = variances = [0.3, 0.02, 0.8]
    step = np.array([[1.0, 1.0], [0.0, 1.0]])
    spread, states = kalman.WIDE * np.eye(2), []
    for _ in series:
        spread = step @ spread @ step.T + np.diag([of_level, of_slope])
        states.append(spread)
    covariance = np.empty((30, 30))
    for i in range(30):
        for j in range(i, 30):
            covariance[i, j] = covariance[j, i] = (np.linalg.matrix_power(step, j - i) @ states[i])[0, 0]
    density = stats.multivariate_normal(np.zeros(30), covariance + noise * np.eye(30)).logpdf(series)
    program = importlib.import_module("tapegrad").record(kalman.loss, np.zeros(3), series)
    assert abs(program(np.log(variances), series) + density) < 1e-6 * abs(density)  # the prior is 10^4 wide

    lines = draws("kalman.py", "--count", "300", tmp_path=tmp_path).stdout.splitlines()
    found, true = (float(lines[1].split()[k].rstrip(",")) for k in (2, 3))
    assert found > true
    for line in lines[2:]:
        words = line.replace(",", "").split()
        if float(words[5]) < 1.0:  # a variance that tells at all
            assert abs(float(words[3]) - float(words[7])) < 4.0 * float(words[5])


def test_the_gaussian_process_is_scipys(tmp_path: Path) -> None:
    process = module("gaussian_process")
    np = importlib.import_module("numpy")
    stats = importlib.import_module("scipy.stats")
    tapegrad = importlib.import_module("tapegrad")
    x, y = process.measured(20)

    def by_scipy(logs):
        inner = np.exp(2 * logs[1] - 0.5 * (x[:, None] - x) ** 2 * np.exp(-2 * logs[0]))
        return -stats.multivariate_normal(np.zeros(20), inner + np.exp(2 * logs[2]) * np.eye(20)).logpdf(y)

    at = np.array([-0.2, 0.1, -1.5])
    value, slope = tapegrad.record(lambda logs: process.loss(logs, x.tolist(), y.tolist()), at).value_and_grad(at)
    assert abs(value - by_scipy(at)) < 1e-9
    bumps = [(by_scipy(at + h) - by_scipy(at - h)) / 2e-5 for h in 1e-5 * np.eye(3)]
    assert abs(slope - bumps).max() < 1e-6 * abs(slope).max()

    lines = draws("gaussian_process.py", "--count", "30", tmp_path=tmp_path).stdout.splitlines()
    noise = float(lines[1].split()[-1])
    assert 0.05 < noise < 0.45  # 0.15 was put in


def test_the_hidden_markov_model_sums_over_all_ways(tmp_path: Path) -> None:
    hmm = module("hmm")
    np = importlib.import_module("numpy")
    tapegrad = importlib.import_module("tapegrad")
    series, _ = hmm.measured(6)
    logs = -0.5 * ((series[:, None] - hmm.MEANS) / hmm.SPREAD) ** 2
    total, there = 0.0, np.zeros((6, 3))
    for way in itertools.product(range(3), repeat=6):
        chance = np.exp(sum(logs[t, k] for t, k in enumerate(way))) / 3.0
        for a, b in zip(way, way[1:]):
            chance *= hmm.CHANCES[a, b]
        total += chance
        there[range(6), way] += chance
    value, given = tapegrad.record(hmm.likelihood, logs, np.log(hmm.CHANCES)).value_and_grad(logs, np.log(hmm.CHANCES))
    assert abs(value - np.log(total)) < 1e-12
    assert abs(given - there / total).max() < 1e-12

    lines = draws("hmm.py", "--count", "400", tmp_path=tmp_path).stdout.splitlines()
    means = sorted(float(word) for word in lines[2].split()[1:4])
    assert all(abs(mean - true) < 0.4 for mean, true in zip(means, hmm.MEANS))
    assert float(lines[-1].split("within ")[1].split(",")[0]) < 1e-9


def quadrature(title: str) -> tuple[list[float], list[float]]:
    """Means and standard deviations of two of the posteriors, on a grid."""
    np = importlib.import_module("numpy")
    bayes = importlib.import_module("bayes")
    if title == "eight schools":  # the effects integrate out: y is normal around the mean
        mean, log_spread = np.meshgrid(np.linspace(-20, 25, 400), np.linspace(-6, 4.5, 400), indexing="ij")
        spread = np.exp(log_spread)
        log = -0.5 * (mean / 5) ** 2 - np.log1p((spread / 5) ** 2) + log_spread
        for y, error in zip(bayes.EFFECTS, bayes.ERRORS):
            variance = error**2 + spread**2
            log = log - 0.5 * ((y - mean) ** 2 / variance + np.log(variance))
        columns = [mean, spread]
    else:
        low, gap, logit = np.meshgrid(
            np.linspace(-3.2, -1.2, 40), np.linspace(0.9, 1.6, 40), np.linspace(-2.2, 0.0, 40), indexing="ij"
        )
        share, high = 1.0 / (1.0 + np.exp(-logit)), low + np.exp(gap)
        log = gap + 2.0 * np.log(share * (1.0 - share)) - 0.5 * ((low / 3) ** 2 + (high / 3) ** 2)
        for y in bayes.MIXED:
            log = log + np.log(share * np.exp(-0.5 * (y - low) ** 2) + (1 - share) * np.exp(-0.5 * (y - high) ** 2))
        columns = [low, high, share]
    weights = np.exp(log - log.max())
    weights /= weights.sum()
    means = [float((weights * x).sum()) for x in columns]
    return means, [float((weights * (x - m) ** 2).sum()) ** 0.5 for x, m in zip(columns, means)]


@pytest.mark.parametrize("sampler", ["mici", "nutpie"])
def test_samplers_draw_from_the_posteriors(sampler: str, tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    pytest.importorskip(sampler, exc_type=ImportError)
    titles = ["eight schools", "mixture"]
    options = ["--sampler", sampler, "--draws", "300"]
    lines = draws("bayes.py", "--posteriors", *titles, *options, tmp_path=tmp_path).stdout.splitlines()
    for title in titles:
        at = next(k for k, line in enumerate(lines) if line.startswith(title))
        for line, mean, sd in zip(lines[at + 1 :], *quadrature(title)):
            found = float(line.split(" with ")[0].split()[-1])
            assert abs(found - mean) < 0.4 * sd  # of some hundred draws that count


def test_hares_and_lynxes_are_where_scipy_puts_them() -> None:
    pytest.importorskip("scipy")
    np = importlib.import_module("numpy")
    bayes, tapegrad = importlib.import_module("bayes"), importlib.import_module("tapegrad")
    integrate = importlib.import_module("scipy.integrate")
    density, start, *_ = bayes.POSTERIORS["hares and lynxes"]

    def by_scipy(u):
        birth, eaten, death, fed = np.exp(u[:4])
        found = integrate.solve_ivp(
            lambda t, z: [(birth - eaten * z[1]) * z[0], (fed * z[0] - death) * z[1]], (0, 20), np.exp(u[4:6]),
            method="DOP853", t_eval=range(21), rtol=1e-10, atol=1e-10,
        )  # fmt: skip
        off = (np.log(bayes.PELTS) - np.log(found.y.T)) / np.exp(u[6:])
        total = np.sum(u[:4]) - 0.5 * np.sum(off**2) - 21 * np.sum(u[6:])
        rates, means, sds = np.exp(u[:4]), np.array([1, 0.05, 1, 0.05]), np.array([0.5, 0.05, 0.5, 0.05])
        total -= np.sum(0.5 * ((rates - means) / sds) ** 2 + np.log(sds))
        return total - 0.5 * np.sum((u[4:6] - np.log(10)) ** 2) - 0.5 * np.sum((u[6:] + 1) ** 2)

    value, slope = tapegrad.record(density, start).value_and_grad(start)
    bumps = [(by_scipy(start + h) - by_scipy(start - h)) / 2e-5 for h in 1e-5 * np.eye(8)]
    assert abs(value - by_scipy(start)) < 1e-3
    assert abs(slope - bumps).max() < 1e-3 * abs(slope).max()  # ten steps a year are as exact as that


def cells(name: str) -> list[str]:
    """The code of a notebook."""
    book = json.loads((HERE / "micrograd" / f"{name}.ipynb").read_text(encoding="utf-8"))
    assert not any(cell.get("outputs") for cell in book["cells"])
    return ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_of_micrograds_demo_learns(capsys: pytest.CaptureFixture[str]) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    names: dict[str, Any] = {}
    for code in cells("demo"):
        exec(code, names)
    said = capsys.readouterr().out
    assert "number of parameters 337" in said
    assert "step 99" in said and "accuracy 100.0%" in said.split("step 99")[1]
    right = names["np"].sign([names["model"](x).data for x in names["X"].tolist()]) == names["y"]
    assert right.all() and len(matplotlib.pyplot.get_fignums()) == 2
    matplotlib.pyplot.close("all")


def test_the_notebook_of_micrograds_graphs_prints_its_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for code in cells("trace_graph"):
        *lines, last = code.splitlines()
        exec("\n".join(lines), names)
        if last.startswith("draw("):
            assert eval(last, names).to_svg().startswith("<svg")
        else:
            exec(last, names)
    assert capsys.readouterr().out.split()[:3] == ["24.7041", "138.8338", "645.5773"]
    assert abs(names["o"].data - 0.7071067811865476) < 1e-12 and names["x1"].grad == pytest.approx(-1.5)
