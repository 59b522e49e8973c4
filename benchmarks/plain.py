"""The UNet of `ddpm.networks.unet`, written as plainly as it can be: what benchmarks/speed.py and gpu.py measure against.

Convolutions, normalisation and activation one after the other, attention with einsum, no masks, no options.
"""

import math

import torch
from torch import Tensor, nn


def norm(channels: int) -> nn.GroupNorm:
    """Normalisation in groups of at least 4 channels."""
    return nn.GroupNorm(math.gcd(32, channels // 4), channels)


class Block(nn.Module):
    """Residual block whose second normalisation the embedding scales and shifts."""

    def __init__(self, into: int, out: int, emb: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(into), nn.Conv1d(into, out, 3, padding=1)
        self.emb = nn.Linear(emb, 2 * out)
        self.norm2, self.conv2 = norm(out), nn.Conv1d(out, out, 3, padding=1)
        self.skip = nn.Conv1d(into, out, 1) if into != out else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """``(batch, into, frame)`` -> ``(batch, out, frame)``."""
        h = self.conv1(nn.functional.silu(self.norm1(x)))
        scale, shift = self.emb(nn.functional.silu(emb))[:, :, None].chunk(2, dim=1)
        h = self.norm2(h) * (1 + scale) + shift
        return self.skip(x) + self.conv2(nn.functional.silu(h))


class Attention(nn.Module):
    """Multi-head attention between frames."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, norm(channels)
        self.qkv, self.out = nn.Conv1d(channels, 3 * channels, 1), nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """``(batch, channels, frame)`` -> the same shape."""
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=1)
        q, k, v = (part.reshape(x.shape[0], self.heads, -1, x.shape[2]) for part in (q, k, v))
        weights = (torch.einsum("bhct,bhcs->bhts", q, k) / q.shape[2] ** 0.5).softmax(dim=-1)
        return x + self.out(torch.einsum("bhts,bhcs->bhct", weights, v).reshape(x.shape))


class Resample(nn.Module):
    """Half or twice as many frames."""

    def __init__(self, channels: int, down: bool) -> None:
        super().__init__()
        self.conv, self.down = nn.Conv1d(channels, channels, 3, stride=2 if down else 1, padding=1), down

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """``(batch, channels, frame)`` -> ``(batch, channels, frame / 2)`` or ``(batch, channels, 2 frame)``."""
        return self.conv(x if self.down else nn.functional.interpolate(x, scale_factor=2.0))


class PlainUNet(nn.Module):
    """The UNet; arguments as those of `ddpm.networks.unet.MDM_UNetModel`, frames a multiple of its stride."""

    def __init__(
        self, channels: int, width: int = 64, mult: tuple[int, ...] = (1, 2, 4), blocks: int = 2,
        attention: tuple[int, ...] = (2, 4), heads: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        emb = 4 * width
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.first = nn.Conv1d(channels, mult[0] * width, 3, padding=1)
        self.down, self.middle, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        now, skips = mult[0] * width, [mult[0] * width]

        def level(into: int, out: int, rate: int) -> nn.ModuleList:
            return nn.ModuleList([Block(into, out, emb), *([Attention(out, heads)] if rate in attention else [])])

        for i, m in enumerate(mult):
            if i > 0:
                self.down.append(nn.ModuleList([Resample(now, True)]))
                skips.append(now)
            for _ in range(blocks):
                self.down.append(level(now, m * width, 2**i))
                now = m * width
                skips.append(now)
        self.middle.extend([Block(now, now, emb), Attention(now, heads), Block(now, now, emb)])
        for i, m in reversed(list(enumerate(mult))):
            for j in range(blocks + 1):
                self.up.append(level(now + skips.pop(), m * width, 2**i))
                now = m * width
                if i > 0 and j == blocks:
                    self.up[-1].append(Resample(now, False))
        self.last = nn.Sequential(norm(now), nn.SiLU(), nn.Conv1d(now, channels, 3, padding=1))

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        """``(batch, channels, frame)`` at steps ``(batch,)`` -> its output, shaped alike."""
        half = self.width // 2
        angle = t.float()[:, None] * 10000.0 ** -(torch.arange(half, device=t.device) / half)
        emb = self.time(torch.cat([angle.cos(), angle.sin()], dim=1))
        h = self.first(xt)
        skips = [h]
        for block in self.down:
            for layer in block:
                h = layer(h, emb)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, emb)
        for block in self.up:
            h = torch.cat([h, skips.pop()], dim=1)
            for layer in block:
                h = layer(h, emb)
        return self.last(h)
