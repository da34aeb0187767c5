"""Serves micrograd from tapegrad to programs that import it, in this interpreter and in those that it starts."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import tapegrad

_SERVED = ("engine", "nn", "tensor")
_CHILDREN = str(Path(__file__).with_name("children"))  # with a sitecustomize.py, for the path of new interpreters


def serve(given: Iterable[str]) -> None:
    """Serve micrograd from now on, also to interpreters that are started.

    Args:
        given: the entries of `sys.path` that are not the program's: a micrograd there is installed, and is hidden.
    """
    sys.meta_path.insert(0, Micrograd(given))
    path = os.environ.get("PYTHONPATH")
    if _CHILDREN not in (path or "").split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_CHILDREN, path]))


class Micrograd(MetaPathFinder, Loader):
    """Finds micrograd and its submodules in tapegrad, ahead of any that is installed.

    Of a package of that name that is the program's own, it finds the engine alone.
    """

    def __init__(self, given: Iterable[str]) -> None:
        self.given = frozenset(given)

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, rest = name.partition(".")
        if package != "micrograd" or (rest and rest not in _SERVED):
            return None
        if not rest:
            own = [entry for k, entry in enumerate(sys.path) if k == 0 or entry not in self.given]
            spec = PathFinder.find_spec(name, own)
            if spec and _has_modules(spec):
                return spec
        elif rest != "engine" and path:  # the package that is served has no path
            return None
        return spec_from_loader(name, self, origin=tapegrad.__file__, is_package=not rest)

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        package, _, rest = module.__name__.partition(".")
        if rest:
            # The import system takes what it finds here; the very module, so that it has one set of globals.
            sys.modules[module.__name__] = importlib.import_module(f"tapegrad.{rest}")
            return
        vars(module).update(__file__=tapegrad.__file__, __version__=tapegrad.__version__, Value=tapegrad.Value)
        for rest in _SERVED:
            importlib.import_module(f"{package}.{rest}")


def _has_modules(spec: ModuleSpec) -> bool:
    """Whether it is a package, with or without `__init__.py`, and no folder that just has its name."""
    return any(map(_has_python, spec.submodule_search_locations or ()))


def _has_python(folder: str) -> bool:
    try:
        return any(name.endswith(".py") for name in os.listdir(folder))
    except OSError:  # within a zip file: there is no such folder, but a package
        return True
