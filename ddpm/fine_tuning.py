"""Fine-tuning: a new run that begins with the network, the skeleton and the statistics of a trained one."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ddpm.checkpoint import SAMPLING_KEYS, checkpoint_of, read_checkpoint
from ddpm.config import check
from ddpm.errors import CheckpointError, ConfigError
from ddpm.module import Batch, MotionDiffusion, evaluating
from ddpm.runs import override_key

FIXED = ("T", "model", "schedule", "prediction", "variance", "condition", "travel", "skeleton")
"""What the weights were learned with, and cannot do without."""
USUAL = ("frames", "weighting", "timesteps", "motion_loss", "project", "sampler")
"""What is as it was unless the command line says otherwise."""
MAY_CHANGE = ("model.dropout", "condition.guidance", "condition.interval", "condition.dropout", "skeleton.units")
"""What of `FIXED` no weight depends on."""

Recordings = TypeVar("Recordings", bound=Any)
"""A ``datamodules.clip_set.ClipSet``."""


class Origin:
    """The trained model that a run begins with.

    Args:
        path: its checkpoint, or its run.
        resume: the run's own checkpoint where it goes on: it holds all of the first one's that is needed.
        trust: packages whose classes the checkpoint may name, see `ddpm.config.construct`.

    Raises:
        CheckpointError: see `ddpm.checkpoint.read_checkpoint`; or a file of another project.
        ConfigError: a part of its configuration that a checkpoint may not name.
    """

    def __init__(self, path: str, resume: Path | None = None, trust: Sequence[str] = ()) -> None:
        self.path = checkpoint_of(path) if resume is None else resume
        self.content = read_checkpoint(self.path)
        missing = [key for key in SAMPLING_KEYS if not isinstance(self.content.get(key), dict)]
        config: Mapping[str, Any] = self.content.get("hyper_parameters", {})
        missing += [key for key in (*FIXED, *USUAL) if not missing and key not in config]
        if missing:
            raise CheckpointError(
                f"finetune={path}: not a checkpoint of this project, or of an earlier version: it lacks {missing}"
            )
        self.config = {key: config[key] for key in (*FIXED, *USUAL)}
        check(self.config, "", trust)

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
            if groups[key] in FIXED and not key.startswith(MAY_CHANGE):
                raise ConfigError(f"{override}: {key} is that of the trained model, finetune={self.path}; leave it away")
        found = {key: value for key, value in self.config.items() if key not in USUAL or key not in groups.values()}
        for key in given:
            group, _, name = key.partition(".")
            if key.startswith(MAY_CHANGE):
                found[group] = {**found[group], name: config[group][name]}
        if "target_fps" in config["data"] and config["data"]["target_fps"] is None:
            found["data.target_fps"] = self.content["motion"]["fps"]
        return found

    @property
    def conditional(self) -> bool:
        """Whether the trained network is conditioned on actions."""
        return bool(self.content["motion"].get("label_counts"))

    def vectors(self, found: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
        """The vectors of the data, see `ddpm.process.condition.vector_statistics`, standardised as the trained model's."""
        mine = self.content["motion"].get("vectors")
        return found if found is None or mine is None else {**found, "mean": mine["mean"], "std": mine["std"]}

    def relabelled(self, clips: Recordings) -> Recordings:
        """The recordings with the actions of the trained model, and behind them those that are new."""
        before = tuple(self.content["motion"]["class_names"])
        every = (*before, *(name for name in clips.class_names if name not in before))
        place = torch.tensor([every.index(name) for name in clips.class_names] + [-1])
        return replace(clips, class_names=every, labels=place[clips.labels])

    def copy_to(self, module: MotionDiffusion) -> None:
        """Give the weights and the statistics to a new module.

        What there was not before begins at 0, such as the columns of new actions: it changes nothing of what was learned.

        Raises:
            ConfigError: a tensor that does not fit.
        """
        state: dict[str, Any] = self.content["state_dict"]
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
