"""Jigsaw: in which of 2,000 orders were the nine tiles of an image laid out?

Noroozi, Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", ECCV
2016, arXiv 1603.09246; settings of VISSL's jigsaw_8gpu_resnet. Linear on ImageNet: AlexNet 34.82,
ResNet-50 48.57 top-1 (VISSL's model zoo).

    bench pretrain jigsaw --norm batch --init fan-in --data folder:photos

Nine tiles of 64 px of a crop of 255 px, shuffled, pass the encoder one by one; C numbers of each
-> 1000, the nine behind each other -> one class an order. docs/jigsaw.md says what is ours.
"""

from collections.abc import Mapping
from functools import lru_cache
from itertools import permutations
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.counter import generator
from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.training.config import Recipe
from ssl_bench.training.optimizers import build_optimizer
from ssl_bench.training.pretext import Pretext, Step
from ssl_bench.training.schedule import SCHEDULES, Schedule
from ssl_bench.training.tiles import (
    SMALL_TILES,
    TILES,
    TilesConfig,
    cut_tiles,
    tile_representation,
)

# A tenth after epochs 30, 60, 90 and 100 of 105, of which the first five warm up.
SCHEDULES["jigsaw"] = lambda done: 0.1 ** sum(done >= at for at in (0.25, 0.55, 0.85, 0.95))


class JigsawConfig(TilesConfig):
    """VISSL's settings, which are for ImageNet."""

    recipes: ClassVar[Mapping[str, Recipe]] = {
        "small": Recipe(1, SMALL_TILES | {"permutations": 100})
    }
    steps: int = Field(default=525_479, ge=1, description="updates; 105 epochs of ImageNet")
    batch_size: int = Field(
        default=256, ge=1, description="images per update over all devices, nine tiles of each"
    )
    schedule: Schedule = Field(
        default="jigsaw",
        description="the learning rate's course: jigsaw, a tenth after 0.25, 0.55, 0.85 and 0.95 "
        "of the steps behind the warm-up; constant; cosine; step; halve; drop",
    )
    warmup: int = Field(
        default_factory=lambda given: given["steps"] // 21, ge=0,
        description="steps over which the rate rises from 0; unset: 5 of 105 epochs",
    )  # fmt: skip
    permutations: int = Field(
        default=2000, ge=2, le=10_000, description="orders to tell apart, far from one another"
    )
    hidden: int = Field(default=1000, ge=1, description="numbers of a tile that the head compares")


@lru_cache(maxsize=2)  # 2,000 of them take seconds
def distant_permutations(count: int, seed: int) -> Tensor:
    """int64 (count, 9): orders of nine tiles, each as far from those before it as can be.

    The paper's greedy choice (algorithm 1) among all 9!, by Hamming distance: of the largest least
    distance, of these the largest mean distance (the paper's only measure), of these the first in
    an order that the seed draws, as it draws the one that is begun with.
    """
    every = np.array(list(permutations(range(TILES))), np.uint8)
    every = every[torch.randperm(len(every), generator=generator(seed, "permutations")).numpy()]
    columns = np.ascontiguousarray(every.T)  # (9, 9!): a comparison runs along memory
    chosen = [0]
    least, total = np.full(len(every), TILES, np.uint8), np.zeros(len(every), np.int32)
    while len(chosen) < count:
        distance = np.zeros(len(every), np.uint8)
        for column, place in zip(columns, every[chosen[-1]], strict=True):
            distance += column != place
        np.minimum(least, distance, out=least)  # 0 for the chosen ones themselves
        total += distance
        furthest = np.flatnonzero(least == least.max())
        chosen.append(int(furthest[total[furthest].argmax()]))
    return torch.from_numpy(every[chosen]).long()


class Jigsaw(Pretext):
    """One order of the tiles for each image, told by a head on the encoder's last layer."""

    Config = JigsawConfig
    version = 1
    orders: Tensor

    def __init__(
        self, config: JigsawConfig, encoder: Encoder, normalization: Normalization
    ) -> None:
        super().__init__(config, encoder, normalization)
        self.register_buffer("orders", distant_permutations(config.permutations, config.seed))
        self.layer, inputs = tile_representation(encoder, config)
        hidden = config.hidden
        self.reducer = nn.Sequential(  # without a bias, which the normalisation would undo
            nn.Flatten(), nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()
        )
        self.classifier = nn.Linear(TILES * hidden, config.permutations)
        initialize(self.reducer, config.init, config.seed, "reducer")
        initialize(self.classifier, config.init, config.seed, "classifier")

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD with momentum."""
        c, learning = self.config, (self.encoder, self.reducer, self.classifier)
        self.sgd = build_optimizer("sgd", learning, c.rate, c.weight_decay)
        return [self.sgd]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """Cross-entropy over the orders, and how many are right, in percent."""
        tiles = cut_tiles(images, self.config, step.random)
        which = (step.random.uniform("order") * len(self.orders)).long()  # (B,)
        tiles = shuffled(tiles, self.orders[which])
        features = self.reducer(self.encoder(tiles, [self.layer])[self.layer])  # (9·B, hidden)
        guessed = self.classifier(features.view(len(images), -1))
        loss = F.cross_entropy(guessed, which)
        step.update(self.sgd, loss)
        right = 100 * (guessed.argmax(1) == which).float().mean()
        return {"loss": loss.detach(), "accuracy": right}


def shuffled(tiles: Tensor, orders: Tensor) -> Tensor:
    """(9·B, …) by orders int64 (B, 9): at place k of an image lies its tile `orders[:, k]`."""
    first = torch.arange(len(orders), device=orders.device)[:, None] * TILES
    return tiles[(first + orders).flatten()]
