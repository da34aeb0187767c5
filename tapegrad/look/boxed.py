"""The picture of a loop: one box, which opens to what its steps do."""
from __future__ import annotations

from array import array
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from ..loops import Loop
from ..program.form import NUMBER, Form, Nest
from ..program.program import Program
from . import page, steps
from .drawing import Drawing
from .graph import Graph
from .layout import layered
from .small import LETTER, LINE, quoted, route, short
from .steps import Steps
from .svg import box, extent, head

SHOWN = 8  # steps of a page
TURN = 18.0  # how high the arrow is that leads from a step to the next


class Opened(NamedTuple):
    """What is in a box: its picture, the weights of its results, and what it is."""

    drawing: Drawing
    seeds: list[float] | None
    title: str


class Box(NamedTuple):
    """leaf, node or root; lines; and which of what is in boxes it opens, if it does."""

    kind: str
    lines: list[str]
    opens: str = ""


def _numbers(form: Form, more: str = "") -> str:
    return ("a number" if form is NUMBER else f"{form.size} numbers") + more


def _nodes(program: Program[Any]) -> str:
    n = program.stats["instructions"]
    return f"{n} node{'s' if n != 1 else ''}"


def _scalar(value: float, grad: float) -> list[str]:
    return [f"data {short(value)}", f"grad {short(grad)}"]


