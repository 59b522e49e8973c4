"""Normalizer: invertible, measured on what is real, and the body keeps its shape."""

import pytest
import torch
from torch import Tensor

from ddpm.normalizer import Normalizer

ROOT = 2


def clips(batch: int = 6, joints: int = 5, frames: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(clips, mask): joints around a root that travels, on a scale of metres, each clip with its own number of real frames."""
    g = torch.Generator().manual_seed(seed)
    travel = torch.randn(batch, 1, 3, frames, generator=g).cumsum(-1) + torch.tensor([0.5, 1.0, 3.0])[:, None]
    body = torch.tensor([0.1, 0.4, 0.2])[:, None] * torch.randn(batch, joints, 3, frames, generator=g) + torch.randn(
        joints, 3, 1, generator=g
    )
    body[:, ROOT] = 0
    lengths = torch.randint(3, frames + 1, (batch,), generator=g)
    lengths[0] = frames
    mask = (torch.arange(frames) < lengths[:, None]).float()[:, None, None]
    return travel + body, mask


def fitted(mask: Tensor | None = None, seed: int = 0) -> tuple[Normalizer, Tensor, Tensor]:
    x, own_mask = clips(seed=seed)
    mask = own_mask if mask is None else mask
    normalizer = Normalizer(5, 3, ROOT)
    normalizer.fit(x, mask)
    return normalizer, x, mask


def test_inverse_undoes_forward() -> None:
    normalizer, x, _ = fitted()
    torch.testing.assert_close(normalizer.inverse(normalizer(x)), x, rtol=0, atol=1e-5)
    z = torch.randn_like(x)
    torch.testing.assert_close(normalizer(normalizer.inverse(z)), z, rtol=0, atol=2e-5)
    before = x.clone()
    normalizer(x), normalizer.inverse(x)
    assert torch.equal(x, before), "the input was written to"


@pytest.mark.parametrize("group", [[ROOT], [0, 1, 3, 4]])
def test_both_groups_have_mean_0_and_rms_1_where_frames_are_real(group: list[int]) -> None:
    normalizer, x, mask = fitted()
    real = normalizer(x)[:, group].double() * mask
    count = mask.sum().item()
    means = real.sum(dim=(0, 3)) / count
    torch.testing.assert_close(means, torch.zeros_like(means), rtol=0, atol=1e-5)
    rms = (real.square().sum() / (count * len(group) * 3)).sqrt()
    assert rms.item() == pytest.approx(1, abs=1e-5)


def test_there_is_one_scale_for_the_root_and_one_for_the_body() -> None:
    normalizer, *_ = fitted()
    scale = normalizer.scale.flatten()
    assert (scale[[1, 3, 4]] == scale[0]).all() and scale[ROOT] != scale[0]


def test_steps_are_those_of_the_root_over_the_ground() -> None:
    """Against the definition: metres from frame to frame in units of their own root mean square; height and body as before."""
    plain, x, mask = fitted()
    normalizer = Normalizer(5, 3, ROOT, travel=(0, 2))
    normalizer.fit(x, mask)
    z = normalizer(x)
    steps = x[:, ROOT, [0, 2]].diff(dim=-1)
    expected = steps * (1 / normalizer.scale[ROOT, 0, 0]) - (normalizer.mean[ROOT, [0, 2]] / normalizer.scale[ROOT, 0, 0])
    torch.testing.assert_close(z[:, ROOT, [0, 2], 1:], expected, rtol=0, atol=1e-5)
    assert torch.equal(z[:, ROOT, [0, 2], 0], z[:, ROOT, [0, 2], 1])
    others = [0, 1, 3, 4]
    assert torch.equal(z[:, others], plain(x)[:, others]) and normalizer.scale[ROOT, 1] != normalizer.scale[ROOT, 0]
    rms = ((z[:, ROOT, [0, 2]].square() * mask[:, 0]).sum() / (2 * mask.sum())).sqrt()
    assert rms.item() == pytest.approx(1, abs=1e-5)
    anchored = x - x[:, ROOT : ROOT + 1, :, :1] * torch.tensor([1.0, 0.0, 1.0])[:, None]
    torch.testing.assert_close(normalizer.inverse(z), anchored, rtol=0, atol=2e-5)
    alone = normalizer(x[..., :1])[:, ROOT, :, 0] * normalizer.scale[ROOT, :, 0] + normalizer.mean[ROOT, :, 0]
    torch.testing.assert_close(alone, x[:, ROOT, :, 0])  # one frame has no steps


def test_a_walker_has_no_high_frequencies_in_steps() -> None:
    """A steady walk is a ramp in positions, with energy at all frequencies, and a constant in steps."""
    x = torch.zeros(2, 5, 3, 16) + torch.randn(5, 3, 1)
    x[0, :, 0] += 0.1 * torch.arange(16)
    normalizer = Normalizer(5, 3, ROOT, travel=(0, 2))
    normalizer.fit(x)
    assert normalizer(x)[:, ROOT].diff(dim=-1).abs().max() < 1e-4
    assert normalizer.inverse(normalizer(x) + 1e-3)[:, ROOT, 0, 0].abs().max() == 0


def test_padding_does_not_count() -> None:
    normalizer, x, mask = fitted()
    other = Normalizer(5, 3, ROOT)
    other.fit(torch.where(mask.bool(), x, 100 * torch.randn_like(x)), mask)
    assert torch.equal(other.mean, normalizer.mean) and torch.equal(other.scale, normalizer.scale)
    real_only = Normalizer(5, 3, ROOT)
    flat = torch.cat([x[i, :, :, : int(mask[i].sum())] for i in range(len(x))], dim=-1)[None]
    real_only.fit(flat, torch.ones(1, 1, 1, flat.shape[-1]))
    torch.testing.assert_close(real_only.mean, normalizer.mean)
    torch.testing.assert_close(real_only.scale, normalizer.scale)


def test_moving_the_whole_body_moves_the_roots_numbers_only() -> None:
    normalizer, x, _ = fitted()
    step = torch.tensor([0.5, -1.0, 2.0])[:, None]
    moved = normalizer(x + step) - normalizer(x)
    body = [0, 1, 3, 4]
    torch.testing.assert_close(moved[:, body], torch.zeros_like(moved[:, body]), rtol=0, atol=1e-5)
    expected = (step / normalizer.scale[ROOT]).expand_as(moved[:, ROOT])
    torch.testing.assert_close(moved[:, ROOT], expected, rtol=0, atol=1e-5)


def test_bones_keep_their_proportions() -> None:
    """Between any two joints of the body, a difference in metres is one and the same multiple of a normalised one."""
    normalizer, x, _ = fitted()
    local = x[:1] - x[:1, ROOT : ROOT + 1]
    z = normalizer(x[:1]) + normalizer.mean / normalizer.scale
    body = [0, 1, 3, 4]
    for a in body:
        for b in body:
            torch.testing.assert_close((z[:, a] - z[:, b]) * normalizer.scale[0], local[:, a] - local[:, b], rtol=0, atol=1e-5)
    perturbed = normalizer(x[:1]) + 0.01 * torch.eye(5)[0][:, None, None]  # equal noise is equal in metres along every axis
    shift = normalizer.inverse(perturbed) - x[:1]
    torch.testing.assert_close(shift[:, 0], torch.full_like(shift[:, 0], 0.01 * normalizer.scale[0].item()), rtol=0, atol=1e-5)


def test_a_centred_root_stays_in_metres() -> None:
    x, mask = clips()
    normalizer = Normalizer(5, 3, ROOT)
    normalizer.fit(x - x[:, ROOT : ROOT + 1], mask)
    assert normalizer.scale[ROOT].item() == 1 and normalizer.scale[0].item() != 1
    assert torch.isfinite(normalizer(x)).all()


def test_a_skeleton_of_one_joint_is_only_a_root() -> None:
    x, mask = clips()
    normalizer = Normalizer(1, 3)
    normalizer.fit(x[:, :1], mask)
    torch.testing.assert_close(normalizer.inverse(normalizer(x[:, :1])), x[:, :1], rtol=0, atol=1e-5)


def test_a_single_pose_is_refused() -> None:
    with pytest.raises(ValueError, match="same single pose"):
        Normalizer(5, 3, ROOT).fit(torch.randn(1, 5, 3, 1).expand(4, 5, 3, 6), torch.ones(4, 1, 1, 6))


def test_no_real_frame_is_refused() -> None:
    x, mask = clips()
    normalizer = Normalizer(5, 3, ROOT)
    with pytest.raises(ValueError, match="no frames"):
        normalizer.fit(x, torch.zeros_like(mask))
    assert not normalizer.fitted


def test_the_state_travels() -> None:
    normalizer, x, _ = fitted()
    fresh = Normalizer(5, 3, ROOT)
    assert normalizer.fitted and not fresh.fitted
    torch.testing.assert_close(fresh(x)[:, ROOT], x[:, ROOT])  # unfitted: metres
    fresh.load_state_dict(normalizer.state_dict())
    assert fresh.fitted and torch.equal(fresh(x), normalizer(x)) and torch.equal(fresh.inverse(x), normalizer.inverse(x))
    assert list(normalizer.parameters()) == []


def test_fitting_again_forgets() -> None:
    normalizer, x, mask = fitted()
    again = Normalizer(5, 3, ROOT)
    again.fit(3 * x + 1, mask)
    again.fit(x, mask)
    assert torch.equal(again.mean, normalizer.mean) and torch.equal(again.scale, normalizer.scale)
