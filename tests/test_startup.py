"""While its libraries are loaded a command ends quietly on Ctrl-C, and a rank with the process that started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BEGIN = "import os, signal, subprocess, sys, time; from ddpm import startup; startup.begin(); "


def start(code: str) -> subprocess.Popen[str]:
    """With Ctrl-C as in a terminal: what a shell starts in the background ignores it, and what that starts too."""
    command = [sys.executable, "-c", code]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


@pytest.mark.parametrize(("after", "said"), [("", ""), ("startup.loaded(); ", "KeyboardInterrupt")])
def test_an_interrupt_is_quiet_until_all_is_loaded(after: str, said: str) -> None:
    process = start(f"{BEGIN}{after}print('begun', flush=True); time.sleep(60)")
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=60)[0]
    assert said in printed and (said or (process.returncode, printed) == (130, ""))


def test_an_ignored_interrupt_stays_ignored() -> None:
    """As of a command in the background of a script."""
    ignored = start(f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {BEGIN}print(repr(signal.getsignal(2)))")
    assert "SIG_IGN" in ignored.communicate(timeout=60)[0]


def test_what_the_terminal_cannot_show_is_printed_in_ascii() -> None:
    code = f"{BEGIN}print('w\u00e4lk')"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert (printed.returncode, printed.stdout) == (0, b"w\\xe4lk\n")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_a_rank_ends_with_the_process_that_started_it() -> None:
    rank = f"{BEGIN}print(os.getpid(), flush=True); time.sleep(60)"
    parent = start(
        f"import os, subprocess, sys; subprocess.run([sys.executable, '-c', {rank!r}], env=os.environ | {{'LOCAL_RANK': '1'}})"
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
