"""Crops and flips: batched, on the device, reproducible per image.

Crops of stored squares are one gather, so a batch is read once whatever is done to it; crops of
whole images are sampled between the pixels. What self-supervised methods do beyond it is in
`views.py`.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_bench.counter import Randomness


def random_crop_flip(images: Tensor, size: int, random: Randomness) -> Tensor:
    """A random size×size window of each image, mirrored for every second one on average.

    uint8 (B, 3, R, R), R >= size -> uint8 (B, 3, size, size), channels last in memory.
    """
    u = random.uniform("crop", 3)  # (B, 3): top, left, mirror
    start = (u[:, :2] * (images.shape[-1] - size + 1)).long()  # (B, 2)
    mirror = u[:, 2] < 0.5
    if images.device.type == "cpu":
        return _copied(images, start, mirror, size)
    span = torch.arange(size, device=images.device)
    rows = start[:, 0, None] + span  # (B, size)
    columns = start[:, 1, None] + torch.where(mirror[:, None], span.flip(0), span)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    pixels = images.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
    return pixels.permute(0, 3, 1, 2)  # (B, S, S, 3) -> (B, 3, S, S)


def center_crop(images: Tensor, size: int) -> Tensor:
    """The central size×size window: (B, 3, R, R) -> (B, 3, size, size)."""
    start = (images.shape[-1] - size) // 2
    return images[..., start : start + size, start : start + size]


def _copied(images: Tensor, start: Tensor, mirror: Tensor, size: int) -> Tensor:
    """Window by window, as they lie in a store, channels last: far faster than one gather."""
    crops = np.empty((len(images), size, size, 3), np.uint8)
    for crop, image, (top, left), turned in zip(
        crops, images.permute(0, 2, 3, 1).numpy(), start.tolist(), mirror.tolist(), strict=True
    ):
        window = image[top : top + size, left : left + size]
        crop[:] = window[:, ::-1] if turned else window
    return torch.from_numpy(crops).permute(0, 3, 1, 2)


def random_scale_crop(
    images: Tensor,
    sizes: Tensor,
    size: int,
    random: Randomness,
    scales: tuple[float, float] = (0.5, 2.0),
) -> Tensor:
    """A square window of random scale and place in each image, resized to size×size.

    Every second one is mirrored on average. Images are (B, 3, H, W) with values up to 255, of which
    the first rows and columns, as many as `sizes` int64 (B, 2) says, are the image and the rest is
    padding; returns float32 (B, 3, size, size), values up to 255.

    A window of scale s has sides of s·size px. The scale is uniform between `scales`, but no window
    is larger than its image: both ends are lowered where the short side is too short for them. So
    it is in the TransformationLayer of Krähenbühl's Caffe (philkr/caffe, branch future), of which
    the bilinear sampling without a filter is kept too. It is unlike there in that pixel centres,
    not corners, are matched, which moves a picture by half a pixel at most.
    """
    u = random.uniform("scale-crop", 4)  # (B, 4): scale, top, left, mirror
    room = sizes.float()  # (B, 2)
    largest = (room.amin(1, keepdim=True) / size).clamp(max=scales[1])  # (B, 1)
    smallest = largest.clamp(max=scales[0])
    scale = smallest + u[:, :1] * (largest - smallest)
    start = u[:, 1:3] * (room - scale * size).clamp(min=0)  # (B, 2)
    centres = scale * (torch.arange(size, device=images.device) + 0.5)  # (B, size)
    rows = start[:, :1] + centres
    columns = start[:, 1:] + torch.where(u[:, 3:] < 0.5, centres.flip(1), centres)
    return _sample(images, rows, columns, room)


def _sample(images: Tensor, rows: Tensor, columns: Tensor, room: Tensor) -> Tensor:
    """(B, 3, H, W) at rows (B, S) and columns (B, S), in px from the edge -> (B, 3, S, S).

    Bilinear; what lies beyond the centres of an image's outermost pixels takes their values, for
    images of `room` (B, 2) px.
    """
    last = room - 0.5
    rows = torch.minimum(rows, last[:, :1]).clamp(min=0.5) * (2 / images.shape[2]) - 1
    columns = torch.minimum(columns, last[:, 1:]).clamp(min=0.5) * (2 / images.shape[3]) - 1
    shape = len(images), rows.shape[1], columns.shape[1]
    places = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], -1)
    return F.grid_sample(images.float(), places, padding_mode="border", align_corners=False)
