"""NoisePlot: at which noise levels the model errs, as a picture."""

import logging
from collections.abc import Mapping
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from callbacks.plots import plot_noise_levels

log = logging.getLogger(__name__)


class NoisePlot(Callback):
    """Writes ``noise_levels.png`` in the run's directory at the end: the loss and the error of x0_hat in cm by noise level."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw what the last validation logged."""
        loss, centimetres = (by_level(trainer.callback_metrics, prefix) for prefix in ("val/loss_t/", "val/x0_cm/"))
        if not trainer.is_global_zero or trainer.fast_dev_run or not loss:
            return
        path = Path(trainer.default_root_dir) / "noise_levels.png"
        try:
            figure = plot_noise_levels(path, loss, centimetres)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_figure("noise_levels", figure, trainer.global_step)
        except Exception:  # whatever it is, hours of training are worth more than a picture
            log.warning("%s: could not be drawn; training goes on", path, exc_info=True)


def by_level(metrics: Mapping[str, Tensor], prefix: str) -> dict[float, float]:
    """Middle of a part of the steps, as a fraction of T -> value, of the metrics with this prefix."""
    found = {float(name.removeprefix(prefix)): float(value) for name, value in metrics.items() if name.startswith(prefix)}
    return dict(sorted(found.items()))
