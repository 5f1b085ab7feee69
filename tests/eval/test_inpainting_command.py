"""`bench inpainting` whole: a row for each way to fill, pairs by image, the same baselines."""

import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from scipy.stats import t as student
from scipy.stats import ttest_rel

from eval.inpainting import (
    Pathak16,
    Pathak16Config,
)
from helpers.bench import Bench, call
from helpers.refusals import SCENES, contents, fails, half_written, only
from ssl_bench.evaluation.harness import score_with_intervals
from ssl_bench.evaluation.intervals import holm
from ssl_bench.records.record import Record
from ssl_bench.records.workspace import folder_of, read_records
from ssl_bench.tables.table import Table

METRICS = ("l1", "l2", "psnr", "ssim")
FREE = ["mean colour", "Telea", "nearest (HOG)"]
MEASURE = ("inpainting", *SCENES, "--workers", 0)
TOY = ("--width", 0.05, "--bottleneck", 8, "--steps", 3, "--batch-size", 4, "--workers", 0)


def train_network(workspace, *more):
    call("pretrain", "inpainting", *TOY, *SCENES, *more, "--workspace", workspace)


def take_random(workspace, size=128):
    command = ("pretrain", "random", "--image-size", size, "--width", 0.1, "--init", "fan-in")
    call(*command, "--workers", 0, *SCENES, "--workspace", workspace)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Path:
    """A network that fills holes and one that does not, and both measured without pictures."""
    workspace = tmp_path_factory.mktemp("both") / "runs"
    train_network(workspace)
    take_random(workspace)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssl_bench.pictures.plots.picture_grid", lambda *_: None)
        call(*MEASURE, "--workspace", workspace)
    return workspace


def grids(out: str) -> list[dict[str, dict[str, str]]]:
    """{row: {last word of the column: cell}} of the table and of the differences."""
    found = []
    for part in out.split("\n\n"):
        lines = [[c.strip() for c in line.split("|")[1:-1]] for line in part.splitlines()]
        if part.startswith("|"):
            columns = [name.split(" ")[-1] for name in lines[0][1:]]
            found.append({li[0]: dict(zip(columns, li[1:], strict=True)) for li in lines[2:]})
    return found


def predictions(workspace: Path, record: Record) -> dict[str, np.ndarray]:
    with np.load(folder_of(workspace, record) / "predictions.npz") as rows:
        return dict(rows)


ROWS = [
    *FREE, "nearest (bottleneck of inpainting)", "inpainting", "nearest (pool5 of random)",
]  # fmt: skip


def test_each_way_to_fill_has_a_row_and_each_row_can_be_scored_again(both, bench: Bench):
    before = contents(both)
    result = bench(*MEASURE, "--workspace", both)
    assert result.code == 0
    assert " in " not in result.err.replace(" in network", "")  # no bar: nothing is computed again
    assert contents(both) == before
    assert not half_written(both)
    cells = grids(result.out)[0]
    assert list(cells) == ROWS
    records = {record.method: record for record in read_records(both, "evaluation")}
    assert sorted(records) == sorted(ROWS)
    assert len(read_records(both, "evaluation")) == len(ROWS)
    for name, record in records.items():
        rows = predictions(both, record)
        assert score_with_intervals(Pathak16(Pathak16Config()), rows) == record.metrics
        assert (record.identity.encoder is None) == (name in FREE)
        for metric in METRICS:
            half = student.ppf(0.975, 19) * rows[metric].std(ddof=1, dtype=float) / 20**0.5
            digits, mean = 3 if metric == "ssim" else 2, rows[metric].mean(dtype=float)
            text = f"{mean:.{digits}f} ± {half:.{digits}f}*".replace("-", "−")
            assert cells[name][metric].removesuffix(" ●").replace("-", "−") == text


def test_each_record_has_a_picture_of_holes_fills_and_truth(bench: Bench, workspace):
    take_random(workspace)
    bench.ok(*MEASURE, "--mask", "random-block", "--workspace", workspace)
    records = read_records(workspace, "evaluation")
    assert len(records) == 2
    for record in records:
        assert set(record.files) == {"fills.png", "predictions.npz"}
        with Image.open(folder_of(workspace, record) / "fills.png") as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 1000


