"""Clips as one HTML page to turn, zoom, play and scrub, which needs no network: viewer.html, viewer.js and the motion in them."""

import base64
import html
import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ddpm.clips import Clips
from ddpm.errors import escaped
from ddpm.viz import body, camera

MISSING = -(2**15)  # stands for a coordinate that is not finite; the others are numbers of steps from -32767 to 32767
MOST = 30_000_000  # coordinates of a page: 80 MB, which a browser still opens
COLOURS = {
    **{**body.SIDE_COLOURS, "made": body.MADE_CENTRE, "given": body.GIVEN, "ghost": body.GHOST, "real": (160, 120, 190)},
    **{"paper": body.PAPER, "floor": body.FLOOR, "line": body.FLOOR_LINE, "shadow": body.SHADOW, "trail": body.TRAIL},
    **{"ink": body.INK, "warning": body.WARNING},
}


def viewer(clips: Clips, titles: Sequence[str] | None = None, real: Clips | None = None, name: str = "Clips") -> str:
    """The page. Positions are rounded to a 65534th of the largest extent of their clip: 0.1 mm where that is 6.5 m.

    Args:
        clips: to show; what is not finite is left out, and said.
        titles: a line for each clip; None for seed and label.
        real: as many clips of the same skeleton and frame rate, each to stand beside its clip, or to be laid over it.

    Raises:
        ValueError: titles or real clips that do not fit, or more than `MOST` coordinates.
    """
    skeleton = clips.skeleton
    titles = (clips.titles or [f"clip {i}" for i in range(len(clips))]) if titles is None else titles
    if len(titles) != len(clips):
        raise ValueError(f"titles must hold one line for each of the {len(clips)} clips, got {len(titles)}")
    if real is not None and (len(real), real.skeleton, real.fps) != (len(clips), skeleton, clips.fps):
        raise ValueError(f"{len(real)} real clips for {len(clips)} clips: as many of one skeleton and frame rate are needed")
    if (size := clips.positions.numel() * (1 if real is None else 2)) > MOST:
        raise ValueError(f"a page of {size} coordinates, at most {MOST} are possible; take fewer clips: clips.take(slice(100))")
    shown = _entries(clips, titles)
    if real is not None:
        beside = _entries(real, [f"real {label}".rstrip() for label in real.labels or [""] * len(real)])
        shown = chain.from_iterable(zip(beside, shown, strict=True))
    data = {
        "fps": clips.fps,
        "flat": skeleton.coords == 2,
        "paired": real is not None,
        "joints": [escaped(joint, "") for joint in skeleton.names],
        "parents": skeleton.parents,
        "sides": [skeleton.side(joint) for joint in range(len(skeleton.names))],
        "head": skeleton.names.index("head") if "head" in skeleton.names else -1,
        "camera": [float(camera.TURN), float(camera.ELEVATION)],
        "colours": COLOURS,
        "missing": MISSING,
        "clips": list(shown),
    }
    # No text of the data may end the script that holds it, or begin another.
    content = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    here = Path(__file__)
    parts = {"NAME": html.escape(name), "DATA": content, "SCRIPT": here.with_name("viewer.js").read_text("utf-8")}
    return re.sub("__([A-Z]+)__", lambda found: parts[found[1]], here.with_name("viewer.html").read_text("utf-8"))


def _entries(clips: Clips, titles: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What viewer.js reads of each clip; positions in steps from ``middle``, y upwards."""
    skeleton, points = clips.skeleton, camera.canonical(clips.positions.numpy(), clips.skeleton)
    turns = camera.front(points, skeleton) if skeleton.coords == 3 else np.zeros(len(points))
    grounds, bones = camera.floors(points, skeleton), np.array(skeleton.bones, dtype=np.int64).reshape(-1, 2)
    for i, length in enumerate(clips.lengths.tolist()):
        clip = points[i, :length, :, : skeleton.coords]
        along = np.linalg.norm(clip[:, bones[:, 0]] - clip[:, bones[:, 1]], axis=-1)
        known = clip[np.isfinite(clip).all(-1)]
        low, high = (known.min(0), known.max(0)) if len(known) else np.zeros((2, skeleton.coords))
        middle, step = (low + high) / 2, max(float((high - low).max()) / 65534, 1e-9)
        steps = np.nan_to_num(np.rint((clip - middle) / step), nan=MISSING).astype("<i2")
        entry = {"title": escaped(titles[i][:200], ""), "frames": length, "turn": float(turns[i]), "ground": float(grounds[i])}
        entry |= {"bone": float(np.median(along[along > 1e-6])) if (along > 1e-6).any() else 0.0}
        entry |= {"middle": middle.tolist(), "step": step, "positions": base64.b64encode(steps.tobytes()).decode()}
        if clips.given is not None:  # a bit a joint, and one for the path of the root
            given = clips.given[i, :length].numpy()
            path = given[:, skeleton.root][:, list(skeleton.ground_axes)].all(-1, keepdims=True)
            bits = np.packbits(np.concatenate([given.all(-1), path], axis=1))
            entry["given"] = base64.b64encode(bits.tobytes()).decode()
        yield entry


def embedded(page: str) -> str:
    """A page inside another one, which it neither sees nor changes."""
    return f'<iframe loading="lazy" style="width:100%;height:min(640px,85vh);border:0" srcdoc="{html.escape(page)}"></iframe>'
