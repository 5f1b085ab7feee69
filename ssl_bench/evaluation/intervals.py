"""Intervals and paired tests. scipy does the statistics."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.05  # of a test; 95 % intervals


def proportion_interval(hits: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, 0 to 1: what other test images would have given."""
    interval = stats.binomtest(hits, total).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % t interval; the half-width is NaN for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan")
    half = stats.t.ppf(1 - LEVEL / 2, len(values) - 1) * stats.sem(values)
    return mean, float(half)


# ---- pairs
@dataclass(frozen=True)
class Paired:
    """A mean difference over pairs, the half-width of its 95 % interval, and a test's p-value.

    `over` is "seeds" or "images", `n` the number of seeds; `test` names the test.
    """

    mean: float
    half: float
    p: float
    n: int
    over: str
    test: str


def paired_seeds(a: Sequence[float], b: Sequence[float]) -> Paired:
    """a − b over the same seeds: Student's t. Where all differ by the same, p is 0, or 1 at 0."""
    differences = np.subtract(a, b)
    mean, half = mean_interval(differences.tolist())
    return Paired(mean, half, _t_test(differences), len(differences), "seeds", "paired t")


def paired_hits(a: np.ndarray, b: np.ndarray) -> Paired:
    """a − b, in percent, of hits bool (N,) on the same images: McNemar's exact test.

    The interval is the normal one that belongs to it (Agresti, Categorical Data Analysis, section
    10.1.1).
    """
    differences = 100.0 * (a.astype(float) - b.astype(float))
    won, lost = int((a & ~b).sum()), int((b & ~a).sum())
    p = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
    half = stats.norm.ppf(1 - LEVEL / 2) * stats.sem(differences, ddof=0)
    return Paired(float(differences.mean()), float(half), float(p), 1, "images", "McNemar")


def paired_values(a: np.ndarray, b: np.ndarray) -> Paired:
    """a − b of values (N,) on the same images: Student's t."""
    differences = a.astype(np.float64) - b.astype(np.float64)
    mean, half = mean_interval(differences.tolist())
    return Paired(mean, half, _t_test(differences), 1, "images", "paired t")


def paired_bootstrap(a: np.ndarray, b: np.ndarray) -> Paired:
    """a − b of a metric (1 + B,) over the same resamples of the images, its value first.

    Interval and p-value are the normal ones of the bootstrap's standard error (Efron, Tibshirani,
    An Introduction to the Bootstrap, chapter 12): 200 resamples tell an error, but no tail.
    """
    differences = (a - b)[1:]
    error = float(np.nanstd(differences, ddof=1))
    mean = float(a[0] - b[0])
    exact = 1.0 if mean == 0 else 0.0  # without any spread
    p = 2 * stats.norm.sf(abs(mean) / error) if error else exact
    half = stats.norm.ppf(1 - LEVEL / 2) * error
    return Paired(mean, float(half), float(p), 1, "images", "paired bootstrap")


def _t_test(differences: np.ndarray) -> float:
    """Of a mean of 0, two-sided; without any spread the answer is known."""
    if len(differences) < 2:
        return float("nan")
    if np.ptp(differences) <= 1e-12 * max(1.0, float(np.abs(differences).max())):
        return 1.0 if abs(differences[0]) <= 1e-12 else 0.0
    found: Any = stats.ttest_1samp(differences, 0.0)
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: p-values that hold for all tests of a family together.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 1979: the k-th smallest of m is multiplied by m − k + 1, and none ends below a
    smaller one.
    """
    order = np.argsort(p_values, kind="stable")
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order.tolist()):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected
