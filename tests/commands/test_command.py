"""What every command does alike, tried on all of them: messages, statuses, sweeps."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from omegaconf import DictConfig
from pytorch_lightning.utilities.exceptions import SIGTERMException

import compare
import evaluate
import inspect_data
import sample
import train
from ddpm import command
from ddpm.errors import CheckpointError, WriteError

DOORS = {module.__name__: module for module in (train, sample, evaluate, compare, inspect_data)}
GIVEN = {"sample": ["ckpt=x"], "compare": ["ckpt=x"]}
Ran = tuple[int, str, str]
Run = Callable[..., Ran]


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    """Hydra configures the logging of the whole process, which other tests share."""

    def levels() -> dict[str, int]:
        named = logging.root.manager.loggerDict.items()
        return {"root": logging.root.level} | {name: it.level for name, it in named if isinstance(it, logging.Logger)}

    before = levels()
    yield
    for name in levels():
        logging.getLogger(name).setLevel(before.get(name, logging.NOTSET))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], logging_as_it_was: None) -> Run:
    """Call a command as from a shell, in an empty directory; gives its status and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv(command.FULL, raising=False)

    def called(door: str, *arguments: str) -> Ran:
        monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a new process
        monkeypatch.setattr(sys, "argv", [f"{door}.py", *arguments])
        try:
            DOORS[door].main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        assert command.FULL not in os.environ
        return status, *capsys.readouterr()

    return called


def replace_work(monkeypatch: pytest.MonkeyPatch, door: str, work: Callable[[DictConfig], Any]) -> None:
    module: ModuleType = DOORS[door]
    monkeypatch.setattr(module, door, lambda cfg, *others: work(cfg))


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError("disk on fire"), 1),
        (WriteError("disk on fire"), 1),
        (CheckpointError("disk on fire"), 1),
        (ValueError("disk on fire \x1b[2J"), 1),
        (FloatingPointError("disk on fire"), 1),
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
    if status == 1:
        said = f"{type(error).__name__}: {error}".replace("\x1b", "\\x1b")
        assert [line for line in (out + err).splitlines() if "disk on fire" in line] == [said]


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
    ended, out, err = run(door, "-m", *GIVEN.get(door, []), "out=o", "frames=8,9" if door != "compare" else "seed=8,9")
    assert ended == int(fails) and outs == ["o/0", "o/1"]
    assert ("ValueError: the first job failed" in out) == fails and "Traceback" not in out + err


@pytest.mark.parametrize(
    ("door", "arguments", "key"),
    [
        ("train", ["data=ntu"], "data.root"),
        ("sample", [], "ckpt"),
        ("evaluate", ["clips=x.npz", "data=ntu", "data.root=???"], "data.root"),
        ("compare", [], "ckpt"),
        ("inspect_data", ["data=ntu"], "data.root"),
    ],
)
def test_what_has_no_value_is_named(door: str, arguments: list[str], key: str, run: Run) -> None:
    ended, out, err = run(door, *arguments)
    assert ended == 1 and f"{key} has no value yet: give it as {key}=..." in out and "Traceback" not in out + err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nosuch=1"], "nosuch"),
        (["frames=many"], "'many'"),
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
    arguments = [argument.replace("frames", "n") if door == "compare" else argument for argument in arguments]
    ended, out, err = run(door, *GIVEN.get(door, []), *arguments)
    assert ended == 1 and named in out + err and "Traceback" not in out + err


@pytest.mark.parametrize("mode", [[], ["-m", "seed=1,2"]])
def test_a_run_cannot_be_written_over_a_file(mode: list[str], run: Run) -> None:
    Path("taken").write_text("precious")
    ended, out, err = run("train", *mode, "out=taken")
    assert ended == 1 and "taken" in out + err and "Traceback" not in out + err and Path("taken").read_text() == "precious"


@pytest.mark.parametrize("door", DOORS)
def test_the_configuration_can_be_looked_at(door: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """inspect_data.py takes bare paths, and the word after --cfg is none."""
    arguments = ["--cfg", "job"]
    ended, out, _ = run(door, *(inspect_data.with_path(arguments) if door == "inspect_data" else arguments))
    assert ended == 0 and "\nout:" in f"\n{out}"
