"""An operation recorded: a method a row, operators with their reflected twins, and comparisons."""
from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NoReturn

from .._core import ffi, lib
from . import handle
from .handle import ROWS, Handle, alone, grad_off, joined, new, node, number, refuse, tape
from .held import room
from .recording import note_comparison

_POW, _POWK = ROWS["POW"], ROWS["POWK"]
_COMPARISONS = (operator.lt, operator.le, operator.gt, operator.ge)


@alone
def _two(op: int, x: Handle, y: Handle) -> Handle:
    room(1)
    i = lib.tg_record(tape, op, node(x), node(y))
    if i < 0:
        refuse(i, op, tape.data[x._id], tape.data[y._id])
    if handle.off_anywhere and grad_off():
        return as_leaf(i)
    if x._special or y._special or x._holds is not y._holds:
        return new(i, joined((x, y)))
    return new(i, x._holds)


@alone
def _with_number(op: int, x: Handle, k: float, first: bool, written_int: bool) -> Handle:
    room(2)
    i = lib.tg_record_number(tape, op, node(x), k, first, written_int)
    if i < 0:
        a = tape.data[x._id]
        refuse(i, op, *((k, a) if first else (a, k)))
    if handle.off_anywhere and grad_off():
        return as_leaf(i)
    return new(i, x if x._special else x._holds)


def as_leaf(i: int) -> Handle:
    """Undo the newest node, keep its data."""
    data = tape.data[i]
    lib.tg_pop(tape)
    return leaf(data)


def leaf(data: float) -> Handle:
    """A new leaf. There is room."""
    i = lib.tg_leaf(tape, data)
    if i < 0:
        refuse(i)
    return new(i, None)


@alone
def _compared(how: int, v: Handle, other: Any) -> bool:
    """Whether a Value compares so with a Value or a float."""
    outcome: bool = _COMPARISONS[how](
        tape.data[node(v)], tape.data[node(other)] if isinstance(other, Handle) else other
    )
    if tape.recorders:
        note_comparison(v, other, how, outcome)
    return outcome


class Operations(Handle):
    """What a Value reckons with; a method a row comes from the table."""

    __slots__ = ()

    def __pow__(self, other: Any, modulus: None = None) -> Handle:
        """a ** b."""
        if modulus is not None:
            return NotImplemented
        if isinstance(other, Handle):
            return _two(_POW, self, other)
        k = number(other)
        if k is NotImplemented:
            if not hasattr(type(other), "__rpow__"):
                _no_power(self, other)
            return NotImplemented
        return _with_number(_POWK, self, k, False, not isinstance(other, float))

    def __rpow__(self, other: Any, modulus: None = None) -> Handle:
        """b ** a, b a number."""
        k = number(other)
        if k is NotImplemented:
            _no_power(other, self)
        return _with_number(_POW, self, k, True, False)

    def __pos__(self) -> Handle:
        return self

    def _compare(self, how: int, other: Any) -> bool:
        k: Any = None if isinstance(other, Handle) else number(other)
        return k if k is NotImplemented else _compared(how, self, other if k is None else k)

    def __lt__(self, other: Any) -> bool:
        return self._compare(0, other)

    def __le__(self, other: Any) -> bool:
        return self._compare(1, other)

    def __gt__(self, other: Any) -> bool:
        return self._compare(2, other)

    def __ge__(self, other: Any) -> bool:
        return self._compare(3, other)


def _no_power(a: Any, b: Any) -> NoReturn:
    """What CPython says by itself; PyPy names no types for this operator alone."""
    names = f"{type(a).__name__!r} and {type(b).__name__!r}"
    raise TypeError(f"unsupported operand type(s) for ** or pow(): {names}")


def _unary(op: int) -> Callable[[Handle], Handle]:
    def method(self: Handle, /) -> Handle:
        return _two(op, self, self)

    return method


def _binary(op: int) -> Callable[[Handle, Any], Handle]:
    def method(self: Handle, other: Any, /) -> Handle:
        if isinstance(other, Handle):
            return _two(op, self, other)
        k = number(other)
        return k if k is NotImplemented else _with_number(op, self, k, False, False)

    return method


def _of_order(op: int) -> Callable[[Handle, Any], Handle]:
    def method(self: Handle, other: Any, /) -> Handle:
        k = NotImplemented if isinstance(other, Handle) else number(other)
        if k is NotImplemented:
            raise TypeError(f"the order must be a number, not {type(other).__name__!r}")
        return _with_number(op, self, k, False, False)

    return method


def _reflected(op: int) -> Callable[[Handle, Any], Handle]:
    def method(self: Handle, other: Any, /) -> Handle:
        k = number(other)
        return k if k is NotImplemented else _with_number(op, self, k, True, False)

    return method


def _named(method: Callable[[Handle, Any], Handle]) -> Callable[[Handle, Any], Handle]:
    def named(self: Handle, other: Any, /) -> Handle:
        y = method(self, other)
        if y is NotImplemented:
            raise TypeError(f"the other operand must be a Value or a number, not {type(other).__name__!r}")
        return y

    return named


def _attach() -> None:
    """A method a row, and for operators the reflected twin."""
    for op in range(lib.tg_op_count):
        row = lib.tg_ops[op]
        name, kind, doc = (ffi.string(text).decode() for text in (row.method, row.kind, row.doc))
        if kind == "unary":
            methods: dict[str, Callable[..., Handle]] = {name: _unary(op)}
        elif kind == "binary" and name.startswith("__"):
            methods = {name: _binary(op), f"__r{name[2:]}": _reflected(op)}
        elif kind == "binary":
            methods = {name: _named(_binary(op))}
        elif kind == "passive":
            methods = {name: _of_order(op)}
        else:
            continue
        for method_name, method in methods.items():
            if method_name not in vars(Operations):
                method.__name__, method.__doc__ = method_name, f"{doc}."
                setattr(Operations, method_name, method)


_attach()
