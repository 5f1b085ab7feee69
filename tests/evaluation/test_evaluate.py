"""The job from encoder to record: one pass for all probes, nothing lost, controls at chance."""

import math

import numpy as np
import pytest
import torch

from helpers.photos import draw_photo
from ssl_bench import catalogue
from ssl_bench.errors import DataError
from ssl_bench.evaluation.controls import against_chance
from ssl_bench.evaluation.evaluate import evaluate
from ssl_bench.evaluation.features import BATCH
from ssl_bench.evaluation.harness import Outcome, Probe, ProbeConfig, score_with_intervals
from ssl_bench.evaluation.metrics import TOP1
from ssl_bench.evaluation.metrics.precision import top1
from ssl_bench.evaluation.reference import Reference
from ssl_bench.records.workspace import folder_of, read_records
from ssl_bench.runtime import Runtime
from ssl_bench.tables.forms import markdown
from ssl_bench.tables.table import Table

DATA = "scenes:train=60,test=20"


class ClassMeans(Probe):
    """The class whose mean is nearest: a probe of five lines."""

    Config = ProbeConfig
    protocol = "test/means@1"
    metrics = (TOP1,)

    def score(self, predictions):
        return {"top1": top1(predictions["label"], predictions["predicted"])}

    def probe(self, layer, splits):
        train, test = splits["train"], splits["test"]
        rows = train.rows.whole()
        means = torch.stack([rows[train.labels == c].mean(0) for c in range(len(train.classes))])
        predicted = torch.cdist(test.rows.whole(), means.nan_to_num(1e9)).argmin(1)
        return Outcome({"label": test.labels, "predicted": predicted.numpy()})


class Other(ClassMeans):
    protocol = "test/other@1"


class Fewer(ClassMeans):
    """A probe that opens images of its own."""

    protocol = "test/fewer@1"

    def open(self, dataset, split, spec, **more):
        return super().open(catalogue.dataset("scenes:train=40,test=10"), split, spec, **more)


class Fussy(ClassMeans):
    protocol = "test/fussy@1"

    def probe(self, layer, splits):
        if layer == "conv3":
            raise DataError("layer conv3: nothing to fit")
        return super().probe(layer, splits)


def measure(requests, workspace, **more):
    reference = Reference("random", workspace)
    calls = []
    reference.encoder.register_forward_hook(lambda m, given, out: calls.append(len(given[0])))
    runtime = Runtime(0, **more.pop("runtime", {}))
    records = evaluate(requests, reference, more.pop("data", DATA), workspace, runtime, **more)
    return records, [count for count in calls if count > 1]  # one blank image tells the sizes


def test_two_protocols_and_three_layers_share_one_pass(finished):
    probes = [(kind(ProbeConfig()), ["conv2", "conv3", "pool5"]) for kind in (ClassMeans, Other)]
    records, calls = measure(probes, finished)
    assert len(records) == 6
    assert sum(calls) == 60 + 20
    assert len(calls) == math.ceil(60 / BATCH) + math.ceil(20 / BATCH)


def test_a_harness_that_opens_another_store_sees_it_and_is_keyed_by_it(finished):
    asked = [(kind(ProbeConfig()), ["conv2"]) for kind in (ClassMeans, Fewer, Other)]
    (means, fewer, other), calls = measure(asked, finished)
    assert sum(calls) == 60 + 20 + 40 + 10  # those that share the squares share a pass
    assert means.identity.data == other.identity.data != fewer.identity.data
    assert [r.details.train_images for r in (means, fewer, other)] == [60, 40, 60]
    assert [r.details.test_images for r in (means, fewer, other)] == [20, 10, 20]


def test_only_what_is_missing_is_measured(finished):
    measure([(ClassMeans(ProbeConfig()), ["conv2"])], finished)
    again, calls = measure([(ClassMeans(ProbeConfig()), ["conv2"])], finished)
    assert (len(again), calls) == (1, [])
    both, calls = measure([(ClassMeans(ProbeConfig()), ["conv2", "conv3"])], finished)
    assert len(both) == 2
    assert sum(calls) == 80


