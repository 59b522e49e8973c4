"""Labels as a condition: what the network is told, in training and in sampling, and guidance where the answers are known."""

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ddpm import load
from ddpm.checkpoint_io import DurableCheckpointIO
from ddpm.config import construct_part
from ddpm.denoiser import guided_network
from ddpm.guide import Autoguidance
from ddpm.module import MotionDiffusion, build_module
from ddpm.normalizer import Normalizer
from ddpm.process.condition import LabelCondition, guided, several
from ddpm.process.diffusion import Denoised, DenoiseDiffusion
from ddpm.process.prediction import EDM, X0, Epsilon, Prediction, Velocity
from ddpm.process.samplers import Sampler, SeededNoise, ddim, dpmpp_2m, heun, unipc
from ddpm.process.schedules import cosine, zero_terminal_snr
from ddpm.skeleton import Skeleton

NAMES = ("walk", "bow", "wave")
COUNTS = (5, 3, 0, 2)
LABELS = {"_target_": "ddpm.process.condition.LabelCondition", "_partial_": True, "dropout": 0.1, "guidance": 1.25}
SEEDS = range(20)


def condition(**changes: Any) -> LabelCondition:
    return LabelCondition(**{"names": NAMES, "counts": COUNTS, **changes})


# --- labels


def test_a_label_is_one_number_of_several() -> None:
    told = condition(counts=(5, 3, 1, 2)).encode(torch.tensor([0, 2, -1, 1]))
    assert told.dtype == torch.float32 and told.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert not condition().encode(torch.tensor([2])).any(), "of waves there is a name and no clip: nothing was learned of them"


def test_guidance_needs_clips_whose_label_is_hidden() -> None:
    with pytest.raises(ValueError, match=r"condition\.guidance=2\.0 with condition\.dropout=0"):
        condition(counts=(5, 3, 1, 0), dropout=0.0, guidance=2.0)
    assert condition(counts=(5, 3, 1, 4), dropout=0.0, guidance=2.0).guidance == 2
    assert condition(counts=(5, 3, 1, 0), dropout=0.0, guidance=1.0).dropout == 0


def test_drawn_labels_are_as_frequent_as_in_training() -> None:
    """Also those of unlabelled clips; what training never showed is never drawn."""
    n = 4000
    drawn = condition().draw(range(n))
    assert drawn.shape == (n,) and drawn.dtype == torch.int64
    counts = torch.bincount(drawn + 1, minlength=4).double()
    expected = n * torch.tensor([2, 5, 3, 0]).double() / 10
    assert counts[3] == 0 and counts.sum() == n
    assert ((counts - expected)[:3] ** 2 / expected[:3]).sum() < 13.8  # one in a thousand with 2 degrees of freedom


@pytest.mark.parametrize(("counts", "only"), [((0, 4, 0, 0), 1), ((0, 0, 1, 0), 2), ((0, 0, 0, 7), -1), ((9, 0, 0, 0), 0)])
def test_one_kind_is_always_drawn(counts: Sequence[int], only: int) -> None:
    assert (condition(counts=counts).draw(range(100)) == only).all()


def test_a_label_depends_on_its_own_seed_alone() -> None:
    labels = condition().draw([3, 8, 1, 8])
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert condition().draw([8]) == labels[1] == labels[3] and condition().draw([1]) == labels[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_label_says_nothing_of_the_noise_of_its_clip() -> None:
    """They have a seed in common and no number: the noise of each action's clips is standard normal, to 5 standard errors."""
    seeds = range(1000)
    labels, noise = condition().draw(seeds), SeededNoise(seeds, (4,))()
    for label in (-1, 0, 1):
        part = noise[labels == label]
        assert part.mean(dim=0).abs().max() < 5 / len(part) ** 0.5
        assert (part.var(dim=0) - 1).abs().max() < 5 * (2 / len(part)) ** 0.5


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.7])
def test_labels_are_hidden_as_often_as_they_should_be(dropout: float) -> None:
    torch.manual_seed(0)
    labels = torch.arange(30_000) % 4 - 1
    shown = condition(dropout=dropout).hide(labels)
    hidden = shown != labels
    assert (shown[hidden] == -1).all() and shown.shape == labels.shape and shown.dtype == labels.dtype
    known = labels >= 0
    share = hidden[known].float().mean().item()
    assert share == pytest.approx(dropout, abs=5 * (dropout * (1 - dropout) / known.sum().item()) ** 0.5)
    assert not hidden.any() or len(labels[hidden].unique()) == 3, "of every action"


