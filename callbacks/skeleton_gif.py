"""SkeletonGIF: pictures of generated clips during training."""

import logging
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

from callbacks.samples import samples
from ddpm.module import MotionDiffusion
from ddpm.viz.render import draw_clips, write_gif

log = logging.getLogger(__name__)


class SkeletonGIF(Callback):
    """Draws clips sampled with the averaged weights, from the same noise each time.

    Writes ``samples/epoch_NNNN.gif`` and ``samples/final.gif`` in the run's directory and shows them in TensorBoard and W&B. A
    failure is a warning and does not end training.

    Args:
        every: epochs between two pictures; the end of training always gets one.
        n: clips in a picture, of the seeds from ``seed`` on.
        size: pixels of one clip's cell.

    Raises:
        ValueError: every or n below 1, or size below 32.
    """

    def __init__(self, every: int = 7, n: int = 16, seed: int = 0, size: int = 160) -> None:
        if every < 1 or n < 1 or size < 32:
            raise ValueError(f"callbacks.skeleton_gif: every={every} and n={n} must be at least 1, size={size} at least 32")
        self.every, self.n, self.seed, self.size = every, n, seed, size

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: MotionDiffusion) -> None:  # pyright: ignore
        """Draw if it is time."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every == 0 and epoch != trainer.max_epochs:
            self._draw(trainer, pl_module, f"epoch_{epoch:04d}.gif")

    def on_train_end(self, trainer: pl.Trainer, pl_module: MotionDiffusion) -> None:  # pyright: ignore
        """Draw the result."""
        self._draw(trainer, pl_module, "final.gif")

    def on_exception(self, trainer: pl.Trainer, pl_module: MotionDiffusion, exception: BaseException) -> None:  # pyright: ignore
        """Draw a final picture after Ctrl-C; other exceptions skip it."""
        if isinstance(exception, KeyboardInterrupt):
            self._draw(trainer, pl_module, "final.gif")

    def _draw(self, trainer: pl.Trainer, module: MotionDiffusion, name: str) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue]
            return
        path = Path(trainer.default_root_dir) / "samples" / name
        try:
            clips = samples(trainer, module, self.seed, self.n)
            if not clips.finite.all():
                log.warning("%s: %d of %d clips are not finite", path, int((~clips.finite).sum()), self.n)
            titles = [f"seed {self.seed + i}" for i in range(self.n)]
            frames = draw_clips(clips.positions.numpy(), module.skeleton, titles=titles, size=self.size, fps=module.fps)
            gif = write_gif(path, frames, module.fps)
            image = Summary.Image(height=frames.shape[1], width=frames.shape[2], colorspace=3, encoded_image_string=gif)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):  # it serves the bytes as they are; add_video would need moviepy
                    summary = Summary(value=[Summary.Value(tag="samples", image=image)])
                    logger.experiment.file_writer.add_summary(summary, trainer.global_step)
                elif isinstance(logger, WandbLogger):
                    logger.log_video("samples", [str(path)], step=trainer.global_step, format=["gif"])
        except Exception:  # a picture must never end training
            log.warning("%s: could not be drawn; training goes on", path, exc_info=True)
