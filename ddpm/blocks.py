"""Building blocks of the UNet, on tensors ``(batch, channel, frame)``."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class TimeEmbedding(nn.Module):
    """Sinusoids of the diffusion step, then two linear layers with a SiLU between (Ho et al. 2020, appendix B).

    Args:
        channels: number of sinusoids, even.
        dim: width of the embedding.
    """

    frequencies: Tensor

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        half = channels // 2
        frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float64) / half)
        self.register_buffer("frequencies", frequencies.float(), persistent=False)
        self.mlp = nn.Sequential(nn.Linear(2 * half, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        """``(batch,)`` int64 -> ``(batch, dim)``."""
        angle = t.float()[:, None] * self.frequencies
        return self.mlp(torch.cat([angle.cos(), angle.sin()], dim=-1))


class TimestepEmbedSequential(nn.Sequential):
    """A sequence whose residual blocks also receive the embedding of the diffusion step."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """``(batch, channel, frame)`` and ``(batch, emb)`` -> ``(batch, channel, frame)``."""
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


class Conv3(nn.Conv1d):
    """Convolution with 3 taps that keeps the number of frames (rounded up after a stride).

    Args:
        in_channels: channels in.
        out_channels: channels out.
        padding: frames added on each side; the taps lie as far apart, which is what keeps the length.
        padding_mode: ``zeros``, ``reflect``, ``replicate`` or ``circular``.
        stride: 1, or 2 to halve the number of frames.
    """

    def __init__(self, in_channels: int, out_channels: int, padding: int, padding_mode: PaddingMode, stride: int = 1) -> None:
        super().__init__(
            in_channels, out_channels, 3, stride=stride, padding=padding, dilation=padding, padding_mode=padding_mode
        )


class Downsample(nn.Module):
    """Half as many frames (rounded up), by strided convolution or by averaging pairs.

    Args:
        channels: channels in and out.
        conv: convolution if true, average if false.
        padding: of the convolution, as in `Conv3`.
        padding_mode: as in `Conv3`.
    """

    def __init__(self, channels: int, conv: bool, padding: int, padding_mode: PaddingMode) -> None:
        super().__init__()
        self.op = (
            Conv3(channels, channels, padding, padding_mode, stride=2)
            if conv
            else nn.AvgPool1d(2, ceil_mode=True, count_include_pad=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channel, frame)`` -> ``(batch, channel, ceil(frame / 2))``."""
        return self.op(x)


class Upsample(nn.Module):
    """Twice as many frames, by repeating each, then by a convolution if ``conv``.

    Args:
        channels: channels in and out.
        conv: whether a convolution follows.
        padding: of the convolution, as in `Conv3`.
        padding_mode: as in `Conv3`.
    """

    def __init__(self, channels: int, conv: bool, padding: int, padding_mode: PaddingMode) -> None:
        super().__init__()
        self.op = Conv3(channels, channels, padding, padding_mode) if conv else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channel, frame)`` -> ``(batch, channel, 2 frame)``."""
        return self.op(x.repeat_interleave(2, dim=-1))


class ResBlock(nn.Module):
    """Two convolutions around the embedding of the diffusion step, added to the input.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        emb_dim: width of the embedding.
        dropout: probability, before the last convolution.
        use_scale_shift_norm: the embedding scales and shifts the normalised features (FiLM); otherwise it is added to them.
        padding: as in `Conv3`.
        padding_mode: as in `Conv3`.
        resample: a `Downsample` or `Upsample` without weights, applied to both branches, or None.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_dim: int,
        dropout: float,
        use_scale_shift_norm: bool,
        padding: int,
        padding_mode: PaddingMode,
        resample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.use_scale_shift_norm = use_scale_shift_norm
        self.resample = nn.Identity() if resample is None else resample
        self.norm1 = group_norm(in_channels)
        self.conv1 = Conv3(in_channels, out_channels, padding, padding_mode)
        self.emb = nn.Linear(emb_dim, 2 * out_channels if use_scale_shift_norm else out_channels)
        self.norm2 = group_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero(Conv3(out_channels, out_channels, padding, padding_mode))
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv1d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """``(batch, in_channels, frame)`` and ``(batch, emb_dim)`` -> ``(batch, out_channels, frame)``."""
        h = self.conv1(self.resample(F.silu(self.norm1(x))))
        e = self.emb(F.silu(emb))[:, :, None]
        if self.use_scale_shift_norm:
            scale, shift = e.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        else:
            h = self.norm2(h + e)
        return self.skip(self.resample(x)) + self.conv2(self.dropout(F.silu(h)))


class SelfAttention(nn.Module):
    """Multi-head attention between the frames of a clip, added to the input.

    Args:
        channels: channels in and out.
        num_heads: number of heads, divides channels.
        frames: number of frames here in training. For n frames the logits are scaled by log(n) / log(frames), which keeps the
            sharpness of attention when clips of another length are sampled (Chiang & Cholak 2022).
    """

    def __init__(self, channels: int, num_heads: int, frames: int) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"model.num_heads={num_heads} must divide the {channels} channels of an attention layer")
        self.num_heads = num_heads
        self.frames = frames
        self.norm = group_norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj = zero(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, frame)`` -> the same shape."""
        heads = self.qkv(self.norm(x)).unflatten(1, (3, self.num_heads, -1)).transpose(-1, -2)
        q, k, v = heads.unbind(1)
        scale = math.log(max(x.shape[-1], 2)) / math.log(max(self.frames, 2)) / math.sqrt(q.shape[-1])
        h = F.scaled_dot_product_attention(q, k, v, scale=scale)
        return x + self.proj(h.transpose(-1, -2).flatten(1, 2))


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with up to 32 groups of at least 4 channels."""
    return nn.GroupNorm(math.gcd(32, max(channels // 4, 1)), channels)


def zero(layer: nn.Conv1d) -> nn.Conv1d:
    """The layer with all weights 0: a residual branch that starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
