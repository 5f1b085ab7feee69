"""Tables, made from records only: methods down, evaluations across, intervals in every cell.

A cell is the mean ± 95 % interval with n. With two seeds or more the interval is Student's over
the seeds; with one it is over the test images, marked with an asterisk. Below the table stand the
differences to the baselines, paired by seed (equal seeds share their starting weights, splits and
label draws) or, with one seed each, by test image.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd

from ssl_bench.errors import DataError, plain
from ssl_bench.evaluation.intervals import LEVEL, Paired, holm, mean_interval
from ssl_bench.files import write_atomically
from ssl_bench.records.command import command_of
from ssl_bench.records.record import EvaluationRecord
from ssl_bench.tables.comparison import Measured, difference
from ssl_bench.tables.footnotes import control_notes, data_notes, interval_of_one, metric_notes
from ssl_bench.tables.names import (
    BASELINES,
    baseline_of,
    column_names,
    column_order,
    rank,
    row_names,
)
from ssl_bench.tables.published import deviations, published_for

TEX = {"\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}"}
WIDE = 8  # columns above which a table is cut by protocol
LEADS, STALE = "●", "†"


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

    def text(self, digits: int = 1, plus_minus: str = "±", with_n: bool = False) -> str:
        mark = "*" if self.over == "images" else ""
        count = f" (n = {self.n})" if with_n else ""
        return f"{self.mean:.{digits}f} {plus_minus} {self.half:.{digits}f}{mark}{count}"


Place = tuple[str, str]  # row and column


@dataclass(frozen=True)
class Block:
    """Columns that stand side by side: what they have in common, and the rest of their names."""

    title: str
    columns: Sequence[str]
    short: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows and columns in order, and what was measured, by seeds, in each cell."""

    rows: Sequence[str]
    columns: Sequence[str]
    measured: Mapping[Place, Mapping[tuple[int, int], Measured]]
    footnotes: Sequence[str]
    single: str = "over the test images, Wilson's"  # what the interval of a single seed is
    free: Sequence[str] = ()  # rows that need no encoder: baselines too

    @classmethod
    def of(cls, records: Sequence[EvaluationRecord], workspace: Path | None = None) -> "Table":
        """The table of all these evaluations; records of the same cell are its seeds.

        With the `workspace` that holds their predictions, single seeds are compared over images.
        """
        controls = [r for r in records if r.identity.control is not None]
        records = [r for r in records if r.identity.control is None]
        shown = [(record, metric) for record in records for metric in record.shown]
        several = [record for record, _ in shown]
        rows, columns = row_names(several), column_names(shown)
        measured: dict[Place, dict[tuple[int, int], Measured]] = defaultdict(dict)
        for (record, metric), row, column in zip(shown, rows, columns, strict=True):
            one = Measured(record, metric, workspace)
            measured[row, column][one.seeds] = one
        alone = [r.identity.encoder is None for r in several]
        free = {row for row, a in zip(rows, alone, strict=True) if a}
        first = dict(zip(reversed(rows), reversed(several), strict=True))  # each row's first record
        ordered = sorted(first, key=lambda r: (r not in free, rank(first[r]), rows.index(r)))
        order = column_order(several, columns)
        notes = [*metric_notes(shown), *data_notes(records), *control_notes(controls)]
        return cls(
            ordered, order, dict(measured), notes, interval_of_one(records),
            [row for row in ordered if row in free],
        )  # fmt: skip

    def at(self, row: str, column: str) -> list[Measured]:
        """What was measured in a cell, a number for each seed."""
        return list(self.measured.get((row, column), {}).values())

    def cell(self, row: str, column: str) -> Cell | None:
        """None where nothing was measured."""
        found = self.at(row, column)
        if not found:
            return None
        mean, half = mean_interval([one.value for one in found])
        images = float(np.mean([one.half for one in found]))
        if len(found) > 1:
            return Cell(mean, half, len(found), "seeds", images)
        return Cell(mean, images, 1, "images", images)

    def difference(self, row: str, baseline: str, column: str) -> Paired | None:
        """The paired difference; None where there are no pairs. See comparison.py."""
        return difference(self.at(row, column), self.at(baseline, column))

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
        for place, method in enumerate(BASELINES):
            candidates = {row: one for row, one in encoders.items() if one.method == method}
            for row, one in encoders.items():
                baseline = baseline_of(one, candidates)
                if baseline and rank(one) > place:
                    yield row, baseline

    def _record(self, row: str) -> EvaluationRecord:
        """Any record of a row: its encoder is the same in all but the seed."""
        return next(one.record for c in self.columns for one in self.at(row, c))

    @cached_property
    def leading(self) -> set[Place]:
        """The best cell of each column and those that a paired test cannot tell from it.

        Holm's correction is over all comparisons with a best cell in the table; a cell that cannot
        be paired with it is not among them. Nothing leads in a column of one row.
        """
        best, places, found = list[Place](), list[Place](), list[Paired | None]()
        for column in self.columns:
            cells = {row: self.cell(row, column) for row in self.rows}
            means = {row: cell.mean for row, cell in cells.items() if cell}
            if len(means) < 2:
                continue
            least = self.at_any(column).lower
            top = (min if least else max)(means, key=lambda row: means[row])
            best.append((top, column))
            for row in means.keys() - {top}:
                places.append((row, column))
                found.append(self.difference(top, row, column))
        corrected = _corrected(found)
        ties = [
            q for q, paired in zip(places, corrected, strict=True) if paired and paired.p > LEVEL
        ]
        return {*best, *ties}

    def at_any(self, column: str) -> Measured:
        """Any number of a column: they share unit, digits and direction."""
        return next(self.at(row, column)[0] for row in self.rows if self.at(row, column))

    # ---- forms

    def markdown(self) -> str:
        """GitHub Markdown: the table, paired differences, published numbers, what marks mean.

        A wide table is cut into blocks: one below the other, with the layers across.
        """
        parts = [part for block in self.blocks() for part in self._grids(block)]
        return "\n\n".join([*parts, "\n".join(self.legend())])

    @cached_property
    def published(self) -> tuple[dict[Place, str], list[str]]:
        """Published numbers by cell, each with its footnote and ours less it; the footnotes."""
        cells, notes = dict[Place, str](), dict[str, int]()
        for row in self.rows:
            for column in self.columns:
                cell, found = self.cell(row, column), self.at(row, column)
                known = published_for(found[0]) if found else None
                if cell is None or known is None:
                    continue
                value, source, number = known
                unlike = "; ".join(deviations(found[0], source, number)) or "nothing known"
                note = notes.setdefault(f"{source.name}. Here: {unlike}.", len(notes) + 1)
                gap = f"{cell.mean - value:+.{found[0].digits}f}".replace("-", "−")
                cells[row, column] = f"{value:g} [{note}] ({gap})"
        return cells, [f"[{n}] {text}" for text, n in notes.items()]

    def beside(self, block: Block) -> list[tuple[str, list[str]]]:
        """The published numbers of a block, by row."""
        cells, _ = self.published
        lines = [(row, [cells.get((row, c), "–") for c in block.columns]) for row in self.rows]
        return [line for line in lines if any((line[0], c) in cells for c in block.columns)]

    def blocks(self, wide: int = WIDE) -> list[Block]:
        """The table whole, or, with more than `wide` columns, cut by protocol and data.

        Columns that share no row, because they are layers of other networks, are apart, too.
        """
        if len(self.columns) <= wide:
            return [Block("", self.columns, self.columns)]
        groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for column in self.columns:
            title, short = self._halves(column)
            groups[title].append((column, short))
        return [
            Block(title, *zip(*part, strict=True))
            for title, columns in groups.items()
            for part in self._sharing_rows(columns)
        ]

    def _halves(self, column: str) -> tuple[str, str]:
        """Protocol and data of a column, and its layer and metric."""
        protocol = self.at_any(column).record.details.protocol
        layer, on, data = column.removeprefix(protocol).partition(" on ")
        return protocol + on + data, layer.strip() or protocol

    def _sharing_rows(self, columns: Sequence[tuple[str, str]]) -> list[list[tuple[str, str]]]:
        """The columns in parts that have no row in common."""
        parts: list[tuple[set[str], list[tuple[str, str]]]] = []
        for column in columns:
            rows = {row for row in self.rows if self.at(row, column[0])}
            joined = [part for part in parts if part[0] & rows]
            parts = [part for part in parts if part not in joined]
            names = [name for _, held in joined for name in held]
            parts.append((rows.union(*(held for held, _ in joined)), [*names, column]))
        return [held for _, held in parts]

    def _grids(self, block: Block) -> list[str]:
        """The table of these columns; below it their differences, and what is published."""
        columns = block.columns
        held = [[self.cell(row, c) for c in columns] for row in self.rows]
        counts = {c.n for r in self.rows for c in map(partial(self.cell, r), self.columns) if c}
        body = [["method", *block.short]]
        body += [
            [row, *(self._text(row, c, len(counts) > 1) for c in columns)]
            for row, cells in zip(self.rows, held, strict=True)
            if any(cells)
        ]
        lines = [["difference", *block.short]]
        places = [self.columns.index(c) for c in columns]
        for name, differences in self.differences:
            if any(differences[i] for i in places):
                lines.append(
                    [name, *(self._signed(differences[i], self.columns[i]) for i in places)]
                )
        known = [["published", *block.short], *([row, *cells] for row, cells in self.beside(block))]
        grids = [_pipes(grid) for grid in (body, lines, known) if len(grid) > 1]
        return [f"**{_escaped(block.title)}**", *grids] if block.title else grids

    def _text(self, row: str, column: str, with_n: bool) -> str:
        cell = self.cell(row, column)
        if cell is None:
            return "–"
        mark = f" {LEADS}" if (row, column) in self.leading else ""
        stale = STALE if any(one.stale for one in self.at(row, column)) else ""
        return cell.text(self.at_any(column).digits, with_n=with_n) + stale + mark

    def _signed(self, cell: Paired | None, column: str) -> str:
        if cell is None:
            return "–"
        digits, mark = self.at_any(column).digits, "*" if cell.over == "images" else ""
        text = f"{cell.mean:+.{digits}f} ± {cell.half:.{digits}f}{mark}".replace("-", "−")
        return f"**{text}**" if cell.p <= LEVEL else text

    def legend(self) -> list[str]:
        """What a reader must know to believe the numbers."""
        cells = [self.cell(r, c) for r in self.rows for c in self.columns]
        seeds = sorted({c.n for c in cells if c and c.over == "seeds"})
        units = {k: v for column in self.columns for k, v in self.at_any(column).units.items()}
        other = " and ".join(f"{metric} ({unit})" for metric, unit in units.items())
        lines = [f"Percent{', but ' + other if other else ''}. Cells: mean ± 95 % interval."]
        if seeds:
            counts = " or ".join(map(str, seeds))
            lines[0] += f" Over seeds: Student's t, n = {counts}."
        if any(c and c.over == "images" for c in cells):
            lines[0] += f" *One seed: {self.single}."
        if self.differences:
            lines.append(
                "Differences are paired by seed (*by test image); **bold**: not zero at the 5 % "
                f"level, by Holm's correction for all of them ({', '.join(self._tests())})."
            )
        if self.leading:
            lines.append(
                f"{LEADS} The best of a column, and what the same tests cannot tell from it (Holm, "
                "for all comparisons with a best one)."
            )
        beside, notes = self.published
        if beside:
            lines.append(
                "Published: the paper's number, what ours was made otherwise, ours less it."
            )
        return [*lines, *self._staleness(), *self.footnotes, *notes]

    def _tests(self) -> list[str]:
        """The names of the tests behind the differences."""
        used = (cell.test for _, cells in self.differences for cell in cells if cell)
        return list(dict.fromkeys(used))

    def _staleness(self) -> list[str]:
        """Each stale number, why it is so, and the command that renews it."""
        notes = []
        for (row, column), found in self.measured.items():
            for one in found.values():
                if one.stale:
                    again = f"`{command_of(one.record)}` makes it anew"
                    notes.append(f"{STALE} {row}, {column}: {one.stale}; {again}.")
        return notes

    def frame(self) -> pd.DataFrame:
        """One line per cell.

        method, evaluation, mean, half_width of the 95 % interval over interval_over (n seeds, or
        images), half_width_images of that over the test images, leading, stale.
        """
        lines = []
        for row in self.rows:
            for column in self.columns:
                cell = self.cell(row, column)
                if cell:
                    stale = any(one.stale for one in self.at(row, column))
                    marks = (row, column) in self.leading, stale
                    numbers = cell.mean, cell.half, cell.n, cell.over, cell.images
                    lines.append((row, column, *numbers, *marks))
        names = ["method", "evaluation", "mean", "half_width", "n", "interval_over"]
        return pd.DataFrame(lines, columns=[*names, "half_width_images", "leading", "stale"])

    def csv(self) -> str:
        """The frame as CSV, at full precision."""
        return self.frame().to_csv(index=False).rstrip("\n")

    def latex(self) -> str:
        """A booktabs table; of a wide one, a table for each block."""
        return "\n\n".join(map(self._tabular, self.blocks()))

    def _tabular(self, block: Block) -> str:
        count = len(block.columns)
        lines = [r"\begin{tabular}{l" + "r" * count + "}", r"\toprule"]
        if block.title:
            lines.append(rf" & \multicolumn{{{count}}}{{c}}{{{_tex(block.title)}}} \\")
            lines.append(rf"\cmidrule{{2-{count + 1}}}")
        lines.append(" & ".join(["method", *map(_tex, block.short)]) + r" \\")
        lines.append(r"\midrule")
        for row in self.rows:
            if any(self.at(row, column) for column in block.columns):
                texts = [self._latex(row, column) for column in block.columns]
                lines.append(" & ".join([_tex(row), *texts]) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])

    def _latex(self, row: str, column: str) -> str:
        cell = self.cell(row, column)
        if cell is None:
            return "--"
        mark = r"^{\dagger}" if any(one.stale for one in self.at(row, column)) else ""
        mark += r"^{\bullet}" if (row, column) in self.leading else ""
        return f"${cell.text(self.at_any(column).digits, chr(92) + 'pm')}{mark}$"

    def write(self, folder: Path) -> list[Path]:
        """Write table.md, table.csv and table.tex; returns their paths."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot write to {folder}: {error.strerror}") from error
        paths = []
        for suffix, form in FORMS.items():
            paths.append(folder / f"table.{suffix}")
            write_atomically(paths[-1], form(self) + "\n")
        return paths


# How a table is written, by the suffix of its file.
FORMS: dict[str, Callable[[Table], str]] = {
    "md": Table.markdown, "csv": Table.csv, "tex": Table.latex,
}  # fmt: skip


def _corrected(found: Sequence[Paired | None]) -> list[Paired | None]:
    """The same with Holm's p-values, over those that are there."""
    p_values = iter(holm([paired.p for paired in found if paired]))
    return [replace(paired, p=next(p_values)) if paired else None for paired in found]


def _escaped(text: str) -> str:
    return plain(text).replace("\\", "\\\\").replace("|", "\\|")


def _pipes(lines: Sequence[Sequence[str]]) -> str:
    lines = [[_escaped(text) for text in line] for line in lines]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    padded = [
        "| "
        + " | ".join(
            text.ljust(w) if i == 0 else text.rjust(w)
            for i, (text, w) in enumerate(zip(line, widths, strict=True))
        )
        + " |"
        for line in lines
    ]
    rule = "|".join(["", "-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:]), ""])
    return "\n".join([padded[0], rule, *padded[1:]])


def _tex(text: str) -> str:
    text = "".join(TEX.get(c, "\\" + c if c in "&%$#_{}" else c) for c in plain(text))
    return text.replace("−", "--")
