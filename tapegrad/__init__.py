"""tapegrad: micrograd's Value as a drop-in, recorded on a tape in C."""
from . import nn, optim
from ._version import __version__
from .bulk import data, grads, set_data
from .tape import tape
from .value import (
    Value,
    affine,
    cross_entropy,
    dot,
    hinge,
    leaves,
    logsumexp,
    mse,
    no_grad,
    softmax,
    sum,
    zero_grad,
)

__all__ = [
    "Value", "__version__", "affine", "cross_entropy", "data", "dot", "grads", "hinge", "leaves", "logsumexp", "mse",
    "nn", "no_grad", "optim", "set_data", "softmax", "sum", "tape", "zero_grad",
]  # fmt: skip
