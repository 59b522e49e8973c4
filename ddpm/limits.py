"""Limits of a training: its configuration is checked, and tried as far as that needs no data."""

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from ddpm.build import LIMITS as MOST
from ddpm.build import with_channels
from ddpm.config import blaming, check, construct
from ddpm.errors import ConfigError, outside, refuse, refuse_split
from ddpm.files import refuse_unwritable
from ddpm.memory import refuse_beyond_memory, training_memory
from ddpm.metrics.reference import ENOUGH, RealData, holds_out_enough
from ddpm.module import MotionDiffusion, build_module
from ddpm.process.condition import vector_statistics
from ddpm.process.samplers import cost
from ddpm.resuming import flat


@dataclass
class Config:
    """The top-level keys of conf/config.yaml; the groups are checked against their constructors when they are built."""

    T: int
    frames: int
    seed: int
    resume: str | None
    out: str | None
    compile: bool
    cache: str | None
    trust: list[str]
    finetune: str | None
    loader: Any
    model: Any
    schedule: Any
    prediction: Any
    weighting: Any
    timesteps: Any
    variance: Any
    motion_loss: Any
    condition: Any
    project: str | None
    travel: str
    sampler: Any
    skeleton: Any
    data: Any
    augment: Any
    optimizer: Any
    lr_scheduler: Any
    trainer: Any
    callbacks: Any
    logger: Any


OURS = {
    "callbacks": "use the group callbacks",
    "logger": "use the group logger",
    "plugins": "checkpoints are written by a plugin of this project",
    "default_root_dir": "use out",
    "use_distributed_sampler": "batches are shared between processes already",
    "limit_train_batches": "use loader.steps_per_epoch",
    "enable_progress_bar": "~callbacks.progress_bar switches it off",
    "enable_model_summary": "the size of the network is printed",
    "num_sanity_val_steps": "everything is tried once before training",
}
"""Arguments of the Trainer that are set by the command, and what to do instead."""


ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")


PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


LIMITS = {
    **{**MOST, "seed": "in [0, 4294967295]", "model.clip_dim": "in [1, 1000000]"},
    **{"loader.batch_size": "at least 1", "loader.steps_per_epoch": "at least 1", "loader.val_fraction": "in [0, 1)"},
    **{"loader.num_workers": "in [0, 256]", "loader.seed": "at least 0"},
    **{"data.n": "at least 1", "data.fps": "above 0", "data.target_fps": "above 0", "data.seed": "at least 0"},
    **{"data.scale": "above 0", "data.skip": "at least 0", "data.max_speed": "above 0", "data.min_seconds": "at least 0"},
    **{"data.max_gap": "at least 0", "data.min_frames": "at least 1", "data.min_confidence": "in [0, 1]"},
    **{"optimizer.lr": "in (0, 1000]", "optimizer.weight_decay": "at least 0", "optimizer.eps": "at least 0"},
    **{"lr_scheduler.warmup": "at least 0", "lr_scheduler.final": "in [0, 1]"},
    **{"trainer.max_epochs": "at least 1 or -1", "trainer.max_steps": "at least 1 or -1"},
    **{"trainer.gradient_clip_val": "at least 0", "trainer.accumulate_grad_batches": "at least 1"},
    **{"trainer.log_every_n_steps": "at least 1", "trainer.check_val_every_n_epoch": "at least 1"},
    **{"trainer.devices": "at least 1 or -1", "trainer.num_nodes": "at least 1", "trainer.val_check_interval": "above 0"},
    **{"callbacks.skeleton_gif.seed": "at least 0", "callbacks.motion_metrics.seed": "at least 0"},
    **{"callbacks.progress_bar.refresh_rate": "at least 0"},
}
"""Of numbers; those of other keys are with their constructors. null is possible where there is a default without a number."""


LOGGED = ("train/loss", "train/grad_norm", "val/loss")
"""What a callback can monitor, beside the first measurement of ``motion_metrics`` and the noise levels."""


