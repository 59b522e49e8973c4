"""BVH files: poses against another implementation, files written by hand, damaged ones, and real ones where they are at hand."""

import logging
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import datamodules.readers.bvh_file as reader
from datamodules.readers.bvh_file import read, skeleton_of
from datamodules.sets.bvh import bvh, skeleton
from ddpm import load
from ddpm.errors import DataError
from ddpm.skeleton import Skeleton
from tests.configs import compose
from train import train

SMALL = Path(__file__).parents[1] / "bvh" / "small.bvh"
TEXT = SMALL.read_text()


def posed_by_scipy(text: str) -> dict[str, np.ndarray]:
    """Joint -> ``(frames, 3)`` in the unit of the file. Line by line, joint by joint, with scipy's rotations."""
    head, _, tail = text.partition("MOTION")
    numbers = np.array([line.split() for line in tail.strip().splitlines()[2:] if line.strip()], dtype=float)
    stack: list[tuple[str, np.ndarray, Rotation]] = []
    places: dict[str, np.ndarray] = {}
    name, taken = "", 0

    def put(offset: np.ndarray, order: str, places_at: dict[str, int], angles: np.ndarray) -> None:
        local = np.tile(offset, (len(numbers), 1))
        for axis, column in places_at.items():
            local[:, "XYZ".index(axis)] = numbers[:, column]
        _, place, turn = stack[-1] if stack else ("", np.zeros(3), Rotation.identity(len(numbers)))
        own = turn * Rotation.from_euler(order, angles, degrees=True) if order else turn
        stack.append((name, place + turn.apply(local), own))
        places[name] = stack[-1][1]

    offset = np.zeros(3)
    for line in head.splitlines():
        match line.split():
            case ["ROOT" | "JOINT", new]:
                name = new
            case ["End", "Site"]:
                name = f"{name}_end"
            case ["OFFSET", *xyz]:
                offset = np.array(xyz, dtype=float)
                if name.endswith("_end"):
                    put(offset, "", {}, np.empty(0))
            case ["CHANNELS", _, *kinds]:
                columns = {kind: taken + i for i, kind in enumerate(kinds)}
                turns = [kind for kind in kinds if kind.endswith("rotation")]
                put(
                    offset,
                    "".join(kind[0] for kind in turns),
                    {kind[0]: column for kind, column in columns.items() if kind.endswith("position")},
                    numbers[:, [columns[kind] for kind in turns]],
                )
                taken += len(kinds)
            case ["}"]:
                stack.pop()
    return places


def random_text(rng: np.random.Generator, joints: int = 12, frames: int = 5) -> str:
    """A random tree with random channels in random order."""
    children: list[list[int]] = [[] for _ in range(joints)]
    for j in range(1, joints):
        children[rng.integers(max(0, j - 4), j)].append(j)
    width = 0

    def joint(j: int, tab: str) -> str:
        nonlocal width
        turns = ["Xrotation", "Yrotation", "Zrotation"][: rng.integers(1, 4)]
        kinds = rng.permutation(turns + ["Xposition", "Yposition", "Zposition"][: rng.integers(0, 4)]).tolist()
        width += len(kinds)
        offset = " ".join(map(str, rng.normal(size=3).round(4) * 20))
        below = "".join(joint(c, tab + "  ") for c in children[j])
        end = f"{tab}  End Site\n{tab}  {{\n{tab}    OFFSET 1 2 3\n{tab}  }}\n"
        word = "JOINT" if j else "ROOT"
        inside = f"{tab}  OFFSET {offset}\n{tab}  CHANNELS {len(kinds)} {' '.join(kinds)}\n{below or end}"
        return f"{tab}{word} j{j}\n{tab}{{\n{inside}{tab}}}\n"

    hierarchy = joint(0, "")
    # Channels stand in the order in which the joints are opened; every line is full of random angles and positions.
    rows = "\n".join(" ".join(f"{v:.5f}" for v in row) for row in rng.normal(size=(frames, width)) * 90)
    return f"HIERARCHY\n{hierarchy}MOTION\nFrames: {frames}\nFrame Time: 0.04\n{rows}\n"


