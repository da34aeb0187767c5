"""One self-contained HTML page: style, script and data inside, nothing fetched from anywhere."""
from __future__ import annotations

import json
from functools import cache
from html import escape
from pathlib import Path
from typing import Any


@cache
def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def literal(data: object) -> str:
    """Data as JavaScript, which knows NaN and Infinity, and cannot end the script that it is in."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def rows(found: dict[str, tuple[str, str, str, str]]) -> str:
    """The table's texts as functions: an expression of C, of numbers and comparisons, is one of JavaScript."""
    parts = []
    for name, (kind, primal, da, db) in sorted(found.items()):
        if kind != "many":
            second = f"(a, b, y) => {db}" if db else "null"
            parts.append(f"{name}: [(a, b) => {primal}, (a, b, y) => {da}, {second}]")
    return "const ROWS = {" + ", ".join(parts) + "};"


def page(title: str, body: str, found: dict[str, tuple[str, str, str, str]], start: str) -> str:
    """A page of these parts; start is what runs at the end."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<style>\n{_text('page.css')}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n<script>\n{_text('page.js')}"
        f"{rows(found)}\n{start}\n</script>\n</body>\n</html>\n"
    )


def film(title: str, data: dict[str, Any], note: str = "") -> str:
    """The page of a small graph."""
    found = data.pop("rows")
    about = f"<p>{escape(note)}</p>" if note else ""
    body = f'<h1>{escape(title)}</h1>{about}\n<div id="film"></div>'
    return page(title, body, found, f'film(document.getElementById("film"), {literal(data)});')
