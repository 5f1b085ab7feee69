"""Few-label fine-tuning: the encoder and a fresh linear head, end to end, `finetune/linear-head@1`.

A fixed number of labelled images per class is drawn from train (the same ones for every encoder
with the same seed); encoder and head are trained together on random crops and mirrors with Adam
and a cosine course, for a fixed number of steps. Nothing is chosen: no validation images, no
best step. Test images are scored once, on central crops.

    bench finetune --protocol linear-head --layer pool5 --labels 20 --data folder:photos
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from eval.finetuning import FineTuned, Truth
from eval.splits import check_labels, few_labels, fewer_labels
from ssl_bench.counter import generator
from ssl_bench.data.store.squares import ImageStore
from ssl_bench.encoders.build import EncoderSpec, learn_up_to
from ssl_bench.encoders.encoder import Encoder, evaluating
from ssl_bench.evaluation.features import pool
from ssl_bench.evaluation.harness import EvaluationConfig
from ssl_bench.evaluation.metrics import TOP1
from ssl_bench.evaluation.metrics.precision import top1
from ssl_bench.training.augment import center_crop, random_crop_flip
from ssl_bench.training.pretext import Schedule, Step, TrainConfig


class LinearHeadConfig(EvaluationConfig, TrainConfig):
    """The settings of `finetune/linear-head@1`."""

    labels: int = Field(default=20, ge=0, description="labelled images per class; 0: all of train")
    steps: int = Field(default=200, ge=1, description="updates")
    batch_size: int = Field(default=64, ge=1, description="images per update")
    lr: float = Field(default=1e-3, gt=0, le=1e30, description="learning rate at the start")
    schedule: Schedule = Field(default="cosine", description="the learning rate's course")
    dimensions: int = Field(default=9600, ge=1, description="most numbers the head sees")


class LinearClassifier(nn.Module):
    """An encoder up to one layer, average-pooled, and a linear head."""

    def __init__(self, encoder: Encoder, layer: str, classes: int, dimensions: int) -> None:
        super().__init__()
        self.encoder, self.layer, self.dimensions = encoder, layer, dimensions
        self.head = nn.LazyLinear(classes)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised (B, 3, S, S) -> logits (B, classes)."""
        maps = self.encoder(images, [self.layer])[self.layer]
        return self.head(pool(maps, self.dimensions))


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
        size, classes = spec.image_size, int(train.labels.max()) + 1
        network = LinearClassifier(encoder, layer, classes, self.config.dimensions)
        learn_up_to(encoder, layer, size)
        with evaluating(network), torch.no_grad():  # a blank image moves no statistics of batches
            network(torch.zeros(1, 3, size, size))  # gives the lazy head its size
        random = generator(self.config.seed, "head")
        nn.init.normal_(network.head.weight, std=0.01, generator=random)
        nn.init.zeros_(network.head.bias)
        return network

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Adam, at one rate for all."""
        return torch.optim.Adam(network.parameters(), lr=self.config.lr, fused=True)

    def loss(
        self, network: LinearClassifier, images: Tensor, truth: Truth, step: Step, spec: EncoderSpec
    ) -> Tensor:
        """Cross-entropy on random crops."""
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
        crops = center_crop(images, spec.image_size)
        return network(spec.normalization.apply(crops)).argmax(1).cpu().numpy()

    def predictions(self, rows: np.ndarray, test: ImageStore) -> dict[str, np.ndarray]:
        return {"label": test.labels, "predicted": rows}

    def score(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`top1`."""
        return {"top1": top1(predictions["label"], predictions["predicted"])}
