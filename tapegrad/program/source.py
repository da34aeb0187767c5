"""A program as C source: its instructions as straight-line code in chunks, made of the texts in the rows of ops.def.

A chunk is two functions, forward over kept slots and reverse over the adjoints of live ones, each at two widths: the
file includes itself once for one lane and once for as many as the core has. It can be compiled in parts, chunks FROM to
TO - 1 each, for a linker to put together. What is wide is a vector of the compiler's:
nothing is left to its vectoriser, and compile time is linear.

Forward gives 0, or else a guard came out otherwise or a result is not finite: then the core's interpreter carries out
that block of rows, and native code need not know what is refused, nor which lanes are out. In reverse an adjoint of 0
passes nothing on, as in lanes.h; where the partial is finite, as most are when the result is, that needs no question.
Adjoints stay in locals between their first and their last use in a chunk; in memory those that nobody waits for are 0.
"""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import groupby

from .._core import ffi, lib
from .replay import COMPARISONS, GUARD, QUIET, REFUSES, CData

CHUNK = 120  # operands; more take gcc longer for each, fewer keep less in registers
UNROLLED = 64  # operands; an instruction that has more becomes a loop over a table

_HEAD = """\
/* Written by tapegrad. v: primals of kept slots, adj: adjoints of live slots; slot s is the LANES doubles from
   s * LANES on. Constants come first in v, then inputs. To be compiled with -ffp-contract=off. */
#ifndef LANES
#ifdef FROM
#define PART __attribute__((visibility("hidden")))
#else
#define PART static
#define FROM 0
#define TO %(chunks)d
#endif
#define HAS(chunk) (FROM <= (chunk) && (chunk) < TO)
#include <stddef.h>
#include <stdint.h>
#pragma GCC diagnostic ignored "-Wunused-function"

%(scalar)s
#if defined(__AVX512F__)
#define SIDE 8
#elif defined(__AVX__)
#define SIDE 4
#else
#define SIDE 2
#endif
typedef double wide __attribute__((vector_size(8 * SIDE), may_alias));
typedef long long wide_mask __attribute__((vector_size(8 * SIDE), may_alias));

static inline int wide_any(wide_mask m)
{
    long long any = 0;
    for (int l = 0; l < SIDE; l++)
        any |= m[l];
    return any != 0;
}
%(tables)s
#define V(slot) (*(vec *)(v + (size_t)(slot) * LANES))
#define A(slot) (*(vec *)(adj + (size_t)(slot) * LANES))
#define EACH for (int l = 0; l < STEP; l++)
#define FSUM_ADD(s, c, d, x) { \\
        vec t = s + (x), z = t - s, e = (s - (t - z)) + ((x) - z), u = c + e; \\
        z = u - c; d += (c - (u - z)) + (e - z); s = t; c = u; }
#define FSUM_TOTAL(y, s, c, d) { \\
        vec t = s + c, z = t - s; \\
        y = CHOSEN(s - s == 0.0, t + (((s - (t - z)) + (c - z)) + d), s); }

#define LANES 1
#define STEP 1
#define NAME(x) one_##x
#define vec double
#define mask long long
#define ANY(m) ((m) != 0)
#define WEIGHED(g, partial) ((g) == 0.0 ? 0.0 : (g) * (partial))
#define CHOSEN(m, a, b) ((m) ? (a) : (b))
#include __FILE__
#undef LANES
#undef STEP
#undef NAME
#undef vec
#undef mask
#undef ANY
#undef WEIGHED
#undef CHOSEN
#define LANES %(lanes)d
#define STEP SIDE
#define NAME(x) wide_##x
#define vec wide
#define mask wide_mask
#define ANY(m) wide_any(m)
#define WEIGHED(g, partial) ((vec)((mask)((g) * (partial)) & (mask)((g) != 0.0)))
#define CHOSEN(m, a, b) ((vec)(((mask)(a) & (m)) | ((mask)(b) & ~(m))))
#include __FILE__
#else
"""

