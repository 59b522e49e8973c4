"""The pictures show what the numbers say: in the right cell, the right way up, in the right colour, for as long."""

import errno
import io
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image, ImageSequence

from ddpm.skeleton import Skeleton
from ddpm.viz import body, camera, plots, render


def kinect(**changes: object) -> Skeleton:
    """The 20 joints of the shipped configuration, with some arguments replaced."""
    config = OmegaConf.to_container(OmegaConf.load("conf/skeleton/kinect20.yaml"))
    config.pop("_target_")
    return Skeleton(**{**config, **changes})


SKELETON = kinect()
# A person of 1.7 m, y up, who faces -z and so has the left hand at -x: metres above the floor and to the left.
HEIGHTS = {
    "hip_center": 0.95,
    "spine": 1.15,
    "shoulder_center": 1.4,
    "head": 1.6,
    "hip": 0.9,
    "knee": 0.5,
    "ankle": 0.1,
}
HEIGHTS |= {"foot": 0.05, "shoulder": 1.38, "elbow": 1.1, "wrist": 0.9, "hand": 0.82}
ASIDE = {
    "hip": 0.12,
    "knee": 0.13,
    "ankle": 0.13,
    "foot": 0.14,
    "shoulder": 0.18,
    "elbow": 0.24,
    "wrist": 0.3,
    "hand": 0.3,
}


def person(frames: int = 8, lift: float = 0.5) -> np.ndarray:
    """(frames, 20, 3) metres: somebody who stands still and lifts the left hand by ``lift`` metres."""
    pose = np.zeros((20, 3))
    for j, name in enumerate(SKELETON.names):
        part = name.removeprefix("left_").removeprefix("right_")
        sign = {"left": -1, "right": 1, "centre": 0}[SKELETON.side(j)]
        pose[j] = sign * ASIDE.get(part, 0.0), HEIGHTS[part], -0.15 if part == "foot" else 0.0
    clip = np.repeat(pose[None], frames, axis=0)
    clip[:, SKELETON.index("left_hand"), 1] += np.linspace(0, lift, frames)
    return clip.astype(np.float32)


def close_to(picture: np.ndarray, colour: tuple[int, int, int], tolerance: int = 12) -> np.ndarray:
    return (np.abs(picture.astype(int) - colour) <= tolerance).all(-1)


def seconds(gif: bytes) -> float:
    return sum(frame.info["duration"] for frame in ImageSequence.Iterator(Image.open(io.BytesIO(gif)))) / 1000


@pytest.mark.parametrize("fps", [20, 29.97, 100])
def test_a_video_shows_the_frames_at_their_rate(tmp_path: Path, fps: float) -> None:
    pytest.importorskip("imageio_ffmpeg")
    frames = render.draw_clips(person()[None], SKELETON, size=97)  # H.264 has no odd sizes
    (tmp_path / "a.mp4").write_bytes(render.mp4_bytes(frames, fps))
    assert iio.immeta(tmp_path / "a.mp4", plugin="FFMPEG")["fps"] == pytest.approx(fps, rel=1e-3)
    read = iio.imread(tmp_path / "a.mp4", plugin="FFMPEG")
    assert read.shape == (8, 98, 98, 3)
    assert np.abs(read[:, :97, :97].astype(int) - frames).mean() < 6


