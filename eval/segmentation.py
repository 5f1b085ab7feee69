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

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from eval.networks.fcn import FCN
from eval.networks.frame import Framed, frames, mirror, normalized
from eval.splits import some_images
from ssl_bench.data.dataset import VOID, Dataset, SplitName
from ssl_bench.data.normalization import Normalization
from ssl_bench.data.store.whole import WholeStore, open_whole
from ssl_bench.encoders.build import EncoderSpec
from ssl_bench.encoders.rescale import rescale_with_head
from ssl_bench.encoders.weights import weights_digest
from ssl_bench.errors import DataError, UsageError
from ssl_bench.evaluation.harness import Evaluation, EvaluationConfig, Outcome, Subject
from ssl_bench.evaluation.metrics.overlap import (
    confusion,
    intersection_over_union,
    mean_iu,
    resampled_iu,
)
from ssl_bench.evaluation.metrics.resampling import Resampled
from ssl_bench.pictures.plots import mask_grid
from ssl_bench.progress import progress
from ssl_bench.runtime import Runtime, best_device
from ssl_bench.training.loop import Report
from ssl_bench.training.loop import train as run_loop
from ssl_bench.training.pretext import Step, TrainConfig

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


# ---- training


def pixel_loss(scores: Tensor, masks: Tensor) -> Tensor:
    """Softmax cross-entropy: the mean over the images of each one's mean over labelled pixels.

    Scores (B, K, H, W), masks uint8 (B, H, W). An image without a labelled pixel counts as 0.
    """
    each = F.cross_entropy(scores, masks.long(), ignore_index=VOID, reduction="none")
    labelled = (masks != VOID).sum((1, 2)).clamp(min=1)
    return (each.sum((1, 2)) / labelled).mean()


class Learner(nn.Module):
    """The loop's task: every pixel's class, on mirrored images."""

    def __init__(
        self, network: FCN, sizes: np.ndarray, normalization: Normalization, lr: float
    ) -> None:
        super().__init__()
        self.network, self.normalization, self.lr = network, normalization, lr
        self.sizes = torch.from_numpy(sizes)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD. Only the score's bias learns at twice the rate and does not decay, as published."""
        named = {n: p for n, p in self.network.named_parameters() if p.requires_grad}
        last = [p for name, p in named.items() if name.endswith("score.bias")]
        others = [p for name, p in named.items() if not name.endswith("score.bias")]
        groups = [
            {"params": others, "lr": self.lr, "weight_decay": 5e-4},
            {"params": last, "lr": 2 * self.lr, "weight_decay": 0.0},
        ]
        self.sgd = torch.optim.SGD(groups, momentum=0.9)
        return [self.sgd]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """One update; images are uint8 (B, 4, H, W), the last channel their masks."""
        self.sizes = self.sizes.to(images.device)
        sizes = self.sizes[step.indices]
        turned = mirror(images, sizes, step.random)
        scores = self.network(normalized(turned[:, :3], sizes, self.normalization))
        loss = pixel_loss(scores, turned[:, 3])
        step.update(self.sgd, loss)
        return {"loss": loss.detach()}


# ---- the harness


