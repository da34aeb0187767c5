"""A program as C source: its instructions in straight lines, in chunks, made of the texts in the rows of ops.def; a sum
or a dot of more than a few terms is a loop over its slots where these are evenly spaced, as a layer's mostly are, or
else over a table of them.

A chunk is two functions, forward over kept slots and reverse over the adjoints of live ones, each at two widths: the
file includes itself once for one lane and once for as many as the core has. It can be compiled in parts, functions FROM
to TO - 1 each, for a linker to put together. What is wide is a vector of the compiler's, and a comparison of vectors is
a mask; functions are called in a loop over the lanes. Compile time is linear.

Forward gives 0, or else a guard came out otherwise or a result is not finite: then the core's interpreter carries out
that block of rows, and native code need not know what is refused, nor which lanes are out. In reverse an adjoint of 0
passes nothing on, as in lanes.h; where the partial is finite, as most are when the result is, that needs no question.
Adjoints stay in locals between their first and their last use in a chunk; in memory those that nobody waits for are 0.

Beside other code, as in a wide program, a chunk is careful: it takes nothing for granted of what is not its own,
neither that numbers are finite nor that adjoints are 0, leaves all its results in memory, and fails where one is
refused.
"""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Optional

from .._core import ffi, lib
from .replay import CALL, COMPARISONS, GUARD, QUIET, REFUSAL, REFUSES, CData

CHUNK = 120  # operands; more take gcc longer for each, fewer keep less in registers
RUN = 8  # terms of a sum; as many become a loop, over a table where their slots are not evenly spaced
LOOP = 4  # operands that a loop counts for

_HEAD = """\
/* Written by tapegrad. v: primals of kept slots, adj: adjoints of live slots; slot s is the LANES doubles from
   s * LANES on. Constants come first in v, then inputs. To be compiled with -ffp-contract=off. */
#ifndef LANES
#ifdef FROM
#define PART __attribute__((visibility("hidden")))
#else
#define PART static
#define FROM 0
#define TO %(functions)d
#endif
#define HAS(function) (FROM <= (function) && (function) < TO)
#include <stddef.h>
#include <stdint.h>
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-parameter"

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
%(before)s
#define V(slot) (*(vec *)(v + (size_t)(slot) * LANES))
#define A(slot) (*(vec *)(adj + (size_t)(slot) * LANES))
#define EACH for (int l = 0; l < STEP; l++)
#define UNROLLED _Pragma("GCC unroll 4")
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
#define ALL(x) (x)
#include __FILE__
#undef LANES
#undef STEP
#undef NAME
#undef vec
#undef mask
#undef ANY
#undef WEIGHED
#undef CHOSEN
#undef ALL
#define LANES %(lanes)d
#define STEP SIDE
#define NAME(x) wide_##x
#define vec wide
#define mask wide_mask
#define ANY(m) wide_any(m)
#define WEIGHED(g, partial) ((vec)((mask)((g) * (partial)) & (mask)((g) != 0.0)))
#define CHOSEN(m, a, b) ((vec)(((mask)(a) & (m)) | ((mask)(b) & ~(m))))
#define ALL(x) ((x) + (vec){0})
#include __FILE__
%(more)s\
#if FROM == 0
%(names)s
#endif
#else
"""

_INDENT = " " * 8
_FORWARD = """
PART int NAME(forward%d)(double *restrict v, const uint32_t *told, const uint32_t *list)
{
    vec sum = {0};
    mask fail = {0};
    for (int row = 0; row < LANES; row += STEP, v += STEP) {"""
_FORWARD_END = """\
    }
    return ANY(fail | (mask)(sum != 0.0));
}"""
_REVERSE = """
PART void NAME(reverse%d)(const double *restrict v, double *restrict adj, const uint32_t *told, const uint32_t *list)
{
    for (int row = 0; row < LANES; row += STEP, v += STEP, adj += STEP) {"""
_REVERSE_END = """\
    }
}"""

