"""DenoiseDiffusion: Algorithms 1 and 2 of Ho et al. 2020, against the papers' formulas and exact solutions."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from ddpm.process.diffusion import DenoiseDiffusion, reverse_mean
from ddpm.process.gaussian import Gaussian
from ddpm.process.prediction import EDM, X0, Epsilon, Prediction, Velocity
from ddpm.process.schedules import cosine, linear, sigmoid, zero_terminal_snr
from ddpm.process.timestep_sampling import Stratified
from ddpm.process.weighting import min_snr, p2, simple, velocity

PREDICTIONS = [Epsilon(), X0(), Velocity(), EDM()]


class Affine(nn.Module):
    """A network with state that looks at xt and t: every element by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.7))

    def forward(self, xt: Tensor, t: Tensor, cond: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        t = t.to(xt).reshape(-1, *[1] * (xt.ndim - 1))
        return self.a * xt.tanh() + 0.03 * t


def exact(mu: float, s: float, T: int, schedule: Callable[[int], Tensor] = linear, output: str = "eps") -> DenoiseDiffusion:
    """A diffusion in float64 around the exact network of N(mu, s^2): the regression line of what is asked for on xt."""

    def network(xt: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        alpha_bar = diffusion.alpha_bar[t].reshape(-1, *[1] * (xt.ndim - 1))
        surprise = (xt - alpha_bar.sqrt() * mu) / (alpha_bar * s**2 + 1 - alpha_bar)
        return (1 - alpha_bar).sqrt() * surprise if output == "eps" else mu + alpha_bar.sqrt() * s**2 * surprise

    diffusion = DenoiseDiffusion(network, T, beta_schedule=schedule, prediction=Epsilon() if output == "eps" else X0())
    return diffusion.double()


def all_of(t: int, x: Tensor) -> Tensor:
    return torch.full((len(x),), t)


# --- tables


@pytest.mark.parametrize("schedule", [linear, cosine, sigmoid])
@pytest.mark.parametrize("T", [2, 50, 1000])
def test_tables_follow_the_betas(schedule: Callable[[int], Tensor], T: int) -> None:
    diffusion = DenoiseDiffusion(Affine(), T, beta_schedule=schedule)
    beta = schedule(T)
    alpha_bar = (1 - beta).cumprod(0)
    expected = {"beta": beta, "alpha": 1 - beta, "alpha_bar": alpha_bar, "sigma2": beta}
    for name, table in expected.items():
        got = getattr(diffusion, name)
        assert got.dtype == torch.float32
        # One rounding to float32; a product computed in float32 is a hundred times further off.
        torch.testing.assert_close(got.double(), table, rtol=2**-24 + 1e-9, atol=0)


def test_default_is_the_paper() -> None:
    diffusion = DenoiseDiffusion(Affine(), 1000)
    torch.testing.assert_close(diffusion.beta, torch.linspace(1e-4, 0.02, 1000))
    assert isinstance(diffusion.prediction, Epsilon) and diffusion.weighting is simple


def test_tables_move_with_the_module_and_stay_out_of_files() -> None:
    diffusion = DenoiseDiffusion(Affine(), 10)
    tables = {"beta", "alpha", "alpha_bar", "sigma2"}
    assert {name for name, _ in diffusion.named_buffers()} == tables
    assert set(diffusion.state_dict()) == {"eps_model.a"} and {n for n, _ in diffusion.named_parameters()} == {"eps_model.a"}
    diffusion.to("meta")
    assert {getattr(diffusion, name).device.type for name in tables} == {"meta"}


def test_device_is_where_the_tables_are_made() -> None:
    diffusion = DenoiseDiffusion(Affine(), 10, device="meta")
    assert {buffer.device.type for buffer in diffusion.buffers()} == {"meta"}
    assert {buffer.device.type for buffer in DenoiseDiffusion(Affine(), 10).buffers()} == {"cpu"}


@pytest.mark.parametrize("T", [1, 0])
def test_too_few_steps_are_refused(T: int) -> None:
    with pytest.raises(ValueError, match=f"T={T}"):
        DenoiseDiffusion(Affine(), T)


@pytest.mark.parametrize(
    "betas",
    [
        [0.1, 0.0, 0.1],
        [0.1, 1.0, 0.1],
        [0.1, -0.2, 0.1],
        [0.1, float("nan"), 0.1],
        [0.1, 0.2],
        [0.1, 0.2, 0.3, 0.4],
        [[0.1, 0.2, 0.3]],
    ],
)
def test_bad_schedules_are_refused(betas: list) -> None:
    with pytest.raises(ValueError, match=r"3 betas inside \(0, 1\)"):
        DenoiseDiffusion(Affine(), 3, beta_schedule=lambda _: torch.tensor(betas))


def test_a_schedule_that_ends_without_signal_needs_another_prediction() -> None:
    """Of pure noise the epsilon-model knows the answer without looking at the clip."""
    with pytest.raises(ValueError, match=r"prediction=epsilon.*alpha_bar is 0.*prediction=velocity.*prediction=x0"):
        DenoiseDiffusion(Affine(), 8, beta_schedule=zero_terminal_snr)
    for prediction in (X0(), Velocity()):
        diffusion = DenoiseDiffusion(Affine(), 8, beta_schedule=zero_terminal_snr, prediction=prediction)
        assert diffusion.alpha_bar[-1] == 0 == diffusion.alpha[-1] and diffusion.beta[-1] == 1
        assert (diffusion.alpha_bar[:-1] > 0).all() and all(table.isfinite().all() for table in diffusion.buffers())
        with pytest.raises(ValueError, match=r"3 betas inside \(0, 1\)"):
            DenoiseDiffusion(Affine(), 3, beta_schedule=lambda _: torch.tensor([0.1, 1.0, 1.0]), prediction=prediction)


# --- forward process


@pytest.mark.parametrize("schedule", [linear, cosine])
def test_one_leap_is_many_single_steps(schedule: Callable[[int], Tensor]) -> None:
    """x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) eps_t: mean and variance, carried from step to step."""
    T = 60
    diffusion = DenoiseDiffusion(Affine(), T, beta_schedule=schedule)
    x0 = torch.randn(T, 2, 3, generator=torch.Generator().manual_seed(0))
    mean, var = diffusion.q_xt_x0(x0, torch.arange(T))
    assert mean.shape == x0.shape and var.shape == (T, 1, 1)
    factor, carried = 1.0, 0.0
    for t, beta in enumerate(schedule(T).tolist()):
        factor, carried = (1 - beta) ** 0.5 * factor, (1 - beta) * carried + beta
        torch.testing.assert_close(mean[t], factor * x0[t], rtol=1e-5, atol=1e-6)
        assert var[t].item() == pytest.approx(carried, rel=5e-3 if t == 0 else 1e-3)


def test_one_leap_is_many_drawn_steps() -> None:
    """The same by drawing: 40000 walks of 20 single steps against as many leaps."""
    T, n = 20, 40_000
    diffusion = DenoiseDiffusion(Affine(), T)
    torch.manual_seed(0)
    start = torch.full((n, 1), 1.5)
    walk = start
    for beta in linear(T).tolist():
        walk = (1 - beta) ** 0.5 * walk + beta**0.5 * torch.randn(n, 1)
    leap = diffusion.q_sample(start, all_of(T - 1, start))
    mean, var = diffusion.q_xt_x0(start[:1], all_of(T - 1, start[:1]))
    for drawn in (walk, leap):  # 5 standard errors
        assert drawn.mean().item() == pytest.approx(mean.item(), abs=5 * (var.item() / n) ** 0.5)
        assert drawn.var().item() == pytest.approx(var.item(), rel=5 * (2 / n) ** 0.5)


def test_q_sample_with_noise_is_mean_plus_deviation() -> None:
    diffusion = DenoiseDiffusion(Affine(), 10).double()
    x0, eps = torch.randn(2, 10, 4, dtype=torch.float64)
    t = torch.arange(10)
    mean, var = diffusion.q_xt_x0(x0, t)
    assert torch.equal(diffusion.q_sample(x0, t, eps), mean + var.sqrt() * eps)
    torch.testing.assert_close(mean, diffusion.alpha_bar.sqrt()[:, None] * x0)
    torch.testing.assert_close(var, 1 - diffusion.alpha_bar[:, None])


def test_q_sample_draws_fresh_standard_noise() -> None:
    diffusion = DenoiseDiffusion(Affine(), 10)
    torch.manual_seed(0)
    x0, t = torch.full((5000, 4), 2.0), torch.full((5000,), 9)
    mean, var = diffusion.q_xt_x0(x0, t)
    eps = (diffusion.q_sample(x0, t) - mean) / var.sqrt()
    assert abs(eps.mean().item()) < 5 / 20_000**0.5 and abs(eps.var().item() - 1) < 5 * (2 / 20_000) ** 0.5
    correlation = torch.corrcoef(eps.T) - torch.eye(4)  # one number per element, not one per clip
    assert correlation.abs().max() < 0.08


# --- reverse process


@pytest.mark.parametrize("schedule", [linear, cosine, sigmoid])
def test_the_reverse_mean_is_equations_7_and_11(schedule: Callable[[int], Tensor]) -> None:
    """Both of Ho et al. 2020, in plain floats with t from 1, for a network that says anything of any xt."""
    T = 30
    beta = schedule(T).tolist()
    xt, eps = torch.randn(2, T, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before = 1.0
    for t in range(T):
        alpha = 1 - beta[t]
        ab = alpha * before
        x0_hat = (xt[t] - (1 - ab) ** 0.5 * eps[t]) / ab**0.5
        got = reverse_mean(x0_hat, eps[t], alpha, ab, before)
        equation_11 = (xt[t] - beta[t] / (1 - ab) ** 0.5 * eps[t]) / alpha**0.5
        equation_7 = before**0.5 * beta[t] / (1 - ab) * x0_hat + alpha**0.5 * (1 - before) / (1 - ab) * xt[t]
        torch.testing.assert_close(got, equation_11, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(got, equation_7, rtol=1e-9, atol=1e-9)
        if t == 0:
            torch.testing.assert_close(got, x0_hat, rtol=1e-12, atol=0)
        before = ab


def test_the_reverse_mean_without_signal_forgets_xt() -> None:
    x0_hat, eps = torch.randn(2, 5, dtype=torch.float64)
    torch.testing.assert_close(reverse_mean(x0_hat, eps, 0.0, 0.0, 0.09), 0.3 * x0_hat)


@pytest.mark.parametrize("output", ["eps", "x0"])
@pytest.mark.parametrize("T", [2, 30])
def test_p_sample_is_algorithm_2(output: str, T: int) -> None:
    """Line 4 of the paper's Algorithm 2 with t counted from 1, one clip and one step at a time, in plain floats."""
    diffusion = DenoiseDiffusion(Affine(), T, prediction=Epsilon() if output == "eps" else X0()).double()
    g = torch.Generator().manual_seed(0)
    xt, z = torch.randn(2, T, 5, generator=g, dtype=torch.float64)
    got = diffusion.p_sample(xt, torch.arange(T), z)
    alphas = [1 - beta for beta in linear(T).tolist()]
    alpha_bar = 1.0
    for t in range(1, T + 1):
        alpha = alphas[t - 1]
        alpha_bar *= alpha
        network = diffusion.eps_model(xt[t - 1 : t], torch.tensor([t - 1]))[0]
        eps_theta = network if output == "eps" else (xt[t - 1] - alpha_bar**0.5 * network) / (1 - alpha_bar) ** 0.5
        expected = 1 / alpha**0.5 * (xt[t - 1] - (1 - alpha) / (1 - alpha_bar) ** 0.5 * eps_theta)
        if t > 1:
            expected = expected + (1 - alpha) ** 0.5 * z[t - 1]
        # The tables are float32 numbers; 1 - alpha_bar at the first step keeps four digits of them.
        torch.testing.assert_close(got[t - 1], expected, rtol=1e-4, atol=2e-4 if t == 1 else 2e-5)


def test_noise_is_added_except_at_the_last_step() -> None:
    diffusion = DenoiseDiffusion(Affine(), 6)
    x, t = torch.randn(4, 3), torch.tensor([0, 3, 0, 5])
    torch.manual_seed(0)
    first, second = diffusion.p_sample(x, t), diffusion.p_sample(x, t)
    assert torch.equal(first[[0, 2]], second[[0, 2]])
    assert (first[[1, 3]] != second[[1, 3]]).all()
    silent, loud = diffusion.p_sample(x, t, torch.zeros(4, 3)), diffusion.p_sample(x, t, torch.full((4, 3), 10.0))
    sigma = (linear(6)[t] ** 0.5).float() * torch.tensor([0.0, 1.0, 0.0, 1.0])
    torch.testing.assert_close(loud - silent, 10 * sigma[:, None].expand(4, 3), rtol=1e-5, atol=1e-5)


def test_a_batch_may_mix_steps() -> None:
    diffusion = DenoiseDiffusion(Affine(), 6)
    x, z, t = torch.randn(5, 3, 2), torch.randn(5, 3, 2), torch.tensor([5, 0, 2, 2, 1])
    together = diffusion.p_sample(x, t, z)
    for i in range(5):
        torch.testing.assert_close(together[i : i + 1], diffusion.p_sample(x[i : i + 1], t[i : i + 1], z[i : i + 1]))


def reverse(diffusion: DenoiseDiffusion, xT: Tensor, noises: Callable[[int, Tensor], Tensor]) -> Tensor:
    x = xT
    for t in reversed(range(diffusion.n_steps)):
        x = diffusion.p_sample(x, all_of(t, x), noises(t, x))
    return x


def sampled_moments(diffusion: DenoiseDiffusion) -> tuple[float, float]:
    """Exact mean and variance of what Algorithm 2 draws around a network that is linear in xt.

    Its result is then linear in x_T and every z: a row of the batch without noise gives the mean, and rows with a single 1
    each give the coefficients, whose squares add up to the variance.
    """
    T = diffusion.n_steps
    xT = torch.zeros(T + 1, 1, dtype=torch.float64)
    xT[T] = 1

    def impulse(t: int, x: Tensor) -> Tensor:
        z = torch.zeros_like(x)
        z[t] = 1  # row 0 meets the z of t = 0, which must not count: it is the row without noise
        return z

    x0 = reverse(diffusion, xT, impulse)
    return x0[0].item(), (x0[1:] - x0[0]).square().sum().item()


@pytest.mark.parametrize("output", ["eps", "x0"])
@pytest.mark.parametrize(("mu", "s"), [(1.3, 1.0), (-0.7, 0.5), (0.4, 2.0)])
def test_the_exact_network_of_a_gaussian_returns_it(mu: float, s: float, output: str) -> None:
    mean, var = sampled_moments(exact(mu, s, 1000, output=output))
    # sigma_t^2 = beta_t is the reverse variance for s = 1; for others it is right in the limit of many steps only.
    assert mean == pytest.approx(mu, rel=0.01)
    assert var == pytest.approx(s**2, rel=0.01 if s >= 1 else 0.02)


@pytest.mark.parametrize("T", [5, 40, 1000])
@pytest.mark.parametrize("s", [0.3, 1.0, 3.0])
def test_the_sampled_variance_obeys_its_recursion(T: int, s: float) -> None:
    """eps_theta is linear, so each step multiplies the deviation by a known factor and adds beta_t to the variance."""
    _, var = sampled_moments(exact(0.2, s, T))
    beta = linear(T).tolist()
    alpha_bar = (1 - linear(T)).cumprod(0).tolist()
    expected = 1.0
    for t in reversed(range(T)):
        factor = (1 - beta[t] / (alpha_bar[t] * s**2 + 1 - alpha_bar[t])) / (1 - beta[t]) ** 0.5
        expected = factor**2 * expected + (beta[t] if t > 0 else 0)
    assert var == pytest.approx(expected, rel=1e-4)
    if s == 1:  # then every step keeps the variance 1, and the last one takes the noise of step 0 out
        assert var == pytest.approx(alpha_bar[0], rel=1e-4)


def test_drawn_samples_are_the_gaussian() -> None:
    """The same as a user would: noise in, 30000 numbers out, with the z that p_sample draws itself."""
    n = 30_000
    diffusion = exact(1.0, 1.0, 100)
    torch.manual_seed(0)
    x = torch.randn(n, 1, dtype=torch.float64)
    for t in reversed(range(100)):
        x = diffusion.p_sample(x, all_of(t, x))
    assert x.mean().item() == pytest.approx(1.0, abs=5 / n**0.5)
    assert x.var().item() == pytest.approx(diffusion.alpha_bar[0].item(), rel=5 * (2 / n) ** 0.5)


@pytest.mark.parametrize(
    ("schedule", "output"), [(linear, "eps"), (linear, "x0"), (cosine, "eps"), (cosine, "x0"), (zero_terminal_snr, "x0")]
)
@pytest.mark.parametrize("T", [2, 10, 1000])
def test_a_single_point_is_returned_exactly(T: int, schedule: Callable[[int], Tensor], output: str) -> None:
    diffusion = exact(0.8, 0.0, T, schedule, output)
    torch.manual_seed(0)
    x0 = reverse(diffusion, 3 * torch.randn(4, 2, 3, dtype=torch.float64), lambda t, x: torch.randn_like(x))
    torch.testing.assert_close(x0, torch.full_like(x0, 0.8), rtol=0, atol=2e-5)


# --- loss


@pytest.mark.parametrize("weighting", [simple, partial(min_snr, gamma=5.0), p2, velocity])
@pytest.mark.parametrize(
    ("prediction", "schedule"), [*((p, linear) for p in PREDICTIONS), *((p, zero_terminal_snr) for p in PREDICTIONS[1:])]
)
def test_the_perfect_network_has_no_loss(
    prediction: Prediction, schedule: Callable[[int], Tensor], weighting: Callable[[Tensor], Tensor]
) -> None:
    x0 = torch.randn(6, 3, 2, dtype=torch.float64)

    def knows_x0(xt: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        alpha_bar = diffusion.alpha_bar[t][:, None, None]
        return prediction.target(x0, (xt - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt(), alpha_bar)

    diffusion = DenoiseDiffusion(
        knows_x0, 20, beta_schedule=schedule, prediction=prediction, weighting=weighting, timesteps=Stratified()
    ).double()
    assert diffusion.loss(x0).item() < 1e-20
    diffusion.eps_model = lambda xt, t, cond: knows_x0(xt, t, cond) + 0.1
    assert diffusion.loss(x0).item() > 1e-4


@pytest.mark.parametrize(("weighting", "expected"), [(simple, 0.0), (min_snr, 0.0), (p2, 0.0), (velocity, 1.0)])
@pytest.mark.parametrize("prediction", PREDICTIONS[1:])
def test_the_loss_where_no_signal_is_left(prediction: Prediction, weighting: Callable[[Tensor], Tensor], expected: float) -> None:
    """xt is the noise, and the weight on the error of x0_hat, which is the output, or its negative."""
    diffusion = DenoiseDiffusion(
        Affine(), 9, beta_schedule=zero_terminal_snr, prediction=prediction, weighting=weighting
    ).double()
    x0, eps = torch.randn(2, 4, 3, dtype=torch.float64)
    t = all_of(8, x0)
    loss = diffusion.loss(x0, eps, t=t)
    loss.backward()
    output = diffusion.eps_model(eps, t)
    error = x0 - (-output if isinstance(prediction, Velocity) else output)
    torch.testing.assert_close(loss, expected * error.square().mean())
    assert diffusion.eps_model.a.grad.isfinite() and (diffusion.eps_model.a.grad != 0) == (expected > 0)


def test_loss_is_algorithm_1() -> None:
    """The paper's formula, literally: mean over everything of (eps - eps_theta(sqrt(ab) x0 + sqrt(1 - ab) eps, t))^2."""
    T = 15
    diffusion = DenoiseDiffusion(Affine(), T).double()
    x0, eps = torch.randn(2, 7, 4, 3, dtype=torch.float64)
    t = torch.tensor([0, 14, 3, 3, 7, 1, 10])
    alpha_bar = (1 - linear(T)).cumprod(0)
    expected = torch.zeros(())
    for i in range(7):
        ab = alpha_bar[t[i]]
        xt = ab.sqrt() * x0[i] + (1 - ab).sqrt() * eps[i]
        expected = expected + (eps[i] - diffusion.eps_model(xt[None], t[i : i + 1])[0]).square().sum() / x0.numel()
    torch.testing.assert_close(diffusion.loss(x0, eps, t=t).double(), expected.double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("weighting", [simple, partial(min_snr, gamma=5.0), p2, lambda snr: snr / (1 + snr)])
def test_the_loss_does_not_depend_on_what_the_network_outputs(weighting: Callable[[Tensor], Tensor]) -> None:
    """One denoiser, worn as an epsilon-, an x0- and a v-model: one number, the weighted error of its eps_hat."""
    T = 12
    x0, eps = torch.randn(2, T, 4, dtype=torch.float64)
    t = torch.arange(T)
    as_eps = DenoiseDiffusion(Affine(), T, weighting=weighting).double()

    def x0_hat(xt: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        ab = as_eps.alpha_bar[t][:, None]
        return (xt - (1 - ab).sqrt() * as_eps.eps_model(xt, t)) / ab.sqrt()

    def velocity(xt: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        ab = as_eps.alpha_bar[t][:, None]
        return Velocity().target(x0_hat(xt, t, cond), as_eps.eps_model(xt, t), ab)

    as_x0 = DenoiseDiffusion(x0_hat, T, prediction=X0(), weighting=weighting).double()
    as_v = DenoiseDiffusion(velocity, T, prediction=Velocity(), weighting=weighting).double()
    for i in range(T):  # each noise level by itself: a weight that is wrong at two of them cannot cancel
        one = slice(i, i + 1)
        a, b, c = (d.loss(x0[one], eps[one], t=t[one]).item() for d in (as_eps, as_x0, as_v))
        ab = as_eps.alpha_bar[i]
        xt = ab.sqrt() * x0[one] + (1 - ab).sqrt() * eps[one]
        on_eps = weighting(ab / (1 - ab)) / (ab / (1 - ab))
        expected = on_eps * (eps[one] - as_eps.eps_model(xt, t[one])).square().mean()
        assert a == pytest.approx(expected.item(), rel=1e-9)
        assert b == pytest.approx(a, rel=1e-7) and c == pytest.approx(a, rel=1e-7)


@pytest.mark.parametrize("prediction", [*PREDICTIONS, Gaussian(6, 8)])
def test_padding_is_not_seen_and_every_real_element_counts_alike(prediction: Prediction) -> None:
    """The network treats every element by itself, so what is computed on the real frames alone is the truth."""
    diffusion = DenoiseDiffusion(Affine(), 9, prediction=prediction, weighting=partial(min_snr, gamma=2.0)).double()
    x0, eps = torch.randn(2, 3, 2, 3, 8, dtype=torch.float64)
    t, lengths = torch.tensor([0, 4, 8]), [8, 3, 5]
    mask = torch.stack([(torch.arange(8) < n).double() for n in lengths])[:, None, None]
    diffusion.prediction.fit(x0, mask)
    loss = diffusion.loss(x0, eps, t=t, mask=mask)
    total = torch.zeros(())
    for i, n in enumerate(lengths):
        one = slice(i, i + 1)
        total = total + n * diffusion.loss(x0[one, ..., :n], eps[one, ..., :n], t=t[one])
    torch.testing.assert_close(loss, (total / sum(lengths)).double())
    other = torch.where(mask.bool(), x0, 1e3 * torch.randn_like(x0))
    assert torch.equal(diffusion.loss(other, eps, t=t, mask=mask), loss)
    assert torch.equal(diffusion.loss(x0, eps, t=t, mask=mask.bool()), loss)
    torch.testing.assert_close(diffusion.loss(x0, eps, t=t, mask=torch.ones_like(mask)), diffusion.loss(x0, eps, t=t))


def test_t_is_uniform_over_all_steps() -> None:
    T, n = 5, 20_000
    seen = []
    diffusion = DenoiseDiffusion(Affine(), T)
    diffusion.eps_model.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    torch.manual_seed(0)
    diffusion.loss(torch.zeros(n, 1))
    (t,) = seen
    assert t.shape == (n,) and t.dtype == torch.int64
    counts = torch.bincount(t, minlength=T)
    assert len(counts) == T and counts.sum() == n
    chi2 = ((counts - n / T) ** 2 / (n / T)).sum()
    assert chi2 < 18.5  # one in a thousand with 4 degrees of freedom


def test_the_condition_reaches_the_network() -> None:
    seen = []

    def network(xt: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        seen.append(cond)
        return xt

    diffusion = DenoiseDiffusion(network, 4)
    cond, x = torch.randn(3, 7), torch.randn(3, 2)
    diffusion.loss(x, cond=cond)
    diffusion.denoise(x, torch.zeros(3, dtype=torch.long), cond)
    diffusion.loss(x)
    assert seen[0] is cond and seen[1] is cond and seen[2] is None


def test_the_losses_of_clips_are_those_of_each_alone() -> None:
    """Each times the weight of its draw of t, which the weight of the error of x0_hat has too."""

    class Drawn(Stratified):
        def __call__(self, batch: int, n_steps: int, device: torch.device) -> tuple[Tensor, Tensor]:
            return torch.tensor([0, 7, 3]), torch.tensor([0.5, 2.0, 1.0])

    weighting = partial(min_snr, gamma=2.0)
    diffusion = DenoiseDiffusion(Affine(), 9, prediction=Velocity(), weighting=weighting, timesteps=Drawn()).double()
    x0, eps = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    t = torch.tensor([0, 7, 3])
    snr = diffusion.alpha_bar[t] / (1 - diffusion.alpha_bar[t])
    alone = torch.stack([diffusion.loss(x0[i : i + 1], eps[i : i + 1], t=t[i : i + 1]) for i in range(3)])
    share = torch.tensor([0.5, 2.0, 1.0])
    drawn, given = diffusion.clip_losses(x0, eps), diffusion.clip_losses(x0, eps, t=t)
    torch.testing.assert_close(drawn.mean, (share * alone).mean())
    torch.testing.assert_close(given.total / given.count, alone)
    torch.testing.assert_close(drawn.x0_hat, diffusion.denoise(diffusion.q_sample(x0, t, eps), t).x0_hat)
    torch.testing.assert_close(drawn.weight.flatten(), snr.clamp(max=2) * share)
    torch.testing.assert_close(given.weight, snr.clamp(max=2).reshape(3, 1, 1))


@pytest.mark.parametrize("shape", [(3, 2), (3, 3, 4, 5), (3,)])
def test_clips_may_have_any_shape(shape: tuple[int, ...]) -> None:
    diffusion = DenoiseDiffusion(Affine(), 10)
    x, t = torch.randn(shape), torch.tensor([0, 9, 4])
    z = torch.randn(shape)
    flat = (x.reshape(3, -1), z.reshape(3, -1))
    for name, call in {
        "q_sample": lambda x, z: diffusion.q_sample(x, t, z),
        "p_sample": lambda x, z: diffusion.p_sample(x, t, z),
        "x0_hat": lambda x, z: diffusion.denoise(x, t)[0],
    }.items():
        assert call(x, z).shape == shape, name
        torch.testing.assert_close(call(x, z).reshape(3, -1), call(*flat))
    assert diffusion.loss(x).shape == ()
    torch.testing.assert_close(diffusion.loss(x, z, t=t), diffusion.loss(*flat, t=t))


def test_the_loss_trains() -> None:
    """Its gradient is that of the formula: 2 mean((eps_theta - eps) d eps_theta / d a)."""
    diffusion = DenoiseDiffusion(Affine(), 10)
    x0, eps, t = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 2, 5, 9])
    diffusion.loss(x0, eps, t=t).backward()
    xt = diffusion.q_sample(x0, t, eps)
    expected = 2 * ((diffusion.eps_model(xt, t) - eps) * xt.tanh()).mean()
    torch.testing.assert_close(diffusion.eps_model.a.grad, expected.detach())
