"""`heat`: the source of a recorded function with what each line costs and how much of the gradient goes through it."""
from __future__ import annotations

import ast
import json
import linecache
import math
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from .._core import ffi, lib
from ..program.form import Nest
from ..program.recorded import Recorded
from ..program.replay import NOWHERE, paths_within, zeros
from .graph import Graph, Place

if TYPE_CHECKING:
    from ..loops import Loop

BY = ("nodes", "time", "adjoint", "rounding")
MOST = 1 << 14  # lines
_WIDE = 24  # characters of a bar


class Row(NamedTuple):
    """A line that recorded something.

    nodes, bytes: of the program's instructions; time: its share of a replay, 0 to 1; adjoint: the sum of
    |adjoint * value|; partial: the largest |partial|; rounding: the sum of |adjoint * rounding error|.

    >>> (row,) = heat(lambda x: x * x, 3.0).rows
    >>> row.nodes, row.bytes, row.adjoint, row.partial
    (1, 32, 9.0, 3.0)
    """

    filename: str
    lineno: int
    text: str
    nodes: int
    bytes: int
    time: float
    adjoint: float
    partial: float
    rounding: float


class Groups:
    """The nodes of a graph grouped by line, or by operation where no lines are known, and the totals of each group."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.group = ffi.new("uint32_t[]", graph.n or 1)
        first = ffi.new("uint32_t[]", MOST)
        self.n = _checked(lib.tg_graph_groups(graph.core, self.group, first, MOST))
        self.first: list[int] = list(first[0 : self.n])
        self.nodes, self.operands = ffi.new("uint64_t[]", self.n or 1), ffi.new("uint64_t[]", self.n or 1)
        self.weight, self.partial = ffi.new("double[]", self.n or 1), ffi.new("double[]", self.n or 1)
        _checked(
            lib.tg_graph_totals(
                graph.core, self.group, self.n, self.nodes, self.operands, self.weight, self.partial
            )
        )
        self.places = [graph.place(i) if graph.core.where[i] else Place(*NOWHERE) for i in self.first]
        self.placed = any(place.line for place in self.places)

    def name(self, k: int) -> str:
        """Of a group: its line, or its operation."""
        place = self.places[k]
        if place.line:
            return f"{os.path.basename(place.file)}:{place.line}"
        if self.placed:
            return "inputs and constants"
        return self.graph.operation(self.first[k]).symbol or "leaf"

    def time(self) -> list[float]:
        """The time of each group: each operation is timed on this graph's own numbers."""
        ns = ffi.new("double[]", lib.tg_op_count + 2)
        lib.tg_graph_time(self.graph.core, ns)
        took = ffi.new("double[]", self.n or 1)
        lib.tg_graph_share(self.graph.core, self.group, self.n, ns, took)
        return list(took[0 : self.n])

    def rows(self) -> list[Row]:
        """What each group costs, those without a line left out where others have one; times are none of all yet."""
        times, rounding, rows = self.time(), self.rounding(), []
        for k, place in enumerate(self.places):
            if place.line or not self.placed:
                text = linecache.getline(place.file, place.line).rstrip() if place.line else self.name(k)
                pooled = self.operands[k] if self.operands[k] > 2 * self.nodes[k] else 0
                size = 32 * self.nodes[k] + 8 * pooled
                rows.append(Row(place.file, place.line, text, self.nodes[k], size, times[k], self.weight[k],
                                self.partial[k], rounding[k]))
        return rows

    def errors(self) -> tuple[Any, Any]:
        """The rounding error of each node, and a bound of what that does not say."""
        error, bound = ffi.new("double[]", self.graph.n or 1), ffi.new("double[]", self.graph.n or 1)
        lib.tg_graph_rounding(self.graph.core, error, bound)
        return error, bound

    def weighed(self, error: Any, bound: Any) -> tuple[list[float], list[float]]:
        """The sum of adjoint * error of each group, and of |adjoint| * (|error| + bound)."""
        signed, sizes = ffi.new("double[]", self.n or 1), ffi.new("double[]", self.n or 1)
        lib.tg_graph_weigh(self.graph.core, self.group, self.n, error, bound, signed, sizes)
        return list(signed[0 : self.n]), list(sizes[0 : self.n])

    def rounding(self) -> list[float]:
        """The sum of |adjoint * rounding error| of each group."""
        return self.weighed(*self.errors())[1]


def _checked(code: int) -> int:
    if code < 0:
        raise MemoryError
    return code