_NUMBERS = {"1.0", "-1.0"}
_PLAIN = {*_NUMBERS, "a", "b", "y"}  # partials that are finite where y is
_SMOOTH = {"MAX", "MIN", "ABS", "TANH", "RELU", "SIGMOID", "SOFTPLUS", "SIN", "COS"}  # rows all of whose partials are
_LINEAR = {"ADD", "SUB", "MUL", "NEG", "DOT", "SUM"}  # rows whose result is not finite where an operand is not
_CHECKED = {*_SMOOTH, "DOT", "LOGSUMEXP"}  # besides rows that refuse results, and those with a, b or y for a partial
_REFUSALS = {  # whether the primal that is put in is refused
    "MATH": "tg_refuses_math(a, %s)", "POLE": "tg_refuses_math(a, %s)", "POWER": "tg_refuses_power(a, b, %s)",
    "PAIR": "tg_refuses_pair(a, b, %s)", "DIVIDE": "(double)(b == 0.0 && !isfinite(%s))",
}  # fmt: skip
_KINDS = {  # of those that are not all of one kind: and whether it is that one; see TG_REFUSAL
    ("MATH", 2): " && isnan(%s)", ("MATH", 3): " && !isnan(%s)", ("POWER", 1): " && a == 0.0",
    ("POWER", 2): " && a != 0.0 && isnan(%s)", ("POWER", 3): " && a != 0.0 && !isnan(%s)",
}  # fmt: skip
_OPERAND = re.compile(r"\b[aby]\b")
_COMPARISON = re.compile("[<>]|[=!]=")
_TEXTS = {  # of functions of scalar.h, by how rows call them
    f"{name}({takes.replace('double ', '')})": text
    for name, takes, text in re.findall(
        r"^static inline double (tg_\w+)\((double a(?:, double b)?)\) { return ([^;]+); }$",
        ffi.string(lib.tg_scalar_source).decode(), re.MULTILINE,
    )
}  # fmt: skip


def _blended(text: str) -> str | None:
    """A text that is arithmetic, comparisons and choices alone, for numbers and vectors; None: it is more."""
    if re.search(r"\w\(|\([^()]*\?", text) or ("||" in text and "&&" in text):
        return None
    asked, _, rest = text.partition(" ? ")
    if rest:
        chosen, _, other = rest.partition(" : ")
        mask, parts = re.sub(r" ([|&])\1 ", r") \1 (", asked), [_blended(chosen), _blended(other)]
        return None if None in parts else f"CHOSEN(({mask}), {parts[0]}, {parts[1]})"
    if _COMPARISON.search(text):
        return f"CHOSEN({text}, ALL(1.0), ALL(0.0))"
    return text if _OPERAND.search(text) else f"ALL({text})"


class Row:
    """A row of the table, as far as generated code asks for it."""

    def __init__(self, row: CData) -> None:
        def text(name: str) -> str:
            return ffi.string(getattr(row, name)).decode()  # type: ignore[no-any-return]

        self.name, self.kind, self.primal, self.refusal = text("name"), text("kind"), text("primal"), text("refusal")
        self.partials = [part for part in (text("da"), text("db")) if part]
        self.checked = (
            self.refusal != "NEVER" or self.name in _CHECKED or not {"a", "b", "y"}.isdisjoint(self.partials)
        )


ROWS = [Row(lib.tg_ops[op]) for op in range(lib.tg_op_count)]


def _added(text: str, *numbers: str) -> str:
    """A statement that adds to adjoints; numbers: of each its slot and, for %s, the kept one."""
    adds = (f"A({slot}) += {text.replace('%s', kept)};" for slot, kept in zip(numbers[::2], numbers[1::2]))
    return f"{{ {' '.join(adds)} }}"


class _Piece(NamedTuple):
    """Terms of a sum, each the numbers of slots, that are written alike."""

    terms: Sequence[tuple[int, ...]]
    steps: tuple[int, ...] | None  # from a term to the next, if all are the same

    @property
    def as_loop(self) -> bool:
        return len(self.terms) >= RUN

    @property
    def slots(self) -> Iterator[int]:
        return (slot for term in self.terms for slot in term)


