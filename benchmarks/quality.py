"""Other diffusion models beside this project: the same clips, the same minutes of training on a CPU, the same metrics.

    python benchmarks/quality.py train PEER --root DIR --minutes 5 --seed 0 --threads 2 --out RESULTS/PEER-5-0
    python benchmarks/quality.py measure --root DIR --out RESULTS RESULTS/*

DIR holds the skeleton files of MSR Action3D; benchmarks/peers.py says what the peers need. ``train`` writes clips.npz, as
sample.py does, and run.json; ``measure`` prints a table and writes quality.json and quality.png. All are trained on the training
recordings of the default split, whatever the seed. Only training counts against the minutes: no validation, pictures or sampling.
"""

import argparse
import functools
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hydra
import torch
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator
from omegaconf import OmegaConf
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import ddpm  # noqa: E402
import train as train_script  # noqa: E402, F401  registers the configuration's schema
from benchmarks.peers import PEERS, Trained, train_peer  # noqa: E402
from datamodules.pose import PoseDataModule  # noqa: E402
from ddpm.checkpoint import read_checkpoint  # noqa: E402
from ddpm.clips import Clips  # noqa: E402
from ddpm.config import construct  # noqa: E402
from ddpm.files import write_durably  # noqa: E402
from ddpm.metrics.classifier import train_classifier  # noqa: E402
from ddpm.metrics.memorisation import memorisation  # noqa: E402
from ddpm.metrics.reference import MOST, full_recordings, reference, windows  # noqa: E402
from ddpm.metrics.suite import evaluate  # noqa: E402
from ddpm.metrics.text import number  # noqa: E402
from ddpm.process.samplers import cost  # noqa: E402
from ddpm.runs import versions  # noqa: E402
from ddpm.viz.plots import PALETTE, finish, new_figure, save  # noqa: E402

OURS = {"ours": [], "ddpm_paper": ["experiment=ddpm_paper"]}
UNUSED = ("skeleton_gif", "loss_plot", "motion_metrics", "learning_rate", "progress_bar", "best")
ROWS = (
    *("frechet/classifier", "frechet/pose", "frechet/kinetic", "frechet/spectrum", "frechet/geometric"),
    *("precision/pose", "recall/pose", "recall/kinetic", "spread over real", "bone variation", "speed over real"),
    *("jerk over real", "closer than held out", "suspected copies"),
)
FACTS = ("minutes", "seed", "steps", "seconds", "parameters", "n", "calls", "sampling_seconds")

Rows = dict[str, dict[str, tuple[float, ...]]]
"""Metric -> ``generated`` and ``real`` -> (value, low, high), or (value,) where there is no interval."""


def train_ours(args: argparse.Namespace) -> Trained:
    """Train this project by its own command, without validation and pictures.

    The learning rate of ``ours`` falls over a number of steps. Unless the overrides limit the run, a timing run of a tenth of
    the time, which does not count, finds out how many there will be.
    """
    given = ["data=msr_action3d", f"data.root='{args.root}'", f"seed={args.seed}", "loader.seed=0", "cache=null", "trainer=cpu"]
    quiet = ["logger=none", "trainer.max_epochs=-1", "+trainer.limit_val_batches=0"]
    quiet += [f"~callbacks.{name}" for name in UNUSED]

    def run(out: Path, seconds: float, *last: str) -> tuple[int, float]:
        """Steps made, and the seconds that they took."""
        limit = time.strftime("trainer.max_time=00:%H:%M:%S", time.gmtime(max(round(seconds), 1)))
        command = [sys.executable, str(ROOT / "train.py"), *OURS[args.peer], *given, *quiet, limit, f"out='{out}'"]
        threads = {"OMP_NUM_THREADS": str(args.threads)}
        subprocess.run([*command, *args.overrides, *last], check=True, env={**os.environ, **threads})
        saved = read_checkpoint(out / "checkpoints" / "last.ckpt")
        return saved["global_step"], saved["callbacks"]["Timer"]["time_elapsed"]["train"]

    last = []
    if args.peer == "ours" and not any(override.startswith("trainer.max_") for override in args.overrides):
        with tempfile.TemporaryDirectory() as folder:
            steps, seconds = run(Path(folder, "timing"), 6 * args.minutes, "trainer.max_steps=1000000")
        last = [f"trainer.max_steps={max(round(60 * args.minutes * steps / seconds), 1)}"]
    steps, seconds = run(args.out / "run", 60 * args.minutes, *last)
    module = ddpm.load(args.out / "run")

    def sample(n: int, calls: int | None) -> tuple[Tensor, int]:
        sampler = module.sampler if calls is None else functools.partial(module.sampler, steps=calls)
        made = cost(sampler, module.diffusion.alpha_bar, module.calls_at).calls
        return module.sample(n, sampler=sampler).positions, made

    return Trained(sample, steps, seconds, sum(p.numel() for p in module.diffusion.parameters()))


