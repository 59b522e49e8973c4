"""Control of a model: guidance from none to strong, long clips, and one action after another.

    python train.py experiment=laptop data=msr_action3d data.root=DIR out=RUN
    python benchmarks/control.py RUN --root DIR --out OUT [--guide WORSE]

``--guide`` names a run that was trained for less time on the same data, and adds autoguidance. Prints tables and writes
guidance.png: the share of clips that a classifier assigns to the requested action, the distance of their poses, spread
and recall, over the weight. Of long clips: the change of the step of a joint from frame to frame where windows begin, where the
action changes, and elsewhere.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from matplotlib.ticker import LogLocator
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.inpainting import changes  # noqa: E402
from datamodules.pose import PoseDataModule  # noqa: E402
from ddpm.build import own_data  # noqa: E402
from ddpm.checkpoint import load_run  # noqa: E402
from ddpm.clips import Clips  # noqa: E402
from ddpm.guide import Autoguidance  # noqa: E402
from ddpm.metrics.classifier import classifier_of  # noqa: E402
from ddpm.metrics.reference import reference  # noqa: E402
from ddpm.metrics.suite import evaluate  # noqa: E402
from ddpm.model import MotionModel  # noqa: E402
from ddpm.viz.plots import PALETTE, finish, new_figure, save  # noqa: E402

WEIGHTS = (0.0, 1.0, 1.5, 2.0, 3.0, 5.0)
COLUMNS = ("right", "Fréchet pose", "Fréchet kinetic", "recall pose", "spread / real", "jerk / real")


Row = tuple[str, float, list[float]]
"""Kind of guidance, weight, and the values of `COLUMNS`."""


def guidance(model: MotionModel, data: PoseDataModule, n: int, guide: MotionModel | None) -> Iterator[Row]:
    """A row for every weight, of the same seeds and actions."""
    real, classifier = reference(data, "all").clips, classifier_of(data)
    labels = model.labels(range(n))

    def row(clips: Clips, asked: Tensor) -> list[float]:
        found = evaluate(clips, real, classifier=classifier.features, fast=True)
        means, apd = found.means["jerk"], found.metrics["apd"]
        return [
            (classifier.probabilities(clips).argmax(1) == asked)[asked >= 0].double().mean().item(),
            found.metrics["frechet/pose"].generated.value,
            found.metrics["frechet/kinetic"].generated.value,
            found.metrics["recall/pose"].generated.value,
            apd.generated.value / apd.real.value,
            means["generated"] / means["reference"],
        ]

    for weight in WEIGHTS:
        yield "guidance", weight, row(model.sample(n, labels=labels, guidance=weight), labels)
    for weight in (1.5, 2.0, 3.0) if guide is not None else ():
        yield "autoguidance", weight, row(model.sample(n, labels=labels, guidance=Autoguidance(guide, weight)), labels)


def plot(path: Path, rows: list[Row]) -> None:
    """The columns over the weight."""
    figure = new_figure(10, 5.5)
    for k, (name, axes) in enumerate(zip(COLUMNS, figure.subplots(2, 3, sharex=True).flat, strict=True)):
        for colour, kind in zip(PALETTE, ("guidance", "autoguidance"), strict=False):
            points = [(weight, values[k]) for label, weight, values in rows if label == kind]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, label=kind)
        axes.axvline(1, color="0.8", linewidth=1)
        axes.set_title("share of the right action" if name == "right" else name, fontsize=10)
        axes.set_xlabel("weight; 1 is no guidance" if k > 2 else "")
        if name.startswith("Fréchet"):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(lambda tick, _: f"{tick:g}")
            axes.yaxis.set_minor_formatter(lambda tick, _: "")
        finish(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    save(path, figure)


def seams(model: MotionModel, data: PoseDataModule, n: int) -> Iterator[str]:
    """Changes of long clips at seams and elsewhere, over the mean of real clips."""
    real = changes(reference(data, "all").clips.positions)
    unit, tail = real.mean(), real.flatten().quantile(0.95)
    yield f"real clips: mean 1, 95th percentile {tail / unit:.2f}"

    def share(name: str, at: Tensor) -> str:
        return f"{name} {at.mean() / unit:.2f} ({(at > tail).double().mean():.2f} above the 95th percentile)"

    length = 10 * model.frames
    made = changes(model.sample(n, frames=length).positions)
    hop = model.frames // 2
    begins = torch.zeros(length - 2, dtype=torch.bool)
    begins[hop - 2 :: hop] = begins[hop - 1 :: hop] = True
    yield f"{n} clips of {length} frames: {share('where windows begin', made[:, begins])}, {share('elsewhere', made[:, ~begins])}"
    names = [name for name in ("walk", "wave", "bow", "kick") if name in model.class_names] or list(model.class_names[:4])
    seconds = 2 * model.frames / model.fps
    made = changes(model.sample(n, script=[(name, seconds) for name in names]).positions)
    turns = torch.zeros(made.shape[1], dtype=torch.bool)
    for k in range(1, len(names)):
        turns[2 * k * model.frames - hop : 2 * k * model.frames + hop] = True
    around, else_ = share("around a change", made[:, turns]), share("elsewhere", made[:, ~turns])
    yield f"{', '.join(names)}, {seconds:.1f} s each: {around}, {else_}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run, or checkpoint, of a model with labels as a condition")
    parser.add_argument("--root", help="folder of its data, if it has moved")
    parser.add_argument("--guide", type=Path, help="run that was trained for less time")
    parser.add_argument("--n", type=int, default=256, help="clips")
    parser.add_argument("--out", type=Path, default=Path())
    args = parser.parse_args()
    model, config = load_run(args.run)
    data = own_data(config, {"root": args.root})
    print(f"{'':<20}" + "".join(f"{name:>17}" for name in COLUMNS))
    rows = []
    for label, weight, values in guidance(model, data, args.n, None if args.guide is None else load_run(args.guide)[0]):
        rows.append((label, weight, values))
        print(f"{label:<14}{weight:>6g}" + "".join(f"{value:>17.3g}" for value in values), flush=True)
    plot(args.out / "guidance.png", rows)
    for line in seams(model, data, max(args.n // 32, 1)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
