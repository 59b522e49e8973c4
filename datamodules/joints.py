"""Joints of files -> joints of the skeleton: by name, by another name of the same joint, or as the mean of several."""

import contextlib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from datamodules.clip_set import Recording
from ddpm.errors import DataError, quoted
from ddpm.skeleton import Skeleton

PRESETS = Path(__file__).parents[1] / "conf" / "skeleton"

# Joint -> what stands for it where a file has no joint of this name, best first; several names joined by + are averaged.
# Only what lies within a few centimetres of it. Names are compared as they are written: a BVH file's LeftFoot is an ankle, the
# left_foot of Kinect and SMPL the ball of the foot; its LeftShoulder is a collar bone.
SUBSTITUTES: dict[str, tuple[str, ...]] = {
    "hip_center": ("spine_base", "pelvis", "mid_hip", "Hips", "hips", "left_hip+right_hip"),
    "spine_base": ("hip_center", "pelvis", "mid_hip", "Hips", "hips", "left_hip+right_hip"),
    "pelvis": ("hip_center", "spine_base", "mid_hip", "Hips", "hips", "left_hip+right_hip"),
    "mid_hip": ("hip_center", "spine_base", "pelvis", "Hips", "hips", "left_hip+right_hip"),
    "spine": ("spine_mid", "spine1", "spine2", "Spine"),
    "spine_mid": ("spine", "spine2", "spine1", "Spine1"),
    "shoulder_center": ("spine_shoulder", "thorax", "neck", "Neck", "left_shoulder+right_shoulder"),
    "spine_shoulder": ("shoulder_center", "thorax", "neck", "Neck", "left_shoulder+right_shoulder"),
    "thorax": ("spine_shoulder", "shoulder_center", "neck", "Neck", "left_shoulder+right_shoulder"),
    "neck": ("spine_shoulder", "shoulder_center", "thorax", "Neck", "left_shoulder+right_shoulder"),
    "head": ("Head", "left_ear+right_ear"),
    "left_foot": ("left_big_toe", "left_foot_index", "LeftToeBase", "Toes_L"),
    "left_big_toe": ("left_foot", "left_foot_index", "LeftToeBase", "Toes_L"),
    "left_ankle": ("LeftFoot", "Foot_L"),
    "left_knee": ("LeftLeg", "LowerLeg_L"),
    "left_hip": ("LeftUpLeg", "UpperLeg_L"),
    "left_collar": ("LeftShoulder", "Shoulder_L"),
    "left_shoulder": ("LeftArm", "UpperArm_L"),
    "left_elbow": ("LeftForeArm", "LowerArm_L"),
    "left_wrist": ("LeftHand", "Hand_L"),
    "left_hand": ("left_index",),
}


def _mirrored(text: str) -> str:
    return text.replace("left_", "right_").replace("Left", "Right").replace("_L", "_R")


SUBSTITUTES |= {_mirrored(joint): tuple(map(_mirrored, ways)) for joint, ways in SUBSTITUTES.items() if joint.startswith("left_")}


def presets() -> dict[str, Skeleton]:
    """The skeletons of ``conf/skeleton`` by name, but for those that are made of others or found in files."""
    found = {}
    for path in sorted(PRESETS.glob("*.yaml")):
        with contextlib.suppress(yaml.YAMLError, AttributeError, KeyError, OSError, TypeError, ValueError):
            # An unfinished file is left out; choosing it reports its error.
            config = yaml.safe_load(path.read_text())
            if isinstance(config, dict) and config.pop("_target_", None) == "ddpm.skeleton.Skeleton" and "defaults" not in config:
                found[path.stem] = Skeleton(**config)
    return found


def named(joints: Sequence[str] | str | None) -> tuple[str, ...] | None:
    """``data.joints``: a list of names, a preset whose names are taken, or None.

    Raises:
        DataError: no preset of this name.
    """
    if not isinstance(joints, str):
        return None if joints is None else tuple(joints)
    known = presets()
    if joints not in known:
        raise DataError(f"data.joints={joints}: no such skeleton; known are {list(known)}, or give a list of names")
    return known[joints].names


def without(skeleton: Skeleton, joints: Collection[str]) -> str:
    """How to do without some joints of a skeleton, as far as its others hang together."""
    rest = [name for name in skeleton.names if name not in joints]
    keep = ",".join(name if re.fullmatch(r"[\w.-]+", name) else quoted(name) for name in rest)
    with contextlib.suppress(ValueError):
        Skeleton(**{**skeleton.to_config(), "keep": rest})  # type: ignore[arg-type]
        return f'train on the other joints, "skeleton.keep=[{keep}]", or choose another skeleton'
    return "choose another skeleton, without these joints"


