"""Features: definitions by independent loops, invariances, padding."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.clips import Clips, frame_mean
from ddpm.metrics.alignment import anchored, local_poses
from ddpm.metrics.features import Projection, band_edges, band_energy, coordinates, kinetic, log_kinetic, pose, rested_log
from ddpm.metrics.geometric import geometric, has_geometric
from ddpm.skeleton import Skeleton


def spectrum(motions: Clips) -> Tensor:
    return rested_log(band_energy(motions)).flatten(1)


FEATURES: list[Callable[[Clips], Tensor]] = [kinetic, log_kinetic, pose, spectrum, coordinates, geometric]


def moved(motions: Clips) -> Clips:
    """Every clip elsewhere in the room and facing another way."""
    yaw = torch.linspace(0.3, 6, len(motions), dtype=torch.float64)
    turn = torch.zeros(len(motions), 3, 3, dtype=torch.float64)
    turn[:, 0, 0] = turn[:, 2, 2] = yaw.cos()
    turn[:, 0, 2], turn[:, 2, 0] = yaw.sin(), -yaw.sin()
    turn[:, 1, 1] = 1
    shift = torch.stack([yaw, 0 * yaw, 5 - yaw], -1)[:, None, None]
    return motions.replace(torch.einsum("nij,nfkj->nfki", turn, motions.positions) + shift)


def by_the_book(x: np.ndarray, fps: float, window: int, legacy: bool) -> list[float]:
    """AIST++'s definition, one joint ``(frames, 3)`` of one clip, loop for loop."""
    dt, energies = 1 / fps, []
    for i in range(1, len(x)):
        steps = [x[j] - x[j - 1] for j in range(i - window, i + window + 1) if 1 <= j < len(x)]
        velocity = np.mean(steps, axis=0) / dt
        turns = []
        for j in range(i - window, i + window + 1):
            if 1 <= j < len(x) - 1:
                before = x[j] - x[j - 1] / dt if legacy else (x[j] - x[j - 1]) / dt
                turns.append(((x[j + 1] - x[j]) / dt - before) / dt)
        acceleration = float(np.linalg.norm(np.mean(turns, axis=0))) if turns else math.nan
        energies.append((velocity[0] ** 2 + velocity[2] ** 2, velocity[1] ** 2, acceleration))
    return np.nanmean(energies, axis=0).tolist()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("fps", "window"), [(20.0, 0), (30.0, 1), (60.0, 2)])
def test_kinetic_is_the_published_definition(motions: Clips, fps: float, window: int, legacy: bool) -> None:
    motions = Clips(motions.positions, motions.lengths, fps, motions.skeleton)
    features = kinetic(motions, legacy=legacy).reshape(40, 20, 3)
    for clip in (0, 7, 13):
        x = motions.positions[clip, : motions.lengths[clip]].numpy()
        expected = [by_the_book(x[:, j], fps, 2 if legacy else window, legacy) for j in range(20)]
        np.testing.assert_allclose(features[clip], expected, rtol=1e-9)


def test_kinetic_of_a_known_motion(skeleton: Skeleton) -> None:
    """3 m/s along the ground and 4 m/s^2 upwards."""
    time = torch.arange(8, dtype=torch.float64) / 20
    x = torch.stack([3 * time, 2 * time**2, 0 * time], -1)[None, :, None].expand(1, 8, 20, 3)
    features = kinetic(Clips(x, torch.tensor([8]), 20.0, skeleton)).reshape(20, 3)
    vertical = (2 * time**2).diff().mul(20).square().mean()
    torch.testing.assert_close(
        features, torch.stack([torch.tensor(9.0).double(), vertical, torch.tensor(4.0).double()]).expand(20, 3)
    )


@pytest.mark.parametrize("feature", FEATURES)
def test_place_and_heading_do_not_matter(motions: Clips, feature: Callable[[Clips], Tensor]) -> None:
    torch.testing.assert_close(feature(moved(motions)), feature(motions), rtol=1e-8, atol=1e-9)


def test_the_published_form_depends_on_the_place(motions: Clips) -> None:
    """The reason why it is not the default."""
    change = kinetic(moved(motions), legacy=True) / kinetic(motions, legacy=True)
    assert float(change.reshape(40, 20, 3)[..., 2].median()) > 1.5