def written(folder: Path, text: str | bytes, name: str = "a.bvh") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("seed", range(8))
def test_poses_agree_with_scipy(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "BLOCK", 3)  # more than one block
    text = random_text(np.random.default_rng(seed))
    recording = read(written(tmp_path, text), scale=1.0)
    expected = posed_by_scipy(text)
    assert list(recording.joints or ()) == list(expected) and recording.fps == 25 and recording.positions.dtype == np.float32
    for j, name in enumerate(expected):
        np.testing.assert_allclose(recording.positions[:, j], expected[name], rtol=1e-6, atol=1e-4)


BODY = """HIERARCHY
ROOT a
{
  OFFSET 5 6 7
  CHANNELS %s
  JOINT b
  {
    OFFSET 1 0 0
    CHANNELS %s
    End Site
    {
      OFFSET 0 2 0
    }
  }
}
MOTION
Frames: 1
Frame Time: 0.1
%s
"""


@pytest.mark.parametrize(
    ("root", "inner", "numbers", "a", "b", "end"),
    [
        # Nothing turns, no position: offsets add up.
        ("1 Zrotation", "0", "0", (5, 6, 7), (6, 6, 7), (6, 8, 7)),
        # A quarter turn about z takes x to y, and y to -x.
        ("1 Zrotation", "0", "90", (5, 6, 7), (5, 7, 7), (3, 7, 7)),
        # The first channel is the outermost: b first turns about y (x to -z), then about x (-z to y); and the reverse order.
        ("2 Xrotation Yrotation", "0", "90 90", (5, 6, 7), (5, 7, 7), (5, 7, 9)),
        ("2 Yrotation Xrotation", "0", "90 90", (5, 6, 7), (5, 6, 6), (7, 6, 6)),
        # Positions replace the offset, also of one coordinate alone, also in any order, and turn with the parent.
        ("3 Zposition Xposition Yposition", "0", "3 1 2", (1, 2, 3), (2, 2, 3), (2, 4, 3)),
        ("2 Yposition Zrotation", "1 Xposition", "0 90 4", (5, 0, 7), (5, 4, 7), (3, 4, 7)),
        ("3 Zrotation Xposition Yposition", "2 Zrotation Yposition", "90 0 0 90 3", (0, 0, 7), (-3, 1, 7), (-3, -1, 7)),
    ],
)
def test_known_answers(tmp_path: Path, root: str, inner: str, numbers: str, a: tuple, b: tuple, end: tuple) -> None:
    recording = read(written(tmp_path, BODY % (root, inner, numbers)), scale=0.01)
    assert recording.joints == ("a", "b", "b_end") and (recording.source, recording.units) == ("a.bvh", "m")
    np.testing.assert_allclose(100 * recording.positions[0], [a, b, end], atol=1e-5)


def test_end_sites_are_joints_unless_they_lie_on_theirs(tmp_path: Path) -> None:
    both = read(SMALL)
    assert set(both.joints or ()) - set(read(SMALL, end_sites=False).joints or ()) == {"Head_end", "LeftFoot_end"}
    assert skeleton_of(SMALL, end_sites=False).feet == ("LeftFoot", "RightFoot")
    clash = TEXT.replace("JOINT Spine", "JOINT Head_end")
    assert "Head_end_end" in (read(written(tmp_path, clash)).joints or ())


def lower(text: str) -> str:
    return re.sub(
        r"HIERARCHY|ROOT|JOINT|OFFSET|CHANNELS|End Site|MOTION|Frames|Frame Time|[XYZ](rot|pos)\w+", lambda m: m[0].lower(), text
    )