_INDENT = " " * 8
_FORWARD = """
PART int NAME(forward%d)(double *restrict v)
{
    vec sum = {0};
    mask fail = {0};
    for (int row = 0; row < LANES; row += STEP, v += STEP) {"""
_FORWARD_END = """\
    }
    return ANY(fail | (mask)(sum != 0.0));
}"""
_REVERSE = """
PART void NAME(reverse%d)(const double *restrict v, double *restrict adj)
{
    for (int row = 0; row < LANES; row += STEP, v += STEP, adj += STEP) {"""
_REVERSE_END = """\
    }
}"""

_PLAIN = {"1.0", "-1.0", "a", "b", "y"}  # partials that are finite where y is
_SMOOTH = {"MAX", "MIN", "ABS", "TANH", "RELU", "SIGMOID", "SOFTPLUS", "SIN", "COS"}  # rows all of whose partials are
_LINEAR = {"ADD", "SUB", "MUL", "NEG", "DOT", "SUM"}  # rows whose result is not finite where an operand is not
_CHECKED = {*_SMOOTH, "DOT", "LOGSUMEXP"}  # besides rows that refuse results, and those with a, b or y for a partial
_REFUSALS = {  # whether the primal that is put in is refused
    "MATH": "tg_refuses_math(a, %s)", "POLE": "tg_refuses_math(a, %s)", "POWER": "tg_refuses_power(a, b, %s)",
    "PAIR": "tg_refuses_pair(a, b, %s)", "DIVIDE": "(double)(b == 0.0 && !isfinite(%s))",
}  # fmt: skip
_OPERAND = re.compile(r"\b[aby]\b")


class _Row:
    """A row of the table, as far as generated code asks for it."""

    def __init__(self, row: CData) -> None:
        def text(name: str) -> str:
            return ffi.string(getattr(row, name)).decode()  # type: ignore[no-any-return]

        self.name, self.kind, self.primal, self.refusal = text("name"), text("kind"), text("primal"), text("refusal")
        self.partials = [part for part in (text("da"), text("db")) if part]
        self.checked = (
            self.refusal != "NEVER" or self.name in _CHECKED or not {"a", "b", "y"}.isdisjoint(self.partials)
        )


_ROWS = [_Row(lib.tg_ops[op]) for op in range(lib.tg_op_count)]


class _Instruction:
    """An instruction with its operands: pairs of a kept and a live slot."""

    def __init__(self, p: CData, k: int) -> None:
        s = p.instr[k]
        self.k, self.guard, self.y, self.live_y = k, s.op == GUARD, s.y, s.live_y
        self.row = _ROWS[0] if self.guard else _ROWS[s.op & ~QUIET]
        if self.row.kind == "many":
            pairs = ffi.unpack(p.pool + 2 * s.a, 2 * s.b)
            self.operands = list(zip(pairs[::2], pairs[1::2]))
        else:
            self.operands = [(s.a, s.live_a), (s.b, s.live_b)][: 1 if self.row.kind == "unary" else 2]
        self.as_loop = len(self.operands) > UNROLLED
        self.checked = self.row.checked and not self.guard
        self.stored = False


