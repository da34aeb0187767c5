"""The class under programs and batches, and the decorator of their methods: here all calls go by the methods."""
from __future__ import annotations

from typing import Any


class Quick:
    """What calls of a program go by where they need no Python; a subclass has `_told`."""


def quick(method: Any, /) -> Any:
    """A method of theirs that tries the way without Python first, and gives the same."""
    return method
