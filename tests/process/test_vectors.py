"""A vector of every clip as a condition: standardised, hidden, drawn, given, and guidance where the answer is known."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datamodules.clip_set import ClipSet, Recording
from datamodules.pose import PoseDataModule
from datamodules.prepare import prepare
from datamodules.sets.folder import folder
from datamodules.sets.store import store, write_store
from datamodules.split import split_in_time
from ddpm import load
from ddpm.checkpoint_io import DurableCheckpointIO
from ddpm.errors import ConfigError, DataError
from ddpm.guide import Autoguidance
from ddpm.module import build_module
from ddpm.process.condition import VECTORS, VectorCondition, vector_statistics
from tests.skeletons import people, shipped

SKELETON = shipped("kinect20")
PART = {"_target_": "ddpm.process.condition.VectorCondition", "_partial_": True, "dropout": 0.1}
KNOWN = torch.tensor([[1.0, 10, 5], [3, 30, 5], [math.nan] * 3])


def condition(**changes: Any) -> VectorCondition:
    return VectorCondition(vector_statistics(KNOWN), **changes)


def test_vectors_are_standardised_and_an_unknown_one_is_not_zero() -> None:
    told = condition().encode(torch.cat([KNOWN, torch.tensor([[2.0, 20, 5]])]))
    assert told.tolist() == [[-1, -1, 0, 1], [1, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1]]


def test_training_hides_vectors_as_often_as_it_should() -> None:
    hidden = condition(dropout=0.25).hide(torch.zeros(20_000, 3)).isnan()
    assert (hidden.any(1) == hidden.all(1)).all() and abs(hidden[:, 0].double().mean() - 0.25) < 0.02


def test_a_drawn_vector_is_one_of_training_and_of_its_own_seed() -> None:
    many = torch.arange(9000.0)[:, None]
    told = VectorCondition(vector_statistics(many))
    assert len(told.bank) == VECTORS and {0.0, 8999.0} <= set(told.bank[:, 0].tolist())
    drawn = told.draw(range(50))
    assert torch.equal(drawn[7:9], told.draw([7, 8])) and len(drawn.unique()) > 40 and torch.isin(drawn, many).all()
    assert 0.2 < condition().draw(range(600)).isnan().any(1).double().mean() < 0.46


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (torch.zeros(4), r"shape \(1, 4\).*width 3.*\(5, 3\)"),
        (torch.zeros(2, 3), "2 vectors for 5 clips"),
        (torch.tensor([0, math.nan, 0]), "vector 0, element 1 is nan"),
    ],
)
def test_wrong_vectors_are_named(given: Tensor, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        condition().find(given, 5)


def test_guidance_needs_clips_without_a_vector() -> None:
    condition(dropout=0, guidance=2)  # one is unknown
    with pytest.raises(ValueError, match=r"condition\.guidance=2"):
        VectorCondition(vector_statistics(KNOWN[:2]), dropout=0, guidance=2)


class Told(nn.Module):
    """Answers with the sum of what it is told, wherever."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor, mask: Tensor | None = None) -> Tensor:
        return cond.sum(1).reshape(-1, *[1] * (x.ndim - 1)).expand_as(x)


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_the_network_is_told_the_vector_and_guidance_is_a_line(tiny_config: dict[str, Any], weight: float) -> None:
    config = {**tiny_config, "condition": PART | {"interval": None}}
    module = build_module(config, 15.0, vectors=vector_statistics(KNOWN)).eval()
    module.diffusion.eps_model = Told()
    cond = module.conditions(range(2), KNOWN[:2])
    xt = torch.randn(2, 20, 3, 8)
    found = module.denoiser(cond, weight, None)(xt, torch.tensor([3, 3])).x0_hat
    expected = weight * torch.tensor([-1.0, 3])  # of the sums -1, 3 and, unknown, 0
    torch.testing.assert_close(found, expected[:, None, None, None].expand_as(found))


