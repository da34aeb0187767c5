"""tapegrad: micrograd's Value as a drop-in, recorded on a tape in C, and programs that replay it."""
from typing import TYPE_CHECKING, Any

from . import nn, optim
from ._version import __version__
from .bulk import data, grads, set_data, set_grads, zero_grad
from .losses import cross_entropy, hinge, logsumexp, mse
from .tape import tape
from .value import Value, affine, dot, leaves, no_grad, softmax, sum

if TYPE_CHECKING:
    from . import linalg
    from .check import check_grads
    from .derivatives import grad, gradient, hessian, hvp, jacobian, jvp, value_and_grad, vjp
    from .look.debug import debug
    from .look.diagnosis import NonFinite
    from .look.drawing import draw
    from .look.heat import heat
    from .program import BranchChanged, Program, load, record

__all__ = [
    "BranchChanged", "NonFinite", "Program", "Value", "__version__", "affine", "check_grads", "cross_entropy", "data",
    "debug", "dot", "draw", "grad", "gradient", "grads", "heat", "hessian", "hinge", "hvp", "jacobian", "jvp", "leaves",
    "linalg", "load", "logsumexp", "mse", "nn", "no_grad", "optim", "record", "set_data", "set_grads", "softmax", "sum",
    "tape", "value_and_grad", "vjp", "zero_grad",
]  # fmt: skip

# Loaded when they are asked for: a program that records on Values alone starts the sooner.
_LATER = dict.fromkeys(("BranchChanged", "Program", "load", "record"), "program")
_LATER.update({"debug": "look.debug", "NonFinite": "look.diagnosis", "draw": "look.drawing", "heat": "look.heat"})
_LATER["check_grads"] = "check"
_LATER["linalg"] = "linalg"  # the module itself
_LATER.update({name: "derivatives" for name in __all__ if name not in globals() and name not in _LATER})


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f".{_LATER[name]}", __name__)
    found = module if _LATER[name] == name else getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
