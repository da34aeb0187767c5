"""Generators that are in `no_grad` while they run."""
from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any

from ._no_grad import no_grad


class Steps(Generator[Any, Any, Any]):
    """A generator that is in no_grad while it runs, and nobody else is."""

    def __init__(self, generator: Generator[Any, Any, Any]) -> None:
        self._generator = generator

    def send(self, value: Any) -> Any:
        with no_grad():
            return self._generator.send(value)

    def throw(self, *error: Any) -> Any:
        with no_grad():
            return self._generator.throw(*error)


class AsyncSteps(AsyncGenerator[Any, Any]):
    """As `Steps`, asynchronously."""

    def __init__(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._generator = generator

    async def asend(self, value: Any) -> Any:
        with no_grad():
            return await self._generator.asend(value)

    async def athrow(self, *error: Any) -> Any:
        with no_grad():
            return await self._generator.athrow(*error)
