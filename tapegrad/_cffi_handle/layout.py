"""A program laid out on the tape, for Values."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .._core import ffi, lib
from .handle import ROWS, Handle, alone, handles, joined, keep_attributes, live, new, node, refuse, tape
from .held import room
from .operands import only_values
from .recording import note_call, note_layout

_NODE = ROWS["NODE"]
_set = object.__setattr__


@alone
def _lay_out(p: Any, codes: list[Any], inputs: tuple[Handle, ...], nan_errors: bool) -> list[Handle]:
    n, holds = p.n_instr, joined(inputs)
    room(p.n_const + n, p.n_pool)
    of, a, b = (ffi.new("uint32_t[]", n) for _ in range(3))
    out = ffi.new("uint32_t[]", p.n_out)
    code = lib.tg_lay_out(tape, p, [node(v) for v in inputs], nan_errors, of, a, b, out)
    if code:
        refuse(code)

    def of_node(i: int) -> Handle:
        h = live(i) if i < len(handles) else None
        return new(i, holds) if h is None else h

    found = [of_node(i) for i in out]
    note_layout(p, codes, of, a, b)
    return found


def lay_out(address: int, codes: list[Any], inputs: Iterable[Handle], nan_errors: bool) -> list[Handle]:
    """Record what a program of the core does at Values: its outputs; nan_errors: what would be refused is nan."""
    p, values = ffi.cast("tg_program *", address), only_values(inputs)
    if p.order:
        p = ffi.gc(lib.tg_plain_program(p), lib.tg_free_program)
        if not p:
            raise MemoryError
    if len(values) != p.n_in:
        raise ValueError(f"{len(values)} Values for {p.n_in} inputs")
    return _lay_out(p, codes, values, nan_errors)


@alone
def _lay_out_call(loop: Any, inputs: tuple[Handle, ...], data: list[float], rule: Callable[[], Any]) -> list[Handle]:
    n, holds = len(data), joined(inputs)
    room(n + 1, len(inputs) + 2 * n + 1)
    ids = [node(v) for v in inputs]
    code = lib.tg_grow(tape, n + 1, len(inputs) + 2 * n + 1)
    if code:
        refuse(code)
    call = lib.tg_record_many(tape, _NODE, ids, len(ids))
    found = []
    for x in data:
        i = lib.tg_record_many(tape, _NODE, [call], 1)
        tape.data[i] = x
        found.append(new(i, holds))
        code = lib.tg_set_rule(tape, i, 1)
        if code:
            refuse(code)
        _set(found[-1], "_rule", rule)
        keep_attributes(found[-1])
    note_call(loop, ids + [node(v) for v in found], len(ids))
    return found


def lay_out_call(address: int, inputs: Iterable[Handle], data: list[float], rule: Callable[[], Any]) -> list[Handle]:
    """Record a loop of the core at Values as one: its outputs, of these data. A sweep over them calls the rule."""
    return _lay_out_call(ffi.cast("tg_loop *", address), only_values(inputs), data, rule)
