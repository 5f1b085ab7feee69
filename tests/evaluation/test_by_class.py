"""The mean of the classes' accuracies: scikit-learn's, its spread, and the sets reported by it."""

import json

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from eval.knn import LightlyKNN
from helpers.bench import TOY
from helpers.layouts import photographs
from ssl_bench.data.folder import FolderDataset
from ssl_bench.evaluation.controls import against_chance
from ssl_bench.evaluation.harness import Outcome, printing, score_with_intervals
from ssl_bench.evaluation.metrics.by_class import values_by_class, with_values_by_class


def drawn(random, sizes, accuracies):
    """Labels, and predictions that are right by each class's accuracy."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    right = random.random(len(labels)) < np.array(accuracies)[labels]
    return labels, np.where(right, labels, (labels + 1) % len(sizes))


def test_the_mean_is_scikit_learns():
    random = np.random.default_rng(0)
    for sizes in ([5, 5, 5], [1, 40, 7], [100, 1, 1]):
        labels, predicted = drawn(random, sizes, [0.9, 0.3, 0.6])
        expected = 100 * balanced_accuracy_score(labels, predicted)
        assert values_by_class(labels, predicted).mean() == pytest.approx(expected, abs=1e-9)


def test_of_equal_classes_it_is_top1():
    labels, predicted = drawn(np.random.default_rng(1), [30, 30], [0.9, 0.2])
    assert values_by_class(labels, predicted).mean() == pytest.approx(
        100 * (labels == predicted).mean()
    )


def test_the_interval_holds_the_truth_of_unequal_classes():
    """500 sets of unlike classes: a 95 % interval holds it as often as 95 % can, ± 3 deviations."""
    sizes, accuracies = [20, 60, 200, 40], [0.9, 0.4, 0.7, 0.8]
    held, widths = 0, []
    for seed in range(500):
        labels, predicted = drawn(np.random.default_rng(seed), sizes, accuracies)
        harness = LightlyKNN(LightlyKNN.Config())
        found = score_with_intervals(harness, with_values_by_class(arrays(labels, predicted)))
        low, high = found["mean_per_class_low"], found["mean_per_class_high"]
        held += low <= 100 * np.mean(accuracies) <= high
        widths.append(high - low)
    assert 0.95 - 3 * np.sqrt(0.05 * 0.95 / 500) - 0.01 < held / 500 < 0.95 + 0.03
    # Bernoulli's variance by class: what each class's own images leave open.
    spread = np.sqrt(sum(p * (1 - p) / n for p, n in zip(accuracies, sizes, strict=True))) / 4
    assert np.mean(widths) == pytest.approx(2 * 1.96 * 100 * spread, rel=0.06)


def arrays(labels, predicted):
    return {"label": labels, "predicted": predicted, "predicted_by_k": predicted[:, None]}


def test_it_heads_the_row_where_its_values_are():
    harness = LightlyKNN(LightlyKNN.Config())
    plain = arrays(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]))
    assert printing(harness, plain)["shown"] == ["top1"]
    by_class = with_values_by_class(plain)
    assert printing(harness, by_class)["metric"] == "mean_per_class"
    assert printing(harness, by_class)["shown"] == ["mean_per_class", "top1"]
    found = score_with_intervals(harness, by_class)
    assert (found["mean_per_class"], found["top1"]) == (50, 75)
    assert harness.chance(by_class) == {"top1": 75, "mean_per_class": 50}
    several = {"label": np.zeros(2), "predicted": np.zeros((2, 3))}
    assert with_values_by_class(several) is several


def test_a_control_is_judged_by_permuted_labels_of_all_classes():
    """Who knows the labels is far above chance, who says one class is at 100 / C exactly."""
    labels = np.repeat([0, 1, 2, 3], [30, 5, 40, 25])
    for predicted, low, high in ((labels, 3, 100), (np.zeros(100, int), -0.1, 0.1)):
        predictions = with_values_by_class(arrays(labels, predicted))
        value = predictions["mean_per_class"].mean()
        control = against_chance(LightlyKNN(LightlyKNN.Config()), Outcome(predictions), value)
        assert control.chance == pytest.approx(25, abs=3)
        assert low < control.z < high


def test_from_a_set_that_is_reported_by_class_to_table_comparison_and_verification(
    bench, workspace, tmp_path, monkeypatch
):
    """By a linear probe and fine-tuning; other sets' records have nothing new."""
    photographs(tmp_path / "own/train", *(f"{c}/{i}.png" for c in "ab" for i in range(8)))
    unequal = [*(f"a/{i}.png" for i in range(9)), *(f"b/{i}.png" for i in range(3))]
    photographs(tmp_path / "own/val", *unequal)
    data = f"folder:{tmp_path / 'own'}"
    common = (*TOY[:-2], "--data", data, "--workspace", workspace)
    bench.ok("pretrain", "random", *common)
    bench.ok("pretrain", "autoencoder", "--steps", 1, "--batch-size", 4, *common)
    knn = ("knn", "--layer", "conv1", "--protocol", "lightly", "--data", data, "--workers", 0)
    assert "mean_per_class" not in bench.ok(*knn, "--workspace", workspace).out

    def split(self, name, task="classification", *, plain=FolderDataset.split):
        found = plain(self, name, task)
        found.metric = "mean_per_class"
        found.fingerprint += "by class"
        return found

    monkeypatch.setattr(FolderDataset, "split", split)
    place = ("--layer", "conv1", "--data", data, "--workspace", workspace, "--workers", 0)
    bench.ok("linear-probe", *place)
    bench.ok("finetune", "--protocol", "linear-head", *place, "--steps", 2, "--labels", 4)
    records = [json.loads(path.read_text()) for path in workspace.glob("evaluation/*/record.json")]
    by_class = [r for r in records if "mean_per_class" in r["metrics"]]
    assert len(by_class) == 4
    assert len(records) == 6
    for record in by_class:
        assert record["details"]["shown"] == ["mean_per_class", "top1"]
        folder = next(workspace.glob(f"evaluation/*{record['key'][:12]}"))
        stored = np.load(folder / "predictions.npz")
        expected = 100 * balanced_accuracy_score(stored["label"], stored["predicted"])
        assert record["metrics"]["mean_per_class"] == pytest.approx(expected, abs=1e-9)
    table = bench.ok("table", "--workspace", workspace).out
    assert "mean_per_class" in table
    compared = bench.ok("compare", "random", "autoencoder", "--workspace", workspace).out
    assert "mean_per_class" in compared
    bench.ok("verify", workspace)
