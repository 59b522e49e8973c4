"""Seconds on a CPU beside a plain UNet, other projects and the machine's own limit: ``python benchmarks/speed.py [PART ...]``.

Parts: steps, sizes, samples, drawing, overhead, commands; all without a name. What is compared runs in turns in one process, and
medians count; only ratios carry over to other machines. ``--out FILE`` also writes the numbers as JSON. benchmarks/peers.py says
what the other projects need; without them their rows are left out.
"""

import argparse
import copy
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import train as train_script  # noqa: E402  registers the configuration's schema
from benchmarks.peers import lucidrains_library  # noqa: E402
from benchmarks.plain import PlainUNet  # noqa: E402
from benchmarks.scale import anonymous  # noqa: E402
from ddpm.command import plain  # noqa: E402
from ddpm.config import construct  # noqa: E402
from ddpm.files import write_json  # noqa: E402
from ddpm.limits import checked  # noqa: E402
from ddpm.module import MotionDiffusion  # noqa: E402
from ddpm.networks.unet import MDM_UNetModel  # noqa: E402
from ddpm.process.samplers import cost, ddpm, unipc  # noqa: E402
from ddpm.runs import versions  # noqa: E402
from ddpm.training import fitted_module  # noqa: E402
from ddpm.viz.render import draw_clips, gif_bytes  # noqa: E402

CHANNELS = 60

Row = dict[str, float | int | str | None]


@dataclass(frozen=True)
class Size:
    """Of a UNet that several projects can build."""

    width: int
    mult: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    batch: int


SIZES = {"large": Size(64, (1, 2, 4), 2, (2, 4), 64), "default": Size(64, (1, 2, 2), 1, (4,), 32)}


def ours(size: Size, frames: int) -> nn.Module:
    """This project's UNet."""
    return MDM_UNetModel(frames, CHANNELS, size.width, CHANNELS, size.blocks, size.attention, channel_mult=size.mult)


def plain_unet(size: Size, frames: int) -> nn.Module:
    """The same network, written plainly, with the same weights."""
    network = PlainUNet(CHANNELS, size.width, size.mult, size.blocks, size.attention)
    weights = ours(size, frames).state_dict().values()
    network.load_state_dict(dict(zip(network.state_dict(), weights, strict=True)))
    return network


def lucidrains_network(size: Size, frames: int) -> nn.Module:
    """Unet1D of denoising-diffusion-pytorch with as many channels."""
    return lucidrains_library().Unet1D(size.width, dim_mults=size.mult, channels=CHANNELS)


def diffusers_network(size: Size, frames: int) -> nn.Module:
    """UNet1DModel of Diffusers with as many channels; it halves the frames once more, so that 32 of them allow two levels."""
    from diffusers import UNet1DModel

    class Output(UNet1DModel):
        def forward(self, xt: Tensor, t: Tensor) -> Tensor:
            return super().forward(xt, t).sample

    widths = [size.width * m for m in size.mult][-2:]
    return Output(
        frames, in_channels=CHANNELS, out_channels=CHANNELS, time_embedding_type="positional", use_timestep_embedding=True,
        act_fn="silu", layers_per_block=size.blocks, block_out_channels=tuple(widths),
        down_block_types=("DownBlock1D", "AttnDownBlock1D"), up_block_types=("AttnUpBlock1D", "UpBlock1D"),
    )  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """What is timed: a network, the optimiser of its weights, the precision, and whether it is compiled."""

    build: Callable[[Size, int], nn.Module]
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = torch.optim.AdamW
    bf16: bool = False
    compiled: bool = False


FUSED = functools.partial(torch.optim.AdamW, fused=True)
SUBJECTS = {
    "plain UNet": Subject(plain_unet),
    "ours, AdamW weight by weight": Subject(ours),
    "ours": Subject(ours, FUSED),
    "ours, bf16-mixed": Subject(ours, FUSED, bf16=True),
    "ours, compiled": Subject(ours, FUSED, compiled=True),
    "ours, compiled, bf16-mixed": Subject(ours, FUSED, bf16=True, compiled=True),
    "denoising-diffusion-pytorch Unet1D": Subject(lucidrains_network),
    "Diffusers UNet1DModel": Subject(diffusers_network),
}


