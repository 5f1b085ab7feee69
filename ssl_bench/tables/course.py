"""Courses: the rows of a table that are one training, by the steps of their encoders."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ssl_bench.errors import UsageError, unknown
from ssl_bench.tables.names import step_mark
from ssl_bench.tables.table import Table

SAME = ("arch", "image_size", "width", "norm")  # what a row beside a course shares with it


@dataclass(frozen=True)
class Course:
    """A method's rows by the step of their encoders, and the rows that no steps have made."""

    name: str
    rows: Mapping[int, str]
    across: Sequence[str]


def courses_of(table: Table, methods: Sequence[str] = ()) -> list[Course]:
    """Those with an encoder that was kept on the way, or of these methods or names.

    UsageError where there is none.
    """
    found: dict[str, dict[int, str]] = defaultdict(dict)
    across = []
    for row in table.rows:
        record = table.record_of(row)
        step, kept = record.pretraining.get("steps"), record.details.kept
        if step is not None:
            found[row.replace(step_mark(record), "")][kept.step if kept else step] = row
        elif row not in table.free:
            across.append(row)
    courses = [
        Course(name, dict(sorted(rows.items())), [a for a in across if _same(table, a, rows)])
        for name, rows in found.items()
        if any(table.record_of(row).details.kept for row in rows.values())
    ]
    if not courses:
        raise UsageError("no encoder on the way was measured: `bench pretrain METHOD --keep-at`")
    known = {name for c in courses for name in (c.name, table.method(next(iter(c.rows.values()))))}
    for name in methods:
        if name not in known:
            raise unknown("method with a course", name, known)
    asked = {*methods} or known
    return [c for c in courses if {c.name, table.method(next(iter(c.rows.values())))} & asked]


def _same(table: Table, row: str, rows: Mapping[int, str]) -> bool:
    """Whether a row is of the network that a course trains, or from elsewhere."""
    own = table.record_of(row).pretraining
    theirs = table.record_of(next(iter(rows.values()))).pretraining
    return all(own.get(name) == theirs.get(name) for name in SAME) or not own
