"""`bench compare`: all numbers that two methods share, as the table of the records has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ssl_bench.errors import UsageError, unknown
from ssl_bench.evaluation.intervals import Paired
from ssl_bench.tables.measured import Measured, paired_difference
from ssl_bench.tables.table import Table


@dataclass(frozen=True)
class Compared:
    """A number that both methods have: its column and metric, their means, and a − b."""

    column: str
    metric: str
    a: float
    b: float
    digits: int
    difference: Paired


@dataclass(frozen=True)
class Named:
    """What a name stands for: a row, or one run of it, and its numbers by column."""

    row: str
    run: str  # the beginning of the run's key; empty for all runs of the row
    numbers: Mapping[str, Sequence[Measured]]


def compare(table: Table, a: str, b: str, protocol: str | None) -> list[Compared]:
    """All numbers, or those of one protocol, that a and b have on the same images.

    A name is METHOD, its row in the table; METHOD@KEY, one run; or a row's name. Raises UsageError
    for one that is none or several rows, or two without a common number.
    """
    mine, theirs = (_named(table, name, protocol) for name in (a, b))
    found = []
    for column in (column for column in table.columns if column in mine.numbers):
        paired = _difference(table, mine, theirs, column)
        if paired:
            numbers = mine.numbers[column], theirs.numbers[column]
            left, right = (float(np.mean([one.value for one in many])) for many in numbers)
            one = numbers[0][0]
            found.append(Compared(column, one.metric, left, right, one.digits, paired))
    if not found:
        raise UsageError(f"{a} and {b} share no number on the same images and seeds")
    return found


def _difference(table: Table, a: Named, b: Named, column: str) -> Paired | None:
    if not (a.run or b.run):
        return table.difference(a.row, b.row, column)
    # A run beside a method of several seeds is compared with the method's run of the same seed.
    mine, theirs = a.numbers[column], b.numbers.get(column, [])
    if not a.run:
        mine = [one for one in mine if one.seeds in {other.seeds for other in theirs}]
    if not b.run:
        theirs = [one for one in theirs if one.seeds in {other.seeds for other in mine}]
    return paired_difference(mine, theirs)


def _named(table: Table, name: str, protocol: str | None) -> Named:
    method, _, run = ("", "", "") if name in table.rows else name.partition("@")
    rows = table.called(method or name)
    found = {
        row: {
            column: numbers
            for column in table.columns
            if (numbers := [one for one in table.at(row, column) if _is_of(one, run)])
        }
        for row in rows
    }
    found = {row: numbers for row, numbers in found.items() if numbers}
    if not found:
        raise unknown("method", name, {*table.rows, *map(table.method, table.rows)})
    if len(found) > 1:
        raise UsageError(f"{name} is {len(found)} rows: name one, {' or '.join(sorted(found))}")
    ((row, numbers),) = found.items()
    asked = {
        column: many
        for column, many in numbers.items()
        if protocol in (None, many[0].record.identity.protocol.partition("@")[0])
    }
    if not asked:
        raise UsageError(f"{name} has no number of {protocol}")
    return Named(row, run, asked)


def _is_of(one: Measured, run: str) -> bool:
    encoder = one.record.identity.encoder
    return not run or (encoder is not None and encoder.run.startswith(run))


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
    if any(one.difference.adjusted is None for one in compared):
        lines.append("–: exploratory, not in the declared family; its p is not adjusted")
    return "\n".join(lines)
