"""What augmentation does to a clip, in closed form; what it draws; and that training draws the same again."""

import math
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from datamodules.augment import Augment
from datamodules.clip_set import ClipSet, anchored
from datamodules.pose import PoseDataModule
from datamodules.sets.synthetic import synthetic
from ddpm.skeleton import Skeleton
from tests.commands import test_resume

FLAT = Skeleton({"hip": None, "left": "hip", "right": "hip"}, left_right=[["left", "right"]], up="-y", coords=2)
N = 6


@pytest.fixture(scope="module")
def people() -> ClipSet:
    """Procedural recordings; the skeleton is that of the fixture of the same name."""
    from ddpm.command import plain
    from tests.configs import compose

    config = plain(compose("config", ["out=unused"]))["skeleton"]
    return synthetic(Skeleton(**{k: v for k, v in config.items() if k != "_target_"}), n=40)


@pytest.fixture
def clips(people: ClipSet) -> Tensor:
    """``(N, 20, 3, 16)``, anchored."""
    windows = torch.stack([people.recording(i)[10:26] for i in range(N)])
    return anchored(windows.permute(0, 2, 3, 1), people.skeleton).contiguous()


def place(skeleton: Skeleton, clips: Tensor, angle: float = 0.0, mirrored: bool = False, scale: float = 1.0) -> Tensor:
    n = len(clips)
    augment = Augment(skeleton, clips.shape[-1])
    return augment.placed(clips, torch.full((n,), angle), torch.full((n,), mirrored), torch.full((n,), scale))


def bones(skeleton: Skeleton, clips: Tensor) -> Tensor:
    child, parent = zip(*skeleton.bones, strict=True)
    return torch.linalg.vector_norm(clips[:, list(child)] - clips[:, list(parent)], dim=2)


def test_no_change_is_no_change_to_the_bit(skeleton: Skeleton, clips: Tensor) -> None:
    assert torch.equal(place(skeleton, clips), clips)
    assert not Augment(skeleton, 8).active and Augment(skeleton, 8).span == 8


@pytest.mark.parametrize("up", ["x", "y", "z", "-x", "-y", "-z"])
def test_a_quarter_turn_is_counter_clockwise_seen_from_above(up: str) -> None:
    """Right-handed: turned by 90 degrees about u, v becomes u x v."""
    skeleton = Skeleton({"root": None, "tip": "root"}, up=up)
    u = torch.zeros(3)
    u[skeleton.up_axis] = skeleton.up_sign
    clips = torch.randn(4, 2, 3, 5)
    clips[:, 0] = 0
    turned = place(skeleton, clips, math.pi / 2)
    along = (clips * u[:, None]).sum(2, keepdim=True) * u[:, None]
    expected = torch.linalg.cross(u.expand(4, 2, 5, 3), clips.transpose(2, 3)).transpose(2, 3) + along
    assert torch.allclose(turned, expected, atol=1e-6)


def test_turns_add_up(skeleton: Skeleton, clips: Tensor) -> None:
    assert torch.allclose(place(skeleton, place(skeleton, clips, 0.4), 0.9), place(skeleton, clips, 1.3), atol=1e-6)
    assert torch.allclose(place(skeleton, clips, 2 * math.pi), clips, atol=1e-5)


@pytest.mark.parametrize("change", [{"angle": 1.1}, {"mirrored": True}, {"angle": -2.0, "mirrored": True}])
def test_turning_and_mirroring_keep_bodies_and_anchor(skeleton: Skeleton, clips: Tensor, change: dict) -> None:
    changed = place(skeleton, clips, **change)
    order = place(skeleton, torch.arange(20.0)[None, :, None, None].expand(N, 20, 3, 16).contiguous(), mirrored=True)
    assert order.shape == clips.shape
    expected = bones(skeleton, clips)
    if change.get("mirrored"):
        expected = bones(skeleton, clips[:, Augment(skeleton, 16).other_side])
    assert torch.allclose(bones(skeleton, changed), expected, atol=1e-6)
    assert torch.equal(changed[:, skeleton.root, [0, 2], 0], torch.zeros(N, 2))
    assert torch.equal(changed[:, skeleton.root, 1], clips[:, skeleton.root, 1]), "heights are kept"


