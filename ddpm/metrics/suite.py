"""The suite: every metric of generated clips, beside the same metric of real and of degraded clips."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ddpm.clips import Clips
from ddpm.metrics import degraded
from ddpm.metrics.alignment import has_heading
from ddpm.metrics.classifier import Classification, classification, classifier_of
from ddpm.metrics.comparison import Measured, compare, measures
from ddpm.metrics.features import Projection
from ddpm.metrics.memorisation import Memorisation, memorisation
from ddpm.metrics.reference import LEAST, RealData, Reference, full_recordings, held_out
from ddpm.metrics.reference import reference as real_clips
from ddpm.seeding import derive_seed
from ddpm.skeleton import Skeleton


@dataclass(frozen=True)
class Score:
    """A metric of one set of clips: mean over the repeats, each on a random half of the clips, and 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Metric:
    """One metric of all sets of clips."""

    unit: str  # of its values, empty for a pure number
    better: Literal["lower", "higher", "real"]  # whether lower or higher values are better, or those closest to real
    generated: Score  # of the generated clips
    real: Score  # the floor: one half of the reference against the other
    by_subject: Score | None  # the same with disjoint subjects, None where these are unknown or have too few clips to be split
    degraded: dict[str, Score]  # name of a degraded set -> its score; empty in a fast evaluation


@dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate`."""

    metrics: dict[str, Metric]  # by name; physics/... are Wasserstein-1 distances of the distributions of physical measures
    means: dict[str, dict[str, float]]  # name of such a measure -> its mean over the generated and over the reference clips
    clips: dict[str, int]  # numbers of clips: generated, reference, and of each repeat generated_compared, reference_compared
    frames: dict[str, float]  # mean length of the generated and reference clips
    memorisation: Memorisation | None = None  # distances to the training clips, None if not computed
    classification: Classification | None = None  # predictions of a classifier of actions, None if not computed

    def to_dict(self) -> dict[str, object]:
        """Plain containers for a JSON file, with at most 20 of the samples that look copied."""
        found = None
        if (m := self.memorisation) is not None:
            copies = [
                {"sample": i, "training": int(m.neighbours[i]), "distance": float(m.samples[i])} for i in m.suspects[:20].tolist()
            ]
            median = {"generated": float(m.samples.median()), "held_out": float(m.held_out.median())}
            found = {"closer_than_held_out": m.closer_than_held_out, "limit": m.limit, "median": median}
            found |= {"n_suspects": len(m.suspects), "suspects": copies}
        metrics = {name: asdict(metric) for name, metric in self.metrics.items()}
        classifier = {} if self.classification is None else {"classifier": self.classification.to_dict()}
        sizes = {"means": self.means, "clips": self.clips, "frames": self.frames}
        return {"metrics": metrics, **sizes, "memorisation": found, **classifier}


def evaluate(
    generated: Clips,
    reference: Clips,
    *,
    subjects: Sequence[str] | None = None,
    legacy: bool = False,
    fast: bool = False,
    seed: int = 0,
    classifier: Callable[[Clips], Tensor] | None = None,
) -> Evaluation:
    """Every metric of generated clips, beside the same metric of real clips (the floor) and of degraded ones (the ceilings).

    Distances between finite sets depend on their sizes, hence all are compared at the same ones: a random half of the reference
    against a random half of the generated clips (fewer if the other half of the reference is smaller), against as many clips of
    that other half, and against the same clips of each degraded set. This is repeated; a value is the mean, its interval the
    middle 95 %. Half-samples without replacement vary as much as bootstrap samples do (Shao & Wu 1989), and hold no clip twice,
    which would bias kernel and nearest-neighbour metrics.

    Args:
        generated: clips to evaluate, at least 16.
        reference: real clips, at least 16, best held out from training.
        subjects: the person in each reference clip, for a floor with disjoint subjects.
        legacy: also the Fréchet distance of the kinetic features as published, for comparison with papers only; see
            :func:`ddpm.metrics.features.kinetic`.
        fast: 10 repeats and no degraded sets, for use during training. Else 100 repeats, and 20 for each degraded set.
        seed: of halves and degraded sets.
        classifier: gives ``(n, dim)`` features of a classifier that was trained on no clip of the reference.

    Raises:
        ValueError: too few clips, another skeleton or frame rate, a wrong number of subjects or only one, or a reference in which
            nothing differs.
    """
    if generated.skeleton != reference.skeleton or generated.fps != reference.fps:
        raise ValueError(
            f"metrics: generated and reference clips must have one skeleton and frame rate, got {generated.fps} and "
            f"{reference.fps} frames per second and {len(generated.skeleton.names)} and {len(reference.skeleton.names)} joints"
        )
    if min(len(generated), len(reference)) < LEAST:
        raise ValueError(
            f"metrics: at least {LEAST} clips are needed, got {len(generated)} generated, {len(reference)} reference"
        )
    if subjects is not None and (len(subjects) != len(reference) or len(set(subjects)) < 2):
        raise ValueError(
            f"metrics: {len(reference)} reference clips need as many subjects and two people at least, got {len(subjects)} of "
            f"{len(set(subjects))}"
        )

    def rng(purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(seed, purpose))

    half = len(reference) // 2
    compared = min(len(generated) // 2, len(reference) - half)
    repeats = 10 if fast else 100
    real, theirs = Measured.of(reference, legacy, classifier), Measured.of(generated, legacy, classifier)
    limit = max(1, min(24, compared // 10))
    projections = {name: Projection.fit(x, limit) for name, x in real.features.items()}

    def score(candidate: Measured, i: list[Tensor], j: list[Tensor]) -> dict[str, Score]:
        return {name: _summary(values) for name, values in compare(real, candidate, projections, i, j).items()}

    samples = [torch.randperm(len(generated), generator=rng(f"generated {s}"))[:compared] for s in range(repeats)]
    halves = [torch.randperm(len(reference), generator=rng(f"halves {s}")) for s in range(repeats)]
    one, other = [p[:half] for p in halves], [p[half : half + compared] for p in halves]
    scores = {"generated": score(theirs, one, samples), "real": score(real, one, other)}
    split = [] if subjects is None else [_by_subject(subjects, rng(f"subjects {s}")) for s in range(repeats)]
    apart = bool(split) and min(len(side) for sides in split for side in sides) >= LEAST // 2
    if apart:
        scores["by_subject"] = score(real, [a[:half] for a, _ in split], [b[:compared] for _, b in split])
    ceilings = {} if fast else _degraded(reference, rng)
    for name, clips in ceilings.items():
        scores[name] = score(Measured.of(clips, legacy, classifier), one[:20], other[:20])

    metrics = {}
    for name in scores["generated"]:
        unit, better = _meaning(name, reference.skeleton)
        mine, floor, people = scores["generated"][name], scores["real"][name], scores["by_subject"][name] if apart else None
        metrics[name] = Metric(unit, better, mine, floor, people, {ceiling: scores[ceiling][name] for ceiling in ceilings})
    means = {
        name: {"generated": float(x.mean()), "reference": float(real.numbers[name].mean())} for name, x in theirs.numbers.items()
    }
    sides = {"generated": generated, "reference": reference}
    sizes = {name: len(clips) for name, clips in sides.items()}
    frames = {name: float(clips.lengths.double().mean()) for name, clips in sides.items()}
    return Evaluation(metrics, means, {**sizes, "generated_compared": compared, "reference_compared": half}, frames)


def evaluate_all(
    generated: Clips, data: RealData, real: Reference, searched: int, *, legacy: bool, fast: bool, seed: int
) -> tuple[Evaluation, Clips | None]:
    """`evaluate` with a classifier of the actions of a data module, unless ``fast``, and a search for copies of its recordings.

    Args:
        real: of the data module, as long as the generated clips.
        searched: whole training recordings that are searched for copies, at most.

    Returns:
        The evaluation; and these recordings, None if there are none, or nothing is held out to compare with.
    """
    names = data.clips.class_names
    wanted = None if fast or not names else generated.label_codes(names)
    classifier = None if fast else classifier_of(data, seed)
    features = None if classifier is None or not real.held_out else classifier.features
    found = evaluate(generated, real.clips, subjects=real.subjects, legacy=legacy, fast=fast, seed=seed, classifier=features)
    if classifier is not None:
        seen = classification(classifier, data, generated, wanted, seed=seed, in_metrics=real.held_out)
        found = replace(found, classification=seen)
    if not searched or not len(held_out(data)):
        return found, None
    n = len(data.train_recordings)
    training = full_recordings(data, data.train_recordings[torch.linspace(0, n - 1, min(n, searched)).round().long()])
    unseen = real.clips if real.held_out else real_clips(data, "held_out").clips
    return replace(found, memorisation=memorisation(generated, training, unseen)), training


def _summary(values: Tensor) -> Score:
    low, high = values.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Score(float(values.mean()), low, high)


def _by_subject(subjects: Sequence[str], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Numbers of the clips of a random half of the people, and of the others, each in random order."""
    names = sorted(set(subjects))
    first = {names[k] for k in torch.randperm(len(names), generator=generator)[: len(names) // 2].tolist()}
    order = torch.randperm(len(subjects), generator=generator)
    mine = torch.tensor([subjects[k] in first for k in order.tolist()])
    return order[mine], order[~mine]


def _degraded(reference: Clips, rng: Callable[[str], torch.Generator]) -> dict[str, Clips]:
    sets = {
        "frozen": degraded.frozen(reference),
        "shuffled_frames": degraded.shuffled_frames(reference, rng("shuffled_frames")),
        "noisy_1cm": degraded.noisy(reference, rng("noisy_1cm")),
    }
    if has_heading(reference.skeleton):
        sets["mean_pose"] = degraded.mean_pose(reference)
        sets["gaussian"] = degraded.gaussian(reference, rng("gaussian"))
    return sets


def _meaning(name: str, skeleton: Skeleton) -> tuple[str, Literal["lower", "higher", "real"]]:
    kind, _, of = name.partition("/")
    if kind in ("precision", "recall", "coverage"):
        return "", "higher"
    if kind in ("density", "diversity", "apd", "freeze"):
        return ("m" if kind == "apd" else ""), "real"
    if kind == "physics":
        return ("dB" if of == "spectrum" else measures(skeleton)[of][0]), "lower"
    return "", "lower"
