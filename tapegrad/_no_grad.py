"""`no_grad`: operations that leave no history, for one context: a task, a thread."""
from __future__ import annotations

from .value import handle

TYPE_CHECKING = False  # of typing's, which takes long to import

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    _F = TypeVar("_F", bound=Callable[..., Any])


class no_grad:
    """Operations inside give leaves: `with no_grad(): ...`, or `@no_grad()` on a function, a coroutine or a generator.

    It counts for the task that enters it, and for the tasks made inside; without tasks for the thread. A thread starts
    outside. A generator that yields inside a `with no_grad()` leaves it on for its caller; `@no_grad()` does not.

    >>> x = Value(2.0)
    >>> with no_grad():
    ...     y = x * x
    >>> y, y.operands
    (Value(data=4.0, grad=0.0), ())
    """

    def __enter__(self) -> no_grad:
        before = handle.no_grad_by(0)
        try:
            handle.no_grad_by(1)
        except BaseException:  # Ctrl-C is heard after a call: it has entered, and nobody will leave
            handle.no_grad_by(before - handle.no_grad_by(0))
            raise
        return self

    __exit__ = handle.leave_no_grad  # itself: Ctrl-C is heard as a function of Python's begins

    def __call__(self, f: _F) -> _F:
        import functools  # all of these are slow to import, and seldom needed
        import inspect

        from ._steps import AsyncSteps, Steps

        @functools.wraps(f)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with self:
                return f(*args, **kwargs)

        @functools.wraps(f)
        async def task(*args: Any, **kwargs: Any) -> Any:
            with self:
                return await f(*args, **kwargs)

        @functools.wraps(f)
        def steps(*args: Any, **kwargs: Any) -> Steps:
            return Steps(f(*args, **kwargs), self)

        @functools.wraps(f)
        def async_steps(*args: Any, **kwargs: Any) -> AsyncSteps:
            return AsyncSteps(f(*args, **kwargs), self)

        if inspect.iscoroutinefunction(f):
            return task  # type: ignore[return-value]  # what all of these return is as f has it
        if inspect.isgeneratorfunction(f):
            return steps  # type: ignore[return-value]
        return async_steps if inspect.isasyncgenfunction(f) else inside  # type: ignore[return-value]
