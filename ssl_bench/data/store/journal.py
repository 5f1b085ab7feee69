"""What a decoding has done so far, so that an interrupted one goes on where it stopped.

Beside the files of pixels a line of JSON is written for each image, after its pixels. Who comes
next believes the whole lines whose pixels are there, and cuts the files off behind them.
"""

import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from pydantic import BaseModel

from ssl_bench.data.store.cache import Triple

T = TypeVar("T")
JOURNAL = "decoded.jsonl"
PIXELS = ("images.bin", "masks.bin")


class Row(BaseModel, Generic[T]):
    """A line: what is kept of an image, or all that is wrong with one that cannot be used."""

    faults: tuple[str, ...] = ()
    entry: T | None = None
    mean: Triple = (0, 0, 0)  # of its pixels, by channel
    mean_square: Triple = (0, 0, 0)
    weight: int = 0  # in the mean of all images
    sizes: tuple[int, int] = (0, 0)  # bytes in images.bin and in masks.bin


class Packed(Generic[T]):
    """What was packed: which images of the split, in `places`, and what was not, in `faults`."""

    def __init__(self, folder: Path, row: type[Row[T]]) -> None:
        self.journal, self.row = folder / JOURNAL, row
        self.seen, self.places, self.faults = 0, array("q"), list[tuple[str, ...]]()
        self.total, self.squares, self.weight = np.zeros(3), np.zeros(3), 0
        self.sizes = (0, 0)

    def add(self, row: Row[T]) -> None:
        """Count an image; what is kept of it is in the journal."""
        if row.entry is None:
            self.faults.append(row.faults)
        else:
            self.places.append(self.seen)
        self.seen += 1
        # One after another: another order of summing moves the last bits of the mean, which is
        # part of the key of every run.
        self.total += row.weight * np.array(row.mean)
        self.squares += row.weight * np.array(row.mean_square)
        self.weight += row.weight
        self.sizes = (self.sizes[0] + row.sizes[0], self.sizes[1] + row.sizes[1])

    def entries(self) -> Iterator[T]:
        """What is kept of each image that is used, read from the journal."""
        with open(self.journal, "rb") as lines:
            for line in lines:
                if (entry := self.row.model_validate_json(line).entry) is not None:
                    yield entry


def resumed(folder: Path, row: type[Row[T]]) -> Packed[T]:
    """What an interrupted process left in `folder`, whose files end there from now on."""
    packed, end = Packed(folder, row), 0
    for name in (JOURNAL, *PIXELS):
        (folder / name).touch()
    there = [(folder / name).stat().st_size for name in PIXELS]
    with open(folder / JOURNAL, "rb") as lines:
        for line in lines:
            try:
                found = row.model_validate_json(line)
            except ValueError:  # the last line, half written
                break
            ends = [a + b for a, b in zip(packed.sizes, found.sizes, strict=True)]
            if not line.endswith(b"\n") or ends[0] > there[0] or ends[1] > there[1]:
                break
            packed.add(found)
            end += len(line)
    for name, size in zip((JOURNAL, *PIXELS), (end, *packed.sizes), strict=True):
        os.truncate(folder / name, size)
    return packed
