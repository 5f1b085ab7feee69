"""Multi-crop: two large views of an image and several small ones, all compared with the large.

Caron et al., "SwAV", NeurIPS 2020, arXiv 2006.09882, section 3.2; so do DINO, iBOT and
LeJEPA. Small views are of a smaller part of the image, at fewer pixels. A method that compares them
draws `crops`, sends them through the encoder by `represented`, and has its loss from `across_views`
where views tell what others are.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.encoders.build import learn_up_to
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.libraries import refusal
from ssl_bench.encoders.spec import ImageSize, least_size
from ssl_bench.training.precision import full_precision
from ssl_bench.training.pretext import Pretext, Step
from ssl_bench.training.two_views import TwoViewsConfig
from ssl_bench.training.views import multi_crop

LARGE = 2
SMALLEST = 0.05  # share of the image's area that a small view shows at least
PATCHES = 32  # px, of which whole multiples are taken: patches of 8, 16 and 32 px fill them
View = Callable[..., Tensor]  # simclr_view, byol_view


def small_size(arch: str, image_size: int) -> int:
    """The small views' side: about 96 px for 224, and no less than the network takes."""
    return max(least_size(arch), PATCHES * round(image_size * 96 / 224 / PATCHES))


class MultiCropConfig(TwoViewsConfig):
    """Two large views, and so many small ones."""

    small_crops: int = Field(default=6, ge=0, description="small views beside the two large ones")
    small_size: ImageSize = Field(
        default_factory=lambda given: small_size(given["arch"], given["image_size"]),
        description="side of the small views, px; unset: 96 / 224 of the image size, to 32 px",
    )
    crop_split: float = Field(
        default=0.14, gt=SMALLEST, lt=1,
        description="share of the image's area that a large view shows at least, a small at most",
    )  # fmt: skip


def representation(encoder: Encoder, config: MultiCropConfig) -> tuple[str, int]:
    """The last layer's name and its channels; UsageError for a network that takes one size only.

    Of a network without `pooled` it is a map, of which `represented` takes the mean: as a vector,
    its length would change with the image's size.
    """
    layer = encoder.layers[-1]
    encoder.take_any_size()
    with refusal(config.arch, config.small_size, config.image_size, option="--small-size"):
        encoder.shape(layer, config.small_size)
    learn_up_to(encoder, layer, config.image_size)  # several devices wait for all others' gradients
    return layer, encoder.shape(layer, config.image_size)[0]


def crops(
    task: Pretext, images: Tensor, step: Step, large: tuple[View, View], small: View
) -> list[Tensor]:
    """uint8 (B, 3, R, R) -> normalised (2·B, 3, S, S) and, if there are any, (V·B, 3, s, s).

    One view of all images after the other, each of its own random numbers.
    """
    c = task.config
    wide, narrow = (c.crop_split, 1.0), (SMALLEST, c.crop_split)
    recipes = [
        *(partial(view, size=c.image_size, scale=wide) for view in large),
        *[partial(small, size=c.small_size, scale=narrow)] * c.small_crops,
    ]
    views = multi_crop(images, step.random, recipes)
    drawn = [task.normalization.standardize(view) for view in views]
    return [torch.cat(views) for views in (drawn[:LARGE], drawn[LARGE:]) if views]


def represented(encoder: nn.Module, layer: str, pixels: Sequence[Tensor]) -> Tensor:
    """What `crops` gave -> (V·B, C); one pass a size, whose views share a batch's statistics."""
    return torch.cat([encoder(views, [layer])[layer].mean((2, 3)) for views in pixels])


@full_precision
def across_views(targets: Tensor, logits: Tensor) -> Tensor:
    """Cross-entropy of targets (2, B, K), whose rows sum to 1, and logits (V, B, K), V ≥ 2.

    The mean over images and over all pairs of different views; the first two logits are those of
    the views that the targets are of.
    """
    pairs = -torch.einsum("tbk,vbk->tv", targets, F.log_softmax(logits, 2)) / logits.shape[1]
    others = 1 - torch.eye(*pairs.shape, dtype=pairs.dtype, device=pairs.device)
    return (pairs * others).sum() / (LARGE * (len(logits) - 1))
