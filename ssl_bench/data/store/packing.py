"""How every store comes to be: a split is read in parallel, checked, and packed into a folder.

The two stores differ in what they make of an image and in what their index says of it; this file
is what they share. Each image gives a sample, or all that is wrong with it as lines of text, so
that the faults of a whole set stand in one report.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import numpy as np

from ssl_bench.data.dataset import Split
from ssl_bench.data.faults import SKIP, lines_of, refuse
from ssl_bench.data.store.cache import StoredIndex, fill_once, write_index
from ssl_bench.data.store.journal import JOURNAL, PIXELS, Packed, Row, resumed
from ssl_bench.data.string_array import StringArray
from ssl_bench.errors import DataError, counted
from ssl_bench.progress import progress, say
from ssl_bench.workers import read_ahead

T = TypeVar("T")
BATCH = 8  # images that a worker hands over at once
LEAST_DEVIATION = 1e-3  # of a channel, where white is 1: what pictures of one colour have


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
    source: Split, read: Callable[[Split, int], T], workers: int, title: str, first: int = 0
) -> Iterator[T | Faulty]:
    """What `read` makes of every image of a split, in order, from the `first`; in the workers.

    `title` says at the progress bar what is being done.
    """
    count = len(source.names)
    spans = [range(start, min(start + BATCH, count)) for start in range(first, count, BATCH)]
    batches = read_ahead(_Reading(source, read), spans, workers)
    return progress((one for batch in batches for one in batch), title, count, first)


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


def common_fields(packed: Packed[T], source: Split) -> dict[str, Any]:
    """The fields of StoredIndex but for labels, digests and digest."""
    mean = packed.total / packed.weight
    # std² = E[x²] − E[x]², and not 0, as of pictures of one colour.
    std = np.sqrt(np.maximum(packed.squares / packed.weight - mean**2, LEAST_DEVIATION**2))
    return {
        "classes": source.classes,
        "names": StringArray.of(source.names).at(packed.places),
        "notes": list(source.notes),
        "metric": source.metric,
        "skipped": ["; ".join(lines) for lines in packed.faults],
        "mean": tuple(mean.tolist()),
        "std": tuple(std.tolist()),
    }


def content_digest(*parts: Any) -> str:
    """Of names, labels, classes and contents. It is in the keys of records: never change it.

    It is that of `json.dumps(parts)`, which is never there as a whole.
    """
    digest = hashlib.sha256(b"[")
    for place, part in enumerate(parts):
        digest.update(b", " if place else b"")
        for text in _json(part):
            digest.update(text.encode())
    digest.update(b"]")
    return digest.hexdigest()


def _json(part: Any) -> Iterator[str]:
    if not isinstance(part, StringArray | np.ndarray):
        yield json.dumps(part)
        return
    for first in range(0, len(part), 1000):
        block = part[first : first + 1000]
        items = list(block) if isinstance(block, StringArray) else block.tolist()
        yield (", " if first else "[") + json.dumps(items)[1:-1]
    yield "]" if len(part) else "[]"


def write(
    folder: Path,
    source: Split,
    read: Callable[[Split, int], StoredSample[T]],
    entry: type[T],
    title: str,
    skip_bad_images: bool,
    workers: int,
) -> Packed[T]:
    """Write images.bin and, where samples have masks, masks.bin into `folder`.

    It goes on behind what an interrupted process wrote there; the files are the same. Raises
    Faults with all that is wrong with the images, unless `skip_bad_images` and some are left.
    """
    packed = resumed(folder, Row[entry])
    if packed.seen:
        say(f"decoding {title}: going on after {counted(packed.seen, 'image')}")
    with ExitStack() as stack:
        files = [stack.enter_context(open(folder / name, "ab")) for name in PIXELS]
        journal = stack.enter_context(open(folder / JOURNAL, "ab"))
        for image in samples(source, read, workers, f"decoding {title}", packed.seen):
            row = _written(image, files, packed.row)
            journal.write(row.model_dump_json().encode() + b"\n")
            packed.add(row)
    if not (skip_bad_images and packed.places):
        # Where nothing is left, the advice would be to do what was done.
        advice = "" if skip_bad_images else f"{SKIP} to leave these images out"
        refuse([line for lines in packed.faults for line in lines], title, advice)
    if not packed.sizes[1]:
        (folder / "masks.bin").unlink()
    return packed


def _written(
    image: StoredSample[T] | Faulty, files: Sequence[IO[bytes]], row: type[Row[T]]
) -> Row[T]:
    """Write the pixels of an image; they are with the system before its line in the journal is."""
    if isinstance(image, Faulty):
        return row(faults=image.lines)
    parts = [image.pixels.tobytes(), b"" if image.mask is None else image.mask.tobytes()]
    for file, part in zip(files, parts, strict=True):
        file.write(part)
        file.flush()
    return row(
        entry=image.entry,
        mean=tuple(image.mean.tolist()),
        mean_square=tuple(image.mean_square.tolist()),
        weight=image.weight,
        sizes=(len(parts[0]), len(parts[1])),
    )


def decode_once(
    folder: Path,
    source: Split,
    read: Callable[[Split, int], StoredSample[T]],
    entry: type[T],
    index: Callable[[Split, Packed[T]], StoredIndex],
    title: str,
    skip_bad_images: bool,
    workers: int,
) -> None:
    """Have the images of a split in `folder`: as `read` makes them, with what `index` says of them.

    `entry` is what `read` keeps of an image, a dataclass that goes through JSON unchanged.
    Nothing is done where they are there. The notes of the index are said. Raises DataError as
    `write` and `fill_once`.
    """

    def fill(scratch: Path) -> None:
        packed = write(scratch, source, read, entry, title, skip_bad_images, workers)
        made = index(source, packed)
        for note in made.notes:
            say(f"{title}: {note}")
        write_index(scratch, made)
        packed.journal.unlink()

    fill_once(folder, fill)
