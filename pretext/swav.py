"""SwAV: tell from one view of an image which prototypes another view is assigned to.

Caron, Misra, Mairal, Goyal, Bojanowski, Joulin, "Unsupervised Learning of Visual Features by
Contrasting Cluster Assignments", NeurIPS 2020, arXiv 2006.09882; details of the released code,
facebookresearch/swav. Published by lightly for ResNet-18 on Imagenette: 90.2 by kNN after 800
epochs; docs/swav.md.

    bench pretrain swav --recipe small --data folder:photos

Assignments, the codes, use all prototypes alike over the batch, or else one would win all images.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.training.collapse import watched
from ssl_bench.training.config import Recipe
from ssl_bench.training.heads import mlp
from ssl_bench.training.multi_crop import (
    LARGE,
    MultiCropConfig,
    across_views,
    crops,
    representation,
    represented,
)
from ssl_bench.training.optimizers import build_optimizer, check_optimizer
from ssl_bench.training.precision import full_precision
from ssl_bench.training.pretext import Pretext, Step
from ssl_bench.training.queue import Queue
from ssl_bench.training.sinkhorn import sinkhorn
from ssl_bench.training.two_views import IMAGENET, SMALL
from ssl_bench.training.views import simclr_view

# Lightly's, whose Adam and AdamW differ in nothing at so small a decay.
ADAM: dict[str, Any] = {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 1e-6, "frozen": 0}


class SwAVConfig(MultiCropConfig):
    """The paper's, 800 epochs: LARS at 0.3 · batch / 256, weight decay 10⁻⁶; no queue at 4,096."""

    recipes: ClassVar[Mapping[str, Recipe]] = {"small": Recipe(1, SMALL | ADAM)}
    steps: int = Field(default=250_240, ge=1, description="updates")
    projector: tuple[int, ...] = Field(
        default=(2048, 128), min_length=1, description="widths of the head's layers"
    )
    prototypes: int = Field(default=3000, ge=2, description="how many")
    temperature: float = Field(default=0.1, gt=0, description="of the softmax over prototypes")
    # Below it, the least of exp(−2 / ε) has no place in 32 bit.
    epsilon: float = Field(default=0.05, ge=0.025, description="of Sinkhorn's iteration: softness")
    frozen: int = Field(
        default_factory=lambda given: min(
            IMAGENET // given["batch_size"], given["steps"] // 10
        ),
        ge=0, description="steps before prototypes learn; unset: an epoch of ImageNet, at most a "
        "tenth of the steps",
    )  # fmt: skip
    queue: int = Field(
        default=0, ge=0, description="images of earlier steps among which codes are made; 0: none"
    )
    queue_from: int = Field(
        default_factory=lambda given: min(
            15 * IMAGENET // given["batch_size"], given["steps"] // 10
        ),
        ge=0, description="the step from which the queue, once it is full, is used; unset: 15 "
        "epochs of ImageNet, at most a tenth of the steps",
    )  # fmt: skip

    @model_validator(mode="after")
    def _a_batch_fits(self) -> Self:
        if 0 < self.queue < self.batch_size:
            raise ValueError(f"--queue {self.queue} does not hold a batch of {self.batch_size}")
        return self


unit, linear = full_precision(F.normalize), full_precision(F.linear)


class Prototypes(nn.Linear):
    """(B, D) of unit length -> (B, K), their cosines with unit vectors; in 32 bit: ε is 0.05."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight)

    @torch.no_grad()
    def normalize(self) -> None:
        """Bring them to unit length, which an update has taken from them."""
        self.weight.copy_(F.normalize(self.weight))


class SwAV(Pretext):
    """Encoder, a head with batch normalisation, prototypes, and a queue for small batches."""

    Config = SwAVConfig
    version = 1
    queue: Any

    def __init__(self, config: SwAVConfig, encoder: Encoder, normalization: Normalization) -> None:
        super().__init__(config, encoder, normalization)
        check_optimizer(config.optimizer, encoder)
        self.layer, inputs = representation(encoder, config)
        width = config.projector[-1]
        self.projector = mlp(inputs, *config.projector, config=config, key="head")
        self.prototypes = Prototypes(width, config.prototypes, bias=False)
        initialize(self.prototypes, config.init, config.seed, "prototypes")
        queues = [Queue(config.queue, width, config.seed) for _ in range(LARGE)]
        self.queue = nn.ModuleList(queues if config.queue else [])
        self.full = -(-config.queue // config.batch_size)  # the step from which it is

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """LARS, or what the configuration names."""
        c = self.config
        learning = self.encoder, self.projector, self.prototypes
        self.optimizer = build_optimizer(c.optimizer, learning, c.rate, c.weight_decay)
        return [self.optimizer]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """Codes of both large views, told from all other views; prototypes stay frozen at first."""
        c = self.config
        self.prototypes.normalize()
        pixels = crops(self, images, step, (simclr_view, simclr_view), simclr_view)
        features = represented(self.encoder, self.layer, pixels)
        outputs = unit(self.projector(features))  # (V·B, D)
        scores = self.prototypes(outputs).unflatten(0, (-1, len(images)))  # (V, B, K)
        large = outputs.detach().unflatten(0, (-1, len(images)))[:LARGE]
        codes = torch.stack([self._codes(i, scores[i].detach(), step) for i in range(LARGE)])
        loss = across_views(codes, scores / c.temperature)
        frozen = self.prototypes.parameters() if step.index < c.frozen else ()
        step.update(self.optimizer, loss, frozen=frozen)
        for queue, keys in zip(self.queue, large, strict=False):
            queue.remember(step.gather(keys), step.index)
        both = LARGE * len(images)
        return {"loss": loss.detach(), **watched(outputs[:both], features[:both])}

    def _codes(self, view: int, scores: Tensor, step: Step) -> Tensor:
        """(B, K) of this device's images, made among those of all devices and of the queue."""
        everyone = step.gather(scores)
        if self.queue and step.index >= max(self.full, self.config.queue_from):
            earlier = linear(self.queue[view].keys, self.prototypes.weight.detach())
            everyone = torch.cat([everyone, earlier])
        return sinkhorn(everyone, self.config.epsilon)[step.random.positions]
