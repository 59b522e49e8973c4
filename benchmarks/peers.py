"""Diffusion models of other projects for benchmarks/quality.py, with the settings that their authors publish.

    pip install -e ".[bench]" && pip install --no-deps denoising-diffusion-pytorch

(Its dependencies for images are not needed for anything of one dimension.)
"""

import functools
import importlib
import importlib.util
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn

from datamodules.pose import PoseDataModule, RandomWindows
from ddpm.normalizer import Normalizer
from ddpm.process.diffusion import DenoiseDiffusion
from ddpm.process.prediction import X0
from ddpm.process.samplers import ddpm
from ddpm.process.schedules import cosine
from ddpm.process.variance import Fixed

T = 1000


@dataclass
class Peer:
    """A model of another project, with its own training and sampling. Clips are ``(batch, channels, frames)`` in its own range.

    Args:
        network: what is trained.
        batch: clips per step.
        optimizer: of its weights.
        loss: (clips, mask ``(batch, 1, frames)`` or None) -> the loss.
        sample: (clips, network calls) -> new clips.
        unit_range: whether clips come mapped to 0..1, the smallest and the largest number of training at its ends.
        clip: largest norm of the gradient.
        after: called after each step with the fraction of the time that is over.
    """

    network: nn.Module
    batch: int
    optimizer: torch.optim.Optimizer
    loss: Callable[[Tensor, Tensor | None], Tensor]
    sample: Callable[[int, int], Tensor]
    unit_range: bool = True
    clip: float = math.inf
    after: Callable[[float], None] = lambda done: None


def lucidrains_library() -> ModuleType:
    """What denoising-diffusion-pytorch has for one dimension; an ImportError if it is not installed."""
    name = "denoising_diffusion_pytorch"
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ImportError("this peer needs: pip install --no-deps denoising-diffusion-pytorch")
    # The package imports its models of images, and with them what they depend on: it is put in place without being executed.
    sys.modules.setdefault(name, importlib.util.module_from_spec(spec))
    return importlib.import_module(f"{name}.{name}_1d")


def lucidrains(channels: int, frames: int, objective: str) -> Peer:
    """Unet1D and GaussianDiffusion1D of denoising-diffusion-pytorch, trained as in its README and its Trainer1D.

    One batch a step instead of two: in a short time more steps are worth more.
    """
    library = lucidrains_library()
    network = library.Unet1D(dim=64, dim_mults=(1, 2, 4, 8), channels=channels)
    diffusion = library.GaussianDiffusion1D(network, seq_length=frames, timesteps=T, objective=objective, auto_normalize=True)
    ema = library.EMA(diffusion, beta=0.995, update_every=10)

    def sample(n: int, calls: int) -> Tensor:
        """All ancestral steps, or DDIM with fewer."""
        ema.ema_model.sampling_timesteps, ema.ema_model.is_ddim_sampling = calls, calls < T
        return ema.ema_model.sample(batch_size=n)

    optimizer = torch.optim.Adam(network.parameters(), lr=8e-5, betas=(0.9, 0.99))
    return Peer(network, 32, optimizer, lambda x, mask: diffusion(x), sample, clip=1.0, after=lambda done: ema.update())


