"""Linear probe: multinomial logistic regression on frozen layers, `linear/logreg@1`.

Every layer's map of the central crop is average-pooled to at most 9,600 numbers (the grid of Zhang
et al., arXiv 1603.08511), standardised by the training images, and a linear classifier is fitted
to convergence, without augmentation. Its strength is chosen by accuracy on a fifth of the training
images; the classifier is then fitted again on all of them. The test images are seen once.

    bench linear-probe --layer conv4 --layer pool5 --data folder:photos
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from eval.logistic import Standardizer, fit
from eval.splits import check_labels, held_out
from ssl_bench.data.store import ImageStore
from ssl_bench.errors import DataError
from ssl_bench.features import extract
from ssl_bench.metrics import top1
from ssl_bench.progress import progress
from ssl_bench.runtime import Runtime
from ssl_bench.task import Evaluation, EvaluationConfig, Outcome, Subject


class LinearProbeConfig(EvaluationConfig):
    """The settings of `linear/logreg@1`."""

    dimensions: int = Field(default=9600, ge=1, description="most numbers a layer is pooled to")
    strengths: int = Field(
        default=13, ge=2, description="strengths tried: λ from 1e-6 to 1, log-spaced"
    )
    held_out: float = Field(
        default=0.2, gt=0, lt=1, description="share of train that chooses the strength"
    )


class LinearProbe(Evaluation):
    """Top-1 of a linear classifier on each frozen layer."""

    Config = LinearProbeConfig
    protocol = "linear/logreg@1"
    metric = "top1"

    def evaluate(
        self,
        subject: Subject,
        train: ImageStore,
        test: ImageStore,
        runtime: Runtime,
        folders: Mapping[str, Path],
    ) -> Iterator[tuple[str, Outcome]]:
        """One forward pass over all images serves every layer."""
        check_labels(train.labels, test.labels, train.index.classes)
        parts = held_out(train.labels, self.config.held_out, self.config.seed)
        dimensions = self.config.dimensions
        seen = extract(subject, train, dimensions, "features of train")
        unseen = extract(subject, test, dimensions, "features of test")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        labels = torch.from_numpy(train.labels).to(device)
        for layer in progress(subject.layers, "probes", len(subject.layers)):
            rows = torch.from_numpy(seen.pop(layer)).to(device)
            classifier, selection = self._fit(layer, rows, labels, parts)
            logits = classifier(torch.from_numpy(unseen.pop(layer)).to(device))
            predicted = logits.argmax(1).cpu().numpy()
            predictions = {"label": test.labels, "predicted": predicted}
            yield layer, Outcome(top1(test.labels, predicted), predictions, selection)

    def _fit(
        self, layer: str, rows: Tensor, labels: Tensor, parts: tuple[np.ndarray, np.ndarray]
    ) -> tuple[Callable[[Tensor], Tensor], dict[str, Any]]:
        """Choose the strength on `parts` (fitted, held out) of train, then fit on all of it.

        Returns what gives (N, D) features their logits (N, C), and how the strength was chosen.
        """
        classes = int(labels.max()) + 1
        fitted, held = (torch.from_numpy(part).to(rows.device) for part in parts)
        strengths = torch.logspace(-6, 0, self.config.strengths, device=rows.device)
        standardize = _standardizer(layer, rows[fitted])
        models = fit(standardize(rows[fitted]), labels[fitted], classes, strengths)
        guesses = models.logits(standardize(rows[held])).argmax(-1)  # (K, N)
        accuracy = 100 * (guesses == labels[held]).float().mean(1)
        best = int(len(strengths) - 1 - accuracy.flip(0).argmax())  # of equals, the strongest
        chosen = slice(best, best + 1)
        begin = (models.weights[chosen], models.bias[chosen])
        standardize = _standardizer(layer, rows)
        final = fit(standardize(rows), labels, classes, strengths[chosen], begin)
        selection = {
            "split": f"{self.config.held_out:.0%} of train, stratified",
            "criterion": "top1",
            "chosen": {"strength": float(strengths[best])},
            "points": [
                {"strength": float(s), "top1": round(float(a), 3)}
                for s, a in zip(strengths, accuracy, strict=True)
            ],
            "at_edge": best in (0, len(strengths) - 1),
            "iterations": [models.iterations, final.iterations],
            "dimensions": rows.shape[1],
        }
        return lambda x: final.logits(standardize(x))[0], selection


def _standardizer(layer: str, rows: Tensor) -> Standardizer:
    try:
        return Standardizer.fit(rows)
    except ValueError as error:
        raise DataError(f"layer {layer}: {error}, so there is nothing to fit") from error
