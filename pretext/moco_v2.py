"""MoCo v2: a view finds its image's other view, by a momentum teacher, before a queue of others.

He, Fan, Wu, Xie, Girshick, "Momentum Contrast for Unsupervised Visual Representation Learning",
CVPR 2020, arXiv 1911.05722; Chen, Fan, Girshick, He, "Improved Baselines with Momentum Contrastive
Learning", arXiv 2003.04297. ResNet-50 on ImageNet, 200 epochs at batch 256: 67.5 top-1 by a linear
probe.

    bench pretrain moco-v2 --recipe small --data folder:photos
"""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.training.collapse import watched
from ssl_bench.training.config import Recipe
from ssl_bench.training.heads import mlp, representation
from ssl_bench.training.optimizers import OptimizerName, build_optimizer, check_optimizer
from ssl_bench.training.precision import full_precision
from ssl_bench.training.pretext import Pretext, Step
from ssl_bench.training.queue import Queue
from ssl_bench.training.teacher import follow, teacher_of
from ssl_bench.training.two_views import SMALL, TwoViewsConfig, two_views
from ssl_bench.training.views import simclr_view

VIEW = partial(simclr_view, scale=(0.2, 1.0), strength=0.5)


class MoCoV2Config(TwoViewsConfig):
    """The paper's, 200 epochs: SGD at 0.03 for a batch of 256, weight decay 10⁻⁴, no warm-up."""

    recipes: ClassVar[Mapping[str, Recipe]] = {
        "small": Recipe(1, SMALL | {"queue": 4096, "temperature": 0.1, "momentum": 0.99})
    }
    steps: int = Field(default=1_000_000, ge=1, description="updates")
    batch_size: int = Field(default=256, ge=2, description="images per update over all devices")
    lr: float = Field(
        default=0.03, gt=0, le=1e30, description="learning rate for 256 images an update"
    )
    warmup: int = Field(default=0, ge=0, description="steps over which the rate rises from 0")
    optimizer: OptimizerName = Field(default="sgd", description="optimiser: sgd, lars or adamw")
    weight_decay: float = Field(default=1e-4, ge=0, description="of the optimiser")
    projector: tuple[int, ...] = Field(
        default=(2048, 128), min_length=1, description="widths of the head's layers"
    )
    queue: int = Field(default=65_536, ge=2, description="images of earlier steps to tell apart")
    momentum: float = Field(default=0.999, ge=0, lt=1, description="of the teacher's weights")
    temperature: float = Field(default=0.2, gt=0, description="of the softmax over the queue")

    @model_validator(mode="after")
    def _a_batch_fits(self) -> Self:
        if self.queue < self.batch_size:
            raise ValueError(f"--queue {self.queue} does not hold a batch of {self.batch_size}")
        return self


@full_precision
def info_nce(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Equation 1 of MoCo, averaged: queries and their keys (B, D), others' (K, D), unit length."""
    same = (queries * keys).sum(1, keepdim=True)  # (B, 1)
    likeness = torch.cat([same, queries @ queue.T], 1) / temperature  # (B, 1 + K)
    return F.cross_entropy(likeness, likeness.new_zeros(len(queries), dtype=torch.int64))


class MoCoV2(Pretext):
    """The student's view is to be nearer to the teacher's of the same image than to the queue."""

    Config = MoCoV2Config
    version = 1

    def __init__(
        self, config: MoCoV2Config, encoder: Encoder, normalization: Normalization
    ) -> None:
        super().__init__(config, encoder, normalization)
        check_optimizer(config.optimizer, encoder)
        self.layer, inputs = representation(encoder, config.image_size)
        # No batch normalisation in the head, as in the released code.
        self.projector = mlp(inputs, *config.projector, config=config, key="head", norm=False)
        self.teacher = teacher_of(encoder, self.projector)
        self.queue = Queue(config.queue, config.projector[-1], config.seed)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD, or what the configuration names."""
        c = self.config
        learning = self.encoder, self.projector
        self.optimizer = build_optimizer(c.optimizer, learning, c.rate, c.weight_decay)
        return [self.optimizer]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """InfoNCE; then the teacher follows, and this step's keys take the oldest ones' places."""
        one, two = two_views(self, images, step, (VIEW, VIEW))
        with torch.no_grad():
            keys = self._embedded(self._represented(two, self.teacher[0]), self.teacher[1])
        features = self._represented(one, self.encoder)
        queries = self._embedded(features, self.projector)
        # Batch normalisation sees the batch of all devices, so nothing leaks through a device's own
        # statistics and keys need not be shuffled.
        loss = info_nce(queries, keys, self.queue.keys, self.config.temperature)
        step.update(self.optimizer, loss)
        follow(self.teacher, (self.encoder, self.projector), self.config.momentum)
        self.queue.remember(step.gather(keys), step.index)
        return {"loss": loss.detach(), **watched(queries, features)}

    def _represented(self, pixels: Tensor, encoder: nn.Module) -> Tensor:
        return encoder(pixels, [self.layer])[self.layer]

    def _embedded(self, features: Tensor, projector: nn.Module) -> Tensor:
        """(B, …) -> (B, D) of unit length."""
        return F.normalize(projector(features))
