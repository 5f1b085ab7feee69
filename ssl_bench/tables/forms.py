"""How a table is written: Markdown, LaTeX, CSV, and their files."""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from ssl_bench.errors import DataError, plain
from ssl_bench.evaluation.intervals import Paired
from ssl_bench.files import write_atomically
from ssl_bench.tables.blocks import Block, blocks
from ssl_bench.tables.family import FILE as FAMILY
from ssl_bench.tables.family import Family
from ssl_bench.tables.footnotes import CHANCE, LEADS, STALE, legend
from ssl_bench.tables.maximum import HEADING, maxima
from ssl_bench.tables.order import FEWEST, published_orders
from ssl_bench.tables.published import Published, published_beside
from ssl_bench.tables.table import Cell, Table

LONG = 30  # letters of a protocol's settings, above which a heading leaves them to the legend
TEX = {"\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}"}


def cell_text(cell: Cell, digits: int, plus_minus: str = "±", with_n: bool = False) -> str:
    """Mean and half-width; an asterisk where it is over the test images."""
    mark = "*" if cell.over == "images" else ""
    count = f" (n = {cell.n})" if with_n else ""
    return f"{cell.mean:.{digits}f} {plus_minus} {cell.half:.{digits}f}{mark}{count}"


def difference_text(paired: Paired, digits: int) -> str:
    """Signed, with a true minus; in brackets what is exploratory; an asterisk as in cells."""
    text = f"{paired.mean:+.{digits}f} ± {paired.half:.{digits}f}".replace("-", "−")
    text += "*" if paired.over == "images" else ""
    return text if paired.adjusted is not None else f"({text})"


# ---- Markdown
def markdown(table: Table) -> str:
    """GitHub Markdown: the table, paired differences, published numbers, what marks mean.

    A wide table is cut into blocks: one below the other, with the layers across. In one that is not
    a letter stands for settings that are longer than a column.
    """
    published = published_beside(table)
    cut = blocks(table)
    letters = {} if cut[0].title else _letters(table)
    parts = [part for block in cut for part in _block(table, block, published, letters)]
    settings = [f"({letter}) {_escaped(text)}" for text, letter in letters.items()]
    return "\n\n".join([*parts, "\n".join([*settings, *legend(table, published)])])


def orders_markdown(table: Table) -> str:
    """The published order beside the measured one, of each column that has one; see order.py."""
    parts = [f"No column has {FEWEST} methods whose numbers are published."]
    if orders := published_orders(table):
        heading = ("method", "measured", "published")
        parts = [
            part
            for order in orders
            for part in (
                f"**Published order: {_escaped(order.column)}**",
                _pipes([heading, *order.lines]),
                order.text,
            )
        ]
    return "\n\n".join(parts)


def maxima_markdown(table: Table) -> str:
    """What the maximum over the steps of each course gives, column by column; see maximum.py."""
    found = maxima(table)
    parts = []
    for column in dict.fromkeys(one.column for one in found):
        digits = table.first_in(column).digits
        lines = [one.cells(digits) for one in found if one.column == column]
        parts += [f"**Maximum over steps: {_escaped(column)}**", _pipes([HEADING, *lines])]
    return "\n\n".join(parts)


def _letters(table: Table) -> dict[str, str]:
    """Long settings of protocols, as columns say them, each with its letter."""
    long = dict.fromkeys(s for s in map(partial(_settings, table), table.columns) if len(s) > LONG)
    return dict(zip(long, ascii_lowercase, strict=False))  # of WIDE columns at most


def _settings(table: Table, column: str) -> str:
    record = table.first_in(column).record
    return record.details.protocol.removeprefix(record.identity.protocol).strip()


def _block(
    table: Table, block: Block, published: Published, letters: Mapping[str, str]
) -> list[str]:
    """The cells of these columns; below them their differences, and what is published."""
    heads = [
        head.replace(settings, f"({letters[settings]})", 1)
        if (settings := _settings(table, column)) in letters
        else head
        for column, head in zip(block.columns, block.short, strict=True)
    ]
    grids = [
        [["method", *heads], *_cells(table, block)],
        [["difference", *heads], *_differences(table, block)],
        [["published", *heads]]
        + [[row, *cells] for row, cells in published.rows(table, block.columns)],
    ]
    title = [f"**{_escaped(block.title)}**"] if block.title else []
    return title + [_pipes(grid) for grid in grids if len(grid) > 1]


def _cells(table: Table, block: Block) -> list[list[str]]:
    with_n = len({cell.n for cell in table.cells.values()}) > 1  # the legend says n if all share it
    lines = [
        [row, *(_marked(table, row, column, with_n) for column in block.columns)]
        for row in table.rows
        if any(table.cell(row, column) for column in block.columns)
    ]
    return [*lines, *chance_row(table, block.columns, f"*{CHANCE}*", "–")]


def chance_row(
    table: Table, columns: Sequence[str], title: str = CHANCE, empty: str = "–"
) -> list[list[str]]:
    """The last line of these columns, unless chance is known of none."""
    if not any(column in table.chance for column in columns):
        return []
    digits = {column: table.first_in(column).digits for column in columns}
    known = table.chance
    return [[title, *(f"{known[c]:.{digits[c]}f}" if c in known else empty for c in columns)]]


