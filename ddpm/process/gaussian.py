"""Gaussian preconditioning: the network corrects the best linear denoiser of the training clips.

Karras et al. 2022 (arXiv 2206.00364, table 1) scale a network's input and output by one number, sigma_data, and let a share of
xt skip it. Here the covariance of clips, as that of a stationary Gaussian process over poses, takes the place of that number:
every mode of a clip, a principal component of the pose at a frequency, has a variance S, and so c_skip, c_out and c_in, of its
own. With output 0 this is the exact denoiser of that process, which trained denoisers largely resemble (Wang & Vastola 2023,
arXiv 2311.10892). S constant is EDM; S = 1 is the velocity but for its sign.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ddpm.process.prediction import Prediction

PRIOR = 1.0
"""Clips that the variances of all count for where those of an action are measured."""

FLOOR = 1e-8
"""Smallest variance of a mode, in units of the mean one."""


class Gaussian(nn.Module, Prediction):
    """The network outputs what a mode is beyond the linear estimate, in units of that estimate's standard deviation.

    The modes of a clip z of L frames are y = E' z D', with E the principal components of poses and D the orthonormal DCT-II of
    length L. Mode (k, m) has the variance S_k(pi m / L), kept on a grid of frequencies, so that clips may have any length.
    With alpha_bar = a^2 and s^2 = 1 - a^2 the network sees y_t / sqrt(a^2 S + s^2), brought back to joints and frames, and

        x0_hat = a S / (a^2 S + s^2) y_t + sqrt(S s^2 / (a^2 S + s^2)) output.

    Padded frames have no influence, and x0_hat is 0 there.

    Args:
        channels: joints times coords.
        frames: number of frequencies at which S is kept, the length of the clips it is measured on.
        travel_by_label: the steps of the root are components apart from the poses, and have a mean and variances for each action
            that is a condition: a person who stands and one who runs differ in them by a factor of a thousand.
        emphasis: the loss of a mode is multiplied by S^emphasis over its mean. With 0 all modes count alike, also the thousand
            finest; with 1 they count as their errors do in a clip.

    Raises:
        ValueError: a number below 1, or an emphasis outside [0, 1].
    """

    basis: Tensor
    log_power: Tensor

    def __init__(self, channels: int, frames: int, emphasis: float = 0.0, travel_by_label: bool = False) -> None:
        super().__init__()
        if channels < 1 or frames < 1:
            raise ValueError(f"prediction.gaussian: channels={channels} and frames={frames} must be at least 1")
        if not 0 <= emphasis <= 1:
            raise ValueError(f"prediction.emphasis={emphasis} must be in [0, 1]")
        self.emphasis = emphasis
        self.travel_by_label = travel_by_label
        self.travel: list[int] = []
        self.class_power: Tensor | None = None
        self.class_mean: Tensor | None = None
        self.register_buffer("basis", torch.zeros(channels, channels).fill_diagonal_(1.0))  # as in `frequencies`
        self.register_buffer("log_power", torch.zeros(channels, frames))
        self.register_buffer("ways", torch.zeros(0, dtype=torch.long), persistent=False)  # `travel` on the device
        self.register_load_state_dict_pre_hook(_with_means)

    def prepare(self, travel: Sequence[int], classes: int) -> None:
        """With ``travel_by_label``, make the steps of the root the first components, with statistics for each action."""
        if self.travel_by_label and travel and classes:
            self.travel = list(travel)
            self.ways = torch.tensor(self.travel, device=self.log_power.device)
            del self.class_power, self.class_mean
            self.register_buffer("class_power", self.log_power[: len(travel)].expand(classes, -1, -1).clone())
            self.register_buffer("class_mean", self.log_power.new_zeros(classes, len(travel)))

    @property
    def fitted(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether variances were measured or loaded: none ever measures exactly 1 in every mode."""
        return bool(self.log_power.any())

    def fit(self, x0: Tensor, mask: Tensor | None, cond: Tensor | None = None) -> None:
        """Measure the principal components of poses, and the variance of each at every frequency.

        x0 is ``(batch, ..., frame)``. One clip in which all components have the mean variance of that frequency is added to the n
        clips, because a few clips are no evidence that a component never moves. The logarithms of the variances of an action
        with n clips are brought nearer to those of all clips, by the share `PRIOR` / (n + `PRIOR`).
        """
        clips = x0.flatten(1, -2).double()
        lengths = _lengths(clips, mask)
        real = torch.arange(clips.shape[-1], device=clips.device) < lengths[:, None]
        poses = clips.transpose(1, 2)[real]
        covariance = poses.T @ poses / len(poses)
        steps = self.ways
        others = torch.tensor([k for k in range(len(covariance)) if k not in self.travel], device=poses.device)
        basis, n_steps = torch.zeros_like(covariance), len(steps)
        basis[steps, :n_steps], basis[others, n_steps:] = (
            torch.linalg.eigh(covariance[part][:, part]).eigenvectors.flip(1) for part in (steps, others)
        )
        self.basis.copy_(basis)
        self.log_power.copy_(self._log_power(clips, lengths, basis))
        if self.class_power is not None and self.class_mean is not None and cond is not None:
            self.class_power.copy_(self.log_power[:n_steps].expand_as(self.class_power))
            for k, mine in enumerate(cond.T > 0):
                if (n := int(mine.sum())) == 0:
                    continue
                own = clips[mine]
                now = real[mine].double()
                mean = (own[:, steps] * now[:, None]).sum((0, 2)) / now.sum() * n / (n + PRIOR)
                self.class_mean[k] = mean
                own = own.index_add(1, steps, -(mean[:, None] * now[:, None]))
                measured = self._log_power(own, lengths[mine], basis, added=0)
                self.class_power[k].lerp_(measured[:n_steps].to(self.log_power), n / (n + PRIOR))

    def _log_power(self, clips: Tensor, lengths: Tensor, basis: Tensor, added: int = 1) -> Tensor:
        """``(component, frequency)`` logarithms of the variances of clips ``(batch, channels, frame)`` and of those added."""
        # Each mode counts for the two frequencies of the grid beside its own.
        bins = self.log_power.shape[1]
        count, total = clips.new_zeros(bins), clips.new_zeros(len(basis), bins)
        for part, length in zip(clips.split(256), lengths.split(256), strict=True):
            energy = (basis.T @ part @ _cosines(length, part).mT).square()
            low, share = self.place(length, clips.shape[-1])
            inside = torch.arange(clips.shape[-1], device=clips.device) < length[:, None]
            for place, weight in ((low, (1 - share) * inside), ((low + 1).clamp(max=bins - 1), share * inside)):
                count.index_add_(0, place.flatten(), weight.double().flatten())
                values = (weight.double()[:, None] * energy).transpose(0, 1).flatten(1)
                total.index_add_(1, place.flatten(), values)
        seen = count > 1e-6
        total = total[:, seen] / count[seen]
        total = (len(clips) * total + added * total.mean(0)) / (len(clips) + added)
        log_power = total.clamp(min=FLOOR * float(total.mean())).log()
        # Frequencies that no clip was long enough to have lie on the line between their neighbours.
        known = seen.nonzero().flatten()
        right = torch.searchsorted(known, torch.arange(bins, device=known.device)).clamp(max=len(known) - 1)
        left = (right - 1).clamp(min=0)
        gap = (known[right] - known[left]).clamp(min=1)
        part = ((torch.arange(bins, device=known.device) - known[left]) / gap).clamp(0, 1).double()
        return torch.lerp(log_power[:, left], log_power[:, right], part)

    def for_clips(self, like: Tensor, mask: Tensor | None, cond: Tensor | None) -> "GaussianModes":
        """The modes of clips of these lengths and actions."""
        return GaussianModes(self, like, mask, cond)

    def place(self, lengths: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """Where on the grid the frequencies of clips lie: the one below, int64, and the way to the next; ``(batch, frames)``."""
        bins = self.log_power.shape[1]
        place = torch.arange(frames, device=lengths.device) * bins / lengths[:, None]
        low = place.long().clamp(max=bins - 1)
        return low, (place - low).clamp(max=1)


class GaussianModes(Prediction):
    """The modes of clips of certain lengths, and their variances ``power``, ``(batch or 1, channels, frame)``."""

    def __init__(self, gaussian: Gaussian, like: Tensor, mask: Tensor | None, cond: Tensor | None) -> None:
        flat, self.mean = like.flatten(1, -2), None
        lengths = _lengths(flat if mask is not None else flat[:1], mask)
        dtype = torch.promote_types(like.dtype, torch.float32)
        low, share = gaussian.place(lengths, like.shape[-1])
        table = gaussian.log_power.to(dtype)[None]
        if gaussian.class_power is not None and gaussian.class_mean is not None and cond is not None:
            n_steps = gaussian.class_power.shape[1]
            knowing = cond.to(dtype)
            with torch.autocast(like.device.type, enabled=False):
                own = torch.einsum("bk,kcf->bcf", knowing, gaussian.class_power.to(dtype) - table[:, :n_steps])
                means = knowing @ gaussian.class_mean.to(dtype)
            table = torch.cat([table[:, :n_steps] + own, table[:, n_steps:].expand(own.shape[0], -1, -1)], dim=1)
            real = torch.arange(like.shape[-1], device=like.device) < lengths[:, None]
            steps = means[..., None] * real[:, None]
            self.mean = flat.new_zeros(steps.shape[0], *flat.shape[1:], dtype=dtype)
            self.mean[:, gaussian.ways] = steps
        high = (low + 1).clamp(max=table.shape[2] - 1)
        size = (*torch.broadcast_shapes(table.shape[:1], low.shape[:1]), table.shape[1], -1)
        below, above = (table.expand(size).gather(2, at[:, None].expand(size)) for at in (low, high))
        self.power = torch.lerp(below, above, share.to(dtype)[:, None]).exp()
        self.basis = gaussian.basis.to(dtype)
        self.cosines = _cosines(lengths, flat.to(dtype))
        self.gaussian = gaussian

    def of(self, x: Tensor) -> Tensor:
        """``(batch, ..., frame)`` -> ``(batch, component, frequency)``."""
        with torch.autocast(x.device.type, enabled=False):
            return self.basis.T @ (x.flatten(1, -2).to(self.basis) @ self.cosines.mT)

    def around(self, x: Tensor, signal: Tensor | float = 1.0) -> Tensor:
        """The modes of what clips ``(batch, ..., frame)`` are beside ``signal``, shaped like alpha_bar, times their mean."""
        return self.of(x if self.mean is None else x - signal * self.mean.reshape(-1, *x.shape[1:]))

    def back(self, y: Tensor, like: Tensor) -> Tensor:
        """``(batch, component, frequency)`` -> shaped like ``like``."""
        with torch.autocast(y.device.type, enabled=False):
            return (self.basis @ (y @ self.cosines)).reshape(like.shape)

    def total(self, alpha_bar: Tensor) -> Tensor:
        """Variance of the modes of xt."""
        return alpha_bar * self.power + (1 - alpha_bar)

    def network_input(self, xt: Tensor, alpha_bar: Tensor) -> Tensor:
        """xt with every mode scaled to variance 1."""
        return self.back(self.around(xt, alpha_bar.sqrt()) / self.total(_per_clip(alpha_bar)).sqrt(), xt)

    def convert(self, output: Tensor, xt: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
        """The linear estimate plus the scaled output, and the noise that explains xt."""
        alpha, alpha_bar = alpha_bar, _per_clip(alpha_bar)
        power, total = self.power, self.total(alpha_bar)
        signal, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        y, output = self.around(xt, alpha.sqrt()), self.of(output)
        scale = (power / total).sqrt()
        x0_hat = self.back(signal * power / total * y + sigma * scale * output, xt)
        x0_hat = x0_hat if self.mean is None else x0_hat + self.mean.reshape(-1, *xt.shape[1:]).to(x0_hat)
        return x0_hat, self.back(sigma / total * y - signal * scale * output, xt)

    def error(self, output: Tensor, x0: Tensor, eps: Tensor, alpha_bar: Tensor, weighting: Callable[[Tensor], Tensor]) -> Tensor:
        """Squared errors of x0_hat mode by mode, each with the weight of its own signal-to-noise ratio over its variance.

        The weighting sees SNR times S, the signal-to-noise ratio of the mode. The result is ``(batch, component, frequency)`` in
        the shape of x0; a clip of n real frames has n real frequencies, so that the mask of frames is that of the result too.
        """
        alpha_bar, power, emphasis = _per_clip(alpha_bar), self.power, self.gaussian.emphasis
        root, total = power.sqrt(), self.total(alpha_bar)
        target = ((1 - alpha_bar).sqrt() / root * self.around(x0) - alpha_bar.sqrt() * root * self.of(eps)) / total.sqrt()
        snr = power * alpha_bar / (1 - alpha_bar)
        share = power**emphasis / (emphasis * self.gaussian.log_power).exp().mean()
        return (share * weighting(snr) / (1 + snr) * (self.of(output) - target).square()).reshape(x0.shape)


def _with_means(gaussian: Gaussian, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Checkpoints of earlier versions have variances of actions without their means, which were 0."""
    if gaussian.class_mean is not None:
        state_dict.setdefault(f"{prefix}class_mean", torch.zeros_like(gaussian.class_mean))


def _cosines(lengths: Tensor, like: Tensor) -> Tensor:
    """Orthonormal DCT-II of each length, ``(batch, frequency, frame)``; 0 beyond it, both ways."""
    place = torch.arange(like.shape[-1], device=like.device)
    length = lengths[:, None, None]
    m, frame = place[:, None], place[None, :]
    # The angle is m (2 frame + 1) pi / (2 length), reduced to one turn while it is a whole number, so that nothing is rounded.
    angle = (m * (2 * frame + 1)).remainder(4 * length).to(like.dtype) * (math.pi / 2 / length.to(like.dtype))
    scale = torch.where(m == 0, 1, 2).to(like.dtype) / length.to(like.dtype)
    return angle.cos() * scale.sqrt() * ((m < length) & (frame < length))


def _lengths(clips: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return torch.full((len(clips),), clips.shape[-1], device=clips.device)
    return mask.flatten(1, -2)[:, 0].sum(dim=1).long()


def _per_clip(alpha_bar: Tensor) -> Tensor:
    return alpha_bar.reshape(-1, 1, 1)
