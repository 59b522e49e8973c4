"""Schedules of the learning rate, stepped after every optimiser step.

Not torch's SequentialLR of LinearLR and CosineAnnealingLR, whose recursions round differently: the learning rates would change.
"""

import logging
import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

log = logging.getLogger(__name__)


class Schedule(LambdaLR):
    """Learning rates that are a function of the step alone; torch goes on with the rate of the schedule before, for one step.

    Args:
        optimizer: whose learning rates are multiplied.
        factor: step -> factor.
        total_steps: over which the schedule is stretched, or None.
    """

    def __init__(self, optimizer: Optimizer, factor: Callable[[int], float], total_steps: int | None = None) -> None:
        self.total_steps = total_steps
        super().__init__(optimizer, factor)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a step of a run, after the optimiser's state was loaded; a change of the run's length is logged."""
        before = state_dict.get("total_steps", self.total_steps)  # runs of earlier versions do not have it
        super().load_state_dict({**state_dict, "total_steps": self.total_steps})
        rates: list[Any] = [base * factor(self.last_epoch) for base, factor in zip(self.base_lrs, self.lr_lambdas, strict=True)]
        old = self.optimizer.param_groups[0]["lr"]
        if before != self.total_steps or old != rates[0]:
            was = f", not {before}" if before != self.total_steps else ""
            log.info(
                "learning rate: schedule stretched over %s steps%s; rate from %.3g to %.3g at step %d",
                self.total_steps, was, old, rates[0], self.last_epoch,
            )  # fmt: skip
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = rates


def warmup_cosine(optimizer: Optimizer, total_steps: float, warmup: int = 100, final: float = 0.02) -> LambdaLR:
    """Linear from 0 over ``warmup`` steps to the optimiser's learning rate, then half a cosine down to ``final`` times that.

    Raises:
        ValueError: ``total_steps`` is infinite.
    """
    if math.isinf(total_steps):
        raise ValueError(
            "lr_scheduler=warmup_cosine needs an end: set trainer.max_epochs or trainer.max_steps, or use warmup_constant"
        )

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min((step - warmup) / max(total_steps - warmup, 1), 1.0)
        return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2

    return Schedule(optimizer, factor, int(total_steps))


def warmup_constant(optimizer: Optimizer, total_steps: float, warmup: int = 5000) -> LambdaLR:
    """Linear from 0 over ``warmup`` steps to the optimiser's learning rate, then constant (Ho et al. 2020, appendix B).

    ``total_steps`` is not used: it makes schedules interchangeable.
    """
    return Schedule(optimizer, lambda step: min((step + 1) / (warmup + 1), 1.0))
