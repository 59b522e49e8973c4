"""Configuration -> objects, with every constructor and value checked first."""

import functools
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ddpm.errors import ConfigError
from ddpm.module import MotionDiffusion
from ddpm.motion_losses import MotionLoss
from ddpm.networks.transformer import MotionTransformer
from ddpm.networks.unet import MDM_UNetModel
from ddpm.normalizer import Normalizer
from ddpm.process.condition import LabelCondition
from ddpm.process.diffusion import DenoiseDiffusion
from ddpm.process.gaussian import Gaussian
from ddpm.process.prediction import EDM, X0, Epsilon, Velocity
from ddpm.process.samplers import ddim, ddpm, dpmpp_2m, dpmpp_2m_sde, heun, unipc
from ddpm.process.schedules import cosine, linear, sigmoid, zero_terminal_snr
from ddpm.process.timestep_sampling import Importance, Stratified, Uniform
from ddpm.process.variance import Fixed, Learned
from ddpm.process.weighting import min_snr, p2, simple, velocity
from ddpm.skeleton import Skeleton

PARTS: dict[str, Callable[..., Any]] = {
    f"{part.__module__}.{part.__qualname__}": part
    for part in (
        *(MDM_UNetModel, MotionTransformer, Skeleton),
        *(linear, cosine, sigmoid, zero_terminal_snr),
        *(Epsilon, X0, Velocity, EDM, Gaussian),
        *(simple, min_snr, p2, velocity),
        *(Fixed, Learned),
        *(Uniform, Stratified, Importance),
        *(MotionLoss, LabelCondition),
        *(ddpm, ddim, dpmpp_2m, dpmpp_2m_sde, heun, unipc),
    )
}
"""Everything that a checkpoint may ask for by name. A new network, schedule or sampler is added here."""

ALLOWED = (
    "ddpm.learning_rate.warmup_",
    "datamodules.",
    "callbacks.",
    "torch.optim.",
    "pytorch_lightning.callbacks.",
    "pytorch_lightning.loggers.",
    "pytorch_lightning.strategies.",
    "pytorch_lightning.profilers.",
    "pytorch_lightning.Trainer",
    "pytorch_lightning.trainer.trainer.Trainer",
)
"""What else a configuration may construct. Here and not in YAML, so that no configuration can widen it."""


MOVED = {
    **{f"ddpm.{name}.": f"ddpm.process.{name}." for name in ("schedules", "prediction", "gaussian", "weighting", "samplers")},
    "ddpm.variance.Learnt": "ddpm.process.variance.Learned",
    "ddpm.variance.": "ddpm.process.variance.",
    "ddpm.timesteps.": "ddpm.process.timestep_sampling.",
    "ddpm.condition.": "ddpm.process.condition.",
    "ddpm.module.warmup_": "ddpm.learning_rate.warmup_",
    **{f"ddpm.{name}.": f"ddpm.networks.{name}." for name in ("unet", "transformer")},
    **{f"datamodules.{name}.": f"datamodules.sets.{name}." for name in ("synthetic", "folder", "bvh", "store")},
    "datamodules.readers.msr_action3d.": "datamodules.sets.msr_action3d.",
}
"""How names of parts began in checkpoints of earlier versions, and how they begin now."""


def of_today(config: Any) -> Any:
    """A checkpoint's configuration with the present names of parts that have moved."""
    if isinstance(config, dict):
        values = {key: of_today(value) for key, value in config.items()}
        target = values.get("_target_")
        old = next((name for name in MOVED if isinstance(target, str) and target.startswith(name)), None)
        return values if old is None else {**values, "_target_": MOVED[old] + target[len(old) :]}
    return [of_today(value) for value in config] if isinstance(config, list) else config


def construct(config: Any, key: str) -> Any:
    """Build a plain configuration: every node with a ``_target_`` with its other keys as arguments, nested nodes first.

    As Hydra's instantiate, with what it may call checked before anything is called; ``_partial_: true`` binds the arguments only.

    Args:
        config: plain containers, all interpolations resolved.
        key: where it stands in the configuration, for messages.

    Raises:
        ConfigError: see `check`.
    """
    if not isinstance(config, Mapping | list):
        raise ConfigError(f"{key}={config!r} must be a node with a _target_")
    check(config, key)
    return _construct(config, key)


def construct_part(config: Any, key: str) -> Any:
    """Build a node of `PARTS`; nothing else can be reached, so it is safe on a file's content.

    Args:
        config: plain containers.
        key: where it stands in the configuration, for messages.

    Raises:
        ConfigError: not one of `PARTS`, an argument it does not take, or a value of the wrong type.
    """
    if not isinstance(config, Mapping) or "_target_" not in config:
        raise ConfigError(f"{key}={config!r} must be a node with a _target_; known are {sorted(PARTS)}")
    for path, node in _nodes(config, key):
        target = node["_target_"]
        if not isinstance(target, str) or target not in PARTS:
            raise ConfigError(f"{path}._target_={target!r} is not a known part; known are {sorted(PARTS)}")
    return construct(config, key)


