"""LastCheckpoint: the current state of training in one file."""

import contextlib
import logging
import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint

from ddpm.checkpoint import is_whole
from ddpm.files import keeping

log = logging.getLogger(__name__)


class LastCheckpoint(Checkpoint):
    """Saves ``last.ckpt`` every ``every_n_steps`` optimiser steps, after every epoch's validation, and on an exception, unless
    training has diverged. The one before stays as ``previous.ckpt``, or takes its place again if the gradient of the last one is
    not finite.

    Lightning's ModelCheckpoint writes its ``last.ckpt`` only when the monitored metric improves, misses the end of a run whose
    length is no multiple of its interval, and on an exception saves between epochs, which does not resume exactly.

    Raises:
        ValueError: every_n_steps below 1.
    """

    def __init__(self, dirpath: str, every_n_steps: int = 500) -> None:
        if every_n_steps < 1:
            raise ValueError(f"callbacks.last.every_n_steps={every_n_steps} must be at least 1")
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_steps = every_n_steps
        self._saved_step = 0
        self._has_saved = False
        self._stops = False

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let every ModelCheckpoint find its files in its own directory, wherever the run was when they were written.

        Lightning would forget the best score of a run that was moved, and overwrite the best model with the next one.
        """
        for callback in trainer.checkpoint_callbacks:
            state = checkpoint.get("callbacks", {}).get(callback.state_key)
            if isinstance(callback, ModelCheckpoint) and isinstance(state, dict) and callback.dirpath is not None:
                _bring_home(state, Path(callback.dirpath))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """On resume: no progress yet that is worth a file, and torch's schedule is of the length it was begun with."""
        self._saved_step = trainer.global_step
        for config in trainer.lr_scheduler_configs:
            length, total = getattr(config.scheduler, "T_max", None), trainer.estimated_stepping_batches
            if length not in (None, total):
                log.warning(
                    "learning rate: %s keeps its T_max=%s, the run now has %s steps; warmup_cosine would be stretched",
                    type(config.scheduler).__name__, length, total,
                )  # fmt: skip

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after the interval, or where the run ends within an epoch, which waits for the batches of a step."""
        stops, whole = self._stops or trainer.should_stop, _is_between_steps(trainer)
        trainer.should_stop, self._stops = stops and whole, stops and not whole
        due = trainer.global_step % self.every_n_steps == 0 or trainer.global_step == trainer.max_steps or trainer.should_stop
        if due and trainer.global_step != self._saved_step:
            self._save_within_epoch(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save at the end of an epoch that was not cut short; at the end of training the average replaces the raw weights."""
        if not _batches_are_left(trainer):
            self._save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save the progress before the exception, if there is any that is worth it."""
        diverged, previous = isinstance(exception, FloatingPointError), self.path.with_name("previous.ckpt")
        if diverged and trainer.global_step == self._saved_step and trainer.is_global_zero and previous.exists():
            with keeping(self.path, previous):  # last.ckpt has diverged: exchange the two
                os.replace(previous, self.path)
        if trainer.training and trainer.global_step > self._saved_step and not diverged and _is_between_steps(trainer):
            batches = trainer.fit_loop.epoch_loop.batch_progress
            for tracker in (batches.total, batches.current):  # Lightning would log all that follows a step too late
                tracker.ready = tracker.started = tracker.processed  # pyright: ignore[reportAttributeAccessIssue]
            try:
                self._save_within_epoch(trainer)
            except (RuntimeError, OSError) as error:  # do not hide the exception under way
                log.error("%s", error)

    def _save_within_epoch(self, trainer: pl.Trainer) -> None:
        # A checkpoint between the last batch and the end of the epoch would resume after the validation, without its result.
        # The one before is better: repeating its steps gives the same bits.
        if _batches_are_left(trainer):
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        if not trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue]
            # What is damaged does not take the place of the one before, from which this run was resumed.
            keeps = trainer.is_global_zero and (self._has_saved or is_whole(self.path))
            with keeping(self.path, self.path.with_name("previous.ckpt")) if keeps else contextlib.nullcontext():
                trainer.save_checkpoint(self.path)
            self._saved_step, self._has_saved = trainer.global_step, True


def _batches_are_left(trainer: pl.Trainer) -> bool:
    return trainer.fit_loop.epoch_loop.batch_progress.current.processed < trainer.num_training_batches  # pyright: ignore[reportAttributeAccessIssue]


def _is_between_steps(trainer: pl.Trainer) -> bool:
    """Whether all batches of this epoch are in the weights: none half, none in gradients that no checkpoint holds."""
    loop = trainer.fit_loop.epoch_loop
    steps = loop.automatic_optimization.optim_progress.optimizer.step.current
    processed: int = loop.batch_progress.current.processed  # pyright: ignore[reportAttributeAccessIssue]
    complete, rest = divmod(processed, trainer.accumulate_grad_batches)
    return steps.ready == steps.completed == complete + (rest > 0) and (rest == 0 or not _batches_are_left(trainer))


def _bring_home(state: dict[str, Any], folder: Path) -> None:
    """Let the state of a ModelCheckpoint name the files of ``folder`` alone, and of its best models those that are there."""

    def here(path: Any) -> str:
        return str(folder / Path(str(path)).name) if path else ""

    models = {here(path): score for path, score in state["best_k_models"].items()}
    state["best_k_models"] = {path: score for path, score in models.items() if Path(path).is_file()}
    state["dirpath"] = str(folder)
    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[key] = here(state[key])
