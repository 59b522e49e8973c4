"""benchmarks/quality.py without the packages of the peers: the transformer of MDM, its training, and what is measured."""

import argparse
import functools
import json
from pathlib import Path

import pytest
import torch

from benchmarks import quality
from benchmarks.peers import mdm, train_peer
from datamodules.pose import PoseDataModule
from datamodules.sets.synthetic import synthetic
from ddpm.metrics import degraded
from ddpm.metrics.reference import reference
from tests.datamodules.test_msr_action3d import SKELETON

FRAMES = 24
TINY = {"width": 16, "layers": 1, "heads": 2, "feedforward": 16}


@pytest.fixture(scope="module")
def data() -> PoseDataModule:
    """Made-up motion; some recordings are shorter than a window."""
    return PoseDataModule(synthetic(SKELETON, 160, 20.0, 0), FRAMES)


def test_the_transformer_of_mdm_is_asked_as_often_as_it_is_told_to() -> None:
    torch.manual_seed(0)
    peer, asked = mdm(6, 8, **TINY), []
    peer.network.register_forward_hook(lambda module, given, answer: asked.append(int(given[1][0])))
    x, mask = torch.randn(3, 6, 8), (torch.arange(8) < 5).float().expand(3, 1, 8)
    assert peer.network(x, torch.tensor([0, 10, 999])).shape == x.shape
    assert all(peer.loss(x, some).isfinite() for some in (mask, None))
    asked.clear()
    with torch.no_grad():
        assert peer.sample(2, 5).shape == (2, 6, 8) and asked == [999, 749, 500, 250, 0]
        assert peer.sample(2, 1000).isfinite().all() and len(asked) == 5 + 1000


def test_mdm_of_the_paper_has_its_size() -> None:
    assert 17e6 < sum(p.numel() for p in mdm(60, 32).network.parameters()) < 18e6


def test_padding_does_not_count_in_the_loss_of_mdm() -> None:
    peer = mdm(6, 8, **TINY)
    torch.nn.init.zeros_(peer.network.out.weight)
    torch.nn.init.ones_(peer.network.out.bias)
    mask = (torch.arange(8) < 5).float().expand(3, 1, 8)
    assert peer.loss(torch.where(mask > 0, 0.0, 100.0).expand(3, 6, 8), mask).item() == 1.0


def test_a_peer_is_stopped_by_the_clock_and_samples_metres(data: PoseDataModule) -> None:
    trained = train_peer(functools.partial(mdm, **TINY), data, 0.3, seed=0)
    assert trained.steps > 0 and 0.3 <= trained.seconds < 5
    clips, calls = trained.sample(3, 4)
    assert clips.shape == (3, FRAMES, 20, 3) and calls == 4
    assert torch.equal(clips, trained.sample(3, 4)[0])


@pytest.mark.slow
def test_real_clips_are_at_the_floor_and_the_rest_is_written(
    data: PoseDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = reference(data, "all").clips
    real = real.take(torch.randperm(len(real), generator=torch.Generator().manual_seed(0))[:240])
    for name, motions in (
        ("real", real),
        ("frozen", degraded.frozen(real)),
        ("unknown", degraded.noisy(real, torch.Generator())),
    ):
        motions.save(tmp_path / name / "clips.npz")
    for minutes, name in ((2.0, "real"), (5.0, "frozen")):
        about = {"label": name, "minutes": minutes, "calls": 10, "seed": 0, "parameters": 2000000}
        (tmp_path / name / "run.json").write_text(json.dumps(about))
    monkeypatch.setattr(quality, "load", lambda root: data)
    quality.measure(argparse.Namespace(root=tmp_path, runs=[tmp_path], out=tmp_path, threads=1))

    found = {run["label"]: run for run in json.loads((tmp_path / "quality.json").read_text())}
    assert set(found) == {"real", "frozen", "unknown"} and (tmp_path / "quality.png").stat().st_size > 10000
    for name in quality.ROWS:
        floor, value = found["real"]["metrics"][name]["real"], found["real"]["metrics"][name]["generated"]
        assert len(floor) == len(value)
        if name.startswith("frechet"):
            assert value[0] < floor[2] and found["frozen"]["metrics"][name]["real"] == floor
        elif name.startswith(("precision", "recall")):
            assert value[0] > floor[1]
        elif name not in ("closer than held out", "suspected copies"):  # most of these clips are those of training
            assert value[0] == pytest.approx(floor[0], rel=0.15)
    frozen = found["frozen"]["metrics"]
    assert frozen["frechet/kinetic"]["generated"][0] > 20 * frozen["frechet/kinetic"]["real"][2]
    assert frozen["speed over real"]["generated"][0] == 0
    assert "calls" not in found["unknown"]
    printed = capsys.readouterr().out
    assert "2.00 M" in printed and all(name in printed for name in (*quality.ROWS, "unknown"))
