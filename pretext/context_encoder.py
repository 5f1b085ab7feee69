"""Context encoder: learn features by inpainting (Pathak et al., CVPR 2016, arXiv 1604.07379).

The feature-learning network of the paper, reconstruction only: an AlexNet trunk sees an image
with a region removed, a channel-wise fully-connected layer carries information across the map,
and five up-convolutions predict the whole image; the loss counts only what was removed.

    bench pretrain context-encoder --data folder:photos --preview

At 227 px: 3×227×227 → 256×6×6 → (channel-wise FC) 256×6×6 → 128×11×11 → 64×21×21 → 64×41×41 →
32×81×81 → 3×161×161 → resized to 227×227. The full run is 100,000 steps (14 hours on the paper's
Titan X). Expect a modest gain: published fine-tuning on VOC07 gives 56.5 % mAP against 53.3 %
from random weights, and most of it is in the middle layers.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, Protocol

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.counter import Randomness, generator
from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.build import learn_up_to
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.errors import UsageError
from ssl_bench.training.augment import center_crop, random_crop_flip
from ssl_bench.training.masks import MaskKind, central, draw_masks
from ssl_bench.training.pretext import Pretext, PretextConfig, Step


class ContextEncoderConfig(PretextConfig):
    """The settings of the context encoder; the paper's at 227 px by default."""

    mask: MaskKind = Field(
        default="random-region",
        description="what is dropped: central, random-block or random-region",
    )
    # Settings to find causes with. Left out at their defaults: earlier records have the same key.
    loss: Literal["l2", "l2-centred"] = Field(
        default="l2", exclude_if=lambda loss: loss == "l2",
        description="squared error of what is dropped; centred: less each image's mean error",
    )  # fmt: skip
    dropout: float = Field(
        default=0.5, ge=0, lt=1, exclude_if=lambda share: share == 0.5,
        description="share of the channel-wise layer's outputs that is dropped",
    )  # fmt: skip
    decoder_depth: int = Field(
        default=5, ge=1, le=5, exclude_if=lambda depth: depth == 5,
        description="up-convolutions of the decoder",
    )  # fmt: skip
    lr: float = Field(
        default=1e-4,
        gt=0,
        le=1e30,
        description="Adam's rate; the paper's 1e-4, or 1e-3 with the central mask",
    )

    @model_validator(mode="before")
    @classmethod
    def _paper_rate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The paper's rate follows the mask unless one is given."""
        return {"lr": 1e-3, **values} if values.get("mask") == "central" else values


class ChannelwiseFullyConnected(nn.Module):
    """Each n×n map is fully connected to itself and to no other map (paper, section 3.1).

    m maps take m·n⁴ weights, against m²·n⁴ of a full layer: 331,776 for 256×6×6.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        cells = side * side
        self.weight = nn.Parameter(torch.empty(channels, cells, cells))  # [map, from, to]
        self.bias = nn.Parameter(torch.zeros(channels, cells))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, m, n, n) -> (B, m, n, n)."""
        cells = maps.flatten(2)  # (B, m, n²)
        mixed = torch.einsum("bmi,mij->bmj", cells, self.weight) + self.bias
        return mixed.view_as(maps)


def up_convolutions(channels: int, side: int, width: float, depth: int = 5) -> nn.Sequential:
    """Five up-convolutions 5×5, stride 2, ReLU between; the RGB output is linear.

    Of fewer (`depth`) the last ones but for the output's are left out, so that it stays smaller.

    From 6×6 a step leads to 2n − 1, as in the paper: 6 → 11 → 21 → 41 → 81 → 161. Smaller inputs
    leave a smaller pool5; from there a step leads to 2n (one row of output padding), else 1×1
    would stay 1×1. The numbers of parameters are the same.
    """
    hidden = (128, 64, 64, 32)[: depth - 1]
    sizes = [channels, *(max(1, round(c * width)) for c in hidden), 3]
    padding = 0 if side >= 6 else 1
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.ConvTranspose2d(before, after, 5, 2, 2, padding), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Reconstruction(Protocol):
    """What `reconstruct` needs of a pretext: the encoder and `reconstruction_layers`."""

    encoder: Encoder
    channelwise: ChannelwiseFullyConnected
    convolution: nn.Conv2d
    decoder: nn.Sequential


def reconstruction_layers(
    config: PretextConfig, encoder: Encoder, depth: int = 5
) -> tuple[ChannelwiseFullyConnected, nn.Conv2d, nn.Sequential]:
    """What stands on the encoder's last map: channelwise, convolution, decoder.

    The channel-wise layer is drawn by its fan-in with every `init` but `gaussian`, `dcgan` too. An
    encoder's `own` starting weights leave these layers to fan-in.
    """
    channels, side, _ = encoder.shape(encoder.maps[-1], config.image_size)
    learn_up_to(encoder, encoder.maps[-1], config.image_size)  # a library's classifier is no part
    channelwise = ChannelwiseFullyConnected(channels, side)
    std = 0.01 if config.init == "gaussian" else 2**0.5 / side  # fan-in: the n² cells of a map
    draw = generator(config.seed, "channelwise")
    nn.init.normal_(channelwise.weight, std=std, generator=draw)
    convolution = nn.Conv2d(channels, channels, 1)  # carries information across the maps
    decoder = up_convolutions(channels, side, config.width, depth)
    initialize(convolution, config.init, config.seed, "convolution")
    initialize(decoder, config.init, config.seed, "decoder")
    if config.init in (
        "fan-in",
        "own",
    ):  # the output has no ReLU behind it: begin near the mean colour
        with torch.no_grad():
            decoder[-1].get_parameter("weight").mul_(0.1)
    return channelwise, convolution, decoder


