"""One metric of one record, and the paired difference of two on the same seeds or test images.

With two seeds or more on both sides the pairs are the seeds (equal seeds share starting weights,
splits and draws) and the test is Student's. With one each they are the test images: McNemar's exact
test for hits and misses, a t test for other means over the images, and a bootstrap whose resamples
both sides share for average precision and IU.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ssl_bench.evaluation.intervals import (
    Paired,
    paired_bootstrap,
    paired_hits,
    paired_seeds,
    paired_values,
)
from ssl_bench.records.protocols import harness_of, stale
from ssl_bench.records.record import EvaluationRecord
from ssl_bench.records.workspace import predictions_of


@dataclass
class Measured:
    """One metric of one record, with what the record's predictions say of it."""

    record: EvaluationRecord
    metric: str
    workspace: Path | None

    @property
    def value(self) -> float:
        return self.record.metrics[self.metric]

    @property
    def seeds(self) -> tuple[int, int]:
        """Of pretraining and of the evaluation."""
        pretraining = self.record.details.pretraining or {}
        # An encoder that was not pretrained here is the same whatever the seed: 0 stands for all.
        return pretraining.get("seed", 0), self.record.identity.config["seed"]

    @property
    def half(self) -> float:
        """Half-width of the interval over the test images; NaN without one."""
        metrics, name = self.record.metrics, self.metric
        if f"{name}_low" not in metrics:
            return math.nan
        return (metrics[f"{name}_high"] - metrics[f"{name}_low"]) / 2

    @property
    def digits(self) -> int:
        """To print behind the point."""
        return self.record.details.digits.get(self.metric, 1)

    @property
    def units(self) -> dict[str, str]:
        """Of the record's metrics that are not percent."""
        return self.record.details.units

    @property
    def lower(self) -> bool:
        """Whether less is better; the first records of inpainting did not say it."""
        if self.record.details.lower is not None:
            return self.metric in self.record.details.lower
        harness = harness_of(self.record)
        return harness is not None and self.metric in {m.name for m in harness.metrics if m.lower}

    @cached_property
    def stale(self) -> str | None:
        """Why the number would come out otherwise today; None if it would not."""
        return stale(self.record)

    @property
    def images(self) -> str:
        """Digest of the test images."""
        return self.record.images

    @cached_property
    def predictions(self) -> dict[str, np.ndarray]:
        """The stored arrays; none without a workspace. DataError for a damaged file."""
        return predictions_of(self.record, self.workspace) if self.workspace else {}

    @cached_property
    def hits(self) -> np.ndarray | None:
        """bool (N,), of a top-1 accuracy."""
        if self.metric == "top1" and {"label", "predicted"} <= self.predictions.keys():
            return self.predictions["label"] == self.predictions["predicted"]
        return None

    @cached_property
    def resampled(self) -> np.ndarray | None:
        """float64 (1 + B,); see Harness.resampled."""
        harness = harness_of(self.record)
        if harness is None or not self.predictions:
            return None
        return harness.resampled(self.predictions).get(self.metric)

    def paired(self, other: "Measured") -> Paired | None:
        """This one less the other, over the test images; None where they cannot be paired."""
        if self.images != other.images:
            return None
        if self.hits is not None and other.hits is not None:
            return paired_hits(self.hits, other.hits)
        # A metric that is a mean over images is stored under its own name, a value for each image.
        mine, theirs = self.predictions.get(self.metric), other.predictions.get(self.metric)
        if mine is not None and theirs is not None:
            return paired_values(mine, theirs)
        if self.resampled is not None and other.resampled is not None:
            return paired_bootstrap(self.resampled, other.resampled)
        return None


def paired_difference(a: Sequence[Measured], b: Sequence[Measured]) -> Paired | None:
    """Mean of a − b over the seeds that both have, or over images with one seed each.

    None where there are no pairs.
    """
    mine, theirs = ({one.seeds: one for one in many} for many in (a, b))
    shared = sorted(mine.keys() & theirs.keys())
    if len(shared) >= 2:
        return paired_seeds([mine[s].value for s in shared], [theirs[s].value for s in shared])
    # With one seed here and several there, an image-wise test would choose one of the several.
    if len(a) == len(b) == 1:
        return a[0].paired(b[0])
    return None
