"""Measure generated motion against real motion: ``python evaluate.py ckpt=RUN`` or ``clips=FILE.npz data=GROUP``."""

import hashlib
import importlib.metadata
import json
import logging
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from datamodules.cache import through_cache
from datamodules.clip_set import ClipSet
from ddpm.checkpoint import load_run
from ddpm.clips import Clips
from ddpm.command import command
from ddpm.config import construct, construct_data, construct_part, own_clips
from ddpm.errors import ConfigError, DataError
from ddpm.files import write_durably
from ddpm.metrics import suite
from ddpm.metrics.classifier import classification, classifier_of
from ddpm.metrics.memorisation import memorisation
from ddpm.metrics.reference import held_out, reference, whole
from ddpm.metrics.table import lines
from ddpm.metrics.verdict import findings
from ddpm.viz.report import write_report

log = logging.getLogger("evaluate")

LIBRARIES = ("pose-ddpm", "torch", "numpy", "pytorch-lightning")


@dataclass
class Config:
    """Types of the keys."""

    ckpt: str | None
    clips: str | None
    out: str
    n: int
    seed: int
    frames: int | None
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
    """Print the table and write metrics.json and report.html.

    Args:
        cfg: the composed configuration.

    Returns:
        The path of metrics.json.

    Raises:
        ConfigError: a value outside its limits, or neither clips nor a checkpoint.
        CheckpointError: see `ddpm.checkpoint.load_run`.
        DataError: clips that cannot be read, or data that are not there.
    """
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    check_values(config)
    generated, data, about = measured(config)
    real = reference(data, config["reference"])
    lead = (
        f"{len(generated)} generated clips of {generated.positions.shape[1]} frames against {len(real.motions)} real ones: "
        f"{'recordings held out from training' if real.held_out else 'all recordings, also those of training'}"
    )
    log.info("%s", lead)
    classifier = None if config["fast"] else classifier_of(data, config["seed"])
    found = suite.evaluate(
        generated,
        real.motions,
        subjects=real.subjects,
        legacy=config["legacy"],
        fast=config["fast"],
        seed=config["seed"],
        classifier=classifier.features if classifier is not None and real.held_out else None,
    )
    if classifier is not None:
        wanted = generated.label_codes(data.clips.class_names)
        said = classification(classifier, data, generated, wanted, seed=config["seed"], in_metrics=real.held_out)
        found = replace(found, classification=said)
    training = None
    if config["training"] > 0 and len(held_out(data)) > 0:
        n = len(data.train_recordings)
        training = whole(data, data.train_recordings[torch.linspace(0, n - 1, min(n, config["training"])).round().long()])
        unseen = real.motions if real.held_out else reference(data, "held_out").motions
        found = replace(found, memorisation=memorisation(generated, training, unseen))
    wrong = findings(found)
    log.info("%s", "\n".join(lines(found)))
    for finding in wrong:
        log.warning("WARNING: %s", finding.text)
    about["data"] |= {"reference": "held_out" if real.held_out else "all", "sha256": fingerprint(data.clips)}
    about |= {"seed": config["seed"], "fast": config["fast"], "versions": versions()}
    content = strict({**about, **found.to_dict(), "warnings": [finding._asdict() for finding in wrong]})
    path = Path(config["out"]) / "metrics.json"
    write_durably(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    log.info("%s", path)
    if config["report"]:
        page = path.with_name("report.html")
        write_report(page, config["clips"] or config["ckpt"], lead, found, wrong, generated, real.motions, training, about)
        log.info("%s", page)
    return path


def check_values(config: Mapping[str, Any]) -> None:
    """Look at all values before anything is loaded.

    Raises:
        ConfigError: one outside its limits, or options that exclude each other.
    """
    for key, least in (("n", 32), ("seed", 0), ("frames", 4), ("training", 0), ("batch_size", 1)):
        if config[key] is not None and config[key] < least:
            raise ConfigError(f"{key}={config[key]} must be at least {least}")
    if config["reference"] not in ("auto", "held_out", "all"):
        raise ConfigError(f"reference={config['reference']} must be auto, held_out or all")
    if config["out"] == "":
        raise ConfigError("out='' must be a directory, or the name of a new one")
    if config["ckpt"] is None and config["clips"] is None:
        raise ConfigError("give ckpt=RUN, a trained model, or clips=FILE.npz with data=GROUP, the real motion to compare it with")
    if config["ckpt"] is None and "_target_" not in config["data"]:
        raise ConfigError(f"clips={config['clips']} needs the real motion to compare with: data=GROUP as for train.py")
    if config["ckpt"] is not None:
        for key, given in (
            ("loader", any(value is not None for value in config["loader"].values())),
            ("data=GROUP", "_target_" in config["data"]),
        ):
            if given:
                raise ConfigError(f"{key} cannot be given with ckpt: a run is compared with its own data, split as they were")


def measured(config: Mapping[str, Any]) -> tuple[Clips, Any, dict[str, Any]]:
    """The clips to classifier, the data to compare them with in windows as long as they are, and where both come from.

    Args:
        config: the composed configuration.

    Returns:
        Clips, data module, and a record for metrics.json.
    """
    about: dict[str, Any] = {"ckpt": config["ckpt"], "clips_file": config["clips"], "seeds": None, "sampler": None}
    if config["ckpt"] is None:
        loader = {"_target_": "datamodules.pose.PoseDataModule", "_partial_": True}
        split = {key: value for key, value in config["loader"].items() if value is not None}
        real = {key: value for key, value in config["data"].items() if key != "root" or value is not None}
        make, module, run, changes = construct, None, {"data": real, "loader": loader | split}, {}
    else:
        make = partial(construct_data, trust=config["trust"])
        module, run = load_run(config["ckpt"], config["trust"])
        changes = {key: value for key, value in config["data"].items() if value is not None}
    recordings = own_clips(run, changes, through_cache(make, config["cache"]))
    frames = config["frames"] or run.get("frames")
    if config["clips"] is not None:
        generated = comparable(config["clips"], recordings)
        frames = generated.positions.shape[1]
    data = make({**run["loader"], "frames": frames}, "loader")(clips=recordings)
    if config["clips"] is None:
        node = config["sampler"] or run["sampler"]
        sampler = construct(node, "sampler") if config["sampler"] else construct_part(node, "sampler", config["trust"])
        seeds = range(config["seed"], config["seed"] + config["n"])
        generated = module.sample(
            seeds, frames=frames, sampler=sampler, batch_size=config["batch_size"],
            device=config["device"], progress=True,
        )  # fmt: skip
        bad = int((~generated.finite).sum())
        if bad:
            raise ValueError(f"{bad} of {len(generated)} sampled clips are not finite: the model has diverged, train it anew")
        about |= {"seeds": [seeds.start, seeds.stop - 1], "sampler": node}
    about["data"] = {**run["data"], **changes, "recordings": len(data.clips), "fps": data.clips.fps, "frames": frames}
    del about["data"]["skeleton"]
    return generated, data, about


def comparable(path: str, recordings: ClipSet) -> Clips:
    """Clips of a file, if they can be compared with the real motion; see `ddpm.clips.Clips.load`.

    Raises:
        DataError: another frame rate, or a file that cannot be read or has other joints.
    """
    clips = Clips.load(path, recordings.skeleton, recordings.fps)
    if not math.isclose(clips.fps, recordings.fps, rel_tol=1e-3):
        raise DataError(
            f"clips={path}: {clips.fps:g} frames per second, the real motion has {recordings.fps:g}; resample one of them"
        )
    return replace(clips, fps=recordings.fps)


def fingerprint(clips: ClipSet) -> str:
    """SHA-256 of all positions and lengths, little-endian: the same for the same motion, wherever its files are."""
    digest = hashlib.sha256(clips.frames.numpy().astype("<f4").tobytes())
    digest.update(clips.lengths.numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Of everything that has a say in the numbers."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # the project itself, run from its folder
            found[name] = "not installed"
    return found


def strict(value: Any) -> Any:
    """Plain containers without the numbers that JSON does not have: they become null."""
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@command("evaluate", Config)
def main(cfg: DictConfig) -> None:
    """The command."""
    evaluate(cfg)


if __name__ == "__main__":
    main()
