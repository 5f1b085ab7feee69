"""Encoders of one name are rows of their own: no number is lost, no two networks are averaged."""

import re

import pytest

from helpers.predictions import LESS, MORE, answers, changed, stored
from helpers.refusals import fails
from ssl_bench.records.record import EncoderIdentity
from ssl_bench.tables.forms import markdown
from ssl_bench.tables.table import Table

NAME, COLUMN = "alexnet weights=checkpoint", "linear/logreg@1 pool5"


def elsewhere(workspace, weights, predictions, spec=None, name=NAME, **settings):
    """A number of a weights file: its record has no pretraining."""
    made = stored(workspace, name, predictions, protocol="linear/logreg@1", **settings)
    encoder = EncoderIdentity(run=name, weights=weights * 32, spec=spec or {})
    identity = made.identity.model_copy(update={"encoder": encoder})
    return changed(made, details={"pretraining": None}, identity=identity)


def of_a_run(workspace, weights, seed, predictions, version=1):
    """A number of a pretraining with this seed."""
    made = elsewhere(workspace, weights, predictions, name="random", seed=seed)
    return changed(made, details={"pretraining": {"seed": seed}, "pretext_version": version})


def means(records):
    """By row, the mean and the number of seeds of the one column."""
    table = Table.of(records)
    cells = {row: table.cell(row, COLUMN) for row in table.rows}
    return {row: (cell.mean, cell.n) for row, cell in cells.items() if cell}


def test_two_files_of_one_name_are_two_rows(tmp_path):
    made = [elsewhere(tmp_path, w, answers(n, 10 - n)) for w, n in (("3f9a2c", 6), ("77b01d", 4))]
    assert means(made) == {f"{NAME} 3f9a2c": (60, 1), f"{NAME} 77b01d": (40, 1)}


def test_a_name_of_one_file_has_no_mark(tmp_path):
    assert means([elsewhere(tmp_path, "3f9a2c", answers(6, 4))]) == {NAME: (60, 1)}


def test_two_files_are_not_two_seeds(tmp_path):
    """Measured with another seed each, they have no cell in common, and still no mean."""
    made = [
        elsewhere(tmp_path, weights, answers(right, 10 - right), seed=seed)
        for seed, (weights, right) in enumerate((("3f9a2c", 6), ("77b01d", 4)))
    ]
    assert set(means(made).values()) == {(60, 1), (40, 1)}


def test_one_file_read_at_two_sizes_is_two_rows(tmp_path):
    made = [
        elsewhere(tmp_path, "3f9a2c", answers(6, 4), spec={"image_size": size}) for size in (64, 96)
    ]
    rows = list(means(made))
    assert len(rows) == 2
    assert all(re.fullmatch(rf"{NAME} [0-9a-f]{{6}}", row) for row in rows)


def test_a_row_without_an_encoder_has_its_images_size(tmp_path):
    made = [
        changed(
            one := stored(tmp_path, "mean colour", answers(6, 4), protocol="linear/logreg@1"),
            identity=one.identity.model_copy(update={"encoder": None, "image_size": size}),
            details={"pretraining": None},
        )
        for size in (64, 96)
    ]
    assert set(means(made)) == {"mean colour 64 px", "mean colour 96 px"}


def test_seeds_of_one_method_are_one_row(tmp_path):
    made = [of_a_run(tmp_path, f"{seed}{seed}aaaa", seed, answers(5, 5)) for seed in (0, 1, 2)]
    assert means(made) == {"random": (50, 3)}


def test_a_run_of_two_machines_is_two_rows(tmp_path):
    """The seeds' newest weights are one row; what was there before of seed 0 is another."""
    made = [
        of_a_run(tmp_path, "01dbee", 0, answers(2, 8)),
        of_a_run(tmp_path, "3f9a2c", 0, answers(6, 4)),
        of_a_run(tmp_path, "77b01d", 1, answers(4, 6)),
    ]
    assert means(made) == {"random 3f9a2c": (50, 2), "random 01dbee": (20, 1)}


