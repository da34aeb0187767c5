"""The closure design, to measure against: micrograd's, with the missing functions, and sorted without recursion."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["Scalar"]


def _nothing() -> None:
    pass


class Scalar:
    """A number that knows its operands and how to pass its grad on to them; one node an operation."""

    def __init__(self, data: float, operands: tuple[Scalar, ...] = ()) -> None:
        self.data = data
        self.grad = 0.0
        self._prev = set(operands)
        self._backward: Callable[[], None] = _nothing

    def __add__(self, other: Scalar | float) -> Scalar:
        b = other if isinstance(other, Scalar) else Scalar(other)
        out = Scalar(self.data + b.data, (self, b))

        def backward() -> None:
            self.grad += out.grad
            b.grad += out.grad

        out._backward = backward
        return out

    def __sub__(self, other: Scalar | float) -> Scalar:
        b = other if isinstance(other, Scalar) else Scalar(other)
        out = Scalar(self.data - b.data, (self, b))

        def backward() -> None:
            self.grad += out.grad
            b.grad -= out.grad

        out._backward = backward
        return out

    def __mul__(self, other: Scalar | float) -> Scalar:
        b = other if isinstance(other, Scalar) else Scalar(other)
        out = Scalar(self.data * b.data, (self, b))

        def backward() -> None:
            self.grad += b.data * out.grad
            b.grad += self.data * out.grad

        out._backward = backward
        return out

    def __truediv__(self, other: Scalar | float) -> Scalar:
        b = other if isinstance(other, Scalar) else Scalar(other)
        out = Scalar(self.data / b.data, (self, b))

        def backward() -> None:
            self.grad += out.grad / b.data
            b.grad -= out.data / b.data * out.grad

        out._backward = backward
        return out

    def __pow__(self, k: float) -> Scalar:
        out = Scalar(self.data**k, (self,))

        def backward() -> None:
            self.grad += k * self.data ** (k - 1) * out.grad

        out._backward = backward
        return out

    def __neg__(self) -> Scalar:
        out = Scalar(-self.data, (self,))

        def backward() -> None:
            self.grad -= out.grad

        out._backward = backward
        return out

    def tanh(self) -> Scalar:
        out = Scalar(math.tanh(self.data), (self,))

        def backward() -> None:
            self.grad += (1.0 - out.data * out.data) * out.grad

        out._backward = backward
        return out

    def exp(self) -> Scalar:
        out = Scalar(math.exp(self.data), (self,))

        def backward() -> None:
            self.grad += out.data * out.grad

        out._backward = backward
        return out

    def log(self) -> Scalar:
        out = Scalar(math.log(self.data), (self,))

        def backward() -> None:
            self.grad += out.grad / self.data

        out._backward = backward
        return out

    def relu(self) -> Scalar:
        out = Scalar(self.data if self.data > 0.0 else 0.0, (self,))

        def backward() -> None:
            if out.data > 0.0:
                self.grad += out.grad

        out._backward = backward
        return out

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: float) -> Scalar:
        return Scalar(other) - self

    def __rtruediv__(self, other: float) -> Scalar:
        return Scalar(other) / self

    def backward(self) -> None:
        """Add d(self)/d(v) to the grad of every v that self depends on."""
        order: list[Scalar] = []
        seen = {self}
        path = [(self, iter(self._prev))]
        while path:
            node, rest = path[-1]
            for operand in rest:
                if operand not in seen:
                    seen.add(operand)
                    path.append((operand, iter(operand._prev)))
                    break
            else:
                order.append(node)
                path.pop()
        self.grad = 1.0
        for node in reversed(order):
            node._backward()
