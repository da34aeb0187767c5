"""Measures one contender that freezes expressions and replays them, in this process, and prints a line of JSON.

All build the same graphs with the same Python loops, and give value and gradient: "moons" is the loss of 100 points
with L2 by the 337 weights of MLP(2, [16, 16, 1]), "chain" 10^5 operations of x*a + b with a tanh after every twentieth,
"links" 10^3 without a tanh, "row" the loss of one point by weights and point, of which a batch has 1,024 with
weights of their own; or 65,536 that share them, of which only tapegrad knows, and the first 1,024 of these, half a
millisecond's work, which threads have to be quick for. "links" comes in a batch, too. "six" and "thousand" are
Rosenbrock's chained function of so many numbers, where calls as such count; "vast" is that of 10^5, and "heat" fifty
steps of the heat equation on 64 x 64: programs too large for the caches, in which the same is done over and over. With
"vast" goes Rosenbrock's function of 10^6 numbers on two threads, as a running total and as a sum. With
"row" go derivatives of other functions that are more than a gradient: Rosenbrock's, joints, and nearest centres."""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

LAYERS = [(2, 16), (16, 16), (16, 1)]
WEIGHTS = sum((n_in + 1) * n_out for n_in, n_out in LAYERS)
ROWS = 1024
SHORT = 1e-4  # seconds: the clock itself takes 1e-7
MILLION = 10**6
COPIES = 64  # of the rows where they share their weights, which takes little memory

draw = random.Random(1)
START = [draw.uniform(-1.0, 1.0) for _ in range(WEIGHTS)]
POINTS = [(draw.gauss(0.0, 1.0), draw.gauss(0.0, 1.0), draw.choice((-1.0, 1.0))) for _ in range(ROWS)]


def hinge(w: Sequence[Any], point: Sequence[Any], relu: Callable[[Any], Any]) -> Any:
    """The loss of one point; for each neuron its weights, then its bias."""
    at, layer = 0, point[:2]
    for n_in, n_out in LAYERS:
        out = []
        for _ in range(n_out):
            s = w[at + n_in]
            for k in range(n_in):
                s = s + w[at + k] * layer[k]
            out.append(relu(s) if n_out > 1 else s)
            at += n_in + 1
        layer = out
    return relu(1.0 - point[2] * layer[0])


def moons(w: Sequence[Any], relu: Callable[[Any], Any], tanh: Callable[[Any], Any]) -> Any:
    loss = penalty = 0.0
    for point in POINTS[:100]:
        loss = loss + hinge(w, point, relu)
    for p in w:
        penalty = penalty + p * p
    return loss * 0.01 + penalty * 1e-4


