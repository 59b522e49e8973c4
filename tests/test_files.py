"""Room is looked for before the work, and nothing is left of the search."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm import files
from ddpm.errors import ConfigError, WriteError
from ddpm.files import refuse_place, refuse_unwritable
from ddpm.runs import sweep_directory

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("quick", [True, False])
def test_room_is_found_or_not(quick: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not quick:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    (tmp_path / "there").mkdir()
    for folder in ("there", "new/deep"):
        refuse_unwritable(tmp_path / folder, 3 * 2**20, 2)
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"file/new: cannot be written to \(Not a directory\), 6 bytes needed, \d+ free; choose"):
        refuse_unwritable(tmp_path / "file" / "new", 3, 2)
    assert {path.name for path in tmp_path.rglob("*")} == {"there", "file"}


@pytest.mark.skipif(os.name != "posix", reason="has other rights")
def test_in_a_closed_folder_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, user = tmp_path / "closed" / "new", os.geteuid()
    place.parent.mkdir(0o000)
    monkeypatch.chdir("/")
    if user == 0:
        os.seteuid(65534)
    try:
        for asked in (lambda: refuse_place("out", place), lambda: sweep_directory(str(place), None)):
            with pytest.raises(ConfigError, match=r"out=.*new: cannot be written to \(Permission denied\), .* free; choose"):
                asked()
    finally:
        if user == 0:
            os.seteuid(0)


def test_a_limit_of_the_size_of_files_is_found(tmp_path: Path) -> None:
    """As a full disk is, and a quota."""
    pytest.importorskip("resource")
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); from ddpm.files import refuse_unwritable; "
        f"refuse_unwritable({str(tmp_path)!r}, 1000, 3); print('room', flush=True); refuse_unwritable({str(tmp_path)!r}, 1001)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "room\n" and "(File too large), 1001 bytes needed" in done.stderr
    assert not any(tmp_path.iterdir())


def test_what_a_living_process_writes_stays_and_what_is_anybody_elses(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True).stdout.strip()
    theirs = {".d.tmp-x", "e.tmp-1", ".notes.txt.tmp-old", ".notes.tmp-2024", f"a.npz.tmp-{dead}"}
    names = {f".a.npz.tmp-{dead}", f".b.gif.tmp-{os.getppid()}", f".c.json.tmp-{os.getpid()}", f".trial-0.tmp-{dead}"}
    for name in names | theirs:
        (tmp_path / name).touch()
    files.remove_strays(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f".b.gif.tmp-{os.getppid()}"} | theirs
    files.remove_strays(tmp_path, alone=True)
    assert {path.name for path in tmp_path.iterdir()} == theirs
