"""How a program is made: of a function that is run once on Values, or of a file."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

from ..value import Value
from . import file
from .form import Nest
from .program import Program
from .recorded import MAX_PATHS, Recorded, decoded

if TYPE_CHECKING:
    from ..loops import Loop
    from .program import P

__all__ = ["load", "record"]


def record(
    f: Callable[P, Nest], /, *examples: Nest, params: Iterable[Value] = (),
    on_branch: Literal["raise", "record"] = "raise", on_error: Literal["raise", "nan"] = "raise",
    strict: bool = False, max_paths: int = MAX_PATHS, **named: Nest,
) -> Program[P]:  # fmt: skip
    """Run f once on Values and freeze what it did as a program.

    Args:
        f: returns a Value or a nest of them. Numbers in it are constants; what is no number is given back as it is. It
            may branch on comparisons of its Values, `==` and truth among them, and on operations that refuse: each is
            kept as a guard.
        examples, named: the arguments, by position and by name: nests of lists, tuples, dicts, named tuples,
            dataclasses, and of what `optree` knows where that is installed. Numbers become Values, NumPy arrays object
            arrays of Values, as do pandas Series and DataFrames. What else is in them is a part of what is recorded: a
            replay has to be given what is equal. One that is changed in place is compared with itself, and so not
            found. Names that this function has itself go by position.
        params: Values that f closes over and that are inputs, too: every replay reads their data, and argnums="params"
            differentiates by them. Other Values that f closes over are constants, with the data that they have when
            the path is recorded.
        on_branch: "raise": a replay that would take another branch raises BranchChanged; "record": f is recorded there
            as well, a program for each path. Where an operation is refused, f may have an except for it: it is asked.
        on_error: "raise": what raises on Values raises in a replay; "nan": it gives nan, and no except of f's counts,
            but on a path that is yet to be recorded, where f runs: there it raises.
        strict: raise where f reads `.data`, sets `_backward` or goes past the tape otherwise, instead of warning, once
            a line.
        max_paths: how many paths are kept. Beyond, f is recorded anew for every call that takes another.

    Returns:
        A Program; for a type checker its call takes what f does, so that `Value | float` is what to annotate f with.

    Raises:
        TypeError, ValueError: f returned no number, or a Value that it did not compute.

    >>> program = record(lambda x, scale: scale * x[0] * x[1], [1.0, 1.0], scale=1.0)
    >>> program([2.0, 3.0], 4.0), program.grad([2.0, 3.0], scale=4.0)
    (24.0, [12.0, 8.0])
    """
    return Program(Recorded.of(f, examples, params, on_branch, on_error, strict, max_paths, named))


def load(path: str | bytes | os.PathLike[Any]) -> Program | Loop:
    """What `Program.save` or `Loop.save` wrote to a file, which may come from anywhere: nothing in it is trusted.

    Args:
        path: of the file.

    Returns:
        A Program, or a Loop, whose params are numbers. f is not in the file: a replay that leaves the paths that are
        raises BranchChanged.

    Raises:
        OSError: it cannot be read.
        TypeError: this is no path.
        ValueError: it is no program, is damaged, or was written by another version of the format.

    >>> record(lambda x: x * x, 1.0).save("square.program")
    >>> load("square.program")(3.0)
    9.0
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"load takes the path of a file, not {type(path).__name__!r}")
    if isinstance(path, bytes) and path.startswith(file.MAGIC):
        raise TypeError("load takes the path of a file, not what is in one: write these bytes to a file first")
    with open(path, "rb") as stream:
        return loaded(stream.read())


def loaded(data: bytes) -> Program | Loop:
    """What these bytes of a file hold; see `load`."""
    if data.startswith(file.MAGIC_OF_LOOPS):
        from ..loops import loop

        return loop.loaded(data)
    return Program(decoded(data))
