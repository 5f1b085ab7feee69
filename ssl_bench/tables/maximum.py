"""How much the maximum over a training's steps gives, beside the last step that counts.

Published tables often print the best epoch by the test images (lightly's Imagenette table does).
That is chosen on test: of equally good encoders the luckiest. So a third number stands beside it:
the step is chosen on every second test image and read on the others, and the other way round, so
that it gains nothing by luck.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ssl_bench.tables.course import Course, courses_of
from ssl_bench.tables.measured import Measured
from ssl_bench.tables.table import Table


@dataclass(frozen=True)
class Maximum:
    """A course at one column, in the metric's unit: means over the seeds that have its last step.

    `steps` are those looked at, `at` the best of each seed. `halves` is what the step that one half
    of the test images chooses has above the last step on the other half, less where less is better;
    None where no values of single images are stored.
    """

    name: str
    column: str
    seeds: int
    steps: Sequence[int]
    last: float
    best: float
    at: Sequence[int]
    halves: float | None

    def cells(self, digits: int) -> list[str]:
        """Name, last, maximum with its steps, what it gives, what it gives without luck."""
        steps = ", ".join(f"{step:,}" for step in dict.fromkeys(self.at))
        known = [self.best - self.last, *([] if self.halves is None else [self.halves])]
        # 0.0 is added so that what rounds to nought has no minus.
        gains = [f"{round(gain, digits) + 0.0:+.{digits}f}".replace("-", "−") for gain in known]
        gains += ["–"] * (2 - len(gains))
        last, best = (f"{value:.{digits}f}" for value in (self.last, self.best))
        looked = f"{len(self.steps)} to {self.steps[-1]:,}"
        return [self.name, str(self.seeds), looked, last, f"{best} (step {steps})", *gains]


HEADING = [
    "method", "seeds", "steps looked at", "last", "maximum, chosen on test", "it gives",
    "chosen on the other half",
]  # fmt: skip


def maxima(table: Table) -> list[Maximum]:
    """Of each column and course with two steps or more. UsageError where there is no course."""
    courses = courses_of(table)
    found = ((course, column) for column in table.columns for course in courses)
    return [one for course, column in found if (one := _maximum(table, course, column))]


def _maximum(table: Table, course: Course, column: str) -> Maximum | None:
    there = {step: found for step, row in course.rows.items() if (found := table.at(row, column))}
    if len(there) < 2:
        return None
    by_seed = list(_by_seed(there))
    lower = table.first_in(column).lower
    best = [_best([one.value for one in found.values()], lower) for found in by_seed]
    halves = [_halves(list(found.values()), lower) for found in by_seed]
    known = [value for value in halves if value is not None]
    return Maximum(
        name=course.name,
        column=column,
        seeds=len(by_seed),
        steps=sorted({step for found in by_seed for step in found}),
        last=_mean(found[max(there)].value for found in by_seed),
        best=_mean([*found.values()][i].value for i, found in zip(best, by_seed, strict=True)),
        at=[[*found][i] for i, found in zip(best, by_seed, strict=True)],
        halves=_mean(known) if len(known) == len(halves) else None,
    )


def _by_seed(there: dict[int, list[Measured]]) -> Iterator[dict[int, Measured]]:
    """Of each seed that has the last step, its numbers by step."""
    for seeds in [one.seeds for one in there[max(there)]]:
        yield {step: one for step, some in there.items() for one in some if one.seeds == seeds}


def _best(values: Sequence[float], lower: bool) -> int:
    """The place of the best; of equal ones the last, which has no need to be chosen."""
    signed = [-value if lower else value for value in values]
    return max(range(len(signed)), key=lambda place: (signed[place], place))


def _halves(found: Sequence[Measured], lower: bool) -> float | None:
    """The mean of two: chosen on images at even places and read at odd ones, and the other way."""
    rows = [one.values for one in found]
    known = [row for row in rows if row is not None and len(row) > 1]
    if len(known) < len(rows) or len({one.images for one in found}) > 1:
        return None
    values = np.stack(known)  # (steps, images)
    # Sets list class after class, so that every second image is half of each class.
    even, odd = values[:, ::2].mean(1), values[:, 1::2].mean(1)
    gains = [
        there[_best(here.tolist(), lower)] - there[-1] for here, there in ((even, odd), (odd, even))
    ]
    return _mean(gains)


def _mean(values: Iterator[float] | Sequence[float]) -> float:
    return float(np.mean([*values]))
