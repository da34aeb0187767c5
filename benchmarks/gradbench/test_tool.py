"""What the tool answers: values against NumPy, gradients against bumps of the values, and GradBench's own checks where
GRADBENCH names a clone of it and this Python has what they need."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
HERE = Path(__file__).parent
RUNS = {"min_runs": 1, "min_seconds": 0}
draw = np.random.default_rng(7)


class Tool:
    """A session with it."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, str(HERE / "tool.py"), *options]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.count = 0

    def __call__(self, kind: str, **more: Any) -> Any:
        assert self.process.stdin and self.process.stdout
        self.count += 1
        print(json.dumps({"id": self.count, "kind": kind, **more}), file=self.process.stdin, flush=True)
        response = json.loads(self.process.stdout.readline())
        assert response.pop("id") == self.count
        return response

    def evaluate(self, module: str, function: str, given: Any) -> Any:
        given = {**given, **RUNS} if isinstance(given, dict) else given
        response = self("evaluate", module=module, function=function, input=given)
        assert response["success"], response["error"]
        assert response["timings"][-1]["name"] == "evaluate"
        return response["output"]


@pytest.fixture(scope="module", params=[(), ("--native",)], ids=["interpreted", "native"])
def tool(request: pytest.FixtureRequest) -> Any:
    found = Tool(*request.param)
    with found.process:
        yield found
    assert found.process.returncode == 0


def flat(x: Any) -> Any:
    """All numbers of a nest."""
    if isinstance(x, dict):
        x = list(x.values())
    return np.concatenate([flat(item) for item in x]) if isinstance(x, list) else np.array([float(x)])


def bumps(tool: Tool, module: str, plain: str, given: dict[str, Any], names: list[str], last: bool = False) -> Any:
    """Central differences of a value, by all numbers of these inputs."""
    found = []
    for name in names:
        x = np.array(given[name])
        for place in np.ndindex(x.shape):
            ends = []
            for h in (1e-5, -1e-5):
                moved = x.copy()
                moved[place] += h
                ends.append(flat(tool.evaluate(module, plain, {**given, name: moved.tolist()}))[-1])
            found.append((ends[0] - ends[1]) / 2e-5)
    return np.array(found)


def close(a: Any, b: Any, within: float = 1e-7) -> bool:
    return bool(abs(np.asarray(a) - np.asarray(b)).max() <= within * max(1.0, abs(np.asarray(b)).max()))


def test_it_says_what_it_is_and_what_it_knows(tool: Tool) -> None:
    assert tool("start", eval="hello") == {"tool": "tapegrad"}
    assert tool("define", module="hello") == {"success": True}
    assert tool("define", module="nothing") == {"success": False}
    assert tool("analysis", of=1, valid=True) == {}
    answer = tool("evaluate", module="hello", function="square", input="x")
    assert not answer["success"] and "TypeError" in answer["error"]
    assert tool.evaluate("hello", "double", 3.0) == 6.0 and tool.evaluate("hello", "square", 3.0) == 9.0


def test_log_sum_exp_and_least_squares(tool: Tool) -> None:
    x = draw.random(20)
    assert close(tool.evaluate("lse", "primal", {"x": x.tolist()}), np.log(np.exp(x).sum()))
    assert close(tool.evaluate("lse", "gradient", {"x": x.tolist()}), np.exp(x) / np.exp(x).sum())
    t = -1.0 + np.arange(16) * 2.0 / 15
    rest = np.sign(t) - np.vander(t, 5, increasing=True) @ x[:5]
    given = {"x": x[:5].tolist(), "n": 16}
    assert close(tool.evaluate("llsq", "primal", given), 0.5 * (rest @ rest))
    assert close(tool.evaluate("llsq", "gradient", given), -np.vander(t, 5, increasing=True).T @ rest)


def test_a_mixture_of_normals_with_a_prior(tool: Tool) -> None:
    d, k, n, m, gamma = 3, 2, 4, 1, 1.3
    x, mu, alpha = draw.normal(size=(n, d)), draw.normal(size=(k, d)), draw.normal(size=k)
    q, below, total = draw.normal(size=(k, d)) / 2, draw.random((k, 3)), 0.0
    special, stats = pytest.importorskip("scipy.special"), pytest.importorskip("scipy.stats")
    roots = []
    for j in range(k):
        root = np.diag(np.exp(q[j]))
        root[[1, 2, 2], [0, 0, 1]] = below[j]
        roots.append(root)
        total += stats.wishart(d + m + 1, np.eye(d) / gamma**2).logpdf(root.T @ root)
    weights = special.log_softmax(alpha)
    for point in x:
        terms = [stats.multivariate_normal(mu[j], np.linalg.inv(r.T @ r)).logpdf(point) for j, r in enumerate(roots)]
        total += special.logsumexp(weights + terms)
    given = {"d": d, "k": k, "n": n, "m": m, "gamma": gamma, "x": x.tolist(), "alpha": alpha.tolist()}
    given |= {"mu": mu.tolist(), "q": q.tolist(), "l": below.tolist()}
    assert close(tool.evaluate("gmm", "objective", given), total)
    slope = flat(tool.evaluate("gmm", "jacobian", given))
    assert close(slope, bumps(tool, "gmm", "objective", given, ["alpha", "mu", "q", "l"]))


