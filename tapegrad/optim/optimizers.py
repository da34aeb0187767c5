"""The optimizers, with PyTorch's names, defaults and update rules; a step over all parameters is one call."""
from __future__ import annotations

import array
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .._refusals import as_number
from ..bulk import flat, zero_grad
from ..value import Value, handle

if TYPE_CHECKING:
    from ..nn import Module


def _check(name: str, value: Any, low: float = 0.0, end: float = math.inf) -> None:
    if as_number(value) is NotImplemented:
        raise TypeError(f"{name} must be a number, not {type(value).__name__!r}")
    if not low <= value <= end or value == end < math.inf:
        raise ValueError(f"{name} is out of its range: {value!r}")


class Optimizer:
    """What the optimizers share: parameters, hyperparameters that may be assigned at any time, and their state.

    Args:
        params: an iterable of Values, each of them once, or a module.

    Raises:
        TypeError: an element is no Value, or a hyperparameter no number.
        ValueError: there are no parameters, one comes twice, or a hyperparameter is out of its range.

    >>> opt = optim.SGD(leaves([1.0, 2.0]), lr=0.5)
    >>> opt.lr /= 2
    >>> len(opt.params), opt.lr
    (2, 0.25)
    """

    _hyper: tuple[str, ...] = ()
    _slots: tuple[str, ...] = ()  # state, a double per parameter each

    lr: float
    initial_lr: float | None = None  # that the first learning rate scheduler found

    def __init__(self, params: Iterable[Value] | Module, **hyper: Any) -> None:
        self.params = list(flat(params))
        for v in self.params:
            if not isinstance(v, Value):
                raise TypeError(f"an optimizer takes Values, not {type(v).__name__!r}")
        if not self.params:
            raise ValueError("an optimizer needs parameters: the list is empty")
        if len(set(self.params)) != len(self.params):
            raise ValueError("a parameter comes twice")
        self.steps = 0
        self._state: dict[str, bytearray] = {}
        for name in self._hyper:
            setattr(self, name, hyper[name])
        for name in ("lr", "weight_decay", "eps", "momentum", "alpha"):
            if name in hyper:
                _check(name, hyper[name])
        if "dampening" in hyper:
            _check("dampening", hyper["dampening"], -math.inf)
        if "betas" in hyper:
            betas = hyper["betas"]
            if not isinstance(betas, (tuple, list)) or len(betas) != 2:
                raise ValueError(f"betas must be two numbers, not {betas!r}")
            for beta in betas:
                _check("a beta", beta, end=1.0)

    def zero_grad(self) -> None:
        """Set the grad of every parameter to 0.0.

        >>> x = leaves([1.0, 2.0])
        >>> (x[0] * x[1]).backward()
        >>> optim.SGD(x).zero_grad()
        >>> grads(x)
        [0.0, 0.0]
        """
        zero_grad(self.params)

    def _slot(self, name: str) -> bytearray:
        """The state of that name: all zero before the first step. A step that is refused leaves none behind."""
        return self._state.get(name) or bytearray(8 * len(self.params))

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs, as plain numbers and lists (JSON and pickle can hold it).

        >>> optim.RMSprop(leaves([1.0])).state_dict()["alpha"]
        0.99
        """
        state: dict[str, Any] = {name: getattr(self, name) for name in self._hyper}
        if self.initial_lr is not None:
            state["initial_lr"] = self.initial_lr
        state["steps"] = self.steps
        for name, slot in self._state.items():
            state[name] = memoryview(slot).cast("d").tolist()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the optimizer that gave `state` stood.

        Raises:
            KeyError: a hyperparameter is missing.
            ValueError: the state is of another number of parameters; nothing has changed.

        >>> opt = optim.SGD(leaves([1.0]))
        >>> opt.load_state_dict({**opt.state_dict(), "lr": 0.5})
        >>> opt.lr
        0.5
        """
        hyper = {name: state[name] for name in self._hyper}
        slots = {}
        for name in self._slots:
            if name in state:
                if len(state[name]) != len(self.params):
                    raise ValueError(f"{name} has {len(state[name])} elements for {len(self.params)} parameters")
                slots[name] = bytearray(array.array("d", state[name]).tobytes())
        steps = int(state["steps"])
        for name, value in hyper.items():
            setattr(self, name, tuple(value) if isinstance(value, list) else value)
        self.steps, self._state = steps, slots
        self.initial_lr = state.get("initial_lr", self.initial_lr)

    def __repr__(self) -> str:
        hyper = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._hyper)
        return f"{type(self).__name__}({len(self.params)} parameters, {hyper})"


