"""Quality against network calls and seconds, from one checkpoint: ``python compare.py ckpt=RUN samplers=[dpmpp_2m,unipc]``."""

if __name__ == "__main__":
    from ddpm import startup

    startup.begin()

import csv
import io
import logging
import math
import time
from collections.abc import Mapping
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
from ddpm.errors import ConfigError, outside, refuse
from ddpm.files import write_durably
from ddpm.metrics.reference import reference
from ddpm.metrics.suite import Evaluation, evaluate
from ddpm.metrics.table import headline
from ddpm.metrics.verdict import ratios
from ddpm.model import MotionModel, choose_device
from ddpm.process.samplers import Sampler, cost
from ddpm.viz.plots import plot_quality
from ddpm.viz.render import draw_clips, write_gif

log = logging.getLogger("compare")

SCORES = ("frechet/pose", "frechet/spectrum", "recall/pose", "frechet/kinetic")
"""With interval, and the same of real clips."""
SAMPLERS = ("ddim", "ddpm", "dpmpp_2m", "dpmpp_2m_sde", "heun", "unipc")
PANELS = {
    "frechet_pose": "Fréchet distance of poses",
    "frechet_spectrum": "Fréchet distance of spectra",
    "spread": "spread, of real",
    "recall_pose": "recall of poses",
    "bone_variation": "variation of bone lengths",
    "jerk": "jerk, of real",
    "frechet_kinetic": "kinetic Fréchet distance",
}
"""Columns of the table that are drawn, and what they are."""
ALIKE = ("n", "real", "data")
"""Columns that must be alike in tables that are compared: generated clips, real ones, and of which data these are."""
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


class Run(NamedTuple):
    """What one sampler reached with one number of network calls."""

    sampler: str
    steps: int | None  # as asked for, None for all
    calls: int  # of the network, also for guidance
    seconds: float  # per clip, of the fastest batch
    clips: Clips
    quality: Evaluation
    data: str  # digest of the recordings that the real clips are of

    def row(self) -> dict[str, Any]:
        """Its row of the table; nan for what the skeleton does not allow. ``spread`` and ``jerk`` are multiples of that of real
        clips; ``frechet_pose_real`` is the distance of real clips from each other."""
        found, sizes = self.quality, self.quality.clips
        row = {"sampler": self.sampler, "calls": self.calls, "seconds_per_clip": self.seconds, "n": sizes["generated"]}
        row |= {"real": sizes["reference"], "data": self.data}
        for name in SCORES:
            metric, column = found.metrics.get(name), name.replace("/", "_")
            for score, of in ((metric and metric.generated, column), (metric and metric.real, f"{column}_real")):
                value, low, high = (score.value, score.low, score.high) if score else (math.nan,) * 3
                row |= {of: value, f"{of}_low": low, f"{of}_high": high}
        for name in ("spread", "jerk"):
            row |= {name: ratios(found).get(name, math.nan), f"{name}_real": 1.0}
        bones = found.means.get("bone_variation", {})
        sides = {"bone_variation": "generated", "bone_variation_real": "reference"}
        return row | {column: bones.get(side, math.nan) for column, side in sides.items()}


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
    real, digest = reference(data, "all").motions, data.clips.fingerprint()[:12]
    earlier = [] if cfg.beside is None else earlier_rows(cfg.beside, {"n": cfg.n, "real": len(real), "data": digest})
    out = Path(cfg.out)

    module.sample(1, sampler=sampler_of(cfg.samplers[0], 2, None))  # the first call of all is slower
    runs: list[Run] = []
    for (name, steps, sampler), number in zip(wanted, calls, strict=True):
        clips, seconds = timed(module, sampler, cfg, f"{name} {number}")
        runs.append(Run(name, steps, number, seconds, clips, evaluate(clips, real, fast=True), digest))
        log.info("%12s %5d calls %9.4f s a clip   %s", name, number, seconds, "; ".join(headline(runs[-1].quality)))
        table = io.StringIO()  # written again after every run, so that a command that is cut short leaves what there is
        writer = csv.DictWriter(table, runs[0].row().keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(run.row() for run in runs)
        write_durably(out / "quality.csv", table.getvalue().encode())
    draw(out, runs, earlier, cfg, module)
    return out / "quality.csv"


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


def earlier_rows(path: str, ours: Mapping[str, int | str]) -> list[dict[str, Any]]:
    """The rows of an earlier table.

    Args:
        path: of the table, or of its directory.
        ours: `ALIKE` of this one.

    Raises:
        ConfigError: it is none, or its numbers do not compare with ours.
    """
    file = Path(path, "quality.csv") if Path(path).is_dir() else Path(path)
    try:
        rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(file.read_text())))
        rows = [{key: value if key in ("sampler", "data") else float(value) for key, value in row.items()} for row in rows]
        theirs = {key: [row[key] for row in rows] for key in (*ALIKE, "calls", "seconds_per_clip")}
        n = int(next((n for n in theirs["n"] if n != ours["n"]), rows[0]["n"]))
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ConfigError(f"beside={path}: no table of this version of compare.py ({error!r}); measure it anew") from error
    refuse([
        (
            n != ours["n"],
            f"beside={path}: its numbers are of n={n} clips, these of n={ours['n']}, and distances depend on n: type n={n}, or "
            f"measure that again with n={ours['n']}",
        ),
        (
            any(set(theirs[key]) != {ours[key]} for key in ALIKE),
            f"beside={path}: it compares with other real clips than the {ours['real']} of this run, so that distances do not "
            "compare: both runs need the same data, frames and data.root",
        ),
    ])  # fmt: skip
    return rows


