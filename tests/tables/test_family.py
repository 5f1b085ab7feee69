"""Which differences are tested: as a suite declares them, kept beside the table, or the default."""

import tomllib
from importlib import resources
from typing import Any

import pytest

from helpers.places import RESULTS
from helpers.predictions import answers, changed, stored
from helpers.refusals import fails
from ssl_bench.errors import DataError
from ssl_bench.evaluation.suite import Suite
from ssl_bench.evaluation.suite_file import read_suite
from ssl_bench.tables.family import FILE, Columns, Contrast, Family, family_beside, family_of
from ssl_bench.tables.forms import markdown, write_table
from ssl_bench.tables.table import Table

SUITE = """
name = "three"
[[pretrain]]
method = "random"
[[pretrain]]
method = "autoencoder"
[[pretrain]]
method = "context-encoder"
[[evaluate]]
evaluation = "linear-probe"
layers = ["conv3", "pool5"]
[[evaluate]]
evaluation = "knn"
layers = ["all"]
k = [3]
"""
METHODS = "random", "autoencoder", "context-encoder"


def declared(tmp_path, *changes):
    """The family of the suite with these changes."""
    text = SUITE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "three.toml").write_text(text)
    return family_of(read_suite(str(tmp_path / "three.toml")))


def table(workspace, family=None):
    """Three methods; two layers of a linear probe, one of nearest neighbours; one seed."""
    made = []
    for place, method in enumerate(METHODS):
        predictions = answers(40 + 9 * place, 60 - 9 * place)
        predictions["predicted_by_k"] = predictions["predicted"][:, None]
        asked: list[tuple[str, tuple[str, ...], Any]] = [
            ("linear/logreg@1", ("conv3", "pool5"), {}),
            ("knn/vissl@1", ("pool5",), {"k": (3,)}),
        ]
        for protocol, layers, settings in asked:
            record = stored(workspace, method, predictions, protocol=protocol, **settings)
            made += [changed(record, layer=layer) for layer in layers]
    return Table.of(made, workspace, family)


def comparisons(table):
    return {(a, b, column.removesuffix("@1 k=3 pool5")) for a, b, column in table.declared}


AGAINST = [(METHODS[1], METHODS[0]), (METHODS[2], METHODS[0]), (METHODS[2], METHODS[1])]


def test_by_default_rows_meet_their_baselines_at_the_first_column_of_each_evaluation(tmp_path):
    """Rows of records without settings have every baseline's."""
    found = comparisons(table(tmp_path))
    columns = "linear/logreg@1 conv3", "knn/vissl"
    assert found == {(a, b, column) for a, b in AGAINST for column in columns}


def test_a_headline_is_at_its_layer_and_leaves_other_evaluations_out(tmp_path):
    layers = 'layers = ["conv3", "pool5"]'
    family = declared(tmp_path, (layers, f'{layers}\nheadline = "pool5"'))
    assert family.headlines == [Columns(protocol="linear/logreg", layers=["pool5"])]
    found = comparisons(table(tmp_path, family))
    assert found == {(a, b, "linear/logreg@1 pool5") for a, b in AGAINST}


def test_a_headline_without_a_layer_is_at_all_of_the_suite(tmp_path):
    layers = 'layers = ["conv3", "pool5"]'
    family = declared(
        tmp_path, (layers, f"{layers}\nheadline = true"), ("k = [3]", "k = [3]\nheadline = true")
    )
    assert [c.layers for c in family.headlines] == [["conv3", "pool5"], []]
    assert [c.settings for c in family.headlines] == [[], ["k=3"]]


def test_settings_tell_headlines_apart(tmp_path):
    """The suite asks for k = 3; what was measured with 5 is exploratory."""
    family = Family(headlines=[Columns(protocol="knn/vissl", settings=["k=5"])])
    assert not comparisons(table(tmp_path, family))
    family = Family(headlines=[Columns(protocol="knn/vissl", settings=["k=3"])])
    assert {column for *_, column in comparisons(table(tmp_path, family))} == {"knn/vissl"}


def test_a_precision_is_no_setting_of_a_headline(tmp_path):
    record = stored(tmp_path, "random", answers(4, 6))
    columns = Columns(protocol="linear/logreg")
    assert columns.hold(changed(record, details={"protocol": "linear/logreg@1 precision=bf16"}))
    assert not columns.hold(changed(record, details={"protocol": "linear/logreg@1 strengths=2"}))


CONTRAST = '\n[[contrast]]\na = "context-encoder"\nb = "autoencoder"\n'


def test_contrasts_take_the_place_of_the_baselines(tmp_path):
    made = table(tmp_path, declared(tmp_path, ("k = [3]\n", f"k = [3]\n{CONTRAST}")))
    columns = "linear/logreg@1 conv3", "knn/vissl"
    assert comparisons(made) == {(METHODS[2], METHODS[1], column) for column in columns}
    text = markdown(made)
    assert "for the 2 declared" in text
    assert "(+18.0 ± " in text  # against random weights: exploratory


def test_a_contrast_is_at_its_own_layer(tmp_path):
    own = f"{CONTRAST}evaluation = 'linear-probe'\nlayer = 'pool5'\n"
    made = table(tmp_path, declared(tmp_path, ("k = [3]\n", f"k = [3]\n{own}")))
    assert comparisons(made) == {(METHODS[2], METHODS[1], "linear/logreg@1 pool5")}
    assert "not zero at the 5 % level (McNemar)." in markdown(made)  # one needs no correction


