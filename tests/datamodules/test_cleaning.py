"""Cleaning: truths about synthetic recordings, where the sound original is known."""

import numpy as np
import pytest

from datamodules.cleaning import CleaningReport, clean, fill_gaps, find_jumps, find_spikes, set_floor
from tests.skeletons import shipped

FPS = 15.0
STEP = 6.0 / FPS


SKELETON = shipped("kinect20")


def motion(frames: int, seed: int = 0) -> np.ndarray:
    """``(frames, 20, 3)`` float32: left joints at x < 0; every joint swings by 10 cm, once in two seconds."""
    rng = np.random.default_rng(seed)
    rest = rng.uniform((0, -0.8, 1.7), (0, 0.8, 3.3), (20, 3))
    rest[:, 0] = [{"left": -0.3, "right": 0.3, "centre": 0.0}[SKELETON.side(j)] for j in range(20)]
    phase = rng.uniform(0, 2 * np.pi, (20, 3))
    t = np.arange(frames)[:, None, None] / FPS
    return (rest + 0.1 * np.sin(np.pi * t + phase)).astype(np.float32)


def lost_at_origin(positions: np.ndarray) -> np.ndarray:
    """``(frames, joints)`` bool: the way a camera reports lost tracking."""
    return (positions == 0).all(-1)


def tidy(positions: np.ndarray, **changes: float) -> tuple[np.ndarray | None, CleaningReport]:
    """The longest stretch that cleaning leaves."""
    limits = {"max_gap": 4, "min_frames": 8, "max_speed": 6.0} | changes
    pieces, report = clean(positions, lost_at_origin(positions), SKELETON, fps=FPS, source="a.txt", longest=True, **limits)
    kept = pieces[0] if pieces else None
    parts = report.frames_kept + report.frames_lost + report.frames_cut + report.frames_dropped
    assert report.frames == parts == len(positions)
    assert report.frames_kept == (0 if kept is None else len(kept))
    return kept, report


def test_sound_input_is_returned_bit_for_bit() -> None:
    original = motion(50)
    kept, report = tidy(original.copy())
    assert kept is not None and kept.tobytes() == original.tobytes()
    assert report == CleaningReport(recordings=1, frames=50, frames_kept=50)


def test_short_gaps_are_restored() -> None:
    original = motion(60)
    broken = original.copy()
    broken[10:14] = 0  # all joints
    broken[30:33, SKELETON.index("left_wrist")] = 0  # one joint
    broken[40, 5] = 0
    kept, report = tidy(broken)
    assert kept is not None and len(kept) == 60
    # The chord of a curve with acceleration a over h seconds is off by at most a h²/8 per coordinate.
    bound = np.sqrt(3) * 0.1 * np.pi**2 * (5 / FPS) ** 2 / 8
    assert 0 < np.abs(kept - original).max() < bound
    assert (report.lost, report.filled, report.repaired) == (84, 84, 1)
    untouched = ~lost_at_origin(broken)
    assert (kept[untouched] == original[untouched]).all()
    assert not lost_at_origin(kept).any()
    assert lost_at_origin(broken).sum() == 84, "the input was written to"


def test_linear_motion_is_restored_exactly() -> None:
    original = np.linspace(0, 1, 20)[:, None, None] * np.ones((1, 20, 3)) + 2
    lost = np.zeros((20, 20), dtype=bool)
    lost[3:7, 4] = lost[9:12, 11] = True
    repaired, filled = fill_gaps(np.where(lost[..., None], 0, original), lost, max_gap=4)
    np.testing.assert_allclose(repaired, original, atol=1e-12)
    assert (filled == lost).all()


@pytest.mark.parametrize(("gap", "kept_frames", "filled"), [(4, 40, 80), (5, 25, 0)])
def test_max_gap_is_the_longest_gap_filled(gap: int, kept_frames: int, filled: int) -> None:
    broken = motion(40)
    broken[10 : 10 + gap] = 0
    kept, report = tidy(broken)
    # The way to the origin and back is no jump of the body.
    assert (report.frames_kept, report.filled, report.jumps) == (kept_frames, filled, 0)
    if filled == 0:
        assert kept is not None and (kept == motion(40)[15:]).all()
        assert (report.frames_lost, report.frames_cut) == (5, 10)


def test_lost_ends_are_trimmed() -> None:
    broken = motion(40)
    broken[:3] = 0
    broken[-2:, 7] = 0
    kept, report = tidy(broken)
    assert kept is not None and (kept == motion(40)[3:38]).all()
    assert (report.frames_lost, report.frames_cut, report.filled) == (5, 0, 0)


def test_a_spike_is_repaired_and_a_fast_swing_is_not() -> None:
    broken = motion(40)
    broken[20, SKELETON.index("left_foot")] += (0, -0.9, 0)
    kept, report = tidy(broken)
    assert kept is not None and len(kept) == 40
    assert (report.spikes, report.filled, report.jumps) == (1, 0, 0)
    assert np.abs(kept - motion(40)).max() < 0.03

    swing = motion(40)
    swing[20:, 7] += (0.9, 0, 0)  # goes and stays
    swing[20, 15] += (0, 0, 0.5)  # passes through at 7.5 m/s
    swing[21:, 15] += (0, 0, 1.0)
    swing[10:15, 9] += np.array([0.2, 0.55, 0.7, 0.55, 0.2])[:, None] * (0, 1, 0)  # goes and returns over 5 frames
    assert not find_spikes(swing, lost_at_origin(swing), STEP).any()
    kept, _ = tidy(swing)
    assert kept is not None and (kept == swing).all()


