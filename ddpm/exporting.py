"""Trained models as files for other programs, with a card in JSON that says what they are: safetensors, ONNX, torch.export."""

import contextlib
import copy
import hashlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ddpm.errors import CheckpointError, ConfigError
from ddpm.files import write_durably, write_json
from ddpm.model import MotionModel
from ddpm.process.condition import VectorCondition

FORMAT = "pose-ddpm 1"
MAX_CARD = 8 << 20
"""Bytes of a card that is read; that of the project's models has some thousand."""
ENDINGS = (".safetensors", ".onnx", ".pt2")
VECTORS = "condition."
"""What stands before the names of the statistics of `VectorCondition` in a file."""


class DenoisingCall(nn.Module):
    """One network call with its conversions: normalised noisy clips -> estimates of clip and noise."""

    def __init__(self, model: MotionModel) -> None:
        super().__init__()
        self.diffusion = copy.deepcopy(model.diffusion).cpu().eval()

    def forward(self, xt: Tensor, t: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(batch, joint, coord, frame)``, ``(batch,)`` int64 and ``(batch, width)`` or None -> x0_hat and eps_hat like xt."""
        found = self.diffusion.denoise(xt, t, condition)
        return found.x0_hat, found.eps_hat


def card(model: MotionModel) -> dict[str, Any]:
    """What a program needs beside the weights, as plain containers; the command line that trained them is no part of it."""

    def numbers(values: Tensor) -> list[Any]:
        return [numbers(part) for part in values] if values.ndim else float(f"{values:.9g}")  # type: ignore[return-value]

    condition, normalizer = model.condition, model.normalizer
    return {
        "format": FORMAT,
        "fps": model.fps,
        "frames": model.frames,
        "skeleton": model.skeleton.to_config(),
        "class_names": list(model.class_names),
        "label_counts": [] if condition is None else list(condition.counts),
        "statistics": {
            "root": normalizer.root,
            "travel": normalizer.travel,
            **{name: numbers(getattr(normalizer, name)[..., 0].cpu()) for name in ("mean", "scale")},
            "alpha_bar": numbers(model.diffusion.alpha_bar.cpu()),
        },
        "configuration": {key: value for key, value in model.configuration.items() if key != "overrides"},
    }


def export(model: MotionModel, path: str | Path, half: bool = False) -> list[Path]:
    """Write a model in the format of the ending; for arguments, files and errors see `ddpm.model.MotionModel.export`."""
    path, ending = Path(path), Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise ConfigError(f"{path}: unknown ending {ending!r}; models are written as {', '.join(ENDINGS)}")
    if half and ending != ".safetensors":
        raise ConfigError(f"{path}: half precision is for .safetensors alone; leave half away")
    facts = card(model)
    if not facts["configuration"]:
        raise ConfigError(f"{path}: this model does not know its configuration; load it from a checkpoint, with ddpm.load")
    text = json.dumps(facts, allow_nan=False)
    if ending == ".safetensors":
        content = _safetensors(model, text, half, path)
    else:
        content = _onnx(model, text, path) if ending == ".onnx" else _program(model, text)
    write_durably(path, content)
    write_json(path.with_suffix(".json"), facts)
    return [path, path.with_suffix(".json")]


def read_exported(path: Path) -> dict[str, Any]:
    """The content of a .safetensors file as that of a checkpoint, without what only training needs.

    Raises:
        CheckpointError: not a file as `export` writes it, or a damaged one.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # the library has one kind for all, and torch has others
        raise CheckpointError(f"{path}: no safetensors file, or cut short ({error}); write it anew with export.py") from error
    text = facts.get("card", "")
    if not text or len(text) > MAX_CARD:
        raise CheckpointError(f"{path}: not a model of this project: it has no card of at most {MAX_CARD} bytes")
    if facts.get("sha256") != _digest(text, tensors):
        raise CheckpointError(f"{path}: damaged, it fails its checksum; write it anew with export.py")
    try:
        found = json.loads(text)
        motion = {key: found[key] for key in ("fps", "class_names", "label_counts")}
        content = {"hyper_parameters": found["configuration"], "motion": motion}
        known = found["format"] == FORMAT
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a model of this project: its card cannot be read ({error})") from error
    if not known:
        raise CheckpointError(f"{path}: of another version: its format is {found['format']!r}, this version reads {FORMAT!r}")
    motion["vectors"] = {name.removeprefix(VECTORS): tensors.pop(name) for name in [*tensors] if name.startswith(VECTORS)} or None
    return {**content, "state_dict": tensors}


def _safetensors(model: MotionModel, text: str, half: bool, path: Path) -> bytes:
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    for name, value in tensors.items():
        if half and name.startswith("diffusion.eps_model.") and value.is_floating_point():
            tensors[name] = value = value.half()
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{path}: not written, {name} is not finite{' in half precision' if half else ''}")
    if isinstance(condition := model.condition, VectorCondition):
        tensors |= {f"{VECTORS}{name}": getattr(condition, name).cpu().contiguous() for name in ("mean", "std", "bank")}
    return save(tensors, {"format": "pt", "card": text, "sha256": _digest(text, tensors)})


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """The checksum of card and tensors; the format itself has none."""
    digest = hashlib.sha256(text.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def exported(model: MotionModel) -> torch.export.ExportedProgram:
    """A `DenoisingCall` with inputs xt, t and, for a conditional model, condition; any number of clips of ``model.frames``.

    A ConfigError for a network that torch.export cannot trace, or only for one number of clips.
    """
    shape = (2, len(model.skeleton.names), model.skeleton.coords, model.frames)
    inputs = {"xt": torch.zeros(shape), "t": torch.zeros(2, dtype=torch.int64)}
    if model.condition is not None:
        inputs["condition"] = torch.zeros(2, model.condition.width)
    batch = torch.export.Dim("batch", min=1, max=2**20)
    sizes = {name: {0: batch} for name in inputs}
    try:
        return torch.export.export(DenoisingCall(model), (), inputs, dynamic_shapes=sizes)
    except Exception as error:  # torch has many kinds
        said = str(error).partition("\n")[0]
        raise ConfigError(f"model: torch.export cannot trace this network for any number of clips: {said}") from error


def _program(model: MotionModel, text: str) -> bytes:
    content = io.BytesIO()
    with _quiet():
        torch.export.save(exported(model), content, extra_files={"card.json": text})
    return content.getvalue()


def _onnx(model: MotionModel, text: str, path: Path) -> bytes:
    if not all(map(importlib.util.find_spec, ("onnx", "onnxscript"))):
        raise ConfigError(f"{path}: needs onnx and onnxscript: pip install 'pose-ddpm[onnx]', or -e '.[onnx]'")
    with _quiet():
        made: Any = torch.onnx.export(exported(model), dynamo=True, output_names=["x0_hat", "eps_hat"], verbose=False)
    made.model.metadata_props["card"] = text
    return made.model_proto.SerializeToString()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No gradients, and no warnings of torch's exporters about their own internals."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
