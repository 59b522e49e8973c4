"""Stores give the batches of the clip set in memory, to the bit; what is damaged is refused; files are parsed once."""

import hashlib
import json
import logging
import multiprocessing
import os
import pickle
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch.utils.data import DataLoader

from datamodules.cache import cache_key, through_cache
from datamodules.clip_set import ClipSet, Names, Recording
from datamodules.clip_windows import Windows
from datamodules.pose import PoseDataModule, _already_collated
from datamodules.sets.store import FRAMES, META, SOURCES, StoredClips, open_store, store, write_store
from ddpm.config import construct
from ddpm.errors import DataError
from ddpm.skeleton import Skeleton
from tests.skeletons import people, shipped

SKELETON = Skeleton({"root": None, "l": "root", "r": "root"}, [["l", "r"]], ["l"], "z", 3)


def recordings(n: int = 30) -> list[Recording]:
    """Random numbers of random length; some lack a label or a subject, one name is not ASCII, one is empty."""
    rng = np.random.default_rng(0)
    return [
        Recording(
            rng.normal(size=(int(rng.integers(1, 20)), 3, 3)).astype(np.float32),
            ["", "läuft", "b"][i % 3] if i < 3 else f"file {n - i // 2}",
            None if i % 5 == 0 else f"action {-i % 4}",
            f"p{-i % 7}",
        )
        for i in range(n)
    ]


def in_memory() -> ClipSet:
    return ClipSet.from_recordings(recordings(), fps=12.5, skeleton=SKELETON)


def written(directory: Path) -> ClipSet:
    return write_store(recordings(), directory, fps=12.5, skeleton=SKELETON)


def cached(make: Callable[[], ClipSet], directory: Path) -> ClipSet:
    """What a data node of one file gives with a cache in this directory."""
    file = directory.with_name("parsed.txt")
    file.write_text("1")
    node = {"_target_": "datamodules.readers.x.x", "root": str(file)}
    return through_cache(lambda node, place: make(), str(directory))(node, "data")


def entry(directory: Path) -> Path:
    [path] = (path for path in directory.iterdir() if path.is_dir())
    return path


def assert_same(a: ClipSet, b: ClipSet) -> None:
    for name in ("frames", "starts", "lengths", "labels"):
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype and torch.equal(x, y), name
    assert list(a.subjects) == list(b.subjects) and list(a.sources) == list(b.sources)
    assert list(a.subjects.values) == list(b.subjects.values) and list(a.sources.values) == list(b.sources.values)
    assert (a.class_names, a.fps, a.skeleton, len(a)) == (b.class_names, b.fps, b.skeleton, len(b))


def test_names_are_a_sequence() -> None:
    names = Names.of(["b", None, "a", "b"])
    assert names == ("b", None, "a", "b") and names != ("b",) and names.values == ("a", "b")
    assert names.codes.tolist() == [1, -1, 0, 1] and names[1] is None and "a" in names and len(names) == 4


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written(tmp_path / "s")
    stored = store(SKELETON, str(tmp_path / "s"), on_outlier="keep")
    assert_same(stored, in_memory())
    assert type(stored.sources[0]) is str, "no string of numpy, which prints its type"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s"], "nothing is left beside it"


def test_recordings_without_subjects_and_labels_are_written_and_read(tmp_path: Path) -> None:
    bare = [replace(r, label=None, subject=None) for r in recordings(4)]
    assert_same(
        write_store(bare, tmp_path / "s", fps=12.5, skeleton=SKELETON),
        ClipSet.from_recordings(bare, fps=12.5, skeleton=SKELETON),
    )


def test_what_was_done_to_the_recordings_is_kept(tmp_path: Path) -> None:
    made = replace(in_memory(), notes=("3 frames dropped", "1 gap filled"), flaws=("a is mirrored",))
    both = [cached(lambda: made, tmp_path / "c") for _ in range(2)]
    assert [(clips.notes, clips.flaws) for clips in both] == [(made.notes, made.flaws)] * 2
    assert cached(in_memory, tmp_path / "d").flaws is cached(in_memory, tmp_path / "d").flaws is None


