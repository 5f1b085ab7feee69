"""Tables come from records: means, intervals, paired differences, three forms."""

import csv
import io
import re

import numpy as np
import pytest

from helpers.predictions import answers, changed, stored
from helpers.rows import lines_of, record, records
from ssl_bench.tables.forms import csv_lines, latex, markdown, write_table
from ssl_bench.tables.table import Table


def test_a_cell_is_the_mean_with_the_t_interval_over_seeds():
    cell = Table.of(records()).cell("random", "linear/logreg@1 pool5")
    assert cell is not None
    assert (cell.mean, cell.n, cell.over) == (22, 3, "seeds")
    assert cell.half == pytest.approx(4.30265 * 2 / 3**0.5, rel=1e-4)  # s = 2, n = 3


def test_one_seed_has_the_interval_over_test_images_and_says_so():
    table = Table.of([record("random", 0, 20.0)])
    assert "20.0 ± 2.0*" in markdown(table)
    assert "*Of these weights, one seed: over the test images, Wilson's." in markdown(table)


def test_differences_are_paired_by_seed():
    lines = dict(Table.of(records()).differences)
    (gain,) = lines["context-encoder − random"]
    assert gain is not None
    assert (gain.mean, gain.half, gain.n) == (10, 0, 3)
    assert set(lines) == {
        "context-encoder − random",
        "autoencoder − random",
        "context-encoder − autoencoder",
    }
    text = markdown(Table.of(records()))
    assert "**+10.0 ± 0.0**" in text
    assert "+3.0 ± 4.3" in text  # 1, 4, 4 at t(2) = 4.30: zero is inside, so not bold
    assert "**+3.0" not in text


@pytest.mark.parametrize(("seeds", "shown"), [((0, 1), True), ((1, 0, 2), True), ((1, 2), False)])
def test_one_seed_beside_several_is_shown_by_its_own_and_never_tested(tmp_path, seeds, shown):
    """60 of 100 right with seed 0; random weights 50, 20 and 20 with seeds 0, 1 and 2."""
    right = {0: 50, 1: 20, 2: 20}
    made = [stored(tmp_path, "rotation", answers(60, 40))]
    made += [stored(tmp_path, "random", answers(right[s], 100 - right[s]), seed=s) for s in seeds]
    table = Table.of(made, tmp_path)
    (column,) = table.columns
    assert table.difference("rotation", "random", column) is None
    assert not table.declared
    lines = dict(table.differences)
    assert bool(lines) is shown
    if shown:
        (gain,) = lines["rotation − random"]
        assert gain is not None
        assert (gain.mean, gain.n, gain.unit, gain.adjusted) == (10.0, 1, "of these weights", None)
        assert re.search(r"\(\+10\.0 ± [\d.]+\*\)", markdown(table))


def test_baselines_come_first_and_layers_from_the_image_up():
    table = Table.of([*records("pool5"), *records("conv1")])
    assert list(table.rows) == ["random", "autoencoder", "context-encoder"]
    assert list(table.columns) == ["linear/logreg@1 conv1", "linear/logreg@1 pool5"]


def trained_on(method, images, seed, top1, **settings):
    """A record of an encoder that was pretrained on these images."""
    made = record(method, seed, top1, settings=settings)
    return changed(made, details={"pretraining_data": images, "pretraining_digest": images})


def test_a_baseline_is_the_one_of_the_same_images():
    table = Table.of(
        [
            trained_on(method, images, seed, base + 5 * (images == "b") + seed**2 % 3)
            for method, base in (("autoencoder", 20.0), ("context-encoder", 30.0))
            for images in ("a", "b")
            for seed in (0, 1)
        ]
        + [trained_on("random", "a", seed, 10.0 + seed) for seed in (0, 1)]
    )
    lines = {name: cells[0].mean for name, cells in table.differences if cells[0]}
    assert list(table.rows)[:3] == ["random", "autoencoder on a", "autoencoder on b"]
    assert lines == {
        "autoencoder on a − random": 10.0,
        "autoencoder on b − random": 15.0,  # random weights saw no images: the one row is for all
        "context-encoder on a − random": 20.0,
        "context-encoder on b − random": 25.0,
        "context-encoder on a − autoencoder on a": 10.0,
        "context-encoder on b − autoencoder on b": 10.0,
    }


def test_random_weights_are_a_baseline_of_their_own_network_only():
    table = Table.of(
        [
            trained_on("random", "a", 0, 10.0, arch="alexnet"),
            trained_on("random", "a", 0, 20.0, arch="dcgan"),
            trained_on("context-encoder", "a", 0, 30.0, arch="alexnet"),
            trained_on("inpainting", "a", 0, 30.0, arch="dcgan"),
        ]
    )
    assert table.pairs == [
        ("context-encoder", "random arch=alexnet"),
        ("inpainting", "random arch=dcgan"),
    ]


def test_no_baseline_where_several_fit():
    rows = [trained_on("autoencoder", "a", 0, 10.0, steps=steps) for steps in (1, 2)]
    table = Table.of([*rows, trained_on("context-encoder", "a", 0, 30.0, steps=2)])
    assert not table.pairs


