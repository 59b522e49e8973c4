"""The way from recordings to a ClipSet: what comes out is known, for what goes in was made from it."""

import re
from dataclasses import replace

import numpy as np
import pytest

from datamodules.cleaning import set_floor
from datamodules.clip_set import Recording
from datamodules.outliers import BODY
from datamodules.prepare import prepare
from ddpm.errors import DataError
from ddpm.resampling import resample
from ddpm.skeleton import Skeleton
from tests.skeletons import people, shipped

SKELETON = shipped("kinect20")
WALK, JUMP, _ = people()


def made(*recordings: Recording, skeleton: Skeleton = SKELETON, **options: object) -> np.ndarray:
    """The only recording that ``prepare`` makes of these."""
    clips = prepare(recordings, skeleton, name="test", **{"fps": 20.0, "floor": False, **options})
    assert len(clips) == 1
    return clips.recording(0).numpy()


def test_sound_recordings_pass_bit_for_bit() -> None:
    clips = prepare([Recording(WALK, "a", "walk", "p1"), Recording(JUMP, "b")], SKELETON, name="test", fps=20, floor=False)
    assert (clips.recording(0).numpy() == WALK).all() and (clips.recording(1).numpy() == JUMP).all()
    assert clips.sources == ("a", "b") and clips.subjects == ("p1", None) and clips.labels.tolist() == [0, -1]
    assert clips.fps == 20 and "kept 2 with" in clips.notes[0] and len(clips.notes) == 1


def test_joints_go_by_name_whatever_their_order() -> None:
    order = np.random.default_rng(0).permutation(20)
    shuffled = Recording(WALK[:, order], "a", joints=tuple(SKELETON.names[i] for i in order))
    assert (made(shuffled) == WALK).all()
    lower = Skeleton(**{**SKELETON.to_config(), "keep": ["hip_center", "left_leg", "right_leg"]})  # type: ignore[arg-type]
    clips = prepare([shuffled], lower, name="test", fps=20, floor=False)
    assert (clips.recording(0).numpy() == WALK[:, [SKELETON.index(name) for name in lower.names]]).all()
    assert "does not have: " in clips.notes[1] and "head" in clips.notes[1] and "left_foot" not in clips.notes[1]


@pytest.mark.parametrize(("units", "factor"), [("m", 1), ("cm", 100), ("mm", 1000)])
def test_units_become_metres(units: str, factor: float) -> None:
    skeleton = shipped("kinect20", units=units)
    np.testing.assert_allclose(made(Recording(WALK * factor, "a"), skeleton=skeleton), WALK, atol=1e-6)
    np.testing.assert_allclose(made(Recording(WALK * factor, "a", units=units)), WALK, atol=1e-6)


@pytest.mark.parametrize(("factor", "units"), [(100, "cm"), (1000, "mm"), (10, "dm"), (1 / 0.0254, "in"), (1e-9, "px")])
def test_other_units_than_said_are_noticed(factor: float, units: str) -> None:
    with pytest.raises(DataError, match=rf"skeleton\.units={units}( |$|,)"):
        made(Recording(WALK * factor, "a"))


def test_feet_are_told_from_metres() -> None:
    clips = prepare([Recording(WALK / np.float32(0.3048), "a")], SKELETON, name="test", fps=20)
    assert any(flaw.endswith("set skeleton.units=ft") for flaw in clips.flaws or ())


def test_units_that_a_file_says_are_corrected_there() -> None:
    for units, factor in (("cm", 1e4), ("m", 1e4), ("m", 100)):  # beyond the limit of a position, and of a body
        with pytest.raises(DataError, match=rf"from the files, is not {units}: .*data=bvh data\.scale=\d") as error:
            made(Recording(WALK * np.float32(factor), "a.bvh", units=units), skeleton=shipped("kinect20", units="mm"))
        assert "skeleton.units" not in str(error.value)


def test_pixels_are_the_first_guess_in_a_picture() -> None:
    flat = Skeleton(SKELETON.joints, coords=2)
    with pytest.raises(DataError, match=r"skeleton\.units=px to scale every body to one size, or skeleton\.units=cm, .*"):
        made(Recording(WALK[..., :2] * 100, "a"), skeleton=flat)


def test_bodies_in_pictures_get_one_size() -> None:
    flat = Skeleton(SKELETON.joints, up="-y", coords=2, units="px")
    near, far = WALK[..., :2] * (400, -400) + (900, 700), WALK[..., :2] * (80, -80) + (200, 500)
    a, b = made(Recording(near, "a"), skeleton=flat), made(Recording(far, "a"), skeleton=flat)
    np.testing.assert_allclose(a - a[:1, :1], b - b[:1, :1], atol=1e-4)
    thigh = np.linalg.norm(a[:, flat.index("left_knee")] - a[:, flat.index("left_hip")], axis=-1)
    assert 0.3 < np.percentile(thigh, 90) < 0.55 < BODY, "that of a person"


