"""Paired comparisons of two methods on the same seeds or the same test images.

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

from ssl_bench.errors import UsageError, unknown
from ssl_bench.evaluation.intervals import (
    Paired,
    holm,
    paired_bootstrap,
    paired_hits,
    paired_seeds,
    paired_values,
)
from ssl_bench.records.protocols import harness_of, stale
from ssl_bench.records.record import EvaluationRecord, Record
from ssl_bench.records.workspace import predictions_of

Place = tuple[str, str]  # what is printed of a number's place, and the digest of its test images


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
        return self.record.identity.data["test"]

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
        mine, theirs = self.predictions.get(self.metric), other.predictions.get(self.metric)
        if mine is not None and theirs is not None:
            return paired_values(mine, theirs)
        if self.resampled is not None and other.resampled is not None:
            return paired_bootstrap(self.resampled, other.resampled)
        return None


def comparison(
    records: Sequence[Record], a: str, b: str, protocol: str | None, workspace: Path
) -> str:
    """A table of all numbers that both methods have: a, b, a − b, p and Holm's p, as text.

    Raises UsageError for a method without a number, or two without a common one.
    """
    mine, theirs = (_numbers(records, name, protocol, workspace) for name in (a, b))
    shared = [place for place in mine if place in theirs]
    lines, found = [], list[Paired]()
    for place in shared:
        paired = difference(mine[place], theirs[place])
        if paired:
            means = [float(np.mean([m.value for m in s[place]])) for s in (mine, theirs)]
            digits = mine[place][0].digits + 1
            lines.append((place[0], means, digits))
            found.append(paired)
    if not found:
        raise UsageError(f"{a} and {b} share no number on the same images and seeds")
    corrected = holm([paired.p for paired in found])
    width = max(len(place) for place, _, _ in lines)
    text = [f"{'':{width}}  {'A':>7}  {'B':>7}  {'A − B':>16}  {'p':>8}  {'p, Holm':>8}  test"]
    for (place, means, digits), paired, p in zip(lines, found, corrected, strict=True):
        gap = f"{paired.mean:+.{digits}f} ± {paired.half:.{digits}f}"
        numbers = (
            f"{means[0]:7.{digits}f}  {means[1]:7.{digits}f}  {gap:>16}  {paired.p:8.2g}  {p:8.2g}"
        )
        text.append(f"{place:{width}}  {numbers}  {paired.test}, {paired.over}")
    return "\n".join([f"A: {a}", f"B: {b}", *text])


def _numbers(
    records: Sequence[Record], name: str, protocol: str | None, workspace: Path
) -> dict[Place, list[Measured]]:
    """Everything measured of a method, by protocol, layer, metric and test images."""
    method, _, key = name.partition("@")
    runs = [r for r in records if r.kind == "pretrain" and r.method == method]
    run = next((r.key for r in reversed(runs) if r.key.startswith(key)), None)
    own = [
        r
        for r in records
        if r.kind == "evaluation"
        and r.identity.control is None
        and r.method == (method if run else name)
        and (not run or not r.identity.encoder or r.identity.encoder.run == run)
    ]
    if not own:
        raise unknown("method", name, {r.method for r in records if r.kind == "evaluation"})
    found: dict[Place, list[Measured]] = {}
    for record in own:
        if protocol and record.identity.protocol.partition("@")[0] != protocol:
            continue
        for metric in record.shown:
            layer = record.column
            words = (record.details.protocol, layer, metric, "on", record.data)
            place = " ".join(filter(None, words)), record.identity.data["test"]
            found.setdefault(place, []).append(Measured(record, metric, workspace))
    if not found:
        raise UsageError(f"{name} has no number of {protocol}")
    return found


def difference(a: Sequence[Measured], b: Sequence[Measured]) -> Paired | None:
    """Mean of a − b over the seeds that both have, or over images with one seed each.

    None where there are no pairs.
    """
    mine, theirs = ({one.seeds: one for one in many} for many in (a, b))
    shared = sorted(mine.keys() & theirs.keys())
    if len(shared) >= 2:
        return paired_seeds([mine[s].value for s in shared], [theirs[s].value for s in shared])
    if len(a) == len(b) == 1:
        return a[0].paired(b[0])
    return None
