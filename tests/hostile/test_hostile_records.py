"""Records of another form are named by all who read them."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import ssl_bench
from helpers.bench import Bench
from helpers.hostile import (
    READERS,
    RUNS,
    Change,
    answered,
    caught,
    evaluation,
    key_in,
    refused,
    told,
)
from helpers.photos import draw_photo
from helpers.refusals import SCENES, only
from helpers.spoilt import edit, named, rekeyed
from ssl_bench.errors import DataError
from ssl_bench.records.record import EvaluationRecord


def read_by_all(bench: Bench, folder: Path) -> None:
    """Every command that reads records does its work, or names the run by its folder or key."""
    key = folder.name[-12:]
    for name in READERS.keys() - {"runs", "compare"}:
        answered(bench(*READERS[name]), key)
    assert bench(*READERS["runs"]).code == 0  # a damaged record hides no other
    answered(bench("show", key, "--workspace", "runs"), key)
    error = caught(lambda: ssl_bench.load_records(RUNS))
    assert error is None or key in str(error)


WRONG = {
    "schema_version": ["x", None, 999], "kind": [5, "other", "../../x"], "key": [5, None, "f" * 64],
    "identity": [[], None, "x"], "method": [5, {}, None], "data": [[], None],
    "metrics": [[], 5, {"top1": "x"}, {"top1": [1]}, {"top1": None}], "details": [5, [], None],
    "files": [5, {"a.png": 5}, ["a.png"]], "provenance": [5, {}, None],
}  # fmt: skip


@pytest.mark.parametrize("field", WRONG)
def test_every_field_of_a_record_has_its_type(bench: Bench, work: Path, field: str) -> None:
    assert set(WRONG) == set(EvaluationRecord.model_fields)
    folder = evaluation()
    for value in WRONG[field]:
        edit(folder, lambda record, value=value: record.update({field: value}))
        refused(bench(*READERS["table"]), folder / "record.json")
        named(bench, RUNS, folder / "record.json")
        assert str(folder / "record.json") in bench(*READERS["runs"]).out


IDENTITIES: dict[str, Change] = {
    "no protocol": lambda identity: identity.pop("protocol"),
    "a number as protocol": lambda identity: identity.update(protocol=5),
    "a list as protocol": lambda identity: identity.update(protocol=[]),
    "no layer": lambda identity: identity.pop("layer"),
    "a list as layer": lambda identity: identity.update(layer=["conv3"]),
    "no settings": lambda identity: identity.pop("config"),
    "nothing as settings": lambda identity: identity.update(config=None),
    "other settings": lambda identity: identity["config"].update(k="all"),
    "a number as encoder": lambda identity: identity.update(encoder=5),
    "no data": lambda identity: identity.pop("data"),
    "a list as data": lambda identity: identity.update(data=[]),
    "a control without chance": lambda identity: identity.update(control="shuffled-labels"),
}


@pytest.mark.parametrize("kind", IDENTITIES)
def test_an_identity_of_another_form_is_named(bench: Bench, work: Path, kind: str) -> None:
    folder = rekeyed(evaluation(), IDENTITIES[kind])
    read_by_all(bench, folder)
    key = key_in(folder)[:12]
    told(bench("rerun", key, "--workers", 0, "--workspace", "runs"), key)
    named(bench, RUNS, folder)


DETAILS: dict[str, Change] = {
    "nothing": lambda details: details.clear(),
    "no metric": lambda details: [details.pop(name) for name in ("metric", "shown")],
    "a number of metrics": lambda details: details.update(shown=5),
    "lists of metrics": lambda details: details.update(shown=[[]]),
    "another metric": lambda details: details.update(shown=["top2"]),
    "no digits": lambda details: details.update(digits=None),
    "no units": lambda details: details.update(units=None),
    "a list as interval": lambda details: details.update(interval=[]),
    "a number as pretraining": lambda details: details.update(pretraining=5),
    "a list as digest": lambda details: details.update(pretraining_digest=[]),
    "no test images": lambda details: details.pop("test_images"),
    "nothing skipped": lambda details: details.update(skipped_images=None),
    "a list as layer": lambda details: details.update(asked_layer=["conv3"]),
}


@pytest.mark.parametrize("kind", DETAILS)
def test_details_of_another_form_are_named(bench: Bench, work: Path, kind: str) -> None:
    folder = evaluation()
    edit(folder, lambda record: DETAILS[kind](record["details"]))
    read_by_all(bench, folder)


@pytest.mark.parametrize("lost", ["top1", "top1_high"])
def test_metrics_that_are_missing_are_named(bench: Bench, work: Path, lost: str) -> None:
    folder = evaluation()
    edit(folder, lambda record: record["metrics"].pop(lost))
    read_by_all(bench, folder)


ENCODERS: dict[str, Change] = {
    "no encoder": lambda record: record["details"].pop("encoder"),
    "a number as encoder": lambda record: record["details"].update(encoder=5),
    "another spec": lambda record: record["details"]["encoder"].update(spec=5),
    "no settings": lambda record: record["identity"].pop("config"),
    "a number as settings": lambda record: record["identity"].update(config=5),
    "other settings": lambda record: record["identity"]["config"].update(x=5),
    "petabytes": lambda record: record["identity"]["config"].update(bottleneck=10**12),
    "a path as method": lambda record: record.update(method="../../x"),
    "a library as method": lambda record: record.update(method="timm:resnet18"),
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_pretraining_record_of_another_form_is_named(bench: Bench, work: Path, kind: str) -> None:
    """Or does not matter; but it never makes a command fall."""
    folder = only(RUNS, "pretrain/inpainting-*")
    edit(folder, ENCODERS[kind])
    folder, place = rekeyed(folder, lambda identity: None), ("--workspace", "runs")
    draw_photo(1).save("photo.png")
    key = key_in(folder)[:12]
    answered(bench("show", key, *place))
    told(bench("rerun", key, "--workers", 0, *place), key)
    answered(bench("inpaint", "photo.png", "--out", "filled", *place))
    answered(bench("knn", "--k", 1, "--layer", "conv2", "--workers", 0, *SCENES, *place), key)


def rewrite(folder: Path, old: str, new: str) -> None:
    path = folder / "record.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


TEXTS: dict[str, Callable[[bytes], bytes]] = {
    "nested": lambda text: b"[" * 1_000_000,
    "nested details": lambda text: text.replace(
        b'"shown"', b'"x": ' + b"[" * 100_000 + b"]" * 100_000 + b', "shown"', 1
    ),
    "a long number": lambda text: text.replace(b"9600", b"1" + b"0" * 5000, 1),
    "UTF-16": lambda text: text.decode().encode("utf-16"),
    "Latin-1": lambda text: text.replace(b"random", b"rand\xf6m", 1),
    "half a character": lambda text: text.replace(b'"random"', b'"\\ud800"', 1),
    "nothing": lambda text: b"",
}


@pytest.mark.parametrize("kind", TEXTS)
def test_json_that_cannot_be_read_is_named(bench: Bench, work: Path, kind: str) -> None:
    path = evaluation() / "record.json"
    path.write_bytes(TEXTS[kind](path.read_bytes()))
    for reader in ("table", "report", "import"):
        refused(bench(*READERS[reader]), path)
    named(bench, RUNS, path)
    with pytest.raises(DataError, match=re.escape(str(path))):
        ssl_bench.load_records(RUNS)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "1" + "0" * 400])
def test_metrics_are_numbers(bench: Bench, work: Path, number: str) -> None:
    """A record of ours cannot hold another: it would be read as damaged."""
    folder = evaluation()
    value = json.loads((folder / "record.json").read_text())["metrics"]["top1"]
    rewrite(folder, f'"top1": {value}', f'"top1": {number}')
    for reader in ("table", "report", "import"):
        refused(bench(*READERS[reader]), folder)
    named(bench, RUNS, folder)


def test_a_key_that_stands_twice_is_judged_as_it_is_printed(bench: Bench, work: Path) -> None:
    folder = evaluation()
    rewrite(folder, '"metrics": {', '"metrics": {"top1": 99.0,')
    assert "99.0" not in bench(*READERS["table"]).out
    bench.ok("verify", "runs")
    value = json.loads((folder / "record.json").read_text())["metrics"]["top1"]
    rewrite(folder, f'"top1": {value},', f'"top1": {value}, "top1": 98.5,')
    assert "98.5" in bench(*READERS["table"]).out
    named(bench, RUNS, folder, "top1 is 98.5")
