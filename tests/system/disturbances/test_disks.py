"""Full disks: the path is named, and nothing is lost."""

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from helpers.disturbances import (
    TRAINING,
    ask,
    checked,
    done,
    limit_files,
    mounted,
    print_to,
    results,
    steps_logged,
    use_cache,
)
from helpers.refusals import SCENES, TOY, contents, fails, half_written, only


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    with mounted(tmp_path / "disk", "4m") as folder:
        yield folder


def fill(disk: Path) -> Path:
    """Leave no room; returns the file that takes it."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


FULL = [
    "ssl_bench.data.store.packing.write",
    "ssl_bench.training.loop._Run.save",
    "ssl_bench.training.loop._Run._log",
    "ssl_bench.evaluation.rows._Scratch.write",
    "ssl_bench.evaluation.evaluate.write_predictions",
    "ssl_bench.records.workspace.Run.finish",
]


@pytest.mark.parametrize("place", FULL)
def test_the_disk_is_full(start, suite, disk, whole, printed, place):
    """One line names the path and the reason; with room, the same command ends as ever."""
    words = ("run", suite, "--workers", "0", "--workspace", disk / "runs")
    words += ("--checkpoint-every", "2", "--feature-memory", "0")
    hooks = [partial(use_cache, disk / "cache")]
    running = start(*words, hooks=hooks, at=place)
    before, ballast = contents(disk / "runs"), fill(disk)
    running.go_on()
    fails(running.result(), 1, ": cannot write", str(disk), "No space left on device")
    assert contents(disk / "runs").items() >= before.items()
    assert half_written(disk) == []
    assert results(disk / "runs").items() <= results(whole).items()
    ballast.unlink()
    answer = ask(*words, hooks=hooks)
    assert (answer.code, answer.out) == (0, printed), answer
    assert steps_logged(disk / "runs") == [1, 2, 3, 4]
    checked(disk / "runs", results(whole))


SHOWN = [
    ("table --out {out}", 300),
    ("report --out {out}", 1500),
    ("run {suite} --workers 0 --out {out}", 300),
    ("export {suite} --workers 0 --out {out}", 300),  # cuts the predictions
    ("export {suite} --workers 0 --out {out}", 1500),  # cuts the records
    ("figures filters --workers 0 --data scenes:train=60,test=20 --out {out}", 1000),
]


@pytest.mark.parametrize(("words", "room"), SHOWN)
def test_the_disk_of_what_is_shown_is_full(suite, whole, tmp_path, words, room):
    out, before = tmp_path / "out", contents(whole)
    line = (*words.format(out=out, suite=suite).split(), "--workspace", whole)
    fails(ask(*line, hooks=[partial(limit_files, room)]), 1, str(out), "File too large")
    assert half_written(tmp_path) == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and _torn(path)]
    assert contents(whole) == before
    done(*line)
    if words.startswith("export"):
        assert done("verify", out).out == ""


def _torn(path: Path) -> bool:
    """Whether a file is not what its suffix says."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
    except (OSError, ValueError):
        return True
    return False


def test_an_export_outlives_the_next_one(suite, whole, exported, tmp_path):
    """What was exported before stays until the new one is whole."""
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    before = contents(out)
    line = ("export", suite, "--workers", "0", "--workspace", whole, "--out", out)
    assert ask(*line, hooks=[partial(limit_files, 1500)]).code == 1
    assert contents(out) == before
    assert ask("verify", out).code == 0


@pytest.mark.parametrize("room", [300, 1500])
def test_the_disk_is_full_at_an_import(exported, workspace, room):
    """No torn run is left that readers stumble over and the next import passes by."""
    words = ("import", exported, "--workspace", workspace)
    fails(ask(*words, hooks=[partial(limit_files, room)]), 1, str(workspace), "File too large")
    assert not [path for path in workspace.rglob("*.json") if _torn(path)]
    done(*words)
    checked(workspace, results(exported))


def test_the_disk_is_full_at_a_preview(copy, suite):
    settings = ("--steps", "4", "--batch-size", "4", "--workspace", copy, "--preview")
    words = ("pretrain", "autoencoder", *TOY, *SCENES, *settings)
    path = only(copy, "pretrain/autoencoder-*") / "preview.png"
    fails(ask(*words, hooks=[partial(limit_files, 100)]), 1, str(path), "File too large")
    assert not path.exists()


def test_the_disk_is_full_when_a_log_is_continued(start, workspace):
    """What was logged before the checkpoint stays."""
    words = (*TRAINING, "--workspace", workspace)
    start(*words, at="ssl_bench.training.pretrain.save_encoder").kill()
    path = only(workspace, "pretrain/*/log.jsonl")
    fails(ask(*words, hooks=[partial(limit_files, 10)]), 1, str(path), "File too large")
    assert "continuing at step 4 of 6" in done(*words).err
    assert steps_logged(workspace) == list(range(1, 7))


def test_standard_output_is_full(whole):
    answer = ask("table", "--workspace", whole, hooks=[partial(print_to, "/dev/full")])
    fails(answer, 1, "No space left on device")
