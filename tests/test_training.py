"""Loggers of several kinds are made, and are told the configuration in their own way."""

import copy
import functools
import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.overrides import TorchFunctionMode

from ddpm import training
from ddpm.command import plain
from ddpm.errors import ConfigError
from ddpm.limits import checked
from ddpm.module import build_module
from ddpm.training import END_METRICS, compile_network, log_configuration, make_loggers
from tests.configs import compose

SAVED = {"T": 20, "seed": 4, "skeleton": {"up": "y"}, "model": {"mult": [1, 2], "dim": None}}


class OneArgument(Logger):
    """As WandbLogger and MLFlowLogger declare it."""

    name, version = "fake", "0"
    noted: dict[str, Any] = {}  # noqa: RUF012

    def log_hyperparams(self, params: dict[str, Any]) -> None:  # type: ignore[override]
        self.noted = params

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        pytest.fail("nothing is measured yet")


def test_every_kind_of_logger_notes_the_configuration_and_no_number(tmp_path: Path) -> None:
    fake, csv = OneArgument(), CSVLogger(tmp_path, name="csv")
    board = TensorBoardLogger(tmp_path, name="", version="", default_hp_metric=False)
    config = SAVED | {"callbacks": {"motion_metrics": {"n": 64}}}
    log_configuration([fake, csv, board], config, ["data=folder", "model.dim=8", "out=x", "model.mult=[1,2]", "~callbacks.best"])
    csv.save()
    board.finalize("success")
    everything = {"T": 20, "seed": 4, "model.mult": "[1, 2]", "model.dim": "None", "callbacks.motion_metrics.n": 64}
    assert fake.noted == everything == csv.experiment.hparams
    assert not csv.experiment.metrics
    events = EventAccumulator(str(tmp_path)).Reload()
    assert not events.Tags()["scalars"] and events.Tags()["tensors"] == ["custom_scalars__config__"]
    start = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    columns = set(HParamsPluginData.FromString(start).session_start_info.hparams)
    assert columns == {"data", "model.dim", "model.mult", "seed", "callbacks.motion_metrics.n"}, (
        "what was chosen, and what is needed"
    )
    experiment = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    ends = [metric.name.tag for metric in HParamsPluginData.FromString(experiment).experiment.metric_infos]
    assert ends == list(END_METRICS) and len(ends) == 6


def test_a_logger_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: Any) -> None:
        raise ModuleNotFoundError("wandb>=0.12.10")

    monkeypatch.setattr(training, "construct", missing)
    with pytest.raises(ConfigError, match=r"logger\.wandb: wandb>=0\.12\.10; install it"):
        make_loggers({"wandb": {"_target_": "pytorch_lightning.loggers.WandbLogger"}}, None)


def test_a_compiled_network_is_the_same_network(tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def compiler(program: Any, inputs: Any) -> Any:  # in place of inductor, which takes minutes
        made.append(program)
        return program.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=compiler))
    module = build_module(tiny_config, fps=20.0)
    clips = torch.randn(2, 20, 3, 8)
    module.fit({"clips": clips, "mask": None})
    names, batch = list(module.state_dict()), {"clips": clips, "mask": None}
    eps, t = torch.randn_like(clips), torch.tensor([3, 7])
    expected = module.loss(batch, eps, t)
    compile_network(module, torch.device("cpu"))
    assert torch.allclose(module.loss(batch, eps, t), expected, rtol=1e-5) and made
    assert list(module.state_dict()) == names
    assert "_compiled_call_impl" not in vars(copy.deepcopy(module).diffusion.eps_model), "the average of the weights copies it"


@pytest.mark.parametrize(
    ("every", "rate", "callback", "steps", "expected"),
    [
        (1, 10, None, -1, [*range(12)]),
        (4, 10, None, -1, [3, 7, 9, 11]),
        (50, 10, None, 7, [6, 9, 11]),
        (50, 0, ModelCheckpoint(monitor="val/loss"), -1, [11]),
        (50, 0, ModelCheckpoint(monitor="train/loss"), -1, [*range(12)]),
        (50, 0, SimpleNamespace(), -1, [*range(12)]),
    ],
)
def test_a_step_logs_what_is_shown(
    every: int, rate: int, callback: Any, steps: int, expected: list[int], tiny_config: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """To a logger, on the progress bar, to callbacks that may look at it, at the end of a run, and of an epoch of 12 batches."""
    module, logged = build_module(tiny_config, fps=20.0), []
    loop = SimpleNamespace(batch_idx=0)
    monkeypatch.setattr(module, "log", lambda *_, **__: logged.append(loop.batch_idx))
    for loop.batch_idx in range(12):
        connector = SimpleNamespace(should_update_logs=(loop.batch_idx + 1) % every == 0)
        places = {"global_step": loop.batch_idx, "max_steps": steps, "is_last_batch": loop.batch_idx == 11}
        places |= {"progress_bar_callback": SimpleNamespace(refresh_rate=rate), "callbacks": [callback] if callback else []}
        module._trainer = SimpleNamespace(fit_loop=SimpleNamespace(epoch_loop=loop), _logger_connector=connector, **places)  # type: ignore[assignment]
        if loop.batch_idx == 0:
            module.on_train_start()
        module._log_step("train/loss", torch.zeros(()))
    assert logged == expected


def test_compiling_needs_a_compiler(tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    module = build_module(tiny_config, fps=20.0)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="compile=true needs a C\\+\\+ compiler, and there is no no-such-compiler"):
        compile_network(module, torch.device("cpu"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="compile=true needs triton on a GPU"):
        compile_network(module, torch.device("cuda"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "found")
    compile_network(module, torch.device("cuda"))


class Waits(TorchFunctionMode):
    """Notes what makes the processor wait for a device: values that Python reads, and indices that it copies there."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        indices = args[1] if name in ("__getitem__", "__setitem__") else ()
        indices = indices if isinstance(indices, tuple) else (indices,)
        copied = any(isinstance(i, list) or (isinstance(i, torch.Tensor) and i.dtype == torch.bool) for i in indices)
        if copied or name in ("item", "tolist", "__bool__", "__int__", "__float__", "nonzero", "masked_select", "tensor", "cpu"):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def test_a_training_step_waits_for_no_device() -> None:
    """With everything that is computed beside the network: labels, padding, the Gaussian, and losses in metres."""
    small = ["model.model_channels=8", "motion_loss=full", "frames=16"]
    module = build_module(checked(plain(compose("config", ["out=o", *small]))), 20.0, ("a", "b"), (3, 3, 1)).train()
    clips, mask = torch.randn(4, 20, 3, 16).cumsum(-1), torch.ones(4, 1, 1, 16)
    mask[0, ..., 9:] = 0
    batch = {"clips": clips, "mask": mask, "labels": torch.tensor([0, 1, -1, 0])}
    module.fit(batch)
    with Waits() as waits:
        module.loss(batch).backward()
        waits_of_the_step = list(waits.found)
        clips[:, [0]].sum().item()
    assert waits_of_the_step == [] and waits.found == ["__getitem__", "item"]
