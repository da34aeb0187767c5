"""Makes the coefficients and constants of csrc/elementary.h with mpmath (pip install mpmath).

    python tools/polynomials.py            print them, each polynomial with its largest error
    python tools/polynomials.py --check    fail where the header does not have them

A polynomial interpolates at Chebyshev's nodes: within a bit or so of the best one, which is bought by a degree more
where it counts, and without an iteration that may fail. Each is of what is left once the terms that are exact in
doubles are taken off, so that rounding its coefficients costs nothing that shows.
"""
from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mpmath as mp

mp.mp.dps = 60
HEADER = Path(__file__).resolve().parent.parent / "csrc/elementary.h"
WIDER = mp.mpf("1.0001")  # intervals, for reductions that round
sqrt = mp.sqrt


def of_root(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """f of the square root of z."""
    return lambda z: f(sqrt(z))


def cut(x: Any, bits: int) -> Any:
    """x with so many bits, towards 0."""
    scale = mp.mpf(2) ** (bits - 1 - mp.floor(mp.log(abs(x), 2)))
    return mp.floor(x * scale) / scale


MIDDLE = mp.mpf(0.875)
MIDDLE_SLOPE = cut(2 / sqrt(mp.pi) * mp.exp(-MIDDLE * MIDDLE), 26)

# Name, what it is of z, from, to, how many coefficients.
POLYNOMIALS: list[tuple[str, Callable[[Any], Any], Any, Any, int]] = [
    ("sinh_series", of_root(lambda r: (mp.sinh(r) - r) / r**3), 0, (mp.log(2) / 2) ** 2 * WIDER, 5),
    ("cosh_series", of_root(lambda r: (mp.cosh(r) - 1 - r * r / 2) / r**4), 0, (mp.log(2) / 2) ** 2 * WIDER, 5),
    ("atanh_series", of_root(lambda s: 2 * (mp.atanh(s) - s) / s**3), 0, (3 - 2 * sqrt(2)) ** 2 * WIDER, 8),
    ("log_cosh_series", of_root(lambda x: (mp.log(mp.cosh(x / 2)) - x * x / 8) / x**4), 0, 1, 9),
    ("log1p_series", lambda t: (mp.log1p(t) - t + t * t / 2) / t**3, 0, mp.exp(-1) * WIDER, 14),
    ("atanh_tail", of_root(lambda s: 2 * (mp.atanh(s) - s - s**3 / 3) / s**5), 0, (3 - 2 * sqrt(2)) ** 2 * WIDER, 8),
    ("sin_series", of_root(lambda r: (mp.sin(r) - r) / r**3), 0, (mp.pi / 4) ** 2 * WIDER, 6),
    ("cos_series", of_root(lambda r: (mp.cos(r) - 1 + r * r / 2) / r**4), 0, (mp.pi / 4) ** 2 * WIDER, 6),
    ("erf_inner", of_root(lambda x: mp.erf(x) / x - 1), 0, mp.mpf(1) / 4, 9),
    ("erf_middle", lambda d: (mp.erf(MIDDLE + d) - mp.erf(MIDDLE)) / d - MIDDLE_SLOPE, -0.375 * WIDER, 0.375, 16),
    ("erf_outer", lambda t: mp.erfc(1 / t - 3) * mp.exp((1 / t - 3) ** 2), mp.mpf(1) / 9, 1 / mp.mpf(4.25), 16),
]  # fmt: skip


def constants() -> Iterator[tuple[str, float]]:
    """Numbers in parts, the first ones so short that their product with a whole number is exact."""
    high = cut(mp.log(2), 42)
    yield from (("TG_LN2_HIGH", float(high)), ("TG_LN2_LOW", float(mp.log(2) - high)))
    left = mp.pi / 2
    for k in range(3):
        part = cut(left, 33)
        yield f"TG_HALF_PI_{k + 1}", float(part)
        left -= part
    yield "TG_HALF_PI_4", float(left)
    yield from (("TG_HALF_PI_HIGH", float(mp.pi / 2)), ("TG_HALF_PI_LOW", float(mp.pi / 2 - float(mp.pi / 2))))
    yield from (("TG_ERF_MIDDLE_HIGH", float(mp.erf(MIDDLE))),)
    yield from (("TG_ERF_MIDDLE_LOW", float(mp.erf(MIDDLE) - float(mp.erf(MIDDLE)))),)
    yield from (("TG_ERF_MIDDLE_SLOPE", float(MIDDLE_SLOPE)),)
    high = cut(mp.mpf(2) / 3, 26)
    yield from (("TG_TWO_THIRDS_HIGH", float(high)), ("TG_TWO_THIRDS_LOW", float(mp.mpf(2) / 3 - high)))


def two_over_pi(words: int) -> list[int]:
    """The bits of 2 / pi behind the point, 32 a word."""
    with mp.workprec(32 * words + 64):
        bits = int(mp.floor(2 / mp.pi * mp.mpf(2) ** (32 * words)))
    return [bits >> 32 * (words - 1 - k) & 0xFFFFFFFF for k in range(words)]


def wrapped(name: str, kind: str, items: list[str]) -> str:
    """A table of C, lines of at most 120."""
    lines, line = [], ""
    for k, item in enumerate(items):
        item += "};" if k == len(items) - 1 else ","
        if len(line) + len(item) > 113:
            lines.append(line.rstrip())
            line = ""
        line += item + " "
    return f"static const {kind} tg_{name}[] = {{\n    " + "\n    ".join([*lines, line.rstrip()]) + "\n"


def made() -> Iterator[tuple[str, str]]:
    """What the header has, and a remark."""
    for name, f, low, high, n in POLYNOMIALS:
        with mp.workdps(90):
            coefficients, error = mp.chebyfit(f, [low, high], n, error=True)
        remark = f"/* error 2^{float(mp.log(error, 2)):.1f} */"
        yield wrapped(name, "double", [repr(float(c)) for c in reversed(coefficients)]), remark
    for name, number in constants():
        yield f"#define {name} {number!r}\n", ""
    yield wrapped("two_over_pi", "uint32_t", [f"0x{word:08x}" for word in two_over_pi(38)]), ""


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        header = re.sub(r"\s+", " ", HEADER.read_text(encoding="utf-8"))
        for text, _ in made():
            if re.sub(r"\s+", " ", text).strip() not in header:
                sys.exit(f"{HEADER.name} does not have\n{text}")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        for text, remark in made():
            print(text + remark)


if __name__ == "__main__":
    main()
