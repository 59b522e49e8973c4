"""Formats that are not read, with what to do instead. Pickles can run code: they are searched, never loaded."""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from datamodules.readers.raw_files import read_bytes
from ddpm.errors import DataError, typed


class Kind(NamedTuple):
    """A format: what it is called, how its files begin and end, and what to do with one."""

    name: str
    starts: tuple[bytes, ...]
    endings: tuple[str, ...]
    way: str = ""  # to what is read; empty: it is read, under its first ending


ROTATIONS = "without a body model they have no positions of joints: run SMPL-H or SMPL-X (pip install smplx) and save them as"
BINARY = "save its positions (frames, joints, coords) with numpy.savez(PATH, clips=POSITIONS, joint_names=NAMES, fps=FPS)"
HDF5 = f"""for DeepLabCut's
    import pandas, os; os.makedirs({{folder!r}}, exist_ok=True)
    pandas.read_hdf({{path!r}}).to_csv({{table!r}})
for SLEAP's analysis
    import h5py, numpy, os; os.makedirs({{folder!r}}, exist_ok=True)
    h = h5py.File({{path!r}})
    numpy.savez({{out!r}}, clips=h["tracks"][:].transpose(0, 3, 2, 1), joint_names=h["node_names"][:].astype(str), units="px")
each to train on {{root}}; for others {BINARY}"""
KINDS = (
    Kind("a pickle", tuple(b"\x80" + bytes([k]) for k in range(2, 6)), (".pkl", ".pickle", ".p", ".joblib")),
    Kind("a model of PyTorch, or tensors", (), (".pt", ".pth", ".ckpt"), BINARY),
    Kind("HDF5", (b"\x89HDF",), (".h5", ".hdf5", ".slp"), HDF5),
    Kind("of MATLAB", (b"MATLAB ",), (".mat",), f"scipy.io.loadmat opens it; {BINARY}"),
    Kind("FBX", (b"Kaydara FBX", b"; FBX"), (".fbx",), "export BVH from Blender or MotionBuilder"),
    Kind("glTF", (b"glTF",), (".glb", ".gltf"), "export BVH from Blender"),
    Kind("an Acclaim skeleton or motion", (b":bone-names", b":FULLY"), (".asf", ".amc"), "convert the pair to BVH (amc2bvh)"),
    Kind("a video", (), (".mp4", ".avi", ".mov", ".mkv"),
         "run a pose estimator, such as MMPose or MediaPipe, and give its JSON"),
    Kind("a workbook", (), (".xlsx", ".xls"), "save the sheet as CSV"),
    Kind("Parquet", (b"PAR1",), (".parquet", ".feather"), "save the table as CSV"),
    Kind("a table of Motive", (b"Format Version,",), (), "export C3D or TRC"),
    Kind("a table of Vicon Nexus", (b"Trajectories",), (), "export C3D"),
    Kind("a table of QTM", (b"NO_OF_FRAMES",), (), "export C3D"),
    Kind("NumPy", (b"\x93NUMPY",), (".npy",)),
    Kind("BVH", (b"HIERARCHY",), (".bvh",)),
    Kind("TRC", (b"PathFileType",), (".trc",)),
    Kind("JSON", (b"{", b"["), (".json",)),
    Kind("an archive", (b"\x1f\x8b", b"Rar!", b"7z"), (".zip", ".gz", ".tar", ".7z", ".rar"), "unpack it"),
)  # fmt: skip
ENDINGS = tuple(ending for kind in KINDS if kind.way or "pickle" in kind.name for ending in kind.endings)
"""Of files that are recognised and not read."""
BEGIN = "import numpy, os, pickle; os.makedirs({folder!r}, exist_ok=True)\n"
"""Of code that converts: into a directory where nothing is refused."""
TRUST = "Pickles can run code and are not loaded here. If you trust the file, run"

