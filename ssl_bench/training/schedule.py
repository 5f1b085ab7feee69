"""Courses of the learning rate, by name. A method adds its own: `SCHEDULES["poly"] = …`."""

import math
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

# Of schedule `step`, as shares of all steps: 40k, 80k and 120k of 140k (Goyal et al., 1905.01235).
DECAYS = (2 / 7, 4 / 7, 6 / 7)
# Of schedule `halve`, equal shares of all steps: 10k of 80k each (Krähenbühl, voc-classification).
SHARES = 8
# Of schedule `drop`: 30k of 40k (Girshick, Fast R-CNN, arXiv 1504.08083).
DROP = 3 / 4

# What the learning rate is multiplied by after the share `done` (0 to 1) of all steps.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "step": lambda done: 0.1 ** sum(done >= decay for decay in DECAYS),
    "halve": lambda done: 0.5 ** math.floor(SHARES * done),
    "drop": lambda done: 0.1 if done >= DROP else 1.0,
}


def _known(name: str) -> str:
    if name not in SCHEDULES:
        raise PydanticCustomError("schedule", "takes {names}", {"names": ", ".join(SCHEDULES)})
    return name


Schedule = Annotated[str, AfterValidator(_known)]


def rate_factor(schedule: str, step: int, steps: int, warmup: int = 0) -> float:
    """What the learning rate is multiplied by at `step`, from 0, of `steps`.

    Over `warmup` steps it rises in equal parts to 1, which its last step has; the schedule runs
    over the rest (Goyal et al., "Accurate, Large Minibatch SGD", arXiv 1706.02677, section 2.2).
    """
    if step < warmup:
        return (step + 1) / warmup
    return SCHEDULES[schedule]((step - warmup) / (steps - warmup))