def test_actions_are_found_by_name() -> None:
    assert condition().find(["bow", "walk", "bow"]).tolist() == [1, 0, 1]
    assert condition().find(["bow"]).dtype == torch.int64
    for unknown in ("run", "wave", ""):  # of waves there is a name and no clip
        with pytest.raises(ValueError, match=f"^action={unknown}: the model knows walk, bow$"):
            condition().find(["walk", unknown])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"dropout": 1.0}, r"condition\.dropout=1\.0 must be in \[0, 1\)"),
        ({"dropout": -0.1}, r"dropout=-0\.1"),
        ({"dropout": float("nan")}, "dropout=nan"),
        ({"guidance": -1.0}, r"guidance=-1\.0 must be a number that is not negative"),
        ({"guidance": float("nan")}, "guidance=nan"),
        ({"interval": [2.0, -3.0]}, r"condition\.interval=\[2\.0, -3\.0\] must be \[low, high\]"),
        ({"interval": [1.0]}, r"condition\.interval=\[1\.0\]"),
        ({"counts": (5, 3, 1)}, r"3 names need 4 counts, got \[5, 3, 1\]"),
        ({"counts": (0, 0, 0, 0)}, r"counts, got \[0, 0, 0, 0\]"),
    ],
)
def test_bad_values_are_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        condition(**changes)


# --- guidance


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0, 1.25, 7.0])
def test_guidance_is_a_line_through_both_answers(weight: float) -> None:
    """At 0 what is said without the condition and at 1 what is said with it, to the last bit."""
    xt, with_it, without = torch.randn(3, 5, 2, 4, dtype=torch.float64)
    ab = torch.tensor(0.3, dtype=torch.float64)
    one, other = (Denoised(x0_hat, (xt - ab.sqrt() * x0_hat) / (1 - ab).sqrt(), 0.5) for x0_hat in (with_it, without))
    got = guided(one, other, weight)
    torch.testing.assert_close(got.x0_hat, without + weight * (with_it - without))
    torch.testing.assert_close(got.eps_hat, other.eps_hat + weight * (one.eps_hat - other.eps_hat))
    torch.testing.assert_close(ab.sqrt() * got.x0_hat + (1 - ab).sqrt() * got.eps_hat, xt)
    assert got.fraction == 0.5
    for end, said in ((0.0, other), (1.0, one)):
        assert weight != end or (torch.equal(got.x0_hat, said.x0_hat) and torch.equal(got.eps_hat, said.eps_hat))


MEANS = torch.tensor([[0.9, 0.2, -0.5], [-0.8, 0.4, 0.1], [0.1, -1.0, 0.7]], dtype=torch.float64)
STDS = torch.tensor([0.3, 0.6, 0.4], dtype=torch.float64)
SHARES = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


