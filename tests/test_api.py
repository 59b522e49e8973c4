"""The Python API: public names, a model from a checkpoint, and what `MotionDiffusion.sample` takes and gives."""

import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ddpm
from ddpm.checkpoint import PRETRAINED
from ddpm.checkpoint_io import DurableCheckpointIO
from ddpm.clips import Clips
from ddpm.errors import CheckpointError
from ddpm.module import MotionDiffusion, build_module
from ddpm.process.samplers import unipc

NAMES, COUNTS = ("bow", "run", "walk"), (3, 0, 5, 2)


def checkpoint(path: Path, config: dict[str, Any], *labels: Any) -> Path:
    """A run of a module with weights of which every one matters."""
    module = build_module(config, 20.0, *labels)
    generator = torch.Generator().manual_seed(0)
    for weight in module.diffusion.eps_model.parameters():
        weight.data.add_(0.1 * torch.randn(weight.shape, generator=generator))
    module.normalizer.fit(torch.randn(4, 20, 3, 8, generator=generator))
    content: dict[str, Any] = {"state_dict": module.state_dict(), "hyper_parameters": config}
    module.on_save_checkpoint(content)
    DurableCheckpointIO().save_checkpoint(content, path / "checkpoints" / "last.ckpt")
    return path


@pytest.fixture
def run(tiny_config: dict[str, Any], tmp_path: Path) -> Path:
    """A run whose model knows two actions, and a third by name only."""
    condition = {"_target_": "ddpm.process.condition.LabelCondition", "_partial_": True}
    return checkpoint(tmp_path / "RUN", {**tiny_config, "condition": condition}, NAMES, COUNTS)


@pytest.fixture
def model(run: Path) -> MotionDiffusion:
    return ddpm.load(run)


def test_the_lines_of_the_docstring_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    lines = [line for line in ddpm.__doc__.splitlines() if line.startswith("    ")]
    assert len(lines) == 5
    exec(textwrap.dedent("\n".join(lines)), {})
    with Image.open("walk.gif") as picture:
        assert picture.n_frames == 8
    assert len(Clips.load("walk.npz")) == 16


def test_the_readme_shows_the_same_lines() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    lines = [line.strip() for line in ddpm.__doc__.splitlines() if line.startswith("    ")]
    assert "\n".join(lines) in readme.replace("import load\n\n", "import load\n")


def test_a_trained_model_comes_with_the_project() -> None:
    """Small, and it has learned something: people walk some metres and bow where they stand, whatever the way."""
    assert PRETRAINED.stat().st_size < 10**6
    model = ddpm.load("pretrained")
    for action, least, most in (("walk", 1.5, 5.0), ("bow", 0.0, 0.3)):
        clips = model.sample(4, action=action)
        way = (clips.positions[:, -1, 0] - clips.positions[:, 0, 0]).norm(dim=-1)
        assert way.min() >= least and way.max() <= most, action
        assert (0.7 < clips.heights[:, :, 0]).all() and (clips.heights[:, :, 0] < 1.2).all()


def test_public_names_are_those_classes() -> None:
    assert set(ddpm.__all__) <= set(dir(ddpm))
    for name in ddpm.__all__:
        assert getattr(ddpm, name).__name__ == name
    assert ddpm.Clips is Clips and ddpm.MotionDiffusion is MotionDiffusion
    with pytest.raises(AttributeError, match="module 'ddpm' has no attribute 'sampel'"):
        _ = ddpm.sampel


def test_a_checkpoint_loads_as_lightning_users_expect(run: Path, model: MotionDiffusion, tmp_path: Path) -> None:
    expected = ddpm.load(run).sample(2).positions
    for path in (run, run / "checkpoints" / "last.ckpt"):
        for loaded in (ddpm.load(path), MotionDiffusion.load_from_checkpoint(path, map_location="cpu")):
            assert not loaded.training and torch.equal(loaded.sample(2).positions, expected)
    with pytest.raises(CheckpointError, match="no such file"):
        MotionDiffusion.load_from_checkpoint(tmp_path / "missing.ckpt")
    torch.save({"state_dict": {}, "hyper_parameters": Path}, tmp_path / "code.ckpt")
    with pytest.raises(CheckpointError, match="refused, it holds more than tensors"):
        MotionDiffusion.load_from_checkpoint(tmp_path / "code.ckpt")


def test_samples_are_clips_that_say_what_they_are(model: MotionDiffusion) -> None:
    clips = model.sample([3, 14, 15])
    assert clips.positions.shape == (3, 8, 20, 3) and clips.finite.all() and clips.lengths.tolist() == [8] * 3
    assert clips.seeds.tolist() == [3, 14, 15] and (clips.fps, clips.skeleton) == (20.0, model.skeleton)
    names = [NAMES[label] if label >= 0 else "" for label in model.labels([3, 14, 15]).tolist()]
    assert list(clips.labels) == names
    assert torch.equal(clips.positions, clips.positions.float().double()), "the numbers of float32"


