"""An installed package has all that its import and its constructors need."""

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
    used = "from datamodules.joints import presets; from ddpm.command import CONF; print(*presets(), CONF.is_dir())"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", used], cwd=out, capture_output=True, text=True, env=environment)
    assert set(done.stdout.split()) >= {*SHIPPED, "True"}, done.stderr
    for arguments, code, said in (
        (["sample", "n=1", "steps=2", "gif_clips=0"], 0, "ckpt=pretrained, the small model"),
        (["train", "--cfg", "job"], 0, "model_channels"),
        (["walk"], 2, "invalid choice: 'walk'"),
    ):
        command = [sys.executable, "-c", "from ddpm.cli import main; main()", *arguments]
        done = subprocess.run(command, cwd=out, capture_output=True, text=True, env=environment)
        assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stderr