def construct_data(config: Any, key: str) -> Any:
    """Build a node that makes or serves clips, also a checkpoint's: only `PARTS` and ``datamodules`` can be reached.

    Args:
        config: plain containers.
        key: where it stands in the configuration, for messages.

    Raises:
        ConfigError: anything else, or see `check`.
    """
    for path, node in _nodes(config, key):
        target = node["_target_"]
        if not isinstance(target, str) or not (target in PARTS or target.startswith("datamodules.")):
            raise ConfigError(f"{path}._target_={target!r} neither makes nor serves clips")
    return construct(config, key)


def own_clips(
    config: Mapping[str, Any], changes: Mapping[str, Any], construct: Callable[[Mapping[str, Any], str], Any] = construct_data
) -> Any:
    """The recordings that a model was trained on.

    Args:
        config: of the run, from its checkpoint.
        changes: values of ``data`` that are others now, e.g. where the files are; None for those that are not.
        construct: `construct_data`, or that with a cache in front of it.

    Returns:
        A ``ClipSet``.

    Raises:
        ConfigError: a run that says nothing of its data, a key that they do not have, or a constructor that is none of data.
        DataError: data that are not there, or cannot be used.
    """
    if not config.get("data") or not config.get("loader"):
        raise ConfigError("the checkpoint does not say what data it was trained on")
    changes = {key: value for key, value in changes.items() if value is not None}
    unknown = sorted(changes.keys() - config["data"].keys())
    if unknown:
        raise ConfigError(f"data.{unknown[0]}: the data of this run have {sorted(config['data'].keys() - {'_target_'})}")
    return construct({**config["data"], **changes}, "data")


def own_data(
    config: Mapping[str, Any], changes: Mapping[str, Any], construct: Callable[[Mapping[str, Any], str], Any] = construct_data
) -> Any:
    """The data module of these recordings, split as they were in training; for arguments and errors see `own_clips`."""
    return construct_data(config["loader"], "loader")(clips=own_clips(config, changes, construct))


def build_module(
    config: Mapping[str, Any],
    fps: float,
    class_names: Sequence[str] = (),
    label_counts: Sequence[int] = (),
    trainable: bool = False,
) -> MotionDiffusion:
    """The untrained module that a configuration describes.

    Args:
        config: the resolved configuration as plain containers.
        fps: of the data.
        class_names: of the data.
        label_counts: training recordings of each class, and last of those without a label; empty where labels are no condition.
        trainable: also build optimiser and learning rate schedule, which sampling does not need.

    Raises:
        ConfigError: see `construct_part`.
    """
    for key, least in (("T", 2), ("frames", 1)):
        if not _fits(config[key], int) or config[key] < least:
            raise ConfigError(f"{key}={config[key]!r} must be a whole number of at least {least}")
    skeleton: Skeleton = construct_part(config["skeleton"], "skeleton")
    project = config.get("project")
    if project not in (None, "none", "bones"):
        raise ConfigError(f"project={project!r} must be bones or none")
    travel = config.get("travel", "positions")  # what runs of earlier versions had
    if travel not in ("steps", "positions"):
        raise ConfigError(f"travel={travel!r} must be steps or positions")
    if not _fits(label_counts, Sequence[int]):
        raise ConfigError(f"label_counts={label_counts!r} must be a list of numbers")
    condition, model = None, config["model"]
    if config.get("condition") and sum(count > 0 for count in label_counts[:-1]) > 1:
        condition = construct_part(config["condition"], "condition")(class_names, label_counts)
        model = {**model, "clip_dim": len(class_names)}
    diffusion = DenoiseDiffusion(
        construct_part(model, "model"),
        config["T"],
        beta_schedule=construct_part(config["schedule"], "schedule"),
        prediction=construct_part(config["prediction"], "prediction"),
        weighting=construct_part(config["weighting"], "weighting"),
        timesteps=construct_part(config["timesteps"], "timesteps"),
        variance=construct_part(config["variance"], "variance"),
    )
    motion_loss = construct_part(config["motion_loss"], "motion_loss") if config["motion_loss"] else None
    module = MotionDiffusion(
        diffusion,
        Normalizer(len(skeleton.names), skeleton.coords, skeleton.root, skeleton.ground_axes if travel == "steps" else ()),
        skeleton,
        fps,
        config["frames"],
        construct_part(config["sampler"], "sampler"),
        None if motion_loss is None else motion_loss(skeleton, fps),
        condition,
        project if skeleton.coords == 3 and project != "none" else None,
        class_names,
        optimizer=construct(config["optimizer"], "optimizer") if trainable else None,
        lr_scheduler=construct(config["lr_scheduler"], "lr_scheduler") if trainable and config["lr_scheduler"] else None,
        seed=config["seed"],
    )
    return module


