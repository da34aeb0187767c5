"""Who is measured: an engine for each contender, which records a loss, sweeps it and moves the parameters."""

from __future__ import annotations

import gc
import math
import os
import platform
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

__all__ = ["CONTENDERS", "Engine"]

Number = Any


def _relu(x: float) -> float:
    return x if x > 0.0 else 0.0


class Engine:
    """A floor: it computes on plain floats, and differentiates nothing.

    Engines whose parameters are no mutable objects keep `numbers`, the parameters as floats, and derive from this.
    """

    package = ""  # what to install, in an environment of its own; its licence allows comparison
    licence = ""
    differentiates = False
    has: ClassVar[frozenset[str]] = frozenset({"tanh", "exp", "log", "relu"})
    version = platform.python_version()
    number: Callable[[float], Number] = float
    tanh: Callable[[Number], Number] = staticmethod(math.tanh)
    exp: Callable[[Number], Number] = staticmethod(math.exp)
    log: Callable[[Number], Number] = staticmethod(math.log)
    relu: Callable[[Number], Number] = staticmethod(_relu)

    def start(self, workload: Any) -> None:
        """Take the parameters of a workload."""
        self.workload = workload
        self.numbers = list(workload.parameters)
        rule, self.rate = workload.update
        self.rule = self._sgd if rule == "sgd" else self._adam if rule == "adam" else lambda: None
        self.moments = [[0.0] * len(self.numbers), [0.0] * len(self.numbers)]
        self.steps = 0
        self.prepare()

    def prepare(self) -> None:
        """Make what outlives a step of the starting parameters."""
        self.parameters = self.workload.arrange(list(map(self.number, self.numbers)))

    def record(self) -> None:
        """Compute the loss."""
        self.root = self.workload.loss(self.parameters, self)

    def sweep(self) -> None:
        """Compute the gradient."""

    def update(self) -> None:
        """Move the parameters."""
        if self.differentiates:
            self.rule()

    def clear(self) -> None:
        """Forget the graph, and set the grads to 0 where they are kept."""
        self.root = None

    def gradient(self) -> list[float]:
        """Return the derivatives by the parameters."""
        return []

    def loss(self) -> float:
        """Return what was recorded, as a float."""
        return float(self.root)

    def between_steps(self) -> None:
        """Do what is not part of a step."""

    def _sgd(self) -> None:
        rate = self.rate
        self.numbers = [x - rate * g for x, g in zip(self.numbers, self.gradient())]

    def _adam(self) -> None:
        self.numbers = self._adam_moved(self.numbers, self.gradient())

    def _adam_moved(self, numbers: Sequence[float], gradient: Sequence[float]) -> list[float]:
        """Adam with betas 0.9 and 0.999, on floats."""
        self.steps += 1
        size = self.rate / (1 - 0.9**self.steps)
        scale = 1 / (1 - 0.999**self.steps)
        first, second = self.moments
        first[:] = [0.9 * m + 0.1 * g for m, g in zip(first, gradient)]
        second[:] = [0.999 * v + 0.001 * g * g for v, g in zip(second, gradient)]
        return [x - size * m / ((v * scale) ** 0.5 + 1e-8) for x, m, v in zip(numbers, first, second)]


class NumPy(Engine):
    """The other floor: NumPy scalars."""

    package, licence = "numpy", "BSD-3-Clause"

    def __init__(self) -> None:
        import numpy as np

        self.version = np.__version__
        self.number, self.tanh, self.exp, self.log = np.float64, np.tanh, np.exp, np.log
        self.relu = lambda x: np.maximum(x, 0.0)


