"""Metrics, in percent where the field prints percent.

Each also gives its values over resamples of the test images (`Resampled`): the same resamples for
the same number of images, so that two methods' values can be subtracted, resample by resample.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_bench.data.dataset import VOID
from ssl_bench.errors import DataError
from ssl_bench.statistics import proportion_interval
from ssl_bench.stream import Stream

RESAMPLES = 200  # of the test images, for an interval
RESAMPLING_SEED = 0
# By metric, float64 (1 + B,): its value, then its values over B resamples of the test images. NaN
# where a resample holds nothing to measure.
Resampled = dict[str, np.ndarray]


def resampled_mean(name: str, values: np.ndarray) -> Resampled:
    """Of a metric that is the mean of its values (N,), one a test image."""
    counts = _resamples(len(values))  # (N, 1 + B)
    return {name: values.astype(np.float64) @ counts / len(values)}


def top1(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Share of images whose class is predicted, in percent, with its 95 % Wilson interval.

    Both int64 (N,). Returns `top1`, `top1_low`, `top1_high`.
    """
    hits, total = int((labels == predicted).sum()), len(labels)
    low, high = proportion_interval(hits, total)
    return {"top1": 100 * hits / total, "top1_low": 100 * low, "top1_high": 100 * high}


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

    Returns `map11`, of 11 points, and `map`, the area, with `_low` and `_high`: a 95 % bootstrap
    interval for as many other images, whose resamples serve all classes; a class without a positive
    in a resample is left out of it. Raises DataError if no class has a positive.

    `uninterpolated` adds `map_uninterpolated`: the precision itself over recall, not the best one
    at a recall or a higher one. It is what scikit-learn's average_precision_score gives.

    An image drawn twice raises average precision, so the resamples' percentiles lie too high; they
    are moved by the difference of the resamples' mean to the value. In simulations with 20 classes
    the interval then holds 92 to 96 times of 100, otherwise 88 to 92.
    """
    found = resampled_precision(targets, scores)
    if not uninterpolated:
        del found["map_uninterpolated"]
    return _with_intervals(found)


def resampled_precision(targets: np.ndarray, scores: np.ndarray) -> Resampled:
    """`map11`, `map` and `map_uninterpolated`; arguments and errors as `mean_average_precision`."""
    counts = _resamples(len(targets))  # (N, 1 + B), the images themselves first
    present = np.flatnonzero((targets == 1).any(0))
    if not len(present):
        raise DataError("the test images hold no class: average precision needs positives")
    found = [_average_precisions(targets[:, c], scores[:, c], counts) for c in present]
    means = _mean_of_known(np.stack(found))  # (C, 3, 1 + B) -> (3, 1 + B)
    return dict(zip(("map11", "map", "map_uninterpolated"), means, strict=True))


def _mean_of_known(by_class: np.ndarray) -> np.ndarray:
    """The mean over the classes (first axis) that are not NaN; NaN where all are."""
    known = ~np.isnan(by_class)
    classes = known.sum(0)
    total = np.where(known, by_class, 0).sum(0)
    return np.where(classes > 0, total / np.maximum(classes, 1), np.nan)


def _with_intervals(found: Resampled) -> dict[str, float]:
    """Each value, and its resamples' percentiles moved by their mean's distance from it."""
    metrics = {}
    for name, (value, *resampled) in found.items():
        around = np.array([v for v in resampled if not math.isnan(v)] or [value])
        spread = np.percentile(around - around.mean(), (2.5, 97.5))
        low, high = np.clip(value + spread, 0, 100)
        metrics |= {name: float(value), f"{name}_low": float(low), f"{name}_high": float(high)}
    return metrics


def _resamples(images: int) -> np.ndarray:
    """How often each image is drawn, int32 (N, 1 + B): once, then in each of B resamples."""
    random = Stream(RESAMPLING_SEED)
    draws = random.integers(0, images, (RESAMPLES, images)) + images * np.arange(RESAMPLES)[:, None]
    counts = np.bincount(draws.ravel(), minlength=images * RESAMPLES).reshape(RESAMPLES, images)
    return np.vstack([np.ones((1, images)), counts]).astype(np.int32).T.copy()


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
    drawn = counts[order[: ends[-1]]]
    retrieved = np.add.reduceat(drawn, starts).cumsum(0)  # (T, B)
    true = np.add.reduceat(drawn * hits[: ends[-1], None], starts).cumsum(0)
    precision = true / np.maximum(retrieved, 1)
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


# ---- intersection over union


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Pixels of one image by true class (down) and predicted class (across), int32 (K, K).

    Both masks are uint8 (H, W) of 0 … K − 1, K = `classes` with the background; pixels whose truth
    is VOID are left out.
    """
    judged = truth != VOID
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
    present[..., 0] = union[..., 0] > 0
    return np.where(present, 100 * both / np.maximum(union, 1), np.nan)


