"""Reading ahead by a thread: what comes, how far ahead, and that nothing goes on after the end."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import pytest
import torch

from ssl_bench.errors import DataError
from ssl_bench.prefetch import AHEAD, prefetched


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    """A wait without an end fails by SIGALRM."""
    signal.alarm(60)
    yield
    signal.alarm(0)


def reading() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("prefetch")]


def until(holds: Callable[[], bool]) -> None:
    """Wait for it, ten seconds at most."""
    since = time.monotonic()
    while not holds() and time.monotonic() - since < 10:
        time.sleep(0.001)
    assert holds()


@pytest.mark.parametrize("count", [0, 1, AHEAD, 20])
def test_results_come_in_order_and_the_thread_ends_with_them(count: int) -> None:
    assert list(prefetched(lambda key: key**2, range(count))) == [n**2 for n in range(count)]
    assert reading() == []


def test_it_reads_ahead_by_a_few_and_stops_when_closed() -> None:
    """Memory stays that of a few batches, however slow the steps are."""
    begun = list[int]()
    with closing(prefetched(lambda key: begun.append(key) or key, iter(range(10**9)))) as arriving:
        for key in range(5):
            assert next(arriving) == key
            until(lambda key=key: len(begun) == key + 1 + AHEAD)
            time.sleep(0.01)
            assert begun == list(range(key + 1 + AHEAD))
        assert len(reading()) == 1
    assert reading() == []


def test_what_is_read_is_read_while_the_last_is_used() -> None:
    """The thread waits for a step to begin, and the step for the thread: neither is first."""
    step, read = threading.Event(), threading.Event()

    def one(key: int) -> int:
        if key:
            assert step.wait(10)
            read.set()
        return key

    with closing(prefetched(one, range(2))) as arriving:
        assert next(arriving) == 0
        step.set()
        assert read.wait(10)
        assert next(arriving) == 1


@pytest.mark.parametrize("error", [DataError("b.png: torn"), FileNotFoundError(2, "gone", "b.png")])
def test_what_is_raised_there_is_raised_in_its_place(error: Exception) -> None:
    def read(key: int) -> int:
        if key == 2:
            raise error
        return key

    arriving = prefetched(read, range(9))
    assert [next(arriving), next(arriving)] == [0, 1]
    with pytest.raises(type(error)) as raised:
        next(arriving)
    assert raised.value is error
    assert reading() == []


def test_memory_that_runs_out_is_one_line() -> None:
    with pytest.raises(DataError, match=r"memory ran out.*a smaller --batch-size"):
        list(prefetched(lambda key: np.empty(1 << 60, np.uint8), range(4)))


def test_pinning_keeps_names_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU nothing can be pinned: here a pinned tensor is a copy that is noted."""
    pinned, places = list[torch.Tensor](), list[object]()

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.cuda, "set_device", places.append)
    device = torch.device("cuda", 1)
    (item,) = prefetched(lambda key: ({"a": torch.ones(2)}, torch.arange(3)), [0], device)
    assert item[0]["a"] is pinned[0]
    assert item[1] is pinned[1]
    assert item[1].tolist() == [0, 1, 2]
    assert places == [device]


# ---- ends of the process
SCRIPT = """
import signal, sys, threading, time
from ssl_bench.prefetch import prefetched
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
def read(key):
    if key > 1: time.sleep(SECONDS)
    return key
for key in prefetched(read, range(100)):
    print(key, flush=True)
    if key == LAST: raise ValueError("a step failed")
"""


def script(seconds: float, last: int) -> subprocess.Popen[str]:
    code = SCRIPT.replace("SECONDS", str(seconds)).replace("LAST", str(last))
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_an_error_of_a_step_ends_the_process_though_nobody_closes() -> None:
    process = script(0.1, last=1)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "0\n1\n")
    assert err.strip().endswith("ValueError: a step failed")


def test_ctrl_c_ends_the_process_while_it_waits_for_a_result() -> None:
    process = script(0.5, last=-1)
    assert process.stdout
    assert [process.stdout.readline() for _ in range(2)] == ["0\n", "1\n"]
    process.send_signal(signal.SIGINT)  # the third is asleep
    since = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - since < 10  # not the 48 seconds of those that are left
    assert process.returncode == -signal.SIGINT
    assert err.strip().endswith("KeyboardInterrupt")
