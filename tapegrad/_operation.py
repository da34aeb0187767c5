"""The table of operations, as the compiled core reports it."""
from __future__ import annotations

import functools
from typing import NamedTuple

from ._core import ffi, lib


class Operation(NamedTuple):
    """A row of the table."""

    name: str
    kind: str
    method: str
    aliases: tuple[str, ...]
    symbol: str
    refusal: str
    primal: str
    da: str
    db: str
    daa: str
    dab: str
    dbb: str
    doc: str


@functools.cache
def operations() -> tuple[Operation, ...]:
    rows = []
    for k in range(2, lib.tg_op_count):  # 0 and 1 are leaves and nodes made by hand
        texts = {name: ffi.string(getattr(lib.tg_ops[k], name)).decode() for name in Operation._fields}
        rows.append(Operation(**{**texts, "aliases": tuple(texts["aliases"].split())}))
    return tuple(rows)