def chain(inputs: Sequence[Any], relu: Callable[[Any], Any], tanh: Callable[[Any], Any]) -> Any:
    x, a, b = inputs
    for _ in range(10**5 // 21):
        for _ in range(10):
            x = x * a + b
        x = tanh(x)
    return x


def links(inputs: Sequence[Any], relu: Callable[[Any], Any], tanh: Callable[[Any], Any]) -> Any:
    x, a, b = inputs
    for _ in range(500):
        x = x * a + b
    return x


def row(inputs: Sequence[Any], relu: Callable[[Any], Any], tanh: Callable[[Any], Any]) -> Any:
    return hinge(inputs[:WEIGHTS], inputs[WEIGHTS:], relu)


def rosenbrock(x: Sequence[Any], relu: Callable[[Any], Any] | None = None, tanh: Any = None) -> Any:
    total = 0.0
    for a, b in zip(x, x[1:]):
        slope, rest = b - a * a, 1.0 - a
        total = total + 100.0 * (slope * slope) + rest * rest
    return total


def squares(x: Sequence[Any]) -> Any:
    """Rosenbrock's function as a running total of powers, which are not products that a dot takes in."""
    total = 0.0
    for a, b in zip(x, x[1:]):
        total = total + 100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2
    return total


def heat(u: Sequence[Any], relu: Callable[[Any], Any], tanh: Callable[[Any], Any]) -> Any:
    """The squares of what fifty steps of the heat equation leave of the numbers on a square, whose rim is held."""
    n = math.isqrt(len(u))
    within = [k for k in range(n * n) if 0 < k // n < n - 1 and 0 < k % n < n - 1]
    for _ in range(50):
        now = list(u)
        for k in within:
            now[k] = u[k] + 0.1 * (u[k - n] + u[k + n] + u[k - 1] + u[k + 1] - 4.0 * u[k])
        u = now
    total = 0.0
    for x in u:
        total = total + x * x
    return total


def joints(x: Sequence[Any]) -> list[Any]:
    """900 numbers from 26, each of a few of them, as where the points of a hand are by its angles."""
    out = []
    for i in range(300):
        reach = 0.0
        for k in range(i % 7, len(x), 7):
            reach = reach + (x[k] * (0.01 * i + k)).sin()
        out += [reach, reach * x[i % len(x)], x[3 * i % len(x)] * x[i % len(x)]]
    return out


def nearest(centres: Any, point: Any) -> Any:
    """The squared distance of the nearest of some centres: summed over points, what k-means makes small."""
    least = None
    for centre in centres:
        distance = 0.0
        for a, b in zip(centre, point):
            distance = distance + (a - b) * (a - b)
        least = distance if least is None else least.min(distance)
    return least


GRAPHS: dict[str, tuple[Callable[..., Any], list[float]]] = {
    "moons": (moons, START),
    "chain": (chain, [0.3, 0.99, 0.01]),
    "links": (links, [0.3, 0.99, 0.01]),
    "row": (row, [*START, *POINTS[0]]),
    "six": (rosenbrock, [-1.2, 1.0, 0.5, -0.5, 2.0, 0.25]),
    "thousand": (rosenbrock, [draw.uniform(-2.0, 2.0) for _ in range(1000)]),
    "vast": (rosenbrock, [draw.uniform(-2.0, 2.0) for _ in range(100_000)]),
    "heat": (heat, [draw.uniform(0.0, 1.0) for _ in range(64 * 64)]),
}
SMALL = tuple(graph for graph in GRAPHS if graph not in ("vast", "heat"))  # the wide ones take others minutes to build
BATCHES = {
    "links": [[0.3 + 1e-4 * k, 0.99, 0.01] for k in range(ROWS)],
    "row": [[*START, *point] for point in POINTS],
}


class Tapegrad:
    package = "tapegrad"
    licence = "MIT"
    graphs: Sequence[str] = tuple(GRAPHS)

    def freeze(self, graph: Callable[..., Any], at: Sequence[float]) -> float:
        """Freeze a graph; the seconds that took, the graph's making left out."""
        import numpy

        import tapegrad

        def f(v: Any) -> Any:
            return graph(v, lambda x: x.relu(), lambda x: x.tanh())

        self.f, self.at = f, numpy.array(at)
        self.program = tapegrad.record(f, self.at)
        return self.program.stats["seconds"]  # type: ignore[no-any-return]

    def one(self) -> tuple[float, Any]:
        return self.program.value_and_grad(self.at)

    def along(self) -> Any:
        """The Hessian times a vector, with value and gradient where the contender cannot leave them out."""
        return self.program.hvp(self.at, self.at)

    def batch(self, rows: Any, threads: int) -> Callable[[], Any]:
        batch = self.program.map(0, threads=threads)
        return lambda: batch.value_and_grad(rows)

    def shared(self, points: Any, threads: int) -> Callable[[], Any]:
        """The mean over the points, all with the same weights, and its gradient by them."""
        import numpy

        import tapegrad

        weights = numpy.array(START)
        program = tapegrad.record(lambda w, point: hinge(w, point, lambda v: v.relu()), weights, points[0])
        batch = self.ready(program).map((None, 0), reduce="mean", threads=threads)
        return lambda: batch.value_and_grad(weights, points)

    def derivatives(self) -> dict[str, Callable[[], Any]]:
        """Hessians, a Jacobian, and Hessians of rows times a vector, beside values."""
        import numpy

        import tapegrad

        at = {n: numpy.array([draw.uniform(-2.0, 2.0) for _ in range(n)]) for n in (6, 26, 1000)}
        six, thousand = (tapegrad.record(rosenbrock, at[n]) for n in (6, 1000))
        listed, numbers = tapegrad.record(rosenbrock, at[6].tolist()), at[6].tolist()
        hand = tapegrad.record(joints, at[26])
        centres, points = (numpy.array([draw.gauss(0.0, 1.0) for _ in range(8 * n)]) for n in (10, 20000))
        centres, points = centres.reshape(-1, 8), points.reshape(-1, 8)
        rows = tapegrad.record(nearest, centres, points[0]).map((None, 0), reduce="sum")
        along = numpy.ones_like(centres)
        return {
            "hessian 6": lambda: six.hessian(at[6]), "hessian 6, list": lambda: listed.hessian(numbers),
            "hessian 1000": lambda: thousand.hessian(at[1000]), "joints": lambda: hand(at[26]),
            "jacobian": lambda: hand.jacobian(at[26]), "nearest": lambda: rows(centres, points),
            "nearest along": lambda: rows.hvp(centres, along, points),
        }  # fmt: skip

    def on_threads(self) -> dict[str, Any]:
        """How many times as fast value and gradient at one point are on two threads: of a running total, of a sum."""
        import numpy

        import tapegrad

        def summed(x: Sequence[Any]) -> Any:
            return tapegrad.sum([100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2 for a, b in zip(x, x[1:])])

        at, found = numpy.array([draw.uniform(-2.0, 2.0) for _ in range(MILLION)]), {}
        for name, f in ("running total", squares), ("sum", summed):
            program = tapegrad.record(f, at)
            took: dict[int, list[float]] = {1: [], 2: []}
            for turn in range(16):
                for threads, times in took.items():
                    tapegrad.set_num_threads(threads)
                    began = time.perf_counter()
                    program.value_and_grad(at)
                    times.extend([time.perf_counter() - began] if turn else [])
            tapegrad.set_num_threads(1)
            found[name] = statistics.median(took[1]) / statistics.median(took[2])
        return found

    def training(self) -> tuple[Callable[[], Any], Callable[[], Any]]:
        """A step of gradient descent on 100 points: a program mapped over them, and all of it recorded every time."""
        import numpy

        import tapegrad

        def relu(x: Any) -> Any:
            return x.relu()

        points, weights = numpy.array(POINTS[:100]), numpy.array(START)
        values = tapegrad.leaves(START)
        program = tapegrad.record(lambda w, point: hinge(w, point, relu), weights, points[0])
        batch = self.ready(program).map((None, 0), reduce="mean")

        def replayed() -> None:
            nonlocal weights
            _, gradient = batch.value_and_grad(weights, points)
            weights = weights - 0.01 * gradient

        def recorded() -> None:
            loss = sum(hinge(values, point, relu) for point in POINTS[:100]) * 0.01
            tapegrad.zero_grad(values)
            loss.backward()
            for v in values:
                v.data -= 0.01 * v.grad

        return replayed, recorded

    def calls(self) -> dict[str, Callable[[], Any]]:
        """Calls at one point besides value and gradient by an array."""
        import tapegrad

        at, along = self.at, self.program.jvp
        numbers = at.tolist()
        pair = self.ready(tapegrad.record(lambda x, y: x * y + x.sin(), 1.0, 2.0))
        listed = self.ready(tapegrad.record(self.f, numbers))
        return {
            "call": lambda: pair(1.0, 2.0), "call and gradient": lambda: pair.value_and_grad(1.0, 2.0),
            "list": lambda: listed.value_and_grad(numbers), "jvp": lambda: along((at,), (at,)),
        }  # fmt: skip

    def ready(self, program: Any) -> Any:
        return program


class Native(Tapegrad):
    graphs = ("links", "row", "six", "vast")  # compiling pays for small programs, and for wide ones

    def freeze(self, graph: Callable[..., Any], at: Sequence[float]) -> float:
        super().freeze(graph, at)
        began = time.perf_counter()
        self.ready(self.program).value_and_grad(self.at)
        return time.perf_counter() - began

    def ready(self, program: Any) -> Any:
        with tempfile.TemporaryDirectory() as cache:
            os.environ["TAPEGRAD_CACHE"] = cache  # nothing that was compiled before
            return program.native()


class Ddx:
    package = "ddx-ad"
    licence = "BSL-1.0"
    graphs: Sequence[str] = SMALL
    compiled = False

    def freeze(self, graph: Callable[..., Any], at: Sequence[float]) -> float:
        import ddx

        spent = 0.0

        def model() -> Any:
            nonlocal spent
            began = time.perf_counter()
            inputs = [ddx.var(f"x{k:04}") for k in range(len(at))]
            out = graph(inputs, lambda x: ddx.select(x > 0.0, x, 0.0), ddx.tanh)
            spent = time.perf_counter() - began
            return out

        began = time.perf_counter()
        self.equation, self.at = ddx.equation(model), list(at)
        backend = ddx.Backend.COMPILE if self.compiled else ddx.Backend.INTERPRET
        self.equation.options = ddx.Options(backend=backend)
        self.one()
        return time.perf_counter() - began - spent

    def one(self) -> tuple[float, Any]:
        return self.equation.jacobian(self.at)  # type: ignore[no-any-return]

    def along(self) -> Any:
        return self.equation.hvp(self.at, self.at)

    def batch(self, rows: Any, threads: int) -> Callable[[], Any]:
        if threads > 1:
            raise NotImplementedError
        columns = rows.T.copy()
        if self.compiled:
            self.equation.compile(points=len(rows))
        return lambda: self.equation.jacobian(columns)


class CompiledDdx(Ddx):
    graphs = ("links", "row", "six")
    compiled = True


class CasADi:
    package = "casadi"
    licence = "LGPL-3.0-or-later"
    graphs: Sequence[str] = SMALL

    def freeze(self, graph: Callable[..., Any], at: Sequence[float]) -> float:
        import casadi

        x, v = casadi.SX.sym("x", len(at)), casadi.SX.sym("v", len(at))
        inputs = [x[k] for k in range(len(at))]
        out = graph(inputs, lambda a: casadi.fmax(a, 0.0), casadi.tanh)
        began = time.perf_counter()
        gradient = casadi.gradient(out, x)
        self.function, self.at = casadi.Function("f", [x], [out, gradient]), list(at)
        took = time.perf_counter() - began
        self.second = casadi.Function("h", [x, v], [casadi.jtimes(gradient, x, v)])
        return took

    def one(self) -> tuple[float, Any]:
        value, gradient = self.function(self.at)
        return float(value), gradient

    def along(self) -> Any:
        return self.second(self.at, self.at)

    def batch(self, rows: Any, threads: int) -> Callable[[], Any]:
        how = ("thread", threads) if threads > 1 else ("serial",)
        mapped = self.function.map(len(rows), *how)
        columns = rows.T.copy()
        return lambda: mapped(columns)


class CasADiBuffer(CasADi):
    """The function called on memory that it was given once."""

    graphs = ("six", "thousand", "vast", "heat")

    def freeze(self, graph: Callable[..., Any], at: Sequence[float]) -> float:
        import numpy

        def bound(function: Any, *sizes: int) -> tuple[Callable[[], None], list[Any]]:
            """What calls a function of arrays like at, and the arrays that it writes."""
            buffer, trigger = function.buffer()
            for k in range(function.n_in()):
                buffer.set_arg(k, memoryview(self.numbers))
            results = [numpy.zeros(size) for size in sizes]
            for k, x in enumerate(results):
                buffer.set_res(k, memoryview(x))
            self.held.append(buffer)
            return trigger, results

        took = super().freeze(graph, at)
        self.numbers, self.held = numpy.array(at), list[Any]()
        self.trigger, (self.value, self.gradient) = bound(self.function, 1, len(at))
        self.second_trigger, (self.product,) = bound(self.second, len(at))
        return took

    def one(self) -> tuple[float, Any]:
        self.trigger()
        return self.value[0], self.gradient  # type: ignore[return-value]

    def along(self) -> Any:
        self.second_trigger()
        return self.product


CONTENDERS: dict[str, Any] = {
    "tapegrad": Tapegrad, "tapegrad, native": Native, "ddx-ad": Ddx, "ddx-ad, compiled": CompiledDdx,
    "CasADi SX": CasADi, "CasADi SX, buffers": CasADiBuffer,
}  # fmt: skip


def timed(f: Callable[[], Any], seconds: float) -> float:
    """The median of as many runs as that takes, five at least and one to warm up; what is short runs several times."""
    times: list[float] = []
    began, each = time.perf_counter(), 1
    f()
    while time.perf_counter() - began < SHORT:
        each *= 2
        began = time.perf_counter()
        for _ in range(each):
            f()
    while sum(times) < seconds or len(times) < 6:
        began = time.perf_counter()
        for _ in range(each):
            f()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:]) / each


