"""Rotation: predict by which quarter turn an image was rotated (Gidaris et al., ICLR 2018).

bench pretrain rotation --data folder:photos
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


class Rotation(Pretext):
    """Four quarter turns, one linear classifier on the encoder's last layer."""

    Config = PretextConfig  # steps, batch size, rate, encoder: this method adds none
    version = 1

    def __init__(
        self, config: PretextConfig, encoder: Encoder, normalization: Normalization
    ) -> None:
        super().__init__(config, encoder, normalization)
        numbers = prod(encoder.shape(encoder.layers[-1], config.image_size))
        self.head = nn.Linear(numbers, 4)
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
        """Cross-entropy of the turn, which is drawn for each image."""
        crops = random_crop_flip(images, self.config.image_size, step.random)
        turns = (step.random.uniform("turn") * 4).long()  # (B,), 0 to 3
        pairs = zip(crops, turns.tolist(), strict=True)
        turned = torch.stack([torch.rot90(crop, turn, (1, 2)) for crop, turn in pairs])
        guessed = self.head(self._top(self.normalization.apply(turned)))  # (B, 4)
        loss = F.cross_entropy(guessed, turns)
        step.update(self.adam, loss)
        return {"loss": loss.detach()}
