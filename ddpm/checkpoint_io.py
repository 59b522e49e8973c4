"""Lightning's checkpoint files, written so that they survive a full disk and a power cut."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from ddpm.checkpoint import numbers_in, read_checkpoint
from ddpm.errors import CheckpointError
from ddpm.files import write_durably

LEARNED = ("state_dict", "current_model_state", "averaging_state", "optimizer_states")
"""The learned parts of a checkpoint: the average that is sampled from, the raw weights, and the state of the optimiser."""


class DurableCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written beside the old file and put in its place in one step.

    The stock class stages in another directory and moves, which on another file system is a copy over the old file, and swallows
    missing permissions; here the previous checkpoint stays whole whatever happens.

    Args:
        out: directory of the run, outside of which nothing is removed: what Lightning replaces is named in the checkpoint.
    """

    def __init__(self, out: Path | None = None) -> None:
        super().__init__()
        self.out = out

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove one file of the run that ends in .ckpt, and nothing else."""
        path = Path(path).resolve()
        if path.is_file() and path.suffix == ".ckpt" and (self.out is None or path.is_relative_to(self.out.resolve())):
            path.unlink()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to ``path``.

        Raises:
            CheckpointError: weights, their average or the state of the optimiser are not finite. The old file is untouched.
            WriteError: a disk that does not take the file.
        """
        learned = numbers_in({key: checkpoint.get(key) for key in LEARNED})
        # A sum is quicker, and finite only if all of its parts are.
        bad = next((name for name, value in learned if not (value.sum().isfinite() or value.isfinite().all())), None)
        if bad is not None:
            raise CheckpointError(f"{path}: not written, {bad} is not finite: training has diverged before this point")
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_durably(path, buffer.getbuffer())

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint with `read_checkpoint`; ``weights_only`` cannot be switched off."""
        return read_checkpoint(path)
