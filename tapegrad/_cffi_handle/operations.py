"""An operation recorded: a method a row, operators with their reflected twins, and comparisons."""
from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NoReturn

from .._core import ffi, lib
from . import handle
from .handle import ROWS, Handle, alone, grad_off, joined, new, node, number, refuse, tape
from .held import room
from .recording import as_numbers, note_question, note_stranger

_NEG, _POW, _POWK = (ROWS[name] for name in ("NEG", "POW", "POWK"))
_LT, _LE, _GT, _GE, _EQ, _NE = range(lib.TG_REFUSES)
_COMPARISONS = (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne)


@alone
def _two(op: int, x: Handle, y: Handle) -> Handle:
    room(1)
    before = tape.len
    i = lib.tg_record(tape, op, node(x), node(y))
    if i < 0:
        _refuse(i, op, x, y)
    if handle.off_anywhere and grad_off():
        return as_leaf(before)
    if x._special or y._special or x._holds is not y._holds:
        return new(i, joined((x, y)))
    return new(i, x._holds)


@alone
def _with_number(op: int, x: Handle, k: float, first: bool, written_int: bool) -> Handle:
    room(2)
    before = tape.len
    i = lib.tg_record_number(tape, op, node(x), k, first, written_int)
    if i < 0:
        _refuse(i, op, *((k, x) if first else (x, k)))
    if handle.off_anywhere and grad_off():
        return as_leaf(before)
    return new(i, x if x._special else x._holds)


def _refuse(code: int, op: int, a: Handle | float, b: Handle | float) -> None:
    """Raise what a code stands for; where the operation was refused, a replay has to ask the same again."""
    if tape.recorders and code in _REFUSED:
        note_question(a, b, lib.TG_REFUSES + op + lib.TG_REFUSAL * (lib.TG_ZERO_DIVISION + 1 - code), True)
    refuse(code, op, *(tape.data[x._id] if isinstance(x, Handle) else x for x in (a, b)))


def as_leaf(before: int) -> Handle:
    """Undo the nodes from before on, and keep the data of the newest."""
    data = tape.data[tape.len - 1]
    lib.tg_take_back(tape, before)
    return leaf(data)


def leaf(data: float) -> Handle:
    """A new leaf. There is room."""
    i = lib.tg_leaf(tape, data)
    if i < 0:
        refuse(i)
    return new(i, None)


_REFUSED = (lib.TG_ZERO_DIVISION, lib.TG_DOMAIN, lib.TG_OVERFLOW)


@alone
def _compared(how: int, v: Handle, other: Any) -> bool:
    """Whether a Value compares so with a Value or a float."""
    outcome: bool = _COMPARISONS[how](
        tape.data[node(v)], tape.data[node(other)] if isinstance(other, Handle) else other
    )
    if tape.recorders:
        note_question(v, other, how, outcome)
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

    def __neg__(self) -> Handle:
        """-a."""
        kind: Any = type(self)
        if kind.__mul__ is not _ours.__mul__ and isinstance(self, Handle):
            return kind.__mul__(self, -1)  # type: ignore[no-any-return]
        return _two(_NEG, self, self)

    def __pos__(self) -> Handle:
        return self

    def _compare(self, how: int, other: Any) -> bool:
        if isinstance(other, Handle):
            return _compared(how, self, other)
        k: Any = _nearest(other)
        if k is NotImplemented:
            return k  # type: ignore[no-any-return]
        if type(other) is not float and k != other:  # no float is between the two
            try:
                above = k > other
                how = (_LT if above else _LE) if how <= _LE else (_GE if above else _GT)
            except TypeError:  # it has a float, but no order: the float is compared
                pass
        return _compared(how, self, k)

    def __lt__(self, other: Any) -> bool:
        return self._compare(_LT, other)

    def __le__(self, other: Any) -> bool:
        return self._compare(_LE, other)

    def __gt__(self, other: Any) -> bool:
        return self._compare(_GT, other)

    def __ge__(self, other: Any) -> bool:
        return self._compare(_GE, other)

    __hash__ = Handle.__hash__

    def __eq__(self, other: Any) -> bool:
        if not as_numbers():
            _note_compared(self, other)
            return True if self is other else NotImplemented
        return _equal(self, other, _EQ)

    def __ne__(self, other: Any) -> bool:
        if not as_numbers():
            _note_compared(self, other)
            return NotImplemented
        return _equal(self, other, _NE)

    def __bool__(self) -> bool:
        if not as_numbers():
            note_stranger(self)
            return True
        return _compared(_NE, self, 0.0)


def _note_compared(a: Any, b: Any) -> None:
    """== or != was asked where it is identity."""
    if hasattr(type(b), "__float__"):  # else the answer is no number's
        note_stranger(a, b)