def test_mirrored_twice_is_the_clip_and_once_exchanges_the_sides(skeleton: Skeleton, clips: Tensor) -> None:
    mirrored = place(skeleton, clips, mirrored=True)
    assert torch.equal(place(skeleton, mirrored, mirrored=True), clips)
    across = torch.tensor([-1.0, 1.0, 1.0])[:, None]
    for left, right in skeleton.left_right:
        assert torch.equal(mirrored[:, skeleton.index(left)], clips[:, skeleton.index(right)] * across)
        assert torch.equal(mirrored[:, skeleton.index(right)], clips[:, skeleton.index(left)] * across)
    assert torch.equal(mirrored[:, skeleton.index("head")], clips[:, skeleton.index("head")] * across)


def test_a_root_with_a_side_stays_at_the_origin() -> None:
    skeleton = Skeleton({"left": None, "right": "left"}, left_right=[["left", "right"]])
    mirrored = place(skeleton, anchored(torch.randn(3, 2, 3, 4), skeleton), mirrored=True)
    assert torch.equal(mirrored[:, 0, [0, 2], 0], torch.zeros(3, 2))


def test_scale_changes_bones_by_its_factor_and_leaves_the_floor(skeleton: Skeleton, clips: Tensor) -> None:
    on_floor = clips.clone()
    on_floor[:, 15, 1] = 0
    scaled = place(skeleton, on_floor, scale=1.1)
    assert torch.allclose(bones(skeleton, scaled), 1.1 * bones(skeleton, on_floor), rtol=1e-5)
    assert bool((scaled[:, 15, 1] == 0).all())


def test_in_2d_the_mirror_is_upright_and_there_is_no_yaw() -> None:
    clips = anchored(torch.randn(2, 3, 2, 4), FLAT)
    mirrored = place(FLAT, clips, mirrored=True)
    assert torch.equal(mirrored[:, [0, 2, 1], 1], clips[:, :, 1]) and torch.equal(mirrored[:, [0, 2, 1], 0], -clips[:, :, 0])
    with pytest.raises(ValueError, match=r"augment\.yaw=10.*needs 3-D"):
        Augment(FLAT, 8, yaw=10)


def walk(length: int, real: int | None = None) -> tuple[Tensor, Tensor | None]:
    """A clip whose every number is its frame, continued by its last real one."""
    clip = torch.arange(float(length)).clamp(max=(real or length) - 1.0).expand(1, 2, 3, length).contiguous()
    return clip, None if real is None else (torch.arange(length) < real).float()[None, None, None]


PAIR = Skeleton({"root": None, "tip": "root"})


@pytest.mark.parametrize("speed", [0.5, 0.8, 1.0, 1.25, 1.5])
@pytest.mark.parametrize("place_", [0.0, 0.5, 0.999999])
def test_a_linear_motion_covers_speed_times_the_way(speed: float, place_: float) -> None:
    augment = Augment(PAIR, 9, speed=0.5)
    assert augment.span == 13
    clip, _ = walk(13)
    out, mask = augment.resampled(clip, None, torch.tensor([speed]), torch.tensor([place_]))
    assert mask is None and torch.allclose(out.diff(dim=-1), torch.tensor(speed), atol=1e-5)
    start = float(out[0, 0, 0, 0])
    assert start == math.floor(place_ * (math.floor(12 - 8 * speed) + 1)), "it begins on a frame, anywhere in what is left over"


def test_speed_one_is_the_recording_to_the_bit(clips: Tensor) -> None:
    augment = Augment(PAIR, 11, speed=0.5)
    for place_, first in ((0.0, 0), (0.99, 5)):
        out, _ = augment.resampled(clips, None, torch.ones(N), torch.full((N,), place_))
        assert torch.equal(out, clips[..., first : first + 11])


