"""NPID: every image is a class of its own, and finds its entry in a bank of all images.

Wu, Xiong, Yu, Lin, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination",
CVPR 2018, arXiv 1805.01978; settings of the released code, main.py of zhirongw/lemniscate.pytorch.
ResNet-50 on ImageNet, 200 epochs at batch 256: 44.0 top-1 by nearest neighbours [mmselfsup].

    bench pretrain npid --recipe small --data folder:photos

Published with 4,096 negatives in place of all (noise-contrastive estimation), which approximates
the softmax that is computed here over all images, in parts where they are many.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ssl_bench.counter import Randomness, generator
from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.training.collapse import watched
from ssl_bench.training.config import Recipe
from ssl_bench.training.heads import mlp, representation
from ssl_bench.training.optimizers import OptimizerName, build_optimizer, check_optimizer
from ssl_bench.training.precision import full_precision
from ssl_bench.training.pretext import Pretext, Step
from ssl_bench.training.schedule import SCHEDULES, Schedule
from ssl_bench.training.two_views import SMALL, TwoViewsConfig
from ssl_bench.training.views import Jitter, grey, jitter, resized_crop

PART = 1 << 16  # entries of the bank that are compared at once: 64 MiB for a batch of 256
# A tenth after epochs 120 and 160 of 200.
SCHEDULES["npid"] = lambda done: 0.1 ** sum(done >= drop for drop in (0.6, 0.8))


class NPIDConfig(TwoViewsConfig):
    """The released code's, 200 epochs; one view an image, with the settings of those of two."""

    recipes: ClassVar[Mapping[str, Recipe]] = {
        "small": Recipe(1, SMALL | {"schedule": "cosine", "temperature": 0.1})
    }
    steps: int = Field(default=1_000_000, ge=1, description="updates")
    batch_size: int = Field(default=256, ge=2, description="images per update over all devices")
    lr: float = Field(
        default=0.03, gt=0, le=1e30, description="learning rate for 256 images an update"
    )
    schedule: Schedule = Field(
        default="npid",
        description="the learning rate's course: npid, a tenth after 0.6 and 0.8 of the steps; "
        "constant; cosine; step; halve; drop",
    )
    warmup: int = Field(default=0, ge=0, description="steps over which the rate rises from 0")
    optimizer: OptimizerName = Field(default="sgd", description="optimiser: sgd, lars or adamw")
    weight_decay: float = Field(default=1e-4, ge=0, description="of the optimiser")
    projector: tuple[int, ...] = Field(
        default=(128,), min_length=1,
        description="widths of the head's layers; the bank holds the last's outputs",
    )  # fmt: skip
    temperature: float = Field(default=0.07, gt=0, description="of the softmax over all images")
    momentum: float = Field(default=0.5, ge=0, lt=1, description="of an image's entry in the bank")


@full_precision
def instance_loss(own: Tensor, bank: Tensor, indices: Tensor, temperature: float) -> Tensor:
    """−log of the softmax over all entries of the bank, equation 2 of the paper, averaged.

    `own` (B, D) and `bank` (N, D) have unit length; `indices` int64 (B,) are the images' entries.
    """
    parts = bank.split(PART)
    if len(parts) == 1:
        return F.cross_entropy(own @ bank.T / temperature, indices)
    # What a part gives is computed again for its gradient: kept, ImageNet's would be 1.3 GB twice.
    sums = [
        checkpoint(
            _log_sum, own, part, temperature, use_reentrant=False, preserve_rng_state=False
        )
        for part in parts
    ]  # fmt: skip
    same = (own * bank[indices]).sum(1) / temperature
    return (torch.stack(sums, 1).logsumexp(1) - same).mean()


def _log_sum(own: Tensor, part: Tensor, temperature: float) -> Tensor:
    return (own @ part.T / temperature).logsumexp(1)  # (B,)


def view(images: Tensor, size: int, random: Randomness) -> Tensor:
    """The released code's: float32 (B, 3, size, size) in [0, 1]; every image's colours change."""
    crops = resized_crop(images, size, random, scale=(0.2, 1.0), mirrored=0.5)
    return jitter(grey(crops, random), random, Jitter(0.4, 0.4, 0.4, 0.4), probability=1)


class NPID(Pretext):
    """An encoder, a linear layer, and a bank of what they gave for each image when last seen."""

    Config = NPIDConfig
    version = 1
    bank: Tensor

    def __init__(self, config: NPIDConfig, encoder: Encoder, normalization: Normalization) -> None:
        super().__init__(config, encoder, normalization)
        check_optimizer(config.optimizer, encoder)
        self.layer, inputs = representation(encoder, config.image_size)
        self.projector = mlp(inputs, *config.projector, config=config, key="head")

    def prepare(self, images: int) -> None:
        """Entries of unit length (images, D), at first random ones, which the seed decides."""
        draw = generator(self.config.seed, "bank")
        entries = torch.randn(images, self.config.projector[-1], generator=draw)
        self.register_buffer("bank", F.normalize(entries))

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD, or what the configuration names."""
        c = self.config
        learning = self.encoder, self.projector
        self.optimizer = build_optimizer(c.optimizer, learning, c.rate, c.weight_decay)
        return [self.optimizer]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """Tell each image from all others; then the entries of these images follow them."""
        pixels = self.normalization.standardize(view(images, self.config.image_size, step.random))
        features = self.encoder(pixels, [self.layer])[self.layer]
        own = F.normalize(self.projector(features))  # (B, D)
        loss = instance_loss(own, self.bank, step.indices, self.config.temperature)
        step.update(self.optimizer, loss)
        self._remember(step.gather(own.detach()), step.gather(step.indices))
        return {"loss": loss.detach(), **watched(own, features)}

    @torch.no_grad()
    def _remember(self, own: Tensor, indices: Tensor) -> None:
        """Entries move to the outputs (B, D) of all devices, and are brought to unit length."""
        # An image may stand twice in a batch, where an epoch ends. Then its last place counts: a
        # GPU writes in any order, but the same row.
        places = torch.arange(len(indices), device=indices.device)
        last = (places * (indices[:, None] == indices)).argmax(1)
        moved = torch.lerp(own[last].to(self.bank.dtype), self.bank[indices], self.config.momentum)
        self.bank[indices] = F.normalize(moved)
