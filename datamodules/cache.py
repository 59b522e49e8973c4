"""Parsed files, kept as stores so that a second start does not parse them again."""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from datamodules.clip_set import ClipSet
from datamodules.joints import PRESETS
from datamodules.readers.raw_files import MAX_FILES
from datamodules.sets.store import READ_IN_FULL, open_store, store, write_store
from ddpm.errors import DataError
from ddpm.skeleton import Skeleton

log = logging.getLogger(__name__)
Construct = Callable[[Mapping[str, Any], str], ClipSet]  # (node, its place in the configuration) -> the clips


def through_cache(construct: Construct, directory: str | None) -> Construct:
    """The same constructor with a cache in front of it, in outputs/cache if the directory is ``auto``; None for no cache.

    Processes that want the same clips at the same time wait for the first. A damaged entry is made again.
    """
    if directory is None:
        return construct
    folder = Path("outputs/cache" if directory == "auto" else directory)

    def constructed(node: Mapping[str, Any], place: str) -> ClipSet:
        skeleton: Any = node.get("skeleton")
        if isinstance(skeleton, Mapping):  # it may itself stand in a file
            node = {**node, "skeleton": construct(skeleton, f"{place}.skeleton")}
        if (key := cache_key(node)) is None:
            return construct(node, place)
        path = folder / key
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{path}.lock").acquire()
        except OSError as error:
            log.warning("cache=%s cannot be used (%s): the files are read anew", folder, error)
            return construct(node, place)
        with lock:
            _remove_strays(folder, key)
            try:
                if path.exists():
                    clips = open_store(path)
                    log.info("parsed before, taken from %s%s", path, "".join(f"; {note}" for note in clips.notes))
                    return clips
            except DataError as error:
                log.warning("%s: the files are read anew", error)
                shutil.rmtree(path)
            clips = construct(node, place)
            try:
                write_store(
                    clips.recordings(), path, fps=clips.fps, skeleton=clips.skeleton, notes=clips.notes, flaws=clips.flaws
                )
            except OSError as error:
                log.warning("cache=%s: not kept (%s)", folder, error)
            return clips

    return constructed


def _remove_strays(folder: Path, own: str) -> None:
    """Remove half-written entries of killed processes: those whose lock is free, and ``own``, whose lock this process holds."""
    for stray in folder.glob(f".{'[0-9a-f]' * 32}.tmp-*"):
        key = stray.name[1:33]
        try:
            with contextlib.nullcontext() if key == own else FileLock(folder / f"{key}.lock", timeout=0):
                shutil.rmtree(stray, ignore_errors=True)
        except Timeout:
            log.debug("%s: being written by another process", stray)


def cache_key(node: Mapping[str, Any]) -> str | None:
    """A hash of all that decides the clips of a data node: its arguments, the files below ``root``, the code that reads them, and
    the shipped skeletons that arguments may name.

    A copy of ``root`` elsewhere has the same key. If all files together are at most 256 MB, every byte counts; otherwise, since
    reading them would take longer than the cache saves, names, sizes and times of change. None if there is nothing to gain or
    changes would go unnoticed: no ``root``, a store, code of the user's own, or a linked directory below ``root``.
    """
    root = Path(node["root"]).expanduser() if isinstance(node.get("root"), str) else None
    target = str(node.get("_target_"))
    if root is None or not target.startswith("datamodules.") or target == f"{store.__module__}.{store.__qualname__}":
        return None
    paths = [root] if root.is_file() else []
    for folder, folders, names in os.walk(root):
        if links := [name for name in folders if Path(folder, name).is_symlink()]:
            log.info("not cached: %s is a link, and what changes behind it would not be noticed", Path(folder, links[0]))
            return None
        paths += [Path(folder, name) for name in names]
        if len(paths) > MAX_FILES:  # of a checkpoint, root may be a whole disk
            return None
    if not paths or not all(path.is_file() for path in paths):  # a device would be read without end
        return None
    digest = hashlib.sha256(json.dumps({**node, "root": None}, default=Skeleton.to_config).encode())
    here = Path(__file__).parent
    for deciding in (here.rglob("*.py"), here.parent.glob("ddpm/*.py"), PRESETS.glob("*.yaml")):
        for path in sorted(deciding):
            digest.update(path.name.encode() + path.read_bytes())
    files = [(path, path.stat()) for path in sorted(paths)]
    in_full = sum(stat.st_size for _, stat in files) <= READ_IN_FULL
    for path, stat in files:
        content = hashlib.sha256(path.read_bytes()).hexdigest() if in_full else stat.st_mtime_ns
        content = "a link, which no reader follows" if path != root and path.is_symlink() else content
        name = path.name if path == root else path.relative_to(root).as_posix()
        digest.update(json.dumps([name, stat.st_size, content]).encode())
    return digest.hexdigest()[:32]
