"""BYOL: predict what a momentum teacher makes of the other view; nothing is told apart.

Grill et al., "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning", NeurIPS 2020,
arXiv 2006.07733. ResNet-50 on ImageNet, 1,000 epochs at batch 4096: 74.3 top-1 by a linear probe.

    bench pretrain byol --recipe small --data folder:photos
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
from ssl_bench.training.teacher import cosine_course, follow, teacher_of
from ssl_bench.training.two_views import BYOL_VIEWS, SMALL, TwoViewsConfig, two_views

# Lightly's loss is a quarter of the paper's, which ours is: SGD on it at a quarter of the rate and
# with four times the decay does the same as theirs at 0.06 and 5e-4.
QUARTERED = {"lr": 0.015, "weight_decay": 2e-3}


class BYOLConfig(TwoViewsConfig):
    """The paper's, 1,000 epochs: LARS at 0.2 · batch / 256, decay 1.5 · 10⁻⁶, τ from 0.996."""

    recipes: ClassVar[Mapping[str, Recipe]] = {
        "small": Recipe(1, SMALL | QUARTERED | {"momentum": 0.99, "momentum_end": 0.99})
    }
    steps: int = Field(default=312_800, ge=1, description="updates")
    lr: float = Field(
        default=0.2, gt=0, le=1e30, description="learning rate for 256 images an update"
    )
    weight_decay: float = Field(default=1.5e-6, ge=0, description="of the optimiser")
    projector: tuple[int, ...] = Field(
        default=(4096, 256), min_length=1, description="widths of the head's layers"
    )
    predictor: int = Field(default=4096, ge=1, description="width of the predictor's hidden layer")
    momentum: float = Field(
        default=0.996, ge=0, le=1, description="of the teacher's weights in the first step: τ"
    )
    momentum_end: float = Field(
        default=1.0, ge=0, le=1, description="of the teacher's weights at the end, by half a cosine"
    )


@full_precision
def regression_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared distance of two (B, D) at unit length, equation 2 of the paper, averaged: 0 to 4."""
    return 2 - 2 * F.cosine_similarity(predicted, target).mean()


class BYOL(Pretext):
    """Student, projector and predictor; the teacher has no predictor and no gradient."""

    Config = BYOLConfig
    version = 1

    def __init__(self, config: BYOLConfig, encoder: Encoder, normalization: Normalization) -> None:
        super().__init__(config, encoder, normalization)
        check_optimizer(config.optimizer, encoder)
        self.layer, inputs = representation(encoder, config.image_size)
        width = config.projector[-1]
        self.projector = mlp(inputs, *config.projector, config=config, key="head")
        self.predictor = mlp(width, config.predictor, width, config=config, key="predictor")
        self.teacher = teacher_of(encoder, self.projector)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """LARS, or what the configuration names."""
        c = self.config
        learning = self.encoder, self.projector, self.predictor
        self.optimizer = build_optimizer(c.optimizer, learning, c.rate, c.weight_decay)
        return [self.optimizer]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """Each view predicts the other; then the teacher follows, ever more slowly."""
        views = two_views(self, images, step, BYOL_VIEWS)
        # One pass a view: batch normalisation takes each view's own statistics.
        features = [self.encoder(view, [self.layer])[self.layer] for view in views]
        outputs = [self.projector(each) for each in features]
        one, two = (self.predictor(each) for each in outputs)
        with torch.no_grad():
            target_one, target_two = map(self._target, views)
        loss = regression_loss(one, target_two) + regression_loss(two, target_one)
        step.update(self.optimizer, loss)
        momentum = cosine_course(self.config.momentum, self.config.momentum_end, step.done)
        follow(self.teacher, (self.encoder, self.projector), momentum)
        return {"loss": loss.detach(), **watched(outputs[0], features[0])}

    def _target(self, view: Tensor) -> Tensor:
        """What the teacher makes of a view, (B, D)."""
        encoder, projector = self.teacher
        return projector(encoder(view, [self.layer])[self.layer])
