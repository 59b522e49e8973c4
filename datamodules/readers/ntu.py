"""NTU RGB+D (Shahroudy, Liu, Ng, Wang, 2016; Liu et al., 2019): ``.skeleton`` files of the Kinect v2 camera, several bodies."""

import re
from contextlib import suppress
from pathlib import Path

import numpy as np

from datamodules.clip_set import Recording
from datamodules.readers.raw_files import read_text
from ddpm.errors import DataError

JOINTS = (
    *("spine_base", "spine_mid", "neck", "head"),
    *("left_shoulder", "left_elbow", "left_wrist", "left_hand", "right_shoulder", "right_elbow", "right_wrist", "right_hand"),
    *("left_hip", "left_knee", "left_ankle", "left_foot", "right_hip", "right_knee", "right_ankle", "right_foot"),
    *("spine_shoulder", "left_hand_tip", "left_thumb", "right_hand_tip", "right_thumb"),
)
NAME = re.compile(r"S\d{3}C\d{3}(P\d{3})R\d{3}(A\d{3})")
FPS = 30.0
BODY_VALUES = 10  # id, clipped edges, confidence and state of the left and the right hand, restricted, lean x and y, tracking
JOINT_VALUES = 12  # x y z in metres, 2 of the depth picture, 2 of the colour picture, 4 of the orientation, tracking
MAX_FRAMES, MAX_BODIES = 20_000, 100
CONFIDENCE = {0: 0.0, 1: 0.5, 2: 1.0}  # tracking state of a joint: not tracked, inferred, tracked


def read(path: Path) -> list[Recording]:
    """The bodies of a file, each from the first to the last frame in which it was tracked, in the order of their appearance.

    Positions are in the camera's frame, metres, y up, z away from the camera. Where a body is missing in between, its confidence
    is 0, as it is in a body of which no joint was ever tracked, all were inferred. A file ``SsssCcccPpppRrrrAaaa.skeleton`` gives
    the subject ``Pppp`` and the label ``Aaaa``. A file without bodies gives one recording in which nothing was seen, so that it
    is counted.

    Raises:
        DataError: not such a file, or a damaged one; names the line.
    """
    lines = read_text(path).rstrip().splitlines()
    at = 0

    def line(what: str, values: int) -> list[str]:
        nonlocal at
        words = lines[at].split() if at < len(lines) else []
        if len(words) != values:
            where = f"line {at + 1} is {lines[at][:40]!r}" if at < len(lines) else f"it ends after {len(lines)} lines"
            raise DataError(f"{path}: {where}, expected {what}; the file is truncated or damaged, replace or remove it")
        at += 1
        return words

    def count(what: str, most: int) -> int:
        word = line(what, 1)[0]
        if not word.isascii() or not word.isdigit() or len(word) > 9 or int(word) > most:
            raise DataError(f"{path}: line {at} is {word[:40]!r}, expected {what}, at most {most}; replace or remove the file")
        return int(word)

    frames = count("the number of frames", min(len(lines), MAX_FRAMES))
    bodies: dict[str, dict[int, list[list[float]]]] = {}  # body -> frame -> x, y, z, tracking state of every joint
    for frame in range(frames):
        for _ in range(count(f"the number of bodies in frame {frame}", len(lines))):
            body = line(f"the {BODY_VALUES} values of a body in frame {frame}", BODY_VALUES)[0]
            if count(f"the number of joints in frame {frame}", len(JOINTS)) != len(JOINTS):
                raise DataError(f"{path}: line {at} (frame {frame}): {lines[at - 1]} joints, expected {len(JOINTS)}")
            if frame in bodies.setdefault(body, {}):
                raise DataError(
                    f"{path}: line {at} (frame {frame}): the body {body[:40]} is there twice; replace or remove the file"
                )
            if len(bodies) > MAX_BODIES:
                raise DataError(f"{path}: line {at} (frame {frame}): more than {MAX_BODIES} bodies; replace or remove the file")
            rows = bodies[body][frame] = []
            for joint in JOINTS:
                words = line(f"the {JOINT_VALUES} values of a joint in frame {frame}", JOINT_VALUES)
                words = [*words[:3], words[-1]]
                rows.append([np.nan] * 4)
                with suppress(ValueError):
                    rows[-1] = [float(word) for word in words]
                if rows[-1][3] not in CONFIDENCE or not all(abs(value) < 1e6 for value in rows[-1]):
                    raise DataError(
                        f"{path}: line {at}, joint {joint}: x, y, z and tracking state are {' '.join(words)[:80]}, "
                        "expected metres and 0, 1 or 2; replace or remove the file"
                    )
    if at < len(lines):
        raise DataError(f"{path}: {frames} frames end at line {at}, there are {len(lines)} lines; replace or remove the file")

    match = NAME.match(path.stem)
    subject, label = match.groups() if match else (None, None)
    if not bodies:
        nothing = np.zeros((frames, len(JOINTS), 3), np.float32)
        return [Recording(nothing, path.name, label, subject, JOINTS, FPS, nothing[..., 0], "m")]
    recordings = []
    for k, seen in enumerate(bodies.values(), 1):
        present, table = np.array(list(seen)) - min(seen), np.array(list(seen.values()))
        positions = np.zeros((present.max() + 1, len(JOINTS), 3), np.float32)
        confidence = np.zeros(positions.shape[:2], np.float32)
        positions[present] = table[..., :3]
        confidence[present] = np.array(list(CONFIDENCE.values()), np.float32)[table[..., 3].astype(int)]
        source = path.name if len(bodies) == 1 else f"{path.name}, body {k}"
        if confidence.max() < CONFIDENCE[2]:  # furniture, or a reflection
            confidence[:] = 0
            source += " (all joints inferred)"
        recordings.append(Recording(positions, source, label, subject, JOINTS, FPS, confidence, "m"))
    return recordings
