"""What is not read: named by content or ending, and every printed conversion makes what is read."""

import pickle
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.readers.refused import ENDINGS
from datamodules.sets.folder import folder, read_file
from ddpm.errors import DataError
from tests.configs import compose
from tests.skeletons import people, shipped

RNG = np.random.default_rng(0)


def walk(joints: int, frames: int = 40, coords: int = 3) -> np.ndarray:
    return RNG.normal(size=(1, joints, coords)).astype(np.float32) + np.linspace(0, 1, frames, dtype=np.float32)[:, None, None]


def refused(path: Path) -> str:
    with pytest.raises(DataError) as e:
        folder(shipped("kinect20"), str(path), fps=20)
    return str(e.value)


def converted(message: str) -> Path:
    """Run the code that a message prints, its indented lines; returns the directory that it says to train on."""
    lines = [line[4:] for line in message.splitlines() if line.startswith("    ")]
    assert lines and lines[0].startswith("import numpy")
    exec("\n".join(lines), {})
    (root,) = (argument for argument in shlex.split(message.splitlines()[-1]) if argument.startswith("data.root="))
    root = compose("config", ["data=folder", root]).data.root
    assert all(r.positions.size for path in sorted(Path(root).iterdir()) for r in read_file(path, 3)), "nothing is refused again"
    return Path(root)


def dumped(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


AIST = walk(17)
MDM = walk(22, 24)[None].repeat(3, 0).transpose(0, 2, 3, 1)
MOVING = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]
H36M = {"S1": {"Walking 1": walk(32), "Eating": walk(32)}, "S5": {"Walking": walk(17)}}


