"""Predictions in fewer bytes, by which the metrics come out the same, bit for bit.

Average precision looks at scores only through the order of the images, and of that order only at
what lies between one positive and the next. So scores become small whole numbers: images that no
positive keeps apart share one. Detections that no overlap could make right keep no box.

What is made compact a second time stays as it is.
"""

from collections.abc import Mapping

import numpy as np

from ssl_bench.evaluation.metrics.detection import OVERLAP, box_areas, box_overlaps, intersections

AWAY = (-2.0, -2.0, -1.0, -1.0)  # a box outside every image
NEARLY = OVERLAP - 0.01  # whatever the last bit of an overlap is by another's arithmetic


def compact_scores(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """How many different scores of positives each score reaches, int16 or int32 (N, C, …).

    Targets int8 (N, C) of 1, 0 and −1, scores (N, C) or with further axes, each of which is a
    ranking of its own. The average precisions of `mean_average_precision`, and those of any
    resample of the images, are the same by these numbers: recall grows at positives only, and what
    lies between two of them comes in with the latter.
    """
    further = scores.reshape(*targets.shape, -1)
    found = np.empty(further.shape, dtype=np.int32)
    for c in range(targets.shape[1]):
        positive = targets[:, c] == 1
        for k in range(further.shape[2]):
            own = further[:, c, k]
            found[:, c, k] = np.searchsorted(np.unique(own[positive]), own, side="right")
    small = found.max(initial=0) <= np.iinfo(np.int16).max
    return found.reshape(scores.shape).astype(np.int16 if small else np.int32)


def with_compact_scores(predictions: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Predictions with their `scores` so, where they hold `targets` beside them."""
    if "targets" not in predictions:
        return predictions
    return {**predictions, "scores": compact_scores(predictions["targets"], predictions["scores"])}


def compact_detections(detections: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """The detections that count, float32 (N, D', 6), in each image by class and score.

    Arrays as `judge_detections`. A detection can be right, or left out, if it overlaps an object of
    its class enough, by VOC's reckoning or by COCO's (a difficult object is overlapped by the share
    of the detection that is in it). It keeps its box; others lie AWAY. Scores are numbered by class
    among those that can be right, with one number for all others between two of them; others below
    the last are left out.
    """
    made = detections.astype(np.float32)
    may_hit = np.stack([_may_hit(*pair) for pair in zip(made, objects, strict=True)])
    made[~may_hit, 2:] = AWAY
    for label in np.unique(made[..., 0]):
        mine = made[..., 0] == label
        steps = np.unique(made[mine & may_hit][:, 1])
        scores = made[mine][:, 1]
        below, reached = (np.searchsorted(steps, scores, side=s) for s in ("left", "right"))
        made[mine, 1] = below + reached  # odd: the same score as one that can be right
    made[(made[..., 0] < 0) | (made[..., 1] == 0)] = -1
    empty = made[..., 0] < 0
    order = np.lexsort((-made[..., 1], made[..., 0], empty))  # stable: ties stay in their order
    return np.take_along_axis(made, order[..., None], 1)[:, : max(1, (~empty).sum(1).max())]


def _may_hit(detections: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Which detections (D, 6) of one image can be matched to an object (M, 6), bool (D,)."""
    alike = (detections[:, :1] == objects[None, :, 0]) & (objects[None, :, 0] >= 0)
    overlap = box_overlaps(detections[:, 2:], objects[:, 2:])
    share = intersections(detections[:, 2:], objects[:, 2:])
    share /= np.maximum(box_areas(detections[:, 2:]), 1e-12)[:, None]
    within = np.where(objects[:, 1] == 1, share, 0)
    return (alike & (np.maximum(overlap, within) >= NEARLY)).any(1)
