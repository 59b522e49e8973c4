"""Curves of losses and of the quality of samplers, and what all plots share."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ddpm.files import write_durably

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#40444B")
"""Distinct for every common kind of colour blindness (Okabe & Ito)."""


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
    finish(axes)
    save(path, figure)
    return figure


def plot_quality(
    path: str | Path,
    curves: Mapping[str, Sequence[tuple[float, float, tuple[float, float, float]]]],
    *,
    real: tuple[float, float, float],
    ylabel: str,
    title: str = "",
) -> "Figure":
    """Draw quality against network calls and time for some samplers, write it as a PNG and return the figure.

    Args:
        curves: sampler -> (network calls, seconds per clip, (value, low, high)) of each run; lower values are better.
        real: (value, low, high) of real clips against real ones.
    """
    figure = new_figure(9.2, 4.0)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, column, xlabel in ((left, 0, "network calls"), (right, 1, "seconds per clip")):
        for k, (name, runs) in enumerate(curves.items()):
            order = sorted(runs, key=lambda run: run[column])
            x = [run[column] for run in order]
            y, low, high = np.array([run[2] for run in order]).T
            colour = PALETTE[k % len(PALETTE)]
            axes.plot(x, y, color=colour, marker="o", markersize=4, linewidth=1.4, label=name)
            axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.axhspan(real[1], real[2], color="0.75", alpha=0.4, linewidth=0)
        axes.axhline(real[0], color="0.4", linewidth=1, linestyle="--", label="real against real")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: "")
        axes.set(xlabel=xlabel)
        finish(axes)
    left.set(ylabel=ylabel)
    right.legend(frameon=False, fontsize="small")
    figure.suptitle(title, fontsize="medium")
    save(path, figure)
    return figure


def plot_noise_levels(path: str | Path, loss: Mapping[float, float], centimetres: Mapping[float, float]) -> "Figure":
    """Draw the validation loss and the error of x0_hat, both by t / T, write them as a PNG and return the figure."""
    figure = new_figure(9.2, 3.6)
    left, right = figure.subplots(1, 2)
    for axes, values, colour, label in (
        (left, centimetres, PALETTE[0], "error of x0_hat [cm a joint]"),
        (right, loss, PALETTE[1], "validation loss (weighted)"),
    ):
        axes.plot(list(values), list(values.values()), color=colour, marker="o", markersize=4, linewidth=1.4)
        axes.set(xlabel="noise level t / T (right: pure noise)", ylabel=label, xlim=(0, 1))
        axes.set_ylim(bottom=0)
        finish(axes)
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
