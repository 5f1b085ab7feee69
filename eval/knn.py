"""Nearest neighbours on frozen layers, `knn/dinov2@1`.

A test image takes the class for which its k nearest training images vote: nearness is the cosine
of the pooled features, a vote weighs exp(cosine / T) (Wu et al., arXiv 1805.01978). Nothing is
fitted. Which k heads the row is chosen by accuracy on a fifth of the training images; the accuracy
at every k is recorded. Three published settings of k and T are protocols of their own.

    bench knn --layer conv4 --layer pool5 --data folder:photos
    bench knn --protocol vissl --layer pool5 --data folder:photos
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from eval.splits import check_labels, held_out, not_held_out
from ssl_bench.errors import Degenerate
from ssl_bench.evaluation.harness import Outcome, Probe, ProbeConfig
from ssl_bench.evaluation.metrics import TOP1
from ssl_bench.evaluation.metrics.precision import top1
from ssl_bench.progress import reached, say_once

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_bench.data.store.squares import ImageStore
    from ssl_bench.evaluation.features import Features
    from ssl_bench.evaluation.rows import Rows

HELD_OUT = 0.2  # of train, which chooses k
PAIRS = 1 << 20  # cosines that are computed at once
SCALE, PLACES = 1 << 30, 1 << 32  # of a rank: steps of a cosine, training images at most


class KNNConfig(ProbeConfig):
    """The settings of `knn/dinov2@1`."""

    k: tuple[int, ...] = Field(
        default=(10, 20, 100, 200), min_length=1, description="numbers of neighbours that vote"
    )
    temperature: float = Field(
        default=0.07, gt=0, le=1e30, description="T: a vote weighs exp(cosine / T)"
    )

    @field_validator("k")
    @classmethod
    def _rising(cls, k: tuple[int, ...]) -> tuple[int, ...]:
        """In rising order, each once: the order that was typed makes no other result."""
        if min(k) < 1:
            raise PydanticCustomError("k", "every k is a whole number from 1")
        return tuple(sorted(set(k)))


class VisslKNNConfig(KNNConfig):
    """The settings of `knn/vissl@1`."""

    k: tuple[int, ...] = Field(
        default=(200,), min_length=1, description="numbers of neighbours that vote"
    )
    temperature: float = Field(
        default=0.1, gt=0, le=1e30, description="T: a vote weighs exp(cosine / T)"
    )


class KNN(Probe):
    """Top-1 of the k nearest training images' vote, at each frozen layer."""

    Config = KNNConfig
    protocol = "knn/dinov2@1"
    source = 'Oquab et al., "DINOv2", arXiv 2304.07193, its k-NN evaluation'
    metrics = (TOP1,)

    def score(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`top1` at the chosen k, and `top1_kK` at every k."""
        label, by_k = predictions["label"], predictions["predicted_by_k"]
        every = {f"top1_k{k}": top1(label, by_k[:, i]) for i, k in enumerate(self.config.k)}
        return {"top1": top1(label, predictions["predicted"]), **every}

    def check(self, splits: Mapping[str, ImageStore]) -> None:
        """One label each, two classes, none that train lacks."""
        train, test = splits["train"], splits["test"]
        check_labels(train.labels, test.labels, train.index.classes)
        if len(self.config.k) > 1:
            held_out(train.labels, HELD_OUT, self.config.seed)

    def probe(self, layer: str, splits: Mapping[str, Features]) -> Outcome:
        """Choose k on a part of train, then search all of train for each test image."""
        import torch

        train, test = splits["train"], splits["test"]
        check_directions(layer, train.rows)
        labels = torch.from_numpy(train.labels).to(train.rows.device)
        best, selection = self._choose(train.rows, labels)
        if len(self.config.k) > 1:
            selection |= not_held_out(train.labels, train.classes)
        by_k = self.predict(test.rows, train.rows, labels).cpu().numpy()  # (N, K)
        predictions = {
            "label": test.labels,
            "predicted": by_k[:, best],
            "predicted_by_k": by_k.astype(np.int16),
        }
        return Outcome(predictions, {**selection, "dimensions": train.rows.shape[1]})

    def _choose(self, rows: Rows, labels: Tensor) -> tuple[int, dict[str, Any]]:
        """The place of the best k, of equals the smallest, and how it was chosen."""
        import torch

        ks = self.config.k
        if len(ks) == 1:
            all_vote = self._all_vote(len(labels))
            return 0, {"split": "none: nothing is chosen", "chosen": {"k": ks[0]}} | all_vote
        parts = held_out(labels.cpu().numpy(), HELD_OUT, self.config.seed)
        searched, asked = (torch.from_numpy(part).to(labels.device) for part in parts)
        found = self.predict(rows.part(asked), rows.part(searched), labels[searched])
        accuracy = 100 * (found == labels[asked, None]).double().mean(0)  # (K,)
        best = int(accuracy.argmax())  # the first of equals
        return best, {
            "split": f"{HELD_OUT:.0%} of train, stratified",
            "criterion": "top1",
            "chosen": {"k": ks[best]},
            "points": [
                {"k": k, "top1": round(float(a), 3)} for k, a in zip(ks, accuracy, strict=True)
            ],
        } | self._all_vote(len(searched))

    def _all_vote(self, searched: int) -> dict[str, Any]:
        """For a record's selection: each k of more images than are searched; said, too."""
        found = [k for k in self.config.k if k > searched]
        if not found:
            return {}
        ks = ", ".join(map(str, found))
        say_once(f"warning: k = {ks}: {searched} training images are searched, and all vote")
        return {"all_vote": {"k": found, "searched": searched}}

    def predict(self, queries: Rows, rows: Rows, labels: Tensor) -> Tensor:
        """Classes int64 (N, K) of queries (N, D), for each k, from rows (M, D) and labels (M,)."""
        import torch
        from torch.nn import functional as F

        classes, ks = int(labels.max()) + 1, self.config.k
        size = PAIRS // min(rows.block_rows, len(rows))
        size = max(1, min(queries.block_rows, size))
        # Made at once: small results kept between large blocks would scatter over the memory.
        found = torch.empty(len(queries), len(ks), dtype=torch.int64, device=labels.device)
        for start in range(0, len(queries), size):
            reached(start, len(queries), "images searched for")
            span = slice(start, min(start + size, len(queries)))
            cosines, places = nearest(F.normalize(queries[span]), rows, ks[-1])
            found[span] = self._vote(cosines, labels[places], classes)
        return found

    def _vote(self, cosines: Tensor, neighbours: Tensor, classes: int) -> Tensor:
        """(B, k) cosines, the largest first, and classes int64 (B, k) -> winners int64 (B, K).

        Of classes with equal votes the first wins. Taking the largest cosine off all of them
        scales all votes alike, and keeps the exponential from overflowing.
        """
        import torch

        weights = ((cosines - cosines[:, :1]) / self.config.temperature).exp()
        votes = weights.new_zeros(len(weights), classes)
        winners, counted = [], 0
        for k in self.config.k:  # rising: each adds the neighbours that the last lacked
            votes.scatter_add_(1, neighbours[:, counted:k], weights[:, counted:k])
            winners.append(votes.argmax(1))
            counted = k
        return torch.stack(winners, 1)


class VisslKNN(KNN):
    """k = 200 and T = 0.1, the settings of VISSL's nearest_neighbor benchmark."""

    Config = VisslKNNConfig
    protocol = "knn/vissl@1"
    source = "VISSL, nearest_neighbor benchmark"


class LightlyKNN(VisslKNN):
    """k = 200 and T = 0.1, the defaults of Lightly's knn_predict: VISSL's by another name."""

    protocol = "knn/lightly@1"
    source = "Lightly, knn_predict"


def nearest(queries: Tensor, rows: Rows, k: int) -> tuple[Tensor, Tensor]:
    """Cosines float64 (B, k), falling, and places int64 (B, k) of each query's k nearest rows.

    `queries` (B, D) have length 1. Of rows that are equally near the first come first, so the size
    of the blocks changes nothing. Cosine and place make one whole number, the rank.
    """
    import torch
    from torch.nn import functional as F

    best = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for span, block in rows.blocks():
        # The cosine in steps of 2⁻³⁰ above, the place in the 32 bits below it: one integer sorts
        # by both, so ties go to the first place whatever the block is.
        ranks = (queries @ F.normalize(block).T * -SCALE).long()  # (B, b); nearer is smaller
        ranks *= PLACES
        ranks += torch.arange(span.start, span.stop, device=ranks.device)
        ranks = torch.cat([best, ranks], 1)
        best = ranks.topk(min(k, ranks.shape[1]), largest=False).values  # smallest first
    places = best % PLACES  # torch's remainder: never negative, though ranks are
    return (places - best).double() / (SCALE * PLACES), places


def check_directions(layer: str, rows: Rows) -> None:
    """DataError if all features point in one direction, or are zero: no row is nearer then.

    Squared distances below 1e-7 are cosines above 1 − 5e-8: float32 cannot tell them from 1.
    """
    from torch.nn import functional as F

    first = F.normalize(rows[0:1])
    for _, block in rows.blocks():
        if bool(((F.normalize(block) - first).square().sum(1) > 1e-7).any()):
            return
    raise Degenerate(
        f"layer {layer}: all features are constant up to their length, so no image is nearer "
        "than another"
    )
