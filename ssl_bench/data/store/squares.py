"""The store of squares: every image once, as uint8 (R, R, 3), in one memory-mapped file.

A training step then costs a gather instead of JPEG decoding. A store is a folder in the cache
(`$SSL_BENCH_CACHE`, else `~/.cache/ssl-bench`) that appears whole or not at all:

    images.bin   (N, R, R, 3) uint8, in the order of the index
    *.npy        names, labels, digests
    index.json   skipped images, per-channel mean and deviation

Images that are smaller than the crop are enlarged, as everywhere in the field; the index says how
many.
"""

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from ssl_bench.data.dataset import Dataset, SmallImage, Split, SplitName
from ssl_bench.data.store.cache import Stored, StoredIndex, cache_folder, cache_key, read_index
from ssl_bench.data.store.journal import Packed
from ssl_bench.data.store.packing import (
    StoredSample,
    common_fields,
    content_digest,
    decode_once,
)
from ssl_bench.data.string_array import StringArray
from ssl_bench.progress import waiting

LAYOUT = 3  # raised when the files' layout or the decoding changes
LEAST = 8  # px of a side: what is smaller is an icon, or damaged


class Index(StoredIndex):
    """What stands beside the pixels."""

    size: int
    enlarged: int = 0  # images whose short side is below the crop

    def file_sizes(self) -> dict[str, int]:
        """See StoredIndex."""
        return {"images.bin": len(self.names) * self.size**2 * 3}


@dataclass(frozen=True)
class ImageStore(Stored):
    """Decoded images of one split: `pixels` is uint8 (N, R, R, 3), memory-mapped."""

    index: Index

    @cached_property
    def pixels(self) -> np.ndarray:
        """uint8 (N, R, R, 3), read-only."""
        return self._map()

    def images(self, which: slice | np.ndarray) -> Tensor:
        """uint8 (B, 3, R, R), a copy, channels last in memory."""
        if isinstance(which, slice):
            # Through a map of its own, whose pages are given back with it: a pass over all images
            # would else end with all of them resident.
            rows = np.array(self._map()[which])
        else:
            size = 3 * self.index.size**2
            starts = which.astype(np.int64) * size
            self.will_need("images.bin", starts, np.full(len(which), size))
            rows = self.pixels[which]  # a copy already
        return torch.from_numpy(rows).permute(0, 3, 1, 2)

    def _map(self) -> np.ndarray:
        pixels = self.mapped("images.bin").reshape(-1, self.index.size, self.index.size, 3)
        return pixels[: len(self)]  # the index of a part of a set is shorter than the file


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
    labelled: bool = True,
) -> ImageStore:
    """Decoded images for crops of `image_size`, from the cache or decoded now.

    Where they need not be `labelled`, labels that cannot be read are no fault: see
    Dataset.split_for_pretraining.

    Raises DataError with all faults of the images, those that cannot be decoded and those that
    have a side below LEAST, unless `skip_bad_images`, which leaves these images out and lists them
    in the index.
    """
    source = _listed(dataset, split, labelled)
    size = stored_size(image_size)
    key = cache_key(LAYOUT, source.fingerprint, size, image_size, skip_bad_images)
    folder = cache_folder() / f"{dataset.name.partition(':')[0]}-{split}-{size}px-{key}"
    read, title = partial(_read, size=size, crop=image_size), f"{dataset.name} {split}"
    index = partial(_index, size=size, crop=image_size)
    decode_once(folder, source, read, _Entry, index, title, skip_bad_images, workers)
    return ImageStore(folder, read_index(folder, Index))


def _listed(dataset: Dataset, split: SplitName, labelled: bool) -> Split:
    """A split, which is read once in a dataset's life: a suite opens it for each of its rows."""
    found: dict[tuple[SplitName, bool], Split] = vars(dataset).setdefault("_listed", {})
    if (split, labelled) not in found:
        with waiting(f"listing the images of {dataset.name} {split}"):
            read = dataset.split if labelled else dataset.split_for_pretraining
            found[split, labelled] = read(split)
    return found[split, labelled]


@dataclass(frozen=True)
class _Entry:
    """What is kept of an image beside its pixels."""

    digest: str
    enlarged: bool


def _read(source: Split, place: int, size: int, crop: int) -> StoredSample[_Entry]:
    try:
        pixels, digest = source.load(place, size, crop)
        return StoredSample(pixels, _Entry(digest, enlarged=False))
    except SmallImage:
        pixels, digest = source.load(place, size, LEAST)
        return StoredSample(pixels, _Entry(digest, enlarged=True))


def _index(source: Split, packed: Packed[_Entry], size: int, crop: int) -> Index:
    labels = None if source.labels is None else source.labels[packed.places]
    digests = StringArray.of(entry.digest for entry in packed.entries())
    common = common_fields(packed, source)
    digest = content_digest(source.classes, common["names"], labels, digests)
    if enlarged := sum(entry.enlarged for entry in packed.entries()):
        note = f"{enlarged:,} of {len(digests):,} images are smaller than {crop} px, and enlarged"
        common["notes"] = [*common["notes"], note]
    return Index(
        size=size, enlarged=enlarged, labels=labels, digests=digests, digest=digest, **common
    )
