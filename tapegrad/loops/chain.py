"""All steps of a loop as C source: a function forward over them and one back, whose body is a step in straight lines.

From step to step the state is in locals; backward its adjoints are, and those of what all steps share. Forward notes
the y of a step and what backward reads of it, so that backward computes no primal anew. The lines are those of
source.py with other names for its V and A: what is noted of a step is R, in the order that csrc/loops/cell.h says.

A step that is too long to be compiled at once, or sums many terms, has none: a call for each step is little beside it.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from .._core import ffi
from ..program import native
from ..program.replay import CData
from ..program.source import ROWS, Code, Writer, assembled

MOST = 400  # operands of a step

_TAKES = (
    "const double *, const double *, double *, double *, int64_t",
    "const double *, double *, double *, double *, const double *, int64_t, double *, int64_t",
)
_TEXT = """
#undef V
#undef ROW
#undef EACH_ROW
#define V(slot) OF(v, slot)
#define R(slot) OF(noted, slot)
#define OF(array, slot) (*(vec *)((array) + (size_t)(slot) * LANES + ROW * STEP))
#if LANES == 1
#define ROW 0
#define EACH_ROW
#else
#define ROW row
#define EACH_ROW _Pragma("GCC unroll 2") for (int row = 0; row < LANES / STEP; row++)
#endif

PART int NAME(forward0)(const double *restrict v, const double *restrict x, double *restrict noted,
                        double *restrict state, int64_t n)
{
    vec sum = {0};
    mask fail = {0};
    vec %(locals)s;
    EACH_ROW {
%(load)s
    }
    for (; n-- > 0; x += %(n_x)d * LANES, noted += %(n_noted)d * LANES)
        EACH_ROW {
%(forward)s
        }
    EACH_ROW {
%(store)s
    }
    return ANY(fail | (mask)(sum != 0.0));
}

PART void NAME(reverse0)(const double *restrict v, double *restrict noted, double *restrict adj,
                         double *restrict state, const double *restrict weight, int64_t by, double *restrict amount,
                         int64_t n)
{
    vec %(shared_locals)s;
    EACH_ROW {
%(shared_load)s
    }
    noted += (n - 1) * %(n_noted)d * LANES;
    weight += (n - 1) * by;
    for (; n-- > 0; noted -= %(n_noted)d * LANES, weight -= by)
        EACH_ROW {
%(reverse)s
        }
    EACH_ROW {
%(shared_store)s
    }
}"""
_INDENT = " " * 8
_NOTHING = "(vec){0}"
_KEPT, _LIVE = re.compile(r"\bV\((\d+)\)"), re.compile(r"\bA\((\d+)\)")
_STORED = re.compile(r"V\((\d+)\) = (\w+);")
_ABS = next(row for row in ROWS if row.name == "ABS")


class Chain(NamedTuple):
    """The C source of a loop's steps, and how many numbers it notes of each."""

    text: str
    n_noted: int


