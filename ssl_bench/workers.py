"""Decoding by worker processes, from which each failure comes as one line, never as silence.

A worker packs its results itself. Left to the queue's own thread, what cannot be packed (an object
that does not pickle) is dropped there, and the main process waits for ever. What is packed goes
through pipes: a tensor would need room in /dev/shm, of which Docker gives 64 MB.
"""

import pickle
import re
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar, cast

import torch
from torch.utils.data import DataLoader, Dataset

from ssl_bench.errors import BenchError, DataError

K = TypeVar("K")
T = TypeVar("T")
SHARED = Path("/dev/shm")  # where the locks of processes lie
REMEDY = "--workers 0 reads in the main process"
LARGER = f"a larger {SHARED} (docker run --shm-size=8g, --ipc=host)"


class WorkerDied(DataError):
    """A process that read images is gone."""


def read_ahead(read: Callable[[K], T], keys: Sequence[K], workers: int) -> Iterator[T]:
    """`read` of each key, in order; by `workers` processes, or here if there are none.

    The processes start at once, not at the first result. Raises what `read` raises, WorkerDied for
    a process that ended, DataError where processes cannot be started.
    """
    if not workers:
        return map(read, keys)
    return _opened(_started(_Packing(read), keys, workers))


def _started(packing: "_Packing[Any, Any]", keys: Any, workers: int) -> Iterator[bytes]:
    try:
        # Its locks are files in /dev/shm. The loader, failing here, would print a traceback.
        torch.multiprocessing.Lock()
        # torch warns where there are more processes than cores: one that reads ahead may wait.
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            loader = DataLoader(
                packing,
                None,  # an item is a whole batch already
                sampler=keys,
                num_workers=workers,
                worker_init_fn=_ignore_stops,
            )
            iterator = iter(loader)
    except OSError as error:
        raise DataError(
            f"no processes that read images can be started ({error.strerror}): {REMEDY}; else see "
            f"to {LARGER} and the limit of processes"
        ) from error
    _told.clear()
    _name_deaths()
    return iterator


def _opened(packets: Iterator[bytes]) -> Iterator[Any]:
    """What is in the packets of workers. Raises what was raised there."""
    while True:
        try:
            packet = next(packets, None)
        except RuntimeError as error:
            _told.set()
            raise _death(error, _signal(packets)) from error
        if packet is None:
            return
        item = pickle.loads(packet)
        if isinstance(item, _Failure):
            raise item.error
        yield item


# ---- in the workers
class _Packing(Dataset[bytes], Generic[K, T]):
    """Results as bytes."""

    def __init__(self, read: Callable[[K], T]) -> None:
        self.read = read

    def __getitem__(self, key: K) -> bytes:
        return pickle.dumps(self._read(key), pickle.HIGHEST_PROTOCOL)

    def _read(self, key: K) -> "T | _Failure":
        try:
            return self.read(key)
        except (BenchError, OSError) as error:
            return _Failure(error)
        except MemoryError:
            return _Failure(DataError(f"memory ran out where images are read: {FEWER}"))


class _Failure:
    def __init__(self, error: Exception) -> None:
        self.error = error


def _ignore_stops(_worker: int) -> None:
    """Ctrl-C reaches the workers too: it is for the main process to act on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


# ---- deaths
FEWER = "fewer --workers, a smaller --image-size, or more memory"
CAUSES = {
    "Killed": f"was killed, as by the system where memory runs out: {FEWER}; {REMEDY}",
    "Bus error": f"ended by a bus error, as where {SHARED} is full: see to {LARGER}; {REMEDY}",
}


_told = threading.Event()  # a death, of which the signal, or another worker's, may come late


def _signal(packets: Iterator[bytes]) -> str:
    """What ended a worker of which the loader only saw, before the signal came, that it is gone."""
    codes = [worker.exitcode for worker in getattr(packets, "_workers", ())]
    return next((signal.strsignal(-code) or "" for code in codes if code and code < 0), "")


def _death(error: RuntimeError, cause: str = "") -> Exception:
    """One line for the loader's own complaints; what code in a worker raised stays as it is."""
    text = str(error)
    if isinstance(error.__cause__, WorkerDied):  # by the signal, while a result was waited for
        return error.__cause__
    if text.startswith("Caught ") or "worker" not in text:
        return error
    cause = (re.findall(r"killed by signal: ([^.]+)", text) or [cause])[0]
    ended = f"ended by a signal ({cause})" if cause else "ended unexpectedly"
    why = CAUSES.get(cause, f"{ended}: {REMEDY}, and shows why")
    return WorkerDied(f"a process that read images {why}")


def _name_deaths() -> None:
    """Have the loader's signal handler raise WorkerDied.

    Torch raises RuntimeError as soon as a child dies, wherever the main process is: also where it
    writes a checkpoint, and a RuntimeError there means a full disk.
    """
    before = signal.getsignal(signal.SIGCHLD)
    if not callable(before) or getattr(before, "names_deaths", False):
        return

    def handler(number: int, frame: FrameType | None) -> None:
        try:
            before(number, frame)
        except RuntimeError as error:
            if not _told.is_set():
                raise _death(error) from error

    cast(Any, handler).names_deaths = True
    try:
        signal.signal(signal.SIGCHLD, handler)
    except ValueError:  # not in the main thread, where the loader sets none either
        return
