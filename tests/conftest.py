"""What all tests share: the handle that was asked for, settled lifetimes, scripts in a fresh interpreter."""

from __future__ import annotations

import gc
import os
import pathlib
import platform
import signal
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings

import tapegrad
from tapegrad import Value, tape

CPYTHON = platform.python_implementation() == "CPython"

settings.register_profile(
    "tapegrad", deadline=None, max_examples=150, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tapegrad")


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run the long tests at full size, as .ci/run does")


def pytest_configure():
    """Interrupts are asked of, and who starts this in the background may have had them ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Compilers and tools say the same beside either handle: where there are two, they are asked on the C handle."""
    if tape.handle != "c" and hasattr(tapegrad._core.lib, "tg_make_c_handle"):
        for item in items:
            if item.get_closest_marker("no_handle"):
                item.add_marker(pytest.mark.skip(reason="asked on the C handle"))


def pytest_collection_finish():
    """The thousands of tests found are of no interest to the collections that some of them ask for."""
    if CPYTHON:
        gc.freeze()


@pytest.fixture(scope="session")
def sized(request):
    """A function of two sizes of a long test: the small one, or with --full the full one; or a third one instead of it
    on the cffi handle, which takes ten times as long, where the size asks of the core, the same under both."""
    full = request.config.getoption("--full")

    def size(small, large, cffi=None):
        if not full:
            return small
        return large if cffi is None or tape.handle == "c" else cffi

    return size


@pytest.fixture(scope="session", autouse=True)
def handle():
    """The handle in use, which must be the one that the environment asks for."""
    assert tape.handle == os.environ.get("TAPEGRAD_HANDLE", "c" if CPYTHON else "cffi")
    return tape.handle


@pytest.fixture
def settle():
    """A function after which what is unreachable is gone; on CPython it is gone already, so there it does nothing."""

    def settle():
        if not CPYTHON:
            gc.collect()
            tape.collect()

    return settle


@pytest.fixture
def swept(settle):
    """A tape without garbage to start from: what other tests left behind is collected first."""
    gc.collect()
    settle()
    tape.collect()


@pytest.fixture
def np():
    """NumPy, or a skip: the project does not need it."""
    return pytest.importorskip("numpy")


@pytest.fixture
def works():
    """A function that fails unless the tape still computes."""

    def works():
        x, y = Value(3.0), Value(-2.0)
        z = (x * y + x).tanh() * 0.0 + x * x * y
        z.backward()
        assert (z.data, x.grad, y.grad) == (-18.0, -12.0, 9.0)

    return works


@pytest.fixture
def script(tmp_path, handle):
    """A function that runs Python code in an interpreter of its own, on the same package and the same handle."""
    package = str(pathlib.Path(tapegrad.__file__).parent.parent)

    def run(code, *args, timeout=300):
        env = dict(os.environ, TAPEGRAD_HANDLE=handle, PYTHONFAULTHANDLER="1", PYTHONDONTWRITEBYTECODE="")
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [package, env.get("PYTHONPATH")]))
        done = subprocess.run(
            [sys.executable, "-c", code, *args],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert "Fatal Python error" not in done.stderr and done.returncode == 0, (done.returncode, done.stderr[-3000:])
        return done

    return run