WRITINGS = {
    "CRLF": lambda t: t.replace("\n", "\r\n"),
    "blanks": lambda t: t.replace("\t", "    "),
    "no indentation": lambda t: re.sub(r"(?m)^\s+", "", t),
    "lower case": lower,
    "upper case": lambda t: re.sub(r"[XYZ](rot|pos)\w+", lambda m: m[0].upper(), t).replace("End Site", "END SITE"),
    "braces behind names": lambda t: re.sub(r"\n\s*\{", " {", t),
    "one line": lambda t: re.sub(r"\s+", " ", t[: t.index("MOTION")]) + "\n" + t[t.index("MOTION") :],
    "a byte order mark": lambda t: "\ufeff" + t,
    "tabs and blank lines": lambda t: t.replace("Frames: ", "Frames:\t").replace("\n0 0", "\n\n 0\t0") + "\n \n\n",
    "no last line end": lambda t: t.rstrip(),
    "exponents": lambda t: t.replace("OFFSET 10 0 0", "OFFSET 1e1 -0 +.0"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRITINGS)
def test_ways_of_writing_mean_the_same(tmp_path: Path, kind: str) -> None:
    changed = WRITINGS[kind](TEXT)
    assert changed != TEXT
    recording, expected = read(written(tmp_path, changed)), read(SMALL)
    assert recording.joints == expected.joints and recording.fps == expected.fps == 30
    assert (recording.positions == expected.positions).all()


def test_names_may_have_blanks_and_other_letters(tmp_path: Path) -> None:
    text = TEXT.replace("JOINT LeftLeg", "JOINT Bip01 L  Thigh").replace("RightLeg", "Bip01 R Thigh").replace("Spine", "Rücken")
    found = skeleton_of(written(tmp_path, text))
    assert ("Bip01 L Thigh", "Bip01 R Thigh") in found.left_right and "Rücken" in found.names


@pytest.mark.parametrize(
    ("seconds", "fps"),
    [
        ("0.0333333", 30), ("0.033333", 30), ("0.03333", 30), ("0.00833333", 120), ("0.008333", 120), ("0.016667", 60), ("1", 1),
        ("3.33333e-02", 30), ("0.04", 25), ("0.0416667", 24), (".05", 20), ("0.033366700", 1 / 0.0333667), ("2.5", 0.4),
        ("0.0167", 60), ("0.017", 60), ("0.016", 60), ("0.0166", 60), ("0.033", 30), ("0.0333", 30), ("0.0083", 120),
        ("0.008", 125), ("0.0138889", 72), ("0.0169492", 59), ("0.03337", 30000 / 1001), ("0.0334", 30000 / 1001),
        ("0.00417", 240), ("0.02", 50),
    ],
)  # fmt: skip
def test_rates_are_what_the_digits_stand_for(tmp_path: Path, seconds: str, fps: float) -> None:
    assert read(written(tmp_path, TEXT.replace("0.033333", seconds))).fps == pytest.approx(fps, rel=1e-12)


def test_a_rate_that_was_rounded_is_said(tmp_path: Path) -> None:
    assert read(SMALL).note is None
    clips = bvh(skeleton(str(SMALL)), str(written(tmp_path, TEXT.replace("0.033333", "0.017"))))
    assert clips.fps == 60 and "1 recordings: Frame Time: 0.017 is taken to be 60 frames per second" in clips.notes


def test_limbs_and_another_axis_can_be_chosen(tmp_path: Path) -> None:
    arms = "".join(
        f"JOINT {side}Shoulder {{ OFFSET {x} 0 0 CHANNELS 0 JOINT {side}Arm {{ OFFSET {x} 0 0 CHANNELS 0 JOINT {side}Hand "
        f"{{ OFFSET {x} 0 0 CHANNELS 0 }} }} }}\n"
        for side, x in (("Left", 5), ("Right", -5))
    )
    path = written(tmp_path, TEXT.replace("JOINT Head", f"{arms}JOINT Head"))
    found = skeleton(str(path), up="z", keep=["trunk", "left_leg"])
    assert found.up == "z" and found.names == ("Hips", "Spine", "Head", "Head_end", "LeftLeg", "LeftFoot", "LeftFoot_end")
    assert skeleton(str(path), keep=["Spine", "right_arm"]).names == ("Spine", "RightShoulder", "RightArm", "RightHand")
    assert bvh(found, str(path)).skeleton == found
    with pytest.raises(ValueError, match=r"keep=\['tail'\].*'left_arm'"):
        skeleton(str(path), keep=["tail"])


def test_a_skeleton_follows_from_the_names() -> None:
    found = skeleton_of(SMALL)
    assert found.names[found.root] == "Hips", "the reference above the hips is no joint of the body"
    assert found.joints["LeftLeg"] == "Hips" and found.joints["Head_end"] == "Head"
    assert found.left_right == (("LeftLeg", "RightLeg"), ("LeftFoot", "RightFoot"))
    assert found.feet == ("LeftFoot", "LeftFoot_end", "RightFoot") and (found.up, found.coords) == ("y", 3)


def test_a_root_at_a_constant_distance_is_a_joint(tmp_path: Path) -> None:
    still = re.sub(r"(?m)^0 0 0 0 \S+ \S+", "0 0 0 0 90 0", TEXT)
    assert skeleton_of(written(tmp_path, still)).names[0] == "reference"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("LeftArm", "RightArm"), ("leftArm", "rightArm"), ("arm_left", "arm_right"), ("ARMLEFT", "ARMRIGHT"), ("LArm", "RArm"),
        ("lArm", "rArm"), ("larm", "rarm"), ("Arm_L", "Arm_R"), ("arm.l", "arm.r"), ("armL", "armR"), ("L_Arm", "R_Arm"),
        ("mixamorig:LeftArm", "mixamorig:RightArm"), ("Bip01 L Arm", "Bip01 R Arm"), ("A_L_end", "A_R_end"), ("f_L_01", "f_R_01"),
    ],
)  # fmt: skip
def test_sides_are_found(tmp_path: Path, left: str, right: str) -> None:
    text = TEXT.replace("LeftLeg", left).replace("RightLeg", right)
    assert [left, right] in list(map(list, skeleton_of(written(tmp_path, text)).left_right))


