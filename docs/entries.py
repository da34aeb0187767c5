"""The examples of the reference. Those of its entries are in docstrings; what is a row of the table of operations, as a
method and as a function, gets one that is computed: the value and the slopes at a point."""

from __future__ import annotations

from typing import Any

import tapegrad

NAMES: dict[str, Any] = {}  # what all of them start from
exec("import tapegrad\nfrom tapegrad import *\nfrom tapegrad import math", NAMES)
ROWS = {name: row for row in tapegrad.tape.operations for name in (row.method, *row.aliases)}
POINT, ELSEWHERE = ("0.5", "2.0"), {"acosh": ("1.5",), "polygamma": ("0.5", "1")}


def of_row(name: str, doc: str) -> str:
    """The example of an entry that is documented as a row is; else nothing."""
    row = ROWS.get(name.rpartition(".")[2])
    if row is None or doc.strip() != f"{row.doc}.":
        return ""
    two = row.kind == "binary"
    at = ", ".join(ELSEWHERE.get(row.method, POINT[: 1 + two]))
    call = f"value_and_grad({name.replace('tapegrad.', '', 1)}{', argnums=(0, 1)' if two else ''})({at})"
    return f">>> {call}\n{eval(call, NAMES)!r}"
