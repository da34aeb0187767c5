"""Operands out of iterables: Values and numbers, or Values alone."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .handle import Handle, need_number


def gathered(xs: Iterable[Any]) -> list[Any]:
    """Values as they are, everything else as a float."""
    return [x if isinstance(x, Handle) else need_number("an operand", x) for x in tuple(xs)]


def only_values(values: Iterable[Any]) -> tuple[Handle, ...]:
    """A tuple of Values, or TypeError."""
    items = tuple(values)
    for v in items:
        if not isinstance(v, Handle):
            raise TypeError(f"this takes Values, not {type(v).__name__!r}")
    return items
