"""Linear probe: multinomial logistic regression on frozen layers, `linear/logreg@1`.

Every layer's map of the central crop is average-pooled to at most 9,600 numbers (the grid of Zhang
et al., arXiv 1603.08511), standardised by the training images, and a linear classifier is fitted
to convergence, without augmentation. Its strength is chosen by accuracy on a fifth of the training
images; the classifier is then fitted again on all of them. The test images are seen once.

    bench linear-probe --layer conv4 --layer pool5 --data folder:photos
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from eval.splits import check_labels, held_out, not_held_out
from ssl_bench.errors import Degenerate
from ssl_bench.evaluation.harness import Outcome, Probe, ProbeConfig
from ssl_bench.evaluation.metrics import TOP1
from ssl_bench.evaluation.metrics.precision import top1
from ssl_bench.progress import say

if TYPE_CHECKING:
    from torch import Tensor

    from eval.solvers.logistic import Standardizer
    from ssl_bench.data.store.squares import ImageStore
    from ssl_bench.evaluation.features import Features
    from ssl_bench.evaluation.rows import Rows


class LinearProbeConfig(ProbeConfig):
    """The settings of `linear/logreg@1`."""

    strengths: int = Field(
        default=13, ge=2, description="strengths tried: λ from 1e-6 to 1, log-spaced"
    )
    held_out: float = Field(
        default=0.2, gt=0, lt=1, description="share of train that chooses the strength"
    )


class LinearProbe(Probe):
    """Top-1 of a linear classifier on each frozen layer."""

    Config = LinearProbeConfig
    protocol = "linear/logreg@1"
    source = "ours; features pooled as in Zhang et al., arXiv 1603.08511"
    metrics = (TOP1,)

    def score(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`top1`."""
        return {"top1": top1(predictions["label"], predictions["predicted"])}

    def check(self, splits: Mapping[str, ImageStore]) -> None:
        """One label each, two classes, none that train lacks, an image to hold out."""
        train, test = splits["train"], splits["test"]
        check_labels(train.labels, test.labels, train.index.classes)
        held_out(train.labels, self.config.held_out, self.config.seed)

    def probe(self, layer: str, splits: Mapping[str, Features]) -> Outcome:
        """Choose the strength on a part of train, fit on all of it, look at test once."""
        import torch

        train, test = splits["train"], splits["test"]
        rows, labels = train.rows, torch.from_numpy(train.labels)
        predict, selection = self._fit(layer, rows, labels.to(rows.device))
        predicted = predict(test.rows).cpu().numpy()
        selection |= not_held_out(train.labels, train.classes)
        return Outcome({"label": test.labels, "predicted": predicted}, selection)

    def _fit(
        self, layer: str, rows: Rows, labels: Tensor
    ) -> tuple[Callable[[Rows], Tensor], dict[str, Any]]:
        """What gives rows (N, D) their classes (N,), and how its strength was chosen."""
        import torch

        from eval.solvers.logistic import LIMIT, fit

        classes = int(labels.max()) + 1
        parts = held_out(labels.cpu().numpy(), self.config.held_out, self.config.seed)
        fitted, held = (torch.from_numpy(part).to(labels.device) for part in parts)
        strengths = torch.logspace(-6, 0, self.config.strengths, device=labels.device)
        standardize = standardizer(layer, rows.part(fitted))
        models = fit(standardize(rows.part(fitted)), labels[fitted], classes, strengths)
        hits = models.predict(standardize(rows.part(held))) == labels[held]  # (K, N)
        accuracy = 100 * hits.float().mean(1)
        best = int(len(strengths) - 1 - accuracy.flip(0).argmax())  # of equals, the strongest
        chosen = slice(best, best + 1)
        begin = (models.weights[chosen], models.bias[chosen])
        standardize = standardizer(layer, rows)
        final = fit(standardize(rows), labels, classes, strengths[chosen], begin)
        if max(models.iterations, final.iterations) == LIMIT:
            say(f"warning: layer {layer}: logistic regression was stopped at {LIMIT} iterations")
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
        return lambda x: final.predict(standardize(x))[0], selection


def standardizer(layer: str, rows: Rows) -> Standardizer:
    """Of these rows. DataError, naming the layer, if they are all the same."""
    from eval.solvers.logistic import Standardizer

    try:
        return Standardizer.fit(rows)
    except ValueError as error:
        raise Degenerate(f"layer {layer}: {error}, so there is nothing to fit") from error
