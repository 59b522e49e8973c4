"""run.json: what a run was made with, and what is another when it goes on."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest

from ddpm import record
from ddpm.runs import PRODUCTS

DATA = {"recordings": 3, "sha256": "a"}


def read(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / record.NAME).read_text())["starts"]


def test_every_start_is_recorded_with_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record.record_start(tmp_path, DATA)
    (start,) = read(tmp_path)
    assert start["ended"] is None and start["data"] == DATA and set(record.COMPARED) <= start.keys()
    assert start["command"] and start["versions"]["torch"] and start["machine"]["memory"] > 0
    record.record_end(tmp_path, 7, {"val/loss": 0.5, "n": 64})
    record.record_start(tmp_path, DATA)
    first, second = read(tmp_path)
    assert first["ended"] >= first["started"] and first["steps"] == 7 and second["ended"] is None
    assert not caplog.records and record.NAME in PRODUCTS
    record.record_end(tmp_path, 9, {"val/loss": math.nan})
    found = record.outcome(tmp_path)
    assert found.pop("seconds") in (0, 1, 2) and found == {"val/loss": None, "n": 64, "steps": 9}


@pytest.mark.parametrize(
    ("key", "name", "value"),
    [("versions", "torch", "1.0"), ("commit", "id", "0"), ("data", "sha256", "b"), ("machine", "cores", 0)],
)
def test_what_differs_at_the_next_start_is_said_in_a_line(
    key: str, name: str, value: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record.record_start(tmp_path, DATA)
    starts = read(tmp_path)
    starts[0][key][name] = value
    (tmp_path / record.NAME).write_text(json.dumps({"starts": starts}))
    with caplog.at_level(logging.WARNING):
        record.record_start(tmp_path, DATA)
    (said,) = (entry.getMessage() for entry in caplog.records)
    assert f"{key}.{name}=" in said and str(value) in said and "\n" not in said


@pytest.mark.parametrize(
    "damage",
    [{"ended": "x"}, {"ended": 5}, {"started": "2026-01-01T00:00:00"}, {"steps": "x"}, {"results": 5}]
    + [{"results": {"val/loss": value}} for value in ("x", [1], 10**400)],
)  # fmt: skip
def test_a_start_with_a_damaged_end_counts_as_one_without(damage: dict[str, object], tmp_path: Path) -> None:
    times = {"started": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T00:01:00+00:00"}
    whole = times | {"steps": 5, "results": {"val/loss": 1.0}}
    (tmp_path / record.NAME).write_text(json.dumps({"starts": [whole, whole | damage]}))
    assert record.outcome(tmp_path) == {"val/loss": 1.0, "steps": 5, "seconds": 60.0}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"starts": 3}', '{"starts": [3]}', '{"starts": [{"versions": 1}]}', "[" * 2000]
)
def test_a_record_that_is_none_stops_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / record.NAME).write_text(content)
    assert record.outcome(tmp_path) == {}
    record.record_end(tmp_path, 1, {})
    record.record_start(tmp_path, DATA)
    assert read(tmp_path)[-1]["data"] == DATA


def test_outside_of_a_checkout_there_is_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(record, "__file__", str(tmp_path / "ddpm" / "record.py"))
    (tmp_path / "ddpm").mkdir()
    assert record._commit() == {"id": None, "clean": None}
