"""A network and a callback of the user's own package, found from the current directory, without an edit of this project."""

from pathlib import Path
from typing import Any

import pytest

from ddpm.checkpoint import read_checkpoint
from ddpm.checkpoint_io import DurableCheckpointIO
from ddpm.config import RESUMED, check
from ddpm.errors import CheckpointError, ConfigError
from ddpm.resuming import checkpoint_to_resume, overrides_of, refuse_outside
from tests.commands.doors import command
from tests.commands.test_train import SMALL

MY_PACKAGE = """
from pathlib import Path
from pytorch_lightning import Callback
from ddpm import MDM_UNetModel

class MyNet(MDM_UNetModel):
    def forward(self, xt, t, cond=None):
        return 0.5 * super().forward(xt, t, cond)

class Note(Callback):
    def __init__(self, path: str) -> None:
        self.path = path

    def on_train_end(self, trainer, pl_module) -> None:
        Path(self.path).write_text(f"{type(pl_module.diffusion.eps_model).__name__}, step {trainer.global_step}")
"""


def test_it_trains_samples_and_resumes_where_it_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "my_package.py").write_text(MY_PACKAGE)
    done = command(
        "train.py", *SMALL, "T=7", "out=run", "logger=none", "~callbacks.motion_metrics", "~callbacks.skeleton_gif",
        "~callbacks.loss_plot",
        "model._target_=my_package.MyNet", "+callbacks.note={_target_: my_package.Note, path: note.txt}", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "note.txt").read_text() == "MyNet, step 6"
    for door, arguments, key in (
        ("sample.py", ["ckpt=run", "n=2", "gif_clips=0"], "model._target_='my_package.MyNet'"),
        ("train.py", ["resume=run", "trainer.max_epochs=3"], "_target_='my_package."),
    ):
        refused = command(door, *arguments, cwd=tmp_path)
        said = refused.stdout + refused.stderr
        assert refused.returncode == 2 and "give trust=[my_package]" in said and "Traceback" not in said, said
        assert key in said
        done = command(door, *arguments, "trust=[my_package]", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "samples" / "clips.npz").exists() and (tmp_path / "note.txt").read_text() == "MyNet, step 9"
    # Trust is the reader's to give: that of the run is not in force.
    assert "trust=[my_package]" in overrides_of(tmp_path / "run" / "checkpoints" / "last.ckpt", [])
    again = command("train.py", "resume=run", "trainer.max_epochs=4", cwd=tmp_path)
    assert again.returncode == 2 and "give trust=[my_package]" in again.stdout + again.stderr


@pytest.mark.parametrize(
    "hostile", ["model._target_=os.system", "+x={_target_: os.system, command: touch canary}", "skeleton._target_=os.system"]
)
def test_the_command_line_in_a_checkpoint_names_no_other_code(hostile: str, tmp_path: Path) -> None:
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = {"state_dict": {}, "hyper_parameters": {"overrides": ["trust=[os]", hostile]}, "global_step": 1}
    DurableCheckpointIO().save_checkpoint(content, path)
    done = command("train.py", f"resume={path.parent.parent}", cwd=tmp_path)
    assert done.returncode == 2 and not (tmp_path / "canary").exists()
    assert "Traceback" not in done.stdout + done.stderr
    assert hostile.startswith("+") or "_target_='os.system' is no part of this project" in done.stdout + done.stderr


def test_no_name_of_a_joint_becomes_a_node(tmp_path: Path) -> None:
    """A skeleton is written out and resolved with the rest of the configuration; its names must not be resolved once more."""
    node = "${oc.create:{_target_:os.mkdir,path:canary}}"
    key = "".join(f"\\{c}" if c in "{}:," else c for c in node)
    cleared = [f"~skeleton.{name}" for name in ("joints", "parts", "left_right", "feet")]
    joints = f"+skeleton.joints={{{key}: null, b: '\\{node}'}}"
    content = {"state_dict": {}, "hyper_parameters": {"overrides": [*cleared, joints]}, "global_step": 1}
    DurableCheckpointIO().save_checkpoint(content, tmp_path / "run" / "checkpoints" / "last.ckpt")
    done = command("train.py", "resume=run", cwd=tmp_path)
    said = done.stdout + done.stderr
    assert done.returncode == 2 and "Traceback" not in said and not (tmp_path / "canary").exists(), said
    assert "skeleton.joints=" in said and "${oc.create:" in said, said


def test_what_is_checked_is_what_is_built(tmp_path: Path) -> None:
    """The name in an interpolation changes when the skeleton is written out, after a first look at it."""
    joints = [*"abc"]
    hostile = [
        "~skeleton.parts", "~skeleton.left_right", "~skeleton.feet", "~skeleton.joints", "+skeleton.joints={a: null, b: a, c: b}",
        f"+skeleton.parts={{callbacks.ema.EMA: [{', '.join(joints)}]}}", "++skeleton.keep=[callbacks.ema.EMA]",
        "+callbacks.x={_target_: '${oc.select:skeleton.keep.0,os.system}', command: touch canary}",
    ]  # fmt: skip
    content = {"state_dict": {}, "hyper_parameters": {"overrides": hostile}, "global_step": 1}
    DurableCheckpointIO().save_checkpoint(content, tmp_path / "run" / "checkpoints" / "last.ckpt")
    done = command("train.py", "resume=run", cwd=tmp_path)
    said = done.stdout + done.stderr
    assert done.returncode == 2 and "os.system" in said and "functions and files" in said and "Traceback" not in said, said
    assert not (tmp_path / "canary").exists()


