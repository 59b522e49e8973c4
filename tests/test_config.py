"""Configuration -> objects: a checkpoint reaches what is trusted only, and every value is looked at first."""

import copy
import pickle
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate

from callbacks.loss_plot import LossPlot
from ddpm.build import with_channels
from ddpm.config import PARTS, RESUMED, check, construct, construct_part, fits, may_have
from ddpm.errors import ConfigError
from ddpm.module import build_module
from ddpm.networks.unet import MDM_UNetModel
from ddpm.process.gaussian import Gaussian
from ddpm.process.prediction import X0
from ddpm.process.samplers import dpmpp_2m
from ddpm.process.schedules import cosine, linear
from ddpm.process.variance import Learned
from ddpm.skeleton import Skeleton

UNET = {
    "_target_": "ddpm.networks.unet.MDM_UNetModel",
    "image_size": 8,
    "in_channels": 6,
    "model_channels": 8,
    "out_channels": 6,
    "num_res_blocks": 1,
    "attention_resolutions": [2],
    "channel_mult": [1, 2],
}

# What each would do if it were called with its arguments: leave the file {canary} behind, or load the pickle {payload} that does.
HOSTILE: dict[str, dict[str, Any]] = {
    "os.system": {"command": "touch {canary}"},
    "posix.system": {"command": "touch {canary}"},
    "subprocess.run": {"args": ["touch", "{canary}"]},
    "subprocess.Popen": {"args": ["touch", "{canary}"]},
    "subprocess.check_output": {"_args_": [["touch", "{canary}"]]},
    "builtins.exec": {"_args_": ["open('{canary}', 'w')"]},
    "builtins.eval": {"_args_": ["open('{canary}', 'w')"]},
    "builtins.open": {"file": "{canary}", "mode": "w"},
    "io.open": {"file": "{canary}", "mode": "w"},
    "pickle.load": {"_args_": ["{payload}"]},
    "torch.load": {"f": "{payload}", "weights_only": False},
    "torch.serialization.load": {"f": "{payload}", "weights_only": False},
    "numpy.load": {"file": "{payload}", "allow_pickle": True},
    "torch.hub.load": {"repo_or_dir": "{folder}", "model": "entry", "source": "local"},
    "sympy.sympify": {"a": "open('{canary}', 'w')"},
    "numpy.testing.rundocs": {"filename": "{doctest}"},
    "pathlib.Path.write_text": {"self": {"_target_": "pathlib.Path", "_args_": ["{canary}"]}, "data": "x"},
    "shutil.copyfile": {"src": "{payload}", "dst": "{canary}"},
    "os.makedirs": {"name": "{canary}"},
    "runpy.run_path": {"path_name": "{folder}/hubconf.py"},
    "torch.nn.modules.module.torch.load": {"f": "{payload}", "weights_only": False},
    "torch.optim.adamw.torch.load": {"f": "{payload}", "weights_only": False},
    "torch.optim.optimizer.torch.load": {"f": "{payload}", "weights_only": False},
    "torch.optim.lr_scheduler.torch.load": {"f": "{payload}", "weights_only": False},
    "pytorch_lightning.loggers.os.system": {"command": "touch {canary}"},
    "pytorch_lightning.loggers.tensorboard.os.system": {"command": "touch {canary}"},
    "pytorch_lightning.loggers.csv_logs.os.makedirs": {"name": "{canary}"},
    "pytorch_lightning.callbacks.model_checkpoint.shutil.copyfile": {"src": "{payload}", "dst": "{canary}"},
    "pytorch_lightning.callbacks.model_checkpoint.os.makedirs": {"name": "{canary}"},
    "pytorch_lightning.strategies.launchers.subprocess_script.subprocess.Popen": {"args": ["touch", "{canary}"]},
    "datamodules.pose.torch.load": {"f": "{payload}", "weights_only": False},
    "datamodules.sets.msr_action3d.np.load": {"file": "{payload}", "allow_pickle": True},
    "ddpm.viz.render.os.makedirs": {"name": "{canary}"},
    "ddpm.viz.render.io.open": {"file": "{canary}", "mode": "w"},
    "ddpm.viz.render.np.load": {"file": "{payload}", "allow_pickle": True},
    "ddpm.viz.render.Path.write_text": {"self": "{canary}", "data": "x"},
    "ddpm.viz.render.Path": {"_args_": ["{canary}"]},
    "callbacks.skeleton_gif.Path.touch": {"self": "{canary}"},
    "ddpm.files.write_durably": {"path": "{canary}", "content": "x"},
    "ddpm.checkpoint.torch.load": {"f": "{payload}", "weights_only": False},
    "ddpm.module.os.system": {"command": "touch {canary}"},
    "ddpm.learning_rate.warmup_cosine.__globals__": {},
    "ddpm.config.construct": {"config": {}, "key": ""},
    "hydra.utils.instantiate": {"config": {"_target_": "os.system", "command": "touch {canary}"}},
    "hydra.utils.get_method": {"path": "os.system"},
}

