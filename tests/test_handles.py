"""The two handles: the same functions, signatures and documentation; and the order in which the files stand on each
other."""

from __future__ import annotations

import inspect
import math
import pathlib
import re
import sys

import pytest
from reference import UNARY
from tapegrad._core import lib

import tapegrad

ROOT = pathlib.Path(tapegrad.__file__).parent.parent
ORDER = "handle operands frame recording held operations attributes value many bulk gradients layout copies".split()
ORDER += ["form", "call", "rows", "quick"]
OF_C = {"frame", "form", "call", "rows"}  # where frames are, and which calls that need no Python are made of
MEMBERS = ["data", "grad", "operands", "_op", "_prev", "_backward", "_push_grad", "backward"]
MEMBERS += [name for name in UNARY if hasattr(math, name) or name in ("relu", "sigmoid", "softplus")]


SECOND = """
import os, sys
from tapegrad import Value
x = Value(3.0)
kept = {name: module for name, module in sys.modules.items() if name.startswith("tapegrad")}
for handle in "c", "cffi":
    os.environ["TAPEGRAD_HANDLE"] = handle
    for name in [name for name in sys.modules if name.startswith("tapegrad")]:
        del sys.modules[name]
    try:
        import tapegrad
    except ImportError as error:
        assert "nor a second time: there is one tape" in str(error), error
    else:
        raise AssertionError("it was imported")
sys.modules.update(kept)
import tapegrad
assert tapegrad.Value is Value
(x * x).backward()
assert x.grad == 6.0
"""


@pytest.fixture(scope="module")
def both():
    """The modules of both handles; neither records anything here."""
    if not hasattr(lib, "tg_make_c_handle"):
        pytest.skip("the C handle is built on CPython with a GIL only")
    assert lib.tg_make_c_handle() == 0
    from tapegrad import _c_handle, _cffi_handle

    return _c_handle, _cffi_handle


def test_a_subinterpreter_is_refused():
    """Values of two interpreters on one tape would take each other's ids."""
    interpreters = pytest.importorskip("_xxsubinterpreters")  # of CPython before 3.13
    other = interpreters.create()
    try:
        with pytest.raises(interpreters.RunFailedError, match="cannot be imported in a subinterpreter"):
            interpreters.run_string(other, f"import sys; sys.path[:0] = {sys.path!r}; import tapegrad")
    finally:
        interpreters.destroy(other)


def test_a_second_import_is_refused(script):
    """Two modules would each know half of the handles of the one tape."""
    script(SECOND)


def parameters(function):
    """Names, kinds and defaults."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def test_both_handles_offer_the_same_names(both):
    first, second = ({name for name in vars(module) if not name.startswith("_")} for module in both)
    assert first == set(both[1].__all__)
    assert second - first <= set(ORDER)  # its files


FUNCTIONS = ["dot", "sum", "affine", "softmax", "leaves", "zero_grad", "adjoints", "record_sweep", "fresh", "quick"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_one_signature_and_one_documentation(both, name):
    first, second = (getattr(module, name) for module in both)
    assert parameters(first) == parameters(second)
    assert inspect.getdoc(first) == inspect.getdoc(second) is not None


def test_value_has_one_signature_and_one_documentation(both):
    first, second = (module.Value for module in both)
    assert parameters(first) == parameters(second.__init__)[1:]
    assert inspect.getdoc(first) == inspect.getdoc(second) is not None


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_of_value_has_one_signature_and_one_documentation(both, name):
    first, second = (inspect.getattr_static(module.Value, name) for module in both)
    assert inspect.getdoc(first) == inspect.getdoc(second) is not None
    assert inspect.isroutine(first) == inspect.isroutine(second)
    if inspect.isfunction(second):
        assert parameters(first) == parameters(second)


def included(path):
    """The files of its own folder that a file of a handle stands on."""
    text = path.read_text(encoding="utf-8")
    names = re.findall(r'^#include "(\w+)\.h"|^from \.(\w+) import|^from \. import (\w+)', text, re.MULTILINE)
    return {name for found in names for name in found if name in ORDER and name != path.stem}


@pytest.mark.parametrize("folder", ["csrc/handle", "tapegrad/_cffi_handle"])
def test_every_file_of_a_handle_stands_on_earlier_ones_alone(folder):
    if not (ROOT / folder).exists():
        pytest.skip("an installed package has no csrc")
    paths = [path for path in (ROOT / folder).iterdir() if path.stem in ORDER and path.suffix in (".c", ".h", ".py")]
    assert {path.stem for path in paths} == set(ORDER) - (set() if folder == "csrc/handle" else OF_C)
    for path in paths:
        assert included(path) <= set(ORDER[: ORDER.index(path.stem)]), path