# What must be in a pickle -> its name, the code that converts it, and what to train on the result with. {load} is the object in
# it, {folder} a new one that ends with a slash, {base} the path in it without ending.
PICKLES: dict[tuple[str, ...], tuple[str, str, str]] = {
    ("keypoints3d_optim",): (
        "keypoints of AIST++",
        """d = {load}
numpy.savez({out!r}, clips=d["keypoints3d_optim"], fps=60, units="cm")""",
        "skeleton=coco17 skeleton.coords=3 skeleton.up=y data.lost=nans",
    ),
    ("smpl_poses",): ("rotations of SMPL, as in AIST++", "", f"{ROTATIONS} an .npz; AIST++ also has keypoints3d"),
    ("frame_dir", "keypoint", "annotations"): (
        "skeletons of MMAction2",
        """for a in {load}["annotations"]:
    for m, x in enumerate(a["keypoint"]):
        numpy.savez({folder!r} + f"{{a['frame_dir']}}_{{m}}.npz", clips=x, labels=a["label"])""",
        "",
    ),
    ("joints3D", "poses"): (
        "HumanAct12",
        """d = {load}
for k, x in enumerate(d["joints3D"]): numpy.savez({base!r} + f"_{{k}}.npz", clips=x, labels=d["y"][k], fps=20)""",
        "skeleton=smpl24",
    ),
    ("motion", "num_samples"): (
        "results of MDM",
        """d = {load}
numpy.savez({out!r}, clips=d["motion"].transpose(0, 3, 1, 2), lengths=d["lengths"], fps=20)""",
        "",
    ),
    ("positions_3d",): (
        "motion of VideoPose3D, by subject and action",
        """for s, actions in {load}.items():
    for a, x in actions.items():
        x = x[:, [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]] if x.shape[1] == 32 else x
        numpy.savez({folder!r} + f"{{s}}_{{a}}.npz", clips=x, subjects=s, labels=a.split()[0], fps=50)""",
        "skeleton=h36m17",
    ),
    ("positions_2d",): (
        "keypoints of VideoPose3D, by subject, action and camera",
        """for s, actions in {load}.items():
    for a, views in actions.items():
        for k, x in enumerate(views):
            x = dict(clips=x[..., :2], subjects=s, labels=a.split()[0], fps=50, units="px")
            numpy.savez({folder!r} + f"{{s}}_{{a}}_{{k}}.npz", **x)""",
        "",
    ),
    ("poses", "trans"): ("rotations of SMPL", "", f"{ROTATIONS} an .npz with joints"),
}  # fmt: skip

ANY = (
    "Python objects",
    """d = {load}
numpy.savez({out!r}, clips=d if hasattr(d, "shape") else d["KEY"], fps=30)""",
    "after you wrote your key of the positions (frames, joints, coords) for KEY, and their rate for 30",
)
LIST = (
    "a list of Python objects",
    """for k, x in enumerate({load}):
    numpy.save({base!r} + f"_{{k}}.npy", numpy.asarray(x, dtype="float32"))""",
    "",
)


def pickled(path: Path, content: bytes, where: str, load: str, several: bool = False) -> DataError:
    """The error for Python objects: what they are, as far as the texts in them say, and the code that converts them.

    Args:
        content: bytes in which names of keys are looked for.
        where: the file, or the array in it, for the message.
        load: code that loads the objects.
        several: they are an array of objects, most often of arrays.
    """
    known = [found for marks, found in PICKLES.items() if all(mark.encode() in content for mark in marks)]
    name, code, after = LIST if several else [*known, ANY][0]
    load += ".item()" if load.startswith("numpy") and not several else ""
    if not code:
        return DataError(f"{where}: holds {name}; {after}")
    folder = path.parent / "converted"
    code = f"{BEGIN}{code}".format(
        load=load, out=str(folder / f"{path.stem}.npz"), folder=f"{folder}/", base=str(folder / path.stem)
    )  # fmt: skip
    lines = code.replace("\n", "\n    ")
    way = f"{lines}\nand train on {typed('data.root', str(folder))} {after}"
    return DataError(f"{where}: holds {name}. {TRUST}\n    {way}".rstrip())


def refusal(path: Path) -> DataError | None:
    """The error for a file whose content, or else whose ending, is of another format than it was read as; None: unknown."""
    if not path.is_file():
        return None
    head = b""
    with suppress(OSError), path.open("rb") as stream:
        head = stream.read(4096)
    ending, text = path.suffix.lower(), head.lstrip(b"\xef\xbb\xbf \t\r\n")
    by_content = next((kind for kind in KINDS if text.startswith(kind.starts)), None)
    kind = by_content or next((kind for kind in KINDS if ending in kind.endings), None)
    if kind is None or (ending in kind.endings and not kind.way and kind is not KINDS[0]):
        return None
    if kind is KINDS[0]:
        return pickled(path, read_bytes(path, 4 << 30), str(path), f"pickle.load(open({str(path)!r}, 'rb'))")
    way = kind.way or f"rename it to {path.stem}{kind.endings[0]}"
    folder = path.parent / "converted"
    out, table = (str(folder / f"{path.stem}{new}") for new in (".npz", ".csv"))
    way = way.format(path=str(path), folder=str(folder), out=out, table=table, root=typed("data.root", str(folder)))
    return DataError(f"{path}: its {'content' if by_content else 'ending'} is {kind.name}; {way}")
