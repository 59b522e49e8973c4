"""Tables: names or none, any separator, damage with line and column."""

from pathlib import Path

import numpy as np
import pytest

from datamodules.readers.table import read
from ddpm.errors import DataError

HEADER = "time,left_knee_x,left_knee_y,left_knee_z,head.X,head.Y,head.Z,head.score"
ROWS = [f"{k / 25:.3f},{k},1,2,3,4,{k}.5,{k / 10}" for k in range(6)]


def written(path: Path, *lines: str, newline: str = "\n") -> Path:
    path.write_text("\n".join(lines) + "\n", newline=newline)
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t", " ", ", "])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_names_rate_and_confidence(tmp_path: Path, separator: str, newline: str) -> None:
    (r,) = read(written(tmp_path / "a.csv", *(line.replace(",", separator) for line in (HEADER, *ROWS)), newline=newline))
    assert r.joints == ("left_knee", "head") and r.fps == 25 and r.source == "a.csv"
    assert r.positions.dtype == np.float32 and r.positions[3].tolist() == [[3, 1, 2], [3, 4, 3.5]]
    assert r.confidence is not None and r.confidence[:, 0].tolist() == [1.0] * 6
    np.testing.assert_allclose(r.confidence[:, 1], np.arange(6) / 10, atol=1e-7)


@pytest.mark.parametrize(
    ("unit", "fps", "rate"), [(1e3, 30, 30), (1e3, 120, 120), (1e6, 29.97, 29.97), (1e9, 25, 25), (1, 29.97, 29.97), (1, 1, 1)]
)
@pytest.mark.parametrize("frames", [5, 12])
def test_time_may_be_in_parts_of_a_second(tmp_path: Path, unit: float, fps: float, rate: float, frames: int) -> None:
    rows = [f"{k * unit / fps if unit == 1 else round(k * unit / fps)},{k},1" for k in range(frames)]
    (r,) = read(written(tmp_path / "a.csv", "time,a_x,a_y", *rows))
    assert r.fps == pytest.approx(rate, rel=1e-5)
    assert (r.note or "").endswith({1: "", 1e3: "in milliseconds", 1e6: "in microseconds", 1e9: "in nanoseconds"}[unit])


def test_columns_may_be_anywhere(tmp_path: Path) -> None:
    (r,) = read(written(tmp_path / "a.csv", '\ufeff"frame","b_y","a_y","a_x","b_x"', "4,1,2,3,4", "5,5,6,7,8"))
    assert r.joints == ("b", "a") and r.fps is None and r.confidence is None
    assert r.positions.tolist() == [[[4, 1], [3, 2]], [[8, 5], [7, 6]]]


@pytest.mark.parametrize("form", ["{0}_{1}", "{0}.{1}", "{0} ({1})", "{1}_{0}", "{0}{1}", "{1}.{0}"])
def test_names_of_columns_are_spelled_in_many_ways(tmp_path: Path, form: str) -> None:
    header = ",".join(form.format(joint, axis) for joint in ("LeftKnee", "Head") for axis in "XYZ")
    (r,) = read(written(tmp_path / "a.csv", header, "1,2,3,4,5,6"))
    assert r.joints == ("LeftKnee", "Head") and r.positions.tolist() == [[[1, 2, 3], [4, 5, 6]]]


def test_numbers_without_names(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "1,2,3,4,5,6", "7,8,9,1e1,-11,.5")
    assert read(path)[0].positions.tolist() == [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, -11, 0.5]]]
    assert read(path, coords=2)[0].positions.shape == (2, 3, 2) and read(path)[0].joints is None


def test_empty_cells_are_lost_positions(tmp_path: Path) -> None:
    (r,) = read(written(tmp_path / "a.csv", "a_x,a_y,b_x,b_y", "1,,2,3", "1,2, ,nan"))
    assert np.isnan(r.positions).tolist() == [[[False, True], [False, False]], [[False, False], [True, True]]]


def test_an_empty_cell_needs_no_data_lost(tmp_path: Path) -> None:
    (r,) = read(written(tmp_path / "a.csv", "a_x,a_y,b_x,b_y,b_score", "1,,2,3,0.5", "1,2,NA,nan,0.5"))
    assert r.confidence is not None and r.confidence.tolist() == [[0, 0.5], [1, 0]] and r.units is None
    (r,) = read(written(tmp_path / "a.csv", "1,,2", "3,4,5"))
    assert r.confidence is not None and r.confidence.tolist() == [[0], [1]]


