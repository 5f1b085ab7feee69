"""Chance: what is scored without a look at the images, against counts and worked cases."""

import numpy as np
import pytest

from eval.detection import FastRCNN
from eval.low_shot import LowShot, LowShotConfig
from helpers.places import RESULTS
from ssl_bench.evaluation.harness import score_with_intervals
from ssl_bench.evaluation.metrics.overlap import background_iu, confusion
from ssl_bench.evaluation.metrics.precision import most_frequent, random_precision, top1
from ssl_bench.records.protocols import harness_of
from ssl_bench.records.workspace import predictions_of, read_records


def test_top1_is_that_of_the_most_frequent_class():
    labels = np.array([2, 0, 2, 1, 2, 7])
    assert most_frequent(labels) == 50 == top1(labels, np.full(6, 2))


def test_random_rankings_score_the_expected_average_precision():
    """Of P positives in N images E[AP] = (H + (P − 1)/(N − 1) (N − H))/N, H = Σ 1/i, i = 1 … N.

    Given a positive at rank r, each of the r − 1 places before it holds one of the P − 1 others
    with probability (P − 1)/(N − 1); the mean over r of (1 + (r − 1) (P − 1)/(N − 1))/r.
    """
    n, positives = 400, 60
    harmonic = sum(1 / i for i in range(1, n + 1))
    expected = (harmonic + (positives - 1) / (n - 1) * (n - harmonic)) / n
    targets = np.zeros((n, 10), np.int8)
    targets[:positives] = 1
    found = random_precision(targets)
    assert found["map_uninterpolated"] == pytest.approx(100 * expected, abs=0.7)  # 200 rankings
    assert found["map"] > found["map_uninterpolated"]
    assert found == random_precision(targets)


def test_background_everywhere():
    truth = np.zeros((1, 8), np.uint8)
    truth[0, :2], truth[0, 2] = 1, 255
    confusions = np.stack([confusion(truth, np.full_like(truth, seen), 3) for seen in (1, 2)])
    found = background_iu(confusions)
    assert found["mean_iu"] == pytest.approx((100 * 5 / 7 + 0) / 2)  # of class 2 there is no pixel
    assert found["pixel_accuracy"] == pytest.approx(100 * 5 / 7)


def test_few_labels_have_one_chance_at_every_number_of_shots():
    harness = LowShot(LowShotConfig(probe="knn", shots=(1, 2)))
    assert harness.chance({"label": np.array([0, 0, 0, 1])}) == {"top1_k1": 75, "top1_k2": 75}


def test_a_blind_box_finds_nothing():
    assert FastRCNN(FastRCNN.Config()).chance({}) == {"map11": 0, "map": 0, "coco_map": 0}


@pytest.mark.parametrize("suite", ["quickstart", "voc-mini-choice"])
def test_every_shown_metric_of_a_committed_record_has_a_chance_below_perfect(suite):
    record = read_records(RESULTS / suite, "evaluation")[0]
    harness = harness_of(record)
    predictions = predictions_of(record, RESULTS / suite)
    found = harness.chance(predictions)
    assert found.keys() <= score_with_intervals(harness, predictions).keys()
    assert all(0 <= found[name] < 50 for name in record.shown)
