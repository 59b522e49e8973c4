"""MotionDiffusion: the LightningModule that trains a MotionModel."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ddpm.build import build_model
from ddpm.checkpoint import load_run
from ddpm.config import construct_part
from ddpm.model import Batch, MotionModel, evaluating
from ddpm.motion_losses import MotionLoss
from ddpm.normalizer import Normalizer
from ddpm.process.condition import LabelCondition, VectorCondition
from ddpm.process.diffusion import ClipLosses, DenoiseDiffusion
from ddpm.process.noise_levels import NoiseLevels, centimetres
from ddpm.process.samplers import Sampler
from ddpm.seeding import derive_seed
from ddpm.skeleton import Skeleton

CHECK_EVERY = 50
"""Steps between two checks of the gradient on a GPU, each of which makes the processor wait for the device."""

NOISE_BINS = 10
"""Parts of the diffusion steps in which validation is reported."""


class MotionDiffusion(MotionModel, pl.LightningModule):
    """Trains a `ddpm.model.MotionModel`.

    Training: training_step -> loss -> normalizer -> diffusion.clip_losses.

    Logs ``train/loss``, ``train/grad_norm`` and ``val/loss``; and for ten parts of the diffusion steps, named by their middle as
    a fraction of T, ``val/loss_t/0.050`` and ``val/x0_cm/0.050``: the loss without ``motion_loss``, and the mean distance in
    centimetres of a joint of x0_hat from the real one.

    Args:
        motion_loss: added to the loss.
        optimizer: parameters -> optimiser; None for a module that is not trained.
        lr_scheduler: (optimiser, total steps, inf if none are set) -> scheduler stepped after every step; None for none.
        seed: of t, noise and dropout in training.

    The others are as in `ddpm.model.MotionModel`.
    """

    def __init__(
        self,
        diffusion: DenoiseDiffusion,
        normalizer: Normalizer,
        skeleton: Skeleton,
        fps: float,
        frames: int,
        sampler: Sampler,
        motion_loss: MotionLoss | None = None,
        condition: LabelCondition | VectorCondition | None = None,
        project: str | None = None,
        class_names: Sequence[str] = (),
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
        lr_scheduler: Callable[[Optimizer, float], LRScheduler] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(diffusion, normalizer, skeleton, fps, frames, sampler, condition, project, class_names)
        self.motion_loss = motion_loss
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.seed = seed
        self.noise_levels: NoiseLevels | None = None
        self._watched = True  # whether every loss is logged

    def on_fit_start(self) -> None:
        """Raise a RuntimeError if normaliser or prediction was not fitted."""
        for name, fitted in (("normalizer", self.normalizer.fitted), ("prediction", self.diffusion.prediction.fitted)):
            if not fitted:
                raise RuntimeError(f"the {name} is not fitted: call module.fit(batch), or load a checkpoint, first")

    def on_train_start(self) -> None:
        """Find out whether a callback may read every loss: one from outside the project, or one that monitors it."""
        callbacks: list[pl.Callback] = self.trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        own = ("callbacks.", "pytorch_lightning.")
        self._watched = any(
            not type(callback).__module__.startswith(own) or str(getattr(callback, "monitor", None)).startswith("train/")
            for callback in callbacks
        )

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed t, noise and dropout by the number of the batch, so that a resumed run draws what the uninterrupted one does."""
        seed = derive_seed(self.seed, "step", self.batches_done, self.global_rank)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed notes its caller for every kind of device: 0.8 ms
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    @property
    def batches_done(self) -> int:
        """Training batches processed since the run began, also across interruptions."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # pyright: ignore[reportAttributeAccessIssue]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Algorithm 1 on one batch."""
        loss = self.loss(batch)
        self._log_step("train/loss", loss.detach(), prog_bar=True, sync_dist=True)
        return loss

    def _log_step(self, name: str, value: Tensor, prog_bar: bool = False, sync_dist: bool = False) -> None:
        """Log at steps that a logger or the progress bar shows, and at the last ones; at every step if a callback may read it."""
        if (trainer := self._trainer) is None:
            return
        done = trainer.fit_loop.epoch_loop.batch_idx + 1
        ends = trainer.is_last_batch or trainer.global_step + 1 == trainer.max_steps
        rate = getattr(trainer.progress_bar_callback, "refresh_rate", 0)
        # Private: nothing public says whether Lightning will log at this step, which depends on accumulation and on a stop.
        shown = trainer._logger_connector.should_update_logs or (rate > 0 and done % rate == 0)
        if ends or shown or self._watched:
            self.log(name, value, prog_bar=prog_bar, sync_dist=sync_dist)

    def loss(self, batch: Batch, eps: Tensor | None = None, t: Tensor | None = None) -> Tensor:
        """The loss of a batch: that of the diffusion of its normalised clips, and that of the motion in metres.

        The noise ``eps`` and the diffusion steps ``t`` are drawn if None.
        """
        return self._losses(batch, eps, t)[1]

    def _losses(self, batch: Batch, eps: Tensor | None, t: Tensor | None) -> tuple[ClipLosses, Tensor]:
        """The losses of the diffusion clip by clip, and the loss of the batch."""
        clips, mask = batch["clips"], batch["mask"]
        cond = None
        if self.condition is not None:
            said = batch[self.condition.key]
            cond = self.condition.encode(self.condition.hide(said) if self.training else said)
        losses = self.diffusion.clip_losses(self.normalizer(clips), eps, t=t, cond=cond, mask=mask)
        if self.motion_loss is None:
            return losses, losses.mean
        return losses, losses.mean + self.motion_loss(self.normalizer.inverse(losses.x0_hat), clips, losses.weight, mask)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The same loss with t and eps fixed by the number of the batch, t spread evenly over all steps."""
        t, losses, loss = self.validate_batch(batch, batch_idx)
        clips = batch["clips"]
        self.log("val/loss", loss, prog_bar=True, on_epoch=True, batch_size=len(clips), sync_dist=True)
        if self.noise_levels is not None:
            self.noise_levels.add(t, losses, self.normalizer.inverse(losses.x0_hat), clips, batch["mask"])
        return loss

    def validate_batch(self, batch: Batch, batch_idx: int, t: Tensor | None = None) -> tuple[Tensor, ClipLosses, Tensor]:
        """The diffusion steps of `validation_step`, or ``t`` instead; the losses clip by clip, and the loss of the batch."""
        clips = batch["clips"]
        generator = torch.Generator().manual_seed(derive_seed("validation", batch_idx, self.global_rank))
        place = (torch.randperm(len(clips), generator=generator) + 0.5) / len(clips)
        t = (place * self.diffusion.n_steps).long().to(clips.device) if t is None else t
        return (t, *self._losses(batch, torch.randn(clips.shape, generator=generator).to(clips), t))

    @torch.no_grad()
    def errors_by_level(self, batches: Iterable[Batch]) -> tuple[list[float], Tensor]:
        """Every clip of a validation at the middle of each of ten parts of the diffusion steps.

        Returns:
            t / T, and ``(2, levels, clips)``: the error of x0_hat in centimetres a joint, and the loss, on the CPU.
        """
        n_steps, found = self.diffusion.n_steps, []
        levels = sorted({int((k + 0.5) * n_steps / NOISE_BINS) for k in range(NOISE_BINS)})
        with evaluating(self):
            for k, batch in enumerate(batches):
                batch = {key: value.to(self.device) if isinstance(value, Tensor) else value for key, value in batch.items()}
                clips, rows = batch["clips"], []
                for level in levels:
                    _, losses, _ = self.validate_batch(batch, k, torch.full((len(clips),), level, device=self.device))
                    error = centimetres(self.normalizer.inverse(losses.x0_hat), clips, batch["mask"])
                    rows.append(torch.stack([error, losses.total / losses.count]))
                found.append(torch.stack(rows, dim=1).cpu())
        return [(level + 0.5) / n_steps for level in levels], torch.cat(found, dim=2)

    def on_validation_epoch_start(self) -> None:
        """Begin to add up by noise level."""
        self.noise_levels = NoiseLevels(self.diffusion.n_steps, NOISE_BINS, self.device)

    def on_validation_epoch_end(self) -> None:
        """Log loss and error by noise level."""
        if self.noise_levels is not None:
            sums = self.trainer.strategy.reduce(self.noise_levels.sums, reduce_op="sum")
            for part, (loss, centimetres) in self.noise_levels.means(sums).items():  # pyright: ignore[reportArgumentType]
                self.log_dict({f"val/loss_t/{part}": loss, f"val/x0_cm/{part}": centimetres}, sync_dist=True)

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: int | float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the norm of the gradient and log it; a FloatingPointError if it is not finite, before it spoils the weights."""
        if gradient_clip_algorithm not in (None, "norm"):
            raise ValueError(f"trainer.gradient_clip_algorithm={gradient_clip_algorithm!r} must be null or 'norm'")
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, gradient_clip_val or math.inf)
        self._log_step("train/grad_norm", norm)
        # The loss scale of float16 makes the gradient infinite now and then, on purpose, and skips the step itself.
        look = norm.device.type == "cpu" or self.global_step % CHECK_EVERY == 0
        if look and self.trainer.precision != "16-mixed" and not torch.isfinite(norm):
            lr = optimizer.param_groups[0]["lr"]
            raise FloatingPointError(
                f"the gradient is {norm.item()} at step {self.global_step} (learning rate {lr:.3g}): training has diverged. "
                "Lower optimizer.lr, keep trainer.gradient_clip_val, or look for outliers in the data. Nothing "
                "more is saved; last.ckpt is from before."
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser, and the learning rate's schedule over the whole run; a RuntimeError without an optimiser."""
        if self.optimizer is None:
            raise RuntimeError("this module was built for sampling: it has no optimiser")
        optimizer = self.optimizer(self.parameters())
        if self.lr_scheduler is None:
            return optimizer
        scheduler = self.lr_scheduler(optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what sampling needs from the data, beside weights and configuration."""
        checkpoint["motion"] = {
            "fps": self.fps,
            "class_names": list(self.class_names),
            "label_counts": [] if self.condition is None else list(self.condition.counts),
        }
        if isinstance(condition := self.condition, VectorCondition):
            checkpoint["motion"]["vectors"] = {"mean": condition.mean, "std": condition.std, "bank": condition.bank}

    @classmethod
    def load_from_checkpoint(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, checkpoint_path: str | Path, map_location: torch.device | str | None = None, trust: Sequence[str] = ()
    ) -> "MotionDiffusion":
        """The trained module of a checkpoint, ready to sample; nothing in the file can run code.

        ``checkpoint_path`` is the file, or the directory of a run, for its last checkpoint; ``map_location`` the device, None for
        the CPU; ``trust`` packages of your own that the checkpoint may use. Raises CheckpointError and ConfigError, see
        `ddpm.checkpoint.load_run`.
        """
        module, config = load_run(checkpoint_path, trust, build_module)
        module.save_hyperparameters(config, logger=False)
        return module.to(map_location or "cpu")


def build_module(
    config: Mapping[str, Any],
    fps: float,
    class_names: Sequence[str] = (),
    label_counts: Sequence[int] = (),
    vectors: Mapping[str, Tensor] | None = None,
    trainable: bool = False,
    trust: Sequence[str] | None = None,
    device: str | None = None,
    numbers: float = math.inf,
) -> MotionDiffusion:
    """The untrained module that a configuration describes; ``trainable`` with optimiser and learning rate schedule, which
    sampling does not need. For the rest see `ddpm.build.build_model`.
    """

    def part(name: str) -> Any:
        return construct_part(config[name], name, trust)

    motion_loss = part("motion_loss") if config["motion_loss"] else None
    make = functools.partial(
        MotionDiffusion,
        motion_loss=None if motion_loss is None else motion_loss(part("skeleton"), fps),
        optimizer=part("optimizer") if trainable else None,
        lr_scheduler=part("lr_scheduler") if trainable and config["lr_scheduler"] else None,
        seed=config["seed"],
    )
    return build_model(config, fps, class_names, label_counts, vectors, trust, device, numbers, make)