def fitting(joints: Sequence[str] | int, coords: int) -> list[str]:
    """Presets that data with these joints, or with so many unnamed ones, fit without any joint being replaced."""
    known = {name: preset.names for name, preset in presets().items() if preset.coords == coords}
    if isinstance(joints, int):  # by number 17 are people
        return [name for name, own in known.items() if len(own) == joints and name != "ap10k17"]
    same = [name for name, own in known.items() if set(joints) == set(own)]
    return same or [name for name, own in known.items() if set(joints) > set(own)]


def plan(
    recording: Recording, skeleton: Skeleton, retarget: Mapping[str, str | Sequence[str]]
) -> tuple[np.ndarray, dict[str, str], list[str]]:
    """How the skeleton's joints come from a recording's.

    ``retarget``, joint of the skeleton -> joint of the file, or several whose mean it is, goes before everything else.

    Returns:
        weights ``(joints of the skeleton, joints of the file)`` float32, rows adding up to 1; joint -> what it comes from, where
        that has another name; and the joints of the file that are not used.

    Raises:
        DataError: a joint that cannot be had, names the file does not have, or another number of joints or coordinates.
    """
    count, coords = recording.positions.shape[1:]
    names = recording.joints
    if coords != skeleton.coords:
        raise DataError(
            f"{recording.source}: {coords} coordinates per joint, the skeleton has {skeleton.coords}; "
            + (
                "if the third is a confidence, set data.last_is_confidence=true, or "
                if (coords, skeleton.coords) == (3, 2)
                else ""
            )
            + f"choose the skeleton that matches the data (skeleton=..., {_advice(names or count, coords)})"
            + (f" or set skeleton.coords={coords}" if set(skeleton.names) <= set(names or skeleton.names) else "")
        )
    if names is None and count != len(skeleton.names):
        fit = fitting(count, coords)
        raise DataError(
            f"{recording.source}: {count} joints without names, the skeleton has {len(skeleton.names)}: "
            f"{', '.join(skeleton.names)}; name the file's joints in their order (data.joints=[...]"
            f"{''.join(f', data.joints={f}' for f in fit)}), or choose the skeleton that matches the data (skeleton=..., "
            f"{_advice(count, coords)})"
        )
    if names is not None and (len(names) != count or len(set(names)) != count):
        twice = sorted(name for name, number in Counter(names).items() if number > 1)
        raise DataError(
            f"{recording.source}: {count} joints and {len(set(names))} different names for them"
            f"{f', {twice} more than once' if twice else ''}; every joint needs a name of its own (data.joints or the file)"
        )
    index = {name: i for i, name in enumerate(names or skeleton.names)}
    if unknown := sorted(set(retarget) - set(skeleton.names)):
        raise DataError(f"data.retarget: {unknown} are no joints of the skeleton, which are {', '.join(skeleton.names)}")
    weights = np.zeros((len(skeleton.names), count), np.float32)
    replaced: dict[str, str] = {}
    missing = []
    for row, name in zip(weights, skeleton.names, strict=True):
        wish = retarget.get(name)
        ways = [[name], *(way.split("+") for way in SUBSTITUTES.get(name, ()))]
        ways = ways if wish is None else [[wish] if isinstance(wish, str) else list(wish)]
        if (way := next((way for way in ways if way and all(joint in index for joint in way)), None)) is None:
            missing.append(name)
            continue
        row[[index[joint] for joint in way]] = 1 / len(way)
        if way != [name]:
            replaced[name] = " + ".join(way)
    if missing:
        raise DataError(
            f"{recording.source}: has no joint {', '.join(missing)} of the skeleton; its joints are {', '.join(index)}; say "
            "what they come from (+data.retarget.JOINT=NAME), or choose the skeleton that matches the data (skeleton=..., "
            f"{_advice(names or count, coords)}) or leave joints out (skeleton.keep=[...])"
        )
    return weights, replaced, [name for name in index if not weights[:, index[name]].any()]


def _advice(joints: Sequence[str] | int, coords: int) -> str:
    fit = fitting(joints, coords) or [f"{name} skeleton.coords={coords}" for name in fitting(joints, 5 - coords)]
    return f"{' or '.join(fit)} {'fits' if len(fit) == 1 else 'fit'}" if fit else f"none of {', '.join(presets())} fits"