# What is not even a dotted name.
MALFORMED = [
    "",
    "system",
    ".",
    "torch.optim.",
    "torch.optim..AdamW",
    "torch.optim",
    "callbacks.",
    "datamodules.pose.",
    None,
    3,
    True,
    ["os.system"],
    {"a": 1},
]


class Payload:
    """Unpickles by touching a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.canary,))


def filled(value: Any, places: dict[str, str]) -> Any:
    """The value with ``{canary}`` and so on replaced in every string."""
    if isinstance(value, dict):
        return {k: filled(v, places) for k, v in value.items()}
    if isinstance(value, list):
        return [filled(v, places) for v in value]
    for name, place in places.items() if isinstance(value, str) else ():
        value = value.replace("{" + name + "}", place)
    return value


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def places(tmp_path: Path, canary: Path) -> dict[str, str]:
    """Loaded guns: a pickle, a hub folder and a doctest, each of which touches the canary."""
    (tmp_path / "payload").write_bytes(pickle.dumps(Payload(canary)))
    (tmp_path / "hubconf.py").write_text(f"open({str(canary)!r}, 'w')\ndef entry(): pass\n")
    (tmp_path / "doctest.py").write_text(f'"""\n>>> f = open({str(canary)!r}, "w")\n"""\n')
    return {
        "canary": str(canary),
        "payload": str(tmp_path / "payload"),
        "folder": str(tmp_path),
        "doctest": str(tmp_path / "doctest.py"),
    }


def test_the_canary_sings(places: dict[str, str], canary: Path) -> None:
    """Without the check they work: otherwise the tests below would prove nothing."""
    pickle.loads(Path(places["payload"]).read_bytes())
    assert canary.exists()
    canary.unlink()
    instantiate({"_target_": "builtins.open", **filled(HOSTILE["builtins.open"], places)})
    assert canary.exists()


@pytest.mark.parametrize("target", HOSTILE)
def test_hostile_targets_are_refused_before_anything_runs(target: str, places: dict[str, str], canary: Path) -> None:
    node = {"_target_": target, **filled(HOSTILE[target], places)}
    modules = set(sys.modules)
    carriers = [
        (lambda n: n, "node"),
        (lambda n: {**n, "_partial_": True}, "node"),
        (lambda n: {"a": [{"b": [1, "x", n]}]}, r"node\.a\[0\]\.b\[2\]"),
        (lambda n: {"_target_": "ddpm.learning_rate.warmup_cosine", "warmup": n}, r"node\.warmup"),
        (lambda n: {"_target_": "torch.optim.AdamW", "_partial_": True, "betas": [n, 0.9]}, r"node\.betas\[0\]"),
    ]
    for carry, path in carriers:
        for call in (check, construct):
            with pytest.raises(ConfigError, match=rf"{path}\._target_='{target}'") as e:
                call(carry(copy.deepcopy(node)), "node", RESUMED)
            assert str(e.value).count("\n") == 0
    for call in (construct_part, lambda n, key: construct_part({**UNET, "image_size": n}, key)):
        with pytest.raises(ConfigError, match=target):
            call(copy.deepcopy(node), "model")
    assert not canary.exists()
    imported = {name.split(".")[0] for name in set(sys.modules) - modules}
    assert not imported & {"sympy", "runpy", "numpy", "pickle", "subprocess", "shutil", "hubconf"}, imported


@pytest.mark.parametrize("wrap", ["${{oc.create:{0}}}", "${{oc.create:'{0}'}}", '${{oc.create:${{oc.decode:"{0}"}}}}'])
def test_no_interpolation_makes_a_node_behind_the_check(wrap: str, canary: Path) -> None:
    """A string that Hydra's instantiate would resolve into a node; it gets here if the file has a backslash before its dollar."""
    text = wrap.format(f"{{_target_: builtins.open, file: {canary}, mode: w}}")
    node = {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": text}
    for call in (check, construct):
        with pytest.raises(ConfigError, match=r"logger\.save_dir="):
            call(node, "logger")
    with pytest.raises(ConfigError, match=r"loggers\[0\]\.save_dir="):
        construct([{**node, "_partial_": True}], "loggers")
    assert not canary.exists()


@pytest.mark.parametrize("target", MALFORMED, ids=repr)
def test_what_is_no_name_of_a_constructor_is_refused(target: Any) -> None:
    for call in (check, construct, construct_part):
        for trust in (None, (), RESUMED, ("torch.optim", "")):
            with pytest.raises(ConfigError, match=r"model\._target_="):
                call({"_target_": target}, "model", trust)
    with pytest.raises(ConfigError, match=r"a\[1\]\._target_="):
        check({"a": [0, {"_target_": target}]})


def test_looking_at_a_target_imports_nothing_foreign(tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module runs when it is imported, so its name must be refused before."""
    (tmp_path / "stray_module.py").write_text(f"open({str(canary)!r}, 'w')\nclass Thing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    for call in (check, construct, construct_part):
        with pytest.raises(ConfigError, match=r"stray_module.*give trust=\[stray_module\]"):
            call({"a": {"_target_": "torch.optim.AdamW"}, "_target_": "stray_module.Thing"}, "model", RESUMED)
    assert not canary.exists() and "stray_module" not in sys.modules


def test_an_object_is_no_constructor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only classes and functions: not an object of an allowed class that happens to be callable."""

    class Callable(LossPlot):
        __module__ = "callbacks.loss_plot"

        def __call__(self) -> None:
            pytest.fail("it was called")

    monkeypatch.setattr("callbacks.loss_plot.thing", Callable(1), raising=False)
    for call in (check, construct, construct_part):
        with pytest.raises(ConfigError, match=r"x\._target_='callbacks\.loss_plot\.thing'"):
            call({"_target_": "callbacks.loss_plot.thing"}, "x", ("callbacks",))


def test_nothing_can_widen_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match="takes no such argument"):
        check({**UNET, "_allowed_": ["os."]}, "model")
    with pytest.raises(ConfigError, match="it may name no other code"):
        check({"_target_": "os.system", "_partial_": True, "_recursive_": False, "trust": ["os"]}, "x", ())


@pytest.mark.parametrize(
    "target",
    [
        "torch.optim.AdamW",
        "pytorch_lightning.Trainer",
        "callbacks.loss_plot.LossPlot",
        "ddpm.learning_rate.warmup_cosine",
        "os.system",
        None,
    ],
)
def test_a_file_reaches_nothing_outside_the_parts(target: str | None) -> None:
    """construct_part is what a checkpoint's configuration goes through: also what a configuration may build is refused."""
    with pytest.raises(ConfigError, match=rf"model\._target_={target!r} is no part of this project"):
        construct_part({"_target_": target}, "model")


@pytest.mark.parametrize("inner", ["torch.optim.AdamW", "callbacks.loss_plot.LossPlot", "ddpm.skeleton.Skeleton"])
def test_parts_have_no_nodes_inside(inner: str) -> None:
    """A value that is itself a node is no number: it is refused by name, not with a trace from inside the network."""
    with pytest.raises(ConfigError, match=r"model\.image_size"):
        construct_part({**UNET, "image_size": {"_target_": inner, "_partial_": True}}, "model")


@pytest.mark.parametrize("config", [5, None, "x", [], [UNET], {}, {"a": 1}, {"a": UNET}], ids=repr)
def test_a_part_is_a_node(config: Any) -> None:
    with pytest.raises(ConfigError, match=r"^model\b.*_target_"):
        construct_part(config, "model")


def test_every_part_is_found_under_its_own_name() -> None:
    for name, part in PARTS.items():
        module, _, attribute = name.rpartition(".")
        assert getattr(sys.modules[module], attribute) is part and module.startswith("ddpm.")


# --- a package of the user's own

MY_NET = """
import os
from os import path, system
from pathlib import Path

LOADED = Path(__file__).with_name("loaded")
LOADED.touch()

class MyNet:
    def __init__(self, width: int, names: list[str] | None = None) -> None:
        self.width = width

def my_schedule(T: int, power: float = 2.0):
    return T, power
"""


@pytest.fixture
def my_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """my_package.net with a class and a function, which notes that it was imported."""

    def forget() -> None:
        for name in [name for name in sys.modules if name.split(".")[0] == "my_package"]:
            del sys.modules[name]

    forget()  # that of another test
    folder = tmp_path / "my_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("from my_package.net import MyNet\n")
    (folder / "net.py").write_text(MY_NET)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    forget()


@pytest.mark.parametrize("trust", [None, ("my_package",), ("other", "my_package")], ids=str)
def test_ones_own_classes_and_functions_are_built(my_package: Path, trust: Any) -> None:
    for name in ("my_package.MyNet", "my_package.net.MyNet"):
        assert construct({"_target_": name, "width": 3}, "model", trust).width == 3
    assert construct({"_target_": "my_package.net.my_schedule", "_partial_": True, "power": 3}, "schedule", trust)(7) == (7, 3)


@pytest.mark.parametrize("hint", [Any, list, list[Any], tuple[Any, ...], object])
def test_hints_without_a_type_fit_everything(hint: Any) -> None:
    assert fits([1, "a", None], hint)
    assert fits({"a": [1], "b": {}}, dict) and fits({"a": 1}, dict[str, Any]) and not fits({1: 1}, dict[str, Any])


@pytest.mark.parametrize("trust", [None, ("my_package",)], ids=str)
@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"wdith": 3}, r"model\.wdith: my_package\.MyNet takes no such argument; it takes \['names', 'width'\]"),
        ({"width": "3"}, r"model\.width='3': my_package\.MyNet wants int"),
        ({"width": 3, "names": [1]}, r"model\.names=\[1\]: my_package\.MyNet wants list\[str\]"),
        ({}, r"model: my_package\.MyNet needs \['width'\] too"),
        ({"_target_": "my_package.YourNet"}, r"model\._target_='my_package\.YourNet' does not exist: .*YourNet"),
        ({"_target_": "my_package.nets.MyNet"}, r"model\._target_='my_package\.nets\.MyNet' does not exist: .*my_package\.nets"),
        ({"_target_": "my_package.net.LOADED"}, r"model\._target_='my_package\.net\.LOADED' is no class or function"),
    ],
)
def test_ones_own_arguments_are_checked(my_package: Path, node: dict[str, Any], message: str, trust: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        construct({"_target_": "my_package.MyNet", **node}, "model", trust)


@pytest.mark.parametrize("trust", [(), ("my_pack",), ("my_package.other",), ("my_package.MyNetwork",), RESUMED], ids=str)
def test_a_package_is_not_imported_unless_it_is_trusted(my_package: Path, trust: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"model\._target_='my_package\.MyNet'.*give trust=\[my_package\]"):
        construct({"_target_": "my_package.MyNet", "width": 3}, "model", trust)
    assert not (my_package / "loaded").exists()


@pytest.mark.parametrize("name", ["os.system", "net.os.system", "net.system", "net.Path", "net.path.join", "net.MyNet.__init__"])
def test_a_trusted_package_lets_nothing_through_that_is_not_its_own(my_package: Path, name: str, canary: Path) -> None:
    for arguments in ({"command": f"touch {canary}"}, {"_partial_": True}):
        with pytest.raises(ConfigError, match=rf"model\._target_='my_package\.{name}'"):
            construct({"_target_": f"my_package.{name}", **arguments}, "model", ("my_package",))
    assert not canary.exists()


# --- what is legitimate


@pytest.mark.parametrize(
    ("node", "kind"),
    [
        (
            {
                "_target_": "pytorch_lightning.callbacks.ModelCheckpoint",
                "dirpath": "x",
                "monitor": "val/loss",
                "save_top_k": 1,
            },
            pl.Callback,
        ),
        ({"_target_": "pytorch_lightning.callbacks.LearningRateMonitor", "logging_interval": "step"}, pl.Callback),
        ({"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": "x"}, pl.loggers.CSVLogger),
        ({"_target_": "callbacks.loss_plot.LossPlot", "every": 3}, LossPlot),
        ({"_target_": "pytorch_lightning.Trainer", "max_epochs": 1, "logger": False, "accelerator": "cpu"}, pl.Trainer),
        ({**UNET}, MDM_UNetModel),
        ({"_target_": "ddpm.process.prediction.X0"}, X0),
    ],
    ids=lambda x: x.get("_target_") if isinstance(x, dict) else "",
)
def test_legitimate_targets_are_built(node: dict[str, Any], kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(construct(node, "node"), kind)


def test_partial_nodes_keep_their_arguments() -> None:
    built = construct({"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.5, "betas": [0.1, 0.2]}, "optimizer")
    group = built([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]
    assert group["lr"] == 0.5 and tuple(group["betas"]) == (0.1, 0.2)
    schedule = construct_part({"_target_": "ddpm.process.schedules.linear", "_partial_": True, "beta_end": 0.1}, "schedule")
    assert isinstance(schedule, partial) and torch.equal(schedule(7), linear(7, beta_end=0.1))
    assert schedule is not construct_part({"_target_": "ddpm.process.schedules.linear", "_partial_": True}, "schedule")


def test_nested_nodes_are_built_first() -> None:
    trainer = construct(
        {"_target_": "pytorch_lightning.Trainer", "logger": False, "accelerator": "cpu", "enable_checkpointing": False,
         "callbacks": [{"_target_": "callbacks.loss_plot.LossPlot", "every": 3}]}, "trainer",
    )  # fmt: skip
    assert any(isinstance(callback, LossPlot) for callback in trainer.callbacks)


# --- arguments


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_chanels": 8}, r"model\.model_chanels.*takes no such argument.*model_channels"),
        ({"image_size": "8"}, r"model\.image_size='8'.*int"),
        ({"image_size": True}, r"model\.image_size=True.*int"),
        ({"image_size": 8.0}, r"model\.image_size=8\.0.*int"),
        ({"image_size": None}, r"model\.image_size=None.*int"),
        ({"image_size": [8]}, r"model\.image_size=\[8\].*int"),
        ({"image_size": {"n": 8}}, r"model\.image_size=\{'n': 8\}.*int"),
        ({"dropout": "0.1"}, r"model\.dropout='0\.1'.*float"),
        ({"dropout": False}, r"model\.dropout=False.*float"),
        ({"dropout": [0.1]}, r"model\.dropout=\[0\.1\].*float"),
        ({"conv_resample": 1}, r"model\.conv_resample=1.*bool"),
        ({"conv_resample": "false"}, r"model\.conv_resample='false'.*bool"),
        ({"channel_mult": 2}, r"model\.channel_mult=2.*Sequence\[int\]"),
        ({"channel_mult": "12"}, r"model\.channel_mult='12'.*Sequence\[int\]"),
        ({"channel_mult": [1, 2.5]}, r"model\.channel_mult=\[1, 2\.5\].*Sequence\[int\]"),
        ({"padding_mode": 0}, r"model\.padding_mode=0\b.*circular"),
        ({"clip_dim": 1.5}, r"model\.clip_dim=1\.5.*int \| None"),
        ({"clip_dim": "none"}, r"model\.clip_dim='none'.*int \| None"),
    ],
)
def test_wrong_arguments_are_named_with_key_and_value(changes: dict[str, Any], message: str) -> None:
    for call in (check, construct, construct_part):
        with pytest.raises(ConfigError, match=message):
            call({**UNET, **changes}, "model")
    with pytest.raises(ConfigError, match=r"x\[0\]\." + message):
        check({"x": [{"model": {**UNET, **changes}}]})


@pytest.mark.parametrize(
    "changes",
    [{"dropout": 0}, {"clip_dim": None}, {"clip_dim": 4}, {"channel_mult": (1, 2)}, {"padding_mode": "circular"}],
)
def test_right_arguments_pass(changes: dict[str, Any]) -> None:
    assert isinstance(construct_part({**UNET, **changes}, "model"), MDM_UNetModel)


@pytest.mark.parametrize(("name", "value"), [("padding_mode", "loud"), ("model_channels", 10), ("dropout", 1.5)])
def test_a_value_outside_its_limits_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"model\.{name}='?{value}"):
        construct_part({**UNET, name: value}, "model")


@pytest.mark.parametrize("name", ["image_size", "num_res_blocks"])
def test_missing_arguments_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"model.*{name}"):
        construct_part({key: value for key, value in UNET.items() if key != name}, "model")


def test_library_constructors_are_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"callbacks\.best\.save_topk.*no such argument"):
        check({"best": {"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", "save_topk": 1}}, "callbacks")
    with pytest.raises(ConfigError, match=r"callbacks\.best\.save_top_k='one'"):
        check({"best": {"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", "save_top_k": "one"}}, "callbacks")
    with pytest.raises(ConfigError, match=r"trainer\.max_epocs"):
        check({"_target_": "pytorch_lightning.Trainer", "_partial_": True, "max_epocs": 1}, "trainer")


