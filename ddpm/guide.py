"""Autoguidance: away from the estimates of a worse model, for which noisy clips and conditions have to mean the same."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ddpm.normalizer import Normalizer
from ddpm.process.condition import LabelCondition, VectorCondition
from ddpm.process.diffusion import DenoiseDiffusion
from ddpm.skeleton import Skeleton


class Model(Protocol):
    """What of a `ddpm.model.MotionModel` is compared."""

    diffusion: DenoiseDiffusion
    normalizer: Normalizer
    skeleton: Skeleton
    fps: float
    frames: int
    condition: LabelCondition | VectorCondition | None

    def to(self, device: torch.device) -> Any:
        """See `torch.nn.Module.to`."""
        ...

    def eval(self) -> Any:
        """See `torch.nn.Module.eval`."""
        ...


@dataclass(frozen=True)
class Autoguidance:
    """Guidance away from a worse model: one that was trained for less time on the same data, or is smaller.

    Weight 1 is the model itself, 2 goes as far again from the estimates of the other (Karras et al. 2024, arXiv 2406.02507).
    Both are given the same condition, so that clips become better without becoming more typical of their action.
    ``name`` is what errors call it.
    """

    model: Model
    weight: float
    name: str = "guide"


def refuse_as_guide(model: Model, guidance: Autoguidance) -> None:
    """Raise a ValueError unless noisy clips and conditions mean the same to the model and to its guide."""
    mine, its = _facts(model), _facts(guidance.model)
    for what, (value, shown) in mine.items():
        other, shown_other = its[what]
        if isinstance(value, list):
            same = [a.shape for a in value] == [b.shape for b in other] and all(
                torch.allclose(a.float().cpu(), b.float().cpu(), rtol=1e-4) for a, b in zip(value, other, strict=True)
            )
        else:
            same = value == other
        if not same:
            values = f" ({shown_other}, not {shown})" if shown_other != shown else ""
            raise ValueError(
                f"{guidance.name}: it was trained {what} than the model it guides{values}; give one that was trained with the "
                "same command, but for less time (trainer.max_steps=500)"
            )


def _facts(model: Model) -> dict[str, tuple[Any, str]]:
    """What must be the same -> the value, and what a message says of it."""
    skeleton, condition, alpha_bar = model.skeleton, model.condition, model.diffusion.alpha_bar
    names = condition.names if isinstance(condition, LabelCondition) else ()
    vectors = [condition.mean, condition.std] if isinstance(condition, VectorCondition) else []
    shown = f"{len(names)} actions" if names else f"vectors of {condition.width - 1} numbers" if condition else "none"
    return {
        "on another skeleton": (skeleton, f"{len(skeleton.names)} joints of {skeleton.coords} coordinates"),
        "at another frame rate": (model.fps, f"{model.fps:g} frames per second"),
        "on clips of another length": (model.frames, f"frames={model.frames}"),
        "with another condition": (None if condition is None else (names, condition.width), shown),
        "with another T": (len(alpha_bar), f"T={len(alpha_bar)}"),
        "with another schedule": ([alpha_bar], ""),
        "on other data, or with another loader.seed or travel": ([*model.normalizer.buffers(), *vectors], ""),
    }
