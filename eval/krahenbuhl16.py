"""Classification by fine-tuning, the encoder with fresh fc6-fc8: `finetune/krahenbuhl16@1`.

The VOC07 classification of Krähenbühl et al. (ICLR 2016, arXiv 1511.06856) by their published code
(github.com/philkr/voc-classification): SGD with momentum 0.9 and weight decay 1e-6, learning rate
1e-3, halved after each 10,000 of 80,000 updates of 16 images, twice as high for biases, the
gradient shortened to a length of 10. Random windows of scale 0.5 to 2 of whole images, mirrored or
not; sigmoid cross-entropy, summed over the classes, without those whose objects are all difficult.
Nothing is chosen: the last step counts. A test image's scores are the mean of the classifier's over
10 more such windows. Images with one label each are learnt by softmax, and top-1 is counted.

There, a network comes with fc6 and fc7, and the classifier alone starts anew. Encoders here end
below fc6, so all three do, as there with `--random-from pool5`: weights N(0, 0.01²), biases 0.1.

    bench finetune --data voc:VOCdevkit/VOC2007
    bench finetune --train fc6-8 --steps 2000 --data folder:photos
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator
from sklearn.metrics import average_precision_score, precision_recall_curve
from torch import Tensor, nn
from torch.nn import functional as F

from eval.fc678 import Classifier, Train
from eval.splits import check_labels, few_labels, some_images
from ssl_bench.augment import random_scale_crop
from ssl_bench.compact import with_compact_scores
from ssl_bench.counter import Randomness, derive
from ssl_bench.data.dataset import Dataset, SplitName
from ssl_bench.data.whole import WholeStore, open_whole
from ssl_bench.encoders import EncoderSpec
from ssl_bench.errors import DataError, UsageError
from ssl_bench.figures import precision_recall_curves
from ssl_bench.metrics import (
    Resampled,
    mean_average_precision,
    resampled_mean,
    resampled_precision,
    top1,
)
from ssl_bench.progress import progress
from ssl_bench.rescale import rescale_with_head
from ssl_bench.runtime import Runtime
from ssl_bench.stream import Stream
from ssl_bench.task import (
    Evaluation,
    EvaluationConfig,
    Outcome,
    Schedule,
    Step,
    Subject,
    TrainConfig,
)
from ssl_bench.train import train as run_loop

LONGEST = 500 / 227  # long side of VOC's images, of which the windows are cut, in network inputs
CLIP = 10.0  # length of the gradient, Caffe's clip_gradients
SCORED = 32  # test images per forward pass
RESCALED_BY = 160  # images: ten batches of 16, as in philkr/magic_init


class Krahenbuhl16Config(EvaluationConfig, TrainConfig):
    """The settings of `finetune/krahenbuhl16@1`."""

    train: Train = Field(
        default="all", description="layers that learn; fc6-8 and fc8 leave the encoder frozen"
    )
    freeze: bool = Field(default=False, description="the same as --train fc6-8", exclude=True)
    labels: int = Field(default=0, ge=0, description="labelled images per class; 0: all of train")
    steps: int = Field(default=80_000, ge=1, description="updates")
    batch_size: int = Field(default=16, ge=1, description="images per update")
    lr: float = Field(default=1e-3, gt=0, le=1e30, description="learning rate at the start")
    schedule: Schedule = Field(default="halve", description="the learning rate's course")
    head: int = Field(default=4096, ge=1, description="outputs of fc6 and of fc7")
    crops: int = Field(default=10, ge=1, description="windows per test image")
    rescale: bool = Field(
        default=False, description="set the layers' scales by training images before fine-tuning"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_name(cls, given: Any) -> Any:
        """What is frozen has one name, in keys and in tables."""
        if given.get("freeze"):
            given = {"train": "fc6-8"} | given
        return {name: value for name, value in given.items() if name != "freeze"}


class Learner(nn.Module):
    """The loop's task: the loss on random windows of whole images.

    `targets` is int64 (N,), or int8 (N, C) of 1, 0 and −1; `sizes` int64 (N, 2).
    """

    def __init__(
        self, network: Classifier, spec: EncoderSpec, targets: Tensor, sizes: Tensor, lr: float
    ) -> None:
        super().__init__()
        self.network, self.spec, self.lr = network, spec, lr
        self.targets, self.sizes = targets, sizes

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD. Biases learn at twice the rate; all weights decay, as in the published code."""
        learning = [(n, p) for n, p in self.network.named_parameters() if p.requires_grad]
        groups = [
            {"params": [p for n, p in learning if not n.endswith("bias")], "lr": self.lr},
            {"params": [p for n, p in learning if n.endswith("bias")], "lr": 2 * self.lr},
        ]
        self.sgd = torch.optim.SGD(groups, momentum=0.9, weight_decay=1e-6)
        return [self.sgd]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """One update, on whole images padded to (B, 3, H, W)."""
        self.targets, self.sizes = self.targets.to(images.device), self.sizes.to(images.device)
        sizes, targets = self.sizes[step.indices], self.targets[step.indices]
        windows = random_scale_crop(images, sizes, self.spec.image_size, step.random)
        loss = cross_entropy(self.network(self.spec.normalization.apply(windows)), targets)
        step.update(self.sgd, loss, clip=CLIP)
        return {"loss": loss.detach()}


def cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean over the images of scores (B, C): softmax for labels int64 (B,), else sigmoid.

    For targets int8 (B, C) it is the sum over the classes; one of −1 counts nothing.
    """
    if targets.ndim == 1:
        return F.cross_entropy(scores, targets)
    judged = (targets != -1).float()
    total = F.binary_cross_entropy_with_logits(scores, targets.float(), judged, reduction="sum")
    return total / len(scores)


class Krahenbuhl16(Evaluation):
    """Mean average precision, or top-1, after fine-tuning with fresh fc6-fc8.

    The headline is the uninterpolated mean average precision, unless images have one label each.
    """

    Config = Krahenbuhl16Config
    protocol = "finetune/krahenbuhl16@1"
    source = (
        "Krähenbühl et al., ICLR 2016, arXiv 1511.06856, and its code philkr/voc-classification"
    )
    metric = "map_uninterpolated"
    interval = "over the test images, bootstrap"

    def score(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`map_uninterpolated`, `map11` and `map` of several labels an image, `top1` of one."""
        if "targets" not in predictions:
            return top1(predictions["label"], predictions["predicted"])
        return mean_average_precision(
            predictions["targets"], predictions["scores"], uninterpolated=True
        )

    def resampled(self, predictions: Mapping[str, np.ndarray]) -> Resampled:
        """Mean average precisions, or top-1, over resamples of the test images."""
        if "targets" not in predictions:
            return resampled_mean(
                "top1", 100.0 * (predictions["label"] == predictions["predicted"])
            )
        return resampled_precision(predictions["targets"], predictions["scores"])

    def compact(self, predictions: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Scores as ranks among those of the positives; see `compact_scores`."""
        return with_compact_scores(predictions)

    def open(
        self,
        dataset: Dataset,
        split: SplitName,
        spec: EncoderSpec,
        *,
        skip_bad_images: bool = False,
        workers: int = 2,
    ) -> WholeStore:
        """Whole images, reduced where they are larger than VOC's are for a network of 227 px."""
        longest = round(LONGEST * spec.image_size)
        return open_whole(
            dataset, split, "classification", None, longest,
            skip_bad_images=skip_bad_images, workers=workers,
        )  # fmt: skip

    def check(self, train: WholeStore, test: WholeStore) -> None:
        """Two classes, none that train lacks; the labels also say what the headline is."""
        if train.annotations.ndim == 1:
            self.metric, self.interval = "top1", Evaluation.interval
            check_labels(train.labels, test.labels, train.index.classes)
        else:
            check_targets(train.targets, test.targets, train.index.classes)
        self._chosen(train)

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
            yield layer, self._tune(subject, layer, train, test, runtime, folders[layer])

    def _tune(
        self,
        subject: Subject,
        layer: str,
        train: WholeStore,
        test: WholeStore,
        runtime: Runtime,
        folder: Path,
    ) -> Outcome:
        config, spec = self.config, subject.spec
        chosen = self._chosen(train)
        encoder, classes = deepcopy(subject.encoder), len(train.index.classes)
        network = Classifier(encoder, layer, spec.image_size, config.head, classes, config.seed)
        scales = self._rescale(network, spec, train, chosen) if config.rescale else {}
        network.freeze(config.train)
        annotations = torch.from_numpy(train.annotations)
        learner = Learner(network, spec, annotations, torch.as_tensor(train.sizes), config.lr)
        report = run_loop(
            learner, train, config, config.seed, runtime, folder, subset=chosen, title="fine-tuning"
        )
        scores = predict(network, spec, test, config.crops, config.seed)
        selection = {
            "split": "none: nothing is chosen",
            "training_images": len(chosen),
            "final_loss": report.last.get("loss"),
            "images_per_second": round(report.images_per_second, 1),
            "data_wait": round(report.data_wait, 4),
        }
        if scales:
            selection["rescaled"] = scales
        predictions = predictions_of(test, scores)
        draw_curves(predictions, test.index.classes, folder / "precision-recall.png")
        return Outcome(predictions, selection)

    def _chosen(self, train: WholeStore) -> np.ndarray:
        """Indices of the training images, ascending. UsageError if a class has too few."""
        config, classes = self.config, train.index.classes
        if not config.labels:
            return np.arange(len(train))
        if train.annotations.ndim == 1:
            return few_labels(train.labels, config.labels, config.seed, classes)
        return few_with_each(train.targets, config.labels, config.seed, classes)

    def _rescale(
        self, network: Classifier, spec: EncoderSpec, train: WholeStore, chosen: np.ndarray
    ) -> dict[str, float]:
        """Set the network's scales by windows of some training images; returns what was done."""
        seen = chosen[some_images(len(chosen), RESCALED_BY, self.config.seed)]
        sizes = torch.as_tensor(train.sizes)[seen]
        draws = Randomness(derive(self.config.seed, "rescale"), 0, torch.arange(len(seen)))
        windows = random_scale_crop(train.images(seen), sizes, spec.image_size, draws)
        images = spec.normalization.apply(windows)
        return rescale_with_head(network, network.fc67, network.features, images, spec.arch)


# ---- labels


def check_targets(train: np.ndarray, test: np.ndarray, classes: tuple[str, ...]) -> None:
    """DataError unless int8 (N, C) hold two classes or more, and test none that train lacks."""
    known, asked = ((targets == 1).any(0) for targets in (train, test))
    if known.sum() < 2:
        raise DataError(f"the training images hold {known.sum()} class(es): two are needed")
    absent = np.flatnonzero(asked & ~known)
    if len(absent):
        raise DataError(f"class '{classes[absent[0]]}' is in the test images but not in train")
    if not asked.any():
        raise DataError("the test images hold no class: there is nothing to find")


def few_with_each(
    targets: np.ndarray, per_class: int, seed: int, classes: tuple[str, ...]
) -> np.ndarray:
    """Indices of `per_class` random images with each class that any image has, ascending.

    Targets are int8 (N, C). An image may be drawn for several of its classes, and all its labels
    are learnt, so there are at most `per_class`·C. UsageError if a class has fewer.
    """
    random = Stream(seed)
    chosen = []
    for place in np.flatnonzero((targets == 1).any(0)):
        images = np.flatnonzero(targets[:, place] == 1)
        if len(images) < per_class:
            raise UsageError(
                f"--labels {per_class}: class '{classes[place]}' has only {len(images)} images; "
                "ask for fewer, or 0 for all of train"
            )
        chosen.append(random.choice(images, per_class))
    return np.unique(np.concatenate(chosen))


# ---- test images


@torch.no_grad()
def predict(
    network: Classifier, spec: EncoderSpec, test: WholeStore, crops: int, seed: int
) -> np.ndarray:
    """Scores float32 (N, C) of the test images, each the mean over its random windows.

    The windows depend on the seed and on an image's place in the store, not on its labels.
    """
    network.eval()
    device = next(network.parameters()).device
    sizes, key = torch.as_tensor(test.sizes), derive(seed, "test windows")
    found = []
    starts = range(0, len(test), SCORED)
    for start in progress(starts, "test images", len(starts)):
        which = np.arange(start, min(start + SCORED, len(test)))
        images = test.images(which).to(device).float()
        places, room = torch.from_numpy(which).to(device), sizes[which].to(device)
        scores = []
        for crop in range(crops):
            random = Randomness(key, crop, places)
            windows = random_scale_crop(images, room, spec.image_size, random)
            scores.append(network(spec.normalization.apply(windows)))
        found.append(torch.stack(scores).mean(0).cpu().numpy())
    return np.concatenate(found)


def predictions_of(test: WholeStore, scores: np.ndarray) -> dict[str, np.ndarray]:
    """What `score` needs, of scores (N, C)."""
    if test.annotations.ndim == 1:
        return {"label": test.labels, "predicted": scores.argmax(1)}
    return {"targets": test.targets, "scores": scores}


def draw_curves(
    predictions: Mapping[str, np.ndarray], classes: tuple[str, ...], path: Path
) -> None:
    """A picture of each class's precision over recall, if images have several labels."""
    if "targets" not in predictions:
        return
    curves = {}
    for name, targets, scores in zip(
        classes, predictions["targets"].T, predictions["scores"].T, strict=True
    ):
        judged = targets != -1
        if (targets == 1).any():
            truth = targets[judged] == 1
            precision, recall, _ = precision_recall_curve(truth, scores[judged])
            area = average_precision_score(truth, scores[judged])
            curves[f"{name} {100 * area:.1f}"] = (recall[::-1], precision[::-1])  # recall rises
    precision_recall_curves(curves, path, "precision over recall, and its average in percent")
