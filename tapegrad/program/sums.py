"""A sum or a dot of very many terms in the source of a wide program: a loop over numbers that it is told.

Forward, terms are added one after the other. In reverse no two terms meet in a slot, or it shows nowhere, so they are
taken in stretches of which each lies side by side, whatever their order was: tiles leave few of them.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence

from .._core import ffi, lib
from .replay import CData
from .source import ROWS, Code, Writer

LEAST = 256  # operands of a sum that is worth it
WIDTH = 8  # terms of a stretch, on average, at least

_DOT = """
PART int NAME(forward%(f)d)(double *restrict v, TAKES)
{
    const uint32_t n = told[0], *const t = told + 5;
    for (int row = 0; row < LANES; row += STEP, v += STEP) {
        vec y = %(bias)s;
        for (uint32_t i = 0; i < n; i++)
            y += V(t[2 * i]) * V(t[2 * i + 1]);
        V(told[1]) = y;
    }
    return 0;
}

PART void NAME(reverse%(f)d)(const double *restrict v, double *restrict adj, TAKES)
{
    const uint32_t *const first = told + 5 + 2 * (size_t)told[0], m = *first;
    for (int row = 0; row < LANES; row += STEP, v += STEP, adj += STEP) {
        const vec g = A(told[2]);
        A(told[2]) = (vec){0};
        if (LANES == 1 && !ANY((mask)(g != 0.0)))
            continue;
        %(add_bias)s
        for (uint32_t s = 0; s < m; s++) {      /* how many terms, what moves of them, x and w in both numberings */
            const uint32_t *const of = first + 1 + 6 * (size_t)s, how = of[1];
            const size_t n = of[0], x = of[2], live_x = of[3], w = of[4], live_w = of[5];
            if (how & 1) {
                PASS_ON(live_x, w, how & 8)
            }
            if (how & 2) {
                PASS_ON(live_w, x, how & 4)
            }
        }
    }
}"""
BEFORE = """
#define PASS_ON(to, of, moves) \\
    if (moves) \\
        for (size_t k = 0; k < n; k++) \\
            A((to) + k) += WEIGHED(g, V((of) + k)); \\
    else { \\
        const vec passed = WEIGHED(g, V(of)); \\
        for (size_t k = 0; k < n; k++) \\
            A((to) + k) += passed; \\
    }
"""
_SUM = """
PART int NAME(forward%(f)d)(double *restrict v, TAKES)
{
    const uint32_t n = told[0], *const t = told + 5;
    for (int row = 0; row < LANES; row += STEP, v += STEP) {
        vec y = {0};
        for (uint32_t i = 0; i < n; i++)
            y += V(t[i]);
        V(told[1]) = y;
    }
    return 0;
}

PART void NAME(reverse%(f)d)(const double *restrict v, double *restrict adj, TAKES)
{
    const uint32_t *const first = told + 5 + (size_t)told[0], m = *first;
    for (int row = 0; row < LANES; row += STEP, v += STEP, adj += STEP) {
        const vec g = A(told[2]);
        A(told[2]) = (vec){0};
        for (uint32_t s = 0; s < m; s++) {
            const size_t n = first[1 + 2 * (size_t)s], to = first[2 + 2 * (size_t)s];
            for (size_t k = 0; k < n; k++)
                A(to + k) += g;
        }
    }
}"""


class Sum:
    """A sum, of which there is a function for each key."""

    count = 1

    def __init__(self, key: tuple[str, bool], told: Sequence[int]) -> None:
        self.key = self.forward_key = key
        self.told = told

    def code(self, f: int, _: Writer, lanes: bool) -> tuple[Code, str]:
        """As of a group's shape."""
        name, biased = self.key
        text = (_DOT if name == "DOT" else _SUM) % {
            "f": f, "bias": "V(told[3])" if biased else "{0}", "add_bias": "A(told[4]) += g;" if biased else "",
        }  # fmt: skip
        return Code(text, (True, lanes), " && !defined BESIDE"), ""


def long_sum(p: CData, k: int, alone: bool) -> Sum | None:
    """Instruction k, if it is a sum that is worth it; alone: values alone are wanted, in live slots."""
    s = lib.tg_instruction(p, k)
    if s.b < LEAST or s.op >= lib.tg_op_count or ROWS[s.op].name not in ("DOT", "SUM"):
        return None
    words = ffi.unpack(p.pool + 2 * s.a, 2 * s.b)
    kept, live = words[::2], words[1::2]
    if alone:
        n, biased = (s.b // 2, s.b % 2) if ROWS[s.op].name == "DOT" else (s.b, 0)
        bias = live[-1] if biased else 0
        return Sum((ROWS[s.op].name, bool(biased)), [n, s.live_y, 0, bias, 0, *live[: s.b - biased]])
    if ROWS[s.op].name == "SUM":
        stretches = list(_runs(sorted(slot for slot in live if slot >= p.n_const)))
        if len(stretches) > s.b // WIDTH:
            return None
        numbers = [number for stretch in stretches for number in stretch]
        return Sum(("SUM", False), [s.b, s.y, s.live_y, 0, 0, *kept, len(stretches), *numbers])
    n, biased = s.b // 2, s.b % 2
    terms = list(zip(kept[: 2 * n : 2], live[: 2 * n : 2], kept[1::2], live[1::2]))
    found = _stretches(terms, p.n_const)
    if found is None or len(found) > n // WIDTH:
        return None
    bias = (kept[-1], live[-1]) if biased else (0, 0)
    numbers = [number for stretch in found for number in stretch]
    return Sum(("DOT", bool(biased)), [n, s.y, s.live_y, *bias, *kept[: 2 * n], len(found), *numbers])


def _runs(slots: Sequence[int]) -> Iterator[tuple[int, int]]:
    """How many there are side by side, and the first of them."""
    start = 0
    for k in range(1, len(slots) + 1):
        if k == len(slots) or slots[k] != slots[k - 1] + 1:
            yield k - start, slots[start]
            start = k


def _stretches(terms: list[tuple[int, int, int, int]], n_const: int) -> list[tuple[int, ...]] | None:
    """Terms in stretches, as reverse functions have them; None where adjoints of two terms meet in a slot."""
    into: set[int] = set()
    count = 0
    for _, x, _, w in terms:
        if x >= n_const:
            into.add(x)
            count += 1
        if w >= n_const and w != x:
            into.add(w)
            count += 1
    if len(into) != count:
        return None
    terms.sort(key=lambda term: term[3] if term[3] >= n_const else term[1])
    stretches: list[tuple[int, ...]] = []
    start, steps = 0, None
    for k in range(1, len(terms) + 1):
        found = _steps(terms[k - 1], terms[k]) if k < len(terms) else None
        if found is not None and steps in (None, found):
            steps = found
            continue
        x, live_x, w, live_w = terms[start]
        how = (live_x >= n_const) + 2 * (live_w >= n_const) + (steps or 0)
        stretches.append((k - start, how, x, live_x, w, live_w))
        start, steps = k, None
    return stretches


def _steps(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> int | None:
    """4 where the first operand goes on by a slot from term to term, 8 where the second one does; None: otherwise."""
    x, live_x, w, live_w = b[0] - a[0], b[1] - a[1], b[2] - a[2], b[3] - a[3]
    return 4 * x + 8 * w if x == live_x and w == live_w and 0 <= x <= 1 and 0 <= w <= 1 else None
