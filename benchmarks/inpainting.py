"""Rules for a part of a clip that is given: what each makes of the rest of held-out clips.

    python train.py experiment=laptop data=msr_action3d data.root=DIR out=RUN
    python benchmarks/inpainting.py RUN --root DIR --masked FILE

``--masked`` also compares a network of the same configuration that is given masks in training; it is trained as long as RUN was
and kept in FILE, which is read if it is there.

The same model, clips, actions, seeds and sampler for all; RePaint has its own sampler. Columns:

    missed        mean distance of given joints from where they should be, before they are written over
    from source   mean distance of all other joints from the held-out clip: there are other ways to fill a gap
    seam          mean change of the step of a joint from frame to frame, where a given frame meets one that is made
    above 95 %    share of seams above the 95th percentile of such changes in the real clips
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from callbacks.ema import EMA  # noqa: E402
from datamodules.pose import PoseDataModule  # noqa: E402
from ddpm.build import own_data  # noqa: E402
from ddpm.checkpoint import checkpoint_of, load_run, read_checkpoint  # noqa: E402
from ddpm.clips import Clips  # noqa: E402
from ddpm.editing import given_by  # noqa: E402
from ddpm.metrics.distances import frechet  # noqa: E402
from ddpm.metrics.features import pose  # noqa: E402
from ddpm.metrics.reference import held_out  # noqa: E402
from ddpm.model import MotionModel  # noqa: E402
from ddpm.module import MotionDiffusion, build_module  # noqa: E402
from ddpm.process.constraints import Known  # noqa: E402
from ddpm.process.diffusion import ClipLosses, DenoiseDiffusion  # noqa: E402
from ddpm.process.prediction import X0, Prediction  # noqa: E402
from ddpm.process.samplers import Denoise, Observer, Sampler, batch_of, dpmpp_2m_sde  # noqa: E402
from ddpm.process.spacing import levels  # noqa: E402

Rule = Callable[[MotionModel, Tensor, Tensor], dict]
"""(model, clip, given), both ``(joint, coord, frame)`` -> arguments of `MotionModel.generate`; ``model`` for another one."""


def explained(
    model: MotionModel, clip: Tensor, given: Tensor, prediction: Prediction | None = None, sampler: Sampler | None = None
) -> dict:
    """The rule of this project: the mean of the Gaussian given the coordinates; of another prediction, they are written over."""
    prediction = prediction or model.diffusion.prediction
    return {"known": Known(clip.double(), given, model.normalizer, prediction, model.skeleton), "sampler": sampler}


def reconstructed(model: MotionModel, clip: Tensor, given: Tensor, weight: float) -> dict:
    """Reconstruction guidance (Ho et al. 2022, arXiv 2204.03458, section 3.1): down the slope of the error of what is given."""
    values = model.normalizer(clip[None])

    def sampler(denoise: Denoise, noise: Tensor, alpha_bar: Tensor, *, randn: Callable, observer: Observer | None) -> Tensor:
        def led(xt: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                xt = xt.detach().requires_grad_()
                x0_hat = denoise(xt, t)[0]
                error = torch.where(given, x0_hat - values, 0).square().sum()
                slope = torch.autograd.grad(error, xt)[0]
            level = alpha_bar[t].reshape(-1, 1, 1, 1)
            moved = x0_hat.detach() - weight / 2 * level.sqrt() * slope
            x0_hat = torch.where(given, values, moved)
            return x0_hat, (xt.detach() - level.sqrt() * x0_hat) / (1 - level).sqrt()

        return model.sampler(led, noise, alpha_bar, randn=randn, observer=observer)

    return {"sampler": sampler}


def repainted(model: MotionModel, clip: Tensor, given: Tensor, steps: int, repeats: int) -> dict:
    """RePaint (Lugmayr et al. 2022, algorithm 1): given values of as much noise, and every step taken several times."""
    values = model.normalizer(clip[None])

    def sampler(denoise: Denoise, noise: Tensor, alpha_bar: Tensor, *, randn: Callable, observer: Observer | None) -> Tensor:
        x, path = noise, levels(alpha_bar, steps, "logsnr")
        for here, there in pairwise(path):
            ratio = here.alpha_bar / there.alpha_bar
            for again in reversed(range(repeats)):
                x0_hat, eps_hat = denoise(x, batch_of(here.t, x))[:2]
                fresh = min((1 - ratio) / (1 - here.alpha_bar), 1.0)  # a step of ancestral sampling
                free = there.signal * x0_hat + there.sigma * ((1 - fresh) ** 0.5 * eps_hat + fresh**0.5 * randn())
                x = torch.where(given, there.signal * values + there.sigma * randn(), free)
                x = x if again == 0 else ratio**0.5 * x + (1 - ratio) ** 0.5 * randn()
        return torch.where(given, values, denoise(x, batch_of(path[-1].t, x))[0])

    return {"sampler": sampler}


RULES: dict[str, Rule] = {
    "Gaussian (ours)": explained,
    "written over x0_hat": partial(explained, prediction=X0()),
    "reconstruction guidance 0.3": partial(reconstructed, weight=0.3),
    "reconstruction guidance 1": partial(reconstructed, weight=1.0),
    "Gaussian, SDE of 51 calls": partial(explained, sampler=partial(dpmpp_2m_sde, steps=51)),
    "RePaint, 17 x 3": partial(repainted, steps=17, repeats=3),
    "RePaint, 50 x 5": partial(repainted, steps=50, repeats=5),
}


class Masked(nn.Module):
    """A network that is also given what is given of the clean clip, and where (Saharia et al. 2022, Palette, arXiv 2111.05826;
    of motion: Cohan et al. 2024, CondMDI, arXiv 2405.11126)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.given: tuple[Tensor, Tensor] | None = None  # normalised values, and 1 where they are given

    def forward(self, xt: Tensor, *more: Tensor | None) -> Tensor:
        """As of the network; without `given` nothing is."""
        values, given = (torch.zeros_like(xt),) * 2 if self.given is None else (x.expand_as(xt) for x in self.given)
        return self.network(torch.cat([xt, values * given, given], dim=2), *more)[:, :, : xt.shape[2]]


