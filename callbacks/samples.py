"""Clips sampled with the averaged weights, once for all callbacks that use the same ones at the same step."""

import contextlib
from weakref import WeakKeyDictionary

import pytorch_lightning as pl

from callbacks.ema import EMA
from ddpm.clips import Clips
from ddpm.module import MotionDiffusion

_latest: WeakKeyDictionary[pl.Trainer, tuple[int, int, Clips]] = WeakKeyDictionary()
"""Trainer -> step, first seed and clips of the last sampling."""


def samples(trainer: pl.Trainer, module: MotionDiffusion, seed: int, n: int) -> Clips:
    """``n`` clips of the seeds from ``seed`` on; those of the last call, if it was at this step and had them all."""
    step, first, clips = _latest.get(trainer, (-1, 0, None))
    if clips is None or step != trainer.global_step or not first <= seed <= seed + n <= first + len(clips):
        with averaged(trainer, module):
            clips = module.sample(range(seed, seed + n))
        first = seed
        _latest[trainer] = trainer.global_step, first, clips
    return clips.take(slice(seed - first, seed - first + n))


def averaged(trainer: pl.Trainer, module: MotionDiffusion) -> contextlib.AbstractContextManager[None]:
    """Within this context the module has the averaged weights, if there are any."""
    ema = next((callback for callback in trainer.callbacks if isinstance(callback, EMA)), None)  # pyright: ignore
    return contextlib.nullcontext() if ema is None else ema.averaged(module)
