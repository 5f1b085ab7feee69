"""In how many tables of equal rows a row loses its mark ●.

    python tests/perf/marks.py                # 4,000 tables a number, five minutes
    python tests/perf/marks.py 500 3          # fewer, of 3 rows only

All rows are drawn alike, so that whichever is the best is so by chance. Counted are the tables in
which Holm's correction over all pairs of rows of all columns tells any pair apart, in percent; a
mark is lost in those at most, for the pair need not hold the best row. It should be 5 at most.
Beside it: Holm over the comparisons with the best row alone, as if nobody had picked it. Shares
say what the variance of a row's mean is made of: seeds, images, both together.
"""

import sys
from collections.abc import Iterator
from itertools import combinations

import numpy as np
from scipy import special

from ssl_bench.evaluation.two_way import LEVEL, Variance, p_value, variance_of_values

ROWS = (3, 9)
SEEDS = (1, 3, 5, 10)
IMAGES = 100
BLOCK = 20  # tables drawn together
SHARES = ((0, 50, 50), (50, 40, 10), (90, 5, 5), (100, 0, 0))


def lost(
    rows: int, seeds: int, columns: int, shares: tuple[int, ...], tables: int, seed: int = 0
) -> tuple[float, float]:
    """Shares of tables in which a pair is told apart: of all pairs, and of those of the best."""
    random = np.random.default_rng([seed, rows, seeds, columns])
    told = np.zeros(2)
    for _ in range(tables // BLOCK):
        values = _tables(random, (BLOCK, columns, rows), seeds, shares)
        told += _told_apart(values)
    return tuple(told / (tables // BLOCK * BLOCK))


def _tables(
    random: np.random.Generator, shape: tuple[int, ...], seeds: int, shares: tuple[int, ...]
) -> np.ndarray:
    """Values (tables, columns, rows, S, N); what rows share of an image cancels in differences."""
    counts = seeds, IMAGES, seeds * IMAGES
    sizes = (seeds, 1), (1, IMAGES), (seeds, IMAGES)
    return sum(
        (
            np.sqrt(share / 100 * count) * random.normal(size=(*shape, *size))
            for share, count, size in zip(shares, counts, sizes, strict=True)
        ),
        np.zeros(1),
    )


def _told_apart(values: np.ndarray) -> np.ndarray:
    rows, seeds = values.shape[2:4]
    pairs = np.array(list(combinations(range(rows), 2)))
    gaps = values[:, :, pairs[:, 0]] - values[:, :, pairs[:, 1]]
    if seeds > 1:
        variance = variance_of_values(gaps)
    else:
        of_images = gaps[..., 0, :].var(-1, ddof=1) / IMAGES
        variance = Variance(np.zeros_like(of_images), of_images, 1, IMAGES - 1)
    # Holm's first step decides whether anything is rejected.
    columns = values.shape[1]
    every, few = len(pairs) * columns, (rows - 1) * columns
    p = _least_p(gaps.mean((-1, -2)), variance, LEVEL / few)  # (tables, columns, pairs)
    best = values.mean((-1, -2)).argmax(-1)[..., None]
    with_best = np.where((pairs == best[..., None]).any(-1), p, 1)
    return np.array(
        [(p.min((-1, -2)) <= LEVEL / every).sum(), (with_best.min((-1, -2)) <= LEVEL / few).sum()]
    )


def _least_p(mean: np.ndarray, variance: Variance, level: float) -> np.ndarray:
    """p-values that may be below the level; 1 for the others, which the normal one rules out."""
    seeds, images = (
        np.broadcast_to(part, mean.shape) for part in (variance.seeds, variance.images)
    )
    p = 2 * special.ndtr(-np.abs(mean) / np.sqrt(seeds + images))
    few = p <= level
    freedom = variance.seeds_freedom, variance.images_freedom
    p[few] = p_value(mean[few], Variance(seeds[few], images[few], *freedom))
    return np.where(few, p, 1)


def lines(tables: int, of_rows: tuple[int, ...] = ROWS) -> Iterator[str]:
    """The report, line by line as it is known."""
    yield f"{'':40}" + "".join(f"  {f'{s} seeds' if s > 1 else 'one seed':>12}" for s in SEEDS)
    yield f"{'':40}" + f"  {'all  best':>12}" * len(SEEDS)
    for rows in of_rows:
        for columns in (1, 4):
            for shares in SHARES:
                # Where one seed is all there is, it is a part of the weights that are compared.
                found = [
                    lost(rows, s, columns, shares if s > 1 else (0, 50, 50), tables) for s in SEEDS
                ]
                numbers = "".join(
                    "  " + "".join(f"{100 * share:6.1f}" for share in each) for each in found
                )
                said = f"{rows} rows, {columns} column{'s' * (columns > 1)}, shares {shares}"
                yield f"{said:40}{numbers}"


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    for text in lines(given[0] if given else 4000, tuple(given[1:]) or ROWS):
        print(text, flush=True)