class Knowing(nn.Module):
    """The exact network of clips of which each number is N(mean, std^2), both of the action; told none, of the mixture."""

    def __init__(self, prediction: Prediction) -> None:
        super().__init__()
        self.prediction = prediction
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.alpha_bar = torch.zeros(0)
        self.told: list[Tensor] = []

    def forward(self, xt: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        self.told.append(cond)
        xt = xt.double()
        ab = self.alpha_bar.double()[t].reshape(-1, 1, 1, 1, 1)
        mean, std = MEANS[None, :, None, :, None], STDS[None, :, None, None, None]
        var = ab * std**2 + 1 - ab
        off = xt[:, None] - ab.sqrt() * mean  # (clip, action, joint, coord, frame)
        each = mean + ab.sqrt() * std**2 / var * off
        likely = SHARES.log() - (off.square() / var + var.log()).flatten(2).mean(dim=2) * off[0, 0].numel() / 2
        weight = torch.where(cond.sum(dim=1, keepdim=True) > 0, cond.double(), likely.softmax(dim=1))
        x0_hat, ab = (weight[:, :, None, None, None] * each).sum(dim=1), ab[:, 0]
        return self.scale * self.prediction.target(x0_hat, (xt - ab.sqrt() * x0_hat) / (1 - ab).sqrt(), ab)


def knowing(
    guidance: float = 1.0, told: LabelCondition | None = None, prediction: Prediction | None = None, **arguments: Any
) -> MotionDiffusion:
    """One joint, whose normalised positions are its positions."""
    prediction = X0() if prediction is None else prediction
    network = Knowing(prediction)
    schedule = cosine if prediction.needs_signal else partial(zero_terminal_snr, base=cosine)
    diffusion = DenoiseDiffusion(network, 1000, beta_schedule=schedule, prediction=prediction).double()
    network.alpha_bar = diffusion.alpha_bar
    told = LabelCondition(NAMES, [5, 3, 2, 0], 0.1, guidance) if told is None else told
    sampler = partial(unipc, steps=40)
    normalizer = Normalizer(1, 3)
    normalizer.fitted.fill_(True)
    return MotionDiffusion(diffusion, normalizer, Skeleton({"hip": None}), 20.0, 2, sampler, condition=told, **arguments)


@pytest.mark.parametrize(
    "sampler", [partial(ddim, steps=500), partial(heun, steps=121), partial(dpmpp_2m, steps=80), partial(unipc, steps=40)]
)
@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("prediction", [X0(), Epsilon(), Velocity(), EDM(0.5)], ids=lambda p: type(p).__name__)
def test_an_action_is_sampled_as_it_is(prediction: Prediction, label: int, sampler: Sampler) -> None:
    """The flow to a Gaussian is a straight line: mean and deviation are within 2 % in every clip, without sampling error."""
    module = knowing(guidance=1.0, prediction=prediction)
    labels = torch.full((20,), label)
    clips = module.sample(SEEDS, labels=labels, sampler=sampler).positions
    noise = module.noise(SEEDS)().double().permute(0, 3, 1, 2)
    off = clips - MEANS[label] - STDS[label] * noise
    assert (off.abs() < 0.02 * (MEANS[label].abs() + STDS[label] * noise.abs())).all()
    assert torch.equal(module.sample(SEEDS, labels=labels, sampler=sampler, guidance=1.0).positions, clips)


def test_without_guidance_the_network_is_asked_once_a_step() -> None:
    module = knowing(guidance=1.0)
    for guidance, times in ((None, 1), (1.0, 1), (0.0, 2), (2.0, 2)):
        module.diffusion.eps_model.told.clear()
        module.sample([0], labels=torch.tensor([1]), guidance=guidance)
        told = torch.cat(module.diffusion.eps_model.told)
        assert len(told) == 40 * times and told[::times].tolist() == [[0, 1, 0]] * 40
        assert times == 1 or not told[1::2].any()


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 1.25, 4.0])
def test_guided_answers_are_a_line_through_the_exact_ones(weight: float) -> None:
    module = knowing()
    xt, t = torch.randn(9, 1, 3, 2, dtype=torch.float64), torch.linspace(0, 999, 9).long()
    cond = module.condition.encode(torch.arange(9) % 3)
    with torch.no_grad():
        with_it = module.diffusion.eps_model(xt, t, cond)
        without = module.diffusion.eps_model(xt, t, torch.zeros(9, 3))
        said = module.denoiser(cond, weight, None)(xt, t)
        nothing = module.denoiser(None, weight, None)(xt, t)
    torch.testing.assert_close(said.x0_hat, torch.lerp(without, with_it, weight))
    ab = module.diffusion.alpha_bar[t].reshape(-1, 1, 1, 1)
    torch.testing.assert_close(ab.sqrt() * said.x0_hat + (1 - ab).sqrt() * said.eps_hat, xt)
    assert torch.equal(nothing.x0_hat, without), "without an action there is nothing to guide towards"
    assert (with_it - without).abs().max() > 0.5


