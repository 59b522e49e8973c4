"""Checkpoints: the old one survives every failure to write a new one, and a damaged or hostile one is never trusted."""

import contextlib
import errno
import io
import math
import os
import pickle
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm import load
from ddpm.checkpoint import checkpoint_of, load_run, read_checkpoint
from ddpm.checkpoint_io import DurableCheckpointIO
from ddpm.errors import CheckpointError, ConfigError, ProjectError, WriteError
from ddpm.files import keeping, write_durably
from ddpm.module import MotionDiffusion, build_module
from ddpm.process.samplers import ddpm

SEEDS = [3, 14, 15]


@pytest.fixture
def module(tiny_config: dict[str, Any]) -> MotionDiffusion:
    """A module in training mode whose weights are all in use and whose normaliser knows its scale."""
    torch.manual_seed(0)
    module = build_module(tiny_config, fps=15.0, class_names=["wave", "bow"])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    module.normalizer.fit(torch.randn(4, 20, 3, 8), torch.ones(4, 1, 1, 8))
    return module


@pytest.fixture
def content(module: MotionDiffusion, tiny_config: dict[str, Any]) -> dict[str, Any]:
    """What Lightning hands to the plugin, without optimiser and loops."""
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict(), "hyper_parameters": tiny_config, "global_step": 7}
    module.on_save_checkpoint(checkpoint)
    return checkpoint


@pytest.fixture
def path(content: dict[str, Any], tmp_path: Path) -> Path:
    """A checkpoint as the project writes it."""
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    DurableCheckpointIO().save_checkpoint(content, path)
    return path


def equal(a: Any, b: Any) -> bool:
    """Whether two contents are the same to the last bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def only_file_in(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


# --- writing


def test_what_was_written_is_read(content: dict[str, Any], path: Path) -> None:
    assert only_file_in(path.parent) == path
    assert equal(DurableCheckpointIO().load_checkpoint(path), content)
    assert equal(read_checkpoint(str(path)), content)
    content["global_step"] = 8
    content["state_dict"]["large"] = torch.full((2,), 3e38)  # finite, as its sum is not
    DurableCheckpointIO().save_checkpoint(content, path)
    assert only_file_in(path.parent) == path and read_checkpoint(path)["global_step"] == 8


def test_weights_only_cannot_be_switched_off(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "x": Path("x")}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="refused"):
        DurableCheckpointIO().load_checkpoint(tmp_path / "x.ckpt", weights_only=False)


class Full(io.FileIO):
    """A file on a full disk: half of what is written fits."""

    def write(self, content: Any) -> int:
        super().write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail(error: int) -> Callable[..., None]:
    def function(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    return function


FAILURES: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "full while writing": (lambda m: m.setattr(Path, "open", lambda self, mode: Full(self, mode)), os.strerror(errno.ENOSPC)),
    "full while flushing": (lambda m: m.setattr(os, "fsync", fail(errno.ENOSPC)), os.strerror(errno.ENOSPC)),
    "broken disk": (lambda m: m.setattr(os, "fsync", fail(errno.EIO)), os.strerror(errno.EIO)),
    "cannot be put in place": (lambda m: m.setattr(os, "replace", fail(errno.EACCES)), os.strerror(errno.EACCES)),
    "cannot be made": (lambda m: m.setattr(Path, "open", fail(errno.EROFS)), os.strerror(errno.EROFS)),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_the_old_file_survives_every_failure(
    failure: str, content: dict[str, Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()
    content["state_dict"] = {name: value + 1 for name, value in content["state_dict"].items()}
    arrange, reason = FAILURES[failure]
    with monkeypatch.context() as patch:
        arrange(patch)
        with pytest.raises(WriteError) as e:
            DurableCheckpointIO().save_checkpoint(content, path)
    assert only_file_in(path.parent) == path and path.read_bytes() == before
    message = str(e.value)
    assert message.startswith(f"{path}: not written") and reason in message and "\n" not in message
    assert f"{len(saved(content))} bytes needed" in message and " free" in message


def test_a_first_file_that_fails_leaves_nothing(content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", fail(errno.ENOSPC))
    with pytest.raises(WriteError):
        DurableCheckpointIO().save_checkpoint(content, tmp_path / "new" / "last.ckpt")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_that_cannot_exist_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(WriteError, match=r"file/last\.ckpt: not written.*3 bytes needed"):
        write_durably(tmp_path / "file" / "last.ckpt", b"abc")
    with pytest.raises(WriteError, match=r"file/sub/last\.ckpt: not written.*3 bytes needed"):
        write_durably(tmp_path / "file" / "sub" / "last.ckpt", b"abc")
    assert (tmp_path / "file").read_text() == "not a folder"


def test_bytes_are_on_the_disk_before_the_name_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order that a power cut asks for: flush the file, rename it, flush the folder."""
    path = tmp_path / "x"
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(fd: int) -> None:
        events.append("folder" if os.path.isdir(f"/proc/self/fd/{fd}") else f"file with {os.fstat(fd).st_size} bytes")
        fsync(fd)

    def recorded_replace(source: Path, target: Path) -> None:
        assert Path(source).parent == path.parent and target == path  # a rename within one folder is one step
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    write_durably(path, memoryview(b"12345"))
    assert events == ["file with 5 bytes", "rename", "folder"] and path.read_bytes() == b"12345"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_not_written(bad: float, content: dict[str, Any], path: Path) -> None:
    before = path.read_bytes()
    name = "diffusion.eps_model.middle_block.1.qkv.weight"
    content["state_dict"][name] = content["state_dict"][name].clone()
    content["state_dict"][name][3, 2, 0] = bad
    with pytest.raises(CheckpointError, match=rf"{path}: not written, state_dict.{name} is not finite"):
        DurableCheckpointIO().save_checkpoint(content, path)
    assert only_file_in(path.parent) == path and path.read_bytes() == before