class _Writer:
    """What is written for one program, chunk after chunk: forward from the first on, reverse from the last."""

    def __init__(self, p: CData) -> None:
        self.p = p
        self.instructions = [_Instruction(p, k) for k in range(p.n_instr)]
        self.first, operands = [0], 0
        for s in self.instructions:
            weight = 1 if s.as_loop else len(s.operands)
            if operands and operands + weight > CHUNK:
                self.first.append(s.k)
                operands = 0
            operands += weight
        self.first.append(p.n_instr)
        self.helpers: dict[str, str] = {}
        self.tables: list[str] = []
        self._survey()
        self._pending = {p.out[2 * k + 1] for k in range(p.n_out)}  # live slots whose adjoint may not be 0
        self._pending.update(range(p.n_const, p.n_const + p.n_in))

    def _survey(self) -> None:
        """Find out which results have to be in memory, and of which to ask whether they are finite."""
        maker: dict[int, _Instruction] = {}
        chunk_of = [c for c, (start, stop) in enumerate(zip(self.first, self.first[1:])) for _ in range(start, stop)]
        for s in self.instructions:
            for slot, _ in s.operands:
                made = maker.get(slot)
                if made is not None:
                    made.stored |= s.as_loop or chunk_of[made.k] != chunk_of[s.k]
                    if made.checked and s.row.name in _LINEAR:  # it shows there, too
                        made.checked, s.checked = False, True
            if not s.guard:
                maker[s.y] = s
        for made in maker.values():  # the last in its slot: outputs, and what partials name
            made.stored = True

    def chunk(self, k: int) -> list[_Instruction]:
        return self.instructions[self.first[k] : self.first[k + 1]]

    def expression(self, name: str, text: str, operands: dict[str, str]) -> str:
        """A text of the table with a, b and y put in, by way of a helper where it is more than arithmetic: a comparison
        of vectors is a mask."""
        if not re.search(r"\w\(|[?<=>]|!=", text):
            filled = _OPERAND.sub(lambda m: operands[m[0]], text)
            return filled if filled in operands.values() else f"({filled})"
        names = sorted(set(_OPERAND.findall(text)))
        if name not in self.helpers:
            takes = ", ".join(f"vec {x}s" for x in names)
            reads = "".join(f"        double {x} = ((const double *)&{x}s)[l];\n" for x in names)
            self.helpers[name] = (
                f"\nstatic vec NAME({name})({takes})\n{{\n    vec result = {{0}};\n    EACH {{\n{reads}"
                f"        ((double *)&result)[l] = {text};\n    }}\n    return result;\n}}\n"
            )
        return f"NAME({name})({', '.join(operands[x] for x in names)})"

    def _loop(self, table: list[int], step: int, body: str) -> str:
        """body for i from entry to entry of a table, step numbers each."""
        name = f"table{len(self.tables)}"
        self.tables.append(f"static const uint32_t {name}[] = {{{', '.join(map(str, table))}}};\n")
        return f"for (const uint32_t *i = {name}; i < {name} + {len(table)}; i += {step}) {body}"

    def forward(self, k: int) -> Iterator[str]:
        local: dict[int, str] = {}
        for s in self.chunk(k):
            names = [local.get(slot, f"V({slot})") for slot, _ in s.operands]
            if s.guard:
                yield self._guard(self.p.instr[s.k].y, dict(zip("ab", names)))
                continue
            y = local[s.y] = f"y{s.k}"
            if s.row.kind == "many":
                yield from self._sum(s, y, names)
            else:
                yield f"vec {y} = {self.expression(s.row.name, s.row.primal, dict(zip('ab', names)))};"
            if s.checked:
                yield f"sum += {y} - {y};"
            if s.stored:
                yield f"V({s.y}) = {y};"

    def _guard(self, asked: int, operands: dict[str, str]) -> str:
        how, outcome = asked >> 1, asked & 1
        if how < REFUSES:
            answer = f"{operands['a']} {COMPARISONS[how]} {operands['b']}"
        else:
            row = _ROWS[how - REFUSES]
            answer = f"{self.expression(f'{row.name}_refuses', _REFUSALS[row.refusal] % row.primal, operands)} != 0.0"
        return f"fail |= (mask)({answer}) {'==' if outcome else '!='} 0;"

    def _sum(self, s: _Instruction, y: str, names: list[str]) -> Iterator[str]:
        """A row of many operands, whose steps are those of lanes.h."""
        kept = [slot for slot, _ in s.operands]
        if s.row.name == "LOGSUMEXP":  # an infinite top makes it nan
            top, total = f"top{s.k}", f"total{s.k}"
            yield f"vec {top} = {names[0]}, {total} = {{0}};"
            for text in (
                f"{top} = {self.expression('MAX', 'tg_max(a, b)', {'a': top, 'b': '%s'})};",
                f"{total} += {self.expression('EXP', 'exp(a)', {'a': f'%s - {top}'})};",
            ):
                yield from [self._loop(kept, 1, text % "V(*i)")] if s.as_loop else (text % x for x in names)
            yield f"vec {y} = {top} + {self.expression('LOG', 'log(a)', {'a': total})};"
        elif s.row.name == "FSUM":
            yield f"vec {y}, sum{s.k} = {{0}}, c{s.k} = {{0}}, d{s.k} = {{0}};"
            text = f"FSUM_ADD(sum{s.k}, c{s.k}, d{s.k}, %s)"
            yield from [self._loop(kept, 1, text % "V(*i)")] if s.as_loop else (text % x for x in names)
            yield f"FSUM_TOTAL({y}, sum{s.k}, c{s.k}, d{s.k});"
        elif s.row.name == "TOP":
            top = f"top{s.k}"
            yield f"vec {top} = {names[0]};"
            text = f"{top} = {self.expression('MAX', 'tg_max(a, b)', {'a': top, 'b': '%s'})};"
            yield from [self._loop(kept[1:], 1, text % "V(*i)")] if s.as_loop else (text % x for x in names[1:])
            yield f"vec {y} = {self.expression('TOP', 'isfinite(a) ? a : 0.0', {'a': top})};"
        elif s.row.name == "WHERE":
            yield f"vec {y} = CHOSEN({names[0]} != 0.0, {names[1]}, {names[2]});"
        elif s.row.name == "DOT":
            n = len(kept) - len(kept) % 2
            yield f"vec {y} = {names[-1] if n < len(kept) else '{0}'};"
            if s.as_loop:
                yield self._loop(kept[:n], 2, f"{y} += V(i[0]) * V(i[1]);")
            else:
                yield from (f"{y} += {x} * {w};" for x, w in zip(names[:n:2], names[1:n:2]))
        else:
            yield f"vec {y} = {{0}};"
            yield from [self._loop(kept, 1, f"{y} += V(*i);")] if s.as_loop else (f"{y} += {x};" for x in names)

    def _passed_on(self, s: _Instruction) -> Iterator[tuple[int, str, int]]:
        """What an instruction adds to which adjoints, in the order of lanes.h: the slot; a term with %g for its own
        adjoint; and the slot of the primal that %s in the term stands for."""
        if s.row.name == "DOT":
            if len(s.operands) % 2:
                yield s.operands[-1][1], "%g", 0
            for x, w in zip(s.operands[: len(s.operands) - 1 : 2], s.operands[1::2]):
                yield x[1], "%g * V(%s)", w[0]
                yield w[1], "%g * V(%s)", x[0]
        elif s.row.name == "WHERE":
            (c, _), (_, a), (_, b) = s.operands
            yield a, f"CHOSEN(V({c}) != 0.0, %g, (vec){{0}})", 0
            yield b, f"CHOSEN(V({c}) != 0.0, (vec){{0}}, %g)", 0
        elif s.row.name == "TOP":
            return
        elif s.row.kind == "many":
            text = s.row.partials[0]
            partial = self.expression(f"{s.row.name}_da", text, {"a": "V(%s)", "y": f"V({s.y})"})
            for kept, live in s.operands:
                yield live, "%g" if text == "1.0" else f"WEIGHED(%g, {partial})", kept
        else:
            values = {"a": f"V({s.operands[0][0]})", "b": f"V({s.operands[-1][0]})", "y": f"V({s.y})"}
            for which, text, (_, live) in zip("ab", s.row.partials, s.operands):
                if text == "0.0":
                    continue
                partial = self.expression(f"{s.row.name}_d{which}", text, values)
                finite = (text in _PLAIN and s.row.name != "WEIGH") or s.row.name in _SMOOTH
                yield live, "%g" if text == "1.0" else f"%g * {partial}" if finite else f"WEIGHED(%g, {partial})", 0

    def reverse(self, k: int) -> Iterator[str]:
        plan, left = [], Counter[int]()  # left: how often a slot is still touched in this chunk
        for s in reversed(self.chunk(k)):
            if s.guard or s.live_y not in self._pending:
                continue
            self._pending.discard(s.live_y)
            passed = []
            for slot, term, kept in self._passed_on(s):
                if slot >= self.p.n_const:
                    passed.append((slot, term, kept, slot in self._pending))
                    self._pending.add(slot)
            left.update([s.live_y, *(slot for slot, *_ in passed)])
            plan.append((s, passed))
        local: dict[int, str] = {}  # adjoints that memory does not have yet
        stale: set[int] = set()  # memory is 0 for the others among them
        for s, passed in plan:
            left[s.live_y] -= 1
            g = local.pop(s.live_y, "")
            if not g:
                g = f"g{s.k}"
                stale.add(s.live_y)
                if passed:
                    yield f"vec {g} = A({s.live_y});"
            if s.live_y in stale:
                stale.discard(s.live_y)
                yield f"A({s.live_y}) = (vec){{0}};"
            if s.as_loop:
                left.subtract(slot for slot, *_ in passed)
                for slot in sorted(local.keys() & {slot for slot, *_ in passed}):
                    stale.discard(slot)
                    yield f"A({slot}) = {local.pop(slot)};"
                for term, group in groupby(passed, lambda x: x[1]):
                    table = [number for slot, _, kept, _ in group for number in (slot, kept)]
                    yield self._loop(table, 2, f"A(i[0]) += {term.replace('%g', g).replace('%s', 'i[1]')};")
                continue
            for n, (slot, term, kept, pending) in enumerate(passed):
                left[slot] -= 1
                term = term.replace("%g", g).replace("%s", str(kept))
                if pending:
                    if slot not in local:
                        stale.add(slot)
                    term = f"{local.get(slot, f'A({slot})')} + {term}"
                if not left[slot]:
                    local.pop(slot, None)
                    stale.discard(slot)
                    yield f"A({slot}) = {term};"
                elif term == g:
                    local[slot] = g
                else:
                    local[slot] = f"g{s.k}_{n}"
                    yield f"vec {local[slot]} = {term};"


