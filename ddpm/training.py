"""What comes before a training: the module fitted and tried once, loggers made, libraries quietened."""

import logging
import os
import shutil
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

from ddpm.build import build_module
from ddpm.config import construct
from ddpm.errors import ConfigError
from ddpm.fine_tuning import Origin
from ddpm.module import MotionDiffusion, evaluating
from ddpm.process.condition import several, vector_statistics
from ddpm.resuming import flat
from ddpm.runs import is_first_process

log = logging.getLogger(__name__)


def fitted_module(config: Mapping[str, Any], data: Any, origin: Origin | None) -> MotionDiffusion:
    """The module that is to be trained, tried on a batch so that what cannot work says so before anything is written.

    Args:
        config: checked.
        data: the ``datamodules.pose.PoseDataModule``; what depends on its training clips is measured on them.
        origin: the trained model that the module begins with, and all of it, None for none.

    Raises:
        ConfigError, ValueError: whatever configuration, network or loss has to say.
    """
    vectors = None if (found := data.vectors()) is None else vector_statistics(found)
    vectors = vectors if origin is None else origin.vectors(vectors)
    counts = data.label_counts()
    counts = counts if several(counts) or (origin is not None and origin.conditional) else ()
    module = build_module(config, data.clips.fps, data.clips.class_names, counts, vectors, trainable=True)
    batch = data.statistics_batch()
    if origin is None:
        module.fit(batch)
    else:
        origin.copy_to(module)
    rehearse(module, batch)
    return module


def rehearse(module: MotionDiffusion, batch: Mapping[str, Any]) -> None:
    """One loss of real clips, so that what cannot work says so before anything is trained or written.

    Args:
        module: to be trained.
        batch: clips in metres and their mask.

    Raises:
        ValueError: whatever the network or the loss has to say.
    """
    # Without dropout, and without memory: `ddpm.process.timestep_sampling.Importance` learns from losses of the training alone.
    with torch.no_grad(), evaluating(module):
        module.loss({name: None if value is None else value[:2] for name, value in batch.items()})
        end = module.diffusion.alpha_bar[-1]
        if end == 0 and module.diffusion.weighting(end) == 0:
            log.warning(
                "the schedule ends without signal, and this weighting gives that step, from which sampling starts, no weight: "
                "the network is never trained on it; weighting=velocity does"
            )


def compile_network(module: MotionDiffusion, device: torch.device) -> None:
    """Let torch.compile make one program of the network at its first call; its weights keep their names.

    Raises:
        ConfigError: there is no compiler for this device.
    """
    found = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "cl"]
    if device.type == "cpu" and not any(map(shutil.which, found)):
        raise ConfigError(f"compile=true needs a C++ compiler, and there is no {', '.join(found)}: install one, or leave it away")
    module.diffusion.eps_model.compile()


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