def test_a_teleport_cuts() -> None:
    broken = motion(40)
    broken[25:] += (1.0, 0, 0)
    kept, report = tidy(broken)
    assert kept is not None and (kept == broken[:25]).all()
    assert (report.jumps, report.frames_cut, report.frames_lost) == (1, 15, 0)


def test_pieces_of_a_few_frames_are_left_out_whatever_the_shortest_recording() -> None:
    broken = motion(40)
    broken[1:] += (1.0, 0, 0)
    broken[20:] += (1.0, 0, 0)
    broken[26:] += (1.0, 0, 0)
    pieces, report = clean(broken, lost_at_origin(broken), SKELETON, fps=FPS, source="a", max_gap=4, min_frames=1, max_speed=6.0)
    assert [len(piece) for piece in pieces] == [19, 14] and (report.frames_cut, report.jumps) == (7, 3)
    assert tidy(motion(3), min_frames=1)[0] is not None, "a recording that is not cut may be short"


def test_exchanged_sides_cut() -> None:
    broken = motion(40)
    for left, right in SKELETON.left_right:
        pair = [SKELETON.index(left), SKELETON.index(right)]
        broken[12:, pair] = broken[12:, pair[::-1]]
    assert np.flatnonzero(find_jumps(broken, SKELETON, STEP)).tolist() == [11]
    kept, report = tidy(broken)
    assert kept is not None and (kept == broken[12:]).all()
    assert (report.jumps, report.frames_cut) == (1, 12)


def test_what_is_too_short_or_untracked_is_dropped_with_its_reason() -> None:
    assert tidy(motion(8))[0] is not None
    short, short_report = tidy(motion(7))
    blank, blank_report = tidy(np.zeros((30, 20, 3), dtype=np.float32))
    empty, empty_report = tidy(np.zeros((0, 20, 3), dtype=np.float32))
    assert short is None and blank is None and empty is None
    assert short_report.frames_dropped == 7 and blank_report.frames_lost == 30
    assert short_report.dropped == (("a.txt", "with fewer than 8 sound frames in a row"),)
    total = sum([tidy(motion(20))[1], short_report, blank_report, empty_report], CleaningReport())
    assert (total.recordings, total.frames, total.frames_kept) == (4, 57, 20)
    summary = total.summary()
    assert "\n" not in summary and "kept 1 with 20 frames; dropped 3" in summary
    assert "1 with fewer than 8 sound frames in a row: a.txt; 2 without a tracked frame: a.txt, a.txt" in summary
    assert ": a.txt, a.txt, a.txt, ..." in sum([short_report] * 4, CleaningReport()).summary()


def test_random_damage_is_accounted_for() -> None:
    rng = np.random.default_rng(1)
    for seed in range(50):
        broken = motion(int(rng.integers(0, 60)), seed)
        for _ in range(int(rng.integers(0, 4))):
            start, joint = rng.integers(0, 60), rng.integers(0, 20)
            broken[start : start + rng.integers(1, 9), joint : joint + rng.integers(1, 20)] = 0
        kept, report = tidy(broken)
        assert report.lost == lost_at_origin(broken).sum() and report.filled <= report.lost
        assert kept is None or (len(kept) >= 8 and not lost_at_origin(kept).any() and np.abs(kept).max() < 4)


@pytest.mark.parametrize("limits", [{"max_gap": -1}, {"min_frames": 0}, {"max_speed": 0.0}])
def test_limits_are_checked(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(limits))}={next(iter(limits.values()))}"):
        tidy(motion(10), **limits)


@pytest.mark.parametrize("up", ["y", "-y", "z"])
def test_floor_is_at_zero_in_spite_of_sinking_feet(up: str) -> None:
    skeleton = shipped("kinect20", up=up)
    feet = [skeleton.index(name) for name in skeleton.feet]
    positions = motion(60)
    heights = positions[..., skeleton.up_axis]
    heights[:] = skeleton.up_sign * (3.0 + np.abs(heights))
    heights[:, feet] = skeleton.up_sign * 1.25
    heights[:10, feet[0]] = skeleton.up_sign * 0.7  # tracked badly, 55 cm below the ground
    before = positions.copy()
    moved = set_floor(positions, skeleton)
    assert (positions == before).all()
    np.testing.assert_allclose(moved[20:, feet, skeleton.up_axis], 0, atol=1e-6)
    assert (skeleton.up_sign * moved[20:, skeleton.index("head"), skeleton.up_axis] > 1).all()
    assert (moved[..., list(skeleton.ground_axes)] == before[..., list(skeleton.ground_axes)]).all()
    np.testing.assert_allclose(set_floor(moved, skeleton), moved, atol=1e-6)
