"""Seeds and images together: a worked analysis of variance, Student, Behrens, and simulations."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from ssl_bench.evaluation.intervals import paired_bootstrap, paired_seeds, paired_values
from ssl_bench.evaluation.metrics.resampling import resampled_mean
from ssl_bench.evaluation.two_way import (
    LEVEL,
    Variance,
    half_width,
    p_value,
    variance_of_resamples,
    variance_of_values,
)

# Two seeds on three images. Means by seed 2 and 4, by image 1, 3 and 5, in all 3. Sums of squares:
# seeds 3 · (1 + 1) = 6, images 2 · (4 + 0 + 4) = 16, in all 9 + 1 + 1 + 1 + 1 + 9 = 22 …
WORKED = np.array([[0.0, 2.0, 4.0], [2.0, 4.0, 6.0]])
# … and of these, −1 to image 1 of seed 0 and image 3 of seed 1, +1 to their neighbours: no mean by
# seed or by image but those of images 1 and 3 moves, and both together have squares of their own.
CROSSED = np.array([[-1.0, 2.0, 5.0], [3.0, 4.0, 5.0]])


def test_the_mean_squares_of_a_worked_table():
    """MS_seeds 6, MS_images 16 / 2 = 8, MS_both 0: over S N = 6, 1 and 8 / 6."""
    found = variance_of_values(WORKED)
    assert (found.seeds, found.images) == pytest.approx((1, 8 / 6))
    assert (found.seeds_freedom, found.images_freedom) == (1, 2)


def test_what_seeds_and_images_do_together_counts_once():
    """MS_both: residuals ±1 at four places, 4 / 2 = 2. MS_images is 8 as before, MS_seeds 6."""
    found = variance_of_values(CROSSED)
    assert (found.seeds, found.images) == pytest.approx((6 / 6, (8 - 2) / 6))


def test_the_mean_squares_are_those_of_the_definition():
    values = np.random.default_rng(0).normal(size=(4, 7)) + np.arange(7)
    seeds, images = values.mean(1), values.mean(0)
    between = sum((m - values.mean()) ** 2 for m in seeds) * 7 / 3
    across = sum((m - values.mean()) ** 2 for m in images) * 4 / 6
    rest = sum(
        (values[s, i] - seeds[s] - images[i] + values.mean()) ** 2
        for s in range(4)
        for i in range(7)
    )
    found = variance_of_values(values)
    total = (between + across - rest / 18) / 28
    assert float(found.seeds + found.images) == pytest.approx(total)


AGAINST = np.array([[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]])


def test_images_add_nothing_rather_than_less_than_nothing():
    """Seeds that contradict each other on every image: their means are the same throughout."""
    assert variance_of_values(AGAINST).images == 0


def test_equal_means_of_seeds_tell_no_spread_below_the_grids():
    """Means of four images that differ by 2 lie 2 / 4 apart; of what is rounded to that, 1/12."""
    found = variance_of_values(AGAINST + 7)
    assert float(found.seeds) == pytest.approx(0.5**2 / 12 / 2)
    assert float(p_value(7.0, found)) > 0.005  # two seeds prove little
    some = np.array([[0, 0, 100, 100, 0], [100, 100, 0, 0, 0]])  # not one image tells their mean
    assert float(variance_of_values(some).seeds) == pytest.approx(20**2 / 12 / 2)


def test_a_spread_above_the_grids_is_as_it_was():
    """Of means that are 2 grid steps apart, 2 · step² over two seeds."""
    values = np.array([[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert float(variance_of_values(values).seeds) == pytest.approx(0.5**2 / 2 / 2)


def test_seeds_that_agree_on_every_image_are_the_same():
    """A method without luck: what is unknown of it are other images."""
    row = np.array([0.0, 100.0, 100.0, 0.0, 0.0])
    found = variance_of_values(np.stack([row, row, row]))
    assert found.seeds == 0
    assert float(found.images) == pytest.approx(row.var(ddof=1) / 5)


def test_values_that_may_be_any_have_no_grid():
    values = np.random.default_rng(4).normal(size=(2, 50))
    values[1] += values[0].mean() - values[1].mean()
    found = variance_of_values(values)
    assert float(found.seeds) < 1e-9
    assert float(found.images) > 0


def test_many_tables_at_once_are_each_for_itself():
    values = np.random.default_rng(1).normal(size=(3, 4, 20))
    together = variance_of_values(values)
    for place, one in enumerate(values):
        alone = variance_of_values(one)
        assert np.asarray(together.seeds)[place] == pytest.approx(float(alone.seeds))
        assert np.asarray(together.images)[place] == pytest.approx(float(alone.images))


def test_resamples_tell_the_same_as_the_values_of_a_mean():
    """But for their own error, 5 % of a standard deviation by 200 of them."""
    random = np.random.default_rng(2)
    values = (
        random.normal(size=(4, 1)) / 20 + random.normal(size=400) + random.normal(size=(4, 400))
    )
    resampled = np.stack([resampled_mean("m", row)["m"] for row in values])
    exact, found = variance_of_values(values), variance_of_resamples(resampled)
    assert found.seeds == pytest.approx(float(exact.seeds))
    assert found.images == pytest.approx(float(exact.images), rel=0.3)
    assert found.images_freedom == np.inf


def test_a_resample_with_nothing_to_measure_is_left_out():
    resampled = np.random.default_rng(3).normal(size=(3, 9))
    resampled[1, 4] = np.nan
    found = variance_of_resamples(resampled)
    assert found == variance_of_resamples(np.delete(resampled, 4, 1))


# ---- intervals and tests


@pytest.mark.parametrize("freedom", [1, 2, 4, 9, 99])
def test_either_part_alone_is_students(freedom):
    for variance in (Variance(4.0, 0.0, freedom, 50), Variance(0.0, 4.0, 1, freedom)):
        assert half_width(variance) == pytest.approx(2 * stats.t.ppf(0.975, freedom))
        for mean in (0.1, 2.0, 9.0, -9.0):
            p = 2 * stats.t.sf(abs(mean) / 2, freedom)
            assert p_value(mean, variance) == pytest.approx(p, rel=1e-6)


def test_the_p_value_is_behrens_and_fishers():
    """A million draws of √V_seeds · t_2 + √V_images · normal."""
    random = np.random.default_rng(4)
    drawn = np.abs(0.4**0.5 * random.standard_t(2, 10**6) + 0.6**0.5 * random.normal(size=10**6))
    for mean in (0.5, 1.0, 2.0, 5.0, 12.0):
        share = (drawn > mean).mean()
        error = 4 * (share * (1 - share) / 10**6) ** 0.5
        assert p_value(mean, Variance(0.4, 0.6, 2, np.inf)) == pytest.approx(share, abs=error)


def test_images_never_make_a_difference_surer():
    for images in (0.0, 0.1, 1.0, 10.0):
        more = Variance(1.0, images, 2, 199)
        assert half_width(more) >= half_width(Variance(1.0, 0.0, 2, 199))
        assert p_value(5.0, more) >= p_value(5.0, Variance(1.0, 0.0, 2, 199)) - 1e-12


def test_without_any_spread_the_answer_is_known():
    none = Variance(0.0, 0.0, 2, 9)
    assert [float(p_value(mean, none)) for mean in (0.0, 3.0, -3.0)] == [1, 0, 0]
    assert half_width(none) == 0
    many = np.array([0.0, 2.0])
    assert p_value(many, Variance(np.zeros(2), np.zeros(2), 2, 9)).tolist() == [1, 0]


def test_a_pair_of_several_seeds_is_of_both_and_says_so():
    random = np.random.default_rng(5)
    a, b = random.normal(1, 1, (3, 50)), random.normal(0, 1, (3, 50))
    found, alone = paired_values(a, b), paired_seeds(list(a.mean(1)), list(b.mean(1)))
    assert (found.n, found.over, found.test) == (3, "seeds and images", "two-way t")
    assert found.mean == pytest.approx(alone.mean)
    assert found.half >= alone.half
    assert found.half == half_width(variance_of_values(a - b))
    drawn = paired_bootstrap(a, b)
    assert (drawn.n, drawn.over, drawn.test) == (3, "seeds and images", "two-way bootstrap")


# ---- simulations: tests/perf/coverage.py in small

TRIALS = 1500


def crossed(random, seeds, shares, draw):
    """Values (TRIALS, S, 100) whose mean is 0, with a variance of these shares."""
    counts = np.array([seeds, 100, seeds * 100])
    deviations = np.sqrt(np.array(shares) * counts)
    shapes = (TRIALS, seeds, 1), (TRIALS, 1, 100), (TRIALS, seeds, 100)
    return sum(d * draw(random, shape) for d, shape in zip(deviations, shapes, strict=True))


def normal(random, shape):
    return random.normal(size=shape)


def heavy(random, shape):
    return random.standard_t(3, size=shape)


@pytest.mark.parametrize("draw", [normal, heavy])
@pytest.mark.parametrize(
    "shares", [(0, 1, 0), (0, 0.5, 0.5), (0, 0, 1), (0.5, 0.5, 0), (0.7, 0.2, 0.1), (1, 0, 0)]
)
@pytest.mark.parametrize("seeds", [3, 10])
def test_intervals_hold_the_truth_and_tests_do_not_err(seeds, shares, draw):
    """95 of 100, between 93 and 97 but for the simulation's own error; errors 5 of 100 at most."""
    values: Any = crossed(np.random.default_rng(6), seeds, shares, draw)
    mean, variance = values.mean((1, 2)), variance_of_values(values)
    held = (np.abs(mean) <= half_width(variance)).sum()
    assert stats.binomtest(held, TRIALS, 0.93, alternative="less").pvalue > 0.001
    assert stats.binomtest(held, TRIALS, 0.97, alternative="greater").pvalue > 0.001
    p = p_value(mean, variance)
    for level in (LEVEL, LEVEL / 36):
        erred = (p <= level).sum()
        assert stats.binomtest(erred, TRIALS, level, alternative="greater").pvalue > 0.001


