"""Controls: what a probe finds where there is nothing to find, in shuffled training labels."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ssl_bench.evaluation.features import Features
from ssl_bench.evaluation.harness import Harness, Outcome, printing, score
from ssl_bench.evaluation.metrics import MEAN_PER_CLASS
from ssl_bench.evaluation.metrics.by_class import with_values_by_class
from ssl_bench.records.record import Control
from ssl_bench.stream import Stream

SHUFFLED = "shuffled-labels"
PERMUTATIONS = 20  # of test labels, which show what chance is


def shuffled(rows: Features, harness: Harness) -> Features:
    """With the annotations of other images."""
    order = Stream(harness.config.seed).permutation(len(rows))
    return replace(rows, annotations=rows.annotations[order])


def against_chance(harness: Harness, outcome: Outcome, value: float) -> Control:
    """What the same predictions score when they know nothing; `z` is how far the control is above.

    With shuffled training labels the classes are interchangeable, so the test labels are permuted
    in two ways: by class, which keeps together the images that look alike (a random direction
    through them ranks whole classes high or low, so it strays further from chance than coins do),
    and by image, which keeps the classes' frequencies. The larger mean and spread count.
    """
    random = Stream(harness.config.seed)
    truth = next(name for name in ("label", "targets") if name in outcome.predictions)
    known = outcome.predictions[truth]
    ways: list[Callable[[], np.ndarray]] = [
        lambda: _renamed(known, random), lambda: random.permutation(known)
    ]  # fmt: skip
    headline = printing(harness, outcome.predictions)["metric"]
    means, spreads = [], []
    for permuted in ways:
        permutations = [{**outcome.predictions, truth: permuted()} for _ in range(PERMUTATIONS)]
        if headline == MEAN_PER_CLASS.name:  # its values are of the true labels
            permutations = [*map(with_values_by_class, permutations)]
        scores = [score(harness, predictions)[headline] for predictions in permutations]
        means.append(float(np.mean(scores)))
        spreads.append(float(np.std(scores, ddof=1)))
    chance, spread = max(means), max(spreads)
    return Control(
        kind=SHUFFLED,
        chance=round(chance, 3),
        spread=round(spread, 3),
        z=round((value - chance) / max(spread, 1e-9), 2),
    )


def _renamed(known: np.ndarray, random: Stream) -> np.ndarray:
    """Labels (N,) or targets (N, C) with the classes' names exchanged."""
    if known.ndim == 2:
        return known[:, random.permutation(known.shape[1])]
    return random.permutation(int(known.max()) + 1)[known]
