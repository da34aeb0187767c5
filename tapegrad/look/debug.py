"""`debug`: within it, a loss or a gradient that is not finite is an error that says where it was made.

The checks are put into the classes when the first block begins and taken out when the last ends: outside, nothing is
asked. Within, results are looked at once they are there, and lines are noted as they run, for Values alone."""
from __future__ import annotations

import functools
import math
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from types import FrameType, TracebackType
from typing import Any, Union

from ..loops import Loop
from ..loops.batch import LoopBatch
from ..program import Program
from ..program.batch import Batch
from ..value import WITHIN, Value, handle
from .diagnosis import Diagnosis, NonFinite, is_bad, of_graph
from .graph import GIVEN, Graph, Notes

__all__ = ["NonFinite", "debug", "noted"]

_local = threading.local()
_lock = threading.Lock()
_replaced: list[tuple[Any, str, Any]] = []
_blocks = 0
_MISSING = object()
MOST_LABELLED = 100_000  # nodes of a graph in which the label of an input is looked for
Given = tuple[Sequence[Any], dict[str, Any]]  # what f is called with
Face = Union[Program, Batch, Loop, LoopBatch]
_PACKAGE = WITHIN[0].rpartition("losses.py")[0]


def _current() -> debug | None:
    return getattr(_local, "current", None)


def noted() -> Notes | None:
    """Where nodes were recorded, within a block of this thread."""
    block = _current()
    return block._notes if block is not None else None


class debug:
    """`with debug(): ...` raises NonFinite where `backward`, a program or a gradient gives what is not finite.

    It counts for its thread. Lines of Values are known for what is recorded within. A second derivative that is not
    finite, though value and gradient are, is let be.

    Args:
        inf: whether infinities are errors; nan always is.

    >>> with debug():
    ...     grad(lambda x: x.sqrt())(0.0)
    Traceback (most recent call last):
    tapegrad.NonFinite: the gradient is inf: made at <stdin>:2
    ...
    """

    __module__ = "tapegrad"

    def __init__(self, inf: bool = True) -> None:
        self._inf, self._notes = inf, Notes()
        self._outer: debug | None = None
        self._frames: list[tuple[FrameType, Any]] = []
        self._reclaims = 0

    def __enter__(self) -> debug:
        self._outer, _local.current = _current(), self
        _install(1)
        self._reclaims = handle.stats()[4]
        if sys.gettrace() is None:
            frame: FrameType | None = sys._getframe(1)
            while frame is not None and len(self._frames) < 64:
                self._frames.append((frame, frame.f_trace))
                frame.f_trace = self._line
                frame = frame.f_back
            sys.settrace(self._call)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, back: TracebackType | None
    ) -> None:
        if self._frames:
            sys.settrace(None)
            for frame, before in self._frames:
                frame.f_trace = before
            self._frames.clear()
        _local.current = self._outer
        self._notes.clear()
        _install(-1)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename.startswith((_PACKAGE, "<frozen")):
            frame.f_trace_lines = False
            return None
        return self._line(frame, event, argument)

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        """From here on, nodes come from the line that runs next: this one, or the caller's after a return."""
        here: FrameType | None = frame
        if event == "return":
            here = frame.f_back
            if here is not None and here.f_code.co_filename.startswith(_PACKAGE):
                return self._line
        if here is not None:
            at = handle.size()
            if self._notes.ids and at < self._notes.ids[-1]:
                reclaims = handle.stats()[4]
                if reclaims != self._reclaims:  # ids have moved
                    self._reclaims = reclaims
                    self._notes.clear()
            self._notes.note(at, (here.f_code.co_filename, here.f_lineno))
        return self._line


def _raise(found: Diagnosis | None) -> None:
    if found is not None:
        raise NonFinite(found)


def _of_values(roots: Sequence[Value], xs: Sequence[Value] | None, block: debug, swept: bool) -> Diagnosis | None:
    """Of Values: by xs, or by all leaves with a handle."""
    graph = Graph.of_values([*roots, *(xs or ())], block._notes)
    by = [i for i in range(graph.n) if graph.core.kind[i] == GIVEN] if xs is None else graph.roots[len(roots) :]
    del graph.roots[len(roots) :]
    graph.core.n_roots = len(roots)
    if graph.core.ruled and swept:  # the sweep ran the rules: the grads have what it found
        for i in by:
            graph.core.adjoint[i] = graph.core.grad[i]
    else:
        graph.sweep()
    found = of_graph(graph, by, block._inf, swept=True)
    if found is not None and graph.n <= MOST_LABELLED:
        graph.name_values(roots)
        found = of_graph(graph, by, block._inf, swept=True)
    return found