def test_guidance_does_not_make_people_faster() -> None:
    """The steps of the root keep the answers of the condition, whatever the weight above 1; all else is led away."""
    module, t = knowing(), torch.linspace(100, 900, 9).long()
    xt = torch.randn(9, 2, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cond, steps = module.condition.encode(torch.arange(9) % 3), torch.zeros(2, 3, dtype=torch.bool)
    normalizer = Normalizer(2, 3, root=1, travel=(0, 2))
    steps[1, [0, 2]] = True
    with torch.no_grad():
        half, told, led = (
            guided_network(module.diffusion, normalizer, module.condition, weight)(xt, t, cond) for weight in (0.5, 1.0, 3.0)
        )
    for less, conditional, more in zip(half[:2], told[:2], led[:2], strict=True):
        assert torch.equal(more[:, steps], conditional[:, steps])
        assert ((more - conditional).abs().amax((0, 3)) > 0.1)[~steps].all()
        assert ((less - conditional).abs().amax((0, 3)) > 0.1).all(), "less guidance than the condition's is for all alike"


def test_the_weight_0_forgets_the_action() -> None:
    module = knowing()
    anything = module.sample(SEEDS, labels=torch.full((20,), -1)).positions
    for label in (0, 2):
        free = module.sample(SEEDS, labels=torch.full((20,), label), guidance=0.0).positions
        torch.testing.assert_close(free, anything, rtol=0, atol=1e-6)


def test_actions_that_are_drawn_make_the_mixture() -> None:
    """Told or not, clips are of an action as often as in training: of 300, within 5 standard errors."""
    module, seeds = knowing(guidance=1.0), range(300)
    labels = module.labels(seeds)
    told, free = module.sample(seeds).positions, module.sample(seeds, labels=torch.full((300,), -1)).positions
    assert torch.equal(told, module.sample(seeds, labels=labels).positions) and torch.equal(labels, module.condition.draw(seeds))
    for clips in (told, free):
        nearest = torch.cdist(clips[:, :, 0].double().mean(dim=1), MEANS).argmin(dim=1)
        share = torch.bincount(nearest, minlength=3) / 300
        assert ((share - SHARES).abs() < 5 * (SHARES * (1 - SHARES) / 300).sqrt() + 0.05).all()


def test_more_guidance_goes_further_from_the_others() -> None:
    """Clips of the first action move away from the mean of all."""
    module = knowing()
    labels = torch.zeros(20, dtype=torch.long)
    away = MEANS[0] - SHARES @ MEANS
    along = [
        (module.sample(SEEDS, labels=labels, guidance=weight).positions @ away).mean().item() for weight in (0.0, 1.0, 2.0, 4.0)
    ]
    assert along == sorted(along) and along[-1] > along[1]


def test_the_weight_of_the_condition_is_used_unless_told_otherwise() -> None:
    labels = torch.arange(20) % 3
    expected = knowing(guidance=2.0).sample(SEEDS, labels=labels).positions
    assert torch.equal(knowing(guidance=0.5).sample(SEEDS, labels=labels, guidance=2.0).positions, expected)
    assert not torch.allclose(knowing(guidance=0.5).sample(SEEDS, labels=labels).positions, expected, atol=1e-2)


def test_guidance_acts_within_its_interval_alone() -> None:
    """Where it does not, answers are those of the condition, and the network is asked once."""
    everywhere = knowing(guidance=3.0)
    within = knowing(told=LabelCondition(NAMES, [5, 3, 2, 0], guidance=3.0, interval=[-1.0, 2.0]))
    logsnr = torch.logit(within.diffusion.alpha_bar)
    inside = (logsnr >= -1) & (logsnr <= 2)
    assert inside.any() and not inside.all()
    cond = within.condition.encode(torch.zeros(len(inside), dtype=torch.long))
    xt = torch.randn(len(inside), 1, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.arange(len(inside))
    one, all_of_it = within.denoiser(cond, None, None)(xt, t), everywhere.denoiser(cond, None, None)(xt, t)
    told = within.denoiser(cond, 1.0, None)(xt, t)
    for got, guided_everywhere, unguided in zip(one[:2], all_of_it[:2], told[:2], strict=True):
        assert torch.equal(got[inside], guided_everywhere[inside]) and torch.equal(got[~inside], unguided[~inside])
        assert not torch.allclose(got[inside], unguided[inside], atol=1e-2)
    assert [within.calls_at(k) for k in range(len(inside))] == [2 if k else 1 for k in inside.tolist()]
    assert knowing(guidance=1.0).calls_at(0) == 1


class Erring(Knowing):
    """x0_hat is off by a wave that depends on the noisy clip."""

    def __init__(self, error: float) -> None:
        super().__init__(X0())
        self.error = error

    def forward(self, xt: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return super().forward(xt, t, cond) + self.error * torch.sin(3 * xt.double())


def erring(error: float, **arguments: Any) -> MotionDiffusion:
    module = knowing(**arguments)
    network = Erring(error)
    network.alpha_bar = module.diffusion.alpha_bar
    module.diffusion.eps_model = network
    return module


def test_autoguidance_takes_away_an_error_that_the_other_model_has_twice() -> None:
    """good + (good - worse) = (x0 + e) + (x0 + e - x0 - 2e) = x0."""
    exact, good, worse = knowing().sample(SEEDS).positions, erring(0.1), erring(0.2)
    torch.testing.assert_close(good.sample(SEEDS, guidance=Autoguidance(worse, 2.0)).positions, exact, rtol=0, atol=1e-5)
    assert (good.sample(SEEDS).positions - exact).abs().max() > 0.03
    assert torch.equal(
        good.sample(SEEDS, guidance=Autoguidance(worse, 1.0)).positions, good.sample(SEEDS, guidance=1.0).positions
    )
    anything = torch.full((20,), -1)
    free = good.sample(SEEDS, labels=anything, guidance=Autoguidance(worse, 2.0)).positions
    torch.testing.assert_close(free, knowing().sample(SEEDS, labels=anything).positions, rtol=0, atol=1e-5)


def test_a_guide_of_another_kind_is_refused() -> None:
    other = knowing(told=LabelCondition(("walk", "bow"), [5, 3, 0]))
    with pytest.raises(
        ValueError, match=r"guide: .*another condition than the model it guides \(2 actions, not 3 actions\); give"
    ):
        knowing().sample(1, guidance=Autoguidance(other, 2.0))
    for key, value, named in (
        ("fps", 7.5, r"frame rate .* \(7\.5 frames per second, not "),
        ("frames", 9, r"length .* \(frames=9, not "),
    ):
        other = knowing()
        setattr(other, key, value)
        with pytest.raises(ValueError, match=rf"mine: .*another {named}.*trainer\.max_steps=500"):
            knowing().sample(1, guidance=Autoguidance(other, 2.0, "mine"))
    for alpha_bar, named in ((lambda old: old[:-1], r"another T .*T=\d+, not T="), (lambda old: old / 2, "another schedule")):
        other = knowing()
        other.diffusion.alpha_bar = alpha_bar(other.diffusion.alpha_bar)
        with pytest.raises(ValueError, match=f"guide: .*{named}"):
            knowing().sample(1, guidance=Autoguidance(other, 2.0))
    other = knowing()
    other.normalizer.scale *= 2
    with pytest.raises(ValueError, match=r"guide: .*on other data"):
        knowing().sample(1, guidance=Autoguidance(other, 2.0))
    with pytest.raises(ValueError, match=r"guidance=-1\.0 must be"):
        knowing().sample(1, guidance=Autoguidance(knowing(), -1.0))


def test_a_clip_does_not_depend_on_its_neighbours() -> None:
    module = knowing(guidance=1.5)
    together = module.sample(SEEDS).positions
    torch.testing.assert_close(module.sample(SEEDS, batch_size=3).positions, together, rtol=0, atol=1e-6)
    for i in (4, 11):
        torch.testing.assert_close(module.sample([i]).positions[0], together[i], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"labels": torch.tensor([0, 3])}, r"labels=\[0, 3\].*from 0 to 2, or -1 for any action: walk, bow, wave"),
        ({"labels": torch.tensor([0, -2])}, "from 0 to 2"),
        ({"labels": torch.tensor([0])}, "one for each of 2 clips"),
        ({"labels": [0.0, 1.0]}, "must be int64"),
        ({"guidance": float("nan")}, "guidance=nan must be a number"),
        ({"guidance": -1}, "guidance=-1 must be a number"),
        ({"script": [("walk", 3.0)], "loop": True}, "neither frames nor loop"),
        ({"script": [("walk", float("nan"))]}, "pairs of an action and its seconds"),
        ({"script": [("walk", float("inf"))]}, "pairs of an action and its seconds"),
        ({"script": [("walk", 1e9)]}, "to 5000"),
        ({"script": [("walk", "3")]}, "pairs of an action"),
        ({"script": "walk:3"}, "pairs of an action"),
        ({"script": [("fly", 3.0)]}, "action=fly: the model knows walk, bow, wave"),
        ({"frames": 0}, "frames=0 must be a whole number from 1 to 100000"),
        ({"frames": 2.5}, "frames=2.5"),
        ({"frames": 10**9}, "frames=1000000000"),
    ],
)
def test_a_wrong_request_is_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        knowing().sample(2, **arguments)


