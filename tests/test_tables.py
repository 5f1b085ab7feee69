"""Tables come from records: means, intervals, paired differences, three forms."""

import csv
import io
from datetime import UTC, datetime

import pytest

from ssl_bench.records import Provenance, Record
from ssl_bench.tables import Table

VALUES = {  # method -> top1 of seeds 0, 1, 2
    "context-encoder": [30.0, 32.0, 34.0],
    "autoencoder": [29.0, 28.0, 30.0],
    "random": [20.0, 22.0, 24.0],
}


def record(
    method, seed, top1, layer="pool5", settings=None, data="scenes", protocol=None, digest="d"
):
    made = Provenance(
        command="bench", finished=datetime.now(UTC), seconds=1, peak_memory_mb=1, device="cpu",
        python="3", packages={}, git_commit=None, git_dirty=None,
    )  # fmt: skip
    return Record(
        kind="evaluation",
        key="0",
        identity={
            "protocol": "linear/logreg@1",
            "layer": layer,
            "config": {"seed": seed},
            "data": {"train": digest, "test": digest},
        },
        method=method,
        data=data,
        metrics={"top1": top1, "top1_low": top1 - 2, "top1_high": top1 + 2},
        details={
            "metric": "top1",
            "protocol": protocol or "linear/logreg@1",
            "pretraining": {"seed": seed, **(settings or {})},
            "pretraining_data": "scenes",
            "pretraining_digest": digest,
            "test_images": 100,
            "skipped_images": [],
        },
        files={},
        provenance=made,
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
    assert "20.0 ± 2.0*" in table.markdown()
    assert "*One seed: over the test images, Wilson's." in table.markdown()


def test_differences_are_paired_by_seed():
    lines = dict(Table.of(records()).differences())
    (gain,) = lines["context-encoder − random"]
    assert gain is not None
    assert (gain.mean, gain.half, gain.n) == (10, 0, 3)
    assert set(lines) == {
        "context-encoder − random",
        "autoencoder − random",
        "context-encoder − autoencoder",
    }
    text = Table.of(records()).markdown()
    assert "**+10.0 ± 0.0**" in text
    assert "+3.0 ± 4.3" in text  # 1, 4, 4 at t(2) = 4.30: zero is inside, so not bold
    assert "**+3.0" not in text


def test_baselines_come_first_and_layers_from_the_image_up():
    table = Table.of([*records("pool5"), *records("conv1")])
    assert list(table.rows) == ["random", "autoencoder", "context-encoder"]
    assert list(table.columns) == ["linear/logreg@1 conv1", "linear/logreg@1 pool5"]


def test_runs_of_one_method_are_told_apart_by_what_differs():
    short = record("context-encoder", 0, 30.0, settings={"steps": 10, "width": 1})
    long = record("context-encoder", 0, 40.0, settings={"steps": 20, "width": 1})
    assert set(Table.of([short, long]).rows) == {
        "context-encoder steps=10",
        "context-encoder steps=20",
    }


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
    lines = list(csv.DictReader(io.StringIO(Table.of(records()).csv())))
    assert len(lines) == 3
    first = next(line for line in lines if line["method"] == "context-encoder")
    assert (float(first["mean"]), first["n"], first["interval_over"]) == (32, "3", "seeds")


def test_latex_is_booktabs_with_escapes():
    text = Table.of([record("a_b", 0, 20.0, protocol="p@1 x_y=1")]).latex()
    assert text.startswith(r"\begin{tabular}{lr}")
    assert r"a\_b & $20.0 \pm 2.0*$ \\" in text
    assert r"x\_y=1" in text
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1


def test_missing_cells_are_dashes_and_files_are_written(tmp_path):
    table = Table.of([record("random", 0, 20.0, "conv1"), record("x", 0, 30.0, "pool5")])
    paths = table.write(tmp_path / "out")
    assert [p.name for p in paths] == ["table.md", "table.csv", "table.tex"]
    assert paths[0].read_text().count("–") == 2
    assert "--" in paths[2].read_text()


def seen_by(protocol, digest, images):
    made = record("random", 0, 20.0, digest=digest, protocol=protocol)
    identity = {**made.identity, "protocol": protocol}
    details = {**made.details, "test_images": images, "pretraining_digest": "d"}
    return made.model_copy(update={"identity": identity, "details": details})


def test_protocols_that_see_one_set_in_other_forms_share_its_name():
    boxes, masks = seen_by("detection/a@1", "d1", 90), seen_by("segmentation/b@1", "d2", 20)
    table = Table.of([boxes, masks]).markdown()
    assert "[" not in table
    assert "Data: scenes, 90 test images (detection/a@1).\n" in table
    assert "Data: scenes, 20 test images (segmentation/b@1)." in table
    changed = Table.of([boxes, masks, seen_by("segmentation/b@1", "d3", 20)]).markdown()
    assert changed.count("segmentation/b@1 pool5 on scenes [") == 2
    assert "detection/a@1 pool5 on scenes |" in changed
