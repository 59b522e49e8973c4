"""MotionTransformer: a temporal transformer with one token per frame."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.networks.blocks import (
    MOST,
    InputAmplitude,
    TimeEmbedding,
    attend,
    frequencies,
    mask_of_frames,
    masked,
    require,
    to_channels,
    zero,
)


class MotionTransformer(nn.Module):
    """Transformer over frames, conditioned by adaLN-zero; all joints of a frame are one token.

    One token per frame as in MDM (Tevet et al. 2022), blocks as in DiT (Peebles & Xie 2023, section 3.2), rotary positions
    (Su et al. 2021) and normalised queries and keys as in ACMDM (Meng et al. 2025). A learned token before the first frame, where
    the root is at the origin, makes the distance from the start visible: rotary positions alone are relative, which leaves the
    frames of pure noise indistinguishable.

    Args:
        frames: number of frames it is trained for; other numbers work too (see `attend`).
        in_channels: joints times coords, as ``out_channels``.
        model_channels: width of a token, a multiple of 2 num_heads.
        depth: number of blocks.
        mlp_ratio: width inside a block's MLP as a multiple of model_channels.
        dropout: probability, on both branches of every block.
        clip_dim: width of the condition of a clip (text, class, ...), None for none.
        input_amplitude: see `ddpm.networks.blocks.InputAmplitude`.

    Raises:
        ValueError: a value outside its limits, named with its key.
    """

    frequencies: Tensor

    def __init__(
        self,
        frames: int,
        in_channels: int,
        model_channels: int,
        out_channels: int,
        depth: int,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        clip_dim: int | None = None,
        input_amplitude: bool = False,
    ) -> None:
        super().__init__()
        for key, value in {"in_channels": in_channels, "out_channels": out_channels, "depth": depth}.items():
            require(0 < value <= MOST[key], key, value, f"positive, and at most {MOST[key]}")
        for key, value in {"frames": frames, "num_heads": num_heads}.items():
            require(value > 0, key, value, "positive")
        even = model_channels > 0 and model_channels % (2 * num_heads) == 0
        require(even, "model_channels", model_channels, f"a positive multiple of {2 * num_heads}, 2 x num_heads")
        least = 1 / model_channels
        require(least <= mlp_ratio <= 1000, "mlp_ratio", mlp_ratio, f"at least 1 / model_channels = {least:.3g}, at most 1000")
        hidden = int(mlp_ratio * model_channels)
        require(0 <= dropout < 1, "dropout", dropout, "in [0, 1)")
        require(clip_dim is None or clip_dim > 0, "clip_dim", clip_dim, "positive, or null")
        fits = not input_amplitude or out_channels >= in_channels
        require(fits, "input_amplitude", True, "false with fewer outputs than inputs")
        self.in_channels = in_channels

        self.register_buffer("frequencies", frequencies(model_channels // num_heads // 2), persistent=False)
        emb_dim = 4 * model_channels  # costs next to no time: it is used once per clip, not once per frame
        self.time_embed = TimeEmbedding(model_channels, emb_dim, clip_dim)
        self.amplitude = InputAmplitude(in_channels, emb_dim) if input_amplitude else None
        self.inp = nn.Linear(in_channels, model_channels)
        self.start = nn.Parameter(torch.randn(model_channels))
        self.blocks = nn.ModuleList(Block(model_channels, emb_dim, num_heads, hidden, dropout, frames + 1) for _ in range(depth))
        self.norm = layer_norm(model_channels)
        self.emb = zero(nn.Linear(emb_dim, 2 * model_channels))
        self.out = zero(nn.Linear(model_channels, out_channels))

    def forward(self, xt: Tensor, t: Tensor, cond: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """The network's output for a noisy clip.

        Args:
            xt: ``(batch, ..., frame)``, the axes between are its channels: joints and coords.
            t: ``(batch,)`` int64, diffusion step.
            cond: ``(batch, clip_dim)``, or None.
            mask: ``(batch, 1, 1, frame)``, 1 where a frame is real, 0 where it is padded; None where all are real.

        Returns:
            ``(batch, ..., frame)``, shaped like xt if out_channels = in_channels, else ``(batch, out_channels, frame)``.

        Raises:
            ValueError: a wrong number of channels, or a condition without clip_dim.
        """
        x = to_channels(xt, self.in_channels)
        h = self.inp(x.transpose(1, 2))
        h = torch.cat([self.start.to(h).expand(h.shape[0], 1, -1), h], dim=1)
        real = mask_of_frames(mask)
        tokens = None if real is None else F.pad(real, (1, 0), value=1)
        whole = self.time_embed(t, cond)
        if self.amplitude is not None:
            whole = whole + self.amplitude.embed(x, real)
        emb = F.silu(whole)[:, None]
        angle = torch.arange(h.shape[1], device=h.device)[:, None] * self.frequencies
        for block in self.blocks:
            h = block(h, emb, angle, tokens)
        shift, scale = self.emb(emb).chunk(2, dim=-1)
        h = self.out(torch.addcmul(shift, self.norm(h[:, 1:]), 1 + scale)).transpose(1, 2)
        if self.amplitude is not None:
            h = self.amplitude(h, x, whole)
        h = masked(h, real)
        return h.reshape(xt.shape) if h.shape[1] == self.in_channels else h


class Block(nn.Module):
    """Attention and an MLP, each gated and added, on normalised features that the embedding scales and shifts (adaLN-zero)."""

    def __init__(self, channels: int, emb_dim: int, num_heads: int, hidden: int, dropout: float, tokens: int) -> None:
        super().__init__()
        self.emb = zero(nn.Linear(emb_dim, 6 * channels))  # all gates start at 0, so a block starts as the identity
        self.norm1 = layer_norm(channels)
        self.attention = RotaryAttention(channels, num_heads, tokens)
        self.norm2 = layer_norm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, emb: Tensor, angle: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, token, channels)``, ``(batch, 1, emb_dim)``, angles and mask as in `RotaryAttention` -> shaped like x."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.emb(emb).chunk(6, dim=-1)
        h = self.attention(torch.addcmul(shift1, self.norm1(x), 1 + scale1), angle, mask)
        x = torch.addcmul(x, gate1, self.dropout(h))
        h = self.mlp(torch.addcmul(shift2, self.norm2(x), 1 + scale2))
        return torch.addcmul(x, gate2, self.dropout(h))


class RotaryAttention(nn.Module):
    """Multi-head attention whose logits depend on the distance between two tokens and on no absolute position.

    Queries and keys have the mean square 1, and each head one learned gain, which bounds the logits in training (Henry et al.
    2020; Dehghani et al. 2023, section 2). ``tokens`` is their number in training, see `attend`.
    """

    def __init__(self, channels: int, num_heads: int, tokens: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.tokens = tokens
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)  # the shift before it already gives each clip its bias
        self.gain = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, angle: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, token, channels)``, ``(token, half the width of a head)``, ``(batch, 1, token)`` -> shaped like x."""
        h = attend(*self.heads(x, angle), self.tokens, mask)
        return self.proj(h.transpose(1, 2).flatten(2))

    def heads(self, x: Tensor, angle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, normalised and rotated, and values: each ``(batch, head, token, width of a head)``.

        ``angle`` is the position of each token times each frequency.
        """
        heads = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotate(F.rms_norm(heads[:2], heads.shape[-1:], eps=1e-6), angle.cos(), angle.sin()).unbind()
        return self.gain * q, k, heads[2]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (channel i, channel i + half) by its angle, equation 34 of Su et al. 2021 with the channels reordered.

    x is ``(..., token, channel)``, cosine and sine of the angles are ``(token, channel / 2)``.
    """
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def layer_norm(channels: int) -> nn.LayerNorm:
    """Layer normalisation without a scale and a shift of its own."""
    return nn.LayerNorm(channels, eps=1e-6, elementwise_affine=False)
