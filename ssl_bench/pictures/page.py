"""Plots as a page shows them: inline SVG whose ink and paper are the page's."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from ssl_bench.errors import UsageError
from ssl_bench.pictures.course import course_figure
from ssl_bench.pictures.layers import draw_layers
from ssl_bench.pictures.rows import draw_differences, draw_rows
from ssl_bench.pictures.style import GREY, GRID, INK, LOOK, UNDATED
from ssl_bench.pictures.training import draw_training, logs_of
from ssl_bench.tables.course import courses_of
from ssl_bench.tables.report import PageFigure
from ssl_bench.tables.table import Table

OWN = {INK: "ink", GRID: "line", GREY: "faint", "#ffffff": "paper"}  # the page's colours

SIDE_BY_SIDE = 3  # courses for which a page is wide enough


@dataclass(frozen=True)
class Plot:
    """How a table is drawn: what a page says above and below it, and the drawing."""

    title: str
    caption: str
    draw: Callable[[Table], Figure]


PLOTS = {
    "differences": Plot(
        "The declared differences",
        "Paired by seed and test image, or with one seed by image. Bars are 95 % intervals, not "
        "adjusted; filled is what is not zero by Holm's correction for all that is declared.",
        draw_differences,
    ),
    "rows": Plot(
        "The headline columns",
        "Means with 95 % intervals. Overlap is no test: the differences are.",
        draw_rows,
    ),
    "layers": Plot(
        "By layer",
        "Means of frozen features from the image upwards, with 95 % intervals as bands.",
        draw_layers,
    ),
}


def page_figures(table: Table, workspace: Path) -> list[PageFigure]:
    """What can be drawn of a table and of the trainings beside it."""
    asked: list[tuple[str, str, Callable[[], Figure]]] = [
        (plot.title, plot.caption, partial(plot.draw, table)) for plot in PLOTS.values()
    ]
    try:
        courses = courses_of(table)
    except UsageError:  # no encoder was kept on the way
        courses = []
    kept = "Encoders that were kept on the way, by the step of their training, with 95 % intervals."
    for place in range(0, len(courses), SIDE_BY_SIDE):
        some = courses[place : place + SIDE_BY_SIDE]
        title = f"By step of training: {'; '.join(course.name for course in some)}"
        asked.append((title, kept, partial(course_figure, table, some)))
    logged = "What the trainings logged, by step: losses on training batches."
    asked.append(("Training", logged, lambda: draw_training(logs_of(workspace))))
    found = []
    for title, caption, draw in asked:
        try:
            svg = inline(draw(), f"f{len(found)}-", f"{title}. {caption}")
        except UsageError:  # nothing of the kind was measured
            continue
        found.append(PageFigure(title, caption, svg))
    return found


def inline(figure: Figure, prefix: str, text: str) -> str:
    """A figure as an <svg> element in the page's own colours, with ids that begin with `prefix`."""
    content = io.StringIO()
    with matplotlib.rc_context(LOOK):
        figure.savefig(content, format="svg", metadata=UNDATED[".svg"])
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :].replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
    # A style within an <svg> would be the whole page's; the page has its own font.
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    # Groups have ids that nothing refers to; what is referred to must be alone on the page.
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", svg.replace("xlink:href", "href"))
    for colour, own in OWN.items():
        svg = re.sub(rf"(fill|stroke): {colour}\b", rf"\1: var(--{own})", svg)
    label = re.sub(r'[<>&"]', "", text)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
