"""The commands that open a checkpoint: sample.py in all its ways, and compare.py."""

import csv
import re
from functools import partial
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

import compare as compare_script
import sample as sample_script
from datamodules.readers.bvh_file import read
from datamodules.sets.folder import read_file
from datamodules.source import read_source
from ddpm import load
from ddpm.build import own_data
from ddpm.checkpoint import load_run, read_checkpoint
from ddpm.checkpoint_io import DurableCheckpointIO
from ddpm.editing import vary
from ddpm.errors import ConfigError, DataError
from ddpm.model import MotionModel
from ddpm.module import MotionDiffusion, build_module
from ddpm.process.samplers import cost, ddim, ddpm, heun, progress_bar, unipc
from ddpm.process.schedules import cosine
from ddpm.viz import render
from ddpm.viz.body import GIVEN
from ddpm.viz.bvh_out import write_bvh
from ddpm.viz.plots import plot_quality
from tests.commands.doors import command
from tests.commands.test_train import SMALL
from tests.configs import compose


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on 48 clips."""
    where = tmp_path_factory.mktemp("user")
    done = command(
        "train.py",
        *SMALL,
        "T=40",
        "condition.guidance=1.25",
        "condition.interval=null",
        "out=run",
        "~callbacks.skeleton_gif",
        cwd=where,
    )
    assert done.returncode == 0, done.stderr
    return where / "run"


@pytest.fixture(scope="module")
def shaken(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its checkpoint with weights of which every one matters: after so few steps the network says the same of any action."""
    content = read_checkpoint(run / "checkpoints" / "last.ckpt")
    g = torch.Generator().manual_seed(0)
    for name, weight in content["state_dict"].items():
        if name.startswith("diffusion.eps_model."):
            weight.add_(0.1 * torch.randn(weight.shape, generator=g))
    path = tmp_path_factory.mktemp("shaken") / "last.ckpt"
    DurableCheckpointIO().save_checkpoint(content, path)
    return path