@pytest.mark.parametrize(
    "seeds", [range(4), [0, 1, 2, 3], (0, 1, 2, 3), np.arange(4), torch.arange(4), np.int64(4), np.array(4), torch.tensor(4)]
)
def test_a_number_of_clips_is_the_first_seeds(model: MotionDiffusion, seeds: Any) -> None:
    few, all_of_them = model.sample(4), model.sample(seeds)
    assert torch.equal(few.positions, all_of_them.positions) and few.seeds.tolist() == all_of_them.seeds.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("seeds", "named"),
    [
        ([], r"seeds=\[\] asks for no clip"),
        (0, "seeds=0 asks for no clip"),
        (-3, "seeds=-3 asks for no clip"),
        (range(0), "asks for no clip"),
        ([2, -1], "seeds hold -1, they must be in 0"),
        ([2**63], "seeds hold 9223372036854775808"),
        ([1.5], r"seeds=\[1.5\] must be whole numbers"),
        (2.0, "seeds=2.0 must be whole numbers"),
        ("16", "seeds='16' must be whole numbers"),
        (None, "seeds=None must be whole numbers"),
        (True, "seeds=True must be whole numbers"),
    ],
)
def test_seeds_that_are_none_are_named_with_what_to_give(model: MotionDiffusion, seeds: Any, named: str) -> None:
    with pytest.raises(ValueError, match=rf"{named}.*give how many clips, as sample\(16\), or their seeds"):
        model.sample(seeds)


def test_one_seed_in_an_array_is_no_number_of_clips(model: MotionDiffusion) -> None:
    for seeds in (torch.tensor([5]), np.array([5])):
        assert model.sample(seeds).seeds.tolist() == [5]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"steps": 1.5}, "steps=1.5 must be a whole number"),
        ({"frames": 8.0}, "frames=8.0 must be a whole number"),
        ({"guidance": "2"}, "guidance='2' must be a number"),
        ({"project": "bone"}, "project='bone' must be bones, none or None"),
        ({"sampler": "ddim"}, "sampler='ddim' must be a function"),
    ],
)
def test_arguments_of_another_kind_are_named(model: MotionDiffusion, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        model.sample(1, **arguments)


def test_a_model_that_was_never_fitted_says_so(tiny_config: dict[str, Any]) -> None:
    """Its clips would be hundreds of metres large."""
    with pytest.raises(ValueError, match=r"never fitted: call model\.fit\(batch\)"):
        build_module(tiny_config, 20.0).sample(1)


def test_numbers_of_numpy_are_numbers(model: MotionDiffusion) -> None:
    given = model.sample(2, frames=np.int64(8), steps=np.int64(3), guidance=torch.tensor(2.0), project="none")
    assert torch.equal(given.positions, model.sample(2, steps=3, guidance=np.float32(2), project="none").positions)
    assert torch.equal(given.positions, model.sample(2, frames=8, steps=3, guidance=2.0, project=None).positions)


def test_more_clips_than_memory_holds_are_refused_at_once(model: MotionDiffusion) -> None:
    for seeds in (10**12, range(10**12), 2**63, 10**30):
        with pytest.raises(ValueError, match=r"(000000000|9223372036854775807) clips"):
            model.sample(seeds)


def test_actions_take_turns(model: MotionDiffusion) -> None:
    turns = model.sample(3, action=["walk", "bow"])
    assert turns.labels == ("walk", "bow", "walk")
    assert torch.equal(turns.positions, model.sample(3, labels=torch.tensor([2, 0, 2])).positions)
    assert model.sample(2, action="bow").labels == ("bow", "bow")
    assert model.sample(2, labels=torch.tensor([-1, 0])).labels == ("", "bow")
    for action in ("run", ["walk", "run"]):
        with pytest.raises(ValueError, match="action=run: the model knows bow, walk"):
            model.sample(2, action=action)
    with pytest.raises(ValueError, match="must name at least one action"):
        model.sample(2, action=[])
    with pytest.raises(ValueError, match="action=bow and labels cannot be combined"):
        model.sample(1, action="bow", labels=torch.tensor([0]))


def test_a_model_without_labels_says_so(tiny_config: dict[str, Any], tmp_path: Path) -> None:
    model = ddpm.load(checkpoint(tmp_path / "RUN", tiny_config))
    assert model.sample(1).labels is None
    with pytest.raises(ValueError, match="action=walk: this model knows no actions"):
        model.sample(1, action="walk")


def test_steps_are_network_calls(model: MotionDiffusion) -> None:
    called = []
    model.diffusion.eps_model.register_forward_hook(lambda *_: called.append(1))
    clips = model.sample(2, steps=3)
    assert len(called) == 3
    assert torch.equal(clips.positions, model.sample(2, sampler=partial(model.sampler, steps=3)).positions)
    assert not torch.equal(clips.positions, model.sample(2).positions)
    called.clear()
    model.sample(3, sampler=unipc, steps=2, batch_size=2)
    assert len(called) == 4
    with pytest.raises(ValueError, match="steps=0 must be a whole number of at least 1"):
        model.sample(1, steps=0)
    with pytest.raises(ValueError, match="batch_size=0"):
        model.sample(1, batch_size=0)


def test_a_bar_shows_the_progress_when_asked(model: MotionDiffusion, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []
    expected = model.sample(3, batch_size=2, observer=lambda t, xt, x0_hat: seen.append(t))
    assert capsys.readouterr().err == "" and len(seen) == 2 * 4
    for progress, text in ((True, "sampling"), ("walking", "walking")):
        seen.clear()
        clips = model.sample(3, batch_size=2, progress=progress, observer=lambda t, xt, x0_hat: seen.append(t))
        assert f"{text}:   0%" in capsys.readouterr().err and len(seen) == 2 * 4
        assert torch.equal(clips.positions, expected.positions)


def test_the_device_is_where_the_module_goes(model: MotionDiffusion) -> None:
    expected = model.sample(2).positions
    assert torch.equal(model.sample(2, device="cpu").positions, expected)
    assert model.sample(1, device="auto").positions.device.type == "cpu", "clips come back"
    with pytest.raises(ValueError, match="device=abacus: not usable here"):
        model.sample(1, device="abacus")
