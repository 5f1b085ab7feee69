"""Whether methods stand in the published order: their two values, and Spearman's rho.

Not the numbers are compared, as in published.py, but their order: any linear classifier on the same
frozen layer is of a published one's kind, and so are fine-tuning, detection and segmentation.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from ssl_bench.tables.measured import Measured
from ssl_bench.tables.published import Number, Source, deviations, sources
from ssl_bench.tables.table import Table

FEWEST, MOST_EXACT = 4, 9  # methods: of three, one order in six is the same; 9! is 362,880
KINDS = {"svm": "linear"}  # a linear classifier, too; otherwise as protocols begin


@dataclass(frozen=True)
class Order:
    """The published methods of a column: row, mean and published value, the best mean first.

    `p` is one-sided: the share of all n! orders that are as alike or more; None above 9 methods.
    """

    column: str
    lines: Sequence[tuple[str, str, str]]
    rho: float
    p: float | None
    of: str  # the published tables
    unlike: str  # what is otherwise here, a sentence

    @property
    def text(self) -> str:
        """The verdict in a line, the published table, and what differs."""
        rho = f"{self.rho:+.2f}".replace("-", "−") + f", n = {len(self.lines)}"
        p = "" if self.p is None else f", one-sided p {self.p:.2g} (exact)"
        return f"Spearman's rho {rho}{p}. Published: {self.of}. {self.unlike}"


def published_orders(table: Table) -> list[Order]:
    """Of each column and published column of its kind with four methods or more in common."""
    columns = ((c, of) for c in table.columns for of in _published_for(table.first_in(c)))
    return [order for column, of in columns if (order := _order(table, column, of))]


def alike(measured: Sequence[float], published: Sequence[float]) -> tuple[float, float | None]:
    """Spearman's rho of n values each, not all equal, and its one-sided p; see Order."""
    # Not by scipy.stats, which takes as long to import as all else of a page.
    values = np.array([measured, published])
    less = values[:, :, None] < values[:, None]  # (2, n, n)
    # How many are less, less how many are greater: twice the ranks about their mean, with ties too.
    x, y = less.sum(1) - less.sum(2)
    rho = float(x @ y / np.sqrt((x @ x) * (y @ y)))
    if len(x) > MOST_EXACT:
        return rho, None
    orders = np.array(list(permutations(y)))  # (n!, n), whole numbers: no rounding makes alike
    return rho, float(np.mean(orders @ x >= x @ y))


def _published_for(one: Measured) -> Iterable[list[tuple[Number, Source]]]:
    """The published columns of a number's kind and layer, each with the tables that have some."""
    found = defaultdict[tuple[object, ...], list[tuple[Number, Source]]](list)
    here = _kind(one.record.identity.protocol), one.record.column, one.metric
    for source, number in ((s, n) for s in sources() for n in s.number):
        # The headline stands for a metric that is not measured: top-1 for average precision.
        metric = number.metric if number.metric in one.record.shown else one.record.shown[0]
        if (_kind(number.protocol), number.layer, metric) == here:
            what = number.protocol, number.metric, number.data, number.test_images
            found[what].append((number, source))
    return found.values()


def _kind(protocol: str) -> str:
    kind = protocol.partition("/")[0]
    return KINDS.get(kind, kind)


def _order(table: Table, column: str, of: Sequence[tuple[Number, Source]]) -> Order | None:
    # Of a method that two tables have, the first table's number.
    known = {method: (v, s) for n, s in reversed(of) for method, v in n.values.items()}
    rows, one = _rows(table, column, known), table.first_in(column)
    means = {row: table.cells[row, column].mean for row in rows}
    ranked = sorted(rows, key=lambda row: means[row], reverse=not one.lower)
    pairs = [(means[row], known[rows[row]][0]) for row in ranked]
    if len(rows) < FEWEST or any(len({*values}) == 1 for values in zip(*pairs, strict=True)):
        return None  # of equal values there is no order
    found = [(table.at(row, column)[0], known[rows[row]][1]) for row in ranked]
    text = f"{{:.{one.digits}f}}".format
    lines = [(row, text(a), text(b)) for row, (a, b) in zip(ranked, pairs, strict=True)]
    names = "; ".join(dict.fromkeys(source.name for _, source in found))
    return Order(column, lines, *alike(*zip(*pairs, strict=True)), names, _unlike(found, of[0][0]))


def _rows(table: Table, column: str, known: Mapping[str, tuple[float, Source]]) -> dict[str, str]:
    """The row of each published method: its only one, or else that called by the method alone.

    Encoders kept on the way and those of another network than the paper's are left out.
    """
    found = {row: at[0].record for row in table.rows if (at := table.at(row, column))}
    found = {row: one for row, one in found.items() if one.method in known and not one.details.kept}
    of = ((row, one, known[one.method][1]) for row, one in found.items())
    rows = {row: one.method for row, one, source in of if source.has_network_of(one)}
    count = Counter(rows.values())
    return {row: method for row, method in rows.items() if count[method] == 1 or row == method}


def _unlike(found: Sequence[tuple[Measured, Source]], number: Number) -> str:
    """One sentence: protocol, images, size, pretraining images and steps that are others here."""
    record, there = found[0][0].record, f"{number.data} ({number.test_images:,})"
    protocol = record.identity.protocol.partition("@")[0]
    said = [f"{protocol}, not {number.protocol}"] if protocol != number.protocol else []
    if not number.is_of(record):
        said.append(f"{record.data} ({record.details.test_images:,} test images), not {there}")
    said += [text for one, source in found for text in deviations(one, source, settings=False)]
    return f"Here: {'; '.join(dict.fromkeys(said)) or 'nothing known that differs'}."
