"""The portable handle: `Value` as a Python class, every operation a cffi call. It is the fast one on PyPy.

cffi lets other threads run during every call, so whatever touches the tape is `@_alone`; the lock is let go while a
rule runs. Reading numbers, which may run any Python code, comes before, and ids are read within, after room was made,
for reclaim moves them. A collection may come at any time, and with it finalizers that use Values in the middle of an
operation: they may record, but nodes go only when no operation is under way.

`_handles[i]` is a weak reference to the handle of node i. CPython says at once when a handle dies; on PyPy the nodes
of dead handles wait for reclaim.

What is set on a Value has to outlive its handle. A Value with attributes is therefore held by the handles of all that
is computed from it (`_holds`); where it may have been used already when the attribute came, the attributes are copied
to `_pins` as well. All that is ordinary Python references, so a rule that closes over its own Value is collected."""
from __future__ import annotations

import functools
import gc
import operator
import platform
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TypeVar

from . import _refusals
from ._cffi_recording import FOREIGN, Recording, current, everyone, set_current
from ._core import ffi, lib

_R = TypeVar("_R")
_PYPY = platform.python_implementation() == "PyPy"
_tape = ffi.addressof(lib, "tg_main")
_handles: list[Any] = []
_pins: dict[int, tuple[type[Value], dict[str, Any]]] = {}
_lock = threading.RLock()
_depth = 0  # operations under way in the thread that has the lock: more than one where a finalizer came in between
_dead = False  # a handle died while an operation was under way
_off = threading.local()
_off_anywhere = 0
_NOT_CALLED = RecursionError if _PYPY else MemoryError  # why cffi could not even call a rule
_raised: dict[int, BaseException] = {}  # by thread: what its rule raised
_ROWS = {ffi.string(lib.tg_ops[op].name).decode(): op for op in range(lib.tg_op_count)}
_SYMBOLS = [ffi.string(lib.tg_ops[op].symbol).decode() for op in range(lib.tg_op_count)]
_OPCODE, _POWK, _NODE = 0x3F, _ROWS["POWK"], _ROWS["NODE"]
_set = object.__setattr__
_ref = weakref.ref


def _alone(operation: Callable[..., _R]) -> Callable[..., _R]:
    """Let one thread in at a time; the last to leave drops what has died meanwhile."""

    @functools.wraps(operation)
    def alone(*args: Any) -> _R:
        global _depth
        with _lock:
            _depth += 1
            try:
                return operation(*args)
            finally:
                _depth -= 1
                if _dead and _depth == 0:
                    _trim()

    return alone


def _refuse(code: int, op: int = 0, a: float = 0.0, b: float = 0.0) -> None:
    raise _refusals.refused(code, op, a, b)


def _node(v: Value) -> int:
    """The id of a Value."""
    i = v._id
    if not 0 <= i < _tape.len:
        raise RuntimeError("this Value has no node: Value.__init__() was not called, or failed")
    return i


def _live(i: int) -> Any:
    ref = _handles[i]
    return None if ref is None else ref()


def _own(h: Value, i: int) -> Value:
    """Make `h` the handle of node i, the newest or one without."""
    if i >= len(_handles):
        _handles.extend([None] * (i - len(_handles)))
        _handles.append(_ref(h))
    else:
        _handles[i] = _ref(h)
    _set(h, "_id", i)
    _tape.owner[i] = ffi.cast("void *", 2 * i + 2)  # even: live; reclaim reads the old id in it
    return h


def _new(i: int, holds: Any) -> Value:
    h = _make(Value)
    _set(h, "_holds", holds)
    return _own(h, i)


def _handle_of(i: int, user: Value) -> Value:
    """The handle of node i, an operand of `user`."""
    h = _live(i)
    if h is None:
        kind, state = _pins.get(i, (Value, None))
        h = _make(kind)
        if state is not None:
            state = dict(state)
            _set(h, "_rule", state.pop("_rule"))
            h.__dict__.update(state)
            _set(h, "_special", True)
        _set(h, "_holds", user._holds)
        _own(h, i)
    return h  # type: ignore[no-any-return]


def _trim() -> None:
    """Drop what nobody owns from the end."""
    global _dead
    _dead = False
    n = len(_handles)
    while n > 0 and _live(n - 1) is None:
        n -= 1
        _tape.owner[n] = ffi.NULL
    del _handles[n:]
    lib.tg_pop(_tape)
    if _pins:
        for i in [i for i in _pins if i >= n]:
            del _pins[i]


