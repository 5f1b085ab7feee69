"""Reading ahead by worker processes, from which each failure comes as one line, never as silence.

A worker packs its results itself. Left to the queue's own thread, what cannot be packed (a full
/dev/shm, an object that does not pickle) is dropped there, and the main process waits for ever.
"""

import pickle
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar, cast

import torch
from torch.utils.data import DataLoader, Dataset

from ssl_bench.errors import BenchError, DataError
from ssl_bench.progress import say_once

K = TypeVar("K")
T = TypeVar("T")
SHARED = Path("/dev/shm")  # where tensors lie on their way between processes
ROOMY = 1 << 30  # bytes free there, with which no batch is expected to need a pipe
REMEDY = "--workers 0 reads in the main process"
LARGER = f"a larger {SHARED} (docker run --shm-size=8g, --ipc=host)"


class WorkerDied(DataError):
    """A process that read images is gone."""


def read_ahead(
    read: Callable[[K], T], keys: Sequence[K], workers: int, *, pin_memory: bool = False
) -> Iterator[T]:
    """`read` of each key, in order; by `workers` processes, or here if there are none.

    The processes start at once, not at the first result. Raises what `read` raises, WorkerDied for
    a process that ended, DataError where processes cannot be started.
    """
    if not workers:
        loader = DataLoader(_Reading(read), None, sampler=keys, pin_memory=pin_memory)
        return iter(loader)
    # A thread that pins could wait for ever for the rest of a batch whose worker was killed; what
    # goes through shared memory is a handle, which is written whole or not at all.
    pin_memory = pin_memory and _free() >= ROOMY
    return _opened(_started(_Packing(read), keys, workers, pin_memory))


def _free() -> int:
    try:
        return shutil.disk_usage(SHARED).free
    except OSError:
        return 0


def _started(packing: "_Packing[Any, Any]", keys: Any, workers: int, pin: bool) -> Iterator[Any]:
    try:
        # Its locks are files in /dev/shm, too. The loader, failing here, would print a traceback.
        torch.multiprocessing.Lock()
        loader = DataLoader(
            packing,
            None,  # an item is a whole batch already
            sampler=keys,
            num_workers=workers,
            worker_init_fn=_ignore_stops,
            pin_memory=pin,
        )
        iterator = iter(loader)
    except OSError as error:
        raise DataError(
            f"no processes that read images can be started ({error.strerror}): {REMEDY}; else see "
            f"to {LARGER} and the limit of processes"
        ) from error
    _name_deaths()
    return iterator


def _opened(packets: Iterator[Any]) -> Iterator[Any]:
    """What is in the packets of workers. Raises what was raised there."""
    while True:
        try:
            packet = next(packets, None)
        except RuntimeError as error:
            raise _death(error) from error
        if packet is None:
            return
        if packet.by_pipe:
            say_once(
                f"{SHARED} has no room for a batch: batches go through pipes, which is slower; "
                f"{LARGER} or smaller batches avoid that"
            )
        try:
            item = packet.open()
        except (OSError, EOFError) as error:  # a handle is asked of the worker that packed it
            raise WorkerDied(f"a process that read images does not answer: {REMEDY}") from error
        if isinstance(item, _Failure):
            raise item.error
        yield item


# ---- in the workers
class _Reading(Dataset[T], Generic[K, T]):
    def __init__(self, read: Callable[[K], T]) -> None:
        self.read = read

    def __getitem__(self, key: K) -> T:
        return self.read(key)


class _Packing(Dataset["_Packet"], Generic[K, T]):
    """Results as bytes, with tensors in shared memory as long as there is room."""

    def __init__(self, read: Callable[[K], T]) -> None:
        self.read, self.by_pipe = read, False

    def __getitem__(self, key: K) -> "_Packet":
        item = self._read(key)
        if not self.by_pipe:
            try:
                return _Packet(bytes(ForkingPickler.dumps(item)), False)
            except (RuntimeError, OSError):  # no room: torch asks for all of it before it writes
                self.by_pipe = True  # for good: a half-packed batch keeps what it got
        return _Packet(pickle.dumps(item, pickle.HIGHEST_PROTOCOL), True)

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


class _Packet:
    def __init__(self, content: bytes, by_pipe: bool) -> None:
        self.content, self.by_pipe = content, by_pipe
        self.pinned: list[Any] = []

    def open(self) -> Any:
        return self.pinned[0] if self.pinned else pickle.loads(self.content)

    def pin_memory(self) -> "_Packet":  # which the loader's thread calls
        self.pinned = [_pinned(self.open())]
        return self


def _pinned(item: Any) -> Any:
    if isinstance(item, torch.Tensor):
        return item.pin_memory()
    if isinstance(item, Mapping):
        return {name: _pinned(value) for name, value in item.items()}
    return tuple(map(_pinned, item)) if isinstance(item, tuple) else item


def _ignore_stops(_worker: int) -> None:
    """Ctrl-C reaches the workers too: it is for the main process to act on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


# ---- deaths
FEWER = "fewer --workers, a smaller --batch-size or --image-size, or more memory"
CAUSES = {
    "Killed": f"was killed, as by the system where memory runs out: {FEWER}; {REMEDY}",
    "Bus error": f"ended by a bus error, as where {SHARED} is full: see to {LARGER}; {REMEDY}",
}


def _death(error: RuntimeError) -> Exception:
    """One line for the loader's own complaints; what code in a worker raised stays as it is."""
    text = str(error)
    if isinstance(error.__cause__, WorkerDied):  # by the signal, while a result was waited for
        return error.__cause__
    if text.startswith("Caught ") or "worker" not in text:
        return error
    cause = (re.findall(r"killed by signal: ([^.]+)", text) or [""])[0]
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
            raise _death(error) from error

    cast(Any, handler).names_deaths = True
    try:
        signal.signal(signal.SIGCHLD, handler)
    except ValueError:  # not in the main thread, where the loader sets none either
        return
