"""Clips: what is refused, what padding may hold, derivatives."""

import pytest
import torch

from ddpm.clips import Clips, frame_mean
from ddpm.skeleton import Skeleton


def test_padding_is_overwritten_by_the_last_pose(motions: Clips) -> None:
    garbage = torch.where(motions.mask[..., None, None], motions.positions, torch.nan)
    again = motions.replace(garbage)
    assert torch.equal(again.positions, motions.positions)
    for clip, length in zip(again.positions, again.lengths, strict=True):
        assert torch.equal(clip[length:], clip[length - 1].expand_as(clip[length:]))


def test_from_batch_is_the_inverse_of_the_batch_layout(motions: Clips) -> None:
    mask = motions.mask.float()[:, None, None]
    again = Clips.from_batch(motions.positions.permute(0, 2, 3, 1), mask, fps=20.0, skeleton=motions.skeleton)
    assert torch.equal(again.positions, motions.positions) and torch.equal(again.lengths, motions.lengths)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": torch.zeros(2, 5, 19, 3)}, r"\(2, 5, 19, 3\), expected \(n >= 1, frames >= 1, 20 joints, 3 coords\)"),
        ({"positions": torch.zeros(0, 5, 20, 3), "lengths": torch.zeros(0)}, "n >= 1"),
        ({"lengths": torch.tensor([5])}, "2 clips need as many lengths"),
        ({"lengths": torch.tensor([0, 5])}, r"from 0 to 5, they must be in 1\.\.5"),
        ({"lengths": torch.tensor([6, 5])}, r"from 5 to 6, they must be in 1\.\.5"),
        ({"fps": 0.0}, "fps=0"),
        ({"fps": float("nan")}, "fps=nan"),
    ],
)
def test_what_does_not_belong_together_is_refused(skeleton: Skeleton, change: dict[str, object], message: str) -> None:
    good = {"positions": torch.zeros(2, 5, 20, 3), "lengths": torch.tensor([5, 4]), "fps": 20.0, "skeleton": skeleton}
    with pytest.raises(ValueError, match=message):
        Clips(**{**good, **change})


def test_a_position_that_is_not_finite_is_named(motions: Clips) -> None:
    x = motions.positions.clone()
    x[7, 2, 4, 1] = torch.inf
    with pytest.raises(ValueError, match="clip 7, frame 2, joint left_shoulder is at inf; 1 of 40 clips"):
        motions.replace(x)


def test_derivatives_of_a_polynomial_are_exact(skeleton: Skeleton) -> None:
    time = torch.arange(9, dtype=torch.float64) / 25
    x = (2 * time**3)[None, :, None, None].expand(2, 9, 20, 3)
    motions = Clips(x, torch.tensor([9, 6]), 25.0, skeleton)
    jerk, mask = motions.derivative(3)
    assert mask.sum(1).tolist() == [6, 3]
    torch.testing.assert_close(jerk[mask], torch.full_like(jerk[mask], 12.0))
    torch.testing.assert_close(frame_mean(jerk, mask), torch.full((2, 20, 3), 12.0, dtype=torch.float64))


def test_a_clip_too_short_for_a_derivative_is_named(motions: Clips) -> None:
    with pytest.raises(ValueError, match="clip 0 has 5 frames; difference number 5 needs 6"):
        motions.derivative(5)


def test_heights_follow_the_up_axis(motions: Clips, flat: Clips) -> None:
    assert torch.equal(motions.heights, motions.positions[..., 1])
    assert torch.equal(flat.heights, -flat.positions[..., 1])
