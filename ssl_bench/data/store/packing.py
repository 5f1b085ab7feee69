"""How every store comes to be: a split is read in parallel, checked, and packed into a folder.

The two stores differ in what they make of an image and in what their index says of it; this file
is what they share. Each image gives a sample, or all that is wrong with it as lines of text, so
that the faults of a whole set stand in one report.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from ssl_bench.data.dataset import Split
from ssl_bench.data.faults import SKIP, lines_of, refuse
from ssl_bench.data.store.cache import StoredIndex, fill_once
from ssl_bench.errors import DataError
from ssl_bench.progress import progress, say
from ssl_bench.workers import read_ahead

T = TypeVar("T")
BATCH = 8  # images that a worker hands over at once


# ---- reading
@dataclass(frozen=True)
class Faulty:
    """What stands in the place of an image that cannot be used: all that is wrong with it."""

    lines: tuple[str, ...]


class _Reading(Generic[T]):
    """What a worker does; it returns faults as values."""

    def __init__(self, source: Split, read: Callable[[Split, int], T]) -> None:
        self.source, self.read = source, read

    def __call__(self, indices: range) -> list[T | Faulty]:
        return [self._one(index) for index in indices]

    def _one(self, index: int) -> T | Faulty:
        try:
            return self.read(self.source, index)
        except DataError as error:
            return Faulty(lines_of(error))


def samples(
    source: Split, read: Callable[[Split, int], T], workers: int, title: str
) -> Iterator[T | Faulty]:
    """What `read` makes of every image of a split, in order; it runs in the workers.

    `title` says at the progress bar what is being done.
    """
    count = len(source.names)
    spans = [range(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
    batches = read_ahead(_Reading(source, read), spans, workers)
    return progress((one for batch in batches for one in batch), title, count)


# ---- writing
@dataclass(eq=False)
class StoredSample(Generic[T]):
    """An image at the size to be stored; `entry` is what is kept of it for the index."""

    pixels: np.ndarray  # (h, w, 3) uint8
    entry: T
    weight: int = 1  # in the mean and deviation of all images
    mask: np.ndarray | None = None  # (h, w) uint8

    def __post_init__(self) -> None:
        channels = self.pixels.reshape(-1, 3) / 255.0  # here, so that workers do it
        self.mean, self.mean_square = channels.mean(0), (channels**2).mean(0)  # (3,) each


class Packed(Generic[T]):
    """What was packed: the entry of every image by its place in the split, and what was not."""

    def __init__(self) -> None:
        self.entries: dict[int, T] = {}
        self.faulty: list[Faulty] = []
        self.total, self.squares, self.weight = np.zeros(3), np.zeros(3), 0

    def add(self, sample: StoredSample[T], place: int) -> None:
        """Count an image; its pixels are not kept."""
        self.entries[place] = sample.entry
        # One after another: another order of summing moves the last bits of the mean, which is
        # part of the key of every run.
        self.total += sample.weight * sample.mean
        self.squares += sample.weight * sample.mean_square
        self.weight += sample.weight

    def common(self, source: Split) -> dict[str, Any]:
        """The fields of StoredIndex but for labels, digests and digest."""
        mean = self.total / self.weight
        # std² = E[x²] − E[x]², and at least 0.001², as pictures of one colour have none.
        std = np.sqrt(np.maximum(self.squares / self.weight - mean**2, 1e-6))
        return {
            "classes": source.classes,
            "names": [source.names[place] for place in self.entries],
            "notes": list(source.notes),
            "skipped": ["; ".join(image.lines) for image in self.faulty],
            "mean": tuple(mean.tolist()),
            "std": tuple(std.tolist()),
        }


def content_digest(*parts: Any) -> str:
    """Of names, labels, classes and contents. It is in the keys of records: never change it."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def write(
    folder: Path, images: Iterator[StoredSample[T] | Faulty], title: str, skip_bad_images: bool
) -> Packed[T]:
    """Write images.bin and, where samples have masks, masks.bin into `folder`.

    Raises Faults with all that is wrong with the images, unless `skip_bad_images` and some are
    left.
    """
    packed: Packed[T] = Packed()
    with open(folder / "images.bin", "wb") as pixels, open(folder / "masks.bin", "wb") as masks:
        for place, image in enumerate(images):
            if isinstance(image, Faulty):
                packed.faulty.append(image)
                continue
            packed.add(image, place)
            pixels.write(image.pixels.tobytes())
            if image.mask is not None:
                masks.write(image.mask.tobytes())
    if not (skip_bad_images and packed.entries):
        # Where nothing is left, the advice would be to do what was done.
        advice = "" if skip_bad_images else f"{SKIP} to leave these images out"
        refuse([line for image in packed.faulty for line in image.lines], title, advice)
    if not (folder / "masks.bin").stat().st_size:
        (folder / "masks.bin").unlink()
    return packed


def decode_once(
    folder: Path,
    source: Split,
    read: Callable[[Split, int], StoredSample[T]],
    index: Callable[[Split, Packed[T]], StoredIndex],
    title: str,
    skip_bad_images: bool,
    workers: int,
) -> None:
    """Have the images of a split in `folder`: as `read` makes them, with what `index` says of them.

    Nothing is done where they are there. The notes of the index are said. Raises DataError as
    `write` and `fill_once`.
    """

    def fill(scratch: Path) -> None:
        images = samples(source, read, workers, f"decoding {title}")
        packed = write(scratch, images, title, skip_bad_images)
        made = index(source, packed)
        for note in made.notes:
            say(f"{title}: {note}")
        (scratch / "index.json").write_text(made.model_dump_json())

    fill_once(folder, fill)
