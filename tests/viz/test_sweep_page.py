"""The table and the page of a sweep."""

import csv
import re
from pathlib import Path
from typing import Any

import pytest

from ddpm.viz import sweep_page
from ddpm.viz.sweep_page import LOSS, POSE, Job, write_sweep


def job(sweep: Path, name: str, varied: dict[str, str], status: str = "finished", error: str = "", **results: Any) -> Job:
    """With a loss curve and a picture; ``pose`` and ``loss`` stand for the names of these results."""
    folder = sweep / name
    (folder / "samples").mkdir(parents=True)
    (folder / "loss.csv").write_text("epoch,step,train_loss,val_loss,lr\n1,10,0.5,0.4,0.1\n2,20,0.3,nan,0.1\n")
    (folder / "samples" / "final.gif").write_bytes(b"GIF89a")
    full = {"pose": "metrics/frechet_pose", "real": "metrics/real/frechet_pose", "loss": LOSS, "jerk": "physics/jerk_ratio"}
    return Job(folder, varied, status, error, {full.get(key, key): value for key, value in results.items()})


def rows(sweep: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((sweep / "sweep.csv").read_text().splitlines()))


def test_what_varies_stands_beside_what_was_measured(tmp_path: Path) -> None:
    jobs = [
        job(tmp_path, "0_T-5", {"T": "5", "seed": "1"}, pose=0.4, real=0.12, jerk=1.5, loss=0.2, n=64, steps=20),
        job(tmp_path, "1_T-<6>", {"T": "<6>", "seed": "1"}, "failed", "ConfigError: <b>T</b>\x1b[2J"),
        job(tmp_path, "2_T-7", {"T": "7", "seed": "1"}, pose=0.3, loss=0.3, n=64, steps=20, seconds=4.0),
    ]
    said = write_sweep(tmp_path, jobs)
    assert said.startswith("3 jobs: 2 finished, 1 failed; best by the distance of poses (T may change") and "2_T-7\n" in said
    table, page = rows(tmp_path), (tmp_path / "sweep.html").read_text()
    assert [row["best"] for row in table] == ["0", "0", "1"] and "seed" not in table[0]
    assert (table[0][POSE], table[0]["jerk_ratio"], table[0]["real/frechet_pose"]) == ("0.4", "1.5", "0.12")
    assert table[1]["error"] == "ConfigError: <b>T</b>\\x1b[2J" and "ConfigError: &lt;b&gt;T" in page and "<b>T" not in page
    assert re.findall(r'<tr class="best"><td><a href="2_T-7/"', page) and str(tmp_path) not in page, "the folder may be moved"
    assert (
        "<th>T</th>" in page
        and "<td>0.4 (0.12)</td>" in page
        and page.count("data:image/gif") == 3
        and page.count("data:image/png") == 1
    )
    assert not re.findall("https?://", page)
    write_sweep(tmp_path, [job(tmp_path, "3_T", {"T": "\udcff"}), jobs[0]])  # bytes of a command line that are no UTF-8
    assert rows(tmp_path)[0]["T"] == "\\udcff"


@pytest.mark.parametrize(
    ("varied", "measured", "by", "best"),
    [
        ("optimizer.lr", [{"loss": 0.3, "pose": 0.1, "n": 64}, {"loss": 0.2, "pose": 0.2, "n": 64}], LOSS, 1),
        ("weighting", [{"loss": 0.3, "pose": 0.1, "n": 64}, {"loss": 0.2, "pose": 0.2, "n": 64}], "the distance of poses", 0),
        ("weighting", [{"loss": 0.3, "pose": 0.1, "n": 64}, {"loss": 0.2, "pose": 0.2, "n": 32}], f"{LOSS}, though", 1),
        ("weighting", [{"loss": 0.3, "pose": 0.1, "n": 64}, {"loss": 0.2}], f"{LOSS}, though", 1),
        ("seed", [{"loss": 0.3, "pose": 0.1, "n": 64}, {"loss": 0.2, "pose": 0.2, "n": 64}], "the distance of poses", 0),
        ("loader.batch_size", [{"loss": 0.3}, {"loss": 0.2}], f"{LOSS}, though loader.batch_size may change what it means", 1),
        ("model", [{"loss": None}, {"loss": float("nan")}], None, None),
        ("model", [{}, {"loss": 0.7}], LOSS, 1),
    ],
)
def test_the_best_is_found_by_what_can_be_compared(
    varied: str, measured: list[dict[str, Any]], by: str | None, best: int | None, tmp_path: Path
) -> None:
    """Losses only where the same is summed up, distances only of as many clips."""
    said = write_sweep(tmp_path, [job(tmp_path, str(k), {varied: str(k)}, **results) for k, results in enumerate(measured)])
    assert [row["best"] for row in rows(tmp_path)] == [str(int(k == best)) for k in (0, 1)]
    assert (f"best by {by}" in said) if by else ("; best" not in said)


def test_a_sweeper_that_maximises_has_another_best(tmp_path: Path) -> None:
    jobs = [job(tmp_path, str(k), {"T": str(k)}, mine=float(k)) for k in range(3)]
    assert "best by mine: 2" in write_sweep(tmp_path, jobs, "mine", "max")
    assert "best by mine: 0" in write_sweep(tmp_path, jobs, "mine")


def test_pictures_that_are_too_large_are_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_page, "EMBEDDED", 11)
    write_sweep(tmp_path, [job(tmp_path, f"{k}_T-#", {"T": str(k)}) for k in range(2)])
    page = (tmp_path / "sweep.html").read_text()
    assert 'src="0_T-%23/samples/final.gif"' in page and "data:image/gif" not in page and "move with this page" in page


def test_jobs_without_files_have_a_page_too(tmp_path: Path) -> None:
    jobs = [Job(tmp_path / str(k), {"T": str(k)}, "interrupted", "", {}) for k in range(40)]
    assert "40 jobs: 40 interrupted\n" in write_sweep(tmp_path, jobs) and not (tmp_path / "sweep.png").exists()
