"""A training and what comes before it: the module fitted and tried once, loggers made, libraries quietened."""

import functools
import importlib.util
import logging
import os
import shutil
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ProgressBar, Timer
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

from ddpm.checkpoint import checkpoint_of, read_checkpoint
from ddpm.checkpoint_io import DurableCheckpointIO
from ddpm.config import blaming, construct
from ddpm.errors import CheckpointError, ConfigError, typed
from ddpm.fine_tuning import Origin
from ddpm.model import evaluating
from ddpm.module import MotionDiffusion, build_module
from ddpm.process.condition import several, vector_statistics
from ddpm.record import record_end
from ddpm.resuming import OWN, flat, override_key
from ddpm.runs import is_first_process, products

log = logging.getLogger(__name__)

END_METRICS = (
    *("metrics/frechet_pose", "metrics/frechet_spectrum", "metrics/spread_ratio", "metrics/recall_pose"),
    *("physics/jerk_ratio", "val/loss"),
)
"""What TensorBoard's table of runs has of their ends; it shows the first five until others are chosen."""

MEASURED_CLIPS = "callbacks.motion_metrics.n"
"""Number of generated clips: without it there are no metrics, and Fréchet distances depend on it."""

CHARTS = {
    "losses": {
        "loss": ["train/loss", "val/loss"],
        "x0_hat, cm by noise level": ["val/x0_cm/.*"],
        "gradient": ["train/grad_norm"],
    },
    "metrics": {
        name: [f"metrics/{name}", f"metrics/real/{name}"]
        for name in ("frechet_pose", "frechet_spectrum", "recall_pose", "precision_pose", "apd", "frechet_kinetic")
    },
    "physics": {
        "of real: jerk, speed": ["physics/jerk_ratio", "physics/speed_ratio"],
        **{name: [f"physics/{name}", f"physics/real/{name}"] for name in ("bone_variation", "freeze")},
    },
}
"""TensorBoard's custom scalars: tab -> chart -> tags."""


