"""Which process is the first, and what 32 bit means."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import lightning_fabric
import pytest
import torch

from ssl_bench import catalogue, runtime
from ssl_bench.training.pretext import PretextConfig

LAUNCHED = ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_NTASKS")


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process that nothing has launched."""
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(runtime, "_rank", [])
    return monkeypatch


@pytest.mark.parametrize(
    ("launcher", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "8", "LOCAL_RANK": "0"}, False),  # torchrun, the first of its machine
        ({"SLURM_PROCID": "3"}, False),
        ({"NODE_RANK": "0", "LOCAL_RANK": "1"}, False),  # a child that Fabric has started
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
    ],
)
def test_the_first_process_is_known_before_fabric_launches(launcher, first, alone) -> None:
    for name, value in launcher.items():
        alone.setenv(name, value)
    assert runtime.is_main_process() is first


@pytest.mark.parametrize("rank", [0, 1])
def test_once_launched_fabric_says_who_is_first(rank, alone) -> None:
    """The environment may be another's: a shell within a SLURM job has a rank, too."""
    fabric = SimpleNamespace(launch=lambda: None, global_rank=rank)
    alone.setattr(lightning_fabric, "Fabric", lambda **_: fabric)
    alone.setenv("SLURM_PROCID", str(1 - rank))
    runtime._launch.__wrapped__("1", "32")
    assert runtime.is_main_process() is (rank == 0)


# ---- precision
@pytest.fixture
def tf32() -> Iterator[None]:
    """TF32 is on, in cuDNN as torch begins with it."""
    places: Any = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = True
    yield
    for place, value in zip(places, before, strict=True):
        place.allow_tf32 = value


@pytest.mark.parametrize(
    "begin",
    [runtime.best_device, lambda: runtime._launch.__wrapped__("1", "32")],
    ids=["evaluations", "trainings"],
)
def test_32_bit_is_not_rounded_to_tf32(begin, tf32, monkeypatch) -> None:
    monkeypatch.setattr(runtime, "_rank", [])
    begin()
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("name", catalogue.names("eval"))
def test_an_evaluation_is_the_protocols_own_on_a_gpu_too(name, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config: Any = catalogue.evaluation(name).Config()
    if hasattr(config, "precision"):
        assert runtime.resolve_precision(config.precision) == "32"
    assert list(config.deviations()) == []


def test_a_pretext_trains_in_bf16_on_a_gpu(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert runtime.resolve_precision(PretextConfig().precision) == "bf16"
