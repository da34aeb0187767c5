"""Rows of the table as functions of Values or of numbers: of numbers alone a float, with the bits that a Value has."""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from ._core import ffi, lib
from ._refusals import refused
from .value import Value, handle

if TYPE_CHECKING:
    from ._c_handle import _Number

_F = TypeVar("_F", bound=Callable[..., Any])
OPS = {ffi.string(lib.tg_ops[op].name).decode(): op for op in range(lib.tg_op_count)}


class Unary(Protocol):
    """y = f(x)."""

    @overload
    def __call__(self, x: Value, /) -> Value: ...
    @overload
    def __call__(self, x: _Number, /) -> float: ...


class Binary(Protocol):
    """z = f(x, y)."""

    @overload
    def __call__(self, x: Value, y: Value | _Number, /) -> Value: ...
    @overload
    def __call__(self, x: _Number, y: Value, /) -> Value: ...
    @overload
    def __call__(self, x: _Number, y: _Number, /) -> float: ...


def as_float(x: Any) -> float:
    """What the functions of math take for a number."""
    if type(x) is float:
        return x
    kind = type(x)
    if (hasattr(kind, "__float__") or hasattr(kind, "__index__")) and not isinstance(x, (str, bytes)):
        return float(x)
    raise TypeError(f"must be real number, not {kind.__name__}")


def evaluated(op: int, a: float, b: float) -> float:
    """A row of the table on floats."""
    y: float = lib.tg_value(op, a, b)
    if y - y != 0.0:
        code = ffi.new("int *")
        lib.tg_evaluate(op, a, b, code)
        if code[0]:
            raise refused(code[0], op, a, b)
    return y


def unary(row: str, name: str = "") -> Unary:
    """The function of a row of one operand, under the row's method's name or another."""
    op = OPS[row]
    method = ffi.string(lib.tg_ops[op].method).decode()

    def function(x: Any, /) -> Any:
        if isinstance(x, Value):
            return getattr(x, method)()
        a = as_float(x)
        return evaluated(op, a, a)

    named: Unary = _named(function, op, name or method)
    return named


def binary(row: str, name: str = "") -> Binary:
    """The function of a row of two operands, under the row's method's name or another."""
    op = OPS[row]
    method = ffi.string(lib.tg_ops[op].method).decode()

    def function(x: Any, y: Any, /) -> Any:
        if isinstance(x, Value):
            return getattr(x, method)(y)
        if isinstance(y, Value):
            return getattr(Value(as_float(x)), method)(y)
        return evaluated(op, as_float(x), as_float(y))

    named: Binary = _named(function, op, name or method)
    return named


def _named(function: Any, op: int, name: str) -> Any:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = ffi.string(lib.tg_ops[op].doc).decode() + "."
    return function


def chosen(c: Any, a: Any, b: Any) -> Any:
    """a where c is not 0, else b; a Value where one of the three is."""
    if isinstance(c, Value) or isinstance(a, Value) or isinstance(b, Value):
        return handle.many(OPS["WHERE"], (c if isinstance(c, Value) else float(bool(c)), a, b))
    return as_float(a if c else b)


def elementwise(function: _F) -> _F:
    """The same function, of NumPy arrays element by element: an object array."""

    @functools.wraps(function)
    def mapped(*operands: Any) -> Any:
        for x in operands:
            if type(x) is not float and hasattr(x, "dtype") and hasattr(x, "__len__"):
                import numpy  # not at the top: only who has an array has it loaded

                return numpy.frompyfunc(function, len(operands), 1)(*operands)
        return function(*operands)

    return mapped  # type: ignore[return-value]  # it has the signature of function
