"""The picture of a small graph: a box for each node, constants folded into what reads them, and the film's data."""
from __future__ import annotations

import linecache
import math
import os
import re
from collections.abc import Iterator
from typing import Any

from .graph import COMPARED, COMPUTED, CONSTANT, GIVEN, Graph
from .layout import Layout, layered

LETTER, LINE = 7.25, 15.0  # of the texts in boxes: monospace of 12 pixels
GAP = 152.0  # between layers: the film writes on the edges there

# What the page has in JavaScript: an operation whose texts name something else is shown, but not computed anew.
_KNOWN = frozenset(
    "a b y log2 log10 sqrt tan asin acos atan atan2 asinh acosh atanh cbrt floor ceil trunc hypot fabs tg_exp tg_expm1 "
    "tg_log tg_log1p tg_sin tg_cos tg_sinh tg_cosh tg_erf tg_pow tg_tanh tg_relu tg_sigmoid tg_softplus tg_max tg_min "
    "tg_weigh tg_sign tg_first tg_share tg_bearing tg_pow_da tg_pow_db TG_1_LN2 TG_1_LN10 TG_2_SQRTPI".split()
)
_KNOWN_MANY = frozenset(("DOT", "SUM", "LOGSUMEXP", "CROSS_ENTROPY", "MSE", "HINGE", "WHERE"))


def is_computed(row: Any) -> bool:
    """Whether a page can compute this operation of the table anew."""
    if row.kind == "many":
        return row.name in _KNOWN_MANY
    return set(re.findall(r"[A-Za-z_]\w*", f"{row.primal} {row.da} {row.db}")) <= _KNOWN and bool(row.primal)


def short(x: float) -> str:
    """A number in a box: four digits."""
    if math.isfinite(x) and x == int(x) and abs(x) < 1e5:
        return f"{x:.1f}"
    text = f"{x:.4g}"
    return text + ".0" if text.lstrip("-").isdigit() and abs(x) < 1000 else text


def source(file: str, line: int) -> str:
    return linecache.getline(file, line).strip() if line else ""


def where(file: str, line: int) -> str:
    """A place as text, or nothing."""
    return f"{os.path.basename(file)}:{line}" if line else ""


