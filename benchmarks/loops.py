"""Measures loops: a step recorded once and carried out many times, with the gradient of the whole, beside the steps
written out, CasADi's `mapaccum`, JAX's `lax.scan` and diffrax's recursive checkpoints, and prints a table. One process,
one thread, CPU time, the best of several runs; of the peers those that are installed.

    python benchmarks/loops.py             all sizes
    python benchmarks/loops.py --smoke     small ones, once

"Lorenz" is 10^5 steps by Runge and Kutta's rule (10^6 in a row of its own, which takes 24 bytes of states a step), the
gradient by the start and the three parameters; "Heston" is 20,000 paths of 100 days, the price of a call and its
gradient by start and market. Nodes are those that recording a step makes."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import numpy as np
from clock import best

PACKAGES = {"tapegrad": "tapegrad", "CasADi": "casadi", "JAX": "jax", "diffrax": "diffrax"}
STEPS, LONG, UNROLLED = 100_000, 1_000_000, 5_000
PATHS, DAYS = 20_000, 100
START, PARAMS = (1.0, 1.0, 20.0), (10.0, 28.0, 8.0 / 3.0)
HORIZON = 1e-4  # seconds of a step: beyond some seconds in all, gradients have no digits

Number = Any


def slope(state: Sequence[Number], params: Sequence[Number]) -> list[Number]:
    x, y, z = state[0], state[1], state[2]
    return [params[0] * (y - x), x * (params[1] - z) - y, x * y - params[2] * z]


def moved(state: Sequence[Number], slopes: Sequence[Number], seconds: float) -> list[Number]:
    return [state[k] + seconds * slopes[k] for k in range(3)]


def step(state: Sequence[Number], params: Sequence[Number]) -> list[Number]:
    k1 = slope(state, params)
    k2 = slope(moved(state, k1, HORIZON / 2), params)
    k3 = slope(moved(state, k2, HORIZON / 2), params)
    k4 = slope(moved(state, k3, HORIZON), params)
    return moved(state, [a + 2.0 * (b + c) + d for a, b, c, d in zip(k1, k2, k3, k4)], HORIZON / 6)


def ended(state: Sequence[Number]) -> Number:
    return state[0] * state[0] + state[1]


def timed(program: Any, args: Sequence[Any], argnums: tuple[int, ...], seconds: float) -> dict[str, Any]:
    """Value and gradient of a program or loop: seconds, and what the gradient is."""

    def run() -> Any:
        return program.value_and_grad(*args, argnums=argnums)

    taken, (_, gradient) = best(run, seconds, 2)
    return {"seconds": taken, "gradient": [float(x) for g in gradient for x in g]}


def of_tapegrad(n: int, paths: int, seconds: float) -> Iterator[dict[str, Any]]:
    import tapegrad

    recorded = tapegrad.record(lambda state, _, params: step(state, params), list(START), None, list(PARAMS))
    nodes, final = recorded.stats["recorded"], tapegrad.record(ended, list(START))
    args = list(START), None, list(PARAMS)
    loops = {
        "Lorenz": (recorded.scan(length=n, final=final, checkpoints=n), n),
        "Lorenz, 1,000 states": (recorded.scan(length=n, final=final, checkpoints=min(1000, n // 2)), n),
        "Lorenz, long": (recorded.scan(length=n * LONG // STEPS, final=final), n * LONG // STEPS),
    }
    unrolled_steps = n * UNROLLED // STEPS

    def whole(state: Sequence[Number], _: None, params: Sequence[Number]) -> Number:
        for _k in range(unrolled_steps):
            state = step(state, params)
        return ended(state)

    unrolled = timed(tapegrad.record(whole, *args), args, (0, 2), seconds)
    yield {"problem": "Lorenz, written out", "nodes": nodes * unrolled_steps, **unrolled}
    found = {name: timed(loop, args, (0, 2), seconds) for name, (loop, _) in loops.items()}
    try:
        recorded.native()
        final.native()
    except RuntimeError:
        compiled: dict[str, float] = {}
    else:
        compiled = {name: timed(loop, args, (0, 2), seconds)["seconds"] for name, (loop, _) in loops.items()}
    for name, (_, length) in loops.items():
        native = {"native": compiled[name]} if name in compiled else {}
        yield {"problem": name, "nodes": nodes * length, **found[name], **native}
    yield from heston(paths, seconds)


def heston(paths: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Of the example, the loop and the days written out."""
    import tapegrad

    sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
    import heston as example

    dt, market = 1.0 / DAYS, list(example.MARKET)
    start = [math.log(market[0]), market[1]]
    normals = np.random.default_rng(1).normal(size=(paths, DAYS, 2))
    recorded = tapegrad.record(example.day, start, [0.0, 0.0], market, dt)
    final = tapegrad.record(example.payoff, start, market, dt)

    def whole(state: Any, xs: Any, market: Any, dt: Any) -> Any:
        for x in xs:
            state = example.day(state, x, market, dt)
        return example.payoff(state, market, dt)

    how: dict[str, Any] = {"in_axes": (None, 0, None, None), "reduce": "mean"}
    unrolled = tapegrad.record(whole, start, normals[0].tolist(), market, dt)
    nodes = recorded.stats["recorded"] * DAYS * paths
    for name, program in ("Heston", recorded.scan(final=final)), ("Heston, written out", unrolled):
        found = timed(program.map(**how), (start, normals, market, dt), (0, 2), seconds)
        try:
            program.native()
        except RuntimeError:
            native = {}
        else:
            again = timed(program.map(**how), (start, normals, market, dt), (0, 2), seconds)
            native = {"native": again["seconds"]}
        yield {"problem": name, "nodes": nodes, **found, **native}


