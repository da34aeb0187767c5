"""What is looked at: the cone of some Values, or a program at a point, as a graph of plain arrays in C."""
from __future__ import annotations

import bisect
from array import array
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from .._core import ffi, lib
from .._operation import Operation
from ..program import point
from ..program.recorded import Recorded
from ..program.replay import NOWHERE, Trace, place_in
from ..tape import tape
from ..value import Value, handle

CData = Any
CONSTANT, GIVEN, COMPUTED, COMPARED = lib.TG_CONSTANT, lib.TG_GIVEN, lib.TG_COMPUTED, lib.TG_COMPARED
RULED = lib.TG_GRAPH_RULED
NONE = lib.TG_NONE
MOST_WRITTEN_OUT = 1 << 26  # nodes of a program with all steps of its loops: some 3 GB
_LEAF = Operation("", "", "leaf", (), "", "", "", "", "", "", "", "", "")
_NODE = _LEAF._replace(method="node", symbol="node", doc="made by hand")
_GUARD = _LEAF._replace(method="guard", symbol="guard", doc="a comparison that has to come out as recorded")
_ROWS: tuple[Operation, ...] = (_LEAF, _NODE, *tape.operations, _GUARD)


class Place(NamedTuple):
    """A line of a source file."""

    file: str
    line: int


class Notes:
    """Where nodes of the tape were recorded, as far as somebody noted it: from each id on, a place."""

    def __init__(self) -> None:
        self.ids = array("I")
        self.places: list[tuple[str, int]] = []

    def note(self, at: int, place: tuple[str, int]) -> None:
        """From node `at` on, nodes come from there; what was noted of it and later ones is gone."""
        while self.ids and self.ids[-1] >= at:
            self.ids.pop()
            self.places.pop()
        self.ids.append(at)
        self.places.append(place)

    def clear(self) -> None:
        del self.ids[:], self.places[:]

    def of(self, i: int) -> tuple[str, int]:
        k = bisect.bisect_right(self.ids, i) - 1
        return self.places[k] if k >= 0 else NOWHERE


def most_nodes(paths: Sequence[Trace]) -> int:
    """Of one of these paths, the steps of its loops written out.

    Raises:
        ValueError: there are too many to look at.
    """
    most = max(p.summed(lambda core: int(core.n_instr + core.n_const)) for p in paths)
    if most > MOST_WRITTEN_OUT and any(p.calls for p in paths):
        raise ValueError(f"with the steps of its loops written out it has up to {most:,} nodes: too many to look at")
    return most


class Codes:
    """What the lines of several paths are of, those of the steps of their loops as well, in one list.

    Attributes:
        all: files and names, from 1 on.
        core: a tg_codes of each path.
    """

    def __init__(self, paths: Sequence[Trace]) -> None:
        self._numbers: dict[tuple[str, str], int] = {}
        self._held: list[CData] = []
        self.core = self._of(paths)
        self.all = [("", ""), *self._numbers]

    def _of(self, paths: Sequence[Trace]) -> CData:
        most, made = 1 << (32 - lib.TG_WHERE_LINE), ffi.new("tg_codes[]", len(paths))
        for to, path in zip(made, paths):
            numbers = [self._numbers.setdefault(code, len(self._numbers) + 1) for code in path.codes[1:]]
            table = ffi.new("uint32_t[]", [0, *(k if k < most else 0 for k in numbers)])
            within = ffi.new("tg_codes *[]", [self._of(call.step.paths) for call in path.calls])
            to.n, to.to, to.within = len(table), table, within
            self._held += [made, table, within]
        return made

    def place(self, where: int) -> tuple[str, int]:
        """File and line."""
        return place_in(self.all, where)


def fresh(address: int) -> CData:
    core = ffi.cast("tg_graph *", address)
    size = ffi.sizeof("tg_graph") + 38 * core.n + 4 * core.n_operands
    return ffi.gc(core, lib.tg_free_graph, size)


