"""Few-label fine-tuning: the encoder and a fresh linear head, end to end, `finetune/linear-head@1`.

A fixed number of labelled images per class is drawn from train (the same ones for every encoder
with the same seed); encoder and head are trained together on random crops and mirrors with Adam
and a cosine course, for a fixed number of steps. Nothing is chosen: no validation images, no
best step. Test images are scored once, on central crops.

    bench finetune --protocol linear-head --layer pool5 --labels 20 --data folder:photos
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from eval.finetuning import FineTuned
from eval.splits import check_labels, few_labels, fewer_labels
from ssl_bench.evaluation.harness import EvaluationConfig
from ssl_bench.evaluation.metrics import TOP1
from ssl_bench.evaluation.metrics.precision import top1
from ssl_bench.training.config import TrainConfig
from ssl_bench.training.schedule import Schedule

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from eval.networks.learner import Truth
    from eval.networks.linear_classifier import LinearClassifier
    from ssl_bench.data.store.squares import ImageStore
    from ssl_bench.encoders.encoder import Encoder
    from ssl_bench.encoders.spec import EncoderSpec
    from ssl_bench.training.pretext import Step


class LinearHeadConfig(EvaluationConfig, TrainConfig):
    """The settings of `finetune/linear-head@1`."""

    labels: int = Field(default=20, ge=0, description="labelled images per class; 0: all of train")
    steps: int = Field(default=200, ge=1, description="updates")
    batch_size: int = Field(default=64, ge=1, description="images per update")
    lr: float = Field(default=1e-3, gt=0, le=1e30, description="learning rate at the start")
    schedule: Schedule = Field(default="cosine", description="the learning rate's course")
    dimensions: int = Field(default=9600, ge=1, description="most numbers the head sees")


class LinearHead(FineTuned):
    """Top-1 after training encoder and head on a few labelled images per class."""

    Config = LinearHeadConfig
    protocol = "finetune/linear-head@1"
    source = "ours"
    metrics = (TOP1,)

    def check(self, splits: Mapping[str, ImageStore]) -> None:
        """One label each, two classes, none that train lacks."""
        train, test = splits["train"], splits["test"]
        check_labels(train.labels, test.labels, train.index.classes)
        fewer_labels(train.labels, self.config.labels, train.index.classes)  # said before it trains

    def chosen(self, train: ImageStore) -> np.ndarray:
        """As many of each class as `--labels`, or all that it has."""
        return few_labels(train.labels, self.config.labels, self.config.seed)

    def described(
        self,
        network: LinearClassifier,
        predictions: Mapping[str, np.ndarray],
        train: ImageStore,
        test: ImageStore,
    ) -> dict[str, Any]:
        """`fewer` counts the images of classes that have fewer than `--labels`."""
        fewer = fewer_labels(train.labels, self.config.labels, train.index.classes)
        return super().described(network, predictions, train, test) | fewer

    def network(
        self, encoder: Encoder, layer: str, spec: EncoderSpec, train: ImageStore
    ) -> LinearClassifier:
        """All of it learns; the head starts at N(0, 0.01²)."""
        from eval.networks.linear_classifier import new_classifier

        config, classes = self.config, int(train.labels.max()) + 1
        size, dimensions = spec.image_size, config.dimensions
        return new_classifier(encoder, layer, size, classes, dimensions, config.seed)

    def optimizer(self, network: nn.Module) -> Optimizer:
        """Adam, at one rate for all."""
        import torch

        return torch.optim.Adam(network.parameters(), lr=self.config.lr, fused=True)

    def loss(
        self, network: LinearClassifier, images: Tensor, truth: Truth, step: Step, spec: EncoderSpec
    ) -> Tensor:
        """Cross-entropy on random crops."""
        from torch.nn import functional as F

        from ssl_bench.training.augment import random_crop_flip

        crops = random_crop_flip(images, spec.image_size, step.random)
        return F.cross_entropy(network(spec.normalization.apply(crops)), truth["labels"])

    def predict(
        self,
        network: LinearClassifier,
        images: Tensor,
        test: ImageStore,
        which: slice,
        spec: EncoderSpec,
    ) -> np.ndarray:
        """The class with the highest logit on the central crop, int64 (B,)."""
        from ssl_bench.training.augment import center_crop

        crops = center_crop(images, spec.image_size)
        return network(spec.normalization.apply(crops)).argmax(1).cpu().numpy()

    def predictions(self, rows: np.ndarray, test: ImageStore) -> dict[str, np.ndarray]:
        return {"label": test.labels, "predicted": rows}

    def score(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`top1`."""
        return {"top1": top1(predictions["label"], predictions["predicted"])}
