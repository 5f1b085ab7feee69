"""LeJEPA: views agree, and their embeddings are spread like a standard normal distribution.

Balestriero, LeCun, "LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics",
2025, arXiv 2511.08544; details of the released code, rbalestr-lab/lejepa. Published by
stable-pretraining for ViT-S/16 on Imagenette at 224 px: 85.4 by kNN after 200 epochs;
docs/lejepa.md.

    bench pretrain lejepa --recipe small --data folder:photos

No teacher, no gradient that is stopped, no predictor: that all embeddings become one is prevented
by SIGReg alone. It looks at them along random directions, other ones in each step, and compares the
characteristic function of what it finds with that of N(0, 1): Epps and Pulley's test of normality
(Biometrika 1983). A distribution that is normal along every direction is normal.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from math import pi
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ssl_bench.counter import Randomness
from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.training.collapse import watched
from ssl_bench.training.config import Recipe
from ssl_bench.training.heads import mlp
from ssl_bench.training.multi_crop import (
    LARGE,
    MultiCropConfig,
    crops,
    representation,
    represented,
)
from ssl_bench.training.optimizers import OptimizerName, build_optimizer, check_optimizer
from ssl_bench.training.precision import full_precision
from ssl_bench.training.pretext import Pretext, Step
from ssl_bench.training.two_views import SMALL
from ssl_bench.training.views import byol_view

POINTS, REACH = 17, 3.0  # of the trapezoidal rule, from 0 to REACH (univariate/epps_pulley.py)
VIEW = partial(byol_view, blurring=0.5, solarising=0.2)  # of large and small views alike
# Of ResNets, by AdamW, which is warmed up.
RESNET: dict[str, Any] = {
    **{name: value for name, value in SMALL.items() if name != "warmup"},
    "optimizer": "adamw", "lr": 5e-4, "slices": 256,
}  # fmt: skip


class LeJEPAConfig(MultiCropConfig):
    """The released settings for ImageNet, ViT-L, 100 epochs: AdamW at 5 · 10⁻⁴, decay 0.05."""

    recipes: ClassVar[Mapping[str, Recipe]] = {"small": Recipe(1, RESNET)}
    arch: str = Field(
        default="timm:vit_large_patch16_224",
        description="encoder: alexnet, dcgan, timm:NAME or torchvision:NAME",
    )
    steps: int = Field(default=500_400, ge=1, description="updates")
    batch_size: int = Field(default=256, ge=2, description="images per update over all devices")
    lr: float = Field(
        default=5e-4, gt=0, le=1e30, description="learning rate for 256 images an update"
    )
    optimizer: OptimizerName = Field(default="adamw", description="optimiser: sgd, lars or adamw")
    weight_decay: float = Field(default=0.05, ge=0, description="of the optimiser")
    crop_split: float = Field(
        default=0.3, gt=0.05, lt=1,
        description="share of the image's area that a large view shows at least, a small at most",
    )  # fmt: skip
    projector: tuple[int, ...] = Field(
        default=(2048, 2048, 128), min_length=1, description="widths of the head's layers"
    )
    slices: int = Field(default=1024, ge=1, description="directions that SIGReg looks along")
    sigreg: float = Field(
        default=0.05, ge=0, le=1, description="weight of SIGReg: λ; the prediction's is 1 − λ"
    )


def directions(random: Randomness, width: int, count: int) -> Tensor:
    """float32 (width, count): unit vectors in all directions alike, the same on every device."""
    places = torch.arange(width, device=random.positions.device)
    u = replace(random, positions=places).uniform("slices", count, 2)
    # Box and Muller's normal numbers; 1 − u is never 0.
    normal = (-2 * (1 - u[..., 0]).log()).sqrt() * (2 * pi * u[..., 1]).cos()
    return F.normalize(normal, dim=0)


@full_precision
def prediction_loss(outputs: Tensor) -> Tensor:
    """(V, B, D): the mean square of each view's distance to the mean of the first two, the large.

    Gradients flow through the mean, too.
    """
    return (outputs - outputs[:LARGE].mean(0)).square().mean()


@full_precision
def sigreg(outputs: Tensor, along: Tensor, gather: Callable[[Tensor], Tensor]) -> Tensor:
    """(V, B, D) and directions (D, M) -> the mean of V · M statistics of the images of all devices.

    N ∫ |φ(t) − exp(−t² / 2)|² exp(−t² / 2) dt for N images with the characteristic function φ(t) =
    mean exp(itx) of their coordinates x along a direction (algorithm 1 and section 4 of the paper).
    """
    pace = REACH / (POINTS - 1)
    # φ(−t) is the conjugate of φ(t), so t > 0 counts twice; at 0 both functions are 1.
    t = pace * torch.arange(1, POINTS, device=outputs.device, dtype=outputs.dtype)
    normal = (-t.square() / 2).exp()
    weights = 2 * pace * normal
    weights[-1] /= 2  # an end of the trapezoidal rule
    angles = (outputs @ along.to(outputs.dtype))[..., None] * t  # (V, B, M, T)
    here = torch.stack([angles.cos().mean(1), angles.sin().mean(1)])
    everywhere = gather(here[None])  # (devices, 2, V, M, T)
    real, imaginary = everywhere.mean(0)
    distances = ((real - normal).square() + imaginary.square()) @ weights  # (V, M)
    return len(everywhere) * outputs.shape[1] * distances.mean()


class LeJEPA(Pretext):
    """Encoder and head, and two terms over the views of all devices' images."""

    Config = LeJEPAConfig
    version = 1

    def __init__(
        self, config: LeJEPAConfig, encoder: Encoder, normalization: Normalization
    ) -> None:
        super().__init__(config, encoder, normalization)
        check_optimizer(config.optimizer, encoder)
        self.layer, inputs = representation(encoder, config)
        self.projector = mlp(inputs, *config.projector, config=config, key="head")

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """AdamW, or what the configuration names."""
        c, learning = self.config, (self.encoder, self.projector)
        self.optimizer = build_optimizer(c.optimizer, learning, c.rate, c.weight_decay)
        return [self.optimizer]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """All views are compared with the large ones; SIGReg looks at each view apart."""
        c = self.config
        pixels = crops(self, images, step, (VIEW, VIEW), VIEW)
        features = represented(self.encoder, self.layer, pixels)
        rows = self.projector(features)  # (V·B, D)
        outputs = rows.unflatten(0, (-1, len(images)))
        along = directions(step.random, rows.shape[1], c.slices)
        apart = sigreg(outputs, along, step.gather)
        loss = (1 - c.sigreg) * prediction_loss(outputs) + c.sigreg * apart
        step.update(self.optimizer, loss)
        both = LARGE * len(images)
        return {"loss": loss.detach(), **watched(rows[:both], features[:both])}
