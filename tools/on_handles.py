"""Runs pytest on every handle of this build, or on the one that TAPEGRAD_HANDLE names, a process each and as many at a
time as there are processors.

    python tools/on_handles.py [ARGUMENTS OF PYTEST...]

Each is named as it starts and says how far it has come; what it printed follows in one piece when it has ended."""
from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from build_ffi import HANDLES  # noqa: E402 - beside this folder, not in it


def run(handle: str, arguments: list[str]) -> bool:
    """Whether the tests pass on this handle."""
    print(f"{handle} handle: started", flush=True)
    start, shown, log = time.monotonic(), 0, ""
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *arguments]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "TAPEGRAD_HANDLE": handle},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as tests:
        assert tests.stdout
        for line in tests.stdout:
            log += line
            percent = re.search(r"\[ *(\d+)%\]$", line.rstrip())
            if percent and int(percent[1]) // 10 > shown:
                shown = int(percent[1]) // 10
                print(f"{handle} handle: {percent[1]} % in {time.monotonic() - start:.0f} s", flush=True)
    print(f"\n== {handle} handle\n{log}", flush=True)
    return tests.returncode == 0


if __name__ == "__main__":
    handles = (os.environ["TAPEGRAD_HANDLE"],) if os.environ.get("TAPEGRAD_HANDLE") else HANDLES
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(processors) as processes:
        passed = list(processes.map(lambda handle: run(handle, sys.argv[1:]), handles))
    sys.exit(not all(passed))
