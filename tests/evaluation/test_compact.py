"""Compact predictions: fewer bytes, the same numbers bit for bit, by our arithmetic and others'."""

import bz2
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from ssl_bench import catalogue
from ssl_bench.evaluation.compact import compact_detections, compact_scores
from ssl_bench.evaluation.harness import score_with_intervals
from ssl_bench.evaluation.metrics.detection import (
    coco_precision,
    detection_precision,
    resampled_detection,
)
from ssl_bench.evaluation.metrics.precision import mean_average_precision, resampled_precision


def ranking(seed: int, images: int = 120, classes: int = 4, ties: bool = False):
    """Targets of 1, 0 and −1 and scores that know a little of them."""
    random = np.random.default_rng(seed)
    targets = random.choice(np.array([1, 0, -1], np.int8), (images, classes), p=[0.2, 0.7, 0.1])
    scores = random.normal(size=(images, classes)).astype(np.float32) + (targets == 1)
    return targets, np.round(scores) if ties else scores


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_the_same_in_every_resample(seed, ties):
    targets, scores = ranking(seed, ties=ties)
    compact = compact_scores(targets, scores)
    assert compact.dtype == np.int16
    settings = {"uninterpolated": True}
    same = mean_average_precision(targets, compact, **settings)
    assert same == mean_average_precision(targets, scores, **settings)
    ours, theirs = resampled_precision(targets, compact), resampled_precision(targets, scores)
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    assert np.array_equal(compact_scores(targets, compact), compact)


def test_scikit_learn_finds_the_same_average_precision():
    targets, scores = ranking(7)
    judged = targets[:, 0] != -1
    compact = compact_scores(targets, scores)
    ours, theirs = (
        average_precision_score(targets[judged, 0] == 1, numbers[judged, 0])
        for numbers in (compact, scores)
    )
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_scores_by_hand():
    """Positives 0.9 and 0.4; a negative reaches as many of them as lie at or below it."""
    targets = np.array([[1], [0], [1], [0], [0]], np.int8)
    scores = np.array([[0.9], [0.5], [0.4], [0.4], [0.1]], np.float32)
    assert compact_scores(targets, scores).ravel().tolist() == [2, 1, 1, 1, 0]


def test_a_class_without_a_positive_is_nought_and_many_positives_fit():
    targets, scores = np.zeros((3, 1), np.int8), np.ones((3, 1), np.float32)
    assert not compact_scores(targets, scores).any()
    count = np.iinfo(np.int16).max + 2
    column = np.arange(count, dtype=np.float32)[:, None]
    found = compact_scores(np.ones((count, 1), np.int8), column)
    assert np.array_equal(found.ravel(), 1 + np.arange(count))


def test_further_axes_are_rankings_of_their_own():
    targets, scores = ranking(1)
    draws = np.stack([scores, -scores], -1)[:, :, None]
    compact = compact_scores(targets, draws)
    for draw in range(2):
        alone = compact_scores(targets, draws[:, :, 0, draw])
        assert np.array_equal(compact[:, :, 0, draw], alone)


def boxes(seed: int, images: int = 30, found: int = 25, classes: int = 3, ties: bool = False):
    """Objects, some difficult, and detections near and far from them, with empty places in both."""
    random = np.random.default_rng(seed)
    objects = np.full((images, 4, 6), -1, np.float32)
    detections = np.full((images, found, 6), -1, np.float32)
    for image in range(images):
        for row in objects[image, : random.integers(0, 5)]:
            corner, side = random.uniform(0, 60, 2), random.uniform(10, 40, 2)
            label, difficult = random.integers(0, classes), random.random() < 0.3
            row[:] = label, difficult, *corner, *(corner + side)
        for row in detections[image, : random.integers(0, found + 1)]:
            known = objects[image][objects[image, :, 0] >= 0]
            if len(known) and random.random() < 0.6:
                near = known[random.integers(len(known))]
                label, box = near[0], near[2:] + random.normal(0, 4, 4)
                if random.random() < 0.3:  # well within: COCO leaves it out of a difficult one
                    box = near[2:] + np.array([3, 3, -3, -3]) + random.normal(0, 1, 4)
            else:
                corner = random.uniform(0, 60, 2)
                label, box = random.integers(0, classes), np.concatenate([corner, corner + 20])
            score = random.random()
            box = np.concatenate([np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:])])
            row[:] = label, np.round(score, 1) if ties else score, *box
    return detections, objects


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_detections_are_judged_the_same_by_voc_and_by_coco(seed, ties):
    detections, objects = boxes(seed, ties=ties)
    compact = compact_detections(detections, objects)
    assert detection_precision(compact, objects) == detection_precision(detections, objects)
    assert coco_precision(compact, objects) == coco_precision(detections, objects)
    ours, theirs = (resampled_detection(d, objects) for d in (compact, detections))
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    assert np.array_equal(compact_detections(compact, objects), compact)


def test_detections_by_hand():
    """A hit keeps its box; a miss above it counts and has none; one below it, and one of a class
    that is not there, are left out."""
    objects = np.array([[[0, 0, 10, 10, 30, 30]]], np.float32)
    hit, above, below = ([0, s, *b] for s, b in ((0.5, (10, 10, 30, 28)), (0.8, (50, 50, 60, 60)),
                                                 (0.2, (51, 50, 60, 60))))  # fmt: skip
    detections = np.array([[below, [1, 0.9, 0, 0, 9, 9], hit, above]], np.float32)
    compact = compact_detections(detections, objects)
    assert compact.tolist() == [[[0, 2, -2, -2, -1, -1], [0, 1, 10, 10, 30, 28]]]


def test_nothing_found_is_one_empty_place():
    objects = np.array([[[0, 0, 10, 10, 30, 30]]], np.float32)
    nothing = np.full((1, 100, 6), -1, np.float32)
    compact = compact_detections(nothing, objects)
    assert compact.tolist() == [[[-1] * 6]]
    assert detection_precision(compact, objects) == detection_precision(nothing, objects)


def predictions_for(name: str) -> dict[str, np.ndarray]:
    """What a harness of this name would store."""
    if name == "detect":
        detections, objects = boxes(0)
        return {"detections": detections, "objects": objects}
    targets, scores = ranking(0)
    if name == "low-shot":  # (N, C, shots, draws)
        scores = np.stack([scores, -scores], -1)[:, :, None]
    return {"targets": targets, "scores": scores}


@pytest.mark.parametrize(
    ("name", "settings"),
    [("svm", {}), ("finetune", {}), ("low-shot", {"shots": (1,), "draws": 2}), ("detect", {})],
)
def test_harnesses_score_the_same_by_what_they_make_compact(name: str, settings: dict[str, Any]):
    harness = catalogue.evaluation(name)
    harness = harness(harness.Config(**settings))
    predictions = predictions_for(name)
    compact = harness.compact(predictions)
    assert score_with_intervals(harness, compact) == score_with_intervals(harness, predictions)
    ours, theirs = harness.resampled(compact), harness.resampled(predictions)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[n], theirs[n], equal_nan=True) for n in theirs)
    sizes = [
        sum(len(bz2.compress(a.tobytes())) for a in each.values())
        for each in (compact, predictions)
    ]
    assert sizes[0] < 0.75 * sizes[1]


def test_one_label_an_image_stays_as_it_is():
    predictions = {"label": np.arange(3), "predicted": np.arange(3)}
    for name in ("finetune", "low-shot", "knn"):
        harness = catalogue.evaluation(name)
        compact = harness(harness.Config()).compact(predictions)
        assert all(np.array_equal(compact[n], predictions[n]) for n in predictions)
