"""Few-label fine-tuning: the encoder and a fresh linear head, end to end, `finetune/linear-head@1`.

A fixed number of labelled images per class is drawn from train (the same ones for every encoder
with the same seed); encoder and head are trained together on random crops and mirrors with Adam
and a cosine course, for a fixed number of steps. Nothing is chosen: no validation images, no
best step. Test images are scored once, on central crops.

    bench finetune --protocol linear-head --layer pool5 --labels 20 --data folder:photos
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from eval.splits import check_labels, few_labels
from ssl_bench.counter import generator
from ssl_bench.data.store.squares import ImageStore
from ssl_bench.encoders.build import learn_up_to
from ssl_bench.encoders.encoder import Encoder, evaluating
from ssl_bench.evaluation.features import pool
from ssl_bench.evaluation.harness import Evaluation, EvaluationConfig, Outcome, Subject
from ssl_bench.evaluation.metrics.precision import top1
from ssl_bench.runtime import Runtime
from ssl_bench.training.augment import center_crop, random_crop_flip
from ssl_bench.training.loop import train as run_loop
from ssl_bench.training.pretext import Schedule, Step, TrainConfig

SCORED = 128  # test images per forward pass


class LinearHeadConfig(EvaluationConfig, TrainConfig):
    """The settings of `finetune/linear-head@1`."""

    labels: int = Field(default=20, ge=0, description="labelled images per class; 0: all of train")
    steps: int = Field(default=200, ge=1, description="updates")
    batch_size: int = Field(default=64, ge=1, description="images per update")
    lr: float = Field(default=1e-3, gt=0, le=1e30, description="learning rate at the start")
    schedule: Schedule = Field(default="cosine", description="the learning rate's course")
    dimensions: int = Field(default=9600, ge=1, description="most numbers the head sees")


class Classifier(nn.Module):
    """An encoder up to one layer, average-pooled, and a linear head."""

    def __init__(self, encoder: Encoder, layer: str, classes: int, dimensions: int) -> None:
        super().__init__()
        self.encoder, self.layer, self.dimensions = encoder, layer, dimensions
        self.head = nn.LazyLinear(classes)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised (B, 3, S, S) -> logits (B, classes)."""
        maps = self.encoder(images, [self.layer])[self.layer]
        return self.head(pool(maps, self.dimensions))


class _Learner(nn.Module):
    """The loop's task: cross-entropy on random crops."""

    def __init__(self, network: Classifier, subject: Subject, labels: Tensor, lr: float) -> None:
        super().__init__()
        self.network, self.subject, self.lr = network, subject, lr
        self.labels = labels

    def optimizers(self) -> list[torch.optim.Optimizer]:
        self.adam = torch.optim.Adam(self.network.parameters(), lr=self.lr)
        return [self.adam]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        crops = random_crop_flip(images, self.subject.spec.image_size, step.random)
        logits = self.network(self.subject.spec.normalization.apply(crops))
        targets = self.labels.to(images.device)[step.indices]
        loss = F.cross_entropy(logits, targets)
        step.update(self.adam, loss)
        return {"loss": loss.detach()}


class LinearHead(Evaluation):
    """Top-1 after training encoder and head on a few labelled images per class."""

    Config = LinearHeadConfig
    protocol = "finetune/linear-head@1"
    source = "ours"
    metric = "top1"

    def score(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`top1` with Wilson's interval."""
        return top1(predictions["label"], predictions["predicted"])

    def evaluate(
        self,
        subject: Subject,
        train: ImageStore,
        test: ImageStore,
        runtime: Runtime,
        folders: Mapping[str, Path],
    ) -> Iterator[tuple[str, Outcome]]:
        """Each layer is a training of its own, from the subject's weights."""
        check_labels(train.labels, test.labels, train.index.classes)
        for layer in subject.layers:
            yield layer, self._tune(subject, layer, train, test, runtime, folders[layer])

    def _tune(
        self,
        subject: Subject,
        layer: str,
        train: ImageStore,
        test: ImageStore,
        runtime: Runtime,
        folder: Path,
    ) -> Outcome:
        config, labels = self.config, train.labels
        chosen = np.arange(len(labels))
        if config.labels:
            chosen = few_labels(labels, config.labels, config.seed, train.index.classes)
        classes = int(labels.max()) + 1
        network = Classifier(deepcopy(subject.encoder), layer, classes, config.dimensions)
        size = subject.spec.image_size
        learn_up_to(network.encoder, layer, size)
        with evaluating(network), torch.no_grad():  # a blank image moves no statistics of batches
            network(torch.zeros(1, 3, size, size))  # gives the lazy head its size
        nn.init.normal_(network.head.weight, std=0.01, generator=generator(config.seed, "head"))
        nn.init.zeros_(network.head.bias)
        learner = _Learner(network, subject, torch.from_numpy(labels), config.lr)
        report = run_loop(
            learner, train, config, config.seed, runtime, folder, subset=chosen, title="fine-tuning"
        )
        predicted = self._score(network, subject, test)
        selection = {
            "split": "none: nothing is chosen",
            "training_images": len(chosen),
            "final_loss": report.last.get("loss"),
            "images_per_second": round(report.images_per_second, 1),
            "data_wait": round(report.data_wait, 4),
        }
        predictions = {"label": test.labels, "predicted": predicted}
        return Outcome(predictions, selection)

    @torch.no_grad()
    def _score(self, network: Classifier, subject: Subject, test: ImageStore) -> np.ndarray:
        """The class with the highest logit for each test image, int64 (N,)."""
        network.eval()
        device = next(network.parameters()).device
        predicted = []
        for start in range(0, len(test), SCORED):
            pixels = test.images(slice(start, start + SCORED)).to(device)
            images = center_crop(pixels, subject.spec.image_size)
            logits = network(subject.spec.normalization.apply(images))
            predicted.append(logits.argmax(1).cpu().numpy())
        return np.concatenate(predicted)
