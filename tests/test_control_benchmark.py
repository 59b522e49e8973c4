"""benchmarks/control.py: what is known is printed, and a picture is written."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.control import COLUMNS, guidance, plot, seams
from datamodules.pose import PoseDataModule
from datamodules.sets.synthetic import synthetic
from ddpm.module import build_module
from tests.datamodules.test_msr_action3d import SKELETON


@pytest.mark.slow
def test_rows_picture_and_seams(tiny_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = PoseDataModule(synthetic(SKELETON, 80, 20.0, 0), 8)
    condition = {"_target_": "ddpm.process.condition.LabelCondition", "_partial_": True}
    module = build_module({**tiny_config, "condition": condition}, 20.0, data.clips.class_names, data.label_counts())
    module.fit(data.statistics_batch())
    rows = list(guidance(module, data, 16, module))
    assert [row[:2] for row in rows][::8] == [("guidance", 0.0), ("autoguidance", 3.0)]
    assert all(len(values) == len(COLUMNS) and 0 <= values[0] <= 1 for _, _, values in rows)
    plot(tmp_path / "guidance.png", rows)
    with Image.open(tmp_path / "guidance.png") as picture:
        assert min(picture.size) > 300
    assert len(list(seams(module, data, 1))) == 3
