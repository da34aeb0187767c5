"""Generators that are in a context while they run."""
from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractContextManager
from typing import Any


class Steps(Generator[Any, Any, Any]):
    """A generator that is in a context while it runs, and nobody else is."""

    def __init__(self, generator: Generator[Any, Any, Any], context: AbstractContextManager[Any]) -> None:
        self._generator, self._context = generator, context

    def send(self, value: Any) -> Any:
        with self._context:
            return self._generator.send(value)

    def throw(self, *error: Any) -> Any:
        with self._context:
            return self._generator.throw(*error)


class AsyncSteps(AsyncGenerator[Any, Any]):
    """As `Steps`, asynchronously."""

    def __init__(self, generator: AsyncGenerator[Any, Any], context: AbstractContextManager[Any]) -> None:
        self._generator, self._context = generator, context

    async def asend(self, value: Any) -> Any:
        with self._context:
            return await self._generator.asend(value)

    async def athrow(self, *error: Any) -> Any:
        with self._context:
            return await self._generator.athrow(*error)
