"""A class with few images, or none, takes nothing from the others, and it is said and recorded."""

import numpy as np
import pytest
import torch

from eval.linear_probe import LinearProbe, LinearProbeConfig
from eval.low_shot import LowShot, LowShotConfig
from eval.solvers.squared_hinge import Basis
from eval.splits import few_labels, held_out
from eval.svm import SVM, SVMConfig, choose_costs
from ssl_bench.errors import DataError
from ssl_bench.evaluation.features import Features
from ssl_bench.evaluation.harness import Probe
from ssl_bench.evaluation.metrics.precision import mean_average_precision
from ssl_bench.evaluation.rows import Rows

NAMES = ("ant", "bee", "eel")
COSTS = (0.1, 1.0, 10.0)


def clusters(counts: tuple[int, ...], seed: int, several: bool = False) -> Features:
    """Rows around a centre per class, of labels (N,) or targets (N, 3) of one class each."""
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = 2 * np.random.default_rng(9).normal(size=(3, 12))
    rows = centres[labels] + np.random.default_rng(seed).normal(size=(len(labels), 12))
    known = np.eye(3, dtype=np.int8)[labels] if several else labels
    return Features(Rows.of(torch.from_numpy(rows).float()), known, NAMES)


def measured(probe: Probe, train: Features, test: Features):
    outcome = probe.probe("conv1", {"train": train, "test": test})
    return outcome, probe.score(outcome.predictions)


@pytest.mark.parametrize(("name", "rare"), [("svm", 1), ("svm", 2), ("logreg", 1), ("knn", 1)])
def test_low_shot_takes_all_of_a_class_that_has_fewer(name, rare):
    config = LowShotConfig.model_validate({"probe": name, "shots": (2, 5), "draws": 1})
    outcome, scores = measured(
        LowShot(config), clusters((20, 20, rare), 0), clusters((20, 20, 20), 1)
    )
    assert outcome.selection["fewer"] == {"eel": rare}
    assert 60 < min(scores.values()) <= 100  # a strong penalty may give up the rare third


def test_low_shot_of_several_labels_does_so_class_by_class():
    config = LowShotConfig(shots=(1, 8), draws=2)
    outcome, scores = measured(
        LowShot(config), clusters((20, 20, 2), 0, several=True), clusters((9, 9, 9), 1, True)
    )
    assert outcome.selection["fewer"] == {"eel": 2}
    assert scores["map11_k8"] > 80


def test_where_nothing_is_rare_nothing_is_said():
    for probe in (SVM(SVMConfig(costs=COSTS)), LowShot(LowShotConfig(shots=(1, 8), draws=2)),
                  LinearProbe(LinearProbeConfig(strengths=3))):  # fmt: skip
        outcome, _ = measured(probe, clusters((12, 12, 12), 0), clusters((9, 9, 9), 1))
        assert not {"fewer", "fewer_folds", "not_held_out"} & outcome.selection.keys()


def test_costs_of_a_rare_class_are_chosen_by_the_folds_that_it_fills():
    """As by two folds of that class alone; the others' by three, as if it were not there."""
    train = clusters((30, 30, 2), 0, several=True)
    basis, targets = Basis.of(train.rows), train.targets
    found = choose_costs(basis, targets, COSTS, 3, 0)
    two = choose_costs(basis, targets[:, 2:], COSTS, 2, 0, [2])
    three = choose_costs(basis, targets[:, :2], COSTS, 3, 0)
    np.testing.assert_allclose(found.points, np.hstack([three.points, two.points]), rtol=1e-6)
    assert found.costs.tolist() == [*three.costs, *two.costs]


def test_of_one_image_no_cost_is_chosen():
    train, test = clusters((30, 30, 1), 0, several=True), clusters((9, 9, 9), 1, several=True)
    outcome, scores = measured(SVM(SVMConfig(costs=COSTS)), train, test)
    selection = outcome.selection
    assert selection["fewer_folds"] == {"eel": 1}
    assert selection["chosen"]["cost"]["eel"] == 1.0  # the grid's middle
    assert [*selection["points"]] == ["ant", "bee"]
    assert scores["map11"] > 80


def test_a_class_that_no_training_image_has_is_left_out_of_the_mean():
    train, test = clusters((30, 30, 0), 0, several=True), clusters((9, 9, 9), 1, several=True)
    for probe in (SVM(SVMConfig(costs=COSTS)), LowShot(LowShotConfig(shots=(4,), draws=1))):
        outcome, scores = measured(probe, train, test)
        assert outcome.selection["left_out"] == ["eel"]
        arrays = test.targets[:, :2], outcome.predictions["scores"].reshape(len(test), 3)[:, :2]
        expected = mean_average_precision(*arrays)["map11"]
        assert scores["map11" if "map11" in scores else "map11_k4"] == pytest.approx(expected)


def test_a_probe_keeps_a_class_of_one_image_to_fit():
    train, test = clusters((20, 20, 1), 0), clusters((20, 20, 20), 1)
    outcome, scores = measured(LinearProbe(LinearProbeConfig(strengths=3)), train, test)
    assert outcome.selection["not_held_out"] == ["eel"]
    assert scores["top1"] > 60


@pytest.mark.parametrize("counts", [(1, 1, 2), (2,) * 30, (1, 40), (3, 3)])
def test_held_out_images_of_small_classes(counts):
    """Every class is fitted; each of two images or more is held out, too."""
    labels = np.repeat(np.arange(len(counts)), counts)
    fitted, held = held_out(labels, 0.2, 0)
    assert np.sort(np.concatenate([fitted, held])).tolist() == list(range(len(labels)))
    assert set(labels[fitted]) == set(labels)
    assert set(labels[held]) == {c for c, count in enumerate(counts) if count > 1}
    again = held_out(labels, 0.2, 0)
    np.testing.assert_array_equal(held, again[1])


def test_nothing_can_be_held_out_of_single_images():
    with pytest.raises(DataError, match="none can be held out"):
        held_out(np.arange(5), 0.2, 0)


def test_few_labels_of_a_rare_class_are_all_that_there_are():
    labels = np.repeat([0, 1], [20, 3])
    assert np.bincount(labels[few_labels(labels, 5, 0)]).tolist() == [5, 3]
