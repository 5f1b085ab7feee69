"""What stands below a table: what its numbers and marks mean, which images, the controls."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from ssl_bench.records.command import command_of
from ssl_bench.records.record import EvaluationRecord
from ssl_bench.tables.names import data_names
from ssl_bench.tables.published import Published
from ssl_bench.tables.table import Table

LEADS, STALE = "●", "†"
ABOVE_CHANCE = 4  # standard deviations at which a control is not at chance any more


def legend(table: Table, published: Published) -> list[str]:
    """What a reader must know to believe the numbers."""
    return [
        *_marks(table, published),
        *_stale_notes(table),
        *metric_notes(table.evaluations),
        *data_notes(table.evaluations),
        *control_notes(table.controls),
        *published.notes,
    ]


def _marks(table: Table, published: Published) -> Iterator[str]:
    yield _of_cells(table)
    if table.differences:
        used = (cell.test for _, cells in table.differences for cell in cells if cell)
        yield (
            "Differences are paired by seed (*by test image); **bold**: not zero at the 5 % "
            f"level, by Holm's correction for all of them ({', '.join(dict.fromkeys(used))})."
        )
    if table.leading:
        yield (
            f"{LEADS} The best of a column, and what the same tests cannot tell from it (Holm, "
            "for all comparisons with a best one)."
        )
    if published.cells:
        yield "Published: the paper's number, what ours was made otherwise, ours less it."


def _of_cells(table: Table) -> str:
    """The unit of the numbers, and what their intervals are over."""
    units = {k: v for column in table.columns for k, v in table.first_in(column).units.items()}
    other = " and ".join(f"{metric} ({unit})" for metric, unit in units.items())
    text = f"Percent{', but ' + other if other else ''}. Cells: mean ± 95 % interval."
    seeds = sorted({cell.n for cell in table.cells.values() if cell.over == "seeds"})
    if seeds:
        text += f" Over seeds: Student's t, n = {' or '.join(map(str, seeds))}."
    if any(cell.over == "images" for cell in table.cells.values()):
        text += f" *One seed: {single_seed_interval(table.evaluations)}."
    return text


def _stale_notes(table: Table) -> Iterator[str]:
    """Each stale number, why it is so, and the command that renews it."""
    for (row, column), found in table.measured.items():
        for one in found.values():
            if one.stale:
                again = f"`{command_of(one.record)}` makes it anew"
                yield f"{STALE} {row}, {column}: {one.stale}; {again}."


def single_seed_interval(records: Sequence[EvaluationRecord]) -> str:
    """What the interval of a single seed is, by protocol where they differ."""
    kinds = {r.identity.protocol: r.details.interval for r in records}
    if len(set(kinds.values())) == 1:
        return next(iter(kinds.values()))
    by_kind: dict[str, list[str]] = defaultdict(list)
    for protocol, kind in kinds.items():
        by_kind[kind].append(protocol)
    return "; ".join(f"{', '.join(names)} {kind}" for kind, names in by_kind.items())


def metric_notes(records: Sequence[EvaluationRecord]) -> list[str]:
    """What each protocol's number is, unless all are top-1 accuracies."""
    named: dict[str, dict[str, None]] = defaultdict(dict)  # a dict keeps the order, a set does not
    for record in records:
        named[record.identity.protocol] |= dict.fromkeys(record.shown)
    if {metric for metrics in named.values() for metric in metrics} <= {"top1"}:
        return []
    listed = (f"{protocol}: {', '.join(metrics)}" for protocol, metrics in named.items())
    return ["Metrics: " + "; ".join(listed) + "."]


def control_notes(controls: Sequence[EvaluationRecord]) -> list[str]:
    """How each protocol's runs with shuffled training labels stand to chance."""
    by_protocol: dict[str, list[EvaluationRecord]] = defaultdict(list)
    for record in controls:
        by_protocol[record.identity.protocol].append(record)
    notes = []
    for protocol, records in by_protocol.items():
        values = [r.metrics[r.details.metric] for r in records]
        found = [r.details.control for r in records if r.details.control]
        chance = float(np.mean([control.chance for control in found]))
        spread = float(np.mean([control.spread for control in found]))
        worst = max(control.z for control in found)
        verdict = "at chance" if worst < ABOVE_CHANCE else "**ABOVE CHANCE: do not trust the rest**"
        notes.append(
            f"Control, shuffled training labels, {protocol}: {min(values):.1f} to "
            f"{max(values):.1f} over {len(values)} runs, chance {chance:.1f} ± "
            f"{2 * spread:.1f}: {verdict}."
        )
    return notes


def data_notes(records: Sequence[EvaluationRecord]) -> list[str]:
    """What every row has in common: data, number of test images, skipped ones.

    Where protocols see other images of one set, each count is followed by those that it is for.
    """
    notes: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for record, data in zip(records, data_names(records), strict=True):
        notes[data, _image_counts(record)][record.identity.protocol] = None
    sets = Counter(data for data, _ in notes)
    return [
        f"Data: {data}, {count}" + (f" ({', '.join(protocols)})." if sets[data] > 1 else ".")
        for (data, count), protocols in notes.items()
    ]


def _image_counts(record: EvaluationRecord) -> str:
    skipped = len(record.details.skipped_images)
    in_train = len(record.details.duplicates)
    count = f"{record.details.test_images} test images"
    count += f", {skipped} bad images skipped" if skipped else ""
    return count + (f", **{in_train} of them also in train**" if in_train else "")
