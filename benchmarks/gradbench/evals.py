"""GradBench's evaluations as scalar programs: for each module and function what prepares a message's input.

Recording, freezing and compiling are preparation, which is not timed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from ht import ht_jacobian, ht_objective
from protocol import Prepared

import tapegrad

__all__ = ["EVALS"]

Number = Any
Ready = Callable[[Any], Any]  # a program as it is, or native


def listed(x: Any) -> Any:
    return np.asarray(x).tolist()


# ---- hello ----


def square(x: Number) -> Number:
    return x * x


def hello_square(x: float, ready: Ready) -> Prepared:
    return Prepared(lambda: square(x))


def hello_double(x: float, ready: Ready) -> Prepared:
    return Prepared(lambda: tapegrad.grad(square)(x))


# ---- lse: a row for some numbers, so that what a row costs is shared ----

TOGETHER = 16


def exponentials(xs: Any, top: Number) -> Number:
    return tapegrad.sum([(x - top).exp() for x in xs])


def lse(given: dict[str, Any], ready: Ready) -> tuple[Any, Any]:
    """Sums of exponentials, and rows of numbers, the last of which is filled up with what adds nothing."""
    x = np.array(given["x"])
    rows = np.full((-(-len(x) // TOGETHER), TOGETHER), -np.inf)
    rows.ravel()[: len(x)] = x
    return ready(tapegrad.record(exponentials, rows[0], x[0])).map((0, None), reduce="sum"), rows


def lse_primal(given: dict[str, Any], ready: Ready) -> Prepared:
    batch, rows = lse(given, ready)

    def run() -> float:
        top = rows.max()
        return math.log(batch(rows, top)) + top  # type: ignore[no-any-return]

    return Prepared(run)


def lse_gradient(given: dict[str, Any], ready: Ready) -> Prepared:
    batch, rows = lse(given, ready)

    def run() -> Any:
        total, slopes = batch.value_and_grad(rows, rows.max())
        return slopes.ravel()[: len(given["x"])] / total

    return Prepared(run, listed)


# ---- llsq: a row for each t ----


def squared_miss(x: Sequence[Number], t: Number, sign: Number) -> Number:
    """Half the square of what a polynomial with coefficients x misses the sign by."""
    powers = [1.0]
    while len(powers) < len(x):
        powers.append(powers[-1] * t)
    rest = sign - tapegrad.dot(list(x), powers)
    return rest * rest / 2.0


def llsq(given: dict[str, Any], ready: Ready) -> tuple[Any, tuple[Any, ...]]:
    x, n = np.array(given["x"]), given["n"]
    t = -1.0 + np.arange(n) * 2.0 / (n - 1)
    program = ready(tapegrad.record(squared_miss, x, 0.5, 1.0))
    return program.map((None, 0, 0), reduce="sum"), (x, t, np.sign(t))


def llsq_primal(given: dict[str, Any], ready: Ready) -> Prepared:
    batch, at = llsq(given, ready)
    return Prepared(lambda: batch(*at))


def llsq_gradient(given: dict[str, Any], ready: Ready) -> Prepared:
    batch, at = llsq(given, ready)
    return Prepared(lambda: batch.grad(*at), listed)


# ---- gmm: a row for each point; what the points share is a program of its own ----


def gmm_point(base: Any, mu: Any, diagonal: Any, below: Any, x: Any) -> Number:
    """The log likelihood of a point, but for what does not depend on it.

    Args:
        base: for each component the logarithms of its weight and of its precision's root's determinant.
        mu, diagonal, below: for each component the mean, and the diagonal and what is below it of that root; `below`
            goes column by column.
        x: the point.
    """
    d = len(x)
    starts = [j * d - j * (j + 1) // 2 - j - 1 for j in range(d)]  # of column j in `below`, less its first row
    terms = []
    for k in range(len(base)):
        centred = [x[j] - mu[k][j] for j in range(d)]
        whitened = [
            tapegrad.dot([diagonal[k][i], *(below[k][starts[j] + i] for j in range(i))], [centred[i], *centred[:i]])
            for i in range(d)
        ]
        terms.append(base[k] - 0.5 * tapegrad.dot(whitened, whitened))
    return tapegrad.logsumexp(terms)


def gmm(given: dict[str, Any], ready: Ready) -> tuple[Any, ...]:
    n, d, k, m, gamma = (given[name] for name in ("n", "d", "k", "m", "gamma"))
    alpha, mu, q, below, x = (np.array(given[name]) for name in ("alpha", "mu", "q", "l", "x"))
    below = below.reshape(k, d * (d - 1) // 2)
    freedom = d + m + 1
    log_gamma = sum(math.lgamma(0.5 * (freedom - j)) for j in range(d)) + 0.25 * d * (d - 1) * math.log(math.pi)
    constant = k * (freedom * d * (math.log(gamma) - 0.5 * math.log(2.0)) - log_gamma)
    constant -= 0.5 * n * d * math.log(2.0 * math.pi)

    def shared(alpha: Any, q: Any, below: Any) -> tuple[Any, Any, Number]:
        """What the points share, and the logarithm of the prior."""
        sums = [tapegrad.sum(row) for row in q]
        diagonal = [[v.exp() for v in row] for row in q]
        prior = constant - n * tapegrad.logsumexp(alpha)
        for j in range(k):
            norm = tapegrad.dot(diagonal[j], diagonal[j]) + (tapegrad.dot(below[j], below[j]) if d > 1 else 0.0)
            prior = prior - (0.5 * gamma * gamma * norm - m * sums[j])
        return np.array([a + s for a, s in zip(alpha, sums)]), np.array(diagonal), prior

    head = tapegrad.record(shared, alpha, q, below)
    base, diagonal, _ = head(alpha, q, below)
    point = ready(tapegrad.record(gmm_point, base, mu, diagonal, below, x[0]))
    return head, point.map((None, None, None, None, 0), reduce="sum"), alpha, mu, q, below, x


def gmm_objective(given: dict[str, Any], ready: Ready) -> Prepared:
    head, points, alpha, mu, q, below, x = gmm(given, ready)

    def run() -> float:
        base, diagonal, prior = head(alpha, q, below)
        return points(base, mu, diagonal, below, x) + prior  # type: ignore[no-any-return]

    return Prepared(run)


def gmm_jacobian(given: dict[str, Any], ready: Ready) -> Prepared:
    head, points, alpha, mu, q, below, x = gmm(given, ready)

    def run() -> tuple[Any, ...]:
        (base, diagonal, _), pull = head.vjp(alpha, q, below)
        by_base, by_mu, by_diagonal, by_below = points.grad(base, mu, diagonal, below, x, argnums=(0, 1, 2, 3))
        by_alpha, by_q, more = pull((by_base, by_diagonal, 1.0))
        return by_alpha, by_mu, by_q, by_below + more

    return Prepared(run, lambda found: dict(zip(("alpha", "mu", "q", "l"), map(listed, found))))


# ---- kmeans: a row for each point ----


def distance(centre: Any, point: Any) -> Number:
    """Squared."""
    total = 0.0
    for a, b in zip(centre, point):
        total = total + (a - b) * (a - b)
    return total


def nearest(centres: Any, point: Any) -> tuple[Number, Number]:
    """The distance of the nearest centre, and which it is."""
    least, which = distance(centres[0], point), 0.0
    for k, centre in enumerate(centres[1:], 1):
        other = distance(centre, point)
        which = tapegrad.where(tapegrad.less(other, least), float(k), which)
        least = other.min(least)
    return least, which


def kmeans_cost(given: dict[str, Any], ready: Ready) -> Prepared:
    centres, points = np.array(given["centroids"]), np.array(given["points"])
    cost = ready(tapegrad.record(lambda c, p: nearest(c, p)[0], centres, points[0])).map((None, 0), reduce="sum")
    return Prepared(lambda: cost(centres, points))


def kmeans_dir(given: dict[str, Any], ready: Ready) -> Prepared:
    """Newton's step. The derivatives of a minimum are those of what is least, so that a point has those of the distance
    of its centre alone; the Hessian is diagonal, so that its product with ones is its diagonal."""
    centres, points = np.array(given["centroids"]), np.array(given["points"])
    choice = ready(tapegrad.record(lambda c, p: nearest(c, p)[1], centres, points[0])).map((None, 0))
    squared = ready(tapegrad.record(distance, centres[0], points[0])).map(0)
    ones = np.ones_like(points)

    def run() -> Any:
        which = choice(centres, points).astype(int)
        near = centres[which]
        slope, curve = np.zeros_like(centres), np.zeros_like(centres)
        np.add.at(slope, which, squared.grad(near, points))
        np.add.at(curve, which, squared.hvp(near, ones, points))
        return slope / curve

    return Prepared(run, listed)


# ---- lstm: a step for each character ----


def lstm_step(state: Any, bits: Any, main: Any, extra: Any) -> tuple[tuple[Any, Any], Number]:
    """Hidden states and cells of all layers after a character, and the next one's log likelihood.

    Args:
        bits: those of the character and of the next.
        main, extra: the weights; every matrix of them is diagonal.
    """
    hidden, cells = ([list(row) for row in part] for part in state)
    n = len(bits[0])
    x = [a * w for a, w in zip(bits[0], extra[0])]
    for layer in range(len(hidden)):
        weights, biases = main[2 * layer], main[2 * layer + 1]
        for i in range(n):
            forget, take, give, change = (
                at * weights[gate * n + i] + biases[gate * n + i]
                for gate, at in enumerate((x[i], hidden[layer][i], x[i], hidden[layer][i]))
            )
            cell = cells[layer][i] * forget.sigmoid() + take.sigmoid() * change.tanh()
            cells[layer][i], hidden[layer][i] = cell, give.sigmoid() * cell.tanh()
        x = hidden[layer]
    y = [a * w + b for a, w, b in zip(x, extra[1], extra[2])]
    norm = (tapegrad.sum([v.exp() for v in y]) + 2.0).log()
    return (np.array(hidden), np.array(cells)), tapegrad.dot(bits[1], [v - norm for v in y])


def lstm(given: dict[str, Any], ready: Ready) -> tuple[Any, tuple[Any, ...], float]:
    """The loop, its arguments, and what makes a loss of the sum of its log likelihoods."""
    main, extra, state, sequence = (np.array(given[k]) for k in ("main_params", "extra_params", "state", "sequence"))
    start, pairs = (state[0::2], state[1::2]), np.stack([sequence[:-1], sequence[1:]], axis=1)
    step = ready(tapegrad.record(lstm_step, start, pairs[0], main, extra))
    return step.scan(), (start, pairs, main, extra), -1.0 / pairs[:, 1].size


def lstm_objective(given: dict[str, Any], ready: Ready) -> Prepared:
    loop, at, unit = lstm(given, ready)
    return Prepared(lambda: unit * math.fsum(loop(*at)[1]))


def lstm_jacobian(given: dict[str, Any], ready: Ready) -> Prepared:
    loop, at, unit = lstm(given, ready)
    return Prepared(
        lambda: unit * np.concatenate([slope.ravel() for slope in loop.grad(*at, argnums=(2, 3))]), listed
    )


# ---- ode: unrolled ----


def ode_end(x: Any, steps: int) -> list[Number]:
    """y at time 2 of y0' = x0, yi' = xi y(i-1), from 0, by Runge and Kutta's fourth-order rule."""
    h = 2.0 / steps

    def slope(y: Sequence[Number]) -> list[Number]:
        return [x[0], *(a * b for a, b in zip(x[1:], y))]

    def moved(y: Sequence[Number], k: Sequence[Number], by: float) -> list[Number]:
        return [a + by * b for a, b in zip(y, k)]

    y: list[Number] = [0.0] * len(x)
    for _ in range(steps):
        k1 = slope(y)
        k2 = slope(moved(y, k1, h / 2))
        k3 = slope(moved(y, k2, h / 2))
        k4 = slope(moved(y, k3, h))
        y = [v + h / 6 * (a + 2.0 * b + 2.0 * c + d) for v, a, b, c, d in zip(y, k1, k2, k3, k4)]
    return y


