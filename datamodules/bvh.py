"""A data set of BVH files."""

import logging
import re
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from datamodules.cleaning import set_floor
from datamodules.clips import ClipSet, DataError, Recording
from datamodules.readers.bvh import Tree, parse, skeleton_of
from datamodules.readers.files import find_files
from ddpm.skeleton import Skeleton

log = logging.getLogger(__name__)

LABELS = r"dataset-\d+_(?P<label>[^_]+)_.*"
"""The names ``dataset-1_CONTENT_STYLE_NNN`` of the Bandai-Namco-Research-Motiondataset."""


def bvh(skeleton: Skeleton, root: str, scale: float = 0.01, end_sites: bool = True, label_pattern: str = LABELS) -> ClipSet:
    """All BVH files of a directory and of those in it, put on their common floor; one INFO line says how tall people are.

    Args:
        skeleton: joints to take, by name; ``skeleton=bvh`` takes those of the first file.
        root: the directory, or a single file.
        scale: metres per unit of the files.
        end_sites: see `read`.
        label_pattern: regular expression for the name of a file without its ending, with groups called ``label``, ``subject`` or
            both. Where it does not match, the label is the directory in ``root`` that holds the file, and the subject unknown.

    Raises:
        DataError: no files, a damaged file, files of different joints or rates, or none of the joints asked for.
        ValueError: a pattern that is no regular expression, or a scale that is not positive.
    """
    if not 0 < scale < np.inf:
        raise ValueError(f"data.scale={scale} must be positive, metres per unit of the files")
    try:
        pattern = re.compile(label_pattern)
    except re.error as e:
        raise ValueError(f"data.label_pattern={label_pattern!r} is no regular expression: {e}") from e
    folder = Path(root).expanduser()
    paths, _ = find_files(folder, [".bvh"])
    parsed = [parse(path, scale, end_sites) for path in paths]
    (first, first_tree), recordings = parsed[0], list[Recording]()
    for path, (recording, tree) in zip(paths, parsed, strict=True):
        for i, (a, b) in enumerate(zip_longest(_in_words(first_tree), _in_words(tree), fillvalue="absent")):
            if a != b:
                raise DataError(
                    f"{path}: joint {i} is {b}, in {paths[0].name} it is {a}; the files of a data set must have the same joints, "
                    "move the others elsewhere"
                )
        if recording.fps != first.fps:
            raise DataError(
                f"{path}: {recording.fps:g} frames per second, {paths[0].name} has {first.fps:g}; the files of a data set must "
                "have the same rate, move the others elsewhere"
            )
        names = recording.joints or ()
        missing = [name for name in skeleton.names if name not in names]
        if missing or skeleton.coords != 3:
            raise DataError(
                f"{path}: the skeleton asks for the joints {missing} and coords: {skeleton.coords}; the file has coords: 3 and "
                f"the joints {', '.join(names)}; use skeleton=bvh or a part of it, and data.end_sites=false if the files differ "
                "in their end sites"
            )
        place = path.relative_to(folder) if path != folder else Path(path.name)
        match = pattern.fullmatch(path.stem)
        groups = match.groupdict() if match else {"label": place.parts[0] if len(place.parts) > 1 else None}
        chosen = recording.positions[:, [names.index(name) for name in skeleton.names]]
        recordings.append(Recording(chosen, place.as_posix(), groups.get("label"), groups.get("subject")))
    # A room has one floor: of each recording by itself, those who jump or climb would be put lower.
    lengths = [len(recording.positions) for recording in recordings]
    frames = set_floor(np.concatenate([recording.positions for recording in recordings]), skeleton)
    parts = np.split(frames, np.cumsum(lengths)[:-1])
    recordings = [replace(recording, positions=part) for recording, part in zip(recordings, parts, strict=True)]
    height = float(np.percentile(np.ptp(frames[..., skeleton.up_axis], axis=1), 90))
    log.log(
        logging.INFO if 0.5 < height < 3 else logging.WARNING,
        "BVH: %d files, %d joints, %.3g m from the lowest to the highest; if no body is that tall, change data.scale=%g",
        len(recordings), len(skeleton.names), height, scale,
    )  # fmt: skip
    return ClipSet.from_recordings(recordings, fps=first.fps, skeleton=skeleton)


def skeleton(root: str, scale: float = 0.01, end_sites: bool = True) -> Skeleton:
    """The skeleton of the first BVH file of a directory and of those in it; the arguments are those of `bvh`.

    Raises:
        DataError: no files, or a damaged file.
    """
    return skeleton_of(find_files(Path(root).expanduser(), [".bvh"])[0][0], scale, end_sites)


def _in_words(tree: Tree) -> list[str]:
    """Every joint but the end sites, to compare trees by: exporters are not consistent in how long these are."""
    names = tree.names
    return [
        f"{name!r} below {names[parent]!r}" if parent >= 0 else f"{name!r}"
        for name, parent, is_end in zip(names, tree.parents, tree.is_end, strict=True)
        if not is_end
    ]