# --- the whole module


def test_build_module_builds_what_the_configuration_says(tiny_config: dict[str, Any], skeleton: Skeleton) -> None:
    module = build_module(tiny_config, fps=15.0, class_names=["wave", "bow"])
    assert module.skeleton == skeleton and module.fps == 15.0 and module.class_names == ("wave", "bow") and module.frames == 8
    assert module.diffusion.n_steps == 8 and isinstance(module.diffusion.prediction, X0)
    torch.testing.assert_close(module.diffusion.beta, cosine(8).float())
    snr = torch.tensor([1.0, 10.0])
    torch.testing.assert_close(module.diffusion.weighting(snr), torch.tensor([1.0, 5.0]))
    assert isinstance(module.sampler, partial) and module.sampler.func is dpmpp_2m and module.sampler.keywords["steps"] == 4
    assert module.diffusion.eps_model.in_channels == 60 and module.normalizer.mean.shape == (20, 3, 1)
    assert module.optimizer is None and module.lr_scheduler is None and not module.normalizer.fitted


def test_only_a_trainable_module_has_an_optimizer(tiny_config: dict[str, Any]) -> None:
    trainable = build_module(tiny_config, fps=15.0, trainable=True)
    optimizer = trainable.optimizer(trainable.parameters())
    assert isinstance(optimizer, torch.optim.AdamW) and optimizer.param_groups[0]["lr"] == 1e-3
    scheduler = trainable.lr_scheduler(optimizer, 100)
    assert scheduler.get_last_lr()[0] == pytest.approx(1e-3 / 11)
    tiny_config["optimizer"] = {"_target_": "os.system", "cmd": "true"}
    build_module(tiny_config, fps=15.0)  # sampling does not look at it
    with pytest.raises(ConfigError, match=r"optimizer\.cmd: os\.system .*\['command'\]; .* ~optimizer\.cmd removes it"):
        build_module(tiny_config, fps=15.0, trainable=True)