def test_runs_of_one_method_are_told_apart_by_what_differs():
    short = record("context-encoder", 0, 30.0, settings={"steps": 10, "width": 1})
    long = record("context-encoder", 0, 40.0, settings={"steps": 20, "width": 1})
    assert set(Table.of([short, long]).rows) == {
        "context-encoder steps=10",
        "context-encoder steps=20",
    }


def test_runs_of_two_precisions_share_no_cell():
    """One of them would be lost: they have the same seeds."""
    rows = [
        record("context-encoder", 0, value, settings={"precision": kind})
        for value, kind in ((30.0, "32"), (31.0, "bf16"))
    ]
    table = Table.of(rows)
    assert list(table.rows) == ["context-encoder precision=32", "context-encoder precision=bf16"]


def test_deviations_and_data_are_part_of_the_column():
    plain = record("random", 0, 20.0)
    other = record("random", 0, 21.0, protocol="linear/logreg@1 strengths=3", data="folder:x")
    assert set(Table.of([plain, other]).columns) == {
        "linear/logreg@1 pool5 on scenes",
        "linear/logreg@1 strengths=3 pool5 on folder:x",
    }


def test_data_of_one_name_and_other_content_never_share_a_cell():
    records = [record("random", 0, 20.0, digest=d) for d in ("a", "b")]
    table = Table.of(records)
    assert len(table.rows) == len(table.columns) == 2
    assert all("scenes [" in name for name in (*table.rows, *table.columns))


def test_csv_holds_every_cell_at_full_precision():
    lines = lines_of(Table.of(records()))
    assert len(lines) == 3
    first = lines["context-encoder"]
    assert (float(first["mean"]), first["n"], first["interval_over"]) == (32, "3", "seeds")
    assert float(first["half_width"]) == pytest.approx(4.30265 * 2 / 3**0.5, rel=1e-4)
    assert float(first["half_width_images"]) == 2  # of each seed
    assert {method: line["leading"] for method, line in lines.items()} == {
        "context-encoder": "True", "autoencoder": "True", "random": "False",
    }  # fmt: skip
    assert {line["stale"] for line in lines.values()} == {"False"}


def test_csv_has_both_intervals_of_a_single_seed_too():
    (line,) = lines_of(Table.of([record("random", 0, 20.0)])).values()
    assert (line["interval_over"], line["half_width"], line["half_width_images"]) == (
        "images", "2.0", "2.0",
    )  # fmt: skip


def test_latex_is_booktabs_with_escapes():
    text = latex(Table.of([record("a_b", 0, 20.0, protocol="p@1 x_y=1")]))
    assert text.startswith(r"\begin{tabular}{lr}")
    assert r"a\_b & $20.0 \pm 2.0*$ \\" in text
    assert r"x\_y=1" in text
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1


def test_missing_cells_are_dashes_and_files_are_written(tmp_path):
    table = Table.of([record("random", 0, 20.0, "conv1"), record("x", 0, 30.0, "pool5")])
    paths = write_table(table, tmp_path / "out")
    assert [p.name for p in paths] == ["table.md", "table.csv", "table.tex"]
    assert paths[0].read_text().count("–") == 2
    assert "--" in paths[2].read_text()


def seen_by(protocol, digest, images):
    made = record("random", 0, 20.0, digest=digest, protocol=protocol)
    return changed(
        made, protocol=protocol, details={"test_images": images, "pretraining_digest": "d"}
    )


def test_protocols_that_see_one_set_in_other_forms_share_its_name():
    boxes, masks = seen_by("detection/a@1", "d1", 90), seen_by("segmentation/b@1", "d2", 20)
    table = markdown(Table.of([boxes, masks]))
    assert "[" not in table
    assert "Data: scenes, 90 test images (detection/a@1).\n" in table
    assert "Data: scenes, 20 test images (segmentation/b@1)." in table
    changed = markdown(Table.of([boxes, masks, seen_by("segmentation/b@1", "d3", 20)]))
    assert changed.count("segmentation/b@1 pool5 on scenes [") == 2
    assert "detection/a@1 pool5 on scenes |" in changed


# ---- chance


def test_every_form_says_what_is_chance(tmp_path):
    """Of four labels, two alike: half. Records without predictions say nothing of it."""
    found = {"label": np.array([0, 1, 1, 2]), "predicted": np.array([0, 0, 1, 0])}
    rows = [stored(tmp_path, method, found) for method in ("random", "autoencoder")]
    table = Table.of(rows, tmp_path)
    assert table.chance == {table.columns[0]: 50.0}
    (line,) = [line for line in markdown(table).splitlines() if line.startswith("| *chance*")]
    assert "50.0" in line
    assert "\nchance & 50.0 \\\\" in latex(table)
    assert {line["chance"] for line in csv.DictReader(io.StringIO(csv_lines(table)))} == {"50.0"}
    assert "chance" not in markdown(Table.of(rows))
