"""What the network's output means. Each class turns it into (x0_hat, eps_hat); nothing else knows which one is in use.

Network + conversion is the epsilon-model of Ho et al. 2020, whatever the network itself outputs: with
eps_hat = (xt - sqrt(alpha_bar) x0_hat) / sqrt(1 - alpha_bar) the loss ||eps - eps_hat||^2 is SNR ||x0 - x0_hat||^2.
"""

from typing import Protocol

import torch
from torch import Tensor


class Prediction(Protocol):
    """Meaning of a network's output. ``alpha_bar`` broadcasts against ``xt``.

    Attributes:
        needs_signal: whether the output says nothing about x0 where alpha_bar is 0, so that no schedule may end there.
    """

    needs_signal: bool

    def target(self, x0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
        """What the network should output."""
        ...

    def convert(self, output: Tensor, xt: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
        """(x0_hat, eps_hat) from the network's output."""
        ...

    def x0_scale(self, alpha_bar: Tensor) -> Tensor:
        """k such that ||x0 - x0_hat||^2 = k ||target - output||^2."""
        ...


class Epsilon:
    """The network outputs the noise (Ho et al. 2020)."""

    needs_signal = True  # pure noise is its own answer: every x0 explains it

    def target(self, x0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
        """The noise itself."""
        return eps

    def convert(self, output: Tensor, xt: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
        """x0_hat from xt = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps."""
        return (xt - (1 - alpha_bar).sqrt() * output) / alpha_bar.sqrt(), output

    def x0_scale(self, alpha_bar: Tensor) -> Tensor:
        """One over the signal-to-noise ratio."""
        return (1 - alpha_bar) / alpha_bar


class X0:
    """The network outputs the clean clip (as MDM, Tevet et al. 2022)."""

    needs_signal = False

    def target(self, x0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
        """The clean clip itself."""
        return x0

    def convert(self, output: Tensor, xt: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
        """eps_hat from xt = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps."""
        return output, (xt - alpha_bar.sqrt() * output) / (1 - alpha_bar).sqrt()

    def x0_scale(self, alpha_bar: Tensor) -> Tensor:
        """1: the target is the clean clip."""
        return torch.ones_like(alpha_bar)


class Velocity:
    """The network outputs v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0 (Salimans & Ho 2022, section 4)."""

    needs_signal = False

    def target(self, x0: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
        """The velocity: (xt, v) is (x0, eps) turned by an angle whose cosine is sqrt(alpha_bar)."""
        return alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x0

    def convert(self, output: Tensor, xt: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
        """Turned back; no division, so both are well-conditioned at every noise level."""
        signal, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        return signal * xt - sigma * output, sigma * xt + signal * output

    def x0_scale(self, alpha_bar: Tensor) -> Tensor:
        """1 - alpha_bar: at a given xt, x0_hat moves by sqrt(1 - alpha_bar) times what the output moves by."""
        return 1 - alpha_bar
