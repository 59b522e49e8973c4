"""Physics: clips whose answer is known, padding, skeletons that lack something."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ddpm.clips import Clips
from ddpm.metrics import physics
from ddpm.metrics.comparison import measures
from ddpm.skeleton import Skeleton
from tests.metrics.test_features import moved

FPS = 20.0


def standing(skeleton: Skeleton, frames: int = 41) -> Tensor:
    """``(1, frames, 20, 3)``: nobody moves; feet at 2 cm, everything else at 1 m or higher, no two joints at one place."""
    x = torch.zeros(1, frames, 20, 3, dtype=torch.float64)
    x[..., 1] = 1 + 0.05 * torch.arange(20)
    for name in skeleton.feet:
        x[:, :, skeleton.index(name), 1] = 0.02
        x[:, :, skeleton.index(name), 2] = 0.1 if name.endswith("foot") else 0
    x[..., 0] = torch.tensor([0.2 if skeleton.side(j) == "left" else -0.2 for j in range(20)])
    return x


def clip(x: Tensor, skeleton: Skeleton) -> Clips:
    return Clips(x, torch.tensor([x.shape[1]]), FPS, skeleton)


def test_a_clip_that_slides_by_10_cm_reads_10_cm(skeleton: Skeleton) -> None:
    """The whole body glides over the floor, there and not back."""
    x = standing(skeleton)
    x[..., 2] += torch.linspace(0, 0.1, 41)[None, :, None]
    assert float(physics.skating_distance(clip(x, skeleton))) == pytest.approx(10)
    assert float(physics.skating_ratio(clip(x, skeleton))) == 0  # at 5 cm/s it is no skating by speed


def test_shaking_in_place_is_no_sliding(skeleton: Skeleton) -> None:
    x = standing(skeleton)
    x[:, ::2, :, 2] += 0.05  # 2 m over 40 steps, but nowhere
    assert float(physics.skating_distance(clip(x, skeleton))) == 0
    assert float(physics.skating_ratio(clip(x, skeleton))) == 1


def test_a_lifted_foot_may_move_and_each_contact_counts(skeleton: Skeleton) -> None:
    """Both feet slide by 3 cm in a first contact and by 1 cm in a second one, and fly 50 cm in between."""
    x = standing(skeleton)
    way = torch.cat([torch.linspace(0, 0.03, 15), torch.linspace(0.05, 0.48, 11), torch.linspace(0.5, 0.51, 15)])
    x[..., 2] += way[None, :, None]
    feet = [skeleton.index(name) for name in skeleton.feet]
    x[:, 15:26, feet, 1] = 0.3
    assert float(physics.skating_distance(clip(x, skeleton))) == pytest.approx(2)


def test_a_skating_ratio_counts_the_steps(skeleton: Skeleton) -> None:
    """One foot moves at 1 m/s during 10 of 40 steps."""
    x = standing(skeleton)
    way = torch.cat([torch.zeros(10), torch.arange(11) * 0.05, torch.full((20,), 0.5)])
    x[:, :, skeleton.index("left_foot"), 2] += way
    assert float(physics.skating_ratio(clip(x, skeleton))) == pytest.approx(0.25)


def test_penetration_is_the_mean_depth_in_cm(skeleton: Skeleton) -> None:
    x = standing(skeleton, frames=4)
    x[:, 1, skeleton.index("left_foot"), 1] = -0.08
    x[:, 2, skeleton.index("right_foot"), 1] = -0.04
    assert float(physics.penetration(clip(x, skeleton))) == pytest.approx(3)


def test_bones_that_breathe(skeleton: Skeleton) -> None:
    """All bones scaled by 1 + 0.1 s, s = +-1: their standard deviation is a tenth of their mean."""
    x = standing(skeleton, frames=10)
    still = physics.bone_variation(clip(x, skeleton))
    scale = 1 + 0.1 * (-1.0) ** torch.arange(10)
    assert float(still) == pytest.approx(0, abs=1e-12)
    assert float(physics.bone_variation(clip(x * scale[None, :, None, None], skeleton))) == pytest.approx(0.1)


def test_asymmetry_of_known_bones(skeleton: Skeleton) -> None:
    """Left thigh of 50 cm, right thigh of 40 cm: 10 / 45, and every other pair (of 8) alike."""
    x = torch.zeros(1, 5, 20, 3, dtype=torch.float64)

    def place(j: int) -> float:
        parent = skeleton.parents[j]
        length = 0.5 if skeleton.names[j] == "left_knee" else 0.4
        return 0.0 if parent < 0 else place(parent) + length

    for j in range(20):
        x[..., j, 1] = place(j)
    assert float(physics.asymmetry(clip(x, skeleton))) == pytest.approx(10 / 45 / 8)


def test_speed_acceleration_and_jerk_of_a_polynomial(skeleton: Skeleton) -> None:
    time = torch.arange(10, dtype=torch.float64) / FPS
    x = standing(skeleton, frames=10)
    for function, order, value in ((physics.speed, 1, 1), (physics.acceleration, 2, 2), (physics.jerk, 3, 6)):
        y = x.clone()
        y[..., 2] = (time**order)[None, :, None]
        assert float(function(clip(y, skeleton))) == pytest.approx(value)


def test_freeze_score() -> None:
    real = torch.arange(1, 201).double()
    assert physics.freeze_score(real, real) == pytest.approx(0.01)
    assert physics.freeze_score(real, 0 * real) == 1
    assert physics.freeze_score(real, real + 100) == 0


def test_pfc_by_the_book(motions: Clips) -> None:
    """EDGE's evaluation, loop for loop, of a clip of full length."""
    skeleton, x = motions.skeleton, motions.positions[7, :12]
    feet = {side: [skeleton.index(f"{side}_{j}") for j in ("foot", "ankle")] for side in ("left", "right")}
    forces, products = [], []
    for t in range(1, 11):
        a = ((x[t + 1] - x[t]) * FPS - (x[t] - x[t - 1]) * FPS)[0] * FPS
        a[1] = max(float(a[1]), 0)
        forces.append(float(a.norm()))
        steps = {side: min(float((x[t + 1, j] - x[t, j])[[0, 2]].norm()) for j in feet[side]) for side in feet}
        products.append(forces[-1] * steps["left"] * steps["right"])
    assert float(physics.pfc(motions)[7]) == pytest.approx(1e4 * sum(products) / len(products) / max(forces))


