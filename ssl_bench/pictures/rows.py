"""`bench plot rows`, `bench plot differences`: a line a row, a panel a headline column.

From records only: the means and 95 % intervals of the table, and the differences that it tests.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssl_bench.errors import UsageError
from ssl_bench.evaluation.intervals import Paired
from ssl_bench.pictures.style import (
    CHANCE,
    COLOURS,
    GREY,
    INK,
    UNTRAINED,
    looks,
    styled,
    wrapped,
)
from ssl_bench.tables.blocks import short_columns
from ssl_bench.tables.table import Cell, Table

ACROSS = 4  # panels side by side
PANEL, LINE = 2.0, 0.2  # inches: a panel's width, a row's height
LETTER = 0.062  # inches, of a name's mean letter
NAME = 44  # letters of a line of a name, and half as many again beside one or two panels


@styled
def draw_rows(table: Table) -> Figure:
    """The rows of each headline column by their means, with 95 % intervals."""
    columns = table.headlines
    rows = [row for row in table.rows if any(table.cell(row, column) for column in columns)]
    figure, panels = _panels(rows, columns)
    look = looks(rows)
    for column, axis in panels.items():
        floors = table.untrained(column)
        for place, row in enumerate(rows):
            if cell := table.cell(row, column):
                colour = INK if row in floors else look[row]["color"]
                _interval(axis, place, cell, colour, look[row]["marker"], cell.n > 1)
        # Of several networks each has a floor of its own: no line is that of all rows.
        for row in floors if len(floors) == 1 else ():
            axis.axvline(table.cells[row, column].mean, linewidth=0.8, zorder=0, **UNTRAINED)
        if column in table.chance:
            axis.axvline(table.chance[column], zorder=0, **CHANCE)
        _entitle(axis, table, column)
        axis.set_xlabel(f"{table.quantity(column)}\nmean and 95 % interval")
    drawn = [cell for row in rows for c in columns if (cell := table.cell(row, c))]
    _legend(figure, [*_kinds_of_rows(drawn), *_lines(table, columns)])
    return figure


def _kinds_of_rows(cells: Sequence[Cell]) -> list[Any]:
    kinds = {cell.n > 1: cell.over for cell in cells}
    texts = {True: "several seeds, interval over {}", False: "one seed, interval over {}"}
    over = {many: kinds[many].replace("images", "test images") for many in kinds}
    return [_mark(texts[many].format(over[many]), many) for many in sorted(kinds, reverse=True)]


def _lines(table: Table, columns: Sequence[str]) -> list[Any]:
    """The lines from top to bottom that some panel has."""
    found = []
    if any(len(table.untrained(column)) == 1 for column in columns):
        found.append(Line2D([], [], linewidth=0.8, label="untrained", **UNTRAINED))
    if any(column in table.chance for column in columns):
        found.append(Line2D([], [], label="chance", **CHANCE))
    return found


@styled
def draw_differences(table: Table) -> Figure:
    """The declared differences, with 95 % intervals and zero. UsageError where there is none."""
    found = {place: table.difference(*place) for place in table.declared}
    columns = [c for c in table.columns if any(c == column for *_, column in found)]
    # A part of a table may lack one of the two.
    there = [(a, b) for a, b, _ in found if {a, b} <= {*table.rows}]
    # A long one breaks at the minus, which stands alone on no line.
    longest = _letters(columns)
    breaks = {pair: "\n" if sum(map(len, pair)) + 3 > longest else " " for pair in there}
    pairs = {(a, b): f"{a}\u00a0−{space}{b}" for (a, b), space in breaks.items()}
    if not (columns and pairs):
        raise UsageError("no difference is tested: a suite declares them, see docs/tables.md")
    figure, panels = _panels([*pairs.values()], columns)
    for column, axis in panels.items():
        for place, pair in enumerate(pairs):
            if paired := found.get((*pair, column)):
                _difference(axis, place, paired)
        axis.axvline(0, color=INK, linewidth=0.8, zorder=0)
        _entitle(axis, table, column)
        axis.set_xlabel(f"difference, {table.quantity(column)}\n95 % interval, not adjusted")
    _legend(figure, _kinds_of_differences([one for one in found.values() if one]))
    return figure


def _difference(axis: Any, place: int, paired: Paired) -> None:
    colour = COLOURS[0] if paired.clear else GREY
    _interval(axis, place, paired, colour, "s" if paired.n > 1 else "D", paired.clear)


def _kinds_of_differences(found: Sequence[Paired]) -> list[Any]:
    """What filled and hollow marks say, and which are of one seed, of those that are there."""
    tested = "by Holm's correction"
    texts = {
        True: f"not zero at the 5 % level, {tested}",
        False: f"not told apart from zero, {tested}",
    }
    kinds = {(one.clear, one.n > 1) for one in found}
    seeds = {True: "several seeds", False: "one seed: these weights"}
    return [
        _mark(f"{texts[clear]}; {seeds[many]}", clear, "s" if many else "D",
              COLOURS[0] if clear else GREY)
        for clear, many in sorted(kinds, reverse=True)
    ]  # fmt: skip


# ---- what both have in common
def _panels(names: Sequence[str], columns: Sequence[str]) -> tuple[Figure, Mapping[str, Any]]:
    """A panel for each column, in lines of four; the names stand before each line."""
    shown = [wrapped(name, _letters(columns)) for name in names]
    # All rows are as high as the highest, so that no name lies on the next.
    lines = len(names) * (1 + 0.6 * max(name.count("\n") for name in shown))
    margin = LETTER * max(len(part) for name in shown for part in name.split("\n"))
    across = min(ACROSS, len(columns))
    down = -(-len(columns) // across)
    figure = Figure(
        figsize=(PANEL * across + margin + 0.3, down * (LINE * lines + 1.1) + 0.4),
        layout="constrained",
    )
    axes = [*figure.subplots(down, across, sharey=True, squeeze=False).flat]
    for axis in axes:
        axis.set_axis_off()
    panels = dict(zip(columns, axes, strict=False))
    for axis in panels.values():
        axis.set_axis_on()
        axis.set_yticks(range(len(names)), shown)
        axis.set_ylim(len(names) - 0.5, -0.5)  # the first name above
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
        axis.grid(axis="both")
    return figure, panels


def _letters(columns: Sequence[str]) -> int:
    return NAME if len(columns) > 2 else NAME * 3 // 2


def _interval(
    axis: Any, place: int, one: Cell | Paired, colour: str, marker: str, filled: bool
) -> None:
    axis.errorbar(
        one.mean, place, xerr=one.half, color=colour, marker=marker, linewidth=1.2, capsize=2,
        markerfacecolor=colour if filled else "white", markersize=5,
    )  # fmt: skip


def _entitle(axis: Any, table: Table, column: str) -> None:
    axis.set_title(wrapped(short_columns(table)[column], 30), pad=4)


def _mark(text: str, filled: bool, marker: str = "o", colour: str = GREY) -> Line2D:
    face = colour if filled else "white"
    return Line2D([], [], color=colour, marker=marker, markerfacecolor=face, label=text)


def _legend(figure: Figure, handles: Sequence[Any]) -> None:
    wide = LETTER * max(len(handle.get_label()) for handle in handles) + 0.7
    # One that is wider than the figure would be cut.
    figure.set_figwidth(max(figure.get_figwidth(), wide))
    columns = 2 if len(handles) > 2 and 2 * wide < figure.get_figwidth() else 1
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
