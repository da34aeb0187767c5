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

PHASES = ("record", "sweep", "update")
MAX_REPEATS = 1000


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
    engine.drop()


def time_steps(engine: Engine, seconds: float) -> dict[str, Any]:
    """Take steps for some time.

    Args:
        engine: started.
        seconds: for how long, at least three steps after the first, whose gradient is returned.
    """
    clock, cpu_clock = time.perf_counter, time.process_time
    engine.record()
    engine.sweep()
    result = {"loss": engine.loss(), "gradient": engine.gradient()}
    engine.update()
    engine.drop()
    walls: list[tuple[float, ...]] = []
    cpus = []
    spent = 0.0
    while (spent < seconds or len(walls) < 3) and len(walls) < MAX_REPEATS:
        engine.between_steps()
        cpu = cpu_clock()
        t0 = clock()
        engine.record()
        t1 = clock()
        engine.sweep()
        t2 = clock()
        engine.update()
        engine.drop()
        t3 = clock()
        cpus.append(cpu_clock() - cpu)
        walls.append((t3 - t0, t1 - t0, t2 - t1, t3 - t2))
        spent += t3 - t0
    wall, *phases = map(statistics.median, zip(*walls))
    return {
        **result, "wall": wall, "cpu": statistics.median(cpus), **dict(zip(PHASES, phases)), "repeats": len(walls),
    }  # fmt: skip


def measure_memory(engine: Engine, seconds: float) -> dict[str, Any]:
    """Resident bytes after one step is recorded, and after it is swept, over those before."""
    before = resident()
    engine.record()
    recorded = resident()
    engine.sweep()
    return {"recorded": recorded - before, "swept": resident() - before}


def trace_memory(engine: Engine, seconds: float) -> dict[str, Any]:
    """Resident bytes after certain steps of a training run; past the limit it ends."""
    curve = []
    began = time.perf_counter()
    for k in range(1, 2001):
        step(engine)
        if k in (1, 10, 100, 200, 500, 1000, 1500, 2000) or k % 50 == 0:
            now = resident()
            curve.append((k, now))
            if now > 2**30 or time.perf_counter() - began > 120:
                break
    return {"curve": curve}


def survive(engine: Engine, seconds: float) -> dict[str, Any]:
    """One step, and everything dropped; whether that ends well is the answer."""
    step(engine)
    return {}


MEASURES = {"time": time_steps, "memory": measure_memory, "curve": trace_memory, "depth": survive}


def main(contender: str, workload: str, measure: str, seconds: str) -> None:
    kind, _, size = workload.partition(":")
    engine = CONTENDERS[contender]()
    work = WORKLOADS[kind](int(size)) if size else WORKLOADS[kind]()
    try:
        if not work.needs <= engine.has:
            raise NotImplementedError(f"has no {', '.join(sorted(work.needs - engine.has))}")
        engine.start(work)
        result = MEASURES[measure](engine, float(seconds))
    except (NotImplementedError, RecursionError, MemoryError) as error:
        result = {"failed": f"{type(error).__name__}: {error}"[:80]}
    print(json.dumps({**result, "version": engine.version}))


if __name__ == "__main__":
    main(*sys.argv[1:])