def _around(file: str, lines: Sequence[int]) -> list[tuple[int, int]]:
    """The first and last lines of the functions that these lines are in."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return [(min(lines), max(lines))]
    spans = [
        (node.lineno, node.end_lineno or node.lineno) for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
    ]  # fmt: skip
    found = set()
    for line in lines:
        inside = [span for span in spans if span[0] <= line <= span[1]]
        found.add(max(inside, key=lambda span: span[0]) if inside else (line, line))
    merged: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


class Heat:
    """What each source line of a program costs. `print` it; a notebook shows it; `rows` is the same as a list.

    Attributes:
        rows: named tuples, in the order of the source.
        by: what the bars show.

    >>> [row.adjoint for row in heat(lambda x: x * x, 3.0, by="adjoint").rows]
    [9.0]
    """

    def __init__(self, rows: list[Row], by: str) -> None:
        self.by = by
        whole = math.fsum(row.time for row in rows)
        self.rows = [row._replace(time=row.time / whole if whole else 0.0) for row in _merged(rows)]

    def _measure(self, row: Row) -> float:
        return float(getattr(row, self.by))

    def listing(self) -> list[tuple[str, list[tuple[int, str, Row | None]]]]:
        """By file its functions, line after line: the number, the text, and the row where it recorded something.

        >>> [row.nodes for file, lines in heat(lambda x: x * x, 3.0).listing() for line, text, row in lines]
        [1]
        """
        files: dict[str, dict[int, Row]] = {}
        for row in self.rows:
            files.setdefault(row.filename, {})[row.lineno] = row
        listing: list[tuple[str, list[tuple[int, str, Row | None]]]] = []
        lines: list[tuple[int, str, Row | None]]
        for file, rows in files.items():
            if file == NOWHERE[0]:  # operations stand for lines
                listing.append(("lines are known of programs, and within debug(): by operation",
                                [(0, row.text, row) for row in self.rows if row.filename == file]))
                continue
            lines = []
            for start, end in _around(file, list(rows)):
                if lines:
                    lines.append((0, "", None))
                for line in range(start, end + 1):
                    made = rows.get(line)
                    text = linecache.getline(file, line).rstrip() or (made.text if made else "")
                    if made or end - start < 400:
                        lines.append((line, text, made))
            listing.append((file, lines))
        return listing

    def _cells(self, row: Row | None) -> list[str]:
        if row is None:
            return [""] * 6
        return [
            str(row.nodes), _bytes(row.bytes), f"{row.time:.1%}", f"{row.adjoint:.3g}", f"{row.partial:.3g}",
            f"{row.rounding:.2g}",
        ]  # fmt: skip

    def __str__(self) -> str:
        return self.to_text(_WIDE if sys.stdout.isatty() else 0)

    def to_text(self, bar: int = 0) -> str:
        """As text; bar: how many characters the longest bar has, 0 for none.

        >>> heat(lambda x: x * x, 3.0).to_text().splitlines()[1].split()
        ['nodes', 'bytes', 'time', '|adj·y|', 'slope', 'rounding']
        """
        heads = ["nodes", "bytes", "time", "|adj·y|", "slope", "rounding"]
        listing = self.listing()
        cells = [self._cells(row) for _, lines in listing for *_, row in lines]
        widths = [max([len(head), *(len(c[k]) for c in cells)]) for k, head in enumerate(heads)]
        most = max(map(self._measure, self.rows), default=0.0)
        out = []
        for file, lines in listing:
            out.append(f"{file}, by {self.by}")
            out.append("  ".join(head.rjust(w) for head, w in zip(heads, widths)))
            for line, text, row in lines:
                full = self._measure(row) / most * bar if row and most else 0.0
                shown = ("█" * int(full) + ("▌" if full % 1 >= 0.5 else "")).ljust(bar) + "  " if bar else ""
                numbers = "  ".join(c.rjust(w) for c, w in zip(self._cells(row), widths))
                out.append(f"{numbers}  {shown}{line or '':>5}  {text}".rstrip())
        width = shutil.get_terminal_size((160, 24)).columns if bar else 160
        return "\n".join(line if len(line) <= width else line[: width - 1] + "…" for line in out)

    def to_html(self, group: Callable[[Row], int] | None = None) -> str:
        """As a table of HTML; group: which number a line gets that can be opened.

        >>> heat(lambda x: x * x, 3.0).to_html()[:20]
        '<table class="heat">'
        """
        most = max(map(self._measure, self.rows), default=0.0)
        heads = ("nodes", "bytes", "time", "|adj·y|", "slope", "rounding", f"by {self.by}", "line", "source")
        parts = ['<table class="heat"><thead><tr>', *(f"<th>{head}</th>" for head in heads), "</tr></thead><tbody>"]
        for file, lines in self.listing():
            parts.append(f'<tr class="file"><td colspan="9">{escape(file)}</td></tr>')
            for line, text, row in lines:
                wide = 90 * self._measure(row) / most if row and most else 0.0
                number = group(row) if group is not None and row is not None else None
                opens = f' tabindex="0" data-group="{number}"' if number is not None else ""
                cells = "".join(f"<td>{cell}</td>" for cell in self._cells(row))
                bar = f'<td style="text-align:left"><span class="hot" style="width:{wide:.0f}px"></span></td>'
                parts.append(f"<tr{opens}>{cells}{bar}<td>{line or ''}</td><td>{escape(text)}</td></tr>")
        return "\n".join([*parts, "</tbody></table>"])

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.to_text(_WIDE))}</pre>"

    def to_speedscope(self) -> str:
        """As a profile for https://www.speedscope.app: frames are lines, weights what the bars show.

        >>> "speedscope.app" in heat(lambda x: x * x, 3.0).to_speedscope()
        True
        """
        frames = [
            {"name": f"{os.path.basename(r.filename)}:{r.lineno} {r.text.strip()}", "file": r.filename,
             "line": r.lineno}
            for r in self.rows
        ]
        weights = [self._measure(r) for r in self.rows]
        profile = {
            "type": "sampled", "name": f"by {self.by}", "unit": "none", "startValue": 0, "endValue": sum(weights),
            "samples": [[k] for k in range(len(frames))], "weights": weights,
        }  # fmt: skip
        schema = "https://www.speedscope.app/file-format-schema.json"
        shared = {"frames": frames}
        return json.dumps({"$schema": schema, "shared": shared, "profiles": [profile], "exporter": "tapegrad"})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file: .speedscope.json, .html or .txt.

        Raises:
            ValueError: the name ends in something else.

        >>> heat(lambda x: x * x, 3.0).save("heat.html")
        """
        name = os.fspath(path)
        if name.endswith(".json"):
            text = self.to_speedscope()
        elif name.endswith(".html"):
            from .page import page

            title = f"heat by {self.by}"
            text = page(title, f'<h1>{title}</h1><div class="scroll">{self.to_html()}</div>', {}, "")
        elif name.endswith(".txt"):
            text = self.to_text() + "\n"
        else:
            raise ValueError(f"heat is saved as .speedscope.json, .html or .txt, not {os.path.basename(name)!r}")
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)


