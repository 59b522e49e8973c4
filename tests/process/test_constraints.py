"""Given coordinates and costs: for clips of a Gaussian process what they say of all others is known in closed form."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.editing import edit, given_by
from ddpm.module import MotionDiffusion
from ddpm.normalizer import Normalizer
from ddpm.process.constraints import LARGEST, LONGEST, CostGuidance, Known, Posterior
from ddpm.process.diffusion import DenoiseDiffusion
from ddpm.process.gaussian import Gaussian
from ddpm.process.prediction import X0, Prediction
from ddpm.process.samplers import Sampler, ddim, heun, unipc
from ddpm.process.schedules import cosine
from ddpm.skeleton import Skeleton

FRAMES = 7
BODY = Skeleton({"foot": "hip", "hip": None, "head": "hip"}, feet=["foot"], up="y", parts={"leg": ["foot"]})
J, C = len(BODY.names), BODY.coords


def module(travel: Sequence[int] = (), prediction: Prediction | None = None) -> MotionDiffusion:
    """A network that outputs 0: with `Gaussian` the exact denoiser of a Gaussian process."""
    g = torch.Generator().manual_seed(0)
    gaussian = Gaussian(J * C, FRAMES)
    gaussian.basis.copy_(torch.linalg.qr(torch.randn(J * C, J * C, generator=g)).Q)
    falls = -3.0 * torch.linspace(0, 1, FRAMES)
    gaussian.log_power.copy_(0.5 + torch.randn(J * C, FRAMES, generator=g) / 2 + falls)
    normalizer = Normalizer(J, C, BODY.root, travel)
    normalizer.mean.copy_(torch.randn(J, C, 1, generator=g) / 4)
    normalizer.scale.copy_(0.1 + 0.2 * torch.rand(normalizer.scale.shape, generator=g))
    normalizer.fitted.fill_(True)
    diffusion = DenoiseDiffusion(
        lambda xt, t, cond=None: torch.zeros_like(xt), 1000, beta_schedule=cosine, prediction=prediction or gaussian
    )
    return MotionDiffusion(diffusion, normalizer, BODY, 20.0, FRAMES, partial(unipc, steps=20)).double()


def joint(model: MotionDiffusion) -> tuple[Tensor, Tensor]:
    """Mean and covariance of whole clips in metres ``(frame, joint, coord)``, with their place on the ground free."""
    modes = model.diffusion.prediction.for_clips(torch.zeros(1, J, C, FRAMES).double(), None, None)
    unit = torch.eye(J * C * FRAMES).double().reshape(-1, J * C, FRAMES)
    z = modes.back(modes.power.sqrt() * unit, unit.reshape(-1, J, C, FRAMES))  # type: ignore[attr-defined]
    mean = model.normalizer.inverse(torch.zeros(1, J, C, FRAMES).double())[0]
    roots = (model.normalizer.inverse(z) - mean).permute(0, 3, 1, 2).flatten(1)
    ground = torch.zeros(len(BODY.ground_axes), FRAMES, J, C).double()
    for k, axis in enumerate(BODY.ground_axes):
        ground[k, ..., axis] = 1
    return mean.permute(2, 0, 1).flatten(), roots.T @ roots + 1e4 * ground.flatten(1).T @ ground.flatten(1)


def conditional(model: MotionDiffusion, y: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the coordinates that are not given."""
    mean, covariance = joint(model)
    known, free = given.flatten(), ~given.flatten()
    gain = torch.linalg.solve(covariance[known][:, known], covariance[known][:, free]).T
    return mean[free] + gain @ (y.flatten() - mean)[known], covariance[free][:, free] - gain @ covariance[known][:, free]


def a_clip(model: MotionDiffusion) -> Tensor:
    """``(frame, joint, coord)`` of the process, somewhere."""
    modes = model.diffusion.prediction.for_clips(torch.zeros(1, J, C, FRAMES).double(), None, None)
    y = modes.power.sqrt() * torch.randn(1, J * C, FRAMES, generator=torch.Generator().manual_seed(5)).double()  # type: ignore
    clip = model.normalizer.inverse(modes.back(y, torch.zeros(1, J, C, FRAMES)))[0].permute(2, 0, 1)  # type: ignore
    return clip + torch.tensor([3.0, 0.0, -2.0]).double()


KEPT = [[":3"], ["-2:"], [":2", "-2:"], [0, 3, -1], ["path"], ["leg"], ["head@2:5", 0], ["hip", "foot@-1"]]


