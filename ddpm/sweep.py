"""Sweeps: directories and results of their jobs, and a table and a page of all jobs at the end."""

# pyright: reportIncompatibleMethodOverride=false
# Hydra's own methods have **kwargs, which swallow what is misspelt.

import contextlib
import json
import logging
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ddpm.command import message
from ddpm.config import fits
from ddpm.errors import ConfigError, ProjectError, quoted
from ddpm.files import write_json
from ddpm.record import outcome
from ddpm.resuming import OWN, override_key
from ddpm.runs import JOB, sweep_directory

log = logging.getLogger(__name__)

LONGEST = 80
"""Characters of the name of a job's directory."""
EXCLUDED = "hydra.job.config.override_dirname.exclude_keys"
_swept: list[tuple[Path, DictConfig]] = []
"""Directory and configuration of the sweep that this process runs."""


def job_directory(number: int, name: str, sweep: str, resume: str | None) -> str:
    """Where a job goes below the directory of its sweep: ``0_T-100_model.model_channels-16``.

    It holds nothing that a file system, a shell or Hydra's command line would want quoted. In a sweep that goes on it is that of
    the job with these values, also where values that were added have moved its number.

    Args:
        number: of the job.
        name: what it does not share with the others, as ``hydra.job.override_dirname`` has it.
        sweep: directory of the sweep.
        resume: whether the sweep goes on.
    """
    if resume is not None:
        alike = [path.name for path, job in jobs(Path(sweep)) if job["name"] == name]
        numbered = [folder for folder in alike if folder.partition("_")[0] == str(number)]
        earlier = [str(number)] if Path(sweep, str(number), "checkpoints").is_dir() else []  # as earlier versions named it
        if found := [*numbered, *alike, *earlier]:
            return found[0]
    return f"{number}_{re.sub('[^A-Za-z0-9.+_-]+', '-', name)}"[:LONGEST].rstrip("-_.")


def place_of_jobs(out: str | None, resume: str | None) -> str:
    """See `ddpm.runs.sweep_directory`; a ConfigError also for a command that goes on with a sweep but has none of its jobs."""
    place, typed = sweep_directory(out, resume), [word for word in sys.argv[1:] if "=" in word and word[0] != "-"]
    known = jobs(Path(place)) if resume is not None and not {"-m", "--multirun"}.isdisjoint(sys.argv) else []
    varied = {o.key_or_group for o in OverridesParser.create().parse_overrides(typed if known else []) if o.is_sweep_override()}
    begun_by = Path(place, "multirun.yaml")  # of what a file sweeps over nothing is typed
    by_file = begun_by.is_file() and OmegaConf.select(OmegaConf.load(begun_by), "hydra.sweeper.params")
    if known and not by_file and all(varied != set(job["varied"]) for _, job in known):
        first, keys = known[0][1]["overrides"], list(known[0][1]["varied"])
        values = {key: dict.fromkeys(job["varied"][key] for _, job in known if key in job["varied"]) for key in keys}
        begun = [
            *(o for o in first if override_key(o) not in ("out", "resume", *keys)),
            *(f"{key}={','.join(values[key])}" for key in keys),
        ]
        raise ConfigError(
            f"resume={resume}: the jobs of that sweep vary {', '.join(keys)}, those of this command "
            f"{', '.join(varied) or 'nothing'}; a sweep goes on with the command that began it: "
            f"-m {shlex.join([*begun, f'resume={place}'])}"
        )
    return place


# Here, and not in train.py, for the processes of a launcher import this module with the callback below.
OmegaConf.register_new_resolver("sweep_dir", place_of_jobs, replace=True, use_cache=True)
OmegaConf.register_new_resolver("job_dir", job_directory, replace=True)


