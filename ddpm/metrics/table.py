"""An evaluation as lines of text, at most 120 characters wide."""

from ddpm.errors import escaped
from ddpm.metrics.classifier import Classification
from ddpm.metrics.suite import Evaluation, Metric
from ddpm.metrics.verdict import is_far

SHORT = {"shuffled_frames": "shuffled", "noisy_1cm": "1cm off", "mean_pose": "mean"}
"""Short names of degraded sets, to fit a column."""


def lines(evaluation: Evaluation) -> list[str]:
    """One row per metric: generated with its interval, both floors, the degraded sets; ``!`` where `is_far`."""
    ceilings = list(next(iter(evaluation.metrics.values())).degraded)
    parts = [SHORT.get(name, name) for name in ceilings]
    head = f"  {'metric':<22}{'best':>5} {'generated':>9} {'95 %':>15} {'real':>8} {'people':>8}"
    found = [head + "".join(f"{part:>9}" for part in parts)]
    ordered = sorted(evaluation.metrics.items(), key=lambda item: rank(item[0]))
    for k, (name, metric) in enumerate(ordered):
        if k > 0 and rank(name) != rank(ordered[k - 1][0]):
            found.append("")
        found.append(_row(name, metric))
    found.append("")
    legend = "real: one half of the real clips against the other; people: the same with disjoint subjects"
    found.append(legend + ("; then degraded real clips" if ceilings else ""))
    far = sum(is_far(metric) for metric in evaluation.metrics.values())
    sizes = evaluation.clips
    found.append(
        f"!: {far} of {len(ordered)} metrics, with intervals worse than those of both floors; {sizes['generated_compared']} "
        f"generated and {sizes['reference_compared']} real clips in each repeat"
    )
    found += [
        f"  {name:<16} mean {number(mean['generated'])} generated, {number(mean['reference'])} real"
        for name, mean in evaluation.means.items()
    ]
    if evaluation.memorisation is not None:
        m = evaluation.memorisation
        found += [
            f"nearest training clip: {100 * float(m.samples.median()):.1f} cm away (median), of held-out clips "
            f"{100 * float(m.held_out.median()):.1f} cm; a sample is closer than a held-out",
            f"clip with probability {m.closer_than_held_out:.2f} (0.5: as new as they are); {len(m.suspects)} of "
            f"{len(m.samples)} look copied",
        ]
    if evaluation.classification is not None:
        found += _classified(evaluation.classification)
    return found


def rank(name: str) -> int:
    """Order of a metric's group: distances, then precision and the like, then physics."""
    kind = name.partition("/")[0]
    return {"frechet": 0, "kid": 0, "mmd": 0, "physics": 2, "freeze": 2}.get(kind, 1)


def number(value: float) -> str:
    """Three significant digits, without an exponent from 0.001 to 100,000."""
    if 100 <= abs(value) < 1e5:
        return f"{value:.0f}"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 100 or value == 0 else f"{value:.1e}"


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
        found.append(
            f"  {100 * j.generated_accuracy:.0f} % of {int(j.asked.sum())} labelled generated clips are put where they belong"
        )
    if not j.in_metrics:
        found.append("  no frechet/classifier: it learned from clips of the reference; reference=held_out has it")
    for k in (j.generated - j.real).abs().argsort(descending=True, stable=True)[:5].tolist():
        shares = f"{100 * float(j.generated[k]):>5.1f} % of generated, {100 * float(j.real[k]):>5.1f} % of real clips"
        accuracy = f"right on {int(j.right[k])} of {int(j.tested[k])}"
        found.append(f"  {escaped(j.names[k], '')[:32]:<32} {shares}; {accuracy}")
    return found


def _row(name: str, metric: Metric) -> str:
    generated = metric.generated
    interval = f"{number(generated.low)}..{number(generated.high)}"
    people = "" if metric.by_subject is None else number(metric.by_subject.value)
    best = {"lower": "low", "higher": "high", "real": "real"}[metric.better]
    title = name.removeprefix("physics/") + (f" [{metric.unit}]" if metric.unit else "")
    ceilings = "".join(f"{number(score.value):>9}" for score in metric.degraded.values())
    mark = "!" if is_far(metric) else " "
    values = f"{number(generated.value):>9} {interval:>15} {number(metric.real.value):>8} {people:>8}"
    return f"{mark} {title:<22}{best:>5} {values}{ceilings}"
