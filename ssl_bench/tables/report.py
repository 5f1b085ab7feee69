"""`bench report`: one HTML page with everything in it, for a browser without a network.

Tables that sort, a click from a cell to its record, and the pictures that runs have drawn. It is
made from records only.
"""

import base64
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from ssl_bench.data.images import own_picture
from ssl_bench.errors import BenchError
from ssl_bench.evaluation.intervals import Paired
from ssl_bench.files import write_atomically
from ssl_bench.records.command import command_of
from ssl_bench.records.record import EvaluationRecord
from ssl_bench.records.workspace import folder_of
from ssl_bench.tables.blocks import blocks
from ssl_bench.tables.footnotes import LEADS, STALE, legend
from ssl_bench.tables.forms import cell_text, chance_row, difference_text
from ssl_bench.tables.published import published_beside
from ssl_bench.tables.table import Table

WIDEST = 1200  # px of a picture on the page


@dataclass(frozen=True)
class PageCell:
    """A cell of the page: what is shown, what it sorts by, and whose records stand behind it."""

    text: str
    value: float | None
    title: str
    leading: bool
    keys: Sequence[str]


def write_report(table: Table, workspace: Path, path: Path, title: str) -> None:
    """Write the page to `path`. Raises DataError where it cannot be."""
    records = [*table.evaluations, *table.controls]
    published = published_beside(table)
    page = _template().render(
        title=title,
        blocks=[
            (
                block,
                _rows(table, block.columns),
                list(_differences(table, block.columns)),
                published.rows(table, block.columns),
            )
            for block in blocks(table, wide=0)  # a page is narrow: always cut
        ],
        legend=[line.replace("**", "") for line in legend(table, published)],  # Markdown's
        records=[_record_section(record, workspace) for record in records],
        leads=LEADS,
    )
    write_atomically(path, page)


def _template() -> jinja2.Template:
    text = (resources.files("ssl_bench.tables") / "report.html.j2").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True, trim_blocks=True).from_string(text)


def _rows(table: Table, columns: Sequence[str]) -> list[tuple[str, list[PageCell]]]:
    rows = [(row, [_page_cell(table, row, column) for column in columns]) for row in table.rows]
    rows = [(row, cells) for row, cells in rows if any(cell.keys for cell in cells)]
    return rows + [
        (title, [PageCell(text, None, "without a look at the images", False, ()) for text in texts])
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


@dataclass(frozen=True)
class PageDifference:
    """A difference on the page: `of` is its unit and seeds, `bold` what is tested and not zero."""

    text: str
    value: float | None = None
    title: str = ""
    of: str = ""
    bold: bool = False


def _differences(
    table: Table, columns: Sequence[str]
) -> Iterator[tuple[str, list[PageDifference]]]:
    """Each line's name and cells."""
    places = [table.columns.index(column) for column in columns]
    for name, differences in table.differences:
        cells = [differences[place] for place in places]
        if any(cells):
            pairs = zip(cells, columns, strict=True)
            yield name, [_difference(table, cell, column) for cell, column in pairs]


def _difference(table: Table, cell: Paired | None, column: str) -> PageDifference:
    if cell is None:
        return PageDifference("–")
    text = difference_text(cell, table.first_in(column).digits)
    adjusted = "exploratory" if cell.adjusted is None else f"{cell.adjusted:.2g} by Holm"
    title = f"p {cell.p:.2g}, {adjusted}; {cell.basis}"
    of = f"{cell.unit}, {f'{cell.n} seeds' if cell.n > 1 else 'one seed'}"
    return PageDifference(text, cell.mean, title, of, cell.clear)


def _record_section(record: EvaluationRecord, workspace: Path) -> dict[str, Any]:
    """A record as the page shows it, with the pictures beside it."""
    folder = folder_of(workspace, record)
    try:
        command = command_of(record)
    except BenchError as error:
        command = f"not to be had: {error}"
    return {
        "key": record.key,
        "name": f"{record.details.protocol} {record.identity.layer} of {record.method}",
        "command": command,
        "metrics": record.metrics,
        "parts": [
            (name, json.dumps(part, indent=2, ensure_ascii=False, default=str))
            for name, part in (
                ("configuration", record.identity.plain()),
                ("selection and sweep", record.details.selection),
                ("details", {k: v for k, v in record.details.plain().items() if k != "selection"}),
                ("environment", record.provenance.model_dump(mode="json")),
                ("files", record.files),
            )
        ],
        "pictures": [
            (path.name, _jpeg(path))
            for path in sorted(folder.glob("*.png"))
            if path.name in record.files
        ],
    }


def _jpeg(path: Path) -> str:
    """A picture as base64, small enough for a page."""
    small = own_picture(path)
    small.thumbnail((WIDEST, 10 * WIDEST))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=80)
    return base64.b64encode(content.getvalue()).decode()