@_alone
def _forget(h: Value) -> None:
    """A handle dies: its node has no owner any more."""
    global _dead
    i = h._id
    _set(h, "_id", -1)
    if i < len(_handles) and (_live(i) is None or _live(i) is h):
        _handles[i] = None
        _tape.owner[i] = ffi.NULL
        _dead = True


def _note_escape(what: str) -> None:
    """Tell a recording of this thread that something went past the tape."""
    recording = current() if _tape.recorders else None
    if recording is not None:
        set_current(recording.outer)  # what it does is no part of f
        try:
            recording.escaped(what)
        finally:
            set_current(recording)


def _note_place() -> None:
    thread, recording = threading.get_ident(), current()
    for other in everyone:
        if other.thread != thread:
            other.note(_tape.len, FOREIGN)
    if recording is not None:
        if _passive():
            _note_escape("no_grad was on: what is computed is a constant of the program")
        recording.note(_tape.len, recording.here())


def _room(nodes: int, words: int = 0) -> None:
    """Reclaim where it is due."""
    if _tape.recorders:
        _note_place()
    if lib.tg_reclaim_due(_tape, nodes, words):
        try:
            _reclaim(lib.tg_slide)
        except MemoryError:  # there may still be some to grow, so ask again later
            lib.tg_set_reclaim_point(_tape)


def _forget_dead() -> None:
    """Take the owners from nodes whose handles are gone."""
    for i, ref in enumerate(_handles):
        if ref is not None and ref() is None:
            _handles[i] = None
            _tape.owner[i] = ffi.NULL


def _collect_garbage() -> None:
    """Let PyPy find out which handles are dead, but run no finalizers in between."""
    enabled = gc.isenabled()
    gc.disable()
    gc.collect()
    if enabled:
        gc.enable()


def _reclaim(slide: Callable[..., int]) -> int:
    global _handles, _pins
    before = _tape.len
    if _depth > 1 or _tape.sweep != ffi.NULL or _tape.recorders:  # ids must stay
        return 0
    if _PYPY:
        _collect_garbage()
    _handles.extend([None] * (before - len(_handles)))
    _forget_dead()
    _trim()
    for i in _pins:
        if _handles[i] is None:
            _tape.owner[i] = ffi.cast("void *", 2 * i + 3)  # odd: something was left
    lib.tg_mark_owned(_tape)
    if slide is lib.tg_slide:
        lib.tg_mark_operands(_tape, ffi.NULL, ffi.NULL)
    code = slide(_tape, ffi.NULL, ffi.NULL)
    handles: list[Any] = [None] * _tape.len
    pins = {}
    for i in range(_tape.len):
        token = int(ffi.cast("uintptr_t", _tape.owner[i]))
        if token:
            old = (token >> 1) - 1
            if old in _pins:
                pins[i] = _pins[old]
            handles[i] = _handles[old]
            h = None if token & 1 else _live(old)
            _tape.owner[i] = ffi.NULL if h is None else ffi.cast("void *", 2 * i + 2)
            if h is not None:
                _set(h, "_id", i)
    _handles, _pins = handles, pins
    if code < 0:
        _refuse(code)
    return int(before - _tape.len)


def _passive() -> bool:
    return _off_anywhere > 0 and getattr(_off, "depth", 0) > 0


def _joined(values: Iterable[Value]) -> Any:
    """What a Value computed from these has to hold."""
    holds: list[Any] = []
    for v in values:
        h = v if v._special else v._holds
        if h is not None and not any(h is other for other in holds[-2:]):
            holds.append(h)
    return tuple(holds) if len(holds) > 1 else holds[0] if holds else None


@_alone
def _two(op: int, x: Value, y: Value) -> Value:
    _room(1)
    i = lib.tg_record(_tape, op, _node(x), _node(y))
    if i < 0:
        _refuse(i, op, _tape.data[x._id], _tape.data[y._id])
    if _off_anywhere and _passive():
        return _as_leaf(i)
    if x._special or y._special or x._holds is not y._holds:
        return _new(i, _joined((x, y)))
    return _new(i, x._holds)


