"""evaluate.py, from a checkpoint and from anybody's clips."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import evaluate as evaluate_script
import sample  # noqa: F401
import train as train_script
from datamodules.pose import PoseDataModule
from datamodules.sets.synthetic import synthetic
from ddpm.clips import Clips
from ddpm.errors import ConfigError, DataError
from ddpm.files import write_json
from ddpm.metrics import degraded, sampler_table, suite
from ddpm.metrics.reference import full_recordings, held_out, reference
from ddpm.metrics.text import lines, number
from ddpm.metrics.verdict import findings, floors, is_far, steps_trained
from ddpm.skeleton import Skeleton
from ddpm.viz.report import write_report
from tests.commands.test_train import small
from tests.configs import compose

DATA = ["data=synthetic", "data.n=100"]


def judged(out: Path, *overrides: str) -> dict[str, Any]:
    """metrics.json, which must be JSON in the strict sense."""
    path = evaluate_script.evaluate(compose("evaluate", [f"out={out}", *overrides]))
    assert path == out / "metrics.json"

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train_script.train(small(out, "trainer.max_epochs=1", "data.n=64", "loader.split=subject"))
    return out


def real_clips(skeleton: Skeleton, frames: int = 16) -> Clips:
    """The middles of the recordings of `DATA`."""
    data = PoseDataModule(synthetic(skeleton, 100, 20.0, 0), frames)
    index = torch.stack([torch.arange(100), (data.clips.lengths - frames) // 2], dim=1)
    return Clips.from_batch(data.windows.__getitems__(index)["clips"], None, fps=20.0, skeleton=skeleton)


def written(path: Path, motions: Clips, **arrays: Any) -> str:
    np.savez(path, clips=motions.positions.numpy(), **arrays)
    return f"clips={path}"


def test_a_checkpoint_is_judged_completely_and_alike_each_time(run: Path, tmp_path: Path) -> None:
    arguments = [f"ckpt={run}", "n=32", "fast=true", "device=cpu", "report=false"]
    found = judged(tmp_path / "a", *arguments)
    assert judged(tmp_path / "b", *arguments) == found
    assert judged(tmp_path / "c", *arguments, "seed=7")["metrics"] != found["metrics"]
    assert found["seeds"] == [0, 31] and found["sampler"]["_target_"] == "ddpm.process.samplers.unipc"
    assert found["data"]["reference"] == "held_out" and found["data"]["recordings"] == 64
    assert len(found["data"]["sha256"]) == 64 and {"torch", "numpy", "python"} <= found["versions"].keys()
    n = found["clips"]["reference"]
    assert n >= 64 and found["clips"] == {"generated": 32, "reference": n, "generated_compared": 16, "reference_compared": n // 2}
    assert {"frechet/kinetic", "frechet/pose", "physics/jerk", "freeze"} <= found["metrics"].keys()
    for metric in found["metrics"].values():
        assert metric["generated"]["low"] <= metric["generated"]["high"] and metric["real"]["value"] is not None
    assert found["memorisation"]["median"]["held_out"] > 0
    assert found["steps"] < 100 and [w["name"] for w in found["warnings"]] == ["short"], "it can only be called untrained"
    assert steps_trained(20, {"overrides": ["finetune=RUN", "T=8"]}) is None, "what began with a trained model may be judged"


def test_real_clips_score_like_the_floor_and_the_page_stands_alone(
    skeleton: Skeleton, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    clips = written(tmp_path / "real.npz", real_clips(skeleton), fps=20.0, joint_names=np.array(skeleton.names))
    found = judged(tmp_path / "out", clips, *DATA)
    for name, metric in found["metrics"].items():
        assert metric["degraded"].keys() == {"frozen", "shuffled_frames", "noisy_1cm", "mean_pose", "gaussian"}
        if metric["better"] == "lower":
            assert metric["generated"]["value"] <= metric["real"]["high"], name
    assert [w["name"] for w in found["warnings"]] == ["copies"], "most of them are clips of training"
    assert found["seeds"] is None and "WARNING: clips look copied from training" in caplog.text
    assert "worse than real clips: 0 of 31" in caplog.text
    compared = f"{found['clips']['generated_compared']} against {found['clips']['reference_compared']}"
    table = next(record.getMessage() for record in caplog.records if "frechet/pose" in record.getMessage()).splitlines()
    assert table[0].startswith(f"Fréchet distance at n=100, {compared} in a repeat: poses") and table[3].startswith(
        "bones vary by"
    )
    assert max(map(len, table)) <= 120 and "pfc: physical foot contact score" in "\n".join(table)
    jerk = next(line for line in table if "distance in jerk" in line).split()
    assert [float(x) for x in jerk[-2:]] == pytest.approx(list(found["means"]["jerk"].values()), rel=5e-3), "both means"
    assert max(len(line) for line in caplog.text.splitlines() if "frechet" in line.lower()) <= 120 + 40, "with the log's prefix"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "frechet/pose n=100" in page and "<b>pfc</b>: physical foot contact score" in page
    assert "<b>copies</b>: clips look copied" in page and "Nothing freezes" not in page
    assert "http" not in page and "<script" not in page and page.count("<iframe") == 1
    assert page.count("data:image/png;base64,") == 6 and page.count("data:image/gif;base64,") == 3
    assert 100_000 < len(page) < 5_000_000
    assert found["classifier"]["tested"] >= 10 and "Which actions a classifier sees" in page
    assert "frechet/classifier" not in found["metrics"], "what it learned from is no reference for it"


def test_millimetres_are_not_taken_for_metres(skeleton: Skeleton, tmp_path: Path) -> None:
    """Nor one joint for another where a file has another order."""
    real, options = real_clips(skeleton), (*DATA, "fast=true", "training=0", "report=false")
    found = judged(tmp_path / "m", written(tmp_path / "m.npz", real), *options)
    order = torch.arange(19, -1, -1)
    clips = 1000 * real.positions[:, :, order].numpy()
    np.savez(tmp_path / "mm.npz", clips=clips, units="mm", joint_names=np.array(skeleton.names)[order], fps=20.0)
    again = judged(tmp_path / "mm", f"clips={tmp_path / 'mm.npz'}", *options)
    for name in ("frechet/kinetic", "frechet/pose", "physics/speed", "physics/bone_variation"):
        value, expected = (result["metrics"][name]["generated"]["value"] for result in (again, found))
        assert value == pytest.approx(expected, rel=1e-3, abs=1e-6), name


def test_the_interval_that_decides_a_flag_is_in_its_row(skeleton: Skeleton) -> None:
    """Also where disjoint people differ more than halves of the clips do."""
    real = real_clips(skeleton)
    worse = real.replace(real.positions + 0.02 * torch.randn(real.positions.shape, generator=torch.Generator().manual_seed(0)))
    found = suite.evaluate(worse, real, subjects=[f"s{k % 7}" for k in range(100)], fast=True)
    metric = found.metrics["physics/jerk"]
    low, high = floors(metric)
    assert metric.by_subject is not None and high == max(metric.real.high, metric.by_subject.high) and low <= metric.real.low
    assert is_far(metric) == (metric.generated.low > high) and is_far(metric)
    row = next(line for line in lines(found) if "distance in jerk" in line)
    assert row.startswith("!") and f"{number(low)}..{number(high)}" in row
    assert f"{number(metric.generated.low)}..{number(metric.generated.high)}" in row


def test_a_single_pose_is_called_frozen(skeleton: Skeleton, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips = written(tmp_path / "mean.npz", degraded.mean_pose(real_clips(skeleton)))
    found = judged(tmp_path / "out", clips, *DATA, "fast=true", "training=0", "report=false")
    assert [w["name"] for w in found["warnings"]] == ["frozen", "collapsed"] and "motion freezes: 100 %" in caplog.text
    assert found["memorisation"] is None and "classifier" not in found, "none in a fast evaluation"


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ([], "ckpt=RUN"),
        (["clips=x.npz"], "data=GROUP"),
        (["ckpt=x", "n=8"], "n=8"),
        (["ckpt=x", "reference=some"], "reference=some"),
        (["ckpt=x", "loader.seed=3"], "loader"),
        (["ckpt=x", "data=synthetic"], "data=GROUP"),
    ],
)
def test_bad_values_are_named_before_anything_is_loaded(overrides: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        evaluate_script.evaluate(compose("evaluate", overrides))


def test_one_joint_is_measured_and_reported(tmp_path: Path) -> None:
    """A body without bones has no bone_variation, and everything else: table, findings, page, and a row of compare.py."""
    point = Skeleton({"root": None})
    motion = torch.randn(80, 16, 1, 3, generator=torch.Generator().manual_seed(0)).double().cumsum(1) / 100
    mine, real = (Clips.whole(clips, 20.0, point) for clips in motion.split(40))
    found = suite.evaluate(mine, real, fast=True)
    assert "bone_variation" not in found.means and {"speed", "jerk"} <= found.means.keys()
    assert any("kinetic" in line for line in lines(found))
    write_report(tmp_path / "report.html", "point", "lead", found, findings(found), mine, real, None, {})
    assert "<html" in (tmp_path / "report.html").read_text()
    row = sampler_table.row("ddim", 5, 0.1, found, "digest")
    assert math.isnan(row["bone_variation"]) and math.isfinite(row["jerk"])


def test_units_and_names_of_anybodys_clips_change_nothing(skeleton: Skeleton, tmp_path: Path) -> None:
    real = real_clips(skeleton)
    plain = judged(tmp_path / "plain", written(tmp_path / "a.npz", real), *DATA, "fast=true", "report=false")
    names = ["pelvis" if name == "hip_center" else name for name in skeleton.names[::-1]]
    other = real.replace(1000 * real.positions.flip(2))
    given = written(tmp_path / "b.npz", other, joint_names=names, units="millimeters", fps=20.0)
    again = judged(tmp_path / "again", given, *DATA, "fast=true", "report=false")
    for key, value in plain["means"].items():
        assert again["means"][key] == pytest.approx(value, rel=1e-4, abs=1e-6), key


def test_files_that_cannot_be_judged_are_named(skeleton: Skeleton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = real_clips(skeleton)
    monkeypatch.setattr(suite, "classifier_of", lambda *_: pytest.fail("the classifier is trained"))
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "poses.npz", poses=np.zeros(3))
    for clips, named in (
        (f"clips={tmp_path / 'missing.npz'}", "missing"),
        (f"clips={tmp_path / 'text.npz'}", "not a valid NumPy file"),
        (f"clips={tmp_path / 'poses.npz'}", r"holds \['poses'\], none of them clips"),
        (written(tmp_path / "fps.npz", real, fps=30.0), "30 frames per second"),
        (written(tmp_path / "labels.npz", real, labels=np.array(["fly"] * len(real))), "label 'fly' is no class"),
        (written(tmp_path / "names.npz", real, joint_names=np.array(["a"])), "joint_names holds 1 names for 20 joints"),
        (written(tmp_path / "lengths.npz", real, lengths=np.zeros(100, int)), "lengths must be 100 whole numbers from 1 to 16"),
    ):
        with pytest.raises(ValueError, match=named):
            judged(tmp_path / "out", clips, *DATA)
    with pytest.raises(DataError, match="units 'px' are no length"):
        judged(tmp_path / "out", written(tmp_path / "pixels.npz", real, units="px"), *DATA)
    np.savez(tmp_path / "few.npz", clips=real.positions.numpy()[:, :, :19])
    with pytest.raises(DataError, match="the skeleton has 20"):
        judged(tmp_path / "out", f"clips={tmp_path / 'few.npz'}", *DATA)


def test_the_reference_is_what_it_says(skeleton: Skeleton) -> None:
    clips = synthetic(skeleton, 150, 20.0, 0)
    few, many = PoseDataModule(clips, 16), PoseDataModule(clips, 16, val_fraction=0.5)
    everything = PoseDataModule(clips, 16, val_fraction=0)
    number = clips.lengths // 16
    assert reference(few).held_out == (int(number[few.val_recordings].sum()) >= 64)
    assert len(reference(few, "all").clips) == int(number.sum())
    assert reference(few, "held_out").held_out
    assert len(reference(few, "held_out").clips) == int(number[few.val_recordings].sum())
    assert reference(many).held_out and not reference(many, "all").held_out
    assert len(held_out(everything)) == 0 and not reference(everything).held_out
    with pytest.raises(ValueError, match="no recordings are held out"):
        reference(everything, "held_out")
    few.frames = 8  # they are up to 100 frames long, and pieces 64
    pieces = full_recordings(few, torch.arange(150))
    assert int(pieces.lengths.max()) == 64 and bool((pieces.lengths >= 8).all())
    held = (clips.lengths - 7).sum()
    assert (pieces.lengths - 7).sum() == held, "every window is in one of them"
    few.frames = 16
    recordings = full_recordings(few, few.train_recordings[:5])
    for k, i in enumerate(few.train_recordings[:5].tolist()):
        length = int(clips.lengths[i])
        torch.testing.assert_close(recordings.positions[k, :length].float(), clips.recording(i))


def test_too_little_to_compare_with_is_said_before_sampling(skeleton: Skeleton, tmp_path: Path) -> None:
    clips = written(tmp_path / "real.npz", real_clips(skeleton, 48), fps=20.0, joint_names=np.array(skeleton.names))
    with pytest.raises(
        DataError, match=r"at least 16 windows of 48 frames, as 768 frames .* the recordings hold 9;.*\(frames=\)"
    ):
        judged(tmp_path / "out", clips, "data=synthetic", "data.n=8", "loader.split=sequence")


@pytest.mark.parametrize("name", ["evaluate", "compare", "sample"])
def test_the_files_may_have_moved(name: str) -> None:
    assert compose(name, ["data.root=elsewhere"]).data == {"root": "elsewhere"}
    assert compose(name).data == {"root": None}, "as it was"


def test_the_fingerprint_is_of_the_motion(skeleton: Skeleton) -> None:
    a, again, b = (synthetic(skeleton, 30, 20.0, seed) for seed in (0, 0, 1))
    assert a.fingerprint() == again.fingerprint() != b.fingerprint()


def test_json_has_no_other_numbers(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": [float("nan"), 1.0, {"b": float("inf")}], "c": (1, None)})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, 1.0, {"b": None}], "c": [1, None]}