def load(root: Path) -> PoseDataModule:
    """The recordings, split as by default."""
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = hydra.compose("config", ["data=msr_action3d", f"data.root='{root}'"])
    data, loader = (OmegaConf.to_container(node, resolve=True) for node in (cfg.data, cfg.loader))
    return construct(loader, "loader")(clips=construct(data, "data"))  # type: ignore[arg-type]


def train(args: argparse.Namespace) -> None:
    """Train one peer and write its clips: into the directory of the run, or for several numbers of calls into one each below."""
    if args.overrides and args.peer not in OURS:
        raise SystemExit(f"--overrides are for {' and '.join(OURS)}")
    torch.set_num_threads(args.threads)
    data = load(args.root)
    trained = train_ours(args) if args.peer in OURS else train_peer(PEERS[args.peer], data, 60 * args.minutes, args.seed)
    about: dict[str, Any] = {key: vars(args)[key] for key in ("peer", "minutes", "seed", "threads", "n", "overrides")}
    about |= {"label": args.label or args.peer, "versions": versions()}
    about |= {"steps": trained.steps, "seconds": trained.seconds, "parameters": trained.parameters}
    for name in ("denoising_diffusion_pytorch", "diffusers"):
        about["versions"] |= {name: version(name)} if name in sys.modules else {}
    for wanted in args.calls or [None]:
        began = time.monotonic()
        clips, about["calls"] = trained.sample(args.n, wanted)
        about["sampling_seconds"] = time.monotonic() - began
        out = args.out / f"calls-{about['calls']}" if len(args.calls) > 1 else args.out
        found = Clips.whole(clips, data.clips.fps, data.clips.skeleton)
        replace(found, seeds=torch.arange(args.n)).save(out / "clips.npz")
        write_durably(out / "run.json", (json.dumps(about, indent=1) + "\n").encode())
        print(out, *(f"{name}={fact(about, name)}" for name in FACTS), flush=True)


def comparison(data: PoseDataModule) -> Callable[[Clips], Rows]:
    """Clips -> what `ROWS` names of them, and of as many real clips.

    The reference are windows of all recordings. The classifier has learned from all of them, so that neither half of the
    reference is newer to it than the other.
    """
    real, owner = windows(data, torch.arange(len(data.clips)), MOST)
    classifier = train_classifier(real, data.clips.labels[owner])
    training, unseen = full_recordings(data, data.train_recordings), reference(data, "held_out").clips

    def rows(generated: Clips) -> Rows:
        if generated.positions.shape[1] != data.frames:
            raise SystemExit(f"clips of {generated.positions.shape[1]} frames cannot be compared with those of {data.frames}")
        found = evaluate(generated, real, classifier=classifier.features)
        pairs: dict[str, Any] = {name: (astuple(m.generated), astuple(m.real)) for name, m in found.metrics.items()}
        apd = found.metrics["apd"].real.value
        pairs["spread over real"] = [tuple(value / apd for value in score) for score in pairs["apd"]]
        for name in ("speed", "jerk"):
            pairs[f"{name} over real"] = (found.means[name]["generated"] / found.means[name]["reference"],), (1.0,)
        bones = found.means.get("bone_variation", {"generated": math.nan, "reference": math.nan})
        pairs["bone variation"] = (bones["generated"],), (bones["reference"],)
        copies = memorisation(generated, training, unseen)
        pairs["closer than held out"] = (copies.closer_than_held_out,), (0.5,)
        pairs["suspected copies"] = (float(len(copies.suspects)),), (0.01 * len(generated),)
        return {name: {"generated": pairs[name][0], "real": pairs[name][1]} for name in ROWS}

    return rows


def measure(args: argparse.Namespace) -> None:
    """Measure all clips below some directories; print the table, write quality.json and quality.png.

    Rows of an earlier quality.json stay as they are.
    """
    torch.set_num_threads(args.threads)
    data = load(args.root)
    runs = [run for path in args.runs if path.suffix == ".json" for run in json.loads(path.read_text())]
    clips = sorted({path for directory in args.runs for path in directory.rglob("clips.npz")})
    rows = comparison(data) if clips else dict
    for path in clips:
        record = path.with_name("run.json")
        about = json.loads(record.read_text()) if record.exists() else {"label": path.parent.name}
        generated = Clips.load(path, data.clips.skeleton, data.clips.fps).of_rate(data.clips.fps, str(path))
        runs.append({**about, "n": len(generated), "metrics": rows(generated)})
    if not runs:
        raise SystemExit("no clips.npz in these directories, and no quality.json")
    runs.sort(key=lambda run: (run["n"], run["label"], *(run.get(name, 0) for name in ("minutes", "calls", "seed"))))
    print("\n".join(table(runs)))
    short = json.loads(json.dumps(runs), parse_float=lambda digits: float(f"{float(digits):.4g}"))
    write_durably(args.out / "quality.json", ("[\n" + ",\n".join(map(json.dumps, short)) + "\n]\n").encode())
    plot(args.out / "quality.png", runs)


