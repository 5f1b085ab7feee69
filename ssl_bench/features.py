"""Features of several layers of many images in one pass of a frozen encoder.

The pass streams the images once, whatever the number of layers and of protocols that ask. Rows
within the memory budget stay in memory; above it they go to unnamed files on disk, which the
probes read block by block, so memory stays flat as the data grow.
"""

import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.augment import center_crop
from ssl_bench.data.dataset import one_label_each, targets_of
from ssl_bench.data.store import ImageStore, cache_folder
from ssl_bench.encoders import Encoder, EncoderSpec, weights_digest
from ssl_bench.errors import DataError
from ssl_bench.progress import progress

BATCH = 64
BLOCK_BYTES = 1 << 23  # of a block that is read at once


def best_device() -> torch.device:
    """Where evaluations compute: the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pooled_side(channels: int, side: int, dimensions: int) -> int:
    """Side of the largest grid with at most `dimensions` values, not beyond the map's own.

    With 9,600 this is 10, 6, 5, 5, 6 for AlexNet's conv1 … conv5 (Zhang et al., arXiv 1603.08511).
    """
    return max(1, min(side, int((dimensions / channels) ** 0.5)))


def pool(maps: Tensor, dimensions: int) -> Tensor:
    """Shrink maps by adaptive average pooling and flatten: (B, C, h, w) -> (B, C·g²)."""
    grid = pooled_side(maps.shape[1], maps.shape[-1], dimensions)
    return F.adaptive_avg_pool2d(maps, grid).flatten(1)


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
        return max(64, BLOCK_BYTES // (4 * max(1, self.shape[1])))

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


@dataclass(frozen=True)
class Features:
    """One layer's features of a split, with what is known of its images.

    `annotations` is int64 (N,), a class each, or int8 (N, C) for several labels an image: 1 for a
    class that is there, 0 for one that is not, −1 for one that is not to be judged.
    """

    rows: Rows
    annotations: np.ndarray
    classes: tuple[str, ...]

    @classmethod
    def of(cls, rows: Rows, store: ImageStore) -> "Features":
        """Rows of a store's images, in its order."""
        return cls(rows, store.annotations, store.index.classes)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> np.ndarray:
        """int64 (N,). Raises DataError where an image may have several labels."""
        return one_label_each(self.annotations)

    @property
    def targets(self) -> np.ndarray:
        """int8 (N, C) of 1, 0 and −1, for any kind of labels."""
        return targets_of(self.annotations, len(self.classes))


Wanted = Mapping[str, Iterable[int]]  # layer -> the numbers of dimensions that are asked for


class Pictures(Protocol):
    """What a pass takes of a store."""

    def __len__(self) -> int: ...

    def images(self, which: slice, /) -> Tensor:
        """uint8 (B, 3, R, R)."""
        ...


@torch.no_grad()
def extract(
    encoder: Encoder,
    spec: EncoderSpec,
    store: Pictures,
    wanted: Wanted,
    title: str = "features",
    *,
    on_disk: bool = False,
) -> dict[tuple[str, int], Rows]:
    """Rows (N, D) by (layer, dimensions), in the store's order, from central crops.

    Frozen in fact: eval mode, no gradient, and the weights' digest is compared before and after.
    Raises DataError if a layer gives values that are not finite.
    """
    before = weights_digest(encoder.state_dict())
    device = best_device()
    encoder.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    found: dict[tuple[str, int], Rows] = {}
    starts = range(0, len(store), BATCH)
    for start in progress(starts, title, len(starts)):
        pixels = store.images(slice(start, start + BATCH)).to(device)
        images = spec.normalization.apply(center_crop(pixels, spec.image_size))
        for layer, maps in encoder(images, list(wanted)).items():
            for dimensions in wanted[layer]:
                block = pool(maps, dimensions).float()
                if not bool(torch.isfinite(block).all()):
                    raise DataError(f"layer {layer} gives values that are not finite")
                if start == 0:
                    found[layer, dimensions] = Rows(len(store), block.shape[1], on_disk=on_disk)
                found[layer, dimensions].write(start, block)
    _check_frozen(encoder.cpu(), before)
    return found


def feature_bytes(encoder: Encoder, spec: EncoderSpec, images: int, wanted: Wanted) -> int:
    """Bytes of all rows that a pass over `images` images would make."""
    with torch.no_grad():
        blank = torch.zeros(1, 3, spec.image_size, spec.image_size)
        maps = encoder.eval()(blank, list(wanted))
    numbers = sum(pool(maps[layer], d).shape[1] for layer in maps for d in wanted[layer])
    return 4 * images * numbers


def _check_frozen(encoder: nn.Module, before: str) -> None:
    if weights_digest(encoder.state_dict()) != before:
        raise DataError("the encoder's weights changed during a frozen evaluation")