def test_newtons_step_of_k_means_leads_to_the_mean_of_what_is_near(tool: Tool) -> None:
    points = draw.random((40, 3))
    centres = points[:4] + 0.01  # each is near to some
    distances = ((points[:, None] - centres) ** 2).sum(axis=2)
    near = distances.argmin(axis=1)
    given = {"points": points.tolist(), "centroids": centres.tolist()}
    assert close(tool.evaluate("kmeans", "cost", given), distances.min(axis=1).sum())
    step = [centre - points[near == j].mean(axis=0) for j, centre in enumerate(centres)]
    assert close(tool.evaluate("kmeans", "dir", given), step)


def test_a_recurrent_net(tool: Tool) -> None:
    layers, bits, characters = 2, 3, 5
    main, extra = draw.random((2 * layers, 4 * bits)), draw.random((3, bits))
    state, sequence = draw.random((2 * layers, bits)), draw.integers(0, 2, (characters, bits)).astype(float)

    def sigmoid(x: Any) -> Any:
        return 1.0 / (1.0 + np.exp(-x))

    hidden, cells, total = state[0::2].copy(), state[1::2].copy(), 0.0
    for t in range(characters - 1):
        x = sequence[t] * extra[0]
        for j in range(layers):
            w, b = main[2 * j].reshape(4, bits), main[2 * j + 1].reshape(4, bits)
            change = np.tanh(hidden[j] * w[3] + b[3])
            cells[j] = cells[j] * sigmoid(x * w[0] + b[0]) + sigmoid(hidden[j] * w[1] + b[1]) * change
            hidden[j] = sigmoid(x * w[2] + b[2]) * np.tanh(cells[j])
            x = hidden[j]
        y = x * extra[1] + extra[2]
        total += sequence[t + 1] @ (y - np.log(np.exp(y).sum() + 2.0))
    given = {"main_params": main.tolist(), "extra_params": extra.tolist(), "state": state.tolist()}
    given["sequence"] = sequence.tolist()
    assert close(tool.evaluate("lstm", "objective", given), -total / (bits * (characters - 1)))
    slope = tool.evaluate("lstm", "jacobian", given)
    assert close(slope, bumps(tool, "lstm", "objective", given, ["main_params", "extra_params"]))


def test_a_differential_equation(tool: Tool) -> None:
    x = 0.5 + draw.random(4)
    given = {"x": x.tolist(), "s": 20}
    exact = np.cumprod(x * 2.0 / np.arange(1, 5))
    assert close(tool.evaluate("ode", "primal", given), exact)  # polynomials up to the fourth order are exact
    assert close(tool.evaluate("ode", "gradient", given), exact[-1] / x)


def test_cameras_and_points(tool: Tool) -> None:
    camera, point, weight, seen = draw.random(11), draw.random(3) + 1.0, 0.7, draw.random(2)

    def errors(z: Any) -> Any:
        rotation, angle = z[:3], np.linalg.norm(z[:3])
        w = rotation / angle
        skew = np.array([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]])
        x = (np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew) @ (z[11:14] - z[3:6])
        flat = x[:2] / x[2]
        r2 = flat @ flat
        return z[14] * (flat * (1 + z[9] * r2 + z[10] * r2 * r2) * z[6] + z[7:9] - seen)

    z = np.concatenate([camera, point, [weight]])
    given = {"n": 2, "m": 3, "p": 7, "cam": camera.tolist(), "x": point.tolist(), "w": weight, "feat": seen.tolist()}
    found = tool.evaluate("ba", "objective", given)
    assert close(found["reproj_error"]["elements"], errors(z)) and found["reproj_error"]["repeated"] == 7
    assert close(found["w_err"]["element"], 1.0 - weight**2) and found["w_err"]["repeated"] == 7
    slopes = np.array([(errors(z + h) - errors(z - h)) / 2e-6 for h in 1e-6 * np.eye(15)]).T
    found = tool.evaluate("ba", "jacobian", given)
    assert close(found["vals"], [*slopes.ravel(), -2.0 * weight])
    columns = [*range(11), 22, 23, 24, 31]
    assert found["cols"] == [*columns, *columns, 37]
    assert found["rows"] == [*range(0, 211, 15), *range(211, 218), 217]


