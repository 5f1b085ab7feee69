"""Few labels on frozen layers: any probe from 1 to 96 images a class, `low-shot/goyal19@1`.

The low-shot protocol of Goyal et al. (arXiv 1905.01235): k images of each class are drawn from
train, five times for each k, and a classifier is fitted to their frozen features; the mean over
the draws is the result, with its standard deviation. Images with several labels are drawn as there
class by class: k with the class and (C − 1)·k without it, the rest is not used for that class.

There, the cost was the best on test. Here it is chosen by cross-validation on the drawn images
alone (three folds, two where k is 2); from one image a class nothing can be chosen, so k = 1 takes
the middle of the grid. The same images are drawn for every encoder with the same seed. A class with
fewer images than k gives all that it has, which is said and recorded.

    bench low-shot --layer pool5 --data folder:photos
    bench low-shot --probe logreg --shots 1,4,16 --data folder:photos
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from eval import knn, svm
from eval.linear_probe import standardizer
from eval.splits import check_labels, judged, left_out, listed, scarce
from ssl_bench.data.dataset import targets_of
from ssl_bench.evaluation.compact import with_compact_scores
from ssl_bench.evaluation.harness import Outcome, Probe, ProbeConfig
from ssl_bench.evaluation.intervals import mean_interval
from ssl_bench.evaluation.metrics import Metric
from ssl_bench.evaluation.metrics.precision import (
    average_precision,
    most_frequent,
    random_precision,
    top1,
)
from ssl_bench.evaluation.metrics.resampling import Intervals
from ssl_bench.progress import say_once, waiting
from ssl_bench.stream import Stream

if TYPE_CHECKING:
    from eval.solvers.squared_hinge import Basis
    from ssl_bench.data.store.squares import ImageStore
    from ssl_bench.evaluation.features import Features
    from ssl_bench.evaluation.rows import Rows

COSTS = (0.01, 0.1, 1.0, 10.0, 100.0)  # of the SVM
STRENGTHS = tuple(10.0 ** np.arange(-6, 1))  # of the logistic regression
FOLDS = 3


class LowShotConfig(ProbeConfig):
    """The settings of `low-shot/goyal19@1`."""

    probe: Literal["svm", "logreg", "knn"] = Field(
        default="svm", description="the classifier; svm takes several labels an image too"
    )
    shots: tuple[int, ...] = Field(
        default=(1, 2, 4, 8, 16, 32, 64, 96), min_length=1, description="labelled images per class"
    )
    draws: int = Field(default=5, ge=1, description="times that the images are drawn")

    @field_validator("shots")
    @classmethod
    def _rising(cls, shots: tuple[int, ...]) -> tuple[int, ...]:
        if min(shots) < 1:
            raise PydanticCustomError("shots", "every number of shots is a whole number from 1")
        return tuple(sorted(set(shots)))


@dataclass(frozen=True)
class Drawn:
    """One draw: indices (n,) of training images, ascending, and what is known of them.

    Annotations are int64 (n,), or int8 (n, C) of 1, 0 and −1, which is not used.
    """

    images: np.ndarray
    annotations: np.ndarray
    shots: int

    @property
    def folds(self) -> int:
        """Parts that choose a strength; 1 where nothing can be chosen."""
        single = self.annotations.ndim == 1
        # Where no class has as many images as shots, no fold could hold one of each.
        most = int(np.unique(self.annotations, return_counts=True)[1].max()) if single else FOLDS
        return min(FOLDS, self.shots, most)


class LowShot(Probe):
    """A probe's metric from few labels, at several numbers of them."""

    Config = LowShotConfig
    protocol = "low-shot/goyal19@1"
    source = 'Goyal et al., "Scaling and Benchmarking", arXiv 1905.01235'

    def __init__(self, config: LowShotConfig) -> None:
        super().__init__(config)
        self.base = "map11" if config.probe == "svm" else "top1"
        names = [f"{self.base}_k{k}" for k in reversed(config.shots)]  # most shots: the headline
        self.metrics = [Metric(name, interval="over the draws, Student's t") for name in names]

    def shown(self, predictions: Mapping[str, np.ndarray]) -> Sequence[Metric]:
        """A column for each number of shots, rising."""
        return self.metrics[::-1]

    def score(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`NAME_kK`, the mean over the draws, with `_std` over them."""
        found: dict[str, float] = {}
        for name, values in self._by_draw(predictions).items():
            found[name] = mean_interval(values)[0]
            if len(values) > 1:
                found[f"{name}_std"] = float(np.std(values, ddof=1))
        return found

    def intervals(self, predictions: Mapping[str, np.ndarray]) -> Intervals:
        """Student's, over the draws; none of a single draw."""
        means = {n: mean_interval(values) for n, values in self._by_draw(predictions).items()}
        return {n: (m - half, m + half) for n, (m, half) in means.items() if half == half}

    def _by_draw(self, predictions: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
        """Each metric's value in each draw, by rising number of shots."""
        return {
            metric.name: [self._one(predictions, i, draw) for draw in range(self.config.draws)]
            for i, metric in enumerate(self.shown(predictions))
        }

    def chance(self, predictions: Mapping[str, np.ndarray]) -> Mapping[str, float]:
        """Of random rankings, or of the most frequent class, whatever the number of shots."""
        if self.base == "top1":
            value = most_frequent(predictions["label"])
        else:
            value = random_precision(predictions["targets"])["map11"]
        return {metric.name: value for metric in self.metrics}

    def compact(self, predictions: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Scores as ranks among those of the positives; see `compact_scores`."""
        return with_compact_scores(predictions)

    def _one(self, predictions: Mapping[str, np.ndarray], shot: int, draw: int) -> float:
        """The metric of one draw, percent."""
        if self.base == "top1":
            return top1(predictions["label"], predictions["predicted"][:, shot, draw])
        targets, scores = predictions["targets"], predictions["scores"][:, :, shot, draw]
        present = np.flatnonzero((targets == 1).any(0))
        found = [average_precision(targets[:, c], scores[:, c]).eleven for c in present]
        return float(np.mean(found))

    def check(self, splits: Mapping[str, ImageStore]) -> None:
        """Labels that the probe takes; of classes with fewer images than shots it is said."""
        train, test = splits["train"], splits["test"]
        classes = train.index.classes
        if self.config.probe == "svm":
            check_labels(train.annotations, test.annotations, classes)
        else:
            check_labels(train.labels, test.labels, classes)  # raises for several labels
        if fewer := scarce(train.annotations, self.config.shots[-1], classes):
            say_once(
                f"warning: fewer training images than --shots {self.config.shots[-1]} have "
                f"{listed(fewer)}: all of them are taken"
            )

    def probe(self, layer: str, splits: Mapping[str, Features]) -> Outcome:
        """Fit the classifier to each draw; the test images are scored, never chosen by."""
        train, test = splits["train"], splits["test"]
        config = self.config
        classify = CLASSIFIERS[config.probe]
        several = train.annotations.ndim == 2
        CHECKS[config.probe](layer, train.rows)
        asked = svm.normalized(test.rows) if config.probe == "svm" else test.rows
        rows, found, chosen = TrainRows(layer, train.rows), [], []
        for k in config.shots:
            draws = [
                draw_images(train.annotations, k, [config.seed, k, i]) for i in range(config.draws)
            ]
            with waiting(f"{config.draws} draws of {k} a class, of {config.shots}"):
                for result, strengths in classify(rows, draws, asked, len(train.classes)):
                    found.append(result)
                    chosen.append(strengths)
        shape = (len(config.shots), config.draws)
        results = np.stack(found, -1)  # (N, …, S·D)
        results = results.reshape(*results.shape[:-1], *shape)
        if config.probe == "svm":
            predictions = {
                "targets": judged(test.targets, train.targets), "scores": results,
            }  # fmt: skip
        else:
            predictions = {"label": test.labels, "predicted": results}
        selection = {
            "split": f"{FOLDS} folds of the drawn images, 2 for k = 2; k = 1: the grid's middle",
            "criterion": "none" if config.probe == "knn" else self.base,
            "drawn": "class by class" if several else "k images of each class",
            "chosen": {
                str(k): [dict(Counter(c)) for c in chosen[i * config.draws :][: config.draws]]
                for i, k in enumerate(config.shots)
            },
            "grid": list({"svm": COSTS, "logreg": STRENGTHS, "knn": ()}[config.probe]),
            "dimensions": train.rows.shape[1],
        }
        if fewer := scarce(train.annotations, config.shots[-1], train.classes):
            selection["fewer"] = fewer
        selection |= left_out(train.annotations, test.annotations, train.classes)
        return Outcome(predictions, selection)


# ---- draws


def draw_images(annotations: np.ndarray, shots: int, seed: Sequence[int]) -> Drawn:
    """`shots` random images of each class that has any, for labels (N,) or targets (N, C).

    Of a class with fewer, all.
    """
    random = Stream(seed)
    if annotations.ndim == 1:
        groups = [np.flatnonzero(annotations == c) for c in np.unique(annotations)]
        drawn = [random.choice(g, min(shots, len(g))) for g in groups]
        images = np.sort(np.concatenate(drawn))
        return Drawn(images, annotations[images], shots)
    targets = np.full_like(annotations, -1)
    for c, column in enumerate(annotations.T):
        without = np.flatnonzero(column == 0)
        wanted = {
            1: min(int((column == 1).sum()), shots),
            0: min(len(without), shots * (annotations.shape[1] - 1)),
        }
        for value, count in wanted.items():
            here = np.flatnonzero(column == value)
            if (column == 1).any():
                targets[random.choice(here, count), c] = value
    images = np.flatnonzero((targets != -1).any(1))
    return Drawn(images, targets[images], shots)


# ---- classifiers: draws of one size, test rows (N, D) -> of each: results (N, …), strengths

Result = tuple[np.ndarray, list[float]]


@dataclass(frozen=True)
class TrainRows:
    """All training rows (M, D) of a layer, and their principal axes once they are asked for."""

    layer: str
    all: Rows

    @cached_property
    def basis(self) -> Basis:
        """Of the normalised rows; a rotation leaves the SVM's optimum as it is."""
        from eval.solvers.squared_hinge import Basis

        return Basis.of(svm.normalized(self.all))


def _svm(rows: TrainRows, draws: Sequence[Drawn], asked: Rows, classes: int) -> list[Result]:
    """Scores float32 (N, C) of one SVM per class; see eval/svm.py.

    Draws that take most of the images are fitted together, as more columns over the same rows.
    """
    from eval.solvers.squared_hinge import Basis

    targets = [targets_of(drawn.annotations, classes) for drawn in draws]  # (n, C) each
    folds = draws[0].folds
    if any(2 * len(drawn.images) <= len(rows.all) for drawn in draws):
        few = (Basis.of(svm.normalized(rows.all.part(drawn.images))) for drawn in draws)
        pairs = zip(few, targets, strict=True)
        return [_fit(basis, own, classes, folds, asked) for basis, own in pairs]
    columns = np.full((len(rows.all), classes * len(draws)), -1, dtype=np.int8)
    for i, drawn in enumerate(draws):
        columns[drawn.images, i * classes : (i + 1) * classes] = targets[i]
    scores, costs = _fit(rows.basis, columns, classes, folds, asked)
    known = (columns == 1).any(0).reshape(len(draws), classes).sum(1)
    each = np.split(np.array(costs), np.cumsum(known)[:-1])
    parts = np.split(scores, len(draws), 1)
    return [(part, c.tolist()) for part, c in zip(parts, each, strict=True)]


def _fit(basis: Basis, targets: np.ndarray, classes: int, folds: int, asked: Rows) -> Result:
    """One SVM per column of targets (n, K), at a cost of its own; columns without a positive: 0.

    Columns of the same class have the same stream of folds, together or alone.
    """
    known = np.flatnonzero((targets == 1).any(0))
    costs = np.full(len(known), COSTS[len(COSTS) // 2])
    if folds > 1:
        streams = (known % classes).tolist()
        costs = svm.choose_costs(basis, targets[:, known], COSTS, folds, 0, streams).costs
    weights, _ = svm.fit(basis, targets[:, known], costs)
    scores = np.zeros((len(asked), targets.shape[1]), dtype=np.float32)
    scores[:, known] = basis.scores(weights, asked).cpu().numpy()
    return scores, costs.tolist()


def _logreg(rows: TrainRows, draws: Sequence[Drawn], asked: Rows, classes: int) -> list[Result]:
    """Classes int16 (N,); see eval/solvers/logistic.py."""
    return [_one_logreg(rows, drawn, asked, classes) for drawn in draws]


def _one_logreg(rows: TrainRows, drawn: Drawn, asked: Rows, classes: int) -> Result:
    import torch
    from sklearn.model_selection import StratifiedKFold

    from eval.solvers import logistic

    few = rows.all.part(drawn.images)
    labels = torch.from_numpy(drawn.annotations).to(few.device)
    standardize = standardizer(rows.layer, few)
    x = standardize(few)
    strengths = torch.tensor(STRENGTHS, dtype=torch.float32, device=few.device)
    best = len(STRENGTHS) // 2
    if drawn.folds > 1:
        hits = torch.zeros(len(STRENGTHS), device=few.device)
        # It warns of a class that is not in every fold: its few images are in some of them.
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            split = StratifiedKFold(drawn.folds).split(drawn.annotations, drawn.annotations)
            folds = list(split)
        for fitted, held in folds:
            model = logistic.fit(x.part(fitted), labels[fitted], classes, strengths)
            hits += (model.predict(x.part(held)) == labels[held]).sum(1)
        best = int(len(STRENGTHS) - 1 - hits.flip(0).argmax())  # of equals, the strongest
    model = logistic.fit(x, labels, classes, strengths[best : best + 1])
    predicted = model.predict(standardize(asked))[0].cpu().numpy().astype(np.int16)
    return predicted, [STRENGTHS[best]]


def _knn(rows: TrainRows, draws: Sequence[Drawn], asked: Rows, classes: int) -> list[Result]:
    """Classes int16 (N,) by 20 neighbours, or as many images as there are; see eval/knn.py."""
    import torch

    found: list[Result] = []
    for drawn in draws:
        few = rows.all.part(drawn.images)
        voter = knn.KNN(knn.KNNConfig(k=(min(20, len(few)),)))
        labels = torch.from_numpy(drawn.annotations).to(few.device)
        winners = voter.predict(asked, few, labels)[:, 0]
        found.append((winners.cpu().numpy().astype(np.int16), []))
    return found


Classifier = Callable[[TrainRows, Sequence[Drawn], "Rows", int], list[Result]]
CLASSIFIERS: dict[Any, Classifier] = {"svm": _svm, "logreg": _logreg, "knn": _knn}
CHECKS: dict[Any, Callable[[str, Rows], Any]] = {  # that a layer's features differ at all
    "svm": svm.varied, "logreg": standardizer, "knn": knn.check_directions,
}  # fmt: skip
