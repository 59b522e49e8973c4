"""Windows, their order, and the split."""

import numpy as np
import pytest
import torch

from datamodules.clip_set import ClipSet, Recording
from datamodules.clip_windows import Windows
from datamodules.pose import PoseDataModule, RandomWindows
from ddpm.errors import DataError
from ddpm.skeleton import Skeleton

PAIR = Skeleton({"root": None, "tip": "root"}, feet=["tip"])


def counted(lengths: list[int], subjects: list[str | None] | None = None) -> ClipSet:
    """Recordings in which every number says where it is: x = recording, y = frame, z = joint; the root walks along x and z."""
    recordings = []
    for i, n in enumerate(lengths):
        x, y, z = np.meshgrid([float(i)], np.arange(n), [0.0, 1.0], indexing="ij")
        positions = np.stack([x[0] + y[0], y[0], z[0] + 2 * y[0]], axis=-1).astype(np.float32)
        recordings.append(Recording(positions, f"r{i}", f"a{i % 2}", None if subjects is None else subjects[i]))
    return ClipSet.from_recordings(recordings, fps=10, skeleton=PAIR)


def test_a_window_is_the_recording_anchored_at_its_first_root() -> None:
    clips = counted([10, 20, 5])
    batch = Windows(clips, 6).__getitems__(torch.tensor([[1, 7], [0, 0]]))
    for row, (recording, first) in enumerate([(1, 7), (0, 0)]):
        expected = clips.recording(recording)[first : first + 6].clone()
        expected -= expected[0, 0] * torch.tensor([1.0, 0.0, 1.0])
        assert torch.equal(batch["clips"][row], expected.permute(1, 2, 0))
    assert torch.equal(batch["clips"][:, 0, [0, 2], 0], torch.zeros(2, 2)), "the root starts at the origin of the ground"
    assert torch.equal(batch["clips"][0, 0, 1], torch.arange(7.0, 13.0)), "heights are kept"
    assert batch["mask"].min() == 1 and torch.equal(batch["labels"], torch.tensor([1, 0]))


def test_turned_windows_forget_the_heading_and_nothing_else() -> None:
    """A person who is turned anywhere gives the same window: left along the first ground axis, heights and distances kept."""
    body = Skeleton({"root": None, "a": "root", "b": "root", "tip": "a"}, left_right=[["a", "b"]])
    positions = np.random.default_rng(0).normal(size=(9, 4, 3)).astype(np.float32)
    positions[6:, 1, 0] += 50.0  # behind the end of the window
    angle = 2.1
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]], dtype=np.float32)
    clips = ClipSet.from_recordings(
        [Recording(p, "r", None, None) for p in (positions, positions @ turn.T, positions[:4])], fps=10, skeleton=body
    )
    index = torch.tensor([[0, 0], [1, 0], [2, 0]])
    plain, turned = (Windows(clips, 6, turned=on).__getitems__(index)["clips"] for on in (False, True))
    torch.testing.assert_close(turned[1], turned[0])
    assert (plain[1] - plain[0]).abs().max() > 0.5
    for clip, frames in zip(turned, (6, 6, 4), strict=True):
        across = (clip[1] - clip[2])[:, :frames].mean(dim=1)
        assert across[0] > 0 and abs(across[2]) < 1e-6
    for k in range(3):
        assert torch.equal(turned[k][:, 1], plain[k][:, 1])
        flat = [x[k].permute(2, 0, 1) for x in (plain, turned)]
        torch.testing.assert_close(torch.cdist(flat[0], flat[0]), torch.cdist(flat[1], flat[1]), rtol=0, atol=1e-4)
    flat = Skeleton({"root": None, "a": "root", "b": "root"}, left_right=[["a", "b"]], coords=2)
    pixels = ClipSet.from_recordings([Recording(positions[:, :3, :2], "r", None, None)], fps=10, skeleton=flat)
    assert torch.equal(*(Windows(pixels, 6, turned=on).__getitems__(index[:1])["clips"] for on in (False, True)))


def test_without_short_recordings_there_is_no_mask() -> None:
    assert Windows(counted([10, 20]), 6).__getitems__(torch.tensor([[1, 7], [0, 0]]))["mask"] is None


