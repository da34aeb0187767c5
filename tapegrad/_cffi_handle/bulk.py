"""Many Values at once: their data and grads, new leaves, optimizer steps."""
from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from .._core import ffi, lib
from .attributes import write_grads
from .handle import Handle, alone, need_number, node, refuse, tape
from .held import room
from .operands import gathered, only_values
from .operations import leaf
from .recording import note_escape


@alone
def _new_leaves(data: list[float]) -> list[Handle]:
    room(len(data))
    code = lib.tg_grow(tape, len(data), 0)
    if code:
        refuse(code)
    return [leaf(x) for x in data]


def leaves(numbers: Iterable[float], /) -> list[Handle]:
    """A list of new leaves, one for every number of an iterable.

    Args:
        numbers: n of them, in any iterable or array.

    Returns:
        A list of n Values.

    Raises:
        TypeError: one of them is a Value or no number.

    >>> leaves([1.0, 2.0])
    [Value(data=1.0, grad=0.0), Value(data=2.0, grad=0.0)]
    """
    data = []
    for x in tuple(numbers):
        if isinstance(x, Handle):
            raise TypeError("leaves are made of numbers, not 'Value'")
        data.append(need_number("an element", x))
    return _new_leaves(data)


def plain_leaves(numbers: Any, /) -> list[Handle] | None:
    """As `leaves`, of a list of floats alone; None of anything else."""
    if type(numbers) is not list or any(type(x) is not float for x in numbers):
        return None
    return _new_leaves(numbers[:])


def zero_grad(values: Iterable[Handle], /) -> None:
    """Set the grad of every Value of an iterable to 0.0."""
    write_grads(only_values(values), 0.0)


@alone
def _read(values: tuple[Handle, ...], grads: bool) -> list[float]:
    ids = [node(v) for v in values]
    if not grads:
        return [tape.data[i] for i in ids]
    thread = threading.get_ident()
    return [lib.tg_read_grad(tape, i, thread) for i in ids]


def data(values: Iterable[Handle]) -> list[float]:
    note_escape("data() was called: a replay does not see it")
    return _read(only_values(values), False)


def grads(values: Iterable[Handle]) -> list[float]:
    note_escape("grads() was called: a replay does not see it")
    return _read(only_values(values), True)


@alone
def _write_all(values: tuple[Handle, ...], numbers: list[float], grads: bool) -> None:
    ids, thread = [node(v) for v in values], threading.get_ident()
    for i, x in zip(ids, numbers):
        if grads:
            lib.tg_write_grad(tape, i, thread, x)
        else:
            tape.data[i] = x


def _write_numbers(values: Iterable[Handle], numbers: Iterable[Any], grads: bool) -> None:
    new, items = gathered(numbers), only_values(values)
    if any(isinstance(x, Handle) for x in new):
        raise TypeError(f"{'grads' if grads else 'data'} are numbers, not 'Value'")
    if len(new) != len(items):
        raise ValueError(f"{len(items)} Values but {len(new)} numbers")
    _write_all(items, new, grads)


def set_data(values: Iterable[Handle], numbers: Iterable[Any]) -> None:
    note_escape("set_data() was called: a replay does not see it")
    _write_numbers(values, numbers, False)


def set_grads(values: Iterable[Handle], numbers: Iterable[Any]) -> None:
    _write_numbers(values, numbers, True)


def _state(bytes_: Any, n: int) -> Any:
    """The doubles of a bytearray, n of them; NULL for None."""
    if bytes_ is None:
        return ffi.NULL
    if len(bytes_) != 8 * n:
        raise ValueError("the optimizer's state does not fit its parameters")
    return ffi.from_buffer("double[]", bytes_)


@alone
def _step(values: tuple[Handle, ...], step: Callable[..., None], settings: Any, states: tuple[Any, ...]) -> None:
    step(tape, [node(v) for v in values], len(values), settings, *(_state(s, len(values)) for s in states))


def sgd(values: Iterable[Handle], *settings: Any) -> None:
    note_escape("an optimizer wrote .data: a replay does not see it")
    _step(only_values(values), lib.tg_sgd, ffi.new("tg_sgd_settings *", settings[:-1]), settings[-1:])


def adam(values: Iterable[Handle], *settings: Any) -> None:
    note_escape("an optimizer wrote .data: a replay does not see it")
    _step(only_values(values), lib.tg_adam, ffi.new("tg_adam_settings *", settings[:-3]), settings[-3:])


def rmsprop(values: Iterable[Handle], *settings: Any) -> None:
    note_escape("an optimizer wrote .data: a replay does not see it")
    _step(only_values(values), lib.tg_rmsprop, ffi.new("tg_rmsprop_settings *", settings[:-3]), settings[-3:])
