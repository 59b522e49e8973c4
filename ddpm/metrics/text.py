"""An evaluation as lines of text, at most 120 characters wide."""

from ddpm.errors import escaped
from ddpm.metrics.classifier import Classification
from ddpm.metrics.suite import Evaluation, Metric
from ddpm.metrics.verdict import floors, is_far, ratios

SHORT = {"shuffled_frames": "mixed", "noisy_1cm": "1cm off", "mean_pose": "mean", "gaussian": "gauss"}
"""Short names of degraded sets, to fit a column."""
SPREAD = "spread (apd)"

LEAD = ("frechet/pose", "frechet/spectrum", "apd", "recall/pose", "physics/bone_variation", "physics/jerk")
"""What to read first, each in front of its group."""

ARROW = {"lower": "↓", "higher": "↑", "real": "≈"}

MEANING = {
    "frechet": "Fréchet distance of Gaussians fitted to the features; it depends on n, the number of generated clips",
    "kid": "kernel (inception) distance of the features, unbiased: about 0 for real, may be negative",
    "mmd": "maximum mean discrepancy, a kernel distance of the clips' coordinates, unbiased",
    "apd": "average pairwise distance of two clips, joint by joint",
    "precision": "share of generated clips that lie among real ones",
    "recall": "share of real clips that lie among generated ones",
    "density": "how densely generated clips lie among real ones",
    "coverage": "share of real clips with a generated one nearby",
    "diversity": "mean distance of two clips in the features",
    "freeze": "share of clips that move less than 99 in 100 real ones",
    "pose": "features: mean and deviation of every joint in the body's own axes",
    "spectrum": "features: how fast each joint swings, by frequency",
    "kinetic": "features: squared speed and acceleration of each joint",
    "geometric": "features: share of the frames in which each of 32 relations holds, as 'the right knee is bent'",
    "classifier": "features of a small classifier of the actions, trained on this data set",
    "physics": "Wasserstein-1 distance of the distributions over real and generated clips; the means are beside it",
    "bone_variation": "how much a bone's length varies within a clip, as a fraction of it",
    "asymmetry": "difference of left and right bones, as a fraction of their length",
    "skating_ratio": "share of the time in which a foot that stands slides",
    "skating_distance": "how far a standing foot slides",
    "penetration": "depth of the lowest joint below the floor",
    "pfc": "physical foot contact score (EDGE): how much bodies speed up while both feet slide",
}
"""A line on every name in the table, by a part of the name."""


def headline(evaluation: Evaluation) -> list[str]:
    """What to read first, beside real clips, in a few words each."""
    metrics, means, sizes = evaluation.metrics, evaluation.means, evaluation.clips
    distances = [
        f"{of} {number(metrics[name].generated.value)} (real {number(metrics[name].real.value)})"
        for name, of in (("frechet/pose", "poses"), ("frechet/spectrum", "spectra"))
        if name in metrics
    ]
    compared = f"{sizes['generated_compared']} against {sizes['reference_compared']} in a repeat"
    parts = [f"Fréchet distance at n={sizes['generated']}, {compared}: {', '.join(distances)}"]
    if "recall/pose" in metrics:
        parts.append(f"recall {metrics['recall/pose'].generated.value:.2f} (real {metrics['recall/pose'].real.value:.2f})")
    parts.append(f"of real: {', '.join(f'{name} {value:.2f}' for name, value in ratios(evaluation).items())}")
    if "bone_variation" in means:
        mine, real = (100 * means["bone_variation"][side] for side in ("generated", "reference"))
        parts.append(f"bones vary by {mine:.1f} % (real {real:.1f} %)")
    return parts


def lines(evaluation: Evaluation) -> list[str]:
    """One row per metric: generated and real with the intervals that decide `is_far`, marked ``!``; degraded sets, or means."""
    ceilings = [SHORT.get(name, name) for name in next(iter(evaluation.metrics.values())).degraded]
    found, physics, sizes = [], None, evaluation.clips
    for name in ordered(evaluation):
        if physics is None or (rank(name)[0] == 2) != physics:
            physics = rank(name)[0] == 2
            beside = f"{'mean of':>11} {'generated':>9} {'real':>9}" if physics else "".join(f" {part:>7}" for part in ceilings)
            found += [""] * bool(found)
            found.append(f"   {'metric':<{33 if physics else 25}}{'generated':>9} {'95 %':>15} {'real':>8} {'95 %':>15}{beside}")
        means = evaluation.means.get(name.removeprefix("physics/"))
        found.append(_row(name, evaluation.metrics[name], sizes["generated"], means))
    far = sum(is_far(metric) for metric in evaluation.metrics.values())
    degraded = f"; {ceilings[0]} to {ceilings[-1]}: degraded real clips" if ceilings else ""
    found += [
        "",
        "↓ lower is better, ↑ higher, ≈ close to real. real: one half of the real clips against the other; its interval also",
        f"covers splits by subject where subjects are known{degraded}",
        f"! marks a metric significantly worse than real clips: {far} of {len(evaluation.metrics)}",
        f"n={sizes['generated']}: generated clips, of which a repeat compares {sizes['generated_compared']} with "
        f"{sizes['reference_compared']} real ones; only equal numbers compare",
        *(f"  {part}: {text}" for part, text in meanings(evaluation)),
    ]
    if evaluation.memorisation is not None:
        m = evaluation.memorisation
        found += [
            f"nearest training clip: {100 * float(m.samples.median()):.1f} cm away (median), of held-out clips "
            f"{100 * float(m.held_out.median()):.1f} cm; a sample is closer than a held-out",
            f"clip with probability {m.closer_than_held_out:.2f} (0.5 for new motion); {len(m.suspects)} of "
            f"{len(m.samples)} look copied",
        ]
    if evaluation.classification is not None:
        found += _classified(evaluation.classification)
    return found


