"""Building blocks of the networks, on tensors ``(batch, channel, frame)``.

A layer that mixes frames takes a ``mask`` ``(batch, 1, frame)``, 1 where a frame is real and 0 where it is padding, or None where
all are real. The values of padded frames have no meaning, in inputs and outputs, and no influence on real frames.
"""

import math
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
Layer = TypeVar("Layer", nn.Conv1d, nn.Linear)
MOST = {"in_channels": 10_000, "out_channels": 20_000, "depth": 1000, "num_res_blocks": 100, "padding": 1000}
"""Of what is built piece by piece, or tried out; widths are limited by memory."""


class TimeEmbedding(nn.Module):
    """An even number of sinusoids of the diffusion step, then two linear layers with a SiLU between (Ho et al. 2020, appendix B).

    A linear layer of the condition of width ``clip_dim`` is added.
    """

    frequencies: Tensor

    def __init__(self, channels: int, dim: int, clip_dim: int | None = None) -> None:
        super().__init__()
        half = channels // 2
        self.register_buffer("frequencies", frequencies(half), persistent=False)
        self.mlp = nn.Sequential(nn.Linear(2 * half, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.clip = None if clip_dim is None else nn.Linear(clip_dim, dim)

    def forward(self, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """``(batch,)`` int64 and ``(batch, clip_dim)`` or None -> ``(batch, dim)``; a ValueError if clip_dim is None."""
        angle = t.float()[:, None] * self.frequencies
        emb = self.mlp(torch.cat([angle.cos(), angle.sin()], dim=-1))
        if cond is None:
            return emb
        if self.clip is None:
            raise ValueError("a condition was given to a network without one; set model.clip_dim to its width")
        return emb + self.clip(cond)


class InputAmplitude(nn.Module):
    """The amplitude of each channel of the input, which normalisation layers remove.

    Without it a network cannot tell how much of a noisy clip is motion, and gives all clips the average amount. The root mean
    square of every channel is added to the embedding, and a share of the input, computed from the embedding for each channel, is
    added to the output, which has at least as many channels.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(channels, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.share = zero(nn.Linear(dim, channels))

    def embed(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, channels, frame)`` -> ``(batch, dim)``, from real frames alone."""
        square = masked(x.to(torch.promote_types(x.dtype, torch.float32)).square(), mask).sum(dim=-1)
        count = x.shape[-1] if mask is None else mask.sum(dim=-1)
        return self.mlp(((square / count + 1e-4).log() / 2).to(x.dtype))

    def forward(self, output: Tensor, x: Tensor, emb: Tensor) -> Tensor:
        """``(batch, out_channels, frame)`` with a share of the input x added to its first channels; emb is ``(batch, dim)``."""
        share = F.pad(self.share(F.silu(emb))[:, :, None] * x, (0, 0, 0, output.shape[1] - x.shape[1]))
        return output + share


class TimestepEmbedSequential(nn.Sequential):
    """A sequence whose residual blocks also receive the embedding of the diffusion step."""

    def forward(self, x: Tensor, emb: Tensor, mask: Tensor | None = None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """``(batch, channel, frame)``, ``(batch, emb)`` and a mask -> ``(batch, channel, frame)``."""
        for layer in self:
            x = layer(x, emb, mask) if isinstance(layer, ResBlock) else layer(x, mask)
        return x


class Conv3(nn.Conv1d):
    """Convolution with 3 taps, as far apart as ``padding``, so that the number of frames is kept, or halved by stride 2."""

    def __init__(self, in_channels: int, out_channels: int, padding: int, padding_mode: PaddingMode, stride: int = 1) -> None:
        super().__init__(
            in_channels, out_channels, 3, stride=stride, padding=padding, dilation=padding, padding_mode=padding_mode
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """``(batch, in_channels, frame)`` -> ``(batch, out_channels, ceil(frame / stride))``."""
        return super().forward(masked(x, mask))


class GroupNorm(nn.GroupNorm):
    """Group normalisation over channels and real frames, with up to 32 groups of at least 4 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__(math.gcd(32, max(channels // 4, 1)), channels)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """``(batch, channels, frame)`` -> the same shape."""
        if mask is None:
            return super().forward(x)
        # One factor and one summand a channel, around the first frame, so that the variance keeps its digits far from 0: half as
        # many passes over the clips as to centre and to scale them.
        x, parts = x.to(torch.promote_types(x.dtype, torch.float32)), (self.num_groups, -1)
        each = self.num_channels // self.num_groups
        near = x[:, :, 0].detach().unflatten(1, parts).mean(dim=2).repeat_interleave(each, dim=1)
        x = x - near[:, :, None]
        real = masked(x, mask).flatten(1).unflatten(1, parts)
        count = mask.to(x).sum(dim=-1) * each
        mean = real.sum(dim=2) / count
        var = (real.square().sum(dim=2) / count - mean.square()).clamp(min=0)
        scale = (var + self.eps).rsqrt()[:, :, None] * self.weight.unflatten(0, parts)
        shift = self.bias.unflatten(0, parts) - mean[:, :, None] * scale
        return torch.addcmul(shift.flatten(1)[:, :, None], x, scale.flatten(1)[:, :, None])


class Downsample(nn.Module):
    """Half as many frames (rounded up), by strided convolution if ``conv``, else by the mean of the real frames of each pair."""

    def __init__(self, channels: int, conv: bool, padding: int, padding_mode: PaddingMode) -> None:
        super().__init__()
        self.op = Conv3(channels, channels, padding, padding_mode, stride=2) if conv else None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, channel, frame)`` -> ``(batch, channel, ceil(frame / 2))``."""
        if self.op is not None:
            return self.op(x, mask)
        mean = F.avg_pool1d(masked(x, mask), 2, ceil_mode=True, count_include_pad=False)
        if mask is None:
            return mean
        return mean / F.avg_pool1d(mask.to(x), 2, ceil_mode=True, count_include_pad=False).clamp(min=0.5)

    def mask(self, mask: Tensor | None) -> Tensor | None:
        """The mask of the output."""
        return halved(mask)


class Upsample(nn.Module):
    """Twice as many frames, by repeating each, followed by a convolution if ``conv``."""

    def __init__(self, channels: int, conv: bool, padding: int, padding_mode: PaddingMode) -> None:
        super().__init__()
        self.conv = Conv3(channels, channels, padding, padding_mode) if conv else None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, channel, frame)`` -> ``(batch, channel, 2 frame)``; ``mask`` is that of the frames going in."""
        h = x.repeat_interleave(2, dim=-1)
        return h if self.conv is None else self.conv(h, self.mask(mask))

    def mask(self, mask: Tensor | None) -> Tensor | None:
        """The mask of the output."""
        return None if mask is None else mask.repeat_interleave(2, dim=-1)


class ResBlock(nn.Module):
    """Two convolutions around the embedding of the diffusion step, added to the input.

    With ``use_scale_shift_norm`` the embedding scales and shifts the normalised features (FiLM); otherwise it is added to them.
    ``resample`` has no weights and acts on both branches.
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
        resample: Downsample | Upsample | None = None,
    ) -> None:
        super().__init__()
        self.use_scale_shift_norm = use_scale_shift_norm
        self.resample = resample
        self.norm1 = GroupNorm(in_channels)
        self.conv1 = Conv3(in_channels, out_channels, padding, padding_mode)
        self.emb = nn.Linear(emb_dim, 2 * out_channels if use_scale_shift_norm else out_channels)
        self.norm2 = GroupNorm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero(Conv3(out_channels, out_channels, padding, padding_mode))
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv1d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, in_channels, frame)`` and ``(batch, emb_dim)`` -> ``(batch, out_channels, frame)``."""
        h = F.silu(self.norm1(x, mask))
        if self.resample is not None:
            h, x, mask = self.resample(h, mask), self.resample(x, mask), self.resample.mask(mask)
        h = self.conv1(h, mask)
        e = self.emb(F.silu(emb))[:, :, None]
        if self.use_scale_shift_norm:
            scale, shift = e.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm2(h, mask), 1 + scale)
        else:
            h = self.norm2(h + e, mask)
        return self.skip(x) + self.conv2(self.dropout(F.silu(h)), mask)


class SelfAttention(nn.Module):
    """Multi-head attention between the frames of a clip, ``frames`` in training (see `attend`), added to the input."""

    def __init__(self, channels: int, num_heads: int, frames: int) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"model.num_heads={num_heads} must divide the {channels} channels of an attention layer")
        self.num_heads = num_heads
        self.frames = frames
        self.norm = GroupNorm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj = zero(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, channels, frame)`` -> the same shape."""
        heads = self.qkv(self.norm(x, mask)).unflatten(1, (3, self.num_heads, -1)).transpose(-1, -2)
        q, k, v = heads.contiguous().unbind(1)  # fused kernels of attention need the width of a head as the innermost axis
        h = attend(q, k, v, self.frames, mask)
        return x + self.proj(h.transpose(-1, -2).flatten(1, 2))


def frequencies(n: int) -> Tensor:
    """``(n,)`` float32: from 1 down towards 1/10000 in even ratios, of sinusoids and of rotations."""
    # torch.arange and torch.exp would load torch's compiler on the meta device: a second of every start.
    return torch.logspace(0, -4, n + 1, dtype=torch.float64)[:n].float()


def attend(q: Tensor, k: Tensor, v: Tensor, tokens: int, mask: Tensor | None) -> Tensor:
    """Attention between real tokens whose logits are multiplied by log(n) / log(tokens) for a clip of n of them.

    That keeps attention as sharp as in training where clips have another length (Chiang & Cholak 2022, section 5.3); ``tokens``
    is that of a whole clip in training. Queries, keys, values and result are ``(batch, head, token, width of a head)``.
    """
    trained = math.log(max(tokens, 2))
    if mask is None:
        scale = math.log(max(q.shape[-2], 2)) / trained / math.sqrt(q.shape[-1])
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    n = mask.sum(dim=-1, dtype=torch.promote_types(q.dtype, torch.float32)).clamp(min=2)[:, :, None, None]
    return F.scaled_dot_product_attention(q * (n.log() / trained).to(q), k, v, attn_mask=mask.bool()[:, None])


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """``(batch, channel, frame)`` with 0 in padded frames."""
    return x if mask is None else x * mask.to(x)


def halved(mask: Tensor | None) -> Tensor | None:
    """The mask of half as many frames (rounded up)."""
    return None if mask is None else mask[..., ::2]


def zero(layer: Layer) -> Layer:
    """The layer with all weights 0: a residual branch that starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def mask_of_frames(mask: Tensor | None) -> Tensor | None:
    """A mask ``(batch, ..., frame)`` that is the same for all joints and coordinates as ``(batch, 1, frame)``."""
    return None if mask is None else mask.flatten(1, -2)[:, :1]


def to_channels(xt: Tensor, channels: int) -> Tensor:
    """A clip ``(batch, ..., frame)`` as ``(batch, channels, frame)``; a ValueError for another number of channels."""
    h = xt.flatten(1, -2)
    if h.shape[1] != channels:
        raise ValueError(f"the network takes {channels} channels (joints x coords), got {tuple(xt.shape)}")
    return h


def require(good: bool, key: str, value: object, limit: str) -> None:
    """Raise a ValueError that names the argument of a network, its value and its limit, unless ``good``."""
    if not good:
        raise ValueError(f"model.{key}={value} must be {limit}")
