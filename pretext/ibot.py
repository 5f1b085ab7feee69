"""iBOT: DINO, and the teacher's distribution over what hidden patches are.

Zhou, Wei, Wang, Shen, Xie, Yuille, Kong, "iBOT: Image BERT Pre-Training with Online Tokenizer",
ICLR 2022, arXiv 2111.07832; details of the released code, bytedance/ibot. Vision transformers only.
Published for ViT-S/16 on ImageNet: 75.2 by kNN after 800 epochs; docs/ibot.md.

    bench pretrain ibot --recipe small --data folder:photos

Of half of the large views the student does not see some blocks of patches: a learnt token stands
there. The teacher sees them all. Behind the same head, what it makes of a hidden patch is what the
student is to tell, as it tells of other views what it makes of the whole: the teacher is a
tokenizer that learns along. Its encoder is what is kept.
"""

from collections.abc import Mapping
from math import log
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from pretext.dino import DINO, SMALL_VIEW, DINOConfig
from pretext.mae import LAYER_NORM, rows_of
from ssl_bench.counter import Randomness
from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.errors import UsageError
from ssl_bench.training.collapse import watched
from ssl_bench.training.config import Recipe
from ssl_bench.training.multi_crop import LARGE, across_views, crops, represented
from ssl_bench.training.optimizers import build_optimizer
from ssl_bench.training.precision import full_precision
from ssl_bench.training.pretext import Step
from ssl_bench.training.teacher import teacher_of
from ssl_bench.training.two_views import BYOL_VIEWS

STRETCH = 0.3  # of a block, its height by its width: 0.3 to 1 / 0.3
TRIES, PATIENCE = 40, 10  # blocks drawn for a view; failures in a row after which it is left
SMALL: dict[str, Any] = {
    "arch": "timm:vit_small_patch8_224", "image_size": 64, "steps": 7_400, "batch_size": 256,
    "warmup": 740, "outputs": 2048, "small_crops": 6,
}  # fmt: skip


class IBOTConfig(DINOConfig):
    """The paper's ViT-S/16, 800 epochs: as DINO's, with 8,192 outputs and ten small views."""

    recipes: ClassVar[Mapping[str, Recipe]] = {"small": Recipe(1, SMALL)}
    outputs: int = Field(default=8192, ge=2, description="what distributions are over: K")
    small_crops: int = Field(default=10, ge=0, description="small views beside the two large ones")
    crop_split: float = Field(
        default=0.25, gt=0.05, lt=1,
        description="share of the image's area that a large view shows at least, a small at most",
    )  # fmt: skip
    whole: float = Field(
        default=0.5, ge=0, lt=1, description="share of the large views of which nothing is hidden"
    )
    masked: float = Field(
        default=0.3, gt=0, lt=1, description="share of the patches hidden in the others, at most"
    )
    masked_spread: float = Field(
        default=0.2, ge=0, lt=1, description="how far that share is drawn to either side"
    )

    @model_validator(mode="after")
    def _some_of_it(self) -> "IBOTConfig":
        if not self.masked_spread <= self.masked <= 1 - self.masked_spread:
            raise ValueError("--masked less or plus --masked-spread is not between 0 and 1")
        return self


def shares(random: Randomness, config: IBOTConfig) -> Tensor:
    """Of each image's large views (B, 2), the share of patches that may be hidden."""
    u = random.uniform("share", LARGE, 2)
    drawn = config.masked + config.masked_spread * (2 * u[..., 1] - 1)
    return torch.where(u[..., 0] < config.whole, 0, drawn)


