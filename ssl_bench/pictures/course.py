"""`bench plot course`: what an evaluation finds in encoders on the way of their trainings.

From records only. A column of panels a method, a row a protocol; in a panel a line a layer over the
steps, and across it, broken, what the same network has that no steps have made (random weights, a
fit, a library's weights). Bands are 95 % intervals. A layer has a colour and a marker, a row
without steps a kind of line, so that all of it can be read in grey.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ssl_bench.pictures.style import BROKEN, save_for_print, styled, wrapped
from ssl_bench.pictures.style import looks as looks_of
from ssl_bench.tables.blocks import title_and_rest
from ssl_bench.tables.course import Course
from ssl_bench.tables.table import Cell, Table

PANEL, LEGEND = (2.7, 2.2), 1.9  # inches
NAME = 32  # letters of a line of a name
BESIDE = 3  # panels; of one protocol, more courses go on in the next line
OTHERS = "0.55"  # layers of a network that no course trains: colours are for those that it has


def draw_courses(table: Table, courses: Sequence[Course], path: Path) -> list[Path]:
    """Write `path` with .png, at 300 dpi, .svg and .pdf; returns all."""
    return save_for_print(course_figure(table, courses), path)


@styled
def course_figure(table: Table, courses: Sequence[Course]) -> Figure:
    """A column of panels for each of these courses."""
    panels = _panels(table, courses)
    beside = BESIDE if len(panels) == 1 else len(courses)
    lines_of = [courses[i : i + beside] for i in range(0, len(courses), beside)]
    (wide, high), down = PANEL, len(panels) * len(lines_of)
    across = min(beside, len(courses))
    figure = Figure(figsize=(wide * across + LEGEND, high * down + 0.6), layout="constrained")
    axes = figure.subplots(down, across, sharey="row", squeeze=False)
    looks = _looks(table, courses, panels)
    lines = dict(zip(_all_across(courses), BROKEN * 8, strict=False))
    drawn = [(panel, some) for panel in panels.items() for some in lines_of]
    for line, ((title, columns), some) in zip(axes, drawn, strict=True):
        for axis, course in zip(line, some, strict=False):
            for layer, column in columns.items():
                _line(axis, table, course, column, looks[layer])
                for row in course.across:
                    _across(axis, table.cell(row, column), looks[layer], lines[row])
            axis.tick_params(labelsize=7)
            axis.grid(color="0.9", linewidth=0.5)
            axis.set_title(wrapped(course.name, NAME), fontsize=8)
            _scale(axis, list(course.rows))
        for axis in line[len(some) :]:
            axis.remove()
        line[0].set_ylim(_limits(_cells(table, courses, columns)))
        line[0].set_ylabel(f"{title}\n{table.quantity(next(iter(columns.values())))}", fontsize=7)
    figure.supxlabel("steps of training", fontsize=8)
    figure.suptitle(_caption(table, courses, panels), fontsize=7)
    _legend(figure, looks, lines)
    return figure


def _looks(
    table: Table, courses: Sequence[Course], panels: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, Any]]:
    """Of each layer; the kind of line is left to say which row without steps it is."""
    layers: dict[str, bool] = {}  # whether a course has it
    for columns in panels.values():
        for layer, column in columns.items():
            rows = (row for course in courses for row in course.rows.values())
            own = any(table.cell(row, column) for row in rows)
            layers[layer] = layers.get(layer, False) or own
    own = looks_of([layer for layer, trained in layers.items() if trained])
    others = looks_of([layer for layer, trained in layers.items() if not trained])
    looks = own | {layer: {**look, "color": OTHERS} for layer, look in others.items()}
    return {
        layer: {k: v for k, v in look.items() if k != "linestyle"} for layer, look in looks.items()
    }


def _panels(table: Table, courses: Sequence[Course]) -> dict[str, dict[str, str]]:
    """Columns by protocol and layer; protocols that a course has numbers of."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for column in table.columns:
        title, layer = title_and_rest(table, column)
        found[title][layer] = column
    measured = {
        column for c in courses for row in c.rows.values() for column in table.columns
        if table.cell(row, column)
    }  # fmt: skip
    return {
        title: {layer: c for layer, c in columns.items() if _cells(table, courses, {layer: c})}
        for title, columns in found.items()
        if measured & {*columns.values()}
    }


