"""How Sphinx makes the manual: `make docs`. Everything that it writes goes to build/."""

from __future__ import annotations

import builtins
import os
import re
import sys
import urllib.request
from http.client import HTTPException
from pathlib import Path

from sphinx.util.docutils import SphinxDirective

import tapegrad

sys.path.insert(0, str(Path(__file__).parent))
from entries import of_row

project = "tapegrad"
version = release = tapegrad.__version__
copyright = "the authors of tapegrad"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.intersphinx"]
nitpicky = True

# ---- pages ----

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "force"  # results depend on the core, which no cache knows
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True
nb_execution_show_tb = True
os.environ["IPYKERNEL_CELL_NAME"] = "cell.py"  # in messages that name a line

# ---- the reference ----

autodoc_typehints = "none"  # shapes and units are in the docstrings
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
add_module_names = False
default_role = "literal"
smartquotes_action = "D"  # dashes alone: quotes are code


class Operations(SphinxDirective):
    """The methods of Value that are operations, in the order of their table."""

    def run(self):
        names = [row.method for row in tapegrad.tape.operations if hasattr(tapegrad.Value, row.method)]
        return self.parse_text_to_nodes("\n".join(
            f".. automethod:: tapegrad.Value.{name}" for name in dict.fromkeys(names) if not name.startswith("_")
        ))  # fmt: skip


def as_text(app, what, name, obj, options, lines):
    """Docstrings are text: outside of backticks and examples nothing in them is markup. Before napoleon, which is for
    sections, and takes what is before a colon for a type at the start of an attribute and of Returns."""
    text = ["..", ""] if what in ("attribute", "property") else []
    within = False  # an example
    for line in [*lines, "", *of_row(name, "\n".join(lines)).splitlines()]:
        within = line.startswith(">>>") or (within and line != "")
        if within:
            text.append(line)
            continue
        parts = re.split("(`.*?`)", line)
        text.append("".join(p if p.startswith("`") else re.sub(r"[*|]|_\b", r"\\\g<0>", p) for p in parts))
        if line.strip() == "Returns:":
            text += [line.replace("Returns:", "    .."), ""]
    lines[:] = text


# ---- names of others ----

MANUALS = {
    "python": "https://docs.python.org/3/",
    "numpy": "https://numpy.org/doc/stable/",
    "scipy": "https://docs.scipy.org/doc/scipy/",
}
KEPT = Path(__file__).resolve().parent.parent / "build" / "inventories"  # once fetched, it is not asked for again
PARTS = {"python": sys.stdlib_module_names | set(dir(builtins)), "numpy": {"numpy"}, "scipy": {"scipy"}}


def inventory(name: str, url: str) -> str | None:
    """The file that says where another manual has which name; None where it cannot be had."""
    path = KEPT / f"{name}.inv"
    if not path.exists():
        try:
            with urllib.request.urlopen(url + "objects.inv", timeout=10) as answer:
                content = answer.read()
            if not content.startswith(b"# Sphinx inventory"):
                raise OSError("the answer is no inventory")
        except (OSError, HTTPException) as error:
            print(f"conf.py: no links to {url}: {error}")
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(path)


found = {name: (url, inventory(name, url)) for name, url in MANUALS.items()}
intersphinx_mapping = {name: (url, path) for name, (url, path) in found.items() if path}
UNLINKED = set().union(*(PARTS[name] for name, (_, path) in found.items() if not path))


def unlinked(app, env, node, contnode):
    """Without its manual's inventory a name of others is text. Those of our own have to be there in any case."""
    return contnode if node.get("reftarget", "").partition(".")[0] in UNLINKED else None


def setup(app):
    app.add_directive("operations", Operations)
    app.connect("autodoc-process-docstring", as_text, priority=100)
    app.connect("missing-reference", unlinked, priority=900)


# ---- how it looks ----

html_theme = "furo"
html_title = "tapegrad"
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_copy_source = False
html_show_sphinx = False
