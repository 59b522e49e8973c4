"""Train a diffusion model of motion: ``python train.py [group=option ...] [key=value ...]``."""

import logging
import os
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from callbacks.interrupt import StopBetweenBatches
from callbacks.motion_metrics import MotionMetrics
from datamodules.cache import cache_key, cached
from datamodules.clips import ClipSet
from datamodules.pose import PoseDataModule
from ddpm.build import build_module, check, construct, with_channels
from ddpm.checkpoint import DurableCheckpointIO, read_checkpoint
from ddpm.errors import CheckpointError, ConfigError
from ddpm.files import write_durably
from ddpm.inference import cost
from ddpm.module import MotionDiffusion, evaluating
from ddpm.runs import (
    SAVED,
    checkpoint_to_resume,
    flat,
    is_first_process,
    locked,
    refuse_another_run,
    refuse_to_overwrite,
    run_directory,
    sweep_directory,
)
from ddpm.skeleton import Skeleton

log = logging.getLogger("train")

OURS = {
    "callbacks": "use the group callbacks",
    "logger": "use the group logger",
    "plugins": "checkpoints are written by a plugin of this project",
    "default_root_dir": "use out",
    "use_distributed_sampler": "batches are shared between processes already",
    "limit_train_batches": "use loader.steps_per_epoch",
    "enable_model_summary": "the size of the network is printed",
    "num_sanity_val_steps": "everything is tried once before training",
}
"""Arguments of the Trainer that are set here, and what to do instead."""

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass
class Config:
    """Types of the top-level keys; the groups are checked against their constructors when they are built."""

    T: int
    frames: int
    seed: int
    resume: str | None
    out: str | None
    cache: str | None
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
    sampler: Any
    skeleton: Any
    data: Any
    augment: Any
    optimizer: Any
    lr_scheduler: Any
    trainer: Any
    callbacks: Any
    logger: Any


ConfigStore.instance().store(name="base", node=Config)
OmegaConf.register_new_resolver("run_dir", run_directory, replace=True, use_cache=True)
OmegaConf.register_new_resolver("sweep_dir", sweep_directory, replace=True, use_cache=True)