# --- damage


@pytest.mark.parametrize("size", [lambda n: 0, lambda n: 100, lambda n: n // 2, lambda n: n - 1], ids=["0", "100", "half", "-1"])
def test_cut_files_are_refused(size: Callable[[int], int], path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: size(len(whole))])
    for read in (read_checkpoint, load, DurableCheckpointIO().load_checkpoint):
        with pytest.raises(CheckpointError, match=r"last\.ckpt") as e:
            read(path)
        assert str(e.value).count("\n") <= 2


def refused_or_unharmed(path: Path, whole: bytes, bit: int, content: dict[str, Any]) -> bool:
    """Flip a bit; the file must be refused (True), or what is read must be the content itself (False)."""
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    try:
        read = read_checkpoint(path)
    except CheckpointError as e:
        assert str(path) in str(e) and str(e).count("\n") <= 2
        return True
    assert equal(read, content), f"bit {bit % 8} of byte {bit // 8}"
    return False


def test_flipped_bits_never_become_another_weight(content: dict[str, Any], path: Path) -> None:
    whole = path.read_bytes()
    bits = np.random.default_rng(0).integers(0, 8 * len(whole), 100)
    refused = [refused_or_unharmed(path, whole, int(bit), content) for bit in bits]
    assert sum(refused) > 30


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_no_flipped_bit_of_a_small_file_does(every: int, tmp_path: Path) -> None:
    """And none at all of the table of contents, which no checksum covers: there it may say that a weight is a folder."""
    content = {"state_dict": {"w": torch.arange(1.0, 13.0)}, "x": [1, 2.5, "s"]}
    path = tmp_path / "x.ckpt"
    DurableCheckpointIO().save_checkpoint(content, path)
    whole = path.read_bytes()
    assert len(whole) < 2000
    table = 8 * whole.index(b"PK\x01\x02")
    bits = {*range(0, table, every), *range(table, 8 * len(whole))}
    refused = sum(refused_or_unharmed(path, whole, bit, content) for bit in bits)
    assert refused > 8 * 400 // every


def test_an_empty_pickle_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/byteorder", b"little")
    with pytest.raises(CheckpointError, match=r"x\.ckpt"):
        read_checkpoint(tmp_path / "x.ckpt")


# --- hostile and foreign files


class Payload:
    """Unpickles by touching a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.canary,))


def with_instantiator(canary: Path) -> bytes:
    """The way in that Lightning's own loader once had: a key that names a function to call."""
    return saved(
        {"state_dict": {}, "hyper_parameters": {"_instantiator": "os.system", "command": f"touch {canary}"}, "motion": {}}
    )


HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "a pickle": lambda canary: pickle.dumps({"state_dict": Payload(canary)}),
    "an object in an archive": lambda canary: saved({"state_dict": Payload(canary), "hyper_parameters": {}, "motion": {}}),
    "an object deep inside": lambda canary: saved({"state_dict": {}, "hyper_parameters": {"a": [{"b": Payload(canary)}]}}),
    "only an object": lambda canary: saved(Payload(canary)),
    "the old format": lambda canary: pickle.dumps(0x1950A86A20F9469CFC6C) + pickle.dumps(1001) + pickle.dumps(Payload(canary)),
    "an instantiator": with_instantiator,
    "text": lambda canary: b"#!/bin/sh\ntouch " + str(canary).encode(),
    "no dictionary": lambda canary: saved([torch.zeros(3)]),
    "another archive": lambda canary: zipped({"hello.txt": b"hello"}),
    "an empty archive": lambda canary: zipped({}),
}


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def test_the_canary_sings(tmp_path: Path) -> None:
    """A loader that trusts the file runs it: otherwise the tests below would prove nothing."""
    torch.load(io.BytesIO(HOSTILE["an object in an archive"](tmp_path / "canary")), weights_only=False)
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused_in_three_lines(kind: str, tmp_path: Path) -> None:
    path, canary = tmp_path / "x.ckpt", tmp_path / "canary"
    path.write_bytes(HOSTILE[kind](canary))
    with pytest.raises((CheckpointError, ConfigError)) as e:
        load(path)
    assert not canary.exists()
    assert str(e.value).count("\n") <= 2 and len(str(e.value)) < 1000
    assert "x.ckpt" in str(e.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/last.ckpt", "https://example.invalid/x.ckpt", "s3://bucket/x.ckpt", "file:///etc/passwd"]
)
def test_urls_are_no_files(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection was opened"))
    for read in (read_checkpoint, load, DurableCheckpointIO().load_checkpoint):
        with pytest.raises(CheckpointError, match="no such file") as e:
            read(url)
        assert "\n" not in str(e.value)


def test_folders_and_missing_files_are_named(tmp_path: Path) -> None:
    for path, named in (
        (tmp_path, tmp_path / "checkpoints" / "last.ckpt"),
        (tmp_path / "nothing.ckpt", tmp_path / "nothing.ckpt"),
    ):
        with pytest.raises(CheckpointError, match=f"{named}: no such file"):
            load(path)


@pytest.mark.parametrize("part", ["model", "schedule", "prediction", "weighting", "condition", "sampler", "skeleton"])
def test_a_configuration_that_names_code_is_refused(part: str, content: dict[str, Any], tmp_path: Path) -> None:
    path, canary = tmp_path / "x.ckpt", tmp_path / "canary"
    evil = {"_target_": "os.system", "command": f"touch {canary}"}
    original = content["hyper_parameters"].get(part, {})
    content["motion"]["label_counts"] = [3, 4, 0]
    for node in (evil, {**evil, "_partial_": True}, {**original, "s": evil}, {**original, "_target_": ["os.system"]}):
        content["hyper_parameters"][part] = node
        DurableCheckpointIO().save_checkpoint(content, path)
        with pytest.raises(ConfigError, match=rf"x\.ckpt: .*{part}") as refused:
            load(path)
        assert "trust=[os]" not in str(refused.value), "nobody is told to trust what is not theirs"
    assert not canary.exists()


def test_what_sampling_does_not_need_is_not_built(content: dict[str, Any], tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    content["hyper_parameters"]["optimizer"] = {"_target_": "os.system", "command": f"touch {canary}"}
    content["hyper_parameters"]["callbacks"] = [{"_target_": "os.system", "command": f"touch {canary}"}]
    DurableCheckpointIO().save_checkpoint(content, tmp_path / "x.ckpt")
    load(tmp_path / "x.ckpt")
    assert not canary.exists()


MY_NET = """
import os
from torch import Tensor, nn

class MyNet(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layer = nn.Linear(in_channels, out_channels)

    def forward(self, xt: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.layer(xt.flatten(1, 2).mT).mT.reshape(xt.shape)
"""


@pytest.fixture
def my_network(content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkpoint whose network is that of my_package."""
    (tmp_path / "my_package.py").write_text(MY_NET)
    monkeypatch.syspath_prepend(tmp_path)
    config = content["hyper_parameters"]
    config["model"] = {"_target_": "my_package.MyNet", "in_channels": 60, "out_channels": 60}
    content["state_dict"] = build_module(config, fps=15.0).state_dict() | {"normalizer.fitted": torch.tensor(True)}
    sys.modules.pop("my_package")
    DurableCheckpointIO().save_checkpoint(content, tmp_path / "my.ckpt")
    yield tmp_path / "my.ckpt"
    sys.modules.pop("my_package", None)


def test_ones_own_network_is_loaded_only_if_it_is_trusted(my_network: Path) -> None:
    refused = r"model\._target_='my_package\.MyNet'.*it may name no other code.*give trust=\[my_package\]"
    for trust in ((), ("other",)):
        with pytest.raises(ConfigError, match=refused):
            load(my_network, trust=trust)
    assert "my_package" not in sys.modules
    for trust in (("my_package",), "my_package", ["my_package", "other"]):
        for module in (load(my_network, trust=trust), MotionDiffusion.load_from_checkpoint(my_network, trust=trust)):
            assert type(module.diffusion.eps_model).__name__ == "MyNet" and module.sample(2).finite.shape == (2,)


@pytest.mark.parametrize("name", ["my_package.os.system", "os.system", "my_package.nn.Linear"])
def test_trust_in_a_package_is_no_trust_in_what_it_imports(
    name: str, my_network: Path, content: dict[str, Any], tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    content["hyper_parameters"]["model"] = {"_target_": name, "command": f"touch {canary}"}
    DurableCheckpointIO().save_checkpoint(content, my_network)
    with pytest.raises(ConfigError, match=rf"model\._target_='{name}'"):
        load(my_network, trust=("my_package",))
    assert not canary.exists()


# --- loading


def test_a_loaded_module_samples_bit_for_bit(module: MotionDiffusion, path: Path) -> None:
    loaded = load(path)
    assert module.training and not loaded.training and not any(m.training for m in loaded.modules())
    assert loaded.skeleton == module.skeleton and loaded.fps == 15.0 and loaded.frames == 8
    assert loaded.class_names == ("wave", "bow") and loaded.normalizer.fitted
    for arguments in ({}, {"frames": 5}, {"sampler": ddpm}):
        clips = module.sample(SEEDS, **arguments).positions
        assert clips.shape == (3, arguments.get("frames", 8), 20, 3) and torch.isfinite(clips).all()
        assert torch.equal(loaded.sample(SEEDS, **arguments).positions, clips)
    assert module.training


def test_other_weights_sample_something_else(module: MotionDiffusion, content: dict[str, Any], tmp_path: Path) -> None:
    clips = module.sample(SEEDS).positions
    for name in ("normalizer.mean", "normalizer.scale", "diffusion.eps_model.out.2.weight"):
        other = {**content, "state_dict": {**content["state_dict"], name: content["state_dict"][name] * 1.5}}
        DurableCheckpointIO().save_checkpoint(other, tmp_path / "x.ckpt")
        assert not torch.allclose(load(tmp_path / "x.ckpt").sample(SEEDS).positions, clips, atol=1e-4), name


@pytest.mark.parametrize("missing", [["state_dict"], ["hyper_parameters"], ["motion"], ["state_dict", "motion"]])
def test_missing_keys_are_named(missing: list[str], content: dict[str, Any], tmp_path: Path) -> None:
    for key in missing:
        del content[key]
    (tmp_path / "x.ckpt").write_bytes(saved(content))
    with pytest.raises(CheckpointError, match=r"x\.ckpt: .*lacks") as e:
        load(tmp_path / "x.ckpt")
    assert repr(missing) in str(e.value)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        *(("hyper_parameters", key) for key in ("T", "frames", "model", "skeleton", "sampler")),
        ("motion", "fps"),
        ("motion", "class_names"),
    ],
)
def test_missing_keys_inside_are_named(section: str, key: str, content: dict[str, Any], tmp_path: Path) -> None:
    """As a Lightning checkpoint of another project would have it, or of another version of this one."""
    del content[section][key]
    (tmp_path / "x.ckpt").write_bytes(saved(content))
    with pytest.raises(CheckpointError, match=rf"x\.ckpt: .*{key}"):
        load(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("state_dict", 5), ("state_dict", [1]), ("hyper_parameters", 5), ("hyper_parameters", []),
        ("motion", None), ("motion", "x"), ("T", "8"), ("T", 8.0), ("T", 1), ("T", None), ("frames", "8"), ("frames", 0),
        ("model", 5), ("model", None), ("skeleton", []),
    ],
)  # fmt: skip
def test_values_of_the_wrong_kind_are_refused(section: str, value: Any, content: dict[str, Any], tmp_path: Path) -> None:
    if section in content:
        content[section] = value
    else:
        content["hyper_parameters"][section] = value
    (tmp_path / "x.ckpt").write_bytes(saved(content))
    with pytest.raises((CheckpointError, ValueError), match=rf"{section}\b") as e:
        load(tmp_path / "x.ckpt")
    assert str(e.value).count("\n") <= 2


def test_weights_that_do_not_fit_are_refused(content: dict[str, Any], tmp_path: Path) -> None:
    """Other joints, other width: named, and nothing is loaded in part."""
    name = "normalizer.mean"
    changes: list[tuple[dict[str, Any], str]] = [
        ({**content["state_dict"], name: torch.zeros(19, 3, 1)}, name),
        ({k: v for k, v in content["state_dict"].items() if k != name}, name),
        ({**content["state_dict"], "extra.weight": torch.zeros(1)}, r"extra\.weight"),
    ]
    for state, message in changes:
        (tmp_path / "x.ckpt").write_bytes(saved({**content, "state_dict": state}))
        with pytest.raises(CheckpointError, match=rf"x\.ckpt: its weights do not fit(.|\n)*{message}"):
            load(tmp_path / "x.ckpt")


def test_a_run_without_draws_has_drawn_equally(tmp_path: Path) -> None:
    loader = {"_target_": "datamodules.pose.PoseDataModule", "split": "subject"}
    for given, expected in (({}, "equal"), ({"draws": "length"}, "length")):
        content = {"state_dict": {}, "hyper_parameters": {"loader": loader | given}}
        DurableCheckpointIO().save_checkpoint(content, tmp_path / "last.ckpt")
        assert read_checkpoint(tmp_path / "last.ckpt")["hyper_parameters"]["loader"] == {**loader, "draws": expected}


@pytest.mark.parametrize("where", ["current_model_state", "averaging_state", "optimizer_states"])
def test_raw_weights_and_the_optimiser_are_looked_at_too(where: str, content: dict[str, Any], path: Path) -> None:
    before = path.read_bytes()
    state = {"a": torch.ones(3), "b": {0: {"exp_avg": torch.tensor([1.0, math.nan])}}}
    with pytest.raises(CheckpointError, match=rf"not written, {where}\.(0\.)?b\.0\.exp_avg is not finite"):
        DurableCheckpointIO().save_checkpoint({**content, where: [state] if where == "optimizer_states" else state}, path)
    assert path.read_bytes() == before


def test_the_newest_checkpoint_that_is_whole_is_taken(
    content: dict[str, Any], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And one that is not is named, with what is taken instead."""
    run, previous, best = path.parent.parent, path.with_name("previous.ckpt"), path.with_name("best.ckpt")
    assert checkpoint_of(run) == path
    for step, other in ((7, previous), (3, best)):
        DurableCheckpointIO().save_checkpoint({**content, "global_step": step}, other)
    assert checkpoint_of(run) == path and not caplog.text
    path.write_bytes(path.read_bytes()[:-100])
    assert checkpoint_of(run) == previous and load_run(run)[1] == load_run(previous)[1]
    assert "last.ckpt: not a checkpoint" in caplog.text and "of step 7, is taken instead of last.ckpt" in caplog.text
    previous.write_bytes(b"")
    assert checkpoint_of(run) == best
    path.unlink()
    previous.unlink()
    assert checkpoint_of(run) == best, "killed before the first last.ckpt"
    best.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"best\.ckpt: not a checkpoint"):
        load_run(run)


def test_a_file_is_kept_only_if_it_was_replaced(tmp_path: Path) -> None:
    path, other = tmp_path / "last", tmp_path / "previous"
    for text, failing, now, then in (
        ("1", False, "1", None),
        ("2", False, "2", "1"),
        ("3", True, "2", "1"),
        ("4", False, "4", "2"),
    ):
        with contextlib.suppress(OSError), keeping(path, other):
            if failing:
                raise OSError
            write_durably(path, text.encode())
        assert path.read_text() == now and (other.read_text() if other.exists() else None) == then
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last", "previous"]


# --- what a file may ask for


VALUES = (None, math.nan, math.inf, -1, 10**9, 10**30, "", [], {}, [1], [None], "x" * 5000, True, "${oc.env:HOME}")


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value, at any depth."""
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node[:2]) if isinstance(node, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def replaced(node: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at a place."""
    if not path:
        return value
    pairs = list(node.items() if isinstance(node, dict) else enumerate(node))
    pairs = [(key, replaced(old, path[1:], value) if key == path[0] else old) for key, old in pairs]
    return dict(pairs) if isinstance(node, dict) else [new for _, new in pairs]


def test_no_value_of_a_file_escapes(content: dict[str, Any], tmp_path: Path) -> None:
    """Every value of configuration and motion turned into another one: it is built, or refused as this file."""
    random = np.random.default_rng(0)
    content["hyper_parameters"]["condition"] = {"_target_": "ddpm.process.condition.LabelCondition", "_partial_": True}
    content["motion"]["label_counts"] = [3, 4, 0]
    cases = [(s, path, value) for s in ("hyper_parameters", "motion") for path in places(content[s]) for value in VALUES]
    for k in random.permutation(len(cases))[:150].tolist():
        section, path, value = cases[k]
        (tmp_path / "x.ckpt").write_bytes(saved({**content, section: replaced(content[section], path, value)}))
        with contextlib.suppress(ProjectError):
            load_run(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("T",), 10**9, "T=1000000000"),
        (("frames",), 10**9, "frames=1000000000"),
        (("model", "model_channels"), 4 * 10**9, "too large to be built"),
        (("model", "model_channels"), 4096, "there are only"),
        (("model", "num_res_blocks"), 10**9, "num_res_blocks"),
        (("model", "channel_mult"), [1] * 10**5, "channel_mult"),
        (("skeleton", "joints"), {"0": None, **{str(k): str(k - 1) for k in range(1, 10**5)}}, "100000 joints"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_file_asks_for_no_more_than_it_holds(
    path: tuple[str, ...], value: Any, named: str, content: dict[str, Any], tmp_path: Path
) -> None:
    content["hyper_parameters"] = replaced(content["hyper_parameters"], path, value)
    (tmp_path / "x.ckpt").write_bytes(saved(content))
    began = time.monotonic()
    with pytest.raises(ProjectError, match=named) as e:
        load_run(tmp_path / "x.ckpt")
    assert time.monotonic() - began < 5 and str(e.value).count("\n") <= 2


def test_a_file_that_repeats_itself_is_refused(tmp_path: Path) -> None:
    """A list in itself, one that doubles 60 times, and a tensor that is larger than its numbers."""
    endless: list[Any] = []
    endless.append(endless)
    doubled: list[Any] = [1]
    for _ in range(60):
        doubled = [doubled, doubled]
    for value in (endless, doubled, torch.zeros(1).expand(10**9), 10**4000):
        torch.save({"hyper_parameters": {"x": value}}, tmp_path / "x.ckpt")
        with pytest.raises(CheckpointError, match=r"x\.ckpt: refused, it holds"):
            read_checkpoint(tmp_path / "x.ckpt")


def test_nobody_is_told_to_load_a_file_unsafely(tmp_path: Path) -> None:
    torch.save({"x": Payload(tmp_path / "canary")}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="refused, it holds more than tensors and plain values") as e:
        read_checkpoint(tmp_path / "x.ckpt")
    assert "weights_only" not in str(e.value) and "safe_globals" not in str(e.value)