@pytest.mark.parametrize("ending", [".pkl", ".pickle", ".npy"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_aist(tmp_path: Path, ending: str, protocol: int) -> None:
    path = dumped(tmp_path / f"gBR_sBM_cAll_d04{ending}", {"keypoints3d": AIST + 1, "keypoints3d_optim": AIST}, protocol)
    message = refused(path)
    assert "keypoints of AIST++" in message and "skeleton=coco17" in message and str(path) in message
    (r,) = read_file(converted(message) / f"{path.stem}.npz", 3)
    assert (r.positions == AIST).all() and (r.fps, r.units) == (60, "cm")


def test_results_of_mdm(tmp_path: Path) -> None:
    content = {"motion": MDM, "text": ["a"] * 3, "lengths": np.array([24, 20, 7]), "num_samples": 3, "num_repetitions": 1}
    np.save(tmp_path / "results.npy", np.array(content, dtype=object), allow_pickle=True)
    message = refused(tmp_path / "results.npy")
    assert "results of MDM" in message
    found = read_file(converted(message) / "results.npz", 3)
    assert [len(r.positions) for r in found] == [24, 20, 7] and (found[0].positions == MDM[0].transpose(2, 0, 1)).all()


def test_videopose3d(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "data_3d_h36m.npz", positions_3d=np.array(H36M, dtype=object))
    message = refused(tmp_path / "data_3d_h36m.npz")
    assert "VideoPose3D" in message and "skeleton=h36m17" in message
    root = converted(message)
    (r,) = read_file(root / "S1_Walking 1.npz", 3)
    assert (r.positions == H36M["S1"]["Walking 1"][:, MOVING]).all() and (r.label, r.subject, r.fps) == ("Walking", "S1", 50)
    assert read_file(root / "S5_Walking.npz", 3)[0].positions.shape == (40, 17, 3)

    views = {"S1": {"Walking 1": [walk(17, coords=2), walk(17, coords=2)]}}
    np.savez(tmp_path / "data_2d.npz", positions_2d=np.array(views, dtype=object), metadata=np.array({"a": 1}, dtype=object))
    (r,) = read_file(converted(refused(tmp_path / "data_2d.npz")) / "S1_Walking 1_1.npz", 2)
    assert (r.positions == views["S1"]["Walking 1"][1]).all() and r.units == "px"


def test_other_pickles(tmp_path: Path) -> None:
    content = {"poses": [0], "joints3D": [walk(24), walk(24, 30)], "y": [3, 5]}
    message = refused(dumped(tmp_path / "humanact12poses.pkl", content))
    assert "HumanAct12" in message and "smpl24" in message
    (r,) = read_file(converted(message) / "humanact12poses_1.npz", 3)
    assert r.positions.shape == (30, 24, 3) and r.label == "5"

    one = {"frame_dir": "S001C001", "label": 7, "total_frames": 40, "keypoint": walk(25)[None].repeat(2, 0)}
    message = refused(dumped(tmp_path / "ntu.pkl", {"split": {}, "annotations": [one]}))
    assert "MMAction2" in message and read_file(converted(message) / "S001C001_1.npz", 3)[0].label == "7"

    message = refused(dumped(tmp_path / "mine.pkl", {"KEY": walk(20)}))
    assert "Python objects" in message and read_file(converted(message) / "mine.npz", 3)[0].fps == 30
    root = converted(refused(dumped(tmp_path / "bare.pkl", walk(20))))
    assert read_file(root / "bare.npz", 3)[0].positions.shape == (40, 20, 3)

    message = refused(dumped(tmp_path / "aist.pkl", {"smpl_poses": np.zeros((9, 72)), "smpl_trans": np.zeros((9, 3))}))
    assert "rotations of SMPL" in message and "body model" in message and "import" not in message


@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_lists_of_clips(tmp_path: Path, ending: str) -> None:
    """Clips of several lengths make NumPy write a list of objects."""
    clips = np.empty(2, dtype=object)
    clips[:] = [walk(20), walk(20, 30)]
    path = tmp_path / f"all{ending}"
    np.save(path, clips, allow_pickle=True) if ending == ".npy" else np.savez(path, clips=clips)
    root = converted(refused(path))
    assert [len(read_file(root / f"all_{k}.npy", 3)[0].positions) for k in (0, 1)] == [40, 30]
    np.save(tmp_path / "aist.npy", np.array({"keypoints3d_optim": walk(17)}, dtype=object), allow_pickle=True)
    assert read_file(converted(refused(tmp_path / "aist.npy")) / "aist.npz", 3)[0].units == "cm"
    np.savez(tmp_path / "nested.npz", clips=np.array({"KEY": walk(20)}, dtype=object))
    assert read_file(converted(refused(tmp_path / "nested.npz")) / "nested.npz", 3)[0].positions.shape == (40, 20, 3)


def test_no_pickle_is_loaded(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    for ending in (".pkl", ".npy", ".csv", ".json", ".p"):
        assert "run code" in refused(dumped(tmp_path / f"a{ending}", [Evil(), "keypoints3d_optim"]))
    assert "run code" in refused(dumped(tmp_path / "old.pkl", [1], protocol=0))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.csv", b"PathFileType\t4\t(X/Y/Z)\ta.trc\n", "its content is TRC; rename it to a.trc"),
        ("a.dat", b"HIERARCHY\nROOT a\n", "BVH; rename it to a.bvh"),
        ("a.npz", b"\x93NUMPY\x01\x00", "NumPy; rename it to a.npy"),
        ("a.txt", b' {"people": []}', "JSON; rename it to a.json"),
        ("motive.csv", b"Format Version,1.23,Take Name,A\n", "a table of Motive; export C3D"),
        ("vicon.csv", b"Trajectories\n100\n", "a table of Vicon Nexus; export C3D"),
        ("qtm.tsv", b"NO_OF_FRAMES\t3\n", "a table of QTM; export C3D"),
        ("a.json", b'{"info": {}, "data_by_frame": {}}', "the frames of FreeMoCap; give its by_trajectory.csv"),
        ("a.bvh", b"Kaydara FBX Binary", "FBX; export BVH"),
        ("a.csv", b"\x89HDF\r\n", "HDF5; for DeepLabCut's"),
        ("a.h5", b"", "its ending is HDF5"),
        ("a.mat", b"MATLAB 5.0 MAT-file", "of MATLAB; scipy"),
        ("a.mp4", b"\x00\x00\x00\x20ftyp", "a video; run a pose estimator"),
        ("a.pt", b"PK\x03\x04", "PyTorch"),
        ("a.npy.gz", b"\x1f\x8b", "an archive; unpack it"),
    ],
)
def test_other_content_is_named(tmp_path: Path, name: str, content: bytes, named: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert named in refused(tmp_path / name)
    if name.endswith(ENDINGS):
        assert named in refused(tmp_path), "where there is nothing else in the directory"
        np.save(tmp_path / "sound.npy", people(1)[0])
        assert folder(shipped("kinect20"), str(tmp_path), fps=20).notes[-1] == "1 other files were not looked at"


def test_hdf5_is_converted(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    tracks = walk(3, 40, 2)[None].repeat(2, 0)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["tracks"] = tracks.transpose(0, 3, 2, 1)
        file["node_names"] = np.array([b"A", b"B", b"C"])
    message = refused(tmp_path / "a.h5")
    sleap = message[message.index("    import h5py") : message.index("each to train")]
    exec("\n".join(line[4:] for line in sleap.splitlines()), {})
    found = read_file(tmp_path / "converted" / "a.npz", 2)
    assert (found[1].positions == tracks[1]).all() and found[0].joints == ("A", "B", "C") and found[0].units == "px"


def test_deeplabcut_hdf5_is_converted(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("tables")
    columns = pandas.MultiIndex.from_product(
        [["S"], ["A", "B"], ["x", "y", "likelihood"]], names=["scorer", "bodyparts", "coords"]
    )
    pandas.DataFrame(np.arange(60.0).reshape(10, 6), columns=columns).to_hdf(tmp_path / "a.h5", key="df_with_missing")
    message = refused(tmp_path / "a.h5")
    pandas_part = message[message.index("    import pandas") : message.index("for SLEAP")]
    exec("\n".join(line[4:] for line in pandas_part.splitlines()), {})
    (r,) = read_file(tmp_path / "converted" / "a.csv", 2)
    assert r.joints == ("A", "B") and r.positions[1].tolist() == [[6, 7], [9, 10]]


def test_the_library_for_c3d_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.c3d").write_bytes(b"\x02\x50" + bytes(510))
    monkeypatch.setitem(sys.modules, "ezc3d", None)
    assert "pip install 'pose-ddpm[c3d]'" in refused(tmp_path / "a.c3d")
