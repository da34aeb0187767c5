"""What the C handle is told of a recorded function, so that calls at one point need no Python: csrc/handle/call.h."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._core import ffi
from .form import NUMBER, Array, Form, Series, Static
from .recorded import Recorded
from .replay import CData, Trace

DEEPEST = 100  # nests

# Lists where generators would do: CPython 3.12 and 3.13 do not survive an allocation that fails as they make one, and
# this is called within calls.


class _Unknown(Exception):
    """Of a form that is read and built in Python alone."""


def told(recorded: Recorded, mapped: tuple[tuple[bool, ...], int, int] | None = None) -> tuple[Any, ...] | None:
    """What `Quick._told` gives: what addresses are of, the paths, what they are part of, the params, whether what is
    refused is nan, and how arguments, params and result are made up. None: calls are not for there, hold or are loops.

    mapped: over rows, which arguments are, how they are reduced, on how many threads."""
    compiled = len(recorded.compiled)  # before the paths are read, so that none is compiled unnoticed
    paths = [(path, path.native) for path in recorded.paths]
    if [path for path, _ in paths if type(path) is not Trace or path.calls]:
        return None
    try:
        return (
            paths,
            tuple([(_address(p.core), _address(native[0]) if native else 0, p.cost, p.slice) for p, native in paths]),
            recorded.compiled, compiled, recorded.paths, recorded.children, recorded.params, recorded.on_error == "nan",
            _series(tuple, None, recorded.forms, 0), _form(recorded.param_place.form, 0), _form(recorded.out, 0),
            mapped,
        )  # fmt: skip
    except _Unknown:
        return None


def _address(pointer: CData) -> int:
    return int(ffi.cast("uintptr_t", pointer))


def _form(form: Form, depth: int) -> tuple[Any, ...] | None:
    """A description; see csrc/handle/form.h."""
    if form is NUMBER:
        return None
    if type(form) is Static:
        return (form.value,)
    if type(form) is Array:
        row = Array(form.shape[1:]) if len(form.shape) > 1 else NUMBER
        return None, form.shape, form.shape[0], (_form(row, depth + 1),)
    if type(form) is Series and depth < DEEPEST:
        return _series(form.kind, form.shape, form.parts, depth)
    raise _Unknown


def _series(kind: type, shape: tuple[int, ...] | None, parts: Sequence[Form], depth: int) -> tuple[Any, ...]:
    alike = len(parts) > 1 and parts.count(parts[0]) == len(parts)
    found = tuple([_form(part, depth + 1) for part in (parts[:1] if alike else parts)])
    return kind, shape, len(parts), found