def block_masks(random: Randomness, rows: int, shares: Tensor) -> Tensor:
    """bool (B, 2, rows²), the hidden patches of each large view: blocks, as BEiT lays them.

    A block's area is drawn between a ninth of the grid and what is still to be hidden, and it is
    laid if it hides some patch more and no patch too many; so `shares` (B, 2) are hidden at most.
    """
    u, least = random.uniform("blocks", LARGE, TRIES, 4), (rows // 3) ** 2
    span, wanted = torch.arange(rows, device=u.device), shares * rows**2
    hidden = u.new_zeros((*u.shape[:2], rows, rows), dtype=torch.bool)
    failed = torch.zeros_like(wanted)
    for of_area, of_aspect, *places in u.permute(2, 3, 0, 1):  # one block of all views
        left = wanted - hidden.sum((2, 3))
        area = (least + (left - least) * of_area).clamp(min=0)
        aspect = ((2 * of_aspect - 1) * log(1 / STRETCH)).exp()
        block = torch.ones_like(hidden)
        sides = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
        for side, place, dim in zip(sides, places, (-1, -2), strict=True):
            start = (place * (rows - side + 1)).floor()
            inside = (span >= start[..., None]) & (span < (start + side)[..., None])
            block &= inside.unsqueeze(dim)
        more = (block & ~hidden).sum((2, 3))
        fits = (more > 0) & (more <= left) & (failed < PATIENCE)
        fits &= (sides[0] < rows) & (sides[1] < rows)
        hidden |= block & fits[..., None, None]
        failed = torch.where(fits, 0, failed + 1)
    return hidden.flatten(2)


@full_precision
def hidden_loss(targets: Tensor, logits: Tensor, hidden: Tensor) -> Tensor:
    """Cross-entropy of targets and logits (V, N, K) over hidden patches, bool (V, N).

    The mean over a view's hidden patches, then over all views: those that hide nothing count as 0.
    """
    each = -(targets * F.log_softmax(logits, 2)).sum(2) * hidden
    return (each.sum(1) / hidden.sum(1).clamp(min=1)).mean()


class IBOT(DINO):
    """DINO's student and teacher; a token for hidden patches, and a norm behind all of them."""

    Config = IBOTConfig
    version = 1
    patch_centre: Tensor

    def __init__(self, config: IBOTConfig, encoder: Encoder, normalization: Normalization) -> None:
        self.rows = rows_of(encoder, "ibot", config)
        if (config.masked + config.masked_spread) * self.rows**2 < 1:
            raise UsageError(f"--masked {config.masked:g} hides none of {self.rows**2} patches")
        super().__init__(config, encoder, normalization)
        channels = encoder.shape(self.layer, config.image_size)[0]
        self.map = encoder.maps[-1]
        self.norm = LAYER_NORM(channels)  # the trunk's own is behind the class token or the mean
        self.teacher.extend(teacher_of(self.norm))
        self.token = nn.Embedding(1, channels)
        nn.init.zeros_(self.token.weight)
        self.register_buffer("patch_centre", torch.zeros(config.outputs))

    @property
    def student(self) -> tuple[nn.Module, ...]:
        """See DINO; the token for hidden patches learns, and no teacher needs it."""
        return self.encoder, self.head, self.norm

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """AdamW, or what the configuration names."""
        c, learning = self.config, (*self.student, self.token)
        self.optimizer = build_optimizer(c.optimizer, learning, c.rate, c.weight_decay)
        return [self.optimizer]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """All views tell what the teacher makes of the large ones, hidden patches what of them."""
        c, by_view, by_image = self.config, (-1, len(images)), (LARGE * len(images), -1)
        pixels = crops(self, images, step, BYOL_VIEWS, SMALL_VIEW)
        masks = block_masks(step.random, self.rows, shares(step.random, c))
        hidden = masks.transpose(0, 1).flatten(0, 1)  # (2·B, N), views in the order of `crops`
        token = self.token(hidden.new_zeros(1, dtype=torch.int64))[0]
        with self.encoder.hiding(hidden, token):
            large, tokens = self.seen(self.encoder, self.norm, pixels[0])
        small = [represented(self.encoder, self.layer, [views]) for views in pixels[1:]]
        features = torch.cat([large, *small])
        outputs, guesses = self.head(features), self.head(tokens)  # (V·B, K), (2·B·N, K)
        with torch.no_grad():
            encoder, head, norm = self.teacher
            taught, truths = map(head, self.seen(encoder, norm, pixels[0]))
            of_views = self.sharpened(taught, self.centre, step).unflatten(0, by_view)
            of_patches = self.sharpened(truths, self.patch_centre, step).unflatten(0, by_image)
        told = across_views(of_views, outputs.unflatten(0, by_view) / c.temperature)
        guessed = hidden_loss(of_patches, guesses.unflatten(0, by_image) / c.temperature, hidden)
        self.move(told + guessed, step)
        self.recentre(self.centre, taught, step)
        self.recentre(self.patch_centre, truths, step)
        values = {"loss": (told + guessed).detach(), "hidden": guessed.detach()}
        return values | watched(outputs[: len(large)], features[: len(large)])

    def seen(self, encoder: nn.Module, norm: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) -> (B, C), what stands for an image; (B·N, C), its patches."""
        found = encoder(pixels, [self.map, self.layer])
        tokens = found[self.map].flatten(2).transpose(1, 2)  # (B, N, C)
        return found[self.layer].mean((2, 3)), norm(tokens).flatten(0, 1)
