"""Measures sparse derivatives: tapegrad's programs of nonzeros beside CasADi SX, whose functions are called through
their buffers, and prints a table. One process, CPU time, the best of several runs; without CasADi tapegrad's alone.

    python benchmarks/sparse.py             all sizes
    python benchmarks/sparse.py --smoke     small ones, once

"made" is from the recorded program, or from CasADi's expression, to what can be called: pattern and nonzeros."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import tapegrad

Number = Any


def rosenbrock(x: Sequence[Number]) -> list[Number]:
    return [100.0 * (x[k + 1] - x[k] ** 2) ** 2 + (1.0 - x[k]) ** 2 for k in range(len(x) - 1)]


def brusselator(y: Sequence[Number]) -> list[Number]:
    """Of two substances on a periodic square grid; SciML's, with its constants."""
    n = round((len(y) / 2) ** 0.5)
    u, v = y[: n * n], y[n * n :]
    alpha, found = 10.0 * (n - 1) ** 2, []

    def spread(w: Sequence[Number], i: int, j: int) -> Number:
        near = ((i - 1) % n, j), ((i + 1) % n, j), (i, (j + 1) % n), (i, (j - 1) % n)
        around = [w[a * n + b] for a, b in near]
        return alpha * (around[0] + around[1] + around[2] + around[3] - 4.0 * w[i * n + j])

    for i in range(n):
        for j in range(n):
            a, b = u[i * n + j], v[i * n + j]
            found.append(spread(u, i, j) + 1.0 + a * a * b - 4.4 * a)
    for i in range(n):
        for j in range(n):
            a, b = u[i * n + j], v[i * n + j]
            found.append(spread(v, i, j) + 3.4 * a - a * a * b)
    return found


PROBLEMS: dict[str, tuple[Callable[[Sequence[Number]], list[Number]], bool, tuple[int, ...]]] = {
    "chained Rosenbrock, Hessian": (rosenbrock, True, (100_000, 1_000_000)),
    "Brusselator, Jacobian": (brusselator, False, (2 * 32 * 32, 2 * 100 * 100)),
}


def best(f: Callable[[], Any], seconds: float) -> float:
    """CPU seconds of the fastest of as many runs as that takes, three at least."""
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        began = time.process_time()
        f()
        times.append(time.process_time() - began)
    return min(times)


def of_tapegrad(f: Any, second: bool, x: Any, seconds: float) -> tuple[Any, ...]:
    program = tapegrad.record((lambda x: tapegrad.sum(f(x))) if second else (lambda x: np.array(f(x))), x)
    make = program.sparse_hessian if second else program.sparse_jacobian
    made = best(make, seconds)
    matrix = make()
    return matrix.nnz, made, best(lambda: matrix.values(x), seconds), matrix.values(x)


def of_casadi(f: Any, second: bool, x: Any, seconds: float) -> tuple[Any, ...]:
    import casadi

    symbols = casadi.SX.sym("x", len(x))
    parts = casadi.vertsplit(symbols)

    def make() -> Any:
        matrix = casadi.hessian(out, symbols)[0] if second else casadi.jacobian(out, symbols)
        return casadi.Function("d", [symbols], [matrix])

    out = casadi.sum1(casadi.vertcat(*f(parts))) if second else casadi.vertcat(*f(parts))
    made = best(make, 0.0)
    function = make()
    sparsity = function.sparsity_out(0)
    buffer, run = function.buffer()
    values = np.zeros(sparsity.nnz())
    at = np.array(x)  # which the buffer does not keep
    buffer.set_arg(0, memoryview(at))
    buffer.set_res(0, memoryview(values))
    took = best(run, seconds)
    order = np.lexsort((sparsity.get_triplet()[1], sparsity.get_triplet()[0]))
    return sparsity.nnz(), made, took, values[order]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="small sizes, once")
    smoke = parser.parse_args().smoke
    seconds = 0.0 if smoke else 1.0
    print("| problem | by | unknowns | nonzeros | made, s | evaluated, ms |\n| --- | --- | --- | --- | --- | --- |")
    for name, (f, second, sizes) in PROBLEMS.items():
        for n in (2 * 8 * 8,) if smoke else sizes:
            x = 0.1 + 0.9 * np.arange(n) / n
            found = of_tapegrad(f, second, x, seconds)
            print(f"| {name} | tapegrad | {n} | {found[0]} | {found[1]:.3g} | {1e3 * found[2]:.3g} |", flush=True)
            if n > 200_000:
                continue
            try:
                theirs = of_casadi(f, second, x, seconds)
            except ImportError:
                continue
            print(f"| {name} | CasADi | {n} | {theirs[0]} | {theirs[1]:.3g} | {1e3 * theirs[2]:.3g} |", flush=True)
            if not (found[0] == theirs[0] and np.allclose(found[3], theirs[3], rtol=1e-9, atol=1e-9)):
                raise SystemExit("the nonzeros differ")


if __name__ == "__main__":
    main()
