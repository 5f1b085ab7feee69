"""Barlow Twins: each output agrees with itself between two views, and with no other output.

Zbontar, Jing, Misra, LeCun, Deny, "Barlow Twins: Self-Supervised Learning via Redundancy
Reduction", ICML 2021, arXiv 2103.03230. ResNet-50 on ImageNet, 1,000 epochs at batch 2048: 73.2
top-1 by a linear probe.

    bench pretrain barlow-twins --recipe small --data folder:photos
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.training.collapse import watched
from ssl_bench.training.config import Recipe
from ssl_bench.training.heads import mlp, representation
from ssl_bench.training.optimizers import build_optimizer, check_optimizer
from ssl_bench.training.precision import full_precision
from ssl_bench.training.pretext import Pretext, Step
from ssl_bench.training.two_views import BYOL_VIEWS, SMALL, TwoViewsConfig, two_views

EPSILON = 1e-5  # added to variances, as by batch normalisation
SLOW = 0.0048 / 0.2  # the rate of biases and scales by that of the other weights (main.py)


class BarlowTwinsConfig(TwoViewsConfig):
    """The paper's, 1,000 epochs: LARS at 0.2 · batch / 256, weight decay 1.5 · 10⁻⁶, λ 0.0051."""

    recipes: ClassVar[Mapping[str, Recipe]] = {
        "small": Recipe(1, SMALL | {"projector": (2048, 2048), "slow_vectors": False})
    }
    steps: int = Field(default=625_600, ge=1, description="updates")
    batch_size: int = Field(default=2048, ge=2, description="images per update over all devices")
    lr: float = Field(
        default=0.2, gt=0, le=1e30, description="learning rate for 256 images an update"
    )
    weight_decay: float = Field(default=1.5e-6, ge=0, description="of the optimiser")
    slow_vectors: bool = Field(
        default=True, description="biases and scales learn at 0.024 times the rate"
    )
    projector: tuple[int, ...] = Field(
        default=(8192, 8192, 8192), min_length=1, description="widths of the head's layers"
    )
    off_diagonal: float = Field(default=0.0051, ge=0, description="weight of the redundancy: λ")


@full_precision
def barlow_loss(one: Tensor, two: Tensor, off_diagonal: float) -> Tensor:
    """Σᵢ (1 − Cᵢᵢ)² + λ Σᵢ Σⱼ≠ᵢ Cᵢⱼ² of two views' outputs (N, D), equation 1 of the paper."""
    correlation = _standardized(one).T @ _standardized(two) / len(one)  # (D, D)
    diagonal = correlation.diagonal()
    invariance = (1 - diagonal).square().sum()
    redundancy = correlation.square().sum() - diagonal.square().sum()
    return invariance + off_diagonal * redundancy


def _standardized(outputs: Tensor) -> Tensor:
    """Zero mean and unit variance of each output over the batch."""
    centred = outputs - outputs.mean(0)
    return centred * torch.rsqrt(centred.square().mean(0) + EPSILON)


class BarlowTwins(Pretext):
    """Encoder, a wide head, and the cross-correlation over the images of all devices."""

    Config = BarlowTwinsConfig
    version = 1

    def __init__(
        self, config: BarlowTwinsConfig, encoder: Encoder, normalization: Normalization
    ) -> None:
        super().__init__(config, encoder, normalization)
        check_optimizer(config.optimizer, encoder)
        self.layer, inputs = representation(encoder, config.image_size)
        self.projector = mlp(inputs, *config.projector, config=config, key="head", bias_out=False)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """LARS, or what the configuration names."""
        c = self.config
        slow = c.rate * SLOW if c.slow_vectors else None
        learning = self.encoder, self.projector
        self.optimizer = build_optimizer(c.optimizer, learning, c.rate, c.weight_decay, slow)
        return [self.optimizer]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """One pass a view: batch normalisation takes each view's own statistics."""
        views = two_views(self, images, step, BYOL_VIEWS)
        features = [self.encoder(view, [self.layer])[self.layer] for view in views]
        outputs = [self.projector(each) for each in features]
        loss = barlow_loss(*map(step.gather, outputs), self.config.off_diagonal)
        step.update(self.optimizer, loss)
        return {"loss": loss.detach(), **watched(outputs[0], features[0])}