def _badness(slope: float) -> tuple[bool, float]:
    return math.isnan(slope), slope


def _merged(rows: list[Row]) -> list[Row]:
    """One row a line: several code objects may have recorded on the same."""
    found: dict[tuple[str, int, str], Row] = {}
    for row in rows:
        key = row.filename, row.lineno, row.text
        old = found.get(key)
        if old is not None:
            row = row._replace(
                nodes=old.nodes + row.nodes, bytes=old.bytes + row.bytes, time=old.time + row.time,
                adjoint=old.adjoint + row.adjoint, partial=max(old.partial, row.partial, key=_badness),
                rounding=old.rounding + row.rounding,
            )  # fmt: skip
        found[key] = row
    return sorted(found.values(), key=lambda row: (row.filename, row.lineno))


def _bytes(n: int) -> str:
    for unit in ("", "k", "M"):
        if n < 10000:
            return f"{n}{unit}"
        n //= 1024
    return f"{n}G"


def _check(by: str) -> None:
    if by not in BY:
        raise ValueError(f"by must be one of {', '.join(map(repr, BY))}, not {by!r}")


def of_program(recorded: Recorded, args: Sequence[Nest], by: str) -> Heat:
    _check(by)
    return Heat(Groups(Graph.of_program(recorded, recorded.flat(args)).sweep()).rows(), by)


def of_loop(loop: Loop, args: Sequence[Nest], by: str) -> Heat:
    """Of all steps; bytes are those of their program, which is there once."""
    from . import steps

    _check(by)
    at = steps.at(loop, args)
    rows: list[Row] = []
    for _, window in at.backward():
        rows = _merged([*rows, *Groups(window.graph).rows()])
    once = {(row.filename, row.lineno, row.text): row.bytes for row in _merged([
        row for path in paths_within(at.paths)
        for row in Groups(Graph.of_path(path, zeros(path.core.n_in), True, within=False)).rows()
    ])}  # fmt: skip
    if any(row.lineno for row in rows):  # a window may have none
        rows = [row for row in rows if row.lineno]
    return Heat([row._replace(bytes=once.get((row.filename, row.lineno, row.text), row.bytes)) for row in rows], by)


def heat(f: Callable[..., Any], *args: Nest, by: str = "nodes") -> Heat:
    """Record f at these arguments, and show what each of its lines costs; see `Program.heat`.

    >>> [(row.lineno, row.nodes) for row in heat(lambda x: x * x, 3.0).rows]
    [(1, 1)]
    """
    return of_program(Recorded.of(f, args, on_branch="record"), args, by)
