"""`diagnose`: which operation made a result or a gradient that is not finite, and on which way it got there."""
from __future__ import annotations

import copy
import math
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from .._core import ffi, lib
from ..program.batch import Rows
from ..program.form import NUMBER, Nest, Static
from ..program.recorded import Recorded
from ..program.replay import REFUSALS, units, within
from ..program.rows import one_row
from .graph import COMPUTED, CONSTANT, NONE, CData, Graph, Place
from .small import source, where

MOST_WAY = 1 << 16  # nodes of a way that are followed


class Diagnosis:
    """Where a number that is not finite was made.

    Attributes:
        what: "value": an operation made it of finite operands, or it was given; "adjoint": the derivative by an operand
            came out so though what came from above was finite.
        filename, lineno, text: the line, "<unknown>", 0 and "" where it was not recorded.
        operation, formula: its name; what it computes, as text.
        operands: their values.
        value: the operation's own.
        adjoint, partial: what came from above, and the slope that it met; None for a value.
        way: the lines from there to the result or the input, as (file, line).
        result: the bad number that was asked about.
        input: the name of the input that is bad, or whose derivative is; None for a result of given numbers.
        row: of the batch, or None.
        step: of a loop: that in which it was made, of what comes at its end how many there were; or None.
        more: how many other origins there are; this one is the first in order of cause.

    >>> found = record(lambda x: x.log(), 1.0, on_error="nan").diagnose(0.0)
    >>> found.operation, found.operands, found.value
    ('log', (0.0,), nan)
    """

    def __init__(
        self, graph: Graph, origin: Any, way: Sequence[int], result: float, name: str | None, of_adjoint: bool
    ) -> None:
        i, k = origin.node, origin.operand
        place, operands = graph.place(i), graph.operands(i)
        self.filename, self.lineno = place
        self.text = source(*place)
        self.operation = graph.operation(i).method.strip("_")
        self.formula = graph.formula(i)
        self.operands = tuple(graph.value(at) for at in operands)
        self.value = graph.value(i)
        self.way = lines_of(graph, way)
        self.result, self.input, self.row, self.step = result, name, None, None
        self.more = max(0, origin.count - 1)
        self.adjoint: float | None = None
        self.partial: float | None = None
        self.what = "value"
        self._of_adjoint = of_adjoint
        self._slope, self._sum = "", bool(origin.sum)
        if k != NONE:
            self.what = "adjoint"
            self.adjoint, self.partial = graph.adjoint(i), graph.passed(i, 1.0)[k]
            row = graph.operation(i)
            self._slope = row.da if k == 0 or row.kind == "many" else row.db
            self._by = "abcdefgh"[k] if len(operands) <= 8 else f"x[{k}]"
        elif origin.sum:
            self.what, self.adjoint = "adjoint", graph.adjoint(i)
        elif graph.kind(i) != COMPUTED:
            self.operation = "constant" if graph.kind(i) == CONSTANT else "input"
            self.formula = graph.names.get(i, "a number")
            self.input = graph.names.get(i) if graph.kind(i) != CONSTANT else None

    row: int | None
    step: int | None

    def __str__(self) -> str:
        of = f"the derivative by {self.input}" if self.input else "the gradient"
        asked = f"{of if self._of_adjoint else 'the result'} is {self.result!r}"
        if self.row is not None:
            asked += f" in row {self.row}"
        place = where(self.filename, self.lineno)
        made = f"made {'at ' + place if place else 'by ' + self.operation}{within(self.step, None)}"
        lines = [f"{asked}: {made}"]
        if self.text:
            lines.append(f"    {self.text}")
        if self.operation in ("input", "constant"):
            lines.append(f"it was given: {self.formula} = {self.value!r}")
        else:
            shown = [f"{letter} = {x!r}" for letter, x in zip("abcdefgh", self.operands)]
            shown += [f"and {len(self.operands) - 8} more"] if len(self.operands) > 8 else []
            lines.append(f"{self.operation}: {self.formula} with {', '.join(shown)} gives {self.value!r}")
            if self.partial is not None and self.adjoint is not None:
                product = self.adjoint * self.partial
                slope = f" ({self._slope})" if self._slope else ""
                lines.append(
                    f"its slope by {self._by}{slope} is {self.partial!r}: adjoint {self.adjoint!r} * that = {product!r}"
                )
        if self._sum:
            lines.append(f"what is passed to it is finite, the sum is {self.adjoint!r}")
        if len(self.way) > 1:
            texts = [where(*place) for place in self.way]
            lines.append("from there: " + " → ".join(texts[:4] + ["…"] * (len(texts) > 8) + texts[4:][-4:]))
        if self.more:
            lines.append(f"and {self.more} more {'origins' if self.more > 1 else 'origin'}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<diagnosis: {self.what}, {self.operation} at {where(self.filename, self.lineno) or 'an unknown line'}>"


class NonFinite(FloatingPointError):
    """A result or a gradient is not finite: raised within `debug`, with the attributes of a `Diagnosis`.

    >>> try:
    ...     with debug():
    ...         grad(lambda x: x.sqrt())(0.0)
    ... except NonFinite as error:
    ...     print(error.operation, error.adjoint, error.partial)
    sqrt 1.0 inf
    """

    __module__ = "tapegrad"

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(str(diagnosis))
        self.diagnosis = diagnosis

    def __getattr__(self, name: str) -> Any:
        if name == "diagnosis" or name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.diagnosis, name)

    def __reduce__(self) -> tuple[object, ...]:
        return NonFinite, (self.diagnosis,)


