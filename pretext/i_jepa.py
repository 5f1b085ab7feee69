"""I-JEPA: guess a teacher's features of four blocks of an image from what lies around them.

Assran, Duval, Misra, Bojanowski, Vincent, Rabbat, LeCun, Ballas, "Self-Supervised Learning from
Images with a Joint-Embedding Predictive Architecture", CVPR 2023, arXiv 2301.08243; details of the
released code, facebookresearch/ijepa. Vision transformers only. Published by stable-pretraining for
ViT-S/16 on Imagenette at 224 px: 33.2 by kNN after 200 epochs, untuned; docs/i-jepa.md.

    bench pretrain i-jepa --recipe small --data folder:photos

No view is made by hand, and no pixel is guessed: a momentum teacher sees the whole image, the
encoder a block of it without the targets, and a narrow predictor, told where a target lies, guesses
what the teacher makes of it. The teacher is what is kept.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pretext.mae import HEAD, Decoder, rows_of
from ssl_bench.counter import Randomness
from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.build import learn_up_to
from ssl_bench.encoders.encoder import POOLED, Encoder
from ssl_bench.encoders.spec import ImageSize
from ssl_bench.training.collapse import watched
from ssl_bench.training.config import PretextConfig, Recipe
from ssl_bench.training.optimizers import build_optimizer
from ssl_bench.training.precision import full_precision
from ssl_bench.training.pretext import Pretext, Step
from ssl_bench.training.schedule import Schedule
from ssl_bench.training.teacher import cosine_course, follow, teacher_of
from ssl_bench.training.views import resized_crop

TARGETS = 4
# Shares of the image's patches, and a target's height by its width.
TARGET, ASPECT, CONTEXT = (0.15, 0.2), (0.75, 1.5), (0.85, 1.0)
LEAST, TRIES = 11, 4  # patches of a context that are enough; blocks are drawn so often for them
SMALL: dict[str, Any] = {
    "arch": "timm:vit_small_patch8_224", "image_size": 64, "steps": 7_400, "batch_size": 256,
    "lr": 5e-4, "warmup": 740, "predictor_depth": 4, "predictor_width": 192,
}  # fmt: skip


class IJEPAConfig(PretextConfig):
    """The released ViT-H/14's, 300 epochs: AdamW at 10⁻³ for a batch of 2048, decay 0.04 to 0.4."""

    recipes: ClassVar[Mapping[str, Recipe]] = {"small": Recipe(1, SMALL)}
    arch: str = Field(
        default="timm:vit_huge_patch14_gap_224",
        description="encoder: a vision transformer of timm",
    )
    image_size: ImageSize = Field(default=224, description="side of the network's input, px")
    steps: int = Field(default=187_500, ge=1, description="updates")
    batch_size: int = Field(default=2048, ge=1, description="images per update over all devices")
    lr: float = Field(
        default=1.25e-4, gt=0, le=1e30,
        description="learning rate for 256 images an update: times --batch-size / 256",
    )  # fmt: skip
    schedule: Schedule = Field(default="cosine", description="the learning rate's course")
    warmup: int = Field(
        default_factory=lambda given: given["steps"] * 2 // 15, ge=0,
        description="steps over which the learning rate rises from 0, before its course; unset: 40 "
        "of 300 epochs, 2/15 of the steps",
    )  # fmt: skip
    weight_decay: float = Field(
        default=0.04, ge=0, description="of all but biases and scales, at first"
    )
    weight_decay_end: float = Field(default=0.4, ge=0, description="at the end, by half a cosine")
    momentum: float = Field(
        default=0.996, ge=0, le=1, description="of the teacher's weights in the first step"
    )
    momentum_end: float = Field(
        default=1.0, ge=0, le=1, description="of the teacher's weights at the end, in a line"
    )
    smallest_crop: float = Field(
        default=0.3, gt=0, le=1, description="share of the image that a crop shows at least"
    )
    predictor_depth: int = Field(default=12, ge=1, description="blocks of the predictor")
    predictor_width: int = Field(
        default=384, ge=HEAD, multiple_of=HEAD, description="channels of the predictor's tokens"
    )


class Sizes(NamedTuple):
    """Of the blocks of a step, in patches: a target's height and width, the context's side."""

    height: int
    width: int
    side: int


def block_sizes(random: Randomness, rows: int) -> Sizes:
    """By the numbers of the batch's first image: one size for all, as in the released code."""
    u = random.uniform("sizes", 3)[0].tolist()
    ranges = zip(u, (TARGET, ASPECT, CONTEXT), strict=True)
    share, aspect, whole = (low + each * (high - low) for each, (low, high) in ranges)
    sides = (share * aspect) ** 0.5, (share / aspect) ** 0.5, whole**0.5
    return Sizes(*(min(rows, max(1, round(rows * side))) for side in sides))


def block_places(u: Tensor, rows: int, height: int, width: int) -> Tensor:
    """Numbers (…, 2) in [0, 1) -> int64 (…, height · width), the patches of a block placed there.

    All places of the grid are as likely; the released code leaves its last row and column out.
    """
    top = (u[..., 0] * (rows - height + 1)).long()[..., None, None]
    left = (u[..., 1] * (rows - width + 1)).long()[..., None, None]
    down = torch.arange(height, device=u.device)[:, None]
    across = torch.arange(width, device=u.device)
    return ((top + down) * rows + left + across).flatten(-2)