@pytest.mark.parametrize("feature", FEATURES)
def test_each_clip_stands_for_itself(motions: Clips, feature: Callable[[Clips], Tensor]) -> None:
    """Neither other clips nor the padding change it."""
    everything = feature(motions)
    for clip in (0, 3, 39):
        length = int(motions.lengths[clip])
        alone = Clips(motions.positions[clip : clip + 1, :length], torch.tensor([length]), 20.0, motions.skeleton)
        torch.testing.assert_close(feature(alone)[0], everything[clip], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("feature", FEATURES[:-1])
def test_two_dimensions(flat: Clips, feature: Callable[[Clips], Tensor]) -> None:
    assert feature(flat).shape[0] == 40 and feature(flat).isfinite().all()


def test_a_frozen_clip_is_finite_and_an_outlier(motions: Clips) -> None:
    frozen = motions.replace(motions.positions[:, :1].expand_as(motions.positions))
    real, still = log_kinetic(motions), log_kinetic(frozen)
    assert still.isfinite().all() and (still < real.min(0).values).all()


def test_the_bands_add_up_to_the_mean_squared_speed(motions: Clips) -> None:
    """Parseval, for clips of every length; joints relative to the root."""
    relative = motions.positions - motions.positions[:, :, :1]
    relative[:, :, 0] = motions.positions[:, :, 0]
    velocity, mask = motions.replace(relative).derivative(1)
    energy = band_energy(motions)
    assert energy.shape == (40, 20, 4)
    torch.testing.assert_close(energy.sum(2), frame_mean(velocity.square().sum(-1), mask))


@pytest.mark.parametrize(("hertz", "band"), [(0.5, 0), (1.5, 1), (3.0, 2), (7.0, 3)])
def test_an_oscillation_lies_in_its_band(skeleton: Skeleton, hertz: float, band: int) -> None:
    time = torch.arange(120, dtype=torch.float64) / 20
    x = torch.zeros(1, 120, 20, 3, dtype=torch.float64)
    x[0, :, 7, 1] = torch.sin(2 * torch.pi * hertz * time)
    energy = band_energy(Clips(x, torch.tensor([120]), 20.0, skeleton))[0, 7]
    assert float(energy[band] / energy.sum()) > 0.9


def test_bands_are_octaves_below_the_nyquist_frequency() -> None:
    assert band_edges(15).tolist() == [0, 1, 2, 4, math.inf]
    assert band_edges(20).tolist() == [0, 1, 2, 4, math.inf]
    assert band_edges(60).tolist() == [0, 1, 2, 4, 8, 16, math.inf]


def test_pose_is_mean_and_spread_in_the_frame_of_the_body(motions: Clips) -> None:
    local = local_poses(motions)
    features = pose(motions).reshape(40, 2, 20, 3)
    for clip in (0, 5):
        frames = local[clip, : motions.lengths[clip]]
        torch.testing.assert_close(features[clip, 0], frames.mean(0))
        torch.testing.assert_close(features[clip, 1], frames.std(0, correction=0))


def test_distance_of_coordinates_is_metres_per_joint(motions: Clips) -> None:
    """Raised by 30 cm, every joint of every frame is 30 cm away."""
    raised = motions.replace(motions.positions + torch.tensor([0, 0.3, 0]))
    apart = (coordinates(raised) - coordinates(motions)).norm(dim=1)
    torch.testing.assert_close(apart, torch.full((40,), 0.3, dtype=torch.float64))


def test_coordinates_run_from_the_first_to_the_last_frame(motions: Clips) -> None:
    x = coordinates(motions, frames=3).reshape(40, 3, 20, 3) * 60**0.5
    whole = anchored(motions)
    clips = torch.arange(40)
    torch.testing.assert_close(x[:, 0], whole[:, 0])
    torch.testing.assert_close(x[:, 2], whole[clips, motions.lengths - 1])
    odd = motions.lengths % 2 == 1
    torch.testing.assert_close(x[odd, 1], whole[clips, motions.lengths // 2][odd])


def test_headings_are_taken_out(motions: Clips) -> None:
    """In every frame, or on average over the clip, the person's left is the first ground axis."""
    hips_and_shoulders = [motions.skeleton.index(f"{side}_{j}") for side in ("left", "right") for j in ("shoulder", "hip")]
    for x, per_clip in ((local_poses(motions), False), (anchored(motions), True)):
        joints = x[:, :, hips_and_shoulders]
        across = joints[:, :, :2].sum(2) - joints[:, :, 2:].sum(2)
        across = (across * motions.mask[..., None]).sum(1) if per_clip else across.flatten(0, 1)
        assert float(across[..., 2].abs().max()) < 1e-9 and (across[..., 0] > 0).all()
        assert float(x[:, 0, 0, [0, 2]].abs().max()) < 1e-12


def test_a_heading_needs_pairs(motions: Clips) -> None:
    alone = Skeleton(motions.skeleton.joints)
    with pytest.raises(ValueError, match="left_right"):
        pose(Clips(motions.positions, motions.lengths, 20.0, alone))


def bent(skeleton: Skeleton) -> Clips:
    """Two frames: a person who stands facing z with the right elbow at 90 degrees and the left hand going up at 2 m/s."""
    place = {
        "shoulder_center": (0, 1.4, 0), "left_shoulder": (0.2, 1.4, 0), "right_shoulder": (-0.2, 1.4, 0),
        "left_elbow": (0.25, 1.1, 0), "right_elbow": (-0.25, 1.1, 0),
        "left_wrist": (0.25, 0.9, 0), "right_wrist": (-0.25, 1.1, 0.25),
        "left_hip": (0.1, 0.9, 0), "right_hip": (-0.1, 0.9, 0), "left_knee": (0.1, 0.5, 0), "right_knee": (-0.1, 0.5, 0),
        "left_ankle": (0.1, 0.1, 0), "right_ankle": (-0.1, 0.1, 0),
    }  # fmt: skip
    frame = torch.tensor([place.get(name, (0, 0.9, 0)) for name in skeleton.names], dtype=torch.float64)
    after = frame.clone()
    after[skeleton.index("left_wrist"), 1] += 0.1
    return Clips(torch.stack([frame, after])[None], torch.tensor([2]), 20.0, skeleton)


def test_geometric_relations_of_a_known_pose(skeleton: Skeleton) -> None:
    """In the order of the features, sides left and right: 13 relations each, then 6 of the whole body."""
    left, right, whole = geometric(bent(skeleton))[0].split([13, 13, 6])
    up, fast, elbow = 1, 3, 6
    assert left.nonzero()[:, 0].tolist() == [up, fast], left
    assert right.nonzero()[:, 0].tolist() == [elbow], right
    assert whole.tolist() == [0] * 6


def test_geometric_features_mirror(motions: Clips) -> None:
    """A clip seen in a mirror has the features of the other side."""
    swap = list(range(20))
    for a, b in motions.skeleton.left_right:
        i, j = motions.skeleton.index(a), motions.skeleton.index(b)
        swap[i], swap[j] = j, i
    mirrored = motions.replace(motions.positions[:, :, swap] * torch.tensor([-1.0, 1, 1]))
    left, right, whole = geometric(motions).split([13, 13, 6], dim=1)
    torch.testing.assert_close(geometric(mirrored), torch.cat([right, left, whole], 1))


def test_geometric_needs_its_joints(flat: Clips) -> None:
    assert not has_geometric(flat.skeleton)
    with pytest.raises(ValueError, match="3-D skeleton with the joints"):
        geometric(flat)


def test_projection_scales_and_keeps_the_leading_axes() -> None:
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(300, 2, generator=generator, dtype=torch.float64)
    x = common @ torch.randn(2, 50, generator=generator, dtype=torch.float64) + 7
    project = Projection.fit(x)
    assert project(x).shape == (300, 24)
    torch.testing.assert_close(project(x).mean(0), torch.zeros(24, dtype=torch.float64), atol=1e-9, rtol=0)
    spread = project(x).var(0)
    torch.testing.assert_close(spread.mean(), torch.tensor(1.0).double())
    assert (spread[2:] < 1e-9).all() and spread[0] > spread[1] > 1  # all that there is lies in 2 directions


def test_projection_keeps_distances_where_all_features_vary_alike() -> None:
    """Up to one factor: nothing is whitened."""
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = (x - x.mean(0)) / x.std(0)
    ratio = torch.pdist(Projection.fit(x)(x)) / torch.pdist(x)
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


@pytest.mark.parametrize(("n", "dim", "kept"), [(1000, 60, 24), (150, 60, 15), (1000, 8, 8), (5, 60, 1)])
def test_projection_keeps_the_dimension_below_the_number_of_clips(n: int, dim: int, kept: int) -> None:
    x = torch.randn(n, dim, generator=torch.Generator().manual_seed(0))
    assert Projection.fit(x)(x).shape == (n, kept)


def test_a_feature_that_hardly_varies_does_not_drown_the_others() -> None:
    x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, 2] = 0.1 + 1e-9 * x[:, 2]
    y = x.clone()
    y[:, 2] += 0.1
    y[:, 0] += 1
    project = Projection.fit(x)
    change = (project(y) - project(x))[0].square().sum()
    y[:, 2] -= 0.1
    assert float(change / (project(y) - project(x))[0].square().sum()) < 3


def test_projection_refuses_too_little() -> None:
    with pytest.raises(ValueError, match="got 1 and 24"):
        Projection.fit(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="are alike"):
        Projection.fit(torch.full((10, 3), 0.1, dtype=torch.float64))
