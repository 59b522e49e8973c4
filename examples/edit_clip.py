"""Keep the legs of a clip, or its ends, and make the rest anew: edit_clip.py RUN|pretrained CLIPS.npz KEEP OUT.

KEEP is a list as for `python sample.py edit=CLIPS.npz keep=[...]`: ":8,-8:" both ends, "left_leg,right_leg" these parts.
"""

import sys

import torch

from datamodules.source import read_whole
from ddpm import load
from ddpm.editing import edit, given_by

run, path, keep, out = sys.argv[1:]
model = load(run)
clip, floor, action = read_whole(path, model.skeleton, model.fps, 0)  # the first clip of any file that data=folder reads
given = given_by(keep.split(","), model.skeleton, len(clip))
facing = model.configuration["loader"]["facing"]  # whether all clips faced one way in training
clips = edit(model, clip, given, range(4), facing=facing, floor=floor)

off = 100 * (clips.positions - clip).abs()
print(f"{path}: {action or 'no action'}, {len(clip)} frames, {given.float().mean():.0%} of it kept")
print(f"coordinates change by {off[:, ~given].mean():.1f} cm where they are made, by {off[:, given].max():.1g} where kept")
shown = model.as_clips(torch.cat([clip[None], clips.positions]))  # the clip, and four that share a part with it
shown.save(f"{out}/edited.gif", titles=["the clip", *clips.titles])
clips.save(f"{out}/edited.npz")