def test_labels_may_be_a_list() -> None:
    assert torch.equal(knowing().sample(2, labels=[1, -1]).positions, knowing().sample(2, labels=torch.tensor([1, -1])).positions)


# --- training


def batches(n: int, clips: int = 30) -> DataLoader:
    """Clips with the labels 0, 1, 2 and, of every fourth, none."""
    g = torch.Generator().manual_seed(0)
    data = [
        {"clips": torch.randn(clips, 1, 3, 2, generator=g, dtype=torch.float64), "mask": None, "labels": torch.arange(clips) % 4}
        for _ in range(n)
    ]
    for batch in data:
        batch["labels"][batch["labels"] == 3] = -1
    return DataLoader(data, batch_size=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_training_hides_labels_and_validation_does_not(dropout: float) -> None:
    told = LabelCondition(NAMES, [5, 3, 2, 0], dropout)
    module = knowing(told=told, optimizer=partial(torch.optim.SGD, lr=0.0))
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, batches(60), batches(3))
    seen = torch.stack(module.diffusion.eps_model.told)
    assert seen.shape == (63, 30, 3)
    whole = told.encode(batches(1).dataset[0]["labels"])
    assert (seen[60:] == whole).all(), "validation"
    known = whole.sum(dim=1) > 0
    training = seen[:60, known]
    hidden = training.sum(dim=2) == 0
    assert (training[~hidden] == whole[known].expand_as(training)[~hidden]).all() and not seen[:60, ~known].any()
    share, n = hidden.double().mean().item(), hidden.numel()
    assert share == pytest.approx(dropout, abs=5 * (dropout * (1 - dropout) / n) ** 0.5)
    assert dropout == 0 or hidden.double().std(dim=0).min() > 0, "another choice in every batch"


