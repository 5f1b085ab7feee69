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

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from eval.finetuning import FineTunedOnWhole
from eval.splits import check_labels, few_labels, fewer_labels, judged, left_out
from ssl_bench.evaluation.compact import with_compact_scores
from ssl_bench.evaluation.harness import EvaluationConfig, Subject
from ssl_bench.evaluation.metrics import TOP1, Metric
from ssl_bench.evaluation.metrics.precision import (
    mean_average_precision,
    random_precision,
    resampled_precision,
    top1,
)
from ssl_bench.evaluation.metrics.resampling import Intervals, Resampled, bootstrap_intervals
from ssl_bench.training.config import TrainConfig
from ssl_bench.training.schedule import Schedule

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from eval.networks.fc678 import Classifier
    from eval.networks.learner import Truth
    from ssl_bench.data.store.whole import WholeStore
    from ssl_bench.encoders.encoder import Encoder
    from ssl_bench.encoders.spec import EncoderSpec
    from ssl_bench.training.pretext import Step

LONGEST = 500 / 227  # long side of VOC's images, of which the windows are cut, in network inputs
CLIP = 10.0  # length of the gradient, Caffe's clip_gradients
SCORED = 32  # test images per forward pass
RESCALED_BY = 160  # images: ten batches of 16, as in philkr/magic_init
Train = Literal["all", "fc6-8", "fc8"]


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


