"""A loss over more rows than one process holds, on a Dask cluster: blocks go to its workers, gradients come back."""
from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import weakref
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Union, overload

try:
    import distributed
    from dask.delayed import Delayed, delayed
except ImportError as error:
    raise ImportError("tapegrad.dask needs Dask: pip install 'tapegrad[dask]'") from error

from ._core import lib
from .loops import Loop
from .loops.batch import LoopBatch
from .loops.layout import count
from .program.batch import Batch, Rows
from .program.form import Shaped
from .program.making import loaded
from .program.program import Program
from .program.recorded import Argnums, Several, gathered
from .program.replay import pointer
from .program.rows import Axes

__all__ = ["value_and_grad"]

FAN_IN = 8  # sums that are added in one task

Batched = Union[Batch, LoopBatch]


@dataclasses.dataclass(frozen=True)
class _Held:
    """What Dask is not to look into."""

    content: Any


@dataclasses.dataclass(frozen=True)
class _Step:
    """What all blocks share: the arguments, None where they are mapped, which these are, the numbers of the params, and
    argnums."""

    args: tuple[Any, ...]
    mapped: tuple[bool, ...]
    params: list[float]
    argnums: Argnums


# ---- on the workers ----


def _batch(data: bytes, axes: tuple[Axes, ...], threads: int) -> Batched:
    return loaded(data).map(axes, "sum", threads)


def _of_block(batch: Batched, step: _Step, *blocks: Any) -> tuple[int, array[float]]:
    """How many rows a block has, and the sums over them: of the loss, then of the gradients."""
    contents = (block.content if isinstance(block, _Held) else block for block in blocks)
    rows, args = batch._at([next(contents) if mapped else x for x, mapped in zip(step.args, step.mapped)], {})
    at_step = Rows(rows.recorded.with_params(step.params), rows.axes, "sum", rows.threads)
    swept = at_step.sweep(args, step.argnums)
    return swept.rows, array("d", itertools.chain(swept.out, *itertools.chain(*swept.grads)))


def _add(parts: list[tuple[int, array[float]]]) -> tuple[int, array[float]]:
    """The sums of some blocks together, in their order."""
    total = array("d", parts[0][1])
    for _, sums in parts[1:]:
        lib.tg_accumulate(pointer(total), pointer(sums), len(total))
    return sum(rows for rows, _ in parts), total


# ---- on the client ----

_sent: weakref.WeakKeyDictionary[Batched, tuple[int, Any]] = weakref.WeakKeyDictionary()  # with how many paths


def _at(batch: Batched, args: Sequence[Any], named: Mapping[str, Any]) -> tuple[Rows, tuple[Any, ...]]:
    """What has rows, and all arguments. Of a loop whose xs are in blocks, how many steps there are is for these to say:
    here it has none."""
    if isinstance(batch, LoopBatch):
        loop = batch._loop
        args = loop._bound(args, named)
        in_blocks = batch._axis_of_xs is not None
        n = None if in_blocks else count(args[1], loop._step.x, "xs")
        n = 0 if in_blocks and loop.length is None else loop._length_of(n)
        return batch._of_length(n, args, True)._rows, args
    return batch._at(args, named)


def _send(batch: Batched, rows: Rows, client: Any) -> Any:
    """The batch as what a task makes of its bytes: a worker fetches them once, and any worker can make it again."""
    n_paths, future = _sent.get(batch, (0, None))
    known = batch._n_paths()  # before it is encoded: a path that comes in between is sent again
    if n_paths != known or future.client is not client or future.status not in ("pending", "finished"):
        data, rest = batch._encoded(), (rows.axes, rows.threads)
        key = f"tapegrad-{hashlib.sha256(repr(rest).encode() + data).hexdigest()}"
        future = client.submit(_batch, data, *rest, key=key)
        _sent[batch] = known, future
    return future


def _blocks(x: Any, axis: int, what: str) -> list[Any]:
    """The blocks of a mapped argument."""
    if hasattr(x, "to_delayed"):
        if not -x.ndim <= axis < x.ndim:
            raise ValueError(f"{what} is an array of shape {x.shape}: it has no axis {axis}")
        if any(n > 1 for k, n in enumerate(x.numblocks) if k != axis % x.ndim):
            raise ValueError(f"{what} is in chunks along other axes than {axis}, that of its rows: rechunk it")
        return list(x.to_delayed().ravel())
    if not isinstance(x, Iterable) or hasattr(x, "__array__"):
        raise TypeError(f"{what} must be a Dask array or an iterable of blocks, not {type(x).__name__!r}")
    remote = (Delayed, distributed.Future)
    return [block if isinstance(block, remote) else delayed(_Held(block), traverse=False) for block in x]