def mean_iu(confusions: np.ndarray) -> dict[str, float]:
    """Mean intersection over union and pixel accuracy, percent, of confusions int (N, K, K).

    `mean_iu` is the mean over the classes that have true pixels and the background, whose values
    are `iu_0` (background), `iu_1` …; `mean_iu_low` and `mean_iu_high` are the 2.5th and 97.5th
    percentile over resamples of the images. `pixel_accuracy` is the share of judged pixels whose
    class is right. Raises DataError if no pixel is judged.
    """
    value, *resampled = resampled_iu(confusions)["mean_iu"]
    kept = [v for v in resampled if not math.isnan(v)]  # a resample may hold void images only
    low, high = np.percentile(kept or [value], (2.5, 97.5))
    total = confusions.sum(0, dtype=np.int64)
    by_class = intersection_over_union(total)
    return {
        "mean_iu": float(value),
        "mean_iu_low": float(low),
        "mean_iu_high": float(high),
        "pixel_accuracy": float(100 * np.trace(total) / total.sum()),
        **{f"iu_{c}": float(by_class[c]) for c in np.flatnonzero(~np.isnan(by_class))},
    }


def resampled_iu(confusions: np.ndarray) -> Resampled:
    """`mean_iu`; argument and errors as `mean_iu`."""
    images, classes = confusions.shape[:2]
    counts = _resamples(images).T.astype(np.float64)  # (1 + B, N), the images themselves first
    totals = (counts @ confusions.reshape(images, -1)).reshape(-1, classes, classes)
    if not totals[0].any():
        raise DataError("the test masks are void throughout: mean IU needs pixels to judge")
    return {"mean_iu": _mean_of_known(intersection_over_union(totals).T)}


# ---- detection

OVERLAP = 0.5  # intersection over union from which on a detection has found an object


@dataclass(frozen=True)
class Judged:
    """The detections of one class, best first, and how often the class is there to be found.

    `image` int64 (D,), `score` (D,), `hit` bool (D,); what lies on a difficult object is left out.
    `total` int64 (N,) counts the objects in each image that are not difficult.
    """

    image: np.ndarray
    score: np.ndarray
    hit: np.ndarray
    total: np.ndarray


def box_overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (A, 4) and (B, 4) in x0, y0, x1, y1: float64 (A, B)."""
    both = intersections(a, b)
    return both / np.maximum(box_areas(a)[:, None] + box_areas(b) - both, 1e-12)


def intersections(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Area that boxes (A, 4) and (B, 4) share, float64 (A, B)."""
    a, b = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    return np.maximum(sides, 0).prod(-1)


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Of boxes (A, 4), float64 (A,)."""
    boxes = boxes.astype(np.float64)
    return (boxes[:, 2:] - boxes[:, :2]).prod(-1)


def judge_detections(detections: np.ndarray, objects: np.ndarray, label: int) -> Judged:
    """Match one class as VOC's kit does (VOCevaldet): each object is found once, by the best score.

    `detections` (N, D, 6) hold class, score and box, `objects` (N, M, 6) class, difficult and box;
    class −1 is an empty place. A detection belongs to the object that it overlaps most. It is
    right with an overlap of 0.5 or more, if no better one has found that object; it is left out if
    that object is difficult, else it is wrong, even where it overlaps another one enough.
    """
    found: list[tuple[int, float, bool]] = []
    for image in np.flatnonzero((detections[..., 0] == label).any(1)).tolist():
        mine = detections[image][detections[image, :, 0] == label]
        mine = mine[np.argsort(-mine[:, 1], kind="stable")]
        truth = objects[image][objects[image, :, 0] == label]
        taken = set[int]()
        for score, overlaps in zip(
            mine[:, 1], box_overlaps(mine[:, 2:], truth[:, 2:]), strict=True
        ):
            best = int(overlaps.argmax()) if len(overlaps) else -1
            right = best >= 0 and overlaps[best] >= OVERLAP
            if right and truth[best, 1]:
                continue
            found.append((image, float(score), right and best not in taken))
            taken |= {best} if right else set()
    total = ((objects[..., 0] == label) & (objects[..., 1] == 0)).sum(1)
    order = sorted(found, key=lambda detection: -detection[1])
    columns = list(zip(*order, strict=True)) or [(), (), ()]
    kinds = (np.int64, np.float64, np.bool_)
    image, score, hit = (np.array(c, kind) for c, kind in zip(columns, kinds, strict=True))
    return Judged(image, score, hit, total)


def detection_precisions(judged: Judged, counts: np.ndarray) -> np.ndarray:
    """Average precision of 11 points and area, percent, (2, B), NaN where there is no object.

    Images count int32 (N, B) times. Detections of equal score enter together, so that their order
    makes no difference. Precision is 0 at a recall that is never reached.
    """
    total = judged.total @ counts  # (B,)
    none = np.where(total > 0, 0.0, np.nan)
    if not judged.hit.any():
        return np.stack([none, none])
    true, precision = _ranking(judged, counts)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    reached = [10 * true >= level * total for level in range(11)]  # (T, B) each
    points = [np.where(r.any(0), best[r.argmax(0), np.arange(r.shape[1])], 0) for r in reached]
    gained = np.diff(true, axis=0, prepend=0)
    area = (gained * best).sum(0) / np.maximum(total, 1)
    return 100 * np.stack([np.mean(points, 0), area]) + none


def _ranking(judged: Judged, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Objects found and precision (T, B) at the score of each detection that is right."""
    last = -np.unique(judged.score[judged.hit])[::-1]
    ends = np.searchsorted(-judged.score, last, side="right")
    starts = np.concatenate([[0], ends[:-1]])
    drawn = counts[judged.image[: ends[-1]]]
    retrieved = np.add.reduceat(drawn, starts).cumsum(0)
    true = np.add.reduceat(drawn * judged.hit[: ends[-1], None], starts).cumsum(0)
    return true, true / np.maximum(retrieved, 1)


