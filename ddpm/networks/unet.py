"""MDM_UNetModel: a temporal UNet with attention."""

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from ddpm.networks.blocks import (
    MOST,
    Conv3,
    Downsample,
    GroupNorm,
    InputAmplitude,
    PaddingMode,
    ResBlock,
    SelfAttention,
    TimeEmbedding,
    TimestepEmbedSequential,
    Upsample,
    halved,
    mask_of_frames,
    masked,
    require,
    to_channels,
    zero,
)


class MDM_UNetModel(nn.Module):
    """UNet over frames; joints and coordinates together are its channels (guided-diffusion, Dhariwal & Nichol 2021).

    Args:
        image_size: number of frames it is trained for; other numbers work too (see `SelfAttention`).
        in_channels: joints times coords, as ``out_channels``.
        model_channels: width of the first level, a multiple of 4.
        num_res_blocks: residual blocks per level.
        attention_resolutions: downsampling rates (1, 2, 4, ...) at which attention acts.
        channel_mult: width of each level as a multiple of model_channels; the number of levels.
        conv_resample: resample between levels by convolution, otherwise by averaging and repeating; or, with
            ``resblock_updown``, in a residual block.
        use_scale_shift_norm: how the diffusion step enters a residual block, see `ResBlock`.
        padding: frames of padding of every `Conv3`. With the ``padding_mode`` circular the network is equivariant to cyclic
            shifts by multiples of its stride.
        clip_dim: width of the condition of a clip (text, class, ...), None for none.
        input_amplitude: see `InputAmplitude`.

    Raises:
        ValueError: a value outside its limits, named with its key.
    """

    def __init__(
        self,
        image_size: int,
        in_channels: int,
        model_channels: int,
        out_channels: int,
        num_res_blocks: int,
        attention_resolutions: Sequence[int],
        dropout: float = 0.0,
        channel_mult: Sequence[int] = (1, 2, 4),
        conv_resample: bool = True,
        num_heads: int = 4,
        use_scale_shift_norm: bool = True,
        resblock_updown: bool = False,
        padding: int = 1,
        padding_mode: PaddingMode = "zeros",
        clip_dim: int | None = None,
        input_amplitude: bool = False,
    ) -> None:
        super().__init__()
        require(len(channel_mult) <= 16, "channel_mult", len(channel_mult), "at most 16 levels")
        self.stride = 2 ** (len(channel_mult) - 1)
        enough = f"at least {self.stride}, the stride of the network: give more frames, or fewer levels in model.channel_mult"
        require(image_size >= self.stride, "image_size", image_size, enough)
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "num_res_blocks": num_res_blocks, "padding": padding}
        for key, value in sizes.items():
            require(0 < value <= MOST[key], key, value, f"positive, and at most {MOST[key]}")
        require(model_channels > 0 and model_channels % 4 == 0, "model_channels", model_channels, "a positive multiple of 4")
        require(0 <= dropout < 1, "dropout", dropout, "in [0, 1)")
        require(len(channel_mult) > 0 and min(channel_mult) > 0, "channel_mult", channel_mult, "a list of positive numbers")
        rates = [2**level for level in range(len(channel_mult))]
        among = f"among {rates}, the rates of the levels in model.channel_mult"
        require(set(attention_resolutions) <= set(rates), "attention_resolutions", attention_resolutions, among)
        require(num_heads > 0, "num_heads", num_heads, "positive")
        require(padding_mode in get_args(PaddingMode), "padding_mode", padding_mode, f"one of {get_args(PaddingMode)}")
        require(clip_dim is None or clip_dim > 0, "clip_dim", clip_dim, "positive, or null")
        fits = not input_amplitude or out_channels >= in_channels
        require(fits, "input_amplitude", True, "false with fewer outputs than inputs")
        self.levels = len(channel_mult)
        self.in_channels = in_channels
        self.padding = padding
        self.padding_mode = padding_mode

        emb_dim = 4 * model_channels
        self.time_embed = TimeEmbedding(model_channels, emb_dim, clip_dim)
        self.amplitude = InputAmplitude(in_channels, emb_dim) if input_amplitude else None

        def res_block(in_ch: int, out_ch: int, resample: Downsample | Upsample | None = None) -> ResBlock:
            return ResBlock(in_ch, out_ch, emb_dim, dropout, use_scale_shift_norm, padding, padding_mode, resample)

        def level_block(in_ch: int, out_ch: int, rate: int) -> list[nn.Module]:
            attention = [SelfAttention(out_ch, num_heads, -(-image_size // rate))] if rate in attention_resolutions else []
            return [res_block(in_ch, out_ch), *attention]

        def resampler(kind: type[Downsample] | type[Upsample], ch: int) -> nn.Module:
            if resblock_updown:
                return res_block(ch, ch, kind(ch, False, padding, padding_mode))
            return kind(ch, conv_resample, padding, padding_mode)

        ch = model_channels * channel_mult[0]
        skips = [ch]
        self.input_blocks = nn.ModuleList([TimestepEmbedSequential(Conv3(in_channels, ch, padding, padding_mode))])
        for level, mult in enumerate(channel_mult):
            if level > 0:
                self.input_blocks.append(TimestepEmbedSequential(resampler(Downsample, ch)))
                skips.append(ch)
            for _ in range(num_res_blocks):
                self.input_blocks.append(TimestepEmbedSequential(*level_block(ch, mult * model_channels, rates[level])))
                ch = mult * model_channels
                skips.append(ch)

        self.middle_block = TimestepEmbedSequential(
            res_block(ch, ch), SelfAttention(ch, num_heads, -(-image_size // self.stride)), res_block(ch, ch)
        )

        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(channel_mult))):
            for i in range(num_res_blocks + 1):
                layers = level_block(ch + skips.pop(), mult * model_channels, rates[level])
                ch = mult * model_channels
                if level > 0 and i == num_res_blocks:
                    layers.append(resampler(Upsample, ch))
                self.output_blocks.append(TimestepEmbedSequential(*layers))

        self.out = nn.Sequential(GroupNorm(ch), nn.SiLU(), zero(Conv3(ch, out_channels, padding, padding_mode)))

    def forward(self, xt: Tensor, t: Tensor, cond: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """The network's output for a noisy clip.

        Arguments and result are those of `ddpm.networks.transformer.MotionTransformer.forward`.

        Raises:
            ValueError: a wrong number of channels, more padding than frames, frames that break circular padding, a condition
                without clip_dim, or a mask with padding_mode other than zeros.
        """
        h = to_channels(xt, self.in_channels)
        frames = h.shape[-1]
        if self.padding_mode == "circular" and frames % self.stride:
            raise ValueError(
                f"frames={frames}: with padding_mode=circular the number of frames must be a multiple of {self.stride}"
            )
        coarsest = -(-frames // self.stride)
        if self.padding_mode in ("circular", "reflect") and coarsest < self.padding + (self.padding_mode == "reflect"):
            raise ValueError(f"frames={frames} leaves {coarsest} at the coarsest level, too few to pad by {self.padding}")
        if mask is not None and self.padding_mode != "zeros":
            raise ValueError(
                f"model.padding_mode={self.padding_mode}: clips shorter than frames={frames} end in zeros; use "
                "padding_mode=zeros, or as few frames as the shortest recording has"
            )

        x, real = h, mask_of_frames(mask)
        masks = {frames: real}  # by the number of frames of a level
        while len(masks) < self.levels and frames > 1:
            masks[-(-frames // 2)] = halved(masks[frames])
            frames = -(-frames // 2)
        emb = self.time_embed(t, cond)
        if self.amplitude is not None:
            emb = emb + self.amplitude.embed(x, real)
        skips: list[Tensor] = []
        for block in self.input_blocks:
            h = block(h, emb, masks[h.shape[-1]])
            skips.append(h)
        h = self.middle_block(h, emb, masks[h.shape[-1]])
        for block in self.output_blocks:
            skip = skips.pop()
            # Halving rounds up, so doubling can give one frame too many where the number of frames was odd.
            h = block(torch.cat([h[..., : skip.shape[-1]], skip], dim=1), emb, masks[skip.shape[-1]])
        norm, activation, conv = self.out
        h = conv(activation(norm(h, real)), real)
        if self.amplitude is not None:
            h = self.amplitude(h, x, emb)
        h = masked(h, real)
        return h.view(xt.shape) if h.shape[1] == self.in_channels else h
