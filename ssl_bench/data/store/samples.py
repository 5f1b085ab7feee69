"""One whole image with what its task takes: read and checked, then fitted to the stored size."""

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image
from pydantic import BaseModel

from ssl_bench.data.dataset import Objects, Split, Task
from ssl_bench.data.faults import collecting_faults, refuse
from ssl_bench.data.store.packing import StoredSample
from ssl_bench.errors import DataError


# ---- as its files have it
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
    # Each in a block of its own, so that a bad photo does not hide a bad annotation.
    with collecting_faults(faults):
        pixels, digest = source.whole(index)
    with collecting_faults(faults):
        objects = source.objects(index) if task == "detection" else None
    with collecting_faults(faults):
        mask = source.mask(index) if task == "segmentation" else None
    refuse(faults, source.names[index])
    assert pixels is not None
    if mask is not None and mask.shape != pixels.shape[:2]:
        raise DataError(f"{source.names[index]} has a mask of another size than its own")
    return Sample(pixels, digest, objects, mask)


# ---- as it is stored
class Truth(BaseModel):
    """The objects of one image in the pixels of its file; see Objects."""

    boxes: list[tuple[float, float, float, float]]
    labels: list[int]
    difficult: list[bool]

    @classmethod
    def of(cls, objects: Objects) -> "Truth":
        """The same as plain lists."""
        return cls(**{name: array.tolist() for name, array in vars(objects).items()})


@dataclass(frozen=True)
class ImageEntry:
    """What the index says of one image; `truth` and the digests are those of the original."""

    original: tuple[int, int]
    size: tuple[int, int]
    scale: float
    digest: str
    mask_digest: str | None
    truth: Truth | None


def fit(sample: Sample, short: int | None, longest: int) -> StoredSample[ImageEntry]:
    """The short side becomes `short` px (None: stays), unless the long one would exceed `longest`.

    Pixels are resized bilinearly, which in Pillow averages over all pixels that are left out, and
    masks by the nearest neighbour, which makes no new class.
    """
    height, width = sample.pixels.shape[:2]
    wanted = 1.0 if short is None else short / min(height, width)
    scale = min(wanted, longest / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    pixels = _resized(sample.pixels, size, Image.Resampling.BILINEAR)
    mask = None
    if sample.mask is not None:
        mask = _resized(sample.mask, size, Image.Resampling.NEAREST)
    truth = None if sample.objects is None else Truth.of(sample.objects)
    entry = ImageEntry((height, width), size, scale, sample.digest, sample.mask_digest, truth)
    # Every pixel counts the same in mean and deviation, so a large image counts for more.
    return StoredSample(pixels, entry, size[0] * size[1], mask)


def _resized(pixels: np.ndarray, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    if pixels.shape[:2] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), how))
