"""Parsed files, kept so that a second start does not parse them again."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from datamodules.clip_set import ClipSet
from datamodules.sets.store import READ_IN_FULL, open_store, save_store, store
from ddpm.errors import DataError

log = logging.getLogger(__name__)

Construct = Callable[[Mapping[str, Any], str], ClipSet]


def through_cache(construct: Construct, directory: str | None) -> Construct:
    """A constructor of data nodes that takes their clips from the cache if their files were parsed before.

    Args:
        construct: (node, its place in the configuration) -> the clips.
        directory: of the cache, ``auto`` for outputs/cache, None for none.
    """

    def constructed(node: Mapping[str, Any], place: str) -> ClipSet:
        key = None if directory is None else cache_key(node)
        if directory is None or key is None:
            return construct(node, place)
        return cached(lambda: construct(node, place), key, Path("outputs/cache" if directory == "auto" else directory))

    return constructed


def cached(make: Callable[[], ClipSet], key: str, directory: Path) -> ClipSet:
    """The clip set with this key, mapped into memory if it was made before; made and kept otherwise.

    Processes that want the same one at the same time wait for the first. What is damaged is made again.

    Args:
        make: reads the files.
        key: stands for all that decides what it makes, see `cache_key`.
        directory: of the cache; it may be deleted at any time between runs.
    """
    path = directory / key
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / f"{key}.lock")
        lock.acquire()
    except OSError as error:
        log.warning("cache=%s cannot be used (%s): the files are read anew", directory, error)
        return make()
    try:
        if path.exists():
            try:
                clips = open_store(path, key)
                log.info("parsed before, taken from %s%s", path, "".join(f"; {note}" for note in clips.notes))
                return clips
            except DataError as error:
                log.warning("%s: the files are read anew", error)
                shutil.rmtree(path)
        clips = make()
        try:
            save_store(clips, path, key)
        except OSError as error:
            log.warning("cache=%s: not kept (%s)", directory, error)
        return clips
    finally:
        lock.release()


def cache_key(node: Mapping[str, Any]) -> str | None:
    """What decides the clips of a data node: its arguments, the files below its ``root``, and the code that reads them.

    Where ``root`` lies does not count, so that a copy is known again. Of files that are 256 MB or less together every byte
    counts; of more, which would take longer to read than the cache saves, names, sizes and times of change.

    Args:
        node: constructor and arguments, as plain containers.

    Returns:
        A key for `cached`; None if there is nothing to gain, or no way to notice changes: no ``root``, a store, a root that is
        not there, or a linked directory below it.
    """
    if not isinstance(node.get("root"), str) or node.get("_target_") == f"{store.__module__}.{store.__qualname__}":
        return None
    root = Path(node["root"]).expanduser()
    links = [Path(folder, name) for folder, names, _ in os.walk(root) for name in names if Path(folder, name).is_symlink()]
    if links:
        log.info("not cached: %s is a link, and what changes behind it would not be noticed", links[0])
    if links or not root.exists():
        return None
    code = sorted(Path(__file__).parent.rglob("*.py"))
    digest = hashlib.sha256(json.dumps({**node, "root": None}, sort_keys=True).encode())
    for path in code:
        digest.update(path.read_bytes())
    files = [(path, path.stat()) for path in _files(root)]
    in_full = sum(stat.st_size for _, stat in files) <= READ_IN_FULL
    for path, stat in files:
        content = hashlib.sha256(path.read_bytes()).hexdigest() if in_full else stat.st_mtime_ns
        digest.update(json.dumps([path.relative_to(root).as_posix(), stat.st_size, content]).encode())
    return digest.hexdigest()[:32]


def _files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
    else:
        yield from sorted(Path(folder, name) for folder, _, names in os.walk(root) for name in names)