def test_the_command_line_in_a_checkpoint_loads_no_package(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("open('canary', 'w')")
    content = {"state_dict": {}, "hyper_parameters": {"overrides": ["hydra.searchpath=[pkg://evil]"]}, "global_step": 1}
    DurableCheckpointIO().save_checkpoint(content, tmp_path / "run" / "checkpoints" / "last.ckpt")
    done = command("train.py", "resume=run", cwd=tmp_path)
    assert done.returncode == 2 and "options of Hydra" in done.stdout + done.stderr and not (tmp_path / "canary").exists()


def test_nothing_outside_of_a_run_is_written_or_removed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match=r"callbacks\.best\.dirpath=.*writes below its own directory"):
        refuse_outside({"callbacks": {"best": {"dirpath": str(tmp_path / "run" / ".." / "b")}}, "logger": {}, "trainer": {}}, out)
    refuse_outside({"callbacks": {"best": {"dirpath": str(tmp_path / "run" / "b")}}, "logger": {}, "trainer": {}}, out)
    inside, outside, folder = tmp_path / "run" / "a.ckpt", tmp_path / "b.ckpt", tmp_path / "run" / "c.ckpt"
    folder.mkdir(parents=True)
    inside.touch(), outside.touch()
    for path in (inside, outside, tmp_path / "run" / ".." / "b.ckpt", folder):
        DurableCheckpointIO(tmp_path / "run").remove_checkpoint(path)
    assert not inside.exists() and outside.exists() and folder.exists()


@pytest.mark.parametrize(
    "override",
    [
        "T=${sweep_dir:canary,null}",
        "frames=${oc.env:HOME}",
        "experiment=../../evil",
        "+data@x=/tmp/evil",
        "hydra.run.dir=canary",
        "callbacks={best:{dirpath:../x}}",
    ],
)
def test_the_command_line_in_a_checkpoint_chooses_and_sets_values_alone(override: str, tmp_path: Path) -> None:
    content = {"state_dict": {}, "hyper_parameters": {"overrides": ["out=../x", override]}, "global_step": 1}
    DurableCheckpointIO().save_checkpoint(content, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="its command line has"):
        overrides_of(tmp_path / "last.ckpt", [])
    content["hyper_parameters"] = {"overrides": ["frames=${loader.frames}", "data.root=../data", "data=folder", "model.depth=2"]}
    DurableCheckpointIO().save_checkpoint(content, tmp_path / "last.ckpt")
    assert len(overrides_of(tmp_path / "last.ckpt", [])) == 4


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("dirpath", "elsewhere"), ("save_dir", ".."), ("name", "../x"), ("version", "/tmp/x"), ("filename", "a/../../b")),
        *(("tracking_uri", "http://example.invalid"), ("tracking_uri", "file:x"), ("log_dir", "x")),
    ],
)
def test_what_writes_is_told_no_place_outside(key: str, value: str, tmp_path: Path) -> None:
    config: dict[str, dict[str, Any]] = {"callbacks": {}, "logger": {}, "trainer": {}}
    fine = {"monitor": "val/loss", "dirpath": str(tmp_path / "a"), "filename": "best", "name": "", "version": None}
    for group in config:
        refuse_outside({**config, group: {"x": fine}}, tmp_path)
        with pytest.raises(ConfigError, match=rf"{group}\.x\.{key}=.*writes below its own directory"):
            refuse_outside({**config, group: {"x": fine | {key: value}}}, tmp_path)


def test_what_may_write_stands_where_it_is_looked_at() -> None:
    node = {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": "canary"}
    for key in ("skeleton", "model", "data.skeleton"):
        with pytest.raises(ConfigError, match="below callbacks and logger and trainer only"):
            check(node, key, RESUMED)
    check(node, "logger.x", RESUMED)


def test_a_run_with_links_out_of_it_is_not_resumed(tmp_path: Path) -> None:
    """train.log would be written through one, .lock would empty what it names."""
    out = tmp_path / "run"
    (out / "checkpoints").mkdir(parents=True)
    (out / "checkpoints" / "last.ckpt").touch()
    (out / "inside").symlink_to(out / "checkpoints")
    assert checkpoint_to_resume(str(out), out) == out / "checkpoints" / "last.ckpt"
    for name in ("train.log", ".lock", "samples"):
        (out / name).symlink_to(tmp_path / "elsewhere")
        for resume in ("auto", str(out)):
            with pytest.raises(ConfigError, match=rf"{name}: links to .*elsewhere"):
                checkpoint_to_resume(resume, out)
        (out / name).unlink()


def test_an_option_of_another_name_is_that_of_today(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    content = {"state_dict": {}, "hyper_parameters": {"overrides": ["variance=learnt", "T=7"]}}
    DurableCheckpointIO().save_checkpoint(content, path)
    assert read_checkpoint(path)["hyper_parameters"]["overrides"] == ["variance=learnt", "T=7"]
    assert overrides_of(path, ["T=8"]) == ["variance=learned", "T=8"]
