"""glTF files, read back by their specification: every joint is where it was, and every bone ends at its joint."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ddpm.clips import Clips
from ddpm.skeleton import Skeleton
from ddpm.viz.camera import canonical
from ddpm.viz.gltf import glb
from tests.conftest import walk


def parsed(content: bytes) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The JSON part, and the arrays of all accessors."""
    magic, version, size, length, kind = struct.unpack_from("<4sIIII", content)
    assert (magic, version, size, kind) == (b"glTF", 2, len(content), 0x4E4F534A)
    gltf = json.loads(content[20 : 20 + length])
    rest, kind = struct.unpack_from("<II", content, 20 + length)
    data = content[28 + length :]
    assert kind == 0x004E4942 and length % 4 == rest % 4 == 0 and len(data) == rest == gltf["buffers"][0]["byteLength"]
    arrays = []
    for accessor in gltf["accessors"]:
        view = gltf["bufferViews"][accessor["bufferView"]]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        dtype = {5126: np.float32, 5123: np.uint16}[accessor["componentType"]]
        values = np.frombuffer(data[view["byteOffset"] :][: view["byteLength"]], dtype).reshape(-1, width)
        assert len(values) == accessor["count"] and view["byteOffset"] % 4 == 0
        assert values.min(0).tolist() == accessor["min"] and values.max(0).tolist() == accessor["max"]
        arrays.append(values)
    return gltf, arrays


def places(gltf: dict[str, Any], arrays: list[np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Times of the frames; and by name of a node, where it is and, of one with a mesh, where the end of its bone is."""
    (animation,) = gltf["animations"]
    moves: dict[tuple[int, str], np.ndarray] = {}
    for channel in animation["channels"]:
        sampler, target = animation["samplers"][channel["sampler"]], channel["target"]
        moves[target["node"], target["path"]] = arrays[sampler["output"]].astype(np.float64)
        times = arrays[sampler["input"]][:, 0]
        assert gltf["nodes"][target["node"]][target["path"]] == arrays[sampler["output"]][0].tolist(), (
            "it begins as the first frame"
        )
    where, tips = {}, {}
    waiting = [(node, np.zeros(3)) for node in gltf["scenes"][0]["nodes"]]
    while waiting:
        number, above = waiting.pop()
        node = gltf["nodes"][number]
        assert node["name"] not in where
        where[node["name"]] = above + moves.get((number, "translation"), np.zeros(3))
        if "mesh" in node:
            end = np.array([0, 1, 0]) * moves[number, "scale"]
            tips[node["name"]] = above + Rotation.from_quat(moves[number, "rotation"]).apply(end)
        waiting += [(child, where[node["name"]]) for child in node.get("children", ())]
    return times, where, tips


@pytest.mark.parametrize(("up", "coords"), [("y", 3), ("z", 3), ("-y", 3), ("-y", 2)])
def test_every_joint_is_where_it_was(up: str, coords: int, skeleton: Skeleton) -> None:
    skeleton = Skeleton(skeleton.joints, skeleton.left_right, skeleton.feet, up=up, coords=coords)
    positions = walk(1, 12, 20, coords)[0].numpy()
    gltf, arrays = parsed(glb(positions, skeleton, 25.0, "walk"))
    times, where, tips = places(gltf, arrays)
    expected = canonical(positions, skeleton)
    np.testing.assert_allclose(times, np.arange(12) / 25, rtol=1e-6)
    for joint, name in enumerate(skeleton.names):
        np.testing.assert_allclose(where[name], expected[:, joint], rtol=0, atol=1e-5)
    for child, parent in skeleton.bones:
        tip = tips[f"{skeleton.names[parent]}_to_{skeleton.names[child]}"]
        np.testing.assert_allclose(tip, expected[:, child], rtol=0, atol=1e-5)
    assert len(tips) == len(skeleton.bones) and gltf["animations"][0]["name"] == "walk"
    by_side = {node["name"]: gltf["meshes"][node["mesh"]]["name"] for node in gltf["nodes"] if "mesh" in node}
    left = next(joint for joint in skeleton.left_right[0])
    assert next(side for name, side in by_side.items() if name.endswith(f"_to_{left}")) == "left"


def test_a_bone_may_point_anywhere_and_vanish() -> None:
    """Straight down, where the turn from up is open, straight up, along an axis, and nowhere at all."""
    ends = np.array([[0, -1, 0], [0, 1, 0], [0, 0, 2], [0, 0, 0], [1e-7, -1, 0]], dtype=float)
    positions = np.stack([0 * ends, ends], axis=1)
    _, where, tips = places(*parsed(glb(positions, Skeleton({"b": None, "a": "b"}), 10.0, "")))
    np.testing.assert_allclose(tips["b_to_a"], ends, atol=1e-6)
    np.testing.assert_allclose(where["a"], ends, atol=1e-6)
    gltf, _ = parsed(glb(positions[:1, :1], Skeleton({"a": None}), 10.0, ""))
    assert [node["name"] for node in gltf["nodes"]] == ["a"]


def test_the_octahedron_is_seen_from_outside() -> None:
    gltf, arrays = parsed(glb(np.zeros((1, 1, 3)), Skeleton({"a": None}), 10.0, ""))
    primitive = gltf["meshes"][0]["primitives"][0]
    corners = arrays[primitive["attributes"]["POSITION"]][arrays[primitive["indices"]].reshape(-1, 3)]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.einsum("fk,fk->f", normal, corners.mean(1) - [0, 0.4, 0]) > 0).all()
    assert len(corners) == 8


def test_clips_are_a_file_each(motions: Clips, tmp_path: Path) -> None:
    paths = motions.take(slice(3)).save(tmp_path / "walk.glb")
    assert [path.name for path in paths] == ["walk_000.glb", "walk_001.glb", "walk_002.glb"]
    for path, length in zip(paths, motions.lengths.tolist(), strict=False):
        assert len(places(*parsed(path.read_bytes()))[0]) == length
    with pytest.raises(ValueError, match=r"joint hip_center: .* is not a position"):
        glb(np.full((2, 20, 3), 1e10), motions.skeleton, 20.0, "")
