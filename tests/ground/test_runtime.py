"""Which process is the first, and what 32 bit means."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_bench import catalogue, processes, runtime
from ssl_bench.cli.options import runtime_of
from ssl_bench.launch import Launch
from ssl_bench.training.pretext import PretextConfig


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process that nothing has launched."""
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(runtime, "_joined", [])
    return monkeypatch


def test_the_first_process_is_known_before_fabric_launches(alone) -> None:
    for rank in range(2):
        alone.setattr(runtime, "find_launch", lambda rank=rank: Launch("srun", rank, 2, rank, 2))
        assert runtime.is_main_process() is (rank == 0)
        assert runtime.is_one_of_several()


@pytest.mark.parametrize("rank", [0, 1])
def test_once_launched_fabric_says_who_is_first(rank, alone) -> None:
    fabric = SimpleNamespace(global_rank=rank, world_size=2)
    alone.setattr(processes, "launched_fabric", lambda *_: fabric)
    alone.setattr(runtime, "find_launch", lambda: Launch("srun", 1 - rank, 2, 1 - rank, 2))
    runtime._launch.__wrapped__("auto", "32")
    assert runtime.is_main_process() is (rank == 0)


def test_one_device_is_one_process_whoever_launched_it(alone) -> None:
    """Each of srun's tasks then writes its own runs, and all are first."""
    alone.setattr(runtime, "find_launch", lambda: Launch("srun", 3, 8, 3, 8))
    runtime_of(workers=0, checkpoint_every="60s", devices="1")
    assert runtime.is_main_process()
    assert not runtime.is_one_of_several()
    assert runtime._launch.__wrapped__("1", "32").world_size == 1


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
    monkeypatch.setattr(runtime, "_joined", [])
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


@pytest.mark.parametrize(
    ("most", "kept"),
    [
        (1 << 40, {-3: 1 << 30, -1: (1 << 31) - 1}),
        (32 << 20, {-3: 32 << 20, -1: (1 << 31) - 1}),  # glibc 2.31
        (0, {}),
    ],
)
def test_freed_memory_is_kept_up_to_what_the_c_library_takes(monkeypatch, most, kept) -> None:
    """One that refuses the threshold of mapping must not hear of the other: both then hold."""
    heard = dict[int, int]()

    def mallopt(parameter: int, value: int) -> int:
        if parameter == -3 and value > most:
            return 0
        heard[parameter] = value
        return 1

    monkeypatch.setattr(runtime, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    runtime._keep_freed_memory.__wrapped__()  # once in a process
    assert heard == kept


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(runtime, "CDLL", lambda _: SimpleNamespace())
    runtime._keep_freed_memory.__wrapped__()  # once in a process


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's")
def test_memory_that_is_freed_and_asked_for_again_brings_no_new_pages() -> None:
    """200 times 16 MiB, 4096 pages each: one time's, and what Python makes beside it."""
    code = (
        "import ctypes, resource\n"
        "from ssl_bench.runtime import _keep_freed_memory\n"
        "_keep_freed_memory()\n"
        "c = ctypes.CDLL(None)\n"
        "c.malloc.restype, size = ctypes.c_void_p, ctypes.c_size_t(16 << 20)\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "before = faults()\n"
        "for _ in range(200):\n"
        "    block = ctypes.c_void_p(c.malloc(size))\n"
        "    c.memset(block, 1, size)\n"
        "    c.free(block)\n"
        "print(faults() - before)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 20 * 4096