def ode_primal(given: dict[str, Any], ready: Ready) -> Prepared:
    x = np.array(given["x"])
    program = ready(tapegrad.record(lambda x: np.array(ode_end(x, given["s"])), x))
    return Prepared(lambda: program(x), listed)


def ode_gradient(given: dict[str, Any], ready: Ready) -> Prepared:
    x = np.array(given["x"])
    program = ready(tapegrad.record(lambda x: ode_end(x, given["s"])[-1], x))
    return Prepared(lambda: program.grad(x), listed)


# ---- ba: a row for each observation, the Jacobian's blocks ----

PART = 16384
CAMERA = 11  # numbers: rotation 3, centre 3, focal length, principal point 2, radial distortion 2


def reprojection(z: Any, seen: Any) -> list[Number]:
    """How far off the projection of a point is, weighed; z: the camera's 11 numbers, the point's 3, the weight."""
    rotation, centre, focal, principal, radial = z[0:3], z[3:6], z[6], z[7:9], z[9:11]
    x = [a - b for a, b in zip(z[11:14], centre)]
    squared = rotation[0] * rotation[0] + rotation[1] * rotation[1] + rotation[2] * rotation[2]
    if squared > 0.0:  # Rodrigues
        angle = squared.sqrt()
        sine, cosine, w = angle.sin(), angle.cos(), [r / angle for r in rotation]
        along = (w[0] * x[0] + w[1] * x[1] + w[2] * x[2]) * (1.0 - cosine)
        x = [x[i] * cosine + c * sine + w[i] * along for i, c in enumerate(cross(w, x))]
    else:
        x = [a + c for a, c in zip(x, cross(rotation, x))]
    flat = x[0] / x[2], x[1] / x[2]
    r2 = flat[0] * flat[0] + flat[1] * flat[1]
    bent = 1.0 + radial[0] * r2 + radial[1] * r2 * r2
    return [z[14] * (f * bent * focal + p - s) for f, p, s in zip(flat, principal, seen)]


