"""VICReg: views agree, outputs keep their variance, and no two outputs vary together.

Bardes, Ponce, LeCun, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised
Learning", ICLR 2022, arXiv 2105.04906. ResNet-50 on ImageNet, 1,000 epochs at batch 2048: 73.2
top-1 by a linear probe.

    bench pretrain vicreg --recipe small --data folder:photos
"""

from collections.abc import Mapping
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
from ssl_bench.training.two_views import BYOL_VIEWS, SMALL, TwoViewsConfig, two_views

EPSILON = 1e-4  # added to variances before the root, whose slope at 0 has no end
# It diverges by SGD at the others' rate (lightly's benchmark): LARS with its warm-up.
LARS = {"optimizer": "lars", "lr": 0.3, "weight_decay": 1e-4}
_SMALL = {name: value for name, value in SMALL.items() if name != "warmup"}


class VICRegConfig(TwoViewsConfig):
    """The paper's, 1,000 epochs: LARS at 0.2 · batch / 256, weight decay 10⁻⁶; 25, 25 and 1."""

    recipes: ClassVar[Mapping[str, Recipe]] = {
        "small": Recipe(1, _SMALL | LARS | {"projector": (2048, 2048)})
    }
    steps: int = Field(default=625_600, ge=1, description="updates")
    batch_size: int = Field(default=2048, ge=2, description="images per update over all devices")
    lr: float = Field(
        default=0.2, gt=0, le=1e30, description="learning rate for 256 images an update"
    )
    projector: tuple[int, ...] = Field(
        default=(8192, 8192, 8192), min_length=1, description="widths of the head's layers"
    )
    invariance: float = Field(default=25.0, ge=0, description="weight of the views' distance: λ")
    variance: float = Field(default=25.0, ge=0, description="weight of too little variance: μ")
    covariance: float = Field(default=1.0, ge=0, description="weight of the covariance: ν")


@full_precision
def vicreg_loss(
    one: Tensor, two: Tensor, invariance: float, variance: float, covariance: float
) -> Tensor:
    """Equation 6 of the paper with the factors of its algorithm 1, of two views' (N, D), N > 1.

    λ mean (z − z')² + μ ½ Σ_views mean_d max(0, 1 − √(Var + ε)) + ν Σ_views Σᵢ Σⱼ≠ᵢ Covᵢⱼ² / D
    """
    loss = invariance * F.mse_loss(one, two)
    for outputs in (one, two):
        centred = outputs - outputs.mean(0)
        covariances = centred.T @ centred / (len(outputs) - 1)  # (D, D)
        variances = covariances.diagonal()
        loss = loss + variance / 2 * F.relu(1 - (variances + EPSILON).sqrt()).mean()
        others = covariances.square().sum() - variances.square().sum()
        loss = loss + covariance * others / outputs.shape[1]
    return loss


class VICReg(Pretext):
    """Encoder, a wide head, and three terms over the images of all devices."""

    Config = VICRegConfig
    version = 1

    def __init__(
        self, config: VICRegConfig, encoder: Encoder, normalization: Normalization
    ) -> None:
        super().__init__(config, encoder, normalization)
        check_optimizer(config.optimizer, encoder)
        self.layer, inputs = representation(encoder, config.image_size)
        self.projector = mlp(inputs, *config.projector, config=config, key="head", bias_out=False)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """LARS, or what the configuration names."""
        c = self.config
        learning = self.encoder, self.projector
        self.optimizer = build_optimizer(c.optimizer, learning, c.rate, c.weight_decay)
        return [self.optimizer]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """One pass a view: batch normalisation takes each view's own statistics."""
        views = two_views(self, images, step, BYOL_VIEWS)
        features = [self.encoder(view, [self.layer])[self.layer] for view in views]
        outputs = [self.projector(each) for each in features]
        c = self.config
        everyone = map(step.gather, outputs)
        loss = vicreg_loss(*everyone, c.invariance, c.variance, c.covariance)
        step.update(self.optimizer, loss)
        return {"loss": loss.detach(), **watched(outputs[0], features[0])}