class MaskedDiffusion(DenoiseDiffusion):
    """Training of a `Masked` network: every clip has a mask of its own."""

    root = 0

    def clip_losses(self, x0: Tensor, noise: Tensor | None = None, **more: Tensor | None) -> ClipLosses:  # type: ignore[override]
        """With masks like those of `kept`, of random extent; a tenth of the clips has none."""
        n, joints, _, frames = x0.shape
        place, kind = torch.arange(frames), torch.randint(10, (n, 1))
        a, b = (torch.rand(n, 1) * frames * 3 / 4, torch.rand(n, 1) * frames / 2)
        ends = (place < a) | (place >= frames - b * (kind > 2))
        when = torch.where(kind < 6, ends, torch.rand(n, frames) < 0.15 * torch.rand(n, 1)) & (kind != 9)
        which = torch.rand(n, joints) < torch.rand(n, 1)
        which[:, self.root] = True
        given = torch.where((kind == 8)[..., None], which[:, :, None], when[:, None])[:, :, None].float()
        self.eps_model.given = x0, given.to(x0)
        losses = super().clip_losses(x0, noise, **more)  # type: ignore[arg-type]
        self.eps_model.given = None
        return losses


def masked(path: Path, config: dict, data: PoseDataModule, like: MotionModel, steps: int) -> MotionDiffusion:
    """The model of `Masked`, trained unless the file is there."""
    width = 3 * config["model"]["in_channels"]
    config = {**config, "model": {**config["model"], "in_channels": width, "out_channels": width}}
    model = build_module(config, like.fps, like.class_names, data.label_counts(), trainable=True)
    model.diffusion.eps_model = Masked(model.diffusion.eps_model)
    model.diffusion.__class__ = MaskedDiffusion
    model.diffusion.root = model.skeleton.root
    model.normalizer.load_state_dict(like.normalizer.state_dict())
    model.diffusion.prediction.load_state_dict(like.diffusion.prediction.state_dict())
    if not path.exists():
        average = EMA(**{key: value for key, value in config["ema"].items() if key != "_target_"})
        pl.Trainer(
            max_steps=steps, max_epochs=-1, limit_val_batches=0, accelerator="cpu", callbacks=[average], logger=False,
            enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False, default_root_dir=path.parent,
        ).fit(model, data)  # fmt: skip
        torch.save(model.state_dict(), path)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def filled(model: MotionModel, clip: Tensor, given: Tensor, other: MotionModel) -> dict:
    """The rule of `Masked`."""
    other.diffusion.eps_model.given = model.normalizer(clip[None]), given.float()
    return {"model": other}


