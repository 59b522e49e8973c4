"""A configuration -> the model or the data that it describes."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ddpm.config import PARTS, built_from_file, check, construct, construct_data, construct_part, fits
from ddpm.errors import ConfigError, outside, refuse
from ddpm.memory import refuse_beyond_memory
from ddpm.model import LONGEST, MotionModel
from ddpm.normalizer import Normalizer
from ddpm.process.condition import LabelCondition, VectorCondition
from ddpm.process.diffusion import DenoiseDiffusion
from ddpm.skeleton import Skeleton

Made = TypeVar("Made", bound=MotionModel)

LIMITS = {"T": "in [2, 100000]", "frames": f"in [1, {LONGEST}]"}
"""What a configuration may ask for, see `ddpm.errors.outside`; joints: `ddpm.skeleton.MAX_JOINTS`, networks: see theirs."""


def own_clips(
    config: Mapping[str, Any], changes: Mapping[str, Any], construct: Callable[[Mapping[str, Any], str], Any] = construct_data
) -> Any:
    """The ``ClipSet`` that a model was trained on.

    Args:
        config: of the run, from its checkpoint.
        changes: values of ``data`` that have changed, e.g. where the files are; None for those that have not.
        construct: `construct_data`, or that with a cache in front of it.

    Raises:
        ConfigError: a run that does not name its data, or a key that they do not have; see `construct`.
        DataError: data that are not there, or cannot be used.
    """
    if not isinstance(config.get("data"), Mapping) or not isinstance(config.get("loader"), Mapping):
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
    return own_split(config["loader"], own_clips(config, changes, construct), construct)


def own_split(node: Mapping[str, Any], clips: Any, construct: Callable[[Mapping[str, Any], str], Any] = construct_data) -> Any:
    """The data module that a run's ``loader`` makes of clips; for errors see `construct`."""
    with built_from_file("loader"):
        return construct(node, "loader")(clips=clips)


