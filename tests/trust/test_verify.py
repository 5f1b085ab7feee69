"""`bench verify` agrees with what was measured, and names each thing that was changed alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.bench import DATA, TOY, call
from helpers.refusals import fails
from helpers.spoilt import answer_otherwise, edit, named, rekeyed, with_digest
from ssl_bench.files import file_digest
from ssl_bench.trust import verify

Change = Callable[[Path], object]
FORMS = ("table.md", "table.csv", "table.tex")


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """Two seeds of an encoder, two protocols each, and the tables."""
    folder = tmp_path_factory.mktemp("measured") / "runs"
    place = ("--workspace", folder)
    for seed in (0, 1):
        call("pretrain", "random", "--init", "fan-in", "--seed", seed, *TOY, *place)
        measure = ("--layer", "conv3", "--data", DATA, "--workers", 0, *place)
        call("linear-probe", "--strengths", 2, *measure)
        call("knn", "--k", "1,5", *measure)
    call("table", *place, "--out", folder)
    return folder


@pytest.fixture
def runs(measured, tmp_path) -> Path:
    """A copy, to spoil."""
    return Path(shutil.copytree(measured, tmp_path / "runs"))


def run_of(runs: Path, kind: str = "evaluation", protocol: str = "knn", seed: int = 0) -> Path:
    """The folder of the run of an encoder, or of a protocol with that encoder."""
    pattern = f"{protocol}-*" if kind == "evaluation" else "*"
    for path in (runs / kind).glob(f"{pattern}/record.json"):
        record = json.loads(path.read_text())
        made = record["identity"]["config"] if kind == "pretrain" else record["details"]
        if made.get("pretraining", made)["seed"] == seed:
            return path.parent
    raise AssertionError(f"no {kind} of {protocol} {seed} in {runs}")


def agrees(bench, path) -> None:
    result = bench("verify", path)
    assert (result.code, result.out) == (0, "")
    assert "0 disagreements" in result.err


# ---- as it was measured
def test_what_was_measured_agrees(bench, measured):
    agrees(bench, measured)


def test_weights_may_be_left_out(bench, runs):
    for path in runs.rglob("*.safetensors"):
        path.unlink()
    agrees(bench, runs)


def test_verification_leaves_everything_as_it_was(bench, runs):
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    bench("verify", runs)
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before


def test_all_workspaces_below_a_folder_are_verified(bench, runs, tmp_path):
    other = tmp_path / "deep" / "er" / "runs"
    shutil.copytree(runs, other)
    result = bench("verify", tmp_path)
    assert (result.code, result.out) == (0, "")
    assert "2 workspaces" in result.err
    edit(run_of(other), lambda record: record["metrics"].update(top1=99.0))
    assert all(str(other) in line for line in named(bench, tmp_path, "top1", "99"))


def test_a_folder_without_a_record_or_table(bench, tmp_path):
    fails(bench("verify", tmp_path), 2, str(tmp_path), "no record")


# ---- records


def test_a_metric_that_was_added_or_left_out(bench, runs):
    folder = run_of(runs)
    edit(folder, lambda record: record["metrics"].update(top5=99.0))
    named(bench, runs, folder, "top5 is 99")
    edit(folder, lambda record: [record["metrics"].pop(name) for name in ("top5", "top1_k1")])
    named(bench, runs, folder, "top1_k1 is None in the record")


def test_an_encoders_record_in_the_place_of_another_seeds(bench, runs):
    first, second = (run_of(runs, "pretrain", seed=seed) for seed in (0, 1))
    shutil.copy(second / "record.json", first / "record.json")
    named(bench, runs, first, "belongs in another folder")
    named(bench, runs, run_of(runs), "its encoder", "has no record here")


def test_a_damaged_record_hides_no_other(bench, runs):
    damaged, edited = run_of(runs, seed=0), run_of(runs, seed=1)
    (damaged / "record.json").write_text('{"kind": "evaluation"')
    edit(edited, lambda record: record["metrics"].update(top1=99.0))
    named(bench, runs, damaged / "record.json", "damaged")
    named(bench, runs, edited, "top1 is 99")


# ---- files


@pytest.mark.parametrize("protocol", ["knn", "linear"])
def test_an_edited_prediction_whose_digest_was_edited_too(bench, runs, protocol):
    folder = run_of(runs, protocol=protocol)
    answer_otherwise(folder)
    with_digest(folder)
    lines = named(bench, runs, folder, "top1 is ", "by its predictions")
    assert not any("is not the file" in line for line in lines)


@pytest.mark.parametrize("way", ["relative", "absolute", "link"])
def test_a_file_outside_the_folder_is_refused_unread(bench, runs, tmp_path, monkeypatch, way):
    secret = tmp_path / "secret.npz"
    secret.write_bytes(b"secret")
    folder = run_of(runs)
    name = {"relative": "../../../secret.npz", "absolute": str(secret), "link": "link.npz"}[way]
    if way == "link":
        (folder / name).symlink_to(secret)
    assert (folder / name).resolve() == secret
    edit(folder, lambda record: record["files"].update({name: file_digest(secret)}))
    read = []
    monkeypatch.setattr(verify, "file_digest", lambda path: read.append(path) or file_digest(path))
    named(bench, runs, folder, f"names a file outside its folder: {name}")
    assert read
    assert all(path.resolve().is_relative_to(runs) for path in read)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda arrays: arrays.pop("label"),
        lambda arrays: arrays.update(predicted=arrays["predicted"][:-1]),
        lambda arrays: arrays.update(predicted_by_k=arrays["predicted"]),
        lambda arrays: arrays.update(label=np.array("ant")),
    ],
    ids=["missing", "shorter", "flat", "text"],
)
def test_arrays_of_another_form(bench, runs, spoil):
    folder = run_of(runs)
    with np.load(folder / "predictions.npz") as rows:
        arrays = dict(rows)
    spoil(arrays)
    np.savez_compressed(folder / "predictions.npz", **arrays)
    with_digest(folder)
    named(bench, runs, folder)


# ---- tables
@pytest.mark.parametrize("form", FORMS)
def test_a_table_with_one_digit_edited(bench, runs, form):
    path = runs / form
    text = path.read_text()
    row = next(line for line in text.splitlines() if line.lstrip("| ").startswith("random"))
    digits = [i for i, c in enumerate(row) if c.isdigit()]
    other = str((int(row[digits[-1]]) + 1) % 10)
    path.write_text(text.replace(row, row[: digits[-1]] + other + row[digits[-1] + 1 :]))
    lines = named(bench, runs, path, "is not the table of the records")
    assert len(lines) == 1


@pytest.mark.parametrize("form", FORMS)
def test_a_table_typed_by_hand_without_records(bench, runs, tmp_path, form):
    typed = tmp_path / "typed"
    typed.mkdir()
    shutil.copy(runs / form, typed)
    named(bench, typed, typed, "a table without a record")
    named(bench, tmp_path, typed, "a table without a record")


def test_a_table_of_more_records_than_there_are(bench, runs):
    shutil.rmtree(run_of(runs, seed=1))
    for form in FORMS:
        named(bench, runs, runs / form, "is not the table of the records")


def test_a_table_that_was_renewed_agrees_again(bench, runs):
    shutil.rmtree(run_of(runs, seed=1))
    bench.ok("table", "--workspace", runs, "--out", runs)
    agrees(bench, runs)


# ---- what is changed alone
def flip_last(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def raised(metric: str, by: float) -> Change:
    def change(folder: Path) -> None:
        edit(folder, lambda r: r["metrics"].update({metric: r["metrics"][metric] + by}))

    return change


def edited(change: Callable[[dict[str, Any]], object]) -> Change:
    return lambda folder: edit(folder, change)


# By what is said: what is done to the folder of a number of nearest neighbours.
CHANGES: dict[str, Change] = {
    "top1 is ": raised("top1", 5),
    "top1_low is ": raised("top1_low", 1e-6),
    "top1_high is ": raised("top1_high", 1e-6),
    "top1_k5 is ": raised("top1_k5", 5),
    "its key does not fit its identity": edited(
        lambda r: r["identity"]["config"].update(temperature=1.0)
    ),
    "printed as knn/dinov2@1, and is knn/dinov2@1 k=1,5": edited(
        lambda r: r["details"].update(protocol="knn/dinov2@1")
    ),
    "its encoder's weights are not those of run": lambda folder: rekeyed(
        folder, lambda identity: identity["encoder"].update(weights="0" * 64)
    ),
    "knn/dinov2@0 cannot be computed again": lambda folder: rekeyed(
        folder, lambda identity: identity.update(protocol="knn/dinov2@0")
    ),
    "/again-": lambda folder: shutil.copytree(
        folder, folder.with_name(f"again-{folder.name[-12:]}")
    ),
    "predictions.npz is not the file that the record names": answer_otherwise,
    "predictions.npz": edited(lambda r: r["files"].pop("predictions.npz")),
    "predictions.npz is missing": lambda folder: (folder / "predictions.npz").unlink(),
}


@pytest.mark.parametrize("said", CHANGES)
def test_a_number_that_was_changed_is_named(bench, runs, said):
    CHANGES[said](run_of(runs))
    named(bench, runs, runs / "evaluation", said)


OF_ENCODERS: dict[str, Change] = {
    "has no record here": shutil.rmtree,
    "its encoder's weights are not those of run": edited(
        lambda r: r["details"]["encoder"].update(digest="0" * 64)
    ),
    "encoder.safetensors is not the file": lambda folder: flip_last(folder / "encoder.safetensors"),
}


@pytest.mark.parametrize("said", OF_ENCODERS)
def test_an_encoder_that_was_changed_is_named(bench, runs, said):
    OF_ENCODERS[said](run_of(runs, "pretrain"))
    named(bench, runs, said)


@pytest.mark.parametrize(
    ("name", "said"),
    [("record.json", "belongs in another folder"), ("predictions.npz", "is not the file")],
)
def test_files_swapped_between_folders(bench, runs, name, said):
    first, second = (run_of(runs, seed=seed) / name for seed in (0, 1))
    first.rename(runs / "kept")
    second.rename(first)
    (runs / "kept").rename(second)
    lines = named(bench, runs, first.parent, said)
    assert any(str(second.parent) in line and said in line for line in lines)


CLAIMS: dict[str, Callable[[dict[str, Any]], object]] = {
    "method": lambda record: record.update(method="context-encoder"),
    "pretraining": lambda record: record["details"]["pretraining"].update(steps=100_000),
    "seed of pretraining": lambda record: record["details"]["pretraining"].update(seed=5),
    "shown": lambda record: record["details"].update(shown=["top1_high"]),
    "lower": lambda record: record["details"].update(lower=["top1"]),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_what_a_table_says_of_a_number_is_verified_too(bench, runs, claim):
    """The tables are made anew, so that they agree with the record."""
    folder = run_of(runs)
    edit(folder, CLAIMS[claim])
    bench.ok("table", "--workspace", runs, "--out", runs)
    named(bench, runs, folder)


def test_another_number_of_test_images_than_there_are_predictions(bench, runs):
    """No table is made of it either: what it says of chance is of the predictions."""
    folder = run_of(runs)
    edit(folder, lambda record: record["details"].update(test_images=2000))
    fails(bench("table", "--workspace", runs), 1, folder.name, "damaged")
    named(bench, runs, folder)