@_alone
def _with_number(op: int, x: Value, k: float, first: bool, written_int: bool) -> Value:
    _room(2)
    i = lib.tg_record_number(_tape, op, _node(x), k, first, written_int)
    if i < 0:
        a = _tape.data[x._id]
        _refuse(i, op, *((k, a) if first else (a, k)))
    if _off_anywhere and _passive():
        return _as_leaf(i)
    return _new(i, x if x._special else x._holds)


def _as_leaf(i: int) -> Value:
    """Undo the newest node, keep its data."""
    data = _tape.data[i]
    lib.tg_pop(_tape)
    return _leaf(data)


def _leaf(data: float) -> Value:
    i = lib.tg_leaf(_tape, data)
    if i < 0:
        _refuse(i)
    return _new(i, None)


def _number(x: Any) -> Any:
    return x if type(x) is float else _refusals.as_number(x)


def _need_number(what: str, x: Any) -> float:
    k: Any = _number(x)
    if k is NotImplemented:
        raise TypeError(f"{what} must be a number, not {type(x).__name__!r}")
    return k  # type: ignore[no-any-return]


@_alone
def _start(v: Value, data: float, operands: tuple[Value, ...]) -> None:
    """Give a Value a node made by hand, instead of the one it may have had."""
    _room(1, len(operands) + 1)
    if operands and not _passive():
        ids = [_node(operand) for operand in operands]
        i = lib.tg_record_many(_tape, _NODE, ids, len(ids))
    else:
        i = lib.tg_leaf(_tape, data)
    if i < 0:
        _refuse(i)
    _tape.data[i] = data
    if 0 <= v._id < i and _live(v._id) is v:
        _handles[v._id] = None
        _tape.owner[v._id] = ffi.NULL
    _own(v, i)
    _set(v, "_holds", _joined(operands))


