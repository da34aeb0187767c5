"""tapegrad: micrograd's Value as a drop-in, recorded on a tape in C, and programs that replay it."""
from __future__ import annotations

from ._no_grad import no_grad
from ._version import __version__
from .bulk import data, grads, set_data, set_grads, zero_grad
from .losses import cross_entropy, hinge, logsumexp, mse
from .tape import tape
from .value import Value, affine, dot, leaves, softmax
from .value import sum as sum

TYPE_CHECKING = False  # of typing's, which takes long to import

if TYPE_CHECKING:
    from typing import Any

    from . import linalg, nn, optim, special
    from . import math as math
    from .check import check_grads
    from .choice import (
        clip,
        equal,
        greater,
        greater_equal,
        less,
        less_equal,
        logical_and,
        logical_not,
        logical_or,
        maximum,
        minimum,
        not_equal,
        reciprocal,
        sign,
        square,
        where,
    )
    from .derivatives import grad, gradient, hessian, hvp, jacobian, jvp, value_and_grad, vjp
    from .look.debug import debug
    from .look.diagnosis import NonFinite
    from .look.drawing import draw
    from .look.heat import heat
    from .loops import Loop, scan
    from .program import BranchChanged, Program, load, record
    from .threads import get_num_threads, set_num_threads

# Without `sum` and `math`, which `from tapegrad import *` is not to replace.
__all__ = [
    "BranchChanged", "Loop", "NonFinite", "Program", "Value", "__version__", "affine", "check_grads", "clip",
    "cross_entropy", "data", "debug", "dot", "draw", "equal", "get_num_threads", "grad", "gradient", "grads", "greater",
    "greater_equal", "heat", "hessian", "hinge", "hvp", "jacobian", "jvp", "leaves", "less", "less_equal", "linalg",
    "load", "logical_and", "logical_not", "logical_or", "logsumexp", "maximum", "minimum", "mse", "nn", "no_grad",
    "not_equal", "optim", "reciprocal", "record", "scan", "set_data", "set_grads", "set_num_threads", "sign", "softmax",
    "special", "square", "tape", "value_and_grad", "vjp", "where", "zero_grad",
]  # fmt: skip

# Loaded when they are asked for: a program that records on Values alone starts the sooner.
_LATER = dict.fromkeys(("BranchChanged", "Program", "load", "record"), "program")
_LATER.update({"debug": "look.debug", "NonFinite": "look.diagnosis", "draw": "look.drawing", "heat": "look.heat"})
_LATER["check_grads"] = "check"
_LATER.update(dict.fromkeys(("get_num_threads", "set_num_threads"), "threads"))
_LATER.update(dict.fromkeys(("Loop", "scan"), "loops"))
_LATER.update({name: name for name in ("linalg", "math", "nn", "optim", "special")})  # the modules themselves
_LATER.update(
    dict.fromkeys((
        "clip", "equal", "greater", "greater_equal", "less", "less_equal", "logical_and", "logical_not", "logical_or",
        "maximum", "minimum", "not_equal", "reciprocal", "sign", "square", "where",
    ), "choice")
)  # fmt: skip
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