class LoopDrawing(Drawing):
    """A picture of a loop; see `Drawing`."""

    def __init__(self, loop: Loop, args: Sequence[Nest]) -> None:
        self._loop = loop
        self._at: Steps | None = None
        self._steps: list[Opened] = []
        self._final: Opened | None = None
        if args:
            self._show(steps.at(loop, args, _cuts))
        if not self._steps:
            self._steps = [Opened(_bare(loop.step), None, "a step")]
        if loop.final is not None and loop._has_loss and not args:
            self._final = Opened(_bare(loop.final), None, "at the end")
        n = loop.length if self._at is None else self._at.n
        self._times = "steps" if n is None else f"{'up to ' if loop.until and not args else ''}{n:,} steps"
        super().__init__(self._steps[-1].drawing.graph, bool(args), f"a loop of {self._times}")
        self.is_small = all(one.drawing.is_small for one in [*self._steps, *self._opened()])

    def _show(self, at: Steps) -> None:
        """What steps, and what comes at the end, are at this point."""
        self._at = at
        chosen = _chosen(at.n)
        for k, window in at.backward():
            first, stop, ends = window.part
            title = f"step {first} of {at.n:,}" if stop > first else "at the end"
            if stop - first == 1 and first in chosen:
                drawing = Drawing(at.name(window, results=True))
                self._steps.insert(0, Opened(drawing, at.seed(k), title))
            elif ends and at.has_final:
                graph = at.name(window)
                graph.roots, graph.given = graph.roots[at.n_state :], list(window.state)  # and what it reads of params
                self._final = Opened(Drawing(graph), None, title)

    def _opened(self) -> list[Opened]:
        return [self._steps[-1], *([self._final] if self._final else [])]

    # ---- the boxes ----

    def _boxes(self) -> tuple[list[Box], list[tuple[int, int]], int]:
        """Boxes, what leads from which to which, and which is the loop's."""
        loop, step, at = self._loop, self._loop._step, self._at
        names, boxes = step.arguments(step.x).names, []
        values = [] if at is None else [at.numbers[0 : at.n_state], at.numbers[len(at.numbers) - at.n_params :]]
        grads = [] if at is None else [at.state_grad, at.param_grads]
        first = 0
        for k, form in enumerate((step.state, step.x, *step.params)):
            if not form.size:
                continue
            name = names[k] or ("state", "xs")[k] if k < 2 else names[k] or f"argument {k}"
            lines = [_numbers(form, " a step" if k == 1 else "")]
            if values and form is NUMBER and k != 1:
                of, i = (0, 0) if k == 0 else (1, first)
                lines = _scalar(values[of][i], grads[of][i])
            first += form.size if k > 1 else 0
            boxes.append(Box("leaf", [name, *lines]))
        if loop.params:
            boxes.append(Box("leaf", ["params", _numbers(step.recorded.param_place.form)]))
        here = len(boxes)
        edges = [(k, here) for k in range(here)]
        paths = len(step.recorded.paths)
        each = f"{_nodes(loop.step)} each" + (f", {paths} paths" if paths > 1 else "")
        boxes.append(Box("node", [f"↻ {self._times}", each, *(["until"] if loop.until else [])], "step"))
        last = len(boxes)
        boxes.append(Box("node" if loop._has_loss else "root", ["last state", _numbers(step.state)]))
        edges.append((here, last))
        summed = [last] if step.y is None else [last + 1]
        if step.y is not None:
            boxes.append(Box("node" if loop._has_loss else "root", ["ys", _numbers(step.y, " a step")]))
            edges.append((here, last + 1))
        if self._final is not None and loop.final is not None:
            boxes.append(Box("node", ["final", _nodes(loop.final)], "final"))
            edges.append((last, len(boxes) - 1))
            summed = [*(k for k in summed if k != last), len(boxes) - 1]
        if loop._has_loss:
            value = [] if at is None else _scalar(at.out[0], 1.0)
            boxes.append(Box("root", ["loss", *value]))
            edges += [(k, len(boxes) - 1) for k in summed]
        return boxes, edges, here

    def _outside(self, opens: bool) -> tuple[str, float, float]:
        """The boxes as SVG, and how large that is; opens: a click is to open them."""
        boxes, edges, here = self._boxes()
        sizes = [(max(15, *map(len, b.lines)) * LETTER + 18, len(b.lines) * LINE + 13) for b in boxes]
        room = [(w, h + 2 * TURN * (k == here)) for k, (w, h) in enumerate(sizes)]
        layout = layered(room, edges, 60.0)
        parts = head(layout.width, layout.height, self.title, "group" if opens else "img")
        for (a, b), through in zip(edges, layout.through):
            (ax, ay), (bx, by) = layout.at[a], layout.at[b]
            points = [(ax + sizes[a][0] / 2, ay), *through, (bx - sizes[b][0] / 2 - 5, by)]
            parts.append(f'<path d="{route(points)}" marker-end="url(#tg-head)"/>')
        (x, y), (w, h) = layout.at[here], sizes[here]
        top = y - h / 2
        turn = f"M{x + w / 4:.1f} {top:.1f}V{top - TURN + 4:.1f}H{x - w / 4:.1f}V{top - 5:.1f}"
        parts.append(f'<path d="{turn}" marker-end="url(#tg-head)"/>')
        for one, at, size in zip(boxes, layout.at, sizes):
            more = f'tabindex="0" role="button" data-opens="{one.opens}"' if opens and one.opens else ""
            parts += box(one.kind, at, size, one.lines, more)
        return "\n".join([*parts, "</svg>", ""]), layout.width, layout.height

    # ---- formats ----

    def to_svg(self) -> str:
        """As SVG: the boxes, and below them what is in them, of the last step."""
        outside, width, height = self._outside(False)
        inside, at = [], height
        for one in self._opened():
            text = one.drawing.to_svg()
            w, h = extent(text)
            inside += [
                f'<text x="16" y="{at + 22:.0f}" class="title" style="text-anchor:start">{escape(one.title)}</text>',
                f'<g transform="translate(0 {at + 30:.0f})">{text}</g>',
            ]
            width, at = max(width, w), at + 30 + h
        return "\n".join([*head(width, at, self.title), outside, *inside, "</svg>", ""])

    def to_html(self) -> str:
        """As one page that needs no other file and no network: a click opens a box."""
        outside, *_ = self._outside(self.is_small)
        note = "" if self._numbers else " It was given no arguments: inputs are 1."
        body = [f"<h1>{escape(self.title)}</h1>", f'<div class="fold">{outside}</div>']
        if not self.is_small:
            last = self._steps[-1]
            more, data = last.drawing._overview().body(last.title)
            return page.page(self.title, "\n".join([*body, more]), {}, f"overview({page.literal(data)});")
        rows: dict[str, Any] = {}
        films: dict[str, list[dict[str, Any]]] = {"step": [], "final": []}
        for one, to in [(one, "step") for one in self._steps] + ([(self._final, "final")] if self._final else []):
            film = one.drawing._picture().data()
            rows.update(film.pop("rows"))
            if one.seeds is not None:
                film["seeds"] = one.seeds
            films[to].append({"title": one.title, "film": film})
        body += [f"<p>A click on a box opens it.{note}</p>", '<div id="opened"></div>']
        return page.page(self.title, "\n".join(body), rows, f"boxed({page.literal(films)});")

    def to_dot(self) -> str:
        """As text in Graphviz's language: the boxes, and what the last step does, or its lines."""
        boxes, edges, here = self._boxes()
        lines = ["digraph tapegrad {", "  rankdir=LR; node [shape=box, style=rounded, fontname=monospace];"]
        lines += [f"  b{k} [label={quoted(chr(10).join(one.lines))}];" for k, one in enumerate(boxes)]
        lines += [f"  b{a} -> b{b};" for a, b in [*edges, (here, here)]]
        last = self._steps[-1]
        lines += ["  subgraph cluster_step {", f"  label={quoted(last.title)};", *last.drawing._dot_lines(), "  }"]
        return "\n".join([*lines, "}", ""])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return self._framed()


def _chosen(n: int) -> list[int]:
    """Steps from the first to the last."""
    return sorted({k * (n - 1) // (SHOWN - 1) for k in range(SHOWN)}) if n else []


def _cuts(n: int) -> set[int]:
    return {n, *(at for k in _chosen(n) for at in (k, k + 1))}


def _bare(program: Program[Any]) -> Drawing:
    """A program without numbers."""
    recorded = program._recorded
    graph = Graph.of_path(recorded.paths[0], array("d", [1.0] * recorded.n_in), True)
    return Drawing(graph.name_inputs(recorded).sweep(), False)
