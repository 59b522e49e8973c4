"""LossPlot: the loss as table and pictures, over the run and by noise level."""

import csv
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, WeightAveraging
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from callbacks.samples import averaged
from ddpm.files import write_durably
from ddpm.module import MotionDiffusion
from ddpm.viz.plots import plot_losses, plot_noise_levels

log = logging.getLogger(__name__)

COLUMNS = ("epoch", "step", "train_loss", "val_loss", "lr")


class LossPlot(Callback):
    """Writes ``loss.csv`` after every epoch, and ``loss.png`` every ``every`` epochs and at any end, in the run's directory.

    At the end also ``noise_levels.png``, loss and error of x0_hat in cm of every validation clip at ten noise levels. train_loss
    is the mean over the epoch's batches. The table is part of the checkpoint, so that a resumed run continues it exactly;
    Lightning's CSVLogger has a row per logging step and starts its file anew.

    Raises:
        ValueError: every below 1.
    """

    def __init__(self, every: int = 7) -> None:
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
        """Add up on the device: reading the number here would wait for it."""
        # Lightning has divided the loss by accumulate_grad_batches.
        self._sum = self._sum + outputs["loss"].detach() * trainer.accumulate_grad_batches
        self._count += 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Complete the epoch's row."""
        if self._count == 0:
            return
        # In epochs without validation the metric is still that of an earlier epoch.
        val = trainer.callback_metrics["val/loss"] if self._validated else torch.nan
        self._validated = False
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        epoch = trainer.current_epoch + 1
        self._rows.append([epoch, trainer.global_step, float(self._sum) / self._count, float(val), float(lr)])
        self._sum, self._count = 0.0, 0
        self._write(trainer, picture=epoch % self.every == 0)

    def on_train_end(self, trainer: pl.Trainer, pl_module: MotionDiffusion) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Draw the whole curve, and the noise levels if there was a validation."""
        self._write(trainer, picture=True)
        batches = trainer.val_dataloaders
        if not trainer.is_global_zero or trainer.fast_dev_run or batches is None:  # pyright: ignore[reportAttributeAccessIssue]
            return

        def draw() -> Any:
            with averaged(trainer, pl_module):
                levels, errors = pl_module.errors_by_level(batches)
            text = f"{errors.shape[2]} validation clips, each at {len(levels)} noise levels"
            return plot_noise_levels(Path(trainer.default_root_dir, "noise_levels.png"), levels, errors.numpy(), text)

        self._draw(trainer, "val/noise_levels", draw)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Draw the curve of a run that is stopped."""
        self._write(trainer, picture=True)

    def state_dict(self) -> dict[str, Any]:
        """Rows and the sum of the epoch under way."""
        return {"rows": list(self._rows), "sum": float(self._sum), "count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The counterpart of `state_dict`."""
        self._rows = list(state_dict["rows"])
        self._sum, self._count = state_dict["sum"], state_dict["count"]

    def _write(self, trainer: pl.Trainer, picture: bool) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run or not self._rows:  # pyright: ignore[reportAttributeAccessIssue]
            return
        folder = Path(trainer.default_root_dir)

        def draw() -> Any:
            table = io.StringIO()
            csv.writer(table, lineterminator="\n").writerows([COLUMNS, *([int(r[0]), int(r[1]), *r[2:]] for r in self._rows)])
            write_durably(folder / "loss.csv", table.getvalue().encode())
            if not picture:
                return None
            _, steps, train, val, _ = zip(*self._rows, strict=True)
            has_average = any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)  # pyright: ignore[reportAttributeAccessIssue]
            names = ("training: weights of the moment", f"validation: {'averaged' if has_average else 'the same'} weights")
            nodes = trainer.lightning_module.hparams
            what = [f"{key}={nodes[key]['_target_'].rpartition('.')[2]}" for key in ("prediction", "weighting") if key in nodes]
            curves = {name: (steps, losses) for name, losses in zip(names, (train, val), strict=True)}
            return plot_losses(folder / "loss.png", curves, ylabel=", ".join(["loss", *what]))

        self._draw(trainer, "train/loss_curve", draw)

    def _draw(self, trainer: pl.Trainer, name: str, draw: Callable[[], Any]) -> None:
        try:
            figure = draw()
            for logger in trainer.loggers if figure is not None else ():
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_figure(name, figure, trainer.global_step)
                elif isinstance(logger, WandbLogger):
                    logger.log_image(name, [figure], step=trainer.global_step)
        except Exception:  # a picture must never end training
            log.warning("%s: %s could not be drawn; training goes on", trainer.default_root_dir, name, exc_info=True)
