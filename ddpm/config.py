"""Configuration -> objects, with every constructor and value checked first.

Not by Hydra's instantiate: its errors name neither key nor type, and it resolves interpolations inside a checkpoint's strings.
"""

import contextlib
import functools
import importlib
import inspect
import itertools
import math
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ddpm.errors import ConfigError, ProjectError, meant, of_lightning
from ddpm.motion_losses import MotionLoss
from ddpm.networks.transformer import MotionTransformer
from ddpm.networks.unet import MDM_UNetModel
from ddpm.process.condition import LabelCondition, VectorCondition
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
        *(MotionLoss, LabelCondition, VectorCondition),
        *(ddpm, ddim, dpmpp_2m, dpmpp_2m_sde, heun, unipc),
    )
}
"""What the configuration in a checkpoint may construct, beside what lies in packages that its reader trusts."""

DATA = (
    *("datamodules.pose.PoseDataModule", "datamodules.augment.Augment", "datamodules.sets.bvh.skeleton"),
    *(f"datamodules.sets.{name}.{name}" for name in ("synthetic", "folder", "bvh", "msr_action3d", "store")),
)
"""What a checkpoint's data may be made by."""

RESUMED = (
    *("ddpm.learning_rate", *DATA, "callbacks", "torch.optim"),
    *(f"pytorch_lightning.{name}" for name in ("callbacks", "loggers", "strategies", "profilers")),
    *("pytorch_lightning.Trainer", "pytorch_lightning.trainer.trainer.Trainer"),
)
"""What else the command line in a checkpoint may construct when its run is resumed."""
WRITERS, WRITING = ("callbacks.", "pytorch_lightning."), ("callbacks", "logger", "trainer")
"""Those of them that may write files, and the only nodes for them: `ddpm.resuming.refuse_outside` checks these nodes."""


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
    """A checkpoint's configuration with the present names of parts that have moved, and with keys that it did not have yet."""
    if isinstance(config, dict):
        values = {key: of_today(value) for key, value in config.items()}
        target: Any = values.get("_target_")
        old = next((name for name in MOVED if isinstance(target, str) and target.startswith(name)), None)
        if target == "datamodules.pose.PoseDataModule":  # before this key was there
            values = {"draws": "equal", **values}
        return values if old is None else {**values, "_target_": MOVED[old] + target[len(old) :]}
    return [of_today(value) for value in config] if isinstance(config, list) else config


def construct(config: Any, key: str, trust: Sequence[str] | None = None) -> Any:
    """Build a plain configuration: every node with a ``_target_`` with its other keys as arguments, nested nodes first.

    ``_partial_: true`` binds the arguments only.

    Args:
        config: plain containers, all interpolations resolved.
        key: where it stands in the configuration, for messages.
        trust: None for the user's own configuration, which may name any class or function that can be imported; for the content
            of a checkpoint the names beside `PARTS` that it may use: packages, modules, classes.

    Raises:
        ConfigError: see `check`.
    """
    if not isinstance(config, Mapping | list):
        raise ConfigError(f"{key}={config!r} must be a node with a _target_")
    check(config, key, trust)
    return _construct(config, key)


def construct_part(config: Any, key: str, trust: Sequence[str] | None = ()) -> Any:
    """Build one node, by default a checkpoint's; for arguments and errors see `construct`."""
    if not isinstance(config, Mapping) or "_target_" not in config:
        raise ConfigError(f"{key}={config!r} must be a node with a _target_")
    return construct(config, key, trust)


def construct_data(config: Any, key: str, trust: Sequence[str] = ()) -> Any:
    """Build a checkpoint's clips or data module; for arguments and errors see `construct`."""
    with built_from_file(key):
        return construct_part(config, key, (*DATA, *trust))


@contextlib.contextmanager
def built_from_file(where: str) -> Iterator[None]:
    """Turn any unexpected exception inside this context into a ConfigError."""
    try:
        yield
    except (ProjectError, KeyError):
        raise
    except Exception as error:
        raise ConfigError(f"{where}: the checkpoint's configuration cannot be built: {error or type(error).__name__}") from error


def check(config: Any, key: str = "", trust: Sequence[str] | None = None) -> None:
    """Check every node with a ``_target_`` before anything is constructed.

    Args:
        config: plain containers.
        key: where it stands in the configuration, for messages.
        trust: see `construct`.

    Raises:
        ConfigError: a constructor that does not exist or may not be named; an argument it lacks or does not take, a value of the
            wrong type, or an interpolation that is not resolved.
    """
    for path, node, constructor in located(config, key, trust):
        target = node["_target_"]
        try:
            parameters = inspect.signature(constructor).parameters
        except ValueError as error:  # of some that are written in C
            raise ConfigError(f"{path}._target_={target!r} does not say which arguments it takes") from error
        named = {name: p for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        hints = _hints(constructor)
        arguments = {name: value for name, value in node.items() if name not in ("_target_", "_partial_")}
        if foreign := [name for name in arguments if name not in named and len(named) == len(parameters)]:
            near = meant(f"{path}.{foreign[0]}", [f"{path}.{argument}" for argument in named]) if len(foreign) == 1 else ""
            drop = f"; if a default sets it, {' '.join(f'~{path}.{name}' for name in foreign)} removes it"
            if len(foreign) > 3:
                drop = f"; '~{path}' '+{path}={{_target_: {target}, ...}}' takes the place of another class's defaults"
            keys = ", ".join(f"{path}.{name}" for name in foreign)
            raise ConfigError(f"{keys}: {target} takes no such argument; it takes {sorted(named)}{near or drop}")
        for name, value in arguments.items():
            if value == "" and name.endswith(("dir", "dirpath", "root", "filename")):
                raise ConfigError(f"{path}.{name}='' is empty: give the name of a place")
            leaves = list(_leaves(value))
            if any(isinstance(leaf, str) and "${" in leaf for leaf in leaves):
                raise ConfigError(f"{path}.{name}={value!r}: no name or value may hold ${{...}} that was not resolved")
            if any(isinstance(leaf, float) and not math.isfinite(leaf) for leaf in leaves):
                raise ConfigError(f"{path}.{name}={value!r} must be finite, or null where it is optional")
            optional = name not in named or named[name].default is None
            if name in hints and not fits(value, hints[name]) and not (value is None and optional):
                raise ConfigError(f"{path}.{name}={value!r}: {target} wants {_name(hints[name])}")
        lacking = [name for name, p in named.items() if p.default is p.empty and name not in arguments]
        if lacking and not node.get("_partial_", False):
            raise ConfigError(f"{path}: {target} needs {lacking} too")


def located(
    config: Any, key: str = "", trust: Sequence[str] | None = None
) -> list[tuple[str, Mapping[str, Any], Callable[..., Any]]]:
    """(path, node, its class or function) of every node with a ``_target_``; for arguments and errors see `check`."""
    nodes = list(_nodes(config, key))
    for path, node in nodes:  # all names first: a module runs when it is imported
        name = node["_target_"]
        if trust is not None and not _is_trusted(name, trust):
            package = name.partition(".")[0] if isinstance(name, str) and "." in name else "my_package"
            nobodys = package in (*sys.stdlib_module_names, "ddpm", "datamodules", "callbacks", "torch")
            raise ConfigError(
                f"{path}._target_={name!r} is no part of this project that a checkpoint may name, and it may name no other code; "
                + ("use another" if nobodys else f"if the package is your own, give trust=[{package}]")
            )
        if trust is not None and name.startswith(WRITERS) and path.partition(".")[0] not in WRITING:
            raise ConfigError(f"{path}._target_={name!r}: a checkpoint may name this below {' and '.join(WRITING)} only")
    return [(path, node, _locate(node["_target_"], path, trust)) for path, node in nodes]


def may_have(config: Mapping[str, Any], key: str) -> bool:
    """Whether a key can be added: its node, which is there, has no ``_target_``, or a known one that takes such an argument."""
    place, _, name = key.rpartition(".")
    node = functools.reduce(lambda inside, part: inside[part], place.split("."), config)
    try:  # without importing other code: the command line may be that in a checkpoint
        found = located({k: v for k, v in node.items() if k == "_target_"}, place, RESUMED)
        parameters = [p for *_, constructor in found for p in inspect.signature(constructor).parameters.values()]
    except (ConfigError, ValueError):
        return False
    return not found or any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)


