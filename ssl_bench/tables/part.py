"""A part of a table: some sets, protocols or methods. Names, marks and tests are the whole's.

Fewer comparisons would be corrected for less, so what is left out of sight still counts.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from ssl_bench.errors import UsageError, unknown
from ssl_bench.records.protocols import protocol as installed
from ssl_bench.records.record import EvaluationRecord
from ssl_bench.tables.table import Table


def part_of(
    table: Table,
    data: Sequence[str] = (),
    protocols: Sequence[str] = (),
    methods: Sequence[str] = (),
) -> Table:
    """What a table has of these sets, protocols and methods (or rows); none named: all.

    Raises UsageError for a name that the table lacks, or where nothing is left.
    """
    if not (data or protocols or methods):
        return table
    columns = columns_of(table, data, protocols)
    rows = _rows_of(table, methods)
    measured = {(r, c): table.measured[r, c] for r in rows for c in columns if table.at(r, c)}
    if not measured:
        raise UsageError(f"no number of {' and '.join([*data, *protocols, *methods])}")
    keys = {one.record.key for found in measured.values() for one in found.values()}
    left = {row for row, _ in measured}
    return replace(
        table,
        rows=[row for row in rows if row in left],
        columns=[c for c in columns if any((row, c) in measured for row in rows)],
        measured=measured,
        free=[row for row in table.free if row in left],
        evaluations=[r for r in table.evaluations if r.key in keys],
        controls=[r for r in table.controls if _is_of(r, data, protocols)],
        whole=table,
    )


def beside(table: Table, names: Sequence[str]) -> Table:
    """The table with each row's differences from these rows or methods in place of the baselines'.

    What is tested stays as declared. UsageError for a name that the table lacks.
    """
    return replace(table, against=_rows_of(table, names)) if names else table


def columns_of(table: Table, data: Sequence[str], protocols: Sequence[str]) -> list[str]:
    """The columns of these sets and protocols; UsageError for a name that the table lacks."""
    records = {column: table.first_in(column).record for column in table.columns}
    known = {record.data for record in records.values()}
    for name in data:
        if name not in known:
            raise unknown("set in the table", name, known)
    measured = {name for record in records.values() for name in _names(record)}
    for name in protocols:
        if name not in measured:
            installed(name)  # or it is unknown, or of another version
    return [column for column, record in records.items() if _is_of(record, data, protocols)]


def _is_of(record: EvaluationRecord, data: Collection[str], protocols: Collection[str]) -> bool:
    return (not data or record.data in data) and (
        not protocols or not _names(record).isdisjoint(protocols)
    )


def _names(record: EvaluationRecord) -> set[str]:
    """A protocol with its version or without, or as the table prints it, with its settings."""
    name = record.identity.protocol
    return {name, name.partition("@")[0], record.details.protocol}


def _rows_of(table: Table, methods: Sequence[str]) -> list[str]:
    for name in methods:
        if not table.called(name):
            raise unknown("method", name, {*table.rows, *map(table.method, table.rows)})
    wanted = {row for name in methods for row in table.called(name)}
    return [row for row in table.rows if row in wanted or not methods]