def fact(run: dict[str, Any], name: str) -> str:
    """One of `FACTS` in a few characters, nothing where it is not known."""
    if name not in run:
        return ""
    return f"{run[name] / 1e6:.2f} M" if name == "parameters" else number(run[name])


def table(runs: Sequence[dict[str, Any]], columns: int = 4) -> Iterator[str]:
    """A row a metric; the floor for this number of clips, and beside it so many runs."""

    def cell(values: Sequence[float]) -> str:
        return number(values[0]) + (f" ({number(values[1])}..{number(values[2])})" if len(values) > 1 else "")

    for _, same in itertools.groupby(runs, key=lambda run: run["n"]):
        for some in iter(lambda same=same: list(itertools.islice(same, columns)), []):
            yield f"{'':<21} {'real against real':>24}" + "".join(f" {run['label']:>24}" for run in some)
            for name in FACTS:
                yield f"{name.replace('_', ' '):<46}" + "".join(f" {fact(run, name):>24}" for run in some)
            for name in ROWS:
                cells = [some[0]["metrics"][name]["real"], *(run["metrics"][name]["generated"] for run in some)]
                yield f"{name:<21}" + "".join(f" {cell(values):>24}" for values in cells)
            yield ""


def plot(path: Path, runs: Sequence[dict[str, Any]]) -> None:
    """Fréchet distances against minutes and against network calls. A colour is a label, a line what differs in that alone.

    Labels are set off a little, so that points at the same place can be told apart. Of runs with different numbers
    of clips only those with the most are shown: the distance depends on it.
    """
    runs = [run for run in runs if run["n"] == runs[-1]["n"]]
    labels = list(dict.fromkeys(run["label"] for run in runs))
    colours = {label: PALETTE[k % len(PALETTE)] for k, label in enumerate(labels)}
    figure = new_figure(11, 7)
    panels = itertools.product(("frechet/classifier", "frechet/kinetic"), (("minutes", "calls"), ("calls", "minutes")))
    for axes, (metric, (x, other)) in zip(figure.subplots(2, 2, sharey="row").flat, panels, strict=True):
        _, low, high = runs[-1]["metrics"][metric]["real"]
        axes.axhspan(low, high, color="0.75", alpha=0.5, linewidth=0)
        curves: dict[tuple[Any, ...], dict[float, list[float]]] = {}
        for run in runs:
            value, low, high = run["metrics"][metric]["generated"]
            colour = colours[run["label"]]
            if x not in run:
                axes.axhline(value, color=colour, linestyle=":")
                continue
            place = run[x] * 1.02 ** (labels.index(run["label"]) - len(labels) // 2)
            curves.setdefault((run["label"], run.get(other)), {}).setdefault(place, []).append(value)
            axes.errorbar(place, value, [[max(value - low, 0)], [max(high - value, 0)]], color=colour, marker="o", markersize=4)
        for (label, _), points in curves.items():
            axes.plot(list(points), [sum(values) / len(values) for values in points.values()], color=colours[label])
        axes.set(xscale="log", yscale="log", xlabel="network calls a clip" if x == "calls" else "minutes of training")
        axes.set_xticks(sorted({run[x] for run in runs if x in run}))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda tick, _: f"{tick:g}")
            axis.set_minor_formatter(lambda tick, _: "")
        axes.set_ylabel(f"Fréchet distance, {metric.partition('/')[2]} features" if x == "minutes" else "")
        finish(axes)
    lines = [Line2D([], [], color=colour, marker="o", markersize=4, label=label) for label, colour in colours.items()]
    lines.append(Line2D([], [], color="0.75", linewidth=8, label="real against real"))
    figure.legend(handles=lines, loc="outside right upper")
    save(path, figure)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one, all_of_them = commands.add_parser("train"), commands.add_parser("measure")
    for command, function in ((one, train), (all_of_them, measure)):
        command.set_defaults(function=function)
        command.add_argument("--root", type=Path, required=True, help="folder of the files of MSR Action3D")
        command.add_argument("--threads", type=int, default=2)
        command.add_argument("--out", type=Path, required=function is train, default=Path(), help="directory to write into")
    one.add_argument("peer", choices=[*PEERS, *OURS])
    one.add_argument("--minutes", type=float, default=5.0, help="of training")
    one.add_argument("--seed", type=int, default=0, help="of training, and for peers of sampling")
    one.add_argument("--n", type=int, default=256, help="clips to sample")
    one.add_argument("--calls", type=int, nargs="+", default=[], help="network calls a clip, each from the same network")
    one.add_argument("--overrides", nargs="+", default=[], help="of train.py, for ours and ddpm_paper")
    one.add_argument("--label", help="name in table and plot instead of the peer's")
    all_of_them.add_argument("runs", type=Path, nargs="+", help="directories with clips.npz, or above; an earlier quality.json")
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
