"""A part of a table: some sets, protocols, methods. What is left out of sight still counts."""

import re

import pytest

from helpers.places import RESULTS
from helpers.refusals import fails
from ssl_bench.errors import UsageError
from ssl_bench.records.workspace import read_records
from ssl_bench.tables.footnotes import LEADS
from ssl_bench.tables.part import beside, part_of
from ssl_bench.tables.table import Table

VOC, PLACE = RESULTS / "voc-mini-choice", ("--workspace", RESULTS / "quickstart")
LINEAR, FINETUNE = "linear/logreg@1", "finetune/linear-head@1"


@pytest.fixture(scope="module")
def whole() -> Table:
    folder = RESULTS / "quickstart"
    return Table.of(read_records(folder, "evaluation"), folder)


@pytest.mark.parametrize("name", [LINEAR, "linear/logreg"])
def test_a_protocols_columns_are_as_in_the_whole(whole, name):
    part = part_of(whole, protocols=[name])
    assert list(part.columns) == [c for c in whole.columns if c.startswith(LINEAR)]
    assert list(part.rows) == list(whole.rows)
    assert part.leading == {place for place in whole.leading if place[1] in part.columns}
    assert part.all_pairs == whole.all_pairs
    assert {r.identity.protocol for r in part.evaluations} == {LINEAR}


def test_a_method_alone_is_compared_with_nothing(whole):
    part = part_of(whole, methods=["autoencoder"])
    assert list(part.rows) == ["autoencoder"]
    assert part.differences == []


def test_p_values_are_those_of_the_whole_family(whole):
    """Of one pair of one column, Holm's correction is still for all that is declared."""
    part = part_of(whole, protocols=[FINETUNE], methods=["random", "autoencoder"])
    ((name, (cell,)),) = part.differences
    (column,) = part.columns
    assert cell == dict(whole.differences)[name][list(whole.columns).index(column)]
    assert cell is not None
    assert cell.adjusted is not None
    assert cell.adjusted > cell.p


def test_any_row_can_be_the_one_that_others_are_compared_with(whole, bench):
    """The numbers and tests of `compare`; what was declared of a pair counts either way round."""
    one = "context-encoder"
    found = dict(beside(whole, [one]).differences)
    assert list(found) == [f"{row} − {one}" for row in whole.rows if row != one]
    usual = dict(whole.differences)
    assert f"{one} − random" in usual
    for mine, theirs in zip(found[f"random − {one}"], usual[f"{one} − random"], strict=True):
        assert (mine is None) == (theirs is None)
        if mine and theirs:
            assert (mine.mean, mine.half) == pytest.approx((-theirs.mean, theirs.half))
            assert mine.adjusted == theirs.adjusted
    assert any(each and each.adjusted is not None for each in found[f"random − {one}"])
    text = bench("table", "--against", one, "--against", "autoencoder", *PLACE).out
    assert f"| random − {one} " in text
    assert "| random − autoencoder " in text
    assert "− random " not in text
    part = ("--protocol", FINETUNE, "--method", "random")  # which the other row joins
    cut = bench("table", "--against", one, *part, *PLACE).out
    assert [line for line in cut.splitlines() if " − " in line and line[0] == "|"] == [
        line for line in cut.splitlines() if line.startswith(f"| random − {one} ")
    ]


def test_a_form_without_differences_has_none_from_another_row(bench):
    found = bench("table", "--against", "random", "--format", "csv", *PLACE)
    fails(found, 2, "--against", "--format")


def test_several_may_be_named(bench, whole):
    words = ("--protocol", FINETUNE, "--protocol", LINEAR, "--data", "scenes")
    text = bench("table", *words, *PLACE).out
    assert LINEAR in text.splitlines()[0]
    assert FINETUNE in text.splitlines()[0]
    assert "segmentation" not in text
    assert f"A part of a table of 5 rows and {len(whole.columns)} columns" in text
    rows = bench("table", "--method", "random", "--method", "autoencoder", *PLACE).out
    assert "context-encoder" not in rows
    assert LEADS in rows


def test_report_and_compare_take_it_too(bench, tmp_path):
    page = tmp_path / "page.html"
    words = ("--protocol", FINETUNE, "--method", "random")
    assert bench("report", "--out", page, *words, *PLACE).code == 0
    assert set(re.findall(r'<th scope="row">(.*?)</th>', page.read_text())) == {"random", "chance"}
    assert "context-encoder" not in page.read_text()
    both = ("autoencoder", "random", "--data", "scenes")
    found = bench(
        "compare", *both, "--protocol", LINEAR, "--protocol", "finetune/linear-head", *PLACE
    )
    whole = bench("compare", "autoencoder", "random", *PLACE).out.splitlines()
    lines = [line.split() for line in found.out.splitlines() if line.startswith((LINEAR, FINETUNE))]
    assert len(lines) == 2
    assert lines == [line.split() for line in whole if line.startswith((LINEAR, FINETUNE))]


@pytest.mark.parametrize(
    ("word", "name", "near"),
    [
        ("--data", "scene", "did you mean scenes?"),
        ("--method", "autoencodr", "did you mean autoencoder"),
        ("--protocol", "linear/logre", "did you mean linear/logreg@1"),
        ("--protocol", "svm/goyal19-voc07", "no number of svm/goyal19-voc07"),
        ("--against", "autoencodr", "did you mean autoencoder"),
    ],
)
def test_what_is_not_there_is_said(bench, word, name, near):
    fails(bench("table", word, name, *PLACE), 2, name, near)


def test_nothing_in_common_is_said(whole):
    with pytest.raises(UsageError, match="no number of svm/goyal19-voc07 and random"):
        part_of(whole, protocols=["svm/goyal19-voc07"], methods=["random"])


def test_an_ambiguous_method_names_its_rows_and_their_runs(bench):
    runs = read_records(VOC, "pretrain")
    keys = {r.identity.config["lr"]: r.key[:12] for r in runs if r.method == "autoencoder"}
    rows = [f"autoencoder lr={lr} (autoencoder@{key})" for lr, key in keys.items()]
    assert len(rows) == 3
    fails(bench("compare", "autoencoder", "random", "--workspace", VOC), 2, *rows)
    by_row = bench("compare", "autoencoder lr=0.001", "random", "--workspace", VOC)
    assert by_row.code == 0, by_row.err


def test_compare_says_what_two_rows_were_pretrained_on(bench):
    """500 and 1,000 steps; the third was as long as the first."""
    long, short = (
        "context-encoder mask=random-region lr=0.0002 steps=1000",
        "autoencoder lr=0.001",
    )
    a, b, *_ = bench("compare", long, short, "--workspace", VOC).out.splitlines()
    assert a == f"A: {long}, 1,000 steps of 32 on folder:miniplaces-128"
    assert b == f"B: {short}, 500 steps of 32 on folder:miniplaces-128"
    alike = bench("compare", "autoencoder lr=0.0002", short, "--workspace", VOC).out
    assert " steps of " not in alike
