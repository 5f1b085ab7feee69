"""Few labels: what is drawn, what is fitted to it, and that nothing else is seen."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from eval import svm
from eval.low_shot import COSTS, LowShot, LowShotConfig, TrainRows, _svm, draw_images
from helpers.refusals import fails
from ssl_bench.data.store.squares import ImageStore, Index
from ssl_bench.data.string_array import StringArray
from ssl_bench.errors import DataError
from ssl_bench.evaluation.features import Features
from ssl_bench.evaluation.harness import score_with_intervals
from ssl_bench.evaluation.rows import Rows

NAMES = ("ant", "bee", "cat")


def clusters(count, seed, several=False, spread=1.0, size=12):
    """Features around a centre per class; with several labels, around the sum of the centres."""
    random = np.random.default_rng(seed)
    centres = 2 * np.random.default_rng(99).normal(size=(3, size))
    if several:
        known = (random.random((count, 3)) < 0.4).astype(np.int8)
        rows = known @ centres
        known[random.random((count, 3)) < 0.05] = -1
    else:
        known = np.arange(count) % 3
        rows = centres[known]
    rows = rows + random.normal(0, spread, (count, size))
    return Features(Rows.of(torch.from_numpy(rows).float()), known, NAMES)


def measure(config, train, test):
    probe = LowShot(config)
    outcome = probe.probe("conv1", {"train": train, "test": test})
    return outcome, score_with_intervals(probe, outcome.predictions)


def test_a_draw_has_k_images_of_each_class():
    labels = np.repeat([0, 1, 2], [20, 30, 40])
    drawn = draw_images(labels, 7, [0, 7, 0])
    assert np.bincount(drawn.annotations).tolist() == [7, 7, 7]
    assert np.array_equal(labels[drawn.images], drawn.annotations)
    assert len(set(drawn.images.tolist())) == 21
    other = draw_images(labels, 7, [0, 7, 1])
    assert not np.array_equal(drawn.images, other.images)
    again = draw_images(labels, 7, [0, 7, 0])
    assert np.array_equal(drawn.images, again.images)


def test_with_several_labels_each_class_has_its_own_positives_and_negatives():
    targets = clusters(200, 0, several=True).annotations
    drawn = draw_images(targets, 5, [0, 5, 0])
    assert ((drawn.annotations == 1).sum(0) == 5).all()
    assert ((drawn.annotations == 0).sum(0) == 5 * 2).all()
    used = drawn.annotations != -1
    assert np.array_equal(targets[drawn.images][used], drawn.annotations[used])
    assert used.any(1).all()  # an image that no class uses is not taken


def test_the_result_is_the_mean_of_its_draws():
    config = LowShotConfig(probe="knn", shots=(1, 4), draws=3)
    outcome, metrics = measure(config, clusters(60, 0), clusters(90, 1))
    label, predicted = outcome.predictions["label"], outcome.predictions["predicted"]
    assert predicted.shape == (90, 2, 3)
    by_hand = 100 * (predicted == label[:, None, None]).mean(0)  # (shots, draws)
    assert metrics["top1_k1"] == pytest.approx(by_hand[0].mean())
    assert metrics["top1_k4_std"] == pytest.approx(by_hand[1].std(ddof=1))
    assert metrics["top1_k4_low"] < metrics["top1_k4"] < metrics["top1_k4_high"]


@pytest.mark.parametrize("probe", ["svm", "logreg", "knn"])
def test_more_labels_help(probe):
    config = LowShotConfig(probe=probe, shots=(1, 32), draws=5)
    _, metrics = measure(config, clusters(150, 0, spread=4), clusters(300, 1, spread=4))
    few, many = (v for k, v in metrics.items() if k.rpartition("_k")[2] in ("1", "32"))
    assert many > few + 10


@pytest.mark.parametrize("shots", [1, 6])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("count", [240, 45])  # of 45, most are drawn: all share their axes
def test_the_svm_is_scikit_learns_on_the_same_images(shots, several, count):
    train, test = clusters(count, 0, several, 2), clusters(80, 1, several, 2)
    config = LowShotConfig(shots=(shots,), draws=1)
    outcome, _ = measure(config, train, test)
    (chosen,) = outcome.selection["chosen"][str(shots)]
    drawn = draw_images(train.annotations, shots, [0, shots, 0])
    rows = [f.rows.whole().double().numpy() for f in (train, test)]
    rows = [r / (np.linalg.norm(r, axis=1, keepdims=True) + 1e-5) for r in rows]
    targets = drawn.annotations if several else np.eye(3)[drawn.annotations]
    assert sum(chosen.values()) == 3
    assert set(chosen) <= set(COSTS)
    for c in range(3):
        used = targets[:, c] != -1
        ours = outcome.predictions["scores"][:, c, 0, 0]
        off = []
        for cost in chosen:
            oracle = LinearSVC(C=cost, class_weight={1: 2, 0: 1}, tol=1e-8, max_iter=1_000_000)
            oracle.fit(rows[0][drawn.images][used], targets[used, c])
            off.append(np.abs(oracle.decision_function(rows[1]) - ours).max())
        assert min(off) < 2e-3
    if shots == 1:
        assert set(chosen) == {1.0}


def test_draws_that_are_fitted_together_are_those_fitted_alone():
    train, test = clusters(45, 0, True, 2), clusters(80, 1, True, 2)
    both, _ = measure(LowShotConfig(shots=(6,), draws=2), train, test)
    for draw in range(2):
        drawn = draw_images(train.annotations, 6, [0, 6, draw])
        assert 2 * len(drawn.images) > 45
        alone = _svm(TrainRows("conv1", train.rows), [drawn], svm.normalized(test.rows), 3)[0]
        assert np.abs(both.predictions["scores"][:, :, 0, draw] - alone[0]).max() < 1e-3
        assert both.selection["chosen"]["6"][draw] == dict(Counter(alone[1]))


def test_the_logistic_regression_is_scikit_learns_on_the_same_images():
    train, test = clusters(90, 0, spread=2), clusters(300, 1, spread=2)
    outcome, _ = measure(LowShotConfig(probe="logreg", shots=(8,), draws=1), train, test)
    (chosen,) = outcome.selection["chosen"]["8"]
    (strength,) = chosen
    drawn = draw_images(train.annotations, 8, [0, 8, 0])
    fitted = train.rows.whole().double().numpy()[drawn.images]
    mean, scale = fitted.mean(0), fitted.std(0) * np.sqrt(12)
    oracle = LogisticRegression(C=1 / (24 * strength), tol=1e-8, max_iter=10_000)
    oracle.fit((fitted - mean) / scale, drawn.annotations)
    theirs = oracle.predict((test.rows.whole().double().numpy() - mean) / scale)
    assert np.mean(theirs == outcome.predictions["predicted"][:, 0, 0]) > 0.99


@pytest.mark.parametrize("probe", ["svm", "logreg", "knn"])
def test_test_labels_do_not_reach_the_predictions(probe):
    config = LowShotConfig(probe=probe, shots=(4,), draws=2)
    train, test = clusters(60, 0), clusters(40, 1)
    swapped = Features(test.rows, test.annotations[::-1].copy(), NAMES)
    name = "scores" if probe == "svm" else "predicted"
    first, second = (measure(config, train, other)[0] for other in (test, swapped))
    assert np.array_equal(first.predictions[name], second.predictions[name])
    assert first.selection["chosen"] == second.selection["chosen"]


def test_images_that_are_not_drawn_make_no_difference():
    train, test = clusters(120, 0), clusters(40, 1)
    config = LowShotConfig(shots=(3,), draws=1)
    drawn = draw_images(train.annotations, 3, [0, 3, 0])
    rows = train.rows.whole().clone()
    rows[np.setdiff1d(np.arange(120), drawn.images)] += 100
    other = Features(Rows.of(rows), train.annotations, NAMES)
    first, second = (measure(config, given, test)[0] for given in (train, other))
    assert np.array_equal(first.predictions["scores"], second.predictions["scores"])


@pytest.mark.parametrize("probe", ["svm", "logreg", "knn"])
def test_constant_features_name_the_layer(probe):
    train = clusters(60, 0)
    flat = Features(Rows.of(torch.ones(60, 12)), train.annotations, NAMES)
    with pytest.raises(DataError, match="layer conv1: all features are constant"):
        measure(LowShotConfig(probe=probe, shots=(4,)), flat, flat)


def labelled(labels):
    """A store of nothing but labels."""
    names = StringArray.of(str(i) for i in range(len(labels)))
    index = Index(size=8, classes=NAMES, names=names, labels=labels, digests=names, skipped=[],
                  mean=(0, 0, 0), std=(1, 1, 1), digest="")  # fmt: skip
    return ImageStore(Path(), index)


def test_a_class_that_train_lacks_is_refused_before_anything_is_computed():
    test = labelled([0, 1, 2])
    with pytest.raises(DataError, match="class 'bee' is in the test images but not in train"):
        LowShot(LowShotConfig(shots=(1,))).check({"train": labelled([0, 2] * 5), "test": test})


def test_several_labels_are_for_the_svm():
    store = labelled([[1, 0, -1], [0, 1, 0], [0, 0, 1]] * 3)
    LowShot(LowShotConfig(shots=(1, 3))).check({"train": store, "test": store})
    with pytest.raises(DataError, match="several labels each"):
        LowShot(LowShotConfig(probe="logreg", shots=(1, 3))).check({"train": store, "test": store})


def test_the_command_prints_a_column_for_each_number_of_shots(finished, bench):
    words = ("low-shot", "--shots", "1,3", "--draws", "2", "--layer", "conv3", "--workspace")
    data = ("--data", "scenes:train=60,test=20", "--workers", 0)
    made = bench.ok(*words, finished, *data)
    title, _, head = made.out.splitlines()[:3]
    assert title == "**low-shot/goyal19@1 shots=1,3 draws=2**"
    assert "conv3 map11_k1" in head
    assert head.count("map11_k") == 2
    assert "over the draws, Student's t" in made.out
    fails(bench("low-shot", "--shots", "1,x", "--workspace", finished, *data), 2, "1,2,4")
    fails(bench("low-shot", "--shots", "0", "--workspace", finished, *data), 2, "--shots")
