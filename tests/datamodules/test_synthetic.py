"""The synthetic set: bodies keep their bones, planted feet stay, joints bend as joints do, a seed fixes every bit."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from datamodules.clip_set import ClipSet
from datamodules.sets.synthetic import ACTIONS, PERSONS, synthetic
from datamodules.sets.synthetic_body import TOE_HEIGHT
from ddpm.skeleton import Skeleton

FPS = 20.0


@pytest.fixture(scope="module")
def skeleton() -> Skeleton:
    config = OmegaConf.to_container(OmegaConf.load("conf/skeleton/kinect20.yaml"))
    config.pop("_target_")
    return Skeleton(**config)


@pytest.fixture(scope="module")
def clips(skeleton: Skeleton) -> ClipSet:
    return synthetic(skeleton)


@pytest.fixture(scope="module")
def frames(clips: ClipSet) -> np.ndarray:
    """(total_frames, joints, 3)"""
    return clips.frames.numpy().astype(np.float64)


@pytest.fixture(scope="module")
def follows(clips: ClipSet) -> np.ndarray:
    """(total_frames - 1,) whether frame i + 1 continues the recording of frame i."""
    same = np.ones(len(clips.frames) - 1, bool)
    same[clips.starts.numpy()[1:] - 1] = False
    return same


def per_frame(clips: ClipSet, values: np.ndarray) -> np.ndarray:
    return np.repeat(values, clips.lengths.numpy())


def is_action(clips: ClipSet, *names: str) -> np.ndarray:
    """(total_frames,) whether the frame belongs to one of these actions."""
    wanted = [clips.class_names.index(name) for name in names]
    return per_frame(clips, np.isin(clips.labels.numpy(), wanted))


def bone_lengths(frames: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    child, parent = (list(part) for part in zip(*skeleton.bones, strict=True))
    return np.linalg.norm(frames[:, child] - frames[:, parent], axis=-1)


def facing(frames: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(total_frames, 3) horizontal unit vector to the front: left x up, as left = up x front."""
    left = frames[:, skeleton.index("left_hip")] - frames[:, skeleton.index("right_hip")]
    front = np.cross(left, [0.0, 1.0, 0.0])
    return front / np.linalg.norm(front, axis=-1, keepdims=True)


def test_counts_labels_and_names(clips: ClipSet) -> None:
    assert len(clips) == 895 and clips.fps == FPS
    assert clips.frames.dtype == torch.float32
    assert clips.class_names == tuple(sorted(ACTIONS)) and len(ACTIONS) >= 8
    counts = np.bincount(clips.labels.numpy(), minlength=len(ACTIONS))
    assert counts.max() - counts.min() <= 1
    for source, label in zip(clips.sources, clips.labels.tolist(), strict=True):
        assert source.startswith(f"synthetic/{clips.class_names[label]}_")
    assert len(set(clips.sources)) == len(clips)
    assert set(clips.subjects) == {f"p{i:02d}" for i in range(PERSONS)}
    assert clips.lengths.min() >= 2.5 * FPS and clips.lengths.max() <= 5 * FPS
    assert len(clips.lengths.unique()) > 30


def test_same_seed_same_bits_and_any_n_is_a_prefix(skeleton: Skeleton, clips: ClipSet) -> None:
    np.random.seed(1)  # the global state must not matter
    again = synthetic(skeleton)
    assert torch.equal(again.frames, clips.frames) and again.sources == clips.sources
    few = synthetic(skeleton, n=7)
    assert len(few) == 7 and len(few.class_names) == 7
    other = synthetic(skeleton, n=7, seed=1)
    for k in range(7):
        assert torch.equal(few.recording(k), clips.recording(k))
        assert not torch.equal(few.recording(k)[:50], other.recording(k)[:50])


def test_another_frame_rate_samples_the_same_motion(skeleton: Skeleton) -> None:
    slow, fast = synthetic(skeleton, n=13, fps=20), synthetic(skeleton, n=13, fps=40)
    for k in range(13):
        torch.testing.assert_close(slow.recording(k)[:45], fast.recording(k)[::2][:45], atol=1e-5, rtol=0)


def test_bones_are_rigid_symmetric_and_one_set_per_person(clips: ClipSet, frames: np.ndarray, skeleton: Skeleton) -> None:
    lengths = bone_lengths(frames, skeleton)
    person = per_frame(clips, np.array([int(s[1:]) for s in clips.subjects]))
    bodies = np.stack([lengths[person == p].mean(0) for p in range(PERSONS)])
    assert np.abs(lengths - bodies[person]).max() < 1e-5  # in all recordings of that person
    assert np.ptp(bodies, axis=0).min() > 0.01  # people differ in every bone
    column = {child: i for i, (child, _) in enumerate(skeleton.bones)}
    for left, right in skeleton.left_right:
        a, b = column[skeleton.index(left)], column[skeleton.index(right)]
        np.testing.assert_allclose(bodies[:, a], bodies[:, b], atol=1e-5)


