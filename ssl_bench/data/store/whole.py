"""The store of whole images: any size, packed one after another, with boxes or masks beside them.

    store = open_whole(catalogue.dataset("voc07"), "train", "detection", short=600, longest=1000)
    store.images(which), store.objects(i), store.sizes

Like the store of squares, it is a folder in the cache that appears whole or not at all:

    images.bin   uint8, (h, w, 3) of each image in the order of the index
    masks.bin    uint8, (h, w) of each, for segmentation: 0 background, 1 + class, 255 void
    *.npy        names, labels, digests
    index.json   sizes, boxes, skipped images, per-channel mean and deviation

When a set is first opened, its images, boxes and masks are all checked; one report names the
faults, before anything is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from ssl_bench.data.dataset import VOID, Dataset, Objects, Split, SplitName, Task
from ssl_bench.data.store.cache import Stored, StoredIndex, cache_folder, cache_key, read_index
from ssl_bench.data.store.journal import Packed
from ssl_bench.data.store.packing import (
    StoredSample,
    common_fields,
    content_digest,
    decode_once,
)
from ssl_bench.data.store.samples import ImageEntry, Truth, fit, read_sample
from ssl_bench.data.string_array import StringArray
from ssl_bench.errors import DataError, UsageError
from ssl_bench.progress import waiting

LAYOUT = 2  # raised when the files' layout or the decoding changes


class WholeIndex(StoredIndex):
    """What stands beside the pixels.

    `digest` also covers boxes, difficult flags and masks, as the files have them: it does not
    change with the size that is stored.
    """

    task: Task
    masks: list[str] | None  # digests
    objects: list[Truth] | None
    originals: list[tuple[int, int]]
    sizes: list[tuple[int, int]]
    scales: list[float]

    def file_sizes(self) -> dict[str, int]:
        """See StoredIndex."""
        pixels = sum(height * width for height, width in self.sizes)
        return {"images.bin": 3 * pixels} | ({} if self.masks is None else {"masks.bin": pixels})


@dataclass(frozen=True)
class WholeStore(Stored):
    """Decoded whole images of one split, memory-mapped."""

    index: WholeIndex

    @cached_property
    def sizes(self) -> np.ndarray:
        """int64 (N, 2): height and width of the stored images."""
        return np.array(self.index.sizes, np.int64)

    @cached_property
    def originals(self) -> np.ndarray:
        """int64 (N, 2): height and width of the images in their files."""
        return np.array(self.index.originals, np.int64)

    @cached_property
    def scales(self) -> np.ndarray:
        """float64 (N,): stored by original side, before sides were rounded to whole pixels."""
        return np.array(self.index.scales, np.float64)

    def images(self, which: slice | np.ndarray) -> Tensor:
        """uint8 (B, 3, H, W), a copy, channels last in memory.

        H and W are the largest of the batch; smaller images have zeros to the right and below.
        """
        return torch.from_numpy(self._gather("images.bin", which, (3,), 0)).permute(0, 3, 1, 2)

    def masks(self, which: slice | np.ndarray) -> Tensor:
        """uint8 (B, H, W), a copy: of the size of `images`, with 255 to the right and below.

        Raises DataError for a store that was not opened for segmentation.
        """
        if self.index.masks is None:
            raise DataError(f"this store is for {self.index.task}: it has no masks")
        return torch.from_numpy(self._gather("masks.bin", which, (), VOID))

    def objects(self, i: int) -> Objects:
        """The objects of one image, in pixels of the stored image.

        Raises DataError for a store that was not opened for detection.
        """
        if self.index.objects is None:
            raise DataError(f"this store is for {self.index.task}: it has no boxes")
        # By the sides as they were rounded, not by `scales`: a box of the whole image stays one.
        down, across = (self.sizes[i] / self.originals[i]).tolist()
        truth = self.index.objects[i]
        return Objects.of(truth.boxes, truth.labels, truth.difficult).resized(across, down)

    @cached_property
    def _starts(self) -> np.ndarray:
        """int64 (N,): pixels before each image."""
        return np.cumsum([0, *self.sizes.prod(1)[:-1]])

    @cached_property
    def _maps(self) -> dict[str, np.ndarray]:
        return {name: self.mapped(name) for name in self.index.file_sizes()}

    def _gather(
        self, name: str, which: slice | np.ndarray, channels: tuple[int, ...], fill: int
    ) -> np.ndarray:
        """uint8 (B, H, W, *channels) from the packed pixels, padded with `fill`."""
        sizes, depth = self.sizes[which], int(np.prod(channels))  # a mask has a depth of 1
        starts, lengths = self._starts[which] * depth, sizes.prod(1) * depth  # in bytes
        if isinstance(which, slice):
            # Through a map of its own, whose pages are given back with it: a pass over all images
            # would else end with all of them resident.
            packed = self.mapped(name)
        else:
            packed = self._maps[name]
            self.will_need(name, starts, lengths)
        batch = np.full((len(sizes), *sizes.max(0, initial=0), *channels), fill, np.uint8)
        for row, start, length, (height, width) in zip(batch, starts, lengths, sizes, strict=True):
            image = packed[start : start + length].reshape(height, width, *channels)
            row[:height, :width] = image
        return batch


def open_whole(
    dataset: Dataset,
    split: SplitName,
    task: Task,
    short: int | None,
    longest: int,
    *,
    skip_bad_images: bool = False,
    workers: int = 2,
) -> WholeStore:
    """Whole images with the truth of `task`, from the cache or decoded now.

    The short side becomes `short` px (None: stays as it is) unless the long side would exceed
    `longest` px. Pixels are resized bilinearly and antialiased, masks by the nearest neighbour.

    Raises UsageError for impossible sides; DataError with all faults of images, boxes and masks,
    unless `skip_bad_images`, which leaves these images out and lists them in the index.
    """
    if longest < (short or 1) or (short is not None and short < 1):
        raise UsageError(f"no image has sides of {short} to {longest} px: give 1 or more, in order")
    with waiting(f"listing the images of {dataset.name} {split}"):
        source = dataset.split(split, task)
    key = cache_key("whole", LAYOUT, source.fingerprint, task, short, longest, skip_bad_images)
    sides = f"{short or 'any'}-{longest}px"
    folder = cache_folder() / f"{dataset.name.partition(':')[0]}-{split}-{task}-{sides}-{key}"

    read = partial(_read, task=task, short=short, longest=longest)
    index, title = partial(_index, task=task), f"{dataset.name} {split}, {task}"
    decode_once(folder, source, read, ImageEntry, index, title, skip_bad_images, workers)
    return WholeStore(folder, read_index(folder, WholeIndex))


def _read(
    source: Split, place: int, task: Task, short: int | None, longest: int
) -> StoredSample[ImageEntry]:
    return fit(read_sample(source, place, task), short, longest)


def _index(source: Split, packed: Packed[ImageEntry], task: Task) -> WholeIndex:
    kept = list(packed.entries())
    digests = StringArray.of(entry.digest for entry in kept)
    objects = [entry.truth for entry in kept if entry.truth is not None]
    masks = [entry.mask_digest for entry in kept if entry.mask_digest is not None]
    labels = _labels(source, packed.places, objects if task == "detection" else None)
    truth = [one.model_dump() for one in objects]
    common = common_fields(packed, source)
    return WholeIndex(
        task=task,
        labels=labels,
        digests=digests,
        masks=masks if task == "segmentation" else None,
        objects=objects if task == "detection" else None,
        originals=[entry.original for entry in kept],
        sizes=[entry.size for entry in kept],
        scales=[entry.scale for entry in kept],
        digest=content_digest(task, source.classes, common["names"], labels, digests, truth, masks),
        **common,
    )


def _labels(
    source: Split, kept: Sequence[int], objects: Sequence[Truth] | None
) -> np.ndarray | None:
    """The split's own labels, else those that follow from the objects: int8 (N, C)."""
    if source.labels is not None:
        return source.labels[kept]
    if objects is None:
        return None
    targets = np.zeros((len(objects), len(source.classes)), np.int8)
    for row, truth in zip(targets, objects, strict=True):
        labels, difficult = np.array(truth.labels, int), np.array(truth.difficult, bool)
        row[labels[difficult]] = -1
        row[labels[~difficult]] = 1  # last: one that is not difficult settles it
    return targets