def write(p: CData) -> tuple[str, list[int]]:
    """The source of a program of the core, and the instructions at which its chunks begin and the last ends."""
    w = _Writer(p)
    chunks = range(len(w.first) - 1)
    backward = {k: list(w.reverse(k)) for k in reversed(chunks)}
    body = []
    for k in chunks:
        body.append(f"\n#if HAS({k})")
        body += [_FORWARD % k, *(_INDENT + line for line in w.forward(k)), _FORWARD_END]
        body += [_REVERSE % k, *(_INDENT + line for line in backward[k]), _REVERSE_END, "#endif"]
    body.append("\n#if FROM == 0")
    for gives, how, takes in ("int", "forward", "double *"), ("void", "reverse", "const double *, double *"):
        names = [f"NAME({how}{k})" for k in chunks]
        body += [f"PART {gives} {name}({takes});" for name in names]
        body.append(f"{gives} (*const NAME({how})[])({takes}) = {{{', '.join(names)}}};")
    body.append("#endif")
    head = _HEAD % {
        "scalar": ffi.string(lib.tg_scalar_source).decode(), "lanes": lib.tg_lanes, "tables": "".join(w.tables),
        "chunks": len(chunks),
    }  # fmt: skip
    return head + "".join(w.helpers.values()) + "\n".join([*body, "#endif", ""]), w.first
