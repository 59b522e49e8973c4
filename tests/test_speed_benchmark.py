"""benchmarks/speed.py, gpu.py and plain.py: what is compared is the same, and every line runs on any machine."""

import json
import sys
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


def test_the_benchmark_of_gpus_runs_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gpu.json"
    quiet = [*(o.replace("epoch=20", "epoch=10") for o in gpu.QUIET), "loader.split=sequence", "+trainer.limit_val_batches=1"]
    monkeypatch.setattr(gpu, "QUIET", quiet)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--small", "--out", str(out)])
    gpu.main()
    rows = json.loads(out.read_text())["rows"]
    names = [row["what"] for row in rows]
    assert "3 clips in 4 calls" in names and f"| {names[-1]} |" in capsys.readouterr().out
    assert rows[-1]["what"].startswith("resumed") and rows[-1]["count"] == 0, "a CPU resumes bit for bit"


def test_the_benchmark_of_gpus_says_that_none_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="--device cpu --small"):
        gpu.main()
