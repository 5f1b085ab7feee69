"""DINO: a momentum teacher's distribution over outputs, told from other views of the image.

Caron, Touvron, Misra, Jégou, Mairal, Bojanowski, Joulin, "Emerging Properties in Self-Supervised
Vision Transformers", ICCV 2021, arXiv 2104.14294; details of the released code,
facebookresearch/dino. Published by lightly for ResNet-18 on Imagenette: 88.8 by kNN after 800
epochs; docs/dino.md.

    bench pretrain dino --recipe small --data folder:photos

The teacher's outputs are centred, so that none wins always, and sharpened, so that they are not all
alike: either alone collapses. The teacher's encoder is what is kept.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import Field
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
from ssl_bench.training.optimizers import OptimizerName, build_optimizer, check_optimizer
from ssl_bench.training.precision import full_precision
from ssl_bench.training.pretext import Pretext, Step
from ssl_bench.training.teacher import cosine_course, follow, teacher_of
from ssl_bench.training.two_views import BYOL_VIEWS, IMAGENET, SMALL
from ssl_bench.training.views import byol_view

SMALL_VIEW = partial(byol_view, blurring=0.5)
RESNET: dict[str, Any] = {
    "weight_decay_end": 5e-4, "outputs": 2048, "head_norm": True, "teacher_temperature_end": 0.04,
    "momentum": 0.99, "momentum_end": 0.99, "frozen": 0, "clip": None,
}  # fmt: skip


class DINOConfig(MultiCropConfig):
    """The paper's ViT-S/16, 800 epochs: AdamW at 5 · 10⁻⁴ · batch / 256, decay 0.04 to 0.4."""

    recipes: ClassVar[Mapping[str, Recipe]] = {"small": Recipe(1, SMALL | RESNET)}
    arch: str = Field(
        default="timm:vit_small_patch16_224",
        description="encoder: alexnet, dcgan, timm:NAME or torchvision:NAME",
    )
    steps: int = Field(default=1_000_800, ge=1, description="updates")
    batch_size: int = Field(default=1024, ge=2, description="images per update over all devices")
    lr: float = Field(
        default=5e-4, gt=0, le=1e30, description="learning rate for 256 images an update"
    )
    optimizer: OptimizerName = Field(default="adamw", description="optimiser: sgd, lars or adamw")
    weight_decay: float = Field(default=0.04, ge=0, description="of the optimiser, at first")
    weight_decay_end: float = Field(default=0.4, ge=0, description="at the end, by half a cosine")
    clip: float | None = Field(
        default=3.0, gt=0, description="the longest gradient of all weights together"
    )
    crop_split: float = Field(
        default=0.4, gt=0.05, lt=1,
        description="share of the image's area that a large view shows at least, a small at most",
    )  # fmt: skip
    projector: tuple[int, ...] = Field(
        default=(2048, 2048, 256), min_length=1, description="widths of the head's layers"
    )
    head_norm: bool = Field(default=False, description="batch normalisation in the head")
    outputs: int = Field(default=65_536, ge=2, description="what distributions are over: K")
    temperature: float = Field(default=0.1, gt=0, description="of the student's softmax")
    teacher_temperature: float = Field(
        default=0.04, gt=0, description="of the teacher's softmax in the first step"
    )
    teacher_temperature_end: float = Field(
        default=0.07, gt=0, description="of the teacher's softmax behind its warm-up"
    )
    teacher_warmup: int = Field(
        default_factory=lambda given: min(
            30 * IMAGENET // given["batch_size"], 3 * given["steps"] // 10
        ),
        ge=0, description="steps over which the teacher's temperature rises in a line; unset: 30 "
        "epochs of ImageNet, at most three tenths of the steps",
    )  # fmt: skip
    centre_momentum: float = Field(default=0.9, ge=0, lt=1, description="of the teacher's centre")
    momentum: float = Field(
        default=0.996, ge=0, le=1, description="of the teacher's weights in the first step"
    )
    momentum_end: float = Field(
        default=1.0, ge=0, le=1, description="of the teacher's weights at the end, by half a cosine"
    )
    frozen: int = Field(
        default_factory=lambda given: min(
            IMAGENET // given["batch_size"], given["steps"] // 10
        ),
        ge=0, description="steps before the head's last layer learns; unset: an epoch of ImageNet, "
        "at most a tenth of the steps",
    )  # fmt: skip


