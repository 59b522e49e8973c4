"""Mistakes in what is typed: each is refused with its key, value and limit, in few lines, before data are read."""

import dataclasses
import functools
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

import compare
import evaluate
import export
import inspect_data
import sample
import train
from ddpm import command, limits, memory
from ddpm.module import MotionDiffusion, build_module
from ddpm.request import Request
from tests.commands.doors import DOORS
from tests.commands.test_command import Run, run  # noqa: F401  a fixture
from tests.configs import compose

CONF = Path(__file__).parents[2] / "conf"
NAMES = {"train": "config", "inspect_data": "inspect"}
GIVEN = {"sample": ["ckpt=RUN"], "compare": ["ckpt=RUN"], "export": ["ckpt=RUN"]}

VALUES = """
train | T=1 | in [2, 100000]
train | T=0 | in [2, 100000]
train | T=-5 | in [2, 100000]
train | T=1000000000 | in [2, 100000]
train | frames=0 | in [1, 100000]
train | frames=-1 | in [1, 100000]
train | frames=3 | model.image_size=3 ... at least 4 ... more frames
train | frames=100000000 | in [1, 100000]
train | seed=-1 | in [0,
train | seed=4294967296 | in [0,
train | cache=FILE | a directory
train | cache='' | a directory
train | out=FILE | a directory
train | out='' | a directory
train | out=FILE/x | cannot be written to
train | out=/proc/x | cannot be written to
train | project=bone | bones or none
train | project='' | bones or none
train | travel=foo | steps or positions
train | resume='' | is empty
train | optimizer.lr=0 | in (0, 1000]
train | optimizer.lr=-1 | in (0, 1000]
train | optimizer.lr=1e38 | in (0, 1000]
train | optimizer.lr=nan | finite
train | optimizer.lr=inf | finite
train | optimizer.lr=-inf | finite
train | optimizer.lr=abc | float
train | optimizer.lr='' | float
train | optimizer.lr=null | float
train | optimizer.lr=true | float
train | optimizer.betas=[0.9] | tuple[float
train | optimizer.betas=[0.9,1.5] | 1.5
train | optimizer.betas=[0.9,nan] | finite
train | optimizer.betas=0.9 | tuple[float
train | optimizer.betas=[a,b] | tuple[float
train | optimizer.weight_decay=-1 | at least 0
train | optimizer.weight_decay=nan | finite
train | optimizer.eps=-1 | at least 0
train | optimizer.wd=1 | ~ weight_decay
train | trainer.precision=16-mixed | optimizer.fused=false
train | compile=maybe | compile
train | optimizer.weight_decy=1 | ~ did you mean optimizer.weight_decay
train | optimizer._target_=torch.optim.Foo | does not exist
train | optimizer=none | node
train | lr_scheduler.warmup=-1 | at least 0
train | lr_scheduler.warmup=1.5 | int
train | lr_scheduler.final=-1 | in [0, 1]
train | lr_scheduler.final=nan | finite
train | lr_scheduler.final=2 | in [0, 1]
train | trainer.max_epochs=0 | at least 1 or -1
train | trainer.max_epochs=-2 | at least 1 or -1
train | trainer.max_epochs=-1 | ~ lr_scheduler=warmup_cosine ... trainer.max_epochs
train | trainer.max_epochs=1.5 | int
train | trainer.max_epochs=nan | finite
train | trainer.max_steps=0 | at least 1 or -1
train | trainer.max_steps=-2 | at least 1 or -1
train | trainer.max_time=abc | 00:00:30:00
train | trainer.max_time=00:00:00:00 | 00:00:30:00
train | trainer.log_every_n_steps=0 | at least 1
train | trainer.log_every_n_steps=-1 | at least 1
train | trainer.check_val_every_n_epoch=0 | at least 1
train | trainer.gradient_clip_val=-1 | at least 0
train | trainer.gradient_clip_val=nan | finite
train | trainer.accumulate_grad_batches=0 | at least 1
train | trainer.accelerator=tpu | one of auto, cpu
train | trainer.accelerator=abacus | one of auto, cpu
train | trainer.devices=0 | at least 1
train | trainer.devices=-2 | at least 1
train | trainer.accelerator=cpu trainer.devices=100000 | at most
train | trainer.precision=64-true | one of
train | trainer.precision=8 | auto or one of ('32-true', 'bf16-mixed', '16-mixed')
train | trainer.precision={a:1} | ~ trainer.precision={...} must be auto or one of
train | trainer.strategy=foo | invalid strategy
train | trainer.nosuch=1 | ~ no such argument
train | trainer.limit_val_batches=-1 | in [0.0, 1.0]
train | trainer.val_check_interval=0 | above 0
train | trainer.fast_dev_run=-1 | 0
train | callbacks.best.monitor=foo | val/loss
train | callbacks.best.monitor=metrics/frechet | metrics/frechet_pose, metrics/frechet_spectrum, metrics/frechet_kinetic
train | callbacks.motion_metrics=null callbacks.best.monitor=metrics/frechet_kinetic | val/loss
train | callbacks.best.save_top_k=-5 | -1
train | callbacks.best.mode=middle | min, max
train | callbacks.best.filename='' | is empty
train | callbacks.best.dirpath='' | is empty
train | callbacks.ema.decay=1.5 | in [0, 1)
train | callbacks.ema.decay=nan | finite
train | callbacks.last.every_n_steps=0 | at least 1
train | callbacks.skeleton_gif.every=0 | every=0 ... at least 1
train | callbacks.skeleton_gif.size=3 | size=3 at least 32
train | callbacks.skeleton_gif.seed=-1 | at least 0
train | callbacks.motion_metrics.n=3 | n=3 at least 32
train | callbacks.motion_metrics.seed=-1 | at least 0
train | callbacks.loss_plot.every=0 | at least 1
train | callbacks.learning_rate.logging_interval=foo | 'step', 'epoch'
train | callbacks.progress_bar.refresh_rate=-1 | at least 0
train | logger.tensorboard.save_dir='' | is empty
train | loader=none | node
train | loader.batch_size=0 | at least 1
train | loader.batch_size=1.5 | int
train | loader.batch_size=nan | finite
train | loader.batch_size=1000000000 | GB ... give less of these
train | loader.steps_per_epoch=0 | at least 1
train | loader.val_fraction=1 | in [0, 1)
train | loader.val_fraction=-0.1 | in [0, 1)
train | loader.val_fraction=nan | finite
train | loader.split=subjekt | subject, sequence
train | loader.split='' | subject, sequence
train | loader.draws=foo | 'length', 'equal'
train | loader.num_workers=-1 | in [0, 256]
train | loader.num_workers=1000000 | in [0, 256]
train | loader.facing=maybe | bool
train | loader.seed=-1 | at least 0
train | sampler.steps=0 | at least 1
train | sampler.steps=1001 | at most T=1000
train | sampler.steps=nan | finite
train | sampler.spacing=foo | uniform
train | sampler=ddim sampler.eta=-1 | in [0, 1]
train | sampler=ddim sampler.eta=nan | finite
train | model.num_heads=3 | must divide the 128 channels
train | model.num_heads=0 | positive
train | model.model_channels=33 | multiple of 4
train | model.model_channels=1000000 | GB
train | model.model_channels=1000000000 | too large
train | model.channel_mult=[1000000000,1,1] | too large
train | model=transformer model.model_channels=1000000000 | too large
train | model=transformer model.mlp_ratio=1e300 | ~ at most 1000
train | condition=vectors model.clip_dim=100000000 | in [1, 1000000]
train | model.channel_mult=[] | positive
train | model.channel_mult=4 | Sequence[int]
train | model.attention_resolutions=[3] | among [1, 2, 4]
train | model.attention_resolutions=foo | Sequence[int]
train | model.dropout=1.5 | in [0, 1)
train | model.dropout=nan | finite
train | model.num_res_blocks=0 | positive
train | model.padding=-1 | positive
train | model.padding_mode=foo | 'reflect'
train | model.clip_dim=3 | leave it null
train | model.in_channels=3 | 20 joints x 3 coords
train | model=transformer model.depth=0 | positive
train | model=transformer model.num_heads=3 | ~ multiple of 6
train | model=transformer model.mlp_ratio=-1 | at least
train | schedule.power=1 | ~ beta_max
train | schedule=linear schedule.beta_start=-1 | 0 < beta_start
train | schedule=sigmoid schedule.tau=0 | tau > 0
train | prediction.emphasis=2 | in [0, 1]
train | prediction=epsilon schedule=zero_terminal_snr | ~ prediction=velocity
train | weighting.gamma=-1 | positive
train | weighting=p2 weighting.k=-1 | positive
train | timesteps=importance timesteps.bins=0 | bins >= 1
train | timesteps=importance timesteps.bins=5000 | at most T=1000
train | variance.fraction=2 | 0..1
train | motion_loss=full motion_loss.velocity=-1 | negative
train | condition.dropout=2 | in [0, 1)
train | condition.guidance=-1 | not negative
train | condition.interval=[2,-3] | [low, high]
train | condition.interval=foo | Sequence[float]
train | skeleton.up=w | 'x', 'y', 'z'
train | skeleton.coords=4 | 2 or 3
train | skeleton.keep=[nosuch] | hip_center
train | data.n=0 | at least 1
train | data.seed=-1 | at least 0
train | data.fps=nan | finite
train | data.fps=0 | above 0
train | data.root='' | is empty
train | augment.mirror=2 | in [0, 1]
train | augment.yaw=nan | finite
train | augment.scale=[2,1] | float
train | nosuch=1 | ~ no such key
train | batch_size=3 | ~ no such key
sample | ckpt='' | is empty
sample | n=0 | at least 1
sample | n=1000000000 | GB
sample | seed=-1 | at least 0
sample | seed=9223372036854775807 | 2^63
sample | out='' | a directory
sample | out=FILE | a directory
sample | frames=0 | at least 1
sample | frames=1000000000 | GB
sample | batch_size=0 | at least 1
sample | device=abacus | not usable here
sample | steps=0 | at least 1
sample | steps=9 | in [1, 8]
sample | gif_clips=-1 | at least 0
sample | guidance=-1 | not negative
sample | guidance=nan | not negative
sample | project=foo | bones, none
sample | export=fbx | bvh
sample | interpolate=3 | two seeds
sample | vary=2 | in (0, 1]
sample | vary=0.5 | source=None
sample | keep=[7] | edit=FILE
sample | script=[walk:nan] | ACTION:SECONDS
sample | script=[walk:-3] | ACTION:SECONDS
sample | invert=0 | at least 1
sample | source_clip=-1 | at least 0
sample | vector=nosuch.npy | nosuch.npy
sample | action=nosuch | action
sample | sampler={_target_:ddpm.process.samplers.ddim,_partial_:true,eta:-1} | eta=-1 ... in [0, 1]
sample | cache=FILE | a directory
evaluate | n=32 | ~ ckpt=RUN
evaluate | ckpt=RUN n=0 | in [32, 50000]
evaluate | ckpt=RUN seed=-1 | at least 0
evaluate | ckpt=RUN frames=3 | at least 4
evaluate | ckpt=RUN reference=foo | held_out
evaluate | ckpt=RUN out=FILE | a directory
evaluate | ckpt=RUN device=abacus | not usable here
evaluate | ckpt=RUN training=-1 | at least 0
evaluate | ckpt=RUN loader.split=subject | ~ with ckpt
evaluate | ckpt=RUN clips=nosuch.npz | no such file
evaluate | clips=nosuch.npz | data=GROUP
evaluate | ckpt=RUN loader.split=foo | subject, sequence
evaluate | ckpt=RUN loader.val_fraction=2 | in [0, 1)
compare | samplers=[] | at least one
compare | samplers=[foo] | dpmpp_2m
compare | steps=[] | at least one
compare | n=3 | in [32, 50000]
compare | seed=-1 | at least 0
compare | out=FILE | a directory
compare | batch_size=0 | at least 1
compare | device=abacus | not usable here
compare | gif_steps=0 | at least 1
compare | steps=[0] | at least 1
compare | spacing=foo | 'karras'
export | file=model.bin | .safetensors, .onnx, .pt2
export | half=true file=model.onnx | for .safetensors alone
export | out=FILE | a directory
inspect_data | frames=0 | at least 1
inspect_data | gif_clips=-1 | at least 0
inspect_data | out=FILE | a directory
inspect_data | loader.split=foo | subject, sequence
inspect_data | data.root='' | is empty
inspect_data | skeleton.up=w | 'x', 'y', 'z'
"""
"""Command | what is typed | what the message names, beside the last key and its value; behind ~ without the value."""


