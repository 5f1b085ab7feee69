"""Reading ahead by a thread: what is decoded already is gathered in the process.

Copying rows of a memory map takes less than handing them over from another process would, and NumPy
lets the main thread go on meanwhile. What must be decoded takes processes: see `workers.py`.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from ssl_bench.errors import DataError

if TYPE_CHECKING:
    import torch

K = TypeVar("K")
T = TypeVar("T")
AHEAD = 3  # results that are read, or being read, while one is used
SMALLER = "a smaller --batch-size or --image-size, or more memory"


def prefetched(
    read: Callable[[K], T], keys: Iterable[K], device: "torch.device | None" = None
) -> Generator[T]:
    """`read` of each key, in order, by one thread that is AHEAD of who takes the results.

    For a CUDA `device` their tensors are pinned. Raises, in its place in the order, what `read`
    raises, and DataError where memory runs out. To be closed (`contextlib.closing`): then nothing
    more is read, and the thread has ended.
    """
    gpu = device if device and device.type == "cuda" else None

    def work(key: K) -> Any:
        try:
            return _pinned(read(key)) if gpu else read(key)
        except MemoryError as error:
            raise DataError(f"memory ran out where images are read: {SMALLER}") from error

    left = iter(keys)
    begin = partial(_begin_on, gpu) if gpu else None
    with ThreadPoolExecutor(1, "prefetch", begin) as thread:
        begun = deque(thread.submit(work, key) for key in islice(left, AHEAD))
        try:
            while begun:
                item = begun.popleft().result()
                begun.extend(thread.submit(work, key) for key in islice(left, 1))
                yield item
        finally:
            thread.shutdown(cancel_futures=True)


def _begin_on(device: "torch.device") -> None:
    """A thread begins on the first GPU, and would take memory there for a process of the second."""
    import torch

    torch.cuda.set_device(device)


def _pinned(item: Any) -> Any:
    import torch

    if isinstance(item, torch.Tensor):
        return item.pin_memory()
    if isinstance(item, Mapping):
        return {name: _pinned(value) for name, value in item.items()}
    return tuple(map(_pinned, item)) if isinstance(item, tuple) else item
