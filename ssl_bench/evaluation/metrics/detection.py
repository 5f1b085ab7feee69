"""Average precision of detections, in percent: VOC's, and COCO's by pycocotools."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_bench.errors import DataError, extra
from ssl_bench.evaluation.metrics.resampling import (
    Resampled,
    mean_of_known,
    resample_counts,
)

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
            # VOC's kit looks at the best object only; COCO's would take the next if it is taken.
            best = int(overlaps.argmax()) if len(overlaps) else -1
            right = best >= 0 and overlaps[best] >= OVERLAP
            if right and truth[best, 1]:
                continue  # neither right nor wrong, however often it is found
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
    none = np.where(total > 0, 0.0, np.nan)  # added at the end: 0 changes nothing, NaN all
    if not judged.hit.any():
        return np.stack([none, none])
    true, precision = _ranking(judged, counts)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    # In whole numbers, for 0.1 · 3 is not 0.3: recall ≥ level / 10 is 10 · true ≥ level · total.
    reached = [10 * true >= level * total for level in range(11)]  # (T, B) each
    points = [np.where(r.any(0), best[r.argmax(0), np.arange(r.shape[1])], 0) for r in reached]
    gained = np.diff(true, axis=0, prepend=0)
    area = (gained * best).sum(0) / np.maximum(total, 1)
    return 100 * np.stack([np.mean(points, 0), area]) + none


def _ranking(judged: Judged, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Objects found and precision (T, B) at the score of each detection that is right."""
    # A stretch ends with the last detection whose score ties with a right one.
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
    is not difficult; `ap11_0`, `ap_0` … are the classes' own. Raises DataError if there is nothing
    to find.
    """
    once = np.ones((len(objects), 1), dtype=np.int32)
    by_class = _by_class(detections, objects, once)[..., 0]  # (C, 2)
    means = mean_of_known(by_class).tolist()
    metrics: dict[str, float] = dict(zip(("map11", "map"), means, strict=True))
    for label, values in zip(classes_to_find(objects), by_class.tolist(), strict=True):
        metrics |= {f"ap11_{label}": values[0], f"ap_{label}": values[1]}
    return metrics


def resampled_detection(detections: np.ndarray, objects: np.ndarray) -> Resampled:
    """`map11` and `map`; arguments and errors as `detection_precision`."""
    means = mean_of_known(_by_class(detections, objects, resample_counts(len(objects))))
    return dict(zip(("map11", "map"), means, strict=True))


def _by_class(detections: np.ndarray, objects: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Average precisions float64 (C, 2, B) of the classes to find: 11 points and area.

    Images count int32 (N, B) times.
    """
    each = [judge_detections(detections, objects, label) for label in classes_to_find(objects)]
    return np.stack([detection_precisions(judged, counts) for judged in each])


def coco_precision(detections: np.ndarray, objects: np.ndarray) -> float:
    """COCO's mean average precision over the overlaps 0.5, 0.55 … 0.95, percent, by pycocotools.

    Arrays as `judge_detections`. A difficult object is a crowd, COCO's way of leaving one out.
    """
    import contextlib
    import io

    with extra("detect"):
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

    # A crowd matches any number of detections and counts none: nearest to VOC's "difficult".
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
                # From 1: pycocotools takes a matched id of 0 for no match.
                "annotations": [item | {"id": 1 + i} for i, item in enumerate(items)],
            }
            index.createIndex()
        judge = COCOeval(known, answers, "bbox")
        judge.evaluate()
        judge.accumulate()
    # Area 0 is all sizes, limit −1 is 100 detections an image; −1 marks a class without objects.
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
