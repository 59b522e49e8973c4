"""What sampling needs beside a sampler: a device, its cost, and a progress bar."""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ddpm.errors import ConfigError
from ddpm.process.samplers import Observer, Sampler


def choose_device(name: str | torch.device) -> torch.device:
    """The device with this name; ``auto`` is the accelerator if there is one.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={name}: not usable here ({str(error).splitlines()[0]})") from error


class Cost(NamedTuple):
    """What a sampler does: how many diffusion steps it visits, at each of which it calls its observer, and its network calls."""

    visits: int
    calls: int


def cost(sampler: Sampler, alpha_bar: Tensor, calls_at: Callable[[int], int] = lambda t: 1) -> Cost:
    """The cost of a sampler, found out on a single number.

    Args:
        sampler: to be run.
        alpha_bar: that it will be given.
        calls_at: network calls when it asks at diffusion step t, see `ddpm.module.MotionDiffusion.calls_at`.

    Raises:
        ValueError: whatever the sampler has to say of its arguments.
    """
    noise, seen, asked = torch.zeros(1, 1), [], []

    def denoise(xt: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        asked.append(calls_at(int(t)))
        return xt, xt

    sampler(denoise, noise, alpha_bar, randn=lambda: noise, observer=lambda t, xt, x0_hat: seen.append(t))
    return Cost(len(seen), sum(asked))


@contextlib.contextmanager
def progress_bar(
    sampler: Sampler, alpha_bar: Tensor, batches: int, label: str, observer: Observer | None = None, hidden: bool = False
) -> Iterator[Observer | None]:
    """An observer that moves a progress bar by one for each step of each batch, and calls another one.

    Args:
        sampler: that will be observed.
        alpha_bar: that it will be given.
        batches: how often it will run.
        label: in front of the bar.
        observer: called as well.
        hidden: show no bar.
    """
    if hidden:
        yield observer
        return
    with tqdm(total=batches * cost(sampler, alpha_bar).visits, desc=label, unit="step", leave=False, mininterval=0.5) as bar:

        def observe(t: int, xt: Tensor, x0_hat: Tensor) -> None:
            bar.update()
            if observer is not None:
                observer(t, xt, x0_hat)

        yield observe
