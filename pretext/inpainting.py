"""Semantic inpainting: the missing part of an image from what surrounds it, with a joint loss.

The second network of Pathak et al., "Context Encoders" (CVPR 2016, arXiv 1604.07379, section 3 and
figure 9a): 128×128 in, the missing 64×64 out, reconstruction plus an adversarial loss whose
discriminator sees the patch only.

    bench pretrain inpainting --data folder:photos --preview

3×128×128 → (dcgan) 512×4×4 → 4000×1×1 → 512×4×4 → 256×8×8 → 128×16×16 → 64×32×32 → 3×64×64. The
convolutions hold 71,112,704 weights, the discriminator's 2,763,776. With `--mask random-block` or
`random-region` one more up-convolution predicts all 128×128. Published, on Paris StreetView:
PSNR 17.59 dB, mean L1 10.33 %, mean L2 2.35 %. What the paper leaves open follows its released code
(docs/inpainting.md says which is which). Expect blur from `--loss l2`, and texture that need not be
right from `joint`.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_bench.counter import Randomness
from ssl_bench.data.normalization import HALF, Normalization
from ssl_bench.encoders.build import EncoderSpec
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.init import Init, initialize
from ssl_bench.errors import UsageError
from ssl_bench.training.adversarial import CollapseWatch, verdict_loss
from ssl_bench.training.augment import center_crop, random_crop_flip
from ssl_bench.training.masks import MaskKind, central, draw_masks, grown, shrunk
from ssl_bench.training.pretext import Pretext, PretextConfig, Step

SIZE = 128  # px
RECONSTRUCTION = {"l2": 1.0, "joint": 0.999, "adversarial": 0.0}  # λ_rec; λ_adv is the rest
BAND_WEIGHT = 10  # of the known band around a hole
SLOWER = 10  # the generator's learning rate over the discriminator's
CHANNELS = (64, 64, 128, 256, 512)  # of the encoder's convolutions, and of the others in step


class InpaintingConfig(PretextConfig):
    """The settings of the inpainting network; the paper's and its code's by default."""

    arch: str = Field(default="dcgan", pattern="^dcgan$", description="encoder: dcgan")
    image_size: int = Field(
        default=SIZE, ge=SIZE, le=SIZE, description="side of the network's input, px"
    )
    width: float = Field(default=1.0, gt=0, le=4, description="factor on all channel counts")
    bottleneck: int | None = Field(
        default=None,
        ge=1,
        le=65_536,
        description="units of the bottleneck; unset: 4000 times the width",
    )
    init: Init = Field(default="dcgan", description="starting weights: N(0, 0.02²)")
    loss: Literal["joint", "l2", "adversarial"] = Field(
        default="joint", description="0.999 L2 and 0.001 adversarial, or one of them alone"
    )
    mask: MaskKind = Field(
        default="central",
        description="what is dropped; all but central predict the whole image",
    )
    overlap: int = Field(
        default=7, ge=0, le=16, description="known band around a hole that is predicted too, px"
    )
    batch_size: int = Field(default=64, ge=2, description="images per update over all devices")
    lr: float = Field(
        default=2e-3, gt=0, le=1e30, description="the generator's; the discriminator's is a tenth"
    )

    def spec(self, normalization: Normalization) -> EncoderSpec:
        """dcgan with this bottleneck."""
        return super().spec(normalization).model_copy(update={"bottleneck": self.bottleneck})


# ---- the networks


def decoder_of(bottleneck: int, width: float, whole: bool) -> nn.Sequential:
    """bottleneck×1×1 → 3×64×64 in [−1, 1], or 3×128×128 for the `whole` image (figure 9a)."""
    sizes = [max(1, round(c * width)) for c in reversed(CHANNELS[0 if whole else 1 :])]
    layers: list[nn.Module] = [nn.ConvTranspose2d(bottleneck, sizes[0], 4, bias=False)]
    for before, after in pairwise([*sizes, 3]):
        layers += [nn.BatchNorm2d(before), nn.ReLU()]
        layers.append(nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False))
    return nn.Sequential(*layers, nn.Tanh())


def discriminator_of(width: float, whole: bool) -> nn.Sequential:
    """3×64×64, or 3×128×128, → how real it looks: (B, 1, 1, 1), before the sigmoid."""
    sizes = [max(1, round(c * width)) for c in CHANNELS[0 if whole else 1 :]]
    layers: list[nn.Module] = [nn.Conv2d(3, sizes[0], 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for before, after in pairwise(sizes):
        layers.append(nn.Conv2d(before, after, 4, 2, 1, bias=False))
        layers += [nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(sizes[-1], 1, 4, bias=False))


# ---- the losses


def weighted_l2(truth: Tensor, predicted: Tensor, weights: Tensor) -> Tensor:
    """Weighted squared error per predicted value: (B, 3, P, P) twice, (B, 1, P, P) -> scalar.

    The mean over the values of weight above 0 in each image, then over the images; a weight of 10
    counts ten times in the sum and once in the number, as in the released code.
    """
    errors = (weights * (truth - predicted) ** 2).sum((1, 2, 3))  # (B,)
    return (errors / (truth.shape[1] * (weights > 0).sum((1, 2, 3)))).mean()


# ---- the pretext


class Inpainting(Pretext):
    """Predict what is missing so that it fits and looks real."""

    Config = InpaintingConfig
    version = 1
    colour: Tensor

    def __init__(
        self, config: InpaintingConfig, encoder: Encoder, normalization: Normalization
    ) -> None:
        super().__init__(config, encoder, normalization)
        whole = config.mask != "central"
        units, _, _ = encoder.shape(encoder.maps[-1], SIZE)
        self.decoder = decoder_of(units, config.width, whole)
        initialize(self.decoder, config.init, config.seed, "decoder")
        if config.loss != "l2":
            self.discriminator = discriminator_of(config.width, whole)
            initialize(self.discriminator, config.init, config.seed, "discriminator")
        self.watch = CollapseWatch()
        # Of the training images, red, green and blue, in [−1, 1]: what a hole is filled with.
        self.register_buffer("colour", torch.tensor(normalization.mean).view(3, 1, 1) * 2 - 1)
        start, side = (0, SIZE) if whole else (SIZE // 4, SIZE // 2)
        self.patch = slice(start, start + side)  # the rows and columns that are predicted

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam with β1 = 0.5 for the generator and, ten times slower, for the discriminator.

        The released code has one rate for both where the loss is adversarial alone.
        """
        rate, betas = self.config.lr, (0.5, 0.999)
        generator = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.adam = torch.optim.Adam(generator, lr=rate, betas=betas, fused=True)
        if self.config.loss == "l2":
            return [self.adam]
        critic = self.discriminator.parameters()
        self.critic_adam = torch.optim.Adam(critic, lr=rate / SLOWER, betas=betas, fused=True)
        return [self.adam, self.critic_adam]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """One update of the discriminator, then one of the generator."""
        if len(images) < 2:
            raise UsageError("inpainting needs two images on each device: raise --batch-size")
        x = HALF.apply(random_crop_flip(images, SIZE, step.random))
        holes = self.holes(step.random)
        predicted = self.predict(x, holes)
        truth = x[..., self.patch, self.patch]
        weights = self.weights(holes)
        seen = (weights > 0).to(x.dtype)  # the discriminator never sees the context
        loss = reconstruction = weighted_l2(truth, predicted, weights)
        values = {"reconstruction": reconstruction.detach()}
        if self.config.loss != "l2":
            values["discriminator"] = self._discriminate(truth * seen, predicted * seen, step)
            self.discriminator.requires_grad_(False)
            adversarial = verdict_loss(self.discriminator(predicted * seen), True)  # non-saturating
            share = RECONSTRUCTION[self.config.loss]
            loss = share * reconstruction + (1 - share) * adversarial
            values["adversarial"] = adversarial.detach()
        step.update(self.adam, loss)
        if self.config.loss != "l2":
            self.discriminator.requires_grad_(True)
        watched = self.watch(step.index, values.get("discriminator"), predicted.detach(), truth)
        return {"loss": loss.detach(), **values, **watched}

    def _discriminate(self, real: Tensor, fake: Tensor, step: Step) -> Tensor:
        """One update; real and predicted patches are batches of their own, as are their norms."""
        self.critic_adam.zero_grad(set_to_none=True)
        losses = []
        for patches, is_real in ((real, True), (fake.detach(), False)):
            losses.append(verdict_loss(self.discriminator(patches), is_real))
            step.backward(losses[-1])
        self.critic_adam.step()
        return (losses[0] + losses[1]).detach()

    # ---- holes

    def holes(self, random: Randomness) -> Tensor:
        """(B, 1, 128, 128), 1 where the image is dropped.

        The central hole is the predicted square less the overlap, 50 px; the other kinds are
        predicted beyond their edges instead.
        """
        if self.config.mask == "central":
            return self.central_hole(len(random.positions), random.positions.device)
        return draw_masks(self.config.mask, SIZE, random)

    def central_hole(self, count: int, device: torch.device | str = "cpu") -> Tensor:
        """(count, 1, 128, 128), a view of one: windows of 15 px are slow."""
        hole = shrunk(central(1, SIZE, device), self.config.overlap)
        return hole.expand(count, -1, -1, -1)

    def weights(self, holes: Tensor) -> Tensor:
        """Of the reconstruction, (B, 1, P, P): 1 in the holes, 10 in their band, else 0."""
        alike = self.config.mask == "central"
        different = holes[:1] if alike else holes
        band = grown(different, self.config.overlap) - different
        weights = (different + BAND_WEIGHT * band)[..., self.patch, self.patch]
        return weights.expand(len(holes), -1, -1, -1)

    def predict(self, x: Tensor, holes: Tensor) -> Tensor:
        """(B, 3, 128, 128) in [−1, 1], of which holes are hidden -> the patch (B, 3, P, P)."""
        hidden = torch.where(holes.bool(), self.colour.to(x.dtype), x)
        top = self.encoder.maps[-1]
        return self.decoder(self.encoder(hidden, [top])[top])

    # ---- use

    @property
    def reach(self) -> float:
        """50 of 128 px with the central mask and the paper's overlap, else all of the image."""
        if self.config.mask != "central":
            return 1.0
        return 0.5 - 2 * self.config.overlap / SIZE

    @torch.no_grad()
    def fill(self, images: Tensor, holes: Tensor) -> Tensor:
        """As `Inpaints.fill`; the central network is always shown its whole hole."""
        shown = holes
        if self.config.mask == "central":
            shown = self.central_hole(len(images), images.device)
            if bool((holes > shown).any()):
                side = round(self.reach * SIZE)
                raise UsageError(
                    f"a hole goes beyond the central {side}×{side} px of {SIZE}×{SIZE}: this "
                    "network was trained with --mask central and predicts nothing else"
                )
        x = HALF.apply(images)
        filled = x.clone()
        filled[..., self.patch, self.patch] = self.predict(x, shown).to(x.dtype)
        return torch.where(holes.bool(), HALF.invert(filled), images.float() / 255)

    def preview(self, images: Tensor, random: Randomness) -> Mapping[str, Tensor]:
        """Rows of pictures: input, holed input, filled, and the truth that was removed."""
        pixels = center_crop(images, SIZE)
        x, holes = HALF.apply(pixels), self.holes(random)
        hole = holes.bool()
        return {
            "input": HALF.invert(x),
            "holed input": HALF.invert(torch.where(hole, self.colour, x)),
            "filled": self.fill(pixels, holes),
            "truth": HALF.invert(torch.where(hole, x, self.colour)),
        }
