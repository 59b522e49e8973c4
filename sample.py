"""Generate motion from a checkpoint: ``python sample.py ckpt=RUN/checkpoints/last.ckpt n=16 seed=0 out=DIR``."""

import io
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from callbacks.render import draw_clips, write_gif
from ddpm.build import ConfigError, construct_part
from ddpm.checkpoint import CheckpointError, load_module, write_durably
from ddpm.module import MotionDiffusion

log = logging.getLogger("sample")


@dataclass
class Config:
    """Types of the keys."""

    ckpt: str
    n: int
    seed: int
    out: str
    frames: int | None
    batch_size: int
    device: str
    gif_clips: int
    sampler: Any = None


ConfigStore.instance().store(name="sample_base", node=Config)


def sample(cfg: DictConfig) -> Path:
    """Write ``clips.npz`` and ``clips.gif``; no data set is needed.

    Args:
        cfg: the composed configuration.

    Returns:
        The path of clips.npz: ``clips`` float32 (n, frames, joints, coords) in metres, ``fps``, ``joint_names``, ``parents`` (-1
        for the root), ``units``, ``seeds``; data=folder reads it.

    Raises:
        ConfigError: a value outside its limits.
        CheckpointError: see `ddpm.checkpoint.load_module`.
    """
    for key, least in (("n", 1), ("seed", 0), ("batch_size", 1), ("frames", 1), ("gif_clips", 0)):
        if cfg[key] is not None and cfg[key] < least:
            raise ConfigError(f"{key}={cfg[key]} must be at least {least}")
    if cfg.seed + cfg.n > 2**63:
        raise ConfigError(f"seed={cfg.seed}: the seeds seed..seed+n-1 must be below 2^63")
    if cfg.out == "":
        raise ConfigError("out='' must be a directory, or the name of a new one")
    ckpt = Path(cfg.ckpt)
    ckpt = ckpt / "checkpoints" / "last.ckpt" if ckpt.is_dir() else ckpt
    module = load_module(ckpt).to(choose_device(cfg.device))
    sampler = module.sampler
    if cfg.sampler is not None:
        sampler = construct_part(OmegaConf.to_container(cfg.sampler, resolve=True, throw_on_missing=True), "sampler")  # type: ignore[arg-type]
    seeds = range(cfg.seed, cfg.seed + cfg.n)
    began = time.monotonic()
    clips = module.sample(seeds, frames=cfg.frames, sampler=sampler, batch_size=cfg.batch_size).numpy()
    seconds = time.monotonic() - began
    out = Path(cfg.out)
    path = save_clips(out / "clips.npz", clips, module, seeds)
    log.info("%s: %d clips of %d frames at %g fps, sampled in %.1f s", path, *clips.shape[:2], module.fps, seconds)
    if cfg.gif_clips > 0:
        shown = clips[: cfg.gif_clips]
        frames = draw_clips(shown, module.skeleton, titles=[f"seed {seed}" for seed in seeds[: len(shown)]])
        write_gif(out / "clips.gif", frames, module.fps)
        log.info("%s: %d of them", out / "clips.gif", len(shown))
    return path


def save_clips(path: Path, clips: np.ndarray, module: MotionDiffusion, seeds: range) -> Path:
    """Write clips with all that is needed to read them; returns the path."""
    content = io.BytesIO()
    np.savez_compressed(
        content,
        clips=clips,
        fps=np.float64(module.fps),
        joint_names=np.array(module.skeleton.names),
        parents=np.array(module.skeleton.parents, dtype=np.int64),
        units=np.array("m"),
        seeds=np.array(seeds, dtype=np.int64),
    )
    write_durably(path, content.getbuffer())
    return path


def choose_device(name: str) -> torch.device:
    """The device with this name; ``auto`` is the accelerator if there is one.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={name}: not usable here ({str(error).splitlines()[0]})") from error


@hydra.main(version_base="1.3", config_path="conf", config_name="sample")
def main(cfg: DictConfig) -> None:
    """The command. Input errors end it with one message and status 1."""
    try:
        context = HydraConfig.get()
        if context.mode == RunMode.MULTIRUN:
            cfg.out = f"{cfg.out}/{context.job.num}"
        sample(cfg)
    except (ValueError, CheckpointError, OmegaConfBaseException) as error:
        log.error("%s: %s", type(error).__name__, error)
        sys.exit(1)


if __name__ == "__main__":
    main()
