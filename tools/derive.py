"""Writes what is derived from the table of operations: the stub of the C handle, docs/operations.md, and the opcodes in
docs/program-format.md.

    python tools/derive.py            write them
    python tools/derive.py --check    exit 1 and name them if they are not up to date
"""
from __future__ import annotations

import sys
from pathlib import Path

import tapegrad

ROOT = Path(__file__).resolve().parent.parent
STUB_FILE, DOC_FILE, FORMAT = "tapegrad/_c_handle.pyi", "docs/operations.md", "docs/program-format.md"
OPCODES = "| | |\n| --- | --- |\n"  # the head of the last table

STUB = '''# Derived from csrc/ops.def by tools/derive.py.
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

_V = TypeVar("_V", bound="Value")

class _Number(Protocol):
    """What Values reckon with: float, int, bool, Fraction, NumPy scalars."""

    def __float__(self) -> float: ...

class Value:
    data: float
    grad: float
    label: Any
    _op: Any
    _backward: Callable[[], Any]
    def __init__(
        self, data: Value | _Number, _children: Iterable[Value] = (), _op: Any = "", label: Any = ""
    ) -> None: ...
    @property
    def operands(self) -> tuple[Value, ...]: ...
    @property
    def _prev(self) -> set[Value]: ...
    def backward(self, seed: _Number = 1.0) -> None: ...
    def _push_grad(self) -> None: ...
{methods}    def __pos__(self: _V) -> _V: ...
    def __lt__(self, other: Value | _Number) -> bool: ...
    def __le__(self, other: Value | _Number) -> bool: ...
    def __gt__(self, other: Value | _Number) -> bool: ...
    def __ge__(self, other: Value | _Number) -> bool: ...
    def __hash__(self) -> int: ...
    def __format__(self, spec: str) -> str: ...
    def __getattr__(self, name: str) -> Any: ...
    def __setattr__(self, name: str, value: Any) -> None: ...

def dot(
    xs: Iterable[Value | _Number], ys: Iterable[Value | _Number], bias: Value | _Number | None = None
) -> Value: ...
def sum(xs: Iterable[Value | _Number], /) -> Value: ...
def affine(
    W: Iterable[Iterable[Value | _Number]],
    b: Iterable[Value | _Number] | None,
    x: Iterable[Value | _Number],
    activation: str | None = None,
) -> list[Value]: ...
def softmax(xs: Iterable[Value | _Number], /) -> list[Value]: ...
def many(op: int, xs: Iterable[Value | _Number], ys: Iterable[Value | _Number] = (), /) -> Value: ...
def data(values: Iterable[Value], /) -> list[float]: ...
def grads(values: Iterable[Value], /) -> list[float]: ...
def set_data(values: Iterable[Value], numbers: Iterable[_Number], /) -> None: ...
def sgd(values: Iterable[Value], /, *settings: Any) -> None: ...
def adam(values: Iterable[Value], /, *settings: Any) -> None: ...
def leaves(numbers: Iterable[_Number], /) -> list[Value]: ...
def zero_grad(values: Iterable[Value], /) -> None: ...
def history(value: Value, memo: dict[int, Any], /) -> list[Value]: ...
def copies(values: Iterable[Value], known: Iterable[Value | None], /) -> tuple[list[Value], list[Value]]: ...
def begin_recording(escaped: Callable[[str], None], lines: Callable[[Any], bytes | bool | None], /) -> None: ...
def end_recording() -> None: ...
def freeze(start: Value, inputs: Iterable[Value], outputs: Iterable[Value], /) -> tuple[int, list[Any]]: ...
def no_grad_by(step: int, /) -> None: ...
def size() -> int: ...
def nbytes() -> int: ...
def collect() -> int: ...
def reset() -> None: ...
def clear_grads() -> None: ...
def stats() -> tuple[int, int, int, int, int, float]: ...
'''

DOC = """# Operations

Derived from `csrc/ops.def` by `tools/derive.py`. Primals and slopes are C expressions of the operands a and b and the
result y; functions that are not the C library's are in `csrc/scalar.h`.

| method | also | `_op` | y | dy/da | dy/db | |
| --- | --- | --- | --- | --- | --- | --- |
{rows}"""


def stub() -> str:
    lines = []
    seen = set()
    for row in tapegrad.tape.operations:
        if row.kind == "many" or row.method in seen:
            continue
        seen.add(row.method)
        for name in (row.method, *row.aliases):
            if row.kind == "unary":
                lines.append(f"    def {name}(self) -> Value: ...\n")
            else:
                lines.append(f"    def {name}(self, other: Value | _Number, /) -> Value: ...\n")
        if row.kind == "binary" and row.method.startswith("__"):
            lines.append(f"    def __r{row.method[2:]}(self, other: _Number, /) -> Value: ...\n")
    return STUB.replace("{methods}", "".join(lines))


def documentation() -> str:
    rows = []
    for row in tapegrad.tape.operations:
        name = f"`tapegrad.{row.method}`" if row.kind == "many" else f"`{row.method}`"
        cells = [name, " ".join(f"`{alias}`" for alias in row.aliases), f"`{row.symbol}`"]
        cells += [f"`{text}`" if text and row.kind != "many" else "" for text in (row.primal, row.da, row.db)]
        rows.append("| " + " | ".join([*cells, row.doc]) + " |\n")
    return DOC.replace("{rows}", "".join(rows))


def opcodes() -> str:
    """The format of programs with the table of opcodes that ends it."""
    head = (ROOT / FORMAT).read_text(encoding="utf-8").rpartition(OPCODES)[0]
    rows = [f"| {k} | {row.name} |\n" for k, row in enumerate(tapegrad.tape.operations, 2) if row.da]
    return "".join([head, OPCODES, *rows, f"| {len(tapegrad.tape.operations) + 2} | a guard |\n"])


def main() -> None:
    stale = []
    for name, text in ((STUB_FILE, stub()), (DOC_FILE, documentation()), (FORMAT, opcodes())):
        path = ROOT / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if sys.argv[1:] != ["--check"]:
                path.write_text(text, encoding="utf-8")
    if stale and sys.argv[1:] == ["--check"]:
        sys.exit(f"not up to date, run python tools/derive.py: {', '.join(stale)}")


if __name__ == "__main__":
    main()