@functools.cache
def parser() -> OverridesParser:
    return OverridesParser.create()


@pytest.fixture(scope="module")
def bases() -> dict[str, DictConfig]:
    """The configurations of all commands, composed once."""
    return {door: compose(NAMES.get(door, door), [*GIVEN.get(door, []), "out=o"]) for door in DOORS}


@pytest.fixture
def module(tiny_config: dict[str, Any]) -> Callable[..., MotionDiffusion]:
    """Builds a model once it is loaded, which most commands do not come to."""
    return lambda *_: build_module(tiny_config, fps=20.0, class_names=("walk", "run"))


def typed(base: DictConfig, words: list[str]) -> DictConfig:
    """The configuration with keys changed as Hydra would, but without composing it anew, which takes long."""
    cfg = base.copy()
    OmegaConf.set_struct(cfg, False)
    for word in words:
        key, value = word.partition("=")[0], parser().parse_override(word).value()
        option = CONF / key / f"{value}.yaml"
        if option.is_file() and key != "data":
            cfg[key] = OmegaConf.load(option)
        elif key.startswith("callbacks.") and value is None:
            del cfg.callbacks[key.partition(".")[2]]
        else:
            OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    return cfg


@pytest.fixture
def refused(
    bases: dict[str, DictConfig], module: Callable[..., MotionDiffusion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], str]]:
    """Ask a command for something that must be refused before data are read; gives the message."""
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("text")
    for name in ("train", "evaluate", "compare", "sample"):
        monkeypatch.setattr(DOORS[name], "through_cache", lambda *_: pytest.fail("data are read"))
    for name in ("sample", "compare"):
        monkeypatch.setattr(DOORS[name], "load_run", lambda *_: (module(), {"frames": 8}))
    monkeypatch.setattr(export, "load", module)
    monkeypatch.setattr(inspect_data, "summarise", lambda *_: pytest.fail("data are read"))
    monkeypatch.setattr(MotionDiffusion, "sample", lambda *_, **__: pytest.fail("sampling began"))
    works: dict[str, Callable[[DictConfig, list[str]], Any]] = {
        "train": lambda cfg, keys: train.train(cfg, keys),
        "sample": lambda cfg, _: sample.sample(cfg),
        "evaluate": lambda cfg, _: evaluate.evaluate(cfg),
        "compare": lambda cfg, _: compare.compare(cfg),
        "export": lambda cfg, _: export.export(cfg),
        "inspect_data": lambda cfg, _: inspect_data.inspect_data(cfg),
    }

    def asked(door: str, line: str) -> str:
        words = shlex.split(line.replace("''", "\"''\""))
        with pytest.raises(command.expected()) as caught:
            cfg = typed(bases[door], words)
            schema = Request if door == "sample" else DOORS[door].Config
            command._look_over(cfg, [field.name for field in dataclasses.fields(schema)])
            works[door](cfg, words)
        return command.message(caught.value)

    with torch.random.fork_rng():
        yield asked


