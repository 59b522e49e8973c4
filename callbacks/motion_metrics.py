"""MotionMetrics: quality of generated motion during training, with warnings that say what is wrong."""

import logging
import math
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from callbacks.samples import samples
from ddpm.metrics.reference import LEAST, Reference, reference, too_little
from ddpm.metrics.suite import Evaluation, evaluate
from ddpm.metrics.text import headline
from ddpm.metrics.verdict import findings, ratios, steps_trained
from ddpm.module import MotionDiffusion

log = logging.getLogger(__name__)

SHOWN = (
    *("frechet/pose", "frechet/spectrum", "frechet/kinetic", "precision/pose", "recall/pose"),
    *("coverage/pose", "apd", "freeze"),
)
MONITORS = ("metrics/frechet_pose", "metrics/frechet_spectrum", "metrics/frechet_kinetic")
DIVERGED = "Likely a learning rate that is too high (optimizer.lr), or data that are not in metres"


class MotionMetrics(Callback):
    """Measures clips sampled with the averaged weights against real ones, as ``evaluate.py fast=true`` does.

    The real ones are held-out windows if there are 64 of them, else all, training clips included; the summary says which.
    Logs ``metrics/frechet_pose`` and others, and ``metrics/real/...`` of real clips against real ones; ``physics/...`` of
    single clips alike; warns if motion freezes, explodes, jitters or collapses. A failure is a warning and does not end
    training. Fréchet distances are nan until the first measurement, so that a ModelCheckpoint can monitor them.

    Args:
        every: epochs between two measurements; the end of training always gets one.
        n: clips, at least 32, of the seeds from ``seed`` on.

    Raises:
        ValueError: every below 1, or n below 32.
    """

    def __init__(self, every: int = 7, n: int = 64, seed: int = 0) -> None:
        if every < 1 or n < 2 * LEAST:
            raise ValueError(f"callbacks.motion_metrics: every={every} must be at least 1 and n={n} at least {2 * LEAST}")
        self.every, self.n, self.seed = every, n, seed
        self.summary = ""
        """The last measurement in a line."""
        self._reference: Reference | None = None
        self._step = -1
        self._values: dict[str, float] = {}
        self._warned: set[str] = set()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: MotionDiffusion) -> None:  # pyright: ignore
        """Say before training if there is too little to measure it against."""
        if trainer.datamodule is not None and not trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue]
            self._real(trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: MotionDiffusion) -> None:  # pyright: ignore
        """Measure if it is time, in every process, with equal results."""
        if trainer.sanity_checking or trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue]
            return
        epoch = trainer.current_epoch + 1
        if epoch % self.every == 0 or epoch == trainer.max_epochs:
            self._values = self._measure(trainer, pl_module)
        self.log_dict(dict.fromkeys(MONITORS, math.nan) | self._values, logger=False, sync_dist=True)  # pyright: ignore[reportAttributeAccessIssue]

    def on_train_end(self, trainer: pl.Trainer, pl_module: MotionDiffusion) -> None:  # pyright: ignore
        """Measure the result, if the last validation was not the end."""
        if not trainer.fast_dev_run and self._step != trainer.global_step:  # pyright: ignore[reportAttributeAccessIssue]
            self._values = self._measure(trainer, pl_module)

    def results(self) -> dict[str, float]:
        """The last values, and the number ``n`` of clips they are of."""
        return self._values | {"n": self.n}

    def state_dict(self) -> dict[str, Any]:
        """The last values, for a resumed run."""
        return {"values": dict(self._values), "step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The counterpart of `state_dict`."""
        self._values, self._step = dict(state_dict["values"]), state_dict["step"]

    def _measure(self, trainer: pl.Trainer, module: MotionDiffusion) -> dict[str, float]:
        """Log all values by name and return them; none if it failed."""
        self._step = trainer.global_step
        try:
            if (real := self._real(trainer)) is None:
                return {}
            generated = samples(trainer, module, self.seed, self.n)
            if not generated.finite.all():
                bad = int((~generated.finite).sum())
                self._warn("exploding", f"motion explodes: {bad} of {self.n} clips are not finite. {DIVERGED}")
                return {}
            found = evaluate(generated, real.clips, fast=True, seed=self.seed)
            wrong = findings(found, steps_trained(self._step, module.hparams))
            self._warned &= {finding.name for finding in wrong}
            for finding in wrong:
                self._warn(finding.name, finding.text)
            values = self._summarise(found, real.held_out)
            for logger in trainer.loggers:
                logger.log_metrics(values, self._step)
            return values
        except Exception as error:  # a metric must never end training
            trace = not isinstance(error, ValueError) and "failure" not in self._warned
            log.warning("motion could not be measured at step %d; training goes on: %s", self._step, error, exc_info=trace)
            self._warned.add("failure")
            return {}

    def _real(self, trainer: pl.Trainer) -> Reference | None:
        """The real clips, or None, said once, if they are too few."""
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if self._reference is None:
            self._reference = reference(data)
            if why := too_little(data, self._reference):
                log.warning("motion is not measured in this training: %s", why)
        return self._reference if len(self._reference.clips) >= LEAST else None

    def _summarise(self, found: Evaluation, held_out: bool) -> dict[str, float]:
        """The values by the name they are logged with."""
        values: dict[str, float] = {}
        for name in SHOWN:
            if (metric := found.metrics.get(name)) is not None:
                values |= logged(name, metric.generated.value, metric.real.value)
        if (bones := found.means.get("bone_variation")) is not None:
            values |= logged("bone_variation", bones["generated"], bones["reference"])
        values |= {f"{tab(name)}/{name}_ratio": value for name, value in ratios(found).items()}
        which = "held-out ones" if held_out else "real ones (training clips included)"
        self.summary = f"{self.n} clips beside {found.clips['reference']} {which}: {'; '.join(headline(found))}"
        return values

    def _warn(self, name: str, text: str) -> None:
        """Warn once, and again after it was better in between."""
        if name not in self._warned:
            log.warning("WARNING at step %d: %s", self._step, text)
        self._warned.add(name)


def logged(name: str, generated: float, real: float) -> dict[str, float]:
    """A metric of generated and of real clips, named as in loggers."""
    key = name.replace("/", "_")
    return {f"{tab(name)}/{key}": generated, f"{tab(name)}/real/{key}": real}


def tab(name: str) -> str:
    """Under which a logger shows a metric."""
    return "physics" if name in ("jerk", "speed", "bone_variation", "freeze") else "metrics"
