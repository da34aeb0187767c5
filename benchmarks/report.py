"""RESULTS.md, from what run.py measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pictures
import prose
from contenders import CONTENDERS
from programs import CONTENDERS as PROGRAMS
from workloads import Chain

__all__ = ["write"]

Rounds = list[dict[str, float]]


def write(results: dict[str, Any], folder: Path) -> None:
    """Write RESULTS.md, costs.svg and steps.svg.

    Args:
        results: what run.py puts together.
        folder: where to.
    """
    groups = {group["title"]: group for group in results["timed"]}
    chains = [group for title, group in groups.items() if title.startswith("chain")]
    neuron, squares = (_starting(groups, title) for title in ("neuron", "squares"))
    steps = [(title, groups[t]) for title, t in _step_groups(groups)]
    pictures.draw_costs(_costs(chains), folder / "costs.svg")
    pictures.draw_steps([(title, _bars(group)) for title, group in steps], folder / "steps.svg")

    lines = ["# Results", "", *prose.INTRODUCTION.format(**results).splitlines(), ""]
    if results.get("smoke"):
        lines += ["**A smoke run: everything is smaller than what is described here.**", ""]
    sparse = results.get("sparse", [])  # which earlier runs have not
    loops = results.get("loops", [])
    yardsticks = results.get("yardsticks", {})
    more = [*_sparse_goals(sparse), *_loop_goals(loops)]
    more += [goal for found in yardsticks.values() for goal in found["goals"]]
    goals = _goal_table(steps[0][1], steps[1][1], neuron, squares, results["programs"], more)
    lines += ["## Goals", "", prose.GOALS, "", *goals, ""]
    lines += ["## Training steps", "", "![milliseconds a training step](steps.svg)", ""]
    for (title, group), text in zip(steps, (prose.MOONS, prose.GPT)):
        lines += [f"### {title}", "", text, "", *_step_table(group), ""]
    lines += ["## Cost of an operation", "", "![ns an operation against graph size](costs.svg)", "", prose.CHAIN, ""]
    lines += [*_chain_table(chains), "", *_phase_table(_common(chains)), ""]
    lines += ["## Programs", "", prose.PROGRAMS, "", *_program_tables(results["programs"]), ""]
    if sparse:
        lines += ["## Sparse derivatives", "", prose.SPARSE, "", *_sparse_table(sparse), ""]
    if loops:
        lines += ["## Loops", "", prose.LOOPS, "", *_loop_table(loops), ""]
    size = int(neuron["title"].partition(":")[2])
    for name, found in yardsticks.items():
        title, text = prose.YARDSTICKS[name]
        lines += [f"## {title}", "", text, "", *found["table"], ""]
    lines += [f"## A neuron of {size:,} inputs", "", prose.NEURON, "", *_neuron_table(neuron, size), ""]
    count = int(squares["title"].partition(":")[2])
    lines += [f"## An Adam step over {count:,} parameters", "", prose.ADAM, "", *_adam_table(squares), ""]
    lines += ["## Memory", "", *_memory(results["memory"]), "", *_curves(results["curves"]), ""]
    lines += ["## Depth", "", prose.DEPTH, "", *_depth_table(results["depths"]), ""]
    lines += ["## Start", "", *_start_table(results["start"]), ""]
    lines += ["## How this was measured", "", *_setting(results), ""]
    (folder / "RESULTS.md").write_text("\n".join(lines), encoding="utf-8")


def _starting(groups: dict[str, Any], start: str) -> Any:
    return next(group for title, group in groups.items() if title.startswith(start))


def _step_groups(groups: dict[str, Any]) -> list[tuple[str, str]]:
    moons = next(title for title in groups if title.endswith("moons"))
    gpt = next(title for title in groups if title.endswith("gpt"))
    return [("Two moons", moons), ("Character GPT", gpt)]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"| --- |{' ---: |' * (len(head) - 1)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _number(x: float) -> str:
    if x == 0.0:
        return "0"
    return f"{x:,.0f}" if x >= 99.95 else f"{x:.3g}"


def _spread(numbers: Sequence[float], scale: float = 1.0) -> str:
    shown = [_number(scale * x) for x in (median(numbers), min(numbers), max(numbers))]
    return f"{shown[0]} ({shown[1]} to {shown[2]})" if shown[1] != shown[2] else shown[0]


def _of(rounds: Rounds, *phases: str) -> list[float]:
    return [sum(found[phase] for phase in phases) for found in rounds]


def _title(name: str, work: str) -> str:
    if "library" in work:
        return f"{name}, `nn.MLP`"
    if "affine" in work:
        return f"{name}, `affine`"
    if "dot" in work:
        return f"{name}, `dot`"
    return name


def _ratio(rounds: Rounds, reference: Rounds, *phases: str) -> str:
    return _spread([a / b for a, b in zip(_of(rounds, *phases), _of(reference, *phases))])


def _references(group: Any) -> list[tuple[str, Rounds]]:
    found = {(name, work): rounds for name, work, rounds, _ in group["cells"]}
    return [(_title(name, work), found[name, work]) for name, work in map(tuple, group["references"])]


def _step_table(group: Any) -> list[str]:
    references = _references(group)
    rows = []
    for name, work, rounds, reason in group["cells"]:
        if not rounds:
            rows.append([_title(name, work), reason, *[""] * (5 + len(references))])
            continue
        shown = [_spread(_of(rounds, phase), 1e3) for phase in ("wall", "cpu")]
        if CONTENDERS[name].differentiates:
            parts = [_of(rounds, "record"), _of(rounds, "sweep"), _of(rounds, "update"), _of(rounds, "clear")]
            shown += [_number(1e3 * median(part)) for part in parts]
            shown += [_ratio(rounds, reference, "cpu") for _, reference in references]
        else:
            shown += [_number(1e3 * median(_of(rounds, "record"))), *[""] * (3 + len(references))]
        rows.append([_title(name, work), *shown])
    head = ["ms a step", "wall", "CPU", "record", "sweep", "update", "clear"]
    return _table(head + [f"times {title}" for title, _ in references], rows)


def _goal_table(moons: Any, gpt: Any, neuron: Any, squares: Any, programs: Any, more: list[Any]) -> list[str]:
    def rounds(group: Any, title: str) -> Rounds:
        return next((rounds for name, work, rounds, _ in group["cells"] if _title(name, work) == title), [])

    def times(group: Any, slow: str, fast: str) -> list[float]:
        return [a["cpu"] / b["cpu"] for a, b in zip(rounds(group, slow), rounds(group, fast))]

    mlp, affine = "tapegrad, `nn.MLP`", "tapegrad, `affine`"
    pairs, count = (int(group["title"].partition(":")[2]) for group in (neuron, squares))
    dots = _of(rounds(neuron, "tapegrad, `dot`"), "record", "sweep")
    goals = [
        ("two-moons step, `nn.MLP`: ms", "at most", 2.0, [1e3 * t for t in _of(rounds(moons, mlp), "wall")]),
        ("… times faster than micrograd", "at least", 700, times(moons, "micrograd, `nn.MLP`", mlp)),
        ("… times faster than micrograd, gc off", "at least", 50, times(moons, "micrograd, gc off, `nn.MLP`", mlp)),
        ("… times faster than XAD", "at least", 30, times(moons, "XAD", mlp)),
        ("GPT step, written out: times faster than closures", "at least", 60, times(gpt, "closures", "tapegrad")),
        ("GPT step, `affine`: times faster than closures", "at least", 250, times(gpt, "closures", affine)),
        (f"`dot` of {pairs:,} pairs, record and sweep: ns a pair", "at most", 12, [1e9 / pairs * t for t in dots]),
        (f"Adam over {count:,} parameters: ms", "at most", 0.25,
         [1e3 * t for t in _of(rounds(squares, "tapegrad"), "update")]),
        *_program_goals(programs),
        *more,
    ]  # fmt: skip
    return _table(
        ["", "goal", "measured", ""],
        [
            [what, f"{bound} {_number(goal)}", _spread(found),
             "reached" if (median(found) <= goal) == (bound == "at most") else "missed"]
            for what, bound, goal, found in goals if found
        ],
    )  # fmt: skip


def _program_goals(programs: Any) -> Iterator[tuple[str, str, float, list[float]]]:
    def found(graph: str, name: str, key: str) -> list[float]:
        """Seconds for a recorded node."""
        cells = [one for each in programs.get(graph, []) for one in each if "failed" not in one]
        nodes = next((one["nodes"] for one in cells if "nodes" in one), 1)
        return [one[key] / nodes for one in cells if one["name"] == name and key in one]

    for graph, title, goal in (("moons", "two moons", 4.5), ("chain", "chain", 7.0)):
        yield f"program, {title}: freezing, µs", "at most", 0.2, [1e6 * t for t in found(graph, "tapegrad", "freeze")]
        yield "… one sample, ns", "at most", goal, [1e9 * t for t in found(graph, "tapegrad", "one")]
        along = [a / b for a, b in zip(found(graph, "tapegrad", "along"), found(graph, "tapegrad", "one"))]
        yield "… H v, in gradients", "at most", 3.0, along
    yield from _wide_goals(programs)
    for graph, key, title in (
        ("links", "batch", "program, short chain, batch: ns"), ("row", "batch", "program, rows: ns"),
        ("row", "shared", "program, rows that share weights: ns"),
        ("row", "few", "program, 1,024 of these: ns"),
    ):  # fmt: skip
        one, two = found(graph, "tapegrad", f"{key} 1"), found(graph, "tapegrad", f"{key} 2")
        yield title, "at most", 1.0, [1e9 * t for t in one]
        if key in ("shared", "few"):  # the others write as many numbers as they compute: memory says how fast they are
            yield "… times faster on 2 threads", "at least", 1.85, [a / b for a, b in zip(one, two)]
        yield "… compiled, ns", "at most", 0.5, [1e9 * t for t in found(graph, "tapegrad, native", f"{key} 1")]
    yield from _call_goals(programs)
    steps = [one for each in programs.get("row", []) for one in each if one["name"] == "tapegrad"]
    yield "two-moons step as a program: times faster than recorded", "at least", 20, [
        one["recorded step"] / one["replayed step"] for one in steps
    ]
    yield "compiling, ms", "at most", 0.6, [1e3 * t for t in found("row", "tapegrad, native", "freeze")]
    took = [one["derivatives"] for one in steps if "derivatives" in one]
    for key, how in ("hessian 6", "an array"), ("hessian 6, list", "a list"):
        yield f"Hessian of Rosenbrock's function of 6 numbers, {how}: µs", "at most", 3.0, [1e6 * t[key] for t in took]
    yield "… of 1,000 numbers, an array: ms", "at most", 20.0, [1e3 * t["hessian 1000"] for t in took]
    yield "Jacobian of 900 results by 26 numbers, in calls", "at most", 6.0, [t["jacobian"] / t["joints"] for t in took]
    nearest = [t["nearest along"] / t["nearest"] for t in took]
    yield "k-means, 20,000 rows, H v by the centres, in values", "at most", 5.5, nearest


def _wide_goals(programs: Any) -> Iterator[tuple[str, str, float, list[float]]]:
    for graph, title, goals in (
        ("vast", "Rosenbrock's function of 10^5 numbers", {"value alone": 0.6, "one": 1.8}),
        ("thousand", "… of 1,000", {"one": 0.012}),
        ("heat", "heat equation, fifty steps on 64 x 64", {"one": 2.5}),
    ):
        cells = [one for each in programs.get(graph, []) for one in each if "failed" not in one]
        for key, goal in goals.items():
            took = [1e3 * one[key] for one in cells if one["name"] == "tapegrad" and key in one]
            what = "value" if key == "value alone" else "value and gradient"
            yield f"program, {title}: {what}, ms", "at most", goal, took
        if graph == "vast":
            native = [one for one in cells if one["name"] == "tapegrad, native"]
            yield "… compiled: value and gradient, ms", "at most", 1.3, [1e3 * one["one"] for one in native]
            yield "… compiling, s", "at most", 1.0, [one["freeze"] for one in native]
            shared = [one["on threads"] for one in cells if "on threads" in one]
            for name in "running total", "sum":
                yield f"… of 10^6, a {name}, two threads: times one", "at least", 1.7, [one[name] for one in shared]


def _sparse_goals(sparse: Any) -> Iterator[tuple[str, str, float, list[float]]]:
    def found(problem: str, unknowns: int, key: str) -> list[float]:
        return [
            one[key] for each in sparse for one in each
            if one["by"] == "tapegrad" and one["problem"].startswith(problem) and one["unknowns"] == unknowns
            and key in one
        ]  # fmt: skip

    for problem, title, unknowns, nonzeros, made, evaluated in (
        ("chained Rosenbrock", "sparse Hessian, Rosenbrock's function", 100_000, 299_998, 0.3, 1.5),
        ("Brusselator", "sparse Jacobian, Brusselator", 20_000, 120_000, 0.15, 0.35),
        ("Brusselator", "sparse Jacobian, Brusselator", 2_048, 12_288, 0.0, 0.1),
    ):
        title = f"{title} of {unknowns:,} numbers"
        yield f"{title}: nonzeros", "at most", nonzeros, [float(n) for n in found(problem, unknowns, "nonzeros")]
        if made:
            yield "… made, s", "at most", made, found(problem, unknowns, "made")
        yield "… evaluated, ms", "at most", evaluated, [1e3 * t for t in found(problem, unknowns, "evaluated")]
        pairs = zip(found(problem, unknowns, "evaluated"), found(problem, unknowns, "native"))
        yield "… times faster compiled", "at least", 2.0, [a / b for a, b in pairs]


def _sparse_table(sparse: Any) -> list[str]:
    rows = []
    for first in sparse[0]:
        same = [
            one for each in sparse for one in each
            if all(one[key] == first[key] for key in ("problem", "by", "unknowns"))
        ]  # fmt: skip
        native = [1e3 * one["native"] for one in same if "native" in one]
        rows.append(
            [first["problem"], first["by"], f"{first['unknowns']:,}", f"{first['nonzeros']:,}",
             _spread(_of(same, "made")), _spread(_of(same, "evaluated"), 1e3), _spread(native) if native else ""]
        )  # fmt: skip
    rows.sort(key=lambda row: (row[0], int(row[2].replace(",", ""))))
    return _table(["problem", "by", "unknowns", "nonzeros", "made, s", "evaluated, ms", "compiled, ms"], rows)


def _loop_goals(loops: Any) -> Iterator[tuple[str, str, float, list[float]]]:
    def found(problem: str, key: str, by: str = "tapegrad") -> list[float]:
        """Seconds, one number for each round."""
        return [
            one[key] for each in loops for one in each
            if one["problem"] == problem and one["by"] == by and key in one
        ]  # fmt: skip

    nodes = next((one["nodes"] for each in loops for one in each if one["problem"] == "Lorenz, long"), 1)
    yield "loop, 10^6 steps of Lorenz's equations: ns a node", "at most", 3.0, [
        1e9 * t / nodes for t in found("Lorenz, long", "seconds")
    ]
    yield "… compiled, ns", "at most", 1.0, [1e9 * t / nodes for t in found("Lorenz, long", "native")]
    states = zip(found("Lorenz, 1,000 states", "seconds"), found("Lorenz", "seconds"))
    yield "… 10^5 steps, 1,000 states: in those with all states", "at most", 1.6, [a / b for a, b in states]
    for by in ("CasADi", "JAX", "diffrax"):
        pairs = zip(found("Lorenz", "seconds", by), found("Lorenz", "seconds"))
        yield f"… times faster than {by}", "at least", 1.0, [a / b for a, b in pairs]
    for key, title, goal in (
        ("seconds", "loop, Heston's model: in days written out", 0.5), ("native", "… compiled", 0.25)
    ):  # fmt: skip
        pairs = zip(found("Heston", key), found("Heston, written out", "seconds"))
        yield title, "at most", goal, [a / b for a, b in pairs]


def _loop_table(loops: Any) -> list[str]:
    rows, nodes = [], {one["problem"]: one["nodes"] for one in loops[0] if "nodes" in one}
    for first in loops[0]:
        same = [one for each in loops for one in each if all(one[key] == first[key] for key in ("problem", "by"))]
        scale = 1e9 / nodes[first["problem"]]
        native = [one["native"] for one in same if "native" in one]
        rows.append(
            [first["problem"], first["by"], _spread(_of(same, "seconds"), 1e3), _spread(_of(same, "seconds"), scale),
             _spread(native, scale) if native else ""]
        )  # fmt: skip
    return _table(["problem", "by", "ms", "ns a node", "compiled, ns"], rows)


def _call_goals(programs: Any) -> Iterator[tuple[str, str, float, list[float]]]:
    def found(graph: str, key: str, name: str = "tapegrad") -> list[float]:
        cells = [one for each in programs.get(graph, []) for one in each if one["name"] == name]
        return [1e6 * one[key] for one in cells if key in one]

    yield "program, called with two numbers: µs", "at most", 0.25, found("six", "call")
    yield "… value and gradient, µs", "at most", 0.35, found("six", "call and gradient")
    for key, title, goal in (
        ("list", "a list", 0.6), ("one", "an array", 1.2), ("jvp", "`jvp`", 1.5), ("along", "`hvp`", 1.5)
    ):
        yield f"… Rosenbrock's function of 6 numbers, {title}: µs", "at most", goal, found("six", key)
    links = [t / one["nodes"] for t, each in zip(found("links", "one", "tapegrad, native"), programs.get("links", []))
             for one in each if "nodes" in one]  # fmt: skip
    yield "… short chain, compiled, one sample: ns a node", "at most", 2.5, [1e3 * t for t in links]


def _bars(group: Any) -> list[tuple[str, str, float]]:
    return [
        (_title(name, work).replace("`", "") + ("" if CONTENDERS[name].differentiates else ", no gradient"), name,
         1e3 * median(_of(rounds, "wall")))
        for name, work, rounds, _ in group["cells"] if rounds
    ]  # fmt: skip


def _operations(group: Any) -> int:
    return Chain(int(group["title"].partition(":")[2])).operations


def _costs(chains: Sequence[Any]) -> dict[str, list[tuple[float, float]]]:
    costs: dict[str, list[tuple[float, float]]] = {}
    for group in chains:
        count = _operations(group)
        for name, _, rounds, _ in group["cells"]:
            if rounds:
                costs.setdefault(name, []).append((count, 1e9 / count * median(_of(rounds, "record", "sweep"))))
    return costs


def _chain_table(chains: Sequence[Any]) -> list[str]:
    columns = [{name: rounds for name, _, rounds, _ in group["cells"]} for group in chains]
    rows = [
        [
            name,
            *(
                _spread(_of(column[name], "record", "sweep"), 1e9 / _operations(group)) if column[name] else ""
                for group, column in zip(chains, columns)
            ),
        ]
        for name in columns[0]
    ]  # fmt: skip
    return _table(["operations", *(f"{_operations(group):,}" for group in chains)], rows)


def _common(chains: Sequence[Any]) -> Any:
    """The longest chain that all contenders were timed at, or the shortest there is."""
    whole = [group for group in chains if all(rounds for _, _, rounds, _ in group["cells"])]
    return (whole or chains)[-1 if whole else 0]


def _phase_table(group: Any) -> list[str]:
    count = _operations(group)
    ((_, reference),) = _references(group)
    rows = []
    for name, _, rounds, reason in group["cells"]:
        if not rounds:
            rows.append([name, reason, "", "", ""])
            continue
        shown = [*(_spread(_of(rounds, phase), 1e9 / count) for phase in ("record", "sweep")),
                 *(_ratio(rounds, reference, phase) for phase in ("record", "sweep"))]  # fmt: skip
        if not CONTENDERS[name].differentiates:
            shown[1] = shown[3] = ""
        rows.append([name, *shown])
    head = [f"{count:,} operations", "record, ns", "sweep, ns", "times tapegrad's record", "times tapegrad's sweep"]
    return _table(head, rows)


def _neuron_table(group: Any, size: int) -> list[str]:
    references = _references(group)
    rows = []
    for name, work, rounds, reason in group["cells"]:
        if not rounds:
            rows.append([_title(name, work), reason, *[""] * (2 + len(references))])
            continue
        shown = [_spread(_of(rounds, "record", "sweep"), 1e9 / size)]
        shown += [_number(1e9 / size * median(_of(rounds, phase))) for phase in ("record", "sweep")]
        shown += [_ratio(rounds, reference, "record", "sweep") for _, reference in references]
        if not CONTENDERS[name].differentiates:
            shown[2:] = [""] * (1 + len(references))
        rows.append([_title(name, work), *shown])
    head = ["ns a pair", "record and sweep", "record", "sweep"]
    return _table(head + [f"times {title}" for title, _ in references], rows)


def _adam_table(group: Any) -> list[str]:
    ((_, reference),) = _references(group)
    rows = [
        [name, _spread(_of(rounds, "update"), 1e3), _ratio(rounds, reference, "update")]
        for name, _, rounds, _ in group["cells"] if rounds
    ]  # fmt: skip
    return _table(["", "ms", "times tapegrad"], rows)


def _memory(memory: Any) -> list[str]:
    chain = Chain(int(memory["workload"].partition(":")[2]))
    rows = []
    for name, found in memory["cells"].items():
        count = chain.operations if "micrograd" not in name else chain.periods * (chain.PERIOD - 1)
        shown = [found["failed"], ""] if "failed" in found else [
            _number(found[phase] / count) for phase in ("recorded", "swept")
        ]  # fmt: skip
        rows.append([name, *shown])
    text = f"Resident bytes an operation that a chain of {chain.operations:,} operations added; one run each."
    return [text, "", *_table(["", "recorded", "and swept"], rows)]


def _curves(curves: Any) -> list[str]:
    last = max(k for found in curves.values() for k, _ in found.get("curve", [(0, 0)]))
    marks = [k for k in (1, 10, 50, 100, 500, 1000, 2000) if k <= last]
    rows = []
    for name, found in curves.items():
        if "failed" in found:
            rows.append([name, found["failed"], *[""] * len(marks)])
            continue
        curve = dict(map(tuple, found["curve"]))
        end, grown = found["curve"][-1]
        note = "" if end == last else f"stopped at step {end} with {grown / 2**20:,.0f}"
        rows.append([name, *(f"{curve[k] / 2**20:,.1f}" if k in curve else "" for k in marks), note])
    return [prose.CURVE, "", *_table(["step", *map(str, marks), ""], rows)]


def _depth_table(depths: Any) -> list[str]:
    rows = [[name, f"{found['operations']:,}", found["reason"]] for name, found in depths.items()]
    return ["| | operations | then |", "| --- | ---: | --- |", *(f"| {' | '.join(row)} |" for row in rows)]


def _start_table(start: Any) -> list[str]:
    alone = {name: _of(rounds, "wall") for name, code, rounds in start if code == "pass"}
    rows = []
    for name, code, rounds in start:
        shown = [_spread(_of(rounds, phase), 1e3) for phase in ("wall", "cpu")]
        more = [a - b for a, b in zip(_of(rounds, "wall"), alone[name])]
        rows.append([f"`python -c '{code}'`", name, *shown, "" if code == "pass" else _spread(more, 1e3)])
    head = ["ms", "in the environment of", "wall", "CPU", "more than `pass`"]
    return [prose.START.format(rounds=len(alone["tapegrad"])), "", *_table(head, rows)]


TITLES = {
    "moons": "Two moons", "chain": "Chain", "links": "Short chain", "row": "A row, and batches of rows",
    "six": "Rosenbrock's function of 6 numbers", "thousand": "Rosenbrock's function of 1,000 numbers",
    "vast": "Rosenbrock's function of 10^5 numbers", "heat": "Heat equation",
}  # fmt: skip


BATCHES = {"links": {"batch 1": "batch, ns", "batch 2": "on 2 threads, ns"}}
BATCHES["row"] = {**BATCHES["links"], "shared 1": "weights shared, ns", "shared 2": "on 2 threads, ns"}


CALLS = {
    "call": "`p(1.0, 2.0)`", "call and gradient": "`p.value_and_grad(1.0, 2.0)`", "list": "a list", "one": "an array",
    "jvp": "`jvp`", "along": "`hvp`",
}  # fmt: skip


def _call_table(rounds: list[list[dict[str, Any]]]) -> list[str]:
    """Microseconds a call, whole."""
    rows = []
    for name in (one["name"] for one in rounds[0]):
        found = [one for each in rounds for one in each if one["name"] == name and "failed" not in one]
        rows.append([name, *(_spread(_of(found, key), 1e6) if found and key in found[0] else "" for key in CALLS)])
    return _table(["µs a call", *CALLS.values()], rows)


def _program_tables(programs: dict[str, list[list[dict[str, Any]]]]) -> list[str]:
    """A table for each graph: freezing, one sample, H v, and batches where there are some."""
    lines = []
    for graph, title in TITLES.items():
        rounds = programs.get(graph)
        if not rounds:
            continue
        nodes = next(one["nodes"] for one in rounds[0] if "nodes" in one)
        rows = []
        for name in (one["name"] for one in rounds[0]):
            found = [one for each in rounds for one in each if one["name"] == name and "failed" not in one]
            if not found:
                rows.append([name, next(one["failed"] for one in rounds[0] if one["name"] == name)])
                continue
            shown = [_spread(_of(found, "freeze"), 1e6 / nodes), _spread(_of(found, "one"), 1e9 / nodes)]
            shown.append(_spread([one["along"] / one["one"] for one in found]))
            for key in BATCHES.get(graph, ()):
                shown.append(_spread(_of(found, key), 1e9 / nodes) if key in found[0] else "")
            rows.append([name, *shown])
        head = [f"{nodes:,} nodes", "freezing, µs", "one sample, ns", "H v, gradients"]
        head += BATCHES.get(graph, {}).values()
        lines += [f"### {title}", "", *_table(head, rows), ""]
        if graph in ("six", "thousand"):
            lines += [*_call_table(rounds), ""]
    return lines[:-1]


def _setting(results: Any) -> list[str]:
    versions: dict[str, str] = {}
    for name, found in results["memory"]["cells"].items():
        versions[name] = found["version"] if "version" in found else ""
    for group in results["timed"]:
        for name, _, rounds, _ in group["cells"]:
            if rounds:
                versions[name] = str(rounds[0]["version"])
    rows = [
        [name, CONTENDERS[name].package or ("here" if "tapegrad" not in name else "tapegrad"), versions[name],
         CONTENDERS[name].licence or "MIT"]
        for name in CONTENDERS if versions.get(name) and not name.endswith("gc off")
        and (CONTENDERS[name].package or "tapegrad" in name)
    ]  # fmt: skip
    known = {row[1] for row in rows}
    rows += [
        [name, engine.package, found["version"], engine.licence]
        for name, engine in PROGRAMS.items() if engine.package not in known
        for found in results["programs"]["row"][0] if found["name"] == name and "compiled" not in name
    ]  # fmt: skip
    machine = [f"| {key} | {value} |" for key, value in results["machine"].items()]
    return [
        "`make bench`, which is",
        "",
        f"    {results['command']}",
        "",
        f"in {results['minutes']:.0f} minutes. One cell by hand: `python benchmarks/worker.py tapegrad moons time 1`.",
        *(f"\nSome groups again, with nothing else running:\n\n    {again}" for again in results.get("again", [])),
        "",
        "| | |",
        "| --- | --- |",
        *machine,
        "",
        "| contender | package | version | licence |",
        "| --- | --- | --- | --- |",
        *(f"| {' | '.join(row)} |" for row in rows),
        *(f"\n{name}: left out, {reason}." for name, reason in results["missing"].items()),
        "",
        prose.PECULIARITIES,
    ]
