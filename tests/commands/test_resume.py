"""A run that is stopped anywhere and resumed is the run that was never stopped, to the bit."""

import contextlib
import errno
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

import train as train_script
from ddpm import resuming
from ddpm.errors import CheckpointError, ConfigError, ProjectError, WriteError
from ddpm.resuming import refuse_incomplete
from ddpm.runs import locked, new_if_used, run_directory
from tests.configs import compose

SMALL = [
    "T=20", "frames=8", "data.n=12", "loader.split=sequence", "loader.batch_size=4", "loader.steps_per_epoch=4", "trainer=cpu",
    "trainer.max_epochs=3", "model.model_channels=8", "model.channel_mult=[1]", "model.attention_resolutions=[1]",
    "model.num_res_blocks=1", "model.dropout=0.1", "callbacks.last.every_n_steps=1", "logger=none", "~callbacks.skeleton_gif",
    "~callbacks.motion_metrics", "~callbacks.progress_bar", "lr_scheduler.warmup=2", "+trainer.limit_val_batches=4",
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


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take as long as these trainings; empty files stand for them."""
    for name in ("plot_losses", "plot_noise_levels"):
        monkeypatch.setattr(f"callbacks.loss_plot.{name}", lambda path, *args, **kwargs: path.touch())


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
    with pytest.MonkeyPatch.context() as patch:  # measured too, which changes nothing of what is learned
        patch.setitem(globals(), "SMALL", [o for o in SMALL if o != "~callbacks.motion_metrics"])
        return out, run(out, patch, Spy())


@pytest.mark.parametrize("step", [s if s in (1, 5, 8, 11) else pytest.param(s, marks=pytest.mark.slow) for s in range(1, 12)])
def test_stop_at_any_step_and_resume(
    step: int, uninterrupted: tuple[Path, dict[int, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, losses = uninterrupted
    with pytest.raises(Stop):
        run(tmp_path, monkeypatch, Spy(stop_after=step))
    assert (tmp_path / "loss.png").exists() == (step >= 4), "the curve up to the last epoch"
    resumed = run(tmp_path, monkeypatch, Spy(), "resume=auto")
    assert resumed == {k: losses[k] for k in range(min(resumed), 13)}
    assert step <= min(resumed) <= step + 1, "at most the last batch of an epoch is trained again"
    a, b = state(whole), state(tmp_path)
    for key in COMPARED:
        assert_equal(a[key], b[key], key)
    assert (whole / "loss.csv").read_text() == (tmp_path / "loss.csv").read_text()


def test_what_is_remembered_of_the_losses_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timesteps=importance draws by the losses of the past: stopped in an epoch and cut by its number of steps."""
    remembering = ("timesteps=importance", "timesteps.bins=3", "lr_scheduler=warmup_constant", "trainer.max_epochs=2")
    losses = run(tmp_path / "whole", monkeypatch, Spy(), *remembering)
    whole = state(tmp_path / "whole")
    for name in ("state_dict", "current_model_state"):
        assert whole[name]["diffusion.timesteps.seen"].all() and (whole[name]["diffusion.timesteps.square"] > 0).all(), name
    with pytest.raises(Stop):
        run(tmp_path / "stopped", monkeypatch, Spy(stop_after=6), *remembering)
    run(tmp_path / "cut", monkeypatch, Spy(), *remembering, "trainer.max_steps=7")
    for out in ("stopped", "cut"):
        resumed = run(tmp_path / out, monkeypatch, Spy(), *remembering, "resume=auto", "trainer.max_steps=-1")
        assert resumed == {k: losses[k] for k in range(min(resumed), 9)}, out
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


CONSTANT = ("lr_scheduler=warmup_constant", "lr_scheduler.warmup=2")
LONGER = ("trainer.max_steps=12", "trainer.max_steps=-1")


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
    out: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str, stop_after: int | None = None, spy: Spy | None = None
) -> dict[str, list[int]]:
    """Train; gives the steps that were logged."""
    logged, spy = Logged(), spy or Spy(stop_after)
    monkeypatch.setattr(spy, "on_fit_start", logged.on_fit_start)
    common = ("logger=tensorboard", "trainer.log_every_n_steps=1")
    with pytest.raises(Stop) if spy.stop_after else contextlib.nullcontext():
        run(out, monkeypatch, spy, *CONSTANT, *common, *overrides)
    return logged.steps


