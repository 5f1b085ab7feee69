"""Intervals. scipy does the statistics."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def proportion_interval(hits: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, 0 to 1: what other test images would have given."""
    interval = stats.binomtest(hits, total).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % t interval; the half-width is NaN for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return mean, float(half)


def paired_over_images(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean of a − b over the same images and the half-width of its 95 % normal interval.

    For hits and misses this is the interval that belongs to McNemar's test (Agresti, Categorical
    Data Analysis, section 10.1.1).
    """
    return float(np.mean(a - b)), float(stats.norm.ppf(0.975) * stats.sem(a - b, ddof=0))


def paired_difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Mean of a − b over pairs (the same seeds) and the half-width of its 95 % t interval."""
    return mean_interval([x - y for x, y in zip(a, b, strict=True)])
