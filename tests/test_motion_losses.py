"""MotionLoss: errors of motions that were built to have them, in metres and seconds."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.config import construct_part
from ddpm.module import build_module
from ddpm.motion_losses import MotionLoss
from ddpm.skeleton import Skeleton

FPS = 20.0
LEGS = {"hip": None, "left_knee": "hip", "left_foot": "left_knee", "right_knee": "hip", "right_foot": "right_knee"}
PAIRS = [["left_knee", "right_knee"], ["left_foot", "right_foot"]]
BODY = Skeleton(LEGS, PAIRS, ["left_foot", "right_foot"])
FLAT = Skeleton(LEGS, PAIRS, ["left_foot", "right_foot"], up="-y", coords=2)
LEFT, RIGHT = 2, 4
ONES = torch.ones(1, 1, 1, 1, dtype=torch.float64)


def walk(batch: int = 1, frames: int = 12, coords: int = 3, seed: int = 0) -> Tensor:
    """``(batch, 5, coords, frames)`` float64: nothing in it is special."""
    return torch.randn(batch, 5, coords, frames, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss_of(clips: Tensor, real: Tensor, mask: Tensor | None = None, weight: Tensor = ONES, **weights: float) -> float:
    skeleton = BODY if clips.shape[2] == 3 else FLAT
    return MotionLoss(skeleton, FPS, **weights)(clips, real, weight.expand(len(clips), 1, 1, 1), mask).item()


# --- terms


@pytest.mark.parametrize("coords", [2, 3])
def test_moved_clips_move_alike(coords: int) -> None:
    """A constant offset changes no velocity, acceleration or bone; a drift of d metres per second changes velocities by d."""
    real = walk(coords=coords)
    drift = torch.tensor([0.3, -0.4, 0.5][:coords], dtype=torch.float64)[None, None, :, None]
    drifting = real + drift * torch.arange(12).double() / FPS
    for name in ("velocity", "acceleration", "bone_length"):
        assert loss_of(real, real, **{name: 1.0}) == 0
        assert loss_of(real + 7 * drift, real, **{name: 1.0}) < 1e-20
        assert loss_of(drifting, real, **{name: 2.0}) == pytest.approx(
            2 * drift.square().mean().item() if name == "velocity" else 0, rel=1e-9, abs=1e-20
        )


def test_a_parabola_has_an_acceleration() -> None:
    real = walk()
    falling = (
        real - 9.81 / 2 * (torch.arange(12).double() / FPS).square() * torch.tensor([0.0, 1, 0]).double()[None, None, :, None]
    )
    assert loss_of(falling, real, acceleration=1.0) == pytest.approx(9.81**2 / 3, rel=1e-9)


@pytest.mark.parametrize("size", [0.5, 1.2])
@pytest.mark.parametrize("coords", [2, 3])
def test_a_larger_body_has_longer_bones(coords: int, size: float) -> None:
    real = walk(coords=coords)
    lengths = torch.stack([(real[:, child] - real[:, parent]).norm(dim=1) for child, parent in BODY.bones])
    expected = ((size - 1) ** 2 * lengths.square()).mean().item()
    assert loss_of(size * real, real, bone_length=1.0) == pytest.approx(expected, rel=1e-9)
    angle = torch.tensor(0.8).double()
    turn = torch.eye(coords, dtype=torch.float64)
    turn[:2, :2] = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    assert loss_of(torch.einsum("ij,bkjf->bkif", turn, real), real, bone_length=1.0) < 1e-20


def test_terms_are_loops_over_frames_joints_and_coordinates() -> None:
    clips, real = walk(2, 6), walk(2, 6, seed=1)
    terms = MotionLoss(BODY, FPS)
    expected: dict[str, list[float]] = {"velocity": [], "acceleration": [], "bone_length": []}
    for b in range(2):
        for c in range(3):
            for j in range(5):
                a, r = clips[b, j, c].tolist(), real[b, j, c].tolist()
                for f in range(1, 6):
                    expected["velocity"].append(((a[f] - a[f - 1]) * FPS - (r[f] - r[f - 1]) * FPS) ** 2)
                for f in range(1, 5):
                    second = [(x[f + 1] - 2 * x[f] + x[f - 1]) * FPS**2 for x in (a, r)]
                    expected["acceleration"].append((second[0] - second[1]) ** 2)
        for f in range(6):
            for child, parent in BODY.bones:
                length = [math.dist(x[b, child, :, f].tolist(), x[b, parent, :, f].tolist()) for x in (clips, real)]
                expected["bone_length"].append((length[0] - length[1]) ** 2)
    for name, values in expected.items():
        got = getattr(terms, name)(clips, real)
        assert sorted(got.flatten().tolist()) == pytest.approx(sorted(values), rel=1e-9)
        assert loss_of(clips, real, **{name: 0.5}) == pytest.approx(0.5 * sum(values) / len(values), rel=1e-9)


def test_terms_add_up() -> None:
    clips, real = walk(2), walk(2, seed=1)
    weights = {"velocity": 0.3, "acceleration": 1e-3, "bone_length": 2.0, "foot_contact": 0.7}
    alone = [loss_of(clips, real, contact_speed=100.0, contact_height=5.0, **{name: w}) for name, w in weights.items()]
    assert min(alone) > 0
    assert loss_of(clips, real, contact_speed=100.0, contact_height=5.0, **weights) == pytest.approx(sum(alone))
    assert loss_of(clips, real) == 0


def test_a_clip_counts_with_the_weight_of_its_noise_level() -> None:
    clips, real = walk(3), walk(3, seed=1)
    weight = torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    for name in ("velocity", "acceleration", "bone_length", "foot_contact"):
        arguments = {name: 1.0, "contact_speed": 100.0, "contact_height": 5.0}
        alone = [loss_of(clips[i : i + 1], real[i : i + 1], **arguments) for i in range(3)]
        assert loss_of(clips, real, weight=weight, **arguments) == pytest.approx((alone[1] + 5 * alone[2]) / 3)


# --- feet


def stepping(skeleton: Skeleton = BODY) -> Tensor:
    """``(1, 5, coords, 12)``: the left foot stands; the right one stands to frame 3, is lifted and moves, stands from frame 8.

    Frames 3 -> 4 ... 7 -> 8 are its step. The floor is at a height of 2 m.
    """
    up, sign = skeleton.up_axis, skeleton.up_sign
    clips = torch.zeros(1, 5, skeleton.coords, 12, dtype=torch.float64)
    clips[:, 0, up], clips[:, [1, 3], up] = 2 + 0.9, 2 + 0.45
    clips[:, [LEFT, RIGHT], up] = 2.0
    clips[0, RIGHT, up, 4:8] = 2 + 0.2
    clips[0, RIGHT, 0] = 0.1 * (torch.arange(12).clamp(3, 8) - 3)
    clips[:, :, up] *= sign
    return clips


@pytest.mark.parametrize("skeleton", [BODY, FLAT], ids=["up=y", "up=-y, flat"])
def test_who_stands(skeleton: Skeleton) -> None:
    standing = MotionLoss(skeleton, FPS).standing(stepping(skeleton))
    assert standing.shape == (1, 2, 1, 11) and standing.dtype == torch.bool
    assert standing[0, 0].all()
    assert standing[0, 1, 0].tolist() == [True] * 3 + [False] * 5 + [True] * 3


def test_a_slow_foot_high_up_does_not_stand_and_a_fast_one_on_the_floor_slides() -> None:
    real = stepping()
    raised = real.clone()
    raised[:, RIGHT, 0], raised[:, RIGHT, 1] = 0.0, 2.3  # still, 30 cm above the other: the floor is known from the other foot
    assert not MotionLoss(BODY, FPS).standing(raised)[0, 1].any()
    assert MotionLoss(BODY, FPS, contact_height=0.31).standing(raised)[0, 1].all()
    sliding = real.clone()
    sliding[:, RIGHT, 1], sliding[:, RIGHT, 2] = 2.0, 0.0
    sliding[:, RIGHT, 0] = 0.4 / FPS * torch.arange(12)
    assert not MotionLoss(BODY, FPS).standing(sliding)[0, 1].any()
    assert MotionLoss(BODY, FPS, contact_speed=0.41).standing(sliding)[0, 1].all()
    sinking, heights = raised.clone(), [0.095, 0.085, 0.075, 0.085]  # slowly through the limit: low at both ends, or not standing
    sinking[0, RIGHT, 1, :4] = 2 + torch.tensor(heights, dtype=torch.float64)
    assert not MotionLoss(BODY, FPS).standing(sinking)[0, 1].any()
    sinking[0, RIGHT, 1, 3] = 2.07
    assert MotionLoss(BODY, FPS).standing(sinking)[0, 1, 0, :4].tolist() == [False, False, True, False]
    alone = Skeleton(LEGS, [], ["right_foot"])  # without a pair each foot has a floor of its own
    assert MotionLoss(alone, FPS).standing(raised)[0, 0].all()


def test_each_joint_of_a_foot_has_its_own_height(skeleton: Skeleton) -> None:
    """Ankles are never as low as toes: they are compared with ankles."""
    clips = torch.zeros(1, 20, 3, 6)
    ankle, other, foot = (skeleton.index(name) for name in ("left_ankle", "right_ankle", "left_foot"))
    clips[:, [ankle, other], 1] = 0.12
    clips[:, other, 1, 3:] = 0.3
    standing = MotionLoss(skeleton, FPS).standing(clips)[0, :, 0]
    feet = list(skeleton.feet)
    assert standing[feet.index("left_ankle")].all() and standing[feet.index(skeleton.names[foot])].all()
    assert standing[feet.index("right_ankle")].tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("skeleton", [BODY, FLAT], ids=["up=y", "up=-y, flat"])
def test_feet_that_stand_must_not_move(skeleton: Skeleton) -> None:
    """The predicted velocity of real standing feet; where the feet of the prediction are does not matter."""
    real = stepping(skeleton)
    term = {"foot_contact": 1.0}
    assert loss_of(real, real, **term) == 0
    still = real[..., :1].expand_as(real)
    assert loss_of(still + 3, real, **term) == 0
    skating = real.clone()
    skating[:, LEFT, 0] += 0.05 * torch.arange(12)  # 1 m/s in one of the coordinates
    count = 2 * skeleton.coords * 11
    assert loss_of(skating, real, **term) == pytest.approx(11 / count)
    skating[:, RIGHT, 0] += 0.05 * torch.arange(12)
    assert loss_of(skating, real, **term) == pytest.approx((11 + 6) / count)
    knees = real.clone()
    knees[:, [1, 3]] += walk(coords=skeleton.coords)[:, [1, 3]]
    assert loss_of(knees, real, **term) == 0


# --- padding


TERMS = {
    "velocity": 0.3,
    "acceleration": 1e-3,
    "bone_length": 2.0,
    "foot_contact": 0.7,
    "contact_speed": 30.0,
    "contact_height": 2.0,
}


def test_padded_frames_do_not_count() -> None:
    """Every term of a padded batch is the mean over what is real, of clips by themselves; padding may hold anything."""
    lengths = [12, 5, 1, 2, 3]
    clips, real = walk(5), walk(5, seed=1)
    mask = torch.stack([(torch.arange(12) < n).double() for n in lengths])[:, None, None]
    weight = torch.tensor([1.0, 0.5, 2.0, 3.0, 0.1], dtype=torch.float64).reshape(5, 1, 1, 1)
    expected = 0.0
    for name, factor in list(TERMS.items())[:4]:
        loss = MotionLoss(BODY, FPS, contact_speed=30.0, contact_height=2.0)
        errors = [getattr(loss, name)(clips[i : i + 1, ..., :n], real[i : i + 1, ..., :n]) for i, n in enumerate(lengths)]
        total = sum(w * e.sum() for w, e in zip(weight.flatten().tolist(), errors, strict=True))
        assert all(e.shape[-1] == max(n - {"velocity": 1, "foot_contact": 1, "acceleration": 2}.get(name, 0), 0)
                   for e, n in zip(errors, lengths, strict=True))  # fmt: skip
        expected += factor * (total / sum(e.numel() for e in errors)).item()
    for content in (0.0, 1e3, -1e3):
        a, b = (torch.where(mask > 0, x, content) for x in (clips, real))
        assert loss_of(a, b, mask, weight, **TERMS) == pytest.approx(expected, rel=1e-9)
        assert loss_of(a, b, mask.bool(), weight, **TERMS) == pytest.approx(expected, rel=1e-9)
    a = clips.requires_grad_()
    MotionLoss(BODY, FPS, **TERMS)(a, real, weight, mask).backward()
    assert a.grad is not None and not (a.grad * (1 - mask)).any() and a.grad.any()


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("masked", [True, False])
def test_clips_may_be_short(frames: int, masked: bool) -> None:
    clips, real = walk(2, frames), walk(2, frames, seed=1)
    mask = torch.ones(2, 1, 1, frames) if masked else None
    got = loss_of(clips, real, mask, velocity=1.0, acceleration=1.0)
    assert got > 0 if frames > 1 else got == 0


# --- errors


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"velocity": -1.0}, r"motion_loss\.velocity=-1\.0"),
        ({"acceleration": math.nan}, r"motion_loss\.acceleration=nan"),
        ({"bone_length": -0.1}, r"motion_loss\.bone_length=-0\.1"),
        ({"foot_contact": -2.0}, r"motion_loss\.foot_contact=-2\.0"),
        ({"contact_speed": 0.0}, r"contact_speed=0\.0.*positive"),
        ({"contact_height": -0.1}, r"contact_height=-0\.1.*positive"),
        ({"contact_height": math.nan}, r"contact_height=nan"),
    ],
)
def test_impossible_values_are_named(arguments: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        MotionLoss(BODY, FPS, **arguments)


def test_a_skeleton_without_feet_has_no_contacts() -> None:
    with pytest.raises(ValueError, match=r"motion_loss\.foot_contact=0\.5.*no feet"):
        MotionLoss(Skeleton(LEGS), FPS, foot_contact=0.5)
    assert MotionLoss(Skeleton(LEGS), FPS, velocity=1.0).feet.tolist() == []


# --- in training

FULL = {"_target_": "ddpm.motion_losses.MotionLoss", "_partial_": True, "velocity": 0.02, "acceleration": 1e-4,
        "bone_length": 5.0, "foot_contact": 0.02}  # fmt: skip


@pytest.mark.parametrize("padded", [False, True])
def test_it_is_added_to_the_loss_of_the_diffusion(tiny_config: dict[str, Any], skeleton: Skeleton, padded: bool) -> None:
    """In metres, on what the network says of the clean clip, with the weight of the noise level; it trains the network."""
    with_it, without = (build_module(tiny_config | {"motion_loss": m}, fps=FPS).double() for m in (FULL, {}))
    assert without.motion_loss is None
    g = torch.Generator().manual_seed(0)
    clips = torch.randn(3, 20, 3, 8, generator=g, dtype=torch.float64)
    mask = torch.stack([(torch.arange(8) < n).double() for n in (8, 5, 3)])[:, None, None] if padded else None
    eps, t, batch = torch.randn_like(clips), torch.tensor([0, 3, 7]), {"clips": clips, "mask": mask}
    for module in (with_it, without):
        module.normalizer.fit(2 * clips, mask)
    for parameter in with_it.diffusion.eps_model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=g, dtype=torch.float64))
    without.load_state_dict(with_it.state_dict())
    x0 = with_it.normalizer(clips)
    xt = with_it.diffusion.q_sample(x0, t, eps)
    x0_hat = with_it.normalizer.inverse(with_it.diffusion.denoise(xt, t, mask=mask).x0_hat)
    alpha_bar = with_it.diffusion.alpha_bar[t].reshape(3, 1, 1, 1)
    weight = (alpha_bar / (1 - alpha_bar)).clamp(max=5)
    terms = {name: value for name, value in FULL.items() if not name.startswith("_")}
    expected = MotionLoss(skeleton, FPS, **terms)(x0_hat, clips, weight, mask)
    difference = with_it.loss(batch, eps, t) - without.loss(batch, eps, t)
    torch.testing.assert_close(difference, expected)
    difference.backward()
    gradients = [p.grad.abs().max() for p in with_it.diffusion.eps_model.parameters() if p.grad is not None]
    assert expected > 0 and len(gradients) == len(list(with_it.diffusion.eps_model.parameters())) and min(gradients) > 0


def test_it_is_built_for_a_skeleton_and_a_rate(tiny_config: dict[str, Any], skeleton: Skeleton) -> None:
    loss = build_module(tiny_config | {"motion_loss": FULL}, fps=15.0).motion_loss
    assert loss is not None and loss.fps == 15 and loss.skeleton == skeleton and loss.weights["bone_length"] == 5
    assert construct_part(FULL, "motion_loss")(skeleton, 30.0).fps == 30


def test_a_single_joint_has_no_bones() -> None:
    with pytest.raises(ValueError, match=r"bone_length=1\.0.*no bones"):
        MotionLoss(Skeleton({"hip": None}), 10.0, bone_length=1.0)
    MotionLoss(Skeleton({"hip": None}), 10.0, velocity=1.0)
