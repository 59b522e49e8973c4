"""Which diffusion steps a batch sees."""

import pytest
import torch

from ddpm.timesteps import Stratified, Timesteps, Uniform

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