@pytest.mark.parametrize(("seeds", "images"), [(2, 15), (2, 50), (2, 200), (3, 15), (5, 50)])
def test_few_images_prove_nothing_by_luck(seeds, images):
    """Hits of equally good methods: at a small level, which Holm's correction asks, too."""
    random = np.random.default_rng(8)
    shared = random.normal(size=(4 * TRIALS, 1, images))
    a, b = (shared + random.logistic(size=(4 * TRIALS, seeds, images)) > 0 for _ in range(2))
    values = 100 * (a.astype(float) - b)
    p = p_value(values.mean((1, 2)), variance_of_values(values))
    for level in (0.05, 0.01, 0.001):
        erred = (p <= level).sum()
        assert stats.binomtest(erred, len(p), level, alternative="greater").pvalue > 0.001


def test_hits_are_covered_too():
    """Of two methods that are equally good on images of all kinds, with seeds that differ."""
    random = np.random.default_rng(7)
    shared = random.normal(size=(TRIALS, 1, 100))
    a, b = (
        random.normal(size=(TRIALS, 3, 100)) + shared + 0.1 * random.normal(size=(TRIALS, 3, 1)) > 0
        for _ in range(2)
    )
    values = a.astype(float) - b
    held = (np.abs(values.mean((1, 2))) <= half_width(variance_of_values(values))).sum()
    assert 0.93 - 0.015 < held / TRIALS < 0.97 + 0.015
