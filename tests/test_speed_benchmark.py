"""benchmarks/speed.py, gpu.py and plain.py: what is compared is the same, and every line runs on any machine."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, speed
from benchmarks.plain import PlainUNet
from ddpm.networks.unet import MDM_UNetModel

TINY = speed.Size(8, (1, 2), 1, (2,), 2)


@pytest.mark.parametrize(("mult", "blocks", "attention"), [((1, 2, 4), 2, (2, 4)), ((1, 3), 1, (1,))])
def test_the_plain_network_is_ours(mult: tuple[int, ...], blocks: int, attention: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    ours = MDM_UNetModel(16, 6, 16, 6, blocks, attention, channel_mult=mult)
    for weight in ours.parameters():  # also of branches that begin with zeros
        torch.nn.init.normal_(weight, std=0.05)
    plain = PlainUNet(6, 16, mult, blocks, attention)
    plain.load_state_dict(dict(zip(plain.state_dict(), ours.state_dict().values(), strict=True)))
    x, t = torch.randn(3, 6, 16), torch.tensor([0, 7, 999])
    expected = ours(x, t)
    assert torch.allclose(plain(x, t), expected, atol=1e-5) and expected.std() > 0.01


def test_actions_take_turns() -> None:
    order: list[str] = []

    def action(name: str) -> Callable[[], None]:
        return lambda: order.append(name)

    taken = speed.alternate({name: action(name) for name in "ab"}, 2)
    assert order == list("ababab") and set(taken) == {"a", "b"} and min(taken.values()) > 0


def test_networks_without_their_package_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(size: speed.Size, frames: int) -> torch.nn.Module:
        raise ImportError

    monkeypatch.setattr(speed, "SIZES", {"tiny": TINY})
    monkeypatch.setattr(speed, "PRODUCT", 8)
    subjects = {name: it for name, it in speed.SUBJECTS.items() if name.startswith(("plain", "ours"))}
    monkeypatch.setattr(speed, "SUBJECTS", subjects | {"other": speed.Subject(absent)})
    rows = list(speed.steps(1))
    assert len(rows) == 2 * 4 and [row["x plain"] for row in rows[::4]] == [1.0, 1.0]
    assert len(list(speed.markdown(rows))) == 2 + len(rows)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of speed.py on a tiny network that trains for seconds on a few clips."""
    fewer = ("frames=8", "T=20", "model.model_channels=8", "data.n=40", "loader.batch_size=4", "+trainer.limit_val_batches=1")
    composed = speed.composed
    monkeypatch.setattr(speed, "SIZES", {"default": TINY})
    monkeypatch.setattr(speed, "SHAPES", ((2, 3, 8), (1, 2, 16)))
    monkeypatch.setattr(speed, "composed", lambda *given: composed(*given, *fewer, "~callbacks.loss_plot"))


def test_a_step_is_timed_for_every_shape(small: None) -> None:
    rows = list(speed.sizes(1))
    assert [row["joints"] for row in rows] == [3, 2]
    assert all(row["frames/s"] == pytest.approx(16 / row["step ms"] * 1000) for row in rows)


def test_samplers_are_timed_beside_all_steps(small: None) -> None:
    rows = list(speed.samples(1))
    assert [row["calls"] for row in rows][::3] == [20, 10] and rows[0]["x"] == 1


def test_drawing_is_timed_beside_playing(small: None) -> None:
    (row,) = speed.drawing(1)
    assert row["of playing"] == pytest.approx((row["drawn s"] + row["GIF s"]) / (8 / 20)) and row["MB"] > 0


def test_the_trainer_is_timed_beside_a_bare_loop(small: None) -> None:
    (row,) = speed.overhead(1)
    assert row["overhead"] == pytest.approx(row["Trainer ms"] / row["bare loop ms"] - 1)


def test_the_benchmark_of_gpus_runs_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(size: speed.Size, frames: int) -> torch.nn.Module:
        raise RuntimeError("no kernel\nfor | this")

    out = tmp_path / "gpu.json"
    monkeypatch.setattr(gpu, "BARE", (*gpu.BARE, "~callbacks.loss_plot"))
    monkeypatch.setattr(gpu, "EAGER", {"broken": (broken, False, None), **gpu.EAGER})
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--small", "--out", str(out)])
    gpu.main()
    found = json.loads(out.read_text())
    rows = {row["what"]: row for row in found["rows"]}
    assert found["machine"]["device"] == "cpu" and rows["step of 2 x 8: broken"]["note"] == "RuntimeError: no kernel for / this"
    assert [name for name, row in rows.items() if "note" in row] == ["step of 2 x 8: broken"]
    assert rows["step of 2 x 8: ours, bf16"]["ms"] > 0 and any(name.startswith("3 clips in 4 calls") for name in rows)
    assert rows["resumed: relative difference of weights"]["count"] == 0, "a CPU resumes bit for bit"
    assert [line.count("|") for line in capsys.readouterr().out.splitlines()[1:]] == [len(gpu.COLUMNS) + 1] * (len(rows) + 2)


def test_what_fails_takes_no_row_with_it_and_what_is_late_is_skipped(tmp_path: Path) -> None:
    jobs = {
        "good": lambda: {"ms": 1.0, "count": float("nan")},
        "bad": lambda: {"ms": 1 / 0},
        "slow": lambda: time.sleep(60),
        "late": lambda: {"ms": 1.0},
    }
    out, found = tmp_path / "gpu.json", []
    for row in gpu.rows_of(jobs.items(), {}, out, time.monotonic() + 0.5):
        found.append(json.loads(out.read_text())["rows"])
        assert found[-1][-1]["what"] == row["what"]
    assert [row.get("note") for row in found[-1]] == [
        *(None, "ZeroDivisionError: division by zero", "TimeoutError: the minutes are over", "skipped: the minutes are over")
    ]
    assert found[0] == [{"what": "good", "ms": 1.0, "count": None}]


def test_time_that_is_spent_skips_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--device", "cpu", "--small", "--minutes", "0", "--root", "unread", "--out", str(tmp_path / "gpu.json")]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *given])
    gpu.main()
    assert all("skipped" in line for line in capsys.readouterr().out.splitlines()[3:])


def test_the_recipe_is_measured_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {f"frechet/{name}": {"generated": {"value": 0.5}} for name in ("pose", "kinetic", "spectrum")}
    (tmp_path / "train.py").write_text("")
    script = f"import json, os\nos.mkdir('eval')\njson.dump({{'metrics': {values}}}, open('eval/metrics.json', 'w'))"
    (tmp_path / "evaluate.py").write_text(script)
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    row = gpu.recipe(tmp_path)
    assert row.pop("minutes") > 0 and row == {"pose": 0.5, "kinetic": 0.5, "spectrum": 0.5, "n": 256}
    (tmp_path / "train.py").write_text("print('many lines')\nraise SystemExit('no such data')")
    assert gpu.measured(lambda: gpu.recipe(tmp_path), 60) == {"note": "RuntimeError: train.py: no such data"}


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        *(("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA H200 NVL", 836e12)),
        *(("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA L4", 121e12), ("NVIDIA L40", None)),
    ],
)
def test_devices_are_known_by_whole_words(name: str, peak: float | None) -> None:
    assert gpu.peak_of(name) == peak


def test_attention_is_counted() -> None:
    class Attention(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.scaled_dot_product_attention(x, x, x)

    assert speed.flops_of(Attention(), torch.randn(1, 2, 8, 4), torch.zeros(1)) == 2 * (2 * 2 * 8 * 8 * 4)


def test_the_benchmark_of_gpus_says_that_none_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="--device cpu --small"):
        gpu.main()
