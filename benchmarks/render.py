"""Seconds to draw 16 clips of 64 frames and write them as a GIF: ``python benchmarks/render.py``."""

import sys
import tempfile
import time
from pathlib import Path

from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from datamodules.pose import Windows  # noqa: E402
from datamodules.sets.synthetic import synthetic  # noqa: E402
from ddpm.config import construct_part  # noqa: E402
from ddpm.viz.render import draw_clips, write_gif  # noqa: E402


def main() -> None:
    """Measure drawing, and drawing with writing, beside the time in which the clips play."""
    import torch

    skeleton = construct_part(OmegaConf.to_container(OmegaConf.load(ROOT / "conf/skeleton/kinect20.yaml")), "skeleton")
    index = torch.stack([torch.arange(16), torch.zeros(16, dtype=torch.long)], dim=1)
    clips = Windows(synthetic(skeleton, n=16), 64).__getitems__(index)["clips"].permute(0, 3, 1, 2).numpy()
    began = time.perf_counter()
    frames = draw_clips(clips, skeleton)
    drawn = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        write_gif(Path(out) / "clips.gif", frames, 20.0)
        size = (Path(out) / "clips.gif").stat().st_size
    written = time.perf_counter()
    print(f"drawn in {drawn - began:.2f} s, with the GIF {written - began:.2f} s, {size / 1e6:.2f} MB; plays {64 / 20:.1f} s")
    print(f"ratio of making to playing {(written - began) / (64 / 20):.2f}")


if __name__ == "__main__":
    main()
