"""Loss and error by noise level."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ddpm.module import build_module
from ddpm.process.diffusion import ClipLosses, DenoiseDiffusion
from ddpm.process.noise_levels import NoiseLevels
from ddpm.process.prediction import X0
from ddpm.viz.plots import plot_noise_levels

CPU = torch.device("cpu")


def losses(total: torch.Tensor) -> ClipLosses:
    return ClipLosses(total, torch.ones_like(total), total, lambda: total)


@pytest.mark.parametrize(("n_steps", "bins"), [(1000, 10), (7, 10), (25, 10)])
def test_the_parts_share_out_all_steps_evenly(n_steps: int, bins: int) -> None:
    t, clips = torch.arange(n_steps), torch.zeros(n_steps, 2, 3, 4)
    levels = NoiseLevels(n_steps, bins, CPU)
    levels.add(t, losses(t.float()), clips, clips, None)
    count, loss, _ = levels.sums
    assert count.sum() == n_steps and count.max() - count.min() <= 1 and loss.sum() == t.sum()
    middles = [float(part) for part in levels.means()]
    assert len(middles) == min(bins, n_steps)
    for part, (mean, _) in levels.means().items():
        assert abs((mean + 0.5) / n_steps - float(part)) < 0.5 / n_steps + 1e-3, "a part lies around its name"


def test_an_error_is_in_centimetres_and_padding_does_not_count() -> None:
    clips = torch.randn(6, 4, 3, 5)
    wrong = clips.clone()
    wrong[:, :, 0, :3] += 0.03
    wrong[:, :, 1, :3] += 0.04  # 5 cm along the diagonal
    wrong[..., 3:] += 9
    mask = torch.tensor([1.0, 1, 1, 0, 0])[None, None, None].expand(6, 1, 1, 5)
    levels = NoiseLevels(12, 3, CPU)
    levels.add(torch.arange(6) * 2, losses(torch.ones(6)), wrong, clips, mask)
    assert [centimetres for _, centimetres in levels.means().values()] == pytest.approx([5.0] * 3, rel=1e-5)


def test_parts_without_clips_are_left_out() -> None:
    levels = NoiseLevels(100, 10, CPU)
    clips = torch.zeros(1, 1, 3, 2)
    levels.add(torch.tensor([99]), losses(torch.ones(1)), clips, clips, None)
    assert list(levels.means()) == ["0.950"]


def test_a_perfect_network_has_no_error(tiny_config: dict[str, Any]) -> None:
    module = build_module(tiny_config, fps=20.0)
    clips = torch.randn(8, 20, 3, 8)
    module.normalizer.fit(clips)
    x0 = module.normalizer(clips)
    oracle = DenoiseDiffusion(lambda xt, t, cond: x0, 8, prediction=X0())
    found = oracle.clip_losses(x0, t=torch.arange(8))
    levels = NoiseLevels(8, 10, CPU)
    levels.add(torch.arange(8), found, module.normalizer.inverse(found.x0_hat), clips, None)
    assert len(levels.means()) == 8
    for loss, centimetres in levels.means().values():
        assert loss == 0 and centimetres < 1e-4


def test_the_parts_add_up_to_the_validation_loss(tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where padded clips count for less, and batches differ in size."""
    module = build_module(tiny_config, fps=20.0)
    logged: list[tuple[float, int]] = []
    monkeypatch.setattr(module, "log", lambda name, value, batch_size, **rest: logged.append((float(value), batch_size)))
    module.normalizer.fit(torch.randn(30, 20, 3, 8))
    module.noise_levels = NoiseLevels(8, 10, CPU)
    with torch.no_grad():
        for k, size in enumerate((7, 12)):
            mask = (torch.arange(8) < torch.randint(3, 9, (size, 1))).float()[:, None, None]
            module.validation_step({"clips": torch.randn(size, 20, 3, 8), "mask": mask}, k)
    count, loss, _ = module.noise_levels.sums
    assert count.sum() == 19
    assert float(loss.sum() / count.sum()) == pytest.approx(sum(value * n for value, n in logged) / 19, rel=1e-5)


def test_clip_losses_make_the_loss(tiny_config: dict[str, Any]) -> None:
    diffusion = build_module(tiny_config, fps=20.0).diffusion
    x0, eps, t = torch.randn(5, 20, 3, 8), torch.randn(5, 20, 3, 8), torch.arange(5)
    found = diffusion.clip_losses(x0, eps, t=t)
    assert found.mean.item() == pytest.approx(diffusion.loss(x0, eps, t=t).item(), rel=1e-6)
    for i in range(5):
        alone = diffusion.loss(x0[i : i + 1], eps[i : i + 1], t=t[i : i + 1])
        assert float(found.total[i] / found.count[i]) == pytest.approx(alone.item(), rel=1e-4)


def test_every_clip_is_at_every_level(tiny_config: dict[str, Any], tmp_path: Path) -> None:
    """A network that answers with the same clip is as wrong at every level, and the picture shows how sure that is."""
    module = build_module(tiny_config, fps=20.0)
    clips = torch.randn(9, 20, 3, 8)
    module.normalizer.fit(clips)
    constant = DenoiseDiffusion(lambda xt, t, cond: torch.zeros_like(xt), 40, prediction=X0())
    module.diffusion = constant
    module.train()
    state = torch.get_rng_state()
    batches = [{"clips": part, "mask": None, "labels": None} for part in clips.split(5)]
    levels, errors = module.errors_by_level(batches)
    assert torch.equal(torch.get_rng_state(), state) and module.training, "training goes on as if nothing had been"
    assert errors.shape == (2, 10, 9) and levels == pytest.approx([(4 * k + 2.5) / 40 for k in range(10)])
    middle = module.normalizer.inverse(torch.zeros(9, 20, 3, 8))
    assert torch.allclose(errors[0], 100 * (clips - middle).norm(dim=2).mean((1, 2)).expand(10, 9), rtol=1e-4)
    figure = plot_noise_levels(tmp_path / "n.png", levels, errors.numpy(), "9 clips")
    left, right = figure.axes
    assert left.lines[0].get_xydata()[:, 1].tolist() == pytest.approx(errors[0].mean(1).tolist()) and "cm" in left.get_ylabel()
    assert right.lines[0].get_xydata()[:, 1].tolist() == pytest.approx(errors[1].mean(1).tolist())
    half = 1.96 * float(errors[0, 0].std(correction=0)) / 3
    low, high = left.containers[0].lines[2][0].get_segments()[0][:, 1]
    assert (high - low) / 2 == pytest.approx(half, rel=1e-4) and (tmp_path / "n.png").stat().st_size > 0
