"""The workloads under pytest-benchmark, for whoever changes the engine: `pytest benchmarks --benchmark-compare`.

    pytest benchmarks --benchmark-autosave        stores a baseline
    pytest benchmarks --benchmark-compare         measures against it
    pytest benchmarks --smoke --benchmark-disable runs all once, small

All in one process and without peers; run.py is the fair comparison.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from contenders import CONTENDERS, Closure, Engine
from run import compare
from worker import step
from workloads import WORKLOADS, Chain, Workload

import tapegrad

HERE = "tapegrad" if tapegrad.tape.handle == "c" else "tapegrad, cffi"
STEPS = [  # at full size, small
    ("neuron:100000", "neuron:100"),
    ("neuron, dot:100000", "neuron, dot:100"),
    ("moons", "small moons"),
    ("moons, library", "small moons, library"),
    ("gpt", "small gpt"),
    ("gpt, affine", "small gpt, affine"),
    ("squares:10000", "squares:100"),
]


def make(workload: str) -> Workload:
    kind, _, size = workload.partition(":")
    return WORKLOADS[kind](int(size)) if size else WORKLOADS[kind]()


@pytest.fixture(params=["floats", "closures", "closures, gc off", HERE])
def contender(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a contender, with the garbage collector as it was afterwards."""
    yield request.param
    gc.enable()
    gc.collect()


def start(contender: str, work: Workload) -> Engine:
    """Return an engine whose gradient has been compared with the closure design's."""
    engine = CONTENDERS[contender]()
    if not work.needs <= engine.has:
        pytest.skip(f"{contender} has no {', '.join(work.needs - engine.has)}")
    engine.start(work)
    if engine.differentiates:
        gradients = {(contender, ""): gradient(engine, work)}
        if not work.needs - Closure.has:
            gradients["closures", ""] = gradient(Closure(), work)
        compare(gradients)
    return engine


def gradient(engine: Engine, work: Workload) -> list[float]:
    engine.start(work)
    engine.record()
    engine.sweep()
    found = engine.gradient()
    engine.clear()
    return found


@pytest.mark.parametrize("size", [10**2, 10**4, 10**5])
def test_recording_a_chain(benchmark: Any, contender: str, size: int, smoke: bool) -> None:
    engine = start(contender, Chain(100 if smoke else size))
    benchmark.group = f"chain of {size}, record"
    benchmark(engine.record)


@pytest.mark.parametrize("size", [10**2, 10**4, 10**5])
def test_sweeping_a_chain(benchmark: Any, contender: str, size: int, smoke: bool) -> None:
    engine = start(contender, Chain(100 if smoke else size))
    if not engine.differentiates:
        pytest.skip("floats have no gradient")
    engine.record()
    benchmark.group = f"chain of {size}, sweep"
    benchmark(engine.sweep)


@pytest.mark.parametrize(("full", "small"), STEPS)
def test_a_step(benchmark: Any, contender: str, full: str, small: str, smoke: bool) -> None:
    engine = start(contender, make(small if smoke else full))
    benchmark.group = full
    benchmark(step, engine)


@pytest.mark.parametrize("size", [10**3, 10**5])
def test_the_chain_keeps_adjoints_normal(size: int) -> None:
    """Neither the slope by the start nor the other two leave the range of normal numbers."""
    for slope in gradient(CONTENDERS[HERE](), Chain(size)):
        assert sys.float_info.min < abs(slope) < 1e9


def test_gradients_that_differ_stop_a_run() -> None:
    with pytest.raises(RuntimeError, match=r"differ by 1.0e-03"):
        compare({("a", ""): [1.0, 2.0], ("b", ""): [1.0, 2.002]})


def test_gradients_of_different_lengths_stop_a_run() -> None:
    with pytest.raises(RuntimeError, match="differ"):
        compare({("a", ""): [1.0, 2.0], ("b", ""): [1.0]})
