"""Programs: a function recorded once on Values, frozen, and replayed in C with derivatives."""
from .program import BranchChanged, Program, _decoded, load, record

__all__ = ["BranchChanged", "Program", "load", "record"]

_decoded.__module__ = __name__  # what pickles name