def test_a_joint_is_in_one_pair_though_its_name_has_two_marks(tmp_path: Path) -> None:
    text = TEXT
    for old, new in {"LeftLeg": "l_L", "RightLeg": "r_L", "LeftFoot": "l_R", "RightFoot": "r_R"}.items():
        text = text.replace(old, new)
    pairs = skeleton_of(written(tmp_path, text)).left_right
    joints = [joint for pair in pairs for joint in pair]
    assert pairs and len(joints) == len(set(joints))


@pytest.mark.parametrize(("one", "other"), [("Lower", "Rower_"), ("Pelvis", "Pervis"), ("LeftArm", "LeftArm2"), ("tail", "tair")])
def test_no_sides_are_invented(tmp_path: Path, one: str, other: str) -> None:
    text = TEXT.replace("LeftLeg", one).replace("RightLeg", other)
    assert skeleton_of(written(tmp_path, text)).left_right == (("LeftFoot", "RightFoot"),)


def line(text: str, words: str) -> int:
    return next(i for i, row in enumerate(text.splitlines(), 1) if words in row)


ROWS = line(TEXT, "Frame Time")
LEG = line(TEXT, "OFFSET 10 0 0")
DEEP = (
    "HIERARCHY\nROOT a\n{\n"
    + "".join(f"OFFSET 0 0 0\nJOINT j{i}\n{{\n" for i in range(20000))
    + "MOTION\nFrames: 1\nFrame Time: 1\n1\n"
)
SHAPED = TEXT[: TEXT.index("MOTION")]
BAD = {
    "nothing": ("", "no lines MOTION.*first 0 bytes"),
    "foreign": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 50, "no lines MOTION.*no BVH file"),
    "a foreign text": ("<xml>\nMOTION\nFrames: 1\nFrame Time: 1\n1\n", "line 1: '<xml>', expected HIERARCHY"),
    "UTF-16": (TEXT.encode("utf-16"), "no lines MOTION"),
    "no motion": (SHAPED, "no lines MOTION.*cut short"),
    "cut in the hierarchy": (TEXT[:300], "no lines MOTION.*cut short"),
    "cut in the motion": (TEXT[:-200], r"line \d+ \(frame \d+\) has \d+ numbers.*30 channels"),
    "cut between frames": ("\n".join(TEXT.splitlines()[:-3]), rf"line {ROWS - 1}: Frames: 12, but 9 follow"),
    "a number less": (TEXT.replace("\n0 0 0 0 89.5 ", "\n0 0 0 89.5 "), rf"line {ROWS + 2} \(frame 1\) has 29 numbers.*30"),
    "a number more": (TEXT.rstrip() + " 1\n", rf"line {ROWS + 12} \(frame 11\) has 31 numbers"),
    "one less, one more": (
        TEXT.replace("\n0 0 0 0 89.5 ", "\n0 0 0 89.5 ").rstrip() + " 1\n", rf"line {ROWS + 2} \(frame 1\) has 29"),
    "NaN": (TEXT.replace(" 89.5 ", " nan "), rf"line {ROWS + 2} \(frame 1\): yposition of Hips is 'nan'"),
    "infinity": (TEXT.replace(" 89.5 ", " -inf "), "yposition of Hips is '-inf'.*±1e"),
    "overflow": (TEXT.replace(" 89.5 ", " 1e999 "), "'1e999'"),
    "a decimal comma": (TEXT.replace(" 89.5 ", " 89,5 "), r"'89,5'.*as in 0\.5"),
    "a word": (TEXT.replace(" 89.5 ", " 0x1F "), "yposition of Hips is '0x1F'"),
    "a zero byte": (TEXT.replace(" 89.5 ", " 8\0009 "), rf"line {ROWS + 2} "),
    "a giant": (TEXT.replace(" 89.5 ", " 1e7 "), "'1e7', expected a number within"),
    "no numbers": (TEXT[: TEXT.index("\n0 0 0 0") + 1] + " \n\n", "Frames: 12, but 0 follow"),
    "10^9 frames": (TEXT.replace("Frames: 12", "Frames: 1000000000"), rf"line {ROWS - 1}: Frames: 1000000000, but 12 follow"),
    "frames of 5000 digits": (TEXT.replace("Frames: 12", "Frames: " + "9" * 5000), "Frames: 9999"),
    "zero frames": (TEXT.replace("Frames: 12", "Frames: 0"), rf"line {ROWS - 1}: Frames: 0, at least 1"),
    "minus frames": (TEXT.replace("Frames: 12", "Frames: -12"), "Frames: -12, at least 1"),
    "more frames than said": (TEXT.replace("Frames: 12", "Frames: 11"), "Frames: 11, but 12 follow"),
    "frame time 0": (TEXT.replace("0.033333", "0"), rf"line {ROWS}: Frame Time: 0, it must be"),
    "a negative frame time": (TEXT.replace("0.033333", "-0.033"), "Frame Time: -0.033, it must be"),
    "frame time nan": (TEXT.replace("0.033333", "nan"), "Frame Time: nan, it must be"),
    "a long frame time": (TEXT.replace("0.033333", "0." + "0" * 9000 + "1e8999"), "Frame Time: 0.000"),
    "a wrong channel count": (
        TEXT.replace("CHANNELS 6 Xposition Yposition Zposition Z", "CHANNELS 5 Xposition Yposition Zposition Z"),
        "line 9: 'Yrotation', expected JOINT"),
    "too many channels": (TEXT.replace("CHANNELS 3 Z", "CHANNELS 7 Z", 1), r"'7', expected a number of channels from 0 to 6"),
    "an unknown channel": (TEXT.replace("Zrotation", "Wrotation", 1), "line 9: 'Wrotation', expected 6 channels like"),
    "a channel twice": (TEXT.replace("Zrotation Xrotation", "Xrotation Xrotation", 1), "expected every channel of a joint once"),
    "no channels at all": (
        re.sub(r"CHANNELS.*", "CHANNELS 0", SHAPED) + "MOTION\nFrames: 1\nFrame Time: 1\n1\n", "no joint has CHANNELS"),
    "a word for a number": (TEXT.replace("OFFSET 10 0 0", "OFFSET 10 x 0"), rf"line {LEG}: 'x', expected three numbers"),
    "an infinite offset": (TEXT.replace("OFFSET 10 0 0", "OFFSET 10 1e400 0"), rf"line {LEG}: 'OFFSET', expected one OFFSET"),
    "two offsets": (TEXT.replace("OFFSET 10 0 0", "OFFSET 10 0\nOFFSET 0"), rf"line {LEG + 1}: 'OFFSET', expected three"),
    "no offset": (TEXT.replace("\t\t\tOFFSET 10 0 0\n", ""), rf"line {LEG + 10}: '}}', expected the OFFSET"),
    "a name twice": (TEXT.replace("RightLeg", "LeftLeg"), "expected a name that no other joint has, not 'LeftLeg'"),
    "no name": (TEXT.replace("JOINT Spine", "JOINT"), "line 10: 'JOINT', expected a name"),
    "two roots": (SHAPED + SHAPED.removeprefix("HIERARCHY\n") + TEXT[len(SHAPED) :], "'ROOT', expected MOTION"),
    "a brace too few": (TEXT.replace("}\nMOTION", "\nMOTION"), "'MOTION', expected JOINT"),
    "a brace too many": (TEXT.replace("}\nMOTION", "}}\nMOTION"), "'}', expected MOTION"),
    "a joint in an end site": (TEXT.replace("OFFSET 0 20 0\n\t\t\t\t}", "JOINT x { }\n\t\t\t\t}"), "expected OFFSET or }"),
    "absurd nesting": (DEEP, r"expected at most 512 joints"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_damage_is_located(tmp_path: Path, kind: str) -> None:
    content, message = BAD[kind]
    assert content != TEXT
    path = written(tmp_path, content)
    began = time.monotonic()
    with pytest.raises(DataError, match=message) as error:
        read(path)
    assert time.monotonic() - began < 2
    text = str(error.value)
    assert str(path) in text and len(text) < 1000 and re.search("remove|replace|repair|correct", text)


def test_numbers_may_have_commas_for_points(tmp_path: Path) -> None:
    comma = read(written(tmp_path, re.sub(r"(?<=\d)\.(?=\d)", ",", TEXT)))
    expected = read(written(tmp_path, TEXT))
    assert comma.fps == expected.fps and (comma.positions == expected.positions).all()


def test_joints_may_be_in_another_order(tmp_path: Path) -> None:
    """In one file the left arm comes before the right one, in the other after it."""
    arms = [f"JOINT {side}\n{{\nOFFSET {x} 0 0\nCHANNELS 1 Zrotation\n}}\n" for side, x in (("L", 10), ("R", -10))]
    for name, below, turns in (("a", arms, "1 2"), ("b", arms[::-1], "2 1")):
        root = "HIERARCHY\nROOT Hips\n{\nOFFSET 0 0 0\nCHANNELS 3 Xposition Yposition Zposition\n" + "".join(below)
        written(tmp_path, f"{root}}}\nMOTION\nFrames: 1\nFrame Time: 0.1\n0 0 0 {turns}\n", f"{name}.bvh")
    (tmp_path / "c.npy").write_bytes(b"")
    clips = bvh(skeleton(str(tmp_path)), str(tmp_path))
    assert (clips.recording(0) == clips.recording(1)).all() and "1 other files were not looked at" in clips.notes


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.bvh"
    with path.open("wb") as file:
        file.truncate(reader.MAX_BYTES + 1)  # a file with a hole: it takes no place on the disk
    with pytest.raises(DataError, match=r"huge\.bvh: \d+ bytes, at most \d+ are read; cut"):
        read(path)
    path.write_text(TEXT.replace("JOINT Spine", "JOINT Spine" + " " * reader.MAX_HEADER))
    with pytest.raises(DataError, match="no lines MOTION"):
        read(path)
    monkeypatch.setattr(reader, "MAX_POSITIONS", 100)
    with pytest.raises(DataError, match="12 lines for the motion of 11 joints, at most 100"):
        read(SMALL)
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path)


