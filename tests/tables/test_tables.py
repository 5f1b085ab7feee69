"""Tables come from records: means, intervals, paired differences, which cells lead, three forms."""

import csv
import io
import re
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from scipy import stats

from helpers.predictions import LESS, MORE, answers, changed, fills, stored
from ssl_bench import catalogue
from ssl_bench.evaluation.intervals import LEVEL, Paired
from ssl_bench.records.record import EvaluationRecord, Provenance
from ssl_bench.tables.blocks import blocks
from ssl_bench.tables.footnotes import LEADS, STALE
from ssl_bench.tables.forms import csv_lines, latex, markdown, write_table
from ssl_bench.tables.measured import paired_difference
from ssl_bench.tables.names import baseline_place
from ssl_bench.tables.table import Table

SIMULATED = 400  # columns of rows that are all equal
VALUES = {  # method -> top1 of seeds 0, 1, 2
    "context-encoder": [30.0, 32.0, 34.0],
    "autoencoder": [29.0, 28.0, 30.0],
    "random": [20.0, 22.0, 24.0],
}


def record(
    method, seed, top1, layer="pool5", settings=None, data="scenes", protocol=None, digest="d",
    arch="alexnet", depth=None,
):  # fmt: skip
    made = Provenance(
        command="bench", finished=datetime.now(UTC), seconds=1, peak_memory_mb=1, device="cpu",
        python="3", packages={}, git_commit=None, git_dirty=None,
    )  # fmt: skip
    return EvaluationRecord.model_validate(
        {
            "kind": "evaluation",
            "key": "0",
            "identity": {
                "kind": "evaluation",
                "protocol": "linear/logreg@1",
                "layer": layer,
                "config": {"seed": seed},
                "encoder": {"run": method, "weights": "w", "spec": {"arch": arch}},
                "data": {"train": digest, "test": digest},
            },
            "method": method,
            "data": data,
            "metrics": {"top1": top1, "top1_low": top1 - 2, "top1_high": top1 + 2},
            "details": {
                "metric": "top1",
                "protocol": protocol or "linear/logreg@1",
                "pretraining": {"seed": seed, **(settings or {})},
                "pretraining_data": "scenes",
                "pretraining_digest": digest,
                "test_images": 100,
                "skipped_images": [],
                "depth": depth,
            },
            "files": {},
            "provenance": made,
        }
    )


def records(layer="pool5"):
    return [record(m, s, v, layer) for m, values in VALUES.items() for s, v in enumerate(values)]


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


def lines_of(table):
    """The lines of the CSV by method."""
    return {line["method"]: line for line in csv.DictReader(io.StringIO(csv_lines(table)))}


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


# ---- which cells lead


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


# ---- stale numbers


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


LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")


def wide(*more):
    """Nine columns of two protocols, and what is given besides."""
    made = [record("random", 0, 20.0, layer) for layer in LAYERS]
    made += [record("random", 0, 20.0, layer, protocol="knn/dinov2@1 k=3") for layer in LAYERS[1:]]
    return Table.of([*made, *more])


def test_a_wide_table_is_cut_by_protocol_and_a_narrow_one_is_whole():
    cut = blocks(wide())
    assert [(b.title, list(b.short)) for b in cut] == [
        ("linear/logreg@1", list(LAYERS)),
        ("knn/dinov2@1 k=3", list(LAYERS[1:])),
    ]
    assert {c for b in cut for c in b.columns} == set(wide().columns)
    assert re.search(r"\*\*knn/dinov2@1 k=3\*\*\n\n\| method \| +conv2 \|", markdown(wide()))
    assert latex(wide()).count(r"\begin{tabular}") == 2
    assert r"\multicolumn{4}{c}{knn/dinov2@1 k=3}" in latex(wide())
    (whole,) = blocks(Table.of([record("random", 0, 1.0)]))
    assert (whole.title, whole.short) == ("", whole.columns)


def test_layers_of_another_network_are_a_block_of_their_own():
    """Columns that no row shares: a table of dashes tells nothing."""
    other = [record("timm:x", 0, 5.0, layer, arch="timm:x") for layer in ("blocks.2", "blocks.4")]
    layers = [list(block.short) for block in blocks(wide(*other))]
    assert layers == [list(LAYERS), ["blocks.2", "blocks.4"], list(LAYERS[1:])]
    assert "timm:x" not in markdown(wide(*other)).split("\n\n")[1]


def test_a_block_holds_columns_that_share_rows_by_way_of_others():
    """conv1 and block share no row, but conv2 shares one with each."""
    other = [record("both", 0, 5.0, layer) for layer in ("conv2", "block")]
    assert [len(block.columns) for block in blocks(wide(*other))] == [6, 4]