SAMPLERS = {"unipc": partial(unipc, steps=40), "ddim": partial(ddim, steps=400), "heun": partial(heun, steps=121)}


@pytest.mark.parametrize("travel", [(), (0, 2)], ids=["positions", "steps"])
@pytest.mark.parametrize(
    ("keep", "sampler"),
    [
        pytest.param(keep, sampler, id=f"{keep}-{name}", marks=[] if name == "unipc" or (k + i) % 4 == 3 else [pytest.mark.slow])
        for k, keep in enumerate(KEPT)
        for i, (name, sampler) in enumerate(SAMPLERS.items())
    ],
)
def test_the_rest_is_distributed_as_it_is_given_the_kept(keep: list[str | int], travel: Sequence[int], sampler: Sampler) -> None:
    """Clips are an affine function of the noise: their mean is the image of 0, their covariance that of unit vectors."""
    model = module(travel)
    clip = a_clip(model)
    given = given_by(keep, BODY, FRAMES)
    noises = torch.cat([torch.zeros(1, J * C * FRAMES), torch.eye(J * C * FRAMES)]).double().reshape(-1, J, C, FRAMES)
    place = clip[given.nonzero()[0, 0], BODY.root] * torch.tensor([1.0, 0.0, 1.0]).double()
    known = Known((clip - place).permute(1, 2, 0), given.permute(1, 2, 0), model.normalizer, model.diffusion.prediction, BODY)
    made = model.generate(noises, lambda: noises, known=known, sampler=sampler).double() + place
    torch.testing.assert_close(made[:, given], clip[given].expand(len(made), -1), rtol=0, atol=1e-6)
    mean, covariance = conditional(model, clip, given)
    free = made[:, ~given]
    unit = covariance.diagonal().mean().sqrt()
    assert float((free[0] - mean).square().mean().sqrt() / unit) < 0.02
    found = (free[1:] - free[0]).T @ (free[1:] - free[0])
    assert float((found - covariance).norm() / covariance.norm()) < 0.04  # what is left is the error of the sampler


def test_without_a_covariance_the_kept_is_written_over() -> None:
    """In the estimate of every step: what is not given stays."""
    model = module(prediction=X0())
    clip = a_clip(module())
    given = torch.zeros(J, C, FRAMES, dtype=torch.bool)
    given[:, 1, 2] = True  # heights of one frame: independent of the place on the ground
    known = Known(clip.permute(1, 2, 0), given, model.normalizer, model.diffusion.prediction, BODY)
    x0_hat = torch.randn(2, J, C, FRAMES, generator=torch.Generator().manual_seed(1)).double()
    before = model.normalizer.inverse(x0_hat)
    after = model.normalizer.inverse(known(x0_hat, torch.tensor([0.5])))
    torch.testing.assert_close(after[:, given], clip.permute(1, 2, 0)[given].expand(2, -1), rtol=0, atol=1e-6)
    torch.testing.assert_close(after[..., [0, 1, 3, 4, 5, 6]], before[..., [0, 1, 3, 4, 5, 6]], rtol=0, atol=1e-9)


