"""The manual: every block of Python in it and in README runs and prints what is shown; every page and name is found."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import inspect
import io
import math
import pathlib
import re
import sys

import pytest

import tapegrad
from tapegrad import sparse
from tapegrad.look.diagnosis import Diagnosis
from tapegrad.look.drawing import Drawing
from tapegrad.look.heat import Heat, Row
from tapegrad.look.rounding import Line, Rounding
from tapegrad.loops.batch import LoopBatch
from tapegrad.program.batch import Batch

ROOT = pathlib.Path(tapegrad.__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))] if DOCS.is_dir() else []
SHOWN = re.compile(r"\n+```(?:text)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)  # right after a block
PLACE = re.compile(r" +\S+\.(md|py):\d+$", re.MULTILINE)

pytestmark = pytest.mark.skipif(not PAGES, reason="an installed package has no docs")


def read(path):
    return path.read_text(encoding="utf-8")


def evaluate(example):
    """Run a block in its page's names. What the fence after it shows, if there is one, is what it printed."""
    code = compile("\n" * (example.line + example.parsed.line_offset) + example.parsed, example.path, "exec")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(code, example.namespace)
    shown = SHOWN.match(example.document.text, example.region.end)
    if shown:
        assert PLACE.sub("", said.getvalue()) == PLACE.sub("", shown[1])


@pytest.mark.filterwarnings("default")  # those of others are not the page's fault
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_block_of_a_page_runs_and_prints_what_is_shown(path, tmp_path, monkeypatch):
    sybil = pytest.importorskip("sybil", reason="blocks are found by sybil, which is not installed")
    from sybil.parsers.myst import CodeBlockParser

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("TAPEGRAD_CACHE", str(tmp_path / "cache"))
    document = sybil.Document.parse(str(path), CodeBlockParser("python", evaluate))
    assert len(list(document)) == len(re.findall(r"^```(?:python|\{code-cell\} python)$", read(path), re.MULTILINE))
    for example in document:
        try:
            example.evaluate()
        except ImportError as error:
            if (error.name or "tapegrad").partition(".")[0] == "tapegrad" and "pip install" not in str(error):
                raise
            pytest.skip(f"{path.name}, line {example.line}: {error}")


def test_the_table_of_contents_names_every_page_once():
    index = read(DOCS / "index.md")
    toctrees = re.findall(r"^```\{toctree\}\n(?::[^\n]*\n)*\n(.*?)^```$", index, re.DOTALL | re.MULTILINE)
    assert len(toctrees) == 4
    assert sorted("".join(toctrees).split()) == sorted(path.stem for path in PAGES[1:] if path.stem != "index")


@pytest.mark.parametrize("name", tapegrad.__all__)
def test_every_public_name_is_in_the_reference(name):
    reference = "".join(read(path) for path in DOCS.glob("reference-*.md"))
    assert re.search(rf"^\.\. (auto|py:)\w+:: tapegrad\.{name}(\(\))?$", reference, re.MULTILINE)


MODULES = ["tapegrad", *(f"tapegrad.{name}" for name in "math special linalg nn optim optim.lr_scheduler".split())]
GIVEN = [Batch, LoopBatch, sparse.SparseJacobian, sparse.SparseHessian, type(tapegrad.tape)]  # by other entries
GIVEN += [Drawing, Heat, Row, Rounding, Line, Diagnosis]


def members(kind):
    """The public methods and properties of a class, without second names and what is Python's own."""
    for name in dir(kind):
        of = next(c for c in kind.__mro__ if name in vars(c))
        entry = vars(of)[name]
        public = name in ("_op", "_prev", "_backward") or not name.startswith("_")
        if of.__module__ == "builtins" or not (public or (name == "__call__" and entry.__doc__)):
            continue
        if inspect.isroutine(entry) and entry.__name__ == name:
            yield name, entry
        elif inspect.isdatadescriptor(entry) and name not in getattr(kind, "_fields", ()):
            yield name, entry


def entries():
    """What the reference has, by name; once each."""
    modules = [importlib.import_module(name) for name in MODULES]
    with contextlib.suppress(ImportError):
        modules.append(importlib.import_module("tapegrad.dask"))
    found = {f"{m.__name__}.{name}": getattr(m, name) for m in modules for name in m.__all__}
    found = {name: entry for name, entry in found.items() if callable(entry)}
    found["tapegrad.sum"] = tapegrad.sum
    found.update((f"{kind.__module__}.{kind.__qualname__}", kind) for kind in GIVEN)
    for name, kind in list(found.items()):
        if inspect.isclass(kind):
            found.update((f"{name}.{member}", entry) for member, entry in members(kind))
    first = {id(entry): name for name, entry in reversed(found.items())}
    return {name: found[name] for name in reversed(first.values()) if found[name] not in vars(math).values()}


ENTRIES = entries()


class Checker(doctest.OutputChecker):
    """Lines are those of what is typed."""

    def check_output(self, want, got, flags):
        return super().check_output(want, re.sub("<doctest [^>]*>", "<stdin>", got), flags)


@pytest.fixture(scope="module")
def shown():
    """The module that says what the reference shows besides docstrings."""
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module("entries")
    finally:
        sys.path.remove(str(DOCS))


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_of_the_reference_has_an_example_that_is_true(name, shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAPEGRAD_CACHE", str(tmp_path / "cache"))
    doc = inspect.getdoc(ENTRIES[name])
    doc += "\n\n" + shown.of_row(name, doc)
    test = doctest.DocTestParser().get_doctest(doc, dict(shown.NAMES), name, None, None)
    assert test.examples, "no example"
    said = io.StringIO()
    try:
        doctest.DebugRunner(Checker(), optionflags=doctest.ELLIPSIS).run(test, out=said.write)
    except doctest.UnexpectedException as failure:
        error = failure.exc_info[1]
        if isinstance(error, ImportError) and "pip install" in str(error):
            pytest.skip(str(error))
        raise error from None
    except doctest.DocTestFailure as failure:
        pytest.fail(f"{failure.example.source}expected:\n{failure.example.want}got:\n{failure.got}")


def test_every_file_that_readme_links_to_is_there():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", read(ROOT / "README.md"))
    assert links and not [link for link in links if not (ROOT / link).exists()]