def _pieces(terms: Sequence[tuple[int, ...]]) -> Iterator[_Piece]:
    """Terms in order: runs of RUN or more whose numbers are evenly spaced, and what is between them."""

    def steps(k: int) -> tuple[int, ...] | None:
        here, following = terms[k], terms[k + 1]
        return tuple(b - a for a, b in zip(here, following)) if len(here) == len(following) else None

    done = at = 0
    while at < len(terms):
        stop, same = at + 1, steps(at) if at + 1 < len(terms) else None
        while same is not None and stop < len(terms) and steps(stop - 1) == same:
            stop += 1
        if stop - at < RUN:
            at = max(at + 1, stop - 1)  # its last term may begin the next run
            continue
        if done < at:
            yield _Piece(terms[done:at], None)
        yield _Piece(terms[at:stop], same)
        done = at = stop
    if done < len(terms):
        yield _Piece(terms[done:], None)


class _Instruction:
    """An instruction with its operands: pairs of a kept and a live slot."""

    def __init__(self, p: CData, k: int) -> None:
        s = lib.tg_instruction(p, k)
        self.k, self.guard, self.y, self.live_y = k, s.op == GUARD, s.y, s.live_y
        self.call, self.hoisted = s.op == CALL, k < p.n_hoisted  # what is hoisted is not carried out where a step fails
        self.row = ROWS[0] if self.guard or self.call else ROWS[s.op & ~QUIET]
        self.results: list[tuple[int, int]] = []  # of a call
        if self.call or self.row.kind == "many":
            pairs = ffi.unpack(p.pool + 2 * s.a, 2 * s.b)
            found, n = list(zip(pairs[::2], pairs[1::2])), p.call[s.y].n_in if self.call else s.b
            self.operands, self.results = found[:n], found[n:]
        else:
            self.operands = [(s.a, s.live_a), (s.b, s.live_b)][: 1 if self.row.kind == "unary" else 2]
        kept = [slot for slot, _ in self.operands]
        self.pieces: list[_Piece] = []  # of the kept slots of a sum's terms
        if self.row.name == "DOT":
            self.pieces += _pieces(list(zip(kept[: len(kept) - 1 : 2], kept[1::2])))
        elif self.row.kind == "many" and self.row.name != "WHERE":
            self.pieces += _pieces([(slot,) for slot in kept])
        self.looped = {slot for piece in self.pieces if piece.as_loop for slot in piece.slots}
        in_loops = [len(piece.terms) * len(piece.terms[0]) for piece in self.pieces if piece.as_loop]
        self.weight = len(kept) - sum(in_loops) + LOOP * len(in_loops)
        self.squares = (
            self.row.name in ("POW", "POWK") and not self.guard and s.b < p.n_const and p.constant[s.b] == 2.0
        )
        self.checked = self.row.checked and not self.guard and not self.call
        self.refused = self.row.refusal != "NEVER" and not s.op & QUIET and not self.guard
        self.stored = False

    def text(self, name: str, text: str) -> tuple[str, str]:
        return squared(name, text) if self.squares else (name, text)


def squared(name: str, text: str) -> tuple[str, str]:
    """The name of a text of a power and the text, which know that it is a square."""
    return f"{name}_2", re.sub(r"\bb\b", "2.0", text)