@pytest.mark.parametrize("alpha_bar", [0.01, 0.5, 0.99])
def test_a_quadratic_cost_gives_the_exact_mean(alpha_bar: float) -> None:
    """Of the head near a target at frame 3, with a deviation of 5 cm, for a Gaussian around x0_hat: a Kalman step."""
    model = module((0, 2))
    prediction, like = model.diffusion.prediction, torch.zeros(J, C, FRAMES).double()
    target, deviation, head = torch.tensor([0.4, 1.2, -0.3]).double(), 0.05, BODY.index("head")

    def cost(clips: Tensor) -> Tensor:
        return ((clips[:, 3, head] - target) / deviation).square().sum(1) / 2

    x0_hat = torch.randn(3, J, C, FRAMES, generator=torch.Generator().manual_seed(2)).double()
    found = CostGuidance(like, model.normalizer, prediction, cost, steps=60)(x0_hat, torch.tensor([alpha_bar]))
    modes = prediction.for_clips(like[None], None, None)
    variance = (1 - alpha_bar) * modes.power / (alpha_bar * modes.power + 1 - alpha_bar)  # type: ignore[attr-defined]
    unit = torch.eye(like.numel()).double().reshape(-1, J * C, FRAMES)
    root = modes.back(variance.sqrt() * unit, unit.reshape(-1, J, C, FRAMES))  # type: ignore[attr-defined]
    still = model.normalizer.inverse(torch.zeros_like(like)[None])
    rows = (model.normalizer.inverse(root) - still)[:, head, :, 3].T
    off = target - model.normalizer.inverse(x0_hat)[:, head, :, 3]
    gain = torch.linalg.solve(rows @ rows.T + deviation**2 * torch.eye(3).double(), rows).T
    expected = x0_hat + torch.einsum(
        "u,bu...->b...", torch.ones(1).double(), (off @ gain.T @ root.flatten(1)).reshape(3, 1, J, C, FRAMES)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    alone = CostGuidance(like, model.normalizer, prediction, cost, steps=60)(x0_hat[1:2], torch.tensor([alpha_bar]))
    torch.testing.assert_close(alone, found[1:2], rtol=0, atol=1e-9)


def test_a_cost_leads_a_hand_to_its_target_and_feet_out_of_the_floor() -> None:
    """Two costs as a user writes them, by the door that a user takes."""
    model = module((0, 2)).float()
    target, head = torch.tensor([0.5, 1.0, 0.2]), BODY.index("head")

    def reach(clips: Tensor) -> Tensor:
        return (clips[:, 4, head] - target).square().sum(1) / (2 * 0.01**2)

    def floor(clips: Tensor) -> Tensor:
        return (-clips[..., 1]).clamp(min=0).square().sum((1, 2)) / (2 * 0.01**2)

    free, led, dry = (model.sample(8, cost=cost).positions for cost in (None, reach, floor))
    assert (led[:, 4, head] - target).norm(dim=1).max() < 0.03 < (free[:, 4, head] - target).norm(dim=1).min()
    assert free[..., 1].min() < -0.1 and dry[..., 1].min() > -0.03
    torch.testing.assert_close(model.sample([3], cost=reach).positions, led[3:4], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("cost", "named"),
    [
        (7, "cost=7 must be a function"),
        (lambda x: x.sum(), r"float32 \(\), expected one number a clip.*\(2,\)"),
        (lambda x: x.sum((2, 3)), r"float32 \(2, 7\)"),
        (lambda x: 1.0, "returned 1.0"),
        (lambda x: (x > 0).sum((1, 2, 3)), "int64"),
        (lambda x: x.detach().sum((1, 2, 3)), "cannot be differentiated"),
        (lambda x: x.sum((1, 2, 3)) * float("nan"), "of clip 0 it is nan, which is not finite"),
        (lambda x: (0 * x).square().sum((1, 2, 3)).sqrt(), "of clip 0 the slope is not finite"),
    ],
)
def test_a_cost_that_is_none_is_named(cost: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        module().float().sample(2, cost=cost)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"clip": torch.zeros(7, 4, 3)}, r"clip: shape \(7, 4, 3\), expected \(frames, 3, 3\).*foot, hip, head"),
        ({"clip": torch.zeros(1, 7, 3, 3)}, r"clip: shape \(1, 7, 3, 3\)"),
        ({"clip": torch.full((7, 3, 3), torch.nan)}, "frame 0, joint foot is nan, and is to be kept"),
        ({"given": torch.ones(7, 3, 3)}, "given: torch.float32"),
        ({"given": torch.ones(6, 3, 3, dtype=torch.bool)}, r"expected bool of shape \(7, 3, 3\)"),
        ({"given": torch.ones(7, 3, 3, dtype=torch.bool)}, "63 true.*not all"),
        ({"given": torch.zeros(7, 3, 3, dtype=torch.bool)}, "0 true"),
        ({"seeds": []}, "asks for no clip"),
        ({"guidance": 2.0}, "no condition to guide towards"),
    ],
)
def test_an_edit_that_cannot_be_is_named(change: dict[str, Any], named: str) -> None:
    given = torch.zeros(7, 3, 3, dtype=torch.bool)
    given[:2] = True
    arguments: dict[str, Any] = {"clip": torch.zeros(7, 3, 3), "given": given, "seeds": [0]} | change
    with pytest.raises(ValueError, match=named):
        edit(module().float(), **arguments)


