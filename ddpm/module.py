"""MotionDiffusion: the LightningModule between clips in metres and the diffusion of normalised ones."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ddpm.bones import rigid_bones
from ddpm.clips import Clips
from ddpm.motion_losses import MotionLoss
from ddpm.normalizer import Normalizer
from ddpm.process.condition import LabelCondition, guided
from ddpm.process.diffusion import ClipLosses, Denoised, DenoiseDiffusion, gather
from ddpm.process.noise_levels import NoiseLevels
from ddpm.process.progress import choose_device, progress_bar
from ddpm.process.samplers import Observer, Sampler, SeededNoise
from ddpm.seeding import derive_seed, seeds_of
from ddpm.skeleton import Skeleton

CHECK_EVERY = 50

RIGID_SNR = 8.0
"""Signal-to-noise ratio from which on ``project=bones`` acts; where there is more noise, x0_hat is no body yet."""

NOISE_BINS = 10
"""Parts of the diffusion steps in which validation is reported."""

Batch = Mapping[str, Any]
"""See `MotionDiffusion`."""


class MotionDiffusion(pl.LightningModule):
    """Trains a `DenoiseDiffusion` on clips and samples new ones.

    A batch is a dict with ``clips`` ``(batch, joint, coord, frame)`` in metres and ``mask`` ``(batch, 1, 1, frame)``, 1 where a
    frame is real, or None where all are, and ``labels`` ``(batch,)`` int64, -1 where unknown, which only a conditional network
    needs. Logs ``train/loss``, ``train/grad_norm`` and ``val/loss``; and for ten parts of the
    diffusion steps, named by their middle as a fraction of T, ``val/loss_t/0.050`` and ``val/x0_cm/0.050``: the loss without what
    ``motion_loss`` adds, and the mean distance in centimetres of a joint of x0_hat from where it is.

    Args:
        diffusion: schedule, network, prediction and loss.
        normalizer: metres <-> normalised; fitted before training, or loaded.
        skeleton: what the joints are.
        fps: frames per second of the clips.
        frames: length of the clips.
        sampler: the sampler that `sample` uses unless told otherwise.
        motion_loss: what else the loss punishes, in metres; None for nothing.
        condition: the labels that the network is given, None for an unconditional one.
        project: ``bones`` makes them rigid in the last calls of a sampler unless `sample` is told otherwise; None for nothing.
        class_names: names of the actions of the training data, kept for whoever opens the checkpoint.
        optimizer: parameters -> optimiser; None for a module that is not trained.
        lr_scheduler: (optimiser, total steps, inf if none are set) -> scheduler stepped after every step; None for none.
        seed: of all that is random in training.
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
        condition: LabelCondition | None = None,
        project: str | None = None,
        class_names: Sequence[str] = (),
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
        lr_scheduler: Callable[[Optimizer, float], LRScheduler] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.diffusion = diffusion
        self.normalizer = normalizer
        self.skeleton = skeleton
        self.fps = fps
        self.frames = frames
        self.sampler = sampler
        self.motion_loss = motion_loss
        self.condition = condition
        self.project = project
        self.class_names = tuple(class_names)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.seed = seed
        self.noise_levels: NoiseLevels | None = None

    def fit(self, batch: Batch) -> None:
        """Measure on training clips what normaliser and prediction need to know of them.

        Args:
            batch: see above.

        Raises:
            ValueError: see `ddpm.normalizer.Normalizer.fit`.
        """
        self.normalizer.fit(batch["clips"], batch["mask"])
        self.diffusion.prediction.fit(self.normalizer(batch["clips"]), batch["mask"])

    def on_fit_start(self) -> None:
        """Refuse to train on clips whose scale nobody measured.

        Raises:
            RuntimeError: the normaliser is not fitted.
        """
        if not self.normalizer.fitted:
            raise RuntimeError("the normalizer is not fitted: call module.fit(batch), or load a checkpoint, first")

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Tie t, noise and dropout to the number of the batch, so that a resumed run draws what the uninterrupted one does."""
        torch.manual_seed(derive_seed(self.seed, "step", self.batches_done, self.global_rank))

    @property
    def batches_done(self) -> int:
        """Training batches processed since the run began, also across interruptions."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # pyright: ignore[reportAttributeAccessIssue]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Algorithm 1 on one batch."""
        loss = self.loss(batch)
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The same loss with t and eps fixed by the number of the batch, t spread evenly over all steps."""
        clips = batch["clips"]
        generator = torch.Generator().manual_seed(derive_seed("validation", batch_idx, self.global_rank))
        place = (torch.randperm(len(clips), generator=generator) + 0.5) / len(clips)
        t = (place * self.diffusion.n_steps).long().to(clips.device)
        losses, loss = self._losses(batch, torch.randn(clips.shape, generator=generator).to(clips), t)
        self.log("val/loss", loss, prog_bar=True, on_epoch=True, batch_size=len(clips), sync_dist=True)
        if self.noise_levels is not None:
            self.noise_levels.add(t, losses, self.normalizer.inverse(losses.x0_hat), clips, batch["mask"])
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin to add up by noise level."""
        self.noise_levels = NoiseLevels(self.diffusion.n_steps, NOISE_BINS, self.device)

    def on_validation_epoch_end(self) -> None:
        """Log what was added up, the only time that it is read."""
        if self.noise_levels is not None:
            sums = self.trainer.strategy.reduce(self.noise_levels.sums, reduce_op="sum")
            for part, (loss, centimetres) in self.noise_levels.means(sums).items():  # pyright: ignore[reportArgumentType]
                self.log_dict({f"val/loss_t/{part}": loss, f"val/x0_cm/{part}": centimetres}, sync_dist=True)

    def loss(self, batch: Batch, eps: Tensor | None = None, t: Tensor | None = None) -> Tensor:
        """The loss of a batch: that of the diffusion of its normalised clips, and that of the motion in metres.

        Args:
            batch: see above.
            eps: noise, shaped like the clips; drawn if None.
            t: ``(batch,)`` diffusion steps; drawn if None.

        Returns:
            A scalar.
        """
        return self._losses(batch, eps, t)[1]

    def _losses(self, batch: Batch, eps: Tensor | None, t: Tensor | None) -> tuple[ClipLosses, Tensor]:
        """The losses of the diffusion clip by clip, and the loss of the batch."""
        clips, mask = batch["clips"], batch["mask"]
        cond = None
        if self.condition is not None:
            labels = self.condition.hide(batch["labels"]) if self.training else batch["labels"]
            cond = self.condition.encode(labels)
        losses = self.diffusion.clip_losses(self.normalizer(clips), eps, t=t, cond=cond, mask=mask)
        if self.motion_loss is None:
            return losses, losses.mean
        return losses, losses.mean + self.motion_loss(self.normalizer.inverse(losses.x0_hat), clips, losses.weight, mask)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the gradient, log it, and stop a run whose gradient is no number before it spoils the weights.

        Args:
            optimizer: whose gradients.
            gradient_clip_val: largest norm; None or 0 for any, as everywhere in Lightning.
            gradient_clip_algorithm: None or ``norm``.

        Raises:
            ValueError: another algorithm.
            FloatingPointError: the gradient is not finite. On a GPU this is looked at every 50 steps only, because looking
                makes the processor wait for the device.
        """
        if gradient_clip_algorithm not in (None, "norm"):
            raise ValueError(f"trainer.gradient_clip_algorithm={gradient_clip_algorithm!r} must be null or 'norm'")
        norm = nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val or math.inf)
        self.log("train/grad_norm", norm)
        # The loss scale of float16 makes the gradient infinite now and then, on purpose, and skips the step itself.
        look = norm.device.type == "cpu" or self.global_step % CHECK_EVERY == 0
        if look and self.trainer.precision != "16-mixed" and not torch.isfinite(norm):
            lr = optimizer.param_groups[0]["lr"]
            raise FloatingPointError(
                f"the gradient is {norm.item()} at step {self.global_step} (learning rate {lr:.3g}): training has diverged. "
                "Lower optimizer.lr, keep trainer.gradient_clip_val, or look for outliers in the data; "
                "the last checkpoint is from before."
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser, and the learning rate's schedule over the whole run.

        Raises:
            RuntimeError: the module was built without an optimiser.
        """
        if self.optimizer is None:
            raise RuntimeError("this module was built for sampling: it has no optimiser")
        optimizer = self.optimizer(self.parameters())
        if self.lr_scheduler is None:
            return optimizer
        scheduler = self.lr_scheduler(optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a sampler needs beside weights and configuration: what only the data know."""
        checkpoint["motion"] = {
            "fps": self.fps,
            "class_names": list(self.class_names),
            "label_counts": [] if self.condition is None else list(self.condition.counts),
        }

    @classmethod
    def load_from_checkpoint(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, checkpoint_path: str | Path, map_location: torch.device | str | None = None
    ) -> "MotionDiffusion":
        """The trained module of a checkpoint, ready to sample; nothing in the file can run code.

        Args:
            checkpoint_path: the file, or the directory of a run, for its last checkpoint.
            map_location: device of the module; None for the CPU.

        Raises:
            CheckpointError, ConfigError: see `ddpm.checkpoint.load_run`.
        """
        from ddpm.checkpoint import load_module  # which imports this module

        return load_module(checkpoint_path).to(map_location or "cpu")

    def sample(
        self,
        seeds: int | Sequence[int],
        *,
        frames: int | None = None,
        action: str | Sequence[str] | None = None,
        labels: Tensor | None = None,
        guidance: float | None = None,
        project: str | None = "",
        sampler: Sampler | None = None,
        steps: int | None = None,
        batch_size: int = 64,
        device: str | torch.device | None = None,
        progress: bool | str = False,
        observer: Observer | None = None,
    ) -> Clips:
        """New clips, one per seed; a clip depends on its own seed alone, not on the clips beside it.

        Args:
            seeds: one per clip, in 0..2^63-1; a number n is the seeds 0..n-1.
            frames: length, None for that of training.
            action: name of an action that the model knows, or several that take turns; None draws them as often as they are in
                training.
            labels: the same as ``(clips,)`` int64 numbers, -1 for any action.
            guidance: weight, 1 for none; None for that of the condition.
            project: ``bones`` or None; the empty string for the module's own.
            sampler: None for the module's own.
            steps: of the sampler, None for its own number; a step is one network call, and two where guidance acts.
            batch_size: clips per network call.
            device: to which the module is moved, e.g. ``cpu``, ``cuda``, or ``auto``; None for where it is.
            progress: show a progress bar; a text stands in front of it.
            observer: called once a step of every batch, see `ddpm.process.samplers.Observer`.

        Returns:
            The clips, float32 numbers in metres, with seeds, and with labels if the network is told any.

        Raises:
            ValueError: no seeds, or some that are none; an action that the model does not know; labels or guidance for a network
                without a condition; a device that is not there; or what the sampler has to say of ``steps``.
        """
        seeds = seeds_of(seeds)
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        if action is not None:
            if labels is not None:
                raise ValueError(f"action={action} and labels cannot be combined: give one of them")
            labels = self.find_labels(action, len(seeds))
        if device is not None:
            self.to(choose_device(device))
        sampler = self.sampler if sampler is None else sampler
        sampler = sampler if steps is None else functools.partial(sampler, steps=steps)
        labels = self.labels(seeds) if labels is None else labels
        cond = self.conditions(seeds, labels)
        parts = [slice(start, start + batch_size) for start in range(0, len(seeds), batch_size)]
        clips = []
        text = progress if isinstance(progress, str) else "sampling"
        with progress_bar(sampler, self.diffusion.alpha_bar, len(parts), text, observer, hidden=not progress) as seen:
            for part in parts:
                randn = self.noise(seeds[part], frames)
                clips.append(
                    self.generate(
                        randn(), randn, cond=None if cond is None else cond[part], guidance=guidance, project=project,
                        sampler=sampler, observer=seen,
                    )
                )  # fmt: skip
        return self.as_clips(torch.cat(clips), torch.tensor(seeds), labels)

    def as_clips(self, positions: Tensor, seeds: Tensor | None = None, labels: Tensor | None = None) -> Clips:
        """Clips of this module's skeleton, frame rate and actions.

        Args:
            positions: ``(clips, frames, joints, coords)`` in metres, as from `generate`.
            seeds: ``(clips,)`` int64, if they have any.
            labels: ``(clips,)`` int64, -1 where unknown; None where the network was told none.
        """
        names = None
        if labels is not None and self.condition is not None:
            names = tuple(self.condition.names[label] if label >= 0 else "" for label in labels.tolist())
        return replace(Clips.whole(positions, self.fps, self.skeleton), seeds=seeds, labels=names)

    def find_labels(self, action: str | Sequence[str], n: int) -> Tensor:
        """``(n,)`` int64 labels of an action, or of several that take turns.

        Raises:
            ValueError: the model knows no actions, or not this one; or none is named.
        """
        names = [action] if isinstance(action, str) else list(action)
        if not names:
            raise ValueError("action=[] must name at least one action")
        if self.condition is None:
            raise ValueError(
                f"action={', '.join(names)}: this model knows no actions, it was trained without labels (condition=labels)"
            )
        return self.condition.find(names).repeat(-(-n // len(names)))[:n]

    def labels(self, seeds: Sequence[int]) -> Tensor | None:
        """``(clips,)`` the labels that `sample` draws for these seeds; None for an unconditional network."""
        return None if self.condition is None else self.condition.draw(seeds)

    def conditions(self, seeds: Sequence[int], labels: Tensor | None = None) -> Tensor | None:
        """``(clips, clip_dim)`` what the network is told of these clips, None for an unconditional one; see `sample`."""
        if self.condition is None:
            if labels is not None:
                raise ValueError("action: this model knows no actions, it was trained without labels (condition=labels)")
            return None
        return self.condition.encode(self.condition.draw(seeds) if labels is None else labels).to(self.device)

    def noise(self, seeds: Sequence[int], frames: int | None = None) -> SeededNoise:
        """The source of all noise of clips with these seeds; for ``frames`` see `sample`."""
        shape = (len(self.skeleton.names), self.skeleton.coords, self.frames if frames is None else frames)
        return SeededNoise(seeds, shape, self.device)

    @torch.no_grad()
    def generate(
        self,
        noise: Tensor,
        randn: Callable[[], Tensor],
        *,
        cond: Tensor | None = None,
        guidance: float | None = None,
        project: str | None = "",
        sampler: Sampler | None = None,
        start: int | None = None,
        observer: Observer | None = None,
    ) -> Tensor:
        """The clips to which a sampler comes from given noise.

        Args:
            noise: normalised, ``(clips, joint, coord, frame)``.
            randn: the noise that the sampler draws, shaped alike.
            cond: ``(clips, clip_dim)`` see `conditions`; None for clips of any kind.
            guidance: see `sample`.
            project: see `sample`.
            sampler: None for the module's own.
            start: the diffusion step at which ``noise`` is; None for the last one.
            observer: see `sample`.

        Returns:
            ``(clips, frames, joints, coords)`` float32 in metres, on the CPU.
        """
        alpha_bar = self.diffusion.alpha_bar if start is None else self.diffusion.alpha_bar[: start + 1]
        project = self.project if project == "" else project
        denoise = self.denoiser(cond, guidance, project)
        with evaluating(self):
            x0 = (sampler or self.sampler)(denoise, noise, alpha_bar, randn=randn, observer=observer)
        clips = self.normalizer.inverse(x0)
        # A sampler of few steps may end where they were not yet made rigid.
        clips = clips if project is None else rigid_bones(clips, self.skeleton)
        return clips.permute(0, 3, 1, 2).float().cpu()

    def calls_at(self, t: int) -> int:
        """Network calls when a sampler asks at diffusion step t: where guidance acts also one without the condition."""
        if self.condition is None or self.condition.guidance == 1:
            return 1
        return 1 + int(self.condition.guides(self.diffusion.alpha_bar[t]))

    def denoiser(self, cond: Tensor | None, guidance: float | None, project: str | None) -> Callable[[Tensor, Tensor], Denoised]:
        """What a sampler asks: the network, guided, and with rigid bones; for the arguments see `generate`."""
        if self.condition is None and guidance not in (None, 1):
            raise ValueError(f"guidance={guidance}: this model has no condition to guide towards, it was trained without labels")
        check_project(project, self.skeleton)
        nothing = None if self.condition is None else torch.zeros(1, len(self.condition.names), device=self.device)
        weight = 1.0 if self.condition is None or cond is None else self.condition.guidance if guidance is None else guidance

        def denoise(xt: Tensor, t: Tensor) -> Denoised:
            free = None if nothing is None else nothing.expand(len(xt), -1)
            said = self.diffusion.denoise(xt, t, free if cond is None else cond)
            if weight != 1 and self.condition is not None:
                here = self.condition.guides(gather(self.diffusion.alpha_bar, t, xt))
                if bool(here.any()):
                    moved = guided(said, self.diffusion.denoise(xt, t, free), weight)
                    x0_hat, eps_hat = (torch.where(here, a, b) for a, b in zip(moved[:2], said[:2], strict=True))
                    said = Denoised(x0_hat, eps_hat, said.fraction)
            return said if project is None else self._with_rigid_bones(said, xt, t)

        return denoise

    def _with_rigid_bones(self, said: Denoised, xt: Tensor, t: Tensor) -> Denoised:
        alpha_bar = gather(self.diffusion.alpha_bar, t, xt)
        late = alpha_bar > RIGID_SNR * (1 - alpha_bar)
        if not bool(late.any()):
            return said
        x0_hat = self.normalizer(rigid_bones(self.normalizer.inverse(said.x0_hat), self.skeleton))
        eps_hat = (xt - alpha_bar.sqrt() * x0_hat) / (1 - alpha_bar).sqrt()
        return Denoised(torch.where(late, x0_hat, said.x0_hat), torch.where(late, eps_hat, said.eps_hat), said.fraction)

    def normalised(self, clips: Tensor) -> Tensor:
        """``(clips, frames, joints, coords)`` in metres, as `sample` returns them -> as the network sees them, on its device."""
        return self.normalizer(clips.to(self.device, torch.float32).permute(0, 2, 3, 1))


def check_project(project: str | None, skeleton: Skeleton) -> None:
    """Raise a ValueError if samples of this skeleton cannot be made to have what ``project`` says."""
    if project not in (None, "bones"):
        raise ValueError(f"project={project!r} must be bones or null")
    if project == "bones" and skeleton.coords == 2:
        raise ValueError("project=bones: in pictures bones change their length with their direction; use project=none or null")


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module is in evaluation mode inside this context: no dropout."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