@contextlib.contextmanager
def blaming(key: str, values: Mapping[str, Any]) -> Iterator[None]:
    """What a constructor says of its arguments inside this context becomes a ConfigError that names their keys and values."""
    try:
        yield
    except ProjectError:
        raise
    except (ValueError, TypeError, ArithmeticError, *of_lightning("MisconfigurationException")) as error:
        text = str(error).partition("\n")[0]
        words = [word.strip("`'\",.:=") for word in text.lower().split()]
        named = [
            f"{key}.{name}={value}"
            for name, value in values.items()
            if name in text or any(len(word) > 3 and word in name for word in words) or (value and value in words)
        ]
        has_them = not named or (key in text and any(f"{name}={value}" in text for name, value in values.items()))
        raise ConfigError(text if has_them else f"{', '.join(named[:3])}: {text}") from error


def _construct(config: Any, key: str) -> Any:
    if isinstance(config, Mapping):
        values = {name: _construct(value, f"{key}.{name}") for name, value in config.items()}
        if "_target_" not in values:
            return values
        constructor = _locate(values.pop("_target_"), key)
        if values.pop("_partial_", False):
            return functools.partial(constructor, **values)
        with blaming(key, values):
            return constructor(**values)
    if isinstance(config, list | tuple):
        return [_construct(value, f"{key}[{i}]") for i, value in enumerate(config)]
    return config


def _leaves(value: Any) -> Iterator[Any]:
    """Every key and value in plain containers."""
    if isinstance(value, Mapping | list | tuple):
        for part in itertools.chain.from_iterable(value.items()) if isinstance(value, Mapping) else value:
            yield from _leaves(part)
    else:
        yield value


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


def _is_trusted(name: Any, trust: Sequence[str]) -> bool:
    return isinstance(name, str) and (name in PARTS or any(f"{name}.".startswith(f"{place}.") for place in trust))


def _locate(target: Any, key: str, trust: Sequence[str] | None = None) -> Callable[..., Any]:
    """The class or function with this dotted name.

    With ``trust`` its own name must be trusted too, not only the path to it: ``my_package.net.system`` may be that of ``os``.
    """
    if isinstance(target, str) and target in PARTS:
        return PARTS[target]
    if not isinstance(target, str) or "." not in target or not all(part.isidentifier() for part in target.split(".")):
        raise ConfigError(f"{key}._target_={target!r} must be the dotted name of a class or function")
    module_name, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}._target_={target!r} does not exist: {error}") from error
    if not (inspect.isclass(found) or inspect.isroutine(found)):
        raise ConfigError(f"{key}._target_={target!r} is no class or function")
    own_name = f"{getattr(found, '__module__', '')}.{found.__qualname__}"
    if trust is not None and not _is_trusted(own_name, trust):
        raise ConfigError(f"{key}._target_={target!r} is {own_name}, which a checkpoint may not name")
    return found


def _hints(constructor: Callable[..., Any]) -> dict[str, Any]:
    function = constructor.__init__ if inspect.isclass(constructor) else constructor
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # names that a library imports for type checkers only
        return {}


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value fits a type hint; true where that cannot be told."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, arg) for arg in args)
    if origin is typing.Literal:
        return value in args
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    if hint in (str, Path):
        return isinstance(value, str)
    container = origin or hint
    if inspect.isclass(container) and issubclass(container, Mapping):
        key, element = args or (Any, Any)
        return isinstance(value, Mapping) and all(fits(k, key) and fits(v, element) for k, v in value.items())
    if container is tuple and args and args[-1] is not Ellipsis:
        return isinstance(value, list | tuple) and len(value) == len(args) and all(map(fits, value, args))
    if inspect.isclass(container) and issubclass(container, Sequence | list | tuple):
        element = args[0] if args else Any
        return isinstance(value, list | tuple) and all(fits(v, element) for v in value)
    if inspect.isclass(hint) and hint not in (object, Any):
        return isinstance(value, hint) or not isinstance(value, str | int | float | None)
    return True


def _name(hint: Any) -> str:
    return hint.__name__ if inspect.isclass(hint) else str(hint).replace("typing.", "")
