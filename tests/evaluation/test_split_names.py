"""Harnesses of other splits than train and test: gallery and query, many tests."""

import shutil

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from ssl_bench import catalogue
from ssl_bench.data.store.squares import open_store
from ssl_bench.errors import DataError
from ssl_bench.evaluation.evaluate import evaluate
from ssl_bench.evaluation.features import extract
from ssl_bench.evaluation.harness import Outcome, Probe, ProbeConfig
from ssl_bench.evaluation.metrics import TOP1
from ssl_bench.evaluation.metrics.precision import top1
from ssl_bench.evaluation.reference import Reference
from ssl_bench.records import protocols
from ssl_bench.records.workspace import folder_of
from ssl_bench.runtime import Runtime
from ssl_bench.tables.forms import markdown
from ssl_bench.tables.table import Table
from ssl_bench.trust.verify import disagreements


class Retrieval(Probe):
    """Whether the nearest image of the gallery is of the query's class."""

    Config = ProbeConfig
    protocol = "test/retrieval@1"
    metrics = (TOP1,)
    splits, tests = ("gallery", "query"), ("query",)

    def score(self, predictions):
        return {"top1": top1(predictions["label"], predictions["predicted"])}

    def probe(self, layer, splits):
        gallery, query = splits["gallery"], splits["query"]
        nearest = torch.cdist(query.rows.whole(), gallery.rows.whole()).argmin(1)
        return Outcome({"label": query.labels, "predicted": gallery.labels[nearest]})


class Robust(Retrieval):
    """The same on two tests, one after the other."""

    protocol = "test/robust@1"
    splits, tests = ("shifted", "train", "query"), ("query", "shifted")

    def probe(self, layer, splits):
        parts = [Retrieval.probe(self, layer, {"gallery": splits["train"], "query": splits[name]})
                 for name in self.tests]  # fmt: skip
        both = zip(*(part.predictions.values() for part in parts), strict=True)
        label, predicted = map(np.concatenate, both)
        return Outcome({"label": label, "predicted": predicted})


@pytest.fixture
def data(tiny_photos):
    """train/ 18, gallery/ the same but one, query/ 9, shifted/ 9 of which one is in train/."""
    shutil.copytree(tiny_photos / "train", tiny_photos / "gallery")
    next((tiny_photos / "gallery").glob("*/*")).unlink()
    shutil.copytree(tiny_photos / "val", tiny_photos / "query")
    shutil.move(tiny_photos / "val", tiny_photos / "shifted")
    shutil.copy(tiny_photos / "train/ant/1.png", tiny_photos / "shifted/ant/1.png")
    return f"folder:{tiny_photos}"


@pytest.fixture
def measured(finished, data):
    reference = Reference("random", finished)
    asked = [(kind(ProbeConfig()), ["pool5"]) for kind in (Retrieval, Robust)]
    return reference, evaluate(asked, reference, data, finished, Runtime(workers=0))


def test_the_query_is_what_is_predicted(measured, finished, data):
    """By scikit-learn's nearest neighbour on the same features."""
    reference, (record, _) = measured
    assert set(record.identity.data) == {"gallery", "query"}
    assert record.images == record.identity.data["query"]
    assert (record.details.train_images, record.details.test_images) == (17, 9)
    rows, labels = {}, {}
    for name in ("gallery", "query"):
        store = open_store(catalogue.dataset(data), name, reference.spec.image_size, workers=0)
        wanted = {"pool5": [ProbeConfig().dimensions]}
        (found,) = extract(reference.encoder, reference.spec, store, wanted).values()
        rows[name], labels[name] = found.whole().numpy(), store.labels
    oracle = KNeighborsClassifier(1).fit(rows["gallery"], labels["gallery"])
    assert record.metrics["top1"] == pytest.approx(
        100 * oracle.score(rows["query"], labels["query"])
    )


def test_many_tests_are_predicted_one_after_the_other(measured, finished):
    _, (retrieved, record) = measured
    assert record.details.tests == ["query", "shifted"]
    assert record.images.split() == [record.identity.data[n] for n in ("query", "shifted")]
    assert (record.details.train_images, record.details.test_images) == (18, 18)
    assert record.details.duplicates == ["ant/1.png"]
    assert "test/robust@1 pool5" in markdown(Table.of([retrieved, record], finished))


def test_their_numbers_are_verified_and_made_once(measured, finished, data, monkeypatch):
    reference, records = measured
    again = evaluate([(Robust(ProbeConfig()), ["pool5"])], reference, data, finished, Runtime(0))
    assert [record.key for record in again] == [records[1].key]
    ours = {"retrieval": Retrieval, "robust": Robust}
    monkeypatch.setattr(catalogue, "find_all", lambda kind: ours)
    monkeypatch.setattr(protocols, "_installed", protocols._installed.__wrapped__)
    assert {type(protocols.harness_of(record)) for record in records} == {Retrieval, Robust}
    assert list(disagreements(finished)) == []
    path = folder_of(finished, records[1]) / "record.json"
    path.write_text(path.read_text().replace('"top1": ', '"top1": 1'))
    assert any("top1 is" in line for line in disagreements(finished))


def test_a_split_that_is_not_there_is_named(finished, tiny_photos):
    with pytest.raises(DataError, match="photos has no gallery/"):
        evaluate(
            [(Retrieval(ProbeConfig()), ["pool5"])], Reference("random", finished),
            f"folder:{tiny_photos}", finished, Runtime(workers=0),
        )  # fmt: skip