def kept(model: MotionModel) -> dict[str, list[str | int]]:
    """What is given; all hold what the normalised values of given joints depend on."""
    frames, root = model.frames, model.skeleton.names[model.skeleton.root]
    half, few = frames // 2, frames // 4
    parts = [name for name in ("left_arm", "legs") if name in model.skeleton.parts][:1]
    return {
        f"frames 0 to {half - 1}": [f":{half}"],
        f"{few} frames at both ends": [f":{few}", f"-{few}:"],
        f"frames 0, {half}, {frames - 1}": [0, half, frames - 1],
        **{f"{name} and {root}": [name, root] for name in parts},
    }


def changes(clips: Tensor) -> Tensor:
    """``(clips, frames - 2)`` metres, change of the step of a joint from frame to frame, mean over joints."""
    return clips.diff(n=2, dim=1).norm(dim=-1).mean(-1)


def main() -> None:
    """Print a table for each thing that is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run, or checkpoint")
    parser.add_argument("--root", help="folder of its data, if it has moved")
    parser.add_argument("--masked", type=Path, help="file of the network that is given masks in training")
    parser.add_argument("--clips", type=int, default=32, help="held-out clips")
    parser.add_argument("--each", type=int, default=2, help="samples of every clip")
    args = parser.parse_args()
    model, config = load_run(args.run)
    rules = dict(RULES)
    data = own_data(config, {"root": args.root})
    if args.masked:
        steps = read_checkpoint(checkpoint_of(args.run))["global_step"]
        rules["masks in training"] = partial(filled, other=masked(args.masked, config, data, model, steps))
    data_windows = data.whole_windows(held_out(data), args.clips)
    batch = data.windows.__getitems__(data_windows)
    for name, keep in kept(model).items():
        given = given_by(keep, model.skeleton, model.frames)
        print(f"\n{name}; {len(data_windows)} held-out clips, {args.each} samples of each")
        for line in compared(model, batch, given, args.each, rules):
            print(line, flush=True)


def compared(model: MotionModel, batch: dict, given: Tensor, each: int, rules: dict[str, Rule]) -> list[str]:
    """A row for every rule; see the head for the columns."""
    real = batch["clips"].permute(0, 3, 1, 2)
    held = Clips.whole(real, model.fps, model.skeleton)
    whole = given.flatten(1).all(1)
    # Changes of velocity between a frame that is given whole and one that is not.
    seams = torch.stack([~whole[k : k + 3].all() & whole[k : k + 3].any() for k in range(len(whole) - 2)])
    tail = changes(real).flatten().quantile(0.95)
    seeds = range(each)
    names = ("missed", "from source", "seam / real", "above 95 %", "jerk / real", "Fréchet pose", "s a clip")
    rows = [" " * 28 + "".join(f"{name:>14}" for name in names)]
    for name, rule in rules.items():
        made: list[Tensor] = []
        began = time.perf_counter()
        for k, clip in enumerate(batch["clips"]):
            said = None if model.condition is None else batch[model.condition.key][k]
            cond = model.conditions(seeds, None if said is None else torch.as_tensor(said)[None].repeat(each))
            randn = model.noise(seeds)
            options = rule(model, clip, given.permute(1, 2, 0))
            made.append(options.pop("model", model).generate(randn(), randn, cond=cond, **options))
        seconds = (time.perf_counter() - began) / (each * len(made))
        clips = torch.cat(made)
        source = real.repeat_interleave(each, 0)
        off = (clips - source).norm(dim=-1)
        missed, others = off[:, given.all(-1)].mean(), off[:, ~given.all(-1)].mean()
        seam, usual = changes(clips)[:, seams], changes(real).mean()
        cells = [f"{seam.mean() / usual:.2f}", f"{(seam > tail).double().mean():.2f}"] if seams.any() else ["-", "-"]
        jerk, real_jerk = (positions.diff(n=3, dim=1).norm(dim=-1).mean() for positions in (clips, real))
        distance = frechet(pose(held).double(), pose(Clips.whole(clips, model.fps, model.skeleton)).double())
        cells = [f"{100 * missed:.2f} cm", f"{100 * others:.1f} cm", *cells, f"{jerk / real_jerk:.2f}", f"{distance:.3f}"]
        rows.append(f"{name:<28}" + "".join(f"{cell:>14}" for cell in [*cells, f"{seconds:.2f}"]))
    return rows


if __name__ == "__main__":
    main()
