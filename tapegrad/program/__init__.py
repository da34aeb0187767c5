"""Programs: a function recorded once on Values, frozen, and replayed in C with derivatives.

Files, each of which stands on those before it alone: form, containers, nest, arguments, replay, trace, source, sums,
grouped, native, file, recorded, told, point, layout, rows, batch, program, making."""
from .making import load, record
from .program import Program
from .recorded import decoded
from .replay import BranchChanged

__all__ = ["BranchChanged", "Program", "load", "record"]


def _decoded(data: bytes) -> Program:
    """What pickles of earlier versions call."""
    return Program(decoded(data))
