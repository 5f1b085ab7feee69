"""SimCLR: each view finds the other one of its image among all views of the batch.

Chen, Kornblith, Norouzi, Hinton, "A Simple Framework for Contrastive Learning of Visual
Representations", ICML 2020, arXiv 2002.05709. ResNet-50 on ImageNet, 1,000 epochs at batch 4096:
69.3 top-1 by a linear probe.

    bench pretrain simclr --recipe small --data folder:photos
"""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.training.collapse import watched
from ssl_bench.training.config import Recipe
from ssl_bench.training.heads import mlp, representation
from ssl_bench.training.optimizers import build_optimizer, check_optimizer
from ssl_bench.training.precision import full_precision
from ssl_bench.training.pretext import Pretext, Step
from ssl_bench.training.two_views import SMALL, TwoViewsConfig, two_views
from ssl_bench.training.views import simclr_view


class SimCLRConfig(TwoViewsConfig):
    """The paper's, 1,000 epochs: LARS at 0.3 · batch / 256, weight decay 10⁻⁶, temperature 0.1."""

    recipes: ClassVar[Mapping[str, Recipe]] = {
        "small": Recipe(1, SMALL | {"projector": (512, 128), "temperature": 0.5, "strength": 0.5})
    }
    steps: int = Field(default=312_800, ge=1, description="updates")
    projector: tuple[int, ...] = Field(
        default=(2048, 128), min_length=1, description="widths of the head's layers"
    )
    temperature: float = Field(default=0.1, gt=0, description="of the softmax over the batch")
    strength: float = Field(default=1.0, ge=0, le=1, description="of the changes of colour: s")


@full_precision
def nt_xent(own: Tensor, everyone: Tensor, positions: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy, equation 1 of the paper, averaged.

    `everyone` (2N, D): outputs of unit length, the first views of all N images, then the second.
    `own` (2B, D) are those of this device, whose images are at `positions`, int64 (B,), of the N.
    """
    second = positions + len(everyone) // 2
    likeness = own @ everyone.T / temperature  # (2B, 2N)
    itself = F.one_hot(torch.cat([positions, second]), len(everyone)).bool()
    other = torch.cat([second, positions])
    return F.cross_entropy(likeness.masked_fill(itself, float("-inf")), other)


class SimCLR(Pretext):
    """Encoder, a head with batch normalisation, and NT-Xent over the images of all devices."""

    Config = SimCLRConfig
    version = 1

    def __init__(
        self, config: SimCLRConfig, encoder: Encoder, normalization: Normalization
    ) -> None:
        super().__init__(config, encoder, normalization)
        check_optimizer(config.optimizer, encoder)
        self.layer, inputs = representation(encoder, config.image_size)
        self.projector = mlp(inputs, *config.projector, config=config, key="head", norm_out=True)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """LARS, or what the configuration names."""
        c = self.config
        learning = self.encoder, self.projector
        self.optimizer = build_optimizer(c.optimizer, learning, c.rate, c.weight_decay)
        return [self.optimizer]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """Both views in one pass, so that batch normalisation takes its statistics over both."""
        view = partial(simclr_view, strength=self.config.strength)
        pixels = torch.cat(two_views(self, images, step, (view, view)))  # (2B, 3, S, S)
        features = self.encoder(pixels, [self.layer])[self.layer]
        own = F.normalize(self.projector(features))  # (2B, D)
        # Both halves apart: all devices' first views come before all second ones.
        everyone = torch.cat([step.gather(half) for half in own.chunk(2)])  # (2N, D)
        loss = nt_xent(own, everyone, step.random.positions, self.config.temperature)
        step.update(self.optimizer, loss)
        return {"loss": loss.detach(), **watched(own, features)}
