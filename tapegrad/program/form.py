"""How a nest is made up, flat and back: the forms of a number, an array, a list or tuple, and of what is no number."""
from __future__ import annotations

import functools
import itertools
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from .._refusals import as_number
from ..value import Value

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray
    from typing_extensions import TypeGuard

Nest = Any  # what is taken: numbers in containers, and what is no number beside them
Shaped = Any  # what is given: a nest as a form says, which no checker of types can know
T = TypeVar("T")
Leaf = Callable[["Form", int], object]


class Form(ABC):
    """How a nest is made up; a subclass for each kind. Forms never change; those that make up alike are equal.

    Its leaves are its numbers and its arrays.

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

    @abstractmethod
    def map(self, leaf: Leaf, at: int = 0, lists: bool = False) -> Any:
        """A nest of what leaf gives for each leaf, called with its form and the index of its first number.

        lists: what an array could stand for is a leaf, too.
        """

    def like(self, x: Any) -> Form:
        """The form of the same numbers in a nest of x's types; x was read by this form."""
        return self

    def leaves(self, what: str) -> Iterator[tuple[str, Form]]:
        """The names of its leaves, in order; a list of numbers counts as one."""
        yield what, self

    def names(self, what: str) -> Iterator[str]:
        """The names of its numbers, in order."""
        yield what


class Number(Form):
    """One number."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(1, (), False)

    def __str__(self) -> str:
        return "a number"

    def elements(self, x: Any) -> list[Any]:
        return [element(x)]

    def read(self, x: Nest, what: str, to: array[float]) -> None:
        to.append(x if type(x) is float else number(x, what))

    def shaped(self, flat: array[float], at: int = 0) -> float:
        return flat[at]

    def build(self, elements: Iterator[T], stack: object) -> T:
        return next(elements)

    def map(self, leaf: Leaf, at: int = 0, lists: bool = False) -> object:
        return leaf(self, at)

    def __reduce__(self) -> str:
        return "NUMBER"


NUMBER = Number()


class Static(Form):
    """What is no number: a part of what was recorded, which a replay has to be given again."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        super().__init__(0, None, False)
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is Static and same(self.value, other.value)

    def __hash__(self) -> int:
        return hash(type(self.value))

    def __str__(self) -> str:
        return shown(self.value)

    def elements(self, x: Any) -> list[Any]:
        return []

    def read(self, x: Nest, what: str, to: array[float]) -> None:
        if not same(x, self.value):
            raise ValueError(f"{what} is {shown(x)}, but was recorded as {self}")

    def shaped(self, flat: array[float], at: int = 0) -> object:
        return self.value

    def build(self, elements: object, stack: object) -> object:
        return self.value

    def map(self, leaf: object, at: int = 0, lists: bool = False) -> object:
        return self.value

    def leaves(self, what: str) -> Iterator[tuple[str, Form]]:
        return iter(())

    def names(self, what: str) -> Iterator[str]:
        return iter(())

    def __reduce__(self) -> tuple[Any, ...]:
        return Static, (self.value,)


def same(a: Any, b: Any) -> bool:
    try:
        return a is b or bool(a == b)
    except Exception:  # they cannot be compared, or what they give is neither true nor false
        return False


def shown(x: object) -> str:
    text = repr(x)
    return text if len(text) <= 60 else f"{text[:57]}..."


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
                differs(x, self, what)
            if self._plain and set(map(type, items)) <= PLAIN:
                to.extend(array("d", items))  # quicker than one after the other
                return
            for k, (item, part) in enumerate(zip(items, self.parts)):
                part.read(item, f"{what}[{k}]", to)
        elif is_array(x) and x.shape == self.shape:
            to.frombytes(floats(x, what).tobytes())
        else:
            differs(x, self, what)


PLAIN = {float, int}
ELEMENTS = {*PLAIN, Value}


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
        return as_array(x).ravel().tolist()

    def shaped(self, flat: array[float], at: int = 0) -> NDArray[float64]:
        import numpy

        return numpy.array(flat[at : at + self.size], dtype=numpy.float64).reshape(self.shape)

    def build(self, elements: Iterator[T], stack: Callable[[list[T], tuple[int, ...]], object]) -> object:
        return stack(list(itertools.islice(elements, self.size)), self.shape)

    def map(self, leaf: Leaf, at: int = 0, lists: bool = False) -> object:
        return leaf(self, at)

    def like(self, x: Any) -> Form:
        return self if is_array(x) else _listed(self.shape, x)

    def names(self, what: str) -> Iterator[str]:
        for place in itertools.product(*map(range, self.shape)):
            yield f"{what}{list(place)}"

    def __reduce__(self) -> tuple[Any, ...]:
        return Array, (self.shape,)


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
        if self._plain and set(map(type, x)) <= ELEMENTS:
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

    def map(self, leaf: Leaf, at: int = 0, lists: bool = False) -> Any:
        if lists and self.shape is not None:
            return leaf(self, at)
        return self.kind(mapped(self.parts, leaf, at, lists))

    def like(self, x: Any) -> Form:
        if self._plain and type(x) is self.kind:
            return self
        if is_array(x):
            return Array(cast("tuple[int, ...]", self.shape))
        kind = tuple if isinstance(x, tuple) else list
        if self._plain:
            return series(kind, len(self.parts))
        return Series(kind, tuple(part.like(item) for part, item in zip(self.parts, x)))

    def leaves(self, what: str) -> Iterator[tuple[str, Form]]:
        if self.shape is not None:
            yield what, self
        else:
            for k, part in enumerate(self.parts):
                yield from part.leaves(f"{what}[{k}]")

    def names(self, what: str) -> Iterator[str]:
        for k, part in enumerate(self.parts):
            yield from part.names(f"{what}[{k}]")

    def __reduce__(self) -> tuple[Any, ...]:
        return Series, (self.kind, self.parts)


