"""PoseDataModule: batches of windows of recordings, each gathered in one indexed read."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from datamodules.augment import Augment
from datamodules.clip_set import ClipSet
from datamodules.clip_windows import Batch, Windows
from datamodules.split import scenes, split_in_time, split_recordings
from ddpm.seeding import derive_seed
from ddpm.skeleton import Skeleton

log = logging.getLogger(__name__)

MOST = 1024  # windows that a validation takes, at most


@dataclass(eq=False)
class RandomWindows(Sampler[Tensor]):
    """Endless shuffled passes through recordings, cut into epochs; batch k depends on the seed and k alone.

    The batches of several processes together are that of one process with as many times the ``batch_size``.

    Every pass visits each recording once, or as often as it is named, with a window at a random place. Batches continue over the
    end of a pass, so that no recording is left out and every batch is full.
    """

    recordings: Tensor  # (n,) int64, which recordings to draw from; lengths are their numbers of frames
    lengths: Tensor
    frames: int
    batch_size: int  # windows per batch of one process
    batches: int  # per epoch
    seed: int
    position: Callable[[], int]  # number of batches processed since the run began; read when an epoch begins or is resumed
    rank: int = 0
    world_size: int = 1
    _orders: dict[int, Tensor] = field(default_factory=dict, init=False)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Tensor]:
        """The batches that are left of the epoch."""
        k = self.position()
        for batch in range(k, (k // self.batches + 1) * self.batches):
            yield self.batch(batch)

    def batch(self, k: int) -> Tensor:
        """``(batch_size, 2)`` int64 recordings and first frames of batch k of the run."""
        n = len(self.recordings)
        place = (k * self.world_size + self.rank) * self.batch_size + torch.arange(self.batch_size)
        passes = range(int(place[0]) // n, int(place[-1]) // n + 1)
        # Orders of past passes are dropped, and the present one is kept: making it takes time in proportion to the data set.
        self._orders = {p: self._orders[p] if p in self._orders else self._order(p) for p in passes}
        chosen = torch.cat([self._orders[p][place[place // n == p] % n] for p in passes])
        room = (self.lengths[chosen] - self.frames).clamp(min=0) + 1
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "window", k, 0))
        way = torch.rand(self.world_size, self.batch_size, generator=generator, dtype=torch.float64)[self.rank]
        first = (way * room).long()
        return torch.stack([self.recordings[chosen], first], dim=1)

    def _order(self, number: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "pass", number))
        return torch.randperm(len(self.recordings), generator=generator)


class PoseDataModule(pl.LightningDataModule):
    """Splits recordings into training and validation, see `split_recordings`, and serves windows of ``frames`` frames.

    A recording counts for as many windows as it holds whole ones side by side, at least one: for validation, as a reference of
    metrics, for statistics, and in what is drawn. Recordings of a single scene are split in time, see `split_in_time`.

    Args:
        batch_size: windows per batch and process.
        steps_per_epoch: batches per epoch of training; None for one pass through the windows.
        num_workers: processes that gather batches; 0, in this process, is fastest for data in memory.
        facing: turn every clip to face one way on average, in 3-D: a network learns one heading sooner than all of them.
        augment: (skeleton, frames) -> the augmentation of training clips, computed on their device; None for none.
        seed: of split, order, windows and augmentation.
        draws: ``length``: a recording is drawn as often as it holds whole windows; ``equal``: all are drawn equally often, and
            count for as many windows as the shortest of them.

    Raises:
        ValueError: a value outside its limits.
        DataError: a split that is not possible.
    """

    def __init__(
        self,
        clips: ClipSet,
        frames: int,
        batch_size: int = 64,
        steps_per_epoch: int | None = None,
        val_fraction: float = 0.1,
        split: str = "subject",
        num_workers: int = 0,
        facing: bool = False,
        augment: Callable[[Skeleton, int], Augment] | None = None,
        seed: int = 0,
        draws: Literal["length", "equal"] = "length",
    ) -> None:
        super().__init__()
        if frames < 1:
            raise ValueError(f"frames={frames} must be at least 1")
        if batch_size < 1:
            raise ValueError(f"loader.batch_size={batch_size} must be at least 1")
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise ValueError(f"loader.steps_per_epoch={steps_per_epoch} must be at least 1, or null for one pass")
        if not 0 <= val_fraction < 1:
            raise ValueError(f"loader.val_fraction={val_fraction} must be in [0, 1)")
        if draws not in ("length", "equal"):
            raise ValueError(f"loader.draws={draws!r} must be 'length' or 'equal'")
        if split == "sequence" and val_fraction > 0 and len(scenes(clips.sources).values) == 1:
            clips, self.train_recordings, self.val_recordings = split_in_time(clips, val_fraction)
            split = "time"
        else:
            self.train_recordings, self.val_recordings = split_recordings(clips, val_fraction, split, seed)
        self.clips, self.frames, self.draws, self.seed = clips, frames, draws, seed
        self.batch_size, self.steps_per_epoch, self.num_workers = batch_size, steps_per_epoch, num_workers
        self.augment = (augment or Augment)(clips.skeleton, frames)
        self.windows = Windows(clips, frames, facing)
        self.long_windows = Windows(clips, self.augment.span, facing)
        short = int((clips.lengths < frames).sum())
        log.info(
            "%d recordings (%d frames at %g fps, %d classes): %s to train, %s to validate (split by %s)%s",
            len(clips), len(clips.frames), clips.fps, len(clips.class_names),
            self._counted(self.train_recordings), self._counted(self.val_recordings), split,
            f"; {short} shorter than {frames} frames are padded, the padding does not count in the loss" if short else "",
        )  # fmt: skip

    def train_dataloader(self) -> DataLoader[Batch]:
        """Random windows, as long as the augmentation needs; `on_after_batch_transfer` makes clips of ``frames`` frames."""
        rank, world_size = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        drawn, size = self._drawn(), self.batch_size
        batches = self.steps_per_epoch or -(-len(drawn) // (size * world_size))
        lengths, span = self.clips.lengths[drawn], self.augment.span
        sampler = RandomWindows(drawn, lengths, span, size, batches, self.seed, self._position, rank, world_size)
        return self._loader(self.long_windows, sampler)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment a training batch; the draws depend on the seed, the number of the batch and the process alone."""
        if self.trainer is None or not self.trainer.training:
            return batch
        return self._augmented(batch, self._position(), self.trainer.global_rank)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The same windows every time: the whole ones of the held-out recordings, at most `MOST`."""
        rank, world_size = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        windows = self.whole_windows(self.val_recordings, MOST)[rank::world_size]
        return self._loader(self.windows, list(windows.split(self.batch_size)))

    def whole_windows(self, recordings: Tensor, most: int | None = None) -> Tensor:
        """``(windows, 2)`` int64 recordings and first frames: the windows of ``(n,)`` int64 recordings, evenly spread over each.

        A recording that holds one, or none, gives that from its middle. At most ``most``, evenly chosen.
        """
        owner, place, number = self._held(recordings)
        first = ((2 * place + 1) * self.clips.lengths[owner] - number * self.frames) // (2 * number)
        index = torch.stack([owner, first.clamp(min=0)], dim=1)
        return index if most is None or len(index) <= most else index[torch.linspace(0, len(index) - 1, most).round().long()]

    def label_counts(self) -> list[int]:
        """How often each class is drawn in one pass, and last what has no label."""
        classes = len(self.clips.class_names)
        labels = self.clips.labels[self._drawn()]
        return torch.where(labels < 0, classes, labels).bincount(minlength=classes + 1).tolist()

    def vectors(self) -> Tensor | None:
        """``(n, width)`` vectors of what one pass draws, nan where unknown; None where nothing has one."""
        vectors = None if self.clips.conditions is None else self.clips.conditions[self._drawn()]
        return None if vectors is None or vectors.isnan().any(1).all() else vectors

    def statistics_batch(self, limit: int = 4096) -> Batch:
        """Up to ``limit`` windows, spread over all training recordings, to fit the normalizer; augmented as in training."""
        owner, place, number = self._held(self.train_recordings)
        n = len(owner)
        per_window = max(1, min(4, limit // n))
        chosen = torch.linspace(0, n - 1, min(n, limit)).round().long()
        owner, place, number = owner[chosen], place[chosen].double(), number[chosen]
        room = (self.clips.lengths[owner] - self.augment.span).clamp(min=0)
        parts = [(room * (place * per_window + i + 0.5) / (number * per_window)).long() for i in range(per_window)]
        batch = self.long_windows.__getitems__(torch.stack([owner.repeat(per_window), torch.cat(parts)], dim=1))
        return self._augmented(batch, "statistics")

    def _held(self, recordings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For every window that recordings count for: its recording, its place there, and their number there; int64."""
        number = (self.clips.lengths[recordings] // self.frames).clamp(min=1)
        if self.draws == "equal" and len(number):
            number = number.min().expand(len(number))
        place = torch.arange(int(number.sum())) - (number.cumsum(0) - number).repeat_interleave(number)
        return recordings.repeat_interleave(number), place, number.repeat_interleave(number)

    def _counted(self, recordings: Tensor) -> str:
        n = len(self._held(recordings)[0])
        return f"{len(recordings)}{f' with {n} windows of {self.frames} frames' if n > len(recordings) else ''}"

    def _drawn(self) -> Tensor:
        """Training recordings, each as often as a pass visits it."""
        return self.train_recordings if self.draws == "equal" else self._held(self.train_recordings)[0]

    def _position(self) -> int:
        """Training batches processed since the run began, also across interruptions."""
        if self.trainer is None:
            return 0
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # pyright: ignore[reportAttributeAccessIssue]

    def _augmented(self, batch: Batch, *purpose: int | str) -> Batch:
        if not self.augment.active:
            return batch
        generator = torch.Generator(batch["clips"].device).manual_seed(derive_seed(self.seed, "augment", *purpose))
        return self.augment(batch, generator)

    def _loader(self, windows: Windows, batches: Sampler[Tensor] | list[Tensor]) -> DataLoader[Batch]:
        return DataLoader(
            windows,
            batch_sampler=batches,  # pyright: ignore[reportArgumentType]
            collate_fn=_already_collated,  # pyright: ignore[reportArgumentType]
            num_workers=self.num_workers,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            persistent_workers=self.num_workers > 0,
        )


def _already_collated(batch: Batch) -> Batch:
    return batch
