"""Comparison: what is measured once of a set of clips, and every metric of many pairs of subsets of two such sets."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from ddpm.clips import Clips
from ddpm.metrics import physics
from ddpm.metrics.alignment import has_heading
from ddpm.metrics.distances import Pairs, cubic, frechet, gaussian_kernel, mean_within, spectral_distance, unbiased_mmd
from ddpm.metrics.features import Projection, band_energy, coordinates, kinetic, log_kinetic, pose, rested_log
from ddpm.metrics.geometric import geometric, has_geometric
from ddpm.metrics.neighbours import Neighbours
from ddpm.skeleton import Skeleton

NEIGHBOURS = ("kinetic", "pose")  # features for precision, recall, density, coverage and diversity


def measures(skeleton: Skeleton) -> dict[str, tuple[str, Callable[[Clips], Tensor]]]:
    """Name -> unit and function of every number of single clips that the skeleton allows."""
    floor = physics.has_floor(skeleton)
    known = (
        (True, "speed", "m/s", physics.speed),
        (True, "acceleration", "m/s^2", physics.acceleration),
        (True, "jerk", "m/s^3", physics.jerk),
        (skeleton.bones, "bone_variation", "", physics.bone_variation),
        (skeleton.bone_pairs, "asymmetry", "", physics.asymmetry),
        (floor, "skating_ratio", "", physics.skating_ratio),
        (floor, "skating_distance", "cm", physics.skating_distance),
        (floor, "penetration", "cm", physics.penetration),
        (physics.has_sided_feet(skeleton), "pfc", "", physics.pfc),
    )
    return {name: (unit, function) for there, name, unit, function in known if there}


@dataclass(frozen=True)
class Measured:
    """What the metrics need of a set of clips; row k of every tensor is clip k."""

    features: dict[str, Tensor]  # name -> (n, dim)
    numbers: dict[str, Tensor]  # name of a measure -> (n,)
    energy: Tensor  # (n, joints, bands)
    clips: Tensor | None  # (n, dim) anchored coordinates, None where the skeleton has no heading
    published: Tensor | None  # (n, 3 * joints) kinetic features as published, None unless legacy

    @classmethod
    def of(cls, clips: Clips, legacy: bool = False, classifier: Callable[[Clips], Tensor] | None = None) -> "Measured":
        """Everything that the skeleton allows, for the arguments see `ddpm.metrics.suite.evaluate`; a ValueError for clips that
        are not finite, or have fewer than 4 frames."""
        skeleton, energy = clips.skeleton, band_energy(clips.require_finite())
        features = {"kinetic": log_kinetic(clips), "spectrum": rested_log(energy).flatten(1)}
        if has_heading(skeleton):
            features["pose"] = pose(clips)
        if has_geometric(skeleton):
            features["geometric"] = geometric(clips)
        if classifier is not None:
            features["classifier"] = classifier(clips)
        numbers = {name: function(clips) for name, (_, function) in measures(skeleton).items()}
        resampled = coordinates(clips) if has_heading(skeleton) else None
        return cls(features, numbers, energy, resampled, kinetic(clips, legacy=True) if legacy else None)


def compare(
    reference: Measured, candidate: Measured, projections: dict[str, Projection], i: list[Tensor], j: list[Tensor]
) -> dict[str, Tensor]:
    """Name of a metric -> ``(subsets,)`` float64 values of a candidate against a reference.

    Args:
        candidate: clips to evaluate, measured with the same ``legacy``.
        projections: of the features, fitted on the reference.
        i: subsets of the reference, each the numbers of its clips, none twice.
        j: as many subsets of the candidate.
    """
    mine, theirs = _chosen(i, len(reference.energy)), _chosen(j, len(candidate.energy))

    def each(function: Callable[[Tensor, Tensor], float], a: Tensor, b: Tensor) -> Tensor:
        return torch.tensor([function(a[p], b[q]) for p, q in zip(i, j, strict=True)], dtype=torch.float64)

    found: dict[str, Tensor] = {}
    for name, project in projections.items():
        a, b = project(reference.features[name]), project(candidate.features[name])
        found[f"frechet/{name}"] = each(frechet, a, b)
        found[f"kid/{name}"] = unbiased_mmd(Pairs.of(cubic, a, b), mine, theirs)
        if name in NEIGHBOURS:
            pairs = Pairs.of(torch.cdist, a, b)
            near = Neighbours(pairs, share=min(float(mine.mean(1).min()), float(theirs.mean(1).min())))
            subsets = list(zip(mine.bool(), theirs.bool(), strict=True))
            values = [(*near.precision_recall(p, q), *near.density_coverage(p, q)) for p, q in subsets]
            for kind, column in zip(("precision", "recall", "density", "coverage"), zip(*values, strict=True), strict=True):
                found[f"{kind}/{name}"] = torch.tensor(column, dtype=torch.float64)
            found[f"diversity/{name}"] = mean_within(pairs.bb, theirs)
    if reference.clips is not None and candidate.clips is not None:
        pairs = Pairs.of(torch.cdist, reference.clips, candidate.clips)
        found["mmd/coordinates"] = unbiased_mmd(gaussian_kernel(pairs), mine, theirs)
        found["apd"] = mean_within(pairs.bb, theirs)
    for name, x in reference.numbers.items():
        found[f"physics/{name}"] = each(wasserstein_distance, x, candidate.numbers[name])
    found["physics/spectrum"] = each(spectral_distance, reference.energy, candidate.energy)
    found["freeze"] = each(physics.freeze_score, reference.numbers["speed"], candidate.numbers["speed"])
    if reference.published is not None and candidate.published is not None:
        found["frechet/kinetic_legacy"] = each(_standardised_frechet, reference.published, candidate.published)
    return found


def _chosen(subsets: list[Tensor], n: int) -> Tensor:
    """``(subsets, n)`` float64, 1 for the members."""
    chosen = torch.zeros(len(subsets), n, dtype=torch.float64)
    for row, members in zip(chosen, subsets, strict=True):
        row[members] = 1
    return chosen


def _standardised_frechet(reference: Tensor, generated: Tensor) -> float:
    """As published with these features: every one of them, divided by its standard deviation in the reference."""
    mean, scale = reference.mean(0), reference.std(0).clamp(min=1e-9)
    return frechet((reference - mean) / scale, (generated - mean) / scale)
