"""Intervals, paired tests and Holm's correction against worked figures, scipy and simulations."""

import math
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from ssl_bench.evaluation.intervals import (
    LEVEL,
    holm,
    mean_interval,
    paired_bootstrap,
    paired_hits,
    paired_seeds,
    paired_values,
    proportion_interval,
)
from ssl_bench.evaluation.metrics.precision import resampled_precision, top1, top1_interval
from ssl_bench.evaluation.metrics.resampling import resampled_mean

NORMAL = 1.959964  # its 97.5 % quantile, from the tables


def test_the_t_interval_is_the_textbooks():
    # n = 3: mean 2, standard error 1/√3, t(0.975, 2) = 4.3027 from the tables.
    mean, half = mean_interval([1, 2, 3])
    assert mean == 2
    assert half == pytest.approx(4.30265 / math.sqrt(3), rel=1e-4)


def test_one_value_has_no_interval():
    assert math.isnan(mean_interval([5.0])[1])


def test_wilsons_interval_is_the_published_one():
    # 81 of 263: Newcombe 1998, table I, method 3 gives 0.2553 to 0.3662.
    assert proportion_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_t_intervals_cover_as_often_as_they_say():
    draw = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        mean, half = mean_interval(list(draw.normal(3, 2, 4)))
        covered += abs(mean - 3) <= half
    assert 0.935 < covered / 2000 < 0.965


def test_top1_counts_hits_in_percent():
    arrays = np.array([0, 1, 2, 3]), np.array([0, 1, 2, 0])
    low, high = top1_interval(*arrays)
    assert low < top1(*arrays) == 75 < high


# ---- hits and misses: McNemar


def hits(both, a, b, neither):
    """Two methods' hits on as many images of each kind."""
    mine = np.repeat([True, True, False, False], (both, a, b, neither))
    return mine, np.repeat([True, False, True, False], (both, a, b, neither))


def test_mcnemars_exact_test_by_hand():
    """15 images right by a only, 5 by b only: at most 5 heads of 20 coins, on either side."""
    found = paired_hits(*hits(40, 15, 5, 40))
    assert found.mean == pytest.approx(10)
    tail = sum(math.comb(20, k) for k in range(6))  # 21,700 of 2²⁰
    assert found.p == pytest.approx(2 * tail / 2**20)
    # Agresti: the standard error of the difference of shares is √(15 + 5 − 10²/100) / 100.
    assert found.half == pytest.approx(NORMAL * math.sqrt(20 - 1), rel=1e-6)
    assert (found.n, found.over, found.test) == (1, "images", "McNemar")


@pytest.mark.parametrize(("a", "b"), [(0, 1), (3, 3), (9, 1), (0, 12), (40, 70)])
def test_mcnemars_p_is_the_binomial_tests_on_discordant_images(a, b):
    found = paired_hits(*hits(7, a, b, 11))
    assert found.p == pytest.approx(stats.binomtest(a, a + b, 0.5).pvalue)
    assert found.mean == pytest.approx(100 * (a - b) / (18 + a + b))


def test_images_on_which_both_agree_do_not_change_mcnemars_p():
    assert paired_hits(*hits(0, 15, 5, 0)).p == paired_hits(*hits(900, 15, 5, 300)).p


def test_equal_hits_cannot_be_told_apart():
    found = paired_hits(*hits(10, 0, 0, 5))
    assert (found.mean, found.half, found.p) == (0, 0, 1)


# ---- values and seeds: Student


def test_paired_values_are_scipys_paired_t_test():
    draw = np.random.default_rng(0)
    a = draw.normal(20, 5, 40).astype(np.float32)
    b = (a + draw.normal(0.5, 1, 40)).astype(np.float32)
    found = paired_values(a[None], b[None])
    expected = stats.ttest_rel(a.astype(float), b.astype(float))
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.mean == pytest.approx(a.astype(float).mean() - b.astype(float).mean())
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx(tuple(interval))
    assert (found.over, found.test) == ("images", "paired t")


