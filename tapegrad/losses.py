"""logsumexp and the losses: functions of many operands, one node each."""
from __future__ import annotations

from ._core import ffi, lib
from .value import Value, handle

TYPE_CHECKING = False  # of typing's, which takes long to import

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Union

    from ._c_handle import _Number

    _Operands = Iterable[Union[Value, _Number]]

_OPS = {ffi.string(lib.tg_ops[op].method).decode(): op for op in range(lib.tg_op_count)}


def logsumexp(xs: _Operands, /) -> Value:
    """log(exp(xs[0]) + exp(xs[1]) + ..) without overflow, as one node.

    Args:
        xs: an iterable of Values and numbers, not empty.

    Raises:
        ValueError: xs is empty.

    Source: Blanchard, Higham, Higham, IMA J. Numer. Anal. 41 (2021).

    >>> logsumexp([Value(1000.0), 1000.0])
    Value(data=1000.6931471805599, grad=0.0)
    """
    xs = tuple(xs)
    if not xs:
        raise ValueError("logsumexp of no operands")
    return handle.many(_OPS["logsumexp"], xs)


def cross_entropy(logits: _Operands, target: int) -> Value:
    """-log(softmax(logits)[target]), without overflow, as one node.

    Args:
        logits: an iterable of n Values and numbers.
        target: the index of the right class, 0 to n - 1.

    Raises:
        IndexError: there is no such class.

    >>> value_and_grad(cross_entropy)([0.0, 0.0], 1)
    (0.6931471805599453, [0.5, -0.5])
    """
    from operator import index

    xs, k = list(logits), index(target)
    if not 0 <= k < len(xs):
        raise IndexError(f"cross_entropy: target {k} of {len(xs)} logits")
    right = xs[k]
    if not isinstance(right, Value):  # it comes twice, but is read once
        xs[k] = right = Value(right)
    return handle.many(_OPS["cross_entropy"], xs, (right,))


def _paired(name: str, scores: _Operands, what: str, targets: _Operands) -> Value:
    """A loss of n scores against n targets."""
    xs, ys = tuple(scores), tuple(targets)
    if len(xs) != len(ys):
        raise ValueError(f"{name}: {len(xs)} {what} but {len(ys)} targets")
    if not xs:
        raise ValueError(f"{name} of no {what}")
    return handle.many(_OPS[name], xs, ys)


def mse(predictions: _Operands, targets: _Operands) -> Value:
    """Mean of (predictions[k] - targets[k]) ** 2, as one node.

    Args:
        predictions, targets: iterables of Values and numbers, of the same length, not empty.

    Raises:
        ValueError: the lengths differ or are 0.

    >>> value_and_grad(mse)([1.0, 2.0], [1.0, 4.0])
    (2.0, [0.0, -2.0])
    """
    return _paired("mse", predictions, "predictions", targets)


def hinge(scores: _Operands, targets: _Operands) -> Value:
    """Mean of max(0, 1 - targets[k] * scores[k]), as one node; targets are -1 or 1.

    Args:
        scores, targets: iterables of Values and numbers, of the same length, not empty.

    Raises:
        ValueError: the lengths differ or are 0.

    >>> value_and_grad(hinge)([0.5, -2.0], [1.0, -1.0])
    (0.25, [-0.5, 0.0])
    """
    return _paired("hinge", scores, "scores", targets)
