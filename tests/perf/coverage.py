"""How often 95 % intervals over seeds and test images hold the truth.

    python tests/perf/coverage.py                # 4,000 experiments a line, two minutes
    python tests/perf/coverage.py 1000 5         # fewer, of 5 seeds only

Each line draws experiments whose true mean is known, of 3, 5 and 10 seeds on the same images, and
counts the intervals that hold it, in percent: ours, our tests that do not reject it at 5 % (both
ssl_bench/evaluation/two_way.py), Satterthwaite's by the same variances, and Student's over seeds
alone, which is right for other seeds on these very images, but not on others. Shares say what the
variance of the mean is made of: seeds, images, both together.
"""

import sys
from collections.abc import Callable, Iterator

import numpy as np
from scipy import stats

from ssl_bench.evaluation.metrics.precision import resampled_precision
from ssl_bench.evaluation.two_way import (
    LEVEL,
    Variance,
    half_width,
    p_value,
    variance_of_resamples,
    variance_of_values,
)

SEEDS = (3, 5, 10)
IMAGES = 200
BLOCK = 100  # experiments drawn together
# Of the variance of the mean, percent: from seeds, from images, from both together.
SHARES = (
    (0, 100, 0), (0, 50, 50), (0, 0, 100), (10, 80, 10), (30, 60, 10), (50, 50, 0), (50, 25, 25),
    (70, 20, 10), (90, 5, 5), (100, 0, 0),
)  # fmt: skip
# Standard deviations of seeds, images and both, of a score that hits where it is above a bar.
SCORES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.5), (0.05, 1.0, 1.0), (0.1, 1.0, 0.5), (0.3, 0.5, 1.0))
Shares = tuple[float, ...]
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def normal(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.normal(size=shape)


def heavy(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Student's t with 3 degrees of freedom, of variance 1."""
    return random.standard_t(3, size=shape) / np.sqrt(3)


def crossed(
    random: np.random.Generator, draw: Draw, deviations: tuple[float, ...], seeds: int, block: int
) -> np.ndarray:
    """Values (`block`, S, N) of crossed random effects with mean 0 and these deviations."""
    a, b, c = deviations
    shapes = (block, seeds, 1), (block, 1, IMAGES), (block, seeds, IMAGES)
    return sum((d * draw(random, s) for d, s in zip((a, b, c), shapes, strict=True)), np.zeros(1))


def of_shares(draw: Draw, shares: tuple[int, ...]) -> Callable[..., np.ndarray]:
    """Values whose mean has a variance of these shares."""

    def made(random: np.random.Generator, seeds: int, block: int) -> np.ndarray:
        counts = np.array([seeds, IMAGES, seeds * IMAGES])
        deviations = np.sqrt(np.array(shares) / 100 * counts)
        return crossed(random, draw, tuple(deviations), seeds, block)

    return made


def of_hits(scores: tuple[float, ...], bar: float, *, paired: bool) -> Callable[..., np.ndarray]:
    """0 and 1, less what is true: one method's hits, or those of two that share the images."""

    def made(random: np.random.Generator, seeds: int, block: int) -> np.ndarray:
        shared = scores[1] * random.normal(size=(block, 1, IMAGES))
        hits = [
            (crossed(random, normal, scores, seeds, block) + shared * paired > bar).astype(float)
            for _ in range(1 + paired)
        ]
        return hits[0] - (hits[1] if paired else stats.norm.sf(bar / np.hypot(*_two(scores))))

    return made


def _two(scores: tuple[float, ...]) -> tuple[float, float]:
    return float(np.hypot(scores[0], scores[1])), scores[2]


def coverage(made: Callable[..., np.ndarray], seeds: int, trials: int, seed: int = 0) -> Shares:
    """Shares of intervals that hold 0, by each of the ways."""
    random = np.random.default_rng([seed, seeds])
    held = np.zeros(4)
    for _ in range(trials // BLOCK):
        values = made(random, seeds, BLOCK)
        held += held_by(values.mean((-1, -2)), variance_of_values(values))
    return tuple(held / (trials // BLOCK * BLOCK))


def held_by(mean: np.ndarray, variance: Variance) -> np.ndarray:
    """Of means (B,), how many intervals hold 0, how many tests do not reject it; see above."""
    seeds, images = np.asarray(variance.seeds), np.asarray(variance.images)
    total = seeds + images
    with np.errstate(invalid="ignore"):  # no variance at all: 0 / 0
        share = np.nan_to_num(seeds / total)
    freedom = share**2 / variance.seeds_freedom + (1 - share) ** 2 / variance.images_freedom
    halves = (
        half_width(variance),
        stats.t.isf(LEVEL / 2, 1 / freedom) * np.sqrt(total),
        stats.t.isf(LEVEL / 2, variance.seeds_freedom) * np.sqrt(seeds),
    )
    held = [np.abs(mean) <= half for half in halves]
    held.insert(1, p_value(mean, variance) > LEVEL)
    return np.array([np.sum(one) for one in held])


def of_precision(seeds: int, trials: int, spread: float) -> Shares:
    """Of the difference of two mean APs of two classes whose true one is 0, by the bootstrap."""
    random = np.random.default_rng([1, seeds])
    held = np.zeros(4)
    for _ in range(trials):
        targets = (random.random((IMAGES, 2)) < 0.3).astype(np.int8)
        shared = random.normal(size=targets.shape)
        rows = []
        for _method in range(2):
            images = shared + 0.5 * random.normal(size=targets.shape)
            strengths = 1.5 + spread * random.normal(size=seeds)  # a better and a worse seed
            scores = [
                s * targets + images + 0.5 * random.normal(size=targets.shape) for s in strengths
            ]
            rows.append(np.stack([resampled_precision(targets, s)["map"] for s in scores]))
        gap = rows[0] - rows[1]
        held += held_by(gap[:, 0].mean(), variance_of_resamples(gap))
    return tuple(held / trials)


def lines(trials: int, seeds: tuple[int, ...] = SEEDS) -> Iterator[str]:
    """The report, line by line as it is known."""
    yield f"{'':44}" + "".join(f"  {f'{s} seeds':>24}" for s in seeds)
    yield f"{'':44}" + f"  {'ours  test Satt. seeds':>24}" * len(seeds)
    experiments = {
        **{f"normal, shares {s}": of_shares(normal, s) for s in SHARES},
        **{f"t of 3 d. f., shares {s}": of_shares(heavy, s) for s in SHARES},
        **{f"hits of 16 %, {s}": of_hits(s, np.hypot(*_two(s)), paired=False) for s in SCORES},
        **{f"hits of two methods, {s}": of_hits(s, 0.0, paired=True) for s in SCORES},
    }
    for name, made in experiments.items():
        yield _line(name, [coverage(made, s, trials) for s in seeds])
    for spread in (0.0, 0.1, 0.3):
        few = trials // 10  # a bootstrap for each seed
        yield _line(f"mean AP, seeds {spread} apart", [of_precision(s, few, spread) for s in seeds])


def _line(name: str, found: list[Shares]) -> str:
    return f"{name:44}" + "".join(
        "  " + "".join(f"{100 * share:6.1f}" for share in shares) for shares in found
    )


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    for text in lines(given[0] if given else 4000, tuple(given[1:]) or SEEDS):
        print(text, flush=True)
