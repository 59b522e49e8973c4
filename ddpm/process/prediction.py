"""Predictions: what the network sees, and what its output means.

Network + conversion is the epsilon-model of Ho et al. 2020, whatever the network itself outputs: with
eps_hat = (xt - sqrt(alpha_bar) x0_hat) / sqrt(1 - alpha_bar) the loss ||eps - eps_hat||^2 is SNR ||x0 - x0_hat||^2.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Prediction:
    """Meaning of a network's input and output, the same for every number of a clip. ``alpha_bar`` broadcasts against ``xt``.

    Attributes:
        needs_signal: the output says nothing about x0 where alpha_bar is 0, so that no schedule may end there.
        fitted: nothing needs to be measured on training clips, or it has been.
    """

    needs_signal = False
    fitted = True

    def prepare(self, travel: Sequence[int], classes: int) -> None:
        """Learn which channels are steps of the root over the ground, and how many actions condition the network."""

    def fit(self, x0: Tensor, mask: Tensor | None, cond: Tensor | None = None) -> None:
        """Measure on normalised training clips what the conversion depends on; mask and cond are those of `for_clips`."""

    def for_clips(self, like: Tensor, mask: Tensor | None, cond: Tensor | None) -> "Prediction":
        """The conversion for clips ``(batch, ..., frame)`` whose ``mask`` is ``(batch, 1, 1, frame)``, real frames first, and
        whose condition is ``(batch, clip_dim)``; both may be None."""
        return self

    def network_input(self, xt: Tensor, alpha_bar: Tensor) -> Tensor:
        """What the network sees of a noisy clip, shaped like xt."""
        return xt

    def convert(self, output: Tensor, xt: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
        """(x0_hat, eps_hat) from the network's output."""
        raise NotImplementedError

    def target(self, x0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
        """What the network should output."""
        raise NotImplementedError

    def x0_scale(self, alpha_bar: Tensor) -> Tensor:
        """k such that ||x0 - x0_hat||^2 = k ||target - output||^2."""
        raise NotImplementedError

    def error(self, output: Tensor, x0: Tensor, eps: Tensor, alpha_bar: Tensor, weighting: Callable[[Tensor], Tensor]) -> Tensor:
        """Squared errors of x0_hat, weighted by noise level (`ddpm.process.weighting`), shaped like x0.

        Computed on the target, which is the same number without the cancellation.
        """
        weight = weighting(alpha_bar / (1 - alpha_bar))
        return weight * self.x0_scale(alpha_bar) * (output - self.target(x0, eps, alpha_bar)).square()


class Epsilon(Prediction):
    """The network outputs the noise (Ho et al. 2020)."""

    needs_signal = True  # where xt is the noise itself, the network can copy it whatever x0 was

    def target(self, x0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
        """The noise."""
        return eps

    def convert(self, output: Tensor, xt: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
        """x0_hat from xt = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps."""
        return (xt - (1 - alpha_bar).sqrt() * output) / alpha_bar.sqrt(), output

    def x0_scale(self, alpha_bar: Tensor) -> Tensor:
        """One over the signal-to-noise ratio."""
        return (1 - alpha_bar) / alpha_bar


class X0(Prediction):
    """The network outputs the clean clip (as MDM, Tevet et al. 2022)."""

    def target(self, x0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
        """The clean clip."""
        return x0

    def convert(self, output: Tensor, xt: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
        """eps_hat from xt = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps."""
        return output, (xt - alpha_bar.sqrt() * output) / (1 - alpha_bar).sqrt()

    def x0_scale(self, alpha_bar: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(alpha_bar)


class Velocity(Prediction):
    """The network outputs v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0 (Salimans & Ho 2022, section 4)."""

    def target(self, x0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
        """The velocity: (xt, v) is (x0, eps) rotated by an angle whose cosine is sqrt(alpha_bar)."""
        return alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x0

    def convert(self, output: Tensor, xt: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
        """Rotated back; without a division, so that both are well-conditioned at every noise level."""
        signal, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        return signal * xt - sigma * output, sigma * xt + signal * output

    def x0_scale(self, alpha_bar: Tensor) -> Tensor:
        """1 - alpha_bar: at a given xt, x0_hat moves by sqrt(1 - alpha_bar) times what the output moves by."""
        return 1 - alpha_bar


class EDM(Prediction):
    """The network outputs the clean clip where noise is strong and what is left of the noise where it is weak.

    The preconditioning of Karras et al. 2022 (arXiv 2206.00364, equation 7 and table 1) for a variance-preserving process: x0_hat
    is a share of xt plus the scaled output. Their c_out is divided by sigma_data, because clips are normalised to deviation 1:
    `X0` is the limit sigma_data = 0, and sigma_data = 1 is `Velocity` but for the sign.

    Args:
        sigma_data: noise, in units of the clips' standard deviation, below which the network corrects xt instead of redrawing it.

    Raises:
        ValueError: sigma_data is not positive.
    """

    def __init__(self, sigma_data: float = 0.03) -> None:
        if not sigma_data > 0:
            raise ValueError(f"prediction.sigma_data={sigma_data} must be positive")
        self.sigma_data = sigma_data

    def _total(self, alpha_bar: Tensor) -> Tensor:
        return alpha_bar * self.sigma_data**2 + 1 - alpha_bar

    def target(self, x0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
        """x0 less the share of xt, over the scale of the output."""
        share = self.sigma_data**2 * alpha_bar.sqrt()
        return ((1 - alpha_bar).sqrt() * x0 - share * eps) / self._total(alpha_bar).sqrt()

    def convert(self, output: Tensor, xt: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
        """The share of xt plus the scaled output, and the noise that explains xt."""
        signal, sigma, total = alpha_bar.sqrt(), (1 - alpha_bar).sqrt(), self._total(alpha_bar)
        x0_hat = self.sigma_data**2 * signal / total * xt + sigma / total.sqrt() * output
        return x0_hat, sigma / total * xt - signal / total.sqrt() * output

    def x0_scale(self, alpha_bar: Tensor) -> Tensor:
        """The square of the scale of the output."""
        return (1 - alpha_bar) / self._total(alpha_bar)
