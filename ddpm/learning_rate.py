"""Schedules of the learning rate, stepped after every optimiser step."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(optimizer: Optimizer, total_steps: float, warmup: int = 100, final: float = 0.02) -> LambdaLR:
    """Learning rate: linear from 0 over ``warmup`` steps, then half a cosine down to ``final`` times its peak.

    Args:
        optimizer: whose learning rate is the peak.
        total_steps: length of the run in optimiser steps.
        warmup: steps of the rise.
        final: fraction of the peak at the end, in [0, 1].

    Raises:
        ValueError: a run without an end.
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
    """Learning rate: linear from 0 over ``warmup`` steps, then constant (Ho et al. 2020, appendix B).

    Args:
        optimizer: whose learning rate is the peak.
        total_steps: length of the run; not used, here so that schedules are interchangeable.
        warmup: steps of the rise.
    """
    return LambdaLR(optimizer, lambda step: min((step + 1) / (warmup + 1), 1.0))
