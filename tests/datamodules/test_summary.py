"""The summary of a data set: flaws that were put in are found, and sound data have none."""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from datamodules.clip_set import ClipSet, Recording
from datamodules.sets.synthetic import synthetic
from datamodules.summary import summarise
from ddpm.skeleton import Skeleton
from tests.skeletons import shipped

SKELETON = shipped("kinect20")
SOUND = synthetic(SKELETON, n=26)


def changed(positions: np.ndarray, skeleton: Skeleton = SKELETON) -> ClipSet:
    """The sound clips with other positions ``(total frames, joints, coords)``."""
    pieces = np.split(positions, SOUND.starts[1:].numpy())
    recordings = [
        Recording(piece, source, "x", subject)
        for piece, source, subject in zip(pieces, SOUND.sources, SOUND.subjects, strict=True)
    ]
    return ClipSet.from_recordings(recordings, fps=20, skeleton=skeleton)


def test_sound_data_are_described_and_have_no_flaws() -> None:
    summary = summarise(replace(SOUND, notes=("a note",)), 48, "subject")
    assert summary.flaws == () and summary.text().endswith("flaws\n  none found")
    text = summary.text()
    assert f"26 recordings, {len(SOUND.frames)} frames at 20 fps, 1.6 minutes; 20 joints x 3 coordinates, up is y" in text
    assert "  a note\n" in text and "labels   13: " in text and "clap 2" in text and "walk" in text
    assert f"lengths  {SOUND.lengths.min()} to {SOUND.lengths.max()} frames" in text
    bars = [line for line in summary.lines if re.match(r" +\d+-?\d* +\S* ?\d+$", line)]
    assert len(bars) > 3 and sum(int(line.split()[-1]) for line in bars) == 26
    assert "subjects 2: p00 13, p01 13" in text


def positions() -> np.ndarray:
    return SOUND.frames.numpy().copy()


def exchanged() -> np.ndarray:
    order = [SKELETON.index({"left": "right", "right": "left"}.get(n.split("_")[0], n.split("_")[0]) + n[len(n.split("_")[0]) :])
             for n in SKELETON.names]  # fmt: skip
    return positions()[:, order]


def shorter_arm() -> np.ndarray:
    p = positions()
    elbow, hand, wrist = (SKELETON.index(f"left_{name}") for name in ("elbow", "hand", "wrist"))
    p[:, [wrist, hand]] -= 0.4 * (p[:, [wrist]] - p[:, [elbow]])
    return p


def loose_head() -> np.ndarray:
    p = positions()
    p[:, SKELETON.index("head"), 1] += 0.08 * np.sin(np.arange(len(p)))
    return p


def on_its_parent() -> np.ndarray:
    p = positions()
    p[:, SKELETON.index("left_hand")] = p[:, SKELETON.index("left_wrist")]
    return p


def still() -> np.ndarray:
    p = positions()
    p[: int(SOUND.lengths[0])] = p[0]
    return p


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (exchanged, "in 26 of 26 .*left and right are exchanged, or one axis is mirrored"),
        (lambda: positions() * np.float32([-1, 1, 1]), "left and right are exchanged, or one axis is mirrored"),
        (lambda: positions() * np.float32([-1, -1, 1]), "in 26 of 26 .*the body stands along -y and not along y"),
        (lambda: positions()[..., [0, 2, 1]] * np.float32([1, -1, 1]), "the body stands along z and not along y"),
        (shorter_arm, "left and right bones differ: left_wrist .* cm"),
        (loose_head, "in 26 of 26 .*bones vary by more than 10 %, most often head"),
        (on_its_parent, "these joints lie on their parents: left_hand"),
        (still, r"in 1 of 26 recordings \(synthetic/.*_0000\) nothing moves"),
    ],
)
def test_flaws_are_found(make: Callable[[], np.ndarray], named: str) -> None:
    flaws = summarise(changed(make()), 48, "subject").flaws
    assert any(re.search(named, flaw) for flaw in flaws), flaws


def test_turned_data_are_sound_under_their_own_axis() -> None:
    upright = Skeleton(**{**SKELETON.to_config(), "up": "z"})  # type: ignore[arg-type]
    assert summarise(changed(positions()[..., [0, 2, 1]] * np.float32([1, -1, 1]), upright), 48, "subject").flaws == ()


def test_short_anonymous_and_doubled_recordings() -> None:
    clip = SOUND.recording(0).numpy()
    clips = ClipSet.from_recordings([Recording(clip, "a"), Recording(clip.copy(), "b")], fps=20, skeleton=SKELETON)
    flaws = "\n".join(summarise(clips, 500, "subject").flaws)
    assert "2 of 2 recordings are shorter than frames=500" in flaws and f"frames={len(clip) // 8 * 8}" in flaws
    assert "of 2 recordings no subject is known: training cannot split by subject" in flaws and "b = a" in flaws
    assert "subject" not in "\n".join(summarise(clips, 500, "sequence").flaws)
    one = ClipSet.from_recordings([Recording(clip, "a", subject="p")], fps=20, skeleton=SKELETON)
    assert any("only one subject" in flaw for flaw in summarise(one, 32, "subject").flaws)
    text = summarise(clips, 32, "sequence").text()
    assert "labels   unknown" in text and "subjects unknown" in text


def test_flat_and_single_things() -> None:
    flat = shipped("coco17", units="m")
    still = np.zeros((3, 17, 2), np.float32)
    still[:, :, 1] = np.linspace(-1.6, 0, 17)
    assert (
        "nothing moves"
        in summarise(ClipSet.from_recordings([Recording(still, "a")], fps=20, skeleton=flat), 8, "sequence").text()
    )
    dot = Skeleton({"dot": None})
    alone = ClipSet.from_recordings([Recording(np.zeros((1, 1, 3), np.float32), "a")], fps=20, skeleton=dot)
    assert "no recording has two frames" in summarise(alone, 1, "sequence").text()
