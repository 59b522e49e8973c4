"""Fixtures that several test files share."""

import copy
import functools
import gc
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from datamodules import joints
from ddpm.clips import Clips
from ddpm.skeleton import Skeleton
from tests.skeletons import CONF, SHIPPED

# The tensors of the tests are small: more threads would only wait for each other.
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def shipped_skeletons_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A user's own skeletons beside the shipped ones, which data would fit too, change no test."""
    folder = tmp_path_factory.mktemp("skeleton")
    for name in SHIPPED:
        shutil.copy(CONF / f"{name}.yaml", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joints, "PRESETS", folder)
        yield


@pytest.fixture(autouse=True, scope="module")
def garbage_is_collected_between_files() -> Iterator[None]:
    """Composing and training make many objects: to look through all of torch's for garbage meanwhile is a fifth of their time."""
    gc.disable()
    yield
    gc.enable()
    gc.collect()
    gc.freeze()  # what is left are modules, which no later collection has to look through


@pytest.fixture(autouse=True, scope="session")
def shipped_configurations_are_parsed_once() -> Iterator[None]:
    """Hydra would parse the same files for every command that a test calls."""
    load = OmegaConf.load

    @functools.cache
    def parsed(path: str, changed: int) -> Any:
        return OmegaConf.to_container(load(path))

    def loaded(file: Any) -> Any:
        path = Path(getattr(file, "name", file))
        return OmegaConf.create(parsed(str(path), path.stat().st_mtime_ns)) if CONF.parent in path.parents else load(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "load", loaded)
        yield


@pytest.fixture
def skeleton_config() -> dict[str, Any]:
    """The shipped skeleton of 20 joints as plain containers, with its ``_target_``."""
    return copy.deepcopy(_skeleton_config())


@functools.cache
def _skeleton_config() -> dict[str, Any]:
    config = OmegaConf.to_container(OmegaConf.load(CONF / "kinect20.yaml"))
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


@pytest.fixture
def skeleton(skeleton_config: dict[str, Any]) -> Skeleton:
    """The shipped skeleton of 20 joints."""
    return Skeleton(**{key: value for key, value in skeleton_config.items() if key != "_target_"})


@pytest.fixture
def tiny_config(skeleton_config: dict[str, Any]) -> dict[str, Any]:
    """Everything that `ddpm.module.build_module` reads, for the smallest network that has all its parts."""
    return {
        "T": 8,
        "frames": 8,
        "seed": 0,
        "skeleton": skeleton_config,
        "model": {
            "_target_": "ddpm.networks.unet.MDM_UNetModel",
            "image_size": 8,
            "in_channels": 60,
            "model_channels": 8,
            "out_channels": 60,
            "num_res_blocks": 1,
            "attention_resolutions": [2],
            "channel_mult": [1, 2],
            "num_heads": 2,
        },
        "schedule": {"_target_": "ddpm.process.schedules.cosine", "_partial_": True},
        "prediction": {"_target_": "ddpm.process.prediction.X0"},
        "timesteps": {"_target_": "ddpm.process.timestep_sampling.Uniform"},
        "variance": {"_target_": "ddpm.process.variance.Fixed", "fraction": 1.0},
        "motion_loss": {},
        "weighting": {"_target_": "ddpm.process.weighting.min_snr", "_partial_": True, "gamma": 5.0},
        "sampler": {"_target_": "ddpm.process.samplers.dpmpp_2m", "_partial_": True, "steps": 4},
        "optimizer": {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 1e-3},
        "lr_scheduler": {"_target_": "ddpm.learning_rate.warmup_cosine", "_partial_": True, "warmup": 10},
    }


def walk(n: int, frames: int, joints: int, coords: int, seed: int = 0) -> Tensor:
    """``(n, frames, joints, coords)``: smooth random motion, metres."""
    generator = torch.Generator().manual_seed(seed)
    phase, size = torch.rand(2, n, 1, joints, coords, generator=generator, dtype=torch.float64)
    time = torch.arange(frames, dtype=torch.float64)[None, :, None, None]
    place = torch.randn(n, 1, joints, coords, generator=generator, dtype=torch.float64)
    return place + size * torch.sin(0.2 * time * (1 + size) + 6 * phase)


@pytest.fixture
def motions(skeleton: Skeleton) -> Clips:
    """40 clips of 12 frames and of 5 to 12 that count, 20 frames per second."""
    lengths = torch.arange(40) % 8 + 5
    return Clips(walk(40, 12, 20, 3), lengths, 20.0, skeleton)


@pytest.fixture
def flat(skeleton: Skeleton) -> Clips:
    """The same in image coordinates: 2-D, y down."""
    image = Skeleton(skeleton.joints, skeleton.left_right, skeleton.feet, up="-y", coords=2)
    return Clips(walk(40, 12, 20, 2), torch.arange(40) % 8 + 5, 20.0, image)
