"""Mean intersection over union: by hand, against scikit-learn, and its interval."""

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from ssl_bench.data.dataset import VOID
from ssl_bench.errors import DataError
from ssl_bench.evaluation.metrics.overlap import confusion, mean_iu, mean_iu_interval


def test_mean_iu_by_hand():
    """Two images; class 2 is nowhere true, and what is found as it counts against the others."""
    first = confusion(np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 1, 1, 1]], np.uint8), 3)
    second = confusion(np.array([[1, 0, 255]], np.uint8), np.array([[2, 0, 2]], np.uint8), 3)
    assert first.dtype == np.int32
    assert first.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert second.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]  # void is left out
    found = mean_iu(np.stack([first, second]))
    # Background: 2 right, 3 true, 2 found, union 3. Class 1: 2 right, 3 true, 3 found, union 4.
    assert found["iu_0"] == pytest.approx(200 / 3)
    assert found["iu_1"] == pytest.approx(50)
    assert "iu_2" not in found
    assert found["mean_iu"] == pytest.approx((200 / 3 + 50) / 2)
    assert found["pixel_accuracy"] == pytest.approx(100 * 4 / 6)
    low, high = mean_iu_interval(np.stack([first, second]))
    assert low <= found["mean_iu"] <= high


def test_background_counts_even_where_nothing_is_background():
    none = np.array([[[0, 0], [0, 5]]], np.int32)
    assert mean_iu(none)["mean_iu"] == 100  # neither true nor found: left out
    found = np.array([[[0, 0], [5, 5]]], np.int32)
    assert mean_iu(found)["mean_iu"] == 25  # found, never true: 0


@pytest.mark.parametrize("seed", range(5))
def test_mean_iu_is_scikit_learns_mean_over_the_classes_that_are_true(seed):
    random = np.random.default_rng(seed)
    present = np.r_[0, random.choice(np.arange(1, 12), 6, replace=False), VOID]
    truths = [random.choice(present, (13, 9)).astype(np.uint8) for _ in range(7)]
    found = [random.integers(0, 12, (13, 9)).astype(np.uint8) for _ in truths]
    found = [
        np.where(random.random((13, 9)) < 0.4, t, f) for t, f in zip(truths, found, strict=True)
    ]
    found = [np.where(f == VOID, 3, f).astype(np.uint8) for f in found]
    confusions = np.stack([confusion(t, f, 12) for t, f in zip(truths, found, strict=True)])
    judged = np.concatenate(truths).ravel() != VOID
    truth, guess = (np.concatenate(m).ravel()[judged] for m in (truths, found))
    average: Any = None  # each class's own
    expected: Any = jaccard_score(truth, guess, labels=present[:-1], average=average)
    metrics = mean_iu(confusions)
    by_class = [metrics[f"iu_{c}"] for c in sorted(present[:-1])]
    order = np.argsort(present[:-1])
    assert by_class == pytest.approx((100 * expected[order]).tolist())
    assert metrics["mean_iu"] == pytest.approx(100 * expected.mean())
    assert metrics["pixel_accuracy"] == pytest.approx(100 * (truth == guess).mean())
    assert len([name for name in metrics if name.startswith("iu_")]) == 7


def test_intervals_are_repeatable_and_shrink_with_more_images():
    random = np.random.default_rng(0)
    many = random.integers(0, 50, (400, 4, 4)).astype(np.int32)
    few, all_of_them = mean_iu_interval(many[:20]), mean_iu_interval(many)
    assert mean_iu_interval(many[:20]) == few
    widths = [high - low for low, high in (few, all_of_them)]
    assert widths[1] < 0.4 * widths[0]


def test_void_images_do_not_spoil_the_interval_and_no_pixel_at_all_is_an_error():
    counts = np.zeros((3, 2, 2), np.int32)
    counts[0] = [[3, 1], [0, 4]]
    low, high = mean_iu_interval(counts)  # most lack the only image with pixels, or hold it twice
    assert low == high == pytest.approx(mean_iu(counts)["mean_iu"])
    for metric in (mean_iu, mean_iu_interval):
        with pytest.raises(DataError, match="void throughout"):
            metric(counts[1:])
