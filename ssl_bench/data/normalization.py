"""What an encoder expects of its pixels; a store knows its own."""

from __future__ import annotations

from functools import lru_cache
from math import isclose
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Normalization(BaseModel):
    """What an encoder expects of its images: (pixel / 255 − mean) / std, per channel."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]

    def apply(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> float32, zero-centred: a hole of zeros has the mean colour."""
        import torch  # here: tables read an encoder's settings without it

        pixels = images.to(torch.float32, copy=True).div_(255)
        return pixels.sub_(self._like(self.mean, pixels)).div_(self._like(self.std, pixels))

    def standardize(self, pixels: Tensor) -> Tensor:
        """float (B, 3, H, W) in [0, 1], such as augmented views -> float32, zero-centred."""
        return (pixels - self._like(self.mean, pixels)) / self._like(self.std, pixels)

    def invert(self, images: Tensor) -> Tensor:
        """float (B, 3, H, W) -> float32 in [0, 1], clipped."""
        pixels = images.float() * self._like(self.std, images) + self._like(self.mean, images)
        return pixels.clamp(0, 1)

    def is_near(self, other: Normalization) -> bool:
        """Whether it is the other but for rounding: sums over images differ among machines."""
        pairs = zip((*self.mean, *self.std), (*other.mean, *other.std), strict=True)
        return all(isclose(one, two, rel_tol=1e-6) for one, two in pairs)

    @staticmethod
    def _like(values: tuple[float, ...], images: Tensor) -> Tensor:
        """(3, 1, 1), or (3, 1, W) for images whose channels lie last; on the images' device.

        There a row of W pixels is one run of memory with it, in place of W runs of three numbers:
        a third of the time.
        """
        import torch

        column = _column(values, images.device)
        if not images.is_contiguous(memory_format=torch.channels_last):
            return column.view(3, 1, 1)
        return column.repeat(images.shape[-1]).view(1, -1, 3).permute(2, 0, 1)


@lru_cache(maxsize=8)  # copied anew at every step, a GPU would be waited for each time
def _column(values: tuple[float, ...], device: torch.device) -> Tensor:
    import torch

    return torch.tensor(values, device=device)


HALF = Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # pixels in [−1, 1]
IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