class FCN32s(Evaluation):
    """Mean IU of FCN-32s on the test masks, after training on those of train."""

    Config = FCN32sConfig
    protocol = "segmentation/fcn32s@1"
    source = 'Long et al., "Fully Convolutional Networks", CVPR 2015, voc-fcn-alexnet'
    metric = "mean_iu"
    interval = "over the test images, percentiles of a bootstrap"

    def open(
        self,
        dataset: Dataset,
        split: SplitName,
        spec: EncoderSpec,
        *,
        skip_bad_images: bool = False,
        workers: int = 2,
    ) -> WholeStore:
        """Whole images with their masks."""
        short, longest = self.config.short, self.config.longest
        if short > longest:
            raise UsageError(f"--short {short} is more than --longest {longest}: raise the latter")
        return open_whole(
            dataset, split, "segmentation", short or None, longest,
            skip_bad_images=skip_bad_images, workers=workers,
        )  # fmt: skip

    def check(self, train: WholeStore, test: WholeStore) -> None:
        """Something to learn, and something to judge."""
        if not _any_pixel(train, lambda masks: (masks != 0) & (masks != VOID)):
            raise DataError(
                "the training masks show background or void only: there is no class to learn"
            )
        if not _any_pixel(test, lambda masks: masks != VOID):
            raise DataError("the test masks are void throughout: there is no pixel to judge")

    def score(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`mean_iu` with its interval, `pixel_accuracy`, and `iu_0` … by class."""
        return mean_iu(predictions["confusion"])

    def resampled(self, predictions: Mapping[str, np.ndarray]) -> Resampled:
        """Mean IU over resamples of the test images."""
        return resampled_iu(predictions["confusion"])

    def evaluate(
        self,
        subject: Subject,
        train: WholeStore,
        test: WholeStore,
        runtime: Runtime,
        folders: Mapping[str, Path],
    ) -> Iterator[tuple[str, Outcome]]:
        """Each layer is a training of its own, from the subject's weights."""
        for layer in subject.layers:
            yield layer, self._segment(subject, layer, train, test, runtime, folders[layer])

    def _segment(
        self,
        subject: Subject,
        layer: str,
        train: WholeStore,
        test: WholeStore,
        runtime: Runtime,
        folder: Path,
    ) -> Outcome:
        config, normalization = self.config, subject.spec.normalization
        names = (BACKGROUND, *train.index.classes)
        encoder = deepcopy(subject.encoder)
        network = FCN(
            encoder, layer, len(names),
            kernel=config.kernel, head=config.head, freeze=config.freeze, seed=config.seed,
        )  # fmt: skip
        scales = self._rescale(network, subject.spec, train) if config.rescale else {}
        before = weights_digest(encoder.state_dict())
        learnt, judged = frames(train, test)
        learner = Learner(network, train.sizes, normalization, config.lr)
        report = run_loop(
            learner, learnt, config, config.seed, runtime, folder, title="segmentation"
        )
        if config.freeze and weights_digest(encoder.cpu().state_dict()) != before:
            raise DataError("the encoder's weights changed during a frozen evaluation")
        shown = np.linspace(0, len(test) - 1, min(SHOWN, len(test))).astype(int)
        confusions, masks = judge(network, judged, normalization, len(names), shown)
        title = f"{' '.join([self.protocol, *config.deviations()])}, {layer}"
        _draw(test, masks, names, folder / "masks.png", title)
        selection = _selection(network, learnt, names, confusions, report)
        if scales:
            selection["rescaled"] = scales
        return Outcome({"confusion": confusions}, selection)

    def _rescale(self, network: FCN, spec: EncoderSpec, train: WholeStore) -> dict[str, float]:
        """Set the network's scales by some training images; returns what was done."""
        which = some_images(len(train), RESCALED_BY, self.config.seed)
        sizes = torch.from_numpy(train.sizes[which])
        images = normalized(train.images(which), sizes, spec.normalization)
        padded = network.padded(images)
        return rescale_with_head(network, network.fc67, network.features, padded, spec.arch)


@torch.no_grad()
def judge(
    network: FCN, test: Framed, normalization: Normalization, classes: int, kept: np.ndarray
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Each test image's confusion, int32 (N, K, K), and the predicted masks of those in `kept`.

    The class with the highest score at every pixel, in 32 bit, at the size of the stored image.
    """
    device = best_device()
    network.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    confusions = np.zeros((len(test), classes, classes), np.int32)
    masks: dict[int, np.ndarray] = {}
    starts = range(0, len(test), SCORED)
    for start in progress(starts, "test images", len(starts)):
        which = np.arange(start, min(start + SCORED, len(test)))
        framed, sizes = test.images(which), torch.from_numpy(test.store.sizes[which])
        inputs = normalized(framed[:, :3].to(device), sizes.to(device), normalization)
        predicted = network(inputs).argmax(1).to(torch.uint8).cpu().numpy()  # (B, H, W)
        for i, found, truth, (h, w) in zip(
            which.tolist(), predicted, framed[:, 3].numpy(), sizes.tolist(), strict=True
        ):
            confusions[i] = confusion(truth, found, classes)  # void outside the image
            if i in kept:
                masks[i] = found[:h, :w]
    return confusions, masks


def _any_pixel(store: WholeStore, wanted: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Whether a pixel of any mask is `wanted`; most often the first masks tell."""
    for start in range(0, len(store), LOOKED_AT):
        which = np.arange(start, min(start + LOOKED_AT, len(store)))
        if wanted(store.masks(which).numpy()).any():
            return True
    return False


def _draw(
    test: WholeStore,
    predicted: Mapping[int, np.ndarray],
    names: Sequence[str],
    path: Path,
    title: str,
) -> None:
    """True and predicted masks of some test images, side by side."""
    images, truths = [], []
    for i, mask in predicted.items():
        h, w = mask.shape
        images.append(test.images(np.array([i]))[0, :, :h, :w].permute(1, 2, 0).numpy())
        truths.append(test.masks(np.array([i]))[0, :h, :w].numpy())
    mask_grid(images, truths, list(predicted.values()), names, path, title)


def _selection(
    network: FCN, train: Framed, names: Sequence[str], confusions: np.ndarray, report: Report
) -> dict[str, Any]:
    """`classes` names the confusions' rows, `iu` gives each class's value, for those in the truth.

    `frame` is the height and width that images are padded to, `padding` what the network adds.
    """
    by_class = intersection_over_union(confusions.sum(0, dtype=np.int64))
    values = zip(names, by_class.tolist(), strict=True)
    return {
        "split": "none: nothing is chosen",
        "classes": list(names),
        "iu": {name: round(value, 2) for name, value in values if value == value},
        "final_loss": report.last.get("loss"),
        "training_images": len(train),
        "frame": list(train.size),
        "padding": network.padding,
        "stride": network.geometry.stride,
        "images_per_second": round(report.images_per_second, 1),
        "data_wait": round(report.data_wait, 4),
    }
