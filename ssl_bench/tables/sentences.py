"""What a table shows, in sentences made from its tests, and nothing that they do not say."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ssl_bench.evaluation.intervals import WEIGHTS, Paired
from ssl_bench.tables.blocks import short_columns
from ssl_bench.tables.family import Comparison
from ssl_bench.tables.footnotes import ABOVE_CHANCE
from ssl_bench.tables.table import Table

SMALLEST = 0.0001  # of a p-value that is written out


@dataclass(frozen=True)
class Findings:
    """What was measured; how many of the declared differences are not zero; which, and which not.

    `untold` leads to `open`, those that are not told apart from zero; `rest` is what else must be
    said for the numbers to be believed.
    """

    measured: str
    tested: str
    clear: Sequence[str]
    untold: str
    open: Sequence[str]
    rest: Sequence[str]


def paragraph(table: Table) -> str:
    """All of it as one text."""
    found = findings(table)
    parts = [found.measured, found.tested, _listed(found.clear)]
    if found.open:
        parts.append(f"{found.untold}: {_listed(found.open)}")
    return " ".join(part for part in (*parts, *found.rest) if part)


def _listed(lines: Sequence[str]) -> str:
    return "; ".join(line.removesuffix(".") for line in lines) + "." if lines else ""


def findings(table: Table) -> Findings:
    """The sentences of a table, or of a part of one: there the whole's tests count."""
    there = [
        place
        for place in table.declared
        if {*place[:2]} <= {*table.rows} and place[2] in table.columns
    ]
    pairs = [(place, paired) for place in there if (paired := table.difference(*place))]
    clear = [(place, paired) for place, paired in pairs if paired.clear]
    rest = [(place, paired) for place, paired in pairs if not paired.clear]
    return Findings(
        _measured(table),
        _tested(table, len(pairs), len(clear)),
        [_statement(table, *each) for each in clear],
        _untold(len(rest)),
        [_statement(table, *each) for each in rest],
        list(_rest(table, pairs)),
    )


def _measured(table: Table) -> str:
    records = table.evaluations
    protocols = dict.fromkeys(record.identity.protocol for record in records)
    sets = {record.data: record.details.test_images for record in records}
    on = ", ".join(f"{name} ({count:,} test images)" for name, count in sets.items())
    seeds = sorted({cell.n for cell in table.cells.values()})
    n = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
    rows = _counted(len(table.rows), "row")
    s = "" if seeds[-1] == 1 else "s"
    return f"Measured: {rows} by {', '.join(protocols)} on {on}; {n} seed{s} a number."


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _tested(table: Table, tested: int, clear: int) -> str:
    if not tested:
        return "No difference of these rows is tested: what stands below shows none."
    whole = len(table.declared)
    declared = "declared differences" if table.family.tests else "differences from baselines"
    part = "" if whole == tested else f", {tested} of which are shown here"
    of = f"Of the {whole} {declared} that are tested together{part}"
    if whole == 1:
        of = f"The one of the {declared} that can be tested"
        return f"{of} {'is' if clear else 'is not told apart from'} {'not ' * bool(clear)}zero."
    are, end = "is" if clear == 1 else "are", ":" if clear else "."
    return f"{of}, {clear or 'none'} {are} not zero at the 5 % level by Holm's correction{end}"


def _statement(table: Table, place: Comparison, paired: Paired) -> str:
    """`A is ahead of B by 5.6 ± 2.1 points (…; p = 0.027 by Holm; of the method: 3 seeds).`"""
    a, b, column = place
    one = table.first_in(column)
    unit = one.units.get(one.metric, "points")
    size = f"{abs(paired.mean):.{one.digits}f} ± {paired.half:.{one.digits}f} {unit}".rstrip()
    better = (paired.mean < 0) is one.lower
    p = 1.0 if paired.adjusted is None else paired.adjusted
    tested = f"p < {SMALLEST}" if p < SMALLEST else f"p = {p:.2g}"
    where = short_columns(table)[column].replace("\n", " ")
    where = where if one.metric in where.split() else f"{one.metric}, {where}"
    basis = f"{where}; {tested} by Holm; {paired.basis}"
    if paired.clear:
        return f"{a} is {'ahead of' if better else 'behind'} {b} by {size} ({basis})."
    sign = "+" if paired.mean >= 0 else "−"
    return f"{a} − {b}: {sign}{size} ({basis})."


def _untold(count: int) -> str:
    are = "1 is" if count == 1 else f"{count} are"
    return f"{are} not told apart from zero, which does not say that the two are equal"


def _rest(table: Table, pairs: Sequence[tuple[Comparison, Paired]]) -> Iterator[str]:
    if pairs:
        yield "The ± are 95 % intervals, not adjusted. What is not declared is not tested."
    if any(paired.unit == WEIGHTS for _, paired in pairs):
        yield "What is told of these weights says nothing of another training."
    if any(c.details.control and c.details.control.z >= ABOVE_CHANCE for c in table.controls):
        yield "A control with shuffled training labels is above chance: do not trust these numbers."
    stale = sum(table.is_stale(*place) for place in table.measured)
    if stale:
        yield f"{_counted(stale, 'number')} would come out otherwise today (†)."