def test_a_video_without_ffmpeg_says_what_to_install(noise: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.delitem(sys.modules, "imageio.plugins.ffmpeg", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'pose-ddpm\[video\]'"):
        render.mp4_bytes(noise, 20)


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (47, 12, 16, 3), dtype=np.uint8)


# --- the GIF ---


def test_another_reader_sees_the_pictures_that_were_drawn(tmp_path: Path) -> None:
    """A bar that moves comes back exactly, every frame in its place: its colours fit in the palette."""
    frames = np.zeros((9, 20, 30, 3), np.uint8)
    for i in range(9):
        frames[i, :, 3 * i : 3 * i + 3] = (250, 120, 128)
    render.write_gif(tmp_path / "a.gif", frames, fps=10)
    read = iio.imread(tmp_path / "a.gif", index=None)
    assert read.shape == frames.shape and np.array_equal(read, frames)


@pytest.mark.parametrize("fps", [15, 20, 30, 29.97, 60, 120])
def test_gif_lasts_as_long_as_the_motion_and_loops(fps: float, noise: np.ndarray) -> None:
    gif = render.gif_bytes(noise, fps)
    assert seconds(gif) == pytest.approx(len(noise) / fps, rel=0.01)
    image = Image.open(io.BytesIO(gif))
    assert image.info["loop"] == 0 and image.size == (16, 12)
    # A browser shows a picture of less than 20 ms for 100 ms.
    assert min(frame.info["duration"] for frame in ImageSequence.Iterator(image)) >= (20 if fps <= 50 else 10)


def test_pauses_count(noise: np.ndarray) -> None:
    """Equal neighbours are merged by the writer; their time must survive."""
    assert seconds(render.gif_bytes(np.repeat(noise[:5], 6, axis=0), 15)) == pytest.approx(2.0)


def test_gif_shows_the_frames() -> None:
    frames = render.draw_clips(np.stack([person()] * 2), SKELETON, titles=["a", "b"], size=96)
    decoded = ImageSequence.Iterator(Image.open(io.BytesIO(render.gif_bytes(frames, 15))))
    for frame, expected in zip(decoded, frames, strict=True):
        difference = np.abs(np.asarray(frame.convert("RGB")).astype(int) - expected)
        assert difference.mean() < 0.1 and difference.max() < 12


def test_gif_shows_thousands_of_shades() -> None:
    a, b = np.meshgrid(np.arange(256), np.arange(256))
    ramp = np.stack([a, b, (a + b) // 2], axis=-1).astype(np.uint8)
    decoded = np.asarray(Image.open(io.BytesIO(render.gif_bytes(ramp[None], 15))).convert("RGB"))
    assert np.abs(decoded.astype(int) - ramp).mean() < 8


def test_writing_is_all_or_nothing_and_repeatable(tmp_path: Path, noise: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "folder" / "clip.gif"
    render.write_gif(path, noise, 15)
    before = path.read_bytes()
    assert before == render.gif_bytes(noise, 15)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "disc full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disc full"):
        patch.setattr("os.replace", full)
        render.write_gif(path, noise[::-1], 15)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("frames", "fps"),
    [
        (np.zeros((2, 4, 4, 3)), 15),
        (np.zeros((4, 4, 3), np.uint8), 15),
        (np.zeros((2, 4, 4, 4), np.uint8), 15),
        (np.zeros((0, 4, 4, 3), np.uint8), 15),
        (np.zeros((2, 4, 4, 3), np.uint8), 0),
        (np.zeros((2, 4, 4, 3), np.uint8), -1),
        (np.zeros((2, 4, 4, 3), np.uint8), float("nan")),
        (np.zeros((2, 4, 4, 3), np.uint8), float("inf")),
    ],
)
def test_gif_refuses(frames: np.ndarray, fps: float) -> None:
    with pytest.raises(ValueError, match=r"fps must|frames must"):
        render.gif_bytes(frames, fps)


# --- the figures ---


def test_grid_shape_and_one_figure_per_cell() -> None:
    clips = np.stack([person()] * 5)
    frames = render.draw_clips(clips, SKELETON, size=80, columns=3)
    assert frames.shape == (8, 160, 240, 3) and frames.dtype == np.uint8
    painted = close_to(frames[0], body.SIDE_COLOURS["left"]).reshape(2, 80, 3, 80).sum(axis=(1, 3))
    assert (painted.ravel()[:5] > 20).all() and painted.ravel()[5] == 0
    assert len(set(painted.ravel()[:5])) == 1  # equal clips, equal cells
    assert render.draw_clips(clips, SKELETON, size=80).shape == (8, 80, 400, 3)
    titled = render.draw_clips(
        clips, SKELETON, size=80, columns=2, titles=["a title far too long for it", "a\nb", "\x1b[31m", "$x$", "x" * 10**6]
    )
    assert titled.shape[1] > 240 and titled.shape[2] == 160
    assert np.array_equal(frames, render.draw_clips(clips, SKELETON, size=80, columns=3))


@pytest.mark.parametrize("up", ["x", "y", "z", "-x", "-y", "-z"])
def test_every_joint_stays_in_its_cell_and_the_head_is_on_top(up: str) -> None:
    rng = np.random.default_rng(1)
    walk = person(20) + np.linspace(0, 2, 20)[:, None, None] * [0.3, 0, 1]
    far = person(20) * np.linspace(1, 400, 20)[:, None, None]
    clips = np.stack([person(20), walk, far, rng.normal(size=(20, 20, 3)), np.zeros((20, 20, 3))])
    axis, sign = "xyz".index(up[-1]), -1 if up[0] == "-" else 1
    turned = np.roll(clips * (1, sign, sign), axis - 1, axis=-1)  # a turn, no mirror image
    view = camera.project(turned, kinect(up=up), 100)
    assert view.joints.shape == (5, 20, 20, 2)
    assert (view.joints >= 0).all() and (view.joints <= 100).all()
    assert (view.shadows >= 0).all() and (view.shadows <= 100).all()
    head, foot = SKELETON.index("head"), SKELETON.index("left_foot")
    assert (view.joints[:3, :, head, 1] < view.joints[:3, :, foot, 1]).all()
    np.testing.assert_allclose(view.joints, camera.project(clips, SKELETON, 100).joints, atol=1e-6)


@pytest.mark.parametrize("turn", np.radians([0, 50, 90, 180, 265]))
@pytest.mark.parametrize("known", [{}, {"feet": []}, {"left_right": []}])
def test_seen_from_the_front_whichever_way_the_body_faces(turn: float, known: dict) -> None:
    """Face to face with somebody, their left is on our right, and their toes are nearer than their heels."""
    c, s = np.cos(turn), np.sin(turn)
    clip = person() @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    view = camera.project(clip[None], kinect(**known), 100)
    across = view.joints[0, :, SKELETON.index("left_hip"), 0] - view.joints[0, :, SKELETON.index("right_hip"), 0]
    nearer = view.depth[0, :, SKELETON.index("left_foot")] - view.depth[0, :, SKELETON.index("left_ankle")]
    assert (across > 2).all() and (nearer > 0.05).all()


def test_left_is_painted_in_the_colour_of_the_left() -> None:
    clip = person(6)
    frames = render.draw_clips(clip[None], SKELETON, size=160)
    view = camera.project(clip[None], SKELETON, 160)
    assert body.SIDE_COLOURS["left"][2] > 150 and body.SIDE_COLOURS["right"][0] > 150  # blue, and a red
    for side in ("left", "right"):
        elbow, wrist = (view.joints[0, :, SKELETON.index(f"{side}_{part}")] for part in ("elbow", "wrist"))
        for t, (x, y) in enumerate(((elbow + wrist) / 2).astype(int)):
            patch = frames[t, y - 2 : y + 3, x - 2 : x + 3]
            other = "right" if side == "left" else "left"
            assert close_to(patch, body.SIDE_COLOURS[side]).any()
            assert not close_to(patch, body.SIDE_COLOURS[other]).any()


def test_what_was_given_is_grey_and_its_nearest_frames_are_ghosts() -> None:
    """Of three clips the first frame and the left arm, nothing, and the path."""
    clips = np.stack([person() + np.linspace(0, 2, 8)[:, None, None] * [0, 0, -1]] * 3)
    given = np.zeros(clips.shape, dtype=bool)
    arm = [SKELETON.index(f"left_{part}") for part in ("elbow", "wrist", "hand")]
    given[0, 0], given[0, :, arm], given[2, :, SKELETON.root, ::2] = True, True, True
    frames = render.draw_clips(clips, SKELETON, size=200, columns=3, given=given)[:, :-2]
    colours = [*body.SIDE_COLOURS.values(), body.GIVEN, body.GHOST]
    ink = {c: close_to(frames, c, 3).reshape(8, -1, 3, 200).sum(axis=(1, 3)) for c in colours}
    left, right = body.SIDE_COLOURS["left"], body.SIDE_COLOURS["right"]
    assert ink[left][0, 0] == ink[right][0, 0] == 0 and ink[body.GHOST][0, 0] < 50 and ink[body.GIVEN][0, 0] > 200
    assert (ink[body.GHOST][4:, 0] > 100).all(), "it stands where the body was"
    assert (ink[left][1:, 0] < ink[left][1:, 1] - 30).all() and (ink[right][1:, 0] > 0.8 * ink[right][1:, 1]).all()
    view = camera.project(clips, SKELETON, 200)
    x, y = view.joints[0, 5, arm[:2]].mean(axis=0).astype(int)
    assert close_to(frames[5, y - 2 : y + 3, x - 2 : x + 3], body.GIVEN).any()
    assert ink[body.GIVEN][0, 2] > ink[body.GIVEN][0, 1] + 50, "the way ahead"
    plain = render.draw_clips(clips, SKELETON, size=200, columns=3)[:, :-2]
    assert np.array_equal(plain[:, :, 200:400], frames[:, :, 200:400])


@pytest.mark.parametrize("up", ["y", "-y"])
def test_two_dimensions(up: str) -> None:
    clip = person()[..., :2] * (1, -1 if up == "-y" else 1)
    skeleton = kinect(coords=2, up=up)
    view = camera.project(clip[None], skeleton, 100)
    head, foot = skeleton.index("head"), skeleton.index("left_foot")
    assert (view.joints[0, :, head, 1] < view.joints[0, :, foot, 1] - 50).all()
    np.testing.assert_allclose(  # in its plane: x to the right, nothing foreshortened
        np.diff(view.joints[0, :, [head, foot]], axis=0)[0],
        np.diff(clip[:, [head, foot]], axis=1)[:, 0] * view.scale[0] * (1, 1 if up == "-y" else -1),
        atol=1e-4,
    )
    ink = close_to(render.draw_clips(clip[None], skeleton, size=100)[0], body.SIDE_COLOURS["left"])
    assert ink.sum() > 30


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_not_finite_spoils_only_itself(bad: float) -> None:
    good = np.stack([person(), person(), person()])
    clips = good.copy()
    clips[1, 3:, SKELETON.index("left_hand")] = bad
    clips[2] = bad
    with np.errstate(all="raise"):
        frames = render.draw_clips(clips, SKELETON, columns=3, size=96)
    expected = render.draw_clips(good, SKELETON, columns=3, size=96)
    assert np.array_equal(frames[:, :-2, :96], expected[:, :-2, :96])  # the last rows are the time
    left = body.SIDE_COLOURS["left"]
    assert close_to(frames[-1, :, 96:192], left).sum() > 50  # the rest of the body is still drawn
    assert not close_to(frames[:, :, 192:], left).any()
    for cell in (1, 2):
        assert close_to(frames[0, :, 96 * cell : 96 * cell + 96], body.WARNING, 40).any()
    assert not close_to(frames[:, :, :96], body.WARNING, 40).any()


def test_an_exploding_clip_does_not_shrink_the_others() -> None:
    clips = np.stack([person(), person(), person() * np.linspace(1, 1000, 8)[:, None, None]])
    view = camera.project(clips, SKELETON, 100)
    assert view.scale[0] == view.scale[1] == camera.project(clips[:1], SKELETON, 100).scale[0]
    assert view.zoom[2] > 100 and view.scale[2] < view.scale[0]


def test_the_camera_follows_who_travels() -> None:
    """A walker is as large as one on the spot, stays in the cell, and the floor goes by; who stays is drawn as ever."""
    clips = np.stack([person(frames=40), person(frames=40)])
    clips[1] += np.linspace([0, 0, 0], [0, 0, 8], 40)[:, None]
    view, alone = camera.project(clips, SKELETON, 100), camera.project(clips[:1], SKELETON, 100)
    assert view.zoom.tolist() == [1, 1] and abs(view.scale[1] / alone.scale[0] - 1) < 0.1
    seen = view.joints - view.way[:, :, None]
    assert seen.min() >= 0 and seen.max() <= 100 and not view.way[0].any()
    metres = np.ptp(view.way[1], axis=0) / view.scale[1]
    assert 3 < np.hypot(*metres) <= 8, "he comes towards the camera"
    first, last = body._floor(view, 1, 100, 0), body._floor(view, 1, 100, 39)
    assert np.asarray(first).tobytes() != np.asarray(last).tobytes()


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (2, 2), (6, 3), (7, 4), (8, 4), (10, 5), (11, 4), (16, 4)])
def test_a_grid_has_few_empty_cells(n: int, columns: int) -> None:
    assert render._columns(n) == columns


