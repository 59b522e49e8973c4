"""How near samplers come to the clips of 200 steps of ddim, in how many calls: compare_samplers.py RUN|pretrained OUT.csv.

Samplers without noise find the same clip of the same seed. `python compare.py ckpt=RUN` compares clips with recorded motion.
"""

import sys
import time
from pathlib import Path

from ddpm import load
from ddpm.process.samplers import ddim, dpmpp_2m, heun, unipc

run, out = sys.argv[1:]
model = load(run)
seeds = range(8)
best = model.sample(seeds, sampler=ddim, steps=200)

rows = ["sampler,steps,seconds,centimetres"]
for sampler in (ddim, dpmpp_2m, heun, unipc):
    for steps in (5, 9, 17, 33):
        began = time.monotonic()
        clips = model.sample(seeds, sampler=sampler, steps=steps)
        seconds = time.monotonic() - began
        off = 100 * (clips.positions - best.positions).norm(dim=-1).mean()
        rows.append(f"{sampler.__name__},{steps},{seconds:.2f},{off:.2f}")
        print(rows[-1])
Path(out).write_text("\n".join(rows) + "\n")