def blocks(random: Randomness, rows: int, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Of each image bool (B, N), its context without the targets; int64 (B, TARGETS, M), these.

    Of TRIES draws it is the first whose context has LEAST patches, or the one with the most.
    """
    u = random.uniform("blocks", TRIES, TARGETS + 1, 2)
    targets = block_places(u[:, :, 1:], rows, sizes.height, sizes.width)
    around = block_places(u[:, :, 0], rows, sizes.side, sizes.side)
    contexts = torch.zeros(len(u), TRIES, rows**2, dtype=torch.bool, device=u.device)
    contexts = contexts.scatter(2, around, True).scatter(2, targets.flatten(2), False)
    # argmax is the first of equals.
    chosen = contexts.sum(2).clamp(max=LEAST).argmax(1)[:, None, None]
    return (
        contexts.take_along_dim(chosen, 1)[:, 0],
        targets.take_along_dim(chosen[..., None], 1)[:, 0],
    )


def masks(random: Randomness, rows: int, batch_size: int) -> tuple[Tensor, Tensor]:
    """int64 (B, K), the patches that the encoder sees; int64 (B, TARGETS, M), those to guess.

    All contexts of the global batch are trimmed to its smallest, by leaving out patches at random.
    How many these are is found on the CPU, where every process draws the numbers of all images: the
    same for each, and a GPU is not waited for.
    """
    everyone = replace(random, positions=torch.arange(batch_size), drawn=None)
    sizes = block_sizes(everyone, rows)
    least = int(blocks(everyone, rows, sizes)[0].sum(1).min())
    context, targets = blocks(random, rows, sizes)
    # At least one: in a grid of 4 × 4 targets cover everything in all tries once in 10⁹ images.
    order = (random.uniform("order", rows**2) + ~context).argsort(1)
    return order[:, : max(1, least)], targets


@full_precision
def normalized(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h · w, C), each patch's features of mean 0 and variance 1."""
    tokens = tokens_of(maps)
    return F.layer_norm(tokens, tokens.shape[2:])


@full_precision
def feature_loss(guessed: Tensor, taught: Tensor) -> Tensor:
    """Smooth L1 of two (…, C): ½ d² of differences below 1, |d| − ½ of others; the mean."""
    return F.smooth_l1_loss(guessed, taught)


class IJEPA(Pretext):
    """A vision transformer, its teacher, and the predictor between them."""

    Config = IJEPAConfig
    version = 1
    exported: ClassVar[str] = "teacher.0"

    def __init__(self, config: IJEPAConfig, encoder: Encoder, normalization: Normalization) -> None:
        super().__init__(config, encoder, normalization)
        self.rows, self.layer = rows_of(encoder, "i-jepa", config), encoder.maps[-1]
        learn_up_to(encoder, POOLED, config.image_size)
        channels = encoder.shape(POOLED, config.image_size)[0]
        shape = config.predictor_depth, config.predictor_width
        self.predictor = Decoder(channels, channels, self.rows, *shape, config)
        self.teacher = teacher_of(encoder)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """AdamW."""
        c, parts = self.config, (self.encoder, self.predictor)
        rate = c.lr * c.batch_size / 256
        self.adam = build_optimizer("adamw", parts, rate, c.weight_decay)
        return [self.adam]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """Crop; the teacher sees all; each target is guessed apart from the other three."""
        c = self.config
        crops = resized_crop(images, c.image_size, step.random, (c.smallest_crop, 1.0))
        pixels = self.normalization.standardize(crops)
        keep, targets = masks(step.random, self.rows, c.batch_size)
        found = self.encoder(pixels, [self.layer, POOLED], keep)
        pooled = found[POOLED].flatten(1)
        with torch.no_grad():
            taught = normalized(self.teacher[0](pixels, [self.layer])[self.layer])  # (B, N, C)
        seen = tokens_of(found[self.layer]), pooled, keep
        tokens, whole, at = (each.repeat_interleave(TARGETS, 0) for each in seen)
        guessed = self.predictor(tokens, whole, torch.cat([at, targets.flatten(0, 1)], 1))
        truth = taught.take_along_dim(targets.flatten(1)[..., None], 1)  # (B, TARGETS · M, C)
        loss = feature_loss(guessed.unflatten(0, (-1, TARGETS)).flatten(1, 2), truth)
        # The first group is the one whose weights decay.
        decay = cosine_course(c.weight_decay, c.weight_decay_end, step.done)
        self.adam.param_groups[0]["weight_decay"] = decay
        step.update(self.adam, loss)
        momentum = c.momentum + (c.momentum_end - c.momentum) * step.done
        follow(self.teacher, (self.encoder,), momentum)
        return {"loss": loss.detach(), **watched(taught.flatten(1), pooled)}


def tokens_of(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h · w, C)."""
    return maps.flatten(2).transpose(1, 2)
