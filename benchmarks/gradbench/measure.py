"""Plays the intermediary between GradBench's evaluations, which check what they are answered, and the tools that run
here: tapegrad, and GradBench's own for PyTorch, JAX and C++ by hand. What fails a check is a failure.

    python benchmarks/gradbench/measure.py --smoke lse ode

It needs a clone of GradBench, which it makes where there is none, and with it a C++ compiler, make and wget, for the
checks compare with what C++ by hand gives. Times are the least of a function's runs; a gradient is given as a multiple
of the plain valuation by that C++."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union

from tapegrad.demo.progress import Progress

Python = Union[str, "os.PathLike[str]"]  # an interpreter

HERE = Path(__file__).parent
URL, COMMIT = "https://github.com/gradbench/gradbench", "f26651a7"
NEEDS = "numpy scipy pydantic dataclasses_json"  # of the evaluations

# For each case the evaluation, its options, the plain function and the derivative; then those of a smoke run.
CASES = {
    "lse 1,280,000": ("lse", "-n 1280000", "primal", "gradient"),
    "llsq 16,392": ("llsq", "-n 16392", "primal", "gradient"),
    "gmm 10_25": ("gmm", "-d 10 -k 25", "objective", "jacobian"),
    "gmm 64_100": ("gmm", "-d 64 -k 100", "objective", "jacobian"),
    "kmeans 1,000, 10,000, 16": ("kmeans", "-k 1000 -n 10000 -d 16", "cost", "dir"),
    "lstm 6, 8,192": ("lstm", "-l 6 -c 8192", "objective", "jacobian"),
    "ode 10,000, 100": ("ode", "-n 10000 -s 100", "primal", "gradient"),
    "ba 1": ("ba", "--min 1 --max 1", "objective", "jacobian"),
    "ba 10": ("ba", "--min 10 --max 10", "objective", "jacobian"),
    "ht 7": ("ht", "--min 7 --max 7", "objective", "jacobian"),
    "det 9": ("det", "-l 9", "primal", "gradient"),
    "particle": ("particle", "", "", "rr"),
    "saddle": ("saddle", "", "", "rr"),
    "hello": ("hello", "", "square", "double"),
}
SMALL = {
    "lse 1,280,000": "-n 1000", "llsq 16,392": "-n 16", "gmm 10_25": "-d 2 -k 5 -n 10", "gmm 64_100": "-d 3 -k 5 -n 9",
    "kmeans 1,000, 10,000, 16": "-k 5 -n 100 -d 3", "lstm 6, 8,192": "-l 2 -c 8", "ode 10,000, 100": "-n 50 -s 5",
    "det 9": "-l 4", "ba 10": "--min 1 --max 1", "ht 7": "--model small --min 1 --max 1",
}  # fmt: skip
GOALS = {
    "lse 1,280,000": 1.5, "llsq 16,392": 1.5, "gmm 10_25": 1.5, "gmm 64_100": 4.0, "kmeans 1,000, 10,000, 16": 4.0,
    "lstm 6, 8,192": 2.5, "ode 10,000, 100": 2.0, "ba 1": 6.0, "ba 10": 9.0, "ht 7": 15.0,
}  # fmt: skip
PATIENCE = 150.0  # seconds for a session
WAITING = """
import os, runpy, sys
import jax
from gradbench import wrap
several = wrap.multiple_runs
wrap.multiple_runs = lambda **more: lambda f: several(**more)(lambda *given: jax.block_until_ready(f(*given)))
del sys.argv[0]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""  # GradBench's tool for JAX, whose clock would else stop before there is a result


def clone(folder: Path) -> Path:
    """GradBench there, with its C++ by hand compiled."""
    if not (folder / "evals").exists():
        subprocess.run(["git", "clone", "--quiet", URL, str(folder)], check=True)
        subprocess.run(["git", "-C", str(folder), "checkout", "--quiet", COMMIT], check=True)
    for part in ("cpp", "tools/manual"):
        subprocess.run(["make", "--silent", "-C", str(folder / part)], check=True, capture_output=True)
    return folder


def tools(
    folder: Path, evals: Python, torch: Python | None = None, jax: Python | None = None, autograd: Python | None = None
) -> dict[str, list[str]]:
    """The commands of tools by the interpreters that have their packages; `evals` is that of the evaluations."""
    mine = [sys.executable, str(HERE / "tool.py")]
    found = {"by hand": [str(evals), "-m", "gradbench.cpp", "manual"], "tapegrad": mine}
    found["tapegrad, native"] = [*mine, "--native"]
    theirs = folder / "python" / "gradbench" / "gradbench" / "tools"
    if torch:
        found["PyTorch"] = [str(torch), str(theirs / "pytorch" / "run.py")]
    if jax:
        found["JAX"] = [str(jax), "-c", WAITING, str(theirs / "jax" / "run.py")]
    if autograd:
        found["autograd"] = [str(autograd), str(HERE / "hips.py")]
    return found


