"""Speed of one GPU in training steps, samples and runs: ``python benchmarks/gpu.py``.

Prints a table row by row, and writes it after each to ``--out`` (outputs/gpu.json). What fails becomes a row with its error;
after ``--minutes`` (6) the row in work is given up and the rest are skipped. ``--root`` names the skeleton files of MSR Action3D
and adds the training of ``experiment=large`` with its quality. ``--device cpu --small`` tries all but compiling and ``--root``.
"""

import argparse
import contextlib
import functools
import itertools
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import train as train_script  # noqa: E402
from benchmarks.speed import (  # noqa: E402
    CHANNELS,
    FUSED,
    SIZES,
    Row,
    Size,
    composed,
    default_module,
    flops_of,
    markdown,
    ours,
    plain_unet,
    training_step,
)
from ddpm import load  # noqa: E402
from ddpm.files import write_json  # noqa: E402
from ddpm.module import MotionDiffusion  # noqa: E402
from ddpm.process.samplers import ddpm, unipc  # noqa: E402
from ddpm.runs import versions  # noqa: E402

PEAK = {
    **{"H100 PCIe": 756e12, "H100 NVL": 835e12, "H200 NVL": 836e12, "H100": 989e12, "H200": 989e12},
    **{"A100": 312e12, "L40S": 362e12, "L4": 121e12, "T4": 65e12},
}
"""FLOP/s of dense bfloat16 (T4: float16) that the makers publish, by words in the name of a device: the first that fits."""

Job = tuple[str, Callable[[], Row]]
"""What a row is of, and what measures it."""

Way = tuple[Callable[[Size, int], nn.Module], bool, str | None]
"""A network, whether it computes in bfloat16, and the mode in which it is compiled."""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    size: Size
    frames: int
    batches: tuple[int, ...]
    blocks: int  # of training steps
    clips: int
    calls: tuple[int, ...]
    steps: int  # of an epoch; at most those of the warm-up, whose learning rates do not depend on the length of a run
    overrides: tuple[str, ...]


FULL = Scale(SIZES["large"], 64, (64, 1024), 5, 1024, (10, 20, 1000), 100, ())
SMALL = Scale(
    Size(8, (1, 2), 1, (2,), 2), 8, (2,), 1, 3, (2, 4), 10,
    ("frames=8", "T=10", "model.model_channels=8", "data.n=40", "loader.batch_size=4", "+trainer.limit_val_batches=1"),
)  # fmt: skip
BARE = ("cache=null", "~callbacks.skeleton_gif", "~callbacks.motion_metrics")
QUIET = (*BARE, "~callbacks.loss_plot", "~callbacks.progress_bar", "~callbacks.learning_rate", "logger=none")
BLOCK = 10
"""Training steps that are timed together: each that is waited for alone would take longer."""
FLOAT32 = "float32 (TF32 convolutions)"
EAGER: dict[str, Way] = {
    f"plain UNet, {FLOAT32}": (plain_unet, False, None),
    f"ours, {FLOAT32}": (ours, False, None),
    "ours, bf16": (ours, True, None),
}
COMPILED: dict[str, Way] = {
    "ours, bf16, compiled": (ours, True, "default"),
    "ours, bf16, compiled, CUDA graphs": (ours, True, "reduce-overhead"),
}
COLUMNS = (
    *("what", "ms", "x plain", "clips/s", "TFLOP/s", "of bf16 peak", "first s", "count", "most"),
    *("minutes", "pose", "kinetic", "spectrum", "n", "note"),
)


def seconds_of(action: Callable[[], object], repeats: int, device: torch.device, warm: int = 1) -> float:
    """Median seconds until the device has done it, after ``warm`` times that do not count."""
    taken = []
    for _ in range(warm + repeats):
        began = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[warm:])


