"""MotionMetrics: what it logs, what it warns of, and that it never ends training."""

import logging
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import train as train_script
from callbacks.motion_metrics import MONITORS, MotionMetrics
from datamodules.pose import PoseDataModule
from datamodules.sets.synthetic import synthetic
from ddpm.clips import Clips
from ddpm.errors import ConfigError
from ddpm.limits import refuse_unheld_monitor
from ddpm.metrics.reference import reference
from ddpm.metrics.suite import evaluate
from ddpm.metrics.verdict import findings
from ddpm.module import MotionDiffusion
from ddpm.skeleton import Skeleton
from ddpm.training import END_METRICS
from tests.commands.test_train import SMALL
from tests.configs import compose

MEASURED = [*SMALL, "T=7", "logger=none", "~callbacks.skeleton_gif", "~callbacks.loss_plot"]


@pytest.fixture(scope="module")
def data() -> PoseDataModule:
    from omegaconf import OmegaConf

    node = OmegaConf.to_container(OmegaConf.load(Path(__file__).parents[2] / "conf" / "skeleton" / "kinect20.yaml"))
    skeleton = Skeleton(**{key: value for key, value in node.items() if key != "_target_"})
    return PoseDataModule(synthetic(skeleton, 240, 20.0, 0), frames=24, val_fraction=0.3)


class Fake(SimpleNamespace):
    """A trainer; like Lightning's, it is known by its identity."""

    __hash__ = object.__hash__


def held_out(data: PoseDataModule) -> Tensor:
    """``(n, frames, joints, coords)`` real clips that are not the reference."""
    index = data.whole_windows(data.train_recordings)[::3]
    return data.windows.__getitems__(index)["clips"].permute(0, 3, 1, 2)


def measured(data: PoseDataModule, sampler: Callable[[Any], Tensor], step: int = 900) -> tuple[dict[str, float], MotionMetrics]:
    """What the callback logs at the end of training of a module that samples these positions."""
    logged: dict[str, float] = {}
    logger = SimpleNamespace(log_metrics=lambda values, step: logged.update(values))
    trainer = Fake(datamodule=data, global_step=step, callbacks=[], loggers=[logger], fast_dev_run=False)
    callback = MotionMetrics(n=96, seed=5)
    module = SimpleNamespace(sample=lambda seeds: Clips.whole(sampler(seeds), 20.0, data.clips.skeleton), hparams={})
    callback.on_train_end(trainer, module)  # type: ignore[arg-type]
    return logged, callback


def test_the_values_are_those_of_a_fast_evaluation(data: PoseDataModule, caplog: pytest.LogCaptureFixture) -> None:
    asked: list[Any] = []

    def sampler(seeds: Any) -> Tensor:
        asked.extend(seeds)
        return held_out(data)[:96]

    logged, callback = measured(data, sampler)
    assert asked == list(range(5, 101))
    motions = Clips(held_out(data)[:96], torch.full((96,), 24), 20.0, data.clips.skeleton)
    expected = evaluate(motions, reference(data).clips, fast=True, seed=5)
    for name in MONITORS:
        assert logged[name] == expected.metrics[name.removeprefix("metrics/").replace("_", "/")].generated.value
    assert logged["metrics/real/frechet_pose"] == expected.metrics["frechet/pose"].real.value
    assert set(END_METRICS) <= {"val/loss", *logged}
    assert logged["physics/jerk_ratio"] == pytest.approx(
        expected.means["jerk"]["generated"] / expected.means["jerk"]["reference"]
    )
    assert not findings(expected) and "WARNING" not in caplog.text, "real clips are no reason to warn"
    assert "Fréchet distance" in callback.summary


def noisy(x: Tensor) -> Tensor:
    return x + 0.03 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


def smoothed(x: Tensor) -> Tensor:
    """A running mean over five frames, as an over-smoothing network moves."""
    frames = x.movedim(1, -1).flatten(1, -2)
    padded = torch.nn.functional.pad(frames, (2, 2), mode="replicate")
    return torch.nn.functional.avg_pool1d(padded, 5, 1).reshape(*x.movedim(1, -1).shape).movedim(-1, 1)


def nearer(x: Tensor) -> Tensor:
    """All clips moved towards the mean clip."""
    return torch.lerp(x, x.mean(0, keepdim=True), 0.25)


@pytest.mark.parametrize(
    ("spoil", "name", "said"),
    [
        (smoothed, "smooth", "over-smooth"),
        (nearer, "alike", "too alike"),
        (lambda x: x[:, :1].expand_as(x), "frozen", "train longer"),
        (lambda x: 5 * x, "exploding", "not normalised or not in metres"),
        (lambda x: x / 0, "exploding", "96 of 96 clips are not finite"),
        (noisy, "jittering", "sampler.steps"),
        (lambda x: x[torch.arange(96) % 3], "collapsed", "few modes"),
    ],
)
def test_it_says_what_is_wrong(
    data: PoseDataModule, caplog: pytest.LogCaptureFixture, spoil: Callable[[Tensor], Tensor], name: str, said: str
) -> None:
    _, callback = measured(data, lambda seeds: spoil(held_out(data)[:96]))
    assert said in caplog.text and "Likely" in caplog.text and "step 900" in caplog.text
    assert name in callback._warned
    if name in ("exploding", "jittering"):
        assert callback._warned == {name}


