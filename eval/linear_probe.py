"""Linear probe: multinomial logistic regression on frozen layers, `linear/logreg@1`.

Every layer's map of the central crop is average-pooled to at most 9,600 numbers (the grid of Zhang
et al., arXiv 1603.08511), standardised by the training images, and a linear classifier is fitted
to convergence, without augmentation. Its strength is chosen by accuracy on a fifth of the training
images; the classifier is then fitted again on all of them. The test images are seen once.

    bench linear-probe --layer conv4 --layer pool5 --data folder:photos
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

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
        self, subject: Subject, train: ImageStore, test: ImageStore, runtime: Runtime, folder: Path
    ) -> Mapping[str, Outcome]:
        """One forward pass over all images serves every layer."""
        check_labels(train.labels, test.labels, train.index.classes)
        dimensions = self.config.dimensions
        seen = extract(subject, train, dimensions, "features of train")
        unseen = extract(subject, test, dimensions, "features of test")
        layers = progress(subject.layers, "probes", len(subject.layers))
        return {
            layer: self._probe(layer, seen.pop(layer), train.labels, unseen.pop(layer), test.labels)
            for layer in layers
        }

    def _probe(
        self,
        layer: str,
        seen: np.ndarray,
        train_labels: np.ndarray,
        unseen: np.ndarray,
        test_labels: np.ndarray,
    ) -> Outcome:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        x, y = torch.from_numpy(seen).to(device), torch.from_numpy(train_labels).to(device)
        classes = int(y.max()) + 1
        fitted, held = (
            torch.from_numpy(part).to(device)
            for part in held_out(train_labels, self.config.held_out, self.config.seed)
        )
        strengths = torch.logspace(-6, 0, self.config.strengths, device=device)
        standardize = _standardizer(layer, x[fitted])
        models = fit(standardize(x[fitted]), y[fitted], classes, strengths)
        guesses = models.logits(standardize(x[held])).argmax(-1)  # (K, N)
        accuracy = 100 * (guesses == y[held]).float().mean(1)
        best = int(len(strengths) - 1 - accuracy.flip(0).argmax())  # of equals, the strongest
        standardize = _standardizer(layer, x)
        chosen = slice(best, best + 1)
        begin = (models.weights[chosen], models.bias[chosen])
        final = fit(standardize(x), y, classes, strengths[chosen], begin)
        logits = final.logits(standardize(torch.from_numpy(unseen).to(device)))[0].cpu()
        predicted = logits.argmax(1).numpy()
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
            "dimensions": x.shape[1],
        }
        predictions = {"label": test_labels, "predicted": predicted.astype(np.int64)}
        return Outcome(top1(test_labels, predicted), predictions, selection)


def _standardizer(layer: str, rows: torch.Tensor) -> Standardizer:
    try:
        return Standardizer.fit(rows)
    except ValueError as error:
        raise DataError(f"layer {layer}: {error}, so there is nothing to fit") from error
