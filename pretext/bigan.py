"""BiGAN: an encoder that inverts a generator, because a discriminator sees image and code together.

Donahue, Krähenbühl, Darrell, "Adversarial Feature Learning", ICLR 2017, arXiv 1605.09782; settings
of the released code, jeffdonahue/bigan, whose "generalized" BiGAN this is: the encoder sees a
larger image than is generated. ImageNet, linear classifier on conv3 of AlexNet: 31.0 top-1 (Zhang
et al., arXiv 1611.09842); docs/bigan.md.

    bench pretrain bigan --norm batch --init fan-in --data folder:photos --preview

The discriminator tells pairs (x, E(x)) of a photograph and its code from pairs (G(z), z) of a drawn
code and what is generated from it. Encoder and generator deceive it together, and where they have
succeeded each inverts the other: to tell what is in an image, E must know what G can make.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.counter import Randomness
from ssl_bench.data.normalization import HALF, Normalization
from ssl_bench.encoders.encoder import POOLED, Encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.encoders.spec import ImageSize
from ssl_bench.errors import UsageError
from ssl_bench.training.adversarial import CollapseWatch, verdict_loss
from ssl_bench.training.augment import center_crop, random_crop_flip
from ssl_bench.training.collapse import dimensions
from ssl_bench.training.config import Recipe
from ssl_bench.training.heads import last_learnt_map, representation
from ssl_bench.training.pretext import Pretext, PretextConfig, Step
from ssl_bench.training.schedule import SCHEDULES, Schedule

SIDE = 64  # px of what is generated, and of what the discriminator sees
# A code shifts maps by weights of N(0, 0.5²) where all others are of N(0, 0.02²), as released.
LOUDER = 25
# The first half at one rate; then down to a hundredth of it, by the same factor at each step.
SCHEDULES["bigan"] = lambda done: 0.01 ** max(0.0, 2 * done - 1)


class BiGANConfig(PretextConfig):
    """The released code's: 100 epochs of ImageNet, Adam with β1 = 0.5."""

    recipes: ClassVar[Mapping[str, Recipe]] = {
        "small": Recipe(1, {
            "arch": "torchvision:resnet18", "image_size": 64, "steps": 7_400, "batch_size": 256,
            "channels": 32,
        })
    }  # fmt: skip
    image_size: ImageSize = Field(default=112, description="side of the encoder's input, px")
    steps: int = Field(default=1_000_911, ge=1, description="updates; 100 epochs of ImageNet")
    batch_size: int = Field(default=128, ge=2, description="images per update over all devices")
    lr: float = Field(default=2e-4, gt=0, le=1e30, description="learning rate at the start")
    schedule: Schedule = Field(
        default="bigan",
        description="the learning rate's course; bigan: constant, then from the middle on falling "
        "evenly to a hundredth",
    )
    weight_decay: float = Field(
        default=2.5e-5, ge=0, description="of matrices and kernels, a part of the gradient"
    )
    latent: int = Field(default=200, ge=1, description="numbers of a code, each from −1 to 1")
    channels: int = Field(
        default=64, ge=1,
        description="of the discriminator's first convolution and the generator's last map; those "
        "further in have 2, 4 and 8 times as many",
    )  # fmt: skip


# ---- the networks


class Shifted(nn.Module):
    """A convolution whose maps a code shifts, each as a whole, before batch normalisation."""

    def __init__(self, convolution: nn.Conv2d | nn.ConvTranspose2d, latent: int) -> None:
        super().__init__()
        self.convolution = convolution
        self.shift = nn.Linear(latent, convolution.out_channels, bias=False)
        self.norm = nn.BatchNorm2d(convolution.out_channels)

    def forward(self, maps: Tensor, code: Tensor) -> Tensor:
        return self.norm(self.convolution(maps) + self.shift(code)[..., None, None])