def test_a_directory_becomes_a_clip_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    higher = re.sub(r"(?m)^0 0 0 0 (\S+) ", lambda m: f"0 0 0 0 {float(m[1]) + 40:g} ", TEXT)
    for name, text in {"dataset-1_walk_old_001.bvh": TEXT, "hop/up/b.BVH": higher, "hop/a.bvh": TEXT, "c.bvh": TEXT}.items():
        written(tmp_path, text, name)
    (tmp_path / "notes.txt").write_text("no motion")
    found = skeleton(str(tmp_path))
    with caplog.at_level(logging.INFO):
        clips = bvh(found, str(tmp_path))
    assert clips.sources == ("c.bvh", "dataset-1_walk_old_001.bvh", "hop/a.bvh", "hop/up/b.BVH") and clips.fps == 30
    assert [clips.class_names[i] if i >= 0 else None for i in clips.labels.tolist()] == [None, "walk", "hop", "hop"]
    assert set(clips.subjects) == {None} and "4 files, 9 joints" in caplog.text
    assert clips.notes[-1] == "1 other files were not looked at"
    # One floor for all: a body that is 40 cm higher stays 40 cm higher.
    feet = [found.index(name) for name in found.feet]
    lowest = clips.frames[:, feet, 1].amin(1)
    assert abs(float(lowest.median())) < 0.03
    np.testing.assert_allclose(clips.recording(3) - clips.recording(0), np.broadcast_to([0, 0.4, 0], (12, 9, 3)), atol=1e-5)
    assert all(record.levelno == logging.INFO for record in caplog.records)

    clips = bvh(found, str(tmp_path), label_pattern=r"(?P<subject>[ab])")
    assert clips.subjects == (None, None, "a", "b")
    some = Skeleton({"Head": None, "LeftFoot": "Head"}, feet=["LeftFoot"])
    assert bvh(some, str(tmp_path / "c.bvh")).frames.shape == (12, 2, 3)
    with pytest.raises(DataError, match=r"set data\.scale=0\.01$"):
        bvh(found, str(tmp_path), scale=1.0)