class SGD(Optimizer):
    """Stochastic gradient descent with momentum (torch.optim.SGD).

    Args:
        params: an iterable of Values, each of them once, or a module.
        lr: learning rate. momentum, dampening, weight_decay, nesterov: as in PyTorch.
        maximize: ascend instead.

    >>> optim.SGD(leaves([1.0, 2.0]), momentum=0.9)
    SGD(2 parameters, lr=0.001, momentum=0.9, dampening=0, weight_decay=0, nesterov=False, maximize=False)
    """

    _hyper = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")
    _slots = ("momentum_buffer",)
    lr: float
    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool
    maximize: bool

    def __init__(
        self,
        params: Iterable[Value] | Module,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("nesterov needs momentum and no dampening")
        super().__init__(
            params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov,
            maximize=maximize,
        )  # fmt: skip

    def step(self) -> None:
        """Move every parameter by its grad.

        >>> x = Value(2.0)
        >>> (x * x).backward()
        >>> optim.SGD([x], lr=0.25).step()
        >>> x.data
        1.0
        """
        first = "momentum_buffer" not in self._state
        buffer = self._slot("momentum_buffer") if self.momentum else None
        handle.sgd(
            self.params, self.lr, self.momentum, self.dampening, self.weight_decay, self.nesterov, self.maximize, first,
            buffer,
        )  # fmt: skip
        if buffer is not None:
            self._state["momentum_buffer"] = buffer
        self.steps += 1


class Adam(Optimizer):
    """Adam (torch.optim.Adam): Kingma, Ba, "Adam: a method for stochastic optimization", 2015.

    Args:
        params: an iterable of Values, each of them once, or a module.
        lr: learning rate. betas, eps, weight_decay, amsgrad: as in PyTorch.
        maximize: ascend instead.

    >>> optim.Adam(leaves([1.0, 2.0]), lr=0.1)
    Adam(2 parameters, lr=0.1, betas=(0.9, 0.999), eps=1e-08, weight_decay=0, amsgrad=False, maximize=False)
    """

    _hyper = ("lr", "betas", "eps", "weight_decay", "amsgrad", "maximize")
    _slots = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    _decoupled = False
    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    amsgrad: bool
    maximize: bool

    def __init__(
        self,
        params: Iterable[Value] | Module,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, maximize=maximize
        )

    def step(self) -> None:
        """Move every parameter by its grad.

        >>> x = Value(2.0)
        >>> (x * x).backward()
        >>> optim.Adam([x], lr=0.5).step()
        >>> round(x.data, 6)
        1.5
        """
        names = self._slots if self.amsgrad else self._slots[:2]
        state = {name: self._slot(name) for name in names}
        beta1, beta2 = self.betas
        handle.adam(
            self.params, self.lr, beta1, beta2, self.eps, self.weight_decay, self.steps + 1, self._decoupled,
            self.maximize, *(state.get(name) for name in self._slots),
        )  # fmt: skip
        self._state.update(state)
        self.steps += 1


class AdamW(Adam):
    """Adam with decoupled weight decay (torch.optim.AdamW): Loshchilov, Hutter, 2019.

    Args:
        params: an iterable of Values, each of them once, or a module.
        lr: learning rate. betas, eps, weight_decay, amsgrad: as in PyTorch.
        maximize: ascend instead.

    >>> optim.AdamW(leaves([1.0, 2.0]), lr=0.1)
    AdamW(2 parameters, lr=0.1, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01, amsgrad=False, maximize=False)
    """

    _decoupled = True

    def __init__(
        self,
        params: Iterable[Value] | Module,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)


class RMSprop(Optimizer):
    """RMSprop (torch.optim.RMSprop): Tieleman, Hinton, "Lecture 6.5: rmsprop", 2012.

    Args:
        params: an iterable of Values, each of them once, or a module.
        lr: learning rate. alpha, eps, weight_decay, momentum, centered: as in PyTorch.
        maximize: ascend instead.

    >>> optim.RMSprop(leaves([1.0, 2.0]), alpha=0.9)
    RMSprop(2 parameters, lr=0.01, alpha=0.9, eps=1e-08, weight_decay=0, momentum=0, centered=False, maximize=False)
    """

    _hyper = ("lr", "alpha", "eps", "weight_decay", "momentum", "centered", "maximize")
    _slots = ("square_avg", "grad_avg", "momentum_buffer")
    alpha: float
    eps: float
    weight_decay: float
    momentum: float
    centered: bool
    maximize: bool

    def __init__(
        self,
        params: Iterable[Value] | Module,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, centered=centered,
            maximize=maximize,
        )  # fmt: skip

    def step(self) -> None:
        """Move every parameter by its grad.

        >>> x = Value(2.0)
        >>> (x * x).backward()
        >>> optim.RMSprop([x], lr=0.1, alpha=0.0).step()
        >>> round(x.data, 6)
        1.9
        """
        used = (True, self.centered, self.momentum)
        state = {name: self._slot(name) for name, on in zip(self._slots, used) if on}
        handle.rmsprop(
            self.params, self.lr, self.alpha, self.eps, self.weight_decay, self.momentum, self.centered, self.maximize,
            *(state.get(name) for name in self._slots),
        )  # fmt: skip
        self._state.update(state)
        self.steps += 1