class _Step:
    """A step's program, and where the numbers of its slots are in a chain.

    Args:
        n_state, n_x: the first of its inputs; all the others are shared.
        back: the lines that sweep it.
    """

    def __init__(self, p: CData, n_state: int, n_x: int, back: Sequence[str]) -> None:
        self.back = back
        self.out = [(p.out[2 * k], p.out[2 * k + 1]) for k in range(p.n_out)]
        self.state = range(p.n_const, p.n_const + n_state)
        self.x = range(self.state.stop, self.state.stop + n_x)
        self.hoisted = range(p.n_const + p.n_in, p.n_const + p.n_in + p.n_hoisted)
        adjoints = {int(slot) for line in back for slot in _LIVE.findall(line)} | {live for _, live in self.out}
        self.adjoints = sorted(slot for slot in adjoints if slot >= p.n_const)  # that are in locals
        self.shared = [slot for slot in self.adjoints if self.x.stop <= slot < self.hoisted.stop]
        self.watched = [slot for slot in self.shared if slot in self.hoisted]  # see once.h
        read = {int(slot) for line in back for slot in _KEPT.findall(line)}
        self.n_noted = n_x + len(self.out) - n_state
        self.noted: dict[int, int] = {}  # which number of what is noted a primal is
        for slot in sorted(read):
            if slot in self.x:
                self.noted[slot] = slot - self.x.start
            elif slot in self.state or slot >= self.hoisted.stop:
                self.noted[slot] = self.n_noted
                self.n_noted += 1

    def _named(self, line: str, forward: bool) -> str:
        """A line with all primals where they are."""

        def name(found: re.Match[str]) -> str:
            slot = int(found[1])
            if forward and self.state.start <= slot < self.x.stop:
                return f"x{slot}"
            return f"R({self.noted[slot]})" if slot in self.noted else found[0]

        return _KEPT.sub(name, line)

    def forward(self, lines: Iterable[str]) -> Iterator[str]:
        made: dict[int, str] = {}
        for k, slot in enumerate((*self.state, *self.x), -len(self.state)):
            yield f"vec x{slot} = {f'state{slot}[ROW]' if k < 0 else f'OF(x, {k})'};"
            if slot in self.noted:
                yield f"R({self.noted[slot]}) = x{slot};"
        for line in lines:
            stored = _STORED.fullmatch(line)
            if not stored:
                yield self._named(line, True)
                continue
            slot = int(stored[1])
            made[slot] = stored[2]
            if slot in self.noted:
                yield f"R({self.noted[slot]}) = {stored[2]};"
        for k, (slot, _) in enumerate(self.out, -len(self.state)):
            to = f"state{self.state[k]}[ROW]" if k < 0 else f"R({len(self.x) + k})"
            yield f"{to} = {made.get(slot) or self._named(f'V({slot})', True)};"

    def reverse(self, absolute: Callable[[str], str]) -> Iterator[str]:
        for slot in self.adjoints:
            yield f"vec a{slot} = {f'adj{slot}[ROW]' if slot in self.shared else '{0}'};"
        for k, (_, live) in enumerate(self.out, -len(self.state)):
            if live in self.adjoints:
                yield f"a{live} += {f'state{self.state[k]}[ROW]' if k < 0 else f'OF(weight, {k})'};"
        for line in self.back:
            yield _LIVE.sub(r"a\1", self._named(line, False))
        for slot in self.state:
            yield f"state{slot}[ROW] = {f'a{slot}' if slot in self.adjoints else _NOTHING};"
        for k, slot in enumerate(self.x):
            yield f"R({k}) = {f'a{slot}' if slot in self.adjoints else _NOTHING};"
        for slot in self.shared:
            yield f"adj{slot}[ROW] = a{slot};"
        for slot in self.watched:
            yield f"amounts[ROW] += {absolute(f'a{slot}')};"


def _moved(local: Sequence[tuple[str, str]]) -> tuple[str, str, str]:
    """How locals are declared, loaded and stored, which are numbers of slots elsewhere."""
    return (
        ", ".join(f"{name}[LANES / STEP]" for name, _ in local),
        "\n".join(f"{_INDENT}{name}[ROW] = {slot};" for name, slot in local),
        "\n".join(f"{_INDENT}{slot} = {name}[ROW];" for name, slot in local),
    )


def write(p: CData, n_state: int, n_x: int) -> Chain | None:
    """The source of a loop whose step is this program of the core, its first inputs state and x; None: it has none."""
    if p.wide or p.n_calls or p.n_instr - p.n_hoisted > MOST:
        return None
    w = Writer(p, [range(p.n_hoisted), range(p.n_hoisted, p.n_instr)], most=MOST)
    last = len(w.chunks) - 1
    if last < 0 or w.chunks[last][0].k != p.n_hoisted or any(s.looped for s in w.chunks[last]):
        return None
    back = list(w.reverse(last))
    if any(line.startswith("for ") for line in back):
        return None
    step = _Step(p, n_state, n_x, back)
    forward = step.forward(w.forward(last))
    reverse = step.reverse(lambda a: w.expression(_ABS.name, _ABS.primal, {"a": a}))
    state = [(f"state{slot}", f"OF(state, {k})") for k, slot in enumerate(step.state)]
    shared = [(f"adj{slot}", f"OF(adj, {slot})") for slot in step.shared]
    shared += [("amounts", "OF(amount, 0)")] if step.watched else []
    parts: dict[str, Any] = {"n_noted": step.n_noted, "n_x": n_x}
    for name, lines in ("forward", forward), ("reverse", reverse):
        parts[name] = "\n".join(f"{_INDENT}    {line}" for line in lines)
    for before, local in ("", state), ("shared_", state + shared):
        parts.update(zip((f"{before}locals", f"{before}load", f"{before}store"), _moved(local)))
    return Chain(assembled([Code(_TEXT % parts, (True, True))], w, takes=_TAKES), step.n_noted)


def compiled(p: CData, n_state: int, n_x: int) -> tuple[Any, ...]:
    """A tg_chain of a step that is this program of the core, and what it points to; nothing: it has none."""
    chain = write(p, n_state, n_x)
    if chain is None:
        return ()
    loaded = native.opened(native.library(chain.text, 1))
    c = ffi.new("tg_chain *", {"n_noted": chain.n_noted})
    for table in ("forward", "reverse"):
        functions = getattr(c, table)
        for k, width in enumerate(("one", "wide")):
            functions[k] = ffi.cast("void **", native.table_in(loaded, f"{width}_{table}"))[0]
    return c, loaded
