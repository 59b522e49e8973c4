"""The classifier: it learns, it is the same each time, it sees motion and nothing else, and evaluate.py reports it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.pose import PoseDataModule
from datamodules.sets.synthetic import synthetic
from ddpm.clips import Clips
from ddpm.metrics import degraded
from ddpm.metrics.classifier import ActionClassifier, classification, classifier_of, train_classifier
from ddpm.metrics.distances import frechet
from ddpm.metrics.features import Projection
from ddpm.metrics.reference import held_out, windows
from ddpm.metrics.suite import evaluate
from ddpm.metrics.text import lines
from tests.commands.test_evaluate import judged
from tests.datamodules.test_msr_action3d import SKELETON

FRAMES = 24
STEPS = 120


@pytest.fixture(scope="module")
def data() -> PoseDataModule:
    """Half of the recordings are held out, 13 actions."""
    return PoseDataModule(synthetic(SKELETON, 400, 20.0, 0), FRAMES, val_fraction=0.5)


def labelled(data: PoseDataModule, recordings: torch.Tensor) -> tuple[Clips, torch.Tensor]:
    motions, owner = windows(data, recordings, 9999)
    return motions, data.clips.labels[owner]


@pytest.fixture(scope="module")
def classifier(data: PoseDataModule) -> ActionClassifier:
    return train_classifier(*labelled(data, data.train_recordings), steps=STEPS)


def test_it_learns_what_people_do_who_are_new_to_it(classifier: ActionClassifier, data: PoseDataModule) -> None:
    motions, labels = labelled(data, held_out(data))
    probabilities = classifier.probabilities(motions)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(motions), dtype=torch.float64))
    chance = float(labels.bincount().max() / len(labels))
    assert chance < 0.2 and float((probabilities.argmax(1) == labels).double().mean()) > 0.7
    assert classifier.features(motions).shape == (len(motions), 32) and classifier.features(motions).dtype == torch.float64
    assert not classifier.training and not any(p.requires_grad for p in classifier.parameters())


def test_a_seed_decides_everything_and_nothing_global_changes(data: PoseDataModule) -> None:
    motions, labels = labelled(data, data.train_recordings[:60])
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a = train_classifier(motions, labels, steps=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    b, other = train_classifier(motions, labels, steps=3), train_classifier(motions, labels, steps=3, seed=1)
    assert torch.equal(a.features(motions), b.features(motions))
    assert not torch.equal(a.features(motions), other.features(motions))


def test_padding_place_and_heading_do_not_matter(classifier: ActionClassifier, data: PoseDataModule) -> None:
    motions, _ = labelled(data, held_out(data)[:20])
    x = motions.positions
    expected = classifier.features(motions)
    junk = torch.cat([x, 9 * torch.ones_like(x)], dim=1)
    padded = Clips(junk, motions.lengths, motions.fps, motions.skeleton)
    torch.testing.assert_close(classifier.features(padded), expected, atol=1e-4, rtol=0)
    angle, (a, b) = torch.tensor(2.0), motions.skeleton.ground_axes
    turned = x.clone()
    turned[..., a] = angle.cos() * x[..., a] - angle.sin() * x[..., b] + 3
    turned[..., b] = angle.sin() * x[..., a] + angle.cos() * x[..., b] - 5
    torch.testing.assert_close(classifier.features(motions.replace(turned)), expected, atol=1e-4, rtol=0)
    assert (classifier.features(motions.replace(x.flip(1))) - expected).abs().max() > 0.05, "the order of frames does"


def test_degraded_clips_are_further_away_than_real_ones(classifier: ActionClassifier, data: PoseDataModule) -> None:
    motions, _ = labelled(data, held_out(data))
    one, other = motions.take(torch.arange(0, len(motions), 2)), motions.take(torch.arange(1, len(motions), 2))
    project = Projection.fit(classifier.features(motions), 8)

    def distance(candidate: Clips) -> float:
        return frechet(project(classifier.features(one)), project(classifier.features(candidate)))

    generator = torch.Generator().manual_seed(0)
    worse = degraded.frozen(other), degraded.mean_pose(other), degraded.gaussian(other, generator)
    assert min(distance(motions) for motions in worse) > 3 * distance(other)


def test_unlabelled_clips_are_not_learned_from(data: PoseDataModule) -> None:
    motions, labels = labelled(data, data.train_recordings[:60])
    some = torch.arange(len(labels)) % 3 > 0
    a = train_classifier(motions, torch.where(some, labels, -1), steps=2)
    b = train_classifier(motions.take(some), labels[some], steps=2)
    assert torch.equal(a.features(motions), b.features(motions))
    with pytest.raises(ValueError, match="at least two actions"):
        train_classifier(motions, torch.where(labels == labels[0], labels, -1))
    with pytest.raises(ValueError, match="as many labels"):
        train_classifier(motions, labels[:-1])


def test_there_is_none_without_labels_or_a_test(data: PoseDataModule) -> None:
    unknown = replace(data.clips, labels=torch.full_like(data.clips.labels, -1))
    assert classifier_of(PoseDataModule(unknown, FRAMES)) is None
    assert classifier_of(PoseDataModule(data.clips, FRAMES, val_fraction=0)) is None
    labels = data.clips.labels.clone()
    labels[held_out(data)] = -1
    assert classifier_of(PoseDataModule(replace(data.clips, labels=labels), FRAMES, val_fraction=0.5)) is None


def test_shares_and_accuracies_are_counted(classifier: ActionClassifier, data: PoseDataModule) -> None:
    """Held-out clips in the place of generated ones: everything said of the two must agree."""
    motions, labels = labelled(data, held_out(data))
    said = classification(classifier, data, motions, labels, seed=0, in_metrics=False)
    predicted = classifier.probabilities(motions).argmax(1)
    assert said.accuracy == pytest.approx(float((predicted == labels).double().mean())) == said.generated_accuracy
    assert torch.equal(said.generated, said.real) and float(said.real.sum()) == pytest.approx(1)
    assert said.confidence["generated"] == said.confidence["real"] and said.trained == len(
        data.whole_windows(data.train_recordings)
    )
    content = said.to_dict()
    classes = content["classes"]
    assert isinstance(classes, dict) and list(classes) == list(data.clips.class_names)
    for k, name in enumerate(classes):
        assert classes[name]["real"] == pytest.approx(int((predicted == k).sum()) / len(labels))
        assert classes[name]["accuracy"] == classes[name]["generated_accuracy"]
    half = torch.where(torch.arange(len(labels)) % 2 > 0, labels, -1)
    asked = classification(classifier, data, motions, half, seed=0, in_metrics=False)
    assert asked.asked is not None and int(asked.asked.sum()) == len(labels) // 2
    nobody = classification(classifier, data, motions, torch.full_like(labels, -1), seed=0, in_metrics=False)
    assert nobody.generated_accuracy is None
    found = replace(evaluate(motions, motions, fast=True), classification=said)
    text = lines(found)
    assert max(len(line) for line in text) <= 120 and any("compares with nothing published" in line for line in text)


def test_evaluate_reports_it_where_there_are_labels(tmp_path: Path) -> None:
    data = PoseDataModule(synthetic(SKELETON, 80, 20.0, 0), 8, val_fraction=0.4)
    motions, labels = labelled(data, held_out(data))
    clips, names = motions.positions.numpy(), np.array(data.clips.class_names)
    np.savez(tmp_path / "a.npz", clips=clips, labels=labels.numpy(), class_names=names)
    split = ["loader.val_fraction=0.4", "training=0", "report=false", "reference=held_out"]
    found = judged(tmp_path / "out", f"clips={tmp_path / 'a.npz'}", "data=synthetic", "data.n=80", *split)
    classifier, metric = found["classifier"], found["metrics"]["frechet/classifier"]
    assert "nothing published" in classifier["note"] and classifier["tested"] == len(labels)
    assert (
        classifier["accuracy"] == pytest.approx(classifier["generated_accuracy"])
        and classifier["accuracy"] > 2 * classifier["chance"]
    )
    assert metric["degraded"]["frozen"]["value"] > metric["real"]["value"]

    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "b.npz", clips=clips, fps=20.0, joint_names=np.array(SKELETON.names))
    folder = [
        "data=folder",
        f"data.root={tmp_path / 'data'}",
        "data.min_seconds=0.1",
        "loader.split=sequence",
        "training=0",
        "report=false",
    ]
    unlabelled = judged(tmp_path / "none", f"clips={tmp_path / 'a.npz'}", *folder)
    assert "classifier" not in unlabelled and "frechet/classifier" not in unlabelled["metrics"]


def test_labels_of_a_file_are_those_of_the_data(tmp_path: Path) -> None:
    clips = np.zeros((3, 4, 20, 3))
    np.savez(tmp_path / "text.npz", clips=clips, labels=["b", "", "a"])
    np.savez(tmp_path / "number.npz", clips=clips, labels=[0, -1, 1], class_names=["b", "a"])
    np.savez(tmp_path / "none.npz", clips=clips)
    for name in ("text", "number"):
        found = Clips.load(tmp_path / f"{name}.npz", SKELETON, 20.0).label_codes(("a", "b"))
        assert found is not None and found.tolist() == [1, -1, 0]
    assert Clips.load(tmp_path / "none.npz", SKELETON, 20.0).label_codes(("a", "b")) is None
    with pytest.raises(ValueError, match="label 'b' is no class"):
        Clips.load(tmp_path / "text.npz", SKELETON, 20.0).label_codes(("a", "c"))
