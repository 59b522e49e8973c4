"""The suite on motion whose quality is known: every degraded set is worse than real on the metrics meant to catch it."""

import json
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from datamodules.clip_set import ClipSet
from datamodules.clip_windows import Windows
from datamodules.sets.synthetic import synthetic
from ddpm.clips import Clips
from ddpm.metrics.memorisation import memorisation
from ddpm.metrics.suite import Evaluation, evaluate
from ddpm.skeleton import Skeleton
from tests.conftest import walk
from tests.datamodules.test_msr_action3d import SKELETON

FRAMES = 32


@pytest.fixture(scope="module")
def recordings() -> ClipSet:
    """240 recordings of synthetic people."""
    return synthetic(SKELETON, n=240)


def motions_of(clips: ClipSet, index: range, frames: int = FRAMES) -> Clips:
    batch = Windows(clips, frames).__getitems__(torch.tensor([[i, 0] for i in index]))
    return Clips.from_batch(batch["clips"], batch["mask"], fps=clips.fps, skeleton=clips.skeleton)


@pytest.fixture(scope="module")
def honest(recordings: ClipSet) -> Evaluation:
    """Real clips in the place of generated ones."""
    reference = range(80, 240)
    subjects = [str(recordings.subjects[i]) for i in reference]
    return evaluate(motions_of(recordings, range(80)), motions_of(recordings, reference), subjects=subjects, legacy=True)


def test_real_clips_score_like_real_clips(honest: Evaluation) -> None:
    """The intervals of generated and real overlap in every metric."""
    for name, metric in honest.metrics.items():
        assert metric.generated.low <= metric.generated.value <= metric.generated.high, name
        assert metric.generated.low <= metric.real.high and metric.real.low <= metric.generated.high, name
    assert honest.clips == {"generated": 80, "reference": 160, "generated_compared": 40, "reference_compared": 80}


CAUGHT = {
    "mean_pose": ["frechet/kinetic", "kid/kinetic", "frechet/pose", "kid/pose", "recall/pose", "coverage/pose", "apd", "freeze"],
    "frozen": ["frechet/kinetic", "kid/kinetic", "frechet/spectrum", "recall/kinetic", "physics/speed", "physics/jerk", "freeze"],
    "shuffled_frames": ["frechet/kinetic", "frechet/spectrum", "physics/jerk", "physics/acceleration", "physics/pfc"],
    "gaussian": [
        "frechet/kinetic",
        "frechet/pose",
        "frechet/geometric",
        "coverage/pose",
        "physics/bone_variation",
        "physics/spectrum",
    ],
    "noisy_1cm": [
        "frechet/kinetic",
        "frechet/spectrum",
        "physics/jerk",
        "physics/bone_variation",
        "physics/spectrum",
        "recall/kinetic",
    ],
}


@pytest.mark.parametrize("ceiling", CAUGHT)
def test_degraded_sets_are_worse_than_real(honest: Evaluation, ceiling: str) -> None:
    """By more than the intervals' widths."""
    for name in CAUGHT[ceiling]:
        metric = honest.metrics[name]
        bad, real = metric.degraded[ceiling], metric.real
        if metric.better == "lower":
            assert bad.low > real.high, name
        elif metric.better == "higher":
            assert bad.high < real.low, name
        else:
            assert bad.low > real.high or bad.high < real.low, name


def test_a_frozen_model_is_called_frozen(recordings: ClipSet) -> None:
    real = motions_of(recordings, range(60))
    frozen = real.replace(real.positions[:, :1].expand_as(real.positions))
    found = evaluate(frozen, motions_of(recordings, range(60, 180)), fast=True)
    assert found.metrics["freeze"].generated.value == 1
    assert found.metrics["freeze"].real.value < 0.1
    assert found.means["speed"]["generated"] == 0 < found.means["speed"]["reference"]
    assert not found.metrics["freeze"].degraded