@pytest.mark.parametrize(("speed", "real", "expected"), [(1.0, 5, 5), (0.5, 5, 9), (1.5, 7, 5), (1.5, 13, 9), (1.0, 1, 1)])
def test_the_mask_ends_with_the_recording(speed: float, real: int, expected: int) -> None:
    clip, mask = walk(13, real)
    out, out_mask = Augment(PAIR, 9, speed=0.5).resampled(clip, mask, torch.tensor([speed]), torch.tensor([0.0]))
    assert out_mask is not None and out_mask.shape == (1, 1, 1, 9)
    assert int(out_mask.sum()) == expected and bool(out_mask[..., :expected].all())
    assert float(out.max()) <= real - 1, "nothing is made up behind the end"
    assert torch.allclose(out[0, 0, 0, :expected], speed * torch.arange(expected))


def test_interpolated_bones_are_shorter_by_the_chord_at_the_most() -> None:
    turn = 0.3
    angle = turn * torch.arange(13.0)
    tip = torch.stack([angle.cos(), torch.zeros(13), angle.sin()])
    clip = torch.stack([torch.zeros(3, 13), tip])[None]
    out, _ = Augment(PAIR, 9, speed=0.5).resampled(clip, None, torch.tensor([1.5]), torch.tensor([0.0]))
    length = bones(PAIR, out)
    assert float(length.max()) == pytest.approx(1, abs=1e-6) and float(length.min()) == pytest.approx(
        math.cos(turn / 2), abs=1e-6
    )


def test_what_is_drawn_is_uniform_within_its_limits() -> None:
    skeleton = Skeleton({"root": None, "l": "root", "r": "root"}, left_right=[["l", "r"]])
    n = 20000
    augment = Augment(skeleton, 2, yaw=90, mirror=0.25, scale=0.1)
    clips = torch.zeros(n, 3, 3, 2)
    clips[:, 1:, 2] = 1  # both joints in front, so that turns and sides can be told apart
    clips[:, 1, 1], clips[:, 2, 1] = 1, 2  # the left one lower
    out = augment({"clips": clips, "mask": None, "labels": None}, torch.Generator().manual_seed(0))["clips"][..., 0]
    yaw = torch.rad2deg(torch.atan2(out[:, 1, 0], out[:, 1, 2]))
    swapped = out[:, 1, 1] > out[:, 2, 1]
    size = out[:, :, 1].amax(1) / 2
    assert float(swapped.float().mean()) == pytest.approx(0.25, abs=0.012)
    for value, low, high in ((yaw, -90, 90), (size, 0.9, 1.1)):
        place_ = (value - low) / (high - low)
        grid = torch.linspace(0, 1, n)
        assert float((place_.sort().values - grid).abs().max()) < 1.63 / math.sqrt(n), "Kolmogorov-Smirnov, 1 %"
    pairs = torch.corrcoef(torch.stack([yaw, swapped.float(), size]))
    assert float((pairs - torch.eye(3)).abs().max()) < 0.03, "independent of each other"


