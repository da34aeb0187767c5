"""The class under `tapegrad.Program`, and the decorator of its methods: here all calls go by the methods themselves."""
from __future__ import annotations

from typing import Any


class Quick:
    """What calls of a program go by where they need no Python; a subclass has `_told`."""

    def _changed(self) -> None:
        """Forget what `_told` said."""


def quick(method: Any, /) -> Any:
    """A method of Program that tries the way without Python first, and gives the same."""
    return method
