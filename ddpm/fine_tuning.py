"""Fine-tuning: a new run that begins with the network, the skeleton and the statistics of a trained one."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ddpm.checkpoint import checkpoint_of, load_run
from ddpm.errors import CheckpointError, ConfigError, DataError
from ddpm.model import Batch, evaluating
from ddpm.module import MotionDiffusion
from ddpm.process.condition import LabelCondition, VectorCondition
from ddpm.resuming import override_key

FIXED = ("T", "model", "schedule", "prediction", "variance", "condition", "travel", "skeleton")
"""Keys that the weights depend on."""
USUAL = ("frames", "weighting", "timesteps", "motion_loss", "project", "sampler")
"""Keys that stay as they were unless the command line changes them."""
MAY_CHANGE = ("model.dropout", "condition.guidance", "condition.interval", "condition.dropout", "skeleton.units")
"""Parts of `FIXED` that no weight depends on."""

Recordings = TypeVar("Recordings", bound=Any)
"""A ``datamodules.clip_set.ClipSet``."""


class Origin:
    """The trained model that a run begins with.

    Args:
        path: its checkpoint, or its run.
        resume: the run's own checkpoint where it goes on: it holds all of the first one's that is needed.
        trust: packages whose classes the checkpoint may name, see `ddpm.config.construct`.

    Raises:
        CheckpointError, ConfigError: see `ddpm.checkpoint.load_run`; or a checkpoint of an earlier version.
    """

    def __init__(self, path: str, resume: Path | None = None, trust: Sequence[str] = ()) -> None:
        self.path = checkpoint_of(path) if resume is None else resume
        self.model, config = load_run(self.path, trust)
        missing = [key for key in (*FIXED, *USUAL) if key not in config]
        if missing:
            raise CheckpointError(f"finetune={path}: of an earlier version, its configuration lacks {missing}; train it anew")
        self.config = {key: config[key] for key in (*FIXED, *USUAL)}

    def settings(self, config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
        """What of the new run's configuration is the trained model's: key -> value.

        Args:
            config: as composed.
            overrides: the command line.

        Raises:
            ConfigError: the command line changes what the weights were learned with.
        """
        given = {override_key(o): o for o in overrides}
        groups = {key: key.partition(".")[0] for key in given}
        for key, override in given.items():
            may_change = key.startswith(MAY_CHANGE) and override[0] != "~" and self.config[groups[key]]
            if groups[key] in FIXED and not may_change:
                raise ConfigError(f"{override}: {key} is that of the trained model, finetune={self.path}; leave it away")
        found = {key: value for key, value in self.config.items() if key not in USUAL or key not in groups.values()}
        for key in given:
            group, _, name = key.partition(".")
            if key.startswith(MAY_CHANGE):
                found[group] = {**found[group], name: config[group][name]}
        if "target_fps" in config["data"] and config["data"]["target_fps"] is None:
            found["data.target_fps"] = self.model.fps
        return found

    @property
    def conditional(self) -> bool:
        """Whether the trained network is conditioned on actions."""
        return isinstance(self.model.condition, LabelCondition)

    def vectors(self, found: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
        """The vectors of the data, see `ddpm.process.condition.vector_statistics`, standardised as the trained model's.

        Raises:
            ConfigError: vectors of another width, or none where there were some.
        """
        mine = self.model.condition
        if not isinstance(mine, VectorCondition):
            return found
        if found is None or len(found["mean"]) != len(mine.mean):
            width, here = len(mine.mean), "none" if found is None else f"vectors of {len(found['mean'])} numbers"
            raise ConfigError(
                f"finetune={self.path}: its condition are vectors of {width} numbers, and the data have {here}; save condition, "
                f"(clips, {width}), with the clips, or leave finetune away"
            )
        return {**found, "mean": mine.mean, "std": mine.std}

    def read(self, construct: Callable[[Mapping[str, Any], str], Recordings], node: Mapping[str, Any]) -> Recordings:
        """The recordings of a configuration of data, `relabelled`; a DataError advises no other skeleton, which is refused."""
        try:
            return self.relabelled(construct(node, "data"))
        except DataError as error:
            what, *advice = re.split(r"[,;] (?:or )?(?:choose the skeleton|use skeleton=)", str(error), maxsplit=1)
            if not advice and "skeleton.up=" not in what:
                raise
            raise DataError(
                f"{what}; finetune={self.path} keeps the skeleton of the trained model; of its keys only skeleton.units may "
                "be given"
            ) from error

    def relabelled(self, clips: Recordings) -> Recordings:
        """The recordings with the actions of the trained model, and behind them those that are new."""
        before = self.model.class_names
        every = (*before, *(name for name in clips.class_names if name not in before))
        place = torch.tensor([every.index(name) for name in clips.class_names] + [-1])
        return replace(clips, class_names=every, labels=place[clips.labels])

    def copy_to(self, module: MotionDiffusion) -> None:
        """Give the weights and the statistics to a new module.

        New parts, such as the columns of new actions, begin at 0, which leaves the outputs as they were.

        Raises:
            ConfigError: a tensor that does not fit.
        """
        state = self.model.state_dict()
        with torch.no_grad():
            for name, new in module.state_dict().items():
                old = state.get(name, new.new_zeros(()))
                if old.shape == new.shape:
                    new.copy_(old)
                    continue
                new.zero_()
                if name.endswith("class_power"):  # an action without variances of its own has those of all
                    new.copy_(state[name.replace("class_power", "log_power")][: new.shape[1]].expand_as(new))
                if name not in state:
                    continue
                axis = next((k for k in range(new.ndim) if old.ndim == new.ndim and old.shape[k] < new.shape[k]), -1)
                if axis < 0 or new.narrow(axis, 0, old.shape[axis]).shape != old.shape:
                    raise ConfigError(f"finetune={self.path}: {name} is {tuple(old.shape)} there, and {tuple(new.shape)} here")
                new.narrow(axis, 0, old.shape[axis]).copy_(old)


@torch.no_grad()
def validation_loss(module: MotionDiffusion, batches: Iterable[Batch]) -> float:
    """The loss of validation, as training reports it, of one process; nan without any held-out clips."""
    with evaluating(module):
        found = [(module.validate_batch(batch, k)[2].item(), len(batch["clips"])) for k, batch in enumerate(batches)]
    clips = sum(n for _, n in found)
    return sum(loss * n for loss, n in found) / clips if clips else math.nan