def test_a_store_that_nobody_judged_is_judged(tmp_path: Path) -> None:
    skeleton = shipped("kinect20")
    mixed = [Recording(x * (100 if k == 2 else 1), f"w{k}") for k, x in enumerate(people(6))]
    write_store(mixed, tmp_path / "s", fps=20, skeleton=skeleton)
    with pytest.raises(DataError, match=r"in 1 of 6 recordings \(w2\) the body has another size.*set data\.on_outlier=keep to"):
        store(skeleton, str(tmp_path / "s"))
    assert len(store(skeleton, str(tmp_path / "s"), on_outlier="keep")) == 6
    with pytest.raises(ValueError, match="refuse or keep"):
        store(skeleton, str(tmp_path / "s"), on_outlier="fix")  # type: ignore[arg-type]
    write_store(mixed, tmp_path / "known", fps=20, skeleton=skeleton, flaws=["one is large"])
    assert store(skeleton, str(tmp_path / "known")).flaws == ("one is large",)


def test_recordings_are_written_one_by_one(tmp_path: Path) -> None:
    """Each is dropped before the next is asked for; what went wrong leaves nothing behind."""
    seen: list[weakref.ref[Recording]] = []

    def made() -> Iterator[Recording]:
        for i in range(50):
            assert sum(ref() is not None for ref in seen) <= 1, "at most the one that was written last"
            recording = Recording(np.zeros((4, 3, 3), np.float32), f"{i}")
            seen.append(weakref.ref(recording))
            yield recording
            del recording

    assert len(write_store(made(), tmp_path / "s", fps=10, skeleton=SKELETON)) == 50
    bad = Recording(np.full((2, 3, 3), np.nan, np.float32), "bad.txt")
    with pytest.raises(DataError, match=r"bad\.txt"):
        write_store(iter([*recordings(3), bad]), tmp_path / "t", fps=10, skeleton=SKELETON)
    with pytest.raises(DataError, match="no recordings"):
        write_store(iter([]), tmp_path / "t", fps=10, skeleton=SKELETON)
    with pytest.raises(DataError, match="there already"):
        write_store(iter(recordings(3)), tmp_path / "s", fps=10, skeleton=SKELETON)
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("split", ["subject", "sequence"])
def test_batches_are_those_of_the_set_in_memory(split: str, num_workers: int, tmp_path: Path) -> None:
    stored = written(tmp_path / "s")
    a, b = (
        PoseDataModule(clips, 8, 4, 10, 0.2, split, workers, seed=3)  # type: ignore[arg-type]
        for clips, workers in ((in_memory(), 0), (stored, num_workers))
    )
    for loader in ("train_dataloader", "val_dataloader"):
        pairs = list(zip(getattr(a, loader)(), getattr(b, loader)(), strict=True))
        assert pairs
        for x, y in pairs:
            assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)
    assert torch.equal(a.statistics_batch()["clips"], b.statistics_batch()["clips"])


def lengths_of(clips: ClipSet) -> list[int]:
    return clips.lengths.tolist()


def test_other_processes_map_the_files_themselves(tmp_path: Path) -> None:
    """A tensor that is sent to a process would be copied, all of it."""
    stored = written(tmp_path / "s")
    assert len(pickle.dumps(stored)) < 1000
    assert_same(pickle.loads(pickle.dumps(stored)), stored)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_cached_set_goes_to_processes_that_share_nothing(tmp_path: Path) -> None:
    """The first start parses the files; from the second on the set comes from a store."""
    first, second = (cached(in_memory, tmp_path / "c") for _ in range(2))
    assert not isinstance(first, StoredClips) and isinstance(second, StoredClips)
    assert_same(pickle.loads(pickle.dumps(second)), first)
    index = torch.tensor([[0, 0], [1, 0]])
    loader = DataLoader(
        Windows(second, 8),
        batch_sampler=[index],  # type: ignore[arg-type]
        collate_fn=_already_collated,
        num_workers=1,
        multiprocessing_context="spawn",
    )
    batch, expected = next(iter(loader)), Windows(first, 8).__getitems__(index)
    assert torch.equal(batch["clips"], expected["clips"])


