"""Copies of Values, with the history that is copied with them: what copy and deepcopy are made of, in value.py."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._core import ffi, lib
from .handle import ROWS, Handle, alone, handle_of, joined, live, make, node, own, refuse, tape
from .held import room
from .operands import only_values
from .recording import note_escape

_POWK = ROWS["POWK"]
_set = object.__setattr__


def _recorded(i: int) -> list[int]:
    """The ids of the operands of node i, passive ones included."""
    if tape.op[i] & lib.TG_OPCODE == _POWK:
        return [tape.a[i], tape.b[i]]
    n = lib.tg_operands(tape, i, ffi.NULL, 0)
    ids = ffi.new("uint32_t[]", n)
    lib.tg_operands(tape, i, ids, n)
    return list(ids)


@alone
def history(value: Handle, memo: dict[int, Any]) -> list[Handle]:
    """The Values that it depends on, in the order of their making; itself comes last.

    What memo has by its id() is not looked into.
    """
    only_values((value,))
    found = [node(value)]
    seen = set(found)
    for i in found:  # which grows
        if id(live(i)) not in memo:
            new = [a for a in dict.fromkeys(_recorded(i)) if a not in seen]
            seen.update(new)
            found += new
    return [handle_of(i, value) for i in sorted(found)]


def _twin(v: Handle) -> Handle:
    """A handle without a node, of the class of v and with its attributes."""
    if v._rule is not None and v.operands:
        raise TypeError(
            "a Value whose _backward was set cannot be copied: its rule is about the operands that it was written for; "
            "use v.data"
        )
    w = make(type(v))
    if v.__dict__:
        w.__dict__.update(v.__dict__)
        _set(w, "_special", True)
    return w


@alone
def _copy_nodes(values: tuple[Handle, ...], copies: list[Handle]) -> None:
    """Make nodes for the twins that have none."""
    room(len(values))
    ids = [node(v) for v in values]
    into = ffi.new("uint32_t[]", [lib.TG_NONE if w._id < 0 else node(w) for w in copies])
    code = lib.tg_copy(tape, ids, into, len(ids))
    if code:
        refuse(code)
    special = any(w._special for w in copies)
    for v, w, i in zip(values, copies, into):
        if w._id < 0:
            own(w, i)
            _set(w, "_holds", v._holds)
            if special:
                _set(w, "_holds", joined(w.operands))


def copies(values: Iterable[Handle], known: Iterable[Handle | None]) -> tuple[list[Handle], list[Handle]]:
    """A copy of each of the values, which are in the order of their making, or in its stead what is known and not None.

    Operands among the values become their copies. Returned besides are the new ones that have attributes, which are
    shared.
    """
    note_escape(".data was read: a replay does not see it")
    olds, there = only_values(values), tuple(known)
    if len(olds) != len(there):
        raise ValueError("copies: something else is known than the values")
    only_values(w for w in there if w is not None)
    news = [_twin(v) if w is None else w for v, w in zip(olds, there)]
    attributed = [w for w, before in zip(news, there) if before is None and w.__dict__]
    _copy_nodes(olds, news)
    return news, attributed