def test_a_short_recording_is_continued_by_its_last_pose_and_masked() -> None:
    batch = Windows(counted([4, 9]), 6).__getitems__(torch.tensor([[0, 0]]))
    assert torch.equal(batch["mask"][0, 0, 0], torch.tensor([1.0, 1, 1, 1, 0, 0]))
    assert torch.equal(batch["clips"][0, ..., 4], batch["clips"][0, ..., 3])
    assert torch.equal(batch["clips"][0, ..., 5], batch["clips"][0, ..., 3])


def sampler(n: int = 10, batch_size: int = 4, batches: int = 5, **changes: object) -> RandomWindows:
    lengths = torch.arange(n) * 3 + 5
    arguments = {"seed": 0, "position": lambda: 0, "rank": 0, "world_size": 1} | changes
    return RandomWindows(torch.arange(n) + 100, lengths, 8, batch_size, batches, **arguments)  # type: ignore[arg-type]


def test_every_pass_visits_every_recording_once() -> None:
    walk = torch.cat([sampler().batch(k)[:, 0] for k in range(10)])
    for start in range(0, 40, 10):
        assert sorted(walk[start : start + 10].tolist()) == list(range(100, 110))
    assert not torch.equal(walk[:10], walk[10:20]), "passes are shuffled anew"


def test_windows_lie_inside_their_recording_and_reach_both_ends() -> None:
    index = torch.cat([sampler().batch(k) for k in range(500)])
    last = (3 * (index[:, 0] - 100) + 5 - 8).clamp(min=0)
    assert bool((index[:, 1] >= 0).all() and (index[:, 1] <= last).all())
    longest = index[index[:, 0] == 109]
    assert longest[:, 1].min() == 0 and longest[:, 1].max() == 24


def test_a_resumed_epoch_yields_what_was_left_of_it() -> None:
    whole = list(sampler())
    for k in range(5):
        rest = list(sampler(position=lambda k=k: k))
        assert len(rest) == 5 - k and all(torch.equal(a, b) for a, b in zip(rest, whole[k:], strict=True))
    second = list(sampler(position=lambda: 5))
    assert len(second) == 5 and not torch.equal(second[0], whole[0])


def test_two_processes_share_the_walk_of_one() -> None:
    ranks = [sampler(batch_size=2, rank=r, world_size=2) for r in range(2)]
    for k in range(10):
        assert torch.equal(torch.cat([r.batch(k) for r in ranks]), sampler().batch(k))


