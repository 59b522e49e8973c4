"""Folders as people have them, from a first look to clips in a file: inspect, train, sample and export."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

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


def swaying(skeleton: Skeleton, size: float, coords: int, seed: int, frames: int = 40) -> np.ndarray:
    """``(frames, joints, coords)``: bones of one length in a tree that sways slowly, around a place of its own."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 4, frames)
    shape = np.random.default_rng(1)  # one body for all
    positions = np.zeros((frames, len(skeleton.names), coords))
    done = {skeleton.root}
    positions[:, skeleton.root] = 3 * size + 0.1 * size * np.sin(time + rng.uniform(0, 6))[:, None]
    while len(done) < len(skeleton.names):
        for child, parent in skeleton.bones:
            if parent in done and child not in done:
                angle = shape.uniform(0, 6) + 0.3 * np.sin(time * rng.uniform(0.5, 1.5) + rng.uniform(0, 6))
                way = np.stack([np.cos(angle), np.sin(angle), 0.3 * np.sin(2 * angle)], axis=1)[:, :coords]
                positions[:, child] = positions[:, parent] + size * shape.uniform(0.2, 0.4) * way
                done.add(child)
    return positions


def table(path: Path, rows: list[list[object]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def animals(root: Path) -> list[str]:
    """Tables of DeepLabCut, in pixels."""
    skeleton = shipped("ap10k17")
    for k in range(6):
        x = swaying(skeleton, 200, 2, k)
        head = [[name, *values] for name, values in (
            ("scorer", ["net"] * 51), ("bodyparts", [n for n in skeleton.names for _ in range(3)]),
            ("coords", ["x", "y", "likelihood"] * 17),
        )]  # fmt: skip
        table(root / f"dog{k}.csv", [*head, *([i, *np.insert(frame, 2, 0.9, axis=1).ravel()] for i, frame in enumerate(x))])
    return ["data=folder", "skeleton=ap10k17", "data.fps=25"]


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
        x = np.concatenate([swaying(skeleton, 150, 2, k), np.ones((40, 17, 1))], axis=2)
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
    if write is animals or write is videos:
        given.append("data.on_outlier=keep")  # these random trees are no bodies
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
