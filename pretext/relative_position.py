"""Relative position: on which of eight sides of the central patch was the other one?

Doersch, Gupta, Efros, "Unsupervised Visual Representation Learning by Context Prediction", ICCV
2015, arXiv 1505.05192; settings of mmselfsup's relative_loc, which trains on all eight pairs of an
image at once. ResNet-50 on ImageNet there: VOC07 SVM 65.52 mAP, linear on feature 4 51.20 top-1.

    bench pretrain relative-position --norm batch --init fan-in --data folder:photos

Nine patches of a crop of 255 px go through the encoder; the central one beside each of the others,
2·C numbers -> 4096 -> 8 classes, row by row from above left. docs/relative-position.md says what
is ours.
"""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.training.heads import mlp
from ssl_bench.training.optimizers import build_optimizer
from ssl_bench.training.pretext import Pretext, Step
from ssl_bench.training.schedule import SCHEDULES, Schedule
from ssl_bench.training.tiles import (
    TILES,
    TilesConfig,
    cut_tiles,
    share_of_cell,
    tile_representation,
)

CENTRE = TILES // 2
SIDES = TILES - 1
# A tenth after epochs 30 and 50 of 70, of which the first five warm up.
SCHEDULES["relative-position"] = lambda done: 0.1 ** sum(done >= at / 65 for at in (25, 45))


class RelativePositionConfig(TilesConfig):
    """mmselfsup's settings, with the paper's distances: 14, 34 and 96 px of each 144."""

    steps: int = Field(default=175_159, ge=1, description="updates; 70 epochs of ImageNet")
    batch_size: int = Field(
        default=512, ge=1, description="images per update over all devices, eight pairs of each"
    )
    schedule: Schedule = Field(
        default="relative-position",
        description="the learning rate's course: relative-position, a tenth after 5/13 and 9/13 of "
        "the steps behind the warm-up; constant; cosine; step; halve; drop",
    )
    warmup: int = Field(
        default_factory=lambda given: given["steps"] // 14, ge=0,
        description="steps over which the rate rises from 0; unset: 5 of 70 epochs",
    )  # fmt: skip
    jitter: int = Field(
        default_factory=share_of_cell(14 / 144), ge=0,
        description="how far a patch may be moved within its cell, px; 14 of a cell of 144",
    )  # fmt: skip
    gap: int = Field(
        default_factory=share_of_cell(34 / 144), ge=1,
        description="least distance of two patches, px; 34 of a cell of 144",
    )  # fmt: skip
    hidden: int = Field(default=4096, ge=1, description="units of the head's hidden layer")


def pairs(features: Tensor) -> Tensor:
    """(9·B, C) -> (8·B, 2·C): each outer patch of an image, and its central one behind it."""
    patches = features.unflatten(0, (-1, TILES))  # (B, 9, C)
    outer = torch.cat([patches[:, :CENTRE], patches[:, CENTRE + 1 :]], 1)  # (B, 8, C)
    central = patches[:, CENTRE, None].expand_as(outer)
    return torch.cat([outer, central], 2).flatten(0, 1)


def side_labels(count: int, device: torch.device) -> Tensor:
    """int64 (8·count,): the sides of what `pairs` makes of `count` images, 0 to 7 of each."""
    return torch.arange(SIDES, device=device).repeat(count)


class RelativePosition(Pretext):
    """Eight pairs of patches of every image, told apart by a head on the encoder's last layer."""

    Config = RelativePositionConfig
    version = 1

    def __init__(
        self, config: RelativePositionConfig, encoder: Encoder, normalization: Normalization
    ) -> None:
        super().__init__(config, encoder, normalization)
        self.layer, inputs = tile_representation(encoder, config)
        self.head = mlp(2 * inputs, config.hidden, SIDES, config=config, key="head")

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD with momentum."""
        c = self.config
        self.sgd = build_optimizer("sgd", (self.encoder, self.head), c.rate, c.weight_decay)
        return [self.sgd]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """Cross-entropy over the eight sides, and how many are right, in percent.

        An image's nine patches pass once: the central one is the same in all of its pairs.
        """
        patches = cut_tiles(images, self.config, step.random)
        features = self.encoder(patches, [self.layer])[self.layer].flatten(1)  # (9·B, C)
        guessed, sides = self.head(pairs(features)), side_labels(len(images), images.device)
        loss = F.cross_entropy(guessed, sides)
        step.update(self.sgd, loss)
        right = 100 * (guessed.argmax(1) == sides).float().mean()
        return {"loss": loss.detach(), "accuracy": right}