def test_a_model_keeps_its_vectors_in_the_checkpoint(tiny_config: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = {**tiny_config, "condition": PART}
    module = build_module(config, 15.0, vectors=vector_statistics(KNOWN)).eval()
    for weight in module.diffusion.eps_model.parameters():
        nn.init.normal_(weight, std=0.1)  # those of its last layer begin at 0
    module.fit({"clips": torch.randn(20, 20, 3, 8), "mask": None})
    content: dict[str, Any] = {"state_dict": module.state_dict(), "hyper_parameters": config}
    module.on_save_checkpoint(content)
    DurableCheckpointIO().save_checkpoint(content, tmp_path / "a.ckpt")
    loaded = load(tmp_path / "a.ckpt")
    assert torch.equal(loaded.sample(4).positions, module.sample(4).positions)
    one = loaded.sample(4, condition=KNOWN[0])
    assert one.labels is None and torch.equal(one.positions, loaded.sample(4, condition=KNOWN[[0] * 4]).positions)
    assert not torch.equal(one.positions, loaded.sample(4, condition=KNOWN[1]).positions)
    with pytest.raises(ValueError, match="knows no actions"):
        loaded.sample(1, action="walk")
    with pytest.raises(ValueError, match="trained without vectors"):
        build_module(tiny_config, 15.0).find_vectors(KNOWN[0], 1)
    with pytest.raises(ValueError, match="cannot be combined"):
        loaded.sample(1, condition=KNOWN[0], labels=KNOWN[:1])
    worse = load(tmp_path / "a.ckpt")
    assert loaded.sample(1, guidance=Autoguidance(worse, 2.0)).positions.isfinite().all()
    worse.condition.std = 2 * worse.condition.std
    with pytest.raises(ValueError, match=r"guide: .*other data"):
        loaded.sample(1, guidance=Autoguidance(worse, 2.0))


def test_data_without_vectors_and_another_width_are_named(tiny_config: dict[str, Any]) -> None:
    config = {**tiny_config, "condition": PART}
    with pytest.raises(ConfigError, match="condition=vectors: the training recordings have no vectors"):
        build_module(config, 15.0)
    config["model"] = {**config["model"], "clip_dim": 7}
    with pytest.raises(ConfigError, match=r"model\.clip_dim=7.*width 3"):
        build_module(config, 15.0, vectors=vector_statistics(KNOWN))
    config["model"]["clip_dim"] = 3
    assert build_module(config, 15.0, vectors=vector_statistics(KNOWN)).condition is not None


# --- data


def clips_in(tmp_path: Path, *vectors: Any) -> Path:
    tmp_path.mkdir(exist_ok=True)
    for k, vector in enumerate(vectors):
        more = {} if vector is None else {"condition": np.asarray(vector, np.float32)}
        np.savez(tmp_path / f"{k}.npz", clips=people()[k], fps=20, joint_names=SKELETON.names, **more)
    return tmp_path


def test_vectors_go_from_files_into_store_and_batch(tmp_path: Path) -> None:
    clips = folder(SKELETON, str(clips_in(tmp_path / "", [1, 2], None, [[3, 4]])))
    kept = write_store(clips.recordings(), tmp_path / "s", fps=20, skeleton=SKELETON)
    for found in (clips, kept, store(SKELETON, str(tmp_path / "s"))):
        assert found.conditions is not None and found.conditions.nan_to_num(-1).tolist() == [[1, 2], [-1, -1], [3, 4]]
        data = PoseDataModule(found, 16, batch_size=3, split="sequence", val_fraction=0)
        batch = data.windows.__getitems__(torch.tensor([[2, 0], [1, 5]]))
        assert batch["conditions"].nan_to_num(-1).tolist() == [[3, 4], [-1, -1]]
        vectors = data.vectors()
        assert vectors is not None and vector_statistics(vectors)["mean"].shape == (2,)
    later = split_in_time(clips, 0.25)[0].conditions
    assert later is not None and later[3:].nan_to_num(-1).tolist() == clips.conditions.nan_to_num(-1).tolist()  # type: ignore


def test_another_vector_is_another_data_set(tmp_path: Path) -> None:
    """And without vectors the fingerprint is that of the motion alone; a store says the same as the files."""
    said = [None, [1, 2], [1, 3]]
    sets = [folder(SKELETON, str(clips_in(tmp_path / str(k), vector, vector))) for k, vector in enumerate(said)]
    prints = [found.fingerprint() for found in sets]
    assert len(set(prints)) == 3 and replace(sets[1], conditions=None).fingerprint() == prints[0]
    kept = write_store(sets[1].recordings(), tmp_path / "s", fps=20, skeleton=SKELETON)
    assert kept.fingerprint() == store(SKELETON, str(tmp_path / "s")).fingerprint() == prints[1]


def test_a_recording_that_is_cut_keeps_its_vector() -> None:
    motion = people()[0].copy()
    motion[len(motion) // 2 :, :, 0] += 5  # a jump
    clips = prepare([Recording(motion, "a", condition=np.array([1, 2], np.float32))], SKELETON, name="a", fps=20)
    assert len(clips) == 2 and clips.conditions is not None and clips.conditions.tolist() == [[1, 2], [1, 2]]


@pytest.mark.parametrize(
    ("vectors", "named"),
    [
        (([1, 2], [1, 2, 3]), r"1\.npz: condition has the width 3, and in 0\.npz 2"),
        (([1, math.nan],), r"0\.npz: condition, element 1 is nan"),
        (([[1, 2], [3, 4]],), r"0\.npz: condition must be .*\(1, width\).*\(2, 2\)"),
    ],
)
def test_files_with_unusable_vectors_are_named(tmp_path: Path, vectors: tuple, named: str) -> None:
    with pytest.raises(DataError, match=named):
        folder(SKELETON, str(clips_in(tmp_path, *vectors)))


def test_without_vectors_a_batch_is_as_before() -> None:
    clips = ClipSet.from_recordings([Recording(m, str(k)) for k, m in enumerate(people())], fps=20, skeleton=SKELETON)
    data = PoseDataModule(clips, 16, split="sequence", val_fraction=0)
    assert clips.conditions is data.vectors() is None
    assert set(data.windows.__getitems__(torch.tensor([[0, 0]]))) == {"clips", "mask", "labels"}
