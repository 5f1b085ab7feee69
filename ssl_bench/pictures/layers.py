"""`bench plot layers`: a number by layer, from the image upwards, a line a row.

The field's figure, of Zhang et al. (ECCV 2016) and whoever measured frozen features after them.
From records only; a panel a protocol and set; bands are the table's 95 % intervals. Each line has
its name at its end. Of a training whose encoders were kept on the way the last one is drawn:
`bench plot course` draws them all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ssl_bench.errors import UsageError
from ssl_bench.pictures.style import CHANCE, INK, UNTRAINED, looks, styled, wrapped
from ssl_bench.tables.blocks import blocks
from ssl_bench.tables.names import step_mark
from ssl_bench.tables.table import Table

PANEL = (4.2, 3.0)  # inches
WIDEST = 14.0  # inches of a figure, above which panels stand one below the other
LETTER, LINE = 0.062, 0.15  # inches, of a name's mean letter and of its line
NAME = 36  # letters of a line of a name
BESIDE = 1.1  # of an axis' width, where names begin


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
    """Two panels side by side where they have room; the names of the lines at their ends."""
    panels = panels_of(table)
    last = _last_on_the_way(table)
    rows = [row for row in last if any(_points(table, row, panel) for panel in panels)]
    look = _looks(table, rows, panels)
    names = [line for row in rows for line in wrapped(row, NAME).split("\n")]
    wide = PANEL[0] + LETTER * max(map(len, names)) + 0.3
    high = max(PANEL[1], LINE * (len(names) + 1) + 0.9)
    across = 2 if len(panels) > 1 and 2 * wide <= WIDEST else 1
    down = -(-len(panels) // across)
    figure = Figure(figsize=(wide * across, high * down), layout="constrained")
    axes = [*figure.subplots(down, across, squeeze=False).flat]
    for axis in axes:
        axis.set_axis_off()
    for axis, panel in zip(axes, panels, strict=False):
        _draw(axis, table, panel, look)
        _name_lines(axis, table, panel, look, high - 0.9)
    return figure


def _last_on_the_way(table: Table) -> list[str]:
    """The rows without those of a training that was kept, or ended, at a later step."""
    latest: dict[str, tuple[int, str]] = {}
    for row in table.rows:
        record = table.record_of(row)
        kept, mark = record.details.kept, step_mark(record)
        step = kept.step if kept else record.pretraining.get("steps", 0)
        name = row.replace(mark, "") if mark else row
        latest[name] = max(latest.get(name, (0, row)), (step, row))
    found = {row for _, row in latest.values()}
    return [row for row in table.rows if row in found]


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
    found = {row: points for row in look if (points := _points(table, row, panel))}
    alpha = min(0.12, 1 / len(found))  # many bands, one over the other, are a wall
    for row, points in found.items():
        own, cells = look[row], [*points.values()]
        low, high = ([c.mean + side * c.half for c in cells] for side in (-1, 1))
        axis.plot([*points], [c.mean for c in cells], **own)
        axis.fill_between([*points], low, high, color=own["color"], alpha=alpha, linewidth=0)
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


def _name_lines(
    axis: Any, table: Table, panel: Panel, look: Mapping[str, Mapping[str, Any]], high: float
) -> None:
    """Each line's marker and name beside its end, with a thin line from one to the other.

    `high` is the height of the axis in inches.
    """
    ends = {
        wrapped(row, NAME): (max(points), points[max(points)].mean, own)
        for row, own in look.items()
        if (points := _points(table, row, panel))
    }
    known = [
        (i, table.chance[c]) for i, c in enumerate(panel.columns.values()) if c in table.chance
    ]
    if known:
        ends["chance"] = (*known[-1], CHANCE)
    limits = axis.get_ylim()
    axis.set_ylim(limits)  # what stands beside the axis moves none
    names = sorted(ends, key=lambda name: -ends[name][1])
    unit = (limits[1] - limits[0]) / high
    sizes = [LINE * unit * (name.count("\n") + 1) for name in names]
    beside = axis.get_yaxis_transform()
    for name, at in zip(names, apart([ends[n][1] for n in names], sizes, *limits), strict=True):
        place, mean, own = ends[name]
        thin = {"arrowstyle": "-", "color": own["color"], "linewidth": 0.6, "shrinkA": 0}
        axis.annotate("", (place, mean), (BESIDE, at), textcoords=beside, arrowprops=thin)
        if marker := own.get("marker"):
            axis.scatter(
                BESIDE, at, s=16, marker=marker, transform=beside, clip_on=False, zorder=3,
                edgecolor=own["color"], facecolor=own.get("markerfacecolor", own["color"]),
            )  # fmt: skip
        axis.text(BESIDE + 0.03, at, name, transform=beside, va="center", color=INK)


def apart(wanted: Sequence[float], sizes: Sequence[float], low: float, high: float) -> list[float]:
    """Places of labels of these sizes, the highest first, as near as can be to where they belong.

    None lies on another. Less what must lie above it, each place may be anywhere below the one
    before: the nearest such numbers by least squares are an isotonic regression.
    """
    from sklearn.isotonic import isotonic_regression

    middles = np.cumsum(sizes) - np.array(sizes) / 2  # from the upper edge, if all touch
    lowest = min(high, low + sum(sizes))
    return (
        isotonic_regression(middles + wanted, increasing=False, y_min=lowest, y_max=high) - middles
    ).tolist()