def alternate(actions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each action; all of them take turns, and a first turn does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(rounds + 1):
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            if turn > 0:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


PRODUCT = 2048
"""Rows of the square matrices whose product says what the machine can do at best."""


def peak(rounds: int = 7) -> float:
    """FLOP/s of a product of two float32 matrices."""
    a, b = torch.randn(2, PRODUCT, PRODUCT)
    return 2 * PRODUCT**3 / alternate({"product": lambda: a @ b}, rounds)["product"]


def flops_of(network: nn.Module, x: Tensor, t: Tensor) -> int:
    """FLOPs of a call; attention by products of matrices, for the counter does not know the CPU's kernel of it."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x, t)
    return counter.get_total_flops()


def training_step(network: nn.Module, x: Tensor, t: Tensor, optimizer: torch.optim.Optimizer, bf16: bool = False) -> None:
    """A bare loop's step: x is predicted, the gradient is clipped."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        output = network(x, t)
    nn.functional.mse_loss(output.float(), x).backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


@torch.no_grad()
def call(network: nn.Module, x: Tensor, t: Tensor, bf16: bool = False) -> None:
    """One call without gradient."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        network(x, t)


def steps(rounds: int, compiled: bool = False) -> Iterator[Row]:
    """A training step and a call without gradient: milliseconds, times the plain UNet's, share of the machine's peak."""
    if compiled:
        from torch import _dynamo

        # All networks share the code that is compiled, and beyond the limit the rest of them would run as they are.
        _dynamo.config.recompile_limit, _dynamo.config.automatic_dynamic_shapes = 64, False
    a, b = torch.randn(2, PRODUCT, PRODUCT)
    for name, size in SIZES.items():
        for frames in (32, 64):
            x, t = torch.randn(size.batch, CHANNELS, frames), torch.randint(1000, (size.batch,))
            trained: dict[str, Callable[[], object]] = {"product": lambda: a @ b}
            called: dict[str, Callable[[], object]] = {}
            facts: dict[str, tuple[int, int]] = {}
            for label, subject in SUBJECTS.items():
                if subject.compiled and not compiled:
                    continue
                try:
                    network = subject.build(size, frames)
                except ImportError:
                    continue
                facts[label] = flops_of(network, x, t), sum(p.numel() for p in network.parameters())
                frozen = copy.deepcopy(network).eval()
                for it in (network, frozen) if subject.compiled else ():
                    it.compile()
                optimizer = subject.optimizer(network.parameters())
                trained[label] = functools.partial(training_step, network, x, t, optimizer, subject.bf16)
                called[label] = functools.partial(call, frozen, x, t, subject.bf16)
            training, calling = alternate(trained, rounds), alternate(called, rounds)
            best = 2 * PRODUCT**3 / training["product"]
            for label, (flops, parameters) in facts.items():
                yield {
                    **{"network": f"{name}, {size.batch} x {frames}: {label}", "M": parameters / 1e6},
                    **{"step ms": 1000 * training[label], "x plain": training["plain UNet"] / training[label]},
                    **{"clips/s": size.batch / training[label], "of peak": 3 * flops / training[label] / best},
                    **{"call ms": 1000 * calling[label], "call x plain": calling["plain UNet"] / calling[label]},
                    **{"call of peak": flops / calling[label] / best},
                }


SHAPES = (
    *((32, 20, frames) for frames in (32, 64, 256, 1024, 2048)),
    *((32, joints, 64) for joints in (5, 60)),
    *((batch, 20, 64) for batch in (1, 8, 128, 512)),
)


def sizes(rounds: int) -> Iterator[Row]:
    """A training step of the default network against frames, joints and batch."""
    for batch, joints, frames in SHAPES:
        size, channels = SIZES["default"], 3 * joints
        network = MDM_UNetModel(
            frames, channels, size.width, channels, size.blocks, size.attention, channel_mult=size.mult, input_amplitude=True
        )
        x, t = torch.randn(batch, channels, frames), torch.randint(1000, (batch,))
        action = functools.partial(training_step, network, x, t, FUSED(network.parameters(), lr=1e-6))
        taken = alternate({"step": action}, rounds)["step"]
        yield {"batch": batch, "joints": joints, "frames": frames, "step ms": 1000 * taken, "frames/s": batch * frames / taken}


def composed(*overrides: str) -> DictConfig:
    """The configuration that ``python train.py OVERRIDES`` would get."""
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return hydra.compose("config", list(overrides))


def default_module(*overrides: str) -> tuple[MotionDiffusion, Any]:
    """The untrained module of a configuration, fitted to its data, and the data module."""
    config = checked(plain(composed("out=unused", "cache=null", "trainer=cpu", *overrides)))
    data = construct(config["loader"], "loader")(clips=construct(config["data"], "data"))
    return fitted_module(config, data, None), data


def samples(rounds: int) -> Iterator[Row]:
    """A batch of 64 clips of 32 frames with the default network: samplers against all 1000 ancestral steps."""
    module, _ = default_module("frames=32")
    module.eval()
    ways = {
        "ancestral, 1000 steps": (ddpm, 1.0),
        "unipc, 17 steps, guided in an interval (default)": (module.sampler, None),
        "unipc, 20 steps": (functools.partial(unipc, steps=20), 1.0),
        "unipc, 10 steps": (functools.partial(unipc, steps=10), 1.0),
    }
    batch = functools.partial(module.sample, 64)
    actions = {name: functools.partial(batch, sampler=sampler, guidance=weight) for name, (sampler, weight) in ways.items()}
    taken = alternate(actions, max(rounds // 4, 1))
    for name, (sampler, weight) in ways.items():
        calls = cost(sampler, module.diffusion.alpha_bar, module.calls_at if weight is None else lambda t: 1).calls
        yield {"sampler": name, "calls": calls, "seconds": taken[name], "x": taken["ancestral, 1000 steps"] / taken[name]}


def drawing(rounds: int) -> Iterator[Row]:
    """Drawing 16 clips, and writing them as a GIF, against the time in which they play."""
    module, data = default_module()
    clips = data.statistics_batch(16)["clips"][:16].permute(0, 3, 1, 2).numpy()
    frames = draw_clips(clips, module.skeleton, fps=module.fps)
    actions: dict[str, Callable[[], object]] = {
        "drawn s": lambda: draw_clips(clips, module.skeleton, fps=module.fps),
        "GIF s": lambda: gif_bytes(frames, module.fps),
    }
    taken = alternate(actions, max(rounds // 4, 1))
    plays = clips.shape[1] / module.fps
    yield {"MB": len(gif_bytes(frames, module.fps)) / 1e6, **taken, "of playing": sum(taken.values()) / plays}


class Clock(pl.Callback):
    """Notes in CLOCK when the first step began, how long all steps took, each with the wait for its batch, and the memory."""

    def __init__(self) -> None:
        self.first, self.began, self.steps, self.memory = 0.0, 0.0, [], []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: MotionDiffusion) -> None:  # pyright: ignore
        """The first batch is asked for; the module logs as it does without a callback of others."""
        pl_module._watched = False
        self.began = time.perf_counter()

    def on_train_batch_start(self, *args: object) -> None:
        """The batch is there."""
        self.first = self.first or time.time()

    def on_train_batch_end(self, *args: object) -> None:
        """The weights are changed and averaged."""
        self.steps.append(time.perf_counter() - self.began)
        self.began = time.perf_counter()

    def on_train_epoch_end(self, *args: object) -> None:
        """Validated, and drawn where it was time."""
        self.memory.append(anonymous())

    def on_fit_end(self, *args: object) -> None:
        """Leave the numbers."""
        write_json(Path(os.environ["CLOCK"]), {"first": self.first, "steps": self.steps, "memory": self.memory})


class Beside(pl.Callback):
    """Times blocks of steps of the Trainer, and between them as many of a bare loop over a copy of the same module."""

    BLOCK = 10
    last: "Beside"

    def __init__(self) -> None:
        Beside.last, self.block, self.trained, self.bare = self, 0.0, [], []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: MotionDiffusion) -> None:  # pyright: ignore
        """Copy the module."""
        self.module = copy.deepcopy(pl_module)
        self.optimizer = FUSED(self.module.parameters())

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: MotionDiffusion) -> None:  # pyright: ignore
        """Let the module log as it does without a callback of others."""
        pl_module._watched = False

    def bare_step(self, batch: Any) -> None:
        """A training step without the Trainer."""
        self.module.loss(batch).backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: Any, k: int) -> None:
        """At the end of a block."""
        if (k + 1) % self.BLOCK:
            return
        if self.block:
            self.trained.append((time.process_time() - self.block) / self.BLOCK)
        began = time.process_time()
        for _ in range(self.BLOCK):
            self.bare_step(batch)
        self.bare.append((time.process_time() - began) / self.BLOCK)
        self.block = time.process_time()


def overhead(rounds: int) -> Iterator[Row]:
    """CPU seconds of a step of the default run, with batches, average of the weights, logging, callbacks, over a bare loop's."""
    n_steps = Beside.BLOCK * (rounds + 1)
    with tempfile.TemporaryDirectory() as folder:
        train_script.train(composed(
            f"out={folder}/run", "cache=null", "trainer=cpu", f"trainer.max_steps={n_steps}", f"loader.steps_per_epoch={n_steps}",
            f"+callbacks.beside._target_={__name__}.Beside", "~callbacks.motion_metrics", "~callbacks.skeleton_gif",
        ))  # fmt: skip
    pairs = list(zip(Beside.last.bare, Beside.last.trained, strict=False))
    bare, trained, ratio = (statistics.median(values) for values in zip(*((b, t, t / b) for b, t in pairs), strict=True))
    yield {"bare loop ms": 1000 * bare, "Trainer ms": 1000 * trained, "overhead": ratio - 1}


def commands(rounds: int) -> Iterator[Row]:
    """From the shell: the first step, a whole default run and what of it is not training, 16 clips; beside bare imports."""
    libraries = "import torch, pytorch_lightning, hydra, torch.utils.tensorboard"
    with tempfile.TemporaryDirectory() as folder:
        run, clock = Path(folder, "run"), Path(folder, "clock.json")
        environment = {**os.environ, "CLOCK": str(clock), "PYTHONPATH": str(ROOT)}

        def shell(*command: str) -> float:
            began = time.time()
            subprocess.run([sys.executable, *command], check=True, env=environment, cwd=folder, capture_output=True)
            return time.time() - began

        imports = statistics.median(shell("-c", libraries) for _ in range(3))
        yield {"command": "import of the libraries", "seconds": imports}
        began = time.time()
        whole = shell(str(ROOT / "train.py"), f"out={run}", "+callbacks.clock._target_=benchmarks.speed.Clock")
        found = json.loads(clock.read_text())
        yield {"command": "python train.py, to the first step", "seconds": found["first"] - began}
        memory = {"MB, epoch 1": found["memory"][0], "MB, last": found["memory"][-1]}
        yield {"command": "python train.py", "seconds": whole, "not training": 1 - sum(found["steps"]) / whole, **memory}
        taken = statistics.median(shell(str(ROOT / "sample.py"), f"ckpt={run}", "n=16", f"out={folder}/{k}") for k in range(3))
        yield {"command": "python sample.py n=16, with its GIF", "seconds": taken}


PARTS: dict[str, Callable[[int], Iterator[Row]]] = {
    "steps": steps, "sizes": sizes, "samples": samples, "drawing": drawing, "overhead": overhead, "commands": commands,
}  # fmt: skip


def machine(threads: int) -> Row:
    """What the numbers are of."""
    try:
        info = Path("/proc/cpuinfo").read_text()
        model = next(line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor()
    return {"processor": model, "cores": os.cpu_count(), "threads": threads, "GFLOP/s": peak() / 1e9, **versions()}


def markdown(rows: Iterable[Row], columns: Sequence[str] = ()) -> Iterator[str]:
    """A table, line by line; the columns are those of the first row, and what later ones have more, unless given."""
    if not columns:
        rows = list(rows)
        columns = list(dict.fromkeys(name for row in rows for name in row))
    yield f"| {' | '.join(columns)} |"
    yield f"| {' | '.join('---' for _ in columns)} |"
    for row in rows:
        cells = (f"{row[name]:.3g}" if isinstance(row.get(name), float) else str(row.get(name, "")) for name in columns)
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure the parts, and print a table each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--compile", action="store_true", help="also the compiled networks in steps, after minutes of compiling")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        raise SystemExit(f"{sorted(unknown)[0]}: the parts are {', '.join(PARTS)}")
    torch.set_num_threads(args.threads)
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # of the commands
    found: dict[str, Any] = {"machine": machine(args.threads)}
    print(", ".join(f"{name} {value}" for name, value in found["machine"].items()))
    parts = {**PARTS, "steps": functools.partial(steps, compiled=args.compile)}
    for part in args.parts or PARTS:
        rows = list(parts[part](args.rounds))
        print("", *markdown(rows), sep="\n", flush=True)
        found[part] = rows
    if args.out is not None:
        write_json(args.out, found)


if __name__ == "__main__":
    main()
