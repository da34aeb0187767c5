"""Nests of numbers: how an argument or a result is made up of lists, tuples and NumPy arrays; flat and back."""
from __future__ import annotations

import functools
import itertools
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, SupportsFloat, SupportsIndex, TypeVar, Union

from .._refusals import as_number
from ..value import Value

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray
    from typing_extensions import TypeGuard

Nest = Union[Value, SupportsFloat, SupportsIndex, Sequence["Nest"]]  # what is taken: NumPy's arrays have __float__
Shaped = Any  # what is given: a nest as a form says, which no checker of types can know
T = TypeVar("T")


class Form(ABC):
    """How a nest is made up; a subclass for each kind. Forms never change; those that make up alike are equal.

    Attributes:
        size: how many numbers there are.
        shape: of an array of the same numbers, or None where the parts of a list differ.
        has_array: whether there is an array in it.
    """

    __slots__ = ("has_array", "shape", "size")

    def __init__(self, size: int, shape: tuple[int, ...] | None, has_array: bool) -> None:
        self.size, self.shape, self.has_array = size, shape, has_array

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def elements(self, x: Any) -> list[Any]:
        """The elements of a nest that has this form, in order."""

    @abstractmethod
    def read(self, x: Nest, what: str, to: array[float]) -> None:
        """Append the numbers of a nest, which has to have this form; lists and arrays may stand for each other."""

    @abstractmethod
    def shaped(self, flat: array[float], at: int = 0) -> Shaped:
        """A nest of the numbers from an index on."""

    @abstractmethod
    def build(self, elements: Iterator[T], stack: Callable[[list[T], tuple[int, ...]], object]) -> Any:
        """A nest of other elements; stack makes the arrays."""