class Writer:
    """What is written for one program, chunk after chunk: forward from the first on, reverse from the last.

    Args:
        runs: the instructions that chunks are made of, each from one run; a call is one by itself.
        careful: they are not all there is.
        beside: another writer, for the same file.
        most: operands of a chunk.
    """

    def __init__(
        self, p: CData, runs: Iterable[range], careful: bool = False, beside: Writer | None = None, most: int = CHUNK
    ) -> None:
        self.p, self.careful = p, careful
        self.chunks: list[list[_Instruction]] = []
        for run in runs:
            operands = 0
            for k in run:
                s = _Instruction(p, k)
                if operands + s.weight > most or k == run.start:
                    self.chunks.append([])
                    operands = 0
                self.chunks[-1].append(s)
                operands += s.weight
        self.helpers: dict[str, str] = beside.helpers if beside else {}
        self.tables: list[str] = beside.tables if beside else []
        self._survey()
        self._pending = {p.out[2 * k + 1] for k in range(p.n_out)}  # live slots whose adjoint may not be 0
        self._pending.update(range(p.n_const, p.n_const + p.n_in + p.n_hoisted))

    def _survey(self) -> None:
        """Find out which results have to be in memory, and of which to ask whether they are finite."""
        maker: dict[int, tuple[_Instruction, int]] = {}
        for c, chunk in enumerate(self.chunks):
            for s in chunk:
                if self.careful:
                    s.stored, s.checked = True, s.refused or s.row.name == "LOGSUMEXP"
                    continue
                for slot, _ in s.operands:
                    if slot in maker:
                        made, where = maker[slot]
                        made.stored |= slot in s.looped or where != c
                        if made.checked and s.row.name in _LINEAR and made.hoisted == s.hoisted:  # it shows there, too
                            made.checked, s.checked = False, True
                for slot, _ in s.results:
                    maker.pop(slot, None)
                if not s.guard and not s.call:
                    maker[s.y] = s, c
        for made, _ in maker.values():  # the last in its slot: outputs, and what partials name
            made.stored = True

    def expression(self, name: str, text: str, operands: dict[str, str]) -> str:
        """A text of the table with a, b and y put in, by way of a helper where it calls a function."""
        blended = _blended(_TEXTS.get(text, text))
        if blended is not None:
            filled = _OPERAND.sub(lambda m: operands[m[0]], blended)
            return filled if filled in operands.values() else f"({filled})"
        names = sorted(set(_OPERAND.findall(text)))
        if name not in self.helpers:
            takes = ", ".join(f"vec {x}s" for x in names)
            reads = "".join(f"        double {x} = ((const double *)&{x}s)[l];\n" for x in names)
            body = f"{reads}        ((double *)&result)[l] = {text};\n    }}\n"
            loops = f"    EACH {{\n{body}"
            if re.search(r"\btg_(sin|cos)\(", text):  # see tg_near_only
                loops = (
                    f"    EACH {{\n        enum {{ tg_near_only = STEP > 1 }};\n{body}"
                    f"    EACH if (STEP > 1 && tg_is_far(((const double *)&as)[l])) {{\n{body}"
                )
            self.helpers[name] = (
                f"\nstatic vec NAME({name})({takes})\n{{\n    vec result = {{0}};\n{loops}    return result;\n}}\n"
            )
        return f"NAME({name})({', '.join(operands[x] for x in names)})"

    def _loop(self, piece: _Piece, body: Callable[..., str]) -> str:
        """A loop over the terms; body says what is done, by the numbers of a term."""
        first, count = piece.terms[0], len(piece.terms)
        if piece.steps is not None:
            numbers = [f"{a} {'-' if step < 0 else '+'} {abs(step)} * i" for a, step in zip(first, piece.steps)]
            return f"for (int i = 0; i < {count}; i++) {body(*numbers)}"
        name, width = f"table{len(self.tables)}", len(first)
        self.tables.append(f"static const uint32_t {name}[] = {{{', '.join(map(str, piece.slots))}}};\n")
        numbers = [f"i[{k}]" for k in range(width)]
        return f"for (const uint32_t *i = {name}; i < {name} + {count * width}; i += {width}) {body(*numbers)}"

    def forward(self, k: int) -> Iterator[str]:
        local: dict[int, str] = {}
        for s in self.chunks[k]:
            names = [local.get(slot, f"V({slot})") for slot, _ in s.operands]
            if s.guard:
                yield self._guard(s.y, dict(zip("ab", names)))
                continue
            y = local[s.y] = f"y{s.k}"
            if s.row.kind == "many":
                yield from self._sum(s, y, local)
            else:
                yield f"vec {y} = {self.expression(*s.text(s.row.name, s.row.primal), dict(zip('ab', names)))};"
            if s.checked:
                yield f"sum += {y} - {y};"
            if s.stored:
                yield f"V({s.y}) = {y};"

    def _guard(self, asked: int, operands: dict[str, str]) -> str:
        how, outcome = asked >> 1, asked & 1
        if how < REFUSES:
            answer = f"{operands['a']} {COMPARISONS[how]} {operands['b']}"
        else:
            how, op = divmod(how - REFUSES, REFUSAL)
            row = ROWS[op]
            text = _REFUSALS[row.refusal] % row.primal + _KINDS.get((row.refusal, how), "").replace("%s", row.primal)
            answer = f"{self.expression(f'{row.name}_refuses_{how}', text, operands)} != 0.0"
        return f"fail |= (mask)({answer}) {'==' if outcome else '!='} 0;"

    def _sum(self, s: _Instruction, y: str, local: dict[int, str]) -> Iterator[str]:
        """A row of many operands, whose steps are those of lanes.h."""

        def name(slot: int) -> str:
            return local.get(slot, f"V({slot})")

        def each(text: str) -> Iterator[str]:
            """The text for all terms, with %s for each operand of a term."""
            for piece in s.pieces:
                if piece.as_loop:
                    yield "UNROLLED " + self._loop(piece, lambda *numbers: text % tuple(f"V({x})" for x in numbers))
                else:
                    yield from (text % tuple(map(name, term)) for term in piece.terms)

        larger = self.expression("MAX", "tg_max(a, b)", {"a": f"top{s.k}", "b": "x"})
        first, last = name(s.operands[0][0]), name(s.operands[-1][0])
        if s.row.name == "LOGSUMEXP":  # an infinite top makes it nan
            top, total = f"top{s.k}", f"total{s.k}"
            yield f"vec {top} = {first}, {total} = {{0}};"
            yield from each(f"{{ vec x = %s; {top} = {larger}; }}")
            yield from each(f"{total} += {self.expression('EXP', 'tg_exp(a)', {'a': f'%s - {top}'})};")
            yield f"vec {y} = {top} + {self.expression('LOG', 'tg_log(a)', {'a': total})};"
        elif s.row.name == "FSUM":
            yield f"vec {y}, sum{s.k} = {{0}}, c{s.k} = {{0}}, d{s.k} = {{0}};"
            yield from each(f"FSUM_ADD(sum{s.k}, c{s.k}, d{s.k}, %s)")
            yield f"FSUM_TOTAL({y}, sum{s.k}, c{s.k}, d{s.k});"
        elif s.row.name == "TOP":
            top = f"top{s.k}"
            yield f"vec {top} = {first};"
            yield from each(f"{{ vec x = %s; {top} = {larger}; }}")
            yield f"vec {y} = {self.expression('TOP', 'isfinite(a) ? a : 0.0', {'a': top})};"
        elif s.row.name == "WHERE":
            yield f"vec {y} = CHOSEN({first} != 0.0, {name(s.operands[1][0])}, {last});"
        elif s.row.name == "DOT":
            yield f"vec {y} = {last if len(s.operands) % 2 else '{0}'};"
            yield from each(f"{y} += %s * %s;")
        else:
            yield f"vec {y} = {{0}};"
            yield from each(f"{y} += %s;")

    def _passed_on(self, s: _Instruction) -> Iterator[tuple[str, list[tuple[int, ...]]]]:
        """What an instruction adds to which adjoints, in the order of lanes.h: terms, each one or two pairs of a live
        slot and the kept one of the primal that %s stands for in the text, as %g does for its own adjoint."""
        if s.row.name == "DOT":
            if len(s.operands) % 2:
                yield "%g", [(s.operands[-1][1], 0)]
            pairs = zip(s.operands[: len(s.operands) - 1 : 2], s.operands[1::2])
            text = "WEIGHED(%g, V(%s))" if self.careful else "%g * V(%s)"
            yield text, [(live_x, w, live_w, x) for (x, live_x), (w, live_w) in pairs]
        elif s.row.name == "WHERE":
            (c, _), (_, a), (_, b) = s.operands
            yield f"CHOSEN(V({c}) != 0.0, %g, (vec){{0}})", [(a, 0)]
            yield f"CHOSEN(V({c}) != 0.0, (vec){{0}}, %g)", [(b, 0)]
        elif s.row.name == "TOP":
            return
        elif s.row.kind == "many":
            text = s.row.partials[0]
            slope = self.expression(f"{s.row.name}_da", text, {"a": "V(%s)", "y": f"V({s.y})"})
            terms: list[tuple[int, ...]] = [(live, kept) for kept, live in s.operands]
            yield "%g" if text == "1.0" else f"WEIGHED(%g, {slope})", terms
        else:
            values = {"a": f"V({s.operands[0][0]})", "b": f"V({s.operands[-1][0]})", "y": f"V({s.y})"}
            for m, text in self.passed(s.row, s.text, values):
                yield text, [(s.operands[m][1], 0)]

    def passed(
        self, row: Row, text_of: Callable[[str, str], tuple[str, str]], values: dict[str, str]
    ) -> Iterator[tuple[int, str]]:
        """What a row of one or two operands passes on to which, %g standing for its own adjoint."""
        for m, (which, text) in enumerate(zip("ab", row.partials)):
            if text == "0.0":
                continue
            slope = self.expression(*text_of(f"{row.name}_d{which}", text), values)
            finite = text in _NUMBERS or (
                not self.careful and ((text in _PLAIN and row.name != "WEIGH") or row.name in _SMOOTH)
            )
            yield m, "%g" if text == "1.0" else f"%g * {slope}" if finite else f"WEIGHED(%g, {slope})"

    def _adds(self, s: _Instruction) -> Iterator[tuple[str, _Piece]]:
        """The same in pieces, without what constants would get."""
        for text, terms in self._passed_on(s):
            pairs = ([pair for pair in zip(term[::2], term[1::2]) if pair[0] >= self.p.n_const] for term in terms)
            for piece in _pieces([sum(found, ()) for found in pairs if found]):
                if piece.steps is None:
                    piece = _Piece([pair for term in piece.terms for pair in zip(term[::2], term[1::2])], None)
                yield text, piece

    def reverse(self, k: int) -> Iterator[str]:
        plan, left = [], Counter[int]()  # left: how often a slot is still touched in this chunk
        if self.chunks[k][0].call:
            (s,) = self.chunks[k]
            self._pending.difference_update(live for _, live in s.results)
            self._pending.update(live for _, live in s.operands)
            return
        for s in reversed(self.chunks[k]):
            if s.guard or not (self.careful or s.live_y in self._pending):
                continue
            self._pending.discard(s.live_y)
            adds = []  # with the adjoints that each adds to, and whether they are there by then
            for text, piece in self._adds(s):
                pairs = [pair for term in piece.terms for pair in zip(term[::2], term[1::2])]
                waiting = []
                for slot, _ in pairs:
                    waiting.append(self.careful or slot in self._pending)
                    self._pending.add(slot)
                left.update(slot for slot, _ in pairs)
                adds.append((text, piece, pairs, waiting))
            left[s.live_y] += 1
            plan.append((s, adds))
        local: dict[int, str] = {}  # adjoints that memory does not have yet
        stale: set[int] = set()  # memory is 0 for the others among them
        for s, adds in plan:
            left[s.live_y] -= 1
            g = local.pop(s.live_y, "")
            if not g:
                g = f"g{s.k}"
                stale.add(s.live_y)
                if adds:
                    yield f"vec {g} = A({s.live_y});"
            if s.live_y in stale:
                stale.discard(s.live_y)
                yield f"A({s.live_y}) = (vec){{0}};"
            n = 0
            for text, piece, pairs, waiting in adds:
                text = text.replace("%g", g)
                if piece.as_loop:
                    left.subtract(slot for slot, _ in pairs)
                    for slot in sorted(local.keys() & {slot for slot, _ in pairs}):
                        stale.discard(slot)
                        yield f"A({slot}) = {local.pop(slot)};"
                    yield self._loop(piece, partial(_added, text))
                    continue
                for (slot, kept), there in zip(pairs, waiting):
                    left[slot] -= 1
                    term = text.replace("%s", str(kept))
                    if there:
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
                    n += 1


