"""Linear SVMs on frozen layers, for images with several labels: `svm/goyal19-voc07@1`.

The protocol of Goyal et al. (arXiv 1905.01235) for VOC07. Every layer's map of the central crop is
average-pooled to at most 9,600 numbers and scaled to length 1; one linear SVM per class is fitted
to convergence, a positive image counting twice. The cost of each class is the best of eleven by
average precision in a threefold cross-validation on the training images; the SVM is then fitted
again on all of them. The test images are seen once.

    bench svm --layer conv4 --layer pool5 --data voc:VOCdevkit/VOC2007
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from eval.splits import SHOWN, check_labels, judged, present
from ssl_bench.errors import Degenerate
from ssl_bench.evaluation.compact import with_compact_scores
from ssl_bench.evaluation.harness import Outcome, Probe, ProbeConfig
from ssl_bench.evaluation.metrics import Metric
from ssl_bench.evaluation.metrics.precision import (
    average_precision,
    mean_average_precision,
    random_precision,
    resampled_precision,
)
from ssl_bench.evaluation.metrics.resampling import Intervals, Resampled, bootstrap_intervals
from ssl_bench.progress import say, say_once, waiting
from ssl_bench.stream import Stream

if TYPE_CHECKING:
    from torch import Tensor

    from eval.solvers.squared_hinge import Basis
    from ssl_bench.data.store.squares import ImageStore
    from ssl_bench.evaluation.features import Features
    from ssl_bench.evaluation.rows import Rows


class SVMConfig(ProbeConfig):
    """The settings of `svm/goyal19-voc07@1`."""

    costs: tuple[float, ...] = Field(
        default=(0.01, 0.1, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 50.0, 100.0, 1000.0),
        min_length=1,
        description="costs tried for each class",
    )
    folds: int = Field(default=3, ge=2, description="parts of train that choose the costs")

    @field_validator("costs")
    @classmethod
    def _rising(cls, costs: tuple[float, ...]) -> tuple[float, ...]:
        """In rising order, each once: the order that was typed makes no other result."""
        if not all(0 < cost <= 1e6 for cost in costs):
            raise PydanticCustomError("costs", "every cost is a number above 0 and up to 1e6")
        return tuple(sorted(set(costs)))


class SVM(Probe):
    """Mean average precision of a linear SVM per class on each frozen layer."""

    Config = SVMConfig
    protocol = "svm/goyal19-voc07@1"
    source = 'Goyal et al., "Scaling and Benchmarking", arXiv 1905.01235'
    metrics = (Metric("map11"),)

    def score(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`map11` and `map`; see `mean_average_precision`."""
        return mean_average_precision(predictions["targets"], predictions["scores"])

    def intervals(self, predictions: Mapping[str, np.ndarray]) -> Intervals:
        """Of the resamples; see `bootstrap_intervals`."""
        return bootstrap_intervals(self.resampled(predictions))

    def resampled(self, predictions: Mapping[str, np.ndarray]) -> Resampled:
        """Mean average precisions over resamples of the test images."""
        return resampled_precision(predictions["targets"], predictions["scores"])

    def chance(self, predictions: Mapping[str, np.ndarray]) -> Mapping[str, float]:
        """Of random rankings."""
        return random_precision(predictions["targets"])

    def compact(self, predictions: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Scores as ranks among those of the positives; see `compact_scores`."""
        return with_compact_scores(predictions)

    def check(self, splits: Mapping[str, ImageStore]) -> None:
        """Two classes in train; one of few images has fewer folds, or none."""
        train, test = splits["train"], splits["test"]
        check_labels(train.targets, test.targets, train.index.classes)

    def probe(self, layer: str, splits: Mapping[str, Features]) -> Outcome:
        """Choose each class's cost on train, fit on all of it, look at test once."""
        from eval.solvers.squared_hinge import LIMIT, Basis

        train, test = splits["train"], splits["test"]
        config = self.config
        known = present(train.targets)  # others are left out, with scores of 0
        targets = train.targets[:, known]
        basis = Basis.of(varied(layer, normalized(train.rows)))
        choice = choose_costs(basis, targets, config.costs, config.folds, config.seed)
        weights, iterations = fit(basis, targets, choice.costs, choice.start)
        if max(choice.iterations, iterations) == LIMIT:
            say(f"warning: layer {layer}: an SVM was stopped at {LIMIT} iterations")
        scores = np.zeros((len(test), len(train.classes)), dtype=np.float32)
        scores[:, known] = basis.scores(weights, normalized(test.rows)).cpu().numpy()
        selection = _selection(config, choice, train.classes, known) | {
            "iterations": [choice.iterations, iterations],
            "dimensions": train.rows.shape[1],
        }
        selection |= _few_folds(
            own_folds(targets, config.folds), config.folds, train.classes, known
        )
        targets = judged(test.targets, train.targets)
        return Outcome({"targets": targets, "scores": scores}, selection)


def own_folds(targets: np.ndarray, folds: int) -> np.ndarray:
    """How many of the folds each class can have, int64 (C,): no more than images with it.

    Nor than images without it. With 1 no cost can be chosen, and the grid's middle is taken.
    """
    counts = [(targets == value).sum(0) for value in (1, 0)]
    return np.minimum(np.min(counts, 0), folds).clip(1)


def _few_folds(
    own: np.ndarray, folds: int, classes: tuple[str, ...], known: np.ndarray
) -> dict[str, dict[str, int]]:
    """For a record's selection: the classes with fewer folds than asked for; said, too."""
    few = {classes[c]: int(n) for c, n in zip(known, own, strict=True) if n < folds}
    if few:
        names = ", ".join([*few][:SHOWN]) + (", …" if len(few) > SHOWN else "")
        say_once(
            f"warning: {names}: fewer training images than --folds {folds}; costs are chosen by as "
            "many folds, of one image by none: the grid's middle"
        )
    return {"fewer_folds": few} if few else {}


def varied(layer: str, rows: Rows) -> Rows:
    """The rows as they are. DataError if they are all the same, to rounding."""
    first = rows[:1]
    spread = max(float((block - first).abs().max()) for _, block in rows.blocks())
    if spread <= 1e-6 * float(first.abs().max()):
        raise Degenerate(f"layer {layer}: all features are constant, so there is nothing to fit")
    return rows


def _selection(
    config: SVMConfig, choice: Choice, classes: tuple[str, ...], known: np.ndarray
) -> dict[str, Any]:
    """What was chosen, and every point that lost: by class, in the order of the costs."""
    names = [classes[c] for c in known]
    edges = (config.costs[0], config.costs[-1])
    chosen = ~np.isnan(choice.points[0])
    return {
        "split": f"{config.folds} folds of train, stratified by class",
        "criterion": "all-point average precision, mean of the folds",
        "chosen": {"cost": dict(zip(names, choice.costs.tolist(), strict=True))},
        "costs": list(config.costs),
        "points": {names[c]: choice.points[:, c].round(3).tolist() for c in np.flatnonzero(chosen)},
        "at_edge": [names[c] for c in np.flatnonzero(chosen) if choice.costs[c] in edges],
        "left_out": [name for i, name in enumerate(classes) if i not in known],
    }


# ---- one SVM per class, for any rows


def normalized(rows: Rows) -> Rows:
    """Rows (N, D) scaled to length 1: x / (‖x‖ + 1e-5)."""
    return rows.map(lambda block: block / (block.norm(dim=1, keepdim=True) + 1e-5))


def fit(
    basis: Basis, targets: np.ndarray, costs: np.ndarray, start: Tensor | None = None
) -> tuple[Tensor, int]:
    """One SVM per class, targets int8 (N, C) of 1, 0 and −1 (not used), at a cost each (C,).

    Returns weights (C, R), for `Basis.scores`, and the iterations run. `start` (C, R) is where to
    begin.
    """
    import torch

    from eval.solvers import squared_hinge

    solutions = []
    for group in basis.groups(targets.shape[1]):
        begin = None if start is None else start[group]
        solutions.append(squared_hinge.fit(basis, targets[:, group], costs[group], begin))
    return torch.cat([s.weights for s in solutions]), max(s.iterations for s in solutions)


def one_vs_rest(train: Rows, targets: np.ndarray, costs: Sequence[float], test: Rows) -> np.ndarray:
    """Scores float32 (L, M, C) of test rows (M, D) by SVMs of L rising costs on train rows (N, D).

    Targets are int8 (N, C) of 1, 0 and −1 (not used). Rows are taken as they are: `normalized` is
    the caller's.
    """
    from eval.solvers import squared_hinge
    from eval.solvers.squared_hinge import Basis

    basis = Basis.of(train)
    found = np.empty((len(costs), len(test), targets.shape[1]), dtype=np.float32)
    for group in basis.groups(targets.shape[1]):
        path = squared_hinge.path(basis, targets[:, group], costs)
        for place, (solution, _) in enumerate(path):
            found[place, :, group] = basis.scores(solution.weights, test).cpu().numpy()
    return found


# ---- cross-validation


@dataclass(frozen=True)
class Choice:
    """The cost of each class (C,), and why.

    `points` (L, C) is the average precision at each cost (all-point, percent, mean of the folds),
    NaN of a class that has too few images to choose by;
    `start` (C, R) the mean of the folds' weights at the chosen cost, near what all rows give.
    """

    costs: np.ndarray
    points: np.ndarray
    start: Tensor
    iterations: int


def choose_costs(
    basis: Basis,
    targets: np.ndarray,
    costs: Sequence[float],
    folds: int,
    seed: int,
    streams: Sequence[int] | None = None,
) -> Choice:
    """The best of rising costs for each class by cross-validation; of equals, the smallest.

    Targets are int8 (N, C) of 1, 0 and −1 (not used). Each class has its own folds, as many as its
    images fill (`own_folds`), and a fold is fitted on all rows, with those held out at importance
    0: so the problems of all classes and folds share their products, and no fold needs a copy of
    its rows. Where one fold is all, the cost is the grid's middle. `streams` as in `folds_of`.
    """
    import torch

    own, device = own_folds(targets, folds), basis.rows.device
    able, most = np.flatnonzero(own > 1), int(own.max())
    chosen = np.full(len(own), float(costs[len(costs) // 2]))
    points = np.full((len(costs), len(own)), np.nan)
    weights = torch.zeros(len(own), basis.rows.shape[1], dtype=torch.float64, device=device)
    parts, iterations = folds_of(targets, own, seed, streams), 0
    groups = list(basis.groups(len(able), most))
    with waiting("costs by cross-validation", len(groups)) as wait:
        for done, group in enumerate(groups, 1):
            which = able[group]
            found = _choose(basis, targets[:, which], parts[:, which], costs, most)
            chosen[which], points[:, which] = found.costs, found.points
            weights[torch.from_numpy(which).to(device)] = found.start
            iterations = max(iterations, found.iterations)
            wait.done, wait.unit = done, "groups of classes"
    return Choice(chosen, points, weights, iterations)


def folds_of(
    targets: np.ndarray, folds: int | np.ndarray, seed: int, streams: Sequence[int] | None = None
) -> np.ndarray:
    """The fold of each image for each class, int64 (N, C), drawn class by class.

    There are `folds`, or of each class its own number (C,). The images with a class are dealt out
    evenly, and so are those without. A class is drawn from the seed and its number in `streams`,
    its place if there are none.
    """
    parts = np.zeros(targets.shape, dtype=np.int64)
    own = np.broadcast_to(folds, targets.shape[1])
    streams = range(targets.shape[1]) if streams is None else streams
    for c, (column, stream) in enumerate(zip(targets.T, streams, strict=True)):
        random = Stream([seed, stream])
        for value in (1, 0):
            images = random.permutation(np.flatnonzero(column == value))
            parts[images, c] = np.arange(len(images)) % own[c]
    return parts


def _choose(
    basis: Basis, targets: np.ndarray, parts: np.ndarray, costs: Sequence[float], folds: int
) -> Choice:
    """`choose_costs` for classes that are fitted at once."""
    import torch

    from eval.solvers import squared_hinge

    fitted = np.stack([np.where(parts == f, -1, targets) for f in range(folds)], 2)  # (N, C, F)
    path = squared_hinge.path(basis, fitted.reshape(len(fitted), -1), costs)
    points, starts, iterations = [], [], 0
    for solution, scores in path:
        points.append(_held_out(targets, parts, scores.cpu().numpy(), folds))
        starts.append(solution.weights.view(targets.shape[1], folds, -1).mean(1))
        iterations = max(iterations, solution.iterations)
    best = np.argmax(points, 0)  # the first of equals
    start = torch.stack([starts[place][c] for c, place in enumerate(best)])
    return Choice(np.array(costs, dtype=float)[best], np.stack(points), start, iterations)


def _held_out(targets: np.ndarray, parts: np.ndarray, scores: np.ndarray, folds: int) -> np.ndarray:
    """Average precision of each class (C,), percent: the mean over its folds' held-out images.

    Targets and parts are (N, C), scores (N, C·F), of which each fold looks at its own.
    """
    found = [
        average_precision(np.where(parts[:, c] == f, targets[:, c], -1), scores[:, c * folds + f])
        for c in range(targets.shape[1])
        for f in range(folds)
    ]
    # A class with fewer folds holds nothing out in the others: NaN there.
    return np.nanmean(np.reshape([ap.area for ap in found], (-1, folds)), 1)
