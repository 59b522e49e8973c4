"""Predictions and weightings: two coordinates of one thing, and closed forms."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ddpm.process.gaussian import Gaussian
from ddpm.process.prediction import EDM, X0, Epsilon, Prediction, Velocity
from ddpm.process.weighting import min_snr, p2, simple, velocity

PREDICTIONS = [Epsilon(), X0(), Velocity(), EDM(), EDM(0.5)]


def gaussian() -> Prediction:
    """One that has measured the clips of `example`, for these clips."""
    measured = Gaussian(3, 2).double()
    measured.fit(example()[0], None)
    return measured.for_clips(example()[0], None, None)


def example(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(x0, eps, alpha_bar, xt) in float64, one noise level a clip, from nearly clean to nearly noise."""
    g = torch.Generator().manual_seed(seed)
    x0, eps = torch.randn(2, 9, 3, 2, generator=g, dtype=torch.float64)
    alpha_bar = torch.tensor([0.9999, 0.99, 0.9, 0.7, 0.5, 0.2, 0.05, 1e-3, 5e-5], dtype=torch.float64).view(9, 1, 1)
    return x0, eps, alpha_bar, alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * eps


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_target_converts_back(prediction: Prediction) -> None:
    x0, eps, alpha_bar, xt = example()
    x0_hat, eps_hat = prediction.convert(prediction.target(x0, eps, alpha_bar), xt, alpha_bar)
    torch.testing.assert_close(x0_hat, x0, rtol=0, atol=1e-10)
    torch.testing.assert_close(eps_hat, eps, rtol=0, atol=1e-10)


@pytest.mark.parametrize("prediction", [*PREDICTIONS, gaussian()])
def test_any_output_explains_xt(prediction: Prediction) -> None:
    """Whatever a network says, x0_hat and eps_hat together make xt: this is what every sampler relies on."""
    _, _, alpha_bar, xt = example()
    x0_hat, eps_hat = prediction.convert(torch.randn_like(xt), xt, alpha_bar)
    torch.testing.assert_close(alpha_bar**0.5 * x0_hat + (1 - alpha_bar) ** 0.5 * eps_hat, xt, rtol=0, atol=1e-10)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_x0_scale_translates_the_error(prediction: Prediction) -> None:
    x0, eps, alpha_bar, xt = example()
    output = torch.randn_like(xt)
    x0_hat, _ = prediction.convert(output, xt, alpha_bar)
    error = (prediction.target(x0, eps, alpha_bar) - output).square().sum(dim=(1, 2), keepdim=True)
    expected = (x0 - x0_hat).square().sum(dim=(1, 2), keepdim=True)
    scale = prediction.x0_scale(alpha_bar)
    assert scale.shape == alpha_bar.shape
    torch.testing.assert_close(scale * error, expected, rtol=1e-8, atol=0)


