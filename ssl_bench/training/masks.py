"""The three masks of Pathak et al. 2016, section 3.3: a fresh one per image and step.

A mask is float (B, 1, S, S), 1 where the image is dropped. No mask drops more than a quarter.

central       a square in the centre, half the side
random-block  several smaller squares that may overlap
random-region arbitrary shapes, unrelated to the image; used for all feature experiments

The paper cuts its regions out of VOC 2012 segmentations. Where none are at hand the authors'
released code thresholds upsampled noise, and so does this file: a coarse random grid, turned,
shifted and upsampled bicubically, cut at the level that drops the wanted share.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_bench.counter import Randomness
from ssl_bench.training.config import MaskKind

LARGEST = 0.25  # share of the image
BLOCKS = 10  # squares tried for random-block
CELLS = 8  # coarse cells across the image for random-region: 16 px at 128, as released


def draw_masks(kind: MaskKind, size: int, random: Randomness) -> Tensor:
    """One mask per image of the batch: float (B, 1, size, size), 1 where dropped."""
    if kind == "central":
        return central(len(random.positions), size, random.positions.device)
    return random_block(size, random) if kind == "random-block" else random_region(size, random)


def central(count: int, size: int, device: torch.device | str = "cpu") -> Tensor:
    """(count, 1, size, size): the central square of side size // 2."""
    return square(count, size, size // 2, device)


def square(count: int, size: int, side: int, device: torch.device | str = "cpu") -> Tensor:
    """(count, 1, size, size): a central square of this side."""
    mask = torch.zeros(count, 1, size, size, device=device)
    start = (size - side) // 2
    mask[..., start : start + side, start : start + side] = 1
    return mask


def grown(masks: Tensor, by: int) -> Tensor:
    """Masks (B, 1, S, S) and a band of `by` px around them, square at corners."""
    return F.max_pool2d(masks, 2 * by + 1, 1, by)


def shrunk(masks: Tensor, by: int) -> Tensor:
    """Masks (B, 1, S, S) without their outermost `by` px."""
    return 1 - grown(1 - masks, by)


def random_block(size: int, random: Randomness) -> Tensor:
    """Squares of a tenth to a third of the side, laid while the quarter is not exceeded."""
    u = random.uniform("block", BLOCKS, 3)  # (B, BLOCKS, 3): side, top, left
    side = ((0.1 + u[..., 0] * 0.23) * size).long().clamp(min=1)
    start = (u[..., 1:] * (size - side + 1)[..., None]).long()
    span = torch.arange(size, device=u.device)
    inside = (span >= start[..., None]) & (span < (start + side[..., None])[..., None])
    squares = inside[:, :, 0, :, None] & inside[:, :, 1, None, :]  # (B, BLOCKS, S, S)
    mask = torch.zeros_like(squares[:, 0])
    for k in range(BLOCKS):
        larger = mask | squares[:, k]
        fits = larger.float().mean((1, 2)) <= LARGEST
        mask = torch.where(fits[:, None, None], larger, mask)
    return mask[:, None].float()


def random_region(size: int, random: Randomness) -> Tensor:
    """Blobs that drop between a fifth and a quarter of each image."""
    grid = 2 * CELLS  # room to turn and shift the window
    noise = random.uniform("region", grid, grid)[:, None]  # (B, 1, grid, grid)
    u = random.uniform("window", 4)
    angle, share = u[:, 0] * 2 * torch.pi, 0.2 + u[:, 3] * (LARGEST - 0.2)
    half = CELLS / grid  # the window's extent in the noise, whose own is [-1, 1]
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    shift = (u[:, 1:3] - 0.5) * 2 * (1 - half * 2**0.5)
    theta = torch.cat([turn * half, shift[:, :, None]], 2)  # (B, 2, 3)
    where = (_plane(size, u.device) @ theta.mT).view(-1, size, size, 2)
    plane = F.grid_sample(
        noise, where, mode="bicubic", padding_mode="reflection", align_corners=False
    )
    flat = plane.flatten(1)  # (B, S²)
    rank = (share * flat.shape[1]).long()  # so many lowest values are dropped
    return (flat < order_statistic(flat, rank)).float().view(-1, 1, size, size)


@lru_cache(maxsize=2)  # what affine_grid makes anew for every image takes half of its time
def _plane(size: int, device: torch.device) -> Tensor:
    """float32 (size², 3): x, y of each pixel's centre in [−1, 1], and 1."""
    places = F.affine_grid(torch.eye(2, 3, device=device)[None], [1, 1, size, size], False)
    return F.pad(places.view(-1, 2), (0, 1), value=1)


def order_statistic(rows: Tensor, rank: Tensor) -> Tensor:
    """The value at place `rank`, int64 (B,) from 0, of each row (B, N) put in order: (B, 1)."""
    if rows.device.type != "cpu":
        return rows.sort(1).values.gather(1, rank[:, None])
    # One place of each row is wanted: a selection takes a fortieth of the sort, and torch's
    # kthvalue, which wants the same place of all rows, a fifth.
    values = [np.partition(row, k)[k] for row, k in zip(rows.numpy(), rank.tolist(), strict=True)]
    return torch.from_numpy(np.array(values))[:, None]
