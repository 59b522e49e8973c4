"""What comes before a training: values checked, everything tried once, loggers made, libraries quietened."""

import logging
import math
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

from ddpm.config import check, construct, with_channels
from ddpm.errors import ConfigError
from ddpm.files import refuse_unwritable
from ddpm.module import MotionDiffusion, evaluating
from ddpm.process.samplers import cost
from ddpm.runs import flat, is_first_process

log = logging.getLogger(__name__)

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

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """A training's configuration with every value looked at, precision and channels filled in.

    Args:
        config: plain containers, all interpolations resolved.

    Raises:
        ConfigError: see `ddpm.config.check`; or a value outside its limits.
    """
    trainer = dict(config["trainer"])
    if trainer.get("precision") == "auto":
        trainer["precision"] = suitable_precision(trainer["accelerator"])
    config = with_channels({**config, "trainer": trainer})
    check(config)
    for key in OURS.keys() & trainer.keys():
        raise ConfigError(f"trainer.{key} cannot be given: {OURS[key]}")
    split = str(flat(config).get("loader.split", "subject"))
    has_split = split in ("subject", "sequence") or Path(split).expanduser().exists()
    for key, good, limit in (
        ("seed", 0 <= config["seed"] < 2**32, "in 0..2^32-1"),
        ("cache", config["cache"] != "", "auto, a directory, or null"),
        ("loader.split", has_split, "subject, sequence, or the path of an official list"),
        ("trainer.precision", trainer["precision"] in PRECISIONS, f"auto or one of {PRECISIONS}"),
        ("trainer.gradient_clip_val", (trainer["gradient_clip_val"] or 0) >= 0, "positive, or null for no clipping"),
        ("trainer.gradient_clip_algorithm", trainer.get("gradient_clip_algorithm") in (None, "norm"), "null or norm"),
        ("trainer.accumulate_grad_batches", trainer["accumulate_grad_batches"] >= 1, "at least 1"),
    ):
        if not good:
            raise ConfigError(f"{key}={flat(config)[key]} must be {limit}")
    vectors = (config["condition"] or {}).get("_target_", "").endswith(".VectorCondition")
    if config["model"].get("clip_dim") is not None and not vectors:
        raise ConfigError(
            f"model.clip_dim={config['model']['clip_dim']}: leave it null; condition=labels sets it to the number of actions, "
            "condition=vectors to the width of the data's vectors"
        )
    return config


def suitable_precision(accelerator: str) -> str:
    """bf16-mixed on a CUDA device that computes in it, else 32-true."""
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"


def rehearse(module: MotionDiffusion, batch: Mapping[str, Any], has_end: bool = True) -> None:
    """One loss, one run of the sampler and an optimiser, so that what cannot work says so before anything is trained or written.

    Args:
        module: to be trained.
        batch: clips in metres and their mask.
        has_end: whether the number of steps is limited.

    Raises:
        ValueError: whatever the network, the loss, the sampler, the optimiser or its schedule has to say.
    """
    if module.optimizer is not None:
        optimizer = module.optimizer(module.parameters())
        if module.lr_scheduler is not None:
            module.lr_scheduler(optimizer, 1000 if has_end else math.inf)
    # Without dropout, and without memory: `ddpm.process.timestep_sampling.Importance` learns from losses of the training alone.
    with torch.no_grad(), evaluating(module):
        module.loss({name: None if value is None else value[:2] for name, value in batch.items()})
        end = module.diffusion.alpha_bar[-1]
        if end == 0 and module.diffusion.weighting(end) == 0:
            log.warning(
                "the schedule ends without signal, and this weighting gives that step, from which sampling starts, no weight: "
                "the network is never trained on it; weighting=velocity does"
            )
    cost(module.sampler, module.diffusion.alpha_bar)


def make_loggers(nodes: Mapping[str, Mapping[str, Any]], resumed_step: int | None) -> list[Logger]:
    """The loggers of the configuration; TensorBoard forgets what a resumed run will log again."""
    loggers = []
    for name, node in nodes.items():
        purge = resumed_step is not None and node["_target_"].endswith(".TensorBoardLogger")
        try:
            loggers.append(construct({**node, "purge_step": resumed_step} if purge else node, f"logger.{name}"))
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"logger.{name}: {error}; install it with pip, or choose logger=tensorboard, csv or none"
            ) from error
    return loggers


def log_configuration(loggers: Iterable[Logger], saved: Mapping[str, Any]) -> None:
    """Note in every logger what a new run saves of its configuration."""
    # The table of a sweep compares what differs between runs; a skeleton would be 40 columns of it.
    shown = {key: value for key, value in flat(saved).items() if "skeleton." not in key}
    for logger in loggers:
        logger.log_hyperparams(shown)
        if (
            isinstance(logger, TensorBoardLogger) and is_first_process()
        ):  # its table has a column for what is named here, filled from what is logged
            for summary in hparams(shown, {"val/loss": 0}):
                logger.experiment._get_file_writer().add_summary(summary)


def refuse_too_small(folder: Path, module: MotionDiffusion, callbacks: Iterable[Any]) -> None:
    """Find out whether the checkpoints of a run will find room in ``folder``, beside those that are there.

    Raises:
        WriteError: they will not, see `ddpm.files.refuse_unwritable`.
    """
    weights = sum(value.numel() * value.element_size() for value in module.state_dict().values())
    files = sum(max(callback.save_top_k, 1) if isinstance(callback, ModelCheckpoint) else 2 for callback in callbacks)
    # The average, the raw weights and two values of an Adam a weight; a new file is complete before an old one goes.
    refuse_unwritable(folder, 4 * weights + 2**20, max(files - len(list(folder.glob("*.ckpt"))), 0) + 1)


def count_steps_in_epochs(trainer: pl.Trainer) -> None:
    """Let a run with ``max_steps`` or ``max_time`` resume as one without.

    Lightning would take every start with ``max_steps`` for one within an epoch, and end an epoch that is complete a second time.
    It would validate where ``max_time`` ends a run within an epoch, and the resumed run again at the end of the epoch.
    """
    trainer.fit_loop._iteration_based_training = lambda: False  # pyright: ignore[reportAttributeAccessIssue]
    loop = trainer.fit_loop.epoch_loop
    is_due = loop._should_check_val_fx

    def is_due_anyway(fetcher: Any) -> bool:
        stops, trainer.should_stop = trainer.should_stop, False
        try:
            return is_due(fetcher)
        finally:
            trainer.should_stop = stops

    loop._should_check_val_fx = is_due_anyway


def description(module: MotionDiffusion) -> str:
    """What is trained, in a line."""
    millions = sum(p.numel() for p in module.parameters() if p.requires_grad) / 1e6
    network, n_steps = type(module.diffusion.eps_model).__name__, module.diffusion.n_steps
    return f"{network} with {millions:.2f} M parameters, T={n_steps}, clips of {module.frames} frames"


def refuse_processes(devices: Any, strategy: str) -> None:
    """Check that a job of a sweep starts no processes that would sweep too.

    Raises:
        ConfigError: it does.
    """
    if devices != 1 and "spawn" not in strategy:
        raise ConfigError(
            f"trainer.devices={devices} under --multirun: every process would run the whole sweep again. Use "
            "trainer.devices=1, trainer.strategy=ddp_spawn, or a launcher that starts a job a process (hydra/launcher=joblib)"
        )


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
