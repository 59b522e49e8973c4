"""Curves of losses and of the quality of samplers, and what all plots share."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpm.files import write_durably

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#40444B")
"""Distinct for every common kind of colour blindness (Okabe & Ito)."""


PANELS = {
    "frechet_pose": "Fréchet distance of poses",
    "frechet_spectrum": "Fréchet distance of spectra",
    "spread": "spread, of real",
    "recall_pose": "recall of poses",
    "bone_variation": "variation of bone lengths",
    "jerk": "jerk, of real",
    "frechet_kinetic": "kinetic Fréchet distance",
}
"""Columns of the table of samplers that are drawn, and what they are."""


def plot_losses(
    path: str | Path, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], ylabel: str = "loss"
) -> "Figure":
    """Draw loss curves, write them as a PNG and return the figure.

    Args:
        curves: name -> (optimiser steps, losses). Losses that are not finite leave gaps; empty curves are left out. With more
            than two the names stand beside the plot.

    Raises:
        ValueError: a curve with more steps than losses, or the reverse.
    """
    from matplotlib.ticker import MaxNLocator  # as all of it, slow to import

    many = len(curves) > 2
    figure = new_figure(*((10.0, max(4.0, 0.5 + 0.2 * len(curves))) if many else (6.4, 4.0)))
    axes = figure.add_subplot()
    shown = []
    for k, (name, (steps, losses)) in enumerate(curves.items()):
        x, y = np.asarray(steps, dtype=np.float64), np.asarray(losses, dtype=np.float64)
        if x.shape != y.shape or x.ndim != 1:
            raise ValueError(f"curve {name!r}: {x.shape} steps and {y.shape} losses, expected as many of each")
        y = np.where(np.isfinite(y), y, np.nan)
        if np.isfinite(y).any():
            # Dots while they are distinct: a line through a single point would be invisible.
            marker, width = ("o", 1.6) if np.isfinite(y).sum() <= 40 else ("", 1.0)
            style = ("-", "--", ":", "-.")[k // len(PALETTE) % 4]
            axes.plot(x, y, style, color=PALETTE[k % len(PALETTE)], marker=marker, markersize=3.5, linewidth=width, label=name)
            shown.append(y[np.isfinite(y)])
    if shown:
        figure.legend(loc="outside right upper", frameon=False, fontsize="small") if many else axes.legend(frameon=False)
        if min(y.min() for y in shown) > 0:
            axes.set_yscale("log")
            narrow = max(y.max() for y in shown) < 10 * min(y.min() for y in shown)  # few or no powers of ten in view
            axes.yaxis.set_major_formatter(lambda loss, _: f"{loss:g}")
            axes.yaxis.set_minor_formatter(lambda loss, _: f"{loss:g}" if narrow else "")
    else:
        axes.text(0.5, 0.5, "no losses yet", transform=axes.transAxes, ha="center", va="center", color="0.5")
    axes.set(xlabel="optimiser step", ylabel=ylabel)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    finish(axes)
    save(path, figure)
    return figure


def plot_quality(path: str | Path, rows: Sequence[Mapping[str, Any]], title: str = "") -> "Figure":
    """Draw quality against network calls and time by sampler, write it as a PNG and return the figure.

    For the rows see `ddpm.metrics.sampler_table.row`; what is absent or not finite is not drawn. Of `PANELS` the first that is
    drawn is so also against the seconds.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter  # as all of it, slow to import

    curves: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        curves.setdefault(row["sampler"], []).append(row)
    n = f", n={rows[0]['n']}"  # of which distances depend
    panels = {name: label + n * name.startswith("frechet") for name, label in PANELS.items()}
    drawn = [name for name in panels if any(np.isfinite(row.get(name, np.nan)) for row in rows)]
    places = [("calls", "network calls", name) for name in drawn]
    places.insert(1, ("seconds_per_clip", "seconds per clip", drawn[0]))
    columns = -(-len(places) // 2)
    figure = new_figure(3.4 * columns, 6.2)
    grid = figure.subplots(2, columns, squeeze=False).ravel()
    for axes, (x, xlabel, name) in zip(grid, places, strict=False):
        values = [row[name] for row in rows if np.isfinite(row.get(name, np.nan))]
        floor = [np.mean([row.get(f"{name}_real{end}", np.nan) for row in rows]) for end in ("", "_low", "_high")]
        axes.axhspan(floor[1], floor[2], color="0.75", alpha=0.4, linewidth=0, label="95 % of real clips")
        axes.axhline(floor[0], color="0.4", linewidth=1, linestyle="--", label="real clips")
        for k, (sampler, runs) in enumerate(curves.items()):
            ordered = sorted(runs, key=lambda row: row[x])
            at, colour = [row[x] for row in ordered], PALETTE[k % len(PALETTE)]
            y, low, high = ([row.get(f"{name}{end}", np.nan) for row in ordered] for end in ("", "_low", "_high"))
            axes.plot(at, y, color=colour, marker="o", markersize=4, linewidth=1.4, label=sampler)
            axes.fill_between(at, low, high, color=colour, alpha=0.12, linewidth=0, label=None if k else "95 % of the repeats")
            if len(at) == 1:  # a band of no width
                axes.vlines(at, low, high, color=colour, linewidth=1)
        axes.set_xscale("log")
        if min(values) > 0 and max(values) > 5 * min(values):
            axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            low, high = axis.get_view_interval()
            if axis.get_scale() == "log":
                subs = (1,) if axis is axes.xaxis and high > 40 * low else (1, 2, 5)  # labels side by side need room
                axis.set_major_locator(LogLocator(subs=subs) if high > 6 * low else MaxNLocator(4))
                axis.set_minor_formatter(NullFormatter())
            axis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set(xlabel=xlabel)
        axes.set_ylabel(panels[name], fontsize=9)
        finish(axes)
    for axes in grid[len(places) :]:
        axes.set_visible(False)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 8), frameon=False, fontsize="small")
    figure.suptitle(title, fontsize="medium")
    save(path, figure)
    return figure


