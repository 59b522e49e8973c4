"""Any motion: a directory, or one file, of arrays, tables, NTU skeletons, keypoints, markers or BVH."""

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from datamodules.clip_set import ClipSet, Recording, with_subjects
from datamodules.joints import fitting, named, presets
from datamodules.prepare import Floor, OnOutlier, prepare
from datamodules.readers import arrays, bvh_file, keypoints2d, markers, ntu, refused, table
from datamodules.readers.raw_files import find_files, passed_over
from ddpm.errors import DataError
from ddpm.skeleton import Skeleton

log = logging.getLogger(__name__)

ENDINGS = (".npy", ".npz", ".csv", ".tsv", ".skeleton", ".json", ".bvh", ".trc", ".c3d")


def folder(
    skeleton: Skeleton,
    root: str,
    fps: float | None = None,
    joints: str | Sequence[str] | None = None,
    retarget: Mapping[str, str | Sequence[str]] | None = None,
    subject: str | None = None,
    last_is_confidence: bool = False,
    lost: Literal["nans", "zeros"] | None = None,
    min_confidence: float = 0.0,
    max_gap: float = 0.25,
    min_seconds: float = 0.5,
    max_speed: float | None = 6.0,
    target_fps: float | None = None,
    floor: Floor = "recording",
    skip: int = 0,
    on_outlier: OnOutlier = "refuse",
) -> ClipSet:
    """All motions below a directory, in the order of their names; one INFO line says what was done to them.

    What a file does not say comes from here: its frame rate from ``fps``, its joints from ``joints``, its label from the name of
    its directory, if files lie in several. A directory with a file for every frame counts as one file. BVH files are taken to be
    in centimetres; `datamodules.sets.bvh.bvh` has a scale for others.

    The arguments are explained in ``conf/data/folder.yaml``, more fully at `datamodules.prepare.prepare` and
    `datamodules.clip_set.with_subjects`.

    Raises:
        DataError: no such directory, no such files, a damaged file, data that do not fit the skeleton, or nothing left.
        ValueError: a limit outside its range.
    """
    place = Path(root).expanduser()
    paths, others = _find(place)
    names = named(joints)
    expected = {len(names or skeleton.names)}
    width = skeleton.coords + last_is_confidence

    def recordings() -> Iterator[Recording]:
        groups = list(keypoints2d.sequences(paths))
        number = Counter(path.parent for path, *_ in groups)
        # A directory that holds the frames of one clip is that clip, and the one above it may be its label.
        homes = [path.parent.parent if more and number[path.parent] == 1 else path.parent for path, *more in groups]
        for (path, *more), home in zip(groups, homes, strict=True):
            label = home.name if len(set(homes)) > 1 and home.is_relative_to(place) and home != place else None
            relative = path.relative_to(place) if path != place else Path(path.name)
            for r in keypoints2d.read_frames([path, *more]) if more else read_file(path, width, expected):
                yield replace(
                    _split_confidence(r) if last_is_confidence else r,
                    source=f"{relative}{r.source.removeprefix(path.name)}",
                    label=label if r.label is None else r.label,
                    joints=names if r.joints is None else r.joints,
                )

    clips = prepare(
        recordings(), skeleton, name=root, fps=fps, target_fps=target_fps, lost=lost, min_confidence=min_confidence,
        max_gap=max_gap, min_seconds=min_seconds, max_speed=max_speed, floor=floor, retarget=retarget,
        skip=skip, on_outlier=on_outlier,
    )  # fmt: skip
    clips = with_subjects(clips, subject)
    clips = replace(clips, notes=(*clips.notes, *passed_over(others)))
    log.info("%s: %s", root, "; ".join(clips.notes))
    return clips


def fitting_skeletons(root: str) -> list[str]:
    """The shipped skeletons that the first file below a directory fits, by the names of its joints or by their number.

    Raises:
        DataError: no such directory, no such files, or a damaged first one.
    """
    path = _find(Path(root).expanduser())[0][0]
    for coords in (3, 2):  # some files have both
        first = read_file(path, coords, {len(preset.names) for preset in presets().values()})[0]
        if fit := fitting(first.joints or first.positions.shape[1], first.positions.shape[2]):
            return fit
    return []


def read_file(path: Path, coords: int, joints: Collection[int] = ()) -> list[Recording]:
    """The recordings of one file, read by its ending.

    Args:
        coords: numbers per joint, where the file does not say or has both.
        joints: numbers of joints that are expected, where the order of a file's axes does not show them.

    Raises:
        DataError: an unknown ending, an error of its reader, or content of another format, which is named.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a directory; name one file in it")
    try:
        match path.suffix.lower():
            case ".npy" | ".npz":
                return arrays.read(path, coords, joints)
            case ".csv" | ".tsv":
                return table.read(path, coords)
            case ".skeleton":
                return ntu.read(path)
            case ".json":
                return keypoints2d.read(path, coords)
            case ".bvh":
                return [bvh_file.read(path)]
            case ".trc":
                return [markers.read_trc(path)]
            case ".c3d":
                return markers.read_c3d(path)
        raise DataError(f"{path}: unknown ending {path.suffix!r}, read are {', '.join(ENDINGS)}; convert or remove the file")
    except DataError as error:
        raise refused.refusal(path) or error from error


def _find(place: Path) -> tuple[list[Path], int]:
    """As `find_files`; where there is nothing else, the files of formats that are recognised and refused."""
    try:
        return find_files(place, ENDINGS)
    except DataError:
        with suppress(DataError):
            return find_files(place, refused.ENDINGS)
        raise


def _split_confidence(r: Recording) -> Recording:
    if r.confidence is not None or r.positions.shape[2] != 3:
        raise DataError(
            f"{r.source}: data.last_is_confidence=true needs x, y and a confidence, found {r.positions.shape[2]} coordinates"
            + (" and a confidence besides" if r.confidence is not None else "")
        )
    return replace(r, positions=r.positions[..., :2], confidence=table.scored(r.positions[..., 2], r.positions[..., :2]))