class Number(Form):
    """One number."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(1, (), False)

    def __str__(self) -> str:
        return "a number"

    def elements(self, x: Any) -> list[Any]:
        return [_element(x)]

    def read(self, x: Nest, what: str, to: array[float]) -> None:
        to.append(x if type(x) is float else number(x, what))

    def shaped(self, flat: array[float], at: int = 0) -> float:
        return flat[at]

    def build(self, elements: Iterator[T], stack: object) -> T:
        return next(elements)


NUMBER = Number()


class _Indexed(Form):
    """What has parts by number, `parts` of which may go on for ever."""

    __slots__ = ("_length", "_plain", "parts")

    def __init__(
        self, size: int, shape: tuple[int, ...] | None, has_array: bool, parts: Iterable[Form], length: int, plain: bool
    ) -> None:
        super().__init__(size, shape, has_array)
        self.parts, self._length = parts, length
        self._plain = plain  # all parts are numbers

    def read(self, x: Nest, what: str, to: array[float]) -> None:
        if isinstance(x, (list, tuple)):
            items = tuple(x)  # reading may run code that changes x
            if len(items) != self._length:
                _differs(x, self, what)
            if self._plain and set(map(type, items)) <= _PLAIN:
                to.extend(items)
                return
            for k, (item, part) in enumerate(zip(items, self.parts)):
                part.read(item, f"{what}[{k}]", to)
        elif is_array(x) and x.shape == self.shape:
            to.frombytes(floats(x, what).tobytes())
        else:
            _differs(x, self, what)


_PLAIN = {float, int}
_ELEMENTS = {float, int, Value}


class Array(_Indexed):
    """A NumPy array of at least one dimension."""

    __slots__ = ()
    shape: tuple[int, ...]

    def __init__(self, shape: tuple[int, ...]) -> None:
        size = 1
        for length in shape:
            size *= length
        row = Array(shape[1:]) if len(shape) > 1 else NUMBER  # may be many, and from a file: they take no room
        super().__init__(size, shape, True, itertools.repeat(row), shape[0], row is NUMBER)

    def __eq__(self, other: object) -> bool:
        return type(other) is Array and self.shape == other.shape

    def __hash__(self) -> int:
        return hash(self.shape)

    def __str__(self) -> str:
        return f"an array of shape {self.shape}"

    def elements(self, x: Any) -> list[Any]:
        return x.ravel().tolist()  # type: ignore[no-any-return]

    def shaped(self, flat: array[float], at: int = 0) -> NDArray[float64]:
        import numpy

        return numpy.array(flat[at : at + self.size], dtype=numpy.float64).reshape(self.shape)

    def build(self, elements: Iterator[T], stack: Callable[[list[T], tuple[int, ...]], object]) -> object:
        return stack(list(itertools.islice(elements, self.size)), self.shape)


class Series(_Indexed):
    """A list or a tuple, whichever `kind` is."""

    __slots__ = ("kind",)
    parts: tuple[Form, ...]

    def __init__(self, kind: type[list[Any]] | type[tuple[Any, ...]], parts: tuple[Form, ...]) -> None:
        n, first = len(parts), parts[0] if parts else NUMBER
        shape: tuple[int, ...] | None
        if parts.count(first) == n:
            size, shape, has_array, plain = n * first.size, first.shape, first.has_array, first is NUMBER
        else:
            size, has_array, plain = sum(part.size for part in parts), any(part.has_array for part in parts), False
            shape = first.shape if all(part.shape == first.shape for part in parts) else None
        super().__init__(size, None if shape is None else (n, *shape), has_array, parts, n, plain)
        self.kind = kind

    def __eq__(self, other: object) -> bool:
        return type(other) is Series and self.kind is other.kind and self.parts == other.parts

    def __hash__(self) -> int:
        return hash((self.kind, self.parts))

    def __str__(self) -> str:
        return f"a {self.kind.__name__} of {len(self.parts)}"

    def elements(self, x: Any) -> list[Any]:
        if self._plain and set(map(type, x)) <= _ELEMENTS:
            return list(x)
        return [element for part, item in zip(self.parts, x) for element in part.elements(item)]

    def shaped(self, flat: array[float], at: int = 0) -> Shaped:
        if self._plain:
            return self.kind(flat[at : at + self.size])
        found = []
        for part in self.parts:
            found.append(part.shaped(flat, at))
            at += part.size
        return self.kind(found)

    def build(self, elements: Iterator[T], stack: Callable[[list[T], tuple[int, ...]], object]) -> Any:
        if self._plain:
            return self.kind(itertools.islice(elements, self.size))
        return self.kind([part.build(elements, stack) for part in self.parts])


@functools.lru_cache(maxsize=64)
def series_of_numbers(kind: type[list[Any]] | type[tuple[Any, ...]], n: int) -> Series:
    return Series(kind, (NUMBER,) * n)


def form_of(x: object, what: str) -> Form:
    """The form of a nest whose numbers may be Values.

    Raises:
        TypeError: there is something else in it.
    """
    if is_array(x):
        return Array(tuple(x.shape))
    if isinstance(x, (list, tuple)):
        kind, items = tuple if isinstance(x, tuple) else list, tuple(x)
        if set(map(type, items)) <= _ELEMENTS:
            return series_of_numbers(kind, len(items))
        return Series(kind, tuple(form_of(item, f"{what}[{k}]") for k, item in enumerate(items)))
    x = _element(x)
    if not isinstance(x, Value) and as_number(x) is NotImplemented:
        raise TypeError(f"{what} must be a number, a list or an array of them, not {type(x).__name__!r}")
    return NUMBER


def is_array(x: object) -> TypeGuard[NDArray[Any]]:
    return hasattr(x, "__array__") and hasattr(x, "shape") and x.shape != ()


def _element(x: Any) -> Any:
    """What an array of no dimensions holds; anything else as it is."""
    return x.item() if getattr(x, "shape", None) == () and hasattr(x, "item") else x


def _came(x: object) -> str:
    if is_array(x):
        return f"an array of shape {tuple(x.shape)}"
    return f"{type(x).__name__!r} of {len(x)}" if isinstance(x, (list, tuple)) else repr(type(x).__name__)


def _differs(x: object, form: Form, what: str) -> NoReturn:
    same_kind = is_array(x) or isinstance(x, (list, tuple))
    error: type[Exception] = ValueError if same_kind and form is not NUMBER else TypeError
    raise error(f"{what} is {_came(x)}, but was recorded as {form}")


def number(x: object, what: str) -> float:
    """What `Number.read` appends."""
    x = _element(x)
    if isinstance(x, Value):
        raise TypeError(f"{what} is a Value; a program takes numbers: use v.data")
    if isinstance(x, (list, tuple)) or is_array(x):
        _differs(x, NUMBER, what)
    k = as_number(x)
    if k is NotImplemented:
        raise TypeError(f"{what} must be a number, not {type(x).__name__!r}")
    return k  # type: ignore[no-any-return]


def floats(x: NDArray[Any], what: str) -> NDArray[float64]:
    """An array as contiguous float64: converted where it is of another type."""
    import numpy  # only who has an array has it loaded

    if x.dtype == object:
        return numpy.array([number(item, what) for item in x.ravel().tolist()], dtype=numpy.float64).reshape(x.shape)
    if x.dtype.kind not in "fiub":
        raise TypeError(f"{what} is an array of {x.dtype}, not of real numbers")
    return numpy.ascontiguousarray(x, dtype=numpy.float64)


# ---- what `Form.build` stacks with ----


@functools.cache
def _numpy() -> Any:
    """Only who has an array has it loaded; an import statement takes longer than what these functions do."""
    import numpy

    return numpy


def numbers(items: list[Any], shape: tuple[int, ...]) -> NDArray[float64]:
    """A float64 array, of items that may be arrays themselves."""
    numpy = _numpy()
    out: NDArray[float64] = numpy.array(items, dtype=numpy.float64)
    if not items:
        return out.reshape(shape)
    return out if len(shape) == 1 else out.reshape(shape + out.shape[1:])


def objects(items: list[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """An object array."""
    numpy = _numpy()
    out: NDArray[Any] = numpy.empty(len(items), dtype=object)
    out[:] = items
    return out if len(shape) == 1 else out.reshape(shape)
