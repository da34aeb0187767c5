"""Functions of functions, with JAX's names: each call runs f anew, on the tape, and keeps nothing.

Where the arguments are Values already (within another of these functions, within a recording, or by hand) the sweep is
recorded, and the results are Values: so derivatives compose, to any order."""
from __future__ import annotations

import functools
import itertools
import sys
import types
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Union

from ._integer import as_integer
from .program.form import NUMBER, Form, Static, as_array, matrix, numbers, objects
from .program.nest import form_of
from .value import Value, handle

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    P = ParamSpec("P")

Argnums = Union[int, Sequence[int]]
Function = Callable[..., Any]


def gradient(y: Value, xs: Any) -> Any:
    """The derivatives of y as Values: the sweep is recorded, so they can be used, differentiated again, and recorded
    into a program. In PyTorch, `autograd.grad(y, xs, create_graph=True)`.

    Args:
        y: a Value.
        xs: a Value, or a nest of them: leaves, or what y was computed from. By what y does not depend on it is 0.

    Returns:
        Shaped like xs. No grad changes.

    Raises:
        TypeError: y or an element of xs is no Value.
        RuntimeError: a node on the way has a rule of its own, set as `_backward`, which does not say its slope.

    >>> x = Value(3.0)
    >>> slope = gradient(x ** 3, x)
    >>> slope, gradient(slope, x)
    (Value(data=27.0, grad=0.0), Value(data=18.0, grad=0.0))
    """
    if not isinstance(y, Value):
        raise TypeError(f"y must be a Value, not {type(y).__name__!r}")
    form = form_of(xs, "xs")
    if type(form) is Static:
        raise TypeError(f"xs must be a Value or a nest of them, not {form}")
    return form.build(iter(handle.record_sweep((y,), None, form.elements(xs))), objects)


# ---- one call of f ----