def test_any_place_and_heading_of_a_clip_come_back() -> None:
    """A clip that was moved and turned is edited to the same variations, moved and turned, where clips face one way."""
    sided = Skeleton({"hip": None, "left": "hip", "right": "hip"}, left_right=[("left", "right")], up="y")
    clip = a_clip(module((0, 2))).float()
    model = module((0, 2)).float()
    model.skeleton = sided
    given = given_by([":3"], sided, FRAMES)
    angle, place = torch.tensor(2.0), torch.tensor([5.0, 0.0, -7.0])
    turn = torch.tensor([[angle.cos(), 0, angle.sin()], [0, 1, 0], [-angle.sin(), 0, angle.cos()]])
    here = edit(model, clip, given, [1, 2], facing=True).positions.float()
    there = edit(model, clip @ turn.T + place, given, [1, 2], facing=True).positions.float()
    torch.testing.assert_close(there, here @ turn.T + place, rtol=0, atol=1e-3)
    assert torch.equal(here[:, given], clip[given].expand(2, -1))
    as_it_is = edit(model, clip @ turn.T + place, given, [1, 2]).positions.float()
    assert (as_it_is - there).abs().max() > 0.01


def test_what_is_kept() -> None:
    def frames_of(*keep: str | int) -> list[list[int]]:
        given = given_by(keep, BODY, FRAMES)
        assert (given.all(-1) == given.any(-1)).all()  # whole positions
        return [given[:, joint].all(-1).nonzero().flatten().tolist() for joint in range(J)]

    assert frames_of(":2") == [[0, 1]] * 3 and frames_of("-2:") == [[5, 6]] * 3 and frames_of(3, "-1") == [[3, 6]] * 3
    assert frames_of("leg") == frames_of("foot") == [list(range(7)), [], []]
    assert torch.equal(given_by("leg", BODY, FRAMES), given_by(["leg"], BODY, FRAMES))
    assert frames_of("head@2:4", "hip@0") == [[], [0], [2, 3]]
    path = given_by(["path@:3"], BODY, FRAMES)
    assert path.nonzero().tolist() == [[frame, 1, coord] for frame in range(3) for coord in (0, 2)]


@pytest.mark.parametrize(
    ("keep", "named"),
    [
        (["hand"], "head.*parts: leg"),
        (["hand@:2"], "keep=hand@:2 is no joint.*head.*parts: leg"),
        ([""], "keep= is no joint"),
        (["head@"], "keep=head@ is no joint"),
        (["@3"], "keep=@3 is no joint"),
        (1.5, "keep=1.5 is no joint"),
        ([7], "frames 0 to 6"),
        ([-8], "frames 0 to 6"),
        ([":"], "keeps all"),
        (["3:3"], "keeps nothing"),
        ([], "keeps nothing"),
        (["1:2:3"], "no frames such as"),
    ],
)
def test_what_cannot_be_kept_is_named(keep: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        given_by(keep, BODY, FRAMES)


@pytest.mark.parametrize(("frames", "kept"), [(LARGEST // (J * C) + 1, LARGEST), (LONGEST + 1, 1)])
def test_too_much_of_too_long_a_clip_is_refused_before_it_is_computed(frames: int, kept: int) -> None:
    model = module()
    given = torch.zeros(J, C, frames, dtype=torch.bool)
    given[..., :kept] = True
    with pytest.raises(ValueError, match=f"clip of {frames} frames.*keep fewer"):
        Known(torch.zeros(J, C, frames).double(), given, model.normalizer, model.diffusion.prediction, BODY)


def test_they_are_computed_where_the_clip_is_and_not_where_the_network_is() -> None:
    """Some devices have no float64, in which this is computed on the CPU."""
    model = module()
    here = Posterior(torch.zeros(J, C, FRAMES, device="meta"), model.normalizer, model.diffusion.prediction)
    assert here.power.device.type == "meta" and model.diffusion.prediction.log_power.device.type == "cpu"  # type: ignore[attr-defined]


def test_a_cost_acts_in_inference_mode_too() -> None:
    model, g = module(), torch.Generator().manual_seed(1)
    x0_hat = torch.randn(2, J, C, FRAMES, generator=g).double()

    def cost(positions: Tensor) -> Tensor:
        return positions.square().sum((1, 2, 3))

    def moved() -> Tensor:
        guidance = CostGuidance(x0_hat[0], model.normalizer, model.diffusion.prediction, cost)
        return guidance(x0_hat.clone(), torch.tensor([0.5]))

    with torch.inference_mode():
        found = moved()
    assert torch.equal(found, moved()) and not torch.equal(found, x0_hat)