def checked(config: Mapping[str, Any], given: Sequence[str] = ()) -> dict[str, Any]:
    """A training's configuration with every value checked, precision and channels filled in.

    Args:
        config: plain containers, all interpolations resolved.
        given: keys that were given on the command line.

    Raises:
        ConfigError: see `ddpm.config.check`; or a value outside its limits.
    """
    trainer = {"accelerator": None, "precision": None, **config["trainer"]}
    if trainer.get("precision") == "auto":
        trainer["precision"] = suitable_precision(trainer["accelerator"])
    if "trainer.max_steps" in given and "trainer.max_epochs" not in given and trainer.get("max_steps", -1) != -1:
        trainer["max_epochs"] = -1  # so many steps are wanted, also beyond the epochs of the default
    config = with_channels({**config, "trainer": trainer})
    values = flat(config)
    duration, steps = values.get("trainer.max_time"), values.get("sampler.steps")
    has_time = not isinstance(duration, str) or duration == "None" or bool(re.fullmatch(r"\d+:\d+:\d+:\d+", duration))
    has_time = has_time and not (isinstance(duration, str) and re.fullmatch(r"[0:]+", duration))
    too_many = isinstance(steps, int) and steps > config["T"] and "sampler.steps" in given
    on_cpu = trainer["accelerator"] == "cpu" or (trainer["accelerator"] == "auto" and not torch.accelerator.is_available())
    processes = values.get("trainer.devices") if on_cpu else None
    most = 8 * (os.cpu_count() or 1)
    for key, good, limit in (
        ("trainer.precision", trainer["precision"] in PRECISIONS, f"auto or one of {PRECISIONS}"),
        ("trainer.accelerator", trainer["accelerator"] in ACCELERATORS, f"one of {', '.join(ACCELERATORS)}"),
        ("trainer.gradient_clip_algorithm", trainer.get("gradient_clip_algorithm") in (None, "norm"), "null or norm"),
        ("trainer.max_time", has_time, "days:hours:minutes:seconds, such as 00:00:30:00, or null"),
        ("trainer.devices", not isinstance(processes, int) or processes <= most, f"at most {most} on this machine"),
        ("sampler.steps", not too_many, f"at most T={config['T']}"),
    ):
        if not good:
            raise ConfigError(f"{key}={values.get(key, '{...}')} must be {limit}")
    check(config)
    for key in OURS.keys() & trainer.keys():
        raise ConfigError(f"trainer.{key} cannot be given: {OURS[key]}")
    for key in ("loader", "trainer", "optimizer"):
        if not isinstance(config[key], Mapping) or "_target_" not in config[key]:
            raise ConfigError(f"{key}={config[key]!r} must be a node with a _target_")
    refuse(outside(values, LIMITS))
    refuse_split(config["loader"].get("split"))
    if trainer["precision"] == "16-mixed" and config["optimizer"].get("fused"):
        raise ConfigError(
            "optimizer.fused=true with trainer.precision=16-mixed would clip gradients still multiplied by the loss scale: set "
            "optimizer.fused=false, or trainer.precision=bf16-mixed"
        )
    vectors = (config["condition"] or {}).get("_target_", "").endswith(".VectorCondition")
    if config["model"].get("clip_dim") is not None and not vectors:
        raise ConfigError(
            f"model.clip_dim={config['model']['clip_dim']}: leave it null; condition=labels sets it to the number of actions, "
            "condition=vectors to the width of the data's vectors"
        )
    _try_parts(config)
    return config


