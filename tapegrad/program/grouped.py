"""A wide program as C source: of each shape of groups a loop over its elements, which is told where operands are.

What groups of one shape have in common is all but numbers: the row, how operands are found, which get adjoints and in
which order. So there are as many functions as there are shapes, however large a program is. A loop is written once and
compiled three times: for one element, for as many beside each other as a vector has, and for an element's lanes. What
takes more than an instruction or two, sums of many terms, and what is in no group is the interpreter's, which is as
fast there or has little to do; but runs of instructions in no group are straight lines where they are long.

Where a program is small its lanes are in straight lines, whose registers keep what loops would write and read.
"""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from .._core import lib
from .replay import COMPARISONS, GUARD, QUIET, CData
from .source import ROWS, Code, Pieces, Source, Told, Writer, assembled, chunks, squared, straight
from .sums import BEFORE, Sum, long_sum

SMALL = 1_000  # instructions of a program whose lanes are in straight lines
LONG = 64  # instructions in no group that are worth a chunk
SHAPES = 64  # at most: those of most instructions
SLICE = 1 << 16  # instructions of the interpreter's at a time, so that signals are heard

_HOW = {lib.TG_SAME: "SAME", lib.TG_SIDE_BY_SIDE: "SIDE_BY_SIDE", lib.TG_LISTED: "LISTED"}

_BEFORE = """
#define LISTED_SLOT(k) (list[k] & 0x7fffffffu)
#define LISTED_RUN(k) (list[k] & 0x80000000u)   /* a vector from this slot on is side by side */

/* Operands of element k, in arrays of slots; what is added to adjoints; and one after the other, from the last on. */
#define AT_ONCE 1
#define SAME(x, at) (*(vec *)((x) + (size_t)(at) * LANES + row))
#define SIDE_BY_SIDE(x, at) SAME(x, (at) + k)
#define LISTED(x, at) SAME(x, LISTED_SLOT((at) + k))
#define ADD_SAME(at, t) SAME(adj, at) += t
#define ADD_SIDE_BY_SIDE(at, t) SIDE_BY_SIDE(adj, at) += t
#define ADD_LISTED(at, t) LISTED(adj, at) += t
#define FROM_THE_LAST
#define ONE_SAME(at, t) ADD_SAME(at, t)
#define ONE_SIDE_BY_SIDE(at, t) ADD_SIDE_BY_SIDE(at, t)
#define ONE_LISTED(at, t) ADD_LISTED(at, t)
#define TAKES const uint32_t *told, const uint32_t *list
"""
_MORE = """\
#undef LANES
#undef NAME
#undef AT_ONCE
#undef SAME
#undef SIDE_BY_SIDE
#undef LISTED
#undef ADD_SAME
#undef ADD_SIDE_BY_SIDE
#undef ADD_LISTED
#undef FROM_THE_LAST
#undef ONE_SAME
#undef ONE_SIDE_BY_SIDE
#undef ONE_LISTED

typedef double loose __attribute__((vector_size(8 * SIDE), may_alias, aligned(8)));

static inline wide gathered(const double *x, const uint32_t *list)
{
    if (LISTED_RUN(0))
        return *(const loose *)(x + LISTED_SLOT(0));
#define X(k) x[LISTED_SLOT(k)]
#if SIDE == 8
    return (wide){X(0), X(1), X(2), X(3), X(4), X(5), X(6), X(7)};
#elif SIDE == 4
    return (wide){X(0), X(1), X(2), X(3)};
#else
    return (wide){X(0), X(1)};
#endif
}

static inline void add_same(double *to, wide x)
{
    double sum = *to;
    for (int l = SIDE; l-- > 0;)
        sum += x[l];
    *to = sum;
}

static inline void add_listed(double *adj, const uint32_t *list, wide x)
{
    if (LISTED_RUN(0))
        *(loose *)(adj + LISTED_SLOT(0)) += x;
    else
        for (int l = SIDE; l-- > 0;)
            adj[LISTED_SLOT(l)] += x[l];
}

static inline int any(const double *x, uint32_t n)
{
    uint64_t bits = 0;
    for (uint32_t k = 0; k < n; k++) {
        union { double x; uint64_t bits; } number = {x[k]};
        bits |= number.bits;
    }
    return bits != 0;
}

#define LANES 1
#define BESIDE
#define NAME(x) beside_##x
#define AT_ONCE SIDE
#define SAME(x, at) ((x)[at] - (vec){0})
#define SIDE_BY_SIDE(x, at) (*(loose *)((x) + (at) + k))
#define LISTED(x, at) gathered(x, list + (at) + k)
#define ADD_SAME(at, t) add_same(adj + (at), t)
#define ADD_SIDE_BY_SIDE(at, t) SIDE_BY_SIDE(adj, at) += t
#define ADD_LISTED(at, t) add_listed(adj, list + (at) + k, t)
#define FROM_THE_LAST for (uint32_t l = SIDE; l-- > 0;)
#define ONE_SAME(at, t) adj[at] += t[l]
#define ONE_SIDE_BY_SIDE(at, t) adj[(at) + k + l] += t[l]
#define ONE_LISTED(at, t) adj[LISTED_SLOT((at) + k + l)] += t[l]
#include __FILE__

#define BLOCK 64
#define FORWARD(f) \\
PART int one_forward##f(double *v, TAKES) \\
{ \\
    const uint32_t n = told[0], most = n - n % SIDE; \\
    const int failed = beside_group##f(v, told, list, 0, most); \\
    return one_group##f(v, told, list, most, n) | failed; \\
}
#define REVERSE(f, results) \\
PART void one_reverse##f(const double *v, double *adj, TAKES) \\
{ \\
    const uint32_t n = told[0], most = n - n % SIDE; \\
    one_back##f(v, adj, told, list, most, n); \\
    for (uint32_t to = most, from; to > 0; to = from) { \\
        from = (to - 1) / BLOCK * BLOCK; \\
        if (any(adj + told[results] + from, to - from)) \\
            beside_back##f(v, adj, told, list, from, to); \\
    } \\
}
#define FORWARD_WIDE(f) \\
PART int wide_forward##f(double *v, TAKES) { return wide_group##f(v, told, list, 0, told[0]); }
#define REVERSE_WIDE(f) \\
PART void wide_reverse##f(const double *v, double *adj, TAKES) { wide_back##f(v, adj, told, list, 0, told[0]); }
#define NOTHING(f) PART void f(const double *v, double *adj, TAKES) { }
"""
_GROUP = """
static int NAME(group%d)(double *v, TAKES, uint32_t from, uint32_t to)
{
    %s
    vec sum = {0};
    mask fail = {0};
    for (uint32_t k = from; k < to; k += AT_ONCE)
        for (int row = 0; row < LANES; row += STEP) {
            %s
        }
    return ANY(fail | (mask)(sum != 0.0));
}"""
_BACK = """
static void NAME(back%d)(const double *v, double *adj, TAKES, uint32_t from, uint32_t to)
{
    %s
    for (uint32_t k = to; k > from;) {
        k -= AT_ONCE;
        for (int row = 0; row < LANES; row += STEP) {
            %s
        }
    }
}"""