class Picture:
    """Boxes and edges, laid out.

    Attributes:
        graph: what is shown.
        shown: the nodes that have a box, in order.
        edges: operand, user, and which operand of it.
        grads: whether grads are those of the Values; else the adjoints.
    """

    def __init__(self, graph: Graph, numbers: bool = True, cone: list[int] | None = None) -> None:
        self.graph, self.numbers, self.is_cone = graph, numbers, cone is not None
        nodes = list(range(graph.n)) if cone is None else cone
        self.roots = graph.roots if cone is None else cone[-1:]
        self.nodes = nodes = [i for i in nodes if graph.kind(i) != COMPARED]
        used = {k for i in nodes for k in graph.operands(i)} | set(self.roots)
        self.shown = [
            i for i in nodes
            if (graph.kind(i) in (COMPUTED, GIVEN) and (i in used or i in graph.given))
            or (graph.kind(i) == CONSTANT and (graph.names.get(i) or i in self.roots))
        ]  # fmt: skip
        unnamed = [i for i in nodes if graph.kind(i) == GIVEN and not graph.names.get(i)]
        self._inputs = {i: k for k, i in enumerate(unnamed)}
        at = {i: k for k, i in enumerate(self.shown)}
        self.edges = [
            (k, i, n) for i in self.shown if graph.kind(i) == COMPUTED
            for n, k in enumerate(graph.operands(i)) if k in at
        ]  # fmt: skip
        self.sizes = [self._size(i) for i in self.shown]
        self.layout: Layout = layered(self.sizes, [(at[a], at[b]) for a, b, _ in self.edges], GAP)

    def title(self, i: int) -> str:
        """The first line of a box: label and operation, · for an operand that has a box."""
        graph, name = self.graph, self.graph.names.get(i, "")
        if graph.kind(i) != COMPUTED:
            return name or (short(graph.value(i)) if graph.kind(i) == CONSTANT else f"input {self._inputs[i]}")
        row, operands = graph.operation(i), graph.operands(i)
        texts = ["·" if graph.names.get(k) or graph.kind(k) != CONSTANT else f"{graph.value(k):g}" for k in operands]
        op = row.symbol
        if "·" in texts and set(texts) != {"·"} and len(texts) == 2:
            infix = row.method.startswith("__")
            op = f" {op} ".join(texts) if infix else f"{op}({', '.join(texts)})"
        if graph.ruled(i):
            op += " (rule)"
        return f"{name} = {op}" if name else op

    def _grad(self, i: int) -> float:
        return self.graph.adjoint(i) if self.graph.is_program else float(self.graph.core.grad[i])

    def lines(self, i: int) -> list[str]:
        if not self.numbers:
            return [self.title(i)]
        return [self.title(i), f"data {short(self.graph.value(i))}", f"grad {short(self._grad(i))}"]

    def _size(self, i: int) -> tuple[float, float]:
        widest = max(max(map(len, self.lines(i))), 15 if self.numbers else 3)
        return widest * LETTER + 18, len(self.lines(i)) * LINE + 13

    def paths(self) -> Iterator[str]:
        """The edges as paths of SVG."""
        at = {i: k for k, i in enumerate(self.shown)}
        fan = {i: max(1, len(self.graph.operands(i))) for i in self.shown}
        for (a, b, n), through in zip(self.edges, self.layout.through):
            (ax, ay), (bx, by) = self.layout.at[at[a]], self.layout.at[at[b]]
            high = min(self.sizes[at[b]][1] - 18, 9.0 * fan[b])
            end = (bx - self.sizes[at[b]][0] / 2 - 5, by + high * ((n + 0.5) / fan[b] - 0.5))
            yield route([(ax + self.sizes[at[a]][0] / 2, ay), *through, end])

    # ---- for the page ----

    def data(self) -> dict[str, Any]:
        """What the page makes the film of."""
        graph = self.graph
        number = {i: k for k, i in enumerate(self.nodes)}
        box = dict(zip(self.shown, zip(self.layout.at, self.sizes)))
        nodes, rows = [], {}
        for i in self.nodes:
            row, place, operands = graph.operation(i), graph.place(i), graph.operands(i)
            kept = [n for n, k in enumerate(operands) if k in number]
            node: dict[str, Any] = {
                "kind": graph.kind(i) if kept or graph.kind(i) != COMPUTED else GIVEN,
                "ops": [number[operands[n]] for n in kept], "name": graph.names.get(i, ""), "title": self.title(i),
                "data": graph.value(i), "adj": graph.adjoint(i), "op": row.name, "formula": graph.formula(i),
            }  # fmt: skip
            if graph.kind(i) == COMPUTED:
                node["doc"] = row.doc
                partials = graph.passed(i, 1.0)
                node["partial"] = [partials[n] for n in kept]
                if not self.is_cone and is_computed(row):
                    rows[row.name] = (row.kind, row.primal, row.da, row.db)
                elif not self.is_cone:
                    node["fixed"] = True
                if len(kept) < len(operands):
                    node["cut"] = True
            if place.line:
                node["where"], node["source"] = where(*place), source(*place)
            if graph.ruled(i):
                node["rule"] = True
            if i in box:
                (x, y), (w, h) = box[i]
                node["box"] = [round(v, 1) for v in (x - w / 2, y - h / 2, w, h)]
            nodes.append(node)
        edges = [[number[a], number[b], n, path] for (a, b, n), path in zip(self.edges, self.paths())]
        return {
            "nodes": nodes, "edges": edges, "rows": rows, "roots": [number[k] for k in self.roots],
            "width": self.layout.width, "height": self.layout.height, "outside": self.is_cone,
        }  # fmt: skip


def route(points: list[tuple[float, float]]) -> str:
    """A smooth line through points, level at each."""
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (ax, ay), (bx, by) in zip(points, points[1:]):
        middle = (ax + bx) / 2
        path.append(f"C{middle:.1f} {ay:.1f} {middle:.1f} {by:.1f} {bx:.1f} {by:.1f}" if ay != by else f"H{bx:.1f}")
    return "".join(path)


def quoted(text: str) -> str:
    """A text in Graphviz's language."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def dot_lines(picture: Picture) -> list[str]:
    """The nodes and edges in Graphviz's language."""
    lines = []
    for i in picture.shown:
        style = "" if picture.graph.kind(i) == COMPUTED else ', style="rounded,bold"'
        lines.append(f"  n{i} [label={quoted(chr(10).join(picture.lines(i)))}{style}];")
    return lines + [f"  n{a} -> n{b};" for a, b, _ in picture.edges]