@pytest.mark.parametrize(
    "part",
    ["skeleton", "model", "schedule", "prediction", "weighting", "timesteps", "variance", "motion_loss", "sampler"],
)
def test_each_part_is_guarded(tiny_config: dict[str, Any], part: str) -> None:
    tiny_config[part] = {"_target_": "torch.optim.AdamW", "_partial_": True}
    with pytest.raises(ConfigError, match=rf"{part}\._target_='torch\.optim\.AdamW' is no part of this project"):
        build_module(tiny_config, fps=15.0, trust=())


def test_the_condition_is_guarded(tiny_config: dict[str, Any]) -> None:
    tiny_config["condition"] = {"_target_": "torch.optim.AdamW", "_partial_": True}
    with pytest.raises(ConfigError, match=r"condition\._target_='torch\.optim\.AdamW' is no part of this project"):
        build_module(tiny_config, 15.0, ["wave", "bow"], [3, 4, 0], trust=())


def test_a_prediction_gets_its_channels_too(tiny_config: dict[str, Any]) -> None:
    """Where it has any: the others are left as they are."""
    gaussian = {"_target_": "ddpm.process.gaussian.Gaussian", "channels": None, "frames": 8}
    config = tiny_config | {"prediction": gaussian, "model": tiny_config["model"] | {"in_channels": None, "out_channels": None}}
    before = copy.deepcopy(config)
    filled_in = with_channels(config)
    assert config == before and filled_in["prediction"] == gaussian | {"channels": 60} and with_channels(filled_in) == filled_in
    built = build_module(filled_in, fps=15.0).diffusion.prediction
    assert isinstance(built, Gaussian) and built.basis.shape == (60, 60) and built.log_power.shape == (60, 8)
    flat = with_channels({**config, "skeleton": {**config["skeleton"], "coords": 2, "up": "y"}})
    assert flat["prediction"]["channels"] == 40
    assert with_channels(tiny_config)["prediction"] == tiny_config["prediction"]
    for name, value in (("channels", "60"), ("frames", 0), ("frames", None)):
        with pytest.raises(ValueError, match=rf"prediction.*{name}='?{value}"):
            build_module({**filled_in, "prediction": filled_in["prediction"] | {name: value}}, fps=15.0)