class Objects(Engine):
    """Engines whose numbers are objects with `data`, `grad` and `backward()`."""

    differentiates = True
    mlp_class: Any = None

    def prepare(self) -> None:
        self.leaves = list(map(self.number, self.numbers))
        self.parameters = self.workload.arrange(self.leaves)

    def sweep(self) -> None:
        self.root.backward()

    def clear(self) -> None:
        super().clear()
        for p in self.leaves:
            p.grad = 0

    def gradient(self) -> list[float]:
        return [p.grad for p in self.leaves]

    def loss(self) -> float:
        return float(self.root.data)

    def mlp(self, sizes: Sequence[int], layers: Any) -> Any:
        """Return the library's own network with the given weights."""
        model = self.mlp_class(sizes[0], list(sizes[1:]))
        for layer, given in zip(model.layers, layers):
            for neuron, (w, b) in zip(layer.neurons, given):
                neuron.w, neuron.b = w, b
        self.mlp = lambda sizes, layers: model  # type: ignore[method-assign]
        return model

    def _sgd(self) -> None:
        rate = self.rate
        for p in self.leaves:
            p.data -= rate * p.grad

    def _adam(self) -> None:
        for p, x in zip(self.leaves, self._adam_moved([p.data for p in self.leaves], self.gradient())):
            p.data = x


class GcOff:
    """The cyclic garbage collector is off during a step; garbage goes between steps."""

    def start(self, workload: Any) -> None:
        gc.disable()
        super().start(workload)  # type: ignore[misc]

    def between_steps(self) -> None:
        gc.collect()


class Closure(Objects):
    """The closure design, with the garbage collector on, as users have it."""

    def __init__(self) -> None:
        from closure import Scalar

        self.number, self.tanh, self.exp, self.log, self.relu = (
            Scalar, Scalar.tanh, Scalar.exp, Scalar.log, Scalar.relu,
        )  # fmt: skip


class ClosureGcOff(GcOff, Closure):
    """The closure design, with the garbage collector off."""


class Micrograd(Objects):
    """micrograd itself, with the garbage collector on; it has neither tanh nor exp nor log."""

    package, licence = "micrograd", "MIT"
    has = frozenset({"relu", "mlp"})

    def __init__(self) -> None:
        from importlib.metadata import version

        from micrograd.engine import Value
        from micrograd.nn import MLP

        self.version = version("micrograd")
        self.number, self.relu, self.mlp_class = Value, Value.relu, MLP


class MicrogradGcOff(GcOff, Micrograd):
    """micrograd itself, with the garbage collector off."""


class Tapegrad(Objects):
    """tapegrad on the C handle."""

    handle = "c"
    has = frozenset({"tanh", "exp", "log", "relu", "mlp", "dot", "affine", "optim"})

    def __init__(self) -> None:
        if "tapegrad" not in sys.modules:
            os.environ["TAPEGRAD_HANDLE"] = self.handle
        import tapegrad
        from tapegrad import Value

        if tapegrad.tape.handle != self.handle:
            raise ImportError(f"tapegrad was imported with the {tapegrad.tape.handle} handle")
        self.version = tapegrad.__version__
        self.number, self.tanh, self.exp, self.log, self.relu = Value, Value.tanh, Value.exp, Value.log, Value.relu
        self.dot, self.mlp_class, self.zero_grad = tapegrad.dot, tapegrad.nn.MLP, tapegrad.zero_grad
        affine = tapegrad.affine
        self.affine = lambda rows, x: affine(rows, None, x)
        self.adam_class = tapegrad.optim.Adam

    def clear(self) -> None:
        self.root = None
        self.zero_grad(self.leaves)

    def prepare(self) -> None:
        super().prepare()
        self.adam = self.adam_class(self.leaves, self.rate)

    def _adam(self) -> None:
        self.adam.step()


class TapegradCffi(Tapegrad):
    """tapegrad on the portable handle."""

    handle = "cffi"


class Xad(Engine):
    """XAD: one tape, which starts again each step."""

    package, licence = "xad", "AGPL-3.0-or-later"
    differentiates = True

    def __init__(self) -> None:
        from importlib.metadata import version

        from xad import math as xad_math
        from xad.adj_1st import Real, Tape

        self.version = version("xad")
        self.number, self.tanh, self.exp, self.log = Real, xad_math.tanh, xad_math.exp, xad_math.log
        largest = xad_math.max
        self.relu = lambda x: largest(x, 0.0)
        self.tape = Tape()
        self.tape.activate()

    def prepare(self) -> None:
        pass

    def record(self) -> None:
        self.tape.clearAll()
        self.leaves = list(map(self.number, self.numbers))
        for leaf in self.leaves:
            self.tape.registerInput(leaf)
        self.tape.newRecording()
        self.root = self.workload.loss(self.workload.arrange(self.leaves), self)
        self.tape.registerOutput(self.root)

    def sweep(self) -> None:
        self.root.setDerivative(1.0)
        self.tape.computeAdjoints()

    def gradient(self) -> list[float]:
        return [leaf.getDerivative() for leaf in self.leaves]

    def loss(self) -> float:
        return float(self.root.getValue())


