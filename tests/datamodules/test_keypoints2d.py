"""Keypoints in pictures: one motion in every format, several people, nobody, and damage."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from datamodules.readers.keypoints2d import read, read_frames, sequences
from datamodules.readers.people import JOINTS
from datamodules.sets.folder import folder
from ddpm.config import construct
from ddpm.errors import DataError
from tests.configs import compose
from tests.skeletons import people, shipped

KINECT = shipped("kinect20")
NEAR = {
    **dict.fromkeys(("nose", "left_eye", "right_eye", "left_ear", "right_ear"), "head"),
    **{"neck": "shoulder_center", "mid_hip": "hip_center", "left_heel": "left_ankle", "right_heel": "right_ankle"},
}


def pictured(motion: np.ndarray, names: tuple[str, ...], at: tuple[float, float] = (960, 900)) -> np.ndarray:
    """Kinect's joints ``(frames, 20, 3)`` as keypoints ``(frames, joints, 2)`` in a picture, 300 pixels a metre, y downwards."""
    near = [NEAR.get(name, name) for name in names]
    near = [name if name in KINECT.names else f"{name.split('_')[0]}_{'foot' if 'toe' in name else 'hand'}" for name in near]
    spread = np.array([[8 * np.cos(k), 8 * np.sin(k)] for k in range(len(names))])
    return motion[:, [KINECT.index(name) for name in near], :2] * (300, -300) + at + spread


A, B = people(2)
COCO, BODY25 = JOINTS[17], JOINTS[25]


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def triples(body: np.ndarray, confidence: float = 0.9) -> list[float]:
    return np.concatenate([body, np.full((len(body), 1), confidence)], axis=1).ravel().round(4).tolist()


def openpose(*bodies: np.ndarray, confidence: float = 0.9) -> dict:
    return {"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": triples(body, confidence)} for body in bodies]}


def test_names_are_those_of_the_shipped_skeletons() -> None:
    assert all(len(set(names)) == number for number, names in JOINTS.items()), "of each number so many"
    assert JOINTS[133][91] == "left_hand_0" and JOINTS[136][94] == "left_hand_0" and JOINTS[133][23] == "face_0"
    assert JOINTS[17] == shipped("coco17").names and JOINTS[25] == shipped("openpose25").names
    assert [len(set(names)) for names in JOINTS.values()] == list(JOINTS)


def test_one_motion_in_every_format(tmp_path: Path) -> None:
    flat = pictured(A, COCO)
    results = [{"image_id": f"{k}.jpg", "keypoints": triples(body), "score": 2.1} for k, body in enumerate(flat)]
    images = [{"id": k, "file_name": "x.jpg"} for k in range(len(flat))]
    marked = [{"image_id": 7 + 3 * k, "keypoints": triples(body, 2)} for k, body in enumerate(flat)]
    files = {
        "alphapose": results,
        "shuffled": results[::-1],
        "coco": {"images": images, "annotations": marked},
        "plain": {"keypoints": np.round(flat, 4).tolist()},
        "openpose": [openpose(body) for body in flat],
    }
    for name, document in files.items():
        (r,) = read(write(tmp_path / f"{name}.json", document))
        assert r.joints == COCO and r.fps is None and (r.source, r.units) == (f"{name}.json", "px"), name
        np.testing.assert_allclose(r.positions, flat, atol=1e-3, err_msg=name)
        np.testing.assert_allclose(r.confidence, {"coco": 1.0, "plain": 1.0}.get(name, 0.9), err_msg=name)


