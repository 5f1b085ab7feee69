"""Resizing and blurring: a linear filter of rows and one of columns, other ones for each image.

A filter is the few pixels that each output takes and their weights. A pass over the rows is then a
sum of whole rows, which is what an embedding bag computes: on a CPU far less than a product with
the dense matrix of weights, and float32 under autocast, too.
"""

from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Taps(NamedTuple):
    """One axis of a filter: `weights` float32 (B, S, K) of the pixels `places` int64 (B, S, K)."""

    places: Tensor
    weights: Tensor


def filtered(images: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """(B, 3, H, W) of any type -> float32 (B, 3, S, T), S by the rows' taps, T by the columns'."""
    turned = images.transpose(2, 3).to(torch.float32, memory_format=torch.contiguous_format)
    return _rows(_rows(turned, columns).transpose(2, 3).contiguous(), rows)


def _rows(images: Tensor, taps: Taps) -> Tensor:
    """(B, 3, H, W), contiguous -> (B, 3, S, W)."""
    batch, channels, height, width = images.shape
    first = torch.arange(batch * channels, device=images.device) * height
    places = first.view(batch, channels, 1, 1) + taps.places[:, None]
    weights = taps.weights[:, None].expand_as(places)
    found = F.embedding_bag(
        places.flatten(0, 2),  # (B * 3 * S, K)
        images.flatten(0, 2),  # (B * 3 * H, W)
        per_sample_weights=weights.flatten(0, 2),
        mode="sum",
    )
    return found.view(batch, channels, taps.places.shape[1], width)


def triangle(start: Tensor, length: Tensor, source: int, size: int) -> Taps:
    """Windows of `length` px from `start`, float32 (B,), of `source` px, resized to `size`.

    Bilinear and, where it shrinks, as wide as a pixel of the output: antialias of Pillow's
    resample (Resample.c) and of torchvision's. What is beyond the window is not looked at.
    """
    scale = (length / size)[:, None, None]  # (B, 1, 1)
    reach = scale.clamp(min=1)
    steps = torch.arange(size, device=start.device) + 0.5
    centres = scale * steps[:, None]  # (B, size, 1), in px from the window's edge
    nearest = (centres - reach + 0.5).floor().clamp(min=0)
    most = ceil(2 * max(source / size, 1))  # pixels under the widest triangle there can be
    within = nearest + torch.arange(most, device=start.device)  # (B, size, K)
    weights = (1 - (within + 0.5 - centres).abs() / reach).clamp(min=0)
    weights = weights * (within < length[:, None, None])
    places = (within + start[:, None, None]).long().clamp(max=source - 1)
    return Taps(places, weights / weights.sum(2, keepdim=True))


def gaussian(sigma: Tensor, radius: int, size: int) -> Taps:
    """Gaussians of `sigma` px, float32 (B,), cut at `radius` px; the edges are mirrors.

    The last pixel is not repeated (padding "reflect"), as in torchvision's gaussian_blur.
    """
    reach = torch.arange(-radius, radius + 1, device=sigma.device)  # (K,)
    weights = torch.softmax(-0.5 * (reach / sigma[:, None]) ** 2, 1)  # (B, K)
    places = torch.arange(size, device=sigma.device)[:, None] + reach  # (size, K)
    places = (size - 1) - ((size - 1) - places.abs()).abs()
    shape = len(sigma), size, len(reach)
    return Taps(places.expand(shape), weights[:, None].expand(shape))
