"""Linear heads on a frozen encoder's layers, all trained together: what eval/zhang16.py trains."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eval.networks.learner import Learner, Truth, caffe_groups
from ssl_bench.counter import generator
from ssl_bench.data.store.squares import ImageStore
from ssl_bench.encoders.weights import weights_digest
from ssl_bench.errors import DataError, Degenerate
from ssl_bench.evaluation.features import pooled_side
from ssl_bench.evaluation.harness import Subject
from ssl_bench.training.augment import center_crop, random_crop_flip
from ssl_bench.training.pretext import Step

SCORED = 128  # test images per forward pass


class Frozen:
    """A copy of the subject's encoder that only computes: eval mode, no gradient, 32 bit.

    It is no nn.Module, so the training loop cannot switch its mode, and does not save it.
    """

    def __init__(self, subject: Subject, dimensions: int) -> None:
        self.layers, self.spec, self.dimensions = subject.layers, subject.spec, dimensions
        self.encoder = deepcopy(subject.encoder).eval().requires_grad_(False)
        self.digest = weights_digest(self.encoder.state_dict())

    @torch.no_grad()
    def __call__(self, crops: Tensor) -> list[Tensor]:
        """uint8 (B, 3, S, S) -> each layer's resized map, (B, C, g, g)."""
        self.encoder.to(crops.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        maps = self.encoder(self.spec.normalization.apply(crops), self.layers)
        return [resize(maps[layer], self.dimensions) for layer in self.layers]

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Channels and side of each layer's resized map. DataError for values not finite."""
        size = self.spec.image_size
        maps = self(torch.zeros(1, 3, size, size, dtype=torch.uint8))
        for layer, found in zip(self.layers, maps, strict=True):
            if not bool(found.isfinite().all()):
                raise Degenerate(f"layer {layer} gives values that are not finite")
        return {k: (m.shape[1], m.shape[-1]) for k, m in zip(self.layers, maps, strict=True)}

    def check(self) -> None:
        """DataError unless weights and statistics are what they were."""
        if weights_digest(self.encoder.cpu().state_dict()) != self.digest:
            raise DataError("the encoder's weights changed during a frozen evaluation")


def resize(maps: Tensor, dimensions: int) -> Tensor:
    """Bilinear, to the largest grid of at most `dimensions` numbers: (B, C, h, w) -> (B, C, g, g).

    A map that is not larger stays as it is.
    """
    grid = pooled_side(maps.shape[1], maps.shape[-1], dimensions)
    if grid == maps.shape[-1]:
        return maps
    return F.interpolate(maps, size=(grid, grid), mode="bilinear", align_corners=False)


class Head(nn.Module):
    """Batch norm per channel, without scale and shift, and a linear classifier.

    Per channel, as in the published networks of Zhang, Goyal and RotNet, not per number. The
    statistics for test images are the average over all batches (momentum None): what a frozen
    encoder gives does not drift, so old batches are as good as new ones.
    """

    def __init__(self, channels: int, grid: int, classes: int, random: torch.Generator) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False, momentum=None)
        self.linear = nn.Linear(channels * grid * grid, classes)
        nn.init.normal_(self.linear.weight, std=0.01, generator=random)
        nn.init.zeros_(self.linear.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, g, g) -> logits (B, classes)."""
        return self.linear(self.norm(maps).flatten(1))


class LinearHeads(nn.Module):
    """One head per layer; none knows of the others, so any subset learns the same."""

    def __init__(self, shapes: Mapping[str, tuple[int, int]], classes: int, seed: int) -> None:
        super().__init__()
        self.each = nn.ModuleList(
            Head(*shape, classes, generator(seed, "head", layer)) for layer, shape in shapes.items()
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Each layer's (B, C, g, g) -> its logits (B, classes)."""
        return [head(found) for head, found in zip(self.each, maps, strict=True)]


def learner(frozen: Frozen, heads: LinearHeads, labels: np.ndarray, lr: float) -> Learner:
    """The loop's task, for labels int64 (N,).

    A bias learns at twice the rate and does not decay, as in Zhang's network file.
    """

    def sgd(heads: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(caffe_groups(heads, lr), momentum=0.9)

    return Learner(heads, sgd, partial(losses, frozen), {"labels": torch.from_numpy(labels)})


def losses(
    frozen: Frozen, heads: nn.Module, images: Tensor, truth: Truth, step: Step
) -> dict[str, Tensor]:
    """Each layer's cross-entropy on random crops, by name."""
    crops = random_crop_flip(images, frozen.spec.image_size, step.random)
    named = zip(frozen.layers, heads(frozen(crops)), strict=True)
    return {f"loss_{layer}": F.cross_entropy(logits, truth["labels"]) for layer, logits in named}


@torch.no_grad()
def predict(frozen: Frozen, heads: LinearHeads, test: ImageStore) -> np.ndarray:
    """The class with the highest logit, per layer and test image: int64 (layers, N)."""
    heads.eval()
    device = next(heads.parameters()).device
    found = []
    for start in range(0, len(test), SCORED):
        pixels = test.images(slice(start, start + SCORED)).to(device)
        logits = heads(frozen(center_crop(pixels, frozen.spec.image_size)))
        found.append(torch.stack([scores.argmax(1) for scores in logits]).cpu().numpy())
    return np.concatenate(found, 1)
