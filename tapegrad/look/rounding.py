"""`rounding`: how many digits of a result are true, and which lines lost the others.

The error of each operation times its adjoint, summed, is the result's error to first order: P. Langlois, "Automatic
linear correction of rounding errors", BIT 41 (2001), 515-539. It knows nothing of the error of the inputs."""
from __future__ import annotations

import math
import os
from array import array
from typing import NamedTuple

from .._core import ffi
from ..program.recorded import Recorded
from .graph import Graph
from .heat import Groups
from .small import source


class Line(NamedTuple):
    """A source line: what it adds to the error, and its share of all that was lost, 0 to 1.

    >>> [line.share for line in record(lambda x: (x + 1.0) - 1.0, 1.0).rounding(1e-10).lines]
    [1.0]
    """

    filename: str
    lineno: int
    text: str
    error: float
    share: float


class Rounding:
    """How true a result is.

    Attributes:
        value: as the program gives it.
        error: an estimate of value - the exact result for these inputs.
        bound: how far that estimate may be off to first order, for functions whose rounding is not known exactly.
        corrected: value - error.
        lines: named tuples, the worst first.

    >>> record(lambda x: (x + 1.0) - 1.0, 1.0).rounding(1e-10).corrected
    1e-10
    """

    def __init__(self, graph: Graph) -> None:
        (root,) = graph.roots
        groups = Groups(graph)
        error, bound = groups.errors()
        signed, size = groups.weighed(error, bound)
        self.value = graph.value(root)
        off = [-x for x in signed]
        self.error = math.fsum(off) if all(map(math.isfinite, off)) else math.nan
        self.bound = math.fsum(groups.weighed(ffi.new("double[]", graph.n), bound)[1])
        self.corrected = self.value - self.error
        whole = math.fsum(size)
        lines = [
            Line(*place, source(*place), off[k], size[k] / whole if whole else 0.0)
            for k, place in enumerate(groups.places) if size[k]
        ]  # fmt: skip
        self.lines = sorted(lines, key=lambda line: -line.share)

    @property
    def digits(self) -> int:
        """Decimal digits of value that are true: 0 where there is none, 17 at most.

        >>> record(lambda x: (x + 1.0) - 1.0, 1.0).rounding(1e-10).digits
        7
        """
        loss = abs(self.error) + self.bound
        if not math.isfinite(loss) or not math.isfinite(self.value):
            return 0
        if not loss:
            return 17
        return max(0, min(17, math.floor(math.log10(abs(self.value) / loss)))) if self.value else 0

    def __str__(self) -> str:
        off = f"{self.error:.2g}" + (f" ± {self.bound:.1g}" if self.bound else "")
        lines = [f"{self.value!r}: {self.digits} digits are true; error {off}, corrected {self.corrected!r}"]
        for line in self.lines[:6]:
            place = f"{os.path.basename(line.filename)}:{line.lineno}"
            lines.append(f"  {place} makes {line.share:.0%} of it, {line.error:.2g}:  {line.text}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<rounding: {self.value!r}, error {self.error:.2g}>"


def of_program(recorded: Recorded, flat: array[float]) -> Rounding:
    recorded.check_scalar("rounding")
    return Rounding(Graph.of_program(recorded, flat).sweep())
