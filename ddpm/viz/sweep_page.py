"""The jobs of a sweep side by side: ``sweep.csv`` and ``sweep.html``."""

import base64
import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

from ddpm.errors import escaped, typed
from ddpm.files import write_durably
from ddpm.metrics.text import number
from ddpm.viz.plots import picture_bytes, plot_losses
from ddpm.viz.report import STYLE

POSE, LOSS = "frechet_pose", "val/loss"
COLUMNS = {
    POSE: ("pose", "Fréchet distance of poses: lower is better"),
    "frechet_spectrum": ("spectrum", "Fréchet distance of spectra, how fast joints swing: lower is better"),
    "frechet_kinetic": ("kinetic", "Fréchet distance of squared speed and acceleration of joints: lower is better"),
    "n": ("n", "generated clips that were measured: distances of different n cannot be compared"),
    "bone_variation": ("bones", "how much the lengths of bones vary within a clip: as real clips"),
    "jerk_ratio": ("jerk", "mean jerk as a multiple of that of real clips: 1 is right"),
    "speed_ratio": ("speed", "mean speed as a multiple of that of real clips: 1 is right"),
    "spread_ratio": ("spread", "mean distance of two clips as a multiple of that of real ones: 1 is right"),
    "recall_pose": ("recall", "share of real clips that have a generated one near: higher is better"),
    LOSS: ("val/loss", "the last validation loss"),
    "steps": ("steps", "optimiser steps"),
    "seconds": ("seconds", "of training, with its validations and pictures"),
}
"""Column -> its head, and what it is. Results are named without the group that a logger shows them in."""
GROUPS = ("metrics/", "physics/")
SAME_LOSS = ("model", "optimizer", "lr_scheduler", "trainer", "callbacks", "loader.steps_per_epoch")
"""Keys between whose values losses can be compared; others change what is summed up, or which clips and noise it is of."""
EMBEDDED = 16 * 2**20  # bytes of all GIFs together up to which they are part of the page
LOOK = """
tr.best td { background: #e2f0f8; font-weight: 600; } td.text { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); gap: 1em; }
"""


@dataclass(frozen=True, eq=False)
class Job:
    """A job of a sweep: its directory, the values of the keys that vary, how it ended (finished, failed, interrupted), the error
    of one that failed, and what was measured."""

    folder: Path
    varied: Mapping[str, str]
    status: str
    error: str
    results: Mapping[str, float | None]

    def get(self, name: str) -> float | None:
        """A result, by its name with or without its group."""
        return next((self.results[key] for key in (name, *(group + name for group in GROUPS)) if key in self.results), None)


def write_sweep(sweep: Path, jobs: Sequence[Job], monitor: str = LOSS, mode: str = "min") -> str:
    """Write table and page.

    Args:
        monitor: the best job has the least of it, with ``mode`` max the greatest.

    Returns:
        The result of the sweep, in two or three lines.
    """
    keys = [k for k in dict.fromkeys(k for job in jobs for k in job.varied) if len({job.varied.get(k) for job in jobs}) > 1]
    by, best = _best(jobs, keys, monitor, mode)
    counts = {status: sum(job.status == status for job in jobs) for status in ("finished", "failed", "interrupted")}
    said = f"{len(jobs)} job{'s' * (len(jobs) > 1)}: {', '.join(f'{n} {status}' for status, n in counts.items() if n)}"
    said += "" if best is None else f"; best by {by}: {best.folder.name}"
    write_durably(sweep / "sweep.csv", _csv(jobs, keys, best).encode(errors="backslashreplace"))
    write_durably(sweep / "sweep.html", _page(sweep, jobs, keys, best, said).encode(errors="backslashreplace"))
    said += f"\n  {sweep / 'sweep.html'} and sweep.csv compare them"
    if counts["finished"] < len(jobs):
        said += f"\n  the same command with {typed('resume', str(sweep))} goes on with what has not finished"
    return said


def _best(jobs: Sequence[Job], keys: Sequence[str], monitor: str, mode: str) -> tuple[str, Job | None]:
    """By what the finished jobs are ranked, and the best of them; None if nothing was measured."""
    done = [job for job in jobs if job.status == "finished"]
    by, values = monitor, [job.get(monitor) for job in done]
    if monitor == LOSS and (others := ", ".join(key for key in keys if not key.startswith(SAME_LOSS))):
        poses = [job.get(POSE) for job in done]
        if None in poses or len({job.get("n") for job in done}) > 1:
            by = f"{LOSS}, though {others} may change what it means (callbacks.best.monitor=metrics/frechet_pose ranks by motion)"
        else:
            by, values = f"the distance of poses ({others} may change what {LOSS} means)", poses
    ranked = [(value, i) for i, value in enumerate(values) if value is not None and math.isfinite(value)]
    return by, done[(max if mode == "max" else min)(ranked)[1]] if ranked else None