def build_model(
    config: Mapping[str, Any],
    fps: float,
    class_names: Sequence[str] = (),
    label_counts: Sequence[int] = (),
    vectors: Mapping[str, Tensor] | None = None,
    trust: Sequence[str] | None = None,
    device: str | None = None,
    numbers: float = math.inf,
    make: Callable[..., Made] = MotionModel,
) -> Made:
    """The untrained model that a configuration describes.

    Args:
        config: the resolved configuration as plain containers.
        fps: of the data.
        class_names: of the data.
        label_counts: training recordings of each class, and last of those without a label; empty where actions are no condition.
        vectors: of the training recordings, see `ddpm.process.condition.vector_statistics`; None where there are none.
        trust: see `construct`.
        device: that the network is made on; "meta" for one without weights.
        numbers: how many there are to fill it with; a model that needs more is refused before it is built.
        make: `MotionModel`, or what takes the same arguments by name.

    Raises:
        ConfigError: see `check`; or a model that needs more memory than there is.
    """

    def part(name: str) -> Any:
        return construct_part(config[name], name, trust)

    refuse((not fits(config[key], int), f"{key}={config[key]!r} must be a whole number {limit}") for key, limit in LIMITS.items())
    refuse(outside(config, LIMITS))
    if not fits(fps, float) or not 0 < fps < math.inf:
        raise ConfigError(f"fps={fps!r} must be a positive number")
    skeleton: Skeleton = part("skeleton")
    project = config.get("project")
    if project not in (None, "none", "bones"):
        raise ConfigError(f"project={project!r} must be bones or none")
    travel = config.get("travel", "positions")  # what runs of earlier versions had
    if travel not in ("steps", "positions"):
        raise ConfigError(f"travel={travel!r} must be steps or positions")
    for key, value, hint in (("label_counts", label_counts, Sequence[int]), ("class_names", class_names, Sequence[str])):
        if not fits(value, hint):
            raise ConfigError(f"{key}={value!r} must be a list of {'numbers' if hint == Sequence[int] else 'names'}")
    condition, model = None, config["model"]
    kind = part("condition") if config.get("condition") else None
    if isinstance(kind, functools.partial) and kind.func is VectorCondition:
        if vectors is None:
            raise ConfigError(
                "condition=vectors: the training recordings have no vectors; save them as condition, (clips, width), in the .npz "
                "files of data=folder, or use condition=labels or none"
            )
        condition = kind(vectors)
        width = condition.width - 1
        if model.get("clip_dim") not in (None, width):
            raise ConfigError(f"model.clip_dim={model['clip_dim']}, but the data's vectors have the width {width}; leave it null")
        model = {**model, "clip_dim": condition.width}
    elif kind is not None and label_counts:
        condition = kind(class_names, label_counts)
        model = {**model, "clip_dim": len(class_names)}
    ground = skeleton.ground_axes if travel == "steps" else ()
    steps = [skeleton.root * skeleton.coords + axis for axis in ground]
    classes = len(class_names) if isinstance(condition, LabelCondition) else 0
    parts = {"model": model, **{key: config[key] for key in ("prediction", "timesteps")}}
    network = _refuse_large(parts, (steps, classes), trust, numbers).get("model")
    prediction = part("prediction")
    prediction.prepare(steps, classes)
    if network is None or device != "meta":
        with contextlib.nullcontext() if device is None else torch.device(device):
            network = construct_part(model, "model", trust)
    diffusion = DenoiseDiffusion(
        network,
        config["T"],
        beta_schedule=part("schedule"),
        prediction=prediction,
        weighting=part("weighting"),
        timesteps=part("timesteps"),
        variance=part("variance"),
    )
    return make(
        diffusion=diffusion,
        normalizer=Normalizer(len(skeleton.names), skeleton.coords, skeleton.root, ground),
        skeleton=skeleton,
        fps=fps,
        frames=config["frames"],
        sampler=part("sampler"),
        condition=condition,
        project=project if skeleton.coords == 3 and project != "none" else None,
        class_names=class_names,
    )


@contextlib.contextmanager
def sketching(node: Mapping[str, Any], key: str) -> Iterator[None]:
    """What is built inside this context takes no memory; more numbers than a tensor can have are a ConfigError."""
    try:
        with torch.device("meta"):
            yield
    except (RuntimeError, OverflowError) as error:
        raise ConfigError(f"{key}: too large to be built; make it smaller: {node}") from error


def _refuse_large(
    nodes: Mapping[str, Any], classes: tuple[Sequence[int], int], trust: Sequence[str] | None, numbers: float
) -> dict[str, Any]:
    """The project's own parts without memory, refused if they hold too much; for the rest see `build_model`."""
    held, sketches = 0, {}
    for key, node in nodes.items():
        check(node, key, trust)
        if not isinstance(node, Mapping) or node.get("_target_") not in PARTS:
            continue
        with sketching(node, key):
            sketch = sketches[key] = construct_part(node, key, trust)
            if key == "prediction":
                sketch.prepare(*classes)
        if isinstance(sketch, nn.Module):
            held += sum(tensor.numel() for tensor in (*sketch.parameters(), *sketch.buffers()))
        if held > 2 * numbers + 10**6:  # a small lack is reported where the weights are loaded
            raise ConfigError(f"{key}: needs {held} numbers, there are only {numbers}; it is of another run, or damaged")
        refuse_beyond_memory(f"{key}: its {held} numbers", 4 * held, f"make it smaller: {node}")
    return sketches


def with_channels(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the network's channels set to what the skeleton has.

    Args:
        config: plain containers.

    Raises:
        ConfigError: they were given and are something else.
    """
    skeleton: Skeleton = construct(config["skeleton"], "skeleton")
    joints, coords = len(skeleton.names), skeleton.coords
    outputs = construct(config["variance"], "variance").outputs
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
