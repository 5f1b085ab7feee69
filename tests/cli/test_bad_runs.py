"""Training that diverges, damaged files, full disks: nothing half-written, nothing lost."""

import errno
import json
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.bench import Bench, overriding
from helpers.interrupted import interrupted_at
from helpers.refusals import (
    FINETUNE,
    PRETRAIN,
    PROBE,
    SCENES,
    TOY,
    contents,
    fails,
    half_written,
    only,
)


# ---- training that diverges
@contextmanager
def weights_spoilt_at(step: int) -> Iterator[None]:
    """The loss of a step is finite and its update is not: a gradient that overflows does this."""
    from pretext.context_encoder import ContextEncoder

    train_step = ContextEncoder.train_step

    def spoil_weights(self: Any, images: torch.Tensor, now: Any) -> Any:
        values = train_step(self, images, now)
        if now.index == step:
            next(self.encoder.parameters()).data.fill_(torch.nan)
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ContextEncoder, "train_step", spoil_weights)
        yield


def test_loss_that_is_not_finite(bench: Bench, finished: Path) -> None:
    before, rate = contents(finished), ("--lr", "1e30", "--checkpoint-every", "1")
    result = bench(*PRETRAIN, *SCENES, *rate, "--workspace", finished)
    fails(result, 1, "step", "--lr")
    assert contents(finished) == before
    assert not list(finished.glob("pretrain/context-*/record.json"))
    assert "the last checkpoint is kept" in result.err
    state = torch.load(only(finished, "pretrain/context-*/checkpoint.pt"), weights_only=True)
    assert state["step"] == 1
    assert all(t.isfinite().all() for t in state["task"].values())
    assert half_written(finished) == []


@pytest.mark.parametrize("rate", ["1e38", "1e39"])
def test_rate_beyond_float32(bench: Bench, workspace: Path, rate: str) -> None:
    """Torch itself refuses such a step: as a request or as a loss, but not with its traceback."""
    result = bench(*PRETRAIN, *SCENES, "--lr", rate, "--workspace", workspace)
    fails(result, result.code or 1, "--lr")
    assert not list(workspace.glob("*/*/record.json"))


def test_checkpoint_never_takes_in_spoilt_weights(bench: Bench, workspace: Path) -> None:
    """The last good checkpoint is the one before the update that went wrong."""
    command = [*PRETRAIN, *SCENES, "--checkpoint-every", "1", "--workspace", workspace]
    with weights_spoilt_at(1):
        fails(bench(*command), 1, "step", "--lr", "checkpoint is kept")
    state = torch.load(only(workspace, "pretrain/context-*/checkpoint.pt"), weights_only=True)
    assert state["step"] == 1
    assert all(t.isfinite().all() for t in state["task"].values())
    assert bench(*command).code == 0  # what was kept can be gone on from


def test_spoilt_weights_never_make_a_record(bench: Bench, workspace: Path) -> None:
    """No loss is computed after the last update: the weights must be looked at."""
    with weights_spoilt_at(3):
        fails(bench(*PRETRAIN, *SCENES, "--workspace", workspace), 1, "step", "--lr")
    assert not list(workspace.glob("*/*/record.json"))


def test_fine_tuning_that_diverges(bench: Bench, finished: Path) -> None:
    before = contents(finished)
    words = overriding(FINETUNE, "--steps", "6", "--labels", "2", "--lr", "1e30")
    result = bench(*words, *SCENES, "--workspace", finished)
    fails(result, 1, "step", "--lr")
    assert contents(finished) == before
    assert not list(finished.glob("evaluation/*/record.json"))


