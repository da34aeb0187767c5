"""tapegrad: micrograd's Value as a drop-in, recorded on a tape in C."""
from . import nn
from ._version import __version__
from .tape import tape
from .value import Value, dot, leaves, logsumexp, no_grad, sum, zero_grad

__all__ = ["Value", "__version__", "dot", "leaves", "logsumexp", "nn", "no_grad", "sum", "tape", "zero_grad"]
