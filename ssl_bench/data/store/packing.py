"""Writes the files of a store of whole images (whole.py): resizes, packs, notes what is where."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import BaseModel

from ssl_bench.data.dataset import Objects, Split, Task
from ssl_bench.data.faults import SKIP, refuse
from ssl_bench.data.store.cache import Moments, StoredIndex, moments
from ssl_bench.data.store.samples import Faulty, Sample


class Truth(BaseModel):
    """The objects of one image in the pixels of its file; see Objects."""

    boxes: list[tuple[float, float, float, float]]
    labels: list[int]
    difficult: list[bool]


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


def file_sizes(index: WholeIndex) -> dict[str, int]:
    """The files that stand beside the index, and their sizes in bytes."""
    pixels = sum(height * width for height, width in index.sizes)
    return {"images.bin": 3 * pixels} | ({} if index.masks is None else {"masks.bin": pixels})


# ---- one image
@dataclass(frozen=True)
class Entry:
    """What the index says of one image; `truth` and the digests are those of the original."""

    original: tuple[int, int]
    size: tuple[int, int]
    scale: float
    digest: str
    mask_digest: str | None
    truth: Truth | None


@dataclass(frozen=True, eq=False)
class Fitted:
    """A sample at the size to be stored."""

    pixels: np.ndarray  # (h, w, 3) uint8
    mask: np.ndarray | None  # (h, w) uint8
    moments: tuple[np.ndarray, np.ndarray]
    entry: Entry


def fit(sample: Sample, short: int | None, longest: int) -> Fitted:
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
    truth = None if sample.objects is None else _truth(sample.objects)
    entry = Entry((height, width), size, scale, sample.digest, sample.mask_digest, truth)
    return Fitted(pixels, mask, moments(pixels), entry)


def _resized(pixels: np.ndarray, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    if pixels.shape[:2] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), how))


def _truth(objects: Objects) -> Truth:
    return Truth(
        boxes=objects.boxes.tolist(),
        labels=objects.labels.tolist(),
        difficult=objects.difficult.tolist(),
    )


# ---- all images
def write(
    folder: Path,
    source: Split,
    task: Task,
    images: Iterator[Fitted | Faulty],
    title: str,
    skip_bad_images: bool,
) -> None:
    """Write the store's files into `folder`; raises DataError with all faults of the images."""
    entries: dict[int, Entry] = {}
    faulty: list[Faulty] = []
    seen = Moments()
    with open(folder / "images.bin", "wb") as pixels, open(folder / "masks.bin", "wb") as masks:
        for i, image in enumerate(images):
            if isinstance(image, Faulty):
                faulty.append(image)
                continue
            entries[i] = image.entry
            pixels.write(image.pixels.tobytes())
            seen.add(image.moments, image.pixels.size // 3)
            if image.mask is not None:
                masks.write(image.mask.tobytes())
    if not (skip_bad_images and entries):
        advice = "" if skip_bad_images else f"{SKIP} to leave these images out"
        refuse([line for image in faulty for line in image.lines], title, advice)
    if task != "segmentation":
        (folder / "masks.bin").unlink()
    index = _index(source, task, entries, faulty, seen)
    (folder / "index.json").write_text(index.model_dump_json())


def _index(
    source: Split,
    task: Task,
    entries: dict[int, Entry],
    faulty: Sequence[Faulty],
    seen: Moments,
) -> WholeIndex:
    names = [source.names[i] for i in entries]
    kept = list(entries.values())
    digests = [entry.digest for entry in kept]
    objects = [entry.truth for entry in kept if entry.truth is not None]
    masks = [entry.mask_digest for entry in kept if entry.mask_digest is not None]
    labels = _labels(source, list(entries), objects if task == "detection" else None)
    truth = [one.model_dump() for one in objects]
    manifest = json.dumps([task, source.classes, names, labels, digests, truth, masks])
    mean, std = seen.mean_and_std()
    return WholeIndex(
        task=task,
        classes=source.classes,
        names=names,
        labels=labels,
        digests=digests,
        masks=masks if task == "segmentation" else None,
        objects=objects if task == "detection" else None,
        originals=[entry.original for entry in kept],
        sizes=[entry.size for entry in kept],
        scales=[entry.scale for entry in kept],
        skipped=["; ".join(image.lines) for image in faulty],
        mean=mean,
        std=std,
        digest=hashlib.sha256(manifest.encode()).hexdigest(),
    )


def _labels(
    source: Split, kept: Sequence[int], objects: Sequence[Truth] | None
) -> list[int] | list[list[int]] | None:
    """The split's own labels, else those that follow from the objects: int8 (N, C)."""
    if source.labels is not None:
        return source.labels[list(kept)].tolist()
    if objects is None:
        return None
    targets = np.zeros((len(objects), len(source.classes)), np.int8)
    for row, truth in zip(targets, objects, strict=True):
        labels, difficult = np.array(truth.labels, int), np.array(truth.difficult, bool)
        row[labels[difficult]] = -1
        row[labels[~difficult]] = 1
    return targets.tolist()
