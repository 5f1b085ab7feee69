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

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from eval.splits import check_labels
from ssl_bench.evaluation.harness import Evaluation, EvaluationConfig, Outcome, Subject
from ssl_bench.evaluation.metrics import TOP1
from ssl_bench.evaluation.metrics.precision import top1
from ssl_bench.runtime import Precision, Runtime
from ssl_bench.training.config import TrainConfig
from ssl_bench.training.schedule import DECAYS

if TYPE_CHECKING:
    from ssl_bench.data.store.squares import ImageStore
    from ssl_bench.encoders.encoder import Encoder
    from ssl_bench.training.loop import Report


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
        from eval.networks.linear_heads import Frozen, LinearHeads, learner, predict
        from ssl_bench.training.loop import train as run_loop

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


def _folder(subject: Subject, folders: Mapping[str, Path]) -> Path:
    """Where the loop keeps its checkpoint: in the last layer's run, under these layers' name.

    A checkpoint holds the heads of all layers, so it is of no use to a run of other layers. The
    last layer is recorded last: until then the run that holds the checkpoint is not finished.
    """
    from ssl_bench.counter import derive

    folder = folders[subject.layers[-1]] / f"heads-{derive(*subject.layers):016x}"
    folder.mkdir(exist_ok=True)
    return folder
