"""Forms of containers with parts by name: dicts, named tuples, dataclasses, and those that optree knows."""
from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar

from .form import Form, Leaf, Nest, Shaped, differs, mapped, same, shown

T = TypeVar("T")


class Container(Form):
    """What has parts by name; a subclass says how it is taken apart and put together.

    Attributes:
        parts: forms, in order.
    """

    __slots__ = ("parts",)

    def __init__(self, parts: tuple[Form, ...]) -> None:
        super().__init__(sum(part.size for part in parts), None, any(part.has_array for part in parts))
        self.parts = parts

    @abstractmethod
    def _key(self) -> tuple[Any, ...]:
        """What it is made of, parts included: what its class is called with."""

    @abstractmethod
    def labels(self) -> list[str]:
        """How each part is written behind the name of the whole."""

    @abstractmethod
    def takes(self, x: object) -> bool:
        """Whether x is a container of this kind."""

    @abstractmethod
    def open(self, x: Any, what: str) -> Sequence[Any]:
        """The parts of x, in order; x has to have these and no others."""

    @abstractmethod
    def close(self, parts: Sequence[Any]) -> Any:
        """The container of other parts."""

    @abstractmethod
    def with_parts(self, parts: tuple[Form, ...], x: object) -> Container:
        """The form of other parts in a container of x's type."""

    def closing(self, x: object) -> Callable[[Sequence[Any]], Any]:
        """As `close`, of x's type."""
        return self.with_parts(self.parts, x).close

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash((type(self), self.parts))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._key()

    def elements(self, x: Any) -> list[Any]:
        return [e for part, item in zip(self.parts, self.open(x, "it")) for e in part.elements(item)]

    def read(self, x: Nest, what: str, to: array[float]) -> None:
        if not self.takes(x):
            differs(x, self, what)
        for part, label, item in zip(self.parts, self.labels(), self.open(x, what)):
            part.read(item, what + label, to)

    def shaped(self, flat: array[float], at: int = 0) -> Shaped:
        return self.map(lambda form, k: form.shaped(flat, k), at)

    def build(self, elements: Iterator[T], stack: Callable[[list[T], tuple[int, ...]], object]) -> Any:
        return self.close([part.build(elements, stack) for part in self.parts])

    def map(self, leaf: Leaf, at: int = 0, lists: bool = False) -> Any:
        return self.close(list(mapped(self.parts, leaf, at, lists)))

    def like(self, x: Any) -> Form:
        return self.with_parts(tuple(part.like(item) for part, item in zip(self.parts, self.open(x, "it"))), x)

    def leaves(self, what: str) -> Iterator[tuple[str, Form]]:
        for part, label in zip(self.parts, self.labels()):
            yield from part.leaves(what + label)

    def names(self, what: str) -> Iterator[str]:
        for part, label in zip(self.parts, self.labels()):
            yield from part.names(what + label)


class Mapping(Container):
    """A dict; one that is read has the same keys in any order."""

    __slots__ = ("keys",)

    def __init__(self, keys: tuple[Any, ...], parts: tuple[Form, ...]) -> None:
        super().__init__(parts)
        self.keys = keys

    def __str__(self) -> str:
        return f"a dict of {shown(list(self.keys))}"

    def _key(self) -> tuple[Any, ...]:
        return self.keys, self.parts

    def labels(self) -> list[str]:
        return [f"[{key!r}]" for key in self.keys]

    def takes(self, x: object) -> bool:
        return isinstance(x, dict)

    def open(self, x: Any, what: str) -> Sequence[Any]:
        items = dict(x)
        _check_names(items, self.keys, "key", what)
        return [items[key] for key in self.keys]

    def close(self, parts: Sequence[Any]) -> Any:
        return dict(zip(self.keys, parts))

    def with_parts(self, parts: tuple[Form, ...], x: object) -> Container:
        return Mapping(self.keys, parts)