def _marked(table: Table, row: str, column: str, with_n: bool) -> str:
    cell = table.cell(row, column)
    if cell is None:
        return "–"
    text = cell_text(cell, table.first_in(column).digits, with_n=with_n)
    text += STALE if table.is_stale(row, column) else ""
    return text + (f" {LEADS}" if (row, column) in table.leading else "")


def _differences(table: Table, block: Block) -> list[list[str]]:
    places = [table.columns.index(column) for column in block.columns]
    return [
        [name, *(_difference(table, cells[i], table.columns[i]) for i in places)]
        for name, cells in table.differences
        if any(cells[i] for i in places)
    ]


def _difference(table: Table, paired: Paired | None, column: str) -> str:
    if paired is None:
        return "–"
    text = difference_text(paired, table.first_in(column).digits)
    return f"**{text}**" if paired.clear else text


def _escaped(text: str) -> str:
    return plain(text).replace("\\", "\\\\").replace("|", "\\|")


def _pipes(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells, the first of them the heading, as a Markdown table of even columns."""
    lines = [[_escaped(text) for text in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = []
    for first, *rest in lines:
        numbers = [text.rjust(width) for text, width in zip(rest, widths[1:], strict=True)]
        padded.append("| " + " | ".join([first.ljust(widths[0]), *numbers]) + " |")
    rule = "|".join(["", "-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:]), ""])
    return "\n".join([padded[0], rule, *padded[1:]])


# ---- CSV
def csv_lines(table: Table) -> str:
    """One line per cell, at full precision.

    method, evaluation, mean, half_width of the 95 % interval over interval_over (seeds and images,
    n seeds), half_width_seeds over these alone, half_width_images over the test images of a single
    seed (the mean of all), leading, stale, chance of the column.
    """
    content = io.StringIO()
    write = csv.writer(content, lineterminator="\n").writerow
    names = ["method", "evaluation", "mean", "half_width", "n", "interval_over"]
    write([*names, "half_width_seeds", "half_width_images", "leading", "stale", "chance"])
    for row in table.rows:
        for column in table.columns:
            cell = table.cell(row, column)
            if cell:
                marks = (row, column) in table.leading, table.is_stale(row, column)
                numbers = cell.mean, cell.half, cell.n, cell.over, cell.seeds, cell.images
                # Rounded: the last bits of a mean over drawn rankings are a machine's own.
                chance = round(table.chance.get(column, math.nan), 6)
                write([row, column, *map(_empty_if_nan, (*numbers, *marks, chance))])
    return content.getvalue().rstrip("\n")


def _empty_if_nan(value: Any) -> Any:
    return "" if isinstance(value, float) and math.isnan(value) else value


# ---- LaTeX
def latex(table: Table) -> str:
    """A booktabs table; of a wide one, a table for each block."""
    return "\n\n".join(_tabular(table, block) for block in blocks(table))


def _tabular(table: Table, block: Block) -> str:
    count = len(block.columns)
    lines = [r"\begin{tabular}{l" + "r" * count + "}", r"\toprule"]
    if block.title:
        lines.append(rf" & \multicolumn{{{count}}}{{c}}{{{_tex(block.title)}}} \\")
        lines.append(rf"\cmidrule{{2-{count + 1}}}")
    lines.append(" & ".join(["method", *map(_tex, block.short)]) + r" \\")
    lines.append(r"\midrule")
    for row in table.rows:
        if any(table.cell(row, column) for column in block.columns):
            texts = [_formula(table, row, column) for column in block.columns]
            lines.append(" & ".join([_tex(row), *texts]) + r" \\")
    for title, *texts in chance_row(table, block.columns, empty="--"):
        lines += [r"\midrule", " & ".join([title, *texts]) + r" \\"]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _formula(table: Table, row: str, column: str) -> str:
    cell = table.cell(row, column)
    if cell is None:
        return "--"
    marks = r"^{\dagger}" if table.is_stale(row, column) else ""
    marks += r"^{\bullet}" if (row, column) in table.leading else ""
    return f"${cell_text(cell, table.first_in(column).digits, chr(92) + 'pm')}{marks}$"


def _tex(text: str) -> str:
    text = "".join(TEX.get(c, "\\" + c if c in "&%$#_{}" else c) for c in plain(text))
    return text.replace("−", "--")


# ---- files
# How a table is written, by the suffix of its file.
FORMS: dict[str, Callable[[Table], str]] = {"md": markdown, "csv": csv_lines, "tex": latex}


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write table.md, table.csv and table.tex, and what was declared; returns their paths."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error.strerror}") from error
    paths = []
    for suffix, form in FORMS.items():
        paths.append(folder / f"table.{suffix}")
        write_atomically(paths[-1], form(table) + "\n")
    if table.family != Family():
        paths.append(folder / FAMILY)
        write_atomically(paths[-1], table.family.model_dump_json(indent=2) + "\n")
    return paths