def test_the_loss_is_that_of_the_condition() -> None:
    """The perfect network, told the action, has the loss of its actions' widths; told nothing, a larger one."""
    module = knowing().eval()
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(3000) % 3
    clips = MEANS[labels][:, None, :, None] + STDS[labels][:, None, None, None] * torch.randn(
        3000, 1, 3, 2, generator=g, dtype=torch.float64
    )
    t = torch.full((3000,), 600)
    eps = torch.randn(clips.shape, generator=g, dtype=torch.float64)
    ab = module.diffusion.alpha_bar[600].item()
    left = STDS**2 * (1 - ab) / (ab * STDS**2 + 1 - ab)
    expected = ab / (1 - ab) * left.mean().item()
    loss = module.loss({"clips": clips, "mask": None, "labels": labels}, eps, t).item()
    assert loss == pytest.approx(expected, rel=5 * (2 / clips.numel()) ** 0.5 * 1.5)
    blind = module.loss({"clips": clips, "mask": None, "labels": torch.full_like(labels, -1)}, eps, t).item()
    assert blind > 1.2 * loss


# --- without a condition


def test_a_model_without_labels_knows_no_actions(tiny_config: dict[str, Any]) -> None:
    module = build_module(tiny_config, fps=15.0)
    module.normalizer.fit(torch.randn(4, 20, 3, 8))
    with pytest.raises(ValueError, match=r"action: this model knows no actions.*condition=labels"):
        module.sample([0, 1], labels=torch.tensor([0, 1]))
    for guidance in (0.0, 2.0):
        with pytest.raises(ValueError, match=rf"guidance={guidance}: this model has no condition.*without labels"):
            module.sample([0, 1], guidance=guidance)
    assert module.labels([0, 1]) is None and module.conditions([0, 1]) is None
    assert torch.equal(module.sample([0, 1], guidance=1.0).positions, module.sample([0, 1]).positions)
    guided = module.sample([0, 1], guidance=Autoguidance(copy.deepcopy(module), 2.0))
    torch.testing.assert_close(guided.positions, module.sample([0, 1]).positions, rtol=0, atol=1e-5)
    module.loss({"clips": torch.randn(4, 20, 3, 8), "mask": None})


# --- built from a configuration


@pytest.mark.parametrize(
    ("counts", "there_are"), [((5, 3, 0, 2), True), ((5, 0, 0, 2), False), ((0, 0, 0, 9), False), ((), False)]
)
def test_one_action_is_nothing_to_choose_from(counts: Sequence[int], there_are: bool) -> None:
    assert several(counts) == there_are