def mapped(parts: Iterable[Form], leaf: Leaf, at: int, lists: bool) -> Iterator[Any]:
    """`Form.map` of each part, the numbers of the first one being from an index on."""
    for part in parts:
        yield part.map(leaf, at, lists)
        at += part.size


def _listed(shape: tuple[int, ...], x: Any) -> Form:
    """The form of the lists and tuples, with arrays at their ends perhaps, that came for an array of this shape."""
    if not shape:
        return NUMBER
    if is_array(x):
        return Array(shape)
    kind = tuple if isinstance(x, tuple) else list
    if len(shape) == 1:
        return series(kind, shape[0])
    return Series(kind, tuple(_listed(shape[1:], item) for item in x))


@functools.lru_cache(maxsize=64)
def series(kind: type[list[Any]] | type[tuple[Any, ...]], n: int) -> Series:
    """Of n numbers."""
    return Series(kind, (NUMBER,) * n)


def is_array(x: object) -> TypeGuard[NDArray[Any]]:
    return hasattr(x, "__array__") and hasattr(x, "shape") and x.shape != ()


def as_array(x: Any, what: str = "an argument") -> NDArray[Any]:
    """A NumPy array of what is an array: pandas's are, too.

    Raises:
        ValueError: there are masked elements, for which numbers stand that are not to be used.
    """
    numpy = _numpy()
    if type(x) is not numpy.ndarray and numpy.ma.is_masked(x):
        raise ValueError(f"{what} is an array with masked elements, which have no number: x.filled(..) gives them one")
    out: NDArray[Any] = numpy.asarray(x)
    return out


def element(x: Any) -> Any:
    """What an array of no dimensions holds; anything else as it is."""
    if getattr(x, "shape", None) != () or not hasattr(x, "item"):
        return x
    return (as_array(x) if hasattr(x, "mask") else x).item()


def _came(x: object) -> str:
    if is_array(x):
        return f"an array of shape {tuple(x.shape)}"
    return f"{type(x).__name__!r} of {len(x)}" if isinstance(x, (list, tuple)) else repr(type(x).__name__)


def differs(x: object, form: Form, what: str) -> NoReturn:
    indexed = is_array(x) or isinstance(x, (list, tuple))
    error: type[Exception] = ValueError if indexed and isinstance(form, _Indexed) else TypeError
    raise error(f"{what} is {_came(x)}, but was recorded as {form}")


def number(x: object, what: str) -> float:
    """What `Number.read` appends."""
    x = element(x)
    if isinstance(x, Value):
        raise TypeError(f"{what} is a Value; this takes numbers: v.data, or tapegrad.hvp of the program and the like")
    if isinstance(x, (list, tuple, dict)) or is_array(x):
        differs(x, NUMBER, what)
    k = as_number(x)
    if k is NotImplemented:
        raise TypeError(f"{what} must be a number, not {type(x).__name__!r}")
    return k  # type: ignore[no-any-return]


def floats(x: NDArray[Any], what: str) -> NDArray[float64]:
    """An array as contiguous float64: converted where it is of another type."""
    import numpy

    x = as_array(x, what)
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


def matrix(out: Form, by: Form, entries: Any, of_values: bool = False) -> Shaped:
    """Rows of derivatives, numbers or Values, made up like by each, in places shaped like out; arrays of numbers share
    the memory of the entries."""
    n = by.size
    table: Any = None
    if out.has_array or by.has_array:
        table = (objects(list(entries), (len(entries),)) if of_values else as_array(entries)).reshape((out.size, n))

    def part_of(at: int, rows: int, shape: tuple[int, ...], form: Form, k: int) -> Shaped:
        """A part of so many rows, in places of that shape."""
        part: Any = table[at : at + rows, k : k + form.size].reshape((*shape, *(form.shape or ())))
        return part.item() if part.shape == () else part

    def row(at: int) -> Shaped:
        if by.has_array:
            return by.map(functools.partial(part_of, at, 1, ()))
        these = entries[at * n : (at + 1) * n]
        return by.build(iter(these), objects) if of_values else by.shaped(these.tolist())

    def block(leaf: Form, at: int) -> Shaped:
        if leaf is NUMBER:
            return row(at)
        return by.map(functools.partial(part_of, at, leaf.size, leaf.shape or ()), lists=True)

    if out.has_array:
        return out.map(block)
    rows = list(table.reshape((out.size, *by.shape))) if type(by) is Array else map(row, range(out.size))
    return out.build(iter(rows), objects)
