"""What a table shows in sentences: the numbers of its tests, and no claim beyond them."""

import re

import pytest

from helpers.places import RESULTS
from helpers.predictions import LESS, MORE, answers, changed, fills, stored
from ssl_bench.records.record import Control
from ssl_bench.records.workspace import read_records
from ssl_bench.tables.family import Columns, Contrast, Family
from ssl_bench.tables.part import part_of
from ssl_bench.tables.sentences import findings, paragraph
from ssl_bench.tables.table import Table

CLAIMS = re.compile(r"is (ahead of|behind)")
ONE = Family(contrasts=[Contrast(a="context-encoder", b="random")])


def two(tmp_path, a=MORE, b=LESS, family=ONE):
    made = [stored(tmp_path, "random", b), stored(tmp_path, "context-encoder", a)]
    return Table.of(made, tmp_path, family)


def test_a_difference_that_is_told_apart_has_its_numbers(tmp_path):
    """10 to 2 of 100 images: McNemar's p = 0.0386, the only one that is declared."""
    found = findings(two(tmp_path))
    (line,) = found.clear
    assert line.startswith("context-encoder is ahead of random by 8.0 ± 6.")
    assert "points (top1, linear/logreg@1 pool5; p = 0.039 by Holm; McNemar" in line
    assert "of these weights: one seed" in line
    assert "these weights says nothing of another training" in found.rest[-1]
    assert found.tested.endswith("is not zero.")
    assert found.measured == (
        "Measured: 2 rows by linear/logreg@1 on scenes (100 test images); 1 seed a number."
    )


def test_the_other_way_round_is_behind(tmp_path):
    (line,) = findings(two(tmp_path, LESS, MORE)).clear
    assert line.startswith("context-encoder is behind random by 8.0 ± ")


def test_less_is_better_where_the_metric_says_so(tmp_path):
    made = [
        stored(tmp_path, name, fills(l1, 10), protocol="inpainting/pathak16@1")
        for name, l1 in (("random", 20), ("context-encoder", 10))
    ]
    own = Family(
        contrasts=[
            Contrast(
                a="context-encoder", b="random", columns=[Columns(protocol="inpainting/pathak16")]
            )
        ]
    )
    table = Table.of(made, tmp_path, own)
    assert table.declared
    for line in findings(table).clear:
        one = table.first_in(table.declared[0][2])
        assert ("ahead" in line) is (one.metric == "l1")
        assert ("points" in line) is (one.metric not in one.units)


def test_what_is_not_told_apart_is_no_claim(tmp_path):
    table = two(tmp_path, answers(51, 49), answers(50, 50))
    found, text = findings(table), paragraph(table)
    assert found.clear == []
    assert found.tested.endswith("is not told apart from zero.")
    (line,) = found.open
    assert line.startswith("context-encoder − random: +1.0 ± ")
    assert "p = 1 by Holm" in line
    assert "which does not say that the two are equal" in text
    assert not CLAIMS.search(text)


def test_what_is_not_declared_is_not_spoken_of(tmp_path):
    """The family is about another evaluation: the table's difference is exploratory."""
    family = Family(headlines=[Columns(protocol="svm/goyal19-voc07")])
    text = paragraph(two(tmp_path, family=family))
    assert not CLAIMS.search(text)
    assert "No difference of these rows is tested" in text
    assert "8.0" not in text


@pytest.mark.parametrize("suite", ["quickstart", "inpainting-mini"])
def test_claims_are_those_that_tables_print_bold(suite):
    table = Table.of(read_records(RESULTS / suite, "evaluation"), RESULTS / suite)
    bold = [c for _, cells in table.differences for c in cells if c and c.clear]
    tested = [c for _, cells in table.differences for c in cells if c and c.adjusted is not None]
    found = findings(table)
    assert len(found.clear) == len(bold) == len(CLAIMS.findall(paragraph(table)))
    assert len(found.clear) + len(found.open) == len(tested)
    sizes = [float(re.findall(r" by (\d+\.\d+) ± ", line)[0]) for line in found.clear]
    assert sorted(sizes) == pytest.approx(sorted(abs(c.mean) for c in bold), abs=0.051)
    assert f"Of the {len(tested)} " in found.tested


def test_of_a_part_the_tests_are_the_wholes():
    table = Table.of(read_records(RESULTS / "quickstart", "evaluation"), RESULTS / "quickstart")
    part = findings(part_of(table, protocols=["finetune/linear-head"]))
    whole = findings(table).clear
    assert part.clear == [line for line in whole if "finetune/linear-head" in line] != whole
    assert "Of the 8 declared differences that are tested together, 4 of which are" in part.tested
    assert findings(part_of(table, methods=["random"])).clear == []


def test_a_control_above_chance_is_said(tmp_path):
    made = stored(tmp_path, "random", MORE)
    bad = changed(made, details={"control": Control(chance=50, spread=1, z=9.0)})
    bad = bad.model_copy(
        update={"identity": bad.identity.model_copy(update={"control": "shuffled"})}
    )
    assert "do not trust these numbers" in paragraph(Table.of([made, bad], tmp_path))
    assert "do not trust" not in paragraph(Table.of([made], tmp_path))
