"""Intervals against worked figures."""

import math

import numpy as np
import pytest

from ssl_bench.metrics import top1
from ssl_bench.statistics import (
    mean_interval,
    paired_difference,
    paired_over_images,
    proportion_interval,
)


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


def test_the_paired_interval_over_images_is_mcnemars():
    # 100 images, 15 right by a only, 5 by b only: √(20 − 10²/100) / 100 is the standard error.
    a = np.repeat([1.0, 1.0, 0.0, 0.0], (40, 15, 5, 40))
    b = np.repeat([1.0, 0.0, 1.0, 0.0], (40, 15, 5, 40))
    mean, half = paired_over_images(a, b)
    assert mean == pytest.approx(0.1)
    assert half == pytest.approx(1.959964 * math.sqrt(20 - 1) / 100, rel=1e-5)


def test_pairing_removes_what_seeds_share():
    a, b = [50.0, 60.0, 70.0], [49.0, 59.0, 69.0]
    assert paired_difference(a, b) == (1.0, 0.0)
    assert mean_interval(a)[1] > 20


def test_t_intervals_cover_as_often_as_they_say():
    draw = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        mean, half = mean_interval(list(draw.normal(3, 2, 4)))
        covered += abs(mean - 3) <= half
    assert 0.935 < covered / 2000 < 0.965


def test_top1_counts_hits_in_percent():
    found = top1(np.array([0, 1, 2, 3]), np.array([0, 1, 2, 0]))
    assert found["top1"] == 75
    assert found["top1_low"] < 75 < found["top1_high"]