def test_features_on_disk_give_the_same_numbers(finished, tmp_path):
    asked = [(ClassMeans(ProbeConfig()), ["conv2", "pool5"])]
    held, _ = measure(asked, finished)
    keys = [record.key for record in held]
    for record in held:
        (folder_of(finished, record) / "record.json").unlink()
    filed, _ = measure(asked, finished, runtime={"feature_memory_mb": 0})
    assert [r.details.plain()["pass"]["on_disk"] for r in held + filed] == [False] * 2 + [True] * 2
    assert [r.key for r in filed] == keys
    assert [r.metrics for r in filed] == [r.metrics for r in held]


def test_a_probe_that_fails_loses_none_of_the_others(finished):
    asked = [(Fussy(ProbeConfig()), ["conv2", "conv3", "conv4"]), (Other(ProbeConfig()), ["conv3"])]
    with pytest.raises(DataError, match="layer conv3"):
        measure(asked, finished)
    kept = read_records(finished, "evaluation")
    assert {(r.identity.protocol, r.identity.layer) for r in kept} == {
        ("test/fussy@1", "conv2"), ("test/fussy@1", "conv4"), ("test/other@1", "conv3"),
    }  # fmt: skip


def test_the_control_learns_from_shuffled_labels_and_is_no_cell_of_the_table(finished):
    data = "scenes:train=300,test=200"
    asked = [(ClassMeans(ProbeConfig()), ["conv2", "conv3"])]
    records, _ = measure(asked, finished, data=data, controls=True)
    (control,) = [r for r in records if r.identity.control is not None]
    assert control.identity.layer == "conv3"
    found = control.details.control
    assert found
    assert abs(found.chance - 10) < 3
    assert abs(found.z) < 4
    table = markdown(Table.of(records, finished))
    assert "Control, shuffled training labels, test/means@1" in table
    assert "at chance" in table
    assert table.splitlines()[0].count("test/means@1") == 2


def test_chance_keeps_images_that_look_alike_together():
    """A ranking of whole clusters strays from the base rate; image by image it hardly could."""
    labels = np.repeat(np.arange(4), 200)
    clusters = np.roll(np.arange(4), 1)[labels]  # each class is given one other class's name
    outcome = Outcome({"label": labels, "predicted": clusters})
    found = against_chance(ClassMeans(ProbeConfig()), outcome, 100.0)
    by_image = 100 * (0.25 * 0.75 / 800) ** 0.5
    assert found.spread > 10 * by_image
    assert 10 < found.chance < 45


def test_a_probe_that_sees_the_test_labels_fails_the_control(finished):
    class Leaking(ClassMeans):
        protocol = "test/leaking@1"

        def probe(self, layer, splits):
            labels = splits["test"].labels
            return Outcome({"label": labels, "predicted": labels})

    records, _ = measure([(Leaking(ProbeConfig()), ["conv3"])], finished, controls=True)
    control = next(r for r in records if r.identity.control is not None)
    assert control.details.control
    assert control.details.control.z > 4
    assert "ABOVE CHANCE" in markdown(Table.of(records, finished))


def test_test_images_that_are_training_images_are_counted(finished, tmp_path):
    root = tmp_path / "photos"
    for split, seeds in (("train", range(4)), ("val", (3, 10))):
        for label in ("ant", "bee"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for seed in seeds:
                draw_photo(seed + 100 * (label == "bee")).save(folder / f"{split}{seed}.png")
    records, _ = measure([(ClassMeans(ProbeConfig()), [])], finished, data=f"folder:{root}")
    assert records[0].details.duplicates == ["ant/val3.png", "bee/val3.png"]
    assert "**2 of them also in train**" in markdown(Table.of(records, finished))


def test_the_metrics_are_those_of_the_stored_predictions(finished):
    records, _ = measure([(ClassMeans(ProbeConfig()), ["conv3"])], finished)
    with np.load(folder_of(finished, records[0]) / "predictions.npz") as rows:
        again = score_with_intervals(ClassMeans(ProbeConfig()), dict(rows))
    assert again == records[0].metrics
