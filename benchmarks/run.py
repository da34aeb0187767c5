"""Measures all contenders at all workloads and writes RESULTS.md and its pictures: what `make bench` runs.

Each cell runs in a fresh process, contenders take turns within a round, and ratios are taken within a round. Gradients
are compared before anything is timed. Peers are installed in environments of their own; one that cannot be had is left
out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import loops
import programs
import report
import sparse
from contenders import CONTENDERS

from tapegrad.demo.progress import Progress

HERE = Path(__file__).parent
TOLERANCE = 1e-9  # of gradients, relative to the largest component
LONGEST = 10.0  # seconds that a step may take
LARGEST = 6 * 2**30  # bytes that a step may add
PATIENCE = 600.0  # seconds for one process
DEEPEST = 10**7


class Group(NamedTuple):
    """Cells that take turns; `references` are those that ratios are taken to."""

    title: str
    cells: list[tuple[str, str]]  # contender, workload
    references: list[tuple[str, str]]


def groups(names: Iterable[str], smoke: bool) -> Iterator[Group]:
    """Yield what is to be timed.

    Args:
        names: contenders that can be had.
        smoke: whether small sizes do.
    """
    names = list(names)
    tapes = [name for name in names if name.startswith("tapegrad")]
    others = [name for name in names if "micrograd" not in name]
    for k in range(2, 4 if smoke else 8):
        work = f"chain:{10**k}"
        yield Group(work, [(name, work) for name in others], [("tapegrad", work)])
    size = 100 if smoke else 10**5
    plain, dot = f"neuron:{size}", f"neuron, dot:{size}"
    yield Group(
        plain, [*((name, plain) for name in names), *((name, dot) for name in tapes)],
        [("tapegrad", plain), ("tapegrad", dot)],
    )  # fmt: skip
    own = [name for name in names if name.startswith(("tapegrad", "micrograd"))]
    plain, library = ("small moons", "small moons, library") if smoke else ("moons", "moons, library")
    yield Group(
        plain, [*((name, plain) for name in others), *((name, library) for name in own)],
        [("tapegrad", plain), ("tapegrad", library)],
    )  # fmt: skip
    plain, affine = ("small gpt", "small gpt, affine") if smoke else ("gpt", "gpt, affine")
    yield Group(
        plain, [*((name, plain) for name in others), *((name, affine) for name in tapes)],
        [("tapegrad", plain), ("tapegrad", affine)],
    )  # fmt: skip
    work = f"squares:{100 if smoke else 10**4}"
    yield Group(
        work, [(name, work) for name in names if name in (*tapes, "closures, gc off", "PyTorch")], [("tapegrad", work)]
    )


class Machine:
    """Runs cells in processes of their own.

    Args:
        cache: where environments are made.
        peers: whether peers take part, installing them where they are not.
    """

    def __init__(self, cache: Path, peers: bool) -> None:
        self._cache, self._peers = cache, peers
        self.pythons: dict[str, Path] = {}
        self.missing: dict[str, str] = {}
        for name, engine in CONTENDERS.items():
            if not engine.package:
                self.pythons[name] = Path(sys.executable)
            elif peers:
                python = self.python_with(engine.package)
                if python:
                    self.pythons[name] = python
                else:
                    self.missing[name] = f"`{engine.package}` cannot be installed here"

    def python_with(self, package: str, *others: str) -> Path | None:
        """The interpreter of a package's environment, which is made where there is none; None without peers.

        Args:
            package: that the environment is named after.
            others: to be there as well.
        """
        python = self._cache / package / "bin" / "python"
        return python if self._peers and self._install(python, package, *others) else None

    def _install(self, python: Path, package: str, *others: str) -> bool:
        done = python.parent.parent / "+".join(["installed", *others])
        if done.exists():
            return True
        print(f"installing {' '.join([package, *others])} in {python.parent.parent}", file=sys.stderr, flush=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package, *others]
        try:
            subprocess.run([sys.executable, "-m", "venv", str(python.parent.parent)], check=True, timeout=PATIENCE)
            subprocess.run(pip, check=True, timeout=PATIENCE)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"{package} is left out: {error}", file=sys.stderr, flush=True)
            return False
        done.touch()
        return True

    def run(
        self, contender: str, workload: str, measure: str, amount: float = 0.0, patience: float = PATIENCE
    ) -> dict[str, Any]:
        """Measure one cell; where that fails, the result says why under "failed"."""
        command = [str(self.pythons[contender]), str(HERE / "worker.py"), contender, workload, measure, str(amount)]
        env = {name: value for name, value in os.environ.items() if name != "TAPEGRAD_HANDLE"}
        try:
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=patience, check=False)
        except subprocess.TimeoutExpired:
            return {"failed": f"over {patience:g} s"}
        if done.returncode < 0:
            return {"failed": f"killed by signal {-done.returncode}"}
        if done.returncode:
            raise RuntimeError(f"{contender}, {workload}:\n{done.stderr}")
        return json.loads(done.stdout)  # type: ignore[no-any-return]


def time_programs(
    machine: Machine, graphs: Iterable[str], rounds: int, seconds: float
) -> dict[str, list[list[dict[str, Any]]]]:
    """Let what freezes expressions take turns at each graph.

    Returns:
        For each graph the rounds, of which each has what every contender found.
    """
    pythons = {
        name: Path(sys.executable) if engine.package == "tapegrad" else machine.python_with(engine.package)
        for name, engine in programs.CONTENDERS.items()
    }
    turns = [
        (graph, name) for graph in graphs for _ in range(rounds) for name, engine in programs.CONTENDERS.items()
        if pythons[name] and graph in engine.graphs
    ]  # fmt: skip
    found: dict[str, list[list[dict[str, Any]]]] = {graph: [] for graph in graphs}
    with Progress(len(turns), "programs") as progress:
        for k, (graph, name) in enumerate(turns, 1):
            if not found[graph] or name in {one["name"] for one in found[graph][-1]}:
                found[graph].append([])
            command = [str(pythons[name]), str(HERE / "programs.py"), name, graph, str(seconds)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
                found[graph][-1].append({"name": name, **json.loads(done.stdout)})
            except subprocess.TimeoutExpired:
                found[graph][-1].append({"name": name, "failed": f"over {PATIENCE:g} s"})
            progress(k, f"{graph}: {name}")
    for one in found.values():
        compare({(each["name"], ""): each.pop("gradient") for each in one[0] if "gradient" in each})
    return found


def time_problems(
    machine: Machine, script: Any, title: str, rounds: int, seconds: float, smoke: bool
) -> list[list[dict[str, Any]]]:
    """Let those whom a script of problems knows take turns: the rounds, each with what every contender found."""
    pythons = {
        name: Path(sys.executable) if name == "tapegrad" else machine.python_with(package)
        for name, package in script.PACKAGES.items()
    }
    names = [name for name, python in pythons.items() if python]
    found: list[list[dict[str, Any]]] = []
    with Progress(rounds * len(names), title) as progress:
        for _ in range(rounds):
            found.append([])
            for name in names:
                command = [str(pythons[name]), str(HERE / f"{script.__name__}.py"), "--json", name]
                command += ["--seconds", str(seconds), *(["--smoke"] if smoke else [])]
                done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
                found[-1] += json.loads(done.stdout)["found"]
                progress((len(found) - 1) * len(names) + len({one["by"] for one in found[-1]}), name)
    values: dict[tuple[str, Any], dict[tuple[str, str], list[float]]] = {}
    for each in found:
        for one in each:
            values.setdefault((one["problem"], one.get("unknowns")), {})[one["by"], ""] = one.pop("gradient")
    for same in values.values():
        compare(same)
    return found


def compare(gradients: dict[tuple[str, str], list[float]]) -> None:
    """Raise an exception unless all cells of a group have the same gradient."""
    (first, expected), *rest = gradients.items()
    scale = max(map(abs, expected))
    for cell, gradient in rest:
        error = max(abs(a - b) for a, b in zip(gradient, expected))
        if len(gradient) != len(expected) or not error <= TOLERANCE * scale:
            raise RuntimeError(f"the gradients of {cell} and {first} differ by {error / scale:.1e}")


def time_group(machine: Machine, group: Group, rounds: int, seconds: float, slow: dict[str, str]) -> dict[str, Any]:
    """Compare the gradients of a group, then time its cells in turns.

    Args:
        machine: that runs them.
        group: which cells.
        rounds: how often.
        seconds: for each cell and round.
        slow: contenders to leave out, with the reason; those of which ten times as much would be too much are added.
    """
    left_out, gradients = {}, {}
    size = group.title.partition(":")[2]
    with Progress(len(group.cells) * (rounds + 1), group.title) as progress:
        for k, cell in enumerate(group.cells, 1):
            name = cell[0]
            if size and group.title.startswith("chain") and name in slow:
                left_out[cell] = slow[name]
                continue
            found = machine.run(*cell, "check")
            if "failed" in found:
                left_out[cell] = found["failed"]
                continue
            if found["seconds"] > LONGEST:
                left_out[cell] = f"a step takes over {LONGEST:g} s"
            if found["gradient"]:
                gradients[cell] = found["gradient"]
            if found["seconds"] * 10 > LONGEST:
                slow[name] = f"a step of {10 * int(size or 0)} operations would take over {LONGEST:g} s"
            if found["bytes"] * 10 > LARGEST:
                slow[name] = f"{10 * int(size or 0)} operations would take over {LARGEST / 2**30:g} GiB"
            progress(k, f"{name}: checked")
        compare(gradients)
        cells = [cell for cell in group.cells if cell not in left_out]
        times: dict[tuple[str, str], list[dict[str, Any]]] = {cell: [] for cell in cells}
        for r in range(rounds):
            for k, cell in enumerate(cells[r % len(cells) :] + cells[: r % len(cells)], 1):
                times[cell].append(machine.run(*cell, "time", seconds))
                progress(len(group.cells) * (r + 1) + k, cell[0])
    return {
        "title": group.title,
        "references": group.references,
        "cells": [[*cell, times.get(cell, []), left_out.get(cell, "")] for cell in group.cells],
    }


def deepest(machine: Machine, name: str, limit: int) -> dict[str, Any]:
    """Find the largest chain that a contender survives, in steps of ten times, then by bisection."""

    def try_depth(operations: int) -> dict[str, Any]:
        return machine.run(name, f"straight chain:{operations}", "depth", patience=60.0)

    good, bad, reason = 0, 0, f"not tried beyond {limit:,}"
    operations = 100
    while operations <= limit and not bad:
        found = try_depth(operations)
        if "failed" in found:
            bad, reason = operations, found["failed"]
        elif found["bytes"] * 10 > LARGEST and operations < limit:
            good, reason = operations, f"ten times as much would take over {LARGEST / 2**30:g} GiB"
            break
        else:
            good, operations = operations, operations * 10
    while bad - good > max(20, good // 20) and not reason.startswith("over"):
        middle = (good + bad) // 2
        good, bad = (good, middle) if "failed" in try_depth(middle) else (middle, bad)
    return {"operations": good, "reason": reason}


def time_start(machine: Machine, rounds: int) -> list[tuple[str, str, list[dict[str, float]]]]:
    """Time the start of an interpreter that imports; `pass` tells what each environment takes by itself."""
    commands = [
        ("micrograd", "pass"),
        ("micrograd", "import micrograd"),
        ("micrograd", "import micrograd.engine, micrograd.nn"),
        ("tapegrad", "pass"),
        ("tapegrad", "import tapegrad"),
    ]
    cells: list[tuple[str, str, list[dict[str, float]]]]
    cells = [(name, code, []) for name, code in commands if name in machine.pythons]
    for r in range(rounds + 1):
        for name, code, times in cells:
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run([machine.pythons[name], "-c", code], check=True)
            wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            if r:  # the first writes byte code and fills the disk cache
                times.append({"wall": wall, "cpu": cpu})
    return cells


def ask_yardsticks(machine: Machine, cache: Path, peers: bool, smoke: bool) -> dict[str, dict[str, Any]]:
    """What the scripts print that measure what others made up: each a table, and goals.

    GradBench and the models of posteriors are cloned; what cannot be had is left out."""
    torch, jax = (machine.python_with(name, "numpy") for name in ("torch", "jax"))
    hips = machine.python_with("autograd", "numpy", "scipy")
    evaluations = machine.python_with("pydantic", "numpy", "scipy", "dataclasses_json")
    stan = machine.python_with("bridgestan==2.5.0", "numpy")
    commands: dict[str, list[Any]] = {"finance": ["finance.py"]}
    commands["posteriors"] = ["posteriors/measure.py", "--build", cache, *(["--bridgestan", stan] if stan else [])]
    if peers and evaluations:
        commands["GradBench"] = ["gradbench/measure.py", "--gradbench", cache / "gradbench", "--python", evaluations]
        for option, python in ("--torch", torch), ("--jax", jax), ("--autograd", hips):
            commands["GradBench"] += [option, python] if python else []
    found = {}
    for name, (script, *options) in commands.items():
        command = [sys.executable, HERE / script, "--json", *options, *(["--smoke"] if smoke else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode and "--bridgestan" in command:  # its models could not be had, or not compiled
            command = [word for word in command if word not in ("--bridgestan", stan)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            machine.missing[name] = "its script ended with an error"
        else:
            found[name] = json.loads(done.stdout)
    return found


def describe_machine() -> dict[str, str]:
    """Return what the numbers depend on."""
    import tapegrad

    processor = platform.processor() or platform.machine()
    memory = ""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
        memory = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (OSError, ValueError):
        pass
    return {
        "processor": processor,
        "cores": str(os.cpu_count()),
        "memory": memory,
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler of tapegrad": tapegrad.tape.build["compiler"],
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="measure tapegrad beside its peers and write RESULTS.md")
    parser.add_argument("--rounds", type=int, default=5, help="how often each cell is measured (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="for each cell and round, at least (default: %(default)s)"
    )
    parser.add_argument("--no-peers", action="store_true", help="leave out all that would have to be installed")
    parser.add_argument("--smoke", action="store_true", help="one short round of small sizes, to see that all runs")
    parser.add_argument("--report", action="store_true", help="measure nothing; write what was measured last")
    parser.add_argument("--cache", type=Path, default=HERE.parent / "build" / "benchmarks", help="of environments")
    parser.add_argument("--output", type=Path, default=HERE, help="where RESULTS.md goes (default: %(default)s)")
    parser.add_argument("--only", nargs="+", help="measure these groups anew, as neuron programs; keep the rest")
    args = parser.parse_args()
    if args.smoke:
        args.rounds, args.seconds = 1, 0.0

    if args.report:
        report.write(json.loads((args.cache / "results.json").read_text(encoding="ascii")), args.output)
        return

    began = time.monotonic()
    machine = Machine(args.cache.resolve(), not args.no_peers)
    names = list(machine.pythons)
    if args.only:
        results = json.loads((args.cache / "results.json").read_text(encoding="ascii"))
        for k, group in enumerate(groups(names, args.smoke)):
            if group.title.startswith(tuple(args.only)):
                results["timed"][k] = time_group(machine, group, args.rounds, args.seconds, {})
        if "yardsticks" in args.only:
            results["yardsticks"] = ask_yardsticks(machine, args.cache.resolve(), not args.no_peers, args.smoke)
        if "programs" in args.only:
            results["programs"] = time_programs(machine, programs.GRAPHS, args.rounds, args.seconds)
        if "sparse" in args.only:
            results["sparse"] = time_problems(
                machine, sparse, "sparse derivatives", args.rounds, args.seconds, args.smoke
            )
        if "loops" in args.only:
            results["loops"] = time_problems(machine, loops, "loops", args.rounds, args.seconds, args.smoke)
        results["again"] = [*results.get("again", []), " ".join(["python", "benchmarks/run.py", *sys.argv[1:]])]
        finish(results, args.cache, args.output)
        return

    differentiating = [name for name in names if CONTENDERS[name].differentiates]
    slow: dict[str, str] = {}
    timed = [time_group(machine, g, args.rounds, args.seconds, slow) for g in groups(names, args.smoke)]

    work = f"chain:{1000 if args.smoke else 10**6}"
    with Progress(3 * len(differentiating), "memory, depth") as progress:
        memory, curves, depths = {}, {}, {}
        for k, name in enumerate(differentiating, 1):
            chain = work.replace("chain", "straight chain") if "micrograd" in name else work
            # Collections change nothing here, for a chain is no garbage, and take minutes.
            if name not in ("closures", "micrograd"):
                memory[name] = machine.run(name, chain, "memory")
            progress(k, f"{name}: memory")
        for k, name in enumerate(differentiating, len(differentiating) + 1):
            curves[name] = machine.run(name, "small moons", "curve", 20 if args.smoke else 2000)
            progress(k, f"{name}: curve")
        for k, name in enumerate(differentiating, 2 * len(differentiating) + 1):
            if "gc off" not in name:
                depths[name] = deepest(machine, name, 1000 if args.smoke else DEEPEST)
            progress(k, f"{name}: depth")

    graphs = ["row", "six"] if args.smoke else programs.GRAPHS
    results = {
        "machine": describe_machine(),
        "command": " ".join(["python", "benchmarks/run.py", *sys.argv[1:]]),
        "minutes": (time.monotonic() - began) / 60,
        "smoke": args.smoke,
        "rounds": args.rounds,
        "seconds": args.seconds,
        "missing": machine.missing,
        "timed": timed,
        "memory": {"workload": work, "cells": memory},
        "curves": curves,
        "depths": depths,
        "programs": time_programs(machine, graphs, args.rounds, args.seconds),
        "sparse": time_problems(machine, sparse, "sparse derivatives", args.rounds, args.seconds, args.smoke),
        "loops": time_problems(machine, loops, "loops", args.rounds, args.seconds, args.smoke),
        "yardsticks": ask_yardsticks(machine, args.cache.resolve(), not args.no_peers, args.smoke),
        "start": time_start(machine, 2 if args.smoke else 20),
    }
    finish(results, args.cache, args.output)


def finish(results: dict[str, Any], cache: Path, output: Path) -> None:
    """Keep the results, and write them up."""
    output.mkdir(parents=True, exist_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "results.json").write_text(json.dumps(results), encoding="ascii")
    report.write(results, output)
    print(output / "RESULTS.md")


if __name__ == "__main__":
    main()