def plot_noise_levels(path: str | Path, levels: Sequence[float], errors: np.ndarray, measured: str = "") -> "Figure":
    """Draw the error of x0_hat and the loss by noise level, write them as a PNG and return the figure.

    Args:
        levels: t / T.
        errors: ``(2, levels, clips)`` centimetres a joint, and losses.
        measured: on what, for the title.
    """
    figure = new_figure(9.2, 3.8)
    labels = ("error of x0_hat [cm a joint]", "validation loss (weighted)")
    for axes, values, colour, label in zip(figure.subplots(1, 2), errors, PALETTE[:2], labels, strict=True):
        middle, (low, high) = values.mean(1), np.quantile(values, (0.1, 0.9), axis=1)
        sure = 1.96 * values.std(1) / np.sqrt(values.shape[1])
        axes.fill_between(levels, low, high, color=colour, alpha=0.15, linewidth=0, label="middle 80 % of the clips")
        axes.errorbar(
            levels, middle, sure, color=colour, marker="o", markersize=4, linewidth=1.4, capsize=3, label="mean and its 95 %"
        )
        axes.set(xlabel="noise level t / T (right: pure noise)", ylabel=label, xlim=(0, 1))
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize="small")
        finish(axes)
    figure.suptitle(measured, fontsize="medium")
    save(path, figure)
    return figure


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, in inches."""
    from matplotlib.figure import Figure  # takes half a second

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def finish(axes: "Axes") -> None:
    """The grid and the frame of all plots."""
    axes.grid(True, which="major", color="0.88", linewidth=0.8)
    axes.grid(True, which="minor", color="0.94", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def picture_bytes(figure: "Figure", kind: str = "png") -> bytes:
    """The content of a png, pdf or svg file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, facecolor="white")
    return buffer.getvalue()


def save(path: str | Path, figure: "Figure") -> None:
    """Write a figure as a PNG, whole or not at all."""
    write_durably(path, picture_bytes(figure))
