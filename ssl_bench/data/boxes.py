"""Boxes of an annotation brought into their image, or refused."""

import numpy as np

ROUNDING = 1.001  # a box may end so many pixels outside its image: rounded after a resize, by hand


def clipped(boxes: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes float64 (M, 4) from 0 with the end exclusive, clipped: float32; and bool (M,).

    True are those that cannot be used: farther outside than ROUNDING, or empty once clipped.
    """
    limit = np.array([width, height, width, height], np.float64)
    # In float64, as float32 would round an edge that is just outside to one that is just inside.
    outside = (boxes < -ROUNDING) | (boxes > limit + ROUNDING)  # (M, 4)
    inside = np.clip(boxes, 0, limit).astype(np.float32)
    empty = inside[:, 2:] <= inside[:, :2]  # (M, 2)
    return inside, np.any(np.concatenate([outside, empty], 1), axis=1, keepdims=False)
