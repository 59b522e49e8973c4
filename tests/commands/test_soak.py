"""Long runs: killed again and again, and never stopped."""

import os
import random
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
from tests.commands.test_resume import COMPARED, SMALL, assert_equal, state
from tests.configs import compose

ROOT = Path(__file__).parents[2]
KILLS, EPOCHS, STEPS = 50, 300, 2000


@pytest.mark.slow
def test_a_run_that_is_killed_fifty_times_is_the_run_that_never_was(tmp_path: Path) -> None:
    """SIGKILL at moments drawn at random, from the start of the process to long after its first checkpoints."""
    draw = random.Random(0)
    options = [*SMALL, "callbacks.last.every_n_steps=3", f"trainer.max_epochs={EPOCHS}"]
    command = [sys.executable, str(ROOT / "train.py"), *options]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, f"out={tmp_path / 'whole'}"], check=True, capture_output=True, env=env)
    began = time.monotonic()
    subprocess.run([*command, "--cfg", "job"], check=True, capture_output=True, env=env)
    start = time.monotonic() - began  # most of it
    kills, trained, out = 0, 0, tmp_path / "run"
    log = tmp_path / "printed"
    while True:
        with log.open("w") as printed:
            run = subprocess.Popen([*command, f"out={out}", "resume=auto"], stdout=printed, stderr=printed, env=env)
            try:
                status = run.wait(draw.uniform(0, 2 * start) if kills < KILLS else None)
            except subprocess.TimeoutExpired:
                run.send_signal(signal.SIGKILL)
                run.wait()
                kills, trained = kills + 1, trained + ("resuming from" in log.read_text())
                continue
        assert status == 0, log.read_text()
        if kills >= KILLS or state(out)["epoch"] >= EPOCHS - 1:
            break
    assert kills >= 0.4 * KILLS and trained >= 0.2 * KILLS, f"of {kills} kills {trained} met a run that went on"
    a, b = state(tmp_path / "whole"), state(out)
    for key in COMPARED:
        assert_equal(a[key], b[key], key)
    assert not [path for path in out.rglob(".*") if path.name != ".lock"], "nothing half-written is left"


class Meter(pl.Callback):
    """Notes memory, open files and files of the run every 250 steps."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.seen: list[tuple[int, int, int]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step % 250 == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            files = sum(1 for path in self.out.rglob("*") if path.is_file())
            self.seen.append((pages * os.sysconf("SC_PAGE_SIZE") >> 20, len(os.listdir("/proc/self/fd")), files))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
def test_memory_and_files_do_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Meter(tmp_path)
    monkeypatch.setattr(train_script, "StopBetweenBatches", lambda: meter)
    small = [o for o in SMALL if not o.startswith(("trainer.max_epochs", "loader.steps", "logger", "callbacks.last"))]
    length = [f"trainer.max_epochs={STEPS // 50}", "loader.steps_per_epoch=50", "callbacks.last.every_n_steps=25"]
    train_script.train(compose("config", [*small, *length, f"out={tmp_path}"]))
    (memory, open_files, files), last = meter.seen[1], meter.seen[-1]
    assert torch.tensor(meter.seen).shape == (STEPS // 250, 3)
    assert last[0] - memory < 40, f"MB, open files and files of the run every 250 steps: {meter.seen}"
    assert (last[1], last[2]) == (open_files, files), meter.seen