def cross(a: Sequence[Number], b: Sequence[Number]) -> list[Number]:
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]


def weight_error(w: Number) -> Number:
    return 1.0 - w * w


def block_of(jacobian: Any) -> Callable[[Any, Any], Any]:
    """All of a Jacobian of which a program gives the nonzeros, the zeros being numbers."""

    def block(z: Any, seen: Any) -> Any:
        found = np.zeros(jacobian.shape, object)
        found[jacobian.rows, jacobian.cols] = jacobian.program(z, seen)
        return found

    return block


class Adjustment:
    """Cameras, points, weights, and which of them meet in each observation, as GradBench repeats one of each."""

    def __init__(self, given: dict[str, Any], ready: Ready) -> None:
        self.n, self.m, self.p = (given[name] for name in "nmp")
        self.cameras, self.points = np.tile(given["cam"], (self.n, 1)), np.tile(given["x"], (self.m, 1))
        self.weights, self.seen = np.full(self.p, given["w"]), np.tile(given["feat"], (self.p, 1))
        self.by_camera, self.by_point = (np.arange(self.p, dtype=np.int32) % x for x in (self.n, self.m))
        example = np.concatenate([given["cam"], given["x"], [given["w"]]])
        program = tapegrad.record(lambda z, seen: np.array(reprojection(z, seen)), example, self.seen[0])
        self.errors = ready(program).map(0)
        self.slopes = ready(tapegrad.record(block_of(program.sparse_jacobian()), example, self.seen[0])).map(0)
        self.weight_errors = ready(tapegrad.record(weight_error, 0.5)).map(0)

        self.starts, self.columns = self.pattern()
        self.values = np.empty(len(self.columns))

    def pattern(self) -> tuple[Any, Any]:
        """Of the sparse matrix, which is always the same: where rows start, and columns. An observation has two rows,
        then each weight has one."""
        p, wide = self.p, CAMERA + 3 + 1
        of_weights = CAMERA * self.n + 3 * self.m + np.arange(p, dtype=np.int32)
        of_camera = CAMERA * self.by_camera[:, None] + np.arange(CAMERA)
        of_point = CAMERA * self.n + 3 * self.by_point[:, None] + np.arange(3)
        block = np.concatenate([of_camera, of_point, of_weights[:, None]], axis=1)
        starts = np.concatenate([np.arange(2 * p + 1) * wide, 2 * p * wide + np.arange(1, p + 1)])
        return starts, np.concatenate([np.repeat(block, 2, axis=0).ravel(), of_weights])

    def parts(self) -> Iterator[tuple[slice, Any]]:
        """Some observations at a time, so that they stay in the cache, with what their errors depend on."""
        for first in range(0, self.p, PART):
            those = slice(first, first + PART)
            cameras, points = self.cameras[self.by_camera[those]], self.points[self.by_point[those]]
            yield those, np.concatenate([cameras, points, self.weights[those, None]], axis=1)

    def objective(self) -> tuple[Any, Any]:
        found = np.empty((self.p, 2))
        for those, rows in self.parts():
            found[those] = self.errors(rows, self.seen[those])
        return found, self.weight_errors(self.weights)

    def jacobian(self) -> tuple[Any, Any, Any]:
        """The sparse matrix; where rows start, columns, values."""
        blocks = self.values[: -self.p].reshape(self.p, 2, -1)
        for those, rows in self.parts():
            blocks[those] = self.slopes(rows, self.seen[those])
        self.values[-self.p :] = self.weight_errors.grad(self.weights)
        return self.starts, self.columns, self.values


