"""MotionTransformer: every argument lives, positions count relative to each other only, and it starts at zero."""

import inspect
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.blocks import frequencies
from ddpm.transformer import Block, MotionTransformer, RotaryAttention, rotate
from tests.test_unet import clip, everything

BASE: dict[str, Any] = {
    "frames": 16,
    "in_channels": 6,
    "model_channels": 16,
    "out_channels": 6,
    "depth": 2,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "dropout": 0.0,
    "clip_dim": None,
}
OTHER: dict[str, Any] = {
    "frames": 32,
    "in_channels": 9,
    "model_channels": 24,
    "out_channels": 4,
    "depth": 3,
    "num_heads": 4,
    "mlp_ratio": 1.5,
    "dropout": 0.3,
    "clip_dim": 5,
}


def transformer(**changes: Any) -> MotionTransformer:
    """A small network with no weight left at 0, in eval mode."""
    torch.manual_seed(0)
    network = MotionTransformer(**{**BASE, **changes})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def attention(width: int = 8, heads: int = 2, frames: int = 16) -> RotaryAttention:
    """An attention whose heads have gains, in float64."""
    torch.manual_seed(0)
    layer = RotaryAttention(heads * width, heads, frames).double()
    nn.init.uniform_(layer.gain, 0.5, 1.5)
    return layer


def angles(positions: Tensor, width: int = 8) -> Tensor:
    """``(frame,)`` -> ``(frame, width / 2)`` float64."""
    return positions.double()[:, None] * frequencies(width // 2).double()


# --- the start


def test_the_output_of_a_new_network_is_zero() -> None:
    xt, t = clip()
    out = MotionTransformer(**BASE)(xt, t)
    assert out.shape == xt.shape and not out.any()


def test_a_new_block_is_the_identity() -> None:
    x, emb = torch.randn(2, 5, 16), torch.randn(2, 1, 12)
    assert torch.equal(Block(16, 12, 2, 32, 0.1, 16)(x, emb, torch.zeros(5, 4)), x)


@pytest.mark.parametrize("changes", [{}, *({key: value} for key, value in OTHER.items() if key != "in_channels")])
def test_every_parameter_gets_a_gradient(changes: dict[str, Any]) -> None:
    network = transformer(**changes)
    xt, t = clip()
    cond = torch.randn(2, 5) if changes.get("clip_dim") else None
    network(xt, t, cond).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_new_network_learns_in_every_parameter() -> None:
    """What starts at 0 must come alive: after a few steps everything has a gradient."""
    torch.manual_seed(0)
    network = MotionTransformer(**BASE)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    xt, t = clip()
    for _ in range(4):
        optimizer.zero_grad()
        F.mse_loss(network(xt, t), xt).backward()
        optimizer.step()
    assert [name for name, p in network.named_parameters() if not p.grad.any()] == []


# --- arguments


def test_every_argument_has_a_case() -> None:
    assert set(BASE) == set(OTHER) == set(inspect.signature(MotionTransformer).parameters)


@pytest.mark.parametrize("name", inspect.signature(MotionTransformer).parameters)
def test_every_argument_acts(name: str) -> None:
    """Another value changes the parameters' shapes, or the output with the same weights in the same mode."""
    one, other = transformer(), transformer(**{name: OTHER[name]})
    shapes = [{key: p.shape for key, p in network.state_dict().items()} for network in (one, other)]
    changes_output = name in ("frames", "dropout")
    assert (shapes[0] != shapes[1]) != changes_output
    if changes_output:
        other.load_state_dict(one.state_dict())
        xt, t = clip()
        torch.manual_seed(0)
        a = one.train()(xt, t)
        torch.manual_seed(0)
        b = other.train()(xt, t)
        assert (a - b).abs().max() > 1e-3 * a.abs().max()


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        ("frames", 0, "positive"),
        ("in_channels", 0, "positive"),
        ("model_channels", 0, "multiple of 4, 2 x num_heads"),
        ("model_channels", 18, "multiple of 4, 2 x num_heads"),
        ("out_channels", -1, "positive"),
        ("depth", 0, "positive"),
        ("num_heads", 0, "positive"),
        ("mlp_ratio", 0.01, r"at least 1 / model_channels = 0\.0625"),
        ("mlp_ratio", -2.0, "at least"),
        ("dropout", 1.0, r"\[0, 1\)"),
        ("dropout", -0.1, r"\[0, 1\)"),
        ("clip_dim", 0, "positive, or null"),
    ],
)
def test_bad_values_are_named_with_key_value_and_limit(name: str, value: Any, limit: str) -> None:
    with pytest.raises(ValueError, match=limit) as e:
        transformer(**{name: value})
    assert f"model.{name}={value}" in str(e.value)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"takes 6 channels.*\(2, 4, 2, 16\)"):
        transformer()(torch.zeros(2, 4, 2, 16), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"model\.clip_dim"):
        transformer()(*clip(), torch.zeros(2, 5))


