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
    r = read(written(tmp_path / "a.csv", *(line.replace(",", separator) for line in (HEADER, *ROWS)), newline=newline))
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
    r = read(written(tmp_path / "a.csv", "time,a_x,a_y", *rows))
    assert r.fps == pytest.approx(rate, rel=1e-5)
    assert (r.note or "").endswith({1: "", 1e3: "in milliseconds", 1e6: "in microseconds", 1e9: "in nanoseconds"}[unit])


def test_columns_may_be_anywhere(tmp_path: Path) -> None:
    r = read(written(tmp_path / "a.csv", '\ufeff"frame","b_y","a_y","a_x","b_x"', "4,1,2,3,4", "5,5,6,7,8"))
    assert r.joints == ("b", "a") and r.fps is None and r.confidence is None
    assert r.positions.tolist() == [[[4, 1], [3, 2]], [[8, 5], [7, 6]]]


def test_numbers_without_names(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "1,2,3,4,5,6", "7,8,9,1e1,-11,.5")
    assert read(path).positions.tolist() == [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, -11, 0.5]]]
    assert read(path, coords=2).positions.shape == (2, 3, 2) and read(path).joints is None


def test_empty_cells_are_lost_positions(tmp_path: Path) -> None:
    r = read(written(tmp_path / "a.csv", "a_x,a_y,b_x,b_y", "1,,2,3", "1,2, ,nan"))
    assert np.isnan(r.positions).tolist() == [[[False, True], [False, False]], [[False, False], [True, True]]]


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ([HEADER, *ROWS[:3], "0.12,3,1"], "line 5 has 3 columns, the first has 8.*truncated"),
        ([HEADER, *ROWS[:3], ROWS[3].replace("4", "four")], "line 5, column 6 is 'four', expected a number"),
        ([HEADER, ROWS[0], ROWS[1].replace("3", "inf", 1)], r"line 3, head\.X is infinite"),
        ([HEADER, *ROWS[:3], ROWS[1], *ROWS[2:]], "line 5: time goes from 0.08 to 0.04"),
        ([HEADER, *ROWS[:3], ROWS[5]], "line 5: time goes from 0.08 to 0.2, expected steps of 0.04"),
        (["frame,a_x,a_y", "1,0,0", "3,0,0"], "line 3: frame goes from 1 to 3, expected steps of 1"),
        (["a_x,a_y,b_x", "1,2,3"], "joint 'b' has no column for y"),
        (["a_x,b_x", "1,2"], "joint 'a' has no column for y"),
        (["a_x,a_y,a_z,b_x,b_y", "1,2,3,4,5"], "joint 'b' has no column for z"),
        (["a_x,a_y,a_x", "1,2,3"], "two columns 'a_x'.*1 and 3"),
        (["a_x,a_y,wind", "1,2,3"], "column 3 is called 'wind'"),
        (["frame,time", "1,2"], "no column is of a joint"),
        (["1,2,3,4"], "4 columns without names are no multiple of 3"),
        ([""], "empty"),
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
