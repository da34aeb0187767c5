"""The picture of a large graph: its source with heat, the tape as a raster, the graph folded to lines, and cones."""
from __future__ import annotations

import base64
import linecache
import os
import struct
import zlib
from collections import Counter, deque
from html import escape
from typing import Any

from .._core import ffi, lib
from .graph import Graph
from .heat import Groups, Heat, Row
from .layout import layered
from .page import literal, page
from .small import LETTER, LINE, Picture, quoted, route
from .svg import head

WIDTH, HEIGHT = 1024, 512  # cells of a raster
BOXES = 200  # of the folded graph
EDGES = 12  # into one box
CONES, CONE = 16, 40  # how many are in the page, and nodes of each
TEXT = 38  # characters of a source line in a box


def _png(shades: bytes, width: int) -> bytes:
    """A picture of shades: 0 is clear, then from light to dark."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height = len(shades) // width
    rows = b"".join(b"\0" + shades[k * width : (k + 1) * width] for k in range(height))
    ends = ((158, 8), (202, 48), (225, 107))  # light and dark blue
    palette = bytes(round(a + (b - a) * (k / 255) ** 0.6) for k in range(256) for a, b in ends)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)), (b"PLTE", palette), (b"tRNS", b"\0"),
        (b"IDAT", zlib.compress(rows, 6)), (b"IEND", b""),
    ]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


class Overview:
    """What is shown of a graph that is too large for a box each."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.groups = Groups(graph)
        self._fold()

    # ---- folded ----

    def _fold(self) -> None:
        """Boxes for lines; where there are too many, for functions; where those are, too, one for the others."""
        groups = self.groups
        names = [groups.name(k) for k in range(groups.n)]
        if groups.n > BOXES:
            names = [self._function(k) for k in range(groups.n)]
        size = Counter[str]()
        for k, name in enumerate(names):
            size[name] += groups.nodes[k]
        kept = {name for name, _ in size.most_common(BOXES - 1 if len(size) > BOXES else BOXES)}
        order: dict[str, int] = {}
        to = [order.setdefault(name if name in kept else "others", len(order)) for name in names]
        self.boxes = list(order)
        self.opens = [0] * len(order)
        self.counts = [0] * len(order)
        self.texts = [""] * len(order)
        for k in range(groups.n - 1, -1, -1):
            self.counts[to[k]] += groups.nodes[k]
            self.opens[to[k]] = k
            if groups.n <= BOXES and groups.places[k].line:
                self.texts[to[k]] = linecache.getline(*groups.places[k]).strip()
        folded = ffi.new("uint32_t[]", self.graph.n or 1)
        ffi.memmove(folded, groups.group, 4 * self.graph.n)
        lib.tg_graph_regroup(self.graph.core, folded, ffi.new("uint32_t[]", to or [0]), groups.n)
        edges = ffi.new("uint32_t[]", 3 * BOXES * BOXES)
        n = lib.tg_graph_fold(self.graph.core, folded, len(order), edges, BOXES * BOXES)
        if n < 0:
            raise MemoryError
        found = [(edges[3 * k], edges[3 * k + 1], edges[3 * k + 2]) for k in range(n)]
        self.loops = {a: count for a, b, count in found if a == b}
        into: dict[int, list[tuple[int, int, int]]] = {}
        for a, b, count in found:
            if a != b:
                into.setdefault(b, []).append((a, b, count))
        self.edges: list[tuple[int, int, int]] = []
        self.left_out = 0
        for b in sorted(into):
            most = sorted(into[b], key=lambda e: -e[2])
            self.edges += sorted(most[:EDGES])
            self.left_out += max(0, len(most) - EDGES)

    def _function(self, k: int) -> str:
        where = self.graph.core.where[self.groups.first[k]]
        code = where >> lib.TG_WHERE_LINE
        if not 0 < code < len(self.graph.codes):
            return self.groups.name(k)
        file, name = self.graph.codes[code]
        return f"{name} in {os.path.basename(file)}"

    def _lines(self, k: int) -> list[str]:
        text = self.texts[k] if len(self.texts[k]) <= TEXT else self.texts[k][: TEXT - 1] + "…"
        loop = f", ↻ {self.loops[k]:,}" if k in self.loops else ""
        return [self.boxes[k], *([text] if text else []), f"{self.counts[k]:,} nodes{loop}"]

    def svg(self) -> str:
        """The folded graph: how often what is made on one line is read on another."""
        boxes = [self._lines(k) for k in range(len(self.boxes))]
        fan = Counter(b for a, b, _ in self.edges if a < b)
        sizes = [
            (max(map(len, lines)) * LETTER + 18, max(len(lines) * LINE + 13, 15.0 * fan[k] + 6))
            for k, lines in enumerate(boxes)
        ]
        layout = layered(sizes, [(a, b) for a, b, _ in self.edges], 110.0)
        back = any(a > b for a, b, _ in self.edges)
        parts = head(layout.width, layout.height + (16 if back else 0), f"a graph of {self.graph.n} nodes, folded",
                     "group")
        labels, seen, backwards = [], Counter[int](), 0
        for (a, b, count), through in zip(self.edges, layout.through):
            (ax, ay), (bx, by) = layout.at[a], layout.at[b]
            thick = 1.0 + min(4.0, 0.4 * len(str(count)))
            if a > b:  # from the left side, down or up before that column, to below the other
                left, start, foot = ax - sizes[a][0] / 2, ay + 10, by + sizes[b][1] / 2 + 5
                turn, deep = left - 40 - 7 * (backwards % 6), foot + 10
                backwards += 1
                path = f"M{left:.1f} {start:.1f}H{turn:.1f}V{deep:.1f}H{bx:.1f}V{foot:.1f}"
                labels.append((turn + 4, deep - 4, "start", f"{count:,}"))
            else:
                y = by + 15.0 * (seen[b] - (fan[b] - 1) / 2)
                seen[b] += 1
                path = route([(ax + sizes[a][0] / 2, ay), *through, (bx - sizes[b][0] / 2 - 5, y)])
                labels.append((bx - sizes[b][0] / 2 - 12, y - 3, "end", f"{count:,}"))
            parts.append(f'<path d="{path}" style="stroke-width:{thick:.1f}" marker-end="url(#tg-head)"/>')
        for k, ((x, y), (w, h), lines) in enumerate(zip(layout.at, sizes, boxes)):
            parts.append(
                f'<g class="node" tabindex="0" data-group="{self.opens[k]}" role="button" '
                f'aria-label="{escape(", ".join(lines))}"><rect class="box" x="{x - w / 2:.1f}" y="{y - h / 2:.1f}" '
                f'width="{w:.1f}" height="{h:.1f}" rx="4"/>'
            )
            top = y - LINE * len(lines) / 2 + 12
            for n, line in enumerate(lines):
                parts.append(f'<text class="{"soft" if n else "title"}" x="{x:.1f}" y="{top + n * LINE:.1f}">'
                             f"{escape(line)}</text>")
            parts.append("</g>")
        halo = 'style="text-anchor:{};font-size:11px;paint-order:stroke;stroke:var(--paper);stroke-width:3px"'
        parts += [f'<text x="{x:.1f}" y="{y:.1f}" {halo.format(end)}>{text}</text>' for x, y, end, text in labels]
        return "\n".join([*parts, "</svg>", ""])

    def dot_lines(self) -> list[str]:
        """The folded graph in Graphviz's language."""
        lines = [f"  n{k} [label={quoted(chr(10).join(self._lines(k)))}];" for k in range(len(self.boxes))]
        return lines + [f'  n{a} -> n{b} [label="{count}"];' for a, b, count in self.edges]

    # ---- raster ----

    def _rasters(self) -> tuple[bytes, bytes, int]:
        """Nodes by line and reads by distance, as PNG, and how many octaves of distance there are."""
        rows = max(1, min(HEIGHT, self.groups.n))
        nodes = ffi.new("uint32_t[]", WIDTH * HEIGHT)
        reads = ffi.new("uint32_t[]", WIDTH * HEIGHT)
        lib.tg_graph_raster(self.graph.core, self.groups.group, self.groups.n, WIDTH, HEIGHT, nodes, reads)
        pictures = []
        octaves = min(HEIGHT // 16, max(1, self.graph.n.bit_length()))
        for cells, height in (nodes, rows), (reads, 16 * octaves):
            shades = ffi.new("uint8_t[]", WIDTH * height)
            lib.tg_graph_shades(cells, WIDTH * height, shades)
            pictures.append(_png(bytes(ffi.buffer(shades)), WIDTH))
        return pictures[0], pictures[1], octaves

    # ---- cones ----

    def _cone(self, i: int) -> list[int]:
        """The nearest nodes that node i is computed from, itself last."""
        found, queue = {i}, deque([i])
        while queue:
            for k in self.graph.operands(queue.popleft())[:CONE]:
                if len(found) >= CONE:
                    return sorted(found)
                if k not in found:
                    found.add(k)
                    queue.append(k)
        return sorted(found)

    def _cones(self) -> list[dict[str, Any]]:
        """Of some nodes of each of the lines that made most: the first, the last, and the one in the middle."""
        groups, graph = self.groups, self.graph
        chosen: dict[int, int] = {}
        biggest = sorted(range(groups.n), key=lambda k: -groups.nodes[k])[:CONES]
        share = max(1, CONES // max(1, len(biggest)))
        for k in biggest:
            at = ffi.new("uint32_t[]", share)
            n = lib.tg_graph_sample(graph.core, groups.group, k, at, share)
            chosen.update((i, k) for i in at[0:n])
        for root in graph.roots[:1]:
            chosen[root] = groups.group[root]
        cones = []
        for i, k in chosen.items():
            nodes = self._cone(i)
            data = Picture(graph, cone=nodes).data()
            data.pop("rows")
            cut = f"its cone has more, these are the nearest {len(nodes)}" if len(nodes) >= CONE else "its whole cone"
            place = graph.place(i)
            where = f"{os.path.basename(place.file)}:{place.line}" if place.line else groups.name(k)
            cones.append({"group": k, "position": i, "where": where, "cut": cut, "film": data})
        return sorted(cones, key=lambda c: c["position"] not in graph.roots)

    # ---- the page ----

    def html(self, title: str) -> str:
        body, data = self.body(title)
        return page(title, body, {}, f"overview({literal(data)});")

    def body(self, title: str) -> tuple[str, dict[str, Any]]:
        """What is on the page, and what it works with."""
        graph, groups = self.graph, self.groups
        number: dict[tuple[str, int, str], int] = {}
        for k, place in enumerate(groups.places):
            text = linecache.getline(*place).rstrip() if place.line else groups.name(k)
            number.setdefault((place.file, place.line, text), k)

        def opens(row: Row) -> int:
            return number.get((row.filename, row.lineno, row.text), 0)

        nodes, reads, octaves = self._rasters()
        what = "lines" if groups.placed else "operations"

        def figure(png: bytes, name: str, alt: str) -> str:
            code = base64.b64encode(png).decode()
            return (
                f'<figure><img data-raster="{name}" src="data:image/png;base64,{code}" alt="{alt}">'
                f'<figcaption>{alt}. <span class="spot mono"></span></figcaption></figure>'
            )

        by_line = f"Nodes: position from left to right, {what} from top down as they come; the darker the more"
        by_distance = "Reads: position from left to right, distance to the operand from 1 at the top, doubling down"
        left = f" {self.left_out} thin edges are left out." if self.left_out else ""
        body = "\n".join([
            f"<h1>{escape(title)}</h1>",
            f"<p>{graph.n:,} nodes, {graph.core.n_operands:,} reads, {groups.n:,} {what}. A line, a box or a spot of "
            "the raster opens one node below.</p>",
            "<h2>The source, with heat</h2>",
            f'<div class="scroll" tabindex="0">{Heat(groups.rows(), "nodes").to_html(opens)}</div>',
            "<h2>The tape</h2>",
            f'<div class="pair">{figure(nodes, "nodes", by_line)}{figure(reads, "reads", by_distance)}</div>',
            f"<h2>Folded to {what}</h2><p>A number at an arrow: how often what is made there is read here.{left}</p>",
            f'<div class="fold">{self.svg()}</div>',
            '<h2>One node, and what it is computed from</h2><p id="cone-of"></p><div id="cone"></div>',
        ])  # fmt: skip
        rows = min(HEIGHT, groups.n)
        data = {
            "n": graph.n, "octaves": octaves, "groups": [groups.name(k) for k in range(groups.n)],
            "order": [y * groups.n // rows for y in range(rows)], "cones": self._cones(),
        }  # fmt: skip
        return body, data
