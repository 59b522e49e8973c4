"""Degraded sets: wrong in the way they say, and in no other."""

import torch

from ddpm.clips import Clips
from ddpm.metrics import degraded
from ddpm.metrics.alignment import anchored, local_poses


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_mean_pose_is_one_pose(motions: Clips) -> None:
    x = degraded.mean_pose(motions).positions
    assert torch.equal(x, x[:1, :1].expand_as(x))
    torch.testing.assert_close(x[0, 0], local_poses(motions)[motions.mask].mean(0))


def test_frozen_clips_stand_in_a_pose_of_their_own(motions: Clips) -> None:
    x = degraded.frozen(motions).positions
    assert torch.equal(x, x[:, :1].expand_as(x))
    assert all((clip[0] == own).all((1, 2)).any() for clip, own in zip(x, motions.positions, strict=True))


def test_shuffling_keeps_the_frames_that_count(motions: Clips) -> None:
    shuffled = degraded.shuffled_frames(motions, rng())
    for before, after, length in zip(motions.positions, shuffled.positions, motions.lengths.tolist(), strict=True):
        order = (before[:length, None] == after[None, :length]).all((2, 3))
        assert (order.sum(0) == 1).all() and (order.sum(1) == 1).all()
    assert not torch.equal(shuffled.positions, motions.positions)


def test_gaussian_has_the_mean_and_covariance(motions: Clips) -> None:
    """Draws lie in the space that the clips span, and have the moments of the set, of which one repeated has the same."""
    few = motions.take(torch.arange(7, 40, 8))  # of full length: nothing is padded
    x = anchored(few).flatten(1)
    y = degraded.gaussian(few.take(torch.arange(5).repeat(240)), rng()).positions.flatten(1)
    mean, basis = x.mean(0), torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:4]
    inside = (y - mean) @ basis.T
    torch.testing.assert_close(inside @ basis + mean, y)
    whitened = inside / ((x - mean) @ basis.T).square().mean(0).sqrt()
    torch.testing.assert_close(whitened.mean(0), torch.zeros(4, dtype=torch.float64), atol=0.12, rtol=0)  # 4 standard errors
    torch.testing.assert_close(torch.cov(whitened.T), torch.eye(4, dtype=torch.float64), atol=0.2, rtol=0)


def test_noise_is_a_centimetre(motions: Clips) -> None:
    noise = (degraded.noisy(motions, rng()).positions - motions.positions)[motions.mask]
    assert abs(float(noise.std()) - 0.01) < 2e-4


def test_two_dimensions(flat: Clips) -> None:
    for bad in (
        degraded.mean_pose(flat),
        degraded.frozen(flat),
        degraded.shuffled_frames(flat, rng()),
        degraded.gaussian(flat, rng()),
    ):
        assert bad.positions.isfinite().all() and not torch.equal(bad.positions, flat.positions)
        assert torch.equal(bad.lengths, flat.lengths)
