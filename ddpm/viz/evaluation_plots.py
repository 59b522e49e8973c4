"""Pictures of an evaluation: metrics between floors and ceilings, distributions, spectrum, bones, and both sets in the plane."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from ddpm.clips import Clips, frame_mean
from ddpm.metrics.classifier import Classification
from ddpm.metrics.comparison import Measured
from ddpm.metrics.features import Projection, band_edges
from ddpm.metrics.physics import bone_lengths
from ddpm.metrics.suite import Evaluation
from ddpm.metrics.text import ordered, title
from ddpm.metrics.verdict import is_far
from ddpm.viz.plots import PALETTE, finish, new_figure

if TYPE_CHECKING:
    from ddpm.viz.plots import Axes, Figure

REAL, GENERATED, CEILING = PALETTE[0], PALETTE[1], "0.62"
LEFT, RIGHT = 0.1, 1000.0  # ends of the axis of multiples: values beyond are drawn at the end
MARKS = {"frozen": "s", "shuffled_frames": "v", "noisy_1cm": "x", "mean_pose": "D", "gaussian": "^"}


def plot_scale(evaluation: Evaluation) -> "Figure":
    """Every distance as a multiple of that between real clips, between floors and ceilings."""
    shown = {name: evaluation.metrics[name] for name in ordered(evaluation)}
    shown = {name: m for name, m in shown.items() if m.better == "lower" and m.real.value > 0}
    shown = {name: m for name, m in shown.items() if not name.startswith(("kid", "mmd"))}  # unbiased: their floor is about 0
    names = [title(name, m, evaluation.clips["generated"]).partition(" [")[0] for name, m in shown.items()]
    figure = new_figure(8.6, 0.8 + 0.27 * len(shown))
    axes = figure.add_subplot()
    drawn: set[str] = set()
    for y, m in enumerate(shown.values()):

        def place(value: float, floor: float = m.real.value) -> float:
            return min(max(value / floor, LEFT), RIGHT)

        axes.plot([place(m.real.low), place(m.real.high)], [y, y], color=REAL, linewidth=7, alpha=0.35,
                  solid_capstyle="butt", label=None if y else "real against real, 95 %")  # fmt: skip
        if m.by_subject is not None:
            axes.plot(place(m.by_subject.value), y, "|", color=REAL, markersize=11, markeredgewidth=2,
                      label=None if y else "disjoint subjects")  # fmt: skip
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
    axes.set_yticks(range(len(shown)), [name.replace("_", " ") for name in names], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0.8 * LEFT, 1.25 * RIGHT)
    axes.axvline(1, color=REAL, linewidth=1, linestyle="--")
    axes.set_xlabel("distance, as a multiple of real against real (left is better)", fontsize=9)
    finish(axes)
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def plot_numbers(generated: Measured, real: Measured, units: Mapping[str, str]) -> "Figure":
    """Histograms of the numbers of single clips; ``units`` by name of a number."""
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
            style = {"fill": True, "alpha": 0.35} if colour == REAL else {}
            axes.stairs(share, edges, color=colour, linewidth=1.4, label=label, **style)
        unit = f" [{units[name].replace('^2', '²').replace('^3', '³')}]" if units[name] else ""
        _finish_small(axes, f"{name.replace('_', ' ')}{unit}", "% of clips" if axes in grid[::3] else "")
    for axes in grid[len(names) :]:
        axes.set_visible(False)
    grid[0].legend(frameon=False, fontsize=7)
    return figure


def plot_spectrum(generated: Measured, real: Measured, fps: float) -> "Figure":
    """Mean squared speed of the joints by frequency: median and middle 80 % of the clips."""
    edges = band_edges(fps).tolist()
    edges[-1] = fps / 2
    names = [f"{a:g}–{b:g}" for a, b in pairwise(edges)]
    figure = new_figure(4.2, 2.9)
    axes = figure.add_subplot()
    x = np.arange(len(names))
    _errorbars(axes, x, 0.14, "o-", [sides.energy.mean(1).numpy() + 1e-7 for sides in (real, generated)])
    axes.set_yscale("log")
    axes.set_xticks(x, names, fontsize=8)
    _finish_small(axes, "frequency [Hz]", "squared speed [(m/s)²]")
    axes.legend(frameon=False, fontsize=7)
    return figure


def plot_bones(generated: Clips, real: Clips) -> "Figure":
    """Mean length of every bone: median and middle 80 % of the clips."""
    bones, names = generated.skeleton.bones, generated.skeleton.names
    figure = new_figure(8.6, 2.7)
    axes = figure.add_subplot()
    x = np.arange(len(bones))
    _errorbars(axes, x, 0.2, "o", [100 * frame_mean(bone_lengths(clips), clips.mask).numpy() for clips in (real, generated)])
    axes.set_xticks(x, [names[child].replace("_", " ") for child, _ in bones], rotation=40, ha="right", fontsize=7)
    axes.set_ylim(0, 1.18 * axes.get_ylim()[1])
    _finish_small(axes, "", "bone length [cm]")
    axes.legend(frameon=False, fontsize=7, loc="upper left", ncols=2)
    return figure


def plot_planes(generated: Measured, real: Measured, names: Sequence[str]) -> "Figure":
    """Both sets in the plane of the first two principal components of the real clips, for some features."""
    figure = new_figure(8.6, 3.9)
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        project = Projection.fit(real.features[name], limit=2)
        a, b = (project(x.features[name]).numpy() for x in (real, generated))
        if a.shape[1] < 2:
            a, b = (np.column_stack([x, np.zeros(len(x))]) for x in (a, b))
        axes.scatter(*a.T, s=9, color=REAL, alpha=0.55, linewidth=0, label="real")
        axes.scatter(*b.T, s=12, color=GENERATED, alpha=0.6, linewidth=0.9, marker="x", label="generated")
        axes.set_title(f"{name} features", fontsize=9)
        _finish_small(axes, "1st principal component of real", "2nd")
        axes.legend(frameon=False, fontsize=7)
    return figure


def plot_classification(classification: Classification, limit: int = 40) -> "Figure":
    """Share of the clips that the classifier puts into each class; at most ``limit`` classes, those with the largest shares."""
    largest = torch.maximum(classification.generated, classification.real).argsort(descending=True, stable=True)[:limit]
    shown = largest.sort().values.tolist()
    figure = new_figure(8.6, 2.9)
    axes = figure.add_subplot()
    x = np.arange(len(shown))
    axes.bar(x - 0.2, 100 * classification.real[shown].numpy(), 0.4, color=REAL, label="real")
    axes.bar(x + 0.2, 100 * classification.generated[shown].numpy(), 0.4, color=GENERATED, label="generated")
    names = [classification.names[i].replace("_", " ")[:60] for i in shown]
    axes.set_xticks(x, names, rotation=40, ha="right", fontsize=7, parse_math=False)
    _finish_small(axes, "", "% of clips")
    axes.legend(frameon=False, fontsize=7)
    return figure


def _errorbars(axes: "Axes", x: np.ndarray, gap: float, fmt: str, sides: Sequence[np.ndarray]) -> None:
    """Median and middle 80 % of the rows of ``(clips, len(x))`` of real clips, and beside them of generated ones."""
    for k, (values, color, label) in enumerate(zip(sides, (REAL, GENERATED), ("real", "generated"), strict=True)):
        low, middle, high = np.quantile(values, [0.1, 0.5, 0.9], axis=0)
        style = {"fmt": fmt, "color": color, "markersize": 4, "linewidth": 1.3, "capsize": 2, "label": label}
        axes.errorbar(x + gap * (k - 0.5), middle, yerr=[middle - low, high - middle], **style)


def _finish_small(axes: "Axes", xlabel: str, ylabel: str) -> None:
    axes.set_xlabel(xlabel, fontsize=8)
    axes.set_ylabel(ylabel, fontsize=8)
    axes.tick_params(labelsize=7)
    finish(axes)
