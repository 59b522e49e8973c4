"""An installed package has all that its import and its constructors need."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ddpm.cli import COMMANDS
from tests.skeletons import SHIPPED

ROOT = Path(__file__).parent.parent
ENDINGS = ("py", "yaml", "html", "js", "safetensors", "json")
PARTS = ("ddpm", "datamodules", "callbacks", "conf")

USED = """
import json, sys
from ddpm.cli import main

def status(*arguments):
    sys.argv = ["pose-ddpm", *arguments]
    try:
        main()
    except SystemExit as end:
        return end.code
    return 0

ended = [status("sample", "n=1", "steps=2", "gif_clips=0"), status("train", "--cfg", "job"), status("walk")]
from datamodules.joints import presets
from ddpm.command import CONF
print(json.dumps([*ended, sorted(presets()), CONF.is_dir()]))
"""
"""What a user of an installed package does, in one process, which loads the libraries once."""


def test_a_wheel_is_complete(tmp_path: Path) -> None:
    """Every source and configuration file is in it, nothing else is; the shipped skeletons are found from another folder."""
    pytest.importorskip("setuptools", "77")
    source, out = tmp_path / "source", tmp_path / "out"
    for part in PARTS:
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("*.py"), *(ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE"))):
        shutil.copy(path, source)
    build = f"import setuptools.build_meta as b; b.build_wheel({str(out)!r})"
    out.mkdir()
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(out.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        wheel.extractall(tmp_path / "site")
    files = [path for part in PARTS for ending in ENDINGS for path in (ROOT / part).rglob(f"*.{ending}")]
    commands = {f"pose_ddpm_commands/{path.name}" for path in ROOT.glob("*.py")}
    assert names == {path.relative_to(ROOT).as_posix() for path in files} | commands
    assert commands == {f"pose_ddpm_commands/{name}.py" for name in COMMANDS}
    done = subprocess.run(
        [sys.executable, "-c", USED],
        cwd=out,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
    )
    said = done.stdout + done.stderr
    assert "ckpt=pretrained, the small model" in said and "model_channels" in said and "invalid choice: 'walk'" in said, said
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 0, 2, sorted({*SHIPPED}), True], said
