"""What a type checker says of a program that uses tapegrad."""

from __future__ import annotations

import pathlib

import pytest

import tapegrad

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent


def test_signatures_are_kept_and_words_are_checked(monkeypatch, tmp_path):
    """Every objection that is expected comes, and no other: a `type: ignore` that is not needed is an error."""
    api = pytest.importorskip("mypy.api")
    if not (ROOT / "pyproject.toml").exists() or pathlib.Path(tapegrad.__file__).parent.parent != ROOT:
        pytest.skip("it reads the sources in place")
    monkeypatch.chdir(ROOT)
    options = ["--config-file", "pyproject.toml", "--strict", "--cache-dir", str(tmp_path)]
    said, errors, status = api.run([*options, "tests/typing/signatures.py"])
    assert (status, errors) == (0, ""), said
