"""Nests of numbers: how an argument or a result is made up of lists, tuples and NumPy arrays; flat and back.

A form is "number", ("list", forms), ("tuple", forms) or ("array", shape); it can be hashed, and written as JSON."""
from __future__ import annotations

import functools
import itertools
import operator
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

from .._refusals import as_number
from ..value import Value

Form = Any

NUMBER = "number"


def _is_array(x: Any) -> bool:
    return hasattr(x, "__array__") and hasattr(x, "shape") and x.shape != ()


def _element(x: Any) -> Any:
    """What an array of no dimensions holds; anything else as it is."""
    return x.item() if getattr(x, "shape", None) == () and hasattr(x, "item") else x


def form_of(x: Any, what: str) -> Form:
    """The form of a nest whose numbers may be Values."""
    if _is_array(x):
        return ("array", tuple(x.shape))
    if isinstance(x, (list, tuple)):
        kind = "tuple" if isinstance(x, tuple) else "list"
        return (kind, tuple(form_of(item, f"{what}[{k}]") for k, item in enumerate(x)))
    x = _element(x)
    if not isinstance(x, Value) and as_number(x) is NotImplemented:
        raise TypeError(f"{what} must be a number, a list or an array of them, not {type(x).__name__!r}")
    return NUMBER


@functools.lru_cache(maxsize=1024)
def size(form: Form) -> int:
    """How many numbers there are."""
    if form == NUMBER:
        return 1
    kind, parts = form
    if kind != "array":
        return sum(map(size, parts))
    n = 1
    for length in parts:
        n *= length
    return n


@functools.lru_cache(maxsize=1024)
def has_array(form: Form) -> bool:
    return form != NUMBER and (form[0] == "array" or any(map(has_array, form[1])))


@functools.lru_cache(maxsize=1024)
def shape(form: Form) -> tuple[int, ...] | None:
    """The shape of an array of the same numbers, or None where the parts of a list differ."""
    if form == NUMBER:
        return ()
    kind, parts = form
    if kind == "array":
        return tuple(parts)
    shapes = {shape(part) for part in parts}
    if len(shapes) != 1 or None in shapes:
        return None if parts else (0,)
    return (len(parts), *(shapes.pop() or ()))


def leaves(x: Any) -> list[Any]:
    """The elements of a nest, in order."""
    if _is_array(x):
        return x.ravel().tolist()  # type: ignore[no-any-return]
    if isinstance(x, (list, tuple)):
        return [leaf for item in x for leaf in leaves(item)]
    return [_element(x)]


def describe(form: Form) -> str:
    if form == NUMBER:
        return "a number"
    kind, parts = form
    if kind == "array":
        return f"an array of shape {parts}"
    return f"a {kind} of {len(parts)}"


def _came(x: Any) -> str:
    if _is_array(x):
        return f"an array of shape {tuple(x.shape)}"
    return f"{type(x).__name__!r} of {len(x)}" if isinstance(x, (list, tuple)) else repr(type(x).__name__)


def _differs(x: Any, form: Form, what: str) -> NoReturn:
    same_kind = _is_array(x) or isinstance(x, (list, tuple))
    error: type[Exception] = ValueError if same_kind and form != NUMBER else TypeError
    raise error(f"{what} is {_came(x)}, but was recorded as {describe(form)}")


def number(x: Any, what: str) -> float:
    x = _element(x)
    if isinstance(x, Value):
        raise TypeError(f"{what} is a Value; a program takes numbers: use v.data")
    if isinstance(x, (list, tuple)) or _is_array(x):
        _differs(x, NUMBER, what)
    k = as_number(x)
    if k is NotImplemented:
        raise TypeError(f"{what} must be a number, not {type(x).__name__!r}")
    return k  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=1024)
