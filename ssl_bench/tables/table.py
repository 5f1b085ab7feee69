"""What is in a table, made from records only: methods down, evaluations across.

A cell is the mean ± 95 % interval with n. With two seeds or more the interval is Student's over
the seeds; with one it is over the test images. Rows are compared with the baselines, and each
column's best with the others, paired by seed (equal seeds share their starting weights, splits and
label draws) or, with one seed each, by test image. How a table is written: forms.py.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ssl_bench.evaluation.intervals import LEVEL, Paired, holm, mean_interval
from ssl_bench.records.record import EvaluationRecord
from ssl_bench.tables.measured import Measured, paired_difference
from ssl_bench.tables.names import (
    baseline_of,
    baseline_place,
    column_names,
    column_order,
    rank,
    row_names,
)

Place = tuple[str, str]  # row and column


@dataclass(frozen=True)
class Cell:
    """One number of a table: `half` is the half-width of its 95 % interval, over `over`.

    `images` is that of its interval over the test images, the mean of all seeds' where there are
    several; NaN where it is not known.
    """

    mean: float
    half: float
    n: int
    over: str  # "seeds" or "images"
    images: float


@dataclass(frozen=True)
class Table:
    """Rows and columns in order, and what was measured, by seeds, in each cell.

    `free` are the rows that need no encoder: baselines, too. `evaluations` are the records behind
    the cells, `controls` those with shuffled training labels.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    measured: Mapping[Place, Mapping[tuple[int, int], Measured]]
    free: Sequence[str]
    evaluations: Sequence[EvaluationRecord]
    controls: Sequence[EvaluationRecord]

    @classmethod
    def of(cls, records: Sequence[EvaluationRecord], workspace: Path | None = None) -> "Table":
        """The table of all these evaluations; records of the same cell are its seeds.

        With the `workspace` that holds their predictions, single seeds are compared over images.
        """
        controls = [r for r in records if r.identity.control is not None]
        evaluations = [r for r in records if r.identity.control is None]
        shown = [(record, metric) for record in evaluations for metric in record.shown]
        by_metric = [record for record, _ in shown]  # a record for each of its metrics
        rows, columns = row_names(by_metric), column_names(shown)
        measured: dict[Place, dict[tuple[int, int], Measured]] = defaultdict(dict)
        for (record, metric), row, column in zip(shown, rows, columns, strict=True):
            one = Measured(record, metric, workspace)
            measured[row, column][one.seeds] = one  # of one seed the newest, which comes last
        # Reversed, so that the first record of a row is the one that stays.
        first = dict(zip(reversed(rows), reversed(by_metric), strict=True))
        free = {row for row, r in zip(rows, by_metric, strict=True) if r.identity.encoder is None}
        ordered = sorted(first, key=lambda r: (r not in free, rank(first[r]), rows.index(r)))
        return cls(
            rows=ordered,
            columns=column_order(by_metric, columns),
            measured=dict(measured),
            free=[row for row in ordered if row in free],
            evaluations=evaluations,
            controls=controls,
        )

    def at(self, row: str, column: str) -> list[Measured]:
        """What was measured in a cell, a number for each seed."""
        return list(self.measured.get((row, column), {}).values())

    def first_in(self, column: str) -> Measured:
        """The first number of a column: all share its unit, digits and direction."""
        return next(self.at(row, column)[0] for row in self.rows if self.at(row, column))

    def is_stale(self, row: str, column: str) -> bool:
        """Whether any seed of a cell would come out otherwise today."""
        return any(one.stale for one in self.at(row, column))

    # ---- cells
    @cached_property
    def cells(self) -> Mapping[Place, Cell]:
        """Those that were measured."""
        return {place: _cell(list(found.values())) for place, found in self.measured.items()}

    def cell(self, row: str, column: str) -> Cell | None:
        """None where nothing was measured."""
        return self.cells.get((row, column))

    # ---- differences
    def difference(self, row: str, baseline: str, column: str) -> Paired | None:
        """The paired difference; None where there are no pairs. See measured.py."""
        return paired_difference(self.at(row, column), self.at(baseline, column))

    @cached_property
    def differences(self) -> list[tuple[str, list[Paired | None]]]:
        """Each row of an encoder against each baseline present, over all columns.

        Of several rows of one baseline, each is compared with the one of its own network and
        images. The p-values are Holm's, over all of them.
        """
        lines = []
        for row, baseline in self._pairs():
            cells = [self.difference(row, baseline, column) for column in self.columns]
            if any(cells):
                lines.append((f"{row} − {baseline}", cells))
        corrected = iter(_corrected([cell for _, cells in lines for cell in cells]))
        return [(name, [next(corrected) for _ in cells]) for name, cells in lines]

    def _pairs(self) -> Iterator[tuple[str, str]]:
        """Rows with the baselines that they are compared with, baseline by baseline."""
        encoders = {row: self._record(row) for row in self.rows if row not in self.free}
        for baseline in self.free:
            yield from ((row, baseline) for row in encoders)
        # Rows stand in order of their rank, so that these methods come baseline by baseline.
        for method in dict.fromkeys(one.method for one in encoders.values()):
            place = baseline_place(method)
            if place is None:
                continue
            candidates = {row: one for row, one in encoders.items() if one.method == method}
            for row, one in encoders.items():
                baseline = baseline_of(one, candidates)
                if baseline and rank(one) > place:
                    yield row, baseline

    def _record(self, row: str) -> EvaluationRecord:
        """Any record of a row: its encoder is the same in all but the seed."""
        return next(one.record for c in self.columns for one in self.at(row, c))

    # ---- which cells lead
    @cached_property
    def leading(self) -> set[Place]:
        """The best cell of each column and those that a paired test cannot tell from it.

        Holm's correction is over all comparisons with a best cell in the table; a cell that cannot
        be paired with it is not among them. Nothing leads in a column of one row.
        """
        best = {column: row for column in self.columns if (row := self._best(column))}
        others = [
            (row, column)
            for column, top in best.items()
            for row in self.rows
            if row != top and (row, column) in self.cells
        ]
        # Holm counts k − 1 comparisons of a column. The best was picked by the same numbers, so
        # that the family is all k (k − 1) / 2 pairs: cells lose the mark too often.
        found = _corrected([self.difference(best[column], row, column) for row, column in others])
        ties = {at for at, paired in zip(others, found, strict=True) if paired and paired.p > LEVEL}
        return ties | {(row, column) for column, row in best.items()}

    def _best(self, column: str) -> str | None:
        """The row with the best mean; None for a column of fewer than two."""
        means = {row: cell.mean for row in self.rows if (cell := self.cell(row, column))}
        if len(means) < 2:
            return None
        best_of = min if self.first_in(column).lower else max
        return best_of(means, key=lambda row: means[row])


def _cell(found: Sequence[Measured]) -> Cell:
    mean, half = mean_interval([one.value for one in found])
    images = float(np.mean([one.half for one in found]))
    if len(found) > 1:
        return Cell(mean, half, len(found), "seeds", images)
    return Cell(mean, images, 1, "images", images)


def _corrected(found: Sequence[Paired | None]) -> list[Paired | None]:
    """The same with Holm's p-values, over those that are there."""
    p_values = iter(holm([paired.p for paired in found if paired]))
    return [replace(paired, p=next(p_values)) if paired else None for paired in found]
