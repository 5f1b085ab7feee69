"""The end of a suite for who sees the bench first: what it showed, pictures, what to do next."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_bench import catalogue

if TYPE_CHECKING:
    from ssl_bench.evaluation.suite import Suite
    from ssl_bench.tables.table import Table

NEXT = """\
Next, with your own images, as PATH/train/CLASS/photo.jpg and PATH/val/CLASS/photo.jpg:
  bench data check folder:PATH
  bench pretrain rotation --data folder:PATH --image-size 128 --norm batch --steps 3000
  bench linear-probe --data folder:PATH"""


def closing_lines(suite: "Suite", table: "Table", workspace: Path) -> Iterator[str]:
    """What stands below the table; the page and the pictures are drawn where they are not there."""
    from ssl_bench.tables.sentences import paragraph

    yield f"\n{suite.description}. {paragraph(table)}\n"
    for picture in _filled(suite, table, workspace):
        yield f"Filled holes:  {picture}"
    yield f"All on a page: {_page(suite, table, workspace)}\n"
    yield NEXT


def _filled(suite: "Suite", table: "Table", workspace: Path) -> Iterator[Path]:
    """Previews of the methods that fill holes, one of each: input, hole, filling, truth."""
    from ssl_bench.records.workspace import folder_of, read_records

    runs = {run.key: run for run in read_records(workspace, "pretrain")}
    seen = set[str]()
    for record in table.evaluations:
        encoder = record.identity.encoder
        run = runs.get(encoder.run or "") if encoder else None
        if run is None or run.method in seen:
            continue
        seen.add(run.method)
        path = folder_of(workspace, run) / "preview.png"
        # Weights do not travel with exported records: without them there is nothing to draw.
        drawable = (path.parent / "encoder.safetensors").exists()
        if not drawable or not catalogue.said_of("pretext", run.method, "fill"):
            continue
        if not path.exists():
            from ssl_bench.pictures.preview import draw_preview

            entry = next(e for e in suite.methods if e.method == run.method)
            draw_preview(run, workspace, suite.images_of(entry))
        yield path


def _page(suite: "Suite", table: "Table", workspace: Path) -> Path:
    """`report.html` in the workspace, written anew where a record is younger."""
    path = workspace / "report.html"
    records = workspace.glob("evaluation/*/record.json")
    youngest = max(record.stat().st_mtime for record in records)
    if not path.exists() or path.stat().st_mtime < youngest:
        from ssl_bench.pictures.page import page_figures
        from ssl_bench.tables.report import write_report

        write_report(table, workspace, path, suite.name, page_figures(table, workspace))
    return path
