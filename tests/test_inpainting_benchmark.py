"""benchmarks/inpainting.py: every rule is given the same, and leaves of it what it should."""

from typing import Any

import pytest
import torch

from benchmarks.inpainting import RULES, compared, kept
from ddpm.editing import given_by
from ddpm.module import build_module


@pytest.mark.parametrize("k", [0, 3])
def test_what_is_given_comes_back(tiny_config: dict[str, Any], k: int) -> None:
    module = build_module(tiny_config, fps=15.0)
    clips = torch.randn(2, 20, 3, 8).cumsum(-1) * 0.02 + torch.randn(1, 20, 3, 1)
    clips -= clips[:, module.skeleton.root : module.skeleton.root + 1, :, :1]
    module.fit({"clips": clips, "mask": None})
    keep = list(kept(module).values())[k]
    _, *rows = compared(module, {"clips": clips}, given_by(keep, module.skeleton, 8), 1, RULES)
    assert [row[:28].strip() for row in rows] == list(RULES)
    for row in rows:
        assert float(row[28:].split()[0]) < 0.01 and "nan" not in row, "the tiny model has no projection that would move joints"
