"""Labels or vectors as a condition of a clip, and guidance towards it."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.process.diffusion import Denoised
from ddpm.seeding import derive_seed

VECTORS = 4096
"""Training vectors that a checkpoint keeps at most, to be drawn where sampling is given none."""


class Condition:
    """What the kinds of condition share; for the arguments see `LabelCondition`."""

    def __init__(self, dropout: float, guidance: float, interval: Sequence[float] | None, some_unknown: bool) -> None:
        if not 0 <= dropout < 1:
            raise ValueError(f"condition.dropout={dropout} must be in [0, 1)")
        if not 0 <= guidance < math.inf:
            raise ValueError(f"condition.guidance={guidance} must be a number that is not negative; 1 is none")
        if interval is not None and not (len(interval) == 2 and interval[0] < interval[1]):
            raise ValueError(f"condition.interval={list(interval)} must be [low, high] in log(SNR), or null")
        if dropout == 0 and not some_unknown and guidance != 1:
            raise ValueError(
                f"condition.guidance={guidance} with condition.dropout=0: the network never sees a clip without its label or "
                "vector, from which guidance leads away; set condition.guidance=1, or a dropout above 0"
            )
        self.dropout = dropout
        self.guidance = guidance
        self.interval = (-math.inf, math.inf) if interval is None else tuple(interval)

    def guides(self, alpha_bar: Tensor) -> Tensor:
        """Whether guidance acts at these noise levels, bool and shaped like alpha_bar."""
        low, high = self.interval
        logsnr = torch.logit(alpha_bar)
        return (logsnr >= low) & (logsnr <= high)


class LabelCondition(Condition):
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
        if len(counts) != len(names) + 1 or sum(counts) < 1:
            raise ValueError(f"condition: {len(names)} names need {len(names) + 1} counts, got {list(counts)}")
        super().__init__(dropout, guidance, interval, counts[-1] > 0)
        self.names = tuple(names)
        self.counts = tuple(counts)
        self.known = [name for name, count in zip(names, counts, strict=False) if count > 0]
        self.width = len(self.names)
        self.shown = torch.tensor([count > 0 for count in self.counts[:-1]] + [False])  # by label; the last is -1

    key = "labels"  # of a batch

    def encode(self, labels: Tensor) -> Tensor:
        """``(n,)`` int64 labels, -1 where unknown -> ``(n, len(names))`` float32.

        An action without training recordings counts as unknown.
        """
        labels = torch.where(self.shown.to(labels.device, non_blocking=True)[labels], labels, -1)
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

    def check(self, labels: Tensor, n: int) -> None:
        """Raise a ValueError unless these are ``(n,)`` int64 labels."""
        top = len(self.names) - 1
        if labels.shape != (n,) or labels.dtype != torch.int64 or not bool(((labels >= -1) & (labels <= top)).all()):
            raise ValueError(
                f"labels={labels.tolist()} must be int64, one for each of {n} clips, from 0 to {top}, or -1 for any action: "
                f"{', '.join(self.names)}"
            )

    def find(self, actions: Sequence[str]) -> Tensor:
        """``(n,)`` int64 labels of these actions; a ValueError for one without training recordings lists those there are."""
        for action in actions:
            if action not in self.known:
                raise ValueError(f"action={action}: the model knows {', '.join(self.known)}")
        return torch.tensor([self.names.index(action) for action in actions])


class VectorCondition(Condition):
    """A vector of every clip, standardised, and behind it a 1; all 0 where it is unknown, so that a vector of zeros is not.

    Args:
        vectors: what `vector_statistics` found in training.
        dropout, guidance, interval: see `LabelCondition`; likewise the errors.
    """

    key = "conditions"  # of a batch
    names = counts = ()

    def __init__(
        self,
        vectors: Mapping[str, Tensor],
        dropout: float = 0.1,
        guidance: float = 1.0,
        interval: Sequence[float] | None = None,
    ) -> None:
        found = [vectors.get(key) for key in ("mean", "std", "bank")] if isinstance(vectors, Mapping) else []
        shapes = [tuple(value.shape) if isinstance(value, Tensor) else None for value in found]
        if None in shapes or len({(shape or ())[-1:] for shape in shapes}) != 1 or [len(s or ()) for s in shapes] != [1, 1, 2]:
            raise ValueError(f"condition: needs mean and std (width,) and bank (n, width), got {shapes}")
        self.mean, self.std, self.bank = (value.float() for value in found if value is not None)
        super().__init__(dropout, guidance, interval, bool(self.bank.isnan().any()))
        self.width = len(self.mean) + 1

    def encode(self, vectors: Tensor) -> Tensor:
        """``(n, width - 1)`` vectors, nan where unknown -> ``(n, width)`` float32; a ValueError for another width."""
        if vectors.shape[1:] != self.mean.shape:
            raise ValueError(f"condition: vectors have shape {tuple(vectors.shape)}, expected (n, {len(self.mean)})")
        known = ~vectors.isnan().any(1, keepdim=True)
        scaled = (vectors - self.mean.to(vectors.device)) / self.std.to(vectors.device)
        return torch.cat([torch.where(known, scaled, 0), known], dim=1).float()

    def hide(self, vectors: Tensor) -> Tensor:
        """The vectors, each made unknown with the probability ``dropout``."""
        return vectors.masked_fill(torch.rand(len(vectors), 1, device=vectors.device) < self.dropout, math.nan)

    def draw(self, seeds: Sequence[int]) -> Tensor:
        """``(n, width - 1)`` vectors of training, nan where unknown; each depends on its own seed alone."""
        generators = [torch.Generator().manual_seed(derive_seed(seed, "vector")) for seed in seeds]
        return self.bank[[int(torch.randint(len(self.bank), (1,), generator=generator)) for generator in generators]]

    def check(self, vectors: Tensor, n: int) -> None:
        """Raise a ValueError unless these are vectors of n clips; for their width see `encode`."""
        if len(vectors) != n:
            raise ValueError(f"condition: {len(vectors)} vectors for {n} clips: give one for each")

    def find(self, vectors: Tensor, n: int) -> Tensor:
        """``(n, width - 1)`` float32: one vector for all clips, or each its own; a ValueError for anything else."""
        rows = torch.as_tensor(vectors).detach().cpu().float()
        rows = rows[None] if rows.ndim == 1 else rows
        if rows.ndim != 2 or rows.shape[1] != len(self.mean):
            raise ValueError(
                f"condition: shape {tuple(rows.shape)}, the model was trained with vectors of width {len(self.mean)}: "
                f"give one, ({len(self.mean)},), or one for each of {n} clips, ({n}, {len(self.mean)})"
            )
        if len(rows) not in (1, n):
            raise ValueError(f"condition: {len(rows)} vectors for {n} clips: give one for all, or {n}")
        if not rows.isfinite().all():
            row, column = (~rows.isfinite()).nonzero()[0].tolist()
            raise ValueError(f"condition: vector {row}, element {column} is {rows[row, column]}: it must be finite")
        return rows.expand(n, -1)


def several(counts: Sequence[int]) -> bool:
    """Whether training recordings, counted as for `LabelCondition`, have more than one action to choose from."""
    return sum(count > 0 for count in counts[:-1]) > 1


def vector_statistics(vectors: Tensor) -> dict[str, Tensor]:
    """``mean``, ``std`` ``(width,)`` and ``bank``, at most `VECTORS`, of ``(n, width)`` vectors, nan where unknown; float32."""
    known = vectors[~vectors.isnan().any(1)].cpu().double()
    mean, std = known.mean(0), known.std(0, correction=0)
    std = torch.where(std > 1e-6 * mean.abs(), std, 1)
    chosen = torch.linspace(0, len(vectors) - 1, min(len(vectors), VECTORS), dtype=torch.float64).round().long()
    return {"mean": mean.float(), "std": std.float(), "bank": vectors[chosen].float()}


def guided(conditional: Denoised, free: Denoised, weight: float | Tensor) -> Denoised:
    """The conditional estimates, moved away from the free ones: weight 1 is conditional, 0 is free, above 1 extrapolates.

    x0_hat and eps_hat are linear in each other, so that one rule serves both, every prediction and every sampler.
    """
    x0_hat, eps_hat = (torch.lerp(without, with_it, weight) for without, with_it in zip(free[:2], conditional[:2], strict=True))
    return Denoised(x0_hat, eps_hat, conditional.fraction)