def test_files_that_do_not_belong_together_are_named(tmp_path: Path) -> None:
    written(tmp_path, TEXT, "a.bvh")
    found = skeleton(str(tmp_path))
    for name, text, message in (
        (
            "b.bvh",
            TEXT.replace("Spine", "Chest"),
            r"b\.bvh: joint 2 is 'Chest' below 'Hips', in a\.bvh it is 'Spine' below 'Hips'",
        ),
        ("b.bvh", TEXT.replace("0.033333", "0.01"), r"1 at 30, as a\.bvh, 1 at 100, as b\.bvh.*data\.target_fps=30"),
        ("b.bvh", TEXT.replace("OFFSET 0 -5 15", "OFFSET 0 0 0"), r"b\.bvh: .*\['LeftFoot_end'\].*data\.end_sites=false"),
    ):
        written(tmp_path, text, name)
        with pytest.raises(DataError, match=message):
            bvh(found, str(tmp_path))
    # The last of these differs in an end site alone, which need not be a joint.
    assert len(bvh(skeleton(str(tmp_path), end_sites=False), str(tmp_path), end_sites=False)) == 2


def test_files_are_prepared_as_all_others_are(tmp_path: Path) -> None:
    written(tmp_path, TEXT, "a.bvh")
    written(tmp_path, TEXT.replace("0.033333", "0.0166667"), "b.bvh")
    found = skeleton(str(tmp_path))
    both = bvh(found, str(tmp_path), target_fps=30)
    assert both.fps == 30 and both.lengths.tolist() == [12, 6]
    assert bvh(found, str(tmp_path), target_fps=30, min_seconds=0.3).sources == ("a.bvh",)
    assert (both.recording(1) == both.recording(0)[::2]).all(), "the same frames at twice the rate"
    free = bvh(found, str(tmp_path / "a.bvh"), floor=False)
    names = read(SMALL).joints or ()
    assert (free.frames.numpy() == read(SMALL).positions[:, [names.index(name) for name in found.names]]).all()
    few = Skeleton({"pelvis": None, "crown": "pelvis"})
    named = bvh(few, str(tmp_path / "a.bvh"), retarget={"crown": "Head_end"}, floor=False)
    assert (named.frames == free.frames[:, [found.index("Hips"), found.index("Head_end")]]).all()