def test_a_clip_that_has_ended_holds_its_last_pose_faded() -> None:
    clips = np.stack([person(), person()])
    clips[1, 5:] = 1e4  # padding must not count
    frames = render.draw_clips(clips, SKELETON, size=96, lengths=[8, 5])[:, :-2]
    full = render.draw_clips(clips[:, :5], SKELETON, size=96)[:, :-2]
    assert np.array_equal(frames[:5, :, 96:], full[:, :, 96:])
    held = frames[5:, :, 96:]
    assert (held == held[0]).all() and held.mean() > frames[4, :, 96:].mean()
    assert not close_to(held, body.SIDE_COLOURS["left"]).any() and held.min() < 220
    assert held[0, :12, :24].min() < 200 < frames[4, :12, 96:120].min(), "it says that it ended"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"hips": None, "Head": "hips"}, (1, None)),
        ({"hips": None, "mixamorig:Head": "hips", "mixamorig:HeadTop_End": "mixamorig:Head"}, (1, 2)),
        ({"root": None, "Bip01_Head": "root", "left_eye": "Bip01_Head", "right_eye": "Bip01_Head"}, (1, None)),
        ({"hips": None, "forehead": "hips"}, (None, None)),
    ],
)
def test_heads_are_found_by_name(names: dict[str, str | None], expected: tuple[int | None, int | None]) -> None:
    assert body._head(Skeleton(names)) == expected


