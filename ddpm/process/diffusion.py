"""DenoiseDiffusion: the forward process, one reverse step and the loss of Ho et al. 2020."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ddpm.process.prediction import Epsilon, Prediction
from ddpm.process.schedules import linear
from ddpm.process.timestep_sampling import Timesteps, Uniform
from ddpm.process.variance import Fixed, Learned, Variance, reverse_variance
from ddpm.process.weighting import simple


class Denoised(NamedTuple):
    """Estimates of the clean clip and of the noise ``(batch, ...)``, and the `ddpm.process.variance` of an ancestral step."""

    x0_hat: Tensor
    eps_hat: Tensor
    fraction: Tensor | float = 1.0


class ClipLosses(NamedTuple):
    """The loss of a batch, clip by clip."""

    total: Tensor  # (batch,) sums of the weighted errors over the real elements of each clip
    count: Tensor  # (batch,) numbers of real elements  # pyright: ignore[reportIncompatibleMethodOverride]
    weight: Tensor  # (batch, 1, ...) of the squared error of x0_hat at this noise level
    estimate: Callable[[], Tensor]  # computes x0_hat, which not every loss needs

    @property
    def x0_hat(self) -> Tensor:
        """``(batch, ...)`` estimates of the clean clips."""
        return self.estimate()

    @property
    def mean(self) -> Tensor:
        """The loss of the batch, a scalar: every real element counts alike."""
        return self.total.sum() / self.count.sum()


class DenoiseDiffusion(nn.Module):
    """A diffusion of T steps over tensors of any shape ``(batch, ...)``.

    A step ``t`` is int64 ``(batch,)`` in 0..T-1, 0 = least noise; alpha_bar before step 0 is 1. ``cond`` is ``(batch, clip_dim)``
    or None; ``mask`` broadcasts against the clips, 1 where they are real and 0 where they are padded, or is None.

    Args:
        eps_model: the network, ``(xt, t, cond) -> output``, or ``(xt, t, cond, mask)`` where clips are padded. Its output is
            shaped like ``xt``, and `prediction` says what it means.
        n_steps: T, at least 2.
        device: of the tables; None for the CPU.
        beta_schedule: T -> ``(T,)`` float64 beta.
        prediction: turns the network's output into (x0_hat, eps_hat); None for `Epsilon`.
        weighting: SNR -> weight on ||x0 - x0_hat||^2.
        timesteps: timestep sampler of training; None for `Uniform`.
        variance: of a reverse step; None for beta.

    Raises:
        ValueError: T below 2, a schedule whose betas leave (0, 1), or one that ends without the signal that prediction needs.
    """

    beta: Tensor
    alpha: Tensor
    alpha_bar: Tensor
    sigma2: Tensor

    def __init__(
        self,
        eps_model: Callable[..., Tensor],
        n_steps: int,
        device: torch.device | str | None = None,
        beta_schedule: Callable[[int], Tensor] = linear,
        prediction: Prediction | None = None,
        weighting: Callable[[Tensor], Tensor] = simple,
        timesteps: Timesteps | None = None,
        variance: Variance | None = None,
    ) -> None:
        super().__init__()
        self.eps_model = eps_model
        self.n_steps = n_steps
        self.prediction = Epsilon() if prediction is None else prediction
        self.weighting = weighting
        self.timesteps = Uniform() if timesteps is None else timesteps
        self.variance = Fixed() if variance is None else variance
        beta = beta_schedule(n_steps).double()
        inside = beta.shape == (n_steps,) and bool(((beta > 0) & (beta <= 1)).all() & (beta[:-1] < 1).all())
        if not inside:
            raise ValueError(f"schedule: needs {n_steps} betas inside (0, 1), got {tuple(beta.shape)}: {beta}")
        if beta[-1] == 1 and self.prediction.needs_signal:
            raise ValueError(
                "prediction=epsilon is undefined where the schedule ends: alpha_bar is 0 there, xt is the noise itself, and the "
                "network could answer with its input whatever the clip was; use prediction=velocity or prediction=x0"
            )
        # float64 until here: the float32 product of 1000 factors near 1 would already be off in the fourth digit.
        alpha_bar = torch.log1p(-beta).cumsum(0).exp()
        before = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
        tables = {
            "beta": beta,
            "alpha": 1 - beta,
            "alpha_bar": alpha_bar,
            "sigma2": reverse_variance(1 - beta, (1 - before) / (1 - alpha_bar), self.variance.fraction),
        }
        for name, table in tables.items():
            # Not in the state_dict: T and the schedule of the configuration determine them.
            self.register_buffer(name, table.float().to(device), persistent=False)

    def q_xt_x0(self, x0: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean, shaped like x0, and variance, ``(batch, 1, ...)``, of q(xt | x0): equation 4."""
        alpha_bar = gather(self.alpha_bar, t, x0)
        return alpha_bar.sqrt() * x0, 1 - alpha_bar

    def q_sample(self, x0: Tensor, t: Tensor, eps: Tensor | None = None) -> Tensor:
        """A draw from q(xt | x0), with the noise ``eps`` if given."""
        mean, var = self.q_xt_x0(x0, t)
        return mean + var.sqrt() * (torch.randn_like(x0) if eps is None else eps)

    def denoise(self, xt: Tensor, t: Tensor, cond: Tensor | None = None, mask: Tensor | None = None) -> Denoised:
        """The network's estimates for clips ``(batch, ...)`` at step t."""
        alpha_bar, prediction = gather(self.alpha_bar, t, xt), self.prediction.for_clips(xt, mask, cond)
        output, fraction = self.variance.split(self._network(prediction.network_input(xt, alpha_bar), t, cond, mask), xt)
        return Denoised(*prediction.convert(output, xt, alpha_bar), fraction)

    def p_sample(self, xt: Tensor, t: Tensor, noise: Tensor | None = None) -> Tensor:
        """One step of Algorithm 2: a draw of x_{t-1} given xt, with z = ``noise`` if given, without noise where t = 0.

        Clips of one batch may be at different steps. The algorithm's sigma_t^2 = beta_t is the default of `variance`.
        """
        x0_hat, eps_theta, fraction = self.denoise(xt, t)
        alpha, alpha_bar = gather(self.alpha, t, xt), gather(self.alpha_bar, t, xt)
        before = torch.where(per_clip(t > 0, xt), gather(self.alpha_bar, (t - 1).clamp(min=0), xt), 1.0)
        sigma2 = gather(self.sigma2, t, xt)
        if isinstance(fraction, Tensor):
            # beta-tilde is 0 where t = 0, and infinite to a negative power; the network is untrained there and no noise is added.
            ratio = torch.where(per_clip(t > 0, xt), (1 - before) / (1 - alpha_bar), 1.0)
            sigma2 = reverse_variance(alpha, ratio, fraction)
        z = torch.randn_like(xt) if noise is None else noise
        return reverse_mean(x0_hat, eps_theta, alpha, alpha_bar, before) + sigma2**0.5 * per_clip(t > 0, xt) * z

    def loss(
        self,
        x0: Tensor,
        noise: Tensor | None = None,
        *,
        t: Tensor | None = None,
        cond: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Algorithm 1: mean weighted ||eps - eps_theta(xt, t)||^2, in expectation over t uniform over all steps.

        ``noise`` is eps, shaped like x0; it and t are drawn if None. Every real element counts alike.
        """
        return self.clip_losses(x0, noise, t=t, cond=cond, mask=mask).mean

    def clip_losses(
        self,
        x0: Tensor,
        noise: Tensor | None = None,
        *,
        t: Tensor | None = None,
        cond: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> ClipLosses:
        """`loss`, clip by clip."""
        drawn = t is None
        t, share = self.timesteps(len(x0), self.n_steps, x0.device) if t is None else (t, torch.ones(len(x0), device=x0.device))
        eps = torch.randn_like(x0) if noise is None else noise
        alpha_bar, xt = gather(self.alpha_bar, t, x0), self.q_sample(x0, t, eps)
        prediction = self.prediction.for_clips(xt, mask, cond)
        output, fraction = self.variance.split(self._network(prediction.network_input(xt, alpha_bar), t, cond, mask), x0)
        error = prediction.error(output, x0, eps, alpha_bar, self.weighting)

        def x0_hat() -> Tensor:
            return prediction.convert(output, xt, alpha_bar)[0]

        if isinstance(self.variance, Learned):
            before = gather(self.alpha_bar, (t - 1).clamp(min=0), x0)
            error = error + self.variance.loss(fraction, (x0 - x0_hat()).detach(), alpha_bar, before, self.n_steps)
        real = torch.ones_like(x0) if mask is None else mask.expand_as(x0).to(x0)
        total, count = ((x * real).reshape(len(x0), -1).sum(1) for x in (error, real))
        if drawn and self.training:
            self.timesteps.observe(t, self.n_steps, (total / count).detach())
        weight = self.weighting(alpha_bar / (1 - alpha_bar))
        return ClipLosses(share * total, count, weight * per_clip(share, x0), x0_hat)

    def _network(self, seen: Tensor, t: Tensor, cond: Tensor | None, mask: Tensor | None) -> Tensor:
        return self.eps_model(seen, t, cond) if mask is None else self.eps_model(seen, t, cond, mask)


def reverse_mean(
    x0_hat: Tensor, eps_hat: Tensor, alpha: Tensor | float, alpha_bar: Tensor | float, before: Tensor | float
) -> Tensor:
    """Mean of a reverse step, equation 7 of Ho et al. 2020 with xt written in x0_hat and eps_hat.

    With x0_hat written in xt and eps_hat it is their equation 11 and line 4 of Algorithm 2. In this form it is finite where
    alpha_bar is 0, and x0_hat itself where ``before``, alpha_bar at the sampler's next step, is 1. alpha is alpha_bar / before.
    """
    return before**0.5 * x0_hat + alpha**0.5 * (1 - before) / (1 - alpha_bar) ** 0.5 * eps_hat


def gather(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """``table[t]`` as ``(batch, 1, ...)`` with as many axes as ``like``."""
    return per_clip(table[t], like)


def per_clip(values: Tensor, like: Tensor) -> Tensor:
    """``(batch,)`` -> ``(batch, 1, ...)`` with as many axes as ``like``."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
