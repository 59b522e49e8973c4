"""The page of clips: what it holds, and, where node is there, what its script reads, draws and does when keys are pressed."""

import json
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpm.clips import Clips
from ddpm.skeleton import Skeleton
from ddpm.viz.body import SIDE_COLOURS
from ddpm.viz.camera import canonical
from ddpm.viz.viewer import embedded, viewer
from tests.conftest import walk
from tests.skeletons import people, shipped

DRIVE = Path(__file__).with_name("drive.js")
node = pytest.mark.skipif(shutil.which("node") is None, reason="no node")
BLUE, VERMILION = (f"rgb({','.join(map(str, SIDE_COLOURS[side]))})" for side in ("left", "right"))


def driven(page: str, path: Path, *steps: list[Any], size: str = "800,600") -> dict[str, Any]:
    """What ``drive.js`` prints of a page."""
    path.write_text(page)
    done = subprocess.run(["node", DRIVE, path, json.dumps(steps), size], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def persons(n: int = 4, frames: int = 24) -> Clips:
    """People who move, all of one length."""
    return Clips.whole(torch.from_numpy(np.stack([clip[:frames] for clip in people(n)])), 20.0, shipped("kinect20"))


class Scripts(HTMLParser):
    """The texts of the scripts of a page, and its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts, self.tags = list[str](), list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.scripts += [""] if tag == "script" else []

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["script"]:
            self.scripts[-1] += data


def test_no_text_of_the_data_becomes_a_part_of_the_page(motions: Clips, tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    named = Skeleton({(evil if joint == "head" else joint): parent for joint, parent in motions.skeleton.joints.items()})
    clips = replace(motions, skeleton=named, labels=(f"{evil}<!--__DATA__\u2028",) * 40).take(slice(2))
    (path,) = clips.save(tmp_path / "a<script>.html")
    page = path.read_text()
    read, plain = Scripts(page), Scripts(viewer(motions.take(slice(2))))
    assert read.tags == plain.tags and read.scripts[1] == plain.scripts[1] and len(read.scripts) == 2
    data = json.loads(read.scripts[0])
    assert data["clips"][0]["title"] == f"{evil}<!--__DATA__\\u2028" and evil in data["joints"]
    assert "http" not in page.replace(read.scripts[0], "") and "src=" not in page
    assert Scripts(embedded(page)).tags == ["iframe"]


def test_sixteen_clips_are_a_small_page(skeleton: Skeleton) -> None:
    assert len(viewer(Clips.whole(walk(16, 64, 20, 3), 20.0, skeleton)).encode()) < 250_000


def test_what_does_not_fit_is_refused(motions: Clips, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="each of the 40 clips, got 1"):
        viewer(motions, ["a"])
    for other in (motions.take(slice(3)), replace(motions, fps=10.0)):
        with pytest.raises(ValueError, match="real clips for 40 clips"):
            viewer(motions, real=other)
    monkeypatch.setattr("ddpm.viz.viewer.MOST", 28_799)
    with pytest.raises(ValueError, match=r"28800 coordinates, at most 28799 .* clips\.take"):
        viewer(motions)


@node
@pytest.mark.parametrize(("coords", "up"), [(3, "y"), (3, "-y"), (3, "z"), (3, "-x"), (2, "y"), (2, "-y")])
def test_positions_arrive_to_the_quantisation_step(skeleton: Skeleton, tmp_path: Path, coords: int, up: str) -> None:
    """Each clip's own, so that a far one makes no other coarser; y is up; what is not finite stays so."""
    turned = Skeleton(skeleton.joints, skeleton.left_right, skeleton.feet, up=up, coords=coords)
    x = walk(3, 12, 20, coords)
    x[1] = 1000 * x[1] + 5000
    x[2, 4, 7] = torch.nan
    clips = Clips(x, torch.tensor([12, 12, 7]), 20.0, turned)
    got = driven(viewer(clips), tmp_path / "a.html")
    for numbers, clip, length in zip(got["clips"], canonical(x.numpy(), turned)[..., :coords], (12, 12, 7), strict=True):
        points = np.array(numbers, dtype=float).reshape(length, 20, 3)[..., :coords]
        extent = np.nanmax(np.ptp(clip[~np.isnan(clip).any(-1)], axis=0))
        assert (np.isnan(points) == np.isnan(clip[:length])).all()
        assert np.nanmax(np.abs(points - clip[:length])) <= extent / 65534 * 0.51 + 1e-7 * np.nanmax(np.abs(clip))
    assert any("not finite" in text for text in got["seen"][0]["texts"])


@node
def test_between_two_frames_a_pose_lies_between_them(motions: Clips, tmp_path: Path) -> None:
    """A frame lasts until the next one would begin; after the last one that pose stays, and all begins again."""
    made = "const data = JSON.parse(document.getElementById('data').textContent), clip = decode(data)[0]; clip.frames"
    asked = ["[...pose(clip, 2)]", "[...pose(clip, 2.25)]", "[...pose(clip, 4.75)]", "[ended(clip, 4.99), ended(clip, 5)]"]
    got = driven(viewer(motions), tmp_path / "a.html", *(["eval", text] for text in (made, *asked)), [0.65])
    points = canonical(motions.positions.numpy(), motions.skeleton)[0].reshape(12, -1)
    assert got["values"][0] == 5 and got["values"][4] == [False, True]
    for pose, expected in zip(got["values"][1:4], (points[2], 0.75 * points[2] + 0.25 * points[3], points[4]), strict=True):
        np.testing.assert_allclose(pose, expected, atol=1e-4)
    assert got["seen"][-1]["time"] == "0.05 / 0.60 s"


@node
def test_bodies_stand_on_their_feet_facing_the_camera_within_the_canvas(tmp_path: Path) -> None:
    clips = persons()
    for size in ("800,600", "400,640"):
        got = driven(viewer(clips), tmp_path / "a.html", [0.4], size=size)
        width, height = map(int, size.split(","))
        for seen in got["seen"]:
            lines = np.array([line[:4] for line in seen["lines"]])
            assert len(lines) > 4 * 3 * 19 and lines.min() >= 0, "shadow, halo and limb of each bone"
            assert lines[:, ::2].max() <= width and lines[:, 1::2].max() <= height
            (left, left_at), (right, right_at) = (
                np.mean([(i, line[0]) for i, line in enumerate(seen["lines"]) if line[4] == colour], axis=0)
                for colour in (BLUE, VERMILION)
            )
            assert left_at > right_at, "the person's left is to the right of who looks at it"
            assert right > left, "the camera stands to the body's right, which is drawn last"
            heads = [disc for disc in seen["discs"] if disc[3] == "rgb(64,68,75)"]
            feet = max(line[1] for line in seen["lines"] if line[4] == BLUE)
            assert len(heads) == 4 and max(disc[1] for disc in heads) < feet


@node
def test_keys_buttons_and_the_pointer_do_what_they_say(tmp_path: Path) -> None:
    clips = replace(persons(), lengths=torch.tensor([24, 24, 24, 12]), seeds=torch.arange(4), labels=("walk",) * 4)
    point = {"pointerId": 1, "offsetX": 100, "offsetY": 100}
    steps: dict[str, list[Any]] = {
        "played": [0.5],
        "paused": ["key", " "],
        "still": [0.5],
        "back": ["key", "ArrowLeft"],
        "scrubbed": ["scrub", "input", {"set": {"value": "18"}}],
        "slider": ["key", "ArrowRight", {"target": {"tagName": "INPUT"}}],
        "menu": ["key", "ArrowRight", {"target": {"tagName": "SELECT"}}],
        "shift": ["key", "ArrowLeft", {"shiftKey": True}],
        "browser's": ["key", "ArrowRight", {"ctrlKey": True}],
        "scrubbed again": ["scrub", "input", {"set": {"value": "18"}}],
        "overlay": ["button", "o"],
        "apart": ["button", "o"],
        "tracks": ["key", "t"],
        "no trails": ["key", "T"],
        "names": ["key", "n"],
        "unnamed": ["key", "n"],
        "stands": ["key", "f"],
        "help": ["key", "?"],
        "no help": ["key", "Escape"],
        "down": ["canvas", "pointerdown", point],
        "up": ["canvas", "pointerup", point],
        "next": ["key", "PageDown"],
        "all": ["key", "Escape"],
        "press": ["canvas", "pointerdown", point],
        "turned": ["canvas", "pointermove", {**point, "offsetX": 160}],
        "release": ["canvas", "pointerup", point],
        "zoomed": ["canvas", "wheel", {"deltaY": -300}],
        "first": ["canvas", "pointerdown", point],
        "second": ["canvas", "pointerdown", {**point, "pointerId": 2, "offsetX": 200}],
        "pinched": ["canvas", "pointermove", {**point, "pointerId": 2, "offsetX": 300}],
        "reset": ["key", "r"],
        "unknown": ["key", "x"],
    }
    got = driven(viewer(clips), tmp_path / "a.html", *steps.values())["seen"]
    first, seen = got[0], dict(zip(steps, got[1:], strict=True))
    assert (
        first["playing"]
        and first["time"] == "0.00 / 1.20 s"
        and first["texts"] == ["seed 0 walk, 1.20 s", "seed 1 walk, 1.20 s", "seed 2 walk, 1.20 s", "seed 3 walk, 0.60 s"]
    )
    assert seen["played"]["time"] == "0.50 / 1.20 s" and seen["played"]["lines"] != first["lines"]
    assert not seen["paused"]["playing"] and seen["still"]["time"] == "0.50 / 1.20 s" and seen["back"]["time"] == "0.45 / 1.20 s"
    assert seen["scrubbed"]["time"] == "0.90 / 1.20 s" and seen["scrubbed"]["texts"][3] == "seed 3 walk, 0.60 s, ended"
    expected = {"slider": "0.95", "menu": "0.95", "shift": "0.45", "browser's": "0.45"}
    assert {name: seen[name]["time"][:4] for name in expected} == expected
    faded = {line[4] for line in seen["scrubbed"]["lines"]} - {line[4] for line in first["lines"]}
    assert len(faded) >= 3, "paler left, right and middle"
    assert seen["overlay"]["texts"] == ["4 clips, 1 ended"] and "o" in seen["overlay"]["pressed"]
    assert seen["apart"]["lines"] == seen["scrubbed"]["lines"]
    assert len(seen["tracks"]["lines"]) > len(seen["apart"]["lines"]) > len(seen["no trails"]["lines"])
    assert "left_elbow" in seen["names"]["texts"] and "left_elbow" not in seen["unnamed"]["texts"]
    assert "f" not in seen["stands"]["pressed"] and seen["help"]["help"] and not seen["no help"]["help"]
    assert (
        seen["up"]["texts"] == ["seed 0 walk, 1.20 s"]
        and seen["up"]["page"] == "1 / 4"
        and seen["next"]["texts"] == ["seed 1 walk, 1.20 s"]
    )
    assert len(seen["all"]["texts"]) == 4 and seen["turned"]["lines"] != seen["all"]["lines"]
    spread = {name: np.ptp([line[0] for line in seen[name]["lines"]]) for name in ("turned", "zoomed", "pinched")}
    assert spread["pinched"] > spread["zoomed"] > spread["turned"]
    assert len(seen["release"]["texts"]) == 4, "what was dragged was not clicked"
    assert seen["reset"]["lines"] == seen["stands"]["lines"] == seen["unknown"]["lines"]


@node
def test_real_clips_stand_beside_theirs_or_under_them(tmp_path: Path) -> None:
    clips = replace(persons(), seeds=torch.arange(4))
    got = driven(viewer(clips, real=replace(clips, labels=("walk",) * 4)), tmp_path / "a.html", ["key", "o"])["seen"]
    assert got[0]["texts"] == [text for i in range(4) for text in ("real walk, 1.20 s", f"seed {i}, 1.20 s")]
    assert got[1]["texts"] == [f"real walk over seed {i}" for i in range(4)]


@node
def test_what_was_given_is_grey_and_the_nearest_whole_frames_stand_behind(tmp_path: Path) -> None:
    """Whole frames at both ends, and a leg in between."""
    clips = persons(2)
    given = torch.zeros(clips.positions.shape, dtype=torch.bool)
    given[1, :4] = given[1, -4:] = True
    leg = [clips.skeleton.index(f"left_{joint}") for joint in ("hip", "knee", "ankle", "foot")]
    given[1, :, leg] = True
    page = viewer(replace(clips, given=given))
    seen = driven(page, tmp_path / "a.html", *(["scrub", "input", {"set": {"value": str(frame)}}] for frame in (2, 12)))["seen"]
    grey, ghost, green = "rgb(128,130,134)", "rgb(214,215,217)", "rgb(0,158,115)"
    whole, between = ([line[4] for line in view["lines"]] for view in seen[1:])
    assert whole.count(grey) >= 19 and ghost not in whole and green not in whole
    assert between.count(grey) == 3 + 6 and between.count(ghost) == 2 * 19 and green in between, (
        "three bones, and the path at both ends"
    )


@node
@pytest.mark.parametrize("name", ["hand21", "ap10k17", "coco17", None])
def test_any_skeleton_of_any_size_can_be_shown(tmp_path: Path, name: str | None) -> None:
    """Beside it stand still ones, and one of a model that has diverged; the squares are those of the usual size."""
    skeleton = shipped(name) if name else Skeleton({"point": None})
    for size, square in ((0.06, "0.1 m"), (0.6, "1 m")):
        x = walk(1, 6, 1, skeleton.coords) / 100 + size * walk(1, 1, len(skeleton.names), skeleton.coords) / 2
        still = x[:, :1].expand_as(x)
        clips = Clips.whole(
            torch.cat([x, still, 0 * x, x, x, 1e8 * walk(1, 6, len(skeleton.names), skeleton.coords)]), 30.0, skeleton
        )
        steps = ([0.1], ["key", "o"], ["key", "f"], ["key", "t"], ["key", "n"], ["key", "r"])
        seen = driven(viewer(clips), tmp_path / "a.html", *steps)["seen"]
        assert all(np.isfinite([line[:4] for line in view["lines"]]).all() and len(view["lines"]) < 3000 for view in seen)
        assert "clip 5, 0.20 s, drawn smaller" in seen[0]["texts"]
        assert name is None or f"squares of {square};" in seen[0]["note"]
