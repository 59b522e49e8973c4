"""Every YAML composes and builds; every mistake is named."""

import copy
import functools
from pathlib import Path

import hydra
import pytest
import torch
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import evaluate  # noqa: F401  registers its schema
import inspect_data  # noqa: F401  registers its schema
import sample  # noqa: F401  registers its schema
from ddpm.command import plain
from ddpm.config import check, construct, construct_part
from ddpm.errors import ConfigError
from ddpm.limits import checked, suitable_precision
from ddpm.module import build_module
from ddpm.process.timestep_sampling import Uniform
from ddpm.request import Request as SampleConfig
from tests.configs import compose
from train import Config

CONF = Path(__file__).parent.parent / "conf"
GROUPS = sorted(p.name for p in CONF.iterdir() if p.is_dir() and p.name != "hydra")
OPTIONS = [(group, p.stem) for group in GROUPS for p in sorted((CONF / group).glob("*.yaml"))]
PARTS_OF = (
    "model",
    "schedule",
    "prediction",
    "weighting",
    "timesteps",
    "variance",
    "motion_loss",
    "condition",
    "sampler",
    "skeleton",
)
NOTHING = {("motion_loss", "none"), ("condition", "none")}
BVH = f"data.root={Path(__file__).parent / 'bvh'}"
NEEDED = {
    **{("data", option): ["data.root=."] for group, option in OPTIONS if (group, option) != ("data", "synthetic")},
    ("data", "bvh"): [BVH],
    ("skeleton", "bvh"): ["data=bvh", BVH],
}


def composed(*overrides: str) -> dict:
    return copy.deepcopy(_composed(*overrides))


@functools.cache
def _composed(*overrides: str) -> dict:
    return checked(plain(compose("config", ["out=runs/test", *overrides])))


def with_option(group: str, option: str) -> dict:
    """The default configuration with another option, around a smaller network unless the option may be about it."""
    smaller = ["model.model_channels=8", "model.channel_mult=[1]", "model.attention_resolutions=[1]"]
    given = [f"{group}={option}", *NEEDED.get((group, option), [])]
    return composed(*given, *([] if group in ("model", "experiment") else smaller))


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_its_values_fit(group: str, option: str) -> None:
    check(with_option(group, option))


@pytest.mark.parametrize(("group", "option"), [o for o in OPTIONS if o[0] in PARTS_OF and o not in NOTHING])
def test_every_part_builds_through_the_registry(group: str, option: str) -> None:
    assert construct_part(with_option(group, option)[group], group) is not None


@pytest.mark.parametrize(("group", "option"), [o for o in OPTIONS if o[0] in ("callbacks", "logger")])
def test_callbacks_and_loggers_build(group: str, option: str) -> None:
    for name, node in with_option(group, option)[group].items():
        if option in ("wandb", "mlflow"):
            pytest.importorskip(option)
        assert construct(node, name) is not None


