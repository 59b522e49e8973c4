"""MDM_UNetModel: its sizes, its paddings, and attention is attention. What both networks promise is in test_networks."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from ddpm.networks.blocks import SelfAttention, TimeEmbedding
from ddpm.networks.unet import MDM_UNetModel
from tests.networks.test_networks import CASES, clip, network

unet = partial(network, "unet")


def test_sizes_are_what_the_arguments_say() -> None:
    changes = {"channel_mult": [1, 2, 3], "num_res_blocks": 2, "attention_resolutions": [1, 4]}
    network = MDM_UNetModel(**CASES["unet"].base | changes)
    # One convolution, and per level the residual blocks; between levels one block that resamples.
    assert len(network.input_blocks) == 1 + 3 * 2 + 2 and len(network.output_blocks) == 3 * 3
    where = [i for i, block in enumerate(network.input_blocks) if any(isinstance(m, SelfAttention) for m in block)]
    assert where == [1, 2, 7, 8]
    frames = [m.frames for m in network.modules() if isinstance(m, SelfAttention)]
    assert frames == [16] * 2 + [4] * 6 + [16] * 3
    assert network.input_blocks[0][0].weight.shape == (8, 6, 3) and network.out[-1].weight.shape == (6, 8, 3)
    assert isinstance(network.out[0], nn.GroupNorm) and isinstance(network.out[1], nn.SiLU)
    linear1, silu, linear2 = network.time_embed.mlp
    assert isinstance(silu, nn.SiLU) and linear1.out_features == linear2.in_features == linear2.out_features == 32


# --- frames


@pytest.mark.parametrize("changes", [{}, {"conv_resample": False}, {"resblock_updown": True}, {"padding": 2}])
def test_circular_padding_is_equivariant_to_shifts_by_the_stride(changes: dict[str, Any]) -> None:
    xt, t = clip()
    xt, network = xt.double(), unet(channel_mult=[1, 2, 2], padding_mode="circular", **changes).double()
    out = network(xt, t)
    for shift in (4, 8, 12):
        torch.testing.assert_close(network(xt.roll(shift, -1), t), out.roll(shift, -1))
    assert (network(xt.roll(1, -1), t) - out.roll(1, -1)).abs().max() > 1e-3


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate"])
def test_other_paddings_know_the_ends(padding_mode: str) -> None:
    xt, t = clip()
    network = unet(padding_mode=padding_mode)
    assert (network(xt.roll(4, -1), t) - network(xt, t).roll(4, -1)).abs().max() > 1e-2


def test_frames_that_the_padding_cannot_serve_are_refused() -> None:
    for frames in (5, 15):
        with pytest.raises(ValueError, match=rf"frames={frames}.*circular.*multiple of 2"):
            unet(padding_mode="circular")(*clip(frames=frames))
    with pytest.raises(ValueError, match=r"frames=6 leaves 3 .*pad by 4"):
        unet(padding_mode="circular", padding=4)(*clip(frames=6))
    with pytest.raises(ValueError, match=r"frames=2 leaves 1 .*pad by 1"):
        unet(padding_mode="reflect")(*clip(frames=2))
    assert unet(padding_mode="circular", padding=3)(*clip(frames=6)).shape == (2, 3, 2, 6)
    assert unet(padding_mode="reflect")(*clip(frames=3)).shape == (2, 3, 2, 3)


# --- blocks


def attention(channels: int, heads: int, frames: int) -> SelfAttention:
    torch.manual_seed(0)
    layer = SelfAttention(channels, heads, frames)
    nn.init.normal_(layer.proj.weight, std=0.3)
    nn.init.normal_(layer.proj.bias)
    return layer.double()


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_torchs_multi_head_attention(heads: int) -> None:
    layer = attention(16, heads, 10)
    x = torch.randn(3, 16, 10, dtype=torch.float64)
    reference = nn.MultiheadAttention(16, heads, batch_first=True).double()
    reference.load_state_dict({
        "in_proj_weight": layer.qkv.weight[..., 0],
        "in_proj_bias": layer.qkv.bias,
        "out_proj.weight": layer.proj.weight[..., 0],
        "out_proj.bias": layer.proj.bias,
    })  # fmt: skip
    h = layer.norm(x).transpose(1, 2)
    torch.testing.assert_close(layer(x), x + reference(h, h, h, need_weights=False)[0].transpose(1, 2))


@pytest.mark.parametrize(("trained", "frames"), [(10, 40), (10, 3), (1, 7), (7, 1)])
def test_attention_keeps_its_sharpness_at_other_lengths(trained: int, frames: int) -> None:
    """Logits times log(n) / log(n_trained), written out; a length of 1 counts as 2, so that nothing is divided by 0."""
    layer = attention(8, 2, trained)
    x = torch.randn(2, 8, frames, dtype=torch.float64)
    q, k, v = layer.qkv(layer.norm(x)).view(2, 3, 2, 4, frames).unbind(1)
    logits = torch.einsum("bhdi,bhdj->bhij", q, k) / 4**0.5 * math.log(max(frames, 2)) / math.log(max(trained, 2))
    h = torch.einsum("bhij,bhdj->bhdi", logits.softmax(-1), v).reshape(2, 8, frames)
    torch.testing.assert_close(layer(x), x + layer.proj(h))


def test_time_embedding_tells_all_steps_apart() -> None:
    """cos(t w_k), sin(t w_k) with w_k from 1 down towards 1/10000 in even ratios; the two linear layers are bypassed."""
    embedding = TimeEmbedding(8, 16)
    embedding.mlp = nn.Identity()
    t = torch.arange(1000)
    got = embedding(t)
    for k in range(4):
        angle = t.double() * 10000 ** (-k / 4)
        torch.testing.assert_close(got[:, k].double(), angle.cos(), rtol=0, atol=1e-4)
        torch.testing.assert_close(got[:, 4 + k].double(), angle.sin(), rtol=0, atol=1e-4)
    assert torch.cdist(got, got).fill_diagonal_(9).min() > 1e-3
