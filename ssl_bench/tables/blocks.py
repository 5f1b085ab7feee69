"""A wide table is cut into blocks, one below the other, with the layers across."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ssl_bench.tables.names import connected
from ssl_bench.tables.table import Table

WIDE = 8  # columns above which a table is cut by protocol
LETTERS = 100  # of all headings, above which it is if that makes them shorter


@dataclass(frozen=True)
class Block:
    """Columns that stand side by side: what they have in common, and the rest of their names."""

    title: str
    columns: Sequence[str]
    short: Sequence[str]


def blocks(table: Table, wide: int = WIDE) -> list[Block]:
    """The table whole, or, with more than `wide` columns, cut by protocol and data.

    So is one that would say a protocol again and again in a long heading. Columns that share no
    row, because they are layers of other networks, are apart, too.
    """
    titles = {title_and_rest(table, column)[0] for column in table.columns}
    repeats = len(titles) < len(table.columns) and sum(map(len, table.columns)) > LETTERS
    if len(table.columns) <= wide and not repeats:
        return [Block("", table.columns, table.columns)]
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for column in table.columns:
        title, short = title_and_rest(table, column)
        groups[title][column] = short
    return [
        Block(title, part, [short[column] for column in part])
        for title, short in groups.items()
        for part in connected({c: {r for r in table.rows if table.at(r, c)} for c in short})
    ]


def title_and_rest(table: Table, column: str) -> tuple[str, str]:
    """Protocol and data of a column, and its layer and metric."""
    protocol = table.first_in(column).record.details.protocol
    layer, on, data = column.removeprefix(protocol).partition(" on ")
    return protocol + on + data, layer.strip() or protocol


def short_columns(table: Table) -> dict[str, str]:
    """What a figure calls the columns: without settings, where that leaves them apart."""
    short = {}
    for column in table.columns:
        record = table.first_in(column).record
        rest = column.removeprefix(record.details.protocol).strip()
        short[column] = f"{record.identity.protocol}\n{rest}".strip()
    found = [*short.values()]
    return {column: name if found.count(name) == 1 else column for column, name in short.items()}
