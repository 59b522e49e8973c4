"""What every command does alike, tried on all of them: messages, statuses, sweeps."""

import os
import shlex
import sys
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from pytorch_lightning.utilities.exceptions import SIGTERMException

import inspect_data
from ddpm import command, errors, runs
from ddpm.errors import CheckpointError, WriteError
from ddpm.sweep import jobs, place_of_jobs
from ddpm.viz import sweep_page
from tests.commands import doors
from tests.commands.doors import DOORS

GIVEN = {"sample": ["ckpt=x"], "compare": ["ckpt=x"], "export": ["ckpt=x"]}
SWEPT = {"compare": "seed=8,9", "export": "half=true,false"}
Ran = tuple[int, str, str]
Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Call a command as from a shell, in an empty directory; gives its status and what it printed."""
    monkeypatch.chdir(tmp_path)

    def called(door: str, *arguments: str) -> Ran:
        done = doors.command(f"{door}.py", *arguments, cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr

    return called


def replace_work(monkeypatch: pytest.MonkeyPatch, door: str, work: Callable[[DictConfig], Any]) -> None:
    module: ModuleType = DOORS[door]
    monkeypatch.setattr(module, door, lambda cfg, *others: work(cfg))


@pytest.mark.parametrize("value", ["~/deep/run", "'~/deep/run'", '"~/deep/run"'])
def test_the_home_directory_is_written_out(value: str, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Most shells leave KEY=~/PLACE as it is typed."""
    seen: list[str] = []
    monkeypatch.setenv("HOME", str(tmp_path / "my home"))
    replace_work(monkeypatch, "sample", lambda cfg: seen.extend([cfg.ckpt, cfg.out]))
    assert run("sample", f"ckpt={value}", f"out={value}") == (0, "", "")
    assert seen == [str(tmp_path / "my home" / "deep" / "run")] * 2 and not (tmp_path / "~").exists()
    assert run("sample", "ckpt=~/a,~/b")[0] == 2, "two places are not one"