def test_paired_seeds_are_scipys_paired_t_test():
    a, b = [30.0, 32.0, 34.0], [29.0, 28.0, 30.0]
    found = paired_seeds(a, b)
    expected = stats.ttest_rel(a, b)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.mean, found.n, found.over, found.test) == (3, 3, "seeds", "paired t")
    assert found.mean + found.half == pytest.approx(expected.confidence_interval(0.95).high)


def by_values(a, b):
    return paired_values(np.array([a]), np.array([b]))


@pytest.mark.parametrize("pair", [by_values, paired_seeds])
def test_the_sign_is_that_of_a_minus_b(pair):
    a, b = [1.0, 2.0, 4.0], [2.0, 2.5, 7.0]
    there, back = pair(a, b), pair(b, a)
    assert there.mean < 0
    assert (there.mean, there.half, there.p) == (-back.mean, back.half, back.p)


def test_pairing_removes_what_seeds_share():
    a, b = [50.0, 60.0, 70.0], [49.0, 59.0, 69.0]
    found = paired_seeds(a, b)
    assert (found.mean, found.half, found.p) == (1, 0, 0)
    assert mean_interval(a)[1] > 20


@pytest.mark.parametrize("pair", [by_values, paired_seeds])
def test_equal_values_cannot_be_told_apart(pair):
    found = pair([3.0, 5.0, 4.0], [3.0, 5.0, 4.0])
    assert (found.mean, found.half, found.p) == (0, 0, 1)


def test_differences_that_are_equal_but_for_rounding_are_equal():
    """3 of 30 images more with each seed: 10, 10 + 4e-15 and 10 + 7e-15 percent."""
    a, b = ([100 * hits / 30 for hits in found] for found in ((10, 15, 20), (7, 12, 17)))
    found = paired_seeds(a, b)
    assert found.mean == pytest.approx(10)
    assert found.half == pytest.approx(0, abs=1e-9)
    assert found.p < 1e-9


def test_one_pair_has_no_p_value():
    assert math.isnan(paired_values(np.array([[1.0]]), np.array([[2.0]])).p)


# ---- resamples: bootstrap

# A standard deviation from 200 normal numbers is off by 1 / √(2 · 199) = 5 % of itself.
OWN_ERROR = 3 / math.sqrt(2 * 199)


def bootstrapped(a, b):
    """The paired bootstrap of the means of values (N,)."""
    return paired_bootstrap(*(resampled_mean("m", values)["m"][None] for values in (a, b)))


def test_the_bootstrap_of_a_mean_has_the_closed_forms_interval_and_p():
    draw = np.random.default_rng(1)
    for count, gap in ((100, 0.05), (400, 0.1), (1000, -0.08)):
        a, b = draw.normal(gap, 1, count), draw.normal(0, 0.5, count)
        found = bootstrapped(a, b)
        error = (a - b).std() / math.sqrt(count)
        assert found.mean == pytest.approx((a - b).mean())
        assert found.half == pytest.approx(NORMAL * error, rel=OWN_ERROR)
        z = stats.norm.isf(found.p / 2)
        assert z == pytest.approx(abs((a - b).mean()) / error, rel=OWN_ERROR)
        assert (found.n, found.over, found.test) == (1, "images", "paired bootstrap")


def test_the_bootstrap_sees_what_two_methods_share():
    """A mean of 100 images of spread 10, less the same of spread 10.05: only 1 is left."""
    draw = np.random.default_rng(2)
    b = draw.normal(0, 10, 100)
    a = b + draw.normal(0, 1, 100)
    found = bootstrapped(a, b)
    assert found.half == pytest.approx(NORMAL * (a - b).std() / 10, rel=OWN_ERROR)


def test_bootstrap_intervals_hold_the_difference_as_often_as_they_say():
    """95 of 100; 400 trials are off by 1.1 of 100 themselves."""
    draw = np.random.default_rng(3)
    held = 0
    for _ in range(400):
        shared = draw.exponential(2, 150)
        a, b = shared + draw.normal(0.3, 1, 150), shared + draw.exponential(1, 150)
        found = bootstrapped(a, b)
        held += abs(found.mean - (0.3 - 1)) <= found.half
    assert 0.95 - 3 * 0.011 < held / 400 < 0.95 + 3 * 0.011