def detection_curve(judged: Judged) -> tuple[list[float], list[float]]:
    """Recalls and precisions, both 0 to 1, at the score of each detection that is right."""
    if not judged.hit.any():
        return [], []
    true, precision = _ranking(judged, np.ones((len(judged.total), 1), dtype=np.int32))
    return (true[:, 0] / judged.total.sum()).tolist(), precision[:, 0].tolist()


def classes_to_find(objects: np.ndarray) -> list[int]:
    """The classes that have an object which is not difficult. DataError without any."""
    there = objects[..., 0][(objects[..., 0] >= 0) & (objects[..., 1] == 0)]
    if not len(there):
        raise DataError("the test images hold no object to find: detection needs some")
    return np.unique(there).astype(int).tolist()


def detection_precision(detections: np.ndarray, objects: np.ndarray) -> dict[str, float]:
    """VOC's mean average precision at an overlap of 0.5, percent; arrays as `judge_detections`.

    `map11`, of 11 points, and `map`, the area, are means over the classes that have an object which
    is not difficult, with `_low` and `_high`, a 95 % bootstrap interval as in
    `mean_average_precision`; `ap11_0`, `ap_0` … are the classes' own. Raises DataError if there is
    nothing to find.
    """
    by_class = _detection_by_class(detections, objects)
    means = _mean_of_known(by_class)
    metrics = _with_intervals(dict(zip(("map11", "map"), means, strict=True)))
    for label, values in zip(classes_to_find(objects), by_class[..., 0], strict=True):
        metrics |= {f"ap11_{label}": float(values[0]), f"ap_{label}": float(values[1])}
    return metrics


def resampled_detection(detections: np.ndarray, objects: np.ndarray) -> Resampled:
    """`map11` and `map`; arguments and errors as `detection_precision`."""
    means = _mean_of_known(_detection_by_class(detections, objects))
    return dict(zip(("map11", "map"), means, strict=True))


def _detection_by_class(detections: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Average precisions float64 (C, 2, 1 + B) of the classes to find: 11 points and area."""
    counts = _resamples(len(objects))  # (N, 1 + B), the images themselves first
    each = [judge_detections(detections, objects, label) for label in classes_to_find(objects)]
    return np.stack([detection_precisions(judged, counts) for judged in each])


def coco_precision(detections: np.ndarray, objects: np.ndarray) -> float:
    """COCO's mean average precision over the overlaps 0.5, 0.55 … 0.95, percent, by pycocotools.

    Arrays as `judge_detections`. A difficult object is a crowd, COCO's way of leaving one out.
    """
    import contextlib
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = [_coco(image, row) | {"iscrowd": int(row[1])} for image, row in _rows(objects)]
    found = [_coco(image, row) | {"score": float(row[1])} for image, row in _rows(detections)]
    labels = sorted({item["category_id"] for item in truth})
    with contextlib.redirect_stdout(io.StringIO()):  # it reports there, where our results go
        known, answers = COCO(), COCO()
        index: Any  # its types leave out what its code takes
        for index, items in ((known, truth), (answers, found)):
            index.dataset = {
                "images": [{"id": image} for image in range(len(objects))],
                "categories": [{"id": label} for label in labels],
                "annotations": [item | {"id": 1 + i} for i, item in enumerate(items)],
            }
            index.createIndex()
        judge = COCOeval(known, answers, "bbox")
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, -1]  # (overlaps, recalls, classes)
    return 100 * float(precision[precision > -1].mean())


def _rows(padded: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """The rows (6,) of a padded array that are not empty, each with its image."""
    places = np.argwhere(padded[..., 0] >= 0)
    return [(int(image), padded[image, row]) for image, row in places]


def _coco(image: int, row: np.ndarray) -> dict[str, Any]:
    x0, y0, x1, y1 = row[2:].tolist()
    box = [x0, y0, x1 - x0, y1 - y0]
    return {"image_id": image, "category_id": int(row[0]), "bbox": box, "area": box[2] * box[3]}
