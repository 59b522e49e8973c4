"""What both networks promise: every argument and parameter lives, every frame counts, and clips are strangers to each other."""

import inspect
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.networks.blocks import InputAmplitude
from ddpm.networks.transformer import MotionTransformer
from ddpm.networks.unet import MDM_UNetModel


class Case(NamedTuple):
    """A network: its arguments, other values of all of them, and which of these change the output and not the parameters."""

    kind: type[nn.Module]
    base: dict[str, Any]
    other: dict[str, Any]
    shapeless: tuple[str, ...]


CASES = {
    "unet": Case(
        MDM_UNetModel,
        {
            "image_size": 16, "in_channels": 6, "model_channels": 8, "out_channels": 6, "num_res_blocks": 1,
            "attention_resolutions": [2], "dropout": 0.0, "channel_mult": [1, 2], "conv_resample": True, "num_heads": 2,
            "use_scale_shift_norm": True, "resblock_updown": False, "padding": 1, "padding_mode": "zeros", "clip_dim": None,
            "input_amplitude": False,
        },
        {
            "image_size": 32, "in_channels": 9, "model_channels": 12, "out_channels": 4, "num_res_blocks": 2,
            "attention_resolutions": [1], "dropout": 0.3, "channel_mult": [1, 3], "conv_resample": False, "num_heads": 4,
            "use_scale_shift_norm": False, "resblock_updown": True, "padding": 2, "padding_mode": "circular", "clip_dim": 5,
            "input_amplitude": True,
        },
        ("image_size", "dropout", "num_heads", "padding", "padding_mode"),
    ),
    "transformer": Case(
        MotionTransformer,
        {
            "frames": 16, "in_channels": 6, "model_channels": 16, "out_channels": 6, "depth": 2, "num_heads": 2,
            "mlp_ratio": 2.0, "dropout": 0.0, "clip_dim": None, "input_amplitude": False,
        },
        {
            "frames": 32, "in_channels": 9, "model_channels": 24, "out_channels": 4, "depth": 3, "num_heads": 4,
            "mlp_ratio": 1.5, "dropout": 0.3, "clip_dim": 5, "input_amplitude": True,
        },
        ("frames", "dropout"),
    ),
}  # fmt: skip
ARGUMENTS = [(name, argument) for name, case in CASES.items() for argument in case.base]
both = pytest.mark.parametrize("name", CASES)


def network(name: str, **changes: Any) -> Any:
    """A small network with no weight left at 0, in eval mode."""
    torch.manual_seed(0)
    made = CASES[name].kind(**CASES[name].base | changes)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def clip(batch: int = 2, frames: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(xt, t): 3 joints x 2 coords."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, 2, frames, generator=g), torch.randint(1000, (batch,), generator=g)


# --- the start


@both
def test_the_output_of_a_new_network_is_zero(name: str) -> None:
    xt, t = clip()
    out = CASES[name].kind(**CASES[name].base)(xt, t)
    assert out.shape == xt.shape and not out.any()


@pytest.mark.parametrize(
    ("name", "changes"),
    [("unet", {}), ("transformer", {}), *((n, {a: CASES[n].other[a]}) for n, a in ARGUMENTS if a != "in_channels")],
)
def test_every_parameter_gets_a_gradient(name: str, changes: dict[str, Any]) -> None:
    made = network(name, **changes)
    xt, t = clip()
    cond = torch.randn(2, 5) if changes.get("clip_dim") else None
    made(xt, t, cond).square().sum().backward()
    assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()] == []


@both
def test_a_new_network_learns_in_every_parameter(name: str) -> None:
    """Branches that start at 0 must come alive: after a few steps everything has a gradient."""
    torch.manual_seed(0)
    made = CASES[name].kind(**CASES[name].base)
    optimizer = torch.optim.SGD(made.parameters(), lr=0.05)
    xt, t = clip()
    for _ in range(4):
        optimizer.zero_grad()
        F.mse_loss(made(xt, t), xt).backward()
        optimizer.step()
    assert [name for name, p in made.named_parameters() if not p.grad.any()] == []


