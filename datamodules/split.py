"""Which recordings are trained on and which are held out; scenes stay whole."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from datamodules.clip_set import ClipSet, Names
from datamodules.readers.raw_files import read_text
from ddpm.errors import DataError
from ddpm.seeding import derive_seed

log = logging.getLogger(__name__)

PART = re.compile(r"(?i)^(.*\.(?:csv|tsv|json|skeleton|trc|c3d)), (?!.*\.(?:csv|tsv|json|skeleton|trc|c3d|np[yz]|bvh|txt)$).*$")
"""A body or track, behind the file it is in. The clips of an array are recordings of their own."""
SIDES = r"mirror(?:ed)?|mir|[hv]?flip(?:ped)?(?:[ _-]?(?:x|y|z|lr|h|v))?"
TEMPO = r"(?:x|speed|tempo|scaled?|slow(?:er)?|fast(?:er)?|rev(?:ersed?)?|aug(?:mented)?|noisy?|rot(?:ated)?)[ _-]?[\d.]*|[\d.]+x"
COPY = re.compile(
    rf"(?i)(?:^|(?<=/))(?:(?:{SIDES}|m)(?:[ _-]+|(?=\d))|(?:{SIDES})/)"
    rf"|(?:[ ._-]+|(?<=\d)(?=m)|(?=mirror|flip))[(\[]?(?:{SIDES}|lr|m|{TEMPO})(?:[ _-]\d+)?[)\]]?(?=/|\.[a-z]\w*$|$)"
)
"""How the name of a copy that was mirrored, or changed in tempo or otherwise, differs from that of its original: M012345,
walk_mirrored, mirror/walk, walk_x0.9, walk_aug2."""


def split_recordings(clips: ClipSet, val_fraction: float, split: str, seed: int) -> tuple[Tensor, Tensor]:
    """Sorted int64 indices of the recordings to train and to validate on.

    Groups are held out in random order until they have ``val_fraction`` of the recordings; one that would bring what is held
    out to more than half of all frames is passed over.

    Args:
        val_fraction: fraction of recordings held out, at least; 0 validates on the training recordings.
        split: ``subject`` for disjoint subjects, ``sequence`` for disjoint `scenes`, or the path of a list, see `listed`.

    Raises:
        DataError: an unknown subject under ``subject``, one side left empty, or see `listed`.
        ValueError: an unknown split.
    """
    everything = torch.arange(len(clips))
    if split not in ("subject", "sequence"):
        return listed(clips, Path(split).expanduser())
    if val_fraction == 0:
        log.warning("loader.val_fraction=0: val/loss is measured on the training recordings")
        return everything, everything
    groups = clips.subjects if split == "subject" else scenes(clips.sources)
    if len(unknown := (groups.codes < 0).nonzero()):
        source = clips.sources[int(unknown[0])]
        raise DataError(
            f"{source}: no subject is known, cannot split by subject; use loader.split=sequence, or say where names have it, as "
            r""""data.subject='S(\d+)'" with all its quotes"""
        )
    n = len(groups.values)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(derive_seed(seed, "split")))
    number = groups.codes.bincount(minlength=n)
    share = torch.zeros(n, dtype=torch.float64).index_add_(0, groups.codes, clips.lengths.double() / clips.lengths.sum())
    held: list[int] = []
    recordings = frames = 0
    for group, count, size in zip(order.tolist(), number[order].tolist(), share[order].tolist(), strict=True):
        if recordings >= val_fraction * len(clips):
            break
        if frames + size <= max(0.5, val_fraction) + 1e-9:  # sums are rounded
            held.append(group)
            recordings, frames = recordings + count, frames + size
    largest = int(share.argmax())
    if held and share[largest] > 0.51 and largest not in held:
        log.warning(
            "%s holds %.0f %% of all frames and is trained on; only %.1f %% are held out, cut it into several files for more",
            groups.values[largest], 100 * share[largest], 100 * frames,
        )  # fmt: skip
    if not held:
        raise DataError(
            f"{len(clips)} recordings of one {split} cannot be split with loader.val_fraction={val_fraction}: one side stays "
            "empty; use loader.split=sequence, more data, or loader.val_fraction=0"
        )
    is_val = torch.isin(groups.codes, torch.tensor(held))
    return everything[~is_val], everything[is_val]


def split_in_time(clips: ClipSet, val_fraction: float) -> tuple[ClipSet, Tensor, Tensor]:
    """Recordings of a single scene cut in two, and the numbers of the earlier and of the later parts; no frame is in both.

    Raises:
        DataError: so few frames that a part stays empty.
    """
    later = (val_fraction * clips.lengths).round().long()
    earlier = clips.lengths - later
    if not (later > 0).any() or not (earlier > 0).any():
        raise DataError(
            f"{clips.sources[0]}: the only recording, of {int(clips.lengths.sum())} frames, cannot be split in time with "
            f"loader.val_fraction={val_fraction}; use more data, or loader.val_fraction=0"
        )
    lengths = torch.cat([earlier, later])
    some = lengths > 0
    subjects, sources = (Names(n.values, n.codes.repeat(2)[some]) for n in (clips.subjects, clips.sources))
    parts = ClipSet(
        clips.frames, torch.cat([clips.starts, clips.starts + earlier])[some], lengths[some], clips.labels.repeat(2)[some],
        subjects, sources, clips.class_names, clips.fps, clips.skeleton, clips.notes,
        conditions=None if clips.conditions is None else clips.conditions.repeat(2, 1)[some],
    )  # fmt: skip
    first = int((earlier > 0).sum())
    return parts, torch.arange(first), torch.arange(first, len(parts))


def scenes(sources: Names) -> Names:
    """The scene of each recording, by name: a file with all its bodies and tracks, and its copies, as far as names tell them."""
    files = [PART.sub(r"\1", str(source)) for source in sources.values]
    known = {file: file for file in files}
    for file in files:  # beside mirror/walk may be original/walk, which is known as /walk
        *folders, name = file.split("/")
        for i, folder in enumerate(folders):
            if not COPY.fullmatch(f"{folder}/"):
                known.setdefault("/".join([*folders[:i], "", *folders[i + 1 :], name]), file)
    own = Names.of([_original(file, known) for file in files])
    return Names(own.values, own.codes[sources.codes])


def _original(file: str, known: Mapping[str, str]) -> str:
    """The file that another is a copy of, by its name, or that itself; ``known`` are names and the files that they may mean."""
    ways = [file[: match.start()] + rest + file[match.end() :] for match in COPY.finditer(file) for rest in ("", "/")]
    way = next((known[way] for way in ways if way in known and known[way] != file), None)
    return file if way is None else _original(way, known)


def listed(clips: ClipSet, path: Path) -> tuple[Tensor, Tensor]:
    """Sorted int64 indices of the recordings to train and to validate on, by an official list.

    A list is a text file with a name a line, of a file, with or without its ending and directory, or of a subject. It names what
    is held out, unless it is called ``train``. Where files ``train`` and ``val`` (or ``test``) lie side by side, as in
    ``splits/train.txt`` or ``pose_train.txt``, both count, and what is in neither is left out. A directory stands for its lists.
    A scene that is named in part is named as a whole.

    Raises:
        DataError: no such list, no recording in it, or one in both.
        ValueError: neither a way to split nor a path.
    """
    if not path.exists():
        raise ValueError(
            f"loader.split={str(path)!r} must be 'subject', 'sequence', or the path of a list, and there is no such file"
        )
    lists = _lists(path)
    groups = scenes(clips.sources)
    chosen = {side: _named(clips, groups, file) for side, file in lists.items()}
    if "val" not in chosen:
        chosen["val"] = ~chosen["train"]
    train, val = chosen.get("train", ~chosen["val"]), chosen["val"]
    if len(both := (train & val).nonzero()):
        raise DataError(
            f"{lists['val']}: {clips.sources[int(both[0])]} or a recording of its scene is in {lists['train']} too; "
            "name it in one"
        )
    if not train.any() or not val.any():
        raise DataError(
            f"{path}: of {len(clips)} recordings none is left to {'validate' if train.any() else 'train'} on; correct the list"
        )
    if rest := int((~(train | val)).sum()):
        log.info("%s: %d recordings are in neither list and are left out", path, rest)
    return train.nonzero()[:, 0], val.nonzero()[:, 0]


def _lists(path: Path) -> dict[str, Path]:
    """``train`` and ``val`` -> the files that list them, at least one."""
    if path.is_dir():
        found = {
            side: sorted(p for p in path.iterdir() if p.is_file() and side in p.stem.lower()) for side in ("train", "val", "test")
        }
        one = {side: files[0] for side, files in found.items() if len(files) == 1}
        path = one.get("val", one.get("test", one.get("train", path)))
        if path.is_dir():
            raise DataError(f"{path}: has no lists train.txt and val.txt; give the one that names what is held out")
    is_train = "train" in path.stem.lower()
    for word in ("val", "test") if is_train else ("train",):
        other = re.sub("(?i)train" if is_train else "(?i)val(id(ation)?)?|test", word, path.name)
        if other != path.name and path.with_name(other).is_file():
            return {"train": path, "val": path.with_name(other)} if is_train else {"train": path.with_name(other), "val": path}
    return {"train" if is_train else "val": path}


def list_digest(split: str) -> str | None:
    """What the lists behind ``loader.split=PATH`` hold, by which a changed one is noticed; None without a list."""
    if split in ("subject", "sequence") or not (path := Path(split).expanduser()).exists():
        return None
    lists = {side: sorted(_lines(file)) for side, file in _lists(path).items()}
    return f"{sum(map(len, lists.values()))} names, SHA-256 {hashlib.sha256(json.dumps(lists).encode()).hexdigest()[:16]}"


def _lines(path: Path) -> set[str]:
    lines = (line.strip().strip('"').replace("\\", "/").removeprefix("./") for line in read_text(path).splitlines())
    return {line for line in lines if line and not line.startswith("#")}


def _named(clips: ClipSet, groups: Names, path: Path) -> Tensor:
    """``(recordings,)`` bool: whose scene or subject a list names."""
    lines = _lines(path)
    own = []
    for source, subject in zip(clips.sources, clips.subjects, strict=True):
        file = PurePosixPath(PART.sub(r"\1", str(source)))
        own.append({str(source), str(file), str(file.with_suffix("")), file.name, file.stem, str(subject)})
    known = set[str]().union(*own)
    wanted = set[str]()
    for line in lines:  # perhaps with a label behind it, or the directory of another machine
        first = re.split(r'"?[,;\t]|\s+-?\d+$', line)[0]
        wanted.add(next((way for way in (line, first, PurePosixPath(first).name) if way in known), line))
    met = wanted & known
    named = [not names.isdisjoint(wanted) for names in own]
    if not met:
        raise DataError(
            f"{path}: none of its {len(wanted)} names is in the data, where names are as {clips.sources[0]}; correct the list"
        )
    if len(met) < len(wanted):
        log.info("%s: %d of its %d names are not in the data", path, len(wanted) - len(met), len(wanted))
    return torch.isin(groups.codes, groups.codes[torch.tensor(named)])