def up(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """Twice the side."""
    return nn.ConvTranspose2d(inputs, outputs, 5, 2, 2, output_padding=1, bias=False)


def down(inputs: int, outputs: int) -> nn.Conv2d:
    """Half the side."""
    return nn.Conv2d(inputs, outputs, 5, 2, 2, bias=False)


class Generator(nn.Module):
    """(B, latent) → 512×4×4 → 256×8×8 → 128×16×16 → 64×32×32 → 3×64×64 in [−1, 1]."""

    def __init__(self, latent: int, channels: int) -> None:
        super().__init__()
        widths = [channels * factor for factor in (8, 4, 2, 1)]
        units = widths[0] * 4 * 4  # each normalised by itself, as released
        first = nn.Linear(latent, units, bias=False)
        self.first = nn.Sequential(first, nn.BatchNorm1d(units), nn.ReLU())
        self.inner = nn.ModuleList(Shifted(up(*pair), latent) for pair in pairwise(widths))
        self.last = up(channels, 3)

    def forward(self, code: Tensor) -> Tensor:
        maps = self.first(code).unflatten(1, (-1, 4, 4))
        for shifted in self.inner:
            maps = F.relu(shifted(maps, code))
        return bounded(self.last(maps))


class Discriminator(nn.Module):
    """3×64×64 and a code → 64×32×32 → 128×16×16 → 256×8×8 → 512×4×4 → a verdict (B, 1)."""

    def __init__(self, latent: int, channels: int) -> None:
        super().__init__()
        widths = [channels * factor for factor in (1, 2, 4, 8)]
        self.first = down(3, channels)
        self.inner = nn.ModuleList(Shifted(down(*pair), latent) for pair in pairwise(widths))
        self.last = nn.Linear(widths[-1] * 4 * 4, 1, bias=False)

    def forward(self, pixels: Tensor, code: Tensor) -> Tensor:
        maps = F.leaky_relu(self.first(pixels), 0.2)
        for shifted in self.inner:
            maps = F.leaky_relu(shifted(maps, code), 0.2)
        return self.last(maps.flatten(1))


def bounded(values: Tensor) -> Tensor:
    """To [−1, 1], where codes and pixels lie: a sigmoid from 0 to 1, stretched."""
    return 2 * values.sigmoid() - 1


def small(pixels: Tensor) -> Tensor:
    """uint8 (B, 3, S, S) -> float32 (B, 3, 64, 64) in [−1, 1], antialiased."""
    shown = HALF.apply(pixels)
    if shown.shape[-1] == SIDE:
        return shown
    return F.interpolate(shown, (SIDE, SIDE), mode="bilinear", antialias=True)


# ---- the pretext


class BiGAN(Pretext):
    """Encoder with a linear layer to the code, generator, and the discriminator of pairs."""

    Config = BiGANConfig
    version = 1

    def __init__(self, config: BiGANConfig, encoder: Encoder, normalization: Normalization) -> None:
        super().__init__(config, encoder, normalization)
        # AlexNet's code is of conv5, without pool5.
        pooled = POOLED in encoder.layers
        size = config.image_size
        self.layer = representation(encoder, size)[0] if pooled else last_learnt_map(encoder, size)
        channels, height, width = encoder.shape(self.layer, config.image_size)
        self.code = nn.Linear(channels * height * width, config.latent, bias=False)
        self.generator = Generator(config.latent, config.channels)
        self.discriminator = Discriminator(config.latent, config.channels)
        parts = {"code": self.code, "generator": self.generator, "critic": self.discriminator}
        for name, part in parts.items():
            initialize(part, "dcgan", config.seed, name)
        with torch.no_grad():
            for part in self.modules():
                if isinstance(part, Shifted):
                    part.shift.weight.mul_(LOUDER)
            self.discriminator.last.weight.zero_()  # it begins without an opinion
        self.watch = CollapseWatch()

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """One Adam for encoder and generator, one for the discriminator, at the same rate."""
        self.adam = self._adam(self.encoder, self.code, self.generator)
        self.critic_adam = self._adam(self.discriminator)
        return [self.adam, self.critic_adam]

    def _adam(self, *parts: nn.Module) -> torch.optim.Optimizer:
        weights = [weight for part in parts for weight in part.parameters()]
        matrices = [weight for weight in weights if weight.ndim > 1]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": self.config.weight_decay},
            {"params": [weight for weight in weights if weight.ndim < 2]},
        ]
        return torch.optim.Adam(groups, self.config.lr, betas=(0.5, 0.999), fused=True)

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """Both sides move at once, on the same pairs: neither sees the other's update."""
        if len(images) < 2:
            raise UsageError("bigan needs two images on each device: raise --batch-size")
        crops = random_crop_flip(images, self.config.image_size, step.random)
        photographs, features = small(crops), self.features(crops)
        codes = bounded(self.code(features))
        drawn = 2 * step.random.uniform("code", self.config.latent) - 1
        made = self.generator(drawn)
        pairs = ((photographs, codes, True), (made, drawn, False))
        for optimizer in (self.adam, self.critic_adam):
            optimizer.zero_grad(set_to_none=True)
        self.discriminator.requires_grad_(False)
        deceived = [verdict_loss(self.discriminator(x, z), not real) for x, z, real in pairs]
        loss = torch.stack(deceived).mean()
        step.backward(loss)
        self.discriminator.requires_grad_(True)
        told = torch.zeros_like(loss)
        for x, z, real in pairs:
            verdict = verdict_loss(self.discriminator(x.detach(), z.detach()), real) / 2
            step.backward(verdict)
            told += verdict.detach()
        self.adam.step()
        self.critic_adam.step()
        watched = self.watch(step.index, told, made.detach(), photographs)
        values = {"discriminator": told, "dimensions": dimensions(features.detach())}
        return {"loss": loss.detach(), **values, **watched}

    def features(self, crops: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) -> (B, D), what the code is made of."""
        return self.encoder(self.normalization.apply(crops), [self.layer])[self.layer].flatten(1)

    def preview(self, images: Tensor, random: Randomness) -> Mapping[str, Tensor]:
        """Rows: photographs x, what is generated of their codes, and of drawn ones z."""
        crops = center_crop(images, self.config.image_size)
        drawn = 2 * random.uniform("code", self.config.latent) - 1
        rows = {
            "x": small(crops),
            "G(E(x))": self.generator(bounded(self.code(self.features(crops)))),
            "G(z)": self.generator(drawn),
        }
        return {title: HALF.invert(pixels) for title, pixels in rows.items()}
