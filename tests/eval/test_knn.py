"""Nearest neighbours: against a loop, against scikit-learn, in blocks, and blind to test labels."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from eval import knn
from eval.knn import KNN, KNNConfig, VisslKNN
from eval.splits import held_out
from helpers.refusals import SCENES, TOY, fails
from ssl_bench import catalogue
from ssl_bench.data.store.squares import open_store
from ssl_bench.errors import DataError
from ssl_bench.evaluation.features import Features
from ssl_bench.evaluation.harness import score_with_intervals
from ssl_bench.evaluation.rows import Rows

CLASSES = ("a", "b", "c", "d", "e")


def features(rows, labels, block=None):
    """Features of rows (N, D), read in blocks of `block` rows."""
    made = Rows.of(torch.as_tensor(rows, dtype=torch.float32))
    if block:
        made.block_rows = block
    return Features(made, np.asarray(labels), CLASSES)


def clouds(count, seed, spread=3.0, size=20):
    """Rows around one centre per class, far overlapping, and their labels."""
    centres = np.random.default_rng(99).normal(size=(5, size))
    random = np.random.default_rng(seed)
    labels = random.integers(0, 5, count)
    labels[:10] = np.arange(10) % 5  # no class is missing
    return centres[labels] + spread * random.normal(size=(count, size)), labels


def probed(train, test, **settings):
    return KNN(KNNConfig(**settings)).probe("conv2", {"train": train, "test": test})


def by_hand(train, labels, tests, k, temperature):
    """One image after the other, one neighbour after the other, in float64."""
    unit = train / np.linalg.norm(train, axis=1, keepdims=True)
    winners = []
    for row in tests / np.linalg.norm(tests, axis=1, keepdims=True):
        cosines = unit @ row
        votes = np.zeros(labels.max() + 1)
        for i in np.argsort(-cosines, kind="stable")[:k]:
            votes[labels[i]] += np.exp(cosines[i] / temperature)
        winners.append(votes.argmax())
    return np.array(winners)


# ---- the answer
@pytest.mark.parametrize("temperature", [0.07, 0.1, 1e6])
def test_a_loop_finds_the_same_classes(temperature):
    (rows, labels), (tests, truth) = clouds(300, 0), clouds(150, 1)
    ks = (1, 7, 40, 300)
    found = probed(features(rows, labels), features(tests, truth), k=ks, temperature=temperature)
    assert found.predictions["predicted_by_k"].dtype == np.int16
    for i, k in enumerate(ks):
        expected = by_hand(rows, labels, tests, k, temperature)
        assert np.array_equal(found.predictions["predicted_by_k"][:, i], expected)


@pytest.mark.parametrize(("variant", "k", "temperature"), [(VisslKNN, 200, 0.1), (KNN, 20, 0.07)])
def test_scikit_learn_finds_the_same_classes(variant, k, temperature):
    """Its cosine distance is 1 − cosine; a factor that all votes share changes none."""
    (rows, labels), (tests, truth) = clouds(400, 2), clouds(200, 3)
    harness = variant(variant.Config(k=(k,)))
    assert harness.config.temperature == temperature
    found = harness.probe(
        "pool5", {"train": features(rows, labels), "test": features(tests, truth)}
    )
    weights: Any = lambda distances: np.exp((1 - distances) / temperature)  # noqa: E731
    oracle = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=weights)
    oracle.fit(rows, labels)
    assert np.array_equal(found.predictions["predicted"], oracle.predict(tests))


def test_a_low_temperature_neither_overflows_nor_loses_the_nearest():
    (rows, labels), (tests, truth) = clouds(200, 0), clouds(80, 1)
    cold = probed(features(rows, labels), features(tests, truth), k=(50,), temperature=1e-5)
    one = probed(features(rows, labels), features(tests, truth), k=(1,))
    assert np.array_equal(cold.predictions["predicted"], one.predictions["predicted"])


def test_of_equal_votes_the_smaller_class_wins_and_of_equal_rows_the_earlier():
    rows = np.array([[1.0, 0], [2, 0], [0, 1], [0, 3]])  # two directions, each twice
    labels = np.array([3, 1, 2, 0])
    asked = features([[5.0, 0], [0, 0.1]], [1, 0])
    one = probed(features(rows, labels), asked, k=(1,))
    assert one.predictions["predicted"].tolist() == [3, 2]
    two = probed(features(rows, labels), asked, k=(2,))
    assert two.predictions["predicted"].tolist() == [1, 0]


# ---- blocks
@pytest.mark.parametrize(("block", "asked", "pairs"), [(64, 50, 640), (1, 7, 1), (299, 120, 9999)])
def test_the_size_of_the_blocks_changes_nothing(monkeypatch, block, asked, pairs):
    """Not even where rows are equal: half of them stand twice, under other labels."""
    rows, labels = clouds(300, 6)
    rows[150:] = rows[:150]
    tests, truth = clouds(120, 7)
    config = {"k": (1, 5, 60)}
    whole = probed(features(rows, labels), features(tests, truth), **config)
    monkeypatch.setattr(knn, "PAIRS", pairs)
    parts = probed(features(rows, labels, block), features(tests, truth, asked), **config)
    assert np.array_equal(whole.predictions["predicted_by_k"], parts.predictions["predicted_by_k"])
    assert whole.selection == parts.selection


def test_rows_on_disk_give_the_same(monkeypatch):
    (rows, labels), (tests, truth) = clouds(300, 6), clouds(120, 7)
    kept = []
    for values in (rows, tests):
        on_disk = Rows(len(values), values.shape[1], on_disk=True)
        on_disk.write(0, torch.as_tensor(values, dtype=torch.float32))
        on_disk.block_rows = 70
        kept.append(on_disk)
    from_disk = probed(Features(kept[0], labels, CLASSES), Features(kept[1], truth, CLASSES))
    in_memory = probed(features(rows, labels), features(tests, truth))
    assert np.array_equal(from_disk.predictions["predicted"], in_memory.predictions["predicted"])


def test_no_table_of_all_pairs_is_made(monkeypatch):
    """What is multiplied holds no more pairs than it may, and each pair comes once."""
    (rows, labels), (tests, truth) = clouds(300, 0), clouds(150, 1)
    monkeypatch.setattr(knn, "PAIRS", 2000)
    sizes, plain = [], knn.nearest

    def noting(queries, searched, k):
        sizes.extend(len(queries) * (span.stop - span.start) for span in searched.spans())
        return plain(queries, searched, k)

    monkeypatch.setattr(knn, "nearest", noting)
    probed(features(rows, labels, 64), features(tests, truth), k=(5,))
    assert max(sizes) <= 2000
    assert sum(sizes) == 300 * 150


# ---- the choice of k
def test_k_is_chosen_on_train_and_every_k_is_recorded():
    (rows, labels), (tests, truth) = clouds(300, 0), clouds(150, 1)
    ks = (1, 5, 30, 150)
    found = probed(features(rows, labels), features(tests, truth), k=ks)
    searched, asked = held_out(labels, 0.2, 0)
    known, tried = (rows[searched], labels[searched]), rows[asked]
    accuracy = [100 * np.mean(by_hand(*known, tried, k, 0.07) == labels[asked]) for k in ks]
    points = found.selection["points"]
    assert [p["k"] for p in points] == list(ks)
    assert [p["top1"] for p in points] == pytest.approx(accuracy, abs=1e-3)
    best = int(np.argmax(accuracy))
    assert found.selection["chosen"] == {"k": ks[best]}
    assert found.selection["split"] == "20% of train, stratified"
    assert found.selection["dimensions"] == 20
    assert np.array_equal(
        found.predictions["predicted"], found.predictions["predicted_by_k"][:, best]
    )
    other = probed(features(rows, labels), features(tests, truth[::-1]), k=ks)
    assert other.selection == found.selection
    assert np.array_equal(other.predictions["predicted"], found.predictions["predicted"])


def test_of_equal_k_the_smallest_is_chosen():
    rows, labels = clouds(100, 0, spread=0.01)  # every k up to the class's size is right
    found = probed(features(rows, labels), features(rows, labels), k=(9, 3, 5))
    assert [p["top1"] for p in found.selection["points"]] == [100, 100, 100]
    assert found.selection["chosen"] == {"k": 3}


def test_a_single_k_is_not_chosen():
    (rows, labels), (tests, truth) = clouds(60, 0), clouds(30, 1)
    found = probed(features(rows, labels), features(tests, truth), k=(60,))
    assert found.selection["split"] == "none: nothing is chosen"
    assert "points" not in found.selection


def test_the_score_has_the_chosen_k_with_its_interval_and_every_k():
    harness = KNN(KNNConfig(k=(10, 20)))
    by_k = np.array([[0, 1], [1, 1], [0, 0], [2, 2]], dtype=np.int16)
    label = np.array([0, 1, 2, 2])
    made = {"label": label, "predicted": by_k[:, 0].astype(np.int64), "predicted_by_k": by_k}
    found = score_with_intervals(harness, made)
    assert (found["top1"], found["top1_k10"], found["top1_k20"]) == (75, 75, 50)
    assert found["top1_low"] < 75 < found["top1_high"]


# ---- refusals
@pytest.fixture(scope="module")
def stores():
    data = catalogue.dataset("scenes:train=60,test=20")
    return [open_store(data, split, 64, workers=0) for split in ("train", "test")]


def test_of_fewer_images_than_k_all_vote():
    rows, labels = clouds(60, 0)
    few = features(rows, labels)
    found = probed(few, few, k=(5, 60, 200))
    assert found.selection["all_vote"] == {"k": [60, 200], "searched": 48}  # while k is chosen
    by_k = found.predictions["predicted_by_k"]
    np.testing.assert_array_equal(by_k[:, 1], by_k[:, 2])
    assert "all_vote" not in probed(few, few, k=(5, 48)).selection


def test_a_class_of_one_image_chooses_nothing_and_is_searched():
    rows, labels = clouds(11, 0)
    labels[10], labels[:10] = 4, np.arange(10) % 4  # a single image of class e
    found = probed(features(rows, labels), features(rows, labels), k=(1, 2))
    assert found.selection["not_held_out"] == ["e"]
    assert found.predictions["predicted_by_k"][10, 0] == 4


def test_labels_that_cannot_be_used_are_refused(stores):
    train, test = stores

    def labelled(store, labels):
        return type(store)(store.folder, store.index.model_copy(update={"labels": labels}))

    harness = KNN(KNNConfig(k=(5,)))
    with pytest.raises(DataError, match="hold 1 class"):
        harness.check({"train": labelled(train, [0] * 60), "test": test})
    with pytest.raises(DataError, match="is in the test images but not in train"):
        harness.check({"train": labelled(train, [0, 1] * 30), "test": test})
    with pytest.raises(DataError, match="several labels each"):
        harness.check({"train": labelled(train, [[1, 0]] * 60), "test": test})


@pytest.mark.parametrize("kind", ["zero", "constant", "one direction"])
def test_features_that_tell_no_images_apart_name_the_layer(kind):
    rows = np.tile([[0.3, 0.1, 7.0]], (50, 1))
    rows *= {"zero": 0, "constant": 1, "one direction": np.arange(1, 51)[:, None]}[kind]
    labels = np.arange(50) % 5
    with pytest.raises(DataError, match="layer conv2: all features are constant"):
        probed(features(rows, labels), features(rows, labels), k=(3,))


def test_a_few_images_without_features_are_no_error():
    rows, labels = clouds(100, 0)
    rows[::9] = 0
    found = probed(features(rows, labels), features(rows, labels), k=(3,))
    assert len(found.predictions["predicted"]) == 100


def test_the_order_of_k_makes_no_other_setting():
    assert KNNConfig(k=(20, 10, 20)) == KNNConfig(k=(10, 20))
    assert KNNConfig(k=(20, 10, 200, 100)).deviations() == []
    assert KNNConfig(k=(5,), temperature=0.1).deviations() == ["k=5", "temperature=0.1"]


# ---- the command
def test_the_command_records_every_k_and_refuses_what_is_none(bench, workspace):
    bench.ok("pretrain", "random", *TOY, *SCENES, "--workspace", workspace)
    place = (*SCENES, "--workers", "0", "--workspace", workspace)
    result = bench.ok("knn", "--k", "10,5", "--layer", "conv3", *place)
    assert "knn/dinov2@1 k=5,10" in result.out
    (path,) = workspace.glob("evaluation/*/record.json")
    metrics = json.loads(path.read_text())["metrics"]
    assert set(metrics) == {"top1", "top1_low", "top1_high", "top1_k5", "top1_k10"}
    assert bench("knn", "--protocol", "lightly", "--k", "60", *place).code == 0
    assert "all vote" in bench("knn", *place).err
    fails(bench("knn", "--k", "0,5", *place), 2, "--k", "from 1")
    fails(bench("knn", "--k", "a", *place), 2, "--k")