class Sweep(Callback):
    """What Hydra calls at the beginning of a sweep, and around every job in whatever process that runs."""

    def on_multirun_start(self, config: DictConfig, config_name: str | None) -> None:
        """Let the names of jobs have the keys that vary, and no others."""
        _swept.clear()
        given = {o.key_or_group: o for o in OverridesParser.create().parse_overrides([*config.hydra.overrides.task])}
        fixed = [key for key, override in given.items() if not override.is_sweep_override()]
        config.hydra.overrides.hydra.append(f"{EXCLUDED}=[{','.join(map(quoted, fixed))}]")
        with contextlib.suppress(OmegaConfBaseException, ProjectError):  # Hydra's sweeper reports a wrong place next
            _swept.append((Path(str(config.hydra.sweep.dir)), config))

    def on_job_start(self, config: DictConfig, *, task_function: TaskFunction) -> None:
        """Note that a job of a sweep has begun."""
        out, overrides = Path(config.hydra.runtime.output_dir), list(config.hydra.overrides.task)
        if config.hydra.mode == RunMode.MULTIRUN and finished(out, overrides) is None:
            fixed = OmegaConf.select(config, EXCLUDED)
            job = {"number": config.hydra.job.num, "name": config.hydra.job.override_dirname, "overrides": overrides}
            varied = {override_key(o): o.partition("=")[2] for o in overrides if override_key(o) not in fixed}
            write_json(out / JOB, job | {"varied": varied, "status": "interrupted"})

    def on_job_end(self, config: DictConfig, job_return: JobReturn) -> None:
        """Note how it ended."""
        if config.hydra.mode == RunMode.MULTIRUN:
            # Private: the public return_value raises the error of a job that failed.
            out, value = Path(config.hydra.runtime.output_dir), job_return._return_value
            if job_return.status == JobStatus.COMPLETED:
                end = {"status": "finished", "value": value}
            else:
                end = {"status": "failed", "error": message(value)}
            if (job := _record(out)) is not None:  # None: removed, and then not in the table
                write_json(out / JOB, job | end)


def finished(out: Path, overrides: Sequence[str]) -> float | None:
    """What a job of a sweep that has finished with this command line returned, None of another."""

    def decisive(given: Sequence[str]) -> set[str]:
        return {o for o in given if override_key(o) not in OWN}

    job = _record(out)
    if job is None or job["status"] != "finished" or decisive(job["overrides"]) != decisive(overrides):
        return None
    return float("nan") if job["value"] is None else job["value"]


def jobs(sweep: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Directory and record of every job of a sweep, in their order."""
    found = [(path.parent, job) for path in sweep.glob(f"*/{JOB}") if (job := _record(path.parent)) is not None]
    return sorted(found, key=lambda pair: (pair[1]["number"], pair[0]))


def _record(out: Path) -> dict[str, Any] | None:
    """What is noted of a job; None of a file that is not there or is no record."""
    try:
        job = json.loads((out / JOB).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    kinds = {"number": int, "name": str, "overrides": list, "varied": dict, "status": str}
    if not isinstance(job, dict) or not all(isinstance(job.get(key), kind) for key, kind in kinds.items()):
        return None
    texts = [*job["overrides"], *job["varied"].values(), job.setdefault("error", "")]
    value = job.setdefault("value", None)
    return job if all(isinstance(text, str) for text in texts) and (value is None or fits(value, float)) else None


def report() -> None:
    """Write ``sweep.csv`` and ``sweep.html`` of the sweep that this process ran, if it ran one, however it ended.

    Hydra's on_multirun_end would not do: it is not called where a job has failed. What cannot be written is a warning.
    """
    for sweep, config in _swept:
        try:
            from ddpm.viz.sweep_page import Job, write_sweep

            found = [
                Job(folder, job["varied"], job["status"], job.get("error", ""), outcome(folder)) for folder, job in jobs(sweep)
            ]
            best = OmegaConf.select(config, "callbacks.best") or {}
            if found:
                log.info("%s", write_sweep(sweep, found, best.get("monitor", "val/loss"), best.get("mode", "min")))
        except Exception:  # the jobs are done, an error here must not fail them
            log.warning("%s: the report of the sweep could not be written", sweep, exc_info=True)
    _swept.clear()
