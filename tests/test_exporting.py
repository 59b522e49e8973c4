"""Exported models: the file gives the model back, a bad one is refused, and a denoising call elsewhere is that of here."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ddpm
from ddpm.errors import CheckpointError, ConfigError
from ddpm.exporting import FORMAT, DenoisingCall, _digest
from ddpm.module import MotionDiffusion, build_module
from tests.commands.doors import command
from tests.test_api import COUNTS, NAMES, checkpoint

GAUSSIAN = {"_target_": "ddpm.process.gaussian.Gaussian", "channels": 60, "frames": 8, "travel_by_label": True}
LABELS = {"_target_": "ddpm.process.condition.LabelCondition", "_partial_": True}
VECTORS = {**LABELS, "_target_": "ddpm.process.condition.VectorCondition"}
TRANSFORMER = {
    **{"_target_": "ddpm.networks.transformer.MotionTransformer", "frames": 8, "in_channels": 60, "model_channels": 8},
    **{"out_channels": 120, "depth": 1, "num_heads": 2, "mlp_ratio": 1.0, "dropout": 0.0},
}
KINDS: dict[str, dict[str, Any]] = {
    "gaussian": {"prediction": GAUSSIAN, "condition": LABELS, "travel": "steps"},
    "x0": {},
    "vectors": {"condition": VECTORS},
    "learned": {"model": TRANSFORMER, "variance": {"_target_": "ddpm.process.variance.Learned"}},
}


@pytest.fixture
def model(request: pytest.FixtureRequest, tiny_config: dict[str, Any], tmp_path: Path) -> MotionDiffusion:
    """Of one of `KINDS`, from a checkpoint."""
    kind = getattr(request, "param", "gaussian")
    generator = torch.Generator().manual_seed(1)
    vectors = {"mean": torch.zeros(3), "std": torch.ones(3), "bank": torch.randn(4, 3, generator=generator)}
    more = {"gaussian": (NAMES, COUNTS), "vectors": ((), (), vectors)}.get(kind, ())
    model = ddpm.load(checkpoint(tmp_path / "RUN", {**tiny_config, "overrides": ["out=/home/me"], **KINDS[kind]}, *more))
    if kind == "gaussian":
        clips = torch.randn(6, 20, 3, 8, generator=generator)
        model.fit({"clips": clips, "mask": None, "labels": torch.tensor([0, 2, 0, 2, -1, 0])})
    return model


@pytest.mark.parametrize("model", KINDS, indirect=True)
def test_a_file_gives_the_model_back(model: MotionDiffusion, tmp_path: Path) -> None:
    path, beside = model.export(tmp_path / "new" / "model.safetensors")
    again, expected = ddpm.load(path), model.sample(3).positions
    assert torch.equal(again.sample(3).positions, expected) and again.sample(3).labels == model.sample(3).labels
    card = json.loads(beside.read_text())
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["card"]) == card
    assert (card["format"], card["fps"], card["frames"]) == (FORMAT, 20.0, 8) and "overrides" not in card["configuration"]
    assert list(card["skeleton"]["joints"]) == list(model.skeleton.names)
    np.testing.assert_allclose(card["statistics"]["scale"], model.normalizer.scale[..., 0], rtol=1e-7)
    np.testing.assert_allclose(card["statistics"]["alpha_bar"], model.diffusion.alpha_bar, rtol=1e-7)
    (half, _), size = model.export(tmp_path / "half.safetensors", half=True), path.stat().st_size
    weights = sum(value.numel() for value in model.diffusion.eps_model.state_dict().values())
    assert size - half.stat().st_size == pytest.approx(2 * weights, rel=0.02)
    assert 0 < (ddpm.load(half).sample(3).positions - expected).abs().max() < 0.02 * expected.abs().max()


def test_only_what_can_be_written_is(model: MotionDiffusion, tiny_config: dict[str, Any], tmp_path: Path) -> None:
    for name, half, named in (
        ("model.ckpt", False, r"unknown ending '\.ckpt'; models are written as \.safetensors, \.onnx, \.pt2"),
        ("model", False, "unknown ending ''"),
        ("model.pt2", True, r"half precision is for \.safetensors alone"),
    ):
        with pytest.raises(ConfigError, match=named):
            model.export(tmp_path / "out" / name, half)
    with pytest.raises(ConfigError, match="does not know its configuration; load it from a checkpoint"):
        build_module(tiny_config, 20.0).export(tmp_path / "out" / "model.safetensors")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ConfigError, match=r"pip install 'pose-ddpm\[onnx\]'"):
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        model.export(tmp_path / "out" / "model.onnx")
    weight = next(model.diffusion.eps_model.parameters())
    for value, half, named in ((1e6, True, " in half precision"), (torch.nan, False, "")):
        weight.data.flatten()[0] = value
        with pytest.raises(CheckpointError, match=rf"eps_model.* is not finite{named}$"):
            model.export(tmp_path / "out" / "model.safetensors", half)
    assert not (tmp_path / "out").exists()


def changed(path: Path, change: Callable[[dict[str, Any]], Any], signed: bool = True) -> None:
    """Write the file anew with another card."""
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        facts = file.metadata()
    card = json.loads(facts["card"])
    made = change(card)
    facts["card"] = made if isinstance(made, str) else json.dumps(card)
    facts["sha256"] = _digest(facts["card"], tensors) if signed else facts["sha256"]
    save_file(tensors, path, facts)


CODE = {"_target_": "os.system", "command": "touch owned"}
BAD: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "code": (lambda card: card["configuration"].update(model=CODE), "no part of this project that a checkpoint may name"),
    "code in the sampler": (lambda card: card["configuration"].update(sampler=CODE), "no part of this project"),
    "no card": (lambda card: "", "it has no card"),
    "no JSON": (lambda card: "{", "its card cannot be read"),
    "a list": (lambda card: "[]", "its card cannot be read"),
    "deep": (lambda card: "[" * 10**5, "its card cannot be read"),
    "deep inside": (lambda card: card.update(class_names=json.loads("[" * 200 + "]" * 200)), "more than 100 deep"),
    "huge": (lambda card: card.update(fps=10**300), "a number of more than 64 bits"),
    "no rate": (lambda card: card.pop("fps") and None, "its card cannot be read .'fps'"),
    "rate of nothing": (lambda card: card.update(fps=float("nan")), "fps=nan must be a positive number"),
    "another version": (lambda card: card.update(format="pose-ddpm 9"), "its format is 'pose-ddpm 9'"),
    "no configuration": (lambda card: card.update(configuration=[1]), "its hyper_parameters is a list"),
    "a wider network": (lambda card: card["configuration"]["model"].update(model_channels=16), "do not fit its own config"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_card_is_not_trusted(kind: str, model: MotionDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path, _ = model.export(tmp_path / "model.safetensors")
    change, named = BAD[kind]
    changed(path, change)
    with pytest.raises((CheckpointError, ConfigError), match=named) as error:
        ddpm.load(path)
    assert str(error.value).startswith(str(path)) and not (tmp_path / "owned").exists()


def test_damage_is_named(model: MotionDiffusion, tmp_path: Path) -> None:
    path, _ = model.export(tmp_path / "model.safetensors")
    whole = path.read_bytes()
    for size in (0, 4, 8, 500, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="no safetensors file, or cut short"):
            ddpm.load(path)
    generator = np.random.default_rng(0)
    for place in [len(whole) - 1, *generator.integers(0, len(whole), 60)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << generator.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"model\.safetensors: "):
            ddpm.load(path)
    path.write_bytes(whole)
    changed(path, lambda card: card.update(fps=30.0), signed=False)
    with pytest.raises(CheckpointError, match="damaged, it fails its checksum"):
        ddpm.load(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="not a model of this project: it has no card"):
        ddpm.load(path)


def inputs(model: MotionDiffusion, n: int) -> dict[str, torch.Tensor]:
    """Of a denoising call of n clips."""
    generator = torch.Generator().manual_seed(n)
    t = torch.randint(model.diffusion.n_steps, (n,), generator=generator)
    given = {"xt": torch.randn(n, 20, 3, 8, generator=generator), "t": t}
    return given if model.condition is None else {**given, "condition": model.conditions(range(n))}


@pytest.mark.parametrize("model", ["gaussian", pytest.param("learned", marks=pytest.mark.slow)], indirect=True)
def test_a_program_is_the_denoising_call(model: MotionDiffusion, tmp_path: Path) -> None:
    """For any number of clips; and the call is what samplers see."""
    path, _ = model.export(tmp_path / "model.pt2")
    extra = {"card.json": ""}
    program = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra["card.json"])["format"] == FORMAT
    with pytest.raises(CheckpointError, match="one denoising call for other programs"):
        ddpm.load(path)
    for n in (1, 2, 5):
        given = inputs(model, n)
        with torch.no_grad():
            found = program(**given)
            expected = DenoisingCall(model)(**given)
            seen = model.denoiser(given.get("condition"), 1.0 if model.condition else None, None)(given["xt"], given["t"])
        for one, other, third in zip(found, expected, seen[:2], strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
            assert torch.equal(other, third)
    model.diffusion.eps_model.forward = lambda xt, t, cond=None: xt + len(xt)
    with pytest.raises(ConfigError, match="cannot trace this network for any number of clips"):
        model.export(path)


@pytest.mark.parametrize("model", ["gaussian", pytest.param("learned", marks=pytest.mark.slow)], indirect=True)
def test_onnx_is_the_denoising_call(model: MotionDiffusion, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path, beside = model.export(tmp_path / "model.onnx")
    session = runtime.InferenceSession(path)
    assert json.loads(session.get_modelmeta().custom_metadata_map["card"]) == json.loads(beside.read_text())
    for n in (1, 2, 5):
        given = inputs(model, n)
        found = session.run(["x0_hat", "eps_hat"], {name: value.numpy() for name, value in given.items()})
        with torch.no_grad():
            for one, other in zip(found, DenoisingCall(model)(**given), strict=True):
                np.testing.assert_allclose(one, other.numpy(), rtol=0, atol=1e-4)


def test_the_command_writes_a_file_that_the_commands_open(model: MotionDiffusion, tmp_path: Path) -> None:
    done = command("export.py", "ckpt=RUN", "file=out/model.safetensors", "half=true", cwd=tmp_path)
    assert done.returncode == 0 and "out/model.safetensors: " in done.stdout and "out/model.json: " in done.stdout, done.stderr
    done = command("sample.py", "ckpt=out/model.safetensors", "n=2", "gif_clips=0", "device=cpu", "out=clips", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = ddpm.load(tmp_path / "out" / "model.safetensors").sample(2).positions
    np.testing.assert_allclose(np.load(tmp_path / "clips" / "clips.npz")["clips"], expected, atol=1e-6)
    done = command("train.py", "resume=out/model.safetensors", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    done = command("export.py", "ckpt=RUN", "file=model.bin", cwd=tmp_path)
    assert (done.returncode, "unknown ending '.bin'" in done.stdout) == (2, True)
