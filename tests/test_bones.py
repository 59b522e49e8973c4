"""rigid_bones: every bone as long as it usually is, and nothing else changes."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.bones import rigid_bones
from ddpm.denoiser import RIGID_SNR
from ddpm.module import MotionDiffusion, build_module
from ddpm.process.samplers import ddim, ddpm, dpmpp_2m, dpmpp_2m_sde, heun, unipc
from ddpm.skeleton import Skeleton

# Parents may come after their children, and the root anywhere.
BODY = Skeleton(
    {"hand": "elbow", "foot": "knee", "elbow": "chest", "head": "chest", "hip": None, "chest": "hip", "knee": "hip"},
    feet=["foot"],
)
ORDERED = Skeleton(
    {"hip": None, "chest": "hip", "head": "chest", "elbow": "chest", "hand": "elbow", "knee": "hip", "foot": "knee"}
)
FLAT = Skeleton(dict(BODY.joints), feet=["foot"], coords=2)
HIP = BODY.root


def walk(batch: int = 3, frames: int = 11, skeleton: Skeleton = BODY, seed: int = 0) -> Tensor:
    """``(batch, joint, coord, frame)`` float64: bones of any length, in any direction, around a root that travels."""
    g = torch.Generator().manual_seed(seed)
    clips = torch.randn(batch, len(skeleton.names), skeleton.coords, frames, generator=g, dtype=torch.float64)
    return clips + 5 * clips[:, :1].cumsum(dim=-1)


def bones(clips: Tensor, skeleton: Skeleton = BODY) -> Tensor:
    """Vectors from parent to child, ``(batch, bone, coord, frame)``."""
    child, parent = map(list, zip(*skeleton.bones, strict=True))
    return clips[:, child] - clips[:, parent]


def lengths(clips: Tensor, skeleton: Skeleton = BODY) -> Tensor:
    """``(batch, bone, frame)``."""
    return bones(clips, skeleton).norm(dim=2)


@pytest.mark.parametrize("frames", [1, 2, 10, 11])
@pytest.mark.parametrize("skeleton", [BODY, ORDERED, FLAT], ids=["any order", "parents first", "2-D"])
def test_every_bone_has_its_median_length(skeleton: Skeleton, frames: int) -> None:
    """Of its own clip; the median of an even number of frames is the lower one of the middle."""
    clips = walk(3, frames, skeleton)
    rigid = rigid_bones(clips, skeleton)
    assert rigid.shape == clips.shape and rigid.dtype == clips.dtype
    expected = lengths(clips, skeleton).sort(dim=2).values[:, :, (frames - 1) // 2, None]
    torch.testing.assert_close(lengths(rigid, skeleton), expected.expand(-1, -1, frames), rtol=1e-12, atol=1e-12)
    for i in range(3):
        torch.testing.assert_close(rigid_bones(clips[i : i + 1], skeleton), rigid[i : i + 1], rtol=1e-12, atol=1e-12)


def test_mirrored_bones_have_one_length() -> None:
    """The mean of both medians; all other bones as without a mirror image."""
    joints = {"hip": None, "l_knee": "hip", "r_knee": "hip", "r_foot": "r_knee", "l_foot": "l_knee", "chest": "hip"}
    pairs = [("l_knee", "r_knee"), ("l_foot", "r_foot")]
    sided, plain = Skeleton(joints, left_right=pairs), Skeleton(joints)
    clips = walk(3, 7, plain)
    found, alone = lengths(rigid_bones(clips, sided), sided), lengths(rigid_bones(clips, plain), plain)
    column = {plain.names[child]: number for number, (child, _) in enumerate(plain.bones)}
    for left, right in pairs:
        mean = (alone[:, column[left]] + alone[:, column[right]]) / 2
        for side in (left, right):
            torch.testing.assert_close(found[:, column[side]], mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[:, column["chest"]], alone[:, column["chest"]], rtol=1e-12, atol=1e-12)


def test_directions_and_root_stay() -> None:
    clips = walk()
    rigid = rigid_bones(clips, BODY)
    assert torch.equal(rigid[:, HIP], clips[:, HIP])
    before, after = (bones(x) / bones(x).norm(dim=2, keepdim=True) for x in (clips, rigid))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12)


def test_a_joint_is_where_the_bones_above_it_lead() -> None:
    """One joint and frame at a time, from the root outwards, in plain sums."""
    clips = walk(1, 5)
    rigid = rigid_bones(clips, BODY)
    usual = dict(zip((child for child, _ in BODY.bones), lengths(clips)[0].median(dim=1).values.tolist(), strict=True))
    for name in ("chest", "head", "elbow", "hand", "knee", "foot"):
        joint, parent = BODY.index(name), BODY.parents[BODY.index(name)]
        for f in range(5):
            bone = clips[0, joint, :, f] - clips[0, parent, :, f]
            expected = rigid[0, parent, :, f] + usual[joint] * bone / bone.norm()
            torch.testing.assert_close(rigid[0, joint, :, f], expected, rtol=1e-12, atol=1e-12)


def test_the_order_of_the_joints_does_not_matter() -> None:
    clips = walk()
    order = [BODY.index(name) for name in ORDERED.names]
    torch.testing.assert_close(rigid_bones(clips[:, order], ORDERED), rigid_bones(clips, BODY)[:, order], rtol=1e-12, atol=1e-12)


def test_rigid_clips_stay_what_they_are() -> None:
    """A body that turns about its joints; and so does what was made rigid before."""
    rigid = rigid_bones(walk(), BODY)
    torch.testing.assert_close(rigid_bones(rigid, BODY), rigid, rtol=1e-12, atol=1e-12)
    place = torch.tensor(
        [[0.3, 0.0, 0.5], [0.0, 0.1, -0.7], [0.0, 0.2, 0.1], [0.0, 0.0, 0.4], [0.0, 0, 0], [0, 0.4, 0], [0.1, -0.4, 0]]
    )
    turn = torch.linalg.qr(torch.randn(6, 3, 3, dtype=torch.float64)).Q
    body = torch.einsum("fij,kj->kif", turn, place.double())[None] + torch.randn(1, 1, 3, 6, dtype=torch.float64)
    torch.testing.assert_close(rigid_bones(body, BODY), body, rtol=1e-12, atol=1e-12)


def test_moving_turning_and_growing_come_before_or_after_alike() -> None:
    clips = walk()
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    moved = 1.7 * torch.einsum("ij,bkjf->bkif", turn, clips) + torch.randn(3, 1, 3, 1, dtype=torch.float64)
    expected = 1.7 * torch.einsum("ij,bkjf->bkif", turn, rigid_bones(clips, BODY)) + (moved - 1.7 * torch.einsum(
        "ij,bkjf->bkif", turn, clips))  # fmt: skip
    torch.testing.assert_close(rigid_bones(moved, BODY), expected, rtol=1e-10, atol=1e-10)


def test_one_frame_is_any_body() -> None:
    clips = walk(frames=1)
    torch.testing.assert_close(rigid_bones(clips, BODY), clips, rtol=1e-12, atol=1e-12)


def test_a_single_joint_has_nothing_to_be_rigid() -> None:
    point = Skeleton({"hip": None})
    clips = walk(skeleton=point)
    assert torch.equal(rigid_bones(clips, point), clips)


def test_a_bone_without_length_has_no_direction_and_breaks_nothing() -> None:
    """Where a hand lies in its elbow, it stays there."""
    clips = walk()
    hand, elbow = BODY.index("hand"), BODY.index("elbow")
    clips[:, hand, :, :2] = clips[:, elbow, :, :2]
    rigid = rigid_bones(clips, BODY)
    assert rigid.isfinite().all() and torch.equal(rigid[:, hand, :, :2], rigid[:, elbow, :, :2])
    others = [i for i, (child, _) in enumerate(BODY.bones) if child != hand]
    assert lengths(rigid)[:, others].std(dim=2).max() < 1e-12


def test_half_precision_stays_out_of_it() -> None:
    clips = walk().float()
    plain = rigid_bones(clips, BODY)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(rigid_bones(clips, BODY), plain)


# --- in sampling


@pytest.fixture
def module(tiny_config: dict[str, Any]) -> MotionDiffusion:
    """A network that was never trained, whose bodies are of any shape."""
    torch.manual_seed(0)
    module = build_module({**tiny_config, "T": 50, "project": "bones"}, fps=15.0)
    for parameter in module.diffusion.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    module.fit({"clips": torch.randn(6, 20, 3, 1) + 0.3 * torch.randn(6, 20, 3, 8), "mask": None})
    return module


def variation(module: MotionDiffusion, clips: Tensor) -> float:
    """By how many metres the length of a bone varies in a clip, at most."""
    found = lengths(clips.permute(0, 2, 3, 1), module.skeleton)
    return (found.amax(dim=2) - found.amin(dim=2)).max().item()


@pytest.mark.parametrize(
    "sampler",
    [ddpm, partial(ddim, steps=10), partial(ddim, steps=10, eta=1.0), partial(heun, steps=11), dpmpp_2m, dpmpp_2m_sde, unipc],
)
def test_sampled_bodies_are_rigid(module: MotionDiffusion, sampler: Any) -> None:
    rigid, loose = (module.sample([1, 2, 3], sampler=sampler, project=project).positions for project in ("bones", None))
    assert variation(module, rigid) < 1e-5 and variation(module, loose) > 0.05
    assert torch.equal(module.sample([1, 2, 3], sampler=sampler).positions, rigid), "as the run was told"
    assert variation(module, module.sample([1, 2], sampler=sampler, frames=13).positions) < 1e-5


def test_a_clip_is_projected_as_if_it_were_alone(module: MotionDiffusion) -> None:
    together = module.sample([1, 2, 3]).positions
    torch.testing.assert_close(module.sample([2]).positions[0], together[1], rtol=1e-4, atol=1e-4)


def test_it_acts_where_the_clip_can_be_seen(module: MotionDiffusion) -> None:
    """From a signal-to-noise ratio on; before, answers are the network's own. There and here they explain xt."""
    torch.manual_seed(0)
    xt, t = torch.randn(50, 20, 3, 8), torch.arange(50)
    alpha_bar = module.diffusion.alpha_bar[t]
    with torch.no_grad():
        loose, rigid = (module.denoiser(None, None, project)(xt, t) for project in (None, "bones"))
    late = alpha_bar / (1 - alpha_bar) > RIGID_SNR
    assert 5 < late.sum() < 45
    assert torch.equal(rigid.x0_hat[~late], loose.x0_hat[~late]) and torch.equal(rigid.eps_hat[~late], loose.eps_hat[~late])
    metres = module.normalizer.inverse(rigid.x0_hat[late])
    assert variation(module, metres.permute(0, 3, 1, 2)) < 1e-5
    expected = module.normalizer(rigid_bones(module.normalizer.inverse(loose.x0_hat[late]), module.skeleton))
    torch.testing.assert_close(rigid.x0_hat[late], expected, rtol=1e-4, atol=1e-4)
    ab = alpha_bar.reshape(-1, 1, 1, 1)
    torch.testing.assert_close(ab.sqrt() * rigid.x0_hat + (1 - ab).sqrt() * rigid.eps_hat, xt, rtol=0, atol=1e-4)