@pytest.mark.slow
def test_processes_that_share_nothing_serve_the_same_batches(tmp_path: Path) -> None:
    stored = written(tmp_path / "s")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(lengths_of, (stored,)) == lengths_of(stored)


def test_a_store_larger_than_memory_opens(tmp_path: Path) -> None:
    """As a file with a hole: it has its size, and takes no room. Memory that could be written would be refused."""
    written(tmp_path / "s")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    rows = 2 * memory // 36
    try:
        os.truncate(tmp_path / "s" / FRAMES, rows * 36)
    except OSError as error:
        pytest.skip(f"no file of that size here: {error}")
    rewrite(tmp_path / "s", lambda m: m["files"].update({FRAMES: [rows * 36, None]}))
    clips = open_store(tmp_path / "s")
    assert clips.frames.shape[0] == rows and torch.equal(clips.recording(0), in_memory().recording(0))
    assert float(clips.frames[-1].abs().sum()) == 0


def rewrite(path: Path, change: Callable[[dict], object]) -> None:
    """meta.json with a change and a checksum that fits it."""
    content = json.loads((path / META).read_text())
    del content["sha256"]
    change(content)
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    (path / META).write_text(json.dumps({**content, "sha256": digest}))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "meta.json: checksum": lambda s: (s / META).write_text((s / META).read_text().replace("12.5", "25.0")),
    "meta.json: no JSON": lambda s: (s / META).write_text("{"),
    "meta.json: other JSON": lambda s: (s / META).write_text("[]"),
    "meta.json: a number": lambda s: (s / META).write_text("5"),
    "meta.json: keys": lambda s: rewrite(s, lambda m: m.pop("files")),
    "version": lambda s: rewrite(s, lambda m: m.update(version=0)),
    "cut short": lambda s: os.truncate(s / FRAMES, 500),
    "a bit": lambda s: flip(s / FRAMES),
    "a bit of the index": lambda s: flip(s / "index.npy"),
    "shape": lambda s: rewrite(s, lambda m: m["skeleton"].update(coords=2)),
    "a file": lambda s: (s / SOURCES).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_refused_and_a_cache_makes_it_again(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[int] = []

    def make() -> ClipSet:
        made.append(1)
        return in_memory()

    assert_same(cached(make, tmp_path / "c"), in_memory())
    assert isinstance(cached(make, tmp_path / "c"), StoredClips) and len(made) == 1
    path = entry(tmp_path / "c")
    DAMAGE[damage](path)
    with pytest.raises(DataError, match=str(path)):
        open_store(path)
    with caplog.at_level(logging.WARNING):
        assert_same(cached(make, tmp_path / "c"), in_memory())
    assert len(made) == 2 and "read anew" in caplog.text
    assert_same(cached(make, tmp_path / "c"), in_memory())
    assert len(made) == 2


@pytest.mark.parametrize("column", range(5))
@pytest.mark.parametrize("value", [-2, 10**6, 2**62])
def test_an_index_that_leads_elsewhere_is_refused(column: int, value: int, tmp_path: Path) -> None:
    """With the right checksum, as whoever made it can give."""
    written(tmp_path / "s")
    path = tmp_path / "s" / "index.npy"
    index = np.load(path)
    index[0, column] = value
    np.save(path, index)
    expected = [path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()]
    rewrite(tmp_path / "s", lambda m: m["files"].update({path.name: expected}))
    with pytest.raises(DataError, match="names frames, labels or names that are not there"):
        open_store(tmp_path / "s")


def test_a_store_names_no_other_files(tmp_path: Path) -> None:
    written(tmp_path / "s")
    for name in ("/dev/zero", "../s/meta.json"):
        rewrite(tmp_path / "s", lambda m, name=name: m["files"].update({name: [0, None]}))
        with pytest.raises(DataError, match="is no file of a store"):
            open_store(tmp_path / "s")


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    written(tmp_path / "s")
    path = tmp_path / "s" / SOURCES
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    expected = [path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()]
    rewrite(tmp_path / "s", lambda m: m["files"].update({SOURCES: expected}))
    with pytest.raises(DataError, match="Python objects"):
        open_store(tmp_path / "s")


def test_stores_name_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no usable store of clips.*write_store"):
        open_store(tmp_path / "none")
    written(tmp_path / "t")
    rewrite(tmp_path / "t", lambda m: m.update(version=1))
    with pytest.raises(DataError, match="version 1, expected 2"):
        open_store(tmp_path / "t")
    rewrite(tmp_path / "t", lambda m: m.update(version=2))
    with pytest.raises(DataError, match="skeleton of the store"):
        store(Skeleton({"root": None, "tip": "root"}), str(tmp_path / "t"))


def test_what_killed_processes_left_in_a_cache_is_removed(tmp_path: Path) -> None:
    """What another process is writing, which holds the lock of its entry, stays."""
    folder = tmp_path / "c"
    cached(in_memory, folder)
    killed, living = "a" * 32, "b" * 32
    for name in (killed, living, entry(folder).name, "mine"):
        (folder / f".{name}.tmp-x").mkdir()
    with FileLock(folder / f"{living}.lock"):
        cached(in_memory, folder)
    assert {path.name for path in folder.glob(".*.tmp-*")} == {f".{living}.tmp-x", ".mine.tmp-x"}, "and nothing of anybody else"


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert_same(cached(in_memory, tmp_path / "file"), in_memory())
    assert "cannot be used" in caplog.text


def test_the_key_is_of_the_content(tmp_path: Path) -> None:
    def key(root: Path, **arguments: object) -> str | None:
        return cache_key({"_target_": "datamodules.readers.x.x", "root": str(root), **arguments})

    for name in ("a", "b"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "f.txt").write_text("1")
    first = key(tmp_path / "a")
    assert first is not None and first == key(tmp_path / "b"), "a copy is known again"
    assert key(tmp_path / "a", fps=15.0) != first
    os.utime(tmp_path / "b" / "deep" / "f.txt", (1, 1))
    assert key(tmp_path / "b") == first, "a time alone changes nothing"
    (tmp_path / "b" / "deep" / "f.txt").unlink()
    (tmp_path / "b" / "deep" / "f.txt").symlink_to(tmp_path / "a" / "deep" / "f.txt")
    assert key(tmp_path / "b") != first, "no reader follows a link below the root"
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    assert key(tmp_path / "linked") == first, "the root itself may be one"
    (tmp_path / "b" / "deep" / "f.txt").unlink()
    (tmp_path / "b" / "deep" / "f.txt").write_text("2")
    assert key(tmp_path / "b") != first, "one byte does"
    (tmp_path / "a" / "deep" / "f.txt").rename(tmp_path / "a" / "deep" / "g.txt")
    assert key(tmp_path / "a") != first, "so does a name"
    (tmp_path / "a" / "link").symlink_to(tmp_path / "b")
    assert key(tmp_path / "a") is None and key(tmp_path / "none") is None
    assert cache_key({"_target_": "datamodules.sets.synthetic.synthetic", "n": 5}) is None
    assert cache_key({"_target_": "my_package.load", "root": str(tmp_path)}) is None
    os.mkfifo(tmp_path / "b" / "pipe")
    assert key(tmp_path / "b") is None, "what has no end is not read"
    assert cache_key({"_target_": "datamodules.sets.store.store", "root": str(tmp_path / "b")}) is None


def test_a_directory_of_more_files_than_are_read_has_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        (tmp_path / name).touch()
    node = {"_target_": "datamodules.sets.folder.folder", "root": str(tmp_path)}
    assert cache_key(node) is not None
    monkeypatch.setattr("datamodules.cache.MAX_FILES", 2)
    assert cache_key(node) is None


def test_of_many_bytes_sizes_and_times_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamodules.cache.READ_IN_FULL", 3)
    node = {"_target_": "datamodules.readers.x.x", "root": str(tmp_path)}
    (tmp_path / "f.txt").write_text("1234")
    os.utime(tmp_path / "f.txt", ns=(0, 10**9))
    first = cache_key(node)
    os.utime(tmp_path / "f.txt", ns=(0, 10**9 + 1000))
    assert cache_key(node) != first


def test_files_are_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "f.txt").write_text("1")
    built: list[str] = []
    node = {"_target_": "datamodules.readers.x.x", "root": str(tmp_path / "data")}
    monkeypatch.chdir(tmp_path)
    for cache, expected in ((None, 1), (None, 2), ("auto", 3), ("auto", 3), ("here", 4), ("here", 4)):
        construct = through_cache(lambda node, place: built.append(place) or in_memory(), cache)
        assert_same(construct(node, "data"), in_memory())
        assert len(built) == expected
    assert (tmp_path / "outputs" / "cache").is_dir() and (tmp_path / "here").is_dir()