def test_the_remedy_for_a_hole_in_time_works(tmp_path: Path) -> None:
    lines = [HEADER, *ROWS[:3], *ROWS[4:]]
    with pytest.raises(DataError, match=r"add the missing lines, with their time and empty cells, or .*data\.fps=25, or"):
        read(written(tmp_path / "a.csv", *lines))
    (r,) = read(written(tmp_path / "a.csv", *lines[:4], "0.12" + 7 * ",", *lines[4:]))
    assert r.fps == 25 and r.confidence is not None and (r.confidence[3] == 0).all()


def test_a_time_that_counts_lines_is_marked(tmp_path: Path) -> None:
    counts = [read(written(tmp_path / "a.csv", "time,a_x,a_y", *(f"{s * k},1,2" for k in range(9))))[0] for s in (1, 0.05)]
    assert [(r.fps, r.fps_counts) for r in counts] == [(1, True), (20, False)]


def deeplabcut(*rows: str, animals: str = "", likelihood: bool = True) -> list[str]:
    """The first lines of a file with the points A and B, and the given ones, whose cells before the numbers have no names."""
    blank = "," * (rows[0].count("/") if rows else 0)
    kinds = ["x", "y", *(["likelihood"] if likelihood else [])]
    columns = [(animal, point, kind) for animal in animals or " " for point in "AB" for kind in kinds]
    lines = [["scorer", *["Me"] * len(columns)], ["individuals", *(c[0] for c in columns)] if animals else []]
    lines += [["bodyparts", *(c[1] for c in columns)], ["coords", *(c[2] for c in columns)]]
    return [line[0] + blank + "," + ",".join(line[1:]) for line in lines if line] + [row.replace("/", ",") for row in rows]


def test_deeplabcut(tmp_path: Path) -> None:
    (r,) = read(written(tmp_path / "a.csv", *deeplabcut("0,1,2,0.9,3,4,0.8", "1,5,6,0.7,,,", "3,7,8,0.5,9,9,0.4")))
    assert r.joints == ("A", "B") and r.units == "px" and r.fps is None and r.source == "a.csv"
    assert r.positions.shape == (4, 2, 2) and r.positions[3].tolist() == [[7, 8], [9, 9]]
    np.testing.assert_allclose(r.confidence, [[0.9, 0.8], [0.7, 0], [0, 0], [0.5, 0.4]], atol=1e-6)


@pytest.mark.parametrize("folder", ["labeled-data/video/", "labeled-data\\\\video\\\\", ""])
def test_individuals_and_pictures_of_deeplabcut(tmp_path: Path, folder: str) -> None:
    rows = [f"{folder}img{k:03}.png,{k},1,2,3,,,6,7" for k in (7, 8, 10)]
    first, second = read(written(tmp_path / "a.csv", *deeplabcut(*rows, animals="PQ", likelihood=False)))
    assert (first.source, second.source) == ("a.csv, P", "a.csv, Q") and first.positions[:, 0, 0].tolist()[::3] == [7, 10]
    assert first.confidence is not None and first.confidence.tolist() == [[1, 1], [1, 1], [0, 0], [1, 1]]
    assert second.confidence is not None and second.confidence.tolist() == [[0, 1], [0, 1], [0, 0], [0, 1]]


def test_two_videos_are_two_recordings(tmp_path: Path) -> None:
    rows = [f"labeled-data/{video}/img{k}.png,{k},1,2,3" for k in (1, 2) for video in "vw"]
    found = read(written(tmp_path / "a.csv", *deeplabcut(*rows, likelihood=False)))
    assert [r.source for r in found] == ["a.csv, v", "a.csv, w"] and all(len(r.positions) == 2 for r in found)


SLEAP = "track,frame_idx,instance.score,A.x,A.y,A.score,B.x,B.y,B.score"


