"""The table of ``compare.py``: what each sampler reached with so many network calls, beside real clips."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddpm.errors import ConfigError, refuse
from ddpm.metrics.suite import Evaluation
from ddpm.metrics.verdict import ratios

SCORES = ("frechet/pose", "frechet/spectrum", "recall/pose", "frechet/kinetic")  # with interval, and the same of real clips
ALIKE = ("n", "real", "data")
"""Columns that must be alike in tables that are compared: generated clips, real ones, and of which data these are."""


def row(sampler: str, calls: int, seconds: float, quality: Evaluation, data: str) -> dict[str, Any]:
    """A row of the table; nan for what the skeleton does not allow. ``spread`` and ``jerk`` are multiples of that of real clips;
    ``frechet_pose_real`` is the distance of real clips from each other.

    Args:
        calls: of the network, also for guidance.
        seconds: per clip, of the fastest batch.
        data: digest of the recordings that the real clips are of.
    """
    sizes = quality.clips
    found: dict[str, Any] = {"sampler": sampler, "calls": calls, "seconds_per_clip": seconds, "n": sizes["generated"]}
    found |= {"real": sizes["reference"], "data": data}
    for name in SCORES:
        metric, column = quality.metrics.get(name), name.replace("/", "_")
        for score, of in ((metric and metric.generated, column), (metric and metric.real, f"{column}_real")):
            value, low, high = (score.value, score.low, score.high) if score else (math.nan,) * 3
            found |= {of: value, f"{of}_low": low, f"{of}_high": high}
    for name in ("spread", "jerk"):
        found |= {name: ratios(quality).get(name, math.nan), f"{name}_real": 1.0}
    bones = quality.means.get("bone_variation", {})
    sides = {"bone_variation": "generated", "bone_variation_real": "reference"}
    return found | {column: bones.get(side, math.nan) for column, side in sides.items()}


def table_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The content of quality.csv."""
    table = io.StringIO()
    writer = csv.DictWriter(table, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue().encode()


def earlier_rows(path: str, ours: Mapping[str, int | str], table: Path) -> list[dict[str, Any]]:
    """The rows of an earlier table, or of the one in a directory; ``ours`` is what `ALIKE` is in this one, ``table`` its place.

    Raises:
        ConfigError: it is none, it would be overwritten, or its numbers do not compare with ours.
    """
    file = Path(path, table.name) if Path(path).is_dir() else Path(path)
    if file.resolve() == table.resolve():
        raise ConfigError(f"beside={path}: the new table would take the place of that one; choose another directory, out=...")
    try:
        rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(file.read_text())))
        rows = [{key: value if key in ("sampler", "data") else float(value) for key, value in row.items()} for row in rows]
        theirs = {key: [row[key] for row in rows] for key in (*ALIKE, "sampler", "calls", "seconds_per_clip")}
        n = int(next((n for n in theirs["n"] if n != ours["n"]), rows[0]["n"]))
    except (OSError, ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise ConfigError(f"beside={path}: no table of this version of compare.py ({error!r}); measure it anew") from error
    refuse([
        (
            n != ours["n"],
            f"beside={path}: its numbers are of n={n} clips, these of n={ours['n']}, and distances depend on n: type n={n}, or "
            f"measure that again with n={ours['n']}",
        ),
        (
            any(set(theirs[key]) != {ours[key]} for key in ALIKE),
            f"beside={path}: it compares with other real clips than the {ours['real']} of this run, so that distances do not "
            "compare: both runs need the same data, frames and data.root",
        ),
    ])  # fmt: skip
    return rows
