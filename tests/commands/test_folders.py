"""Folders as people have them, from a first look to clips in a file: inspect, train, sample and export."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import inspect_data as inspect_script
import sample as sample_script
import train as train_script
from ddpm.clips import Clips
from ddpm.skeleton import Skeleton
from tests.configs import compose
from tests.skeletons import people, shipped

SMALL = (
    "frames=16 T=8 trainer=cpu trainer.max_steps=5 loader.batch_size=4 loader.steps_per_epoch=5 loader.val_fraction=0.3 "
    "model.model_channels=8 model.num_res_blocks=1 cache=null logger=none ~callbacks.motion_metrics ~callbacks.skeleton_gif "
    "~callbacks.loss_plot ~callbacks.progress_bar ~callbacks.learning_rate"
).split()


DOG = """_target_: ddpm.skeleton.Skeleton
joints: {hip: null, chest: hip, neck: chest, nose: neck, tail: hip, tip: tail, left_elbow: chest, left_front_paw: left_elbow,
  right_elbow: chest, right_front_paw: right_elbow, left_back_paw: hip, right_back_paw: hip}
left_right: [[left_elbow, right_elbow], [left_front_paw, right_front_paw], [left_back_paw, right_back_paw]]
feet: [left_front_paw, right_front_paw, left_back_paw, right_back_paw]
up: -y
coords: 2
units: px
"""
"""An animal of one's own, of 12 joints."""
DOG_RESTS = (  # pixels, y downwards, in its order
    *((0, 0), (60, -4), (85, -35), (110, -30), (-25, -10), (-45, 5), (62, 30), (65, 60), (56, 30), (55, 60), (5, 58), (-5, 58)),
)
PERSON_RESTS = (  # of coco17
    *((0, 0), (6, -6), (-6, -6), (14, -2), (-14, -2), (40, 40), (-40, 40), (52, 100), (-52, 100), (56, 155), (-56, 155)),
    *((25, 160), (-25, 160), (28, 250), (-28, 250), (30, 335), (-30, 335)),
)


def swaying(
    skeleton: Skeleton, size: float, coords: int, seed: int, frames: int = 40, rests: Sequence[tuple[float, float]] | None = None
) -> np.ndarray:
    """``(frames, joints, coords)``: bones of one length that sway slowly about where they rest, or in any tree, around a place of
    its own."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 4, frames)
    shape = np.random.default_rng(1)  # one body for all
    positions = np.zeros((frames, len(skeleton.names), coords))
    done = {skeleton.root}
    positions[:, skeleton.root] = 3 * size + 0.1 * size * np.sin(time + rng.uniform(0, 6))[:, None]
    while len(done) < len(skeleton.names):
        for child, parent in skeleton.bones:
            if parent in done and child not in done:
                angle, length = shape.uniform(0, 6), size * shape.uniform(0.2, 0.4)
                if rests is not None:
                    x, y = np.subtract(rests[child], rests[parent])
                    angle, length = np.arctan2(y, x), np.hypot(x, y)
                angle = angle + (0.3 if rests is None else 0.15) * np.sin(time * rng.uniform(0.5, 1.5) + rng.uniform(0, 6))
                way = np.stack([np.cos(angle), np.sin(angle), 0.3 * np.sin(2 * angle)], axis=1)[:, :coords]
                positions[:, child] = positions[:, parent] + length * way
                done.add(child)
    return positions


def table(path: Path, rows: list[list[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def animals(root: Path) -> list[str]:
    """Tables of DeepLabCut, in pixels, and the skeleton in a file of its own."""
    place = root.parent / "own" / "skeleton" / "dog12.yaml"
    place.parent.mkdir(parents=True)
    place.write_text(DOG)
    config = yaml.safe_load(DOG)
    del config["_target_"]
    skeleton = Skeleton(**config)
    for k in range(6):
        x = swaying(skeleton, 200, 2, k, rests=DOG_RESTS)
        n = len(skeleton.names)
        head = [[name, *values] for name, values in (
            ("scorer", ["net"] * 3 * n), ("bodyparts", [n for n in skeleton.names for _ in range(3)]),
            ("coords", ["x", "y", "likelihood"] * n),
        )]  # fmt: skip
        table(root / f"dog{k}.csv", [*head, *([i, *np.insert(frame, 2, 0.9, axis=1).ravel()] for i, frame in enumerate(x))])
    return ["data=folder", "skeleton=dog12", "data.fps=25", f"hydra.searchpath=[{place.parents[1]}]"]


def hands(root: Path) -> list[str]:
    """Tables of a hand in metres, a column a coordinate."""
    skeleton = shipped("hand21")
    for k in range(6):
        x = swaying(skeleton, 0.1, 3, k)
        names = [f"{name}_{axis}" for name in skeleton.names for axis in "xyz"]
        table(root / f"hand{k}.csv", [["time", *names], *([i / 30, *frame.ravel()] for i, frame in enumerate(x))])
    return ["data=folder", "skeleton=hand21"]


def videos(root: Path) -> list[str]:
    """Keypoints of people in pictures, an array a video, with a confidence that is 0 where nothing was seen."""
    skeleton = shipped("coco17")
    for k in range(6):
        x = np.concatenate([swaying(skeleton, 150, 2, k, rests=PERSON_RESTS), np.ones((40, 17, 1))], axis=2)
        x[10:12, 5] = 0
        np.save(root / f"video{k}.npy", x)
    return ["data=folder", "skeleton=coco17", "data.fps=30", "data.last_is_confidence=true"]


def humanml3d(root: Path) -> list[str]:
    """Arrays of 22 joints in metres, with a mirrored copy of each."""
    skeleton = shipped("smpl22")
    for k in range(6):
        x = swaying(skeleton, 0.8, 3, k)
        np.save(root / f"{k:06d}.npy", x)
        np.save(root / f"M{k:06d}.npy", x * [-1, 1, 1])
    return ["data=folder", "skeleton=smpl22", "data.fps=20"]


def captures(root: Path) -> list[str]:
    """One BVH file of 80 frames, which is split in time."""
    clip = next(clip for clip in people(20, 20.0) if len(clip) >= 80)
    Clips.whole(torch.from_numpy(clip[None, :80]), 20.0, shipped("kinect20")).save(root / "take.bvh")
    return ["data=bvh"]


@pytest.mark.slow
@pytest.mark.parametrize("write", [animals, hands, videos, humanml3d, captures])
def test_from_a_first_look_to_a_file(write: Callable[[Path], list[str]], tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    given = [*write(root), f"data.root={root}"]
    looked = inspect_script.inspect_data(compose("inspect", [*given, f"out={tmp_path / 'look'}", "frames=16", "gif_clips=2"]))
    text = (looked / "summary.txt").read_text()
    assert f"{ {humanml3d: 12, captures: 1}.get(write, 6) } recordings" in text
    train_script.train(compose("config", [*given, *SMALL, f"out={tmp_path / 'run'}"]))
    flat = write is animals or write is videos
    path = sample_script.sample(
        compose(
            "sample",
            [f"ckpt={tmp_path / 'run'}", f"out={tmp_path / 'out'}", "n=2", "gif_clips=1", *([] if flat else ["export=bvh"])],
        )
    )
    with np.load(path) as content:
        assert content["clips"].shape[:2] == (2, 16) and np.isfinite(content["clips"]).all()
    assert (tmp_path / "out" / "clips.gif").is_file()
    assert len(list((tmp_path / "out").glob("*.bvh"))) == (0 if flat else 2)
