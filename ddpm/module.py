"""MotionDiffusion: the LightningModule between clips in metres and the diffusion of normalised ones."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
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
from ddpm.errors import ConfigError
from ddpm.memory import refuse_beyond_memory
from ddpm.motion_losses import MotionLoss
from ddpm.normalizer import Normalizer
from ddpm.process.condition import LabelCondition, VectorCondition, guided
from ddpm.process.constraints import Cost, Known, Towards
from ddpm.process.diffusion import ClipLosses, Denoised, DenoiseDiffusion, gather
from ddpm.process.noise_levels import NoiseLevels, centimetres
from ddpm.process.samplers import Observer, Sampler, SeededNoise, progress_bar
from ddpm.process.windows import Windows
from ddpm.seeding import derive_seed, seeds_of
from ddpm.skeleton import Skeleton

CHECK_EVERY = 50
"""Steps between two looks at the gradient on a GPU, each of which makes the processor wait for the device."""

SHOW_EVERY = 10
"""Batches of an epoch between two values on the progress bar."""

RIGID_SNR = 8.0
"""Signal-to-noise ratio from which on ``project=bones`` acts; where there is more noise, x0_hat is no body yet."""

LONGEST = 100_000
"""Frames of a clip, at most."""

WINDOWS = 256
"""Windows of long clips per network call."""

NOISE_BINS = 10
"""Parts of the diffusion steps in which validation is reported."""

Batch = Mapping[str, Any]
"""``clips`` ``(batch, joint, coord, frame)`` in metres; ``mask`` ``(batch, 1, 1, frame)``, 1 where a frame is real, or None where
all are; and for a conditional network ``labels`` ``(batch,)`` int64, -1 where unknown,
or ``conditions`` ``(batch, width)``, nan where unknown."""


class MotionDiffusion(pl.LightningModule):
    """Trains a `DenoiseDiffusion` on clips and samples new ones.

    A batch takes the way training_step -> loss -> normalizer -> diffusion.clip_losses; a sample the way noise -> sampler, which
    calls the denoiser -> normalizer.inverse -> Clips.

    Logs ``train/loss``, ``train/grad_norm`` and ``val/loss``; and for ten parts of the diffusion steps, named by their middle as
    a fraction of T, ``val/loss_t/0.050`` and ``val/x0_cm/0.050``: the loss without ``motion_loss``, and the mean distance in
    centimetres of a joint of x0_hat from the real one.

    Args:
        diffusion: schedule, network, prediction and loss.
        normalizer: metres <-> normalised; fitted before training, or loaded.
        skeleton: of the clips, as ``fps``, frames per second, and ``frames``, their length.
        sampler: the default of `sample`.
        motion_loss: added to the loss.
        condition: the labels or vectors that condition the network; None for an unconditional one.
        project: the default of `sample`: ``bones`` makes them rigid in the last steps of a sampler; None for nothing.
        class_names: of the actions of the training data.
        optimizer: parameters -> optimiser; None for a module that is not trained.
        lr_scheduler: (optimiser, total steps, inf if none are set) -> scheduler stepped after every step; None for none.
        seed: of t, noise and dropout in training.
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
        self.trained_steps: int | None = None  # of a model from a checkpoint

    # --- training

    def fit(self, batch: Batch) -> None:
        """Measure on training clips what normaliser and prediction depend on; for errors see `ddpm.normalizer.Normalizer.fit`."""
        self.normalizer.fit(batch["clips"], batch["mask"])
        said = None if self.condition is None else batch.get(self.condition.key)
        cond = None if self.condition is None or said is None else self.condition.encode(said)
        self.diffusion.prediction.fit(self.normalizer(batch["clips"]), batch["mask"], cond)

    def on_fit_start(self) -> None:
        """Raise a RuntimeError if normaliser or prediction was not fitted."""
        for name, fitted in (("normalizer", self.normalizer.fitted), ("prediction", self.diffusion.prediction.fitted)):
            if not fitted:
                raise RuntimeError(f"the {name} is not fitted: call module.fit(batch), or load a checkpoint, first")

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
        """Log at the steps that a logger or the progress bar shows, and at the last ones; elsewhere it would only take time."""
        if (trainer := self._trainer) is None:
            return
        done = trainer.fit_loop.epoch_loop.batch_idx + 1
        ends = trainer.is_last_batch or trainer.global_step + 1 == trainer.max_steps
        if ends or done % SHOW_EVERY == 0 or trainer._logger_connector.should_update_logs:
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
        cls, checkpoint_path: str | Path, map_location: torch.device | str | None = None
    ) -> "MotionDiffusion":
        """The trained module of a checkpoint, ready to sample; nothing in the file can run code.

        ``checkpoint_path`` is the file, or the directory of a run, for its last checkpoint; ``map_location`` the device, None for
        the CPU. Raises CheckpointError and ConfigError, see `ddpm.checkpoint.load_run`.
        """
        from ddpm.checkpoint import load_module  # which imports this module

        return load_module(checkpoint_path).to(map_location or "cpu")

    def export(self, path: str | Path, half: bool = False) -> list[Path]:
        """Write the model for other programs, in the format of the ending, and its card (JSON) beside it; return both files.

        ``.safetensors``: weights and statistics, with the card inside; `ddpm.load` and the commands read it as a checkpoint.
        ``.onnx`` (with the extra ``onnx``), ``.pt2`` (`torch.export`): one denoising call of any number of normalised clips,
        from xt, t and, if the model has one, condition to x0_hat and eps_hat, with the card inside.

        Args:
            path: of the file.
            half: keep the network's weights in half precision, in half the bytes; for ``.safetensors``.

        Raises:
            ConfigError: another ending, or a model that does not know its configuration, as one from `ddpm.load` does.
            CheckpointError: weights that are not finite.
            WriteError: the file cannot be written.
        """
        from ddpm.exporting import export  # which imports this module

        return export(self, path, half)

    # --- sampling

    def sample(
        self,
        seeds: int | Sequence[int],
        *,
        frames: int | None = None,
        loop: bool = False,
        action: str | Sequence[str] | None = None,
        labels: Tensor | None = None,
        condition: Tensor | None = None,
        script: Sequence[tuple[str, float]] | None = None,
        guidance: "float | Autoguidance | None" = None,
        cost: Cost | None = None,
        project: str | None = "",
        fps: float | None = None,
        tempo: float = 1.0,
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
            frames: length, None for that of training; a longer clip is made of overlapping windows.
            loop: the last frame leads to the first one.
            action: name of an action that the model knows, or several that take turns; None draws them as often as they are in
                training.
            labels: the same as ``(clips,)`` int64 numbers, -1 for any action.
            condition: ``(width,)`` a vector for all clips, or ``(clips, width)``, of a model of condition=vectors; None draws
                vectors of training.
            script: actions one after the other, each with its seconds, which give the length; the same for all clips.
            cost: of clips in metres, a function that samples are led to make small, see `ddpm.process.constraints.Cost`.
            guidance: weight, 1 for none; None for that of the condition; or an `Autoguidance`, also without a condition.
            project: ``bones`` or None; the empty string for the module's own.
            fps: frames per second to which clips are resampled; None for those of training, in which ``frames`` counts.
            tempo: 2 makes the motion twice as fast.
            sampler: None for the module's own.
            steps: of the sampler, None for its own number; a step is one network call, and two where guidance acts.
            batch_size: clips per network call.
            device: to which the module is moved, e.g. ``cpu``, ``cuda``, or ``auto``; None for where it is.
            progress: show a progress bar; a text stands in front of it.
            observer: called once a step of every batch, see `ddpm.process.samplers.Observer`.

        Returns:
            The clips, float32 numbers in metres, with seeds, and with labels if the network is conditioned on any.

        Raises:
            ValueError: no seeds, or some that are none; an action that the model does not know; vectors of another width or
                number, or not finite; labels, vectors or guidance for a network without such a condition; a script beside
                another action or length, or too short; a length or guidance that cannot be; a cost that is not ``(clips,)``,
                finite and differentiable; a device that is not there; or what the sampler refuses of ``steps``.
        """
        length = self._length(frames, loop, script)
        if isinstance(seeds, int | Sized):
            self.refuse_large(len(seeds) if isinstance(seeds, Sized) else seeds, length)
        seeds = seeds_of(seeds)
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        if action is not None:
            if labels is not None:
                raise ValueError(f"action={action} and labels cannot be combined: give one of them")
            labels = self.find_labels(action, len(seeds))
        if condition is not None:
            if labels is not None:
                raise ValueError("condition and action or labels cannot be combined: give one of them")
            labels = self.find_vectors(condition, len(seeds))
        if script is not None and (loop or not (frames is action is labels is None)):
            raise ValueError(
                "a script says which actions and how long: give neither frames nor loop nor action nor labels with it"
            )
        if device is not None:
            self.to(choose_device(device))
        sampler = self.sampler if sampler is None else sampler
        sampler = sampler if steps is None else functools.partial(sampler, steps=steps)
        windows = Windows(length, self.frames, loop) if loop or script is not None else self.windows(length)
        if script is None or windows is None:
            labels = self.labels(seeds) if labels is None else labels
            cond = self.conditions(seeds, labels)
        else:
            ends = torch.tensor([seconds for _, seconds in script]).cumsum(0)
            now = torch.searchsorted(ends, windows.middles / self.fps, right=True).clamp(max=len(script) - 1)
            acts = self.find_labels([name for name, _ in script], len(script))[now]
            cond = self.conditions(range(len(windows)), acts)
            cond = None if cond is None else cond.expand(len(seeds), -1, -1)

        def generate(randn: SeededNoise, cond: Tensor | None, seen: Observer | None) -> Tensor:
            options = functools.partial(self.generate, cond=cond, guidance=guidance, project=project, sampler=sampler)
            return options(randn(), randn, cost=cost, windows=windows, observer=seen)

        text = progress if isinstance(progress, str) else "sampling" if progress else None
        clips = self.in_batches(generate, seeds, length, cond, sampler, batch_size, text, observer=observer)
        return self.as_clips(clips, torch.tensor(seeds), labels).resampled(fps, tempo, self.normalizer.travel if loop else None)

    def _length(self, frames: int | None, loop: bool, script: Sequence[tuple[str, float]] | None) -> int:
        """The length of the clips of `sample`."""
        length = self.frames if frames is None else frames
        if script is not None:
            pairs = [item for item in script if isinstance(item, Sequence) and len(item) == 2]
            seconds = [number for _, number in pairs if isinstance(number, int | float) and 0 < number <= LONGEST / self.fps]
            length = round(sum(seconds) * self.fps)
            if len(seconds) != len(script) or not self.frames <= length <= LONGEST:
                raise ValueError(
                    f"script={script!r:.200} must be pairs of an action and its seconds, as [('walk', 3.0), ('wave', 2.0)], in "
                    f"all from {self.frames / self.fps:g}, the clip of training, to {LONGEST / self.fps:g}"
                )
        if not isinstance(length, int) or not 1 <= length <= LONGEST:
            raise ValueError(f"frames={length} must be a whole number from 1 to {LONGEST}")
        if loop and length < self.frames:
            raise ValueError(f"loop: frames={length} must be at least {self.frames}, the clip of training")
        return length

    def windows(self, length: int) -> Windows | None:
        """Those that a clip longer than those of training is made of; None for others."""
        return Windows(length, self.frames) if length > self.frames else None

    def refuse_large(self, n: int, frames: int | None = None) -> None:
        """Raise a ConfigError for more clips, or longer ones, than memory holds."""
        frames = self.frames if frames is None else frames
        size = len(self.skeleton.names) * self.skeleton.coords * frames
        refuse_beyond_memory(f"{n} clips of {frames} frames", 20 * n * (size + 100), "ask for fewer, or for shorter ones")

    def in_batches(
        self,
        generate: Callable[[SeededNoise, Tensor | None, Observer | None], Tensor],
        seeds: Sequence[int],
        frames: int,
        cond: Tensor | None,
        sampler: Sampler,
        batch_size: int,
        text: str | None,
        start: int | None = None,
        observer: Observer | None = None,
    ) -> Tensor:
        """``(clips, frames, joints, coords)`` from ``generate(noise, cond, observer)``, batch by batch.

        A progress bar is labelled with ``text``, None for none; see `generate` for the rest.
        """
        parts = [slice(first, first + batch_size) for first in range(0, len(seeds), batch_size)]
        alpha_bar = self.diffusion.alpha_bar if start is None else self.diffusion.alpha_bar[: start + 1]
        with progress_bar(sampler, alpha_bar, len(parts), text or "", observer, hidden=text is None) as seen:
            made = [generate(self.noise(seeds[part], frames), None if cond is None else cond[part], seen) for part in parts]
        return torch.cat(made)

    def find_labels(self, action: str | Sequence[str], n: int) -> Tensor:
        """``(n,)`` int64 labels of an action, or of several that take turns; a ValueError for one that is not known."""
        names = [action] if isinstance(action, str) else list(action)
        if not names:
            raise ValueError("action=[] must name at least one action")
        if not isinstance(self.condition, LabelCondition):
            raise ValueError(
                f"action={', '.join(names)}: this model knows no actions, it was trained without labels (condition=labels)"
            )
        return self.condition.find(names).repeat(-(-n // len(names)))[:n]

    def find_vectors(self, vectors: Tensor, n: int) -> Tensor:
        """``(n, width)`` vectors, see `VectorCondition.find`; a ValueError for a model that was trained without."""
        if not isinstance(self.condition, VectorCondition):
            raise ValueError("condition: this model was trained without vectors (condition=vectors)")
        return self.condition.find(vectors, n)

    def labels(self, seeds: Sequence[int]) -> Tensor | None:
        """``(clips,)`` the labels, or ``(clips, width)`` vectors, that `sample` draws for these seeds; None for no condition."""
        return None if self.condition is None else self.condition.draw(seeds)

    def conditions(self, seeds: Sequence[int], labels: Tensor | None = None) -> Tensor | None:
        """``(clips, clip_dim)`` the network's condition for these labels or vectors, or else seeds; None for none."""
        labels = self.labels(seeds) if labels is None else labels
        if labels is None:
            return None
        labels = torch.as_tensor(labels)
        if self.condition is None:
            raise ValueError("action: this model knows no actions, it was trained without labels (condition=labels)")
        self.condition.check(labels, len(seeds))
        return self.condition.encode(labels).to(self.device)

    def noise(self, seeds: Sequence[int], frames: int | None = None) -> SeededNoise:
        """The source of all noise of clips with these seeds and this length, None for that of training."""
        shape = (len(self.skeleton.names), self.skeleton.coords, self.frames if frames is None else frames)
        return SeededNoise(seeds, shape, self.device)

    @torch.no_grad()
    def generate(
        self,
        noise: Tensor,
        randn: Callable[[], Tensor],
        *,
        cond: Tensor | None = None,
        guidance: "float | Autoguidance | None" = None,
        project: str | None = "",
        sampler: Sampler | None = None,
        start: int | None = None,
        known: Known | None = None,
        cost: Cost | None = None,
        windows: Windows | None = None,
        observer: Observer | None = None,
    ) -> Tensor:
        """Clips sampled from given noise. What is not listed here is as in `sample`.

        Args:
            noise: normalised, ``(clips, joint, coord, frame)``.
            randn: the noise that the sampler draws, shaped alike.
            cond: ``(clips, clip_dim)`` see `conditions`; None for clips of any kind.
            start: the diffusion step at which ``noise`` is; None for the last one.
            known: coordinates that are given; they are returned as they are.
            cost: to be made small, see `ddpm.process.constraints.Towards`.
            windows: for a clip longer than those of training; ``cond`` may then be ``(clips, windows, clip_dim)``.

        Returns:
            ``(clips, frames, joints, coords)`` float32 in metres, on the CPU.
        """
        alpha_bar = self.diffusion.alpha_bar if start is None else self.diffusion.alpha_bar[: start + 1]
        project = self.project if project == "" else project
        towards = None if cost is None else Towards(noise[0], self.normalizer, self.diffusion.prediction, cost)
        denoise = self.denoiser(cond, guidance, project, [move for move in (towards, known) if move is not None], windows)
        with evaluating(self):
            x0 = (sampler or self.sampler)(denoise, noise, alpha_bar, randn=randn, observer=observer)
        clips = self.normalizer.inverse(x0)
        # A sampler of few steps may end where they were not yet made rigid.
        clips = clips if project is None else rigid_bones(clips, self.skeleton)
        clips = clips if known is None else known.place(self.normalizer.inverse(known(self.normalizer(clips), alpha_bar[:1])))
        return clips.permute(0, 3, 1, 2).float().cpu()

    def denoiser(
        self,
        cond: Tensor | None,
        guidance: "float | Autoguidance | None",
        project: str | None,
        moves: Sequence[Callable[[Tensor, Tensor], Tensor]] = (),
        windows: Windows | None = None,
    ) -> Callable[[Tensor, Tensor], Denoised]:
        """What a sampler calls: the network, guided, in windows, with rigid bones and further moves of x0_hat; see `generate`."""
        condition, table = self.condition, self.diffusion.alpha_bar
        worse, weight = (guidance.model, guidance.weight) if isinstance(guidance, Autoguidance) else (None, guidance)
        if worse is not None:
            self._refuse_as_guide(worse)
        elif condition is None and weight not in (None, 1):
            raise ValueError(f"guidance={weight}: this model has no condition to guide towards, it was trained without labels")
        if weight is not None and not 0 <= weight < math.inf:
            raise ValueError(f"guidance={weight} must be a number that is not negative; 1 is none")
        if project not in (None, "bones"):
            raise ValueError(f"project={project!r} must be bones or null")
        if project == "bones" and self.skeleton.coords == 2:
            raise ValueError(
                "project=bones: in pictures bones change their length with their direction; use project=none or null"
            )
        nothing = None if condition is None else torch.zeros(1, condition.width, device=self.device)
        if weight is None or (worse is None and cond is None):
            weight = 1.0 if condition is None or cond is None else condition.guidance
        weights = torch.full_like(self.normalizer.mean, weight)
        # What leads away from the other actions makes people faster than any that were recorded.
        weights[self.normalizer.root, self.normalizer.travel] = min(weight, 1.0)

        def estimate(xt: Tensor, t: Tensor, cond: Tensor | None) -> Denoised:
            alpha_bar, free = gather(table, t, xt), None if nothing is None else nothing.expand(len(xt), -1)
            cond = free if cond is None else cond
            found = self.diffusion.denoise(xt, t, cond)
            if weight != 1:
                here = torch.ones_like(alpha_bar, dtype=torch.bool) if condition is None else condition.guides(alpha_bar)
                if bool(here.any()):
                    other = self.diffusion.denoise(xt, t, free) if worse is None else worse.diffusion.denoise(xt, t, cond)
                    moved = guided(found, other, weights.to(found.x0_hat))
                    found = _where(here, moved.x0_hat, moved.eps_hat, found)
            return found

        def denoise(xt: Tensor, t: Tensor) -> Denoised:
            alpha_bar = gather(table, t, xt)
            found = estimate(xt, t, cond) if windows is None else windows.denoise(estimate, xt, t, cond, WINDOWS)
            if project is not None:
                late = alpha_bar > RIGID_SNR * (1 - alpha_bar)
                if bool(late.any()):
                    x0_hat = self.normalizer(rigid_bones(self.normalizer.inverse(found.x0_hat), self.skeleton))
                    found = _where(late, x0_hat, (xt - alpha_bar.sqrt() * x0_hat) / (1 - alpha_bar).sqrt(), found)
            for move in moves:
                x0_hat = move(found.x0_hat, alpha_bar)
                found = Denoised(x0_hat, (xt - alpha_bar.sqrt() * x0_hat) / (1 - alpha_bar).sqrt(), found.fraction)
            return found

        return denoise

    def _refuse_as_guide(self, worse: "MotionDiffusion") -> None:
        """Raise a ValueError unless noisy clips and conditions mean the same to both models; else move it where this one is."""
        facts = [
            (m.skeleton, m.fps, m.frames, None if m.condition is None else (m.condition.names, m.condition.width))
            for m in (self, worse)
        ]
        for what, mine, its in zip(("skeleton", "frame rate", "length", "condition"), *facts, strict=True):
            if mine != its:
                raise ValueError(f"guide: it was trained on another {what} than the model it guides")
        pairs = [
            *zip(self.normalizer.buffers(), worse.normalizer.buffers(), strict=True),
            (self.diffusion.alpha_bar, worse.diffusion.alpha_bar),
        ]
        if isinstance(mine := self.condition, VectorCondition) and isinstance(its := worse.condition, VectorCondition):
            pairs += [(mine.mean, its.mean), (mine.std, its.std)]
        if any(a.shape != b.shape or not torch.allclose(a.float().cpu(), b.float().cpu(), rtol=1e-4) for a, b in pairs):
            raise ValueError("guide: it was trained on other data, or with another T or beta_schedule, than the model it guides")
        worse.to(self.device).eval()

    def calls_at(self, t: int) -> int:
        """Network calls of the denoiser at diffusion step t: two where guidance acts."""
        if self.condition is None or self.condition.guidance == 1:
            return 1
        return 1 + int(self.condition.guides(self.diffusion.alpha_bar[t]))

    def as_clips(self, positions: Tensor, seeds: Tensor | None = None, labels: Tensor | None = None) -> Clips:
        """Clips with this module's skeleton, frame rate and names of actions.

        positions are as from `generate`, seeds and labels ``(clips,)`` int64, -1 for an unknown label.
        """
        names = None
        if labels is not None and isinstance(self.condition, LabelCondition):
            names = tuple(self.condition.names[label] if label >= 0 else "" for label in torch.as_tensor(labels).tolist())
        return replace(Clips.whole(positions, self.fps, self.skeleton), seeds=seeds, labels=names)

    def normalised(self, clips: Tensor) -> Tensor:
        """``(clips, frames, joints, coords)`` in metres, as from `generate` -> as the network sees them, on its device."""
        return self.normalizer(clips.to(self.device, torch.float32).permute(0, 2, 3, 1))


@dataclass(frozen=True)
class Autoguidance:
    """Guidance away from a model that errs alike, but more: one that was trained for less time, or is smaller, on the same data.

    Weight 1 is the model itself, 2 goes as far again from the estimates of the other (Karras et al. 2024, arXiv 2406.02507).
    Both are given the same condition, so that clips become better without becoming more typical of their action.
    """

    model: MotionDiffusion
    weight: float


def _where(here: Tensor, x0_hat: Tensor, eps_hat: Tensor, otherwise: Denoised) -> Denoised:
    x0_hat, eps_hat = torch.where(here, x0_hat, otherwise.x0_hat), torch.where(here, eps_hat, otherwise.eps_hat)
    return Denoised(x0_hat, eps_hat, otherwise.fraction)


def choose_device(name: str | torch.device) -> torch.device:
    """The device with this name; ``auto`` is the accelerator if there is one. A ConfigError if it cannot be used here."""
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={name}: not usable here ({str(error).splitlines()[0]})") from error


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module is in evaluation mode inside this context: no dropout."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
