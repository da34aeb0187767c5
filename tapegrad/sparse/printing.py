"""A pattern as a small picture of braille dots."""
from __future__ import annotations

from .pattern import Pattern

WIDTH, HEIGHT = 48, 48  # dots at most
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # by row and column of a sign


def picture(pattern: Pattern) -> str:
    """A dot for each nonzero, or for each block with one in it where there are more than 48 rows or columns."""
    m, n = pattern.shape
    scale = max(1.0, m / HEIGHT, n / WIDTH)
    height, width = max(1, round(m / scale)), max(1, round(n / scale))
    down, across = height / max(m, 1), width / max(n, 1)
    signs = [[0x2800] * (-(-width // 2)) for _ in range(-(-height // 4))]
    dots = {(int(i * down), int(j * across)) for i, j in zip(pattern.rows, pattern.cols)}
    for y, x in dots:
        signs[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
    return "\n".join("".join(map(chr, line)) for line in signs)


def share(pattern: Pattern) -> str:
    """How many nonzeros there are, and what part of the matrix."""
    m, n = pattern.shape
    part = 100 * len(pattern) / max(1, m * n)
    return f"{m} x {n}, {len(pattern)} nonzeros ({part:.3g} %)"
