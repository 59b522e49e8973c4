"""Seconds from the imported libraries to the first training batch: ``python benchmarks/startup.py``.

Everything after the import of torch, Lightning, Hydra and TensorBoard counts, also what these do in between.
"""

import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


class FirstBatch(Exception):
    """Training has come this far."""


def main() -> None:
    """Measure once; start anew for another measurement, since imports are cached in the process."""
    began = time.perf_counter()
    import hydra
    import pytorch_lightning as pl
    import torch  # noqa: F401
    from pytorch_lightning.loggers import TensorBoardLogger
    from torch.utils.tensorboard import SummaryWriter  # noqa: F401

    TensorBoardLogger("unused")
    libraries = time.perf_counter()

    import train

    class Stop(pl.Callback):
        def on_train_batch_start(self, *args: object) -> None:
            raise FirstBatch

    train.StopBetweenBatches = Stop
    with tempfile.TemporaryDirectory() as out, hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        try:
            train.train(hydra.compose("config", [f"out={out}", *sys.argv[1:]]))
        except FirstBatch:
            first = time.perf_counter()
    print(f"import of the libraries {libraries - began:.2f} s, from there to the first batch {first - libraries:.2f} s")
    print(f"ratio {(first - libraries) / (libraries - began):.2f}")


if __name__ == "__main__":
    main()
