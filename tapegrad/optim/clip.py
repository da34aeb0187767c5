"""Clipping of grads before a step (torch.nn.utils)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..bulk import flat
from ..value import Value, handle

if TYPE_CHECKING:
    from ..nn import Module


def _listed(parameters: Iterable[Value] | Module | Value) -> list[Value]:
    return [parameters] if isinstance(parameters, Value) else list(flat(parameters))


def clip_grad_norm_(
    parameters: Iterable[Value] | Module | Value,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> float:
    """Scale the grads down so that their norm is at most `max_norm` (torch.nn.utils.clip_grad_norm_).

    Args:
        parameters: an iterable of Values, a module, or one Value.
        max_norm: the largest norm that stays.
        norm_type: p of the norm sum(abs(g) ** p) ** (1 / p); inf: the largest.
        error_if_nonfinite: refuse a norm that is nan or infinite, instead of scaling by it.

    Returns:
        The norm of all grads before.

    Raises:
        RuntimeError: the norm is nan or infinite, and `error_if_nonfinite`; nothing has changed.

    >>> x = leaves([0.0, 0.0])
    >>> set_grads(x, [3.0, 4.0])
    >>> optim.clip_grad_norm_(x, 1.0), [round(g, 6) for g in grads(x)]
    (5.0, [0.6, 0.8])
    """
    values = _listed(parameters)
    grads = handle.grads(values)
    total = _norm(grads, float(norm_type))
    if error_if_nonfinite and not math.isfinite(total):
        raise RuntimeError(f"the norm of the grads is {total}: they cannot be clipped")
    scale = max_norm / (total + 1e-6)
    handle.set_grads(values, [g * (1.0 if scale > 1.0 else scale) for g in grads])
    return total


def _norm(grads: list[float], p: float) -> float:
    if any(g != g for g in grads):
        return math.nan
    if p == 2.0:
        return math.hypot(*grads)
    if math.isinf(p):
        return max(map(abs, grads), default=0.0) if p > 0 else min(map(abs, grads), default=0.0)
    if p == 0.0:
        return float(sum(g != 0.0 for g in grads))
    return float(math.fsum(abs(g) ** p for g in grads) ** (1.0 / p))


def clip_grad_value_(parameters: Iterable[Value] | Module | Value, clip_value: float) -> None:
    """Cut every grad to [-clip_value, clip_value] (torch.nn.utils.clip_grad_value_).

    Args:
        parameters: an iterable of Values, a module, or one Value.
        clip_value: the largest size that stays.

    >>> x = leaves([0.0, 0.0])
    >>> set_grads(x, [3.0, -0.5])
    >>> optim.clip_grad_value_(x, 1.0)
    >>> grads(x)
    [1.0, -0.5]
    """
    values, top = _listed(parameters), float(clip_value)
    handle.set_grads(values, [-top if g < -top else top if g > top else g for g in handle.grads(values)])