def _backward(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def backward(self: Value, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        block = _current()
        if block is not None and not handle.all_finite((self,)):
            _raise(_of_values([self], None, block, swept=True))

    return backward


def _adjoints(original: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """A sweep that gives floats, or recorded, Values."""

    @functools.wraps(original)
    def adjoints(roots: Iterable[Value], seeds: Any, xs: Iterable[Value]) -> list[Any]:
        ys, by = tuple(roots), tuple(xs)
        out = original(ys, seeds, by)
        block = _current()
        found = handle.primals(out) if original.__name__ == "record_sweep" else out
        if block is not None and (_any_bad(found, block._inf) or _any_bad(handle.primals(ys), block._inf)):
            _raise(_of_values(ys, by, block, swept=False))
        return out

    return adjoints


def _any_bad(result: Any, inf: bool) -> bool:
    if isinstance(result, float):
        return is_bad(result, inf)
    if hasattr(result, "dtype"):
        import numpy

        return bool(~numpy.isfinite(result).all() if inf else numpy.isnan(result).any())
    if isinstance(result, dict):
        result = result.values()
    elif not isinstance(result, (list, tuple)):
        return False
    try:
        if not inf:
            return any(map(math.isnan, result))
        return not all(map(math.isfinite, result))
    except TypeError:  # a nest
        return any(_any_bad(x, inf) for x in result)


def _quietly(block: debug, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call what looks at its own result: nothing in there records on the tape but f, as ever."""
    tracer = sys.gettrace()
    sys.settrace(None)
    _local.current = None
    try:
        return function(*args, **kwargs)
    finally:
        _local.current = block
        sys.settrace(tracer)


def _bound(face: Face, args: Sequence[Any], named: dict[str, Any]) -> Sequence[Any]:
    """All arguments, in order."""
    if isinstance(face, (Loop, LoopBatch)):
        return (face if isinstance(face, Loop) else face._loop)._bound(args, named)
    return (face._recorded if isinstance(face, Program) else face._rows.recorded).forms.bound(args, named)


def _called(original: Callable[..., Any], of: Callable[..., Given]) -> Callable[..., Any]:
    """A method of a program, a loop or a batch, whose result is looked at; of: what the arguments of f are among its
    own."""

    @functools.wraps(original)
    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        def looked_at(function: Callable[..., Any], *args_: Any, **kwargs_: Any) -> Any:
            block = _current()
            if block is None:
                return function(*args_, **kwargs_)
            result = _quietly(block, function, *args_, **kwargs_)
            if _any_bad(result, block._inf):
                _raise(self.diagnose(*_bound(self, *of(*args, **kwargs)), inf=block._inf))
            return result

        result = looked_at(original, self, *args, **kwargs)
        if original.__name__ != "vjp":
            return result
        value, pull = result
        return value, functools.partial(looked_at, pull)

    return called


def _same(*args: Any, argnums: Any = 0, **named: Any) -> Given:
    return args, named


def _primals(primals: Sequence[Any], tangents: Sequence[Any]) -> Given:
    return primals, {}


def _but_second(x: Any, v: Any, *rest: Any, argnums: Any = 0, **named: Any) -> Given:
    return (x, *rest), named


def _install(step: int) -> None:
    """One more block, or one less."""
    global _blocks
    with _lock:
        _blocks += step
        if _blocks == 1 and step == 1:
            _replace(Value, "backward", _backward)
            _replace(handle, "adjoints", _adjoints)
            _replace(handle, "record_sweep", _adjoints)
            of: dict[str, Callable[..., Given]] = {"jvp": _primals, "hvp": _but_second}
            for name in ("__call__", "grad", "value_and_grad", "jacobian", "hessian", "jvp", "hvp", "vjp"):
                for face in (Program, Batch, Loop, LoopBatch):
                    if hasattr(face, name):
                        _replace(face, name, functools.partial(_called, of=of.get(name, _same)))
        elif _blocks == 0:
            for where, name, before in _replaced:
                if before is _MISSING:
                    delattr(where, name)
                else:
                    setattr(where, name, before)
            _replaced.clear()


def _replace(where: Any, name: str, wrapped: Callable[[Any], Any]) -> None:
    _replaced.append((where, name, vars(where).get(name, _MISSING)))
    setattr(where, name, wrapped(getattr(where, name)))
