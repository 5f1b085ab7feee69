"""Decoding by processes: what comes, and that each end of one is an error at once, never a wait."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import _utils

import ssl_bench
import ssl_bench.workers as module
from helpers.bench import TOY, Bench
from helpers.refusals import fails
from ssl_bench.data.store import packing
from ssl_bench.errors import DataError
from ssl_bench.workers import WorkerDied, read_ahead

HERE = str(Path(ssl_bench.__file__).parents[1])


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A wait without an end fails by SIGALRM; the loader's own, of 5 s at each end, is shorter."""
    monkeypatch.setattr(_utils, "MP_STATUS_CHECK_INTERVAL", 0.2)
    monkeypatch.setattr(_utils.worker, "MP_STATUS_CHECK_INTERVAL", 0.2)
    signal.alarm(60)
    yield
    signal.alarm(0)


def squares(key: int) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    return {"images": torch.full((3, 4), key**2)}, np.arange(key)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_come_in_order_whoever_reads(workers: int) -> None:
    found = list(read_ahead(squares, range(7), workers))
    assert [int(images["images"][0, 0]) for images, _ in found] == [k**2 for k in range(7)]
    assert [len(more) for _, more in found] == list(range(7))


def test_more_processes_than_cores_need_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one core, where torch warns of two (and a warning is a failure here)."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert list(read_ahead(abs, [-1, 2, -3], 2)) == [1, 2, 3]


def ended(how: Callable[[], object]) -> Callable[[int], int]:
    """A read that ends its own process at the third key."""

    def read(key: int) -> int:
        if key == 2:
            how()
        return key

    return read


def by(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (by(signal.SIGKILL), "killed, as by the system where memory runs out.*--workers 0"),
        (by(signal.SIGBUS), "bus error.*/dev/shm is full.*--shm-size.*--workers 0"),
        (by(signal.SIGSEGV), r"ended by a signal \(Segmentation fault\).*--workers 0"),
        (lambda: os._exit(3), "ended unexpectedly.*--workers 0"),
    ],
    ids=["killed", "bus error", "segmentation fault", "exit"],
)
def test_a_worker_that_dies_is_one_line_with_cause_and_remedy(how, said: str) -> None:
    with pytest.raises(WorkerDied, match=said) as raised:
        list(read_ahead(ended(how), range(8), 2))
    assert "\n" not in str(raised.value)


def test_a_death_that_is_seen_before_its_signal_comes_has_its_cause(monkeypatch) -> None:
    """On a busy machine the loader finds a worker gone that nobody has told it of."""
    deaf = partial(signal.signal, signal.SIGCHLD, lambda *_: None)
    monkeypatch.setattr(module, "_name_deaths", deaf)
    before = signal.getsignal(signal.SIGCHLD)
    try:
        with pytest.raises(WorkerDied, match=r"bus error.*--workers 0"):
            list(read_ahead(ended(by(signal.SIGBUS)), range(8), 2))
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_death_is_noticed_where_the_main_process_is(tmp_path: Path) -> None:
    """Also in the middle of a step, and not as a RuntimeError, which elsewhere is a full disk."""
    arrived = read_ahead(ended(by(signal.SIGKILL)), range(8), 1)
    next(arrived)
    with pytest.raises(WorkerDied):
        threading.Event().wait(30)


def failing(error: Exception) -> Callable[[int], object]:
    def read(key: int) -> object:
        raise error

    return read


@pytest.mark.parametrize("error", [DataError("b.png: torn"), FileNotFoundError(2, "gone", "b.png")])
def test_what_is_raised_in_a_worker_is_raised_here(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        list(read_ahead(failing(error), range(4), 1))
    assert str(raised.value) == str(error)


def test_memory_that_runs_out_in_a_worker_is_one_line() -> None:
    with pytest.raises(DataError, match=r"memory ran out.*fewer --workers"):
        list(read_ahead(failing(MemoryError()), range(4), 1))


def test_what_cannot_be_sent_is_an_error_and_no_wait() -> None:
    with pytest.raises((AttributeError, TypeError), match="pickle"):
        list(read_ahead(lambda key: threading.Lock(), range(4), 1))


# ---- a small /dev/shm


def in_small_shm(size: str, code: str) -> subprocess.CompletedProcess[str]:
    """Python code where /dev/shm has `size` of room; skips where none can be mounted."""
    mount = f"mount -t tmpfs -o size={size} tmpfs /dev/shm"
    namespace = ["unshare", "--mount", "bash", "-c"]
    if os.geteuid() or subprocess.run([*namespace, mount], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small /dev/shm")
    call = [*namespace, f'{mount} && exec "$@"', "bash", sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": HERE}
    return subprocess.run(call, capture_output=True, text=True, timeout=60, env=environment)


READ = """
import torch
from ssl_bench.workers import read_ahead
{before}
def read(key):
    return {{"images": torch.full((700_000,), key, dtype=torch.uint8)}}, torch.arange(key)
print([int(images["images"].sum()) // 700_000 for images, _ in read_ahead(read, range(9), 2)])
"""


def test_results_need_no_room_in_shared_memory() -> None:
    done = in_small_shm("1m", READ.format(before=""))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{list(range(9))}\n", "")


def test_no_room_at_all_is_an_error_with_the_remedy() -> None:
    fill = "open('/dev/shm/full', 'wb', 0).write(bytes(1 << 20))"
    done = in_small_shm("1m", READ.format(before=fill))
    assert done.returncode == 1
    assert "Exception ignored" not in done.stderr
    said = done.stderr.splitlines()[-1]
    assert "No space left" in said
    assert "--workers 0" in said
    assert "--shm-size" in said


# ---- commands


def killed(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_command_whose_worker_is_killed_ends_in_one_line(
    bench: Bench, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("SSL_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packing._Reading, "_one", killed)
    call = ["pretrain", "autoencoder", *TOY, "--workers", 1, "--init", "fan-in", "--steps", 4]
    result = bench(*call, "--batch-size", 4, "--workspace", tmp_path)
    fails(result, 1, "killed, as by the system where memory runs out")
    monkeypatch.undo()
    monkeypatch.setenv("SSL_BENCH_CACHE", str(tmp_path / "cache"))
    bench.ok(*call, "--batch-size", 4, "--workspace", tmp_path)
    assert not list(tmp_path.glob("cache/.*.decoding"))