@pytest.mark.usefixtures("no_pictures")
def test_baselines_are_the_same_whichever_encoder_comes_with_them(both, bench: Bench, workspace):
    keys = {}
    for name in ("inpainting", "random"):
        shutil.rmtree(workspace, ignore_errors=True)
        shutil.copytree(both / "pretrain", workspace / "pretrain")
        result = bench(*MEASURE, "--encoder", name, "--workspace", workspace)
        assert result.err.count("HOG of train: 60/60") == 1
        keys[name] = {r.method: (r.key, r.metrics) for r in read_records(workspace, "evaluation")}
    first, second = keys.values()
    assert {name: first[name] for name in FREE} == {name: second[name] for name in FREE}
    assert first.keys() & second.keys() == set(FREE)


@pytest.mark.usefixtures("no_pictures")
def test_baselines_of_another_image_size_are_other_numbers(bench: Bench, tmp_path):
    found = []
    for size in (64, 128):
        take_random(tmp_path / str(size), size)
        bench.ok(*MEASURE, "--workspace", tmp_path / str(size))
        records = read_records(tmp_path / str(size), "evaluation")
        found.append({record.method: record for record in records})
    for name in FREE:
        small, large = (records[name] for records in found)
        assert small.metrics != large.metrics
        assert small.key != large.key, name


def test_differences_are_paired_by_image(both, bench: Bench):
    cells = grids(bench(*MEASURE, "--workspace", both).out)[1]
    rows = {r.method: predictions(both, r) for r in read_records(both, "evaluation")}
    assert set(cells) == {f"{a} − {b}" for a in ROWS[3:] for b in FREE}
    found = {
        (name, metric): (rows[a][metric].astype(float), rows[b][metric].astype(float))
        for name, (a, b) in ((name, name.split(" − ")) for name in cells)
        for metric in METRICS
    }
    raw = [float(cast(Any, ttest_rel(*pair)).pvalue) for pair in found.values()]
    p_values = dict(zip(found, raw, strict=True))
    psnr = [key for key in found if key[1] == "psnr"]  # the headline: the others are exploratory
    adjusted = dict(zip(psnr, holm([p_values[key] for key in psnr]), strict=True))
    for (name, metric), (a, b) in found.items():
        half = student.ppf(0.975, 19) * (a - b).std(ddof=1) / 20**0.5
        digits, mean = 3 if metric == "ssim" else 2, (a - b).mean()
        text = f"{mean:+.{digits}f} ± {half:.{digits}f}*".replace("-", "−")
        if metric == "psnr":
            bold = adjusted[name, metric] <= 0.05
            assert cells[name][metric] == (f"**{text}**" if bold else text)
        else:
            assert cells[name][metric] == f"({text})"


@pytest.mark.usefixtures("no_pictures")
def test_equal_encoders_differ_by_nothing(bench: Bench, workspace):
    take_random(workspace)
    weights = only(workspace, "pretrain/*/encoder.safetensors")
    encoders = ("--encoder", "random", "--encoder", weights)
    bench.ok(*MEASURE, *encoders, "--workspace", workspace)
    table = Table.of(read_records(workspace, "evaluation"), workspace)
    one, two = (row for row in table.rows if row.startswith("nearest (pool5"))
    for column in table.columns:
        cell = table.difference(one, two, column)
        assert cell is not None
        assert (cell.mean, cell.half, cell.over) == (0, 0, "images")


@pytest.mark.usefixtures("no_pictures")
def test_a_central_network_is_not_asked_for_more_than_its_hole(bench: Bench, workspace):
    train_network(workspace)
    command = (*MEASURE, "--workspace", workspace)
    fails(bench(*command, "--mask", "random-region"), 2, "--mask central", "inpainting")
    fails(bench(*command, "--hole", 60), 2, "--hole", "50")
    assert not list(workspace.glob("evaluation/*/record.json"))
    result = bench.ok(*command, "--hole", 20)
    assert "hole=20" in result.out


@pytest.mark.usefixtures("no_pictures")
def test_a_network_for_regions_fills_any_hole(bench: Bench, workspace):
    train_network(workspace, "--mask", "random-region")
    command = (*MEASURE, "--workspace", workspace)
    drawn = bench(*command, "--mask", "random-region")
    assert list(grids(drawn.out)[0]) == ["mean colour", "Telea", "inpainting"]
    assert "mask=random-region" in drawn.out
    central = bench(*command, "--hole", 100)
    assert list(grids(central.out)[0]) == ROWS[:5]