@pytest.fixture(scope="module")
def logged_whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, float], dict[str, list[int]]]:
    """With a learning rate that does not depend on the length of the run: its losses, and the steps that were logged."""
    out, spy = tmp_path_factory.mktemp("logged"), Spy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "SMALL", [o for o in SMALL if not o.startswith("lr_scheduler")])
        return out, spy.losses, run_logged(out, patch, spy=spy)


QUICK_PAIRS = (
    (False, "trainer.max_epochs=2", LONGER[0]),
    (False, "trainer.max_steps=8", LONGER[1]),
    (False, "trainer.max_steps=6", LONGER[1]),
    (True, "trainer.max_steps=6", LONGER[0]),
)
PAIRS = (
    *((False, f"trainer.{rule}", second) for rule in ("max_epochs=2", "max_steps=8", "max_steps=6") for second in LONGER),
    (True, "trainer.max_steps=6", LONGER[0]),  # others are killed before their rule counts
    *((False, f"trainer.max_steps={limit}", LONGER[1]) for limit in (1, 4, 11)),
)


@pytest.mark.parametrize(
    ("killed", "first", "second"),
    [pair if pair in QUICK_PAIRS else pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS],
)
def test_any_two_stopping_rules_take_the_steps_of_one_run(
    killed: bool, first: str, second: str, logged_whole: tuple[Path, dict[int, float], dict[str, list[int]]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Lengthened, or killed at the end of an epoch and lengthened: the same steps, logged at the same steps, to the bit."""
    whole, losses, expected = logged_whole
    monkeypatch.setitem(globals(), "SMALL", [o for o in SMALL if not o.startswith("lr_scheduler")])
    run_logged(tmp_path, monkeypatch, first, stop_after=4 if killed else None)
    at = state(tmp_path)["global_step"]
    assert at == (3 if killed else 8 if first.endswith("epochs=2") else int(first.rpartition("=")[2]))
    spy = Spy()
    steps = run_logged(tmp_path, monkeypatch, "resume=auto", "trainer.max_epochs=3", second, spy=spy)
    assert spy.losses == {step: losses[step] for step in range(at + 1, 13)}
    assert steps == {name: [s for s in all_steps if s >= at] for name, all_steps in expected.items()}
    assert state(tmp_path)["global_step"] == 12
    for key in COMPARED:
        assert_equal(state(whole)[key], state(tmp_path)[key], key)
    assert (whole / "loss.csv").read_text() == (tmp_path / "loss.csv").read_text()


def test_a_longer_run_has_its_own_learning_rates_at_once_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rates: dict[int, float] = {}

    class Rates(Spy):
        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            rates[trainer.global_step] = trainer.optimizers[0].param_groups[0]["lr"]

    run(tmp_path / "whole", monkeypatch, Rates(), "~callbacks.loss_plot")
    whole = dict(rates)
    rates.clear()
    run(tmp_path / "ext", monkeypatch, Rates(), "~callbacks.loss_plot", "trainer.max_epochs=2")
    rates.clear()
    caplog.clear()
    with caplog.at_level("INFO"):
        run(tmp_path / "ext", monkeypatch, Rates(), "~callbacks.loss_plot", "resume=auto")
    assert rates == {step: whole[step] for step in range(8, 12)}
    said = [line for line in caplog.messages if line.startswith("learning rate:")]
    assert said == [f"learning rate: schedule stretched over 12 steps, not 8; rate from 4e-05 to {whole[8]:.3g} at step 8"]
    caplog.clear()
    with caplog.at_level("INFO"):
        run(tmp_path / "ext", monkeypatch, Rates(), "~callbacks.loss_plot", "resume=auto", "trainer.max_steps=12")
    assert not [line for line in caplog.messages if line.startswith("learning rate:")]


class Diverge(Spy):
    """A huge but finite update in the third step, and no gradient after it."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 3:
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.fill_(1e30)


def test_runs_from_before_there_were_keys_go_on_and_a_changed_list_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = {"loader": {"draws": "equal"}, "data": {"root": "a"}}

    def resumed(saved: dict[str, Any], now: dict[str, Any]) -> int:
        monkeypatch.setattr(resuming, "read_checkpoint", lambda path: {"hyper_parameters": saved, "global_step": 3})
        return resuming.refuse_another_run(Path("last.ckpt"), now)

    later = {"loader": {"draws": "equal"}, "data": {"root": "b", "subject": None}, "skeleton": {"parts": {"trunk": ["hips"]}}}
    assert resumed(begun, later) == 3 and resumed({"data": {}}, {"data": {}, "loader": {"draws": "equal"}}) == 3
    with pytest.raises(ConfigError, match=r"loader\.draws: equal in the checkpoint, length now"):
        resumed({"data": {}}, {"data": {}, "loader": {"draws": "length"}})
    with pytest.raises(ConfigError, match="split_list: 3 names in the checkpoint, 4 names now"):
        resumed({**begun, "split_list": "3 names"}, {**begun, "split_list": "4 names"})


@pytest.mark.parametrize("every", [2, 1])
def test_a_divergence_keeps_what_was_good(every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a checkpoint is of the very step at which it shows."""
    shorter = ("~callbacks.loss_plot", "trainer.max_epochs=2")
    with pytest.raises(FloatingPointError):
        run(tmp_path, monkeypatch, Diverge(), *shorter, f"callbacks.last.every_n_steps={every}")
    assert state(tmp_path)["global_step"] == 2
    assert run(tmp_path, monkeypatch, Spy(), *shorter, "resume=auto").keys() == set(range(3, 9))


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


QUICK = ("~callbacks.loss_plot", *CONSTANT)


class Worse(Spy):
    """Validation of weights that are of no use."""

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        with torch.no_grad():
            for parameter in pl_module.parameters():
                parameter.mul_(30)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        with torch.no_grad():
            for parameter in pl_module.parameters():
                parameter.div_(30)


def test_a_moved_run_keeps_its_best_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "SMALL", [o for o in SMALL if not o.startswith("lr_scheduler")])
    run(tmp_path / "a", monkeypatch, Spy(), *QUICK, "trainer.max_epochs=1")
    moved = (tmp_path / "a").rename(tmp_path / "b")
    best = moved / "checkpoints" / "best.ckpt"
    before = best.read_bytes()
    run(moved, monkeypatch, Worse(), *QUICK, "resume=auto", "trainer.max_epochs=2")
    assert best.read_bytes() == before and not (tmp_path / "a").exists()
    best.unlink()
    run(moved, monkeypatch, Spy(), *QUICK, "resume=auto")
    assert best.exists(), "one that is lost is not remembered as the best"


def test_a_damaged_file_does_not_take_the_place_of_a_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "SMALL", [o for o in SMALL if not o.startswith("lr_scheduler")])
    run(tmp_path, monkeypatch, Spy(), *QUICK, "trainer.max_epochs=1")
    last, previous = (tmp_path / "checkpoints" / f"{name}.ckpt" for name in ("last", "previous"))
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(Stop):
        run(tmp_path, monkeypatch, Spy(stop_after=5), *QUICK, "resume=auto", "callbacks.last.every_n_steps=1000")
    assert torch.load(last, weights_only=True)["global_step"] == 5
    assert torch.load(previous, weights_only=True)["global_step"] == 3
    for name in ("previous", "best"):
        (tmp_path / "checkpoints" / f"{name}.ckpt").unlink()
    last.write_bytes(b"")
    assert min(run(tmp_path, monkeypatch, Spy(), *QUICK, "resume=auto")) == 1, "nothing is whole: it starts anew"


class TimeIsUp(Spy):
    """The end of trainer.max_time, after the first of the two batches of a step."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        trainer.should_stop = trainer.fit_loop.epoch_loop.total_batch_idx == 5


class StopAt(Spy):
    """Stops before a batch."""

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.fit_loop.epoch_loop.total_batch_idx == self.stop_after:
            raise Stop


ACCUMULATED = (
    "trainer.accumulate_grad_batches=2", "trainer.max_epochs=2", "loader.steps_per_epoch=5", "callbacks.last.every_n_steps=1000",
)  # fmt: skip


@pytest.fixture(scope="module")
def accumulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[int]]]:
    out = tmp_path_factory.mktemp("accumulated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "SMALL", [o for o in SMALL if not o.startswith("lr_scheduler")])
        return out, run_logged(out, patch, *ACCUMULATED)


@pytest.mark.parametrize(("spy", "saved"), [(TimeIsUp(), 4), (StopAt(7), 4), (StopAt(8), 3)])
def test_accumulated_batches_are_in_the_weights_or_not_counted(
    spy: Spy, saved: int, accumulated: tuple[Path, dict[str, list[int]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of an epoch: the steps, what is logged at which, and the validations are of the uninterrupted run."""
    monkeypatch.setitem(globals(), "SMALL", [o for o in SMALL if not o.startswith("lr_scheduler")])
    whole, logged = accumulated
    stopped = run_logged(tmp_path, monkeypatch, *ACCUMULATED, spy=spy)
    assert state(tmp_path)["global_step"] == saved
    resumed = run_logged(tmp_path, monkeypatch, *ACCUMULATED, "resume=auto")
    if saved == 4:
        assert {name: steps + resumed[name] for name, steps in stopped.items()} == logged
    for key in COMPARED:
        assert_equal(state(whole)[key], state(tmp_path)[key], key)


def test_a_schedule_that_cannot_be_stretched_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cosine = (
        "lr_scheduler._target_=torch.optim.lr_scheduler.CosineAnnealingLR",
        "~lr_scheduler.warmup",
    )
    cosine = (*cosine, "~lr_scheduler.final", "~callbacks.loss_plot")
    monkeypatch.setitem(globals(), "SMALL", [o for o in SMALL if not o.startswith("lr_scheduler")])
    run(tmp_path, monkeypatch, Spy(), *cosine, "trainer.max_epochs=1")
    assert "T_max" not in caplog.text
    run(tmp_path, monkeypatch, Spy(), *cosine, "trainer.max_epochs=2", "resume=auto")
    assert "CosineAnnealingLR keeps its T_max=4, the run now has 8 steps" in caplog.text


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda c: c.pop("optimizer_states"), "lacks optimizer_states"),
        (lambda c: c.pop("current_model_state"), "lacks current_model_state"),
        (lambda c: c.pop("loops"), "lacks loops"),
        (lambda c: c.pop("callbacks"), "lacks callbacks"),
        (lambda c: c["optimizer_states"][0].update(state={}), "lacks the state of the optimiser"),
        (lambda c: c.update(optimizer_states=[]), "not what they should be"),
        (lambda c: c["optimizer_states"][0]["state"][0].pop("exp_avg"), "weight 0"),
        (lambda c: c["optimizer_states"][0]["state"][3].update(exp_avg=torch.zeros(7)), "weight 3"),
        (lambda c: c["current_model_state"].popitem(), "current_model_state does not fit"),
        (lambda c: c["loops"].update(fit_loop={}), "not what they should be"),
        (lambda c: c["loops"]["fit_loop"]["epoch_progress"].update(total={}), "epoch_progress.total.ready is not"),
        (lambda c: c.update(global_step=5), r"of the steps \[5, 4, 4\]"),
        (lambda c: c["lr_schedulers"].clear(), "0 schedules"),
        (lambda c: c["optimizer_states"][0]["state"][2].update(exp_avg=-0.5), "weight 2"),
        (lambda c: c["optimizer_states"][0]["param_groups"][0].update(betas=1), "param_groups.betas is not"),
        (
            lambda c: c["loops"]["fit_loop"]["epoch_progress"]["total"].update(completed={}),
            "epoch_progress.total.completed is not",
        ),
        (lambda c: c["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"].update(processed=10**19), "processed is not"),
        (lambda c: c["lr_schedulers"][0].update(base_lrs=None), "lr_schedulers.base_lrs is not"),
        (lambda c: c.update(callbacks="x"), "not what they should be"),
        (lambda c: c["callbacks"].update(EMA=3), "not what they should be|EMA is not"),
        (lambda c: state_of_best(c).clear(), "ModelCheckpoint.*is not"),
        (lambda c: state_of_best(c).update(best_k_models={"best.ckpt": "low"}), "best_k_models.*is not"),
    ],
)
def test_a_file_that_training_cannot_go_on_from_is_refused(
    spoil: Any, said: str, begun: tuple[Path, pl.Trainer], tmp_path: Path
) -> None:
    out, trainer = begun
    path, content = tmp_path / "last.ckpt", state(out)
    spoil(content)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=said):
        refuse_incomplete(path, trainer.lightning_module, trainer, averages=True)


@pytest.mark.parametrize("fused", [None, False, True])
def test_a_run_goes_on_however_its_optimizer_computed(fused: bool | None, begun: tuple[Path, pl.Trainer], tmp_path: Path) -> None:
    out, trainer = begun
    content = state(out)
    content["optimizer_states"][0]["param_groups"][0]["fused"] = fused
    torch.save(content, tmp_path / "last.ckpt")
    refuse_incomplete(tmp_path / "last.ckpt", trainer.lightning_module, trainer, averages=True)


def test_states_are_compared_with_fresh_ones() -> None:
    fresh = {"n": 0, "step": -1, "lr": 0.1, "on": True, "path": "", "rows": [], "values": {}, "betas": (0.9, 0.999), "any": None}
    good = {
        **fresh,
        "n": 7,
        "lr": 1,
        "rows": [[1, 2.5, math.nan]],
        "values": {"a": torch.tensor(1.0)},
        "betas": [0.1, 0],
        "any": "x",
    }
    assert resuming._unlike(fresh, fresh, "x") is resuming._unlike(good, fresh, "x") is None
    wrong = {"n": -1, "step": -2, "lr": "0.1", "on": 1, "path": 3, "rows": [None], "values": {"a": "low"}, "betas": [0.9]}
    for key, value in wrong.items():
        assert resuming._unlike({**good, key: value}, fresh, "x") == f"x.{key}"
        assert resuming._unlike({k: v for k, v in good.items() if k != key}, fresh, "x") == f"x.{key}"


def state_of_best(content: dict[str, Any]) -> dict[str, Any]:
    """Of the callback that keeps the best model."""
    return next(value for key, value in content["callbacks"].items() if key.startswith("ModelCheckpoint"))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pl.Trainer]:
    """A run of an epoch, and its trainer."""
    out, spy = tmp_path_factory.mktemp("begun"), Spy()
    trainers: list[pl.Trainer] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spy, "on_fit_start", lambda trainer, module: trainers.append(trainer))
        patch.setitem(globals(), "SMALL", [o for o in SMALL if not o.startswith("lr_scheduler")])
        run(out, patch, spy, *QUICK, "trainer.max_epochs=1")
    refuse_incomplete(out / "checkpoints" / "last.ckpt", trainers[0].lightning_module, trainers[0], averages=True)
    return out, trainers[0]


def snapshot(out: Path) -> dict[str, bytes | None]:
    """All that is in a directory."""
    return {str(path.relative_to(out)): path.read_bytes() if path.is_file() else None for path in out.rglob("*")}


MISTAKES = (
    "optimizer.lr=-1",
    "T=1",
    "+trainer.limit_train_batches=2",
    "data=folder data.root=nowhere",
    "loader.val_fraction=0.99 loader.split=nowhere",
    "sampler.steps=0",
    "trainer.max_epochs=-1 lr_scheduler=warmup_cosine",
)


def mistaken(out: Path, mistake: str) -> Any:
    options = [o for o in SMALL if not o.startswith("lr_scheduler") and not (o == "data.n=12" and "data=" in mistake)]
    options += [o for o in QUICK if not (o.startswith("lr_scheduler") and "lr_scheduler=" in mistake)]
    return compose("config", [*options, "trainer.max_epochs=1", f"out={out}", *mistake.split()])


REFUSED = (
    "",
    "locked",
    "resume=auto T=21",
    "resume=auto data.n=11",
    "resume=auto optimizer.lr=-1",
    "resume=auto sampler.steps=0",
)


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_refused_command_leaves_a_run_as_it_was(mistake: str, begun: tuple[Path, pl.Trainer], tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(begun[0], out)
    (out / ".lock").unlink()
    (out / ".config.yaml.tmp-99999999").touch()
    with locked(out) if mistake == "locked" else contextlib.nullcontext():
        before = snapshot(out)
        with pytest.raises((ProjectError, ValueError)):
            train_script.train(mistaken(out, mistake.removeprefix("locked")))
        assert snapshot(out) == before


@pytest.mark.parametrize("mistake", [*MISTAKES, "resume=nowhere"])
def test_a_mistaken_command_leaves_no_directory(mistake: str, tmp_path: Path) -> None:
    with pytest.raises((ProjectError, ValueError)):
        train_script.train(mistaken(tmp_path / "a" / "b", mistake))
    assert not any(tmp_path.iterdir())


def test_a_new_directory_that_was_not_used_is_removed_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for given in (None, "mine", "new/deep"):
        out = Path(run_directory(given, None))
        with pytest.raises(Stop), new_if_used(out):
            out.mkdir(parents=True, exist_ok=True)  # as Hydra does
            raise Stop
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]
    with pytest.raises(Stop), locked(tmp_path / "mine"):
        raise Stop
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_room_for_checkpoints_is_looked_for_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Any, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ddpm.files._occupy", full)
    with pytest.raises(WriteError, match=r"new/checkpoints: cannot be written to \(No space left.* bytes needed, \d+ free"):
        run(tmp_path / "new", monkeypatch, Spy())
    assert not any(tmp_path.iterdir())
