"""Runs at the start of interpreters that a program under `python -m tapegrad run` starts: it serves micrograd there."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _here]
_given = [*sys.path]  # what the program adds comes later


class Served:
    """Stands where the finder of tapegrad will, which is imported by the first that asks for micrograd."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] != "micrograd":
            return None
        sys.meta_path.remove(Served)
        try:
            from tapegrad.serving import serve
        except ImportError:  # another Python, which has no tapegrad
            return None
        serve(_given)
        return sys.meta_path[0].find_spec(name, path, target)


sys.meta_path.insert(0, Served)

# Python imports one module of this name: the one that it would have imported.
_spec = PathFinder.find_spec("sitecustomize", sys.path)
if _spec and _spec.loader:
    from importlib.util import module_from_spec  # not at the top: every interpreter would wait for it

    sys.modules["sitecustomize"] = module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["sitecustomize"])
