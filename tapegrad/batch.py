"""Where pickles of earlier versions look for a batch: `Loop` was its name, and a Program what it held."""
from __future__ import annotations

from typing import Any

from .program.batch import Batch

__all__ = ["Loop"]


class Loop(Batch):
    """A Batch, once it is unpickled."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        Batch.__init__(self, state["_program"]._recorded, state["_axes"], state["_reduce"], state["_threads"])
        self.__class__ = Batch  # type: ignore[assignment]  # it has the same attributes