class Run:
    """A call of f, with Values in the places of the arguments that are differentiated by.

    Attributes:
        forms: of these arguments.
        made: their elements, as Values of our own.
        nested: whether results are Values, too.
        out, outputs: the form of what f returned, and its elements, Values and numbers.
        aux: what f returned besides.
    """

    __slots__ = ("aux", "forms", "made", "nested", "out", "outputs")

    def __init__(
        self, fun: Function, at: Sequence[int], args: Sequence[Any], kwargs: dict[str, Any], has_aux: bool = False
    ) -> None:
        given, elements = list(args), []
        self.forms = [form_of(args[k], f"argument {k}") for k in at]
        for k, form in zip(at, self.forms):
            if type(form) is Static:
                raise TypeError(f"argument {k} is {form}: there is no derivative by what is no number")
        for k, form in zip(at, self.forms):
            elements += form.elements(args[k])
        self.made = handle.fresh(elements)
        parts = iter(self.made)
        for k, form in zip(at, self.forms):
            given[k] = form.build(parts, objects)
        result, within, off = _called(fun, given, kwargs)
        self.nested = not off and any(isinstance(x, Value) for x in elements)
        self._take(result, within, has_aux)

    @classmethod
    def of_plain(cls, made: list[Value], form: Form, result: Any, within: bool, has_aux: bool) -> Run:
        """A call that was made with leaves in this form."""
        run = cls.__new__(cls)
        run.forms, run.made, run.nested = [form], made, False
        run._take(result, within, has_aux)
        return run

    def _take(self, result: Any, within: bool, has_aux: bool) -> None:
        """Take f's result; within: another function of functions, or a recording, is under way."""
        self.aux = None
        if has_aux:
            if not isinstance(result, tuple) or len(result) != 2:
                raise TypeError(f"with has_aux, f has to return a pair, not {type(result).__name__!r}")
            result, self.aux = result
        self.out = form_of(result, "what f returned")
        if type(self.out) is Static:
            raise TypeError(f"f returned {self.out}: it has to return a Value, or a nest of them")
        self.outputs = self.out.elements(result)
        if within and not self.nested:  # f may close over what is differentiated by there
            self.nested = handle.depends_on_older([y for y in self.outputs if isinstance(y, Value)], self.made)

    def one(self, what: str) -> Any:
        """The one output."""
        if self.out is not NUMBER:
            raise TypeError(f"{what} is of a function that returns one Value; this one returns {self.out}")
        return self.outputs[0]

    def sweep(self, ys: Sequence[Any], seeds: Sequence[Any] | None = None, xs: Sequence[Value] | None = None) -> Any:
        """The derivatives of the sum of ys, weighed by seeds, by xs or all that was made: floats, or Values where
        nested."""
        how = handle.record_sweep if self.nested else handle.adjoints
        return how(*_dependent(ys, seeds), self.made if xs is None else xs)

    def recorded_sweep(
        self, ys: Sequence[Any], seeds: Sequence[Any] | None = None, xs: Sequence[Value] | None = None
    ) -> list[Value]:
        """As `sweep`, but Values in any case."""
        return handle.record_sweep(*_dependent(ys, seeds), self.made if xs is None else xs)

    def shaped(self, form: Form, items: Sequence[Any]) -> Any:
        """What `sweep` gives, as a nest."""
        return form.build(iter(items), objects) if self.nested else form.shaped(array("d", items))

    def value(self) -> Any:
        """What f returned, as it is given back: Values where nested, else numbers."""
        if self.nested:
            return self.out.build(iter(self.outputs), objects)
        numbers = iter(handle.primals([y for y in self.outputs if isinstance(y, Value)]))
        return self.shaped(self.out, [next(numbers) if isinstance(y, Value) else y for y in self.outputs])

    def parts(self, items: Sequence[Any]) -> list[Any]:
        """What there is one of for every element, shaped like each argument."""
        if len(self.forms) == 1:
            return [self.shaped(self.forms[0], items)]
        found, first = [], 0
        for form in self.forms:
            found.append(self.shaped(form, items[first : first + form.size]))
            first += form.size
        return found

    def blocks(self, out: Form, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """For each argument, its part of every row, in a place shaped like out."""
        found, first = [], 0
        for form in self.forms:
            entries = [x for row in rows for x in row[first : first + form.size]]
            found.append(matrix(out, form, entries if self.nested else array("d", entries), self.nested))
            first += form.size
        return found


def _called(fun: Function, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, bool, int]:
    """What f returns, Values answering as numbers; whether another function of functions, or a recording, is under way
    that is to see the derivative; and how deep in no_grad the caller is, which is none of f's business."""
    off, within = handle.no_grad_by(0), handle.as_numbers_by(0)
    try:
        handle.as_numbers_by(1)  # within: Ctrl-C is heard after a call
        return _outside_no_grad(off, fun, args, kwargs), within and not off, off
    finally:
        handle.as_numbers_by(-1)


def _outside_no_grad(off: int, fun: Function, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What f returns, off being how deep in no_grad the caller is."""
    if not off:
        return fun(*args, **kwargs)
    try:
        try:
            handle.no_grad_by(-off)  # within: Ctrl-C is heard after a call
        except MemoryError:
            off = 0
            raise
        return fun(*args, **kwargs)
    finally:
        handle.no_grad_by(off)


def _doubles(x: Any) -> Any:
    """The elements of a float64 array with dimensions; None for anything else."""
    return as_array(x).ravel().tolist() if getattr(getattr(x, "dtype", None), "char", "") == "d" and x.shape else None


def _dependent(ys: Sequence[Any], seeds: Sequence[Any] | None) -> tuple[Sequence[Value], Sequence[Any] | None]:
    """Without the numbers among ys, which depend on nothing."""
    if all(isinstance(y, Value) for y in ys):
        return ys, seeds
    kept = [k for k, y in enumerate(ys) if isinstance(y, Value)]
    return [ys[k] for k in kept], None if seeds is None else [seeds[k] for k in kept]


def _positions(argnums: Argnums, n: int) -> list[int]:
    """The arguments to differentiate by, of n."""
    named = []
    for k in argnums if isinstance(argnums, (tuple, list)) else (argnums,):
        found = as_integer(k)
        if found is None:
            way = ": params are a program's, which record(.., params=..) makes" if k == "params" else ""
            raise TypeError(f"argnums must be an integer or a tuple of them, not {k!r}{way}")
        named.append(found)
    for k in named:
        if not -n <= k < n:
            raise TypeError(f"argnums {k}: f was called with {n} positional arguments")
    return [k % n for k in named]


# ---- functions of functions ----


class _Derivative(ABC):
    """A function that runs f and differentiates what it did. It can be pickled and copied where f can."""

    what = ""

    def __init__(self, fun: Function, argnums: Argnums = 0, has_aux: bool = False) -> None:
        self._fun, self._argnums, self._has_aux = fun, argnums, has_aux
        functools.update_wrapper(self, fun, assigned=("__module__", "__name__", "__qualname__"), updated=())
        self.__doc__ = f"The {self.what} of {getattr(fun, '__name__', repr(fun))} by argument {argnums}."

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def __reduce__(self) -> str | tuple[Any, ...]:
        name = getattr(self, "__qualname__", "")
        found: Any = sys.modules.get(self.__module__)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is self:  # it has taken fun's place, as a decorator
            return name
        return type(self), (self._fun, self._argnums, self._has_aux)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<{self.what} of {self._fun!r} by argument {self._argnums}>"

    def _run(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Run, list[int]]:
        """A call of f, and which of its distinct arguments each of argnums is."""
        at = _positions(self._argnums, len(args))
        distinct = list(dict.fromkeys(at))
        return Run(self._fun, distinct, args, kwargs, self._has_aux), [distinct.index(k) for k in at]

    def _picked(self, found: list[Any], of: list[int]) -> Any:
        """One part, or a tuple where argnums is one."""
        return tuple(found[k] for k in of) if isinstance(self._argnums, (tuple, list)) else found[0]


class _ValueAndGrad(_Derivative):
    what = "value and gradient"

    def _swept(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, Run | None]:
        """What f returned, the gradient, and the call, where it was not of one plain list or array alone: that goes a
        way of its own, where nothing of a small call is needless."""
        k, run, of = self._argnums, None, [0]
        if type(k) is int and 0 <= k < len(args):
            x = args[k]
            made = handle.plain_leaves(x if type(x) is list else _doubles(x))
            if made is not None:
                given = made[:] if type(x) is list else objects(made, x.shape)
                result, within, _ = _called(self._fun, (*args[:k], given, *args[k + 1 :]), kwargs)
                if type(result) is Value and not within and not self._has_aux:
                    found = handle.adjoints((result,), None, made)
                    return result, found if type(x) is list else numbers(found, x.shape), None
                run = Run.of_plain(made, form_of(x, "it"), result, within, self._has_aux)
        if run is None:
            run, of = self._run(args, kwargs)
        return run.outputs[0], self._picked(run.parts(run.sweep((run.one("a gradient"),))), of), run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        y, found, run = self._swept(args, kwargs)
        if run is None:
            return handle.primals((y,))[0], found
        return ((run.value(), run.aux), found) if self._has_aux else (run.value(), found)


class _Grad(_ValueAndGrad):
    what = "gradient"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _, found, run = self._swept(args, kwargs)
        return found if run is None or not self._has_aux else (found, run.aux)


class _Jacobian(_Derivative):
    what = "Jacobian"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        run, of = self._run(args, kwargs)
        found = self._picked(run.blocks(run.out, [run.sweep((y,)) for y in run.outputs]), of)
        return (found, run.aux) if self._has_aux else found


class _Hessian(_Derivative):
    what = "Hessian"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        run, of = self._run(args, kwargs)
        rows = [run.sweep((g,)) for g in run.recorded_sweep((run.one("a Hessian"),))]
        blocks, first = [], 0
        for form in run.forms:
            blocks.append(self._picked(run.blocks(form, rows[first : first + form.size]), of))
            first += form.size
        return self._picked(blocks, of)


class _Hvp(_Derivative):
    what = "Hessian times a vector"

    def __call__(self, x: Any, v: Any, *rest: Any, **kwargs: Any) -> Any:
        run, _ = self._run((x, *rest), kwargs)
        gradient, direction = run.recorded_sweep((run.one("a Hessian"),)), _like(v, run.forms[0], "v")
        run.nested = run.nested or any(isinstance(x, Value) for x in direction)
        return run.parts(run.sweep(gradient, direction))[0]


def _like(x: Any, form: Form, what: str) -> list[Any]:
    """The elements of a nest that has to have a form, Values or numbers."""
    came = form_of(x, what)
    elements = came.elements(x)
    if any(isinstance(item, Value) for item in elements):
        if came != form and (came.shape != form.shape or form.shape is None):
            raise ValueError(f"{what} is {came}, not {form}")
        return elements
    flat = array("d")
    form.read(x, what, flat)
    return flat.tolist()


def grad(fun: Callable[P, Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[P, Any]:
    """The function that gives the gradient of fun.

    Args:
        fun: a function that returns one Value, or a number, whose gradient is 0. Each call of the result calls it once:
            with Values in the places of argnums, and with all other arguments as they are.
        argnums: which positional argument to differentiate by, or a tuple of them.
        has_aux: fun returns a pair, of which the first is differentiated.

    Returns:
        A function of numbers, lists, tuples and arrays, nested, or of Values. It gives a gradient shaped like the
        argument, a tuple of those for a tuple of argnums; with has_aux a pair of it and what fun returned besides.
        Where it gets Values, or is called within another function of functions or a recording on whose Values fun's
        result depends, the gradient is of Values; in `no_grad` it is of numbers, for what is around.

    >>> grad(lambda x, y: x[0] ** 2 * y, argnums=(0, 1))([3.0], 2.0)
    ([12.0], 9.0)
    """
    return _Grad(fun, argnums, has_aux)


def value_and_grad(fun: Callable[P, Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[P, tuple[Any, Any]]:
    """The function that gives the pair of fun's value and gradient, or ((value, aux), gradient); see `grad`.

    >>> value_and_grad(lambda x: x ** 3)(2.0)
    (8.0, 12.0)
    """
    return _ValueAndGrad(fun, argnums, has_aux)


def jacobian(fun: Callable[P, Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[P, Any]:
    """The function that gives the Jacobian of fun, a sweep for each output, shaped as `Program.jacobian` says; see
    `grad`.

    >>> jacobian(lambda x: [x[0] * x[1], x[1]])([2.0, 3.0])
    [[3.0, 2.0], [0.0, 1.0]]
    """
    return _Jacobian(fun, argnums, has_aux)


def hessian(fun: Callable[P, Any], argnums: Argnums = 0) -> Callable[P, Any]:
    """The function that gives the Hessian of fun, which returns one Value; see `grad`.

    Returns:
        A function whose result is shaped like the argument, in every place a row shaped like it; for a tuple of argnums
        a tuple of tuples of such blocks, as in JAX.

    >>> hessian(lambda x: x[0] ** 2 * x[1])([3.0, 2.0])
    [[4.0, 6.0], [6.0, 0.0]]
    """
    return _Hessian(fun, argnums)


def hvp(fun: Function, argnums: int = 0) -> Callable[..., Any]:
    """The function of (x, v, *rest) that gives the Hessian of fun(x, *rest) by argument argnums, times v: a sweep over
    the recorded sweep.

    Returns:
        A function whose result is shaped like the argument.

    >>> hvp(lambda x: x[0] ** 2 * x[1])([3.0, 2.0], [1.0, 0.0])
    [4.0, 6.0]
    """
    by = as_integer(argnums)
    if by is None:
        raise TypeError(f"argnums must be one integer for a Hessian times a vector, not {argnums!r}")
    return _Hvp(fun, by)


def _is_computed(y: Value) -> bool:
    return bool(y._op or y.operands)  # the symbol first: of operands there may be a million


def vjp(fun: Function, *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """The value of fun at primals, and a function from a cotangent, shaped like it, to the tuple of v^T J, one for each
    argument. fun is called once; what it did is kept as long as that function is. Its argument `argnums` says by what,
    as that of `grad` does: then no other derivative is given. After a `tape.reset` there is none: it raises
    RuntimeError.

    >>> value, pull = vjp(lambda x, y: [x * y, x], 2.0, 3.0)
    >>> value, pull([1.0, 0.0])
    ([6.0, 2.0], (3.0, 2.0))
    """
    run = Run(fun, range(len(primals)), primals, {})
    ends = list(itertools.accumulate((form.size for form in run.forms), initial=0))
    computed = next((y for y in run.outputs if isinstance(y, Value) and _is_computed(y)), None)

    def pull(cotangent: Any, argnums: Argnums | None = None) -> Any:
        if computed is not None and not _is_computed(computed):
            raise RuntimeError("the tape was reset since vjp: what the function did is forgotten; call vjp again")
        at = range(len(primals)) if argnums is None else _positions(argnums, len(primals))
        seeds = _like(cotangent, run.out, "the cotangent")
        to_values = any(isinstance(seed, Value) for seed in seeds)
        xs = [x for k in dict.fromkeys(at) for x in run.made[ends[k] : ends[k + 1]]]
        found = iter((run.recorded_sweep if to_values else run.sweep)(run.outputs, seeds, xs))
        items = {k: list(itertools.islice(found, run.forms[k].size)) for k in dict.fromkeys(at)}
        shaped = [
            run.forms[k].build(iter(items[k]), objects) if to_values else run.shaped(run.forms[k], items[k]) for k in at
        ]
        return tuple(shaped) if argnums is None or isinstance(argnums, (tuple, list)) else shaped[0]

    return run.value(), pull


def jvp(fun: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """The value of fun at primals, and its Jacobian times tangents.

    Of several outputs it is a sweep over the recorded sweep: J^T u is linear in u, and its derivative along the
    tangents is J times them.

    Args:
        primals, tangents: as many as fun has arguments, tangents shaped like them.

    >>> jvp(lambda x, y: x * y, (2.0, 3.0), (1.0, 0.0))
    (6.0, 3.0)
    """
    for what, given in ("primals", primals), ("tangents", tangents):
        if isinstance(given, (Value, str)) or not hasattr(given, "__len__"):
            way = "jvp(f, (x,), (t,))"
            raise TypeError(f"{what} must be a tuple with an entry for each argument, not {given!r}: {way}")
    if len(primals) != len(tangents):
        raise TypeError(f"there are {len(primals)} primals, but {len(tangents)} tangents")
    run = Run(fun, range(len(primals)), primals, {})
    along = [t for k, (x, form) in enumerate(zip(tangents, run.forms)) for t in _like(x, form, f"tangent {k}")]
    run.nested = run.nested or any(isinstance(t, Value) for t in along)
    if run.out is NUMBER and not run.nested:  # also where a rule of f's own is on the way
        return run.value(), sum((g * t for g, t in zip(run.sweep(run.outputs), along) if t), 0.0)
    u = handle.leaves([0.0] * len(run.outputs))
    return run.value(), run.shaped(run.out, run.sweep(run.recorded_sweep(run.outputs, u), along, u))
