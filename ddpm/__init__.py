"""Denoising diffusion of human motion: schedules, diffusion, samplers, networks and the training module.

From a trained run to motion in a few lines; each clip is of one seed, here 0 to 15:

    from ddpm import load
    model = load("RUN")
    clips = model.sample(16)
    clips.save("walk.gif")
    clips.save("walk.npz")
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpm.clips import Clips
    from ddpm.model import MotionModel
    from ddpm.module import MotionDiffusion
    from ddpm.networks.transformer import MotionTransformer
    from ddpm.networks.unet import MDM_UNetModel
    from ddpm.process.diffusion import DenoiseDiffusion
    from ddpm.skeleton import Skeleton


__all__ = [
    "Clips",
    "DenoiseDiffusion",
    "MDM_UNetModel",
    "MotionDiffusion",
    "MotionModel",
    "MotionTransformer",
    "Skeleton",
    "load",
]

PUBLIC = {
    "Clips": "ddpm.clips",
    "DenoiseDiffusion": "ddpm.process.diffusion",
    "MDM_UNetModel": "ddpm.networks.unet",
    "MotionDiffusion": "ddpm.module",
    "MotionModel": "ddpm.model",
    "MotionTransformer": "ddpm.networks.transformer",
    "Skeleton": "ddpm.skeleton",
}
"""Name -> module, imported at first use, so that ``import ddpm`` loads neither torch nor Lightning."""


def load(path: str | Path, trust: Sequence[str] = ()) -> "MotionModel":
    """The trained model of a checkpoint file, or of the last one in the directory of a run, ready to sample, on the CPU.

    ``pretrained`` is the small one of the procedural clips that comes with the project; a ``.safetensors`` of
    `MotionModel.export` is read too. Averaged weights are used if there are any. ``trust=("my_package",)`` names packages of
    your own that the checkpoint may use. Its configuration is ``model.configuration``. To train it on, load it with
    `MotionDiffusion.load_from_checkpoint`.
    Raises CheckpointError and ConfigError, see `ddpm.checkpoint.load_run`.
    """
    from ddpm.checkpoint import load_run

    return load_run(path, trust)[0]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562)."""
    if name not in PUBLIC:
        raise AttributeError(f"module 'ddpm' has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    """All names, also those not imported yet."""
    return sorted({*globals(), *__all__})
