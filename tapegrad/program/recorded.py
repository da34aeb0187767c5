"""A recorded function, apart from its faces: what it takes and gives, and the tree of the paths known of it."""
from __future__ import annotations

import copy
import itertools
import pickle
import threading
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, Union, cast

from .._integer import as_integer
from ..value import Value, handle
from .arguments import Arguments, arguments_of
from .file import ON_BRANCH, ON_ERROR, Contents, decode, encode, keeps
from .form import NUMBER, Form, Nest, Shaped, Static, number, series
from .replay import Trace, shown
from .trace import Escapes, Function, caller, note_params_read, trace, warn

MAX_PATHS = 64  # that are kept, if nobody says otherwise

Several = Union[tuple[Union[int, Literal["params"]], ...], list[Union[int, Literal["params"]]]]
Argnums = Union[int, Several, Literal["params"]]
T = TypeVar("T")

_OTHER_PARAMS = "it reads the params that it was recorded with"


class Place(NamedTuple):
    """Where an argument, or all params, are among the inputs."""

    form: Form
    first: int
    number: int = -1  # of the argument; -1: the params

    def like(self, args: Sequence[Nest]) -> Form:
        """The form of its numbers as the argument came."""
        return self.form if self.number < 0 else self.form.like(args[self.number])

    def shaped(self, flat: array[float], args: Sequence[Nest]) -> Shaped:
        """Its part of numbers that there is one of for each input, shaped as the argument came."""
        form = self.form
        return (form if form is NUMBER else self.like(args)).shaped(flat, self.first)


