"""Memorisation: how close generated clips come to single training clips, beside how close held-out real clips come."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm.metrics.motions import Motions


def nearest(samples: Motions, training: Motions) -> tuple[Tensor, Tensor]:
    """The training clip to which each sample comes closest, wherever either stands and whichever way it faces.

    The distance is the root mean square distance of the joints after the best translation along the ground and the best turn
    about the vertical (in 2-D, no turn). With the ground as complex numbers, the best turn is the phase of an inner product, so
    that all pairs cost one matrix product.

    Both clips begin at their first frame and are compared as far as the shorter one goes; a training clip that covers less than
    half of what the longest would is left out. A copy that begins at another moment is found only if ``training`` has a window
    that begins near it.

    Args:
        samples: n clips.
        training: clips of the same skeleton and frame rate.

    Returns:
        Distances in metres ``(n,)`` float64 and numbers of training clips ``(n,)`` int64.

    Raises:
        ValueError: another skeleton or frame rate.
    """
    if samples.skeleton != training.skeleton or samples.fps != training.fps:
        raise ValueError(
            f"metrics: clips of one skeleton and frame rate are compared, got {samples.fps} and {training.fps} frames per second "
            f"and {len(samples.skeleton.names)} and {len(training.skeleton.names)} joints"
        )
    longest = samples.lengths.clamp(max=int(training.lengths.max()))
    best = torch.full((len(samples),), torch.inf, dtype=torch.float64)
    index = torch.zeros(len(samples), dtype=torch.long)
    for frames in torch.cat([samples.lengths, training.lengths]).unique().tolist():
        equal, longer = samples.lengths == frames, samples.lengths > frames
        for mine, theirs in ((equal, training.lengths >= frames), (longer, training.lengths == frames)):
            mine = mine & (2 * frames >= longest)
            if not (mine.any() and theirs.any()):
                continue
            rows, columns = mine.nonzero()[:, 0], theirs.nonzero()[:, 0]
            values, place = _distances(samples, rows, training, columns, frames).min(1)
            closer = values < best[rows]
            best[rows[closer]], index[rows[closer]] = values[closer], columns[place[closer]]
    return best, index


def _distances(a: Motions, rows: Tensor, b: Motions, columns: Tensor, frames: int) -> Tensor:
    """``(rows, columns)`` aligned distances of the first ``frames`` frames."""
    skeleton = a.skeleton
    ground, height = [], []
    for motions, clips in ((a, rows), (b, columns)):
        x = motions.positions[clips, :frames]
        flat = x[..., list(skeleton.ground_axes)]
        flat = flat - flat.mean((1, 2), keepdim=True)
        height.append(x[..., skeleton.up_axis].flatten(1))
        ground.append(torch.view_as_complex(flat.contiguous()).flatten(1) if skeleton.coords == 3 else flat.flatten(1))
    inner = ground[0] @ ground[1].mH
    aligned = inner.abs() if skeleton.coords == 3 else inner
    squared = height[0].square().sum(1)[:, None] + height[1].square().sum(1) - 2 * height[0] @ height[1].T
    squared = squared + ground[0].abs().square().sum(1)[:, None] + ground[1].abs().square().sum(1) - 2 * aligned
    return (squared.clamp(min=0) / (frames * len(skeleton.names))).sqrt()


@dataclass(frozen=True)
class Memorisation:
    """How close samples and held-out clips come to the training clips.

    Args:
        samples: ``(n,)`` metres to the nearest training clip.
        neighbours: ``(n,)`` int64, that training clip.
        held_out: ``(m,)`` metres from held-out real clips to theirs.
        limit: metres, what one in a hundred held-out clips undercuts.
    """

    samples: Tensor
    neighbours: Tensor
    held_out: Tensor
    limit: float

    @property
    def suspects(self) -> Tensor:
        """Samples below the limit, nearest first."""
        order = self.samples.argsort()
        return order[self.samples[order] < self.limit]

    @property
    def closer_than_held_out(self) -> float:
        """Chance that a sample is closer to training than a held-out clip is: 0.5 for real clips, 1 for copies."""
        below = (self.samples[:, None] < self.held_out).double() + 0.5 * (self.samples[:, None] == self.held_out).double()
        return float(below.mean())


def memorisation(samples: Motions, training: Motions, held_out: Motions) -> Memorisation:
    """Compare the distances to training of generated and of held-out real clips.

    Held-out clips should differ from the training clips as the samples may: if they are of other people, whose bones have other
    lengths, even fair samples come closer than they do.

    Args:
        samples: generated clips.
        training: what the model was trained on, in windows that start every few frames.
        held_out: real clips that it was not trained on.

    Raises:
        ValueError: another skeleton or frame rate, or held-out clips that are training clips.
    """
    distance, index = nearest(samples, training)
    reference, _ = nearest(held_out, training)
    copies = int((reference < 1e-4).sum())
    if 2 * copies > len(reference):
        raise ValueError(f"metrics: {copies} of {len(reference)} held-out clips are training clips; hold out others")
    return Memorisation(distance, index, reference, float(reference.quantile(0.01)))
