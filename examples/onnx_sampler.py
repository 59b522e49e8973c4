"""Clips from an exported model with NumPy and onnxruntime alone: onnx_sampler.py model.onnx N STEPS OUT.npz [ACTION].

`python export.py ckpt=RUN file=model.onnx` makes the model. This is DDIM, without guidance and without rigid bones.
"""

import json
import sys

import numpy as np
import onnxruntime

path, n, steps, out, *action = sys.argv[1:]
n, steps = int(n), int(steps)
session = onnxruntime.InferenceSession(path)
card = json.loads(session.get_modelmeta().custom_metadata_map["card"])
facts, skeleton = card["statistics"], card["skeleton"]
mean, scale = (np.float32(facts[key])[..., None] for key in ("mean", "scale"))
alpha_bar = np.array(facts["alpha_bar"])
visited = np.linspace(len(alpha_bar) - 1, 0, steps).round().astype(int)  # from noise to the clean clip

more = {}
for node in session.get_inputs()[2:]:  # the condition: one-hot, or all 0 for any action
    more[node.name] = np.zeros((n, node.shape[1]), dtype=np.float32)
    more[node.name][:, [card["class_names"].index(name) for name in action]] = 1
x = np.random.default_rng(0).standard_normal((n, len(mean), skeleton["coords"], card["frames"]), dtype=np.float32)
for t, ahead in zip(visited, [*alpha_bar[visited[1:]], 1.0], strict=True):
    x0, eps = session.run(["x0_hat", "eps_hat"], {"xt": x, "t": np.full(n, t), **more})
    x = np.float32(np.sqrt(ahead) * x0 + np.sqrt(1 - ahead) * eps)

clips, root, travel = x * scale + mean, facts["root"], facts["travel"]  # to metres: relative to the root, whose steps add up
clips[:, root, travel, 0] = 0 if travel else clips[:, root, travel, 0]
clips[:, root, travel] = clips[:, root, travel].cumsum(-1) if travel else clips[:, root, travel]
clips += np.where(np.arange(len(mean))[:, None, None] == root, 0, clips[:, root : root + 1])
names = list(skeleton["joints"])
parents = [names.index(above) if above else -1 for above in skeleton["joints"].values()]
clips = clips.transpose(0, 3, 1, 2)
np.savez(out, clips=clips, fps=card["fps"], joint_names=names, parents=parents, units="m")