class _Place(NamedTuple):
    """How an operand is found, and which of the numbers that are told says where."""

    how: str
    at: int

    def read(self, array: str) -> str:
        return f"{self.how}({array}, t{self.at})"

    def add(self, kind: str, text: str) -> str:
        return f"{kind}_{self.how}(t{self.at}, {text});"


class _Shape:
    """What a function is written for.

    Args:
        alone: values alone are wanted, in live slots.
    """

    def __init__(self, p: CData, g: CData, alone: bool) -> None:
        numbers: dict[tuple[int, int, int], int] = {}  # numbering, how and where: which of those told

        def place(numbering: int, how: int, at: int) -> _Place:
            return _Place(_HOW[how], numbers.setdefault((numbering, how, at), 1 + len(numbers)))

        def places(numbering: int) -> list[_Place]:
            """Of the operands and the result."""
            at = [place(numbering, g.operand[m][numbering].how, g.operand[m][numbering].at) for m in range(count)]
            return [*at, place(numbering, lib.TG_SIDE_BY_SIDE, g.y[numbering])]

        self.guard, self.terms, self.moves, self.apart = g.op == GUARD, g.terms, g.moves, bool(g.apart)
        self.row = ROWS[0 if self.guard else g.op & ~QUIET]
        self.asked = g.y[lib.TG_KEPT] if self.guard else 0
        self.refused = not g.op & QUIET and self.row.refusal != "NEVER"
        self.squares = not self.guard and _squares(p, g)
        count = g.terms or (1 if self.squares or (self.row.kind == "unary" and not self.guard) else 2)
        *self.of, self.y = places(lib.TG_LIVE if alone else lib.TG_KEPT)
        self.forward_key = (g.op, self.asked, self.terms, self.squares, self.y, *self.of)
        self.key: tuple[Any, ...] = self.forward_key
        self.into: list[_Place] = []
        if not alone:
            *self.into, self.live_y = places(lib.TG_LIVE)
            self.key += (self.moves, self.apart, self.live_y, *self.into)
        self.count = g.n
        self.told = [g.n, *(at for _, _, at in numbers)]

    def text(self, name: str, text: str) -> tuple[str, str]:
        return squared(name, text) if self.squares else (name, text)

    def forward(self, w: Writer) -> Iterator[str]:
        names = [f"x{m}" for m in range(len(self.of))]
        for name, at in zip(names, self.of):
            yield f"const vec {name} = {at.read('v')};"
        if self.guard:
            sign, outcome = COMPARISONS[self.asked >> 1], "==" if self.asked & 1 else "!="
            yield f"fail |= (mask)(x0 {sign} x1) {outcome} 0;"
            return
        if self.row.name == "WHERE":
            yield "const vec y = CHOSEN(x0 != 0.0, x1, x2);"
        elif self.row.name == "DOT":
            yield f"vec y = {names[-1] if self.terms % 2 else '{0}'};"
            yield from (f"y += {x} * {z};" for x, z in zip(names[: self.terms - 1 : 2], names[1::2]))
        elif self.row.name == "SUM":
            yield "vec y = {0};"
            yield from (f"y += {x};" for x in names)
        else:
            values = {"a": names[0], "b": names[-1]}
            yield f"const vec y = {w.expression(*self.text(self.row.name, self.row.primal), values)};"
        if self.refused:
            yield "sum += y - y;"
        yield f"{self.y.read('v')} = y;"

    def _passed_on(self, w: Writer) -> Iterator[tuple[int, str]]:
        """To which operands something is passed on, and what, in the order of one instruction."""
        x = [at.read("v") for at in self.of]
        if self.row.name == "WHERE":
            yield 1, f"CHOSEN({x[0]} != 0.0, g, (vec){{0}})"
            yield 2, f"CHOSEN({x[0]} != 0.0, (vec){{0}}, g)"
        elif self.row.name == "DOT":
            if self.terms % 2:
                yield self.terms - 1, "g"
            yield from ((m, f"WEIGHED(g, {x[m ^ 1]})") for m in range(self.terms // 2 * 2))
        elif self.row.name == "SUM":
            yield from ((m, "g") for m in range(self.terms))
        else:
            values = {"a": x[0], "b": x[-1], "y": self.y.read("v")}
            yield from ((m, text.replace("%g", "g")) for m, text in w.passed(self.row, self.text, values))

    def reverse(self, w: Writer) -> Iterator[str]:
        """Adjoints are added operand by operand where that shows nowhere, else as csrc/wide/groups.c does."""
        result = self.live_y.read("adj")
        passed = [(m, text) for m, text in self._passed_on(w) if self.moves >> m & 1]
        adds = [(self.into[m], text if text == "g" else f"g{m}") for m, text in passed]
        if adds:
            yield f"const vec g = {result};"
        yield from (f"const vec g{m} = {text};" for m, text in passed if text != "g")
        yield f"{result} = (vec){{0}};"
        beside = all(at.how == "SIDE_BY_SIDE" for at, _ in adds)
        if self.apart or len(adds) < 2 or (beside and not self.terms):
            yield from (at.add("ADD", text) for at, text in (adds if self.apart else reversed(adds)))
        else:
            yield f"FROM_THE_LAST {{ {' '.join(at.add('ONE', text) for at, text in adds)} }}"

    def code(self, f: int, w: Writer, lanes: bool) -> tuple[Code, str]:
        """Function f, and what of it comes after its loops; lanes: whether several lanes have it."""

        def filled(template: str, lines: Iterator[str]) -> str:
            body = ("\n" + 12 * " ").join(lines)
            told = ", ".join(f"t{k} = told[{k}]" for k in sorted({int(k) for k in re.findall(r"\bt(\d+)\b", body)}))
            return template % (f, f"const uint32_t {told};", body)

        text = filled(_GROUP, self.forward(w))
        more = f"FORWARD({f})\n" + (f"FORWARD_WIDE({f})\n" if lanes else "")
        if self.guard or not self.into:
            more += f"NOTHING(one_reverse{f})\n" + (f"NOTHING(wide_reverse{f})\n" if lanes else "")
        else:
            text += "\n" + filled(_BACK, self.reverse(w))
            more += f"REVERSE({f}, {self.live_y.at})\n" + (f"REVERSE_WIDE({f})\n" if lanes else "")
        return Code(text, (True, lanes)), f"#if HAS({f})\n{more}#endif\n"


def _squares(p: CData, g: CData) -> bool:
    b = g.operand[1][lib.TG_KEPT]
    return (
        ROWS[g.op & ~QUIET].name in ("POW", "POWK")
        and b.how == lib.TG_SAME
        and bool(b.at < p.n_const and p.constant[b.at] == 2.0)
    )


def _has_loop(p: CData, g: CData) -> bool:
    """Whether a loop is worth it for a group."""
    if g.chain:
        return False
    if g.terms:
        return not g.n_stretches and g.terms <= lib.TG_FEW_TERMS and ROWS[g.op].name in ("DOT", "SUM", "WHERE")
    return bool(g.op == GUARD or lib.tg_is_short(g.op)) or _squares(p, g)


class _Plan:
    """What is done how, in order: groups in loops, long sums, long runs of other instructions in chunks, and by the
    interpreter. For values alone there are no chunks, which are for kept slots."""

    def __init__(self, p: CData, alone: bool) -> None:
        self.p, self.n, self.alone = p, p.n_instr, alone
        self.loops: dict[int, _Shape | Sum] = {}  # by the first instruction
        self.runs: list[range] = []
        width: Counter[Any] = Counter()
        done = 0
        for k in range(p.wide.n + 1):
            g = p.wide.group[k] if k < p.wide.n else None
            first = g.first if g else self.n
            self._between(done, first)
            if g and _has_loop(p, g):
                self.loops[first] = shape = _Shape(p, g, alone)
                width[shape.key] += g.n
            done = first + g.n if g else first
        widest = {key for key, _ in width.most_common(SHAPES)}
        self.shapes: dict[Any, _Shape | Sum] = {}  # by key: one that has it
        for s in self.loops.values():
            if isinstance(s, Sum) or s.key in widest:
                self.shapes.setdefault(s.key, s)

    def _between(self, start: int, stop: int) -> None:
        """Instructions in no group."""
        for k in range(start, stop):
            found = long_sum(self.p, k, self.alone)
            if found:
                self.loops[k] = found
            if found or k == stop - 1:
                end = k if found else stop
                if end - start >= LONG and not self.alone:
                    self.runs.append(range(start, end))
                start = k + 1

    def pieces(self, w: Writer, function: dict[Any, int]) -> Pieces:
        """With the chunks of a writer, and of each shape which function is for it."""
        native: list[tuple[int, int, int, Told]] = [(chunk[0].k, len(chunk), k, ()) for k, chunk in enumerate(w.chunks)]
        native += [(first, s.count, function[s.key], s.told) for first, s in self.loops.items() if s.key in function]
        pieces: Pieces = []
        done = 0
        for first, count, f, told in sorted(native):
            pieces += [(start, None, ()) for start in range(done, first, SLICE)]
            pieces.append((first, f, told))
            done = first + count
        return pieces + [(start, None, ()) for start in range(done, self.n, SLICE)]


def write(p: CData) -> Source:
    """The source of a program of the core."""
    if not p.wide or not p.wide.n:
        return straight(p)
    plan, values, small, outside = _Plan(p, False), _Plan(p, True), p.n_instr <= SMALL, " && !defined BESIDE"
    w = Writer(p, plan.runs, careful=True)
    codes = list(chunks(w, 0, (True, not small), outside))
    lanes = Writer(p, [range(p.n_instr)] if small else [], beside=w)
    codes += chunks(lanes, len(codes), (False, True), outside)
    in_lanes: Pieces = [(chunk[0].k, len(w.chunks) + k, ()) for k, chunk in enumerate(lanes.chunks)]
    function: dict[Any, int] = {}
    after = _MORE
    for key, shape in [*plan.shapes.items(), *values.shapes.items()]:
        if key not in function:
            function[key] = len(codes)
            function.setdefault(shape.forward_key, len(codes))
            code, more = shape.code(len(codes), w, not small)
            codes.append(code)
            after += more
    pieces, alone = plan.pieces(w, function), values.pieces(Writer(p, []), function)
    return Source(
        assembled(codes, w, _BEFORE + BEFORE, after), len(codes),
        (pieces, in_lanes if small else pieces), (alone, [] if small else alone),
    )  # fmt: skip
