"""Variance of a reverse step: how much noise ancestral sampling adds back.

The best value lies between beta-tilde, right if x0 were a single point, and beta, right if x0 were standard normal (Ho et al.
2020, section 3.2). It is written as a place between the two, ``fraction`` in log(sigma^2): 0 is beta-tilde, 1 is beta.
"""

import torch
from torch import Tensor

LARGEST = 10.0
"""Largest sigma^2 in sampling, times beta: right for clips of three times the deviation of noise. Over few steps the ratio of
beta-tilde to beta is small, and a fraction slightly above 1 would mean a hundred times beta."""


def reverse_variance(alpha: Tensor | float, ratio: Tensor | float, fraction: Tensor | float) -> Tensor | float:
    """sigma^2 = beta^fraction beta-tilde^(1 - fraction), equation 15 of Nichol & Dhariwal 2021.

    With alpha = alpha_bar at this step over that at the next one, beta is 1 - alpha; ratio = beta-tilde / beta = (1 - alpha_bar
    at the next step) / (1 - alpha_bar at this step). Where fraction is learned, a tensor, sigma^2 is at most `LARGEST` beta.
    """
    sigma2 = (1 - alpha) * ratio ** (1 - fraction)
    return sigma2.clamp(max=LARGEST * (1 - alpha)) if isinstance(fraction, Tensor) else sigma2


class Fixed:
    """The same fraction at every step, in 0..1: 1 is beta, as in Algorithm 2 of Ho et al. 2020; 0 is beta-tilde."""

    outputs = 1  # numbers that the network must output for each number of a clip

    def __init__(self, fraction: float = 1.0) -> None:
        if not 0 <= fraction <= 1:
            raise ValueError(f"variance.fraction={fraction} must be in 0..1, from beta-tilde to beta")
        self.fraction = fraction

    def split(self, output: Tensor, like: Tensor) -> tuple[Tensor, float]:
        """(the prediction's part of the network's output, shaped like ``like``; fraction): here all of the output."""
        return output, self.fraction


class Learned:
    """The network outputs the fraction, for each number of a clip, in a second set of channels (Nichol & Dhariwal 2021).

    It is trained by the variational bound with the mean held fixed, which is added to the loss with the positive weight
    ``vlb_weight``: their L_hybrid.
    """

    outputs = 2
    fraction = 1.0  # of the tables

    def __init__(self, vlb_weight: float = 0.001) -> None:
        if not vlb_weight > 0:
            raise ValueError(f"variance.vlb_weight={vlb_weight} must be positive")
        self.vlb_weight = vlb_weight

    def split(self, output: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """The first half of the channels is the prediction's; the second one is the fraction's, -1 for 0 and 1 for 1.

        It may go beyond: of data that vary more than the noise, the variance of a reverse step is larger than beta.
        """
        mean, place = (half.reshape(like.shape) for half in output.chunk(2, dim=1))
        return mean, (1 + place) / 2

    def loss(self, fraction: Tensor | float, x0_error: Tensor, alpha_bar: Tensor, before: Tensor, n_steps: int) -> Tensor:
        """What is added to the loss, shaped like x0_error: T vlb_weight KL(q(x_{t-1} | xt, x0) || p(x_{t-1} | xt)) in nats.

        It is 0 at t = 0, where no noise is added.

        x0_error is x0 - x0_hat, without gradient; ``before`` is alpha_bar of the step before, and at t = 0 of the step itself.
        With d = log(sigma^2 / beta-tilde), and since the squared distance of the means over beta-tilde is the change of the SNR
        times ||x0 - x0_hat||^2, it is (d + exp(-d) - 1 + exp(-d) (SNR before - SNR) ||x0 - x0_hat||^2) / 2.
        """
        d = -fraction * torch.log((1 - before) / (1 - alpha_bar))
        gain = before / (1 - before) - alpha_bar / (1 - alpha_bar)
        return n_steps * self.vlb_weight / 2 * (d + (1 + gain * x0_error.square()) * torch.exp(-d) - 1)


Variance = Fixed | Learned
