"""Whole images with what their task takes, read and checked one by one.

A store keeps them, a survey counts them. They are read in parallel; each gives a result, or all
that is wrong with it as lines of text, so that the faults of a whole set stand in one report.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from ssl_bench.data.dataset import Objects, Split, Task
from ssl_bench.data.faults import lines_of, noted, refuse
from ssl_bench.data.store.cache import decoded
from ssl_bench.errors import DataError

T = TypeVar("T")
BATCH = 8  # images that a worker hands over at once


@dataclass(frozen=True, eq=False)
class Sample:
    """Pixels uint8 (H, W, 3); `objects` for detection; `mask` uint8 (H, W) for segmentation."""

    pixels: np.ndarray
    digest: str  # of the image's content
    objects: Objects | None
    mask: np.ndarray | None

    @property
    def mask_digest(self) -> str | None:
        """Of the mask's size and indices."""
        if self.mask is None:
            return None
        return hashlib.sha256(repr(self.mask.shape).encode() + self.mask.tobytes()).hexdigest()


def read_sample(source: Split, index: int, task: Task) -> Sample:
    """Raises Faults with all that is wrong with the image and with its truth."""
    faults: list[str] = []
    pixels, digest, objects, mask = None, "", None, None
    with noted(faults):
        pixels, digest = source.whole(index)
    with noted(faults):
        objects = source.objects(index) if task == "detection" else None
    with noted(faults):
        mask = source.mask(index) if task == "segmentation" else None
    refuse(faults, source.names[index])
    assert pixels is not None
    if mask is not None and mask.shape != pixels.shape[:2]:
        raise DataError(f"{source.names[index]} has a mask of another size than its own")
    return Sample(pixels, digest, objects, mask)


@dataclass(frozen=True)
class Faulty:
    """What stands in the place of an image that cannot be used: all that is wrong with it."""

    lines: tuple[str, ...]


class _Samples(Generic[T]):
    """A torch dataset for the loader's workers."""

    def __init__(self, source: Split, task: Task, use: Callable[[Sample], T]) -> None:
        self.source, self.use = source, use
        self.task: Task = task

    def __len__(self) -> int:
        return len(self.source.names)

    def __getitem__(self, index: int) -> T | Faulty:
        try:
            return self.use(read_sample(self.source, index, self.task))
        except DataError as error:
            return Faulty(lines_of(error))


def samples(
    source: Split, task: Task, use: Callable[[Sample], T], workers: int
) -> Iterator[T | Faulty]:
    """What `use` makes of every image of a split, in order; it runs in the workers."""
    return decoded(_Samples(source, task, use), workers, BATCH)
