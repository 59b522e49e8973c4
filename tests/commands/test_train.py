"""The commands, end to end, on small runs."""

import csv
import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import train as train_script
from callbacks.ema import EMA
from callbacks.loss_plot import LossPlot
from callbacks.skeleton_gif import SkeletonGIF
from datamodules.clip_set import ClipSet, Recording
from datamodules.pose import PoseDataModule
from datamodules.sets.synthetic import synthetic
from ddpm import load
from ddpm.build import with_channels
from ddpm.errors import CheckpointError, ConfigError
from ddpm.learning_rate import warmup_constant, warmup_cosine
from ddpm.module import MotionDiffusion, build_module
from ddpm.runs import locked, remove_what_was_left, run_directory
from ddpm.skeleton import Skeleton
from tests.commands.doors import ROOT, command, process
from tests.configs import compose

SMALL = [
    "frames=8", "data.n=24", "loader.split=sequence", "loader.batch_size=8", "loader.steps_per_epoch=3", "trainer=cpu",
    "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "model.model_channels=8", "model.channel_mult=[1]",
    "model.attention_resolutions=[1]", "callbacks.skeleton_gif.n=2", "callbacks.skeleton_gif.every=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run, and what it printed."""
    where = tmp_path_factory.mktemp("user")
    done = command("train.py", *SMALL, "T=7", "out=run", cwd=where)
    assert done.returncode == 0, done.stderr
    return where / "run", done.stdout


def test_a_run_leaves_everything_and_says_where(run: tuple[Path, str]) -> None:
    out, printed = run
    told = printed.split(f"everything is in {out}")[1]
    for name in ("samples/final.gif", "loss.png", "loss.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt", "config.yaml"):
        assert (out / name).stat().st_size > 0 and name in told, name
    assert (out / "samples" / "epoch_0001.gif").exists() and "tensorboard" in told


def test_the_configuration_is_written_as_it_was_used(run: tuple[Path, str]) -> None:
    written = (run[0] / "config.yaml").read_text()
    config = OmegaConf.to_container(OmegaConf.create(written))
    assert isinstance(config, dict) and "${" not in written
    assert (config["T"], config["model"]["image_size"], config["model"]["in_channels"]) == (7, 8, 60)
    assert config["trainer"]["precision"] == "32-true"


def test_the_number_of_steps_reaches_the_tables(run: tuple[Path, str]) -> None:
    module = load(run[0] / "checkpoints" / "last.ckpt")
    diffusion = module.diffusion
    assert diffusion.n_steps == 7
    assert all(len(t) == 7 for t in (diffusion.beta, diffusion.alpha, diffusion.alpha_bar, diffusion.sigma2))


def test_the_table_holds_an_epoch_a_row(run: tuple[Path, str]) -> None:
    rows = list(csv.DictReader((run[0] / "loss.csv").open()))
    assert [(r["epoch"], r["step"]) for r in rows] == [("1", "3"), ("2", "6")]
    assert all(math.isfinite(float(r[key])) for r in rows for key in ("train_loss", "val_loss", "lr"))


def test_tensorboard_has_curves_gifs_figure_and_hparams(run: tuple[Path, str]) -> None:
    events = EventAccumulator(str(run[0]), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    assert {"train/loss", "train/grad_norm", "val/loss"} <= set(tags["scalars"])
    assert any(tag.startswith("lr-") for tag in tags["scalars"])
    assert tags["images"] and sorted(tags["images"]) == ["samples", "train/loss_curve", "val/noise_levels"], "GIFs come first"
    assert {tag.partition("/")[0] for tag in tags["scalars"]} - {"epoch", "lr-AdamW"} <= {"metrics", "physics", "train", "val"}
    layout = layout_pb2.Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    assert [tab.title for tab in layout.category] == ["losses", "metrics", "physics"]
    assert events.Images("samples")[0].encoded_image_string.startswith(b"GIF89a"), "an animation, which browsers play"
    start = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    hparams = HParamsPluginData.FromString(start).session_start_info.hparams
    assert hparams["T"].number_value == 7 and hparams["model.model_channels"].number_value == 8
    assert hparams["trainer"].string_value == "cpu" and "model.num_heads" not in hparams, "what was chosen, and no default"
    experiment = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    for tag in [m.name.tag for m in HParamsPluginData.FromString(experiment).experiment.metric_infos]:
        assert math.isfinite(events.Scalars(tag)[-1].value), "and the metric has its final value"


def test_the_gif_plays_a_clip(run: tuple[Path, str]) -> None:
    gif = Image.open(run[0] / "samples" / "final.gif")
    milliseconds = 0.0
    for i in range(gif.n_frames):
        gif.seek(i)
        milliseconds += gif.info["duration"]
    assert milliseconds == pytest.approx(8 / 20 * 1000, rel=0.03)


def test_sampling_needs_the_checkpoint_alone(run: tuple[Path, str], tmp_path: Path) -> None:
    ckpt = run[0] / "checkpoints" / "last.ckpt"
    first = command("sample.py", f"ckpt={ckpt}", "n=3", "seed=5", "out=a", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    again = command("sample.py", f"ckpt={ckpt}", "n=3", "seed=5", "out=b", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    for name in ("clips.npz", "clips.gif"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    saved = np.load(tmp_path / "a" / "clips.npz", allow_pickle=False)
    assert saved["clips"].dtype == np.float32 and saved["clips"].shape == (3, 8, 20, 3)
    assert saved["fps"] == 20 and saved["seeds"].tolist() == [5, 6, 7]
    assert saved["joint_names"].tolist()[0] == "hip_center" and saved["parents"][0] == -1


def test_a_seed_is_a_clip_whatever_is_beside_it(run: tuple[Path, str]) -> None:
    module = load(run[0] / "checkpoints" / "last.ckpt")
    torch.manual_seed(0)
    for parameter in module.parameters():  # after so few steps the network still says the same of any noise
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    many = module.sample(range(10)).positions
    torch.testing.assert_close(module.sample([7]).positions, many[7:8], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(module.sample(range(10), batch_size=3).positions, many, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(many[0], many[1], atol=1e-2)
    assert module.sample([0], frames=13).positions.shape == (1, 13, 20, 3)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["ckpt=missing.ckpt"], "missing.ckpt: no such file"),
        (["n=0"], "n=0"),
        (["ckpt=???"], "ckpt"),
        (["device=abacus"], "device=abacus"),
        (["sampler=dpmpp_2m", "sampler.steps=0"], "sampler.steps=0"),
    ],
)
def test_bad_input_to_sample_is_one_message(run: tuple[Path, str], tmp_path: Path, arguments: list[str], named: str) -> None:
    ckpt = [] if arguments[0].startswith("ckpt") else [f"ckpt={run[0]}"]
    failed = command("sample.py", *ckpt, *arguments, cwd=tmp_path)
    assert failed.returncode == 2 and named in failed.stdout and "Traceback" not in failed.stdout + failed.stderr


def test_a_sweep_has_a_directory_a_job_and_one_failure_does_not_end_it(tmp_path: Path) -> None:
    """And leaves a table and a page of all of them."""
    swept = command(
        "train.py", "-m", *SMALL, "T=5,1,6", "trainer.max_epochs=1", "~callbacks.skeleton_gif", "~callbacks.motion_metrics",
        "logger=none", "out=sweep", cwd=tmp_path,
    )  # fmt: skip
    sweep = tmp_path / "sweep"
    assert swept.returncode == 2 and "T=1 must be in [2" in (sweep / "1_T-1" / "train.log").read_text()
    assert (sweep / "0_T-5" / "checkpoints" / "last.ckpt").exists()
    assert not (sweep / "1_T-1" / "checkpoints").exists()
    assert load(sweep / "2_T-6" / "checkpoints" / "last.ckpt").diffusion.n_steps == 6
    first, second, third = csv.DictReader((sweep / "sweep.csv").read_text().splitlines())
    assert (first["T"], first["status"], second["status"], third["steps"]) == ("5", "finished", "failed", "3")
    with (sweep / "0_T-5" / "loss.csv").open() as file:
        assert float(first["val/loss"]) == pytest.approx(float(list(csv.DictReader(file))[-1]["val_loss"]))
    assert second["error"].startswith("ConfigError: T=1 must be in [2")
    assert "3 jobs: 2 finished, 1 failed; best by" in swept.stdout and "T=1 must be in [2" in (sweep / "sweep.html").read_text()


def small(out: Path, *overrides: str) -> Any:
    return compose(
        "config",
        [
            *SMALL,
            "T=7",
            "logger=none",
            "~callbacks.skeleton_gif",
            "~callbacks.loss_plot",
            "~callbacks.motion_metrics",
            f"out={out}",
            *overrides,
        ],
    )


def test_train_returns_what_a_sweeper_minimises(tmp_path: Path) -> None:
    value = train_script.train(small(tmp_path))
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert math.isfinite(value)
    scores = [v["best_model_score"] for k, v in best["callbacks"].items() if k.startswith("ModelCheckpoint")]
    assert float(scores[0]) <= value + 1e-6


@pytest.mark.parametrize(
    "options",
    [
        ["variance=learned", "sampler=ddpm"],
        ["variance=learned", "sampler=ddpm", "model=transformer"],
        ["motion_loss=full"],
        ["schedule=zero_terminal_snr", "prediction=velocity", "weighting=velocity"],
        ["variance=learned", "motion_loss=full", "timesteps=importance", "timesteps.bins=7", "schedule=zero_terminal_snr",
         "prediction=velocity", "weighting=velocity", "sampler=ddpm"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_options_train_save_and_sample(options: list[str], tmp_path: Path) -> None:
    either_model = [o for o in SMALL if not o.startswith(("callbacks.", "model.channel_mult", "model.att"))]
    drawn = ["~callbacks.skeleton_gif", "~callbacks.loss_plot", "~callbacks.motion_metrics"]
    others = ["T=7", "logger=none", *drawn, f"out={tmp_path}"]
    assert math.isfinite(train_script.train(compose("config", [*options, *either_model, *others])))
    module = load(tmp_path / "checkpoints" / "last.ckpt")
    assert module.sample([0, 1]).positions.isfinite().all()
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    channels = content["hyper_parameters"]["model"]["out_channels"]
    assert channels == (120 if "variance=learned" in options else 60)
    (last,) = (v for k, v in content["current_model_state"].items() if k.endswith((".out.weight", ".out.2.weight")))
    assert last.shape[0] == channels and last[-60:].abs().max() > 0, "also what says the fraction was trained: it began at 0"


def test_epsilon_is_refused_where_the_signal_ends(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"prediction=epsilon.*use prediction=velocity or prediction=x0"):
        train_script.train(small(tmp_path, "schedule=zero_terminal_snr", "prediction=epsilon"))


def test_another_run_is_not_resumed(tmp_path: Path) -> None:
    train_script.train(small(tmp_path))
    with pytest.raises(ConfigError, match=r"(?s)model\.num_heads: 4 in the checkpoint, 2 now"):
        train_script.train(small(tmp_path, "resume=auto", "model.num_heads=2"))
    with pytest.raises(ConfigError, match="in its own directory"):
        train_script.train(small(tmp_path / "other", f"resume={tmp_path}"))
    with pytest.raises(CheckpointError, match="resume=auto"):
        train_script.train(small(tmp_path, f"resume={tmp_path / 'nothing.ckpt'}"))


def test_a_finished_run_can_be_trained_longer(run: tuple[Path, str]) -> None:
    """`resume=PATH` alone: the first command line is read from the checkpoint, in the run's own directory."""
    out = run[0]
    longer = command("train.py", f"resume={out / 'checkpoints' / 'last.ckpt'}", "trainer.max_epochs=3", cwd=out.parent.parent)
    assert longer.returncode == 0, longer.stdout + longer.stderr
    rows = list(csv.DictReader((out / "loss.csv").open()))
    assert [r["step"] for r in rows] == ["3", "6", "9"]


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    train_script.train(small(tmp_path))
    before = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()
    with pytest.raises(ConfigError, match="resume=auto, or choose another"):
        train_script.train(small(tmp_path))
    for change in ("trainer.gradient_clip_val=0.01", "callbacks.ema.decay=0.5", "trainer.accumulate_grad_batches=2"):
        with pytest.raises(ConfigError, match=change.partition("=")[0].removeprefix("callbacks.")):
            train_script.train(small(tmp_path, "resume=auto", change))
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == before


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("+trainer.num_sanity_val_steps=1", r"trainer\.num_sanity_val_steps"),
        ("model.clip_dim=13", r"model\.clip_dim=13"),
        ("+trainer.gradient_clip_algorithm=value", r"trainer\.gradient_clip_algorithm"),
        ("trainer.max_epochs=-1", "warmup_constant"),
        ("+trainer.limit_train_batches=2", r"loader\.steps_per_epoch"),
        ("trainer.gradient_clip_val=-1", r"trainer\.gradient_clip_val=-1"),
        ("trainer.accumulate_grad_batches=0", r"trainer\.accumulate_grad_batches=0"),
        ("trainer.precision=64-true", r"trainer\.precision=64-true"),
        ("seed=-1", "seed=-1"),
        ("sampler.steps=0", r"sampler\.steps=0"),
        ("sampler.spacing=even", "'even'"),
        ("weighting.gamma=-1", "gamma"),
        ("loader=none", "loader='none'"),
    ],
)
def test_what_cannot_work_is_refused_before_training(
    override: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*args: Any, **kwargs: Any) -> None:
        pytest.fail("training began")

    monkeypatch.setattr(MotionDiffusion, "training_step", too_late)
    with pytest.raises(ValueError, match=named):
        train_script.train(small(tmp_path, override))
    assert not (tmp_path / "checkpoints").exists()


def test_a_resumed_run_does_not_move(run: tuple[Path, str], tmp_path: Path) -> None:
    before = (run[0] / "checkpoints" / "last.ckpt").read_bytes()
    refused = command("train.py", f"resume={run[0]}", "out=elsewhere", "trainer.max_epochs=9", cwd=tmp_path)
    assert refused.returncode == 2 and "leave out=elsewhere away" in refused.stdout
    assert (run[0] / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    refused = command("train.py", *SMALL, "out=taken", cwd=tmp_path)
    assert refused.returncode == 2 and "out='taken' must be a directory" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr


def test_what_a_killed_process_left_is_swept_up(tmp_path: Path) -> None:
    """Of a living one only what it may be writing there stays."""
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True).stdout.strip()
    strays = [f"checkpoints/.last.ckpt.tmp-{os.getppid()}"]
    strays += [f"{name}.tmp-{dead}" for name in (".config.yaml", "samples/.final.gif", "checkpoints/.trial-0")]
    alive = f"samples/.clips.npz.tmp-{os.getppid()}"
    for name in (*strays, alive, "samples/final.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove_what_was_left(tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {alive, "samples/final.gif"}


def test_a_run_without_end_ends_when_its_time_is_up(tmp_path: Path) -> None:
    endless = ["trainer.max_epochs=-1", "lr_scheduler=warmup_constant", "trainer.max_time=00:00:00:01"]
    assert math.isfinite(train_script.train(small(tmp_path, *endless)))


def test_time_is_counted_from_each_start(tmp_path: Path) -> None:
    """Else a run that is trained in slices of its time would never go on; and one that has reached its end says so."""
    arguments = [
        *SMALL,
        "T=7",
        "logger=none",
        "~callbacks.skeleton_gif",
        "~callbacks.motion_metrics",
        "lr_scheduler=warmup_constant",
    ]
    slices = [*arguments, "trainer.max_epochs=-1", "trainer.max_time=00:00:00:01", "resume=auto", "out=o"]
    steps = []
    for _ in range(2):
        assert command("train.py", *slices, cwd=tmp_path).returncode == 0
        steps.append(json.loads((tmp_path / "o" / "run.json").read_text())["starts"][-1]["steps"])
    assert 0 < steps[0] < steps[1]
    done = command("train.py", *slices, f"trainer.max_steps={steps[1]}", cwd=tmp_path)
    assert done.returncode == 0 and f"o is at step {steps[1]}, and trainer.max_steps" in done.stdout + done.stderr


@pytest.mark.parametrize(("end", "drawn"), [(KeyboardInterrupt(), True), (SystemExit(), False), (RuntimeError(), False)])
def test_a_run_stopped_from_the_keyboard_leaves_a_last_picture(end: BaseException, drawn: bool, tmp_path: Path) -> None:
    class Stop(pl.Callback):
        def on_train_batch_end(self, *args: object) -> None:
            raise end

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_script, "StopBetweenBatches", Stop)
        with pytest.raises((SystemExit, RuntimeError)):
            train_script.train(compose("config", [*SMALL, "T=7", "logger=none", f"out={tmp_path}"]))
    assert (tmp_path / "samples" / "final.gif").exists() is drawn


def test_no_clipping_is_not_no_gradient(tmp_path: Path) -> None:
    train_script.train(small(tmp_path, "trainer.gradient_clip_val=0"))
    weights = load(tmp_path / "checkpoints" / "last.ckpt").diffusion.eps_model.out[-1].weight
    assert weights.abs().max() > 0


def test_the_table_under_accumulation_and_without_validation(tmp_path: Path) -> None:
    """train_loss is the mean over batches however many make a step, and val_loss is empty where nothing was validated."""
    losses: list[float] = []

    class Note(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *args: Any) -> None:
            losses.append(3 * float(outputs["loss"]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_script, "StopBetweenBatches", Note)
        overrides = ["trainer.accumulate_grad_batches=3", "trainer.check_val_every_n_epoch=2", "~callbacks.skeleton_gif"]
        overrides.append("~callbacks.motion_metrics")
        train_script.train(compose("config", [*SMALL, "T=7", "logger=none", f"out={tmp_path}", *overrides]))
    rows = list(csv.DictReader((tmp_path / "loss.csv").open()))
    assert [float(r["train_loss"]) for r in rows] == pytest.approx([np.mean(losses[:3]), np.mean(losses[3:])], rel=1e-5)
    assert math.isnan(float(rows[0]["val_loss"])) and math.isfinite(float(rows[1]["val_loss"]))


FIXED = """
import pytorch_lightning as pl
import torch
from ddpm.module import MotionDiffusion

class Fixed(pl.Callback):
    def on_fit_start(self, trainer, module):
        def loss(batch):
            clips = batch["clips"]
            return MotionDiffusion.loss(module, batch, torch.sin(1000 * clips), clips.new_full((len(clips),), 4).long())
        module.loss = loss
"""
"""A callback that takes chance out of the loss: noise and diffusion steps depend on the clips alone."""
DISTRIBUTED = [
    *SMALL, "T=7", "condition=none", "data.n=16", "loader.split=sequence", "~callbacks.loss_plot", "~callbacks.motion_metrics",
    "~callbacks.skeleton_gif", "logger=csv", "cache=null", "+callbacks.fixed._target_=fixed.Fixed",
]  # fmt: skip


def same_curve(one: Path, two: Path) -> None:
    """The losses of every step and the averaged weights of two runs are equal but for rounding."""
    logs = [csv.DictReader((run / "csv" / "version_0" / "metrics.csv").open()) for run in (one, two)]
    curves = [[float(row["train/loss"]) for row in log if row["train/loss"]] for log in logs]
    assert len(curves[0]) == 6 and curves[1] == pytest.approx(curves[0], rel=1e-4)
    weights = [load(run).diffusion.eps_model.state_dict() for run in (one, two)]
    for name, value in weights[0].items():
        assert torch.allclose(weights[1][name], value, atol=1e-4), name


def test_two_processes_train_the_model_of_one_with_their_batches_together(tmp_path: Path) -> None:
    (tmp_path / "fixed.py").write_text(FIXED)
    arguments = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "loader.batch_size=4", "out=two"]
    done = process("train.py", *DISTRIBUTED, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("everything is in") == 1
    assert command("train.py", *DISTRIBUTED, "loader.batch_size=8", "out=one", cwd=tmp_path).returncode == 0
    same_curve(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_processes_that_are_spawned_share_a_cached_set_and_leave_a_whole_run(tmp_path: Path) -> None:
    """Trainer, module and data are pickled; the second start takes the set from the cache."""
    (tmp_path / "walks").mkdir()
    walks = np.cumsum(np.random.default_rng(0).normal(scale=0.01, size=(8, 20, 20, 3)), axis=1)
    for i, walk in enumerate(walks):
        np.savez(tmp_path / "walks" / f"s{i}.npz", clips=walk[None], fps=20.0)
    data = ["data=folder", "data.root=walks", "data.on_outlier=keep", "cache=cache"]
    small = [*(given for given in SMALL if not given.startswith("data.")), "T=7", "condition=none"]
    for out, taken in (("one", False), ("two", True)):
        spawn = ["trainer.devices=2", "+trainer.strategy=ddp_spawn", f"out={out}"]
        done = process("train.py", *small, *data, *spawn, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert ("taken from" in done.stdout) == taken and "\n6 steps in" in done.stdout
        assert json.loads((tmp_path / out / "run.json").read_text())["starts"][-1]["steps"] == 6


@pytest.mark.slow
def test_two_nodes_of_torchrun_train_the_model_of_one_process(tmp_path: Path) -> None:
    (tmp_path / "fixed.py").write_text(FIXED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["trainer=ddp", "trainer.accelerator=cpu", "+trainer.num_nodes=2", "trainer.devices=1", "loader.batch_size=4"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1"]
    train = [f"--master-port={port}", str(ROOT / "train.py"), *DISTRIBUTED, *arguments, "out=two"]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    ranks = [f"--node-rank={rank}" for rank in range(2)]
    nodes = [subprocess.Popen([*torchrun, rank, *train], cwd=tmp_path, env=one_thread) for rank in ranks]
    assert [node.wait(200) for node in nodes] == [0, 0]
    assert command("train.py", *DISTRIBUTED, "loader.batch_size=8", "out=one", cwd=tmp_path).returncode == 0
    same_curve(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("variable", ["ROLE_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_processes_started_from_outside_are_told_their_directory(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "1")
    assert run_directory(None, None).startswith("outputs/")
    monkeypatch.setenv(variable, "2")
    with pytest.raises(ConfigError, match="out=DIR"):
        run_directory(None, None)
    assert run_directory("a", None) == "a"


def test_a_sweep_of_distributed_runs_is_refused(tmp_path: Path) -> None:
    refused = command("train.py", "-m", *SMALL, "T=5,6", "trainer.devices=2", "out=sweep", cwd=tmp_path)
    assert refused.returncode == 2 and "trainer.devices=2 under --multirun" in refused.stdout + refused.stderr


def test_two_runs_cannot_share_a_directory(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(ConfigError, match="another process"):
        train_script.train(small(tmp_path))


@pytest.mark.parametrize(
    ("resume", "out", "expected"),
    [
        (None, "a", "a"),
        ("auto", "a", "a"),
        ("auto", None, "outputs/2026-01-02/00-00-00"),
        ("mistyped/checkpoints/last.ckpt", "a", "a"),
        ("outputs/2026-01-03/00-00-00/checkpoints/last.ckpt", None, "outputs/2026-01-03/00-00-00"),
        ("outputs/2026-01-03/00-00-00", None, "outputs/2026-01-03/00-00-00"),
    ],
)
def test_where_a_run_goes(
    resume: str | None, out: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for i, day in enumerate(("2026-01-03", "2026-01-02")):
        last = tmp_path / "outputs" / day / "00-00-00" / "checkpoints" / "last.ckpt"
        last.parent.mkdir(parents=True)
        last.touch()
        os.utime(last, (i, i))
    assert run_directory(out, resume) == expected


def test_a_directory_that_cannot_be_written_is_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/run: cannot be written to \(Not a directory\), 1048576 bytes needed, \d+ free"):
        run_directory(str(tmp_path / "file" / "run"), None)


def test_a_picture_that_fails_does_not_end_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise OSError("no colours left")

    monkeypatch.setattr("callbacks.skeleton_gif.draw_clips", broken)
    monkeypatch.setattr("callbacks.loss_plot.plot_losses", broken)
    train_script.train(compose("config", [*SMALL, "T=7", "logger=none", f"out={tmp_path}"]))
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()
    assert "no colours left" in caplog.text and "training goes on" in caplog.text


def test_divergence_stops_training_and_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = MotionDiffusion.training_step

    def diverging(self: MotionDiffusion, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return original(self, batch, batch_idx) * (torch.nan if self.global_step == 4 else 1.0)

    monkeypatch.setattr(MotionDiffusion, "training_step", diverging)
    with pytest.raises(FloatingPointError, match=r"step 4 .*learning rate"):
        train_script.train(small(tmp_path))
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 3, "nothing is saved over what was good"
    assert all(v.isfinite().all() for v in content["current_model_state"].values() if v.is_floating_point())


class Watch(pl.Callback):
    """Compares raw and averaged weights at the places where they are exchanged."""

    def __init__(self) -> None:
        self.swapped: list[bool] = []

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        ema = next(c for c in trainer.callbacks if isinstance(c, EMA))
        average = ema._average_model.module
        raw_is_elsewhere = any((a != b).any() for a, b in zip(average.parameters(), pl_module.parameters(), strict=True))
        self.swapped.append(ema._swapped and raw_is_elsewhere)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        ema = next(c for c in trainer.callbacks if isinstance(c, EMA))
        raw = pl_module.sample([0]).positions
        with ema.averaged(pl_module):
            averaged = pl_module.sample([0]).positions
        assert not torch.equal(raw, averaged), "samples are of the average, which differs"
        assert torch.equal(raw, pl_module.sample([0]).positions), "and the raw weights are back"
        expected = ema._average_model.module.sample([0]).positions
        assert torch.equal(averaged, expected)


def test_validation_and_samples_use_the_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch()
    monkeypatch.setattr(train_script, "StopBetweenBatches", lambda: watch)
    train_script.train(small(tmp_path, "callbacks.ema.decay=0.9", "lr_scheduler.warmup=0"))
    assert watch.swapped and all(watch.swapped)
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert any(not torch.equal(content["state_dict"][k], v) for k, v in content["current_model_state"].items())


def test_the_average_is_the_recursion_it_claims_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights: list[torch.Tensor] = []

    class Note(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
            weights.append(pl_module.diffusion.eps_model.out[-1].weight.detach().clone())

    monkeypatch.setattr(train_script, "StopBetweenBatches", Note)
    train_script.train(small(tmp_path, "callbacks.ema.decay=0.3", "lr_scheduler.warmup=0"))
    average = weights[0].double()
    for n, weight in enumerate(weights[1:], start=1):
        decay = min(0.3, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * weight.double()
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    torch.testing.assert_close(content["state_dict"]["diffusion.eps_model.out.2.weight"].double(), average, rtol=1e-5, atol=1e-8)


def test_the_averaged_model_has_the_buffers_of_the_raw_one(tmp_path: Path) -> None:
    train_script.train(small(tmp_path, "timesteps=importance", "timesteps.bins=7"))
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    averaged, raw = content["state_dict"], content["current_model_state"]
    buffers = averaged.keys() - dict(load(tmp_path).named_parameters())
    assert all(torch.equal(averaged[name], raw[name]) for name in buffers)
    seen = [averaged[name] for name in buffers if name.endswith(("square", "seen"))]
    assert len(seen) == 2 and all(values.any() for values in seen), "and they are not those of the start, which were 0"


@pytest.mark.parametrize(
    ("model", "frames", "steps", "lr"),
    [("unet", 8, 150, 4e-3), pytest.param("transformer", 16, 300, 2e-3, marks=pytest.mark.slow)],
)
def test_one_clip_is_learned_by_heart(
    tiny_config: dict[str, Any], skeleton: Skeleton, model: str, frames: int, steps: int, lr: float
) -> None:
    """Every seed must give the one clip there is; an untrained network is decimetres off."""
    source = synthetic(skeleton, n=1, seed=1)
    clips = ClipSet.from_recordings([Recording(source.recording(0)[:frames].numpy(), "one")], fps=20, skeleton=skeleton)
    data = PoseDataModule(clips, frames, batch_size=8, steps_per_epoch=steps, val_fraction=0)
    config = tiny_config | {"T": 100, "frames": frames}
    if model == "unet":
        config["model"] = config["model"] | {"image_size": frames, "model_channels": 32}
    else:
        config["model"] = {
            "_target_": "ddpm.networks.transformer.MotionTransformer", "frames": frames, "in_channels": 60, "out_channels": 60,
            "model_channels": 128, "depth": 2,
        }  # fmt: skip
    torch.manual_seed(0)
    config["optimizer"] = {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": lr}
    module = build_module(config, fps=20, trainable=True)
    statistics = data.statistics_batch()
    module.normalizer.fit(statistics["clips"], statistics["mask"])
    wanted = statistics["clips"][0].permute(2, 0, 1)
    before = (module.sample(range(4)).positions - wanted).norm(dim=-1).mean()
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, gradient_clip_val=1.0,
    )  # fmt: skip
    trainer.fit(module, data)
    after = (module.sample(range(4)).positions - wanted).norm(dim=-1).mean()
    assert after < 0.02 < before, f"{after:.3f} m off, {before:.3f} m before"


def test_learning_rates() -> None:
    def rates(make: Any, steps: int) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
        scheduler = make(optimizer)
        out = []
        for _ in range(steps):
            out.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return out

    cosine = rates(lambda o: warmup_cosine(o, 100, warmup=9, final=0.1), 101)
    assert cosine[0] == pytest.approx(0.2) and cosine[9] == pytest.approx(2.0) and cosine[100] == pytest.approx(0.2)
    assert cosine[:10] == sorted(cosine[:10]) and cosine[9:] == sorted(cosine[9:], reverse=True)
    constant = rates(lambda o: warmup_constant(o, 100, warmup=3), 10)
    assert constant == pytest.approx([0.5, 1.0, 1.5] + [2.0] * 7)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: EMA(decay=1.0), "decay=1.0"),
        (lambda: SkeletonGIF(every=0), "every=0"),
        (lambda: LossPlot(every=0), "every=0"),
    ],
)
def test_callbacks_name_their_limits(make: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make()


def test_flat_poses_train_and_sample(tiny_config: dict[str, Any]) -> None:
    """2-D keypoints with a skeleton of another size, y downwards as in pictures."""
    flat = {"_target_": "ddpm.skeleton.Skeleton", "joints": {"hip": None, "neck": "hip", "head": "neck"}, "up": "-y", "coords": 2}
    skeleton = Skeleton(flat["joints"], up="-y", coords=2)
    frames = torch.linspace(0, 6, 40)[:, None, None]
    positions = torch.tensor([[0.0, 0.0], [0.0, -0.5], [0.0, -0.7]]) + 0.1 * torch.cat([frames.sin(), frames.cos()], dim=-1)
    clips = ClipSet.from_recordings([Recording(positions.numpy(), "one")], fps=10, skeleton=skeleton)
    data = PoseDataModule(clips, 8, batch_size=4, steps_per_epoch=2, val_fraction=0)
    config = with_channels(
        tiny_config | {"skeleton": flat, "model": tiny_config["model"] | {"in_channels": None, "out_channels": None}}
    )
    module = build_module(config, fps=10, trainable=True)
    statistics = data.statistics_batch()
    module.normalizer.fit(statistics["clips"], statistics["mask"])
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, data)
    sampled = module.sample([0, 1]).positions
    assert sampled.shape == (2, 8, 3, 2) and sampled.isfinite().all()
