"""The job around the loop: who makes a run, and what a pretext must have to be trained."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ssl_bench import catalogue
from ssl_bench.errors import UsageError
from ssl_bench.records.workspace import Run
from ssl_bench.runtime import Runtime
from ssl_bench.training import pretrain as job
from ssl_bench.training.pretext import (
    EncoderConfig,
    Pretext,
    PretextConfig,
    TrainConfig,
    check_training,
)
from ssl_bench.training.pretrain import pretrain

DATA = "scenes:train=8,test=2"
TOY = EncoderConfig(image_size=64, width=0.1)


# ---- several processes


class Rank:
    """Fabric as one of two processes sees it: notes in which order it waits for the other."""

    world_size, device = 2, None

    def __init__(self, rank: int) -> None:
        self.global_rank, self.is_global_zero = rank, rank == 0
        self.waits: list[str] = []

    def broadcast(self, mine: Any) -> Any:
        self.waits.append("broadcast")
        return mine if self.is_global_zero else False  # what the first process saw: it is made

    def barrier(self) -> None:
        self.waits.append("barrier")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    pretrain("random", TOY, DATA, tmp_path / "other", Runtime(workers=0, devices="1"))
    return tmp_path / "other"


def waits(rank: int, workspace: Path, made: Path | None, patch: pytest.MonkeyPatch) -> list[str]:
    """In which order a process waits while another launch makes the run, if `made` is one.

    The other launch has finished when this one has got the lock.
    """

    @contextmanager
    def working(run: Run, *, wait: bool = True) -> Iterator[Path]:
        assert made is not None
        shutil.copytree(made / "pretrain", workspace / "pretrain")
        yield run.folder

    fabric = Rank(rank)
    patch.setattr(job, "is_one_of_several", lambda: True)
    patch.setattr(Runtime, "fabric", lambda self, precision="32": fabric)
    if rank == 0:
        patch.setattr(Run, "working", working)
    pretrain("random", TOY, DATA, workspace, Runtime(workers=0))
    return fabric.waits


def test_a_second_launch_that_finishes_first_leaves_no_process_waiting(
    made, tmp_path, monkeypatch
) -> None:
    """The second process looks before the other launch has finished, or after it."""
    first = waits(0, tmp_path / "one", made, monkeypatch)
    early = Rank(1)
    monkeypatch.setattr(early, "barrier", lambda: early.waits.append("barrier") or shutil.copytree(
        made / "pretrain", tmp_path / "two" / "pretrain"))  # fmt: skip
    monkeypatch.setattr(Runtime, "fabric", lambda self, precision="32": early)
    pretrain("random", TOY, DATA, tmp_path / "two", Runtime(workers=0))
    late = waits(1, made, None, monkeypatch)
    assert first == early.waits == late == ["broadcast", "barrier"]


# ---- the contract


class Trained(Pretext):
    Config = PretextConfig
    version = 1

    def optimizers(self) -> list[Any]:
        return []

    def train_step(self, images: Any, step: Any) -> dict[str, Any]:
        return {}


class Misspelt(Pretext):
    Config = PretextConfig
    version = 1

    def optimizers(self) -> list[Any]:
        return []

    def train_steps(self, images: Any, step: Any) -> dict[str, Any]:
        return {}


class Untimed(Trained):
    Config = EncoderConfig


def test_what_trains_has_all_that_training_needs() -> None:
    check_training(Trained)
    for name in catalogue.names("pretext"):
        kind = catalogue.pretext(name)
        check_training(kind)
        assert issubclass(kind.Config, TrainConfig) == hasattr(kind, "train_step")


@pytest.mark.parametrize(("kind", "lacks"), [(Misspelt, "train_step"), (Untimed, "TrainConfig")])
def test_a_pretext_that_trains_by_half_is_refused(kind, lacks, tmp_path, monkeypatch) -> None:
    """It would be recorded with its starting weights."""
    monkeypatch.setattr(catalogue, "pretext", lambda name: kind)
    config = kind.Config(image_size=64, width=0.1)
    with pytest.raises(UsageError, match=f"{kind.__name__} has .* and lacks .*{lacks}"):
        pretrain("mine", config, DATA, tmp_path, Runtime(workers=0, devices="1"))
    assert not list(tmp_path.rglob("record.json"))
