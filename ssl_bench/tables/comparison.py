"""`bench compare`: all numbers that two methods share, with their paired differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_bench.errors import UsageError, unknown
from ssl_bench.evaluation.intervals import Paired, holm
from ssl_bench.records.record import Record
from ssl_bench.tables.measured import Measured, paired_difference

Column = tuple[str, str]  # its printed name, and the digest of its test images


@dataclass(frozen=True)
class Compared:
    """A number that both methods have: its column, their means, a − b, and Holm's p-value."""

    column: str
    a: float
    b: float
    digits: int
    difference: Paired
    p_holm: float


def compare(
    records: Sequence[Record], a: str, b: str, protocol: str | None, workspace: Path
) -> list[Compared]:
    """All numbers, or those of one protocol, that methods a and b have on the same images.

    The p-values are corrected over what is returned. Raises UsageError for a method without a
    number, or two without a common one.
    """
    mine, theirs = (_numbers(records, name, protocol, workspace) for name in (a, b))
    found = {
        column: paired
        for column in mine
        if column in theirs and (paired := paired_difference(mine[column], theirs[column]))
    }
    if not found:
        raise UsageError(f"{a} and {b} share no number on the same images and seeds")
    corrected = holm([paired.p for paired in found.values()])
    return [
        Compared(
            column=column[0],
            a=_mean(mine[column]),
            b=_mean(theirs[column]),
            digits=mine[column][0].digits,
            difference=paired,
            p_holm=p,
        )
        for (column, paired), p in zip(found.items(), corrected, strict=True)
    ]


def _mean(numbers: Sequence[Measured]) -> float:
    return float(np.mean([one.value for one in numbers]))


def _numbers(
    records: Sequence[Record], name: str, protocol: str | None, workspace: Path
) -> dict[Column, list[Measured]]:
    """Everything measured of a method, by protocol, layer, metric and test images."""
    method, _, key = name.partition("@")
    runs = [r for r in records if r.kind == "pretrain" and r.method == method]
    # The newest run alone, so one seed of several: a table of the same records has them all.
    run = next((r.key for r in reversed(runs) if r.key.startswith(key)), None)
    own = [
        r
        for r in records
        if r.kind == "evaluation"
        and r.identity.control is None
        and r.method == (method if run else name)
        and (not run or not r.identity.encoder or r.identity.encoder.run == run)
    ]
    if not own:
        raise unknown("method", name, {r.method for r in records if r.kind == "evaluation"})
    found: dict[Column, list[Measured]] = {}
    for record in own:
        if protocol and record.identity.protocol.partition("@")[0] != protocol:
            continue
        for metric in record.shown:
            words = (record.details.protocol, record.column, metric, "on", record.data)
            column = " ".join(filter(None, words)), record.images
            found.setdefault(column, []).append(Measured(record, metric, workspace))
    if not found:
        raise UsageError(f"{name} has no number of {protocol}")
    return found


def comparison_text(a: str, b: str, compared: Sequence[Compared]) -> str:
    """A line for each number: a, b, a − b, p and Holm's p, the test and what it is over."""
    width = max(len(one.column) for one in compared)
    heads = f"{'A':>7}  {'B':>7}  {'A − B':>16}  {'p':>8}  {'p, Holm':>8}  test"
    lines = [f"A: {a}", f"B: {b}", f"{'':{width}}  {heads}"]
    for one in compared:
        paired, digits = one.difference, one.digits + 1  # one more than in a table
        gap = f"{paired.mean:+.{digits}f} ± {paired.half:.{digits}f}"
        means = f"{one.a:7.{digits}f}  {one.b:7.{digits}f}"
        tested = f"{paired.p:8.2g}  {one.p_holm:8.2g}  {paired.test}, {paired.over}"
        lines.append(f"{one.column:{width}}  {means}  {gap:>16}  {tested}")
    return "\n".join(lines)
