"""Going on with a run: from which checkpoint, with which command line, and whether it is the same run and a whole one."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from ddpm.checkpoint import DamagedError, checkpoint_of, read_checkpoint
from ddpm.config import WRITING
from ddpm.errors import CheckpointError, ConfigError
from ddpm.module import MotionDiffusion

log = logging.getLogger(__name__)

SAVED = (
    "T",
    "frames",
    "seed",
    "model",
    "schedule",
    "prediction",
    "weighting",
    "timesteps",
    "variance",
    "motion_loss",
    "condition",
    "project",
    "travel",
    "sampler",
    "skeleton",
    "data",
    "loader",
    "split_list",
    "optimizer",
    "lr_scheduler",
    "trainer",
    "ema",
)
"""What of the configuration a checkpoint keeps: all that decides what is learned."""


MAY_DIFFER = (
    *("sampler", "project", "condition.guidance", "condition.interval", "data.root", "data.fps", "loader.num_workers"),
    *("skeleton.parts", "data.skeleton.parts", "optimizer.fused"),
    *("trainer.max_", "trainer.accelerator", "trainer.log_every_n_steps", "trainer.check_val", "trainer.fast_dev_run"),
)
"""What may be changed when a run is resumed; the rest would make it another run."""


EARLIER = {
    **{"travel": "positions", "loader.facing": False, "data.skip": 0, "data.on_outlier": "refuse"},
    **{"skeleton.up": "y", "data.skeleton.up": "y", "prediction.travel_by_label": False},
    **{"data.subject": "None", "loader.draws": "equal"},
}
"""Values of keys in runs of versions that did not have them."""


OWN = ("out", "resume", "cache", "trust")
"""Keys of the present command line alone."""


RENAMED = {"variance=learnt": "variance=learned"}
"""Options of groups that earlier versions called otherwise."""


def checkpoint_to_resume(resume: str | None, out: Path) -> Path | None:
    """The checkpoint that ``resume`` names: none, that of ``out`` if there is one (auto), a file, or the last of a run.

    Raises:
        CheckpointError: it was named and is not there.
        ConfigError: see `refuse_links`.
    """
    if resume is None:
        return None
    refuse_links(out)
    if resume == "auto":
        if not any((out / "checkpoints").glob("*.ckpt")):
            return None
        path = checkpoint_of(out)
        try:
            read_checkpoint(path)
        except DamagedError as error:
            log.warning("%s. There is no other in %s: starting anew", error, path.parent)
            return None
        return path
    path = checkpoint_of(resume)
    if not path.is_file():
        raise CheckpointError(f"resume={resume}: there is no {path}; resume=auto starts anew where there is nothing to resume")
    if path.resolve().parent.parent != out.resolve():
        raise ConfigError(
            f"resume={resume}: a run is continued in its own directory, from a file in its checkpoints folder, and not in {out}; "
            f"finetune={resume} begins a new run with its weights"
        )
    return path


def overrides_of(checkpoint: Path, overrides: Sequence[str]) -> list[str]:
    """The command line that a run was begun with, changed by another one.

    Raises:
        CheckpointError: it is none, or does more than to choose and to set values.
    """
    begun: list[str] = read_checkpoint(checkpoint).get("hyper_parameters", {}).get("overrides", [])
    if not isinstance(begun, list) or not all(isinstance(o, str) for o in begun):
        raise CheckpointError(f"{checkpoint}: not a checkpoint of this project: its overrides are no list of texts")
    begun = [RENAMED.get(o, o) for o in begun]
    foreign = [o for o in begun if override_key(o).strip().startswith("hydra")]
    if foreign:  # the search path of the configuration imports packages
        raise CheckpointError(f"{checkpoint}: its command line has {foreign[0]!r}; no run is resumed with options of Hydra")
    # A resolver may read the environment or make a directory, and an option may be a file anywhere.
    applied = [o for o in begun if override_key(o) not in (*OWN, "finetune")]  # the last is not read again
    calls = [o for o in applied if "${" in re.sub(r"\$\{[\w.]+\}", "", o)]
    files = [o for o in applied if "." not in override_key(o) and re.search(r"\.\.|=[\s\['\"]*/", o)]
    if calls or files:
        raise CheckpointError(
            f"{checkpoint}: its command line has {(calls + files)[0]!r}; a run is resumed with values and with options of conf/ "
            "alone, and not with functions and files; give this key yourself"
        )
    given = {override_key(o) for o in overrides}
    return [o for o in begun if override_key(o) not in given] + list(overrides)


def override_key(override: str) -> str:
    """``+a.b=1`` -> ``a.b``."""
    return override.lstrip("+~").partition("=")[0]


def refuse_outside(config: Mapping[str, Any], out: Path) -> None:
    """Check that what writes files in a resumed run writes below its directory.

    Raises:
        ConfigError: a directory elsewhere, or a text that leads out of one.
    """
    for group in WRITING:
        for key, value in flat(config[group], f"{group}.").items():
            if not isinstance(value, str) or value == "None" or key.endswith("._target_"):
                continue
            # What is no directory is a name, a file in one or a metric: val/loss.
            place = Path(value) if key.endswith(("dir", "dirpath", "uri")) else out / value
            if ".." in place.parts or not place.resolve().is_relative_to(out.resolve()):
                raise ConfigError(f"{key}={value}: a resumed run writes below its own directory; give {key} a place in {out}")


def refuse_links(out: Path) -> None:
    """Check that all that is in the directory of a run lies there: who sent it may have put links to other files there.

    Raises:
        ConfigError: a link that leads out of it, or what is no file and no directory.
    """
    for folder, folders, names in os.walk(out):
        for path in (Path(folder, name) for name in (*folders, *names)):
            inside = path.resolve().is_relative_to(out.resolve())
            if not inside or not (path.is_file() or path.is_dir()):
                where = f"links to {path.resolve()}" if path.is_symlink() else "is no file and no directory"
                raise ConfigError(f"{path}: {where}; all of a resumed run lies in its own directory: replace it by what it names")


def refuse_another_run(checkpoint: Path, saved: Mapping[str, Any]) -> int:
    """Compare the configuration with the checkpoint's.

    Args:
        checkpoint: to be resumed.
        saved: what this run would save of its configuration.

    Returns:
        The optimiser step at which the checkpoint was saved.

    Raises:
        ConfigError: they differ in what decides the result; lists key, saved and given value.
    """
    content = read_checkpoint(checkpoint)
    if "hyper_parameters" not in content:
        raise CheckpointError(f"{checkpoint}: not a checkpoint of this project: it lacks hyper_parameters")
    before = flat({k: v for k, v in content["hyper_parameters"].items() if k in SAVED})
    now = flat(saved)
    before = {key: value for key, value in EARLIER.items() if key in now} | before
    differences = [
        f"{key}: {before.get(key, 'absent')} in the checkpoint, {now.get(key, 'absent')} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(MAY_DIFFER)
    ]
    if differences:
        more = f"; and {len(differences) - 8} others" if len(differences) > 8 else ""
        raise ConfigError(
            f"{checkpoint}: of another run, or of an earlier version with other defaults; start a new one, or give what the "
            f"checkpoint has (~KEY takes away what it has not):\n  {'; '.join(differences[:8])}{more}"
        )
    return int(content["global_step"])


def refuse_incomplete(checkpoint: Path, module: MotionDiffusion, trainer: pl.Trainer, averages: bool) -> None:
    """Check that a checkpoint has all that a training goes on with, and that its parts fit the module and each other.

    Args:
        checkpoint: to be resumed.
        module: built for training.
        trainer: with the callbacks, before it began.
        averages: whether its weights are averaged.

    Raises:
        CheckpointError: something is not there, or does not fit.
    """
    content = read_checkpoint(checkpoint)
    averaging = ("current_model_state", "averaging_state") if averages else ()
    parts = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "global_step", "epoch", *averaging)
    if missing := [key for key in parts if key not in content]:
        fault: str | None = f"it lacks {', '.join(missing)}"
    else:
        try:
            fault = _misfit(content, module, trainer, averages)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            fault = f"its parts are not what they should be ({type(error).__name__}: {error})"
    if fault is not None:
        raise CheckpointError(f"{checkpoint}: training cannot go on from it: {fault}; resume another checkpoint of the run")


def _misfit(content: Mapping[str, Any], module: MotionDiffusion, trainer: pl.Trainer, averages: bool) -> str | None:
    """What in a checkpoint does not fit the module, or another part; parts of a wrong type may raise any exception."""
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    for key in ("state_dict", "current_model_state") if averages else ("state_dict",):
        found = {name: value.shape for name, value in content[key].items()}
        if other := [name for name in sorted(shapes | found) if shapes.get(name) != found.get(name)]:
            return f"its {key} does not fit its model: {other[0]}"
    (optimizer,), parameters = content["optimizer_states"], list(module.parameters())
    if [i for group in optimizer["param_groups"] for i in group["params"]] != list(range(len(parameters))):
        return "its optimizer_states is of another number of weights"
    made = _stepped(module.optimizer, parameters)
    kept, (settings,) = made.state_dict()["state"], made.state_dict()["param_groups"]
    for i, state in optimizer["state"].items():
        if state.keys() != kept[i].keys() or _unlike(state, kept[i], ""):
            return f"its optimizer_states does not fit its model: weight {i}"
    if kept and content["global_step"] > 0 and not optimizer["state"]:
        return "it lacks the state of the optimiser"
    schedules = [] if module.lr_scheduler is None else [module.lr_scheduler(made, 1000).state_dict()]
    if len(content["lr_schedulers"]) != len(schedules):
        return f"it has {len(content['lr_schedulers'])} schedules of the learning rate"
    settings["fused"] = None  # may be anything: it is none in runs that began before the configuration had it
    parts = [("optimizer_states.param_groups", settings, group) for group in optimizer["param_groups"]]
    parts += [("lr_schedulers", fresh, {**fresh, **s}) for s, fresh in zip(content["lr_schedulers"], schedules, strict=True)]
    loops, states, fresh = content["loops"]["fit_loop"], {**content["callbacks"]}, trainer.fit_loop.state_dict()
    parts += [("loops.fit_loop", fresh, {**fresh, **loops})]  # an earlier version may have had fewer keys
    every: list[pl.Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    ours = [c for c in every if isinstance(c, ModelCheckpoint) or type(c).__module__.startswith("callbacks.")]
    parts += [(f"callbacks.{c.state_key}", c.state_dict(), states[c.state_key]) for c in ours if c.state_key in states]
    for name, fresh, state in parts:
        if where := _unlike(state, fresh, name):
            return f"its {where} is not what it should be"
    progress = "epoch_loop.automatic_optimization.optim_progress"
    steps = [content["global_step"], loops[progress]["optimizer"]["step"]["total"]["completed"]]
    steps += [s["last_epoch"] for s in content["lr_schedulers"] if "last_epoch" in s]
    if len(set(steps)) > 1:
        return f"weights, loops and learning rate are of the steps {steps}"
    return None


def _unlike(found: Any, fresh: Any, where: str) -> str | None:
    """Where a state is of another kind than a fresh one: keys, types, shapes, negative counts.

    What is None in the fresh one may be anything, and what is empty may hold numbers.
    """
    pairs: list[tuple[Any, Any, str]] = []
    if isinstance(fresh, Mapping) and isinstance(found, Mapping):
        pairs = [(found.get(key), value, f"{where}.{key}") for key, value in fresh.items()]
        pairs = pairs or [(value, 0.0, where) for value in found.values()]
    elif isinstance(fresh, list | tuple) and isinstance(found, list | tuple) and len(fresh) in (0, len(found)):
        pairs = [(value, like, where) for value, like in zip(found, fresh, strict=False)]
        pairs = pairs or [(value, [] if isinstance(value, list) else 0.0, where) for value in found]
    elif isinstance(fresh, Tensor) and isinstance(found, Tensor):
        return None if found.shape == fresh.shape else where
    elif type(fresh) is int:
        return None if type(found) is int and min(fresh, 0) <= found < 2**63 else where
    elif type(fresh) is float:
        is_number = isinstance(found, int | float) or (isinstance(found, Tensor) and found.numel() == 1)
        return None if is_number else where
    elif fresh is not None and not isinstance(found, type(fresh)):
        return where
    return next((fault for pair in pairs if (fault := _unlike(*pair))), None)


def _stepped(make: Any, parameters: Sequence[Tensor]) -> Any:
    """An optimiser after a step with copies of the weights, so that its state has all its keys."""
    copies = [torch.nn.Parameter(torch.zeros_like(parameter)) for parameter in parameters]
    for copy in copies:
        copy.grad = torch.zeros_like(copy)
    optimizer = make(copies)
    optimizer.step()
    return optimizer


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``; lists become text, as tables of hyperparameters want."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = str(value) if isinstance(value, list) or value is None else value
    return out
