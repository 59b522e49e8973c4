"""DenoiseDiffusion: the forward process, one reverse step and the loss of Ho et al. 2020."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ddpm.prediction import Epsilon, Prediction
from ddpm.schedules import linear
from ddpm.timesteps import uniform
from ddpm.weighting import simple


class DenoiseDiffusion(nn.Module):
    """A diffusion of T steps over tensors of any shape ``(batch, ...)``.

    A step ``t`` is int64 ``(batch,)`` in 0..T-1, 0 = least noise; alpha_bar before step 0 is 1.

    Args:
        eps_model: the network, ``(xt, t, cond) -> output`` with the shape of ``xt``; what its output means is `prediction`'s.
        n_steps: T, at least 2.
        device: where the tables go; None leaves them on the CPU until the module is moved.
        beta_schedule: T -> ``(T,)`` float64 beta.
        prediction: turns the network's output into (x0_hat, eps_hat).
        weighting: SNR -> weight on ||eps - eps_hat||^2.
        timesteps: (batch, T, device) -> the steps that a batch is trained at.

    Raises:
        ValueError: T below 2, or a schedule whose betas leave (0, 1).
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
        timesteps: Callable[[int, int, torch.device], Tensor] = uniform,
    ) -> None:
        super().__init__()
        self.eps_model = eps_model
        self.n_steps = n_steps
        self.prediction = Epsilon() if prediction is None else prediction
        self.weighting = weighting
        self.timesteps = timesteps
        beta = beta_schedule(n_steps).double()
        if beta.shape != (n_steps,) or not bool(((beta > 0) & (beta < 1)).all()):
            raise ValueError(f"schedule: needs {n_steps} betas inside (0, 1), got {tuple(beta.shape)}: {beta}")
        # float64 until here: the float32 product of 1000 factors near 1 would already be off in the fourth digit.
        alpha_bar = torch.log1p(-beta).cumsum(0).exp()
        tables = {
            "beta": beta,
            "alpha": 1 - beta,
            "alpha_bar": alpha_bar,
            "sigma2": beta,
        }
        for name, table in tables.items():
            # Not in the state_dict: T and the schedule in the configuration say the same, and cannot disagree with themselves.
            self.register_buffer(name, table.float().to(device), persistent=False)

    def q_xt_x0(self, x0: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of q(xt | x0), equation 4.

        Args:
            x0: ``(batch, ...)``.
            t: ``(batch,)`` int64.

        Returns:
            The mean, shaped like x0, and the variance, ``(batch, 1, ...)``.
        """
        alpha_bar = gather(self.alpha_bar, t, x0)
        return alpha_bar.sqrt() * x0, 1 - alpha_bar

    def q_sample(self, x0: Tensor, t: Tensor, eps: Tensor | None = None) -> Tensor:
        """A draw from q(xt | x0), with the noise ``eps`` if given.

        Args:
            x0: ``(batch, ...)``.
            t: ``(batch,)`` int64.
            eps: standard normal, shaped like x0; drawn here if None.
        """
        mean, var = self.q_xt_x0(x0, t)
        return mean + var.sqrt() * (torch.randn_like(x0) if eps is None else eps)

    def denoise(self, xt: Tensor, t: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(x0_hat, eps_hat) at step t: all that a sampler needs of a network.

        Args:
            xt: ``(batch, ...)``.
            t: ``(batch,)`` int64.
            cond: ``(batch, clip_dim)``, or None.
        """
        return self.prediction.convert(self.eps_model(xt, t, cond), xt, gather(self.alpha_bar, t, xt))

    def p_sample(self, xt: Tensor, t: Tensor, noise: Tensor | None = None) -> Tensor:
        """One step of Algorithm 2: a draw of x_{t-1} given xt, with sigma_t^2 = beta_t and no noise where t = 0.

        Args:
            xt: ``(batch, ...)``.
            t: ``(batch,)`` int64; clips of one batch may be at different steps.
            noise: the z of the algorithm, shaped like xt; drawn here if None.
        """
        _, eps_theta = self.denoise(xt, t)
        mean = reverse_mean(xt, eps_theta, gather(self.alpha, t, xt), gather(self.alpha_bar, t, xt))
        z = torch.randn_like(xt) if noise is None else noise
        return mean + gather(self.sigma2, t, xt).sqrt() * per_clip(t > 0, xt) * z

    def loss(
        self,
        x0: Tensor,
        noise: Tensor | None = None,
        *,
        t: Tensor | None = None,
        cond: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Algorithm 1: mean weighted ||eps - eps_theta(xt, t)||^2, with t uniform over all steps.

        It is computed on the network's own target, which is the same number (see `prediction`) without the cancellation.

        Args:
            x0: ``(batch, ...)``.
            noise: eps, shaped like x0; drawn here if None.
            t: ``(batch,)`` int64; drawn here if None.
            cond: ``(batch, clip_dim)``, or None.
            mask: broadcasts against x0; 1 where x0 is real, 0 where it is padding. Every real element counts alike.

        Returns:
            A scalar.
        """
        t = self.timesteps(len(x0), self.n_steps, x0.device) if t is None else t
        eps = torch.randn_like(x0) if noise is None else noise
        alpha_bar = gather(self.alpha_bar, t, x0)
        xt = self.q_sample(x0, t, eps)
        error = (self.eps_model(xt, t, cond) - self.prediction.target(x0, eps, alpha_bar)).square()
        weight = self.weighting(alpha_bar / (1 - alpha_bar)) * self.prediction.eps_scale(alpha_bar)
        if mask is None:
            return (weight * error).mean()
        mask = mask.expand_as(x0)
        return (weight * error * mask).sum() / mask.sum()


def reverse_mean(xt: Tensor, eps_hat: Tensor, alpha: Tensor | float, alpha_bar: Tensor | float) -> Tensor:
    """Mean of a reverse step, equation 11 of Ho et al. 2020.

    Args:
        xt: ``(batch, ...)``.
        eps_hat: the predicted noise, shaped like xt.
        alpha: ratio of alpha_bar at this step to that at the next one (of the step itself, where no step is left out).
        alpha_bar: at this step.
    """
    return (xt - (1 - alpha) / (1 - alpha_bar) ** 0.5 * eps_hat) / alpha**0.5


def gather(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """``table[t]`` as ``(batch, 1, ...)`` with as many axes as ``like``."""
    return per_clip(table[t], like)


def per_clip(values: Tensor, like: Tensor) -> Tensor:
    """``(batch,)`` -> ``(batch, 1, ...)`` with as many axes as ``like``."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
