"""Generate motion from a checkpoint: ``python sample.py ckpt=RUN/checkpoints/last.ckpt n=16 seed=0 out=DIR``."""

import logging
import math
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from datamodules.cache import through_cache
from datamodules.pose import Windows
from datamodules.prepare import prepare
from datamodules.sets.folder import read_file
from ddpm.checkpoint import load_run
from ddpm.clips import Clips
from ddpm.command import command
from ddpm.config import construct, construct_data, own_data
from ddpm.errors import ConfigError, DataError
from ddpm.module import MotionDiffusion, evaluating
from ddpm.process.editing import between, ddim_inverse
from ddpm.process.progress import choose_device, progress_bar
from ddpm.process.samplers import Sampler, ddim
from ddpm.viz.bvh_out import write_bvh_files

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
    cache: str | None
    trust: list[str]
    steps: int | None
    gif_clips: int
    export: str | None
    action: Any
    guidance: float | None
    project: str | None
    interpolate: Any
    vary: float | None
    invert: int | None
    source: str | None
    source_clip: int
    data: dict[str, Any] = field(default_factory=dict)
    sampler: Any = None


def sample(cfg: DictConfig) -> Path:
    """Write ``clips.npz`` and ``clips.gif``; but for ``source=val`` no data set is needed.

    Args:
        cfg: the composed configuration.

    Returns:
        The path of clips.npz: ``clips`` float32 (n, frames, joints, coords) in metres, ``fps``, ``joint_names``, ``parents`` (-1
        for the root), ``units``, ``seeds`` where the clips have any; ``labels`` where the model was told an action; ``noise``
        float32 (n, joints, coords, frames) of inverted clips. data=folder reads it.

    Raises:
        ConfigError: a value outside its limits.
        CheckpointError: see `ddpm.checkpoint.load_run`.
        DataError: clips of ``source`` that cannot be used.
    """
    check_values(cfg)
    module, run = load_run(cfg.ckpt, cfg.trust)
    module.to(choose_device(cfg.device))
    sampler = module.sampler
    if cfg.sampler is not None:
        sampler = construct(OmegaConf.to_container(cfg.sampler, resolve=True, throw_on_missing=True), "sampler")  # type: ignore[arg-type]
    if cfg.export and module.skeleton.coords != 3:
        raise ConfigError(f"export={cfg.export}: rotations need three dimensions, the skeleton has {module.skeleton.coords}")
    if cfg.steps is not None:
        sampler = partial(sampler, steps=cfg.steps)
    wanted = cfg.action if cfg.action is None or OmegaConf.is_list(cfg.action) else [cfg.action]
    actions = None if wanted is None else module.find_labels([str(name) for name in wanted], cfg.n)
    source = None if cfg.source is None else read_source(cfg, module, run)
    seeds, noise, shown = range(cfg.seed, cfg.seed + cfg.n), None, None
    began = time.monotonic()
    if cfg.invert is not None and source is not None:
        clips, noise = invert(module, source[: cfg.n], cfg.invert, cfg.batch_size)
        again = clips.positions[: cfg.gif_clips]
        shown = torch.stack([source[: len(again)], again], dim=1).flatten(0, 1)  # each beside its source
        titles = [text for i in range(len(again)) for text in (f"source {cfg.source_clip + i}", "sampled again")]
    elif cfg.vary is not None and source is not None:
        clips = vary(module, source[0], cfg, seeds, sampler, actions)
        shown = torch.cat([source[:1], clips.positions[: cfg.gif_clips]])
        titles = ["the source", *(clips.titles or [])[: cfg.gif_clips]]
    elif cfg.interpolate is not None:
        clips = interpolate(module, cfg, sampler, actions)
        titles = [f"{cfg.interpolate[0]} to {cfg.interpolate[1]}: {i}/{cfg.n - 1}" for i in range(cfg.n)][: cfg.gif_clips]
    else:
        clips = module.sample(
            seeds, frames=cfg.frames, labels=actions, sampler=sampler, batch_size=cfg.batch_size, progress=True, **wishes(cfg)
        )
        titles = (clips.titles or [])[: cfg.gif_clips]
    seconds = time.monotonic() - began
    out = Path(cfg.out)
    (path,) = clips.save(out / "clips.npz", arrays={} if noise is None else {"noise": noise})
    log.info("%s: %d clips of %d frames at %g fps, sampled in %.1f s", path, *clips.positions.shape[:2], module.fps, seconds)
    if cfg.gif_clips > 0:
        drawn = clips.take(slice(cfg.gif_clips)) if shown is None else module.as_clips(shown)
        drawn.save(out / "clips.gif", titles=titles)
        log.info("%s: %d of them", out / "clips.gif", min(cfg.gif_clips, len(clips)))
    if cfg.export == "bvh":
        export_bvh(out, clips)
    return path


def wishes(cfg: DictConfig) -> dict[str, Any]:
    """What `MotionDiffusion.generate` is told beside noise and sampler."""
    return {"guidance": cfg.guidance, "project": None if cfg.project == "none" else "" if cfg.project is None else cfg.project}


