"""Measures Monte Carlo prices with all their sensitivities as multiples of the prices alone, and prints a table.

    python benchmarks/finance.py             all sizes, one thread
    python benchmarks/finance.py --smoke     few paths, once

LIBOR is examples/libor.py: 15 swaptions on 80 rates, 161 sensitivities. The barrier option, a call that is lost where
its underlying passes a level, has 500 steps and 6 sensitivities; between steps a Brownian bridge gives the chance that
the level was passed, so that the price is that of a barrier watched all the time, and smooth. One process, the least
CPU time of several runs. NumPy computes the same formulas with all paths in an array."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from clock import best

import tapegrad

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import libor

Number = Any

STEPS, YEARS = 500, 1.0
OPTION = np.array([100.0, 100.0, 120.0, 0.2, 0.05, 0.02])  # spot, strike, barrier, volatility, rate, dividend yield
GOAL = 3.0  # plain valuations


def barrier(option: Any, normals: Any, exp: Any = tapegrad.Value.exp, relu: Any = tapegrad.Value.relu) -> Number:
    """An up-and-out call on one path."""
    spot, strike, level, volatility, rate, dividends = option
    h = YEARS / len(normals)
    log = tapegrad.Value.log if exp is tapegrad.Value.exp else math.log
    drift, spread = (rate - dividends - 0.5 * volatility * volatility) * h, volatility * math.sqrt(h)
    factor = -2.0 / (spread * spread)
    x, kept = 0.0, 1.0  # the logarithm of the underlying over its start, the chance that it has not passed the level
    top = log(level / spot)
    gap = top
    for z in normals:
        x = x + drift + spread * z
        after = relu(top - x)
        kept = kept * (1.0 - exp(factor * (gap * after)))
        gap = after
    return exp(-rate * YEARS) * kept * relu(spot * exp(x) - strike)


def cases(smoke: bool) -> Iterator[tuple[str, Callable[..., Any], Any, Any]]:
    """Name, value of a path, market, normal numbers."""
    rates, steps = (12, 8) if smoke else (libor.RATES, libor.STEPS)
    yield "LIBOR", libor.value, libor.start(rates), libor.drawn(50 if smoke else 10_000, steps)
    steps, paths = (10, 2000) if smoke else (STEPS, 50_000)
    yield "barrier", barrier, OPTION, np.random.default_rng(2).standard_normal((paths, steps))


def numpy_value(value: Callable[..., Any], market: Any, normals: Any) -> float:
    """The mean over the paths, some at a time so that they stay in the cache."""

    def relu(x: Any) -> Any:
        return np.maximum(x, 0.0)

    parts = np.array_split(normals, -(-len(normals) // 500))
    return sum(np.sum(value(list(market), part.T.copy(), np.exp, relu)) for part in parts) / len(normals)  # type: ignore[no-any-return]


def measure(smoke: bool) -> list[dict[str, Any]]:
    """Of each case the seconds of values alone and with all sensitivities, interpreted and native, and NumPy's."""
    seconds, results = (0.0 if smoke else 2.0), []
    for name, value, market, normals in cases(smoke):
        program = tapegrad.record(lambda m, z, value=value: value(m, z), market, normals[0])
        found: dict[str, Any] = {"name": name, "paths": len(normals), "nodes": program.stats["recorded"]}
        found["NumPy"], expected = best(lambda: numpy_value(value, market, normals), seconds)  # noqa: B023
        found["by NumPy"] = expected
        for how in ("tapegrad", "native"):
            if how == "native":
                if program.stats["instructions"] > 30_000 and not smoke:
                    continue
                program.native()
            batch = program.map((None, 0), reduce="mean")
            found[how], found["price"] = best(lambda: batch(market, normals), seconds)  # noqa: B023
            found[f"{how}, all"], (_, slopes) = best(lambda: batch.value_and_grad(market, normals), seconds)  # noqa: B023
            found["slopes"] = slopes.tolist()
        if not math.isclose(found["price"], expected, rel_tol=1e-9):
            raise RuntimeError(f"{name}: the prices differ: {found['price']}, {expected} by NumPy")
        results.append(found)
    return results


def table(results: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| | paths | sensitivities | by | plain, s | with all, s | times plain | times NumPy's plain |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for one in results:
        head = f"| {one['name']} | {one['paths']:,} | {len(one['slopes'])} |"
        lines.append(f"{head} NumPy | {one['NumPy']:.3g} | | | |")
        for how in ("tapegrad", "native"):
            if how in one:
                plain, whole = one[how], one[f"{how}, all"]
                ratios = f"{whole / plain:.3g} | {whole / one['NumPy']:.3g}"
                lines.append(f"{head} {how} | {plain:.3g} | {whole:.3g} | {ratios} |")
    return lines


def goals(results: list[dict[str, Any]]) -> list[tuple[str, str, float, list[float]]]:
    return [
        (f"{one['name']}, {len(one['slopes'])} sensitivities{more}: plain valuations", "at most", GOAL,
         [one[f"{how}, all"] / one[how]])
        for one in results for how, more in (("tapegrad", ""), ("native", ", native")) if how in one
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="few paths, once")
    parser.add_argument("--json", action="store_true", help="print table and goals as run.py reads them")
    args = parser.parse_args()
    found = measure(args.smoke)
    print(json.dumps({"table": table(found), "goals": goals(found)}) if args.json else "\n".join(table(found)))


if __name__ == "__main__":
    main()
