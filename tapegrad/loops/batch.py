"""A loop over the rows of a batch: paths of a Monte Carlo, ensembles of ODEs, sequences, side by side in lanes."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..program.batch import Batch, Rows
from ..program.form import Nest, Shaped
from ..program.recorded import Argnums
from ..program.rows import Axes
from .layout import count_mapped

if TYPE_CHECKING:
    from ..look.diagnosis import Diagnosis
    from .loop import Loop


class LoopBatch:
    """A loop over the rows of a batch; see `Loop.map`."""

    def __init__(self, loop: Loop, in_axes: Axes, reduce: str | None, threads: int) -> None:
        self._loop, self._axes, self._reduce, self._threads = loop, in_axes, reduce, threads
        n = 2 + len(loop._step.params)
        if isinstance(in_axes, (tuple, list)) and len(in_axes) != n:
            raise ValueError(f"in_axes has {len(in_axes)} entries, the loop takes {n} arguments")

    def __repr__(self) -> str:
        return f"<batch of {self._loop!r}: in_axes={self._axes}, reduce={self._reduce!r}, threads={self._threads}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return LoopBatch, (self._loop, self._axes, self._reduce, self._threads)

    def _n_paths(self) -> int:
        """How many paths are known."""
        return self._loop._n_paths()

    def _encoded(self) -> bytes:
        """A file of what it is a batch of, without the numbers of params."""
        return self._loop._encoded(blank=True)

    @property
    def _axis_of_xs(self) -> Axes:
        return self._axes[1] if isinstance(self._axes, (tuple, list)) else self._axes

    def _of_length(self, n: int, args: Sequence[Nest], total: bool) -> Batch:
        """The batch of a loop of n steps."""
        return Batch(self._loop._of_length(n, args, total), self._axes, self._reduce, self._threads)

    def _batch(self, args: Sequence[Nest], named: Mapping[str, Nest], total: bool) -> tuple[Batch, tuple[Nest, ...]]:
        """The batch of a loop that is as long as these xs say, and all arguments."""
        loop = self._loop
        given = loop._bound(args, named)
        n = loop._length_of(count_mapped(given[1], self._axis_of_xs, loop._step.x, "xs"))
        return self._of_length(n, given, total), given

    def _at(self, args: Sequence[Nest], named: Mapping[str, Nest], total: bool = True) -> tuple[Rows, tuple[Nest, ...]]:
        """What is carried out over rows for these arguments, and all of them in order; total: that of the loss."""
        batch, given = self._batch(args, named, total)
        return batch._rows, given

    def __call__(self, /, *args: Nest, **named: Nest) -> Shaped:
        """What the loop gives for each row, stacked at each leaf, or their mean or sum; as `Batch.__call__`."""
        batch, args = self._batch(args, named, False)
        return batch(*args)

    def value_and_grad(self, /, *args: Nest, argnums: Argnums = 0, **named: Nest) -> tuple[Shaped, Any]:
        """The loss of each row, or the mean or sum of losses, and the gradient; as `Batch.value_and_grad`."""
        batch, args = self._batch(args, named, True)
        return batch.value_and_grad(*args, argnums=argnums)

    def grad(self, /, *args: Nest, argnums: Argnums = 0, **named: Nest) -> Shaped:
        """The gradient; see `value_and_grad`."""
        return self.value_and_grad(*args, argnums=argnums, **named)[1]

    def vjp(self, /, *primals: Nest, **named: Nest) -> tuple[Shaped, Callable[..., Any]]:
        """What a call gives, and what pulls cotangents of that back; as `Batch.vjp`."""
        batch, args = self._batch(primals, named, False)
        return batch.vjp(*args)

    def jvp(self, primals: Sequence[Nest], tangents: Sequence[Nest]) -> tuple[Shaped, Shaped]:
        """What a call gives, and its derivative along tangents; as `Batch.jvp`."""
        batch, args = self._batch(primals, {}, False)
        return batch.jvp(args, tangents)

    def diagnose(self, *args: Nest, inf: bool = True) -> Diagnosis | None:
        """As `Loop.diagnose`, of the first row that is not finite, which it names."""
        from ..look.which_step import of_batch

        return of_batch(self, args, inf)

    def hvp(self, x: Nest, v: Nest, /, *rest: Nest, argnums: int = 0, **named: Nest) -> Shaped:
        """The Hessian of the loss by argument argnums times v; as `Batch.hvp`."""
        batch, args = self._batch((x, *rest), named, True)
        return batch.hvp(args[0], v, *args[1:], argnums=argnums)
