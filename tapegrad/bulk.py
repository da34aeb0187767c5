"""Many Values at once: their data and grads as lists or NumPy arrays, one call each."""
from __future__ import annotations

from .value import Value, handle

TYPE_CHECKING = False  # of typing's, which takes long to import

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .nn import Module


def flat(values: Any) -> Any:
    """The elements of a NumPy array in order, the parameters of a module; anything else as it is."""
    if hasattr(values, "parameters"):
        return values.parameters()
    return values.ravel().tolist() if hasattr(values, "ravel") else values


def _shaped(numbers: list[float], values: Any) -> Any:
    """The numbers, as an array where the Values came in one."""
    if not hasattr(values, "ravel"):
        return numbers
    import numpy  # not at the top: only who has an array has it loaded

    return numpy.array(numbers, dtype=numpy.float64).reshape(values.shape)


def data(values: Iterable[Value] | Module) -> Any:
    """The data of Values.

    Args:
        values: an iterable of n Values, a NumPy object array of them, or a module.

    Returns:
        A list of n floats, or a float64 array of the same shape.

    >>> data(leaves([1.0, 2.0]))
    [1.0, 2.0]
    """
    return _shaped(handle.data(flat(values)), values)


def grads(values: Iterable[Value] | Module) -> Any:
    """The grads of Values.

    Args:
        values: an iterable of n Values, a NumPy object array of them, or a module.

    Returns:
        A list of n floats, or a float64 array of the same shape.

    >>> x = leaves([2.0, 3.0])
    >>> (x[0] * x[1]).backward()
    >>> grads(x)
    [3.0, 2.0]
    """
    return _shaped(handle.grads(flat(values)), values)


def set_data(values: Iterable[Value] | Module, numbers: Iterable[float]) -> None:
    """Write the data of Values.

    Args:
        values: an iterable of n Values, a NumPy object array of them, or a module.
        numbers: an iterable of n numbers, or a NumPy array; arrays must have the same shape.

    Raises:
        ValueError: there are more or fewer numbers than Values, or the shapes differ; nothing was written.

    >>> x = leaves([1.0, 2.0])
    >>> set_data(x, [3.0, 4.0])
    >>> data(x)
    [3.0, 4.0]
    """
    _same_shape(values, numbers)
    handle.set_data(flat(values), flat(numbers))


def set_grads(values: Iterable[Value] | Module, grads: Iterable[float]) -> None:
    """Write the grads of Values: those of a program, for an optimizer to step by.

    Args:
        values: an iterable of n Values, a NumPy object array of them, or a module.
        grads: an iterable of n numbers, or a NumPy array; arrays must have the same shape.

    Raises:
        ValueError: there are more or fewer numbers than Values, or the shapes differ; nothing was written.

    >>> x = leaves([1.0, 2.0])
    >>> set_grads(x, [3.0, 4.0])
    >>> grads(x)
    [3.0, 4.0]
    """
    _same_shape(values, grads)
    handle.set_grads(flat(values), flat(grads))


def zero_grad(values: Iterable[Value] | Module) -> None:
    """Set the grad of every Value to 0.0.

    Args:
        values: an iterable of Values, a NumPy object array of them, or a module.

    >>> x = leaves([1.0, 2.0])
    >>> (x[0] * x[1]).backward()
    >>> zero_grad(x)
    >>> grads(x)
    [0.0, 0.0]
    """
    handle.zero_grad(flat(values))


def _same_shape(values: Any, numbers: Any) -> None:
    here, there = getattr(values, "shape", None), getattr(numbers, "shape", None)
    if here is not None and there is not None and here != there:
        raise ValueError(f"Values of shape {here} but numbers of shape {there}")