# ---- damaged files
@pytest.mark.parametrize("damage", ["cut", "emptied", "foreign", "no weights"])
def test_damaged_checkpoint(bench: Bench, finished: Path, damage: str) -> None:
    before = contents(finished)
    command = [*PRETRAIN, *SCENES, "--workspace", finished]
    with interrupted_at(1):
        fails(bench(*command), 130, "step 2 of 4", "the same command continues")
    path = only(finished, "pretrain/context-*/checkpoint.pt")
    whole = path.read_bytes()
    if damage == "no weights":
        torch.save({"step": 2, "task": {}, "optimizers": []}, path)
    else:
        path.write_bytes({"cut": whole[: len(whole) // 2], "emptied": b"", "foreign": b"x"}[damage])
    fails(bench(*command), 1, str(path), "damaged", "remove it")
    assert contents(finished) == before
    path.unlink()
    bench.ok(*command)
    assert contents(finished).items() > before.items()


@pytest.mark.parametrize("damage", ["cut", "altered"])
def test_damaged_record(bench: Bench, finished: Path, damage: str) -> None:
    bench.ok(*PROBE, *SCENES, "--workspace", finished)
    bench.ok("pretrain", "random", *TOY, *SCENES, "--seed", "1", "--workspace", finished)
    path = max(finished.glob("pretrain/random-*/record.json"), key=lambda p: p.stat().st_mtime_ns)
    text = path.read_text()
    altered = text.replace('"seed": 1', '"seed": 2')
    path.write_text(altered if damage == "altered" else text[: len(text) // 2])
    before = contents(finished)
    command = ["pretrain", "random", *TOY, *SCENES, "--seed", "1", "--workspace", finished]
    fails(bench(*command), 1, str(path), "remove", str(path.parent), "run again")
    fails(bench(*PROBE, *SCENES, "--workspace", finished), 1, str(path), "remove")
    listed = bench.ok("runs", "--workspace", finished)
    assert str(path) in listed.out
    assert listed.out.count("random") >= 3  # the damaged one, its sound brother, the evaluation
    assert bench("table", "--workspace", finished).code == 0  # of evaluations, all sound
    assert contents(finished) == before
    shutil.rmtree(path.parent)
    bench.ok(*command)


@pytest.mark.parametrize("damage", ["cut", "lacking", "extra", "misshapen", "foreign", "other"])
def test_weights_that_do_not_fit(bench: Bench, finished: Path, tmp_path: Path, damage: str) -> None:
    before = contents(finished)
    source = only(finished, "pretrain/random-*/encoder.safetensors")
    path = tmp_path / "weights.safetensors"
    state = load_file(source)
    record = json.loads((source.parent / "record.json").read_text())
    header = {"encoder": json.dumps(record["details"]["encoder"]["spec"])}
    expected = {
        "lacking": "lacks conv1.0.weight",
        "extra": "has fc8.weight",
        "misshapen": "conv1.0.bias is (5,)",
        "foreign": "not saved by ssl-bench",
        "other": "does not describe an encoder",
        "cut": "not a readable safetensors file",
    }[damage]
    if damage == "lacking":
        del state["conv1.0.weight"]
    elif damage == "extra":
        state["fc8.weight"] = torch.zeros(2, 2)
    elif damage == "misshapen":
        state["conv1.0.bias"] = torch.zeros(5)
    elif damage == "foreign":
        header = {"format": "pt"}
    elif damage == "other":
        header = {"encoder": '{"arch": "alexnet"}'}
    save_file(state, path, header)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    result = bench(*PROBE, *SCENES, "--encoder", path, "--workspace", finished)
    fails(result, 1, str(path), expected, ": ")
    assert contents(finished) == before


@pytest.mark.parametrize("damage", ["cut", "swapped", "missing"])
def test_damaged_weights_of_a_finished_run(bench: Bench, finished: Path, damage: str) -> None:
    path = only(finished, "pretrain/random-*/encoder.safetensors")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    elif damage == "missing":
        path.unlink()
    else:
        command = ["pretrain", "random", *TOY, *SCENES, "--seed", "1"]
        bench.ok(*command, "--workspace", finished / "other")
        shutil.copy(only(finished / "other", "pretrain/*/encoder.safetensors"), path)
    result = bench(*PROBE, *SCENES, "--encoder", "random", "--workspace", finished)
    fails(result, 1, str(path.parent), "remove")


# ---- workspaces and disks
@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file can grow beyond `room` bytes: a real failure of the very call that writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A regular file: no folder can be made below it, not even by root."""
    path = tmp_path / "file"
    path.touch()
    return path


def test_unwritable_workspace(bench: Bench, finished: Path, file: Path) -> None:
    weights = only(finished, "pretrain/random-*/encoder.safetensors")
    place = ("--workspace", file / "runs")
    fails(bench(*PRETRAIN, *SCENES, *place), 1, str(file / "runs"), "--workspace")
    result = bench(*PROBE, *SCENES, "--encoder", weights, *place)
    fails(result, 1, str(file / "runs"), "--workspace")


def test_unwritable_cache(bench, workspace, file, monkeypatch):
    monkeypatch.setenv("SSL_BENCH_CACHE", str(file / "cache"))
    result = bench(*PRETRAIN, *SCENES, "--workspace", workspace)
    fails(result, 1, str(file / "cache"), "SSL_BENCH_CACHE")


def test_unwritable_folder_for_tables(bench: Bench, finished: Path, file: Path) -> None:
    bench.ok(*PROBE, *SCENES, "--workspace", finished)
    before = contents(finished)
    result = bench("table", "--workspace", finished, "--out", file / "tables")
    fails(result, 1, str(file / "tables"), "Not a directory")
    assert contents(finished) == before


def test_disk_full_while_decoding(bench, finished, tmp_path, monkeypatch):
    before = contents(finished)
    cache = tmp_path / "cache"
    monkeypatch.setenv("SSL_BENCH_CACHE", str(cache))
    with full_disk(10_000):
        result = bench(*PRETRAIN, *SCENES, "--workspace", finished)
    fails(result, 1, str(cache), os.strerror(errno.EFBIG), "SSL_BENCH_CACHE")
    assert [p for p in cache.iterdir() if p.suffix != ".lock"] == []
    assert contents(finished) == before


def test_disk_full_at_a_checkpoint(bench: Bench, finished: Path) -> None:
    """The checkpoint before it stays whole, and the run goes on from there once there is room."""
    before = contents(finished)
    command = [*PRETRAIN, *SCENES, "--checkpoint-every", "1", "--workspace", finished]
    with interrupted_at(0):
        assert bench(*command).code == 130
    path = only(finished, "pretrain/context-*/checkpoint.pt")
    whole = path.read_bytes()
    with full_disk(len(whole) // 2):
        result = bench(*command)
    fails(result, 1, str(path.parent), os.strerror(errno.EFBIG))
    assert path.read_bytes() == whole
    assert contents(finished) == before
    assert half_written(finished) == []
    assert "continuing at step 1 of 4" in bench(*command).err


@pytest.mark.parametrize("command", [(*PRETRAIN, "--checkpoint-every", "2"), PROBE])
def test_disk_full_at_any_flush(bench, finished, monkeypatch, command):
    """Some file systems tell of a full disk only here; the record is flushed last."""
    before = contents(finished)
    fsync, left = os.fsync, 0

    def fill_up(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fill_up)
    failures = []
    for room in range(10):
        left = room
        result = bench(*command, *SCENES, "--workspace", finished)
        if result.code == 0:
            assert "record.json" in failures[-1]
            return
        failures.append(result.err.splitlines()[-1])
        fails(result, 1, str(finished), "No space left on device")
        assert contents(finished) == before
        assert half_written(finished) == []
    pytest.fail("more files are flushed than expected")


@pytest.mark.parametrize("command", [overriding(PRETRAIN, "--steps", "24"), PROBE])
def test_disk_full_at_a_small_file(bench: Bench, finished: Path, command: tuple[str, ...]) -> None:
    """The log of a training, the predictions of an evaluation."""
    assert bench(*PROBE, *SCENES, "--workspace", finished).code == 0  # the images are decoded
    shutil.rmtree(only(finished, "evaluation/*"))
    before = contents(finished)
    with full_disk(1500):  # more than what is said: standard error is a file here, too
        result = bench(*command, *SCENES, "--workspace", finished)
    fails(result, 1, str(finished), "File too large")
    assert contents(finished) == before
    bench.ok(*command, *SCENES, "--workspace", finished)