_TAKES = "double *, const uint32_t *, const uint32_t *", "const double *, double *, const uint32_t *, const uint32_t *"
Told = Sequence[int]
Pieces = list[tuple[int, Optional[int], Told]]  # the first instruction, the function, what it is told


class Source(NamedTuple):
    """The C source of a program, how many functions it has, and what they are pieces of, for one lane and for many; and
    for values alone, in live slots, where they can do with these."""

    text: str
    functions: int
    pieces: tuple[Pieces, Pieces]
    values: tuple[Pieces, Pieces] = ([], [])


class Code(NamedTuple):
    """A function of both directions, whether one lane and many have it, and when else not to compile its text."""

    text: str
    widths: tuple[bool, bool]
    unless: str = ""


def chunks(w: Writer, start: int, widths: tuple[bool, bool], unless: str = "") -> Iterator[Code]:
    """The chunks of a writer but calls, which have no code, functions from start on."""
    backward = {k: list(w.reverse(k)) for k in reversed(range(len(w.chunks)))}
    for f, k in enumerate((k for k, chunk in enumerate(w.chunks) if not chunk[0].call), start):
        lines = [_FORWARD % f, *(_INDENT + line for line in w.forward(k)), _FORWARD_END]
        lines += [_REVERSE % f, *(_INDENT + line for line in backward[k]), _REVERSE_END]
        yield Code("\n".join(lines), widths, unless)