def test_of_an_older_version_of_a_pretext_the_newest_number_stands(tmp_path):
    made = [
        of_a_run(tmp_path, "01dbee", 0, answers(2, 8), version=1),
        of_a_run(tmp_path, "3f9a2c", 0, answers(6, 4), version=2),
    ]
    assert means(made) == {"random": (60, 1)}


def write(record, workspace):
    """In place of what was stored, which has another key."""
    from ssl_bench.files import key_of
    from ssl_bench.records.workspace import folder_of

    folder = folder_of(workspace, record)
    key = key_of(record.identity.plain())
    (folder / "record.json").write_text(record.model_copy(update={"key": key}).text)
    folder.rename(folder.with_name(f"{folder.name[:-12]}{key[:12]}"))


@pytest.fixture
def two_files(tmp_path):
    for weights, predictions in (("3f9a2c", MORE), ("77b01d", LESS)):
        write(elsewhere(tmp_path, weights, predictions), tmp_path)
    return tmp_path


def test_compare_runs_and_report_tell_them_apart(bench, two_files, tmp_path):
    place = ("--workspace", two_files)
    fails(bench("compare", NAME, NAME, *place), 2, f"{NAME} 3f9a2c or {NAME} 77b01d")
    result = bench("compare", f"{NAME} 3f9a2c", f"{NAME} 77b01d", *place)
    assert result.code == 0, result.err
    assert "+8.00" in result.out
    listed = bench("runs", *place).out
    assert f"of {NAME} 3f9a2c" in listed
    assert f"of {NAME} 77b01d" in listed
    page = tmp_path / "page.html"
    assert bench("report", "--out", page, *place).code == 0
    assert f'<th scope="row">{NAME} 3f9a2c</th>' in page.read_text()
    assert "<small>of these weights, one seed</small>" not in page.read_text()  # no baseline here


# ---- what rows were pretrained on


def trained(workspace, method, predictions, data="scenes", **settings):
    made = stored(workspace, method, predictions, protocol="linear/logreg@1")
    told = {"pretraining": {"seed": 0, **settings}, "pretraining_data": data}
    return changed(made, details={**told, "pretraining_digest": data})


@pytest.mark.parametrize(
    ("data", "steps", "differs"),
    [("scenes", 200, False), ("folder:two", 200, True), ("scenes", 30, True)],
)
def test_other_images_or_lengths_of_training_are_said(tmp_path, data, steps, differs):
    text = markdown(
        Table.of(
            [
                trained(tmp_path, "random", LESS, "folder:three"),  # saw no image
                trained(tmp_path, "autoencoder", LESS, steps=200, batch_size=64),
                trained(tmp_path, "context-encoder", MORE, data, steps=steps, batch_size=64),
            ]
        )
    )
    line = (
        "Pretraining differs: 200 steps of 64 on scenes: autoencoder; "
        f"{steps} steps of 64 on {data}: context-encoder."
    )
    assert (line in text) is differs
    assert ("Pretraining differs" in text) is differs


@pytest.mark.parametrize("precisions", [("32", "bf16"), ("bf16", "bf16")])
def test_precisions_that_differ_are_said(tmp_path, precisions):
    methods = zip(("autoencoder", "context-encoder"), (LESS, MORE), precisions, strict=True)
    rows = [
        trained(tmp_path, method, predictions, steps=200, batch_size=64, precision=precision)
        for method, predictions, precision in methods
    ]
    line = (
        "Pretraining differs: 200 steps of 64 in 32 bit on scenes: autoencoder; "
        "200 steps of 64 in bf16 on scenes: context-encoder."
    )
    text = markdown(Table.of([trained(tmp_path, "random", LESS), *rows]))
    assert (line in text) is (precisions[0] != precisions[1])
    assert ("Pretraining differs" in text) is (precisions[0] != precisions[1])


def test_what_the_names_say_is_not_said_again(tmp_path):
    rows = [
        trained(tmp_path, "autoencoder", LESS, steps=steps, batch_size=64) for steps in (20, 30)
    ]
    assert "Pretraining differs" not in markdown(Table.of(rows))
