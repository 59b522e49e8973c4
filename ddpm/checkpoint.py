"""Checkpoints, which are checked before they are trusted."""

import logging
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ddpm.build import build_model
from ddpm.config import built_from_file, of_today
from ddpm.errors import CheckpointError, ConfigError
from ddpm.exporting import read_exported
from ddpm.model import MotionModel

log = logging.getLogger(__name__)

SAMPLING_KEYS = ("state_dict", "hyper_parameters", "motion")
PRETRAINED = Path(__file__).with_name("pretrained.safetensors")
"""The small model that comes with the project; docs/configuration.md says how it was made."""
MAX_PICKLE = 8 << 20
"""Bytes, at most, of all that is no tensor; a run of the project has a tenth of a megabyte."""
MAX_VALUES, MAX_DEPTH = 1_000_000, 100
"""Values of a checkpoint, at most, shared ones counted at every place; and depth of nested containers."""


Built = TypeVar("Built", bound=MotionModel)


class DamagedError(CheckpointError):
    """A checkpoint that is cut short, or of which bits have changed."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint file, every byte of it checked, on the CPU.

    Nothing in the file can run code: it holds tensors, numbers, strings and containers, or it is refused.

    Raises:
        CheckpointError: no such file, a damaged one, or one that holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if path.suffix.lower() in (".onnx", ".pt2"):
        raise CheckpointError(f"{path}: one denoising call for other programs; give a run, a .ckpt or a .safetensors")
    content = read_exported(path) if path.suffix.lower() == ".safetensors" else _read_archive(path)
    if foreign := _foreign(content):
        raise CheckpointError(f"{path}: refused, it holds {foreign}; use another checkpoint")
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a checkpoint of this project: it holds a {type(content).__name__}")
    if isinstance(content.get("hyper_parameters"), dict):
        content["hyper_parameters"] = of_today(content["hyper_parameters"])
    return content


def _read_archive(path: Path) -> Any:
    """The content of a file of `torch.save`; for errors see `read_checkpoint`."""
    try:
        with zipfile.ZipFile(path) as archive:
            # torch.load does not compare checksums: a flipped bit would become a silently different weight.
            # Nor does it refuse an entry marked as a folder: it would read a weight from uninitialised memory.
            for member in archive.infolist():
                if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 or member.external_attr:
                    raise zipfile.BadZipFile(f"{member.filename} is not stored as torch stores it")
                if member.filename.endswith("data.pkl") and member.file_size > MAX_PICKLE:
                    raise zipfile.BadZipFile(f"{member.file_size} bytes beside the tensors, at most {MAX_PICKLE} are read")
            if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
                raise zipfile.BadZipFile("its parts overlap")
            damaged = archive.testzip()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # zipfile raises many kinds for a damaged archive
        raise DamagedError(f"{path}: not a checkpoint, or cut short ({error}); use another, e.g. best.ckpt") from error
    if damaged is not None:
        raise DamagedError(f"{path}: damaged, {damaged} fails its checksum; use another checkpoint, e.g. best.ckpt")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a hostile or foreign archive
        # Torch's text begins with the advice to load it unsafely, which is left out.
        named = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it names {named[1]}" if named else type(error).__name__
        raise CheckpointError(f"{path}: refused, it holds more than tensors and plain values ({reason})") from error


def is_whole(path: str | Path) -> bool:
    """Whether there is a checkpoint that can be read."""
    try:
        read_checkpoint(path)
    except CheckpointError:
        return False
    return True


def checkpoint_of(path: str | Path) -> Path:
    """The checkpoint that a path names: a file; of a run's directory the newest undamaged one, with a warning if that is not the
    last one; where all are damaged, one whose error says why when it is read; ``pretrained`` is `PRETRAINED`."""
    return _chosen(path)[0]


def _chosen(path: str | Path) -> tuple[Path, dict[str, Any] | None]:
    """See `checkpoint_of`; and its content where that has been read."""
    path = PRETRAINED if str(path) == "pretrained" else Path(path)
    if not path.is_dir():
        return path, None
    last = path / "checkpoints" / "last.ckpt"
    others = [other for other in sorted(last.parent.glob("*.ckpt"), reverse=True) if other != last]
    steps = {}
    for candidate in [last, *others] if others else []:
        try:
            content = read_checkpoint(candidate)
        except CheckpointError as error:
            log.warning("%s", error)
            continue
        if candidate == last:
            return last, content
        if isinstance(step := content.get("global_step"), int):
            steps[candidate] = step
    if not steps:
        return last if last.exists() or not others else others[0], None
    newest = max(steps, key=lambda candidate: steps[candidate])
    log.warning("%s, of step %s, is taken instead of %s", newest, steps[newest], last.name)
    return newest, None


def load_run(
    path: str | Path, trust: Sequence[str] = (), build: Callable[..., Built] = build_model
) -> tuple[Built, dict[str, Any]]:
    """The trained model of a checkpoint, with its averaged weights if it has any, ready to sample; and its configuration.

    Args:
        path: the file, a .ckpt or a .safetensors; or the directory of a run, for its last checkpoint; or ``pretrained``.
        trust: packages of your own whose classes and functions the checkpoint may name, beside `ddpm.config.PARTS`.
        build: `ddpm.build.build_model`, or `ddpm.module.build_module` for one that can be trained on.

    Raises:
        CheckpointError: see `read_checkpoint`; or a file of another project; or weights that do not fit the configuration.
        ConfigError: a configuration in the file that cannot be built.
    """
    path, content = _chosen(path)
    content = read_checkpoint(path) if content is None else content
    missing = [key for key in SAMPLING_KEYS if key not in content]
    if missing:
        raise CheckpointError(f"{path}: not a checkpoint of this project: it lacks {missing}")
    for key in SAMPLING_KEYS:
        if not isinstance(content[key], dict):
            raise CheckpointError(f"{path}: not a checkpoint of this project: its {key} is a {type(content[key]).__name__}")
    motion, config = content["motion"], content["hyper_parameters"]
    for key in ("data", "loader"):
        if not isinstance(config.get(key) or {}, dict):
            raise CheckpointError(f"{path}: not a checkpoint of this project: its {key} is a {type(config[key]).__name__}")
    try:
        with built_from_file("hyper_parameters"):
            model = build(
                config,
                motion["fps"],
                motion["class_names"],
                motion.get("label_counts", ()),
                motion.get("vectors"),
                trust=[trust] if isinstance(trust, str) else trust,
                numbers=sum(value.numel() for _, value in numbers_in(content["state_dict"])),
            )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except KeyError as error:
        raise CheckpointError(
            f"{path}: of another version or another project, its configuration lacks {error}; train anew"
        ) from error
    try:
        model.load_state_dict(content["state_dict"], strict=True)
    except Exception as error:  # torch raises others for what is no table of tensors
        first = "; ".join(line.strip() for line in str(error).splitlines()[1:4]) or str(error)
        raise CheckpointError(f"{path}: its weights do not fit its own configuration: {first}") from error
    steps = content.get("global_step")
    model.configuration, model.trained_steps = config, steps if isinstance(steps, int) else None
    return model.eval(), config


def _foreign(content: Any) -> str | None:
    """What a file holds that no checkpoint does, such as repeated values that would exhaust memory; None: nothing."""
    left, waiting = MAX_VALUES, [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
                return f"a tensor that is {value.layout} on {value.device}"
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                return f"a tensor of shape {tuple(value.shape)} with fewer numbers than that"
        elif isinstance(value, Mapping | list | tuple | set):
            parts = [*value, *value.values()] if isinstance(value, Mapping) else list(value)
            left -= len(parts)
            if left < 0 or depth >= MAX_DEPTH:
                return f"over {MAX_VALUES} values, or values inside each other more than {MAX_DEPTH} deep"
            waiting += [(part, depth + 1) for part in parts]
        elif isinstance(value, int) and abs(value) >= 2**64:
            return "a number of more than 64 bits"
    return None


def numbers_in(content: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of real numbers in weights and in states of optimisers and callbacks, with where they are."""
    if isinstance(content, Tensor):
        if content.is_floating_point():
            yield name, content
    elif isinstance(content, Mapping | list | tuple):
        for key, value in content.items() if isinstance(content, Mapping) else enumerate(content):
            yield from numbers_in(value, f"{name}.{key}" if name else str(key))