def test_mediapipe_fractions_become_pixels(tmp_path: Path) -> None:
    flat = pictured(A, COCO)
    landmarks = np.zeros((len(A), 33, 2))
    landmarks[:, [JOINTS[33].index(name) for name in COCO]] = flat / (1920, 1080)
    frames = [{"landmarks": [{"x": x, "y": y, "z": 0.1, "visibility": 0.8} for x, y in body]} for body in landmarks.tolist()]
    document = {"width": 1920, "height": 1080, "fps": 30, "label": "walk", "subject": 7, "frames": frames}
    (r,) = read(write(tmp_path / "a.json", document))
    assert (r.fps, r.label, r.subject, r.joints) == (30.0, "walk", "7", JOINTS[33])
    np.testing.assert_allclose(r.positions[:, [JOINTS[33].index(name) for name in COCO]], flat, atol=1e-3)
    with pytest.raises(DataError, match="add its width and height"):
        read(write(tmp_path / "b.json", frames))
    clips = folder(shipped("coco17"), str(tmp_path / "a.json"), min_confidence=0.3)
    assert clips.fps == 30 and "mouth_left" in clips.notes[1] and "pixels" in clips.notes[2]


def moving(joints: int) -> np.ndarray:
    """``(9, joints, 3)`` of a body that hardly moves."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(joints, 3)) + 0.01 * rng.normal(size=(9, joints, 3))


def mmpose(bodies: np.ndarray, start: int = 1, **more: object) -> list[dict]:
    """Frames as MMPose writes them, of bodies ``(frames, joints, coords)``."""
    return [
        {
            "frame_id": start + k,
            "instances": [{"keypoints": body, "keypoint_scores": [0.7] * len(body), "bbox": [[0, 0, 9, 9]], **more}],
        }
        for k, body in enumerate(bodies.round(4).tolist())
    ]


def test_mmpose(tmp_path: Path) -> None:
    flat = pictured(A, COCO)
    info = {"keypoint_id2name": {str(k): name for k, name in enumerate(COCO)}}
    document = {"meta_info": info, "instance_info": mmpose(flat)}
    for name, content in {"a": document, "b": mmpose(flat, 0), "c": {"instance_info": mmpose(flat)[::-1]}}.items():
        (r,) = read(write(tmp_path / f"{name}.json", content))
        assert (r.joints, r.units, r.source) == (COCO, "px", f"{name}.json")
        np.testing.assert_allclose(r.positions, flat, atol=1e-3)
        np.testing.assert_allclose(r.confidence, 0.7)
    holes = {"instance_info": [frame for k, frame in enumerate(mmpose(flat)) if k != 3]}
    (r,) = read(write(tmp_path / "d.json", holes))
    assert r.confidence is not None and (r.confidence[3] == 0).all() and len(r.positions) == len(flat)
    two = mmpose(flat[:9], track_id=3)
    for frame, other in zip(two, mmpose(flat[:9] + 900, track_id=1), strict=True):
        frame["instances"] = other["instances"] + frame["instances"]
    assert len(read(write(tmp_path / "e.json", two))) == 2
    with pytest.raises(DataError, match="entry 0 has no image_id and no frame: the bodies of a single picture are no motion"):
        read(write(tmp_path / "f.json", two[0]["instances"]))
    with pytest.raises(DataError, match="two frames have one frame_id"):
        read(write(tmp_path / "g.json", [*mmpose(flat[:2]), *mmpose(flat[:2])]))


def test_many_numbered_frames_are_read_in_time(tmp_path: Path) -> None:
    body = [[float(i), float(2 * i)] for i in range(17)]
    frames = [{"frame_id": k, "instances": [{"keypoints": body}] if k < 2 else []} for k in range(30_000)]
    (tmp_path / "a.json").write_text(json.dumps({"instance_info": frames}))
    began = time.monotonic()
    assert len(read(tmp_path / "a.json")) == 1
    assert time.monotonic() - began < 3  # a search for each of them took four times as long


def test_yolo(tmp_path: Path) -> None:
    flat = pictured(A, COCO)
    seen = [0.8] * 17
    frames = [
        [{"name": "person", "track_id": 1, "keypoints": dict(zip("xy", body.T.tolist(), strict=True), visible=seen)}]
        for body in flat
    ]
    (r,) = read(write(tmp_path / "a.json", frames))
    np.testing.assert_allclose(r.positions, flat, atol=1e-3)
    np.testing.assert_allclose(r.confidence, 0.8, atol=1e-6)


def test_mmpose_in_space_and_of_animals(tmp_path: Path) -> None:
    h36m = ("root", *"right_hip right_knee right_foot left_hip left_knee left_foot spine thorax neck_base head".split(),
            *"left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist".split())  # fmt: skip
    motion = moving(17)
    document = {"meta_info": {"keypoint_id2name": {str(k): name for k, name in enumerate(h36m)}}, "instance_info": mmpose(motion)}
    (r,) = read(write(tmp_path / "a.json", document), 3)
    assert r.joints == shipped("h36m17").names and r.units is None
    np.testing.assert_allclose(r.positions, motion, atol=1e-3)
    (r,) = read(write(tmp_path / "b.json", mmpose(motion)), 3)
    assert r.joints is None, "of 17 joints in space nothing says which they are"

    front, back = "Shoulder Elbow F_Paw", "Hip Knee B_Paw"
    legs = [f"{side}_{joint}" for leg in (front, back) for side in "LR" for joint in leg.split()]
    names = ["L_Eye", "R_Eye", "Nose", "Neck", "Root of tail", *legs]
    document["meta_info"]["keypoint_id2name"] = {str(k): name for k, name in enumerate(names)}
    document["instance_info"] = mmpose(motion[..., :2] + 500)
    (r,) = read(write(tmp_path / "c.json", document))
    assert r.joints == shipped("ap10k17").names and r.units == "px"
    names = list(shipped("ap10k17").names)
    marked = [{"image_id": k, "keypoints": triples(body, 2)} for k, body in enumerate(motion[..., :2] + 500)]
    (r,) = read(write(tmp_path / "d.json", {"categories": [{"name": "dog", "keypoints": names}], "annotations": marked}))
    assert r.joints == shipped("ap10k17").names


def marks(body: np.ndarray) -> list[dict]:
    return [{"x": x, "y": y, "z": z, "visibility": 0.9, "presence": 1.0} for x, y, z in body.tolist()]


@pytest.mark.parametrize(
    ("flat", "world", "form"),
    [
        ("landmarks", "worldLandmarks", lambda body: [marks(body)]),
        ("pose_landmarks", "pose_world_landmarks", marks),
        ("pose_landmarks", "pose_world_landmarks", lambda body: [list(mark.values())[:4] for mark in marks(body)]),
        ("poseLandmarks", "poseWorldLandmarks", lambda body: {"landmark": marks(body)}),
        ("pose_landmarks", "pose_world_landmarks", lambda body: [marks(body)]),
        ("multi_pose_landmarks", "multi_pose_world_landmarks", lambda body: [{"landmark": marks(body)}]),
    ],
)
@pytest.mark.parametrize("joints", [21, 33])
def test_mediapipe_in_the_world(tmp_path: Path, flat: str, world: str, form: Any, joints: int) -> None:
    motion = moving(joints)
    frames = [{flat: form(body / 10 + 0.5), world: form(body)} for body in motion]
    (r,) = read(write(tmp_path / "a.json", {"frames": frames, "fps": 30}), 3)
    assert r.joints == JOINTS[joints] and (r.units, r.fps) == ("m", 30)
    np.testing.assert_allclose(r.positions, motion, atol=1e-6)
    (r,) = read(write(tmp_path / "b.json", {"frames": frames, "width": 100, "height": 50}), 2)
    assert r.units == "px" and r.joints == JOINTS[joints]
    np.testing.assert_allclose(r.positions, (motion / 10 + 0.5)[..., :2] * (100, 50), atol=1e-3)
    (r,) = read(write(tmp_path / "c.json", [{world: form(body)} for body in motion]), 2)
    assert r.positions.shape == (9, joints, 3), "where there is nothing else"
    lists = {flat: [marks(body / 10 + 0.5) for body in motion], world: [marks(body) for body in motion]}
    (r,) = read(write(tmp_path / "d.json", lists), 3)
    np.testing.assert_allclose(r.positions, motion, atol=1e-6)
    if isinstance(form(motion[0]), list) and len(form(motion[0])) == 1:
        both = [{world: form(body) + form(body + 1)} for body in motion]
        with pytest.raises(DataError, match=r"frame 0: 2 bodies with landmarks of the world.*nothing tells who is who"):
            read(write(tmp_path / "e.json", both), 3)


@pytest.mark.parametrize("form", [lambda k: k, float, lambda k: [float(k)], lambda k: [[float(k)], [float(k)]], str])
def test_numbers_of_alphapose_keep_people_apart(tmp_path: Path, form: Any) -> None:
    """Two people change places at once: only their numbers say who is who."""
    one, two = pictured(A[:20], COCO), pictured(B[:20], COCO, (1560, 900))
    results = []
    for k in range(20):
        bodies = [(one[k], 0), (two[k], 1)] if k < 10 else [(two[k], 0), (one[k], 1)]
        results += [{"image_id": f"{k}.jpg", "keypoints": triples(body), "idx": form(number)} for body, number in bodies]
    first, second = read(write(tmp_path / "a.json", results))
    np.testing.assert_allclose(first.positions, np.concatenate([one[:10], two[10:]]), atol=1e-3)
    np.testing.assert_allclose(second.positions, np.concatenate([two[:10], one[10:]]), atol=1e-3)


@pytest.mark.parametrize("number", [1.5, [0, 1], {"a": 1}, [[0.0], [1.0]], [[0], [1, 2]], True, float("nan")])
def test_a_number_that_cannot_be_read_is_said(tmp_path: Path, number: Any) -> None:
    results = [
        {"image_id": f"{k}.jpg", "keypoints": triples(body), "idx": number} for k, body in enumerate(pictured(A[:5], COCO))
    ]
    with pytest.raises(DataError, match=r"frame 0: the number of a person is .*remove all numbers to have people matched"):
        read(write(tmp_path / "a.json", results))


def test_three_coordinates_are_no_confidence(tmp_path: Path) -> None:
    motion = moving(17)
    path = write(tmp_path / "a.json", {"keypoints": motion.tolist(), "joint_names": list(COCO)})
    (r,) = read(path, 3)
    np.testing.assert_allclose(r.positions, motion, atol=1e-6)
    assert r.joints == COCO and r.units is None
    with pytest.raises(DataError, match=r"third number of a keypoint is -.*choose a skeleton with 3 coordinates"):
        read(path)
    flat = write(tmp_path / "b.json", {"keypoints": np.concatenate([pictured(A, COCO), np.ones((len(A), 17, 1))], 2).tolist()})
    assert read(flat, 3)[0].positions.shape[2] == 2, "its third number is a confidence"


def test_a_file_for_every_frame(tmp_path: Path) -> None:
    flat = pictured(A, BODY25)
    for k, body in enumerate(flat):
        for video in ("one", "two"):
            if (video, k) != ("two", 5):
                write(tmp_path / f"{video}_{k:012d}_keypoints.json", openpose(*([] if k in (10, 11) else [body])))
    groups = list(sequences(sorted(tmp_path.iterdir())))
    assert [len(group) for group in groups] == [len(A), len(A) - 1]
    one, two = (read_frames(group)[0] for group in groups)
    assert one.joints == BODY25 and one.source == "one_000000000000_keypoints.json"
    seen = np.setdiff1d(np.arange(len(A)), [10, 11])
    np.testing.assert_allclose(one.positions[seen], flat[seen], atol=1e-3)
    assert one.confidence is not None and (one.confidence[10:12] == 0).all()
    assert two.confidence is not None and (two.confidence[[5, 10, 11]] == 0).all() and len(two.positions) == len(A)

    clips = folder(shipped("openpose25"), str(tmp_path), fps=20, min_confidence=0.3, floor=False)
    assert clips.lengths.tolist() == [len(A)] * 2 and "interpolated 125 lost" in clips.notes[0]
    shape = flat - flat[:1, :1]
    metres = (clips.recording(0) - clips.recording(0)[:1, :1]).numpy()
    scale = np.median(metres[seen][5:] / shape[seen][5:])
    np.testing.assert_allclose(metres[seen], shape[seen] * scale, atol=1e-3)
    assert 1 / 600 < scale < 1 / 200, "about the 300 pixels a metre that the picture had"


def test_the_directory_of_a_clip_is_no_label(tmp_path: Path) -> None:
    for action, video in (("walk", "v1"), ("walk", "v2"), ("run", "v3")):
        for k, body in enumerate(pictured(A[:20], COCO)):
            write(tmp_path / action / video / f"{video}_{k:012d}_keypoints.json", openpose(body))
    clips = folder(shipped("coco17"), str(tmp_path), fps=20)
    assert [clips.class_names[k] for k in clips.labels] == ["run", "walk", "walk"]
    assert clips.sources[0] == "run/v3/v3_000000000000_keypoints.json"
    assert folder(shipped("coco17"), str(tmp_path / "walk"), fps=20).class_names == ()


def test_two_people_who_cross_are_told_apart(tmp_path: Path) -> None:
    """Listed in random order, one walks through the picture and in front of the other, who is away for three frames."""

    def placed(motion: np.ndarray, x: float) -> np.ndarray:
        flat = pictured(motion, COCO)
        return flat - flat[:, :1] + (x, 300)

    n = 60
    walker = placed(A[:n], 300) + np.linspace(0, 1200, n)[:, None, None] * (1, 0)
    still = placed(B[:1], 905)[0]
    assert np.abs(walker - still).max((1, 2)).min() < 150, "they do cross"
    rng = np.random.default_rng(0)
    frames = []
    for k in range(n):
        there = [walker[k], still] if not 40 <= k < 43 else [walker[k]]
        frames.append(openpose(*[there[i] for i in rng.permutation(len(there))]))
    recordings = read(write(tmp_path / "a.json", frames))
    assert [r.source for r in recordings] == ["a.json, person 1", "a.json, person 2"]
    moving, standing = sorted(recordings, key=lambda r: float(r.positions[0, 0, 0]))
    np.testing.assert_allclose(moving.positions, walker, atol=1e-3)
    assert standing.confidence is not None
    present = (standing.confidence > 0).all(1)
    assert np.flatnonzero(~present).tolist() == [40, 41, 42]
    np.testing.assert_allclose(standing.positions[present], np.broadcast_to(still, (n - 3, 17, 2)), atol=1e-3)


def test_numbers_of_people_are_believed(tmp_path: Path) -> None:
    """Two who exchange their places between frames, but keep their numbers."""
    one, two = pictured(A[:1], COCO, (300, 900))[0], pictured(A[:1], COCO, (1500, 900))[0]
    entries = []
    for k in range(10):
        places = (one, two) if k < 5 else (two, one)
        entries += [{"image_id": k, "track_id": i, "keypoints": triples(places[i])} for i in (0, 1)]
    recordings = read(write(tmp_path / "a.json", entries))
    assert len(recordings) == 2
    np.testing.assert_allclose(recordings[0].positions, [one] * 5 + [two] * 5, atol=1e-3)
    without = read(write(tmp_path / "b.json", [{**entry, "track_id": None} for entry in entries]))
    np.testing.assert_allclose(without[0].positions, [one] * 10, atol=1e-3)


def test_who_is_away_for_long_is_somebody_else(tmp_path: Path) -> None:
    flat = pictured(A, COCO)
    frames = [openpose(*([] if 20 <= k < 36 else [body])) for k, body in enumerate(flat)]
    recordings = read(write(tmp_path / "a.json", frames))
    assert [len(r.positions) for r in recordings] == [20, len(A) - 36]


def test_nobody_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "a.json", [openpose()] * 30)
    write(tmp_path / "b.json", [openpose(body) for body in pictured(A, COCO)])
    clips = folder(shipped("coco17"), str(tmp_path), fps=20)
    assert clips.sources == ("b.json",) and "1 without a tracked frame: a.json" in clips.notes[0]
    assert f"2 recordings, {30 + len(A)} frames: kept 1 with {len(A)} frames" in clips.notes[0]


def test_the_configuration_builds(tmp_path: Path) -> None:
    write(tmp_path / "a.json", [openpose(body, confidence=0.2 if k == 9 else 0.9) for k, body in enumerate(pictured(A, COCO))])
    cfg = compose("config", ["data=keypoints2d", f"data.root={tmp_path}", "skeleton=coco17", "data.fps=20"])
    clips = construct(OmegaConf.to_container(cfg.data, resolve=True), "data")
    assert "interpolated 17 lost" in clips.notes[0] and clips.skeleton.up == "-y"


SOUND = [triples(body) for body in pictured(A[:3], COCO)]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('{"people": [', r"no JSON \(line 1, column 13\)"),
        ("[" * 100_000, "no JSON"),
        ("9" * 5000, "no JSON|no list"),
        ("{}", "holds no list of frames"),
        ("[]", "holds no list of frames"),
        ("3", "holds no list of frames"),
        ('{"frames": {"0": 1}}', "holds no list of frames"),
        (json.dumps([{"people": 3}]), "frame 0: expected keypoints"),
        (json.dumps([{"people": [{}]}]), "frame 0: expected keypoints"),
        (json.dumps([{"people": [{"pose_keypoints_2d": [1, 2]}]}]), "frame 0: expected keypoints"),
        (json.dumps([{"people": [{"pose_keypoints_2d": ["a", 2, 3]}]}]), "frame 0: expected keypoints"),
        (json.dumps([[[1, 2]], [[1, 2], [3]]]), "frame 1: expected keypoints"),
        (json.dumps([[[1, 2]], [[1, 2], [3, 4]]]), r"bodies have \[1, 2\] joints"),
        (json.dumps({"width": 9, "height": 9, "frames": [{"landmarks": [{"x": 1}]}]}), "frame 0: a landmark needs x and y"),
        (json.dumps({"width": 0, "height": 9, "frames": [{"landmarks": []}]}), "width and height"),
        (json.dumps([{"image_id": "a", "keypoints": SOUND[0]}]), "image_id 'a' has no number"),
        (json.dumps([{"image_id": k * k * 1000, "keypoints": SOUND[0]} for k in (1, 2, 30)]), "single pictures and no motion"),
        (json.dumps([{"image_id": 1, "keypoints": SOUND[0]}, [[1, 2]]]), "entry 1 has no image_id"),
        (json.dumps({"fps": "25", "keypoints": [[[1, 2]]]}), "fps is '25'"),
        (json.dumps({"joint_names": "a", "keypoints": [[[1, 2]]]}), "joint_names must be a list"),
        (json.dumps([{"people": [{"pose_keypoints_2d": SOUND[0]}] * 51}]), "frame 0: 51 people, at most 50"),
    ],
)
def test_damage_is_located(tmp_path: Path, content: str, named: str) -> None:
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(DataError, match=named) as e:
        read(tmp_path / "bad.json")
    assert str(e.value).startswith(str(tmp_path / "bad.json"))


def test_what_is_no_number_is_named_with_its_frame_and_joint(tmp_path: Path) -> None:
    content = json.dumps({"keypoints": np.round(pictured(A, COCO), 3).tolist()})
    (tmp_path / "a.json").write_text(content.replace("[[[", "[[[NaN, 1], [", 1).replace("], [", "], [", 1))
    with pytest.raises(DataError):
        folder(shipped("coco17"), str(tmp_path), fps=20)
    bad = pictured(A, COCO)
    bad[4, 2, 0] = np.inf
    (tmp_path / "a.json").write_text(json.dumps({"keypoints": bad.tolist()}))
    with pytest.raises(DataError, match=r"a\.json: frame 4, joint right_eye"):
        folder(shipped("coco17"), str(tmp_path), fps=20)


def test_files_of_frames_hold_one_each(tmp_path: Path) -> None:
    write(tmp_path / "a_0_keypoints.json", openpose())
    write(tmp_path / "a_1_keypoints.json", [openpose(), openpose()])
    with pytest.raises(DataError, match=r"a_1_keypoints\.json: expected one frame"):
        folder(shipped("coco17"), str(tmp_path), fps=20)
