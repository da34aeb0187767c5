"""The ground of the portable handle: one thread at a time, how handles come and go, what is set on them, numbers.

cffi lets other threads run during every call, so whatever touches the tape is `@alone`; the lock is let go while a
rule runs. Reading numbers, which may run any Python code, comes before, and ids are read within, after room was made,
for reclaim moves them. A collection may come at any time, and with it finalizers that use Values in the middle of an
operation: they may record, but nodes go only when no operation is under way.

`handles[i]` is a weak reference to the handle of node i. CPython says at once when a handle dies; on PyPy the nodes
of dead handles wait for reclaim.

What is set on a Value has to outlive its handle. A Value with attributes is therefore held by the handles of all that
is computed from it (`_holds`); where it may have been used already when the attribute came, the attributes are copied
to `pins` as well. All that is ordinary Python references, so a rule that closes over its own Value is collected."""
from __future__ import annotations

import contextvars
import functools
import platform
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from .. import _refusals
from .._core import ffi, lib

_R = TypeVar("_R")
PYPY = platform.python_implementation() == "PyPy"
ROWS = {ffi.string(lib.tg_ops[op].name).decode(): op for op in range(lib.tg_op_count)}
tape = ffi.addressof(lib, "tg_main")
handles: list[Any] = []
pins: dict[int, tuple[type[Handle], dict[str, Any]]] = {}
_lock = threading.RLock()
_depth = 0  # operations under way in the thread that has the lock: more than one where a finalizer came in between
_dead = False  # a handle died while an operation was under way
_set = object.__setattr__
_ref = weakref.ref

# ---- one thread at a time ----


def alone(operation: Callable[..., _R]) -> Callable[..., _R]:
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
                    trim()

    return alone


def in_between() -> bool:
    """Whether a finalizer came in the middle of another operation of this thread."""
    return _depth > 1


def let_in(rule: Callable[[], Any]) -> None:
    """Call a rule, and let others in meanwhile."""
    global _depth
    _depth -= 1
    _lock.release()
    try:
        rule()
    finally:
        _lock.acquire()
        _depth += 1


# ---- handles come and go ----


def live(i: int) -> Any:
    """The live handle of node i, or None."""
    ref = handles[i]
    return None if ref is None else ref()


def disown(i: int) -> None:
    """Node i has no handle any more."""
    handles[i] = None
    tape.owner[i] = ffi.NULL


def trim() -> None:
    """Drop what nobody owns from the end; nothing while a program is being recorded."""
    global _dead
    if tape.recorders:
        return
    _dead = False
    n = before = len(handles)
    while n > 0 and live(n - 1) is None:
        n -= 1
        tape.owner[n] = ffi.NULL
    gone = [pins.pop(i, None) for i in range(n, before)] if pins else []  # first: later nodes get these numbers
    del handles[n:]
    lib.tg_pop(tape)
    del gone  # what they hold may run finalizers, which may record and pin: at the end


@alone
def _forget(h: Handle) -> None:
    """A handle dies: its node has no owner any more."""
    global _dead
    i = h._id
    _set(h, "_id", -1)
    if i < len(handles) and (live(i) is None or live(i) is h):
        handles[i] = None
        tape.owner[i] = ffi.NULL
        _dead = True


