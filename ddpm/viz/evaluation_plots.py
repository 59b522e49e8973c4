"""Pictures of an evaluation: every metric against its floors, distributions of physics, spectrum, and both sets in the plane."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from ddpm.clips import Clips, frame_mean
from ddpm.metrics.classifier import Classification
from ddpm.metrics.comparison import Measured, measures
from ddpm.metrics.features import Projection, band_edges
from ddpm.metrics.suite import Evaluation
from ddpm.metrics.verdict import is_far
from ddpm.viz.plots import PALETTE, finish, new_figure

if TYPE_CHECKING:
    from ddpm.viz.plots import Figure

REAL, GENERATED, CEILING = PALETTE[0], PALETTE[1], "0.62"
"""Blue and vermilion stay apart for every common kind of colour blindness."""

LEFT, RIGHT = 0.1, 1000.0
"""Ends of the axis of multiples: what lies beyond is drawn at the end."""

MARKS = {"frozen": "s", "shuffled_frames": "v", "noisy_1cm": "x", "mean_pose": "D", "gaussian": "^"}


def plot_scale(evaluation: Evaluation) -> "Figure":
    """Every distance (lower is better) as a multiple of that of real against real clips, between floors and ceilings."""
    shown = {name: m for name, m in evaluation.metrics.items() if m.better == "lower" and m.real.value > 0}
    shown = {name: m for name, m in shown.items() if not name.startswith(("kid", "mmd"))}  # unbiased: their floor is about 0
    figure = new_figure(8.6, 0.8 + 0.27 * len(shown))
    axes = figure.add_subplot()
    drawn: set[str] = set()
    for y, (_, m) in enumerate(shown.items()):

        def place(value: float, floor: float = m.real.value) -> float:
            return min(max(value / floor, LEFT), RIGHT)

        axes.plot([place(m.real.low), place(m.real.high)], [y, y], color=REAL, linewidth=7, alpha=0.35,
                  solid_capstyle="butt", label=None if y else "real against real, 95 %")  # fmt: skip
        if m.by_subject is not None:
            axes.plot(place(m.by_subject.value), y, "|", color=REAL, markersize=11, markeredgewidth=2,
                      label=None if y else "nobody on both sides")  # fmt: skip
        for name, score in m.degraded.items():
            label = None if name in drawn else name.replace("_", " ")
            drawn.add(name)
            axes.plot(place(score.value), y, MARKS.get(name, "s"), color=CEILING, markersize=4, label=label)
        g = m.generated
        axes.plot([place(g.low), place(g.high)], [y, y], color=GENERATED, linewidth=1.6)
        axes.plot(place(g.value), y, "o", color=GENERATED, markersize=5.5, label=None if y else "generated, 95 %",
                  markerfacecolor=GENERATED if is_far(m) else "white")  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_yticks(range(len(shown)), [name.replace("physics/", "").replace("_", " ") for name in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0.8 * LEFT, 1.25 * RIGHT)
    axes.axvline(1, color=REAL, linewidth=1, linestyle="--")
    axes.set(xlabel="distance, as a multiple of real against real (left is better)")
    finish(axes)
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def plot_numbers(generated: Measured, real: Measured, units: Mapping[str, str]) -> "Figure":
    """Histograms of the numbers of single clips.

    Args:
        generated: measured generated clips.
        real: the same of real ones.
        units: name of a number -> its unit.
    """
    names = list(real.numbers)
    rows = -(-len(names) // 3)
    figure = new_figure(8.6, 1.9 * rows)
    grid = figure.subplots(rows, 3, squeeze=False).ravel()
    for axes, name in zip(grid, names, strict=False):
        values = [x.numbers[name].numpy() for x in (real, generated)]
        both = np.concatenate(values)
        low, high = np.quantile(both, [0.005, 0.99])
        edges = np.linspace(low, high if high > low else low + 1e-6, 31)
        for x, colour, label in zip(values, (REAL, GENERATED), ("real", "generated"), strict=True):
            share = 100 * np.histogram(x.clip(edges[0], edges[-1]), edges)[0] / len(x)
            axes.stairs(
                share, edges, color=colour, fill=colour == REAL, alpha=0.35 if colour == REAL else 1, linewidth=1.4, label=label
            )
        unit = f" [{units[name].replace('^2', '²').replace('^3', '³')}]" if units[name] else ""
        axes.set_xlabel(f"{name.replace('_', ' ')}{unit}", fontsize=8)
        axes.tick_params(labelsize=7)
        finish(axes)
    for axes in grid[len(names) :]:
        axes.set_visible(False)
    for axes in grid[::3]:
        axes.set_ylabel("% of clips", fontsize=8)
    grid[0].legend(frameon=False, fontsize=7)
    return figure


def plot_spectrum(generated: Measured, real: Measured, fps: float) -> "Figure":
    """Mean squared speed by frequency, averaged over the joints: the median clip, and the middle 80 % of the clips."""
    edges = band_edges(fps).tolist()
    edges[-1] = fps / 2
    names = [f"{a:g}–{b:g}" for a, b in pairwise(edges)]
    figure = new_figure(4.2, 2.9)
    axes = figure.add_subplot()
    x = np.arange(len(names))
    for k, (data, colour, label) in enumerate(((real, REAL, "real"), (generated, GENERATED, "generated"))):
        low, middle, high = np.quantile(data.energy.mean(1).numpy() + 1e-7, [0.1, 0.5, 0.9], axis=0)
        axes.errorbar(x + 0.14 * (k - 0.5), middle, yerr=[middle - low, high - middle], color=colour, fmt="o-",
                      markersize=5, linewidth=1.4, capsize=3, label=label)  # fmt: skip
    axes.set_yscale("log")
    axes.set_xticks(x, names, fontsize=8)
    axes.set_xlabel("frequency [Hz]", fontsize=8)
    axes.set_ylabel("squared speed [(m/s)²]", fontsize=8)
    axes.tick_params(labelsize=7)
    finish(axes)
    axes.legend(frameon=False, fontsize=7)
    return figure


def plot_bones(generated: Clips, real: Clips) -> "Figure":
    """Mean length of every bone: its median over the clips, and the middle 80 % of them."""
    bones, names = generated.skeleton.bones, generated.skeleton.names
    child, parent = (list(ends) for ends in zip(*bones, strict=True))
    figure = new_figure(8.6, 2.7)
    axes = figure.add_subplot()
    x = np.arange(len(bones))
    for k, (motions, colour, label) in enumerate(((real, REAL, "real"), (generated, GENERATED, "generated"))):
        lengths = (motions.positions[:, :, child] - motions.positions[:, :, parent]).norm(dim=-1)
        low, middle, high = 100 * np.quantile(frame_mean(lengths, motions.mask).numpy(), [0.1, 0.5, 0.9], axis=0)
        axes.errorbar(x + 0.2 * (k - 0.5), middle, yerr=[middle - low, high - middle], color=colour, fmt="o",
                      markersize=4, capsize=2, linewidth=1.2, label=label)  # fmt: skip
    axes.set_xticks(x, [names[j].replace("_", " ") for j in child], rotation=40, ha="right", fontsize=7)
    axes.set_ylabel("bone length [cm]", fontsize=8)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_ylim(0, 1.18 * axes.get_ylim()[1])
    finish(axes)
    axes.legend(frameon=False, fontsize=7, loc="upper left", ncols=2)
    return figure


def plot_planes(generated: Measured, real: Measured, names: Sequence[str]) -> "Figure":
    """Both sets in the plane of the first two principal components of the real clips, for each of some features."""
    figure = new_figure(8.6, 3.9)
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        project = Projection.fit(real.features[name], limit=2)
        a, b = (project(x.features[name]).numpy() for x in (real, generated))
        if a.shape[1] < 2:
            a, b = (np.column_stack([x, np.zeros(len(x))]) for x in (a, b))
        axes.scatter(*a.T, s=9, color=REAL, alpha=0.55, linewidth=0, label="real")
        axes.scatter(*b.T, s=12, color=GENERATED, alpha=0.6, linewidth=0.9, marker="x", label="generated")
        axes.set_title(f"{name} features", fontsize=9)
        axes.set_xlabel("1st principal component of real", fontsize=8)
        axes.set_ylabel("2nd", fontsize=8)
        axes.tick_params(labelsize=7)
        finish(axes)
        axes.legend(frameon=False, fontsize=7)
    return figure


def plot_classification(classification: Classification, limit: int = 40) -> "Figure":
    """Share of the generated and of the real clips that the classifier puts into each class.

    Args:
        classification: what it says.
        limit: classes at most, those with the largest shares.
    """
    largest = torch.maximum(classification.generated, classification.real).argsort(descending=True, stable=True)[:limit]
    shown = largest.sort().values.tolist()
    figure = new_figure(8.6, 2.9)
    axes = figure.add_subplot()
    x = np.arange(len(shown))
    for k, (shares, colour, label) in enumerate(
        ((classification.real, REAL, "real"), (classification.generated, GENERATED, "generated"))
    ):
        axes.bar(x + 0.4 * (k - 0.5), 100 * shares[shown].numpy(), 0.4, color=colour, label=label)
    axes.set_xticks(x, [classification.names[i].replace("_", " ") for i in shown], rotation=40, ha="right", fontsize=7)
    axes.set_ylabel("% of clips", fontsize=8)
    axes.tick_params(axis="y", labelsize=7)
    finish(axes)
    axes.legend(frameon=False, fontsize=7)
    return figure


def units_of(motions: Clips) -> dict[str, str]:
    """Name of a number of single clips -> its unit."""
    return {name: unit for name, (unit, _) in measures(motions.skeleton).items()}