@pytest.fixture(scope="module")
def unlabelled(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of data in which no motion had a label."""
    known, config = load_run(run)
    module = build_module(config, known.fps)
    module.normalizer.load_state_dict(known.normalizer.state_dict())
    content: dict[str, Any] = {"state_dict": module.state_dict(), "hyper_parameters": config}
    module.on_save_checkpoint(content)
    path = tmp_path_factory.mktemp("unlabelled") / "last.ckpt"
    DurableCheckpointIO().save_checkpoint(content, path)
    return path


def sampled(run: Path, out: Path, *overrides: str) -> dict[str, np.ndarray]:
    path = sample_script.sample(compose("sample", [f"ckpt={run}", f"out={out}", *overrides]))
    assert path == out / "clips.npz"
    with np.load(path, allow_pickle=False) as content:
        return {key: content[key] for key in content.files}


def test_interpolation_starts_and_ends_at_its_seeds(run: Path, tmp_path: Path) -> None:
    path = sampled(run, tmp_path / "a", "interpolate=[3,9]", "n=4", "gif_clips=0")
    module = load(run)
    ends = module.sample([3, 9]).positions.numpy()
    assert "seeds" not in path and path["clips"].shape == (4, 8, 20, 3)
    np.testing.assert_allclose(path["clips"][[0, -1]], ends, atol=1e-4)
    assert np.abs(path["clips"][1] - ends).max() > 1e-5


def test_a_guide_that_is_the_model_changes_nothing_and_one_of_other_labels_is_refused(
    run: Path, unlabelled: Path, tmp_path: Path
) -> None:
    alone = sampled(run, tmp_path / "alone", "n=2", "guidance=1", "gif_clips=0")["clips"]
    led = sampled(run, tmp_path / "led", "n=2", f"guide={run}", "guidance=3", "gif_clips=0")["clips"]
    np.testing.assert_allclose(led, alone, atol=1e-4)
    named = re.escape(
        f"guide={unlabelled}: it was trained with another condition than the model it guides (none, not 13 actions)"
    )
    with pytest.raises(ValueError, match=named):
        sampled(run, tmp_path / "not", f"guide={unlabelled}", "guidance=2")


def test_variation_goes_from_the_clip_to_any_clip(run: Path, tmp_path: Path) -> None:
    sampled(run, tmp_path / "source", "n=2", "seed=50", "gif_clips=0")
    source = f"source={tmp_path / 'source' / 'clips.npz'}"
    clip = np.load(tmp_path / "source" / "clips.npz")["clips"][1]
    got = sampled(run, tmp_path / "out", source, "source_clip=1", "vary=0.5", "n=6", "gif_clips=2")
    assert got["clips"].shape == (6, 8, 20, 3) and got["seeds"].tolist() == [0, 1, 2, 3, 4, 5]
    assert Image.open(tmp_path / "out" / "clips.gif").n_frames == 8

    # After so few steps the network says the same of any noise: the answers for standard normal clips take its place.
    module = load(run)
    module.diffusion.eps_model.forward = lambda xt, t, cond: module.diffusion.alpha_bar[t][:, None, None, None].sqrt() * xt
    off = {}
    for strength in (0.05, 0.5, 1.0):
        varied = vary(module, torch.from_numpy(clip), strength, range(6), project=None, batch_size=4)
        off[strength] = (varied.positions - torch.from_numpy(clip)).norm(dim=-1).mean()
    assert off[0.05] < 0.5 * off[0.5] and off[0.5] < 0.9 * off[1.0]


def test_inversion_is_undone_by_sampling(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The noise in the file is that from which DDIM with as many calls samples the clips in the file."""
    caplog.set_level("INFO")
    got = sampled(run, tmp_path / "a", "source=val", "invert=40", "n=3", "gif_clips=1")
    assert "cm off on average" in caplog.text
    assert got["noise"].shape == (3, 20, 3, 8) and got["clips"].shape == (3, 8, 20, 3)
    module = load(run)
    noise = torch.from_numpy(got["noise"])
    again = module.generate(noise, lambda: noise, project=None, sampler=lambda *a, **k: ddim(*a, steps=40, **k))
    np.testing.assert_allclose(again.numpy(), got["clips"], atol=1e-4)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["interpolate=[3]"], r"interpolate=\[3\].*two seeds"),
        (["interpolate=[3,-1]"], "two seeds"),
        (["interpolate=7"], "two seeds"),
        (["interpolate=[1,2]", "vary=0.5", "source=x.npz"], "interpolate and vary"),
        (["vary=0.5"], "source=None"),
        (["source=x.npz"], "source=x.npz"),
        (["vary=0", "source=x.npz"], r"vary=0\.0"),
        (["vary=1.5", "source=x.npz"], r"vary=1\.5"),
        (["invert=0", "source=x.npz"], "invert=0"),
        (["invert=5", "source=x.npz", "frames=9"], "frames=9"),
        (["invert=5", "source=x.npz", "steps=9"], "leave sampler and steps away"),
        (["vary=0.5", "source=x.npz", "data.root=y"], "source=val only"),
        (["guidance=-0.5"], r"guidance=-0\.5 must be a number, and not negative; 1 is none"),
        (["guidance=nan"], "guidance=nan must be a number"),
        (["guidance=inf"], "guidance=inf must be a number"),
        (["invert=5", "source=x.npz", "guidance=2"], "guidance=2.0: invert does not use it"),
        (["invert=5", "source=x.npz", "project=bones"], "project=bones: invert does not use it"),
        (["vary=0.5", "source=x.npz", "guidance=2"], "guidance needs action="),
        (["guide=run"], "guide=run needs guidance="),
        (["interpolate=[1,2]", "action=[a,b]"], "all clips between two seeds have one action"),
        (["project=feet"], "project=feet must be bones, none, or null"),
        (["invert=5", "source=x.npz", "action=walk"], "action=walk: invert does not use it"),
        (["edit=x.npz"], "keep=None: edit=FILE and keep"),
        (["keep=[:8]"], "edit=FILE and keep"),
        (["keep=0"], "edit=FILE and keep"),
        (["edit=x.npz", "keep=[]"], "edit=FILE and keep"),
        (["edit=x.npz", "keep=[:8]", "frames=9"], "frames=9"),
        (["edit=x.npz", "keep=[:8]", "loop=true"], "loop cannot be combined with edit"),
        (["fps=0"], r"fps=0\.0 must be in \[1, 1000\]"),
        (["tempo=-1"], r"tempo=-1\.0 must be in \[0\.1, 10\]"),
        (["tempo=nan"], "tempo=nan"),
        (["invert=5", "source=x.npz", "fps=60"], "leave fps and tempo away"),
        (["script=[walk:3]", "action=walk"], "leave frames and action away"),
        (["script=[walk:3]", "vary=0.5", "source=x.npz"], "vary and script cannot be combined"),
    ],
)
def test_bad_values_are_named_before_anything_is_loaded(overrides: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        sample_script.sample(compose("sample", ["ckpt=missing.ckpt", *overrides]))


def test_clips_that_are_not_finite_are_not_written(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = MotionModel.sample

    def diverged(self: MotionModel, *args: Any, **kwargs: Any) -> Any:
        clips = original(self, *args, **kwargs)
        clips.positions[1, 2, 3, 0] = float("nan")
        return clips

    monkeypatch.setattr(MotionModel, "sample", diverged)
    with pytest.raises(ValueError, match="1 of 3 clips are not finite: they are neither written"):
        sampled(run, tmp_path / "out", "n=3")
    assert not (tmp_path / "out").exists()


# --- a part of a clip, long clips and loops


def test_a_part_of_a_clip_stays_where_it_is(run: Path, tmp_path: Path) -> None:
    """A file with a clip away from the origin, facing anywhere: what is kept comes back to the digit, the rest varies."""
    module = load(run)
    clip = module.sample([3]).positions.numpy().astype(np.float32)
    clip[..., [0, 2]] = clip[..., [2, 0]] * [1, -1] + [5, -3]
    path = write(tmp_path / "clip.npz", clips=clip)
    got = sampled(run, tmp_path / "a", f"edit={path}", "keep=[:3,-1]", "n=3", "gif_clips=1")["clips"]
    assert got.shape == (3, 8, 20, 3)
    np.testing.assert_array_equal(got[:, [0, 1, 2, 7]], np.repeat(clip[:, [0, 1, 2, 7]], 3, axis=0))
    assert np.abs(got[:, 3:7] - got[:1, 3:7]).max() > 1e-5
    pictures = iio.imread(tmp_path / "a" / "clips.gif", index=None)[:, :, 200:].astype(int)
    grey = (np.abs(pictures - GIVEN) < 12).all(-1).sum((1, 2))
    assert len(grey) == 8 and grey[[0, 1, 2, 7]].min() > 5 * grey[3:7].max(), "the second is the first variation"
    up = write(tmp_path / "up.npz", clips=clip + np.array([0, 9, 0], np.float32))
    above = sampled(run, tmp_path / "b", f"edit={up}", "keep=[:3,-1]", "n=3", "gif_clips=0")["clips"]
    np.testing.assert_allclose(above - np.array([0, 9, 0]), got, atol=1e-4, err_msg="on another floor")
    known, other = (
        sampled(
            run, tmp_path / name, f"edit={write(tmp_path / f'{name}.npz', clips=clip, labels=[name])}", "keep=[:3]", "gif_clips=0"
        )
        for name in ("walk", "swim")
    )
    assert known["labels"].tolist() == ["walk"] * 16 and "labels" not in other, "the action of the clip, where the model knows it"
    with pytest.raises(ValueError, match=r"keep=tail is no joint.*left_arm"):
        sampled(run, tmp_path / "c", f"edit={path}", "keep=[tail]")


def test_the_same_motion_is_written_at_another_rate_and_tempo(run: Path, tmp_path: Path) -> None:
    """In all files, and as in Python."""
    module = load(run)
    given = ("n=2", "gif_clips=1", "export=bvh", "frames=16")
    got = sampled(run, tmp_path / "a", *given, f"fps={3 * module.fps:g}", "tempo=1.5")
    clips = module.sample(2, frames=16)
    assert got["fps"] == 3 * module.fps and got["clips"].shape == (2, 31, 20, 3)
    np.testing.assert_allclose(got["clips"][:, ::2], clips.positions, atol=1e-4)
    again = module.sample(2, frames=16, fps=3 * module.fps, tempo=1.5)
    assert again.fps == got["fps"] and np.abs(again.positions.numpy() - got["clips"]).max() < 1e-4
    seconds = sum(frame.info["duration"] for frame in ImageSequence.Iterator(Image.open(tmp_path / "a" / "clips.gif"))) / 1000
    assert seconds == pytest.approx(31 / got["fps"], abs=0.011)
    written = read(tmp_path / "a" / "clip_001.bvh")
    assert written.fps == pytest.approx(float(got["fps"])) and len(written.positions) == 31
    looped = sampled(run, tmp_path / "b", "n=1", "gif_clips=0", "loop=true", "frames=16", "tempo=2")["clips"]
    assert looped.shape == (1, 8, 20, 3)


def test_clips_that_become_too_many_frames_are_refused_before_they_are_sampled(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their rate, or by the length of the clip of which a part is kept."""
    pose = load(run).sample(1).positions[:, :1].numpy()
    path = write(tmp_path / "long.npz", clips=np.repeat(pose, 900, axis=1))
    monkeypatch.setattr("ddpm.memory.machine_memory", lambda accelerator: 10e6)
    sampled(run, tmp_path / "a", "n=16", "gif_clips=0")
    for overrides in (["fps=1000", "tempo=0.1"], [f"edit={path}", "keep=[0]"], ["script=[walk:9]", "fps=1000"]):
        with pytest.raises(ConfigError, match=r"16 clips of [0-9]+ frames: takes about"):
            sampled(run, tmp_path / "b", "n=16", "gif_clips=0", *overrides)


def test_a_script_is_as_long_as_its_actions(shaken: Path, tmp_path: Path) -> None:
    """Where it has one action only, it is a long clip of that action."""
    model = load(shaken)
    first, second = actions_of(model)[:2]
    seconds = 16 / model.fps
    got = sampled(shaken, tmp_path / "a", f"script=[{first}:{seconds},{second}:{seconds}]", "n=2", "gif_clips=0")["clips"]
    assert got.shape == (2, 32, 20, 3)
    alone = sampled(shaken, tmp_path / "b", f"script=[{first}:{2 * seconds}]", "n=2", "gif_clips=0")["clips"]
    acted = sampled(shaken, tmp_path / "c", f"action={first}", "frames=32", "n=2", "gif_clips=0")["clips"]
    np.testing.assert_allclose(alone, acted, atol=1e-5)
    assert np.abs(got - alone).max() > 1e-3
    for script, named in (
        ("7", "7 is no ACTION:SECONDS"),
        ("[a3]", "a3 is no ACTION:SECONDS"),
        (f"[{first}:0.01]", "in all"),
        ("[fly:9]", "action=fly"),
        (f"[{first}:1e308]", "in all"),
    ):
        with pytest.raises(ValueError, match=named):
            sampled(shaken, tmp_path / "d", f"script={script}")


def test_a_loop_goes_on_where_it_ends(run: Path, tmp_path: Path) -> None:
    """With the answers for a pose that drifts slowly for the network, the last frame is as near the first as any two."""
    module = load(run)
    alpha_bar = module.diffusion.alpha_bar

    def slowly(xt: torch.Tensor, t: torch.Tensor, cond: Any) -> torch.Tensor:
        """x0_hat of frames that all show one pose, with a prior variance of 1."""
        a = alpha_bar[t][:, None, None, None]
        frames = xt.shape[-1]
        return (a.sqrt() * xt.sum(-1, keepdim=True) / (a * frames + 1 - a)).expand_as(xt)

    module.diffusion.eps_model.forward = slowly
    clips = module.sample(4, frames=40, loop=True, project=None).positions
    pose = clips - clips[:, :, :1]
    closing, steps = (pose[:, -1] - pose[:, 0]).norm(dim=-1).mean(), pose.diff(dim=1).norm(dim=-1).mean()
    assert closing < 2 * steps and closing < 0.3 * (pose[:, 20] - pose[:, 0]).norm(dim=-1).mean()
    looped = sampled(run, tmp_path / "a", "loop=true", "frames=24", "n=2", "gif_clips=0")["clips"]
    assert looped.shape == (2, 24, 20, 3)
    with pytest.raises(ValueError, match="frames=4 must be at least 8"):
        sampled(run, tmp_path / "b", "loop=true", "frames=4", "n=2")


# --- actions, guidance and rigid bones


def actions_of(module: MotionDiffusion) -> list[str]:
    """Those that training showed."""
    return [name for name, n in zip(module.condition.names, module.condition.counts, strict=False) if n > 0]


def test_actions_take_turns(shaken: Path, tmp_path: Path) -> None:
    """The clips are those of the module for these labels, which are in the file by name, for data=folder to read."""
    module = load(shaken)
    first, second = actions_of(module)[:2]
    got = sampled(shaken, tmp_path / "a", f"action=[{first},{second}]", "n=3", "seed=4", "gif_clips=0")
    assert got["labels"].tolist() == [first, second, first] and got["seeds"].tolist() == [4, 5, 6]
    labels = module.condition.find([first, second, first])
    np.testing.assert_allclose(got["clips"], module.sample([4, 5, 6], labels=labels).positions.numpy(), atol=1e-4)
    assert [recording.label for recording in read_file(tmp_path / "a" / "clips.npz", 3)] == [first, second, first]
    one = sampled(shaken, tmp_path / "b", f"action={second}", "n=3", "seed=4", "gif_clips=3")
    assert one["labels"].tolist() == [second] * 3
    np.testing.assert_allclose(one["clips"][1], got["clips"][1], atol=1e-4)
    assert np.abs(one["clips"][0] - got["clips"][0]).max() > 1e-2


def test_without_a_wish_actions_are_drawn_and_named(shaken: Path, tmp_path: Path) -> None:
    module = load(shaken)
    got = sampled(shaken, tmp_path, "n=6", "gif_clips=0", "batch_size=4")
    assert got["labels"].tolist() == [module.class_names[label] for label in module.labels(range(6)).tolist()]
    assert set(got["labels"]) <= set(actions_of(module)) and len(set(got["labels"])) > 1
    np.testing.assert_allclose(got["clips"], module.sample(range(6)).positions.numpy(), atol=1e-4)


def test_guidance_is_the_weight_of_the_action(shaken: Path, tmp_path: Path) -> None:
    """That of the run unless one is given; 0 is no action at all."""
    module = load(shaken)
    first, second = actions_of(module)[:2]
    labels = module.condition.find([first, first])
    clips = {}
    for guidance in ("null", "1.25", "0", "3"):
        given = (f"action={first}", f"guidance={guidance}", "n=2", "gif_clips=0")
        clips[guidance] = sampled(shaken, tmp_path / guidance, *given)["clips"]
    assert module.condition.guidance == 1.25
    np.testing.assert_array_equal(clips["null"], clips["1.25"])
    np.testing.assert_allclose(clips["3"], module.sample([0, 1], labels=labels, guidance=3.0).positions.numpy(), atol=1e-4)
    assert np.abs(clips["3"] - clips["null"]).max() > 1e-2
    other = sampled(shaken, tmp_path / "other", f"action={second}", "guidance=0", "n=2", "gif_clips=0")["clips"]
    np.testing.assert_allclose(clips["0"], other, atol=1e-4)


def test_a_variation_may_be_of_an_action(shaken: Path, tmp_path: Path) -> None:
    """With one it is of that action, without one of none: the noisy clip says what it is."""
    module = load(shaken)
    first, second = actions_of(module)[:2]
    sampled(shaken, tmp_path / "source", "n=1", "gif_clips=0")
    given = (f"source={tmp_path / 'source' / 'clips.npz'}", "vary=0.8", "n=3", "gif_clips=0")
    free = sampled(shaken, tmp_path / "free", *given)
    told = {name: sampled(shaken, tmp_path / name, *given, f"action={name}") for name in (first, second)}
    assert "labels" not in free and told[second]["labels"].tolist() == [second] * 3
    assert np.abs(told[first]["clips"] - told[second]["clips"]).max() > 1e-2
    unguided = sampled(shaken, tmp_path / "none", *given, f"action={first}", "guidance=0")["clips"]
    np.testing.assert_allclose(unguided, free["clips"], atol=1e-5)


def test_an_interpolation_may_be_of_an_action(shaken: Path, tmp_path: Path) -> None:
    """Of one, all the way; otherwise from the one that the first seed draws to that of the second."""
    module = load(shaken)
    name = actions_of(module)[0]
    path = sampled(shaken, tmp_path / "a", "interpolate=[3,9]", "n=3", f"action={name}", "gif_clips=2")
    ends = module.sample([3, 9], labels=module.condition.find([name, name])).positions.numpy()
    np.testing.assert_allclose(path["clips"][[0, -1]], ends, atol=1e-4)
    assert path["labels"].tolist() == [name] * 3
    free = sampled(shaken, tmp_path / "b", "interpolate=[3,9]", "n=3", "gif_clips=0")
    assert "labels" not in free
    np.testing.assert_allclose(free["clips"][[0, -1]], module.sample([3, 9]).positions.numpy(), atol=1e-4)


def bone_variation(clips: np.ndarray, module: MotionDiffusion) -> float:
    """By how many metres the length of a bone varies in a clip, at most."""
    child, parent = map(list, zip(*module.skeleton.bones, strict=True))
    lengths = np.linalg.norm(clips[:, :, child] - clips[:, :, parent], axis=-1)
    return float((lengths.max(axis=1) - lengths.min(axis=1)).max())


def test_bones_are_rigid_unless_told_otherwise(shaken: Path, tmp_path: Path) -> None:
    """In all ways to come to new clips; what is inverted is compared with its source, and left as it is."""
    module = load(shaken)
    given = ("n=2", "gif_clips=0")
    clips = {how: sampled(shaken, tmp_path / how, *given, f"project={how}")["clips"] for how in ("null", "bones", "none")}
    assert module.project == "bones"
    np.testing.assert_array_equal(clips["null"], clips["bones"])
    assert bone_variation(clips["bones"], module) < 1e-5 and bone_variation(clips["none"], module) > 1e-3
    source = f"source={tmp_path / 'none' / 'clips.npz'}"
    for i, mode in enumerate((["interpolate=[1,2]"], [source, "vary=0.5"])):
        found = [sampled(shaken, tmp_path / f"{i}{how}", *given, *mode, f"project={how}")["clips"] for how in ("null", "none")]
        assert bone_variation(found[0], module) < 1e-5 and bone_variation(found[1], module) > 1e-3
    inverted = sampled(shaken, tmp_path / "inverted", *given, source, "invert=10")
    assert bone_variation(inverted["clips"], module) > 1e-3 and "labels" not in inverted


@pytest.mark.parametrize("overrides", [["sampler.steps=1"], ["sampler.steps=2", "sampler.spacing=trailing"]])
def test_bones_are_rigid_after_a_few_calls_too(shaken: Path, tmp_path: Path, overrides: list[str]) -> None:
    """Also where the sampler ends before the noise at which they are made rigid."""
    clips = sampled(shaken, tmp_path, "sampler=unipc", "n=2", "project=bones", *overrides)["clips"]
    assert bone_variation(clips, load(shaken)) < 1e-5


def test_an_unknown_action_is_named_with_those_there_are(run: Path, tmp_path: Path) -> None:
    known = ", ".join(actions_of(load(run)))
    for action in ("moonwalk", f"[{known.partition(',')[0]},moonwalk]"):
        with pytest.raises(ValueError, match=f"^action=moonwalk: the model knows {known}$"):
            sampled(run, tmp_path / "out", f"action={action}")
    with pytest.raises(ValueError, match=r"action=\[\] must name at least one action"):
        sampled(run, tmp_path / "out", "action=[]")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("action", ["5", "true"])
def test_a_name_that_looks_like_a_number_is_a_name(run: Path, tmp_path: Path, action: str) -> None:
    with pytest.raises(ValueError, match="the model knows"):
        sampled(run, tmp_path, f"action={action}")


def test_a_model_without_labels_knows_no_actions(unlabelled: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="action=walk: this model knows no actions, it was trained without labels"):
        sampled(unlabelled, tmp_path / "out", "action=walk")
    with pytest.raises(ValueError, match=r"guidance=2\.0: this model has no condition"):
        sampled(unlabelled, tmp_path / "out", "guidance=2")
    assert not (tmp_path / "out").exists()
    got = sampled(unlabelled, tmp_path / "out", "n=2", "gif_clips=2")
    assert "labels" not in got and got["seeds"].tolist() == [0, 1]
    same = sampled(unlabelled, tmp_path / "same", "n=2", "guidance=1", "gif_clips=0")
    np.testing.assert_array_equal(same["clips"], got["clips"])


# --- sources


def write(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_bad_sources_are_named(run: Path, tmp_path: Path) -> None:
    good = np.zeros((2, 8, 20, 3), np.float32)
    for path, extra, named in (
        (tmp_path / "missing.npz", [], r"missing\.npz"),
        (write(tmp_path / "other.npz", poses=good), [], "clips"),
        (write(tmp_path / "joints.npz", clips=good[:, :, :19]), [], "20"),
        (write(tmp_path / "nan.npz", clips=good * np.nan), [], "no position"),
        (write(tmp_path / "few.npz", clips=good), ["source_clip=2"], "source_clip=2"),
    ):
        with pytest.raises(DataError, match=named):
            sampled(run, tmp_path / "out", f"source={path}", "vary=0.5", "n=1", *extra)


def test_a_source_may_have_another_rate_other_names_and_any_place(run: Path, tmp_path: Path) -> None:
    """A BVH file of a sampled clip at twice the rate, moved away: the same clip comes back, to the error of the file."""
    module = load(run)
    clip = module.sample([3]).positions[0].numpy()
    write_bvh(tmp_path / "clip.bvh", np.repeat(clip, 2, axis=0) + np.array([5, 0, -3]), module.skeleton, 2 * module.fps)
    got = read_source(str(tmp_path / "clip.bvh"), module.skeleton, module.fps, module.frames, 0, 1).positions
    assert got.shape == (1, 8, 20, 3) and got[0, 0, 0, [0, 2]].abs().max() < 1e-6
    still = clip - clip[:1, :1]  # the floor of the file is set anew
    assert np.linalg.norm(got[0].numpy() - got[0, :1, :1].numpy() - still, axis=-1).mean() < 0.05
    turned = read_source(str(tmp_path / "clip.bvh"), module.skeleton, module.fps, module.frames, 0, 1, True).positions[0]
    left, right = module.skeleton.across
    across = (turned[:, left] - turned[:, right]).sum(dim=(0, 1))
    assert across[0] > 0 and abs(across[2]) < 1e-4 * across[0], "as a model with loader.facing saw its clips"


def test_clips_go_out_as_bvh(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    got = sampled(run, tmp_path, "n=2", "gif_clips=0", "export=bvh")
    assert sorted(path.name for path in tmp_path.glob("*.bvh")) == ["clip_000.bvh", "clip_001.bvh"]
    back = read(tmp_path / "clip_001.bvh")
    assert back.fps == 20 and len(back.positions) == len(got["clips"][1])
    root = back.joints.index("hip_center")
    np.testing.assert_allclose(back.positions[:, root], got["clips"][1][:, 0], atol=1e-4)
    assert "left_hand" in caplog.text and "mm off on average" in caplog.text
    with pytest.raises(ConfigError, match="export=fbx"):
        sampled(run, tmp_path, "export=fbx")


def test_a_film_is_the_picture(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "mp4_bytes", lambda frames, fps: f"{frames.shape} {fps}".encode())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    sampled(run, tmp_path, "n=2", "gif_clips=1", "export=mp4")
    with Image.open(tmp_path / "clips.gif") as picture:
        assert (tmp_path / "clips.mp4").read_text() == f"{(picture.n_frames, picture.height, picture.width, 3)} 20.0"
    sampled(run, tmp_path / "v", f"source={tmp_path / 'clips.npz'}", "vary=0.5", "n=3", "gif_clips=0", "export=mp4")
    sampled(run, tmp_path / "w", f"source={tmp_path / 'clips.npz'}", "vary=0.5", "n=3", "gif_clips=3", "export=mp4")
    assert (tmp_path / "v" / "clips.mp4").read_text() == (tmp_path / "w" / "clips.mp4").read_text(), "all, and the source"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"export=mp4 needs imageio-ffmpeg: pip install 'pose-ddpm\[video\]'"):
        sampled(run, tmp_path, "n=2", "export=mp4")


@pytest.mark.parametrize("ending", ["csv", "glb"])
def test_clips_go_out_as_files(ending: str, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    sampled(run, tmp_path, "n=2", "gif_clips=0", f"export={ending}")
    assert sorted(path.name for path in tmp_path.glob(f"*.{ending}")) == [f"clip_000.{ending}", f"clip_001.{ending}"]
    assert f"clip_*.{ending}: 2 files" in caplog.text


def test_clips_go_out_as_a_page(run: Path, tmp_path: Path) -> None:
    """All of them, whatever the picture shows, and beside what they were made of."""
    sampled(run, tmp_path, "n=3", "gif_clips=0", "export=html", "seed=7")
    page = (tmp_path / "clips.html").read_text()
    assert [f"seed {seed}" in page for seed in (6, 7, 8, 9, 10)] == [False, True, True, True, False]
    sampled(run, tmp_path / "v", f"source={tmp_path / 'clips.npz'}", "vary=0.5", "n=2", "gif_clips=1", "export=html")
    page = (tmp_path / "v" / "clips.html").read_text()
    assert page.index('"the source"') < page.index("seed 0") < page.index("seed 1")
    with Image.open(tmp_path / "v" / "clips.gif") as picture:
        assert picture.width == 400, "the source and one of them"
    with pytest.raises(ConfigError, match=r"n=70000: a page of 33600000 numbers, at most 30000000"):
        sampled(run, tmp_path, "n=70000", "export=html")


@pytest.mark.parametrize("overrides", [["sampler=ddim"], []])
def test_steps_are_those_of_any_sampler(run: Path, tmp_path: Path, overrides: list[str]) -> None:
    few = sampled(run, tmp_path / "a", "n=1", "steps=3", "gif_clips=0", *overrides)["clips"]
    module = load(run)
    sampler = partial(ddim if overrides else unipc, steps=3)
    np.testing.assert_allclose(few, module.sample([0], sampler=sampler).positions.numpy(), atol=1e-6)


# --- progress


@pytest.mark.parametrize(
    ("sampler", "steps", "expected"), [(ddim, 7, (7, 7)), (heun, 9, (5, 9)), (unipc, None, (30, 30)), (ddpm, 31, (30, 30))]
)
def test_visits_and_calls_are_counted(sampler: Any, steps: int | None, expected: tuple[int, int]) -> None:
    alpha_bar = (1 - cosine(30)).cumprod(0).float()
    assert cost(lambda *a, **k: sampler(*a, steps=steps, **k), alpha_bar) == expected


def test_the_progress_bar_reaches_its_end(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = load(run)
    with progress_bar(module.sampler, module.diffusion.alpha_bar, 3, "sampling") as observer:
        bar = observer.__closure__[0].cell_contents
        module.sample(range(5), batch_size=2, observer=observer)
        assert bar.n == bar.total == 3 * cost(module.sampler, module.diffusion.alpha_bar).visits
    assert "sampling" in capsys.readouterr().err


# --- the data of a run


def test_a_run_finds_its_own_data(tiny_config: dict[str, Any]) -> None:
    synthetic = {
        "_target_": "datamodules.sets.synthetic.synthetic",
        "skeleton": tiny_config["skeleton"],
        "n": 30,
        "fps": 20.0,
        "seed": 0,
    }
    loader = {"_target_": "datamodules.pose.PoseDataModule", "_partial_": True, "frames": 8}
    data = own_data({"data": synthetic, "loader": loader}, {"n": 20})
    assert len(data.clips) == 20 and data.frames == 8
    with pytest.raises(ConfigError, match=r"data\.root.*fps"):
        own_data({"data": synthetic, "loader": loader}, {"root": "x"})


@pytest.mark.parametrize(
    "target", ["os.system", "pytorch_lightning.Trainer", "ddpm.viz.render.write_gif", "datamodules.sets.store.write_store", 7]
)
def test_a_checkpoint_cannot_name_other_code_as_its_data(target: Any) -> None:
    with pytest.raises(ConfigError, match="it may name no other code"):
        own_data({"data": {"_target_": target}, "loader": {"frames": 8}}, {})
    nested = {"_target_": "datamodules.sets.synthetic.synthetic", "skeleton": {"_target_": target}}
    with pytest.raises(ConfigError, match=r"data\.skeleton\._target_=.*no part of this project"):
        own_data({"data": nested, "loader": {"frames": 8}}, {})


# --- compare


def test_compare_writes_table_plot_and_picture(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    out = tmp_path / "cmp"
    arguments = ["samplers=[ddim,heun]", "steps=[2,4]", "n=40", "gif_clips=2", "gif_steps=4"]
    path = compare_script.compare(compose("compare", [f"ckpt={run}", f"out={out}", *arguments]))
    rows = list(csv.DictReader(path.open()))
    calls = [int(r["calls"]) for r in rows]
    assert [r["sampler"] for r in rows] == ["ddim", "ddim", "heun", "heun", "ddpm"]
    module = load(run)
    assert module.calls_at(0) == 2, "it is guided, which takes a call without the action too"
    assert calls == [2 * n for n in (2, 4, 1, 3, 40)]
    for row in rows:
        low, value, high = (float(row[f"frechet_pose{end}"]) for end in ("_low", "", "_high"))
        assert low <= value <= high and float(row["seconds_per_clip"]) > 0 and row["n"] == "40"
    assert caplog.text.count("Fréchet distance at n=40, 20 against ") == len(rows)
    assert Image.open(out / "quality.png").size == (2040, 930) and Image.open(out / "quality.gif").n_frames > 1
    assert (
        f"{out / 'quality.gif'}: the same noise, a row each: ddim 8, heun 6, ddpm 80 calls; steps=4 is nearest to gif_steps=4"
        in caplog.text
    )

    more = ["samplers=[unipc]", "steps=[2]", "gif_clips=0", "ancestral=false", f"out={tmp_path / 'more'}", f"beside={out}"]
    compare_script.compare(compose("compare", [f"ckpt={run}", *more, "n=40"]))
    with pytest.raises(ConfigError, match=r"its numbers are of n=40 clips, these of n=64, .* type n=40"):
        compare_script.compare(compose("compare", [f"ckpt={run}", *more, "n=64"]))
    for beside in (out, path):
        with pytest.raises(ConfigError, match="the new table would take the place of that one"):
            compare_script.compare(compose("compare", [f"ckpt={run}", *more[:-2], "n=40", f"out={out}", f"beside={beside}"]))
    path.write_text(path.read_text().replace(rows[0]["data"], "elsewhere"))
    with pytest.raises(ConfigError, match="other real clips than the"):
        compare_script.compare(compose("compare", [f"ckpt={run}", *more, "n=40"]))
    path.write_text("sampler,calls\nddim,5\n")
    with pytest.raises(ConfigError, match="no table of this version"):
        compare_script.compare(compose("compare", [f"ckpt={run}", *more, "n=40"]))


def test_the_picture_is_of_the_steps_nearest_to_those_asked_for(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    titles: list[str] = []
    draw = compare_script.draw_clips
    monkeypatch.setattr(compare_script, "draw_clips", lambda *a, **k: titles.extend(k["titles"]) or draw(*a, **k))
    arguments = ["samplers=[ddim,ddpm]", "steps=[2,4]", "n=32", "gif_clips=1", "ancestral=false", f"out={tmp_path}"]
    compare_script.compare(compose("compare", [f"ckpt={run}", *arguments]))
    assert titles == ["ddim 8, seed 0", "ddpm 8, seed 0"] and (tmp_path / "quality.gif").is_file()
    assert "a row each: ddim 8, ddpm 8 calls; steps=4 is nearest to gif_steps=10" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "named"),
    [(["n=8"], "n=8"), (["samplers=[]"], "samplers"), (["samplers=[euler]"], "euler"), (["steps=[0]"], "steps=0")],
)
def test_compare_names_bad_values(run: Path, tmp_path: Path, overrides: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        compare_script.compare(compose("compare", [f"ckpt={run}", f"out={tmp_path}", "ancestral=false", *overrides]))
    assert not list(tmp_path.iterdir())


def test_plot_quality_shows_every_curve(tmp_path: Path) -> None:
    def row(sampler: str, calls: int, value: float) -> dict[str, Any]:
        ends = {"": value, "_low": value - 0.5, "_high": value + 0.5, "_real": 0.3, "_real_low": 0.2, "_real_high": 0.4}
        distance = {f"frechet_pose{end}": number for end, number in ends.items()}
        others = {"jerk": 1.1, "jerk_real": 1.0, "recall_pose": float("nan")}
        return {"sampler": sampler, "n": 64, "calls": calls, "seconds_per_clip": calls / 100, **distance, **others}

    figure = plot_quality(tmp_path / "q.png", [row("a", 10, 2.0), row("a", 5, 3.0), row("b", 1000, 1.9)])
    calls, seconds, jerk = (axes for axes in figure.axes if axes.get_visible())
    assert [line.get_label() for line in calls.lines] == ["real clips", "a", "b"]
    assert calls.lines[1].get_xydata().tolist() == [[5, 3], [10, 2]], "sorted by calls"
    assert seconds.lines[1].get_xydata().tolist() == [[0.05, 3], [0.1, 2]]
    assert (calls.get_ylabel(), calls.get_xlabel(), jerk.get_ylabel()) == (
        "Fréchet distance of poses, n=64",
        "network calls",
        "jerk, of real",
    )
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "95 % of real clips",
        "real clips",
        "a",
        "95 % of the repeats",
        "b",
    ]
    figure.canvas.draw()
    ticks = [text.get_text() for axis in (calls.xaxis, seconds.xaxis) for text in axis.get_ticklabels(which="both")]
    assert {"10", "100", "1000", "0.1", "1"} <= set(ticks) and not any("10^" in text or "times" in text for text in ticks)
    boxes = [text.get_window_extent() for text in calls.xaxis.get_ticklabels() if text.get_text()]
    sides = np.array(sorted((box.x0, box.x1) for box in boxes))
    assert (sides[1:, 0] > sides[:-1, 1]).all(), "labels do not touch"
