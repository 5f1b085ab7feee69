"""Features of several layers of many images in one pass of a frozen encoder.

The pass streams the images once, whatever the number of layers and of protocols that ask. Rows
within the memory budget stay in memory; above it they go to unnamed files on disk, which the
probes read block by block, so memory stays flat as the data grow.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.data.dataset import one_label_each, targets_of
from ssl_bench.data.store.squares import ImageStore
from ssl_bench.encoders.build import EncoderSpec
from ssl_bench.encoders.encoder import Encoder, check_maps, evaluating
from ssl_bench.encoders.weights import weights_digest
from ssl_bench.errors import DataError, Degenerate
from ssl_bench.evaluation.rows import Rows
from ssl_bench.progress import progress
from ssl_bench.runtime import best_device
from ssl_bench.training.augment import center_crop

BATCH = 64


def pooled_side(channels: int, side: int, dimensions: int) -> int:
    """Side of the largest grid with at most `dimensions` values, not beyond the map's own.

    With 9,600 this is 10, 6, 5, 5, 6 for AlexNet's conv1 … conv5 (Zhang et al., arXiv 1603.08511).
    """
    return max(1, min(side, int((dimensions / channels) ** 0.5)))


def pool(maps: Tensor, dimensions: int) -> Tensor:
    """Shrink maps by adaptive average pooling and flatten: (B, C, h, w) -> (B, C·g²)."""
    grid = pooled_side(maps.shape[1], maps.shape[-1], dimensions)
    return F.adaptive_avg_pool2d(maps, grid).flatten(1)


@dataclass(frozen=True)
class Features:
    """One layer's features of a split, with what is known of its images.

    `annotations` is int64 (N,), a class each, or int8 (N, C) for several labels an image: 1 for a
    class that is there, 0 for one that is not, −1 for one that is not to be judged.
    """

    rows: Rows
    annotations: np.ndarray
    classes: tuple[str, ...]

    @classmethod
    def of(cls, rows: Rows, store: ImageStore) -> "Features":
        """Rows of a store's images, in its order."""
        return cls(rows, store.annotations, store.index.classes)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> np.ndarray:
        """int64 (N,). Raises DataError where an image may have several labels."""
        return one_label_each(self.annotations)

    @property
    def targets(self) -> np.ndarray:
        """int8 (N, C) of 1, 0 and −1, for any kind of labels."""
        return targets_of(self.annotations, len(self.classes))


Wanted = Mapping[str, Iterable[int]]  # layer -> the numbers of dimensions that are asked for


class Pictures(Protocol):
    """What a pass takes of a store."""

    def __len__(self) -> int: ...

    def images(self, which: slice, /) -> Tensor:
        """uint8 (B, 3, R, R)."""
        ...


@torch.no_grad()
def extract(
    encoder: Encoder,
    spec: EncoderSpec,
    store: Pictures,
    wanted: Wanted,
    title: str = "features",
    *,
    on_disk: bool = False,
) -> dict[tuple[str, int], Rows]:
    """Rows (N, D) by (layer, dimensions), in the store's order, from central crops.

    An empty `title` shows no progress.

    Frozen in fact: eval mode, no gradient, and the weights' digest is compared before and after.
    Raises DataError if a layer gives values that are not finite, UsageError if it gives no maps.
    """
    before = weights_digest(encoder.state_dict())
    device = best_device()
    encoder.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    found: dict[tuple[str, int], Rows] = {}
    starts = range(0, len(store), BATCH)
    for start in progress(starts, title, len(starts)) if title else starts:
        pixels = store.images(slice(start, start + BATCH)).to(device)
        images = spec.normalization.apply(center_crop(pixels, spec.image_size))
        for layer, maps in _maps(encoder, spec, images, wanted).items():
            for dimensions in wanted[layer]:
                block = pool(maps, dimensions).float()
                if not bool(torch.isfinite(block).all()):
                    raise Degenerate(f"layer {layer} gives values that are not finite")
                if start == 0:
                    found[layer, dimensions] = Rows(len(store), block.shape[1], on_disk=on_disk)
                found[layer, dimensions].write(start, block)
    _check_frozen(encoder.cpu(), before)
    return found


def _maps(encoder: Encoder, spec: EncoderSpec, images: Tensor, wanted: Wanted) -> dict[str, Tensor]:
    """Checked anew, whoever wrote the encoder: `pool` would take channels for places in silence."""
    maps = encoder(images, list(wanted))
    check_maps(maps, images.shape, spec.arch)
    return maps


def feature_bytes(encoder: Encoder, spec: EncoderSpec, images: int, wanted: Wanted) -> int:
    """Bytes of all rows that a pass over `images` images would make."""
    blank = torch.zeros(1, 3, spec.image_size, spec.image_size)
    with evaluating(encoder), torch.no_grad():
        maps = _maps(encoder, spec, blank, wanted)
    numbers = sum(pool(maps[layer], d).shape[1] for layer in maps for d in wanted[layer])
    return 4 * images * numbers


def _check_frozen(encoder: nn.Module, before: str) -> None:
    if weights_digest(encoder.state_dict()) != before:
        raise DataError("the encoder's weights changed during a frozen evaluation")