def test_other_projections_are_refused(module: MotionDiffusion) -> None:
    with pytest.raises(ValueError, match=r"project='feet' must be bones, none or None"):
        module.sample([0], project="feet")


def test_pictures_have_no_rigid_bones(tiny_config: dict[str, Any]) -> None:
    """What is turned towards the camera is shorter in it."""
    flat = tiny_config["skeleton"] | {"coords": 2, "up": "y"}
    model = tiny_config["model"] | {"in_channels": 40, "out_channels": 40}
    changes = {"skeleton": flat, "model": model, "project": "bones"}
    assert build_module(tiny_config | changes, fps=15.0).project is None
    assert build_module(tiny_config | {"project": "bones"}, fps=15.0).project == "bones"
    assert build_module(tiny_config, fps=15.0).project is None


def test_what_is_traced_leaves_nothing_behind() -> None:
    """The tables of a skeleton are kept; those of a trace hold no numbers."""
    body = Skeleton({"root": None, "left_far": "root", "right_far": "root"}, left_right=[["left_far", "right_far"]])

    class Rigid(torch.nn.Module):
        def forward(self, clips: Tensor) -> Tensor:
            return rigid_bones(clips, body)

    clips = torch.randn(1, 3, 3, 5)
    program = torch.export.export(Rigid(), (clips,))
    assert torch.equal(program.module()(clips), rigid_bones(clips, body)) and type(rigid_bones(clips, body)) is Tensor
