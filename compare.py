"""Quality against network calls and seconds, from one checkpoint: ``python compare.py ckpt=RUN samplers=[dpmpp_2m,unipc]``."""

if __name__ == "__main__":
    from ddpm import startup

    startup.begin()

import csv
import io
import logging
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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
from ddpm.metrics.suite import Evaluation, evaluate
from ddpm.module import MotionDiffusion, choose_device
from ddpm.process.samplers import Sampler, cost
from ddpm.viz.plots import plot_quality
from ddpm.viz.render import draw_clips, write_gif

log = logging.getLogger("compare")

METRIC = "frechet/kinetic"
SAMPLERS = ("ddim", "ddpm", "dpmpp_2m", "dpmpp_2m_sde", "heun", "unipc")
COLUMNS = ("sampler", "calls", "seconds_per_clip", "frechet_kinetic", "low", "high", "frechet_pose", "bone_variation", "jerk")
LINE = (
    "{:>12} {:5d} calls {:9.4f} s a clip   Fréchet {:7.3f} ({:.3f} to {:.3f}) pose {:7.3f}   bones vary {:.1%}   "
    "jerk {:.2f} of real"
)
"""A row of the table for the terminal."""


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
    data: dict[str, Any] = field(default_factory=dict)


class Run(NamedTuple):
    """What one sampler reached with one number of network calls."""

    sampler: str
    steps: int | None  # as asked for, None for all
    calls: int  # of the network, also for guidance
    seconds: float  # per clip
    clips: Clips
    quality: Evaluation

    def row(self) -> tuple[str | float, ...]:
        """The values of `COLUMNS`."""
        metrics, means = self.quality.metrics, self.quality.means
        kinetic = metrics[METRIC].generated
        pose = metrics["frechet/pose"].generated.value if "frechet/pose" in metrics else float("nan")
        jerk = means["jerk"]["generated"] / means["jerk"]["reference"]
        bones = means["bone_variation"]["generated"] if "bone_variation" in means else float("nan")
        interval = (kinetic.value, kinetic.low, kinetic.high)
        return (self.sampler, self.calls, self.seconds, *interval, pose, bones, jerk)


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
    refuse(outside(values, {**limits, "gif_steps": "at least 1"}))
    unknown = next((name for name in cfg.samplers if name not in SAMPLERS), None)
    refuse([(unknown is not None, f"samplers: {unknown} is none of {', '.join(SAMPLERS)}")])
    refuse([(not cfg.samplers or not cfg.steps, f"samplers={cfg.samplers} and steps={cfg.steps} must name at least one each")])
    module, run = load_run(cfg.ckpt, cfg.trust)
    module.refuse_large(cfg.n)
    module.to(choose_device(cfg.device))
    if max(cfg.steps) > module.diffusion.n_steps:
        log.warning("steps=%s: the model has T=%d; more are as many as that", max(cfg.steps), module.diffusion.n_steps)
    wanted = [(name, steps, sampler_of(name, steps, cfg.spacing)) for name in cfg.samplers for steps in cfg.steps]
    wanted += [("ddpm", None, sampler_of("ddpm", None, None))] if cfg.ancestral else []
    # Refuses what cannot run.
    calls = [cost(sampler, module.diffusion.alpha_bar, module.calls_at).calls for *_, sampler in wanted]
    data = own_data(run, values["data"], through_cache(partial(construct_data, trust=cfg.trust), cfg.cache))
    real = reference(data, "all").motions
    out = Path(cfg.out)

    module.sample(1, sampler=sampler_of(cfg.samplers[0], 2, None))  # the first call of all is slower
    runs = []
    for (name, steps, sampler), number in zip(wanted, calls, strict=True):
        began = time.monotonic()
        seeds = range(cfg.seed, cfg.seed + cfg.n)  # the same for every sampler
        clips = module.sample(seeds, sampler=sampler, batch_size=cfg.batch_size, progress=f"{name} {number}")
        seconds = (time.monotonic() - began) / len(clips)
        runs.append(Run(name, steps, number, seconds, clips, evaluate(clips, real, fast=True)))
        log.info("%s", LINE.format(*runs[-1].row()))
        table = io.StringIO()  # written again after every run, so that a command that is cut short leaves what there is
        csv.writer(table, lineterminator="\n").writerows([COLUMNS, *(run.row() for run in runs)])
        write_durably(out / "quality.csv", table.getvalue().encode())
    draw(out, runs, cfg, module)
    return out / "quality.csv"


def sampler_of(name: str, calls: int | None, spacing: str | None) -> Sampler:
    """The sampler of this name with so many network calls, None for all steps."""
    spaced = {} if spacing is None else {"spacing": spacing}
    return construct(
        {"_target_": f"ddpm.process.samplers.{name}", "_partial_": True, "steps": calls, **spaced}, f"samplers {name}"
    )


def draw(out: Path, runs: list[Run], cfg: DictConfig, module: MotionDiffusion) -> None:
    """Write quality.png and quality.gif."""
    floor = runs[0].quality.metrics[METRIC].real
    log.info("real clips against real clips: %.3f (%.3f to %.3f)", floor.value, floor.low, floor.high)
    curves: dict[str, list[tuple[float, float, tuple[float, float, float]]]] = {}
    for run in runs:
        score = run.quality.metrics[METRIC].generated
        curves.setdefault(run.sampler, []).append((run.calls, run.seconds, (score.value, score.low, score.high)))
    sizes = runs[0].quality.clips
    plot_quality(
        out / "quality.png", curves, real=(floor.value, floor.low, floor.high),
        ylabel="Fréchet distance, kinetic features",
        title=f"{sizes['generated_compared']} generated against {sizes['reference_compared']} real clips",
    )  # fmt: skip
    log.info("%s and %s", out / "quality.csv", out / "quality.png")
    shown = [run for run in runs if run.steps in (cfg.gif_steps, None)]
    if cfg.gif_clips > 0 and shown:
        clips = torch.cat([run.clips.positions[: cfg.gif_clips] for run in shown])
        titles = [f"{run.sampler} {run.calls}, seed {cfg.seed + i}" for run in shown for i in range(cfg.gif_clips)]
        frames = draw_clips(clips.numpy(), module.skeleton, titles=titles, columns=cfg.gif_clips)
        write_gif(out / "quality.gif", frames, module.fps)
        log.info("%s: the same noise, a row a sampler", out / "quality.gif")


@command("compare", Config)
def main(cfg: DictConfig) -> None:
    """The command."""
    compare(cfg)


if __name__ == "__main__":
    main()
