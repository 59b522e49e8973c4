"""The shipped skeletons, and people who move in them."""

from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from datamodules.sets.synthetic import synthetic
from ddpm.skeleton import Skeleton

CONF = Path(__file__).parents[1] / "conf" / "skeleton"
SHIPPED = "ap10k17 coco17 h36m17 hand21 kinect20 ntu25 openpose25 smpl22 smpl24".split()
"""A user may have put others beside them."""


def shipped(name: str, **changes: object) -> Skeleton:
    """The skeleton of ``conf/skeleton/NAME.yaml``, with some fields changed."""
    config = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    return Skeleton(**{key: value for key, value in config.items() if key != "_target_"} | changes)


def people(n: int = 3, fps: float = 20.0) -> list[np.ndarray]:
    """``n`` synthetic motions of the 20 Kinect joints, ``(frames, 20, 3)`` metres."""
    clips = synthetic(shipped("kinect20"), n=n, fps=fps)
    return [clips.recording(i).numpy() for i in range(n)]
