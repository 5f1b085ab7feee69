"""Several sets as one, to pretrain on: their stores one after another, and no pixel copied.

    sets = catalogue.datasets(["folder:photos", "voc07"])
    store = open_joined(sets, 227)
    store.images(which), store.normalization, store.index.digest

Each set is decoded in its own store, which whatever else takes the set shares. Of each only the
training images are opened, and nothing that is said of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from ssl_bench.data.dataset import Dataset
from ssl_bench.data.normalization import Normalization
from ssl_bench.data.store.cache import StoredIndex
from ssl_bench.data.store.packing import content_digest
from ssl_bench.data.store.squares import ImageStore, open_store
from ssl_bench.data.string_array import StringArray
from ssl_bench.errors import UsageError
from ssl_bench.progress import say_once
from ssl_bench.runtime import is_main_process


@dataclass(frozen=True)
class ConcatStore:
    """The squares of several stores, all of one size, in their order; without labels."""

    parts: tuple[ImageStore, ...]
    index: StoredIndex

    def __len__(self) -> int:
        return len(self.index.names)

    @property
    def normalization(self) -> Normalization:
        """Mean and standard deviation of all these pixels, per channel, in [0, 1]."""
        return Normalization(mean=self.index.mean, std=self.index.std)

    @cached_property
    def _starts(self) -> np.ndarray:
        """int64 (P + 1,): images before each part, and all."""
        return np.cumsum([0, *map(len, self.parts)])

    def images(self, which: slice | np.ndarray) -> Tensor:
        """uint8 (B, 3, R, R), a copy, channels last in memory."""
        rows, size = np.arange(len(self))[which], self.parts[0].index.size
        found = np.empty((len(rows), size, size, 3), np.uint8)
        for part, (first, end) in zip(self.parts, pairwise(self._starts), strict=True):
            own = np.flatnonzero((first <= rows) & (rows < end))
            if not len(own):
                continue
            places = rows[own] - first
            if isinstance(which, slice) and which.step in (None, 1):
                # Through a map whose pages are given back: see ImageStore.images.
                images = part.images(slice(int(places[0]), int(places[-1]) + 1))
            else:
                images = part.images(places)
            # By NumPy, whole rows at once: torch's assignment by places takes longer.
            found[own] = images.permute(0, 2, 3, 1).numpy()
        return torch.from_numpy(found).permute(0, 3, 1, 2)

    def batch(self, which: slice | np.ndarray) -> dict[str, Tensor]:
        """See Stored.batch."""
        return {"images": self.images(which)}


Squares: TypeAlias = ImageStore | ConcatStore  # what pretexts see: one set, or several as one


def open_joined(
    sets: Sequence[Dataset], image_size: int, *, skip_bad_images: bool = False, workers: int = 2
) -> Squares:
    """The training images of one set or of several, without what is said of them.

    Of one set it is its own store. Raises what `open_store` raises, and UsageError for sets that
    are the same images.
    """
    stores = [
        open_store(
            one, "train", image_size,
            skip_bad_images=skip_bad_images, workers=workers, labelled=False,
        )
        for one in sets
    ]  # fmt: skip
    return stores[0] if len(stores) == 1 else concatenated(stores, [one.name for one in sets])


def concatenated(stores: Sequence[ImageStore], names: Sequence[str]) -> ConcatStore:
    """Stores of one size as one; `names` are those of their sets. UsageError for equal ones.

    An image that several parts hold is counted in the notes and said; it stays in each.
    """
    indices = [store.index for store in stores]
    notes = [f"{name}: {note}" for name, i in zip(names, indices, strict=True) for note in i.notes]
    known: dict[str, str] = {}  # content of an image -> the first set that holds it
    for name, index in zip(names, indices, strict=True):
        if [i.digest for i in indices].count(index.digest) > 1:
            raise UsageError(f"{name} is given twice, or under two names: give each set once")
        shared = [known[digest] for digest in index.digests if digest in known]
        if shared:
            holders = " and ".join(dict.fromkeys(shared))
            notes.append(
                f"{len(shared):,} of {len(index.digests):,} images of {name} are also in "
                f"{holders}: they are seen as often as sets hold them"
            )
            if is_main_process():
                say_once(notes[-1])
        known |= {digest: name for digest in index.digests if digest not in known}
    mean, std = joined_moments(
        [index.mean for index in indices], [index.std for index in indices], [*map(len, stores)]
    )
    joined = StoredIndex(
        classes=(),
        names=StringArray.of(name for index in indices for name in index.names),
        labels=None,
        digests=StringArray.of(digest for index in indices for digest in index.digests),
        skipped=[line for index in indices for line in index.skipped],
        notes=notes,
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        digest=joined_digest(index.digest for index in indices),
    )
    return ConcatStore(tuple(stores), joined)


def joined_moments(
    means: Sequence[Sequence[float]], stds: Sequence[Sequence[float]], counts: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation per channel of all pixels, from those of parts with as many images.

    m = Σ nᵢ mᵢ / Σ nᵢ and s² = Σ nᵢ (sᵢ² + mᵢ²) / Σ nᵢ − m²: squares have equally many pixels.
    """
    means_, stds_ = np.array(means), np.array(stds)  # (P, 3)
    mean = np.average(means_, axis=0, weights=counts)
    # Around the new mean, not around 0: no small difference of large numbers.
    variance = np.average(stds_**2 + (means_ - mean) ** 2, axis=0, weights=counts)
    return mean, np.sqrt(variance)


def joined_digest(digests: Iterable[str]) -> str:
    """Of several sets in their order, by their digests. It is in keys: never change it."""
    return content_digest("several sets", *digests)
