"""`Value`: picks the handle, and attaches what needs no speed."""
from __future__ import annotations

import os
import sys

try:
    from ._core import ffi, lib
except ModuleNotFoundError as error:
    if error.name != f"{__package__}._core":  # what cffi needs is missing
        raise
    raise ImportError(
        f"tapegrad is not built in {os.path.dirname(__file__)}: build it there (make test, pip install -e .), "
        "or leave that source, where another tapegrad is installed"
    ) from error

TYPE_CHECKING = False  # of typing's, which takes long to import

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from . import _c_handle as handle
    from ._c_handle import Value, affine, dot, leaves, softmax, sum
else:
    _ONE_TAPE = "tapegrad cannot be imported in a subinterpreter, nor a second time: there is one tape in a process"

    def _picked():
        """The module of the handle that TAPEGRAD_HANDLE asks for; without it the C handle where there is one."""
        built = hasattr(lib, "tg_make_c_handle")
        asked = os.environ.get("TAPEGRAD_HANDLE") or ("c" if built else "cffi")
        if lib.tg_main.taken and f"{__package__}._{asked}_handle" not in sys.modules:
            raise ImportError(_ONE_TAPE)
        if asked == "cffi":
            from . import _cffi_handle as module
        elif asked != "c":
            raise ImportError(f"TAPEGRAD_HANDLE must be 'c' or 'cffi', not {asked!r}")
        elif not built:
            raise ImportError("TAPEGRAD_HANDLE=c: the C handle is built on CPython with a GIL only; use cffi here")
        elif lib.tg_make_c_handle():
            raise ImportError("the C handle could not be made; the error is printed above")
        elif f"{__package__}._c_handle" not in sys.modules:
            raise ImportError(_ONE_TAPE)
        else:
            from . import _c_handle as module
        lib.tg_main.taken = 1
        return module

    handle = _picked()
    lib.tg_read_partials()
    Value, leaves = handle.Value, handle.leaves
    affine, dot, softmax, sum = handle.affine, handle.dot, handle.softmax, handle.sum

__all__ = [
    "FUSED", "OWN_OPERATORS", "WITHIN", "Value", "affine", "dot", "handle", "leaves", "operators", "softmax", "sum",
]  # fmt: skip

# The functions of these files stand for operations: the line that calls them is what a recording wants to know.
_FILES = (
    "losses.py", "choice.py", "math.py", "special.py", "_rows.py", "value.py", "derivatives.py", "linalg.py",
    "program" + os.sep, "loops" + os.sep, "_cffi_handle" + os.sep,
)  # fmt: skip
WITHIN = tuple(os.path.join(os.path.dirname(__file__), name) for name in _FILES)


def _repr(self: Value) -> str:
    label = f"{self.label}|" if self.label else ""
    return f"{type(self).__name__}({label}data={self.data!r}, grad={self.grad!r})"


def _format(self: Value, spec: str) -> str:
    return format(self.data, spec) if spec else str(self)


def _refuse(name: str, way_out: str) -> Callable[[Value], NoReturn]:
    def refuse(self: Value) -> NoReturn:
        raise TypeError(f"{name}() of a Value would drop its gradient: {way_out}")

    return refuse


def _leaf(kind: type[Value], data: float, grad: float) -> Value:
    v = kind.__new__(kind)
    Value.__init__(v, data)
    v.grad = grad
    return v


def _copied(self: Value) -> Value:
    if handle.as_numbers_by(0):  # it is a number, and so is its copy
        return self._copy()
    (made,), _ = handle.copies([self], [None])
    return made


def _deep_copied(self: Value, memo: dict[int, Any]) -> Value:
    """A copy of its history, too; what memo has of that already is shared, and it gets the rest."""
    if handle.as_numbers_by(0):
        return self._copy()
    nodes = handle.history(self, memo)
    made, attributed = handle.copies(nodes, [memo.get(id(v)) for v in nodes])
    memo.update(zip(map(id, nodes), made))
    memo.setdefault(id(memo), []).extend(nodes)  # as `copy` keeps alive what memo knows by id
    if attributed:
        import copy  # slow to import, and seldom needed
    for v in attributed:
        state = vars(v)
        for name, x in list(state.items()):
            state[name] = copy.deepcopy(x, memo)
    return made[-1]


def _restore(self: Value, state: dict[str, Any]) -> None:
    for name, x in state.items():
        Value.__setattr__(self, name, x)


def _reduce(self: Value, protocol: Any = 2) -> tuple[Any, ...]:
    if handle.as_numbers_by(0):  # what comes of a pickle is a leaf: without the derivative that its copy keeps
        raise TypeError(
            "a Value cannot be pickled within a function that is being differentiated or recorded: what it becomes has "
            "no derivative; copy keeps that, and v.data is a number"
        )
    if self.operands:
        raise TypeError("a Value with a history cannot be pickled: pickle v.data, or Value(v.data), a leaf")
    state = {name: x for name, x in vars(self).items() if name not in ("_op", "_backward")}
    return _leaf, (type(self), self.data, self.grad), state or None


def _floor(self: Value) -> Value:
    return self.floor()


def _ceil(self: Value) -> Value:
    return self.ceil()


def _trunc(self: Value) -> Value:
    return self.trunc()


def _round(self: Value, ndigits: Any = None) -> Value:
    """round(v, ndigits) as a Value without slope; ndigits of -22 to 22."""
    if ndigits is None:
        return self.rint()
    from operator import index

    digits = index(ndigits)
    if abs(digits) > 22:
        raise ValueError(f"a Value is rounded to -22 to 22 decimal digits, not {digits}")
    return self._round(digits)


def _divmod(self: Value, other: Any) -> Any:
    quotient = self.__floordiv__(other)
    return quotient if quotient is NotImplemented else (quotient, self % other)


def _rdivmod(self: Value, other: Any) -> Any:
    quotient = self.__rfloordiv__(other)
    return quotient if quotient is NotImplemented else (quotient, other % self)


def _conjugate(self: Value) -> Value:
    """The Value itself: it is real.

    >>> x = Value(3.0)
    >>> x.conjugate() is x
    True
    """
    return self


def _imag(self: Value) -> float:
    """0.0: it is real.

    >>> Value(3.0).imag
    0.0
    """
    return 0.0


def _attach() -> None:
    attached = {
        "__repr__": _repr, "__format__": _format, "__copy__": _copied, "__deepcopy__": _deep_copied,
        "__reduce_ex__": _reduce, "__setstate__": _restore,
        "__float__": _refuse("float", "v.exp() and the like, tapegrad.math in math's place, or v.data"),
        "__int__": _refuse("int", "use v.data"),
        "__floor__": _floor, "__ceil__": _ceil, "__trunc__": _trunc, "__round__": _round,
        "__divmod__": _divmod, "__rdivmod__": _rdivmod,
        "conjugate": _conjugate, "real": property(_conjugate), "imag": property(_imag),
    }  # fmt: skip
    for name, method in attached.items():
        setattr(Value, name, method)
    for k in range(lib.tg_op_count):
        row = lib.tg_ops[k]
        for alias in ffi.string(row.aliases).decode().split():
            setattr(Value, alias, getattr(Value, ffi.string(row.method).decode()))


_attach()


def operators(kind: type[Value]) -> tuple[Any, ...]:
    """What a layer and a neuron may do in one call, of a class of Values."""
    return kind.__add__, kind.__radd__, kind.__mul__, kind.__rmul__


# A program may put something else into the classes, even before it loads nn.
OWN_OPERATORS = operators(Value)
FUSED = {name: getattr(Value, name) for name in ("relu", "tanh", "sigmoid", "softplus")}