def ba_objective(given: dict[str, Any], ready: Ready) -> Prepared:
    adjustment = Adjustment(given, ready)
    return Prepared(
        adjustment.objective,
        lambda found: {
            "reproj_error": {"elements": found[0][0].tolist(), "repeated": len(found[0])},
            "w_err": {"element": float(found[1][0]), "repeated": len(found[1])},
        },
    )


def ba_jacobian(given: dict[str, Any], ready: Ready) -> Prepared:
    adjustment = Adjustment(given, ready)

    def shown(found: tuple[Any, ...]) -> dict[str, Any]:
        """The first observation's, and the last of all."""
        return {name: [*x[:30].tolist(), x[-1].item()] for name, x in zip(("rows", "cols", "vals"), found)}

    return Prepared(adjustment.jacobian, shown)


# ---- det: expansion by minors ----


def determinant(a: Sequence[Sequence[Number]], columns: tuple[int, ...]) -> Number:
    """Of the last rows, as many as there are columns, in these columns."""
    row = a[len(a) - len(columns)]
    if len(columns) == 1:
        return row[columns[0]]
    total = 0.0
    for j, column in enumerate(columns):
        term = row[column] * determinant(a, columns[:j] + columns[j + 1 :])
        total = total - term if j % 2 else total + term
    return total


