"""Directories of sweeps and of their jobs, and which have finished."""

import math
import os
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from ddpm.errors import ConfigError
from ddpm.files import write_json
from ddpm.runs import JOB, sweep_directory
from ddpm.sweep import LONGEST, finished, job_directory, jobs


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("", "3"),
        ("T-100_model.model_channels-16", "3_T-100_model.model_channels-16"),
        ("optimizer.lr-1e-4", "3_optimizer.lr-1e-4"),
        ("data.root-/a b/../c", "3_data.root--a-b-..-c"),
        ("skeleton.keep-[left_leg,hip]", "3_skeleton.keep--left_leg-hip"),
        ("out-'a=b: \\\"*?<|>$HOME~'", "3_out--a-b-HOME"),
        ("data.root-gehört.", "3_data.root-geh-rt"),
        ("trainer-x" * 99, f"3_{'trainer-x' * 99}"[:LONGEST]),
    ],
)
def test_a_directory_is_named_by_what_varies(name: str, directory: str, tmp_path: Path) -> None:
    """And nobody wants it quoted."""
    assert job_directory(3, name, str(tmp_path), None) == directory
    assert (
        OverridesParser.create().parse_override(f"ckpt=a/{directory}").value() == f"a/{directory}" and len(directory) <= LONGEST
    )


def test_a_job_that_goes_on_has_the_directory_it_had(tmp_path: Path) -> None:
    job = {"overrides": [], "varied": {}, "status": "failed"}
    for number, name in ((0, "T-5"), (1, "T-5"), (2, "T-6")):
        write_json(tmp_path / f"{number}_{name}" / JOB, job | {"number": number, "name": name})
    (tmp_path / "4" / "checkpoints").mkdir(parents=True)
    for folder, record in (("5", "no record"), ("6", "[]"), ("7", '{"number": "1", "name": "T-7"}')):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / JOB).write_text(record)
    wanted = {(1, "T-5"): "1_T-5", (2, "T-5"): "0_T-5", (3, "T-6"): "2_T-6", (4, "T-7"): "4", (5, "T-7"): "5_T-7"}
    assert {(n, name): job_directory(n, name, str(tmp_path), "auto") for n, name in wanted} == wanted
    assert job_directory(1, "T-6", str(tmp_path), None) == "1_T-6"


def test_what_has_finished_did_so_with_the_same_command_line(tmp_path: Path) -> None:
    job = {"number": 0, "name": "", "overrides": ["T=5", "out=o"], "varied": {}, "status": "finished", "value": 0.5}
    for status, value in (("finished", 0.5), ("failed", None), ("interrupted", None)):
        write_json(tmp_path / JOB, job | {"status": status})
        assert finished(tmp_path, ["resume=auto", "T=5"]) == value
        assert finished(tmp_path, ["T=5", "trainer.max_epochs=9"]) is None
    write_json(tmp_path / JOB, job | {"value": math.nan})
    assert math.isnan(finished(tmp_path, ["T=5"]) or 0)
    for damage in ({"value": "x"}, {"overrides": [5]}, {"varied": {"T": 5}}, {"error": None}):
        (tmp_path / "0").mkdir(exist_ok=True)
        write_json(tmp_path / "0" / JOB, job | damage)
        assert finished(tmp_path / "0", ["T=5"]) is None and jobs(tmp_path) == []


def test_a_sweep_is_found_by_its_directory_or_as_the_latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sweep_directory(None, "auto").startswith("multirun/"), "there is none yet"
    for second in (1, 3, 2):
        write_json(Path(f"multirun/day/{second}/0_T-5/{JOB}"), {})
        os.utime(f"multirun/day/{second}/0_T-5/{JOB}", (second, second))
    assert sweep_directory(None, "auto") == "multirun/day/3" and sweep_directory(None, "multirun/day/1") == "multirun/day/1"
    assert sweep_directory("multirun/day/2", "auto") == sweep_directory("multirun/day/2/", "multirun/day/2") == "multirun/day/2"
    for out, resume, said in ((None, "multirun", "there is no sweep in it"), ("o", "multirun/day/1", "leave out=o away")):
        with pytest.raises(ConfigError, match=said):
            sweep_directory(out, resume)
