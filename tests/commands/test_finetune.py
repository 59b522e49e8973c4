"""A run that begins with a trained model: what comes along, what may change, and that it is the model it claims to be."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import train as train_script
from ddpm import load
from ddpm.clips import Clips
from ddpm.errors import CheckpointError, ConfigError, DataError
from ddpm.module import MotionDiffusion
from tests.commands.test_resume import COMPARED, SMALL, Spy, Stop, assert_equal, state
from tests.configs import compose

SMALL = [*SMALL, "~callbacks.loss_plot"]
FREE = [o for o in SMALL if not o.startswith(("T=", "model.", "frames=", "data.n="))]
"""What of a small run is not the trained model's."""
STILL = ("optimizer.lr=1e-12", "trainer.max_epochs=1", "loader.steps_per_epoch=1")
"""A training that changes nothing that one could see."""


def trained(out: Path, *overrides: str) -> MotionDiffusion:
    """The model of a short run."""
    overrides = (*(FREE if any(o.startswith("finetune") for o in overrides) else SMALL), f"out={out}", *overrides)
    train_script.train(compose("config", overrides), overrides)
    return load(out)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a model that knows actions."""
    out = tmp_path_factory.mktemp("origin")
    trained(out)
    return out


def write(path: Path, clips: Clips, labels: Mapping[int, str]) -> None:
    """A file of clips whose joints are in another order, with one label for every clip."""
    order = torch.arange(len(clips.skeleton.names)).flip(0)
    names = [clips.skeleton.names[int(k)] for k in order]
    np.savez(
        path, clips=clips.positions[:, :, order].numpy(), fps=clips.fps, joint_names=names,
        **({"labels": [labels[i] for i in range(len(clips))]} if labels else {}),
    )  # fmt: skip


@pytest.fixture
def motion(origin: Path, tmp_path: Path) -> Clips:
    """A few clips of the skeleton, of a walker whose root goes 1 m in a second."""
    model = load(origin)
    rest = model.sample(6).positions[:, :1].expand(-1, 24, -1, -1).clone()
    rest[..., 0] += torch.linspace(0, 1, 24)[:, None]
    return Clips.whole(rest, model.fps, model.skeleton)


def folder(path: Path, clips: Clips, labels: Mapping[int, str]) -> list[str]:
    """Overrides for a folder with these clips."""
    path.mkdir()
    write(path / "mine.npz", clips, labels)
    return ["data=folder", f"data.root={path}", "loader.batch_size=2", "data.on_outlier=keep"]


NEW = {0: "walk", 1: "walk", 2: "somersault", 3: "somersault", 4: "walk", 5: "somersault"}


def columns(module: MotionDiffusion) -> Tensor:
    """``(dim, actions)`` what the network adds to its embedding for every action."""
    return module.diffusion.eps_model.time_embed.clip.weight.detach()  # type: ignore[union-attr,return-value]


@pytest.mark.parametrize("labels", [NEW, {}], ids=["labels", "no labels"])
def test_the_model_comes_along_and_new_actions_behind_its_own(
    origin: Path, motion: Clips, tmp_path: Path, labels: dict[int, str]
) -> None:
    before = load(origin)
    after = trained(tmp_path / "run", f"finetune={origin}", *folder(tmp_path / "data", motion, labels), *STILL)
    old, new = before.class_names, after.class_names
    assert new == (*old, "somersault") if labels else new == old
    assert after.skeleton == before.skeleton and after.fps == before.fps
    assert torch.equal(columns(after)[:, : len(old)], columns(before))
    assert columns(after)[:, len(old) :].abs().max() < 1e-9 if labels else True
    noise = torch.randn(2, 20, 3, 8, generator=torch.Generator().manual_seed(0))
    t, cond = torch.tensor([3, 12]), torch.eye(len(new))[:2]
    was, now = (m.diffusion.denoise(noise, t, cond[:, : len(m.class_names)]) for m in (before, after))
    assert torch.allclose(was.x0_hat, now.x0_hat, atol=1e-6)
    counts = after.condition.counts  # type: ignore[union-attr]
    assert sum(counts[:-1]) == (0 if not labels else sum(counts)) and sum(counts) > 0
    drawn = after.sample(4).labels
    assert drawn is not None and set(drawn) <= ({"walk", "somersault"} if labels else {""})


@pytest.mark.parametrize("condition", ["condition=none", "condition=labels"])
def test_without_actions_before(condition: str, motion: Clips, tmp_path: Path) -> None:
    """What was built without a condition stays so; what had no actions to learn gets those of the data, and is what it was."""
    no_labels = [o for o in SMALL if not o.startswith("data.n")] + folder(tmp_path / "before", motion, {})
    arguments = [*no_labels, condition, f"out={tmp_path / 'origin'}"]
    train_script.train(compose("config", arguments), arguments)
    before = load(tmp_path / "origin")
    after = trained(tmp_path / "run", f"finetune={tmp_path / 'origin'}", *folder(tmp_path / "data", motion, NEW), *STILL)
    if condition == "condition=none":
        with pytest.raises(ConfigError, match=r"condition\.guidance=2: .* of the trained model.*leave it away"):
            trained(tmp_path / "other", f"finetune={tmp_path / 'origin'}", "condition.guidance=2")
    assert before.condition is None and (after.condition is None) == (condition == "condition=none")
    assert torch.allclose(before.sample(2).positions, after.sample(2).positions, atol=1e-4)


def test_it_learns(origin: Path, motion: Clips, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    data = folder(tmp_path / "data", motion, NEW)
    many = ["loader.steps_per_epoch=40", "trainer.max_epochs=1", "loader.val_fraction=0.4", f"finetune={origin}"]
    overrides = [*FREE, *data, *many, f"out={tmp_path / 'run'}"]
    after = train_script.train(compose("config", overrides), overrides)
    (said,) = (record.getMessage() for record in caplog.records if record.getMessage().startswith("val/loss of"))
    assert after < 0.9 * float(said.rpartition(" ")[2])


def test_a_run_that_is_resumed_needs_its_origin_no_more(
    origin: Path, motion: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tmp_path / "origin")
    data = [*FREE, *folder(tmp_path / "data", motion, NEW), f"finetune={tmp_path / 'origin'}"]

    def losses(out: str, spy: Spy, *more: str) -> dict[int, float]:
        monkeypatch.setattr(train_script, "StopBetweenBatches", lambda: spy)
        overrides = [*data, f"out={tmp_path / out}", *more]
        train_script.train(compose("config", overrides), overrides)
        return spy.losses

    whole = losses("whole", Spy())
    with pytest.raises(Stop):
        losses("run", Spy(stop_after=6))
    (tmp_path / "origin").rename(tmp_path / "gone")
    rest = losses("run", Spy(), "resume=auto")
    assert rest and all(whole[step] == loss for step, loss in rest.items())
    a, b = state(tmp_path / "whole"), state(tmp_path / "run")
    for key in COMPARED:
        assert_equal(a[key], b[key], key)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("model=transformer", "model is that of the trained model"),
        ("model.model_channels=16", "model.model_channels"),
        ("T=30", "T is that"),
        ("~model.dropout", "~model.dropout: model.dropout is that"),
        ("skeleton=ntu25", "skeleton is that"),
        ("travel=positions", "travel is that"),
        ("prediction=x0", "prediction is that"),
        ("schedule=linear", "schedule is that"),
    ],
)
def test_what_the_weights_were_learned_with_cannot_be_changed(origin: Path, override: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{named}.*leave it away"):
        trained(tmp_path / "run", override, f"finetune={origin}")


@pytest.mark.parametrize(
    ("shape", "named", "remedy"),
    [
        ((30, 25, 3), None, "data.joints=ntu25)"),
        ((30, 4, 3), "abcd", "(+data.retarget.JOINT=NAME)"),
        ((30, 20, 2), None, "the skeleton has 3"),
    ],
)
def test_of_another_skeleton_only_what_leaves_the_models_is_advised(
    origin: Path, shape: tuple[int, ...], named: str | None, remedy: str, tmp_path: Path
) -> None:
    clip = np.random.default_rng(0).normal(size=shape).astype("f4")
    np.savez(tmp_path / "mine.npz", clips=clip[None], fps=20, **({"joint_names": list(named)} if named else {}))
    data = ["data=folder", f"data.root={tmp_path / 'mine.npz'}"]
    with pytest.raises(DataError) as caught:
        trained(tmp_path / "run", f"finetune={origin}", *data)
    said, found, _ = str(caught.value).partition(f"; finetune={origin}")
    assert found and said.endswith(remedy) and "skeleton=" not in said and "skeleton." not in said
    with pytest.raises(DataError, match=r"choose the skeleton that matches the data \(skeleton=\.\.\."):
        train_script.train(compose("config", [*FREE, *data, f"out={tmp_path / 'new'}"]))


def test_the_joints_that_are_advised_are_taken(origin: Path, tmp_path: Path) -> None:
    rest = load(origin).sample(4).positions.numpy()
    kinect = load(origin).skeleton.names
    np.savez(tmp_path / "mine.npz", clips=np.repeat(rest[:, :1], 24, 1)[:, :, [0] * 5 + list(range(20))], fps=20)
    names = [*(f"extra{i}" for i in range(5)), *kinect]
    given = ["data=folder", f"data.root={tmp_path / 'mine.npz'}", f"data.joints=[{','.join(names)}]", "data.on_outlier=keep"]
    assert trained(tmp_path / "run", f"finetune={origin}", *given, "loader.batch_size=2", *STILL).skeleton.names == kinect


@pytest.mark.parametrize(("width", "named"), [(5, "vectors of 5 numbers"), (0, "none")])
def test_vectors_of_another_width_are_refused(width: int, named: str, motion: Clips, tmp_path: Path) -> None:
    def data(name: str, width: int) -> list[str]:
        given = folder(tmp_path / name, motion, {})
        content = dict(np.load(tmp_path / name / "mine.npz"))
        vectors = {"condition": np.arange(len(motion) * width, dtype="f4").reshape(-1, width)} if width else {}
        np.savez(tmp_path / name / "mine.npz", **content, **vectors)
        return given

    before = [*(o for o in SMALL if not o.startswith("data.n")), *data("before", 3), "condition=vectors"]
    train_script.train(compose("config", [*before, f"out={tmp_path / 'origin'}"]), before)
    with pytest.raises(ConfigError, match=rf"vectors of 3 numbers, and the data have {named}; save condition, \(clips, 3\)"):
        trained(tmp_path / "run", f"finetune={tmp_path / 'origin'}", *data("data", width))


def test_what_no_weight_depends_on_can(origin: Path, tmp_path: Path) -> None:
    changed = ["frames=16", "model.dropout=0.25", "condition.guidance=2", "weighting=simple", "sampler=ddim", "data.n=12"]
    after: Any = trained(tmp_path / "run", f"finetune={origin}", "trainer.max_epochs=1", *changed)
    assert (after.frames, after.condition.guidance, after.sampler.func.__name__) == (16, 2, "ddim")
    assert next(m.p for m in after.modules() if isinstance(m, torch.nn.Dropout)) == 0.25
    assert after.diffusion.weighting.func.__name__ == "simple"


def test_a_file_of_another_project_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="lacks"):
        trained(tmp_path / "run", f"finetune={tmp_path / 'other.ckpt'}")
