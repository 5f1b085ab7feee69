"""Export and import: the same numbers without weights, and nothing that verification refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.refusals import fails
from helpers.suites import SUITE
from ssl_bench.files import file_digest
from ssl_bench.records.record import (
    EncoderIdentity,
    EvaluationDetails,
    EvaluationIdentity,
    EvaluationRecord,
    PretrainDetails,
    PretrainIdentity,
    PretrainRecord,
    SavedEncoder,
)
from ssl_bench.records.workspace import (
    Run,
    folder_of,
    predictions_of,
    read_records,
    write_predictions,
)
from ssl_bench.trust.sharing import export


@pytest.fixture
def exported(bench, workspace: Path, tmp_path: Path) -> Path:
    suite, out = tmp_path / "mini.toml", tmp_path / "mini"
    suite.write_text(SUITE)
    bench.ok("export", suite, "--out", out, "--workspace", workspace, "--workers", 0)
    return out


def test_an_export_is_read_back_as_it_was(bench, workspace: Path, exported: Path, tmp_path: Path):
    assert not list(exported.rglob("*.safetensors"))
    bench.ok("verify", exported)
    other = tmp_path / "other"
    bench.ok("import", exported, "--workspace", other)
    ours, theirs = (read_records(place) for place in (workspace, other))
    assert [r.model_dump() for r in ours] == [r.model_dump() for r in theirs]
    tables = [bench("table", "--workspace", place).out for place in (workspace, other)]
    assert tables[0] == tables[1] == (exported / "table.md").read_text()
    assert "0 runs" in bench("import", exported, "--workspace", other).out


def test_an_export_holds_predictions_in_fewer_bytes_and_the_same_numbers(
    bench, workspace, tmp_path
):
    """And a rerun of what was imported finds no difference, though it scores in full."""
    suite, out, other = tmp_path / "svm.toml", tmp_path / "svm", tmp_path / "other"
    suite.write_text(
        SUITE.replace('"knn"\nk = [1, 3]', '"svm"\nlayers = ["pool5"]\ncosts = [1, 2]')
    )
    bench.ok("export", suite, "--out", out, "--workspace", workspace, "--workers", 0)
    record = read_records(out, "evaluation")[0]
    full, compact = (predictions_of(record, place) for place in (workspace, out))
    assert compact["scores"].dtype == np.int16
    assert full["scores"].dtype == np.float32
    bench.ok("verify", out)
    bench.ok("import", out, "--workspace", other)
    (run,) = read_records(workspace, "pretrain")
    weights = folder_of(workspace, run) / "encoder.safetensors"  # no export has them
    shutil.copy(weights, folder_of(other, run))
    again = bench.ok("rerun", record.key, "--workspace", other, "--workers", 0)
    compact["scores"][0] += 1
    write_predictions(folder_of(other, record) / "predictions.npz", compact)
    again = bench("rerun", record.key, "--workspace", other, "--workers", 0)
    assert again.code == 1
    assert "scores differ" in again.out + again.err


def noise(path: Path, width: int, height: int) -> bytes:
    """A picture that does not compress."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path.read_bytes()


def test_pictures_are_shrunk_to_thumbnails(tmp_path: Path):
    """Images of others may be shown small only; the record names the pictures that it lies with."""
    made = PretrainIdentity(kind="pretrain", method="mine", version=1, config={}, data="d")
    encoder = SavedEncoder(spec={}, digest="d", start="s")
    run = Run(tmp_path / "runs", PretrainRecord, "mine", made)
    with run.working() as folder:
        large = noise(folder / "large.png", 1500, 300)
        small = noise(folder / "small.png", 8, 8)  # a palette would make it larger
        run.finish(
            method="mine", data="d", metrics={}, started=0.0, device="cpu",
            details=PretrainDetails(encoder=encoder, skipped_images=[]),
        )  # fmt: skip
    identity = EvaluationIdentity(
        kind="evaluation", protocol="mine@1", layer="conv1", config={"seed": 0},
        encoder=EncoderIdentity(run=run.key, weights="d", spec={}),
        data={"train": "a", "test": "b"},
    )  # fmt: skip
    details = EvaluationDetails(
        protocol="mine@1",
        metric="top1",
        test_images=1,
        skipped_images=[],
        pretraining=None,
        pretraining_data="d",
    )
    scored = Run(tmp_path / "runs", EvaluationRecord, "of-mine", identity)
    with scored.working():
        record = scored.finish(
            method="mine", data="d", metrics={"top1": 5.0}, details=details, started=0.0,
            device="cpu",
        )  # fmt: skip
    (tmp_path / "runs" / "figures").mkdir()
    noise(tmp_path / "runs" / "figures" / "masks.png", 700, 70)
    export([record], tmp_path / "runs", tmp_path / "out")
    (written,) = read_records(tmp_path / "out", "pretrain")
    place = folder_of(tmp_path / "out", written)
    with Image.open(place / "large.png") as picture:
        assert picture.size == (640, 128)
    with Image.open(tmp_path / "out" / "figures" / "masks.png") as picture:
        assert picture.size == (640, 64)
    assert (place / "small.png").read_bytes() == small
    assert written.files == {name: file_digest(place / name) for name in ("large.png", "small.png")}
    assert (folder_of(tmp_path / "runs", written) / "large.png").read_bytes() == large


def test_what_was_edited_is_not_imported(bench, exported: Path, tmp_path: Path):
    path = next(iter(exported.glob("evaluation/*/record.json")))
    record = json.loads(path.read_text())
    record["metrics"]["top1"] += 5
    path.write_text(json.dumps(record))
    other = tmp_path / "other"
    fails(bench("import", exported, "--workspace", other), 1, "nothing is imported", "top1")
    assert not other.exists()


def test_a_folder_with_other_things_is_left_alone(bench, workspace: Path, tmp_path: Path):
    suite, out = tmp_path / "mini.toml", tmp_path / "home"
    suite.write_text(SUITE)
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    place = ("--workspace", workspace, "--workers", 0)
    fails(bench("export", suite, "--out", out, *place), 1, "thesis.tex", "--out")
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]
