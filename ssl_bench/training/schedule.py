"""Courses of the learning rate, by name."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

# Of schedule `step`, as shares of all steps: 40k, 80k and 120k of 140k (Goyal et al., 1905.01235).
DECAYS = (2 / 7, 4 / 7, 6 / 7)
# Of schedule `halve`, equal shares of all steps: 10k of 80k each (Krähenbühl, voc-classification).
SHARES = 8
# Of schedule `drop`: 30k of 40k (Girshick, Fast R-CNN, arXiv 1504.08083).
DROP = 3 / 4

# What the learning rate is multiplied by after the share `done` (0 to 1) of all steps.
SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "step": lambda done: 0.1 ** sum(done >= decay for decay in DECAYS),
    "halve": lambda done: 0.5 ** math.floor(SHARES * done),
    "drop": lambda done: 0.1 if done >= DROP else 1.0,
}

if TYPE_CHECKING:
    Schedule: TypeAlias = str
else:
    Schedule = Literal[*SCHEDULES]  # for pydantic and the command line, which name the choices


def rate_factor(schedule: Schedule, done: float) -> float:
    """What the learning rate is multiplied by after the share `done` (0 to 1) of all steps."""
    return SCHEDULES[schedule](done)