def of_casadi(n: int, paths: int, seconds: float) -> Iterator[dict[str, Any]]:
    import casadi

    s, p = casadi.SX.sym("s", 3), casadi.SX.sym("p", 3)
    one = casadi.Function("step", [s, p], [casadi.vertcat(*step(casadi.vertsplit(s), casadi.vertsplit(p)))])
    start, params = casadi.MX.sym("s", 3), casadi.MX.sym("p", 3)
    last = one.mapaccum("all", n, 1)(start, casadi.repmat(params, 1, n))[:, -1]
    loss = ended([last[k] for k in range(3)])
    parts = [casadi.gradient(loss, start), casadi.gradient(loss, params)]
    gradient = casadi.Function("g", [start, params], parts)
    buffer, run = gradient.buffer()
    inputs, outputs = [np.array(START), np.array(PARAMS)], [np.zeros(3), np.zeros(3)]
    for k in range(2):
        buffer.set_arg(k, memoryview(inputs[k]))
        buffer.set_res(k, memoryview(outputs[k]))
    taken, _ = best(run, seconds, 2)
    yield {"problem": "Lorenz", "seconds": taken, "gradient": [*outputs[0].tolist(), *outputs[1].tolist()]}


def of_jax(n: int, paths: int, seconds: float) -> Iterator[dict[str, Any]]:
    import jax

    jax.config.update("jax_enable_x64", True)
    from jax import numpy as jnp

    def loss(state: Any, params: Any) -> Any:
        last, _ = jax.lax.scan(lambda s, _: (jnp.stack(step(s, params)), None), state, None, length=n)
        return ended(last)

    yield of_gradient(loss, seconds)


def of_gradient(loss: Any, seconds: float) -> dict[str, Any]:
    """The gradient of a loss that JAX differentiates and compiles."""
    import jax
    from jax import numpy as jnp

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    args = jnp.array(START), jnp.array(PARAMS)
    _, gradient = run(*args)
    taken, _ = best(lambda: run(*args)[0].block_until_ready(), seconds, 2)
    return {"problem": "Lorenz", "seconds": taken, "gradient": [float(x) for g in gradient for x in g]}


def of_diffrax(n: int, paths: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Its solver on the same rule, which diffrax does not bring; time counts steps, so that none is rounded."""
    import diffrax
    import jax

    jax.config.update("jax_enable_x64", True)
    from jax import numpy as jnp

    class RungeKutta(diffrax.AbstractERK):
        tableau = diffrax.ButcherTableau(
            c=np.array([0.5, 0.5, 1.0]), b_sol=np.array([1.0, 2.0, 2.0, 1.0]) / 6.0, b_error=np.zeros(4),
            a_lower=(np.array([0.5]), np.array([0.0, 0.5]), np.array([0.0, 0.0, 1.0])),
        )  # fmt: skip
        interpolation_cls = diffrax.ThirdOrderHermitePolynomialInterpolation.from_k

        def order(self, terms: Any) -> int:
            return 4

    term = diffrax.ODETerm(lambda _, state, params: HORIZON * jnp.stack(slope(state, params)))
    adjoint = diffrax.RecursiveCheckpointAdjoint()

    def loss(state: Any, params: Any) -> Any:
        solved = diffrax.diffeqsolve(
            term, RungeKutta(), 0.0, float(n), 1.0, state, params, adjoint=adjoint, max_steps=n,
            saveat=diffrax.SaveAt(t1=True),
        )  # fmt: skip
        return ended(solved.ys[-1])

    yield of_gradient(loss, seconds)


BY = {"tapegrad": of_tapegrad, "CasADi": of_casadi, "JAX": of_jax, "diffrax": of_diffrax}


def measured(names: Sequence[str], smoke: bool, seconds: float) -> Iterator[dict[str, Any]]:
    n, paths = (1_000, 200) if smoke else (STEPS, PATHS)
    for name in names:
        for one in BY[name](n, paths, seconds):
            yield {"by": name, **one}


def installed(name: str) -> bool:
    try:
        version(PACKAGES[name])
    except ImportError:  # importlib.metadata.PackageNotFoundError is one
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="small sizes, once")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each number, at least (default: %(default)s)")
    parser.add_argument("--json", choices=BY, metavar="NAME", help="of this contender alone")
    args = parser.parse_args()
    seconds = 0.0 if args.smoke else args.seconds
    if args.json:
        found = [*measured([args.json], args.smoke, seconds)]
        print(json.dumps({"version": version(PACKAGES[args.json]), "found": found}))
        return
    print("| problem | by | ms | compiled, ms | ns a node | compiled |\n| --- | --- | --- | --- | --- | --- |")
    nodes: dict[str, int] = {}
    gradients: dict[str, list[float]] = {}
    for one in measured([name for name in BY if installed(name)], args.smoke, seconds):
        kind = nodes.setdefault(one["problem"], one.get("nodes", 0))
        times = [one["seconds"], one.get("native")]
        shown = ["" if t is None else f"{1e3 * t:.3g}" for t in times]
        shown += ["" if t is None else f"{1e9 * t / kind:.3g}" for t in times]
        print(f"| {one['problem']} | {one['by']} | {' | '.join(shown)} |", flush=True)
        # The steps that are written out are fewer, the days that are as many.
        problem = one["problem"].replace(", 1,000 states", "").replace("Heston, written out", "Heston")
        same = gradients.setdefault(problem, one["gradient"])
        if not np.allclose(same, one["gradient"], rtol=1e-7, atol=1e-9):
            raise SystemExit(f"the gradients differ: {same}, {one['gradient']}")


if __name__ == "__main__":
    main()