@pytest.mark.parametrize("weighting", [simple, min_snr, p2, velocity])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_error_is_that_of_x0_hat(prediction: Prediction, weighting: Callable[[Tensor], Tensor]) -> None:
    """Number by number, with the weight of the noise level; there is nothing else to know of a clip, and the network sees xt."""
    x0, eps, alpha_bar, xt = example()
    output = torch.randn_like(xt)
    x0_hat, _ = prediction.convert(output, xt, alpha_bar)
    expected = weighting(alpha_bar / (1 - alpha_bar)) * (x0 - x0_hat).square()
    before = vars(prediction).copy()
    prediction.fit(100 * x0, None)
    assert vars(prediction) == before and prediction.for_clips(xt, None, None).network_input(xt, alpha_bar) is xt
    torch.testing.assert_close(prediction.error(output, x0, eps, alpha_bar, weighting), expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("prediction", [*PREDICTIONS, gaussian()])
def test_the_simple_error_of_a_clip_is_that_of_its_eps_hat(prediction: Prediction) -> None:
    """Ho et al. 2020: ||eps - eps_hat||^2, whatever the network outputs."""
    x0, eps, alpha_bar, xt = example()
    output = torch.randn_like(xt)
    _, eps_hat = prediction.convert(output, xt, alpha_bar)
    error = prediction.error(output, x0, eps, alpha_bar, simple)
    torch.testing.assert_close(error.sum(dim=(1, 2)), (eps - eps_hat).square().sum(dim=(1, 2)), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("prediction", [*PREDICTIONS[1:], gaussian()])
def test_all_but_epsilon_need_no_signal(prediction: Prediction) -> None:
    """Where none is left, x0_hat is finite and every number of it is the output's to say; and an error counts."""
    assert Epsilon.needs_signal and not prediction.needs_signal
    x0, eps, _, _ = example()
    nothing = torch.zeros(9, 1, 1, dtype=torch.float64)
    x0_hat, eps_hat = prediction.convert(torch.ones_like(eps), eps, nothing)
    less, _ = prediction.convert(torch.zeros_like(eps), eps, nothing)
    torch.testing.assert_close(eps_hat, eps)
    assert x0_hat.isfinite().all() and not less.any() and (x0_hat - less).flatten(1).norm(dim=1).min() > 0.1
    assert (prediction.error(torch.zeros_like(eps), x0, eps, nothing, velocity).sum(dim=(1, 2)) > 0).all()


def test_targets_are_what_the_names_say() -> None:
    x0, eps, alpha_bar, _ = example()
    assert torch.equal(Epsilon().target(x0, eps, alpha_bar), eps)
    assert torch.equal(X0().target(x0, eps, alpha_bar), x0)
    expected = alpha_bar**0.5 * eps - (1 - alpha_bar) ** 0.5 * x0  # Salimans & Ho 2022
    torch.testing.assert_close(Velocity().target(x0, eps, alpha_bar), expected, rtol=1e-12, atol=0)


def test_velocity_is_the_derivative_by_the_angle() -> None:
    """Salimans & Ho 2022: xt = cos(phi) x0 + sin(phi) eps, and v = d xt / d phi."""
    x0, eps, _, _ = example()
    phi = torch.linspace(0.05, 1.5, 9, dtype=torch.float64).view(9, 1, 1).repeat(1, 3, 2).requires_grad_()
    (expected,) = torch.autograd.grad((phi.cos() * x0 + phi.sin() * eps).sum(), phi)
    torch.testing.assert_close(Velocity().target(x0, eps, phi.detach().cos() ** 2), expected, rtol=1e-10, atol=1e-12)


def test_velocity_is_well_conditioned_at_both_ends() -> None:
    """An error of the output moves neither x0_hat nor eps_hat by more than itself, where x0 and epsilon divide by nearly 0."""
    xt, output = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for alpha_bar in (1e-9, 0.5, 1 - 1e-9):
        ab = torch.tensor(alpha_bar, dtype=torch.float64)
        before, after = (Velocity().convert(o, xt, ab) for o in (output, output + 0.01))
        assert all((a - b).abs().max() <= 0.01 + 1e-12 for a, b in zip(before, after, strict=True))


def test_edm_is_table_1_of_karras() -> None:
    """c_skip, c_out and the target of equation 8 in plain floats, for x = x0 + sigma n of their variance-exploding process."""
    x0, eps, alpha_bar, xt = example()
    sigma_data, output = 0.3, torch.randn_like(xt)
    for i, ab in enumerate(alpha_bar.flatten().tolist()):
        sigma = ((1 - ab) / ab) ** 0.5
        x = x0[i] + sigma * eps[i]
        c_skip = sigma_data**2 / (sigma**2 + sigma_data**2)
        c_out = sigma * sigma_data / (sigma**2 + sigma_data**2) ** 0.5
        # Theirs has a target of unit size for data of deviation sigma_data; ours have deviation 1, so its scale is left out.
        target = EDM(sigma_data).target(x0, eps, alpha_bar)[i]
        torch.testing.assert_close(target * sigma_data, sigma_data**2 * (x0[i] - c_skip * x) / c_out, rtol=1e-9, atol=1e-12)
        x0_hat, _ = EDM(sigma_data).convert(output, xt, alpha_bar)
        torch.testing.assert_close(x0_hat[i], c_skip * x + c_out / sigma_data * output[i], rtol=1e-9, atol=1e-12)


def test_edm_lies_between_x0_and_velocity() -> None:
    x0, eps, alpha_bar, _ = example()
    torch.testing.assert_close(EDM(1e-9).target(x0, eps, alpha_bar), x0, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        EDM(1.0).target(x0, eps, alpha_bar), -Velocity().target(x0, eps, alpha_bar), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("sigma_data", [0.0, -1.0, float("nan")])
def test_edm_names_a_bad_sigma(sigma_data: float) -> None:
    with pytest.raises(ValueError, match=f"sigma_data={sigma_data}"):
        EDM(sigma_data)


SNR = torch.tensor([1e-6, 0.1, 1.0, 4.999, 5.0, 5.001, 100.0, 1e8], dtype=torch.float64)


def test_simple_weighs_all_alike_on_epsilon() -> None:
    """||eps - eps_hat||^2 is SNR ||x0 - x0_hat||^2."""
    torch.testing.assert_close(simple(SNR) / SNR, torch.ones_like(SNR))
    assert torch.equal(simple(SNR), SNR)


@pytest.mark.parametrize("gamma", [0.5, 5.0, 20.0])
def test_min_snr_is_the_capped_snr(gamma: float) -> None:
    """Hang et al. 2023: min(SNR, gamma) on ||x0 - x0_hat||^2."""
    assert min_snr(SNR, gamma).tolist() == [min(snr, gamma) for snr in SNR.tolist()]


def test_min_snr_has_the_published_cap() -> None:
    assert torch.equal(min_snr(SNR), min_snr(SNR, 5.0)) and not torch.equal(min_snr(SNR), min_snr(SNR, 4.0))


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan")])
def test_min_snr_refuses_a_cap_that_is_not_positive(gamma: float) -> None:
    with pytest.raises(ValueError, match=f"gamma.*{gamma}"):
        min_snr(SNR, gamma)


@pytest.mark.parametrize(("k", "gamma"), [(1.0, 1.0), (0.5, 0.5), (2.0, 0.0)])
def test_p2_is_the_papers_in_epsilon(k: float, gamma: float) -> None:
    """Choi et al. 2022: lambda' = lambda / (k + SNR)^gamma, where the lambda of L_simple is 1 on epsilon."""
    expected = [snr / (k + snr) ** gamma for snr in SNR.tolist()]
    torch.testing.assert_close(p2(SNR, k, gamma), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_p2_defaults_are_the_papers() -> None:
    """k = gamma = 1: on epsilon 1 / (1 + SNR), which is 1 - alpha_bar."""
    alpha_bar = SNR / (1 + SNR)
    torch.testing.assert_close(p2(SNR) / SNR, 1 - alpha_bar, rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("arguments", [{"k": 0.0}, {"k": -1.0}, {"gamma": -0.5}, {"k": float("nan")}, {"gamma": float("nan")}])
def test_p2_names_bad_parameters(arguments: dict[str, float]) -> None:
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"weighting.{name}={value} must be|weighting.{name}={value} at least"):
        p2(SNR, **arguments)


def test_velocity_weighs_all_alike_on_the_velocity() -> None:
    """An error d of the velocity is one of sqrt(1 - alpha_bar) d in x0_hat, also where no signal is left."""
    alpha_bar = torch.cat([torch.zeros(1, dtype=torch.float64), SNR[:-1] / (1 + SNR[:-1])])
    on_v = velocity(alpha_bar / (1 - alpha_bar)) * Velocity().x0_scale(alpha_bar)
    torch.testing.assert_close(on_v, torch.ones_like(on_v), rtol=1e-9, atol=0)


@pytest.mark.parametrize("weighting", [simple, min_snr, p2])
def test_other_weights_end_with_the_signal(weighting: Callable[[Tensor], Tensor]) -> None:
    assert weighting(torch.zeros(1)) == 0