class Graph:
    """Nodes in order: operands before what is computed of them.

    Attributes:
        core: a tg_graph.
        names: of some leaves and Values.
        roots: the results.
        given: the nodes of the inputs, in order; of a program alone.
    """

    def __init__(self, core: CData, place: Callable[[int], tuple[str, int]]) -> None:
        self.core, self.n, self._place = core, core.n, place
        self.names: dict[int, str] = {}
        self.roots: list[int] = ffi.unpack(core.root, core.n_roots)
        self.given: list[int] = []
        self.is_program = False
        self.codes: list[tuple[str, str]] = []  # of a program: file and name of what recorded it

    @classmethod
    def of_values(cls, values: Sequence[Value], notes: Notes | None = None) -> Graph:
        core = fresh(handle.graph(values))
        graph = cls(core, lambda i: notes.of(core.id[i]) if notes is not None else NOWHERE)
        if notes is not None and notes.ids:
            numbers: dict[tuple[str, int], int] = {}
            where = array("I", (numbers.setdefault(place, len(numbers) + 1) for place in notes.places))
            ids = ffi.from_buffer("uint32_t[]", notes.ids)
            lib.tg_graph_note(core, ids, ffi.from_buffer("uint32_t[]", where), len(where))
        return graph

    @classmethod
    def of_program(cls, recorded: Recorded, flat: array[float]) -> Graph:
        """A program at its inputs, on the path that they take, with all steps of its loops.

        Raises:
            BranchChanged: f would take a branch there that is not known, and cannot be recorded.
        """
        path = point.path(recorded, flat, nan_errors=True)
        mode = lib.TG_NAN_UNCAUGHT if path.calls else 0
        return cls.of_path(path, flat, lib.TG_NAN if recorded.on_error == "nan" else mode)

    @classmethod
    def of_path(cls, path: Trace, flat: array[float], nan_errors: int, within: bool = True) -> Graph:
        """One path at its inputs, whether or not they take it; nan_errors: as a tg_cell has it; within: with all steps
        of its loops, else what these give is given."""
        codes = Codes([path])
        if within:
            most_nodes([path])
        core = lib.tg_graph_of_program(
            path.core, ffi.from_buffer("double[]", flat), nan_errors, codes.core if within else ffi.NULL
        )
        if core == ffi.NULL:
            raise MemoryError
        core = fresh(int(ffi.cast("uintptr_t", core)))
        graph = cls(core, lambda i: (codes if within else path).place(core.where[i]))
        graph.given = list(range(path.core.n_const, path.core.n_const + path.core.n_in))
        graph.is_program = True
        graph.codes = codes.all if within else path.codes
        return graph

    def name_inputs(self, recorded: Recorded) -> Graph:
        """Name the inputs by the parameters of f."""
        self.names.update(zip(self.given, input_names(recorded)))
        return self

    def name_values(self, roots: Sequence[Value]) -> None:
        """Name nodes by the labels of their Values."""
        held: dict[int, Value] = dict(zip(self.roots, roots))
        for i in range(self.n - 1, -1, -1):
            v = held.get(i)
            if v is None:
                continue
            label = v.label
            if label != "":
                self.names[i] = str(label)
            for k, operand in zip(self.operands(i), v.operands):
                held[k] = operand

    def sweep(self, seed: Sequence[float] | None = None) -> Graph:
        """Make adjoints of the sum of the roots, weighed by seed."""
        if lib.tg_graph_sweep(self.core, ffi.NULL if seed is None else ffi.new("double[]", list(seed))):
            raise MemoryError
        return self

    # ---- a node ----

    def operation(self, i: int) -> Operation:
        op: int = self.core.op[i]
        return _ROWS[op]

    def kind(self, i: int) -> int:
        return int(self.core.kind[i] & ~RULED)

    def ruled(self, i: int) -> bool:
        """Whether a Python rule stands in for its slope."""
        return bool(self.core.kind[i] & RULED)

    def operands(self, i: int) -> list[int]:
        first, end = self.core.start[i], self.core.start[i + 1]
        return list(ffi.unpack(self.core.operand + first, end - first)) if end > first else []

    def value(self, i: int) -> float:
        return float(self.core.value[i])

    def adjoint(self, i: int) -> float:
        return float(self.core.adjoint[i])

    def passed(self, i: int, g: float) -> list[float]:
        """What node i passes on to its operands when its adjoint is g: the partials where g is 1."""
        out = ffi.new("double[]", self.core.start[i + 1] - self.core.start[i] + 1)
        if lib.tg_graph_passed(self.core, i, g, out):
            raise MemoryError
        return list(out)[:-1]

    def place(self, i: int) -> Place:
        return Place(*self._place(i))

    def apart(self, way: Sequence[int]) -> Collection[int]:
        """Of what was computed on a way, the first of each place."""
        where, kind = self.core.where, self.core.kind
        found: dict[int, int] = {}
        for i in way:
            if kind[i] & ~RULED == COMPUTED:
                found.setdefault(where[i], i)
        return found.values()

    def formula(self, i: int) -> str:
        """What it computes, as text: its operands by name or number."""
        row, operands = self.operation(i), self.operands(i)
        if row.symbol in ("", "leaf"):
            return self.names.get(i, "a number")
        texts = [self.names.get(k) or (f"{self.value(k):g}" if self.kind(k) == CONSTANT else "") for k in operands]
        texts = [text or letter for text, letter in zip(texts, "abcdefgh")] + ["…"] * (len(texts) > 8)
        if row.method.startswith("__") and len(texts) == 2:
            return f"{texts[0]} {row.symbol} {texts[1]}"
        return f"{'-' if row.symbol == 'neg' else row.symbol}({', '.join(texts)})"


def input_names(recorded: Recorded) -> list[str]:
    """A name for each input: the parameter of f, with the place within it; of params their labels."""
    forms = recorded.forms
    one = "argument" if len(forms) == 1 else ""
    found = [name for k, form in enumerate(forms) for name in form.names(forms.names[k] or one or f"argument {k}")]
    return found + [str(getattr(v, "label", "") or f"params[{k}]") for k, v in enumerate(recorded.params)]
