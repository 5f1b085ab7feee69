"""Linear probe of the AlexNet era, `linear/zhang16@1`: SGD on crops of frozen layers.

One linear softmax classifier per layer, all trained in one run, as in Zhang et al. (Colorful Image
Colorization, arXiv 1603.08511, and Split-Brain Autoencoders, 1611.09842): the layer's map is
resized to at most 9,600 numbers (bilinear), batch norm without scale and shift levels its channels,
the encoder stays frozen. Random crops and mirrors; nothing is chosen, the last step counts.

The papers give no solver. Its numbers here are those of Goyal et al. (arXiv 1905.01235, published
configuration), with which the solver file in the history of Zhang's repository agrees: SGD with
momentum 0.9, weight decay 5e-4, batch 256, learning rate 0.01, a tenth of it after each 40,000 of
140,000 updates. 140,000 × 256 images are 28 epochs of ImageNet: the length is stated in epochs, so
that it means the same on other data.

    bench linear-probe --protocol zhang16 --layer all --data folder:photos
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from eval.finetuning import Learner, Truth, caffe_groups
from eval.splits import check_labels
from ssl_bench.counter import derive, generator
from ssl_bench.data.store.squares import ImageStore
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.weights import weights_digest
from ssl_bench.errors import DataError
from ssl_bench.evaluation.features import pooled_side
from ssl_bench.evaluation.harness import Evaluation, EvaluationConfig, Outcome, Subject
from ssl_bench.evaluation.metrics import TOP1
from ssl_bench.evaluation.metrics.precision import top1
from ssl_bench.runtime import Precision, Runtime
from ssl_bench.training.augment import center_crop, random_crop_flip
from ssl_bench.training.loop import Report
from ssl_bench.training.loop import train as run_loop
from ssl_bench.training.pretext import Step, TrainConfig
from ssl_bench.training.schedule import DECAYS

SCORED = 128  # test images per forward pass


class Zhang16Config(EvaluationConfig):
    """The settings of `linear/zhang16@1`."""

    epochs: int = Field(default=28, ge=1, description="times each training image is seen")
    batch_size: int = Field(default=256, ge=2, description="images per update")
    lr: float = Field(default=0.01, gt=0, le=1e30, description="SGD's learning rate at the start")
    dimensions: int = Field(
        default=9600, ge=1, description="most numbers that a layer's map is resized to"
    )
    precision: Precision = Field(
        default="32", description="arithmetic of the classifiers; auto: bf16 on CUDA, else 32 bit"
    )


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
                raise DataError(f"layer {layer} gives values that are not finite")
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


class Zhang16(Evaluation):
    """Top-1 of a linear classifier on each frozen layer, all trained together by SGD."""

    Config = Zhang16Config
    protocol = "linear/zhang16@1"
    source = "Zhang et al., arXiv 1603.08511 and 1611.09842; schedule of Goyal et al., 1905.01235"
    metrics = (TOP1,)

    def usual_layers(self, encoder: Encoder) -> Sequence[str]:
        """The last map: the published classifiers see a grid."""
        return encoder.maps[-1:]

    def score(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`top1`."""
        return {"top1": top1(predictions["label"], predictions["predicted"])}

    def check(self, splits: Mapping[str, ImageStore]) -> None:
        """One label each, two classes, none that train lacks."""
        train, test = splits["train"], splits["test"]
        check_labels(train.labels, test.labels, train.index.classes)

    def evaluate(
        self,
        subject: Subject,
        splits: Mapping[str, ImageStore],
        runtime: Runtime,
        folders: Mapping[str, Path],
    ) -> Iterator[tuple[str, Outcome]]:
        """All layers in one training, then one pass over the test images."""
        train, test = splits["train"], splits["test"]
        config, labels = self.config, train.labels
        frozen = Frozen(subject, config.dimensions)
        shapes = frozen.shapes()
        heads = LinearHeads(shapes, int(labels.max()) + 1, config.seed)
        task = learner(frozen, heads, labels, config.lr)
        settings, folder = self._settings(len(train)), _folder(subject, folders)
        steps = settings.steps
        runtime = replace(runtime, devices="1")  # batch norm takes its statistics of whole batches
        report = run_loop(
            task, train, settings, config.seed, runtime, folder, title="linear classifiers"
        )
        predicted = predict(frozen, heads, test)
        frozen.check()
        for other in folder.parent.glob("heads-*"):  # of more layers: a kill came between records
            if other != folder:
                shutil.rmtree(other)
        for layer, found in zip(subject.layers, predicted, strict=True):
            predictions = {"label": test.labels, "predicted": found}
            yield layer, Outcome(predictions, self._selection(layer, shapes[layer], steps, report))
        (folder / "checkpoint.pt").unlink(missing_ok=True)

    def _settings(self, images: int) -> TrainConfig:
        """What the loop runs by: whole epochs of `images` images, rounded up to whole batches."""
        shared = self.config.model_dump(include={"batch_size", "lr", "precision"})
        steps = -(-self.config.epochs * images // self.config.batch_size)
        return TrainConfig(steps=steps, schedule="step", **shared)

    def _selection(
        self, layer: str, shape: tuple[int, int], steps: int, report: Report
    ) -> dict[str, Any]:
        """`decays` are the updates from which on the learning rate is a tenth of what it was."""
        return {
            "split": "none: nothing is chosen",
            "final_loss": report.last[f"loss_{layer}"],
            "epochs": self.config.epochs,
            "steps": steps,
            "decays": [next(i for i in range(steps + 1) if i / steps >= d) for d in DECAYS],
            "dimensions": shape[0] * shape[1] ** 2,
            "images_per_second": round(report.images_per_second, 1),
        }


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


def _folder(subject: Subject, folders: Mapping[str, Path]) -> Path:
    """Where the loop keeps its checkpoint: in the last layer's run, under these layers' name.

    A checkpoint holds the heads of all layers, so it is of no use to a run of other layers. The
    last layer is recorded last: until then the run that holds the checkpoint is not finished.
    """
    folder = folders[subject.layers[-1]] / f"heads-{derive(*subject.layers):016x}"
    folder.mkdir(exist_ok=True)
    return folder
