"""What a kill between two operations on files may leave, made by hand: the next visit removes it.

tests/helpers/kills.py kills at random moments, which seldom fall between a record and what follows
it.
"""

import json
from pathlib import Path

import pytest

from helpers.bench import Bench
from ssl_bench.errors import DataError
from ssl_bench.training.checkpoint import trim_log

SMALL = ("--data", "scenes:train=40,test=20", "--workers", 0)
PRETRAIN = (
    "pretrain", "autoencoder", "--image-size", 64, "--width", 0.05, "--steps", 2,
    "--batch-size", 4, *SMALL,
)  # fmt: skip
PROBE = (
    "linear-probe", "--protocol", "zhang16", "--layer", "conv3", "--layer", "conv5",
    "--epochs", 1, "--batch-size", 8, *SMALL,
)  # fmt: skip


def made(bench: Bench, *words: object) -> None:
    bench.ok(*words)


def left(workspace: Path) -> list[str]:
    """Checkpoints, whole and half written."""
    found = [*workspace.rglob("*checkpoint.pt*"), *workspace.rglob("*.writing")]
    return [str(path.relative_to(workspace)) for path in found]


@pytest.mark.parametrize("name", ["checkpoint.pt", ".checkpoint.pt.writing"])
def test_a_finished_pretraining_keeps_no_checkpoint(bench: Bench, workspace: Path, name: str):
    """Killed after its record was written and before the checkpoint was removed."""
    words = (*PRETRAIN, "--workspace", workspace)
    made(bench, *words)
    (folder,) = (workspace / "pretrain").iterdir()
    before = (folder / "record.json").read_bytes()
    (folder / name).write_bytes(b"large")
    made(bench, *words)
    assert left(workspace) == []
    assert (folder / "record.json").read_bytes() == before


def test_a_half_written_checkpoint_goes_with_the_run(bench: Bench, workspace: Path):
    """Killed while a checkpoint was written; the run ends before its next one is due."""
    words = (*PRETRAIN, "--workspace", workspace)
    made(bench, *words)
    (folder,) = (workspace / "pretrain").iterdir()
    (folder / "record.json").unlink()
    (folder / ".checkpoint.pt.writing").write_bytes(b"half")
    made(bench, *words)
    assert left(workspace) == []


def test_heads_of_more_layers_are_removed(bench: Bench, workspace: Path):
    """Killed between the records of two layers that learn together."""
    place = ("--workspace", workspace)
    made(bench, *PRETRAIN, *place)
    made(bench, *PROBE, *place)
    (last,) = workspace.glob("evaluation/*conv5*")
    (first,) = workspace.glob("evaluation/*conv3*")
    (heads,) = last.glob("heads-*")
    assert not list(first.glob("heads-*"))  # in the run that is recorded last
    (last / "record.json").unlink()
    (heads / "checkpoint.pt").write_bytes(b"of both layers")
    before = (first / "record.json").read_bytes()
    made(bench, *PROBE, *place)
    (now,) = last.glob("heads-*")
    assert now != heads
    assert left(workspace) == []
    assert (last / "record.json").exists()
    assert (first / "record.json").read_bytes() == before


def test_a_log_is_cut_at_once_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = tmp_path / "log.jsonl"
    lines = [json.dumps({"step": step}) + "\n" for step in (1, 2, 3)]
    log.write_text("".join(lines))
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(DataError, match=r"log\.jsonl"):
        trim_log(log, 2)
    monkeypatch.undo()
    assert log.read_text() == "".join(lines)
    trim_log(log, 2)
    assert log.read_text() == "".join(lines[:2])
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
