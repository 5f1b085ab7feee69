"""Values of a metric over resamples of the test images, and intervals by them.

The same resamples for the same number of images, so that two methods' values can be subtracted,
resample by resample.
"""

import math
from functools import lru_cache

import numpy as np

from ssl_bench.stream import Stream

RESAMPLES = 200  # of the test images, for an interval
RESAMPLING_SEED = 0
# By metric, float64 (1 + B,): its value, then its values over B resamples of the test images. NaN
# where a resample holds nothing to measure.
Resampled = dict[str, np.ndarray]
Intervals = dict[str, tuple[float, float]]  # by metric: low, high


def resampled_mean(name: str, values: np.ndarray) -> Resampled:
    """Of a metric that is the mean of its values (N,), one a test image."""
    counts = resample_counts(len(values))  # (N, 1 + B)
    return {name: values.astype(np.float64) @ counts / len(values)}


def mean_of_known(by_class: np.ndarray) -> np.ndarray:
    """The mean over the classes (first axis) that are not NaN; NaN where all are."""
    known = ~np.isnan(by_class)
    classes = known.sum(0)
    total = np.where(known, by_class, 0).sum(0)
    return np.where(classes > 0, total / np.maximum(classes, 1), np.nan)


def bootstrap_intervals(found: Resampled) -> Intervals:
    """95 % intervals of percentages, for as many other images: the resamples' percentiles, moved.

    An image drawn twice raises average precision, so the resamples' percentiles lie too high; they
    are moved by the difference of the resamples' mean to the value. In simulations with 20 classes
    the interval then holds 92 to 96 times of 100, otherwise 88 to 92.
    """
    intervals = {}
    for name, (value, *resampled) in found.items():
        around = np.array([v for v in resampled if not math.isnan(v)] or [value])
        spread = np.percentile(around - around.mean(), (2.5, 97.5))
        low, high = np.clip(value + spread, 0, 100)
        intervals[name] = float(low), float(high)
    return intervals


@lru_cache(maxsize=4)  # tables and verification ask for the same few sets again and again
def resample_counts(images: int) -> np.ndarray:
    """How often each image is drawn, int32 (N, 1 + B), read-only: once, then in B resamples."""
    random = Stream(RESAMPLING_SEED)
    # Each resample counts in a range of its own, so that one bincount serves all.
    draws = random.integers(0, images, (RESAMPLES, images)) + images * np.arange(RESAMPLES)[:, None]
    counts = np.bincount(draws.ravel(), minlength=images * RESAMPLES).reshape(RESAMPLES, images)
    counts = np.vstack([np.ones((1, images)), counts]).astype(np.int32).T.copy()
    counts.flags.writeable = False
    return counts