def test_a_letter_stands_for_long_settings_that_the_legend_says():
    """One that begins as another does is another; a block's title says them in full."""
    long = "steps=40 batch_size=8 lr=0.02 head=64"
    settings = [long, f"{long} kernel=1", "steps=40"]
    made = [record("random", 0, 5.0, protocol=f"linear/logreg@1 {each}") for each in settings]
    text = markdown(Table.of(made)).split("\n")
    heads = [head.strip() for head in text[0].strip("|").split("|")[1:]]
    assert heads == [f"linear/logreg@1 {mark} pool5" for mark in ("(a)", "(b)", "steps=40")]
    assert [line for line in text if line.startswith("(")] == [
        f"(a) {settings[0]}", f"(b) {settings[1]}"
    ]  # fmt: skip
    assert settings[1] in latex(Table.of(made)).replace("\\_", "_")
    many = [record("random", 0, 5.0, f"conv{i}", protocol=f"linear/logreg@1 {long}")
            for i in range(9)]  # fmt: skip
    assert f"**linear/logreg@1 {long}**" in markdown(Table.of(many))


def test_a_table_that_repeats_a_long_protocol_is_cut():
    names = [f"linear/logreg@1 {'labels=100 ' * many}".strip() for many in (1, 2)]
    layers = [("conv5", names[0]), ("pool5", names[0]), ("pool5", names[1])]
    made = [record("random", 0, 5.0, layer, protocol=name) for layer, name in layers]
    assert [(block.title, list(block.short)) for block in blocks(Table.of(made))] == [
        (names[0], ["conv5", "pool5"]), (names[1], ["pool5"])
    ]  # fmt: skip
    # Where no heading is shorter for it, all stand side by side.
    assert [block.title for block in blocks(Table.of(made[1:]))] == [""]


def test_data_of_a_block_stands_in_its_title():
    other = [record("random", 0, 5.0, layer, data="folder:x") for layer in LAYERS]
    titles = [block.title for block in blocks(wide(*other))]
    assert titles[:2] == ["linear/logreg@1 on scenes", "linear/logreg@1 on folder:x"]


def test_a_network_tells_its_rows_apart_without_its_settings():
    """Another network has other starting weights, too; of one network, all that differs is said."""
    networks = [
        record("random", 0, 1.0, settings={"arch": "alexnet", "init": "fan-in"}),
        record("random", 0, 2.0, settings={"arch": "dcgan", "init": "dcgan"}),
    ]
    assert list(Table.of(networks).rows) == ["random arch=alexnet", "random arch=dcgan"]
    # The network of all that is not random is that of the table; a random row of another says so.
    library = {"settings": {"arch": "timm:x", "init": "own"}, "arch": "timm:x"}
    shared = [
        record("random", 0, 2.0, **library),
        record("timm:x weights=w", 0, 3.0, arch="timm:x"),
    ]
    expected = ["random arch=alexnet", "random", "timm:x weights=w"]
    assert list(Table.of([networks[0], *shared]).rows) == expected
    both = Table.of([networks[0], *shared, record("mine", 0, 1.0, settings={"arch": "alexnet"})])
    assert both.rows[:2] == ["random arch=alexnet", "random arch=timm:x"]
    settings = [{"arch": "alexnet", "mask": m, "lr": lr} for m, lr in (("a", 0.1), ("b", 0.2))]
    rows = Table.of([record("mine", 0, 1.0, settings=each) for each in settings]).rows
    assert list(rows) == ["mine mask=a lr=0.1", "mine mask=b lr=0.2"]


# ---- order of the columns, and which rows are baselines


def columns_of(*layers, **settings):
    """The layers of a table's columns, with as many depths and networks as are given."""
    depths = settings.get("depths", [None] * len(layers))
    archs = settings.get("archs", ["alexnet"] * len(layers))
    made = [
        record(arch, 0, 1.0, layer, arch=arch, depth=depth)
        for layer, depth, arch in zip(layers, depths, archs, strict=True)
    ]
    return [column.rpartition(" ")[2] for column in Table.of(made).columns]


def test_columns_stand_by_the_depth_of_their_layers():
    assert columns_of("head", "stem", "neck", depths=[2, 0, 1]) == ["stem", "neck", "head"]


def test_layers_of_records_without_a_depth_stand_by_their_numbers():
    names = ("bottleneck", "block10", "block9", "pool5", "conv2")
    assert columns_of(*names) == ["block9", "block10", "conv2", "pool5", "bottleneck"]
    assert columns_of("b2", "a1", depths=[0, None]) == ["a1", "b2"]  # one record says nothing


def test_layers_of_two_networks_stand_apart_unless_they_share_one():
    layers, archs = ("conv2", "stem", "conv1", "norm"), ("a", "b", "a", "b")
    depths = (1, 0, 0, 1)
    apart = ["conv1", "conv2", "stem", "norm"]
    assert columns_of(*layers, archs=archs, depths=depths) == apart
    shared = columns_of(*layers, "conv1", archs=[*archs, "b"], depths=[*depths, 0])
    assert shared == ["stem", "conv1", "conv2", "norm"]


def test_a_pretext_that_fails_to_import_is_no_baseline(monkeypatch):
    broken = EntryPoint("broken", "no_such_module:Pretext", "ssl_bench.pretext")
    monkeypatch.setattr(catalogue, "_found", lambda kind: {"broken": broken})
    assert baseline_place("broken") is None
    assert list(Table.of([record("broken", 0, 1.0)]).rows) == ["broken"]


def test_the_baselines_are_those_that_say_so():
    places = {name: baseline_place(name) for name in catalogue.names("pretext")}
    assert {n: p for n, p in places.items() if p is not None} == {"random": 0, "autoencoder": 1}
    assert baseline_place("timm:resnet18") is None


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
