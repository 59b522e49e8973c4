"""A run that is stopped anywhere and resumed is the run that was never stopped, to the bit."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

import train as train_script
from ddpm import runs
from ddpm.errors import ConfigError
from tests.configs import compose

SMALL = [
    "T=20", "frames=8", "data.n=40", "loader.batch_size=4", "loader.steps_per_epoch=4", "trainer=cpu", "trainer.max_epochs=3",
    "model.model_channels=8", "model.num_res_blocks=1", "model.dropout=0.1", "callbacks.last.every_n_steps=1", "logger=none",
    "~callbacks.skeleton_gif", "~callbacks.progress_bar", "lr_scheduler.warmup=2",
]  # fmt: skip


class Stop(Exception):
    """What stops a run in these tests."""


class Spy(pl.Callback):
    """Notes the loss of every step and can stop the run after one, or in a validation."""

    def __init__(self, stop_after: int | None = None, stop_in_validation: int | None = None) -> None:
        self.losses: dict[int, float] = {}
        self.stop_after = stop_after
        self.stop_in_validation = stop_in_validation

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses[trainer.global_step] = float(outputs["loss"])

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.stop_after:
            raise Stop

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step == self.stop_in_validation:
            raise Stop

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.global_step == self.stop_after:
            raise Stop


def run(out: Path, monkeypatch: pytest.MonkeyPatch, spy: Spy, *overrides: str) -> dict[int, float]:
    """Train into ``out`` with the spy among the callbacks."""
    monkeypatch.setattr(train_script, "StopBetweenBatches", lambda: spy)
    train_script.train(compose("config", [*SMALL, f"out={out}", *overrides]))
    return spy.losses


def state(out: Path) -> dict[str, Any]:
    """What the last checkpoint holds."""
    return torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)


def assert_equal(a: Any, b: Any, where: str) -> None:
    """Equal to the bit, at any depth."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b or (a != a and b != b), f"{where}: {a} and {b}"


COMPARED = (
    "state_dict",
    "current_model_state",
    "averaging_state",
    "optimizer_states",
    "lr_schedulers",
    "global_step",
    "epoch",
)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, float]]:
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        return out, run(out, patch, Spy())


