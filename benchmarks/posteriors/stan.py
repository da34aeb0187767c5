"""Asks BridgeStan, in an interpreter that has it, for a log density, its gradient, and what a gradient takes; see
measure.py. Reads a line of JSON: the model's file (.stan, or compiled, .so), its data, parameters, seconds."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import bridgestan
import numpy as np


def best(f: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest of many runs."""
    least, runs, end = float("inf"), 0, time.perf_counter() + seconds
    while runs < 5 or time.perf_counter() < end:
        began = time.perf_counter()
        f()
        least, runs = min(least, time.perf_counter() - began), runs + 1
    return least


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    model = bridgestan.StanModel(asked["file"], json.dumps(asked["data"]), warn=False)
    at, out = np.array(asked["at"]), np.empty(len(asked["at"]))
    value, gradient = model.log_density_gradient(at, propto=False)
    _, hessian = model.log_density_hessian(at, propto=False)[1:] if asked["hessian"] else (None, np.zeros(0))
    took = best(lambda: model.log_density_gradient(at, out=out), asked["seconds"])
    print(json.dumps({
        "value": value, "gradient": gradient.tolist(), "hessian": hessian.tolist(), "seconds": took,
        "version": bridgestan.__version__,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
