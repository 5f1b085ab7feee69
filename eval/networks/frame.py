"""Whole images with their masks, in a frame that is the same for all of them.

Images of several sizes make a batch only with padding. Here each lies in the upper left corner of
a frame of zeros (after normalising) and void, whose size the sets give, not the batch: so what is
computed of an image does not depend on its neighbours.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssl_bench.counter import Randomness
from ssl_bench.data.dataset import VOID
from ssl_bench.data.normalization import Normalization
from ssl_bench.data.store.whole import WholeStore


@dataclass(frozen=True)
class Framed:
    """A store whose images and masks lie in one frame."""

    store: WholeStore
    size: tuple[int, int]  # height and width of the frame

    def __len__(self) -> int:
        return len(self.store)

    def images(self, which: slice | np.ndarray) -> Tensor:
        """uint8 (B, 3, H, W), 0 outside the image."""
        return self._framed(self.store.images(which), 0)

    def masks(self, which: slice | np.ndarray) -> Tensor:
        """uint8 (B, H, W), VOID outside the image."""
        return self._framed(self.store.masks(which), VOID)

    def batch(self, which: slice | np.ndarray) -> dict[str, Tensor]:
        """`images` and `masks`."""
        return {"images": self.images(which), "masks": self.masks(which)}

    def _framed(self, rows: Tensor, fill: int) -> Tensor:
        framed = rows.new_full((*rows.shape[:-2], *self.size), fill)
        framed[..., : rows.shape[-2], : rows.shape[-1]] = rows
        return framed


def frames(*stores: WholeStore) -> list[Framed]:
    """The stores in the smallest frame that holds all their images."""
    height, width = np.max([store.sizes.max(0) for store in stores], 0).tolist()
    return [Framed(store, (height, width)) for store in stores]


def mirror(framed: Tensor, sizes: Tensor, random: Randomness) -> Tensor:
    """Mirror every second image on average, within its own width; masks as their images.

    (B, C, H, W), sizes int64 (B, 2) -> (B, C, H, W).
    """
    column = torch.arange(framed.shape[-1], device=framed.device)
    last = sizes[:, 1:] - 1  # (B, 1)
    turned = (random.uniform("mirror", 1) < 0.5) & (column <= last)  # (B, W)
    # Flipping the frame would move the image to the frame's other side.
    source = torch.where(turned, last - column, column)
    return framed.gather(3, source[:, None, None].expand_as(framed))


def normalized(pixels: Tensor, sizes: Tensor, normalization: Normalization) -> Tensor:
    """uint8 (B, 3, H, W) -> float32, zero outside each image, like the network's own padding."""
    rows, columns = (torch.arange(n, device=pixels.device) for n in pixels.shape[-2:])
    inside = (rows < sizes[:, :1])[:, :, None] & (columns < sizes[:, 1:])[:, None]  # (B, H, W)
    # Black pixels are not zero once normalised; the network's own padding is.
    return normalization.apply(pixels) * inside[:, None]