def session(evaluation: Sequence[str], tool: Sequence[str], folder: Path) -> Iterator[tuple[dict[str, Any], Any]]:
    """Let an evaluation and a tool talk; yield each message with the tool's response."""
    path = str(folder / "python" / "gradbench")
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    env = {**os.environ, "PYTHONPATH": path, **one}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": folder}
    with (
        subprocess.Popen(evaluation, env=env, **pipes) as asking,
        subprocess.Popen(tool, env=env, stderr=subprocess.DEVNULL, **pipes) as answering,
    ):
        late = threading.Event()

        def stop() -> None:
            late.set()
            answering.kill()

        clock = threading.Timer(PATIENCE, stop)
        clock.start()
        try:
            for line in asking.stdout:
                answering.stdin.write(line)
                answering.stdin.flush()
                response = answering.stdout.readline()
                if not response:
                    raise RuntimeError(f"over {PATIENCE:g} s" if late.is_set() else "the tool ended")
                yield json.loads(line), json.loads(response)
                asking.stdin.write(response)
                asking.stdin.flush()
        finally:
            clock.cancel()
            for process in (asking, answering):
                process.kill()


def run(case: str, tool: Sequence[str], python: Python, folder: Path, smoke: bool) -> dict[str, Any]:
    """What a tool makes of a case: the least seconds of each function, and of preparing the derivative.

    Returns:
        plain, slope and prepare where all passed the checks, else why not, under "failed".
    """
    name, options, plain, slope = CASES[case]
    if smoke:
        options = SMALL.get(case, options)
    script = folder / "python" / "gradbench" / "gradbench" / "evals" / name / "run.py"
    brief = ["--min-seconds", "0"] if smoke else []
    command = [str(python), str(script), *options.split(), *(brief if name != "hello" else [])]
    found: dict[str, Any] = {}
    functions: dict[int, str] = {}
    try:
        for message, response in session(command, tool, folder):
            if message["kind"] == "define" and not response["success"]:
                return {"failed": "not answered"}
            if message["kind"] == "evaluate":
                functions[message["id"]] = message["function"]
                if not response["success"]:
                    return {"failed": str(response.get("error", "")).strip().splitlines()[-1]}
                times: dict[str, float] = {}
                for one in response.get("timings", []):
                    times[one["name"]] = min(times.get(one["name"], float("inf")), one["nanoseconds"] / 1e9)
                if message["function"] == plain:
                    found["plain"] = times["evaluate"]
                if message["function"] == slope:
                    found["slope"], found["prepare"] = times["evaluate"], times.get("prepare", 0.0)
            if message["kind"] == "analysis" and not message["valid"]:
                return {"failed": f"{functions[message['of']]} is wrong: {message['error'].splitlines()[-1]}"}
    except BrokenPipeError:
        return {"failed": "the tool ended"}
    except (RuntimeError, OSError, ValueError) as error:
        return {"failed": str(error)}
    return found or {"failed": "the evaluation ended"}


def measure(
    folder: Path, commands: Mapping[str, Sequence[str]], python: Python, smoke: bool = False,
    only: Sequence[str] = (),
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Of each case what each tool made of it; they take turns within a case."""
    clone(folder)
    cases = [case for case in CASES if not only or CASES[case][0] in only]
    found: dict[str, dict[str, Any]] = {case: {} for case in cases}
    with Progress(len(cases) * len(commands), "GradBench") as progress:
        for k, (case, tool) in enumerate(itertools.product(cases, commands), 1):
            found[case][tool] = run(case, commands[tool], python, folder, smoke)
            progress(k, f"{case}: {tool}")
    return found


def table(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """In Markdown: the plain valuation by C++ in ms, and by each tool its derivative as a multiple of that."""
    names = list(next(iter(found.values())))
    lines = [f"| | C++, ms | goal | {' | '.join(names)} |", f"| --- |{' ---: |' * (len(names) + 2)}"]
    for case, by in found.items():
        unit = by["by hand"].get("plain") if CASES[case][2] else None
        shown = []
        for name in names:
            one = by[name]
            if "slope" not in one:
                shown.append("" if one.get("failed") == "not answered" or name == "by hand" else one.get("failed", ""))
            else:
                shown.append(f"{one['slope'] / unit:.3g}" if unit else f"{1e3 * one['slope']:.3g} ms")
        goal = f"{GOALS[case]:g}" if case in GOALS else ""
        lines.append(f"| {case} | {f'{1e3 * unit:.3g}' if unit else ''} | {goal} | {' | '.join(shown)} |")
    return lines


def goals(found: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, float, list[float]]]:
    """Of each goal what it is about, and what was measured: by the faster of interpreted and native."""
    reached = []
    for case, goal in GOALS.items():
        by = found.get(case, {})
        took = [by[name]["slope"] for name in ("tapegrad", "tapegrad, native") if "slope" in by.get(name, {})]
        if took and "plain" in by["by hand"]:
            reached.append((f"GradBench, {case}: times C++", "at most", goal, [min(took) / by["by hand"]["plain"]]))
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evals", nargs="*", help="which evaluations (default: all)")
    parser.add_argument("--gradbench", type=Path, default=HERE.parents[1] / "build" / "gradbench", help="the clone")
    parser.add_argument("--python", default=sys.executable, help=f"an interpreter that has {NEEDS}")
    for name in ("torch", "jax", "autograd"):
        parser.add_argument(f"--{name}", metavar="PYTHON", help=f"an interpreter that has {name}")
    parser.add_argument("--smoke", action="store_true", help="small sizes, once")
    parser.add_argument("--json", action="store_true", help="print table and goals as run.py reads them")
    args = parser.parse_args()
    folder = args.gradbench.resolve()
    commands = tools(folder, args.python, args.torch, args.jax, args.autograd)
    found = measure(folder, commands, args.python, args.smoke, args.evals)
    print(json.dumps({"table": table(found), "goals": goals(found)}) if args.json else "\n".join(table(found)))


if __name__ == "__main__":
    main()
