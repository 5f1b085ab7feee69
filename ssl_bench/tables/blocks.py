"""A wide table is cut into blocks, one below the other, with the layers across."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ssl_bench.tables.table import Table

WIDE = 8  # columns above which a table is cut by protocol


@dataclass(frozen=True)
class Block:
    """Columns that stand side by side: what they have in common, and the rest of their names."""

    title: str
    columns: Sequence[str]
    short: Sequence[str]


def blocks(table: Table, wide: int = WIDE) -> list[Block]:
    """The table whole, or, with more than `wide` columns, cut by protocol and data.

    Columns that share no row, because they are layers of other networks, are apart, too.
    """
    if len(table.columns) <= wide:
        return [Block("", table.columns, table.columns)]
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for column in table.columns:
        title, short = _title_and_rest(table, column)
        groups[title].append((column, short))
    return [
        Block(title, *zip(*part, strict=True))
        for title, columns in groups.items()
        for part in _sharing_rows(table, columns)
    ]


def _title_and_rest(table: Table, column: str) -> tuple[str, str]:
    """Protocol and data of a column, and its layer and metric."""
    protocol = table.first_in(column).record.details["protocol"]
    layer, on, data = column.removeprefix(protocol).partition(" on ")
    return protocol + on + data, layer.strip() or protocol


def _sharing_rows(table: Table, columns: Sequence[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """The columns in parts that have no row in common."""
    parts: list[tuple[set[str], list[tuple[str, str]]]] = []
    for column in columns:
        rows = {row for row in table.rows if table.at(row, column[0])}
        # A column may join parts that had nothing in common until it came.
        joined = [part for part in parts if part[0] & rows]
        parts = [part for part in parts if part not in joined]
        earlier = [each for _, held in joined for each in held]
        parts.append((rows.union(*(held for held, _ in joined)), [*earlier, column]))
    return [held for _, held in parts]
