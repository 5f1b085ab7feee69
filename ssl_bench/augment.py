"""Crops and flips: batched, on the device, reproducible per image.

Both are one gather from the stored squares, so a batch is read once whatever is done to it.
"""

import torch
from torch import Tensor

from ssl_bench.counter import Randomness


def random_crop_flip(images: Tensor, size: int, random: Randomness) -> Tensor:
    """A random size×size window of each image, mirrored for every second one on average.

    uint8 (B, 3, R, R), R >= size -> uint8 (B, 3, size, size), channels last in memory.
    """
    u = random.uniform("crop", 3)  # (B, 3): top, left, mirror
    room = images.shape[-1] - size + 1
    start = (u[:, :2] * room).long()  # (B, 2)
    span = torch.arange(size, device=images.device)
    rows = start[:, 0, None] + span  # (B, size)
    columns = start[:, 1, None] + torch.where(u[:, 2:] < 0.5, span.flip(0), span)
    return _gather(images, rows, columns)


def center_crop(images: Tensor, size: int) -> Tensor:
    """The central size×size window: (B, 3, R, R) -> (B, 3, size, size)."""
    start = (images.shape[-1] - size) // 2
    return images[..., start : start + size, start : start + size]


def _gather(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, 3, R, R) at rows (B, S) and columns (B, S) -> (B, 3, S, S)."""
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    pixels = images.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
    return pixels.permute(0, 3, 1, 2)  # (B, S, S, 3) -> (B, 3, S, S)