def test_nothing_waits_for_the_device(skeleton: Skeleton) -> None:
    """Tensors of the device meta have no values: whoever looks at one fails."""
    augment = Augment(skeleton, 8, yaw=180, mirror=0.5, scale=0.1, speed=0.2)
    clips, mask, per_clip = (torch.empty(s, device="meta") for s in ((5, 20, 3, 10), (5, 1, 1, 10), (5,)))
    out, real = augment.resampled(clips, mask, per_clip, per_clip)
    assert real is not None and real.shape == (5, 1, 1, 8)
    assert augment.placed(out, per_clip, per_clip > 0, per_clip).shape == (5, 20, 3, 8)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"yaw": 181.0}, "yaw=181"), ({"mirror": 1.5}, "mirror=1.5"), ({"scale": 1.0}, "scale=1.0"), ({"speed": -0.1}, "speed=-0.1"),
     ({"speed": math.nan}, "speed=nan"), ({"mirror": 0.5}, "left_right")],
)  # fmt: skip
def test_limits_are_named(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Augment(PAIR, 8, **arguments)


def everything(**changes: float) -> partial[Augment]:
    return partial(Augment, **({"yaw": 180.0, "mirror": 0.5, "scale": 0.1, "speed": 0.2} | changes))


def test_statistics_are_those_of_augmented_clips(people: ClipSet) -> None:
    data = PoseDataModule(people, 16, val_fraction=0.2, augment=everything())
    batch, again = data.statistics_batch(), data.statistics_batch()
    assert batch["clips"].shape[-1] == 16 and torch.equal(batch["clips"], again["clips"])
    plain = PoseDataModule(people, 16, val_fraction=0.2).statistics_batch()
    left, right = people.skeleton.index("left_shoulder"), people.skeleton.index("right_shoulder")
    sideways = [abs(float((b["clips"][:, left] - b["clips"][:, right]).mean(dim=(0, 2))[0])) for b in (plain, batch)]
    assert sideways[1] < 0.05, "turned any way, nobody's left is anywhere on average"


class Batches(pl.LightningModule):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[Tensor] = []
        self.validated: list[Tensor] = []

    def on_train_batch_start(self, batch: dict, batch_idx: int) -> None:
        torch.manual_seed(0)  # as a module does that ties its noise to the batch

    def training_step(self, batch: dict, batch_idx: int) -> Tensor:
        self.seen.append(batch["clips"])
        return self.weight * 0

    def validation_step(self, batch: dict, batch_idx: int) -> None:
        self.validated.append(batch["clips"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fitted(people: ClipSet, out: Path, **arguments: object) -> Batches:
    module, data = Batches(), PoseDataModule(people, 16, 4, 3, 0.2, **arguments)  # type: ignore[arg-type]
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    pl.Trainer(accelerator="cpu", max_epochs=2, num_sanity_val_steps=0, default_root_dir=out, **quiet).fit(module, data)
    return module


@pytest.mark.filterwarnings("ignore")
def test_training_is_augmented_by_seed_and_batch_and_validation_is_not(people: ClipSet, tmp_path: Path) -> None:
    plain = fitted(people, tmp_path)
    one, two = (fitted(people, tmp_path, augment=everything(speed=0.0)) for _ in range(2))
    other = fitted(people, tmp_path, augment=everything(speed=0.0), seed=1)
    assert len(one.seen) == 6 and all(torch.equal(a, b) for a, b in zip(one.seen, two.seen, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one.seen, other.seen, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(one.validated, plain.validated, strict=True))
    # Without speed the windows are the same, so heights tell how each clip was resized: anew in every batch.
    size = torch.stack([a[:, 0, 1, 0] / p[:, 0, 1, 0] for a, p in zip(one.seen, plain.seen, strict=True)])
    assert float(size.min()) > 0.9 and float(size.max()) < 1.1 and len(size.unique()) > 20
    faster = fitted(people, tmp_path, augment=everything(speed=0.5))
    assert all(batch.shape == (4, 20, 3, 16) for batch in faster.seen)


@pytest.mark.parametrize("step", [3, pytest.param(4, marks=pytest.mark.slow), pytest.param(6, marks=pytest.mark.slow)])
def test_an_augmented_run_resumes_to_the_bit(step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    augmented = ["augment=default", "trainer.max_epochs=2"]
    losses = test_resume.run(tmp_path / "whole", monkeypatch, test_resume.Spy(), *augmented)
    with pytest.raises(test_resume.Stop):
        test_resume.run(tmp_path / "cut", monkeypatch, test_resume.Spy(stop_after=step), *augmented)
    resumed = test_resume.run(tmp_path / "cut", monkeypatch, test_resume.Spy(), "resume=auto", *augmented)
    assert resumed == {k: losses[k] for k in range(min(resumed), 9)} and min(resumed) <= step + 1
    for key in test_resume.COMPARED:
        test_resume.assert_equal(test_resume.state(tmp_path / "whole")[key], test_resume.state(tmp_path / "cut")[key], key)