class Value:
    """Value(data, _children=(), _op='', label=''): a number that remembers the operations it came from."""

    __slots__ = ("__dict__", "__weakref__", "_holds", "_id", "_rule", "_special")
    __module__ = "tapegrad"
    _id: int
    _holds: Any
    _rule: Any
    _special: bool
    label: Any = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> Value:
        return _make(cls)

    def __init__(self, data: float, _children: Iterable[Value] = (), _op: Any = "", label: Any = "") -> None:
        if not isinstance(self, Value):
            raise TypeError(f"__init__ requires a Value, not {type(self).__name__!r}")
        number = _need_number("data", data)
        children = tuple(_children)
        if children:
            _note_escape("a node was made by hand: its data is a constant of the program")
        for child in children:
            if not isinstance(child, Value):
                raise TypeError(f"_children must be Values, not {type(child).__name__!r}")
        _start(self, number, children)
        if _op != "":
            self._op = _op
        if label != "":
            self.label = label

    if not _PYPY:

        def __del__(self, lock: Any = _lock, forget: Callable[[Value], None] = _forget) -> None:
            global _dead
            if self._id < 0:
                return
            if lock.acquire(False):
                try:
                    forget(self)
                finally:
                    lock.release()
            else:
                _dead = True

    def __getattr__(self, name: str) -> Any:
        if name in _HALF_MADE:  # object.__new__(Value): no slot is filled
            return _HALF_MADE[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HALF_MADE:
            raise AttributeError(f"{name} of a Value is the engine's")
        _set(self, name, value)
        if name not in _ENGINE:
            self._note()

    @_alone
    def _note(self) -> None:
        """Something was set that has to stay with the node."""
        _set(self, "_special", True)
        if 0 <= self._id < _tape.len - 1:
            _pins[self._id] = (type(self), {**self.__dict__, "_rule": self._rule})

    @property
    @_alone
    def data(self) -> float:
        """The number; writable."""
        if _tape.recorders:
            _note_escape(".data was read: a replay does not see it")
        return _tape.data[_node(self)]  # type: ignore[no-any-return]

    @data.setter
    def data(self, x: float) -> None:
        number = _need_number("data", x)
        _note_escape(".data was written: a replay does not see it")
        _write_data(self, number)

    @property
    @_alone
    def grad(self) -> float:
        """The accumulated derivative; writable."""
        i = _node(self)
        _note_escape(".grad was read: a replay does not see it")
        if _tape.sweep == ffi.NULL:
            return _tape.grad[i]  # type: ignore[no-any-return]
        return lib.tg_read_grad(_tape, i, threading.get_ident())  # type: ignore[no-any-return]

    @grad.setter
    def grad(self, x: float) -> None:
        _write_grads((self,), _need_number("grad", x))

    @property
    @_alone
    def _op(self) -> Any:
        """Symbol of the operation, '' for a leaf; writable."""
        i = _node(self)
        if "_op" in self.__dict__:
            return self.__dict__["_op"]
        op = _tape.op[i] & _OPCODE
        if op != _POWK:
            return _SYMBOLS[op]
        leaf = _tape.b[i]
        k = _tape.data[leaf]
        return f"**{int(k) if _tape.a[leaf] else k}"

    @_op.setter
    def _op(self, text: Any) -> None:
        self.__dict__["_op"] = text
        self._note()

    @property
    @_alone
    def operands(self) -> tuple[Value, ...]:
        """The operands in order, with repeats."""
        i = _node(self)
        n = lib.tg_operands(_tape, i, ffi.NULL, 0)
        ids = ffi.new("uint32_t[]", n)
        lib.tg_operands(_tape, i, ids, n)
        return tuple(_handle_of(i, self) for i in ids)

    @property
    def _prev(self) -> set[Value]:
        """The operands: a new set of the same Values every time."""
        return set(self.operands)

    @property
    @_alone
    def _backward(self) -> Callable[[], Any]:
        """Called without arguments: push grad one step to the operands. Assign a function as the node's rule."""
        _node(self)
        return self._push_grad if self._rule is None else self._rule

    @_backward.setter
    def _backward(self, rule: Callable[[], Any]) -> None:
        if not callable(rule):
            raise TypeError(f"_backward must be callable, not {type(rule).__name__!r}")
        _note_escape("_backward was set: a replay differentiates the operation itself")
        self._set_rule(rule)

    @_backward.deleter
    def _backward(self) -> None:
        self._set_rule(None)

    @_alone
    def _set_rule(self, rule: Any) -> None:
        lib.tg_set_rule(_tape, _node(self), rule is not None)
        _set(self, "_rule", rule)
        self._note()

    @_alone
    def _push_grad(self) -> None:
        """Push self.grad one step, to the operands' grads."""
        code = lib.tg_push_grad(_tape, _node(self), threading.get_ident())
        if code:
            _refuse(code)

    def backward(self, seed: float = 1.0) -> None:
        """Add seed * d(self)/d(v) to v.grad for every v that self depends on; set self.grad to seed."""
        code = _sweep(self, _need_number("seed", seed))
        if code == -3:
            raise _raised.pop(threading.get_ident(), None) or _NOT_CALLED()
        if code:
            _refuse(code)

    def __pow__(self, other: Any, modulus: None = None) -> Value:
        """a ** b."""
        if modulus is not None:
            return NotImplemented
        if isinstance(other, Value):
            return _two(_ROWS["POW"], self, other)
        k = _number(other)
        if k is NotImplemented:
            if not hasattr(type(other), "__rpow__"):
                _no_power(self, other)
            return NotImplemented
        return _with_number(_POWK, self, k, False, not isinstance(other, float))

    def __rpow__(self, other: Any, modulus: None = None) -> Value:
        """b ** a, b a number."""
        k = _number(other)
        if k is NotImplemented:
            _no_power(other, self)
        return _with_number(_ROWS["POW"], self, k, True, False)

    def __pos__(self) -> Value:
        return self

    def __hash__(self) -> int:
        return object.__hash__(self)

    def _compare(self, how: int, other: Any) -> bool:
        k: Any = None if isinstance(other, Value) else _number(other)
        return k if k is NotImplemented else _holds(how, self, other if k is None else k)

    def __lt__(self, other: Any) -> bool:
        return self._compare(0, other)

    def __le__(self, other: Any) -> bool:
        return self._compare(1, other)

    def __gt__(self, other: Any) -> bool:
        return self._compare(2, other)

    def __ge__(self, other: Any) -> bool:
        return self._compare(3, other)


_COMPARISONS = (operator.lt, operator.le, operator.gt, operator.ge)


@_alone
def _holds(how: int, v: Value, other: Any) -> bool:
    """Whether a Value compares so with a Value or a float."""
    outcome: bool = _COMPARISONS[how](
        _tape.data[_node(v)], _tape.data[_node(other)] if isinstance(other, Value) else other
    )
    recording = current() if _tape.recorders else None
    if recording is not None:
        recording.comparisons.append((v, other, how, int(outcome), recording.here()))
    return outcome


@_alone
def _write_data(v: Value, data: float) -> None:
    _tape.data[_node(v)] = data


@_alone
def _write_grads(values: Iterable[Value], grad: float) -> None:
    thread = threading.get_ident()
    for i in [_node(v) for v in values]:
        lib.tg_write_grad(_tape, i, thread, grad)


@_alone
def _sweep(root: Value, seed: float) -> int:
    code: int = lib.tg_backward(_tape, _node(root), seed, lib._call_rule, ffi.NULL, threading.get_ident())
    return code


_HALF_MADE = {"_id": -1, "_holds": None, "_rule": None, "_special": True}
_ENGINE = frozenset(("data", "grad", "_op", "_backward"))  # they see to themselves


def _make(kind: type[Value]) -> Value:
    h = object.__new__(kind)
    _set(h, "_id", -1)
    _set(h, "_holds", None)
    _set(h, "_rule", None)
    _set(h, "_special", kind is not Value)
    return h


@ffi.def_extern(name="_call_rule", error=-3)  # type: ignore[untyped-decorator, unused-ignore]
def _call_rule(context: Any, i: int) -> int:
    h = _live(i)
    rule = h._rule if h is not None else _pins[i][1]["_rule"] if i in _pins else None
    if rule is None:
        return 0
    global _depth
    _depth -= 1
    _lock.release()
    try:
        rule()
        return 0
    except BaseException as error:  # handed over to backward, which raises it
        _raised[threading.get_ident()] = error
        return -3
    finally:
        _lock.acquire()
        _depth += 1


def _no_power(a: Any, b: Any) -> NoReturn:
    """What CPython says by itself; PyPy names no types for this operator alone."""
    names = f"{type(a).__name__!r} and {type(b).__name__!r}"
    raise TypeError(f"unsupported operand type(s) for ** or pow(): {names}")


def _unary(op: int) -> Callable[[Value], Value]:
    def method(self: Value) -> Value:
        return _two(op, self, self)

    return method


def _binary(op: int) -> Callable[[Value, Any], Value]:
    def method(self: Value, other: Any) -> Value:
        if isinstance(other, Value):
            return _two(op, self, other)
        k = _number(other)
        return k if k is NotImplemented else _with_number(op, self, k, False, False)

    return method


def _reflected(op: int) -> Callable[[Value, Any], Value]:
    def method(self: Value, other: Any) -> Value:
        k = _number(other)
        return k if k is NotImplemented else _with_number(op, self, k, True, False)

    return method


def _named(method: Callable[[Value, Any], Value]) -> Callable[[Value, Any], Value]:
    def named(self: Value, other: Any) -> Value:
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
            methods: dict[str, Callable[..., Value]] = {name: _unary(op)}
        elif kind == "binary" and name.startswith("__"):
            methods = {name: _binary(op), f"__r{name[2:]}": _reflected(op)}
        elif kind == "binary":
            methods = {name: _named(_binary(op))}
        else:
            continue
        for method_name, method in methods.items():
            if method_name not in vars(Value):
                method.__name__, method.__doc__ = method_name, f"{doc}."
                setattr(Value, method_name, method)


_attach()


def _gathered(xs: Iterable[Any]) -> list[Any]:
    """Values as they are, everything else as a float."""
    return [x if isinstance(x, Value) else _need_number("an operand", x) for x in tuple(xs)]


def _ids(xs: list[Any], nodes: int, words: int) -> list[int]:
    """The ids of operands, numbers becoming leaves, with room for what is computed from them."""
    _room(len(xs) + nodes, words)
    for x in xs:
        if isinstance(x, Value):
            _node(x)
    code = lib.tg_grow(_tape, len(xs) + nodes, words)
    if code:
        _refuse(code)
    return [x._id if isinstance(x, Value) else lib.tg_leaf(_tape, x) for x in xs]


def _values(xs: Iterable[Any]) -> list[Value]:
    return [x for x in xs if isinstance(x, Value)]


@_alone
def _many(op: int, xs: list[Any]) -> Value:
    if not xs:
        _room(1)
        return _leaf(0.0)
    ids = _ids(xs, 1, len(xs) + 1)
    i = lib.tg_record_many(_tape, op, ids, len(ids))
    return _as_leaf(i) if _passive() else _new(i, _joined(_values(xs)))


def _all_new(ids: list[int], holds: Any) -> list[Value]:
    """Handles for nodes, the newest among them; in no_grad leaves instead."""
    if _passive():
        data = [_tape.data[i] for i in ids]
        lib.tg_pop(_tape)
        return [_leaf(x) for x in data]
    return [_new(i, holds) for i in ids]


@_alone
def _affine(x: list[Any], rows: list[list[Any]], b: list[Any], activation: int) -> list[Value]:
    n, m = len(x), len(rows)
    flat = [*x, *(w for row in rows for w in row), *b]
    ids = _ids(flat, 2 * m, m * (2 * n + 2))
    outputs = []
    for i in range(m):
        operands = ids[n * (i + 1) : n * (i + 2)] + ids[:n] + (ids[n * (m + 1) + i :][:1] if b else [])
        y = lib.tg_record_many(_tape, _ROWS["DOT"], operands, len(operands))
        outputs.append(lib.tg_record(_tape, activation, y, y) if activation else y)
    return _all_new(outputs, _joined(_values(flat)))


@_alone
def _softmax(xs: list[Any]) -> list[Value]:
    ids = _ids(xs, 2 * len(xs) + 1, len(xs) + 1)
    total = lib.tg_record_many(_tape, _ROWS["LOGSUMEXP"], ids, len(ids))
    below = [lib.tg_record(_tape, _ROWS["SUB"], i, total) for i in ids]
    return _all_new([lib.tg_record(_tape, _ROWS["EXP"], i, i) for i in below], _joined(_values(xs)))


def dot(xs: Iterable[Any], ys: Iterable[Any], bias: Any = None) -> Value:
    """bias + xs[0] * ys[0] + xs[1] * ys[1] + .., as one node."""
    a, b = _gathered(xs), _gathered(ys)
    if len(a) != len(b):
        raise ValueError(f"dot: {len(a)} xs but {len(b)} ys")
    return _many(_ROWS["DOT"], a + b + ([] if bias is None else _gathered((bias,))))


def sum(xs: Iterable[Any]) -> Value:
    """xs[0] + xs[1] + .., left to right from 0.0, as one node."""
    return _many(_ROWS["SUM"], _gathered(xs))


def logsumexp(xs: Iterable[Any]) -> Value:
    """log(exp(xs[0]) + exp(xs[1]) + ..) without overflow, as one node."""
    a = _gathered(xs)
    if not a:
        raise ValueError("logsumexp of no operands")
    return _many(_ROWS["LOGSUMEXP"], a)


def _activation(name: Any) -> int:
    """The opcode of a named unary row that refuses nothing, 0 for None."""
    if name is None:
        return 0
    for op in range(lib.tg_op_count):
        row = lib.tg_ops[op]
        if ffi.string(row.kind) == b"unary" and ffi.string(row.refusal) == b"NEVER":
            if ffi.string(row.method).decode() == name:
                return op
    raise ValueError(f"activation must be None, 'relu', 'tanh', 'sigmoid' or 'softplus', not {name!r}")


def affine(W: Iterable[Iterable[Any]], b: Any, x: Iterable[Any], activation: Any = None) -> list[Value]:
    """activation(W x + b): a list of Values, one dot node a row and one activation node."""
    op = _activation(activation)
    rows, operands = tuple(W), _gathered(x)
    weights = []
    for i, row in enumerate(rows):
        weights.append(_gathered(row))
        if len(weights[i]) != len(operands):
            raise ValueError(f"affine: row {i} of W has {len(weights[i])} elements, x has {len(operands)}")
    bias = [] if b is None else _gathered(b)
    if b is not None and len(bias) != len(rows):
        raise ValueError(f"affine: b has {len(bias)} elements, W has {len(rows)} rows")
    return _affine(operands, weights, bias, op)


def softmax(xs: Iterable[Any]) -> list[Value]:
    """A list of exp(xs[k]) / (exp(xs[0]) + exp(xs[1]) + ..), without overflow."""
    operands = _gathered(xs)
    return _softmax(operands) if operands else []


def cross_entropy(logits: Iterable[Any], target: int) -> Value:
    """-log(softmax(logits)[target]), without overflow, as one node."""
    xs, k = _gathered(logits), operator.index(target)
    if not 0 <= k < len(xs):
        raise IndexError(f"cross_entropy: target {k} of {len(xs)} logits")
    return _many(_ROWS["CROSS_ENTROPY"], [*xs, xs[k]])


def _paired(op: str, what: str, scores: Iterable[Any], targets: Iterable[Any]) -> Value:
    a, b = _gathered(scores), _gathered(targets)
    if len(a) != len(b):
        raise ValueError(f"{op.lower()}: {len(a)} {what} but {len(b)} targets")
    if not a:
        raise ValueError(f"{op.lower()} of no {what}")
    return _many(_ROWS[op], a + b)


def mse(predictions: Iterable[Any], targets: Iterable[Any]) -> Value:
    """Mean of (predictions[k] - targets[k]) ** 2, as one node."""
    return _paired("MSE", "predictions", predictions, targets)


def hinge(scores: Iterable[Any], targets: Iterable[Any]) -> Value:
    """Mean of max(0, 1 - targets[k] * scores[k]), as one node; targets are -1 or 1."""
    return _paired("HINGE", "scores", scores, targets)


@_alone
def _new_leaves(data: list[float]) -> list[Value]:
    _room(len(data))
    code = lib.tg_grow(_tape, len(data), 0)
    if code:
        _refuse(code)
    return [_leaf(x) for x in data]


def leaves(numbers: Iterable[float]) -> list[Value]:
    """A list of new leaves, one for every number of an iterable."""
    data = []
    for x in tuple(numbers):
        if isinstance(x, Value):
            raise TypeError("leaves are made of numbers, not 'Value'")
        data.append(_need_number("an element", x))
    return _new_leaves(data)


def zero_grad(values: Iterable[Value]) -> None:
    """Set the grad of every Value of an iterable to 0.0."""
    _write_grads(_only_values(values), 0.0)


def _only_values(values: Iterable[Any]) -> tuple[Value, ...]:
    items = tuple(values)
    for v in items:
        if not isinstance(v, Value):
            raise TypeError(f"this takes Values, not {type(v).__name__!r}")
    return items


@_alone
def _read(values: tuple[Value, ...], grads: bool) -> list[float]:
    ids = [_node(v) for v in values]
    if not grads:
        return [_tape.data[i] for i in ids]
    thread = threading.get_ident()
    return [lib.tg_read_grad(_tape, i, thread) for i in ids]


def data(values: Iterable[Value]) -> list[float]:
    _note_escape("data() was called: a replay does not see it")
    return _read(_only_values(values), False)


def grads(values: Iterable[Value]) -> list[float]:
    _note_escape("grads() was called: a replay does not see it")
    return _read(_only_values(values), True)


@_alone
def _write_all(values: tuple[Value, ...], numbers: list[float], grads: bool) -> None:
    ids = [_node(v) for v in values]
    thread = threading.get_ident()
    for i, x in zip(ids, numbers):
        if grads:
            lib.tg_write_grad(_tape, i, thread, x)
        else:
            _tape.data[i] = x


def _write_numbers(values: Iterable[Value], numbers: Iterable[Any], grads: bool) -> None:
    new, items = _gathered(numbers), _only_values(values)
    if any(isinstance(x, Value) for x in new):
        raise TypeError(f"{'grads' if grads else 'data'} are numbers, not 'Value'")
    if len(new) != len(items):
        raise ValueError(f"{len(items)} Values but {len(new)} numbers")
    _write_all(items, new, grads)


def set_data(values: Iterable[Value], numbers: Iterable[Any]) -> None:
    _note_escape("set_data() was called: a replay does not see it")
    _write_numbers(values, numbers, False)


def set_grads(values: Iterable[Value], numbers: Iterable[Any]) -> None:
    _write_numbers(values, numbers, True)


def _state(bytes_: Any, n: int) -> Any:
    """The doubles of a bytearray, n of them; NULL for None."""
    if bytes_ is None:
        return ffi.NULL
    if len(bytes_) != 8 * n:
        raise ValueError("the optimizer's state does not fit its parameters")
    return ffi.from_buffer("double[]", bytes_)


@_alone
def _step(values: tuple[Value, ...], step: Callable[..., None], rule: Any, states: tuple[Any, ...]) -> None:
    step(_tape, [_node(v) for v in values], len(values), rule, *(_state(s, len(values)) for s in states))


def sgd(values: Iterable[Value], *rule: Any) -> None:
    _note_escape("an optimizer wrote .data: a replay does not see it")
    _step(_only_values(values), lib.tg_sgd, ffi.new("tg_sgd_rule *", rule[:-1]), rule[-1:])


def adam(values: Iterable[Value], *rule: Any) -> None:
    _note_escape("an optimizer wrote .data: a replay does not see it")
    _step(_only_values(values), lib.tg_adam, ffi.new("tg_adam_rule *", rule[:-3]), rule[-3:])


def rmsprop(values: Iterable[Value], *rule: Any) -> None:
    _note_escape("an optimizer wrote .data: a replay does not see it")
    _step(_only_values(values), lib.tg_rmsprop, ffi.new("tg_rmsprop_rule *", rule[:-3]), rule[-3:])


@_alone
def begin_recording(escaped: Callable[[str], None], lines: Callable[[Any], bytes | None]) -> None:
    passive = getattr(_off, "depth", 0)
    recording = Recording(escaped, lines, current(), passive, _tape.len)
    everyone.append(recording)
    set_current(recording)
    no_grad_by(-passive)
    _tape.recorders += 1


@_alone
def end_recording() -> None:
    recording = current()
    if recording is not None:
        everyone.remove(recording)
        set_current(recording.outer)
        no_grad_by(recording.passive)
        _tape.recorders -= 1


@_alone
def freeze(start: Value, inputs: Iterable[Value], outputs: Iterable[Value]) -> tuple[int, list[Any]]:
    """The address of the program, and the code objects that its lines are of."""
    recording = current()
    assert recording is not None
    into = [_node(v) for v in _only_values(inputs)]
    out = [_node(v) for v in _only_values(outputs)]
    compared = ffi.new("tg_comparison[]", len(recording.comparisons))
    for c, (a, b, how, outcome, where) in zip(compared, recording.comparisons):
        c.a, c.how, c.outcome, c.where = _node(a), how, outcome, where
        if isinstance(b, Value):
            c.b = _node(b)
        else:
            c.b, c.k = 2**32 - 1, b
    code = ffi.new("int64_t *")
    events = ffi.new("tg_event[]", recording.events)
    outer = recording.outer
    p = lib.tg_freeze(
        _tape, _node(start), 2**32 - 1 if outer is None else outer.first, into, len(into), out, len(out),
        compared, len(compared), events, len(events), code,
    )  # fmt: skip
    if p == ffi.NULL:
        _refuse(code[0])
    try:
        if p.foreign:
            _note_escape("another thread computed a part of it: what that thread compared is no guard")
        if p.captured:
            set_current(outer)
            _note_escape("a program recorded within took a Value for a constant: a replay does not see it")
    except BaseException:
        lib.tg_free_program(p)
        raise
    finally:
        set_current(recording)
    return int(ffi.cast("uintptr_t", p)), recording.codes


@_alone
def no_grad_by(step: int) -> None:
    """Enter (1) or leave (-1) no_grad in this thread."""
    global _off_anywhere
    _off.depth = getattr(_off, "depth", 0) + step
    _off_anywhere += step


@_alone
def size() -> int:
    return int(_tape.len)


@_alone
def nbytes() -> int:
    return int(lib.tg_bytes(_tape))


@_alone
def collect() -> int:
    return _reclaim(lib.tg_slide)


@_alone
def reset() -> None:
    if _tape.sweep != ffi.NULL:
        raise RuntimeError("the tape cannot be reset while a sweep is running a rule")
    if _tape.recorders:
        raise RuntimeError("the tape cannot be reset while a program is being recorded")
    if _depth > 1:  # a finalizer came in between
        raise RuntimeError("the tape cannot be reset in the middle of an operation")
    _reclaim(lib.tg_forget)
    _pins.clear()
    held = [h for h in map(_live, range(len(_handles))) if h is not None]
    for h in held:
        _set(h, "_holds", None)
        _set(h, "_rule", None)
        h.__dict__.pop("_op", None)


@_alone
def clear_grads() -> None:
    lib.tg_clear_grads(_tape)


@_alone
def stats() -> tuple[int, int, int, int, int, float]:
    t = _tape
    return (t.len, lib.tg_owners(t), t.cap, lib.tg_bytes(t), t.reclaims, t.reclaim_seconds)