MEASURES = [
    *(physics.speed, physics.acceleration, physics.jerk, physics.bone_variation, physics.asymmetry),
    *(physics.skating_ratio, physics.skating_distance, physics.penetration, physics.pfc),
]


@pytest.mark.parametrize("function", MEASURES)
def test_neither_padding_nor_place_nor_heading_count(motions: Clips, function: Callable[[Clips], Tensor]) -> None:
    low = motions.replace(motions.positions + torch.tensor([0, 1, 0]))  # so that feet are on the floor at times
    values = function(low)
    assert values.shape == (40,) and values.unique().numel() > 5
    torch.testing.assert_close(function(moved(low)), values, rtol=1e-8, atol=1e-9)
    for k in (0, 3, 39):
        length = int(low.lengths[k])
        alone = Clips(low.positions[k : k + 1, :length], torch.tensor([length]), FPS, low.skeleton)
        torch.testing.assert_close(function(alone)[0], values[k], rtol=1e-9, atol=1e-10)


def test_what_a_skeleton_lacks_is_absent_and_refused(motions: Clips, flat: Clips) -> None:
    always = {"speed", "acceleration", "jerk", "bone_variation"}
    assert set(measures(motions.skeleton)) == always | {"asymmetry", "skating_ratio", "skating_distance", "penetration", "pfc"}
    assert set(measures(flat.skeleton)) == always | {"asymmetry"}
    bare = Clips(motions.positions, motions.lengths, FPS, Skeleton(motions.skeleton.joints))
    assert set(measures(bare.skeleton)) == always
    for function in (physics.asymmetry, physics.skating_ratio, physics.skating_distance, physics.penetration, physics.pfc):
        with pytest.raises(ValueError, match=r"metrics: .* needs? "):
            function(bare)
    for _, function in measures(flat.skeleton).values():
        assert function(flat).isfinite().all()
    point = Clips(motions.positions[:, :, :1], motions.lengths, FPS, Skeleton({"hip": None}))
    assert set(measures(point.skeleton)) == always - {"bone_variation"}
    with pytest.raises(ValueError, match=r"metrics: bone_variation needs"):
        physics.bone_variation(point)
