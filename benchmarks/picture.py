"""The picture of README.md: recorded motion above, generated below: ``python benchmarks/picture.py RUN --out FILE.gif``."""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ddpm.build import own_data  # noqa: E402
from ddpm.checkpoint import load_run  # noqa: E402
from ddpm.metrics.reference import windows  # noqa: E402
from ddpm.viz.render import draw_clips, write_gif  # noqa: E402


def main() -> None:
    """Draw, of actions spread evenly over the list, the first held-out recording, and the clip of the first seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--root", help="where the recordings are now")
    parser.add_argument("--columns", type=int, default=5)
    args = parser.parse_args()
    module, config = load_run(args.run)
    data = own_data(config, {"root": args.root})
    names = module.class_names
    chosen = [names[k * len(names) // args.columns] for k in range(args.columns)]
    held = data.val_recordings
    first = torch.stack([held[data.clips.labels[held] == names.index(name)][0] for name in chosen])
    real = [windows(data, recording[None], 1)[0] for recording in first]
    made = module.sample(range(args.columns), action=chosen).positions
    positions = np.concatenate([*(clip.positions for clip in real), made])
    lengths = [*(int(clip.lengths) for clip in real), *[module.frames] * args.columns]
    titles = [f"{kind} {name.replace('_', ' ')}" for kind in ("real", "generated") for name in chosen]
    how = {"titles": titles, "lengths": lengths, "columns": args.columns, "size": 160, "fps": module.fps}
    frames = draw_clips(positions, module.skeleton, **how)
    write_gif(args.out, frames, module.fps)


if __name__ == "__main__":
    main()
