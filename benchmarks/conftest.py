"""The option that makes the suite small, and where its baseline is."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.logger import PytestBenchmarkWarning

BASELINE = Path(__file__).with_name("baseline")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--smoke", action="store_true", help="small sizes, to see that all benchmarks run")


@pytest.hookimpl(tryfirst=True)  # before pytest-benchmark reads the option
def pytest_configure(config: pytest.Config) -> None:
    if config.option.benchmark_storage == "file://./.benchmarks":  # its default
        config.option.benchmark_storage = f"file://{BASELINE}"
    warnings.simplefilter("default", PytestBenchmarkWarning)  # another machine's baseline is no error


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Leave out the machine's name and, of the processor, all but the model: the clock rate changes by the moment."""
    del machine_info["node"]
    machine_info["cpu"] = machine_info["cpu"].get("brand_raw", "")


@pytest.fixture(scope="session")
def smoke(request: pytest.FixtureRequest) -> bool:
    """Whether small sizes do."""
    return bool(request.config.getoption("--smoke"))