def det(given: dict[str, Any], ready: Ready) -> tuple[Any, Any]:
    n = given["ell"]
    a = np.array(given["A"]).reshape(n, n)
    return ready(tapegrad.record(lambda a: determinant(a, tuple(range(n))), a)), a


def det_primal(given: dict[str, Any], ready: Ready) -> Prepared:
    program, a = det(given, ready)
    return Prepared(lambda: program(a))


def det_gradient(given: dict[str, Any], ready: Ready) -> Prepared:
    program, a = det(given, ready)
    return Prepared(lambda: program.grad(a).ravel(), listed)


# ---- particle, saddle: gradient descent inside what gradient descent makes small ----

Slope = Callable[[Callable[[list[Number]], Number]], Callable[[list[Number]], list[Number]]]


def reverse(f: Callable[[list[Number]], Number]) -> Callable[[list[Number]], list[Number]]:
    return tapegrad.grad(f)


def forward(f: Callable[[list[Number]], Number]) -> Callable[[list[Number]], list[Number]]:
    def slope(x: list[Number]) -> list[Number]:
        return [tapegrad.jvp(f, (x,), ([float(i == k) for i in range(len(x))],))[1] for k in range(len(x))]

    return slope


def length(x: Sequence[Number]) -> Number:
    return math.sqrt(sum(float_of(v) ** 2 for v in x))