class DINOHead(nn.Module):
    """Linear layers with GELUs between them, then cosines with K learnt vectors.

    These are weight normalisation (Salimans and Kingma) with lengths fixed to 1.
    """

    def __init__(self, inputs: int, config: DINOConfig) -> None:
        super().__init__()
        widths = inputs, *config.projector
        self.layers = mlp(
            *widths, config=config, key="head", norm=config.head_norm, activation=nn.GELU
        )
        self.last = nn.Linear(widths[-1], config.outputs, bias=False)
        initialize(self.last, config.init, config.seed, "last")

    def forward(self, features: Tensor) -> Tensor:
        """(B, C) -> (B, K), −1 to 1."""
        return cosines(self.layers(features), self.last.weight)


@full_precision
def cosines(rows: Tensor, vectors: Tensor) -> Tensor:
    """(B, D), (K, D) -> (B, K); in 32 bit: they are divided by 0.04."""
    return F.linear(F.normalize(rows), F.normalize(vectors))


class DINO(Pretext):
    """Student and teacher, each an encoder and a head."""

    Config = DINOConfig
    version = 1
    exported: ClassVar[str] = "teacher.0"
    centre: Tensor

    def __init__(self, config: DINOConfig, encoder: Encoder, normalization: Normalization) -> None:
        super().__init__(config, encoder, normalization)
        check_optimizer(config.optimizer, encoder)
        self.layer, inputs = representation(encoder, config)
        self.head = DINOHead(inputs, config)
        self.teacher = teacher_of(encoder, self.head)
        self.register_buffer("centre", torch.zeros(config.outputs))

    @property
    def student(self) -> tuple[nn.Module, ...]:
        """What the teacher is a running mean of, in its order."""
        return self.encoder, self.head

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """AdamW, or what the configuration names."""
        c = self.config
        self.optimizer = build_optimizer(c.optimizer, self.student, c.rate, c.weight_decay)
        return [self.optimizer]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """All views tell what the teacher makes of the large ones; then teacher and centre move."""
        c = self.config
        pixels = crops(self, images, step, BYOL_VIEWS, SMALL_VIEW)
        features = represented(self.encoder, self.layer, pixels)
        outputs = self.head(features)  # (V·B, K)
        with torch.no_grad():
            encoder, head = self.teacher
            taught = head(represented(encoder, self.layer, pixels[:1]))  # (2·B, K)
            shares = self.sharpened(taught, self.centre, step)
        by_view = (-1, len(images))
        logits = outputs.unflatten(0, by_view) / c.temperature
        loss = across_views(shares.unflatten(0, by_view), logits)
        self.move(loss, step)
        self.recentre(self.centre, taught, step)
        both = LARGE * len(images)
        return {"loss": loss.detach(), **watched(outputs[:both], features[:both])}

    def sharpened(self, taught: Tensor, centre: Tensor, step: Step) -> Tensor:
        """The teacher's outputs (…, K) as distributions."""
        return F.softmax((taught - centre) / self.teacher_temperature(step.index), -1)

    def recentre(self, centre: Tensor, taught: Tensor, step: Step) -> None:
        """Draw a centre to the mean of outputs (B, K), over all devices."""
        mean = step.gather(taught.mean(0, keepdim=True)).mean(0)
        centre.lerp_(mean, 1 - self.config.centre_momentum)

    def move(self, loss: Tensor, step: Step) -> None:
        """Update the student; the teacher follows."""
        c = self.config
        # The first group is the one whose weights decay.
        decay = cosine_course(c.weight_decay, c.weight_decay_end, step.done)
        self.optimizer.param_groups[0]["weight_decay"] = decay
        frozen = self.head.last.parameters() if step.index < c.frozen else ()
        step.update(self.optimizer, loss, c.clip, frozen)
        follow(self.teacher, self.student, cosine_course(c.momentum, c.momentum_end, step.done))

    def teacher_temperature(self, index: int) -> float:
        """At a step, from 0."""
        c = self.config
        risen = min(1.0, index / c.teacher_warmup) if c.teacher_warmup else 1.0
        return c.teacher_temperature + risen * (c.teacher_temperature_end - c.teacher_temperature)