def export_bvh(out: Path, clips: Clips) -> None:
    """Write ``clip_NNN.bvh`` for every clip, and log how far the joints of the files are from their positions.

    Args:
        out: directory of the files.
        clips: of three dimensions.
    """
    trips = write_bvh_files(out / "clip.bvh", clips)
    log.info("%s: %d files", out / "clip_*.bvh", len(trips))
    for joint in clips.skeleton.names:
        mean = sum(trip.mean[joint] for trip in trips.values()) / len(trips)
        worst = max(trip.worst[joint] for trip in trips.values())
        log.info("  %-20s %7.2f mm off on average, %7.2f mm at most", joint, mean, worst)


def check_values(cfg: DictConfig) -> None:
    """Look at all numbers before anything is loaded.

    Raises:
        ConfigError: one outside its limits, or options that exclude each other.
    """
    for key, least in (
        *(
            ("n", 1),
            ("seed", 0),
            ("batch_size", 1),
            ("frames", 1),
            ("steps", 1),
            ("gif_clips", 0),
            ("invert", 1),
            ("source_clip", 0),
        ),
    ):
        if cfg[key] is not None and cfg[key] < least:
            raise ConfigError(f"{key}={cfg[key]} must be at least {least}")
    if cfg.seed + cfg.n > 2**63:
        raise ConfigError(f"seed={cfg.seed}: the seeds seed..seed+n-1 must be below 2^63")
    if cfg.export not in (None, "bvh"):
        raise ConfigError(f"export={cfg.export}: must be bvh, or null")
    if cfg.out == "":
        raise ConfigError("out='' must be a directory, or the name of a new one")
    if cfg.guidance is not None and not 0 <= cfg.guidance < math.inf:
        raise ConfigError(f"guidance={cfg.guidance} must be a number, and not negative; 1 is none, more exaggerates the action")
    if cfg.project not in (None, "bones", "none"):
        raise ConfigError(f"project={cfg.project} must be bones, none, or null for that of the run")
    if cfg.invert is not None:
        for key in ("action", "guidance", "project"):
            if cfg[key] is not None:
                raise ConfigError(f"{key}={cfg[key]}: clips are inverted without; leave it away")
    if cfg.vary is not None and cfg.guidance is not None and cfg.action is None:
        raise ConfigError(f"guidance={cfg.guidance}: with vary there is something to guide towards only with action=")
    if cfg.interpolate is not None and OmegaConf.is_list(cfg.action) and len(cfg.action) != 1:
        raise ConfigError(f"action={cfg.action}: all clips between two seeds have one action; give one, or none")
    if cfg.vary is not None and not 0 < cfg.vary <= 1:
        raise ConfigError(f"vary={cfg.vary} must be in (0, 1]: 1 keeps nothing of the clip")
    ends = cfg.interpolate
    if ends is not None:
        two = OmegaConf.is_list(ends) and len(ends) == 2
        if not two or not all(isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**63 for seed in ends):
            raise ConfigError(f"interpolate={ends} must be two seeds, [a,b]")
    modes = [key for key in ("interpolate", "vary", "invert") if cfg[key] is not None]
    if len(modes) > 1:
        raise ConfigError(f"{' and '.join(modes)} cannot be combined: give one of them")
    if (cfg.source is None) == (cfg.vary is not None or cfg.invert is not None):
        raise ConfigError(f"source={cfg.source}: vary and invert need one, a file of clips or val, and nothing else does")
    if cfg.source is not None and cfg.frames is not None:
        raise ConfigError(f"frames={cfg.frames}: clips of a source keep their own length")
    if any(value is not None for value in cfg.data.values()) and cfg.source != "val":
        raise ConfigError(f"data={cfg.data}: data are looked at for source=val only")
    if cfg.invert is not None and (cfg.sampler is not None or cfg.steps is not None):
        raise ConfigError("invert samples with DDIM in as many calls as it says: leave sampler and steps away")


def read_source(cfg: DictConfig, module: MotionDiffusion, run: dict[str, Any]) -> torch.Tensor:
    """The clips that ``source`` names, from number ``source_clip`` on, at most as long as those of training.

    Args:
        cfg: the composed configuration.
        module: whose skeleton they must have.
        run: configuration of the run.

    Returns:
        ``(clips, frames, joints, coords)`` float32 in metres.

    Raises:
        DataError: a file that cannot be read, joints that the skeleton has and the file has not, or fewer clips.
    """
    if cfg.source == "val":
        data = own_data(
            run,
            OmegaConf.to_container(cfg.data, resolve=True),
            through_cache(partial(construct_data, trust=cfg.trust), cfg.cache),
        )  # type: ignore[arg-type]
        whole = data.val_recordings[data.clips.lengths[data.val_recordings] >= module.frames]
        clips = data.middle_windows(whole)["clips"]
    else:
        found = prepare(
            read_file(Path(cfg.source), module.skeleton.coords), module.skeleton, name=cfg.source, fps=module.fps,
            target_fps=module.fps, min_seconds=0.0, max_speed=None, longest=True,
        )  # fmt: skip
        used = found.lengths[cfg.source_clip :][: 1 if cfg.vary is not None else cfg.n]
        frames = min([module.frames, *used.tolist()])
        if frames < 2:
            raise DataError(f"source={cfg.source}: a clip of {frames} frame is no motion; choose another with source_clip=")
        index = torch.stack([torch.arange(len(found)), torch.zeros(len(found), dtype=torch.long)], dim=1)
        clips = Windows(found, frames).__getitems__(index)["clips"]
    if cfg.source_clip >= len(clips):
        raise DataError(f"source_clip={cfg.source_clip}: {cfg.source} has {len(clips)} clips that can be used, the first is 0")
    return clips.permute(0, 3, 1, 2)[cfg.source_clip :]


def interpolate(module: MotionDiffusion, cfg: DictConfig, sampler: Sampler, actions: torch.Tensor | None) -> Clips:
    """Clips from one seed to another, both included.

    Without ``actions`` the condition goes in a straight line from that of the one clip to that of the other.
    """
    ends = module.conditions(cfg.interpolate, None if actions is None else actions[:1].expand(2))
    parts = torch.linspace(0, 1, cfg.n).split(cfg.batch_size)
    clips = []
    with progress_bar(sampler, module.diffusion.alpha_bar, len(parts), "interpolating") as observer:
        for weight in parts:
            randn = between(*(module.noise([seed], cfg.frames) for seed in cfg.interpolate), weight)
            cond = None if ends is None else torch.lerp(ends[:1], ends[1:], weight[:, None].to(ends))
            clips.append(module.generate(randn(), randn, cond=cond, sampler=sampler, observer=observer, **wishes(cfg)))
    return module.as_clips(torch.cat(clips), labels=actions)


def vary(
    module: MotionDiffusion,
    clip: torch.Tensor,
    cfg: DictConfig,
    seeds: range,
    sampler: Sampler,
    actions: torch.Tensor | None,
) -> Clips:
    """Clips like a given one: noised up to a diffusion step, and denoised from there (SDEdit, Meng et al. 2022).

    Args:
        module: the trained model.
        clip: ``(frames, joints, coords)`` in metres.
        cfg: ``vary`` is the step as a fraction of all of them, in (0, 1]; ``batch_size`` clips are in a network call.
        seeds: of the noise, one per clip.
        sampler: its steps are spread over what is left to denoise.
        actions: ``(n,)`` labels of the clips; None leaves the action to the noisy clip.
    """
    batch_size = cfg.batch_size
    start = max(round(cfg.vary * module.diffusion.n_steps) - 1, 1)
    cond = None if actions is None else module.conditions(seeds, actions)
    x0 = module.normalised(clip[None])
    clips = []
    with progress_bar(sampler, module.diffusion.alpha_bar[: start + 1], -(-len(seeds) // batch_size), "varying") as observer:
        for first in range(0, len(seeds), batch_size):
            randn = module.noise(seeds[first : first + batch_size], clip.shape[0])
            noise = randn()
            xt = module.diffusion.q_sample(x0.expand_as(noise), torch.full((len(noise),), start, device=module.device), noise)
            told = None if cond is None else cond[first : first + batch_size]
            clips.append(module.generate(xt, randn, cond=told, sampler=sampler, start=start, observer=observer, **wishes(cfg)))
    return module.as_clips(torch.cat(clips), torch.tensor(seeds), actions)


def invert(module: MotionDiffusion, clips: torch.Tensor, steps: int, batch_size: int) -> tuple[Clips, np.ndarray]:
    """The noise of clips by DDIM inversion, and the clips that DDIM samples from it; logs how far these are off.

    Args:
        module: the trained model.
        clips: ``(n, frames, joints, coords)`` in metres.
        steps: of DDIM.
        batch_size: clips per network call.

    Returns:
        The clips sampled again, and the noise ``(n, joints, coords, frames)``.
    """
    sampler = partial(ddim, steps=steps)
    denoise, alpha_bar = module.denoiser(None, None, None), module.diffusion.alpha_bar
    again, noises = [], []
    with torch.no_grad(), evaluating(module):
        for some in clips.split(batch_size):
            noise = ddim_inverse(denoise, module.normalised(some), alpha_bar, steps=steps)
            noises.append(noise.cpu())
            again.append(module.generate(noise, partial(torch.zeros_like, noise), project=None, sampler=sampler))
    sampled = torch.cat(again)
    off = 100 * (sampled - clips).norm(dim=-1)
    log.info(
        "sampled again from their noise, joints are %.2f cm off on average, %.2f cm at worst; the noise has the deviation %.2f "
        "(1 is what the model draws clips from; more is detail that it cannot explain)",
        off.mean(), off.max(), torch.cat(noises).std(),
    )  # fmt: skip
    return module.as_clips(sampled), torch.cat(noises).numpy()


@command("sample", Config)
def main(cfg: DictConfig) -> None:
    """The command."""
    sample(cfg)


if __name__ == "__main__":
    main()
