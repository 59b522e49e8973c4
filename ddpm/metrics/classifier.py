"""ActionClassifier: a small classifier of actions, trained on labelled recordings, and its predictions for generated clips.

It is trained anew for every data set and window length: its numbers compare with nothing published.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.clips import Clips
from ddpm.metrics.alignment import anchored, has_heading
from ddpm.metrics.reference import RealData, held_out, windows
from ddpm.seeding import derive_seed

MOST = 5000  # windows to train on, and to test on, at most: 300 batches hold little more
BATCH = 64

NOTE = "the classifier of actions is this project's own, trained on these recordings: its numbers compare with nothing published"


class ActionClassifier(nn.Module):
    """A temporal convolutional network with a mean over the valid frames, which receives `anchored` clips.

    Padding is zero after every layer, as beyond the ends of a clip without any.

    Args:
        mean: ``(joints * coords,)`` metres, subtracted from the positions.
        scale: metres by which they are then divided.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", mean.float())
        self.register_buffer("scale", scale.float())
        self.layers = nn.ModuleList([nn.Conv1d(2 * len(mean), 64, 3, stride=2, padding=1)])
        self.layers.extend(nn.Conv1d(64, 64, 3, padding=dilation, dilation=dilation) for dilation in (1, 2, 4))
        self.dropout = nn.Dropout(0.3)
        self.penultimate = nn.Linear(64, 32)
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``(n, 32)`` and logits ``(n, classes)``.

        Args:
            x: ``(n, frames, joints * coords)`` float32 anchored positions in metres.
            mask: ``(n, frames)`` bool, True for valid frames.
        """
        weight = mask.float()[:, None]
        x = ((x - self.mean) / self.scale).transpose(1, 2)
        change = F.pad(x.diff(dim=2), (1, 0)) * 5
        h = torch.cat([x, change], dim=1) * weight
        weight = weight[..., ::2]  # the frames at the centre of the kernel of stride 2
        h = F.silu(self.layers[0](h)) * weight
        for layer in self.layers[1:]:
            h = h + F.silu(layer(self.dropout(h))) * weight
        features = torch.tanh(self.penultimate(self.dropout(h.sum(2) / weight.sum(2))))
        return features, self.head(self.dropout(features))

    @torch.no_grad()
    def features(self, clips: Clips) -> Tensor:
        """``(n, 32)`` float64 penultimate features."""
        return torch.cat([self(*part)[0] for part in _parts(clips)]).double()

    @torch.no_grad()
    def probabilities(self, clips: Clips) -> Tensor:
        """``(n, classes)`` float64, rows add up to 1."""
        return torch.cat([self(*part)[1].double().softmax(1) for part in _parts(clips)])


def _parts(clips: Clips) -> list[tuple[Tensor, Tensor]]:
    x = anchored(clips.require_finite()).flatten(2).float()
    return list(zip(x.split(512), clips.mask.split(512), strict=True))


def train_classifier(clips: Clips, labels: Tensor, *, seed: int = 0, steps: int = 300) -> ActionClassifier:
    """Train a classifier. Global random states are not changed; the same seed gives the same classifier.

    Args:
        clips: of a 2-D skeleton, or of a 3-D one with left/right pairs.
        labels: ``(n,)`` int64 action of each, -1 where unknown; these clips are not used.
        seed: of the initial weights, the batches and the dropout.
        steps: batches of 64 clips.

    Raises:
        ValueError: a wrong number of labels, fewer than two actions among them, or a skeleton without a heading.
    """
    if labels.shape != (len(clips),):
        raise ValueError(f"classifier: {len(clips)} clips need as many labels, got shape {tuple(labels.shape)}")
    known = labels >= 0
    if len(labels[known].unique()) < 2:
        raise ValueError(f"classifier: at least two actions must be labelled, got {len(labels[known].unique())}")
    clips, labels = clips.take(known), labels[known]
    x, mask = anchored(clips).flatten(2).float(), clips.mask
    mean = x[mask].mean(0)
    scale = (x[mask] - mean).square().mean().sqrt().clamp(min=1e-6)
    generator = torch.Generator().manual_seed(derive_seed(seed, "judge", "batches"))
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.default_generator.manual_seed(derive_seed(seed, "judge", "weights"))
        classifier = ActionClassifier(mean, scale, int(labels.max()) + 1).train()
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=3e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
        for _ in range(steps):
            batch = torch.randint(len(labels), (BATCH,), generator=generator)
            _, logits = classifier(x[batch], mask[batch])
            optimizer.zero_grad()
            F.cross_entropy(logits, labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return classifier.requires_grad_(False).eval()


@dataclass(frozen=True)
class Classification:
    """Predictions of a classifier for generated clips, and for held-out real ones."""

    names: tuple[str, ...]  # of the classes
    seed: int  # of the classifier
    trained: int  # number of training clips
    tested: Tensor  # (classes,) number of held-out clips of each class
    right: Tensor  # (classes,) how many of them are predicted correctly
    generated: Tensor  # (classes,) share of the generated clips predicted as each class
    real: Tensor  # (classes,) the same of the held-out clips
    confidence: dict[str, float]  # mean probability of the predicted class, of generated and real clips
    asked: Tensor | None  # (classes,) number of generated clips with the label of each class, None where they have no labels
    answered: Tensor | None  # (classes,) how many of them are predicted as labelled
    in_metrics: bool  # whether the Fréchet distance of its features is among the metrics

    @property
    def accuracy(self) -> float:
        """On all held-out clips."""
        return float(self.right.sum() / self.tested.sum())

    @property
    def chance(self) -> float:
        """Accuracy of always predicting the commonest class of the held-out clips."""
        return float(self.tested.max() / self.tested.sum())

    @property
    def generated_accuracy(self) -> float | None:
        """On all generated clips with a label, None if there are none."""
        return None if self.asked is None or self.answered is None else float(self.answered.sum() / self.asked.sum())

    def to_dict(self) -> dict[str, object]:
        """Plain containers for a JSON file; an accuracy on no clips is None."""
        classes: dict[str, dict[str, float | int | None]] = {}
        for k, name in enumerate(self.names):
            own = classes[name] = {"generated": float(self.generated[k]), "real": float(self.real[k])}
            own |= {"tested": int(self.tested[k]), "accuracy": _share(self.right[k], self.tested[k])}
            if self.asked is not None and self.answered is not None:
                own |= {"asked": int(self.asked[k]), "generated_accuracy": _share(self.answered[k], self.asked[k])}
        found: dict[str, object] = {"note": NOTE, "seed": self.seed, "trained": self.trained, "tested": int(self.tested.sum())}
        found |= {"accuracy": self.accuracy, "chance": self.chance, "confidence": self.confidence}
        return {**found, "generated_accuracy": self.generated_accuracy, "classes": classes}


def _share(part: Tensor, whole: Tensor) -> float | None:
    return float(part / whole) if whole > 0 else None


def classifier_of(data: RealData, seed: int = 0) -> ActionClassifier | None:
    """A classifier trained on the windows of the labelled training recordings of a data module.

    None with fewer than two labelled actions, no labelled recording held out to test it, or a skeleton without a heading.
    """
    training, test = (_labelled(data, recordings) for recordings in (data.train_recordings, held_out(data)))
    if len(test) == 0 or len(data.clips.labels[training].unique()) < 2 or not has_heading(data.clips.skeleton):
        return None
    motions, owner = windows(data, training, MOST)
    return train_classifier(motions, data.clips.labels[owner], seed=seed)


def classification(
    classifier: ActionClassifier, data: RealData, generated: Clips, wanted: Tensor | None, *, seed: int, in_metrics: bool
) -> Classification:
    """Apply a classifier, see `classifier_of`, to generated clips and to the held-out recordings of the data it was trained on.

    ``wanted`` is ``(n,)`` int64, the label of each generated clip, -1 where unknown; None if all are.
    """
    names = tuple(data.clips.class_names)
    motions, owner = windows(data, _labelled(data, held_out(data)), MOST)
    labels = data.clips.labels[owner]
    mine, theirs = classifier.probabilities(generated).max(1), classifier.probabilities(motions).max(1)

    def count(classes: Tensor) -> Tensor:
        return classes.bincount(minlength=len(names))

    if wanted is not None and not bool((wanted >= 0).any()):
        wanted = None
    trained = len(data.whole_windows(_labelled(data, data.train_recordings), MOST))
    confidence = {"generated": float(mine.values.mean()), "real": float(theirs.values.mean())}
    tested, right = count(labels), count(labels[theirs.indices == labels])
    shares = count(mine.indices) / len(generated), count(theirs.indices) / len(labels)
    asked = None if wanted is None else count(wanted[wanted >= 0])
    answered = None if wanted is None else count(wanted[mine.indices == wanted])
    return Classification(names, seed, trained, tested, right, *shares, confidence, asked, answered, in_metrics)


def _labelled(data: RealData, recordings: Tensor) -> Tensor:
    """Those with a label."""
    return recordings[data.clips.labels[recordings] >= 0]
