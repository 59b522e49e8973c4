"""Markers: TRC with tabs or commas, and C3D, where the library is installed."""

from pathlib import Path

import numpy as np
import pytest

from datamodules.readers.markers import read_c3d, read_trc
from datamodules.sets.folder import folder
from ddpm.errors import DataError
from ddpm.skeleton import Skeleton

POSITIONS = 1000 + np.random.default_rng(0).normal(size=(30, 3, 3), scale=100).round(3)
NAMES = ("LASI", "RASI", "LKNE")


def trc(path: Path, separator: str, cells: list[list[str]] | None = None, **about: str) -> Path:
    head = {"DataRate": "50.00", "CameraRate": "50", "NumFrames": "30", "NumMarkers": "3", "Units": "mm"} | about
    rows = [
        [f"{k + 1}", f"{k / 50}", *(f"{value:.3f}" for value in row)] for k, row in enumerate(POSITIONS.reshape(30, 9).tolist())
    ]
    lines = [["PathFileType", "4", "(X/Y/Z)", path.name], list(head), list(head.values())]
    lines += [["Frame#", "Time", *(cell for name in NAMES for cell in (name, "", ""))]]
    lines += [["", "", *(f"{axis}{k}" for k in (1, 2, 3) for axis in "XYZ")], [""], *(rows if cells is None else cells)]
    path.write_text("\n".join(separator.join(line) for line in lines) + "\n")
    return path


@pytest.mark.parametrize("separator", ["\t", ","])
def test_trc(tmp_path: Path, separator: str) -> None:
    r = read_trc(trc(tmp_path / "a.trc", separator))
    assert r.joints == NAMES and (r.fps, r.units, r.source) == (50, "mm", "a.trc")
    np.testing.assert_allclose(r.positions, POSITIONS, atol=1e-3)
    lost = [["1", "0", *["1"] * 6, "", "", ""], ["2", "0.02", *["1"] * 6], ["3", "0.04", *["nan"] * 3, *["1"] * 6]]
    r = read_trc(trc(tmp_path / "b.trc", separator, lost, NumFrames="3"))
    assert (
        r.confidence is not None and r.confidence.tolist() == [[1, 1, 0], [1, 1, 0], [0, 1, 1]] and (r.positions[1, 2] == 0).all()
    )
    skeleton = Skeleton({"LASI": None, "RASI": "LASI", "LKNE": "LASI"}, [["LASI", "RASI"]], up="z")
    clips = folder(skeleton, str(tmp_path / "a.trc"), floor=False, max_speed=None)
    np.testing.assert_allclose(clips.frames, POSITIONS / 1000, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("mm", "inch"), "its unit is 'inch', expected one of m, dm, cm"),
        (("50.00", "fast"), "DataRate is 'fast'"),
        (("RASI", ""), "line 4 must hold"),
        (("PathFileType", "Path"), "line 1 is 'Path"),
        (("\n1\t0.0\t", "\n1\t0.0\tfour"), "line 7: could not convert"),
    ],
)
def test_damage_is_located(tmp_path: Path, change: tuple[str, str], named: str) -> None:
    path = trc(tmp_path / "a.trc", "\t")
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises(DataError, match=named) as e:
        read_trc(path)
    assert str(e.value).startswith(str(path))
    path.write_text(text[:-30])
    with pytest.raises(DataError, match=r"line 36 ends after \d+ of 11 columns; the file is truncated"):
        read_trc(path)


def test_of_a_trc_that_is_cut_short_at_the_end_of_a_line_it_is_noted(tmp_path: Path) -> None:
    path = trc(tmp_path / "a.trc", "\t")
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-10]) + "\n")
    short = read_trc(path)
    assert len(short.positions) == 20 and short.note == "fewer frames than NumFrames says, the end may be missing"
    for said in ("20", "10", "many"):
        path.write_text("\n".join(lines[:-10]).replace("\t30\t", f"\t{said}\t"))
        assert len(read_trc(path).positions) == 20 and read_trc(path).note is None


def c3d(path: Path, names: list[str], others: list[str], lost: tuple[int, int] | None = None) -> Path:
    ezc3d = pytest.importorskip("ezc3d")
    file = ezc3d.c3d()
    points = np.ones((4, len(names), 30))
    points[:3] = np.resize(POSITIONS.transpose(2, 1, 0), (3, len(names), 30))
    file["parameters"]["POINT"]["RATE"]["value"] = [100.0]
    file["parameters"]["POINT"]["LABELS"]["value"] = names
    file["parameters"]["POINT"]["UNITS"]["value"] = ["mm"]
    if others:
        file.add_parameter("POINT", "ANGLES", others)
    if lost is not None:
        points[:3, lost[0], lost[1]] = np.nan
    file["data"]["points"] = points
    file.write(str(path))
    return path


def test_c3d(tmp_path: Path) -> None:
    (r,) = read_c3d(c3d(tmp_path / "a.c3d", [*NAMES, "*7", "LKneeAngles"], ["LKneeAngles"], (1, 4)))
    assert r.joints == NAMES and (r.fps, r.units, r.source) == (100, "mm", "a.c3d")
    assert r.confidence is not None and np.argwhere(r.confidence == 0).tolist() == [[4, 1]]
    assert r.positions.shape == (30, 3, 3) and r.positions.max() > 900


def test_subjects_of_a_c3d_file(tmp_path: Path) -> None:
    found = read_c3d(c3d(tmp_path / "a.c3d", ["Ann:LASI", "Bob:LASI", "Ann:LKNE", "Bob:LKNE"], []))
    assert [(r.source, r.joints) for r in found] == [("a.c3d, Ann", ("LASI", "LKNE")), ("a.c3d, Bob", ("LASI", "LKNE"))]
    (one,) = read_c3d(c3d(tmp_path / "b.c3d", ["Ann:LASI", "Ann:LKNE"], []))
    assert (one.source, one.joints) == ("b.c3d", ("LASI", "LKNE"))


def test_a_damaged_c3d_file_is_named(tmp_path: Path) -> None:
    path = c3d(tmp_path / "a.c3d", [*NAMES], [])
    content = path.read_bytes()
    path.write_bytes(b"\x02\x51" + content[2:])
    with pytest.raises(DataError, match=r"a\.c3d: its second byte is"):
        read_c3d(path)
    path.write_bytes(content[:600])
    with pytest.raises(DataError, match=r"a\.c3d: not a valid C3D file"):
        read_c3d(path)
    with pytest.raises(DataError, match="no markers with a name"):
        read_c3d(c3d(path, ["*1", "*2"], []))
