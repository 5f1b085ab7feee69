"""The frozen draws: NumPy's own today, and literal ones for the day that NumPy's change.

Where a test against the installed NumPy fails and `test_the_first_draws_are_these` holds, NumPy's
Generator has changed, as it may, and the test is to go; no number of a record has.
"""

import numpy as np
import pytest

from ssl_bench.stream import Stream

# Of default_rng([0, 3]) in NumPy 2.4.
INTEGERS = [[503, 894, 954, 860], [697, 321, 580, 316]]
PERMUTATION = [4, 7, 2, 0, 1, 5, 3, 6]
CHOICE = [89, 84, 15, 9, 91]
WIDE = [698795632, 337500151, 647653114]
RANDOM = "0x1.33c6c4a2a3ff6p-2"
SINGLE = [0.45186495780944824, 0.28204208612442017]
WEIGHTED = 1

SEEDS = (0, 1, [0, 3], [5, 2, 7], 12345)


def both(seed):
    return np.random.default_rng(seed), Stream(seed)


def same(theirs, ours):
    assert type(theirs) is type(ours)
    if isinstance(theirs, np.ndarray):
        assert theirs.dtype == ours.dtype
    assert np.array_equal(theirs, ours)


def test_the_first_draws_are_these():
    stream = Stream([0, 3])
    assert stream.integers(0, 1000, (2, 4)).tolist() == INTEGERS
    assert stream.permutation(8).tolist() == PERMUTATION
    assert stream.choice(np.arange(100), 5).tolist() == CHOICE
    assert stream.integers(0, 3 << 30, 3).tolist() == WIDE  # a quarter is drawn again
    assert stream.random().hex() == RANDOM
    assert stream.random(2, np.float32).tolist() == SINGLE
    assert stream.weighted((0.2, 0.3, 0.5)) == WEIGHTED


@pytest.mark.parametrize("seed", SEEDS, ids=str)
@pytest.mark.parametrize("bound", [1, 2, 3, 7, 40, 1000, 70_000, 2**31 + 5, 3 << 30])
def test_bounded_integers_are_numpys(seed, bound):
    """Odd numbers of them, so that half a word is left for the next."""
    theirs, ours = both(seed)
    for size in [(7, 3), (1,), (20_001,)]:
        same(theirs.integers(0, bound, size), ours.integers(0, bound, size))
    assert int(theirs.integers(bound)) == ours.integers(bound)


@pytest.mark.parametrize("seed", SEEDS, ids=str)
@pytest.mark.parametrize("count", [1, 2, 3, 40, 1001, 20_000])
def test_orders_and_samples_are_numpys(seed, count):
    """Of one array after the other from one stream; above 10,000 a sample is drawn otherwise."""
    theirs, ours = both(seed)
    values = 3 * np.arange(count)
    several = np.stack([values, -values], 1).astype(np.int32)
    for _ in range(2):
        same(theirs.permutation(count), ours.permutation(count))
        same(theirs.permutation(several), ours.permutation(several))
        same(theirs.permutation(values), ours.permutation(values))
        for share in (0, 1, count // 100, count // 3, count):
            same(theirs.choice(values, share, replace=False), ours.choice(values, share))


@pytest.mark.parametrize("seed", SEEDS, ids=str)
def test_fractions_are_numpys_between_draws_of_halves(seed):
    theirs, ours = both(seed)
    for _ in range(20):
        assert int(theirs.integers(6)) == ours.integers(6)
        same(theirs.random(), ours.random())
        same(theirs.random((3, 5), np.float32), ours.random((3, 5), np.float32))
        same(theirs.uniform(-1.7, 2.3), ours.uniform(-1.7, 2.3))
        same(theirs.uniform((0, 1.5), (6.3, 4.5)), ours.uniform((0, 1.5), (6.3, 4.5)))
        same(theirs.uniform(0.1, 0.3, (2, 3)), ours.uniform(0.1, 0.3, (2, 3)))
        shares = (0.45, 0.35, 0.2)
        assert int(theirs.choice(3, p=shares)) == ours.weighted(shares)


def test_another_bit_generator_will_do():
    make = lambda: np.random.Philox(key=np.array([3, 4], np.uint64))  # noqa: E731
    same(np.random.Generator(make()).permutation(50), Stream(make()).permutation(50))


def test_more_than_there_are_are_not_drawn():
    with pytest.raises(ValueError, match="cannot draw 4 of 3"):
        Stream(0).choice(np.arange(3), 4)
