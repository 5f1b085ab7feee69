"""Records: keys follow everything that determines a number; a record is whole or not there."""

import hashlib
import json
from datetime import UTC, datetime

import numpy as np
import pytest

from helpers.places import RESULTS
from helpers.predictions import answers, stored
from helpers.spoilt import edit
from ssl_bench.errors import DataError, UsageError
from ssl_bench.files import key_of
from ssl_bench.records.record import (
    PretrainDetails,
    PretrainIdentity,
    PretrainRecord,
    Provenance,
    SavedEncoder,
)
from ssl_bench.records.workspace import (
    Run,
    find_run,
    folder_of,
    predictions_of,
    read_record,
    write_predictions,
)

DETAILS = PretrainDetails(encoder=SavedEncoder(spec={}, digest="d", start="s"), skipped_images=[])


def finished(workspace, method="random", seed=0, started=0.0, **identity):
    identity = PretrainIdentity(
        kind="pretrain", method=method, version=1, config={"seed": seed}, data="d", **identity
    )
    run = Run(workspace, PretrainRecord, method, identity)
    with run.working() as folder:
        (folder / "encoder.safetensors").write_bytes(b"weights")
        return run, run.finish(
            method=method, data="scenes", metrics={"loss": 0.5}, started=started, device="cpu",
            details=DETAILS,
        )  # fmt: skip


def test_the_key_does_not_depend_on_the_order_of_settings():
    assert key_of({"a": 1, "b": {"c": 2, "d": 3}}) == key_of({"b": {"d": 3, "c": 2}, "a": 1})


@pytest.mark.parametrize("changed", [{"a": 2, "b": "x"}, {"a": 1, "b": "y"}, {"a": 1}, {"a": 1.5}])
def test_any_other_setting_is_another_key(changed):
    assert key_of(changed) != key_of({"a": 1, "b": "x"})


def test_a_run_is_finished_exactly_when_its_record_is_there(tmp_path):
    run, record = finished(tmp_path)
    assert run.record == record
    assert json.loads((run.folder / "record.json").read_text())["key"] == run.key
    assert run.folder.name == f"random-{run.key[:12]}"
    (run.folder / "record.json").unlink()
    assert run.record is None


def test_a_record_says_what_made_it(tmp_path):
    _, record = finished(tmp_path)
    made = record.provenance
    assert made.packages["torch"]
    assert made.seconds >= 0
    assert made.peak_memory_mb > 10
    assert made.command.startswith("bench")
    assert record.files["encoder.safetensors"] == hashlib.sha256(b"weights").hexdigest()


def test_a_torn_write_leaves_no_record(tmp_path, monkeypatch):
    run, _ = finished(tmp_path)
    (run.folder / "record.json").unlink()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with run.working(), pytest.raises(DataError, match="No space left"):
        run.finish(method="random", data="d", metrics={}, details=DETAILS, started=0, device="cpu")
    assert run.record is None


@pytest.mark.parametrize("harm", [lambda t: t[: len(t) // 2], lambda t: "", lambda t: "[]"])
def test_a_damaged_record_is_named_with_the_remedy(tmp_path, harm):
    run, _ = finished(tmp_path)
    path = run.folder / "record.json"
    path.write_text(harm(path.read_text()))
    with pytest.raises(DataError, match=rf"{run.folder.name}/record.json is damaged.*remove the"):
        read_record(path)


def test_references_find_the_newest_or_the_key(tmp_path):
    _, first = finished(tmp_path, seed=0)
    _, second = finished(tmp_path, seed=1)
    finished(tmp_path, method="autoencoder")
    assert find_run(tmp_path, "random") == second
    assert find_run(tmp_path, f"random@{first.key[:4]}") == first
    with pytest.raises(UsageError, match="did you mean random"):
        find_run(tmp_path, "randon")
    with pytest.raises(UsageError, match=r"no run of random .* begins with 'zzzz'"):
        find_run(tmp_path, "random@zzzz")


def test_predictions_are_plain_arrays(tmp_path):
    write_predictions(tmp_path / "p.npz", {"label": np.arange(3), "predicted": np.ones(3)})
    with np.load(tmp_path / "p.npz", allow_pickle=False) as read:
        assert read["label"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("bench knn --data folder:/home/me/photos", "bench knn --data folder:…/photos"),
        ("bench run ../toy.toml --workspace=~/runs/x", "bench run …/toy.toml --workspace=…/x"),
        ("bench svm --data 'voc:/data/VOC2007,name=x'", "bench svm --data 'voc:…/VOC2007,name=x'"),
        ("bench segment --data voc12+sbd --lr 1e-4", "bench segment --data voc12+sbd --lr 1e-4"),
        ("bench table --workspace runs/a", "bench table --workspace runs/a"),
    ],
)
def test_a_record_says_nothing_of_the_machines_folders(typed, kept):
    made = Provenance(
        command=typed, finished=datetime.now(UTC), seconds=1, peak_memory_mb=1, device="cpu",
        python="3", packages={}, git_commit=None, git_dirty=None,
    )  # fmt: skip
    assert made.command == kept


def large_predictions(workspace, monkeypatch, scores):
    """A finished evaluation with these scores, where that is more than is read unasked."""
    record = stored(workspace, "random", {**answers(20, 20), "scores": scores})
    monkeypatch.setattr("ssl_bench.records.workspace.LARGE", scores.nbytes // 2)
    return record


def test_large_predictions_of_a_run_are_read(tmp_path, monkeypatch):
    scores = np.random.default_rng(0).normal(size=(40, 100))
    record = large_predictions(tmp_path, monkeypatch, scores)
    assert np.array_equal(predictions_of(record, tmp_path)["scores"], scores)


def test_large_predictions_that_are_not_the_records_are_refused(tmp_path, monkeypatch):
    scores = np.random.default_rng(0).normal(size=(40, 100))
    record = large_predictions(tmp_path, monkeypatch, scores)
    path = folder_of(tmp_path, record) / "predictions.npz"
    write_predictions(path, {**answers(20, 20), "scores": scores + 1})
    with pytest.raises(DataError, match="not the file that its record names"):
        predictions_of(record, tmp_path)


def test_large_predictions_that_were_a_small_file_are_refused(tmp_path, monkeypatch):
    """Also those that the record names: it may come from whoever made them."""
    record = large_predictions(tmp_path, monkeypatch, np.zeros((40, 100_000)))
    with pytest.raises(DataError, match="times its size"):
        predictions_of(record, tmp_path)


def test_an_identity_has_the_key_of_all_that_it_says(tmp_path):
    """Also of what a later version adds to it: the names that are not known here."""
    run, record = finished(tmp_path, views=2)
    assert read_record(run.folder / "record.json").identity.plain()["views"] == 2
    assert run.key != finished(tmp_path / "other")[1].key
    assert record.key == key_of(json.loads(record.text)["identity"])


def test_what_was_read_is_written_again_word_by_word():
    for path in RESULTS.glob("*/*/*/record.json"):
        assert json.loads(read_record(path).text) == json.loads(path.read_text())


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("identity", {"version": "1"}),
        ("identity", {"data": None}),
        ("details", {"images": "17"}),
        ("details", {"skipped_images": [1]}),
    ],
)
def test_nothing_is_converted_into_the_type_that_it_should_have(tmp_path, part, change):
    run, _ = finished(tmp_path)
    edit(run.folder, lambda record: record[part].update(change))
    with pytest.raises(DataError, match="is damaged"):
        read_record(run.folder / "record.json")
