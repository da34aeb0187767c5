"""Many Values at once: their data and grads as lists or NumPy arrays, one call each."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .value import Value, handle


def _flat(values: Any) -> Any:
    """The elements of a NumPy array in order; anything else as it is."""
    return values.ravel().tolist() if hasattr(values, "ravel") else values


def _shaped(numbers: list[float], values: Any) -> Any:
    """The numbers, as an array where the Values came in one."""
    if not hasattr(values, "ravel"):
        return numbers
    import numpy  # not at the top: only who has an array has it loaded

    return numpy.array(numbers, dtype=numpy.float64).reshape(values.shape)


def data(values: Iterable[Value]) -> Any:
    """The data of Values.

    Args:
        values: an iterable of n Values, or a NumPy object array of them.

    Returns:
        A list of n floats, or a float64 array of the same shape.
    """
    return _shaped(handle.data(_flat(values)), values)


def grads(values: Iterable[Value]) -> Any:
    """The grads of Values.

    Args:
        values: an iterable of n Values, or a NumPy object array of them.

    Returns:
        A list of n floats, or a float64 array of the same shape.
    """
    return _shaped(handle.grads(_flat(values)), values)


def set_data(values: Iterable[Value], numbers: Iterable[float]) -> None:
    """Write the data of Values.

    Args:
        values: an iterable of n Values, or a NumPy object array of them.
        numbers: an iterable of n numbers, or a NumPy array; arrays must have the same shape.

    Raises:
        ValueError: there are more or fewer numbers than Values, or the shapes differ; nothing was written.
    """
    here, there = getattr(values, "shape", None), getattr(numbers, "shape", None)
    if here is not None and there is not None and here != there:
        raise ValueError(f"Values of shape {here} but numbers of shape {there}")
    handle.set_data(_flat(values), _flat(numbers))
