"""One recording among sound ones is damaged: it is named with a remedy, and the remedy, typed as it is printed, mends it."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from datamodules.clip_set import ClipSet, Recording
from datamodules.flaws import find_flaws
from datamodules.prepare import prepare
from datamodules.sets.msr_action3d import JOINTS as MSR
from datamodules.sets.synthetic import synthetic
from ddpm.config import construct
from ddpm.errors import DataError
from tests.configs import compose
from tests.datamodules.test_ntu import text as ntu
from tests.datamodules.test_ntu import widened
from tests.skeletons import shipped

SKELETON = shipped("kinect20")
ALL = synthetic(SKELETON, n=13 * 6)
WALKS = [ALL.recording(i).numpy()[:40] for i in range(len(ALL)) if ALL.class_names[int(ALL.labels[i])] == "walk"]
Z_UP = np.float32([[1, 0, 0], [0, 0, -1], [0, 1, 0]])  # y becomes z, z becomes -y


def with_pose(motion: np.ndarray, held: int = 1) -> np.ndarray:
    """``held`` frames of another pose before it, two metres away."""
    return np.concatenate([np.repeat(motion[-1:] + np.float32([2, 0, 0]), held, 0), motion])


def arms_out(motion: np.ndarray) -> np.ndarray:
    """A T-pose in the first place: only the arms are elsewhere."""
    pose = motion[:1].copy()
    for side, sign in (("left", 1), ("right", -1)):
        shoulder = pose[:, SKELETON.index(f"{side}_shoulder")]
        for part, way in (("elbow", 0.27), ("wrist", 0.52), ("hand", 0.6)):
            pose[:, SKELETON.index(f"{side}_{part}")] = shoulder + np.float32([sign * way, 0, 0])
    return np.concatenate([pose, motion])


def frozen(motion: np.ndarray) -> np.ndarray:
    return np.concatenate([motion[:10], np.repeat(motion[10:11], 15, 0), motion[11:]])


def slow(motion: np.ndarray, times: int = 3) -> np.ndarray:
    at = np.arange(times * len(motion) - times + 1) / times
    low = np.minimum(at.astype(int), len(motion) - 2)
    return motion[low] + (at - low)[:, None, None].astype(np.float32) * (motion[low + 1] - motion[low])


def zeros(motion: np.ndarray) -> np.ndarray:
    lost = motion.copy()
    lost[[5, 6, 20], 5] = 0
    return lost


def noisy(motion: np.ndarray) -> np.ndarray:
    return motion + np.random.default_rng(0).normal(0, 0.1, motion.shape).astype(np.float32)


def prepared(damage: Callable[[np.ndarray], np.ndarray] | None, coords: int = 3, **options: object) -> ClipSet:
    """Six walks, the fourth of them damaged."""
    skeleton = SKELETON if coords == 3 else shipped("kinect20", coords=2, units="px", up="-y")
    motions = [walk if damage is None or i != 3 else damage(walk) for i, walk in enumerate(WALKS)]
    if coords == 2:
        motions = [
            motion[..., :2] * np.float32([300, -300]) + np.float32([900, 700]) * (motion != 0)[..., :2] for motion in motions
        ]
    recordings = [Recording(motion, f"r{i}") for i, motion in enumerate(motions)]
    return prepare(recordings, skeleton, name="test", **{"fps": 20.0, "max_speed": None, **options})


@pytest.mark.parametrize("coords", [2, 3])
def test_sound_recordings_have_no_flaws(coords: int) -> None:
    assert prepared(None, coords).flaws == ()
    assert not find_flaws(synthetic(SKELETON, n=26))


@pytest.mark.parametrize(
    ("damage", "flaw", "remedy"),
    [
        (lambda m: m * np.float32([-1, 1, 1]), "left and right are exchanged", {"on_outlier": "fix"}),
        (lambda m: m[:, SKELETON.mirrored], "left and right are exchanged", {"on_outlier": "fix"}),
        (arms_out, r"first step is many times as long", {"skip": 1}),
        (with_pose, r"first step is many times as long .* data\.skip=1 to", {"skip": 1}),
        (lambda m: with_pose(m, 4), r"data\.skip=4 to", {"skip": 4}),
        (lambda m: m + np.float32([2, 0, 0]) * (np.arange(40) > 19)[:, None, None], r"jumps at once.* data\.max_speed=6", None),
        (
            lambda m: m + np.float32([0.35, 0, 0]) * (np.arange(40) % 4 == 0)[:, None, None],
            r"jumps at once.* 19 times; set data\.max_speed=6",
            None,
        ),
        (frozen, "from frame 10 to 24.* nothing moves for over", None),
        (lambda m: np.repeat(m, 2, 0), "as at 9.87 fps.* many frames repeat", None),
        (slow, "the body moves 0.[34]\\d* times as fast", None),
        (lambda m: m[::2], "the body moves 2(\\.[012])? times as fast", None),
        (zeros, r"3 positions are exactly 0 .*most often of left_elbow 3.*data\.lost=zeros", {"lost": "zeros"}),
        (noisy, "bones vary by more than 10 %", None),
        (lambda m: np.repeat(m[:1], 40, 0), "nothing moves", None),
    ],
)
def test_the_damaged_one_is_named(
    damage: Callable[[np.ndarray], np.ndarray], flaw: str, remedy: dict[str, object] | None
) -> None:
    flaws = prepared(damage).flaws or ()
    assert any(re.search(rf"in 1 of 6 recordings \(r3.*{flaw}", text) for text in flaws), flaws
    if remedy is not None:
        left = [text for text in prepared(damage, **remedy).flaws or () if "not seen: 3" not in text]
        assert not left, "what is left is what was asked to be repaired"


@pytest.mark.parametrize("options", [{}, {"skip": 5}, {"target_fps": 10.0}, {"max_speed": 6.0}])
def test_frames_are_those_of_the_file(options: dict[str, float]) -> None:
    jump = 2 * (np.arange(40) > 7)[:, None, None]

    def damage(motion: np.ndarray) -> np.ndarray:
        moved = motion + (np.float32([1, 0, 0]) * jump if "max_speed" in options else 0)
        return np.concatenate([moved[:20], np.repeat(moved[20:21], 16, 0), moved[20:]])

    assert any("(r3 from frame 20 to 36)" in flaw for flaw in prepared(damage, **options).flaws or ())


def test_a_pose_at_the_beginning_is_left_out_of_its_file_alone() -> None:
    def loaded(**options: object) -> ClipSet:
        motions = [slow(walk, 4) for walk in WALKS]
        motions[3] = with_pose(motions[3], 8)
        recordings = [Recording(motion, f"r{i}") for i, motion in enumerate(motions)]
        return prepare(recordings, SKELETON, name="", fps=80, target_fps=20, max_speed=None, **options)  # type: ignore[arg-type]

    (flaw,) = loaded().flaws or ()
    assert "(r3)" in flaw and "data.skip=8 to leave the first 8 frames" in flaw and "data.on_outlier=fix" in flaw
    assert loaded(skip=8).flaws == ()
    fixed = loaded(on_outlier="fix")
    assert fixed.flaws == () and set(fixed.lengths.tolist()) == {40} and "beginning of 1 recordings" in fixed.notes[-1]
    assert fixed.notes[0].startswith("6 recordings, 950 frames: kept 6 with 942 frames") and "8 cut off" in fixed.notes[0]


def small_hands(change: Callable[[np.ndarray], np.ndarray], n: int = 5) -> list[Recording]:
    """Five hands that turn, the third of them changed: a palm of 7 cm and fingers."""
    hand, recordings = shipped("hand21"), []
    way = np.random.default_rng(0).normal(size=(21, 3))
    way *= 0.03 / np.linalg.norm(way, axis=1, keepdims=True)
    for k in range(n):
        pose = np.ones((60, 21, 3))
        for child, parent in hand.bones:
            angle = 0.3 * np.sin(np.arange(60) / 8 + k)
            turned = np.stack(
                [
                    np.cos(angle) * way[child, 0] - np.sin(angle) * way[child, 1],
                    np.sin(angle) * way[child, 0] + np.cos(angle) * way[child, 1],
                    0 * angle + way[child, 2],
                ],
                1,
            )
            pose[:, child] = pose[:, parent] + turned  # parents come first
        recordings.append(Recording((change(pose) if k == 2 else pose).astype(np.float32), f"h{k}"))
    return recordings


def test_small_bodies_have_small_limits() -> None:
    def flaws(change: Callable[[np.ndarray], np.ndarray], **options: object) -> tuple[str, ...]:
        return prepare(small_hands(change), shipped("hand21"), name="", fps=30, **options).flaws or ()  # type: ignore[arg-type]

    def jumping(pose: np.ndarray) -> np.ndarray:
        return pose + np.array([0.15, 0, 0]) * (np.arange(60) > 30)[:, None, None]

    def posed(pose: np.ndarray) -> np.ndarray:
        return np.concatenate([pose[-1:] + np.array([0.03, 0, 0]), pose])

    assert flaws(lambda pose: pose) == ()
    (flaw,) = flaws(jumping)
    speed = re.search(r"\(h2\) the body jumps at once.*1 times; set data\.max_speed=(1\.\d) to", flaw)
    assert speed and all("are jumps of the body" in left for left in flaws(jumping, max_speed=float(speed[1])))
    (flaw,) = flaws(posed)
    assert "(h2) the first step" in flaw and flaws(posed, on_outlier="fix") == flaws(posed, skip=1) == ()


def test_of_two_sizes_people_have_the_one_of_people() -> None:
    both = [Recording(r.positions * scale, r.source) for r, scale in zip(small_hands(abs, 2), (1, 10), strict=True)]
    with pytest.raises(DataError, match=r"\(h1\) the body has another size, 10"):
        prepare(both, shipped("hand21"), name="", fps=30)
    both = [Recording(walk * np.float32(scale), f"r{scale}") for walk, scale in zip(WALKS, (0.1, 1), strict=False)]
    with pytest.raises(DataError, match=r"\(r0\.1\) the body has another size, 0\.0"):
        prepare(both, SKELETON, name="", fps=20)


@pytest.mark.parametrize("labels", ["aaa", "aaaa", "ababab", "abcdef"])
def test_one_of_few_is_slow(labels: str) -> None:
    motions = [slow(walk) if i == 1 else walk for i, walk in enumerate(WALKS)]
    recordings = [Recording(motion, f"r{i}", label=label) for i, (motion, label) in enumerate(zip(motions, labels, strict=False))]
    (flaw,) = prepare(recordings, SKELETON, name="", fps=20, max_speed=None).flaws or ()
    assert re.search(rf"in 1 of {len(labels)} recordings \(r1\) the body moves 0\.[23]\d* times as fast", flaw)


def test_totals_are_of_all_recordings() -> None:
    recordings = [Recording(walk * (0 if i == 0 else 100 if i == 2 else 1), f"r{i}") for i, walk in enumerate(WALKS)]
    flaws = prepare(recordings, SKELETON, name="", fps=20, lost="zeros", on_outlier="keep").flaws or ()
    assert len(flaws) > 1 and all(" of 6 recordings (" in flaw for flaw in flaws)


def test_pictures_are_judged_too() -> None:
    assert any("from frame to frame" in flaw and "(r3)" in flaw for flaw in prepared(noisy, 2).flaws or ())
    lost = prepared(zeros, 2)
    assert any("exactly 0" in flaw and "(r3)" in flaw for flaw in lost.flaws or ())
    with pytest.raises(DataError, match=r"\(r3\) the body stands along y and not along -y.*data\.on_outlier=fix"):
        prepared(lambda m: m * np.float32([1, -1, 1]), 2)


def test_data_centred_on_their_root_have_no_zeros() -> None:
    held = [np.concatenate([np.repeat(own[:1], 3, 0), own]) for own in (walk - walk[:1, :1] for walk in WALKS)]
    kept = prepare([Recording(own, f"r{i}") for i, own in enumerate(held)], SKELETON, name="", fps=20, floor=False)
    assert not [flaw for flaw in kept.flaws or () if "exactly 0" in flaw], "a first pose that is held at the origin"
    centred = [Recording(walk - walk[:, :1], f"r{i}") for i, walk in enumerate(WALKS)]
    assert not prepare(centred, SKELETON, name="test", fps=20, floor=False).flaws


@pytest.mark.parametrize(
    ("factor", "shown"), [(100, "10"), (1000, "10"), (1 / 0.0254, "40"), (0.3048, "0.31"), (1 / 2.54, "0.4")]
)
def test_a_body_of_another_unit_becomes_as_large_as_the_others(factor: float, shown: str) -> None:
    def damage(motion: np.ndarray) -> np.ndarray:
        return motion * np.float32(factor)

    with pytest.raises(DataError, match=rf"\(r3\) the body has another size, {shown}[.\d]* times that of the others"):
        prepared(damage)
    fixed, sound = prepared(damage, on_outlier="fix"), prepared(None)
    np.testing.assert_allclose(fixed.frames, sound.frames, atol=1e-4)
    assert fixed.flaws == () and any("mended: in 1 of 6 recordings (r3)" in note for note in fixed.notes)
    dropped = prepared(damage, on_outlier="drop")
    assert dropped.flaws == () and list(dropped.sources) == ["r0", "r1", "r2", "r4", "r5"]
    assert "data.on_outlier=drop" in dropped.notes[0]
    kept = prepared(damage, on_outlier="keep")
    assert len(kept) == 6 and any("another size" in flaw for flaw in kept.flaws or ())
    np.testing.assert_allclose(np.ptp(kept.recording(3), axis=(0, 1)), np.ptp(damage(WALKS[3]), axis=(0, 1)), rtol=1e-4)


@pytest.mark.parametrize("factor", [2.07, 20])
def test_a_factor_of_no_two_units_becomes_the_size_of_the_others(factor: float) -> None:
    fixed = prepared(lambda m: m * np.float32(factor), on_outlier="fix").recording(3).numpy()
    assert 0.95 < np.ptp(fixed) / np.ptp(prepared(None).recording(3).numpy()) < 1.05


def test_people_of_different_heights_are_no_outliers() -> None:
    assert prepared(lambda m: m * np.float32(0.65)).flaws == ()


@pytest.mark.parametrize("turn", [Z_UP, Z_UP.T, np.diag([1, -1, -1]), np.diag([1, -1, 1]), np.eye(3)[[1, 0, 2]]])
def test_who_stands_along_another_axis_is_turned(turn: np.ndarray) -> None:
    def damage(motion: np.ndarray) -> np.ndarray:
        return motion @ turn.T.astype(np.float32)

    with pytest.raises(DataError, match=r"in 1 of 6 recordings \(r3\) the body stands along .* and not along y"):
        prepared(damage)
    fixed, sound = prepared(damage, on_outlier="fix"), prepared(None)
    assert fixed.flaws == (), "the sides of a reflected body are exchanged too"
    if np.linalg.det(turn) > 0:
        np.testing.assert_allclose(fixed.recording(3)[..., 1], sound.recording(3)[..., 1], atol=1e-5)


def lying(motion: np.ndarray, place: float, back: bool = True) -> np.ndarray:
    """On its back or its belly, its head along -z, its lowest joint at 5 cm."""
    turned = (motion - motion[:, :1]) @ (Z_UP.T if back else Z_UP)
    return turned - np.float32([0, turned[..., 1].min() - 0.05, place])


def wheel(motion: np.ndarray) -> np.ndarray:
    """Turned about z once."""
    angle = np.linspace(0, 2 * np.pi, len(motion))
    c, s, zero = np.cos(angle), np.sin(angle), 0 * angle
    turns = np.stack([np.stack([c, -s, zero], -1), np.stack([s, c, zero], -1), np.stack([zero, zero, zero + 1], -1)], -2)
    return ((motion - motion[:, :1]) @ turns + np.float32([0, 1, 0])).astype(np.float32)


def test_who_lies_on_the_floor_or_turns_a_wheel_stands_along_no_other_axis() -> None:
    assert prepared(wheel).flaws == ()
    rise = np.concatenate([WALKS[0], lying(WALKS[1], 2)])  # who lies down stands for a while
    for damage in (lambda m: lying(m, 2), lambda m: lying(m, -3, back=False), lambda m: rise):
        assert not [flaw for flaw in prepared(damage, on_outlier="keep").flaws or () if "stands along" in flaw]
        np.testing.assert_array_equal(prepared(damage).frames, prepared(damage, on_outlier="fix").frames)
    floor = [Recording(lying(walk, i, i % 2 == 0), f"r{i}") for i, walk in enumerate(WALKS)]
    assert not [flaw for flaw in prepare(floor, SKELETON, name="", fps=20).flaws or () if "stands along" in flaw]
    with pytest.raises(DataError, match=r"\(r0\) the body stands along .*data\.on_outlier=keep to take them .* lie or sit"):
        prepare([Recording(WALKS[0] @ Z_UP.T, "r0"), *floor, Recording(WALKS[2], "r9")], SKELETON, name="", fps=20)


def test_outliers_are_a_choice_of_four() -> None:
    with pytest.raises(ValueError, match=r"data\.on_outlier=mend must be refuse, drop, fix or keep"):
        prepared(None, on_outlier="mend")
    with pytest.raises(ValueError, match=r"data\.skip=-1"):
        prepared(None, skip=-1)


def write_folder(directory: Path, i: int, motion: np.ndarray) -> None:
    np.save(directory / f"r{i}.npy", motion)


def write_bvh(directory: Path, i: int, motion: np.ndarray) -> None:
    """Every joint has the position channels of its way from its parent, in centimetres."""
    order: list[int] = []

    def joint(j: int) -> str:
        order.append(j)
        below = "".join(joint(child) for child, parent in SKELETON.bones if parent == j)
        kind = "ROOT" if j == SKELETON.root else "JOINT"
        return f"{kind} {SKELETON.names[j]}\n{{\nOFFSET 0 0 0\nCHANNELS 3 Xposition Yposition Zposition\n{below}}}\n"

    tree = joint(SKELETON.root)
    own = motion - np.where(np.array(SKELETON.parents)[:, None] >= 0, motion[:, list(SKELETON.parents)], 0)
    rows = "\n".join(" ".join(f"{value:.4f}" for value in row) for row in 100 * own[:, order].reshape(len(own), -1))
    text = f"HIERARCHY\n{tree}MOTION\nFrames: {len(own)}\nFrame Time: 0.05\n{rows}\n"
    (directory / f"r{i}.bvh").write_text(text)


def write_msr(directory: Path, i: int, motion: np.ndarray) -> None:
    rows = motion[:, [SKELETON.index(name) for name in MSR]].reshape(-1, 3)
    text = "\n".join(f"{x:.5f} {y:.5f} {z:.5f} 1" for x, y, z in rows)
    (directory / f"a0{i + 1}_s0{i % 2 + 1}_e01_skeleton3D.txt").write_text(text)


def write_ntu(directory: Path, i: int, motion: np.ndarray) -> None:
    (directory / f"S001C001P00{i}R001A00{i}.skeleton").write_text(ntu(("1", 0, widened(motion)), frames=len(motion)))


GROUPS: dict[str, tuple[Callable[[Path, int, np.ndarray], None], list[str]]] = {
    "folder": (write_folder, ["data.fps=20"]),
    "bvh": (write_bvh, []),
    "msr_action3d": (write_msr, ["data.camera_pitch=0"]),
    "ntu": (write_ntu, []),
}
DAMAGES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], bool]] = {  # and whether all are damaged alike
    "one in feet": (lambda m: m / np.float32(0.3048), False),
    "one along z": (lambda m: m @ Z_UP.T, False),
    "one mirrored": (lambda m: m * np.float32([-1, 1, 1]), False),
    "all along z": (lambda m: m @ Z_UP.T, True),
    "all small": (lambda m: m * np.float32(0.01), True),
    "all with a T-pose": (with_pose, True),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("group", GROUPS)
def test_every_remedy_works_as_it_is_printed(tmp_path: Path, group: str, damage: str) -> None:
    write, options = GROUPS[group]
    change, everywhere = DAMAGES[damage]
    for i, walk in enumerate(WALKS[:4]):
        write(tmp_path, i, change(walk) if everywhere or i == 2 else walk)

    def loaded(*more: str) -> ClipSet:
        cfg = compose("config", [f"data={group}", f"data.root={tmp_path}", *options, *more])
        return construct(OmegaConf.to_container(cfg.data, resolve=True), "data")

    def findings(*more: str) -> str:
        try:
            return "\n".join(loaded(*more).flaws or ())
        except DataError as error:
            return str(error)

    found = findings()
    remedies = re.findall(r"(?:data|skeleton)\.\w+=[\w.-]*[\w-]", found)
    if damage == "all with a T-pose" and group != "bvh":
        assert "jumps of the body" in found and not remedies, "cut off, as there is a limit of speed"
    elif damage == "all small" and group == "ntu":
        assert "not m: correct the files" in found
    else:
        assert remedies, found
    for remedy in set(remedies) - {"data.on_outlier=keep"}:
        assert findings(remedy) == "", remedy