def test_a_trunk_without_a_middle_is_closed_at_shoulders_and_hips() -> None:
    coco = instantiate(OmegaConf.load("conf/skeleton/coco17.yaml"))
    added = body._lines(coco)[len(coco.bones) :]
    assert [{coco.names[j] for j in line} for line in added] == [{"left_hip", "right_hip"}, {"left_shoulder", "right_shoulder"}]
    assert body._lines(SKELETON) == list(SKELETON.bones)


@pytest.mark.parametrize("turn", [0.0, 0.7, 2.0])
def test_an_animal_is_seen_from_its_broadest_side(turn: float) -> None:
    paws = ("a", "b", "c", "d")
    dog = Skeleton({"neck": None, "tail": "neck", "a": "neck", "b": "neck", "c": "tail", "d": "tail"}, feet=paws)
    long = np.array([[0, 0.5, 0], [0.8, 0.5, 0], [0, 0, 0.1], [0, 0, -0.1], [0.8, 0, 0.1], [0.8, 0, -0.1]])
    c, s = np.cos(turn), np.sin(turn)
    view = camera.project((long @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]))[None, None], dog, 100)
    back = np.abs(view.joints[0, 0, 1] - view.joints[0, 0, 0]) / view.scale[0]
    assert back[0] == pytest.approx(0.8, abs=0.01), "the whole length of the back lies across the picture"


