"""Padding: a clip in a padded batch is treated as if it were alone, whatever its padding holds."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddpm.networks.blocks import Downsample, GroupNorm
from ddpm.process.diffusion import DenoiseDiffusion
from ddpm.process.prediction import X0
from ddpm.process.weighting import min_snr
from tests.networks.test_networks import network

LENGTHS = [19, 1, 2, 7, 12, 18]
DEEP = {"channel_mult": [1, 1, 2, 2], "attention_resolutions": [4, 8]}
NETWORKS = [
    ("transformer", {}),
    ("transformer", {"clip_dim": 5}),
    ("transformer", {"input_amplitude": True}),
    *(
        ("unet", {"attention_resolutions": [1, 2]} | changes)
        for changes in (
            {},
            {"channel_mult": [2], "attention_resolutions": []},
            {"channel_mult": [1, 2, 3], "attention_resolutions": [2]},
            {"padding": 2},
            {"conv_resample": False},
            {"resblock_updown": True},
            {"use_scale_shift_norm": False},
            {"num_res_blocks": 2, "model_channels": 16},
            {"clip_dim": 5},
            {"input_amplitude": True},
            DEEP,
            DEEP | {"padding": 2, "use_scale_shift_norm": False},
            DEEP | {"conv_resample": False},
            DEEP | {"resblock_updown": True, "padding": 2},
            DEEP | {"resblock_updown": True, "use_scale_shift_norm": False},
        )
    ),
]
every_network = pytest.mark.parametrize(("name", "changes"), NETWORKS)


def batch(lengths: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(xt, t, cond, mask) of clips with 3 joints and 2 coordinates, and noise behind their ends."""
    g = torch.Generator().manual_seed(1)
    xt = torch.randn(len(lengths), 3, 2, max(lengths), generator=g, dtype=torch.float64)
    mask = torch.stack([(torch.arange(max(lengths)) < n).float() for n in lengths])[:, None, None]
    t = torch.randint(1000, (len(lengths),), generator=g)
    return xt, t, torch.randn(len(lengths), 5, generator=g, dtype=torch.float64), mask


@every_network
def test_a_padded_clip_is_what_it_is_alone(name: str, changes: dict[str, Any]) -> None:
    made = network(name, **changes).double()
    xt, t, cond, mask = batch(LENGTHS)
    condition = cond if "clip_dim" in changes else None
    xt.requires_grad_()
    out = made(xt, t, condition, mask)
    assert out.shape == xt.shape
    unmasked = made(xt, t, condition)
    for i, n in enumerate(LENGTHS):
        alone = made(xt[i : i + 1, ..., :n], t[i : i + 1], None if condition is None else condition[i : i + 1])
        torch.testing.assert_close(out[i : i + 1, ..., :n], alone, rtol=1e-9, atol=1e-9)
        assert not out[i, ..., n:].any()
        if n < max(LENGTHS):  # without a mask it would be another: the test can see padding
            assert (unmasked[i, ..., :n] - alone[0]).abs().max() > 1e-4
    (grad,) = torch.autograd.grad(out.square().sum(), xt)
    assert not (grad * (1 - mask)).any() and (grad.abs().amax(dim=(1, 2)) > 0).equal(mask[:, 0, 0] > 0)