def train(cfg: DictConfig, overrides: Sequence[str] = ()) -> float:
    """Train as configured.

    Args:
        cfg: the composed configuration with ``out`` set.
        overrides: the command line it was composed from, kept in the checkpoint so that a resumed run is composed alike.

    Returns:
        The last val/loss, the value for a sweeper to minimise; nan if nothing was validated.

    Raises:
        ConfigError, DataError, CheckpointError: input that cannot be used, before anything is trained.
    """
    config = plain(cfg)
    out = Path(config["out"])
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        resume = checkpoint_to_resume(config["resume"], out)
        saved = {key: config[key] for key in SAVED if key != "ema"} | {"ema": config["callbacks"].get("ema")}
        resumed_step = refuse_to_overwrite(out) if resume is None else refuse_another_run(resume, saved)
        if is_first_process():
            write_durably(out / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)).encode())
        pl.seed_everything(config["seed"], workers=True, verbose=False)
        quiet_lightning()

        clips = load_clips(config["data"], config["cache"])
        data: PoseDataModule = construct(config["loader"], "loader")(clips=clips)
        module = build_module(config, clips.fps, clips.class_names, data.label_counts(), trainable=True)
        statistics = data.statistics_batch()
        module.fit(statistics)
        rehearse(module, statistics)
        module.save_hyperparameters({**saved, "overrides": list(overrides)}, logger=False)

        loggers = make_loggers(config["logger"], resumed_step)
        callbacks = [construct(node, f"callbacks.{name}") for name, node in config["callbacks"].items()]
        # It refuses to run without a logger, and logger=none is a legitimate wish.
        callbacks = [c for c in callbacks if loggers or not isinstance(c, LearningRateMonitor)]
        trainer: pl.Trainer = construct(config["trainer"], "trainer")(
            callbacks=[*callbacks, StopBetweenBatches()],
            logger=loggers,
            plugins=[DurableCheckpointIO()],
            default_root_dir=str(out),
            use_distributed_sampler=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        if resume is None:
            # The table of a sweep compares what differs between runs; a skeleton would be 40 columns of it.
            shown = {key: value for key, value in flat(saved).items() if "skeleton." not in key}
            for logger in trainer.loggers:
                logger.log_hyperparams(shown, {"val/loss": float("nan")})
        parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
        log.info(
            "%s with %.2f M parameters, T=%d, clips of %d frames, on %s in %s",
            type(module.diffusion.eps_model).__name__, parameters / 1e6, config["T"], config["frames"],
            trainer.strategy.root_device, trainer.precision,
        )  # fmt: skip
        if resume is not None:
            log.info("resuming from %s", resume)
        began = time.monotonic()
        try:
            trainer.fit(module, data, ckpt_path=resume, weights_only=True)
        except (KeyboardInterrupt, SystemExit, SIGTERMException):
            log.info("\nstopped after step %d; continue with resume=%s", trainer.global_step, out)
            raise
        if trainer.is_global_zero:
            log.info("%d steps in %.0f s; everything is in %s", trainer.global_step, time.monotonic() - began, out)
            for callback in callbacks:
                if isinstance(callback, MotionMetrics) and callback.summary:
                    log.info("  %s", callback.summary)
            for name, what in PRODUCTS.items():
                if any(out.glob(name)):
                    log.info("  %-26s %s", name, what)
        return float(trainer.callback_metrics.get("val/loss", torch.nan))


PRODUCTS = {
    "samples/final.gif": "generated clips",
    "samples/*.gif": "the same noise, while it learnt",
    "loss.png": "the loss curve",
    "loss.csv": "its numbers",
    "noise_levels.png": "the error in cm by noise level",
    "checkpoints/last.ckpt": "for sample.py, and for resume=",
    "checkpoints/best.ckpt": "the lowest val/loss",
    "events.out.tfevents.*": "tensorboard --logdir",
    "config.yaml": "the configuration, with every value as it was used",
}


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain containers: all interpolations resolved, nothing missing, every node checked.

    Raises:
        ConfigError: see `ddpm.build.check`; or a value of T, frames or out outside its limits.
    """
    cfg = cfg.copy()
    if cfg.trainer.get("precision") == "auto":
        cfg.trainer.precision = suitable_precision(cfg.trainer.accelerator)
    OmegaConf.to_container(cfg, throw_on_missing=True)  # names what is missing, and not what refers to it
    # A skeleton that is read from files is written out, for the checkpoint has to do without them.
    skeleton: Skeleton = construct(OmegaConf.to_container(cfg.skeleton, resolve=True, throw_on_missing=True), "skeleton")
    cfg.skeleton = {"_target_": "ddpm.skeleton.Skeleton", **skeleton.to_config()}
    config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    if not isinstance(config, dict) or config["out"] is None:
        raise ConfigError("out: the directory of the run must be given")
    config = with_channels(config)
    check(config)
    trainer = config["trainer"]
    for key in OURS.keys() & trainer.keys():
        raise ConfigError(f"trainer.{key} cannot be given: {OURS[key]}")
    for key, good, limit in (
        ("seed", 0 <= config["seed"] < 2**32, "in 0..2^32-1"),
        ("cache", config["cache"] != "", "auto, a directory, or null"),
        ("trainer.precision", trainer["precision"] in PRECISIONS, f"auto or one of {PRECISIONS}"),
        ("trainer.gradient_clip_val", (trainer["gradient_clip_val"] or 0) >= 0, "positive, or null for no clipping"),
        ("trainer.gradient_clip_algorithm", trainer.get("gradient_clip_algorithm") in (None, "norm"), "null or norm"),
        ("trainer.accumulate_grad_batches", trainer["accumulate_grad_batches"] >= 1, "at least 1"),
    ):
        if not good:
            raise ConfigError(f"{key}={flat(config)[key]} must be {limit}")
    if config["model"].get("clip_dim") is not None:
        raise ConfigError(
            f"model.clip_dim={config['model']['clip_dim']}: leave it null; condition=labels sets it to the number of actions"
        )
    return config


def load_clips(node: Mapping[str, Any], cache: str | None) -> ClipSet:
    """The clips of a data node, from the cache if its files were parsed before.

    Args:
        node: of the configuration.
        cache: directory of the cache, ``auto`` for outputs/cache, None for none.
    """
    key = None if cache is None else cache_key(node)
    if cache is None or key is None:
        return construct(node, "data")
    return cached(lambda: construct(node, "data"), key, Path("outputs/cache" if cache == "auto" else cache))


def rehearse(module: MotionDiffusion, batch: Mapping[str, Any]) -> None:
    """One loss and one run of the sampler, so that what cannot work says so before anything is trained or written.

    Args:
        module: to be trained.
        batch: clips in metres and their mask.

    Raises:
        ValueError: whatever the network, the loss or the sampler has to say.
    """
    # Without dropout, and without memory: `ddpm.timesteps.Importance` learns from losses of the training alone.
    with torch.no_grad(), evaluating(module):
        module.loss({name: None if value is None else value[:2] for name, value in batch.items()})
        end = module.diffusion.alpha_bar[-1]
        if end == 0 and module.diffusion.weighting(end) == 0:
            log.warning(
                "the schedule ends without signal, and this weighting gives that step, from which sampling starts, no weight: "
                "the network is never trained on it; weighting=velocity does"
            )
    cost(module.sampler, module.diffusion.alpha_bar)


def suitable_precision(accelerator: str) -> str:
    """bf16-mixed on a CUDA device that computes in it, else 32-true."""
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"


def make_loggers(nodes: Mapping[str, Mapping[str, Any]], resumed_step: int | None) -> list[Logger]:
    """The loggers of the configuration; TensorBoard forgets what a resumed run will log again."""
    loggers = []
    for name, node in nodes.items():
        purge = resumed_step is not None and node["_target_"].endswith(".TensorBoardLogger")
        loggers.append(construct({**node, "purge_step": resumed_step} if purge else node, f"logger.{name}"))
    return loggers


def quiet_lightning() -> None:
    """Hide Lightning's advertisements and the advice that does not apply to data in memory."""
    noise = ("litlogger", "`weights_only` was not set", "to estimate number of stepping batches", "TPU available")
    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.trainer.connectors.checkpoint_connector"):
        logging.getLogger(name).addFilter(lambda record: not any(words in record.getMessage() for words in noise))
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")
    warnings.filterwarnings("ignore", message=".*The number of training batches.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")


def as_it_was_begun(cfg: DictConfig, overrides: Sequence[str]) -> tuple[DictConfig, list[str]]:
    """For a run that is resumed: the configuration from its own first command line, changed by this one.

    Args:
        cfg: composed from this command line.
        overrides: this command line.

    Returns:
        The configuration and the command line that both make together.
    """
    checkpoint = checkpoint_to_resume(cfg.resume, Path(cfg.out))
    if checkpoint is None:
        return cfg, list(overrides)
    saved = read_checkpoint(checkpoint).get("hyper_parameters", {}).get("overrides", [])
    given = {override_key(o) for o in overrides}
    merged = [o for o in saved if override_key(o) not in given] + list(overrides)
    out, resume = cfg.out, cfg.resume
    cfg = hydra.compose("config", overrides=[o for o in merged if override_key(o) not in ("out", "resume")])
    cfg.out, cfg.resume = out, resume
    return cfg, merged


def override_key(override: str) -> str:
    """``+a.b=1`` -> ``a.b``."""
    return override.lstrip("+~").partition("=")[0]


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    """The command. Input errors end it with one message and status 1; in a multirun they are raised, and the other jobs run.

    With the environment variable HYDRA_FULL_ERROR they are raised too, with everything that led to them.
    """
    context = HydraConfig.get()
    try:
        if context.mode == RunMode.MULTIRUN and cfg.trainer.devices != 1 and "spawn" not in cfg.trainer.get("strategy", ""):
            raise ConfigError(
                f"trainer.devices={cfg.trainer.devices} under --multirun: every process would run the whole sweep again. Use "
                "trainer.devices=1, trainer.strategy=ddp_spawn, or a launcher that starts a job a process (hydra/launcher=joblib)"
            )
        if cfg.out is not None and cfg.resume not in (None, "auto"):
            raise ConfigError(f"resume={cfg.resume} continues in that run's own directory: leave out={cfg.out} away")
        cfg.out = context.runtime.output_dir
        cfg, overrides = as_it_was_begun(cfg, context.overrides.task)
        return train(cfg, overrides)
    except (ValueError, CheckpointError, FloatingPointError, OmegaConfBaseException, MisconfigurationException) as error:
        if isinstance(error, MissingMandatoryValue):
            log.error("%s has no value yet: give it as %s=...", error.full_key, error.full_key)
        else:
            log.error("%s: %s", type(error).__name__, error)
        if context.mode == RunMode.MULTIRUN or os.environ.get("HYDRA_FULL_ERROR"):
            raise
        sys.exit(1)
    except SIGTERMException:
        sys.exit(143)


if __name__ == "__main__":
    main()