def reader(form: Form) -> Callable[[Any, str, array[float]], None]:
    """What flattens nests of this form."""
    if form == NUMBER:

        def read_number(x: Any, what: str, to: array[float]) -> None:
            to.append(x if type(x) is float else number(x, what))

        return read_number
    kind, parts = form
    readers: Iterable[Callable[[Any, str, array[float]], None]]
    if kind == "array":  # may be long, and from a file: takes no room here
        n, first = parts[0], reader(NUMBER if len(parts) == 1 else ("array", parts[1:]))
        readers, different = itertools.repeat(first), {first}
    else:
        n, readers = len(parts), [reader(part) for part in parts]
        different = set(readers)
    plain, array_shape = different <= {reader(NUMBER)}, shape(form)

    def read(x: Any, what: str, to: array[float]) -> None:
        if type(x) in _SEQUENCES and len(x) == n:
            if plain and set(map(type, x)) <= _PLAIN:
                to.extend(x)
                return
            for k, (item, read_item) in enumerate(zip(x, readers)):
                read_item(item, f"{what}[{k}]", to)
        elif _is_array(x) and x.shape == array_shape:
            to.frombytes(floats(x, what).tobytes())
        elif isinstance(x, (list, tuple)) and len(x) == n:
            read(list(x), what, to)
        else:
            _differs(x, form, what)

    return read


_SEQUENCES, _PLAIN = (list, tuple), {float, int}


def flatten(x: Any, form: Form, what: str, to: array[float]) -> None:
    """Append the numbers of a nest of this form; lists and arrays may stand for each other."""
    reader(form)(x, what, to)


def floats(x: Any, what: str) -> Any:
    """An array as contiguous float64: converted where it is of another type."""
    import numpy  # only who has an array has it loaded

    if x.dtype == object:
        return numpy.array([number(item, what) for item in x.ravel().tolist()], dtype=numpy.float64).reshape(x.shape)
    if x.dtype.kind not in "fiub":
        raise TypeError(f"{what} is an array of {x.dtype}, not of real numbers")
    return numpy.ascontiguousarray(x, dtype=numpy.float64)


def build(form: Form, items: Iterator[Any], stack: Callable[[list[Any], tuple[int, ...]], Any]) -> Any:
    """A nest of this form from its elements; stack makes the arrays."""
    if form == NUMBER:
        return next(items)
    kind, parts = form
    if kind == "array":
        return stack([next(items) for _ in range(size(form))], parts)
    nest = [build(part, items, stack) for part in parts]
    return tuple(nest) if kind == "tuple" else nest


@functools.lru_cache(maxsize=1024)
def _shaper(form: Form) -> Callable[[array[float], int], Any]:
    """What builds a nest of this form from the numbers from an index on."""
    if form == NUMBER:
        return operator.getitem
    kind, parts = form
    n = size(form)
    if kind == "array":

        def shape_array(flat: array[float], at: int) -> Any:
            import numpy

            return numpy.array(flat[at : at + n], dtype=numpy.float64).reshape(parts)

        return shape_array
    whole = tuple if kind == "tuple" else list
    if all(part == NUMBER for part in parts):
        return lambda flat, at: whole(flat[at : at + n])
    shapers, offsets = [_shaper(part) for part in parts], [0, *itertools.accumulate(map(size, parts))]
    return lambda flat, at: whole(shaper(flat, at + offset) for shaper, offset in zip(shapers, offsets))


def shaped(form: Form, flat: array[float]) -> Any:
    """A nest of this form from its numbers."""
    return _shaper(form)(flat, 0)


def numbers(items: list[Any], shape: tuple[int, ...]) -> Any:
    """A float64 array, of items that may be arrays themselves."""
    import numpy

    out = numpy.array(items, dtype=numpy.float64)
    return out.reshape(shape + out.shape[1:]) if items else numpy.zeros(shape)


def objects(items: list[Any], shape: tuple[int, ...]) -> Any:
    """An object array."""
    import numpy

    out = numpy.empty(len(items), dtype=object)
    out[:] = items
    return out.reshape(shape)
