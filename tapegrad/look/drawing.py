"""`draw`: a picture of what a Value was computed from, of a program or a loop."""
from __future__ import annotations

import os
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any, Union

from ..loops import Loop
from ..program import Program
from ..program.form import Nest
from ..value import Value
from . import page, small
from .graph import COMPUTED, Graph
from .svg import svg

if TYPE_CHECKING:
    from .large import Overview

SMALL = 200  # operations of a picture that shows each

Drawn = Union[Value, Program, Loop, Iterable[Value]]


class Drawing:
    """A picture of a graph. It shows itself in a notebook; `save` writes it.

    Attributes:
        graph: what is drawn.

    >>> draw(Value(1.0) + 2.0).title
    'a graph of 3 nodes'
    """

    def __init__(self, graph: Graph, numbers: bool = True, title: str = "") -> None:
        self.graph, self._numbers = graph, numbers
        operations = sum(1 for i in range(graph.n) if graph.kind(i) == COMPUTED) if graph.n <= 4 * SMALL else graph.n
        self.is_small = operations <= SMALL
        self.title = title or ("a program" if graph.is_program else "a graph") + f" of {graph.n} nodes"
        self._made: Any = None

    def __repr__(self) -> str:
        return f"<drawing: {self.title}>"

    def _picture(self) -> small.Picture:
        if self._made is None:
            self._made = small.Picture(self.graph, self._numbers)
        return self._made  # type: ignore[no-any-return]

    def _overview(self) -> Overview:
        from .large import Overview  # seldom needed

        if self._made is None:
            self._made = Overview(self.graph)
        return self._made  # type: ignore[no-any-return]

    def to_svg(self) -> str:
        """As SVG: each node of a small graph, else the graph folded to its lines.

        >>> draw(Value(1.0) + 2.0).to_svg()[:4]
        '<svg'
        """
        if self.is_small:
            return svg(self._picture())
        return self._overview().svg()

    def to_html(self) -> str:
        """As one page that needs no other file and no network.

        >>> draw(Value(1.0) + 2.0).to_html()[:15]
        '<!doctype html>'
        """
        if self.is_small:
            note = "" if self._numbers else "The program was given no arguments: its inputs are 1. Change them below."
            return page.film(self.title, self._picture().data(), note)
        return self._overview().html(self.title)

    def to_dot(self) -> str:
        """As text in Graphviz's language.

        >>> draw(Value(1.0) + 2.0).to_dot().splitlines()[0]
        'digraph tapegrad {'
        """
        style = "style=rounded, " if self.is_small else ""
        head = ["digraph tapegrad {", f"  rankdir=LR; node [shape=box, {style}fontname=monospace];"]
        return "\n".join([*head, *self._dot_lines(), "}", ""])

    def _dot_lines(self) -> list[str]:
        return small.dot_lines(self._picture()) if self.is_small else self._overview().dot_lines()

    def to_png(self) -> bytes:
        """As a picture of pixels, by the library resvg: `pip install 'tapegrad[draw]'`.

        Raises:
            ImportError: it is not installed.

        >>> draw(Value(1.0) + 2.0).to_png()[1:4]
        b'PNG'
        """
        try:
            import resvg_py
        except ImportError:
            raise ImportError("a PNG takes the library resvg: pip install 'tapegrad[draw]'; SVG does without") from None
        from .svg import plain

        return bytes(resvg_py.svg_to_bytes(svg_string=plain(self.to_svg()), zoom=2))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, in the format that its name ends in: .svg, .html, .dot or .png.

        Raises:
            ValueError: it ends in something else.
            OSError: it cannot be written.

        >>> draw(Value(1.0) + 2.0).save("sum.svg")
        """
        kind = os.path.splitext(os.fspath(path))[1].lower()
        makers: dict[str, Any] = {".svg": self.to_svg, ".html": self.to_html, ".dot": self.to_dot, ".png": self.to_png}
        if kind not in makers:
            raise ValueError(f"a drawing is saved as .svg, .html, .dot or .png, not {kind!r}")
        made = makers[kind]()
        with open(path, "wb") as stream:
            stream.write(made if isinstance(made, bytes) else made.encode())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        if self.is_small:
            return {"image/svg+xml": self.to_svg(), "text/plain": repr(self)}
        return self._framed()

    def _framed(self) -> dict[str, str]:
        frame = f'<iframe srcdoc="{escape(self.to_html())}" width="100%" height="800" style="border:0"></iframe>'
        return {"text/html": frame, "text/plain": repr(self)}


def draw(x: Drawn, *args: Nest) -> Drawing:
    """A picture of a graph: what Values were computed from, a program, or a loop.

    Args:
        x: a Value, several, a Program, or a Loop.
        args: of the program or loop: where to show it; without, its inputs are 1 in the page, and the picture has no
            numbers.

    Returns:
        A Drawing, with every node of a graph of up to 200 operations; larger ones are folded to source lines. A loop is
        one box: in the page a click opens it, and shows one of its steps, with what later steps pass back to it.

    >>> draw(Value(1.0) * 2.0), draw(record(lambda x: x * x, 1.0), 3.0)
    (<drawing: a graph of 3 nodes>, <drawing: a program of 2 nodes>)
    """
    if isinstance(x, Loop):
        from .boxed import LoopDrawing

        return LoopDrawing(x, args)
    if isinstance(x, Program):
        recorded = x._recorded
        if args:
            flat = recorded.flat(args)
        else:
            from array import array

            flat = array("d", [1.0] * recorded.n_in)
        graph = Graph.of_program(recorded, flat).name_inputs(recorded).sweep()
        return Drawing(graph, bool(args) or not recorded.n_in)
    if args:
        raise TypeError("draw() takes arguments for a Program or a Loop alone")
    roots = [x] if isinstance(x, Value) else list(x)
    for v in roots:
        if not isinstance(v, Value):
            raise TypeError(f"draw() takes a Value, several, a Program or a Loop, not {type(v).__name__!r}")
    if not roots:
        raise ValueError("draw() of no Value")
    from .debug import noted

    graph = Graph.of_values(roots, noted())
    if graph.n <= 4 * SMALL:
        graph.name_values(roots)
    graph.sweep()
    return Drawing(graph)
