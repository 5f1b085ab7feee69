"""Which cells of a column lead: the best, and what cannot be told from it."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from helpers.predictions import LESS, MORE, answers, changed, fills, stored
from helpers.rows import lines_of, record, records
from ssl_bench.evaluation.intervals import LEVEL, Paired
from ssl_bench.tables.footnotes import LEADS
from ssl_bench.tables.forms import latex, markdown
from ssl_bench.tables.measured import paired_difference
from ssl_bench.tables.table import Table

SIMULATED = 400  # columns of rows that are all equal


def leaders(table):
    return {row for row, _ in table.leading}


def test_the_best_leads_with_what_mcnemar_cannot_tell_from_it(tmp_path):
    """Of 100 images: 60, 57 of which 5 are lost and 2 won (p 0.45), and 30 (p 2 / 2³⁰)."""
    made = [
        stored(tmp_path, "best", answers(60, 40)),
        stored(tmp_path, "tie", answers(55, 5, 2, 38)),
        stored(tmp_path, "loser", answers(30, 70)),
    ]
    table = Table.of(made, tmp_path)
    assert leaders(table) == {"best", "tie"}
    shown = {line.split(" ")[1]: line for line in markdown(table).splitlines() if " ± " in line}
    assert re.search(rf"60\.0 ± [\d.]+\* {LEADS} \|$", shown["best"])
    assert re.search(rf"57\.0 ± [\d.]+\* {LEADS} \|$", shown["tie"])
    assert LEADS not in shown["loser"]
    assert f"\n{LEADS} The best of a column" in markdown(table)
    assert latex(table).count(r"^{\bullet}$") == 2
    assert [lines_of(table)[m]["leading"] for m in ("best", "tie", "loser")] == [
        "True", "True", "False",
    ]  # fmt: skip


def test_seeds_tell_from_the_best_too():
    """1, 4 and 4 percent less: t = 3 with 2 degrees of freedom, p 0.096; 10 less each: p 0."""
    assert 2 * stats.t.sf(3, 2) == pytest.approx(0.0955, abs=5e-5)
    assert leaders(Table.of(records())) == {"context-encoder", "autoencoder"}


def test_what_cannot_be_paired_with_the_best_does_not_lead(tmp_path):
    """Without the predictions there is nothing to compare 60 and 59 of 100 by."""
    made = [stored(tmp_path, m, answers(n, 100 - n)) for m, n in (("a", 60), ("b", 59))]
    assert leaders(Table.of(made, tmp_path)) == {"a", "b"}
    assert leaders(Table.of(made)) == {"a"}


def test_a_column_of_one_row_has_no_leader(tmp_path):
    table = Table.of([stored(tmp_path, "alone", answers(60, 40))], tmp_path)
    assert not table.leading
    assert LEADS not in markdown(table)
    assert "bullet" not in latex(table)


@pytest.mark.parametrize("said", [True, False])
def test_the_least_leads_where_less_is_better(tmp_path, said):
    """The record says so, or, in the first ones, its harness."""
    protocol = "inpainting/pathak16@1"
    made = [
        stored(tmp_path, "near", fills(10, 15), protocol=protocol),
        stored(tmp_path, "far", fills(20, 18), protocol=protocol),
    ]
    if said:
        made = [changed(record, details={"lower": ["l1", "l2"]}) for record in made]
    table = Table.of(made, tmp_path)
    by_metric = {}
    for row, column in table.leading:
        by_metric.setdefault(column.rpartition(" ")[2], set()).add(row)
    assert by_metric == {
        "l1": {"near"}, "l2": {"near", "far"}, "psnr": {"far"}, "ssim": {"near", "far"},
    }  # fmt: skip


def quick_difference(a, b):
    """The paired t test of three seeds, whose p-value is algebra: 1 − |t| / √(2 + t²)."""
    gaps = np.subtract([one.value for one in a], [one.value for one in b])
    t = abs(gaps.mean()) / (gaps.std(ddof=1) / 3**0.5)
    return Paired(gaps.mean(), np.nan, 1 - t / (2 + t * t) ** 0.5, 3, "seeds", "paired t")


def test_the_quick_difference_is_the_one_of_the_table():
    table = Table.of(records())
    pair = [table.at(row, "linear/logreg@1 pool5") for row in ("context-encoder", "autoencoder")]
    exact = paired_difference(*pair)
    assert exact is not None
    assert quick_difference(*pair).p == pytest.approx(exact.p)


def test_equal_rows_lose_the_mark_as_seldom_as_the_level_says(monkeypatch):
    """Of 9 rows with 3 seeds each that differ by chance alone."""
    monkeypatch.setattr("ssl_bench.tables.table.paired_difference", quick_difference)
    monkeypatch.setattr("ssl_bench.tables.table.mean_interval", lambda v: (np.mean(v), np.nan))
    made = [record(f"row{i}", seed, 0.0) for i in range(9) for seed in range(3)]
    table = Table.of(made)
    random = np.random.default_rng(0)
    lost = 0
    for _ in range(SIMULATED):
        for each, value in zip(made, random.normal(50, 1, len(made)), strict=True):
            each.metrics["top1"] = value
        lost += len(replace(table).leading) < 9  # a table anew, without what the last one cached
    assert stats.binomtest(lost, SIMULATED, LEVEL, alternative="greater").pvalue > LEVEL


def two_columns(folder, protocols=("linear/logreg@1", "finetune/linear-head@1")):
    """The second column's methods have equal predictions: p 1."""
    rows = {"context-encoder": (MORE, MORE), "random": (LESS, MORE)}
    return [
        stored(folder, method, found, protocol=protocol)
        for method, columns in rows.items()
        for found, protocol in zip(columns, protocols, strict=False)
    ]


def test_marks_are_corrected_for_all_pairs_of_the_whole_table(tmp_path):
    alone = Table.of(two_columns(tmp_path / "a", ["linear/logreg@1"]), tmp_path / "a")
    assert leaders(alone) == {"context-encoder"}
    table = Table.of(two_columns(tmp_path / "b"), tmp_path / "b")
    assert table.leading == {(row, column) for row in table.rows for column in table.columns}


def test_a_third_row_makes_three_pairs(tmp_path):
    """p 0.0386 of the best and another: 3 times that, though the best is in two of them only."""
    rows = {"a": MORE, "b": LESS, "c": LESS}
    made = [stored(tmp_path, name, found) for name, found in rows.items()]
    table = Table.of(made, tmp_path)
    assert table.all_pairs == 3
    assert leaders(table) == {"a", "b", "c"}
    assert "for all 3 pairs of rows" in markdown(table)