# --- arguments


@both
def test_every_argument_has_a_case(name: str) -> None:
    case = CASES[name]
    assert set(case.base) == set(case.other) == set(inspect.signature(case.kind).parameters)


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_every_argument_acts(name: str, argument: str) -> None:
    """Another value changes the parameters' shapes, or the output with the same weights in the same mode."""
    one, other = network(name), network(name, **{argument: CASES[name].other[argument]})
    shapes = [{key: p.shape for key, p in made.state_dict().items()} for made in (one, other)]
    changes_output = argument in CASES[name].shapeless
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
    ("name", "argument", "value", "limit"),
    [
        ("unet", "image_size", 1, "at least 2"),
        ("unet", "num_res_blocks", 0, "positive"),
        ("unet", "attention_resolutions", [2, 3], r"\[1, 2\]"),
        ("unet", "attention_resolutions", [4], r"\[1, 2\]"),
        ("unet", "channel_mult", [], "positive"),
        ("unet", "channel_mult", [1, 0], "positive"),
        ("unet", "num_heads", 3, "16 channels"),
        ("unet", "padding", 0, "positive"),
        ("unet", "padding_mode", "mirror", "zeros.*reflect.*replicate.*circular"),
        ("transformer", "frames", 0, "positive"),
        ("transformer", "depth", 0, "positive"),
        ("transformer", "model_channels", 18, "multiple of 4, 2 x num_heads"),
        ("transformer", "mlp_ratio", 0.01, r"at least 1 / model_channels = 0\.0625"),
        ("transformer", "mlp_ratio", -2.0, "at least"),
        *(
            (name, argument, value, limit)
            for name in CASES
            for argument, value, limit in (
                ("in_channels", 0, "positive"),
                ("out_channels", -1, "positive"),
                ("model_channels", 0, "multiple of 4"),
                ("model_channels", 10, "multiple of 4"),
                ("dropout", 1.0, r"\[0, 1\)"),
                ("dropout", -0.1, r"\[0, 1\)"),
                ("num_heads", 0, "positive"),
                ("clip_dim", 0, "positive, or null"),
            )
        ),
    ],
)
def test_bad_values_are_named_with_key_value_and_limit(name: str, argument: str, value: Any, limit: str) -> None:
    with pytest.raises(ValueError, match=limit) as e:
        network(name, **{argument: value})
    assert f"model.{argument}={value}" in str(e.value)


@both
def test_what_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"takes 6 channels.*\(2, 4, 2, 16\)"):
        network(name)(torch.zeros(2, 4, 2, 16), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"model\.clip_dim"):
        network(name)(*clip(), torch.zeros(2, 5))


# --- frames