def test_fingers_differ_in_colour() -> None:
    parts = {"palm": ["wrist"], "t": ["thumb"], "i": ["index"]}
    hand = Skeleton({"wrist": None, "thumb": "wrist", "index": "wrist"}, parts=parts)
    assert body._bone_colours(hand, body.SIDE_COLOURS) == list(body.PART_COLOURS[1:3])


def test_a_line_below_has_a_bar_as_long_as_it_says_and_the_seconds() -> None:
    clip = person()[None]
    plain, ruled = (render.draw_clips(clip, SKELETON, size=200, fps=fps) for fps in (None, 4.0))
    assert ruled.shape == (8, 226, 200, 3) and np.array_equal(ruled[:, :198], plain[:, :198])
    bar = close_to(ruled[0, 200:224], body.INK)[:, :72].sum(1).max()
    assert bar / camera.project(clip, SKELETON, 200).scale[0] == pytest.approx(0.5, abs=0.02), "the number beside it is 0.5 m"
    assert not np.array_equal(ruled[0, 200:224, 120:], ruled[7, 200:224, 120:]), "0.0 s and 1.8 s"
    pixels = render.draw_clips(clip[..., :2], kinect(coords=2, units="px"), fps=4.0)
    assert not close_to(pixels[0, 200:224, :100], body.INK).any(), "pixels are no metres"


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((8, 20, 3), {}),
        ((1, 8, 19, 3), {}),
        ((1, 8, 20, 2), {}),
        ((0, 8, 20, 3), {}),
        ((1, 0, 20, 3), {}),
        ((1, 8, 20, 3), {"titles": []}),
        ((1, 8, 20, 3), {"lengths": [9]}),
        ((1, 8, 20, 3), {"lengths": [0]}),
        ((1, 8, 20, 3), {"given": np.ones((1, 8, 20), dtype=bool)}),
        ((1, 8, 20, 3), {"columns": 0}),
        ((1, 8, 20, 3), {"size": 3}),
    ],
)
def test_draw_clips_refuses(shape: tuple[int, ...], options: dict) -> None:
    with pytest.raises(ValueError, match=r"clips have|must"):
        render.draw_clips(np.zeros(shape), SKELETON, **options)