def test_channels_come_from_the_skeleton(tiny_config: dict[str, Any]) -> None:
    model = {**tiny_config["model"], "in_channels": None}
    del model["out_channels"]
    config = {**tiny_config, "model": model}
    before = copy.deepcopy(config)
    filled_in = with_channels(config)
    assert config == before, "the input was written to"
    assert filled_in["model"]["in_channels"] == filled_in["model"]["out_channels"] == 60
    assert {k: v for k, v in filled_in.items() if k != "model"} == {k: v for k, v in config.items() if k != "model"}
    assert with_channels(filled_in) == filled_in
    flat = with_channels({**config, "skeleton": {**config["skeleton"], "coords": 2, "up": "y"}})
    assert flat["model"]["in_channels"] == 40
    part = with_channels({**config, "skeleton": {**config["skeleton"], "keep": ["hip_center", "left_leg", "right_leg"]}})
    assert part["model"]["in_channels"] == part["model"]["out_channels"] == 27


def test_a_learned_variance_doubles_the_output(tiny_config: dict[str, Any]) -> None:
    learned = {"variance": {"_target_": "ddpm.process.variance.Learned"}}
    model = tiny_config["model"] | {"out_channels": None}
    config = with_channels(tiny_config | {"model": model} | learned)
    assert (config["model"]["in_channels"], config["model"]["out_channels"]) == (60, 120)
    assert isinstance(build_module(config, fps=15.0).diffusion.variance, Learned)
    with pytest.raises(ConfigError, match=r"model\.out_channels=60.*20 joints x 3 coords x 2, with variance=learned, = 120"):
        with_channels(tiny_config | learned)
    with pytest.raises(ConfigError, match=r"model\.out_channels=120.*20 joints x 3 coords = 60"):
        with_channels(tiny_config | {"model": tiny_config["model"] | {"out_channels": 120}})


