"""Numbers of an older protocol or pretext are marked in every form."""

import re

from helpers.predictions import changed
from helpers.rows import lines_of, record
from ssl_bench import catalogue
from ssl_bench.tables.footnotes import STALE
from ssl_bench.tables.forms import latex, markdown
from ssl_bench.tables.table import Table


def stale_in(table):
    """The notes on stale numbers."""
    return [line for line in markdown(table).splitlines() if line.startswith(STALE)]


def test_an_older_protocols_number_is_stale():
    made = changed(record("random", 0, 20.0), protocol="linear/logreg@0")
    table = Table.of([made, record("random", 0, 21.0)])
    assert f"20.0 ± 2.0*{STALE}" in markdown(table)
    assert f"21.0 ± 2.0*{STALE}" not in markdown(table)
    (note,) = stale_in(table)
    assert "linear/logreg@0" in note
    assert "linear/logreg@1 now" in note
    assert re.search("`bench [^`]+`", note)  # the command that renews it


def test_a_number_of_an_older_pretext_is_stale():
    made = record("context-encoder", 0, 20.0)
    version = catalogue.pretext("context-encoder").version
    assert not stale_in(Table.of([changed(made, details={"pretext_version": version})]))
    (note,) = stale_in(Table.of([changed(made, details={"pretext_version": version - 1})]))
    assert f"context-encoder version {version - 1}, which is {version} now" in note


def test_a_protocol_or_pretext_that_is_not_installed_is_not_judged():
    made = record("somebodys", 0, 20.0)
    made = changed(made, protocol="somebodys/probe@7", details={"pretext_version": 3})
    assert not stale_in(Table.of([made]))


def test_every_form_marks_stale_numbers():
    made = changed(record("context-encoder", 0, 20.0), details={"pretext_version": 0})
    table = Table.of([made, record("random", 0, 21.0)])
    assert markdown(table).count(STALE) == 1 + 1  # the cell and its note
    assert [line["stale"] for line in lines_of(table).values()] == ["False", "True"]
    assert latex(table).count(r"\dagger") == 1
