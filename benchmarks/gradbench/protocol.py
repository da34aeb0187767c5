"""The protocol of GradBench's tools: messages from standard input, a line of JSON each, and an answer to each of them.

https://github.com/gradbench/gradbench/blob/main/CONTRIBUTING.md#protocol"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["Evals", "Prepared", "answer", "serve"]


class Prepared(NamedTuple):
    """What is timed, and what makes of its result what GradBench wants to see."""

    run: Callable[[], Any]
    shown: Callable[[Any], Any] = float


Evals = Mapping[str, Mapping[str, Callable[[Any], Prepared]]]  # of a module's functions, what prepares an input


def timed(run: Callable[[], Any], runs: int, seconds: float) -> tuple[Any, list[int]]:
    """The last result, and the nanoseconds of as many runs as that takes."""
    took, total = list[int](), 0
    while len(took) < runs or total < 1e9 * seconds:
        began = time.perf_counter_ns()
        found = run()
        took.append(time.perf_counter_ns() - began)
        total += took[-1]
    return found, took


def evaluate(message: Mapping[str, Any], evals: Evals) -> dict[str, Any]:
    given = message["input"]
    runs, seconds = (given["min_runs"], given["min_seconds"]) if isinstance(given, dict) else (1, 0.0)
    began = time.perf_counter_ns()
    prepared = evals[message["module"]][message["function"]](given)
    preparing = time.perf_counter_ns() - began
    found, took = timed(prepared.run, runs, seconds)
    timings = [{"name": "prepare", "nanoseconds": preparing}, *({"name": "evaluate", "nanoseconds": t} for t in took)]
    return {"success": True, "output": prepared.shown(found), "timings": timings}


def answer(message: Mapping[str, Any], tool: str, evals: Evals) -> dict[str, Any]:
    """The response to a message; what an evaluation raises is in it."""
    found: dict[str, Any] = {}
    if message["kind"] == "start":
        found = {"tool": tool}
    elif message["kind"] == "define":
        found = {"success": message["module"] in evals}
    elif message["kind"] == "evaluate":
        try:
            found = evaluate(message, evals)
        except Exception:
            found = {"success": False, "error": traceback.format_exc()}
    return {"id": message["id"], **found}


def serve(tool: str, evals: Evals) -> None:
    """Answer until there are no more messages."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), tool, evals)), flush=True)
