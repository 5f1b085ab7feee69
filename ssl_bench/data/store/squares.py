"""The decoded image store: every image once, as square uint8 pixels in one memory-mapped file.

A training step then costs a gather instead of JPEG decoding. A store is a folder in the cache
(`$SSL_BENCH_CACHE`, else `~/.cache/ssl-bench`) that appears whole or not at all:

    images.bin   (N, R, R, 3) uint8, in the order of the index
    index.json   names, labels, digests, skipped images, per-channel mean and deviation
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssl_bench.data.dataset import Dataset, Split, SplitName
from ssl_bench.data.store.cache import (
    Moments,
    Stored,
    StoredIndex,
    cache_folder,
    cache_key,
    decoded,
    fill_once,
    moments,
    read_index,
)
from ssl_bench.errors import DataError
from ssl_bench.progress import progress

LAYOUT = 1  # raised when the files' layout or the decoding changes


class Index(StoredIndex):
    """What stands beside the pixels."""

    size: int


@dataclass(frozen=True)
class ImageStore(Stored):
    """Decoded images of one split: `pixels` is uint8 (N, R, R, 3), memory-mapped."""

    index: Index

    @cached_property
    def pixels(self) -> np.ndarray:
        """uint8 (N, R, R, 3), read-only."""
        return self._map()

    def images(self, which: slice | np.ndarray) -> Tensor:
        """uint8 (B, 3, R, R), a copy, channels last in memory.

        A slice is read through a map of its own, so that a pass over all images does not end with
        all of them mapped.
        """
        pixels = self._map() if isinstance(which, slice) else self.pixels
        return torch.from_numpy(np.array(pixels[which])).permute(0, 3, 1, 2)

    def _map(self) -> np.ndarray:
        size = self.index.size
        return np.memmap(
            self.folder / "images.bin", np.uint8, mode="r", shape=(len(self), size, size, 3)
        )


def stored_size(image_size: int) -> int:
    """Side of the stored square from which crops are taken: 256 for 227, as in Caffe."""
    return round(image_size * 256 / 227)


def open_store(
    dataset: Dataset,
    split: SplitName,
    image_size: int,
    *,
    skip_bad_images: bool = False,
    workers: int = 2,
) -> ImageStore:
    """Decoded images for crops of `image_size`, from the cache or decoded now.

    Raises DataError for images that cannot be decoded or are smaller than the crop, unless
    `skip_bad_images`, which lists them in the index instead.
    """
    source = dataset.split(split)
    size = stored_size(image_size)
    name = cache_key(LAYOUT, source.fingerprint, size, image_size, skip_bad_images)
    folder = cache_folder() / f"{dataset.name.partition(':')[0]}-{split}-{size}px-{name}"

    def fill(scratch: Path) -> None:
        images = decoded(_Loading(source, size, image_size), workers)
        shown = progress(images, f"decoding {dataset.name} {split}", len(source.names))
        _write(scratch, source, size, shown, skip_bad_images)

    fill_once(folder, fill)
    return ImageStore(folder, read_index(folder, Index, _sizes))


def _sizes(index: Index) -> dict[str, int]:
    return {"images.bin": len(index.names) * index.size**2 * 3}


class _Loading:
    """A torch dataset over a split that returns errors as values, for the loader's workers."""

    def __init__(self, source: Split, size: int, smallest: int) -> None:
        self.source, self.size, self.smallest = source, size, smallest

    def __len__(self) -> int:
        return len(self.source.names)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str] | DataError:
        try:
            return self.source.load(index, self.size, self.smallest)
        except DataError as error:
            return error


def _write(
    folder: Path,
    source: Split,
    size: int,
    images: Iterator[tuple[np.ndarray, str] | DataError],
    skip_bad_images: bool,
) -> None:
    kept, digests, errors = [], [], []
    seen = Moments()
    with open(folder / "images.bin", "wb") as file:
        for i, image in enumerate(images):
            if isinstance(image, DataError):
                errors.append(str(image))
                continue
            pixels, digest = image
            file.write(pixels.tobytes())
            kept.append(i)
            digests.append(digest)
            seen.add(moments(pixels))
    _refuse(errors, skip_bad_images, bool(kept))
    index = _index(source, size, kept, digests, errors, seen)
    (folder / "index.json").write_text(index.model_dump_json())


def _refuse(errors: list[str], skip_bad_images: bool, any_good: bool) -> None:
    if errors and not (skip_bad_images and any_good):
        more = f" (and {len(errors) - 1} more such images)" if len(errors) > 1 else ""
        if skip_bad_images:  # there is nothing left: no advice to do what was done
            errors[0] = errors[0].removesuffix(", or pass --skip-bad-images")
        raise DataError(errors[0] + more)


def _index(
    source: Split,
    size: int,
    kept: list[int],
    digests: list[str],
    errors: list[str],
    seen: Moments,
) -> Index:
    names = [source.names[i] for i in kept]
    labels = None if source.labels is None else source.labels[kept].tolist()
    manifest = json.dumps([source.classes, names, labels, digests])
    mean, std = seen.mean_and_std()
    return Index(
        size=size,
        classes=source.classes,
        names=names,
        labels=labels,
        digests=digests,
        skipped=errors,
        mean=mean,
        std=std,
        digest=hashlib.sha256(manifest.encode()).hexdigest(),
    )
