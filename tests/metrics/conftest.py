"""Motion for the tests of the metrics."""

import pytest
import torch
from torch import Tensor

from ddpm.clips import Clips
from ddpm.skeleton import Skeleton


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
