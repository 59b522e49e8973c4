"""LossPlot: the loss curve as a table and a picture."""

import csv
import io
import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from callbacks.plots import plot_losses

log = logging.getLogger(__name__)

COLUMNS = ("epoch", "step", "train_loss", "val_loss", "lr")


class LossPlot(Callback):
    """Writes ``loss.csv`` after every epoch, and ``loss.png`` every few epochs and at the end, in the run's directory.

    train_loss is the mean over the epoch's batches. The table is part of the checkpoint: a resumed run continues it exactly.

    Args:
        every: epochs between two pictures.

    Raises:
        ValueError: every below 1.
    """

    def __init__(self, every: int = 5) -> None:
        if every < 1:
            raise ValueError(f"callbacks.loss_plot.every={every} must be at least 1")
        self.every = every
        self._rows: list[list[float]] = []
        self._sum: Tensor | float = 0.0
        self._count = 0
        self._validated = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that this epoch has a val_loss."""
        self._validated = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add up on the device: reading the number here would make the processor wait for it."""
        # Lightning has divided it by the number of batches that make a step.
        self._sum = self._sum + outputs["loss"].detach() * trainer.accumulate_grad_batches
        self._count += 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Complete the epoch's row."""
        if self._count == 0:
            return
        # The metric stays what it was in epochs without validation, which have none of their own.
        val = trainer.callback_metrics["val/loss"] if self._validated else torch.nan
        self._validated = False
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        epoch = trainer.current_epoch + 1
        self._rows.append([epoch, trainer.global_step, float(self._sum) / self._count, float(val), float(lr)])
        self._sum, self._count = 0.0, 0
        self._write(trainer, picture=epoch % self.every == 0)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the whole curve."""
        self._write(trainer, picture=True)

    def state_dict(self) -> dict[str, Any]:
        """Rows and the sum of the epoch under way."""
        return {"rows": [list(row) for row in self._rows], "sum": float(self._sum), "count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The counterpart of `state_dict`."""
        self._rows = [list(row) for row in state_dict["rows"]]
        self._sum, self._count = state_dict["sum"], state_dict["count"]

    def _write(self, trainer: pl.Trainer, picture: bool) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run or not self._rows:
            return
        folder = Path(trainer.default_root_dir)
        try:
            table = io.StringIO()
            csv.writer(table, lineterminator="\n").writerows([COLUMNS, *([int(r[0]), int(r[1]), *r[2:]] for r in self._rows)])
            (folder / "loss.csv").write_text(table.getvalue())
            if picture:
                _, steps, train, val, _ = zip(*self._rows, strict=True)
                figure = plot_losses(folder / "loss.png", {"training": (steps, train), "validation": (steps, val)})
                for logger in trainer.loggers:
                    if isinstance(logger, TensorBoardLogger):
                        logger.experiment.add_figure("loss", figure, trainer.global_step)
        except Exception:  # whatever it is, hours of training are worth more than a picture
            log.warning("%s: the loss curve could not be written; training goes on", folder, exc_info=True)
