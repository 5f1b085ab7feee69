"""Semantic segmentation with FCN-32s, `segmentation/fcn32s@1`: mean IU after training on masks.

Long, Shelhamer, Darrell, CVPR 2015, on AlexNet (networks/fcn.py), trained end to end by SGD from
the encoder's weights and fresh fc6 and fc7, for a fixed number of steps. Nothing is chosen: the
last step counts. Published with it, on the 736 images "seg11valid": 48.0 with ImageNet's labels,
29.7 for the context encoder, 19.8 for random weights (Pathak et al., CVPR 2016, table 2).

The learning rate 1e-4 belongs to the normalised loss, the mean over an image's labelled pixels
(voc-fcn-alexnet/solver.prototxt says so); the VGG networks' 1e-10 belongs to the sum. Gradients of
20 images are averaged, so the loss is the mean over the images of each one's mean.

    bench segment --data voc12+sbd
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from eval.finetuning import FineTunedOnWhole
from ssl_bench.data.dataset import VOID
from ssl_bench.errors import DataError
from ssl_bench.evaluation.harness import EvaluationConfig, Subject
from ssl_bench.evaluation.metrics import Metric
from ssl_bench.evaluation.metrics.overlap import (
    background_iu,
    confusion,
    intersection_over_union,
    mean_iu,
    mean_iu_interval,
    resampled_iu,
)
from ssl_bench.evaluation.metrics.resampling import Intervals, Resampled
from ssl_bench.training.config import TrainConfig

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from eval.networks.fcn import FCN
    from eval.networks.frame import Framed
    from eval.networks.learner import Truth
    from ssl_bench.data.normalization import Normalization
    from ssl_bench.data.store.whole import WholeStore
    from ssl_bench.encoders.encoder import Encoder
    from ssl_bench.encoders.spec import EncoderSpec
    from ssl_bench.training.pretext import Step

SCORED = 10  # test images per forward pass
SHOWN = 6  # test images in the picture
LOOKED_AT = 64  # masks at a time
RESCALED_BY = 64  # training images
BACKGROUND = "background"


class FCN32sConfig(EvaluationConfig, TrainConfig):
    """The settings of `segmentation/fcn32s@1`."""

    steps: int = Field(default=100_000, ge=1, description="updates")
    batch_size: int = Field(default=20, ge=1, description="images per update")
    lr: float = Field(
        default=1e-4, gt=0, le=1e30, description="SGD's learning rate, for a mean over pixels"
    )
    short: int = Field(
        default=0, ge=0, description="short side that images are resized to, px; 0: not enlarged"
    )
    longest: int = Field(
        default=500, ge=32, description="largest long side, px; images above it are reduced"
    )
    kernel: int = Field(
        default=6, ge=1, le=32,
        description="side of fc6; the padding follows it, 100 px for 6, 52 px for 3 (alexnet)",
    )  # fmt: skip
    head: int = Field(default=4096, ge=1, description="channels of fc6 and fc7")
    freeze: bool = Field(default=False, description="keep the encoder's weights as they are")
    rescale: bool = Field(
        default=False, description="set the layers' scales by training images before fine-tuning"
    )


class FCN32s(FineTunedOnWhole):
    """Mean IU of FCN-32s on the test masks, after training on those of train."""

    Config = FCN32sConfig
    protocol = "segmentation/fcn32s@1"
    source = 'Long et al., "Fully Convolutional Networks", CVPR 2015, voc-fcn-alexnet'
    metrics = (Metric("mean_iu", interval="over the test images, percentiles of a bootstrap"),)
    title, task, scored, rescaled_by = "segmentation", "segmentation", SCORED, RESCALED_BY

    def check(self, splits: Mapping[str, WholeStore]) -> None:
        """Something to learn, and something to judge."""
        train, test = splits["train"], splits["test"]
        if not _any_pixel(train, lambda masks: (masks != 0) & (masks != VOID)):
            raise DataError(
                "the training masks show background or void only: there is no class to learn"
            )
        if not _any_pixel(test, lambda masks: masks != VOID):
            raise DataError("the test masks are void throughout: there is no pixel to judge")

    def prepared(
        self, subject: Subject, train: WholeStore, test: WholeStore, workers: int = 2
    ) -> tuple[Framed, Framed]:
        """In one frame."""
        from eval.networks.frame import frames

        learnt, judged = frames(train, test)
        return learnt, judged

    def network(self, encoder: Encoder, layer: str, spec: EncoderSpec, train: Framed) -> FCN:
        """An FCN of the classes and the background."""
        from eval.networks.fcn import FCN

        config, classes = self.config, len(names_of(train))
        return FCN(
            encoder, layer, classes,
            kernel=config.kernel, head=config.head, freeze=config.freeze, seed=config.seed,
        )  # fmt: skip

    def rescale(
        self, network: FCN, train: Framed, which: np.ndarray, spec: EncoderSpec
    ) -> dict[str, float]:
        """By these images, padded as far as the largest of them."""
        import torch

        from eval.networks.frame import normalized
        from ssl_bench.encoders.rescale import rescale_with_head

        sizes = torch.from_numpy(train.store.sizes[which])
        images = normalized(train.store.images(which), sizes, spec.normalization)
        padded = network.padded(images)
        return rescale_with_head(network, network.fc67, network.features, padded, spec.arch)

    def optimizer(self, network: nn.Module) -> Optimizer:
        """SGD. Only the score's bias learns at twice the rate and does not decay, as published."""
        import torch

        from eval.networks.learner import caffe_groups

        groups = caffe_groups(network, self.config.lr, biases="score.bias")
        return torch.optim.SGD(groups, momentum=0.9, fused=True)

    def truth(self, train: Framed) -> Truth:
        """The `sizes` int64 (N, 2); the masks come with the images."""
        import torch

        return {"sizes": torch.from_numpy(train.store.sizes)}

    def loss(
        self, network: FCN, images: Tensor, truth: Truth, step: Step, spec: EncoderSpec
    ) -> Tensor:
        """Of every labelled pixel, on mirrored images; uint8 (B, 3, H, W)."""
        from eval.networks.fcn import pixel_loss
        from eval.networks.frame import mirror, normalized

        sizes, masks = truth["sizes"], step.batch["masks"][:, None]
        turned = mirror(images, sizes, step.random)
        scores = network(normalized(turned, sizes, spec.normalization))
        return pixel_loss(scores, mirror(masks, sizes, step.random)[:, 0])

    def predict(
        self, network: FCN, images: Tensor, test: Framed, which: slice, spec: EncoderSpec
    ) -> np.ndarray:
        """Each image's confusion, int32 (B, K, K), at the size of the stored image."""
        found = predicted_masks(network, images, test.store.sizes[which], spec.normalization)
        classes = len(names_of(test))
        pairs = zip(test.masks(which).numpy(), found, strict=True)
        # Void outside the image, whatever is found there.
        return np.stack([confusion(truth, mask, classes) for truth, mask in pairs])

    def predictions(self, rows: np.ndarray, test: Framed) -> dict[str, np.ndarray]:
        return {"confusion": rows}

    def described(
        self, network: FCN, predictions: Mapping[str, np.ndarray], train: Framed, test: Framed
    ) -> dict[str, Any]:
        """`classes` names the confusions' rows, `iu` gives the value of those in the truth.

        `frame` is the height and width that images are padded to, `padding` what the network adds.
        """
        total = predictions["confusion"].sum(0, dtype=np.int64)
        values = zip(names_of(test), intersection_over_union(total).tolist(), strict=True)
        return super().described(network, predictions, train, test) | {
            "classes": list(names_of(test)),
            "iu": {name: round(value, 2) for name, value in values if value == value},
            "frame": list(train.size),
            "padding": network.padding,
            "stride": network.geometry.stride,
        }

    def draw(
        self,
        network: FCN,
        predictions: Mapping[str, np.ndarray],
        test: Framed,
        spec: EncoderSpec,
        folder: Path,
        title: str,
    ) -> None:
        """True and predicted masks of some test images, side by side."""
        from ssl_bench.pictures.plots import mask_grid

        shown = np.linspace(0, len(test) - 1, min(SHOWN, len(test))).astype(int)
        device = next(network.parameters()).device
        pictures, truths, masks = [], [], []
        for i in shown.tolist():
            one, (h, w) = test.images(slice(i, i + 1)), test.store.sizes[i].tolist()
            (found,) = predicted_masks(
                network, one.to(device), test.store.sizes[i : i + 1], spec.normalization
            )
            pictures.append(one[0, :, :h, :w].permute(1, 2, 0).numpy())
            truths.append(test.masks(slice(i, i + 1))[0, :h, :w].numpy())
            masks.append(found[:h, :w])
        mask_grid(pictures, truths, masks, names_of(test), folder / "masks.png", title)

    def score(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`mean_iu`, `pixel_accuracy`, and `iu_0` … by class."""
        return mean_iu(predictions["confusion"])

    def intervals(self, predictions: Mapping[str, np.ndarray]) -> Intervals:
        """Of mean IU, over resamples of the test images."""
        return {"mean_iu": mean_iu_interval(predictions["confusion"])}

    def chance(self, predictions: Mapping[str, np.ndarray]) -> Mapping[str, float]:
        """Of background everywhere."""
        return background_iu(predictions["confusion"])

    def resampled(self, predictions: Mapping[str, np.ndarray]) -> Resampled:
        """Mean IU over resamples of the test images."""
        return resampled_iu(predictions["confusion"])


def names_of(store: Framed) -> tuple[str, ...]:
    """The classes by number in the masks: the background is 0."""
    return BACKGROUND, *store.store.index.classes


def predicted_masks(
    network: FCN, images: Tensor, sizes: np.ndarray, normalization: Normalization
) -> np.ndarray:
    """The class with the highest score at every pixel, uint8 (B, H, W), of framed images."""
    import torch

    from eval.networks.frame import normalized

    inputs = normalized(images, torch.from_numpy(sizes).to(images.device), normalization)
    # Of argmax, the same places three times as slowly: torch vectorises no reduction over planes.
    with torch.no_grad():
        return network(inputs).max(1).indices.to(torch.uint8).cpu().numpy()


def _any_pixel(store: WholeStore, wanted: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Whether a pixel of any mask is `wanted`; most often the first masks tell."""
    for start in range(0, len(store), LOOKED_AT):
        which = np.arange(start, min(start + LOOKED_AT, len(store)))
        if wanted(store.masks(which).numpy()).any():
            return True
    return False
