"""Special functions under SciPy's names, accurate in their tails: of Values Values, of numbers floats, of NumPy arrays
object arrays.

Where SciPy gives nan or infinity for a finite argument, these raise ValueError, or OverflowError for a result that is
too large: as `math` does."""
from __future__ import annotations

import operator
from typing import Any

from ._rows import OPS, as_float, binary, elementwise, evaluated, unary
from .value import Value

__all__ = [
    "betaln", "digamma", "erf", "erfc", "expit", "gamma", "gammaln", "log_expit", "log_ndtr", "logaddexp", "logit",
    "ndtr", "ndtri", "polygamma", "xlogy",
]  # fmt: skip

erf = elementwise(unary("ERF"))
erfc = elementwise(unary("ERFC"))
ndtr = elementwise(unary("NDTR"))
log_ndtr = elementwise(unary("LOG_NDTR"))
ndtri = elementwise(unary("NDTRI"))
logit = elementwise(unary("LOGIT"))
expit = elementwise(unary("EXPIT"))
xlogy = elementwise(binary("XLOGY"))
gamma = elementwise(unary("GAMMA"))
gammaln = elementwise(unary("LGAMMA", "gammaln"))
betaln = elementwise(binary("BETALN"))
logaddexp = elementwise(binary("LOGADDEXP"))
_softplus = unary("SOFTPLUS")


@elementwise
def log_expit(x: Any, /) -> Any:
    """log(expit(x)), accurate in both tails.

    >>> value_and_grad(special.log_expit)(0.0)
    (-0.6931471805599453, 0.5)
    """
    return -_softplus(-x)


@elementwise
def polygamma(n: Any, x: Any, /) -> Any:
    """Derivative n of digamma.

    Args:
        n: the order, an integer of 0 to 100.
        x: a Value or a number, not 0 or a negative integer.

    Raises:
        ValueError: there is no such order, or x is a pole.

    >>> round(special.polygamma(1, 1.0), 12)
    1.644934066848
    """
    order = float(operator.index(n))
    return x.polygamma(order) if isinstance(x, Value) else evaluated(OPS["POLYGAMMA"], as_float(x), order)


@elementwise
def digamma(x: Any, /) -> Any:
    """Derivative of gammaln.

    >>> round(special.digamma(1.0), 12)
    -0.577215664902
    """
    return polygamma(0, x)