@every_network
def test_what_padding_holds_changes_nothing(name: str, changes: dict[str, Any]) -> None:
    made = network(name, **changes).double()
    xt, t, cond, mask = batch(LENGTHS)
    condition = cond if "clip_dim" in changes else None
    out = made(xt, t, condition, mask)
    for content in (0.0, 1e6, -1e6 * torch.rand_like(xt)):
        other = torch.where(mask > 0, xt, content)
        torch.testing.assert_close(made(other, t, condition, mask), out, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(made(xt, t, condition, mask.bool()), out, rtol=1e-12, atol=0)
    wide = mask.expand(-1, 3, 2, -1)  # the same for every joint and coordinate
    torch.testing.assert_close(made(xt, t, condition, wide), out, rtol=1e-12, atol=0)


@every_network
@pytest.mark.parametrize("frames", [16, 21])
def test_a_mask_of_ones_is_no_mask(name: str, changes: dict[str, Any], frames: int) -> None:
    made = network(name, **changes).double()
    xt, t, cond, mask = batch([frames, frames])
    condition = cond if "clip_dim" in changes else None
    torch.testing.assert_close(made(xt, t, condition, mask), made(xt, t, condition), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["unet", "transformer"])
def test_half_precision_is_near(name: str) -> None:
    made = network(name)
    xt, t, _, mask = batch(LENGTHS)
    exact = made(xt.float(), t, None, mask)
    with torch.autocast("cpu", torch.bfloat16):
        half = made(xt.float(), t, None, mask)
    assert (half - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("padding_mode", ["reflect", "replicate", "circular"])
def test_paddings_that_look_at_other_frames_refuse_a_mask(padding_mode: str) -> None:
    made = network("unet", padding_mode=padding_mode)
    xt, t, _, mask = batch([16, 8])
    assert made(xt.float(), t).shape == xt.shape
    with pytest.raises(ValueError, match=rf"model\.padding_mode={padding_mode}.*frames=16.*padding_mode=zeros"):
        made(xt.float(), t, None, mask)


@pytest.mark.parametrize("frames", [1, 2, 7, 8])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8])
def test_means_of_pairs(length: int, frames: int) -> None:
    """In plain floats, over real frames: the last of an odd number of them has no partner."""
    length = min(length, frames)
    x = torch.randn(1, 2, frames, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = (torch.arange(frames) < length)[None, None]
    for real in (mask, mask.float(), None) if length == frames else (mask, mask.float()):
        got = Downsample(x.shape[1], False, 1, "zeros")(x, real)
        assert got.shape == (1, 2, -(-frames // 2))
        for k in range(got.shape[-1]):
            pair = [x[0, :, f] for f in (2 * k, 2 * k + 1) if f < length]
            if pair:
                torch.testing.assert_close(got[0, :, k], sum(pair) / len(pair))


def test_a_masked_norm_loses_no_digits_far_from_0() -> None:
    norm, x = GroupNorm(16), 100 + torch.randn(3, 16, 20)
    torch.testing.assert_close(norm(x, torch.ones(3, 1, 20)), norm(x), rtol=0, atol=1e-4)


def test_a_masked_norm_is_the_norm_of_the_real_frames() -> None:
    norm = GroupNorm(16).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = 5 + torch.randn(2, 16, 9, dtype=torch.float64)
    mask = torch.stack([(torch.arange(9) < n).double() for n in (9, 4)])[:, None]
    out = norm(x, mask)
    torch.testing.assert_close(out[:1], norm(x[:1]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(out[1:, :, :4], norm(x[1:, :, :4]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "changes"), [("unet", {}), ("unet", {"resblock_updown": True}), ("transformer", {})])
def test_the_loss_of_a_padded_batch_is_that_of_its_clips(name: str, changes: dict[str, Any]) -> None:
    """Every real number counts alike: the mean over clips, weighed with their lengths. So is its gradient."""
    made = network(name, **changes)
    weighting = partial(min_snr, gamma=2.0)
    diffusion = DenoiseDiffusion(made, 30, prediction=X0(), weighting=weighting).double()
    x0, _, _, mask = batch(LENGTHS)
    eps, t = torch.randn_like(x0), torch.tensor([0, 5, 9, 14, 20, 29])

    def gradient(loss: Tensor) -> Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(made.parameters()))])

    total = torch.zeros((), dtype=torch.float64)
    for i, n in enumerate(LENGTHS):
        total = total + n / sum(LENGTHS) * diffusion.loss(x0[i : i + 1, ..., :n], eps[i : i + 1, ..., :n], t=t[i : i + 1])
    loss = diffusion.loss(x0, eps, t=t, mask=mask)
    torch.testing.assert_close(loss, total, rtol=1e-9, atol=0)
    torch.testing.assert_close(gradient(loss), gradient(total), rtol=1e-8, atol=1e-10)
