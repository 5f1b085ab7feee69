"""One metric of one record; the mean over seeds and images, and the paired difference of two.

With two seeds or more on both sides the pairs are seeds (equal seeds share starting weights, splits
and draws) and test images, and what is told is told of the method. With one each they are the test
images, and it is told of these weights alone: McNemar's exact test for hits and misses, a t test
for other means over the images, and a bootstrap whose resamples both sides share for average
precision and IU.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ssl_bench.errors import DataError
from ssl_bench.evaluation.intervals import (
    METHOD,
    Paired,
    paired_bootstrap,
    paired_hits,
    paired_seeds,
    paired_values,
)
from ssl_bench.evaluation.two_way import half_width, variance_of_resamples, variance_of_values
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
    def hits(self) -> bool:
        """Whether a value is 0 or 100, an image missed or hit."""
        return self.metric == "top1"

    @property
    def images(self) -> str:
        """Digest of the test images."""
        return self.record.images

    @property
    def predictions(self) -> dict[str, np.ndarray]:
        """The stored arrays, not kept; none without a workspace. DataError for a damaged file."""
        return predictions_of(self.record, self.workspace) if self.workspace else {}

    @cached_property
    def chance(self) -> float | None:
        """What is scored without a look at the test images; None where it is not known."""
        try:
            rows, harness = self.predictions, harness_of(self.record)
        except (
            DataError
        ):  # a damaged file takes the line and not the table; `bench verify` names it
            return None
        found = harness.chance(rows).get(self.metric) if rows and harness else None
        return None if found is None else float(found)

    @cached_property
    def values(self) -> np.ndarray | None:
        """float64 (N,), in the metric's unit, of one that is a mean over the test images."""
        rows = self.predictions
        if self.hits and {"label", "predicted"} <= rows.keys():
            return 100.0 * (rows["label"] == rows["predicted"])
        # Such a metric is stored under its own name, a value for each image.
        found = rows.get(self.metric)
        return found.astype(np.float64) if found is not None else None

    @cached_property
    def resampled(self) -> np.ndarray | None:
        """float64 (1 + B,); see Harness.resampled."""
        rows = self.predictions
        if not rows or (harness := harness_of(self.record)) is None:
            return None
        return harness.resampled(rows).get(self.metric)


# ---- several seeds
def half_over_both(found: Sequence[Measured]) -> float | None:
    """Half-width of the 95 % interval of the mean over these seeds and their images.

    None where nothing is known image by image, or the seeds saw other images.
    """
    if len({one.images for one in found}) > 1:
        return None
    if (values := _stacked([one.values for one in found])) is not None:
        return float(half_width(variance_of_values(values)))
    if (resampled := _stacked([one.resampled for one in found])) is not None:
        return float(half_width(variance_of_resamples(resampled)))
    return None


def paired_difference(a: Sequence[Measured], b: Sequence[Measured]) -> Paired | None:
    """Mean of a − b over the seeds that both have and the images, or over images with one seed.

    None where there are no pairs.
    """
    mine, theirs = ({one.seeds: one for one in many} for many in (a, b))
    shared = sorted(mine.keys() & theirs.keys())
    if len(shared) < 2:
        # With one seed here and several there, a test over images would speak of one of these.
        return _paired_by_image(a, b) if len(a) == len(b) == 1 else None
    a, b = ([many[seeds] for seeds in shared] for many in (mine, theirs))
    found = _paired_by_image(a, b)
    found = found or paired_seeds([one.value for one in a], [one.value for one in b])
    # Several seeds of a probe on the same weights say nothing of another pretraining.
    pretrained = {seed for seed, _ in shared}
    return replace(found, unit=METHOD) if len(pretrained) > 1 else found


def paired_at_one_seed(a: Sequence[Measured], b: Sequence[Measured]) -> Paired | None:
    """a − b over the images, of the only seed that both have where one of them has several.

    Which of the several is no choice: it is the one with the same starting weights and draws. It
    speaks of these weights, so it is shown and never tested. None of other numbers of seeds.
    """
    mine, theirs = ({one.seeds: one for one in many} for many in (a, b))
    shared = mine.keys() & theirs.keys()
    if len(shared) != 1 or len(a) == len(b) == 1:
        return None
    (seeds,) = shared
    return _paired_by_image([mine[seeds]], [theirs[seeds]])


def _paired_by_image(a: Sequence[Measured], b: Sequence[Measured]) -> Paired | None:
    """As many numbers a and b, seed by seed; None where they cannot be paired by image."""
    both, seeds = [*a, *b], len(a)
    if len({one.images for one in both}) > 1:
        return None
    if (values := _stacked([one.values for one in both])) is not None:
        if seeds == 1 and all(one.hits for one in both):
            return paired_hits(*values > 0)
        return paired_values(values[:seeds], values[seeds:])
    if (resampled := _stacked([one.resampled for one in both])) is not None:
        return paired_bootstrap(resampled[:seeds], resampled[seeds:])
    return None


def _stacked(rows: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """float64 (S, N); None where one is not there, or there are not two images to differ."""
    found = [row for row in rows if row is not None and row.ndim == 1 and len(row) > 1]
    if len(found) < len(rows) or len({len(row) for row in found}) > 1:
        return None
    return np.stack(found)
