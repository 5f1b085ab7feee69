"""The mean of the classes' accuracies, in percent, by which some sets are reported.

It is what Kornblith et al. (arXiv 1805.08974) call mean per-class accuracy, and scikit-learn
balanced_accuracy_score. Beside the predictions stands a value for each test image, so that whatever
knows a mean over images knows this one.
"""

from collections.abc import Mapping

import numpy as np

from ssl_bench.evaluation.metrics import MEAN_PER_CLASS
from ssl_bench.evaluation.metrics.resampling import (
    Intervals,
    bootstrap_intervals,
    resampled_mean,
)


def values_by_class(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """float64 (N,) of labels and predictions int64 (N,): their mean is the mean over the classes.

    With A the metric, A_c the accuracy of a class and N_c of N images in it, an image that is hit
    (1) or missed (0) has A + N / (C·N_c) · (hit − A_c). The values' spread is then the metric's own
    (linearisation, as of every ratio): hits that were only weighted by 1 / N_c would spread with
    the classes' sizes, too. Classes without a test image are left out.
    """
    classes, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    hits = 100.0 * (labels == predicted)
    accuracies = np.bincount(place, hits) / counts
    share = len(labels) / (len(classes) * counts)
    return accuracies.mean() + share[place] * (hits - accuracies[place])


def with_values_by_class(predictions: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Predictions with `mean_per_class` by their present `label` and `predicted`.

    As they are where they have not one label and one prediction an image.
    """
    labels, predicted = (predictions.get(name) for name in ("label", "predicted"))
    if labels is None or predicted is None or predicted.ndim > 1:
        return predictions
    return {**predictions, MEAN_PER_CLASS.name: values_by_class(labels, predicted)}


def mean_per_class(predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
    """`mean_per_class` of predictions that hold its values, else nothing."""
    if MEAN_PER_CLASS.name not in predictions:
        return {}
    return {MEAN_PER_CLASS.name: float(predictions[MEAN_PER_CLASS.name].mean())}


def mean_per_class_interval(predictions: Mapping[str, np.ndarray]) -> Intervals:
    """Its 95 % interval, where predictions hold its values."""
    if MEAN_PER_CLASS.name not in predictions:
        return {}
    values = predictions[MEAN_PER_CLASS.name]
    return bootstrap_intervals(resampled_mean(MEAN_PER_CLASS.name, values))