ROWS = [tuple(part.strip() for part in row.split(" | ")) for row in VALUES.strip().splitlines()]


def test_the_table_is_long_enough() -> None:
    assert len(ROWS) >= 120 and len(set(ROWS)) == len(ROWS) and {row[0] for row in ROWS} == set(DOORS)


@pytest.mark.parametrize(("door", "line", "names"), ROWS, ids=lambda value: value.replace(" ", "_"))
def test_a_wrong_value_is_refused(door: str, line: str, names: str, refused: Callable[[str, str], str]) -> None:
    said = refused(door, line)
    key, _, value = line.split(" ")[-1].partition("=")
    last = key.rpartition(".")[2]
    assert last in said or key in said or names.removeprefix("~ ").partition(" ")[0] in said, said
    assert "\n" not in said and "Traceback" not in said
    has_value = names[0] != "~" and re.fullmatch(r"-?\w+", value) and value not in ("null", "true", "1e38")
    for part in (*names.removeprefix("~ ").split(" ... "), *([value] if has_value else [])):
        assert part in said, f"{part!r} is not in: {said}"


COMPOSED = """
train | T=nan | T=nan must be a whole number
train | T=1.5 | T=1.5 must be a whole number
train | T= | T= must be a whole number
train | T=null | T=null must have a value
train | frames=[1,2] | frames=[1,2] must be a whole number
train | trust=foo | trust=foo must be a list
sample | loop=maybe | loop=maybe must be true or false
compare | steps=[nan] | steps=[nan] must be a whole number
train | optimizer=admw | optimizer=admw: there is no such option, did you mean adamw?; it may be adam, adamw (conf/optimizer)
train | skeleton=kinekt20 | did you mean kinect20?
inspect_data | data=foldr | did you mean folder?
evaluate | sampler=unipcs | did you mean unipc?
train | fames=3 | did you mean frames?
train | modle=unet | did you mean model?
train | batch_size=3 | did you mean loader.batch_size?
train | lr=1 | did you mean optimizer.lr?
train | loader.bach_size=3 | did you mean loader.batch_size?
train | data.target_fps=20 | no such key; data has skeleton, n
train | trainer.strategy=ddp | +trainer.strategy=ddp adds one
train | ~trainer.precision | trainer.precision=None must be auto or one of
train | ~trainer.accelerator | trainer.accelerator=None must be one of
train | callbacks.mine=x | +callbacks.mine=x adds one
train | optimizer._target_=torch.optim.SGD optimizer.momentum=0.9 | +optimizer.momentum=0.9 adds one
train | trainer.max_epoch=3 | did you mean trainer.max_epochs?
train | model=transformer model.padding_mode=circular | num_heads, mlp_ratio, dropout, clip_dim, input_amplitude $
train | model._target_=nosuch.Net model.foo=1 | clip_dim, input_amplitude $
train | model.chanels=3 | did you mean model.in_channels or model.model_channels or model.out_channels?
train | +nosuch=1 | nosuch: there is no such key
train | ~callbacks.foo | callbacks.foo
sample | stps=3 | did you mean steps?
evaluate | refrence=all | did you mean reference?
compare | sampler=foo | did you mean samplers?
train | frames | frames: not read as KEY=VALUE
train | frames=32=3 | frames=32=3: not read as KEY=VALUE
train | frames=1,2 | add -m
train | --frames=3 | a key is given as frames=3
train | --multirum | did you mean --multirun?
train | -x | options are
train | --cfg | job, hydra or all
train | model=null | conf/model
sample | data=x | data=x: data holds keys, give data.KEY=VALUE
evaluate | loader=x | loader=x must hold keys
train | data=folder data.root=nosuch cache=null | nosuch: no such file or directory
train | data=folder data.root=null | data.root=None
train | data=store data.root=FILE | FILE: no usable store
train | resume=nosuch | resume=nosuch: there is no nosuch
train | out=FILE | out='FILE' must be a directory
sample | ckpt=nosuch | nosuch: no such file
evaluate | ckpt=FILE | FILE: not a checkpoint
inspect_data | data=folder data.root=FILE | FILE: unknown ending
train | skeleton=twice hydra.searchpath=[HERE] | twice.yaml, line 2: not valid YAML (found duplicate key coords); correct the file
train | skeleton=tab hydra.searchpath=[HERE] | tab.yaml, line 2: not valid YAML
train | skeleton=latin hydra.searchpath=[HERE] | no UTF-8 text
train | skeleton=bare hydra.searchpath=[HERE] | must be a node with a _target_
"""
OF_ONES_OWN = {"twice": b"coords: 2\ncoords: 3\n", "tab": b"a:\n\tb: 1\n", "latin": "a: ü\n".encode("latin-1"), "bare": b"a: 1\n"}
"""Skeletons in files with mistakes."""
"""What goes through the whole command: composition, message, which may end with $, and status."""


