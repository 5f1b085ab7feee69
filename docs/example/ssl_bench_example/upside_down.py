"""Upside down: tell whether an image stands on its head, the shortest pretext that trains.

bench pretrain upside-down --data folder:photos

Two of rotation's four turns, one of them drawn for each image (pretext/rotation.py has them all).
"""

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.training.augment import random_crop_flip
from ssl_bench.training.pretext import Pretext, PretextConfig, Step


class UpsideDown(Pretext):
    """Turned or not: one linear classifier on the encoder's last layer."""

    Config = PretextConfig  # steps, batch size, rate, encoder: this method adds none
    version = 1

    def __init__(
        self, config: PretextConfig, encoder: Encoder, normalization: Normalization
    ) -> None:
        super().__init__(config, encoder, normalization)
        numbers = prod(encoder.shape(encoder.layers[-1], config.image_size))
        self.head = nn.Linear(numbers, 1)
        initialize(self.head, config.init, config.seed, "head")

    def _top(self, images: Tensor) -> Tensor:
        """Normalised (B, 3, S, S) -> (B, D), the last layer as a vector."""
        last = self.encoder.layers[-1]
        return self.encoder(images, [last])[last].flatten(1)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam."""
        self.adam = torch.optim.Adam(self.parameters(), lr=self.config.lr)
        return [self.adam]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """Binary cross-entropy of the turn, which is drawn for each image."""
        crops = random_crop_flip(images, self.config.image_size, step.random)
        turned = step.random.uniform("turn") < 0.5  # (B,)
        seen = torch.where(turned[:, None, None, None], crops.flip(2, 3), crops)
        guessed = self.head(self._top(self.normalization.apply(seen)))[:, 0]  # (B,)
        loss = F.binary_cross_entropy_with_logits(guessed, turned.float())
        step.update(self.adam, loss)
        return {"loss": loss.detach()}
