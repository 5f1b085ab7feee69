"""`bench compare`: all numbers that two methods share, as the table of the records has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ssl_bench.errors import UsageError, unknown
from ssl_bench.evaluation.intervals import Paired
from ssl_bench.records.record import EvaluationRecord
from ssl_bench.tables.measured import Measured, paired_at_one_seed, paired_difference
from ssl_bench.tables.part import columns_of
from ssl_bench.tables.pretraining import pretraining_of
from ssl_bench.tables.table import Table


@dataclass(frozen=True)
class Compared:
    """A number that both methods have: its column and metric, their means, and a − b.

    `part`: of the seeds that both have, where one has more.
    """

    column: str
    metric: str
    a: float
    b: float
    digits: int
    difference: Paired
    part: bool = False


@dataclass(frozen=True)
class Named:
    """What a name stands for: a row, or one run of it, and its numbers by column."""

    row: str
    run: str  # the beginning of the run's key; empty for all runs of the row
    numbers: Mapping[str, Sequence[Measured]]


def compare(
    table: Table, a: str, b: str, data: Sequence[str] = (), protocols: Sequence[str] = ()
) -> list[Compared]:
    """All numbers, or those of some sets or protocols, that a and b have on the same images.

    A name is METHOD, its row in the table; METHOD@KEY, one run; or a row's name. Raises UsageError
    for one that is none or several rows, or two without a common number.
    """
    columns = columns_of(table, data, protocols)
    mine, theirs = (_named(table, name, columns) for name in (a, b))
    for name, found in ((a, mine), (b, theirs)):
        if not found.numbers:
            raise UsageError(f"{name} has no number of {' and '.join([*data, *protocols])}")
    found = []
    for column in (column for column in table.columns if column in mine.numbers):
        all_of = mine.numbers[column], theirs.numbers.get(column, [])
        one, other = _of_shared_seeds(*all_of)
        paired = (
            paired_difference(one, other)
            if mine.run or theirs.run
            else table.difference(mine.row, theirs.row, column) or paired_at_one_seed(*all_of)
        )
        if paired:
            part = (len(one), len(other)) != (*map(len, all_of),)
            means, first = (_mean(one), _mean(other)), one[0]
            found.append(Compared(column, first.metric, *means, first.digits, paired, part))
    if not found:
        raise UsageError(f"{a} and {b} share no number on the same images and seeds")
    return found


def _mean(numbers: Sequence[Measured]) -> float:
    return float(np.mean([one.value for one in numbers]))


def _of_shared_seeds(
    a: Sequence[Measured], b: Sequence[Measured]
) -> tuple[Sequence[Measured], Sequence[Measured]]:
    """Those whose seeds both have; two single ones as they are."""
    if len(a) == len(b) == 1:
        return a, b
    shared = {one.seeds for one in a} & {one.seeds for one in b}
    mine, theirs = ([one for one in many if one.seeds in shared] for many in (a, b))
    return mine, theirs


def _named(table: Table, name: str, columns: Sequence[str]) -> Named:
    """What a name stands for, with its numbers in these columns."""
    row, run = _row_and_run(table, name)
    numbers = {c: [one for one in table.at(row, c) if _is_of(one.record, run)] for c in columns}
    return Named(row, run, {column: found for column, found in numbers.items() if found})


def _row_and_run(table: Table, name: str) -> tuple[str, str]:
    """The row of a name, and the beginning of the one run's key that it may end with."""
    rows, run = table.called(name), ""
    if not rows:  # a run of whichever row, kept on the way or not
        method, _, run = name.partition("@")
        rows = [row for row in table.rows if method in (row, table.method(row))]
    runs = {row: _runs(table, row, run) for row in rows}
    runs = {row: keys for row, keys in runs.items() if keys or not run}
    if not runs:
        raise unknown("method", name, {*table.rows, *map(table.method, table.rows)})
    choices = " or ".join(_choice(row, keys) for row, keys in sorted(runs.items()))
    if len(runs) > 1:
        raise UsageError(f"{name} is {len(runs)} rows: name one, {choices}")
    ((row, keys),) = runs.items()
    if run and len(keys) > 1:
        raise UsageError(f"{name} is {len(keys)} runs: name one, {choices}")
    return row, run


def _runs(table: Table, row: str, beginning: str) -> list[str]:
    """A row's runs as METHOD@KEY: those of the workspace whose key begins so."""
    records = [one.record for column in table.columns for one in table.at(row, column)]
    runs = sorted({r.run() for r in records if r.pretraining and _is_of(r, beginning)})
    return [f"{table.method(row)}@{run}" for run in runs]


def _choice(row: str, runs: Sequence[str]) -> str:
    """`autoencoder steps=2 (autoencoder@3f9a2c1b5d7e)`."""
    return f"{row} ({', '.join(runs)})" if runs else row


def _is_of(record: EvaluationRecord, run: str) -> bool:
    """Whether its encoder is of the run whose key begins so, KEY or KEY:STEP."""
    key, _, step = run.partition(":")
    kept, encoder = record.details.kept, record.identity.encoder
    if step:
        return kept is not None and kept.run.startswith(key) and str(kept.step) == step
    return not run or (encoder is not None and encoder.run.startswith(run))


def with_pretraining(table: Table, a: str, b: str) -> tuple[str, str]:
    """Both names with their encoders' images and length of training, where these differ."""
    mine, theirs = (pretraining_of(table, _row_and_run(table, name)[0]) for name in (a, b))
    if not mine or not theirs or mine == theirs:
        return a, b
    return f"{a}, {mine}", f"{b}, {theirs}"


def comparison_text(a: str, b: str, compared: Sequence[Compared]) -> str:
    """A line for each number: a, b, a − b, p and Holm's p, metric, test, its unit, what over."""
    width = max(len(one.column) for one in compared)
    heads = f"{'A':>7}  {'B':>7}  {'A − B':>16}  {'p':>8}  {'p, Holm':>8}  test"
    lines = [f"A: {a}", f"B: {b}", f"{'':{width}}  {heads}"]
    for one in compared:
        paired, digits = one.difference, one.digits + 1  # one more than in a table
        gap = f"{paired.mean:+.{digits}f} ± {paired.half:.{digits}f}"
        means = f"{one.a:7.{digits}f}  {one.b:7.{digits}f}"
        adjusted = "–" if paired.adjusted is None else f"{paired.adjusted:.2g}"
        tested = f"{paired.p:8.2g}  {adjusted:>8}  {one.metric}, {paired.basis}"
        lines.append(f"{one.column:{width}}  {means}  {gap:>16}  {tested}")
    if any(one.part for one in compared):
        lines.append("one has more seeds than the other: numbers are of those that both have")
    if any(one.difference.adjusted is None for one in compared):
        lines.append("–: exploratory, not in the declared family; its p is not adjusted")
    return "\n".join(lines)
