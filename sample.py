"""Generate motion from a trained model: ``python sample.py ckpt=RUN n=16 seed=0 out=DIR``."""

if __name__ == "__main__":
    from ddpm import startup

    startup.begin()

import logging
import math
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from datamodules.cache import through_cache
from datamodules.readers.arrays import read_vectors
from datamodules.source import read_source, read_whole, refuse_beyond
from ddpm.build import own_data
from ddpm.checkpoint import load_run
from ddpm.clips import Clips
from ddpm.command import command
from ddpm.config import construct_data
from ddpm.editing import edit, given_by, interpolate, invert, vary
from ddpm.errors import ConfigError, refuse
from ddpm.files import refuse_unwritable
from ddpm.guide import Autoguidance
from ddpm.metrics.reference import windows_at
from ddpm.model import LONGEST, MotionModel, choose_device
from ddpm.process.condition import LabelCondition
from ddpm.request import Request, refuse_request, sampler_of, script_of
from ddpm.viz.bvh_out import RoundTrip, write_bvh_files
from ddpm.viz.viewer import MOST

log = logging.getLogger("sample")


def sample(composed: DictConfig) -> Path:
    """Write ``clips.npz``, ``clips.gif`` and what ``export`` names; return the path of the first; a ProjectError for wrong input.

    Inverted clips have their noise in the file, ``noise`` float32 (n, joints, coords, frames). No data set is needed, but for
    ``source=val``.
    """
    cfg: Request = OmegaConf.to_object(composed)  # type: ignore[assignment]
    refuse_request(cfg)
    model, run = load_run(cfg.ckpt, cfg.trust)
    if cfg.ckpt == "pretrained":
        log.info("ckpt=pretrained, the small model of procedural clips that comes with the project; ckpt=RUN is one of your own")
    stretch = max(1, (cfg.fps or model.fps) / (model.fps * cfg.tempo))
    script = None if cfg.script is None else script_of(cfg.script)
    scripted = min(sum(length for _, length in script or ()) * model.fps, LONGEST)
    frames = math.ceil((cfg.frames or scripted or model.frames) * stretch)
    model.refuse_large(cfg.n, frames)
    model.to(choose_device(cfg.device))
    if cfg.export == "bvh" and model.skeleton.coords != 3:
        raise ConfigError(f"export={cfg.export}: rotations need three dimensions, the skeleton has {model.skeleton.coords}")
    values = cfg.n * frames * len(model.skeleton.names) * model.skeleton.coords
    refuse_unwritable(cfg.out, 4 * values)
    refuse([(cfg.export == "html" and values > MOST, f"n={cfg.n}: a page of {values} numbers, at most {MOST} are possible")])
    sampler = sampler_of(cfg, model)
    wanted = cfg.action if cfg.action is None or isinstance(cfg.action, list) else [cfg.action]
    labels = None if wanted is None else model.find_labels([str(name) for name in wanted], cfg.n)
    if cfg.vector is not None:
        try:
            labels = model.find_vectors(read_vectors(Path(cfg.vector).expanduser()), 1 if cfg.interpolate else cfg.n)
        except ValueError as error:
            raise ConfigError(f"vector={cfg.vector}: {str(error).removeprefix('condition: ')}") from error
    turned = (run.get("loader") or {}).get("facing", False)
    source = None if cfg.source is None else source_of(cfg, model, run, turned).positions.float()
    seeds, arrays, drawn, titles, cells = range(cfg.seed, cfg.seed + cfg.n), {}, None, None, cfg.gif_clips
    project = {"none": None, None: ""}.get(cfg.project, cfg.project)  # the empty string is the model's own
    guidance = cfg.guidance
    if cfg.guide is not None and cfg.guidance is not None:
        guidance = Autoguidance(load_run(cfg.guide, cfg.trust)[0], cfg.guidance, f"guide={cfg.guide}")
    options = {"labels": labels, "guidance": guidance, "project": project, "sampler": sampler, "batch_size": cfg.batch_size}
    began = time.monotonic()
    if cfg.invert is not None and source is not None:
        source = source[: cfg.n]
        clips, noise = invert(model, source, cfg.invert, cfg.batch_size)
        arrays = {"noise": noise.numpy()}
        drawn = model.as_clips(torch.stack([source, clips.positions], dim=1).flatten(0, 1))  # each beside its source
        titles = [text for i in range(len(source)) for text in (f"source {cfg.source_clip + i}", "sampled again")]
        cells *= 2
    elif cfg.vary is not None and source is not None:
        clips = vary(model, source[0], cfg.vary, seeds, **options)
        drawn, titles = model.as_clips(torch.cat([source[:1], clips.positions])), ["the source", *(clips.titles or [])]
        cells += 1
    elif cfg.edit is not None:
        clip, floor, action = read_whole(cfg.edit, model.skeleton, model.fps, cfg.source_clip)
        if labels is None and isinstance(model.condition, LabelCondition) and action in model.condition.known:
            options["labels"] = model.find_labels(action, cfg.n)
        model.refuse_large(cfg.n, math.ceil(len(clip) * stretch))
        given = given_by(cfg.keep, model.skeleton, len(clip))
        clips = edit(model, clip, given, seeds, facing=turned, floor=floor, **options)
        drawn, titles = model.as_clips(torch.cat([clip[None], clips.positions])), ["the clip", *(clips.titles or [])]
        drawn = replace(drawn, given=given & (torch.arange(len(drawn)) > 0)[:, None, None, None])
        cells += 1
    elif cfg.interpolate is not None:
        clips = interpolate(model, cfg.interpolate, cfg.n, frames=cfg.frames, **options)
        titles = [f"{cfg.interpolate[0]} to {cfg.interpolate[1]}: {i}/{cfg.n - 1}" for i in range(cfg.n)]
    else:
        clips = model.sample(seeds, frames=cfg.frames, loop=cfg.loop, script=script, progress=True, **options)
    seconds = time.monotonic() - began
    clips.require_finite()
    pace = partial(Clips.resampled, fps=cfg.fps, tempo=cfg.tempo, cycle=model.normalizer.travel if cfg.loop else None)
    clips, out = pace(clips), Path(cfg.out)
    (path,) = clips.save(out / "clips.npz", arrays=arrays)
    n, frames = clips.positions.shape[:2]
    log.info("%s: %d clip%s of %d frames at %g fps, sampled in %.1f s", path, n, "s" * (n != 1), frames, clips.fps, seconds)
    drawn, titles = (clips, titles or clips.titles) if drawn is None else (pace(drawn), titles)
    if cfg.gif_clips > 0:
        drawn.take(slice(cells)).save(out / "clips.gif", titles=titles and titles[:cells])
        log.info("%s: %d of them", out / "clips.gif", min(cfg.gif_clips, len(clips)))
    if cfg.export == "mp4":
        first = cells if cfg.gif_clips > 0 else len(drawn)
        log.info("%s: the picture as a film", *drawn.take(slice(first)).save(out / "clips.mp4", titles=titles and titles[:first]))
    if cfg.export == "html":
        log.info("%s: all of them; open it in a browser", *drawn.save(out / "clips.html", titles=titles))
    if cfg.export in ("csv", "glb"):
        log.info("%s: %d files", out / f"clip_*.{cfg.export}", len(clips.save(out / f"clip.{cfg.export}")))
    if cfg.export == "bvh":
        trips = write_bvh_files(out / "clip.bvh", clips).values()
        log.info("\n  ".join([f"{out / 'clip_*.bvh'}: {len(trips)} files", *RoundTrip.lines(trips)]))
    return path


def source_of(cfg: Request, model: MotionModel, run: dict[str, Any], turned: bool) -> Clips:
    """The clips that ``source`` names, from number ``source_clip`` on; of held-out recordings windows as in training."""
    source = str(cfg.source)
    if source != "val":
        n = 1 if cfg.vary is not None else cfg.n
        return read_source(source, model.skeleton, model.fps, model.frames, cfg.source_clip, n, turned)
    data = own_data(run, cfg.data, through_cache(partial(construct_data, trust=cfg.trust), cfg.cache))
    whole = data.val_recordings[data.clips.lengths[data.val_recordings] >= model.frames]
    index = data.whole_windows(whole)
    refuse_beyond(cfg.source_clip, len(index), "val")
    return windows_at(data, index[cfg.source_clip :][: cfg.n])


@command("sample", Request)
def main(cfg: DictConfig) -> None:
    """The command."""
    sample(cfg)


if __name__ == "__main__":
    main()
