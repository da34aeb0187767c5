"""Functions of many operands: dot, sum, affine, softmax, and the primitive for all the others."""
from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from .._core import ffi, lib
from .handle import ROWS, Handle, alone, grad_off, joined, new, node, refuse, tape
from .held import room
from .operands import gathered
from .operations import as_leaf, leaf
from .recording import sweeping

_DOT, _SUM, _TOP, _LOGSUMEXP = (ROWS[name] for name in ("DOT", "SUM", "TOP", "LOGSUMEXP"))
_SUB, _EXP = ROWS["SUB"], ROWS["EXP"]


def _of_one_iterable(function: Callable[[Iterable[Any]], Any]) -> Callable[..., Any]:
    """The function, which says so where its operands are given one by one instead."""
    name = function.__name__

    @functools.wraps(function)
    def called(*args: Any) -> Any:
        if len(args) != 1:
            raise TypeError(f"{name}() takes one iterable, not {len(args)} arguments: {name}([a, b, ..])")
        return function(args[0])

    return called


def _ids(xs: list[Any], nodes: int, words: int) -> tuple[list[int], int]:
    """The ids of operands, numbers becoming leaves, with room for what is computed from them; and how long the tape was
    before."""
    room(len(xs) + nodes, words)
    for x in xs:
        if isinstance(x, Handle):
            node(x)
    code = lib.tg_grow(tape, len(xs) + nodes, words)
    if code:
        refuse(code)
    before: int = tape.len
    return [x._id if isinstance(x, Handle) else lib.tg_leaf(tape, x) for x in xs], before


def _values(xs: Iterable[Any]) -> list[Handle]:
    return [x for x in xs if isinstance(x, Handle)]


@alone
def _many(op: int, xs: list[Any]) -> Handle:
    if not xs:
        room(1)
        return leaf(0.0)
    ids, before = _ids(xs, 1, len(xs) + 1)
    i = lib.tg_record_many(tape, op, ids, len(ids))
    return as_leaf(before) if grad_off() else new(i, joined(_values(xs)))


def many(op: int, xs: Iterable[Any], ys: Iterable[Any] = (), /) -> Handle:
    return _many(op, gathered(xs) + gathered(ys))


def dot(xs: Iterable[Any], ys: Iterable[Any], bias: Any = None) -> Handle:
    """bias + xs[0] * ys[0] + xs[1] * ys[1] + .., as one node.

    Args:
        xs, ys: iterables of Values and numbers, of the same length n.
        bias: where the sum starts: a Value or a number; 0.0 without.

    Returns:
        A Value whose operands are xs, then ys, then bias.

    Raises:
        ValueError: the lengths differ.
        TypeError: an element is no Value and no number.

    >>> dot([Value(1.0), 2.0], [3.0, 4.0], bias=5.0)
    Value(data=16.0, grad=0.0)
    """
    a, b = gathered(xs), gathered(ys)
    if len(a) != len(b):
        raise ValueError(f"dot: {len(a)} xs but {len(b)} ys")
    return _many(_DOT, a + b + ([] if bias is None else gathered((bias,))))


@_of_one_iterable
def sum(xs: Iterable[Any], /) -> Handle:
    """xs[0] + xs[1] + .., left to right from 0.0, as one node.

    Args:
        xs: an iterable of Values and numbers.

    Returns:
        A Value; a leaf 0.0 where xs is empty.

    >>> tapegrad.sum([Value(1.0), 2.0, 3.0])
    Value(data=6.0, grad=0.0)
    """
    return _many(_SUM, gathered(xs))


def _all_new(ids: list[int], before: int, holds: Any) -> list[Handle]:
    """Handles for nodes; in no_grad leaves instead, and all nodes from before on go."""
    if grad_off():
        data = [tape.data[i] for i in ids]
        lib.tg_take_back(tape, before)
        return [leaf(x) for x in data]
    return [new(i, holds) for i in ids]


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


@alone
def _affine(x: list[Any], rows: list[list[Any]], b: list[Any], activation: int) -> list[Handle]:
    n, m = len(x), len(rows)
    flat = [*x, *(w for row in rows for w in row), *b]
    ids, before = _ids(flat, 2 * m, m * (2 * n + 2))
    outputs = []
    for i in range(m):
        operands = ids[n * (i + 1) : n * (i + 2)] + ids[:n] + (ids[n * (m + 1) + i :][:1] if b else [])
        y = lib.tg_record_many(tape, _DOT, operands, len(operands))
        outputs.append(lib.tg_record(tape, activation, y, y) if activation else y)
    return _all_new(outputs, before, joined(_values(flat)))


def affine(W: Iterable[Iterable[Any]], b: Any, x: Iterable[Any], activation: Any = None) -> list[Handle]:
    """activation(W x + b): a list of m Values, one dot node a row and one activation node.

    Args:
        W: m rows of n Values and numbers.
        b: m Values and numbers, or None.
        x: n Values and numbers; a number becomes one leaf for all rows.
        activation: None or the name of an operation of one operand that refuses nothing,
            as 'relu', 'tanh', 'sigmoid'.

    Returns:
        The m results; each sum starts from its b and goes from left to right.

    Raises:
        ValueError: the lengths do not fit, or there is no such activation.

    >>> affine([[Value(1.0), 2.0], [3.0, -4.0]], [0.5, 0.5], [1.0, 1.0], "relu")
    [Value(data=3.5, grad=0.0), Value(data=0.0, grad=0.0)]
    """
    op = _activation(activation)
    rows, operands = tuple(W), gathered(x)
    weights = []
    for i, row in enumerate(rows):
        weights.append(gathered(row))
        if len(weights[i]) != len(operands):
            raise ValueError(f"affine: row {i} of W has {len(weights[i])} elements, x has {len(operands)}")
    bias = [] if b is None else gathered(b)
    if b is not None and len(bias) != len(rows):
        raise ValueError(f"affine: b has {len(bias)} elements, W has {len(rows)} rows")
    return _affine(operands, weights, bias, op)


@alone
def _softmax(xs: list[Any]) -> list[Handle]:
    with sweeping():  # no exp of what is below 0 is refused: those that f drops may go
        ids, before = _ids(xs, 3 * len(xs) + 2, 2 * len(xs) + 2)
    top = lib.tg_record_many(tape, _TOP, ids, len(ids))
    ids = [lib.tg_record(tape, _SUB, i, top) for i in ids]
    total = lib.tg_record_many(tape, _LOGSUMEXP, ids, len(ids))
    below = [lib.tg_record(tape, _SUB, i, total) for i in ids]
    return _all_new([lib.tg_record(tape, _EXP, i, i) for i in below], before, joined(_values(xs)))


@_of_one_iterable
def softmax(xs: Iterable[Any], /) -> list[Handle]:
    """A list of exp(xs[k]) / (exp(xs[0]) + exp(xs[1]) + ..), without overflow.

    Args:
        xs: an iterable of Values and numbers.

    Returns:
        As many Values.

    >>> softmax([Value(0.0), 0.0])
    [Value(data=0.5, grad=0.0), Value(data=0.5, grad=0.0)]
    """
    operands = gathered(xs)
    return _softmax(operands) if operands else []
