"""Nests of numbers: what an argument or a result may be, and the form that each has."""
from __future__ import annotations

import collections
import sys
from numbers import Number as AnyNumber
from typing import Any

from .._refusals import as_number
from ..value import Value
from .containers import Fields, Mapping, Registered, field_names, one_level
from .form import ELEMENTS, NUMBER, Array, Form, Series, Static, element, is_array, series

_OPTREES = (collections.OrderedDict, collections.defaultdict, collections.deque)


def _registered(x: Any, what: str) -> Form | None:
    """The form of a container that optree knows; who has registered one has imported it."""
    if isinstance(x, _OPTREES):
        try:
            import optree
        except ImportError:
            raise TypeError(
                f"{what} is {type(x).__name__!r}, which takes optree: pip install 'tapegrad[trees]'"
            ) from None
    else:
        optree = sys.modules.get("optree")
        if optree is None or optree.tree_is_leaf(x, none_is_leaf=True):
            return None
    children, metadata, entries, close = one_level(x)
    parts = tuple(_form_of(child, f"{what}[{entry!r}]") for child, entry in zip(children, entries))
    return Registered(type(x), tuple(entries), metadata, close, parts)


def form_of(x: object, what: str) -> Form:
    """The form of a nest whose numbers may be Values.

    Raises:
        TypeError: there is a number in it that is not real, or a container that takes optree, or it holds itself.
    """
    try:
        return _form_of(x, what)
    except RecursionError:
        raise TypeError(f"{what} is nested too deep, or holds itself") from None


def _form_of(x: object, what: str) -> Form:
    if type(x) in ELEMENTS:
        return NUMBER
    if isinstance(x, (list, tuple)) and not hasattr(x, "_fields"):
        kind, items = tuple if isinstance(x, tuple) else list, tuple(x)
        if set(map(type, items)) <= ELEMENTS:
            return series(kind, len(items))
        return Series(kind, tuple(_form_of(item, f"{what}[{k}]") for k, item in enumerate(items)))
    if is_array(x):
        return Array(tuple(x.shape))
    x = element(x)
    if isinstance(x, Value) or as_number(x) is not NotImplemented:
        return NUMBER
    if type(x) is dict:
        return Mapping(tuple(x), tuple(_form_of(item, f"{what}[{key!r}]") for key, item in x.items()))
    names = field_names(x)
    if names is not None:
        return Fields(type(x), names, tuple(_form_of(getattr(x, name), f"{what}.{name}") for name in names))
    if isinstance(x, AnyNumber):
        raise TypeError(f"{what} must be a real number, not {type(x).__name__!r}")
    registered = _registered(x, what)
    if registered is None and isinstance(x, dict):
        return _form_of(dict(x), what)
    return registered or Static(x)
