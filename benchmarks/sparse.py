"""Measures sparse derivatives: tapegrad's programs of nonzeros beside CasADi SX, whose functions are called through
their buffers, and prints a table. One process, CPU time, the best of several runs; without CasADi tapegrad's alone.

    python benchmarks/sparse.py                 all sizes
    python benchmarks/sparse.py --smoke         small ones, once
    python benchmarks/sparse.py --json CasADi   what run.py asks for: of one, without the largest, a line of JSON

"made" is from the recorded program, or from CasADi's expression, to what can be called: pattern and nonzeros."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from clock import best

Number = Any
PACKAGES = {"tapegrad": "tapegrad", "CasADi": "casadi"}
LARGEST = 200_000  # unknowns beside others
NATIVE = 5_000  # unknowns that are compiled, too


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


def of_tapegrad(f: Any, second: bool, x: Any, seconds: float) -> dict[str, Any]:
    import tapegrad

    program = tapegrad.record((lambda x: tapegrad.sum(f(x))) if second else (lambda x: np.array(f(x))), x)
    make = program.sparse_hessian if second else program.sparse_jacobian
    made, matrix = best(make, seconds)

    def run() -> Any:
        return matrix.values(x)

    evaluated, values = best(run, seconds)
    found = {"nonzeros": matrix.nnz, "made": made, "evaluated": evaluated, "values": values}
    if len(x) <= NATIVE:
        began = time.perf_counter()  # the compiler is another process
        try:
            matrix.program.native()
        except RuntimeError:
            return found
        found.update(compiled=time.perf_counter() - began, native=best(run, seconds)[0])
    return found


def of_casadi(f: Any, second: bool, x: Any, seconds: float) -> dict[str, Any]:
    import casadi

    symbols = casadi.SX.sym("x", len(x))
    parts = casadi.vertsplit(symbols)

    def make() -> Any:
        matrix = casadi.hessian(out, symbols)[0] if second else casadi.jacobian(out, symbols)
        return casadi.Function("d", [symbols], [matrix])

    out = casadi.sum1(casadi.vertcat(*f(parts))) if second else casadi.vertcat(*f(parts))
    made, function = best(make, 0.0)
    sparsity = function.sparsity_out(0)
    buffer, run = function.buffer()
    values = np.zeros(sparsity.nnz())
    at = np.array(x)  # which the buffer does not keep
    buffer.set_arg(0, memoryview(at))
    buffer.set_res(0, memoryview(values))
    evaluated, _ = best(run, seconds)
    order = np.lexsort((sparsity.get_triplet()[1], sparsity.get_triplet()[0]))
    return {"nonzeros": sparsity.nnz(), "made": made, "evaluated": evaluated, "values": values[order]}


BY = {"tapegrad": of_tapegrad, "CasADi": of_casadi}


def measured(names: Sequence[str], smoke: bool, seconds: float, largest: int) -> Iterator[dict[str, Any]]:
    """What there is of each problem and size, one contender after the other."""
    for problem, (f, second, sizes) in PROBLEMS.items():
        for n in (2 * 8 * 8,) if smoke else sizes:
            x = 0.1 + 0.9 * np.arange(n) / n
            for name in names:
                if n <= (largest if name == "tapegrad" else min(largest, LARGEST)):
                    yield {"problem": problem, "by": name, "unknowns": n, **BY[name](f, second, x, seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="small sizes, once")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each number, at least (default: %(default)s)")
    parser.add_argument("--json", choices=BY, metavar="NAME", help="of this contender alone")
    args = parser.parse_args()
    seconds = 0.0 if args.smoke else args.seconds
    if args.json:
        found = list(measured([args.json], args.smoke, seconds, LARGEST))
        for one in found:
            one["gradient"] = one.pop("values")[::101].tolist()  # to be compared
        print(json.dumps({"version": version(PACKAGES[args.json]), "found": found}))
        return
    try:
        import casadi  # noqa: F401  # whether it is there
    except ImportError:
        names = ["tapegrad"]
    else:
        names = [*BY]
    print("| problem | by | unknowns | nonzeros | made, s | evaluated, ms |\n| --- | --- | --- | --- | --- | --- |")
    before: dict[str, Any] = {}
    for one in measured(names, args.smoke, seconds, 1 << 30):
        shown = f"| {one['problem']} | {one['by']} | {one['unknowns']} | {one['nonzeros']} | {one['made']:.3g} "
        print(f"{shown}| {1e3 * one['evaluated']:.3g} |", flush=True)
        if one["by"] == "tapegrad":
            before = one
        elif len(one["values"]) != len(before["values"]) or not np.allclose(
            one["values"], before["values"], rtol=1e-9, atol=1e-9
        ):
            raise SystemExit("the nonzeros differ")


if __name__ == "__main__":
    main()
