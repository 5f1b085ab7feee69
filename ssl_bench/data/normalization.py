"""What an encoder expects of its pixels; a store knows its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Normalization(BaseModel):
    """What an encoder expects of its images: (pixel / 255 − mean) / std, per channel."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]

    def apply(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> float32, zero-centred: a hole of zeros has the mean colour."""
        return self.standardize(images.float() / 255)

    def standardize(self, pixels: Tensor) -> Tensor:
        """float (B, 3, H, W) in [0, 1], such as augmented views -> float32, zero-centred."""
        return (pixels - self._column(self.mean, pixels)) / self._column(self.std, pixels)

    def invert(self, images: Tensor) -> Tensor:
        """float (B, 3, H, W) -> float32 in [0, 1], clipped."""
        pixels = images.float() * self._column(self.std, images) + self._column(self.mean, images)
        return pixels.clamp(0, 1)

    # On the images' device, so that it broadcasts over (B, 3, H, W) wherever they are.
    @staticmethod
    def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
        import torch  # here: tables read an encoder's settings without it

        return torch.tensor(values, device=like.device).view(3, 1, 1)


HALF = Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # pixels in [−1, 1]
IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