def test_tracks_of_sleap(tmp_path: Path) -> None:
    lines = ["t1,5,nan,1,2,0.5,,,", "t0,4,0.9,3,4,1,5,6,1", "t0,7,0.9,7,8,1,9,9,1", "t1,4,0.9,0,0,1,1,1,1"]
    second, first = read(written(tmp_path / "a.csv", SLEAP, *lines))
    assert (first.source, second.source) == ("a.csv, t0", "a.csv, t1") and first.units == "px"
    assert first.positions.shape == (4, 2, 2) and first.positions[3].tolist() == [[7, 8], [9, 9]]
    assert first.confidence is not None and first.confidence.tolist() == [[1, 1], [0, 0], [0, 0], [1, 1]]
    assert second.confidence is not None and second.confidence.tolist() == [[1, 1], [0.5, 0]]
    (alone,) = read(written(tmp_path / "b.csv", SLEAP, *(line[1:] for line in (",,1,nan,1,2,1,3,4,1", ",,0,nan,0,0,1,0,0,1"))))
    (labelled,) = read(written(tmp_path / "d.csv", SLEAP, "t0,0,nan,1,2,,3,4,", "t0,1,nan,1,2,,,,"))
    assert labelled.confidence is not None and labelled.confidence.tolist() == [[1, 1], [1, 0]], "labelled by hand"
    assert alone.source == "b.csv" and alone.positions[1].tolist() == [[1, 2], [3, 4]]
    with pytest.raises(DataError, match=r"line 2: frame 3 has several bodies with no track.*nothing tells who is who"):
        read(written(tmp_path / "c.csv", SLEAP, *[",3,nan,1,2,1,3,4,1"] * 2))
    with pytest.raises(DataError, match=r"line 2: frame 3 has several bodies with track 'a'"):
        read(written(tmp_path / "c.csv", SLEAP, *["a,3,nan,1,2,1,3,4,1"] * 2))


def test_freemocap(tmp_path: Path) -> None:
    header = "timestamp,timestamp_by_camera," + ",".join(
        f"{j}_{a}" for j in ("body_nose", "body_left_hip", "left_hand_wrist") for a in "xyz"
    )
    (r,) = read(written(tmp_path / "a.csv", header, *['0.1,"{1: 2, 3: 4}",1,2,3,4,5,6,,,'] * 3))
    assert r.joints == ("nose", "left_hip", "left_hand_wrist") and r.units == "mm" and r.fps is None
    assert r.positions[2, 1].tolist() == [4, 5, 6] and r.confidence is not None and r.confidence[0].tolist() == [1, 1, 0]


def test_a_line_for_each_keypoint(tmp_path: Path) -> None:
    header = "frame,timestamp,timestamp_by_camera,model,keypoint,x,y,z,reprojection_error"
    points = ("body_nose", "body_left_hip", "trunk_center")
    lines = [f'{k},,"{{0: 1, 1: 2}}",mediapipe.body,{point},{k},{j},3,0.1' for k in range(4) for j, point in enumerate(points)]
    (r,) = read(written(tmp_path / "a.csv", header, *(line for k, line in enumerate(lines) if k != 5)))
    assert r.joints == ("nose", "left_hip", "spine") and r.units == "mm" and r.positions.shape == (4, 3, 3)
    assert r.positions[3].tolist() == [[3, 0, 3], [3, 1, 3], [3, 2, 3]] and np.argwhere(r.confidence == 0).tolist() == [[1, 2]]
    rows = [f"{k},{animal},{point},{k},{j},0.5" for k in (5, 6) for animal in "pq" for j, point in enumerate("AB")]
    first, second = read(written(tmp_path / "b.csv", "frame,individual,bodypart,x,y,likelihood", *rows))
    assert first.joints == second.joints == ("A", "B") and first.units == "px" and second.source == "b.csv, q"
    assert second.positions[1].tolist() == [[6, 0], [6, 1]] and (second.confidence == 0.5).all()
    with pytest.raises(DataError, match="lines 2 and 4 are both 'A' in frame 5; tell them apart by a track"):
        read(written(tmp_path / "c.csv", "frame,keypoint,x,y", "5,A,1,2", "5,B,1,2", "5,A,3,4"))


