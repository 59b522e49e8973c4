"""Clips as glTF 2.0, for Blender, three.js and the viewers of browsers: a node a joint, and a bone that is seen between two."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from ddpm.clips import Clips
from ddpm.files import write_durably
from ddpm.skeleton import Skeleton
from ddpm.viz.body import SIDE_COLOURS
from ddpm.viz.camera import all_drawable

THICK = 0.08  # half the width of a bone, in median lengths of bones
BONE = np.array([[0, 0, 0], [1, 0.2, 0], [0, 0.2, 1], [-1, 0.2, 0], [0, 0.2, -1], [0, 1, 0]], dtype=np.float32)
SIDES = np.array([[0, i, i % 4 + 1] for i in range(1, 5)] + [[5, i % 4 + 1, i] for i in range(1, 5)], dtype=np.uint16)
"""An octahedron from 0 to 1 along y, and its triangles, seen from outside."""


def write_glb_files(path: str | Path, clips: Clips) -> list[Path]:
    """Write each clip to a file of its own, NAME_000.glb and so on; see `glb`."""
    files, titles = clips.files(path), clips.titles or [Path(path).stem] * len(clips)
    for file, clip, length, title in zip(files, clips.positions.numpy(), clips.lengths.tolist(), titles, strict=True):
        write_durably(file, glb(clip[:length], clips.skeleton, clips.fps, title))
    return files


def glb(positions: np.ndarray, skeleton: Skeleton, fps: float, name: str) -> bytes:
    """A clip ``(frames, joints, coords)`` in metres as a binary glTF file, y up; of two dimensions it stands in the plane z = 0.

    A joint is a node that is moved relative to its parent and does not turn, so that every position is exact whatever bones do.
    From a joint to each of its children stands an octahedron, coloured by side, that turns and stretches.

    Raises:
        ValueError: numbers that are not finite or beyond 10^9 m.
    """
    points = all_drawable(positions, skeleton)
    content, views, accessors = bytearray(), [], []

    def stored(values: np.ndarray, kind: str) -> int:
        """The number of the accessor of an array in the binary part."""
        ends = {end: np.atleast_1d(value).tolist() for end, value in (("min", values.min(0)), ("max", values.max(0)))}
        component = {"f": 5126, "u": 5123}[values.dtype.kind]
        accessors.append({"bufferView": len(views), "componentType": component, "count": len(values), "type": kind, **ends})
        views.append({"buffer": 0, "byteOffset": len(content), "byteLength": values.nbytes})
        content.extend(values.tobytes())
        return len(accessors) - 1

    shape = {"attributes": {"POSITION": stored(BONE, "VEC3")}, "indices": stored(SIDES.flatten(), "SCALAR")}
    times = stored((np.arange(len(points)) / fps).astype(np.float32), "SCALAR")
    samplers, channels = [], []

    def node(name: str, mesh: int | None, children: list[int], moves: dict[str, np.ndarray]) -> dict[str, Any]:
        """A node that begins as the first frame is, and follows arrays ``(frames, 3 or 4)``."""
        for path, values in moves.items():
            output = stored(values.astype(np.float32), f"VEC{values.shape[1]}")
            channels.append({"sampler": len(samplers), "target": {"node": len(nodes), "path": path}})
            samplers.append({"input": times, "output": output, "interpolation": "LINEAR"})
        made = {"name": name, **{path: values[0].astype(np.float32).tolist() for path, values in moves.items()}}
        return made | ({"children": children} if children else {}) | ({} if mesh is None else {"mesh": mesh})

    bones, nodes = list(skeleton.bones), []
    for joint, above in enumerate(skeleton.parents):
        children = [child for child, parent in bones if parent == joint]
        drawn = [len(skeleton.names) + i for i, (_, parent) in enumerate(bones) if parent == joint]
        moved = points[:, joint] if above < 0 else points[:, joint] - points[:, above]
        nodes.append(node(skeleton.names[joint], None, children + drawn, {"translation": moved}))
    lengths = [np.linalg.norm(points[:, child] - points[:, parent], axis=-1) for child, parent in bones]
    width = THICK * float(np.median(lengths)) if bones else 0.0
    sides = list(SIDE_COLOURS)
    for (child, parent), length in zip(bones, lengths, strict=True):
        ahead = (points[:, child] - points[:, parent]) / np.maximum(length, 1e-12)[:, None]
        ahead[length < 1e-12] = (0, 1, 0)
        scale = np.stack([np.full_like(length, width), length, np.full_like(length, width)], axis=-1)
        title = f"{skeleton.names[parent]}_to_{skeleton.names[child]}"
        nodes.append(node(title, sides.index(skeleton.side(child)), [], {"rotation": _from_up(ahead), "scale": scale}))
    colours = [[*((np.array(colour) / 255) ** 2.2).round(4).tolist(), 1.0] for colour in SIDE_COLOURS.values()]
    paint = [{"baseColorFactor": colour, "metallicFactor": 0, "roughnessFactor": 0.8} for colour in colours]
    gltf = {
        **{"asset": {"version": "2.0", "generator": "pose-ddpm", "extras": {"fps": fps}}, "scene": 0},
        **{"scenes": [{"nodes": [skeleton.root]}], "nodes": nodes},
        "meshes": [{"name": side, "primitives": [{**shape, "material": i}]} for i, side in enumerate(sides)],
        "materials": [{"name": side, "pbrMetallicRoughness": own} for side, own in zip(sides, paint, strict=True)],
        "animations": [{"name": name, "samplers": samplers, "channels": channels}],
        **{"accessors": accessors, "bufferViews": views, "buffers": [{"byteLength": len(content)}]},
    }
    text = json.dumps(gltf, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sIIII", b"glTF", 2, 28 + len(text) + len(content), len(text), 0x4E4F534A)
    return head + text + struct.pack("<II", len(content), 0x004E4942) + bytes(content)


def _from_up(ahead: np.ndarray) -> np.ndarray:
    """``(n, 4)`` the quaternions (x, y, z, w) that turn y the shortest way to unit vectors ``(n, 3)``."""
    x, y, z = ahead.T
    turn = np.stack([z, 0 * y, -x, 1 + y], axis=-1)
    turn[y < -1 + 1e-9] = (1, 0, 0, 0)  # any half turn is the shortest
    return turn / np.linalg.norm(turn, axis=-1, keepdims=True)
