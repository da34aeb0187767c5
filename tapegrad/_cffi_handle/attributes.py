"""The attributes of a Value: data, grad, _op, operands, _backward; and the sweep from it."""
from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from .._core import ffi, lib
from .handle import (
    PYPY,
    ROWS,
    Handle,
    alone,
    handle_of,
    keep_attributes,
    let_in,
    live,
    need_number,
    node,
    pins,
    refuse,
    tape,
)
from .recording import note_escape, note_stranger

_POWK = ROWS["POWK"]
_SYMBOLS = [ffi.string(lib.tg_ops[op].symbol).decode() for op in range(lib.tg_op_count)]
_NOT_CALLED = RecursionError if PYPY else MemoryError  # why cffi could not even call a rule
_raised: dict[int, BaseException] = {}  # by thread: what its rule raised
_set = object.__setattr__


class Attributes(Handle):
    """What a Value shows of its node."""

    __slots__ = ()

    @property
    @alone
    def data(self) -> float:
        """The number, a float; writable.

        >>> (Value(3.0) * 2.0).data
        6.0
        """
        if tape.recorders:
            note_escape(".data was read: a replay does not see it")
            note_stranger(self)
        return tape.data[node(self)]  # type: ignore[no-any-return]

    @data.setter
    def data(self, x: float) -> None:
        number = need_number("data", x)
        note_escape(".data was written: a replay does not see it")
        _write_data(self, number)

    @property
    @alone
    def grad(self) -> float:
        """The accumulated derivative, a float; writable.

        >>> x = Value(3.0)
        >>> (x * x).backward()
        >>> x.grad
        6.0
        """
        i = node(self)
        note_escape(".grad was read: a replay does not see it")
        if tape.sweep == ffi.NULL:
            return tape.grad[i]  # type: ignore[no-any-return]
        return lib.tg_read_grad(tape, i, threading.get_ident())  # type: ignore[no-any-return]

    @grad.setter
    def grad(self, x: float) -> None:
        write_grads((self,), need_number("grad", x))

    @property
    @alone
    def _op(self) -> Any:
        """Symbol of the operation, '' for a leaf; writable.

        >>> (Value(3.0) * 2.0)._op
        '*'
        """
        i = node(self)
        if "_op" in self.__dict__:
            return self.__dict__["_op"]
        op = tape.op[i] & lib.TG_OPCODE
        if op != _POWK:
            return _SYMBOLS[op]
        leaf = tape.b[i]
        k = tape.data[leaf]
        return f"**{int(k) if tape.a[leaf] else k}"

    @_op.setter
    def _op(self, text: Any) -> None:
        self.__dict__["_op"] = text
        keep_attributes(self)

    @property
    @alone
    def operands(self) -> tuple[Handle, ...]:
        """The operands in order, with repeats: a tuple.

        >>> (Value(3.0) * 2.0).operands
        (Value(data=3.0, grad=0.0), Value(data=2.0, grad=0.0))
        """
        i = node(self)
        n = lib.tg_operands(tape, i, ffi.NULL, 0)
        ids = ffi.new("uint32_t[]", n)
        lib.tg_operands(tape, i, ids, n)
        return tuple(handle_of(i, self) for i in ids)

    @property
    def _prev(self) -> set[Handle]:
        """The operands: a new set of the same Values every time.

        >>> x = Value(3.0)
        >>> (x * x)._prev == {x}
        True
        """
        return set(self.operands)

    @property
    @alone
    def _backward(self) -> Callable[[], Any]:
        """Call it: push grad one step to the operands. Assign a function to make it the node's rule.

        >>> x = Value(3.0)
        >>> y = x * x
        >>> y.grad = 1.0
        >>> y._backward()
        >>> x.grad
        6.0
        """
        node(self)
        return self._push_grad if self._rule is None else self._rule

    @_backward.setter
    def _backward(self, rule: Callable[[], Any]) -> None:
        if not callable(rule):
            raise TypeError(f"_backward must be callable, not {type(rule).__name__!r}")
        note_escape("_backward was set: a replay differentiates the operation itself")
        self._set_rule(rule)

    @_backward.deleter
    def _backward(self) -> None:
        self._set_rule(None)

    @alone
    def _set_rule(self, rule: Any) -> None:
        code = lib.tg_set_rule(tape, node(self), rule is not None)
        if code:
            refuse(code)
        _set(self, "_rule", rule)
        keep_attributes(self)

    @alone
    def _push_grad(self, /) -> None:
        """Push self.grad one step, to the operands' grads."""
        code = lib.tg_push_grad(tape, node(self), threading.get_ident())
        if code:
            refuse(code)

    def backward(self, /, seed: float = 1.0) -> None:
        """Add seed * d(self)/d(v) to v.grad for every v that self depends on; set self.grad to seed.

        Where a node's own rule raises, so does this, and every grad is as it was.

        >>> x = Value(3.0)
        >>> (x * x).backward(seed=2.0)
        >>> x.grad
        12.0
        """
        code = _sweep(self, need_number("seed", seed))
        if code == lib.TG_RAISED:
            raise raised()
        if code:
            refuse(code)


def raised() -> BaseException:
    """What the rule of a sweep in this thread raised."""
    return _raised.pop(threading.get_ident(), None) or _NOT_CALLED()


@alone
def _write_data(v: Handle, data: float) -> None:
    tape.data[node(v)] = data


@alone
def write_grads(values: Iterable[Handle], grad: float) -> None:
    """Set the grad of all of them to one number."""
    thread = threading.get_ident()
    for i in [node(v) for v in values]:
        lib.tg_write_grad(tape, i, thread, grad)


@alone
def _sweep(root: Handle, seed: float) -> int:
    code: int = lib.tg_backward(tape, node(root), seed, call_rule, ffi.NULL, threading.get_ident())
    return code


@ffi.def_extern(name="_call_rule", error=lib.TG_RAISED)  # type: ignore[untyped-decorator, unused-ignore]
def _call_rule(context: Any, i: int) -> int:
    h = live(i)
    rule = h._rule if h is not None else pins[i][1]["_rule"] if i in pins else None
    if rule is None:
        return 0
    try:
        let_in(rule)
        return 0
    except BaseException as error:  # handed over to backward, which raises it
        _raised[threading.get_ident()] = error
        return int(lib.TG_RAISED)


call_rule = lib._call_rule