def with_channels(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the network's channels set to what the skeleton has.

    Args:
        config: plain containers.

    Raises:
        ConfigError: they were given and are something else.
    """
    skeleton: Skeleton = construct_part(config["skeleton"], "skeleton")
    joints, coords = len(skeleton.names), skeleton.coords
    outputs = construct_part(config["variance"], "variance").outputs
    model = dict(config["model"])
    for name, times in (("in_channels", 1), ("out_channels", outputs)):
        channels = joints * coords * times
        if model.get(name) not in (None, channels):
            raise ConfigError(
                f"model.{name}={model[name]}, but the skeleton has {joints} joints x {coords} coords"
                f"{' x 2, with variance=learned,' if times > 1 else ''} = {channels}; leave it null"
            )
        model[name] = channels
    prediction = dict(config["prediction"])
    if "channels" in prediction:
        if prediction["channels"] not in (None, joints * coords):
            raise ConfigError(
                f"prediction.channels={prediction['channels']}, but the skeleton has {joints} joints x {coords} coords = "
                f"{joints * coords}; leave it null"
            )
        prediction["channels"] = joints * coords
    return {**config, "model": model, "prediction": prediction}


def check(config: Any, key: str = "") -> None:
    """Look at every node with a ``_target_`` before anything is constructed.

    Args:
        config: plain containers.
        key: where it stands in the configuration, for messages.

    Raises:
        ConfigError: a constructor that is not allowed, an argument it lacks or does not take, a value of the wrong type, or an
            interpolation that is not resolved.
    """
    constructors = [(path, node, _locate(node["_target_"], path)) for path, node in _nodes(config, key)]
    for path, node, constructor in constructors:
        target = node["_target_"]
        parameters = inspect.signature(constructor).parameters
        named = {name: p for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        hints = _hints(constructor)
        arguments = {name: value for name, value in node.items() if name not in ("_target_", "_partial_")}
        for name, value in arguments.items():
            if name not in named and len(named) == len(parameters):
                raise ConfigError(f"{path}.{name}: {target} takes no such argument; it takes {sorted(named)}")
            if (name in hints and not _fits(value, hints[name])) or (isinstance(value, str) and "${" in value):
                raise ConfigError(f"{path}.{name}={value!r}: {target} wants {_name(hints.get(name, 'a plain value'))}")
        lacking = [name for name, p in named.items() if p.default is p.empty and name not in arguments]
        if lacking and not node.get("_partial_", False):
            raise ConfigError(f"{path}: {target} needs {lacking} too")


def _construct(config: Any, key: str) -> Any:
    if isinstance(config, Mapping):
        values = {name: _construct(value, f"{key}.{name}") for name, value in config.items()}
        if "_target_" not in values:
            return values
        constructor = _locate(values.pop("_target_"), key)
        return functools.partial(constructor, **values) if values.pop("_partial_", False) else constructor(**values)
    if isinstance(config, list | tuple):
        return [_construct(value, f"{key}[{i}]") for i, value in enumerate(config)]
    return config


def _nodes(config: Any, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(path, node) of every node with a ``_target_``, at any depth."""
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield key, config
        for name, value in config.items():
            yield from _nodes(value, f"{key}.{name}" if key else str(name))
    elif isinstance(config, list | tuple):
        for i, value in enumerate(config):
            yield from _nodes(value, f"{key}[{i}]")


def _locate(target: Any, key: str) -> Callable[..., Any]:
    """The allowed class or function with this dotted name.

    The object's own name must be allowed too, not only the path that leads to it: ``torch.nn.modules.module.torch.load`` starts
    well and is something else.
    """
    if isinstance(target, str) and target in PARTS:
        return PARTS[target]
    refusal = ConfigError(f"{key}._target_={target!r} is not something a configuration may construct; allowed are {ALLOWED}")
    if not isinstance(target, str) or "." not in target:
        raise refusal
    module_name, _, name = target.rpartition(".")
    if not target.startswith(ALLOWED):
        raise refusal
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}._target_={target!r} does not exist: {error}") from error
    own_name = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    is_constructor = inspect.isclass(found) or inspect.isfunction(found)
    if not is_constructor or not own_name.startswith(ALLOWED):
        raise refusal
    return found


def _hints(constructor: Callable[..., Any]) -> dict[str, Any]:
    function = constructor.__init__ if inspect.isclass(constructor) else constructor
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # names that a library imports for type checkers only
        return {}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value can be what a type hint says. What this cannot tell fits."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is typing.Literal:
        return value in args
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint in (str, Path):
        return isinstance(value, str)
    container = origin or hint
    if inspect.isclass(container) and issubclass(container, Mapping):
        return isinstance(value, Mapping)
    if inspect.isclass(container) and issubclass(container, Sequence | list | tuple):
        element = args[0] if args else Any
        return isinstance(value, list | tuple) and all(_fits(v, element) for v in value)
    if inspect.isclass(hint) and hint is not object:
        return isinstance(value, hint) or not isinstance(value, str | int | float)
    return True


def _name(hint: Any) -> str:
    return hint.__name__ if inspect.isclass(hint) else str(hint).replace("typing.", "")