@pytest.mark.parametrize(
    ("name", "changes", "lengths"),
    [
        ("transformer", {}, (1, 2, 5, 16, 40)),
        *(
            ("unet", {"channel_mult": [1, 2, 2]} | changes, (5, 6, 7, 8, 9, 13, 16, 23, 31, 40))
            for changes in ({}, {"conv_resample": False}, {"resblock_updown": True}, {"padding": 2}, {"padding_mode": "reflect"})
        ),
    ],
)
def test_any_number_of_frames_and_each_of_them_counts(name: str, changes: dict[str, Any], lengths: tuple[int, ...]) -> None:
    made = network(name, **changes)
    for frames in lengths:
        xt, t = clip(1, frames)
        xt.requires_grad_()
        out = made(xt, t)
        assert out.shape == xt.shape
        for f in (0, frames // 2, frames - 1):  # an output frame sees its own input frame, and the whole clip
            (grad,) = torch.autograd.grad(out[..., f].square().sum(), xt, retain_graph=True)
            assert (grad.abs().amax(dim=(0, 1, 2)) > 0).all(), (frames, f)


@both
def test_joints_and_coords_are_channels(name: str) -> None:
    xt, t = clip()
    made = network(name)
    torch.testing.assert_close(made(xt, t), made(xt.flatten(1, 2), t).view(xt.shape))
    assert network(name, out_channels=4)(xt, t).shape == (2, 4, 16)


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
@both
def test_forward_leaves_nothing_behind(name: str, train: bool) -> None:
    made = network(name, dropout=0.2, clip_dim=5).train(train)
    before = everything(made)
    made(*clip(), torch.randn(2, 5))
    made(*clip(frames=9), None, torch.ones(2, 1, 1, 9))
    after = everything(made)
    assert before.keys() == after.keys()
    for key, value in before.items():
        if isinstance(value, tuple):
            assert value[:2] == after[key][:2] and torch.equal(value[2], after[key][2]), key
        else:
            assert value == after[key], key


@both
def test_a_clip_does_not_depend_on_its_neighbours(name: str) -> None:
    made = network(name).double()
    xt, t = clip(4)
    xt = xt.double()
    torch.testing.assert_close(made(xt, t)[2:3], made(xt[2:3], t[2:3]))
    other = xt.clone()
    other[[0, 1, 3]] *= 5
    torch.testing.assert_close(made(other, t)[2], made(xt, t)[2])


@both
def test_the_step_matters_and_in_each_clip_by_itself(name: str) -> None:
    xt, _ = clip(1)
    out = network(name)(xt.expand(3, -1, -1, -1), torch.tensor([0, 500, 500]))
    torch.testing.assert_close(out[1], out[2])
    assert (out[0] - out[1]).abs().max() > 1e-3


@both
def test_dropout_is_random_in_training_only(name: str) -> None:
    xt, t = clip()
    made = network(name, dropout=0.5)
    assert torch.equal(made(xt, t), made(xt, t))
    made.train()
    assert not torch.allclose(made(xt, t), made(xt, t), atol=1e-3)


def test_the_amplitude_of_the_input_is_told_and_shared() -> None:
    """The embedding sees the log of the root mean square of real frames; the output gets each channel times its share."""
    torch.manual_seed(0)
    amplitude = InputAmplitude(6, 12).double()
    amplitude.mlp = nn.Identity()
    with torch.no_grad():
        amplitude.share.weight.normal_()
    x = 3.0 * torch.ones(2, 6, 8, dtype=torch.float64)
    x[1] *= 2
    mask = (torch.arange(8) < torch.tensor([[8], [5]])).double()[:, None]
    x[1, :, 5:] = 99.0
    expected = torch.tensor([[3.0], [6.0]], dtype=torch.float64).log().expand(2, 6)
    torch.testing.assert_close(amplitude.embed(x, mask), expected, rtol=0, atol=1e-5)
    output, emb = torch.randn(2, 9, 8, dtype=torch.float64), torch.randn(2, 12, dtype=torch.float64)
    added = amplitude(output, x, emb) - output
    torch.testing.assert_close(added[:, :6], amplitude.share(F.silu(emb))[:, :, None] * x)
    assert not added[:, 6:].any()


@both
def test_a_condition_acts_on_its_own_clip(name: str) -> None:
    made = network(name, clip_dim=5)
    xt, t = clip()
    cond = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    out = made(xt, t, cond)
    cond[1] += 1
    changed = made(xt, t, cond)
    torch.testing.assert_close(changed[0], out[0])
    assert (changed[1] - out[1]).abs().max() > 1e-3
    assert (made(xt, t) - out).abs().max() > 1e-3  # None is allowed, and something else


@both
def test_half_precision_is_near(name: str) -> None:
    made = network(name)
    xt, t = clip()
    with torch.autocast("cpu", torch.bfloat16):
        half = made(xt, t)
    exact = made(xt, t)
    assert (half - exact).norm() < 0.02 * exact.norm()


@both
def test_attention_takes_a_fused_kernel(name: str) -> None:
    """Without padding; the general one holds a number for every pair of frames, and is several times slower for long clips."""
    xt, t = clip()
    with torch.no_grad(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        network(name)(xt, t)
    called = {event.name for event in profile.events() if "scaled_dot_product" in event.name}
    assert called and not [kernel for kernel in called if kernel.endswith("_math")]
