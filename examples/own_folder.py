"""Go on from a trained model with motion of your own, in Python: own_folder.py RUN|pretrained DIR STEPS OUT.

`python train.py finetune=RUN data=folder data.root=DIR` does the same with checkpoints, plots and metrics.
"""

import sys
from dataclasses import replace
from functools import partial

import pytorch_lightning as pl
import torch

from datamodules.pose import PoseDataModule
from datamodules.sets.folder import folder
from ddpm import MotionDiffusion

run, directory, steps, out = sys.argv[1:]
model = MotionDiffusion.load_from_checkpoint(run)  # a LightningModule, where ddpm.load gives what samples alone
recordings = folder(model.skeleton, directory, target_fps=model.fps)  # joints are found by name
print("\n".join(recordings.notes))

# Directories that are called as the model's actions are these actions; other recordings are of no action.
names = [*model.class_names]
place = torch.tensor([names.index(name) if name in names else -1 for name in recordings.class_names] + [-1])
recordings = replace(recordings, class_names=model.class_names, labels=place[recordings.labels])

facing = model.configuration["loader"]["facing"]  # whether all clips face one way, as in training
data = PoseDataModule(recordings, model.frames, batch_size=16, steps_per_epoch=50, split="sequence", facing=facing)
model.optimizer = partial(torch.optim.AdamW, lr=2e-4)
trainer = pl.Trainer(max_steps=int(steps), gradient_clip_val=1.0, logger=False, enable_checkpointing=False, default_root_dir=out)
trainer.fit(model.train(), data)

model.sample(8, device="cpu").save(f"{out}/own.gif")
print(*model.export(f"{out}/own.safetensors"), sep="\n")
