"""`bench report`: one HTML page with everything in it, for a browser without a network.

What the tests say in sentences, figures, tables that sort and can be filtered, and a click from a
cell to its record. It is made from records only.
"""

import base64
import html
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ssl_bench.data.images import own_picture
from ssl_bench.errors import BenchError
from ssl_bench.evaluation.intervals import Paired
from ssl_bench.files import write_atomically
from ssl_bench.records.command import command_of
from ssl_bench.records.record import EvaluationRecord
from ssl_bench.records.workspace import folder_of
from ssl_bench.tables.blocks import Block, blocks
from ssl_bench.tables.footnotes import LEADS, STALE, legend
from ssl_bench.tables.forms import cell_text, chance_row, difference_text
from ssl_bench.tables.order import Order, published_orders
from ssl_bench.tables.published import Published, published_beside
from ssl_bench.tables.sentences import findings
from ssl_bench.tables.table import Table

WIDEST = 640  # px of a picture on the page


@dataclass(frozen=True)
class PageFigure:
    """A drawing on the page: `svg` is an <svg> element, which is put there as it is."""

    title: str
    caption: str
    svg: str


@dataclass(frozen=True)
class PageCell:
    """A cell of the page: what is shown, what it sorts by, and whose records stand behind it."""

    text: str
    value: float | None
    title: str
    leading: bool
    keys: Sequence[str]


@dataclass(frozen=True)
class PageDifference:
    """A difference on the page: `of` is its unit and seeds, `bold` what is tested and not zero."""

    text: str
    value: float | None = None
    title: str = ""
    of: str = ""
    bold: bool = False


@dataclass(frozen=True)
class Line:
    """A line of a table on the page; `methods` are those that a filter finds it by."""

    name: str
    methods: Sequence[str]
    cells: Sequence[PageCell | PageDifference | str]


def write_report(
    table: Table,
    workspace: Path,
    path: Path,
    title: str,
    figures: Sequence[PageFigure] = (),
    home: str = "",
) -> None:
    """Write the page to `path`; `home` is where its link to all reports leads, if it has one.

    Raises DataError where it cannot be written.
    """
    found = [*table.evaluations, *table.controls]
    environments = list(dict.fromkeys(map(_environment, found)))  # most runs share one
    records = [
        _record_section(r, workspace, environments.index(_environment(r)) + 1) for r in found
    ]
    published, orders = published_beside(table), published_orders(table)
    page = template("report").render(
        title=title,
        home=home,
        findings=findings(table),
        figures=figures,
        gallery=[(p.stem, _webp(p)) for p in sorted((workspace / "figures").glob("*.png"))],
        pictured=[record for record in records if record["pictures"]],
        shared=table.shared,
        methods=dict.fromkeys(map(table.method, table.rows)),
        protocols=dict.fromkeys(r.identity.protocol for r in table.evaluations),
        # A page is narrow: always cut.
        blocks=[_block(table, b, published, orders) for b in blocks(table, wide=0)],
        legend=[line.replace("**", "") for line in legend(table, published)],  # Markdown's
        records=records,
        environments=environments,
        leads=LEADS,
    )
    write_atomically(path, page)


def template(name: str) -> jinja2.Template:
    """One of the pages beside this file."""
    folder = resources.files("ssl_bench.tables") / "pages"
    loader = jinja2.FunctionLoader(lambda file: (folder / file).read_text(encoding="utf-8"))
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, loader=loader)
    return environment.get_template(f"{name}.html.j2")


def _block(
    table: Table, block: Block, published: Published, orders: Sequence[Order]
) -> dict[str, Any]:
    columns = block.columns
    return {
        "title": block.title,
        "name": f"{block.title}, {' … '.join(dict.fromkeys((block.short[0], block.short[-1])))}",
        "short": block.short,
        "protocol": table.first_in(columns[0]).record.identity.protocol,
        "rows": _rows(table, columns),
        "differences": (differences := list(_differences(table, columns))),
        "basis": _common_basis(differences),
        "published": [
            Line(row, [table.method(row)], cells) for row, cells in published.rows(table, columns)
        ],
        "orders": [
            (order, [Line(row, [table.method(row)], values) for row, *values in order.lines])
            for order in orders
            if order.column in columns
        ],
    }


def _rows(table: Table, columns: Sequence[str]) -> list[Line]:
    found = [(row, [_page_cell(table, row, column) for column in columns]) for row in table.rows]
    rows = [
        Line(row, [table.method(row)], cells)
        for row, cells in found
        if any(cell.keys for cell in cells)
    ]
    return rows + [
        Line(
            title, (), [PageCell(t, None, "without a look at the images", False, ()) for t in texts]
        )
        for title, *texts in chance_row(table, columns)
    ]