def assembled(
    codes: Sequence[Code], w: Writer, before: str = "", more: str = "", takes: tuple[str, str] = _TAKES
) -> str:
    """The source whose functions these are, all written by then; before: what the file includes itself after; more:
    what it does then; takes: what forward and reverse functions take."""
    names = []
    for width, prefix in enumerate(("one", "wide")):
        has = [f"{prefix}_%s{k}" if code.widths[width] else "0" for k, code in enumerate(codes)]
        for gives, how, taken in zip(("int", "void"), ("forward", "reverse"), takes):
            own = [name.replace("%s", how) for name in has]
            names += [f"PART {gives} {name}({taken});" for name in own if name != "0"]
            names.append(f"{gives} (*const {prefix}_{how}[])({taken}) = {{{', '.join(own or ['0'])}}};")
    head = _HEAD % {
        "scalar": ffi.string(lib.tg_scalar_source).decode(), "lanes": lib.tg_lanes, "functions": len(codes),
        "before": "".join(w.tables) + before, "more": more, "names": "\n".join(names),
    }  # fmt: skip
    only = {(True, True): "", (True, False): " && LANES == 1", (False, True): " && LANES > 1"}
    body = [f"\n#if HAS({k}){only[code.widths]}{code.unless}\n{code.text}\n#endif" for k, code in enumerate(codes)]
    return head + "".join(w.helpers.values()) + "\n".join([*body, "#endif", ""])


def straight(p: CData) -> Source:
    """The source of a program of the core in straight lines alone; what is hoisted in chunks of its own, and calls left
    to the interpreter."""
    calls = [p.call[k].at for k in range(p.n_calls)]
    starts = sorted({0, p.n_hoisted, p.n_instr, *calls, *(at + 1 for at in calls)})
    w = Writer(p, map(range, starts, starts[1:]))
    codes = list(chunks(w, 0, (True, True)))
    functions = iter(range(len(codes)))
    pieces: Pieces = [(chunk[0].k, None if chunk[0].call else next(functions), ()) for chunk in w.chunks]
    return Source(assembled(codes, w), len(codes), (pieces, pieces))
