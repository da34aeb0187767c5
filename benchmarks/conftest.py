"""The option that makes the suite small."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--smoke", action="store_true", help="small sizes, to see that all benchmarks run")


@pytest.fixture(scope="session")
def smoke(request: pytest.FixtureRequest) -> bool:
    """Whether small sizes do."""
    return bool(request.config.getoption("--smoke"))
