"""Sweeps for functions of functions: adjoints as numbers, which touch no grad, and recorded as Values."""
from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from .._core import ffi, lib
from .attributes import call_rule, raised
from .handle import ROWS, Handle, alone, joined, new, node, refuse, tape
from .held import room
from .operands import gathered, only_values
from .operations import leaf
from .recording import sweeping

_COPY = ROWS["COPY"]


def _checked(roots: Iterable[Any], seeds: Iterable[Any] | None, xs: Iterable[Any]) -> Any:
    ys, weights, by = only_values(roots), None if seeds is None else gathered(seeds), only_values(xs)
    if weights is not None and len(weights) != len(ys):
        raise ValueError(f"{len(ys)} Values but {len(weights)} seeds")
    return ys, weights, by


@alone
def _adjoints(ys: tuple[Handle, ...], seeds: list[float] | None, xs: tuple[Handle, ...]) -> tuple[int, Any]:
    out = ffi.new("double[]", len(xs))
    roots, by = [node(y) for y in ys], [node(x) for x in xs]
    weights = ffi.NULL if seeds is None else seeds
    thread = threading.get_ident()
    code = lib.tg_adjoints(tape, roots, weights, len(ys), by, len(xs), out, call_rule, ffi.NULL, thread)
    return code, out


def adjoints(roots: Iterable[Handle], seeds: Iterable[float] | None, xs: Iterable[Handle], /) -> list[float]:
    """d(seeds . roots)/dx for every x, seeds being 1 each where they are None."""
    ys, weights, by = _checked(roots, seeds, xs)
    if weights is not None and any(isinstance(seed, Handle) for seed in weights):
        raise TypeError("seeds of adjoints are numbers, not 'Value'")
    code, out = _adjoints(ys, weights, by)
    if code == lib.TG_RAISED:
        raise raised()
    if code:
        refuse(code)
    return list(out)


@alone
def _record_sweep(ys: tuple[Handle, ...], seeds: list[Any] | None, xs: tuple[Handle, ...]) -> list[Handle]:
    with sweeping():
        room(len(xs))
        weights = None if seeds is None else [s if isinstance(s, Handle) else leaf(s) for s in seeds]
        out = ffi.new("uint32_t[]", len(xs))
        roots, by = [node(y) for y in ys], [node(x) for x in xs]
        ids = ffi.NULL if weights is None else [node(s) for s in weights]
        code = lib.tg_record_sweep(tape, roots, ids, len(ys), by, len(xs), out)
    if code:
        refuse(code)
    holds = joined((*ys, *xs, *(weights or ())))
    return [new(i, holds) for i in out]


def record_sweep(roots: Iterable[Handle], seeds: Iterable[Any] | None, xs: Iterable[Handle], /) -> list[Handle]:
    """As `adjoints`, but recorded: a list of Values."""
    return _record_sweep(*_checked(roots, seeds, xs))


@alone
def depends_on_older(roots: Iterable[Handle], xs: Iterable[Handle], /) -> bool:
    """Whether a root depends on what is older than all xs."""
    ys, first = [node(y) for y in only_values(roots)], min((node(x) for x in only_values(xs)), default=tape.len)
    answer = lib.tg_depends_on_older(tape, ys, len(ys), first)
    if answer < 0:
        refuse(answer)
    return bool(answer)


def _copied(v: Handle) -> Handle:
    i = node(v)
    made = lib.tg_record(tape, _COPY, i, i)
    if made < 0:
        refuse(made)
    return new(made, v if v._special else v._holds)


@alone
def _fresh(items: list[Any]) -> list[Handle]:
    room(len(items))
    return [_copied(x) if isinstance(x, Handle) else leaf(x) for x in items]


def fresh(items: Iterable[Any], /) -> list[Handle]:
    """Leaves of numbers, and of Values nodes of their own with the same data, which pass everything on."""
    return _fresh(gathered(items))


@alone
def _primals(values: tuple[Handle, ...]) -> list[float]:
    return [tape.data[node(v)] for v in values]


def primals(values: Iterable[Handle], /) -> list[float]:
    """Their data; a recording is not told."""
    return _primals(only_values(values))


@alone
def _graph(values: tuple[Handle, ...]) -> int:
    ids, code = [node(v) for v in values], ffi.new("int64_t *")
    g = lib.tg_graph_of_tape(tape, ids, len(ids), code)
    if g == ffi.NULL:
        refuse(code[0])
    return int(ffi.cast("uintptr_t", g))


def graph(values: Iterable[Handle], /) -> int:
    """The address of a tg_graph of what they depend on."""
    return _graph(only_values(values))


@alone
def _all_finite(values: tuple[Handle, ...]) -> bool:
    ids = [node(v) for v in values]
    answer = lib.tg_all_finite(tape, ids, len(ids))
    if answer < 0:
        refuse(answer)
    return bool(answer)


def all_finite(values: Iterable[Handle], /) -> bool:
    """Whether their data are finite, and the grads of all nodes up to the last of them."""
    return _all_finite(only_values(values))