class Handle:
    """The name of a node: its id, and what has to stay with the node."""

    __slots__ = ("__dict__", "__weakref__", "_holds", "_id", "_rule", "_special")
    _id: int
    _holds: Any
    _rule: Any
    _special: bool

    def __new__(cls, *args: Any, **kwargs: Any) -> Handle:
        return make(cls)

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __getattr__(self, name: str) -> Any:
        if name in _HALF_MADE:  # object.__new__(Value): no slot is filled
            return _HALF_MADE[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HALF_MADE:
            raise AttributeError(f"{name} of a Value is the engine's")
        _set(self, name, value)
        if name not in _ENGINE:
            keep_attributes(self)

    def __delattr__(self, name: str) -> None:
        if name in _HALF_MADE:
            raise AttributeError(f"{name} of a Value is the engine's")
        object.__delattr__(self, name)
        if name not in _ENGINE:
            keep_attributes(self)

    if not PYPY:

        def __del__(self, lock: Any = _lock, forget: Callable[[Handle], None] = _forget) -> None:
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


_HALF_MADE = {"_id": -1, "_holds": None, "_rule": None, "_special": True}
_ENGINE = frozenset(("data", "grad", "_op", "_backward"))  # they see to themselves
_value_type: type[Handle] = Handle


def set_value_type(kind: type[Handle]) -> None:
    """Name the class of new handles."""
    global _value_type
    _value_type = kind


def make(kind: type[Handle]) -> Handle:
    """A handle without a node."""
    h = object.__new__(kind)
    _set(h, "_id", -1)
    _set(h, "_holds", None)
    _set(h, "_rule", None)
    _set(h, "_special", kind is not _value_type)
    return h


def node(v: Handle) -> int:
    """The id of a Value."""
    i = v._id
    if not 0 <= i < tape.len:
        raise RuntimeError("this Value has no node: Value.__init__() was not called, or failed")
    return i


def own(h: Handle, i: int) -> Handle:
    """Make `h` the handle of node i, the newest or one without."""
    if i >= len(handles):
        handles.extend([None] * (i - len(handles)))
        handles.append(_ref(h))
    else:
        handles[i] = _ref(h)
    _set(h, "_id", i)
    tape.owner[i] = ffi.cast("void *", 2 * i + 2)  # even: live; reclaim reads the old id in it
    return h


def new(i: int, holds: Any) -> Handle:
    """A new handle of node i."""
    h = make(_value_type)
    _set(h, "_holds", holds)
    return own(h, i)


def handle_of(i: int, user: Handle) -> Handle:
    """The handle of node i, an operand of `user`."""
    h: Any = live(i)
    if h is None:
        kind, state = pins.get(i, (_value_type, None))
        h = make(kind)
        if state is not None:
            state = dict(state)
            _set(h, "_rule", state.pop("_rule"))
            h.__dict__.update(state)
            _set(h, "_special", True)
        _set(h, "_holds", user._holds)
        own(h, i)
    return h  # type: ignore[no-any-return]


# ---- what is set on a handle ----


@alone
def keep_attributes(h: Handle) -> None:
    """Something was set that has to stay with the node."""
    _set(h, "_special", True)
    if 0 <= h._id < tape.len - 1:
        pins[h._id] = (type(h), {**h.__dict__, "_rule": h._rule})


def joined(values: Iterable[Handle]) -> Any:
    """What a Value computed from these has to hold."""
    holds: list[Any] = []
    for v in values:
        h = v if v._special else v._holds
        if h is not None and not any(h is other for other in holds[-2:]):
            holds.append(h)
    return tuple(holds) if len(holds) > 1 else holds[0] if holds else None


# ---- errors and numbers ----


def refuse(code: int, op: int = 0, a: float = 0.0, b: float = 0.0) -> None:
    """Raise what a code stands for, with the operation and its operands."""
    raise _refusals.refused(code, op, a, b)


def number(x: Any) -> Any:
    """`x` as a float, or NotImplemented."""
    return x if type(x) is float else _refusals.as_number(x)


def need_number(what: str, x: Any) -> float:
    """`x` as a float, or TypeError."""
    k: Any = number(x)
    if k is NotImplemented:
        raise TypeError(f"{what} must be a number, not {type(x).__name__!r}")
    return k  # type: ignore[no-any-return]


# ---- no_grad ----

# How deep a context is in it. A task starts with a copy of its maker's context and so in no_grad if that is; hence
# those that live are known here, not who entered and left.
off_anywhere: set[Any] = set()  # weak references, mostly none, and cheaper to ask


class _Depth:
    """What the context variable holds; where it holds None, the depth is 0."""

    __slots__ = ("__weakref__", "deep")

    def __init__(self, deep: int) -> None:
        self.deep = deep
        off_anywhere.add(_ref(self, off_anywhere.discard))  # no method that Ctrl-C could come in


_off: contextvars.ContextVar[_Depth | None] = contextvars.ContextVar("tapegrad.no_grad", default=None)


def grad_off() -> int:
    """How deep in no_grad this context is, a task's or a thread's."""
    depth = _off.get() if off_anywhere else None
    return 0 if depth is None else depth.deep


def no_grad_by(step: int) -> int:
    """Enter (1) or leave (-1) no_grad in this context; how deep it was in it before."""
    before = grad_off()
    if step:
        _off.set(_Depth(before + step) if before + step > 0 else None)
    return before


def leave_no_grad(*unused: object) -> None:
    """Leave no_grad in this context, as __exit__ of a with statement."""
    before = grad_off()
    try:
        no_grad_by(-1)
    except BaseException:  # Ctrl-C came before it had left
        no_grad_by(before - 1 - grad_off())
        raise
