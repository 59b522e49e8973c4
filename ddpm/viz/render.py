"""Pictures of clips: animated stick figures, as GIF or MP4."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ddpm.errors import escaped
from ddpm.files import write_durably
from ddpm.memory import refuse_beyond_memory
from ddpm.skeleton import Skeleton
from ddpm.viz.body import BAR, INK, PAPER, WARNING, figure_frames
from ddpm.viz.camera import View, project

FADED = 0.35  # strength of the last pose of a clip that has ended


def draw_clips(
    clips: np.ndarray,
    skeleton: Skeleton,
    *,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    size: int = 200,
    lengths: Sequence[int] | None = None,
    given: np.ndarray | None = None,
    fps: float | None = None,
) -> np.ndarray:
    """Stick figures in a grid, one cell per clip, row by row: ``(frames, height, width, 3)`` uint8.

    3-D bodies are seen from the front at three quarters, animals and hands from their broadest side, 2-D ones in their plane.
    Left is blue, right vermilion, without sides parts differ; the head gets a disc. Positions that are not finite are left out
    and the cell says so. A bar shows the time. What was given is grey, as is a path on the floor, and the nearest frames that
    were given whole stand behind the body.

    Args:
        clips: ``(n, frames, joints, coords)`` metres, right-handed axes if 3-D.
        columns: cells in a row; None for a grid that is almost square and has as few empty cells as can be.
        size: width and height of a cell in pixels, at least 32; titles add to the height.
        lengths: real frames of each clip, None for all; after them it holds its last pose, faded.
        given: bool, shaped like ``clips``: the coordinates that were given, while the others were generated; None for none.
        fps: for a line below with the seconds and the length of a bar; None for no line.

    Raises:
        ValueError: a wrong shape, or titles, lengths, given, columns or size that do not fit.
    """
    expected = (len(skeleton.names), skeleton.coords)
    if clips.ndim != 4 or clips.shape[2:] != expected or 0 in clips.shape:
        raise ValueError(f"clips have shape {clips.shape}, expected (n >= 1, frames >= 1, {expected[0]}, {expected[1]})")
    n, frames = clips.shape[:2]
    ends = [frames] * n if lengths is None else list(lengths)
    if len(ends) != n or not all(1 <= end <= frames for end in ends):
        raise ValueError(f"lengths must hold {n} numbers from 1 to {frames}, got {ends}")
    if titles is not None and len(titles) != n:
        raise ValueError(f"titles must hold one line for each of the {n} clips, got {len(titles)}")
    if given is not None and (given.shape != clips.shape or given.dtype != bool):
        raise ValueError(f"given must be bool of shape {clips.shape}, got {given.dtype} of shape {given.shape}")
    given = np.zeros(clips.shape, dtype=bool) if given is None else given
    columns = _columns(n) if columns is None else columns
    if columns < 1 or size < 32:
        raise ValueError(f"columns must be at least 1 and size at least 32, got {columns} and {size}")

    refuse_beyond_memory(f"a picture of {n} clips of {frames} frames", 3 * n * frames * size**2, "draw fewer, or smaller ones")
    last = np.minimum(np.arange(frames), np.array(ends)[:, None] - 1)
    view = project(clips[np.arange(n)[:, None], last], skeleton, size)
    font = ImageFont.load_default(max(9, size // 15))
    strip = 0 if titles is None else round(size * 0.11)
    columns = min(columns, n)
    rows = -(-n // columns)
    foot = 0 if fps is None else round(size * 0.13)
    sheet = Image.new("RGB", (columns * size, rows * (size + strip) + foot), PAPER)
    write = ImageDraw.Draw(sheet)
    for i, title in enumerate(titles or ()):
        title = escaped(title[:200], "")  # a name of a file: a line end cannot be measured, and shortening takes a step a letter
        while title and write.textlength(title, font) > 0.94 * size:
            title = title.rstrip("…")[:-1] + "…" if len(title) > 2 else ""
        x, y = i % columns * size + size / 2, i // columns * (size + strip) + strip * 0.62
        write.text((x, y), title, INK, font, anchor="mm")
    out = np.repeat(np.asarray(sheet)[None], frames, axis=0)
    for i in range(n):
        x, y = i % columns * size, i // columns * (size + strip) + strip
        cell = out[:, y : y + size, x : x + size]
        cell[: ends[i]] = figure_frames(view, i, skeleton, size, ends[i], given[i, : ends[i]])
        pale = np.asarray(PAPER) + FADED * (cell[ends[i] - 1].astype(np.float64) - PAPER)
        cell[ends[i] :] = np.rint(pale).astype(np.uint8)
        notes = [] if np.isfinite(view.points[i]).all() else ["not finite"]
        notes += [f"{view.zoom[i]:.2g} times smaller"] if view.zoom[i] > 1 else []
        for part, words in ((cell[: ends[i]], notes), (cell[ends[i] :], [*notes, "ended"])):
            if words:
                _note(part, ", ".join(words), WARNING if words[0] == "not finite" else INK, font)
    if fps is not None:
        _scale_and_time(out[:, -foot:], view, skeleton, fps, font)
    for t in range(frames if frames > 1 else 0):
        out[t, -max(2, size // 80) :, : (t + 1) * out.shape[2] // frames] = BAR
    return out


def _note(cell: np.ndarray, words: str, colour: tuple[int, int, int], font: Any) -> None:
    """Write in the upper left corner of a cell ``(frames, size, size, 3)``."""
    size = cell.shape[2]
    label = Image.new("RGB", (size, max(12, size // 12)), PAPER)
    ImageDraw.Draw(label).text((size * 0.03, 0), words, colour, font)
    cell[:, : label.height] = np.minimum(cell[:, : label.height], np.asarray(label))


def _scale_and_time(strip: np.ndarray, view: View, skeleton: Skeleton, fps: float, font: Any) -> None:
    """Draw into ``(frames, height, width, 3)`` a bar of so many metres, unless they are pixels, and the seconds."""
    frames, height, width, _ = strip.shape
    pixels = float(view.scale[view.zoom == 1].max(initial=0.0))  # of a metre
    lengths = [m for m in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if 2 * height < m * pixels < 0.4 * width]
    for t in range(frames):
        line = Image.new("RGB", (width, height), PAPER)
        draw = ImageDraw.Draw(line)
        if lengths and skeleton.units != "px":
            left, middle = height / 2, height * 0.45
            right = left + lengths[0] * pixels
            draw.line([left, middle, right, middle], INK, max(1, height // 10))
            draw.text((right + height / 3, middle), f"{lengths[0]:g} m", INK, font, anchor="lm")
        draw.text((width - height / 2, height * 0.45), f"{t / fps:.1f} s", INK, font, anchor="rm")
        strip[t] = np.asarray(line)


def _columns(n: int) -> int:
    """Of a grid of n cells with the fewest empty ones, and of those the nearest to a square."""
    square = int(np.ceil(np.sqrt(n)))
    return min(range(square, square + 3), key=lambda columns: (-n % columns, columns))


def gif_bytes(frames: np.ndarray, fps: float) -> bytes:
    """An endless GIF of frames ``(frames, height, width, 3)`` uint8 that lasts ``len(frames) / fps`` seconds.

    A GIF counts in hundredths of a second: the durations alternate so that their sum is right. Browsers slow frames
    shorter than two hundredths down to ten, so that above 50 frames per second only every k-th frame is kept.

    Raises:
        ValueError: frames that are not such an array, or a rate below 0.01 or not finite.
    """
    _check_frames(frames, fps)
    stride = int(np.ceil(fps / 50))
    ticks = np.rint(np.minimum(np.arange(0, len(frames) + stride, stride), len(frames)) * (100 / fps)).astype(int)
    durations = (np.diff(ticks) * 10).tolist() if len(ticks) > 2 else int(np.diff(ticks)[0]) * 10  # of one frame: no list
    # With one palette for all frames, and not one each as imageio has it, this takes an eighth of the time and a sixth less room.
    pictures = [Image.fromarray(frame) for frame in frames[::stride]]
    some = [np.asarray(pictures[k]) for k in np.linspace(0, len(pictures) - 1, min(8, len(pictures))).astype(int)]
    palette = Image.fromarray(np.concatenate(some)).quantize(256, method=Image.Quantize.FASTOCTREE)
    colours, paper = palette.getpalette() or [], int(palette.getpixel((0, 0)))  # type: ignore[arg-type]
    colours[3 * paper : 3 * paper + 3] = some[0][0, 0].tolist()  # the background exactly
    palette.putpalette(colours)
    first, *rest = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    content = io.BytesIO()
    first.save(content, "GIF", save_all=True, append_images=rest, duration=durations, loop=0)
    return content.getvalue()


def mp4_bytes(frames: np.ndarray, fps: float) -> bytes:
    """An H.264 video of frames ``(frames, height, width, 3)`` uint8.

    Raises:
        ValueError: as `gif_bytes`.
        ImportError: imageio-ffmpeg is not installed.
    """
    _check_frames(frames, fps)
    even = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")  # H.264 needs it
    try:
        return iio.imwrite("<bytes>", even, extension=".mp4", plugin="FFMPEG", fps=fps, codec="libx264", macro_block_size=2)
    except ImportError as error:
        raise ImportError("an .mp4 needs imageio-ffmpeg: pip install 'pose-ddpm[video]' or pip install -e '.[video]'") from error


def write_gif(path: str | Path, frames: np.ndarray, fps: float) -> bytes:
    """Write ``gif_bytes(frames, fps)`` to a file, whole or not at all, and return it; a ValueError for another ending."""
    if Path(path).suffix.lower() != ".gif":
        raise ValueError(f"{path}: a GIF is written to a file that ends in .gif")
    gif = gif_bytes(frames, fps)
    write_durably(path, gif)
    return gif


def _check_frames(frames: np.ndarray, fps: float) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(f"frames must be uint8 (frames >= 1, height, width, 3), got {frames.dtype} {frames.shape}")
    if not 0.01 <= fps < np.inf:  # a GIF cannot show a frame for much longer than a hundred seconds
        raise ValueError(f"fps must be a finite number of at least 0.01, got {fps}")
