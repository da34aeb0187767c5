"""What is taken for an integer where one is asked for: what `operator.index` takes, as NumPy's, but True and False."""
from __future__ import annotations

import operator
from typing import Any


def as_integer(x: Any) -> int | None:
    """The integer, or None where x is none."""
    if isinstance(x, bool):
        return None
    try:
        return operator.index(x)
    except TypeError:
        return None
