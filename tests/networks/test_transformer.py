"""MotionTransformer: positions count relative to each other only. What both networks promise is in test_networks."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.networks.blocks import frequencies
from ddpm.networks.transformer import Block, RotaryAttention, rotate
from tests.networks.test_networks import clip, network

transformer = partial(network, "transformer")


def attention(width: int = 8, heads: int = 2, frames: int = 16) -> RotaryAttention:
    """An attention whose heads have gains, in float64."""
    torch.manual_seed(0)
    layer = RotaryAttention(heads * width, heads, frames).double()
    nn.init.uniform_(layer.gain, 0.5, 1.5)
    return layer


def angles(positions: Tensor, width: int = 8) -> Tensor:
    """``(frame,)`` -> ``(frame, width / 2)`` float64."""
    return positions.double()[:, None] * frequencies(width // 2).double()


def test_a_new_block_is_the_identity() -> None:
    x, emb = torch.randn(2, 5, 16), torch.randn(2, 1, 12)
    assert torch.equal(Block(16, 12, 2, 32, 0.1, 16)(x, emb, torch.zeros(5, 4)), x)


# --- frames


def test_the_order_of_frames_matters() -> None:
    """Without positions a transformer would be equivariant: permuted frames in, the same output permuted."""
    network = transformer()
    xt, t = clip()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    out = network(xt, t)
    assert (network(xt[..., order], t) - out[..., order]).abs().max() > 1e-2 * out.abs().max()
    network.frequencies.zero_()
    torch.testing.assert_close(network(xt[..., order], t), network(xt, t)[..., order])


def test_frames_alike_are_told_apart() -> None:
    """Relative positions alone would make equal frames equal; from the token before the first each knows its distance."""
    network = transformer()
    xt, t = clip(1, 1)
    out = network(xt.expand(-1, -1, -1, 16), t)
    distance = torch.cdist(out.flatten(1, 2).mT, out.flatten(1, 2).mT)[0]
    assert distance.fill_diagonal_(1).min() > 1e-4


# --- attention


def test_logits_depend_on_relative_positions_only() -> None:
    layer = attention()
    x = torch.randn(2, 16, 16, dtype=torch.float64)

    def logits(positions: Tensor) -> Tensor:
        q, k, _ = layer.heads(x, angles(positions))
        return q @ k.mT

    here = torch.arange(16)
    torch.testing.assert_close(logits(here + 37), logits(here))
    torch.testing.assert_close(layer(x, angles(here + 37)), layer(x, angles(here)))
    assert (logits(2 * here) - logits(here)).abs().max() > 0.1
    # The same content everywhere: what is left is a function of the offset, so the matrix is constant along its diagonals.
    x = x[:, :1].expand(-1, 16, -1)
    same = logits(here)
    torch.testing.assert_close(same[..., 1:, 1:], same[..., :-1, :-1])
    assert (same[..., 0, :] - same[..., :1, 0]).abs().max() > 0.1


def test_a_rotation_turns_pairs_and_keeps_lengths() -> None:
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    angle = angles(torch.arange(5))
    got = rotate(x, angle.cos(), angle.sin())
    torch.testing.assert_close(torch.complex(*got.chunk(2, -1)), torch.complex(*x.chunk(2, -1)) * torch.exp(1j * angle))
    torch.testing.assert_close(got.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(frequencies(4), torch.tensor([1.0, 0.1, 0.01, 0.001]))


@pytest.mark.parametrize("size", [1e-2, 1.0, 1e4])
def test_logits_are_bounded_whatever_comes_in(size: float) -> None:
    """Cauchy-Schwarz: |q| and |k| are sqrt(width of a head), times the gain of the head."""
    layer = attention()
    q, k, _ = layer.heads(size * torch.randn(4, 16, 16, dtype=torch.float64), angles(torch.arange(16)))
    share = (q @ k.mT).abs().amax(dim=(0, 2, 3)) / (8 * layer.gain.flatten())
    assert (share <= 1).all() and (share > 0.5).all(), "a bound that is never near says nothing"


@pytest.mark.parametrize(("trained", "frames"), [(16, 16), (16, 40), (16, 3), (1, 7), (7, 1)])
def test_attention_is_softmax_of_logits_as_sharp_as_in_training(trained: int, frames: int) -> None:
    layer = attention(frames=trained)
    x, angle = torch.randn(2, frames, 16, dtype=torch.float64), angles(torch.arange(frames))
    q, k, v = layer.heads(x, angle)
    weights = (q @ k.mT / 8**0.5 * math.log(max(frames, 2)) / math.log(max(trained, 2))).softmax(-1)
    torch.testing.assert_close(layer(x, angle), layer.proj((weights @ v).transpose(1, 2).flatten(2)))
    # Heads are consecutive channels of the values.
    torch.testing.assert_close(v[:, 1], F.linear(x, layer.qkv.weight[-8:]))


def test_it_is_one_graph() -> None:
    """torch.compile finds nothing that it would have to leave to Python, and the number of frames is free."""
    network = transformer(clip_dim=5)
    compiled = torch.compile(network, fullgraph=True, backend="eager", dynamic=True)
    for frames in (16, 23):
        xt, t = clip(frames=frames)
        torch.testing.assert_close(compiled(xt, t), network(xt, t))
