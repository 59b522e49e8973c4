"""Step for step beside the Diffusers library: the same epsilon function, tables, diffusion steps and noise, all in float32."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.process.prediction import Epsilon, Prediction, Velocity
from ddpm.process.samplers import Sampler, ddim, ddpm, dpmpp_2m, dpmpp_2m_sde, unipc
from ddpm.process.schedules import cosine, linear, sigmoid, zero_terminal_snr
from ddpm.process.spacing import spaced_steps

diffusers = pytest.importorskip("diffusers", reason='needs pip install -e ".[dev]"')
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # theirs

T = 1000
SHAPE = (3, 4, 5)
# Where alpha_bar ends at 1e-9, x0_hat = (xt - sigma eps) / signal magnifies the last bit of float32 to 1e-3 in either library.
SCHEDULES = [linear, partial(cosine, beta_max=0.1), partial(sigmoid, alpha_bar_min=1e-4)]


def scheduler_of(name: str, schedule: Callable[[int], Tensor], **options: Any) -> Any:
    return getattr(diffusers, name)(num_train_timesteps=T, trained_betas=schedule(T).numpy(), **options)


def epsilon_of(alpha_bar: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The exact epsilon for data that are half and half N(-1, 0.3^2) and N(1, 0.3^2) in every number: curved."""

    def epsilon(xt: Tensor, t: Tensor) -> Tensor:
        ab = alpha_bar.to(xt)[t].reshape(-1, *[1] * (xt.ndim - 1))
        var = 0.09 * ab + 1 - ab
        return (1 - ab).sqrt() * (xt - ab.sqrt() * (ab.sqrt() * xt / var).tanh()) / var

    return epsilon


def draws() -> Callable[[], Tensor]:
    g = torch.Generator().manual_seed(1)
    return lambda: torch.randn(SHAPE, generator=g)


