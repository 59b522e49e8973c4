"""Verdict: which metrics are far from real, what is wrong with the motion, why, and what to do."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ddpm.metrics.suite import Evaluation, Metric

ENOUGH_STEPS = 100  # training steps below which a model is not judged: its weights are still close to their initialisation
SLOW, WILD = 0.5, 10.0  # ratios to the real mean speed: below the first clips freeze, above the second they explode
SMOOTH, SHAKY = 0.6, 2.0  # ratios to the real jerk: below the first they are over-smooth, above the second they jitter
ALIKE, NARROW, SPREAD = 0.4, 0.85, 2.5
"""Ratios to the real mean distance between clips: below the first they collapse, below the second they are too alike, above the
third they explode."""

FEW, PRECISE, MISSED = 0.5, 0.5, 0.25
"""Ratios to the real coverage, precision and recall: below the first with precision above the second, clips collapse to few
modes, if recall is below the third or they are too alike."""
UNLIKE = 0.1  # ratio to the real precision and recall of poses: with both below it poses are unlike real ones
COPIED, CLOSER = 0.1, 0.85
"""Share of suspected copies (of held-out clips 0.01) and probability to be closer to training than those: above both, clips are
copied. New recordings of people in training, who repeat themselves, reach 0.5 and 0.78."""


class Finding(NamedTuple):
    """A fault: its name, and a text with the measurement, the likely causes and what to do."""

    name: str
    text: str


def steps_trained(step: int | None, saved: Mapping[str, Any]) -> int | None:
    """The training steps of a model at this step of its run; None if unknown, as of one that began with a trained model.

    Args:
        saved: what its checkpoint keeps of the configuration.
    """
    return None if any(str(override).startswith("finetune=") for override in saved.get("overrides", ())) else step


def is_far(metric: Metric) -> bool:
    """Whether the interval of the generated clips is entirely worse than those of both floors."""
    low, high = floors(metric)
    above, below = metric.generated.low > high, metric.generated.high < low
    return {"lower": above, "higher": below, "real": above or below}[metric.better]


def floors(metric: Metric) -> tuple[float, float]:
    """The interval of real clips against each other, widened to that with a change of people."""
    both = [metric.real] if metric.by_subject is None else [metric.real, metric.by_subject]
    return min(floor.low for floor in both), max(floor.high for floor in both)


def ratios(evaluation: Evaluation) -> dict[str, float]:
    """Name -> multiple of that of real clips: ``spread``, the mean distance of two clips (unless they have no heading), ``jerk``
    and ``speed``."""
    apd, means = evaluation.metrics.get("apd"), evaluation.means
    spread = {} if apd is None else {"spread": ratio(apd.generated.value, apd.real.value)}
    return spread | {name: ratio(means[name]["generated"], means[name]["reference"]) for name in ("jerk", "speed")}


def findings(evaluation: Evaluation, steps: int | None = None) -> list[Finding]:
    """The faults of generated motion as a whole; the limits are wide, so that motion can be poor without any finding.

    Args:
        steps: that their model was trained for, None if unknown. For a hardly trained model that is the only finding.
    """
    if steps is not None and steps < ENOUGH_STEPS:
        short = f"too short to judge: the model was trained for {steps} steps and needs some hundred. Train longer "
        return [Finding("short", f"{short}(trainer.max_epochs, trainer.max_steps)")]
    metrics, of_real = evaluation.metrics, ratios(evaluation)
    speed, jerk, spread = of_real["speed"], of_real["jerk"], of_real.get("spread", 1.0)
    still = metrics["freeze"].generated.value
    of = "pose" if "coverage/pose" in metrics else "kinetic"
    cover, precise, reach = (
        ratio(metrics[f"{kind}/{of}"].generated.value, metrics[f"{kind}/{of}"].real.value)
        for kind in ("coverage", "precision", "recall")
    )
    mine, real = evaluation.frames["generated"], evaluation.frames["reference"]
    longer = real < 0.75 * mine
    found: dict[str, str] = {}
    frozen = still > 0.5 or speed < SLOW
    if frozen:
        found["frozen"] = (
            f"motion freezes: {100 * still:.0f} % of the clips move less than 99 in 100 real ones, the mean speed is "
            f"{speed:.2f} of the real one. Likely too few training steps (the average of all motion stands still): train "
            "longer; else recordings shorter than a clip, which end in a held pose: choose fewer frames"
        )
    if ((spread > SPREAD and not longer) or speed > WILD) and not frozen:  # longer clips get further apart
        found["exploding"] = (
            f"motion explodes: spread is {spread:.1f} and speed {speed:.1f} times that of real clips. "
            "Likely numbers that are not normalised or not in metres: check the units of the data and the clips; else "
            "errors that grow from step to step of the sampler: prediction=x0 or velocity, a lower optimizer.lr, more "
            "training steps"
        )
    elif jerk > SHAKY:
        found["jittering"] = (
            f"motion jitters: its jerk is {jerk:.1f} times that of real clips. Likely noise that the network does not "
            "remove: train longer; else too few sampler.steps, a large condition.guidance, a network without "
            "model.input_amplitude, or prediction=epsilon: use gaussian"
        )
    elif jerk < SMOOTH and speed >= SLOW:
        spectrum = metrics["physics/spectrum"]
        found["smooth"] = (
            f"motion is over-smooth: its jerk is {jerk:.2f} of that of real clips at {speed:.2f} of their speed, and its "
            f"spectrum is {spectrum.generated.value:.1f} dB from theirs (real clips from each other "
            f"{spectrum.real.value:.1f} dB). Likely the network averages over fine detail: prediction=gaussian, more "
            "training steps, or a larger cap of the weights (weighting.gamma)"
        )
    if of == "pose" and max(precise, reach) < UNLIKE and not found.keys() & {"frozen", "exploding"}:
        found["unlike"] = (
            f"poses are unlike real ones: {100 * metrics['precision/pose'].generated.value:.0f} % of the generated clips lie "
            f"among real ones, {100 * metrics['recall/pose'].generated.value:.0f} % of the real ones among generated ones. Of "
            "clips from elsewhere check the units, the floor (at 0 m), the up axis and the names of left and right joints; of a "
            "model: train longer"
        )
    m = evaluation.memorisation
    if m is not None and len(m.suspects) > COPIED * len(m.samples) and m.closer_than_held_out > CLOSER and not frozen:
        found["copies"] = (
            f"clips look copied from training: {len(m.suspects)} of {len(m.samples)} are closer to a training clip than 99 in "
            f"100 held-out ones are, and a clip is closer than a held-out one with probability {m.closer_than_held_out:.2f} "
            "(0.5 for new motion). Likely the model has learned its recordings by heart, unless the clips are parts of them: "
            "train less, on more data, or with augment=default; good values of the other metrics are then no merit"
        )
    if spread < ALIKE or (cover < FEW and precise > PRECISE and (spread < NARROW or reach < MISSED)):
        found["collapsed"] = (
            f"motion collapses to few modes: coverage is {cover:.2f} and spread (average pairwise distance) {spread:.2f} "
            f"of those of real clips. Likely {'' if 'copies' in found else 'too few training steps, or '}a model that repeats "
            f"few recordings: train {'less' if 'copies' in found else 'longer'}, or with more data, or a smaller network; see "
            "the nearest training clips"
        )
    elif spread < NARROW:
        found["alike"] = (
            f"clips are too alike: their spread is {spread:.2f} of that of real clips. Likely too few training steps; "
            "prediction=gaussian, labels as a condition and a little more guidance increase it"
        )
    if longer:
        found["length"] = (
            f"lengths differ: generated clips have {mine:.0f} frames, real ones {real:.0f} on average, and metrics that "
            "depend on length are not comparable. Train and sample with fewer frames"
        )
    return [Finding(name, text) for name, text in found.items()]


def ratio(generated: float, real: float) -> float:
    """``generated / real``, finite where real is 0."""
    return generated / max(real, 1e-9)