def test_pipes_are_not_waited_for_and_links_not_followed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.bvh")
    with pytest.raises(DataError, match=r"a\.bvh: not a regular file"):
        read(tmp_path / "a.bvh")
    with pytest.raises(DataError, match=r"a\.bvh: not a regular file"):
        skeleton(str(tmp_path))
    (tmp_path / "a.bvh").unlink()
    (tmp_path / "b.bvh").symlink_to(SMALL)
    with pytest.raises(DataError, match=r"there \(1\) ends with \.bvh; links"):
        skeleton(str(tmp_path))
    assert skeleton(str(tmp_path / "b.bvh")).names[0] == "Hips", "a link that was asked for"


def test_arguments_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    found = skeleton(str(SMALL.parent))
    with pytest.raises(DataError, match=r"gone: no such file or directory.*data\.root"):
        bvh(found, str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"ends with \.bvh"):
        skeleton(str(tmp_path))
    with pytest.raises(DataError, match=r"joints \['tail'\].*skeleton=bvh"):
        bvh(Skeleton({"Hips": None, "tail": "Hips"}), str(SMALL))
    with pytest.raises(ValueError, match=r"data\.label_pattern='\(' is no regular expression"):
        bvh(found, str(SMALL), label_pattern="(")
    with pytest.raises(ValueError, match=r"data\.scale=0"):
        bvh(found, str(SMALL), scale=0.0)


