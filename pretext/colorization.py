"""Colorization: which colour has each place of a grey image?

Zhang, Isola, Efros, "Colorful Image Colorization", ECCV 2016, arXiv 1603.08511; settings of the
released train_alexnet. Linear on ImageNet, AlexNet: 30.39 top-1 (VISSL's model zoo); fine-tuned on
VOC07, 65.9 mAP, detection 46.9.

    bench pretrain colorization --norm batch --init fan-in --data folder:photos

L of Lab, 227×227 -> (alexnet) conv5 256×13×13 -> fc6, fc7 as convolutions -> 313 bins of ab, laid
over every 8th pixel. docs/colorization.md says what is ours.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.training.augment import random_crop_flip
from ssl_bench.training.batches import Images
from ssl_bench.training.config import Recipe
from ssl_bench.training.heads import dense_classifier, last_learnt_map
from ssl_bench.training.lab import (
    BINS,
    SIGMA,
    ab_bins,
    bins_seen,
    by_place,
    has_colour,
    rgb_to_lab,
    soft_bins,
)
from ssl_bench.training.precision import full_precision
from ssl_bench.training.pretext import Pretext, PretextConfig, Step
from ssl_bench.training.schedule import SCHEDULES, Schedule

STRIDE = 8  # of the pixels whose colour is predicted
UNIFORM = 0.5  # λ: share of the uniform distribution in the one that classes are weighted by
# The released solvers: 3e-5 for 240,000 steps, 1e-5 for 60,000, 3e-6 for 100,000.
SCHEDULES["colorization"] = lambda done: 1.0 if done < 0.6 else 1 / 3 if done < 0.75 else 0.1
SMALL: dict[str, Any] = {
    "arch": "torchvision:resnet18", "image_size": 64, "steps": 7_400, "batch_size": 256,
    "lr": 1e-3, "weight_decay": 1e-4, "schedule": "cosine", "hidden": 512,
}  # fmt: skip


class ColorizationConfig(PretextConfig):
    """The settings of the released AlexNet."""

    recipes: ClassVar[Mapping[str, Recipe]] = {"small": Recipe(1, SMALL)}
    steps: int = Field(default=400_000, ge=1, description="updates; 25 epochs of ImageNet")
    batch_size: int = Field(default=80, ge=1, description="images per update over all devices")
    lr: float = Field(default=3e-5, gt=0, le=1e30, description="Adam's rate at the start")
    weight_decay: float = Field(default=1e-3, ge=0, description="of Adam, added to the gradient")
    schedule: Schedule = Field(
        default="colorization",
        description="the learning rate's course: colorization, a third after 0.6 and a tenth after "
        "0.75 of the steps; constant; cosine; step; halve; drop",
    )
    hidden: int = Field(default=4096, ge=1, description="units of the head's two hidden layers")


@full_precision
def class_weights(counts: Tensor) -> Tensor:
    """How much each bin weighs, float (313,), by how often it was seen, int64 (313,).

    Equation 4 of the paper: w ∝ 1 / ((1 − λ) p + λ / Q), with the mean 1 over p, where p is the
    distribution of the counts, smoothed by a Gaussian of σ 5 over the bins.
    """
    bins = ab_bins(counts.device)
    likeness = torch.exp(-(bins[:, None] - bins).square().sum(2) / (2 * SIGMA**2))
    seen = (likeness / likeness.sum(0)) @ counts.float()
    seen = seen / seen.sum()
    weights = 1 / ((1 - UNIFORM) * seen + UNIFORM / BINS)
    return weights / (seen * weights).sum()


@full_precision
def soft_cross_entropy(logits: Tensor, ab: Tensor, weights: Tensor) -> Tensor:
    """Equation 2 of the paper, averaged: logits (B, 313, h, w) of colours (B, 2, h, w).

    A place weighs as the bin that is nearest to its colour, and nothing in an image without colour.
    """
    places, shares = soft_bins(by_place(ab))  # (B·h·w, 5)
    guessed = F.log_softmax(by_place(logits), 1)  # (B·h·w, 313)
    losses = -(shares * guessed.gather(1, places)).sum(1) * weights[places[:, 0]]
    return (losses.view(len(ab), -1) * has_colour(ab)[:, None]).mean()


def upsampled(logits: Tensor, side: int) -> Tensor:
    """(B, C, h, h) -> (B, C, side, side), bilinear between the cells' centres."""
    return F.interpolate(logits, (side, side), mode="bilinear", align_corners=False)


class Colorization(Pretext):
    """The encoder sees lightness; a head on its last learnt map tells the colours."""

    Config = ColorizationConfig
    version = 1
    weights: Tensor

    def __init__(
        self, config: ColorizationConfig, encoder: Encoder, normalization: Normalization
    ) -> None:
        super().__init__(config, encoder, config.spec(normalization).normalization)
        self.layer = last_learnt_map(encoder, config.image_size)
        channels = encoder.shape(self.layer, config.image_size)[0]
        self.head = dense_classifier(encoder, channels, config.hidden, BINS, config, "head")
        self.register_buffer("weights", torch.ones(BINS))

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam, with decay as a part of the gradient, as in Caffe."""
        c = self.config
        self.adam = torch.optim.Adam(
            self.parameters(), c.lr, weight_decay=c.weight_decay, fused=True
        )
        return [self.adam]

    def between(self, store: Images, epoch: int) -> None:
        """Before the first step: what each bin is to weigh."""
        if not epoch:
            counts = bins_seen(store, self.config.seed, self.weights.device)
            self.weights.copy_(class_weights(counts))

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """Cross-entropy of the colours of every 8th pixel, from the lightness of all."""
        crops = random_crop_flip(images, self.config.image_size, step.random)
        lab = rgb_to_lab(crops.contiguous() / 255)
        # The network has three channels and later sees ordinary images: grey, three times.
        grey = (lab[:, :1] / 100).expand(-1, 3, -1, -1)
        seen = self.normalization.standardize(grey)
        maps = self.encoder(seen, [self.layer])[self.layer]
        ab = lab[:, 1:, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
        logits = upsampled(self.head(maps), ab.shape[-1])
        loss = soft_cross_entropy(logits, ab, self.weights)
        step.update(self.adam, loss)
        return {"loss": loss.detach()}
