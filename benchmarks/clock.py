"""The fastest of some runs within a process: what benchmarks measure that are no cells of run.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def best(f: Callable[[], Any], seconds: float, least: int = 3) -> tuple[float, Any]:
    """CPU seconds of the fastest of as many runs as that takes, so many at least, and what the last one gave."""
    times: list[float] = []
    while len(times) < least or sum(times) < seconds:
        began = time.process_time()
        found = f()
        times.append(time.process_time() - began)
    return min(times), found
