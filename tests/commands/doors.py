"""Commands called as from a shell."""

import contextlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra._internal.hydra import Hydra

import compare
import evaluate
import export
import inspect_data
import sample
import train
from ddpm.command import FULL

ROOT = Path(__file__).parents[2]
DOORS = {module.__name__: module for module in (train, sample, evaluate, compare, export, inspect_data)}


def command(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in this process, which has loaded its libraries, as if from a shell in a directory."""
    out, err = io.StringIO(), io.StringIO()
    with (
        logging_as_it_was(),
        forgotten(cwd),
        pytest.MonkeyPatch.context() as patch,
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(sys, "argv", [script, *arguments])
        patch.setattr(logging.getLogger(), "handlers", [])
        patch.delenv(FULL, raising=False)
        if not any("hydra" in argument for argument in arguments):  # Hydra composes all of it once more to look for a mode
            patch.setattr(Hydra, "get_mode", lambda *_, **__: None)
        try:
            DOORS[script.removesuffix(".py")].main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        assert FULL not in os.environ
    return subprocess.CompletedProcess([script, *arguments], status, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def forgotten(folder: Path) -> Iterator[None]:
    """What is imported from a directory inside this context is not there for other tests, whose packages have the same names."""
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).is_relative_to(folder):
                del sys.modules[name]


@contextlib.contextmanager
def logging_as_it_was() -> Iterator[None]:
    """Hydra configures the logging of the whole process, which other tests share: put it back."""

    def loggers() -> list[logging.Logger]:
        return [logging.root, *(it for it in logging.root.manager.loggerDict.values() if isinstance(it, logging.Logger))]

    before = {it.name: (it.level, it.disabled, it.propagate) for it in loggers()}
    try:
        yield
    finally:
        for it in loggers():
            level, it.disabled, it.propagate = before.get(it.name, (logging.NOTSET, False, True))
            it.setLevel(level)


def process(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, for what starts others or counts its starts."""
    environment = {key: value for key, value in os.environ.items() if key != FULL} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(ROOT / script), *arguments], cwd=cwd, capture_output=True, text=True, env=environment, timeout=300
    )
