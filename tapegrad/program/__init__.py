"""Programs: a function recorded once on Values, frozen, and replayed in C with derivatives.

Files, each of which stands on those before it alone: form, containers, nest, arguments, replay, trace, source, native,
file, recorded, told, point, layout, rows, batch, program."""
from .program import BranchChanged, Program, load, record
from .recorded import decoded

__all__ = ["BranchChanged", "Program", "load", "record"]


def _decoded(data: bytes) -> Program:
    """What pickles of earlier versions call."""
    return Program(decoded(data))
