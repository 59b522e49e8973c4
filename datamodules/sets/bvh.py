"""A data set of BVH files."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from datamodules.clip_set import ClipSet, Recording, with_subjects
from datamodules.joints import SUBSTITUTES
from datamodules.prepare import Floor, OnOutlier, prepare
from datamodules.readers.bvh_file import SCALE, Joint, parse, skeleton_of
from datamodules.readers.raw_files import find_files, passed_over
from ddpm.errors import DataError
from ddpm.skeleton import Skeleton

log = logging.getLogger(__name__)

LABELS = r"dataset-\d+_(?P<label>[^_]+)_.*"  # the names dataset-1_CONTENT_STYLE_NNN of the Bandai-Namco-Research-Motiondataset


def bvh(
    skeleton: Skeleton,
    root: str,
    scale: float = SCALE,
    end_sites: bool = True,
    label_pattern: str = LABELS,
    retarget: Mapping[str, str | Sequence[str]] | None = None,
    subject: str | None = None,
    target_fps: float | None = None,
    min_seconds: float = 0.0,
    max_speed: float | None = None,
    floor: Floor = "common",
    skip: int = 0,
    on_outlier: OnOutlier = "refuse",
) -> ClipSet:
    """All BVH files of a directory and of those in it, put on their common floor; one INFO line says what was done to them.

    The arguments are explained in ``conf/data/bvh.yaml``, more fully at `datamodules.prepare.prepare` and
    `datamodules.clip_set.with_subjects`. The groups of ``label_pattern`` are ``label``, ``subject`` or both; where it does not
    match, the label is the directory in ``root`` that holds the file, and the subject unknown.

    Raises:
        DataError: no files, a damaged file, files of different joints or rates, or none of the joints asked for.
        ValueError: a pattern that is no regular expression, a scale that is not positive, or a limit outside its range.
    """
    if not 0 < scale < np.inf:
        raise ValueError(f"data.scale={scale} must be positive, metres per unit of the files")
    try:
        pattern = re.compile(label_pattern)
    except re.error as e:
        raise ValueError(f"data.label_pattern={label_pattern!r} is no regular expression: {e}") from e
    folder = Path(root).expanduser()
    paths, others = find_files(folder, [".bvh"])
    known = {*(retarget or {}), *SUBSTITUTES}

    def recordings() -> Iterator[Recording]:
        first: list[str] | None = None
        for path in paths:
            recording, tree = parse(path, scale, end_sites)
            own = _in_words(tree)
            first = first or own
            for i, (a, b) in enumerate(zip_longest(first, own, fillvalue="absent")):
                if a != b and set(own) != set(first):
                    raise DataError(
                        f"{path}: joint {i} is {b}, in {paths[0].name} it is {a}; the files of a data set must have the same "
                        "joints, move the others elsewhere"
                    )
            names = recording.joints or ()
            missing = [name for name in skeleton.names if name not in names and name not in known]
            if missing or skeleton.coords != 3:
                raise DataError(
                    f"{path}: the skeleton asks for the joints {missing} and coords: {skeleton.coords}; the file has coords: 3 "
                    f"and the joints {', '.join(names)}; use skeleton=bvh or a part of it, and data.end_sites=false if the files "
                    "differ in their end sites"
                )
            place = path.relative_to(folder) if path != folder else Path(path.name)
            match = pattern.fullmatch(path.stem)
            groups = match.groupdict() if match else {"label": place.parts[0] if len(place.parts) > 1 else None}
            yield replace(recording, source=place.as_posix(), label=groups.get("label"), subject=groups.get("subject"))

    clips = prepare(
        recordings(), skeleton, name=root, target_fps=target_fps, min_seconds=min_seconds, max_speed=max_speed, floor=floor,
        retarget=retarget, skip=skip, on_outlier=on_outlier, scale=scale,
    )  # fmt: skip
    clips = replace(clips, notes=(*clips.notes, *passed_over(others)))
    log.info("BVH: %d files, %d joints; %s", len(paths), len(skeleton.names), "; ".join(clips.notes))
    return with_subjects(clips, subject)


def skeleton(
    root: str, scale: float = SCALE, end_sites: bool = True, up: str = "y", keep: Sequence[str] | None = None
) -> Skeleton:
    """The skeleton of the first BVH file in or below a directory.

    Args:
        up, keep: see `ddpm.skeleton.Skeleton`; parts are the trunk, the arms and the legs, as far as they are found.

    Raises:
        DataError: no files, or a damaged file.
        ValueError: no such axis, joint or part.
    """
    found = skeleton_of(find_files(Path(root).expanduser(), [".bvh"])[0][0], scale, end_sites)
    return replace(found, up=up, keep=keep)


def _in_words(tree: list[Joint]) -> list[str]:
    """Every joint but the end sites, to compare trees by: exporters are not consistent in these."""
    return [f"{j.name!r} below {tree[j.parent].name!r}" if j.parent >= 0 else repr(j.name) for j in tree if not j.is_end]
