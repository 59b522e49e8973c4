"""LastCheckpoint: the current state of training in one file."""

import contextlib
import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from ddpm.files import keeping

log = logging.getLogger(__name__)


class LastCheckpoint(Checkpoint):
    """Saves ``last.ckpt`` every ``every_n_steps`` optimiser steps, after every epoch's validation, and on an exception, unless
    training has diverged. The one before stays as ``previous.ckpt``.

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

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after the interval, or where the run ends within an epoch."""
        due = trainer.global_step % self.every_n_steps == 0 or trainer.global_step == trainer.max_steps or trainer.should_stop
        if due and trainer.global_step != self._saved_step:
            self._save_within_epoch(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save at the end of an epoch that was not cut short; at the end of training the average replaces the raw weights."""
        if not _batches_are_left(trainer):
            self._save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save the progress before the exception, if there is any that is worth it."""
        diverged = isinstance(exception, FloatingPointError)
        if trainer.training and trainer.global_step > self._saved_step and not diverged:
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
            first = trainer.is_global_zero
            with keeping(self.path, self.path.with_name("previous.ckpt")) if first else contextlib.nullcontext():
                trainer.save_checkpoint(self.path)
            self._saved_step = trainer.global_step


def _batches_are_left(trainer: pl.Trainer) -> bool:
    return trainer.fit_loop.epoch_loop.batch_progress.current.processed < trainer.num_training_batches  # pyright: ignore[reportAttributeAccessIssue]