@pytest.mark.parametrize("step", [s if s in (1, 5, 8, 11) else pytest.param(s, marks=pytest.mark.slow) for s in range(1, 12)])
def test_stop_at_any_step_and_resume(
    step: int, uninterrupted: tuple[Path, dict[int, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, losses = uninterrupted
    with pytest.raises(Stop):
        run(tmp_path, monkeypatch, Spy(stop_after=step))
    resumed = run(tmp_path, monkeypatch, Spy(), "resume=auto")
    assert resumed == {k: losses[k] for k in range(min(resumed), 13)}
    assert step <= min(resumed) <= step + 1, "at most the last batch of an epoch is trained again"
    a, b = state(whole), state(tmp_path)
    for key in COMPARED:
        assert_equal(a[key], b[key], key)
    assert (whole / "loss.csv").read_text() == (tmp_path / "loss.csv").read_text()


def test_what_is_remembered_of_the_losses_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timesteps=importance draws by the losses of the past: stopped in an epoch and cut by its number of steps."""
    remembering = ("timesteps=importance", "timesteps.bins=3", "lr_scheduler=warmup_constant")
    losses = run(tmp_path / "whole", monkeypatch, Spy(), *remembering)
    whole = state(tmp_path / "whole")
    for name in ("state_dict", "current_model_state"):
        assert whole[name]["diffusion.timesteps.seen"].all() and (whole[name]["diffusion.timesteps.square"] > 0).all(), name
    with pytest.raises(Stop):
        run(tmp_path / "stopped", monkeypatch, Spy(stop_after=6), *remembering)
    run(tmp_path / "cut", monkeypatch, Spy(), *remembering, "trainer.max_steps=7")
    for out in ("stopped", "cut"):
        resumed = run(tmp_path / out, monkeypatch, Spy(), *remembering, "resume=auto", "trainer.max_steps=-1")
        assert resumed == {k: losses[k] for k in range(min(resumed), 13)}, out
        for key in COMPARED:
            assert_equal(whole[key], state(tmp_path / out)[key], key)


@pytest.mark.parametrize("step", [pytest.param(4, marks=pytest.mark.slow), 8, pytest.param(12, marks=pytest.mark.slow)])
def test_stop_in_validation_and_resume(
    step: int, uninterrupted: tuple[Path, dict[int, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, losses = uninterrupted
    with pytest.raises(Stop):
        run(tmp_path, monkeypatch, Spy(stop_in_validation=step))
    resumed = run(tmp_path, monkeypatch, Spy(), "resume=auto")
    assert resumed == {k: losses[k] for k in range(step, 13)}
    a, b = state(whole), state(tmp_path)
    for key in COMPARED:
        assert_equal(a[key], b[key], key)
    assert (whole / "loss.csv").read_text() == (tmp_path / "loss.csv").read_text()


@pytest.mark.parametrize("limit", [pytest.param(1, marks=pytest.mark.slow), 4, 6, pytest.param(11, marks=pytest.mark.slow)])
def test_a_run_cut_by_its_number_of_steps_can_go_on(limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a learning rate that does not depend on the length of the run, the longer run is the uninterrupted one."""
    constant = ["lr_scheduler=warmup_constant", "lr_scheduler.warmup=2"]
    overrides = [o for o in SMALL if not o.startswith("lr_scheduler")]
    monkeypatch.setitem(globals(), "SMALL", [*overrides, *constant])
    losses = run(tmp_path / "whole", monkeypatch, Spy())
    run(tmp_path / "cut", monkeypatch, Spy(), f"trainer.max_steps={limit}")
    assert state(tmp_path / "cut")["global_step"] == limit
    resumed = run(tmp_path / "cut", monkeypatch, Spy(), "resume=auto", "trainer.max_steps=-1")
    assert resumed == {k: losses[k] for k in range(limit + 1, 13)}
    for key in COMPARED:
        assert_equal(state(tmp_path / "whole")[key], state(tmp_path / "cut")[key], key)
    assert (tmp_path / "whole" / "loss.csv").read_text() == (tmp_path / "cut" / "loss.csv").read_text()


CONSTANT = ("lr_scheduler=warmup_constant", "lr_scheduler.warmup=2")
RULES = ("trainer.max_epochs=2", "trainer.max_steps=8", "trainer.max_steps=6")


class Logged(pl.Callback):
    """Notes which steps were logged under which name."""

    def __init__(self) -> None:
        self.steps: dict[str, list[int]] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        connector = trainer._logger_connector
        before = connector.log_metrics

        def log_metrics(metrics: dict[str, Any], step: int | None = None) -> None:
            at = trainer.fit_loop.epoch_loop._batches_that_stepped if step is None else step
            for name in metrics.keys() & {"train/loss", "val/loss"}:
                self.steps.setdefault(name, []).append(at)
            before(metrics, step)

        connector.log_metrics = log_metrics  # type: ignore[method-assign]


def run_logged(
    out: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str, stop_after: int | None = None
) -> dict[str, list[int]]:
    """Train; gives the steps that were logged."""
    logged, spy = Logged(), Spy(stop_after)
    monkeypatch.setattr(spy, "on_fit_start", logged.on_fit_start)
    overrides = (*CONSTANT, "logger=tensorboard", "trainer.log_every_n_steps=1", "~callbacks.motion_metrics", *overrides)
    with pytest.raises(Stop) if stop_after else contextlib.nullcontext():
        run(out, monkeypatch, spy, *overrides)
    return logged.steps


@pytest.fixture(scope="module")
def logged_whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[int]]]:
    out = tmp_path_factory.mktemp("logged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "SMALL", [o for o in SMALL if not o.startswith("lr_scheduler")])
        return out, run_logged(out, patch)


@pytest.mark.parametrize("second", ["trainer.max_steps=-1", "trainer.max_steps=12"])
@pytest.mark.parametrize("first", RULES)
@pytest.mark.parametrize("killed", [False, True])
def test_any_two_stopping_rules_take_the_steps_of_one_run(
    first: str, second: str, killed: bool, logged_whole: tuple[Path, dict[str, list[int]]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Lengthened, or killed at the end of an epoch and lengthened: the same steps, logged at the same steps, to the bit."""
    whole, expected = logged_whole
    monkeypatch.setitem(globals(), "SMALL", [o for o in SMALL if not o.startswith("lr_scheduler")])
    run_logged(tmp_path, monkeypatch, first, stop_after=4 if killed else None)
    at = state(tmp_path)["global_step"]
    steps = run_logged(tmp_path, monkeypatch, "resume=auto", "trainer.max_epochs=3", second)
    assert steps == {name: [s for s in all_steps if s >= at] for name, all_steps in expected.items()}
    assert state(tmp_path)["global_step"] == 12
    for key in COMPARED:
        assert_equal(state(whole)[key], state(tmp_path)[key], key)
    assert (whole / "loss.csv").read_text() == (tmp_path / "loss.csv").read_text()


def test_a_longer_run_has_its_own_learning_rates_at_once_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    quick = "~callbacks.motion_metrics"
    rates: dict[int, float] = {}

    class Rates(Spy):
        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            rates[trainer.global_step] = trainer.optimizers[0].param_groups[0]["lr"]

    run(tmp_path / "whole", monkeypatch, Rates(), quick)
    whole = dict(rates)
    rates.clear()
    run(tmp_path / "ext", monkeypatch, Rates(), quick, "trainer.max_epochs=2")
    rates.clear()
    caplog.clear()
    with caplog.at_level("INFO"):
        run(tmp_path / "ext", monkeypatch, Rates(), quick, "resume=auto")
    assert rates == {step: whole[step] for step in range(8, 12)}
    said = [line for line in caplog.messages if line.startswith("learning rate:")]
    assert said == [f"learning rate: schedule stretched over 12 steps, not 8; rate from 4e-05 to {whole[8]:.3g} at step 8"]
    caplog.clear()
    with caplog.at_level("INFO"):
        run(tmp_path / "ext", monkeypatch, Rates(), quick, "resume=auto", "trainer.max_steps=12")
    assert not [line for line in caplog.messages if line.startswith("learning rate:")]


class Diverge(Spy):
    """A huge but finite update after the step that follows a checkpoint, and no gradient after it."""

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 3:
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.fill_(1e30)


def test_runs_from_before_there_were_keys_go_on_and_a_changed_list_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = {"loader": {"draws": "equal"}, "data": {"root": "a"}}

    def resumed(saved: dict[str, Any], now: dict[str, Any]) -> int:
        monkeypatch.setattr(runs, "read_checkpoint", lambda path: {"hyper_parameters": saved, "global_step": 3})
        return runs.refuse_another_run(Path("last.ckpt"), now)

    later = {"loader": {"draws": "equal"}, "data": {"root": "b", "subject": None}, "skeleton": {"parts": {"trunk": ["hips"]}}}
    assert resumed(begun, later) == 3 and resumed({"data": {}}, {"data": {}, "loader": {"draws": "equal"}}) == 3
    with pytest.raises(ConfigError, match=r"loader\.draws: equal in the checkpoint, length now"):
        resumed({"data": {}}, {"data": {}, "loader": {"draws": "length"}})
    with pytest.raises(ConfigError, match="split_list: 3 names in the checkpoint, 4 names now"):
        resumed({**begun, "split_list": "3 names"}, {**begun, "split_list": "4 names"})


def test_a_divergence_keeps_what_was_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FloatingPointError):
        run(tmp_path, monkeypatch, Diverge(), "callbacks.last.every_n_steps=2")
    assert state(tmp_path)["global_step"] == 2
    assert run(tmp_path, monkeypatch, Spy(), "resume=auto").keys() == set(range(3, 13))


@pytest.mark.parametrize("lost", [("last.ckpt",), ("last.ckpt", "previous.ckpt")])
def test_auto_takes_the_newest_whole_checkpoint(
    lost: tuple[str, ...], uninterrupted: tuple[Path, dict[int, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """A damaged last.ckpt; and only a best.ckpt, as after a kill between the first one and the first last.ckpt."""
    whole, losses = uninterrupted
    with pytest.raises(Stop):
        run(tmp_path, monkeypatch, Spy(stop_after=5))
    for name in lost:
        path = tmp_path / "checkpoints" / name
        path.write_bytes(path.read_bytes()[:-100])
    resumed = run(tmp_path, monkeypatch, Spy(), "resume=auto")
    assert resumed == {k: losses[k] for k in range(min(resumed), 13)} and min(resumed) == 5
    taken = tmp_path / "checkpoints" / ("previous.ckpt" if len(lost) == 1 else "best.ckpt")
    assert f"{taken}, of step" in caplog.text and "is taken instead of last.ckpt" in caplog.text
    for key in COMPARED:
        assert_equal(state(whole)[key], state(tmp_path)[key], key)