class Recorded:
    """A function that was recorded, and that is recorded further where a replay leaves the paths that are known.

    Paths form a tree: each but the first goes on where an earlier one stops: at a guard the other way, or where an
    operation is refused and f has an except for that. A path, once known, does not change; the list of them grows, by
    whichever thread needs a new one first, up to max_paths.

    Attributes:
        f: the function; None: paths that are not known stay so.
        missing: why there is no f.
        forms, out: of the arguments and of the result.
        params: Values that are inputs besides the arguments, or numbers.
        paths: the traces, the first one first.
        compiled: those that `Program.native` has compiled since: who was told of paths asks anew.
        children: (path, instruction at which it stops): the path that goes on.
        on_branch, on_error, max_paths: as `record` has them; on_error of what is looked at may be "caught": nan only
            where f has no except.
        unkept: how often a path was recorded that was not kept.
        example: the arguments, as numbers, at which a path was recorded that holds loops; None without.
        places, param_place: of the arguments and of the params.
        n_in, n_out: how many inputs there are, params included, and outputs.
    """

    def __init__(
        self, f: Function | None, forms: Sequence[Form], out: Form, params: list[Value] | list[float],
        paths: list[Trace], children: dict[tuple[int, int], int], on_branch: str, on_error: str,
        escapes: Escapes | None = None, max_paths: int = MAX_PATHS,
    ) -> None:  # fmt: skip
        self.f, self.out, self.params, self.paths = f, out, params, paths
        self.compiled: list[Trace] = []
        self.forms = forms if isinstance(forms, Arguments) else Arguments(forms)
        self.on_branch, self.on_error, self.max_paths, self.unkept = on_branch, on_error, max_paths, 0
        self._escapes = escapes or Escapes(False)
        ends = list(itertools.accumulate((form.size for form in forms), initial=0))
        self.places = [Place(form, first, k) for k, (form, first) in enumerate(zip(forms, ends))]
        self.param_place = Place(series(list, len(params)), ends[-1])
        self.n_in, self.n_out = ends[-1] + len(params), out.size
        self._n_params = len(params)
        self._readers = [(form.read, f"argument {self.forms.label(k)}") for k, form in enumerate(forms)]
        self.missing = ""
        self.children = children
        self.example: array[float] | None = None
        self.captured: Callable[[list[Value]], Sequence[Value]] | None = None  # as `trace` has it
        self._lock = threading.RLock()  # f may call its own program

    @classmethod
    def of(
        cls, f: Function, examples: Sequence[Nest], params: Iterable[Value] = (), on_branch: str = "raise",
        on_error: str = "raise", strict: bool = False, max_paths: int = MAX_PATHS,
        named: Mapping[str, Nest] | None = None,
    ) -> Recorded:  # fmt: skip
        """What `record` makes a program of."""
        if on_branch not in ON_BRANCH:
            raise ValueError(f"on_branch must be 'raise' or 'record', not {on_branch!r}")
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error must be 'raise' or 'nan', not {on_error!r}")
        most = as_integer(max_paths)
        if most is None or most < 1:
            raise ValueError(f"max_paths must be a positive integer, not {max_paths!r}")
        inputs = list(params)
        for v in inputs:
            if not isinstance(v, Value):
                raise TypeError(f"params must be Values, not {type(v).__name__!r}")
        if len(set(map(id, inputs))) < len(inputs):
            raise ValueError("a Value is in params twice")
        examples, forms = arguments_of(f, examples, named or {})
        flat = array("d")
        for k, (x, form) in enumerate(zip(examples, forms)):
            _read_example(form, x, f"example {forms.label(k)}", flat)
        escapes = Escapes(strict)
        path, out = trace(forms.passed_to(f), forms, flat, inputs, escapes)
        made = cls(f, forms, out, inputs, [path], {}, on_branch, on_error, escapes, most)
        made._note_example(path, flat)
        return made

    def _note_example(self, path: Trace, flat: array[float]) -> None:
        if path.calls and self.example is None:
            self.example = flat[: self.param_place.first]

    def __repr__(self) -> str:
        core = self.paths[0].core
        return f"<program: {core.n_in} inputs, {core.n_out} outputs, {core.n_instr} instructions>"

    # ---- copies ----

    def _copy(self, f: Function | None, params: list[Value] | list[float]) -> Recorded:
        with self._lock:
            other = Recorded(
                f, self.forms, self.out, params, list(self.paths), dict(self.children), self.on_branch,
                self.on_error, self._escapes, self.max_paths,
            )  # fmt: skip
            other.example = self.example
            return other

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
            paths, children = list(self.paths), dict(self.children)
        return Contents(self.forms, self.out, self.param_data(), paths, children, self.on_branch, self.on_error)

    def encoded(self, blank: bool = False) -> bytes:
        """A file of it; blank: without the numbers of its params, which are 0 in there."""
        c = self.contents()
        return encode(c._replace(params=[0.0] * len(c.params)) if blank else c)

    def pickled_f(self) -> tuple[bytes | None, str]:
        """f as a pickle of this holds it, or None and why it does not."""
        return (None, self.missing or _OTHER_PARAMS) if self.f is None or self.params else _pickled(self.f)

    def __reduce__(self) -> tuple[object, ...]:
        f, missing = self.pickled_f()
        c, forms, out = self.contents(), None, None
        if not all(map(keeps, (*c.forms, c.out))):
            forms, out = c.forms, c.out
            flat = Arguments([series(list, form.size) for form in forms], forms.names, forms.by_name)
            c = c._replace(forms=flat, out=series(list, out.size))
        return decoded, (encode(c), forms, out, f, missing, self._escapes.strict, 0, self.example)

    # ---- numbers in, and what derivatives are by ----

    def param_data(self) -> list[float]:
        """The numbers of the params now."""
        params, n = self.params, self._n_params
        if len(params) != n:
            raise ValueError(f"params has {len(params)} elements, not {n} as recorded")
        if params and isinstance(params[0], Value):
            note_params_read()
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
        self.check_tangents(tangents)
        to = array("d")
        for k, (x, form) in enumerate(zip(tangents, self.forms)):
            form.read(x, f"tangent {self.forms.label(k)}", to)
        to.frombytes(bytes(8 * self._n_params))
        return to

    def check_count(self, args: Sequence[object]) -> None:
        self.forms.check_count(len(args))

    def check_tangents(self, tangents: Sequence[object]) -> None:
        self.forms.check_count(len(tangents), "tangents")

    def check_pair(self, primals: object, tangents: object) -> None:
        """Raise a TypeError where `jvp` is not given a sequence of each."""
        for what, x in (("primals", primals), ("tangents", tangents)):
            if not isinstance(x, (list, tuple)):
                raise TypeError(f"{what} must be a tuple with an entry for each argument, not {x!r}: jvp((x,), (t,))")

    def check_scalar(self, what: str) -> None:
        if self.out is not NUMBER:
            raise TypeError(f"{what} is of a function that returns one Value; this one returns {self.out}")

    def chosen(self, argnums: Argnums) -> list[Place]:
        """What argnums names."""
        return [self._place(k) for k in argnums] if isinstance(argnums, (tuple, list)) else [self._place(argnums)]

    def chosen_one(self, argnums: Argnums) -> Place:
        """As `chosen`, of one argument."""
        if isinstance(argnums, (tuple, list)):
            raise TypeError(f"argnums must be one integer or 'params' here, not {argnums!r}")
        return self._place(argnums)

    def _place(self, argnum: Any) -> Place:
        if isinstance(argnum, str) and argnum == "params":
            if not self._n_params:
                raise ValueError("the program has no params to differentiate by: record(.., params=..) names them")
            return self.param_place
        k = as_integer(argnum)
        if k is None:
            raise TypeError(f"argnums must be an integer, 'params' or a tuple of these, not {argnum!r}")
        if not -len(self.places) <= k < len(self.places):
            raise ValueError(f"argnums {k}: the program takes {len(self.places)} arguments")
        place = self.places[k]
        if type(place.form) is Static:
            what = f"argument {self.forms.label(place.number)} was recorded as {place.form}"
            raise TypeError(f"{what}: there is no derivative by what is no number")
        return place

    # ---- the way on where a path stops ----

    def leads_on(self, k: int, at: int) -> bool:
        """Whether another path is known, or can be recorded, for what stops at this instruction of path k."""
        return (k, at) in self.children or (self.on_branch == "record" and self.f is not None)

    @property
    def way_on(self) -> str:
        """What helps where there is none."""
        if self.on_branch == "record":
            return f"f, which could be recorded here, is missing: {self.missing}"
        return "record(.., on_branch='record') keeps a program for each path"

    def other_path(self, k: int, at: int, flat: array[float]) -> tuple[int, Trace]:
        """The path that goes on where path k stops at this instruction, recorded at these inputs where it is new.

        Returns:
            Its number and itself; -1 where there are max_paths already: then it is not kept.

        Raises:
            Exception: f raised it.
        """
        with self._lock:
            known = self.children.get((k, at))
            if known is not None:
                return known, self.paths[known]
            assert self.f is not None
            keep = len(self.paths) < self.max_paths
            if not keep:
                self._count_unkept()
            path, out = self._traced(self.f, flat)
            if out != self.out:
                raise ValueError(f"f returned {self.out}, on another path {out}")
            self._note_example(path, flat)
            if not keep:
                return -1, path
            self.paths.append(path)
            self.children[k, at] = len(self.paths) - 1
            return len(self.paths) - 1, path

    def written_out(self, flat: array[float]) -> Trace | None:
        """The path at these inputs, recorded with its loops written out step by step; None where there is no f.

        Raises:
            Exception: f raised it.
        """
        if self.f is None:
            return None
        with self._lock:
            return self._traced(self.f, flat, written_out=True)[0]

    def _traced(self, f: Function, flat: array[float], written_out: bool = False) -> tuple[Trace, Form]:
        """What f does at these inputs, as `trace` has it; the lock is held."""
        params, numbers = cast("list[Value]", self.params), flat[: self.param_place.first]  # Values, as there is f
        f = self.forms.passed_to(f)
        return trace(f, self.forms, numbers, params, self._escapes, self.captured, written_out)

    def _count_unkept(self) -> None:
        self.unkept += 1
        if self.unkept > 1:
            return
        lines = Counter(self.paths[k].place(self.paths[k].instruction(at).where) for k, at in self.children)
        most = ""
        for (filename, line), times in lines.most_common(1):
            most = f" {shown(filename)}:{line} branches most, {times} times: with tapegrad.where it is one path."
        warn(
            caller(),
            f"f takes more paths than the {self.max_paths} that max_paths keeps: from here on each call that takes "
            f"another records f anew.{most}",
        )