def float_of(v: Number) -> float:
    return v.data if isinstance(v, tapegrad.Value) else v


def lowest(f: Callable[[list[Number]], Number], slope: Slope, x: list[Number]) -> list[Number]:
    """Where f is least, by the descent that GradBench prescribes: steps halve where f grows, and double after ten."""
    value, gradient, rate, good = f(x), slope(f)(x), 1e-5, 0
    while length(gradient) > 1e-5:
        if good == 10:
            rate, good = 2.0 * rate, 0
            continue
        there = [a - rate * g for a, g in zip(x, gradient)]
        if length([a - b for a, b in zip(x, there)]) <= 1e-5:
            break
        new = f(there)
        if new < value:
            x, value, gradient, good = there, new, slope(f)(there), good + 1
        else:
            rate, good = rate / 2.0, 0
    return x


def highest(f: Callable[[list[Number]], Number], slope: Slope, x: list[Number]) -> list[Number]:
    return lowest(lambda x: -f(x), slope, x)


def square_at_axis(w: Number, slope: Slope) -> Number:
    """Where a charged particle crosses the axis, squared: Euler's rule, the force being a gradient."""
    charges = (10.0, 10.0 - w), (10.0, 0.0)

    def potential(x: list[Number]) -> Number:
        return sum(1.0 / tapegrad.math.hypot(x[0] - a, x[1] - b) for a, b in charges)

    x, v, h = [0.0, 8.0], [0.75, 0.0], 0.1
    while True:
        force = [-g for g in slope(potential)(x)]
        x = [a + h * b for a, b in zip(x, v)]
        if x[1] <= 0.0:
            return (x[0] - x[1] / v[1] * v[0]) ** 2
        v = [a + h * b for a, b in zip(v, force)]


def particle(outer: Slope, inner: Slope) -> Callable[[dict[str, Any], Ready], Prepared]:
    def prepare(given: dict[str, Any], ready: Ready) -> Prepared:
        start = [given["w"]]
        return Prepared(lambda: lowest(lambda w: square_at_axis(w[0], inner), outer, start)[0])

    return prepare


def saddle(outer: Slope, inner: Slope) -> Callable[[dict[str, Any], Ready], Prepared]:
    def height(x: list[Number], y: list[Number]) -> Number:
        return (x[0] * x[0] + x[1] * x[1]) - (y[0] * y[0] + y[1] * y[1])

    def prepare(given: dict[str, Any], ready: Ready) -> Prepared:
        start = list(given["start"])

        def run() -> list[float]:
            x = lowest(lambda x: height(x, highest(lambda y: height(x, y), inner, start)), outer, start)
            return x + highest(lambda y: height(x, y), inner, start)

        return Prepared(run, listed)

    return prepare


MODES = {"r": reverse, "f": forward}
PAIRS = [(a + b, MODES[a], MODES[b]) for a in MODES for b in MODES]

EVALS: dict[str, dict[str, Callable[[Any, Ready], Prepared]]] = {
    "hello": {"square": hello_square, "double": hello_double},
    "lse": {"primal": lse_primal, "gradient": lse_gradient},
    "llsq": {"primal": llsq_primal, "gradient": llsq_gradient},
    "gmm": {"objective": gmm_objective, "jacobian": gmm_jacobian},
    "kmeans": {"cost": kmeans_cost, "dir": kmeans_dir},
    "lstm": {"objective": lstm_objective, "jacobian": lstm_jacobian},
    "ode": {"primal": ode_primal, "gradient": ode_gradient},
    "ba": {"objective": ba_objective, "jacobian": ba_jacobian},
    "ht": {"objective": ht_objective, "jacobian": ht_jacobian},
    "det": {"primal": det_primal, "gradient": det_gradient},
    "particle": {name: particle(outer, inner) for name, outer, inner in PAIRS},
    "saddle": {name: saddle(outer, inner) for name, outer, inner in PAIRS},
}
