"""Labels as a condition of a clip, and guidance towards it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.process.diffusion import Denoised
from ddpm.seeding import derive_seed


class LabelCondition:
    """The action of a clip as a one-hot vector, all 0 where it is unknown.

    A network that sees some clips without their label learns both distributions (classifier-free guidance, Ho & Salimans 2022,
    arXiv 2207.12598). Sampling without a given label draws labels as often as they are in training, which gives the distribution
    of all clips.

    Args:
        names: of the actions.
        counts: numbers of training recordings of each action, and of those without a label.
        dropout: probability with which training hides a label.
        guidance: default weight of guidance in sampling; 1 is none.
        interval: log(SNR) between which guidance acts, None for everywhere. With more noise it reduces diversity, and with less
            it only costs a network call (Kynkäänniemi et al. 2024, arXiv 2404.07724).

    Raises:
        ValueError: a value outside its limits, guidance without clips whose label is hidden, or counts that do not fit the names.
    """

    def __init__(
        self,
        names: Sequence[str],
        counts: Sequence[int],
        dropout: float = 0.1,
        guidance: float = 1.0,
        interval: Sequence[float] | None = None,
    ) -> None:
        if not 0 <= dropout < 1:
            raise ValueError(f"condition.dropout={dropout} must be in [0, 1)")
        if not 0 <= guidance < math.inf:
            raise ValueError(f"condition.guidance={guidance} must be a number that is not negative; 1 is none")
        if interval is not None and not (len(interval) == 2 and interval[0] < interval[1]):
            raise ValueError(f"condition.interval={list(interval)} must be [low, high] in log(SNR), or null")
        if len(counts) != len(names) + 1 or sum(counts) < 1:
            raise ValueError(f"condition: {len(names)} names need {len(names) + 1} counts, got {list(counts)}")
        if dropout == 0 and counts[-1] == 0 and guidance != 1:
            raise ValueError(
                f"condition.guidance={guidance} with condition.dropout=0: the network never sees a clip without its label, from "
                "which guidance leads away; set condition.guidance=1, or a dropout above 0"
            )
        self.names = tuple(names)
        self.counts = tuple(counts)
        self.dropout = dropout
        self.guidance = guidance
        self.interval = (-math.inf, math.inf) if interval is None else tuple(interval)

    def encode(self, labels: Tensor) -> Tensor:
        """``(n,)`` int64 labels, -1 where unknown -> ``(n, len(names))`` float32.

        An action without training recordings counts as unknown.
        """
        shown = torch.tensor([count > 0 for count in self.counts[:-1]] + [False], device=labels.device)
        labels = torch.where(shown[labels], labels, -1)
        return F.one_hot(labels + 1, len(self.names) + 1)[:, 1:].float()

    def hide(self, labels: Tensor) -> Tensor:
        """``(n,)`` labels, each made unknown with the probability ``dropout``."""
        return torch.where(torch.rand(len(labels), device=labels.device) < self.dropout, -1, labels)

    def draw(self, seeds: Sequence[int]) -> Tensor:
        """``(n,)`` int64 labels with their frequencies in training; each depends on its own seed alone."""
        ends = torch.tensor(self.counts, dtype=torch.float64).cumsum(0)
        generators = [torch.Generator().manual_seed(derive_seed(seed, "label")) for seed in seeds]
        places = torch.cat([torch.rand(1, generator=generator, dtype=torch.float64) for generator in generators])
        label = torch.searchsorted(ends, places * ends[-1], right=True).clamp(max=len(self.names))
        return torch.where(label == len(self.names), -1, label)

    def guides(self, alpha_bar: Tensor) -> Tensor:
        """Whether guidance acts at these noise levels, bool and shaped like alpha_bar."""
        low, high = self.interval
        logsnr = torch.logit(alpha_bar)
        return (logsnr >= low) & (logsnr <= high)

    def find(self, actions: Sequence[str]) -> Tensor:
        """``(n,)`` int64 labels of these actions; a ValueError for one without training recordings lists those there are."""
        known = [name for name, count in zip(self.names, self.counts, strict=False) if count > 0]
        for action in actions:
            if action not in known:
                raise ValueError(f"action={action}: the model knows {', '.join(known)}")
        return torch.tensor([self.names.index(action) for action in actions])


def guided(conditional: Denoised, free: Denoised, weight: float) -> Denoised:
    """The conditional estimates, moved away from the free ones: weight 1 is conditional, 0 is free, above 1 extrapolates.

    x0_hat and eps_hat are linear in each other, so that one rule serves both, every prediction and every sampler.
    """
    x0_hat, eps_hat = (torch.lerp(without, with_it, weight) for without, with_it in zip(free[:2], conditional[:2], strict=True))
    return Denoised(x0_hat, eps_hat, conditional.fraction)