def fitted_module(config: Mapping[str, Any], data: Any, origin: Origin | None) -> MotionDiffusion:
    """The module to be trained, fitted, and tried on a batch so that errors come before anything is written.

    Args:
        config: checked.
        data: the ``datamodules.pose.PoseDataModule``; what depends on its training clips is measured on them.
        origin: the trained model that the module begins with, and all of it, None for none.

    Raises:
        ConfigError, ValueError: configuration, network or loss do not work.
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
    sanity_check(module, batch)
    return module


def sanity_check(module: MotionDiffusion, batch: Mapping[str, Any]) -> None:
    """Compute one loss of real clips, so that errors come before anything is trained or written.

    Args:
        module: to be trained.
        batch: clips in metres and their mask.

    Raises:
        ValueError: the network or the loss does not work.
    """
    # Without dropout, and without memory: `ddpm.process.timestep_sampling.Importance` learns from losses of the training alone.
    with torch.no_grad(), evaluating(module):
        module.loss({name: None if value is None else value[:2] for name, value in batch.items()})
        end = module.diffusion.alpha_bar[-1]
        if end == 0 and module.diffusion.weighting(end) == 0:
            log.warning(
                "the schedule ends without signal, and this weighting gives that step, from which sampling starts, no weight: "
                "the network is never trained on it; set weighting=velocity"
            )


def compile_network(module: MotionDiffusion, device: torch.device) -> None:
    """Let torch.compile make one program of the network at its first call; its weights keep their names.

    Raises:
        ConfigError: there is no compiler for this device.
    """
    found = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "cl"]
    if device.type == "cpu" and not any(map(shutil.which, found)):
        raise ConfigError(f"compile=true needs a C++ compiler, and there is no {', '.join(found)}: install one, or leave it away")
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ConfigError("compile=true needs triton on a GPU, and it is not there: pip install triton, or leave it away")
    module.diffusion.eps_model.compile()  # pyright: ignore[reportFunctionMemberAccess]


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


def log_configuration(loggers: Iterable[Logger], config: Mapping[str, Any], overrides: Sequence[str] = ()) -> None:
    """Note in every logger the configuration of a new run.

    TensorBoard's table of runs has what was chosen for this one, the seed, the number of clips that are measured, and
    `END_METRICS` as they are at the end. Its custom scalars lay generated clips over real ones, and training over validation.

    Args:
        config: what is noted.
        overrides: the command line.
    """
    # A skeleton would be 40 columns.
    shown = {key: value for key, value in flat(config).items() if "skeleton." not in key}
    always = [key for key in ("seed", MEASURED_CLIPS) if key in shown]
    given = {override_key(override): override.partition("=")[2] for override in overrides if override[0] != "~"}
    chosen = {key: shown.get(key, text) for key, text in {**given, **dict.fromkeys(always)}.items() if key not in OWN}
    for logger in loggers:
        logger.log_hyperparams(chosen if isinstance(logger, TensorBoardLogger) else shown)
        if isinstance(logger, TensorBoardLogger) and is_first_process():
            measured = END_METRICS if MEASURED_CLIPS in shown else END_METRICS[-1:]
            for summary in hparams(chosen, dict.fromkeys(measured, 0)):
                logger.experiment.file_writer.add_summary(summary)
            logger.experiment.add_custom_scalars(
                {tab: {name: ["Multiline", tags] for name, tags in charts.items()} for tab, charts in CHARTS.items()}
            )


def make_trainer(node: Mapping[str, Any], callbacks: list[pl.Callback], loggers: list[Logger], out: Path) -> pl.Trainer:
    """The Trainer of the configuration; a ConfigError names the keys of what it does not take."""
    with blaming("trainer", node):
        trainer: pl.Trainer = construct(node, "trainer")(
            callbacks=callbacks, logger=loggers, plugins=[DurableCheckpointIO(out)], default_root_dir=str(out),
            use_distributed_sampler=False, enable_model_summary=False, num_sanity_val_steps=0,
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        )  # fmt: skip
    _count_steps_in_epochs(trainer)
    return trainer


@runtime_checkable
class Measuring(Protocol):
    """A callback that measures generated motion: run.json gets its results, the last lines of the log its summary."""

    summary: str

    def results(self) -> dict[str, float]:
        """The values by the names they are logged with."""
        ...


def fit(
    trainer: pl.Trainer, module: MotionDiffusion, data: pl.LightningDataModule, resume: Path | None, out: Path
) -> dict[str, float]:
    """Train, and note in the record of the run in ``out`` how it ended, also after an error.

    Returns:
        What was measured last: the losses, and the results of every callback that is `Measuring`.
    """
    began, begun = time.monotonic(), None if resume is None else read_checkpoint(resume).get("global_step")
    callbacks: list[pl.Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    measuring = [callback for callback in callbacks if isinstance(callback, Measuring)]
    try:
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    except (KeyboardInterrupt, SystemExit):  # SIGTERM is one of the latter
        log.info("\nstopped after step %d; continue with %s", trainer.global_step, typed("resume", str(out)))
        raise
    finally:
        results = {name: float(value) for name, value in trainer.callback_metrics.items()}
        for callback in measuring:
            results |= callback.results()
        steps = trainer.global_step or _saved_step(out)  # processes that were spawned took the count with them
        if is_first_process():
            record_end(out, steps, results)
    if trainer.is_global_zero:
        if steps == begun:
            said = "no step was trained: %s is at step %d, and trainer.max_steps, max_epochs or max_time end it there"
            log.warning(said, out, steps)
        log.info("%d steps in %.0f s; everything is in %s", steps, time.monotonic() - began, out)
        for callback in measuring:
            if callback.summary:
                log.info("  %s", callback.summary)
        log.info("%s", products(out))
    return results


def _saved_step(out: Path) -> int:
    """The optimiser step of the last checkpoint of a run, 0 if there is none."""
    try:
        return int(read_checkpoint(checkpoint_of(out))["global_step"])
    except CheckpointError:
        return 0


def _count_steps_in_epochs(trainer: pl.Trainer) -> None:
    """Let a run with ``max_steps`` or ``max_time`` resume as one without.

    Lightning would take every start with ``max_steps`` for one within an epoch, and end an epoch that is complete a second time.
    It would validate where ``max_time`` ends a run within an epoch, and the resumed run again at the end of the epoch. And it
    would count ``max_time`` over all starts, so that a run whose time was up could never go on.
    """
    # No closures: with strategy=ddp_spawn the trainer is pickled.
    trainer.fit_loop._iteration_based_training = _never  # pyright: ignore[reportAttributeAccessIssue]
    trainer.fit_loop.epoch_loop._should_check_val_fx = functools.partial(_is_due_anyway, trainer)

    for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(callback, Timer):
            callback.load_state_dict = _forgotten


def _never() -> bool:
    return False


def _forgotten(state_dict: dict[str, Any]) -> None:
    """In the place of `Timer.load_state_dict`."""


def _is_due_anyway(trainer: pl.Trainer, data_fetcher: Any) -> bool:
    loop = trainer.fit_loop.epoch_loop
    stops, trainer.should_stop = trainer.should_stop, False
    try:
        return type(loop)._should_check_val_fx(loop, data_fetcher)
    finally:
        trainer.should_stop = stops


def description(module: MotionDiffusion) -> str:
    """What is trained, in a line."""
    millions = sum(p.numel() for p in module.parameters() if p.requires_grad) / 1e6
    network, n_steps = type(module.diffusion.eps_model).__name__, module.diffusion.n_steps
    return f"{network} with {millions:.2f} M parameters, T={n_steps}, clips of {module.frames} frames"


def quiet_lightning() -> None:
    """Hide Lightning's advertisements and the advice that does not apply to data in memory."""
    noise = ("litlogger", "Tensor Cores", "`weights_only` was not set", "to estimate number of stepping batches", "TPU available")
    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.trainer.connectors.checkpoint_connector"):
        logging.getLogger(name).addFilter(lambda record: not any(words in record.getMessage() for words in noise))
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")
    warnings.filterwarnings("ignore", message=".*The number of training batches.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
