"""Speed of one GPU in a training step, a sample and a run: ``python benchmarks/gpu.py``; six minutes at most.

Prints one table and, with ``--out``, writes it as JSON. ``--root`` names the skeleton files of MSR Action3D and adds the
training of ``experiment=large`` with its quality. ``--device cpu --small`` runs every line in seconds, to see that it runs.
"""

import argparse
import contextlib
import functools
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

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
    markdown,
    ours,
    plain_unet,
    training_step,
)
from ddpm import load  # noqa: E402
from ddpm.files import write_json  # noqa: E402
from ddpm.process.samplers import ddpm, unipc  # noqa: E402
from ddpm.runs import versions  # noqa: E402

PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "T4": 65e12}
"""FLOP/s of dense bfloat16 (T4: float16) that the makers publish."""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    size: Size
    frames: int
    batches: tuple[int, ...]
    repeats: int
    clips: int
    calls: tuple[int, ...]
    overrides: tuple[str, ...]


FULL = Scale(SIZES["large"], 64, (64, 1024), 30, 1024, (10, 20, 1000), ())
SMALL = Scale(
    Size(8, (1, 2), 1, (2,), 2), 8, (2,), 2, 3, (2, 4),
    ("frames=8", "T=10", "model.model_channels=8", "data.n=40", "loader.batch_size=4"),
)  # fmt: skip
QUIET = (
    *("trainer.max_epochs=2", "loader.steps_per_epoch=20", "~callbacks.skeleton_gif", "~callbacks.motion_metrics"),
    *("~callbacks.loss_plot", "~callbacks.progress_bar", "~callbacks.learning_rate", "logger=none", "cache=null"),
)


def seconds_of(action: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median seconds until the device has done it, after three that do not count."""
    taken = []
    for turn in range(repeats + 3):
        began = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if turn >= 3:
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def steps(device: torch.device, scale: Scale) -> Iterator[Row]:
    """Training steps of a bare loop: the plain UNet in float32, then ours, faster and faster."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    peak = next((value for key, value in PEAK.items() if key in name), None)
    ways = {
        "plain UNet, float32": (plain_unet, False, None),
        "ours, float32": (ours, False, None),
        "ours, bf16": (ours, True, None),
        "ours, bf16, compiled": (ours, True, "default"),
        "ours, bf16, compiled, CUDA graphs": (ours, True, "reduce-overhead"),
    }
    for batch in scale.batches:
        base = None
        for label, (build, bf16, mode) in ways.items():
            if mode is not None and device.type != "cuda":
                continue
            network = build(scale.size, scale.frames).to(device)
            x = torch.randn(batch, CHANNELS, scale.frames, device=device)
            t = torch.randint(1000, (batch,), device=device)
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network(x, t)
            if mode is not None:
                network.compile(mode=mode)
            optimizer = torch.optim.AdamW(network.parameters()) if base is None else FUSED(network.parameters())
            began = time.perf_counter()
            training_step(network, x, t, optimizer, bf16)
            first = time.perf_counter() - began
            taken = seconds_of(functools.partial(training_step, network, x, t, optimizer, bf16), scale.repeats, device)
            base = base or taken
            rate = 3 * counter.get_total_flops() / taken
            yield {
                "what": f"step of {batch} x {scale.frames}: {label}", "ms": 1000 * taken, "x plain": base / taken,
                "clips/s": batch / taken, "TFLOP/s": rate / 1e12, "first s": first,
                **({"of bf16 peak": rate / peak} if peak else {}),
            }  # fmt: skip


def samples(device: torch.device, scale: Scale) -> Iterator[Row]:
    """Many clips at once."""
    module, _ = default_module(*scale.overrides)
    module.to(device).eval()
    for calls in scale.calls:
        sampler = functools.partial(ddpm if calls == max(scale.calls) else unipc, steps=calls)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            action = functools.partial(module.sample, scale.clips, sampler=sampler, guidance=1.0, batch_size=scale.clips)
            taken = seconds_of(action, 1 if calls > 100 else 5, device)
        yield {"what": f"{scale.clips} clips in {calls} calls", "ms": 1000 * taken, "clips/s": scale.clips / taken}


def waits(device: torch.device, scale: Scale) -> Iterator[Row]:
    """How often a training step waits for the device, in the Trainer with everything that runs at every step."""
    counts: list[int] = []

    class Count(train_script.StopBetweenBatches):
        def on_train_batch_end(self, *args: object) -> None:
            super().on_train_batch_end(*args)
            counts.append(sum("synchroniz" in str(warning.message) for warning in caught))

    before, train_script.StopBetweenBatches = train_script.StopBetweenBatches, Count
    try:
        with tempfile.TemporaryDirectory() as out, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("warn")
            train_script.train(composed(*scale.overrides, *QUIET, f"trainer.accelerator={device.type}", f"out={out}/run"))
    finally:
        train_script.StopBetweenBatches = before
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    inner = [b - a for a, b in itertools.pairwise(counts[3:19])]
    yield {"what": "synchronisations a step, median and most of 15", "count": statistics.median(inner), "most": max(inner)}


def resumed(device: torch.device, scale: Scale) -> Iterator[Row]:
    """How far the weights of a run that was stopped and resumed are from those of one that was not."""
    with tempfile.TemporaryDirectory() as folder:
        given = [*scale.overrides, *QUIET, f"trainer.accelerator={device.type}"]

        for last in (("out=whole",), ("out=parts", "trainer.max_epochs=1"), ("out=parts", "resume=auto")):
            with contextlib.chdir(folder):
                train_script.train(composed(*given, *last))
        one, other = (load(Path(folder, run)).diffusion.eps_model.parameters() for run in ("whole", "parts"))
        pairs = [(a.detach(), b.detach()) for a, b in zip(one, other, strict=True)]
        norm = sum(float(a.square().sum()) for a, _ in pairs) ** 0.5
        apart = sum(float((a - b).square().sum()) for a, b in pairs) ** 0.5
    yield {"what": "resumed: relative difference of weights", "count": apart / norm}


def recipe(device: torch.device, root: Path) -> Iterator[Row]:
    """Training of ``experiment=large``, twenty minutes of two CPU cores, and the distances of its clips."""
    with tempfile.TemporaryDirectory() as folder:
        data = ["data=msr_action3d", f"data.root='{root.resolve()}'"]

        def command(script: str, *arguments: str) -> tuple[float, str]:
            began = time.perf_counter()
            whole = [sys.executable, str(ROOT / script), *arguments]
            done = subprocess.run(whole, check=True, cwd=folder, capture_output=True, text=True)
            return time.perf_counter() - began, done.stdout

        taken, _ = command("train.py", "experiment=large", "frames=32", "trainer=gpu", *QUIET[2:], *data, "out=run")
        _, found = command("evaluate.py", "ckpt=run", "n=256", "reference=all", "fast=true", "out=eval")
    yield {"what": "experiment=large on MSR Action3D, s", "count": taken}
    print(found)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", type=torch.device)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device is here; --device cpu --small tries every line")
    scale = SMALL if args.small else FULL
    rows = [row for part in (steps, samples, waits, resumed) for row in part(args.device, scale)]
    if args.root is not None:
        rows += recipe(args.device, args.root)
    name = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else "cpu"
    print(name, *(f"{key} {value}" for key, value in versions().items()), sep=", ")
    print("\n".join(markdown(rows)))
    if args.out is not None:
        write_json(args.out, {"device": name, **versions(), "rows": rows})


if __name__ == "__main__":
    main()
