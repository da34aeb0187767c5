"""Programs: a function recorded once on Values, frozen, and replayed in C with derivatives.

A file stands on those before it alone: nest, replay, trace, source, native, file, recorded, point, batch, program."""
from .program import BranchChanged, Program, load, record
from .program import _decoded as _decoded  # pickles name it here

__all__ = ["BranchChanged", "Program", "load", "record"]