def test_a_run_needs_the_files_only_to_train(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "abcd":
        written(tmp_path / "data", TEXT, f"{name}.bvh")
    small = [
        "frames=8",
        "T=4",
        "trainer=cpu",
        "trainer.max_steps=1",
        "model.model_channels=8",
        "logger=none",
        "loader.batch_size=2",
    ]
    cfg = compose(
        "config", ["data=bvh", f"data.root={tmp_path / 'data'}", f"out={tmp_path / 'run'}", *small, "~callbacks.skeleton_gif"]
    )
    train(cfg)
    assert "data: in 3 of 4 recordings (b.bvh = a.bvh, c.bvh = a.bvh, d.bvh = a.bvh) a recording is there twice" in caplog.text
    shutil.rmtree(tmp_path / "data")
    module = load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert module.skeleton.names[0] == "Hips" and "LeftFoot_end" in module.skeleton.feet
    assert module.sample([0]).positions.shape == (1, 8, 9, 3)


@pytest.fixture(scope="module")
def real() -> list[Path]:
    """The 79 files of Bandai-Namco-Research-Motiondataset-1 that POSE_DDPM_BVH names."""
    root = os.environ.get("POSE_DDPM_BVH")
    if not root:
        pytest.skip("set POSE_DDPM_BVH to the directory of the files dataset-1_*.bvh of the Bandai-Namco motion data set")
    return sorted(Path(root).glob("dataset-1_*.bvh"))


def test_real_files_agree_with_scipy_and_are_read_fast(real: list[Path]) -> None:
    began = time.monotonic()
    recordings = [read(path) for path in real]
    seconds = time.monotonic() - began
    assert len(real) == 79 and seconds < 10
    for path, recording in zip(real, recordings, strict=True):
        expected = posed_by_scipy(path.read_text())
        for j, name in enumerate(recording.joints or ()):
            np.testing.assert_allclose(100 * recording.positions[:, j], expected[name], atol=2e-3)


def test_real_people_have_bones_and_stand_on_the_floor(real: list[Path]) -> None:
    found = skeleton(str(real[0].parent))
    clips = bvh(found, str(real[0].parent))
    assert len(clips) == 79 and clips.fps == 30 and found.names[found.root] == "Hips" and len(found.left_right) == 8
    assert {"bow", "kick", "punch", "run", "walk"} <= set(clips.class_names)
    for child, parent in found.bones:
        lengths = (clips.frames[:, child] - clips.frames[:, parent]).norm(dim=-1)
        assert float(lengths.max() - lengths.min()) < 1e-3, found.names[child]
    heights = {name: float(clips.frames[:, found.index(name), 1].median()) for name in ("Head", "Hips", "LowerLeg_L", "Toes_L")}
    assert 1.3 < heights["Head"] < 1.7 and 0.8 < heights["Hips"] < 1.1 and abs(heights["Toes_L"]) < 0.03
    # In a right-handed frame the left is up x ahead, and people walk ahead.
    walks = [i for i, source in enumerate(clips.sources) if "_walk_normal" in source]
    for i in walks:
        x = clips.recording(i)
        ahead = x[-1, found.root] - x[0, found.root]
        left = (x[:, found.index("UpperLeg_L")] - x[:, found.index("UpperLeg_R")]).mean(0)
        assert float(left[0] * ahead[2] - left[2] * ahead[0]) > 0 or float(ahead.norm()) < 0.5