@pytest.mark.parametrize("spoil", [lambda x: 30 * x, lambda x: x[:, :1].expand_as(x), noisy], ids=["wild", "still", "noisy"])
def test_a_model_of_few_steps_is_not_judged(
    data: PoseDataModule, caplog: pytest.LogCaptureFixture, spoil: Callable[[Tensor], Tensor]
) -> None:
    _, callback = measured(data, lambda seeds: spoil(held_out(data)[:96]), step=20)
    assert callback._warned == {"short"} and "too short to judge: the model was trained for 20 steps" in caplog.text
    assert "units" not in caplog.text


def test_what_stands_still_far_apart_is_frozen_and_no_fault_of_units(
    data: PoseDataModule, caplog: pytest.LogCaptureFixture
) -> None:
    _, callback = measured(data, lambda seeds: 5 * held_out(data)[:96, :1].expand(-1, 24, -1, -1))
    assert "frozen" in callback._warned and "exploding" not in callback._warned and "units" not in caplog.text


def test_a_failure_is_a_warning(data: PoseDataModule, caplog: pytest.LogCaptureFixture) -> None:
    def fails(seeds: Any) -> Tensor:
        raise RuntimeError("out of memory")

    logged, _ = measured(data, fails)
    assert logged == {} and "training goes on" in caplog.text and "out of memory" in caplog.text


def test_too_little_is_said_once_and_before_training(data: PoseDataModule, caplog: pytest.LogCaptureFixture) -> None:
    few = PoseDataModule(synthetic(data.clips.skeleton, 5, 20.0, 0), frames=48, val_fraction=0)
    trainer, callback = Fake(datamodule=few, global_step=0, fast_dev_run=False), MotionMetrics()
    callback.on_fit_start(trainer, SimpleNamespace())  # type: ignore[arg-type]
    assert "at least 16 windows of 48 frames, as 768 frames of recordings hold, and the recordings hold 5" in caplog.text
    callback.on_train_end(trainer, SimpleNamespace())  # type: ignore[arg-type]
    assert caplog.text.count("at least 16 windows") == 1 and "Traceback" not in caplog.text


@pytest.mark.parametrize("arguments", [{"every": 0}, {"n": 31}])
def test_bad_values_are_named(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        MotionMetrics(**arguments)


def test_the_best_checkpoint_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The measurement at the end is worse, and the failed one in between is none: the first one stays the best."""
    caplog.set_level(logging.INFO)
    monitor = MONITORS[0]
    values = iter([{monitor: 2.0}, {}, {monitor: 3.0}])

    def measure(self: MotionMetrics, trainer: Any, module: MotionDiffusion) -> dict[str, float]:
        self._step = trainer.global_step
        return next(values)

    monkeypatch.setattr(MotionMetrics, "_measure", measure)
    overrides = ["callbacks.motion_metrics.every=2", f"callbacks.best.monitor={monitor}", "trainer.max_epochs=5"]
    overrides += ["data.n=40", "loader.val_fraction=0.5"]  # 64 windows are held out
    assert math.isfinite(train_script.train(compose("config", [*MEASURED, f"out={tmp_path}", *overrides])))
    assert next(values, None) is None, "epochs 2, 4 and 5"
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == 2 * 3


def test_training_measures_and_logs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    train_script.train(compose("config", [*MEASURED, f"out={tmp_path}", "callbacks.motion_metrics.n=32", "trainer.max_epochs=1"]))
    assert "real ones (training clips included): Fréchet distance at n=32, 16 against " in caplog.text
    assert "training goes on" not in caplog.text


@pytest.mark.parametrize(("held_out", "refused"), [(0.05, True), (0.3, False)])
def test_a_distance_to_training_clips_chooses_no_checkpoint(skeleton: Skeleton, held_out: float, refused: bool) -> None:
    """A model that copies its training clips would be the best one."""
    data = PoseDataModule(synthetic(skeleton, 240, 20.0, 0), frames=24, val_fraction=held_out)
    assert reference(data).held_out != refused
    with pytest.raises(ConfigError, match="monitor=metrics/frechet_pose: fewer than 64 windows") if refused else nullcontext():
        refuse_unheld_monitor([SimpleNamespace(monitor="metrics/frechet_pose")], data)  # type: ignore[list-item]
    refuse_unheld_monitor([SimpleNamespace(monitor="val/loss")], data)  # type: ignore[list-item]