@pytest.mark.parametrize("row", COMPOSED.strip().splitlines(), ids=lambda value: value.replace(" ", "_"))
def test_a_mistake_ends_with_status_2_and_few_lines(row: str, run: Run) -> None:  # noqa: F811
    door, line, named = (part.strip() for part in row.split(" | "))
    Path("FILE").write_text("text")
    Path("skeleton").mkdir()
    for name, content in OF_ONES_OWN.items():
        Path("skeleton", f"{name}.yaml").write_bytes(content)
    given = [] if "ckpt=" in line else GIVEN.get(door, [])
    ended, out, err = run(door, *given, *line.replace("HERE", str(Path.cwd())).split())
    assert ended == 2 and named.replace(" $", "\n") in out + err and len((out + err).splitlines()) <= 3, out + err


@pytest.mark.parametrize("line", ["T=10,20 -m seed=1", "T=10,20 --multirun", "-m T=10,20", "T=10,20 seed=1 -m"])
def test_options_may_stand_anywhere(line: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    seen: list[int] = []
    monkeypatch.setattr(train, "train", lambda cfg, *_: seen.append(cfg.T))
    assert run("train", *line.split(), "out=o")[0] == 0 and seen == [10, 20]


@pytest.mark.parametrize(("total", "said"), [(2 * 10**7, "refused"), (6 * 10**8, "warned"), (10**12, "")])
def test_what_does_not_fit_into_memory(
    total: int, said: str, bases: dict[str, DictConfig], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Refused if the machine has less than it takes, a warning if it has less than twice that."""
    monkeypatch.setattr(memory, "machine_memory", lambda accelerator: total)
    config = command.plain(typed(bases["train"], ["loader.batch_size=200", "frames=64"]))
    if said == "refused":
        with pytest.raises(ValueError, match=r"loader\.batch_size=200, frames=64, .* takes about \d+ GB"):
            limits.checked(config)
        return
    limits.checked(config)
    assert ("takes about" in caplog.text) == (said == "warned")


def test_the_estimate_is_near_what_a_network_takes() -> None:
    """Of the parameters to the byte; of what a layer keeps of a batch, its output."""
    with torch.device("meta"):
        network = torch.nn.Sequential(torch.nn.Linear(10, 20, bias=False))
        needed = memory.training_memory(network, {"input": torch.empty(2, 10)}, batch=8)
    assert needed == memory.OPTIMISED * 200 + 8 * 20 * 4


def test_a_plain_configuration_passes(bases: dict[str, DictConfig]) -> None:
    assert limits.checked(command.plain(bases["train"]))["T"] == 1000
    with hydra.initialize(version_base="1.3", config_path="../../conf"):
        small = hydra.compose("config", overrides=["out=o", "T=7", "model=transformer", "condition=vectors"])
    assert limits.checked(command.plain(small), ["T"])["T"] == 7