def test_people_are_as_tall_as_people(clips: ClipSet, frames: np.ndarray, skeleton: Skeleton) -> None:
    upright = is_action(clips, "wave", "clap")
    person = per_frame(clips, np.array([int(s[1:]) for s in clips.subjects]))
    eye = np.array([frames[upright & (person == p), skeleton.index("head"), 1].mean() for p in range(PERSONS)])
    crown = eye + 0.065 * eye / 0.93  # the joint is the middle of the head
    assert crown.min() > 1.45 and crown.max() < 2.0
    assert crown.max() - crown.min() > 0.25


def test_planted_feet_do_not_slide(clips: ClipSet, frames: np.ndarray, follows: np.ndarray, skeleton: Skeleton) -> None:
    walking = is_action(clips, "walk", "run", "march", "side_step")[1:]
    for side in ("left", "right"):
        toe, ankle = frames[:, skeleton.index(f"{side}_foot")], frames[:, skeleton.index(f"{side}_ankle")]
        down = toe[:, 1] < TOE_HEIGHT + 0.005
        planted = down[1:] & down[:-1] & follows
        assert 0.3 < planted[walking].mean() < 0.9  # they do step, and they do stand
        moved = np.linalg.norm(np.diff(toe, axis=0)[:, [0, 2]], axis=-1)
        assert moved[planted].max() < 1e-3
        # The heel may rise about a toe that stays. While it is down as well, it stays as well.
        rest = np.minimum.reduceat(np.where(down, ankle[:, 1], np.inf), clips.starts.numpy())
        low = down & (ankle[:, 1] < per_frame(clips, rest) + 0.001)
        flat = low[1:] & low[:-1] & follows
        assert flat.mean() > 0.3
        assert np.linalg.norm(np.diff(ankle, axis=0)[:, [0, 2]], axis=-1)[flat].max() < 1e-3


def test_floor_and_flight(clips: ClipSet, frames: np.ndarray, skeleton: Skeleton) -> None:
    assert frames[..., 1].min() > -0.01
    toes = frames[:, [skeleton.index("left_foot"), skeleton.index("right_foot")], 1]
    airborne = (toes > 0.05).all(-1)
    for action in ACTIONS:
        share = airborne[is_action(clips, action)].mean()
        assert (share > 0.05) == (action in ("jump", "run")), action
    ankles = frames[:, [skeleton.index("left_ankle"), skeleton.index("right_ankle")], 1]
    assert ankles.min() > 0.06


def test_motion_is_smooth_and_never_frozen(frames: np.ndarray, follows: np.ndarray) -> None:
    velocity = np.diff(frames, axis=0) * FPS
    speed = np.linalg.norm(velocity, axis=-1)[follows]
    assert speed.max() < 15  # m/s: a hand that throws; one frame that jumps by a metre would give 20
    assert speed.max(-1).min() > 1e-3  # breathing and sway
    acceleration = np.linalg.norm(np.diff(velocity, axis=0) * FPS, axis=-1)[follows[1:] & follows[:-1]]
    assert acceleration.max() < 220  # m/s^2
    assert np.percentile(acceleration, 99) < 70


def test_root_path_has_no_kinks_at_high_frame_rate(skeleton: Skeleton) -> None:
    """At 200 fps a step of 1 m/s in the pelvis' velocity would show as 200 m/s^2; a jump needs some 60."""
    clips = synthetic(skeleton, n=130, fps=200)
    for k in range(len(clips)):
        root = clips.recording(k)[:, skeleton.root].double().numpy()
        assert np.abs(np.diff(root, 2, axis=0)).max() * 200**2 < 100, clips.sources[k]


def test_knees_bend_forward_and_legs_never_overstretch(frames: np.ndarray, skeleton: Skeleton) -> None:
    front = facing(frames, skeleton)
    for side in ("left", "right"):
        hip, knee, ankle = (frames[:, skeleton.index(f"{side}_{j}")] for j in ("hip", "knee", "ankle"))
        leg = ankle - hip
        length = np.linalg.norm(leg, axis=-1)
        bones = np.linalg.norm(knee - hip, axis=-1) + np.linalg.norm(ankle - knee, axis=-1)
        assert (length / bones).max() < 0.998
        along = ((knee - hip) * leg).sum(-1) / length**2
        off = knee - hip - along[:, None] * leg  # from the hip-ankle line to the knee
        # Forward as the leg sees it: perpendicular to the leg in the sagittal plane, so that a raised leg counts too.
        left = np.cross([0.0, 1.0, 0.0], front)
        assert ((off * np.cross(leg, left)).sum(-1) > 0).all()


