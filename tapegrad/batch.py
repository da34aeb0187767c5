"""Where pickles of earlier releases look for a loop over the rows of a batch."""
from .program.batch import Loop

__all__ = ["Loop"]
