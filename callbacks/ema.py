"""EMA: exponential moving average of the weights."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA(WeightAveraging):
    """Averages the weights after every optimiser step; validation, samples and checkpoints use the average.

    A checkpoint holds the average as ``state_dict`` and the raw weights as ``current_model_state``. Lightning's
    EMAWeightAveraging has no warm-up, and saves the two exchanged if a run is stopped during validation.

    Args:
        decay: weight of the past, in [0, 1); (1 + n) / (10 + n) at update n while that is less.

    Raises:
        ValueError: decay outside [0, 1).
    """

    def __init__(self, decay: float = 0.998) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"callbacks.ema.decay={decay} must be in [0, 1)")
        super().__init__(use_buffers=False)
        self.decay = decay
        self._swapped = False
        self._tensors: tuple[list[torch.Tensor], ...] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Create the average on the device of training."""
        self._device, self._tensors = trainer.strategy.root_device, None
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            self._average_model.n_averaged = self._average_model.n_averaged.cpu()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """As WeightAveraging, with the counter on the CPU: reading it on a GPU would wait for the device at every step."""
        if trainer.global_step <= self._latest_update_step or self._average_model is None:
            return
        n = int(self._average_model.n_averaged)
        if self._tensors is None:  # once: the way through all modules takes as long as the average
            modules = self._average_model.module, pl_module
            parameters = ([parameter.detach() for parameter in module.parameters()] for module in modules)
            self._tensors = (*parameters, *(list(module.buffers()) for module in modules))
        averaged, current, own_buffers, buffers = self._tensors
        with torch.no_grad():
            if n == 0:
                for own, now in zip(averaged, current, strict=True):
                    own.copy_(now)
            else:
                get_ema_multi_avg_fn(min(self.decay, (1 + n) / (10 + n)))(averaged, current, n)
            for own, buffer in zip(own_buffers, buffers, strict=True):
                own.copy_(buffer)  # not averaged, but as they are now
        self._average_model.n_averaged += 1
        self._latest_update_step = trainer.global_step

    def _swap_models(self, pl_module: pl.LightningModule) -> None:
        super()._swap_models(pl_module)
        self._swapped = not self._swapped

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Restore the raw weights, for the checkpoint that is saved next."""
        if self._swapped:
            self._swap_models(pl_module)

    @contextlib.contextmanager
    def averaged(self, pl_module: pl.LightningModule) -> Iterator[None]:
        """Within this context the module has the averaged weights."""
        if self._average_model is None or self._swapped:
            yield
            return
        self._swap_models(pl_module)
        try:
            yield
        finally:
            self._swap_models(pl_module)
