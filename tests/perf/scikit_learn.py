"""The solver of `linear/logreg@1` against scikit-learn's, on the same features.

    python tests/perf/scikit_learn.py                      # AlexNet at 128 px, 1,000 images
    python tests/perf/scikit_learn.py 500 96 0.5 2000      # images, px, width, numbers a layer

All layers and strengths at once against one fit each, in one run on the same machine, so that a
busy or slow one does not make the ratio.
"""

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from eval.perf_probes import alexnet, first_images, scenes, timed
from eval.solvers.logistic import Standardizer, fit
from ssl_bench.evaluation.features import extract


def lines(
    images: int = 1000, size: int = 128, width: float = 1.0, dimensions: int = 9600
) -> Iterator[str]:
    """The report, line by line as it is known."""
    encoder, spec = alexnet(size, width)
    few = first_images(scenes(images, size)[0], images)
    rows = extract(encoder, spec, few, {layer: [dimensions] for layer in encoder.layers}, "pass")
    labels, strengths = torch.from_numpy(few.labels), torch.logspace(-6, 0, 13)
    ours = theirs = worst = 0.0
    for layer in encoder.layers:
        raw = rows.pop((layer, dimensions))
        x, found = Standardizer.fit(raw)(raw), []
        ours += timed(lambda x=x, found=found: found.append(fit(x, labels, 10, strengths)))
        seconds, gap = scikit_learn(x.whole(), labels, strengths, found[0].objective)
        theirs, worst = theirs + seconds, max(worst, gap)
        yield f"{layer}: {x.shape[1]} numbers, so far ours {ours:.1f} s, theirs {theirs:.1f} s"
    yield (
        f"logistic regression, {images} images, {len(encoder.layers)} layers × "
        f"{len(strengths)} strengths: ours {ours:.1f} s, scikit-learn {theirs:.1f} s: "
        f"{theirs / ours:.1f} × faster; aim: ≥ 10"
    )
    yield f"our objective above theirs: at most {worst:.1e}, relative; aim: ≤ 1e-4"


def scikit_learn(
    x: torch.Tensor, labels: torch.Tensor, strengths: torch.Tensor, ours: torch.Tensor
) -> tuple[float, float]:
    """Seconds of one fit per strength, and how far our objective is above the best of theirs."""
    given, targets = x.numpy(), labels.numpy()
    seconds, worst = 0.0, -np.inf
    for strength, reached in zip(strengths.tolist(), ours.tolist(), strict=True):
        model = LogisticRegression(C=1 / (len(x) * strength), max_iter=10_000)
        seconds += timed(partial(model.fit, given, targets))
        logits = torch.from_numpy(model.decision_function(given)).double()
        penalty = strength / 2 * float(np.square(model.coef_).sum())
        theirs = float(F.cross_entropy(logits, labels)) + penalty
        worst = max(worst, reached / theirs - 1)
    return seconds, worst


if __name__ == "__main__":
    kinds: tuple[Any, ...] = (int, int, float, int)
    for line in lines(*(kind(word) for kind, word in zip(kinds, sys.argv[1:], strict=False))):
        print(line, flush=True)
