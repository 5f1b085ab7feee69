"""MAE: guess the pixels of three quarters of an image's patches from the remaining quarter.

He, Chen, Xie, Li, Dollár, Girshick, "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022,
arXiv 2111.06377; details of the released code, facebookresearch/mae. Vision transformers only.
Published by lightly for a ViT on Imagenette: 61.0 by kNN after 800 epochs; docs/mae.md.

    bench pretrain mae --recipe small --data folder:photos

The encoder is given the visible patches and nothing in the others' place. Behind it a small
decoder, thrown away afterwards, has a learnt token for each patch that is to be guessed.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.counter import generator
from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.build import learn_up_to
from ssl_bench.encoders.encoder import POOLED, Encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.encoders.spec import ImageSize
from ssl_bench.errors import UsageError
from ssl_bench.training.collapse import dimensions
from ssl_bench.training.config import EncoderConfig, PretextConfig, Recipe
from ssl_bench.training.optimizers import build_optimizer
from ssl_bench.training.precision import full_precision
from ssl_bench.training.pretext import Pretext, Step
from ssl_bench.training.schedule import Schedule
from ssl_bench.training.two_views import IMAGENET
from ssl_bench.training.views import resized_crop

HEAD = 32  # channels of each of the decoder's attention heads
LAYER_NORM = partial(nn.LayerNorm, eps=1e-6)
SMALL: dict[str, Any] = {
    "arch": "timm:vit_small_patch8_224", "image_size": 64, "steps": 7_400, "batch_size": 256,
    "warmup": 740, "decoder_depth": 2, "decoder_width": 256,
}  # fmt: skip


class MAEConfig(PretextConfig):
    """The paper's ViT-B/16, 800 epochs: AdamW at 1.5 · 10⁻⁴ · batch / 256, warmed up over 40."""

    recipes: ClassVar[Mapping[str, Recipe]] = {"small": Recipe(1, SMALL)}
    arch: str = Field(
        default="timm:vit_base_patch16_224", description="encoder: a vision transformer of timm"
    )
    image_size: ImageSize = Field(default=224, description="side of the network's input, px")
    steps: int = Field(default=250_240, ge=1, description="updates")
    batch_size: int = Field(default=4096, ge=1, description="images per update over all devices")
    lr: float = Field(
        default=1.5e-4, gt=0, le=1e30,
        description="learning rate for 256 images an update: times --batch-size / 256",
    )  # fmt: skip
    schedule: Schedule = Field(default="cosine", description="the learning rate's course")
    warmup: int = Field(
        default_factory=lambda given: min(
            40 * IMAGENET // given["batch_size"], given["steps"] // 10
        ),
        ge=0, description="steps over which the learning rate rises from 0, before its course; "
        "unset: 40 epochs of ImageNet, at most a tenth of the steps",
    )  # fmt: skip
    weight_decay: float = Field(default=0.05, ge=0, description="of all but biases and scales")
    masked: float = Field(
        default=0.75, gt=0, lt=1, description="share of the patches that the encoder does not see"
    )
    smallest_crop: float = Field(
        default=0.2, gt=0, le=1, description="share of the image that a crop shows at least"
    )
    decoder_depth: int = Field(default=8, ge=1, description="blocks of the decoder")
    decoder_width: int = Field(
        default=512, ge=HEAD, multiple_of=HEAD, description="channels of the decoder's tokens"
    )


def patches_of(pixels: Tensor, side: int) -> Tensor:
    """(B, 3, S, S) -> (B, N, 3·side²): patches row by row, as `keep` of an encoder counts them."""
    return F.unfold(pixels, side, stride=side).transpose(1, 2)