class Torch(Objects):
    """PyTorch tensors of no dimension, in double precision, on one thread."""

    package, licence = "torch", "BSD-3-Clause"

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        self.torch = torch
        self.version = torch.__version__
        self.number = lambda x: torch.tensor(x, dtype=torch.float64)
        self.tanh, self.exp, self.log, self.relu = torch.tanh, torch.exp, torch.log, torch.relu

    def prepare(self) -> None:
        super().prepare()
        for leaf in self.leaves:
            leaf.requires_grad_()
        self.adam = self.torch.optim.Adam(self.leaves, self.rate)

    def clear(self) -> None:
        self.root = None
        for p in self.leaves:
            p.grad = None

    def gradient(self) -> list[float]:
        return [0.0 if p.grad is None else p.grad.item() for p in self.leaves]

    def _sgd(self) -> None:
        with self.torch.no_grad():
            for p in self.leaves:
                if p.grad is not None:
                    p -= self.rate * p.grad

    def _adam(self) -> None:
        self.adam.step()


class CasadiSx(Engine):
    """CasADi SX: recording makes an expression; sweeping derives it, makes a function of it and calls that."""

    package, licence = "casadi", "LGPL-3.0-or-later"
    differentiates = True

    def __init__(self) -> None:
        import casadi

        self.casadi = casadi
        self.version = casadi.__version__
        self.number, self.tanh, self.exp, self.log = casadi.SX, casadi.tanh, casadi.exp, casadi.log
        self.relu = lambda x: casadi.fmax(x, 0.0)

    def prepare(self) -> None:
        self.symbols = self.casadi.SX.sym("p", len(self.numbers))
        self.parameters = self.workload.arrange(self.casadi.vertsplit(self.symbols))

    def sweep(self) -> None:
        gradient = self.casadi.gradient(self.root, self.symbols)
        function = self.casadi.Function("step", [self.symbols], [self.root, gradient])
        self.result, self.derivatives = function(self.numbers)

    def gradient(self) -> list[float]:
        return [float(x) for x in self.derivatives.full().ravel()]

    def loss(self) -> float:
        return float(self.result)


class Autograd(Engine):
    """HIPS autograd, over an array of the parameters."""

    package, licence = "autograd", "MIT"
    differentiates = True

    def __init__(self) -> None:
        from importlib.metadata import version

        import autograd
        import autograd.numpy as np

        self.numpy = np
        self.version = version("autograd")
        self.make_vjp = autograd.make_vjp
        self.tanh, self.exp, self.log = np.tanh, np.exp, np.log
        self.relu = lambda x: np.maximum(x, 0.0)

    def prepare(self) -> None:
        count = len(self.numbers)
        self.function = self.make_vjp(
            lambda array: self.workload.loss(self.workload.arrange([array[i] for i in range(count)]), self)
        )

    def record(self) -> None:
        self.root, self.result = self.function(self.numpy.array(self.numbers))

    def sweep(self) -> None:
        self.derivatives = self.root(1.0)

    def gradient(self) -> list[float]:
        return list(self.derivatives.tolist())

    def loss(self) -> float:
        return float(self.result)


CONTENDERS: dict[str, type[Engine]] = {
    "floats": Engine,
    "NumPy scalars": NumPy,
    "closures": Closure,
    "closures, gc off": ClosureGcOff,
    "micrograd": Micrograd,
    "micrograd, gc off": MicrogradGcOff,
    "tapegrad": Tapegrad,
    "tapegrad, cffi": TapegradCffi,
    "XAD": Xad,
    "PyTorch": Torch,
    "CasADi SX": CasadiSx,
    "autograd": Autograd,
}
