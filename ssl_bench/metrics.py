"""Metrics, in percent where the field prints percent."""

import numpy as np

from ssl_bench.statistics import proportion_interval


def top1(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Share of images whose class is predicted, in percent, with its 95 % Wilson interval.

    Both int64 (N,). Returns `top1`, `top1_low`, `top1_high`.
    """
    hits, total = int((labels == predicted).sum()), len(labels)
    low, high = proportion_interval(hits, total)
    return {"top1": 100 * hits / total, "top1_low": 100 * low, "top1_high": 100 * high}
