"""Clips of different lengths in one batch: trained and sampled as each would be alone."""

from functools import partial

import pytest
import torch

from ddpm.model import evaluating
from ddpm.module import MotionDiffusion, build_module

LENGTHS = (8, 5, 13)
TRANSFORMER = {
    "_target_": "ddpm.networks.transformer.MotionTransformer", "in_channels": 60, "model_channels": 8, "out_channels": 60,
    "frames": 8, "depth": 2, "num_heads": 2,
}  # fmt: skip
PARTS = {
    "unet": {},
    "transformer": {"model": TRANSFORMER},
    "gaussian": {"prediction": {"_target_": "ddpm.process.gaussian.Gaussian", "channels": 60, "frames": 8}},
}


@pytest.fixture(params=PARTS)
def module(request: pytest.FixtureRequest, tiny_config: dict) -> MotionDiffusion:
    """A network that was never trained, with weights that make every part of it count."""
    module = build_module({**tiny_config, **PARTS[request.param]}, fps=15.0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.diffusion.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    module.fit({"clips": torch.randn(4, 20, 3, 8, generator=generator), "mask": None})
    return module.eval()


def batch_of(clips: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips ``(joint, coord, frame)`` side by side, filled up with something wild; and their mask."""
    longest = max(clip.shape[-1] for clip in clips)
    batch = torch.full((len(clips), *clips[0].shape[:2], longest), 9.0)
    mask = torch.zeros(len(clips), 1, 1, longest)
    for i, clip in enumerate(clips):
        batch[i, ..., : clip.shape[-1]], mask[i, ..., : clip.shape[-1]] = clip, 1
    return batch, mask


def test_a_clip_is_sampled_as_if_it_were_alone(module: MotionDiffusion) -> None:
    noises = [module.noise([i], n)()[0] for i, n in enumerate(LENGTHS)]
    noise, mask = batch_of(noises)
    with torch.no_grad(), evaluating(module):
        denoise = partial(module.diffusion.denoise, mask=mask)
        together = module.sampler(denoise, noise, module.diffusion.alpha_bar, randn=lambda: torch.zeros_like(noise))
    together = module.normalizer.inverse(together).permute(0, 3, 1, 2)
    for i, n in enumerate(LENGTHS):
        alone = module.generate(noises[i][None], lambda: noises[i][None])[0]  # noqa: B023
        assert alone.shape == (n, 20, 3) and bool(alone.isfinite().all())
        assert torch.allclose(together[i, :n], alone, rtol=1e-3, atol=1e-3 * float(alone.std()))


def test_the_loss_is_that_of_each_clip_alone(module: MotionDiffusion) -> None:
    """Weighted by its number of frames: every real number counts alike."""
    generator = torch.Generator().manual_seed(1)
    clips, eps = ([torch.randn(20, 3, n, generator=generator) for n in LENGTHS] for _ in range(2))
    batch, mask = batch_of(clips)
    t = torch.tensor([1, 4, 6])
    with torch.no_grad():
        together = module.loss({"clips": batch, "mask": mask}, batch_of(eps)[0], t)
        alone = [module.loss({"clips": clips[i][None], "mask": None}, eps[i][None], t[i : i + 1]) for i in range(3)]
    expected = sum(n * loss for n, loss in zip(LENGTHS, alone, strict=True)) / sum(LENGTHS)
    assert float(together) == pytest.approx(float(expected), rel=1e-4)