def _read_example(form: Form, x: Nest, what: str, to: array[float]) -> None:
    """As `Form.read`, which takes arrays and lists at once; an example may hold Values, too: their data."""
    before = len(to)
    try:
        form.read(x, what, to)
    except TypeError:
        del to[before:]
        to.extend(v.data if isinstance(v, Value) else number(v, what) for v in form.elements(x))


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
    data: bytes, forms: Arguments | None = None, out: Form | None = None, f: bytes | None = None,
    missing: str = "a saved program has none", strict: bool = False, within: int = 0,
    example: array[float] | None = None,
) -> Recorded:  # fmt: skip
    """What these bytes hold; nothing in them is trusted, but what comes beside them from a pickle.

    Args:
        data: what `encode` made.
        forms, out: from a pickle, which knows classes: what stands for them in the data is lists of numbers.
        within: how many loops it is in.
        example: as Recorded has it.

    Raises:
        ValueError: they are not a recorded function, or not of this version, or damaged.
    """
    c, function = decode(data, within), None
    if f is not None:
        try:
            function = pickle.loads(f)
        except Exception as error:  # it is not here, or what it needs is not
            missing = f"f could not be unpickled: {error}"
    recorded = Recorded(
        function, forms or c.forms, out or c.out, c.params, c.paths, c.children, c.on_branch, c.on_error,
        Escapes(strict),
    )  # fmt: skip
    recorded.missing, recorded.example = missing, example
    return recorded
