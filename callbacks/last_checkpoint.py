"""LastCheckpoint: where training stands, always in one file."""

import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

log = logging.getLogger(__name__)


class LastCheckpoint(Checkpoint):
    """Saves ``last.ckpt`` every so many steps, after every epoch (validation included), and on the way out of an exception.

    Lightning's ModelCheckpoint writes its own ``last.ckpt`` only when the monitored metric improves, and does not save the end of
    a run whose length is no multiple of its interval.

    Args:
        dirpath: folder of the checkpoints.
        every_n_steps: optimiser steps between two saves within an epoch.

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
        """Save if the interval has passed, or if the run ends here, within an epoch."""
        due = trainer.global_step % self.every_n_steps == 0 or trainer.global_step == trainer.max_steps or trainer.should_stop
        if due and trainer.global_step != self._saved_step:
            self._save_within_epoch(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save where the epoch ended. The end of training is too late: there the average replaces the raw weights.

        An epoch that was cut short by a limit of steps or time is not over: its checkpoint is the one after its last batch, from
        which a longer run goes on within the epoch.
        """
        if not _batches_are_left(trainer):
            self._save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save what was reached before the exception, if anything was."""
        if trainer.training and trainer.global_step > self._saved_step:
            try:
                self._save_within_epoch(trainer)
            except (RuntimeError, OSError) as error:  # the exception under way is the one to hear about
                log.error("%s", error)

    def _save_within_epoch(self, trainer: pl.Trainer) -> None:
        # A checkpoint from between the last batch and the end of the epoch would be resumed after the validation, without its
        # result. The one before is better: repeating its steps gives the same bits.
        if _batches_are_left(trainer):
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        if not trainer.fast_dev_run:
            trainer.save_checkpoint(self.path)
            self._saved_step = trainer.global_step


def _batches_are_left(trainer: pl.Trainer) -> bool:
    """Whether the epoch has batches that were not trained yet."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.processed < trainer.num_training_batches
