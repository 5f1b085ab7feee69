"""What is in a table, made from records only: methods down, evaluations across.

A cell is the mean ± 95 % interval with n. With two seeds or more the interval is over seeds and
test images; with one it is over the test images. Rows are compared with the baselines, and all rows
of a column among themselves, paired by seed (equal seeds share their starting weights, splits and
label draws) and by test image. Which differences are tested: family.py. How a table is written:
forms.py.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np

from ssl_bench.evaluation.intervals import Paired, holm, mean_interval
from ssl_bench.evaluation.two_way import LEVEL
from ssl_bench.progress import waiting
from ssl_bench.records.record import EvaluationRecord
from ssl_bench.tables.distinct import distinct_rows
from ssl_bench.tables.family import Comparison, Family, family_beside
from ssl_bench.tables.measured import (
    Measured,
    half_over_both,
    paired_at_one_seed,
    paired_difference,
)
from ssl_bench.tables.names import (
    baseline_of,
    baseline_place,
    column_names,
    column_order,
    rank,
    row_names,
    shared_settings,
)

Place = tuple[str, str]  # row and column


@dataclass(frozen=True)
class Cell:
    """One number of a table: `half` is the half-width of its 95 % interval, over `over`.

    `seeds` is that of the interval over the seeds alone, NaN with one; `images` that of a single
    seed's over the test images, the mean of all seeds', NaN where it is not known.
    """

    mean: float
    half: float
    n: int
    over: str  # "seeds and images", "images", or "seeds" where no single image is known
    seeds: float
    images: float


@dataclass(frozen=True)
class Table:
    """Rows and columns in order, and what was measured, by seeds, in each cell.

    `free` are the rows that need no encoder: baselines, too. `evaluations` are the records behind
    the cells, `controls` those with shuffled training labels. `family` says which differences are
    tested. `whole` is the table that this one is a part of: its marks and tests count. `against`
    are rows that all others are shown beside, in place of the baselines; tests stay the family's.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    measured: Mapping[Place, Mapping[tuple[int, int], Measured]]
    free: Sequence[str]
    evaluations: Sequence[EvaluationRecord]
    controls: Sequence[EvaluationRecord]
    family: Family
    whole: "Table | None" = None
    against: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        records: Sequence[EvaluationRecord],
        workspace: Path | None = None,
        family: Family | None = None,
    ) -> "Table":
        """The table of all these evaluations; records of the same cell are its seeds.

        Without the `workspace` that holds their predictions nothing is known image by image. Where
        no family is given, it is what the workspace's family.json declares.
        """
        family = family_beside(workspace) if family is None else family
        controls = [r for r in records if r.identity.control is not None]
        evaluations = [r for r in records if r.identity.control is None]
        shown = [(record, metric) for record in evaluations for metric in record.shown]
        by_metric = [record for record, _ in shown]  # a record for each of its metrics
        labels = [family.label_of(record) for record in by_metric]
        rows = distinct_rows(by_metric, row_names(by_metric, labels))
        columns = column_names(shown)
        measured: dict[Place, dict[tuple[int, int], Measured]] = defaultdict(dict)
        for (record, metric), row, column in zip(shown, rows, columns, strict=True):
            one = Measured(record, metric, workspace)
            # Of one seed and the same weights the newest, which comes last.
            measured[row, column][one.seeds] = one
        # Reversed, so that the first record of a row is the one that stays.
        first = dict(zip(reversed(rows), reversed(by_metric), strict=True))
        free = {row for row, r in zip(rows, by_metric, strict=True) if r.identity.encoder is None}
        places = {
            row: (row not in free, rank(one), family.place_of(one), rows.index(row))
            for row, one in first.items()
        }
        ordered = sorted(first, key=places.__getitem__)
        return cls(
            rows=ordered,
            columns=column_order(by_metric, columns),
            measured=dict(measured),
            free=[row for row in ordered if row in free],
            evaluations=evaluations,
            controls=controls,
            family=family,
        )

    def at(self, row: str, column: str) -> list[Measured]:
        """What was measured in a cell, a number for each seed."""
        return list(self.measured.get((row, column), {}).values())

    def first_in(self, column: str) -> Measured:
        """The first number of a column: all share its unit, digits and direction."""
        return next(self.at(row, column)[0] for row in self.rows if self.at(row, column))

    def quantity(self, column: str) -> str:
        """The metric of a column and its unit, as axes say it."""
        one = self.first_in(column)
        less = ", less is better" if one.lower else ""
        return f"{one.metric}, {one.units.get(one.metric, '%')}{less}"

    def untrained(self, column: str) -> list[str]:
        """The rows of a column whose encoders no training has touched."""
        rows = [row for row in self.rows if self.at(row, column)]
        return [row for row in rows if baseline_place(self.method(row)) == 0]

    def is_stale(self, row: str, column: str) -> bool:
        """Whether any seed of a cell would come out otherwise today."""
        return any(one.stale for one in self.at(row, column))

    @cached_property
    def shared(self) -> str:
        """What the networks of all rows that were made here have in common, as names say it."""
        found = shared_settings(map(self.record_of, self.rows)).items()
        return ", ".join(f"{name}={value}" for name, value in found)

    # ---- cells
    @cached_property
    def cells(self) -> Mapping[Place, Cell]:
        """Those that were measured."""
        with waiting("the table's intervals"):
            return {place: _cell(list(found.values())) for place, found in self.measured.items()}

    def cell(self, row: str, column: str) -> Cell | None:
        """None where nothing was measured."""
        return self.cells.get((row, column))

    @cached_property
    def chance(self) -> Mapping[str, float]:
        """By column, where it is known: all rows of a column share their test images."""
        found = {column: self.first_in(column).chance for column in self.columns}
        return {column: value for column, value in found.items() if value is not None}

    # ---- differences
    @cached_property
    def differences(self) -> list[tuple[str, list[Paired | None]]]:
        """Each row of an encoder against each baseline present, and each declared contrast.

        Or each row against those that all are to be shown beside. Over all columns; None where
        there are no pairs. Of several rows of one baseline, each is compared with the one of its
        own network and images. Those of the declared family have Holm's p-value for all of it,
        too. Of a row of one seed and one of several, their shared seed's is shown, and not tested.
        """
        usual = [*self.pairs, *((a, b) for a, b, _ in self.declared)]
        asked = [(row, b) for b in self.against for row in self.rows if row != b]
        found = {
            (a, b): [
                self.difference(a, b, column)
                or paired_at_one_seed(self.at(a, column), self.at(b, column))
                for column in self.columns
            ]
            for a, b in dict.fromkeys(asked if self.against else usual)
        }
        return [(f"{a} − {b}", cells) for (a, b), cells in found.items() if any(cells)]

    def difference(self, a: str, b: str, column: str) -> Paired | None:
        """The paired difference of two rows, a − b, tested if it is declared; see measured.py."""
        paired = paired_difference(self.at(a, column), self.at(b, column))
        adjusted = self._adjusted.get((a, b, column), self._adjusted.get((b, a, column)))
        return replace(paired, adjusted=adjusted) if paired else None

    @cached_property
    def declared(self) -> list[Comparison]:
        """The comparisons of the family for which there are pairs."""
        return list(self._adjusted)

    @cached_property
    def headlines(self) -> list[str]:
        """The columns of what is declared; of nothing, the first of each evaluation."""
        declared = {column for *_, column in self.declared} & {*self.columns}
        first = dict[tuple[str, str], str]()
        for column in self.columns:
            one = self.first_in(column)
            first.setdefault((one.record.details.protocol, one.images), column)
        return [c for c in self.columns if c in (declared or first.values())]

    @cached_property
    def _adjusted(self) -> Mapping[Comparison, float]:
        """Holm's p-values of the family."""
        if self.whole:
            return self.whole._adjusted
        found = dict[Comparison, float]()
        with waiting("the table's declared differences"):
            for a, b, column in self.family.comparisons(self):
                paired = paired_difference(self.at(a, column), self.at(b, column))
                if paired and (b, a, column) not in found:
                    found[a, b, column] = paired.p
        return dict(zip(found, holm(list(found.values())), strict=True))

    @property
    def pairs(self) -> Sequence[tuple[str, str]]:
        """Rows with the baselines that they are compared with, baseline by baseline."""
        if self.whole:
            return [(a, b) for a, b in self.whole.pairs if {a, b} <= {*self.rows}]
        encoders = {row: self.record_of(row) for row in self.rows if row not in self.free}
        found = [(row, baseline) for baseline in self.free for row in encoders]
        # Rows stand in order of their rank, so that these methods come baseline by baseline.
        for method in dict.fromkeys(one.method for one in encoders.values()):
            place = baseline_place(method)
            if place is None:
                continue
            candidates = {row: one for row, one in encoders.items() if one.method == method}
            for row, one in encoders.items():
                baseline = baseline_of(one, candidates)
                if baseline and rank(one) > place:
                    found.append((row, baseline))
        return found

    def called(self, name: str) -> list[str]:
        """The row of this name, or the rows of this method; kept steps where there is no end."""
        if name in self.rows:
            return [name]
        rows = [row for row in self.rows if self.method(row) == name]
        return [row for row in rows if not self.record_of(row).details.kept] or rows

    def method(self, row: str) -> str:
        """The pretext of a row, or what stands in its place."""
        return self.record_of(row).method

    def record_of(self, row: str) -> EvaluationRecord:
        """Any record of a row: its encoder is the same in all but the seed."""
        return next(one.record for c in self.columns for one in self.at(row, c))

    # ---- which cells lead
    @cached_property
    def leading(self) -> set[Place]:
        """The best cell of each column and those that a paired test cannot tell from it.

        Whichever row is the best is chosen by the same numbers, so Holm's correction is over all
        pairs of rows of all columns: of rows that are all equal, one loses its mark in 5 of 100
        tables at most. A cell that cannot be paired with the best is not among them. Nothing leads
        in a column of one row.
        """
        if self.whole:
            return self.whole.leading & self.measured.keys()
        return {
            (row, column)
            for column in self.columns
            if (best := self._best(column))
            for row in self.rows
            if row == best or self._p_of_all_pairs.get((*sorted((row, best)), column), 0) > LEVEL
        }

    @cached_property
    def _p_of_all_pairs(self) -> Mapping[tuple[str, ...], float]:
        """Holm's p-values by the two rows' names, sorted, and the column."""
        if self.whole:
            return self.whole._p_of_all_pairs
        pairs = [
            (a, b, column)
            for column in self.columns
            for a, b in combinations(sorted(r for r in self.rows if self.at(r, column)), 2)
        ]
        found = dict[tuple[str, ...], float]()
        with waiting("the table's pairs of rows", len(pairs)) as wait:
            for a, b, column in pairs:
                if paired := paired_difference(self.at(a, column), self.at(b, column)):
                    found[a, b, column] = paired.p
                wait.done += 1
        return dict(zip(found, holm(list(found.values())), strict=True))

    @property
    def all_pairs(self) -> int:
        """How many pairs the marks are corrected for."""
        return len(self._p_of_all_pairs)

    def _best(self, column: str) -> str | None:
        """The row with the best mean; None for a column of fewer than two."""
        means = {row: cell.mean for row in self.rows if (cell := self.cell(row, column))}
        if len(means) < 2:
            return None
        best_of = min if self.first_in(column).lower else max
        return best_of(means, key=lambda row: means[row])


def _cell(found: Sequence[Measured]) -> Cell:
    mean, seeds = mean_interval([one.value for one in found])
    images = float(np.mean([one.half for one in found]))
    if len(found) == 1:
        return Cell(mean, images, 1, "images", seeds, images)
    if (both := half_over_both(found)) is not None:
        return Cell(mean, both, len(found), "seeds and images", seeds, images)
    return Cell(mean, seeds, len(found), "seeds", seeds, images)
