"""A matrix of features in memory, or in a file without a name that is read block by block."""

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ssl_bench.data.store.cache import cache_folder
from ssl_bench.errors import DataError
from ssl_bench.runtime import best_device

BLOCK_BYTES = 1 << 23  # of a block that is read at once
GPU_BLOCK_BYTES = 1 << 28  # there a block costs launches, and nothing is read from a disk


class _Scratch:
    """A file without a name: the system frees it when the last user, or the process, is gone."""

    def __init__(self) -> None:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self.number = file.fileno()
        weakref.finalize(self, file.close)

    def write(self, offset: int, content: bytes) -> None:
        """Raises DataError where the disk is full."""
        left = memoryview(content)
        try:
            while left:  # the system may take less than it is given
                count = os.pwrite(self.number, left, offset)
                left, offset = left[count:], offset + count
        except OSError as error:
            raise DataError(
                f"cannot write features to {cache_folder()}: {error.strerror}; make room, let "
                "SSL_BENCH_CACHE name another folder, or raise --feature-memory"
            ) from error

    def read(self, offset: int, into: np.ndarray) -> None:
        """Fill a contiguous array."""
        left = memoryview(into).cast("B")  # type: ignore[arg-type]
        while left:
            count = os.preadv(self.number, [left], offset)
            if not count:
                raise DataError("features ended before their last row: the disk has failed")
            left, offset = left[count:], offset + count


class Rows:
    """A matrix of float32 rows (N, D) on one device, read block by block.

    It lies in memory, or in a file without a name that is gone when the process ends, however it
    ends. Blocks of a file are read, not mapped, so none of it counts as this process's memory.
    """

    def __init__(self, count: int, size: int, *, on_disk: bool = False) -> None:
        self.shape = (count, size)
        self._memory: Tensor | None = None
        self._file: _Scratch | None = None
        self._which: np.ndarray | None = None  # ascending places in the file; None: all
        if on_disk:
            self._file = _Scratch()
        else:
            self._memory = torch.empty(count, size, device=best_device())

    @classmethod
    def of(cls, values: Tensor | np.ndarray) -> "Rows":
        """A matrix that is in memory already."""
        rows = cls(0, 0)
        rows._memory = torch.as_tensor(values)
        rows.shape = (values.shape[0], values.shape[1])
        return rows

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def on_disk(self) -> bool:
        return self._file is not None

    @property
    def device(self) -> torch.device:
        """Where a matrix in memory lies; a file's blocks come to the best device."""
        return best_device() if self._memory is None else self._memory.device

    def write(self, start: int, block: Tensor) -> None:
        """Put rows (B, D) at `start`. Raises DataError where the disk is full."""
        if self._memory is not None:
            self._memory[start : start + len(block)] = block
            return
        assert self._file is not None
        content = block.float().cpu().contiguous().numpy().tobytes()
        self._file.write(4 * start * self.shape[1], content)

    def part(self, which: np.ndarray | Tensor) -> "Rows":
        """The rows at ascending places `which`: a copy of a matrix in memory, a view of a file."""
        which = np.asarray(which.cpu() if isinstance(which, Tensor) else which)
        if self._memory is not None:
            return Rows.of(self._memory[torch.from_numpy(which)])
        rows = Rows(0, 0)
        rows._memory, rows._file = None, self._file
        rows._which = which if self._which is None else self._which[which]
        rows.shape = (len(which), self.shape[1])
        return rows

    def map(self, function: Callable[[Tensor], Tensor], size: int | None = None) -> "Rows":
        """Rows (N, size) made block by block, kept where these are."""
        made = Rows(len(self), size or self.shape[1], on_disk=self.on_disk)
        for span, block in self.blocks():
            made.write(span.start, function(block))
        return made

    @cached_property
    def block_rows(self) -> int:
        """Rows of a block."""
        on_gpu = self._memory is not None and self._memory.is_cuda
        size = GPU_BLOCK_BYTES if on_gpu else BLOCK_BYTES
        return max(64, size // (4 * max(1, self.shape[1])))

    def spans(self) -> Iterator[slice]:
        """The rows of each block, in order."""
        for start in range(0, len(self), self.block_rows):
            yield slice(start, min(start + self.block_rows, len(self)))

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Each block with its place: slice, float32 (B, D) on `device`."""
        for span in self.spans():
            yield span, self[span]

    def __getitem__(self, span: slice) -> Tensor:
        """Rows of one slice (no step), float32 on `device`; not to be written to."""
        if self._memory is not None:
            return self._memory[span]
        assert self._file is not None
        start, stop, _ = span.indices(len(self))
        if stop <= start:
            return torch.empty(0, self.shape[1], device=self.device)
        if self._which is None:
            return self._read(start, stop).to(self.device)
        places = self._which[start:stop]
        first, last = int(places[0]), int(places[-1])
        if last - first < 2 * len(places):
            return self._read(first, last + 1)[places - first].to(self.device)
        rows = [self._read(place, place + 1) for place in places.tolist()]  # few of many
        return torch.cat(rows).to(self.device)

    def whole(self) -> Tensor:
        """All rows at once, float32 (N, D)."""
        return self._memory if self._memory is not None else self[slice(0, len(self))]

    def _read(self, start: int, stop: int) -> Tensor:
        assert self._file is not None
        width = self.shape[1]
        read = np.empty((stop - start, width), dtype=np.float32)
        self._file.read(4 * start * width, read)
        return torch.from_numpy(read)