class Fields(Container):
    """A named tuple, a dataclass or a `SimpleNamespace`; what is read has the same fields, whichever of these it is.

    One of a dataclass is made without calling it: what it checks and derives is for the numbers, not for Values and
    gradients.
    """

    __slots__ = ("cls", "fields")

    cls: Any  # a type

    def __init__(self, cls: type[Any], fields: tuple[str, ...], parts: tuple[Form, ...]) -> None:
        super().__init__(parts)
        self.cls, self.fields = cls, fields

    def __str__(self) -> str:
        return f"a {self.cls.__name__} of {shown(list(self.fields))}"

    def _key(self) -> tuple[Any, ...]:
        return self.cls, self.fields, self.parts

    def labels(self) -> list[str]:
        return [f".{name}" for name in self.fields]

    def takes(self, x: object) -> bool:
        return field_names(x) is not None

    def open(self, x: Any, what: str) -> Sequence[Any]:
        _check_names(dict.fromkeys(field_names(x) or ()), self.fields, "field", what)
        return [getattr(x, name) for name in self.fields]

    def close(self, parts: Sequence[Any]) -> Any:
        if hasattr(self.cls, "_fields"):
            named = dict(zip(self.fields, parts))
            return self.cls._make([named[name] for name in self.cls._fields])
        made = self.cls.__new__(self.cls)
        for name, part in zip(self.fields, parts):
            object.__setattr__(made, name, part)  # a frozen one has no other way
        return made

    def with_parts(self, parts: tuple[Form, ...], x: object) -> Container:
        return Fields(type(x), self.fields, parts)


class Registered(Container):
    """A container that `optree` knows, taken apart one level at a time."""

    __slots__ = ("_close", "_entries", "_metadata", "cls")

    def __init__(
        self, cls: type[Any], entries: tuple[Any, ...], metadata: Any, close: Callable[[Any, Any], Any],
        parts: tuple[Form, ...],
    ) -> None:  # fmt: skip
        super().__init__(parts)
        self.cls, self._entries, self._metadata, self._close = cls, entries, metadata, close

    def __str__(self) -> str:
        return f"a {self.cls.__name__} of {shown(list(self._entries))}"

    def _key(self) -> tuple[Any, ...]:
        return self.cls, self._entries, self._metadata, self._close, self.parts

    def labels(self) -> list[str]:
        return [f"[{entry!r}]" for entry in self._entries]

    def takes(self, x: object) -> bool:
        return type(x) is self.cls

    def open(self, x: Any, what: str) -> Sequence[Any]:
        children, metadata, entries, _ = one_level(x)
        if len(children) != len(self.parts) or not same(metadata, self._metadata):
            raise ValueError(f"{what} is a {self.cls.__name__} of {shown(list(entries))}, but was recorded as {self}")
        return children  # type: ignore[no-any-return]

    def close(self, parts: Sequence[Any]) -> Any:
        return self._close(self._metadata, tuple(parts))

    def with_parts(self, parts: tuple[Form, ...], x: object) -> Container:
        return Registered(self.cls, self._entries, self._metadata, self._close, parts)


def field_names(x: Any) -> tuple[str, ...] | None:
    """The fields of a named tuple, a dataclass or a `SimpleNamespace`; None of anything else."""
    if isinstance(x, tuple):
        return getattr(x, "_fields", None)
    if isinstance(x, SimpleNamespace):
        return tuple(vars(x))
    if hasattr(type(x), "__dataclass_fields__"):
        import dataclasses  # slow, and there already

        return tuple(field.name for field in dataclasses.fields(x))
    return None


def _check_names(came: dict[Any, Any], recorded: tuple[Any, ...], kind: str, what: str) -> None:
    for name in recorded:
        if name not in came:
            raise ValueError(f"{what} has no {kind} {name!r}, but was recorded with it")
    if len(came) > len(recorded):
        other = next(name for name in came if name not in recorded)
        raise ValueError(f"{what} has the {kind} {other!r}, but was recorded without it")


def one_level(x: Any) -> Any:
    """Its children, metadata, entries, and what puts it together."""
    import optree

    return optree.tree_flatten_one_level(x, none_is_leaf=True)
