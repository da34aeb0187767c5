"""A picture as SVG: text stays text, colours follow the reader's light or dark."""
from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from .graph import COMPUTED
from .small import LINE, Picture

COLOURS = """
.tg { --ink: #1b1f24; --soft: #57606a; --line: #8c959f; --fill: #ffffff; --leaf: #eef4ff; --root: #fff4df;
  --paper: #ffffff }
@media (prefers-color-scheme: dark) {
.tg { --ink: #e6edf3; --soft: #9aa4af; --line: #6e7781; --fill: #1c2128; --leaf: #172a46; --root: #3a2c10;
  --paper: #0d1117 } }
.tg .paper { fill: var(--paper) } .tg path { fill: none; stroke: var(--line); stroke-width: 1.3 }
.tg .head { fill: var(--line); stroke: none }
.tg rect.box { fill: var(--fill); stroke: var(--ink); stroke-width: 1.2 }
.tg .leaf rect.box { fill: var(--leaf); stroke-dasharray: 5 2 }
.tg .root rect.box { fill: var(--root); stroke-width: 2.4 }
.tg text { font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: var(--ink);
  text-anchor: middle; white-space: pre } .tg text.title { font-weight: 600 } .tg text.soft { fill: var(--soft) }
"""


def head(width: float, height: float, what: str, role: str = "img") -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="tg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="{role}" aria-label="{escape(what)}">',
        f"<title>{escape(what)}</title><style>{COLOURS}</style>",
        '<defs><marker id="tg-head" viewBox="0 0 8 8" refX="3" refY="4" markerWidth="8" markerHeight="8" orient="auto" '
        'markerUnits="userSpaceOnUse">'
        '<path class="head" d="M0 0L8 4L0 8z"/></marker></defs>',
        f'<rect class="paper" width="{width:.0f}" height="{height:.0f}"/>',
    ]


def box(
    kind: str, at: tuple[float, float], size: tuple[float, float], lines: Sequence[str], more: str = ""
) -> list[str]:
    """A box around its middle, of a leaf, a node or a root; more: attributes."""
    (x, y), (w, h) = at, size
    parts = [f'<g class="{kind}"{" " + more if more else ""}><rect class="box" x="{x - w / 2:.1f}" y="{y - h / 2:.1f}" '
             f'width="{w:.1f}" height="{h:.1f}" rx="{12 if kind == "leaf" else 4}"/>']  # fmt: skip
    for n, line in enumerate(lines):
        style = "title" if n == 0 else "soft"
        parts.append(f'<text class="{style}" x="{x:.1f}" y="{y - h / 2 + 19 + n * LINE:.1f}">{escape(line)}</text>')
    return [*parts, "</g>"]


def svg(picture: Picture) -> str:
    """A small graph."""
    graph, layout = picture.graph, picture.layout
    parts = head(layout.width, layout.height, f"a graph of {len(picture.shown)} nodes")
    parts += [f'<path d="{path}" marker-end="url(#tg-head)"/>' for path in picture.paths()]
    for i, at, size in zip(picture.shown, layout.at, picture.sizes):
        kind = "root" if i in picture.roots else "node" if graph.kind(i) == COMPUTED else "leaf"
        parts += box(kind, at, size, picture.lines(i))
    return "\n".join([*parts, "</svg>", ""])


def extent(text: str) -> tuple[float, float]:
    """How wide and how high an SVG is."""
    found = re.search(r' width="(\d+)" height="(\d+)"', text)
    assert found is not None
    return float(found[1]), float(found[2])


def plain(text: str) -> str:
    """The same with the colours of light written out, for readers that know no variables."""
    light = dict(re.findall(r"--(\w+): (#\w+)", COLOURS.partition("@media")[0]))
    text = re.sub(r"@media.*?\} \}\n?", "", text, flags=re.DOTALL)
    return re.sub(r"var\(--(\w+)\)", lambda m: light[m[1]], text)
