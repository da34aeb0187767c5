"""A recorded function, apart from its faces: what it takes and gives, and the tree of the paths known of it."""
from __future__ import annotations

import copy
import itertools
import pickle
import threading
from array import array
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeVar, Union, cast

from ..value import Value, handle
from .file import MOST_PATHS, ON_BRANCH, ON_ERROR, Contents, decode, encode
from .nest import NUMBER, Form, Nest, Shaped, form_of, number, series_of_numbers
from .replay import BranchChanged, Trace
from .trace import Function, trace

Several = Union[tuple[int, ...], list[int]]
Argnums = Union[int, Several, Literal["params"]]
T = TypeVar("T")

_OTHER_PARAMS = "it reads the params that it was recorded with"


class Place(NamedTuple):
    """Where an argument, or all params, are among the inputs."""

    form: Form
    first: int

    def shaped(self, flat: array[float]) -> Shaped:
        """Its part of numbers that there is one of for each input."""
        return self.form.shaped(flat, self.first)


class Recorded:
    """A function that was recorded, and that is recorded further where a replay leaves the paths that are known.

    Paths form a tree: each but the first goes the other way at a guard of an earlier one. A path, once known, does not
    change; the list of them grows, by whichever thread needs a new one first.

    Attributes:
        f: the function; None: paths that are not known stay so.
        missing: why there is no f.
        forms, out: of the arguments and of the result.
        params: Values that are inputs besides the arguments, or numbers.
        paths: the traces, the first one first.
        on_branch, on_error, strict: as `record` has them.
        places, param_place: of the arguments and of the params.
        n_in, n_out: how many inputs there are, params included, and outputs.
    """

    def __init__(
        self, f: Function | None, forms: Sequence[Form], out: Form, params: list[Value] | list[float],
        paths: list[Trace], children: dict[tuple[int, int], int], on_branch: str, on_error: str, strict: bool = False,
    ) -> None:  # fmt: skip
        self.f, self.forms, self.out, self.params, self.paths = f, tuple(forms), out, params, paths
        self.on_branch, self.on_error, self.strict = on_branch, on_error, strict
        ends = list(itertools.accumulate((form.size for form in forms), initial=0))
        self.places = [Place(form, first) for form, first in zip(forms, ends)]
        self.param_place = Place(series_of_numbers(list, len(params)), ends[-1])
        self.n_in, self.n_out = ends[-1] + len(params), out.size
        self._n_params = len(params)
        self._readers = [(form.read, f"argument {k}") for k, form in enumerate(forms)]
        self.missing = ""
        self._children = children  # (path, number of its guard): the path that goes the other way
        self._lock = threading.RLock()  # f may call its own program

    @classmethod
    def of(
        cls, f: Function, examples: Sequence[Nest], params: Iterable[Value] = (), on_branch: str = "raise",
        on_error: str = "raise", strict: bool = False,
    ) -> Recorded:  # fmt: skip
        """What `record` makes a program of."""
        if on_branch not in ON_BRANCH:
            raise ValueError(f"on_branch must be 'raise' or 'record', not {on_branch!r}")
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error must be 'raise' or 'nan', not {on_error!r}")
        inputs = list(params)
        for v in inputs:
            if not isinstance(v, Value):
                raise TypeError(f"params must be Values, not {type(v).__name__!r}")
        if len(set(map(id, inputs))) < len(inputs):
            raise ValueError("a Value is in params twice")
        forms = [form_of(x, f"example {k}") for k, x in enumerate(examples)]
        flat = array("d")
        for k, (x, form) in enumerate(zip(examples, forms)):
            flat.extend(v.data if isinstance(v, Value) else number(v, f"example {k}") for v in form.elements(x))
        path, out = trace(f, forms, flat, inputs, strict)
        return cls(f, forms, out, inputs, [path], {}, on_branch, on_error, strict)

    def __repr__(self) -> str:
        core = self.paths[0].core
        return f"<program: {core.n_in} inputs, {core.n_out} outputs, {core.n_instr} instructions>"

    # ---- copies ----

    def _copy(self, f: Function | None, params: list[Value] | list[float]) -> Recorded:
        with self._lock:
            return Recorded(
                f, self.forms, self.out, params, list(self.paths), dict(self._children), self.on_branch,
                self.on_error, self.strict,
            )  # fmt: skip

    def with_params(self, params: list[Value] | list[float]) -> Recorded:
        """The same at other params, without f, which reads its own."""
        other = self._copy(None, params)
        other.missing = self.missing or _OTHER_PARAMS
        return other

    def __copy__(self) -> Recorded:
        other = self._copy(self.f, self.params)
        other.missing = self.missing
        return other

    def __deepcopy__(self, memo: dict[int, object]) -> Recorded:
        params = copy.deepcopy(self.params, memo)
        return self.with_params(params) if self.params else copy.copy(self)

    def contents(self) -> Contents:
        """What a file holds of it."""
        with self._lock:
            paths, children = list(self.paths), dict(self._children)
        return Contents(self.forms, self.out, self.param_data(), paths, children, self.on_branch, self.on_error)

    def __reduce__(self) -> tuple[object, ...]:
        f, missing = (None, self.missing or _OTHER_PARAMS) if self.f is None or self.params else _pickled(self.f)
        return decoded, (encode(self.contents()), f, missing, self.strict)

    # ---- numbers in, and what derivatives are by ----

    def param_data(self) -> list[float]:
        """The numbers of the params now."""
        params, n = self.params, self._n_params
        if len(params) != n:
            raise ValueError(f"params has {len(params)} elements, not {n} as recorded")
        if params and isinstance(params[0], Value):
            return handle.data(params)
        return cast("list[float]", params)

    def flat(self, args: Sequence[Nest]) -> array[float]:
        """All inputs, arguments and params, as one array."""
        self.check_count(args)
        to = array("d")
        for x, (read, what) in zip(args, self._readers):
            read(x, what, to)
        if self._n_params or self.params:
            to.extend(self.param_data())
        return to

    def flat_tangent(self, tangents: Sequence[Nest]) -> array[float]:
        """One number for each input; 0 for the params."""
        if len(tangents) != len(self.forms):
            raise TypeError(f"the program takes {len(self.forms)} tangents, not {len(tangents)}")
        to = array("d")
        for k, (x, form) in enumerate(zip(tangents, self.forms)):
            form.read(x, f"tangent {k}", to)
        to.frombytes(bytes(8 * self._n_params))
        return to

    def check_count(self, args: Sequence[object]) -> None:
        if len(args) != len(self.forms):
            raise TypeError(f"the program takes {len(self.forms)} arguments, not {len(args)}")

    def check_scalar(self, what: str) -> None:
        if self.out is not NUMBER:
            raise TypeError(f"{what} is of a function that returns one Value; this one returns {self.out}")

    def chosen(self, argnums: Argnums) -> list[Place]:
        """What argnums names."""
        if argnums == "params":
            return [self.param_place]
        return [self._place(k) for k in (argnums if isinstance(argnums, (tuple, list)) else (argnums,))]

    def chosen_one(self, argnums: Argnums) -> Place:
        """As `chosen`, of the one argument that a second derivative is by."""
        if isinstance(argnums, (tuple, list)):
            raise TypeError(f"argnums must be one integer or 'params' for a second derivative, not {argnums!r}")
        return self.chosen(argnums)[0]

    def _place(self, k: object) -> Place:
        if not isinstance(k, int):
            raise TypeError(f"argnums must be an integer, a tuple of them or 'params', not {k!r}")
        if not -len(self.places) <= k < len(self.places):
            raise ValueError(f"argnums {k}: the program takes {len(self.places)} arguments")
        return self.places[k]

    # ---- the way on at a guard ----

    def explained(self, error: Exception) -> Exception:
        """An error of a replay, which says why the branch was not recorded where that was asked for."""
        if isinstance(error, BranchChanged) and self.on_branch == "record":
            error.missing = self.missing
        return error

    def guard(self, k: int, at: int) -> int | None:
        """The number of the guard at this instruction of path k, where another path takes over or can be recorded."""
        guard = self.paths[k].guard(at)
        can_record = self.on_branch == "record" and self.f is not None
        return guard if guard is not None and (can_record or (k, guard) in self._children) else None

    def other_path(self, k: int, guard: int, flat: array[float]) -> int:
        """The path that goes the other way at a guard of path k, recorded at these inputs where it is new."""
        with self._lock:
            known = self._children.get((k, guard))
            if known is not None:
                return known
            if len(self.paths) >= MOST_PATHS:
                raise RuntimeError(f"f has taken more than {MOST_PATHS} paths: too many to keep a program for each")
            assert self.f is not None
            params = cast("list[Value]", self.params)  # as long as there is f
            path, out = trace(self.f, self.forms, flat[: self.param_place.first], params, self.strict)
            if out != self.out:
                raise ValueError(f"f returned {self.out}, on another path {out}")
            self.paths.append(path)
            self._children[k, guard] = len(self.paths) - 1
            return len(self.paths) - 1


def gathered(argnums: Argnums, parts: list[T]) -> T | tuple[T, ...]:
    """One part, or a tuple where argnums is one."""
    return tuple(parts) if isinstance(argnums, (tuple, list)) else parts[0]


def _pickled(f: Function) -> tuple[bytes | None, str]:
    """f by its name, on its own so that a process that does not find it still has the program; or why not."""
    try:
        return pickle.dumps(f), ""
    except Exception as error:  # whatever the objects that f is made of raise
        return None, f"f could not be pickled: {error}"


def decoded(
    data: bytes, f: bytes | None = None, missing: str = "a saved program has none", strict: bool = False
) -> Recorded:  # fmt: skip
    """What these bytes hold; nothing in them is trusted, but f is from a pickle, where there is one.

    Raises:
        ValueError: they are not a recorded function, or not of this version, or damaged.
    """
    c, function = decode(data), None
    if f is not None:
        try:
            function = pickle.loads(f)
        except Exception as error:  # it is not here, or what it needs is not
            missing = f"f could not be unpickled: {error}"
    recorded = Recorded(function, c.forms, c.out, c.params, c.paths, c.children, c.on_branch, c.on_error, strict)
    recorded.missing = missing
    return recorded
