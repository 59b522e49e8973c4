"""MDM_UNetModel: every argument lives, every frame counts, and attention is attention."""

import inspect
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.blocks import SelfAttention, TimeEmbedding
from ddpm.unet import MDM_UNetModel

BASE: dict[str, Any] = {
    "image_size": 16,
    "in_channels": 6,
    "model_channels": 8,
    "out_channels": 6,
    "num_res_blocks": 1,
    "attention_resolutions": [2],
    "dropout": 0.0,
    "channel_mult": [1, 2],
    "conv_resample": True,
    "num_heads": 2,
    "use_scale_shift_norm": True,
    "resblock_updown": False,
    "padding": 1,
    "padding_mode": "zeros",
    "clip_dim": None,
}
OTHER: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 9,
    "model_channels": 12,
    "out_channels": 4,
    "num_res_blocks": 2,
    "attention_resolutions": [1],
    "dropout": 0.3,
    "channel_mult": [1, 3],
    "conv_resample": False,
    "num_heads": 4,
    "use_scale_shift_norm": False,
    "resblock_updown": True,
    "padding": 2,
    "padding_mode": "circular",
    "clip_dim": 5,
}


def unet(**changes: Any) -> MDM_UNetModel:
    """A small network with no weight left at 0, in eval mode."""
    torch.manual_seed(0)
    network = MDM_UNetModel(**{**BASE, **changes})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def clip(batch: int = 2, frames: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(xt, t): 3 joints x 2 coords."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, 2, frames, generator=g), torch.randint(1000, (batch,), generator=g)


def test_the_output_of_a_new_network_is_zero() -> None:
    xt, t = clip()
    out = MDM_UNetModel(**BASE)(xt, t)
    assert out.shape == xt.shape and not out.any()


@pytest.mark.parametrize(
    "changes", [{}, *({key: value} for key, value in OTHER.items() if key not in ("in_channels", "image_size"))]
)
def test_every_parameter_gets_a_gradient(changes: dict[str, Any]) -> None:
    network = unet(**changes)
    xt, t = clip()
    cond = torch.randn(2, 5) if changes.get("clip_dim") else None
    network(xt, t, cond).square().sum().backward()
    dead = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_a_new_network_learns_in_every_parameter() -> None:
    """Branches that start at 0 must come alive: after a few steps everything has a gradient."""
    torch.manual_seed(0)
    network = MDM_UNetModel(**BASE)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    xt, t = clip()
    for _ in range(4):
        optimizer.zero_grad()
        F.mse_loss(network(xt, t), xt).backward()
        optimizer.step()
    assert [name for name, p in network.named_parameters() if not p.grad.any()] == []


# --- arguments


def test_every_argument_has_a_case() -> None:
    assert set(BASE) == set(OTHER) == set(inspect.signature(MDM_UNetModel).parameters)


@pytest.mark.parametrize("name", inspect.signature(MDM_UNetModel).parameters)
def test_every_argument_acts(name: str) -> None:
    """Another value changes the parameters' shapes, or the output with the same weights in the same mode."""
    one, other = unet(), unet(**{name: OTHER[name]})
    shapes = [{key: p.shape for key, p in network.state_dict().items()} for network in (one, other)]
    changes_output = name in ("image_size", "dropout", "num_heads", "padding", "padding_mode")
    assert (shapes[0] != shapes[1]) != changes_output
    if changes_output:
        other.load_state_dict(one.state_dict())
        xt, t = clip()
        torch.manual_seed(0)
        a = one.train()(xt, t)
        torch.manual_seed(0)
        b = other.train()(xt, t)
        assert (a - b).abs().max() > 1e-3 * a.abs().max()


def test_sizes_are_what_the_arguments_say() -> None:
    network = MDM_UNetModel(**{**BASE, "channel_mult": [1, 2, 3], "num_res_blocks": 2, "attention_resolutions": [1, 4]})
    # One convolution, and per level the residual blocks; between levels one block that resamples.
    assert len(network.input_blocks) == 1 + 3 * 2 + 2 and len(network.output_blocks) == 3 * 3
    where = [i for i, block in enumerate(network.input_blocks) if any(isinstance(m, SelfAttention) for m in block)]
    assert where == [1, 2, 7, 8]
    assert [m.frames for m in network.modules() if isinstance(m, SelfAttention)] == [
        16,
        16,
        4,
        4,
        4,
        4,
        4,
        4,
        16,
        16,
        16,
    ]
    assert network.input_blocks[0][0].weight.shape == (8, 6, 3) and network.out[-1].weight.shape == (6, 8, 3)
    assert isinstance(network.out[0], nn.GroupNorm) and isinstance(network.out[1], nn.SiLU)
    linear1, silu, linear2 = network.time_embed.mlp
    assert isinstance(silu, nn.SiLU) and linear1.out_features == linear2.in_features == linear2.out_features == 32


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        ("image_size", 1, "at least 2"),
        ("in_channels", 0, "positive"),
        ("out_channels", -1, "positive"),
        ("model_channels", 0, "multiple of 4"),
        ("model_channels", 10, "multiple of 4"),
        ("num_res_blocks", 0, "positive"),
        ("attention_resolutions", [2, 3], r"\[1, 2\]"),
        ("attention_resolutions", [4], r"\[1, 2\]"),
        ("dropout", 1.0, r"\[0, 1\)"),
        ("dropout", -0.1, r"\[0, 1\)"),
        ("channel_mult", [], "positive"),
        ("channel_mult", [1, 0], "positive"),
        ("num_heads", 0, "positive"),
        ("num_heads", 3, "16 channels"),
        ("padding", 0, "positive"),
        ("padding_mode", "mirror", "zeros.*reflect.*replicate.*circular"),
        ("clip_dim", 0, "positive, or null"),
    ],
)
def test_bad_values_are_named_with_key_value_and_limit(name: str, value: Any, limit: str) -> None:
    with pytest.raises(ValueError, match=limit) as e:
        unet(**{name: value})
    assert f"model.{name}={value}" in str(e.value)