def diffusers_unet(channels: int, frames: int, coords: int = 3) -> Peer:
    """UNet2DModel of diffusers on images of joints and frames, trained as in the example of unconditional generation.

    Not UNet1DModel: its narrow stages at half of the frames cannot carry the noise of 60 channels. The network is smaller than
    that of the example, which is for a GPU. The learning rate follows the clock instead of a number of steps, which is not known
    beforehand: it rises for 500 steps, or for a tenth of the time if that is less.
    """
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
    from diffusers.training_utils import EMAModel

    size = (channels // coords, frames)
    network = UNet2DModel(
        sample_size=size, in_channels=coords, out_channels=coords, block_out_channels=(32, 64, 64), layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    scheduler = DDPMScheduler(T)
    ema = EMAModel(network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6)
    over = 0.0

    def factor(step: int) -> float:
        return min(max(step / 500, over / 0.1), 1) * (1 + math.cos(math.pi * over)) / 2

    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def loss(x: Tensor, mask: Tensor | None) -> Tensor:
        images = (2 * x - 1).unflatten(1, (size[0], coords)).transpose(1, 2)
        noise, t = torch.randn_like(images), torch.randint(T, (len(x),))
        return nn.functional.mse_loss(network(scheduler.add_noise(images, noise, t), t).sample, noise)

    def after(done: float) -> None:
        nonlocal over
        over = min(done, 1.0)
        rate.step()
        ema.step(network.parameters())

    def sample(n: int, calls: int) -> Tensor:
        """All ancestral steps, or DDIM with fewer."""
        ema.copy_to(network.parameters())
        fast = DDIMScheduler.from_config(scheduler.config, timestep_spacing="trailing")
        solver = scheduler if calls == T else fast
        solver.set_timesteps(calls)
        images = torch.randn(n, coords, *size)
        for t in solver.timesteps:
            images = solver.step(network(images, t).sample, t, images).prev_sample
        return (images.transpose(1, 2).flatten(1, 2) + 1) / 2

    return Peer(network, 16, optimizer, loss, sample, clip=1.0, after=after)


class MotionEncoder(nn.Module):
    """The network of MDM (Tevet et al. 2022, arXiv 2209.14916) without a condition: a token per frame, and one for t in front."""

    def __init__(self, channels: int, width: int = 512, layers: int = 8, heads: int = 4, feedforward: int = 1024) -> None:
        super().__init__()
        angle = torch.arange(T)[:, None] * 10000.0 ** -(torch.arange(0, width, 2) / width)
        self.register_buffer("places", torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1), persistent=False)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.into, self.out, self.dropout = nn.Linear(channels, width), nn.Linear(width, channels), nn.Dropout(0.1)
        layer = nn.TransformerEncoderLayer(width, heads, feedforward, dropout=0.1, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, xt: Tensor, t: Tensor, cond: None = None, mask: Tensor | None = None) -> Tensor:
        """``(batch, channels, frames)`` at steps ``(batch,)`` -> x0_hat, shaped alike; the mask is for the loss alone."""
        tokens = torch.cat([self.time(self.places[t])[:, None], self.into(xt.transpose(1, 2))], dim=1)
        return self.out(self.encoder(self.dropout(tokens + self.places[: tokens.shape[1]]))[:, 1:]).transpose(1, 2)


def mdm(channels: int, frames: int, **sizes: int) -> Peer:
    """MDM: x0, the cosine schedule, plain L2 where frames are real, (respaced) ancestral steps with the posterior's variance."""
    network = MotionEncoder(channels, **sizes)
    parts = {"beta_schedule": cosine, "prediction": X0(), "weighting": torch.ones_like, "variance": Fixed(0.0)}
    diffusion = DenoiseDiffusion(network, T, **parts)

    def sample(n: int, calls: int) -> Tensor:
        draw = functools.partial(torch.randn, n, channels, frames)
        return ddpm(diffusion.denoise, draw(), diffusion.alpha_bar, randn=draw, steps=calls)

    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.0)
    return Peer(network, 64, optimizer, lambda x, mask: diffusion.loss(x, mask=mask), sample, unit_range=False)


PEERS: dict[str, Callable[[int, int], Peer]] = {
    "lucidrains-noise": functools.partial(lucidrains, objective="pred_noise"),
    "lucidrains-x0": functools.partial(lucidrains, objective="pred_x0"),
    "diffusers": diffusers_unet,
    "mdm": mdm,
}


@dataclass
class Trained:
    """What training leaves.

    Args:
        sample: (clips, network calls, None for the model's own number) -> clips in metres as in clips.npz, and the calls made.
        steps: of the optimiser.
        seconds: that they took.
        parameters: numbers that were trained.
    """

    sample: Callable[[int, int | None], tuple[Tensor, int]]
    steps: int
    seconds: float
    parameters: int


def train_peer(build: Callable[[int, int], Peer], data: PoseDataModule, seconds: float, seed: int) -> Trained:
    """Train such a model on the training recordings until the time is over.

    A peer that minds no masks learns the padding of short recordings too, their last pose.

    Args:
        build: (channels, frames) -> the model.
        data: the recordings.
        seconds: of training, the processor's time over the number of threads.
        seed: of weights, windows, noise and samples.
    """
    torch.manual_seed(seed)
    statistics, skeleton = data.statistics_batch(), data.clips.skeleton
    shape = (len(skeleton.names), skeleton.coords)
    normalizer = Normalizer(*shape, skeleton.root)
    normalizer.fit(statistics["clips"], statistics["mask"])
    known = normalizer(statistics["clips"])
    peer = build(math.prod(shape), data.frames)
    low, width = (float(known.min()), float(known.max() - known.min())) if peer.unit_range else (0.0, 1.0)
    lengths = data.clips.lengths[data.train_recordings]
    windows = RandomWindows(data.train_recordings, lengths, data.frames, peer.batch, 1, seed, lambda: 0)
    peer.network.train()
    # The processor's time, so that other work on the machine does not count.
    threads = torch.get_num_threads()
    step, began = 0, time.process_time()
    while (elapsed := (time.process_time() - began) / threads) < seconds:
        batch = data.windows.__getitems__(windows.batch(step))
        x = ((normalizer(batch["clips"]) - low) / width).flatten(1, 2)
        peer.optimizer.zero_grad()
        peer.loss(x, None if batch["mask"] is None else batch["mask"].flatten(1, 2)).backward()
        nn.utils.clip_grad_norm_(peer.network.parameters(), peer.clip)
        peer.optimizer.step()
        peer.after(elapsed / seconds)
        step += 1

    @torch.no_grad()
    def sample(n: int, calls: int | None) -> tuple[Tensor, int]:
        torch.manual_seed(seed)
        peer.network.eval()
        calls = min(calls or T, T)
        x = torch.cat([peer.sample(min(64, n - k), calls) for k in range(0, n, 64)])
        return normalizer.inverse((x * width + low).unflatten(1, shape)).permute(0, 3, 1, 2), calls

    return Trained(sample, step, elapsed, sum(p.numel() for p in peer.network.parameters()))
