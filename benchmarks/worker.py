"""Measures one contender at one workload, in this process, and prints what it found as a line of JSON."""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
from typing import Any

from contenders import CONTENDERS, Engine
from workloads import WORKLOADS

PHASES = ("record", "sweep", "update", "clear")
MAX_REPEATS = 1000
LONG = 2.0  # seconds; a step that takes longer is timed once a round
CURVE_BYTES = 2**30  # where a leak has been shown
CURVE_SECONDS = 120.0


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def step(engine: Engine) -> None:
    engine.record()
    engine.sweep()
    engine.update()
    engine.clear()


def check(engine: Engine) -> dict[str, Any]:
    """Return what one step computes, and what it costs about."""
    before, began = resident(), time.perf_counter()
    engine.record()
    engine.sweep()
    taken = time.perf_counter() - began
    return {
        "loss": engine.loss(), "gradient": engine.gradient(), "seconds": taken, "bytes": resident() - before,
    }  # fmt: skip


def time_steps(engine: Engine, seconds: float) -> dict[str, Any]:
    """Take steps for some time, three at least and one to warm up, unless they are long.

    Returns:
        Medians of the wall time, of that of each phase, and of the CPU time, in seconds.
    """
    clock, cpu_clock = time.perf_counter, time.process_time
    walls: list[tuple[float, ...]] = []
    cpus = []
    spent = 0.0
    while (spent < seconds or (len(walls) < 4 and spent < LONG)) and len(walls) < MAX_REPEATS:
        engine.between_steps()
        cpu = cpu_clock()
        t0 = clock()
        engine.record()
        t1 = clock()
        engine.sweep()
        t2 = clock()
        engine.update()
        t3 = clock()
        engine.clear()
        t4 = clock()
        cpus.append(cpu_clock() - cpu)
        walls.append((t4 - t0, t1 - t0, t2 - t1, t3 - t2, t4 - t3))
        spent += t4 - t0
    if len(walls) > 1:
        del walls[0], cpus[0]
    wall, *phases = map(statistics.median, zip(*walls))
    return {"wall": wall, "cpu": statistics.median(cpus), **dict(zip(PHASES, phases)), "repeats": len(walls)}


def measure_memory(engine: Engine) -> dict[str, Any]:
    """Return the resident bytes that recording a step added, and that recording and sweeping did."""
    before = resident()
    engine.record()
    recorded = resident() - before
    engine.sweep()
    return {"recorded": recorded, "swept": resident() - before}


def trace_memory(engine: Engine, steps: int) -> dict[str, Any]:
    """Return the resident bytes during a training run, over those before it; it may end early."""
    before, began = resident(), time.perf_counter()
    curve = []
    for k in range(1, steps + 1):
        step(engine)
        if k in (1, 10) or k % 50 == 0:
            curve.append((k, resident() - before))
            if curve[-1][1] > CURVE_BYTES or time.perf_counter() - began > CURVE_SECONDS:
                break
    return {"curve": curve}


def survive(engine: Engine) -> dict[str, Any]:
    """Take one step; that it ends well is the answer."""
    step(engine)
    return {"bytes": resident()}


def main(contender: str, workload: str, measure: str, amount: str = "0") -> None:
    kind, _, size = workload.partition(":")
    engine = CONTENDERS[contender]()
    work = WORKLOADS[kind](int(size)) if size else WORKLOADS[kind]()
    measures = {
        "check": check,
        "time": lambda engine: time_steps(engine, float(amount)),
        "memory": measure_memory,
        "curve": lambda engine: trace_memory(engine, int(float(amount))),
        "depth": survive,
    }
    try:
        if not work.needs <= engine.has:
            raise NotImplementedError(f"has no {', '.join(sorted(work.needs - engine.has))}")
        engine.start(work)
        result = measures[measure](engine)
    except (NotImplementedError, RecursionError, MemoryError) as error:
        result = {"failed": str(error) if isinstance(error, NotImplementedError) else type(error).__name__}
    print(json.dumps({**result, "version": engine.version}))


if __name__ == "__main__":
    main(*sys.argv[1:])
