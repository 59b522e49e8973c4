"""What sample.py can be asked for: its keys, their limits, and which of them exclude each other."""

import functools
import importlib.util
import math
from dataclasses import dataclass, field
from typing import Any

from ddpm.clips import FASTEST, TEMPO
from ddpm.config import construct_part
from ddpm.errors import ConfigError, outside, refuse
from ddpm.model import MotionModel
from ddpm.process.samplers import Sampler, cost

EXPORTS = ("bvh", "csv", "glb", "html", "mp4")
"""Formats beside .npz and .gif."""
MODES = ("interpolate", "vary", "invert", "edit", "script")
"""Keys that each select a way to make clips."""


@dataclass
class Request:
    """The keys of conf/sample.yaml, which says what they are."""

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
    vector: str | None
    guidance: float | None
    guide: str | None
    project: str | None
    fps: float | None
    tempo: float
    interpolate: Any
    vary: float | None
    edit: str | None
    keep: Any
    loop: bool
    script: Any
    invert: int | None
    source: str | None
    source_clip: int
    data: dict[str, Any] = field(default_factory=dict)
    sampler: Any = None


def refuse_request(cfg: Request) -> None:
    """Raise a ConfigError for a value outside its limits, or options that exclude each other, before anything is loaded."""
    limits = {
        **{"n": "at least 1", "seed": "at least 0", "batch_size": "at least 1", "frames": "at least 1", "steps": "at least 1"},
        **{"gif_clips": "at least 0", "invert": "at least 1", "source_clip": "at least 0"},
        **{"fps": f"in [1, {FASTEST:g}]", "tempo": f"in [{1 / TEMPO:g}, {TEMPO:g}]"},
    }
    ends = cfg.interpolate
    two_seeds = isinstance(ends, list) and len(ends) == 2 and all(type(seed) is int and 0 <= seed < 2**63 for seed in ends)
    refuse(outside(vars(cfg), limits))
    for key, good, limit in (
        ("seed", cfg.seed + cfg.n <= 2**63, "so small that seed + n is at most 2^63"),
        ("export", cfg.export in (None, *EXPORTS), f"{', '.join(EXPORTS)}, or null"),
        ("guidance", 0 <= (cfg.guidance or 0) < math.inf, "a number, and not negative; 1 is none, more exaggerates the action"),
        ("project", cfg.project in (None, "bones", "none"), "bones, none, or null for that of the run"),
        ("vary", cfg.vary is None or 0 < cfg.vary <= 1, "in (0, 1]: 1 keeps nothing of the clip"),
        ("interpolate", ends is None or two_seeds, "two seeds, [a,b]"),
    ):
        refuse([(not good, f"{key}={getattr(cfg, key)} must be {limit}")])
    modes = [key for key in MODES if getattr(cfg, key) is not None]
    varies, inverts = "vary" in modes, "invert" in modes
    leading = {key: getattr(cfg, key) for key in ("action", "vector", "guidance", "guide", "project")}
    given = next((f"{key}={value}" for key, value in leading.items() if value is not None), None)
    keeps_none = cfg.keep is None or cfg.keep == []
    several = isinstance(cfg.action, list) and len(cfg.action) != 1
    sourced = f"source={cfg.source}: vary and invert need a source, a file of clips or val; other requests take none"
    towards = f"guidance={cfg.guidance}: with vary, guidance needs action=, vector= or guide="
    filmed = cfg.export != "mp4" or importlib.util.find_spec("imageio_ffmpeg") is not None
    refuse([
        (not filmed, "export=mp4 needs imageio-ffmpeg: pip install 'pose-ddpm[video]' or pip install -e '.[video]'"),
        (len(modes) > 1, f"{' and '.join(modes)} cannot be combined: give one of them"),
        ((cfg.source is None) == (varies or inverts), sourced),
        (inverts and given, f"{given}: invert does not use it; leave it away"),
        (inverts and (cfg.fps or cfg.tempo != 1), "clips are inverted as they are: leave fps and tempo away"),
        (inverts and (cfg.sampler or cfg.steps), "invert samples with DDIM in as many calls: leave sampler and steps away"),
        (varies and cfg.guidance is not None and cfg.action is cfg.vector is cfg.guide is None, towards),
        (cfg.guide is not None and cfg.guidance is None, f"guide={cfg.guide} needs guidance=, its weight: 1 is none, 2 is usual"),
        (several and ends is not None, f"action={cfg.action}: all clips between two seeds have one action; give one, or none"),
        ((cfg.source or cfg.edit) and cfg.frames, f"frames={cfg.frames}: clips of a file keep their own length"),
        ((cfg.edit is None) != keeps_none, f"keep={cfg.keep}: edit=FILE and keep=[...], the part to keep, need each other"),
        (cfg.loop and modes, f"loop cannot be combined with {' and '.join(modes)}"),
        (cfg.script and (cfg.frames or cfg.action), "script says which actions and how long: leave frames and action away"),
        (cfg.vector and (cfg.script or cfg.action), "vector cannot be combined with action or script: give one of them"),
        (cfg.source != "val" and any(cfg.data.values()), f"data={cfg.data}: data are read for source=val only"),
    ])  # fmt: skip


def sampler_of(cfg: Request, model: MotionModel) -> Sampler:
    """The sampler that is asked for, by default the model's own; a ConfigError or ValueError for arguments it does not take."""
    sampler = model.sampler if cfg.sampler is None else construct_part(cfg.sampler, "sampler", None)
    if cfg.steps is not None:
        refuse(outside({"steps": cfg.steps}, {"steps": f"in [1, {model.diffusion.n_steps}]"}))
        sampler = functools.partial(sampler, steps=cfg.steps)
    cost(sampler, model.diffusion.alpha_bar)
    return sampler


def script_of(script: Any) -> list[tuple[str, float]]:
    """``walk:3,wave:2`` or ``[walk:3,wave:2]`` -> [("walk", 3.0), ("wave", 2.0)]."""
    acts = []
    for item in script if isinstance(script, list) else str(script).split(","):
        name, _, text = str(item).rpartition(":")
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        acts.append((name.strip(), seconds))
        if not name.strip() or not 0 < seconds < math.inf:
            raise ConfigError(f"script={script}: {item} is no ACTION:SECONDS; give it as script=[walk:3,wave:2]")
    return acts