def test_elbows_bend_forward_on_hanging_arms(clips: ClipSet, frames: np.ndarray, skeleton: Skeleton) -> None:
    front = facing(frames, skeleton)
    for side in ("left", "right"):
        shoulder, elbow, wrist = (frames[:, skeleton.index(f"{side}_{j}")] for j in ("shoulder", "elbow", "wrist"))
        upper, lower = elbow - shoulder, wrist - elbow
        hanging = (upper[:, 1] < -0.9 * np.linalg.norm(upper, axis=-1)) & is_action(clips, "walk", "march", "run")
        assert hanging.sum() > 1000
        bend = lower / np.linalg.norm(lower, axis=-1, keepdims=True) - upper / np.linalg.norm(upper, axis=-1, keepdims=True)
        assert ((bend * front).sum(-1)[hanging] > 0).all()


def test_walkers_go_forward_turn_to_their_left_hand_side_and_swing_against_the_legs(
    clips: ClipSet, frames: np.ndarray, follows: np.ndarray, skeleton: Skeleton
) -> None:
    front = facing(frames, skeleton)[1:]
    gait = is_action(clips, "walk", "run")[1:] & follows
    ahead = (np.diff(frames[:, skeleton.root], axis=0) * front).sum(-1) * FPS
    assert ahead[gait].min() > 0.3  # never backwards: left and right are not swapped
    reach = {
        joint: ((frames[1:, skeleton.index(f"left_{joint}")] - frames[1:, skeleton.index(f"right_{joint}")]) * front).sum(-1)
        for joint in ("ankle", "hand")
    }
    assert np.corrcoef(reach["ankle"][gait], reach["hand"][gait])[0, 1] < -0.6


def test_headings_are_all_around_and_both_hands_wave(clips: ClipSet, frames: np.ndarray, skeleton: Skeleton) -> None:
    front = facing(frames, skeleton)[clips.starts.numpy()]
    quarter = np.floor(np.arctan2(front[:, 0], front[:, 2]) / (np.pi / 2)).astype(int)
    assert np.unique(quarter, return_counts=True)[1].min() > 150
    hands = frames[:, [skeleton.index("left_hand"), skeleton.index("right_hand")], 1]
    shoulders = frames[:, [skeleton.index("left_shoulder"), skeleton.index("right_shoulder")], 1]
    for i, label in enumerate(clips.labels.tolist()):
        rows = slice(int(clips.starts[i]), int(clips.starts[i] + clips.lengths[i]))
        up = (hands[rows] > shoulders[rows]).any(0)
        if clips.class_names[label] == "wave":
            assert up.sum() == 1  # one hand, and below: sometimes the left and sometimes the right
    waving = is_action(clips, "wave")
    share = (hands > shoulders)[waving].mean(0)
    assert share.min() > 0.15


def test_hands_meet_in_a_clap(clips: ClipSet, frames: np.ndarray, skeleton: Skeleton) -> None:
    apart = np.linalg.norm(frames[:, skeleton.index("left_hand")] - frames[:, skeleton.index("right_hand")], axis=-1)
    for i in np.flatnonzero(clips.labels.numpy() == clips.class_names.index("clap")):
        clip = apart[int(clips.starts[i]) : int(clips.starts[i] + clips.lengths[i])]
        assert clip.min() < 0.12 < 0.25 < clip.max()


def test_joints_may_come_in_any_order(skeleton: Skeleton) -> None:
    config = skeleton.to_config()
    config["joints"] = dict(reversed(config["joints"].items()))
    turned = synthetic(Skeleton(**config), n=3)
    assert torch.equal(turned.frames.flip(1), synthetic(skeleton, n=3).frames)


def test_some_of_the_joints_are_the_same_joints(skeleton: Skeleton) -> None:
    few = Skeleton(**{**skeleton.to_config(), "keep": ["hip_center", "left_leg", "right_leg"]})
    chosen = [skeleton.index(name) for name in few.names]
    assert torch.equal(synthetic(few, n=3).frames, synthetic(skeleton, n=3).frames[:, chosen])


def test_a_skeleton_that_does_not_fit_is_refused(skeleton: Skeleton) -> None:
    config = skeleton.to_config()
    with pytest.raises(ValueError, match="up"):
        synthetic(Skeleton(**{**config, "up": "z"}), n=1)
    with pytest.raises(ValueError, match="tail"):
        synthetic(Skeleton(**{**config, "joints": {**config["joints"], "tail": "hip_center"}}), n=1)
    with pytest.raises(ValueError, match="n=0"):
        synthetic(skeleton, n=0)
