"""Learning rate schedules with PyTorch's names, defaults and numbers (torch.optim.lr_scheduler)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from .optimizers import Optimizer

__all__ = ["CosineAnnealingLR", "LRScheduler", "LambdaLR", "StepLR"]


class LRScheduler:
    """What schedules share: they set `optimizer.lr` when they are made, and at every `step()` after `optimizer.step()`.

    Several of them on one optimizer multiply. Lists have one element, for the one group of parameters.

    Args:
        optimizer: whose learning rate; what it is now is the base, unless a schedule has noted one before.
        last_epoch: steps taken so far, to go on with an optimizer whose state was loaded; -1 to begin.

    Raises:
        KeyError: to go on, the optimizer needs the `initial_lr` that a schedule noted.

    >>> class Halved(optim.lr_scheduler.LRScheduler):
    ...     def get_lr(self):
    ...         return [base / 2 for base in self.base_lrs]
    >>> Halved(optim.SGD(leaves([1.0]), lr=1.0)).get_last_lr()
    [0.5]
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"a schedule takes an optimizer, not {type(optimizer).__name__!r}")
        if optimizer.initial_lr is None:
            if last_epoch != -1:
                raise KeyError("initial_lr: to go on, the optimizer must have been scheduled before")
            optimizer.initial_lr = optimizer.lr
        self.optimizer = optimizer
        self.base_lrs = [optimizer.initial_lr]
        self.last_epoch = last_epoch
        self._step_count = 0
        self.step()

    def get_lr(self) -> list[float]:
        """The learning rate of `last_epoch`, from the one before; a schedule of one's own defines it.

        >>> optim.lr_scheduler.StepLR(optim.SGD(leaves([1.0]), lr=1.0), 10).get_lr()
        [1.0]
        """
        raise NotImplementedError

    def get_last_lr(self) -> list[float]:
        """The learning rate that was set last.

        >>> optim.lr_scheduler.StepLR(optim.SGD(leaves([1.0]), lr=1.0), 10).get_last_lr()
        [1.0]
        """
        return self._last_lr

    def step(self) -> None:
        """Go to the next epoch.

        >>> opt = optim.SGD(leaves([1.0]), lr=1.0)
        >>> schedule = optim.lr_scheduler.StepLR(opt, step_size=1, gamma=0.5)
        >>> schedule.step()
        >>> opt.lr
        0.5
        """
        self._step_count += 1
        self.last_epoch += 1
        (self.optimizer.lr,) = self._last_lr = self.get_lr()

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs, as plain numbers and lists; the functions of a `LambdaLR` are left out.

        >>> optim.lr_scheduler.StepLR(optim.SGD(leaves([1.0])), 10).state_dict()["last_epoch"]
        0
        """
        return {name: x[:] if isinstance(x, list) else x for name, x in vars(self).items() if name not in self._unsaved}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the schedule that gave `state` stood; the optimizer's own state has its learning rate.

        >>> schedule = optim.lr_scheduler.StepLR(optim.SGD(leaves([1.0])), 10)
        >>> schedule.load_state_dict({**schedule.state_dict(), "last_epoch": 5})
        >>> schedule.last_epoch
        5
        """
        vars(self).update({name: x[:] if isinstance(x, list) else x for name, x in state.items()})

    _unsaved: tuple[str, ...] = ("optimizer",)
    _last_lr: list[float]

    @property
    def _begins(self) -> bool:
        return self._step_count == 1


class StepLR(LRScheduler):
    """The learning rate times `gamma` every `step_size` epochs.

    Args:
        optimizer, last_epoch: as in LRScheduler.
        step_size: in epochs. gamma: the factor.

    >>> opt = optim.SGD(leaves([1.0]), lr=1.0)
    >>> schedule = optim.lr_scheduler.StepLR(opt, step_size=2, gamma=0.5)
    >>> [schedule.step() or opt.lr for _ in range(4)]
    [1.0, 0.5, 0.5, 0.25]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size, self.gamma = _at_least_1("step_size", step_size), gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        lr = self.optimizer.lr
        return [lr if self._begins or self.last_epoch % self.step_size else lr * self.gamma]


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the base to `eta_min` in `T_max` epochs, and back: Loshchilov, Hutter, "SGDR", 2017.

    Args:
        optimizer, last_epoch: as in LRScheduler.
        T_max: epochs down. eta_min: the smallest learning rate.

    >>> opt = optim.SGD(leaves([1.0]), lr=1.0)
    >>> schedule = optim.lr_scheduler.CosineAnnealingLR(opt, T_max=2)
    >>> [round(schedule.step() or opt.lr, 6) for _ in range(4)]
    [0.5, 0.0, 0.5, 1.0]
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max, self.eta_min = _at_least_1("T_max", T_max), eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        lr, (base,), t, top = self.optimizer.lr, self.base_lrs, self.last_epoch, self.T_max
        if self._begins:
            return [lr]
        if (t - 1 - top) % (2 * top) == 0:  # from eta_min no factor leads up again
            return [lr + (base - self.eta_min) * (1 - math.cos(math.pi / top)) / 2]
        factor = (1 + math.cos(math.pi * t / top)) / (1 + math.cos(math.pi * (t - 1) / top))
        return [factor * (lr - self.eta_min) + self.eta_min]


class LambdaLR(LRScheduler):
    """The base times a function of the epoch.

    Args:
        optimizer, last_epoch: as in LRScheduler.
        lr_lambda: the function, or a list of just one.

    >>> opt = optim.SGD(leaves([1.0]), lr=1.0)
    >>> schedule = optim.lr_scheduler.LambdaLR(opt, lambda epoch: 0.5 ** epoch)
    >>> [schedule.step() or opt.lr for _ in range(3)]
    [0.5, 0.25, 0.125]
    """

    _unsaved = ("optimizer", "lr_lambdas")

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        self.lr_lambdas = [lr_lambda] if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != 1:
            raise ValueError(f"one function for the one group of parameters, not {len(self.lr_lambdas)}")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [base * f(self.last_epoch) for base, f in zip(self.base_lrs, self.lr_lambdas)]


def _at_least_1(name: str, x: int) -> int:
    if not x >= 1:
        raise ValueError(f"{name} must be 1 or more, not {x!r}")
    return x
