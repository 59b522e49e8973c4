"""What a run does when it is told to stop."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

import train as train_script
from callbacks.interrupt import StopBetweenBatches
from tests.commands import doors
from tests.commands.test_resume import SMALL

ROOT = Path(__file__).parents[2]


class Signalled(StopBetweenBatches):
    """Ctrl-C in the sixth step."""

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step == 6:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_saves_and_the_run_can_be_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [*SMALL, f"out={tmp_path}", "callbacks.last.every_n_steps=1000000", "trainer.max_epochs=20"]
    with monkeypatch.context() as patch:
        patch.setattr(train_script, "StopBetweenBatches", Signalled)
        stopped = doors.command("train.py", *options, cwd=tmp_path)
    assert stopped.returncode == 130, stopped.stdout + stopped.stderr
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6
    resumes(tmp_path)


@pytest.mark.parametrize(("sent", "status"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_run_can_be_resumed(sent: signal.Signals, status: int, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), *SMALL, f"out={tmp_path}", "callbacks.last.every_n_steps=1000000"]
    log = (tmp_path / "printed").open("w")
    run = subprocess.Popen(
        [*command, "trainer.max_epochs=100000"], stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    last = tmp_path / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists():
        assert run.poll() is None and time.monotonic() < deadline, (tmp_path / "printed").read_text()
        time.sleep(0.05)
    run.send_signal(sent)
    assert run.wait(60) == status, (tmp_path / "printed").read_text()
    resumes(tmp_path)


def resumes(out: Path) -> None:
    """What a stopped run leaves is sound, and goes on to the end of its epoch."""
    last = out / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    batches = content["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]
    assert content["global_step"] == batches["processed"] > 0, "weights and counters agree"
    assert not list(last.parent.glob(".*")), "no temporary file is left"
    epochs = content["epoch"] + 1
    resumed = doors.command("train.py", f"resume={last}", f"trainer.max_epochs={epochs}", cwd=out)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert torch.load(last, weights_only=True)["global_step"] == 4 * epochs


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a process learns of the end of its parent on Linux alone")
@pytest.mark.parametrize("killed", ["the first", "the second"])
def test_no_process_of_a_distributed_run_outlives_another(killed: str, tmp_path: Path) -> None:
    two = ["trainer.devices=2", "+trainer.strategy=ddp", "trainer.max_epochs=100000"]
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    with (tmp_path / "printed").open("w") as log:
        run = subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *SMALL, *two, f"out={tmp_path / 'run'}", "cache=null"],
            stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not last.exists():
            assert run.poll() is None and time.monotonic() < deadline, (tmp_path / "printed").read_text()
            time.sleep(0.05)
        (other,) = (pid for pid in alive(run.pid) if pid != run.pid)
        os.kill(run.pid if killed == "the first" else other, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while alive(run.pid):
            run.poll()
            assert time.monotonic() < deadline, f"still there: {alive(run.pid)}"
            time.sleep(0.1)
    finally:
        if alive(run.pid):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait(10)


def alive(group: int) -> list[int]:
    """The processes of a group that run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has just ended
            continue
        if int(pgrp) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found
