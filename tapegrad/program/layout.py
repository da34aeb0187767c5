"""A recorded function at Values: laid out on the tape, as if the lines of f stood there.

The data of the Values choose the path. What guards it is a guard of the recording under way, too."""
from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from .._core import ffi
from ..value import Value, handle
from . import point
from .form import Nest, objects
from .nest import form_of
from .recorded import Recorded
from .trace import under_way


def has_values(args: Sequence[Nest]) -> bool:
    """Whether there is a Value among the elements of the arguments, which are nests."""
    try:
        return any(isinstance(v, Value) for x in args for v in form_of(x, "").elements(x))
    except TypeError:
        return False


def inputs(
    recorded: Recorded, args: Sequence[Nest], params: Sequence[Value] | None = None, apart: bool = False
) -> list[Value]:
    """All inputs as Values, arguments and params; numbers among them are leaves.

    Args:
        params: instead of the program's own.
        apart: as Values of their own: one Value may be two inputs, and one input computed from another, and yet a
            gradient is by each alone.

    Raises:
        TypeError, ValueError: an argument is not as it was recorded.
    """
    recorded.check_count(args)
    items: list[Any] = []
    for k, (x, form) in enumerate(zip(args, recorded.forms)):
        what = f"argument {recorded.forms.label(k)}"
        came = form_of(x, what)
        elements = came.elements(x)
        data = iter(handle.primals([v for v in elements if isinstance(v, Value)]))
        numbers = [next(data) if isinstance(v, Value) else v for v in elements]
        form.read(came.build(iter(numbers), objects), what, array("d"))
        items += form.elements(x)
    items += recorded.params if params is None else params
    return handle.fresh(items) if apart else [x if isinstance(x, Value) else Value(x) for x in items]


def outputs(recorded: Recorded, at: Sequence[Value], swept: bool = False) -> list[Value]:
    """What f gives at these inputs, on the tape; in no_grad leaves. swept: a sweep over it is recorded.

    Raises:
        TypeError: it holds loops, which such a sweep does not see into, and there is no f to write them out.
    """
    data = array("d", handle.primals(at))
    if handle.no_grad_by(0):
        return handle.leaves(point.value(recorded, data))
    path = point.path(recorded, data)
    recording = under_way()
    if path.calls and (swept or (recording is not None and (recording.written_out or handle.differentiating()))):
        path = recorded.written_out(data) or path
    if path.calls and swept:
        raise TypeError(
            "gradients at Values of a program that holds loops are those of its function with all steps written out, "
            f"and there is none: {recorded.missing}; at numbers it has them"
        )
    if path.calls:
        from ..loops.called import program_called  # seldom needed

        return program_called(recorded, at, data)
    return handle.lay_out(int(ffi.cast("uintptr_t", path.core)), path.codes, at, recorded.on_error == "nan")


def value(
    recorded: Recorded, args: Sequence[Nest], swept: bool = False, params: Sequence[Value] | None = None
) -> Any:
    """As f returns it, of Values; params: instead of the program's own."""
    return recorded.out.build(iter(outputs(recorded, inputs(recorded, args, params), swept)), objects)