def _try_parts(config: Mapping[str, Any]) -> None:
    """Build what needs no data, with a network without weights that sees a batch, so that what is wrong is found before data."""
    loader, model, optimizer, scheduler = (config[key] for key in ("loader", "model", "optimizer", "lr_scheduler"))
    frames, batch = config["frames"], loader.get("batch_size", 1)
    width = model.get("clip_dim") or 2
    numbers = vector_statistics(torch.arange(2.0)[:, None].expand(2, width))
    module = build_module({**config, "model": model}, 20.0, ("a", "b"), (1, 1, 0), numbers, trainable=True, device="meta")
    if model["_target_"].startswith("ddpm."):
        channels = config["model"]["in_channels"]
        inputs = {"xt": torch.empty(2, channels, frames, device="meta"), "t": torch.zeros(2, dtype=torch.long, device="meta")}
        needed = training_memory(module.diffusion.eps_model, inputs, batch)  # pyright: ignore[reportArgumentType]
        sizes = [f"model.{key}={model[key]}" for key in ("model_channels", "channel_mult", "depth") if key in model]
        what = f"training with loader.batch_size={batch}, frames={frames}, {', '.join(sizes)}"
        refuse_beyond_memory(what, needed, "give less of these", config["trainer"]["accelerator"])
    cost(module.sampler, module.diffusion.alpha_bar)
    module.diffusion.timesteps(2, config["T"], torch.device("cpu"))
    if loader.get("augment"):
        construct(loader["augment"], "augment")(module.skeleton, frames)
    with blaming("optimizer", optimizer):
        made = module.optimizer(module.parameters()) if module.optimizer is not None else None
    if module.lr_scheduler is not None and made is not None and scheduler:
        endless = config["trainer"].get("max_epochs") == -1 and config["trainer"].get("max_steps", -1) == -1
        module.lr_scheduler(made, math.inf if endless else 1000)
    module.diffusion.weighting(torch.ones(1))


def suitable_precision(accelerator: str) -> str:
    """bf16-mixed on a CUDA device that computes in it, else 32-true."""
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"


def refuse_unheld_monitor(callbacks: Sequence[pl.Callback], data: RealData) -> None:
    """Check that no callback monitors a distance to training clips.

    Raises:
        ConfigError: one does, since too few clips are held out.
    """
    measuring = [m for c in callbacks if str(m := getattr(c, "monitor", None)).startswith("metrics/")]
    if measuring and not holds_out_enough(data):
        raise ConfigError(
            f"callbacks: monitor={measuring[0]}: fewer than {ENOUGH} windows are held out, so that generated clips are "
            "compared with training clips too, and copies of those would look best; monitor val/loss, or, in a new run, "
            "hold out more (loader.val_fraction)"
        )


def refuse_unknown_monitor(callbacks: Sequence[pl.Callback]) -> None:
    """Check before training that what callbacks monitor is logged.

    Raises:
        ConfigError: it is not; callbacks of the user's own may log anything.
    """
    if not all(type(callback).__module__.startswith(("callbacks.", "pytorch_lightning.", "ddpm.")) for callback in callbacks):
        return
    measured = any(type(callback).__name__ == "MotionMetrics" for callback in callbacks)
    logged = [*LOGGED, *(f"metrics/frechet_{name}" for name in ("pose", "spectrum", "kinetic") if measured)]
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if monitor is not None and monitor not in logged and not re.match(r"val/(loss_t|x0_cm)/|lr-", monitor):
            raise ConfigError(f"callbacks: monitor={monitor} of {type(callback).__name__} must be one of {', '.join(logged)}")


def refuse_too_small(folder: Path, module: MotionDiffusion, callbacks: Iterable[Any]) -> None:
    """Check that there is room in ``folder`` for the checkpoints of a run, beside those that are there.

    Raises:
        WriteError: there is not, see `ddpm.files.refuse_unwritable`.
    """
    weights = sum(value.numel() * value.element_size() for value in module.state_dict().values())
    files = sum(max(callback.save_top_k, 1) if isinstance(callback, ModelCheckpoint) else 2 for callback in callbacks)
    # The average, the raw weights and two values of an Adam a weight; a new file is complete before an old one goes.
    refuse_unwritable(folder, 4 * weights + 2**20, max(files - len(list(folder.glob("*.ckpt"))), 0) + 1)


def refuse_processes(devices: Any, strategy: str) -> None:
    """Check that a job of a sweep starts no processes that would sweep too.

    Raises:
        ConfigError: it does.
    """
    if devices != 1 and "spawn" not in strategy:
        raise ConfigError(
            f"trainer.devices={devices} under --multirun: every process would run the whole sweep again. Use "
            "trainer.devices=1, +trainer.strategy=ddp_spawn, or a launcher that starts a job a process (hydra/launcher=joblib)"
        )
