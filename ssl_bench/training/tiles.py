"""What relative position and jigsaw share: nine tiles of an image, and how they are cut.

A square crop is divided into 3×3 cells, and in each a tile is cut at a random place. Against
shortcuts a tile keeps its distance from the others, is grey for most images, and has its own mean
and deviation taken away, so that neither a line that goes on, nor the colours at a lens's rim, nor
the light of a place tells where it was.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ssl_bench.counter import Randomness
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.libraries import refusal
from ssl_bench.encoders.spec import ImageSize, least_size
from ssl_bench.errors import plain
from ssl_bench.training.augment import random_crop_flip
from ssl_bench.training.colour import luma
from ssl_bench.training.config import PretextConfig, Recipe
from ssl_bench.training.heads import representation
from ssl_bench.training.two_views import SMALL
from ssl_bench.training.views import crop, drawn

CELLS = 3  # a side
TILES = CELLS**2  # of an image, row by row
FLATTEST = 1 / 255  # the least deviation a tile is divided by: noise of one grey level stays small
# Recipe small of both: that of the methods of two views, at 96 px, so that a cell is 32 px.
SMALL_TILES = {name: value for name, value in SMALL.items() if name != "optimizer"} | {
    "image_size": 96, "schedule": "cosine",
}  # fmt: skip


def share_of_cell(share: float) -> Callable[[Mapping[str, Any]], int]:
    """A default in px that follows --image-size: a share of a cell's side."""
    return lambda given: round(share * (given["image_size"] // CELLS))


class TilesConfig(PretextConfig):
    """Where tiles are cut, and SGD; a rate for 256 images, which the batch's size scales."""

    recipes: ClassVar[Mapping[str, Recipe]] = {"small": Recipe(1, SMALL_TILES)}
    image_size: ImageSize = Field(
        default=255, description="side of the crop that is cut into tiles, and of images later, px"
    )
    lr: float = Field(
        default=0.1, gt=0, le=1e30,
        description="learning rate for 256 images an update: times --batch-size / 256",
    )  # fmt: skip
    weight_decay: float = Field(default=1e-4, ge=0, description="of SGD, on all weights")
    jitter: int = Field(
        default_factory=share_of_cell(21 / 85), ge=0,
        description="how far a tile may be moved within its cell, px; 21 of a cell of 85",
    )  # fmt: skip
    gap: int = Field(default=0, ge=0, description="least distance of two tiles, px")
    tile: int = Field(
        default_factory=lambda given: max(_cut(given), least_size(given["arch"])), ge=1,
        description="side that a tile is resized to, px; unset: as it is cut, or the least that "
        "the network takes",
    )  # fmt: skip
    grey: float = Field(default=0.66, ge=0, le=1, description="share of images that are made grey")

    @property
    def rate(self) -> float:
        """The learning rate of this batch size."""
        return self.lr * self.batch_size / 256

    @property
    def cell(self) -> int:
        """Side of a cell, px."""
        return self.image_size // CELLS

    @property
    def cut(self) -> int:
        """Side of a tile in the crop, px."""
        return _cut(dict(self))

    @model_validator(mode="after")
    def _a_tile_is_left(self) -> Self:
        if self.cut < 1:
            raise ValueError(
                f"--jitter {self.jitter} and --gap {self.gap} leave no tile in a cell of "
                f"{self.cell} px"
            )
        if self.tile < (least := least_size(self.arch)):
            raise ValueError(
                f"--tile {self.tile}: {plain(self.arch)} takes images of at least {least} px"
            )
        return self


def _cut(given: Mapping[str, Any]) -> int:
    return given["image_size"] // CELLS - given["jitter"] - given["gap"]


def tile_windows(config: TilesConfig, random: Randomness) -> Tensor:
    """int64 (B, 9, 4): top, left, height and width of each tile in its cell, px.

    Half of the gap is kept free at each edge of a cell, so that tiles of two cells, and two tiles
    at a corner as well, are at least `config.gap` apart.
    """
    drawn_places = random.uniform("tile", TILES, 2) * (config.jitter + 1)
    start = config.gap // 2 + drawn_places.long()
    return torch.cat([start, torch.full_like(start, config.cut)], 2)


def cut_tiles(images: Tensor, config: TilesConfig, random: Randomness) -> Tensor:
    """uint8 (B, 3, R, R) -> float32 (9·B, 3, T, T), an image's nine behind each other.

    Each has mean 0 and deviation 1 in each channel, and three equal channels where the image was
    made grey. The image is mirrored for every second one, before it is cut.
    """
    cell, batch = config.cell, len(images)
    crops = random_crop_flip(images, CELLS * cell, random)
    cells = crops.reshape(batch, 3, CELLS, cell, CELLS, cell)
    cells = cells.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)  # (9·B, 3, cell, cell)
    tiles = crop(cells, tile_windows(config, random).flatten(0, 1), config.tile)
    made_grey = drawn(random, "grey", config.grey).repeat_interleave(TILES)
    tiles = torch.where(made_grey[:, None, None, None], luma(tiles), tiles)
    deviation, mean = torch.std_mean(tiles, (2, 3), correction=0, keepdim=True)
    return (tiles - mean) / deviation.clamp(min=FLATTEST)


def tile_representation(encoder: Encoder, config: TilesConfig) -> tuple[str, int]:
    """The last layer's name, and how many numbers it gives for a tile.

    UsageError for a network that takes no images of a tile's size, as most ViTs.
    """
    with refusal(config.arch, config.tile, config.image_size, option="--tile"):
        return representation(encoder, config.tile)
