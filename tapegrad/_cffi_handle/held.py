"""Reclaim, and room for new nodes, which may take one."""
from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from .._core import ffi, lib
from .handle import PYPY, alone, disown, handles, in_between, live, pins, refuse, tape, trim
from .recording import note_place

_set = object.__setattr__


def room(nodes: int, words: int = 0) -> None:
    """Reclaim where it is due, before so many nodes and pool words are recorded."""
    if tape.recorders:
        note_place()
    if lib.tg_reclaim_due(tape, nodes, words):
        try:
            _reclaim(lib.tg_slide)
        except MemoryError:  # there may still be some to grow, so ask again later
            lib.tg_set_reclaim_point(tape)


def _forget_dead() -> None:
    """Take the owners from nodes whose handles are gone."""
    for i, ref in enumerate(handles):
        if ref is not None and ref() is None:
            disown(i)


def _collect_garbage() -> None:
    """Let PyPy find out which handles are dead, but run no finalizers in between."""
    enabled = gc.isenabled()
    gc.disable()
    gc.collect()
    if enabled:
        gc.enable()


def _reclaim(slide: Callable[..., int]) -> int:
    before = tape.len
    if in_between() or tape.sweep != ffi.NULL or tape.recorders:  # ids must stay
        return 0
    if PYPY:
        _collect_garbage()
    handles.extend([None] * (before - len(handles)))
    _forget_dead()
    trim()
    for i in pins:
        if handles[i] is None:
            tape.owner[i] = ffi.cast("void *", 2 * i + 3)  # odd: something was left
    lib.tg_mark_owned(tape)
    if slide is lib.tg_slide:
        lib.tg_mark_operands(tape, ffi.NULL, ffi.NULL)
    code = slide(tape, ffi.NULL, ffi.NULL)
    kept: list[Any] = [None] * tape.len
    kept_pins = {}
    for i in range(tape.len):
        token = int(ffi.cast("uintptr_t", tape.owner[i]))
        if token:
            old = (token >> 1) - 1
            if old in pins:
                kept_pins[i] = pins[old]
            kept[i] = handles[old]
            h = None if token & 1 else live(old)
            tape.owner[i] = ffi.NULL if h is None else ffi.cast("void *", 2 * i + 2)
            if h is not None:
                _set(h, "_id", i)
    gone = dict(pins)  # what they hold may run finalizers when it goes: at the end
    handles[:] = kept
    pins.clear()
    pins.update(kept_pins)
    del gone
    if code < 0:
        refuse(code)
    return int(before - tape.len)


@alone
def collect() -> int:
    return _reclaim(lib.tg_slide)


@alone
def reset() -> None:
    if tape.sweep != ffi.NULL:
        raise RuntimeError("the tape cannot be reset while a sweep is running a rule")
    if tape.recorders:
        raise RuntimeError("the tape cannot be reset while a program is being recorded")
    if in_between():
        raise RuntimeError("the tape cannot be reset in the middle of an operation")
    _reclaim(lib.tg_forget)
    pins.clear()
    held = [h for h in map(live, range(len(handles))) if h is not None]
    for h in held:
        _set(h, "_holds", None)
        _set(h, "_rule", None)
        h.__dict__.pop("_op", None)


@alone
def clear_grads() -> None:
    lib.tg_clear_grads(tape)


@alone
def size() -> int:
    return int(tape.len)


@alone
def nbytes() -> int:
    return int(lib.tg_bytes(tape))


@alone
def stats() -> tuple[int, int, int, int, int, float]:
    t = tape
    return (t.len, lib.tg_owners(t), t.cap, lib.tg_bytes(t), t.reclaims, t.reclaim_seconds)
