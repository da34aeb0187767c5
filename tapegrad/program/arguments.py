"""What a recorded function takes: the forms of its arguments, by position and by name."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FunctionType
from typing import Any

from .form import Form
from .nest import form_of

_MISSING: Any = object()


class Arguments(tuple[Form, ...]):
    """The forms of all arguments, in order.

    Attributes:
        names: of each argument, "" where it has none.
        by_name: how many of them, the last ones, f is given by name.
    """

    names: tuple[str, ...]
    by_name: int

    def __new__(cls, forms: Iterable[Form] = (), names: Sequence[str] | None = None, by_name: int = 0) -> Arguments:
        made = super().__new__(cls, forms)
        made.names = ("",) * len(made) if names is None else tuple(names)
        made.by_name = by_name
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Arguments, (tuple(self), self.names, self.by_name)

    def label(self, k: int) -> str:
        """What messages call argument k."""
        return self.names[k] or str(k)

    def leaves(self) -> Iterator[tuple[str, Form]]:
        """The names of all leaves, in order, and their forms; a list of numbers counts as one."""
        for k, form in enumerate(self):
            yield from form.leaves(self.names[k] or f"argument {k}")

    def number_names(self) -> list[str]:
        """The names of all numbers, in order."""
        return [name for k, form in enumerate(self) for name in form.names(f"argument {self.label(k)}")]

    def check_count(self, n: int, what: str = "arguments") -> None:
        """Raise a TypeError where n are given, by position, instead of one for each argument."""
        if n == len(self):
            return
        missing = [f"argument {self.label(k)}" for k in range(n, len(self))]
        raise TypeError(
            f"the program takes {len(self)} {what if len(self) != 1 else what[:-1]}, not {n}"
            + (f": {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing" if missing else "")
        )

    def passed_to(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """f, called with all arguments by position."""
        n, names = len(self) - self.by_name, self.names
        return (lambda *args: f(*args[:n], **dict(zip(names[n:], args[n:])))) if self.by_name else f

    def bound(self, args: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, ...]:
        """All arguments, in order.

        Raises:
            TypeError: they are not those that were recorded.
        """
        if not named:
            return tuple(args)
        values = [*args, *[_MISSING] * (len(self) - len(args))]
        for name, x in named.items():
            if not name or name not in self.names:
                known = ", ".join(name or "one by position" for name in self.names)
                raise TypeError(f"the program takes no argument {name!r}; it takes {known}")
            k = self.names.index(name)
            if values[k] is not _MISSING:
                raise TypeError(f"argument {name} is given by position and by name")
            values[k] = x
        if len(args) > len(self):
            self.check_count(len(args))
        for k, x in enumerate(values):
            if x is _MISSING:
                what = f"argument {self.label(k)} is missing"
                raise TypeError(f"the program takes {len(self)} arguments, not {len(args) + len(named)}: {what}")
        return tuple(values)


def _names(f: Callable[..., Any], n: int) -> list[str]:
    """By which names f takes its first n arguments, too."""
    names: list[str] = []
    if type(f) is FunctionType and not hasattr(f, "__wrapped__"):
        code = f.__code__
        names = [*[""] * code.co_posonlyargcount, *code.co_varnames[code.co_posonlyargcount : code.co_argcount]]
    else:
        import inspect  # slow to import, and to use

        try:
            for parameter in inspect.signature(f).parameters.values():
                if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                    break
                names.append(parameter.name if parameter.kind is parameter.POSITIONAL_OR_KEYWORD else "")
        except (TypeError, ValueError):  # it has none
            pass
    return [*names, *[""] * n][:n]


def arguments_of(
    f: Callable[..., Any], args: Sequence[Any], named: Mapping[str, Any]
) -> tuple[Sequence[Any], Arguments]:
    """These arguments of f, all in order, and what they are as arguments of a program.

    Those by name that f takes by position as well stand by position, where all before them are given.
    """
    names = _names(f, len(args) + len(named))
    by_name = dict(named)
    values = list(args)
    for name in names[len(args) :]:
        if name not in by_name:
            break
        values.append(by_name.pop(name))
    names[len(values) :] = by_name
    values += by_name.values()
    forms = [form_of(x, f"example {name or k}") for k, (x, name) in enumerate(zip(values, names))]
    return values, Arguments(forms, names, len(by_name))
