"""SimSiam: predict the other view's output, behind which no gradient flows; no teacher, no batch.

Chen, He, "Exploring Simple Siamese Representation Learning", CVPR 2021, arXiv 2011.10566. ResNet-50
on ImageNet, 100 epochs at batch 512: 68.1 top-1 by a linear probe.

    bench pretrain simsiam --recipe small --data folder:photos
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
from ssl_bench.training.optimizers import OptimizerName, build_optimizer, check_optimizer
from ssl_bench.training.precision import full_precision
from ssl_bench.training.pretext import Pretext, Step
from ssl_bench.training.two_views import SMALL, TwoViewsConfig, two_views
from ssl_bench.training.views import simclr_view

VIEW = partial(simclr_view, scale=(0.2, 1.0), strength=0.5)


class SimSiamConfig(TwoViewsConfig):
    """The paper's, 100 epochs: SGD at 0.05 for a batch of 256, weight decay 10⁻⁴, no warm-up."""

    recipes: ClassVar[Mapping[str, Recipe]] = {
        "small": Recipe(1, SMALL | {"projector": (2048, 2048), "constant_predictor": False})
    }
    steps: int = Field(default=250_200, ge=1, description="updates")
    batch_size: int = Field(default=512, ge=2, description="images per update over all devices")
    lr: float = Field(
        default=0.05, gt=0, le=1e30, description="learning rate for 256 images an update"
    )
    warmup: int = Field(default=0, ge=0, description="steps over which the rate rises from 0")
    optimizer: OptimizerName = Field(default="sgd", description="optimiser: sgd, lars or adamw")
    weight_decay: float = Field(default=1e-4, ge=0, description="of the optimiser")
    projector: tuple[int, ...] = Field(
        default=(2048, 2048, 2048), min_length=1, description="widths of the head's layers"
    )
    predictor: int = Field(default=512, ge=1, description="width of the predictor's hidden layer")
    constant_predictor: bool = Field(
        default=True, description="the predictor's learning rate does not decay"
    )


@full_precision
def negative_cosine(predicted: Tensor, target: Tensor) -> Tensor:
    """D(p, stopgrad(z)) of (B, D), equations 1 and 3 of the paper, averaged: −1 to 1."""
    return -F.cosine_similarity(predicted, target.detach()).mean()


class SimSiam(Pretext):
    """Encoder, a projector that ends in batch normalisation, and a predictor with a bottleneck."""

    Config = SimSiamConfig
    version = 1

    def __init__(
        self, config: SimSiamConfig, encoder: Encoder, normalization: Normalization
    ) -> None:
        super().__init__(config, encoder, normalization)
        check_optimizer(config.optimizer, encoder)
        self.layer, inputs = representation(encoder, config.image_size)
        width = config.projector[-1]
        self.projector = mlp(inputs, *config.projector, config=config, key="head", norm_out=True)
        self.predictor = mlp(width, config.predictor, width, config=config, key="predictor")

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD, or what the configuration names; the predictor is its last group."""
        c = self.config
        learning = self.encoder, self.projector
        self.optimizer = build_optimizer(c.optimizer, learning, c.rate, c.weight_decay)
        predicting = {"params": [*self.predictor.parameters()], "weight_decay": c.weight_decay}
        self.optimizer.add_param_group(predicting)
        return [self.optimizer]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """Each view predicts the other, in one pass a view."""
        views = two_views(self, images, step, (VIEW, VIEW))
        features = [self.encoder(view, [self.layer])[self.layer] for view in views]
        outputs = [self.projector(each) for each in features]
        one, two = (self.predictor(each) for each in outputs)
        loss = (negative_cosine(one, outputs[1]) + negative_cosine(two, outputs[0])) / 2
        if self.config.constant_predictor:  # against the schedule, which has set it before the step
            self.optimizer.param_groups[-1]["lr"] = self.config.rate
        step.update(self.optimizer, loss)
        return {"loss": loss.detach(), **watched(outputs[0], features[0])}