def peak_of(name: str) -> float | None:
    """FLOP/s of `PEAK`, None for a device that is not there."""
    return next((value for words, value in PEAK.items() if re.search(rf"\b{words}\b", name)), None)


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers are of."""
    about = {"device": "cpu", "bf16 peak, TFLOP/s": "unknown"}
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        peak = peak_of(found.name)
        about = {"device": found.name, "GB": found.total_memory / 1e9, "bf16 peak, TFLOP/s": peak / 1e12 if peak else "unknown"}
    precision = {"cudnn.allow_tf32": torch.backends.cudnn.allow_tf32, "float32_matmul": torch.get_float32_matmul_precision()}
    return {**about, "cuda": torch.version.cuda, **precision, **versions()}


def steps(device: torch.device, scale: Scale, ways: Mapping[str, Way], plain: dict[int, float]) -> Iterator[Job]:
    """Training steps of a bare loop; ``plain`` holds the seconds of the plain UNet by batch, once they are measured."""
    peak = peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None

    def step(batch: int, build: Callable[[Size, int], nn.Module], bf16: bool, mode: str | None) -> Row:
        network = build(scale.size, scale.frames).to(device)
        x = torch.randn(batch, CHANNELS, scale.frames, device=device)
        t = torch.randint(1000, (batch,), device=device)
        flops = flops_of(network, x, t)
        if mode is not None:
            from torch import _dynamo

            _dynamo.reset()  # else it would take the other batch for one of many, and keep the memory of its CUDA graphs
            network.compile(mode=mode)
        optimizer = (torch.optim.AdamW if build is plain_unet else FUSED)(network.parameters())
        once = functools.partial(training_step, network, x, t, optimizer, bf16)
        first = seconds_of(once, 1, device, warm=0)
        taken = seconds_of(lambda: [once() for _ in range(BLOCK)], scale.blocks, device) / BLOCK
        if build is plain_unet:
            plain[batch] = taken
        rate = 3 * flops / taken
        return {
            "ms": 1000 * taken, "clips/s": batch / taken, "TFLOP/s": rate / 1e12, "first s": first,
            **({"x plain": plain[batch] / taken} if batch in plain else {}),
            **({"of bf16 peak": rate / peak} if peak else {}),
        }  # fmt: skip

    for batch in scale.batches:
        for label, way in ways.items():
            yield f"step of {batch} x {scale.frames}: {label}", functools.partial(step, batch, *way)


def samples(device: torch.device, scale: Scale) -> Iterator[Job]:
    """Many clips at once; a thousand calls once and without warming up, for the rows before have done that."""
    made = functools.cache(lambda: default_module(*scale.overrides)[0].to(device).eval())

    def sample(calls: int, bf16: bool) -> Row:
        few, sampler = calls <= 100, functools.partial(ddpm if calls == scale.calls[-1] else unipc, steps=calls)
        action = functools.partial(made().sample, scale.clips, sampler=sampler, guidance=1.0, batch_size=scale.clips)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            taken = seconds_of(action, 5 if few else 1, device, warm=int(few))
        return {"ms": 1000 * taken, "clips/s": scale.clips / taken}

    for calls in scale.calls:
        for label in (FLOAT32, "bf16 autocast, which no command offers"):
            yield f"{scale.clips} clips in {calls} calls: {label}", functools.partial(sample, calls, label != FLOAT32)


def train(device: torch.device, scale: Scale, *overrides: str) -> None:
    """What train.py does, in this process."""
    train_script.train(composed(*scale.overrides, f"trainer.accelerator={device.type}", "resume=auto", *overrides))


def waits(device: torch.device, scale: Scale) -> Row:
    """How often a training step of a default run waits for the device, as far as torch tells."""
    counts: list[int] = []

    class Count(train_script.StopBetweenBatches):
        def on_train_epoch_start(self, trainer: object, pl_module: MotionDiffusion) -> None:  # pyright: ignore
            pl_module._watched = False  # it logs as without a callback of others

        def on_train_batch_end(self, *args: object) -> None:
            counts.append(sum("synchroniz" in str(warning.message) for warning in caught))

    before, train_script.StopBetweenBatches = train_script.StopBetweenBatches, Count
    length = ("logger=csv", "trainer.max_epochs=1", f"loader.steps_per_epoch={scale.steps + 10}")
    try:
        with (
            tempfile.TemporaryDirectory() as out,
            warnings.catch_warnings(record=True) as caught,
            contextlib.redirect_stdout(sys.stderr),  # the progress bar
        ):
            warnings.simplefilter("always")
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("warn")
            train(device, scale, *BARE, *length, f"out={out}/run")
    finally:
        train_script.StopBetweenBatches = before
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    inner = [b - a for a, b in itertools.pairwise(counts[5 : scale.steps + 6])]
    return {"count": statistics.mean(inner), "most": max(inner)}


def resumed(device: torch.device, scale: Scale) -> Row:
    """How far the weights of a run that was stopped and resumed are from those of one that was not."""
    length = f"loader.steps_per_epoch={scale.steps}"
    with tempfile.TemporaryDirectory() as folder:
        for out, epochs in (("whole", 2), ("parts", 1), ("parts", 2)):
            with contextlib.chdir(folder):
                train(device, scale, *QUIET, length, f"out={out}", f"trainer.max_epochs={epochs}")
        one, other = (load(Path(folder, run)).diffusion.eps_model.parameters() for run in ("whole", "parts"))
        pairs = [(a.detach(), b.detach()) for a, b in zip(one, other, strict=True)]
        norm = sum(float(a.square().sum()) for a, _ in pairs) ** 0.5
        apart = sum(float((a - b).square().sum()) for a, b in pairs) ** 0.5
    return {"count": apart / norm}


def recipe(root: Path) -> Row:
    """Training of ``experiment=large``, with a tenth of its validations and checkpoints, and the distances of its clips."""
    torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as folder:

        def seconds(script: str, *arguments: str) -> float:
            began = time.perf_counter()
            pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            done = subprocess.run([sys.executable, ROOT / script, *arguments], cwd=folder, text=True, **pipes)
            if done.returncode:
                raise RuntimeError(f"{script}: {[done.returncode, *done.stdout.splitlines()][-1]}")
            return time.perf_counter() - began

        data = ("data=msr_action3d", f"data.root='{root.resolve()}'", "loader.steps_per_epoch=1050", "trainer.max_epochs=10")
        taken = seconds("train.py", "experiment=large", "trainer=gpu", *QUIET, *data, "out=run")
        seconds("evaluate.py", "ckpt=run", "n=256", "reference=all", "fast=true", "report=false", "out=eval")
        found = json.loads(Path(folder, "eval", "metrics.json").read_text())["metrics"]
    distances = {name: found[f"frechet/{name}"]["generated"]["value"] for name in ("pose", "kinetic", "spectrum")}
    return {"minutes": taken / 60, **distances, "n": 256}


def jobs(device: torch.device, scale: Scale, root: Path | None) -> Iterator[Job]:
    """All rows, the one that is missed least last."""
    plain: dict[int, float] = {}
    yield from steps(device, scale, EAGER, plain)
    yield from samples(device, scale)
    yield f"synchronisations a step, mean and most of {scale.steps}", functools.partial(waits, device, scale)
    yield "resumed: relative difference of weights", functools.partial(resumed, device, scale)
    if device.type == "cuda":
        yield from steps(device, scale, COMPILED, plain)
    if root is not None:
        large = "experiment=large on MSR Action3D"
        yield f"{large}: 10 epochs of 1050 steps instead of 105 of 100", functools.partial(recipe, root)
        known: Row = {"minutes": 20, "pose": 0.71, "kinetic": 0.82, "spectrum": 0.73, "n": 256}
        yield f"{large}: on two CPU cores (docs/recipe.md)", lambda: known


def measured(action: Callable[[], Row], left: float) -> Row:
    """The row of an action, or why there is none: an error, or that ``left`` seconds were not enough."""

    def over(*_: object) -> None:
        raise TimeoutError("the minutes are over")

    if left <= 0:
        return {"note": "skipped: the minutes are over"}
    signal.signal(signal.SIGALRM, over)
    try:
        signal.setitimer(signal.ITIMER_REAL, left)
        return action()
    except Exception as error:
        return {"note": f"{type(error).__name__}: {' '.join(str(error).split())}"[:200].replace("|", "/")}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def rows_of(jobs: Iterable[Job], about: Mapping[str, Any], out: Path, deadline: float) -> Iterator[Row]:
    """Each row as soon as it is measured and in the file; those after the deadline, of `time.monotonic`, are skipped."""
    rows: list[Row] = []
    for what, action in jobs:
        rows.append({"what": what, **measured(action, deadline - time.monotonic())})
        write_json(out, {"machine": about, "rows": rows})
        yield rows[-1]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", type=torch.device)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu.json"))
    args = parser.parse_args()
    deadline = time.monotonic() + 60 * args.minutes
    if args.device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device is here; --device cpu --small tries all but compiling and --root")
    about = machine(args.device)
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    todo = jobs(args.device, SMALL if args.small else FULL, args.root)
    for line in markdown(rows_of(todo, about, args.out, deadline), COLUMNS):
        print(line, flush=True)


if __name__ == "__main__":
    main()
