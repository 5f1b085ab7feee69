"""`bench site`: the reports of several workspaces as one site, for a browser without a network.

An index with leaderboards, a page a suite (its report), a page a method with all its numbers. Links
are relative. Rows of two suites stand in one leaderboard only where protocol with its settings,
layer, metric and the very images are the same; and rows of two suites are not compared: a mark is
that of a suite's own table, whose tests are Holm's for all its pairs.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_bench.errors import DataError
from ssl_bench.files import key_of, write_atomically
from ssl_bench.tables.footnotes import LEADS
from ssl_bench.tables.forms import cell_text
from ssl_bench.tables.report import PageFigure, template, write_report
from ssl_bench.tables.sentences import Findings, findings
from ssl_bench.tables.table import Cell, Table


@dataclass(frozen=True)
class SuiteOfSite:
    """A workspace on the site: its name, its page, its table, what the table shows."""

    name: str
    page: str
    workspace: Path
    table: Table
    findings: Findings


@dataclass(frozen=True)
class Entry:
    """A number on the site, with the suite and the row that it is of and its record's address."""

    suite: SuiteOfSite
    row: str
    column: str
    cell: Cell
    leading: bool

    @property
    def text(self) -> str:
        return cell_text(self.cell, self.suite.table.first_in(self.column).digits)

    @property
    def keys(self) -> tuple[str, ...]:
        """Of its records, by which the same number of two suites is known."""
        return tuple(one.record.key for one in self.suite.table.at(self.row, self.column))

    @property
    def address(self) -> str:
        return f"{self.suite.page}#r-{self.keys[0][:12]}"

    @property
    def method(self) -> str:
        return self.suite.table.method(self.row)


@dataclass(frozen=True)
class Leaderboard:
    """Numbers of one protocol, layer, metric and set of images, the best mean first."""

    title: str
    quantity: str
    entries: Sequence[Entry]

    @property
    def suites(self) -> int:
        return len({entry.suite.name for entry in self.entries})


def write_site(
    workspaces: Sequence[tuple[str, Path]],
    out: Path,
    draw: Callable[[Table, Path], Sequence[PageFigure]],
    table_of: Callable[[Path], Table],
) -> list[Path]:
    """Write index.html, suite-NAME.html and method-NAME.html to `out`; returns their paths.

    `workspaces` are named, `draw` makes the figures of a report. Raises DataError where nothing can
    be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write to {out}: {error.strerror}") from error
    suites = []
    for name, workspace in workspaces:
        table = table_of(workspace)
        page = f"suite-{_slug(name)}.html"
        suites.append(SuiteOfSite(name, page, workspace, table, findings(table)))
        write_report(table, workspace, out / page, name, draw(table, workspace), "index.html")
    methods = dict[str, list[Entry]]()
    for entry in (entry for suite in suites for entry in _entries(suite)):
        methods.setdefault(entry.method, []).append(entry)
    pages = {method: f"method-{_slug(method)}.html" for method in methods}
    paths = [out / "index.html", *(out / suite.page for suite in suites)]
    index = template("index").render(
        title="ssl-bench", suites=suites, boards=leaderboards(suites), methods=pages, leads=LEADS
    )
    write_atomically(paths[0], index)
    for method, entries in methods.items():
        paths.append(out / pages[method])
        page = template("method").render(title=method, entries=entries, leads=LEADS)
        write_atomically(paths[-1], page)
    return paths


def _slug(name: str) -> str:
    """A file's name; what is changed has a digest, so that two names stay two."""
    slug = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-")
    return slug if slug == name else f"{slug[:80]}-{key_of({'name': name})[:6]}"


def _entries(suite: SuiteOfSite) -> Iterator[Entry]:
    table = suite.table
    for row in table.rows:
        for column in table.columns:
            if cell := table.cell(row, column):
                yield Entry(suite, row, column, cell, (row, column) in table.leading)


def leaderboards(suites: Sequence[SuiteOfSite]) -> list[Leaderboard]:
    """One for each headline column, with what other suites have of the same; by protocol and set.

    A number that two suites share stands there once.
    """
    found = defaultdict[tuple[str, ...], dict[tuple[str, ...], Entry]](dict)
    headlines = {_what(suite, c) for suite in suites for c in suite.table.headlines}
    for entry in (entry for suite in suites for entry in _entries(suite)):
        what = _what(entry.suite, entry.column)
        if what in headlines:
            found[what].setdefault(entry.keys, entry)
    boards = []
    for (protocol, layer, _, data, _), entries in sorted(found.items()):
        first = next(iter(entries.values()))
        lower = first.suite.table.first_in(first.column).lower
        ordered = sorted(entries.values(), key=lambda e: e.cell.mean, reverse=not lower)
        images = first.suite.table.first_in(first.column).record.details.test_images
        title = " ".join(f"{protocol} {layer} on {data}, {images:,} test images".split())
        quantity = first.suite.table.quantity(first.column)
        boards.append(Leaderboard(title, quantity, ordered))
    return boards


def _what(suite: SuiteOfSite, column: str) -> tuple[str, ...]:
    """What makes numbers of two suites numbers of the same thing."""
    one = suite.table.first_in(column)
    record = one.record
    return record.details.protocol, record.column, one.metric, record.data, one.images