def sampler_of(name: str, calls: int | None, spacing: str | None) -> Sampler:
    """The sampler of this name with so many network calls, None for all steps."""
    spaced = {} if spacing is None else {"spacing": spacing}
    return construct(
        {"_target_": f"ddpm.process.samplers.{name}", "_partial_": True, "steps": calls, **spaced}, f"samplers {name}"
    )


def draw(out: Path, runs: list[Run], earlier: list[dict[str, Any]], cfg: DictConfig, module: MotionModel) -> None:
    """Write quality.png, also with the rows of an earlier table, and quality.gif."""
    beside = Path(cfg.beside or "").resolve()
    of = beside.parent.name if beside.is_file() else beside.name
    rows = [run.row() for run in runs] + [row | {"sampler": f"{row['sampler']}, {of}"} for row in earlier]
    curves: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        curves.setdefault(row["sampler"], []).append(row)
    sizes = runs[0].quality.clips
    panels = {name: f"{label}, n={cfg.n}" if name.startswith("frechet") else label for name, label in PANELS.items()}
    plot_quality(
        out / "quality.png", curves, panels,
        f"{sizes['generated']} generated clips a point and {sizes['reference']} real ones; a repeat compares "
        f"{sizes['generated_compared']} with {sizes['reference_compared']}. Seconds: the fastest batch",
    )  # fmt: skip
    log.info("%s and %s", out / "quality.csv", out / "quality.png")
    shown = [run for run in runs if run.steps in (cfg.gif_steps, None)]
    if cfg.gif_clips > 0 and shown:
        clips = torch.cat([run.clips.positions[: cfg.gif_clips] for run in shown])
        titles = [f"{run.sampler} {run.calls}, seed {cfg.seed + i}" for run in shown for i in range(cfg.gif_clips)]
        frames = draw_clips(clips.numpy(), module.skeleton, titles=titles, columns=cfg.gif_clips, fps=module.fps)
        write_gif(out / "quality.gif", frames, module.fps)
        log.info("%s: the same noise, a row a sampler", out / "quality.gif")


@command("compare", Config)
def main(cfg: DictConfig) -> None:
    """The command."""
    compare(cfg)


if __name__ == "__main__":
    main()