# --- frames


@pytest.mark.parametrize("frames", [1, 2, 5, 16, 40])
def test_any_number_of_frames_and_each_of_them_counts(frames: int) -> None:
    network = transformer()
    xt, t = clip(1, frames)
    xt.requires_grad_()
    out = network(xt, t)
    assert out.shape == xt.shape
    for f in (0, frames // 2, frames - 1):
        (grad,) = torch.autograd.grad(out[..., f].square().sum(), xt, retain_graph=True)
        assert (grad.abs().amax(dim=(0, 1, 2)) > 0).all(), f


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


def test_joints_and_coords_are_channels() -> None:
    xt, t = clip()
    network = transformer()
    torch.testing.assert_close(network(xt, t), network(xt.flatten(1, 2), t).view(xt.shape))
    assert transformer(out_channels=4)(xt, t).shape == (2, 4, 16)


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


# --- what forward may and may not do


@pytest.mark.parametrize("train", [True, False])
def test_forward_leaves_nothing_behind(train: bool) -> None:
    network = transformer(dropout=0.2, clip_dim=5).train(train)
    before = everything(network)
    network(*clip(), torch.randn(2, 5))
    network(*clip(frames=9))
    after = everything(network)
    assert before.keys() == after.keys()
    for key, value in before.items():
        if isinstance(value, tuple):
            assert value[:2] == after[key][:2] and torch.equal(value[2], after[key][2]), key
        else:
            assert value == after[key], key


def test_a_clip_does_not_depend_on_its_neighbours() -> None:
    network = transformer().double()
    xt, t = clip(4)
    xt = xt.double()
    torch.testing.assert_close(network(xt, t)[2:3], network(xt[2:3], t[2:3]))
    other = xt.clone()
    other[[0, 1, 3]] *= 5
    torch.testing.assert_close(network(other, t)[2], network(xt, t)[2])


def test_the_step_matters_and_in_each_clip_by_itself() -> None:
    xt, _ = clip(1)
    out = transformer()(xt.expand(3, -1, -1, -1), torch.tensor([0, 500, 500]))
    torch.testing.assert_close(out[1], out[2])
    assert (out[0] - out[1]).abs().max() > 1e-3


def test_dropout_is_random_in_training_only() -> None:
    xt, t = clip()
    network = transformer(dropout=0.5)
    assert torch.equal(network(xt, t), network(xt, t))
    network.train()
    assert not torch.allclose(network(xt, t), network(xt, t), atol=1e-3)


def test_a_condition_acts_on_its_own_clip() -> None:
    network = transformer(clip_dim=5)
    xt, t = clip()
    cond = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    out = network(xt, t, cond)
    cond[1] += 1
    changed = network(xt, t, cond)
    torch.testing.assert_close(changed[0], out[0])
    assert (changed[1] - out[1]).abs().max() > 1e-3
    assert (network(xt, t) - out).abs().max() > 1e-3  # None is allowed, and something else


def test_half_precision_is_near() -> None:
    network = transformer()
    xt, t = clip()
    with torch.autocast("cpu", torch.bfloat16):
        half = network(xt, t)
    exact = network(xt, t)
    assert (half - exact).norm() < 0.02 * exact.norm()


def test_it_is_one_graph() -> None:
    """torch.compile finds nothing that it would have to leave to Python, and the number of frames is free."""
    network = transformer(clip_dim=5)
    compiled = torch.compile(network, fullgraph=True, backend="eager", dynamic=True)
    for frames in (16, 23):
        xt, t = clip(frames=frames)
        torch.testing.assert_close(compiled(xt, t), network(xt, t))