class Krahenbuhl16(FineTunedOnWhole):
    """Mean average precision, or top-1, after fine-tuning with fresh fc6-fc8.

    The headline is the uninterpolated mean average precision, unless images have one label each.
    """

    Config = Krahenbuhl16Config
    protocol = "finetune/krahenbuhl16@1"
    source = (
        "Krähenbühl et al., ICLR 2016, arXiv 1511.06856, and its code philkr/voc-classification"
    )
    metrics = (Metric("map_uninterpolated"), TOP1)
    task, clip, scored, rescaled_by = "classification", CLIP, SCORED, RESCALED_BY

    def check(self, splits: Mapping[str, WholeStore]) -> None:
        """Two classes in train; one that it lacks is left out of several labels an image."""
        train, test = splits["train"], splits["test"]
        check_labels(train.annotations, test.annotations, train.index.classes)
        fewer_labels(train.annotations, self.config.labels, train.index.classes)  # said at once

    def prepared(
        self, subject: Subject, train: WholeStore, test: WholeStore, workers: int = 2
    ) -> tuple[WholeStore, WholeStore]:
        """With what `judged` leaves of several labels an image."""
        if left_out(train.annotations, test.annotations, train.index.classes):
            labels = judged(test.targets, train.targets).tolist()
            test = replace(test, index=test.index.model_copy(update={"labels": labels}))
        return train, test

    def sides(self, spec: EncoderSpec) -> tuple[None, int]:
        """Reduced where they are larger than VOC's are for a network of 227 px; never enlarged."""
        return None, round(LONGEST * spec.image_size)

    def chosen(self, train: WholeStore) -> np.ndarray:
        """As many of each class as `--labels`, or all that it has."""
        return few_labels(train.annotations, self.config.labels, self.config.seed)

    @property
    def frozen(self) -> bool:
        return self.config.train != "all"

    def network(
        self, encoder: Encoder, layer: str, spec: EncoderSpec, train: WholeStore
    ) -> Classifier:
        """The encoder, fc6, fc7 and fc8, of which those learn that `--train` names."""
        from eval.networks.fc678 import Classifier

        config, classes = self.config, len(train.index.classes)
        network = Classifier(encoder, layer, spec.image_size, config.head, classes, config.seed)
        network.freeze(config.train)
        return network

    def rescale(
        self, network: Classifier, train: WholeStore, which: np.ndarray, spec: EncoderSpec
    ) -> dict[str, float]:
        """By a window of each of these images."""
        import torch

        from ssl_bench.counter import Randomness, derive
        from ssl_bench.encoders.rescale import rescale_with_head
        from ssl_bench.training.augment import random_scale_crop

        sizes = torch.as_tensor(train.sizes)[which]
        draws = Randomness(derive(self.config.seed, "rescale"), 0, torch.arange(len(which)))
        windows = random_scale_crop(train.images(which), sizes, spec.image_size, draws)
        images = spec.normalization.apply(windows)
        return rescale_with_head(network, network.fc67, network.features, images, spec.arch)

    def optimizer(self, network: nn.Module) -> Optimizer:
        """SGD. Biases learn at twice the rate; all weights decay, as in the published code."""
        import torch

        from eval.networks.learner import caffe_groups

        # Unlike in CaffeNet's own network file, biases decay there as weights do.
        groups = caffe_groups(network, self.config.lr, decay=1e-6, bias_decay=1e-6)
        return torch.optim.SGD(groups, momentum=0.9, fused=True)

    def truth(self, train: WholeStore) -> Truth:
        """Annotations int64 (N,), or int8 (N, C) of 1, 0 and −1, and `sizes` int64 (N, 2)."""
        import torch

        return {**super().truth(train), "sizes": torch.as_tensor(train.sizes)}

    def loss(
        self, network: Classifier, images: Tensor, truth: Truth, step: Step, spec: EncoderSpec
    ) -> Tensor:
        """Cross-entropy on random windows of whole images padded to (B, 3, H, W)."""
        from eval.networks.fc678 import cross_entropy
        from ssl_bench.training.augment import random_scale_crop

        windows = random_scale_crop(images, truth["sizes"], spec.image_size, step.random)
        return cross_entropy(network(spec.normalization.apply(windows)), truth["labels"])

    def predict(
        self,
        network: Classifier,
        images: Tensor,
        test: WholeStore,
        which: slice,
        spec: EncoderSpec,
    ) -> np.ndarray:
        """Scores float32 (B, C), each the mean over an image's random windows.

        The windows depend on the seed and on an image's place in the store, not on its labels.
        """
        import torch

        from ssl_bench.counter import Randomness, derive
        from ssl_bench.training.augment import random_scale_crop

        key, device = derive(self.config.seed, "test windows"), images.device
        places = torch.arange(which.start, which.stop, device=device)
        sizes = torch.as_tensor(test.sizes[which], device=device)
        pixels, scores = images.float(), []
        for crop in range(self.config.crops):  # the crop's number stands in a step's place
            random = Randomness(key, crop, places)
            windows = random_scale_crop(pixels, sizes, spec.image_size, random)
            scores.append(network(spec.normalization.apply(windows)))
        return torch.stack(scores).mean(0).cpu().numpy()

    def predictions(self, rows: np.ndarray, test: WholeStore) -> dict[str, np.ndarray]:
        """Labels, or targets int8 (N, C) with the scores."""
        if test.annotations.ndim == 1:
            return {"label": test.labels, "predicted": rows.argmax(1)}
        return {"targets": test.targets, "scores": rows}

    def described(
        self,
        network: Classifier,
        predictions: Mapping[str, np.ndarray],
        train: WholeStore,
        test: WholeStore,
    ) -> dict[str, Any]:
        """`fewer` counts the images of classes with fewer than `--labels`."""
        classes = train.index.classes
        found = super().described(network, predictions, train, test)
        found |= fewer_labels(train.annotations, self.config.labels, classes)
        unknown = np.flatnonzero((test.targets == -1).all(0) & ~(train.targets == 1).any(0))
        return found | ({"left_out": [classes[c] for c in unknown]} if len(unknown) else {})

    def draw(
        self,
        network: Classifier,
        predictions: Mapping[str, np.ndarray],
        test: WholeStore,
        spec: EncoderSpec,
        folder: Path,
        title: str,
    ) -> None:
        """A picture of each class's precision over recall, if images have several labels."""
        if "targets" in predictions:
            draw_curves(predictions, test.index.classes, folder / "precision-recall.png", title)

    def shown(self, predictions: Mapping[str, np.ndarray]) -> Sequence[Metric]:
        """Average precision of several labels an image, top-1 of one."""
        return self.metrics[:1] if "targets" in predictions else self.metrics[1:]

    def score(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`map_uninterpolated`, `map11` and `map` of several labels an image, `top1` of one."""
        if "targets" not in predictions:
            return {"top1": top1(predictions["label"], predictions["predicted"])}
        return mean_average_precision(
            predictions["targets"], predictions["scores"], uninterpolated=True
        )

    def intervals(self, predictions: Mapping[str, np.ndarray]) -> Intervals:
        """Wilson's of top-1, else of the resamples; see `bootstrap_intervals`."""
        if "targets" not in predictions:
            return super().intervals(predictions)
        return bootstrap_intervals(self.resampled(predictions))

    def resampled(self, predictions: Mapping[str, np.ndarray]) -> Resampled:
        """Mean average precisions, or top-1, over resamples of the test images."""
        if "targets" not in predictions:
            return super().resampled(predictions)
        return resampled_precision(predictions["targets"], predictions["scores"])

    def chance(self, predictions: Mapping[str, np.ndarray]) -> Mapping[str, float]:
        """Of random rankings, or of the most frequent class."""
        if "targets" not in predictions:
            return super().chance(predictions)
        return random_precision(predictions["targets"])

    def compact(self, predictions: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Scores as ranks among those of the positives; see `compact_scores`."""
        return with_compact_scores(predictions)


def draw_curves(
    predictions: Mapping[str, np.ndarray], classes: tuple[str, ...], path: Path, title: str
) -> None:
    """Precision over recall of each class that has a positive, from targets and scores."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    from ssl_bench.pictures.plots import precision_recall_curves

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
    precision_recall_curves(curves, path, f"{title}; beside each class its average, percent")
