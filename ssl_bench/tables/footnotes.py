"""What stands below a table: what its numbers and marks mean, which images, the controls."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from ssl_bench.errors import plain
from ssl_bench.records.command import command_of
from ssl_bench.records.record import EvaluationRecord
from ssl_bench.tables.names import data_names
from ssl_bench.tables.pretraining import pretraining_notes
from ssl_bench.tables.published import Published
from ssl_bench.tables.table import Table

LEADS, STALE, CHANCE = "●", "†", "chance"
ABOVE_CHANCE = 4  # standard deviations at which a control is not at chance any more


def legend(table: Table, published: Published) -> list[str]:
    """What a reader must know to believe the numbers."""
    return [
        *_marks(table, published),
        *_stale_notes(table),
        *([f"All networks made here: {table.shared}."] if table.shared else []),
        *pretraining_notes(table),
        *metric_notes(table.evaluations),
        *data_notes(table.evaluations),
        *control_notes(table.controls),
        *published.notes,
    ]


def _marks(table: Table, published: Published) -> Iterator[str]:
    yield _of_cells(table)
    if table.differences:
        yield from _of_differences(table)
    if table.leading:
        yield (
            f"{LEADS} The best of a column, and what cannot be told from it, by Holm's correction "
            f"for all {table.all_pairs} pairs of rows in the table: of equal rows, one loses its "
            "mark in 5 of 100 tables at most."
        )
    if whole := table.whole:
        yield (
            f"A part of a table of {len(whole.rows)} rows and {len(whole.columns)} columns: names, "
            "marks and tests are those of the whole."
        )
    if table.chance:
        yield f"*{CHANCE}*: what is scored without a look at the test images (docs/tables.md)."
    if published.cells:
        yield "Published: the paper's number, what ours was made otherwise, ours less it."


def _of_cells(table: Table) -> str:
    """The unit of the numbers, and what their intervals are over."""
    units = {k: v for column in table.columns for k, v in table.first_in(column).units.items()}
    other = " and ".join(f"{metric} ({unit})" for metric, unit in units.items())
    text = f"Percent{', but ' + other if other else ''}. Cells: mean ± 95 % interval."
    seeds = sorted({cell.n for cell in table.cells.values() if cell.n > 1})
    over = {cell.over for cell in table.cells.values()}
    if seeds:
        text += f" Of the method, n = {' or '.join(map(str, seeds))} seeds: "
        text += "over seeds and test images." if "seeds and images" in over else "over seeds alone."
    if {"seeds", "seeds and images"} <= over:
        text += f" Over seeds alone: {', '.join(_protocols_over_seeds(table))}."
    if "images" in over:
        text += f" *Of these weights, one seed: {single_seed_interval(table.evaluations)}."
    return text


def _protocols_over_seeds(table: Table) -> dict[str, None]:
    """Those with a cell of which no single image is known."""
    columns = (column for (_, column), cell in table.cells.items() if cell.over == "seeds")
    return dict.fromkeys(table.first_in(column).record.identity.protocol for column in columns)


def _of_differences(table: Table) -> Iterator[str]:
    """What differences are paired by, which are tested, and how many."""
    found = [cell for _, cells in table.differences for cell in cells if cell]
    tested = [cell for cell in found if cell.adjusted is not None]
    text = "Differences are paired by seed and test image (*of these weights: by image)."
    if tested:
        tests = ", ".join(dict.fromkeys(cell.test for cell in tested))
        default = "comparisons with baselines, at the first column of each evaluation"
        family = "declared" if table.family.tests else default
        count = len(table.declared)
        by = f", by Holm's correction for the {count} {family}" if count > 1 else ""
        text += f" **Bold**: not zero at the 5 % level{by} ({tests})."
    if len(tested) < len(found):
        text += " (In brackets): exploratory, not adjusted and not tested."
    if not tested and table.family.tests:
        text += " Of what was declared nothing was measured."
    yield text
    whole = table.whole or table
    for contrast in table.family.contrasts:
        a, b = whole.called(contrast.a), whole.called(contrast.b)
        if not any(x in a and y in b for x, y, _ in table.declared):
            yield f"Declared, but not measured: {plain(contrast.a)} − {plain(contrast.b)}."


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
