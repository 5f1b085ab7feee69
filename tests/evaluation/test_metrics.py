"""Average precision against worked cases, scikit-learn's curve and a bootstrap by repetition."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve

from ssl_bench.errors import DataError
from ssl_bench.evaluation.metrics import precision
from ssl_bench.evaluation.metrics.precision import (
    average_precision,
    mean_average_precision,
    resampled_precision,
)
from ssl_bench.evaluation.metrics.resampling import RESAMPLES, bootstrap_intervals, resample_counts


def ap(targets, scores):
    found = average_precision(np.array(targets, dtype=np.int8), np.array(scores, dtype=float))
    return found.eleven, found.area


def falling(count):
    """Scores of a ranking in the order of the images."""
    return np.linspace(1, 0, count)


def by_scikit_learn(targets, scores):
    """Both kinds in percent, from scikit-learn's curve, over the images that are judged."""
    judged = targets != -1
    precision, recall, _ = precision_recall_curve(targets[judged] == 1, scores[judged])
    precision, recall = precision[:-1], recall[:-1]  # its last point is a convention
    order = np.argsort(recall, kind="stable")
    recall = recall[order]
    best = np.array([precision[order][recall >= r].max() for r in recall])
    area = (np.diff(recall, prepend=0) * best).sum()
    eleven = [best[recall >= level / 10 - 1e-9].max() for level in range(11)]
    return 100 * np.mean(eleven), 100 * area


def random_case(seed, count=200, classes=1):
    """Targets of 1, 0 and −1, and scores with many ties, that know something of the targets."""
    random = np.random.default_rng(seed)
    targets = (random.random((count, classes)) < 0.15).astype(np.int8)
    scores = np.round(random.normal(size=(count, classes)) + targets, 1)
    targets[random.random((count, classes)) < 0.1] = -1
    return targets, scores


# ---- one class
def test_a_worked_ranking():
    """Precisions 1, 2/3 and 3/5 at recalls 1/3, 2/3 and 1."""
    eleven, area = ap([1, 0, 1, 0, 1], falling(5))
    assert eleven == pytest.approx(100 * (4 * 1 + 3 * 2 / 3 + 4 * 3 / 5) / 11)
    assert area == pytest.approx(100 * (1 + 2 / 3 + 3 / 5) / 3)


def test_a_better_precision_at_a_higher_recall_counts():
    assert ap([0, 1, 1], falling(3)) == pytest.approx((200 / 3, 200 / 3))


def test_three_of_ten_are_a_recall_of_three_tenths():
    """3/10 and 0.1 · 3 differ as floating-point numbers."""
    targets = [1] * 3 + [0] * 7 + [1] * 7
    assert ap(targets, falling(17))[0] == pytest.approx(100 * (4 * 1 + 7 * 10 / 17) / 11)


def test_perfect_and_useless_rankings():
    assert ap([1, 1, 0, 0, 0], falling(5)) == (100, 100)
    assert ap([1, 1, 0, 0, 0], np.ones(5)) == pytest.approx((40, 40))


def test_images_that_are_not_judged_make_no_difference():
    assert ap([1, -1, 0, 1, -1], falling(5)) == ap([1, 0, 1], falling(3))


def test_without_a_positive_there_is_no_average_precision():
    assert np.isnan(ap([0, -1, 0], falling(3))).all()


@pytest.mark.parametrize("seed", range(20))
def test_it_is_scikit_learns_curve_whatever_the_order_of_ties(seed):
    targets, scores = (a[:, 0] for a in random_case(seed))
    expected = by_scikit_learn(targets, scores)
    assert ap(targets, scores) == pytest.approx(expected, abs=1e-9)
    order = np.random.default_rng(seed).permutation(len(targets))
    assert ap(targets[order], scores[order]) == ap(targets, scores)


# ---- all classes
def intervals(targets, scores):
    return bootstrap_intervals(resampled_precision(targets, scores))


def test_the_mean_is_over_classes_that_have_a_positive():
    targets, scores = random_case(0, classes=4)
    targets[:, 2] = 0
    found = mean_average_precision(targets, scores)
    each = [ap(targets[:, c], scores[:, c]) for c in (0, 1, 3)]
    assert (found["map11"], found["map"]) == pytest.approx(tuple(np.mean(each, 0)))
    assert found == mean_average_precision(targets[:, [0, 1, 3]], scores[:, [0, 1, 3]])


def test_counts_are_repetitions():
    targets, scores = (a[:, 0] for a in random_case(1))
    counts = resample_counts(len(targets))[:, :8]
    together = precision._average_precisions(targets, scores, counts)
    for count, found in zip(counts.T, together.T, strict=True):
        drawn = np.repeat(np.arange(len(targets)), count)
        expected = by_scikit_learn(targets[drawn], scores[drawn])
        assert tuple(found[:2]) == pytest.approx(expected)
        judged = targets[drawn] != -1
        plain = average_precision_score(targets[drawn][judged], scores[drawn][judged])
        assert found[2] == pytest.approx(100 * plain)


def test_every_resample_draws_as_many_images_as_there_are():
    counts = resample_counts(30)
    assert counts.shape == (30, 1 + RESAMPLES)
    assert (counts.sum(0) == 30).all()
    assert (counts[:, 0] == 1).all()
    assert len(np.unique(counts, axis=1).T) == counts.shape[1]


def test_the_interval_covers_the_value_shrinks_with_images_and_is_reproducible():
    widths = []
    for count in (100, 400, 1600):
        case = random_case(2, count, classes=10)
        found, around = mean_average_precision(*case), intervals(*case)
        assert around == intervals(*case)
        for name in ("map11", "map"):
            assert around[name][0] < found[name] < around[name][1]
        widths.append(around["map"][1] - around["map"][0])
    assert widths[0] > 1.4 * widths[1] > 1.4**2 * widths[2]  # 2 per step in the limit


def test_the_interval_holds_what_other_images_give():
    """95 of 100 sets of as many images, give or take the error of 100 draws."""
    cases = [random_case(100 + i, 300, classes=5) for i in range(100)]
    typical = np.mean([mean_average_precision(*case)["map11"] for case in cases])
    ends = [intervals(*case)["map11"] for case in cases]
    held = np.mean([low <= typical <= high for low, high in ends])
    assert held > 0.88


def test_a_class_that_resamples_miss_is_left_out_of_them():
    """One positive image of a class: a third of the resamples do not have it."""
    targets = np.zeros((20, 2), dtype=np.int8)
    targets[0, 0] = targets[:10, 1] = 1
    case = targets, falling(20)[:, None].repeat(2, 1)
    assert mean_average_precision(*case)["map"] == 100
    assert intervals(*case)["map"] == (100, 100)


def test_no_positive_at_all_is_refused():
    with pytest.raises(DataError, match="hold no class"):
        mean_average_precision(np.zeros((4, 2), dtype=np.int8), np.zeros((4, 2)))