def lines_of(graph: Graph, way: Sequence[int]) -> list[Place]:
    """Of what was computed on a way, each once."""
    places = map(graph.place, graph.apart(way))
    return list(dict.fromkeys(place for place in places if place.line))


def is_bad(x: float, inf: bool) -> bool:
    return not math.isfinite(x) if inf else math.isnan(x)


def of_graph(graph: Graph, by: Sequence[int], inf: bool, swept: bool = False) -> Diagnosis | None:
    """The first cause of a bad result, or, where results are good, of a bad adjoint at one of these nodes.

    Args:
        graph: what to look at.
        by: nodes.
        inf: whether infinities are bad.
        swept: its adjoints are there.
    """
    for root in graph.roots:
        if is_bad(graph.value(root), inf):
            return Diagnosis(graph, *of_value(graph, root, inf), graph.value(root), None, False)
    if not swept:
        graph.sweep()
    bad = next((i for i in by if is_bad(graph.adjoint(i), inf)), None)
    if bad is None:
        return None
    origin, way = of_adjoint(graph, by, inf)
    if not origin.count:  # beyond a Python rule: the node itself is all that is known
        origin.node, origin.operand, origin.count, origin.sum = bad, NONE, 1, 1
    return Diagnosis(graph, origin, way, graph.adjoint(bad), graph.names.get(bad), True)


def _asked(graph: Graph, inf: bool) -> tuple[int, CData, CData]:
    return 0 if inf else lib.TG_LOOK_NAN, ffi.new("tg_origin *"), ffi.new("uint32_t[]", min(graph.n, MOST_WAY) or 1)


def of_value(graph: Graph, root: int, inf: bool) -> tuple[CData, list[int]]:
    """Where the bad value of a node was made, and the nodes from there to it."""
    how, origin, way = _asked(graph, inf)
    if lib.tg_graph_bad_value(graph.core, root, how, origin, way, len(way)):
        raise MemoryError
    return origin, list(way[0 : origin.n_way])


def of_adjoint(graph: Graph, by: Sequence[int], inf: bool) -> tuple[CData, list[int]]:
    """Likewise of bad adjoints among those of some nodes."""
    how, origin, way = _asked(graph, inf)
    if lib.tg_graph_bad_adjoint(graph.core, ffi.new("uint32_t[]", list(by)), len(by), how, origin, way, len(way)):
        raise MemoryError
    return origin, list(way[0 : origin.n_way])


def of_program(recorded: Recorded, flat: array[float], inf: bool) -> Diagnosis | None:
    """Of a program at these inputs."""
    graph = Graph.of_program(recorded, flat)
    if not any(is_bad(graph.value(i), inf) for i in graph.roots) and recorded.out is not NUMBER:
        for k in range(len(graph.roots)):  # one output after the other, for their sum may hide it
            graph.sweep(units(1, len(graph.roots), k))
            found = of_graph(graph.name_inputs(recorded), graph.given, inf, swept=True)
            if found is not None:
                return found
        return None
    return of_graph(graph.name_inputs(recorded), graph.given, inf)


def _quiet(rows: Rows) -> Rows:
    recorded = copy.copy(rows.recorded)
    recorded.on_error = "nan"
    return Rows(recorded, rows.axes, rows.reduce, rows.threads)


def _bad(rows: Rows, args: Sequence[Nest], argnums: Any, inf: bool) -> set[int]:
    swept = rows.sweep(args, argnums)
    found: set[int] = set()
    for numbers in [swept.out, *(flat for flats in swept.grads for flat in flats)]:
        width = len(numbers) // swept.rows if swept.rows else 1
        found.update(k // width for k, x in enumerate(numbers) if is_bad(x, inf))
    return found


def _all_bad(rows: Rows, args: Sequence[Nest], inf: bool) -> list[int]:
    """Rows whose result or derivatives by any argument or param are bad, in order."""
    recorded = rows.recorded
    by: tuple[int, ...] = ()
    if recorded.out is NUMBER:
        by = tuple(k for k, form in enumerate(recorded.forms) if type(form) is not Static)
    found = _bad(rows, args, by, inf)
    if recorded.out is NUMBER and recorded.params:
        found |= _bad(rows, args, "params", inf)
    return sorted(found)


def of_rows(
    rows: Rows, args: Sequence[Nest], inf: bool,
    of_row: Callable[[Recorded, array[float], bool], Diagnosis | None] = of_program, tells: bool = True,
    quiet: Callable[[Rows], Rows] = _quiet,
) -> Diagnosis | None:  # fmt: skip
    """Of a batch: the first row that is bad; of_row: what makes it out; tells: a sweep over all rows tells which may
    be, else each is looked at; quiet: the same rows with nan where something is refused."""
    arguments, n = rows.read(args)
    which: Sequence[int] = range(n)
    if tells:
        alone = Rows(rows.recorded, rows.axes, None, rows.threads)
        try:
            which = _all_bad(alone, args, inf)
        except REFUSALS:  # then also those where f has an except
            which = _all_bad(quiet(alone), args, inf)
    pieces = [piece for argument in arguments for piece in argument.pieces]
    for row in which:
        found = of_row(rows.recorded, one_row(pieces, row), inf)
        if found is not None:
            found.row = row
            return found
    return None
