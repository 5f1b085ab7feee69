"""Split-brain: half of the network tells colour from lightness, half lightness from colour.

Zhang, Isola, Efros, "Split-Brain Autoencoders: Unsupervised Learning by Cross-Channel Prediction",
CVPR 2017, arXiv 1611.09842. AlexNet on ImageNet, linear on conv1–5: 17.7, 29.3, 35.4, 35.2, 32.8
top-1; fine-tuned on VOC07, 67.1 mAP, detection 46.7.

    bench pretrain split-brain --init fan-in --data folder:photos

The halves lie in one AlexNet, as in the released network: its first and its last 48 filters of
conv1, the two groups of conv2, conv4 and conv5, and of conv3 the weights that lead from a half to
itself. They learn apart and are evaluated side by side. docs/split-brain.md says what is ours.
"""

from collections.abc import Mapping
from copy import deepcopy

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pretext.colorization import STRIDE, ColorizationConfig, upsampled
from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.spec import DEFAULT_ARCH, Norm
from ssl_bench.errors import UsageError
from ssl_bench.training.augment import random_crop_flip
from ssl_bench.training.batches import Images
from ssl_bench.training.heads import dense_classifier, last_learnt_map
from ssl_bench.training.lab import (
    BINS,
    LEVELS,
    bins_seen,
    by_place,
    lightness_levels,
    rgb_to_lab,
    soft_bins,
)
from ssl_bench.training.pretext import Pretext, Step

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601
APART = 1e-9  # in 64 bit, of a change in the half that sees it: what the other may show


class SplitBrainConfig(ColorizationConfig):
    """Colorization's settings; the paper's training is not published."""

    norm: Norm = Field(
        default_factory=lambda given: "batch" if given["arch"] == DEFAULT_ARCH else "own",
        exclude_if=lambda norm: norm == "own",
        description="normalisation in alexnet: batch; its own, LRN, would mix the halves",
    )  # fmt: skip


@torch.no_grad()
def cut_in_halves(encoder: nn.Module, luma: Tensor) -> None:
    """Take away what the first half of all channels sees of colour, and the last of lightness.

    `luma` float (3,) is the direction, of unit length, in which normalised pixels differ in
    lightness alone. What has three input channels keeps in its first half of filters w uᵀu, in the
    last w (1 − uᵀu); weights that lead from one half to the other become 0. All this is linear, so
    done behind each update it is descent within networks that are cut.
    """
    u = luma.view(3, 1, 1)
    for part in encoder.modules():
        if not isinstance(part, nn.Conv2d):
            continue
        weight, (out, inside) = part.weight, (part.out_channels // 2, part.in_channels // 2)
        if part.in_channels == 3:
            # No product of matrices, which autocast would run in 16 bit.
            along = (weight * u).sum(1, keepdim=True) * u
            weight[:out] = along[:out]
            weight[out:] -= along[out:]
        elif part.groups == 1:
            weight[:out, inside:] = 0
            weight[out:, :inside] = 0


def check_halves(encoder: Encoder, layer: str, size: int, luma: Tensor, arch: str) -> None:
    """UsageError if what one half sees changes the other's map, once the encoder is cut.

    Whatever mixes channels otherwise (LRN, layer normalisation, attention) is found by that.
    """
    copy, draw = deepcopy(encoder).double().eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in copy.parameters():  # none stays 0: a branch that begins so may mix later
            weight += 0.1 * torch.randn(weight.shape, generator=draw)
    cut_in_halves(copy, luma)
    across = torch.linalg.cross(luma, luma.roll(1))  # a direction of colour alone
    image = torch.randn(3, size, size, generator=draw, dtype=torch.float64)
    noise = torch.randn(1, size, size, generator=draw, dtype=torch.float64)
    shown = [image, image + across[:, None, None] * noise, image + luma[:, None, None] * noise]
    with torch.no_grad():
        maps = copy(torch.stack(shown), [layer])[layer]
    colour, lightness = (
        [half.abs().max() for half in (maps[k] - maps[0]).chunk(2)] for k in (1, 2)
    )
    if colour[0] > APART * colour[1] or lightness[1] > APART * lightness[0]:
        raise UsageError(
            "split-brain takes networks whose channels can be cut into halves that never meet "
            f"(alexnet with --norm batch, ResNets), and {arch} mixes them"
        )


class SplitBrain(Pretext):
    """Two networks in the halves of one, each of which predicts what the other sees."""

    Config = SplitBrainConfig
    version = 1
    luma: Tensor

    def __init__(
        self, config: SplitBrainConfig, encoder: Encoder, normalization: Normalization
    ) -> None:
        normalization = config.spec(normalization).normalization  # dcgan has its own
        super().__init__(config, encoder, normalization)
        self.layer, size = last_learnt_map(encoder, config.image_size), config.image_size
        # Colours c are seen as (c − m) / s, and so their luma l·c as (l s)·x + l·m.
        luma = torch.tensor(LUMA, dtype=torch.float64) * torch.tensor(normalization.std).double()
        luma = luma / luma.norm()
        check_halves(encoder, self.layer, size, luma, config.arch)
        self.register_buffer("luma", luma.float())
        channels, hidden = encoder.shape(self.layer, size)[0] // 2, max(1, config.hidden // 2)
        self.colour = dense_classifier(encoder, channels, hidden, BINS, config, "colour")
        self.lightness = dense_classifier(encoder, channels, hidden, LEVELS, config, "lightness")

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam, with decay as a part of the gradient."""
        c = self.config
        self.adam = torch.optim.Adam(
            self.parameters(), c.lr, weight_decay=c.weight_decay, fused=True
        )
        return [self.adam]

    def between(self, store: Images, epoch: int) -> None:
        """Before the first step: that there are colours at all."""
        if not epoch:
            bins_seen(store, self.config.seed, self.luma.device)

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """Both halves in one pass, and their two losses, which share no weight, added."""
        if step.index == 0:
            cut_in_halves(self.encoder, self.luma)
        crops = random_crop_flip(images, self.config.image_size, step.random).contiguous()
        maps = self.encoder(self.normalization.apply(crops), [self.layer])[self.layer]
        first, last = maps.chunk(2, 1)
        lab = rgb_to_lab(crops[..., STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE] / 255)
        bins = soft_bins(by_place(lab[:, 1:]))[0][:, 0]  # the nearest one
        levels = lightness_levels(lab[:, 0])
        side = lab.shape[-1]
        colour = F.cross_entropy(upsampled(self.colour(first), side), bins.view_as(levels))
        lightness = F.cross_entropy(upsampled(self.lightness(last), side), levels)
        loss = colour + lightness
        step.update(self.adam, loss)
        cut_in_halves(self.encoder, self.luma)
        parts = {"colour": colour.detach(), "lightness": lightness.detach()}
        return {"loss": loss.detach(), **parts}