def difference(
    sampler: Sampler,
    scheduler: Any,
    step: Callable[[Tensor, Tensor, Tensor], Any],
    network: Callable[[Tensor, Tensor], Tensor] | None = None,
    prediction: Prediction | None = None,
    **arguments: Any,
) -> float:
    """Largest difference of x over all steps and the end; the visited steps must be the same."""
    alpha_bar = scheduler.alphas_cumprod
    network = epsilon_of(alpha_bar) if network is None else network
    prediction = Epsilon() if prediction is None else prediction
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    visited: list[int] = []
    path: list[Tensor] = []

    def denoise(xt: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return prediction.convert(network(xt, t), xt, alpha_bar.to(xt)[t].reshape(-1, 1, 1))

    def observer(t: int, xt: Tensor, x0_hat: Tensor) -> None:
        visited.append(t)
        path.append(xt)

    path.append(sampler(denoise, noise, alpha_bar, randn=draws(), observer=observer, **arguments))
    assert visited == scheduler.timesteps.tolist()
    theirs = [noise]
    for t in scheduler.timesteps:
        theirs.append(step(network(theirs[-1], t.expand(len(noise))), t, theirs[-1]).prev_sample)
    assert path[0].dtype == theirs[-1].dtype == torch.float32
    assert theirs[-1].abs().max() < 10  # nothing that blew up alike
    return (torch.stack(path) - torch.stack(theirs)).abs().max().item()


@pytest.mark.parametrize("spacing", ["uniform", "logsnr", "karras"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [10, 50])
def test_ddpm(steps: int, schedule: Callable[[int], Tensor], spacing: str) -> None:
    scheduler = scheduler_of("DDPMScheduler", schedule, variance_type="fixed_large", clip_sample=False)
    # It divides neighbouring alpha_bar and takes the ratio from 1, which leaves float32 four digits; x stays float32.
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.set_timesteps(timesteps=spaced_steps(scheduler.alphas_cumprod, steps, spacing))
    step = partial(scheduler.step, generator=torch.Generator().manual_seed(1))
    assert difference(ddpm, scheduler, step, steps=steps, spacing=spacing) < 1e-4


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [10, 50])  # divisors of T: the scheduler's own strides are whole numbers
def test_ddim(steps: int, schedule: Callable[[int], Tensor], eta: float) -> None:
    scheduler = scheduler_of("DDIMScheduler", schedule, clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    randn = draws()

    def step(output: Tensor, t: Tensor, x: Tensor) -> Any:
        return scheduler.step(output, t, x, eta=eta, variance_noise=randn() if eta > 0 else None)

    assert difference(partial(ddim, eta=eta), scheduler, step, steps=steps, spacing="trailing") < 1e-4


def test_zero_terminal_snr() -> None:
    """Algorithm 1 of Lin et al. 2023; theirs keeps the first step, ours the clean clip before it."""
    beta = linear(T)
    theirs = diffusers.schedulers.scheduling_ddim.rescale_zero_terminal_snr(beta)
    alpha_bar, expected = ((1 - b).cumprod(0) for b in (zero_terminal_snr(T), theirs))
    torch.testing.assert_close(alpha_bar.sqrt(), expected.sqrt(), rtol=0, atol=1e-6)
    assert (alpha_bar.sqrt() - (1 - beta).cumprod(0).sqrt()).abs().max() > 1e-3  # as far as it moved from the linear one


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [5, 50])
def test_ddim_from_pure_noise(steps: int, eta: float) -> None:
    """The sampler of Lin et al. 2023: no signal at the first step, a network that predicts the velocity, trailing strides."""
    options = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    scheduler = scheduler_of("DDIMScheduler", linear, clip_sample=False, **options)
    assert scheduler.alphas_cumprod[-1] == 0
    scheduler.set_timesteps(steps)
    alpha_bar, randn = scheduler.alphas_cumprod, draws()

    def velocity(xt: Tensor, t: Tensor) -> Tensor:
        ab = alpha_bar.to(xt)[t].reshape(-1, *[1] * (xt.ndim - 1))
        x0_hat = (2 * ab.sqrt() * xt).tanh()
        return Velocity().target(x0_hat, (xt - ab.sqrt() * x0_hat) / (1 - ab).sqrt(), ab)

    def step(output: Tensor, t: Tensor, x: Tensor) -> Any:
        return scheduler.step(output, t, x, eta=eta, variance_noise=randn() if eta > 0 else None)

    sampler = partial(ddim, eta=eta)
    assert difference(sampler, scheduler, step, velocity, Velocity(), steps=steps, spacing="trailing") < 1e-4


@pytest.mark.parametrize("spacing", ["uniform", "trailing", "logsnr", "karras"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [7, 20])
@pytest.mark.parametrize(("sampler", "algorithm"), [(dpmpp_2m, "dpmsolver++"), (dpmpp_2m_sde, "sde-dpmsolver++")])
def test_dpmpp(sampler: Sampler, algorithm: str, steps: int, schedule: Callable[[int], Tensor], spacing: str) -> None:
    scheduler = scheduler_of("DPMSolverMultistepScheduler", schedule, algorithm_type=algorithm, solver_order=2)
    scheduler.set_timesteps(timesteps=spaced_steps(scheduler.alphas_cumprod, steps, spacing))
    randn = draws()

    def step(output: Tensor, t: Tensor, x: Tensor) -> Any:
        return scheduler.step(output, t, x, variance_noise=randn())

    assert difference(sampler, scheduler, step, steps=steps, spacing=spacing) < 1e-4


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [7, 20, 50])
def test_unipc(steps: int, schedule: Callable[[int], Tensor]) -> None:
    options = {"solver_order": 2, "solver_type": "bh2", "timestep_spacing": "trailing"}
    scheduler = scheduler_of("UniPCMultistepScheduler", schedule, **options)
    scheduler.set_timesteps(steps)
    # The observer sees the predicted x, which is what this scheduler returns; it corrects inside its next step, as ours does.
    assert difference(unipc, scheduler, scheduler.step, steps=steps, spacing="trailing") < 1e-4
