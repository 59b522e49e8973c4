"""Measure generated motion against real motion: ``python evaluate.py ckpt=RUN`` or ``clips=FILE.npz data=GROUP``."""

if __name__ == "__main__":
    from ddpm import startup

    startup.begin()

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from datamodules.cache import through_cache
from ddpm.build import own_clips, own_split
from ddpm.checkpoint import load_run
from ddpm.clips import Clips
from ddpm.command import command
from ddpm.config import construct, construct_data, construct_part
from ddpm.errors import DataError, outside, refuse, refuse_split
from ddpm.files import write_json
from ddpm.metrics import suite
from ddpm.metrics.reference import Reference, reference, too_little
from ddpm.metrics.text import headline, lines
from ddpm.metrics.verdict import findings, steps_trained
from ddpm.model import choose_device
from ddpm.process.samplers import cost
from ddpm.runs import versions
from ddpm.viz.report import write_report

log = logging.getLogger("evaluate")


@dataclass
class Config:
    """Types of the keys."""

    ckpt: str | None
    clips: str | None
    out: str
    n: int
    seed: int
    frames: int | None
    travel: Any
    reference: str
    fast: bool
    legacy: bool
    training: int
    batch_size: int
    device: str
    cache: str | None
    trust: list[str]
    report: bool
    data: dict[str, Any] = field(default_factory=dict)
    loader: dict[str, Any] = field(default_factory=dict)
    sampler: Any = None
    skeleton: Any = None


def evaluate(cfg: DictConfig) -> Path:
    """Print the table, write metrics.json and report.html, and return the path of the first; a ProjectError for wrong input."""
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    check_values(config)
    choose_device(config["device"])
    options = {key: config[key] for key in ("legacy", "fast", "seed")}
    generated, data, real, about = measured(config)
    which = "recordings held out from training" if real.held_out else "all recordings, also those of training"
    lead = f"{len(generated)} generated clips of {about['data']['frames']} frames against {len(real.clips)} real ones: {which}"
    log.info("%s", lead)
    found, training = suite.evaluate_all(generated, data, real, config["training"], **options)
    wrong = findings(found, about["steps"])
    log.info("%s\n", "\n".join([*headline(found), "", *lines(found)]))
    for finding in wrong:
        log.warning("WARNING: %s", finding.text)
    about["data"] |= {"reference": "held_out" if real.held_out else "all", "sha256": data.clips.fingerprint()}
    about |= {"seed": config["seed"], "fast": config["fast"], "versions": versions()}
    path = Path(config["out"]) / "metrics.json"
    write_json(path, {**about, **found.to_dict(), "warnings": [finding._asdict() for finding in wrong]})
    log.info("%s", path)
    if config["report"]:
        name, page = config["clips"] or config["ckpt"], path.with_name("report.html")
        write_report(page, name, lead, found, wrong, generated, real.clips, training, about)
        log.info("%s", page)
    return path


def check_values(config: Mapping[str, Any]) -> None:
    """Raise a ConfigError for a value outside its limits, or options that exclude each other, before anything is loaded."""
    ckpt, clips, loader, which = config["ckpt"], config["clips"], config["loader"], config["reference"]
    has_data, split = "_target_" in config["data"], any(value is not None for value in loader.values())
    refuse_split(loader["split"])
    limits = {"n": "in [32, 50000]", "seed": "at least 0", "frames": "at least 4", "training": "at least 0"}
    limits |= {"batch_size": "at least 1", "loader.val_fraction": "in [0, 1)", "loader.seed": "at least 0"}
    refuse([
        *outside({**config, **{f"loader.{key}": value for key, value in loader.items()}}, limits),
        (which not in ("auto", "held_out", "all"), f"reference={which} must be auto, held_out or all"),
        (not ckpt and not clips, "give ckpt=RUN, a trained model, or clips=FILE.npz with data=GROUP, the real motion"),
        (not ckpt and not has_data, f"clips={clips} needs the real motion to compare with: data=GROUP as for train.py"),
        (ckpt and split, "loader cannot be given with ckpt: a run is compared with its own data, split as they were"),
        (ckpt and has_data, "data=GROUP cannot be given with ckpt: a run is compared with its own data"),
        (clips and not Path(clips).is_file(), f"clips={clips}: no such file"),
    ])  # fmt: skip


def measured(config: Mapping[str, Any]) -> tuple[Clips, Any, Reference, dict[str, Any]]:
    """The clips to measure, the data module, its clips of their length to compare them with, and a record for metrics.json."""
    model: Any = None
    about: dict[str, Any] = {"ckpt": config["ckpt"], "clips_file": config["clips"], "seeds": None, "sampler": None, "steps": None}
    changes = {key: value for key, value in config["data"].items() if value is not None or (key != "root" and not config["ckpt"])}
    if config["ckpt"] is None:
        loader = {"_target_": "datamodules.pose.PoseDataModule", "_partial_": True}
        loader |= {key: value for key, value in config["loader"].items() if value is not None}
        make, run, changes = construct, {"data": changes, "loader": loader}, {}
    else:
        model, run = load_run(config["ckpt"], config["trust"])
        model.refuse_large(config["n"], config["frames"])
        make = partial(construct_data, trust=config["trust"])
    recordings = own_clips(run, changes, through_cache(make, config["cache"]))
    file, fps = config["clips"], recordings.fps
    generated = None if file is None else Clips.load(file, recordings.skeleton, fps).of_rate(fps, file)
    frames = config["frames"] or run.get("frames") if generated is None else generated.positions.shape[1]
    data = own_split({**run["loader"], "frames": frames}, recordings, make)
    real = reference(data, config["reference"])
    if why := too_little(data, real):
        raise DataError(why)
    if generated is None:
        node = config["sampler"] or run["sampler"]
        sampler = construct_part(node, "sampler", None) if config["sampler"] else model.sampler
        cost(sampler, model.diffusion.alpha_bar)
        seeds, size = range(config["seed"], config["seed"] + config["n"]), config["batch_size"]
        generated = model.sample(seeds, frames=frames, sampler=sampler, batch_size=size, device=config["device"], progress=True)
        if bad := int((~generated.finite).sum()):
            raise ValueError(f"{bad} of {len(generated)} sampled clips are not finite: the model has diverged, train it anew")
        about |= {"seeds": [seeds.start, seeds.stop - 1], "sampler": node, "steps": steps_trained(model.trained_steps, run)}
    about["data"] = {**run["data"], **changes, "recordings": len(data.clips), "fps": data.clips.fps, "frames": frames}
    del about["data"]["skeleton"]
    return generated, data, real, about


@command("evaluate", Config)
def main(cfg: DictConfig) -> None:
    """The command."""
    evaluate(cfg)


if __name__ == "__main__":
    main()