def _all_blocks(rows: Rows, args: Sequence[Any]) -> list[tuple[Any, ...]]:
    """The blocks of all mapped arguments, side by side."""
    label = rows.recorded.forms.label
    mapped = {}
    for k, (x, axis) in enumerate(zip(args, rows.axes)):
        if not isinstance(axis, (int, type(None))):
            raise TypeError(f"argument {label(k)} has axes of its parts: blocks are along one axis of an argument")
        if axis is not None:
            mapped[k] = _blocks(x, axis, f"argument {label(k)}")
    first = next(iter(mapped))
    count = len(mapped[first])
    for k, blocks in mapped.items():
        if len(blocks) != count:
            raise ValueError(f"argument {label(k)} has {len(blocks)} blocks, argument {label(first)} has {count}")
    if not count:
        raise ValueError(f"argument {label(first)} has no blocks")
    return list(zip(*mapped.values()))


@overload
def value_and_grad(
    batch: Batched, /, *args: Any, argnums: int = 0, client: Any = None, **named: Any
) -> tuple[float, Shaped]: ...
@overload
def value_and_grad(
    batch: Batched, /, *args: Any, argnums: Literal["params"], client: Any = None, **named: Any
) -> tuple[float, list[float]]: ...
@overload
def value_and_grad(
    batch: Batched, /, *args: Any, argnums: Several, client: Any = None, **named: Any
) -> tuple[float, tuple[Shaped, ...]]: ...
def value_and_grad(
    batch: Batched, /, *args: Any, argnums: Argnums = 0, client: Any = None, **named: Any
) -> tuple[float, Shaped]:
    """The mean or sum of a loss over all rows of all blocks, and its gradient, as `Batch.value_and_grad` gives them.

    A worker gets the program or the loop once, and gives back a sum of losses and one of gradients for each block. They
    are added in a tree whose shape depends on the number of blocks alone: the bits do not depend on the workers. What a
    lost worker had is computed again.

    Args:
        batch: of a program or of a loop, with reduce "mean" or "sum". Workers do not record: run it here on rows of
            every path first.
        args, named: shared arguments as for the batch. A mapped one is a Dask array in chunks along the axis of its
            rows, or an iterable of blocks, as many for each argument. A block is what the batch takes for it, or a
            future or a `dask.delayed.Delayed` of that; only these two keep blocks out of this process. The xs of a
            loop may have more steps in one block than in another.
        argnums: which shared argument to differentiate by, a tuple of them, or "params".
        client: a `distributed.Client`; without, the current one.

    Returns:
        A float, and a gradient shaped like the argument, or a tuple of those.

    Raises:
        ValueError: the batch does not reduce, argnums names a mapped argument, or blocks do not match.
        TypeError: a mapped argument is not in blocks, or has axes of its parts, or f returns more than one Value.
        BranchChanged, ValueError, ZeroDivisionError, OverflowError: as of the batch; the row is that in its block.

    >>> import distributed, tapegrad.dask
    >>> batch = record(lambda w, x: w * x, 1.0, 1.0).map((None, 0), reduce="sum")
    >>> with distributed.Client(processes=False, n_workers=1, dashboard_address=None) as client:
    ...     tapegrad.dask.value_and_grad(batch, 2.0, [[1.0, 2.0], [3.0]], client=client)
    (12.0, 6.0)
    """
    if not isinstance(batch, (Batch, LoopBatch)):
        what = {Program: "program", Loop: "loop"}.get(type(batch), "")
        way = f": {what}.map(.., reduce='mean') makes one" if what else ""
        raise TypeError(f"tapegrad.dask.value_and_grad takes a batch, not {type(batch).__name__!r}{way}")
    rows, args = _at(batch, args, named)
    recorded = rows.recorded
    if rows.reduce is None:
        raise ValueError("the batch must reduce over its rows: 'mean' or 'sum'")
    recorded.check_count(args)
    recorded.check_scalar("a gradient")
    places = recorded.chosen(argnums)
    for place in places:
        k = place.number
        if k >= 0 and rows.axes[k] is not None:
            what = f"argument {recorded.forms.label(k)} is mapped"
            raise ValueError(f"{what}: a gradient by it has a row for each of all blocks")
    blocks = _all_blocks(rows, args)
    client = distributed.default_client() if client is None else client
    shared = tuple(x if axis is None else None for x, axis in zip(args, rows.axes))
    at_step = _Step(shared, tuple(axis is not None for axis in rows.axes), recorded.param_data(), argnums)
    sent, step = _send(batch, rows, client), delayed(at_step, traverse=False)
    of_block, add = delayed(_of_block, pure=False), delayed(_add, pure=False)
    parts = [of_block(sent, step, *together) for together in blocks]
    while len(parts) > 1:
        parts = [add(parts[k : k + FAN_IN]) for k in range(0, len(parts), FAN_IN)]
    count, sums = client.compute(parts[0]).result()
    if rows.reduce == "mean":
        sums = array("d", (x / count if count else math.nan for x in sums))
    starts = itertools.accumulate((place.form.size for place in places), initial=1)
    grads = [place.like(args).shaped(sums, start) for place, start in zip(places, starts)]
    return sums[0], gathered(argnums, grads)
