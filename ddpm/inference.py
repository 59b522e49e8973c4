"""What the commands do with a trained model: find a device, show progress, and find the data it was trained on."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ddpm.build import ConfigError, construct_data
from ddpm.samplers import Observer, Sampler


def choose_device(name: str) -> torch.device:
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


def own_data(config: Mapping[str, Any], changes: Mapping[str, Any]) -> Any:
    """The data that a model was trained on, split as they were.

    Args:
        config: of the run, from its checkpoint.
        changes: values of ``data`` that are others now, e.g. where the files are; None for those that are not.

    Returns:
        The data module.

    Raises:
        ConfigError: a run that says nothing of its data, a key that they do not have, or a constructor that is none of data.
        DataError: data that are not there, or cannot be used.
    """
    if not config.get("data") or not config.get("loader"):
        raise ConfigError("the checkpoint does not say what data it was trained on")
    changes = {key: value for key, value in changes.items() if value is not None}
    unknown = sorted(changes.keys() - config["data"].keys())
    if unknown:
        raise ConfigError(f"data.{unknown[0]}: the data of this run have {sorted(config['data'].keys() - {'_target_'})}")
    clips = construct_data({**config["data"], **changes}, "data")
    return construct_data(config["loader"], "loader")(clips=clips)


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
def progress(sampler: Sampler, alpha_bar: Tensor, batches: int, label: str) -> Iterator[Observer]:
    """An observer that moves a progress bar by one for each step of each batch.

    Args:
        sampler: that will be observed.
        alpha_bar: that it will be given.
        batches: how often it will run.
        label: in front of the bar.
    """
    with tqdm(total=batches * cost(sampler, alpha_bar).visits, desc=label, unit="step", leave=False, mininterval=0.5) as bar:

        def observer(t: int, xt: Tensor, x0_hat: Tensor) -> None:
            bar.update()

        yield observer
