"""A loop over the rows of a batch: paths of a Monte Carlo, ensembles of ODEs, sequences, side by side in lanes."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..program.batch import Batch, Rows, threads_of
from ..program.containers import Container
from ..program.form import Nest, Shaped
from ..program.recorded import Argnums
from ..program.rows import Axes, axes_of, plain
from .layout import count_mapped

if TYPE_CHECKING:
    from ..look.diagnosis import Diagnosis
    from .loop import Loop


class LoopBatch:
    """A loop over the rows of a batch; see `Loop.map`.

    >>> record(lambda state, x: state + x, 0.0, 0.0).scan().map()([0.0, 1.0], [[1.0, 2.0], [3.0, 4.0]])
    ([3.0, 8.0], None)
    """

    def __init__(self, loop: Loop, in_axes: Axes, reduce: str | None, threads: int) -> None:
        in_axes = plain(in_axes)
        self._loop, self._axes, self._reduce, self._threads = loop, in_axes, reduce, threads_of(threads, reduce)
        forms = loop._step.state, loop._step.x, *loop._step.params
        axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(forms)
        if len(axes) != len(forms):
            raise ValueError(f"in_axes has {len(in_axes)} entries, the loop takes {len(forms)} arguments")
        for k, (axis, form) in enumerate(zip(axes, forms)):
            if k == 1 and isinstance(form, Container) and not isinstance(axis, bool):
                continue  # those of xs go with the way in which the steps are given
            list(axes_of(axis, form, f"in_axes[{k}]"))

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
        """What the loop gives for each row, stacked at each leaf, or their mean or sum; as `Batch.__call__`.

        >>> record(lambda state, x: state + x, 0.0, 0.0).scan().map((None, 0))(0.0, [[1.0, 2.0], [3.0, 4.0]])
        ([3.0, 7.0], None)
        """
        batch, args = self._batch(args, named, False)
        return batch(*args)

    def value_and_grad(self, /, *args: Nest, argnums: Argnums = 0, **named: Nest) -> tuple[Shaped, Any]:
        """The loss of each row, or the mean or sum of losses, and the gradient; as `Batch.value_and_grad`.

        >>> batch = record(lambda state, x: state * x, 1.0, 1.0).scan().map((None, 0), reduce="sum")
        >>> batch.value_and_grad(1.0, [[2.0, 3.0], [4.0, 5.0]])
        (26.0, 26.0)
        """
        batch, args = self._batch(args, named, True)
        return batch.value_and_grad(*args, argnums=argnums)

    def grad(self, /, *args: Nest, argnums: Argnums = 0, **named: Nest) -> Shaped:
        """The gradient; see `value_and_grad`.

        >>> batch = record(lambda state, x: state * x, 1.0, 1.0).scan().map((None, 0))
        >>> batch.grad(1.0, [[2.0, 3.0], [4.0, 5.0]])
        [6.0, 20.0]
        """
        return self.value_and_grad(*args, argnums=argnums, **named)[1]

    def vjp(self, /, *primals: Nest, **named: Nest) -> tuple[Shaped, Callable[..., Any]]:
        """What a call gives, and what pulls cotangents of that back; as `Batch.vjp`.

        >>> batch = record(lambda state, x: state * x, 1.0, 1.0).scan().map((None, 0))
        >>> value, pull = batch.vjp(1.0, [[2.0, 3.0], [4.0, 5.0]])
        >>> value, pull(([1.0, 1.0], None), argnums=0)
        (([6.0, 20.0], None), [6.0, 20.0])
        """
        batch, args = self._batch(primals, named, False)
        return batch.vjp(*args)

    def jvp(self, primals: Sequence[Nest], tangents: Sequence[Nest]) -> tuple[Shaped, Shaped]:
        """What a call gives, and its derivative along tangents; as `Batch.jvp`.

        >>> batch = record(lambda state, x: state * x, 1.0, 1.0).scan().map((0, None))
        >>> batch.jvp(([1.0, 2.0], [3.0]), ([1.0, 1.0], [0.0]))
        (([3.0, 6.0], None), ([3.0, 3.0], None))
        """
        batch, args = self._batch(primals, {}, False)
        return batch.jvp(args, tangents)

    def diagnose(self, *args: Nest, inf: bool = True) -> Diagnosis | None:
        """As `Loop.diagnose`, of the first row that is not finite, which it names.

        >>> batch = record(lambda state, x: state.sqrt() * x, 1.0, 1.0).scan().map((0, None))
        >>> batch.diagnose([1.0, 0.0], [2.0, 3.0]).row
        1
        """
        from ..look.which_step import of_batch

        return of_batch(self, args, inf)

    def hvp(self, x: Nest, v: Nest, /, *rest: Nest, argnums: int = 0, **named: Nest) -> Shaped:
        """The Hessian of the loss by argument argnums times v; as `Batch.hvp`.

        >>> batch = record(lambda state, x: state * x * state, 1.0, 1.0).scan().map((0, None))
        >>> batch.hvp([1.0, 2.0], [1.0, 1.0], [3.0])
        [6.0, 6.0]
        """
        batch, args = self._batch((x, *rest), named, True)
        return batch.hvp(args[0], v, *args[1:], argnums=argnums)
