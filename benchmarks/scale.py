"""What a data set of a thousand to a million clips costs: ``python benchmarks/scale.py [LARGEST]``.

Writes synthetic random walks of 16 frames into temporary stores (3.9 GB for a million, in the folder that TMPDIR
names), opens each in a process of its own, and deletes it. Memory is the anonymous part, which the system cannot drop as it
drops mapped pages of the files when it needs the room.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

FRAMES, BATCHES = 16, 300


def main() -> None:
    """Measure every size, or with ``--measure`` one store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("largest", type=int, nargs="?", default=10**6, help="largest number of clips")
    parser.add_argument("--measure", metavar="STORE", help="measure this store, in this process")
    args = parser.parse_args()
    if args.measure is None:
        compare(args.largest)
    else:
        measure(args.measure)


def compare(largest: int) -> None:
    """Measure every size and print it as a ratio to the smallest."""
    sizes = [n for n in (10**3, 10**4, 10**5, 10**6) if n <= largest]
    with tempfile.TemporaryDirectory() as folder:
        free, needed = shutil.disk_usage(folder).free, 2 * largest * FRAMES * 60 * 4
        if free < needed:
            raise SystemExit(f"{folder}: {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB needed; set TMPDIR, or name fewer clips")
        first = None
        for n in sizes:
            path = Path(folder, str(n))
            began = time.perf_counter()
            write(path, n)
            written = time.perf_counter() - began
            command = [sys.executable, __file__, "--measure", str(path)]
            got = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            shutil.rmtree(path)
            first = first or got
            print(
                f"{n:>8} clips: batch {got['batch']:.2f} ms ({got['batch'] / first['batch']:.2f} x), "
                f"new pass {got['pass']:.1f} ms, memory {got['before']:.0f} + {got['memory']:.1f} MB "
                f"({(got['before'] + got['memory']) / (first['before'] + first['memory']):.2f} x), "
                f"opened in {got['open']:.2f} s, written in {written:.0f} s",
                flush=True,
            )


def write(path: Path, n: int) -> None:
    """A store of n clips: a thousand random walks, again and again."""
    import numpy as np

    from datamodules.clip_set import Recording
    from datamodules.sets.store import write_store
    from ddpm.skeleton import Skeleton

    skeleton = Skeleton({f"j{i}": f"j{i - 1}" if i else None for i in range(20)})
    walks = np.random.default_rng(0).normal(size=(1000, FRAMES, 20, 3), scale=0.02).cumsum(axis=1, dtype=np.float32)
    write_store((Recording(walks[i % 1000], f"{i}", None, f"p{i % 97}") for i in range(n)), path, fps=20, skeleton=skeleton)


def measure(path: str) -> None:
    """Open a store, split it and gather batches as in training."""
    import torch

    from datamodules.pose import PoseDataModule
    from datamodules.sets.store import open_store

    torch.set_num_threads(1)
    before = anonymous()
    began = time.perf_counter()
    data = PoseDataModule(open_store(path), FRAMES // 2, batch_size=64, steps_per_epoch=BATCHES)
    data.statistics_batch()
    opened = time.perf_counter() - began
    times = []
    batches = iter(data.train_dataloader())
    for _ in range(BATCHES):
        began = time.perf_counter()
        next(batches)
        times.append(1000 * (time.perf_counter() - began))
    # The first batch brings the order of the whole pass.
    result = {
        "batch": statistics.median(times),
        "pass": times[0],
        "before": before,
        "memory": anonymous() - before,
        "open": opened,
    }
    sys.stdout.write(json.dumps(result))


def anonymous() -> float:
    """Megabytes of this process that are no file's."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not tell anonymous memory")


if __name__ == "__main__":
    main()