def _csv(jobs: Sequence[Job], keys: Sequence[str], best: Job | None) -> str:
    others = [name.partition("/")[2] for job in jobs for name in job.results if name.startswith(GROUPS)]
    names = list(dict.fromkeys([*COLUMNS, *others]))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["job", *keys, "status", "best", *names, "error"])
    for job in jobs:
        values = [job.get(name) for name in names]
        varied = [job.varied.get(key, "") for key in keys]
        writer.writerow([job.folder.name, *varied, job.status, int(job is best), *values, escaped(job.error)])
    return table.getvalue()


def _page(sweep: Path, jobs: Sequence[Job], keys: Sequence[str], best: Job | None, said: str) -> str:
    name = escape(sweep.absolute().name)
    parts = [f"<h1>Sweep comparison</h1><p class='note'>{name}</p><p>{escape(said)}.</p>", _table(jobs, keys, best)]
    if stopped := [job for job in jobs if job.status != "finished"]:
        why = [escape(escaped(job.error)) or "stopped before its end" for job in stopped]
        cells = [
            f"<td>{_link(job)}</td><td>{job.status}</td><td class='text'>{w}</td>" for job, w in zip(stopped, why, strict=True)
        ]
        rows = "".join(f"<tr>{row}</tr>" for row in cells)
        parts.append(f"<h2>Not finished</h2><table><tbody>{rows}</tbody></table>")
    curves = {job.folder.name + (" ★" if job is best else ""): _curve(job.folder) for job in jobs}
    if any(steps for steps, _ in curves.values()):
        figure = plot_losses(sweep / "sweep.png", curves, ylabel="validation loss, else training loss")
        data = base64.b64encode(picture_bytes(figure)).decode()
        parts.append(f"<h2>Losses</h2><figure><img alt='' src='data:image/png;base64,{data}'></figure>")
    parts += _gifs(jobs)
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Sweep {name}</title>'
    head += f'<meta name="viewport" content="width=device-width"><style>{STYLE}{LOOK}</style><body>'
    return head + "\n".join(parts) + "</body></html>\n"


def _table(jobs: Sequence[Job], keys: Sequence[str], best: Job | None) -> str:
    shown = {name: head for name, head in COLUMNS.items() if any(job.get(name) is not None for job in jobs)}
    heads = [f"<th>{escape(key)}</th>" for key in keys]
    heads += [f'<th title="{escape(what)}">{head}</th>' for head, what in shown.values()]
    rows = []
    for job in jobs:
        cells = [f"<td>{escape(job.varied.get(key, ''))}</td>" for key in keys]
        cells += [f"<td>{_cell(job, name)}</td>" for name in shown]
        mark = (' class="best"', " ★ best") if job is best else ("", "" if job.status == "finished" else f" ({job.status})")
        link = _link(job, job.folder.name.partition("_")[0])
        rows.append(f"<tr{mark[0]}><td>{link}{mark[1]}</td>{''.join(cells)}</tr>")
    meaning = "; ".join(f"<b>{head}</b> {escape(what)}" for head, what in shown.values())
    table = f"<table><thead><tr><th>job</th>{''.join(heads)}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f"<div class='wide'>{table}</div><p class='note'>{meaning}. In brackets: of real clips from each other.</p>"


def _cell(job: Job, name: str) -> str:
    value, real = job.get(name), job.get(f"real/{name}")
    if value is None:
        return ""
    shown = f"{value:.0f}" if name in ("n", "steps", "seconds") else number(value)
    return shown if real is None else f"{shown} ({number(real)})"


def _link(job: Job, text: str = "") -> str:
    name = job.folder.name
    return f'<a href="{quote(name)}/" title="{escape(name)}">{escape(text or name)}</a>'


def _curve(folder: Path) -> tuple[list[float], list[float]]:
    """Steps and validation losses of a run, training losses of one without validations; none if it kept no table."""
    try:
        rows = list(csv.DictReader((folder / "loss.csv").read_text().splitlines()))
        steps, *losses = ([float(row[column]) for row in rows] for column in ("step", "val_loss", "train_loss"))
    except (OSError, ValueError, KeyError, TypeError):
        return [], []
    return steps, next((curve for curve in losses if any(map(math.isfinite, curve))), losses[0])


def _gifs(jobs: Sequence[Job]) -> list[str]:
    """The last picture of every job that has one."""
    found = {job: max((job.folder / "samples").glob("*.gif"), key=lambda p: p.stat().st_mtime, default=None) for job in jobs}
    pictures = {job: path for job, path in found.items() if path is not None}
    size = sum(path.stat().st_size for path in pictures.values())
    figures = []
    for job, path in pictures.items():
        source = quote(f"{job.folder.name}/samples/{path.name}")
        if size <= EMBEDDED:
            source = f"data:image/gif;base64,{base64.b64encode(path.read_bytes()).decode()}"
        figures.append(f'<figure><img alt="" loading="lazy" src="{source}"><figcaption>{_link(job)}</figcaption></figure>')
    where = "part of this page" if size <= EMBEDDED else "files in the folders of the jobs, which move with this page"
    note = f"<p class='note'>Clips of each job, from the same seeds: {size / 2**20:.1f} MiB, {where}.</p>"
    return ["<h2>Samples</h2>", note, f"<div class='grid'>{''.join(figures)}</div>"] if figures else []