def reconstruct(
    network: Reconstruction, images: Tensor, random: Randomness | None, dropout: float = 0.5
) -> Tensor:
    """Normalised (B, 3, S, S), zero in the holes -> the whole image (B, 3, S, S).

    `random` draws the dropout behind the channel-wise layer; None: no dropout. The paper
    states no activation around that layer; ReLU is our choice, as everywhere else in the network.
    """
    top = network.encoder.maps[-1]
    maps = network.encoder(images, [top])[top]  # (B, m, n, n)
    maps = F.relu(network.channelwise(maps))
    if random is not None:
        maps = random.dropout(maps, dropout)
    maps = F.relu(network.convolution(maps))
    output = network.decoder(maps)  # (B, 3, 161, 161) at 227 px
    return enlarged(output, images.shape[-1])


def enlarged(images: Tensor, size: int) -> Tensor:
    """(B, 3, s, s) -> (B, 3, size, size), bilinear."""
    if images.device.type != "cpu":
        return F.interpolate(images, (size, size), mode="bilinear", align_corners=False)
    # The same as a product from both sides; on a CPU half the time at 96 px, for the gradient of
    # torch's own adds pixel by pixel.
    one = torch.eye(images.shape[-1], dtype=images.dtype)[None, None]
    rows = F.interpolate(one, (size, images.shape[-1]), mode="bilinear", align_corners=False)[0, 0]
    return rows @ (images.contiguous() @ rows.T)


class ContextEncoder(Pretext):
    """Predict what was removed from an image, from what surrounds it."""

    Config = ContextEncoderConfig
    version = 1

    def __init__(
        self, config: ContextEncoderConfig, encoder: Encoder, normalization: Normalization
    ) -> None:
        super().__init__(config, encoder, normalization)
        layers = reconstruction_layers(config, encoder, config.decoder_depth)
        self.channelwise, self.convolution, self.decoder = layers

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam (paper, section 4)."""
        self.adam = torch.optim.Adam(self.parameters(), lr=self.config.lr, fused=True)
        return [self.adam]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """Masked L2 (paper, eq. 1): ‖M ⊙ (x − F((1 − M) ⊙ x))‖² over the dropped pixels.

        Or what it has above the best constant colour that each hole could be shifted by.
        """
        crops = random_crop_flip(images, self.config.image_size, step.random).contiguous()
        x = self.normalization.apply(crops)  # each channel a plane, as masks and the output are
        mask = draw_masks(self.config.mask, x.shape[-1], step.random)  # (B, 1, S, S)
        output = reconstruct(self, x * (1 - mask), step.random, self.config.dropout)
        loss = masked_l2(x, output, mask, self.config.loss == "l2-centred")
        step.update(self.adam, loss)
        return {"loss": loss.detach()}

    @property
    def reach(self) -> float:
        """Half of the side with the central mask, else all of it."""
        return 0.5 if self.config.mask == "central" else 1.0

    @torch.no_grad()
    def fill(self, images: Tensor, holes: Tensor) -> Tensor:
        """As `Inpaints.fill`; a network of the central mask is always shown its whole hole."""
        shown = holes
        if self.config.mask == "central":
            shown = central(len(images), images.shape[-1], images.device)
            if bool((holes > shown).any()):
                raise UsageError(
                    "a hole goes beyond the central half of the image: this network was trained "
                    "with --mask central and predicts nothing else"
                )
        x = self.normalization.apply(images)
        output = reconstruct(self, x * (1 - shown), None)
        filled = self.normalization.invert(output)
        return torch.where(holes.bool(), filled, images.float() / 255)

    @torch.no_grad()
    def preview(self, images: Tensor, random: Randomness) -> Mapping[str, Tensor]:
        """Rows of pictures: input, holed input, filled, and the truth that was removed."""
        x = self.normalization.apply(center_crop(images, self.config.image_size))
        mask = draw_masks(self.config.mask, x.shape[-1], random)
        filled = x * (1 - mask) + reconstruct(self, x * (1 - mask), None) * mask
        rows = {"input": x, "holed input": x * (1 - mask), "filled": filled, "truth": x * mask}
        return {title: self.normalization.invert(row) for title, row in rows.items()}


def masked_l2(truth: Tensor, output: Tensor, mask: Tensor, centred: bool = False) -> Tensor:
    """Squared error per dropped value: (B, 3, S, S) twice and a mask (B, 1, S, S) -> scalar.

    Normalised by each image's own number of dropped pixels, then averaged over the images, so
    that the loss does not depend on how a batch is spread over devices.

    `centred` leaves out each image's mean colour: with e = truth − output and ē its mean over the
    dropped pixels of one image and channel, Σ M (e − ē)² / Σ M = Σ M e² / Σ M − ē². It is Eigen et
    al.'s error with λ = 1 ("Depth Map Prediction from a Single Image", 2014, eq. 4), on colours.
    """
    gaps = (output - truth) * mask
    dropped = mask.sum((1, 2, 3))  # (B,)
    if centred:
        means = gaps.sum((2, 3), keepdim=True) / dropped[:, None, None, None]
        gaps = gaps - mask * means
    errors = torch.linalg.vector_norm(gaps, dim=(1, 2, 3)).square()  # (B,): one pass each way
    return (errors / (truth.shape[1] * dropped)).mean()
