"""The command that looks at data: what it writes, what it finds out by itself, and how it ends."""

import logging
from pathlib import Path

import hydra
import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from ddpm.errors import ConfigError, DataError, EscapedFormatter
from ddpm.skeleton import Skeleton
from ddpm.viz.figure import _spread, draw_skeleton
from inspect_data import Config, inspect_data, with_fitting_skeleton, with_path
from tests.commands.doors import command, process
from tests.configs import compose
from tests.datamodules.test_ntu import NAME, widened
from tests.datamodules.test_ntu import text as ntu
from tests.skeletons import people, shipped

ROOT = Path(__file__).parents[2]


def test_a_summary_two_pictures_and_a_page(tmp_path: Path) -> None:
    out = inspect_data(compose("inspect", ["data.n=26", f"out={tmp_path / 'o'}", "frames=12", "gif_clips=4"]))
    assert sorted(path.name for path in out.iterdir()) == ["clips.gif", "clips.html", "skeleton.png", "summary.txt"]
    assert "26 recordings" in (out / "summary.txt").read_text() and "none found" in (out / "summary.txt").read_text()
    with Image.open(out / "clips.gif") as gif:
        assert gif.n_frames == 12
    with Image.open(out / "skeleton.png") as png:
        colours = {colour for _, colour in png.convert("RGB").getcolors(1 << 20)}
        assert {(0, 114, 178), (213, 94, 0), (64, 68, 75)} <= colours, "left, right and centre"


def test_no_name_of_a_file_controls_the_terminal(tmp_path: Path) -> None:
    label = "wa\x1b[31m\nlk\u202e"
    np.savez(tmp_path / "a.npz", clips=[clip[:20] for clip in people(2, 15.0)], labels=[label, label], fps=15)
    out = inspect_data(compose("inspect", ["data=folder", f"data.root={tmp_path / 'a.npz'}", f"out={tmp_path / 'out'}"]))
    text = (out / "summary.txt").read_text()
    assert "wa\\x1b[31m\\nlk\\u202e 2" in text and text.replace("\n", "").isprintable()
    record = logging.makeLogRecord({"msg": "%s", "args": (label,)})
    assert EscapedFormatter("%(message)s").format(record) == "wa\\x1b[31m\nlk\\u202e"
    logged = OmegaConf.load(Path(__file__).parents[2] / "conf" / "hydra" / "job_logging" / "plain.yaml")
    assert logged.formatters.screen["class"] == f"{EscapedFormatter.__module__}.{EscapedFormatter.__qualname__}"


def test_the_keys_are_those_of_the_schema() -> None:
    assert set(compose("inspect")) == set(OmegaConf.structured(Config))


def test_a_bare_path_finds_its_skeleton(tmp_path: Path) -> None:
    folder = tmp_path / "it's = here, [1]"
    folder.mkdir()
    motion = widened(people(1, 30.0)[0])
    (folder / NAME).write_text(ntu(("1", 0, motion), frames=len(motion)))
    given = with_path([str(folder), f"out={tmp_path / 'o'}"])
    with hydra.initialize(version_base="1.3", config_path="../../conf"):
        cfg = with_fitting_skeleton(hydra.compose("inspect", overrides=given), given)
        assert with_fitting_skeleton(hydra.compose("inspect", overrides=[*given, "skeleton=smpl22"]), ["skeleton=smpl22"]) != cfg
    text = (inspect_data(cfg) / "summary.txt").read_text()
    assert "25 joints x 3 coordinates" in text and "P003 1" in text and "A013 1" in text