# --- frames


@pytest.mark.parametrize(
    "changes", [{}, {"conv_resample": False}, {"resblock_updown": True}, {"padding": 2}, {"padding_mode": "reflect"}]
)
def test_any_number_of_frames_and_each_of_them_counts(changes: dict[str, Any]) -> None:
    network = unet(channel_mult=[1, 2, 2], **changes)
    for frames in (5, 6, 7, 8, 9, 13, 16, 23, 31, 40):
        xt, t = clip(1, frames)
        xt.requires_grad_()
        out = network(xt, t)
        assert out.shape == xt.shape
        for f in (0, frames // 2, frames - 1):  # an output frame sees its own input frame, and the whole clip
            (grad,) = torch.autograd.grad(out[..., f].square().sum(), xt, retain_graph=True)
            assert (grad.abs().amax(dim=(0, 1, 2)) > 0).all(), (frames, f)


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


def test_a_wrong_number_of_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"takes 6 channels.*\(2, 4, 2, 16\)"):
        unet()(torch.zeros(2, 4, 2, 16), torch.zeros(2, dtype=torch.long))


def test_joints_and_coords_are_channels() -> None:
    xt, t = clip()
    network = unet()
    torch.testing.assert_close(network(xt, t), network(xt.flatten(1, 2), t).view(xt.shape))
    assert unet(out_channels=4)(xt, t).shape == (2, 4, 16)


# --- what forward may and may not do


def everything(module: nn.Module) -> dict[str, Any]:
    """All attributes of all submodules; tensors as their bytes."""
    found = {}
    for path, m in module.named_modules():
        for name, value in vars(m).items():
            if name in ("_parameters", "_buffers"):
                found.update({f"{path}.{name}.{k}": (id(v), v._version, v.clone()) for k, v in value.items() if v is not None})
            else:
                found[f"{path}.{name}"] = repr(value)
    return found


@pytest.mark.parametrize("train", [True, False])
def test_forward_leaves_nothing_behind(train: bool) -> None:
    network = unet(dropout=0.2, clip_dim=5).train(train)
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
    network = unet().double()
    xt, t = clip(4)
    xt = xt.double()
    torch.testing.assert_close(network(xt, t)[2:3], network(xt[2:3], t[2:3]))
    other = xt.clone()
    other[[0, 1, 3]] *= 5
    torch.testing.assert_close(network(other, t)[2], network(xt, t)[2])


def test_the_step_matters_and_in_each_clip_by_itself() -> None:
    xt, _ = clip(1)
    out = unet()(xt.expand(3, -1, -1, -1), torch.tensor([0, 500, 500]))
    torch.testing.assert_close(out[1], out[2])
    assert (out[0] - out[1]).abs().max() > 1e-3


def test_dropout_is_random_in_training_only() -> None:
    xt, t = clip()
    network = unet(dropout=0.5)
    assert torch.equal(network(xt, t), network(xt, t))
    network.train()
    assert not torch.allclose(network(xt, t), network(xt, t), atol=1e-3)


def test_a_condition_acts_on_its_own_clip() -> None:
    network = unet(clip_dim=5)
    xt, t = clip()
    cond = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    out = network(xt, t, cond)
    cond[1] += 1
    changed = network(xt, t, cond)
    torch.testing.assert_close(changed[0], out[0])
    assert (changed[1] - out[1]).abs().max() > 1e-3
    assert (network(xt, t) - out).abs().max() > 1e-3  # None is allowed, and something else


def test_a_condition_without_clip_dim_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.clip_dim"):
        unet()(*clip(), torch.zeros(2, 5))


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