@pytest.mark.parametrize("name", ["in_channels", "out_channels"])
def test_other_channels_are_refused(tiny_config: dict[str, Any], name: str) -> None:
    tiny_config["model"][name] = 63
    with pytest.raises(ConfigError, match=rf"model\.{name}=63.*20 joints x 3 coords = 60"):
        with_channels(tiny_config)


def test_the_way_of_the_root_is_normalised_as_configured(tiny_config: dict[str, Any]) -> None:
    """Runs without the key are of earlier versions, which had positions."""
    assert build_module(tiny_config, fps=15.0).normalizer.travel == []
    assert build_module({**tiny_config, "travel": "steps"}, fps=15.0).normalizer.travel == [0, 2]
    with pytest.raises(ConfigError, match="travel='pace' must be steps or positions"):
        build_module({**tiny_config, "travel": "pace"}, fps=15.0)


@pytest.mark.parametrize(
    ("target", "may"),
    [
        ("torch.optim.SGD", True),
        ("torch.optim.Adam", False),
        ("pytorch_lightning.Trainer", False),
        ("this.Net", False),
        (None, False),
        ("", True),
    ],
)
def test_whether_a_key_can_be_added_is_known_without_importing_other_code(target: str | None, may: bool) -> None:
    """The empty target stands for none at all."""
    sys.modules.pop("this", None)
    node = {} if target == "" else {"_target_": target}
    assert may_have({"a": {"optimizer": node}}, "a.optimizer.momentum") == may and "this" not in sys.modules


def test_all_arguments_that_a_class_does_not_take_are_named_at_once() -> None:
    """As of a network of one's own, beside the defaults of another."""
    node = {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1, "width": 3, "depth": 2}
    with pytest.raises(
        ConfigError, match=r"model\.a, .* '~model' '\+model=\{_target_: torch\.nn\.Linear, \.\.\.\}' takes the place"
    ):
        check({**node, "a": 1, "b": 2}, "model")
    with pytest.raises(ConfigError, match=r"model\.width, model\.depth: .* ~model\.width ~model\.depth removes it"):
        check(node, "model")