def _all_across(courses: Sequence[Course]) -> list[str]:
    return list(dict.fromkeys(row for course in courses for row in course.across))


def _line(axis: Any, table: Table, course: Course, column: str, look: Mapping[str, Any]) -> None:
    """A layer over the steps that were measured, with its band."""
    cells = {step: cell for step, row in course.rows.items() if (cell := table.cell(row, column))}
    steps = list(cells)
    axis.plot(steps, [c.mean for c in cells.values()], linewidth=1.2, markersize=4, **look)
    low = [c.mean - c.half for c in cells.values()]
    high = [c.mean + c.half for c in cells.values()]
    axis.fill_between(steps, low, high, color=look["color"], alpha=0.12, linewidth=0)


def _across(axis: Any, cell: Cell | None, look: Mapping[str, Any], line: Any) -> None:
    """A layer of a row without steps, from side to side, with its band and hollow markers."""
    if cell is None:
        return
    colour = look["color"]
    axis.axhspan(cell.mean - cell.half, cell.mean + cell.half, color=colour, alpha=0.06, lw=0)
    axis.plot(
        (0, 1), (cell.mean, cell.mean), transform=axis.get_yaxis_transform(), linestyle=line,
        linewidth=0.9, markersize=4, markerfacecolor="white", clip_on=False, **look,
    )  # fmt: skip


def _scale(axis: Any, steps: Sequence[int]) -> None:
    """Logarithmic, with labels that have room: 1, 2 and 5 of each decade, or the decades alone."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.set_xlim(min(steps) / 1.15, max(steps) * 1.15)
    narrow = max(steps) < 40 * min(steps)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    axis.xaxis.set_major_formatter(
        FuncFormatter(lambda step, _: f"{step / 1000:g}k" if step >= 1000 else f"{step:g}")
    )
    axis.xaxis.set_minor_formatter(NullFormatter())


def _cells(table: Table, courses: Sequence[Course], columns: Mapping[str, str]) -> list[Cell]:
    """All that is drawn in these columns."""
    rows = dict.fromkeys(row for c in courses for row in (*c.rows.values(), *c.across))
    places = [(row, column) for row in rows for column in columns.values()]
    return [cell for place in places if (cell := table.cell(*place))]


def _limits(cells: Sequence[Cell]) -> tuple[float, float]:
    """Of the axis upwards: all means, and bands as far as they leave the means to be seen.

    With two seeds an interval may be wider than the scale of the metric.
    """
    means = [cell.mean for cell in cells]
    span = max(max(means) - min(means), 1)
    halves = [min(span / 2, cell.half) if cell.half > 0 else 0 for cell in cells]  # or NaN
    low = min(mean - half for mean, half in zip(means, halves, strict=True))
    high = max(mean + half for mean, half in zip(means, halves, strict=True))
    return low - span / 20, high + span / 20


def _caption(
    table: Table, courses: Sequence[Course], panels: Mapping[str, Mapping[str, str]]
) -> str:
    """What lines and bands are."""
    cells = [cell for columns in panels.values() for cell in _cells(table, courses, columns)]
    seeds = " to ".join(map(str, sorted({min(c.n for c in cells), max(c.n for c in cells)})))
    over = " or ".join(sorted({c.over for c in cells}))
    of = "one seed" if seeds == "1" else f"mean of {seeds} seeds"
    return f"{of[0].upper()}{of[1:]}. Bands: 95 % intervals over {over}, cut at the panel's edge."


def _legend(figure: Any, looks: Mapping[str, Mapping[str, Any]], lines: Mapping[str, Any]) -> None:
    """Layers by colour and marker; rows without steps by their line."""
    from matplotlib.lines import Line2D

    layers = [(name, Line2D([], [], markersize=4, **look)) for name, look in looks.items()]
    hollow = {"color": "0.4", "marker": "o", "markerfacecolor": "white", "markersize": 4}
    rows = [
        (wrapped(name, NAME), Line2D([], [], linestyle=line, **hollow))
        for name, line in lines.items()
    ]
    names, handles = zip(*layers, *rows, strict=True)
    figure.legend(handles, names, loc="outside right center", fontsize=7, frameon=False)
