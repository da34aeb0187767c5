"""Value: how it is constructed, made of what the files below have."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._core import lib
from .attributes import Attributes
from .handle import (
    ROWS,
    Handle,
    alone,
    disown,
    grad_off,
    joined,
    live,
    need_number,
    node,
    own,
    refuse,
    set_value_type,
    tape,
)
from .held import room
from .operations import Operations
from .recording import note_escape

_NODE = ROWS["NODE"]
_set = object.__setattr__


@alone
def _start(v: Handle, data: float, operands: tuple[Handle, ...]) -> None:
    """Give a Value a node made by hand, instead of the one it may have had."""
    room(1, len(operands) + 1)
    if operands and not grad_off():
        ids = [node(operand) for operand in operands]
        i = lib.tg_record_many(tape, _NODE, ids, len(ids))
    else:
        i = lib.tg_leaf(tape, data)
    if i < 0:
        refuse(i)
    tape.data[i] = data
    if 0 <= v._id < i and live(v._id) is v:
        disown(v._id)
    own(v, i)
    _set(v, "_holds", joined(operands))


class Value(Operations, Attributes):
    """A number that remembers the operations it came from: the handle of a node on the tape.

    Args:
        data: a number, or a Value, whose data it takes.
        _children, _op: of a node made by hand, its operands, Values, and the symbol of its operation.
        label: any object to tell it by.

    Raises:
        TypeError: data is no number, or one of _children is no Value.

    >>> x = Value(3.0, label="x")
    >>> y = x * x + 2.0
    >>> y.backward()
    >>> y, x
    (Value(data=11.0, grad=1.0), Value(x|data=3.0, grad=6.0))
    """

    __slots__ = ()
    __module__ = "tapegrad"
    label: Any = ""

    def __init__(self, data: Any, _children: Iterable[Handle] = (), _op: Any = "", label: Any = "") -> None:
        if not isinstance(self, Value):
            raise TypeError(f"__init__ requires a Value, not {type(self).__name__!r}")
        number = data.data if isinstance(data, Value) else need_number("data", data)
        children = tuple(_children)
        if children:
            note_escape("a node was made by hand: its data is a constant of the program")
        for child in children:
            if not isinstance(child, Value):
                raise TypeError(f"_children must be Values, not {type(child).__name__!r}")
        _start(self, number, children)
        if _op != "":
            self._op = _op
        if label != "":
            self.label = label


set_value_type(Value)
