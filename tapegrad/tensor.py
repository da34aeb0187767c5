"""`Value` where the notebooks look for it."""

from __future__ import annotations

from .value import Value

__all__ = ["Value"]