def test_of_equally_good_rankings_few_are_told_apart():
    """Average precision of two methods that know as much: 5 of 100, 300 trials are off by 1.3."""
    draw = np.random.default_rng(4)
    rejected = 0
    for _ in range(300):
        targets = (draw.random((120, 2)) < 0.3).astype(np.int8)
        a, b = (
            resampled_precision(targets, targets + draw.normal(0, 1, targets.shape))["map"]
            for _ in range(2)
        )
        rejected += paired_bootstrap(a[None], b[None]).p <= LEVEL
    assert 0.05 - 3 * 0.013 < rejected / 300 < 0.05 + 3 * 0.013


def test_without_spread_the_answer_is_known():
    a = np.array([[50.0, 40.0, 60.0, 55.0]])
    same, more = paired_bootstrap(a, a), paired_bootstrap(a + 2, a)
    assert (same.mean, same.half, same.p) == (0, 0, 1)
    assert (more.mean, more.half, more.p) == (2, 0, 0)


def test_resamples_with_nothing_to_measure_are_left_out():
    a, b = np.array([[50.0, 40.0, np.nan, 60.0]]), np.array([[40.0, 35.0, 45.0, 35.0]])
    expected = paired_bootstrap(a[:, [0, 1, 3]], b[:, [0, 1, 3]])
    assert paired_bootstrap(a, b) == expected


# ---- Holm


def test_holm_by_hand():
    """0.005 · 4, 0.01 · 3, 0.03 · 2, and 0.04 · 1, which may not end below 0.06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_family_of_one_and_of_none():
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_holm_does_not_depend_on_the_order():
    family = {0.001: 0.004, 0.02: 0.06, 0.021: 0.06, 0.5: 0.5}
    for order in permutations(family):
        assert holm(order) == pytest.approx([family[p] for p in order])


@pytest.mark.parametrize("seed", range(20))
def test_holm_lowers_no_p_value_keeps_their_order_and_ends_at_1(seed):
    draw = np.random.default_rng(seed)
    raw = np.round(draw.random(12) ** 3, 2)  # with ties and zeros
    corrected = np.array(holm(raw.tolist()))
    assert (corrected >= raw).all()
    assert (corrected <= 1).all()
    assert (np.diff(corrected[np.argsort(raw)]) >= 0).all()
    assert len(set(zip(raw, corrected, strict=True))) == len(set(raw))  # ties stay ties
    assert (corrected <= np.minimum(1, 12 * raw)).all()  # never more than Bonferroni


@pytest.mark.parametrize("shared", [0.0, 0.7])
def test_of_families_without_an_effect_5_in_100_are_rejected_at_most(shared):
    """8 two-sided tests, alone or with a common part; 4000 families are off by 0.35 of 100."""
    draw = np.random.default_rng(5)
    common, own = draw.normal(size=(4000, 1)), draw.normal(size=(4000, 8))
    p_values = 2 * stats.norm.sf(abs(shared**0.5 * common + (1 - shared) ** 0.5 * own))
    corrected = [min(holm(family)) for family in p_values.tolist()]
    assert (p_values.min(1) <= LEVEL).mean() > 2 * LEVEL  # as they are, far more would be
    assert np.mean(np.array(corrected) <= LEVEL) < LEVEL + 2 * 0.0035


def test_true_effects_do_not_make_holm_reject_others():
    """3 of 8 hypotheses are false and all found: the other 5 are rejected in 5 of 100 at most."""
    draw = np.random.default_rng(6)
    z = draw.normal(size=(4000, 8)) + np.array([9, 9, 9, 0, 0, 0, 0, 0])
    corrected = np.array([holm(family) for family in (2 * stats.norm.sf(abs(z))).tolist()])
    assert (corrected[:, :3] <= LEVEL).all()
    wrong = (corrected[:, 3:] <= LEVEL).any(1).mean()
    assert LEVEL - 3 * 0.0035 < wrong < LEVEL + 3 * 0.0035