def test_nothing_is_known_of_a_body_in_one_place() -> None:
    flat = Skeleton(SKELETON.joints, up="-y", coords=2, units="px")
    still = Recording(np.full((30, 20, 2), 7.0, np.float32), "still")
    clips = prepare([still, Recording(WALK[..., :2], "walk")], flat, name="test", fps=20)
    assert clips.sources == ("walk",) and "1 without a tracked frame: still" in clips.notes[0]


@pytest.mark.parametrize("how", ["confidence", "threshold", "nans", "zeros"])
def test_what_was_not_seen_is_interpolated(how: str) -> None:
    positions, confidence = WALK.copy(), np.ones(WALK.shape[:2], np.float32)
    options: dict[str, object] = {}
    positions[10:12, 5] = np.nan if how in ("confidence", "nans") else 0
    if how in ("confidence", "threshold"):
        confidence[10:12, 5] = 0 if how == "confidence" else 0.2
        options = {"min_confidence": 0.3} if how == "threshold" else {}
    else:
        options = {"lost": how}
    result = made(Recording(positions, "a", confidence=confidence), **options)
    expected = WALK[9, 5] + (WALK[12, 5] - WALK[9, 5]) * [[1 / 3], [2 / 3]]
    np.testing.assert_allclose(result[10:12, 5], expected, atol=1e-6)
    rest = np.ones(WALK.shape[:2], bool)
    rest[10:12, 5] = False
    assert (result[rest] == WALK[rest]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_position_is_named(value: float) -> None:
    positions = WALK.copy()
    positions[7, 3, 1] = value
    with pytest.raises(DataError, match=r"a\.npy: frame 7, joint head: .*data\.lost=nans"):
        made(Recording(positions, "a.npy", joints=SKELETON.names))
    if np.isinf(value):
        with pytest.raises(DataError, match=r"frame 7, joint 3: .* is infinite; .*write nan there and set data\.lost=nans"):
            made(Recording(positions, "a.npy"), lost="nans")
        positions[7, 3, 1] = np.nan
        assert len(made(Recording(positions, "a.npy"), lost="nans")) == len(WALK)


def test_a_joint_that_is_never_seen_is_named_with_a_skeleton_without_it() -> None:
    positions = WALK.copy()
    positions[:, SKELETON.index("left_hand")] = np.nan
    with pytest.raises(DataError, match="1 in which left_hand is never seen: a") as e:
        made(Recording(positions, "a", joints=SKELETON.names), lost="nans")
    advice = re.search(r'"skeleton\.keep=\[(.*)\]"', str(e.value))
    assert advice
    rest = Skeleton(**{**SKELETON.to_config(), "keep": advice[1].split(",")})  # type: ignore[arg-type]
    assert len(made(Recording(positions, "a", joints=SKELETON.names), skeleton=rest, lost="nans")) == len(WALK)
    positions[:, SKELETON.root] = np.nan
    with pytest.raises(DataError, match=r"hip_center, left_hand are never seen.*; choose another skeleton"):
        made(Recording(positions, "a", joints=SKELETON.names), lost="nans")


def test_what_data_skip_leaves_nothing_of_is_named() -> None:
    with pytest.raises(DataError, match=r"1 not longer than data\.skip=500: a.*lower data\.skip=500"):
        made(Recording(WALK, "a"), skip=500)


def test_a_rate_of_files_that_differs_from_data_fps_is_never_silent() -> None:
    known, unknown = Recording(WALK, "known", fps=30.0), Recording(JUMP, "unknown")
    with pytest.raises(DataError, match=r"known: says 30 frames per second, data\.fps=20 says otherwise; leave data\.fps away"):
        made(known)
    assert (made(known, fps=None) == WALK).all() and (made(known, fps=30.1) == WALK).all()
    clips = prepare([known, unknown], SKELETON, name="test", fps=20, target_fps=30)
    assert [flaw for flaw in clips.flaws or () if "in 1 of 2 recordings (known) the files say 30 frames per second" in flaw]


def test_time_that_counts_frames_gives_way_to_data_fps() -> None:
    counting = Recording(WALK, "a", fps=1.0, fps_counts=True)
    clips = prepare([counting], SKELETON, name="test", fps=20)
    assert clips.fps == 20 and any("counts frames, data.fps=20 holds" in note for note in clips.notes)
    assert not [flaw for flaw in clips.flaws or () if "steps of 1" in flaw]
    clips = prepare([counting], SKELETON, name="test")
    assert clips.fps == 1 and [flaw for flaw in clips.flaws or () if "steps of 1" in flaw and "set data.fps=30" in flaw]


def test_long_gaps_split_and_the_parts_stay_together() -> None:
    confidence = np.ones(WALK.shape[:2], np.float32)
    confidence[20:30] = 0
    clips = prepare([Recording(WALK, "a", confidence=confidence)], SKELETON, name="test", fps=20, floor=False)
    assert clips.sources == ("a", "a")
    assert (clips.recording(0).numpy() == WALK[:20]).all() and (clips.recording(1).numpy() == WALK[30:]).all()
    assert "1 more stretches" in clips.notes[0] and "removed 10 frames" in clips.notes[0]
    assert (made(Recording(WALK, "a", confidence=confidence), longest=True) == WALK[30:]).all()
    assert len(made(Recording(WALK, "a", confidence=confidence), max_gap=0.5)) == len(WALK)
    assert len(made(Recording(WALK, "a", confidence=confidence), min_seconds=1.05)) == len(WALK) - 30


def test_a_speed_limit_can_be_lifted() -> None:
    leap = WALK.copy()
    leap[30:] += (3, 0, 0)
    assert len(prepare([Recording(leap, "a")], SKELETON, name="test", fps=20)) == 2
    assert (made(Recording(leap, "a"), max_speed=None) == leap).all()


def test_the_floor_is_the_one_of_cleaning() -> None:
    assert (made(Recording(WALK + np.float32(3), "a"), floor="recording") == set_floor(WALK + np.float32(3), SKELETON)).all()


def test_a_common_floor_keeps_how_much_higher_one_is_than_another() -> None:
    high = WALK + np.float32([0, 0.5, 0])
    clips = prepare([Recording(WALK, "a"), Recording(high, "b")], SKELETON, name="test", fps=20, floor="common")
    a, b = clips.recording(0).numpy(), clips.recording(1).numpy()
    np.testing.assert_allclose(b - a, np.broadcast_to([0, 0.5, 0], a.shape), atol=1e-6)
    np.testing.assert_allclose(np.concatenate([a, b]), set_floor(np.concatenate([WALK, high]), SKELETON), atol=1e-6)


def test_resampling_is_exact_on_what_it_can_be() -> None:
    t = np.arange(61)[:, None, None] / 30
    line = np.broadcast_to(np.concatenate([t, 1 - 2 * t, 3 + 0 * t], -1), (61, 4, 3))
    for target in (7, 15, 20, 24, 29.97, 60, 100):
        result = resample(line, 30, target)
        times = np.arange(len(result))[:, None, None] / target
        assert times[-1] <= 2 + 1e-9 < times[-1] + 1 / target
        np.testing.assert_allclose(
            result, np.broadcast_to(np.concatenate([times, 1 - 2 * times, 3 + 0 * times], -1), result.shape)
        )
    assert (resample(line, 30, 10) == line[::3]).all() and resample(line, 30, 30) is line
    assert len(resample(line[:1], 30, 10)) == 1


def test_resampling_follows_human_movement() -> None:
    """A cubic through 30 samples a second follows 3 Hz within half a per cent, ten times as well as straight lines."""
    t = np.arange(91) / 30
    wave = np.sin(2 * np.pi * 3 * t)[:, None, None]
    result = resample(wave, 30, 47)[:, 0, 0]
    times = np.arange(len(result)) / 47
    inside = (times > 0.1) & (times < 2.9)
    error = np.abs(result - np.sin(2 * np.pi * 3 * times))[inside].max()
    lines = np.abs(np.interp(times, t, wave[:, 0, 0]) - np.sin(2 * np.pi * 3 * times))[inside].max()
    assert error < 0.006 and error < 0.15 * lines


def test_rates_are_made_alike_or_refused() -> None:
    slow = replace(Recording(people(1, 10.0)[0], "slow"), fps=10.0)
    fast = replace(Recording(people(1, 40.0)[0], "fast"), fps=40.0)
    with pytest.raises(DataError, match=r"1 at 10, as slow, 1 at 40, as fast.*data\.target_fps=10"):
        prepare([slow, fast], SKELETON, name="test")
    clips = prepare([slow, fast], SKELETON, name="test", target_fps=20, floor=False)
    assert clips.fps == 20 and (clips.recording(1).numpy() == fast.positions[::2]).all()
    assert "1 recordings brought from 10 to 20 fps" in clips.notes
    n = min(clips.lengths.tolist())
    assert (clips.recording(0)[: n - 2] - clips.recording(1)[: n - 2]).abs().max() < 0.02, "the same person at the same time"
    with pytest.raises(DataError, match=r"a: does not say its frames per second; set data\.fps="):
        prepare([Recording(WALK, "a")], SKELETON, name="test")
    with pytest.raises(DataError, match="nan frames per second"):
        prepare([Recording(WALK, "a", fps=float("nan"))], SKELETON, name="test")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"fps": 0.0}, r"data\.fps=0\.0"),
        ({"target_fps": -1.0}, r"data\.target_fps=-1"),
        ({"max_speed": 0.0}, r"data\.max_speed=0"),
        ({"max_gap": -0.1}, "max_gap=-0.1"),
        ({"min_seconds": -1.0}, "min_seconds=-1.0"),
        ({"min_confidence": 1.5}, "min_confidence=1.5"),
        ({"floor": "none"}, r"data\.floor=none must be recording, common or false"),
    ],
)
def test_limits_are_checked(options: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        made(Recording(WALK, "a"), **options)


def test_nothing_is_no_data() -> None:
    with pytest.raises(DataError, match="test: no recordings"):
        prepare([], SKELETON, name="test")
    with pytest.raises(DataError, match=r"cleaning left nothing: 1 recordings.*limits of gaps, lengths"):
        prepare([Recording(WALK[:5], "short")], SKELETON, name="test", fps=20)
