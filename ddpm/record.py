"""run.json: how a run was made, start by start, and what differs from the previous start."""

import json
import logging
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ddpm.files import write_json
from ddpm.memory import machine_memory
from ddpm.runs import versions

log = logging.getLogger(__name__)

NAME = "run.json"
COMPARED = ("versions", "commit", "data", "machine")
"""What of a start is compared with the one before."""


def record_start(out: Path, data: Mapping[str, Any]) -> None:
    """Add this start to the record of a run, and warn of what differs from the one before.

    Args:
        out: the directory of the run.
        data: what the data are, such as number of recordings and their hash.
    """
    starts = _starts(out)
    now: dict[str, Any] = {
        **{"command": [Path(sys.argv[0]).name, *sys.argv[1:]], "started": _time(), "ended": None},
        **{"versions": versions(), "commit": _commit(), "data": dict(data), "machine": _machine()},
    }
    for key in COMPARED if starts else ():
        before = starts[-1].get(key)
        if not isinstance(before, dict):
            continue
        for name in now[key]:
            if before.get(name) != now[key][name]:
                log.warning("%s.%s=%s now, %s at the last start", key, name, now[key][name], before.get(name))
    write_json(out / NAME, {"starts": [*starts, now]})


def record_end(out: Path, steps: int, results: Mapping[str, float]) -> None:
    """Note in the record when the last start ended, at which step, and what was measured last."""
    starts = _starts(out)
    if starts:
        end = {"ended": _time(), "steps": steps, "results": dict(results)}
        write_json(out / NAME, {"starts": [*starts[:-1], {**starts[-1], **end}]})


def outcome(out: Path) -> dict[str, float | None]:
    """What a run's record says of it: the last of every result, ``steps``, and ``seconds`` of all starts together."""
    found: dict[str, float | None] = {}
    for start in _starts(out):
        try:
            began, ended = (datetime.fromisoformat(start[key]) for key in ("started", "ended"))
            end = {**start.get("results", {}), "steps": start["steps"]}
            seconds = (found.get("seconds") or 0.0) + (ended - began).total_seconds()
            if [math.isfinite(value) for value in end.values() if value is not None]:
                found |= end | {"seconds": seconds}
        except (KeyError, ValueError, TypeError, OverflowError):  # a start that has not ended, or no record of one
            continue
    return found


def _starts(out: Path) -> list[dict[str, Any]]:
    """The starts that are recorded; none of a file that is not there or is no record."""
    try:
        found = json.loads((out / NAME).read_text())["starts"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    return found if isinstance(found, list) and all(isinstance(start, dict) for start in found) else []


def _time() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _commit() -> dict[str, Any]:
    """Commit of the project, and whether its files are as they were committed; null outside of a checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10).stdout

    try:
        commit = git("rev-parse", "HEAD").strip()
        inside = commit and Path(git("rev-parse", "--show-toplevel").strip()) == Path(__file__).parents[1]
        changed = git("status", "--porcelain", "--untracked-files=no").strip() if inside else ""
    except (OSError, subprocess.TimeoutExpired):
        inside, commit, changed = False, "", ""
    return {"id": commit, "clean": not changed} if inside else {"id": None, "clean": None}


def _machine() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        **{"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        **{"threads": torch.get_num_threads(), "gpu": gpu, "memory": machine_memory()},
    }
