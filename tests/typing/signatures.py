"""What a type checker says of programs and derivatives; read by tests/test_typing.py, never run.

Where it has to object, the line says which objection: one that does not come is an error itself."""

from __future__ import annotations

from typing import Any, Union

import tapegrad
from tapegrad import Program, Value, grad, hessian, jacobian, load, record, value_and_grad

Number = Union[Value, float]


def f(x: Number, y: list[float], scale: float = 1.0) -> Number:
    return x * y[0] * scale


# A program's call takes what f does.
program = record(f, 1.0, [2.0], on_branch="record", on_error="nan")
program(1.0, [2.0])
program(1.0, [2.0], scale=3.0)
program()  # type: ignore[call-arg]
program("x", [2.0])  # type: ignore[arg-type]
program(1.0, [2.0], size=3.0)  # type: ignore[call-arg]
program.native()(1.0, [2.0])
program.native()()  # type: ignore[call-arg]

# What one that was loaded takes is not known.
anything = load("a file")
assert isinstance(anything, Program)
anything(1, 2, 3, any_name=4)

# argnums says what comes back.
pair: tuple[float, list[float]] = program.value_and_grad(1.0, [2.0], argnums="params")
several: tuple[Any, ...] = program.grad(1.0, [2.0], argnums=(0, "params"))
program.grad(1.0, [2.0], argnums="parms")  # type: ignore[call-overload]
program.grad(1.0, [2.0], argnums=1.0)  # type: ignore[call-overload]

# Options are words of few.
record(f, 1.0, [2.0], on_branch="recrod")  # type: ignore[arg-type]
record(f, 1.0, [2.0], on_error="none")  # type: ignore[arg-type]
program.map(reduce="means")  # type: ignore[arg-type]
program.map(reduce="mean", threads=2)

# Derivatives take what f does.
grad(f)(Value(1.0), [2.0])
grad(f)(1.0, [2.0], scale=2.0)
grad(f)()  # type: ignore[call-arg]
value, slope = value_and_grad(f)(1.0, [2.0])
value_and_grad(f)(1.0, [2.0], 1.0, 2.0)  # type: ignore[call-arg]
jacobian(f)("x", [2.0])  # type: ignore[arg-type]
hessian(f)(1.0, 2.0)  # type: ignore[arg-type]
grad(lambda x, y: x * y)(1.0, 2.0)

# Attributes that nobody has declared are spelling mistakes; a subclass declares its own.
v = Value(1.0)
v.data, v.grad, v.label = 2.0, 0.0, "v"
v.tpyo = 1  # type: ignore[attr-defined]
v.exq()  # type: ignore[attr-defined]


class Named(Value):
    name: str


Named(1.0).name = "n"
tapegrad.tape.collect()
