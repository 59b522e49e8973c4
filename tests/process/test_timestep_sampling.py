"""Which diffusion steps a batch sees."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.module import build_module
from ddpm.process.diffusion import DenoiseDiffusion
from ddpm.process.schedules import linear
from ddpm.process.timestep_sampling import Importance, Stratified, Timesteps, Uniform
from ddpm.training import sanity_check

CPU = torch.device("cpu")


@pytest.mark.parametrize("draw", [Uniform(), Stratified()])
@pytest.mark.parametrize(("batch", "n_steps"), [(1, 7), (8, 5), (64, 1000), (6, 4)])
def test_every_clip_sees_every_step_alike(draw: Timesteps, batch: int, n_steps: int) -> None:
    torch.manual_seed(0)
    rounds = 400_000 // batch
    t = torch.stack([draw(batch, n_steps, CPU)[0] for _ in range(min(rounds, 8000))])
    assert t.dtype == torch.int64 and t.min() >= 0 and t.max() <= n_steps - 1
    for of in (t.flatten(), t[:, 0]):
        share = (of < n_steps // 2).double().mean()
        expected = (n_steps // 2) / n_steps
        assert abs(share - expected) < 4 * (expected * (1 - expected) / len(of)) ** 0.5 + 1e-9
    if n_steps < 10:
        counts = torch.bincount(t[:, 0], minlength=n_steps) / len(t)
        assert (counts - 1 / n_steps).abs().max() < 4 * (1 / n_steps / len(t)) ** 0.5


def test_a_stratified_batch_has_one_step_in_each_part() -> None:
    torch.manual_seed(0)
    for _ in range(200):
        t, weight = Stratified()(50, 1000, CPU)
        assert torch.equal(weight, torch.ones(50))
        assert torch.equal(t.sort().values // 20, torch.arange(50))
    assert not torch.equal(t, t.sort().values), "the order in the batch is random"


def test_stratification_steadies_the_loss() -> None:
    """For a loss that depends on t as ours does, the mean of a batch varies less than a tenth as much."""
    torch.manual_seed(0)
    loss = torch.linspace(-3, 3, 1000).exp()
    means = {d: torch.stack([loss[d()(64, 1000, CPU)[0]].mean() for _ in range(2000)]) for d in (Uniform, Stratified)}
    assert means[Stratified].var() < 0.1 * means[Uniform].var()
    assert abs(means[Stratified].mean() - loss.mean()) < 0.01 * loss.mean()


# --- importance

SIZES = [(7, 3), (12, 4), (10, 10), (11, 7), (1000, 50), (1000, 37), (5, 1)]
"""(T, bins), also where parts end within steps."""


def importance(bins: int, seed: int = 0, **arguments: float) -> Importance:
    """One that remembers losses as different as 1 and 1e-4."""
    draw = Importance(bins, **arguments)
    draw.square.copy_(torch.rand(bins, generator=torch.Generator().manual_seed(seed)) ** 8 + 1e-8)
    draw.seen.fill_(True)
    return draw


def probability(draw: Importance, T: int) -> Tensor:
    """``(T,)`` float64: the area under the piecewise constant density over each step, cut at the ends of the parts."""
    bins = len(draw.square)
    root = draw.square.double().sqrt()
    density = (1 - draw.uniform) * root / root.sum() + draw.uniform / bins
    p = []
    for t in range(T):
        overlap = [max(0.0, min((t + 1) / T, (k + 1) / bins) - max(t / T, k / bins)) for k in range(bins)]
        p.append(sum(o * d for o, d in zip(overlap, density.tolist(), strict=True)) * bins)
    return torch.tensor(p, dtype=torch.float64)


def weights_of(draw: Importance, T: int) -> Tensor:
    """``(T,)`` weight of each step; every one must be drawn in the end."""
    found = torch.full((T,), torch.nan)
    for _ in range(1000):
        t, weight = draw(4 * T, T, CPU)
        found[t] = weight
        if not found.isnan().any():
            return found
    raise AssertionError(f"never drawn: {found.isnan().nonzero().flatten().tolist()}")


@pytest.mark.parametrize("uniform", [0.1, 0.5, 1.0])
@pytest.mark.parametrize(("T", "bins"), SIZES)
def test_weights_undo_the_probabilities(T: int, bins: int, uniform: float) -> None:
    """weight = 1 / (T p(t)) exactly: then E[weight f(t)] is the mean of f, whatever f and whatever was remembered."""
    torch.manual_seed(0)
    draw = importance(bins, uniform=uniform)
    p, weight = probability(draw, T), weights_of(draw, T).double()
    torch.testing.assert_close(weight, 1 / (T * p), rtol=1e-5, atol=0)
    assert (1 / weight).mean().item() == pytest.approx(1, abs=1e-6)  # the probabilities add up to 1
    assert weight.max() <= 1 / uniform * (1 + 1e-6)
    f = torch.randn(T, dtype=torch.float64)
    assert (p * weight * f).sum().item() == pytest.approx(f.mean().item(), abs=1e-5)


@pytest.mark.parametrize(("T", "bins", "batch"), [(7, 3, 1), (11, 7, 5), (10, 10, 64)])
def test_steps_are_drawn_with_these_probabilities(T: int, bins: int, batch: int) -> None:
    torch.manual_seed(1)
    draw, n = importance(bins, seed=1), 2000
    t = torch.stack([draw(batch, T, CPU)[0] for _ in range(n)])
    assert t.dtype == torch.int64 and t.shape == (n, batch)
    p = probability(draw, T)
    for one in (t[:, 0], t[:, -1]):  # one clip of each batch: independent draws
        chi2 = ((torch.bincount(one, minlength=T) - n * p) ** 2 / (n * p)).sum()
        assert chi2 < (T - 1) + 5 * (2 * (T - 1)) ** 0.5
    together = torch.bincount(t.flatten(), minlength=T) / t.numel()
    assert ((together - p).abs() < 4.5 * (p * (1 - p) / t.numel()).sqrt()).all()


def test_an_importance_batch_has_one_step_in_each_part_of_equal_probability() -> None:
    torch.manual_seed(0)
    draw = importance(10)
    below = torch.cat([torch.zeros(1), probability(draw, 1000).cumsum(0).float()])
    for _ in range(50):
        t, _ = draw(20, 1000, CPU)
        assert not torch.equal(t, t.sort().values), "the order in the batch is random"
        t = t.sort().values
        parts = torch.arange(20) / 20
        assert (below[t + 1] >= parts - 1e-4).all() and (below[t] <= parts + 0.05 + 1e-4).all()


def test_it_draws_uniformly_until_every_part_was_seen() -> None:
    torch.manual_seed(0)
    draw = Importance(bins=5)
    for k in range(5):
        t, weight = draw(1000, 10, CPU)
        assert torch.equal(weight, torch.ones(1000)) and torch.equal(torch.bincount(t), torch.full((10,), 100))
        draw.observe(torch.tensor([2 * k]), 10, torch.tensor([10.0**k]))
    assert draw(1000, 10, CPU)[1].std() > 0.1
    nothing = importance(5)
    nothing.square.zero_()
    assert torch.equal(nothing(8, 10, CPU)[1], torch.ones(8)), "no loss anywhere is no reason to divide by 0"


def test_it_remembers_moving_averages_of_squares() -> None:
    """The recursion in plain floats: a part that is seen moves once a batch, to the mean square of what was seen of it."""
    g = torch.Generator().manual_seed(0)
    draw, T, bins = Importance(bins=3, decay=0.9), 7, 3
    expected: list[float | None] = [None] * bins
    for _ in range(30):
        t, loss = torch.randint(T, (2,), generator=g), torch.rand(2, generator=g)
        draw.observe(t, T, loss)
        for k in range(bins):
            new = [x**2 for s, x in zip(t.tolist(), loss.tolist(), strict=True) if s * bins // T == k]
            if new:
                mean, old = sum(new) / len(new), expected[k]
                expected[k] = mean if old is None else 0.9 * old + 0.1 * mean
    assert draw.square.tolist() == pytest.approx(expected, rel=1e-5) and draw.seen.all()


def noisy(t: Tensor, T: int) -> Tensor:
    """Losses that fall by e^6 from the first step to the last, times a random number of mean 1 and mean square 2."""
    return torch.exp(3 - 6 * t / T) * torch.empty(len(t)).exponential_()


def test_it_settles_at_the_root_of_the_mean_square() -> None:
    """Nichol & Dhariwal 2021, equation 18: p proportional to sqrt(E[L^2]), which steadies the loss of a batch."""
    torch.manual_seed(0)
    draw, T = Importance(bins=10, decay=0.99, uniform=0.1), 100
    for _ in range(500):
        t, _ = draw(128, T, CPU)
        draw.observe(t, T, noisy(t, T))
    steps = torch.arange(T)
    root = (2 * torch.exp(3 - 6 * steps / T).square()).reshape(10, 10).mean(dim=1).sqrt()
    torch.testing.assert_close(draw.density(), 0.9 * root / root.sum() + 0.01, rtol=0.15, atol=0)

    def losses(timesteps: Timesteps) -> Tensor:
        batches = (timesteps(32, T, CPU) for _ in range(1000))
        return torch.stack([(weight * noisy(t, T)).mean() for t, weight in batches])

    few, many = losses(draw), losses(Stratified())
    truth = torch.exp(3 - 6 * steps / T).mean()
    for drawn in (few, many):
        assert abs(drawn.mean() - truth) < 4 * drawn.std() / len(drawn) ** 0.5
    assert few.var() < 0.65 * many.var()


@pytest.mark.parametrize(
    "arguments",
    [{"bins": 0}, {"decay": 1.0}, {"decay": -0.1}, {"uniform": 0.0}, {"uniform": 1.1}, {"decay": float("nan")}],
)
def test_impossible_values_are_named(arguments: dict[str, Any]) -> None:
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=rf"timesteps\.importance.*{name}={value}"):
        Importance(**arguments)


def test_parts_without_a_step_are_refused() -> None:
    with pytest.raises(ValueError, match=r"timesteps\.bins=8 must be at most T=7"):
        Importance(bins=8)(4, 7, CPU)


def test_what_it_remembers_is_state() -> None:
    old, new = importance(6), Importance(bins=6)
    assert set(old.state_dict()) == {"square", "seen"}
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    drawn = []
    for draw in (old, new):
        torch.manual_seed(3)
        drawn.append(draw(50, 40, CPU))
    assert torch.equal(drawn[0][0], drawn[1][0]) and torch.equal(drawn[0][1], drawn[1][1])


def test_only_drawn_training_losses_are_remembered() -> None:
    """The loss of each clip by itself, over its real elements, before its weight."""
    draw = Importance(bins=5)
    diffusion = DenoiseDiffusion(lambda xt, t, cond, mask=None: 0 * xt, 5, beta_schedule=linear, timesteps=draw)
    x0, eps = torch.zeros(50, 4), torch.randn(50, 4)
    mask = torch.tensor([1.0, 1, 1, 0]).expand(50, 4)
    diffusion.loss(x0, eps, t=torch.arange(5).repeat(10), mask=mask)
    diffusion.eval().loss(x0, eps, mask=mask)
    assert not draw.seen.any() and not draw.square.any()
    torch.manual_seed(0)
    diffusion.train().loss(x0, eps, mask=mask)
    assert draw.seen.all()
    torch.manual_seed(0)
    t, _ = Importance(bins=5)(50, 5, CPU)
    own = eps[:, :3].square().mean(dim=1)  # the error of a network that says 0
    torch.testing.assert_close(draw.square, torch.stack([own[t == k].square().mean() for k in range(5)]))


def test_validation_and_the_sanity_check_leave_no_memory(tiny_config: dict[str, Any]) -> None:
    tiny_config["timesteps"] = {"_target_": "ddpm.process.timestep_sampling.Importance", "bins": 4}
    module = build_module(tiny_config, fps=20.0)
    draw = module.diffusion.timesteps
    batch = {"clips": torch.randn(6, 20, 3, 8), "mask": None}
    sanity_check(module, batch)
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    module.validation_step(batch, 0)
    assert module.training and not draw.seen.any()
    module.training_step(batch, 0)
    assert draw.seen.any() and "diffusion.timesteps.square" in module.state_dict()


def test_an_overflow_is_not_remembered() -> None:
    """float16 overflows now and then: such a loss must neither become the average nor make a checkpoint unwritable."""
    importance = Importance(bins=3, uniform=0.5)
    importance.observe(torch.tensor([0, 3, 6]), 9, torch.tensor([torch.inf, 1.0, torch.nan]))
    assert importance.seen.tolist() == [False, True, False] and importance.square.tolist() == [0, 1, 0]
    importance.observe(torch.tensor([0, 0, 6]), 9, torch.tensor([torch.inf, 2.0, 3.0]))
    assert importance.seen.all() and importance.square.tolist() == [4, 1, 9]
