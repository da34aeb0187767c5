"""The manual: every block of Python in it and in README runs and prints what is shown; every page and name is found."""

from __future__ import annotations

import contextlib
import io
import pathlib
import re

import pytest

import tapegrad

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


def test_every_file_that_readme_links_to_is_there():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", read(ROOT / "README.md"))
    assert links and not [link for link in links if not (ROOT / link).exists()]