def test_the_seed_decides() -> None:
    assert torch.equal(sampler().batch(3), sampler().batch(3))
    assert not torch.equal(sampler().batch(3), sampler(seed=1).batch(3))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"frames": 0}, "frames=0"), ({"batch_size": 0}, "batch_size=0"), ({"steps_per_epoch": 0}, "steps_per_epoch=0"),
     ({"val_fraction": 1.0}, r"val_fraction=1\.0"), ({"draws": "often"}, "draws='often'")],
)  # fmt: skip
def test_limits_are_named(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        PoseDataModule(counted([9]), **({"frames": 4} | arguments))


def test_loaders_serve_whole_batches() -> None:
    data = PoseDataModule(counted([9] * 20, [f"s{i % 5}" for i in range(20)]), 6, batch_size=4, val_fraction=0.2)
    train, val = list(data.train_dataloader()), list(data.val_dataloader())
    assert len(train) == 4 and all(b["clips"].shape == (4, 2, 3, 6) for b in train)
    assert sum(len(b["clips"]) for b in val) == len(data.val_recordings)
    assert torch.equal(val[0]["clips"], next(iter(data.val_dataloader()))["clips"]), "validation does not change"


def test_statistics_cover_the_training_recordings() -> None:
    data = PoseDataModule(counted([30] * 20, [f"s{i % 5}" for i in range(20)]), 6, val_fraction=0.2)
    batch = data.statistics_batch()
    assert len(batch["clips"]) == 4 * 5 * len(data.train_recordings), "four for every window that they hold"
    assert len(data.statistics_batch(limit=7)["clips"]) == 7


def test_a_recording_counts_for_the_windows_that_it_holds() -> None:
    """One of 1000 frames beside nine of 10: it has 100 of 109 windows, of draws, labels, statistics and validation."""
    clips = counted([1000, *[10] * 9])
    data = PoseDataModule(clips, 10, batch_size=109, val_fraction=0)
    (batch,) = list(data.train_dataloader().batch_sampler)  # type: ignore[arg-type]
    assert batch[:, 0].bincount().tolist() == [100, *[1] * 9], "a pass"
    assert data.label_counts() == [104, 5, 0]
    index = data.whole_windows(torch.arange(10))
    assert index[:100].tolist() == [[0, 10 * k] for k in range(100)] and index[100:, 1].tolist() == [0] * 9
    assert sum(len(b["clips"]) for b in data.val_dataloader()) == 109
    assert len(data.statistics_batch()["clips"]) == 4 * 109
    assert len(data.whole_windows(torch.arange(10), 50)) == 50, "evenly chosen"
    equal = PoseDataModule(clips, 10, batch_size=10, val_fraction=0, draws="equal")
    (batch,) = list(equal.train_dataloader().batch_sampler)  # type: ignore[arg-type]
    assert sorted(batch[:, 0].tolist()) == list(range(10)) and equal.label_counts() == [5, 5, 0]
    assert equal.whole_windows(torch.arange(10)).tolist() == [[0, 495], *([k, 0] for k in range(1, 10))]
    assert len(equal.whole_windows(torch.tensor([0]))) == 100, "what all of them hold"
    assert len(equal.whole_windows(torch.tensor([], dtype=torch.int64))) == 0


def test_windows_lie_apart_and_within_their_recording() -> None:
    for length in (1, 5, 9, 10, 19, 20, 23, 47, 99):
        first = PoseDataModule(counted([length]), 10, val_fraction=0).whole_windows(torch.tensor([0]))[:, 1]
        assert len(first) == max(1, length // 10) and first[0] >= 0
        assert bool((first.diff() >= 10).all()) and int(first[-1]) + 10 <= max(length, 10)
        assert abs(int(first[0]) - (max(length, 10) - int(first[-1]) - 10)) <= 1, "as much is left at either end"


def test_validation_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamodules.pose.MOST", 7)
    data = PoseDataModule(counted([100] * 4), 10, val_fraction=0.5, split="sequence")
    assert sum(len(b["clips"]) for b in data.val_dataloader()) == 7


def test_a_single_recording_is_split_in_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    data = PoseDataModule(counted([100]), 8, split="sequence", val_fraction=0.2)
    train, val = (data.clips.recording(int(side)) for side in (data.train_recordings, data.val_recordings))
    assert torch.equal(torch.cat([train, val]), counted([100]).recording(0)) and len(val) == 20
    assert "1 with 10 windows of 8 frames to train, 1 with 2 windows of 8 frames to validate (split by time)" in caplog.text
    with pytest.raises(DataError, match=r"r0: the only recording, of 3 frames.*val_fraction=0"):
        PoseDataModule(counted([3]), 8, split="sequence")


def test_clip_sets_refuse_what_is_no_motion() -> None:
    good = np.zeros((4, 2, 3), np.float32)
    bad = good.copy()
    bad[2, 1, 0] = np.nan
    with pytest.raises(DataError, match=r"f\.txt.*frame 2.*tip.*nan"):
        ClipSet.from_recordings([Recording(bad, "f.txt")], fps=10, skeleton=PAIR)
    with pytest.raises(DataError, match=r"f\.txt.*\(4, 1, 3\).*2 joints"):
        ClipSet.from_recordings([Recording(good[:, :1], "f.txt")], fps=10, skeleton=PAIR)
    with pytest.raises(DataError, match="no recordings"):
        ClipSet.from_recordings([], fps=10, skeleton=PAIR)


def test_errors_quote_damaged_files_safely() -> None:
    assert str(DataError("a.csv: 'Knie links: ü' \x1b[2J\x00")) == "a.csv: 'Knie links: ü' \\x1b[2J\\x00"
    long = str(DataError("start" + "x" * 10_000 + "remedy"))
    assert len(long) < 4100 and long.startswith("start") and long.endswith("remedy") and "[...]" in long
