"""The verdict on real clips that were changed in a known way."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from datamodules.clip_set import ClipSet
from datamodules.sets.synthetic import synthetic
from ddpm.clips import Clips
from ddpm.metrics.memorisation import Memorisation, memorisation
from ddpm.metrics.suite import Evaluation, Score, evaluate
from ddpm.metrics.verdict import findings
from tests.datamodules.test_msr_action3d import SKELETON
from tests.metrics.test_suite import motions_of


@pytest.fixture(scope="module")
def recordings() -> ClipSet:
    """240 recordings of synthetic people."""
    return synthetic(SKELETON, n=240)


def judged(recordings: ClipSet, change: Callable[[Tensor], Tensor]) -> Evaluation:
    mine, real = motions_of(recordings, range(80)), motions_of(recordings, range(80, 240))
    return evaluate(mine.replace(change(mine.positions.clone())), real, fast=True)


def named(found: Evaluation, steps: int | None = None) -> list[str]:
    return [finding.name for finding in findings(found, steps)]


def exchanged(x: Tensor) -> Tensor:
    """The names of left and right joints exchanged."""
    order = list(range(x.shape[2]))
    for left, right in SKELETON.left_right:
        a, b = SKELETON.index(left), SKELETON.index(right)
        order[a], order[b] = b, a
    return x[:, :, order]


def along(axis: int, scale: float, shift: float = 0.0) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        x[..., axis] = scale * x[..., axis] + shift
        return x

    return change


UP = SKELETON.up_axis
SIDE = SKELETON.ground_axes[0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x: x, []),
        (lambda x: 1.08 * x, []),
        (lambda x: exchanged(along(SIDE, -1)(x)), []),
        (along(UP, -1), ["unlike"]),
        (along(UP, 1, 5.0), ["unlike"]),
        (lambda x: 1000 * x, ["exploding"]),
        (lambda x: x[torch.arange(80) % 3], ["collapsed"]),
    ],
    ids=["real", "taller", "mirrored", "upside down", "high", "millimetres", "three"],
)
def test_real_clips_that_were_changed_are_diagnosed(
    recordings: ClipSet, change: Callable[[Tensor], Tensor], expected: list[str]
) -> None:
    found = judged(recordings, change)
    assert named(found) == expected
    assert named(found, steps=20) == ["short"]


def test_no_collapse_without_a_low_spread_or_recall(recordings: ClipSet) -> None:
    """Coverage is low of bodies of another size too."""

    def scored(spread: float, recall: float) -> list[str]:
        values = {"coverage/pose": 0.3, "precision/pose": 0.6, "recall/pose": recall}
        values |= {"apd": spread * honest.metrics["apd"].real.value}
        metrics = {name: replace(honest.metrics[name], generated=Score(v, v, v)) for name, v in values.items()}
        return named(replace(honest, metrics=honest.metrics | metrics))

    honest = judged(recordings, lambda x: x)
    assert scored(1.08, 0.82) == [] and scored(0.8, 0.82) == ["collapsed"] == scored(1.08, 0.1)


def test_longer_clips_do_not_explode_by_their_spread(recordings: ClipSet) -> None:
    found = judged(recordings, lambda x: x)
    apd = replace(found.metrics["apd"], generated=Score(*3 * [3.7 * found.metrics["apd"].real.value]))
    found = replace(found, metrics=found.metrics | {"apd": apd})
    assert named(found) == ["exploding"]
    assert named(replace(found, frames={"generated": 300.0, "reference": 60.0})) == ["length"]
    assert "exploding" in named(replace(judged(recordings, lambda x: 50 * x), frames={"generated": 300.0, "reference": 60.0}))


def test_copies_are_a_finding_and_new_motion_is_not(recordings: ClipSet) -> None:
    training, unseen = motions_of(recordings, range(120), frames=100), motions_of(recordings, range(120, 180))

    def found(mine: Clips) -> Evaluation:
        return replace(evaluate(mine, unseen, fast=True), memorisation=memorisation(mine, training, unseen))

    copied = findings(found(motions_of(recordings, range(40))))
    assert [finding.name for finding in copied] == ["copies"]
    assert "40 of 40 are closer to a training clip" in copied[0].text and "augment=default" in copied[0].text
    assert named(found(motions_of(recordings, range(180, 240)))) == []
    few = findings(found(motions_of(recordings, range(40)).take(torch.arange(40) % 3)))
    assert [finding.name for finding in few] == ["copies", "collapsed"]
    assert not [finding for finding in few if "train longer" in finding.text], "both give the same advice"


def test_the_shipped_models_are_not_called_copies(recordings: ClipSet) -> None:
    """7 suspects in 256, as of the model of twenty minutes; half of the clips in motion that is new, of people who repeat
    themselves; nor what lies close without being below the limit."""
    honest = judged(recordings, lambda x: x)

    def called(suspects: int, nearer: int) -> list[str]:
        """Of 256 distances, some below the limit, some more below all those of held-out clips."""
        samples = torch.full((256,), 3.0)
        samples[:nearer], samples[:suspects] = 0.9, 0.5
        held_out = torch.full((100,), 2.0)
        held_out[0] = 0.6
        return named(replace(honest, memorisation=Memorisation(samples, torch.zeros(256).long(), held_out, 0.6)))

    assert called(7, 98) == called(7, 250) == called(130, 200) == []
    assert called(200, 240) == ["copies"]
