"""Features of several layers of many images in one pass of a frozen encoder."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.augment import center_crop
from ssl_bench.data.store import ImageStore
from ssl_bench.encoders import weights_digest
from ssl_bench.errors import DataError
from ssl_bench.progress import progress
from ssl_bench.task import Subject

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


@torch.no_grad()
def extract(
    subject: Subject, store: ImageStore, dimensions: int, title: str = "features"
) -> dict[str, np.ndarray]:
    """float32 (N, D) per layer, in the store's order, from central crops.

    Frozen in fact: eval mode, no gradient, and the weights' digest is compared before and after.
    Raises DataError if a layer gives values that are not finite.
    """
    encoder = subject.encoder.eval()
    before = weights_digest(encoder.state_dict())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    found: dict[str, np.ndarray] = {}
    starts = range(0, len(store), BATCH)
    for start in progress(starts, title, len(starts)):
        pixels = store.images(slice(start, start + BATCH)).to(device)
        images = center_crop(pixels, subject.spec.image_size)
        maps = encoder(subject.spec.normalization.apply(images), subject.layers)
        for layer, tensor in maps.items():
            rows = pool(tensor, dimensions).float().cpu().numpy()
            if not np.isfinite(rows).all():
                raise DataError(f"layer {layer} gives values that are not finite")
            if layer not in found:
                found[layer] = np.empty((len(store), rows.shape[1]), dtype=np.float32)
            found[layer][start : start + len(rows)] = rows
    _check_frozen(encoder.cpu(), before)
    return found


def _check_frozen(encoder: nn.Module, before: str) -> None:
    if weights_digest(encoder.state_dict()) != before:
        raise DataError("the encoder's weights changed during a frozen evaluation")
