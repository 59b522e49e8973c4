"""MotionModel: from noise to clips in metres. It knows nothing of training, nor of Lightning, which takes seconds to import."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddpm.bones import rigid_bones
from ddpm.clips import Clips
from ddpm.denoiser import Denoiser, guided_network, moved_by, whole_clips, with_rigid_bones
from ddpm.errors import ConfigError
from ddpm.guide import Autoguidance, refuse_as_guide
from ddpm.memory import refuse_beyond_memory
from ddpm.normalizer import Normalizer
from ddpm.process.condition import LabelCondition, VectorCondition
from ddpm.process.constraints import Cost, CostGuidance, Known
from ddpm.process.diffusion import DenoiseDiffusion
from ddpm.process.samplers import Observer, Sampler, SeededNoise, progress_bar
from ddpm.process.windows import Windows
from ddpm.seeding import seeds_of
from ddpm.skeleton import Skeleton

LONGEST = 100_000
"""Frames of a clip, at most."""

Batch = Mapping[str, Any]
"""``clips`` ``(batch, joint, coord, frame)`` in metres; ``mask`` ``(batch, 1, 1, frame)``, 1 where a frame is real, or None where
all are; and for a conditional network ``labels`` ``(batch,)`` int64, -1 where unknown,
or ``conditions`` ``(batch, width)``, nan where unknown."""


class MotionModel(nn.Module):
    """The diffusion of normalised clips, and what it takes to draw clips in metres from it.

    Sampling: noise -> sampler, which calls the denoiser -> normalizer.inverse -> Clips.

    Args:
        diffusion: schedule, network, prediction and loss.
        normalizer: metres <-> normalised; fitted before training, or loaded.
        skeleton: of the clips, as ``fps``, frames per second, and ``frames``, their length.
        sampler: the default of `sample`.
        condition: the labels or vectors that condition the network; None for an unconditional one.
        project: the default of `sample`: ``bones`` makes them rigid in the last steps of a sampler; None for nothing.
        class_names: of the actions of the training data.
    """

    def __init__(
        self,
        diffusion: DenoiseDiffusion,
        normalizer: Normalizer,
        skeleton: Skeleton,
        fps: float,
        frames: int,
        sampler: Sampler,
        condition: LabelCondition | VectorCondition | None = None,
        project: str | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.diffusion = diffusion
        self.normalizer = normalizer
        self.skeleton = skeleton
        self.fps = fps
        self.frames = frames
        self.sampler = sampler
        self.condition = condition
        self.project = project
        self.class_names = tuple(class_names)
        self.configuration: Mapping[str, Any] = {}  # of its run; empty if it was built by hand
        self.trained_steps: int | None = None  # of the optimiser; None if unknown

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.normalizer.mean.device

    def fit(self, batch: Batch) -> None:
        """Measure on training clips what normaliser and prediction depend on; for errors see `ddpm.normalizer.Normalizer.fit`."""
        self.normalizer.fit(batch["clips"], batch["mask"])
        said = None if self.condition is None else batch.get(self.condition.key)
        cond = None if self.condition is None or said is None else self.condition.encode(said)
        self.diffusion.prediction.fit(self.normalizer(batch["clips"]), batch["mask"], cond)

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
        from ddpm.exporting import export  # which imports this one

        return export(self, path, half)

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
        guidance: float | Autoguidance | None = None,
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
            project: ``bones``, or ``none`` or None; the empty string for the module's own.
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
            ValueError: no seeds, or invalid ones; an action that the model does not know; vectors of another width or
                number, or not finite; labels, vectors or guidance for a network without such a condition; a script beside
                another action or length, or too short; an invalid length or guidance; a cost that is not ``(clips,)``,
                finite and differentiable; a device that is not there; or what the sampler refuses of ``steps``.
        """
        if not self.normalizer.fitted:
            raise ValueError("this model was never fitted: call model.fit(batch) with clips in metres, or load a trained one")
        length = self._length(frames, loop, script)
        seeds = seeds_of(seeds)
        self.refuse_large(len(seeds), length)
        if steps is not None and not (isinstance(steps, Integral) and steps >= 1):
            raise ValueError(f"steps={steps!r} must be a whole number of at least 1, or None")
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
        if not callable(sampler):
            raise ValueError(f"sampler={sampler!r} must be a function such as ddpm.process.samplers.ddim")
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
        if not isinstance(length, Integral) or not 1 <= length <= LONGEST:
            raise ValueError(f"frames={length!r} must be a whole number from 1 to {LONGEST}")
        if loop and length < self.frames:
            raise ValueError(f"loop: frames={length} must be at least {self.frames}, the clip of training")
        return int(length)

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
        sampler: Sampler | None,
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
        with progress_bar(sampler or self.sampler, alpha_bar, len(parts), text or "", observer, hidden=text is None) as seen:
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
        guidance: float | Autoguidance | None = None,
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
            cost: to be made small, see `ddpm.process.constraints.CostGuidance`.
            windows: for a clip longer than those of training; ``cond`` may then be ``(clips, windows, clip_dim)``.

        Returns:
            ``(clips, frames, joints, coords)`` float32 in metres, on the CPU.
        """
        alpha_bar = self.diffusion.alpha_bar if start is None else self.diffusion.alpha_bar[: start + 1]
        project = self.project if project == "" else None if project == "none" else project
        towards = None if cost is None else CostGuidance(noise[0], self.normalizer, self.diffusion.prediction, cost)
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
        guidance: float | Autoguidance | None,
        project: str | None,
        moves: Sequence[Callable[[Tensor, Tensor], Tensor]] = (),
        windows: Windows | None = None,
    ) -> Denoiser:
        """What a sampler calls, see `ddpm.denoiser`, for arguments `generate`."""
        worse, weight = (guidance.model, guidance.weight) if isinstance(guidance, Autoguidance) else (None, guidance)
        if isinstance(guidance, Autoguidance):
            refuse_as_guide(self, guidance)
            guidance.model.to(self.device).eval()
        elif self.condition is None and weight not in (None, 1):
            raise ValueError(f"guidance={weight}: this model has no condition to guide towards, it was trained without labels")
        weight = weight.item() if isinstance(weight, Tensor) and weight.ndim == 0 else weight
        if weight is not None and not (isinstance(weight, Real) and 0 <= weight < math.inf):
            raise ValueError(f"guidance={weight!r} must be a number that is not negative; 1 is none")
        if project not in (None, "bones"):
            raise ValueError(f"project={project!r} must be bones, none or None")
        if project == "bones" and self.skeleton.coords == 2:
            raise ValueError(
                "project=bones: in pictures bones change their length with their direction; use project=none or null"
            )
        if weight is None or (worse is None and cond is None):
            weight = 1.0 if self.condition is None or cond is None else self.condition.guidance
        network = guided_network(
            self.diffusion, self.normalizer, self.condition, weight, None if worse is None else worse.diffusion
        )
        alpha_bar, denoise = self.diffusion.alpha_bar, whole_clips(network, cond, windows)
        if project is not None:
            denoise = with_rigid_bones(denoise, alpha_bar, self.normalizer, self.skeleton)
        return moved_by(denoise, alpha_bar, moves) if moves else denoise

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
        lengths = torch.full((len(positions),), positions.shape[1])
        return Clips(positions, lengths, self.fps, self.skeleton, seeds, names)

    def normalised(self, clips: Tensor) -> Tensor:
        """``(clips, frames, joints, coords)`` in metres, as from `generate` -> as the network sees them, on its device."""
        return self.normalizer(clips.to(self.device, torch.float32).permute(0, 2, 3, 1))


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
