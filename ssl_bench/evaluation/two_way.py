"""Seeds and test images together: the variance of a mean over both, its interval and its test.

What was measured with seed s on image i is taken as

    y[s, i] = mean + seed[s] + image[i] + both[s, i],

crossed random effects: other seeds and other images would have brought others. By the mean squares
of the two-way analysis of variance, the mean of S · N values has the variance

    (MS_seeds + MS_images − MS_both) / (S N)

(Cornfield, Tukey, Annals of Mathematical Statistics 27, 1956): MS_seeds and MS_images each hold the
part of both, which counts once. It is kept in two parts, MS_seeds / (S N) with S − 1 degrees of
freedom, and what images add, (MS_images − MS_both) / (S N), or nothing where that is negative: so
it is never less than the variance over the seeds alone. Means of few images lie on a grid, and so
those of two seeds are often equal by luck: no spread is told that is smaller than the grid's.
tests/perf/coverage.py and marks.py measure how often intervals hold the truth and tests err.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

LEVEL = 0.05  # of a test; 95 % intervals
Number = float | np.ndarray  # of one mean, or (…) of many at once


@dataclass(frozen=True)
class Variance:
    """Of a mean: the part of the seeds and what images add, with their degrees of freedom."""

    seeds: Number
    images: Number
    seeds_freedom: float
    images_freedom: float


def variance_of_mean(values: np.ndarray) -> tuple[float, float]:
    """Of values (n,): the variance of their mean, and its degrees of freedom; NaN of a single."""
    count = len(values)
    return (float(values.var(ddof=1)) / count if count > 1 else float("nan")), count - 1.0


def variance_of_values(values: np.ndarray) -> Variance:
    """Of the mean of values float64 (…, S, N); S and N are 2 at least."""
    s, n = values.shape[-2:]
    by_seed, by_image = values.mean(-1), values.mean(-2)
    rest = values - by_seed[..., None] - by_image[..., None, :] + by_seed.mean(-1)[..., None, None]
    both = np.square(rest).sum((-1, -2)) / ((s - 1) * (n - 1) * s * n)
    images = np.maximum(by_image.var(-1, ddof=1) / n - both, 0)
    seeds = _on_a_grid(by_seed, grain(values) / n, both) / s
    return Variance(seeds, images, s - 1, n - 1)


def grain(values: np.ndarray) -> float:
    """The smallest difference between two of the values, of a thousand of them; 0 if none differ.

    Of hits and misses it is that of one image; of values that may be any, next to nothing.
    """
    flat = values.ravel()
    some = np.unique(flat[:: max(1, flat.size // 1000)])
    gaps = np.diff(some if len(some) > 1 else np.unique(flat))
    gaps = gaps[gaps > 1e-9 * max(1.0, float(np.abs(some).max()))]  # not those of rounding
    return float(gaps.min()) if len(gaps) else 0.0


def _on_a_grid(by_seed: np.ndarray, grid: float, both: Number) -> np.ndarray:
    """The variance of seeds' means (…, S), multiples of `grid`: at least that of rounding to it.

    It is grid² / 12 (Sheppard). Without it two seeds of equal means would prove any difference;
    seeds that agree on every image (`both` is 0) are the same, and nothing is unknown of them.
    """
    variance = by_seed.var(-1, ddof=1)
    differ = np.asarray(both) > 1e-18 * np.maximum(1, np.square(by_seed).max(-1))
    return np.where(differ, np.maximum(variance, grid**2 / 12), variance)


def variance_of_resamples(resampled: np.ndarray) -> Variance:
    """The same of a metric float64 (S, 1 + B): its value, and over B resamples that seeds share.

    A resample draws one image effect for all seeds, and for each seed its own part of both. The
    spread of the seeds' mean holds 1/S of the latter, which the spread around that mean tells.
    """
    s, draws = len(resampled), resampled[:, 1:]
    draws = draws[:, ~np.isnan(draws).any(0)]  # a resample may hold nothing to measure
    mean = draws.mean(0)
    both = (draws - mean).var(-1, ddof=1).sum() / (s * (s - 1))
    images = max(mean.var(ddof=1) - both, 0.0)
    seeds = _on_a_grid(resampled[:, 0], grain(draws), both) / s
    # 200 resamples tell an error, but no tail: the images' part is taken as normal.
    return Variance(seeds, images, s - 1, np.inf)


def half_width(variance: Variance, level: float = LEVEL) -> np.ndarray:
    """Half of the 1 − `level` interval around a mean, (…).

    Student's with Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946), and never less
    than over the seeds alone: by itself it is too short (92 of 100 with three seeds), for where the
    seeds' part is small by luck, its few degrees of freedom go unseen.
    """
    seeds, images = np.asarray(variance.seeds), np.asarray(variance.images)
    total = seeds + images
    parts = seeds**2 / variance.seeds_freedom + images**2 / variance.images_freedom
    freedom = np.divide(total**2, parts, out=np.full(total.shape, np.inf), where=parts != 0)
    both = -special.stdtrit(freedom, level / 2) * np.sqrt(total)
    alone = -special.stdtrit(variance.seeds_freedom, level / 2) * np.sqrt(seeds)
    return np.maximum(both, alone)


NODES = 400  # of the integral below: right to 8 digits for up to 400 seeds


def p_value(mean: Number, variance: Variance) -> np.ndarray:
    """Of a mean (…) of 0, two-sided, by Behrens and Fisher (Fisher, Annals of Eugenics 6, 1935).

    What few seeds do not tell of their variance is averaged over: the p-value is the mean of
    Student's over the images, with the seeds' part times f / χ², over χ² of f = S − 1 degrees of
    freedom. It errs no more often than it says, at any level, which approximations by one t do in
    the tail, where many comparisons are corrected. Without any spread it is 1 at 0, else 0.
    """
    mean, seeds, images = np.broadcast_arrays(np.abs(mean), variance.seeds, variance.images)
    total, f = seeds + images, variance.seeds_freedom
    logs = np.log(f) + np.linspace(-80 / f - 3, 4, NODES)  # of χ²: beyond is 1e-17 of it
    log_density = f / 2 * logs - np.exp(logs) / 2
    weights = special.softmax(log_density)
    spread = seeds[..., None] * f * np.exp(-logs) + images[..., None]
    # Where only rounding differs, all are equal: the answer is known.
    known = total <= (1e-12 * np.maximum(1, mean)) ** 2
    t = mean[..., None] / np.sqrt(np.where(known[..., None], 1, spread))
    # The images' own uncertainty is in Student's t; where there are none it is the normal one.
    freedom = np.where(images > 0, variance.images_freedom, np.inf)[..., None]
    found = 2 * special.stdtr(freedom, -t) @ weights
    return np.where(known, np.where(mean <= 1e-12, 1.0, 0.0), found)
