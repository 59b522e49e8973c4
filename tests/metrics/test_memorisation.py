"""Memorisation: copies are found wherever they stand, fair samples are not suspected."""

import math

import pytest
import torch

from ddpm.clips import Clips
from ddpm.metrics.memorisation import memorisation, nearest
from ddpm.skeleton import Skeleton
from tests.conftest import walk
from tests.metrics.test_features import moved


def long(n: int, skeleton: Skeleton, seed: int) -> Clips:
    """n recordings of 30 to 39 frames."""
    return Clips(walk(n, 40, 20, skeleton.coords, seed), torch.arange(n) % 10 + 30, 20.0, skeleton)


def windows(motions: Clips, start: int, frames: int) -> Clips:
    part = motions.positions[:, start : start + frames]
    return Clips(part, torch.full((len(motions),), frames), motions.fps, motions.skeleton)


@pytest.mark.parametrize("image", [False, True])
def test_a_copy_is_found_at_distance_zero(skeleton: Skeleton, flat: Clips, image: bool) -> None:
    """Cut out anywhere, moved, and turned where there is something to turn about."""
    training = long(20, flat.skeleton if image else skeleton, 1)
    for start in (0, 7, 14):
        copies = windows(training, start, 16)
        copies = copies.replace(copies.positions + torch.tensor([3.0, 0])) if image else moved(copies)
        distance, index = nearest(copies, training)
        assert index.tolist() == list(range(20))
        assert float(distance.max()) < 1e-6


def test_a_stride_skips_starts(skeleton: Skeleton) -> None:
    training = long(10, skeleton, 1)
    copies = windows(training, 7, 16)
    assert float(nearest(copies, training, stride=7)[0].max()) < 1e-6
    assert float(nearest(copies, training, stride=4)[0].min()) > 1e-2


def test_the_distance_is_that_of_the_best_alignment(skeleton: Skeleton) -> None:
    """Against a search over turns, of one clip and one training clip of equal length."""
    a, b = (Clips(walk(1, 8, 20, 3, seed), torch.tensor([8]), 20.0, skeleton) for seed in (1, 2))
    distance, _ = nearest(a, b)
    x, y = (m.positions[0] - m.positions[0].mean((0, 1)) * torch.tensor([1, 0, 1]) for m in (a, b))
    tried = []
    for k in range(3600):
        c, s = math.cos(k * math.pi / 1800), math.sin(k * math.pi / 1800)
        turned = torch.stack([c * y[..., 0] + s * y[..., 2], y[..., 1], c * y[..., 2] - s * y[..., 0]], -1)
        tried.append(float((x - turned).square().sum(-1).mean().sqrt()))
    assert float(distance) == pytest.approx(min(tried), rel=1e-5)


def test_shorter_training_clips_are_compared_as_far_as_they_go(skeleton: Skeleton) -> None:
    """16 frames against 10 of them, which count, and 6 of them, which are less than half of the 15 that another clip offers."""
    whole = Clips(walk(3, 16, 20, 3, 5), torch.full((3,), 16), 20.0, skeleton)
    training = Clips(whole.positions, torch.tensor([15, 10, 6]), 20.0, skeleton)
    distance, index = nearest(whole, training)
    assert index[:2].tolist() == [0, 1] and float(distance[:2].max()) < 1e-6
    assert float(distance[2]) > 1e-2


def test_padding_does_not_count(skeleton: Skeleton) -> None:
    training, samples = long(6, skeleton, 1), windows(long(5, skeleton, 2), 0, 12)
    padded = torch.cat([samples.positions, 100 + 0 * samples.positions], 1)
    more = Clips(padded, samples.lengths, 20.0, skeleton)
    torch.testing.assert_close(nearest(more, training)[0], nearest(samples, training)[0])


def test_copies_are_suspects_and_fair_samples_are_not(skeleton: Skeleton) -> None:
    training, held_out, fair = (long(60, skeleton, seed) for seed in (1, 2, 3))
    copies = windows(training, 5, 16)
    noise = torch.randn(copies.positions.shape, generator=torch.Generator().manual_seed(0))
    samples = windows(fair, 0, 16)
    mixed = samples.replace(torch.cat([copies.positions[:10] + 0.01 * noise[:10], samples.positions[10:]]))
    found = memorisation(mixed, training, windows(held_out, 0, 16))
    assert set(found.suspects.tolist()) >= set(range(10)) and len(found.suspects) <= 13
    assert found.neighbours[:10].tolist() == list(range(10))
    assert memorisation(copies, training, windows(held_out, 0, 16)).closer_than_held_out == 1
    honest = memorisation(samples, training, windows(held_out, 0, 16))
    assert honest.closer_than_held_out == pytest.approx(0.5, abs=0.15)


def test_a_reference_that_was_trained_on_is_refused(skeleton: Skeleton) -> None:
    training = long(10, skeleton, 1)
    with pytest.raises(ValueError, match="10 of 10 held-out clips are training clips"):
        memorisation(windows(long(5, skeleton, 2), 0, 16), training, windows(training, 3, 16))


def test_clips_that_cannot_be_compared_are_refused(motions: Clips, flat: Clips) -> None:
    with pytest.raises(ValueError, match=r"20\.0 and 30\.0 frames per second"):
        nearest(motions, Clips(motions.positions, motions.lengths, 30.0, motions.skeleton))
    with pytest.raises(ValueError, match="one skeleton"):
        nearest(motions, flat)
    with pytest.raises(ValueError, match="stride=0"):
        nearest(motions, motions, stride=0)
