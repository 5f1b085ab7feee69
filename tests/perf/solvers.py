"""The probes' solvers at the sizes that took longest, and against scikit-learn's at a smaller one.

    python tests/perf/solvers.py                        # minutes: the sizes that docs/ names
    python tests/perf/solvers.py 2000 20 9 300 5 3  # images, classes, SVMs; of the smaller

Whole sweeps as `linear/logreg@1` and `svm/goyal19-voc07@1` do them, of made-up features: what a
rectified layer gives, of falling variance, on classes that overlap. Logistic regression has 64
numbers an image; the SVMs have 30 images a class and 9,600 numbers. Seconds are this machine's and
its load's; the ratio is of times taken in turn.
"""

import os
import platform
import sys
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from scikit_learn import scikit_learn
from sklearn.svm import LinearSVC

from eval.perf_probes import timed
from eval.solvers import logistic, squared_hinge
from eval.solvers.squared_hinge import Basis
from eval.svm import SVM, SVMConfig, normalized
from ssl_bench.evaluation.features import Features
from ssl_bench.evaluation.rows import Rows

NUMBERS, PER_CLASS, PIXELS = 64, 30, 9600  # of logistic regression; of the SVMs
STRENGTHS = torch.logspace(-6, 0, 13)


def features(count: int, size: int, classes: int, seed: int = 0) -> tuple[Rows, torch.Tensor]:
    """Rows (N, size) and labels (N,), as many of each class."""
    random = torch.Generator().manual_seed(seed)
    rank = min(size, 256)
    basis = torch.randn(rank, size, generator=random) * torch.logspace(0, -1.5, rank)[:, None]
    centres = 0.5 * torch.randn(classes, rank, generator=random)
    labels = torch.arange(count) % classes
    hidden = centres[labels] + torch.randn(count, rank, generator=random)
    noise = 0.02 * torch.randn(count, size, generator=random)
    return Rows.of(torch.relu(hidden @ basis + noise)), labels


def lines(
    images: int = 100_000, classes: int = 200, svms: int = 100,
    few_images: int = 2000, few_classes: int = 20, few_svms: int = 10,
) -> Iterator[str]:  # fmt: skip
    """The report, line by line as it is known."""
    yield f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} thread(s)"
    seconds, _, _ = logistic_sweep(images, classes)
    yield (
        f"logistic regression, {images} × {NUMBERS}, {classes} classes, {len(STRENGTHS)} strengths:"
        f" {seconds:.1f} s, load {os.getloadavg()[0]:.1f}; aim at 100000 and 200: ≤ 60"
    )
    ours, rows, fitted = logistic_sweep(few_images, few_classes)
    labels = torch.arange(few_images) % few_classes
    theirs, gap = scikit_learn(rows.whole(), labels, STRENGTHS, fitted.objective)
    yield f"{few_images} × {NUMBERS}, {few_classes} classes: {against(ours, theirs, gap)}"
    seconds = svm_probe(svms)
    yield (
        f"SVMs, {PER_CLASS * svms} × {PIXELS}, {svms} classes, 11 costs × 3 folds, last fit: "
        f"{seconds:.1f} s, load {os.getloadavg()[0]:.1f}; aim at 100: ≤ 30"
    )
    yield f"{PER_CLASS * few_svms} × {PIXELS}, {few_svms} classes: {against(*svm_path(few_svms))}"


def against(ours: float, theirs: float, gap: float) -> str:
    return (
        f"ours {ours:.2f} s, scikit-learn {theirs:.2f} s: {theirs / ours:.1f} × faster; "
        f"our objective above theirs: at most {gap:.1e}"
    )


def logistic_sweep(images: int, classes: int) -> tuple[float, Rows, logistic.Fit]:
    """Seconds, the standardised rows, and the fit."""
    raw, labels = features(images, NUMBERS, classes)
    rows, found = logistic.Standardizer.fit(raw)(raw), []
    seconds = timed(lambda: found.append(logistic.fit(rows, labels, classes, STRENGTHS)))
    return seconds, rows, found[0]


def svm_probe(classes: int) -> float:
    """Seconds of the whole probe: axes, costs, last fit, scores."""
    rows, labels = features(PER_CLASS * classes, PIXELS, classes)
    known = Features(rows, labels.numpy(), tuple(map(str, range(classes))))
    test = Features(rows.part(np.arange(classes)), labels[:classes].numpy(), known.classes)
    return timed(partial(SVM(SVMConfig()).probe, "made up", {"train": known, "test": test}))


def svm_path(classes: int) -> tuple[float, float, float]:
    """Seconds of all costs on all rows, theirs, and our objective above theirs, relative."""
    raw, labels = features(PER_CLASS * classes, PIXELS, classes)
    rows, costs = normalized(raw), SVMConfig().costs
    targets = (labels[:, None] == torch.arange(classes)).to(torch.int8).numpy()
    values: list[np.ndarray] = []

    def ours() -> None:
        for solution, _ in squared_hinge.path(Basis.of(rows), targets, costs):
            values.append(solution.value.numpy())

    seconds, x, theirs, worst = timed(ours), rows.whole().double().numpy(), 0.0, -np.inf
    for cost, value in zip(costs, values, strict=True):
        for target, reached in zip(targets.T, value, strict=True):
            svm = LinearSVC(C=cost, class_weight={1: 2, 0: 1}, max_iter=10**6)
            svm.set_params(dual=True)
            theirs += timed(partial(svm.fit, x, target))
            worst = max(worst, reached / objective(svm, x, target, cost) - 1)
    return seconds, theirs, float(worst)


def objective(svm: LinearSVC, x: np.ndarray, target: np.ndarray, cost: float) -> float:
    """What both minimise, at scikit-learn's weights."""
    missed = np.maximum(0, 1 - np.where(target, 1, -1) * svm.decision_function(x))
    weights = float(np.square(svm.coef_).sum() + np.square(svm.intercept_).sum())
    return weights / 2 + cost * float((np.where(target, 2, 1) * missed**2).sum())


if __name__ == "__main__":
    for line in lines(*map(int, sys.argv[1:])):
        print(line, flush=True)
