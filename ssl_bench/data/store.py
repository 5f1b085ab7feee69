"""The decoded image store: every image once, as square uint8 pixels in one memory-mapped file.

A training step then costs a gather instead of JPEG decoding. A store is a folder in the cache
(`$SSL_BENCH_CACHE`, else `~/.cache/ssl-bench`) that appears whole or not at all:

    images.bin   (N, R, R, 3) uint8, in the order of the index
    index.json   names, labels, digests, skipped images, per-channel mean and deviation
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor
from torch.utils.data import DataLoader

from ssl_bench.data.dataset import (
    Dataset,
    Split,
    SplitName,
    one_label_each,
    targets_of,
)
from ssl_bench.encoders import Normalization
from ssl_bench.errors import DataError
from ssl_bench.progress import progress

LAYOUT = 1  # raised when the files' layout or the decoding changes


class Index(BaseModel):
    """What stands beside the pixels. `digest` covers names, labels, classes and contents."""

    size: int
    classes: tuple[str, ...]
    names: list[str]
    labels: list[int] | list[list[int]] | None
    digests: list[str]
    skipped: list[str]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    digest: str


@dataclass(frozen=True)
class ImageStore:
    """Decoded images of one split: `pixels` is uint8 (N, R, R, 3), memory-mapped."""

    folder: Path
    index: Index

    def __len__(self) -> int:
        return len(self.index.names)

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

    @property
    def annotations(self) -> np.ndarray:
        """int64 (N,), or int8 (N, C) where images have several labels. DataError without any."""
        if self.index.labels is None:
            raise DataError("these images have no labels: an evaluation needs train/<class>/…")
        several = bool(self.index.labels) and isinstance(self.index.labels[0], list)
        return np.array(self.index.labels, dtype=np.int8 if several else np.int64)

    @property
    def labels(self) -> np.ndarray:
        """int64 (N,). Raises DataError where the images have none, or several each."""
        return one_label_each(self.annotations)

    @property
    def targets(self) -> np.ndarray:
        """int8 (N, C): 1 for a class that is there, 0 for one that is not, −1 not to be judged."""
        return targets_of(self.annotations, len(self.index.classes))

    @property
    def normalization(self) -> Normalization:
        """Mean and standard deviation of these very pixels, per channel, in [0, 1]."""
        return Normalization(mean=self.index.mean, std=self.index.std)

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "index": self.index}  # a worker maps the file itself


def stored_size(image_size: int) -> int:
    """Side of the stored square from which crops are taken: 256 for 227, as in Caffe."""
    return round(image_size * 256 / 227)


def cache_folder() -> Path:
    """Where decoded images are kept."""
    return Path(os.environ.get("SSL_BENCH_CACHE", Path.home() / ".cache" / "ssl-bench"))


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
    parts = (LAYOUT, source.fingerprint, size, image_size, skip_bad_images)
    name = hashlib.sha256(repr(parts).encode()).hexdigest()[:20]
    folder = cache_folder() / f"{dataset.name.partition(':')[0]}-{split}-{size}px-{name}"
    if not (folder / "index.json").exists():
        try:
            _fill(
                folder,
                source,
                f"{dataset.name} {split}",
                size,
                image_size,
                workers,
                skip_bad_images,
            )
        except OSError as error:
            raise DataError(
                f"cannot write decoded images to {folder}: {error.strerror}; make room, or let "
                "SSL_BENCH_CACHE name another folder"
            ) from error
    try:
        index = Index.model_validate_json((folder / "index.json").read_text())
        whole = (folder / "images.bin").stat().st_size == len(index.names) * index.size**2 * 3
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}/index.json is damaged: remove that folder") from error
    if not whole:
        raise DataError(f"{folder}/images.bin is damaged: remove that folder")
    return ImageStore(folder, index)


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


def _decode(
    source: Split, size: int, smallest: int, workers: int
) -> Iterator[tuple[np.ndarray, str] | DataError]:
    loading = _Loading(source, size, smallest)
    batches = DataLoader(loading, batch_size=32, num_workers=workers, collate_fn=list)  # type: ignore[arg-type]
    for batch in batches:
        yield from batch


def _fill(
    folder: Path,
    source: Split,
    title: str,
    size: int,
    smallest: int,
    workers: int,
    skip_bad_images: bool,
) -> None:
    """Decode once however many processes ask: the others wait, then find the store."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f".{folder.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "index.json").exists():
            decoded = _decode(source, size, smallest, workers)
            shown = progress(decoded, f"decoding {title}", len(source.names))
            _write(folder, source, size, shown, skip_bad_images)


def _write(
    folder: Path,
    source: Split,
    size: int,
    decoded: Iterator[tuple[np.ndarray, str] | DataError],
    skip_bad_images: bool,
) -> None:
    """Write a store beside its final place, then rename: it is there whole or not at all."""
    scratch = folder.with_name(f".{folder.name}.decoding")
    shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
    scratch.mkdir()
    try:
        kept, digests, errors = [], [], []
        total, squares = np.zeros(3), np.zeros(3)
        with open(scratch / "images.bin", "wb") as file:
            for i, image in enumerate(decoded):
                if isinstance(image, DataError):
                    errors.append(str(image))
                    continue
                pixels, digest = image
                file.write(pixels.tobytes())
                kept.append(i)
                digests.append(digest)
                channels = pixels.reshape(-1, 3) / 255.0
                total += channels.mean(0)
                squares += (channels**2).mean(0)
        _refuse(errors, skip_bad_images, bool(kept))
        mean = total / len(kept)
        std = np.sqrt(np.maximum(squares / len(kept) - mean**2, 1e-6))
        index = _index(source, size, kept, digests, errors, mean, std)
        (scratch / "index.json").write_text(index.model_dump_json())
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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
    mean: np.ndarray,
    std: np.ndarray,
) -> Index:
    names = [source.names[i] for i in kept]
    labels = None if source.labels is None else source.labels[kept].tolist()
    manifest = json.dumps([source.classes, names, labels, digests])
    return Index(
        size=size,
        classes=source.classes,
        names=names,
        labels=labels,
        digests=digests,
        skipped=errors,
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        digest=hashlib.sha256(manifest.encode()).hexdigest(),
    )