def test_a_tree_without_head_sides_or_feet() -> None:
    chain = Skeleton(joints={"base": None, "tip": "base"}, up="z")
    clips = np.random.default_rng(2).normal(size=(2, 3, 2, 3))
    assert render.draw_clips(clips, chain, size=64).shape == (3, 64, 128, 3)
    point = Skeleton(joints={"only": None})
    assert render.draw_clips(clips[:, :, :1], point, size=64).shape == (3, 64, 128, 3)


# --- the losses ---


def test_plot_losses_writes_a_picture_and_returns_its_curves(tmp_path: Path) -> None:
    path = tmp_path / "plots" / "losses.png"
    curves = {"train": ([0, 10, 20], [1.0, 0.5, float("nan")]), "validation": ([20], [0.7]), "none": ([], [])}
    figure = plots.plot_losses(path, curves)
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("optimiser step", "loss")
    assert axes.get_yscale() == "log"
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    assert set(lines) == {"train", "validation"}
    np.testing.assert_array_equal(lines["train"], [[0, 1], [10, 0.5], [20, np.nan]])
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG" and min(image.size) >= 400
    assert list(path.parent.iterdir()) == [path]
    (few,) = plots.plot_losses(path, {"a": ([1, 2], [1.0, 0.5])}).axes
    assert all(float(tick).is_integer() for tick in few.get_xticks()), "there is no half a step"


def test_plot_losses_of_nothing_and_of_what_has_no_logarithm(tmp_path: Path) -> None:
    plots.plot_losses(tmp_path / "empty.png", {})
    plots.plot_losses(tmp_path / "nan.png", {"train": ([0, 1], [float("nan"), float("inf")])})
    zero = plots.plot_losses(tmp_path / "zero.png", {"train": ([0, 1], [1.0, 0.0])})
    assert zero.axes[0].get_yscale() == "linear"
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(ValueError, match="train"):
        plots.plot_losses(tmp_path / "bad.png", {"train": ([0, 1], [1.0])})


def test_pyplot_is_never_imported(tmp_path: Path) -> None:
    """It would choose a backend for the whole process; and no import of this module may cost a plotting library."""
    code = (
        "import sys; from ddpm.viz import plots; assert 'matplotlib' not in sys.modules; "
        f"plots.plot_losses({str(tmp_path / 'a.png')!r}, {{'train': ([0, 1], [1.0, 0.5])}}); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
