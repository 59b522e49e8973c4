"""Schedules of the learning rate, stepped after every optimiser step.

Not torch's SequentialLR of LinearLR and CosineAnnealingLR, whose recursions round differently: the learning rates would change.
"""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


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

    return LambdaLR(optimizer, factor)


def warmup_constant(optimizer: Optimizer, total_steps: float, warmup: int = 5000) -> LambdaLR:
    """Linear from 0 over ``warmup`` steps to the optimiser's learning rate, then constant (Ho et al. 2020, appendix B).

    ``total_steps`` is not used: it makes schedules interchangeable.
    """
    return LambdaLR(optimizer, lambda step: min((step + 1) / (warmup + 1), 1.0))