def _nearest(x: Any) -> Any:
    """As `number`; of an integer beyond all floats an infinity."""
    try:
        return number(x)
    except OverflowError:
        return math.inf if x > 0 else -math.inf


def _equal(v: Handle, other: Any, how: int) -> bool:
    """Whether a Value is equal to another or a number, or is not."""
    if isinstance(other, Handle):
        return _compared(how, v, other)
    k: Any = _nearest(other)
    if k is NotImplemented:
        return k  # type: ignore[no-any-return]
    return _compared(how, v, k) if k == other else how == _NE  # no float equals what is no float exactly


def _no_power(a: Any, b: Any) -> NoReturn:
    """What CPython says by itself; PyPy names no types for this operator alone."""
    names = f"{type(a).__name__!r} and {type(b).__name__!r}"
    raise TypeError(f"unsupported operand type(s) for ** or pow(): {names}")


def _unary(op: int) -> Callable[[Handle], Handle]:
    def method(self: Handle, /) -> Handle:
        return _two(op, self, self)

    return method


# micrograd makes - and / and what a number on the left asks for of + * ** and unary minus. Where one of these is a
# program's own, of a subclass or of Value that was patched, so do we.


def _owns_product(kind: Any) -> bool:
    return kind.__mul__ is not _ours.__mul__ or kind.__pow__ is not _ours.__pow__


def _owns_sum(kind: Any) -> bool:
    return kind.__add__ is not _ours.__add__ or kind.__neg__ is not _ours.__neg__ or kind.__mul__ is not _ours.__mul__


_DERIVED: dict[str, tuple[Callable[[Any], bool], Callable[[Any, Any], Any]]] = {
    "__add__": (lambda kind: kind.__add__ is not _ours.__add__, lambda x, y: y + x),
    "__mul__": (lambda kind: kind.__mul__ is not _ours.__mul__, lambda x, y: y * x),
    "__sub__": (_owns_sum, lambda x, y: x + -y),
    "__truediv__": (_owns_product, lambda x, y: x * y**-1),
}


def _binary(op: int) -> Callable[[Handle, Any], Handle]:
    def method(self: Handle, other: Any, /) -> Handle:
        if isinstance(other, Handle):
            return _two(op, self, other)
        k = number(other)
        return k if k is NotImplemented else _with_number(op, self, k, False, False)

    return method


def _made_of_others(op: int, name: str) -> Callable[[Handle, Any], Handle]:
    """As `_binary`, of what micrograd derives."""
    owns, derived = _DERIVED[name]
    plain = _binary(op)

    def method(self: Handle, other: Any, /) -> Any:
        kind = type(self)
        if isinstance(other, Handle):
            own = owns(kind) or (type(other) is not kind and owns(type(other)))
        else:
            own = owns(kind) and number(other) is not NotImplemented
        return derived(self, other) if own and isinstance(self, Handle) else plain(self, other)

    return method


def _of_order(op: int) -> Callable[[Handle, Any], Handle]:
    def method(self: Handle, other: Any, /) -> Handle:
        k = NotImplemented if isinstance(other, Handle) else number(other)
        if k is NotImplemented:
            raise TypeError(f"the order must be a number, not {type(other).__name__!r}")
        return _with_number(op, self, k, False, False)

    return method


def _reflected(op: int, name: str) -> Callable[[Handle, Any], Handle]:
    own = _DERIVED.get(name)

    def method(self: Handle, other: Any, /) -> Any:
        k = number(other)
        if k is NotImplemented:
            return k
        if own and own[0](type(self)) and isinstance(self, Handle):
            return own[1](other, self)
        return _with_number(op, self, k, True, False)

    return method


def _named(method: Callable[[Handle, Any], Handle]) -> Callable[[Handle, Any], Handle]:
    def named(self: Handle, other: Any, /) -> Handle:
        y = method(self, other)
        if y is NotImplemented:
            raise TypeError(f"the other operand must be a Value or a number, not {type(other).__name__!r}")
        return y

    return named


_ours: Any = Operations  # its methods are not patched: Value's are, which is another class


def _attach() -> None:
    """A method a row, and for operators the reflected twin."""
    for op in range(lib.tg_op_count):
        row = lib.tg_ops[op]
        name, kind, doc = (ffi.string(text).decode() for text in (row.method, row.kind, row.doc))
        if kind == "unary":
            methods: dict[str, Callable[..., Handle]] = {name: _unary(op)}
        elif kind == "binary" and name.startswith("__"):
            derived = name in ("__sub__", "__truediv__")
            methods = {name: _made_of_others(op, name) if derived else _binary(op)}
            methods[f"__r{name[2:]}"] = _reflected(op, name)
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
