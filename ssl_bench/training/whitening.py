"""Whitening before k-means: principal directions of unit variance, then rows of unit length.

As magic_init's (Krähenbühl et al. 2016) and DeepCluster's (Caron et al. 2018) released code.
"""

import numpy as np

RANK = 1e-6  # a direction with less than this share of the largest variance has none


def whitened(rows: np.ndarray, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 (N, D) -> rows of length 1, float32 (N, d), and the whitening, float32 (D, d).

    A row is centred and multiplied by the whitening. d is `dimensions`, or fewer where the rows
    vary in fewer directions: 0 if all are equal, or too large or not finite.
    """
    from scipy.linalg import eigh

    with np.errstate(over="ignore", invalid="ignore"):
        centred = rows - rows.mean(0)
        covariance = (centred.T @ centred / len(centred)).astype(np.float64)
    size = len(covariance)
    if not np.isfinite(covariance).all():
        return rows[:, :0], np.zeros((size, 0), np.float32)
    variances, directions = eigh(covariance, subset_by_index=[max(0, size - dimensions), size - 1])
    kept = variances > RANK * variances[-1]  # ascending
    whitening = (directions[:, kept] / np.sqrt(variances[kept])).astype(np.float32)  # (D, d)
    unit = centred @ whitening
    lengths = np.linalg.norm(unit, axis=1, keepdims=True)
    unit /= np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit, whitening
