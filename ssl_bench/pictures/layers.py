"""`bench plot layers`: a number by layer, from the image upwards, a line a row.

The field's figure, of Zhang et al. (ECCV 2016) and whoever measured frozen features after them.
From records only; a panel a protocol and set; bands are the table's 95 % intervals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssl_bench.errors import UsageError
from ssl_bench.pictures.style import CHANCE, INK, UNTRAINED, looks, styled, wrapped
from ssl_bench.tables.blocks import blocks
from ssl_bench.tables.table import Table

PANEL = (4.2, 3.0)  # inches
LETTER = 0.062  # inches, of a name's mean letter
NAME = 36  # letters of a line of a name


@dataclass(frozen=True)
class Panel:
    """Columns of one protocol, set and metric, by layer."""

    title: str
    columns: Mapping[str, str]


def panels_of(table: Table) -> list[Panel]:
    """Those with two layers or more. UsageError where there is none."""
    panels = []
    for block in blocks(table, wide=0):
        by_metric = dict[str, dict[str, str]]()
        for column in block.columns:
            one = table.first_in(column)
            by_metric.setdefault(one.metric, {})[one.record.column] = column
        panels += [Panel(block.title, each) for each in by_metric.values() if len(each) > 1]
    if not panels:
        raise UsageError("nothing was measured at two layers: `bench linear-probe --layers`")
    return panels


@styled
def draw_layers(table: Table) -> Figure:
    """Two panels side by side, with one legend of the rows for all."""
    panels = panels_of(table)
    rows = [row for row in table.rows if any(_points(table, row, panel) for panel in panels)]
    look = _looks(table, rows, panels)
    names = {row: wrapped(row, NAME) for row in rows}
    margin = LETTER * max(len(line) for name in names.values() for line in name.split("\n")) + 0.5
    across = min(2, len(panels))
    down = -(-len(panels) // across)
    size = PANEL[0] * across + margin, max(PANEL[1] * down, 0.17 * len(rows) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = [*figure.subplots(down, across, squeeze=False).flat]
    for axis in axes:
        axis.set_axis_off()
    for axis, panel in zip(axes, panels, strict=False):
        _draw(axis, table, panel, look)
    handles = [Line2D([], [], label=names[row], **look[row]) for row in rows]
    if any(column in table.chance for panel in panels for column in panel.columns.values()):
        handles.append(Line2D([], [], label="chance", **CHANCE))
    figure.legend(handles=handles, loc="outside right center")
    return figure


def _points(table: Table, row: str, panel: Panel) -> dict[int, Any]:
    """What was measured of a row, by the place of its layer."""
    cells = enumerate(table.cell(row, column) for column in panel.columns.values())
    return {place: cell for place, cell in cells if cell}


def _looks(table: Table, rows: Sequence[str], panels: Sequence[Panel]) -> dict[str, dict[str, Any]]:
    """Colours for what was trained; ink, broken, with a marker each, for what was not."""
    columns = [column for panel in panels for column in panel.columns.values()]
    floors = {row for column in columns for row in table.untrained(column)}
    found = looks(row for row in rows if row not in floors)
    for row, look in looks(floor for floor in rows if floor in floors).items():
        found[row] = {**look, **UNTRAINED, "markerfacecolor": "white"}
    return {row: found[row] for row in rows}


def _draw(axis: Any, table: Table, panel: Panel, look: Mapping[str, Mapping[str, Any]]) -> None:
    for row, own in look.items():
        points = _points(table, row, panel)
        places, cells = [*points], [*points.values()]
        low, high = ([c.mean + side * c.half for c in cells] for side in (-1, 1))
        axis.plot(places, [c.mean for c in cells], **own)
        axis.fill_between(places, low, high, color=own["color"], alpha=0.12, linewidth=0)
    known = [
        (place, table.chance[column])
        for place, column in enumerate(panel.columns.values())
        if column in table.chance
    ]
    if known:
        axis.plot(*zip(*known, strict=True), **CHANCE)
    axis.set_axis_on()
    axis.grid(axis="y")
    axis.set_xticks(range(len(panel.columns)), [wrapped(name, 16, 2) for name in panel.columns])
    axis.set_xlabel("layer, from the image upwards")
    first = next(iter(panel.columns.values()))
    axis.set_ylabel(f"{table.quantity(first)}\nmean, band: 95 % interval", color=INK)
    axis.set_title(wrapped(panel.title, 60))