@pytest.mark.parametrize("door", DOORS)
def test_what_could_not_be_decoded_is_named(door: str, run: Run) -> None:
    ended, out, err = run(door, "out=a\udcc3b")
    assert ended == 2 and r"out=a\udcc3b" in out + err and "PYTHONUTF8=1" in out + err


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError("disk on fire"), 2),
        (WriteError("disk on fire"), 2),
        (CheckpointError("disk on fire"), 2),
        (ValueError("disk on fire \x1b[2J"), 2),
        (FloatingPointError("disk on fire"), 2),
        (KeyboardInterrupt(), 130),
        (SIGTERMException(), 143),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_is_expected_is_one_message(
    door: str, error: BaseException, status: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(cfg: DictConfig) -> None:
        raise error

    replace_work(monkeypatch, door, fail)
    ended, out, err = run(door, *GIVEN.get(door, []))
    assert ended == status and "Traceback" not in out + err and "\x1b" not in out + err
    if status == 2:
        said = f"{type(error).__name__}: {error}".replace("\x1b", "\\x1b")
        assert [line for line in (out + err).splitlines() if "disk on fire" in line] == [said]


@pytest.mark.parametrize("door", DOORS)
def test_what_killed_processes_left_goes_with_the_next_success(door: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stray = Path("o", ".clips.npz.tmp-99999999")
    stray.parent.mkdir()
    stray.touch()

    def fail(cfg: DictConfig) -> None:
        raise ValueError("an error")

    for work, status in ((fail, 2), (lambda cfg: None, 0)):
        replace_work(monkeypatch, door, work)
        assert run(door, *GIVEN.get(door, []), "out=o")[0] == status and stray.exists() == bool(status)


@pytest.mark.parametrize("door", DOORS)
def test_an_interrupted_training_is_an_interrupt(door: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def as_lightning(cfg: DictConfig) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    replace_work(monkeypatch, door, as_lightning)
    assert run(door, *GIVEN.get(door, []))[0] == 130


@pytest.mark.parametrize("door", DOORS)
def test_a_fault_of_the_code_keeps_its_traceback(door: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(cfg: DictConfig) -> None:
        raise KeyError("a fault")

    replace_work(monkeypatch, door, fail)
    with pytest.raises(KeyError, match="a fault"):
        run(door, *GIVEN.get(door, []))


@pytest.mark.parametrize("door", DOORS)
def test_everything_is_raised_if_asked_for(door: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(cfg: DictConfig) -> None:
        raise ValueError("an error")

    replace_work(monkeypatch, door, fail)
    monkeypatch.setattr(command, "WANTS_FULL", True)
    monkeypatch.setenv(command.FULL, "1")
    with pytest.raises(ValueError, match="an error"):
        run(door, *GIVEN.get(door, []))


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("fails", [False, True])
def test_every_job_of_a_sweep_runs(door: str, fails: bool, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one fails, or none; programs that a job starts see the environment as the user set it."""
    outs: list[str] = []

    def work(cfg: DictConfig) -> float:
        assert command.FULL not in os.environ
        outs.append(str(Path(cfg.out).relative_to(Path.cwd()) if Path(cfg.out).is_absolute() else cfg.out))
        if fails and len(outs) == 1:
            raise ValueError("the first job failed")
        return 0.5

    replace_work(monkeypatch, door, work)
    ended, out, err = run(door, "-m", *GIVEN.get(door, []), "out=o", SWEPT.get(door, "frames=8,9"))
    assert ended == 2 * fails and outs == ([f"o/{k}_frames-{8 + k}" for k in (0, 1)] if door == "train" else ["o/0", "o/1"])
    assert ("ValueError: the first job failed" in out) == fails and "Traceback" not in out + err


@pytest.mark.parametrize(
    ("door", "arguments", "key"),
    [
        ("train", ["data=ntu"], "data.root"),
        ("export", [], "ckpt"),
        ("evaluate", ["clips=x.npz", "data=ntu", "data.root=???"], "data.root"),
        ("compare", [], "ckpt"),
        ("inspect_data", ["data=ntu"], "data.root"),
    ],
)
def test_what_has_no_value_is_named(door: str, arguments: list[str], key: str, run: Run) -> None:
    ended, out, err = run(door, *arguments)
    assert ended == 2 and f"{key} has no value yet: give it as {key}=..." in out and "Traceback" not in out + err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nosuch=1"], "nosuch"),
        (["frames=many"], "many must be"),
        (["hydra.run.dir=taken/o"], "taken/o"),
    ],
)
@pytest.mark.parametrize("door", DOORS)
def test_errors_outside_of_the_job_are_one_message(
    door: str, arguments: list[str], named: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the composition, and where Hydra makes directories."""
    Path("taken").touch()
    replace_work(monkeypatch, door, lambda cfg: pytest.fail("it ran"))
    key = {"compare": "n", "export": "half"}.get(door, "frames")
    arguments = [argument.replace("frames", key) for argument in arguments]
    ended, out, err = run(door, *GIVEN.get(door, []), *arguments)
    assert ended == 2 and named in out + err and "Traceback" not in out + err


@pytest.mark.parametrize("mode", [[], ["-m", "seed=1,2"]])
def test_a_run_cannot_be_written_over_a_file(mode: list[str], run: Run) -> None:
    Path("taken").write_text("precious")
    ended, out, err = run("train", *mode, "out=taken")
    assert ended == 2 and "taken" in out + err and "Traceback" not in out + err and Path("taken").read_text() == "precious"


@pytest.mark.parametrize("door", DOORS)
def test_the_configuration_can_be_looked_at(door: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """inspect_data.py takes bare paths, and the word after --cfg is none."""
    arguments = ["--cfg", "job"]
    ended, out, _ = run(door, *(inspect_data.with_path(arguments) if door == "inspect_data" else arguments))
    assert ended == 0 and "\nout:" in f"\n{out}"


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("path", ["a (1)", "a,b", "[a", "a{b"])
def test_a_path_that_hydra_cannot_read_is_shown_as_it_is_to_be_typed(
    door: str, path: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And typed that way it arrives."""
    outs: list[str] = []
    replace_work(monkeypatch, door, lambda cfg: outs.append(cfg.out))
    ended, out, err = run(door, *GIVEN.get(door, []), f"out={path}")
    assert ended == 2 and f"if one text is meant, type \"out='{path}'\"" in out + err and "Traceback" not in out + err
    (quoted,) = shlex.split(errors.typed("out", path))
    assert run(door, *GIVEN.get(door, []), quoted)[0] == 0 and Path(outs[0]).name == path


@pytest.mark.parametrize("text", ["a", "a b", "a,b (1)", "it's [x]", "c:\\x\\", "q\\'z", "{x}", "123", "null", "$HOME", '"'])
def test_what_is_quoted_is_read_as_it_was(text: str) -> None:
    parsed = OverridesParser.create().parse_override(f"k={errors.quoted(text)}")
    assert parsed.value() == text and shlex.split(errors.typed("k", text)) in ([f"k={text}"], [f"k={errors.quoted(text)}"])


def test_starts_in_one_second_are_several_runs_and_sweeps(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Clock":
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(runs, "datetime", Clock)
    outs: list[str] = []
    replace_work(monkeypatch, "train", lambda cfg: outs.append(str(Path(cfg.out).relative_to(Path.cwd()))))
    for arguments in ([], [], ["-m", "seed=1,2"], ["-m", "seed=1,2"]):
        assert run("train", *arguments)[0] == 0
    name = "2026-01-02/03-04-05"
    assert outs[:2] == [f"outputs/{name}", f"outputs/{name}-2"]
    assert outs[2:] == [f"multirun/{name}{n}/{job}" for n in ("", "-2") for job in ("0_seed-1", "1_seed-2")]


def test_a_sweep_notes_itself_below_its_own_directory(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not over a file of the same name where the user stands."""
    for name in ("multirun.yaml", "FILE"):
        Path(name).write_text("mine")
    replace_work(monkeypatch, "sample", lambda cfg: None)
    assert run("sample", "-m", "ckpt=x", "n=1,2", "out=there")[0] == 0
    assert Path("multirun.yaml").read_text() == "mine" and Path("there/multirun.yaml").exists()
    status, said = run("sample", "-m", "ckpt=x", "n=1,2", "out=FILE")[:2]
    assert status == 2 and "out='FILE' must be a directory" in said


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_refused_start_changes_nothing_of_the_other(run: Run) -> None:
    checkpoints = Path("o", "checkpoints")
    checkpoints.mkdir(parents=True)
    (checkpoints / "last.ckpt").touch()
    Path("o", "train.log").write_text("of the other\n")
    with runs.locked(Path("o")):
        before = contents(Path("o"))
        for arguments in (["out=o"], ["out=o", "resume=auto"]):
            assert run("train", *arguments)[0] == 2 and contents(Path("o")) == before
    assert run("train", "out=o")[0] == 2 and contents(Path("o")) == before


def test_a_sweep_is_not_begun_in_another_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = {"train.log", runs.JOB}
    assert run("train", "-m", "out=o", "T=0,1")[0] == 2 and {path.name for path in Path("o").glob("*/*")} == logs
    replace_work(monkeypatch, "train", lambda cfg: Path(cfg.out, ".lock").touch())
    assert run("train", "-m", "out=o", "seed=1,2")[0] == 0, "a sweep of mistakes is no sweep"
    assert {path.parent.name for path in Path("o").glob("*/.lock")} == {path.name for path in Path("o").glob("*_*")}
    before = contents(Path("o"))
    ended, out, err = run("train", "-m", "out=o", "seed=3,4")
    assert ended == 2 and "there is a sweep in it already" in out + err and contents(Path("o")) == before
    assert run("train", "-m", "out=o", "seed=1,2", "resume=auto")[0] == 0


def test_a_sweep_goes_on_with_what_has_not_finished(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a value was added."""
    worked: list[str] = []

    def work(cfg: DictConfig) -> float:
        worked.append(Path(cfg.out).name)
        if len(worked) == 2:
            raise KeyboardInterrupt
        return 0.25

    replace_work(monkeypatch, "train", work)
    assert run("train", "-m", "seed=1,2")[0] == 130 and worked == ["0_seed-1", "1_seed-2"]
    (sweep,) = Path("multirun").glob("*/*")
    assert [job["status"] for _, job in jobs(sweep)] == ["finished", "interrupted"] and (sweep / "sweep.html").exists()
    ended, out, _ = run("train", "-m", "seed=1,3,2", f"resume={sweep}")
    assert ended == 0 and worked[2:] == ["1_seed-3", "1_seed-2"] and "0_seed-1: finished before, left as it is" in out
    assert "3 jobs: 3 finished" in out
    for other in (["T=5"], ["T=5,6"]):
        ended, out, err = run("train", "-m", *other, f"resume={sweep}")
        assert ended == 2 and f"-m seed=1,3,2 resume={sweep}" in out + err and len(worked) == 4
    monkeypatch.setattr(sys, "argv", ["train.py", "-m"])
    with pytest.raises(errors.ConfigError, match="vary seed, those of this command nothing"):
        place_of_jobs(None, str(sweep))
    (sweep / "multirun.yaml").write_text("hydra: {sweeper: {params: {seed: '1,2'}}}")
    assert place_of_jobs(None, str(sweep)) == str(sweep), "nothing is typed of a sweep that a file describes"


def test_a_report_that_fails_does_not_fail_the_sweep(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("no paper")

    monkeypatch.setattr(sweep_page, "write_sweep", broken)
    replace_work(monkeypatch, "train", lambda cfg: 0.5)
    ended, out, _ = run("train", "-m", "out=o", "seed=1,2")
    assert ended == 0 and "the report of the sweep could not be written" in out
    assert run("train", "out=single")[0] == 0 and not any(Path("single").glob("*"))
