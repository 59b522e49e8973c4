"""Callbacks that want the same clips at the same step share one sampling."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers import WandbLogger

import train as train_script
from callbacks.samples import samples
from ddpm.clips import Clips
from ddpm.module import MotionDiffusion
from ddpm.skeleton import Skeleton
from ddpm.training import END_METRICS
from tests.callbacks.test_motion_metrics import Fake
from tests.commands.test_train import SMALL
from tests.configs import compose


def test_what_is_shared_is_what_would_be_sampled() -> None:
    asked: list[range] = []

    def sample(seeds: range) -> Clips:
        asked.append(seeds)
        value = torch.tensor([100 * trainer.global_step + seed for seed in seeds])
        return Clips.whole(value[:, None, None, None].expand(-1, 4, 1, 3), 20.0, Skeleton({"a": None}))

    trainer, module = Fake(global_step=3, callbacks=[]), SimpleNamespace(sample=sample)

    def values(seed: int, n: int) -> list[float]:
        return samples(trainer, module, seed, n).positions[:, 0, 0, 0].tolist()  # type: ignore[arg-type]

    assert values(2, 4) == [302, 303, 304, 305] and values(3, 2) == [303, 304]
    assert asked == [range(2, 6)]
    assert values(4, 3) == [304, 305, 306] and values(1, 2) == [301, 302], "seeds that were not sampled"
    trainer.global_step = 4
    assert values(1, 2) == [401, 402], "the weights have changed"
    assert len(asked) == 4


class Recorder(WandbLogger):
    """W&B's logger without W&B."""

    name, version, save_dir, experiment = "recorder", "0", None, None  # type: ignore[assignment]

    def __init__(self) -> None:
        self.pictures: list[tuple[str, int]] = []
        self.names: set[str] = set()

    def log_hyperparams(self, params: Any) -> None: ...

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None: ...

    def finalize(self, status: str) -> None: ...

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.names |= set(metrics)

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:  # type: ignore[override]
        self.pictures.append((key, step or 0))

    def log_video(self, key: str, videos: list[str], step: int | None = None, format: Any = None) -> None:  # type: ignore[override]
        assert format == ["gif"] and Path(videos[0]).read_bytes().startswith(b"GIF89a")
        self.log_image(key, videos, step)


def test_picture_and_metrics_of_one_epoch_share_their_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics of epoch 1 and 2, pictures of 1 and of the end, which is after 2."""
    sampled: list[tuple[int, Any]] = []
    original = MotionDiffusion.sample

    def counting(self: MotionDiffusion, seeds: Any, *args: Any, **kwargs: Any) -> Clips:
        sampled.append((int(self.trainer.global_step), seeds))
        return original(self, seeds, *args, **kwargs)

    monkeypatch.setattr(MotionDiffusion, "sample", counting)
    logger = Recorder()
    monkeypatch.setattr(train_script, "make_loggers", lambda *_: [logger])
    every = [
        "callbacks.motion_metrics.every=1",
        "callbacks.motion_metrics.n=32",
        "callbacks.loss_plot.every=1",
        f"out={tmp_path}",
    ]
    train_script.train(compose("config", [*SMALL, "T=7", *every]))
    assert sampled == [(3, range(32)), (6, range(32))]
    for name in ("samples/epoch_0001.gif", "samples/final.gif", "loss.png", "noise_levels.png"):
        assert (tmp_path / name).stat().st_size > 0
    pictures = [("samples", 3), ("samples", 6), ("train/loss_curve", 3), ("train/loss_curve", 6), ("val/noise_levels", 6)]
    assert sorted(set(logger.pictures)) == pictures and set(END_METRICS) <= logger.names, "as in TensorBoard"