def main(contender: str, graph: str, seconds: str) -> None:
    import numpy

    engine = CONTENDERS[contender]()
    f, at = GRAPHS[graph]
    found: dict[str, Any] = {"freeze": engine.freeze(f, at)}
    value, gradient = engine.one()
    found["value"], found["gradient"] = float(value), numpy.asarray(gradient).ravel().tolist()
    found["one"], found["along"] = timed(engine.one, float(seconds)), timed(engine.along, float(seconds))
    if graph in ("vast", "heat") and contender == "tapegrad":
        found["value alone"] = timed(lambda: engine.program(engine.at), float(seconds))
    if graph == "vast" and contender == "tapegrad":
        found["on threads"] = engine.on_threads()
    if graph in BATCHES:
        rows = numpy.array(BATCHES[graph])
        for threads in (1, 2):
            try:
                found[f"batch {threads}"] = timed(engine.batch(rows, threads), float(seconds)) / ROWS
            except NotImplementedError:
                pass
    if graph == "row" and contender == "tapegrad":
        found["derivatives"] = {name: timed(f, float(seconds)) for name, f in engine.derivatives().items()}
    if graph == "row" and hasattr(engine, "shared"):
        found["replayed step"], found["recorded step"] = (timed(f, float(seconds)) for f in engine.training())
        points = numpy.array(POINTS * COPIES)
        for threads in (1, 2):
            found[f"shared {threads}"] = timed(engine.shared(points, threads), float(seconds)) / len(points)
            found[f"few {threads}"] = timed(engine.shared(points[:ROWS], threads), float(seconds)) / ROWS
    if graph in ("six", "thousand") and hasattr(engine, "calls"):
        found.update({name: timed(call, float(seconds)) for name, call in engine.calls().items()})
    if contender == "tapegrad":
        found["nodes"] = engine.program.stats["recorded"]
    print(json.dumps({**found, "version": version(engine.package)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