def test_anipose(tmp_path: Path) -> None:
    header = "a_x,a_y,a_z,a_error,a_ncams,a_score,b_x,b_y,b_z,b_error,b_ncams,b_score,M_00,center_0,fnum"
    (r,) = read(written(tmp_path / "a.csv", header, *(f"1,2,3,0.1,2,0.9,4,5,6,0.1,2,0.8,1,0,{k}" for k in range(3))))
    assert r.joints == ("a", "b") and r.positions[2].tolist() == [[1, 2, 3], [4, 5, 6]] and r.confidence is not None


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ([HEADER, *ROWS[:3], "0.12,3,1"], "line 5 has 3 columns, the first has 8.*truncated"),
        ([HEADER, *ROWS[:3], ROWS[3].replace("4", "four")], "line 5, column 6 is 'four', expected a number"),
        ([HEADER, ROWS[0], ROWS[1].replace("3", "inf", 1)], r"line 3, head\.X is infinite"),
        ([HEADER, *ROWS[:3], ROWS[1], *ROWS[2:]], "line 5: time goes from 0.08 to 0.04"),
        ([HEADER, *ROWS[:3], ROWS[5]], "line 5: time goes from 0.08 to 0.2, expected steps of 0.04"),
        ([HEADER, *(f"0{row[5:]}" for row in ROWS)], r"line 3: time goes from 0 to 0, but must increase.*set data\.fps=30"),
        ([HEADER, ROWS[0], ROWS[1][5:]], "line 3: time is empty; fill it in"),
        (
            [HEADER, *(f"00:00:00.0{row[2:]}" for row in ROWS)],
            r"expected a number of seconds, as 0\.05; .*leave the column out and set",
        ),
        (
            ["t,a_x,a_y", *(f"{t},1,2" for t in (0.01, 0.03, 0.11, 0.13, 0.21, 0.23, 0.31))],
            r"t increases unevenly, by 0\.02 to 0\.08, in line 3 .*; leave the column out and set data\.fps=20, or what it is",
        ),
        (["frame,a_x,a_y", "1,0,0", "3,0,0"], "line 3: frame goes from 1 to 3, expected steps of 1"),
        (["a_x,a_y,b_x", "1,2,3"], "joint 'b' has no column for y"),
        (["a_x,b_x", "1,2"], "joint 'a' has no column for y"),
        (["a_x,a_y,a_z,b_x,b_y", "1,2,3,4,5"], "joint 'b' has no column for z"),
        (["a_x,a_y,a_x", "1,2,3"], "two columns 'a_x'.*1 and 3"),
        (["a_x,a_y,wind", "1,2,3"], "column 3 is called 'wind'"),
        (["frame,time", "1,2"], "no column is of a joint"),
        (["1,2,3,4"], "4 columns without names are no multiple of 3"),
        ([""], "empty"),
        ([*deeplabcut("0,1,2,3,4,5")], "line 4 has 6 columns, the first has 7"),
        ([*deeplabcut("a,1,2,1,4,5,1")], "'a' has no number"),
        ([*deeplabcut("0,1,2,1,4,5,1", "0,1,2,1,4,5,1")], "two lines have the number of one frame"),
        (
            [*deeplabcut("img1.png,1,2,1,4,5,1", "img900.png,1,2,1,4,5,1", "img901.png,1,2,1,4,5,1")],
            "single pictures and no motion",
        ),
        ([deeplabcut()[0], deeplabcut()[1], "coords,x,y,z,x,y,q"], "column 7, .*B 'q'"),
        (["scorer,a,a", "1,2,3"], "its first lines are"),
        (["track,a_x,a_y", "1,2,3"], "none of frame, frame_idx"),
        (["keypoint,x,y", "a,2,3"], "a column 'keypoint' and none of frame"),
        ([SLEAP, "a,1.5,1,1,1,1,1,1,1"], "a frame has the number 1.5"),
    ],
)
def test_damage_is_located(tmp_path: Path, lines: list[str], named: str) -> None:
    with pytest.raises(DataError, match=named) as e:
        read(written(tmp_path / "bad.csv", *lines))
    assert str(e.value).startswith(str(tmp_path / "bad.csv"))


def test_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a_x,a_y\n1,\xff\n")
    with pytest.raises(DataError, match="byte 10 is no UTF-8 text"):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize("row", ["{};{};{}", "{}\t{}\t{}", '"{}","{}","{}"'])
@pytest.mark.parametrize("names", [True, False])
def test_numbers_may_have_commas_for_points(tmp_path: Path, row: str, names: bool) -> None:
    lines = [row.format("a_x", "a_y", "a_z")] * names + [row.format(f"{k}", f"-{k},25", "1,5e1") for k in range(3)]
    (r,) = read(written(tmp_path / "a.csv", *lines))
    assert r.positions[2].tolist() == [[2, -2.25, 15]] and len(r.positions) == 3


def test_tables_of_other_programs(tmp_path: Path) -> None:
    lines = ["Unnamed: 0,Time (s),NOSE_x,NOSE_y,LEFT_HIP_x,LEFT_HIP_y", *(f"{k},{k / 25},NA,2,3,null" for k in range(3))]
    path = written(tmp_path / "a.csv", *lines)
    path.write_text(path.read_text(), encoding="utf-16")
    (r,) = read(path)
    assert r.joints == ("nose", "left_hip") and r.fps == 25
    assert np.isnan(r.positions[1]).tolist() == [[True, False], [False, True]]
