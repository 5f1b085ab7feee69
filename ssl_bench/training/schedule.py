"""Courses of the learning rate, by name."""

import math

# Of schedule `step`, as shares of all steps: 40k, 80k and 120k of 140k (Goyal et al., 1905.01235).
DECAYS = (2 / 7, 4 / 7, 6 / 7)
# Of schedule `halve`, equal shares of all steps: 10k of 80k each (Krähenbühl, voc-classification).
SHARES = 8
# Of schedule `drop`: 30k of 40k (Girshick, Fast R-CNN, arXiv 1504.08083).
DROP = 3 / 4


def rate_factor(schedule: str, done: float) -> float:
    """What the learning rate is multiplied by after the share `done` (0 to 1) of all steps.

    `cosine` falls from 1 to 0, `step` is divided by ten at each of DECAYS, `halve` is half as
    much in each of SHARES equal shares as in the one before, `drop` is a tenth from DROP on.
    """
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if schedule == "step":
        return 0.1 ** sum(done >= decay for decay in DECAYS)
    if schedule == "halve":
        return 0.5 ** math.floor(SHARES * done)
    if schedule == "drop":
        return 0.1 if done >= DROP else 1.0
    return 1.0
