"""Intervals and paired tests. scipy does the statistics.

Of scipy.special, where it can be: scipy.stats takes as long to import as all else of a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ssl_bench.evaluation.two_way import (
    LEVEL,
    Variance,
    half_width,
    p_value,
    variance_of_mean,
    variance_of_resamples,
    variance_of_values,
)


def proportion_interval(hits: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, 0 to 1: what other test images would have given."""
    from scipy import stats

    interval = stats.binomtest(hits, total).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % t interval; the half-width is NaN for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan")
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    half = special.stdtrit(len(values) - 1, 1 - LEVEL / 2) * error
    return mean, float(half)


# ---- pairs
METHOD, WEIGHTS = "of the method", "of these weights"  # units of inference


@dataclass(frozen=True)
class Paired:
    """A mean difference over pairs, the half-width of its 95 % interval, and a test's p-value.

    `n` is the number of seeds, `over` what the pairs are: "seeds and images", "seeds" or "images".
    `test` names the test, `unit` what it speaks of: the method, whatever seed it is made with, or
    these weights alone. `adjusted` is Holm's p-value in the declared family; None: exploratory.
    """

    mean: float
    half: float
    p: float
    n: int
    over: str
    test: str
    unit: str = WEIGHTS
    adjusted: float | None = None

    @property
    def clear(self) -> bool:
        """Not zero at the 5 % level, in the declared family; never of an exploratory one."""
        return self.adjusted is not None and self.adjusted <= LEVEL

    @property
    def basis(self) -> str:
        """The test, its unit, and what it is over, for people."""
        seeds = f"{self.n} {self.over}" if self.n > 1 else f"one seed, {self.over}"
        return f"{self.test} {self.unit}: {seeds}"


def paired_seeds(a: Sequence[float], b: Sequence[float]) -> Paired:
    """a − b over the same seeds: Student's t. Where all differ by the same, p is 0, or 1 at 0."""
    differences = np.subtract(a, b)
    variance, freedom = variance_of_mean(differences)
    found = Variance(variance, 0.0, freedom, np.inf)
    return _paired(differences.mean(), found, len(differences), "seeds", "paired t")


def paired_hits(a: np.ndarray, b: np.ndarray) -> Paired:
    """a − b, in percent, of hits bool (N,) on the same images: McNemar's exact test.

    The interval is the normal one that belongs to it (Agresti, Categorical Data Analysis, section
    10.1.1).
    """
    differences = 100.0 * (a.astype(float) - b.astype(float))
    won, lost = int((a & ~b).sum()), int((b & ~a).sum())
    # Both tails of the binomial of one half are twice the lesser; at equals they share its middle.
    p = min(1.0, 2 * special.bdtr(min(won, lost), won + lost, 0.5)) if won + lost else 1.0
    half = special.ndtri(1 - LEVEL / 2) * differences.std() / np.sqrt(len(differences))
    return Paired(float(differences.mean()), float(half), float(p), 1, "images", "McNemar")


def paired_values(a: np.ndarray, b: np.ndarray) -> Paired:
    """a − b of values (S, N) with the same seeds on the same images: see two_way.py.

    With one seed it is Student's t over the images.
    """
    differences = a.astype(np.float64) - b.astype(np.float64)
    seeds, mean = len(differences), differences.mean()
    if seeds > 1:
        found = variance_of_values(differences)
        return _paired(mean, found, seeds, "seeds and images", "two-way t")
    variance, freedom = variance_of_mean(differences[0])
    found = Variance(0.0, variance, 1, freedom)
    return _paired(mean, found, 1, "images", "paired t")


def paired_bootstrap(a: np.ndarray, b: np.ndarray) -> Paired:
    """a − b of a metric (S, 1 + B) over the same resamples of the images, its value first.

    With one seed interval and p-value are the normal ones of the bootstrap's standard error (Efron,
    Tibshirani, An Introduction to the Bootstrap, chapter 12): 200 resamples tell an error, but no
    tail. With several they are two-way: see two_way.py.
    """
    differences = a - b
    seeds, mean = len(differences), differences[:, 0].mean()
    if seeds > 1:
        found = variance_of_resamples(differences)
        return _paired(mean, found, seeds, "seeds and images", "two-way bootstrap")
    error = float(np.nanvar(differences[:, 1:], ddof=1))
    return _paired(mean, Variance(0.0, error, 1, np.inf), 1, "images", "paired bootstrap")


def _paired(mean: float, variance: Variance, n: int, over: str, test: str) -> Paired:
    half, p = half_width(variance), p_value(mean, variance)
    return Paired(float(mean), float(half), float(p), n, over, test)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: p-values that hold for all tests of a family together.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 1979: the k-th smallest of m is multiplied by m − k + 1, and none ends below a
    smaller one.
    """
    order = np.argsort(p_values, kind="stable")
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order.tolist()):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected
