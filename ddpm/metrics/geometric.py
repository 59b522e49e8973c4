"""Geometric features: the share of frames in which each of 32 geometric relations holds."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm.clips import Clips, frame_mean
from ddpm.skeleton import Skeleton

GEOMETRIC_JOINTS = (
    "shoulder_center",
    *(f"{side}_{j}" for side in ("left", "right") for j in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")),
)


def has_geometric(skeleton: Skeleton) -> bool:
    """Whether `geometric` can be computed: a 3-D skeleton with its joints."""
    return skeleton.coords == 3 and set(GEOMETRIC_JOINTS) <= set(skeleton.names)


def geometric(clips: Clips) -> Tensor:
    """``(n, 32)`` share of a clip's frames with each relation: "the left hand moves up", "the right knee is bent", ...

    Relations and thresholds are those of Mueller et al. 2005 as selected by fairmotion and AIST++, with differences, so that
    values do not compare with published ones: humerus, shoulder and hip widths are the clip's own (theirs are one person's),
    speeds use the true frame rate (theirs 120), left and right are mirror images (theirs has the left hand moving forward and
    the right one backward), and hands, not the chest, move up (theirs passes the wrist to a function that ignores it). The first
    frame of a clip has no speed and is left out.

    Raises:
        ValueError: a skeleton without the joints, or 2-D.
    """
    skeleton = clips.skeleton
    if not has_geometric(skeleton):
        raise ValueError(f"metrics: geometric features need a 3-D skeleton with the joints {list(GEOMETRIC_JOINTS)}")
    velocity, mask = clips.derivative(1)
    at = dict(zip(skeleton.names, clips.positions[:, 1:].unbind(2), strict=True))
    speed = dict(zip(skeleton.names, velocity.unbind(2), strict=True))
    height = dict(zip(skeleton.names, (clips.heights - clips.heights.amin(2, keepdim=True))[:, 1:].unbind(2), strict=True))
    sides = ("left", "right")

    def length(*bones: tuple[str, str]) -> Tensor:
        return torch.stack([frame_mean((at[a] - at[b]).norm(dim=-1), mask) for a, b in bones]).mean(0)[:, None]

    def along(vector: Tensor, direction: Tensor) -> Tensor:
        return (vector * F.normalize(direction, dim=-1)).sum(-1)

    def angle(a: Tensor, b: Tensor) -> Tensor:
        return torch.rad2deg(torch.acos(along(F.normalize(a, dim=-1), b).clamp(-1, 1)))

    humerus = length(*((f"{side}_shoulder", f"{side}_elbow") for side in sides))
    shoulders, hips = length(("left_shoulder", "right_shoulder")), length(("left_hip", "right_hip"))
    # The middle of the hips: Kinect's hip_center and spine lie on the back, 12 cm behind it.
    root, neck = (at["left_hip"] + at["right_hip"]) / 2, at["shoulder_center"]
    walk = (speed["left_hip"] + speed["right_hip"]) / 2
    trunk = neck - root
    forward = torch.linalg.cross(at["left_hip"] - at["right_hip"], trunk)
    up = torch.zeros_like(root)
    up[..., skeleton.up_axis] = skeleton.up_sign
    relations = []
    for side, other in (sides, sides[::-1]):
        shoulder, elbow, wrist, hip, knee, ankle = (
            at[f"{side}_{j}"] for j in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        )
        hand = speed[f"{side}_wrist"]
        relations += [
            along(hand - speed["shoulder_center"], forward) > 1.8 * humerus,
            along(hand - walk, trunk) > 1.8 * humerus,
            along(hand - walk, root - wrist) > 1.4 * humerus,
            hand.norm(dim=-1) > 2.5 * humerus,
            along(wrist - neck, trunk) > 0.2 * humerus,
            height[f"{side}_wrist"] < 1.2 * humerus,
            angle(shoulder - elbow, wrist - elbow) < 110,
            angle(-trunk, elbow - shoulder) > 25,
            angle(hip - knee, ankle - knee) < 110,
            angle(-trunk, knee - hip) > 50,
            along(ankle - at[f"{other}_ankle"], forward) > 0.38 * humerus,
            height[f"{side}_ankle"] > 1.2 * humerus,
            speed[f"{side}_ankle"].norm(dim=-1) > 2.5 * humerus,
        ]
    wrists, ankles = at["left_wrist"] - at["right_wrist"], at["left_ankle"] - at["right_ankle"]
    lying = angle(trunk, up)
    relations += [
        along(wrists, at["left_shoulder"] - at["right_shoulder"]) > 2.5 * shoulders,
        along(speed["left_wrist"] - speed["right_wrist"], -wrists) > 1.4 * humerus,
        along(ankles, at["left_hip"] - at["right_hip"]) > 2.1 * hips,
        along((at["left_ankle"] + at["right_ankle"] + 2 * neck) / 4 - root, forward) > 0.5 * humerus,
        (lying > 70) & (lying < 110),
        walk.norm(dim=-1) > 2.3 * humerus,
    ]
    return frame_mean(torch.stack(relations, dim=-1).double(), mask)