def test_the_key_is_of_what_arguments_refer_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shipped skeleton by its name, a skeleton that stands in a file, the order of joints, the name of a single file."""
    presets = tmp_path / "presets"
    (tmp_path / "data").mkdir()
    presets.mkdir()
    for module in ("cache", "joints"):
        monkeypatch.setattr(f"datamodules.{module}.PRESETS", presets)
    camera = {"_target_": "ddpm.skeleton.Skeleton", "joints": {"root": None, "l": "root", "r": "root"}}
    (presets / "camera.yaml").write_text(json.dumps(camera))
    positions = np.random.default_rng(0).normal(size=(20, 3, 3)).astype(np.float32)
    np.save(tmp_path / "data" / "a.npy", positions)
    node = {
        "_target_": "datamodules.sets.folder.folder", "root": str(tmp_path / "data"), "joints": "camera", "fps": 10.0,
        "max_speed": None, "floor": False, "skeleton": camera,
    }  # fmt: skip

    def clips(**changes: object) -> ClipSet:
        return through_cache(construct, str(tmp_path / "cache"))({**node, **changes}, "data")

    assert torch.equal(clips().frames, torch.from_numpy(positions))
    other = {**camera, "joints": {"root": None, "r": "root", "l": "root"}}
    (presets / "camera.yaml").write_text(json.dumps(other))
    assert torch.equal(clips().frames, torch.from_numpy(positions[:, [0, 2, 1]]))
    assert clips(skeleton=other).skeleton.names == ("root", "r", "l")
    moved = tmp_path / "data" / "b.npy"
    assert list(clips(root=str(tmp_path / "data" / "a.npy")).sources) == ["a.npy"]
    (tmp_path / "data" / "a.npy").rename(moved)
    assert list(clips(root=str(moved)).sources) == ["b.npy"]

    bvh = (Path(__file__).parents[1] / "bvh" / "small.bvh").read_text()
    (tmp_path / "body.bvh").write_text(bvh)
    (tmp_path / "moves.bvh").write_text(bvh)
    found = {"_target_": "datamodules.sets.bvh.skeleton", "root": str(tmp_path / "body.bvh"), "end_sites": False}
    node = {"_target_": "datamodules.sets.bvh.bvh", "root": str(tmp_path / "moves.bvh"), "skeleton": found}
    names = clips().skeleton.names
    (tmp_path / "body.bvh").write_text(bvh.replace(names[-1], "Other"))
    with pytest.raises(DataError, match="Other"):
        clips()