def _page_cell(table: Table, row: str, column: str) -> PageCell:
    cell = table.cell(row, column)
    if cell is None:
        return PageCell("–", None, "not measured", False, ())
    found = table.at(row, column)
    digits = found[0].digits
    over = f"{cell.n} {cell.over}" if cell.n > 1 else "the test images"
    title = f"{cell.mean:.{digits + 2}f}, 95 % ± {cell.half:.{digits + 2}f} over {over}"
    if cell.n > 1:
        title += f", ± {cell.images:.{digits + 2}f} over the test images of one seed"
    keys = [one.record.key for one in found]
    mark = STALE if table.is_stale(row, column) else ""
    leading = (row, column) in table.leading
    return PageCell(cell_text(cell, digits) + mark, cell.mean, title, leading, keys)


def _differences(table: Table, columns: Sequence[str]) -> Iterator[Line]:
    """Each line that has one in these columns."""
    places = [table.columns.index(column) for column in columns]
    for name, differences in table.differences:
        cells = [differences[place] for place in places]
        if any(cells):
            pairs = zip(cells, columns, strict=True)
            own = [_difference(table, cell, column) for cell, column in pairs]
            sides = [
                table.method(row)
                for row in table.rows
                if name.startswith(f"{row} − ") or name.endswith(f" − {row}")
            ]
            yield Line(name, sides, own)


def _common_basis(lines: Sequence[Line]) -> str:
    """What all differences of a block are of: the page says it once; empty where they differ."""
    found = {c.of for line in lines for c in line.cells if isinstance(c, PageDifference) and c.of}
    return found.pop() if len(found) == 1 else ""


def _difference(table: Table, cell: Paired | None, column: str) -> PageDifference:
    if cell is None:
        return PageDifference("–")
    text = difference_text(cell, table.first_in(column).digits)
    adjusted = "exploratory" if cell.adjusted is None else f"{cell.adjusted:.2g} by Holm"
    title = f"p {cell.p:.2g}, {adjusted}; {cell.basis}"
    of = f"{cell.unit}, {f'{cell.n} seeds' if cell.n > 1 else 'one seed'}"
    return PageDifference(text, cell.mean, title, of, cell.clear)


def _environment(record: EvaluationRecord) -> Markup:
    own = {"finished", "seconds", "device", "command", "peak_memory_mb"}
    return _json(record.provenance.model_dump(mode="json", exclude=own))


def _record_section(record: EvaluationRecord, workspace: Path, environment: int) -> dict[str, Any]:
    """A record as the page shows it, with the pictures beside it and its environment's number."""
    folder = folder_of(workspace, record)
    try:
        command = command_of(record)
    except BenchError as error:
        command = f"not to be had: {error}"
    made = record.provenance
    details = {k: v for k, v in record.details.plain().items() if k != "selection" and v}
    return {
        "key": record.key,
        "name": f"{record.details.protocol} {record.identity.layer} of {record.method}",
        # Without settings: a list of all pictures is read by method and seed.
        "short": f"{record.identity.protocol} {record.identity.layer} of {record.method}"
        + (f", seed {record.pretraining['seed']}" if "seed" in record.pretraining else ""),
        "command": command,
        "made": f"{record.key}: {made.finished:%Y-%m-%d %H:%M}, {made.seconds:g} s, "
        f"{made.peak_memory_mb} MB, {made.device}",
        "environment": environment,
        "metrics": {name: f"{value:.6g}" for name, value in record.metrics.items()},
        "parts": [
            (name, _json(part))
            for name, part in (
                ("configuration and digests", record.identity.plain()),
                ("selection and sweep", record.details.selection),
                ("details", details),
                ("files", record.files),
            )
            if part
        ],
        "pictures": [
            (path.name, _webp(path))
            for path in sorted(folder.glob("*.png"))
            if path.name in record.files
        ],
    }


def _json(part: Any) -> Markup:
    """Quotation marks as they are: within an element they are none of HTML's, and they are many."""
    return Markup(html.escape(json.dumps(part, ensure_ascii=False, default=str), quote=False))


def _webp(path: Path) -> str:
    """A picture as base64, small enough for a page."""
    small = own_picture(path)
    small.thumbnail((WIDEST, 10 * WIDEST))
    content = io.BytesIO()
    small.convert("RGB").save(content, "WEBP", quality=30, method=6)
    return base64.b64encode(content.getvalue()).decode()
