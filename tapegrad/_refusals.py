"""What is refused: which objects are numbers, which exception a code of the core stands for. Both handles ask here."""
from __future__ import annotations

from ._core import ffi, lib

TYPE_CHECKING = False  # of typing's, which takes long to import

if TYPE_CHECKING:
    from typing import Any


def as_number(x: Any) -> Any:
    """`x` as a float, or NotImplemented: whatever float() takes without parsing text, but neither Decimal nor arrays.

    Raises:
        OverflowError: an integer too large for a float.
        TypeError: x has a `__float__` that refuses.
    """
    if type(x) is float:
        return x
    import numbers  # slow to import, and seldom needed

    if isinstance(x, numbers.Number):  # Decimal and complex register as Number, not as Real
        return float(x) if isinstance(x, numbers.Real) else NotImplemented
    kind = type(x)
    if hasattr(kind, "__len__") or not (hasattr(kind, "__float__") or hasattr(kind, "__index__")):
        return NotImplemented
    return float(x)


def call(op: int, a: float, b: float) -> str:
    """An operation of numbers as it is written."""
    symbol, kind = ffi.string(lib.tg_ops[op].symbol).decode(), ffi.string(lib.tg_ops[op].kind)
    if kind == b"many":
        return f"{symbol} of {a!r} and {b!r}"
    return f"{symbol}({a!r})" if kind == b"unary" else f"{a!r} {symbol} {b!r}"


def refused(code: int, op: int, a: float, b: float) -> Exception:
    """The exception for a code that the core gave for `op` of `a` and `b`."""
    if code == lib.TG_MEMORY:
        return MemoryError()
    if code == lib.TG_FULL:
        return MemoryError("the tape is full: 2**32 - 1 nodes or operands")
    if code == lib.TG_BAD_ID:
        return IndexError("no such node on the tape")
    if code == lib.TG_TOO_DEEP:
        return RecursionError("sweeps within rules are nested too deep")
    if code == lib.TG_RULED:
        return RuntimeError(
            "a node on the way has a rule of its own (_backward): its derivative cannot be recorded. Results of "
            "tapegrad.scan have one within record, unless it is given unroll=True; those of a program that holds loops "
            "have one elsewhere: its own grad, hvp, hessian and the like go through them"
        )
    if code == lib.TG_ELSEWHERE:
        return ValueError("f returned a Value that was there before it ran: it has to compute what it returns")
    what, symbol = call(op, a, b), ffi.string(lib.tg_ops[op].symbol)
    if code == lib.TG_ZERO_DIVISION:
        return ZeroDivisionError(f"{what}: " + ("0.0 to a negative power" if symbol == b"**" else "division by zero"))
    if code == lib.TG_OVERFLOW:
        return OverflowError(f"{what}: result too large for a float")
    return ValueError(f"{what}: " + ("the result is complex" if symbol == b"**" else "math domain error"))
