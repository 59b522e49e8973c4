"""Look at data before training on it: ``python inspect_data.py DIR``, or with the ``data=... skeleton=...`` of ``train.py``."""

if __name__ == "__main__":
    from ddpm import startup

    startup.begin()

import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch.nn.utils.rnn import pad_sequence

from datamodules.clip_set import ClipSet
from datamodules.readers.raw_files import find_files
from datamodules.sets.folder import ENDINGS, fitting_skeletons
from datamodules.summary import summarise
from ddpm.clips import Clips
from ddpm.command import command, plain
from ddpm.command_line import WITH_VALUE
from ddpm.config import construct
from ddpm.errors import DataError, outside, printable, quoted, refuse, refuse_split
from ddpm.files import write_durably
from ddpm.viz.figure import draw_skeleton

log = logging.getLogger("inspect")


@dataclass
class Config:
    """Types of the keys."""

    frames: int
    loader: Any
    travel: Any
    out: str
    gif_clips: int
    skeleton: Any = None
    data: Any = None


def inspect_data(cfg: DictConfig) -> Path:
    """Print a summary, write it with ``skeleton.png``, ``clips.gif`` and ``clips.html``, and return their directory.

    A ConfigError or DataError for data that cannot be trained on.
    """
    refuse(outside(cfg, {"frames": "at least 1", "gif_clips": "at least 0"}))  # type: ignore[arg-type]
    refuse_split(cfg.loader.split)
    node = plain(cfg)["data"]
    if node.get("on_outlier") == "refuse":
        node["on_outlier"] = "keep"  # outliers are shown, not refused
    clips: ClipSet = construct(node, "data")
    out = Path(cfg.out)
    text = summarise(clips, cfg.frames, cfg.loader.split).text()
    log.info("%s", text)
    write_durably(out / "summary.txt", f"{text}\n".encode())
    every = max(1, len(clips.frames) // 500)
    draw_skeleton(out / "skeleton.png", clips.skeleton, clips.frames[::every].numpy())
    if cfg.gif_clips > 0:
        shown = middle_clips(clips, cfg.gif_clips, cfg.frames)
        for ending in ("gif", "html"):
            shown.save(out / f"clips.{ending}")
    log.info("pictures are in %s: skeleton.png%s", out, ", clips.gif, clips.html" if cfg.gif_clips else "")
    return out


def middle_clips(clips: ClipSet, n: int, frames: int) -> Clips:
    """The middles of ``n`` recordings, of as many classes as possible, spread over the data, with class or file as label."""
    label = clips.labels.numpy()
    order = np.argsort(label, kind="stable")
    chosen = sorted(set(order[np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(int)].tolist()))
    lengths = torch.tensor([min(frames, int(clips.lengths[i])) for i in chosen])
    first = [(int(clips.lengths[i]) - length) // 2 for i, length in zip(chosen, lengths.tolist(), strict=True)]
    cut = [clips.recording(i)[k : k + length] for i, k, length in zip(chosen, first, lengths.tolist(), strict=True)]
    labels = tuple(clips.class_names[label[i]] if label[i] >= 0 else clips.sources[i] or "" for i in chosen)
    return Clips(pad_sequence(cut, batch_first=True), lengths, clips.fps, clips.skeleton, labels=labels)


def with_path(arguments: Sequence[str]) -> list[str]:
    """The command line with a bare path written as ``data=folder data.root=PATH``, or ``data=bvh`` where such files are.

    Ends the program where there are several.
    """
    out: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        bare = not argument.startswith(("-", "~", "+")) and ("=" not in argument or Path(argument).exists())
        bare = bare and before not in WITH_VALUE
        group = "bvh" if bare and _is_bvh(Path(argument)) else "folder"
        out += [f"data={group}", f"data.root={quoted(argument)}"] if bare else [argument]
    if sum(argument in ("data=folder", "data=bvh") for argument in out) > 1 and len(out) > len(arguments) + 1:
        given = printable(" ".join(arguments)[:200])
        sys.stderr.write(f"inspect_data.py looks at one directory or file, not at all of {given}; give their directory\n")
        sys.exit(2)
    return out


def _is_bvh(place: Path) -> bool:
    """A BVH file, or a directory where half of what is read is BVH."""
    with suppress(DataError):
        found = [path.suffix.lower() == ".bvh" for path in find_files(place, ENDINGS)[0]]
        return 2 * sum(found) >= len(found)
    return False


def with_fitting_skeleton(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration with the one shipped skeleton that a folder's first file fits, if none was asked for."""
    asked = any(override.lstrip("+~").startswith("skeleton=") for override in overrides)
    if asked or cfg.data.get("_target_") != "datamodules.sets.folder.folder" or OmegaConf.is_missing(cfg.data, "root"):
        return cfg
    if not isinstance(cfg.data.root, str):  # reported by data=folder
        return cfg
    fit = fitting_skeletons(cfg.data.root)
    if len(fit) != 1:
        return cfg
    log.info("skeleton=%s fits the first file", fit[0])
    return hydra.compose("inspect", overrides=[*overrides, f"skeleton={fit[0]}"])


@command("inspect", Config)
def main(cfg: DictConfig) -> None:
    """The command."""
    logging.getLogger("datamodules").setLevel(logging.WARNING)  # the summary says what the readers would
    inspect_data(with_fitting_skeleton(cfg, HydraConfig.get().overrides.task))


if __name__ == "__main__":
    sys.argv[1:] = with_path(sys.argv[1:])
    main()