def test_a_contrast_of_rows_that_no_table_compares_has_a_line(tmp_path):
    """Against the grain: random − context encoder, which no baseline is."""
    family = Family(contrasts=[Contrast(a="random", b="context-encoder")])
    made = table(tmp_path, family)
    cells = dict(made.differences)["random − context-encoder"]
    assert [cell.adjusted is not None for cell in cells if cell] == [True, False, True]
    back = dict(made.differences)["context-encoder − random"]
    assert [c.adjusted for c in back if c] == [c.adjusted for c in cells if c]


def test_a_contrast_that_was_not_measured_is_named(tmp_path):
    family = Family(contrasts=[Contrast(a="inpainting", b="random")])
    assert "Declared, but not measured: inpainting − random." in markdown(table(tmp_path, family))


def test_p_values_of_the_family_are_holms_and_others_are_none(tmp_path):
    """McNemar of 9 and 18 images that one has and the other has not: 2⁻⁸ and 2⁻¹⁷."""
    family = Family(headlines=[Columns(protocol="linear/logreg", layers=["pool5"])])
    made = table(tmp_path, family)
    place = made.columns.index("linear/logreg@1 pool5")
    there = {name: cells[place] for name, cells in made.differences}
    adjusted = {name: paired.adjusted for name, paired in there.items() if paired}
    assert adjusted == pytest.approx(
        {
            "context-encoder − random": 3 * 2**-17,
            "autoencoder − random": 2 * 2**-8,
            "context-encoder − autoencoder": 2 * 2**-8,
        }
    )
    others = [c for _, cells in made.differences for i, c in enumerate(cells) if i != place]
    assert {cell.adjusted for cell in others if cell} == {None}
    assert not any(cell.clear for cell in others if cell)


# ---- its file


def test_the_family_is_kept_beside_the_table_and_makes_it_again(tmp_path, bench):
    family = Family(headlines=[Columns(protocol="linear/logreg", layers=["pool5"])])
    made = table(tmp_path, family)
    paths = write_table(made, tmp_path)
    assert [path.name for path in paths] == ["table.md", "table.csv", "table.tex", FILE]
    assert family_beside(tmp_path) == family
    assert comparisons(table(tmp_path)) == comparisons(made)
    (tmp_path / FILE).unlink()
    assert family_beside(tmp_path) == Family()
    assert FILE not in [path.name for path in write_table(table(tmp_path), tmp_path)]


def test_a_family_that_was_edited_makes_another_table(tmp_path, bench):
    for method in METHODS:
        stored(tmp_path, method, answers(40 + len(method), 60 - len(method)))
    (tmp_path / FILE).write_text('{"contrasts": [{"a": "autoencoder", "b": "random"}]}')
    assert bench("table", "--workspace", tmp_path, "--out", tmp_path).code == 0
    (tmp_path / FILE).write_text('{"contrasts": [{"a": "context-encoder", "b": "random"}]}')
    said = bench("verify", tmp_path).out
    assert f"{tmp_path / 'table.md'} is not the table of the records beside it" in said


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"headlines": 3}', '{"more": []}', "[" * 70_000],
    ids=["empty", "cut", "list", "type", "key", "large"],
)  # fmt: skip
def test_a_damaged_family_is_named(tmp_path, bench, text):
    stored(tmp_path, "random", answers(4, 6))
    (tmp_path / FILE).write_text(text)
    with pytest.raises(DataError, match=FILE):
        family_beside(tmp_path)
    fails(bench("table", "--workspace", tmp_path), 1, FILE)


def shipped(name):
    """The suite, without a look at its images: they may not be here."""
    path = resources.files("ssl_bench.evaluation") / "suites" / f"{name}.toml"
    return Suite.model_validate(tomllib.loads(path.read_text()))


def test_the_committed_family_is_the_suites():
    for name in ("quickstart", "voc-mini", "methods-small"):
        assert family_beside(RESULTS / name) == family_of(shipped(name))


def test_rows_stand_as_the_suite_names_them_whenever_they_were_made(tmp_path):
    """Behind the baselines; what it does not name comes last, in the order of its records."""
    names = "vicreg", "byol", "random", "ours", "simclr", "theirs"
    made = [stored(tmp_path, name, answers(60, 40)) for name in names]
    asked = Family(order=["simclr", "byol", "random", "dino", "vicreg"])
    assert Table.of(made, tmp_path, asked).rows == [
        "random", "simclr", "byol", "vicreg", "ours", "theirs",
    ]  # fmt: skip
    assert Table.of(made, tmp_path).rows == ["random", *(n for n in names if n != "random")]


def test_layers_of_rows_that_an_evaluation_leaves_out_are_not_its_own():
    """EfficientNet's blocks stand in other columns of voc-mini than the fine-tuned ones."""
    finetune, *_ = family_of(shipped("voc-mini")).headlines
    assert (finetune.protocol, finetune.layers) == ("finetune/krahenbuhl16", [])


def test_a_family_of_which_nothing_was_measured_is_said(tmp_path):
    text = markdown(table(tmp_path, Family(headlines=[Columns(protocol="svm/goyal19-voc07")])))
    assert "Of what was declared nothing was measured." in text