def test_the_command_ends_with_one_message(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("3\n")
    bad = process("inspect_data.py", str(tmp_path), f"out={tmp_path / 'p'}", cwd=tmp_path)
    assert bad.returncode == 2 and "DataError" in bad.stdout and NAME in bad.stdout and "Traceback" not in bad.stdout + bad.stderr
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("name", ["summary.txt", "skeleton.png"])
def test_a_place_that_cannot_be_written_to_is_one_message(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    bad = command("inspect_data.py", f"out={tmp_path}", "data.n=2", "frames=8", "gif_clips=0", cwd=tmp_path)
    assert bad.returncode == 2 and name in bad.stdout and "Traceback" not in bad.stdout + bad.stderr


def test_arguments_are_those_of_train_py(tmp_path: Path) -> None:
    assert with_path(["data=folder", "data.root=x", "~loader", "+a.b=1", "--cfg", "-c"]) == [
        "data=folder", "data.root=x", "~loader", "+a.b=1", "--cfg", "-c",
    ]  # fmt: skip
    assert with_path(["a b"]) == ["data=folder", "data.root='a b'"]
    bvh = Path(__file__).parents[1] / "bvh"
    assert with_path([str(bvh)])[0] == with_path([str(next(bvh.glob("*.bvh")))])[0] == "data=bvh"
    for name, group in (("A.BVH", "bvh"), ("b.npy", "bvh"), ("c.txt", "bvh"), ("d.npy", "folder")):
        (tmp_path / name).write_text("")
        assert with_path([str(tmp_path)])[0] == f"data={group}"
    assert compose("inspect", with_path(["it's"])).data.root == "it's"


def test_several_paths_are_not_taken_for_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        with_path(["a.npy", "b.bvh", "out=x"])
    assert e.value.code == 2
    assert "one directory or file, not at all of a.npy b.bvh out=x; give their directory" in capsys.readouterr().err


def test_outliers_are_shown_and_not_refused(tmp_path: Path) -> None:
    for i, walk in enumerate(people(4)):
        np.save(tmp_path / f"r{i}.npy", walk * (100 if i == 1 else 1))
    given = ["data=folder", f"data.root={tmp_path}", "data.fps=20", f"out={tmp_path / 'o'}", "gif_clips=0", "frames=8"]
    text = (inspect_data(compose("inspect", given)) / "summary.txt").read_text()
    assert "  ! in 1 of 4 recordings (r1.npy) the body has another size" in text and "data.on_outlier=fix" in text
    text = (inspect_data(compose("inspect", [*given, "data.on_outlier=fix"])) / "summary.txt").read_text()
    assert "another size" not in text.split("flaws")[1] and "mended: in 1 of 4 recordings (r1.npy)" in text


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_data_group_can_be_looked_at(path: Path) -> None:
    assert compose("inspect", [f"data={path.stem}"]).data._target_


def test_data_that_cannot_be_used(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", people(1)[0])
    with pytest.raises(DataError, match=r"data\.fps="):
        inspect_data(compose("inspect", ["data=folder", f"data.root={tmp_path}", f"out={tmp_path / 'o'}"]))
    number = compose("inspect", ["data=folder", "data.root=2024"])
    assert with_fitting_skeleton(number, []) is number
    with pytest.raises(ConfigError, match=r"data\.root=2024"):
        inspect_data(number)
    with pytest.raises(ValueError, match="frames=0"):
        inspect_data(compose("inspect", ["frames=0"]))


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_the_figure_names_every_joint(tmp_path: Path, ending: str) -> None:
    skeleton = shipped("ntu25")
    draw_skeleton(tmp_path / f"a.{ending}", skeleton, widened(people(1)[0]))
    content = (tmp_path / f"a.{ending}").read_bytes()
    assert content.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[ending])
    if ending == "svg":
        assert all(
            f"{k}  {name}" in content.decode() or f"{name}  {k}" in content.decode() for k, name in enumerate(skeleton.names)
        )


def test_long_names_are_in_the_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skeleton, figures = shipped("kinect20"), []
    names = {"left_hand": "LeftHandThumbProximal1_end", "right_hand": "RightHandOf" * 15}
    renamed = {names.get(child, child): parent and names.get(parent, parent) for child, parent in skeleton.joints.items()}
    monkeypatch.setattr("ddpm.viz.figure.picture_bytes", lambda figure, kind: figures.append(figure) or b"")
    draw_skeleton(tmp_path / "a.png", Skeleton(renamed), people(1)[0])
    (figure,) = figures
    shown = {text.get_text(): text.get_window_extent() for text in figure.axes[0].texts}
    assert all(0 < box.x0 and box.x1 < figure.bbox.width for box in shown.values()), "none is cut off"
    assert any("LeftHandThumbProximal1_end" in text for text in shown) and any("…" in text for text in shown)


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    skeleton = shipped("kinect20")
    with pytest.raises(ValueError, match=r"a\.bmp"):
        draw_skeleton(tmp_path / "a.bmp", skeleton, people(1)[0])
    with pytest.raises(ValueError, match="poses have shape"):
        draw_skeleton(tmp_path / "a.png", skeleton, np.full((2, 20, 3), np.nan))


def test_names_keep_their_distance_and_move_as_little_as_it_takes() -> None:
    heights = np.array([0.0, 0.1, 0.2, 5.0, 6.0, 6.0])
    moved = _spread(heights, 1.0)
    assert (np.diff(moved) >= 1 - 1e-12).all()
    np.testing.assert_allclose(moved, [-0.9, 0.1, 1.1, 14 / 3, 17 / 3, 20 / 3])
    assert _spread([1.0, 3.0], 1.0).tolist() == [1.0, 3.0] and len(_spread([], 1.0)) == 0
