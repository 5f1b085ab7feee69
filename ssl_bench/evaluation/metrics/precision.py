"""Top-1 accuracy and average precision, in percent."""

from dataclasses import dataclass

import numpy as np

from ssl_bench.errors import DataError
from ssl_bench.evaluation.intervals import proportion_interval
from ssl_bench.evaluation.metrics.resampling import (
    RESAMPLING_SEED,
    Resampled,
    mean_of_known,
    resample_counts,
)
from ssl_bench.stream import Stream

RANKINGS = 20  # drawn for what chance is


def top1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Share of images whose class is predicted, both int64 (N,), in percent."""
    return 100 * int((labels == predicted).sum()) / len(labels)


def top1_interval(labels: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Wilson's 95 % interval of `top1`, in percent."""
    low, high = proportion_interval(int((labels == predicted).sum()), len(labels))
    return 100 * low, 100 * high


def most_frequent(labels: np.ndarray) -> float:
    """`top1` of who always says the most frequent of labels (N,), in percent."""
    return 100 * int(np.unique(labels, return_counts=True)[1].max()) / len(labels)


# ---- average precision
@dataclass(frozen=True)
class AveragePrecision:
    """VOC's two kinds, in percent; NaN where there is no positive.

    `eleven` is VOC07's: the mean over the recalls 0, 0.1 … 1 of the best precision at that recall
    or a higher one (Everingham et al., IJCV 88, 2010, section 4.2). `area`, from VOC10 on, is the
    area under that best precision as a function of recall.
    """

    eleven: float
    area: float


def average_precision(targets: np.ndarray, scores: np.ndarray) -> AveragePrecision:
    """Of one class: targets int8 (N,) of 1, 0 and −1, which is left out; scores (N,).

    Images of equal score enter the ranking together, so that their order makes no difference.
    Recalls are compared as whole numbers of images: 3 of 10 is a recall of 0.3.
    """
    once = np.ones((len(targets), 1), dtype=np.int32)
    eleven, area, _ = _average_precisions(targets, scores, once)
    return AveragePrecision(float(eleven[0]), float(area[0]))


def mean_average_precision(
    targets: np.ndarray, scores: np.ndarray, *, uninterpolated: bool = False
) -> dict[str, float]:
    """Mean over the classes that have a positive, targets int8 (N, C) and scores (N, C), percent.

    Returns `map11`, of 11 points, and `map`, the area. Raises DataError if no class has a positive.

    `uninterpolated` adds `map_uninterpolated`: the precision itself over recall, not the best one
    at a recall or a higher one. It is what scikit-learn's average_precision_score gives.
    """
    once = np.ones((len(targets), 1), dtype=np.int32)
    found = {name: float(value) for name, (value,) in _means(targets, scores, once).items()}
    if not uninterpolated:
        del found["map_uninterpolated"]
    return found


def random_precision(targets: np.ndarray) -> dict[str, float]:
    """`mean_average_precision`, all three, of rankings drawn at random: the mean over some draws.

    It is near the share of positives, and above it where these are few: a single positive of N
    images has 1/N Σ 1/rank, and the best precision at a recall or a higher one is above that.
    """
    random = Stream(RESAMPLING_SEED)
    draws = [
        mean_average_precision(targets, random.random(targets.shape), uninterpolated=True)
        for _ in range(RANKINGS)
    ]
    return {name: sum(draw[name] for draw in draws) / RANKINGS for name in draws[0]}


def resampled_precision(targets: np.ndarray, scores: np.ndarray) -> Resampled:
    """`map11`, `map` and `map_uninterpolated`; arguments and errors as `mean_average_precision`.

    The resamples serve all classes; a class without a positive in one is left out of it.
    """
    return _means(targets, scores, resample_counts(len(targets)))


def _means(targets: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> Resampled:
    """Each kind's mean over the classes, (B,), where images count int32 (N, B) times."""
    present = np.flatnonzero((targets == 1).any(0))
    if not len(present):
        raise DataError("the test images hold no class: average precision needs positives")
    found = [_average_precisions(targets[:, c], scores[:, c], counts) for c in present]
    means = mean_of_known(np.stack(found))  # (C, 3, 1 + B) -> (3, 1 + B)
    return dict(zip(("map11", "map", "map_uninterpolated"), means, strict=True))


def _average_precisions(targets: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Of one class, (3, B): 11 points, the area, and the area under the precision itself.

    Images count int32 (N, B) times. Thresholds at which no positive comes in cannot hold a best
    precision, and recall gains nothing there, so only the others are looked at.
    """
    judged = np.flatnonzero(targets != -1)
    order = judged[np.argsort(-scores[judged], kind="stable")]
    ranked, hits = scores[order], targets[order] == 1
    if not hits.any():
        return np.full((3, counts.shape[1]), np.nan)
    # The ranking in stretches, each of which ends with the images that tie with a positive.
    ends = np.searchsorted(-ranked, -np.unique(ranked[hits])[::-1], side="right")
    starts = np.concatenate([[0], ends[:-1]])
    # What ranks below the last positive changes no precision that counts.
    drawn = counts[order[: ends[-1]]]
    retrieved = np.add.reduceat(drawn, starts).cumsum(0)  # (T, B)
    true = np.add.reduceat(drawn * hits[: ends[-1], None], starts).cumsum(0)
    precision = true / np.maximum(retrieved, 1)  # a resample may have drawn none so far
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return 100 * np.stack([_eleven_points(best, true), _area(best, true), _area(precision, true)])


def _eleven_points(best: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Mean of the best precision (T, B) at eleven recalls, (B,); NaN without a positive."""
    total = true[-1]
    levels = np.arange(11)[:, None]
    # The first threshold that reaches a recall of level / 10.
    places = [(10 * true < level * total).sum(0) for level in levels]
    found = np.take_along_axis(best, np.stack(places), 0).mean(0)
    return np.where(total > 0, found, np.nan)


def _area(precision: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Area under a precision (T, B) over recall, (B,); NaN without a positive."""
    gained = np.diff(true, axis=0, prepend=0)
    total = true[-1]
    return np.where(total > 0, (gained * precision).sum(0) / np.maximum(total, 1), np.nan)
