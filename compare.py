"""Quality against network calls and seconds, from one checkpoint: ``python compare.py ckpt=RUN samplers=[dpmpp_2m,unipc]``."""

if __name__ == "__main__":
    from ddpm import startup

    startup.begin()

import logging
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from datamodules.cache import through_cache
from ddpm.build import own_data
from ddpm.checkpoint import load_run
from ddpm.clips import Clips
from ddpm.command import command
from ddpm.config import construct, construct_data
from ddpm.errors import outside, refuse
from ddpm.files import write_durably
from ddpm.metrics.reference import reference
from ddpm.metrics.sampler_table import earlier_rows, row, table_bytes
from ddpm.metrics.suite import evaluate
from ddpm.metrics.text import headline
from ddpm.model import MotionModel, choose_device
from ddpm.process.samplers import Sampler, cost
from ddpm.viz.plots import plot_quality
from ddpm.viz.render import draw_clips, write_gif

log = logging.getLogger("compare")

SAMPLERS = ("ddim", "ddpm", "dpmpp_2m", "dpmpp_2m_sde", "heun", "unipc")
ROUNDS, PATIENCE = 3, 10.0
"""Batches that are timed, at least, unless that takes more seconds: other work on the machine only makes times longer."""


@dataclass
class Config:
    """Types of the keys."""

    ckpt: str
    out: str
    samplers: list[str]
    steps: list[int]
    spacing: str | None
    ancestral: bool
    n: int
    seed: int
    batch_size: int
    device: str
    cache: str | None
    trust: list[str]
    gif_clips: int
    gif_steps: int
    beside: str | None
    data: dict[str, Any] = field(default_factory=dict)


def compare(cfg: DictConfig) -> Path:
    """Sample with every sampler and number of calls, measure against the run's own data, write table, plot and picture.

    Returns:
        The path of quality.csv.

    Raises:
        ConfigError: a value outside its limits.
        CheckpointError: see `ddpm.checkpoint.load_run`.
        DataError: the run's data are not there.
    """
    values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    limits = {"n": "in [32, 50000]", "seed": "at least 0", "batch_size": "at least 1", "gif_clips": "at least 0"}
    unknown = next((name for name in cfg.samplers if name not in SAMPLERS), None)
    refuse([
        *outside(values, {**limits, "gif_steps": "at least 1"}),
        (unknown is not None, f"samplers: {unknown} is none of {', '.join(SAMPLERS)}"),
        (not cfg.samplers or not cfg.steps, f"samplers={cfg.samplers} and steps={cfg.steps} must name at least one each"),
    ])  # fmt: skip
    module, run = load_run(cfg.ckpt, cfg.trust)
    module.refuse_large(cfg.n)
    module.to(choose_device(cfg.device))
    if max(cfg.steps) > module.diffusion.n_steps:
        log.warning("steps=%s: the model has T=%d; larger values mean T", max(cfg.steps), module.diffusion.n_steps)
    wanted = [(name, steps, sampler_of(name, steps, cfg.spacing)) for name in cfg.samplers for steps in cfg.steps]
    wanted += [("ddpm", None, sampler_of("ddpm", None, None))] if cfg.ancestral else []
    calls = [cost(sampler, module.diffusion.alpha_bar, module.calls_at).calls for *_, sampler in wanted]
    data = own_data(run, values["data"], through_cache(partial(construct_data, trust=cfg.trust), cfg.cache))
    real, digest = reference(data, "all").clips, data.clips.fingerprint()[:12]
    out, table, shown = Path(cfg.out), Path(cfg.out, "quality.csv"), []
    drawn = min(cfg.steps, key=lambda steps: abs(steps - cfg.gif_steps))
    ours = {"n": cfg.n, "real": len(real), "data": digest}
    earlier = [] if cfg.beside is None else earlier_rows(cfg.beside, ours, table)
    module.sample(1, sampler=sampler_of(cfg.samplers[0], 2, None))  # the first call of all is slower
    rows, sizes = list[dict[str, Any]](), dict[str, int]()
    for (name, steps, sampler), number in zip(wanted, calls, strict=True):
        clips, seconds = timed(module, sampler, cfg, f"{name} {number}")
        quality = evaluate(clips, real, fast=True)
        rows.append(row(name, number, seconds, quality, digest))
        sizes = quality.clips
        shown += [(f"{name} {number}", clips)] if steps in (drawn, None) else []
        log.info("%12s %5d calls %9.4f s a clip   %s", name, number, seconds, "; ".join(headline(quality)))
        write_durably(table, table_bytes(rows))  # after every run, so that a command that is cut short leaves what there is

    beside = Path(cfg.beside or "").resolve()
    of = beside.parent.name if beside.is_file() else beside.name
    rows += [found | {"sampler": f"{found['sampler']}, {of}"} for found in earlier]
    title = f"{sizes['generated']} generated clips a point and {sizes['reference']} real ones; a repeat compares "
    title += f"{sizes['generated_compared']} with {sizes['reference_compared']}. Seconds: the fastest batch"
    plot_quality(out / "quality.png", rows, title)
    log.info("%s and %s", table, out / "quality.png")
    if cfg.gif_clips > 0:
        positions = torch.cat([clips.positions[: cfg.gif_clips] for _, clips in shown])
        titles = [f"{name}, seed {cfg.seed + i}" for name, _ in shown for i in range(cfg.gif_clips)]
        frames = draw_clips(positions.numpy(), module.skeleton, titles=titles, columns=cfg.gif_clips, fps=module.fps)
        write_gif(out / "quality.gif", frames, module.fps)
        said = f"a row each: {', '.join(name for name, _ in shown)} calls; steps={drawn} is nearest to gif_steps={cfg.gif_steps}"
        log.info("%s: the same noise, %s", out / "quality.gif", said)
    return table


def timed(module: MotionModel, sampler: Sampler, cfg: DictConfig, text: str) -> tuple[Clips, float]:
    """The clips, of the same seeds for every sampler, and the seconds that one of the fastest batch took."""
    seeds = range(cfg.seed, cfg.seed + cfg.n)
    batches = [seeds[k : k + cfg.batch_size] for k in range(0, cfg.n, cfg.batch_size)]
    found, seconds, end = [], [], time.monotonic() + PATIENCE
    while len(seconds) < len(batches) or (len(seconds) < ROUNDS and time.monotonic() < end):
        batch, began = batches[len(seconds) % len(batches)], time.monotonic()
        found.append(module.sample(batch, sampler=sampler, batch_size=cfg.batch_size, progress=text).positions)
        seconds.append((time.monotonic() - began) / len(batch))
    return module.as_clips(torch.cat(found[: len(batches)])), min(seconds)


def sampler_of(name: str, calls: int | None, spacing: str | None) -> Sampler:
    """The sampler of this name with so many network calls, None for all steps."""
    node = {"_target_": f"ddpm.process.samplers.{name}", "_partial_": True, "steps": calls}
    return construct(node if spacing is None else {**node, "spacing": spacing}, f"samplers {name}")


@command("compare", Config)
def main(cfg: DictConfig) -> None:
    """The command."""
    compare(cfg)


if __name__ == "__main__":
    main()