def ordered(evaluation: Evaluation) -> list[str]:
    """The names of the metrics, as they are to be shown."""
    return sorted(evaluation.metrics, key=rank)


def rank(name: str) -> tuple[int, int]:
    """Order of a metric's group: distances, then precision and the like, then physics; in it, what is to be read first."""
    group = {"frechet": 0, "kid": 0, "mmd": 0, "physics": 2}.get(name.partition("/")[0], 1)
    return group, LEAD.index(name) if name in LEAD else len(LEAD)


def title(name: str, metric: Metric, n: int) -> str:
    """What a row is called: a distance between distributions says so, and a Fréchet distance of how many generated clips."""
    kind, _, of = name.partition("/")
    called = {"physics": f"distance in {of.replace('_', ' ')}", "frechet": f"{name} n={n}", "apd": SPREAD}.get(kind, name)
    return called + (f" [{metric.unit}]" if metric.unit else "")


def meanings(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Parts of the names in the table and what they mean."""
    parts = {part for name in evaluation.metrics for part in name.split("/")}
    shown = {"physics": "distance in ...", "apd": SPREAD}
    return [(shown.get(part, part.replace("_", " ")), text) for part, text in MEANING.items() if part in parts]


def number(value: float) -> str:
    """Three significant digits, without an exponent from 0.001 to 100,000."""
    if 100 <= abs(value) < 1e5:
        return f"{value:.0f}"
    if 1e-3 <= abs(value) < 100 or value == 0:
        return f"{value:.3g}"
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")


def _classified(j: Classification) -> list[str]:
    """With the 5 classes whose shares differ most."""
    tested, confidence = int(j.tested.sum()), j.confidence
    found = [
        f"classifier: our own classifier of {len(j.names)} actions, trained on {j.trained} clips; compares "
        "with nothing published",
        f"  right on {100 * j.accuracy:.0f} % of {tested} held-out clips (the commonest class: {100 * j.chance:.0f} %); mean "
        f"confidence {confidence['generated']:.2f} generated, {confidence['real']:.2f} real",
    ]
    if j.generated_accuracy is not None and j.asked is not None:
        share = f"{100 * j.generated_accuracy:.0f} % of {int(j.asked.sum())}"
        found.append(f"  {share} labelled generated clips are classified as their label")
    if not j.in_metrics:
        found.append("  no frechet/classifier: it learned from clips of the reference; reference=held_out has it")
    for k in (j.generated - j.real).abs().argsort(descending=True, stable=True)[:5].tolist():
        shares = f"{100 * float(j.generated[k]):>5.1f} % of generated, {100 * float(j.real[k]):>5.1f} % of real clips"
        accuracy = f"right on {int(j.right[k])} of {int(j.tested[k])}"
        found.append(f"  {escaped(j.names[k], '')[:32]:<32} {shares}; {accuracy}")
    return found


def _row(name: str, metric: Metric, n: int, means: dict[str, float] | None) -> str:
    generated, (low, high) = metric.generated, floors(metric)
    sides = f"{_interval(generated.low, generated.high)} {number(metric.real.value):>8} {_interval(low, high)}"
    physics = name.startswith("physics/")
    beside = "".join(f" {number(score.value):>7}" for score in metric.degraded.values())
    if physics:
        beside = "" if means is None else f"{'':>11} {number(means['generated']):>9} {number(means['reference']):>9}"
    left = f"{'!' if is_far(metric) else ' '}{ARROW[metric.better]} {title(name, metric, n)}"
    values = f"{number(generated.value):>9} {sides}"
    return left + values.rjust((86 if physics else 78) - len(left)) + beside  # wide numbers take the room behind a short name


def _interval(low: float, high: float) -> str:
    return f"{number(low)}..{number(high)}".rjust(15)
