"""Loops: a recorded step carried out many times in C, on the state that the last one left, with derivatives.

Files, each of which stands on those before it alone: layout, chain, cell, path, values, called, batch, file, loop."""
from .loop import Loop
from .values import scan

__all__ = ["Loop", "scan"]
