"""The commands that open a checkpoint: sample.py in all its ways, and compare.py."""

import csv
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import compare as compare_script
import sample as sample_script
from callbacks.bvh import write_bvh
from callbacks.plots import plot_quality
from datamodules.clips import DataError
from datamodules.readers.bvh import read
from ddpm.build import ConfigError
from ddpm.checkpoint import load_module
from ddpm.inference import cost, own_data, progress
from ddpm.samplers import ddim, ddpm, heun, unipc
from ddpm.schedules import cosine
from tests.configs import compose
from tests.test_train import SMALL, command


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on 48 clips."""
    where = tmp_path_factory.mktemp("user")
    done = command("train.py", *SMALL, "T=40", "out=run", "~callbacks.skeleton_gif", cwd=where)
    assert done.returncode == 0, done.stderr
    return where / "run"


def sampled(run: Path, out: Path, *overrides: str) -> dict[str, np.ndarray]:
    path = sample_script.sample(compose("sample", [f"ckpt={run}", f"out={out}", *overrides]))
    assert path == out / "clips.npz"
    with np.load(path, allow_pickle=False) as content:
        return {key: content[key] for key in content.files}


def test_interpolation_starts_and_ends_at_its_seeds(run: Path, tmp_path: Path) -> None:
    path = sampled(run, tmp_path / "a", "interpolate=[3,9]", "n=4", "gif_clips=0")
    module = load_module(run)
    ends = module.sample([3, 9]).numpy()
    assert "seeds" not in path and path["clips"].shape == (4, 8, 20, 3)
    np.testing.assert_allclose(path["clips"][[0, -1]], ends, atol=1e-4)
    assert np.abs(path["clips"][1] - ends).max() > 1e-5


def test_variation_goes_from_the_clip_to_any_clip(run: Path, tmp_path: Path) -> None:
    sampled(run, tmp_path / "source", "n=2", "seed=50", "gif_clips=0")
    source = f"source={tmp_path / 'source' / 'clips.npz'}"
    clip = np.load(tmp_path / "source" / "clips.npz")["clips"][1]
    got = sampled(run, tmp_path / "out", source, "source_clip=1", "vary=0.5", "n=6", "gif_clips=2")
    assert got["clips"].shape == (6, 8, 20, 3) and got["seeds"].tolist() == [0, 1, 2, 3, 4, 5]
    assert Image.open(tmp_path / "out" / "clips.gif").n_frames == 8

    # After so few steps the network says the same of any noise: the answers for standard normal clips take its place.
    module = load_module(run)
    module.diffusion.eps_model.forward = lambda xt, t, cond: module.diffusion.alpha_bar[t][:, None, None, None].sqrt() * xt
    off = {
        strength: (
            sample_script.vary(module, torch.from_numpy(clip), strength, range(6), module.sampler, 4) - torch.from_numpy(clip)
        )
        .norm(dim=-1)
        .mean()
        for strength in (0.05, 0.5, 1.0)
    }
    assert off[0.05] < 0.5 * off[0.5] and off[0.5] < 0.9 * off[1.0]


def test_inversion_is_undone_by_sampling(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The noise in the file is that from which DDIM with as many calls samples the clips in the file."""
    caplog.set_level("INFO")
    got = sampled(run, tmp_path / "a", "source=val", "invert=40", "n=3", "gif_clips=1")
    assert "cm off on average" in caplog.text
    assert got["noise"].shape == (3, 20, 3, 8) and got["clips"].shape == (3, 8, 20, 3)
    module = load_module(run)
    noise = torch.from_numpy(got["noise"])
    again = module.generate(noise, lambda: noise, sampler=lambda *a, **k: ddim(*a, steps=40, **k))
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
    ],
)
def test_bad_values_are_named_before_anything_is_loaded(overrides: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        sample_script.sample(compose("sample", ["ckpt=missing.ckpt", *overrides]))


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
    module = load_module(run)
    clip = module.sample([3])[0].numpy()
    write_bvh(tmp_path / "clip.bvh", np.repeat(clip, 2, axis=0) + np.array([5, 0, -3]), module.skeleton, 2 * module.fps)
    cfg = compose("sample", [f"ckpt={run}", f"source={tmp_path / 'clip.bvh'}", "vary=0.5"])
    got = sample_script.read_source(cfg, module, {})
    assert got.shape == (1, 8, 20, 3) and got[0, 0, 0, [0, 2]].abs().max() < 1e-6
    still = clip - clip[:1, :1]  # the floor of the file is set anew
    assert np.linalg.norm(got[0].numpy() - got[0, :1, :1].numpy() - still, axis=-1).mean() < 0.05


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


@pytest.mark.parametrize("overrides", [["sampler=ddim"], []])
def test_steps_are_those_of_any_sampler(run: Path, tmp_path: Path, overrides: list[str]) -> None:
    few = sampled(run, tmp_path / "a", "n=1", "steps=3", "gif_clips=0", *overrides)["clips"]
    module = load_module(run)
    sampler = partial(ddim if overrides else unipc, steps=3)
    np.testing.assert_allclose(few, module.sample([0], sampler=sampler).numpy(), atol=1e-6)


# --- progress


@pytest.mark.parametrize(
    ("sampler", "steps", "expected"), [(ddim, 7, (7, 7)), (heun, 9, (5, 9)), (unipc, None, (30, 30)), (ddpm, 31, (30, 30))]
)
def test_visits_and_calls_are_counted(sampler: Any, steps: int | None, expected: tuple[int, int]) -> None:
    alpha_bar = (1 - cosine(30)).cumprod(0).float()
    assert cost(lambda *a, **k: sampler(*a, steps=steps, **k), alpha_bar) == expected


def test_the_progress_bar_reaches_its_end(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = load_module(run)
    with progress(module.sampler, module.diffusion.alpha_bar, 3, "sampling") as observer:
        bar = observer.__closure__[0].cell_contents
        module.sample(range(5), batch_size=2, observer=observer)
        assert bar.n == bar.total == 3 * cost(module.sampler, module.diffusion.alpha_bar).visits
    assert "sampling" in capsys.readouterr().err


# --- the data of a run


def test_a_run_finds_its_own_data(tiny_config: dict[str, Any]) -> None:
    synthetic = {
        "_target_": "datamodules.synthetic.synthetic",
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


@pytest.mark.parametrize("target", ["os.system", "pytorch_lightning.Trainer", "callbacks.render.write_gif", 7])
def test_a_checkpoint_cannot_name_other_code_as_its_data(target: Any) -> None:
    with pytest.raises(ConfigError, match="neither makes nor serves clips"):
        own_data({"data": {"_target_": target}, "loader": {"frames": 8}}, {})
    nested = {"_target_": "datamodules.synthetic.synthetic", "skeleton": {"_target_": target}}
    with pytest.raises(ConfigError, match=r"data\.skeleton.*neither"):
        own_data({"data": nested, "loader": {"frames": 8}}, {})


# --- compare


def test_compare_writes_table_plot_and_picture(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    out = tmp_path / "cmp"
    arguments = ["samplers=[ddim,heun]", "steps=[2,4]", "n=40", "gif_clips=2", "gif_steps=4"]
    path = compare_script.compare(compose("compare", [f"ckpt={run}", f"out={out}", *arguments]))
    rows = list(csv.DictReader(path.open()))
    assert [(r["sampler"], int(r["calls"])) for r in rows] == [
        *(("ddim", 2), ("ddim", 4), ("heun", 1), ("heun", 3), ("ddpm", 40)),
    ]  # fmt: skip
    for row in rows:
        assert float(row["low"]) <= float(row["frechet_kinetic"]) <= float(row["high"]) and float(row["seconds_per_clip"]) > 0
    assert "real clips against real clips" in caplog.text
    assert Image.open(out / "quality.png").size == (1380, 600) and Image.open(out / "quality.gif").n_frames > 1


@pytest.mark.parametrize(
    ("overrides", "named"),
    [(["n=8"], "n=8"), (["samplers=[]"], "samplers"), (["samplers=[euler]"], "euler"), (["steps=[0]"], "steps=0")],
)
def test_compare_names_bad_values(run: Path, tmp_path: Path, overrides: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        compare_script.compare(compose("compare", [f"ckpt={run}", f"out={tmp_path}", "ancestral=false", *overrides]))
    assert not list(tmp_path.iterdir())


def test_plot_quality_shows_every_curve(tmp_path: Path) -> None:
    curves = {"a": [(10, 0.1, (2.0, 1.5, 2.5)), (5, 0.05, (3.0, 2.5, 3.5))], "b": [(1000, 9.0, (1.9, 1.4, 2.4))]}
    figure = plot_quality(tmp_path / "q.png", curves, real=(0.3, 0.2, 0.4), ylabel="Fréchet distance")
    left, right = figure.axes
    assert [line.get_label() for line in left.lines] == ["a", "b", "real against real"]
    assert left.lines[0].get_xydata().tolist() == [[5, 3], [10, 2]], "sorted by calls"
    assert right.lines[0].get_xydata().tolist() == [[0.05, 3], [0.1, 2]]
    assert left.get_ylabel() == "Fréchet distance" and left.get_xlabel() == "network calls"