@pytest.mark.parametrize("option", [o for g, o in OPTIONS if g == "trainer" and o != "gpu"])
def test_trainers_build(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    trainer = construct(composed(f"trainer={option}", "trainer.accelerator=cpu")["trainer"], "trainer")(logger=False)
    assert trainer.precision == "32-true"


@pytest.mark.parametrize(
    ("accelerator", "gpu", "has_bf16", "expected"),
    [
        ("auto", True, True, "bf16-mixed"),
        ("gpu", True, False, "32-true"),
        ("auto", False, True, "32-true"),
        ("cpu", True, True, "32-true"),
    ],
)
def test_precision_suits_the_accelerator(
    accelerator: str, gpu: bool, has_bf16: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    assert suitable_precision(accelerator) == expected


@pytest.mark.parametrize(("group", "option"), [o for o in OPTIONS if o[0] in ("optimizer", "lr_scheduler", "experiment")])
def test_modules_build(group: str, option: str) -> None:
    module = build_module(with_option(group, option), fps=15.0, trainable=True)
    optimizer = module.optimizer(module.parameters())
    assert (module.lr_scheduler is None) == (option == "none")
    assert module.lr_scheduler is None or module.lr_scheduler(optimizer, 100).get_last_lr()[0] > 0


def test_the_paper_is_pinned() -> None:
    config = composed("experiment=ddpm_paper")
    module = build_module(config, fps=15.0)
    assert config["T"] == 1000
    assert (config["schedule"]["_target_"], config["schedule"]["beta_start"], config["schedule"]["beta_end"]) == (
        "ddpm.process.schedules.linear", 1e-4, 0.02,
    )  # fmt: skip
    assert type(module.diffusion.prediction).__name__ == "Epsilon"
    assert module.diffusion.weighting.func.__name__ == "simple"
    assert type(module.diffusion.timesteps) is Uniform and module.diffusion.variance.fraction == 1
    assert module.sampler.func.__name__ == "ddpm" and module.sampler.keywords["steps"] is None
    assert (config["optimizer"]["_target_"], config["optimizer"]["lr"]) == ("torch.optim.Adam", 2e-4)
    assert config["lr_scheduler"] == {"_target_": "ddpm.learning_rate.warmup_constant", "_partial_": True, "warmup": 5000}
    assert config["callbacks"]["ema"]["decay"] == 0.9999
    assert (config["model"]["dropout"], config["loader"]["batch_size"], config["trainer"]["max_steps"]) == (
        0.1,
        128,
        800000,
    )
    assert config["trainer"]["gradient_clip_val"] == 1.0


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("TT=5", "TT"),
        ("model.model_chanels=8", "model_chanels"),
        ("T=many", "T"),
        ("frames=1.5", "frames"),
        ("schedule=quadratic", "quadratic"),
        ("experimnt=ddpm_paper", "experimnt"),
    ],
)
def test_hydra_names_the_mistake(override: str, named: str) -> None:
    with pytest.raises((ConfigCompositionException, HydraException, OmegaConfBaseException)) as error:
        compose("config", [override])
    chain = f"{error.value} {error.value.__cause__}"
    assert named in chain


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("model.model_channels=wide", "model.model_channels"),
        ("model.conv_resample=1", "model.conv_resample"),
        ("model.channel_mult=4", "model.channel_mult"),
        ("+model.depth=4", "model.depth"),
        ("optimizer.lr=fast", "optimizer.lr"),
        ("+loader.bach_size=4", "loader.bach_size"),
        ("loader.split=room", "loader.split"),
        ("loader.batch_size=2.5", "loader.batch_size"),
        ("trainer.max_epochs=long", "trainer.max_epochs"),
        ("trainer.precision=99", "trainer.precision"),
        ("callbacks.skeleton_gif.every=often", "callbacks.skeleton_gif.every"),
        ("model._target_=os.system", "os.system takes no such argument"),
        ("model._target_=ddpm.MDM_Unet", "model._target_"),
        ("model.in_channels=61", "model.in_channels"),
        ("weighting.gamma=x", "weighting.gamma"),
    ],
)
def test_the_check_names_the_mistake(override: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")):
        composed(override)


@pytest.mark.parametrize("command", ["evaluate", "inspect"])
@pytest.mark.parametrize("data", [option for group, option in OPTIONS if group == "data"])
def test_the_other_commands_take_every_data_set(command: str, data: str) -> None:
    """A data set brings along keys of training, which their schemas must know."""
    assert compose(command, [f"data={data}"]).data._target_.startswith("datamodules.sets.")


@pytest.mark.parametrize("data", ["msr_action3d", "bvh"])
def test_a_missing_root_is_named(data: str) -> None:
    with pytest.raises(OmegaConfBaseException, match=r"data\.root"):
        composed(f"data={data}")


def test_a_skeleton_read_from_files_is_written_out() -> None:
    config = composed("data=bvh", BVH)
    assert config["skeleton"]["_target_"] == "ddpm.skeleton.Skeleton" and config["data"]["skeleton"] == config["skeleton"]
    assert config["skeleton"]["joints"]["LeftFoot"] == "LeftLeg" and config["skeleton"]["joints"]["Hips"] is None
    assert config["loader"]["split"] == "sequence"
    assert composed("data=bvh", BVH, "skeleton=kinect20")["skeleton"] == composed()["skeleton"]


def test_schemas_name_every_top_level_key() -> None:
    for name, schema in (("config", Config), ("sample", SampleConfig)):
        with hydra.initialize(version_base="1.3", config_path="../conf"):
            keys = set(hydra.compose(name, overrides=["ckpt=x"] if name == "sample" else []))
        assert keys == set(OmegaConf.structured(schema)), "a key without a type, or a type without a key"


def test_frames_and_steps_reach_every_place() -> None:
    config = composed("frames=48", "T=7")
    module = build_module(config, fps=15.0)
    assert (config["model"]["image_size"], config["loader"]["frames"], module.frames) == (48, 48, 48)
    assert module.diffusion.n_steps == 7 and len(module.diffusion.beta) == 7


def test_a_number_of_steps_is_not_cut_short_by_the_epochs_of_the_default() -> None:
    long = ["out=o", "trainer.max_steps=20000"]
    assert checked(plain(compose("config", long)), ["trainer.max_steps"])["trainer"]["max_epochs"] == -1
    none = ["out=o", "~trainer.max_steps"]
    assert checked(plain(compose("config", none)), ["trainer.max_steps"])["trainer"]["max_epochs"] == 20
    both = [*long, "trainer.max_epochs=3"]
    assert checked(plain(compose("config", both)), ["trainer.max_steps", "trainer.max_epochs"])["trainer"]["max_epochs"] == 3