def test_the_floor_by_subject_keeps_people_apart(skeleton: Skeleton) -> None:
    """A tall and a short person: random halves hold both, halves of the people one each."""
    x = walk(80, 8, 20, 3)
    x[::2] *= 1.5
    people = Clips(x, torch.full((80,), 8), 20.0, skeleton)
    found = evaluate(people, people, subjects=["tall", "short"] * 40, fast=True).metrics["physics/speed"]
    assert found.by_subject is not None
    assert found.by_subject.low > 2 * found.real.high
    uneven = evaluate(people, people, subjects=["tall"] * 77 + ["short"] * 3, fast=True).metrics["physics/speed"]
    assert uneven.by_subject is None


def test_it_is_a_function_of_the_seed(recordings: ClipSet) -> None:
    a, b = motions_of(recordings, range(40)), motions_of(recordings, range(40, 100))
    once, again, other = (evaluate(a, b, fast=True, seed=seed).to_dict() for seed in (1, 1, 2))
    assert once == again != other


def test_copies_are_reported(recordings: ClipSet) -> None:
    training = motions_of(recordings, range(60), frames=100)
    copies = motions_of(recordings, range(25))
    reference = motions_of(recordings, range(60, 120))
    found = replace(evaluate(copies, reference, fast=True), memorisation=memorisation(copies, training, reference))
    plain = found.to_dict()
    assert plain["memorisation"]["n_suspects"] == 25
    assert [(s["sample"] == s["training"]) for s in plain["memorisation"]["suspects"]] == [True] * 20
    assert json.loads(json.dumps(plain)) == plain


@pytest.mark.slow
def test_the_interval_is_the_sampling_error(skeleton: Skeleton) -> None:
    """Half of 200 clips without replacement scatter like samples of 200: here the mean distance, over 12 sets of clips."""
    drawn = [Clips(walk(200, 6, 20, 3, seed), torch.full((200,), 6), 20.0, skeleton) for seed in range(12)]
    reference = Clips(walk(400, 6, 20, 3, 99), torch.full((400,), 6), 20.0, skeleton)
    scores = [evaluate(m, reference, fast=True).metrics["apd"].generated for m in drawn]
    spread = torch.tensor([s.value for s in scores]).std()
    width = torch.tensor([s.high - s.low for s in scores]).mean()
    assert 0.5 < float(width / (2 * 1.54 * spread)) < 2  # the 2.5 % quantile of 10 values lies at 1.3 to 1.6 deviations


def test_two_dimensions_and_a_bare_skeleton(flat: Clips, motions: Clips) -> None:
    """What the skeleton has no definition for is absent, everything else is there and finite."""
    bare = Clips(motions.positions, motions.lengths, 20.0, Skeleton(motions.skeleton.joints))
    for case, absent in ((flat, {"geometric", "pfc"}), (bare, {"pfc", "pose", "apd", "asymmetry"})):
        found = evaluate(case.take(torch.arange(20)), case.take(torch.arange(20, 40)), legacy=True, fast=True)
        names = {part for name in found.metrics for part in name.split("/")}
        assert not names & absent
        assert {"kinetic", "spectrum", "freeze", "bone_variation", "kinetic_legacy"} <= names
        for metric in found.metrics.values():
            assert all(torch.tensor([s.value, s.low, s.high]).isfinite().all() for s in (metric.generated, metric.real))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: (m.take(torch.arange(15)), m, None), "at least 16 clips are needed, got 15 generated, 40 reference"),
        (lambda m: (m, Clips(m.positions, m.lengths, 30.0, m.skeleton), None), r"got 20\.0 and 30\.0 frames per second"),
        (lambda m: (m, m, ["a"] * 39), "40 reference clips need as many subjects and two people at least, got 39 of 1"),
        (lambda m: (m, m, ["a"] * 40), "got 40 of 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    motions: Clips, change: Callable[[Clips], tuple[Clips, Clips, list[str] | None]], message: str
) -> None:
    generated, reference, subjects = change(motions)
    with pytest.raises(ValueError, match=message):
        evaluate(generated, reference, subjects=subjects)


@pytest.mark.slow
def test_a_thousand_clips_take_less_than_a_minute(skeleton: Skeleton) -> None:
    """64 frames each, everything, in seconds of processor time on all cores together."""
    a, b = (Clips(walk(1000, 64, 20, 3, seed), torch.full((1000,), 64), 20.0, skeleton) for seed in (1, 2))
    begin = time.process_time()
    evaluate(a, b, legacy=True)
    assert time.process_time() - begin < 60