@pytest.mark.parametrize(("corners", "mirrored"), [(1, True), (3, False)])
def test_a_hand(tool: Tool, corners: int, mirrored: bool) -> None:
    """Of 22 bones, five vertices and four points, each a vertex or in a triangle."""
    fingers = np.arange(22) - 1
    parents = np.where(fingers % 4 == 0, 0, fingers)
    parents[[0, 21]] = -1, 0
    at_rest, back = draw.normal(size=(2, 22, 4, 4)) / 2
    at_rest[:, 3] = back[:, 3] = 0.0, 0.0, 0.0, 1.0
    vertices, weights = np.column_stack([draw.random((5, 3)), np.ones(5)]), draw.random((5, 22))
    triangles, at, seen = draw.integers(0, 5, (6, 3)), draw.integers(0, 5, 4), draw.random((4, 3))
    theta, u = draw.random(26), draw.random((4, corners - 1))

    def about(axis: int, angle: float) -> Any:
        turn, (i, j) = np.eye(4), [(1, 2), (2, 0), (0, 1)][axis]
        turn[[i, j], [i, j]], turn[j, i], turn[i, j] = np.cos(angle), np.sin(angle), -np.sin(angle)
        return turn

    def missed(theta: Any, u: Any) -> Any:
        placed: list[Any] = []
        for k in range(22):
            finger, bone = divmod(k - 1, 4)
            own = at_rest[k]
            if 0 < k < 21 and bone:
                x, z = theta[6 + 4 * finger + bone - (bone == 1)], theta[7 + 4 * finger] if bone == 1 else 0.0
                own = own @ about(2, z) @ about(0, x)
            placed.append(own if k == 0 else placed[parents[k]] @ own)
        where = np.einsum("vb,bij,vj->vi", weights, np.array(placed) @ back, vertices)[:, :3]
        where[:, 0] *= -1.0 if mirrored else 1.0
        angle = np.linalg.norm(theta[:3])
        w = theta[:3] / angle
        across = np.cross(np.eye(3), w)
        turn = np.eye(3) + np.sin(angle) * across + (1.0 - np.cos(angle)) * across @ across
        where = where @ turn.T + theta[3:6]
        if corners == 3:
            return seen - np.einsum("pc,pci->pi", np.column_stack([u, 1.0 - u.sum(axis=1)]), where[triangles[at]])
        return seen - where[at]

    model = {"bone_count": 22, "bone_names": [""] * 22, "parents": parents.tolist(), "is_mirrored": mirrored}
    model |= {"base_relatives": at_rest.tolist(), "inverse_base_absolutes": back.tolist()}
    model |= {"base_positions": vertices.tolist(), "weights": weights.tolist(), "triangles": triangles.tolist()}
    data = {"model": model, "correspondences": at.tolist(), "points": seen.tolist()}
    given = {"theta": theta.tolist(), "data": data, "us": u.tolist() if corners == 3 else []}
    assert close(tool.evaluate("ht", "objective", given), missed(theta, u).ravel())
    columns = [(missed(theta, u + h) - missed(theta, u - h)).ravel() for h in 1e-6 * np.eye(2)[: corners - 1]]
    columns += [(missed(theta + h, u) - missed(theta - h, u)).ravel() for h in 1e-6 * np.eye(26)]
    assert close(tool.evaluate("ht", "jacobian", given), np.array(columns).T / 2e-6)


def test_determinants(tool: Tool) -> None:
    a = draw.random((5, 5))
    given = {"A": a.ravel().tolist(), "ell": 5}
    assert close(tool.evaluate("det", "primal", given), np.linalg.det(a))
    assert close(tool.evaluate("det", "gradient", given), (np.linalg.det(a) * np.linalg.inv(a).T).ravel())


@pytest.mark.parametrize("modes", ["rr", "fr"])
def test_descents_inside_descents(tool: Tool, modes: str) -> None:
    """The saddle is at 0; a particle that starts so hits the origin, within what the descent stops at."""
    assert close(tool.evaluate("saddle", modes, {"start": [1.0, 1.0]}), np.zeros(4), within=1e-4)
    evals = importlib.import_module("evals")
    w = tool.evaluate("particle", modes, {"w": 0.0})
    assert evals.square_at_axis(w, evals.reverse) < 1e-5 < 1e-2 < evals.square_at_axis(0.0, evals.reverse)


@pytest.mark.skipif("GRADBENCH" not in os.environ, reason="GRADBENCH names no clone of GradBench")
def test_gradbench_finds_nothing_wrong() -> None:
    command = [sys.executable, str(HERE / "measure.py"), "--gradbench", os.environ["GRADBENCH"], "--smoke"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[2:]
    assert len(lines) == 14
    for line in lines:
        answers = [cell.split()[0] for cell in line.strip("|").split("|")[-2:]]
        assert all(float(answer) > 0.0 for answer in answers), line
