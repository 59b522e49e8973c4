"""The examples run: scripts as from a shell, the notebook cell by cell."""

import ast
import json
import runpy
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ddpm
from datamodules.sets.synthetic import synthetic
from ddpm.clips import Clips
from ddpm.process.samplers import ddim
from tests.test_api import COUNTS, NAMES, checkpoint

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(tiny_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose model knows walk and bow, in the present directory, and six procedural clips as own.npz in a folder."""
    condition = {"_target_": "ddpm.process.condition.LabelCondition", "_partial_": True}
    path = checkpoint(tmp_path / "RUN", {**tiny_config, "condition": condition, "loader": {"facing": True}}, NAMES, COUNTS)
    people = synthetic(ddpm.load(path).skeleton, n=6, fps=20.0, seed=0)
    motions = torch.stack([people.recording(k)[:40] for k in range(6)])
    Clips.whole(motions, people.fps, people.skeleton).save(tmp_path / "own" / "own.npz")
    monkeypatch.chdir(tmp_path)
    return path


def example(name: str, *arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_they_are_short() -> None:
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert [path.stem for path in scripts] == ["compare_samplers", "edit_clip", "onnx_sampler", "own_folder"]
    for path in scripts:
        assert len(path.read_text().splitlines()) <= 40, path.name


def test_own_folder(run: Path, tmp_path: Path) -> None:
    example("own_folder.py", run, tmp_path / "own", 2, tmp_path / "out")
    tuned, before = ddpm.load(tmp_path / "out" / "own.safetensors"), ddpm.load(run)
    assert not np.allclose(tuned.sample(1).positions, before.sample(1).positions)
    with Image.open(tmp_path / "out" / "own.gif") as picture:
        assert picture.n_frames == 8


def test_compare_samplers(run: Path, tmp_path: Path) -> None:
    example("compare_samplers.py", run, tmp_path / "table.csv")
    table = np.genfromtxt(tmp_path / "table.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    assert len(table) == 16 and table["centimetres"][table["sampler"] == "ddim"][-1] < 1e-6, "T is 8: the same steps"


def test_edit_clip(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("edit_clip.py", run, tmp_path / "own" / "own.npz", ":10,-10:", tmp_path)
    edited, clip = Clips.load("edited.npz").positions, Clips.load("own/own.npz").positions[0]
    assert "50% of it kept" in capsys.readouterr().out
    np.testing.assert_allclose(edited[:, [0, 9, -10, -1]], clip[[0, 9, -10, -1]].expand(4, -1, -1, -1), atol=1e-6)


def test_onnx_sampler(run: Path, tmp_path: Path) -> None:
    """Its clips are those of ddim, evenly spaced, without guidance."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = ddpm.load(run)
    model.export(tmp_path / "model.onnx")
    example("onnx_sampler.py", tmp_path / "model.onnx", 2, 4, tmp_path / "found.npz", "walk")
    found = Clips.load(tmp_path / "found.npz", model.skeleton)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 20, 3, 8), dtype=np.float32))
    assert found.positions.shape == (2, 8, 20, 3) and found.fps == 20
    cond = model.conditions(range(2), model.find_labels("walk", 2))
    expected = model.generate(
        noise, lambda: noise, cond=cond, guidance=1.0, project=None, sampler=partial(ddim, steps=4, spacing="uniform")
    )
    np.testing.assert_allclose(found.positions, expected, atol=1e-4)


def test_the_tour(run: Path, tmp_path: Path) -> None:
    book = json.loads((EXAMPLES / "tour.ipynb").read_text())
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells), "stored without outputs"
    names: dict[str, Any] = {}
    shown = []
    for cell in cells:
        tree = ast.parse("".join(cell["source"]).replace('"pretrained"', repr(str(run))))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "tour", "exec"), names)
        if last is not None:
            shown.append(eval(compile(ast.Expression(last.value), "tour", "eval"), names))
    pages = [clips._repr_html_() for clips in shown if isinstance(clips, Clips)]
    assert len(pages) == 5 and all(page.startswith("<iframe srcdoc=") and "<script" not in page for page in pages)
    assert {path.name for path in tmp_path.glob("tour*")} >= {"tour.gif", "tour_001.glb", "tour.safetensors"}