@pytest.mark.parametrize(
    ("changes", "counts", "conditional"),
    [
        ({"condition": LABELS}, (5, 3, 0, 2), True),
        ({"condition": LABELS}, (), False),
        ({"condition": {}}, (5, 3, 0, 2), False),
        ({"condition": None}, (5, 3, 0, 2), False),
        ({}, (5, 3, 0, 2), False),
    ],
)
def test_actions_are_a_condition_where_there_are_several(
    tiny_config: dict[str, Any], changes: dict[str, Any], counts: Sequence[int], conditional: bool
) -> None:
    before = copy.deepcopy(tiny_config)
    module = build_module({**tiny_config, **changes}, 15.0, NAMES, counts)
    assert tiny_config == before and module.class_names == NAMES
    assert (module.condition is not None) == conditional
    if module.condition is not None:
        assert (module.condition.names, module.condition.counts) == (NAMES, counts)
        assert (module.condition.dropout, module.condition.guidance) == (0.1, 1.25)
        assert module.conditions([0], torch.tensor([1])).tolist() == [[0, 1, 0]]
    module.normalizer.fit(torch.randn(4, 20, 3, 8))
    batch = {"clips": torch.randn(4, 20, 3, 8), "mask": None, "labels": torch.tensor([0, -1, 1, 0])}
    assert module.loss(batch).isfinite() and module.sample([0, 1]).positions.shape == (2, 8, 20, 3)
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint["motion"]["label_counts"] == (list(counts) if conditional else [])


@pytest.mark.parametrize("model", ["unet", "transformer"])
def test_a_conditional_model_is_in_the_checkpoint(tiny_config: dict[str, Any], model: str, tmp_path: Path) -> None:
    config = {**tiny_config, "condition": LABELS}
    if model == "transformer":
        config["model"] = {
            "_target_": "ddpm.networks.transformer.MotionTransformer", "in_channels": 60, "model_channels": 8, "out_channels": 60,
            "frames": 8, "depth": 1, "num_heads": 2,
        }  # fmt: skip
    torch.manual_seed(0)
    module = build_module(config, 15.0, NAMES, COUNTS)
    for parameter in module.diffusion.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    module.normalizer.fit(torch.randn(4, 20, 3, 8))
    content: dict[str, Any] = {"state_dict": module.state_dict(), "hyper_parameters": config}
    module.on_save_checkpoint(content)
    DurableCheckpointIO().save_checkpoint(content, tmp_path / "x.ckpt")
    loaded = load(tmp_path / "x.ckpt")
    walks, bows = torch.zeros(3, dtype=torch.long), torch.ones(3, dtype=torch.long)
    for arguments in ({}, {"labels": walks}, {"labels": bows, "guidance": 3.0}):
        assert torch.equal(loaded.sample([1, 2, 3], **arguments).positions, module.sample([1, 2, 3], **arguments).positions)
    assert not torch.allclose(
        module.sample([1], labels=walks[:1]).positions, module.sample([1], labels=bows[:1]).positions, atol=1e-3
    )


def test_a_run_from_before_there_were_conditions_still_loads(tiny_config: dict[str, Any], tmp_path: Path) -> None:
    module = build_module(tiny_config, 15.0, NAMES)
    content: dict[str, Any] = {"state_dict": module.state_dict(), "hyper_parameters": tiny_config}
    content["motion"] = {"fps": 15.0, "class_names": list(NAMES)}
    DurableCheckpointIO().save_checkpoint(content, tmp_path / "x.ckpt")
    loaded = load(tmp_path / "x.ckpt")
    assert loaded.condition is None and loaded.project is None and loaded.class_names == NAMES


def test_bad_values_of_a_configuration_are_named(tiny_config: dict[str, Any]) -> None:
    assert construct_part(LABELS, "condition")(NAMES, COUNTS).guidance == 1.25
    for name, value in (("dropout", 1.5), ("guidance", -2.0)):
        with pytest.raises(ValueError, match=rf"condition\.{name}={value} must be"):
            build_module({**tiny_config, "condition": LABELS | {name: value}}, 15.0, NAMES, COUNTS)
    with pytest.raises(ValueError, match=r"condition\.dropuot.*no such argument"):
        build_module({**tiny_config, "condition": LABELS | {"dropuot": 0.1}}, 15.0, NAMES, COUNTS)
