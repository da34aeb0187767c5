"""What recording costs, in this process, as minima of many runs: an operation beside the same on floats, a program
beside the tape, freezing, an input, the import. `--full` freezes 1.5 * 10^7 nodes, too, which takes 3 GiB."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import time
import timeit
from collections.abc import Callable
from typing import Any

from programs import START, moons

import tapegrad
from tapegrad import Value, leaves, record

STATEMENTS = ["v ** 2", "v * v", "2 * v", "v * 2.0", "v + 1.0", "v * w + w"]
CALLS = 20_000  # of a statement, in one run


def least(f: Callable[[], Any], runs: int) -> float:
    """The fewest CPU seconds that it took."""
    return min(timeit.repeat(f, timer=time.thread_time, number=1, repeat=runs))


def operations(runs: int) -> None:
    for statement in STATEMENTS:
        timers = [
            timeit.Timer(f"y = {statement}", "v, w = kind(1.1), kind(0.3)", time.thread_time, {"kind": kind})
            for kind in (float, Value)
        ]
        times = [1e9 / CALLS * min(timer.timeit(CALLS) for _ in range(runs)) for timer in timers]
        print(f"{statement:10}  floats {times[0]:5.1f}  Values {times[1]:5.1f} ns  ratio {times[1] / times[0]:.2f}")


def programs(runs: int) -> None:
    """The two moons network, all points in one expression."""

    def loss(w: Any) -> Any:
        return moons(w, lambda x: x.relu(), lambda x: x.tanh())

    program = record(loss, START)
    nodes = program.stats["recorded"]
    on_tape, recorded = least(lambda: loss(leaves(START)), runs), least(lambda: record(loss, START), runs)
    print(f"two moons   tape {1e9 / nodes * on_tape:.1f}  program {1e9 / nodes * recorded:.1f} ns a node", end="  ")
    print(f"ratio {recorded / on_tape:.2f}")


def freezing(nodes: int, runs: int) -> None:
    """A chain; the first run is of memory that nobody has touched."""

    def chain(inputs: Any) -> Any:
        x, a, b = inputs
        for _ in range(nodes // 2):
            x = x * a + b
        return x

    times = [record(chain, [0.3, 0.99, 0.01]).stats["seconds"] for _ in range(runs)]
    print(f"freezing {nodes:,} nodes  {1e9 / nodes * min(times):.1f} ns each, first {1e9 / nodes * times[0]:.1f}")


def inputs(n: int, runs: int) -> None:
    import numpy

    x = [random.random() for _ in range(n)]
    for kind, example in (("list", x), ("array", numpy.array(x))):
        took = least(lambda example=example: record(lambda v: v[0] * v[1], example), runs)  # type: ignore[misc]
        print(f"{n:,} inputs in a {kind}  {1e9 / n * took:.0f} ns each")
    print(f"{n:,} leaves of a list  {1e9 / n * least(lambda: leaves(x), runs):.0f} ns each")


def start(runs: int) -> None:
    def cpu(code: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    nothing, package = (min(cpu(code) for _ in range(runs)) for code in ("pass", "import tapegrad"))
    print(f"import tapegrad  {1e3 * (package - nothing):.1f} ms over pass, of CPU")


def main(options: list[str]) -> None:
    smoke = "--smoke" in options
    runs = 2 if smoke else 40
    print(f"Python {sys.version.split()[0]}, {tapegrad.tape.handle} handle")
    operations(runs)
    programs(min(runs, 15))
    freezing(10**3 if smoke else 10**5, runs)
    if "--full" in options:
        freezing(15 * 10**6, 2)
    inputs(10**3 if smoke else 640_000, min(runs, 5))
    start(runs)


if __name__ == "__main__":
    main(sys.argv[1:])