def places_of(rows: int, width: int) -> Tensor:
    """float32 (rows², width): sines and cosines of a patch's row and column, fixed."""
    pace = 10_000.0 ** (-torch.arange(width // 4) / (width // 4))
    angles = torch.arange(rows)[:, None] * pace  # (rows, width / 4)
    waves = torch.cat([angles.sin(), angles.cos()], 1)
    across, down = waves.repeat(rows, 1), waves.repeat_interleave(rows, 0)
    return torch.cat([across, down], 1)


@full_precision
def reconstruction_loss(guessed: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error on (B, M, 3·p²); each true patch is brought to mean 0 and variance 1."""
    variance, mean = torch.var_mean(truth, 2, keepdim=True)
    return F.mse_loss(guessed, (truth - mean) / (variance + 1e-6).sqrt())


def rows_of(encoder: Encoder, method: str, config: EncoderConfig) -> int:
    """Patches along a side; UsageError for a network of which none can be left out."""
    if not encoder.takes_keep or POOLED not in encoder.layers:
        raise UsageError(
            f"{method} takes vision transformers of timm, such as timm:vit_small_patch16_224, not "
            f"{config.arch}: no patch can be left out of it"
        )
    return config.image_size // encoder.patch_size


class Decoder(nn.Module):
    """Blocks over the patches, visible or not, and a linear layer to what the hidden ones are.

    `rows` of patches lie along a side. I-JEPA's predictor is the same network.
    """

    places: Tensor

    def __init__(
        self, inputs: int, outputs: int, rows: int, depth: int, width: int, config: EncoderConfig
    ) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        self.norm, self.embed = LAYER_NORM(inputs), nn.Linear(inputs, width)
        norm: Any = LAYER_NORM
        blocks = (Block(width, width // HEAD, qkv_bias=True, norm_layer=norm) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks)
        self.out = nn.Sequential(LAYER_NORM(width), nn.Linear(width, outputs))
        initialize(self, config.init, config.seed, "decoder")
        drawn = torch.randn(width, generator=generator(config.seed, "decoder", "hidden"))
        self.hidden = nn.Parameter(0.02 * drawn)
        self.register_buffer("places", places_of(rows, width), persistent=False)

    def forward(self, tokens: Tensor, pooled: Tensor, order: Tensor) -> Tensor:
        """(B, K, C), (B, C) and int64 (B, N), visible patches first -> (B, N − K, outputs).

        Blocks look at tokens as a set, so patches stay in the order in which they were drawn.
        """
        visible = self.embed(self.norm(tokens))
        hidden = self.hidden.expand(len(order), order.shape[1] - tokens.shape[1], -1)
        patches = torch.cat([visible, hidden], 1) + self.places[order]
        whole = torch.cat([self.embed(pooled)[:, None], patches], 1)
        return self.out(self.blocks(whole)[:, 1 + tokens.shape[1] :])


class MAE(Pretext):
    """A vision transformer that sees few patches, and the decoder behind it."""

    Config = MAEConfig
    version = 1

    def __init__(self, config: MAEConfig, encoder: Encoder, normalization: Normalization) -> None:
        super().__init__(config, encoder, normalization)
        rows, self.side = rows_of(encoder, "mae", config), encoder.patch_size
        learn_up_to(encoder, POOLED, config.image_size)
        self.layer, self.patches = encoder.maps[-1], rows**2
        self.seen = max(1, int(self.patches * (1 - config.masked)))
        if self.seen == self.patches:
            raise UsageError(f"--masked {config.masked:g} hides none of {self.patches} patches")
        channels, pixels = encoder.shape(POOLED, config.image_size)[0], 3 * self.side**2
        shape = config.decoder_depth, config.decoder_width
        self.decoder = Decoder(channels, pixels, rows, *shape, config)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """AdamW, which remembers fewer squares than by default."""
        c, parts = self.config, (self.encoder, self.decoder)
        rate = c.lr * c.batch_size / 256
        self.adam = build_optimizer("adamw", parts, rate, c.weight_decay, betas=(0.9, 0.95))
        return [self.adam]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """Crop and mirror; hide; guess what is hidden."""
        size, scale = self.config.image_size, (self.config.smallest_crop, 1.0)
        crops = resized_crop(images, size, step.random, scale, mirrored=0.5)
        pixels = self.normalization.standardize(crops)
        order = step.random.uniform("patches", self.patches).argsort(1)  # (B, N)
        found = self.encoder(pixels, [self.layer, POOLED], order[:, : self.seen])
        tokens, pooled = found[self.layer][..., 0].transpose(1, 2), found[POOLED].flatten(1)
        truth = patches_of(pixels, self.side)
        truth = truth.gather(1, order[:, self.seen :, None].expand(-1, -1, truth.shape[2]))
        loss = reconstruction_loss(self.decoder(tokens, pooled, order), truth)
        step.update(self.adam, loss)
        return {"loss": loss.detach(), "dimensions": dimensions(pooled.detach())}
