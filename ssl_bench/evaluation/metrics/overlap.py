"""Intersection over union of masks, in percent."""

import math

import numpy as np

from ssl_bench.data.dataset import VOID
from ssl_bench.errors import DataError
from ssl_bench.evaluation.metrics.resampling import Resampled, mean_of_known, resample_counts


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Pixels of one image by true class (down) and predicted class (across), int32 (K, K).

    Both masks are uint8 (H, W) of 0 … K − 1, K = `classes` with the background; pixels whose truth
    is VOID are left out.
    """
    judged = truth != VOID
    # Cell (t, p) of the flattened matrix; int64, for uint8 times 21 overflows.
    places = truth[judged].astype(np.int64) * classes + predicted[judged]
    return np.bincount(places, minlength=classes**2).reshape(classes, classes).astype(np.int32)


def intersection_over_union(confusion: np.ndarray) -> np.ndarray:
    """Of each class, in percent: counts (…, K, K) -> float64 (…, K), as VOC's kit (VOCevalseg).

    True positives over true positives, false positives and false negatives, of all images' pixels
    together. NaN for a class without a true pixel, which the official lists do not have; background
    (class 0) counts unless it is neither true nor predicted anywhere.
    """
    true, found = confusion.sum(-1), confusion.sum(-2)
    both = np.diagonal(confusion, axis1=-2, axis2=-1)
    union = true + found - both
    present = true > 0
    # The kit counts the background always; a picture without any, found or true, has none to count.
    present[..., 0] = union[..., 0] > 0
    return np.where(present, 100 * both / np.maximum(union, 1), np.nan)


def mean_iu(confusions: np.ndarray) -> dict[str, float]:
    """Mean intersection over union and pixel accuracy, percent, of confusions int (N, K, K).

    `mean_iu` is the mean over the classes that have true pixels and the background, whose values
    are `iu_0` (background), `iu_1` …; `pixel_accuracy` is the share of judged pixels whose class
    is right. Raises DataError if no pixel is judged.
    """
    total = confusions.sum(0, dtype=np.int64)
    _check_judged(total)
    by_class = intersection_over_union(total)
    return {
        "mean_iu": float(mean_of_known(by_class)),
        "pixel_accuracy": float(100 * np.trace(total) / total.sum()),
        **{f"iu_{c}": float(by_class[c]) for c in np.flatnonzero(~np.isnan(by_class))},
    }


def background_iu(confusions: np.ndarray) -> dict[str, float]:
    """`mean_iu` of who sees background everywhere; argument and errors as `mean_iu`."""
    blind = np.zeros_like(confusions)
    blind[..., 0] = confusions.sum(-1)
    return mean_iu(blind)


def mean_iu_interval(confusions: np.ndarray) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of `mean_iu` over resamples of the images."""
    value, *resampled = resampled_iu(confusions)["mean_iu"]
    kept = [v for v in resampled if not math.isnan(v)]  # a resample may hold void images only
    low, high = np.percentile(kept or [value], (2.5, 97.5))
    return float(low), float(high)


def resampled_iu(confusions: np.ndarray) -> Resampled:
    """`mean_iu`; argument and errors as `mean_iu`."""
    images, classes = confusions.shape[:2]
    counts = resample_counts(images).T.astype(np.float64)  # (1 + B, N), the images themselves first
    totals = (counts @ confusions.reshape(images, -1)).reshape(-1, classes, classes)
    _check_judged(totals[0])
    return {"mean_iu": mean_of_known(intersection_over_union(totals).T)}


def _check_judged(total: np.ndarray) -> None:
    if not total.any():
        raise DataError("the test masks are void throughout: mean IU needs pixels to judge")
